//! Points of a machine at the target while its store is full, stumbles, or its server dies at any step of a point: what the
//! machine was told is written is there, and every point that was made is the disks at one instant, bit for bit.
use super::lifecycle::{NOTE, ok, points, wait_for};
use super::*;
use crate::export::{BlockDevice, Branch};
use crate::recovery::line::{Line, LineSpec};
use crate::replica::At;
use std::sync::atomic::{AtomicBool, Ordering};

const BLOCKS: u64 = DISK_BYTES / BLOCK_BYTES as u64;
/// Of a process that is to die: its folder, and the write of the store at which it does.
const ORDERS: &str = "LIFEBOAT_TEST_LINE";

/// Where the `number`-th write goes: disk and block. Close together in time, far apart on the disks.
fn place(number: u64) -> (usize, u64) {
    ((number % 2) as usize, 1 + number * 37 % (BLOCKS - 1))
}

fn content(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(BLOCK_BYTES / 8)
}

/// Both disks after so many writes, over a base whose first blocks hold 2.
fn model(writes: u64) -> [Vec<u8>; 2] {
    let mut disks = [vec![0; DISK_BYTES as usize], vec![0; DISK_BYTES as usize]];
    for disk in &mut disks {
        disk[..BLOCK_BYTES].fill(2);
    }
    // Every place is written again after 510 writes.
    for number in (writes + 1).saturating_sub(2 * BLOCKS).max(1)..=writes {
        let (disk, block) = place(number);
        let at = block as usize * BLOCK_BYTES;
        disks[disk][at..at + BLOCK_BYTES].copy_from_slice(&content(number));
    }
    disks
}

/// The number of writes that the disks hold; they hold nothing else.
fn prefix(disks: &[Vec<u8>; 2], story: &str) -> u64 {
    let number = |block: &[u8]| u64::from_le_bytes(block[..8].try_into().unwrap());
    let newest = disks
        .iter()
        .flat_map(|disk| disk.chunks(BLOCK_BYTES).skip(1).map(number))
        .max()
        .unwrap();
    assert!(
        *disks == model(newest),
        "{story}: not the disks after {newest} writes"
    );
    newest
}

fn read_point(store: &Store, machine: MachineId, disks: &[DiskId], point: PointId) -> [Vec<u8>; 2] {
    [0, 1].map(|index| {
        let image = store.image(machine, disks[index], At::Point(point)).unwrap();
        let mut bytes = vec![0; DISK_BYTES as usize];
        image.read_at(0, &mut bytes).unwrap();
        bytes
    })
}

/// When each write was given and answered.
#[derive(Default)]
struct Log(Mutex<Vec<(i64, i64)>>);

impl Log {
    fn answered(&self) -> u64 {
        self.0.lock().unwrap().len() as u64
    }

    /// Every point holds what was answered before its instant, and nothing that was given after it.
    fn check(&self, bed: &Bed, story: &str) -> usize {
        let log = self.0.lock().unwrap();
        let made: Vec<_> = points(bed)
            .into_iter()
            .filter(|point| point.note == NOTE)
            .collect();
        for point in &made {
            let story = format!("{story}: {point:?}");
            let held = prefix(
                &read_point(bed.store(), bed.machine, &bed.disks, point.id),
                &story,
            ) as usize;
            let before = log
                .iter()
                .take_while(|(_, end)| *end < point.instant_unix_nanos)
                .count();
            let given = log
                .iter()
                .take_while(|(begin, _)| *begin <= point.instant_unix_nanos)
                .count();
            assert!(held >= before, "{story}: {held} of {before} acknowledged writes");
            assert!(held <= given + 1, "{story}: {held} writes, {given} were given");
        }
        made.len()
    }
}

/// A workload that writes one block after the other, and waits for each.
struct Workload {
    log: Arc<Log>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Workload {
    fn start(bed: &Bed) -> Self {
        let (log, stop) = (Arc::new(Log::default()), Arc::new(AtomicBool::new(false)));
        let machine = bed.item().failover.unwrap().machine;
        let (written, stopped) = (log.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut disks = [
                Client::connect(&machine.disks[0]),
                Client::connect(&machine.disks[1]),
            ];
            for number in 1.. {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (disk, block) = place(number);
                let begin = now_unix_nanos();
                disks[disk].write(block * BLOCK_BYTES as u64, &content(number));
                written.0.lock().unwrap().push((begin, now_unix_nanos()));
            }
        });
        Self {
            log,
            stop,
            thread: Some(thread),
        }
    }

    fn stop(&mut self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
        self.log.answered()
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn newest(bed: &Bed) -> Option<PointId> {
    points(bed)
        .last()
        .filter(|point| point.note == NOTE)
        .map(|point| point.id)
}

/// A point with all of so many writes, made after now.
fn holds(bed: &Bed, writes: u64) {
    wait_for("no point holds what was written", || {
        let point = newest(bed)?;
        let disks = read_point(bed.store(), bed.machine, &bed.disks, point);
        (disks == model(writes)).then_some(())
    });
}

fn said(bed: &Bed, fact: impl Fn(&Fact) -> bool) -> bool {
    bed.facts.0.lock().unwrap().iter().any(fact)
}

#[test]
fn a_store_that_is_full_under_the_line_loses_nothing_and_says_so() {
    let bed = Bed::new();
    ok(&bed.run(failover()));
    let mut workload = Workload::start(&bed);
    wait_for("points", || (points(&bed).len() > 5).then_some(()));
    bed.storage.fail_after(7);
    wait_for("the full store", || {
        said(&bed, |fact| matches!(fact, Fact::StoreFull { .. })).then_some(())
    });
    let known = points(&bed).len();
    let before = workload.log.answered();
    wait_for("the machine goes on writing", || {
        (workload.log.answered() > before + 200).then_some(())
    });
    assert_eq!(points(&bed).len(), known, "no point without room");
    assert!(!said(&bed, |fact| matches!(fact, Fact::StoreHasRoom { .. })));
    bed.storage.heal();
    wait_for("room again", || {
        said(&bed, |fact| matches!(fact, Fact::StoreHasRoom { .. })).then_some(())
    });
    let writes = workload.stop();
    holds(&bed, writes);
    assert!(workload.log.check(&bed, "full") > 5);
}

#[test]
fn a_store_that_stumbles_at_any_write_under_the_line_loses_nothing_and_says_so() {
    let bed = Bed::with_fault(Fault::Once);
    ok(&bed.run(failover()));
    let mut workload = Workload::start(&bed);
    for write in 0..24 {
        let at = newest(&bed);
        bed.facts.0.lock().unwrap().clear();
        bed.storage.fail_after(write);
        wait_for("the fault", || bed.storage.has_failed().then_some(()));
        wait_for("it is said", || {
            said(&bed, |fact| matches!(fact, Fact::NoPointAtTarget { .. })).then_some(())
        });
        wait_for("a point after it", || {
            let facts = bed.facts.0.lock().unwrap();
            let trouble = facts
                .iter()
                .position(|fact| matches!(fact, Fact::NoPointAtTarget { .. }))?;
            let healed = facts[trouble..]
                .iter()
                .any(|fact| matches!(fact, Fact::PointSealed { .. }));
            healed.then_some(())
        });
        assert_ne!(newest(&bed), at);
    }
    let writes = workload.stop();
    holds(&bed, writes);
    assert!(workload.log.check(&bed, "stumbled") > 24);
}

/// What a process that is killed leaves for whoever comes after it.
#[derive(serde::Serialize, serde::Deserialize)]
struct Left {
    machine: MachineId,
    disks: Vec<DiskId>,
    failover: Failover,
    generation: u64,
}

/// Not a test of its own: the server that dies.
#[test]
fn a_server_that_dies() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    let (folder, write) = orders.rsplit_once(':').unwrap();
    let bed = Bed::dying(Path::new(folder));
    ok(&bed.run(failover()));
    let item = bed.item();
    let left = Left {
        machine: bed.machine,
        disks: bed.disks.clone(),
        failover: item.failover.clone().unwrap(),
        generation: item.generation,
    };
    std::fs::write(bed.folder.path().join("left"), serde_json::to_vec(&left).unwrap()).unwrap();
    let machine = item.failover.unwrap().machine;
    let mut disks = [
        Client::connect(&machine.disks[0]),
        Client::connect(&machine.disks[1]),
    ];
    let mut log = std::fs::File::create(bed.folder.path().join("log")).unwrap();
    let mut put = |number: u64| {
        let (disk, block) = place(number);
        disks[disk].write(block * BLOCK_BYTES as u64, &content(number));
        log.write_all(&number.to_le_bytes()).unwrap();
    };
    (1..60).for_each(&mut put);
    wait_for("a point", || newest(&bed));
    bed.storage.fail_after(write.parse().unwrap());
    for number in 60.. {
        put(number);
        std::thread::sleep(Duration::from_micros(300));
    }
}

#[test]
fn a_server_that_is_killed_at_any_step_of_a_point_loses_nothing() {
    let program = std::env::current_exe().unwrap();
    for write in 0..22 {
        let folder = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        let status = std::process::Command::new(&program)
            .args([
                "--exact",
                "recovery::tests::line::a_server_that_dies",
                "--nocapture",
            ])
            .env(ORDERS, format!("{}:{write}", folder.path().display()))
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap();
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        assert_eq!(signal, Some(libc::SIGABRT), "it was to die at write {write}");
        let story = format!("killed at write {write}");
        let name = entries(folder.path()).pop().unwrap();
        let folder = folder.path().join(name);
        let left: Left = serde_json::from_slice(&std::fs::read(folder.join("left")).unwrap()).unwrap();
        let answered = std::fs::metadata(folder.join("log")).unwrap().len() / 8;
        assert!(answered >= 59, "{story}: {answered}");
        let key = VaultKey::load(&folder.join("key")).unwrap();
        let store = Store::open(&folder.join("store"), &key).unwrap();
        let mut sealed = 0;
        for point in store.points(left.machine).unwrap() {
            if point.note == NOTE {
                prefix(
                    &read_point(&store, left.machine, &left.disks, point.id),
                    &format!("{story}: {point:?}"),
                );
                sealed += 1;
            }
        }
        assert!(sealed > 0, "{story}");
        // The next server opens the same branches, and goes on.
        let branches: Vec<_> = left
            .disks
            .iter()
            .map(|disk| {
                let base = store
                    .image(left.machine, *disk, At::Point(left.failover.point))
                    .unwrap();
                let files = folder
                    .join("vms")
                    .join(left.failover.job.to_string())
                    .join("disks")
                    .join(disk.to_string());
                (*disk, Arc::new(Branch::open(&files, Arc::new(base)).unwrap()))
            })
            .collect();
        let now = [0, 1].map(|index: usize| {
            let mut bytes = vec![0; DISK_BYTES as usize];
            branches[index].1.read_at(0, &mut bytes).unwrap();
            bytes
        });
        // The last one may have been written and not answered yet.
        let there = prefix(&now, &story);
        assert!(
            (answered..=answered + 1).contains(&there),
            "{story}: {there} of {answered} acknowledged writes"
        );
        let line = Line::start(LineSpec {
            store: store.clone(),
            machine: left.machine,
            base: left.failover.point,
            branches,
            generation: left.generation,
            report: Arc::new(()),
            every: Box::new(|| Duration::from_secs(60)),
        })
        .unwrap();
        let point = line.seal_now(LIMIT).unwrap();
        line.stop();
        let held = read_point(&store, left.machine, &left.disks, point);
        assert_eq!(prefix(&held, &story), there, "{story}");
    }
}
