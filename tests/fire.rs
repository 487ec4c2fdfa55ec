//! Points of a file system under fire: every point equals, bit for bit, the disk as it was in the freeze; it mounts,
//! holds what was acknowledged before it, and passes the file system's own checker.
//!
//! The workers are processes of their own. In threads they would stop the agent: a store into a mapping of a frozen
//! file system waits with the memory map of its process locked, and the agent's next allocation waits for that.
mod support;
use lifeboat::agent::capture::{AlignedBuffer, DiskReader};
use lifeboat::agent::cycle::{self, CycleError, CycleSettings, Moment, ProtectedDisk, Reserve};
use lifeboat::agent::import::register;
use lifeboat::block::{Consistency, GRANULE_BYTES};
use lifeboat::export::to_raw;
use lifeboat::replica::{At, Store, VaultKey};
use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::{LoopDisk, Mounted, lacks_root, ok};

const POINTS: usize = 50;
const RECORD: usize = 64;
/// Where a worker finds its orders: kind, folder, file of the counter.
const ORDERS: &str = "LIFEBOAT_TEST_FIRE";

struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % below
    }
}

fn record(number: u64) -> [u8; RECORD] {
    let mut bytes = [0; RECORD];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    let hash = blake3::hash(&bytes[..8]);
    bytes[8..40].copy_from_slice(hash.as_bytes());
    bytes
}

/// A number that processes share.
struct Counter(memmap2::MmapRaw);

impl Counter {
    fn open(path: &Path) -> Self {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .unwrap();
        file.set_len(8).unwrap();
        Self(memmap2::MmapRaw::map_raw(&file).unwrap())
    }

    fn get(&self) -> &AtomicU64 {
        // SAFETY: the mapping is aligned, 8 bytes long, and lives as long as `self`.
        unsafe { AtomicU64::from_ptr(self.0.as_mut_ptr().cast()) }
    }
}

/// How a file system is set under fire.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    make: &'static [&'static str],
    options: &'static str,
    check_options: &'static str,
    checker: &'static [&'static str],
    size: u64,
    /// Cannot be frozen: the workers rest for part of each second, together, so that there are quiet moments.
    rests: bool,
}

const EXT4: Kind = Kind {
    name: "ext4",
    make: &["mkfs.ext4", "-q"],
    options: "discard",
    check_options: "rw",
    checker: &["e2fsck", "-fn"],
    size: 96 << 20,
    rests: false,
};

const XFS: Kind = Kind {
    name: "xfs",
    make: &["mkfs.xfs", "-q"],
    options: "discard",
    check_options: "rw,nouuid",
    checker: &["xfs_repair", "-n"],
    size: 320 << 20,
    rests: false,
};

const BTRFS: Kind = Kind {
    name: "btrfs",
    make: &["mkfs.btrfs", "-q"],
    options: "discard=async",
    check_options: "rw",
    checker: &["btrfs", "check", "--readonly"],
    size: 160 << 20,
    rests: false,
};

const VFAT: Kind = Kind {
    name: "vfat",
    make: &["mkfs.vfat", "-F", "32"],
    options: "discard",
    check_options: "rw",
    checker: &["fsck.vfat", "-n"],
    size: 40 << 20,
    rests: true,
};

/// Runs in a process of its own, started by the tests below; by itself it does nothing.
#[test]
fn worker() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    let [kind, seed, rests, folder, counter] = &orders.split('|').collect::<Vec<_>>()[..] else {
        panic!("orders {orders:?}");
    };
    let (folder, rests) = (Path::new(folder), *rests == "true");
    match *kind {
        "ledger" => write_ledger(folder, rests, &Counter::open(Path::new(counter))),
        _ => fire(folder, rests, seed.parse().unwrap()),
    }
}

struct Worker(Child);

impl Worker {
    fn start(kind: &str, seed: u64, rests: bool, folder: &Path, counter: &Path) -> Self {
        let orders = format!("{kind}|{seed}|{rests}|{}|{}", folder.display(), counter.display());
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "worker", "--nocapture"])
            .env(ORDERS, orders)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The load is bounded: a disk that changes faster than it can be copied gets no points, by design.
fn pace(rests: bool) {
    std::thread::sleep(Duration::from_millis(4));
    let millis = || lifeboat::rt::now_unix_nanos() / 1_000_000;
    while rests && millis() % 700 > 150 {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Records that were fsynced: what a point must hold, and no gap before it.
fn write_ledger(folder: &Path, rests: bool, acknowledged: &Counter) {
    let file = File::options()
        .create(true)
        .append(true)
        .open(folder.join("ledger"))
        .unwrap();
    for number in 0.. {
        std::io::Write::write_all(&mut (&file), &record(number)).unwrap();
        file.sync_data().unwrap();
        acknowledged.get().store(number + 1, Ordering::SeqCst);
        pace(rests);
    }
}

/// Buffered and direct writes, writes through a mapping, space allotted and taken back, truncation, new and removed
/// files. What a file system does not know is passed over.
fn fire(folder: &Path, rests: bool, seed: u64) {
    let mut random = Random(seed);
    let size = 3u64 << 20;
    let path = folder.join(format!("fire{seed}"));
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    file.set_len(size).unwrap();
    let direct = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(&path)
        .unwrap();
    let mut aligned = AlignedBuffer::new(64 << 10).unwrap();
    loop {
        let offset = random.next(size - (64 << 10));
        let byte = random.next(256) as u8;
        match random.next(9) {
            0 | 1 => file
                .write_all_at(&vec![byte; random.next(40_000) as usize + 1], offset)
                .unwrap(),
            2 => {
                aligned.fill(byte);
                let len = (random.next(16) as usize + 1) * 4096;
                direct
                    .write_all_at(&aligned[..len], offset / 4096 * 4096)
                    .unwrap();
            }
            3 => {
                // SAFETY: nothing else maps this file, and it keeps its length while the mapping lives.
                let mut map = unsafe { memmap2::MmapMut::map_mut(&file).unwrap() };
                map[offset as usize..offset as usize + 9000].fill(byte);
                map.flush_async().unwrap();
            }
            4 => {
                let mode = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
                let _ = rustix::fs::fallocate(&file, mode, offset, 50_000);
            }
            5 => {
                file.set_len(offset).unwrap();
                file.set_len(size).unwrap();
            }
            6 => {
                let name = folder.join(format!("file{seed}-{}", random.next(20)));
                std::fs::write(name, vec![byte; random.next(60_000) as usize]).unwrap();
            }
            7 => {
                let mode = rustix::fs::FallocateFlags::KEEP_SIZE;
                let _ = rustix::fs::fallocate(&file, mode, size, 300_000);
            }
            _ => {
                let _ = std::fs::remove_file(folder.join(format!("file{seed}-{}", random.next(20))));
                file.sync_data().unwrap();
            }
        }
        pace(rests);
    }
}

fn digests(device: &Path, size: u64) -> Vec<[u8; 32]> {
    let reader = DiskReader::open(device).unwrap();
    let mut buffer = AlignedBuffer::new(1 << 20).unwrap();
    let mut digests = Vec::new();
    for at in (0..size).step_by(1 << 20) {
        let len = (size - at).min(1 << 20) as usize;
        reader.read(at / 4096, &mut buffer[..len]).unwrap();
        digests.extend(
            buffer[..len]
                .chunks(GRANULE_BYTES)
                .map(|granule| *blake3::hash(granule).as_bytes()),
        );
    }
    digests
}

/// Mounts the raw image (which replays its journal), looks at the ledger, and runs the checker.
fn check(raw: &Path, mount_at: &Path, kind: &Kind, acknowledged: u64) {
    if kind.name == "vfat" {
        // It is marked as in use, as it was; the checker would only say that.
        let file = File::options().write(true).open(raw).unwrap();
        file.write_all_at(&[0], 0x41).unwrap();
        file.write_all_at(&[0], 6 * 512 + 0x41).unwrap();
    }
    let disk = LoopDisk::attach(raw, 0);
    if kind.name == "btrfs" {
        // Forgets the devices that are gone.
        ok("btrfs", &["device", "scan", "--forget"]);
    }
    if kind.name == "vfat" {
        // Without a journal there is nothing to replay: checked as it was found.
        run_checker(kind, &disk);
    }
    {
        let mounted = Mounted::new(disk.path(), mount_at, kind.check_options);
        let ledger = std::fs::read(mounted.0.join("ledger")).unwrap();
        let whole = ledger.len() / RECORD;
        assert!(
            whole as u64 >= acknowledged,
            "{whole} records of {acknowledged} acknowledged ones"
        );
        for (number, bytes) in ledger
            .chunks_exact(RECORD)
            .enumerate()
            .take(acknowledged as usize)
        {
            assert!(bytes == record(number as u64), "record {number} is wrong");
        }
        for entry in std::fs::read_dir(&mounted.0).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                std::fs::read(&path).unwrap();
            }
        }
        ok("umount", &[mounted.0.to_str().unwrap()]);
        std::mem::forget(mounted);
    }
    run_checker(kind, &disk);
}

fn run_checker(kind: &Kind, disk: &LoopDisk) {
    let (program, args) = kind.checker.split_first().unwrap();
    ok(program, &[args, &[disk.path()]].concat());
}

fn under_fire(kind: Kind) {
    if lacks_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let disk = LoopDisk::attach(&folder.path().join("disk"), kind.size);
    let (program, args) = kind.make.split_first().unwrap();
    ok(program, &[args, &[disk.path()]].concat());
    let mounted = Mounted::new(disk.path(), &folder.path().join("mnt"), kind.options);
    let store = Store::create(&folder.path().join("store"), &VaultKey::generate()).unwrap();
    let (machine, ids) = register(&store, "m", &[kind.size]).unwrap();
    let mut disks = [ProtectedDisk::open(&disk.0, ids[0]).unwrap()];
    let _pins = Pins(Path::new("/sys/fs/bpf/lifeboat").join(ids[0].to_string()));
    let mut writer = store.begin(machine, 1).unwrap();
    let mut reserve = Reserve::new().unwrap();
    let counter = folder.path().join("acknowledged");
    let acknowledged = Counter::open(&counter);
    let mut workers = vec![Worker::start("ledger", 0, kind.rests, &mounted.0, &counter)];
    workers.extend((1..4).map(|seed| Worker::start("fire", seed, kind.rests, &mounted.0, &counter)));
    wait_for(|| acknowledged.get().load(Ordering::SeqCst) > 0);
    let mut seen = Vec::new();
    let (mut skipped, mut freezes) = (0, Vec::new());
    let begin = Instant::now();
    while seen.len() < POINTS {
        let mut witnessed = None;
        let mut witness = |moment| {
            if moment == Moment::Read {
                let count = acknowledged.get().load(Ordering::SeqCst);
                witnessed = Some((digests(&disk.0, kind.size), count));
            }
        };
        let mut settings = CycleSettings {
            guard: env!("CARGO_BIN_EXE_lifeboat").into(),
            freeze_deadline: Duration::from_secs(60),
            quiet_patience: Duration::from_secs(10),
            witness: Some(&mut witness),
            progress: &mut |_| (),
            clock: &lifeboat::rt::now_unix_nanos,
            cancel: &AtomicBool::new(false),
        };
        let report = match cycle::run(&mut disks, &mut writer, &mut reserve, &mut settings) {
            Ok(report) => report,
            Err(CycleError::TooBusy(bytes)) if skipped < POINTS => {
                eprintln!("{}: skipped, {bytes} bytes were left", kind.name);
                skipped += 1;
                continue;
            }
            Err(error) => panic!("{error:?}"),
        };
        assert_eq!(
            report.consistency,
            Consistency::CrashConsistent,
            "{}",
            report.note
        );
        assert_eq!(report.freeze > Duration::ZERO, !kind.rests);
        freezes.push(report.freeze);
        seen.push((report.point, witnessed.unwrap()));
        for worker in &mut workers {
            assert!(worker.0.try_wait().unwrap().is_none(), "a worker ended");
        }
    }
    drop(workers);
    let records = acknowledged.get().load(Ordering::SeqCst);
    eprintln!(
        "{}: {POINTS} points in {:?}, {skipped} skipped, {records} records",
        kind.name,
        begin.elapsed()
    );
    assert!(records > POINTS as u64, "the ledger hardly moved");
    for (number, (point, (digests, acknowledged))) in seen.iter().enumerate() {
        let image = store.image(machine, ids[0], At::Point(*point)).unwrap();
        let wrong: Vec<_> = (0..digests.len())
            .filter(|&g| image.granule_digest(g as u64).unwrap() != digests[g])
            .collect();
        assert!(
            wrong.is_empty(),
            "point {number} differs from the frozen disk in granules {wrong:?}"
        );
        let raw = folder.path().join("raw");
        to_raw(&image, &raw, &mut |_, _| ()).unwrap();
        check(&raw, &folder.path().join("check"), &kind, *acknowledged);
        std::fs::remove_file(raw).unwrap();
    }
    eprintln!("{}: all points checked after {:?}", kind.name, begin.elapsed());
}

fn wait_for(mut state: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !state() {
        assert!(Instant::now() < end, "the state did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

struct Pins(PathBuf);

impl Drop for Pins {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let _ = std::fs::remove_file(entry.path());
        }
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn ext4_under_fire() {
    under_fire(EXT4);
}

#[test]
fn xfs_under_fire() {
    under_fire(XFS);
}

#[test]
fn btrfs_under_fire() {
    under_fire(BTRFS);
}

#[test]
fn vfat_under_fire() {
    under_fire(VFAT);
}
