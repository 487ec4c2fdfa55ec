//! Real databases there and back: every commit that a client was told of, at home and at the target, is on the disk that the
//! machine goes on with.
//!
//! The protected disk is a whole file system with a one-sector guest before it: the machine at the target boots from it and
//! obeys its power button, and beside it the test mounts the same branch, over NBD, and runs the database in the guest's place.
#[path = "support/database.rs"]
mod database;
#[path = "support/serve.rs"]
mod serve;
mod support;
use database::{MariaDb, Postgres, Process, postgres_programs, success};
use serde_json::Value;
use serve::{LIFEBOAT, Site, forget_disks};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use support::{LoopDisk, Mounted, lacks_root, ok, umount, wait_for};

const CLIENTS: usize = 4;
const OBEYS_POWER_BUTTON: u8 = 1;

/// Two databases and two emulated machines at once only make each other late.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the story needs of a database.
trait Database: Sized {
    /// Of the shipped hook, and of the folder on the disk.
    const HOOK: &'static str;
    fn initialize(data: &Path);
    /// `folder`: for its socket and its log; not on the protected disk.
    fn start(data: &Path, folder: &Path) -> Self;
    fn prepare(&self);
    /// Reads SQL by the line and answers at once.
    fn session(&self) -> Command;
    fn load(&self, log: &Path) -> Option<Process>;
    fn ask(&self, sql: &str) -> Option<String>;
    /// Panics where something is torn or does not add up.
    fn check(&self);
    fn quiesce_settings(folder: &Path) -> String;
    /// A program that brings it down in order; None: it is caught in the middle of its work.
    fn stop_hook(folder: &Path) -> Option<String>;
}

impl Database for Postgres {
    const HOOK: &'static str = "40-postgresql";

    fn initialize(data: &Path) {
        Self::initialize(&postgres_programs(), data);
    }

    fn start(data: &Path, folder: &Path) -> Self {
        // Of the machine before; on the next one nobody has that number.
        let _ = std::fs::remove_file(data.join("postmaster.pid"));
        Self::start(&postgres_programs(), data, folder)
    }

    fn prepare(&self) {
        success(self.client("pgbench").args(["-i", "-q", "-s", "2"]));
        self.try_ask("CREATE EXTENSION amcheck").unwrap();
    }

    fn session(&self) -> Command {
        let mut command = self.client("psql");
        command.args(["-XAtq", "-v", "ON_ERROR_STOP=1"]);
        command
    }

    fn load(&self, log: &Path) -> Option<Process> {
        let mut pgbench = self.client("pgbench");
        // Without -n it would begin by emptying the history.
        pgbench.args(["-n", "-c", "2", "-T", "600"]);
        Some(Process::start(&mut pgbench, log, "-KILL"))
    }

    fn ask(&self, sql: &str) -> Option<String> {
        self.try_ask(sql)
    }

    fn check(&self) {
        let balances = self
            .try_ask(
                "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(bbalance) FROM pgbench_branches),
                    (SELECT sum(tbalance) FROM pgbench_tellers), (SELECT sum(delta) FROM pgbench_history)",
            )
            .unwrap();
        let balances: Vec<&str> = balances.split('|').collect();
        assert!(balances.iter().all(|sum| *sum == balances[0]), "{balances:?}");
        success(self.client("pg_amcheck").args(["--heapallindexed", "postgres"]));
    }

    fn quiesce_settings(folder: &Path) -> String {
        format!("PGHOST={}\nPGUSER=postgres\n", folder.display())
    }

    fn stop_hook(_: &Path) -> Option<String> {
        None
    }
}

impl Database for MariaDb {
    const HOOK: &'static str = "60-mariadb";

    fn initialize(data: &Path) {
        Self::initialize(data);
    }

    fn start(data: &Path, folder: &Path) -> Self {
        Self::start(data, folder)
    }

    fn prepare(&self) {}

    fn session(&self) -> Command {
        let mut command = self.client();
        command.args(["--unbuffered", "--database=test"]);
        command
    }

    fn load(&self, _: &Path) -> Option<Process> {
        None
    }

    fn ask(&self, sql: &str) -> Option<String> {
        self.try_ask(&format!("CREATE DATABASE IF NOT EXISTS test; USE test; {sql}"))
    }

    fn check(&self) {
        let said = self.ask("CHECK TABLE test.acknowledged, mysql.global_priv EXTENDED");
        assert!(said.lines().all(|line| line.ends_with("\tOK")), "{said}");
    }

    fn quiesce_settings(folder: &Path) -> String {
        format!("OPTIONS=\"--no-defaults --socket={}/sock\"\n", folder.display())
    }

    fn stop_hook(folder: &Path) -> Option<String> {
        // Returns when the server has ended.
        Some(format!(
            "mariadb-admin --no-defaults --socket={}/sock shutdown",
            folder.display()
        ))
    }
}

/// Clients that insert numbered rows, each in a session of its own, and remember the last one that was acknowledged.
struct Clients {
    sessions: Vec<Child>,
    acknowledged: Arc<Mutex<Vec<u64>>>,
}

/// What clients of a place were told is committed.
#[derive(Clone, Debug)]
struct Told {
    place: &'static str,
    last: Vec<u64>,
}

impl Clients {
    fn start(database: &impl Database, place: &'static str) -> Self {
        let acknowledged = Arc::new(Mutex::new(vec![0; CLIENTS]));
        let mut sessions = Vec::new();
        for client in 0..CLIENTS {
            let mut session = database
                .session()
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let (mut ask, heard) = (session.stdin.take().unwrap(), session.stdout.take().unwrap());
            let told = acknowledged.clone();
            // Ends with its session.
            std::thread::spawn(move || {
                let mut answers = BufReader::new(heard).lines();
                for number in 1u64.. {
                    let line = format!(
                        "INSERT INTO acknowledged VALUES ('{place}', {client}, {number}) RETURNING n;\n"
                    );
                    if ask.write_all(line.as_bytes()).is_err() {
                        return;
                    }
                    match answers.next() {
                        Some(Ok(answer)) if answer == number.to_string() => {
                            told.lock().unwrap()[client] = number;
                        }
                        _ => return,
                    }
                }
            });
            sessions.push(session);
        }
        Self {
            sessions,
            acknowledged,
        }
    }

    fn sum(&self) -> u64 {
        self.acknowledged.lock().unwrap().iter().sum()
    }

    fn wait_for_more(&self, count: u64) {
        let before = self.sum();
        wait_for("acknowledged commits", || {
            (self.sum() >= before + count).then_some(())
        });
    }

    fn told(&self, place: &'static str) -> Told {
        Told {
            place,
            last: self.acknowledged.lock().unwrap().clone(),
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        for session in &mut self.sessions {
            let _ = session.kill();
            let _ = session.wait();
        }
    }
}

/// Every commit that was told of is there.
fn check_told(database: &impl Database, told: &Told) {
    for (client, last) in told.last.iter().enumerate() {
        let there = database
            .ask(&format!(
                "SELECT count(*) FROM acknowledged WHERE place = '{}' AND client = {client} AND n <= {last}",
                told.place
            ))
            .unwrap();
        assert_eq!(
            there,
            last.to_string(),
            "client {client} of {} lost commits",
            told.place
        );
    }
}

/// Ends every process that works below this folder, as the end of its machine would. One that waits for a frozen file system
/// ends when it is thawed.
fn cut_processes(below: &Path) {
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let works_in = std::fs::read_link(process.path().join("cwd")).unwrap_or_default();
        if works_in.starts_with(below) {
            let pid = process.file_name();
            let _ = Command::new("kill").arg("-KILL").arg(pid).output();
        }
    }
}

/// The branch of the machine at the target, mounted on this host over NBD.
struct Guest {
    mount: PathBuf,
    /// The file, which `qemu-storage-daemon` mounts itself over.
    file: PathBuf,
    _disk: LoopDisk,
    daemon: Child,
}

impl Guest {
    /// Of the one machine that runs there.
    fn of(data: &Path, at: &Path) -> Self {
        let job = std::fs::read_dir(data.join("vms"))
            .unwrap()
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.join("nbd").exists())
            .expect("a machine at the target");
        let disk = std::fs::read_dir(job.join("disks")).unwrap().next().unwrap();
        let disk = disk.unwrap().file_name().into_string().unwrap();
        let file = at.join("guest.raw");
        std::fs::File::create(&file).unwrap();
        let node = serde_json::json!({ "driver": "nbd", "node-name": "disk", "export": disk,
            "server": { "type": "unix", "path": job.join("nbd") } });
        let export = serde_json::json!({ "type": "fuse", "id": "file", "node-name": "disk", "writable": true,
            "mountpoint": file, "growable": false });
        let daemon = Command::new("qemu-storage-daemon")
            .args(["--blockdev", &node.to_string(), "--export", &export.to_string()])
            .stdin(Stdio::null())
            .spawn()
            .expect("qemu-storage-daemon is needed (tests/all.sh installs it)");
        wait_for("the branch as a file", || {
            std::fs::metadata(&file)
                .is_ok_and(|found| found.len() > 0)
                .then_some(())
        });
        let disk = LoopDisk::attach(&file, 0);
        let mounted = Mounted::new(disk.path(), &at.join("guest"), "noatime");
        let mount = mounted.0.clone();
        // Its way out is another one, below.
        std::mem::forget(mounted);
        Self {
            mount,
            file,
            _disk: disk,
            daemon,
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // As when the power goes: from now on nothing reaches the branch.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        cut_processes(&self.mount);
        let _ = Command::new("umount").arg("--lazy").arg(&self.mount).status();
        let _ = Command::new("umount").arg("--lazy").arg(&self.file).status();
        let _ = std::fs::remove_file(&self.file);
    }
}

/// A machine at home with a database on its disk, and a server.
struct Home {
    agent: Option<Child>,
    mounted: Option<Mounted>,
    disk: LoopDisk,
    site: Site,
    folder: tempfile::TempDir,
}

impl Home {
    fn new<D: Database>() -> Self {
        let site = Site::start();
        let folder = tempfile::tempdir().unwrap();
        // The database's own user must get through.
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let disk = LoopDisk::attach(&folder.path().join("disk"), 448 << 20);
        ok("mkfs.ext4", &["-q", disk.path()]);
        // ext4 leaves the first 1,024 bytes to whoever boots.
        let mut boot = include_bytes!("fixtures/guest/boot.bin").to_vec();
        boot.resize(1024, 0);
        boot[512..517].copy_from_slice(b"ready");
        boot[1023] = OBEYS_POWER_BUTTON;
        let device = std::fs::File::options().write(true).open(disk.path()).unwrap();
        device.write_all_at(&boot, 0).unwrap();
        device.sync_all().unwrap();
        drop(device);
        let mounted = Mounted::new(disk.path(), &folder.path().join("home"), "noatime");
        let home = Self {
            agent: None,
            mounted: Some(mounted),
            disk,
            site,
            folder,
        };
        for name in ["quiesce.d", "fence.d"] {
            std::fs::create_dir(home.at(name)).unwrap();
        }
        let hook = home.at("quiesce.d").join(D::HOOK);
        std::fs::copy(Path::new("packaging/quiesce.d").join(D::HOOK), hook).unwrap();
        let settings = format!("{}.env", D::HOOK.split_once('-').unwrap().1);
        std::fs::write(home.at(&settings), D::quiesce_settings(&home.at("at-home"))).unwrap();
        if let Some(stop) = D::stop_hook(&home.at("at-home")) {
            let path = home.at("fence.d/10-database");
            let text = format!("#!/bin/sh\n[ \"$1\" = stop ] || exit 0\n{stop}\n");
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        home
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn data(&self) -> PathBuf {
        self.mounted.as_ref().unwrap().0.join("db")
    }

    fn start_agent(&mut self) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.at("agent.log"))
            .unwrap();
        let agent = Command::new(LIFEBOAT)
            // This machine is shared with other tests; how long a freeze takes is measured elsewhere.
            .args(["agent", "run", "--freeze-deadline", "20000", "--state-dir"])
            .arg(self.at("state"))
            .arg("--quiesce-dir")
            .arg(self.at("quiesce.d"))
            .arg("--fence-dir")
            .arg(self.at("fence.d"))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.agent = Some(agent);
        wait_for("the agent's heartbeat", || {
            let rows = self.site.cli(&["machine", "list"]);
            rows["items"]
                .as_array()?
                .iter()
                .find(|row| row["name"] == "db1" && row["lastHeartbeatAt"].is_string())?;
            Some(())
        });
    }

    /// As the machine's end: the agent, the database and what they used are gone.
    fn switch_off(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        if let Some(mounted) = self.mounted.take() {
            cut_processes(&mounted.0);
            umount(&mounted.0);
            std::mem::forget(mounted);
        }
    }

    fn switch_on(&mut self) {
        let mounted = Mounted::new(self.disk.path(), &self.at("home"), "noatime");
        self.mounted = Some(mounted);
    }

    fn point(&self, app_consistent: bool) -> Value {
        let mut args = vec!["recovery-point", "create", "db1"];
        if app_consistent {
            args.push("--app-consistent");
        }
        self.site.cli(&args);
        let points = self.site.cli(&["recovery-point", "list", "db1", "--limit", "1"]);
        points["items"][0].clone()
    }

    /// Runs the database on the machine at the target and checks it.
    fn at_target<D: Database>(&self, told: &[&Told]) -> (Guest, D) {
        let guest = Guest::of(&self.site.data, self.folder.path());
        let folder = self.at("at-target");
        let _ = std::fs::remove_dir_all(&folder);
        let database = D::start(&guest.mount.join("db"), &folder);
        told.iter().for_each(|told| check_told(&database, told));
        database.check();
        (guest, database)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.at("agent.log")).unwrap_or_default();
            eprintln!("the agent's log:\n{log}");
        }
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        cut_processes(&self.at("home"));
        forget_disks(&self.at("state"));
    }
}

/// Ends the receiver with the test, also when it fails.
struct Receiver(Child);

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `points`: whether they are app-consistent.
fn there_and_back<D: Database>(points: &[bool]) {
    if lacks_root() {
        return;
    }
    let _turn = turn();
    let begin = Instant::now();
    let say = |what: &str| println!("{} {:.1?}: {what}", D::HOOK, begin.elapsed());
    let mut home = Home::new::<D>();
    D::initialize(&home.data());
    let database = D::start(&home.data(), &home.at("at-home"));
    database.prepare();
    database
        .ask("CREATE TABLE acknowledged (place VARCHAR(8), client INT, n BIGINT, PRIMARY KEY (place, client, n))")
        .unwrap();
    home.site.join("db1", &home.at("state"), &[home.disk.path()]);
    home.start_agent();
    home.site
        .cli(&["policy", "create", "quick", "--crash-consistent-seconds", "5"]);
    home.site
        .cli(&["protect", "db1", "--policy", "quick", "--wait", "--timeout", "60"]);
    let load = database.load(&home.at("load.log"));
    let clients = Clients::start(&database, "home");
    clients.wait_for_more(200);
    say("protected, at work");

    // Points of both kinds: each is started at the target beside the source, which goes on.
    for &app_consistent in points {
        let told = clients.told("home");
        let point = home.point(app_consistent);
        if app_consistent {
            assert_eq!(point["consistency"], "AppConsistent", "{point}");
        }
        home.site.order(&[
            "failover",
            "test",
            "db1",
            "--point",
            point["id"].as_str().unwrap(),
        ]);
        drop(home.at_target::<D>(&[&told]));
        home.site
            .order(&["failover", "cleanup", "db1", "--notes", "every commit is there"]);
        clients.wait_for_more(1);
    }
    say("points tested");

    let planned = home
        .site
        .order(&["failover", "planned", "db1", "--confirm", "db1"]);
    // By now the source stands still: nobody will be told of another commit.
    let of_home = clients.told("home");
    say(&format!("failed over with {} commits at home", clients.sum()));
    assert_eq!(planned["result"]["stayedAtRest"], true, "{planned}");
    drop((clients, load));
    home.switch_off();
    drop(database);

    let (guest, database) = home.at_target::<D>(&[&of_home]);
    let load = database.load(&home.at("load-at-target.log"));
    let clients = Clients::start(&database, "target");
    clients.wait_for_more(200);
    home.site
        .order(&["failover", "commit", "db1", "--confirm", "db1"]);
    let receiver = Command::new(LIFEBOAT)
        .args(["agent", "receive", "--json", "--yes", "--machine", "db1"])
        .arg("--state-dir")
        .arg(home.at("state"))
        .args(["--disk", home.disk.path()])
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(home.at("receive.log")).unwrap())
        .spawn();
    let mut receiver = Receiver(receiver.unwrap());
    home.site.order(&["failover", "reprotect", "db1"]);
    say("reprotected");
    clients.wait_for_more(200);
    let of_target = clients.told("target");
    // The guest dies in the middle of its work; what it was told of before is nobody's to lose.
    drop(guest);
    say(&format!("cut with {} commits at the target", clients.sum()));
    drop((clients, load, database));
    home.site
        .order(&["failover", "failback", "db1", "--confirm", "db1"]);
    let ended = wait_for("the end of the receiver", || receiver.0.try_wait().unwrap());
    let said = std::fs::read_to_string(home.at("receive.log")).unwrap();
    assert!(ended.success(), "{said}");

    home.switch_on();
    let database = D::start(&home.data(), &home.at("at-home-again"));
    check_told(&database, &of_home);
    check_told(&database, &of_target);
    database.check();
    say(&format!("home: {of_home:?} {of_target:?}"));
    home.site
        .order(&["failover", "commit", "db1", "--confirm", "db1"]);
    let clients = Clients::start(&database, "again");
    home.start_agent();
    home.site.order(&["failover", "reprotect", "db1"]);
    let item = home.site.cli(&["machine", "show", "db1"]);
    assert!(item.to_string().contains("Protected"), "{item}");
    clients.wait_for_more(1);
    say("protected again");
    drop(clients);
    home.switch_off();
    drop(database);
}

#[test]
fn postgresql_that_was_caught_at_work() {
    there_and_back::<Postgres>(&[false, true]);
}

#[test]
fn mariadb_that_was_shut_down() {
    there_and_back::<MariaDb>(&[]);
}
