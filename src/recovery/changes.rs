//! What a job changes in its item, as values: recorded together with the task that makes it true.
use super::job::{JobKind, JobState};
use super::request::Request;
use super::state::{
    ActiveLocation, Failover, Item, KeptPoints, ProtectionEvent, ProtectionState, Refused, TestEvent,
    TestFailoverState,
};
use super::steps::{Outcome, Parameters, Step};
use crate::block::PointId;

#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Protection(ProtectionEvent),
    Test(TestEvent),
    /// Raises the generation above this and above the item's.
    RaiseGeneration {
        above: u64,
    },
    /// None: it is gone.
    TestFailover(Option<Failover>),
    Failover(Option<Failover>),
    ActiveLocation(ActiveLocation),
    TestSucceeded {
        unix_nanos: i64,
    },
    /// The last point of a machine that comes home; None: it does not come now.
    FinalPoint(Option<PointId>),
    /// The way home is over.
    ReprotectEnds,
    /// The source goes on where somebody else wrote.
    NewLine,
    KeptPoints(Option<KeptPoints>),
}

impl Change {
    pub fn apply(&self, item: &mut Item) -> Result<(), Refused> {
        match self {
            Self::Protection(event) => item.protection = item.protection.step(*event)?,
            Self::Test(event) => item.test_failover_state = item.test_failover_state.step(*event)?,
            Self::RaiseGeneration { above } => item.generation = item.generation.max(*above) + 1,
            Self::TestFailover(failover) => item.test_failover = failover.clone(),
            Self::Failover(failover) => item.failover = failover.clone(),
            Self::ActiveLocation(location) => item.active_location = *location,
            Self::FinalPoint(point) => {
                if let Some(reprotect) = &mut item.reprotect {
                    reprotect.final_point = *point;
                }
            }
            Self::ReprotectEnds => item.reprotect = None,
            Self::NewLine => item.line += 1,
            Self::KeptPoints(kept) => item.kept_points = *kept,
            Self::TestSucceeded { unix_nanos } => item.last_successful_test_unix_nanos = Some(*unix_nanos),
        }
        Ok(())
    }
}

/// With the order.
pub fn at_submission(request: &Request) -> Change {
    match request {
        Request::TestFailover { .. } => Change::Test(TestEvent::TestRequested),
        Request::TestFailoverCleanup { .. } => Change::Test(TestEvent::CleanupRequested),
        Request::UnplannedFailover { .. } => Change::Protection(ProtectionEvent::FailoverRequested),
        Request::PlannedFailover | Request::Failback => {
            Change::Protection(ProtectionEvent::PlannedFailoverRequested)
        }
        Request::ChangeRecoveryPoint { .. } => Change::Protection(ProtectionEvent::ChangePointRequested),
        Request::CancelFailover => Change::Protection(ProtectionEvent::CancelRequested),
        Request::Commit => Change::Protection(ProtectionEvent::CommitRequested),
        Request::Hydrate { .. } => Change::Protection(ProtectionEvent::HydrateRequested),
        Request::CompleteMigration { .. } => Change::Protection(ProtectionEvent::MigrationRequested),
    }
}

/// With the begin of a step. `store_generation`: the highest that ever wrote to the store.
pub fn before(step: Step, request: &Request, outcome: &Outcome, store_generation: u64) -> Vec<Change> {
    let raise = Change::RaiseGeneration {
        above: store_generation,
    };
    match (step, request) {
        // Once in a job, also when the step is run again after a crash.
        (Step::FenceSource | Step::FenceTarget, _) if outcome.generation.is_none() => {
            vec![raise, Change::Protection(ProtectionEvent::SourceFenced)]
        }
        (Step::ReleaseSource, _) if outcome.generation.is_none() => vec![raise, Change::NewLine],
        (Step::RestartMachine | Step::EndReplication, _) if outcome.generation.is_none() => vec![raise],
        (Step::StartMachine, Request::TestFailover { .. }) => vec![Change::Test(TestEvent::MachineStarting)],
        (Step::StopDisks, Request::TestFailoverCleanup { .. }) => {
            vec![Change::Test(TestEvent::MachineStopped)]
        }
        (Step::HandHome, _) => vec![Change::FinalPoint(outcome.point_id)],
        _ => Vec::new(),
    }
}

/// With the end of a step that succeeded.
pub fn after(step: Step, parameters: &Parameters) -> Vec<Change> {
    match step {
        Step::DiscardFailedAttempt | Step::DiscardMachine if parameters.failover.is_some() => {
            vec![Change::Failover(None)]
        }
        // Recorded before the machine runs on: until then both its disks hold the same.
        Step::PivotDisks => parameters
            .hydrated()
            .map(|failover| Change::Failover(Some(failover)))
            .into_iter()
            .collect(),
        _ => Vec::new(),
    }
}

/// With the end of a job that succeeded. `started`: the machine that it started.
pub fn at_success(parameters: &Parameters, started: Option<Failover>, now_unix_nanos: i64) -> Vec<Change> {
    match &parameters.request {
        Request::TestFailover { .. } => vec![
            Change::Test(TestEvent::TestCompleted),
            Change::TestFailover(started),
        ],
        Request::UnplannedFailover { .. } | Request::PlannedFailover => vec![
            Change::Protection(ProtectionEvent::FailoverCompleted),
            Change::Failover(started),
            Change::ActiveLocation(ActiveLocation::Recovery),
        ],
        Request::ChangeRecoveryPoint { .. } => vec![
            Change::Protection(ProtectionEvent::ChangePointCompleted),
            Change::Failover(started),
        ],
        // What was started and stays, for a cancel before the commit.
        Request::Failback => vec![
            Change::Protection(ProtectionEvent::FailoverCompleted),
            Change::ActiveLocation(ActiveLocation::Primary),
        ],
        Request::CancelFailover if parameters.is_homecoming => vec![
            Change::Protection(ProtectionEvent::CancelCompleted),
            Change::FinalPoint(None),
            Change::ActiveLocation(ActiveLocation::Recovery),
        ],
        Request::CancelFailover => vec![
            Change::Protection(ProtectionEvent::CancelCompleted),
            Change::Failover(None),
            Change::ActiveLocation(ActiveLocation::Primary),
        ],
        Request::TestFailoverCleanup { .. } => {
            let mut changes = vec![
                Change::Test(TestEvent::CleanupCompleted),
                Change::TestFailover(None),
            ];
            if parameters.test_succeeded {
                changes.push(Change::TestSucceeded {
                    unix_nanos: now_unix_nanos,
                });
            }
            changes
        }
        Request::Commit if parameters.is_homecoming => vec![
            Change::Protection(ProtectionEvent::CommitCompleted),
            Change::Failover(None),
            Change::ReprotectEnds,
        ],
        Request::Commit => vec![Change::Protection(ProtectionEvent::CommitCompleted)],
        Request::Hydrate { .. } => vec![
            Change::Protection(ProtectionEvent::HydrateCompleted),
            Change::ReprotectEnds,
        ],
        Request::CompleteMigration { keep_points } => vec![
            Change::Protection(ProtectionEvent::DisableCompleted),
            Change::KeptPoints(keep_points.map(|keep| KeptPoints {
                since_unix_nanos: now_unix_nanos,
                until_unix_nanos: keep.until_unix_nanos,
            })),
        ],
    }
}

/// With the end of a job that failed or was cancelled and was undone. `left`: what could not be undone.
pub fn at_failure(item: &Item, kind: JobKind, test_succeeded: bool, left: Option<Failover>) -> Vec<Change> {
    match kind {
        JobKind::TestFailover if left.is_some() => {
            vec![Change::Test(TestEvent::TestFailed), Change::TestFailover(left)]
        }
        JobKind::TestFailover => vec![Change::Test(TestEvent::TestUndone)],
        JobKind::UnplannedFailover | JobKind::PlannedFailover if item.source_is_fenced() => {
            let mut changes = vec![Change::Protection(ProtectionEvent::FailoverFailed)];
            if left.is_some() {
                changes.push(Change::Failover(left));
            }
            changes
        }
        JobKind::UnplannedFailover | JobKind::PlannedFailover => {
            vec![Change::Protection(ProtectionEvent::FailoverAbandoned)]
        }
        JobKind::ChangeRecoveryPoint => {
            let mut changes = vec![Change::Protection(ProtectionEvent::ChangePointFailed)];
            if left.is_some() {
                changes.push(Change::Failover(left));
            }
            changes
        }
        JobKind::CancelFailover => vec![Change::Protection(ProtectionEvent::CancelFailed)],
        // The machine goes on at the target: what the receiver holds is not its last state any more.
        JobKind::Failback if item.protection == ProtectionState::PlannedFailoverInitiated => vec![
            Change::Protection(ProtectionEvent::FailoverAbandoned),
            Change::FinalPoint(None),
        ],
        JobKind::Failback => vec![
            Change::Protection(ProtectionEvent::FailoverFailed),
            Change::FinalPoint(None),
        ],
        JobKind::TestFailoverCleanup => vec![Change::Test(TestEvent::CleanupFailed { test_succeeded })],
        JobKind::CommitFailover => vec![Change::Protection(ProtectionEvent::CommitFailed)],
        JobKind::CompleteMigration => vec![Change::Protection(ProtectionEvent::DisableFailed)],
        // It runs as before, or on its files already.
        JobKind::Hydrate => Vec::new(),
        // Not carried out here.
        JobKind::EnableReplication
        | JobKind::DisableReplication
        | JobKind::Reprotect
        | JobKind::Resynchronize
        | JobKind::ChangeDisks
        | JobKind::CreateRecoveryPoint => Vec::new(),
    }
}

/// Whether a machine of the item is to have its disks served, after a start of the server: those that were started and not
/// given up. What a failed job left behind is not: only a cleanup or another attempt touches it.
pub fn machines_to_serve(item: &Item) -> Vec<&Failover> {
    let test = item
        .test_failover
        .as_ref()
        .filter(|_| item.test_failover_state == TestFailoverState::TestFailoverCompleted);
    let needs_us = |failover: &&Failover| !failover.machine.is_on_files();
    test.into_iter()
        .chain(active_machine(item).filter(needs_us))
        .collect()
}

/// The machine at the target that is the item's real one now.
pub fn active_machine(item: &Item) -> Option<&Failover> {
    item.failover
        .as_ref()
        .filter(|_| item.active_location == ActiveLocation::Recovery)
}

/// It came home by a failback, or half way; until the commit its disks at the target are kept. To cancel that is to let the
/// machine go on at the target, never to give it up: what it wrote there may be nowhere else.
pub fn is_homecoming(item: &Item) -> bool {
    let half_way = matches!(
        item.protection,
        ProtectionState::PlannedFailoverFailed | ProtectionState::CancelFailoverFailed
    );
    item.reprotect.is_some() && (item.active_location == ActiveLocation::Primary || half_way)
}

/// Code of the error that stands for a person's cancel.
pub const CANCELLED: &str = "Cancelled";

pub fn end_state(code: &str) -> JobState {
    if code == CANCELLED {
        JobState::Cancelled
    } else {
        JobState::Failed
    }
}
