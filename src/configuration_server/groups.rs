//! Shared points: rounds in which all machines of a replication group stand still at one instant.
//!
//! ```text
//! Prepare -> all Prepared -> Freeze -> all Frozen -> Thaw(now) -> all Held -> Shared
//!       `------------- one fails, is late or is cut off: Abort to all, no shared point ------'
//! ```
//! The instant is taken when the last member said Frozen, so all stand still at it. A member says Held when its freeze
//! lasted until it had the word: only then the point is shared. The state of a round is in memory: a server that dies in one leaves
//! members that thaw by their own deadline and seal points of their own.
use super::roster::Roster;
use crate::block::{Consistency, GroupPointId, MachineId};
use crate::recovery::{ActiveLocation, Journal, ProtectionState};
use crate::rt::now_unix_nanos;
use crate::vault::{GroupRow, SharedInstant, Vault};
use crate::wire::proto::{RoundOrder, RoundReport, RoundState, RoundWord};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Copying what changed until little is left. Members prepare beside each other.
const PREPARE_LIMIT: Duration = Duration::from_secs(60);
/// The same with hooks, each of which has its own limit on the machine.
const PREPARE_APP_LIMIT: Duration = Duration::from_secs(180);
/// From the order to freeze until all stand still. The guards' deadline is 2 s.
const FREEZE_LIMIT: Duration = Duration::from_millis(1500);
/// From the order to thaw until all have said that nothing moved.
const THAW_LIMIT: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(250);
/// Instants whose points may still be sealed.
const INSTANTS_KEPT: usize = 4096;
const REPORTS_MAX: usize = 64;
/// After a round that failed, before the next.
const RETRY_MIN: Duration = Duration::from_secs(5);
/// After an app-consistent round that came to less.
const APP_RETRY_NANOS: i64 = 300 * 1_000_000_000;

pub type Orders = mpsc::Sender<Result<RoundOrder, Status>>;

#[derive(Default)]
struct State {
    /// Streams of members, with the number of each.
    members: HashMap<MachineId, (u64, Orders)>,
    streams: u64,
    rounds: HashMap<GroupPointId, mpsc::Sender<(MachineId, RoundReport)>>,
    /// Which machines share an instant, the newest last.
    instants: VecDeque<(GroupPointId, Vec<MachineId>)>,
}

#[derive(Default)]
pub struct Groups(Mutex<State>);

impl Groups {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A member's stream is open; its number.
    pub(super) fn opened(&self, machine: MachineId, orders: Orders) -> u64 {
        let mut state = self.state();
        state.streams += 1;
        let number = state.streams;
        state.members.insert(machine, (number, orders));
        number
    }

    /// A round under way hears of it by the missing answer at the latest.
    pub(super) fn closed(&self, machine: MachineId, number: u64) {
        let mut state = self.state();
        if state
            .members
            .get(&machine)
            .is_some_and(|(open, _)| *open == number)
        {
            state.members.remove(&machine);
        }
        let rounds: Vec<_> = state.rounds.values().cloned().collect();
        drop(state);
        let report = RoundReport {
            round: Vec::new(),
            state: RoundState::RoundFailed.into(),
            message: "the link to the agent broke".to_owned(),
        };
        for round in rounds {
            let _ = round.try_send((machine, report.clone()));
        }
    }

    pub(super) fn said(&self, machine: MachineId, report: RoundReport) {
        let Ok(id) = GroupPointId::from_slice(&report.round) else {
            return;
        };
        let round = self.state().rounds.get(&id).cloned();
        if let Some(round) = round {
            // A member that says more than it should is not worth waiting for.
            let _ = round.try_send((machine, report));
        }
    }

    fn orders_of(&self, machine: MachineId) -> Option<Orders> {
        self.state()
            .members
            .get(&machine)
            .map(|(_, orders)| orders.clone())
    }

    fn remember(&self, id: GroupPointId, machines: Vec<MachineId>) {
        let mut state = self.state();
        if state.instants.len() == INSTANTS_KEPT {
            state.instants.pop_front();
        }
        state.instants.push_back((id, machines));
    }

    /// How many machines share the instant, when this one is among them.
    pub(super) fn shared_by(&self, machine: MachineId, id: GroupPointId) -> Option<u32> {
        let state = self.state();
        let (_, machines) = state.instants.iter().rev().find(|(known, _)| *known == id)?;
        machines
            .contains(&machine)
            .then_some(u32::try_from(machines.len()).unwrap_or(u32::MAX))
    }
}

/// Runs the rounds of all groups until `stop`.
pub async fn run(roster: Arc<Roster>, vault: Vault, stop: CancellationToken) {
    let mut due: HashMap<i64, Instant> = HashMap::new();
    let mut running: HashMap<i64, tokio::task::JoinHandle<bool>> = HashMap::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(LOOK) => {}
        }
        let asked = vault.clone();
        let Ok(Ok(groups)) = tokio::task::spawn_blocking(move || asked.all_groups()).await else {
            continue;
        };
        due.retain(|id, _| groups.iter().any(|group| group.id == *id));
        for group in groups {
            let every = Duration::from_secs(u64::from(group.share_seconds));
            if let Some(round) = running.get(&group.id) {
                if !round.is_finished() {
                    continue;
                }
                if let Some(round) = running.remove(&group.id)
                    && let Ok(false) = round.await
                {
                    // Not at once: what failed fails again, and each try freezes nothing but costs copies.
                    due.insert(group.id, Instant::now() + every.min(RETRY_MIN));
                }
            }
            if due.get(&group.id).is_some_and(|due| Instant::now() < *due) {
                continue;
            }
            due.insert(group.id, Instant::now() + every);
            let (roster, vault, id) = (roster.clone(), vault.clone(), group.id);
            running.insert(
                id,
                tokio::spawn(async move { Round::new(roster, vault, group).run().await }),
            );
        }
    }
    for (_, round) in running {
        round.abort();
    }
}

struct Round {
    roster: Arc<Roster>,
    vault: Vault,
    group: GroupRow,
    id: GroupPointId,
    app_consistent: bool,
}

/// Why there is no shared point, by member.
type Troubles = BTreeMap<MachineId, String>;

impl Round {
    fn new(roster: Arc<Roster>, vault: Vault, group: GroupRow) -> Self {
        Self {
            roster,
            vault,
            group,
            id: GroupPointId::new(),
            app_consistent: false,
        }
    }

    /// The newest instant at which the applications of all were at rest, as the store has it: whether a round came to that
    /// shows only when the points are sealed.
    fn last_app_consistent(&self) -> Option<SharedInstant> {
        let (machine, _) = self.group.members.first()?;
        let shared = self.roster.store().shared_points();
        let points = self.roster.store().points(*machine).ok()?;
        points
            .iter()
            .filter_map(|point| Some((point.shared?.id, point.instant_unix_nanos)))
            .filter(|(id, _)| shared.get(id) == Some(&Consistency::AppConsistent))
            .map(|(id, unix_nanos)| SharedInstant { id, unix_nanos })
            .max_by_key(|instant| instant.unix_nanos)
    }

    fn is_app_due(&self) -> bool {
        let every = i64::from(self.group.app_consistent_seconds) * 1_000_000_000;
        if every == 0 {
            return false;
        }
        let (now, last) = (now_unix_nanos(), self.last_app_consistent());
        let mut tried = None;
        self.vault.with_group_live(&self.group, |live| {
            live.last_app_consistent = last;
            tried = live.app_tried;
        });
        last.is_none_or(|last| now - last.unix_nanos >= every)
            && tried.is_none_or(|tried| now - tried >= APP_RETRY_NANOS)
    }

    fn groups(&self) -> &Groups {
        self.roster.groups()
    }

    fn members(&self) -> impl Iterator<Item = MachineId> + '_ {
        self.group.members.iter().map(|(machine, _)| *machine)
    }

    fn order(&self, word: RoundWord, limit: Duration) -> RoundOrder {
        RoundOrder {
            round: self.id.as_bytes().to_vec(),
            word: word.into(),
            app_consistent: self.app_consistent,
            limit_millis: u32::try_from(limit.as_millis()).unwrap_or(u32::MAX),
            instant_unix_nanos: 0,
            members: u32::try_from(self.group.members.len()).unwrap_or(u32::MAX),
        }
    }

    /// To all members; those that cannot be told.
    fn tell(&self, order: &RoundOrder) -> Troubles {
        let mut troubles = Troubles::new();
        for machine in self.members() {
            let told = self
                .groups()
                .orders_of(machine)
                .is_some_and(|orders| orders.try_send(Ok(order.clone())).is_ok());
            if !told {
                troubles.insert(machine, "the link to the agent broke".to_owned());
            }
        }
        troubles
    }

    /// Members that cannot take part now, each with the reason.
    fn absent(&self) -> Troubles {
        let mut troubles = Troubles::new();
        for machine in self.members() {
            let why = match Journal::item(&self.vault, machine) {
                Err(_) => Some("it is not replicated any more".to_owned()),
                Ok(item) if item.active_location != ActiveLocation::Primary => {
                    Some("it was failed over and runs at the target site".to_owned())
                }
                Ok(item) if item.protection != ProtectionState::Protected => {
                    Some(format!("its state is {:?}", item.protection))
                }
                Ok(_) => match self.groups().orders_of(machine) {
                    None => Some("its agent is not connected".to_owned()),
                    Some(_) => None,
                },
            };
            if let Some(why) = why {
                troubles.insert(machine, why);
            }
        }
        troubles
    }

    /// Waits until all members said this; else who did not, and why.
    async fn all(
        &self,
        reports: &mut mpsc::Receiver<(MachineId, RoundReport)>,
        wanted: RoundState,
        limit: Duration,
        late: &str,
    ) -> Result<(), Troubles> {
        let mut missing: Vec<MachineId> = self.members().collect();
        let end = tokio::time::Instant::now() + limit;
        while !missing.is_empty() {
            let Ok(Some((machine, report))) = tokio::time::timeout_at(end, reports.recv()).await else {
                let late = |machine| (machine, format!("{late} within {} s", limit.as_secs_f64()));
                return Err(missing.into_iter().map(late).collect());
            };
            if !self.members().any(|member| member == machine) {
                continue;
            }
            match report.state() {
                state if state == wanted => missing.retain(|member| *member != machine),
                RoundState::RoundFailed => {
                    let why: String = report
                        .message
                        .chars()
                        .filter(|c| !c.is_control())
                        .take(500)
                        .collect();
                    return Err(Troubles::from([(machine, why)]));
                }
                // A word that it said already.
                _ => {}
            }
        }
        Ok(())
    }

    async fn steps(
        &self,
        reports: &mut mpsc::Receiver<(MachineId, RoundReport)>,
    ) -> Result<(i64, Duration), Troubles> {
        let checked = |troubles: Troubles| {
            if troubles.is_empty() {
                Ok(())
            } else {
                Err(troubles)
            }
        };
        let limit = if self.app_consistent {
            PREPARE_APP_LIMIT
        } else {
            PREPARE_LIMIT
        };
        checked(self.tell(&self.order(RoundWord::RoundPrepare, limit)))?;
        self.all(reports, RoundState::RoundPrepared, limit, "it was not ready")
            .await?;
        let begin = Instant::now();
        checked(self.tell(&self.order(RoundWord::RoundFreeze, FREEZE_LIMIT)))?;
        self.all(
            reports,
            RoundState::RoundFrozen,
            FREEZE_LIMIT,
            "it did not stand still",
        )
        .await?;
        let instant = now_unix_nanos();
        let mut thaw = self.order(RoundWord::RoundThaw, THAW_LIMIT);
        thaw.instant_unix_nanos = instant;
        checked(self.tell(&thaw))?;
        self.all(
            reports,
            RoundState::RoundHeld,
            THAW_LIMIT,
            "it did not say that nothing moved",
        )
        .await?;
        Ok((instant, begin.elapsed()))
    }

    /// Whether it made a shared point.
    async fn run(mut self) -> bool {
        if self.group.members.len() < 2 {
            // A machine alone shares nothing; its own points are as good.
            self.vault.with_group_live(&self.group, |live| {
                live.failing_since = None;
                live.troubles.clear();
            });
            return true;
        }
        let looked = tokio::task::spawn_blocking(move || {
            self.app_consistent = self.is_app_due();
            (self.absent(), self)
        });
        let Ok((absent, this)) = looked.await else {
            return false;
        };
        let tried = absent.is_empty();
        let ended = if tried {
            let (sender, mut reports) = mpsc::channel(REPORTS_MAX);
            this.groups().state().rounds.insert(this.id, sender);
            let ended = this.steps(&mut reports).await;
            this.groups().state().rounds.remove(&this.id);
            ended
        } else {
            Err(absent)
        };
        match ended {
            Ok((instant, window)) => {
                // Before the word: a point that is sealed by it must be known.
                this.groups().remember(this.id, this.members().collect());
                this.tell(&this.order(RoundWord::RoundShared, Duration::ZERO));
                let shared = SharedInstant {
                    id: this.id,
                    unix_nanos: instant,
                };
                this.vault.with_group_live(&this.group, |live| {
                    live.rounds += 1;
                    live.shared += 1;
                    live.last_shared = Some(shared);
                    if this.app_consistent {
                        live.app_tried = Some(instant);
                    }
                    live.failing_since = None;
                    live.troubles.clear();
                    live.window(u32::try_from(window.as_micros()).unwrap_or(u32::MAX));
                });
                true
            }
            Err(troubles) => {
                this.tell(&this.order(RoundWord::RoundAbort, Duration::ZERO));
                this.vault.with_group_live(&this.group, |live| {
                    live.rounds += 1;
                    // Where nobody was asked, nothing was tried.
                    if this.app_consistent && tried {
                        live.app_tried = Some(now_unix_nanos());
                    }
                    live.failing_since.get_or_insert_with(now_unix_nanos);
                    // Each round finds the same, until somebody does something about it.
                    if live.troubles != troubles {
                        tracing::info!(group = %this.group.name, ?troubles, "no shared point");
                    }
                    live.troubles = troubles;
                });
                false
            }
        }
    }
}
