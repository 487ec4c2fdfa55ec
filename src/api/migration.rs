//! The end of replication: a machine at the target made independent of its replica, a migration completed, points that stay.
use super::ApiState;
use super::access::Caller;
use super::failover::TargetMachine;
use super::items::{accepted, find};
use super::model::{Accepted, Time};
use super::problem::ApiError;
use crate::recovery::{KeepPoints, Request};
use crate::rt::now_unix_nanos;
use crate::target::{DiskFile, DiskFormat};
use axum::extract::{Path, State};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};

const DAY_NANOS: i64 = 86_400 * 1_000_000_000;
/// Ten years: longer is for ever.
const KEEP_DAYS_MAX: u32 = 3650;

/// Points for this many days from now; none: until a person removes them.
pub(super) fn keep_points(keep: bool, days: Option<u32>) -> Result<Option<KeepPoints>, ApiError> {
    if let Some(days) = days
        && (!keep || !(1..=KEEP_DAYS_MAX).contains(&days))
    {
        return Err(ApiError::invalid(
            "keepDays is 1 to 3650, and goes with keepPoints",
        ));
    }
    Ok(keep.then(|| KeepPoints {
        until_unix_nanos: days.map(|days| now_unix_nanos() + i64::from(days) * DAY_NANOS),
    }))
}

/// A disk of a hydrated machine.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiskFileView {
    /// On the server's host.
    pub path: String,
    /// raw, qcow2
    pub format: String,
    pub size_bytes: u64,
}

impl From<&DiskFile> for DiskFileView {
    fn from(file: &DiskFile) -> Self {
        Self {
            path: file.path.display().to_string(),
            format: file.format.name().to_owned(),
            size_bytes: file.size_bytes,
        }
    }
}

/// Recovery points of a machine that is not protected any more.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeptPointsView {
    pub since: Time,
    /// They are removed then; null: a person removes them.
    pub until: Option<Time>,
    pub count: usize,
    /// What the store gets back when they are removed.
    pub stored_bytes: u64,
}

impl KeptPointsView {
    pub(super) fn of(state: &ApiState, item: &crate::recovery::Item) -> Option<Self> {
        let kept = item.kept_points?;
        let store = state.store.machines();
        let known = store.iter().find(|machine| machine.id == item.machine);
        Some(Self {
            since: Time(kept.since_unix_nanos),
            until: kept.until_unix_nanos.map(Time),
            count: known.map_or(0, |known| known.points),
            stored_bytes: known.map_or(0, |known| known.stored_bytes),
        })
    }

    /// As it stands in a list.
    pub(super) fn in_words(&self) -> String {
        let until = match &self.until {
            Some(until) => format!("until {}", until.date()),
            None => "until removed by hand".to_owned(),
        };
        let plural = if self.count == 1 { "" } else { "s" };
        format!("{} recovery point{plural} kept {until}", self.count)
    }
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum DiskFormatView {
    #[default]
    Raw,
    Qcow2,
}

#[derive(Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HydrateRequest {
    /// Full path of a folder on the server's host, outside of the server's data folder. The machine gets a folder of its own
    /// in it.
    #[schema(max_length = 1024)]
    pub folder: String,
    #[serde(default)]
    pub format: DiskFormatView,
}

/// Makes the disks of a machine that stays at the target files of the target, while it runs on. From then on it needs neither
/// its replica nor this server, and no recovery points are made of it any more. Cancelled or failed, it runs on as before.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/replicated-items/{item}/hydrate", tag = "Failover",
    request_body = HydrateRequest, responses((status = 202, body = Accepted)))]
pub async fn hydrate(
    State(state): State<ApiState>,
    Path((vault, item)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<HydrateRequest>,
) -> Result<Accepted, ApiError> {
    state
        .run(move |state| {
            let machine = find(state, &vault, &item)?.item.machine;
            let request = Request::Hydrate {
                folder: request.folder.into(),
                format: match request.format {
                    DiskFormatView::Raw => DiskFormat::Raw,
                    DiskFormatView::Qcow2 => DiskFormat::Qcow2,
                },
            };
            let job = state.runner.submit(machine, request, &caller.user)?;
            accepted(state, job)
        })
        .await
}

#[derive(Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CompleteMigrationRequest {
    /// The recovery points stay: they can be tested and restored from.
    #[serde(default)]
    pub keep_points: bool,
    /// For how many days; default: until they are removed by hand.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 3650)]
    pub keep_days: Option<u32>,
}

/// Ends the replication of a hydrated machine: it stays at the target, its source is fenced for good, its recovery points are
/// removed or kept.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/replicated-items/{item}/complete-migration", tag = "Failover",
    request_body = CompleteMigrationRequest, responses((status = 202, body = Accepted)))]
pub async fn complete_migration(
    State(state): State<ApiState>,
    Path((vault, item)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<CompleteMigrationRequest>,
) -> Result<Accepted, ApiError> {
    let keep_points = keep_points(request.keep_points, request.keep_days)?;
    state
        .run(move |state| {
            let machine = find(state, &vault, &item)?.item.machine;
            let request = Request::CompleteMigration { keep_points };
            let job = state.runner.submit(machine, request, &caller.user)?;
            accepted(state, job)
        })
        .await
}

/// Starts the machine of a failover again that has stopped, with its disks as it left them; nothing happens to one that runs.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/replicated-items/{item}/target-machine/start", tag = "Failover",
    responses((status = 200, body = TargetMachine)))]
pub async fn start_machine(
    State(state): State<ApiState>,
    Path((vault, item)): Path<(String, String)>,
) -> Result<Json<TargetMachine>, ApiError> {
    let status = state
        .run(move |state| {
            let machine = find(state, &vault, &item)?.item.machine;
            Ok(state.runner.start_machine(machine, false)?)
        })
        .await?;
    Ok(Json(status.into()))
}
