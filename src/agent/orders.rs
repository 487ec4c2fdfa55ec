//! Desired state as last heard from the configuration server, and waking whoever works by it.
use super::clock::ServerClock;
use crate::block::DiskId;
use crate::wire::proto;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Orders {
    pub protect: bool,
    pub generation: u64,
    /// Id, stable id, bytes.
    pub disks: Vec<(DiskId, String, u64)>,
    pub every: Duration,
    /// From one app-consistent point to the next; None: off.
    pub app_every: Option<Duration>,
    pub resync_request: u64,
    /// Another one than before: somebody else wrote to the replica in between.
    pub line: u64,
    pub sync_request: u64,
    /// A replication group shares a point this often; None: the machine is in no group.
    pub group_every: Option<Duration>,
    /// The last of these orders that is for an app-consistent point.
    pub app_sync_request: u64,
    pub fenced: Option<String>,
    /// Bring the machine to rest for this job of the server, and keep it there.
    pub halt: Option<[u8; 16]>,
}

impl Orders {
    pub fn of_message(desired: proto::Desired) -> Self {
        Self {
            protect: desired.protect,
            generation: desired.generation,
            disks: desired
                .disks
                .into_iter()
                .filter_map(|disk| {
                    Some((
                        DiskId::from_slice(&disk.disk_id).ok()?,
                        disk.stable_id,
                        disk.size_bytes,
                    ))
                })
                .collect(),
            every: Duration::from_secs(u64::from(desired.crash_consistent_seconds.max(1))),
            app_every: (desired.app_consistent_seconds > 0)
                .then(|| Duration::from_secs(u64::from(desired.app_consistent_seconds))),
            resync_request: desired.resync_request,
            line: desired.line,
            sync_request: desired.sync_request,
            group_every: (desired.group_seconds > 0)
                .then(|| Duration::from_secs(u64::from(desired.group_seconds))),
            app_sync_request: desired.app_sync_request,
            fenced: desired.fenced.then_some(desired.fenced_reason),
            halt: desired.halt_job.as_slice().try_into().ok(),
        }
    }

    /// Whether work begun by `other` may go on.
    fn allows_what(&self, other: &Self) -> bool {
        self.protect == other.protect
            && self.generation == other.generation
            && self.disks == other.disks
            && self.fenced.is_some() == other.fenced.is_some()
    }
}

/// Shared by the heartbeat, which changes the orders, and the replication thread, which follows them.
#[derive(Clone, Default)]
pub struct OrderBook(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
    /// Ends what is under way: the orders changed under it, or the agent stops.
    cancel: Arc<AtomicBool>,
    clock: ServerClock,
}

#[derive(Default)]
struct State {
    orders: Option<Orders>,
    stopping: bool,
    /// A round of the replication group waits for whoever follows the orders.
    called: bool,
}

impl OrderBook {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn give(&self, orders: Orders) {
        let mut state = self.state();
        if state
            .orders
            .as_ref()
            .is_some_and(|before| !orders.allows_what(before))
        {
            self.0.cancel.store(true, Ordering::SeqCst);
        }
        state.orders = Some(orders);
        self.0.changed.notify_all();
    }

    pub fn stop(&self) {
        self.state().stopping = true;
        self.0.cancel.store(true, Ordering::SeqCst);
        self.0.changed.notify_all();
    }

    pub fn now(&self) -> Option<Orders> {
        self.state().orders.clone()
    }

    /// The flag that ends work under way.
    pub fn cancel(&self) -> Arc<AtomicBool> {
        self.0.cancel.clone()
    }

    /// Takes up the orders as they are: work that begins now is not cancelled by what was before. None: the agent stops.
    pub fn take_up(&self) -> Option<Orders> {
        let mut state = self.state();
        loop {
            if state.stopping {
                return None;
            }
            if let Some(orders) = &state.orders {
                self.0.cancel.store(false, Ordering::SeqCst);
                return Some(orders.clone());
            }
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until `end`, or until the orders satisfy `until`, or work is to end; whether it may go on.
    pub fn wait(&self, end: Instant, mut until: impl FnMut(&Orders) -> bool) -> bool {
        let mut state = self.state();
        loop {
            if state.stopping || self.0.cancel.load(Ordering::SeqCst) {
                return false;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || state.orders.as_ref().is_some_and(&mut until) {
                return true;
            }
            state = self
                .0
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Wakes whoever waits by [`wait_for_call`](Self::wait_for_call).
    pub fn call(&self) {
        self.state().called = true;
        self.0.changed.notify_all();
    }

    /// As [`wait`](Self::wait); also ends when it is called.
    pub fn wait_for_call(&self, end: Instant, mut until: impl FnMut(&Orders) -> bool) -> bool {
        let mut state = self.state();
        loop {
            if state.stopping || self.0.cancel.load(Ordering::SeqCst) {
                return false;
            }
            let left = end.saturating_duration_since(Instant::now());
            let called = std::mem::take(&mut state.called);
            if called || left.is_zero() || state.orders.as_ref().is_some_and(&mut until) {
                return true;
            }
            state = self
                .0
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits for orders other than these, at most to `end`.
    pub fn wait_for_change(&self, than: &Orders, end: Instant) {
        let mut state = self.state();
        while !state.stopping && state.orders.as_ref() == Some(than) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self
                .0
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// The server's clock as this host knows it.
    pub fn clock(&self) -> &ServerClock {
        &self.0.clock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_touches_work_under_way_ends_it() {
        let book = OrderBook::default();
        let orders = Orders {
            protect: true,
            generation: 1,
            ..Orders::default()
        };
        book.give(orders.clone());
        let cancel = book.cancel();
        assert_eq!(book.take_up(), Some(orders.clone()));
        book.give(Orders {
            sync_request: 1,
            every: Duration::from_secs(9),
            ..orders.clone()
        });
        assert!(!cancel.load(Ordering::SeqCst));
        assert!(book.wait(
            Instant::now() + Duration::from_secs(60),
            |orders| orders.sync_request == 1
        ));
        book.give(Orders {
            generation: 2,
            ..orders.clone()
        });
        assert!(cancel.load(Ordering::SeqCst));
        assert!(!book.wait(Instant::now() + Duration::from_secs(60), |_| false));
        assert!(book.take_up().is_some() && !cancel.load(Ordering::SeqCst));
        book.stop();
        assert_eq!(book.take_up(), None);
    }
}
