//! Orders on a replicated item that a person gives while it replicates: resynchronize, another policy, other disks.
//!
//! Each is one transaction with its job; the configuration server's reconciler carries the jobs out. A disk that is taken in
//! belongs to the item's recovery points from the first good point on that holds it: until then the item counts the disks
//! that it had, so that a disaster in between can still be met with the points there are. A disk that is left out leaves
//! later points at once.
use super::items::{choose_disk, disks_of, from_journal, item, new_job, put_item, task};
use super::jobs::{open_jobs_of, put_job};
use super::machines::{machine, unknown_machine};
use super::policies::usable;
use super::{ItemRow, Vault, VaultError, vault_id};
use crate::block::{DiskId, MachineId};
use crate::recovery::{ActiveLocation, Item, Job, JobId, JobKind, JobState, Journal, JournalError};
use crate::rt::now_unix_nanos;
use rusqlite::{Transaction, params};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::HashMap;

/// Task of Resynchronize: over when the agent says so.
pub const TASK_COMPARE_DISKS: &str = "CompareDisks";
/// Task of ChangeDisks: over when a good point holds all disks.
pub const TASK_COPY_DISKS: &str = "CopyDisks";

/// A disk that is taken in anew, as it was.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Replaced {
    id: DiskId,
    stable_id: String,
    size_bytes: u64,
    /// In the order of the machine's disks.
    position: i64,
}

fn replaced_by(job: &Job) -> Vec<Replaced> {
    serde_json::from_value(job.parameters["replaced"].clone()).unwrap_or_default()
}

fn found(transaction: &Transaction<'_>, id: MachineId) -> Result<ItemRow, VaultError> {
    item(transaction, id)?.ok_or_else(|| VaultError::NotFound {
        what: "replicated item",
        name: id.to_string(),
    })
}

fn unchanged(item: &Item, revision: Option<u64>) -> Result<(), VaultError> {
    match revision {
        Some(revision) if revision != item.revision => Err(VaultError::Conflict {
            what: "replicated item",
            name: item.name.clone(),
        }),
        _ => Ok(()),
    }
}

impl Vault {
    /// Orders a comparison of all disks with the replica: the order's number and its job. Whether it is legal now is
    /// admission's to say.
    pub fn resynchronize(
        &self,
        id: MachineId,
        user: &str,
        restart_of: Option<JobId>,
    ) -> Result<JobId, VaultError> {
        self.write(|transaction| {
            let row = found(transaction, id)?;
            if let Some(job) = open_jobs_of(transaction, id)?
                .iter()
                .find(|job| job.kind == JobKind::Resynchronize)
            {
                return Err(VaultError::refused(
                    "ResynchronizeInProgress",
                    format!("{} is being resynchronized already", row.item.name),
                    "it was ordered before and is not over",
                    format!("see how far it is: lifeboat job watch {}", job.id),
                ));
            }
            let order: u64 = transaction.query_row(
                "UPDATE machines SET resync_request = resync_request + 1 WHERE id = ?1 RETURNING resync_request",
                [id.to_string()],
                |row| row.get(0),
            )?;
            let mut job = new_job(
                JobKind::Resynchronize,
                id,
                user,
                vec![task(TASK_COMPARE_DISKS)],
                json!({ "order": order }),
            );
            job.restart_of = restart_of;
            put_job(transaction, &job, &row.item.name).map_err(from_journal)?;
            Ok(job.id)
        })
    }

    /// Lets an item follow another policy from now on.
    pub fn set_policy(
        &self,
        id: MachineId,
        policy: &str,
        revision: Option<u64>,
    ) -> Result<ItemRow, VaultError> {
        self.write(|transaction| {
            let row = found(transaction, id)?;
            unchanged(&row.item, revision)?;
            let policy = usable(transaction, vault_id(transaction, &row.vault)?, policy)?;
            transaction.execute(
                "UPDATE items SET policy = ?2 WHERE machine = ?1",
                params![id.to_string(), policy],
            )?;
            put_item(transaction, &row.item).map_err(from_journal)?;
            found(transaction, id)
        })
    }

    /// Protects these disks (stable ids) from now on, in place of those before.
    pub fn set_disks(
        &self,
        id: MachineId,
        wanted: &[String],
        revision: Option<u64>,
        user: &str,
        restart_of: Option<JobId>,
    ) -> Result<JobId, VaultError> {
        self.write(|transaction| {
            let row = found(transaction, id)?;
            let mut changed = row.item;
            unchanged(&changed, revision)?;
            let name = changed.name.clone();
            if !changed.is_protected_at_home() {
                return Err(VaultError::refused(
                    "NotProtected",
                    format!("the disks of {name} cannot be changed in the state {:?}", changed.protection),
                    "the first copy is not complete, or the machine was failed over",
                    "wait for the state Protected; before that, disable replication and enable it with the disks wanted",
                ));
            }
            let open = open_jobs_of(transaction, id)?;
            let in_the_way = |job: &&Job| !job.kind.holds_nothing_up();
            if let Some(job) = open.iter().find(in_the_way) {
                return Err(VaultError::refused(
                    "JobInProgress",
                    format!("a job of {name} is not over: {}", super::scenario(job.kind)),
                    "one job at a time works on a machine",
                    format!("wait for it: lifeboat job watch {}", job.id),
                ));
            }
            let machine_row = machine(transaction, id)?.ok_or_else(|| unknown_machine(id))?;
            let inventory = machine_row.inventory.unwrap_or_default();
            let known = row.disks;
            let is_wanted = |stable_id: &str| wanted.iter().any(|id| id == stable_id);
            // The boot disk stands first.
            if let Some(boot) = known.first().filter(|boot| !is_wanted(&boot.stable_id)) {
                return Err(VaultError::refused(
                    "BootDiskExcluded",
                    format!("{} is the disk that {name} boots from", boot.stable_id),
                    "without it the machine cannot be started at the target",
                    "keep it among the disks",
                ));
            }
            // A disk of another size is another disk to the replica. Named again it is taken in anew, and counts as it was until a
            // point holds it as it is.
            let has_grown = |disk: &super::ItemDisk| {
                let now = inventory.disks.iter().find(|now| now.stable_id == disk.stable_id);
                now.is_some_and(|now| now.size_bytes != 0 && now.size_bytes != disk.size_bytes)
            };
            let mut include = Vec::new();
            for stable_id in wanted {
                if known
                    .iter()
                    .any(|disk| disk.stable_id == *stable_id && !has_grown(disk))
                {
                    continue;
                }
                let disk = choose_disk(&name, &inventory, stable_id)?;
                if !include.contains(&disk) {
                    include.push(disk);
                }
            }
            let exclude: Vec<_> = known.iter().filter(|disk| !is_wanted(&disk.stable_id)).collect();
            if include.is_empty() && exclude.is_empty() {
                return Err(VaultError::refused(
                    "NothingToChange",
                    format!("exactly these disks of {name} are protected already"),
                    "the disks named are those that are protected",
                    format!("see them: lifeboat machine show {name}"),
                ));
            }
            let (mut replaced, mut places): (Vec<Replaced>, _) = (Vec::new(), HashMap::new());
            for disk in known.iter().filter(|disk| is_wanted(&disk.stable_id) && has_grown(disk)) {
                let position: i64 = transaction.query_row(
                    "SELECT position FROM disks WHERE id = ?1",
                    [disk.id.to_string()],
                    |row| row.get(0),
                )?;
                places.insert(disk.stable_id.clone(), position);
                transaction.execute("DELETE FROM disks WHERE id = ?1", [disk.id.to_string()])?;
                // One that is in no point yet has nothing to come back to.
                if changed.disks.contains(&disk.id) {
                    replaced.push(Replaced {
                        id: disk.id,
                        stable_id: disk.stable_id.clone(),
                        size_bytes: disk.size_bytes,
                        position,
                    });
                }
            }
            for mut job in open.into_iter().filter(|job| job.kind == JobKind::ChangeDisks) {
                replaced.extend(
                    replaced_by(&job)
                        .into_iter()
                        .filter(|disk| is_wanted(&disk.stable_id)),
                );
                job.state = JobState::Cancelled;
                job.ended_unix_nanos = Some(now_unix_nanos());
                put_job(transaction, &job, &name).map_err(from_journal)?;
            }
            for disk in &exclude {
                transaction.execute("DELETE FROM disks WHERE id = ?1", [disk.id.to_string()])?;
                changed.disks.retain(|known| *known != disk.id);
            }
            for disk in &include {
                transaction.execute(
                    "INSERT INTO disks (id, machine, position, stable_id, size_bytes)
                     SELECT ?1, ?2, ifnull(?5, ifnull(max(position), -1) + 1), ?3, ?4 FROM disks WHERE machine = ?2",
                    params![
                        DiskId::new().to_string(),
                        id.to_string(),
                        disk.stable_id,
                        disk.size_bytes,
                        places.get(&disk.stable_id),
                    ],
                )?;
            }
            // Sessions of the older generation end: the next one is of the new disks.
            changed.generation += 1;
            put_item(transaction, &changed).map_err(from_journal)?;
            let mut job = new_job(
                JobKind::ChangeDisks,
                id,
                user,
                vec![task(super::TASK_REGISTER_DISKS), task(TASK_COPY_DISKS)],
                json!({
                    "disks": wanted,
                    "include": include.iter().map(|disk| &disk.stable_id).collect::<Vec<_>>(),
                    "exclude": exclude.iter().map(|disk| &disk.stable_id).collect::<Vec<_>>(),
                    "replaced": replaced,
                }),
            );
            job.restart_of = restart_of;
            put_job(transaction, &job, &name).map_err(from_journal)?;
            Ok(job.id)
        })
    }

    /// Records a ChangeDisks job that has come to nothing; disks that are in no point of the item are no longer wanted, and those
    /// that they were to replace are what they were.
    pub fn abandon_disks(&self, job: &Job) -> Result<(), JournalError> {
        self.write(|transaction| {
            let row = found(transaction, job.machine)?;
            for disk in disks_of(transaction, job.machine)? {
                if !row.item.disks.contains(&disk.id) {
                    transaction.execute("DELETE FROM disks WHERE id = ?1", [disk.id.to_string()])?;
                }
            }
            let known = disks_of(transaction, job.machine)?;
            for disk in replaced_by(job) {
                let counts = row.item.disks.contains(&disk.id);
                if !counts || known.iter().any(|known| known.id == disk.id) {
                    continue;
                }
                transaction.execute(
                    "INSERT INTO disks (id, machine, position, stable_id, size_bytes) VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![
                        disk.id.to_string(),
                        job.machine.to_string(),
                        disk.position,
                        disk.stable_id,
                        disk.size_bytes
                    ],
                )?;
            }
            put_job(transaction, job, &row.item.name).map_err(from_journal)
        })?;
        Ok(())
    }

    /// Takes a suspended job up again; what the person says of it is kept with it, and told of in the events. Whoever
    /// carries the job out sees the state in the database, and reads the job anew before it writes it.
    pub fn resume_job(&self, id: JobId, user: &str, comments: &str) -> Result<Job, VaultError> {
        self.write(|transaction| {
            let mut job = super::jobs::job(transaction, id)?.ok_or_else(|| VaultError::NotFound {
                what: "job",
                name: id.to_string(),
            })?;
            if job.state != JobState::Suspended {
                return Err(VaultError::refused(
                    "NotSuspended",
                    format!("the job does not wait for anybody: {:?}", job.state),
                    "only a job that is suspended, such as one with a manual action, is resumed",
                    format!("see it: lifeboat job show {id}"),
                ));
            }
            let name = machine(transaction, job.machine)?
                .map(|row| row.name)
                .unwrap_or_default();
            job.state = JobState::InProgress;
            let at = jiff::Timestamp::from_nanosecond(i128::from(now_unix_nanos())).unwrap_or_default();
            let comment = json!({ "user": user, "at": at.to_string(), "text": comments });
            if !job.result.is_object() {
                job.result = json!({});
            }
            // A job may wait several times.
            match job.result["comments"].as_array_mut() {
                Some(before) => before.push(comment),
                None => job.result["comments"] = json!([comment]),
            }
            put_job(transaction, &job, &name).map_err(from_journal)?;
            Ok(job)
        })
    }

    /// Whether the item's source is to ship now.
    pub fn replicates(&self, id: MachineId) -> Result<bool, JournalError> {
        let item = Journal::item(self, id)?;
        Ok(item.active_location == ActiveLocation::Primary && super::machines::replicates(item.protection))
    }
}
