//! Maintenance windows: nobody is told of what is wrong while one is on; it is in the events, marked.
use super::ApiState;
use super::access::Caller;
use super::lists::{Sort, is};
use super::model::{Named, Page, Paging, Time};
use super::problem::ApiError;
use crate::rt::now_unix_nanos;
use crate::vault::MaintenanceWindow;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = MaintenanceWindow)]
pub struct WindowView {
    pub id: i64,
    /// Planned, On, Over
    pub state: String,
    /// Null: all of the vault.
    pub machine: Option<Named>,
    pub begins_at: Time,
    pub ends_at: Time,
    pub note: String,
    pub made_by: String,
}

impl From<MaintenanceWindow> for WindowView {
    fn from(window: MaintenanceWindow) -> Self {
        Self {
            id: window.id,
            state: window.state(now_unix_nanos()).to_owned(),
            machine: window.machine.map(|(id, name)| Named {
                id: id.to_string(),
                name,
            }),
            begins_at: Time(window.begins_unix_nanos),
            ends_at: Time(window.ends_unix_nanos),
            note: window.note,
            made_by: window.made_by,
        }
    }
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct WindowQuery {
    /// Planned, On, Over
    pub state: Option<String>,
    /// -id (default): the newest first; id, beginsAt, endsAt, state; with a `-` before it the other way round.
    pub sort: Option<String>,
    /// Most items to answer.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub limit: Option<u32>,
    /// `nextCursor` of the part before.
    pub cursor: Option<String>,
}

/// Maintenance windows, the newest first.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/maintenance-windows", tag = "Alerts", params(WindowQuery),
    responses((status = 200, body = Page<WindowView>)))]
pub async fn list(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
    Query(query): Query<WindowQuery>,
) -> Result<Json<Page<WindowView>>, ApiError> {
    let sort = Sort::of(
        Some(query.sort.as_deref().unwrap_or("-id")),
        &["id", "beginsAt", "endsAt", "state"],
    )?;
    let paging = Paging {
        limit: query.limit,
        cursor: query.cursor,
    };
    let rows = state
        .run(move |state| Ok(state.vault.maintenance_windows(&vault)?))
        .await?;
    let views = rows
        .into_iter()
        .map(WindowView::from)
        .filter(|window| is(&window.state, query.state.as_deref()))
        .collect();
    Ok(Json(sort.page(views, &paging, |window| window.id.to_string())?))
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WindowRequest {
    /// Name or id; left out: all of the vault.
    #[serde(default)]
    pub machine: Option<String>,
    /// Left out: now.
    #[serde(default)]
    pub begins_at: Option<Time>,
    /// At most 31 days after the beginning.
    pub ends_at: Time,
    #[serde(default)]
    #[schema(max_length = 500)]
    pub note: String,
}

/// Plans a maintenance window: of a machine or of all of the vault. What is still wrong at its end is told then.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/maintenance-windows", tag = "Alerts", request_body = WindowRequest,
    responses((status = 201, body = WindowView)))]
pub async fn create(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<WindowRequest>,
) -> Result<(StatusCode, Json<WindowView>), ApiError> {
    let window = state
        .run(move |state| {
            let machine = request
                .machine
                .as_deref()
                .map(|name| state.machine(&vault, name))
                .transpose()?;
            let begins = request.begins_at.map_or_else(now_unix_nanos, |time| time.0);
            let times = (begins, request.ends_at.0);
            Ok(state
                .vault
                .plan_maintenance(&vault, machine, times, &request.note, &caller.user)?)
        })
        .await?;
    Ok((StatusCode::CREATED, Json(window.into())))
}

/// Ends a maintenance window now; one that has not begun is removed.
#[utoipa::path(delete, path = "/api/v1/vaults/{vault}/maintenance-windows/{window}", tag = "Alerts",
    responses((status = 204)))]
pub async fn remove(
    State(state): State<ApiState>,
    Path((vault, window)): Path<(String, i64)>,
) -> Result<StatusCode, ApiError> {
    state
        .run(move |state| Ok(state.vault.end_maintenance(&vault, window)?))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
