//! What is known of a machine at this moment; lost with the process and made anew by heartbeats and facts.
use super::{Heartbeat, Vault};
use crate::block::{Consistency, MachineId, PointId};

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
    /// Newest first, a few.
    pub damage: Vec<String>,
    pub last_point: Option<PointMark>,
    /// Newest that is better than fuzzy: what RPO counts from.
    pub last_good_point: Option<PointMark>,
    pub last_app_consistent: Option<PointMark>,
    /// Of the last point.
    pub freeze_micros: u32,
    /// When this process opened the vault: nobody has had time to send a heartbeat before that.
    pub since_unix_nanos: i64,
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
        }
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

    /// Tells the vault of points that were made before this process started.
    pub fn remember_points(&self, machine: MachineId, points: impl IntoIterator<Item = PointMark>) {
        self.with_live(machine, |live| {
            for point in points {
                live.point(point);
            }
        });
    }

    pub(super) fn forget_live(&self, machine: MachineId) {
        if let Some(live) = self.live_map().get_mut(&machine) {
            *live = Live {
                heartbeat: live.heartbeat.take(),
                since_unix_nanos: live.since_unix_nanos,
                ..Live::default()
            };
        }
    }
}
