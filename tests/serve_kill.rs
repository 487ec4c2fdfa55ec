//! `lifeboat serve` is killed with SIGKILL while orders of all kinds come in. Whatever was answered is there afterwards, and
//! nothing is half-made: every item has its machine, its policy, its disks and its generation, every job has come to an end,
//! what was removed is gone whole.
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
        let mut child = Command::new(env!("CARGO_BIN_EXE_lifeboat"))
            .args([
                "serve",
                "--json",
                "--data-listen",
                "127.0.0.1:0",
                "--api-listen",
                "127.0.0.1:0",
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
        Self(child)
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
