//! Jobs.
use super::ApiState;
use super::model::{JobView, Page, is_cancellable};
use super::problem::ApiError;
use crate::recovery::{JobId, JobState};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;

fn job_id(text: &str) -> Result<JobId, ApiError> {
    uuid::Uuid::parse_str(text)
        .map(JobId)
        .map_err(|_| ApiError::not_found("job", text))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct JobFilter {
    /// Name or id.
    pub machine: Option<String>,
    /// NotStarted, InProgress, Succeeded, Failed, Cancelled, Suspended
    pub state: Option<String>,
    /// Most items to answer.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub limit: Option<u32>,
    /// `nextCursor` of the part before.
    pub cursor: Option<String>,
}

/// Jobs, the newest first.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/jobs", tag = "Jobs", params(JobFilter),
    responses((status = 200, body = Page<JobView>)))]
pub async fn list(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
    Query(filter): Query<JobFilter>,
) -> Result<Json<Page<JobView>>, ApiError> {
    let paging = super::model::Paging {
        limit: filter.limit,
        cursor: filter.cursor,
    };
    let limit = paging.limit()?;
    let before = paging.after()?.map(|text| job_id(&text)).transpose()?;
    let wanted = match filter.state.as_deref() {
        None => None,
        Some("NotStarted") => Some(JobState::NotStarted),
        Some("InProgress") => Some(JobState::InProgress),
        Some("Succeeded") => Some(JobState::Succeeded),
        Some("Failed") => Some(JobState::Failed),
        Some("Cancelled") => Some(JobState::Cancelled),
        Some("Suspended") => Some(JobState::Suspended),
        Some(_) => {
            return Err(ApiError::invalid(
                "state is NotStarted, InProgress, Succeeded, Failed, Cancelled or Suspended",
            ));
        }
    };
    let page = state
        .run(move |state| {
            let machine = filter
                .machine
                .map(|machine| state.machine(&vault, &machine))
                .transpose()?;
            let rows = state.vault.jobs(&vault, machine, wanted, before, limit + 1)?;
            Page::of(rows, limit, |row| row.job.id.to_string(), |row| Ok(row.into()))
        })
        .await?;
    Ok(Json(page))
}

/// A job of this vault.
fn find(state: &ApiState, vault: &str, id: &str) -> Result<crate::vault::JobRow, ApiError> {
    let row = state.vault.job_row(job_id(id)?)?;
    if state
        .vault
        .machine(row.job.machine)?
        .vault
        .eq_ignore_ascii_case(vault)
    {
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
) -> Result<Json<JobView>, ApiError> {
    let row = state.run(move |state| find(state, &vault, &job)).await?;
    Ok(Json(row.into()))
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
                    "it enables or disables replication",
                    format!(
                        "to end the replication of the machine: lifeboat unprotect {}",
                        row.machine_name
                    ),
                ));
            }
            state.runner.cancel(row.job.id)?;
            Ok(state.vault.job_row(row.job.id)?)
        })
        .await?;
    Ok((StatusCode::ACCEPTED, Json(row.into())))
}
