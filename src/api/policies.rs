//! Replication policies.
use super::ApiState;
use super::model::{Page, Paging, etag, if_match};
use super::problem::ApiError;
use crate::vault::{NewPolicy, Policy};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Policy)]
pub struct PolicyView {
    pub name: String,
    pub rpo_threshold_seconds: u32,
    pub retention_hours: u32,
    pub crash_consistent_seconds: u32,
    /// 0: off.
    pub app_consistent_seconds: u32,
    /// False: it is the twin of `failbackOf` and changes with it.
    pub editable: bool,
    pub failback_of: Option<String>,
    /// The ETag.
    pub revision: u64,
    /// Replicated items that follow it.
    pub items: u64,
}

impl From<Policy> for PolicyView {
    fn from(policy: Policy) -> Self {
        Self {
            name: policy.name,
            rpo_threshold_seconds: policy.rpo_threshold_seconds,
            retention_hours: policy.retention_hours,
            crash_consistent_seconds: policy.crash_consistent_seconds,
            app_consistent_seconds: policy.app_consistent_seconds,
            editable: policy.failback_of.is_none(),
            failback_of: policy.failback_of,
            revision: policy.revision,
            items: policy.items,
        }
    }
}

/// Values of a policy; what is left out has the default.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyValues {
    /// Default 900.
    #[serde(default)]
    #[schema(maximum = 86400)]
    pub rpo_threshold_seconds: Option<u32>,
    /// Default 24.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 360)]
    pub retention_hours: Option<u32>,
    /// Default 30.
    #[serde(default)]
    #[schema(minimum = 5, maximum = 3600)]
    pub crash_consistent_seconds: Option<u32>,
    /// 0: off; else 3600 to 43200. Default 3600.
    #[serde(default)]
    #[schema(maximum = 43200)]
    pub app_consistent_seconds: Option<u32>,
}

#[derive(Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreatePolicyRequest {
    pub name: String,
    #[serde(flatten)]
    pub values: PolicyValues,
}

fn policy(name: &str, values: &PolicyValues) -> NewPolicy {
    let default = NewPolicy::named(name);
    NewPolicy {
        rpo_threshold_seconds: values
            .rpo_threshold_seconds
            .unwrap_or(default.rpo_threshold_seconds),
        retention_hours: values.retention_hours.unwrap_or(default.retention_hours),
        crash_consistent_seconds: values
            .crash_consistent_seconds
            .unwrap_or(default.crash_consistent_seconds),
        app_consistent_seconds: values
            .app_consistent_seconds
            .unwrap_or(default.app_consistent_seconds),
        name: default.name,
    }
}

fn answer(status: StatusCode, policy: Policy) -> Response {
    let etag = etag(policy.revision);
    (status, [(header::ETAG, etag)], Json(PolicyView::from(policy))).into_response()
}

/// Policies, by name.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/policies", tag = "Policies", params(Paging),
    responses((status = 200, body = Page<PolicyView>)))]
pub async fn list(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<PolicyView>>, ApiError> {
    let (limit, after) = (paging.limit()?, paging.after()?);
    let page = state
        .run(move |state| {
            let rows = state.vault.policies(&vault, after.as_deref(), limit + 1)?;
            Page::of(rows, limit, |row| row.name.clone(), |row| Ok(row.into()))
        })
        .await?;
    Ok(Json(page))
}

/// One policy.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/policies/{policy}", tag = "Policies",
    responses((status = 200, body = PolicyView)))]
pub async fn show(
    State(state): State<ApiState>,
    Path((vault, name)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let policy = state
        .run(move |state| Ok(state.vault.policy(&vault, &name)?))
        .await?;
    Ok(answer(StatusCode::OK, policy))
}

/// Makes a policy, and with it `NAME-failback`.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/policies", tag = "Policies",
    request_body = CreatePolicyRequest, responses((status = 201, body = PolicyView)))]
pub async fn create(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
    Json(request): Json<CreatePolicyRequest>,
) -> Result<Response, ApiError> {
    let policy = state
        .run(move |state| {
            let policy = policy(&request.name, &request.values);
            Ok(state.vault.create_policy(&vault, &policy)?)
        })
        .await?;
    Ok(answer(StatusCode::CREATED, policy))
}

/// Changes a policy, also for the items that follow it. What is left out gets the default.
#[utoipa::path(put, path = "/api/v1/vaults/{vault}/policies/{policy}", tag = "Policies",
    params(("If-Match" = Option<String>, Header, description = "ETag of the policy: refused when it was changed since")),
    request_body = PolicyValues, responses((status = 200, body = PolicyView)))]
pub async fn update(
    State(state): State<ApiState>,
    Path((vault, name)): Path<(String, String)>,
    headers: HeaderMap,
    Json(request): Json<PolicyValues>,
) -> Result<Response, ApiError> {
    let revision = if_match(&headers)?;
    let policy = state
        .run(move |state| {
            let policy = policy(&name, &request);
            Ok(state.vault.update_policy(&vault, &policy, revision)?)
        })
        .await?;
    Ok(answer(StatusCode::OK, policy))
}

/// Removes a policy that no item follows, with its twin.
#[utoipa::path(delete, path = "/api/v1/vaults/{vault}/policies/{policy}", tag = "Policies",
    responses((status = 204)))]
pub async fn remove(
    State(state): State<ApiState>,
    Path((vault, name)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    state
        .run(move |state| Ok(state.vault.remove_policy(&vault, &name)?))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
