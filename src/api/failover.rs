//! Test failover, failover, commit, and the machine that they start.
use super::ApiState;
use super::access::Caller;
use super::items::{NicView, accepted, find};
use super::model::{Accepted, Time};
use super::problem::ApiError;
use crate::block::PointId;
use crate::recovery::{Operation, PointChoice, RecoveryError, Request};
use crate::target::{MachineStatus, Nic, Power};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use std::io::{Read, Seek, SeekFrom};

/// The words of the reference model, however they are written (`LatestProcessed`, `latest-processed`), or a point's id.
pub(super) fn point_choice(text: &str) -> Result<PointChoice, ApiError> {
    let word: String = text
        .chars()
        .filter(|letter| letter.is_ascii_alphanumeric())
        .collect::<String>()
        .to_ascii_lowercase();
    match word.as_str() {
        "latest" => Ok(PointChoice::Latest),
        "latestprocessed" => Ok(PointChoice::LatestProcessed),
        "latestappconsistent" => Ok(PointChoice::LatestAppConsistent),
        "latestcrashconsistent" => Ok(PointChoice::LatestCrashConsistent),
        "latestmultivm" => Ok(PointChoice::LatestMultiVm),
        "latestmultivmappconsistent" => Ok(PointChoice::LatestMultiVmAppConsistent),
        _ => text
            .parse::<PointId>()
            .map(PointChoice::Custom)
            .map_err(|_| {
                ApiError::invalid(
                    "recoveryPoint is Latest, LatestProcessed, LatestAppConsistent, LatestCrashConsistent, LatestMultiVm, LatestMultiVmAppConsistent or the id of a point",
                )
            }),
    }
}

fn submit(
    state: &ApiState,
    vault: &str,
    item: &str,
    request: Request,
    caller: &Caller,
) -> Result<Accepted, ApiError> {
    let row = find(state, vault, item)?;
    let job = state.runner.submit(row.item.machine, request, &caller.user)?;
    accepted(state, job)
}

#[derive(Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TestFailoverRequest {
    /// Latest, LatestProcessed (default), LatestAppConsistent, LatestCrashConsistent, or the id of a point.
    #[serde(default)]
    pub recovery_point: Option<String>,
    /// Default: the item's test network.
    #[serde(default)]
    pub nics: Option<Vec<NicView>>,
}

/// Starts a copy of the machine beside the running one; replication goes on.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/replicated-items/{item}/test-failover", tag = "Failover",
    request_body = TestFailoverRequest, responses((status = 202, body = Accepted)))]
pub async fn test_failover(
    State(state): State<ApiState>,
    Path((vault, item)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<TestFailoverRequest>,
) -> Result<Accepted, ApiError> {
    let point = point_choice(request.recovery_point.as_deref().unwrap_or("LatestProcessed"))?;
    let network = request.nics.map(|nics| nics.into_iter().map(Nic::from).collect());
    state
        .run(move |state| {
            let request = Request::TestFailover { point, network };
            submit(state, &vault, &item, request, &caller)
        })
        .await
}

#[derive(Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CleanupRequest {
    /// What was seen; kept with the job.
    #[serde(default)]
    #[schema(max_length = 4096)]
    pub notes: String,
}

/// Removes the machine of a test failover. Only then does the test count as performed.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/replicated-items/{item}/test-failover-cleanup", tag = "Failover",
    request_body = CleanupRequest, responses((status = 202, body = Accepted)))]
pub async fn test_failover_cleanup(
    State(state): State<ApiState>,
    Path((vault, item)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<CleanupRequest>,
) -> Result<Accepted, ApiError> {
    if request.notes.len() > 4096 {
        return Err(ApiError::invalid("notes have at most 4096 bytes"));
    }
    state
        .run(move |state| {
            let request = Request::TestFailoverCleanup { notes: request.notes };
            submit(state, &vault, &item, request, &caller)
        })
        .await
}

#[derive(Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UnplannedFailoverRequest {
    /// Latest (default), LatestProcessed, LatestAppConsistent, LatestCrashConsistent, or the id of a point.
    #[serde(default)]
    pub recovery_point: Option<String>,
    /// Ship what is pending first, where the source still answers. Default: with `Latest` yes, else no.
    #[serde(default)]
    pub last_sync: Option<bool>,
}

/// Starts the machine at the target for real and fences the source.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/replicated-items/{item}/unplanned-failover", tag = "Failover",
    request_body = UnplannedFailoverRequest, responses((status = 202, body = Accepted)))]
pub async fn unplanned_failover(
    State(state): State<ApiState>,
    Path((vault, item)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<UnplannedFailoverRequest>,
) -> Result<Accepted, ApiError> {
    let point = point_choice(request.recovery_point.as_deref().unwrap_or("Latest"))?;
    let last_sync = request.last_sync.unwrap_or(point == PointChoice::Latest);
    state
        .run(move |state| {
            let request = Request::UnplannedFailover { point, last_sync };
            submit(state, &vault, &item, request, &caller)
        })
        .await
}

/// Brings the source to rest, takes what it wrote last, starts the machine at the target and fences the source. Nothing is
/// lost, or it does not happen.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/replicated-items/{item}/planned-failover", tag = "Failover",
    responses((status = 202, body = Accepted)))]
pub async fn planned_failover(
    State(state): State<ApiState>,
    Path((vault, item)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
) -> Result<Accepted, ApiError> {
    state
        .run(move |state| submit(state, &vault, &item, Request::PlannedFailover, &caller))
        .await
}

#[derive(Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChangeRecoveryPointRequest {
    /// LatestProcessed, LatestAppConsistent, LatestCrashConsistent, or the id of a point.
    pub recovery_point: String,
}

/// Starts the failed-over machine from another point, before the commit. What it wrote since is discarded with its disks;
/// the points that were made of it stay until then.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/replicated-items/{item}/change-recovery-point", tag = "Failover",
    request_body = ChangeRecoveryPointRequest, responses((status = 202, body = Accepted)))]
pub async fn change_recovery_point(
    State(state): State<ApiState>,
    Path((vault, item)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<ChangeRecoveryPointRequest>,
) -> Result<Accepted, ApiError> {
    let point = point_choice(&request.recovery_point)?;
    state
        .run(move |state| {
            let request = Request::ChangeRecoveryPoint { point };
            submit(state, &vault, &item, request, &caller)
        })
        .await
}

/// Takes an uncommitted failover or failback back: the machine goes on where it was before. What was written since is
/// discarded.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/replicated-items/{item}/cancel-failover", tag = "Failover",
    responses((status = 202, body = Accepted)))]
pub async fn cancel_failover(
    State(state): State<ApiState>,
    Path((vault, item)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
) -> Result<Accepted, ApiError> {
    state
        .run(move |state| submit(state, &vault, &item, Request::CancelFailover, &caller))
        .await
}

/// Brings a reprotected machine home: it is stopped at the target, the receiver takes what it wrote last and compares its
/// disks as a whole. Only then is it home.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/replicated-items/{item}/failback", tag = "Failover",
    responses((status = 202, body = Accepted)))]
pub async fn failback(
    State(state): State<ApiState>,
    Path((vault, item)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
) -> Result<Accepted, ApiError> {
    state
        .run(move |state| submit(state, &vault, &item, Request::Failback, &caller))
        .await
}

#[derive(Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReprotectRequest {
    /// The joined machine that takes the disks home, by name or id. Default: the machine itself.
    #[serde(default)]
    pub receiver: Option<String>,
}

/// Replicates in the other direction from now on. Towards home `lifeboat agent receive` takes the replica; towards the
/// target the agent ships again, beginning with a comparison.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/replicated-items/{item}/reprotect", tag = "Failover",
    request_body = ReprotectRequest, responses((status = 202, body = Accepted)))]
pub async fn reprotect(
    State(state): State<ApiState>,
    Path((vault, item)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<ReprotectRequest>,
) -> Result<Accepted, ApiError> {
    state
        .run(move |state| {
            let machine = find(state, &vault, &item)?.item.machine;
            admit(state, machine, Operation::ReverseReplicate)?;
            let receiver = request
                .receiver
                .as_deref()
                .map(|name| state.vault.find_machine(&vault, name))
                .transpose()?
                .map(|row| row.id);
            let job = state.vault.reprotect(machine, receiver, &caller.user, None)?;
            accepted(state, job)
        })
        .await
}

/// Ends the choice of the recovery point: the machine at the target is the machine from now on.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/replicated-items/{item}/commit", tag = "Failover",
    responses((status = 202, body = Accepted)))]
pub async fn commit(
    State(state): State<ApiState>,
    Path((vault, item)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
) -> Result<Accepted, ApiError> {
    state
        .run(move |state| submit(state, &vault, &item, Request::Commit, &caller))
        .await
}

/// Whether an operation is legal now that the vault itself takes.
pub(super) fn admit(
    state: &ApiState,
    machine: crate::block::MachineId,
    operation: Operation,
) -> Result<(), ApiError> {
    let allowed = state.runner.allowed(machine)?;
    let refusal = allowed
        .into_iter()
        .find(|(known, _)| *known == operation)
        .and_then(|(_, refusal)| refusal);
    match refusal {
        Some(refusal) => Err(refusal.into()),
        None => Ok(()),
    }
}

/// Orders a comparison of all disks with the replica; only what differs is shipped. The agent takes the order with its
/// next heartbeat; the job is over when the recovery point that ends the comparison is at the target.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/replicated-items/{item}/resynchronize", tag = "Failover",
    responses((status = 202, body = Accepted)))]
pub async fn resynchronize(
    State(state): State<ApiState>,
    Path((vault, item)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
) -> Result<Accepted, ApiError> {
    state
        .run(move |state| {
            let machine = find(state, &vault, &item)?.item.machine;
            admit(state, machine, Operation::RepairReplication)?;
            let job = state.vault.resynchronize(machine, &caller.user, None)?;
            accepted(state, job)
        })
        .await
}

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Which {
    /// The machine of the test failover, not that of the failover.
    #[serde(default)]
    pub test: bool,
}

/// A machine that runs at the target.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetMachine {
    /// absent, stopped, running, paused
    pub power: String,
    /// Why it does not run, where that is known.
    pub detail: String,
    pub pid: Option<u32>,
    /// kvm, tcg
    pub accelerator: String,
    /// Ports of the host's loopback address that lead into the machine.
    pub forwards: Vec<super::items::ForwardView>,
    pub first_output_at: Option<Time>,
}

impl From<MachineStatus> for TargetMachine {
    fn from(status: MachineStatus) -> Self {
        let power = match status.power {
            Power::Absent => "absent",
            Power::Stopped => "stopped",
            Power::Running => "running",
            Power::Paused => "paused",
        };
        Self {
            power: power.to_owned(),
            detail: status.detail,
            pid: status.pid,
            accelerator: status.accelerator,
            forwards: status.forwards.into_iter().map(Into::into).collect(),
            first_output_at: status.first_output_unix_nanos.map(Time),
        }
    }
}

/// The machine that a failover or a test failover started.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/replicated-items/{item}/target-machine", tag = "Failover",
    params(Which), responses((status = 200, body = TargetMachine)))]
pub async fn target_machine(
    State(state): State<ApiState>,
    Path((vault, item)): Path<(String, String)>,
    Query(which): Query<Which>,
) -> Result<Json<TargetMachine>, ApiError> {
    let status = state
        .run(move |state| {
            let machine = find(state, &vault, &item)?.item.machine;
            let status = state.runner.machine_status(machine, which.test)?;
            Ok(status.ok_or(RecoveryError::NoMachine)?)
        })
        .await?;
    Ok(Json(status.into()))
}

/// A picture of its screen.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/replicated-items/{item}/target-machine/screenshot", tag = "Failover",
    params(Which), responses((status = 200, content_type = "image/png", body = String)))]
pub async fn screenshot(
    State(state): State<ApiState>,
    Path((vault, item)): Path<(String, String)>,
    Query(which): Query<Which>,
) -> Result<Response, ApiError> {
    let png = state
        .run(move |state| {
            let machine = find(state, &vault, &item)?.item.machine;
            Ok(state.runner.screenshot(machine, which.test)?)
        })
        .await?;
    Ok((
        [(header::CONTENT_TYPE, HeaderValue::from_static("image/png"))],
        png,
    )
        .into_response())
}

/// The end of a log that is passed on; a guest may write without end.
const LOG_BYTES_MAX: u64 = 1 << 20;

fn tail(path: &std::path::Path) -> std::io::Result<Vec<u8>> {
    let mut file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(LOG_BYTES_MAX)))?;
    let mut bytes = Vec::new();
    file.take(LOG_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What it wrote to its serial port: the last MiB.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/replicated-items/{item}/target-machine/serial-log", tag = "Failover",
    params(Which), responses((status = 200, content_type = "text/plain", body = String)))]
pub async fn serial_log(
    State(state): State<ApiState>,
    Path((vault, item)): Path<(String, String)>,
    Query(which): Query<Which>,
) -> Result<Response, ApiError> {
    let bytes = state
        .run(move |state| {
            let machine = find(state, &vault, &item)?.item.machine;
            let path = state.runner.serial_log(machine, which.test)?;
            tail(&path).map_err(|error| {
                ApiError::new(
                    StatusCode::BAD_GATEWAY,
                    "NoSerialLog",
                    format!("the serial log cannot be read: {error}"),
                    "its file was removed or may not be read",
                    "look at the machine's folder at the target",
                )
            })
        })
        .await?;
    // A guest's bytes: as text, never as anything that a browser would run.
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_chosen_by_word_or_id() {
        assert_eq!(point_choice("latest").unwrap(), PointChoice::Latest);
        assert_eq!(
            point_choice("latest-app-consistent").unwrap(),
            PointChoice::LatestAppConsistent
        );
        assert_eq!(
            point_choice("LatestProcessed").unwrap(),
            PointChoice::LatestProcessed
        );
        let id = PointId::new();
        assert_eq!(point_choice(&id.to_string()).unwrap(), PointChoice::Custom(id));
        assert!(point_choice("newest").is_err());
    }

    #[test]
    fn a_log_is_passed_on_from_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("serial.log");
        assert_eq!(tail(&path).unwrap(), b"");
        let mut text = vec![b'a'; (LOG_BYTES_MAX + 7) as usize];
        text.extend(b"end");
        std::fs::write(&path, &text).unwrap();
        let tail = tail(&path).unwrap();
        assert_eq!(tail.len() as u64, LOG_BYTES_MAX);
        assert!(tail.ends_with(b"aend"));
    }
}
