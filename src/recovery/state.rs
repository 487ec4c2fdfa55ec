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
///      │     ┌──────FailoverAbandoned───> Protected <──────────────────────────────────── CancelCompleted ───┐
///      │     │                                │ FailoverRequested | PlannedFailoverRequested                 │
///      │     └───────────── (Un)PlannedFailoverInitiated                                                     │
///      │                                      │ SourceFenced            (point of no return)                 │
///      │                                      ▼                                                              │
///      │                    (Un)PlannedFailoverCompleting ──FailoverFailed──> (Un)PlannedFailoverFailed ──┐  │
///      │                                      │       ▲──(Planned)FailoverRequested──────┘                │  │
///      │                                      │ FailoverCompleted                                         │  │
///      │                                      ▼                                                           ▼  │
///      │   ┌─ChangePointRequested─ (Un)PlannedFailoverCompleted ────────CancelRequested─> CancelFailoverInProgress
///      │   ▼                                  │                                                ▲  │ CancelFailed
///      │ ChangeRecoveryPointInitiated         │                                                │  ▼
///      │   │ ChangePointCompleted | Failed    │                           CancelRequested──  CancelFailoverFailed
///      │   ▼                                  │ CommitRequested
///      │ ChangeRecoveryPointCompleted|Failed ─┤  (also: CancelRequested, ChangePointRequested)
///      │                                      ▼
///      │                          CommitFailoverInProgress ──CommitFailed──> CommitFailoverFailed
///      │                                      │       ▲──────────CommitRequested───────┘
///      │                                      │ CommitCompleted
///      │                                      ▼
///      │                          CommitFailoverCompleted
///      │                                      │ ReprotectRequested
///      │                                      ▼
///      │         Protected <─ReprotectCompleted─ ReprotectInitiated ──ReprotectFailed──> ReprotectFailed
///      │                                              ▲──────────ReprotectRequested────────────┘
///      └──DisableCompleted── DisablingProtection ──DisableFailed──> DisablingFailed ──DisableRequested──> DisablingProtection
/// ```
/// The same drawing holds for both directions; [`ActiveLocation`] tells where the machine is. A failback is a planned
/// failover of a machine that runs at the target.
///
/// `DisableRequested` leads to DisablingProtection from every state in which no job of recovery runs and no machine at the
/// target has to live on the replica: EnablingProtection, EnablingFailed, InitialReplicationInProgress,
/// InitialReplicationFailed, Protected, CommitFailoverCompleted, ReprotectFailed, DisablingFailed. Whether a machine does
/// live on it is for admission to say. From Unprotected it removes the points that were kept of a machine whose protection
/// was disabled before, or that was migrated.
///
/// A machine that stays at the target is hydrated in CommitFailoverCompleted (or ReprotectFailed, which is over with it):
/// HydrateRequested and HydrateCompleted lead there. MigrationRequested leads from there to DisablingProtection, and
/// DisableCompleted to Unprotected with the machine still at the target: its source stays fenced.
///
/// A failover that is run again goes from UnplannedFailoverFailed straight to UnplannedFailoverCompleting: on the way over
/// UnplannedFailoverInitiated the source would be let in again for a moment. So does a planned one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProtectionState {
    Unprotected,
    EnablingProtection,
    EnablingFailed,
    InitialReplicationInProgress,
    InitialReplicationFailed,
    Protected,
    PlannedFailoverInitiated,
    PlannedFailoverCompleting,
    /// Commit pending.
    PlannedFailoverCompleted,
    PlannedFailoverFailed,
    UnplannedFailoverInitiated,
    UnplannedFailoverCompleting,
    /// Commit pending.
    UnplannedFailoverCompleted,
    UnplannedFailoverFailed,
    ChangeRecoveryPointInitiated,
    /// Commit pending.
    ChangeRecoveryPointCompleted,
    ChangeRecoveryPointFailed,
    CommitFailoverInProgress,
    CommitFailoverCompleted,
    CommitFailoverFailed,
    CancelFailoverInProgress,
    CancelFailoverFailed,
    ReprotectInitiated,
    ReprotectFailed,
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
    /// An unplanned one.
    FailoverRequested,
    /// Forth or back.
    PlannedFailoverRequested,
    /// Failed or was cancelled before the source was fenced; all is as before.
    FailoverAbandoned,
    /// The item's generation was raised.
    SourceFenced,
    FailoverCompleted,
    FailoverFailed,
    ChangePointRequested,
    ChangePointCompleted,
    ChangePointFailed,
    CommitRequested,
    CommitCompleted,
    CommitFailed,
    CancelRequested,
    CancelCompleted,
    CancelFailed,
    ReprotectRequested,
    ReprotectCompleted,
    ReprotectFailed,
    DisableRequested,
    DisableCompleted,
    DisableFailed,
    /// Its disks are to become files of the target.
    HydrateRequested,
    HydrateCompleted,
    /// It stays at the target; replication ends.
    MigrationRequested,
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
            (S::Protected, E::PlannedFailoverRequested) => S::PlannedFailoverInitiated,
            // The source is fenced: a failed planned one may be gone on with as an unplanned one.
            (S::UnplannedFailoverFailed | S::PlannedFailoverFailed, E::FailoverRequested) => {
                S::UnplannedFailoverCompleting
            }
            (S::PlannedFailoverFailed, E::PlannedFailoverRequested) => S::PlannedFailoverCompleting,
            (S::UnplannedFailoverInitiated | S::PlannedFailoverInitiated, E::FailoverAbandoned) => {
                S::Protected
            }
            // The second of each: run again after a failure, or taken up after a crash.
            (S::UnplannedFailoverInitiated | S::UnplannedFailoverCompleting, E::SourceFenced) => {
                S::UnplannedFailoverCompleting
            }
            (S::PlannedFailoverInitiated | S::PlannedFailoverCompleting, E::SourceFenced) => {
                S::PlannedFailoverCompleting
            }
            (S::UnplannedFailoverCompleting, E::FailoverCompleted) => S::UnplannedFailoverCompleted,
            (S::PlannedFailoverCompleting, E::FailoverCompleted) => S::PlannedFailoverCompleted,
            (S::UnplannedFailoverCompleting, E::FailoverFailed) => S::UnplannedFailoverFailed,
            (S::PlannedFailoverCompleting, E::FailoverFailed) => S::PlannedFailoverFailed,
            (
                S::UnplannedFailoverCompleted
                | S::PlannedFailoverCompleted
                | S::ChangeRecoveryPointCompleted
                | S::ChangeRecoveryPointFailed,
                E::ChangePointRequested,
            ) => S::ChangeRecoveryPointInitiated,
            (S::ChangeRecoveryPointInitiated, E::ChangePointCompleted) => S::ChangeRecoveryPointCompleted,
            (S::ChangeRecoveryPointInitiated, E::ChangePointFailed) => S::ChangeRecoveryPointFailed,
            (
                S::UnplannedFailoverCompleted
                | S::PlannedFailoverCompleted
                | S::ChangeRecoveryPointCompleted
                | S::ChangeRecoveryPointFailed
                | S::CommitFailoverFailed,
                E::CommitRequested,
            ) => S::CommitFailoverInProgress,
            (S::CommitFailoverInProgress, E::CommitCompleted) => S::CommitFailoverCompleted,
            (S::CommitFailoverInProgress, E::CommitFailed) => S::CommitFailoverFailed,
            (
                S::UnplannedFailoverCompleted
                | S::PlannedFailoverCompleted
                | S::UnplannedFailoverFailed
                | S::PlannedFailoverFailed
                | S::ChangeRecoveryPointCompleted
                | S::ChangeRecoveryPointFailed
                | S::CancelFailoverFailed,
                E::CancelRequested,
            ) => S::CancelFailoverInProgress,
            (S::CancelFailoverInProgress, E::CancelCompleted) => S::Protected,
            (S::CancelFailoverInProgress, E::CancelFailed) => S::CancelFailoverFailed,
            (S::CommitFailoverCompleted | S::ReprotectFailed, E::ReprotectRequested) => S::ReprotectInitiated,
            (S::ReprotectInitiated, E::ReprotectCompleted) => S::Protected,
            (S::ReprotectInitiated, E::ReprotectFailed) => S::ReprotectFailed,
            (
                S::EnablingProtection
                | S::EnablingFailed
                | S::InitialReplicationInProgress
                | S::InitialReplicationFailed
                | S::Protected
                | S::CommitFailoverCompleted
                | S::ReprotectFailed
                | S::Unprotected
                | S::DisablingFailed,
                E::DisableRequested,
            )
            | (S::CommitFailoverCompleted | S::DisablingFailed, E::MigrationRequested) => {
                S::DisablingProtection
            }
            (S::CommitFailoverCompleted | S::ReprotectFailed, E::HydrateRequested) => self,
            (S::CommitFailoverCompleted | S::ReprotectFailed, E::HydrateCompleted) => {
                S::CommitFailoverCompleted
            }
            (S::DisablingProtection, E::DisableCompleted) => S::Unprotected,
            (S::DisablingProtection, E::DisableFailed) => S::DisablingFailed,
            _ => return Err(Refused::new(&self, &event)),
        })
    }

    /// Between the fence of a failover and the reprotect or cancel that ends it: whatever [`ActiveLocation`] says, the
    /// source is refused.
    fn is_fenced(self) -> bool {
        matches!(
            self,
            Self::UnplannedFailoverCompleting
                | Self::UnplannedFailoverCompleted
                | Self::UnplannedFailoverFailed
                | Self::PlannedFailoverCompleting
                | Self::PlannedFailoverCompleted
                | Self::PlannedFailoverFailed
                | Self::ChangeRecoveryPointInitiated
                | Self::ChangeRecoveryPointCompleted
                | Self::ChangeRecoveryPointFailed
                | Self::CommitFailoverInProgress
                | Self::CommitFailoverCompleted
                | Self::CommitFailoverFailed
                | Self::CancelFailoverInProgress
                | Self::CancelFailoverFailed
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
    /// When its job came to its end: what was sealed later was written at the target. 0: by an earlier version.
    #[serde(default)]
    pub started_unix_nanos: i64,
    pub machine: MachineSpec,
}

/// The way home: who takes the disks of a machine that runs at the target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reprotect {
    /// The machine itself, or another joined one.
    pub receiver: MachineId,
    /// The machine at the target is stopped, and this holds all it wrote: to be taken and verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_point: Option<PointId>,
}

/// Recovery points that outlive the protection of their machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptPoints {
    pub since_unix_nanos: i64,
    /// None: until a person removes them.
    pub until_unix_nanos: Option<i64>,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reprotect: Option<Reprotect>,
    /// Grows when the source goes on after somebody else wrote to the replica: its agent compares everything then.
    #[serde(default)]
    pub line: u64,
    /// Of an item that is not protected any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_points: Option<KeptPoints>,
}

impl Item {
    /// The source's sessions are refused and its agent is told: the machine is, or may be, elsewhere.
    pub fn source_is_fenced(&self) -> bool {
        self.active_location == ActiveLocation::Recovery || self.protection.is_fenced()
    }

    /// It came home by a failback: it may run there, and is replicated again when it is reprotected.
    pub fn is_home(&self) -> bool {
        use ProtectionState as S;
        let going_back = matches!(
            self.protection,
            S::CancelFailoverInProgress | S::CancelFailoverFailed
        );
        let came = self.reprotect.is_some() && !going_back;
        self.active_location == ActiveLocation::Primary
            && (came || self.protection == S::CommitFailoverCompleted)
    }

    /// It lives at the target, no job moves it, and recovery points are made of it there.
    pub fn runs_at_target(&self) -> bool {
        use ProtectionState as S;
        self.active_location == ActiveLocation::Recovery
            && self.failover.is_some()
            && !self.is_hydrated()
            && matches!(
                self.protection,
                S::PlannedFailoverCompleted
                    | S::UnplannedFailoverCompleted
                    | S::ChangeRecoveryPointCompleted
                    | S::CommitFailoverCompleted
                    | S::ReprotectInitiated
                    | S::ReprotectFailed
                    | S::Protected
                    // What failed left it there: a change of the point before the machine was given up, a commit, a failback.
                    | S::ChangeRecoveryPointFailed
                    | S::CommitFailoverFailed
                    | S::PlannedFailoverFailed
            )
    }

    /// The machine at the target has files as its disks: what it writes becomes no recovery point any more.
    pub fn is_hydrated(&self) -> bool {
        self.active_location == ActiveLocation::Recovery
            && self
                .failover
                .as_ref()
                .is_some_and(|failover| failover.machine.is_on_files())
    }

    /// It stays at the target for good, and its source stays fenced.
    pub fn is_migrated(&self) -> bool {
        self.protection == ProtectionState::Unprotected && self.is_hydrated()
    }

    /// Recovery points are made of it, or would be if nothing were in the way. Only then it has an RPO.
    pub fn has_points_to_come(&self) -> bool {
        self.protection != ProtectionState::Unprotected && !self.is_hydrated()
    }

    /// Unprotected and known all the same.
    pub fn outlives_protection(&self) -> bool {
        self.protection == ProtectionState::Unprotected && (self.kept_points.is_some() || self.is_hydrated())
    }

    /// Protected, in the direction from the source to the target.
    pub fn is_protected_at_home(&self) -> bool {
        self.active_location == ActiveLocation::Primary && self.protection == ProtectionState::Protected
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ProtectionEvent as P;
    use ProtectionState::*;
    use TestEvent as T;
    use TestFailoverState as F;

    const STATES: [ProtectionState; 26] = [
        Unprotected,
        EnablingProtection,
        EnablingFailed,
        InitialReplicationInProgress,
        InitialReplicationFailed,
        Protected,
        PlannedFailoverInitiated,
        PlannedFailoverCompleting,
        PlannedFailoverCompleted,
        PlannedFailoverFailed,
        UnplannedFailoverInitiated,
        UnplannedFailoverCompleting,
        UnplannedFailoverCompleted,
        UnplannedFailoverFailed,
        ChangeRecoveryPointInitiated,
        ChangeRecoveryPointCompleted,
        ChangeRecoveryPointFailed,
        CommitFailoverInProgress,
        CommitFailoverCompleted,
        CommitFailoverFailed,
        CancelFailoverInProgress,
        CancelFailoverFailed,
        ReprotectInitiated,
        ReprotectFailed,
        DisablingProtection,
        DisablingFailed,
    ];
    const EVENTS: [P; 29] = [
        P::EnableRequested,
        P::EnableFailed,
        P::InitialReplicationStarted,
        P::InitialReplicationFailed,
        P::InitialReplicationCompleted,
        P::FailoverRequested,
        P::PlannedFailoverRequested,
        P::FailoverAbandoned,
        P::SourceFenced,
        P::FailoverCompleted,
        P::FailoverFailed,
        P::ChangePointRequested,
        P::ChangePointCompleted,
        P::ChangePointFailed,
        P::CommitRequested,
        P::CommitCompleted,
        P::CommitFailed,
        P::CancelRequested,
        P::CancelCompleted,
        P::CancelFailed,
        P::ReprotectRequested,
        P::ReprotectCompleted,
        P::ReprotectFailed,
        P::DisableRequested,
        P::DisableCompleted,
        P::DisableFailed,
        P::HydrateRequested,
        P::HydrateCompleted,
        P::MigrationRequested,
    ];

    /// One row per state, one column per event, in the order above; `-`: refused, else the place of the next state in
    /// `STATES` as a letter from a on. Columns: enabling, failover, change of point, commit, cancel, reprotect, disabling,
    /// hydrating and migrating.
    const TABLE: [&str; 26] = [
        "b---- ------ --- --- --- --- y-- ---", // a Unprotected
        "-cd-- ------ --- --- --- --- y-- ---", // b EnablingProtection
        "b---- ------ --- --- --- --- y-- ---", // c EnablingFailed
        "---ef ------ --- --- --- --- y-- ---", // d InitialReplicationInProgress
        "--d-- ------ --- --- --- --- y-- ---", // e InitialReplicationFailed
        "----- kg---- --- --- --- --- y-- ---", // f Protected
        "----- --fh-- --- --- --- --- --- ---", // g PlannedFailoverInitiated
        "----- ---hij --- --- --- --- --- ---", // h PlannedFailoverCompleting
        "----- ------ o-- r-- u-- --- --- ---", // i PlannedFailoverCompleted
        "----- lh---- --- --- u-- --- --- ---", // j PlannedFailoverFailed
        "----- --fl-- --- --- --- --- --- ---", // k UnplannedFailoverInitiated
        "----- ---lmn --- --- --- --- --- ---", // l UnplannedFailoverCompleting
        "----- ------ o-- r-- u-- --- --- ---", // m UnplannedFailoverCompleted
        "----- l----- --- --- u-- --- --- ---", // n UnplannedFailoverFailed
        "----- ------ -pq --- --- --- --- ---", // o ChangeRecoveryPointInitiated
        "----- ------ o-- r-- u-- --- --- ---", // p ChangeRecoveryPointCompleted
        "----- ------ o-- r-- u-- --- --- ---", // q ChangeRecoveryPointFailed
        "----- ------ --- -st --- --- --- ---", // r CommitFailoverInProgress
        "----- ------ --- --- --- w-- y-- ssy", // s CommitFailoverCompleted
        "----- ------ --- r-- --- --- --- ---", // t CommitFailoverFailed
        "----- ------ --- --- -fv --- --- ---", // u CancelFailoverInProgress
        "----- ------ --- --- u-- --- --- ---", // v CancelFailoverFailed
        "----- ------ --- --- --- -fx --- ---", // w ReprotectInitiated
        "----- ------ --- --- --- w-- y-- xs-", // x ReprotectFailed
        "----- ------ --- --- --- --- -az ---", // y DisablingProtection
        "----- ------ --- --- --- --- y-- --y", // z DisablingFailed
    ];

    #[test]
    fn every_pair_of_protection_state_and_event() {
        for (row, state) in STATES.into_iter().enumerate() {
            let cells = TABLE[row].replace(' ', "");
            assert_eq!(cells.len(), EVENTS.len());
            for (column, event) in EVENTS.into_iter().enumerate() {
                let expected = match cells.as_bytes()[column] {
                    b'-' => None,
                    letter => Some(STATES[(letter - b'a') as usize]),
                };
                assert_eq!(state.step(event).ok(), expected, "{state:?} and {event:?}");
            }
        }
    }

    /// The fence never opens again on the ways of a failover: only its cancel, a reprotect and the end of protection lead out.
    /// (What was migrated stays fenced by where it is.)
    #[test]
    fn a_fenced_source_stays_fenced() {
        for state in STATES.into_iter().filter(|state| state.is_fenced()) {
            for event in EVENTS {
                let opens = matches!(
                    event,
                    P::CancelCompleted | P::ReprotectRequested | P::DisableRequested | P::MigrationRequested
                );
                if let Ok(next) = state.step(event) {
                    assert_eq!(next.is_fenced(), !opens, "{state:?} and {event:?}");
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
