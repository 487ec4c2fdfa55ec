//! A store that stumbles at each write of each job: said, and done by the next order.
use super::*;
use crate::replica::{Fault, Storage, VaultKey};
use crate::vault::{DEFAULT_POLICY, DEFAULT_VAULT, Heartbeat};
use crate::wire::facts::{DiskFacts, Inventory};

struct Bed {
    _folder: tempfile::TempDir,
    storage: Storage,
    reconciler: Reconciler,
    machine: MachineId,
}

impl Bed {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::open(&folder.path().join("vault.db")).unwrap();
        let storage = Storage::failing_after(i64::MAX, Fault::Once);
        let root = folder.path().join("store");
        let key = VaultKey::generate();
        drop(Store::create(&root, &key).unwrap());
        let store = Store::open_with(&root, &key, storage.clone()).unwrap();
        let sessions = Sessions::default();
        let roster = Roster::new(
            vault.clone(),
            store.clone(),
            sessions.clone(),
            Duration::from_secs(1),
        );
        let machine = vault.enrol(DEFAULT_VAULT, "web1", "key-web1", "0.1.0").unwrap();
        let reconciler = Reconciler {
            vault,
            store,
            sessions,
            roster,
        };
        let bed = Self {
            _folder: folder,
            storage,
            reconciler,
            machine,
        };
        bed.beat(1 << 20);
        bed
    }

    /// The agent tells of its disks.
    fn beat(&self, boot_bytes: u64) {
        let disk = |name: &str, boot, size_bytes| DiskFacts {
            stable_id: format!("serial:{name}"),
            size_bytes,
            boot,
            ..DiskFacts::default()
        };
        let heartbeat = Heartbeat {
            at_unix_nanos: now_unix_nanos(),
            inventory: Some(Inventory {
                disks: vec![disk("boot", true, boot_bytes), disk("data", false, 1 << 20)],
                ..Inventory::default()
            }),
            ..Heartbeat::default()
        };
        self.reconciler.vault.heartbeat(self.machine, heartbeat).unwrap();
    }

    fn enable(&self, disks: Option<Vec<String>>) -> Job {
        let vault = &self.reconciler.vault;
        let job = vault.enable(self.machine, DEFAULT_POLICY, disks, None, "admin");
        self.carried_out(job.unwrap())
    }

    /// Rounds until the job is over, or waits for an agent.
    fn carried_out(&self, job: crate::recovery::JobId) -> Job {
        for _ in 0..4 {
            self.reconciler.round();
        }
        self.reconciler.vault.job(job).unwrap()
    }

    fn protection(&self) -> ProtectionState {
        Journal::item(&self.reconciler.vault, self.machine)
            .unwrap()
            .protection
    }
}

fn assert_said(job: &Job, story: &str) {
    assert_eq!(job.state, JobState::Failed, "{story}: {job:#?}");
    let error = job.error.as_ref().unwrap();
    for text in [&error.message, &error.possible_causes, &error.recommended_action] {
        assert!(text.ends_with('.'), "{story}: {text}");
    }
    assert!(
        job.tasks.iter().any(|task| task.state == TaskState::Failed),
        "{story}: {job:#?}"
    );
}

#[test]
fn disabling_fails_at_any_write_of_the_store_is_said_and_ordered_again() {
    let mut failures = 0;
    for write in 0.. {
        let bed = Bed::new();
        bed.enable(None);
        bed.storage.fail_after(write);
        let job = bed.reconciler.vault.disable(bed.machine, "admin").unwrap();
        let job = bed.carried_out(job);
        let story = format!("write {write}");
        if !bed.storage.has_failed() {
            assert_eq!(job.state, JobState::Succeeded, "{story}: {job:#?}");
            break;
        }
        if job.state != JobState::Succeeded {
            assert_said(&job, &story);
            assert_eq!(bed.protection(), ProtectionState::DisablingFailed, "{story}");
            failures += 1;
            let again = bed.reconciler.vault.disable(bed.machine, "admin").unwrap();
            let again = bed.carried_out(again);
            assert_eq!(again.state, JobState::Succeeded, "{story}: {again:#?}");
        }
        assert_eq!(bed.reconciler.store.machines(), [], "{story}");
        let left = std::fs::read_dir(bed.reconciler.store.root().join("machines"));
        assert_eq!(left.unwrap().count(), 0, "{story}: no byte is left behind");
    }
    assert!(failures >= 2, "{failures}");
}

#[test]
fn enabling_fails_at_any_write_of_the_store_is_said_and_ordered_again() {
    let mut failures = 0;
    for write in 0.. {
        let bed = Bed::new();
        bed.storage.fail_after(write);
        let job = bed.enable(None);
        let story = format!("write {write}");
        if job.state != JobState::Failed {
            // The fence of agents of before, which has no job: the vault refuses them too.
            assert_eq!(job.tasks[0].state, TaskState::Succeeded, "{story}: {job:#?}");
            break;
        }
        assert_said(&job, &story);
        assert_eq!(bed.protection(), ProtectionState::EnablingFailed, "{story}");
        failures += 1;
        let job = bed.enable(None);
        assert_eq!(job.tasks[0].state, TaskState::Succeeded, "{story}: {job:#?}");
        // A disk that was named before the store stumbled may stand there too; nothing was ever written to it.
        let row = bed.reconciler.vault.item_row(bed.machine).unwrap();
        let known = bed.reconciler.store.disks(bed.machine).unwrap();
        for disk in row.disks {
            assert!(known.iter().any(|known| known.id == disk.id), "{story}");
        }
    }
    assert!(failures >= 4, "{failures}");
}

/// As the reconciler leaves it when the first point is there.
fn protect(bed: &Bed) {
    let vault = &bed.reconciler.vault;
    let mut item = Journal::item(vault, bed.machine).unwrap();
    item.protection = ProtectionState::Protected;
    let mut enabling = vault.open_jobs().unwrap().remove(0);
    end(&mut enabling, JobState::Succeeded);
    vault.record(&enabling, Some(&item)).unwrap();
}

#[test]
fn a_disk_that_grew_is_taken_in_anew_or_stays_what_it_was() {
    let bed = Bed::new();
    bed.enable(None);
    protect(&bed);
    let vault = &bed.reconciler.vault;
    let both = ["serial:boot".to_owned(), "serial:data".to_owned()];
    let order = || vault.set_disks(bed.machine, &both, None, "admin", None);
    assert!(order().is_err(), "nothing to change");
    // The boot disk grows.
    bed.beat(2 << 20);
    let before = vault.item_row(bed.machine).unwrap();
    bed.storage.fail_after(0);
    let job = bed.carried_out(order().unwrap());
    assert_said(&job, "grow");
    let row = vault.item_row(bed.machine).unwrap();
    assert_eq!(row.disks, before.disks, "as if nothing had been asked");
    assert_eq!(row.item.disks, before.item.disks);
    // Ordered again; and once more while the first order is not over.
    for _ in 0..2 {
        let job = bed.carried_out(order().unwrap_or_else(|_| vault.open_jobs().unwrap()[0].id));
        assert_eq!(job.state, JobState::InProgress, "{job:#?}");
    }
    let row = vault.item_row(bed.machine).unwrap();
    assert_eq!(
        (row.disks[0].stable_id.as_str(), row.disks[0].size_bytes),
        ("serial:boot", 2 << 20)
    );
    assert_ne!(row.disks[0].id, before.disks[0].id);
    assert_eq!(row.disks[1], before.disks[1]);
    assert_eq!(
        row.item.disks, before.item.disks,
        "until a point holds it as it is"
    );
    // It grows again before that, then a disaster: what there was can be started from.
    bed.beat(3 << 20);
    order().unwrap();
    let mut item = Journal::item(vault, bed.machine).unwrap();
    item.protection = ProtectionState::UnplannedFailoverCompleting;
    let job = vault.open_jobs().unwrap().remove(0);
    vault.record(&job, Some(&item)).unwrap();
    let job = bed.carried_out(job.id);
    assert_eq!(job.error.unwrap().code, "ReplicationEnded");
    let row = vault.item_row(bed.machine).unwrap();
    assert_eq!((row.disks, row.item.disks), (before.disks, before.item.disks));
}

#[test]
fn a_disk_that_the_store_does_not_take_is_said_and_included_again() {
    let bed = Bed::new();
    bed.enable(Some(vec!["serial:boot".to_owned()]));
    let vault = &bed.reconciler.vault;
    protect(&bed);
    let both = ["serial:boot".to_owned(), "serial:data".to_owned()];
    let order = || vault.set_disks(bed.machine, &both, None, "admin", None).unwrap();
    bed.storage.fail_after(0);
    let job = bed.carried_out(order());
    assert_said(&job, "include");
    assert_eq!(
        vault.item_row(bed.machine).unwrap().disks.len(),
        1,
        "not wanted any more"
    );
    let job = bed.carried_out(order());
    assert_eq!(job.tasks[0].state, TaskState::Succeeded, "{job:#?}");
    assert_eq!(job.state, JobState::InProgress, "it waits for a point");
}
