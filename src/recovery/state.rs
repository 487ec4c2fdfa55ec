//! The states of a replicated item, in the words of the field, and the only ways from one to another.
use super::job::JobId;
use crate::block::{DiskId, MachineId, PointId};
use crate::target::MachineSpec;
use crate::wire::facts::Firmware;
use serde::{Deserialize, Serialize};

/// ```text
/// Unprotected ──EnableRequested──> EnablingProtection ──EnableFailed──> EnablingFailed ──EnableRequested──┐
///      ▲                             │        ▲──────────────────────────────────────────────────────────┘
///      │                             └InitialReplicationStarted─> InitialReplicationInProgress <──Started──┐
///      │                                      │             └──InitialReplicationFailed─> InitialReplicationFailed
///      │                            InitialReplicationCompleted
///      │                                      ▼
///      │     ┌──────FailoverAbandoned───> Protected
///      │     │                                │ FailoverRequested
///      │     └───────────────── UnplannedFailoverInitiated
///      │                                      │ SourceFenced            (point of no return)
///      │                                      ▼
///      │                        UnplannedFailoverCompleting ──FailoverFailed──> UnplannedFailoverFailed
///      │                                      │       ▲────────────FailoverRequested──────┘
///      │                                      │ FailoverCompleted
///      │                                      ▼
///      │                        UnplannedFailoverCompleted
///      │                                      │ CommitRequested
///      │                                      ▼
///      │                          CommitFailoverInProgress ──CommitFailed──> CommitFailoverFailed
///      │                                      │       ▲──────────CommitRequested───────┘
///      │                                      │ CommitCompleted
///      │                                      ▼
///      │                          CommitFailoverCompleted
///      │
///      └──DisableCompleted── DisablingProtection ──DisableFailed──> DisablingFailed ──DisableRequested──> DisablingProtection
/// ```
/// `DisableRequested` leads to DisablingProtection from every state in which no job of recovery runs and no machine at the
/// target lives on the replica: EnablingProtection, EnablingFailed, InitialReplicationInProgress,
/// InitialReplicationFailed, Protected, DisablingFailed.
///
/// A failover that is run again goes from UnplannedFailoverFailed straight to UnplannedFailoverCompleting: on the way over
/// UnplannedFailoverInitiated the source would be let in again for a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProtectionState {
    Unprotected,
    EnablingProtection,
    EnablingFailed,
    InitialReplicationInProgress,
    InitialReplicationFailed,
    Protected,
    UnplannedFailoverInitiated,
    UnplannedFailoverCompleting,
    /// Commit pending.
    UnplannedFailoverCompleted,
    UnplannedFailoverFailed,
    CommitFailoverInProgress,
    CommitFailoverCompleted,
    CommitFailoverFailed,
    DisablingProtection,
    DisablingFailed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProtectionEvent {
    EnableRequested,
    EnableFailed,
    InitialReplicationStarted,
    InitialReplicationFailed,
    InitialReplicationCompleted,
    FailoverRequested,
    /// Failed or was cancelled before the source was fenced; all is as before.
    FailoverAbandoned,
    /// The item's generation was raised.
    SourceFenced,
    FailoverCompleted,
    FailoverFailed,
    CommitRequested,
    CommitCompleted,
    CommitFailed,
    DisableRequested,
    DisableCompleted,
    DisableFailed,
}

/// An event that has no place in a state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{event} is not possible in the state {state}")]
pub struct Refused {
    pub state: String,
    pub event: String,
}

impl Refused {
    fn new(state: &dyn std::fmt::Debug, event: &dyn std::fmt::Debug) -> Self {
        Self {
            state: format!("{state:?}"),
            event: format!("{event:?}"),
        }
    }
}

impl ProtectionState {
    /// The drawing above, and nothing else.
    pub fn step(self, event: ProtectionEvent) -> Result<Self, Refused> {
        use ProtectionEvent as E;
        use ProtectionState as S;
        Ok(match (self, event) {
            (S::Unprotected | S::EnablingFailed, E::EnableRequested) => S::EnablingProtection,
            (S::EnablingProtection, E::EnableFailed) => S::EnablingFailed,
            (S::EnablingProtection | S::InitialReplicationFailed, E::InitialReplicationStarted) => {
                S::InitialReplicationInProgress
            }
            (S::InitialReplicationInProgress, E::InitialReplicationFailed) => S::InitialReplicationFailed,
            (S::InitialReplicationInProgress, E::InitialReplicationCompleted) => S::Protected,
            (S::Protected, E::FailoverRequested) => S::UnplannedFailoverInitiated,
            (S::UnplannedFailoverFailed, E::FailoverRequested) => S::UnplannedFailoverCompleting,
            (S::UnplannedFailoverInitiated, E::FailoverAbandoned) => S::Protected,
            // The second: run again after a failure, or taken up after a crash.
            (S::UnplannedFailoverInitiated | S::UnplannedFailoverCompleting, E::SourceFenced) => {
                S::UnplannedFailoverCompleting
            }
            (S::UnplannedFailoverCompleting, E::FailoverCompleted) => S::UnplannedFailoverCompleted,
            (S::UnplannedFailoverCompleting, E::FailoverFailed) => S::UnplannedFailoverFailed,
            (S::UnplannedFailoverCompleted | S::CommitFailoverFailed, E::CommitRequested) => {
                S::CommitFailoverInProgress
            }
            (S::CommitFailoverInProgress, E::CommitCompleted) => S::CommitFailoverCompleted,
            (S::CommitFailoverInProgress, E::CommitFailed) => S::CommitFailoverFailed,
            (
                S::EnablingProtection
                | S::EnablingFailed
                | S::InitialReplicationInProgress
                | S::InitialReplicationFailed
                | S::Protected
                | S::DisablingFailed,
                E::DisableRequested,
            ) => S::DisablingProtection,
            (S::DisablingProtection, E::DisableCompleted) => S::Unprotected,
            (S::DisablingProtection, E::DisableFailed) => S::DisablingFailed,
            _ => return Err(Refused::new(&self, &event)),
        })
    }

    /// The source was fenced by a failover: its sessions are refused and its agent is told.
    pub fn is_fenced(self) -> bool {
        matches!(
            self,
            Self::UnplannedFailoverCompleting
                | Self::UnplannedFailoverCompleted
                | Self::UnplannedFailoverFailed
                | Self::CommitFailoverInProgress
                | Self::CommitFailoverCompleted
                | Self::CommitFailoverFailed
        )
    }
}

/// ```text
///        ┌──TestUndone── TestFailoverInitiated <──TestRequested── None
///        ▼                 │ MachineStarting                       ▲
///       None               ▼                                       │
///        ▲──TestUndone── TestFailoverCompleting ──TestFailed──> TestFailoverFailed
///                          │ TestCompleted                         │ CleanupRequested
///                          ▼                                       ▼
///                        TestFailoverCompleted ──CleanupRequested──> TestFailoverCleanupInitiated
///                          ▲                                       │ MachineStopped
///                          │                                       ▼
///                          └────CleanupFailed──── TestFailoverCleanupCompleting ──CleanupCompleted──> None
/// ```
/// `CleanupFailed`, from both states of a cleanup, leads back to where the cleanup came from: TestFailoverCompleted when
/// the test had succeeded, else TestFailoverFailed. `TestFailed` is possible in TestFailoverInitiated too: it means that
/// something could not be undone and waits for a cleanup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TestFailoverState {
    #[default]
    None,
    TestFailoverInitiated,
    TestFailoverCompleting,
    /// Waiting for cleanup.
    TestFailoverCompleted,
    TestFailoverFailed,
    TestFailoverCleanupInitiated,
    TestFailoverCleanupCompleting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TestEvent {
    TestRequested,
    MachineStarting,
    TestCompleted,
    /// Failed or was cancelled, and left nothing behind.
    TestUndone,
    /// Failed, and left something behind that a cleanup must remove.
    TestFailed,
    CleanupRequested,
    MachineStopped,
    CleanupCompleted,
    CleanupFailed {
        test_succeeded: bool,
    },
}

impl TestFailoverState {
    /// The drawing above, and nothing else.
    pub fn step(self, event: TestEvent) -> Result<Self, Refused> {
        use TestEvent as E;
        use TestFailoverState as S;
        Ok(match (self, event) {
            (S::None, E::TestRequested) => S::TestFailoverInitiated,
            // The second: taken up after a crash. So with MachineStopped.
            (S::TestFailoverInitiated | S::TestFailoverCompleting, E::MachineStarting) => {
                S::TestFailoverCompleting
            }
            (S::TestFailoverCompleting, E::TestCompleted) => S::TestFailoverCompleted,
            (S::TestFailoverInitiated | S::TestFailoverCompleting, E::TestUndone) => S::None,
            (S::TestFailoverInitiated | S::TestFailoverCompleting, E::TestFailed) => S::TestFailoverFailed,
            (S::TestFailoverCompleted | S::TestFailoverFailed, E::CleanupRequested) => {
                S::TestFailoverCleanupInitiated
            }
            (S::TestFailoverCleanupInitiated | S::TestFailoverCleanupCompleting, E::MachineStopped) => {
                S::TestFailoverCleanupCompleting
            }
            (S::TestFailoverCleanupCompleting, E::CleanupCompleted) => S::None,
            (
                S::TestFailoverCleanupInitiated | S::TestFailoverCleanupCompleting,
                E::CleanupFailed { test_succeeded },
            ) => {
                if test_succeeded {
                    S::TestFailoverCompleted
                } else {
                    S::TestFailoverFailed
                }
            }
            _ => return Err(Refused::new(&self, &event)),
        })
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActiveLocation {
    #[default]
    Primary,
    Recovery,
}

/// A machine that was started from a recovery point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failover {
    pub job: JobId,
    pub point: PointId,
    pub point_instant_unix_nanos: i64,
    pub machine: MachineSpec,
}

/// How the machine is to be started at the target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetSettings {
    /// Default: the machine's name with `-asr`; a test failover's with `-test`.
    pub name: String,
    pub cpus: u32,
    pub memory_bytes: u64,
    pub firmware: Firmware,
    pub disk_bus: crate::target::DiskBus,
    /// Network of a failover, per NIC.
    pub nics: Vec<crate::target::Nic>,
    /// Network of a test failover, per NIC.
    pub test_nics: Vec<crate::target::Nic>,
}

/// A replicated item as recovery sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    pub machine: MachineId,
    pub name: String,
    /// Grows with every change; a write names the one it read.
    pub revision: u64,
    pub protection: ProtectionState,
    pub test_failover_state: TestFailoverState,
    pub active_location: ActiveLocation,
    /// Fences: sessions of an older generation are refused.
    pub generation: u64,
    /// Protected disks, the boot disk first.
    pub disks: Vec<DiskId>,
    pub target: TargetSettings,
    pub test_failover: Option<Failover>,
    pub failover: Option<Failover>,
    /// Last test failover that was cleaned up with success.
    pub last_successful_test_unix_nanos: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use ProtectionEvent as P;
    use ProtectionState::*;
    use TestEvent as T;
    use TestFailoverState as F;

    const STATES: [ProtectionState; 15] = [
        Unprotected,
        EnablingProtection,
        EnablingFailed,
        InitialReplicationInProgress,
        InitialReplicationFailed,
        Protected,
        UnplannedFailoverInitiated,
        UnplannedFailoverCompleting,
        UnplannedFailoverCompleted,
        UnplannedFailoverFailed,
        CommitFailoverInProgress,
        CommitFailoverCompleted,
        CommitFailoverFailed,
        DisablingProtection,
        DisablingFailed,
    ];
    const EVENTS: [P; 16] = [
        P::EnableRequested,
        P::EnableFailed,
        P::InitialReplicationStarted,
        P::InitialReplicationFailed,
        P::InitialReplicationCompleted,
        P::FailoverRequested,
        P::FailoverAbandoned,
        P::SourceFenced,
        P::FailoverCompleted,
        P::FailoverFailed,
        P::CommitRequested,
        P::CommitCompleted,
        P::CommitFailed,
        P::DisableRequested,
        P::DisableCompleted,
        P::DisableFailed,
    ];

    /// One row per state, one column per event, in the order above; `-`: refused, else the place of the next state in
    /// `STATES` as a letter from a on.
    const TABLE: [&str; 15] = [
        "b---------------", // Unprotected
        "-cd----------n--", // EnablingProtection
        "b------------n--", // EnablingFailed
        "---ef--------n--", // InitialReplicationInProgress
        "--d----------n--", // InitialReplicationFailed
        "-----g-------n--", // Protected
        "------fh--------", // UnplannedFailoverInitiated
        "-------hij------", // UnplannedFailoverCompleting
        "----------k-----", // UnplannedFailoverCompleted
        "-----h----------", // UnplannedFailoverFailed
        "-----------lm---", // CommitFailoverInProgress
        "----------------", // CommitFailoverCompleted
        "----------k-----", // CommitFailoverFailed
        "--------------ao", // DisablingProtection
        "-------------n--", // DisablingFailed
    ];

    #[test]
    fn every_pair_of_protection_state_and_event() {
        for (row, state) in STATES.into_iter().enumerate() {
            assert_eq!(TABLE[row].len(), EVENTS.len());
            for (column, event) in EVENTS.into_iter().enumerate() {
                let expected = match TABLE[row].as_bytes()[column] {
                    b'-' => None,
                    letter => Some(STATES[(letter - b'a') as usize]),
                };
                assert_eq!(state.step(event).ok(), expected, "{state:?} and {event:?}");
            }
        }
    }

    /// The fence never opens again on the ways of a failover: nothing but the end of protection leads out.
    #[test]
    fn a_fenced_source_stays_fenced() {
        for state in STATES.into_iter().filter(|state| state.is_fenced()) {
            for event in EVENTS {
                if let Ok(next) = state.step(event) {
                    assert!(next.is_fenced(), "{state:?} and {event:?}");
                }
            }
        }
    }

    const TEST_STATES: [F; 7] = [
        F::None,
        F::TestFailoverInitiated,
        F::TestFailoverCompleting,
        F::TestFailoverCompleted,
        F::TestFailoverFailed,
        F::TestFailoverCleanupInitiated,
        F::TestFailoverCleanupCompleting,
    ];
    const TEST_EVENTS: [T; 10] = [
        T::TestRequested,
        T::MachineStarting,
        T::TestCompleted,
        T::TestUndone,
        T::TestFailed,
        T::CleanupRequested,
        T::MachineStopped,
        T::CleanupCompleted,
        T::CleanupFailed { test_succeeded: true },
        T::CleanupFailed {
            test_succeeded: false,
        },
    ];
    const TEST_TABLE: [&str; 7] = [
        "b---------", // None
        "-c-ae-----", // TestFailoverInitiated
        "-cdae-----", // TestFailoverCompleting
        "-----f----", // TestFailoverCompleted
        "-----f----", // TestFailoverFailed
        "------g-de", // TestFailoverCleanupInitiated
        "------gade", // TestFailoverCleanupCompleting
    ];

    #[test]
    fn every_pair_of_test_state_and_event() {
        for (row, state) in TEST_STATES.into_iter().enumerate() {
            assert_eq!(TEST_TABLE[row].len(), TEST_EVENTS.len());
            for (column, event) in TEST_EVENTS.into_iter().enumerate() {
                let expected = match TEST_TABLE[row].as_bytes()[column] {
                    b'-' => None,
                    letter => Some(TEST_STATES[(letter - b'a') as usize]),
                };
                assert_eq!(state.step(event).ok(), expected, "{state:?} and {event:?}");
            }
        }
    }
}
