//! What a tour measured, as it prints it. Names and units are a promise to whoever reads the JSON.
use serde::Serialize;

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Every ledger and table was whole, every step succeeded.
    pub ok: bool,
    pub seconds: f64,
    pub agent_peak_rss_mi_b: f64,
    pub server_peak_rss_mi_b: f64,
    /// What a lab without root is less than one with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub less: Vec<String>,
    pub machines: Vec<Machine>,
    /// The test failover of all machines by a recovery plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    /// The same plan there and back; only where the tour is asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan_circle: Option<PlanCircle>,
    /// The group whose shared point that was; only as root, and of two machines or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replication_group: Option<Group>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    pub name: String,
    pub disk_bytes: u64,
    pub capture: String,
    /// From the order to protect until the first recovery point is at the target.
    pub initial_replication_seconds: f64,
    /// Disk bytes per second of that time, in 10^6.
    #[serde(rename = "initialReplicationMBps")]
    pub initial_replication_mbps: f64,
    /// After the initial replication: bytes of frames sent for each byte that the kernel counted as written to the disk.
    pub bytes_shipped_per_byte_changed: f64,
    pub recovery_points: usize,
    pub freeze_ms: Spread,
    pub rpo_seconds: Spread,
    pub test_failover: Option<Failover>,
    pub unplanned_failover: Option<Failover>,
    /// There and back; only as root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub circle: Option<Circle>,
}

/// A planned failover, work at the target, and the way home.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Circle {
    pub planned_failover: Failover,
    /// The source said that nothing was written there after its last point.
    pub stayed_at_rest: bool,
    /// Entries that the machine wrote at the target, and recovery points that were made of it there.
    pub entries_at_target: u64,
    pub points_at_target: usize,
    /// How long its writers were held for such a point.
    pub hold_ms: Spread,
    /// From the order until the disks at home held a point whole.
    pub reprotect_seconds: f64,
    /// From the order until the disks at home were compared as a whole: the machine is down meanwhile.
    pub failback_seconds: f64,
    /// Acknowledged at the target before its end, and not at home.
    pub failback_entries_lost: u64,
    pub ledger_ok: bool,
    pub table_ok: bool,
    /// From the order until the machine was protected at home again.
    pub protected_again_seconds: f64,
}

/// A test failover of a whole recovery plan, with a manual action that the tour does, and its cleanup.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Boot groups.
    pub groups: usize,
    /// How the points of its machines were chosen.
    pub recovery_point: String,
    /// Age of the oldest of these points when the run began.
    pub rpo_seconds: f64,
    /// Until the last machine was started.
    pub rto_seconds: f64,
    /// Until all was done that the plan holds, probes and the manual action too.
    pub plan_rto_seconds: f64,
    pub manual_actions: usize,
    /// From the moment that it waited until it was resumed.
    pub manual_seconds: f64,
    pub cleanup_seconds: f64,
    pub machines: Vec<PlanMachine>,
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanMachine {
    pub name: String,
    pub ledger_ok: bool,
    pub table_ok: bool,
    pub entries_at_point: u64,
    /// From the run's begin until it was started.
    pub rto_seconds: f64,
    pub recovery_point: String,
    /// The newest message that it held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_at_point: Option<u64>,
}

/// All machines of a recovery plan to the target, back, to the target again, and home, by runs of the plan. What concerns one
/// machine is its `circle`.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanCircle {
    /// Until the second planned failover had ended with all that the plan holds.
    pub planned_failover_seconds: f64,
    /// Of both, of all machines.
    pub planned_entries_lost: u64,
    pub cancel_seconds: f64,
    /// By a person: runs stopped, manual actions done and skipped.
    pub stops: u32,
    pub resumed: u32,
    pub skipped: u32,
    pub reprotect_seconds: f64,
    pub failback_seconds: f64,
    pub entries_at_target: u64,
    pub failback_entries_lost: u64,
    pub protected_again_seconds: f64,
}

/// A replication group under a load that goes from each machine to the next.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    pub machines: Vec<String>,
    pub shared_points: u64,
    /// Tried.
    pub rounds: u64,
    /// From the order to freeze until all machines had thawed.
    pub freeze_window_ms_p50: f64,
    pub freeze_window_ms_p99: f64,
    /// The shared point that all machines of the plan were started from.
    pub tested_point: String,
    pub messages_sent: u64,
    /// Of each machine in the order of sending.
    pub messages_at_point: Vec<u64>,
    /// No machine held a message that the one before it had not sent.
    pub in_order: bool,
}

/// Nearest-rank percentiles.
#[derive(Clone, Copy, Debug, Default, Serialize, PartialEq)]
pub struct Spread {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Failover {
    /// From the call to the first NBD read answered.
    pub first_read_ms: Option<f64>,
    /// From the call to the kernel's first line on the serial port.
    pub kernel_start_ms: Option<f64>,
    /// From the call to the guest's verdict on its ledger.
    pub verified_ms: Option<f64>,
    pub ledger_ok: bool,
    pub table_ok: bool,
    /// In the replica's ledger when it booted.
    pub entries_at_point: u64,
    /// Acknowledged at the source when the failover was asked for, and not in the replica: written after the point's
    /// instant.
    pub entries_lost: u64,
    /// The guest told the same over HTTP.
    pub http_ok: bool,
    pub recovery_point: String,
}

impl Spread {
    pub fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let rank = |part: f64| {
            let rank = (samples.len() as f64 * part).ceil().max(1.0) as usize;
            samples.get(rank - 1).copied().unwrap_or(0.0)
        };
        Self {
            p50: rank(0.5),
            p99: rank(0.99),
            max: samples.last().copied().unwrap_or(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_samples() {
        let spread = Spread::of((1..=200).rev().map(f64::from).collect());
        assert_eq!((spread.p50, spread.p99, spread.max), (100.0, 198.0, 200.0));
        assert_eq!(Spread::of(Vec::new()), Spread::default());
    }

    #[test]
    fn the_names_are_those_promised() {
        let report = Report {
            machines: vec![Machine {
                test_failover: Some(Failover::default()),
                ..Machine::default()
            }],
            ..Report::default()
        };
        let json = serde_json::to_value(&report).unwrap();
        for key in ["ok", "agentPeakRssMiB", "serverPeakRssMiB", "machines"] {
            assert!(json.get(key).is_some(), "{key}");
        }
        let machine = &json["machines"][0];
        for key in [
            "name",
            "diskBytes",
            "initialReplicationSeconds",
            "initialReplicationMBps",
            "bytesShippedPerByteChanged",
            "recoveryPoints",
            "freezeMs",
            "rpoSeconds",
            "testFailover",
            "unplannedFailover",
        ] {
            assert!(machine.get(key).is_some(), "{key}");
        }
        for key in [
            "firstReadMs",
            "kernelStartMs",
            "verifiedMs",
            "ledgerOk",
            "tableOk",
            "entriesAtPoint",
            "entriesLost",
        ] {
            assert!(machine["testFailover"].get(key).is_some(), "{key}");
        }
    }
}
