//! What the agent is doing, for the heartbeat and for `lifeboat agent status`.
use crate::block::DiskId;
use crate::wire::proto;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
pub struct Board(Arc<Mutex<Status>>);

impl Board {
    pub fn change(&self) -> MutexGuard<'_, Status> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
