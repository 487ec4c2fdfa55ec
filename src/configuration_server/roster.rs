//! Who is there: when each agent was heard last, which point of it was sealed last. In memory; a restarted server hears
//! everybody again within a heartbeat.
use super::control::admit_certificate;
use crate::block::{Consistency, GroupPointId, MachineId, PointId};
use crate::process_server::{Admission, Admitted, AdmittedDisk, ReceiveReport, RetentionOf, Sessions};
use crate::recovery::{JobId, Source};
use crate::replica::{Retention, Store};
use crate::rt::{Fact, Report, now_unix_nanos};
use crate::vault::{HaltReport, Vault};
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
    groups: super::groups::Groups,
}

#[derive(Default)]
struct Known {
    heard: Option<Instant>,
    has_inventory: bool,
    last_point_unix_nanos: i64,
    /// At least crash-consistent.
    last_good_point_unix_nanos: i64,
    last_sealed: Option<Sealed>,
    /// Of a machine that is being brought home.
    receiver: Option<Receiver>,
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

/// What a receiver said last.
pub(super) struct Receiver {
    pub heard: Instant,
    /// Its disks hold this point whole.
    pub complete: Option<PointId>,
    /// They were compared with this point as a whole.
    pub verified: Option<PointId>,
    /// Of what it does now.
    pub done_bytes: u64,
    pub total_bytes: u64,
    pub trouble: Option<String>,
}

/// How soon a word of the agent is noticed.
const HALT_LOOK: Duration = Duration::from_millis(100);
/// Receivers report every few seconds.
const RECEIVER_SILENCE: Duration = Duration::from_secs(30);
/// Where the policy cannot be read.
const DEFAULT_INTERVAL_SECONDS: u32 = 30;

impl Roster {
    pub fn new(vault: Vault, store: Store, sessions: Sessions, heartbeat: Duration) -> Arc<Self> {
        Arc::new(Self {
            vault,
            store,
            sessions,
            heartbeat,
            known: Mutex::default(),
            sealed: Condvar::new(),
            groups: super::groups::Groups::default(),
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

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn groups(&self) -> &super::groups::Groups {
        &self.groups
    }

    pub(super) fn last_sealed(&self, machine: MachineId) -> Option<Sealed> {
        self.known().get(&machine)?.last_sealed.clone()
    }

    /// What the receiver of a machine says of itself.
    pub(super) fn received(&self, machine: MachineId, report: ReceiveReport) {
        let receiver = Receiver {
            heard: Instant::now(),
            complete: report.holds(),
            verified: report.verified,
            done_bytes: report.done_bytes(),
            total_bytes: report.total_bytes(),
            trouble: report
                .trouble
                .filter(|trouble| trouble.severity == "Critical")
                .map(|trouble| trouble.message),
        };
        self.known().entry(machine).or_default().receiver = Some(receiver);
        self.sealed.notify_all();
    }

    /// Whether the receiver of a machine holds a point whole; else what is done of its copy, and of how much.
    pub(super) fn is_received(&self, machine: MachineId) -> Result<(), (u64, u64)> {
        match self
            .known()
            .get(&machine)
            .and_then(|known| known.receiver.as_ref())
        {
            Some(Receiver {
                complete: Some(_), ..
            }) => Ok(()),
            Some(receiver) => Err((receiver.done_bytes, receiver.total_bytes)),
            None => Err((0, 0)),
        }
    }

    /// The way home begins anew: what an earlier receiver said counts no more.
    pub(super) fn forget_receiver(&self, machine: MachineId) {
        if let Some(known) = self.known().get_mut(&machine) {
            known.receiver = None;
        }
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
        // Kept until a person or their date says otherwise.
        if self.vault.item_row(machine).ok()?.item.kept_points.is_some() {
            return None;
        }
        Some(Retention::hours(policy.retention_hours))
    }
}

impl Admission for Roster {
    fn authenticate(&self, machine: MachineId, serial: &str) -> Result<(), Refused> {
        admit_certificate(&self.vault, machine, serial)
    }

    fn shared_by(&self, machine: MachineId, instant: GroupPointId) -> Option<u32> {
        self.groups.shared_by(machine, instant)
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

    fn halt(&self, machine: MachineId, job: JobId, limit: Duration) -> Result<PointId, String> {
        let end = Instant::now() + limit;
        loop {
            let report = self
                .vault
                .live(machine)
                .heartbeat
                .and_then(|heartbeat| heartbeat.halt);
            match report.filter(|report| report.job == job) {
                Some(HaltReport {
                    point: Some(point), ..
                }) => return Ok(point),
                Some(HaltReport {
                    error: Some(error), ..
                }) => return Err(error),
                _ => {}
            }
            if !self.is_connected(machine) {
                return Err("the agent is not heard any more".to_owned());
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!(
                    "the source did not come to rest within {} s",
                    limit.as_secs()
                ));
            }
            // Woken by each sealed point; a heartbeat with a word of it follows one.
            drop(self.sealed.wait_timeout(self.known(), left.min(HALT_LOOK)));
        }
    }

    fn stayed_at_rest(&self, machine: MachineId, job: JobId, point: PointId, limit: Duration) -> bool {
        let (begin, end) = (now_unix_nanos(), Instant::now() + limit);
        loop {
            // One that was sent after the fence.
            if let Some(heartbeat) = self.vault.live(machine).heartbeat
                && heartbeat.at_unix_nanos > begin
            {
                return heartbeat
                    .halt
                    .is_some_and(|halt| halt.job == job && halt.point == Some(point));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            drop(self.sealed.wait_timeout(self.known(), left.min(HALT_LOOK)));
        }
    }

    fn point_interval(&self, machine: MachineId) -> Duration {
        let seconds = self
            .vault
            .policy_of(machine)
            .map_or(DEFAULT_INTERVAL_SECONDS, |policy| policy.crash_consistent_seconds);
        Duration::from_secs(u64::from(seconds.max(1)))
    }

    fn receiver_trouble(&self, machine: MachineId) -> Option<String> {
        let known = self.known();
        let receiver = known.get(&machine).and_then(|known| known.receiver.as_ref());
        let Some(receiver) = receiver else {
            return Some("the receiver has not been heard".to_owned());
        };
        if receiver.heard.elapsed() > RECEIVER_SILENCE {
            return Some(format!(
                "the receiver was last heard {} s ago",
                receiver.heard.elapsed().as_secs()
            ));
        }
        if let Some(trouble) = &receiver.trouble {
            return Some(trouble.clone());
        }
        if receiver.complete.is_none() {
            return Some("the receiver has not taken the disks yet".to_owned());
        }
        None
    }

    fn is_home(&self, machine: MachineId, point: PointId) -> Result<bool, String> {
        let known = self.known();
        let receiver = known.get(&machine).and_then(|known| known.receiver.as_ref());
        // One that is silent comes back and goes on; a person who does not want to wait cancels.
        match receiver {
            Some(receiver) if receiver.verified == Some(point) => Ok(true),
            Some(Receiver {
                trouble: Some(trouble),
                ..
            }) => Err(trouble.clone()),
            _ => Ok(false),
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
