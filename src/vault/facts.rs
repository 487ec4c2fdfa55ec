//! Facts of the data plane: into live state at once, into the database by a thread of the vault.
//!
//! The thread also looks every few seconds at the health of each item and tells when an error came or went. Facts that do
//! not fit into its queue lose their event, never their effect on live state.
use super::{Health, NewEvent, PointMark, Severity, Shared, Vault, VaultError, events, items};
use crate::block::{Consistency, MachineId};
use crate::recovery::{Journal, ProtectionEvent, ProtectionState};
use crate::rt::{Fact, Report, now_unix_nanos};
use std::sync::Weak;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

pub(super) const QUEUED_FACTS_MAX: usize = 4096;
/// How often health is looked at; each look reads every item once.
const HEALTH_PERIOD: Duration = Duration::from_secs(5);
/// How often the history of churn is written.
const CHURN_PERIOD: Duration = Duration::from_secs(30);
/// Rows of `changes` that are kept: what a live view may have missed and still catch up with.
pub(super) const CHANGES_KEPT: i64 = 20_000;

pub(super) fn spawn(vault: &Vault, receiver: Receiver<Fact>) -> Result<(), VaultError> {
    let shared = std::sync::Arc::downgrade(&vault.0);
    std::thread::Builder::new()
        .name("vault-facts".to_owned())
        .spawn(move || run(&shared, &receiver))
        .map_err(|error| VaultError::Database(Box::new(error)))?;
    Ok(())
}

fn run(shared: &Weak<Shared>, receiver: &Receiver<Fact>) {
    let mut look = Instant::now() + HEALTH_PERIOD;
    let mut write_churn = Instant::now() + CHURN_PERIOD;
    loop {
        let fact = match receiver.recv_timeout(look.saturating_duration_since(Instant::now())) {
            Ok(fact) => Some(fact),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let Some(shared) = shared.upgrade() else { return };
        let vault = Vault(shared);
        if let Some(fact) = fact
            && let Err(error) = vault.keep(&fact)
        {
            tracing::warn!(?fact, ?error, "a fact was not kept");
        }
        if Instant::now() >= look {
            let now = now_unix_nanos();
            let looked = vault
                .tell_of_health(now)
                .and_then(|()| vault.sample_rpo(now))
                .and_then(|()| vault.forget_old_changes());
            if let Err(error) = looked {
                tracing::warn!(?error, "health was not looked at");
            }
            if Instant::now() >= write_churn {
                if let Err(error) = vault.write_churn(now / 1_000_000_000) {
                    tracing::warn!(?error, "the history of churn was not written");
                }
                write_churn = Instant::now() + CHURN_PERIOD;
            }
            look = Instant::now() + HEALTH_PERIOD;
        }
    }
}

/// Where the first good point leads, from the states that wait for it. A replication that was given up and shipped a point
/// all the same has begun again.
fn completed(state: ProtectionState) -> Option<ProtectionState> {
    let running = state
        .step(ProtectionEvent::InitialReplicationStarted)
        .unwrap_or(state);
    match state {
        ProtectionState::InitialReplicationInProgress | ProtectionState::InitialReplicationFailed => {
            running.step(ProtectionEvent::InitialReplicationCompleted).ok()
        }
        _ => None,
    }
}

impl Report for Vault {
    fn report(&self, fact: Fact) {
        self.take_live(&fact);
        let lasting = match &fact {
            Fact::PointSealed { consistency, .. } => *consistency > Consistency::Fuzzy,
            Fact::SessionOpened { .. } | Fact::SessionClosed { .. } | Fact::Thinned { .. } => false,
            Fact::StoreFull { .. }
            | Fact::StoreHasRoom { .. }
            | Fact::NoPointAtTarget { .. }
            | Fact::Damaged { .. } => true,
        };
        if lasting && self.0.facts.try_send(fact).is_err() {
            tracing::warn!("facts come faster than the database takes them");
        }
    }
}

impl Vault {
    fn take_live(&self, fact: &Fact) {
        match fact {
            Fact::SessionOpened { machine, generation } => {
                self.with_live(*machine, |live| live.session = Some(*generation));
            }
            Fact::SessionClosed { machine, reason } => self.with_live(*machine, |live| {
                live.session = None;
                live.session_ended.clone_from(reason);
            }),
            Fact::PointSealed {
                machine,
                point,
                instant_unix_nanos,
                consistency,
                freeze_micros,
                changed_bytes,
                stored_bytes,
                ..
            } => {
                let good = *consistency > Consistency::Fuzzy;
                let (before, good_before) = self.with_live(*machine, |live| {
                    // The first copy is no churn.
                    let is_delta = live.last_good_point.is_some();
                    let instant = |point: &PointMark| point.instant_unix_nanos;
                    let before = live.last_point.as_ref().map(instant);
                    let good_before = live.last_good_point.as_ref().map(instant);
                    live.freeze_micros = *freeze_micros;
                    // It is the proof: whoever met the trouble may be gone by now.
                    (live.store_full, live.line_trouble) = (None, None);
                    live.signs.froze(*instant_unix_nanos, *freeze_micros);
                    live.point(PointMark {
                        id: *point,
                        instant_unix_nanos: *instant_unix_nanos,
                        consistency: *consistency,
                    });
                    (before.filter(|_| is_delta), good_before)
                });
                let now = now_unix_nanos();
                if let Some(good_before) = good_before.filter(|_| good) {
                    // The RPO was never higher than just before this point.
                    self.measured(*machine, now, super::churn::Sum::of_rpo(now - good_before));
                }
                if let Some(before) = before {
                    let sum = super::churn::Sum {
                        changed_bytes: *changed_bytes,
                        stored_bytes: *stored_bytes,
                        points: 1,
                        freeze_micros_max: *freeze_micros,
                        ..super::churn::Sum::default()
                    };
                    let unix = |nanos: i64| nanos.div_euclid(1_000_000_000);
                    self.churned(*machine, unix(before), unix(*instant_unix_nanos), sum);
                }
            }
            Fact::StoreFull { machine, message } => {
                self.with_live(*machine, |live| live.store_full = Some(message.clone()));
            }
            Fact::StoreHasRoom { machine } => self.with_live(*machine, |live| live.store_full = None),
            Fact::NoPointAtTarget { machine, message } => {
                self.with_live(*machine, |live| live.line_trouble = Some(message.clone()));
            }
            Fact::Damaged { machine, message } => {
                self.with_live(*machine, |live| live.damaged(message.clone()));
            }
            Fact::Thinned { .. } => {}
        }
    }

    /// What of a fact outlives the process.
    pub(super) fn keep(&self, fact: &Fact) -> Result<(), VaultError> {
        match fact {
            Fact::PointSealed { machine, .. } => self.initial_replication_done(*machine),
            Fact::Damaged { machine, message } => self.write(|transaction| {
                let event = NewEvent {
                    severity: Severity::Critical,
                    code: "ReplicaDamaged".to_owned(),
                    machine: Some(*machine),
                    job: None,
                    message: message.clone(),
                    possible_causes: "bytes of the store were changed or lost beneath Lifeboat".to_owned(),
                    recommended_action: "see which recovery points are hit: lifeboat store verify".to_owned(),
                };
                // The health error of the same code is what alerts.
                events::insert_untold(transaction, events::vault_of(transaction, *machine)?, &event)
            }),
            _ => Ok(()),
        }
    }

    /// The first good point ends the initial replication.
    fn initial_replication_done(&self, machine: MachineId) -> Result<(), VaultError> {
        // Most points change nothing: look without the writer's lock first.
        match Journal::item(self, machine) {
            Ok(item) if completed(item.protection).is_some() => {}
            _ => return Ok(()),
        }
        self.write(|transaction| {
            let Some(row) = items::item(transaction, machine)? else {
                return Ok(());
            };
            let mut item = row.item;
            let Some(next) = completed(item.protection) else {
                return Ok(());
            };
            item.protection = next;
            items::put_item(transaction, &item).map_err(|error| VaultError::Database(Box::new(error)))
        })
    }

    /// Keeps `changes` short.
    pub(super) fn forget_old_changes(&self) -> Result<(), VaultError> {
        let count: i64 = self.read(|transaction| {
            Ok(
                transaction.query_row("SELECT ifnull(max(id) - min(id), 0) FROM changes", [], |row| {
                    row.get(0)
                })?,
            )
        })?;
        // Seldom, and then many at once.
        if count < 2 * CHANGES_KEPT {
            return Ok(());
        }
        self.write(|transaction| {
            transaction.execute(
                "DELETE FROM changes WHERE id <= (SELECT max(id) FROM changes) - ?1",
                [CHANGES_KEPT],
            )?;
            Ok(())
        })
    }

    /// Health of an item now.
    pub fn health(&self, row: &super::ItemRow) -> Health {
        super::replication_health(row, &self.live(row.item.machine), now_unix_nanos())
    }
}
