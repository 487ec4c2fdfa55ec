//! The job CreateRecoveryPoint: waits for the point that answers its order.
use super::reconcile::{Reconciler, StepError, begin, done, end, fail, replication_ended};
use crate::block::Consistency;
use crate::recovery::{Job, JobError, JobState, Journal};
use crate::rt::now_unix_nanos;
use crate::vault::TASK_MAKE_POINT;
use serde_json::json;

/// Hooks and a large rest take their time; an agent that has gone does not come back for an old order.
const LIMIT_NANOS: i64 = 15 * 60 * 1_000_000_000;

impl Reconciler {
    pub(super) fn create_point(&self, mut job: Job) -> Result<(), StepError> {
        if !self.vault.replicates(job.machine)? {
            fail(&mut job, TASK_MAKE_POINT, replication_ended());
            return Ok(self.vault.record(&job, None)?);
        }
        let order = job.parameters["order"].as_u64().unwrap_or_default();
        let app = job.parameters["appConsistent"] == true;
        let least = if app {
            Consistency::AppConsistent
        } else {
            Consistency::CrashConsistent
        };
        let answer = self
            .roster
            .last_sealed(job.machine)
            .filter(|sealed| sealed.sync_request >= order);
        // A server that was restarted has forgotten who answered what; a good point made since the order is as good.
        let points = match self.store.points(job.machine) {
            Err(crate::replica::ReplicaError::NoMachine(_)) => Vec::new(),
            points => points?,
        };
        let good = points
            .iter()
            .rev()
            .find(|point| point.consistency >= least && point.instant_unix_nanos >= job.created_unix_nanos);
        if let Some(point) = good {
            job.result = json!({ "recoveryPoint": point.id, "consistency": point.consistency });
            done(
                &mut job,
                TASK_MAKE_POINT,
                format!("recovery point {} ({})", point.id, point.consistency),
            );
            end(&mut job, JobState::Succeeded);
            return Ok(self.vault.record(&job, None)?);
        }
        if let Some(sealed) = answer {
            job.result = json!({ "recoveryPoint": sealed.point, "consistency": sealed.consistency });
            let error = JobError {
                code: if app { "NotAppConsistent" } else { "NotConsistent" }.to_owned(),
                message: format!(
                    "the recovery point that was made is {}, no more: {}",
                    sealed.consistency,
                    if sealed.note.is_empty() {
                        "the agent does not say why"
                    } else {
                        &sealed.note
                    }
                ),
                possible_causes: if app {
                    "a hook that brings an application to rest failed, or there is none".to_owned()
                } else {
                    "something writes past the file systems".to_owned()
                },
                recommended_action: if app {
                    "on the machine: lifeboat agent quiesce test; then order it again".to_owned()
                } else {
                    "see the note; on the machine: lifeboat agent doctor".to_owned()
                },
            };
            fail(&mut job, TASK_MAKE_POINT, error);
            return Ok(self.vault.record(&job, None)?);
        }
        if now_unix_nanos() - job.created_unix_nanos > LIMIT_NANOS {
            let error = JobError {
                code: "NoPointInTime".to_owned(),
                message: "the agent made no recovery point within 15 minutes".to_owned(),
                possible_causes:
                    "it is stopped or cut off, copies a lot first, or an application does not come to rest"
                        .to_owned(),
                recommended_action: "see what it does: lifeboat machine show".to_owned(),
            };
            fail(&mut job, TASK_MAKE_POINT, error);
            return Ok(self.vault.record(&job, None)?);
        }
        if job.state == JobState::NotStarted {
            begin(&mut job, TASK_MAKE_POINT);
            return Ok(self.vault.record(&job, None)?);
        }
        Ok(())
    }
}
