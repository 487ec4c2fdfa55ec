//! Facts an agent reports about its machine. Carried as JSON in a heartbeat; unknown fields are ignored, so
//! that an older server understands a newer agent.
use serde::{Deserialize, Serialize};

/// All that a target needs to know to start the machine, and a person to recognise it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Inventory {
    pub host_name: String,
    pub os: String,
    pub kernel: String,
    pub architecture: String,
    pub cpus: u32,
    pub memory_bytes: u64,
    pub firmware: Firmware,
    pub boot_id: String,
    pub disks: Vec<DiskFacts>,
    pub nics: Vec<NicFacts>,
    pub checks: Vec<Check>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Firmware {
    #[default]
    Bios,
    Uefi,
}

/// One disk. `stable_id` outlives renames of the device node: `wwn:…`, `serial:…`, `gpt:…`, `mbr:…`, or
/// `backing:…` for a loop device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DiskFacts {
    pub stable_id: String,
    /// Device node at this moment, for people only.
    pub device: String,
    pub size_bytes: u64,
    pub boot: bool,
    pub partitions: Vec<PartitionFacts>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PartitionFacts {
    pub device: String,
    pub offset_bytes: u64,
    pub size_bytes: u64,
    pub file_system: String,
    pub mount_points: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NicFacts {
    pub name: String,
    pub mac: String,
    pub addresses: Vec<String>,
    pub default_gateway: Option<String>,
}

/// One prerequisite, as `lifeboat agent doctor` and the enable-replication page show it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    pub name: String,
    pub result: CheckResult,
    pub message: String,
    pub causes: String,
    pub action: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CheckResult {
    Pass,
    Warning,
    Error,
}
