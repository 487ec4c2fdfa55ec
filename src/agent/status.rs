//! What the agent is doing, for the heartbeat and for `lifeboat agent status`.
use crate::block::{DiskId, PointId};
use crate::wire::proto;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    pub name: String,
    pub server: String,
    /// Whether the last heartbeat was answered.
    pub connected: bool,
    pub phase: String,
    pub generation: u64,
    pub disks: BTreeMap<DiskId, DiskLive>,
    /// By code; a trouble stays until what it says is over.
    pub troubles: BTreeMap<String, Trouble>,
    pub points: u64,
    pub last_point_unix_nanos: Option<i64>,
    pub last_freeze_micros: Option<u32>,
    /// The last order to resynchronize that was carried out.
    pub resynchronized: u64,
    /// An order to come to rest that is being followed.
    #[serde(skip)]
    pub halt: Option<Halt>,
}

/// How far the machine is on its way to rest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Halt {
    /// The server's job.
    pub job: [u8; 16],
    /// It is at rest, and this point holds all that it wrote.
    pub point: Option<PointId>,
    pub error: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DiskLive {
    pub device: String,
    pub state: String,
    pub capture: String,
    pub pending_bytes: u64,
    pub done_bytes: u64,
    pub total_bytes: u64,
    /// Raw bytes of changed blocks that were shipped since the agent started.
    pub changed_bytes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Trouble {
    pub severity: String,
    pub message: String,
    pub possible_causes: String,
    pub recommended_action: String,
}

#[derive(Clone, Default)]
pub struct Board(Arc<Shared>);

#[derive(Default)]
struct Shared {
    status: Mutex<Status>,
    urgent: Notify,
}

impl Board {
    pub fn change(&self) -> MutexGuard<'_, Status> {
        self.0.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something that the server waits for: the next heartbeat is due at once.
    pub fn tell_at_once(&self) {
        self.0.urgent.notify_one();
    }

    pub async fn is_urgent(&self) {
        self.0.urgent.notified().await;
    }

    pub fn now(&self) -> Status {
        self.change().clone()
    }

    /// Says that something is wrong; logged when it is new.
    pub fn trouble(&self, code: &str, critical: bool, message: String, causes: &str, action: &str) {
        let trouble = Trouble {
            severity: if critical { "Critical" } else { "Warning" }.to_owned(),
            message,
            possible_causes: causes.to_owned(),
            recommended_action: action.to_owned(),
        };
        let before = self.change().troubles.insert(code.to_owned(), trouble.clone());
        if before.as_ref() != Some(&trouble) {
            tracing::warn!(code, "{}; {causes}; {action}", trouble.message);
        }
    }

    /// What the codes say is over.
    pub fn over(&self, codes: &[&str]) {
        let mut status = self.change();
        for code in codes {
            if status.troubles.remove(*code).is_some() {
                tracing::info!(code, "over");
            }
        }
    }
}

impl Status {
    pub fn disk_messages(&self, shipped: impl Fn(DiskId) -> u64) -> Vec<proto::DiskStatus> {
        self.disks
            .iter()
            .map(|(id, disk)| proto::DiskStatus {
                disk_id: id.as_bytes().to_vec(),
                state: disk.state.clone(),
                capture: disk.capture.clone(),
                pending_bytes: disk.pending_bytes,
                done_bytes: disk.done_bytes,
                total_bytes: disk.total_bytes,
                read_bytes: 0,
                shipped_bytes: shipped(*id),
                changed_bytes: disk.changed_bytes,
            })
            .collect()
    }

    pub fn halt_message(&self) -> Option<proto::HaltReport> {
        let halt = self.halt.as_ref()?;
        Some(proto::HaltReport {
            job_id: halt.job.to_vec(),
            point_id: halt
                .point
                .map(|point| point.as_bytes().to_vec())
                .unwrap_or_default(),
            error: halt.error.clone().unwrap_or_default(),
        })
    }

    pub fn trouble_messages(&self) -> Vec<proto::Trouble> {
        self.troubles
            .iter()
            .map(|(code, trouble)| proto::Trouble {
                code: code.clone(),
                severity: trouble.severity.clone(),
                message: trouble.message.clone(),
                causes: trouble.possible_causes.clone(),
                action: trouble.recommended_action.clone(),
            })
            .collect()
    }
}
