//! `lifeboat agent replicate`: points of disks in use into a store on this host, without a server.
use super::failure::Failure;
use super::size;
use super::store::{Place, say};
use crate::agent::capture::{self, DiskReader};
use crate::agent::cycle::{self, CycleError, CycleSettings, ProtectedDisk, Reserve};
use crate::agent::freeze::FreezeError;
use crate::agent::import::{generation, register};
use crate::agent::quiesce::{Quiesce, Why};
use crate::rt::chain;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[derive(Args)]
pub struct ReplicateArgs {
    #[command(flatten)]
    place: Place,
    /// Name of this machine in the store
    #[arg(long)]
    name: String,
    /// All disks of the machine, whole ones, always in the same order
    #[arg(required = true)]
    disks: Vec<PathBuf>,
    /// Seconds from one recovery point to the next
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: u64,
    /// End after this many recovery points
    #[arg(long)]
    count: Option<u64>,
    /// Longest freeze in milliseconds; the guard thaws then, and no point is made
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(50..=60_000))]
    freeze_deadline: u64,
    /// Bring applications to rest for each point, by the hooks
    #[arg(long)]
    app_consistent: bool,
    /// Folder in which is kept what must be let go should this program be killed
    #[arg(
        long,
        value_name = "FOLDER",
        env = "LIFEBOAT_AGENT_STATE",
        default_value = "/var/lib/lifeboat-agent"
    )]
    state_dir: PathBuf,
    #[command(flatten)]
    hooks: super::quiesce::HookArgs,
}

pub fn run(args: &ReplicateArgs) -> Result<(), Failure> {
    capture::is_available()?;
    let store = args.place.writable()?;
    let sizes = args
        .disks
        .iter()
        .map(|path| Ok(DiskReader::open(path)?.size_bytes()))
        .collect::<Result<Vec<_>, Failure>>()?;
    let (machine, ids) = register(&store, &args.name, &sizes)?;
    let mut disks = args
        .disks
        .iter()
        .zip(ids)
        .map(|(path, id)| ProtectedDisk::open(path, id))
        .collect::<Result<Vec<_>, _>>()?;
    let mut writer = store.begin(machine, generation(&store, machine))?;
    let guard = std::env::current_exe().map_err(|source| CycleError::Memory {
        what: "find this program",
        source,
    })?;
    let mut made = 0;
    let mut reserve = Reserve::new()?;
    let quiesce = Quiesce {
        machine: args.name.clone(),
        ..args.hooks.settings(&args.state_dir)
    };
    loop {
        let begin = Instant::now();
        let mut settings = CycleSettings {
            guard: guard.clone(),
            freeze_deadline: Duration::from_millis(args.freeze_deadline),
            quiet_patience: Duration::from_secs(2),
            witness: None,
            progress: &mut |_| (),
            clock: &crate::rt::now_unix_nanos,
            cancel: &std::sync::atomic::AtomicBool::new(false),
            hold: None,
            round: None,
            quiesce: args.app_consistent.then_some((&quiesce, Why::Request)),
        };
        match cycle::run(&mut disks, &mut writer, &mut reserve, &mut settings) {
            Ok(report) => {
                made += 1;
                if args.place.json {
                    say(&json!({
                        "message_type": "status", "recoveryPoint": report.point, "consistency": report.consistency,
                        "note": report.note, "freezeMs": report.freeze.as_secs_f64() * 1000.0,
                        "comparedRawBytes": report.compared_raw_bytes, "changedRawBytes": report.changed_raw_bytes,
                        "readBytes": report.read_bytes, "passes": report.passes, "storedBytes": report.stored_bytes,
                        "seconds": begin.elapsed().as_secs_f64(), "hooks": report.hooks,
                    })
                    .to_string());
                } else {
                    say(&format!(
                        "recovery point {} ({}): {} shipped, {} stored, frozen {:.0} ms {}",
                        report.point,
                        report.consistency,
                        size::bytes(report.compared_raw_bytes + report.changed_raw_bytes),
                        size::bytes(report.stored_bytes),
                        report.freeze.as_secs_f64() * 1000.0,
                        report.note,
                    ));
                }
            }
            // No point this time, and nothing lost: the next cycle tries again.
            Err(error @ (CycleError::TooBusy(_) | CycleError::Freeze(FreezeError::Deadline))) => {
                eprintln!("no recovery point: {}", chain(&error));
            }
            Err(error) => return Err(error.into()),
        }
        if args.count.is_some_and(|count| made >= count) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs(args.every).saturating_sub(begin.elapsed()));
    }
}
