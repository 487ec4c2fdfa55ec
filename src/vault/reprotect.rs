//! Reprotect: replication in the other direction from now on. Towards home a receiver takes the replica; towards the target
//! the agent ships again, beginning with a comparison. [`Vault::reprotect`] decides and writes down; the configuration
//! server's reconciler carries the job out.
use super::items::{from_journal, item, item_sql, new_job, put_item, task};
use super::jobs::{open_jobs_of, put_job};
use super::machines::{machine, unknown_machine};
use super::{ItemRow, TASK_COMPARE_DISKS, Vault, VaultError};
use crate::block::MachineId;
use crate::recovery::{
    ActiveLocation, Job, JobError, JobId, JobKind, JobState, ProtectionEvent, Reprotect, TaskState,
};
use crate::rt::now_unix_nanos;
use serde_json::json;

/// Task of Reprotect towards home: over when the receiver's disks hold a point whole.
pub const TASK_COPY_HOME: &str = "CopyHome";

impl Vault {
    /// Orders it: the item's new state and the job, in one transaction. Whether it is legal now is admission's to say.
    ///
    /// `receiver`: who takes the machine home; None: the machine itself. Has no meaning for one that is at home.
    pub fn reprotect(
        &self,
        id: MachineId,
        receiver: Option<MachineId>,
        user: &str,
        restart_of: Option<JobId>,
    ) -> Result<JobId, VaultError> {
        self.reprotect_as(JobId::new(), id, receiver, user, restart_of)
    }

    /// As [`Self::reprotect`], as a job whose id was written down before.
    pub fn reprotect_as(
        &self,
        job_id: JobId,
        id: MachineId,
        receiver: Option<MachineId>,
        user: &str,
        restart_of: Option<JobId>,
    ) -> Result<JobId, VaultError> {
        self.write(|transaction| {
            let row = item(transaction, id)?.ok_or_else(|| unknown_machine(id))?;
            let mut changed = row.item;
            let name = changed.name.clone();
            if let Some(job) = open_jobs_of(transaction, id)?.first() {
                return Err(VaultError::refused(
                    "JobInProgress",
                    format!("a job of {name} is not over: {}", super::scenario(job.kind)),
                    "one job at a time works on a machine",
                    format!("wait for it: lifeboat job watch {}", job.id),
                ));
            }
            changed.protection = changed
                .protection
                .step(ProtectionEvent::ReprotectRequested)
                .map_err(|refused| {
                    VaultError::refused(
                        "WrongState",
                        format!("{name} cannot be reprotected: {refused}"),
                        "the state changed a moment ago",
                        format!("see it: lifeboat machine show {name}"),
                    )
                })?;
            let (tasks, parameters) = match changed.active_location {
                ActiveLocation::Recovery => {
                    let receiver = receiver.unwrap_or(id);
                    machine(transaction, receiver)?.ok_or_else(|| unknown_machine(receiver))?;
                    if receiver != id && item(transaction, receiver)?.is_some() {
                        return Err(VaultError::refused(
                            "ReceiverIsReplicated",
                            "the machine that is to receive is a replicated item itself".to_owned(),
                            "its own disks would be overwritten while they are protected",
                            "take a machine that is joined and not replicated, or disable its replication first",
                        ));
                    }
                    changed.reprotect = Some(Reprotect {
                        receiver,
                        final_point: None,
                    });
                    (vec![task(TASK_COPY_HOME)], json!({ "receiver": receiver }))
                }
                ActiveLocation::Primary => {
                    changed.reprotect = None;
                    // The target wrote to the line since; older sessions of the agent are over.
                    changed.generation += 1;
                    changed.line += 1;
                    (vec![task(TASK_COMPARE_DISKS)], json!({}))
                }
            };
            put_item(transaction, &changed).map_err(from_journal)?;
            let mut job = new_job(JobKind::Reprotect, id, user, tasks, parameters);
            job.id = job_id;
            job.restart_of = restart_of;
            put_job(transaction, &job, &name).map_err(from_journal)?;
            Ok(job.id)
        })
    }

    /// Ends a reprotect that is not over; the machine stays where it is.
    pub fn cancel_reprotect(&self, id: JobId) -> Result<(), VaultError> {
        self.write(|transaction| {
            let mut job: Job = super::jobs::job(transaction, id)?.ok_or_else(|| VaultError::NotFound {
                what: "job",
                name: id.to_string(),
            })?;
            let row = item(transaction, job.machine)?.ok_or_else(|| unknown_machine(job.machine))?;
            let mut changed = row.item;
            if job.state.is_over() {
                return Err(VaultError::refused(
                    "JobIsOver",
                    "the job is over already".to_owned(),
                    "it ended before it could be cancelled",
                    "nothing is left to do".to_owned(),
                ));
            }
            if let Ok(state) = changed.protection.step(ProtectionEvent::ReprotectFailed) {
                changed.protection = state;
                changed.reprotect = None;
                put_item(transaction, &changed).map_err(from_journal)?;
            }
            let now = now_unix_nanos();
            for task in job
                .tasks
                .iter_mut()
                .filter(|task| task.state == TaskState::InProgress)
            {
                task.state = TaskState::Failed;
                task.ended_unix_nanos = Some(now);
            }
            job.state = JobState::Cancelled;
            job.ended_unix_nanos = Some(now);
            job.error = Some(JobError {
                code: "Cancelled".to_owned(),
                message: "The job was cancelled.".to_owned(),
                possible_causes: "A person asked for it.".to_owned(),
                recommended_action: "Reprotect the machine again when it is wanted.".to_owned(),
            });
            put_job(transaction, &job, &changed.name).map_err(from_journal)
        })
    }

    /// The items that this machine is to take home.
    pub fn to_be_received_by(&self, receiver: MachineId) -> Result<Vec<ItemRow>, VaultError> {
        self.read(|transaction| {
            let machines: Vec<MachineId> = transaction
                .prepare_cached(&item_sql(
                    "WHERE json_extract(items.body, '$.reprotect.receiver') = ?1",
                ))?
                .query_map([receiver.to_string()], |row| super::id_column(row, 0))?
                .collect::<Result<_, _>>()?;
            let mut rows = Vec::new();
            for id in machines {
                rows.extend(item(transaction, id)?);
            }
            Ok(rows)
        })
    }
}
