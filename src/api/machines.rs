//! Machines that joined, replicated or not.
use super::ApiState;
use super::lists::{Sort, holds, is};
use super::model::{Page, Paging, Time, etag, if_match};
use super::problem::ApiError;
use crate::vault::{Heartbeat, MachineRow};
use crate::wire::facts::{CheckResult, Firmware};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Machine)]
pub struct MachineView {
    pub id: String,
    pub name: String,
    pub replicated: bool,
    /// Its certificates were revoked.
    pub revoked: bool,
    pub joined_at: Time,
    pub agent_version: String,
    pub last_heartbeat_at: Option<Time>,
    /// What the agent is doing, in words.
    pub phase: String,
    /// Agent's clock minus server's.
    pub clock_skew_seconds: Option<f64>,
    pub host_name: String,
    pub os: String,
    pub kernel: String,
    pub architecture: String,
    pub cpus: u32,
    pub memory_bytes: u64,
    /// bios, uefi
    pub firmware: String,
    pub disks: Vec<MachineDisk>,
    pub nics: Vec<MachineNic>,
    /// Worst result of the checks: pass, warning, error; null before the first heartbeat.
    pub prerequisites: Option<String>,
    pub checks: Vec<CheckView>,
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineDisk {
    /// Names the disk at enable time.
    pub stable_id: String,
    /// Device node at this moment.
    pub device: String,
    pub size_bytes: u64,
    pub boot: bool,
    pub mount_points: Vec<String>,
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineNic {
    pub name: String,
    pub mac: String,
    pub addresses: Vec<String>,
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckView {
    pub name: String,
    /// pass, warning, error
    pub result: String,
    pub message: String,
    pub possible_causes: String,
    pub recommended_action: String,
}

fn result_word(result: CheckResult) -> &'static str {
    match result {
        CheckResult::Pass => "pass",
        CheckResult::Warning => "warning",
        CheckResult::Error => "error",
    }
}

fn view(row: MachineRow, heartbeat: Option<Heartbeat>) -> MachineView {
    let known = row.inventory.is_some();
    let facts = row.inventory.unwrap_or_default();
    let severity = |result: CheckResult| match result {
        CheckResult::Pass => 0,
        CheckResult::Warning => 1,
        CheckResult::Error => 2,
    };
    let worst = facts
        .checks
        .iter()
        .map(|check| check.result)
        .max_by_key(|result| severity(*result));
    let last = heartbeat.as_ref().map(|heartbeat| heartbeat.at_unix_nanos);
    MachineView {
        id: row.id.to_string(),
        name: row.name,
        replicated: row.replicated,
        revoked: row.revoked,
        joined_at: Time(row.joined_unix_nanos),
        agent_version: row.agent_version,
        last_heartbeat_at: last.max(row.last_heartbeat_unix_nanos).map(Time),
        clock_skew_seconds: heartbeat
            .as_ref()
            .map(|heartbeat| heartbeat.clock_skew_nanos as f64 / 1e9),
        phase: heartbeat.map(|heartbeat| heartbeat.phase).unwrap_or_default(),
        host_name: facts.host_name,
        os: facts.os,
        kernel: facts.kernel,
        architecture: facts.architecture,
        cpus: facts.cpus,
        memory_bytes: facts.memory_bytes,
        firmware: match facts.firmware {
            Firmware::Bios => "bios".to_owned(),
            Firmware::Uefi => "uefi".to_owned(),
        },
        disks: facts
            .disks
            .into_iter()
            .map(|disk| MachineDisk {
                stable_id: disk.stable_id,
                device: disk.device,
                size_bytes: disk.size_bytes,
                boot: disk.boot,
                mount_points: disk
                    .partitions
                    .into_iter()
                    .flat_map(|partition| partition.mount_points)
                    .collect(),
            })
            .collect(),
        nics: facts
            .nics
            .into_iter()
            .map(|nic| MachineNic {
                name: nic.name,
                mac: nic.mac,
                addresses: nic.addresses,
            })
            .collect(),
        prerequisites: known.then(|| result_word(worst.unwrap_or(CheckResult::Pass)).to_owned()),
        checks: facts
            .checks
            .into_iter()
            .map(|check| CheckView {
                name: check.name,
                result: result_word(check.result).to_owned(),
                message: check.message,
                possible_causes: check.causes,
                recommended_action: check.action,
            })
            .collect(),
    }
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct MachineQuery {
    /// Part of the name.
    pub name: Option<String>,
    /// Only those that are replicated, or only those that are not.
    pub replicated: Option<bool>,
    /// pass, warning, error
    pub prerequisites: Option<String>,
    /// name (default), joinedAt, lastHeartbeatAt, agentVersion, os, memoryBytes, cpus; with a `-` before it the other way
    /// round.
    pub sort: Option<String>,
    /// Most items to answer.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub limit: Option<u32>,
    /// `nextCursor` of the part before.
    pub cursor: Option<String>,
}

const SORTS: [&str; 7] = [
    "name",
    "joinedAt",
    "lastHeartbeatAt",
    "agentVersion",
    "os",
    "memoryBytes",
    "cpus",
];

/// Machines that joined, by name.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/machines", tag = "Machines", params(MachineQuery),
    responses((status = 200, body = Page<MachineView>)))]
pub async fn list(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
    Query(query): Query<MachineQuery>,
) -> Result<Json<Page<MachineView>>, ApiError> {
    let paging = Paging {
        limit: query.limit,
        cursor: query.cursor.clone(),
    };
    let sort = Sort::of(query.sort.as_deref(), &SORTS)?;
    let page = state
        .run(move |state| {
            let views = state
                .vault
                .machines(&vault, None, u32::MAX)?
                .into_iter()
                .filter(|row| holds(&row.name, query.name.as_deref()))
                .filter(|row| query.replicated.is_none_or(|wanted| row.replicated == wanted))
                .map(|row| {
                    let live = state.vault.live(row.id);
                    view(row, live.heartbeat)
                })
                .filter(|view| {
                    is(
                        view.prerequisites.as_deref().unwrap_or_default(),
                        query.prerequisites.as_deref(),
                    )
                })
                .collect();
            sort.page(views, &paging, |view| view.id.clone())
        })
        .await?;
    Ok(Json(page))
}

/// One machine, by name or id.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/machines/{machine}", tag = "Machines",
    responses((status = 200, body = MachineView)))]
pub async fn show(
    State(state): State<ApiState>,
    Path((vault, machine)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let (etag, machine) = state
        .run(move |state| {
            let row = state.vault.find_machine(&vault, &machine)?;
            let live = state.vault.live(row.id);
            Ok((etag(row.revision()), view(row, live.heartbeat)))
        })
        .await?;
    Ok(([(header::ETAG, etag)], Json(machine)).into_response())
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RenameRequest {
    /// 1 to 63 letters, digits and hyphens; starts and ends with a letter or digit.
    pub name: String,
}

/// Gives a machine another name; also while it is replicated.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/machines/{machine}/rename", tag = "Machines",
    params(("If-Match" = Option<String>, Header, description = "ETag of the machine: refused when it was changed since")),
    request_body = RenameRequest, responses((status = 204)))]
pub async fn rename(
    State(state): State<ApiState>,
    Path((vault, machine)): Path<(String, String)>,
    headers: HeaderMap,
    Json(request): Json<RenameRequest>,
) -> Result<StatusCode, ApiError> {
    let revision = if_match(&headers)?;
    state
        .run(move |state| {
            let machine = state.machine(&vault, &machine)?;
            Ok(state.vault.rename(machine, &request.name, revision)?)
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes a machine that is not replicated from the vault: its certificates are revoked and its name is free. Its jobs
/// and events stay.
#[utoipa::path(delete, path = "/api/v1/vaults/{vault}/machines/{machine}", tag = "Machines",
    params(("If-Match" = Option<String>, Header, description = "ETag of the machine: refused when it was changed since")),
    responses((status = 204)))]
pub async fn remove(
    State(state): State<ApiState>,
    Path((vault, machine)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let revision = if_match(&headers)?;
    state
        .run(move |state| {
            let machine = state.machine(&vault, &machine)?;
            state.vault.remove_machine(machine, revision)?;
            state.site.machine_revoked(machine);
            Ok(())
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Revokes a machine's certificates: its agent is refused until it joins again with the passphrase.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/machines/{machine}/revoke", tag = "Machines",
    params(("If-Match" = Option<String>, Header, description = "ETag of the machine: refused when it was changed since")),
    responses((status = 204)))]
pub async fn revoke(
    State(state): State<ApiState>,
    Path((vault, machine)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let revision = if_match(&headers)?;
    state
        .run(move |state| {
            let machine = state.machine(&vault, &machine)?;
            state.vault.revoke(machine, revision)?;
            state.site.machine_revoked(machine);
            Ok(())
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
