//! The running agent: a heartbeat that fetches orders, and a thread that follows them.
//!
//! ```text
//! heartbeat task --orders--> order book --> replication thread: open disks -> session -> cycle, cycle, ...
//!       ^------------------- status board <--------'
//! ```
//! The thread owns the disks. A cut link, a refusal or a failing disk ends the session, never the agent: it waits, longer
//! each time up to a limit, and opens the next one; what was not acknowledged is still marked. A crash of the agent leaves
//! pinned maps that the next one takes up.
use super::capture::{self, CaptureError};
use super::cycle::{self, CycleError, CycleReport, CycleSettings, Phase, Progress, ProtectedDisk, Reserve};
use super::fence::{self, Fence, Word};
use super::freeze::{FreezeError, Held};
use super::heartbeat::Heart;
use super::identity::Identity;
use super::orders::{OrderBook, Orders};
use super::progress::Kept;
use super::quiesce::{Quiesce, QuiesceError, Why};
use super::rounds::{Round, Rounds};
use super::ship::{Session, SessionSpec, ShipCounters};
use super::sink::ShipError;
use super::status::{Board, DiskLive, Halt};
use super::update::Updates;
use super::{inventory, status_socket};
use crate::block::{Consistency, DiskId};
use crate::rt::chain;
use rand::RngExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// The first cycle of a session may compare everything; what it ships is not what changed since the last point.
const COPIES_COUNTED_FROM: u32 = 1;
const BACKOFF_MIN: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Between two looks for a disk that is gone or has another size.
const DISK_LOOK: Duration = Duration::from_secs(2);
/// Between two looks at a fenced machine.
const STILL_LOOK: Duration = Duration::from_secs(5);
/// A machine at rest is thawed by the server's word, or by the end of the agent; this is for when nobody ever says it.
const REST_DEADLINE: Duration = Duration::from_secs(24 * 3600);
/// How long a cycle looks for a quiet moment of file systems that cannot be frozen.
const QUIET_PATIENCE: Duration = Duration::from_secs(5);
/// After an app-consistent point that was due and came to nothing.
const APP_RETRY: Duration = Duration::from_secs(300);

pub struct AgentSettings {
    /// Folder of the identity and of what must survive a restart.
    pub state: PathBuf,
    /// This executable, to be run as the freeze guard.
    pub program: PathBuf,
    pub freeze_deadline: Duration,
    /// Hooks that bring applications to rest.
    pub quiesce: Quiesce,
    /// Hooks that bring the workload down and up.
    pub fence: Fence,
}

/// Runs until `stop`; blocks. `runtime` drives the connections. Orders to update are left alone.
pub fn run(
    settings: AgentSettings,
    identity: Identity,
    runtime: &Handle,
    stop: CancellationToken,
) -> std::io::Result<()> {
    run_updatable(settings, identity, runtime, stop, None)
}

/// As [`run`]; also ends when `updates` has another executable to run.
pub fn run_updatable(
    settings: AgentSettings,
    identity: Identity,
    runtime: &Handle,
    stop: CancellationToken,
    updates: Option<Updates>,
) -> std::io::Result<()> {
    let book = OrderBook::default();
    let board = Board::default();
    {
        let mut status = board.change();
        status.name.clone_from(&identity.name);
        status.server.clone_from(&identity.server);
        status.phase = "waiting for orders".to_owned();
    }
    let kept = Kept::load(&settings.state);
    board.change().resynchronized = kept.resynchronized();
    let counters = Arc::new(ShipCounters::default());
    let heart = Heart::new(
        identity.clone(),
        settings.state.clone(),
        book.clone(),
        board.clone(),
        counters.clone(),
        updates.clone(),
        settings.quiesce.clone(),
    );
    if let Some(updates) = &updates {
        updates.watch(runtime, stop.clone());
    }
    let identities = heart.identities();
    let beating = runtime.spawn(heart.run(stop.clone()));
    let status = runtime.spawn(status_socket::serve(
        settings.state.clone(),
        board.clone(),
        stop.clone(),
    ));
    let rounds = Rounds::default();
    let coordinated = runtime.spawn(rounds.clone().run(book.clone(), identities.clone(), stop.clone()));
    let replication = Replication {
        kept,
        settings,
        only: identity.disks,
        runtime: runtime.clone(),
        book: book.clone(),
        board,
        counters,
        identities,
        held: Held::default(),
        kept_down: None,
        app_retry_at: None,
        rounds: rounds.clone(),
    };
    // An agent whose replication ended must not go on beating as if all were well: whoever runs it starts it anew.
    let over = stop.clone().drop_guard();
    let thread = std::thread::Builder::new()
        .name("replication".to_owned())
        .spawn(move || {
            let _over = over;
            replication.follow();
        })?;
    runtime.block_on(async {
        stop.cancelled().await;
        book.stop();
        let _ = beating.await;
        let _ = coordinated.await;
        let _ = status.await;
    });
    if thread.join().is_err() {
        return Err(std::io::Error::other("the replication thread panicked"));
    }
    Ok(())
}

struct Replication {
    settings: AgentSettings,
    kept: Kept,
    only: Vec<PathBuf>,
    runtime: Handle,
    book: OrderBook,
    board: Board,
    counters: Arc<ShipCounters>,
    identities: tokio::sync::watch::Receiver<Identity>,
    /// The machine is at rest for a planned failover.
    held: Held,
    /// Generation for whose fence the hooks were called.
    kept_down: Option<u64>,
    /// The app-consistent point that is due is not tried before.
    app_retry_at: Option<Instant>,
    rounds: Rounds,
}

/// Why work ended.
enum Stopped {
    /// The orders changed, or the agent stops.
    Orders,
    /// Tried again after a while.
    Failed,
    /// A disk is not what it was; looked for again soon.
    NoDisk,
}

impl Replication {
    fn follow(mut self) {
        self.let_go();
        let mut backoff = BACKOFF_MIN;
        while let Some(orders) = self.book.take_up() {
            self.forget_others(&orders);
            self.board.change().generation = if orders.protect { orders.generation } else { 0 };
            match &orders.fenced {
                Some(reason) => {
                    if self.kept_down != Some(orders.generation) {
                        self.keep_down(reason);
                        self.kept_down = Some(orders.generation);
                    }
                    self.board.trouble(
                        "Fenced",
                        true,
                        format!("this machine was failed over and is fenced: {reason}"),
                        "it runs at the target site now",
                        if self.held.is_frozen() {
                            "power it off; its file systems stay frozen until then, or until this agent is stopped"
                        } else {
                            "keep its workload down here; reprotect it from the target site"
                        },
                    );
                }
                None => {
                    self.kept_down = None;
                    self.board.over(&["Fenced", "SplitBrain"]);
                }
            }
            if orders.fenced.is_none() && orders.halt.is_none() {
                self.go_on();
            }
            if !orders.protect || orders.fenced.is_some() {
                let mut status = self.board.change();
                status.disks.clear();
                status.phase = if orders.fenced.is_some() {
                    "fenced"
                } else {
                    "not protected"
                }
                .to_owned();
                drop(status);
                self.keep_still(&orders);
                continue;
            }
            let began = Instant::now();
            match self.protect(&orders) {
                Stopped::Orders => backoff = BACKOFF_MIN,
                // No server is asked for it.
                Stopped::NoDisk => self.book.wait_for_change(&orders, Instant::now() + DISK_LOOK),
                Stopped::Failed => {
                    if began.elapsed() > BACKOFF_MAX {
                        backoff = BACKOFF_MIN;
                    }
                    // Many agents that lost the same server must not come back in step.
                    let jitter = rand::rng().random_range(0.5..1.0);
                    self.book
                        .wait_for_change(&orders, Instant::now() + backoff.mul_f64(jitter));
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
        self.board.change().phase = "stopped".to_owned();
    }

    /// Ends the tracking of disks that are no longer ordered.
    fn forget_others(&mut self, orders: &Orders) {
        let tracked = self.kept.tracked().to_vec();
        let wanted: Vec<DiskId> = orders.disks.iter().map(|(id, ..)| *id).collect();
        // A fenced machine keeps its maps: they tell what it wrote since, when it is brought home.
        if orders.fenced.is_some() || tracked == wanted {
            return;
        }
        for disk in tracked.iter().filter(|disk| !wanted.contains(disk)) {
            capture::forget(*disk);
        }
        if let Err(error) = self.kept.set_tracked(wanted) {
            tracing::warn!(%error, "the agent's state could not be kept");
        }
    }

    fn protect(&mut self, orders: &Orders) -> Stopped {
        let Some(mut disks) = self.open(orders) else {
            return Stopped::NoDisk;
        };
        let resync = orders.resync_request;
        if self.kept.resynchronized() != resync || self.kept.line() != orders.line {
            disks.iter_mut().for_each(ProtectedDisk::resynchronize);
        }
        let spec = SessionSpec {
            generation: orders.generation,
            disks: disks
                .iter()
                .map(|disk| (disk.id, disk.size_bytes(), disk.last_point()))
                .collect(),
        };
        self.board.change().phase = "connecting".to_owned();
        let channel = {
            // A channel is made inside the runtime that drives it.
            let _runtime = self.runtime.enter();
            self.identities.borrow().channel()
        };
        let opened = channel
            .map_err(|error| ShipError::Disconnected(error.to_string()))
            .and_then(|channel| {
                Session::open(
                    &self.runtime,
                    channel,
                    &spec,
                    self.book.cancel(),
                    self.counters.clone(),
                )
            });
        let mut session = match opened {
            Ok(session) => session,
            Err(error) => return self.ship_failed(&error),
        };
        self.board.over(&["Disconnected", "Refused"]);
        for disk in disks.iter_mut().filter(|disk| !session.has_point(disk.id)) {
            disk.resynchronize();
        }
        self.cycles(orders, &mut disks, &mut session)
    }

    fn open(&self, orders: &Orders) -> Option<Vec<ProtectedDisk>> {
        let mut opened = Vec::new();
        let mut live = std::collections::BTreeMap::new();
        for (id, stable_id, size_bytes) in &orders.disks {
            let mut state = DiskLive {
                state: "Unavailable".to_owned(),
                total_bytes: *size_bytes,
                ..DiskLive::default()
            };
            let found = inventory::find(stable_id, &self.only);
            match found.as_deref().map(|device| (device, open_disk(device, *id))) {
                Some((device, Ok(disk))) if disk.size_bytes() == *size_bytes => {
                    state.device = device.display().to_string();
                    state.capture = disk.kind().to_string();
                    state.state = "Protected".to_owned();
                    opened.push(disk);
                }
                Some((device, Ok(disk))) => self.board.trouble(
                    "DiskSizeChanged",
                    true,
                    format!(
                        "disk {} has {} bytes and is protected with {size_bytes}",
                        device.display(),
                        disk.size_bytes()
                    ),
                    "the disk was resized or replaced",
                    "name the machine's disks again on the server (lifeboat machine set-disks): it is copied as it is now; until then no \
                     recovery point is made, and those there are stay what they are",
                ),
                Some((device, Err(error))) => self.disk_failed(&error, &device.display().to_string()),
                None => self.board.trouble(
                    "DiskMissing",
                    true,
                    format!("protected disk {stable_id} is not there"),
                    "it was removed, or its device is gone",
                    "attach it again, and replication goes on by itself; or protect the machine without it (lifeboat machine set-disks)",
                ),
            }
            live.insert(*id, state);
        }
        let complete = opened.len() == orders.disks.len();
        let mut status = self.board.change();
        status.disks = live;
        if complete {
            drop(status);
            self.board.over(&["DiskMissing", "DiskSizeChanged", "DiskFailed"]);
        } else {
            status.phase = "waiting for a disk".to_owned();
        }
        complete.then_some(opened)
    }

    fn disk_failed(&self, error: &CaptureError, device: &str) {
        self.board.trouble(
            "DiskFailed",
            true,
            format!("disk {device}: {}", chain(error)),
            "the medium fails, the device is gone, or the agent lacks a permission",
            "look at the kernel's log; lifeboat agent doctor says what is missing",
        );
    }

    fn ship_failed(&self, error: &ShipError) -> Stopped {
        match error {
            ShipError::Cancelled => return Stopped::Orders,
            // Orders are on their way; nothing to tell.
            ShipError::Refused { code, .. } if code == "OldOrders" => {}
            ShipError::Refused {
                code,
                message,
                causes,
                action,
            } => self
                .board
                .trouble("Refused", true, format!("{message} ({code})"), causes, action),
            other => self.board.trouble(
                "Disconnected",
                false,
                chain(other),
                "the server is stopped, restarted or unreachable",
                "none: changes are kept and shipped when it is back",
            ),
        }
        self.board.change().phase = "waiting to connect".to_owned();
        Stopped::Failed
    }

    fn cycles(&mut self, orders: &Orders, disks: &mut [ProtectedDisk], session: &mut Session) -> Stopped {
        let mut reserve = match Reserve::new() {
            Ok(reserve) => reserve,
            Err(error) => {
                self.skipped(&error);
                return Stopped::Failed;
            }
        };
        let mut copied = 0u32;
        loop {
            let Some(now) = self.book.now() else {
                return Stopped::Orders;
            };
            let (began, sync, resync) = (Instant::now(), now.sync_request, now.resync_request);
            if self.kept.resynchronized() != resync {
                disks.iter_mut().for_each(ProtectedDisk::resynchronize);
            }
            let compared = copied < COPIES_COUNTED_FROM || self.kept.resynchronized() != resync;
            let why = self.app_due(&now);
            // An order of a person goes first: a round answers none for an app-consistent point.
            let mut round = match why {
                Some(Why::Request) => None,
                _ => self.rounds.take(),
            };
            let why = match &round {
                Some(round) => round.app_consistent.then_some(Why::Group),
                None => why,
            };
            session.answers(sync);
            let made = self.cycle(disks, session, &mut reserve, !compared, why, round.as_mut(), None);
            if let (Some(round), Err(error)) = (&mut round, &made) {
                round.fail(&chain(error));
            }
            drop(round);
            // Tried is tried, whatever came of it: hooks that hang must not hold up every point.
            if why.is_some() {
                let request = match why {
                    Some(Why::Request) => now.app_sync_request,
                    _ => self.kept.app_sync(),
                };
                self.app_tried(request, made.as_ref().ok().and_then(app_consistent));
            }
            match made {
                Ok(_) => {
                    copied += 1;
                    if self.kept.line() != orders.line
                        && let Err(error) = self.kept.set_line(orders.line)
                    {
                        tracing::warn!(%error, "the agent's state could not be kept");
                    }
                    if self.kept.resynchronized() != resync {
                        if let Err(error) = self.kept.set_resynchronized(resync) {
                            tracing::warn!(%error, "the agent's state could not be kept");
                        }
                        self.board.change().resynchronized = resync;
                    }
                }
                Err(CycleError::Cancelled) => return Stopped::Orders,
                Err(CycleError::Ship(error)) => return self.ship_failed(&error),
                Err(CycleError::Capture(error)) => {
                    // Who opens the disks anew says what has become of them.
                    if !error.is_other_disk() {
                        self.disk_failed(&error, "under replication");
                    }
                    return Stopped::Failed;
                }
                Err(error) => self.skipped(&error),
            }
            if let Some(job) = now.halt {
                return self.halt(job, disks, session, &mut reserve);
            }
            self.board.change().phase = "waiting for the next point".to_owned();
            // As the policy is at that moment: a shorter interval counts from now on, not from the next point on.
            let next = |orders: &Orders| began + own_interval(orders);
            let woken = |orders: &Orders| {
                orders.sync_request != sync || orders.resync_request != resync || orders.halt.is_some()
            };
            // Looked at between naps, so that an ended session is seen before the next point is due.
            while !session.has_ended() {
                let Some(orders) = self.book.now() else {
                    return Stopped::Orders;
                };
                if woken(&orders) || Instant::now() >= next(&orders) || self.app_due(&orders).is_some() {
                    break;
                }
                let nap = (Instant::now() + Duration::from_millis(500)).min(next(&orders));
                if !self.book.wait_for_call(nap, woken) {
                    return Stopped::Orders;
                }
                if self.rounds.is_called() {
                    break;
                }
            }
            if self
                .book
                .now()
                .is_none_or(|now| now.generation != orders.generation)
            {
                return Stopped::Orders;
            }
        }
    }

    /// Lets go what an agent that was killed left at rest.
    fn let_go(&self) {
        match self.settings.quiesce.settle() {
            Ok(steps) if steps.is_empty() => {}
            Ok(steps) => tracing::warn!(
                hooks = steps.len(),
                "an earlier agent left applications at rest; their post was called"
            ),
            Err(error) => self.app_failed(&error),
        }
    }

    /// Whether the next point is to be app-consistent.
    fn app_due(&self, orders: &Orders) -> Option<Why> {
        if orders.app_sync_request != 0 && orders.app_sync_request != self.kept.app_sync() {
            return Some(Why::Request);
        }
        let waits = self.app_retry_at.is_some_and(|at| Instant::now() < at);
        let last = self.kept.app_consistent_unix_nanos();
        (!waits && is_due(self.book.clock().now(), last, orders.app_every)).then_some(Why::Schedule)
    }

    /// `made`: the instant of an app-consistent point.
    fn app_tried(&mut self, request: u64, made: Option<i64>) {
        self.app_retry_at = match made {
            Some(_) => None,
            None => Some(Instant::now() + APP_RETRY),
        };
        if let Err(error) = self.kept.set_app_consistent(request, made) {
            tracing::warn!(%error, "the agent's state could not be kept");
        }
    }

    fn app_failed(&self, error: &QuiesceError) {
        let (causes, action) = error.advice();
        let code = if error.may_hold() {
            "ApplicationsHeld"
        } else {
            "AppConsistencyFailed"
        };
        let message = if error.may_hold() {
            format!("applications may still be held: {}", chain(error))
        } else {
            format!(
                "no app-consistent point was made, a crash-consistent one instead: {}",
                chain(error)
            )
        };
        self.board
            .trouble(code, error.may_hold(), message, causes, &action);
    }

    /// Brings the machine to rest: its file systems stand still from its last point on, until the server says that it is
    /// elsewhere, or that it may go on.
    fn halt(
        &mut self,
        job: [u8; 16],
        disks: &mut [ProtectedDisk],
        session: &mut Session,
        reserve: &mut Reserve,
    ) -> Stopped {
        self.board.change().phase = "coming to rest".to_owned();
        // On record first: whatever happens to the agent, its successor brings up again what was brought down.
        let down = self.set_down(true);
        let stopped = down.and_then(|()| self.settings.fence.call(Word::Stop, "planned failover"));
        if let Err(error) = stopped {
            return self.cannot_rest(job, error);
        }
        let mut held = Held::default();
        let made = self.cycle(disks, session, reserve, true, None, None, Some(&mut held));
        let (point, error) = match &made {
            Ok(report) if report.consistency > Consistency::Fuzzy => (Some(report.point), None),
            Ok(report) => (None, Some(format!("it does not come to rest: {}", report.note))),
            Err(CycleError::Cancelled) => return Stopped::Orders,
            Err(error) => (None, Some(chain(error))),
        };
        if point.is_some() {
            self.held = held;
            tracing::warn!(
                "this machine is at rest for a planned failover: its protected file systems are frozen"
            );
            // Who stands before it may not be able to log in any more.
            self.settings.fence.shout(
                "this machine is at rest for a planned failover: its file systems stand still until the failover is taken back or \
                 this agent ends. If the server is lost and the machine is to go on here: kill the agent, or power-cycle it",
            );
        }
        {
            let mut status = self.board.change();
            status.halt = Some(Halt { job, point, error });
            status.phase = "at rest for a planned failover".to_owned();
        }
        self.board.tell_at_once();
        // The agent lives on what it holds in memory now: whatever it wrote to a frozen file system would stop it.
        self.await_end_of_rest(job);
        Stopped::Orders
    }

    fn set_down(&mut self, down: bool) -> Result<(), String> {
        self.kept
            .set_down(down)
            .map_err(|error| format!("the agent's state could not be kept: {error}"))
    }

    /// Says why, and waits for the order to be taken back.
    fn cannot_rest(&mut self, job: [u8; 16], error: String) -> Stopped {
        self.board.change().halt = Some(Halt {
            job,
            point: None,
            error: Some(error),
        });
        self.board.tell_at_once();
        self.await_end_of_rest(job);
        Stopped::Orders
    }

    fn await_end_of_rest(&self, job: [u8; 16]) {
        let is_over = |orders: &Orders| orders.halt != Some(job);
        while self
            .book
            .wait(Instant::now() + Duration::from_secs(3600), is_over)
            && self.book.now().is_some_and(|orders| !is_over(&orders))
        {}
    }

    /// The machine was failed over: loud words, and hooks that keep its workload down. One that is at rest for it has no
    /// workload, and its file systems would not let a hook write.
    fn keep_down(&mut self, reason: &str) {
        self.settings
            .fence
            .shout(&format!("this machine is fenced. {reason}"));
        if self.held.is_frozen() {
            return;
        }
        let called = self
            .set_down(true)
            .and_then(|()| self.settings.fence.call(Word::Fenced, "failed over"));
        match called {
            Ok(_) => self.board.over(&["FenceHookFailed"]),
            Err(error) => self.board.trouble(
                "FenceHookFailed",
                true,
                format!("the workload may be up on this fenced machine: {error}"),
                "a hook in the fence folder failed, or may not be run",
                "bring the workload down by hand, then mend the hook",
            ),
        }
    }

    /// Until the orders change. What is written meanwhile is on no other side: it is told.
    fn keep_still(&self, orders: &Orders) {
        let mut watch = orders
            .fenced
            .as_ref()
            .filter(|_| !self.held.is_frozen())
            .and_then(|_| fence::Watch::new(self.tracked_disks(orders)?));
        let nap = if watch.is_some() {
            STILL_LOOK
        } else {
            Duration::from_secs(3600)
        };
        loop {
            let end = Instant::now() + nap;
            self.book.wait_for_change(orders, end);
            if Instant::now() < end {
                return;
            }
            let Some(bytes) = watch.as_mut().and_then(fence::Watch::look) else {
                continue;
            };
            let at = jiff::Timestamp::from_nanosecond(i128::from(self.book.clock().now()));
            self.board.trouble(
                "SplitBrain",
                true,
                format!(
                    "this machine is written to although it runs at the target: {bytes} bytes since it was fenced, last seen at {}",
                    at.map_or_else(|_| "?".to_owned(), |at| at.strftime("%FT%TZ").to_string())
                ),
                "its workload was started here, or users still reach it",
                "bring the workload down here now: what is written here is on no other side and is overwritten when the machine comes home",
            );
        }
    }

    /// The disks, where all of them are tracked by maps that were there before.
    fn tracked_disks(&self, orders: &Orders) -> Option<Vec<ProtectedDisk>> {
        let open = |(id, stable_id, _): &(DiskId, String, u64)| {
            open_disk(&inventory::find(stable_id, &self.only)?, *id).ok()
        };
        orders.disks.iter().map(open).collect()
    }

    /// It is the machine, and no order keeps it at rest.
    fn go_on(&mut self) {
        if std::mem::take(&mut self.held).is_frozen() {
            tracing::info!("the file systems are thawed: the machine goes on");
        }
        self.board.change().halt = None;
        if !self.kept.is_down() {
            return;
        }
        let called = self.settings.fence.call(Word::Start, "it is the machine again");
        if let Err(error) = called.and_then(|_| self.set_down(false)) {
            self.board.trouble(
                "FenceHookFailed",
                true,
                format!("the workload of this machine may be down: {error}"),
                "a hook in the fence folder failed, or may not be run",
                "bring the workload up by hand, then mend the hook and restart the agent",
            );
        } else {
            self.board.over(&["FenceHookFailed"]);
        }
    }

    /// `counts`: what is shipped are changes, not a first copy or a comparison. `why`: to be app-consistent.
    #[allow(clippy::too_many_arguments)] // what differs from cycle to cycle
    fn cycle(
        &self,
        disks: &mut [ProtectedDisk],
        session: &mut Session,
        reserve: &mut Reserve,
        counts: bool,
        why: Option<Why>,
        round: Option<&mut Round>,
        hold: Option<&mut Held>,
    ) -> Result<CycleReport, CycleError> {
        let cancel = self.book.cancel();
        let board = self.board.clone();
        let mut progress = |progress: Progress| show(&board, progress);
        let clock = || self.book.clock().now();
        let mut settings = CycleSettings {
            guard: self.settings.program.clone(),
            freeze_deadline: if hold.is_some() {
                REST_DEADLINE
            } else {
                self.settings.freeze_deadline
            },
            quiet_patience: QUIET_PATIENCE,
            witness: None,
            progress: &mut progress,
            clock: &clock,
            cancel: &cancel,
            quiesce: why.map(|why| (&self.settings.quiesce, why)),
            round,
            hold,
        };
        let report = cycle::run(disks, session, reserve, &mut settings)?;
        self.board.over(&["PointSkipped"]);
        match &report.app_consistent {
            Some(Ok(())) => self.board.over(&["AppConsistencyFailed", "ApplicationsHeld"]),
            // Hooks that failed before and were taken away.
            Some(Err(error)) if error.is_no_hooks() => self.board.over(&["AppConsistencyFailed"]),
            Some(Err(error)) => self.app_failed(error),
            _ => {}
        }
        let mut status = self.board.change();
        status.points += 1;
        status.last_point_unix_nanos = Some(self.book.clock().now());
        status.last_freeze_micros = Some(u32::try_from(report.freeze.as_micros()).unwrap_or(u32::MAX));
        for (id, disk) in &mut status.disks {
            if counts {
                disk.changed_bytes += report.raw_bytes_by_disk.get(id).copied().unwrap_or_default();
            }
            disk.state = "Protected".to_owned();
            disk.pending_bytes = 0;
            disk.done_bytes = disk.total_bytes;
        }
        drop(status);
        Ok(report)
    }

    /// No point this time, nothing lost.
    fn skipped(&self, error: &CycleError) {
        let (causes, action) = match error {
            CycleError::TooBusy(_) => (
                "more is written than can be read and shipped",
                "none if it is a peak; else give the link or the disk more room",
            ),
            CycleError::Freeze(FreezeError::Deadline) => (
                "the disk was too busy to be read within the freeze's deadline",
                "none if it is a peak; else look for what keeps the disk busy",
            ),
            _ => (
                "a file system cannot be frozen, or is frozen by another program",
                "see which program freezes it; lifeboat agent doctor",
            ),
        };
        self.board
            .trouble("PointSkipped", false, chain(error), causes, action);
    }
}

/// From one point to the next that the machine makes on its own. Shared points count too; where they are to come about as often,
/// they get their time before the machine goes ahead alone.
fn own_interval(orders: &Orders) -> Duration {
    match orders.group_every {
        Some(group) if orders.every * 2 > group => orders.every.max(group * 3 / 2),
        _ => orders.every,
    }
}

/// The instant of a point that is one.
fn app_consistent(report: &CycleReport) -> Option<i64> {
    matches!(report.app_consistent, Some(Ok(()))).then_some(report.instant_unix_nanos)
}

/// `last`: instant of the last app-consistent point; both on the server's clock.
fn is_due(now: i64, last: Option<i64>, every: Option<Duration>) -> bool {
    every.is_some_and(|every| {
        last.is_none_or(|last| {
            // From the future: the server's clock was set back, and waiting for it to come again may take for ever.
            now < last || (now - last).unsigned_abs() >= u64::try_from(every.as_nanos()).unwrap_or(u64::MAX)
        })
    })
}

/// Tracked where the kernel allows it, else compared for each point.
fn open_disk(device: &Path, id: DiskId) -> Result<ProtectedDisk, CaptureError> {
    let is_device = std::fs::metadata(device).is_ok_and(|meta| meta.file_type().is_block_device());
    if is_device && capture::is_available().is_ok() {
        ProtectedDisk::open(device, id)
    } else {
        ProtectedDisk::scan(device, id)
    }
}

fn show(board: &Board, progress: Progress) {
    let mut status = board.change();
    let (phase, state) = match progress.phase {
        Phase::InitialReplication => ("initial replication", "InitialReplicationInProgress"),
        Phase::Resynchronizing => ("resynchronizing", "Resynchronizing"),
        Phase::Copying => ("copying changes", ""),
        Phase::Shipping => ("shipping a point", ""),
    };
    if status.phase != phase {
        status.phase = phase.to_owned();
    }
    if let Some(disk) = status.disks.get_mut(&progress.disk) {
        if !state.is_empty() {
            disk.state = state.to_owned();
            disk.done_bytes = progress.done_bytes;
            disk.total_bytes = progress.total_bytes;
        }
        disk.pending_bytes = progress.pending_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_consistent_points_come_at_their_time() {
        let hour = Some(Duration::from_secs(3600));
        let nanos = |seconds: i64| seconds * 1_000_000_000;
        assert!(!is_due(nanos(5), None, None), "the policy has them off");
        assert!(is_due(nanos(5), None, hour), "none was made yet");
        assert!(!is_due(nanos(3599), Some(0), hour));
        assert!(is_due(nanos(3600), Some(0), hour));
        assert!(is_due(nanos(5), Some(nanos(6)), hour), "the clock was set back");
    }
}
