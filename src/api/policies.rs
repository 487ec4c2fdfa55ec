//! Replication policies.
use super::ApiState;
use super::lists::{Sort, holds};
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
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreatePolicyRequest {
    /// 1 to 63 letters, digits, hyphens, underscores and full stops.
    pub name: String,
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

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct PolicyQuery {
    /// Part of the name.
    pub name: Option<String>,
    /// Only those that may be edited, or only the twins for the way back.
    pub editable: Option<bool>,
    /// name (default), items, retentionHours, crashConsistentSeconds, rpoThresholdSeconds; with a `-` before it the other
    /// way round.
    pub sort: Option<String>,
    /// Most items to answer.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub limit: Option<u32>,
    /// `nextCursor` of the part before.
    pub cursor: Option<String>,
}

const SORTS: [&str; 5] = [
    "name",
    "items",
    "retentionHours",
    "crashConsistentSeconds",
    "rpoThresholdSeconds",
];

/// Policies, by name.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/policies", tag = "Policies", params(PolicyQuery),
    responses((status = 200, body = Page<PolicyView>)))]
pub async fn list(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
    Query(query): Query<PolicyQuery>,
) -> Result<Json<Page<PolicyView>>, ApiError> {
    let paging = Paging {
        limit: query.limit,
        cursor: query.cursor.clone(),
    };
    let sort = Sort::of(query.sort.as_deref(), &SORTS)?;
    let page = state
        .run(move |state| {
            let views = state
                .vault
                .policies(&vault, None, u32::MAX)?
                .into_iter()
                .filter(|row| holds(&row.name, query.name.as_deref()))
                .map(PolicyView::from)
                .filter(|view| query.editable.is_none_or(|wanted| view.editable == wanted))
                .collect();
            sort.page(views, &paging, |view| view.name.clone())
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
            let values = PolicyValues {
                rpo_threshold_seconds: request.rpo_threshold_seconds,
                retention_hours: request.retention_hours,
                crash_consistent_seconds: request.crash_consistent_seconds,
                app_consistent_seconds: request.app_consistent_seconds,
            };
            let policy = policy(&request.name, &values);
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
    params(("If-Match" = Option<String>, Header, description = "ETag of the policy: refused when it was changed since")),
    responses((status = 204)))]
pub async fn remove(
    State(state): State<ApiState>,
    Path((vault, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let revision = if_match(&headers)?;
    state
        .run(move |state| Ok(state.vault.remove_policy(&vault, &name, revision)?))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
