//! Replicated items: all that a person needs to know of one, and enabling and disabling replication.
use super::ApiState;
use super::access::Caller;
use super::lists::{Sort, holds, is};
use super::migration::{DiskFileView, KeptPointsView, keep_points};
use super::model::{Accepted, Page, Paging, Reason, Time, etag, if_match};
use super::problem::ApiError;
use crate::recovery::{JobId, Operation, ProtectionState, TargetSettings};
use crate::rt::now_unix_nanos;
use crate::target::{Cidr, DiskBus, Forward, Network, Nic, NicAddress};
use crate::vault::{ItemRow, Live, PointMark, VaultError};
use crate::wire::facts::Firmware;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicatedItem {
    /// Of the machine.
    pub id: String,
    pub name: String,
    /// Grows with every change; the ETag.
    pub revision: u64,
    pub protection_state: String,
    /// The state as a person reads it.
    pub status: String,
    pub test_failover_state: String,
    /// Primary, Recovery
    pub active_location: String,
    /// PrimaryToRecovery, RecoveryToPrimary: where replication leads now, or led last.
    pub direction: String,
    /// Machine that takes this one home, from the reprotect to the commit at home.
    pub receiver: Option<String>,
    /// Normal, Warning, Critical, None
    pub replication_health: String,
    /// Normal: a test failover was cleaned up within six months. Warning: one is due. None: there is no point yet.
    pub failover_health: String,
    pub health_errors: Vec<HealthErrorView>,
    pub allowed_operations: Vec<OperationView>,
    pub policy: String,
    pub rpo_threshold_seconds: u32,
    /// Age of the newest consistent point at the target; null: there is none, or none are made of it any more.
    pub rpo_seconds: Option<f64>,
    pub computed_at: Time,
    pub last_recovery_point: Option<PointRef>,
    pub latest_app_consistent_point: Option<PointRef>,
    /// Of the last point.
    pub freeze_ms: f64,
    /// Of the initial replication or of a comparison; null: none is under way.
    pub progress: Option<Progress>,
    /// Changed at the source and not yet durable at the target.
    pub pending_bytes: u64,
    /// Bytes per second that changed at the source, over the last minutes; null: not known yet.
    pub churn_bytes_per_second: Option<f64>,
    pub disks: Vec<ItemDiskView>,
    pub agent_version: String,
    pub last_heartbeat_at: Option<Time>,
    /// What the agent is doing, in words.
    pub phase: String,
    /// A replication session is open.
    pub connected: bool,
    pub last_successful_test_failover_at: Option<Time>,
    pub test_failover: Option<FailoverView>,
    pub failover: Option<FailoverView>,
    /// Of a machine that is not protected any more; null: none are kept.
    pub kept_points: Option<KeptPointsView>,
    /// It stays at the target for good, and its source is fenced for good.
    pub migrated: bool,
    pub target: TargetView,
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthErrorView {
    pub code: String,
    pub category: String,
    pub severity: String,
    pub summary: String,
    pub message: String,
    pub possible_causes: String,
    pub recommended_action: String,
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationView {
    pub operation: String,
    pub allowed: bool,
    /// Why not.
    pub reason: Option<Reason>,
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PointRef {
    pub id: String,
    pub instant: Time,
    /// AppConsistent, CrashConsistent, Fuzzy
    pub consistency: String,
}

impl From<PointMark> for PointRef {
    fn from(mark: PointMark) -> Self {
        Self {
            id: mark.id.to_string(),
            instant: Time(mark.instant_unix_nanos),
            consistency: mark.consistency.to_string(),
        }
    }
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    pub done_bytes: u64,
    pub total_bytes: u64,
    pub percent: f64,
    pub bytes_per_second: Option<f64>,
    pub eta_seconds: Option<u64>,
    /// InProgress, SlowProgress, NoProgress, Queued
    pub health: String,
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ItemDiskView {
    pub id: String,
    pub stable_id: String,
    pub size_bytes: u64,
    /// InitialReplicationPending, InitialReplicationInProgress, Protected, ResyncRequired, Resynchronizing, Unavailable;
    /// null: the agent has not told yet.
    pub state: Option<String>,
    /// ebpf, scan
    pub capture: Option<String>,
    /// False: it is copied for the first time; recovery points hold it from the first one on that has all disks.
    pub in_recovery_points: bool,
    /// Backlog at the source: changed and not yet durable at the target.
    pub pending_bytes: u64,
    /// Backlog at the process server: arrived, and not yet durable. Stored size.
    pub process_server_bytes: u64,
    /// Backlog at the target: durable, and in no recovery point yet. Stored size.
    pub target_bytes: u64,
    /// Bytes per second that changed, over the last minutes; null: not known yet.
    pub churn_bytes_per_second: Option<f64>,
    pub done_bytes: u64,
    pub total_bytes: u64,
    /// Since the agent started.
    pub read_bytes: u64,
    pub shipped_bytes: u64,
    pub changed_bytes: u64,
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailoverView {
    pub job: String,
    pub recovery_point: String,
    pub recovery_point_instant: Time,
    /// Name at the target.
    pub machine_name: String,
    /// Of a machine that was hydrated: its disks. Empty: it reads them from the replica.
    pub files: Vec<DiskFileView>,
}

impl From<crate::recovery::Failover> for FailoverView {
    fn from(failover: crate::recovery::Failover) -> Self {
        Self {
            job: failover.job.to_string(),
            recovery_point: failover.point.to_string(),
            recovery_point_instant: Time(failover.point_instant_unix_nanos),
            files: failover
                .machine
                .disks
                .iter()
                .filter_map(|disk| Some(disk.file.as_ref()?.into()))
                .collect(),
            machine_name: failover.machine.name,
        }
    }
}

/// How the machine is started at the target.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetView {
    pub name: String,
    #[schema(minimum = 1, maximum = 512)]
    pub cpus: u32,
    pub memory_bytes: u64,
    pub firmware: FirmwareView,
    pub disk_bus: DiskBusView,
    #[schema(max_items = 8)]
    pub nics: Vec<NicView>,
    #[schema(max_items = 8)]
    pub test_nics: Vec<NicView>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum FirmwareView {
    Bios,
    Uefi,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum DiskBusView {
    VirtioBlk,
    VirtioScsi,
    Ahci,
}

#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NicView {
    /// Null: made up.
    #[serde(default)]
    pub mac: Option<String>,
    pub network: NetworkView,
    /// Null: in an isolated network the address of the source; elsewhere what the guest is configured with.
    #[serde(default)]
    pub address: Option<NicAddressView>,
}

/// What a guest is to use on a NIC.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NicAddressView {
    /// With the length of the subnet: 192.0.2.7/24.
    #[schema(value_type = String)]
    pub cidr: Cidr,
    #[serde(default)]
    #[schema(value_type = Option<String>, format = Ipv4)]
    pub gateway: Option<Ipv4Addr>,
    #[serde(default)]
    #[schema(value_type = Vec<String>, max_items = 4)]
    pub dns: Vec<Ipv4Addr>,
}

impl From<NicAddress> for NicAddressView {
    fn from(address: NicAddress) -> Self {
        Self {
            cidr: address.cidr,
            gateway: address.gateway,
            dns: address.dns,
        }
    }
}

impl From<NicAddressView> for NicAddress {
    fn from(address: NicAddressView) -> Self {
        Self {
            cidr: address.cidr,
            gateway: address.gateway,
            dns: address.dns,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum NetworkView {
    /// Private to the machine, outgoing through the host; ports of the host's loopback address lead in.
    User {
        #[serde(default)]
        forwards: Vec<ForwardView>,
    },
    /// As `user`, but nothing leads out.
    IsolatedUser {
        #[serde(default)]
        forwards: Vec<ForwardView>,
    },
    /// A bridge in a network namespace of its own.
    Isolated { name: String },
    /// A bridge of the host.
    Bridge { name: String },
    /// A network of the vault, by its name.
    Named { name: String },
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ForwardView {
    /// 0: a free one is chosen.
    pub host_port: u16,
    pub guest_port: u16,
}

impl From<Forward> for ForwardView {
    fn from(forward: Forward) -> Self {
        Self {
            host_port: forward.host_port,
            guest_port: forward.guest_port,
        }
    }
}

impl From<ForwardView> for Forward {
    fn from(forward: ForwardView) -> Self {
        Self {
            host_port: forward.host_port,
            guest_port: forward.guest_port,
        }
    }
}

impl From<Nic> for NicView {
    fn from(nic: Nic) -> Self {
        Self {
            mac: nic.mac,
            address: nic.address.map(Into::into),
            network: match nic.network {
                Network::User { forwards } => NetworkView::User {
                    forwards: forwards.into_iter().map(ForwardView::from).collect(),
                },
                Network::IsolatedUser { forwards } => NetworkView::IsolatedUser {
                    forwards: forwards.into_iter().map(ForwardView::from).collect(),
                },
                Network::Isolated { name, .. } => NetworkView::Isolated { name },
                Network::Bridge { name } => NetworkView::Bridge { name },
                Network::Named { name } => NetworkView::Named { name },
            },
        }
    }
}

impl From<NicView> for Nic {
    fn from(nic: NicView) -> Self {
        Self {
            mac: nic.mac,
            address: nic.address.map(Into::into),
            network: match nic.network {
                NetworkView::User { forwards } => Network::User {
                    forwards: forwards.into_iter().map(Forward::from).collect(),
                },
                NetworkView::IsolatedUser { forwards } => Network::IsolatedUser {
                    forwards: forwards.into_iter().map(Forward::from).collect(),
                },
                NetworkView::Isolated { name } => Network::isolated(&name),
                NetworkView::Bridge { name } => Network::Bridge { name },
                NetworkView::Named { name } => Network::Named { name },
            },
        }
    }
}

impl From<TargetSettings> for TargetView {
    fn from(target: TargetSettings) -> Self {
        Self {
            name: target.name,
            cpus: target.cpus,
            memory_bytes: target.memory_bytes,
            firmware: match target.firmware {
                Firmware::Bios => FirmwareView::Bios,
                Firmware::Uefi => FirmwareView::Uefi,
            },
            disk_bus: match target.disk_bus {
                DiskBus::VirtioBlk => DiskBusView::VirtioBlk,
                DiskBus::VirtioScsi => DiskBusView::VirtioScsi,
                DiskBus::Ahci => DiskBusView::Ahci,
            },
            nics: target.nics.into_iter().map(NicView::from).collect(),
            test_nics: target.test_nics.into_iter().map(NicView::from).collect(),
        }
    }
}

impl From<TargetView> for TargetSettings {
    fn from(target: TargetView) -> Self {
        Self {
            name: target.name,
            cpus: target.cpus,
            memory_bytes: target.memory_bytes,
            firmware: match target.firmware {
                FirmwareView::Bios => Firmware::Bios,
                FirmwareView::Uefi => Firmware::Uefi,
            },
            disk_bus: match target.disk_bus {
                DiskBusView::VirtioBlk => DiskBus::VirtioBlk,
                DiskBusView::VirtioScsi => DiskBus::VirtioScsi,
                DiskBusView::Ahci => DiskBus::Ahci,
            },
            nics: target.nics.into_iter().map(Nic::from).collect(),
            test_nics: target.test_nics.into_iter().map(Nic::from).collect(),
        }
    }
}

/// A state in words: `InitialReplicationInProgress` reads `Initial replication in progress`.
fn in_words(state: &str) -> String {
    let mut words = String::new();
    for letter in state.chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push(' ');
            words.extend(letter.to_lowercase());
        } else {
            words.push(letter);
        }
    }
    words
}

/// A drill at least every six months, by the field's own advice.
const TEST_DUE_NANOS: i64 = 183 * 86_400 * 1_000_000_000;

fn progress(live: &Live) -> Option<Progress> {
    let heartbeat = live.heartbeat.as_ref()?;
    let busy = |state: &str| {
        matches!(
            state,
            "InitialReplicationPending" | "InitialReplicationInProgress" | "Resynchronizing"
        )
    };
    if !heartbeat.disks.iter().any(|disk| busy(&disk.state)) {
        return None;
    }
    let done: u64 = heartbeat.disks.iter().map(|disk| disk.done_bytes).sum();
    let total: u64 = heartbeat.disks.iter().map(|disk| disk.total_bytes).sum();
    let rate = live.bytes_per_second.filter(|rate| *rate > 0.0);
    let rest = total.saturating_sub(done);
    let queued = heartbeat
        .disks
        .iter()
        .all(|disk| !busy(&disk.state) || disk.state == "InitialReplicationPending");
    let health = match rate {
        _ if queued => "Queued",
        None => "NoProgress",
        // Below this a terabyte takes more than ten days.
        Some(rate) if rate < 1024.0 * 1024.0 => "SlowProgress",
        Some(_) => "InProgress",
    };
    Some(Progress {
        done_bytes: done,
        total_bytes: total,
        percent: if total == 0 {
            0.0
        } else {
            done as f64 * 100.0 / total as f64
        },
        bytes_per_second: rate,
        eta_seconds: rate.map(|rate| (rest as f64 / rate).min(1e9) as u64),
        health: health.to_owned(),
    })
}

pub(super) fn view(state: &ApiState, row: ItemRow) -> Result<ReplicatedItem, ApiError> {
    let now = now_unix_nanos();
    let item = &row.item;
    let live = state.vault.live(item.machine);
    let health = state.vault.health(&row);
    let mut allowed_operations = Vec::new();
    for (operation, refusal) in state.runner.allowed(item.machine)? {
        // The vault carries this one out, and also where it cancels an open EnableReplication by it.
        let refusal = match operation {
            Operation::DisableProtection => state.vault.disable_refusal(item.machine)?,
            _ => refusal,
        };
        allowed_operations.push(OperationView {
            operation: format!("{operation:?}"),
            allowed: refusal.is_none(),
            reason: refusal.map(Reason::from),
        });
    }
    let failover_health = match (&live.last_good_point, item.last_successful_test_unix_nanos) {
        (None, _) => "None",
        (_, Some(last)) if now - last < TEST_DUE_NANOS => "Normal",
        _ => "Warning",
    };
    let heartbeat = live.heartbeat.clone().unwrap_or_default();
    let backlog = state.site.backlog(item.machine);
    let churn = |disk| live.churn.get(&disk).and_then(|churn| churn.bytes_per_second());
    let churns: Vec<f64> = row.disks.iter().filter_map(|disk| churn(disk.id)).collect();
    let disks = row
        .disks
        .iter()
        .map(|disk| {
            let under_way = backlog.get(&disk.id).copied().unwrap_or_default();
            let told = heartbeat.disks.iter().find(|told| told.disk == disk.id);
            ItemDiskView {
                id: disk.id.to_string(),
                stable_id: disk.stable_id.clone(),
                size_bytes: disk.size_bytes,
                state: told.map(|told| told.state.clone()),
                capture: told.map(|told| told.capture.clone()),
                in_recovery_points: item.disks.contains(&disk.id),
                process_server_bytes: under_way.held_bytes,
                target_bytes: under_way.unsealed_bytes,
                churn_bytes_per_second: churn(disk.id),
                pending_bytes: told.map_or(0, |told| told.pending_bytes),
                done_bytes: told.map_or(0, |told| told.done_bytes),
                total_bytes: told.map_or(0, |told| told.total_bytes),
                read_bytes: told.map_or(0, |told| told.read_bytes),
                shipped_bytes: told.map_or(0, |told| told.shipped_bytes),
                changed_bytes: told.map_or(0, |told| told.changed_bytes),
            }
        })
        .collect();
    let protection_state = format!("{:?}", item.protection);
    let kept_points = KeptPointsView::of(state, item);
    let status = match &kept_points {
        _ if item.protection != ProtectionState::Unprotected => in_words(&protection_state),
        Some(kept) if item.is_migrated() => format!("Migrated, {}", kept.in_words()),
        Some(kept) => format!("Not protected, {}", kept.in_words()),
        None if item.is_migrated() => "Migrated".to_owned(),
        None => in_words(&protection_state),
    };
    Ok(ReplicatedItem {
        id: item.machine.to_string(),
        revision: item.revision,
        status,
        protection_state,
        test_failover_state: format!("{:?}", item.test_failover_state),
        active_location: format!("{:?}", item.active_location),
        direction: direction(item).to_owned(),
        receiver: item
            .reprotect
            .as_ref()
            .map(|reprotect| reprotect.receiver.to_string()),
        replication_health: health.word.to_owned(),
        failover_health: failover_health.to_owned(),
        health_errors: health
            .errors
            .into_iter()
            .map(|error| HealthErrorView {
                code: error.code.to_owned(),
                category: error.category.to_owned(),
                severity: format!("{:?}", error.severity),
                summary: error.summary,
                message: error.message,
                possible_causes: error.possible_causes,
                recommended_action: error.recommended_action,
            })
            .collect(),
        allowed_operations,
        policy: row.policy.name,
        rpo_threshold_seconds: row.policy.rpo_threshold_seconds,
        rpo_seconds: live
            .last_good_point
            .as_ref()
            .filter(|_| item.has_points_to_come())
            .map(|point| (now - point.instant_unix_nanos).max(0) as f64 / 1e9),
        computed_at: Time(now),
        progress: progress(&live),
        last_recovery_point: live.last_good_point.map(PointRef::from),
        latest_app_consistent_point: live.last_app_consistent.map(PointRef::from),
        freeze_ms: f64::from(live.freeze_micros) / 1000.0,
        pending_bytes: heartbeat.disks.iter().map(|disk| disk.pending_bytes).sum(),
        churn_bytes_per_second: (!churns.is_empty()).then(|| churns.iter().sum()),
        disks,
        last_heartbeat_at: live.heartbeat.as_ref().map(|beat| Time(beat.at_unix_nanos)),
        agent_version: heartbeat.agent_version,
        phase: heartbeat.phase,
        connected: live.session == Some(item.generation),
        last_successful_test_failover_at: item.last_successful_test_unix_nanos.map(Time),
        test_failover: item.test_failover.clone().map(FailoverView::from),
        failover: item.failover.clone().map(FailoverView::from),
        kept_points,
        migrated: item.is_migrated(),
        target: item.target.clone().into(),
        name: row.item.name,
    })
}

fn direction(item: &crate::recovery::Item) -> &'static str {
    if item.reprotect.is_some() {
        "RecoveryToPrimary"
    } else {
        "PrimaryToRecovery"
    }
}

/// The job just written, and a nudge for who carries it out.
pub(super) fn accepted(state: &ApiState, job: JobId) -> Result<Accepted, ApiError> {
    state.site.nudge();
    Ok(Accepted {
        job: state.vault.job_row(job)?.into(),
    })
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct ItemQuery {
    /// Part of the name.
    pub name: Option<String>,
    /// Normal, Warning, Critical, None
    pub replication_health: Option<String>,
    /// For example Protected.
    pub protection_state: Option<String>,
    /// For example TestFailoverCompleted.
    pub test_failover_state: Option<String>,
    /// Primary, Recovery
    pub active_location: Option<String>,
    /// Name of the policy.
    pub policy: Option<String>,
    /// name (default), replicationHealth, protectionState, policy, rpoSeconds, pendingBytes, churnBytesPerSecond,
    /// lastHeartbeatAt, lastSuccessfulTestFailoverAt; with a `-` before it the other way round.
    pub sort: Option<String>,
    /// Most items to answer.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub limit: Option<u32>,
    /// `nextCursor` of the part before.
    pub cursor: Option<String>,
}

const SORTS: [&str; 9] = [
    "name",
    "replicationHealth",
    "protectionState",
    "policy",
    "rpoSeconds",
    "pendingBytes",
    "churnBytesPerSecond",
    "lastHeartbeatAt",
    "lastSuccessfulTestFailoverAt",
];

impl ItemQuery {
    fn wants(&self, state: &ApiState, row: &ItemRow) -> bool {
        let item = &row.item;
        holds(&item.name, self.name.as_deref())
            && is(
                &format!("{:?}", item.protection),
                self.protection_state.as_deref(),
            )
            && is(
                &format!("{:?}", item.test_failover_state),
                self.test_failover_state.as_deref(),
            )
            && is(
                &format!("{:?}", item.active_location),
                self.active_location.as_deref(),
            )
            && is(&row.policy.name, self.policy.as_deref())
            && (self.replication_health.is_none()
                || is(state.vault.health(row).word, self.replication_health.as_deref()))
    }
}

/// Machines under replication, by name.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/replicated-items", tag = "Replicated items", params(ItemQuery),
    responses((status = 200, body = Page<ReplicatedItem>)))]
pub async fn list(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
    Query(query): Query<ItemQuery>,
) -> Result<Json<Page<ReplicatedItem>>, ApiError> {
    let paging = Paging {
        limit: query.limit,
        cursor: query.cursor.clone(),
    };
    let limit = paging.limit()?;
    let sort = Sort::of(query.sort.as_deref(), &SORTS)?;
    let page = state
        .run(move |state| {
            // In the order of the database only those that are answered are looked at closely.
            if query.sort.is_none() {
                let after = paging.after()?;
                let mut rows = state.vault.item_rows(&vault, after.as_deref(), u32::MAX)?;
                rows.retain(|row| query.wants(state, row));
                return Page::of(rows, limit, |row| row.item.name.clone(), |row| view(state, row));
            }
            let views = state
                .vault
                .item_rows(&vault, None, u32::MAX)?
                .into_iter()
                .filter(|row| query.wants(state, row))
                .map(|row| view(state, row))
                .collect::<Result<_, _>>()?;
            sort.page(views, &paging, |view| view.id.clone())
        })
        .await?;
    Ok(Json(page))
}

/// One replicated item, by name or id.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/replicated-items/{item}", tag = "Replicated items",
    responses((status = 200, body = ReplicatedItem)))]
pub async fn show(
    State(state): State<ApiState>,
    Path((vault, item)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let item = state
        .run(move |state| {
            let row = find(state, &vault, &item)?;
            view(state, row)
        })
        .await?;
    Ok(([(header::ETAG, etag(item.revision))], Json(item)).into_response())
}

/// The item of a machine given by name or id.
pub(super) fn find(state: &ApiState, vault: &str, name: &str) -> Result<ItemRow, ApiError> {
    let machine = state.vault.find_machine(vault, name)?;
    match state.vault.item_row(machine.id) {
        Err(VaultError::NotFound { .. }) => Err(ApiError::new(
            axum::http::StatusCode::NOT_FOUND,
            "NotReplicated",
            format!("{} is not replicated", machine.name),
            "replication was not enabled, or was disabled",
            format!("enable it: lifeboat protect {}", machine.name),
        )),
        other => Ok(other?),
    }
}

#[derive(Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnableRequest {
    /// Name or id of a machine that joined.
    pub machine: String,
    /// Default: `default`.
    #[serde(default)]
    pub policy: Option<String>,
    /// Stable ids; default: all disks.
    #[serde(default)]
    pub disks: Option<Vec<String>>,
    /// Default: made from the machine's inventory.
    #[serde(default)]
    pub target: Option<TargetView>,
    /// Also while an alarm of the process server is critical.
    #[serde(default)]
    pub accept_critical_server: bool,
}

/// Enables replication of a machine.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/replicated-items", tag = "Replicated items",
    request_body = EnableRequest, responses((status = 202, body = Accepted)))]
pub async fn enable(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<EnableRequest>,
) -> Result<Accepted, ApiError> {
    state
        .run(move |state| {
            let machine = state.machine(&vault, &request.machine)?;
            if !request.accept_critical_server
                && let Some(refusal) = state.vault.server_refusal(machine, request.disks.as_deref())?
            {
                return Err(refusal.into());
            }
            let policy = request
                .policy
                .unwrap_or_else(|| crate::vault::DEFAULT_POLICY.to_owned());
            let target = request.target.map(TargetSettings::from);
            let job = state
                .vault
                .enable(machine, &policy, request.disks, target, &caller.user)?;
            accepted(state, job)
        })
        .await
}

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct DisableQuery {
    /// The recovery points stay: they can be tested and restored from, and are removed by disabling once more.
    #[serde(default)]
    pub keep_points: bool,
    /// For how many days; default: until they are removed by hand.
    #[param(minimum = 1, maximum = 3650)]
    pub keep_days: Option<u32>,
}

/// Disables replication of a machine: its replica and all its recovery points are removed, unless they are kept. Of a machine
/// that is not protected any more the points that were kept are removed.
#[utoipa::path(delete, path = "/api/v1/vaults/{vault}/replicated-items/{item}", tag = "Replicated items",
    params(DisableQuery, ("If-Match" = Option<String>, Header, description = "ETag of the item: refused when it was changed since")),
    responses((status = 202, body = Accepted)))]
pub async fn disable(
    State(state): State<ApiState>,
    Path((vault, item)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<DisableQuery>,
    headers: HeaderMap,
) -> Result<Accepted, ApiError> {
    let revision = if_match(&headers)?;
    let keep = keep_points(query.keep_points, query.keep_days)?;
    state
        .run(move |state| {
            let row = find(state, &vault, &item)?;
            let job = state
                .vault
                .disable_if(row.item.machine, &caller.user, revision, None, keep)?;
            accepted(state, job)
        })
        .await
}

/// Changes how the machine is started at the target; holds for the next failover.
#[utoipa::path(put, path = "/api/v1/vaults/{vault}/replicated-items/{item}/target-settings", tag = "Replicated items",
    params(("If-Match" = Option<String>, Header, description = "ETag of the item: refused when it was changed since")),
    request_body = TargetView, responses((status = 200, body = ReplicatedItem)))]
pub async fn set_target(
    State(state): State<ApiState>,
    Path((vault, item)): Path<(String, String)>,
    headers: HeaderMap,
    Json(request): Json<TargetView>,
) -> Result<Response, ApiError> {
    let revision = if_match(&headers)?;
    let item = state
        .run(move |state| {
            let row = find(state, &vault, &item)?;
            let row = state
                .vault
                .set_target(row.item.machine, request.into(), revision)?;
            view(state, row)
        })
        .await?;
    Ok(([(header::ETAG, etag(item.revision))], Json(item)).into_response())
}

#[derive(Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SetPolicyRequest {
    /// Name of the policy.
    pub policy: String,
}

/// Lets an item follow another policy from now on: retention and health at once, the agent with its next heartbeat.
#[utoipa::path(put, path = "/api/v1/vaults/{vault}/replicated-items/{item}/policy", tag = "Replicated items",
    params(("If-Match" = Option<String>, Header, description = "ETag of the item: refused when it was changed since")),
    request_body = SetPolicyRequest, responses((status = 200, body = ReplicatedItem)))]
pub async fn set_policy(
    State(state): State<ApiState>,
    Path((vault, item)): Path<(String, String)>,
    headers: HeaderMap,
    Json(request): Json<SetPolicyRequest>,
) -> Result<Response, ApiError> {
    let revision = if_match(&headers)?;
    let item = state
        .run(move |state| {
            let row = find(state, &vault, &item)?;
            let row = state
                .vault
                .set_policy(row.item.machine, &request.policy, revision)?;
            state.site.nudge();
            view(state, row)
        })
        .await?;
    Ok(([(header::ETAG, etag(item.revision))], Json(item)).into_response())
}

#[derive(Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SetDisksRequest {
    /// Stable ids of all disks that are to be protected, the boot disk among them.
    #[schema(max_items = 256)]
    pub disks: Vec<String>,
}

/// Includes or excludes disks while the machine is protected. An excluded disk leaves later recovery points at once; the
/// older ones keep it. An included disk is copied first: no new point is made meanwhile, failover uses the points there
/// are, and from the first point that holds all disks on only such points are offered.
#[utoipa::path(put, path = "/api/v1/vaults/{vault}/replicated-items/{item}/disks", tag = "Replicated items",
    params(("If-Match" = Option<String>, Header, description = "ETag of the item: refused when it was changed since")),
    request_body = SetDisksRequest, responses((status = 202, body = Accepted)))]
pub async fn set_disks(
    State(state): State<ApiState>,
    Path((vault, item)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Json(request): Json<SetDisksRequest>,
) -> Result<Accepted, ApiError> {
    let revision = if_match(&headers)?;
    if request.disks.len() > crate::wire::DISKS_MAX {
        return Err(ApiError::invalid(format!(
            "at most {} disks",
            crate::wire::DISKS_MAX
        )));
    }
    state
        .run(move |state| {
            let row = find(state, &vault, &item)?;
            let (machine, user) = (row.item.machine, &caller.user);
            let job = state
                .vault
                .set_disks(machine, &request.disks, revision, user, None)?;
            accepted(state, job)
        })
        .await
}
