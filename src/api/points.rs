//! Recovery points of an item: listed, and ordered by a person.
use super::ApiState;
use super::access::Caller;
use super::items::{accepted, find};
use super::lists::is;
use super::model::{Accepted, Page, Paging, Time};
use super::problem::ApiError;
use crate::block::{Consistency, MachineId};
use crate::replica::ReplicaError;
use crate::rt::now_unix_nanos;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RecoveryPoint)]
pub struct RecoveryPointView {
    pub id: String,
    pub instant: Time,
    /// AppConsistent, CrashConsistent, Fuzzy
    pub consistency: String,
    /// Why it is not better, where that is known.
    pub note: String,
    pub freeze_ms: f64,
    /// Bytes that the store grew by.
    pub stored_bytes: u64,
    pub disks: Vec<String>,
    /// All machines of a replication group have a point of this instant, under this id; null: it is the machine's alone.
    pub group_point: Option<String>,
    /// The least of what the machines of the group call their points of this instant: AppConsistent, CrashConsistent.
    pub group_consistency: Option<String>,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PointQuery {
    /// AppConsistent, CrashConsistent, Fuzzy
    pub consistency: Option<String>,
    /// -instant (default): the newest first; instant: the oldest first.
    pub sort: Option<String>,
    /// Most items to answer.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub limit: Option<u32>,
    /// `nextCursor` of the part before.
    pub cursor: Option<String>,
}

/// Recovery points of an item, the newest first.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/replicated-items/{item}/recovery-points", tag = "Replicated items",
    params(PointQuery), responses((status = 200, body = Page<RecoveryPointView>)))]
pub async fn list(
    State(state): State<ApiState>,
    Path((vault, item)): Path<(String, String)>,
    Query(query): Query<PointQuery>,
) -> Result<Json<Page<RecoveryPointView>>, ApiError> {
    let paging = Paging {
        limit: query.limit,
        cursor: query.cursor,
    };
    let limit = paging.limit()?;
    let after: Option<i64> = paging.after_parsed()?;
    let oldest_first = super::model::oldest_first(query.sort.as_deref(), "instant")?;
    let page = state
        .run(move |state| {
            let row = find(state, &vault, &item)?;
            let mut points = match state.store.points(row.item.machine) {
                // Nothing has been replicated yet.
                Err(ReplicaError::NoMachine(_)) => Vec::new(),
                points => points?,
            };
            points.retain(|point| is(word(point.consistency), query.consistency.as_deref()));
            points.sort_by_key(|point| point.instant_unix_nanos);
            if oldest_first {
                points.retain(|point| after.is_none_or(|after| point.instant_unix_nanos > after));
            } else {
                points.reverse();
                points.retain(|point| after.is_none_or(|after| point.instant_unix_nanos < after));
            }
            points.truncate(limit as usize + 1);
            let shared = state.store.shared_points();
            Page::of(
                points,
                limit,
                |point| point.instant_unix_nanos.to_string(),
                |point| {
                    let shared = point.shared.and_then(|mark| shared.get_key_value(&mark.id));
                    Ok(RecoveryPointView {
                        id: point.id.to_string(),
                        instant: Time(point.instant_unix_nanos),
                        consistency: word(point.consistency).to_owned(),
                        note: point.note,
                        freeze_ms: f64::from(point.freeze_micros) / 1000.0,
                        stored_bytes: point.stored_bytes,
                        disks: point.disks.iter().map(ToString::to_string).collect(),
                        group_point: shared.map(|(id, _)| id.to_string()),
                        group_consistency: shared.map(|(_, least)| word(*least).to_owned()),
                    })
                },
            )
        })
        .await?;
    Ok(Json(page))
}

fn word(consistency: Consistency) -> &'static str {
    match consistency {
        Consistency::AppConsistent => "AppConsistent",
        Consistency::CrashConsistent => "CrashConsistent",
        Consistency::Fuzzy => "Fuzzy",
    }
}

#[derive(Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreatePointRequest {
    /// Bring applications to rest first, by the hooks on the machine. Where that fails, a crash-consistent point is made and
    /// the job fails, naming both the point and the hook.
    #[serde(default)]
    pub app_consistent: bool,
}

/// An agent that was not heard of for so long is not there to make a point.
const SILENT_NANOS: i64 = 60 * 1_000_000_000;

pub(super) fn admit_create(state: &ApiState, machine: MachineId) -> Result<(), ApiError> {
    let heard = state.vault.live(machine).heartbeat;
    if heard.is_some_and(|beat| now_unix_nanos() - beat.at_unix_nanos < SILENT_NANOS) {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::CONFLICT,
        "SourceNotConnected",
        "the agent on the machine does not answer",
        "the machine is down, the agent is stopped, or the network to this server is cut",
        "start the agent on the machine (lifeboat agent status there says more) and try again",
    ))
}

/// Orders a recovery point at once. The agent takes the order with its next heartbeat; the job is over when the point is at the
/// target.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/replicated-items/{item}/recovery-points", tag = "Replicated items",
    request_body = CreatePointRequest, responses((status = 202, body = Accepted)))]
pub async fn create(
    State(state): State<ApiState>,
    Path((vault, item)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<CreatePointRequest>,
) -> Result<Accepted, ApiError> {
    state
        .run(move |state| {
            let machine = find(state, &vault, &item)?.item.machine;
            admit_create(state, machine)?;
            let job = state
                .vault
                .create_point(machine, request.app_consistent, &caller.user, None)?;
            accepted(state, job)
        })
        .await
}
