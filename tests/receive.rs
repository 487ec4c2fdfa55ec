//! The way home: a real store and a real server of it, receivers that are the real program, an authority that says what the
//! test wants.
mod support;
use lifeboat::block::{BLOCK_BYTES, Frame, GRANULE_BYTES, MachineId, PointId};
use lifeboat::configuration_server::pki::Pki;
use lifeboat::process_server::{
    Handover, ReceiveDisk, ReceiveOrder, ReceivePhase, ReceivePoint, ReceiveReport, ReceiveService,
};
use lifeboat::replica::Store;
use lifeboat::wire::Refused;
use lifeboat::wire::proto::receive_client::ReceiveClient;
use lifeboat::wire::proto::{
    BlockRun, DigestsRequest, ReadRequest, ReceiveDiskReport, ReceiveReportRequest, Received,
};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;
use support::homeward::{Evil, EvilServer, Home, serve, wait_for};
use tokio_util::sync::CancellationToken;

const MIB: u64 = 1 << 20;

#[test]
fn only_what_differs_travels_then_deltas_then_the_proof() {
    // The second disk ends within a granule, and within a block.
    let mut home = Home::new(&[24 * MIB, 3 * MIB + 5 * 512]);
    let first = home.points[0].0;
    home.start();
    home.want(first, false);
    // What was on the original disks when they were left: nine granules are not as at the target.
    let mut left = home.now.clone();
    for granule in [0, 1, 2, 50, 100, 200, 383] {
        left[0][granule * GRANULE_BYTES + 77] ^= 1;
    }
    let last = left[1].len() - 1;
    left[1][last] ^= 1;
    left[1][GRANULE_BYTES] ^= 1;
    let one = home.image("one", &left[0]);
    // Larger than the original: what lies behind is somebody else's.
    let behind = vec![0xEE; 70_000];
    let two = home.image("two", &[left[1].as_slice(), &behind].concat());
    let targets = [one.as_path(), two.as_path()];
    let receiving = home.receive(&targets, &[]);
    let report = home.wait_holds(first);
    let copied = |report: &lifeboat::process_server::ReceiveReport| -> u64 {
        report.disks.iter().map(|disk| disk.copied_bytes).sum()
    };
    // Eight whole granules and the last one of the second disk, in whole blocks.
    let tail = (left[1].len() % GRANULE_BYTES).next_multiple_of(BLOCK_BYTES);
    assert_eq!(copied(&report), (8 * GRANULE_BYTES + tail) as u64);
    home.check(first, &targets);
    assert_eq!(home.pins(), [first]);

    // A delta is the blocks that changed, no more.
    let second = home.change(40, 1);
    let changed = home
        .disks
        .iter()
        .map(|disk| {
            let store = home.store();
            let set = store.changed_since(home.machine, *disk, first, lifeboat::replica::At::Point(second));
            set.unwrap().blocks() * BLOCK_BYTES as u64
        })
        .sum::<u64>();
    home.want(second, false);
    let after = home.wait_holds(second);
    assert_eq!(copied(&after) - copied(&report), changed);
    home.check(second, &targets);
    assert_eq!(home.pins(), [second]);

    // The machine stops at the target: the last delta, every disk read back, and the server hears it.
    let last = home.change(10, 2);
    home.want(last, true);
    let ended = receiving.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    home.check(last, &targets);
    let done = ended.line("done");
    assert_eq!(
        (&done["mayStart"], &done["mendedGranules"]),
        (&true.into(), &0.into())
    );
    let told = home.desk.lock().reports.last().cloned().unwrap();
    assert_eq!((told.phase, told.verified), (ReceivePhase::Done, Some(last)));
    let bytes = std::fs::read(&two).unwrap();
    assert_eq!(
        bytes[home.now[1].len()..],
        behind,
        "bytes behind the disk were changed"
    );
    let state = std::fs::read_dir(home.state()).unwrap().flatten();
    let state: Vec<_> = state
        .filter(|file| file.file_name().to_string_lossy().ends_with(".json"))
        .collect();
    assert_eq!(state.len(), 2, "identity and state");
}

#[test]
fn a_disk_that_was_changed_behind_the_receiver_is_mended_before_the_machine_may_start() {
    let mut home = Home::new(&[8 * MIB]);
    let first = home.points[0].0;
    home.start();
    home.want(first, false);
    let one = home.image("one", &vec![0; 8 << 20]);
    let receiving = home.receive(&[&one], &[]);
    home.wait_holds(first);
    let file = std::fs::File::options().write(true).open(&one).unwrap();
    file.write_all_at(b"something else wrote here", 5_000_000)
        .unwrap();
    file.sync_all().unwrap();
    home.want(first, true);
    let ended = receiving.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.line("done")["mendedGranules"], 1);
    assert_eq!(ended.line("mended")["granules"], 1);
    home.check(first, &[&one]);
}

/// The server as a process of its own, so that it can be killed: `point` and `final` come from a file that the test replaces.
#[test]
fn serves_until_it_is_killed() {
    let Some(folder) = std::env::var_os("RECEIVE_TEST_SERVER").map(PathBuf::from) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let pki = Pki::open(&folder.join("pki"), &["localhost".to_owned()]).unwrap();
    // The one before may still be dying.
    let store = wait_for("the store", || {
        Store::open(&folder.join("store"), &pki.vault_key).ok()
    });
    let desk = FileDesk {
        order: folder.join("order"),
        store: store.clone(),
    };
    let port: u16 = std::fs::read_to_string(folder.join("port"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    serve(
        runtime.handle(),
        ReceiveService::new(store, Arc::new(desk)),
        &pki,
        SocketAddr::from(([127, 0, 0, 1], port)),
        CancellationToken::new(),
    );
    let parent = std::os::unix::process::parent_id();
    loop {
        support::end_with_parent(parent);
        std::thread::sleep(Duration::from_millis(100));
    }
}

struct FileDesk {
    order: PathBuf,
    store: Store,
}

impl Handover for FileDesk {
    fn authenticate(&self, _: MachineId, _: &str) -> Result<(), Refused> {
        Ok(())
    }

    fn order(&self, _: MachineId, _: Option<&str>) -> Result<ReceiveOrder, Refused> {
        let text = std::fs::read_to_string(&self.order).unwrap();
        // So that the test knows that this very server was reached.
        let heard = self.order.with_extension("heard");
        std::fs::write(heard, std::process::id().to_string()).unwrap();
        let (point, is_final) = text.split_once(' ').unwrap();
        let machine = &self.store.machines()[0];
        let disks = self.store.disks(machine.id).unwrap();
        Ok(ReceiveOrder {
            machine: machine.id,
            name: machine.name.clone(),
            generation: 1,
            disks: disks
                .into_iter()
                .map(|disk| ReceiveDisk {
                    id: disk.id,
                    name: disk.name.clone(),
                    stable_id: disk.name,
                    size_bytes: disk.size_bytes,
                })
                .collect(),
            point: Some(ReceivePoint {
                id: point.parse().unwrap(),
                instant_unix_nanos: 0,
            }),
            is_final: is_final == "final",
            is_original: false,
        })
    }

    fn report(&self, _: MachineId, _: ReceiveReport) -> Result<(), Refused> {
        Ok(())
    }
}

/// A server process for the points of a home.
struct ServerProcess(Child);

impl ServerProcess {
    fn start(home: &Home) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "serves_until_it_is_killed", "--nocapture"])
            .env("RECEIVE_TEST_SERVER", home.folder.path())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn wait_heard(&self, home: &Home) {
        let pid = self.0.id().to_string();
        let heard = home.folder.path().join("order.heard");
        wait_for("a call", || {
            std::fs::read_to_string(&heard)
                .is_ok_and(|text| text == pid)
                .then_some(())
        });
    }

    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

fn want(home: &Home, point: PointId, is_final: bool) {
    let (path, fresh) = (
        home.folder.path().join("order"),
        home.folder.path().join("order.new"),
    );
    let kind = if is_final { "final" } else { "more" };
    std::fs::write(&fresh, format!("{point} {kind}")).unwrap();
    std::fs::rename(&fresh, &path).unwrap();
}

/// A home whose points are served by a process of its own, in a row of points.
fn apart() -> (Home, Vec<PointId>) {
    let mut home = Home::new(&[40 * MIB, 5 * MIB + 512]);
    for seed in 0..6 {
        home.change(600, seed);
    }
    home.store = None;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    home.address = free.local_addr().unwrap();
    drop(free);
    std::fs::write(home.folder.path().join("port"), home.address.port().to_string()).unwrap();
    home.identity(&home.state());
    let points = home.points.iter().map(|(point, _)| *point).collect();
    (home, points)
}

struct Random(u64);

impl Random {
    fn new() -> Self {
        let seed = lifeboat::rt::now_unix_nanos() as u64;
        eprintln!("seed {seed}");
        Self(seed)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 = u64::from_le_bytes(
            blake3::hash(&self.0.to_le_bytes()).as_bytes()[..8]
                .try_into()
                .unwrap(),
        );
        self.0 % end
    }
}

/// What the state file says of the disks is true, and never better than they are.
fn check_state(home: &Home, targets: &[&Path]) -> Option<String> {
    let path = home.state().join(format!("receive-{}.json", home.machine));
    let state: serde_json::Value = serde_json::from_slice(&std::fs::read(path).ok()?).unwrap();
    let content_of = |point: &serde_json::Value, disk: usize| {
        let point: PointId = point.as_str().unwrap().parse().unwrap();
        &home.points.iter().find(|(id, _)| *id == point).unwrap().1[disk]
    };
    let mut kinds = String::new();
    for (disk, target) in targets.iter().enumerate() {
        let Some(held) = state["disks"].get(home.disks[disk].to_string()) else {
            continue;
        };
        let content = &held["content"];
        let found = std::fs::read(target).unwrap();
        let kind = content["kind"].as_str().unwrap();
        kinds += kind;
        match kind {
            "at" => assert!(found == *content_of(&content["point"], disk), "not at its point"),
            "towards" => {
                let to = content_of(&content["point"], disk);
                if content["from"].is_null() {
                    let end = content["comparedBytes"].as_u64().unwrap() as usize;
                    assert!(found[..end] == to[..end], "not equal up to {end}");
                } else {
                    let from = content_of(&content["from"], disk);
                    for (index, block) in found.chunks(BLOCK_BYTES).enumerate() {
                        let at = index * BLOCK_BYTES;
                        let same = |other: &[u8]| block == &other[at..at + block.len()];
                        assert!(same(from) || same(to), "block {index} is of neither point");
                    }
                }
            }
            _ => {}
        }
    }
    Some(kinds)
}

#[test]
fn a_receiver_that_is_killed_at_any_instant_goes_on_where_it_was() {
    let (home, points) = apart();
    let _server = ServerProcess::start(&home);
    let one = home.image("one", &support::noise(40 << 20, 99));
    let two = home.image("two", &vec![0; (5 << 20) + 512]);
    let targets = [one.as_path(), two.as_path()];
    let mut random = Random::new();
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    for kill in 0..30 {
        want(&home, points[kill / 6], false);
        // Slowed down, so that the instants lie everywhere.
        let receiving = home.receive(&targets, &["--limit", "24M"]);
        std::thread::sleep(Duration::from_millis(20 + random.below(900)));
        receiving.kill();
        let state = check_state(&home, &targets).unwrap_or_else(|| "none".to_owned());
        *seen.entry(state).or_default() += 1;
    }
    eprintln!("states met: {seen:?}");
    assert!(seen.keys().any(|state| state.contains("towards")), "{seen:?}");
    let last = *points.last().unwrap();
    want(&home, last, true);
    let ended = home.receive(&targets, &[]).end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.line("done")["mendedGranules"], 0, "only the proof found it");
    home.check(last, &targets);
}

#[test]
fn a_server_that_is_killed_at_any_instant_is_waited_for() {
    let (home, points) = apart();
    let mut server = ServerProcess::start(&home);
    let one = home.image("one", &support::noise(40 << 20, 99));
    let two = home.image("two", &vec![0; (5 << 20) + 512]);
    let targets = [one.as_path(), two.as_path()];
    want(&home, points[0], false);
    let mut receiving = home.receive(&targets, &["--limit", "24M"]);
    let mut random = Random::new();
    for kill in 0..30 {
        want(&home, points[kill / 6], false);
        server.wait_heard(&home);
        std::thread::sleep(Duration::from_millis(random.below(400)));
        server.kill();
        assert!(
            !receiving.has_ended(),
            "the receiver gave up: {:?}",
            receiving.lines()
        );
        server = ServerProcess::start(&home);
    }
    let last = *points.last().unwrap();
    want(&home, last, true);
    let ended = receiving.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.line("done")["mendedGranules"], 0, "only the proof found it");
    eprintln!("lines: {:?}", ended.count());
    home.check(last, &targets);
}

#[test]
fn an_empty_disk_gets_everything_but_zeros() {
    let mut home = Home::new(&[32 * MIB]);
    let first = home.points[0].0;
    home.start();
    home.want(first, false);
    let one = home.folder.path().join("one");
    std::fs::File::create(&one).unwrap().set_len(32 << 20).unwrap();
    let ended = home.receive(&[&one], &["--once"]).end();
    // Held and verified, and not the final one.
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert!(ended.stderr.contains("do not start"), "{}", ended.stderr);
    let done = ended.line("done");
    assert_eq!(
        (&done["mayStart"], &done["copiedBytes"]),
        (&false.into(), &(24 * MIB).into())
    );
    home.check(first, &[&one]);
    use std::os::unix::fs::MetadataExt;
    let room = std::fs::metadata(&one).unwrap().blocks() * 512;
    assert!(room <= 25 * MIB, "{room} bytes are allocated");
    let told = home.desk.lock().reports.last().cloned().unwrap();
    assert_eq!(
        (told.phase, told.holds(), told.trouble),
        (ReceivePhase::Stopped, Some(first), None)
    );
    // The same again: nothing is compared, nothing is copied.
    let ended = home.receive(&[&one], &["--once"]).end();
    assert_eq!(ended.line("done")["copiedBytes"], 0);
    let comparing = |line: &&serde_json::Value| line["phase"] == "Comparing";
    assert!(ended.lines.iter().find(comparing).is_none());
    // Unless it is asked for.
    let ended = home.receive(&[&one], &["--once", "--compare"]).end();
    assert_eq!(
        (ended.code, &ended.line("done")["copiedBytes"]),
        (Some(3), &0.into())
    );
    assert!(ended.lines.iter().find(comparing).is_some());
}

#[test]
fn a_fenced_receiver_stops_and_says_why() {
    let mut home = Home::new(&[4 * MIB]);
    let first = home.points[0].0;
    home.start();
    home.want(first, false);
    let one = home.image("one", &vec![1; 4 << 20]);
    let receiving = home.receive(&[&one], &[]);
    home.wait_holds(first);
    // Newer orders for the same receiver are taken.
    let second = home.change(5, 1);
    let order = ReceiveOrder {
        generation: 2,
        ..home.order(second, false)
    };
    home.desk.lock().order = Some(order);
    let report = home.wait_holds(second);
    assert_eq!(report.generation, 2);
    home.desk.lock().refusal = Some(Refused::new(
        "OldOrders",
        "the way home of web1 was cancelled",
        "it was failed over again",
        "nothing is to be done here",
    ));
    let ended = receiving.end();
    assert_eq!(ended.code, Some(6), "{}", ended.stderr);
    for words in ["was cancelled", "failed over again", "nothing is to be done"] {
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
    }
    home.check(second, &[&one]);
}

#[test]
fn a_receiver_waits_for_its_order_and_ends_by_a_signal() {
    let mut home = Home::new(&[4 * MIB]);
    let first = home.points[0].0;
    home.start();
    let one = home.image("one", &vec![1; 4 << 20]);
    let receiving = home.receive(&[&one], &[]);
    receiving.wait_line("waiting");
    home.want(first, false);
    home.wait_holds(first);
    receiving.signal("INT");
    let ended = receiving.end();
    assert_eq!(ended.code, Some(130), "{}", ended.stderr);
    let told = home.desk.lock().reports.last().cloned().unwrap();
    assert_eq!((told.phase, told.trouble), (ReceivePhase::Stopped, None));
    // What it holds stays pinned for its return.
    assert_eq!(home.pins(), [first]);
}

#[test]
fn a_base_that_is_gone_costs_a_comparison_and_is_said() {
    let mut home = Home::new(&[8 * MIB]);
    let first = home.points[0].0;
    home.start();
    home.want(first, false);
    let one = home.image("one", &vec![1; 8 << 20]);
    assert_eq!(home.receive(&[&one], &["--once"]).end().code, Some(3));
    let second = home.change(3, 1);
    lifeboat::process_server::release_pins(home.store(), home.machine, home.receiver).unwrap();
    home.store()
        .keep_only(home.machine, |point| point.id == second)
        .unwrap();
    home.want(second, true);
    let ended = home.receive(&[&one], &[]).end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.line("baseGone");
    let copied = ended.line("done")["copiedBytes"].as_u64().unwrap();
    assert!(copied > 0 && copied <= 3 * GRANULE_BYTES as u64, "{copied}");
    home.check(second, &[&one]);
    assert_eq!(home.pins(), [second]);
}

#[test]
fn a_disk_that_does_not_keep_what_it_is_given_is_refused() {
    let mut home = Home::new(&[4 * MIB]);
    let first = home.points[0].0;
    home.start();
    home.want(first, false);
    let one = home.image("one", &vec![1; 4 << 20]);
    let receiving = home.receive(&[&one], &[]);
    home.wait_holds(first);
    // Somebody writes to it all the time.
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (stopped, path) = (stop.clone(), one.clone());
    let writer = std::thread::spawn(move || {
        let file = std::fs::File::options().write(true).open(path).unwrap();
        while !stopped.load(std::sync::atomic::Ordering::SeqCst) {
            file.write_all_at(b"not what was written", 1_000_000).unwrap();
        }
    });
    home.want(first, true);
    let ended = receiving.end();
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    writer.join().unwrap();
    assert_eq!(ended.code, Some(7), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("do not start the machine"),
        "{}",
        ended.stderr
    );
    let told = home.desk.lock().reports.last().cloned().unwrap();
    assert_eq!((told.phase, told.verified), (ReceivePhase::Stopped, None));
    assert_eq!(told.trouble.unwrap().code, "NotVerified");
    // Alone again, it is mended by comparing.
    let ended = home.receive(&[&one], &[]).end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    home.check(first, &[&one]);
}

#[test]
fn nothing_is_overwritten_by_mistake() {
    let mut home = Home::new(&[4 * MIB]);
    home.start();
    home.want(home.points[0].0, false);
    let content = support::noise(4 << 20, 5);
    let one = home.image("one", &content);
    let small = home.image("small", &content[..(4 << 20) - 512]);
    let missing = home.folder.path().join("missing");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command.args(["agent", "receive", "--machine", "web1", "--once", "--state-dir"]);
        command.arg(home.state()).args(arguments);
        support::homeward::Receiving::start(command).end()
    };
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let cases = [
        (vec!["--disk".to_owned(), path(&one)], 2, "not confirmed"),
        (vec!["--yes".to_owned()], 2, "no disk here was given for disk0"),
        (
            vec![
                "--yes".to_owned(),
                "--disk".to_owned(),
                format!("disk7={}", path(&one)),
            ],
            2,
            "disk7 is not a disk of web1",
        ),
        (
            vec!["--yes".to_owned(), "--disk".to_owned(), path(&small)],
            7,
            "the replica's disk has 4194304",
        ),
        (
            vec!["--yes".to_owned(), "--disk".to_owned(), path(&missing)],
            5,
            "does not exist",
        ),
        (
            vec!["--yes".to_owned(), "--disk".to_owned(), "/dev/null".to_owned()],
            7,
            "neither a block device nor",
        ),
    ];
    for (arguments, code, words) in cases {
        let ended = run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(ended.code, Some(code), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(words), "{arguments:?}: {}", ended.stderr);
        for line in ["error: ", "possible causes: ", "recommended action: "] {
            assert!(ended.stderr.contains(line), "{}", ended.stderr);
        }
    }
    assert!(std::fs::read(&one).unwrap() == content, "the disk was written to");
    assert!(home.desk.lock().reports.is_empty());
    // Confirmed once, it is known.
    assert_eq!(run(&["--yes", "--disk", &path(&one)]).code, Some(3));
    assert_eq!(run(&["--disk", &path(&one)]).code, Some(3));
    // Put another in its place: it is asked for again.
    std::fs::remove_file(&one).unwrap();
    std::fs::write(&one, support::noise(5 << 20, 6)).unwrap();
    assert_eq!(run(&["--disk", &path(&one)]).code, Some(2));
}

#[test]
fn a_disk_in_use_is_refused_and_none_is_mounted_meanwhile() {
    if support::lacks_root() {
        return;
    }
    let mut home = Home::new(&[16 * MIB]);
    let first = home.points[0].0;
    home.start();
    home.want(first, false);
    let file = home.folder.path().join("file");
    let disk = support::LoopDisk::attach(&file, 20 << 20);
    support::ok("mkfs.ext4", &["-q", disk.path()]);
    let point = home.folder.path().join("mounted");
    {
        let _mounted = support::Mounted::new(disk.path(), &point, "noatime");
        let ended = home.receive(&[&disk.0], &["--once"]).end();
        assert_eq!(ended.code, Some(7), "{}", ended.stderr);
        let words = format!("mounted on {}", point.display());
        assert!(ended.stderr.contains(&words), "{}", ended.stderr);
        support::umount(&point);
    }
    // The file beneath a loop device is in use, too.
    let ended = home.receive(&[&file], &["--once"]).end();
    assert_eq!(ended.code, Some(7), "{}", ended.stderr);
    assert!(ended.stderr.contains("loop device"), "{}", ended.stderr);
    // What is on it is shown before it is asked for.
    let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
    command.args(["agent", "receive", "--machine", "web1", "--state-dir"]);
    command.arg(home.state()).args(["--disk", disk.path()]);
    let ended = support::homeward::Receiving::start(command).end();
    assert!(
        ended.stderr.contains("ext4") && ended.stderr.contains("left alone"),
        "{}",
        ended.stderr
    );
    support::ok("mount", &["-o", "ro", disk.path(), point.to_str().unwrap()]);
    support::umount(&point);

    let receiving = home.receive(&[&disk.0], &[]);
    home.wait_holds(first);
    let mounted = Command::new("mount").arg(&disk.0).arg(&point).output().unwrap();
    assert!(!mounted.status.success(), "it was mounted under the receiver");
    // Grown meanwhile: fine.
    std::fs::File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_len(24 << 20)
        .unwrap();
    support::ok("losetup", &["-c", disk.path()]);
    let second = home.change(20, 1);
    home.want(second, false);
    home.wait_holds(second);
    // Shrunk below what is needed: another disk.
    std::fs::File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_len(8 << 20)
        .unwrap();
    support::ok("losetup", &["-c", disk.path()]);
    let third = home.change(20, 2);
    home.want(third, false);
    let ended = receiving.end();
    assert_eq!(ended.code, Some(7), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("is another disk than before"),
        "{}",
        ended.stderr
    );
    let told = home.desk.lock().reports.last().cloned().unwrap();
    assert_eq!(told.trouble.unwrap().code, "DiskReplaced");
}

#[test]
fn a_disk_that_fails_in_the_middle_is_told_and_a_new_one_starts_over() {
    if support::lacks_root() {
        return;
    }
    let mut home = Home::new(&[16 * MIB]);
    let first = home.points[0].0;
    home.start();
    home.want(first, true);
    // Writes fail behind the first 6 MiB.
    let point = home.folder.path().join("small");
    std::fs::create_dir_all(&point).unwrap();
    let _mounted = support::Mounted::of_kind("tmpfs", "tmpfs", &point, "size=6m");
    let bad = point.join("disk");
    std::fs::File::create(&bad).unwrap().set_len(16 << 20).unwrap();
    let ended = home.receive(&[&bad], &[]).end();
    assert_eq!(ended.code, Some(7), "{}", ended.stderr);
    assert!(ended.stderr.contains("put in a good disk"), "{}", ended.stderr);
    let told = home.desk.lock().reports.last().cloned().unwrap();
    assert_eq!((told.phase, told.holds()), (ReceivePhase::Stopped, None));
    assert_eq!(told.trouble.unwrap().code, "DiskFailed");
    let good = home.folder.path().join("good");
    std::fs::File::create(&good).unwrap().set_len(16 << 20).unwrap();
    let ended = home.receive(&[&good], &[]).end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    home.check(first, &[&good]);
}

#[test]
fn a_hostile_server_writes_nothing_that_was_not_asked_for() {
    for evil in Evil::ALL {
        let mut home = Home::new(&[MIB]);
        let order = home.order(home.points[0].0, false);
        home.start_with(EvilServer { evil, order });
        let content = support::noise(1 << 20, 5);
        let one = home.image("one", &content);
        let ended = home.receive(&[&one], &[]).end();
        assert_eq!(ended.code, Some(1), "{evil:?}: {}", ended.stderr);
        assert!(
            ended.stderr.contains("the server sent"),
            "{evil:?}: {}",
            ended.stderr
        );
        let found = std::fs::read(&one).unwrap();
        // The block that was asked for and came first may have been written, no other.
        let from = if evil == Evil::BlockTwice { BLOCK_BYTES } else { 0 };
        assert!(found[from..] == content[from..], "{evil:?}: the disk was changed");
    }
}

#[test]
fn the_server_takes_calls_with_limits() {
    let mut home = Home::new(&[MIB + 512]);
    let point = home.points[0].0;
    home.start();
    home.want(point, false);
    let identity = lifeboat::agent::identity::Identity::load(&home.state()).unwrap();
    let id = |bytes: &[u8; 16]| bytes.to_vec();
    let received = |generation| {
        Some(Received {
            machine_id: id(home.machine.as_bytes()),
            generation,
        })
    };
    let disk_id = id(home.disks[0].as_bytes());
    let code = |status: tonic::Status| Refused::of_status(&status).map(|refused| refused.code);
    home.runtime.block_on(async {
        let mut client = ReceiveClient::new(identity.channel().unwrap());
        let digests = DigestsRequest {
            received: received(1),
            disk_id: disk_id.clone(),
            point: id(point.as_bytes()),
            first_granule: 0,
            count: 17,
        };
        let mut stream = client.digests(digests.clone()).await.unwrap().into_inner();
        let part = stream.message().await.unwrap().unwrap();
        let expected: Vec<u8> = (home.now[0].chunks(GRANULE_BYTES))
            .flat_map(|granule| *blake3::hash(granule).as_bytes())
            .collect();
        assert!(part.digests == expected, "digests differ");
        assert!(stream.message().await.unwrap().is_none());
        type Change = fn(&mut DigestsRequest);
        let wrong: [(&str, Change); 8] = [
            ("OldOrders", |asked| {
                asked.received.as_mut().unwrap().generation = 0
            }),
            ("OldOrders", |asked| {
                asked.received.as_mut().unwrap().generation = 2
            }),
            ("Protocol", |asked| asked.received = None),
            ("Protocol", |asked| asked.disk_id = vec![1; 16]),
            ("Protocol", |asked| asked.disk_id = vec![1; 5]),
            ("PointGone", |asked| asked.point = vec![1; 16]),
            ("Protocol", |asked| asked.count = 18),
            ("Protocol", |asked| asked.first_granule = u64::MAX),
        ];
        for (index, (expected, change)) in wrong.into_iter().enumerate() {
            let mut asked = digests.clone();
            change(&mut asked);
            let refused = code(client.digests(asked).await.unwrap_err());
            assert_eq!(refused.as_deref(), Some(expected), "digests {index}");
        }
        let run = |first, count| BlockRun { first, count };
        let read = |runs: Vec<BlockRun>| ReadRequest {
            received: received(1),
            disk_id: disk_id.clone(),
            point: id(point.as_bytes()),
            runs,
        };
        // 257 blocks, the last one of 512 bytes.
        let mut stream = client
            .read(read(vec![run(3, 2), run(256, 1)]))
            .await
            .unwrap()
            .into_inner();
        let frame = Frame::parse(stream.message().await.unwrap().unwrap().frame).unwrap();
        let kinds: Vec<_> = (frame.extents().iter())
            .map(|extent| (extent.first, extent.count, extent.zero))
            .collect();
        assert_eq!(kinds, [(3, 2, false), (256, 1, true)]);
        assert!(frame.decompress().unwrap() == home.now[0][3 * BLOCK_BYTES..5 * BLOCK_BYTES]);
        let wrong = [
            vec![run(256, 2)],
            vec![run(0, 0)],
            vec![run(5, 1), run(4, 1)],
            vec![run(4, 2), run(5, 1)],
            vec![run(u64::MAX, 2)],
            vec![run(0, u64::MAX)],
            (0..4097).map(|_| run(0, 1)).collect(),
        ];
        for runs in wrong {
            let refused = code(client.read(read(runs.clone())).await.unwrap_err());
            assert_eq!(refused.as_deref(), Some("Protocol"), "{:?}", &runs[..1]);
        }
        // A point that is needed and is not there is not pinned, and what was pinned stays.
        let report = |keep: Vec<Vec<u8>>| ReceiveReportRequest {
            received: received(1),
            phase: "Copying".to_owned(),
            disks: vec![ReceiveDiskReport {
                disk_id: disk_id.clone(),
                keep,
                ..ReceiveDiskReport::default()
            }],
            ..ReceiveReportRequest::default()
        };
        client.report(report(vec![id(point.as_bytes())])).await.unwrap();
        assert_eq!(home.pins(), [point]);
        let refused = code(client.report(report(vec![vec![1; 16]])).await.unwrap_err());
        assert_eq!(
            (refused.as_deref(), home.pins()),
            (Some("PointGone"), vec![point])
        );
        let refused = code(
            client
                .report(report(vec![id(point.as_bytes()); 5]))
                .await
                .unwrap_err(),
        );
        assert_eq!(refused.as_deref(), Some("Protocol"));
        let mut odd = report(Vec::new());
        odd.phase = "Sleeping".to_owned();
        assert_eq!(
            code(client.report(odd).await.unwrap_err()).as_deref(),
            Some("Protocol")
        );
        assert_eq!(home.desk.lock().reports.len(), 1, "what was refused was told");
        // Nobody without a certificate.
        let tls = tonic::transport::ClientTlsConfig::new()
            .domain_name(lifeboat::wire::SERVER_NAME)
            .ca_certificate(tonic::transport::Certificate::from_pem(home.pki.ca_pem()));
        let endpoint = lifeboat::agent::identity::endpoint(&identity.server).unwrap();
        let channel = endpoint.tls_config(tls).unwrap().connect().await.unwrap();
        let refused = ReceiveClient::new(channel).digests(digests).await.unwrap_err();
        assert_eq!(code(refused).as_deref(), Some("NoCertificate"));
    });
}

#[test]
fn an_answer_that_is_lost_at_the_end_is_not_taken_for_a_yes() {
    let mut home = Home::new(&[2 * MIB]);
    let first = home.points[0].0;
    home.start();
    home.want(first, true);
    home.desk.lock().loses_the_last_answer = true;
    let one = home.image("one", &vec![1; 2 << 20]);
    let ended = home.receive(&[&one], &[]).end();
    assert_eq!(ended.code, Some(6), "{}", ended.stderr);
    for words in [
        "every disk is verified",
        "answer was lost",
        "lifeboat machine show",
    ] {
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
    }
    home.check(first, &[&one]);
}

#[test]
fn a_receiver_that_waits_long_renews_its_certificate() {
    use lifeboat::agent::identity::Identity;
    let mut site = support::network::Site::new();
    site.stop();
    site.client_life = Duration::from_secs(6);
    site.start();
    let joined = site.join(&site.spec("web1", Path::new("/nothing"))).unwrap();
    let state = site.state("web1");
    let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
    command
        .args(["agent", "receive", "--json", "--state-dir"])
        .arg(&state);
    let mut receiving = support::homeward::Receiving::start(command);
    receiving.wait_line("waiting");
    wait_for("another certificate", || {
        let now = Identity::load(&state).unwrap();
        (now.certificate_pem != joined.certificate_pem).then_some(())
    });
    // The new one is used: when the old one has ended, a server that was restarted lets the receiver in, and renews again.
    wait_for("the end of the old one", || {
        let now = lifeboat::rt::now_unix_nanos() / 1_000_000_000;
        (now > joined.not_after_unix).then_some(())
    });
    site.stop();
    let before = Identity::load(&state).unwrap();
    site.start();
    wait_for("a third certificate", || {
        let now = Identity::load(&state).unwrap();
        (now.certificate_pem != before.certificate_pem).then_some(())
    });
    assert!(!receiving.has_ended(), "{:?}", receiving.lines());
}

/// Figures, not a verdict: `cargo test --release --test receive how_fast -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn how_fast_it_is() {
    const BYTES: u64 = 1 << 30;
    let mut home = Home::new(&[BYTES]);
    home.start();
    let one = home.folder.path().join("one");
    std::fs::File::create(&one).unwrap().set_len(BYTES).unwrap();
    let run = |home: &Home, what: &str, point: PointId, more: &[&str]| {
        home.want(point, false);
        let begin = std::time::Instant::now();
        let ended = home.receive(&[&one], &[&["--once"], more].concat()).end();
        assert_eq!(ended.code, Some(3), "{}", ended.stderr);
        let holds = ended.line("holds")["seconds"].as_f64().unwrap();
        let done = ended.line("done");
        let all = begin.elapsed().as_secs_f64();
        let rate = |seconds: f64| BYTES as f64 / 1e6 / seconds;
        println!(
            "{what}: held after {holds:.2} s ({:.0} MB/s of disk), verified after {:.2} s more ({:.0} MB/s); copied {}, received {}",
            rate(holds),
            all - holds,
            rate(all - holds),
            done["copiedBytes"],
            done["receivedBytes"],
        );
    };
    let first = home.points[0].0;
    run(&home, "empty disk", first, &[]);
    run(&home, "equal disk, compared", first, &["--compare"]);
    let next = home.change(2600, 1);
    home.want(next, false);
    let begin = std::time::Instant::now();
    let ended = home.receive(&[&one], &["--once"]).end();
    println!(
        "delta of 1 % of the blocks: held after {}, verified after {:.2} s, received {}",
        ended.line("holds")["seconds"],
        begin.elapsed().as_secs_f64(),
        ended.line("done")["receivedBytes"],
    );
}
