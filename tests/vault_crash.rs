//! The vault is killed at random instants: what it acknowledged is there, and nothing is half.
use lifeboat::block::MachineId;
use lifeboat::recovery::{JobId, JobState, Journal, ProtectionState, TaskState};
use lifeboat::rt::now_unix_nanos;
use lifeboat::vault::{DEFAULT_POLICY, DEFAULT_VAULT, Heartbeat, TASK_REGISTER_DISKS, Vault};
use lifeboat::wire::facts::{DiskFacts, Inventory};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

const FOLDER: &str = "LIFEBOAT_TEST_VAULT";

/// What the writer says after each call that returned.
fn told(text: &str) {
    let mut out = std::io::stdout();
    // One write per line: a kill leaves whole lines, or a last one without its end.
    out.write_all(format!("@{text}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// Enables, carries out, disables, over and over, until it is killed. Does nothing when it is not the parent's child.
#[test]
fn writer() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let vault = Vault::open(&Path::new(&folder).join("vault.db")).unwrap();
    let id = vault.enrol(DEFAULT_VAULT, "web1", "key", "0.1.0").unwrap();
    let inventory = Inventory {
        memory_bytes: 1 << 30,
        disks: vec![
            DiskFacts {
                stable_id: "a".to_owned(),
                size_bytes: 1 << 20,
                ..DiskFacts::default()
            },
            DiskFacts {
                stable_id: "b".to_owned(),
                size_bytes: 1 << 20,
                ..DiskFacts::default()
            },
        ],
        ..Inventory::default()
    };
    let heartbeat = Heartbeat {
        at_unix_nanos: now_unix_nanos(),
        inventory: Some(inventory),
        ..Heartbeat::default()
    };
    vault.heartbeat(id, heartbeat).unwrap();
    // Whatever the last one left is brought to its end first, as a reconciler does.
    loop {
        for job in vault.open_jobs().unwrap() {
            carry_out(&vault, id, job.id);
        }
        match vault.item(id) {
            Err(_) => {
                let job = vault.enable(id, DEFAULT_POLICY, None, None, "admin").unwrap();
                told(&format!("{} NotStarted", job.0));
            }
            Ok(_) => {
                let job = vault.disable(id, "admin").unwrap();
                told(&format!("{} NotStarted", job.0));
            }
        }
    }
}

fn carry_out(vault: &Vault, id: MachineId, job: JobId) {
    let mut job = vault.job(job).unwrap();
    for index in 0..job.tasks.len() {
        job.state = JobState::InProgress;
        job.tasks[index].state = TaskState::Succeeded;
        vault.record(&job, None).unwrap();
        told(&format!("{} InProgress", job.id.0));
    }
    let mut item = vault.item(id).unwrap();
    let enabled = job.tasks[0].name == TASK_REGISTER_DISKS;
    item.protection = if enabled {
        ProtectionState::InitialReplicationInProgress
    } else {
        ProtectionState::Unprotected
    };
    job.state = JobState::Succeeded;
    vault.record(&job, Some(&item)).unwrap();
    told(&format!("{} Succeeded", job.id.0));
}

fn rank(state: &str) -> u8 {
    match state {
        "NotStarted" => 0,
        "InProgress" => 1,
        _ => 2,
    }
}

#[test]
fn killed_at_random_it_keeps_what_it_acknowledged_and_nothing_half() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged: HashMap<String, String> = HashMap::new();
    for round in 0..30u32 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // After a number of acknowledgements that differs from round to round, somewhere inside the next call.
        let kill_after = 3 + (round * 7) % 23;
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut seen = 0;
        loop {
            let mut line = String::new();
            let read = lines.read_line(&mut line).unwrap();
            if read == 0 || !line.ends_with('\n') {
                break;
            }
            if let Some((job, state)) = line
                .trim()
                .strip_prefix('@')
                .and_then(|line| line.split_once(' '))
            {
                acknowledged.insert(job.to_owned(), state.to_owned());
                seen += 1;
            }
            if seen == kill_after {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(seen >= kill_after, "round {round}: the writer ended by itself");
        check(folder.path(), &acknowledged, round);
    }
}

fn check(folder: &Path, acknowledged: &HashMap<String, String>, round: u32) {
    let path = folder.join("vault.db");
    let vault = Vault::open(&path).unwrap();
    for (job, state) in acknowledged {
        let id = JobId(uuid::Uuid::parse_str(job).unwrap());
        let stored = vault.job(id).unwrap().state;
        assert!(
            rank(&format!("{stored:?}")) >= rank(state),
            "round {round}: job {job} was {state} and is {stored:?}"
        );
    }
    // The item and its job go together.
    let open = vault.open_jobs().unwrap();
    assert!(open.len() <= 1, "round {round}: {open:?}");
    for item in vault.items().unwrap() {
        let kind = open.first().map(|job| format!("{:?}", job.kind));
        let expected = match item.protection {
            ProtectionState::EnablingProtection => Some("EnableReplication"),
            ProtectionState::DisablingProtection => Some("DisableReplication"),
            ProtectionState::InitialReplicationInProgress => None,
            other => panic!("round {round}: {other:?}"),
        };
        assert_eq!(kind.as_deref(), expected, "round {round}");
        let row = vault.item_row(item.machine).unwrap();
        assert_eq!(row.disks.len(), 2, "round {round}");
        assert_eq!(
            item.disks,
            row.disks.iter().map(|disk| disk.id).collect::<Vec<_>>(),
            "round {round}"
        );
    }
    if vault.items().unwrap().is_empty() {
        assert!(open.is_empty(), "round {round}: a job without its item: {open:?}");
    }
    let connection = rusqlite::Connection::open(&path).unwrap();
    let whole: String = connection
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(whole, "ok");
    let orphans: i64 = connection
        .query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(orphans, 0);
}
