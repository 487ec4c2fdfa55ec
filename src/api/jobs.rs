//! Jobs: listed, exported, cancelled, given once more, taken up again.
use super::ApiState;
use super::access::Caller;
use super::items::accepted;
use super::model::{Accepted, JobView, Page, Paging, Time, etag_of, is_cancellable, is_restartable};
use super::problem::ApiError;
use crate::recovery::{Job, JobId, JobKind, JobState, Operation};
use crate::vault::{Role, scenario};
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};

fn job_id(text: &str) -> Result<JobId, ApiError> {
    uuid::Uuid::parse_str(text)
        .map(JobId)
        .map_err(|_| ApiError::not_found("job", text))
}

/// A word of an enum that serde knows.
fn word<T: serde::de::DeserializeOwned>(field: &str, text: Option<&str>) -> Result<Option<T>, ApiError> {
    text.map(|text| serde_json::from_value(serde_json::Value::String(text.to_owned())))
        .transpose()
        .map_err(|_| {
            ApiError::invalid(format!(
                "{field} is not one that there is; see /api/v1/openapi.json"
            ))
        })
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct JobFilter {
    /// Name or id.
    pub machine: Option<String>,
    /// NotStarted, InProgress, Succeeded, Failed, Cancelled, Suspended
    pub state: Option<String>,
    /// EnableReplication, DisableReplication, TestFailover, TestFailoverCleanup, PlannedFailover, UnplannedFailover,
    /// ChangeRecoveryPoint, CommitFailover, CancelFailover, Reprotect, Failback,
    /// Resynchronize, ChangeDisks, CreateRecoveryPoint, Hydrate, CompleteMigration
    pub kind: Option<String>,
    /// Who asked for it.
    pub user: Option<String>,
    /// Created at or after this instant.
    pub since: Option<Time>,
    /// Created before this instant.
    pub until: Option<Time>,
    /// -createdAt (default): the newest first; createdAt: the oldest first.
    pub sort: Option<String>,
    /// Most items to answer.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub limit: Option<u32>,
    /// `nextCursor` of the part before.
    pub cursor: Option<String>,
}

/// As the vault asks for it. On the thread that may block.
fn wanted(state: &ApiState, vault: &str, filter: &JobFilter) -> Result<crate::vault::JobFilter, ApiError> {
    let machine = filter
        .machine
        .as_deref()
        .map(|machine| state.machine(vault, machine))
        .transpose()?;
    Ok(crate::vault::JobFilter {
        machine,
        state: word::<JobState>("state", filter.state.as_deref())?,
        kind: word::<JobKind>("kind", filter.kind.as_deref())?,
        user: filter.user.clone(),
        since_unix_nanos: filter.since.map(|time| time.0),
        until_unix_nanos: filter.until.map(|time| time.0),
        oldest_first: super::model::oldest_first(filter.sort.as_deref(), "createdAt")?,
        after: None,
    })
}

/// Jobs, the newest first.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/jobs", tag = "Jobs", params(JobFilter),
    responses((status = 200, body = Page<JobView>)))]
pub async fn list(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
    Query(filter): Query<JobFilter>,
) -> Result<Json<Page<JobView>>, ApiError> {
    let paging = Paging {
        limit: filter.limit,
        cursor: filter.cursor.clone(),
    };
    let limit = paging.limit()?;
    let after = paging.after()?.map(|text| job_id(&text)).transpose()?;
    let page = state
        .run(move |state| {
            let mut wanted = wanted(state, &vault, &filter)?;
            wanted.after = after;
            let rows = state.vault.jobs(&vault, &wanted, limit + 1)?;
            Page::of(rows, limit, |row| row.job.id.to_string(), |row| Ok(row.into()))
        })
        .await?;
    Ok(Json(page))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct JobExport {
    /// json (default): an array of jobs; csv: one line each, without the tasks.
    pub format: Option<String>,
    /// Name or id.
    pub machine: Option<String>,
    /// As in the list.
    pub state: Option<String>,
    /// As in the list.
    pub kind: Option<String>,
    /// Who asked for it.
    pub user: Option<String>,
    /// Created at or after this instant.
    pub since: Option<Time>,
    /// Created before this instant.
    pub until: Option<Time>,
    /// -createdAt (default): the newest first; createdAt: the oldest first.
    pub sort: Option<String>,
}

/// Jobs that are read and written at once, so that an export of any length needs little memory.
const EXPORT_PART: u32 = 500;
const CSV_HEAD: &str =
    "id,kind,scenario,machine,state,user,createdAt,startedAt,endedAt,restartOf,errorCode,errorMessage\r\n";

/// A value in a line of CSV (RFC 4180). One that a spreadsheet would take for a formula is marked as text.
fn csv(text: &str) -> String {
    let text = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        format!("'{text}")
    } else {
        text.to_owned()
    };
    if text.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

fn csv_line(job: &JobView) -> String {
    let time = |time: Option<Time>| {
        time.and_then(|time| serde_json::to_value(time).ok())
            .and_then(|value| value.as_str().map(str::to_owned))
            .unwrap_or_default()
    };
    let error = job.error.as_ref();
    let fields = [
        job.id.clone(),
        job.kind.clone(),
        job.scenario.clone(),
        job.machine.name.clone(),
        job.state.clone(),
        job.user.clone(),
        time(Some(job.created_at)),
        time(job.started_at),
        time(job.ended_at),
        job.restart_of.clone().unwrap_or_default(),
        error.map(|error| error.code.clone()).unwrap_or_default(),
        error.map(|error| error.message.clone()).unwrap_or_default(),
    ];
    fields.map(|field| csv(&field)).join(",") + "\r\n"
}

struct Export {
    state: ApiState,
    vault: String,
    wanted: crate::vault::JobFilter,
    as_csv: bool,
    is_first: bool,
    is_over: bool,
}

impl Export {
    /// The next part of the document; None: it is whole.
    async fn part(&mut self) -> Result<Option<String>, ApiError> {
        if self.is_over {
            return Ok(None);
        }
        let (vault, wanted) = (self.vault.clone(), self.wanted.clone());
        let rows = self
            .state
            .run(move |state| Ok(state.vault.jobs(&vault, &wanted, EXPORT_PART)?))
            .await?;
        self.is_over = rows.len() < EXPORT_PART as usize;
        self.wanted.after = rows.last().map(|row| row.job.id).or(self.wanted.after);
        let mut text = String::new();
        if self.is_first {
            text.push_str(if self.as_csv { CSV_HEAD } else { "[" });
        }
        for (index, row) in rows.into_iter().enumerate() {
            let view = JobView::from(row);
            if self.as_csv {
                text.push_str(&csv_line(&view));
                continue;
            }
            text.push_str(if self.is_first && index == 0 { "\n" } else { ",\n" });
            text.push_str(&serde_json::to_string(&view).unwrap_or_default());
        }
        if self.is_over && !self.as_csv {
            text.push_str("\n]\n");
        }
        self.is_first = false;
        Ok(Some(text))
    }
}

/// Jobs as one document, for a spreadsheet or an archive.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/jobs/export", tag = "Jobs", params(JobExport),
    responses((status = 200, content((Vec<JobView> = "application/json"), (String = "text/csv")))))]
pub async fn export(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
    Query(filter): Query<JobExport>,
) -> Result<Response, ApiError> {
    let as_csv = match filter.format.as_deref() {
        None | Some("json") => false,
        Some("csv") => true,
        Some(_) => return Err(ApiError::invalid("format is json or csv")),
    };
    let filter = JobFilter {
        machine: filter.machine,
        state: filter.state,
        kind: filter.kind,
        user: filter.user,
        since: filter.since,
        until: filter.until,
        sort: filter.sort,
        limit: None,
        cursor: None,
    };
    let (wanted, vault) = state
        .run(move |state| Ok((wanted(state, &vault, &filter)?, vault)))
        .await?;
    let mut export = Export {
        state,
        vault,
        wanted,
        as_csv,
        is_first: true,
        is_over: false,
    };
    // The first part before the answer begins: what is wrong is an answer of its own. A later failure breaks it off.
    let first = export.part().await?.unwrap_or_default();
    let rest = futures_util::stream::unfold(export, |mut export| async move {
        match export.part().await {
            Ok(Some(text)) => Some((Ok(text), export)),
            Ok(None) => None,
            Err(error) => {
                export.is_over = true;
                Some((Err(std::io::Error::other(error.message)), export))
            }
        }
    });
    let begin = futures_util::stream::once(async move { Ok::<_, std::io::Error>(first) });
    let body = Body::from_stream(futures_util::StreamExt::chain(begin, rest));
    let (kind, name) = if as_csv {
        ("text/csv; charset=utf-8", "attachment; filename=\"jobs.csv\"")
    } else {
        ("application/json", "attachment; filename=\"jobs.json\"")
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_DISPOSITION, HeaderValue::from_static(name)),
    ];
    Ok((headers, body).into_response())
}

/// A job of this vault.
fn find(state: &ApiState, vault: &str, id: &str) -> Result<crate::vault::JobRow, ApiError> {
    let row = state.vault.job_row(job_id(id)?)?;
    if row.vault.eq_ignore_ascii_case(vault) {
        Ok(row)
    } else {
        Err(ApiError::not_found("job", id))
    }
}

/// One job with its tasks.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/jobs/{job}", tag = "Jobs", responses((status = 200, body = JobView)))]
pub async fn show(
    State(state): State<ApiState>,
    Path((vault, job)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let row = state.run(move |state| find(state, &vault, &job)).await?;
    let view = JobView::from(row);
    Ok(([(header::ETAG, etag_of(&view))], Json(view)).into_response())
}

/// What the order was, for the kinds that the vault itself takes.
fn again(state: &ApiState, job: &Job, user: &str) -> Result<JobId, ApiError> {
    let (vault, machine, of) = (&state.vault, job.machine, Some(job.id));
    let texts = |field: &str| -> Vec<String> {
        serde_json::from_value(job.parameters[field].clone()).unwrap_or_default()
    };
    Ok(match job.kind {
        JobKind::EnableReplication => {
            let policy = job.parameters["policy"].as_str();
            let policy = policy.unwrap_or(crate::vault::DEFAULT_POLICY);
            vault.enable_again(machine, policy, Some(texts("disks")), None, user, of)?
        }
        JobKind::DisableReplication => {
            let keep = serde_json::from_value(job.parameters["keepPoints"].clone()).unwrap_or_default();
            vault.disable_if(machine, user, None, of, keep)?
        }
        JobKind::ChangeDisks => vault.set_disks(machine, &texts("disks"), None, user, of)?,
        JobKind::Resynchronize => {
            super::failover::admit(state, machine, Operation::RepairReplication)?;
            vault.resynchronize(machine, user, of)?
        }
        JobKind::CreateRecoveryPoint => {
            super::points::admit_create(state, machine)?;
            vault.create_point(machine, job.parameters["appConsistent"] == true, user, of)?
        }
        JobKind::Reprotect => {
            super::failover::admit(state, machine, Operation::ReverseReplicate)?;
            let receiver = serde_json::from_value(job.parameters["receiver"].clone()).ok();
            vault.reprotect(machine, receiver, user, of)?
        }
        _ => state
            .runner
            .restart(job, user)?
            .ok_or_else(|| ApiError::not_found("request of the job", &job.id.to_string()))?,
    })
}

/// Gives the order of a job that failed or was cancelled once more, as a new job that names the old one. It is admitted
/// like any order.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/jobs/{job}/restart", tag = "Jobs",
    responses((status = 202, body = Accepted)))]
pub async fn restart(
    State(state): State<ApiState>,
    Path((vault, job)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
) -> Result<Accepted, ApiError> {
    state
        .run(move |state| {
            let row = find(state, &vault, &job)?;
            if !is_restartable(&row.job) {
                return Err(ApiError::new(
                    StatusCode::CONFLICT,
                    "NotRestartable",
                    format!("the job did not fail: {:?}", row.job.state),
                    "only a job that failed or was cancelled is restarted",
                    "give the order anew where it is wanted again",
                ));
            }
            let protects = matches!(
                row.job.kind,
                JobKind::EnableReplication
                    | JobKind::DisableReplication
                    | JobKind::ChangeDisks
                    | JobKind::Hydrate
                    | JobKind::CompleteMigration
            );
            if protects && caller.role_in(&vault) < Some(Role::Contributor) {
                return Err(ApiError::new(
                    StatusCode::FORBIDDEN,
                    "RoleMissing",
                    format!(
                        "{} is an order of a Contributor; {} is not one",
                        scenario(row.job.kind),
                        caller.user
                    ),
                    "a restart needs the role that the order itself needs",
                    "ask a Contributor or an Owner of the vault",
                ));
            }
            let job = again(state, &row.job, &caller.user)?;
            accepted(state, job)
        })
        .await
}

#[derive(Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResumeRequest {
    /// What was done or seen; kept with the job.
    #[serde(default)]
    #[schema(max_length = 4096)]
    pub comments: String,
}

/// Takes a job up again that is suspended and waits for a person. A job that does not wait is refused.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/jobs/{job}/resume", tag = "Jobs", request_body = ResumeRequest,
    responses((status = 202, body = Accepted)))]
pub async fn resume(
    State(state): State<ApiState>,
    Path((vault, job)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<ResumeRequest>,
) -> Result<Accepted, ApiError> {
    if request.comments.len() > 4096 {
        return Err(ApiError::invalid("comments have at most 4096 bytes"));
    }
    state
        .run(move |state| {
            let row = find(state, &vault, &job)?;
            let job = state
                .vault
                .resume_job(row.job.id, &caller.user, &request.comments)?;
            accepted(state, job.id)
        })
        .await
}

/// Asks a job to stop and to undo what it did; refused past its point of no return.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/jobs/{job}/cancel", tag = "Jobs", responses((status = 202, body = JobView)))]
pub async fn cancel(
    State(state): State<ApiState>,
    Path((vault, job)): Path<(String, String)>,
) -> Result<(StatusCode, Json<JobView>), ApiError> {
    let row = state
        .run(move |state| {
            let row = find(state, &vault, &job)?;
            if row.job.state.is_over() {
                return Err(ApiError::new(
                    StatusCode::CONFLICT,
                    "JobIsOver",
                    format!("the job is over already: {:?}", row.job.state),
                    "it ended before it could be cancelled",
                    "nothing is left to do",
                ));
            }
            if !is_cancellable(&row.job) {
                return Err(ApiError::new(
                    StatusCode::CONFLICT,
                    "NotCancellable",
                    "this job cannot be cancelled",
                    "it enables or disables replication, compares, changes disks or makes a recovery point: nothing that is left half-way",
                    match row.job.kind {
                        JobKind::ChangeDisks => {
                            "to take it back, name the disks as they were before".to_owned()
                        }
                        JobKind::Resynchronize | JobKind::CreateRecoveryPoint => {
                            "nothing waits for it; it ends by itself".to_owned()
                        }
                        _ => format!(
                            "to end the replication of the machine: lifeboat unprotect {}",
                            row.machine_name
                        ),
                    },
                ));
            }
            if row.job.kind == JobKind::Reprotect {
                state.vault.cancel_reprotect(row.job.id)?;
                state.site.nudge();
            } else {
                state.runner.cancel(row.job.id)?;
            }
            Ok(state.vault.job_row(row.job.id)?)
        })
        .await?;
    Ok((StatusCode::ACCEPTED, Json(row.into())))
}

#[cfg(test)]
mod tests {
    use super::csv;

    #[test]
    fn a_value_stays_one_value_and_no_formula() {
        assert_eq!(csv("plain"), "plain");
        assert_eq!(csv("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(csv("=HYPERLINK(1)"), "'=HYPERLINK(1)");
    }
}
