//! A machine that was failed over stays at the target for good: its disks become files while it works, its migration is
//! completed. And recovery points that outlive the protection of their machine.
#[path = "support/serve.rs"]
mod serve;
mod support;
use lifeboat::lab::guest::{Report, parse_console};
use lifeboat::lab::machine::{self, MachinePlan, build};
use lifeboat::lab::packages::fetch;
use serde_json::{Value, json};
use serve::{LIFEBOAT, Site};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use support::wait_for;

/// A boot takes seconds where there is a processor to spare, and much longer where there is not.
const BOOT: Duration = Duration::from_secs(300);

struct Agent {
    child: Child,
    log: PathBuf,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Agent {
    fn start(site: &Site, folder: &Path, disk: &Path) -> Self {
        let state = folder.join("agent");
        if !state.exists() {
            site.join("web1", &state, &[disk]);
        }
        let log = folder.join("agent.log");
        let child = Command::new(LIFEBOAT)
            .args(["agent", "run", "--state-dir"])
            .arg(&state)
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { child, log }
    }
}

/// The machines of a server that is gone go with the test.
struct Machines(PathBuf);

impl Drop for Machines {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.0.join("vms"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let folder = entry.path().join("machine");
            let pid = std::fs::read_to_string(folder.join("pid")).unwrap_or_default();
            let Some(pid) = pid.trim().parse().ok().and_then(rustix::process::Pid::from_raw) else {
                continue;
            };
            let works_in = std::fs::read_link(format!("/proc/{}/cwd", pid.as_raw_nonzero()));
            if works_in.is_ok_and(|works_in| works_in == folder) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

fn item(site: &Site) -> Value {
    site.cli(&["machine", "show", "web1"])["replicatedItem"].clone()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// The last line that a command with `--json` says of its job.
fn ordered(site: &Site, args: &[&str]) -> Value {
    let output = tried(site, args);
    assert!(output.status.success(), "{args:?}: {output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    // Not waited for, it is one document; else one per line.
    let last = said.lines().last().unwrap_or_default();
    let document = serde_json::from_str::<Value>(&said).or_else(|_| serde_json::from_str(last));
    document.unwrap()["job"].clone()
}

fn tried(site: &Site, args: &[&str]) -> std::process::Output {
    Command::new(LIFEBOAT)
        .args(args)
        .arg("--json")
        .env("LIFEBOAT_DATA_DIR", &site.data)
        .env("LIFEBOAT_CONFIG_DIR", site.data.join("none"))
        .output()
        .unwrap()
}

/// The code of what is refused.
fn refused(site: &Site, args: &[&str]) -> String {
    let output = tried(site, args);
    assert!(!output.status.success(), "{args:?}: {output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn points(site: &Site) -> Vec<String> {
    let rows = site.cli(&["recovery-point", "list", "web1"]);
    let rows = rows["items"].as_array().cloned().unwrap_or_default();
    rows.iter().map(|row| text(row, "id").to_owned()).collect()
}

fn inventory(site: &Site) {
    wait_for("an inventory", || {
        site.cli(&["machine", "list"])["items"][0]["disks"]
            .as_array()?
            .first()
            .cloned()
    });
}

/// What the machine tells of itself over HTTP.
fn ask(port: u64) -> Option<Report> {
    let mut stream = TcpStream::connect(("127.0.0.1", u16::try_from(port).ok()?)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()
}

/// Waits until it works and has written this many entries more.
fn works_on(port: u64, more: u64) -> u64 {
    let end = Instant::now() + BOOT;
    let mut first = None;
    loop {
        if let Some(report) = ask(port).filter(|report| report.working) {
            let first = *first.get_or_insert(report.entries_now);
            if report.entries_now >= first + more {
                return report.entries_now;
            }
        }
        assert!(Instant::now() < end, "the machine does not work");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn port(status: &Value) -> u64 {
    status["forwards"][0]["hostPort"].as_u64().unwrap()
}

fn boots(site: &Site) -> (usize, String) {
    let output = Command::new(LIFEBOAT)
        .args(["failover", "machine", "web1", "--serial-log"])
        .env("LIFEBOAT_DATA_DIR", &site.data)
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stdout).into_owned();
    (log.matches("Linux version").count(), log)
}

#[test]
fn a_machine_at_work_is_hydrated_and_its_migration_is_completed() {
    if support::lacks_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("lab-cache");
    let plan = MachinePlan::numbered(1, machine::DEFAULT_DISK_BYTES);
    let parts = fetch(&cache, plan.kernel, &mut |line| eprintln!("{line}")).unwrap();
    let disk = folder.path().join("disk.img");
    build(&plan, &parts, LIFEBOAT.as_ref(), &disk).unwrap();
    let mut site = Site::start();
    let _machines = Machines(site.data.clone());
    let agent = Agent::start(&site, folder.path(), &disk);
    inventory(&site);
    site.cli(&["policy", "create", "quick", "--crash-consistent-seconds", "5"]);
    tried(&site, &["protect", "web1", "--policy", "quick", "--wait"]);
    assert_eq!(text(&item(&site), "protectionState"), "Protected");
    let nic = json!({ "network": { "kind": "user", "forwards": [{ "hostPort": 0, "guestPort": 80 }] } });
    let target = json!({ "name": "web1-asr", "cpus": 1, "memoryBytes": 256 << 20, "firmware": "bios",
        "diskBus": "virtioBlk", "nics": [nic], "testNics": [nic] });
    let mut client = lifeboat::api::client::Client::new(
        lifeboat::api::client::Address::Unix(site.data.join("api.sock")),
        None,
        None,
    )
    .unwrap();
    let path = "/api/v1/vaults/default/replicated-items/web1/target-settings";
    client
        .request(hyper::Method::PUT, path, Some(&target), &[])
        .unwrap();
    ordered(&site, &["failover", "unplanned", "web1", "--confirm", "web1"]);
    let place = tempfile::tempdir().unwrap();
    let to = place.path().to_str().unwrap();
    let hydrate = ["failover", "hydrate", "web1", "--to", to];
    assert!(refused(&site, &hydrate).contains("CommitPending"));
    ordered(&site, &["failover", "commit", "web1", "--confirm", "web1"]);
    let complete = ["failover", "complete-migration", "web1", "--confirm", "web1"];
    assert!(refused(&site, &complete).contains("NotHydrated"));
    let status = site.cli(&["failover", "machine", "web1"]);
    let pid = status["pid"].as_u64().unwrap();
    works_on(port(&status), 20);

    // Cancelled on the way, nothing is left; then for good, with the server killed on the way.
    let began = ordered(&site, &["failover", "hydrate", "web1", "--to", to, "--no-wait"]);
    tried(&site, &["job", "cancel", text(&began, "id")]);
    let first = wait_for("the end of the job", || {
        let job = site.cli(&["job", "show", text(&began, "id")]);
        ["Cancelled", "Succeeded"]
            .contains(&text(&job, "state"))
            .then_some(job)
    });
    if text(&first, "state") == "Cancelled" {
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
        works_on(port(&status), 5);
        let began = ordered(&site, &["failover", "hydrate", "web1", "--to", to, "--no-wait"]);
        site.restart(|_| (), &[]);
        let ended = tried(&site, &["job", "watch", text(&began, "id")]);
        assert!(ended.status.success(), "{ended:?}");
        let job = site.cli(&["job", "show", text(&began, "id")]);
        eprintln!("hydrated: {}", job["result"]);
        assert!(job["result"]["heldMs"].as_u64().is_some(), "{job}");
    }
    let now = item(&site);
    let file = PathBuf::from(text(&now["failover"]["files"][0], "path"));
    assert_eq!(
        std::fs::metadata(&file).unwrap().len(),
        machine::DEFAULT_DISK_BYTES
    );
    let status = site.cli(&["failover", "machine", "web1"]);
    assert_eq!(status["pid"].as_u64(), Some(pid), "the same process works on");
    works_on(port(&status), 20);

    // Without a server it works on, on its file.
    site.restart(
        |_| {
            works_on(port(&status), 50);
        },
        &[],
    );
    // The last entry may be written and not yet be durable: only those before it were acknowledged.
    let at_least = works_on(port(&status), 1) - 1;
    // Its power goes, and it is started again: from the file, with all that it wrote.
    let power = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(power, rustix::process::Signal::KILL).unwrap();
    wait_for("the machine to be off", || {
        (text(&site.cli(&["failover", "machine", "web1"]), "power") == "stopped").then_some(())
    });
    let before = boots(&site).0;
    let status = site.cli(&["failover", "start", "web1"]);
    assert_eq!(text(&status, "power"), "running");
    let end = Instant::now() + BOOT;
    let verdict = loop {
        let (count, log) = boots(&site);
        let boot = log.rfind("Linux version").map_or("", |at| &log[at..]);
        if count > before
            && let Some(verdict) = parse_console(boot)
        {
            break verdict;
        }
        assert!(Instant::now() < end, "no verdict: {boot}");
        std::thread::sleep(Duration::from_millis(100));
    };
    eprintln!("{at_least} entries were durable; from its file: {verdict:?}");
    assert!(verdict.ok(), "{verdict:?}");
    let held = verdict.ledger.unwrap().0;
    assert!(
        held >= at_least,
        "{at_least} entries were durable, {held} are held"
    );
    works_on(port(&status), 5);

    let job = ordered(&site, &complete);
    assert!(job["result"]["freedBytes"].as_u64().unwrap() > 0, "{job}");
    let now = item(&site);
    assert_eq!(text(&now, "status"), "Migrated");
    assert!(points(&site).is_empty());
    // The old source is told, and stays fenced.
    wait_for("the agent to say that it is fenced for good", || {
        let log = std::fs::read_to_string(&agent.log).unwrap();
        log.contains("for good").then_some(())
    });
    assert!(refused(&site, &["protect", "web1"]).contains("Migrated"));
    let port = port(&site.cli(&["failover", "machine", "web1"]));
    works_on(port, 5);
    site.cli(&["machine", "remove", "web1", "--confirm", "web1"]);
    works_on(port, 5);
}

#[test]
fn recovery_points_outlive_the_protection_and_are_gone_on_from() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    std::fs::write(&disk, support::noise(2 << 20, 1)).unwrap();
    let site = Site::start();
    let _agent = Agent::start(&site, folder.path(), &disk);
    inventory(&site);
    site.cli(&["policy", "create", "quick", "--crash-consistent-seconds", "5"]);
    tried(&site, &["protect", "web1", "--policy", "quick", "--wait"]);
    wait_for("two recovery points", || (points(&site).len() >= 2).then_some(()));
    let keep = ["unprotect", "web1", "--confirm", "web1", "--keep-points"];
    let job = ordered(&site, &keep);
    let kept = points(&site);
    assert_eq!(
        job["result"]["keptPoints"].as_u64(),
        Some(kept.len() as u64),
        "{job}"
    );
    let now = item(&site);
    assert_eq!(text(&now, "protectionState"), "Unprotected");
    assert_eq!(
        text(&now, "status"),
        format!(
            "Not protected, {} recovery points kept until removed by hand",
            kept.len()
        )
    );
    assert!(now["keptPoints"]["storedBytes"].as_u64().unwrap() > 2 << 20);
    assert_eq!(text(&now, "replicationHealth"), "None");
    let test = now["allowedOperations"].as_array().unwrap().iter();
    let test = test
        .clone()
        .find(|entry| entry["operation"] == "TestFailover")
        .unwrap();
    assert!(
        test["allowed"] == true || test["reason"]["code"] == "TargetNotReady",
        "{test}"
    );
    assert!(refused(&site, &keep).contains("NotProtected"));

    // Protected again, with other bytes on the disk: the points go on in one line, and the old ones are what they were.
    std::fs::write(&disk, support::noise(2 << 20, 2)).unwrap();
    tried(&site, &["protect", "web1", "--policy", "quick", "--wait"]);
    let all = wait_for("a point of now", || {
        let all = points(&site);
        (all.len() > kept.len()).then_some(all)
    });
    assert!(kept.iter().all(|point| all.contains(point)), "{kept:?} {all:?}");
    assert_eq!(text(&item(&site), "protectionState"), "Protected");

    // Until a day, and then by hand before it.
    let days = [&keep[..], &["--keep-days", "30"]].concat();
    ordered(&site, &days);
    let status = text(&item(&site), "status").to_owned();
    assert!(status.contains(" kept until 20"), "{status}");
    let count = points(&site).len();
    let job = ordered(&site, &["unprotect", "web1", "--confirm", "web1"]);
    assert!(
        job["result"]["freedBytes"].as_u64().unwrap() > 2 << 20,
        "{count} points: {job}"
    );
    assert!(item(&site).is_null());
}
