//! Takes orders, keeps them going, and answers for the machines that run at the target.
//!
//! One job at a time works on an item; the journal's revision of the item is what two servers or two callers would
//! fight over, and only one wins. Jobs run on threads of their own, a bounded number at a time; how one is carried out is in
//! `execute.rs`.
//!
//! | lock | held for | inside it |
//! |---|---|---|
//! | `submitting` | one `submit` | `queue`, the journal, the hypervisor's check |
//! | `queue` | a look or a change | nothing |
//! | a job's gate | a look or a change | nothing |
use super::admission::{self, Facts};
use super::changes;
use super::disks::{Base, Disks, LineOrder, attached};
use super::error::{RecoveryError, Refusal, chain};
use super::job::{Job, JobError, JobId, JobKind, JobState, Journal, JournalError, Task, TaskState};
use super::points;
use super::request::{Operation, PointChoice, Request, Source};
use super::state::{Failover, Item, TestFailoverState};
use super::steps::{self, Outcome, Parameters};
use super::watch::Watch;
use crate::block::MachineId;
use crate::replica::Store;
use crate::rt::{Report, now_unix_nanos};
use crate::target::{Compute, DiskFile, MachineSpec, MachineStatus, Network, Nic};
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a journal is asked again about a job that is not carried out here.
const FOREIGN_LOOK: Duration = Duration::from_millis(100);
/// How long a verdict of the hypervisor's check stands: it may start a program, and pages ask for it often.
const CHECK_LIFETIME: Duration = Duration::from_secs(5);
/// Of the name that a network's own name begins with; all of it has 64 bytes at most.
const NETWORK_NAME_MAX: usize = 48;
/// How often an order is admitted anew when somebody else changes the item in between.
const CONFLICTS_MAX: u32 = 20;

/// What recovery works with.
pub struct Parts {
    pub journal: Arc<dyn Journal>,
    pub store: Store,
    pub compute: Arc<dyn Compute>,
    /// Folder of the running machines; made when it is missing.
    pub vms: PathBuf,
    pub source: Arc<dyn Source>,
    /// Hears of the points that are made at the target.
    pub report: Arc<dyn Report>,
}

/// Times and numbers that a test wants smaller.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Jobs at once: each holds a thread and starts a machine.
    pub jobs: usize,
    /// For what is pending at the source; a source that is alive ships a point in seconds.
    pub last_sync: Duration,
    /// For a source to come to rest, or for the last point of a machine at the target: what is pending is shipped first.
    pub halt: Duration,
    /// For a source to say that it stayed at rest: a few heartbeats.
    pub confirm_rest: Duration,
    /// For a guest that is asked to shut down; then its power is cut.
    pub guest_shut_down: Duration,
    /// For a started machine to read its disk: firmware on an emulated, busy CPU takes tens of seconds.
    pub first_read: Duration,
    /// For a started machine to write to its serial port; after that nobody looks any more.
    pub first_output: Duration,
    /// For steps under way when the runner stops.
    pub shut_down: Duration,
    /// Between attempts to reach a journal that refuses.
    pub journal_again: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            jobs: 16,
            last_sync: Duration::from_secs(60),
            halt: Duration::from_secs(1800),
            confirm_rest: Duration::from_secs(30),
            guest_shut_down: Duration::from_secs(60),
            first_read: Duration::from_secs(120),
            first_output: Duration::from_secs(300),
            shut_down: Duration::from_secs(20),
            journal_again: Duration::from_millis(500),
        }
    }
}

/// Whether a job may still be cancelled. Set to `TooLate` in the same breath in which the point of no return is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    Open,
    CancelRequested,
    TooLate,
}

pub(super) struct Handle {
    gate: Mutex<Gate>,
}

impl Handle {
    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn too_late() -> Self {
        Self {
            gate: Mutex::new(Gate::TooLate),
        }
    }

    /// Passes the point of no return, unless a cancel came first.
    pub(super) fn pass(&self) -> bool {
        let mut gate = self.gate();
        if *gate == Gate::CancelRequested {
            return false;
        }
        *gate = Gate::TooLate;
        true
    }

    pub(super) fn is_cancelled(&self) -> bool {
        *self.gate() == Gate::CancelRequested
    }
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<JobId>,
    /// Jobs that are waiting or carried out here.
    handles: HashMap<JobId, Arc<Handle>>,
    threads: usize,
    stopping: bool,
}

pub(super) struct Shared {
    pub(super) parts: Parts,
    pub(super) disks: Disks,
    pub(super) limits: Limits,
    pub(super) watch: Watch,
    queue: Mutex<Queue>,
    /// Something in the queue changed.
    changed: Condvar,
    submitting: Mutex<()>,
    check: Mutex<Option<(Instant, Option<String>)>>,
}

/// Cheap to clone. All calls block; async callers go through a blocking thread.
#[derive(Clone)]
pub struct Runner(Arc<Shared>);

/// What [`Runner::resume`] found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resumed {
    /// Machines whose disks are served again.
    pub machines: usize,
    /// Open jobs that were taken up.
    pub jobs: usize,
    /// Machines whose disks could not be served; the others go on.
    pub troubles: Vec<(MachineId, JobError)>,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.queue().stopping
    }

    /// Waits; true: the runner stops.
    pub(super) fn pause(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut queue = self.queue();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if queue.stopping || left.is_zero() {
                return queue.stopping;
            }
            queue = self
                .changed
                .wait_timeout(queue, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Puts a job into the queue and sees that somebody works on it.
    fn enqueue(self: &Arc<Self>, id: JobId, gate: Gate) {
        let mut queue = self.queue();
        let handle = Handle {
            gate: Mutex::new(gate),
        };
        if queue.handles.contains_key(&id) {
            return;
        }
        queue.handles.insert(id, Arc::new(handle));
        queue.waiting.push_back(id);
        if queue.threads < self.limits.jobs && !queue.stopping {
            let shared = self.clone();
            let thread = std::thread::Builder::new()
                .name("recovery".into())
                .spawn(move || shared.work());
            match thread {
                Ok(_) => queue.threads += 1,
                // The job waits for a thread that is there; without any, for the next start of the server.
                Err(error) => tracing::error!(%error, job = %id, "no thread for a job"),
            }
        }
    }

    /// A worker: one job after the other until none is left.
    fn work(self: &Arc<Self>) {
        loop {
            let (id, handle) = {
                let mut queue = self.queue();
                let next = if queue.stopping {
                    None
                } else {
                    queue.waiting.pop_front()
                };
                let taken = next.and_then(|id| Some((id, queue.handles.get(&id)?.clone())));
                let Some(taken) = taken else {
                    queue.threads -= 1;
                    self.changed.notify_all();
                    return;
                };
                taken
            };
            self.execute(id, &handle);
            self.queue().handles.remove(&id);
            self.changed.notify_all();
        }
    }

    fn target_trouble(&self) -> Option<String> {
        let mut check = self.check.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, verdict)) = &*check
            && at.elapsed() < CHECK_LIFETIME
        {
            return verdict.clone();
        }
        let verdict = self.parts.compute.check().err().map(|error| chain(&error));
        *check = Some((Instant::now(), verdict.clone()));
        verdict
    }

    /// The verdict needs more than the item; `decide` gets all of it.
    fn with_facts<T>(&self, item: &Item, decide: impl FnOnce(&Facts) -> T) -> Result<T, RecoveryError> {
        let jobs = self.parts.journal.open_jobs()?;
        let mut kinds = jobs
            .iter()
            .filter(|job| job.machine == item.machine)
            .map(|job| job.kind)
            .collect::<Vec<_>>();
        // The one that matters first: resynchronizing holds nothing up.
        kinds.sort_by_key(|kind| kind.holds_nothing_up());
        let points = match self.parts.store.points(item.machine) {
            Ok(points) => points,
            Err(crate::replica::ReplicaError::NoMachine(_)) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let trouble = self.target_trouble();
        Ok(decide(&Facts {
            item,
            open_job: kinds.first().copied(),
            usable_points: points
                .iter()
                .filter(|point| points::is_usable(point, &item.disks))
                .count(),
            source_connected: self.parts.source.is_connected(item.machine),
            target_trouble: trouble.as_deref(),
            receiver_trouble: self.receiver_trouble(item).as_deref(),
        }))
    }

    fn receiver_trouble(&self, item: &Item) -> Option<String> {
        item.reprotect.as_ref()?;
        self.parts.source.receiver_trouble(item.machine)
    }

    /// What the item's machine writes at the target becomes recovery points. Its disks are being served.
    pub(super) fn protect_at_target(&self, item: &Item) -> Result<(), JobError> {
        let Some(failover) = changes::active_machine(item).filter(|_| !item.is_hydrated()) else {
            return Ok(());
        };
        let disks = attached(&failover.machine)?;
        let (source, machine) = (self.parts.source.clone(), item.machine);
        self.disks.protect(
            failover.job,
            Base {
                machine,
                point: failover.point,
                disks: &disks,
            },
            LineOrder {
                generation: item.generation,
                report: self.parts.report.clone(),
                every: Box::new(move || source.point_interval(machine)),
            },
        )
    }

    fn base_and_serve(&self, item: &Item, failover: &Failover) -> Result<(), JobError> {
        let disks = attached(&failover.machine)?;
        self.disks.serve(
            failover.job,
            Base {
                machine: item.machine,
                point: failover.point,
                disks: &disks,
            },
        )
    }
}

impl Runner {
    pub fn new(parts: Parts) -> Self {
        Self::with_limits(parts, Limits::default())
    }

    pub(super) fn with_limits(mut parts: Parts, limits: Limits) -> Self {
        // The hypervisor is another process with another working folder.
        if let Ok(absolute) = std::path::absolute(&parts.vms) {
            parts.vms = absolute;
        }
        let disks = Disks::new(parts.store.clone(), parts.vms.clone());
        Self(Arc::new(Shared {
            parts,
            disks,
            limits,
            watch: Watch::default(),
            queue: Mutex::default(),
            changed: Condvar::new(),
            submitting: Mutex::new(()),
            check: Mutex::new(None),
        }))
    }

    /// After a start of the server: serves the disks of running machines at their old sockets again, takes up open jobs.
    /// Call once, before the first `submit`.
    pub fn resume(&self) -> Result<Resumed, RecoveryError> {
        let mut resumed = Resumed::default();
        for item in self.0.parts.journal.items()? {
            for failover in changes::machines_to_serve(&item) {
                match self.0.base_and_serve(&item, failover) {
                    Ok(()) => {
                        resumed.machines += 1;
                        self.0.watch_start(failover.job, &failover.machine);
                    }
                    Err(error) => {
                        tracing::error!(machine = %item.name, error = %error.message, "the disks of a running machine cannot be served");
                        resumed.troubles.push((item.machine, error));
                    }
                }
            }
            if let Err(error) = self.0.protect_at_target(&item) {
                resumed.troubles.push((item.machine, error));
            }
        }
        for job in self.0.parts.journal.open_jobs()? {
            if !is_ours(job.kind) {
                continue;
            }
            resumed.jobs += 1;
            let late = job.error.is_some()
                || job.tasks.iter().any(|task| {
                    task.state != TaskState::NotStarted
                        && steps::Step::from_name(&task.name).is_some_and(steps::Step::is_point_of_no_return)
                });
            self.0
                .enqueue(job.id, if late { Gate::TooLate } else { Gate::Open });
        }
        Ok(resumed)
    }

    /// Takes an order: when this returns, the job is in the journal and will be carried out, also after a crash.
    pub fn submit(&self, machine: MachineId, request: Request, user: &str) -> Result<JobId, RecoveryError> {
        self.submit_again(machine, request, user, Order::default())
    }

    /// As [`submit`](Self::submit), for a run of a recovery plan: with an id that the run has written down before, so that the
    /// order is given once, however often it is given. Machines of one run share its isolated networks.
    pub fn submit_for(
        &self,
        run: JobId,
        id: JobId,
        machine: MachineId,
        request: Request,
        user: &str,
    ) -> Result<JobId, RecoveryError> {
        match self.0.parts.journal.job(id) {
            Ok(_) => return Ok(id),
            Err(JournalError::NoJob(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let order = Order {
            id: Some(id),
            plan_run: Some(run),
            restart_of: None,
        };
        self.submit_again(machine, request, user, order)
    }

    /// Where a point that machines share is wanted, the choice of each of them; else nothing. An item that is gone is left
    /// out: its own order says so.
    pub fn pin(
        &self,
        machines: impl Iterator<Item = MachineId>,
        choice: PointChoice,
    ) -> Result<Vec<(MachineId, PointChoice)>, RecoveryError> {
        let shared = self.0.parts.store.shared_points();
        let mut candidates = Vec::new();
        for machine in machines {
            match self.0.parts.journal.item(machine) {
                Ok(item) => candidates.push(points::Candidate {
                    machine,
                    disks: item.disks,
                    points: self.0.parts.store.points(machine)?,
                }),
                Err(JournalError::NoItem(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(points::pin(&candidates, choice, &shared)?)
    }

    pub fn item(&self, machine: MachineId) -> Result<Item, RecoveryError> {
        Ok(self.0.parts.journal.item(machine)?)
    }

    pub fn job(&self, job: JobId) -> Result<Job, RecoveryError> {
        Ok(self.0.parts.journal.job(job)?)
    }

    /// The machine that a failover would start now, and nothing else is done.
    pub fn preview(
        &self,
        machine: MachineId,
        request: &Request,
    ) -> Result<Option<MachineSpec>, RecoveryError> {
        let item = self.0.parts.journal.item(machine)?;
        self.spec(JobId::new(), &item, request, None)
    }

    #[cfg(test)]
    pub(super) fn undo_again(&self, job: Job) -> Result<(), JobError> {
        self.0.undo_again(job)
    }

    /// Gives the order of a job that failed or was cancelled once more, as a new job. None: not a job of recovery.
    pub fn restart(&self, job: &Job, user: &str) -> Result<Option<JobId>, RecoveryError> {
        let Ok(parameters) = serde_json::from_value::<Parameters>(job.parameters.clone()) else {
            return Ok(None);
        };
        let order = Order {
            restart_of: Some(job.id),
            ..Order::default()
        };
        self.submit_again(job.machine, parameters.request, user, order)
            .map(Some)
    }

    fn submit_again(
        &self,
        machine: MachineId,
        request: Request,
        user: &str,
        order: Order,
    ) -> Result<JobId, RecoveryError> {
        let created = now_unix_nanos();
        let _one = self.0.submitting.lock().unwrap_or_else(PoisonError::into_inner);
        if self.0.is_stopping() {
            return Err(RecoveryError::ShuttingDown);
        }
        std::fs::create_dir_all(&self.0.parts.vms).map_err(|source| crate::target::TargetError::Io {
            action: "make",
            object: self.0.parts.vms.clone(),
            source,
        })?;
        let operation = request.operation();
        for _ in 0..CONFLICTS_MAX {
            let mut item = self.0.parts.journal.item(machine)?;
            self.0
                .with_facts(&item, |facts| admission::admit(operation, facts))??;
            if let Some(choice) = request.point() {
                points::choose(
                    &self.0.parts.store.points(machine)?,
                    &item.disks,
                    choice,
                    &self.0.parts.store.shared_points(),
                )?;
            }
            let id = order.id.unwrap_or_else(JobId::new);
            let mut job = self.new_job(id, &item, request.clone(), user, created, &order)?;
            job.restart_of = order.restart_of;
            // Admission knows the states; that the drawing knows them too is what its test checks.
            changes::at_submission(&request)
                .apply(&mut item)
                .map_err(|refused| {
                    Refusal::new(
                        "WrongState",
                        format!("{refused}."),
                        "The item changed a moment ago.",
                        "Look at the item's state and try again.",
                    )
                })?;
            match self.0.parts.journal.record(&job, Some(&item)) {
                Ok(()) => {
                    self.0.enqueue(id, Gate::Open);
                    return Ok(id);
                }
                Err(JournalError::Conflict) => continue,
                Err(error) => return Err(error.into()),
            }
        }
        Err(JournalError::Conflict.into())
    }

    fn new_job(
        &self,
        id: JobId,
        item: &Item,
        request: Request,
        user: &str,
        created: i64,
        order: &Order,
    ) -> Result<Job, RecoveryError> {
        let parameters = Parameters {
            machine: self.spec(id, item, &request, order.plan_run)?,
            plan_run: order.plan_run,
            failover: match &request {
                Request::TestFailover { .. } => None,
                Request::TestFailoverCleanup { .. } => item.test_failover.clone(),
                _ => item.failover.clone(),
            },
            test_succeeded: item.test_failover_state == TestFailoverState::TestFailoverCompleted,
            source_is_fenced: item.source_is_fenced(),
            active: changes::active_machine(item).map(|failover| failover.job),
            is_homecoming: changes::is_homecoming(item),
            files: self.files(item, &request)?,
            request,
        };
        let task = |step: steps::Step| Task {
            name: step.name(),
            state: TaskState::NotStarted,
            started_unix_nanos: None,
            ended_unix_nanos: None,
            message: String::new(),
            error: None,
        };
        Ok(Job {
            id,
            kind: steps::kind(&parameters.request),
            machine: item.machine,
            state: JobState::NotStarted,
            user: user.to_owned(),
            created_unix_nanos: created,
            started_unix_nanos: None,
            ended_unix_nanos: None,
            tasks: steps::plan(&parameters.request, parameters.is_homecoming)
                .into_iter()
                .map(task)
                .collect(),
            parameters: serde_json::to_value(parameters).unwrap_or_default(),
            result: serde_json::to_value(Outcome::default()).unwrap_or_default(),
            error: None,
            restart_of: None,
        })
    }

    /// The files that the disks of a machine at the target become.
    fn files(&self, item: &Item, request: &Request) -> Result<Vec<DiskFile>, RecoveryError> {
        let (Request::Hydrate { folder, format }, Some(failover)) = (request, &item.failover) else {
            return Ok(Vec::new());
        };
        steps::check_folder(folder, &self.0.parts.vms)?;
        let known = self.0.parts.store.disks(item.machine)?;
        let disks = attached(&failover.machine).map_err(Refusal::from)?;
        disks
            .iter()
            .enumerate()
            .map(|(place, id)| {
                let size_bytes = known
                    .iter()
                    .find(|disk| disk.id == *id)
                    .map(|disk| disk.size_bytes)
                    .ok_or(crate::replica::ReplicaError::NoDisk(*id))?;
                let name = format!("disk{place}.{}", format.name());
                Ok(DiskFile {
                    path: folder.join(&failover.machine.name).join(name),
                    format: *format,
                    size_bytes,
                })
            })
            .collect()
    }

    /// The machine that a failover starts, as the item's settings and the networks are now.
    fn spec(
        &self,
        id: JobId,
        item: &Item,
        request: &Request,
        plan_run: Option<JobId>,
    ) -> Result<Option<MachineSpec>, RecoveryError> {
        let target = &item.target;
        let (name, nics) = match request {
            Request::TestFailover { network, .. } => (
                format!(
                    "{}-test",
                    target.name.strip_suffix("-asr").unwrap_or(&target.name)
                ),
                network.as_ref().unwrap_or(&target.test_nics),
            ),
            Request::UnplannedFailover { .. }
            | Request::PlannedFailover
            | Request::ChangeRecoveryPoint { .. } => (target.name.clone(), &target.nics),
            _ => return Ok(None),
        };
        let mut nics = self.0.parts.journal.resolve_nics(item.machine, nics)??;
        if matches!(request, Request::TestFailover { .. }) {
            nics.iter_mut()
                .for_each(|nic| own_network(nic, plan_run.unwrap_or(id)));
        }
        Ok(Some(MachineSpec {
            name,
            folder: self.0.disks.folder(id).join("machine"),
            cpus: target.cpus,
            memory_bytes: target.memory_bytes,
            firmware: target.firmware,
            disk_bus: target.disk_bus,
            disks: self.0.disks.attachments(id, &item.disks),
            nics,
        }))
    }

    /// Every operation, with the reason where it is refused.
    pub fn allowed(&self, machine: MachineId) -> Result<Vec<(Operation, Option<Refusal>)>, RecoveryError> {
        let item = self.0.parts.journal.item(machine)?;
        self.0.with_facts(&item, admission::allowed)
    }

    /// Asks a job to stop and undo what it did. Refused past its point of no return. It is over when `wait` says so.
    pub fn cancel(&self, job: JobId) -> Result<(), RecoveryError> {
        let handle = self.0.queue().handles.get(&job).cloned();
        let Some(handle) = handle else {
            let known = self.0.parts.journal.job(job)?;
            return Err(if known.state.is_over() {
                Refusal::new(
                    "JobIsOver",
                    "The job is over.",
                    "It ended before the cancel came.",
                    "Look at its result.",
                )
            } else {
                Refusal::new(
                    "NotCancellable",
                    format!("A job of the kind {:?} cannot be cancelled here.", known.kind),
                    "It is not carried out by recovery.",
                    "Wait until it is over.",
                )
            }
            .into());
        };
        let mut gate = handle.gate();
        if *gate == Gate::TooLate {
            return Err(Refusal::new(
                "PastPointOfNoReturn",
                "The job can no longer be cancelled.",
                "What it does now cannot be taken back: the source is fenced, a machine is being removed, or points are.",
                "Wait until it is over.",
            )
            .into());
        }
        *gate = Gate::CancelRequested;
        Ok(())
    }

    /// The job when it is over; [`RecoveryError::StillRunning`] when it is not by then.
    pub fn wait(&self, job: JobId, limit: Duration) -> Result<Job, RecoveryError> {
        let deadline = Instant::now() + limit;
        loop {
            let known = self.0.parts.journal.job(job)?;
            if known.state.is_over() {
                return Ok(known);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(RecoveryError::StillRunning(job));
            }
            let queue = self.0.queue();
            let look = if queue.handles.contains_key(&job) {
                left
            } else {
                left.min(FOREIGN_LOOK)
            };
            drop(self.0.changed.wait_timeout(queue, look));
        }
    }

    fn failover(&self, machine: MachineId, test: bool) -> Result<Option<Failover>, RecoveryError> {
        let item = self.0.parts.journal.item(machine)?;
        Ok(if test { item.test_failover } else { item.failover })
    }

    /// The machine started by a failover, or by a test failover. None: there is none.
    pub fn machine_status(
        &self,
        machine: MachineId,
        test: bool,
    ) -> Result<Option<MachineStatus>, RecoveryError> {
        match self.failover(machine, test)? {
            Some(failover) => Ok(Some(self.0.parts.compute.status(&failover.machine)?)),
            None => Ok(None),
        }
    }

    /// Starts a machine again that has stopped, after a restart of the host or because a person wants it, or lets one go on
    /// that waits for room on the disk. Its disks are as it left them. Nothing happens to one that runs.
    pub fn start_machine(&self, machine: MachineId, test: bool) -> Result<MachineStatus, RecoveryError> {
        // Nobody submits a cleanup meanwhile.
        let _one = self.0.submitting.lock().unwrap_or_else(PoisonError::into_inner);
        if self.0.is_stopping() {
            return Err(RecoveryError::ShuttingDown);
        }
        let item = self.0.parts.journal.item(machine)?;
        self.0.with_facts(&item, admission::job_running)??;
        let failover = if test {
            item.test_failover.as_ref()
        } else {
            item.failover.as_ref()
        };
        if let Some(failover) = failover.filter(|failover| !test && failover.machine.is_on_files()) {
            return Ok(self.0.parts.compute.start(&failover.machine)?);
        }
        let failover = failover
            .filter(|failover| changes::machines_to_serve(&item).contains(failover))
            .ok_or(RecoveryError::NoMachine)?;
        self.0.base_and_serve(&item, failover).map_err(Refusal::from)?;
        self.0.protect_at_target(&item).map_err(Refusal::from)?;
        Ok(self.0.parts.compute.start(&failover.machine)?)
    }

    /// Path of the serial port's log; may not exist yet. [`RecoveryError::NoMachine`]: there is no such machine.
    pub fn serial_log(&self, machine: MachineId, test: bool) -> Result<PathBuf, RecoveryError> {
        let failover = self.failover(machine, test)?.ok_or(RecoveryError::NoMachine)?;
        Ok(self.0.parts.compute.serial_log(&failover.machine))
    }

    /// Unix socket of its screen, keyboard and mouse (VNC); None: the hypervisor offers none.
    pub fn console(&self, machine: MachineId, test: bool) -> Result<Option<PathBuf>, RecoveryError> {
        let failover = self.failover(machine, test)?.ok_or(RecoveryError::NoMachine)?;
        Ok(self.0.parts.compute.console(&failover.machine))
    }

    /// A PNG of the screen.
    pub fn screenshot(&self, machine: MachineId, test: bool) -> Result<Vec<u8>, RecoveryError> {
        let failover = self.failover(machine, test)?.ok_or(RecoveryError::NoMachine)?;
        Ok(self.0.parts.compute.screenshot(&failover.machine)?)
    }

    /// Stops taking orders and serving disks. Machines go on running and wait for their disks; open jobs are taken up by
    /// the next `resume`.
    pub fn shut_down(&self) {
        let deadline = Instant::now() + self.0.limits.shut_down;
        let mut queue = self.0.queue();
        queue.stopping = true;
        self.0.changed.notify_all();
        while queue.threads > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                tracing::warn!(
                    threads = queue.threads,
                    "steps under way did not end; they will be run again"
                );
                break;
            }
            queue = self
                .0
                .changed
                .wait_timeout(queue, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        drop(queue);
        self.0.disks.shut_down();
    }
}

/// How an order is given.
#[derive(Default)]
struct Order {
    id: Option<JobId>,
    plan_run: Option<JobId>,
    restart_of: Option<JobId>,
}

/// An isolated network of a test is one of its own, so that two tests at once do not see each other, nor each other's
/// addresses.
fn own_network(nic: &mut Nic, of: JobId) {
    if let Network::Isolated { name, .. } = &mut nic.network {
        let id = of.0.simple().to_string();
        name.truncate(NETWORK_NAME_MAX);
        *name = format!("{name}-{}", &id[id.len() - 12..]);
    }
}

fn is_ours(kind: JobKind) -> bool {
    matches!(
        kind,
        JobKind::TestFailover
            | JobKind::TestFailoverCleanup
            | JobKind::PlannedFailover
            | JobKind::UnplannedFailover
            | JobKind::ChangeRecoveryPoint
            | JobKind::CommitFailover
            | JobKind::CancelFailover
            | JobKind::Failback
            | JobKind::Hydrate
            | JobKind::CompleteMigration
    )
}
