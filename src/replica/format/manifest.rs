//! The manifest of a machine (spec: Manifest).
use crate::block::{Consistency, DiskId, GroupPointId, MachineId, PointId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const MAGIC: [u8; 4] = *b"LBMF";
const HEADER_BYTES: usize = 12;
pub const MANIFEST_BYTES_MAX: usize = 256 << 20;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    pub machine: MachineId,
    pub name: String,
    /// Highest generation that was ever allowed to write; a lower one is refused for ever.
    pub generation: u64,
    pub next_layer: u64,
    pub disks: Vec<DiskEntry>,
    /// Oldest first.
    pub points: Vec<PointEntry>,
    pub pins: Vec<Pin>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DiskEntry {
    pub id: DiskId,
    pub name: String,
    pub size_bytes: u64,
    pub wrapped_key: String,
    /// In the order of time: a later one covers an earlier one.
    pub layers: Vec<LayerEntry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LayerEntry {
    pub number: u64,
    /// None while it is appended to, or after a crash in that time.
    pub end: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PointEntry {
    pub id: PointId,
    pub instant_unix_nanos: i64,
    pub consistency: Consistency,
    pub note: String,
    pub freeze_micros: u32,
    pub stored_bytes: u64,
    pub positions: BTreeMap<DiskId, Position>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<Shared>,
}

/// The point is of an instant that other machines have a point of too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Shared {
    pub id: GroupPointId,
    /// How many machines, this one among them.
    pub members: u32,
}

/// A disk at a point: all earlier layers, and layer `layer` up to byte `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Position {
    pub layer: u64,
    pub offset: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pin {
    pub point: PointId,
    pub owner: String,
}

impl Manifest {
    pub fn encode(&self) -> Vec<u8> {
        let body = serde_json::to_vec(self).expect("a manifest has only plain fields");
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len() + 32);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&1u32.to_le_bytes());
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&body);
        let sum = blake3::hash(&bytes);
        bytes.extend_from_slice(sum.as_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() < HEADER_BYTES + 32 || bytes[..4] != MAGIC {
            return Err("not a manifest".into());
        }
        if bytes[4..8] != 1u32.to_le_bytes() {
            return Err("a manifest version that is not known to this version".into());
        }
        let (covered, sum) = bytes.split_at(bytes.len() - 32);
        if blake3::hash(covered).as_bytes() != sum {
            return Err("the checksum does not match".into());
        }
        if u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize
            != covered.len() - HEADER_BYTES
        {
            return Err("the length does not match".into());
        }
        serde_json::from_slice(&covered[HEADER_BYTES..]).map_err(|e| e.to_string())
    }

    pub fn disk(&self, id: DiskId) -> Option<&DiskEntry> {
        self.disks.iter().find(|disk| disk.id == id)
    }

    pub fn disk_mut(&mut self, id: DiskId) -> Option<&mut DiskEntry> {
        self.disks.iter_mut().find(|disk| disk.id == id)
    }
}
