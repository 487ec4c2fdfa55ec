//! Which machine has a session open: one each, a newer one ends the older.
use crate::block::MachineId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

#[derive(Clone, Default)]
pub struct Sessions(Arc<Mutex<Open>>);

#[derive(Default)]
struct Open {
    next: u64,
    by_machine: HashMap<MachineId, (u64, CancellationToken)>,
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
        }
    }
}
