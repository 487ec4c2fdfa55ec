//! Servers, the store, and the passphrase that machines join with. What only the configuration server knows comes through
//! the trait [`Site`].
use super::ApiState;
use super::lists::{Sort, is};
use super::model::{Page, Paging, Time};
use super::problem::ApiError;
use crate::block::{DiskId, MachineId};
use crate::process_server::Backlog;
use crate::vault::Backup;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};

/// One server of the site.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerFacts {
    pub name: String,
    /// configuration, process, vault, target, web
    pub roles: Vec<String>,
    pub version: String,
    /// `Connected`, or what is wrong.
    pub state: String,
    pub detail: String,
    /// Addresses that agents and people dial.
    pub addresses: Vec<String>,
    pub last_heartbeat_at: Option<Time>,
    /// Normal, Warning, Critical
    pub health: String,
    pub alarms: Vec<ServerAlarm>,
    /// Over the last minute; null: not known. So with what follows.
    pub cpu_percent: Option<f64>,
    pub memory_percent: Option<f64>,
    pub store_capacity_bytes: Option<u64>,
    pub store_free_bytes: Option<u64>,
    /// Changed at the sources and not yet durable at the target, of all machines.
    pub backlog_bytes: u64,
    /// Arrived and in the process server's memory.
    pub held_bytes: u64,
    pub received_bytes_per_second: Option<f64>,
    /// Until the backlog is shipped at that rate.
    pub backlog_eta_seconds: Option<u64>,
    /// Replication sessions that are open.
    pub sessions: u64,
}

/// Something is wrong with a server.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerAlarm {
    pub code: String,
    /// Warning, Critical
    pub severity: String,
    pub message: String,
    pub possible_causes: String,
    pub recommended_action: String,
}

#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct SiteError {
    pub what: String,
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl From<SiteError> for ApiError {
    fn from(error: SiteError) -> Self {
        tracing::error!(%error, source = ?error.source, "the configuration server refused");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "SiteFailed",
            error.what,
            "a file of the server cannot be read or written",
            "look for the request id in the server's log",
        )
    }
}

/// Where this server is, and how it is recognised.
#[derive(Clone, Debug)]
pub struct WayIn {
    /// `sha256//` and base64: of the public key that the HTTPS port shows.
    pub public_key_pin: String,
    /// `sha256:` and hexadecimal: of the CA.
    pub ca_fingerprint: String,
    pub api_port: u16,
    pub data_port: u16,
    /// Names and addresses of this host, the best first.
    pub names: Vec<String>,
}

/// The configuration server, as the API needs it. Calls block.
pub trait Site: Send + Sync {
    fn servers(&self) -> Vec<ServerFacts>;
    /// What agents and process servers join with.
    fn passphrase(&self) -> Result<String, SiteError>;
    /// Makes a new one; the old one is refused from now on.
    fn rotate_passphrase(&self) -> Result<String, SiteError>;
    /// The certificate that everything here is signed by, PEM.
    fn ca_pem(&self) -> String;
    /// What of a machine's disks has arrived and is in no recovery point yet.
    fn backlog(&self, machine: MachineId) -> HashMap<DiskId, Backlog>;
    /// What a machine needs to find this server and to know that it is the right one.
    fn way_in(&self) -> Result<WayIn, SiteError>;
    /// Backups of the vault's database, the newest first.
    fn backups(&self) -> Result<Vec<Backup>, SiteError>;
    /// One more, now.
    fn back_up(&self) -> Result<Backup, SiteError>;
    /// End of the server's own certificate, Unix seconds.
    fn certificate_ends_unix(&self) -> Option<i64> {
        None
    }
    /// The vault has revoked the machine's certificates: end its connections.
    fn machine_revoked(&self, machine: MachineId);
    /// A job or an order was written: look now, not at the next tick.
    fn nudge(&self);
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ServerQuery {
    /// configuration, process, vault, target, web
    pub role: Option<String>,
    /// Normal, Warning, Critical
    pub health: Option<String>,
    /// name (default), health, state, cpuPercent, memoryPercent, storeFreeBytes, backlogBytes; with a `-` before it the
    /// other way round.
    pub sort: Option<String>,
    /// Most items to answer.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub limit: Option<u32>,
    /// `nextCursor` of the part before.
    pub cursor: Option<String>,
}

const SORTS: [&str; 7] = [
    "name",
    "health",
    "state",
    "cpuPercent",
    "memoryPercent",
    "storeFreeBytes",
    "backlogBytes",
];

/// Configuration, process and target servers with their health.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/servers", tag = "Site", params(ServerQuery),
    responses((status = 200, body = Page<ServerFacts>)))]
pub async fn servers(
    State(state): State<ApiState>,
    Path(_vault): Path<String>,
    Query(query): Query<ServerQuery>,
) -> Result<Json<Page<ServerFacts>>, ApiError> {
    let sort = Sort::of(query.sort.as_deref(), &SORTS)?;
    let paging = Paging {
        limit: query.limit,
        cursor: query.cursor,
    };
    let mut servers = state.run(|state| Ok(state.site.servers())).await?;
    servers.retain(|server| {
        is(&server.health, query.health.as_deref())
            && query
                .role
                .as_deref()
                .is_none_or(|wanted| server.roles.iter().any(|role| is(role, Some(wanted))))
    });
    Ok(Json(sort.page(servers, &paging, |server| server.name.clone())?))
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoreMachine {
    pub id: String,
    pub name: String,
    pub recovery_points: usize,
    pub stored_bytes: u64,
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoreView {
    /// Of the file system that the store is in.
    pub capacity_bytes: u64,
    pub free_bytes: u64,
    /// Of the machines of this vault.
    pub stored_bytes: u64,
    pub machines: Vec<StoreMachine>,
}

/// The replica store: room and use.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/store", tag = "Site",
    responses((status = 200, body = StoreView)))]
pub async fn store(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
) -> Result<Json<StoreView>, ApiError> {
    let view = state
        .run(move |state| {
            let own: HashSet<MachineId> = state
                .vault
                .machines(&vault, None, u32::MAX)?
                .into_iter()
                .map(|row| row.id)
                .collect();
            let room = rustix::fs::statvfs(state.store.root()).map_err(|error| SiteError {
                what: "the store's file system cannot be read".to_owned(),
                source: Some(Box::new(std::io::Error::from(error))),
            })?;
            let machines: Vec<StoreMachine> = state
                .store
                .machines()
                .into_iter()
                .filter(|machine| own.contains(&machine.id))
                .map(|machine| StoreMachine {
                    id: machine.id.to_string(),
                    name: machine.name,
                    recovery_points: machine.points,
                    stored_bytes: machine.stored_bytes,
                })
                .collect();
            Ok(StoreView {
                capacity_bytes: room.f_blocks.saturating_mul(room.f_frsize),
                free_bytes: room.f_bavail.saturating_mul(room.f_frsize),
                stored_bytes: machines.iter().map(|machine| machine.stored_bytes).sum(),
                machines,
            })
        })
        .await?;
    Ok(Json(view))
}

/// What is needed to join.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Joining {
    pub passphrase: String,
    pub ca_pem: String,
}

/// The passphrase that machines join with.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/passphrase", tag = "Site",
    responses((status = 200, body = Joining)))]
pub async fn passphrase(
    State(state): State<ApiState>,
    Path(_vault): Path<String>,
) -> Result<Json<Joining>, ApiError> {
    let answer = state
        .run(|state| {
            Ok(Joining {
                passphrase: state.site.passphrase()?,
                ca_pem: state.site.ca_pem(),
            })
        })
        .await?;
    Ok(Json(answer))
}

/// Makes a new passphrase; machines that have joined are not touched.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/passphrase/rotate", tag = "Site",
    responses((status = 200, body = Joining)))]
pub async fn rotate_passphrase(
    State(state): State<ApiState>,
    Path(_vault): Path<String>,
) -> Result<Json<Joining>, ApiError> {
    let answer = state
        .run(|state| {
            Ok(Joining {
                passphrase: state.site.rotate_passphrase()?,
                ca_pem: state.site.ca_pem(),
            })
        })
        .await?;
    Ok(Json(answer))
}
