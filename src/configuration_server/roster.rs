//! Who is there: when each agent was heard last, which point of it was sealed last. In memory; a restarted server hears
//! everybody again within a heartbeat.
use super::control::admit_certificate;
use crate::block::{Consistency, MachineId, PointId};
use crate::process_server::{Admission, Admitted, AdmittedDisk, RetentionOf, Sessions};
use crate::recovery::Source;
use crate::replica::{Retention, Store};
use crate::rt::{Fact, Report, now_unix_nanos};
use crate::vault::Vault;
use crate::wire::Refused;
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub struct Roster {
    vault: Vault,
    store: Store,
    sessions: Sessions,
    heartbeat: Duration,
    known: Mutex<HashMap<MachineId, Known>>,
    sealed: Condvar,
}

#[derive(Default)]
struct Known {
    heard: Option<Instant>,
    has_inventory: bool,
    last_point_unix_nanos: i64,
    /// At least crash-consistent.
    last_good_point_unix_nanos: i64,
    last_sealed: Option<Sealed>,
}

/// The point that a machine sealed last.
#[derive(Clone, Debug)]
pub(super) struct Sealed {
    pub point: PointId,
    pub consistency: Consistency,
    pub note: String,
    /// The last order for a point that the agent knew when it began this one.
    pub sync_request: u64,
}

impl Roster {
    pub fn new(vault: Vault, store: Store, sessions: Sessions, heartbeat: Duration) -> Arc<Self> {
        Arc::new(Self {
            vault,
            store,
            sessions,
            heartbeat,
            known: Mutex::default(),
            sealed: Condvar::new(),
        })
    }

    fn known(&self) -> MutexGuard<'_, HashMap<MachineId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the inventory is still wanted.
    pub(super) fn heard(&self, machine: MachineId, with_inventory: bool) -> bool {
        let mut known = self.known();
        let entry = known.entry(machine).or_default();
        entry.heard = Some(Instant::now());
        entry.has_inventory |= with_inventory;
        !entry.has_inventory
    }

    /// Whether a point of the machine was sealed after this instant.
    pub(super) fn has_point_since(&self, machine: MachineId, unix_nanos: i64) -> bool {
        self.known()
            .get(&machine)
            .is_some_and(|known| known.last_good_point_unix_nanos > unix_nanos)
    }

    pub(super) fn last_sealed(&self, machine: MachineId) -> Option<Sealed> {
        self.known().get(&machine)?.last_sealed.clone()
    }

    /// Locks a machine out: its certificates are revoked and its session ended.
    pub fn revoke(&self, machine: MachineId) -> Result<(), crate::vault::VaultError> {
        self.vault.revoke(machine, None)?;
        self.sessions.end(machine);
        Ok(())
    }
}

impl Report for Roster {
    fn report(&self, fact: Fact) {
        if let Fact::PointSealed {
            machine,
            point,
            instant_unix_nanos,
            consistency,
            note,
            sync_request,
            ..
        } = &fact
        {
            let mut known = self.known();
            let entry = known.entry(*machine).or_default();
            entry.last_point_unix_nanos = *instant_unix_nanos;
            if *consistency > Consistency::Fuzzy {
                entry.last_good_point_unix_nanos = *instant_unix_nanos;
            }
            entry.last_sealed = Some(Sealed {
                point: *point,
                consistency: *consistency,
                note: note.clone(),
                sync_request: *sync_request,
            });
            drop(known);
            self.sealed.notify_all();
        }
        self.vault.report(fact);
    }
}

impl RetentionOf for Roster {
    fn retention(&self, machine: MachineId) -> Option<Retention> {
        let policy = self.vault.policy_of(machine).ok()?;
        Some(Retention::hours(policy.retention_hours))
    }
}

impl Admission for Roster {
    fn authenticate(&self, machine: MachineId, serial: &str) -> Result<(), Refused> {
        admit_certificate(&self.vault, machine, serial)
    }

    fn admit(&self, machine: MachineId, generation: u64) -> Result<Admitted, Refused> {
        let no = |code, message: String, causes, action| Err(Refused::new(code, message, causes, action));
        let Ok(desired) = self.vault.desired(machine) else {
            return no(
                "UnknownMachine",
                format!("machine {machine} is not in the vault"),
                "it was removed",
                "join it again: lifeboat agent join",
            );
        };
        if let Some(reason) = desired.fenced {
            return no(
                "Fenced",
                reason,
                "the machine was failed over and runs at the target site",
                "keep this machine's workload down; reprotect it from the target site",
            );
        }
        if !desired.protect || desired.generation != generation {
            return no(
                "OldOrders",
                format!(
                    "the agent works in generation {generation}, the server is at {}",
                    desired.generation
                ),
                "the orders changed since the agent's last heartbeat",
                "nothing: the agent gets new orders with its next heartbeat",
            );
        }
        Ok(Admitted {
            name: self
                .vault
                .machine(machine)
                .map(|row| row.name)
                .unwrap_or_else(|_| machine.to_string()),
            generation,
            disks: desired
                .disks
                .into_iter()
                .map(|disk| AdmittedDisk {
                    id: disk.id,
                    name: disk.stable_id,
                    size_bytes: disk.size_bytes,
                })
                .collect(),
        })
    }
}

impl Source for Roster {
    fn is_connected(&self, machine: MachineId) -> bool {
        // Three heartbeats may be lost or late before a machine counts as gone.
        let limit = self.heartbeat * 3 + Duration::from_secs(2);
        self.known()
            .get(&machine)
            .and_then(|known| known.heard)
            .is_some_and(|heard| heard.elapsed() < limit)
    }

    fn last_sync(&self, machine: MachineId, limit: Duration) -> Result<(), String> {
        let since = now_unix_nanos();
        self.vault
            .request_sync(machine)
            .map_err(|error| error.to_string())?;
        let end = Instant::now() + limit;
        let mut known = self.known();
        loop {
            if known
                .get(&machine)
                .is_some_and(|known| known.last_point_unix_nanos >= since)
            {
                return Ok(());
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!(
                    "the source made no recovery point within {} s",
                    limit.as_secs()
                ));
            }
            known = self
                .sealed
                .wait_timeout(known, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn fence(&self, machine: MachineId, generation: u64) {
        // In the store, so that an older writer loses even before its session notices.
        if let Err(error) = self.store.begin(machine, generation) {
            tracing::warn!(%machine, generation, %error, "the store could not be told of the new generation");
        }
        self.sessions.end(machine);
    }
}
