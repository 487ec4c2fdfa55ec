//! The lab as a person runs it: the tour comes to its end with every ledger whole, and whatever ends it, nothing is left behind.
mod support;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use support::{end_machines, lacks_root, ok};

fn lab(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
    command.args(["lab", "--folder"]).arg(folder).args(arguments);
    command
}

/// Loop devices, mounts and processes of this lab.
fn left_behind(folder: &Path) -> Vec<String> {
    let name = folder.to_str().unwrap();
    let mut left: Vec<String> = ok("losetup", &["--list", "--noheadings", "--output", "BACK-FILE"])
        .lines()
        .chain(std::fs::read_to_string("/proc/mounts").unwrap().lines())
        .filter(|line| line.contains(name))
        .map(str::to_owned)
        .collect();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let works_in = std::fs::read_link(process.path().join("cwd")).unwrap_or_default();
        let own = process.file_name().to_str() == Some(&std::process::id().to_string());
        if !own && (String::from_utf8_lossy(&command).contains(name) || works_in.starts_with(folder)) {
            left.push(String::from_utf8_lossy(&command).replace('\0', " "));
        }
    }
    left
}

#[test]
fn the_tour_ends_well_and_leaves_nothing() {
    if lacks_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("lab");
    let output = lab(&at, &["--tour", "--json", "--load-seconds", "5"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    end_machines(&at);
    assert!(output.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ok"], true);
    let machines = report["machines"].as_array().unwrap();
    assert_eq!(machines.len(), 3);
    let plan = &report["plan"];
    assert_eq!(
        (&plan["groups"], &plan["manualActions"]),
        (&2.into(), &1.into()),
        "{plan}"
    );
    assert_eq!(plan["recoveryPoint"], "LatestMultiVm");
    let seconds = |field: &str| plan[field].as_f64().unwrap();
    // The manual action and the probes are behind the first machine, and part of the whole.
    assert!(
        0.0 < seconds("rtoSeconds") && seconds("rtoSeconds") < seconds("planRtoSeconds"),
        "{plan}"
    );
    assert!(seconds("manualSeconds") < seconds("planRtoSeconds"), "{plan}");
    assert!(
        seconds("cleanupSeconds") > 0.0 && seconds("rpoSeconds") > 0.0,
        "{plan}"
    );
    let tested = plan["machines"].as_array().unwrap();
    assert_eq!(tested.len(), 3);
    for machine in tested {
        assert_eq!(
            (&machine["ledgerOk"], &machine["tableOk"]),
            (&true.into(), &true.into()),
            "{machine}"
        );
        assert!(machine["entriesAtPoint"].as_u64().unwrap() > 0, "{machine}");
    }
    let group = &report["replicationGroup"];
    assert!(
        group["sharedPoints"].as_u64().unwrap() >= 3
            && group["rounds"].as_u64() >= group["sharedPoints"].as_u64(),
        "{group}"
    );
    let messages: Vec<u64> = serde_json::from_value(group["messagesAtPoint"].clone()).unwrap();
    assert_eq!(messages.len(), 3);
    assert!(
        messages.is_sorted_by(|a, b| a >= b) && messages[0] - messages[2] <= 1,
        "{group}"
    );
    assert!(
        messages[2] > 0 && group["messagesSent"].as_u64().unwrap() > messages[0],
        "{group}"
    );
    let machine = &machines[0];
    for failover in ["testFailover", "unplannedFailover"] {
        let failover = &machine[failover];
        for whole in ["ledgerOk", "tableOk", "httpOk"] {
            assert_eq!(failover[whole], true, "{whole}: {failover}");
        }
        assert!(failover["entriesAtPoint"].as_u64().unwrap() > 0);
        let (first, verified) = (&failover["firstReadMs"], &failover["verifiedMs"]);
        assert!(first.as_f64().unwrap() < verified.as_f64().unwrap());
    }
    // The last one goes there and back.
    let circle = &machines[2]["circle"];
    for whole in ["stayedAtRest", "ledgerOk", "tableOk"] {
        assert_eq!(circle[whole], true, "{whole}: {circle}");
    }
    assert_eq!(circle["plannedFailover"]["entriesLost"], 0, "{circle}");
    assert_eq!(circle["failbackEntriesLost"], 0, "{circle}");
    assert!(circle["entriesAtTarget"].as_u64().unwrap() > 0);
    assert!(circle["pointsAtTarget"].as_u64().unwrap() > 0);
    assert!(machine["recoveryPoints"].as_u64().unwrap() >= 3);
    assert!(report["agentPeakRssMiB"].as_f64().unwrap() > 1.0);
    assert_eq!(left_behind(&at), Vec::<String>::new());
}

#[test]
fn an_interrupted_lab_cleans_up() {
    if lacks_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("lab");
    let mut child = lab(&at, &["--machines", "1"])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = String::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        said.push_str(&line);
        said.push('\n');
        if line.contains("is at work on") {
            // In the middle of the initial replication.
            ok("kill", &["-INT", &child.id().to_string()]);
        }
    }
    child.wait().unwrap();
    end_machines(&at);
    assert!(said.contains("is at work on"), "{said}");
    assert_eq!(left_behind(&at), Vec::<String>::new(), "{said}");
}
