//! Carries one job out: its tasks one after the other, each journalled before its effect; when one fails or a person
//! cancels, what was done is undone.
//!
//! ```text
//!   NotStarted ──> InProgress, task by task ──────────────> Succeeded
//!                     │ a task fails, or cancel before the point of no return
//!                     ▼
//!                  InProgress with an error: undo, last task first ──> Failed | Cancelled
//! ```
//! A crash leaves the job in the journal as it was last recorded. Whoever takes it up runs the task that was in progress
//! again, or goes on undoing. A journal that refuses is asked until it answers or the runner stops: an effect without its
//! record would be forgotten. A panic inside a step is a failure of that job, never of the process.
use super::changes::{self, CANCELLED, Change};
use super::disks::{Base, attached};
use super::error::{chain, failure};
use super::job::{Job, JobError, JobId, JobState, JournalError, Task, TaskState};
use super::runner::{Handle, Shared};
use super::state::{Failover, Item};
use super::steps::{Context, Done, Fault, Outcome, Parameters, Step};
use crate::rt::now_unix_nanos;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

const UNDO: &str = "Undo";
/// Whoever changed the item in between has had its turn; so that two of them do not spin.
const CONFLICT_PAUSE: Duration = Duration::from_millis(1);

/// Why a record was not made.
#[derive(Debug)]
enum NotRecorded {
    /// The runner stops; the job is taken up by the next start.
    Stopping,
    /// The item is not in a state in which this can be said of it, or is gone.
    Refused(String),
}

/// Everything about the job under way.
struct Run<'a> {
    shared: &'a Arc<Shared>,
    handle: &'a Handle,
    job: Job,
    parameters: Parameters,
    outcome: Outcome,
    started_here: bool,
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

fn internal_error(panic: &(dyn std::any::Any + Send)) -> JobError {
    failure(
        "InternalError",
        format!("A fault inside Lifeboat: {}.", panic_text(panic)),
        "A mistake in the program.",
        "Run the operation again; report the message with the server's log.",
    )
}

fn state_changed(why: &str) -> JobError {
    failure(
        "StateChanged",
        format!("The item changed while the job was running: {why}."),
        "Protection was disabled, or the vault's database was changed from outside.",
        "Look at the item's state and run the operation again.",
    )
}

impl Shared {
    pub(super) fn execute(self: &Arc<Self>, id: JobId, handle: &Handle) {
        let end = catch_unwind(AssertUnwindSafe(|| self.carry_out(id, handle, None)));
        let Err(panic) = end else { return };
        let error = internal_error(&*panic);
        tracing::error!(job = %id, error = %error.message, "a job was broken off");
        if catch_unwind(AssertUnwindSafe(|| self.carry_out(id, handle, Some(error)))).is_err() {
            tracing::error!(job = %id, "a job could not be ended; the next start of the server takes it up");
        }
    }

    /// `broken`: it is not to go on, but to be undone.
    fn carry_out(self: &Arc<Self>, id: JobId, handle: &Handle, broken: Option<JobError>) {
        let Some(job) = self.ask(|| self.parts.journal.job(id)) else {
            return;
        };
        if job.state.is_over() {
            return;
        }
        let outcome = serde_json::from_value(job.result.clone()).unwrap_or_default();
        let parameters: Parameters = match serde_json::from_value(job.parameters.clone()) {
            Ok(parameters) => parameters,
            Err(error) => return self.end_unreadable(job, &error),
        };
        let mut run = Run {
            shared: self,
            handle,
            job,
            parameters,
            outcome,
            started_here: false,
        };
        if run.job.error.is_none() {
            run.job.error = broken;
        }
        let stopped = if run.job.error.is_none() {
            run.advance()
        } else {
            Ok(())
        };
        let stopped = stopped.and_then(|()| match run.job.state.is_over() {
            true => Ok(()),
            false => run.undo(),
        });
        match stopped {
            Err(NotRecorded::Stopping) => {
                tracing::info!(job = %id, "a job waits for the next start of the server");
            }
            Err(NotRecorded::Refused(why)) => {
                tracing::error!(job = %id, why, "a job's end could not be told to its item");
            }
            Ok(()) => {
                tracing::info!(job = %id, kind = ?run.job.kind, state = ?run.job.state, "a job is over");
            }
        }
    }

    /// Asks the journal until it answers. None: what was asked for does not exist, or the runner stops.
    fn ask<T>(&self, question: impl Fn() -> Result<T, JournalError>) -> Option<T> {
        let mut said = false;
        loop {
            match question() {
                Ok(answer) => return Some(answer),
                // A conflict without an item: the job itself was ended by somebody else.
                Err(error @ (JournalError::NoItem(_) | JournalError::NoJob(_) | JournalError::Conflict)) => {
                    tracing::warn!(%error, "a job has lost what it is about");
                    return None;
                }
                Err(error) if !said => {
                    tracing::error!(error = chain(&error), "the journal refuses; asking again");
                    said = true;
                }
                Err(_) => {}
            }
            if self.pause(self.limits.journal_again) {
                return None;
            }
        }
    }

    /// A job whose orders cannot be read is ended, so that its item is free again. What it did is not known.
    fn end_unreadable(&self, mut job: Job, error: &serde_json::Error) {
        job.error = Some(failure(
            "JobIncomplete",
            format!("The job's orders cannot be read: {error}."),
            "The vault's database was changed from outside, or by another version.",
            "Run the operation again.",
        ));
        job.state = JobState::Failed;
        job.ended_unix_nanos = Some(now_unix_nanos());
        let kind = job.kind;
        let told = self.record(&mut job, &mut Outcome::default(), |item| {
            changes::at_failure(item, kind, false, None)
        });
        if let Err(NotRecorded::Refused(_)) = told {
            // Without the item: it may be gone.
            self.ask(|| self.parts.journal.record(&job, None));
        }
    }

    /// Keeps the job and what it changes in its item: both or neither. `decide` is asked again when somebody else changed
    /// the item in between.
    fn record(
        &self,
        job: &mut Job,
        outcome: &mut Outcome,
        decide: impl Fn(&Item) -> Vec<Change>,
    ) -> Result<(), NotRecorded> {
        let journal = &self.parts.journal;
        let mut said = false;
        loop {
            let attempt = (|| -> Result<Result<(), String>, JournalError> {
                let mut item = match journal.item(job.machine) {
                    Ok(item) => item,
                    Err(JournalError::NoItem(_)) => return Ok(Err("it is gone".into())),
                    Err(error) => return Err(error),
                };
                let changes = decide(&item);
                for change in &changes {
                    if let Err(refused) = change.apply(&mut item) {
                        return Ok(Err(refused.to_string()));
                    }
                    if matches!(change, Change::RaiseGeneration { .. }) {
                        outcome.generation = Some(item.generation);
                    }
                }
                job.result = serde_json::to_value(&*outcome).unwrap_or_default();
                journal.record(job, (!changes.is_empty()).then_some(&item))?;
                Ok(Ok(()))
            })();
            match attempt {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(why)) => return Err(NotRecorded::Refused(why)),
                Err(JournalError::Conflict) => match journal.job(job.id) {
                    Ok(kept) if kept.state.is_over() => {
                        return Err(NotRecorded::Refused("the job was ended by somebody else".into()));
                    }
                    _ if self.pause(CONFLICT_PAUSE) => return Err(NotRecorded::Stopping),
                    _ => continue,
                },
                Err(error) if !said => {
                    tracing::error!(job = %job.id, error = chain(&error), "the journal refuses; asking again");
                    said = true;
                }
                Err(_) => {}
            }
            if self.pause(self.limits.journal_again) {
                return Err(NotRecorded::Stopping);
            }
            // A journal that failed may have kept the record all the same. That must be known before it is said again: the
            // item has moved on then, and would refuse what it was told before.
            if self.is_kept(job)? {
                return Ok(());
            }
        }
    }

    fn is_kept(&self, job: &Job) -> Result<bool, NotRecorded> {
        loop {
            match self.parts.journal.job(job.id) {
                Ok(kept) => {
                    return Ok(kept.state == job.state && kept.error == job.error && kept.tasks == job.tasks);
                }
                Err(JournalError::NoJob(_)) => return Ok(false),
                Err(_) if self.pause(self.limits.journal_again) => return Err(NotRecorded::Stopping),
                Err(_) => {}
            }
        }
    }
}

#[cfg(test)]
impl Shared {
    /// Undoes a job that is over once more.
    pub(super) fn undo_again(self: &Arc<Self>, job: Job) -> Result<(), JobError> {
        let handle = Handle::too_late();
        let mut run = Run {
            shared: self,
            handle: &handle,
            parameters: serde_json::from_value(job.parameters.clone()).unwrap(),
            outcome: serde_json::from_value(job.result.clone()).unwrap(),
            job,
            started_here: false,
        };
        let tasks = run.job.tasks.clone();
        tasks
            .iter()
            .rev()
            .filter(|task| !matches!(task.state, TaskState::NotStarted | TaskState::Skipped))
            .filter_map(|task| Step::from_name(&task.name))
            .try_for_each(|step| run.context(|context| step.undo(context)))
    }
}

impl Run<'_> {
    fn record(&mut self, decide: impl Fn(&Item) -> Vec<Change>) -> Result<(), NotRecorded> {
        self.shared.record(&mut self.job, &mut self.outcome, decide)
    }

    /// Without the item, which may be gone.
    fn record_job(&mut self) -> Result<(), NotRecorded> {
        self.job.result = serde_json::to_value(&self.outcome).unwrap_or_default();
        let (shared, job) = (self.shared, &self.job);
        let told = shared.ask(|| shared.parts.journal.record(job, None));
        told.ok_or_else(|| {
            if shared.is_stopping() {
                NotRecorded::Stopping
            } else {
                NotRecorded::Refused("the job is gone, or was ended by somebody else".into())
            }
        })
    }

    /// To the end, or to an error in `job.error`.
    fn advance(&mut self) -> Result<(), NotRecorded> {
        self.job.state = JobState::InProgress;
        self.job.started_unix_nanos.get_or_insert(now_unix_nanos());
        // What the step before made true is recorded with the begin of the next.
        let mut pending: Vec<Change> = Vec::new();
        for index in 0..self.job.tasks.len() {
            let task = &self.job.tasks[index];
            if matches!(task.state, TaskState::Succeeded | TaskState::Skipped) {
                continue;
            }
            let Some(step) = Step::from_name(&task.name) else {
                self.fail(
                    index,
                    failure(
                        "UnknownStep",
                        format!("This version does not know the step {}.", task.name),
                        "The job was begun by another version of Lifeboat.",
                        "Run the operation again.",
                    ),
                );
                return Ok(());
            };
            if self.shared.is_stopping() {
                return Err(NotRecorded::Stopping);
            }
            let goes_on = if step.is_point_of_no_return() {
                self.handle.pass()
            } else {
                !self.handle.is_cancelled()
            };
            if !goes_on {
                self.cancelled();
                return Ok(());
            }
            let task = &mut self.job.tasks[index];
            task.state = TaskState::InProgress;
            task.started_unix_nanos.get_or_insert(now_unix_nanos());
            let store_generation = self.store_generation();
            let mut changes = std::mem::take(&mut pending);
            changes.extend(changes::before(
                step,
                &self.parameters.request,
                &self.outcome,
                store_generation,
            ));
            match self.record(|_| changes.clone()) {
                Err(NotRecorded::Refused(why)) => {
                    self.fail(index, state_changed(&why));
                    return Ok(());
                }
                other => other?,
            }
            let end = self.guarded(|run| run.run_step(index, step));
            let task = &mut self.job.tasks[index];
            match end {
                Ok(done) => {
                    task.ended_unix_nanos = Some(now_unix_nanos());
                    (task.state, task.message) = match done {
                        Done::Succeeded(message) => (TaskState::Succeeded, message),
                        Done::Skipped(message) => (TaskState::Skipped, message),
                    };
                    pending = changes::after(step, &self.parameters);
                }
                Err(Fault::Interrupted) if self.handle.is_cancelled() => {
                    self.cancelled();
                    return Ok(());
                }
                Err(Fault::Interrupted) => return Err(NotRecorded::Stopping),
                Err(Fault::Failed(error)) => {
                    self.fail(index, error);
                    return Ok(());
                }
            }
        }
        self.succeed(pending)
    }

    fn succeed(&mut self, pending: Vec<Change>) -> Result<(), NotRecorded> {
        let now = now_unix_nanos();
        let started = self.started();
        let mut changes = pending;
        changes.extend(changes::at_success(&self.parameters, started.clone(), now));
        self.job.state = JobState::Succeeded;
        self.job.ended_unix_nanos = Some(now);
        match self.record(|_| changes.clone()) {
            Err(NotRecorded::Refused(why)) => {
                self.job.state = JobState::InProgress;
                self.job.ended_unix_nanos = None;
                self.job.error = Some(state_changed(&why));
                Ok(())
            }
            Err(other) => Err(other),
            Ok(()) => {
                if let Some(started) = started {
                    self.shared.watch_start(started.job, &started.machine);
                }
                self.protect_at_target();
                Ok(())
            }
        }
    }

    /// From the first second on. A machine that cannot be protected runs all the same; the next start tries again.
    fn protect_at_target(&self) {
        let protected = match self.shared.parts.journal.item(self.job.machine) {
            Ok(item) => self.shared.protect_at_target(&item),
            // It is gone with the job, or the journal is: the next start reads it again.
            Err(_) => Ok(()),
        };
        if let Err(error) = protected {
            tracing::error!(machine = %self.job.machine, error = %error.message, "what the machine writes is not protected");
        }
    }

    /// The machine of this job, as the item remembers it.
    fn started(&self) -> Option<Failover> {
        Some(Failover {
            job: self.job.id,
            point: self.outcome.point_id?,
            point_instant_unix_nanos: self.outcome.point_instant_unix_nanos?,
            started_unix_nanos: now_unix_nanos(),
            machine: self.parameters.machine.clone()?,
        })
    }

    fn store_generation(&self) -> u64 {
        let machines = self.shared.parts.store.machines();
        machines
            .iter()
            .find(|machine| machine.id == self.job.machine)
            .map_or(0, |machine| machine.generation)
    }

    /// Runs a part of a step; a panic in it is an error of this job.
    fn guarded(&mut self, part: impl FnOnce(&mut Self) -> Result<Done, Fault>) -> Result<Done, Fault> {
        catch_unwind(AssertUnwindSafe(|| part(self))).unwrap_or_else(|panic| {
            let error = internal_error(&*panic);
            tracing::error!(job = %self.job.id, error = %error.message, "a step was broken off");
            Err(error.into())
        })
    }

    fn context<T>(&mut self, call: impl FnOnce(&mut Context) -> T) -> T {
        let (shared, handle) = (self.shared, self.handle);
        let job = &self.job;
        // Told again in a moment: a journal that refuses this holds nothing up.
        let tell = |message: &str, outcome: &Outcome| {
            let mut told = job.clone();
            if let Some(task) = told
                .tasks
                .iter_mut()
                .find(|task| task.state == TaskState::InProgress)
            {
                message.clone_into(&mut task.message);
            }
            told.result = serde_json::to_value(outcome).unwrap_or_default();
            let _ = shared.parts.journal.record(&told, None);
        };
        call(&mut Context {
            parts: &shared.parts,
            disks: &shared.disks,
            limits: &shared.limits,
            id: self.job.id,
            machine: self.job.machine,
            created_unix_nanos: self.job.created_unix_nanos,
            parameters: &self.parameters,
            outcome: &mut self.outcome,
            started_here: &mut self.started_here,
            interrupted: &|| handle.is_cancelled() || shared.is_stopping(),
            tell: &tell,
        })
    }

    fn run_step(&mut self, index: usize, step: Step) -> Result<Done, Fault> {
        // What lived in a process that is gone is made again.
        let serves = |task: &Task| {
            task.state == TaskState::Succeeded && Step::from_name(&task.name) == Some(Step::ServeDisks)
        };
        if self.job.tasks[..index].iter().any(serves)
            && let (Some(machine), Some(point)) = (&self.parameters.machine, self.outcome.point_id)
        {
            let disks = attached(machine)?;
            self.shared.disks.serve(
                self.job.id,
                Base {
                    machine: self.job.machine,
                    point,
                    disks: &disks,
                },
            )?;
        }
        self.context(|context| step.run(context))
    }

    fn fail(&mut self, index: usize, error: JobError) {
        let task = &mut self.job.tasks[index];
        task.state = TaskState::Failed;
        task.ended_unix_nanos = Some(now_unix_nanos());
        task.error = Some(error.clone());
        self.job.error = Some(error);
    }

    fn cancelled(&mut self) {
        self.job.error = Some(failure(
            CANCELLED,
            "The job was cancelled.",
            "A person asked for it.",
            "Run the operation again when it is wanted.",
        ));
    }

    /// Undoes what was done, the last step first, and ends the job.
    fn undo(&mut self) -> Result<(), NotRecorded> {
        // First, so that after a crash nobody goes forward again over what is half undone.
        self.job.state = JobState::InProgress;
        self.job.tasks.retain(|task| task.name != UNDO);
        match self.record_job() {
            // Undone all the same: nobody else will. But never what the journal says was done: a machine lives on it.
            Err(NotRecorded::Refused(why)) => {
                let kept = self.shared.parts.journal.job(self.job.id);
                if kept.is_ok_and(|kept| kept.state == JobState::Succeeded) {
                    return Err(NotRecorded::Refused(why));
                }
                tracing::warn!(job = %self.job.id, why, "a job is undone without its record");
            }
            other => other?,
        }
        let steps: Vec<Step> = self
            .job
            .tasks
            .iter()
            .filter(|task| !matches!(task.state, TaskState::NotStarted | TaskState::Skipped))
            .filter_map(|task| Step::from_name(&task.name))
            .rev()
            .collect();
        let began = now_unix_nanos();
        let mut undone = Vec::new();
        let mut trouble = None;
        for step in steps.iter().copied().filter(|step| step.has_undo()) {
            let end = self.guarded(|run| {
                run.context(|context| step.undo(context))?;
                Ok(Done::Succeeded(String::new()))
            });
            match end {
                Ok(_) => undone.push(step.name()),
                // What comes before it may be in use by what could not be undone.
                Err(Fault::Failed(error)) => {
                    tracing::error!(job = %self.job.id, step = step.name(), error = %error.message, "a step could not be undone");
                    trouble = Some(error);
                    break;
                }
                Err(Fault::Interrupted) => return Err(NotRecorded::Stopping),
            }
        }
        let left = trouble.as_ref().and_then(|_| self.started());
        if !undone.is_empty() || trouble.is_some() {
            self.job.tasks.push(Task {
                name: UNDO.into(),
                state: if trouble.is_some() {
                    TaskState::Failed
                } else {
                    TaskState::Succeeded
                },
                started_unix_nanos: Some(began),
                ended_unix_nanos: Some(now_unix_nanos()),
                message: format!("Undone: {}.", undone.join(", ")),
                error: trouble,
            });
        }
        // A task that was under way is over too.
        for task in &mut self.job.tasks {
            if task.state == TaskState::InProgress {
                task.state = TaskState::Failed;
                task.ended_unix_nanos.get_or_insert(now_unix_nanos());
            }
        }
        let code = self.job.error.as_ref().map_or("", |error| error.code.as_str());
        self.job.state = changes::end_state(code);
        self.job.ended_unix_nanos = Some(now_unix_nanos());
        let (kind, test_succeeded) = (self.job.kind, self.parameters.test_succeeded);
        match self.record(|item| changes::at_failure(item, kind, test_succeeded, left.clone())) {
            // The job ends all the same; its item was taken out of its hands.
            Err(NotRecorded::Refused(why)) => {
                tracing::warn!(job = %self.job.id, why, "the item of a failed job is in another state");
                self.record_job()?;
            }
            other => other?,
        }
        // A machine that goes on at the target goes on being protected, whatever was stopped of it.
        if self.parameters.active.is_some() {
            self.protect_at_target();
        }
        Ok(())
    }
}
