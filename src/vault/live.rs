//! What is known of a machine at this moment; lost with the process and made anew by heartbeats and facts.
use super::{Heartbeat, Vault};
use crate::block::{Consistency, DiskId, MachineId, PointId};
use std::collections::HashMap;

#[derive(Clone, Debug, PartialEq)]
pub struct PointMark {
    pub id: PointId,
    pub instant_unix_nanos: i64,
    pub consistency: Consistency,
}

#[derive(Clone, Debug, Default)]
pub struct Live {
    pub heartbeat: Option<Heartbeat>,
    /// Generation of the replication session that is open now.
    pub session: Option<u64>,
    /// Why the last session ended.
    pub session_ended: String,
    /// The store has no room for this machine.
    pub store_full: Option<String>,
    /// Why no point can be made of the machine at the target.
    pub line_trouble: Option<String>,
    /// Newest first, a few.
    pub damage: Vec<String>,
    pub last_point: Option<PointMark>,
    /// Newest that is better than fuzzy: what RPO counts from.
    pub last_good_point: Option<PointMark>,
    pub last_app_consistent: Option<PointMark>,
    /// Of the last point.
    pub freeze_micros: u32,
    /// Of the initial replication or of a comparison, smoothed over heartbeats.
    pub bytes_per_second: Option<f64>,
    /// Bytes per second that change, by disk.
    pub churn: HashMap<DiskId, Churn>,
    /// What moved and what did not.
    pub signs: super::Signs,
    /// The machine's replication group makes no shared points.
    pub group_trouble: Option<GroupTrouble>,
    /// When this process opened the vault: nobody has had time to send a heartbeat before that.
    pub since_unix_nanos: i64,
}

/// Why a replication group makes no shared points, as each of its members tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupTrouble {
    pub group: String,
    pub since_unix_nanos: i64,
    pub share_seconds: u32,
    pub why: String,
}

/// How fast a disk changes: what its agent shipped as changes, averaged with this weight on the last minutes. A point comes
/// every few seconds to minutes, and one that was late must not look like a storm.
#[derive(Clone, Copy, Debug, Default)]
pub struct Churn {
    sum: f64,
    weight: f64,
}

const CHURN_SECONDS: f64 = 300.0;

impl Churn {
    fn add(&mut self, bytes: u64, seconds: f64) {
        let keep = (-seconds / CHURN_SECONDS).exp();
        self.sum = self.sum * keep + bytes as f64;
        self.weight = self.weight * keep + seconds;
    }

    /// None: nothing is known yet.
    pub fn bytes_per_second(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }
}

const DAMAGE_KEPT: usize = 8;

impl Live {
    pub(super) fn point(&mut self, mark: PointMark) {
        let newer = |old: &Option<PointMark>| {
            old.as_ref()
                .is_none_or(|old| old.instant_unix_nanos <= mark.instant_unix_nanos)
        };
        if mark.consistency > Consistency::Fuzzy && newer(&self.last_good_point) {
            self.last_good_point = Some(mark.clone());
        }
        if mark.consistency == Consistency::AppConsistent && newer(&self.last_app_consistent) {
            self.last_app_consistent = Some(mark.clone());
        }
        if newer(&self.last_point) {
            self.last_point = Some(mark);
            // A sealed point holds every disk whole: what the last heartbeat said of a copy under way is over.
            for disk in self
                .heartbeat
                .iter_mut()
                .flat_map(|heartbeat| &mut heartbeat.disks)
            {
                disk.done_bytes = disk.total_bytes;
                disk.pending_bytes = 0;
                "Protected".clone_into(&mut disk.state);
            }
        }
    }

    /// Takes a heartbeat and reckons how fast a copy or comparison goes. Answers the bytes shipped since the one before.
    pub(super) fn beat(&mut self, heartbeat: Heartbeat) -> u64 {
        let mut shipped_bytes = 0;
        let done =
            |heartbeat: &Heartbeat| -> u64 { heartbeat.disks.iter().map(|disk| disk.done_bytes).sum() };
        if let Some(before) = &self.heartbeat {
            let seconds = (heartbeat.at_unix_nanos - before.at_unix_nanos) as f64 / 1e9;
            let (old, new) = (done(before), done(&heartbeat));
            self.bytes_per_second = if new < old {
                // Another copy began.
                None
            } else if seconds > 0.0 {
                let now = (new - old) as f64 / seconds;
                Some(self.bytes_per_second.map_or(now, |known| known * 0.7 + now * 0.3))
            } else {
                self.bytes_per_second
            };
            for disk in &heartbeat.disks {
                let old = before.disks.iter().find(|old| old.disk == disk.disk);
                let shipped = old.and_then(|old| disk.shipped_bytes.checked_sub(old.shipped_bytes));
                shipped_bytes += shipped.unwrap_or(disk.shipped_bytes);
                // Less than before: the agent was started anew and counts from there.
                if let Some(changed) = old.and_then(|old| disk.changed_bytes.checked_sub(old.changed_bytes))
                    && seconds > 0.0
                {
                    self.churn.entry(disk.disk).or_default().add(changed, seconds);
                }
            }
            self.churn
                .retain(|id, _| heartbeat.disks.iter().any(|disk| disk.disk == *id));
        }
        self.signs.beat(self.heartbeat.as_ref(), &heartbeat);
        self.heartbeat = Some(heartbeat);
        shipped_bytes
    }

    pub(super) fn damaged(&mut self, message: String) {
        self.damage.retain(|known| *known != message);
        self.damage.insert(0, message);
        self.damage.truncate(DAMAGE_KEPT);
    }
}

impl Vault {
    pub fn live(&self, machine: MachineId) -> Live {
        self.with_live(machine, |live| live.clone())
    }

    pub(super) fn with_live<T>(&self, machine: MachineId, action: impl FnOnce(&mut Live) -> T) -> T {
        let mut map = self.live_map();
        let live = map.entry(machine).or_insert_with(|| Live {
            since_unix_nanos: self.0.opened_unix_nanos,
            ..Live::default()
        });
        action(live)
    }

    /// Changed at the sources and not yet durable at the target, of all machines.
    pub fn pending_bytes(&self) -> u64 {
        let live = self.live_map();
        let beats = live.values().filter_map(|live| live.heartbeat.as_ref());
        beats
            .flat_map(|heartbeat| &heartbeat.disks)
            .map(|disk| disk.pending_bytes)
            .sum()
    }

    /// Tells the vault of points that were made before this process started.
    pub fn remember_points(&self, machine: MachineId, points: impl IntoIterator<Item = PointMark>) {
        self.with_live(machine, |live| {
            for point in points {
                live.point(point);
            }
        });
    }

    /// `points`: not what is known of its points.
    pub(super) fn forget_live(&self, machine: MachineId, points: bool) {
        if let Some(live) = self.live_map().get_mut(&machine) {
            *live = Live {
                last_good_point: live.last_good_point.take().filter(|_| points),
                last_app_consistent: live.last_app_consistent.take().filter(|_| points),
                heartbeat: live.heartbeat.take(),
                since_unix_nanos: live.since_unix_nanos,
                ..Live::default()
            };
        }
    }
}
