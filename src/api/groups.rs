//! Replication groups: machines with shared recovery points, and how their rounds go.
use super::ApiState;
use super::lists::{Sort, holds};
use super::model::{Page, Paging, Time, etag, if_match};
use super::problem::ApiError;
use crate::recovery::{ActiveLocation, Journal, ProtectionState};
use crate::vault::{GROUP_MEMBERS_MAX, GroupRow, GroupValues, SharedInstant};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

/// What is left out has the default, or stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateGroupRequest {
    /// From one shared point to the next.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 3600)]
    pub share_seconds: Option<u32>,
    /// From one app-consistent one to the next: 3600 to 43200; 0: off.
    #[serde(default)]
    #[schema(maximum = 43200)]
    pub app_consistent_seconds: Option<u32>,
}

#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateGroupRequest {
    /// 1 to 63 letters, digits, hyphens and underscores.
    #[schema(min_length = 1, max_length = 63)]
    pub name: String,
    /// Replicated machines, by name or id.
    #[serde(default)]
    #[schema(max_items = 16)]
    pub members: Vec<String>,
    /// From one shared point to the next. Default: 30.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 3600)]
    pub share_seconds: Option<u32>,
    /// From one app-consistent one to the next: 3600 to 43200; 0: off. Default: 3600.
    #[serde(default)]
    #[schema(maximum = 43200)]
    pub app_consistent_seconds: Option<u32>,
}

#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AddMemberRequest {
    /// A replicated machine, by name or id.
    pub machine: String,
}

/// An instant at which all machines of a group stood still.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SharedPoint {
    /// `groupPoint` of the recovery points of the members.
    pub id: String,
    pub instant: Time,
}

impl From<SharedInstant> for SharedPoint {
    fn from(instant: SharedInstant) -> Self {
        Self {
            id: instant.id.to_string(),
            instant: Time(instant.unix_nanos),
        }
    }
}

#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupMember {
    pub id: String,
    pub name: String,
    /// It can take part in shared points.
    pub takes_part: bool,
    /// Why it cannot, or why the last shared point came to nothing because of it.
    pub trouble: String,
}

#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicationGroup {
    pub name: String,
    /// The ETag.
    pub revision: u64,
    pub share_seconds: u32,
    pub app_consistent_seconds: u32,
    pub members: Vec<GroupMember>,
    /// Normal, Warning: there are no shared points; None: fewer than two machines, or nothing is known since the server started.
    pub health: String,
    /// The newest since the server started.
    pub last_shared_point: Option<SharedPoint>,
    pub last_app_consistent_point: Option<SharedPoint>,
    /// No shared point could be made since.
    pub failing_since: Option<Time>,
    /// Since the server started: tried, and made.
    pub rounds: u64,
    pub shared_points: u64,
    /// From the order to freeze until all machines had thawed: half of the last rounds took no longer, and 99 % of them.
    pub freeze_window_ms_p50: Option<f64>,
    pub freeze_window_ms_p99: Option<f64>,
}

fn quantile(sorted: &[u32], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = (last as f64 * share).ceil() as usize;
    sorted
        .get(place.min(last))
        .map(|micros| f64::from(*micros) / 1000.0)
}

fn view(state: &ApiState, row: GroupRow) -> ReplicationGroup {
    let live = state.vault.group_live(row.id);
    let member = |(id, name): &(crate::block::MachineId, String)| {
        let away = match Journal::item(&state.vault, *id) {
            Err(_) => Some("it is not replicated any more".to_owned()),
            Ok(item) if item.active_location != ActiveLocation::Primary => {
                Some("it was failed over and runs at the target site".to_owned())
            }
            Ok(item) if item.protection != ProtectionState::Protected => {
                Some(format!("its state is {:?}", item.protection))
            }
            Ok(_) => None,
        };
        let trouble = live.troubles.get(id).cloned();
        GroupMember {
            id: id.to_string(),
            name: name.clone(),
            takes_part: away.is_none() && trouble.is_none(),
            trouble: away.or(trouble).unwrap_or_default(),
        }
    };
    let members: Vec<GroupMember> = row.members.iter().map(member).collect();
    let health = if members.len() < 2 || live.rounds == 0 {
        "None"
    } else if live.failing_since.is_some() {
        "Warning"
    } else {
        "Normal"
    };
    let mut windows: Vec<u32> = live.windows_micros.iter().copied().collect();
    windows.sort_unstable();
    ReplicationGroup {
        name: row.name,
        revision: row.revision,
        share_seconds: row.share_seconds,
        app_consistent_seconds: row.app_consistent_seconds,
        members,
        health: health.to_owned(),
        last_shared_point: live.last_shared.map(SharedPoint::from),
        last_app_consistent_point: live.last_app_consistent.map(SharedPoint::from),
        failing_since: live.failing_since.map(Time),
        rounds: live.rounds,
        shared_points: live.shared,
        freeze_window_ms_p50: quantile(&windows, 0.5),
        freeze_window_ms_p99: quantile(&windows, 0.99),
    }
}

fn answer(status: StatusCode, group: ReplicationGroup) -> Response {
    let etag = etag(group.revision);
    (status, [(header::ETAG, etag)], Json(group)).into_response()
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct GroupQuery {
    /// Part of the name.
    pub name: Option<String>,
    /// name (default), health, shareSeconds; with a `-` before it the other way round.
    pub sort: Option<String>,
    /// Most items to answer.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub limit: Option<u32>,
    /// `nextCursor` of the part before.
    pub cursor: Option<String>,
}

/// Replication groups, by name.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/replication-groups", tag = "Replication groups", params(GroupQuery),
    responses((status = 200, body = Page<ReplicationGroup>)))]
pub async fn list(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
    Query(query): Query<GroupQuery>,
) -> Result<Json<Page<ReplicationGroup>>, ApiError> {
    let paging = Paging {
        limit: query.limit,
        cursor: query.cursor.clone(),
    };
    let sort = Sort::of(query.sort.as_deref(), &["name", "health", "shareSeconds"])?;
    let page = state
        .run(move |state| {
            let views = state
                .vault
                .groups(&vault, None)?
                .into_iter()
                .filter(|row| holds(&row.name, query.name.as_deref()))
                .map(|row| view(state, row))
                .collect();
            sort.page(views, &paging, |view| view.name.clone())
        })
        .await?;
    Ok(Json(page))
}

/// One replication group with its members and how its shared points go.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/replication-groups/{group}", tag = "Replication groups",
    responses((status = 200, body = ReplicationGroup)))]
pub async fn show(
    State(state): State<ApiState>,
    Path((vault, name)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let group = state
        .run(move |state| Ok(view(state, state.vault.group(&vault, &name)?)))
        .await?;
    Ok(answer(StatusCode::OK, group))
}

/// Makes a replication group. Its machines share recovery points from the next heartbeats on.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/replication-groups", tag = "Replication groups",
    request_body = CreateGroupRequest, responses((status = 201, body = ReplicationGroup)))]
pub async fn create(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
    Json(request): Json<CreateGroupRequest>,
) -> Result<Response, ApiError> {
    if request.members.len() > GROUP_MEMBERS_MAX {
        return Err(ApiError::invalid(format!("at most {GROUP_MEMBERS_MAX} machines")));
    }
    let group = state
        .run(move |state| {
            let members = request
                .members
                .iter()
                .map(|name| state.machine(&vault, name))
                .collect::<Result<Vec<_>, _>>()?;
            let values = GroupValues {
                share_seconds: request.share_seconds,
                app_consistent_seconds: request.app_consistent_seconds,
            };
            let row = state
                .vault
                .create_group(&vault, &request.name, values, &members)?;
            Ok(view(state, row))
        })
        .await?;
    Ok(answer(StatusCode::CREATED, group))
}

/// Changes how often a group shares points; what is left out stays.
#[utoipa::path(put, path = "/api/v1/vaults/{vault}/replication-groups/{group}", tag = "Replication groups",
    params(("If-Match" = Option<String>, Header, description = "ETag of the group: refused when it was changed since")),
    request_body = UpdateGroupRequest, responses((status = 200, body = ReplicationGroup)))]
pub async fn update(
    State(state): State<ApiState>,
    Path((vault, name)): Path<(String, String)>,
    headers: HeaderMap,
    Json(request): Json<UpdateGroupRequest>,
) -> Result<Response, ApiError> {
    let revision = if_match(&headers)?;
    let group = state
        .run(move |state| {
            let values = GroupValues {
                share_seconds: request.share_seconds,
                app_consistent_seconds: request.app_consistent_seconds,
            };
            let row = state.vault.update_group(&vault, &name, values, revision)?;
            Ok(view(state, row))
        })
        .await?;
    Ok(answer(StatusCode::OK, group))
}

/// Removes a group. Its machines go on with recovery points of their own; shared ones that were made stay.
#[utoipa::path(delete, path = "/api/v1/vaults/{vault}/replication-groups/{group}", tag = "Replication groups",
    params(("If-Match" = Option<String>, Header, description = "ETag of the group: refused when it was changed since")),
    responses((status = 204)))]
pub async fn remove(
    State(state): State<ApiState>,
    Path((vault, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let revision = if_match(&headers)?;
    state
        .run(move |state| Ok(state.vault.delete_group(&vault, &name, revision)?))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a machine into a group; one that is in it already stays. A machine is in one group at most.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/replication-groups/{group}/members", tag = "Replication groups",
    params(("If-Match" = Option<String>, Header, description = "ETag of the group: refused when it was changed since")),
    request_body = AddMemberRequest, responses((status = 200, body = ReplicationGroup)))]
pub async fn add_member(
    State(state): State<ApiState>,
    Path((vault, name)): Path<(String, String)>,
    headers: HeaderMap,
    Json(request): Json<AddMemberRequest>,
) -> Result<Response, ApiError> {
    let revision = if_match(&headers)?;
    let group = state
        .run(move |state| {
            let machine = state.machine(&vault, &request.machine)?;
            let row = state.vault.add_to_group(&vault, &name, machine, revision)?;
            Ok(view(state, row))
        })
        .await?;
    Ok(answer(StatusCode::OK, group))
}

/// Takes a machine out of a group.
#[utoipa::path(delete, path = "/api/v1/vaults/{vault}/replication-groups/{group}/members/{machine}", tag = "Replication groups",
    params(("If-Match" = Option<String>, Header, description = "ETag of the group: refused when it was changed since")),
    responses((status = 200, body = ReplicationGroup)))]
pub async fn remove_member(
    State(state): State<ApiState>,
    Path((vault, name, machine)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let revision = if_match(&headers)?;
    let group = state
        .run(move |state| {
            let machine = state.machine(&vault, &machine)?;
            let row = state.vault.remove_from_group(&vault, &name, machine, revision)?;
            Ok(view(state, row))
        })
        .await?;
    Ok(answer(StatusCode::OK, group))
}
