//! Which machine has a session open: one each, a newer one ends the older. And what of its bytes is under way.
use crate::block::{DiskId, MachineId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

#[derive(Clone, Default)]
pub struct Sessions(Arc<Mutex<Open>>);

#[derive(Default)]
struct Open {
    next: u64,
    by_machine: HashMap<MachineId, (u64, CancellationToken)>,
    backlog: HashMap<MachineId, HashMap<DiskId, Backlog>>,
    received_bytes: u64,
}

/// Stored bytes of a disk that have arrived and are not in a recovery point yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// In the process server's memory: not durable.
    pub held_bytes: u64,
    /// Durable at the target, and in no recovery point: the point that they belong to is not complete.
    pub unsealed_bytes: u64,
}

/// A session's place in the table; gives it up when dropped.
pub(super) struct Place {
    sessions: Sessions,
    machine: MachineId,
    number: u64,
    pub ended: CancellationToken,
}

impl Sessions {
    fn open(&self) -> std::sync::MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the machine's place; a session that holds it is ended.
    pub(super) fn take(&self, machine: MachineId) -> Place {
        let mut open = self.open();
        open.next += 1;
        let (number, ended) = (open.next, CancellationToken::new());
        if let Some((_, older)) = open.by_machine.insert(machine, (number, ended.clone())) {
            older.cancel();
        }
        Place {
            sessions: self.clone(),
            machine,
            number,
            ended,
        }
    }

    /// Ends the machine's session, if it has one. What it may write afterwards is decided by the store's generation.
    pub fn end(&self, machine: MachineId) {
        if let Some((_, token)) = self.open().by_machine.get(&machine) {
            token.cancel();
        }
    }

    /// Ends every session: the server stops.
    pub fn end_all(&self) {
        self.open()
            .by_machine
            .values()
            .for_each(|(_, token)| token.cancel());
    }

    pub fn is_open(&self, machine: MachineId) -> bool {
        self.open().by_machine.contains_key(&machine)
    }

    pub(super) fn received(&self, machine: MachineId, disk: DiskId, bytes: u64) {
        let mut open = self.open();
        open.received_bytes += bytes;
        let disks = open.backlog.entry(machine).or_default();
        disks.entry(disk).or_default().held_bytes += bytes;
    }

    pub(super) fn stored(&self, machine: MachineId, stored: impl IntoIterator<Item = (DiskId, u64)>) {
        let mut open = self.open();
        let disks = open.backlog.entry(machine).or_default();
        for (disk, bytes) in stored {
            let backlog = disks.entry(disk).or_default();
            backlog.held_bytes = backlog.held_bytes.saturating_sub(bytes);
            backlog.unsealed_bytes += bytes;
        }
    }

    pub(super) fn sealed(&self, machine: MachineId) {
        if let Some(disks) = self.open().backlog.get_mut(&machine) {
            disks.values_mut().for_each(|backlog| backlog.unsealed_bytes = 0);
        }
    }

    /// What is under way of a machine's disks.
    pub fn backlog(&self, machine: MachineId) -> HashMap<DiskId, Backlog> {
        self.open().backlog.get(&machine).cloned().unwrap_or_default()
    }

    /// Of all machines together.
    pub fn held_bytes(&self) -> u64 {
        let open = self.open();
        let disks = open.backlog.values().flat_map(HashMap::values);
        disks.map(|backlog| backlog.held_bytes).sum()
    }

    /// Since the process started.
    pub fn received_bytes(&self) -> u64 {
        self.open().received_bytes
    }

    pub fn count(&self) -> usize {
        self.open().by_machine.len()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.sessions.open();
        if open
            .by_machine
            .get(&self.machine)
            .is_some_and(|(number, _)| *number == self.number)
        {
            open.by_machine.remove(&self.machine);
            // What was not durable is gone with the session; its agent ships it again.
            if let Some(disks) = open.backlog.get_mut(&self.machine) {
                disks.values_mut().for_each(|backlog| backlog.held_bytes = 0);
            }
        }
    }
}
