//! Real databases under load: points made with the shipped hooks and without are mounted, started and checked.
#[path = "support/database.rs"]
mod database;
mod support;
use database::{MariaDb, Postgres, Process, postgres_programs, success};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use support::{LoopDisk, Mounted, lacks_root, ok, umount, wait_for};

const LIFEBOAT: &str = env!("CARGO_BIN_EXE_lifeboat");

/// A point as `agent replicate --json` tells of it.
#[derive(Debug)]
struct Point {
    id: String,
    consistency: String,
    note: String,
    hooks: Vec<Value>,
}

/// A disk with a file system and a store beside it.
struct Scene {
    store: PathBuf,
    mounted: Option<Mounted>,
    disk: LoopDisk,
    /// Removed last.
    folder: tempfile::TempDir,
}

impl Scene {
    fn new(megabytes: u64, hook: &str, settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The database's own user must get through.
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let disk = LoopDisk::attach(&folder.path().join("disk"), megabytes << 20);
        ok("mkfs.ext4", &["-q", disk.path()]);
        let mounted = Mounted::new(disk.path(), &folder.path().join("mnt"), "noatime");
        let store = folder.path().join("store");
        ok(LIFEBOAT, &["store", "create", "--dir", store.to_str().unwrap()]);
        let hooks = folder.path().join("quiesce.d");
        std::fs::create_dir(&hooks).unwrap();
        let shipped = Path::new("packaging/quiesce.d").join(hook);
        std::fs::copy(shipped, hooks.join(hook)).unwrap();
        let name = hook.split_once('-').unwrap().1;
        std::fs::write(folder.path().join(format!("{name}.env")), settings).unwrap();
        Self {
            store,
            mounted: Some(mounted),
            disk,
            folder,
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn replicate(&self, count: u32, app_consistent: bool) -> Vec<Point> {
        let mut command = Command::new(LIFEBOAT);
        command
            .args(["agent", "replicate", "--json", "--name", "db1", "--every", "1"])
            .args(["--count", &count.to_string(), "--dir"])
            .arg(&self.store)
            .arg("--state-dir")
            .arg(self.at("state"))
            .arg("--quiesce-dir")
            .arg(self.at("quiesce.d"))
            // This machine is shared with other tests; how long a freeze takes is measured elsewhere.
            .args(["--freeze-deadline", "20000"]);
        if app_consistent {
            command.arg("--app-consistent");
        }
        let output = command.arg(self.disk.path()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .map(|line| {
                let value: Value = serde_json::from_str(line).unwrap();
                let word = |name: &str| value[name].as_str().unwrap().to_owned();
                Point {
                    id: word("recoveryPoint"),
                    consistency: word("consistency"),
                    note: word("note"),
                    hooks: value["hooks"].as_array().unwrap().clone(),
                }
            })
            .collect()
    }

    /// The disk at the point as a machine of its own would find it.
    fn with_copy(&self, point: &str, check: impl FnOnce(&Path)) {
        let raw = self.at("raw");
        ok(
            LIFEBOAT,
            &[
                "store",
                "export",
                "--dir",
                self.store.to_str().unwrap(),
                "db1",
                "--point",
                point,
                "--output",
                raw.to_str().unwrap(),
            ],
        );
        let copy = LoopDisk::attach(&raw, 0);
        let mounted = Mounted::new(copy.path(), &self.at("copy"), "noatime");
        check(&mounted.0);
        umount(&mounted.0);
        std::mem::forget(mounted);
        ok("e2fsck", &["-fn", copy.path()]);
        drop(copy);
        std::fs::remove_file(raw).unwrap();
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // Tracking outlives the agent on purpose.
        for machine in std::fs::read_dir(self.store.join("machines"))
            .into_iter()
            .flatten()
            .flatten()
        {
            for disk in std::fs::read_dir(machine.path()).into_iter().flatten().flatten() {
                if let Some(id) = disk.file_name().to_str().and_then(|name| name.parse().ok()) {
                    lifeboat::agent::capture::forget(id);
                }
            }
        }
        self.mounted = None;
    }
}

/// Where the log begins that a start replays, and the checkpoint itself.
fn control(bin: &Path, data: &Path) -> (u64, u64) {
    let text = success(Command::new(bin.join("pg_controldata")).arg(data));
    let lsn = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        let (high, low) = line.rsplit(' ').next().unwrap().split_once('/').unwrap();
        u64::from_str_radix(high, 16).unwrap() << 32 | u64::from_str_radix(low, 16).unwrap()
    };
    (
        lsn("Latest checkpoint's REDO location"),
        lsn("Latest checkpoint location"),
    )
}

#[test]
fn postgresql_under_pgbench() {
    if lacks_root() {
        return;
    }
    let bin = postgres_programs();
    let settings = "PGHOST=$(dirname \"$LIFEBOAT_QUIESCE_DIR\")/socket\nPGUSER=postgres\n";
    let scene = Scene::new(768, "40-postgresql", settings);
    let data = scene.at("mnt").join("pg");
    Postgres::initialize(&bin, &data);
    let server = Postgres::start(&bin, &data, &scene.at("socket"));
    success(server.client("pgbench").args(["-i", "-q", "-s", "4"]));
    success(
        server
            .client("psql")
            .args(["-XAtq", "-c", "CREATE EXTENSION amcheck"]),
    );
    let mut load = Process::start(
        server.client("pgbench").args(["-c", "4", "-T", "600"]),
        &scene.at("pgbench.log"),
        "-INT",
    );
    let history = "SELECT count(*) FROM pgbench_history";
    wait_for("load", || (server.number(history) > 200).then_some(()));

    let mut points = Vec::new();
    for app in [false, true] {
        let before = server.number(history);
        let made = scene.replicate(3, app);
        for point in &made {
            let word = if app { "AppConsistent" } else { "CrashConsistent" };
            assert_eq!(point.consistency, word, "{point:?}");
        }
        // The first point of each kind and the last: each check takes seconds.
        points.extend(
            made.into_iter()
                .enumerate()
                .filter(|(index, _)| index % 2 == 0)
                .map(|(_, point)| (before, point)),
        );
        assert!(load.is_running(), "pgbench goes on");
        let after = server.number(history);
        wait_for("the load to go on", || {
            (server.number(history) > after).then_some(())
        });
    }

    for (before, point) in &points {
        scene.with_copy(&point.id, |copy| {
            let data = copy.join("pg");
            let (redo, checkpoint) = control(&bin, &data);
            if point.consistency == "AppConsistent" {
                assert_eq!(point.note, "at rest: 40-postgresql");
                let said = point.hooks[0]["output"].as_str().unwrap();
                let (high, low) = said.rsplit_once(' ').unwrap().1.split_once('/').unwrap();
                let told =
                    u64::from_str_radix(high, 16).unwrap() << 32 | u64::from_str_radix(low, 16).unwrap();
                assert!(
                    checkpoint >= told,
                    "the hook's checkpoint is in: {checkpoint:x} {told:x}"
                );
            }
            // Of the machine that is still running here; on the next one nobody has that number.
            let _ = std::fs::remove_file(data.join("postmaster.pid"));
            let begin = Instant::now();
            let server = Postgres::start(&bin, &data, &scene.at("socket-of-copy"));
            let started = begin.elapsed();
            let balances = server
                .try_ask(
                    "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(bbalance) FROM pgbench_branches),
                        (SELECT sum(tbalance) FROM pgbench_tellers), (SELECT sum(delta) FROM pgbench_history)",
                )
                .unwrap();
            let balances: Vec<&str> = balances.split('|').collect();
            assert!(balances.iter().all(|sum| *sum == balances[0]), "{point:?}: {balances:?}");
            let entries = server.number(history);
            assert!(
                entries >= *before,
                "{point:?}: {entries} of {before} transactions that were committed before"
            );
            success(server.client("pg_amcheck").args(["--heapallindexed", "postgres"]));
            println!(
                "{} {}: {entries} transactions ({before} before), balance {}, redo from {redo:x}, started in {started:?}",
                point.consistency, point.id, balances[0]
            );
        });
        let _ = std::fs::remove_dir_all(scene.at("socket-of-copy"));
    }

    // Without fsync a power cut is not safe, and neither is a point: it is not called app-consistent.
    success(server.client("psql").args([
        "-XAtq",
        "-c",
        "ALTER SYSTEM SET fsync = off",
        "-c",
        "SELECT pg_reload_conf()",
    ]));
    wait_for("the setting", || {
        (server.try_ask("SHOW fsync")? == "off").then_some(())
    });
    let point = scene.replicate(1, true).remove(0);
    assert_eq!(point.consistency, "CrashConsistent");
    assert!(
        point.note.contains("40-postgresql failed in pre") && point.note.contains("fsync = off"),
        "{point:?}"
    );
    drop((load, server));
}

#[test]
fn mariadb_under_load() {
    if lacks_root() {
        return;
    }
    let settings = "OPTIONS=\"--no-defaults --socket=$(dirname \"$LIFEBOAT_QUIESCE_DIR\")/mariadb/sock\"\n";
    let scene = Scene::new(512, "60-mariadb", settings);
    let data = scene.at("mnt").join("maria");
    MariaDb::initialize(&data);
    let server = MariaDb::start(&data, &scene.at("mariadb"));
    server.ask(
        "CREATE DATABASE t; CREATE TABLE t.safe (n BIGINT PRIMARY KEY, pad VARCHAR(200)) ENGINE=InnoDB;
         CREATE TABLE t.plain (n BIGINT PRIMARY KEY, pad VARCHAR(200)) ENGINE=MyISAM;",
    );
    // Each number into the one, then into the other.
    let script = "n=0; while [ $n -lt 1000000 ]; do n=$((n+1)); \
        echo \"INSERT INTO t.safe VALUES ($n, REPEAT('x', 150)); INSERT INTO t.plain VALUES ($n, REPEAT('y', 150));\"; done";
    let client = format!(
        "({script}) | exec mariadb --no-defaults --socket={}",
        server.socket.display()
    );
    let mut load = Process::start(
        Command::new("sh").args(["-c", &client]),
        &scene.at("load.log"),
        "-TERM",
    );
    let written = "SELECT count(*) FROM t.plain";
    wait_for("load", || (server.number(written) > 200).then_some(()));

    let crash = scene.replicate(1, false).remove(0);
    assert_eq!(crash.consistency, "CrashConsistent", "{crash:?}");
    let before = server.number(written);
    let made = scene.replicate(2, true);
    assert!(load.is_running());
    let after = server.number(written);
    wait_for("the load to go on", || {
        (server.number(written) > after).then_some(())
    });

    let mut states = Vec::new();
    for point in std::iter::once(&crash).chain(&made) {
        scene.with_copy(&point.id, |copy| {
            let server = MariaDb::start(&copy.join("maria"), &scene.at("copy-of-mariadb"));
            let check = server.ask("CHECK TABLE t.plain, t.safe, mysql.global_priv");
            let (safe, plain) = (
                server.number("SELECT max(n) FROM t.safe"),
                server.try_ask("SELECT max(n) FROM t.plain"),
            );
            println!("{} {}: {safe} {plain:?}: {check:?}", point.consistency, point.id);
            states.push((check, safe, plain));
        });
        let _ = std::fs::remove_dir_all(scene.at("copy-of-mariadb"));
    }
    // That a point without the hook is a power cut to such a table, or the check proves nothing.
    assert!(states[0].0.contains("closed"), "{:?}", states[0]);
    for (point, (check, safe, plain)) in made.iter().zip(&states[1..]) {
        assert_eq!(point.consistency, "AppConsistent", "{point:?}");
        assert_eq!(point.note, "at rest: 60-mariadb");
        assert!(
            check.lines().all(|line| line.ends_with("\tOK")),
            "{point:?}: {check}"
        );
        let plain: i64 = plain.as_ref().unwrap().parse().unwrap();
        assert!(
            plain >= before && (plain == *safe || plain + 1 == *safe),
            "{plain} {safe}"
        );
    }

    // A hook whose agent is lost with all that it started: the database lets go by itself.
    let hook = |phase: &str| {
        let mut command = Command::new(scene.at("quiesce.d").join("60-mariadb"));
        command
            .arg(phase)
            .env("LIFEBOAT_QUIESCE_DIR", scene.at("quiesce.d"))
            .env("LIFEBOAT_STATE_DIR", scene.at("state"))
            .env("LIFEBOAT_QUIESCE_ID", "lost")
            .env("LIFEBOAT_HOLD_SECONDS", "1");
        command.output().unwrap()
    };
    let locked = hook("pre");
    assert!(locked.status.success(), "{locked:?}");
    let holder = server.number(
        "SELECT count(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'SELECT /* lifeboat lost */%'",
    );
    assert_eq!(holder, 1);
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains("/* lifeboat lost */") {
            ok("kill", &["-KILL", process.file_name().to_str().unwrap()]);
        }
    }
    let held = server.number(written);
    wait_for("the lock to end by itself", || {
        (server.number(written) > held + 1).then_some(())
    });
    let late = hook("post");
    assert!(
        !late.status.success() && String::from_utf8_lossy(&late.stderr).contains("not held to the end"),
        "{late:?}"
    );
    drop((load, server));
}
