//! `lifeboat serve` is killed with SIGKILL while orders of all kinds come in. Whatever was answered is there afterwards, and
//! nothing is half-made: every item has its machine, its policy, its disks and its generation, every job has come to an end,
//! what was removed is gone whole. So too with a machine that is replicated and really runs at the target.
mod support;
use hyper::Method;
use lifeboat::api::client::{Address, Client, ClientError};
use lifeboat::vault::{Heartbeat, Vault};
use lifeboat::wire::facts::{DiskFacts, Inventory};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const V: &str = "/api/v1/vaults/default";
/// At least; more until the server was killed often enough, however quick it is.
const OPERATIONS: usize = 200;
const KILLS: usize = 12;
const MACHINES: usize = 6;

struct Serve(Child);

impl Serve {
    fn start(folder: &Path) -> Self {
        Self::start_at(folder, 0).0
    }

    /// With the data port of the server before it, for agents; what it said when it was ready.
    fn start_at(folder: &Path, data_port: u16) -> (Self, Value) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_lifeboat"))
            .args([
                "serve",
                "--json",
                "--data-listen",
                &format!("127.0.0.1:{data_port}"),
                "--api-listen",
                "127.0.0.1:0",
                "--heartbeat",
                "1",
            ])
            .env("LIFEBOAT_DATA_DIR", folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Ready when it says so.
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        assert!(line.contains("apiUrl"), "{line}");
        (Self(child), serde_json::from_str(&line).unwrap())
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn client(folder: &Path) -> Client {
    Client::new(Address::Unix(folder.join("api.sock")), None, None).unwrap()
}

/// Machines that joined and told of their disks, written before the server starts: agents have their own tests.
fn prepare(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let vault = Vault::open(&folder.join("vault.db")).unwrap();
    for number in 0..MACHINES {
        let id = vault
            .enrol(
                "default",
                &format!("web{number}"),
                &format!("key{number}"),
                "0.1.0",
            )
            .unwrap();
        let disk = |name: &str, boot| DiskFacts {
            stable_id: format!("serial:{name}"),
            size_bytes: 1 << 20,
            boot,
            ..DiskFacts::default()
        };
        let heartbeat = Heartbeat {
            at_unix_nanos: lifeboat::rt::now_unix_nanos(),
            agent_version: "0.1.0".to_owned(),
            inventory: Some(Inventory {
                memory_bytes: 1 << 30,
                disks: vec![disk("boot", true), disk("data", false)],
                ..Inventory::default()
            }),
            ..Heartbeat::default()
        };
        vault.heartbeat(id, heartbeat).unwrap();
    }
}

/// The number of an operation decides what it is: the same run each time, but for the instants of the kills.
fn operation(client: &mut Client, number: usize) -> Result<(String, Value), ClientError> {
    let machine = format!("web{}", number % MACHINES);
    let item = format!("{V}/replicated-items/{machine}");
    let (method, path, body) = match number % 11 {
        0 | 5 => (
            Method::POST,
            format!("{V}/replicated-items"),
            json!({ "machine": machine }),
        ),
        1 => (
            Method::POST,
            format!("{V}/policies"),
            json!({ "name": format!("p{number}") }),
        ),
        2 => (
            Method::PUT,
            format!("{V}/policies/p{}", number - 1),
            json!({ "retentionHours": 48 }),
        ),
        3 => (
            Method::POST,
            "/api/v1/vaults".to_owned(),
            json!({ "name": format!("v{number}") }),
        ),
        4 => (
            Method::DELETE,
            format!("/api/v1/vaults/v{}", number - 1),
            json!({}),
        ),
        6 => (
            Method::PUT,
            format!("{item}/policy"),
            json!({ "policy": "default" }),
        ),
        7 => (Method::POST, format!("{item}/test-failover"), json!({})),
        8 => (Method::DELETE, item, json!({})),
        9 => (
            Method::POST,
            format!("{V}/users"),
            json!({ "name": format!("u{number}"), "role": "Reader" }),
        ),
        _ => (
            Method::POST,
            format!("{V}/machines/{machine}/rename"),
            json!({ "name": machine.to_uppercase() }),
        ),
    };
    let answer = client.request(method, &path, Some(&body), &[])?;
    let body = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
    Ok((path, body))
}

#[test]
fn nothing_is_half_made_when_the_server_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("data");
    prepare(&folder);
    let (mut answered, mut kills, mut number) = (0, 0_usize, 0);
    let mut jobs: BTreeMap<String, String> = BTreeMap::new();
    let (mut policies, mut users) = (Vec::new(), Vec::new());
    while number < OPERATIONS || kills < KILLS {
        let mut server = Serve::start(&folder);
        let mut api = client(&folder);
        // The kill comes from beside, at an instant that no answer decides: after 0 to 390 ms, each time another.
        let pid = rustix::process::Pid::from_child(&server.0);
        let delay = Duration::from_millis((kills as u64 * 37 % 40) * 10);
        let killer = std::thread::spawn(move || {
            std::thread::sleep(delay);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        });
        loop {
            match operation(&mut api, number) {
                Ok((path, body)) => {
                    answered += 1;
                    if let Some(id) = body["job"]["id"].as_str() {
                        jobs.insert(id.to_owned(), path);
                    } else if number % 11 == 1 {
                        policies.push(body["name"].as_str().unwrap().to_owned());
                    } else if number % 11 == 9 {
                        users.push(body["user"].as_str().unwrap().to_owned());
                    }
                    number += 1;
                }
                // Refused by the state: an answer too.
                Err(ClientError::Problem(problem)) => {
                    assert!(problem.status < 500, "{problem:?}");
                    answered += 1;
                    number += 1;
                }
                // Killed under it; it may have been done or not, and is not asked again.
                Err(_) => {
                    number += 1;
                    break;
                }
            }
        }
        killer.join().unwrap();
        server.kill();
        kills += 1;
    }

    let _server = Serve::start(&folder);
    let mut api = client(&folder);
    let mut list = |path: &str| api.list(path, 100_000).unwrap();
    // What was answered is there.
    let all = list(&format!("{V}/jobs"));
    for (id, path) in &jobs {
        assert!(all.iter().any(|job| job["id"] == **id), "{path} is lost");
    }
    let names = |list: &[Value]| -> Vec<String> {
        list.iter()
            .map(|entry| entry["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let there = names(&list(&format!("{V}/policies")));
    for policy in &policies {
        assert!(there.contains(policy), "{policy} is lost");
    }
    // A policy never without its twin.
    for policy in there.iter().filter(|policy| !policy.ends_with("-failback")) {
        assert!(
            there.contains(&format!("{policy}-failback")),
            "{policy} has no twin"
        );
    }
    let there = names(&list(&format!("{V}/users")));
    assert!(users.iter().all(|user| there.contains(user)));
    // A vault never without its policies.
    for vault in names(&list("/api/v1/vaults")) {
        assert_eq!(
            names(&list(&format!("/api/v1/vaults/{vault}/policies")))
                .first()
                .map(String::as_str),
            Some("default")
        );
    }
    // Jobs of disabling come to their end, whatever was under way; and then nothing of the item is left.
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let open = list(&format!("{V}/jobs?kind=DisableReplication"));
        if open.iter().all(|job| job["state"] == "Succeeded") {
            break;
        }
        assert!(Instant::now() < end, "{open:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let machines = list(&format!("{V}/machines"));
    assert_eq!(machines.len(), MACHINES);
    let items = list(&format!("{V}/replicated-items"));
    for item in &items {
        assert_eq!(item["disks"].as_array().unwrap().len(), 2, "{item:#}");
        assert_ne!(item["protectionState"], "DisablingProtection", "{item:#}");
        let machine = machines
            .iter()
            .find(|machine| machine["id"] == item["id"])
            .unwrap();
        assert_eq!(machine["replicated"], true);
        // Its EnableReplication is the newest job of it, and not over: no agent is there.
        let of = list(&format!(
            "{V}/jobs?machine={}&kind=EnableReplication",
            item["id"].as_str().unwrap()
        ));
        assert_eq!(of[0]["state"], "InProgress", "{:#}", of[0]);
        assert_eq!(of[0]["tasks"][0]["state"], "Succeeded", "registered: {:#}", of[0]);
    }
    // The store holds the machines that are items, and no other.
    let store: Value = api.get(&format!("{V}/store")).unwrap();
    for machine in store["machines"].as_array().unwrap() {
        assert!(
            items.iter().any(|item| item["id"] == machine["id"]),
            "left behind: {machine}"
        );
    }
    println!("{answered} answers, {kills} kills, {} jobs", jobs.len());
}

/// What is ordered next, in this order again and again, of what is allowed.
const ORDERS: [(&str, &str); 8] = [
    ("TestFailover", "test-failover"),
    ("RepairReplication", "resynchronize"),
    ("TestFailoverCleanup", "test-failover-cleanup"),
    ("UnplannedFailover", "unplanned-failover"),
    ("TestFailover", "test-failover"),
    ("ChangeRecoveryPoint", "change-recovery-point"),
    ("TestFailoverCleanup", "test-failover-cleanup"),
    ("CancelFailover", "cancel-failover"),
];
const ROUNDS: usize = 16;

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(90);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Joins with an image file for a disk, and runs.
fn agent(folder: &Path, ready: &Value) -> Agent {
    let image = folder.join("disk.img");
    std::fs::File::create(&image).unwrap().set_len(1 << 20).unwrap();
    let state = folder.join("agent");
    let text = |key: &str| ready[key].as_str().unwrap().to_owned();
    let program = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command
            .env("LIFEBOAT_MACHINE_KEY", "real1")
            .stderr(Stdio::null())
            .stdout(Stdio::null());
        command
    };
    let joined = program()
        .args([
            "agent",
            "join",
            "--name",
            "real1",
            "--server",
            &text("dataAddress"),
        ])
        .args([
            "--fingerprint",
            &text("fingerprint"),
            "--passphrase-file",
            &text("passphraseFile"),
        ])
        .arg("--state-dir")
        .arg(&state)
        .arg("--disk")
        .arg(&image)
        .status()
        .unwrap();
    assert!(joined.success());
    let running = program()
        .args(["agent", "run", "--state-dir"])
        .arg(&state)
        .spawn();
    Agent(running.unwrap())
}

#[test]
fn a_machine_at_the_target_is_never_half_there() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let item = format!("{V}/replicated-items/real1");
    let (mut server, ready) = Serve::start_at(&data, 0);
    let address = ready["dataAddress"].as_str().unwrap();
    let port: u16 = address.rsplit(':').next().unwrap().parse().unwrap();
    let _agent = agent(folder.path(), &ready);
    let mut api = client(&data);
    wait_for("the inventory", || {
        let body = json!({ "machine": "real1" });
        api.post::<Value>(&format!("{V}/replicated-items"), &body).ok()
    });
    let state = |api: &mut Client| api.get::<Value>(&item).unwrap()["protectionState"].clone();
    wait_for("protection", || (state(&mut api) == "Protected").then_some(()));
    let (mut ordered, mut next) = (0, 0);
    for round in 0..ROUNDS {
        let shown: Value = api.get(&item).unwrap();
        let allowed = |name: &str| {
            let operations = shown["allowedOperations"].as_array().unwrap();
            operations
                .iter()
                .any(|entry| entry["operation"] == name && entry["allowed"] == true)
        };
        let Some(step) = (0..ORDERS.len()).find(|step| allowed(ORDERS[(next + step) % ORDERS.len()].0))
        else {
            panic!("nothing is allowed: {shown:#}");
        };
        let (_, route) = ORDERS[(next + step) % ORDERS.len()];
        next = (next + step + 1) % ORDERS.len();
        let body = match route {
            "unplanned-failover" => json!({ "recoveryPoint": "LatestProcessed", "lastSync": false }),
            "change-recovery-point" => json!({ "recoveryPoint": "LatestProcessed" }),
            _ => json!({}),
        };
        // The kill comes while the order is taken, or while it is carried out.
        let pid = rustix::process::Pid::from_child(&server.0);
        let delay = Duration::from_millis((round as u64 * 211) % 1100);
        let killer = std::thread::spawn(move || {
            std::thread::sleep(delay);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        });
        if api.post::<Value>(&format!("{item}/{route}"), &body).is_ok() {
            ordered += 1;
        }
        killer.join().unwrap();
        server.kill();
        server = Serve::start_at(&data, port).0;
        api = client(&data);
        wait_for("the end of all jobs", || {
            let jobs = api.list(&format!("{V}/jobs"), 1000).ok()?;
            jobs.iter()
                .all(|job| {
                    ["Succeeded", "Failed", "Cancelled"].contains(&job["state"].as_str().unwrap_or_default())
                })
                .then_some(())
        });
        let settled = state(&mut api);
        let settled = settled.as_str().unwrap().to_owned();
        assert!(
            [
                "Protected",
                "UnplannedFailoverCompleted",
                "ChangeRecoveryPointCompleted"
            ]
            .contains(&settled.as_str()),
            "{route}: {settled}"
        );
        // A machine for each failover that is there, and none besides.
        let shown: Value = api.get(&item).unwrap();
        let wanted = [&shown["testFailover"], &shown["failover"]]
            .iter()
            .filter(|entry| !entry.is_null())
            .count();
        let folders = std::fs::read_dir(data.join("vms")).map_or(0, Iterator::count);
        assert_eq!(folders, wanted, "{route}: {shown:#}");
        assert_eq!(machines(&data), wanted, "{route}");
    }
    println!("{ordered} orders were answered");
    assert!(ordered > ROUNDS / 4);
    drop(server);
    support::end_machines(folder.path());
}

/// QEMU processes that work in this folder.
fn machines(data: &Path) -> usize {
    let of_ours = |process: &std::fs::DirEntry| {
        let works_in = std::fs::read_link(process.path().join("cwd")).unwrap_or_default();
        let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        let stat = std::fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        works_in.starts_with(data) && name.starts_with("qemu-system") && !stat.contains(") Z ")
    };
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(of_ours)
        .count()
}
