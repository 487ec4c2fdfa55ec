//! Jobs in the database: written by the journal, listed for people.
use super::{NewEvent, Severity, Vault, VaultError, events, items::scenario, json_column, vault_id, word};
use crate::block::MachineId;
use crate::recovery::{Job, JobId, JobKind, JobState, JournalError, TaskState};
use rusqlite::{OptionalExtension, Row, ToSql, Transaction, params, params_from_iter};

/// A job with the name that its machine has now.
#[derive(Clone, Debug, PartialEq)]
pub struct JobRow {
    pub vault: String,
    pub job: Job,
    pub machine_name: String,
}

/// Which jobs; what is None is not asked for.
#[derive(Clone, Debug, Default)]
pub struct JobFilter {
    pub machine: Option<MachineId>,
    pub state: Option<JobState>,
    pub kind: Option<JobKind>,
    pub user: Option<String>,
    /// Created at or after this instant, and before that one.
    pub since_unix_nanos: Option<i64>,
    pub until_unix_nanos: Option<i64>,
    pub oldest_first: bool,
    /// The last one that is known already.
    pub after: Option<JobId>,
}

fn job_row(row: &Row<'_>) -> rusqlite::Result<JobRow> {
    Ok(JobRow {
        job: json_column(row, 0)?,
        machine_name: row.get(1)?,
        vault: row.get(2)?,
    })
}

/// The least id of a job that is made at this instant or later (RFC 9562, version 7: 48 bits of milliseconds first).
fn first_id_of(unix_nanos: i64) -> String {
    let millis = u128::try_from(unix_nanos / 1_000_000).unwrap_or(0) & 0xffff_ffff_ffff;
    uuid::Uuid::from_u128(millis << 80).to_string()
}

pub(super) fn job(transaction: &Transaction<'_>, id: JobId) -> Result<Option<Job>, VaultError> {
    Ok(transaction
        .prepare_cached("SELECT body FROM jobs WHERE id = ?1")?
        .query_row([id.to_string()], |row| json_column(row, 0))
        .optional()?)
}

pub(super) fn open_jobs(transaction: &Transaction<'_>) -> Result<Vec<Job>, VaultError> {
    let jobs = transaction
        .prepare_cached("SELECT body FROM jobs WHERE is_over = 0 ORDER BY created, id")?
        .query_map([], |row| json_column(row, 0))?
        .collect::<Result<_, _>>()?;
    Ok(jobs)
}

pub(super) fn open_jobs_of(
    transaction: &Transaction<'_>,
    machine: MachineId,
) -> Result<Vec<Job>, VaultError> {
    let jobs = transaction
        .prepare_cached("SELECT body FROM jobs WHERE is_over = 0 AND machine = ?1 ORDER BY created, id")?
        .query_map([machine.to_string()], |row| json_column(row, 0))?
        .collect::<Result<_, _>>()?;
    Ok(jobs)
}

/// Keeps a job, and tells of its begin and its end. A job that is over stays over.
pub(super) fn put_job(transaction: &Transaction<'_>, new: &Job, name: &str) -> Result<(), JournalError> {
    let old = job(transaction, new.id)?;
    if old.as_ref().is_some_and(|old| old.state.is_over()) && !new.state.is_over() {
        return Err(JournalError::Conflict);
    }
    let run = || -> Result<(), VaultError> {
        transaction
            .prepare_cached(
                "INSERT INTO jobs (id, machine, kind, state, is_over, created, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT (id) DO UPDATE SET state = ?4, is_over = ?5, body = ?7",
            )?
            .execute(params![
                new.id.to_string(),
                new.machine.to_string(),
                word(&new.kind)?,
                word(&new.state)?,
                new.state.is_over(),
                new.created_unix_nanos,
                serde_json::to_string(new)?
            ])?;
        if let Some(event) = news(old.as_ref(), new, name) {
            events::insert(transaction, events::vault_of(transaction, new.machine)?, &event)?;
        }
        Ok(())
    };
    Ok(run()?)
}

fn news(old: Option<&Job>, new: &Job, name: &str) -> Option<NewEvent> {
    let title = scenario(new.kind);
    let (code, what) = match (old.map(|old| old.state), new.state) {
        (None, JobState::NotStarted | JobState::InProgress) => ("JobStarted", "was started"),
        (Some(old), _) if old.is_over() => return None,
        (Some(JobState::Suspended), JobState::Suspended) => return None,
        (_, JobState::Suspended) => ("JobWaiting", "waits for a person"),
        (Some(JobState::Suspended), JobState::InProgress) => ("JobResumed", "goes on"),
        (_, JobState::Succeeded) => ("JobSucceeded", "succeeded"),
        (_, JobState::Failed) => ("JobFailed", "failed"),
        (_, JobState::Cancelled) => ("JobCancelled", "was cancelled"),
        _ => return None,
    };
    let error = new.error.as_ref().filter(|_| new.state == JobState::Failed);
    // Red is for data at risk and machines that are down; a failed drill is neither.
    let severity = match (new.state, new.kind) {
        (
            JobState::Failed,
            JobKind::PlannedFailover
            | JobKind::UnplannedFailover
            | JobKind::ChangeRecoveryPoint
            | JobKind::CommitFailover
            | JobKind::CancelFailover
            | JobKind::Failback,
        ) => Severity::Critical,
        // Nothing goes on until somebody comes.
        (JobState::Failed | JobState::Suspended, _) => Severity::Warning,
        _ => Severity::Information,
    };
    let mut message = match new.state {
        JobState::NotStarted | JobState::InProgress if old.is_none() => {
            format!("{title} of {name} {what} by {}", new.user)
        }
        _ => format!("{title} of {name} {what}"),
    };
    let task = new.tasks.iter().find(|task| task.state == TaskState::InProgress);
    let comment = new.result["comments"].as_array().and_then(|all| all.last());
    match (new.state, task, comment) {
        (JobState::Suspended, Some(task), _) if !task.message.is_empty() => {
            message = format!("{message}: {}", task.message);
        }
        (JobState::InProgress, _, Some(comment)) => {
            let word = |field: &str| comment[field].as_str().unwrap_or_default();
            message = format!("{message}, says {}", word("user"));
            if !word("text").is_empty() {
                message = format!("{message}: {}", word("text"));
            }
        }
        _ => {}
    }
    if let Some(error) = error {
        message = format!("{message}: {}", error.message);
    }
    Some(NewEvent {
        severity,
        code: code.to_owned(),
        machine: Some(new.machine),
        job: Some(new.id),
        message,
        possible_causes: match error {
            Some(error) => error.possible_causes.clone(),
            None if new.state == JobState::Suspended => "a manual action was reached".to_owned(),
            None => String::new(),
        },
        recommended_action: match error {
            Some(error) => error.recommended_action.clone(),
            None if new.state == JobState::Suspended => {
                format!("do it, then: lifeboat job resume {} --comment TEXT", new.id)
            }
            None => String::new(),
        },
    })
}

impl Vault {
    /// Jobs that were ever made, by kind and state.
    pub fn job_counts(&self, vault: &str) -> Result<Vec<(String, String, u64)>, VaultError> {
        self.read(|transaction| {
            let vault = vault_id(transaction, vault)?;
            let rows = transaction
                .prepare_cached(
                    "SELECT kind, state, count(*) FROM jobs JOIN machines ON machines.id = jobs.machine
                     WHERE machines.vault = ?1 GROUP BY kind, state",
                )?
                .query_map([vault], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect::<Result<_, _>>()?;
            Ok(rows)
        })
    }

    pub fn job_row(&self, id: JobId) -> Result<JobRow, VaultError> {
        self.read(|transaction| {
            transaction
                .prepare_cached(
                    "SELECT jobs.body, machines.name, vaults.name FROM jobs
                     JOIN machines ON machines.id = jobs.machine JOIN vaults ON vaults.id = machines.vault
                     WHERE jobs.id = ?1",
                )?
                .query_row([id.to_string()], job_row)
                .optional()?
                .ok_or_else(|| VaultError::NotFound {
                    what: "job",
                    name: id.to_string(),
                })
        })
    }

    /// Jobs of a vault, the newest first unless the filter says otherwise.
    pub fn jobs(&self, vault: &str, filter: &JobFilter, limit: u32) -> Result<Vec<JobRow>, VaultError> {
        self.read(|transaction| {
            // Ids begin with their millisecond, so that an instant is a bound of ids and the list is read in its order.
            let mut sql = "SELECT jobs.body, machines.name, vaults.name FROM jobs
                 JOIN machines ON machines.id = jobs.machine JOIN vaults ON vaults.id = machines.vault
                 WHERE machines.vault = ?1"
                .to_owned();
            let mut values: Vec<Box<dyn ToSql>> = vec![Box::new(vault_id(transaction, vault)?)];
            let mut condition = |text: &str, value: Box<dyn ToSql>| {
                values.push(value);
                sql.push_str(&format!(" AND {text} ?{}", values.len()));
            };
            if let Some(machine) = filter.machine {
                condition("jobs.machine =", Box::new(machine.to_string()));
            }
            if let Some(state) = filter.state {
                condition("jobs.state =", Box::new(word(&state)?));
            }
            if let Some(kind) = filter.kind {
                condition("jobs.kind =", Box::new(word(&kind)?));
            }
            if let Some(user) = &filter.user {
                condition("jobs.user =", Box::new(user.clone()));
            }
            if let Some(since) = filter.since_unix_nanos {
                condition("jobs.id >=", Box::new(first_id_of(since)));
            }
            if let Some(until) = filter.until_unix_nanos {
                condition("jobs.id <", Box::new(first_id_of(until)));
            }
            let (beyond, order) = if filter.oldest_first {
                ("jobs.id >", "ASC")
            } else {
                ("jobs.id <", "DESC")
            };
            if let Some(after) = filter.after {
                condition(beyond, Box::new(after.to_string()));
            }
            values.push(Box::new(limit));
            sql.push_str(&format!(" ORDER BY jobs.id {order} LIMIT ?{}", values.len()));
            let rows = transaction
                .prepare_cached(&sql)?
                .query_map(params_from_iter(values.iter()), job_row)?
                .collect::<Result<_, _>>()?;
            Ok(rows)
        })
    }
}
