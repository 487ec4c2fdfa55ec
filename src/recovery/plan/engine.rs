//! Carries runs out: one thread for each, which sees that what [`next`] decides is done.
//!
//! A run changes by two hands: the engine's and people's. Both write under the revision that they read; who is second reads
//! again. Nothing is kept here that matters: what is under way is found again from the journal by [`Engine::resume`].
//!
//! | lock | held for | inside it |
//! |---|---|---|
//! | `starting` | one `start` | `state`, the journal |
//! | `state` | a look or a change | nothing |
use super::actions::{self, Execution, Place};
use super::model::{ActionKind, Plan};
use super::run::{
    Decision, PersonsWord, Phase, Pinned, PlanOperation, PlanRun, RunOptions, RunStep, StepState, StepWork,
    next, seconds,
};
use crate::block::MachineId;
use crate::recovery::error::{RecoveryError, Refusal, chain, failure};
use crate::recovery::job::{Job, JobError, JobId, JobKind, JobState, JournalError, TaskState};
use crate::recovery::request::{Operation, PointChoice};
use crate::recovery::runner::Runner;
use crate::recovery::steps::Outcome;
use crate::rt::now_unix_nanos;
use crate::target::network::IsolatedNetwork;
use crate::target::{Network, Nic};
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often somebody else's write to a run is met before it is an error.
const CONFLICTS_MAX: u32 = 50;

/// What the vault keeps of runs. Each call is one transaction and durable on return.
pub trait PlanJournal: Send + Sync {
    fn plan_run(&self, run: JobId) -> Result<PlanRun, JournalError>;
    /// Runs that are not over, the oldest first.
    fn open_plan_runs(&self) -> Result<Vec<PlanRun>, JournalError>;
    /// Keeps a run. `revision` must be the one that is stored, else [`JournalError::Conflict`]; it grows by one. Inserts it
    /// when it is new; one plan has one open run at most, else [`JournalError::Conflict`].
    fn record_plan_run(&self, run: &PlanRun) -> Result<(), JournalError>;
    /// Orders a reprotect that admission allows, as this job.
    fn reprotect(&self, job: JobId, machine: MachineId, user: &str) -> Result<(), RecoveryError>;
    fn cancel_reprotect(&self, job: JobId) -> Result<(), RecoveryError>;
}

pub struct EngineParts {
    pub runner: Runner,
    pub journal: Arc<dyn PlanJournal>,
    /// Folder of the scripts that plans may use.
    pub scripts: PathBuf,
}

/// Times that a test wants smaller.
#[derive(Clone, Debug)]
pub struct EngineLimits {
    /// Between two looks at jobs that are under way.
    pub look: Duration,
    /// For actions under way when the engine stops.
    pub shut_down: Duration,
}

impl Default for EngineLimits {
    fn default() -> Self {
        Self {
            look: Duration::from_millis(250),
            shut_down: Duration::from_secs(10),
        }
    }
}

/// What is to be started.
#[derive(Clone, Debug)]
pub struct NewRun {
    pub vault: String,
    pub plan_id: String,
    pub plan: Plan,
    pub operation: PlanOperation,
    pub options: RunOptions,
    pub user: String,
}

/// A step's attempt.
type Key = (JobId, usize, u32);

#[derive(Default)]
struct State {
    stopping: bool,
    driven: HashSet<JobId>,
    working: HashSet<Key>,
    finished: HashMap<Key, Result<String, JobError>>,
    /// Actions that are no longer wanted.
    interrupted: HashSet<Key>,
}

struct Shared {
    parts: EngineParts,
    limits: EngineLimits,
    state: Mutex<State>,
    changed: Condvar,
    starting: Mutex<()>,
}

/// Cheap to clone. All calls block.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

impl Engine {
    pub fn new(parts: EngineParts) -> Self {
        Self::with_limits(parts, EngineLimits::default())
    }

    pub fn with_limits(parts: EngineParts, limits: EngineLimits) -> Self {
        Self(Arc::new(Shared {
            parts,
            limits,
            state: Mutex::default(),
            changed: Condvar::new(),
            starting: Mutex::new(()),
        }))
    }

    /// After a start of the server, behind [`Runner::resume`]: open runs go on. How many there are.
    pub fn resume(&self) -> Result<usize, RecoveryError> {
        let open = self.0.parts.journal.open_plan_runs()?;
        open.iter().for_each(|run| self.0.drive(run.id));
        Ok(open.len())
    }

    /// Names of the scripts that plans may use, and the folder where they are.
    pub fn scripts(&self) -> (PathBuf, Vec<String>) {
        let folder = self.0.parts.scripts.clone();
        let names = actions::usable_scripts(&folder);
        (folder, names)
    }

    /// Why a script would not be run now.
    pub fn script_trouble(&self, name: &str) -> Option<JobError> {
        actions::script_file(&self.0.parts.scripts, name).err()
    }

    /// Takes an order: when this returns, the run is in the journal and will be carried out, also after a crash.
    pub fn start(&self, new: NewRun) -> Result<JobId, RecoveryError> {
        let _one = self.0.starting.lock().unwrap_or_else(PoisonError::into_inner);
        if self.0.state().stopping {
            return Err(RecoveryError::ShuttingDown);
        }
        if new.plan.machines().next().is_none() {
            return Err(Refusal::new(
                "PlanIsEmpty",
                format!("The plan {} has no machines.", new.plan.name),
                "It was made and not filled yet, or its machines are no longer replicated.",
                "Put machines into its groups: lifeboat plan edit.",
            )
            .into());
        }
        let open = self.0.parts.journal.open_plan_runs()?;
        if let Some(other) = open.iter().find(|run| run.plan_id == new.plan_id) {
            return Err(Refusal::new(
                "PlanRuns",
                format!(
                    "A run of the plan {} is not over: {:?}.",
                    new.plan.name, other.operation
                ),
                "One run at a time works on a plan; one that waits for a person counts.",
                "Wait until it is over, resume it, or cancel it: lifeboat plan run show.",
            )
            .into());
        }
        let mut options = new.options;
        options.pinned = self.0.pin(&new.plan, new.operation, options.point)?;
        let id = JobId::new();
        let run = PlanRun::new(
            id,
            (&new.vault, &new.plan_id),
            new.plan,
            new.operation,
            options,
            &new.user,
            now_unix_nanos(),
        );
        self.0.parts.journal.record_plan_run(&run)?;
        self.0.drive(id);
        Ok(id)
    }

    /// A person stops, resumes, skips or cancels.
    pub fn say(&self, id: JobId, word: &PersonsWord, user: &str) -> Result<PlanRun, RecoveryError> {
        for _ in 0..CONFLICTS_MAX {
            let mut run = self.0.parts.journal.plan_run(id)?;
            let before = run.clone();
            run.hear(word, user, now_unix_nanos())?;
            match self.0.parts.journal.record_plan_run(&run) {
                Ok(()) => {
                    let mut state = self.0.state();
                    for (place, step) in before.steps.iter().enumerate() {
                        let gone = step.state == StepState::InProgress
                            && run.steps[place].state != StepState::InProgress;
                        if gone {
                            state.interrupted.insert((id, place, step.attempt));
                        }
                    }
                    drop(state);
                    self.0.changed.notify_all();
                    return Ok(self.0.parts.journal.plan_run(id)?);
                }
                Err(JournalError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(JournalError::Conflict.into())
    }

    /// The run when it is over, or waits for a person; None: neither within the limit.
    pub fn wait(&self, id: JobId, limit: Duration) -> Result<Option<PlanRun>, RecoveryError> {
        let deadline = Instant::now() + limit;
        loop {
            let run = self.0.parts.journal.plan_run(id)?;
            if run.state.is_over() || run.state == JobState::Suspended {
                return Ok(Some(run));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            self.0.pause(self.0.limits.look);
        }
    }

    /// Starts nothing more. Runs are taken up by the next `resume`.
    pub fn shut_down(&self) {
        let deadline = Instant::now() + self.0.limits.shut_down;
        let mut state = self.0.state();
        state.stopping = true;
        self.0.changed.notify_all();
        while !(state.driven.is_empty() && state.working.is_empty()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                tracing::warn!("actions of recovery plans under way did not end; they will be run again");
                return;
            }
            state = self
                .0
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pin(
        &self,
        plan: &Plan,
        operation: PlanOperation,
        choice: Option<PointChoice>,
    ) -> Result<Vec<Pinned>, RecoveryError> {
        let takes_a_point = matches!(
            operation,
            PlanOperation::TestFailover | PlanOperation::UnplannedFailover
        );
        let Some(choice) = choice.filter(|_| takes_a_point) else {
            return Ok(Vec::new());
        };
        let machines = plan.machines().map(|machine| machine.id);
        let pinned = self.parts.runner.pin(machines, choice)?;
        Ok(pinned
            .into_iter()
            .map(|(machine, choice)| Pinned { machine, choice })
            .collect())
    }

    /// Until something changes, but no longer than this.
    fn pause(&self, limit: Duration) {
        let state = self.state();
        if !state.stopping {
            drop(self.changed.wait_timeout(state, limit));
        }
    }

    fn drive(self: &Arc<Self>, id: JobId) {
        if !self.state().driven.insert(id) {
            return;
        }
        let shared = self.clone();
        let thread = std::thread::Builder::new().name("plan-run".into()).spawn(move || {
            // A panic must not leave a run that seems to be driven.
            let driven = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| shared.go_through(id)));
            if driven.is_err() {
                tracing::error!(run = %id, "the run of a recovery plan ended in a panic; it is taken up by the next start of the server");
            }
            shared.state().driven.remove(&id);
            shared.changed.notify_all();
        });
        if let Err(error) = thread {
            tracing::error!(%error, run = %id, "no thread for the run of a recovery plan");
            self.state().driven.remove(&id);
        }
    }

    fn go_through(self: &Arc<Self>, id: JobId) {
        while !self.state().stopping {
            match self.advance(id) {
                Ok(true) => return,
                Ok(false) => {}
                // Somebody else wrote: read it again.
                Err(JournalError::Conflict) => continue,
                Err(error) => {
                    tracing::error!(run = %id, error = chain(&error), "the run of a recovery plan cannot go on now");
                }
            }
            self.pause(self.limits.look);
        }
    }

    /// One look at the run and what follows from it. True: it is over.
    fn advance(self: &Arc<Self>, id: JobId) -> Result<bool, JournalError> {
        let mut run = self.parts.journal.plan_run(id)?;
        if run.state.is_over() {
            return Ok(true);
        }
        let before = run.clone();
        let taken = self.gather(&mut run);
        let now = now_unix_nanos();
        let decision = next(&run);
        match &decision {
            Decision::Begin(places) => {
                run.state = JobState::InProgress;
                run.started_unix_nanos.get_or_insert(now);
                run.waits_for.clear();
                for &place in places {
                    begin(&mut run.steps[place], now);
                }
            }
            Decision::Wait => {
                run.state = JobState::InProgress;
                run.waits_for.clear();
            }
            Decision::Suspend(why) => {
                run.state = JobState::Suspended;
                run.waits_for.clone_from(why);
            }
            Decision::End(state) => end(&mut run, *state, now),
        }
        if run != before {
            self.parts.journal.record_plan_run(&run)?;
        }
        // What was taken into the journal is not needed here any more.
        let mut state = self.state();
        for key in taken {
            state.finished.remove(&key);
        }
        drop(state);
        match decision {
            Decision::End(_) => return Ok(true),
            // Straight on: a step that takes no time costs no look.
            Decision::Begin(_) => {
                self.put_to_work(&run);
                return self.advance(id);
            }
            Decision::Wait | Decision::Suspend(_) => self.put_to_work(&run),
        }
        Ok(false)
    }

    /// What has become of the steps under way.
    fn gather(&self, run: &mut PlanRun) -> Vec<Key> {
        let mut taken = Vec::new();
        let whole = run.clone();
        for (place, step) in run.steps.iter_mut().enumerate() {
            if step.state != StepState::InProgress {
                continue;
            }
            match (&step.work, step.job) {
                (StepWork::Machine(machine), Some(job)) => {
                    let machine = machine.id;
                    self.look_at_machine(&whole, step, machine, job);
                }
                (StepWork::Machine(_), None) => step.fail(lost(), now_unix_nanos()),
                (StepWork::Action(_), _) => {
                    let key = (whole.id, place, step.attempt);
                    let mut state = self.state();
                    if whole.cancelled_by.is_some() {
                        state.interrupted.insert(key);
                        step.end(StepState::Skipped, "The run was cancelled.", now_unix_nanos());
                        continue;
                    }
                    match state.finished.get(&key) {
                        Some(Ok(words)) => step.end(StepState::Succeeded, words, now_unix_nanos()),
                        Some(Err(error)) => step.fail(error.clone(), now_unix_nanos()),
                        None => continue,
                    }
                    taken.push(key);
                }
            }
        }
        taken
    }

    fn look_at_machine(&self, run: &PlanRun, step: &mut RunStep, machine: MachineId, id: JobId) {
        let now = now_unix_nanos();
        match self.parts.runner.job(id) {
            Ok(job) if job.state.is_over() => ended(run, step, &job, now),
            Ok(job) => {
                if run.cancelled_by.is_some() {
                    // Past its point of no return it goes on to its end.
                    let _ = match job.kind {
                        JobKind::Reprotect => self.parts.journal.cancel_reprotect(id),
                        _ => self.parts.runner.cancel(id),
                    };
                }
                let task = job.tasks.iter().find(|task| task.state == TaskState::InProgress);
                step.message = task.map(|task| task.name.clone()).unwrap_or_default();
            }
            Err(RecoveryError::Journal(JournalError::NoJob(_))) => {
                if run.cancelled_by.is_some() {
                    step.end(StepState::Skipped, "The run was cancelled.", now);
                    return;
                }
                match self.order(run, machine, id) {
                    Ok(()) => {}
                    Err(RecoveryError::Refused(refusal)) if self.is_done(run, machine) => {
                        step.end(StepState::Skipped, refusal.message, now);
                    }
                    Err(RecoveryError::Refused(refusal)) => step.fail(refusal.into(), now),
                    Err(RecoveryError::Store(error)) => step.fail(error.into(), now),
                    Err(RecoveryError::Target(error)) => step.fail(error.into(), now),
                    Err(RecoveryError::Journal(JournalError::NoItem(_))) => step.fail(
                        failure(
                            "NotReplicated",
                            format!("{} is not a replicated item.", step.name()),
                            "Its replication was disabled after the plan was made.",
                            "Take it out of the plan, or enable its replication again.",
                        ),
                        now,
                    ),
                    // Asked again at the next look.
                    Err(error) => {
                        tracing::warn!(%error, machine = step.name(), "a machine's job cannot be ordered now")
                    }
                }
            }
            Err(error) => tracing::warn!(%error, job = %id, "a machine's job cannot be read now"),
        }
    }

    fn order(&self, run: &PlanRun, machine: MachineId, id: JobId) -> Result<(), RecoveryError> {
        let network = run
            .options
            .test_network
            .as_ref()
            .or(run.plan.test_network.as_ref());
        let network = match network.filter(|_| run.operation == PlanOperation::TestFailover) {
            None => None,
            Some(name) => {
                let item = self.parts.runner.item(machine)?;
                let into = |nic: Nic| Nic {
                    network: Network::Named { name: name.clone() },
                    ..nic
                };
                Some(item.target.test_nics.into_iter().map(into).collect())
            }
        };
        let runner = &self.parts.runner;
        match run.operation.request(&run.options.of(machine), network) {
            Some(request) => runner
                .submit_for(run.id, id, machine, request, &run.user)
                .map(|_| ()),
            None => {
                let refusal = runner
                    .allowed(machine)?
                    .into_iter()
                    .find(|(operation, _)| *operation == Operation::ReverseReplicate)
                    .and_then(|(_, refusal)| refusal);
                match refusal {
                    Some(refusal) => Err(refusal.into()),
                    None => self.parts.journal.reprotect(id, machine, &run.user),
                }
            }
        }
    }

    fn is_done(&self, run: &PlanRun, machine: MachineId) -> bool {
        let item = self.parts.runner.item(machine);
        item.is_ok_and(|item| run.operation.is_done(&item))
    }

    /// Sees that every action under way has somebody who works on it.
    fn put_to_work(self: &Arc<Self>, run: &PlanRun) {
        for (place, step) in run.steps.iter().enumerate() {
            let StepWork::Action(action) = &step.work else {
                continue;
            };
            let key = (run.id, place, step.attempt);
            if step.state != StepState::InProgress {
                continue;
            }
            {
                let mut state = self.state();
                if state.stopping || state.finished.contains_key(&key) || !state.working.insert(key) {
                    continue;
                }
            }
            let (shared, kind) = (self.clone(), action.kind.clone());
            let context = self.context(run, step);
            let already = step
                .started_unix_nanos
                .map_or(0, |started| now_unix_nanos() - started)
                .max(0);
            let test = run.operation == PlanOperation::TestFailover;
            let spawned = std::thread::Builder::new()
                .name("plan-action".into())
                .spawn(move || {
                    let work = std::panic::AssertUnwindSafe(|| {
                        shared.work(key, &kind, &context, Duration::from_nanos(already as u64), test)
                    });
                    let ended = std::panic::catch_unwind(work).unwrap_or_else(|_| Some(Err(lost())));
                    let mut state = shared.state();
                    state.working.remove(&key);
                    let wanted = !state.interrupted.remove(&key);
                    if let Some(ended) = ended.filter(|_| wanted) {
                        state.finished.insert(key, ended);
                    }
                    drop(state);
                    shared.changed.notify_all();
                });
            if let Err(error) = spawned {
                tracing::error!(%error, "no thread for an action of a recovery plan");
                self.state().working.remove(&key);
            }
        }
    }

    fn work(
        &self,
        key: Key,
        kind: &ActionKind,
        context: &[u8],
        already: Duration,
        test: bool,
    ) -> Option<Result<String, JobError>> {
        let interrupted = || {
            let state = self.state();
            state.stopping || state.interrupted.contains(&key)
        };
        let place = || match kind {
            ActionKind::Command { machine, .. } | ActionKind::Probe { machine, .. } => {
                self.place(*machine, test)
            }
            _ => Err(lost()),
        };
        // A script begins anew; what only waits goes on where it was.
        let already = match kind {
            ActionKind::Script { .. } | ActionKind::Command { .. } => Duration::ZERO,
            _ => already,
        };
        let execution = Execution {
            scripts: &self.parts.scripts,
            place: &place,
            context,
            started: Instant::now(),
            already,
            interrupted: &interrupted,
        };
        actions::carry_out(kind, &execution)
    }

    /// Where a machine that a failover started is reached.
    fn place(&self, machine: MachineId, test: bool) -> Result<Place, JobError> {
        let item = self
            .parts
            .runner
            .item(machine)
            .map_err(|_| not_running("the machine"))?;
        let failover = if test { &item.test_failover } else { &item.failover };
        let spec = &failover.as_ref().ok_or_else(|| not_running(&item.name))?.machine;
        let Some((number, nic)) = spec.nics.iter().enumerate().next() else {
            return Err(not_running(&item.name));
        };
        let address = nic.address.as_ref().map(|address| address.cidr.address);
        Ok(match &nic.network {
            Network::Isolated { name, .. } => {
                let network = IsolatedNetwork::new(name)?;
                let known = network.known_addresses()?;
                let given = known.of(&spec.mac(number));
                Place::Isolated {
                    network: name.clone(),
                    address: given.or(address),
                }
            }
            Network::User { .. } | Network::IsolatedUser { .. } => {
                let status = self.parts.runner.machine_status(machine, test);
                let forwards = status
                    .ok()
                    .flatten()
                    .map(|status| status.forwards)
                    .unwrap_or_default();
                Place::Forwards(
                    forwards
                        .iter()
                        .map(|forward| (forward.host_port, forward.guest_port))
                        .collect(),
                )
            }
            Network::Bridge { .. } | Network::Named { .. } => Place::Host { address },
        })
    }

    /// What a script is told.
    fn context(&self, run: &PlanRun, step: &RunStep) -> Vec<u8> {
        let test = run.operation == PlanOperation::TestFailover;
        let machines: Vec<_> = run
            .steps
            .iter()
            .filter_map(|step| match &step.work {
                StepWork::Machine(machine) => Some((step, machine)),
                StepWork::Action(_) => None,
            })
            .map(|(step, machine)| {
                let item = self.parts.runner.item(machine.id).ok();
                let failover = item.and_then(|item| if test { item.test_failover } else { item.failover });
                let spec = failover.map(|failover| failover.machine);
                let address = match self.place(machine.id, test) {
                    Ok(Place::Isolated { address, .. } | Place::Host { address }) => address,
                    _ => None,
                };
                json!({
                    "id": machine.id, "name": machine.name, "group": step.group.map(|group| group + 1),
                    "state": step.state, "job": step.job, "address": address,
                    "targetName": spec.as_ref().map(|spec| &spec.name),
                    "network": spec.as_ref().and_then(|spec| spec.nics.first()).map(|nic| &nic.network),
                    "recoveryPointUnixNanos": step.figures.point_instant_unix_nanos,
                })
            })
            .collect();
        let kind = run.operation.kind();
        let context = json!({
            "version": 1, "vault": run.vault, "plan": run.plan.name, "run": run.id, "operation": run.operation,
            "failoverType": kind.map(|(kind, _)| kind), "direction": kind.map(|(_, direction)| direction),
            "user": run.user, "action": step.name(), "phase": step.phase,
            "group": step.group.map(|group| group + 1), "attempt": step.attempt, "machines": machines,
        });
        serde_json::to_vec(&context).unwrap_or_default()
    }
}

fn lost() -> JobError {
    failure(
        "StepLost",
        "The step ended without a result.",
        "This is a defect, or the vault's database was changed from outside.",
        "Resume to try it again; look at the server's log.",
    )
}

fn not_running(name: &str) -> JobError {
    failure(
        "NoMachine",
        format!("{name} was not started by this operation; there is nothing to ask."),
        "Its step was skipped or failed, or it stands in a later group than the action.",
        "Move the action behind the machine's group, or skip it.",
    )
}

fn begin(step: &mut RunStep, now: i64) {
    step.attempt += 1;
    step.started_unix_nanos = Some(now);
    step.ended_unix_nanos = None;
    step.error = None;
    step.message.clear();
    step.state = match &step.work {
        StepWork::Action(action) if matches!(action.kind, ActionKind::Manual { .. }) => StepState::Suspended,
        StepWork::Action(_) => StepState::InProgress,
        StepWork::Machine(_) => {
            step.job = Some(JobId::new());
            StepState::InProgress
        }
    };
}

fn ended(run: &PlanRun, step: &mut RunStep, job: &Job, now: i64) {
    let outcome: Outcome = serde_json::from_value(job.result.clone()).unwrap_or_default();
    let ended = job.ended_unix_nanos.unwrap_or(now);
    match job.state {
        JobState::Succeeded => {
            // Of a cleanup or a commit the age of the point says nothing.
            if run.operation.kind().is_some() {
                if let Some(instant) = outcome.point_instant_unix_nanos {
                    step.figures.point_instant_unix_nanos = Some(instant);
                    step.figures.rpo_seconds = Some(seconds((run.created_unix_nanos - instant).max(0)));
                }
                step.figures.rto_seconds = Some(seconds((ended - run.created_unix_nanos).max(0)));
            }
            step.end(StepState::Succeeded, "", ended);
        }
        _ => {
            let error = job.error.clone().unwrap_or_else(|| {
                failure(
                    "JobCancelled",
                    "Its job was cancelled.",
                    "Somebody cancelled it.",
                    "Resume to try it again, skip to go on without it.",
                )
            });
            step.fail(error, ended);
        }
    }
}

fn end(run: &mut PlanRun, state: JobState, now: i64) {
    run.state = state;
    run.ended_unix_nanos = Some(now);
    run.waits_for.clear();
    run.stopped_by = None;
    if state == JobState::Failed {
        let failed = run
            .steps
            .iter()
            .find(|step| step.state == StepState::Failed && step.phase != Phase::OnFailure);
        run.error = failed.and_then(|step| {
            let mut error = step.error.clone()?;
            error.message = format!("{}: {}", step.name(), error.message);
            Some(error)
        });
    }
    for step in &mut run.steps {
        if !step.state.is_over() {
            let why = match (state, step.phase) {
                (JobState::Succeeded, Phase::OnFailure) => "Nothing failed.",
                (JobState::Cancelled, _) => "The run was cancelled.",
                _ => "Not reached.",
            };
            step.end(StepState::Skipped, why, now);
        }
    }
}
