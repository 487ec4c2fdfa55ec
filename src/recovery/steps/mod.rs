//! The steps that jobs are made of: do, undo, and which ones cannot be undone.
//!
//! A step is run when the journal says that it is in progress, and may be run again after a crash: running it twice is the
//! same as running it once. So is undoing it, also when it was never run. What a step finds out goes to the job's result,
//! which the journal keeps with the step's end.
mod home;
mod hydrate;
mod migrate;
mod source;
mod start;
mod stop;

pub use hydrate::check_folder;
pub use start::millis_since;

use super::disks::Disks;
use super::error::{Refusal, failure};
use super::job::{JobError, JobId, JobKind};
use super::request::{PointChoice, Request};
use super::runner::{Limits, Parts};
use super::state::Failover;
use crate::block::{MachineId, PointId};
use crate::replica::ReplicaError;
use crate::target::{DiskFile, Forward, MachineSpec, TargetError};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// What can be known beforehand, is: the point can be read and the target can start machines.
    CheckTarget,
    LastSync,
    /// The source is brought to rest; its last point holds all that it ever wrote. It goes on when the job ends unfenced.
    StopSource,
    /// Point of no return: the source is refused from here on.
    FenceSource,
    /// What an earlier attempt could not undo.
    DiscardFailedAttempt,
    ChoosePoint,
    PinPoint,
    MakeBranches,
    ServeDisks,
    PrepareMachine,
    StartMachine,
    ConfirmStart,
    /// Whether the source stayed at rest until it was fenced.
    ConfirmRest,
    /// Point of no return: the test's machine is powered off.
    StopMachine,
    StopDisks,
    DiscardBranches,
    UnpinPoint,
    /// Point of no return.
    RemoveOtherPoints,
    /// Point of no return: the machine of a failover that is given up, with what it wrote.
    DiscardMachine,
    /// The source may go on, and everything is compared with it.
    ReleaseSource,
    CheckReceiver,
    /// The guest is shut down.
    StopTarget,
    SealFinalPoint,
    /// Waits until the receiver holds the final point and has compared its disks with it as a whole.
    HandHome,
    /// Point of no return: what the machine at the target might still write is refused from here on.
    FenceTarget,
    /// A machine that was to go home goes on at the target. Point of no return.
    RestartMachine,
    CheckDestination,
    /// QEMU copies the disks to files; the machine runs on.
    CopyDisks,
    /// Point of no return: the files take the place of the branches. The machine is held from here until the next step.
    PivotDisks,
    /// Point of no return: the machine runs on, on its files; what it lived on before becomes a last point and goes.
    ReleaseBranches,
    /// Point of no return: nobody's writes are taken for the item any more.
    EndReplication,
    /// The recovery points are removed, or kept where a person wants them.
    RemovePoints,
}

/// Name of the step during which, and after which, the source is to be kept at rest.
pub const STOP_SOURCE: &str = "StopSource";

const START: [Step; 7] = [
    Step::ChoosePoint,
    Step::PinPoint,
    Step::MakeBranches,
    Step::ServeDisks,
    Step::PrepareMachine,
    Step::StartMachine,
    Step::ConfirmStart,
];

/// The steps of a request in their order. `is_homecoming`: of a machine that came home and is not committed yet.
pub fn plan(request: &Request, is_homecoming: bool) -> Vec<Step> {
    let before: &[Step] = match request {
        Request::TestFailover { .. } => &[Step::CheckTarget, Step::LastSync],
        // The point is chosen behind the fence: nothing that the source was told is safe can come after it.
        Request::UnplannedFailover { .. } => &[
            Step::CheckTarget,
            Step::LastSync,
            Step::FenceSource,
            Step::DiscardFailedAttempt,
        ],
        Request::PlannedFailover => &[
            Step::CheckTarget,
            Step::StopSource,
            Step::FenceSource,
            Step::DiscardFailedAttempt,
        ],
        // The new point is held before the machine is given up: retention cannot take both.
        Request::ChangeRecoveryPoint { .. } => {
            let (hold, start) = START.split_at(2);
            return [&[Step::CheckTarget], hold, &[Step::DiscardMachine], start].concat();
        }
        Request::TestFailoverCleanup { .. } => {
            return vec![
                Step::StopMachine,
                Step::StopDisks,
                Step::DiscardBranches,
                Step::UnpinPoint,
            ];
        }
        Request::Failback => {
            return vec![
                Step::CheckReceiver,
                Step::StopTarget,
                Step::SealFinalPoint,
                Step::HandHome,
                Step::FenceTarget,
            ];
        }
        Request::CancelFailover if is_homecoming => return vec![Step::RestartMachine],
        Request::CancelFailover => return vec![Step::DiscardMachine, Step::ReleaseSource],
        Request::Commit if is_homecoming => return vec![Step::DiscardMachine],
        Request::Commit => return vec![Step::RemoveOtherPoints],
        Request::Hydrate { .. } => {
            return vec![
                Step::CheckDestination,
                Step::CopyDisks,
                Step::PivotDisks,
                Step::ReleaseBranches,
            ];
        }
        Request::CompleteMigration { .. } => return vec![Step::EndReplication, Step::RemovePoints],
    };
    let after: &[Step] = match request {
        Request::PlannedFailover => &[Step::ConfirmRest],
        _ => &[],
    };
    [before, &START, after].concat()
}

pub fn kind(request: &Request) -> JobKind {
    match request {
        Request::TestFailover { .. } => JobKind::TestFailover,
        Request::TestFailoverCleanup { .. } => JobKind::TestFailoverCleanup,
        Request::PlannedFailover => JobKind::PlannedFailover,
        Request::UnplannedFailover { .. } => JobKind::UnplannedFailover,
        Request::ChangeRecoveryPoint { .. } => JobKind::ChangeRecoveryPoint,
        Request::CancelFailover => JobKind::CancelFailover,
        Request::Commit => JobKind::CommitFailover,
        Request::Failback => JobKind::Failback,
        Request::Hydrate { .. } => JobKind::Hydrate,
        Request::CompleteMigration { .. } => JobKind::CompleteMigration,
    }
}

/// What was asked for, with what follows from it at that instant. A job's `parameters`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Parameters {
    pub request: Request,
    /// The machine to be started.
    pub machine: Option<MachineSpec>,
    /// To be cleaned up or committed; of an unplanned failover: what an earlier attempt left.
    pub failover: Option<Failover>,
    /// Of a cleanup: whether the test had succeeded.
    #[serde(default)]
    pub test_succeeded: bool,
    /// Of a failover that is run again.
    #[serde(default)]
    pub source_is_fenced: bool,
    /// The failover whose machine is the active one: it runs at the target.
    #[serde(default)]
    pub active: Option<JobId>,
    /// The machine came home by a failback that is not committed yet.
    #[serde(default)]
    pub is_homecoming: bool,
    /// The run of a recovery plan that gave the order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_run: Option<JobId>,
    /// Of a machine that is hydrated: what its disks become, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<DiskFile>,
}

impl Parameters {
    /// The machine of the failover as it is when it was hydrated.
    pub fn hydrated(&self) -> Option<Failover> {
        let failover = self.failover.as_ref()?;
        Some(Failover {
            machine: failover.machine.on_files(&self.files),
            ..failover.clone()
        })
    }
}

/// What came out so far. A job's `result`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Outcome {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub point_id: Option<PointId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub point_instant_unix_nanos: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub point_consistency: Option<crate::block::Consistency>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<std::path::PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accelerator: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub forwards: Vec<Forward>,
    /// From the order to the first NBD read that was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_read_ms: Option<u64>,
    /// From the order to the first byte on the serial port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_start_ms: Option<u64>,
    /// Generation that fences the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removed_points: Option<usize>,
    /// The last point of a source that was brought to rest: it holds all that was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_point: Option<PointId>,
    /// The source said after the fence that it had stayed at rest since that point: nothing is lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stayed_at_rest: Option<bool>,
    /// Of the copies that hydrate a machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copied_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_since_unix_nanos: Option<i64>,
    /// From the hold to the record that the files count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_ms: Option<u64>,
    /// What the target got back on its disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freed_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept_points: Option<usize>,
}

/// How a step ended.
#[derive(Debug)]
pub enum Done {
    Succeeded(String),
    Skipped(String),
}

#[derive(Debug)]
pub enum Fault {
    Failed(JobError),
    /// A wait was ended because the job is to be cancelled or the runner stops.
    Interrupted,
}

macro_rules! failed_by {
    ($($error:ty),*) => {
        $(impl From<$error> for Fault {
            fn from(error: $error) -> Self {
                Self::Failed(error.into())
            }
        })*
    };
}
failed_by!(JobError, Refusal, ReplicaError, TargetError);

fn missing(what: &str) -> JobError {
    failure(
        "JobIncomplete",
        format!("The job does not hold {what}."),
        "The vault's database was changed from outside, or by another version.",
        "Run the operation again.",
    )
}

/// What a step works with.
pub struct Context<'a> {
    pub parts: &'a Parts,
    pub disks: &'a Disks,
    pub limits: &'a Limits,
    pub id: JobId,
    pub machine: MachineId,
    pub created_unix_nanos: i64,
    pub parameters: &'a Parameters,
    pub outcome: &'a mut Outcome,
    /// The machine was started by this process: its first read and its start can be measured.
    pub started_here: &'a mut bool,
    /// The job is to be cancelled, or the runner stops.
    pub interrupted: &'a dyn Fn() -> bool,
    /// Keeps how far the step is, with what it found out so far.
    pub tell: &'a dyn Fn(&str, &Outcome),
}

impl Step {
    const ALL: [Self; 32] = [
        Self::CheckTarget,
        Self::LastSync,
        Self::StopSource,
        Self::FenceSource,
        Self::DiscardFailedAttempt,
        Self::ChoosePoint,
        Self::PinPoint,
        Self::MakeBranches,
        Self::ServeDisks,
        Self::PrepareMachine,
        Self::StartMachine,
        Self::ConfirmStart,
        Self::ConfirmRest,
        Self::StopMachine,
        Self::StopDisks,
        Self::DiscardBranches,
        Self::UnpinPoint,
        Self::RemoveOtherPoints,
        Self::DiscardMachine,
        Self::ReleaseSource,
        Self::CheckReceiver,
        Self::StopTarget,
        Self::SealFinalPoint,
        Self::HandHome,
        Self::FenceTarget,
        Self::RestartMachine,
        Self::CheckDestination,
        Self::CopyDisks,
        Self::PivotDisks,
        Self::ReleaseBranches,
        Self::EndReplication,
        Self::RemovePoints,
    ];

    /// Stable: it stands in the journal.
    pub fn name(self) -> String {
        format!("{self:?}")
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.name() == name)
    }

    /// From its begin on the job cannot be cancelled any more, and what this step does stays done.
    pub fn is_point_of_no_return(self) -> bool {
        matches!(
            self,
            Self::FenceSource
                | Self::StopMachine
                | Self::RemoveOtherPoints
                | Self::DiscardMachine
                | Self::FenceTarget
                | Self::RestartMachine
                | Self::PivotDisks
                | Self::ReleaseBranches
                | Self::EndReplication
                | Self::RemovePoints
        )
    }

    pub fn run(self, context: &mut Context) -> Result<Done, Fault> {
        match self {
            Self::CheckTarget => start::check_target(context),
            Self::LastSync => source::last_sync(context),
            Self::StopSource => source::halt(context),
            Self::FenceSource => source::fence(context),
            Self::DiscardFailedAttempt => stop::discard_failed_attempt(context),
            Self::ChoosePoint => start::choose_point(context),
            Self::PinPoint => start::pin_point(context),
            Self::MakeBranches => start::make_branches(context),
            Self::ServeDisks => start::serve_disks(context),
            Self::PrepareMachine => start::prepare_machine(context),
            Self::StartMachine => start::start_machine(context),
            Self::ConfirmStart => start::confirm_start(context),
            Self::ConfirmRest => source::confirm_rest(context),
            Self::StopMachine => stop::stop_machine(context),
            Self::StopDisks => stop::stop_disks(context),
            Self::DiscardBranches => stop::discard_branches(context),
            Self::UnpinPoint => stop::unpin_point(context),
            Self::RemoveOtherPoints => stop::remove_other_points(context),
            Self::DiscardMachine => stop::discard_machine(context),
            Self::ReleaseSource => source::release(context),
            Self::CheckReceiver => home::check_receiver(context),
            Self::StopTarget => home::stop_target(context),
            Self::SealFinalPoint => home::seal_final_point(context),
            Self::HandHome => home::hand_home(context),
            Self::FenceTarget => home::fence_target(context),
            Self::RestartMachine => home::restart_machine(context),
            Self::CheckDestination => hydrate::check_destination(context),
            Self::CopyDisks => hydrate::copy_disks(context),
            Self::PivotDisks => hydrate::pivot_disks(context),
            Self::ReleaseBranches => hydrate::release_branches(context),
            Self::EndReplication => migrate::end_replication(context),
            Self::RemovePoints => migrate::remove_points(context),
        }
    }

    pub fn has_undo(self) -> bool {
        matches!(
            self,
            Self::PinPoint
                | Self::MakeBranches
                | Self::ServeDisks
                | Self::PrepareMachine
                | Self::StopTarget
                | Self::SealFinalPoint
                | Self::CheckDestination
                | Self::CopyDisks
        )
    }

    /// Safe to repeat, and to call for a step that was never run.
    pub fn undo(self, context: &mut Context) -> Result<(), JobError> {
        match self {
            Self::PinPoint | Self::SealFinalPoint => stop::unpin(context, context.id),
            Self::MakeBranches => context.disks.discard(context.id),
            Self::ServeDisks => context.disks.stop(context.id),
            // Starting has no undo of its own: what was prepared is destroyed with whatever runs in it.
            Self::PrepareMachine => match &context.parameters.machine {
                Some(machine) => stop::destroy(context, machine),
                None => Ok(()),
            },
            Self::StopTarget => home::start_again(context),
            Self::CheckDestination => hydrate::remove_files(context),
            Self::CopyDisks => hydrate::end_copies(context),
            _ => Ok(()),
        }
    }
}

impl Request {
    /// The recovery point that was asked for.
    pub fn point(&self) -> Option<PointChoice> {
        match self {
            Self::TestFailover { point, .. }
            | Self::UnplannedFailover { point, .. }
            | Self::ChangeRecoveryPoint { point } => Some(*point),
            // The one that the source makes when it is at rest.
            Self::PlannedFailover => Some(PointChoice::Latest),
            _ => None,
        }
    }
}
