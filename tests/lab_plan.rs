//! A recovery plan of three machines of the lab, as a person runs it: their own addresses in a network of their own, a manual
//! action, probes and a command inside that network; then the cleanup, after which nothing is left.
mod support;

use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use support::{end_machines, lacks_root, ok};

const MACHINES: [(&str, &str, &str); 3] = [
    ("lab1", "52:54:00:77:00:11", "10.77.0.11"),
    ("lab2", "52:54:00:77:00:12", "10.77.0.12"),
    ("lab3", "52:54:00:77:00:13", "10.77.0.13"),
];

struct Lab {
    child: Child,
    at: PathBuf,
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id() as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        }
        let _ = self.child.wait();
        end_machines(&self.at);
    }
}

impl Lab {
    fn start(at: &Path) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_lifeboat"))
            .args(["lab", "--machines", "3", "--folder"])
            .arg(at)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut lab = Self {
            child,
            at: at.to_owned(),
        };
        let mut said = String::new();
        let mut lines = BufReader::new(lab.child.stderr.take().unwrap()).lines();
        loop {
            let line = lines
                .next()
                .unwrap_or_else(|| panic!("the lab ended: {said}"))
                .unwrap();
            eprintln!("{line}");
            if line.contains("the lab runs") {
                break;
            }
            said.push_str(&line);
            said.push('\n');
        }
        // Nobody else reads it, and the lab must not wait for that.
        std::thread::spawn(move || lines.for_each(drop));
        lab
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let socket = self.at.join("data/api.sock");
        Command::new(env!("CARGO_BIN_EXE_lifeboat"))
            .args(arguments)
            .env("LIFEBOAT_SERVER", format!("unix:{}", socket.display()))
            .output()
            .unwrap()
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        eprintln!("{arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[arguments, &["--json"]].concat())).unwrap()
    }
}

/// ARP frames that pass any device of the host; a guest that is connected sends them before anything else.
fn arp_capture() -> OwnedFd {
    let kind = (libc::ETH_P_ARP as u16).to_be();
    // SAFETY: no pointers.
    let fd = unsafe {
        libc::socket(
            libc::AF_PACKET,
            libc::SOCK_RAW | libc::SOCK_NONBLOCK,
            i32::from(kind),
        )
    };
    assert_ne!(fd, -1, "{}", io::Error::last_os_error());
    // SAFETY: just made, and nobody else's.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn frames_of_guests(capture: &OwnedFd) -> usize {
    let mut frame = [0u8; 2048];
    let mut count = 0;
    loop {
        // SAFETY: the buffer outlives the call.
        let len = unsafe { libc::recv(capture.as_raw_fd(), frame.as_mut_ptr().cast(), frame.len(), 0) };
        if len < 12 {
            return count;
        }
        count += usize::from(frame[6..11] == [0x52, 0x54, 0, 0x77, 0]);
    }
}

#[test]
fn three_machines_are_tested_in_a_network_of_their_own_and_nothing_is_left() {
    if lacks_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let lab = Lab::start(&folder.path().join("lab"));
    // Their own addresses, which the agents of a lab cannot tell: all of them run on this host.
    let socket = lab.at.join("data/api.sock");
    let mut client =
        lifeboat::api::client::Client::new(lifeboat::api::client::Address::Unix(socket), None, None).unwrap();
    for (name, mac, address) in MACHINES {
        let path = format!("/api/v1/vaults/default/replicated-items/{name}");
        let item: Value = client.get(&path).unwrap();
        let mut target = item["target"].clone();
        target["testNics"] = json!([{ "mac": mac, "network": { "kind": "named", "name": "isolated" },
            "address": { "cidr": format!("{address}/24"), "gateway": "10.77.0.1" } }]);
        client
            .request(
                hyper::Method::PUT,
                &format!("{path}/target-settings"),
                Some(&target),
                &[],
            )
            .unwrap();
    }
    let preview = lab.ok(&["network", "preview", "lab1", "--test"]);
    assert!(
        preview.contains("DHCP in the isolated network hands out 10.77.0.11/24"),
        "{preview}"
    );

    let scripts = lab.at.join("data/plan-scripts");
    let script = scripts.join("inside");
    std::fs::write(
        &script,
        "#!/bin/sh\ncat >\"$1\"\nip -brief address show bridge0 | tr -s ' '\n",
    )
    .unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(lab.ok(&["plan", "scripts"]), "inside\n");
    let told = folder.path().join("told");
    let plan = json!({
        "groups": [
            { "name": "data", "machines": ["lab1"], "after": [
                { "name": "the ledger answers", "kind": "probe", "machine": "lab1", "protocol": "http", "port": 80,
                  "timeoutSeconds": 400 },
                { "name": "say so", "kind": "manual", "instructions": "Tell the others that the ledger is up." }] },
            { "name": "front", "machines": ["lab2", "lab3"], "after": [
                { "name": "lab2 is there", "kind": "probe", "machine": "lab2", "protocol": "tcp", "port": 80,
                  "timeoutSeconds": 400 },
                { "name": "lab3 is there", "kind": "probe", "machine": "lab3", "protocol": "ping",
                  "timeoutSeconds": 400 },
                { "name": "look inside", "kind": "command", "machine": "lab3", "script": "inside",
                  "arguments": [told], "timeoutSeconds": 60 }] }
        ]
    });
    let file = folder.path().join("plan.json");
    std::fs::write(&file, plan.to_string()).unwrap();
    let file = file.to_str().unwrap();
    lab.ok(&["plan", "create", "site", "-f", file]);
    eprintln!("{}", lab.ok(&["plan", "show", "site"]));
    assert_eq!(lab.json(&["plan", "validate", "site"])["problems"], json!([]));

    let capture = arp_capture();
    // Exit code 3: it waits for a person.
    let waits = lab.run(&["plan", "test", "site"]);
    let said = String::from_utf8_lossy(&waits.stderr);
    eprintln!("{}", String::from_utf8_lossy(&waits.stdout));
    assert_eq!(waits.status.code(), Some(3), "{said}");
    assert!(said.contains("Tell the others that the ledger is up."), "{said}");
    let said = lab.ok(&["plan", "run", "resume", "site", "--comment", "told them"]);
    eprintln!("{said}");
    let run = lab.json(&["plan", "run", "show", "site"]);
    assert_eq!(run["state"], "Succeeded");
    let step = |name: &str| {
        let steps = run["steps"].as_array().unwrap();
        steps.iter().find(|step| step["name"] == name).unwrap().clone()
    };
    for (name, seen) in [
        ("the ledger answers", "http://10.77.0.11:80/ says HTTP/1.1 200"),
        ("lab2 is there", "10.77.0.12:80 answers"),
        ("lab3 is there", "10.77.0.13 answers"),
        ("look inside", "10.77.0.1/24"),
    ] {
        let message = step(name)["message"].as_str().unwrap().to_owned();
        assert!(message.contains(seen), "{name}: {message}");
    }
    assert_eq!(step("say so")["comment"], "told them");
    let told: Value = serde_json::from_slice(&std::fs::read(told).unwrap()).unwrap();
    assert_eq!(told["machines"][2]["address"], "10.77.0.13");
    let result = &run["result"];
    assert!(result["rtoSeconds"].as_f64().unwrap() < result["planRtoSeconds"].as_f64().unwrap());
    eprintln!("measured: {result}");
    // One namespace for the run, and what passes in it does not come out.
    let id = run["id"].as_str().unwrap();
    let tail = id.rsplit('-').next().unwrap();
    let own = || {
        ok("ip", &["netns", "list"])
            .lines()
            .filter(|line| line.contains(tail))
            .count()
    };
    assert_eq!(own(), 1);
    assert_eq!(
        frames_of_guests(&capture),
        0,
        "a frame of the test reached the host"
    );

    lab.ok(&["plan", "cleanup", "site", "--notes", "all well"]);
    assert_eq!(own(), 0);
    for (name, _, _) in MACHINES {
        let item = lab.json(&["machine", "show", name])["replicatedItem"].clone();
        assert_eq!(item["testFailoverState"], "None", "{name}");
        assert!(item["lastSuccessfulTestFailoverAt"].is_string(), "{name}");
    }
    assert_eq!(
        frames_of_guests(&capture),
        0,
        "a frame of the test reached the host"
    );
}

/// The lab's own way for it: planned failover, cancel, planned failover, commit, reprotect, failback, commit, reprotect; all by
/// runs of the plan, with a person's stop, resume and skip.
#[test]
fn a_whole_plan_goes_to_the_target_and_comes_home_without_loss() {
    if lacks_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("lab");
    let output = Command::new(env!("CARGO_BIN_EXE_lifeboat"))
        .args(["lab", "--tour", "plan", "--json", "--folder"])
        .arg(&at)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    end_machines(&at);
    assert!(output.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let whole = &report["planCircle"];
    assert_eq!(
        (&whole["plannedEntriesLost"], &whole["failbackEntriesLost"]),
        (&json!(0), &json!(0)),
        "{whole}"
    );
    assert_eq!(
        (&whole["stops"], &whole["resumed"], &whole["skipped"]),
        (&json!(1), &json!(1), &json!(1))
    );
    let machines = report["machines"].as_array().unwrap();
    assert_eq!(machines.len(), 3);
    let mut written = 0;
    for machine in machines {
        let circle = &machine["circle"];
        for whole in ["stayedAtRest", "ledgerOk", "tableOk"] {
            assert_eq!(circle[whole], true, "{whole}: {circle}");
        }
        for none in [
            &circle["plannedFailover"]["entriesLost"],
            &circle["failbackEntriesLost"],
        ] {
            assert_eq!(*none, 0, "{circle}");
        }
        assert!(circle["pointsAtTarget"].as_u64().unwrap() > 0, "{circle}");
        written += circle["entriesAtTarget"].as_u64().unwrap();
    }
    assert_eq!(whole["entriesAtTarget"], written);
    assert!(written >= 3 * 30, "{whole}");
    eprintln!("measured: {whole}");
}
