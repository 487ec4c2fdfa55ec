//! Recovery plans, and the journal of their runs.
use super::{NewEvent, Severity, Vault, VaultError, events, json_column, vault_id, word};
use crate::block::MachineId;
use crate::recovery::plan::{Plan, PlanJournal, PlanOperation, PlanRun};
use crate::recovery::{JobId, JobState, JournalError, RecoveryError};
use crate::rt::now_unix_nanos;
use rusqlite::{OptionalExtension, Row, Transaction, params};
use std::collections::HashMap;

#[derive(Clone, Debug, PartialEq)]
pub struct PlanRow {
    pub id: String,
    /// With the machines' names as they are now.
    pub plan: Plan,
    pub revision: u64,
    /// The newest run.
    pub last_run: Option<PlanRun>,
    /// The newest test that was cleaned up, and nothing of it failed.
    pub last_successful_test_unix_nanos: Option<i64>,
}

fn names(transaction: &Transaction<'_>, vault: i64) -> Result<HashMap<MachineId, String>, VaultError> {
    let names = transaction
        .prepare_cached("SELECT id, name FROM machines WHERE vault = ?1 AND removed IS NULL")?
        .query_map([vault], |row| Ok((super::id_column(row, 0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    Ok(names)
}

fn run_body(row: &Row<'_>) -> rusqlite::Result<PlanRun> {
    let mut run: PlanRun = json_column(row, 0)?;
    run.revision = row.get(1)?;
    Ok(run)
}

fn complete(
    transaction: &Transaction<'_>,
    vault: i64,
    (id, mut plan, revision): (String, Plan, u64),
) -> Result<PlanRow, VaultError> {
    let names = names(transaction, vault)?;
    for machine in plan.groups.iter_mut().flat_map(|group| &mut group.machines) {
        if let Some(name) = names.get(&machine.id) {
            machine.name.clone_from(name);
        }
    }
    let last_run = transaction
        .prepare_cached("SELECT body, revision FROM plan_runs WHERE plan = ?1 ORDER BY id DESC LIMIT 1")?
        .query_row([&id], run_body)
        .optional()?;
    let tested: Option<i64> = transaction
        .prepare_cached(
            "SELECT json_extract(body, '$.endedUnixNanos') FROM plan_runs WHERE plan = ?1 AND state = 'Succeeded'
                 AND json_extract(body, '$.operation') = ?2 ORDER BY id DESC LIMIT 1",
        )?
        .query_row(params![id, word(&PlanOperation::TestFailoverCleanup)?], |row| row.get(0))
        .optional()?;
    Ok(PlanRow {
        id,
        plan,
        revision,
        last_run,
        last_successful_test_unix_nanos: tested,
    })
}

fn plan_columns(row: &Row<'_>) -> rusqlite::Result<(String, Plan, u64)> {
    Ok((row.get(0)?, json_column(row, 1)?, row.get(2)?))
}

fn by_name(transaction: &Transaction<'_>, vault: i64, name: &str) -> Result<PlanRow, VaultError> {
    let found = transaction
        .prepare_cached("SELECT id, body, revision FROM plans WHERE vault = ?1 AND (name = ?2 OR id = ?2)")?
        .query_row(params![vault, name], plan_columns)
        .optional()?
        .ok_or_else(|| not_found(name))?;
    complete(transaction, vault, found)
}

fn not_found(name: &str) -> VaultError {
    VaultError::NotFound {
        what: "recovery plan",
        name: name.to_owned(),
    }
}

fn check(transaction: &Transaction<'_>, vault: i64, plan: &Plan) -> Result<(), VaultError> {
    plan.check().map_err(|invalid| {
        VaultError::refused(
            "InvalidPlan",
            format!("{}: {}", invalid.field, invalid.rule),
            "the plan breaks a rule",
            "change what the message names, then send the plan again",
        )
    })?;
    let names = names(transaction, vault)?;
    if let Some(unknown) = plan.machines().find(|machine| !names.contains_key(&machine.id)) {
        return Err(VaultError::NotFound {
            what: "machine",
            name: unknown.name.clone(),
        });
    }
    if let Some(network) = &plan.test_network {
        let known: Option<i64> = transaction
            .query_row(
                "SELECT id FROM networks WHERE vault = ?1 AND name = ?2 AND json_extract(body, '$.kind') = 'isolated'",
                params![vault, network],
                |row| row.get(0),
            )
            .optional()?;
        if known.is_none() {
            return Err(VaultError::Invalid {
                field: "testNetwork",
                rule: "the name of an isolated network of the vault".to_owned(),
            });
        }
    }
    Ok(())
}

fn is_taken(transaction: &Transaction<'_>, vault: i64, plan: &Plan, id: &str) -> Result<(), VaultError> {
    let taken: bool = transaction.query_row(
        "SELECT EXISTS (SELECT 1 FROM plans WHERE vault = ?1 AND name = ?2 AND id <> ?3)",
        params![vault, plan.name, id],
        |row| row.get(0),
    )?;
    if taken {
        return Err(VaultError::refused(
            "PlanExists",
            format!("there is a recovery plan {} already", plan.name),
            "it was made before",
            "choose another name, or edit it: lifeboat plan edit",
        ));
    }
    Ok(())
}

impl Vault {
    /// By name.
    pub fn plans(&self, vault: &str) -> Result<Vec<PlanRow>, VaultError> {
        self.read(|transaction| {
            let vault = vault_id(transaction, vault)?;
            let all: Vec<_> = transaction
                .prepare_cached("SELECT id, body, revision FROM plans WHERE vault = ?1 ORDER BY name")?
                .query_map([vault], plan_columns)?
                .collect::<Result<_, _>>()?;
            all.into_iter()
                .map(|found| complete(transaction, vault, found))
                .collect()
        })
    }

    pub fn plan(&self, vault: &str, name: &str) -> Result<PlanRow, VaultError> {
        self.read(|transaction| by_name(transaction, vault_id(transaction, vault)?, name))
    }

    pub fn create_plan(&self, vault: &str, plan: &Plan) -> Result<PlanRow, VaultError> {
        self.write(|transaction| {
            let vault = vault_id(transaction, vault)?;
            check(transaction, vault, plan)?;
            is_taken(transaction, vault, plan, "")?;
            transaction.execute(
                "INSERT INTO plans (id, vault, name, body, created) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    uuid::Uuid::now_v7().to_string(),
                    vault,
                    plan.name,
                    serde_json::to_string(plan)?,
                    now_unix_nanos()
                ],
            )?;
            by_name(transaction, vault, &plan.name)
        })
    }

    /// For runs from now on; one that is under way keeps the plan that it began with.
    pub fn update_plan(
        &self,
        vault: &str,
        name: &str,
        plan: &Plan,
        revision: Option<u64>,
    ) -> Result<PlanRow, VaultError> {
        self.write(|transaction| {
            let vault = vault_id(transaction, vault)?;
            let known = by_name(transaction, vault, name)?;
            refuse_stale(&known, revision)?;
            check(transaction, vault, plan)?;
            is_taken(transaction, vault, plan, &known.id)?;
            transaction.execute(
                "UPDATE plans SET name = ?2, body = ?3, revision = revision + 1 WHERE id = ?1",
                params![known.id, plan.name, serde_json::to_string(plan)?],
            )?;
            by_name(transaction, vault, &plan.name)
        })
    }

    /// Its runs are kept. Refused while one is not over.
    pub fn remove_plan(&self, vault: &str, name: &str, revision: Option<u64>) -> Result<(), VaultError> {
        self.write(|transaction| {
            let vault = vault_id(transaction, vault)?;
            let known = by_name(transaction, vault, name)?;
            refuse_stale(&known, revision)?;
            if known.last_run.is_some_and(|run| !run.state.is_over()) {
                return Err(VaultError::refused(
                    "PlanRuns",
                    format!("a run of the plan {} is not over", known.plan.name),
                    "it is under way, or waits for a person",
                    "wait until it is over, or cancel it: lifeboat plan run cancel",
                ));
            }
            transaction.execute("DELETE FROM plans WHERE id = ?1", [&known.id])?;
            Ok(())
        })
    }

    /// Runs of a plan, the newest first, from the one before `after` on.
    pub fn plan_runs(
        &self,
        vault: &str,
        plan_id: &str,
        after: Option<JobId>,
        limit: u32,
    ) -> Result<Vec<PlanRun>, VaultError> {
        self.read(|transaction| {
            let vault = vault_id(transaction, vault)?;
            let after = after.map_or_else(|| "~".to_owned(), |after| after.to_string());
            let rows = transaction
                .prepare_cached(
                    "SELECT body, revision FROM plan_runs WHERE vault = ?1 AND plan = ?2 AND id < ?3
                     ORDER BY id DESC LIMIT ?4",
                )?
                .query_map(params![vault, plan_id, after, limit], run_body)?
                .collect::<Result<_, _>>()?;
            Ok(rows)
        })
    }
}

fn refuse_stale(known: &PlanRow, revision: Option<u64>) -> Result<(), VaultError> {
    if revision.is_some_and(|revision| revision != known.revision) {
        return Err(VaultError::Conflict {
            what: "recovery plan",
            name: known.plan.name.clone(),
        });
    }
    Ok(())
}

/// An operation in words.
pub fn plan_scenario(operation: PlanOperation) -> &'static str {
    match operation {
        PlanOperation::TestFailover => "Test failover",
        PlanOperation::TestFailoverCleanup => "Cleanup of the test failover",
        PlanOperation::PlannedFailover => "Planned failover",
        PlanOperation::UnplannedFailover => "Unplanned failover",
        PlanOperation::Commit => "Commit",
        PlanOperation::CancelFailover => "Cancel of the failover",
        PlanOperation::ReverseReplicate => "Reprotect",
        PlanOperation::Failback => "Failback",
    }
}

fn news(before: Option<&str>, run: &PlanRun) -> Option<NewEvent> {
    let title = format!("{} of the plan {}", plan_scenario(run.operation), run.plan.name);
    let state = match (before, run.state) {
        (Some(before), state) if before == format!("{state:?}") => return None,
        (None, _) => ("PlanRunStarted", format!("{title} was started by {}", run.user)),
        (_, JobState::Succeeded) => ("PlanRunSucceeded", format!("{title} succeeded")),
        (_, JobState::Failed) => ("PlanRunFailed", format!("{title} failed")),
        (_, JobState::Cancelled) => ("PlanRunCancelled", format!("{title} was cancelled")),
        (_, JobState::Suspended) => (
            "PlanRunWaits",
            format!("{title} waits for a person: {}", run.waits_for),
        ),
        _ => return None,
    };
    let error = run.error.as_ref().filter(|_| run.state == JobState::Failed);
    let severity = match (run.state, run.operation) {
        (JobState::Failed, PlanOperation::TestFailover | PlanOperation::TestFailoverCleanup) => {
            Severity::Warning
        }
        (JobState::Failed, _) => Severity::Critical,
        (JobState::Suspended, _) => Severity::Warning,
        _ => Severity::Information,
    };
    Some(NewEvent {
        severity,
        code: state.0.to_owned(),
        machine: None,
        job: None,
        message: match error {
            Some(error) => format!("{}: {}", state.1, error.message),
            None => state.1,
        },
        possible_causes: error
            .map(|error| error.possible_causes.clone())
            .unwrap_or_default(),
        recommended_action: match (error, run.state) {
            (Some(error), _) => error.recommended_action.clone(),
            (None, JobState::Suspended) => format!("resume it: lifeboat plan run resume {}", run.plan.name),
            _ => String::new(),
        },
    })
}

fn of_recovery(error: VaultError) -> RecoveryError {
    match error {
        VaultError::Refused(refusal) => RecoveryError::Refused(*refusal),
        other => JournalError::from(other).into(),
    }
}

impl PlanJournal for Vault {
    fn plan_run(&self, id: JobId) -> Result<PlanRun, JournalError> {
        let found = self.read(|transaction| {
            Ok(transaction
                .prepare_cached("SELECT body, revision FROM plan_runs WHERE id = ?1")?
                .query_row([id.to_string()], run_body)
                .optional()?)
        })?;
        found.ok_or(JournalError::NoJob(id))
    }

    fn open_plan_runs(&self) -> Result<Vec<PlanRun>, JournalError> {
        Ok(self.read(|transaction| {
            let rows = transaction
                .prepare_cached("SELECT body, revision FROM plan_runs WHERE is_over = 0 ORDER BY id")?
                .query_map([], run_body)?
                .collect::<Result<_, _>>()?;
            Ok(rows)
        })?)
    }

    fn record_plan_run(&self, run: &PlanRun) -> Result<(), JournalError> {
        let written = self.write(|transaction| {
            let vault = vault_id(transaction, &run.vault)?;
            let stored: Option<(u64, String, bool)> = transaction
                .prepare_cached("SELECT revision, state, is_over FROM plan_runs WHERE id = ?1")?
                .query_row([run.id.to_string()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .optional()?;
            let body = serde_json::to_string(run)?;
            let state = word(&run.state)?;
            match &stored {
                Some((revision, _, is_over)) => {
                    if *revision != run.revision || *is_over {
                        return Ok(false);
                    }
                    transaction.execute(
                        "UPDATE plan_runs SET state = ?2, is_over = ?3, body = ?4, revision = revision + 1 WHERE id = ?1",
                        params![run.id.to_string(), state, run.state.is_over(), body],
                    )?;
                }
                None => {
                    let made = transaction.execute(
                        "INSERT INTO plan_runs (id, vault, plan, state, is_over, revision, body)
                         VALUES (?1, ?2, ?3, ?4, ?5, 1, ?6) ON CONFLICT DO NOTHING",
                        params![run.id.to_string(), vault, run.plan_id, state, run.state.is_over(), body],
                    )?;
                    if made == 0 {
                        return Ok(false);
                    }
                }
            }
            if let Some(event) = news(stored.as_ref().map(|(_, state, _)| state.as_str()), run) {
                events::insert(transaction, vault, &event)?;
            }
            Ok(true)
        })?;
        if written {
            Ok(())
        } else {
            Err(JournalError::Conflict)
        }
    }

    fn reprotect(&self, job: JobId, machine: MachineId, user: &str) -> Result<(), RecoveryError> {
        self.reprotect_as(job, machine, None, user, None)
            .map(|_| ())
            .map_err(of_recovery)
    }

    fn cancel_reprotect(&self, job: JobId) -> Result<(), RecoveryError> {
        Self::cancel_reprotect(self, job).map_err(of_recovery)
    }
}
