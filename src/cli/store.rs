//! `lifeboat store`: everything that works from the store's folder alone.
use super::failure::{Failure, not_found, on_file};
use super::size;
use crate::agent::import::{self, Imported};
use crate::block::{DiskId, MachineId, PointId};
use crate::export::nbd::{Export, Listen, NbdServer};
use crate::export::to_raw;
use crate::replica::{At, Image, Retention, Store, VaultKey};
use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use serde_json::json;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Subcommand)]
pub enum StoreCommand {
    /// Make a new store, and its vault key if there is none
    Create(Place),
    /// Take a recovery point of disks or images that nothing writes to; only what differs is stored
    Import(ImportArgs),
    /// List machines, or the recovery points of one
    Points(PointsArgs),
    /// Write a disk at a recovery point to a file (raw)
    Export(ExportArgs),
    /// Offer a disk at a recovery point over NBD, read-only
    Nbd(NbdArgs),
    /// What the store holds, how much room it takes, and how much is left
    Stats(Place),
    /// Read everything and name any damage, with the recovery points it costs (exit code 3)
    Verify(Place),
    /// Thin recovery points by the default rule, fold what none of them tells apart, free the space
    Prune(PruneArgs),
}

#[derive(Args)]
pub struct Place {
    /// Folder of the store
    #[arg(long, env = "LIFEBOAT_STORE")]
    dir: PathBuf,
    /// Vault key [default: pki/vault.key beside the store's folder]
    #[arg(long, env = "LIFEBOAT_KEY_FILE")]
    key_file: Option<PathBuf>,
    /// One JSON document on standard output
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args)]
pub struct ImportArgs {
    #[command(flatten)]
    place: Place,
    /// Machine these disks belong to; made when it is new
    #[arg(long)]
    name: String,
    /// All disks of the machine, always in the same order: images or block devices
    #[arg(required = true)]
    disks: Vec<PathBuf>,
}

#[derive(Args)]
pub struct PointsArgs {
    #[command(flatten)]
    place: Place,
    /// Name or id of a machine
    machine: Option<String>,
}

#[derive(Args)]
pub struct Which {
    /// Name or id of the machine
    machine: String,
    /// Recovery point [default: the newest that is at least crash-consistent]
    #[arg(long)]
    point: Option<PointId>,
    /// Which disk, counted from 0 [default: the only one]
    #[arg(long)]
    disk: Option<usize>,
}

#[derive(Args)]
pub struct ExportArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    which: Which,
    /// File to make
    #[arg(long, short)]
    output: PathBuf,
}

#[derive(Args)]
pub struct NbdArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    which: Which,
    /// unix:PATH, or an address of this host such as 127.0.0.1:10809
    #[arg(long, default_value = "127.0.0.1:10809")]
    listen: String,
}

#[derive(Args)]
pub struct PruneArgs {
    #[command(flatten)]
    place: Place,
    /// Name or id of the machine
    machine: String,
    /// Hours to keep points for
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=360))]
    retention_hours: u32,
}

impl Place {
    fn key_file(&self) -> PathBuf {
        self.key_file.clone().unwrap_or_else(|| match self.dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.join("pki/vault.key"),
            _ => PathBuf::from("pki/vault.key"),
        })
    }

    fn read_only(&self) -> Result<Store, Failure> {
        Ok(Store::open_read_only(
            &self.dir,
            &VaultKey::load(&self.key_file())?,
        )?)
    }

    pub(super) fn writable(&self) -> Result<Store, Failure> {
        Ok(Store::open(&self.dir, &VaultKey::load(&self.key_file())?)?)
    }
}

pub fn run(command: StoreCommand) -> Result<(), Failure> {
    match command {
        StoreCommand::Create(place) => create(&place),
        StoreCommand::Import(args) => run_import(&args),
        StoreCommand::Points(args) => points(&args),
        StoreCommand::Export(args) => export(&args),
        StoreCommand::Nbd(args) => nbd(&args),
        StoreCommand::Stats(place) => stats(&place),
        StoreCommand::Verify(place) => verify(&place),
        StoreCommand::Prune(args) => prune(&args),
    }
}

/// Prints data; a reader that went away is no error.
pub(super) fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn table(header: &[&str], rows: Vec<Vec<String>>) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    rows.into_iter().for_each(|row| {
        table.add_row(row);
    });
    say(&table.to_string());
}

fn progress(what: &'static str) -> impl FnMut(u64, u64) {
    let bar = if std::io::stderr().is_terminal() {
        indicatif::ProgressBar::new(0)
    } else {
        indicatif::ProgressBar::hidden()
    };
    let style = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    bar.set_style(
        indicatif::ProgressStyle::with_template(style)
            .unwrap_or_else(|_| indicatif::ProgressStyle::default_bar()),
    );
    bar.set_message(what);
    move |done, total| {
        bar.set_length(total);
        bar.set_position(done);
        if done >= total {
            bar.finish_and_clear();
        }
    }
}

fn create(place: &Place) -> Result<(), Failure> {
    let key_file = place.key_file();
    if !key_file.exists() {
        if let Some(folder) = key_file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            let made = std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder);
            made.map_err(|e| on_file("make", folder, e))?;
        }
        VaultKey::generate().save(&key_file)?;
    }
    Store::create(&place.dir, &VaultKey::load(&key_file)?)?;
    if place.json {
        say(&json!({ "store": place.dir, "keyFile": key_file }).to_string());
    } else {
        say(&format!("store {} is ready", place.dir.display()));
        eprintln!(
            "Without the key {} nobody can read it: keep a copy elsewhere.",
            key_file.display()
        );
    }
    Ok(())
}

fn machine(store: &Store, name: &str) -> Result<MachineId, Failure> {
    let machines = store.machines();
    let mut matching = machines
        .iter()
        .filter(|machine| machine.name == name || machine.id.to_string() == name);
    match (matching.next(), matching.next()) {
        (Some(machine), None) => Ok(machine.id),
        (Some(_), Some(_)) => Err(not_found(format!(
            "several machines are named {name}; give the id"
        ))),
        _ => Err(not_found(format!("no machine {name} is in this store"))),
    }
}

fn run_import(args: &ImportArgs) -> Result<(), Failure> {
    let store = args.place.writable()?;
    let imported = import::import(&store, &args.name, &args.disks, &mut progress("reading"))?;
    let Imported {
        machine,
        point,
        consistency,
        note,
        read_bytes,
        changed_bytes,
        stored_bytes,
    } = imported;
    if args.place.json {
        say(&json!({
            "machineId": machine, "recoveryPoint": point, "consistency": consistency, "note": note,
            "readBytes": read_bytes, "changedBytes": changed_bytes, "storedBytes": stored_bytes,
        })
        .to_string());
    } else {
        say(&format!(
            "recovery point {point} ({consistency}): {} read, {} changed, {} stored",
            size::bytes(read_bytes),
            size::bytes(changed_bytes),
            size::bytes(stored_bytes),
        ));
        if !note.is_empty() {
            eprintln!("{note}");
        }
    }
    Ok(())
}

fn stats(place: &Place) -> Result<(), Failure> {
    let store = place.read_only()?;
    let machines = store.machines();
    let room =
        rustix::fs::statvfs(store.root()).map_err(|error| on_file("measure", store.root(), error.into()))?;
    let (free, capacity) = (room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize);
    let stored: u64 = machines.iter().map(|machine| machine.stored_bytes).sum();
    let instant = |nanos: Option<i64>| nanos.map_or_else(String::new, size::instant);
    if place.json {
        let list: Vec<_> = machines
            .iter()
            .map(|m| {
                json!({
                    "id": m.id, "name": m.name, "recoveryPoints": m.points, "layers": m.layers,
                    "diskBytes": m.disk_bytes, "storedBytes": m.stored_bytes,
                    "oldestPoint": m.oldest_point_unix_nanos.map(size::instant),
                    "newestPoint": m.newest_point_unix_nanos.map(size::instant),
                })
            })
            .collect();
        say(
            &json!({ "machines": list, "storedBytes": stored, "freeBytes": free, "capacityBytes": capacity })
                .to_string(),
        );
        return Ok(());
    }
    let rows = machines.iter().map(|m| {
        vec![
            m.name.clone(),
            size::bytes(m.disk_bytes),
            size::bytes(m.stored_bytes),
            m.points.to_string(),
            m.layers.to_string(),
            instant(m.oldest_point_unix_nanos),
            instant(m.newest_point_unix_nanos),
        ]
    });
    let head = [
        "NAME",
        "DISKS",
        "STORED",
        "RECOVERY POINTS",
        "LAYERS",
        "OLDEST",
        "NEWEST",
    ];
    table(&head, rows.collect());
    say(&format!(
        "{} stored, {} free of {}",
        size::bytes(stored),
        size::bytes(free),
        size::bytes(capacity)
    ));
    Ok(())
}

fn points(args: &PointsArgs) -> Result<(), Failure> {
    let store = args.place.read_only()?;
    let Some(name) = &args.machine else {
        let machines = store.machines();
        if args.place.json {
            let list: Vec<_> = machines
                .iter()
                .map(|m| json!({ "id": m.id, "name": m.name, "recoveryPoints": m.points, "storedBytes": m.stored_bytes }))
                .collect();
            say(&json!(list).to_string());
        } else if machines.is_empty() {
            eprintln!(
                "No machine is in this store yet. Next: lifeboat store import --dir DIR --name NAME DISK"
            );
        } else {
            let rows = machines.iter().map(|m| {
                vec![
                    m.name.clone(),
                    m.id.to_string(),
                    m.points.to_string(),
                    size::bytes(m.stored_bytes),
                ]
            });
            table(&["NAME", "ID", "RECOVERY POINTS", "STORED"], rows.collect());
        }
        return Ok(());
    };
    let points = store.points(machine(&store, name)?)?;
    if args.place.json {
        let list: Vec<_> = points
            .iter()
            .map(|p| {
                json!({
                    "id": p.id, "instant": size::instant(p.instant_unix_nanos), "consistency": p.consistency,
                    "note": p.note, "freezeMicros": p.freeze_micros, "disks": p.disks, "storedBytes": p.stored_bytes,
                })
            })
            .collect();
        say(&json!(list).to_string());
    } else if points.is_empty() {
        eprintln!("{name} has no recovery point yet.");
    } else {
        let rows = points.iter().rev().map(|p| {
            let stored = size::bytes(p.stored_bytes);
            vec![
                size::instant(p.instant_unix_nanos),
                p.consistency.to_string(),
                stored,
                p.id.to_string(),
                p.note.clone(),
            ]
        });
        table(
            &["INSTANT (UTC)", "CONSISTENCY", "STORED", "ID", "NOTE"],
            rows.collect(),
        );
    }
    Ok(())
}

fn image(store: &Store, which: &Which) -> Result<(Image, PointId), Failure> {
    let machine = machine(store, &which.machine)?;
    let points = store.points(machine)?;
    let good = points
        .iter()
        .rev()
        .find(|point| point.consistency > crate::block::Consistency::Fuzzy);
    let point = match which.point {
        Some(point) => point,
        None => {
            good.ok_or_else(|| not_found(format!("{} has no consistent recovery point", which.machine)))?
                .id
        }
    };
    let disks = store.disks(machine)?;
    let disk: DiskId = match (which.disk, disks.as_slice()) {
        (None, [only]) => only.id,
        (None, _) => {
            return Err(not_found(format!(
                "the machine has {} disks: give --disk",
                disks.len()
            )));
        }
        (Some(index), _) => {
            disks
                .get(index)
                .ok_or_else(|| not_found(format!("the machine has {} disks", disks.len())))?
                .id
        }
    };
    Ok((store.image(machine, disk, At::Point(point))?, point))
}

fn export(args: &ExportArgs) -> Result<(), Failure> {
    let store = args.place.read_only()?;
    let (image, point) = image(&store, &args.which)?;
    let result = to_raw(&image, &args.output, &mut progress("writing"));
    result.map_err(|e| on_file("export to", &args.output, e))?;
    if args.place.json {
        say(
            &json!({ "recoveryPoint": point, "bytes": image.size_bytes(), "output": args.output })
                .to_string(),
        );
    } else {
        say(&format!(
            "{} written: {} at {point}",
            args.output.display(),
            size::bytes(image.size_bytes())
        ));
    }
    Ok(())
}

fn nbd(args: &NbdArgs) -> Result<(), Failure> {
    let store = args.place.read_only()?;
    let (image, point) = image(&store, &args.which)?;
    let (listen, unix) = match args.listen.strip_prefix("unix:") {
        Some(path) => (Listen::Unix(path.into()), true),
        None => {
            let address = args.listen.parse().map_err(|_| Failure {
                code: 2,
                message: format!("{} is no address to listen on", args.listen),
                causes: "an address is unix:PATH or IP:PORT".into(),
                action: "for example --listen unix:disk.sock".into(),
            })?;
            (Listen::Tcp(address), false)
        }
    };
    let export = Export {
        name: args.which.machine.clone(),
        device: Arc::new(image),
    };
    let server = NbdServer::bind(listen, vec![export])
        .map_err(|e| on_file("listen on", Path::new(&args.listen), e))?;
    let name = &args.which.machine;
    let uri = match (unix, server.local_addr()) {
        (false, Some(address)) => format!("nbd://{address}/{name}"),
        _ => format!(
            "nbd+unix:///{name}?socket={}",
            args.listen.trim_start_matches("unix:")
        ),
    };
    if args.place.json {
        say(&json!({ "uri": uri, "recoveryPoint": point }).to_string());
    } else {
        say(&uri);
        eprintln!("Read-only, at recovery point {point}. Ctrl-C ends it.");
    }
    server.wait();
    Ok(())
}

fn verify(place: &Place) -> Result<(), Failure> {
    let report = place.read_only()?.verify(&mut progress("verifying"))?;
    if place.json {
        let damages: Vec<_> = report
            .damages
            .iter()
            .map(|d| {
                json!({
                    "machineId": d.machine, "diskId": d.disk, "object": d.object, "offset": d.offset,
                    "what": d.what, "recoveryPoints": d.points,
                })
            })
            .collect();
        let (layers, frames, bytes) = (report.layers, report.frames, report.bytes);
        say(&json!({ "layers": layers, "frames": frames, "bytes": bytes, "damages": damages }).to_string());
    } else {
        let (layers, frames) = (report.layers, report.frames);
        say(&format!(
            "{} read in {layers} layers and {frames} frames",
            size::bytes(report.bytes)
        ));
    }
    if report.damages.is_empty() {
        return Ok(());
    }
    for damage in &report.damages {
        let points = damage.points.len();
        eprintln!(
            "{} at {}: {}; {points} recovery points hit",
            damage.object.display(),
            damage.offset,
            damage.what
        );
    }
    Err(Failure {
        code: 3,
        message: format!("{} places are damaged", report.damages.len()),
        causes: "the medium lost or changed bytes, or something else than Lifeboat wrote to the store".into(),
        action: "use recovery points that are not hit, and take a new one; check the medium".into(),
    })
}

fn prune(args: &PruneArgs) -> Result<(), Failure> {
    let store = args.place.writable()?;
    let machine = machine(&store, &args.machine)?;
    let now = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
    let gone = store.prune(machine, now, &Retention::hours(args.retention_hours))?;
    let freed = store.compact(machine)?;
    if args.place.json {
        say(&json!({ "removed": gone, "freedBytes": freed }).to_string());
    } else {
        say(&format!(
            "{} recovery points removed, {} freed",
            gone.len(),
            size::bytes(freed)
        ));
    }
    Ok(())
}
