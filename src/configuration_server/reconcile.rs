//! Carries enabling and disabling of replication out. A reconciler: reads the jobs that are open, does the next step of each,
//! records it; runs on a timer and whenever the vault changed. Every step is safe to do twice, so a crash anywhere is
//! followed by the same step again.
use super::roster::Roster;
use crate::block::MachineId;
use crate::process_server::Sessions;
use crate::recovery::{
    ActiveLocation, Item, Job, JobError, JobKind, JobState, Journal, JournalError, KeepPoints, KeptPoints,
    ProtectionEvent, ProtectionState, Source, Task, TaskState,
};
use crate::replica::{DiskSpec, ReplicaError, Store};
use crate::rt::now_unix_nanos;
use crate::vault::{
    ItemRow, TASK_COMPARE_DISKS, TASK_COPY_DISKS, TASK_COPY_HOME, TASK_KEEP_POINTS, TASK_REGISTER_DISKS,
    TASK_REMOVE_REPLICA, TASK_START_REPLICATION, TASK_STOP_REPLICATION, Vault,
};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Percent.
const PROGRESS_STEP: u64 = 5;
/// Who gives the orders that nobody gave.
const USER: &str = "lifeboat";
const INTERVAL: Duration = Duration::from_millis(500);

pub struct Reconciler {
    pub vault: Vault,
    pub store: Store,
    pub sessions: Sessions,
    pub roster: Arc<Roster>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum StepError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Vault(#[from] crate::vault::VaultError),
    #[error(transparent)]
    Store(#[from] ReplicaError),
}

impl Reconciler {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let this = Arc::new(self);
        let mut commits = this.vault.commits();
        loop {
            let round = this.clone();
            let _ = tokio::task::spawn_blocking(move || round.round()).await;
            tokio::select! {
                () = stop.cancelled() => return,
                _ = commits.changed() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    /// Points that were kept until a date go when it has come. One that is in use waits: the next round tries again.
    fn remove_expired_points(&self) {
        match self.vault.expired_points(now_unix_nanos()) {
            Ok(machines) => {
                for machine in machines {
                    if let Err(error) = self.vault.disable(machine, USER) {
                        tracing::debug!(%machine, %error, "kept points cannot be removed yet");
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "kept points could not be looked through"),
        }
    }

    fn round(&self) {
        self.remove_expired_points();
        let jobs = match self.vault.open_jobs() {
            Ok(jobs) => jobs,
            Err(error) => return tracing::warn!(%error, "the jobs could not be read"),
        };
        for job in jobs {
            let (id, machine) = (job.id, job.machine);
            let done = match job.kind {
                JobKind::EnableReplication => self.enable(job),
                JobKind::DisableReplication => self.disable(job),
                JobKind::Resynchronize => self.resynchronize(job),
                JobKind::ChangeDisks => self.change_disks(job),
                JobKind::Reprotect => self.reprotect(job),
                JobKind::CreateRecoveryPoint => self.create_point(job),
                // Others are recovery's.
                _ => Ok(()),
            };
            match done {
                // Somebody else was faster: the next round sees what is.
                Ok(()) | Err(StepError::Journal(JournalError::Conflict)) => {}
                Err(error) => tracing::warn!(job = %id, %machine, %error, "a step failed and is tried again"),
            }
        }
    }

    fn enable(&self, mut job: Job) -> Result<(), StepError> {
        let mut item = self.vault.item(job.machine)?;
        let row = self.vault.item_row(job.machine)?;
        if !is_done(&job, TASK_REGISTER_DISKS) {
            begin(&mut job, TASK_REGISTER_DISKS);
            if let Err(error) = self.register(&item, &row) {
                return self.enable_failed(job, item, error);
            }
            // An older replica of this machine, from before replication was disabled, must not be written by an older agent.
            self.roster.fence(job.machine, item.generation);
            done(
                &mut job,
                TASK_REGISTER_DISKS,
                format!("{} disks", row.disks.len()),
            );
            begin(&mut job, TASK_START_REPLICATION);
            return Ok(self.vault.record(&job, None)?);
        }
        let sealed = self.roster.has_point_since(job.machine, job.created_unix_nanos);
        if self.sessions.is_open(job.machine) || sealed {
            item.protection = if sealed {
                ProtectionState::Protected
            } else {
                ProtectionState::InitialReplicationInProgress
            };
            done(
                &mut job,
                TASK_START_REPLICATION,
                "the agent's session is open".to_owned(),
            );
            end(&mut job, JobState::Succeeded);
            self.vault.record(&job, Some(&item))?;
        }
        Ok(())
    }

    /// Makes the machine and its disks known to the store. Safe to repeat.
    fn register(&self, item: &Item, row: &ItemRow) -> Result<(), ReplicaError> {
        self.store.register_machine(item.machine, &item.name)?;
        for disk in &row.disks {
            let spec = DiskSpec {
                id: disk.id,
                name: disk.stable_id.clone(),
                size_bytes: disk.size_bytes,
            };
            self.store.register_disk(item.machine, spec)?;
        }
        Ok(())
    }

    fn enable_failed(&self, mut job: Job, mut item: Item, error: ReplicaError) -> Result<(), StepError> {
        let error = JobError {
            code: "RegisterDisksFailed".to_owned(),
            ..error.into()
        };
        fail(&mut job, TASK_REGISTER_DISKS, error);
        item.protection = ProtectionState::EnablingFailed;
        Ok(self.vault.record(&job, Some(&item))?)
    }

    fn disable(&self, mut job: Job) -> Result<(), StepError> {
        let mut item = self.vault.item(job.machine)?;
        let keep: Option<KeepPoints> =
            serde_json::from_value(job.parameters["keepPoints"].clone()).unwrap_or_default();
        if !is_done(&job, TASK_STOP_REPLICATION) {
            begin(&mut job, TASK_STOP_REPLICATION);
            item.generation += 1;
            done(&mut job, TASK_STOP_REPLICATION, String::new());
            begin(
                &mut job,
                if keep.is_some() {
                    TASK_KEEP_POINTS
                } else {
                    TASK_REMOVE_REPLICA
                },
            );
            // The new generation first, then its effect: a crash in between repeats only the effect.
            return Ok(self.vault.record(&job, Some(&item))?);
        }
        self.stop(job.machine, item.generation);
        item.protection = ProtectionState::Unprotected;
        let points = match self.store.points(job.machine) {
            Ok(points) => points.len(),
            Err(ReplicaError::NoMachine(_)) => 0,
            Err(error) => return Err(error.into()),
        };
        // Nothing to keep: as if nobody had asked for it.
        if let Some(keep) = keep.filter(|_| points > 0) {
            // What an older agent might still ship comes too late.
            self.store.begin(job.machine, item.generation)?;
            item.kept_points = Some(KeptPoints {
                since_unix_nanos: now_unix_nanos(),
                until_unix_nanos: keep.until_unix_nanos,
            });
            job.result = serde_json::json!({ "keptPoints": points });
            done(
                &mut job,
                TASK_KEEP_POINTS,
                format!("{points} recovery points are kept"),
            );
            end(&mut job, JobState::Succeeded);
            return Ok(self.vault.record(&job, Some(&item))?);
        }
        item.kept_points = None;
        let freed = match self.store.remove_machine(job.machine) {
            Ok(freed) => freed,
            Err(ReplicaError::NoMachine(_)) => 0,
            Err(error) => {
                // Said, and left to a person: a store that refuses now may do so for ever.
                fail(&mut job, TASK_REMOVE_REPLICA, error.into());
                item.protection = item
                    .protection
                    .step(ProtectionEvent::DisableFailed)
                    .unwrap_or(ProtectionState::DisablingFailed);
                return Ok(self.vault.record(&job, Some(&item))?);
            }
        };
        job.result = serde_json::json!({ "freedBytes": freed });
        let task = if keep.is_some() {
            TASK_KEEP_POINTS
        } else {
            TASK_REMOVE_REPLICA
        };
        done(&mut job, task, format!("{freed} bytes freed"));
        end(&mut job, JobState::Succeeded);
        Ok(self.vault.record(&job, Some(&item))?)
    }

    /// The order went out with its job; the agent's heartbeat says when it is carried out.
    fn resynchronize(&self, mut job: Job) -> Result<(), StepError> {
        if !self.vault.replicates(job.machine)? {
            fail(&mut job, TASK_COMPARE_DISKS, replication_ended());
            return Ok(self.vault.record(&job, None)?);
        }
        let order = job.parameters["order"].as_u64().unwrap_or_default();
        let Some(heartbeat) = self.vault.live(job.machine).heartbeat else {
            return Ok(());
        };
        let total: u64 = heartbeat.disks.iter().map(|disk| disk.total_bytes).sum();
        if heartbeat.resync_done == order {
            job.result = serde_json::json!({ "comparedBytes": total });
            done(&mut job, TASK_COMPARE_DISKS, format!("{total} bytes compared"));
            end(&mut job, JobState::Succeeded);
            return Ok(self.vault.record(&job, None)?);
        }
        let moving = heartbeat.disks.iter().any(|disk| disk.state == "Resynchronizing");
        let copied: u64 = heartbeat.disks.iter().map(|disk| disk.done_bytes).sum();
        let percent = if moving {
            copied.saturating_mul(100).checked_div(total)
        } else {
            None
        };
        self.show_progress(
            job,
            TASK_COMPARE_DISKS,
            percent,
            "waiting for the agent to take the order",
        )
    }

    /// Keeps how far a task is, in steps: each is a commit.
    fn show_progress(
        &self,
        mut job: Job,
        name: &str,
        percent: Option<u64>,
        waiting: &str,
    ) -> Result<(), StepError> {
        let message = match percent {
            Some(percent) => format!("{} %", percent.min(100) / PROGRESS_STEP * PROGRESS_STEP),
            None => waiting.to_owned(),
        };
        begin(&mut job, name);
        let Some(task) = task(&mut job, name) else {
            return Ok(());
        };
        // Never back: between two cycles nothing moves for a moment.
        if task.message == message || (percent.is_none() && !task.message.is_empty()) {
            return Ok(());
        }
        task.message = message;
        Ok(self.vault.record(&job, None)?)
    }

    fn change_disks(&self, mut job: Job) -> Result<(), StepError> {
        let row = self.vault.item_row(job.machine)?;
        let mut item = row.item;
        if !self.vault.replicates(job.machine)? {
            fail(&mut job, TASK_COPY_DISKS, replication_ended());
            return Ok(self.vault.abandon_disks(&job)?);
        }
        if !is_done(&job, TASK_REGISTER_DISKS) {
            begin(&mut job, TASK_REGISTER_DISKS);
            for disk in &row.disks {
                let spec = DiskSpec {
                    id: disk.id,
                    name: disk.stable_id.clone(),
                    size_bytes: disk.size_bytes,
                };
                if let Err(error) = self.store.register_disk(job.machine, spec) {
                    fail(&mut job, TASK_REGISTER_DISKS, error.into());
                    return Ok(self.vault.abandon_disks(&job)?);
                }
            }
            self.roster.fence(job.machine, item.generation);
            done(
                &mut job,
                TASK_REGISTER_DISKS,
                format!("{} disks", row.disks.len()),
            );
            begin(&mut job, TASK_COPY_DISKS);
            return Ok(self.vault.record(&job, None)?);
        }
        let wanted: Vec<_> = row.disks.iter().map(|disk| disk.id).collect();
        let fresh = wanted.iter().any(|disk| !item.disks.contains(disk));
        let held = !fresh
            || self.store.points(job.machine)?.iter().any(|point| {
                point.consistency > crate::block::Consistency::Fuzzy
                    && wanted.iter().all(|disk| point.disks.contains(disk))
            });
        if held {
            let message = if fresh {
                "a recovery point holds all disks"
            } else {
                ""
            };
            done(&mut job, TASK_COPY_DISKS, message.to_owned());
            end(&mut job, JobState::Succeeded);
            item.disks = wanted;
            return Ok(self.vault.record(&job, Some(&item))?);
        }
        let heartbeat = self.vault.live(job.machine).heartbeat.unwrap_or_default();
        let copying = heartbeat
            .disks
            .iter()
            .filter(|disk| !item.disks.contains(&disk.disk) && disk.state == "InitialReplicationInProgress");
        let (copied, total) = copying.fold((0u64, 0u64), |(copied, total), disk| {
            (copied + disk.done_bytes, total + disk.total_bytes)
        });
        let percent = copied.saturating_mul(100).checked_div(total);
        self.show_progress(
            job,
            TASK_COPY_DISKS,
            percent,
            "waiting for the agent to take the order",
        )
    }

    /// Towards home it is over when the receiver holds a point whole, towards the target when the agent sealed one.
    fn reprotect(&self, mut job: Job) -> Result<(), StepError> {
        let mut item = self.vault.item(job.machine)?;
        let home = item.active_location == ActiveLocation::Recovery;
        let name = if home { TASK_COPY_HOME } else { TASK_COMPARE_DISKS };
        if job.state == JobState::NotStarted {
            if home {
                self.roster.forget_receiver(job.machine);
            } else {
                // The new generation first, then its effect: a crash in between repeats only the effect.
                self.roster.fence(job.machine, item.generation);
            }
            begin(&mut job, name);
            return Ok(self.vault.record(&job, None)?);
        }
        let percent = if home {
            match self.roster.is_received(job.machine) {
                Ok(()) => None,
                Err((done, total)) => Some(done.saturating_mul(100).checked_div(total)),
            }
        } else if self.roster.has_point_since(job.machine, job.created_unix_nanos) {
            None
        } else {
            let heartbeat = self.vault.live(job.machine).heartbeat.unwrap_or_default();
            let total: u64 = heartbeat.disks.iter().map(|disk| disk.total_bytes).sum();
            let copied: u64 = heartbeat.disks.iter().map(|disk| disk.done_bytes).sum();
            let moving = heartbeat.disks.iter().any(|disk| disk.state == "Resynchronizing");
            Some(copied.saturating_mul(100).checked_div(total).filter(|_| moving))
        };
        if let Some(percent) = percent {
            let waiting = if home {
                "waiting for `lifeboat agent receive` at home"
            } else {
                "waiting for the agent at home"
            };
            return self.show_progress(job, name, percent, waiting);
        }
        let Ok(state) = item.protection.step(ProtectionEvent::ReprotectCompleted) else {
            fail(&mut job, name, replication_ended());
            return Ok(self.vault.record(&job, None)?);
        };
        item.protection = state;
        let message = if home {
            "the receiver holds the disks and follows"
        } else {
            "the first recovery point is at the target"
        };
        done(&mut job, name, message.to_owned());
        end(&mut job, JobState::Succeeded);
        Ok(self.vault.record(&job, Some(&item))?)
    }

    fn stop(&self, machine: MachineId, generation: u64) {
        self.roster.fence(machine, generation);
    }
}

pub(super) fn replication_ended() -> JobError {
    JobError {
        code: "ReplicationEnded".to_owned(),
        message: "the machine is no longer replicated from its source".to_owned(),
        possible_causes: "it was failed over, or its protection was disabled".to_owned(),
        recommended_action: "nothing needs to be done".to_owned(),
    }
}

pub(super) fn fail(job: &mut Job, name: &str, error: JobError) {
    if let Some(task) = task(job, name) {
        task.state = TaskState::Failed;
        task.ended_unix_nanos = Some(now_unix_nanos());
        task.error = Some(error.clone());
    }
    job.error = Some(error);
    end(job, JobState::Failed);
}

fn task<'a>(job: &'a mut Job, name: &str) -> Option<&'a mut Task> {
    job.tasks.iter_mut().find(|task| task.name == name)
}

fn is_done(job: &Job, name: &str) -> bool {
    job.tasks
        .iter()
        .any(|task| task.name == name && task.state == TaskState::Succeeded)
}

pub(super) fn begin(job: &mut Job, name: &str) {
    let now = now_unix_nanos();
    job.state = JobState::InProgress;
    job.started_unix_nanos.get_or_insert(now);
    if let Some(task) = task(job, name) {
        task.state = TaskState::InProgress;
        task.started_unix_nanos.get_or_insert(now);
    }
}

pub(super) fn done(job: &mut Job, name: &str, message: String) {
    if let Some(task) = task(job, name) {
        task.state = TaskState::Succeeded;
        task.ended_unix_nanos = Some(now_unix_nanos());
        task.message = message;
    }
}

pub(super) fn end(job: &mut Job, state: JobState) {
    job.state = state;
    job.ended_unix_nanos = Some(now_unix_nanos());
}

#[cfg(test)]
mod tests;
