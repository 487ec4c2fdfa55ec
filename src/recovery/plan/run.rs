//! A run of a plan as a value: its steps, what is next, and what a person may do about it. Pure.
//!
//! ```text
//! NotStarted ──> InProgress ──> Succeeded | Failed | Cancelled
//!                  │     ▲
//!       waits for  ▼     │ resume, skip
//!       a person  Suspended
//! ```
use super::model::{Action, ActionKind, Direction, FailoverType, OnMachineFailure, Plan, PlanMachine};
use crate::block::MachineId;
use crate::recovery::error::Refusal;
use crate::recovery::job::{JobError, JobId, JobState};
use crate::recovery::request::{PointChoice, Request};
use crate::recovery::state::{ActiveLocation, Item, ProtectionState, TestFailoverState};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What is done with a whole plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PlanOperation {
    TestFailover,
    TestFailoverCleanup,
    PlannedFailover,
    UnplannedFailover,
    Commit,
    CancelFailover,
    /// Reprotect.
    ReverseReplicate,
    Failback,
}

impl PlanOperation {
    pub const ALL: [Self; 8] = [
        Self::TestFailover,
        Self::TestFailoverCleanup,
        Self::PlannedFailover,
        Self::UnplannedFailover,
        Self::Commit,
        Self::CancelFailover,
        Self::ReverseReplicate,
        Self::Failback,
    ];

    /// What a machine's job is asked for; None: it is a reprotect, which the vault takes.
    pub fn request(self, options: &RunOptions, network: Option<Vec<crate::target::Nic>>) -> Option<Request> {
        Some(match self {
            Self::TestFailover => Request::TestFailover {
                point: options.point.unwrap_or(PointChoice::LatestProcessed),
                network,
            },
            Self::TestFailoverCleanup => Request::TestFailoverCleanup {
                notes: options.notes.clone(),
            },
            Self::PlannedFailover => Request::PlannedFailover,
            Self::UnplannedFailover => {
                let point = options.point.unwrap_or(PointChoice::Latest);
                Request::UnplannedFailover {
                    point,
                    last_sync: point == PointChoice::Latest,
                }
            }
            Self::Commit => Request::Commit,
            Self::CancelFailover => Request::CancelFailover,
            Self::Failback => Request::Failback,
            Self::ReverseReplicate => return None,
        })
    }

    /// Machines are started, so the plan's actions are carried out; None: they are not.
    pub fn kind(self) -> Option<(FailoverType, Direction)> {
        match self {
            Self::TestFailover => Some((FailoverType::Test, Direction::PrimaryToRecovery)),
            Self::PlannedFailover => Some((FailoverType::Planned, Direction::PrimaryToRecovery)),
            Self::UnplannedFailover => Some((FailoverType::Unplanned, Direction::PrimaryToRecovery)),
            Self::Failback => Some((FailoverType::Planned, Direction::RecoveryToPrimary)),
            Self::TestFailoverCleanup | Self::Commit | Self::CancelFailover | Self::ReverseReplicate => None,
        }
    }

    /// Whether a machine is where the run wants it, so that a refusal is no failure: another run, or a person, was first.
    pub fn is_done(self, item: &Item) -> bool {
        let away = item.active_location == ActiveLocation::Recovery;
        match self {
            Self::TestFailover => false,
            Self::TestFailoverCleanup => item.test_failover_state == TestFailoverState::None,
            Self::PlannedFailover | Self::UnplannedFailover => away && item.failover.is_some(),
            Self::Commit => matches!(
                item.protection,
                ProtectionState::CommitFailoverCompleted
                    | ProtectionState::ReprotectInitiated
                    | ProtectionState::Protected
            ),
            Self::CancelFailover => !away && item.protection == ProtectionState::Protected,
            Self::ReverseReplicate => matches!(
                item.protection,
                ProtectionState::ReprotectInitiated | ProtectionState::Protected
            ),
            Self::Failback => !away,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RunOptions {
    /// None: the operation's own.
    pub point: Option<PointChoice>,
    /// Of a cleanup.
    pub notes: String,
    /// In place of the plan's.
    pub test_network: Option<String>,
    /// Of a point that machines share: chosen for all of them when the run began, whenever each one's turn comes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pinned: Vec<Pinned>,
}

/// The point of one machine in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pinned {
    pub machine: MachineId,
    pub choice: PointChoice,
}

impl RunOptions {
    /// As one machine's order takes them.
    pub fn of(&self, machine: MachineId) -> Self {
        let mut own = self.clone();
        if let Some(pinned) = self.pinned.iter().find(|pinned| pinned.machine == machine) {
            own.point = Some(pinned.choice);
        }
        own
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    Before,
    Machines,
    After,
    OnFailure,
    AfterCleanup,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepState {
    NotStarted,
    InProgress,
    /// Waits for a person.
    Suspended,
    Succeeded,
    Failed,
    Skipped,
}

impl StepState {
    pub fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Skipped)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StepWork {
    Action(Action),
    Machine(PlanMachine),
}

/// Measured for one machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineFigures {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub point_instant_unix_nanos: Option<i64>,
    /// Age of the point when the run began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rpo_seconds: Option<f64>,
    /// From the run's begin to the end of the machine's step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rto_seconds: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunStep {
    /// Steps of one stage go on at once.
    pub stage: u32,
    /// Of the plan, from 0 on; None: of the plan as a whole.
    pub group: Option<u32>,
    pub phase: Phase,
    pub work: StepWork,
    pub state: StepState,
    /// How often it was begun.
    #[serde(default)]
    pub attempt: u32,
    /// The job of a machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// Jobs of earlier attempts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier_jobs: Vec<JobId>,
    #[serde(default)]
    pub started_unix_nanos: Option<i64>,
    #[serde(default)]
    pub ended_unix_nanos: Option<i64>,
    #[serde(default)]
    pub message: String,
    #[serde(default)]
    pub error: Option<JobError>,
    /// Who resumed or skipped it, and what they wrote.
    #[serde(default)]
    pub decided_by: Option<String>,
    #[serde(default)]
    pub comment: String,
    #[serde(default)]
    pub figures: MachineFigures,
}

impl RunStep {
    pub fn name(&self) -> &str {
        match &self.work {
            StepWork::Action(action) => &action.name,
            StepWork::Machine(machine) => &machine.name,
        }
    }

    pub fn end(&mut self, state: StepState, message: impl Into<String>, now: i64) {
        self.state = state;
        self.message = message.into();
        self.ended_unix_nanos = Some(now);
    }

    pub fn fail(&mut self, error: JobError, now: i64) {
        self.state = StepState::Failed;
        self.message = error.message.clone();
        self.error = Some(error);
        self.ended_unix_nanos = Some(now);
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanRun {
    pub id: JobId,
    pub vault: String,
    /// Stays when the plan is renamed.
    pub plan_id: String,
    /// As it was when the run began.
    pub plan: Plan,
    pub operation: PlanOperation,
    pub options: RunOptions,
    pub state: JobState,
    pub user: String,
    /// Grows with every write; a write names the one it read.
    pub revision: u64,
    pub created_unix_nanos: i64,
    pub started_unix_nanos: Option<i64>,
    pub ended_unix_nanos: Option<i64>,
    pub steps: Vec<RunStep>,
    /// A person has stopped it: nothing new begins until it is resumed.
    #[serde(default)]
    pub stopped_by: Option<String>,
    /// A person has ended it for good.
    #[serde(default)]
    pub cancelled_by: Option<String>,
    /// Why it waits, in words.
    #[serde(default)]
    pub waits_for: String,
    #[serde(default)]
    pub error: Option<JobError>,
}

/// What a person does about a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PersonsWord {
    /// Nothing new begins; what is under way goes on to its end.
    Stop,
    /// After a stop: it goes on. A manual action: done. A failed step that waits: tried again.
    Resume { step: Option<usize>, comment: String },
    /// Goes on without a step that waits, has failed, or is an action under way.
    Skip { step: Option<usize>, comment: String },
    /// Ends the run for good; what was started stays.
    Cancel,
}

fn refusal(code: &str, message: &str, causes: &str, action: &str) -> Refusal {
    Refusal::new(code, message, causes, action)
}

impl PlanRun {
    /// The steps of an operation, in stages.
    pub fn new(
        id: JobId,
        (vault, plan_id): (&str, &str),
        plan: Plan,
        operation: PlanOperation,
        options: RunOptions,
        user: &str,
        now: i64,
    ) -> Self {
        let mut steps: Vec<RunStep> = Vec::new();
        let mut stage = 0;
        let step = |stage: u32, group: Option<usize>, phase: Phase, work: StepWork| RunStep {
            stage,
            group: group.map(|group| group as u32),
            phase,
            work,
            state: StepState::NotStarted,
            attempt: 0,
            job: None,
            earlier_jobs: Vec::new(),
            started_unix_nanos: None,
            ended_unix_nanos: None,
            message: String::new(),
            error: None,
            decided_by: None,
            comment: String::new(),
            figures: MachineFigures::default(),
        };
        let kind = operation.kind();
        let actions = |steps: &mut Vec<RunStep>, stage: &mut u32, group, phase, all: &[Action]| {
            for action in all {
                let applies = match (kind, phase) {
                    (_, Phase::AfterCleanup) => operation == PlanOperation::TestFailoverCleanup,
                    (Some((kind, direction)), _) => action.applies(kind, direction),
                    (None, _) => false,
                };
                if applies {
                    steps.push(step(*stage, group, phase, StepWork::Action(action.clone())));
                    *stage += 1;
                }
            }
        };
        let mut groups: Vec<usize> = (0..plan.groups.len()).collect();
        if operation == PlanOperation::TestFailoverCleanup {
            // What depends on others goes first.
            groups.reverse();
        }
        for number in groups {
            let group = &plan.groups[number];
            actions(&mut steps, &mut stage, Some(number), Phase::Before, &group.before);
            for machine in &group.machines {
                steps.push(step(
                    stage,
                    Some(number),
                    Phase::Machines,
                    StepWork::Machine(machine.clone()),
                ));
            }
            stage += 1;
            actions(&mut steps, &mut stage, Some(number), Phase::After, &group.after);
        }
        actions(
            &mut steps,
            &mut stage,
            None,
            Phase::AfterCleanup,
            &plan.after_cleanup,
        );
        actions(&mut steps, &mut stage, None, Phase::OnFailure, &plan.on_failure);
        Self {
            id,
            vault: vault.to_owned(),
            plan_id: plan_id.to_owned(),
            plan,
            operation,
            options,
            state: JobState::NotStarted,
            user: user.to_owned(),
            revision: 0,
            created_unix_nanos: now,
            started_unix_nanos: None,
            ended_unix_nanos: None,
            steps,
            stopped_by: None,
            cancelled_by: None,
            waits_for: String::new(),
            error: None,
        }
    }

    fn main(&self) -> impl Iterator<Item = (usize, &RunStep)> {
        self.steps
            .iter()
            .enumerate()
            .filter(|(_, step)| step.phase != Phase::OnFailure)
    }

    /// A failed step holds the run up until a person has decided, or ends it.
    fn holds_up(&self, step: &RunStep) -> bool {
        // An action that fails is no smaller matter than a machine that does.
        step.state == StepState::Failed && self.plan.on_machine_failure != OnMachineFailure::GoOn
    }

    /// What people may do now.
    pub fn allowed_actions(&self) -> Vec<&'static str> {
        if self.state.is_over() || self.cancelled_by.is_some() {
            return Vec::new();
        }
        let mut all = Vec::new();
        if self.stopped_by.is_none() {
            all.push("stop");
        }
        if self.stopped_by.is_some() || self.waiting().next().is_some() {
            all.push("resume");
        }
        if self.skippable().next().is_some() {
            all.push("skip");
        }
        all.push("cancel");
        all
    }

    /// Steps that a person must decide about.
    fn waiting(&self) -> impl Iterator<Item = usize> {
        self.main()
            .filter(|(_, step)| {
                step.state == StepState::Suspended
                    || self.plan.on_machine_failure == OnMachineFailure::Ask && self.holds_up(step)
            })
            .map(|(place, _)| place)
            .chain(
                self.steps
                    .iter()
                    .enumerate()
                    .filter(|(_, step)| step.phase == Phase::OnFailure && step.state == StepState::Suspended)
                    .map(|(place, _)| place),
            )
    }

    pub fn skippable(&self) -> impl Iterator<Item = usize> {
        let waiting: Vec<usize> = self.waiting().collect();
        self.steps
            .iter()
            .enumerate()
            .filter(move |(place, step)| {
                waiting.contains(place)
                    || step.state == StepState::InProgress && matches!(step.work, StepWork::Action(_))
            })
            .map(|(place, _)| place)
    }

    /// Takes a person's word into the run; the refusal says why not.
    pub fn hear(&mut self, word: &PersonsWord, user: &str, now: i64) -> Result<(), Refusal> {
        if self.state.is_over() || self.cancelled_by.is_some() {
            return Err(refusal(
                "RunIsOver",
                "The run is over, or is being ended.",
                "It ended before the order came.",
                "Look at its result; start another run where it is wanted.",
            ));
        }
        let nothing = || {
            refusal(
                "NothingWaits",
                "No step of the run waits for a person.",
                "Somebody else was first, or the run goes on by itself.",
                "Look at the run again.",
            )
        };
        match word {
            PersonsWord::Stop => {
                self.stopped_by.get_or_insert_with(|| user.to_owned());
            }
            PersonsWord::Cancel => self.cancelled_by = Some(user.to_owned()),
            PersonsWord::Resume { step, comment } => {
                if self.stopped_by.take().is_some() {
                    self.goes_on(word);
                    return Ok(());
                }
                let waiting: Vec<usize> = self.waiting().collect();
                let chosen: Vec<usize> = match step {
                    Some(step) => waiting.into_iter().filter(|place| place == step).collect(),
                    None => waiting,
                };
                if chosen.is_empty() {
                    return Err(nothing());
                }
                for place in chosen {
                    let step = &mut self.steps[place];
                    step.decided_by = Some(user.to_owned());
                    step.comment.clone_from(comment);
                    if step.state == StepState::Suspended {
                        step.end(StepState::Succeeded, format!("Done, says {user}."), now);
                    } else {
                        again(step);
                    }
                }
            }
            PersonsWord::Skip { step, comment } => {
                let mut all = self.skippable();
                let chosen = match step {
                    Some(step) => all.find(|place| place == step),
                    None => all.next(),
                };
                drop(all);
                let step = &mut self.steps[chosen.ok_or_else(nothing)?];
                step.decided_by = Some(user.to_owned());
                step.comment.clone_from(comment);
                step.end(StepState::Skipped, format!("Skipped by {user}."), now);
            }
        }
        self.goes_on(word);
        Ok(())
    }

    /// Whether it waits all the same is found out at once; until then nobody shall read that it does.
    fn goes_on(&mut self, word: &PersonsWord) {
        if *word != PersonsWord::Stop && self.state == JobState::Suspended {
            self.state = JobState::InProgress;
            self.waits_for.clear();
        }
    }

    /// Figures of the whole run: the slowest and the oldest count.
    pub fn result(&self) -> Value {
        let machines = || {
            self.steps
                .iter()
                .filter(|step| matches!(step.work, StepWork::Machine(_)))
        };
        let max = |figure: fn(&MachineFigures) -> Option<f64>| {
            machines()
                .filter_map(|step| figure(&step.figures))
                .reduce(f64::max)
        };
        let count = |state| machines().filter(|step| step.state == state).count();
        let (failed, skipped) = (count(StepState::Failed), count(StepState::Skipped));
        let succeeded = count(StepState::Succeeded);
        let description = match self.state {
            JobState::Failed if succeeded > 0 => "PartiallySucceeded",
            JobState::Succeeded if skipped > 0 => "CompletedWithInformation",
            _ => "",
        };
        // Until everything that the plan holds to be part of it has ended: probes and scripts too.
        let all = self
            .steps
            .iter()
            .filter(|step| step.phase != Phase::OnFailure)
            .filter_map(|step| step.ended_unix_nanos)
            .max()
            .filter(|_| self.state == JobState::Succeeded && self.operation.kind().is_some())
            .map(|end| seconds(end - self.created_unix_nanos));
        json!({
            "machinesSucceeded": succeeded, "machinesFailed": failed, "machinesSkipped": skipped,
            "rpoSeconds": max(|figures| figures.rpo_seconds), "rtoSeconds": max(|figures| figures.rto_seconds),
            "planRtoSeconds": all, "description": description,
        })
    }
}

pub(super) fn seconds(nanos: i64) -> f64 {
    nanos as f64 / 1e9
}

/// Back to the beginning; what it was before is kept where it counts.
pub(super) fn again(step: &mut RunStep) {
    step.earlier_jobs.extend(step.job.take());
    step.state = StepState::NotStarted;
    step.error = None;
    step.ended_unix_nanos = None;
    step.started_unix_nanos = None;
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// These steps begin.
    Begin(Vec<usize>),
    /// Something is under way.
    Wait,
    /// Nothing is under way, and a person is to decide; why, in words.
    Suspend(String),
    /// All is over.
    End(JobState),
}

/// The steps' states decide, and nothing else.
pub fn next(run: &PlanRun) -> Decision {
    let busy = run.steps.iter().any(|step| step.state == StepState::InProgress);
    if run.cancelled_by.is_some() {
        return if busy {
            Decision::Wait
        } else {
            Decision::End(JobState::Cancelled)
        };
    }
    let failed = run.main().any(|(_, step)| run.holds_up(step));
    let asks = run.plan.on_machine_failure == OnMachineFailure::Ask;
    // The first stage that is not over.
    let stage = |on_failure: bool| {
        run.steps
            .iter()
            .filter(|step| (step.phase == Phase::OnFailure) == on_failure)
            .filter(|step| !step.state.is_over() || asks && !on_failure && run.holds_up(step))
            .map(|step| step.stage)
            .min()
    };
    let stage = match (failed && !asks, stage(false)) {
        (false, Some(stage)) => Some(stage),
        (false, None) if run.main().all(|(_, step)| step.state != StepState::Failed) => {
            return if busy {
                Decision::Wait
            } else {
                Decision::End(JobState::Succeeded)
            };
        }
        // It failed: what is under way ends first, then the actions for that.
        _ if busy && !in_failure_phase(run) => return Decision::Wait,
        _ => match stage(true) {
            Some(stage) => Some(stage),
            None if busy => return Decision::Wait,
            None => return Decision::End(JobState::Failed),
        },
    };
    let of_stage: Vec<(usize, &RunStep)> = run
        .steps
        .iter()
        .enumerate()
        .filter(|(_, step)| Some(step.stage) == stage)
        .collect();
    let ready: Vec<usize> = of_stage
        .iter()
        .filter(|(_, step)| step.state == StepState::NotStarted)
        .map(|(place, _)| *place)
        .collect();
    if !ready.is_empty() && run.stopped_by.is_none() {
        return Decision::Begin(ready);
    }
    if busy {
        return Decision::Wait;
    }
    Decision::Suspend(
        match (
            &run.stopped_by,
            run.waiting().next().map(|place| &run.steps[place]),
        ) {
            (Some(who), _) => format!("Stopped by {who}."),
            (None, Some(step)) => match &step.work {
                StepWork::Action(Action {
                    kind: ActionKind::Manual { instructions },
                    name,
                    ..
                }) if step.state == StepState::Suspended => format!("{name}: {instructions}"),
                _ => format!("{} failed: {}", step.name(), step.message),
            },
            // Not reached: a stage that is not over has a step that begins, is under way, or waits.
            (None, None) => "Waits for a person.".to_owned(),
        },
    )
}

fn in_failure_phase(run: &PlanRun) -> bool {
    run.steps
        .iter()
        .any(|step| step.phase == Phase::OnFailure && step.state != StepState::NotStarted)
}
