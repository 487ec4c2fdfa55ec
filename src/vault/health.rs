//! Health of a replicated item: pure, from what is known at an instant. Computed here and nowhere else.
use super::{ItemRow, Live, NewEvent, Severity};
use crate::block::MachineId;
use crate::recovery::{ActiveLocation, ProtectionState};

#[derive(Clone, Debug, PartialEq)]
pub struct HealthError {
    pub code: &'static str,
    /// Replication | TestFailover | Configuration | Infrastructure | VersionExpiry
    pub category: &'static str,
    pub severity: Severity,
    pub summary: String,
    pub message: String,
    pub possible_causes: String,
    pub recommended_action: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// Normal | Warning | Critical | None
    pub word: &'static str,
    pub errors: Vec<HealthError>,
}

impl HealthError {
    pub(super) fn event(&self, machine: Option<MachineId>) -> NewEvent {
        NewEvent {
            severity: self.severity,
            code: self.code.to_owned(),
            machine,
            job: None,
            message: self.message.clone(),
            possible_causes: self.possible_causes.clone(),
            recommended_action: self.recommended_action.clone(),
        }
    }
}

pub(super) const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;
/// Heartbeats come every few seconds; after this the agent counts as gone.
const NO_HEARTBEAT: i64 = MINUTE;
const NO_HEARTBEAT_CRITICAL: i64 = 15 * MINUTE;
const NO_POINT: i64 = 60 * MINUTE;
/// An app-consistent point is due at its frequency; making and shipping it takes a while, and a failed one is tried again
/// after five minutes.
const APP_GRACE: i64 = 10 * MINUTE;
/// Points are stamped with the server's clock; a larger skew spoils app logs and certificates, not points.
const SKEW: i64 = 5 * SECOND;

/// Age in the largest two units: `2 min 5 s`.
pub fn age(nanos: i64) -> String {
    let seconds = nanos.max(0) / SECOND;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// Whether the source is expected to ship.
fn is_replicating(row: &ItemRow) -> bool {
    row.item.active_location == ActiveLocation::Primary
        && matches!(
            row.item.protection,
            ProtectionState::InitialReplicationInProgress | ProtectionState::Protected
        )
}

/// Of a machine at the target: whether points are made of it, and what its fenced source is at.
fn line_errors(
    row: &ItemRow,
    live: &Live,
    now: i64,
    add: &mut impl FnMut(&'static str, &'static str, Severity, &str, String, &str, String),
) {
    let name = &row.item.name;
    let every = i64::from(row.policy.crash_consistent_seconds) * SECOND;
    let last = live
        .last_good_point
        .as_ref()
        .map_or(0, |point| point.instant_unix_nanos);
    // Right after a start of the server nobody has had time to make one.
    let silent = now - last.max(live.since_unix_nanos);
    // A store that is full is told of by itself.
    let trouble = live.line_trouble.as_ref().filter(|_| live.store_full.is_none());
    if silent > (every * 3).max(NO_HEARTBEAT) || trouble.is_some() {
        add(
            "NoPointAtTarget",
            "Replication",
            if silent > i64::from(row.policy.rpo_threshold_seconds) * SECOND {
                Severity::Critical
            } else {
                Severity::Warning
            },
            "What the machine writes at the target is not protected",
            format!(
                "no recovery point was made of {name} at the target for {}{}",
                age(silent),
                trouble.map_or(String::new(), |why| format!(": {why}"))
            ),
            "the replica store is full or damaged, or the machine's disks cannot be read",
            "see the server's log; make room in the store".to_owned(),
        );
    }
    let troubles = live.heartbeat.iter().flat_map(|heartbeat| &heartbeat.troubles);
    for trouble in
        troubles.filter(|trouble| matches!(trouble.code.as_str(), "SplitBrain" | "FenceHookFailed"))
    {
        // Both sides with what they wrote last: a person has to choose.
        let message = match &live.last_good_point {
            Some(point) => format!(
                "{}; the machine at the target has a recovery point of {} ago",
                trouble.message,
                age(now - point.instant_unix_nanos)
            ),
            None => trouble.message.clone(),
        };
        add(
            known_code(&trouble.code),
            "Replication",
            Severity::Critical,
            "The fenced source is not still",
            message,
            &trouble.possible_causes,
            trouble.recommended_action.clone(),
        );
    }
}

pub fn replication_health(row: &ItemRow, live: &Live, now: i64) -> Health {
    let name = &row.item.name;
    let mut errors = Vec::new();
    let mut add = |code, category, severity, summary: &str, message: String, causes: &str, action: String| {
        errors.push(HealthError {
            code,
            category,
            severity,
            summary: summary.to_owned(),
            message,
            possible_causes: causes.to_owned(),
            recommended_action: action,
        });
    };
    for message in &live.damage {
        add(
            "ReplicaDamaged",
            "Replication",
            Severity::Critical,
            "Bytes of the replica are damaged",
            message.clone(),
            "bytes of the store were changed or lost beneath Lifeboat",
            "see which recovery points are hit: lifeboat store verify; then resynchronize".to_owned(),
        );
    }
    let away = row.item.runs_at_target();
    if (is_replicating(row) || away)
        && let Some(message) = &live.store_full
    {
        add(
            "StoreFull",
            "Infrastructure",
            Severity::Critical,
            "The store has no room",
            format!("replication of {name} waits: {message}"),
            "the file system of the store is full, or a quota is reached",
            "make room or enlarge the file system; replication goes on by itself".to_owned(),
        );
    }
    if away {
        line_errors(row, live, now, &mut add);
    }
    if is_replicating(row) {
        heartbeat_errors(row, live, now, &mut add);
        super::health_signs::sign_errors(row, live, now, &mut add);
        let protected = row.item.protection == ProtectionState::Protected;
        point_errors(row, live, now, protected, &mut add);
    }
    super::health_signs::test_failover_errors(row, now, &mut add);
    let word = if matches!(
        row.item.protection,
        ProtectionState::EnablingProtection
            | ProtectionState::DisablingProtection
            | ProtectionState::Unprotected
    ) && errors.is_empty()
    {
        "None"
    } else {
        match errors.iter().map(|error| error.severity).max() {
            Some(Severity::Critical) => "Critical",
            Some(Severity::Warning) => "Warning",
            _ => "Normal",
        }
    };
    Health { word, errors }
}

fn heartbeat_errors(
    row: &ItemRow,
    live: &Live,
    now: i64,
    add: &mut impl FnMut(&'static str, &'static str, Severity, &str, String, &str, String),
) {
    let name = &row.item.name;
    let last = live.heartbeat.as_ref().map(|heartbeat| heartbeat.at_unix_nanos);
    // Right after a start of the server nobody has had time to send one.
    let silent = now - last.unwrap_or(0).max(live.since_unix_nanos);
    if silent > NO_HEARTBEAT {
        add(
            "NoHeartbeat",
            "Infrastructure",
            if silent > NO_HEARTBEAT_CRITICAL {
                Severity::Critical
            } else {
                Severity::Warning
            },
            "No heartbeat from the agent",
            format!("the agent on {name} has been silent for {}", age(silent)),
            "the machine or its agent is down, or the network between it and this server is",
            "look at the machine; on it: lifeboat agent status".to_owned(),
        );
    }
    let Some(heartbeat) = &live.heartbeat else { return };
    let skew = heartbeat.clock_skew_nanos;
    if skew.abs() > SKEW {
        add(
            "ClockSkew",
            "Configuration",
            Severity::Warning,
            "The clocks differ",
            format!(
                "the clock of {name} is {} {} this server's",
                age(skew.abs()),
                if skew > 0 { "ahead of" } else { "behind" }
            ),
            "no time synchronisation on one of the two",
            "run an NTP client (chrony, systemd-timesyncd) on both".to_owned(),
        );
    }
    for disk in heartbeat
        .disks
        .iter()
        .filter(|disk| disk.state == "ResyncRequired")
    {
        add(
            "ResyncRequired",
            "Replication",
            Severity::Warning,
            "A disk must be compared with its replica",
            format!("a disk of {name} must be resynchronized: {}", disk.disk),
            "the tracking of its changes was interrupted",
            "it begins by itself; to begin at once, order resynchronize".to_owned(),
        );
    }
    for trouble in &heartbeat.troubles {
        add(
            known_code(&trouble.code),
            "Replication",
            if trouble.severity == "Critical" {
                Severity::Critical
            } else {
                Severity::Warning
            },
            &trouble.message,
            trouble.message.clone(),
            &trouble.possible_causes,
            trouble.recommended_action.clone(),
        );
    }
}

fn point_errors(
    row: &ItemRow,
    live: &Live,
    now: i64,
    protected: bool,
    add: &mut impl FnMut(&'static str, &'static str, Severity, &str, String, &str, String),
) {
    let name = &row.item.name;
    let slow = "more is written than the link or the target takes, the agent is down, or file systems cannot be frozen";
    let action = format!("see where it waits: lifeboat machine show {name}");
    let Some(point) = live.last_good_point.as_ref().filter(|_| protected) else {
        return;
    };
    let rpo = now - point.instant_unix_nanos;
    let threshold = i64::from(row.policy.rpo_threshold_seconds) * SECOND;
    if rpo > NO_POINT {
        add(
            "NoRecoveryPoint",
            "Replication",
            Severity::Critical,
            "No recovery point for 60 minutes",
            format!("the newest recovery point of {name} is {} old", age(rpo)),
            slow,
            action.clone(),
        );
    } else if rpo > threshold {
        add(
            "RpoExceeded",
            "Replication",
            Severity::Warning,
            "The RPO is above its threshold",
            format!(
                "the newest recovery point of {name} is {} old; the policy allows {}",
                age(rpo),
                age(threshold)
            ),
            slow,
            action.clone(),
        );
    }
    if rpo > threshold {
        let (hop, why) = super::stalled_hop(live, now, NO_HEARTBEAT);
        add(
            "ReplicationStalled",
            "Replication",
            Severity::Warning,
            &format!("Replication waits at the {}", hop.word()),
            format!("the data of {name} waits at the {}: {why}", hop.word()),
            slow,
            action,
        );
    }
    let frequency = i64::from(row.policy.app_consistent_seconds) * SECOND;
    if frequency > 0
        && let Some(app) = &live.last_app_consistent
        && now - app.instant_unix_nanos > frequency + APP_GRACE
    {
        add(
            "NoAppConsistentPoint",
            "Replication",
            Severity::Warning,
            "No app-consistent recovery point in time",
            format!(
                "the newest app-consistent recovery point of {name} is {} old",
                age(now - app.instant_unix_nanos)
            ),
            "the hooks in /etc/lifeboat/quiesce.d fail or take too long, were taken away, or the agent is down",
            "on the machine: lifeboat agent quiesce test".to_owned(),
        );
    }
}

/// Codes of health errors are static; an agent's own word is mapped, so that it cannot fill the log with new ones.
fn known_code(code: &str) -> &'static str {
    const KNOWN: [&str; 13] = [
        "AppConsistencyFailed",
        "ApplicationsHeld",
        "CertificateRenewal",
        "ClockSkew",
        "Disconnected",
        "DiskFailed",
        "DiskMissing",
        "DiskSizeChanged",
        "FenceHookFailed",
        "Fenced",
        "PointSkipped",
        "Refused",
        "SplitBrain",
    ];
    KNOWN
        .into_iter()
        .find(|known| *known == code)
        .unwrap_or("AgentTrouble")
}
