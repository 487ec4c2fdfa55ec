//! The lab as a person runs it: the tour comes to its end with every ledger whole, and whatever ends it, nothing is left behind.
mod support;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use support::{end_machines, lacks_root, ok};

fn lab(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
    command
        .args(["lab", "--machines", "1", "--folder"])
        .arg(folder)
        .args(arguments);
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
    let machine = &report["machines"][0];
    for failover in ["testFailover", "unplannedFailover"] {
        let failover = &machine[failover];
        for whole in ["ledgerOk", "tableOk", "httpOk"] {
            assert_eq!(failover[whole], true, "{whole}: {failover}");
        }
        assert!(failover["entriesAtPoint"].as_u64().unwrap() > 0);
        let (first, verified) = (&failover["firstReadMs"], &failover["verifiedMs"]);
        assert!(first.as_f64().unwrap() < verified.as_f64().unwrap());
    }
    let circle = &machine["circle"];
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
    let mut child = lab(&at, &[])
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
