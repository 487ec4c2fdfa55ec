//! `lifeboat lab`: a whole site on this computer.
use super::failure::Failure;
use crate::lab::machine::DEFAULT_DISK_BYTES;
use crate::lab::run::{LabSettings, Tour, run as run_lab};
use clap::Args;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[derive(Args)]
#[command(after_help = "Examples:
  lifeboat lab                              two machines under replication, until Ctrl-C
  lifeboat lab --tour                       the lifecycle, unattended, every ledger judged
  lifeboat lab --tour plan                  all machines by a recovery plan: to the target, and home
  lifeboat lab --tour --json > figures.json the measured figures for scripts
Needs root for loop devices and change tracking; qemu-system-x86 to start machines.")]
pub struct LabArgs {
    /// How many machines [default: 2; with --tour 3]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=20))]
    machines: Option<u8>,
    /// Size of each machine's disk, e.g. 512M or 2G
    #[arg(long, default_value_t = super::size::Size(DEFAULT_DISK_BYTES))]
    disk_size: super::size::Size,
    /// Walk the lifecycle unattended and end: replicate; test failover and cleanup, of each machine and of a recovery plan;
    /// planned failover, reprotect and failback; unplanned failover, commit
    #[arg(long, value_enum, value_name = "WAY", num_args = 0..=1, default_missing_value = "all")]
    tour: Option<Tour>,
    /// Seconds that recovery points accumulate under load in the tour
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    load_seconds: u64,
    /// One JSON document with the measured figures on standard output, everything else on standard error
    #[arg(long)]
    json: bool,
    /// Leave the lab's folder as it is at the end
    #[arg(long)]
    keep: bool,
    /// Folder of the lab
    #[arg(long, default_value = "lifeboat-lab")]
    folder: PathBuf,
}

pub fn run(args: &LabArgs) -> Result<(), Failure> {
    let program =
        std::env::current_exe().map_err(|error| super::failure::failed("find this program", &error))?;
    let settings = LabSettings {
        machines: args.machines.unwrap_or(if args.tour.is_some() { 3 } else { 2 }),
        disk_bytes: args.disk_size.0,
        tour: args.tour,
        keep: args.keep,
        folder: std::path::absolute(&args.folder).unwrap_or_else(|_| args.folder.clone()),
        program,
        load: Duration::from_secs(args.load_seconds),
    };
    let stop = Arc::new(AtomicBool::new(false));
    listen(stop.clone())?;
    let report = run_lab(&settings, &stop);
    if args.json {
        super::store::say(&serde_json::to_string_pretty(&report).unwrap_or_default());
    }
    if report.ok {
        return Ok(());
    }
    Err(Failure {
        code: if stop.load(Ordering::SeqCst) { 130 } else { 1 },
        message: "the lab did not come to its end".into(),
        causes: "see above".into(),
        action: "see above; --keep leaves the logs".into(),
    })
}

/// The first signal ends the lab in order; children get it too where a terminal sends it, and end by themselves.
fn listen(stop: Arc<AtomicBool>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| super::failure::failed("start", &error))?;
    std::thread::spawn(move || {
        runtime.block_on(super::until_signalled());
        eprintln!("ending the lab: machines, agents, server, disks");
        stop.store(true, Ordering::SeqCst);
    });
    Ok(())
}
