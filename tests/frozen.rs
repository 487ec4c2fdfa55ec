//! While everything is frozen the agent needs nothing: no memory, no file, no log. So the frozen file system may be
//! the one it lives on, and being killed in that moment leaves nothing frozen and nothing lost.
mod support;
use lifeboat::agent::capture::{AlignedBuffer, DiskReader};
use lifeboat::agent::cycle::{self, CycleError, CycleReport, CycleSettings, Moment, ProtectedDisk, Reserve};
use lifeboat::agent::import::{generation, register};
use lifeboat::block::Consistency;
use lifeboat::replica::{At, ReplicaError, Store, VaultKey};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use support::{LoopDisk, Mounted, Pins, lacks_root, ok};

/// Counts what a thread allocates and frees while it is told to. The agent's other threads wait for frames to compress
/// meanwhile; those of other tests do not count.
struct Counting;

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

fn note() {
    // Not there any more while a thread ends.
    let _ = WATCHED.try_with(|watched| {
        if watched.get() {
            let _ = CALLS.try_with(|calls| calls.set(calls.get() + 1));
        }
    });
}

// SAFETY: everything is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note();
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note();
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Orders of the agent in a process of its own: disk, store, key file, guard, file of points made.
const ORDERS: &str = "LIFEBOAT_TEST_AGENT";

fn run_cycle(
    disk: &mut ProtectedDisk,
    store: &Store,
    guard: &Path,
    reserve: &mut Reserve,
    witness: &mut dyn FnMut(Moment),
) -> Result<CycleReport, CycleError> {
    let machine = store.machines()[0].id;
    let mut writer = store.begin(machine, generation(store, machine)).unwrap();
    let mut settings = CycleSettings {
        guard: guard.to_owned(),
        freeze_deadline: Duration::from_secs(20),
        quiet_patience: Duration::from_secs(1),
        witness: Some(witness),
        progress: &mut |_| (),
        clock: &lifeboat::rt::now_unix_nanos,
        cancel: &AtomicBool::new(false),
        hold: None,
        round: None,
        quiesce: None,
    };
    cycle::run(std::slice::from_mut(disk), &mut writer, reserve, &mut settings)
}

fn guard() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_lifeboat"))
}

/// An agent without a network; does nothing when it is not told to. A line per point: what was read, what was
/// compared, the freeze in milliseconds.
#[test]
fn agent() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    let [device, store, key, guard, log] = &orders.split('|').collect::<Vec<_>>()[..] else {
        panic!("orders {orders:?}");
    };
    let key = VaultKey::load(Path::new(key)).unwrap();
    // A guard that was just being started when its agent was killed holds the lock a moment longer.
    let mut opened = None;
    wait_for("the lock of the store", || {
        opened = match Store::open(Path::new(store), &key) {
            Err(ReplicaError::Locked(_)) => None,
            other => Some(other.unwrap()),
        };
        opened.is_some()
    });
    let store = opened.unwrap();
    let disk = store.disks(store.machines()[0].id).unwrap()[0].id;
    let mut disk = ProtectedDisk::open(Path::new(device), disk).unwrap();
    let mut reserve = Reserve::new().unwrap();
    let log = std::fs::File::options()
        .append(true)
        .create(true)
        .open(log)
        .unwrap();
    let parent = std::os::unix::process::parent_id();
    loop {
        support::end_with_parent(parent);
        match run_cycle(&mut disk, &store, Path::new(guard), &mut reserve, &mut |_| ()) {
            Ok(report) => {
                assert_eq!(
                    report.consistency,
                    Consistency::CrashConsistent,
                    "{}",
                    report.note
                );
                let (read, compared) = (report.read_bytes, report.compared_raw_bytes);
                let line = format!("{read} {compared} {}\n", report.freeze.as_millis());
                std::io::Write::write_all(&mut (&log), line.as_bytes()).unwrap();
            }
            Err(CycleError::TooBusy(_)) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// Writes into files of a folder until it is killed.
#[test]
fn writer() {
    let Ok(folder) = std::env::var("LIFEBOAT_TEST_WRITER") else {
        return;
    };
    let file = std::fs::File::create(Path::new(&folder).join("written")).unwrap();
    let mut aligned = AlignedBuffer::new(16384).unwrap();
    let direct = std::fs::File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(libc::O_DIRECT)
        .open(Path::new(&folder).join("direct"))
        .unwrap();
    let parent = std::os::unix::process::parent_id();
    for number in 0u64.. {
        support::end_with_parent(parent);
        let place = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        file.write_all_at(&number.to_le_bytes().repeat(900), place % (6 << 20))
            .unwrap();
        aligned.fill(number as u8);
        direct.write_all_at(&aligned, place % 256 * 16384).unwrap();
        if number % 64 == 0 {
            file.sync_data().unwrap();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

struct Killed(Child);

impl Killed {
    fn start(program: &Path, test: &str, variable: &str, orders: &str, home: &Path) -> Self {
        let child = Command::new(program)
            .args(["--exact", test, "--nocapture"])
            .env(variable, orders)
            .env("TMPDIR", home)
            .current_dir(home)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Field order is drop order.
struct Site {
    _pins: Pins,
    mount: Mounted,
    disk: LoopDisk,
    store: PathBuf,
    key: PathBuf,
    folder: tempfile::TempDir,
}

impl Site {
    fn new(size: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let disk = LoopDisk::attach(&folder.path().join("disk"), size);
        ok("mkfs.ext4", &["-q", disk.path()]);
        let mount = Mounted::new(disk.path(), &folder.path().join("mnt"), "rw");
        let (store, key) = (folder.path().join("store"), folder.path().join("key"));
        let secret = VaultKey::generate();
        secret.save(&key).unwrap();
        let opened = Store::create(&store, &secret).unwrap();
        let (_, disks) = register(&opened, "m", &[size]).unwrap();
        Self {
            _pins: Pins::of(disks[0]),
            mount,
            disk,
            store,
            key,
            folder,
        }
    }

    fn open(&self) -> Store {
        Store::open(&self.store, &VaultKey::load(&self.key).unwrap()).unwrap()
    }

    fn start_agent(&self, program: &Path, guard: &Path, home: &Path) -> Killed {
        let orders = [
            self.disk.path().to_owned(),
            self.store.display().to_string(),
            self.key.display().to_string(),
            guard.display().to_string(),
            self.log().display().to_string(),
        ];
        Killed::start(program, "agent", ORDERS, &orders.join("|"), home)
    }

    fn start_writer(&self) -> Killed {
        let (program, home) = (std::env::current_exe().unwrap(), self.folder.path());
        let folder = self.mount.0.to_str().unwrap();
        Killed::start(&program, "writer", "LIFEBOAT_TEST_WRITER", folder, home)
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Bytes read and compared, and the freeze in milliseconds, of each point.
    fn points(&self) -> Vec<[u64; 3]> {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        text.lines()
            .filter_map(|line| {
                let numbers: Vec<u64> = line.split(' ').map_while(|word| word.parse().ok()).collect();
                numbers.try_into().ok()
            })
            .collect()
    }
}

fn wait_for(what: &str, mut state: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(120);
    while !state() {
        assert!(Instant::now() < end, "did not come: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn nothing_is_allocated_while_frozen() {
    if lacks_root() {
        return;
    }
    let site = Site::new(64 << 20);
    let store = site.open();
    let id = store.disks(store.machines()[0].id).unwrap()[0].id;
    let mut disk = ProtectedDisk::open(&site.disk.0, id).unwrap();
    let mut reserve = Reserve::new().unwrap();
    run_cycle(&mut disk, &store, guard(), &mut reserve, &mut |_| ()).unwrap();
    let _writer = site.start_writer();
    let path = site.mount.0.join("scattered");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(16 << 20).unwrap();
    for round in 0..5u64 {
        // Little enough for no pass, much enough for more reads than go at once.
        for index in 0..200u64 {
            file.write_all_at(&[round as u8; 100], (index * 19 + round) % 4096 * 4096)
                .unwrap();
        }
        let mut witness = |moment| match moment {
            Moment::Frozen => {
                CALLS.set(0);
                WATCHED.set(true);
            }
            Moment::Read => {}
            Moment::Thawed => WATCHED.set(false),
        };
        let report = run_cycle(&mut disk, &store, guard(), &mut reserve, &mut witness).unwrap();
        assert_eq!(CALLS.get(), 0, "allocated while frozen");
        assert!(report.freeze > Duration::ZERO && report.read_bytes > 0);
        assert_eq!(
            report.consistency,
            Consistency::CrashConsistent,
            "{}",
            report.note
        );
    }
    // The count works.
    WATCHED.set(true);
    drop(Box::new(5));
    WATCHED.set(false);
    assert!(CALLS.get() >= 2);
}

/// Program, guard, working folder and temporary files lie on the file system that is frozen.
#[test]
fn the_frozen_file_system_is_the_one_it_lives_on() {
    if lacks_root() {
        return;
    }
    let site = Site::new(512 << 20);
    let home = site.mount.0.join("home");
    std::fs::create_dir(&home).unwrap();
    let (program, own_guard) = (home.join("agent"), home.join("lifeboat"));
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    std::fs::copy(guard(), &own_guard).unwrap();
    let _writer = site.start_writer();
    let mut agent = site.start_agent(&program, &own_guard, &home);
    wait_for("points", || {
        assert!(agent.0.try_wait().unwrap().is_none(), "the agent ended");
        site.points().len() >= 15
    });
    // A freeze that waits for itself would last to the deadline.
    let longest = site.points().iter().map(|point| point[2]).max().unwrap();
    assert!(longest < 10_000, "frozen for {longest} ms");
}

/// The final image equals the disk, though the agent was killed at any instant; nothing is compared again, and no
/// file system stays frozen.
#[test]
fn an_agent_killed_at_any_instant_misses_nothing() {
    if lacks_root() {
        return;
    }
    let site = Site::new(48 << 20);
    let writer = site.start_writer();
    let program = std::env::current_exe().unwrap();
    let mut random = 12345u64;
    let mut points = 0;
    for round in 0..40 {
        let mut agent = site.start_agent(&program, guard(), site.folder.path());
        // The first life ends after a point, the others when it so happens.
        if round == 0 {
            wait_for("the first point", || !site.points().is_empty());
        }
        random = random
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        std::thread::sleep(Duration::from_millis((random >> 33) % 1200));
        agent.0.kill().unwrap();
        agent.0.wait().unwrap();
        let probe = site.mount.0.join("probe");
        let begin = Instant::now();
        std::fs::write(probe, round.to_string()).unwrap();
        assert!(begin.elapsed() < Duration::from_secs(15), "left frozen");
        points = site.points().len();
    }
    drop(writer);
    eprintln!("{points} points in 40 lives");
    let agent = site.start_agent(&program, guard(), site.folder.path());
    wait_for("a point after the last write", || {
        site.points().len() > points + 1
    });
    drop(agent);
    let all = site.points();
    let size = DiskReader::open(&site.disk.0).unwrap().size_bytes();
    assert!(all[0][1] > 0, "the first point compares");
    assert!(
        all[1..]
            .iter()
            .all(|[read, compared, _]| *compared == 0 && *read < size),
        "compared again: {all:?}"
    );
    ok("mount", &["-o", "remount,ro", site.mount.0.to_str().unwrap()]);
    // That writes; one more point holds it.
    let points = all.len();
    let agent = site.start_agent(&program, guard(), site.folder.path());
    wait_for("the last point", || site.points().len() > points);
    drop(agent);
    let store = site.open();
    let machine = store.machines()[0].id;
    let id = store.disks(machine).unwrap()[0].id;
    let image = store.image(machine, id, At::Latest).unwrap();
    let reader = DiskReader::open(&site.disk.0).unwrap();
    let mut disk = AlignedBuffer::new(1 << 20).unwrap();
    let mut stored = vec![0; 1 << 20];
    for at in (0..size).step_by(1 << 20) {
        reader.read(at / 4096, &mut disk).unwrap();
        image.read_at(at, &mut stored).unwrap();
        assert!(
            disk[..] == stored[..],
            "the image differs in the MiB from {at} on"
        );
    }
}
