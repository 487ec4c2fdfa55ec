use super::*;
use crate::block::{Consistency, PointId};
use crate::recovery::{
    JobError, JobKind, JobState, Journal, JournalError, ProtectionState, TaskState, TestFailoverState,
};
use crate::rt::{Report, now_unix_nanos};
use crate::wire::facts::{Check, CheckResult, DiskFacts, Inventory, NicFacts};
use std::time::{Duration, Instant};

pub(super) fn vault() -> (tempfile::TempDir, Vault) {
    let folder = tempfile::tempdir().unwrap();
    let vault = Vault::open(&folder.path().join("vault.db")).unwrap();
    (folder, vault)
}

fn inventory() -> Inventory {
    let disk = |id: &str, size, boot| DiskFacts {
        stable_id: id.to_owned(),
        size_bytes: size,
        boot,
        ..DiskFacts::default()
    };
    Inventory {
        host_name: "web1".to_owned(),
        cpus: 2,
        memory_bytes: 1 << 30,
        disks: vec![
            disk("serial:data", 2 << 30, false),
            disk("serial:boot", 1 << 30, true),
        ],
        nics: vec![NicFacts {
            name: "eth0".to_owned(),
            mac: "52:54:00:12:34:56".to_owned(),
            ..NicFacts::default()
        }],
        ..Inventory::default()
    }
}

pub(super) fn joined(vault: &Vault, name: &str) -> MachineId {
    let id = vault
        .enrol(DEFAULT_VAULT, name, &format!("key-{name}"), "0.1.0")
        .unwrap();
    beat(vault, id, Some(inventory()));
    id
}

fn beat(vault: &Vault, id: MachineId, inventory: Option<Inventory>) {
    let heartbeat = Heartbeat {
        at_unix_nanos: now_unix_nanos(),
        agent_version: "0.1.0".to_owned(),
        inventory,
        ..Heartbeat::default()
    };
    vault.heartbeat(id, heartbeat).unwrap();
}

fn code(error: VaultError) -> String {
    match error {
        VaultError::Refused(refusal) => refusal.code,
        other => panic!("{other:?}"),
    }
}

/// Enables replication and does what the reconciler does until the first session.
pub(super) fn replicating(vault: &Vault, id: MachineId) {
    let job = vault.enable(id, DEFAULT_POLICY, None, None, "admin").unwrap();
    let mut job = vault.job(job).unwrap();
    job.state = JobState::InProgress;
    for task in &mut job.tasks {
        task.state = TaskState::Succeeded;
    }
    job.state = JobState::Succeeded;
    let mut item = vault.item(id).unwrap();
    item.protection = ProtectionState::InitialReplicationInProgress;
    vault.record(&job, Some(&item)).unwrap();
}

fn sealed(machine: MachineId, instant: i64, consistency: Consistency) -> Fact {
    Fact::PointSealed {
        machine,
        point: PointId::new(),
        instant_unix_nanos: instant,
        consistency,
        note: String::new(),
        freeze_micros: 900,
        changed_bytes: 1,
        stored_bytes: 1,
        sync_request: 0,
    }
}

fn until(what: &str, mut state: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !state() {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_machine_keeps_its_id_under_its_key_and_its_name_is_its_own() {
    let (_folder, vault) = vault();
    let id = vault.enrol(DEFAULT_VAULT, "web1", "key-1", "0.1.0").unwrap();
    assert_eq!(vault.enrol(DEFAULT_VAULT, "web1", "key-1", "0.1.1").unwrap(), id);
    assert_eq!(
        vault.enrol(DEFAULT_VAULT, "www", "key-1", "0.1.1").unwrap(),
        id,
        "under a new name"
    );
    assert_eq!(vault.machine(id).unwrap().name, "www");
    vault.enrol(DEFAULT_VAULT, "db1", "key-2", "0.1.0").unwrap();
    for taken in ["db1", "DB1"] {
        let refused = vault.enrol(DEFAULT_VAULT, taken, "key-1", "0.1.0").unwrap_err();
        assert!(matches!(refused, VaultError::DuplicateName(_)), "{refused:?}");
    }
    assert!(matches!(
        vault.rename(id, "db1", None).unwrap_err(),
        VaultError::DuplicateName(_)
    ));
    vault.rename(id, "WWW", None).unwrap();
    for bad in ["", "-a", "a-", "a b", "ä", &"x".repeat(64)] {
        assert!(matches!(
            vault.enrol(DEFAULT_VAULT, bad, "key-3", "0.1.0").unwrap_err(),
            VaultError::BadName(_)
        ));
    }
    let unknown = vault.enrol("other", "web2", "key-3", "0.1.0").unwrap_err();
    assert!(matches!(unknown, VaultError::NotFound { what: "vault", .. }));
}

#[test]
fn certificates_age_and_are_revoked() {
    let (_folder, vault) = vault();
    let id = vault.enrol(DEFAULT_VAULT, "web1", "key", "0.1.0").unwrap();
    let later = now_unix_nanos() / 1_000_000_000 + 1000;
    vault.certificate_issued(id, "01", later).unwrap();
    assert_eq!(
        vault.certificate_status(id, "01").unwrap(),
        CertificateStatus::Valid
    );
    vault.certificate_issued(id, "02", later).unwrap();
    let status = |serial| vault.certificate_status(id, serial).unwrap();
    assert_eq!(
        (status("01"), status("02"), status("03")),
        (
            CertificateStatus::Unknown,
            CertificateStatus::Valid,
            CertificateStatus::Unknown
        )
    );
    vault.revoke(id, None).unwrap();
    for serial in ["01", "02", "03"] {
        assert_eq!(status(serial), CertificateStatus::Revoked);
    }
    // It joins again with the passphrase: the new certificate counts, the old ones stay revoked.
    vault.enrol(DEFAULT_VAULT, "web1", "key", "0.1.0").unwrap();
    vault.certificate_issued(id, "04", later).unwrap();
    assert_eq!(
        (status("02"), status("04")),
        (CertificateStatus::Revoked, CertificateStatus::Valid)
    );
    let stranger = vault.enrol(DEFAULT_VAULT, "web2", "key2", "0.1.0").unwrap();
    assert_eq!(
        vault.certificate_status(stranger, "04").unwrap(),
        CertificateStatus::Unknown,
        "a certificate of another machine"
    );
}

#[test]
fn enable_makes_item_disks_and_job_together() {
    let (folder, vault) = vault();
    let bare = vault.enrol(DEFAULT_VAULT, "bare", "key", "0.1.0").unwrap();
    assert_eq!(
        code(
            vault
                .enable(bare, DEFAULT_POLICY, None, None, "admin")
                .unwrap_err()
        ),
        "NoInventory"
    );
    let id = joined(&vault, "web1");
    let refused = |disks: &[&str], policy: &str| {
        let disks = disks.iter().map(|id| (*id).to_owned()).collect();
        vault.enable(id, policy, Some(disks), None, "admin").unwrap_err()
    };
    assert_eq!(code(refused(&["serial:none"], DEFAULT_POLICY)), "NoSuchDisk");
    assert_eq!(code(refused(&[], DEFAULT_POLICY)), "NoDisks");
    assert_eq!(
        code(refused(&["serial:data"], DEFAULT_POLICY)),
        "BootDiskExcluded"
    );
    assert_eq!(
        code(refused(&["serial:boot"], "default-failback")),
        "FailbackPolicy"
    );
    assert!(matches!(
        refused(&["serial:boot"], "none"),
        VaultError::NotFound { what: "policy", .. }
    ));
    assert!(vault.items().unwrap().is_empty(), "a refusal leaves nothing");

    let job = vault.enable(id, DEFAULT_POLICY, None, None, "admin").unwrap();
    let item = vault.item(id).unwrap();
    assert_eq!(item.protection, ProtectionState::EnablingProtection);
    assert_eq!(
        (item.generation, item.revision, item.target.name.as_str()),
        (1, 1, "web1-asr")
    );
    let row = vault.item_row(id).unwrap();
    let order: Vec<_> = row.disks.iter().map(|disk| disk.stable_id.as_str()).collect();
    assert_eq!(order, ["serial:boot", "serial:data"], "the boot disk first");
    assert_eq!(
        item.disks,
        row.disks.iter().map(|disk| disk.id).collect::<Vec<_>>()
    );
    assert_eq!(vault.open_jobs().unwrap().len(), 1);
    assert!(
        !vault.desired(id).unwrap().protect,
        "its disks are not registered"
    );
    assert_eq!(
        code(vault.enable(id, DEFAULT_POLICY, None, None, "admin").unwrap_err()),
        "AlreadyReplicated"
    );

    let mut running = vault.job(job).unwrap();
    running.state = JobState::InProgress;
    running.tasks[0].state = TaskState::Succeeded;
    assert_eq!(running.tasks[0].name, TASK_REGISTER_DISKS);
    vault.record(&running, None).unwrap();
    let desired = vault.desired(id).unwrap();
    assert!(desired.protect);
    assert_eq!(
        (
            desired.generation,
            desired.crash_consistent_seconds,
            desired.app_consistent_seconds
        ),
        (1, 30, 3600)
    );
    assert_eq!(desired.disks.len(), 2);

    // All of it is there after a restart.
    drop(vault);
    let vault = Vault::open(&folder.path().join("vault.db")).unwrap();
    assert_eq!(vault.item(id).unwrap(), item);
    assert_eq!(vault.open_jobs().unwrap(), [running]);
}

#[test]
fn failed_prerequisites_refuse_protection_in_words() {
    let (_folder, vault) = vault();
    let id = joined(&vault, "web1");
    let mut facts = inventory();
    facts.checks.push(Check {
        name: "freeSpace".to_owned(),
        result: CheckResult::Error,
        message: "/opt has 12 MiB left".to_owned(),
        causes: "it is full".to_owned(),
        action: "make room".to_owned(),
    });
    beat(&vault, id, Some(facts));
    match vault.enable(id, DEFAULT_POLICY, None, None, "admin").unwrap_err() {
        VaultError::Refused(refusal) => {
            assert_eq!(refusal.code, "PrerequisitesFailed");
            assert!(refusal.message.contains("12 MiB"));
            assert_eq!(refusal.recommended_action, "make room");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_journal_takes_one_of_two_writers() {
    let (_folder, vault) = vault();
    let id = joined(&vault, "web1");
    replicating(&vault, id);
    let mut mine = vault.item(id).unwrap();
    let mut theirs = mine.clone();
    let job = vault.enable(joined(&vault, "db1"), DEFAULT_POLICY, None, None, "admin");
    let mut job = vault.job(job.unwrap()).unwrap();
    job.machine = id;
    job.id = crate::recovery::JobId::new();
    job.kind = JobKind::TestFailover;
    theirs.test_failover_state = TestFailoverState::TestFailoverInitiated;
    vault.record(&job, Some(&theirs)).unwrap();
    mine.protection = ProtectionState::Protected;
    let mut late = job.clone();
    late.id = crate::recovery::JobId::new();
    assert!(matches!(
        vault.record(&late, Some(&mine)).unwrap_err(),
        JournalError::Conflict
    ));
    assert!(
        matches!(vault.job(late.id), Err(JournalError::NoJob(_))),
        "neither the item nor the job"
    );
    assert_eq!(vault.item(id).unwrap().revision, theirs.revision + 1);

    job.state = JobState::Failed;
    job.error = Some(JobError {
        code: "TargetDidNotStart".to_owned(),
        message: "it did not start".to_owned(),
        possible_causes: "no memory".to_owned(),
        recommended_action: "add memory".to_owned(),
    });
    vault.record(&job, None).unwrap();
    let event = vault
        .events(DEFAULT_VAULT, &events_of(id), 1)
        .unwrap()
        .remove(0)
        .event;
    assert_eq!(
        (event.code.as_str(), event.severity),
        ("JobFailed", Severity::Warning)
    );
    assert_eq!(event.recommended_action, "add memory");
    job.state = JobState::InProgress;
    assert!(
        matches!(vault.record(&job, None).unwrap_err(), JournalError::Conflict),
        "over is over"
    );
}

#[test]
fn the_first_good_point_ends_the_initial_replication() {
    let (_folder, vault) = vault();
    let id = joined(&vault, "web1");
    replicating(&vault, id);
    let now = now_unix_nanos();
    vault.report(sealed(id, now - 2, Consistency::Fuzzy));
    vault.report(sealed(id, now - 1, Consistency::CrashConsistent));
    assert_eq!(
        vault.live(id).last_good_point.unwrap().instant_unix_nanos,
        now - 1,
        "at once"
    );
    until("Protected", || {
        vault.item(id).unwrap().protection == ProtectionState::Protected
    });
    let event = vault
        .events(DEFAULT_VAULT, &events_of(id), 1)
        .unwrap()
        .remove(0)
        .event;
    assert_eq!(event.code, "Protected");
    let health = vault.health(&vault.item_row(id).unwrap());
    assert_eq!(health.word, "Normal", "{health:?}");
}

#[test]
fn health_comes_and_goes_with_events() {
    let (_folder, vault) = vault();
    let id = joined(&vault, "web1");
    replicating(&vault, id);
    let now = now_unix_nanos();
    vault
        .keep(&sealed(id, now, Consistency::CrashConsistent))
        .unwrap();
    vault.report(sealed(id, now, Consistency::CrashConsistent));
    let codes = |now| -> Vec<&'static str> {
        replication_health(&vault.item_row(id).unwrap(), &vault.live(id), now)
            .errors
            .iter()
            .map(|error| error.code)
            .collect()
    };
    let minute = 60_000_000_000;
    assert_eq!(codes(now), [""; 0]);
    assert_eq!(codes(now + 2 * minute), ["NoHeartbeat"]);
    assert_eq!(
        codes(now + 16 * minute),
        ["NoHeartbeat", "RpoExceeded", "ReplicationStalled"]
    );
    assert_eq!(
        codes(now + 61 * minute),
        ["NoHeartbeat", "NoRecoveryPoint", "ReplicationStalled"]
    );
    vault.report(Fact::StoreFull {
        machine: id,
        message: "no space left".to_owned(),
    });
    vault.tell_of_health(now).unwrap();
    vault.tell_of_health(now).unwrap();
    vault.report(Fact::StoreHasRoom { machine: id });
    vault.tell_of_health(now).unwrap();
    let told: Vec<_> = vault
        .events(DEFAULT_VAULT, &events_of(id), 100)
        .unwrap()
        .into_iter()
        .map(|event| event.event.code)
        .filter(|code| code.starts_with("StoreFull"))
        .collect();
    assert_eq!(told, ["StoreFullOver", "StoreFull"], "each once, newest first");
}

#[test]
fn after_a_failover_the_source_is_fenced_and_cannot_be_disabled() {
    let (_folder, vault) = vault();
    let id = joined(&vault, "web1");
    replicating(&vault, id);
    assert!(vault.desired(id).unwrap().protect);
    let job = vault.jobs(DEFAULT_VAULT, &JobFilter::default(), 1).unwrap()[0]
        .job
        .clone();
    let mut item = vault.item(id).unwrap();
    item.protection = ProtectionState::UnplannedFailoverCompleting;
    item.generation += 1;
    item.active_location = crate::recovery::ActiveLocation::Recovery;
    vault.record(&job, Some(&item)).unwrap();
    let desired = vault.desired(id).unwrap();
    assert!(!desired.protect);
    assert_eq!(desired.generation, 2);
    assert!(desired.fenced.unwrap().contains("web1-asr"));
    assert_eq!(
        code(vault.disable(id, "admin").unwrap_err()),
        "MachineRunsFromReplica"
    );
}

#[test]
fn a_machine_at_the_target_is_watched_there_and_its_fenced_source_too() {
    let (_folder, vault) = vault();
    let id = joined(&vault, "web1");
    replicating(&vault, id);
    let mut row = vault.item_row(id).unwrap();
    row.item.protection = ProtectionState::UnplannedFailoverCompleted;
    row.item.active_location = crate::recovery::ActiveLocation::Recovery;
    row.item.failover = Some(crate::recovery::Failover {
        job: crate::recovery::JobId::new(),
        point: PointId::new(),
        point_instant_unix_nanos: 0,
        started_unix_nanos: 0,
        machine: crate::target::MachineSpec {
            name: "web1-asr".into(),
            folder: "/nowhere".into(),
            cpus: 1,
            memory_bytes: 1 << 28,
            firmware: crate::wire::facts::Firmware::Bios,
            disk_bus: crate::target::DiskBus::VirtioBlk,
            disks: Vec::new(),
            nics: Vec::new(),
        },
    });
    let mut live = vault.live(id);
    let codes = |live: &super::Live, seconds: i64| -> Vec<&str> {
        let health = replication_health(&row, live, live.since_unix_nanos + seconds * 1_000_000_000);
        health.errors.iter().map(|error| error.code).collect()
    };
    // The agent at the source may be gone: nobody waits for it.
    assert!(codes(&live, 30).is_empty());
    assert_eq!(codes(&live, 3600), ["NoPointAtTarget"]);
    // Said at once, with its cause; over with the next point, whoever met the trouble. So is a full store.
    let message = || "cannot append to layer 7".to_owned();
    for fact in [
        Fact::NoPointAtTarget {
            machine: id,
            message: message(),
        },
        Fact::StoreFull {
            machine: id,
            message: message(),
        },
    ] {
        let code = if matches!(fact, Fact::StoreFull { .. }) {
            "StoreFull"
        } else {
            "NoPointAtTarget"
        };
        vault.report(fact);
        let told = replication_health(&row, &vault.live(id), live.since_unix_nanos);
        assert_eq!(told.errors.len(), 1);
        assert_eq!(told.errors[0].code, code);
        assert!(told.errors[0].message.contains("layer 7"), "{:?}", told.errors[0]);
        vault.report(sealed(id, now_unix_nanos(), Consistency::CrashConsistent));
        assert_eq!(codes(&vault.live(id), 0), [""; 0]);
    }
    let trouble = super::Trouble {
        code: "SplitBrain".to_owned(),
        severity: "Critical".to_owned(),
        message: "this machine is written to".to_owned(),
        possible_causes: String::new(),
        recommended_action: String::new(),
    };
    live.heartbeat = Some(Heartbeat {
        troubles: vec![trouble],
        ..Heartbeat::default()
    });
    assert_eq!(codes(&live, 30), ["SplitBrain"]);
}

#[test]
fn disable_cancels_an_enable_under_way_and_generations_go_on() {
    let (_folder, vault) = vault();
    let id = joined(&vault, "web1");
    let enable = vault.enable(id, DEFAULT_POLICY, None, None, "admin").unwrap();
    let disable = vault.disable(id, "admin").unwrap();
    assert_eq!(vault.job(enable).unwrap().state, JobState::Cancelled);
    assert!(!vault.desired(id).unwrap().protect);
    let mut job = vault.job(disable).unwrap();
    job.state = JobState::Succeeded;
    let mut item = vault.item(id).unwrap();
    assert_eq!(item.protection, ProtectionState::DisablingProtection);
    item.protection = ProtectionState::Unprotected;
    vault.record(&job, Some(&item)).unwrap();
    assert!(vault.items().unwrap().is_empty());
    assert!(!vault.machine(id).unwrap().replicated);
    vault.enable(id, DEFAULT_POLICY, None, None, "admin").unwrap();
    assert_eq!(
        vault.item(id).unwrap().generation,
        2,
        "a session of the first time is fenced"
    );
}

#[test]
fn orders_count_up() {
    let (_folder, vault) = vault();
    let id = joined(&vault, "web1");
    assert_eq!(vault.request_sync(id).unwrap(), 1);
    assert_eq!(vault.request_sync(id).unwrap(), 2);
    assert_eq!(vault.desired(id).unwrap().sync_request, 2);
    assert!(vault.request_sync(MachineId::new()).is_err());
}

#[test]
fn policies_bring_their_twin_and_keep_their_ranges() {
    let (_folder, vault) = vault();
    let mut policy = NewPolicy::named("tight");
    policy.crash_consistent_seconds = 5;
    vault.create_policy(DEFAULT_VAULT, &policy).unwrap();
    let names: Vec<_> = vault
        .policies(DEFAULT_VAULT, None, 10)
        .unwrap()
        .into_iter()
        .map(|policy| (policy.name, policy.failback_of.is_some()))
        .collect();
    let expected = [
        ("default", false),
        ("default-failback", true),
        ("tight", false),
        ("tight-failback", true),
    ];
    assert_eq!(names, expected.map(|(name, twin)| (name.to_owned(), twin)));
    assert_eq!(
        code(vault.create_policy(DEFAULT_VAULT, &policy).unwrap_err()),
        "PolicyExists"
    );
    let mut bad = NewPolicy::named("bad");
    for (field, seconds) in [("crash", 4), ("crash", 3601)] {
        bad.crash_consistent_seconds = seconds;
        let refused = vault.create_policy(DEFAULT_VAULT, &bad).unwrap_err();
        assert!(
            matches!(
                refused,
                VaultError::Invalid {
                    field: "crashConsistentSeconds",
                    ..
                }
            ),
            "{field}"
        );
    }
}

#[test]
fn the_audit_log_is_append_only() {
    let (_folder, vault) = vault();
    vault
        .audit("admin", "unix socket", "enable", "web1", "202")
        .unwrap();
    for sql in ["UPDATE audit SET user = 'x'", "DELETE FROM audit"] {
        let refused = vault.write(|transaction| Ok(transaction.execute(sql, [])?));
        assert!(refused.is_err(), "{sql}");
    }
    assert_eq!(vault.audit_log(None, None, None, 10).unwrap().len(), 1);
}

/// Every earlier schema, filled, comes up to the newest one with its rows. With one schema this is the way from nothing.
#[test]
fn earlier_schemas_come_up() {
    for version in 0..=db::STEPS.len() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vault.db");
        drop(db::Database::open_with(&path, &db::STEPS[..version]).unwrap());
        if version > 0 {
            let connection = rusqlite::Connection::open(&path).unwrap();
            connection
                .execute("INSERT INTO vaults (name, created) VALUES ('kept', 1)", [])
                .unwrap();
        }
        let vault = Vault::open(&path).unwrap();
        let expected = if version > 0 { "kept" } else { DEFAULT_VAULT };
        assert_eq!(vault.vaults().unwrap(), [expected], "from schema {version}");
    }
}

#[test]
fn a_newer_schema_is_refused_and_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vault.db");
    drop(Vault::open(&path).unwrap());
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 999).unwrap();
    assert!(matches!(
        Vault::open(&path),
        Err(VaultError::NewerSchema { found: 999, .. })
    ));
}

#[test]
fn the_database_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, vault) = vault();
    joined(&vault, "web1");
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(
            entry.metadata().unwrap().permissions().mode() & 0o077,
            0,
            "{:?}",
            entry.path()
        );
    }
}

#[test]
fn old_changes_are_forgotten_in_heaps() {
    let (_folder, vault) = vault();
    vault
        .write(|transaction| {
            transaction.execute(
                "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < ?1)
                 INSERT INTO changes (vault, kind, object) SELECT 1, 'job', x FROM n",
                [2 * facts::CHANGES_KEPT + 5],
            )?;
            Ok(())
        })
        .unwrap();
    vault.forget_old_changes().unwrap();
    let (first, last) = vault.change_bounds(DEFAULT_VAULT).unwrap();
    assert_eq!(last - first + 1, facts::CHANGES_KEPT);
    vault.forget_old_changes().unwrap();
    assert_eq!(vault.change_bounds(DEFAULT_VAULT).unwrap(), (first, last));
}

/// Without the right index each look at an item would read every job that the machine ever had.
#[test]
fn open_jobs_are_found_by_their_own_index() {
    let (_folder, vault) = vault();
    for sql in [
        "SELECT body FROM jobs WHERE is_over = 0 AND machine = ?1 ORDER BY created, id",
        "SELECT body FROM jobs WHERE is_over = 0 ORDER BY created, id",
    ] {
        let plan: String = vault
            .read(|transaction| {
                let mut statement = transaction.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
                let parameters: &[&dyn rusqlite::ToSql] = &[&"x"];
                let used = &parameters[..statement.parameter_count()];
                Ok(statement.query_row(used, |row| row.get("detail"))?)
            })
            .unwrap();
        assert!(plan.contains("jobs_open"), "{plan}");
    }
}

fn events_of(machine: MachineId) -> EventFilter {
    EventFilter {
        machine: Some(machine),
        ..EventFilter::default()
    }
}

/// Its newer points lack the disk: counted among the machine's disks, none of them could be started from.
#[test]
fn a_rebuilt_item_does_not_take_back_a_disk_that_was_excluded() {
    use crate::replica::{DiskSpec, PointSpec, Store, VaultKey};
    let (folder, vault) = vault();
    let store = Store::create(&folder.path().join("store"), &VaultKey::generate()).unwrap();
    let machine = MachineId::new();
    store.register_machine(machine, "web1").unwrap();
    let disks = [crate::block::DiskId::new(), crate::block::DiskId::new()];
    for id in disks {
        let spec = DiskSpec {
            id,
            name: format!("serial:{id}"),
            size_bytes: 1 << 20,
        };
        store.register_disk(machine, spec).unwrap();
    }
    let mut writer = store.begin(machine, 1).unwrap();
    for id in disks {
        let mut frame = crate::block::FrameBuilder::new();
        frame.push(0, &[7; crate::block::BLOCK_BYTES]);
        writer.append(id, frame.finish(1).unwrap()).unwrap();
    }
    for (instant, only) in [(1, &disks[..]), (2, &disks[..1])] {
        writer.only(only.iter().copied());
        let spec = PointSpec {
            instant_unix_nanos: instant,
            consistency: Consistency::CrashConsistent,
            note: String::new(),
            freeze_micros: 0,
        };
        writer.seal(spec).unwrap();
    }
    vault.adopt_store(&store, true).unwrap();
    assert_eq!(vault.item(machine).unwrap().disks, disks[..1]);
}
