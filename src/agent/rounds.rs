//! Rounds of a replication group: one instant at which the disks of all its machines stand still.
//!
//! ```text
//! server   Prepare            Freeze          Thaw(instant)          Shared | Abort
//! agent           Prepared           Frozen            (thaw) Held
//! ```
//! The server says Thaw when all members said Frozen, so at that instant all stand still, and what each of them reads
//! between its freeze and its thaw is the state of that instant. Whether the freeze lasted is known after the thaw only
//! (the guard may have ended it): Held says that it did. A word that does not come in time, and a link that breaks, end the round:
//! the guard's deadline holds whatever the server does, and the point that was made is this machine's own.
//!
//! Two sides: a task that owns the stream, and the thread that makes points. The thread allocates nothing here while it waits
//! frozen; the task sends its few bytes meanwhile, and should that need memory that is not to be had, the deadline thaws.
use super::identity::Identity;
use super::orders::OrderBook;
use crate::block::GroupPointId;
use crate::replica::SharedMark;
use crate::wire::proto::control_client::ControlClient;
use crate::wire::proto::{RoundOrder, RoundReport, RoundState, RoundWord};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

/// Reports under way; a round makes four.
const REPORTS_MAX: usize = 8;
const LOOK: Duration = Duration::from_secs(1);
/// Whatever the server asks for.
const LIMIT_MAX: Duration = Duration::from_secs(600);

#[derive(Clone, Default)]
pub struct Rounds(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
    /// Something is to be sent.
    said: Notify,
}

#[derive(Default)]
struct State {
    /// A round that nobody has taken up.
    called: Option<Call>,
    /// The one under way.
    round: Option<GroupPointId>,
    word: Option<Word>,
    reports: VecDeque<(GroupPointId, RoundState)>,
    /// Of the last failure.
    message: String,
}

#[derive(Clone, Copy, Debug)]
struct Call {
    id: GroupPointId,
    app_consistent: bool,
    end: Instant,
}

#[derive(Clone, Copy, Debug)]
enum Word {
    Freeze { end: Instant },
    Thaw { instant: i64, end: Instant },
    Shared { members: u32 },
    Over,
}

/// What the thread that makes points does in a round.
pub struct Round {
    rounds: Rounds,
    id: GroupPointId,
    pub app_consistent: bool,
    end: Instant,
    is_over: bool,
}

impl Rounds {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_called(&self) -> bool {
        self.state().called.is_some()
    }

    /// The round that waits to be taken up.
    pub fn take(&self) -> Option<Round> {
        let mut state = self.state();
        let call = state.called.take()?;
        if call.end <= Instant::now() {
            return None;
        }
        state.round = Some(call.id);
        state.word = None;
        Some(Round {
            rounds: self.clone(),
            id: call.id,
            app_consistent: call.app_consistent,
            end: call.end,
            is_over: false,
        })
    }

    /// True: somebody is to take a round up.
    fn order(&self, order: &RoundOrder) -> bool {
        let Ok(id) = GroupPointId::from_slice(&order.round) else {
            return false;
        };
        let limit = Duration::from_millis(u64::from(order.limit_millis)).min(LIMIT_MAX);
        let end = Instant::now() + limit;
        let mut state = self.state();
        let word = match order.word() {
            RoundWord::RoundPrepare => {
                state.called = Some(Call {
                    id,
                    app_consistent: order.app_consistent,
                    end,
                });
                return true;
            }
            RoundWord::RoundFreeze => Word::Freeze { end },
            RoundWord::RoundThaw => Word::Thaw {
                instant: order.instant_unix_nanos,
                end,
            },
            RoundWord::RoundShared => Word::Shared {
                members: order.members,
            },
            RoundWord::RoundAbort => {
                state.called.take_if(|call| call.id == id);
                Word::Over
            }
            RoundWord::RoundNone => return false,
        };
        if state.round == Some(id) {
            state.word = Some(word);
            self.0.changed.notify_all();
        }
        false
    }

    /// The link to the server broke: nothing that it could still say counts.
    fn lost(&self) {
        let mut state = self.state();
        state.called = None;
        state.reports.clear();
        if state.round.is_some() {
            state.word = Some(Word::Over);
        }
        self.0.changed.notify_all();
    }

    async fn next_report(&self) -> RoundReport {
        loop {
            {
                let mut state = self.state();
                if let Some((id, word)) = state.reports.pop_front() {
                    let message = match word {
                        RoundState::RoundFailed => std::mem::take(&mut state.message),
                        _ => String::new(),
                    };
                    return RoundReport {
                        round: id.as_bytes().to_vec(),
                        state: word.into(),
                        message,
                    };
                }
            }
            self.0.said.notified().await;
        }
    }

    /// Owns the stream to the server while the machine is in a group.
    pub(super) async fn run(
        self,
        book: OrderBook,
        identities: watch::Receiver<Identity>,
        stop: CancellationToken,
    ) {
        // Room made beforehand: reports are queued while file systems are frozen.
        self.state().reports.reserve(REPORTS_MAX);
        let is_member = || book.now().is_some_and(|orders| orders.group_every.is_some());
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            if !is_member() {
                continue;
            }
            let Ok(channel) = identities.borrow().channel() else {
                continue;
            };
            let (reports, queue) = mpsc::channel(REPORTS_MAX);
            // The server answers the stream's first message.
            if reports.send(RoundReport::default()).await.is_err() {
                continue;
            }
            let opened = tokio::select! {
                () = stop.cancelled() => return,
                opened = async { ControlClient::new(channel).coordinate(ReceiverStream::new(queue)).await } => opened,
            };
            // Where it does not answer, the heartbeat says so.
            let Ok(opened) = opened else { continue };
            let mut orders = opened.into_inner();
            loop {
                tokio::select! {
                    () = stop.cancelled() => break,
                    order = orders.message() => match order {
                        Ok(Some(order)) => if self.order(&order) {
                            book.call();
                        },
                        _ => break,
                    },
                    report = self.next_report() => if reports.send(report).await.is_err() {
                        break;
                    },
                    () = tokio::time::sleep(LOOK) => if !is_member() {
                        break;
                    },
                }
            }
            self.lost();
        }
    }
}

impl Round {
    fn say(&self, word: RoundState) {
        let mut state = self.rounds.state();
        if state.reports.len() < REPORTS_MAX {
            state.reports.push_back((self.id, word));
        }
        drop(state);
        self.rounds.0.said.notify_one();
    }

    fn wait<T>(&self, end: Instant, wanted: impl Fn(Word) -> Option<T>) -> Option<T> {
        let mut state = self.rounds.state();
        loop {
            if state.round != Some(self.id) {
                return None;
            }
            match state.word {
                Some(Word::Over) => return None,
                Some(word) => {
                    if let Some(found) = wanted(word) {
                        return Some(found);
                    }
                }
                None => {}
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            state = self
                .rounds
                .0
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Neither over nor decided.
    pub fn is_open(&self) -> bool {
        !self.is_over
    }

    /// Everything is ready to be frozen: waits for the word. None: the round is over; else until when the freeze is to last at
    /// most.
    pub fn ready(&mut self) -> Option<Instant> {
        self.say(RoundState::RoundPrepared);
        let word = self.wait(self.end, |word| match word {
            Word::Freeze { end } => Some(end),
            _ => None,
        });
        self.is_over = word.is_none();
        word
    }

    pub fn frozen(&self) {
        self.say(RoundState::RoundFrozen);
    }

    /// Waits until all stand still: that instant. None: it does not come to that.
    pub fn all_still(&mut self, end: Instant) -> Option<i64> {
        let (instant, end) = self.wait(end, |word| match word {
            Word::Thaw { instant, end } => Some((instant, end)),
            _ => None,
        })?;
        self.end = end;
        Some(instant)
    }

    /// Nothing moved from the freeze to the thaw.
    pub fn held(&self) {
        self.say(RoundState::RoundHeld);
    }

    /// Waits for what became of it. Some: the others hold this instant too.
    pub fn verdict(&mut self) -> Option<SharedMark> {
        if self.is_over {
            return None;
        }
        self.is_over = true;
        let members = self.wait(self.end, |word| match word {
            Word::Shared { members } => Some(members),
            _ => None,
        })?;
        Some(SharedMark { id: self.id, members })
    }

    /// This machine cannot go on with it.
    pub fn fail(&mut self, why: &str) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        self.rounds.state().message = why.chars().take(500).collect();
        self.say(RoundState::RoundFailed);
    }
}

impl Drop for Round {
    fn drop(&mut self) {
        self.fail("the machine gave the round up");
        let mut state = self.rounds.state();
        if state.round == Some(self.id) {
            state.round = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(round: GroupPointId, word: RoundWord) -> RoundOrder {
        RoundOrder {
            round: round.as_bytes().to_vec(),
            word: word.into(),
            app_consistent: false,
            limit_millis: 5000,
            instant_unix_nanos: 7,
            members: 3,
        }
    }

    fn said(rounds: &Rounds) -> Vec<RoundState> {
        rounds.state().reports.drain(..).map(|(_, word)| word).collect()
    }

    #[test]
    fn a_round_goes_word_by_word() {
        let rounds = Rounds::default();
        assert!(rounds.take().is_none());
        let id = GroupPointId::new();
        assert!(rounds.order(&order(id, RoundWord::RoundPrepare)));
        let mut round = rounds.take().unwrap();
        assert!(rounds.take().is_none(), "taken once");
        // Words of another round are nothing to this one.
        rounds.order(&order(GroupPointId::new(), RoundWord::RoundAbort));
        rounds.order(&order(id, RoundWord::RoundFreeze));
        let end = round.ready().unwrap();
        round.frozen();
        rounds.order(&order(id, RoundWord::RoundThaw));
        assert_eq!(round.all_still(end), Some(7));
        round.held();
        rounds.order(&order(id, RoundWord::RoundShared));
        let mark = round.verdict().unwrap();
        assert_eq!((mark.id, mark.members), (id, 3));
        drop(round);
        assert_eq!(
            said(&rounds),
            [
                RoundState::RoundPrepared,
                RoundState::RoundFrozen,
                RoundState::RoundHeld
            ]
        );
    }

    #[test]
    fn a_round_that_is_given_up_or_cut_off_shares_nothing() {
        let rounds = Rounds::default();
        let begin = |rounds: &Rounds| {
            let id = GroupPointId::new();
            rounds.order(&order(id, RoundWord::RoundPrepare));
            (id, rounds.take().unwrap())
        };
        let (id, mut round) = begin(&rounds);
        rounds.order(&order(id, RoundWord::RoundAbort));
        assert!(round.ready().is_none() && round.verdict().is_none());
        drop(round);
        let (id, mut round) = begin(&rounds);
        rounds.order(&order(id, RoundWord::RoundFreeze));
        let end = round.ready().unwrap();
        rounds.lost();
        assert!(round.all_still(end).is_none() && round.verdict().is_none());
        drop(round);
        // A new one supersedes an old one that nobody took up; one that is too late is none.
        let mut late = order(GroupPointId::new(), RoundWord::RoundPrepare);
        late.limit_millis = 0;
        rounds.order(&late);
        assert!(rounds.take().is_none());
        // Dropped without a word, as after an error: the server hears of it.
        said(&rounds);
        drop(begin(&rounds));
        assert_eq!(said(&rounds), [RoundState::RoundFailed]);
    }
}
