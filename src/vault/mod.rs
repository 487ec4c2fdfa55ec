//! The vault: machines, replicated items, policies, jobs, events, users, in SQLite.
//!
//! All writes that belong together are one transaction, durable on return. Times are Unix nanoseconds.
use crate::block::{DiskId, MachineId};
use crate::wire::facts::Inventory;
use std::path::Path;
use std::sync::Arc;

/// Cheap to clone; safe to use from many threads. Calls block: async callers go through a blocking thread.
#[derive(Clone)]
pub struct Vault(#[allow(dead_code)] Arc<()>);

/// What the configuration server wants an agent to do. Handed out again and again: doing it twice is safe.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Desired {
    pub protect: bool,
    pub generation: u64,
    pub disks: Vec<DesiredDisk>,
    pub crash_consistent_seconds: u32,
    /// 0: off.
    pub app_consistent_seconds: u32,
    /// Grows with each order to resynchronize.
    pub resync_request: u64,
    /// Grows with each order to make a point at once.
    pub sync_request: u64,
    /// Some: the machine was failed over; why, in words for its console.
    pub fenced: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct DesiredDisk {
    pub id: DiskId,
    pub stable_id: String,
    pub size_bytes: u64,
}

/// What an agent says of itself; kept in memory, except the time, the version and the inventory.
#[derive(Clone, Debug, Default)]
pub struct Heartbeat {
    pub at_unix_nanos: i64,
    /// Agent's clock minus server's.
    pub clock_skew_nanos: i64,
    pub agent_version: String,
    /// None: as before.
    pub inventory: Option<Inventory>,
    pub boot_id: String,
    pub phase: String,
    pub generation: u64,
    pub disks: Vec<LiveDisk>,
    pub troubles: Vec<Trouble>,
}

#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveDisk {
    pub disk: DiskId,
    /// Words of the reference model: InitialReplicationPending, InitialReplicationInProgress, Protected, ...
    pub state: String,
    /// `ebpf` or `scan`.
    pub capture: String,
    pub pending_bytes: u64,
    pub done_bytes: u64,
    pub total_bytes: u64,
    pub read_bytes: u64,
    pub shipped_bytes: u64,
    pub changed_bytes: u64,
}

#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trouble {
    pub code: String,
    /// Warning | Critical
    pub severity: String,
    pub message: String,
    pub possible_causes: String,
    pub recommended_action: String,
}

#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    #[error(
        "a machine name is 1 to 63 letters, digits and hyphens and starts and ends with a letter or digit: {0:?}"
    )]
    BadName(String),
    #[error("another machine of this vault is named {0}")]
    DuplicateName(String),
    #[error("there is no {what} {name}")]
    NotFound { what: &'static str, name: String },
    #[error("the vault's database refused")]
    Database(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Whether a client certificate may still be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateStatus {
    Valid,
    Revoked,
    /// The machine has a newer one; this one is refused except to renew.
    Unknown,
}

impl Vault {
    /// Opens or makes the database and brings it to the newest schema. A new one gets the vault `default` and the default
    /// policy.
    pub fn open(_path: &Path) -> Result<Self, VaultError> {
        todo!()
    }

    /// A machine joins. `machine_key`: its stable identity; the same key gets the same id again, also under a new name.
    /// Another key under a name that is taken: [`VaultError::DuplicateName`].
    pub fn enrol(
        &self,
        _vault: &str,
        _name: &str,
        _machine_key: &str,
        _version: &str,
    ) -> Result<MachineId, VaultError> {
        todo!()
    }

    /// Keeps the serial number of a certificate that was issued to a machine.
    pub fn certificate_issued(
        &self,
        _machine: MachineId,
        _serial: &str,
        _not_after_unix: i64,
    ) -> Result<(), VaultError> {
        todo!()
    }

    pub fn certificate_status(
        &self,
        _machine: MachineId,
        _serial: &str,
    ) -> Result<CertificateStatus, VaultError> {
        todo!()
    }

    /// Revokes all certificates of a machine.
    pub fn revoke(&self, _machine: MachineId) -> Result<(), VaultError> {
        todo!()
    }

    pub fn heartbeat(&self, _machine: MachineId, _heartbeat: Heartbeat) -> Result<(), VaultError> {
        todo!()
    }

    pub fn desired(&self, _machine: MachineId) -> Result<Desired, VaultError> {
        todo!()
    }
}
