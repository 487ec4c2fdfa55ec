//! Replication groups: two machines, and a writer that sends each number to the second only when the first has it on its disk.
//! Whatever shared point is looked at, the second never holds what the first has not.
#[path = "support/serve.rs"]
mod serve;
mod support;
use lifeboat::block::MachineId;
use lifeboat::replica::{At, RecoveryPoint, Store, VaultKey};
use serde_json::{Value, json};
use serve::{LIFEBOAT, Site};
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::{LoopDisk, Mounted, lacks_root, ok, wait_for};

const SHARED_POINTS: u64 = 32;
const BLOCK: usize = 4096;

struct Machine {
    name: &'static str,
    folder: PathBuf,
    agent: Option<Child>,
    /// Where on the disk the number lies, in blocks.
    block: u64,
    mounted: Option<Mounted>,
    /// After what lies on it.
    _disk: LoopDisk,
}

impl Machine {
    fn new(site: &Site, folder: &std::path::Path, name: &'static str) -> Self {
        let folder = folder.join(name);
        std::fs::create_dir_all(folder.join("quiesce.d")).unwrap();
        let disk = LoopDisk::attach(&folder.join("disk"), 64 << 20);
        ok("mkfs.ext4", &["-q", "-b", "4096", disk.path()]);
        let mounted = Mounted::new(disk.path(), &folder.join("mnt"), "noatime");
        // Written in place from now on, so that the number is always in the same block.
        let number = File::create(mounted.0.join("number")).unwrap();
        number.write_all_at(&[0; BLOCK], 0).unwrap();
        number.sync_all().unwrap();
        let text = ok("debugfs", &["-R", "bmap /number 0", disk.path()]);
        let block = text
            .lines()
            .find_map(|line| line.trim().parse().ok())
            .unwrap_or_else(|| panic!("{text}"));
        site.join(name, &folder.join("state"), &[disk.path()]);
        let mut machine = Self {
            name,
            folder,
            agent: None,
            block,
            mounted: Some(mounted),
            _disk: disk,
        };
        machine.start();
        machine
    }

    fn start(&mut self) {
        let mut command = Command::new(LIFEBOAT);
        command
            .args(["agent", "run", "--state-dir"])
            .arg(self.folder.join("state"))
            .arg("--quiesce-dir")
            .arg(self.folder.join("quiesce.d"))
            .stderr(Stdio::null());
        self.agent = Some(command.spawn().unwrap());
    }

    fn stop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }

    fn hook(&self, script: &str) {
        let path = self.folder.join("quiesce.d/10-app");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    fn points(&self, site: &Site) -> Vec<Value> {
        let list = site.cli(&["recovery-point", "list", self.name, "--limit", "1000"]);
        list["items"].as_array().unwrap().clone()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop();
        self.mounted = None;
        let text = std::fs::read_to_string(self.folder.join("state/kept.json")).unwrap_or_default();
        let kept: Value = serde_json::from_str(&text).unwrap_or_default();
        for disk in kept["tracked"].as_array().into_iter().flatten() {
            if let Some(Ok(disk)) = disk.as_str().map(str::parse) {
                lifeboat::agent::capture::forget(disk);
            }
        }
    }
}

/// Writes 1, 2, 3 ...: each to the first disk, and when it is durable there, to the second. And noise to both.
struct Writer {
    stop: Arc<AtomicBool>,
    last: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Writer {
    fn start(machines: &[Machine]) -> Self {
        let (stop, last) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut threads = Vec::new();
        let files: Vec<File> = machines
            .iter()
            .map(|machine| {
                let path = machine.mounted.as_ref().unwrap().0.join("number");
                File::options().write(true).open(path).unwrap()
            })
            .collect();
        let (stopped, written) = (stop.clone(), last.clone());
        threads.push(std::thread::spawn(move || {
            for number in 1u64.. {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                for file in &files {
                    file.write_all_at(&number.to_le_bytes(), 0).unwrap();
                    file.sync_data().unwrap();
                }
                written.store(number, Ordering::SeqCst);
            }
        }));
        for machine in machines {
            let path = machine.mounted.as_ref().unwrap().0.join("noise");
            let file = File::create(path).unwrap();
            let stopped = stop.clone();
            threads.push(std::thread::spawn(move || {
                let mut seed = 1u64;
                while !stopped.load(Ordering::SeqCst) {
                    seed = seed
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    let at = (seed >> 33) % 4096 * BLOCK as u64;
                    file.write_all_at(&seed.to_le_bytes().repeat(BLOCK / 8), at)
                        .unwrap();
                    // A load, not a flood: this machine is shared.
                    std::thread::sleep(Duration::from_millis(2));
                }
            }));
        }
        Self { stop, last, threads }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn group(site: &Site) -> Value {
    site.cli(&["group", "show", "shop"])
}

fn protect(site: &Site, machines: &[Machine]) {
    for machine in machines {
        wait_for("an inventory", || {
            let found = site.cli(&["machine", "list"]);
            let found = found["items"].as_array()?.clone();
            let known = found.iter().find(|row| row["name"] == machine.name)?;
            known["disks"].as_array()?.first().cloned()
        });
        site.cli(&["protect", machine.name, "--policy", "quick", "--wait"]);
    }
}

#[test]
fn the_second_never_holds_what_the_first_has_not() {
    if lacks_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut site = Site::start();
    site.quick_policy("5");
    let mut machines = vec![
        Machine::new(&site, folder.path(), "first"),
        Machine::new(&site, folder.path(), "second"),
    ];
    let writer = Writer::start(&machines);
    protect(&site, &machines);
    // Points of their own first: for the comparison.
    wait_for("points of their own", || {
        machines
            .iter()
            .all(|machine| machine.points(&site).len() >= 5)
            .then_some(())
    });
    let made = site.cli(&[
        "group",
        "create",
        "shop",
        "first",
        "second",
        "--share-seconds",
        "1",
        "--app-consistent-seconds",
        "0",
    ]);
    assert_eq!(made["members"].as_array().unwrap().len(), 2, "{made}");
    let end = Instant::now() + Duration::from_secs(240);
    while group(&site)["sharedPoints"].as_u64().unwrap() < SHARED_POINTS {
        assert!(Instant::now() < end, "{:#}", group(&site));
        std::thread::sleep(Duration::from_millis(200));
    }
    let state = group(&site);
    assert_eq!(state["health"], "Normal", "{state:#}");
    let mut frozen: Vec<f64> = machines
        .iter()
        .flat_map(|machine| machine.points(&site))
        .filter(|point| point["groupPoint"].is_string())
        .map(|point| point["freezeMs"].as_f64().unwrap())
        .collect();
    frozen.sort_by(f64::total_cmp);
    println!(
        "each machine frozen: p50 {} ms, max {} ms",
        frozen[frozen.len() / 2],
        frozen[frozen.len() - 1]
    );
    println!(
        "{} shared of {} rounds, {} numbers written; frozen together: p50 {} ms, p99 {} ms",
        state["sharedPoints"],
        state["rounds"],
        writer.last.load(Ordering::SeqCst),
        state["freezeWindowMsP50"],
        state["freezeWindowMsP99"]
    );

    // A member that is lost: the other goes on alone, and everybody is told why.
    machines[1].stop();
    wait_for("the trouble", || {
        let state = group(&site);
        let member = state["members"]
            .as_array()?
            .iter()
            .find(|m| m["name"] == "second")?
            .clone();
        (state["health"] == "Warning" && member["takesPart"] == false && member["trouble"] != "")
            .then_some(())
    });
    let health = wait_for("a health error of the other", || {
        let item = site.cli(&["machine", "show", "first"]);
        let errors = item["replicatedItem"]["healthErrors"].as_array()?.clone();
        errors.into_iter().find(|error| error["code"] == "GroupDegraded")
    });
    assert!(
        health["message"]
            .as_str()
            .unwrap()
            .contains("second: its agent is not connected"),
        "{health}"
    );
    let before = machines[0].points(&site).len();
    wait_for("points of the other alone", || {
        (machines[0].points(&site).len() > before + 1).then_some(())
    });
    machines[1].start();
    let shared = group(&site)["sharedPoints"].as_u64().unwrap();
    wait_for("shared points again", || {
        let state = group(&site);
        (state["sharedPoints"].as_u64()? > shared + 1 && state["health"] == "Normal").then_some(())
    });

    drop(writer);
    let listed = machines[0].points(&site);
    assert!(
        listed.iter().any(|point| point["groupPoint"].is_string()),
        "{listed:?}"
    );
    machines.iter_mut().for_each(Machine::stop);
    let _ = site.child.kill();
    let _ = site.child.wait();
    let key = VaultKey::load(&site.data.join("pki/vault.key")).unwrap();
    let store = Store::open_read_only(&site.data.join("store"), &key).unwrap();
    let ids: Vec<MachineId> = machines
        .iter()
        .map(|machine| {
            let all = store.machines();
            all.iter().find(|row| row.name == machine.name).unwrap().id
        })
        .collect();
    let number = |place: usize, point: &RecoveryPoint| -> u64 {
        let image = store
            .image(ids[place], point.disks[0], At::Point(point.id))
            .unwrap();
        let mut block = vec![0; BLOCK];
        image
            .read_at(machines[place].block * BLOCK as u64, &mut block)
            .unwrap();
        u64::from_le_bytes(block[..8].try_into().unwrap())
    };
    let points: Vec<Vec<RecoveryPoint>> = ids.iter().map(|id| store.points(*id).unwrap()).collect();
    let common = store.shared_points();
    let of_second: HashMap<_, _> = points[1]
        .iter()
        .filter_map(|point| Some((point.shared?.id, point)))
        .collect();
    let (mut checked, mut behind) = (0, 0);
    for point in &points[0] {
        let Some(shared) = point.shared.filter(|shared| common.contains_key(&shared.id)) else {
            continue;
        };
        let other = of_second[&shared.id];
        assert_eq!(point.instant_unix_nanos, other.instant_unix_nanos);
        let (first, second) = (number(0, point), number(1, other));
        assert!(
            second == first || second + 1 == first,
            "at one instant: {first} and {second} ({point:?}, {other:?})"
        );
        behind += u64::from(second != first);
        checked += 1;
    }
    assert!(checked >= 30, "{checked} shared points");
    // Without the group: the points that two machines made one after the other, at about the same time.
    let own = |place: usize| points[place].iter().filter(|point| point.shared.is_none());
    let violations = own(0)
        .flat_map(|a| own(1).map(move |b| (a, b)))
        .filter(|(a, b)| (a.instant_unix_nanos - b.instant_unix_nanos).abs() < 5_000_000_000)
        .map(|(a, b)| (number(0, a), number(1, b)))
        .filter(|(first, second)| second > first)
        .count();
    println!(
        "{checked} shared points hold, {behind} of them in between two writes; {violations} violations without the group"
    );
    assert!(violations > 0, "the control finds what the test looks for");
}

#[test]
fn applications_of_all_are_at_rest_or_the_point_says_less() {
    if lacks_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let site = Site::start();
    site.quick_policy("60");
    let machines = vec![
        Machine::new(&site, folder.path(), "first"),
        Machine::new(&site, folder.path(), "second"),
    ];
    machines.iter().for_each(|machine| machine.hook(""));
    protect(&site, &machines);
    // A third one is refused while it is not replicated, and a machine is in one group only.
    let refused = |arguments: &[&str]| {
        let output = Command::new(LIFEBOAT)
            .args(arguments)
            .env("LIFEBOAT_DATA_DIR", &site.data)
            .env("LIFEBOAT_CONFIG_DIR", site.data.join("none"))
            .output()
            .unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    site.cli(&[
        "group",
        "create",
        "shop",
        "first",
        "second",
        "--share-seconds",
        "2",
    ]);
    let text = refused(&["group", "create", "other", "first"]);
    assert!(
        text.contains("is a member of the replication group shop"),
        "{text}"
    );
    let newest = |machine: &Machine| {
        let points = machine.points(&site);
        points
            .into_iter()
            .find(|point| point["groupPoint"].is_string() && point["consistency"] == "AppConsistent")
    };
    let both = wait_for("an app-consistent shared point", || {
        Some((newest(&machines[0])?, newest(&machines[1])?))
    });
    assert_eq!(both.0["groupPoint"], both.1["groupPoint"]);
    assert_eq!(both.0["instant"], both.1["instant"]);
    assert_eq!(both.0["note"], "at rest: 10-app");
    let state = wait_for("the group to say so", || {
        let state = group(&site);
        state["lastAppConsistentPoint"]["id"].is_string().then_some(state)
    });
    assert_eq!(state["lastAppConsistentPoint"]["id"], both.0["groupPoint"]);
    site.cli(&["group", "remove", "shop", "second"]);
    let state = group(&site);
    assert_eq!(state["members"].as_array().unwrap().len(), 1);
    let deleted = site.cli(&["group", "delete", "shop"]);
    assert_eq!(deleted, json!({ "ok": true }));
    assert!(refused(&["group", "show", "shop"]).contains("shop"));
}

/// The server stands still, the server dies, an agent dies, a member is disabled: in the middle of rounds. Each time the machines
/// write on, and at the end no point that is called shared is of two instants.
#[test]
fn a_round_that_breaks_off_leaves_nothing_frozen_and_shares_nothing_false() {
    if lacks_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut site = Site::start();
    site.quick_policy("5");
    let mut machines = vec![
        Machine::new(&site, folder.path(), "first"),
        Machine::new(&site, folder.path(), "second"),
        Machine::new(&site, folder.path(), "third"),
    ];
    let writer = Writer::start(&machines);
    protect(&site, &machines);
    site.cli(&[
        "group",
        "create",
        "shop",
        "first",
        "second",
        "third",
        "--share-seconds",
        "1",
        "--app-consistent-seconds",
        "0",
    ]);
    // In the store, as it outlives the server.
    let shared = |site: &Site| {
        let key = VaultKey::load(&site.data.join("pki/vault.key")).unwrap();
        let store = Store::open_read_only(&site.data.join("store"), &key).unwrap();
        let common = store.shared_points();
        let of = |row: &lifeboat::replica::MachineSummary| {
            let points = store.points(row.id).unwrap();
            points
                .iter()
                .filter(|point| point.shared.is_some_and(|mark| common.contains_key(&mark.id)))
                .count()
        };
        store.machines().iter().map(of).max().unwrap_or(0)
    };
    let more = |site: &Site, what: &str| {
        let known = shared(site);
        wait_for(what, || (shared(site) > known).then_some(()));
    };
    let writes = |what: &str| {
        let known = writer.last.load(Ordering::SeqCst);
        wait_for(what, || {
            (writer.last.load(Ordering::SeqCst) > known + 10).then_some(())
        });
    };
    more(&site, "a shared point");
    for disturbance in 0..2u64 {
        // Wherever in a round that is.
        std::thread::sleep(Duration::from_millis(disturbance * 130));
        let server = rustix::process::Pid::from_child(&site.child);
        rustix::process::kill_process(server, rustix::process::Signal::STOP).unwrap();
        // The guards' deadline passes, and the machines write though nobody says that they may.
        writes("writes while the server stands still");
        rustix::process::kill_process(server, rustix::process::Signal::CONT).unwrap();
        more(&site, "a shared point after the server stood still");
        std::thread::sleep(Duration::from_millis(disturbance * 170));
        site.restart(|_| writes("writes while the server is gone"), &[]);
        more(&site, "a shared point after the server was killed");
        std::thread::sleep(Duration::from_millis(disturbance * 210));
        machines[1].stop();
        writes("writes while an agent is gone");
        machines[1].start();
        more(&site, "a shared point after the agent was killed");
    }
    // A member's replica is removed, and the points that it shared are shared no more.
    site.cli(&["unprotect", "third", "--confirm", "third"]);
    writes("writes after a member was disabled");
    site.cli(&["group", "remove", "shop", "third"]);
    more(&site, "a shared point of the two that are left");

    // The disaster: all sources are gone, and all of the group is started at one instant.
    drop(writer);
    machines.iter_mut().for_each(Machine::stop);
    let chosen: Vec<String> = ["first", "second"]
        .iter()
        .map(|name| {
            let options = ["--point", "latest-multi-vm", "--no-last-sync", "--confirm"];
            site.cli(&[&["failover", "unplanned", name], &options[..], &[name]].concat());
            let item = site.cli(&["machine", "show", name])["replicatedItem"].clone();
            let point = item["failover"]["recoveryPoint"].as_str();
            point.unwrap_or_else(|| panic!("{item:#}")).to_owned()
        })
        .collect();
    let key = VaultKey::load(&site.data.join("pki/vault.key")).unwrap();
    let store = Store::open_read_only(&site.data.join("store"), &key).unwrap();
    let common = store.shared_points();
    let rows = store.machines();
    let points_of = |name: &str| {
        let id = rows.iter().find(|row| row.name == name).unwrap().id;
        (id, store.points(id).unwrap())
    };
    let number = |place: usize, id: MachineId, point: &RecoveryPoint| -> u64 {
        let image = store.image(id, point.disks[0], At::Point(point.id)).unwrap();
        let mut block = vec![0; BLOCK];
        image
            .read_at(machines[place].block * BLOCK as u64, &mut block)
            .unwrap();
        u64::from_le_bytes(block[..8].try_into().unwrap())
    };
    let ((one, first), (two, second)) = (points_of("first"), points_of("second"));
    let mut checked = 0;
    for point in &first {
        let Some(mark) = point.shared.filter(|mark| common.contains_key(&mark.id)) else {
            continue;
        };
        let is_same = |other: &&RecoveryPoint| other.shared.is_some_and(|other| other.id == mark.id);
        let other = second.iter().find(is_same).unwrap();
        let (a, b) = (number(0, one, point), number(1, two, other));
        assert!(
            b == a || b + 1 == a,
            "at one instant: {a} and {b} ({point:?}, {other:?})"
        );
        checked += 1;
    }
    assert!(checked > 0);
    let taken: Vec<&RecoveryPoint> = [&first, &second]
        .iter()
        .zip(&chosen)
        .map(|(points, id)| points.iter().find(|point| point.id.to_string() == *id).unwrap())
        .collect();
    assert_eq!(
        taken[0].shared.unwrap().id,
        taken[1].shared.unwrap().id,
        "{taken:?}"
    );
    println!("{checked} shared points hold; started from {:?}", taken[0]);
}
