//! What is allowed now, and for what is not, the reason. Pure: facts in, verdict out.
use super::error::Refusal;
use super::job::JobKind;
use super::request::Operation;
use super::state::{ActiveLocation, Item, ProtectionEvent, ProtectionState, TestFailoverState};

/// All that the verdict depends on.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    pub item: &'a Item,
    /// A job of this item that is not over.
    pub open_job: Option<JobKind>,
    /// Points of all protected disks that a machine can be started from.
    pub usable_points: usize,
    pub source_connected: bool,
    /// Why no machine can be started at the target, in words; None: it can.
    pub target_trouble: Option<&'a str>,
    /// Why the receiver of a reprotected machine cannot take it home now; None: it can.
    pub receiver_trouble: Option<&'a str>,
}

/// Every operation, with the reason where it is refused.
pub fn allowed(facts: &Facts) -> Vec<(Operation, Option<Refusal>)> {
    Operation::ALL
        .into_iter()
        .map(|operation| (operation, admit(operation, facts).err()))
        .collect()
}

pub fn admit(operation: Operation, facts: &Facts) -> Result<(), Refusal> {
    job_running(facts)?;
    let item = facts.item;
    let no = || Err(not_possible(operation, facts));
    match operation {
        Operation::TestFailover => {
            let at_rest = item.kept_points.is_some() && item.protection == ProtectionState::Unprotected
                || item.is_hydrated() && item.protection == ProtectionState::CommitFailoverCompleted;
            if item.protection != ProtectionState::Protected && !item.runs_at_target() && !at_rest {
                return no();
            }
            match item.test_failover_state {
                TestFailoverState::None => {}
                TestFailoverState::TestFailoverCompleted | TestFailoverState::TestFailoverFailed => {
                    return Err(cleanup_pending("another test failover"));
                }
                _ => return Err(busy("A test failover or its cleanup")),
            }
            startable(facts)
        }
        Operation::TestFailoverCleanup => match item.test_failover_state {
            TestFailoverState::TestFailoverCompleted | TestFailoverState::TestFailoverFailed => Ok(()),
            TestFailoverState::None => Err(Refusal::new(
                "NoTestFailover",
                format!("No test failover of {} waits for its cleanup.", item.name),
                "No test failover was run, or it was cleaned up already; one that fails cleans up after itself.",
                "Nothing needs to be done.",
            )),
            _ => Err(busy("A test failover or its cleanup")),
        },
        Operation::PlannedFailover => {
            let again = item.protection == ProtectionState::PlannedFailoverFailed
                && item.active_location == ActiveLocation::Primary;
            if !again && !item.is_protected_at_home() {
                return no();
            }
            if !again && !facts.source_connected {
                return Err(source_silent(facts));
            }
            startable(facts)
        }
        // A waiting test failover does not hold up the real one: it has a folder, a name and a pin of its own.
        Operation::UnplannedFailover => {
            let again = matches!(
                item.protection,
                ProtectionState::UnplannedFailoverFailed | ProtectionState::PlannedFailoverFailed
            ) && item.active_location == ActiveLocation::Primary;
            if !again && !item.is_protected_at_home() {
                return no();
            }
            startable(facts)
        }
        Operation::ChangeRecoveryPoint => {
            let open = item
                .protection
                .step(ProtectionEvent::ChangePointRequested)
                .is_ok();
            if !open || item.active_location == ActiveLocation::Primary {
                return no();
            }
            startable(facts)
        }
        Operation::Commit => {
            let open = item.protection.step(ProtectionEvent::CommitRequested).is_ok();
            // A change of the point that failed half way leaves nothing that could be kept.
            if !open || item.failover.is_none() {
                return no();
            }
            if item.test_failover_state != TestFailoverState::None {
                return Err(cleanup_pending(
                    "the commit, which removes the other recovery points",
                ));
            }
            Ok(())
        }
        Operation::CancelFailover => match item.protection.step(ProtectionEvent::CancelRequested) {
            Ok(_) => Ok(()),
            Err(_) => no(),
        },
        Operation::ReverseReplicate if item.is_hydrated() => Err(Refusal::new(
            "Hydrated",
            format!(
                "{} lives on files of the target: no recovery points are made of it that could be taken home.",
                item.name
            ),
            "It was hydrated, so that it is independent of Lifeboat.",
            "Complete the migration; to protect it again, join it as a machine of its own with an agent in it.",
        )),
        Operation::ReverseReplicate => match item.protection.step(ProtectionEvent::ReprotectRequested) {
            Ok(_) => Ok(()),
            Err(_) => no(),
        },
        Operation::Failback => {
            let away = item.active_location == ActiveLocation::Recovery && item.reprotect.is_some();
            let state = matches!(
                item.protection,
                ProtectionState::Protected | ProtectionState::PlannedFailoverFailed
            );
            if !away || !state {
                return no();
            }
            match facts.receiver_trouble {
                None => Ok(()),
                Some(trouble) => Err(Refusal::new(
                    "ReceiverNotReady",
                    format!("{} cannot be taken home now: {trouble}.", item.name),
                    "`lifeboat agent receive` is not running at home, has lost its connection, or has not taken the disks yet.",
                    "Start `lifeboat agent receive` at home and wait until it follows.",
                )),
            }
        }
        Operation::RepairReplication => {
            if facts.open_job == Some(JobKind::Resynchronize) {
                return Err(busy("A resynchronization"));
            }
            match item.protection {
                ProtectionState::InitialReplicationFailed | ProtectionState::InitialReplicationInProgress => {
                }
                _ if item.is_protected_at_home() => {}
                _ => return no(),
            }
            if !facts.source_connected {
                return Err(source_silent(facts));
            }
            Ok(())
        }
        Operation::DisableProtection => {
            if item.test_failover.is_some() || item.test_failover_state != TestFailoverState::None {
                return Err(cleanup_pending("protection is disabled"));
            }
            if item.protection == ProtectionState::Unprotected && item.is_hydrated() {
                return match item.kept_points {
                    Some(_) => Ok(()),
                    None => Err(Refusal::new(
                        "MigrationCompleted",
                        format!(
                            "The migration of {} is complete: nothing of it is replicated, and no points are kept.",
                            item.name
                        ),
                        "Replication has ended before.",
                        "Nothing needs to be done. `lifeboat machine remove` forgets the machine: it runs on without Lifeboat.",
                    )),
                };
            }
            if item.is_hydrated() {
                return Err(Refusal::new(
                    "MigrationPending",
                    format!(
                        "{} was failed over and hydrated; what ends its replication is to complete the migration.",
                        item.name
                    ),
                    "The source must stay fenced: the machine runs at the target.",
                    "Complete the migration.",
                ));
            }
            if item.failover.is_some() || item.active_location == ActiveLocation::Recovery {
                return Err(Refusal::new(
                    "MachineRunsFromReplica",
                    format!(
                        "{} was failed over: the machine at the target reads its disks from this replica.",
                        item.name
                    ),
                    "Disabling protection removes the replica and with it the disks of the running machine.",
                    "Bring the machine home; or, if it is to stay, hydrate it and complete the migration.",
                ));
            }
            match item.protection {
                ProtectionState::DisablingProtection => Err(busy("Disabling the protection")),
                ProtectionState::Unprotected if item.kept_points.is_none() => no(),
                state if state.step(ProtectionEvent::DisableRequested).is_ok() => Ok(()),
                _ => no(),
            }
        }
        Operation::Hydrate => hydrate(facts),
        Operation::CompleteMigration => complete_migration(facts),
    }
}

/// At home there is nothing that could stay at the target.
fn at_home(facts: &Facts) -> Option<Refusal> {
    let item = facts.item;
    let home = item.active_location == ActiveLocation::Primary
        && matches!(
            item.protection,
            ProtectionState::Protected
                | ProtectionState::CommitFailoverCompleted
                | ProtectionState::ReprotectFailed
        );
    home.then(|| {
        Refusal::new(
            "NotFailedOver",
            format!("{} is at home.", item.name),
            "No failover was run, or it has come home.",
            "Fail it over and commit the failover first.",
        )
    })
}

fn hydrate(facts: &Facts) -> Result<(), Refusal> {
    let item = facts.item;
    if let Some(refusal) = at_home(facts) {
        return Err(refusal);
    }
    if item.is_hydrated() {
        return Err(Refusal::new(
            "AlreadyHydrated",
            format!("{} lives on files of its own already.", item.name),
            "It was hydrated before.",
            "Complete the migration when it is to stay at the target.",
        ));
    }
    if item.protection == ProtectionState::Protected {
        return Err(Refusal::new(
            "Reprotected",
            format!(
                "{} is replicated towards its home. A hydrated machine makes no recovery points, and the way home is made of them.",
                item.name
            ),
            "It was reprotected.",
            "Run the failback; or, if it is to stay, fail it over once more and hydrate it without a reprotect.",
        ));
    }
    if item.active_location == ActiveLocation::Primary
        || item.failover.is_none()
        || item.protection.step(ProtectionEvent::HydrateRequested).is_err()
    {
        return Err(not_possible(Operation::Hydrate, facts));
    }
    match facts.target_trouble {
        None => Ok(()),
        Some(trouble) => Err(target_not_ready(trouble)),
    }
}

fn complete_migration(facts: &Facts) -> Result<(), Refusal> {
    let item = facts.item;
    if let Some(refusal) = at_home(facts) {
        return Err(refusal);
    }
    if item.active_location == ActiveLocation::Primary
        || item.protection.step(ProtectionEvent::MigrationRequested).is_err()
    {
        return Err(not_possible(Operation::CompleteMigration, facts));
    }
    if !item.is_hydrated() {
        return Err(Refusal::new(
            "NotHydrated",
            format!(
                "{} still reads its disks from the replica, which goes when the migration is complete.",
                item.name
            ),
            "Its disks were not made files of the target yet.",
            "Hydrate it first: lifeboat failover hydrate.",
        ));
    }
    if item.test_failover.is_some() || item.test_failover_state != TestFailoverState::None {
        return Err(cleanup_pending("the migration is completed"));
    }
    Ok(())
}

fn source_silent(facts: &Facts) -> Refusal {
    Refusal::new(
        "SourceNotConnected",
        format!("The agent on {} does not answer.", facts.item.name),
        "The machine is down, the agent is stopped, or the network to this server is cut.",
        "Start the agent on the machine (`lifeboat agent status` there says more) and try again.",
    )
}

pub(super) fn job_running(facts: &Facts) -> Result<(), Refusal> {
    match facts.open_job {
        None => Ok(()),
        Some(kind) if kind.holds_nothing_up() => Ok(()),
        Some(kind) => Err(Refusal::new(
            "JobRunning",
            format!("A job is running on {}: {kind:?}.", facts.item.name),
            "One job at a time works on a machine.",
            "Wait until the job is over, or cancel it.",
        )),
    }
}

fn busy(what: &str) -> Refusal {
    Refusal::new(
        "InProgress",
        format!("{what} is in progress."),
        "It was started a moment ago.",
        "Wait until it is over.",
    )
}

fn cleanup_pending(before: &str) -> Refusal {
    Refusal::new(
        "CleanupPending",
        format!("A test failover waits for its cleanup; it comes before {before}."),
        "The machine of the test may still run and reads its disks from the replica.",
        "Clean up the test failover first.",
    )
}

/// Why an operation has no place in the item's state.
fn not_possible(operation: Operation, facts: &Facts) -> Refusal {
    let (name, state, what) = (&facts.item.name, facts.item.protection, operation.words());
    let away = facts.item.active_location == ActiveLocation::Recovery;
    match state {
        ProtectionState::EnablingProtection | ProtectionState::InitialReplicationInProgress => Refusal::new(
            "InitialReplicationRunning",
            format!("The first copy of {name} is not complete."),
            "Replication was enabled a short time ago, or the link is slow.",
            "Wait for the state Protected; the progress is shown with the machine.",
        ),
        ProtectionState::EnablingFailed | ProtectionState::InitialReplicationFailed => Refusal::new(
            "InitialReplicationFailed",
            format!("The first copy of {name} failed."),
            "See the health errors of the machine.",
            "Remove the cause and resynchronize, or disable and enable replication again.",
        ),
        ProtectionState::Unprotected => Refusal::new(
            "NotProtected",
            format!("{name} is not protected."),
            "Replication was never enabled, or it was disabled.",
            "Enable replication.",
        ),
        ProtectionState::DisablingProtection | ProtectionState::DisablingFailed => Refusal::new(
            "ProtectionEnds",
            format!("Protection of {name} is being disabled."),
            "Somebody disabled it.",
            "Enable replication again when it has ended.",
        ),
        ProtectionState::UnplannedFailoverInitiated
        | ProtectionState::UnplannedFailoverCompleting
        | ProtectionState::PlannedFailoverInitiated
        | ProtectionState::PlannedFailoverCompleting => busy("A failover"),
        ProtectionState::ChangeRecoveryPointInitiated => busy("A change of the recovery point"),
        ProtectionState::CommitFailoverInProgress => busy("The commit"),
        ProtectionState::CancelFailoverInProgress => busy("The cancel of the failover"),
        ProtectionState::ReprotectInitiated => Refusal::new(
            "ReprotectRunning",
            format!("{name} is being reprotected; {what} is not possible before it has ended."),
            "The first copy in the new direction is not complete.",
            "Wait until the job Reprotect is over.",
        ),
        ProtectionState::UnplannedFailoverFailed | ProtectionState::PlannedFailoverFailed => Refusal::new(
            "FailoverFailed",
            format!("The failover of {name} failed after its source was fenced; {what} is not possible."),
            "See the failed job.",
            "Run the failover again, or cancel it so that the source goes on.",
        ),
        ProtectionState::ChangeRecoveryPointFailed => Refusal::new(
            "ChangeRecoveryPointFailed",
            format!("The change of the recovery point of {name} failed; {what} is not possible."),
            "See the failed job.",
            "Change the recovery point again, or cancel the failover.",
        ),
        ProtectionState::CancelFailoverFailed => Refusal::new(
            "CancelFailoverFailed",
            format!("The cancel of the failover of {name} failed half way; {what} is not possible."),
            "See the failed job.",
            "Cancel the failover again.",
        ),
        ProtectionState::PlannedFailoverCompleted
        | ProtectionState::UnplannedFailoverCompleted
        | ProtectionState::ChangeRecoveryPointCompleted
        | ProtectionState::CommitFailoverFailed => Refusal::new(
            "CommitPending",
            format!("The failover of {name} is not committed; {what} is not possible."),
            "The machine runs where the failover brought it, and nobody has said yet that it is as it should be.",
            "Commit the failover, or cancel it.",
        ),
        ProtectionState::CommitFailoverCompleted if operation == Operation::Commit => Refusal::new(
            "AlreadyCommitted",
            format!("The failover of {name} is committed already."),
            "Somebody committed it before.",
            "Reprotect it, so that it can go back.",
        ),
        ProtectionState::CommitFailoverCompleted | ProtectionState::ReprotectFailed => Refusal::new(
            "NotReprotected",
            format!("{name} was failed over; {what} is not possible."),
            "Replication in the new direction has not begun, or its begin failed.",
            "Reprotect the machine.",
        ),
        ProtectionState::Protected => match operation {
            Operation::Failback if !away => Refusal::new(
                "NotFailedOver",
                format!("{name} is at home."),
                "No failover was run, or it has come home already.",
                "Nothing needs to be done.",
            ),
            Operation::PlannedFailover
            | Operation::UnplannedFailover
            | Operation::RepairReplication
            | Operation::CompleteMigration => Refusal::new(
                "AlreadyFailedOver",
                format!("{name} runs at the target; {what} is not possible."),
                "It was failed over and reprotected: replication goes towards its home.",
                "Run a failback to bring it home.",
            ),
            Operation::ReverseReplicate => Refusal::new(
                "AlreadyProtected",
                format!("{name} is protected in the direction in which it is replicated now."),
                "It was not failed over, or it is reprotected already.",
                "Nothing needs to be done.",
            ),
            _ => Refusal::new(
                "NothingToCommit",
                format!("{name} has no failover that could be committed, changed or cancelled."),
                "No failover was run, or it failed, or it was committed already.",
                "Run a failover first; commit it when the machine is as it should be.",
            ),
        },
    }
}

fn startable(facts: &Facts) -> Result<(), Refusal> {
    if facts.item.disks.is_empty() {
        return Err(Refusal::new(
            "NoDisk",
            format!("{} has no protected disk.", facts.item.name),
            "All disks were excluded.",
            "Protect at least the boot disk.",
        ));
    }
    if facts.usable_points == 0 {
        return Err(Refusal::new(
            "NoRecoveryPoint",
            format!("{} has no recovery point to start from.", facts.item.name),
            "No consistent point of all its disks was made yet, or the points are fuzzy because the disks never came to rest.",
            "Wait for the next recovery point; the health errors of the machine say why there is none.",
        ));
    }
    match facts.target_trouble {
        None => Ok(()),
        Some(trouble) => Err(target_not_ready(trouble)),
    }
}

fn target_not_ready(trouble: &str) -> Refusal {
    Refusal::new(
        "TargetNotReady",
        format!("No machine can be started at the target: {trouble}."),
        "The hypervisor or a part of it is not installed or not usable.",
        "Install what is missing on the target and try again.",
    )
}

#[cfg(test)]
mod tests {
    use super::super::state::Reprotect;
    use super::super::tests::item;
    use super::*;

    fn verdict(
        operation: Operation,
        change: impl FnOnce(&mut Item),
        facts: impl FnOnce(&mut Facts),
    ) -> Option<String> {
        let mut item = item();
        change(&mut item);
        let mut all = Facts {
            item: &item,
            open_job: None,
            usable_points: 3,
            source_connected: true,
            target_trouble: None,
            receiver_trouble: None,
        };
        facts(&mut all);
        let refusal = admit(operation, &all).err();
        if let Some(refusal) = &refusal {
            for text in [
                &refusal.message,
                &refusal.possible_causes,
                &refusal.recommended_action,
            ] {
                assert!(text.ends_with('.'), "{text:?} of {operation:?} is not a sentence");
            }
        }
        refusal.map(|refusal| refusal.code)
    }

    fn in_test_state(operation: Operation, state: TestFailoverState) -> Option<String> {
        verdict(operation, |item| item.test_failover_state = state, |_| ())
    }

    use Operation::*;
    use ProtectionState as P;
    use TestFailoverState as T;

    /// One row per state, a code per operation in the order of `Operation::ALL`; `.`: allowed.
    fn check(table: &[(P, [&str; 13])], location: ActiveLocation, failed_over: bool, reprotected: bool) {
        for (state, row) in table {
            for (operation, code) in Operation::ALL.into_iter().zip(row) {
                let verdict = verdict(
                    operation,
                    |item| {
                        item.protection = *state;
                        item.active_location = location;
                        item.failover = failed_over.then(super::super::tests::started);
                        item.reprotect = reprotected.then_some(Reprotect {
                            receiver: item.machine,
                            final_point: None,
                        });
                    },
                    |_| (),
                );
                assert_eq!(
                    verdict.as_deref().unwrap_or("."),
                    *code,
                    "{operation:?} in {state:?} at {location:?}"
                );
            }
        }
    }

    const NONE: &str = "NoTestFailover";
    const BUSY: &str = "InProgress";

    #[test]
    fn each_protection_state_at_home_gives_its_reason() {
        let running = "InitialReplicationRunning";
        let failed = "InitialReplicationFailed";
        let (ends, nothing) = ("ProtectionEnds", "NothingToCommit");
        let all = |code| {
            let mut row = [code; 13];
            row[1] = NONE;
            row
        };
        let but = |code, changes: &[(usize, &'static str)]| {
            let mut row = all(code);
            for (column, code) in changes {
                row[*column] = code;
            }
            row
        };
        let table = [
            (P::Unprotected, all("NotProtected")),
            (P::EnablingProtection, but(running, &[(10, ".")])),
            (P::EnablingFailed, but(failed, &[(10, ".")])),
            (
                P::InitialReplicationInProgress,
                but(running, &[(9, "."), (10, ".")]),
            ),
            (P::InitialReplicationFailed, but(failed, &[(9, "."), (10, ".")])),
            (
                P::Protected,
                [
                    ".",
                    NONE,
                    ".",
                    ".",
                    nothing,
                    nothing,
                    nothing,
                    "AlreadyProtected",
                    "NotFailedOver",
                    ".",
                    ".",
                    "NotFailedOver",
                    "NotFailedOver",
                ],
            ),
            (P::PlannedFailoverInitiated, all(BUSY)),
            (P::PlannedFailoverCompleting, all(BUSY)),
            (P::UnplannedFailoverInitiated, all(BUSY)),
            (P::UnplannedFailoverCompleting, all(BUSY)),
            (
                P::PlannedFailoverFailed,
                but("FailoverFailed", &[(2, "."), (3, "."), (6, ".")]),
            ),
            (
                P::UnplannedFailoverFailed,
                but("FailoverFailed", &[(3, "."), (6, ".")]),
            ),
            (P::ReprotectInitiated, all("ReprotectRunning")),
            (
                P::ReprotectFailed,
                but(
                    "NotReprotected",
                    &[(7, "."), (10, "."), (11, "NotFailedOver"), (12, "NotFailedOver")],
                ),
            ),
            // After a failback that was committed.
            (
                P::CommitFailoverCompleted,
                but(
                    "NotReprotected",
                    &[
                        (5, "AlreadyCommitted"),
                        (7, "."),
                        (10, "."),
                        (11, "NotFailedOver"),
                        (12, "NotFailedOver"),
                    ],
                ),
            ),
            (P::DisablingProtection, but(ends, &[(10, BUSY)])),
            (P::DisablingFailed, but(ends, &[(10, ".")])),
        ];
        check(&table, ActiveLocation::Primary, false, false);
        // A failback that is not committed: it may be, or be cancelled.
        let home = [(
            P::PlannedFailoverCompleted,
            but(
                "CommitPending",
                &[(5, "."), (6, "."), (10, "MachineRunsFromReplica")],
            ),
        )];
        check(&home, ActiveLocation::Primary, true, true);
    }

    #[test]
    fn each_protection_state_at_the_target_gives_its_reason() {
        let runs = "MachineRunsFromReplica";
        let all = |code| {
            let mut row = [code; 13];
            (row[1], row[10]) = (NONE, runs);
            row
        };
        let pending = "CommitPending";
        let open = [
            ".", NONE, pending, pending, ".", ".", ".", pending, pending, pending, runs, pending, pending,
        ];
        let lost = "NotReprotected";
        let table = [
            (P::PlannedFailoverCompleted, open),
            (P::UnplannedFailoverCompleted, open),
            (P::ChangeRecoveryPointCompleted, open),
            (P::ChangeRecoveryPointInitiated, all(BUSY)),
            (P::CommitFailoverInProgress, all(BUSY)),
            (P::CancelFailoverInProgress, all(BUSY)),
            (
                P::CommitFailoverFailed,
                [
                    ".", NONE, pending, pending, pending, ".", pending, pending, pending, pending, runs,
                    pending, pending,
                ],
            ),
            (
                P::CommitFailoverCompleted,
                [
                    ".",
                    NONE,
                    lost,
                    lost,
                    lost,
                    "AlreadyCommitted",
                    lost,
                    ".",
                    lost,
                    lost,
                    runs,
                    ".",
                    "NotHydrated",
                ],
            ),
            (
                P::ReprotectFailed,
                [
                    ".", NONE, lost, lost, lost, lost, lost, ".", lost, lost, runs, ".", lost,
                ],
            ),
        ];
        check(&table, ActiveLocation::Recovery, true, false);
        let (over, nothing) = ("AlreadyFailedOver", "NothingToCommit");
        let protected = [(
            P::Protected,
            [
                ".",
                NONE,
                over,
                over,
                nothing,
                nothing,
                nothing,
                "AlreadyProtected",
                ".",
                over,
                runs,
                "Reprotected",
                over,
            ],
        )];
        check(&protected, ActiveLocation::Recovery, true, true);
        let failed = "ChangeRecoveryPointFailed";
        // The machine before it is gone: nothing to commit.
        let row = [
            failed, NONE, failed, failed, ".", failed, ".", failed, failed, failed, runs, failed, failed,
        ];
        check(
            &[(P::ChangeRecoveryPointFailed, row)],
            ActiveLocation::Recovery,
            false,
            false,
        );
        // It failed before the machine was given up: it is there as before.
        let row = [
            ".", NONE, failed, failed, ".", ".", ".", failed, failed, failed, runs, failed, failed,
        ];
        check(
            &[(P::ChangeRecoveryPointFailed, row)],
            ActiveLocation::Recovery,
            true,
            false,
        );
        // A failback that failed behind its fence: the machine goes on at the target.
        let failed = "FailoverFailed";
        let row = [
            ".", NONE, failed, failed, failed, failed, ".", failed, ".", failed, runs, failed, failed,
        ];
        check(
            &[(P::PlannedFailoverFailed, row)],
            ActiveLocation::Recovery,
            true,
            true,
        );
    }

    /// As it is when its disks are files.
    fn hydrate(item: &mut Item) {
        let mut failover = super::super::tests::started();
        failover.machine.disks = vec![crate::target::DiskAttachment {
            socket: "/nowhere/nbd".into(),
            export: item.disks[0].to_string(),
            file: Some(crate::target::DiskFile {
                path: "/srv/disk0.raw".into(),
                format: crate::target::DiskFormat::Raw,
                size_bytes: 1,
            }),
        }];
        item.active_location = ActiveLocation::Recovery;
        item.failover = Some(failover);
    }

    #[test]
    fn a_hydrated_and_a_migrated_machine_and_kept_points_give_their_reasons() {
        let codes = |change: &dyn Fn(&mut Item)| -> Vec<String> {
            Operation::ALL
                .into_iter()
                .map(|operation| verdict(operation, change, |_| ()).unwrap_or_else(|| ".".to_owned()))
                .collect()
        };
        let lost = "NotReprotected";
        let hydrated = codes(&|item| {
            hydrate(item);
            item.protection = P::CommitFailoverCompleted;
        });
        let row = [
            ".",
            NONE,
            lost,
            lost,
            lost,
            "AlreadyCommitted",
            lost,
            "Hydrated",
            lost,
            lost,
            "MigrationPending",
            "AlreadyHydrated",
            ".",
        ];
        assert_eq!(hydrated, row, "hydrated");
        let kept = crate::recovery::KeptPoints {
            since_unix_nanos: 1,
            until_unix_nanos: None,
        };
        let gone = "NotProtected";
        for (points, test, disable) in [(Some(kept), ".", "."), (None, gone, "MigrationCompleted")] {
            let migrated = codes(&|item| {
                hydrate(item);
                item.protection = P::Unprotected;
                item.kept_points = points;
            });
            let row = [
                test,
                NONE,
                gone,
                gone,
                gone,
                gone,
                gone,
                "Hydrated",
                gone,
                gone,
                disable,
                "AlreadyHydrated",
                gone,
            ];
            assert_eq!(migrated, row, "migrated, {points:?}");
        }
        let kept = codes(&|item| {
            item.protection = P::Unprotected;
            item.kept_points = Some(kept);
        });
        let mut row = [gone; 13];
        (row[0], row[1], row[10]) = (".", NONE, ".");
        assert_eq!(kept, row, "kept points");
        let again = codes(&|item| {
            hydrate(item);
            item.protection = P::DisablingFailed;
        });
        assert_eq!(again[12], ".", "a migration that failed is completed once more");
    }

    #[test]
    fn each_test_state_gives_its_reason() {
        let (busy, pending) = (Some("InProgress"), Some("CleanupPending"));
        for (state, test, cleanup, disable) in [
            (T::None, None, Some("NoTestFailover"), None),
            (T::TestFailoverInitiated, busy, busy, pending),
            (T::TestFailoverCompleting, busy, busy, pending),
            (T::TestFailoverCompleted, pending, None, pending),
            (T::TestFailoverFailed, pending, None, pending),
            (T::TestFailoverCleanupInitiated, busy, busy, pending),
            (T::TestFailoverCleanupCompleting, busy, busy, pending),
        ] {
            assert_eq!(
                in_test_state(TestFailover, state).as_deref(),
                test,
                "test in {state:?}"
            );
            assert_eq!(
                in_test_state(TestFailoverCleanup, state).as_deref(),
                cleanup,
                "cleanup in {state:?}"
            );
            assert_eq!(
                in_test_state(DisableProtection, state).as_deref(),
                disable,
                "disable in {state:?}"
            );
            // The real failover waits for no test.
            assert_eq!(
                in_test_state(UnplannedFailover, state),
                None,
                "failover in {state:?}"
            );
            let commit = verdict(
                Commit,
                |item| {
                    item.protection = P::UnplannedFailoverCompleted;
                    item.failover = Some(super::super::tests::started());
                    item.test_failover_state = state;
                },
                |_| (),
            );
            assert_eq!(
                commit.as_deref(),
                (state != T::None).then_some("CleanupPending"),
                "commit in {state:?}"
            );
        }
    }

    #[test]
    fn an_open_job_holds_everything_up_but_resynchronizing_does_not() {
        for operation in Operation::ALL {
            let code = verdict(
                operation,
                |_| (),
                |facts| facts.open_job = Some(JobKind::TestFailover),
            );
            assert_eq!(code.as_deref(), Some("JobRunning"), "{operation:?}");
        }
        for kind in [JobKind::Resynchronize, JobKind::ChangeDisks, JobKind::Reprotect] {
            for operation in [TestFailover, UnplannedFailover] {
                let code = verdict(operation, |_| (), |facts| facts.open_job = Some(kind));
                assert_eq!(code, None, "{operation:?}");
            }
        }
        let again = verdict(
            RepairReplication,
            |_| (),
            |facts| facts.open_job = Some(JobKind::Resynchronize),
        );
        assert_eq!(again.as_deref(), Some("InProgress"));
    }

    #[test]
    fn starting_needs_a_disk_a_point_and_a_hypervisor() {
        for operation in [TestFailover, UnplannedFailover] {
            let no_disk = verdict(operation, |item| item.disks.clear(), |_| ());
            assert_eq!(no_disk.as_deref(), Some("NoDisk"));
            let no_point = verdict(operation, |_| (), |facts| facts.usable_points = 0);
            assert_eq!(no_point.as_deref(), Some("NoRecoveryPoint"));
            let no_target = verdict(
                operation,
                |_| (),
                |facts| facts.target_trouble = Some("qemu is missing"),
            );
            assert_eq!(no_target.as_deref(), Some("TargetNotReady"));
            // A lost source is no reason to refuse: it is what a failover is for.
            let no_source = verdict(operation, |_| (), |facts| facts.source_connected = false);
            assert_eq!(no_source, None);
        }
        for operation in [RepairReplication, PlannedFailover] {
            let silent = verdict(operation, |_| (), |facts| facts.source_connected = false);
            assert_eq!(silent.as_deref(), Some("SourceNotConnected"));
        }
        let failback = verdict(
            Failback,
            |item| {
                item.active_location = ActiveLocation::Recovery;
                item.reprotect = Some(Reprotect {
                    receiver: item.machine,
                    final_point: None,
                });
            },
            |facts| facts.receiver_trouble = Some("it is not heard"),
        );
        assert_eq!(failback.as_deref(), Some("ReceiverNotReady"));
    }
}
