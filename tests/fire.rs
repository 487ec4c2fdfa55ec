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
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::{LoopDisk, Mounted, Pins, lacks_root, ok, umount};

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

/// Numbers that processes share: records acknowledged, workers that are not at rest.
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
        file.set_len(16).unwrap();
        Self(memmap2::MmapRaw::map_raw(&file).unwrap())
    }

    fn at(&self, index: usize) -> &AtomicU64 {
        assert!(index < 2);
        // SAFETY: the mapping is aligned, 16 bytes long, and lives as long as `self`.
        unsafe { AtomicU64::from_ptr(self.0.as_mut_ptr().cast::<u64>().add(index)) }
    }

    fn get(&self) -> &AtomicU64 {
        self.at(0)
    }

    fn active(&self) -> &AtomicU64 {
        self.at(1)
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
    size: 64 << 20,
    rests: true,
};

/// Runs in a process of its own, started by the tests below; by itself it does nothing.
#[test]
fn worker() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    let [name, seed, rests, folder, counter, device] = &orders.split('|').collect::<Vec<_>>()[..] else {
        panic!("orders {orders:?}");
    };
    let counter = Counter::open(Path::new(counter));
    let scene = Scene {
        folder: Path::new(folder),
        device,
        counter: &counter,
        rests: *rests == "true",
        by_tools: by_tools(*rests == "true"),
        parent: std::os::unix::process::parent_id(),
    };
    counter.active().fetch_add(1, Ordering::SeqCst);
    match *name {
        "ledger" if scene.by_tools => write_ledger_by_tools(&scene),
        "ledger" => write_ledger(&scene),
        _ if scene.by_tools => fire_by_tools(&scene, seed.parse().unwrap()),
        _ => fire(&scene, seed.parse().unwrap()),
    }
}

/// Where the kernel knows no vfat, programs work on the device itself: a real file system, without any mount.
fn by_tools(rests: bool) -> bool {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap();
    rests && !known.split_whitespace().any(|name| name == "vfat")
}

/// What a worker works on.
struct Scene<'a> {
    folder: &'a Path,
    device: &'a str,
    counter: &'a Counter,
    rests: bool,
    by_tools: bool,
    parent: u32,
}

impl Scene<'_> {
    /// The load is bounded: a disk that changes faster than it can be copied gets no points, by design.
    fn pace(&self) {
        std::thread::sleep(Duration::from_millis(4));
        support::end_with_parent(self.parent);
        if !self.rests || !is_rest() {
            return;
        }
        self.sync();
        self.counter.active().fetch_sub(1, Ordering::SeqCst);
        while is_rest() {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.counter.active().fetch_add(1, Ordering::SeqCst);
    }

    fn sync(&self) {
        if self.by_tools {
            File::open(self.device).unwrap().sync_data().unwrap();
        } else {
            // SAFETY: the descriptor is open.
            unsafe { libc::syncfs(File::open(self.folder).unwrap().as_raw_fd()) };
        }
    }

    /// One program of mtools at a time: they change the whole table.
    fn tool(&self, program: &str, args: &[&str]) -> bool {
        let turn = File::create(self.folder.join("turn")).unwrap();
        turn.lock().unwrap();
        let output = Command::new(program)
            .args(["-i", self.device])
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("{program} is needed (tests/all.sh installs it): {error}"));
        output.status.success()
    }
}

/// All workers rest together.
fn is_rest() -> bool {
    lifeboat::rt::now_unix_nanos() / 1_000_000 % 700 > 200
}

/// A file per record, written anew as a whole.
fn write_ledger_by_tools(scene: &Scene) {
    let file = tempfile::NamedTempFile::new().unwrap();
    for number in 0.. {
        file.as_file()
            .write_all_at(&record(number), number * RECORD as u64)
            .unwrap();
        let path = file.path().to_str().unwrap();
        assert!(scene.tool("mcopy", &["-o", path, "::ledger"]));
        scene.sync();
        scene.counter.get().store(number + 1, Ordering::SeqCst);
        scene.pace();
    }
}

fn fire_by_tools(scene: &Scene, seed: u64) {
    let mut random = Random(seed);
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    loop {
        let name = format!("::file{seed}-{}", random.next(20));
        match random.next(4) {
            0 => drop(scene.tool("mdel", &[&name])),
            1 => drop(scene.tool("mren", &[&name, &format!("::file{seed}-{}", random.next(20))])),
            _ => {
                std::fs::write(path, vec![random.next(256) as u8; random.next(200_000) as usize]).unwrap();
                assert!(scene.tool("mcopy", &["-o", path, &name]));
            }
        }
        scene.pace();
    }
}

struct Worker(Child);

impl Worker {
    fn start(name: &str, seed: u64, kind: &Kind, folder: &Path, counter: &Path, device: &str) -> Self {
        let (folder, counter) = (folder.display(), counter.display());
        let orders = format!("{name}|{seed}|{}|{folder}|{counter}|{device}", kind.rests);
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "worker", "--nocapture"])
            .env(ORDERS, orders)
            .stdout(Stdio::null())
            // The programs that it starts go with it.
            .process_group(0)
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Its number is not given to another process before it was waited for.
        if let Some(group) = rustix::process::Pid::from_raw(self.0.id() as i32) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

/// Records that were fsynced: what a point must hold, and no gap before it.
fn write_ledger(scene: &Scene) {
    let file = File::options()
        .create(true)
        .append(true)
        .open(scene.folder.join("ledger"))
        .unwrap();
    for number in 0.. {
        std::io::Write::write_all(&mut (&file), &record(number)).unwrap();
        file.sync_data().unwrap();
        scene.counter.get().store(number + 1, Ordering::SeqCst);
        scene.pace();
    }
}

/// Buffered and direct writes, writes through a mapping, space allotted and taken back, truncation, new and removed
/// files. What a file system does not know is passed over.
fn fire(scene: &Scene, seed: u64) {
    let folder = scene.folder;
    let mut random = Random(seed);
    let size = 1u64 << 20;
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
                file.set_len(size - random.next(100_000)).unwrap();
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
        scene.pace();
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
        let tools = by_tools(kind.rests);
        let mounted = if tools {
            copy_out(&disk, mount_at);
            None
        } else {
            Some(Mounted::new(disk.path(), mount_at, kind.check_options))
        };
        let ledger = std::fs::read(mount_at.join("ledger")).unwrap();
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
        for entry in std::fs::read_dir(mount_at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                std::fs::read(&path).unwrap();
            }
        }
        if mounted.is_some() {
            umount(mount_at);
            std::mem::forget(mounted);
        }
    }
    run_checker(kind, &disk);
}

/// All files of a vfat that cannot be mounted here.
fn copy_out(disk: &LoopDisk, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).unwrap();
    ok("mcopy", &["-n", "-i", disk.path(), "::*", to.to_str().unwrap()]);
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
    let place = folder.path().join("mnt");
    std::fs::create_dir_all(&place).unwrap();
    let _mounted = (!by_tools(kind.rests)).then(|| Mounted::new(disk.path(), &place, kind.options));
    let store = Store::create(&folder.path().join("store"), &VaultKey::generate()).unwrap();
    let (machine, ids) = register(&store, "m", &[kind.size]).unwrap();
    let mut disks = [ProtectedDisk::open(&disk.0, ids[0]).unwrap()];
    let _pins = Pins::of(ids[0]);
    let mut writer = store.begin(machine, 1).unwrap();
    let mut reserve = Reserve::new().unwrap();
    let counter = folder.path().join("acknowledged");
    let acknowledged = Counter::open(&counter);
    let start = |name: &str, seed| Worker::start(name, seed, &kind, &place, &counter, disk.path());
    let mut workers = vec![start("ledger", 0)];
    workers.extend((1..4).map(|seed| start("fire", seed)));
    wait_for(|| acknowledged.get().load(Ordering::SeqCst) > 0);
    let mut points = Vec::new();
    let mut made = 0;
    let (mut skipped, mut unrested, mut freezes) = (0, 0, Vec::new());
    let begin = Instant::now();
    let mut last = 0;
    while made < POINTS {
        // Each point has something of its own, and begins while there is fire.
        wait_for(|| acknowledged.get().load(Ordering::SeqCst) > last);
        last = acknowledged.get().load(Ordering::SeqCst);
        // Every other cycle begins in the fire and has to find a quiet moment by itself.
        if kind.rests && unrested > made / 2 {
            wait_for(|| acknowledged.active().load(Ordering::SeqCst) == 0);
        }
        let mut witnessed = None;
        let mut witness = |moment| {
            if moment == Moment::Read {
                let count = acknowledged.get().load(Ordering::SeqCst);
                let begun = acknowledged.active().load(Ordering::SeqCst);
                let digests = digests(&disk.0, kind.size);
                let active = begun + acknowledged.active().load(Ordering::SeqCst);
                witnessed = Some((digests, count, active > 0));
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
            hold: None,
            round: None,
            quiesce: None,
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
        let (digests, count, active) = witnessed.unwrap();
        // Without a freeze a quiet moment may lie between two writes that belong together: such a point is what a
        // power cut leaves, and a file system without a journal may have to be repaired after that.
        let whole = !(kind.rests && active);
        unrested += usize::from(!whole);
        points.push((report.point, digests, whole.then_some(count)));
        made += usize::from(whole);
        for worker in &mut workers {
            assert!(worker.0.try_wait().unwrap().is_none(), "a worker ended");
        }
    }
    drop(workers);
    let records = acknowledged.get().load(Ordering::SeqCst);
    eprintln!(
        "{}: {} points in {:?}, {skipped} skipped, {records} records, longest freeze {:?}",
        kind.name,
        points.len(),
        begin.elapsed(),
        freezes.iter().max()
    );
    assert!(records > POINTS as u64, "the ledger hardly moved");
    for (number, (point, digests, acknowledged)) in points.iter().enumerate() {
        let image = store.image(machine, ids[0], At::Point(*point)).unwrap();
        let wrong: Vec<_> = (0..digests.len())
            .filter(|&g| image.granule_digest(g as u64).unwrap() != digests[g])
            .collect();
        assert!(
            wrong.is_empty(),
            "point {number} differs from the frozen disk in granules {wrong:?}"
        );
        let Some(acknowledged) = acknowledged else {
            continue;
        };
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
