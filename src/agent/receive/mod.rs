//! The way home: makes this machine's disks equal to a recovery point of a failed-over machine, then to every newer one, at last
//! to the final one.
//!
//! The replica's way with the sites swapped: the target serves the blocks of points, the receiver drives. First everything is
//! compared, so that only what differs travels; then deltas follow the machine while it runs at the target. When it has stopped
//! there, the last delta is taken, every disk is read back whole, and only then may the machine start at home.
//!
//! Invariants: what the state file calls a disk's content is never better than the disk (written before a step's first byte, and
//! raised only behind an fsync); the server pins what a step needs before the step writes; nothing is written that was not
//! asked for. A receiver that is killed at any instant takes the same step up again, and a step done twice is done once.
mod client;
mod copy;
mod error;
mod plan;
mod progress;
mod reporter;
mod state;
mod target;

pub use client::{Client, Order, OrderedDisk};
pub use error::ReceiveError;
pub use plan::{Given, Plan, PlannedDisk};
pub use progress::{DiskNow, Now, Progress};
pub use target::TargetError;

use super::identity::Identity;
use super::join;
use crate::block::PointId;
use crate::rt::now_unix_nanos;
use crate::wire::{NOTHING_TO_RECEIVE, OLD_ORDERS, POINT_GONE, ReceivePhase, Refused};
use copy::{Fence, Job, Throttle};
use reporter::Reporter;
use state::{Content, Step};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// How long an order waits for a newer point before it is asked for again.
const ORDER_WAIT: Duration = Duration::from_secs(20);
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LAST: Duration = Duration::from_secs(5);
/// Between two questions whether there is something to receive.
const NOTHING_PERIOD: Duration = Duration::from_secs(2);
/// A certificate that cannot be renewed now is tried again after this time.
const RENEW_PERIOD: Duration = Duration::from_secs(600);

pub struct ReceiveSettings {
    pub state_dir: PathBuf,
    /// Name or id of the machine; empty: the one that the server means for this receiver.
    pub machine: String,
    /// Ends when the newest point is held and verified, although it is not the final one.
    pub once: bool,
    /// What the state file says is not believed: everything is compared.
    pub compare: bool,
    pub bytes_per_second: Option<u64>,
}

/// What a person is told beside the progress.
#[derive(Clone, Debug)]
pub enum Note {
    /// There is nothing to receive yet.
    Waiting(Refused),
    /// Tried again by itself.
    Retrying(Refused),
    /// A base point is not at the server any more: this disk is compared.
    BaseGone { disk: String, why: String },
    /// Every disk holds this point durably.
    Holds {
        point: PointId,
        unix_nanos: i64,
        is_final: bool,
        copied_bytes: u64,
        took: Duration,
    },
    /// Granules that were not as they had been written, and are now.
    Mended { disk: String, granules: u64 },
}

pub trait Observer: Sync {
    fn note(&self, note: &Note);
}

#[derive(Clone, Debug)]
pub struct Outcome {
    pub point: PointId,
    pub unix_nanos: i64,
    /// True: the machine may start at home.
    pub is_final: bool,
    pub copied_bytes: u64,
    pub received_bytes: u64,
    pub mended_granules: u64,
}

pub struct Receiver {
    settings: ReceiveSettings,
    identity: Identity,
    runtime: Handle,
    client: Client,
    stop: CancellationToken,
    renew_after: Instant,
}

impl Receiver {
    pub fn new(
        settings: ReceiveSettings,
        identity: Identity,
        runtime: Handle,
        stop: CancellationToken,
    ) -> Result<Self, ReceiveError> {
        let client = Client::new(&identity, runtime.clone(), stop.clone())?;
        Ok(Self {
            settings,
            identity,
            runtime,
            client,
            stop,
            renew_after: Instant::now(),
        })
    }

    /// Waits until there is something to receive.
    pub fn first_order(&mut self, observer: &dyn Observer) -> Result<Order, ReceiveError> {
        let mut retry = Retry::default();
        let mut was_told = None;
        loop {
            self.renew();
            match self.client.order(&self.settings.machine, None, Duration::ZERO) {
                Ok(order) => return Ok(order),
                Err(ReceiveError::Refused(refused)) if refused.code == NOTHING_TO_RECEIVE => {
                    if was_told.as_ref() != Some(&refused) {
                        observer.note(&Note::Waiting(refused.clone()));
                        was_told = Some(refused);
                    }
                    self.sleep(NOTHING_PERIOD)?;
                }
                Err(error @ ReceiveError::Disconnected(_)) => retry.pause(self, &error, observer)?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Which disk goes where; every disk is taken for the receiver alone.
    pub fn plan(&self, order: Order, given: &[Given]) -> Result<Plan, ReceiveError> {
        Plan::new(&self.settings, order, given, &self.identity.disks)
    }

    /// Follows until the final point is verified (or any, with `once`). Tells the server when it ends otherwise.
    pub fn run(
        mut self,
        mut plan: Plan,
        progress: &Arc<Progress>,
        observer: &dyn Observer,
    ) -> Result<Outcome, ReceiveError> {
        let fence = Arc::new(Fence::default());
        let reporter = Reporter::new(
            self.client.clone(),
            plan.order.key(),
            progress.clone(),
            fence.clone(),
        );
        let ended = CancellationToken::new();
        let background = {
            let (reporter, ended) = (reporter.clone(), ended.clone());
            std::thread::spawn(move || reporter.run(&ended))
        };
        let outcome = self.follow(&mut plan, progress, &reporter, &fence, observer);
        ended.cancel();
        // A report under way ends by its own limit; nothing depends on it.
        drop(background);
        if !outcome.as_ref().is_ok_and(|outcome| outcome.is_final) {
            progress.change(|now| now.phase = Some(ReceivePhase::Stopped));
            reporter.last(outcome.as_ref().err());
        }
        outcome
    }

    fn follow(
        &mut self,
        plan: &mut Plan,
        progress: &Arc<Progress>,
        reporter: &Reporter,
        fence: &Arc<Fence>,
        observer: &dyn Observer,
    ) -> Result<Outcome, ReceiveError> {
        let throttle = Throttle::new(self.settings.bytes_per_second);
        let (mut retry, mut known, mut has_followed) = (Retry::default(), None, false);
        let mut mended_granules = 0;
        // Fences a receiver whose every call is refused although its order is answered.
        let mut refused_once = false;
        let mut begin = Instant::now();
        let mut copied_before = 0;
        loop {
            if self.renew() {
                reporter.set_client(self.client.clone());
            }
            let wait = known.map_or(Duration::ZERO, |_| ORDER_WAIT);
            let name = plan.order.machine.to_string();
            let order = match self.client.order(&name, known, wait) {
                Ok(order) => order,
                Err(error @ ReceiveError::Disconnected(_)) => {
                    retry.pause(self, &error, observer)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            retry.is_answered();
            plan.renew_order(order)?;
            reporter.set_key(plan.order.key());
            let order = &plan.order;
            let (Some(point), is_final) = (order.point, order.is_final) else {
                self.sleep(NOTHING_PERIOD)?;
                continue;
            };
            if known == Some((point, is_final)) {
                self.sleep(RETRY_FIRST)?;
                continue;
            }
            let unix_nanos = order.point_unix_nanos;
            progress.change(|now| {
                (now.point, now.point_unix_nanos, now.is_final) = (Some(point), unix_nanos, is_final);
            });
            if known.is_some_and(|(held, _)| held != point) {
                (begin, known) = (Instant::now(), None);
                copied_before = progress.now().copied_bytes();
            }
            let work = Work {
                client: &self.client,
                stop: &self.stop,
                throttle: &throttle,
                fence,
                progress,
                reporter,
                observer,
                has_followed,
            };
            match work.bring(plan, point, is_final) {
                Ok(()) => (retry, refused_once) = (Retry::default(), false),
                Err(error @ ReceiveError::Disconnected(_)) => {
                    retry.pause(self, &error, observer)?;
                    continue;
                }
                Err(ReceiveError::Refused(refused)) if refused.code == OLD_ORDERS && !refused_once => {
                    // The server may have newer orders for this receiver; if not, the next question says so.
                    refused_once = true;
                    continue;
                }
                Err(error) => return Err(error),
            }
            observer.note(&Note::Holds {
                point,
                unix_nanos,
                is_final,
                copied_bytes: progress.now().copied_bytes() - copied_before,
                took: begin.elapsed(),
            });
            known = Some((point, is_final));
            has_followed = true;
            if is_final || self.settings.once {
                match work.prove(plan, point, is_final) {
                    Ok(mended) => mended_granules += mended,
                    Err(error @ ReceiveError::Disconnected(_)) => {
                        known = None;
                        retry.pause(self, &error, observer)?;
                        continue;
                    }
                    Err(ReceiveError::Refused(refused)) if refused.code == OLD_ORDERS && !refused_once => {
                        (known, refused_once) = (None, true);
                        continue;
                    }
                    Err(error) => return Err(error),
                }
                let now = progress.now();
                return Ok(Outcome {
                    point,
                    unix_nanos,
                    is_final,
                    copied_bytes: now.copied_bytes(),
                    received_bytes: now.received_bytes,
                    mended_granules,
                });
            }
            progress.change(|now| now.phase = Some(ReceivePhase::Following));
            // What it holds is told at once: it is what the failback waits for.
            match reporter.now() {
                Err(error @ ReceiveError::Disconnected(_)) => retry.pause(self, &error, observer)?,
                Err(ReceiveError::Refused(refused)) if refused.code == OLD_ORDERS => known = None,
                told => told?,
            }
        }
    }

    fn sleep(&self, period: Duration) -> Result<(), ReceiveError> {
        let stop = self.stop.clone();
        let slept = self
            .runtime
            .block_on(async move { tokio::time::timeout(period, stop.cancelled()).await });
        match slept {
            Ok(()) => Err(ReceiveError::Cancelled),
            Err(_) => Ok(()),
        }
    }

    /// A way home may take longer than a certificate lives. True: the connection is another one.
    fn renew(&mut self) -> bool {
        if now_unix_nanos() / 1_000_000_000 < self.identity.renew_at_unix()
            || Instant::now() < self.renew_after
        {
            return false;
        }
        self.renew_after = Instant::now() + RENEW_PERIOD;
        let renewed = {
            let _entered = self.runtime.enter();
            self.identity
                .channel()
                .map_err(ReceiveError::from)
                .and_then(|channel| {
                    let renewal = join::renew(&self.identity, channel, &self.settings.state_dir);
                    self.runtime
                        .block_on(renewal)
                        .map_err(|error| ReceiveError::Disconnected(error.to_string()))
                })
        };
        match renewed.and_then(|identity| {
            let client = Client::new(&identity, self.runtime.clone(), self.stop.clone())?;
            Ok((identity, client))
        }) {
            Ok((identity, client)) => {
                (self.identity, self.client) = (identity, client);
                self.renew_after = Instant::now();
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the certificate was not renewed; it is tried again");
                false
            }
        }
    }
}

#[derive(Default)]
struct Retry {
    pause: Option<Duration>,
    was_told: bool,
}

impl Retry {
    /// The server is there: the next cut is not the end of a long one.
    fn is_answered(&mut self) {
        self.pause = None;
    }

    fn pause(
        &mut self,
        receiver: &Receiver,
        error: &ReceiveError,
        observer: &dyn Observer,
    ) -> Result<(), ReceiveError> {
        // Said once for each cut, not for each attempt.
        if !self.was_told {
            self.was_told = true;
            observer.note(&Note::Retrying(error.words()));
        }
        let pause = self.pause.unwrap_or(RETRY_FIRST);
        self.pause = Some((pause * 2).min(RETRY_LAST));
        receiver.sleep(pause)
    }
}

/// What the steps of all disks share.
struct Work<'a> {
    client: &'a Client,
    stop: &'a CancellationToken,
    throttle: &'a Throttle,
    fence: &'a Fence,
    progress: &'a Progress,
    reporter: &'a Reporter,
    observer: &'a dyn Observer,
    has_followed: bool,
}

impl Work<'_> {
    fn job<'a>(&'a self, plan: &'a Plan, index: usize, point: PointId) -> Job<'a> {
        Job {
            client: self.client,
            key: plan.order.key(),
            disk: plan.disks[index].ordered.id,
            point,
            target: &plan.disks[index].target,
            progress: self.progress,
            index,
            throttle: self.throttle,
            fence: self.fence,
            stop: self.stop,
        }
    }

    fn phase(&self, phase: ReceivePhase) {
        self.progress.change(|now| now.phase = Some(phase));
    }

    /// Makes every disk equal to the point.
    fn bring(&self, plan: &mut Plan, point: PointId, is_final: bool) -> Result<(), ReceiveError> {
        let ahead: Vec<(u64, u64)> = (0..plan.disks.len())
            .map(|index| match plan.content(index).step(point) {
                Step::Compare { from_bytes, .. } => (from_bytes, plan.disks[index].ordered.size_bytes),
                _ => (0, 0),
            })
            .collect();
        self.progress.change(|now| {
            now.verified = None;
            for (disk, ahead) in now.disks.iter_mut().zip(ahead) {
                (disk.done_bytes, disk.total_bytes) = ahead;
            }
        });
        for index in 0..plan.disks.len() {
            // A step that was begun ends at its own point; then comes the one that is wanted.
            loop {
                let content = plan.content(index);
                let step = content.step(point);
                if step == Step::Nothing {
                    break;
                }
                match self.step(plan, index, step, is_final) {
                    Ok(()) => {}
                    // The order's point itself may have gone meanwhile: then a newer order is asked for.
                    Err(ReceiveError::Refused(refused))
                        if refused.code == POINT_GONE && content != Content::Unknown =>
                    {
                        self.observer.note(&Note::BaseGone {
                            disk: plan.disks[index].ordered.name.clone(),
                            why: refused.message,
                        });
                        plan.set_content(index, Content::Unknown, self.progress)?;
                    }
                    Err(ReceiveError::Refused(refused)) if refused.code == POINT_GONE => {
                        return Err(ReceiveError::Disconnected(refused.message));
                    }
                    Err(error @ ReceiveError::Target(_)) => {
                        // What reached the medium is not known any more.
                        plan.set_content(index, Content::Unknown, self.progress)?;
                        return Err(error);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn step(&self, plan: &mut Plan, index: usize, step: Step, is_final: bool) -> Result<(), ReceiveError> {
        plan.disks[index].target.check()?;
        self.phase(match step {
            Step::Compare { .. } => ReceivePhase::Comparing,
            _ if is_final => ReceivePhase::LastDelta,
            _ if self.has_followed => ReceivePhase::Following,
            _ => ReceivePhase::Copying,
        });
        self.progress.change(|now| {
            if let Some(disk) = now.disks.get_mut(index) {
                disk.keep = step.keep();
            }
        });
        // Pinned before anything is written, and written down before that.
        self.reporter.now()?;
        let to = match step {
            Step::Nothing => return Ok(()),
            Step::Delta { from, to } => {
                let size = plan.disks[index].ordered.size_bytes;
                let id = plan.disks[index].ordered.id;
                match self.client.changes(plan.order.key(), id, (from, to), size)? {
                    Some(ranges) => {
                        if let Some(content) = step.under_way() {
                            plan.set_content(index, content, self.progress)?;
                        }
                        self.job(plan, index, to).copy(&ranges)?;
                        to
                    }
                    None => self.compare(plan, index, to, 0)?,
                }
            }
            Step::Compare { to, from_bytes } => self.compare(plan, index, to, from_bytes)?,
        };
        plan.set_content(index, Content::At { point: to }, self.progress)
    }

    fn compare(
        &self,
        plan: &mut Plan,
        index: usize,
        to: PointId,
        from_bytes: u64,
    ) -> Result<PointId, ReceiveError> {
        let content = |compared_bytes| Content::Towards {
            point: to,
            from: None,
            compared_bytes,
        };
        plan.set_content(index, content(from_bytes), self.progress)?;
        let mut reached = from_bytes;
        let (parts, state) = plan.split(index);
        let job = Job {
            client: self.client,
            key: parts.key,
            disk: parts.id,
            point: to,
            target: parts.target,
            progress: self.progress,
            index,
            throttle: self.throttle,
            fence: self.fence,
            stop: self.stop,
        };
        job.compare(from_bytes, |bytes| {
            reached = reached.max(bytes);
            state.set_content(parts.id, content(reached))
        })?;
        Ok(to)
    }

    /// Until the server has heard it: the disks need not be read once more because an answer was lost.
    fn tell_verified(&self) -> Result<(), ReceiveError> {
        let mut may_be_heard = false;
        loop {
            match self.reporter.now() {
                Err(ReceiveError::Disconnected(_)) => may_be_heard = true,
                Err(ReceiveError::Refused(refused)) if may_be_heard => {
                    return Err(ReceiveError::Unconfirmed(refused));
                }
                told => return told,
            }
            let pause = tokio::time::Duration::from_millis(500);
            let stopped = self
                .client
                .runtime()
                .block_on(async { tokio::time::timeout(pause, self.stop.cancelled()).await });
            if stopped.is_ok() {
                return Err(ReceiveError::Cancelled);
            }
        }
    }

    /// Reads every disk back; tells the server, which must have heard it before the machine may start.
    fn prove(&self, plan: &mut Plan, point: PointId, is_final: bool) -> Result<u64, ReceiveError> {
        self.progress.change(|now| {
            now.phase = Some(ReceivePhase::Verifying);
            for (disk, planned) in now.disks.iter_mut().zip(&plan.disks) {
                (disk.done_bytes, disk.total_bytes) = (0, planned.ordered.size_bytes);
            }
        });
        self.reporter.now()?;
        let mut mended = 0;
        for index in 0..plan.disks.len() {
            let mut was_mended = false;
            let verified = self.job(plan, index, point).verify(|| {
                was_mended = true;
                Ok(())
            });
            let granules = match verified {
                Ok(granules) => granules,
                Err(error) => {
                    if was_mended || matches!(error, ReceiveError::Target(_)) {
                        plan.set_content(index, Content::Unknown, self.progress)?;
                    }
                    return Err(error);
                }
            };
            if granules > 0 {
                self.observer.note(&Note::Mended {
                    disk: plan.disks[index].ordered.name.clone(),
                    granules,
                });
            }
            mended += granules;
        }
        self.progress.change(|now| now.verified = Some(point));
        if is_final {
            self.phase(ReceivePhase::Done);
        }
        self.tell_verified()?;
        if is_final {
            // From here on the machine writes to its disks by itself.
            for index in 0..plan.disks.len() {
                plan.set_content(index, Content::Unknown, self.progress)?;
                plan.disks[index].target.reread_partitions();
            }
        }
        Ok(mended)
    }
}
