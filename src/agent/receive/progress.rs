//! How far the way home is: changed by the work, read by whoever shows or reports it.
use crate::block::{DiskId, PointId};
use crate::wire::ReceivePhase;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[derive(Clone, Debug)]
pub struct Now {
    /// None: there is no order yet.
    pub phase: Option<ReceivePhase>,
    /// The point that is aimed at.
    pub point: Option<PointId>,
    pub point_unix_nanos: i64,
    pub is_final: bool,
    pub disks: Vec<DiskNow>,
    pub verified: Option<PointId>,
    /// Stored bytes of frames that came over the network.
    pub received_bytes: u64,
    /// Of the last seconds: bytes done, compared or written.
    pub bytes_per_second: u64,
}

#[derive(Clone, Debug)]
pub struct DiskNow {
    pub id: DiskId,
    pub name: String,
    pub device: PathBuf,
    pub size_bytes: u64,
    /// Durably.
    pub holds: Option<PointId>,
    /// What its next step needs.
    pub keep: Vec<PointId>,
    pub done_bytes: u64,
    pub total_bytes: u64,
    /// Raw bytes written since the receiver began.
    pub copied_bytes: u64,
}

impl Now {
    pub fn done_bytes(&self) -> u64 {
        self.disks.iter().map(|disk| disk.done_bytes).sum()
    }

    pub fn total_bytes(&self) -> u64 {
        self.disks.iter().map(|disk| disk.total_bytes).sum()
    }

    pub fn copied_bytes(&self) -> u64 {
        self.disks.iter().map(|disk| disk.copied_bytes).sum()
    }

    /// Until the step under way has ended, at the pace of the last seconds.
    pub fn eta(&self) -> Option<Duration> {
        let left = self.total_bytes().saturating_sub(self.done_bytes());
        (left > 0 && self.bytes_per_second > 0).then(|| Duration::from_secs(left / self.bytes_per_second))
    }
}

/// Over how long the pace is measured.
const PACE: Duration = Duration::from_secs(5);

/// Changes of phase that nobody took are forgotten from here on, the oldest first.
const CHANGES_MAX: usize = 64;

pub struct Progress(Mutex<Inner>);

struct Inner {
    now: Now,
    pace: Pace,
    /// How it was at each change of phase.
    changes: VecDeque<Now>,
}

struct Pace {
    since: Instant,
    bytes: u64,
}

impl Progress {
    pub fn new(disks: Vec<DiskNow>) -> Self {
        let now = Now {
            phase: None,
            point: None,
            point_unix_nanos: 0,
            is_final: false,
            disks,
            verified: None,
            received_bytes: 0,
            bytes_per_second: 0,
        };
        let pace = Pace {
            since: Instant::now(),
            bytes: 0,
        };
        Self(Mutex::new(Inner {
            now,
            pace,
            changes: VecDeque::new(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn now(&self) -> Now {
        self.lock().now.clone()
    }

    /// How it was at each change of phase since the last call: a short phase is not missed.
    pub fn take_changes(&self) -> Vec<Now> {
        self.lock().changes.drain(..).collect()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Now)) {
        let mut locked = self.lock();
        let before = locked.now.phase;
        change(&mut locked.now);
        if locked.now.phase != before {
            let now = locked.now.clone();
            locked.changes.push_back(now);
            if locked.changes.len() > CHANGES_MAX {
                locked.changes.pop_front();
            }
        }
    }

    /// A step of a disk begins.
    pub(super) fn begin(&self, disk: usize, done_bytes: u64, total_bytes: u64) {
        let mut locked = self.lock();
        locked.pace = Pace {
            since: Instant::now(),
            bytes: 0,
        };
        locked.now.bytes_per_second = 0;
        if let Some(disk) = locked.now.disks.get_mut(disk) {
            (disk.done_bytes, disk.total_bytes) = (done_bytes, total_bytes);
        }
    }

    pub(super) fn done(&self, disk: usize, bytes: u64) {
        let mut locked = self.lock();
        let Inner { now, pace, .. } = &mut *locked;
        if let Some(disk) = now.disks.get_mut(disk) {
            disk.done_bytes = (disk.done_bytes + bytes).min(disk.total_bytes);
        }
        pace.bytes += bytes;
        let elapsed = pace.since.elapsed();
        if elapsed >= Duration::from_millis(200) {
            now.bytes_per_second = (pace.bytes as f64 / elapsed.as_secs_f64()) as u64;
        }
        if elapsed >= PACE {
            // Half of what was is kept, so that the pace does not begin anew.
            pace.since = Instant::now() - elapsed / 2;
            pace.bytes /= 2;
        }
    }
}
