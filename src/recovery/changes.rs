//! What a job changes in its item, as values: recorded together with the task that makes it true.
use super::job::{JobKind, JobState};
use super::request::Request;
use super::state::{ActiveLocation, Failover, Item, ProtectionEvent, Refused, TestEvent, TestFailoverState};
use super::steps::{Outcome, Parameters, Step};

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
        Request::Commit => Change::Protection(ProtectionEvent::CommitRequested),
    }
}

/// With the begin of a step. `store_generation`: the highest that ever wrote to the store.
pub fn before(step: Step, request: &Request, outcome: &Outcome, store_generation: u64) -> Vec<Change> {
    match (step, request) {
        // Once in a job, also when the step is run again after a crash.
        (Step::FenceSource, _) if outcome.generation.is_none() => vec![
            Change::RaiseGeneration {
                above: store_generation,
            },
            Change::Protection(ProtectionEvent::SourceFenced),
        ],
        (Step::StartMachine, Request::TestFailover { .. }) => vec![Change::Test(TestEvent::MachineStarting)],
        (Step::StopDisks, _) => vec![Change::Test(TestEvent::MachineStopped)],
        _ => Vec::new(),
    }
}

/// With the end of a step that succeeded.
pub fn after(step: Step, parameters: &Parameters) -> Vec<Change> {
    match step {
        Step::DiscardFailedAttempt if parameters.failover.is_some() => vec![Change::Failover(None)],
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
        Request::UnplannedFailover { .. } => vec![
            Change::Protection(ProtectionEvent::FailoverCompleted),
            Change::Failover(started),
            Change::ActiveLocation(ActiveLocation::Recovery),
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
        Request::Commit => vec![Change::Protection(ProtectionEvent::CommitCompleted)],
    }
}

/// With the end of a job that failed or was cancelled and was undone. `left`: what could not be undone.
pub fn at_failure(item: &Item, kind: JobKind, test_succeeded: bool, left: Option<Failover>) -> Vec<Change> {
    match kind {
        JobKind::TestFailover if left.is_some() => {
            vec![Change::Test(TestEvent::TestFailed), Change::TestFailover(left)]
        }
        JobKind::TestFailover => vec![Change::Test(TestEvent::TestUndone)],
        JobKind::UnplannedFailover if item.protection.is_fenced() => {
            let mut changes = vec![Change::Protection(ProtectionEvent::FailoverFailed)];
            if left.is_some() {
                changes.push(Change::Failover(left));
            }
            changes
        }
        JobKind::UnplannedFailover => vec![Change::Protection(ProtectionEvent::FailoverAbandoned)],
        JobKind::TestFailoverCleanup => vec![Change::Test(TestEvent::CleanupFailed { test_succeeded })],
        JobKind::CommitFailover => vec![Change::Protection(ProtectionEvent::CommitFailed)],
        // Not carried out here.
        JobKind::EnableReplication
        | JobKind::DisableReplication
        | JobKind::Resynchronize
        | JobKind::ChangeDisks
        | JobKind::CreateRecoveryPoint => Vec::new(),
    }
}

/// Whether a machine of the item is to have its disks, after a start of the server: those that were started and not
/// given up. What a failed job left behind is not: only a cleanup or another attempt touches it.
pub fn machines_to_serve(item: &Item) -> Vec<&Failover> {
    let test = item
        .test_failover
        .as_ref()
        .filter(|_| item.test_failover_state == TestFailoverState::TestFailoverCompleted);
    let real = item
        .failover
        .as_ref()
        .filter(|_| item.active_location == ActiveLocation::Recovery);
    test.into_iter().chain(real).collect()
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
