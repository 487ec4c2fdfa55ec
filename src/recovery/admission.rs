//! What is allowed now, and for what is not, the reason. Pure: facts in, verdict out.
use super::error::Refusal;
use super::job::JobKind;
use super::request::Operation;
use super::state::{Item, ProtectionEvent, ProtectionState, TestFailoverState};

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
    match operation {
        Operation::TestFailover => {
            protected(operation, facts)?;
            match facts.item.test_failover_state {
                TestFailoverState::None => {}
                TestFailoverState::TestFailoverCompleted | TestFailoverState::TestFailoverFailed => {
                    return Err(cleanup_pending("another test failover"));
                }
                _ => return Err(busy("A test failover or its cleanup")),
            }
            startable(facts)
        }
        Operation::TestFailoverCleanup => match facts.item.test_failover_state {
            TestFailoverState::TestFailoverCompleted | TestFailoverState::TestFailoverFailed => Ok(()),
            TestFailoverState::None => Err(Refusal::new(
                "NoTestFailover",
                format!("No test failover of {} waits for its cleanup.", facts.item.name),
                "No test failover was run, or it was cleaned up already; one that fails cleans up after itself.",
                "Nothing needs to be done.",
            )),
            _ => Err(busy("A test failover or its cleanup")),
        },
        // A waiting test failover does not hold up the real one: it has a folder, a name and a pin of its own.
        Operation::UnplannedFailover => {
            if facts.item.protection != ProtectionState::UnplannedFailoverFailed {
                protected(operation, facts)?;
            }
            startable(facts)
        }
        Operation::Commit => {
            match facts.item.protection {
                ProtectionState::UnplannedFailoverCompleted | ProtectionState::CommitFailoverFailed => {}
                ProtectionState::CommitFailoverCompleted => {
                    return Err(Refusal::new(
                        "AlreadyCommitted",
                        format!("The failover of {} is committed already.", facts.item.name),
                        "Somebody committed it before.",
                        "Nothing needs to be done.",
                    ));
                }
                ProtectionState::CommitFailoverInProgress => return Err(busy("The commit")),
                _ => {
                    return Err(Refusal::new(
                        "NothingToCommit",
                        format!("{} has no failover that could be committed.", facts.item.name),
                        "No failover was run, or it failed.",
                        "Run a failover first; commit it when the machine at the target is as it should be.",
                    ));
                }
            }
            if facts.item.test_failover_state != TestFailoverState::None {
                return Err(cleanup_pending(
                    "the commit, which removes the other recovery points",
                ));
            }
            Ok(())
        }
        Operation::RepairReplication => {
            if facts.open_job == Some(JobKind::Resynchronize) {
                return Err(busy("A resynchronization"));
            }
            match facts.item.protection {
                ProtectionState::Protected => {}
                ProtectionState::InitialReplicationFailed | ProtectionState::InitialReplicationInProgress => {
                }
                state => return Err(not_protected(operation, facts, state)),
            }
            if !facts.source_connected {
                return Err(Refusal::new(
                    "SourceNotConnected",
                    format!("The agent on {} does not answer.", facts.item.name),
                    "The machine is down, the agent is stopped, or the network to this server is cut.",
                    "Start the agent on the machine (`lifeboat agent status` there says more) and try again.",
                ));
            }
            Ok(())
        }
        Operation::DisableProtection => {
            if facts.item.test_failover.is_some() || facts.item.test_failover_state != TestFailoverState::None
            {
                return Err(cleanup_pending("protection is disabled"));
            }
            if facts.item.failover.is_some() || facts.item.protection.is_fenced() {
                return Err(Refusal::new(
                    "MachineRunsFromReplica",
                    format!(
                        "{} was failed over: the machine at the target reads its disks from this replica.",
                        facts.item.name
                    ),
                    "Disabling protection removes the replica and with it the disks of the running machine.",
                    "Keep the item for as long as the machine runs at the target.",
                ));
            }
            match facts.item.protection {
                ProtectionState::DisablingProtection => Err(busy("Disabling the protection")),
                state if state.step(ProtectionEvent::DisableRequested).is_ok() => Ok(()),
                state => Err(not_protected(operation, facts, state)),
            }
        }
    }
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

fn not_protected(operation: Operation, facts: &Facts, state: ProtectionState) -> Refusal {
    let name = &facts.item.name;
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
        ProtectionState::UnplannedFailoverInitiated | ProtectionState::UnplannedFailoverCompleting => {
            busy("A failover")
        }
        ProtectionState::UnplannedFailoverFailed => Refusal::new(
            "FailoverFailed",
            format!(
                "The failover of {name} failed after its source was fenced; {operation:?} is not possible."
            ),
            "See the failed job.",
            "Run the failover again.",
        ),
        _ => Refusal::new(
            "AlreadyFailedOver",
            format!("{name} was failed over; {operation:?} is not possible."),
            "The machine runs at the target, and its source is fenced.",
            "Go on with the machine at the target.",
        ),
    }
}

fn protected(operation: Operation, facts: &Facts) -> Result<(), Refusal> {
    match facts.item.protection {
        ProtectionState::Protected => Ok(()),
        state => Err(not_protected(operation, facts, state)),
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
        Some(trouble) => Err(Refusal::new(
            "TargetNotReady",
            format!("No machine can be started at the target: {trouble}."),
            "The hypervisor or a part of it is not installed or not usable.",
            "Install what is missing on the target and try again.",
        )),
    }
}

#[cfg(test)]
mod tests {
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

    fn in_state(operation: Operation, state: ProtectionState) -> Option<String> {
        verdict(operation, |item| item.protection = state, |_| ())
    }

    fn in_test_state(operation: Operation, state: TestFailoverState) -> Option<String> {
        verdict(operation, |item| item.test_failover_state = state, |_| ())
    }

    use Operation::*;
    use ProtectionState as P;
    use TestFailoverState as T;

    #[test]
    fn a_protected_machine_with_points() {
        let expected = [
            (TestFailover, None),
            (TestFailoverCleanup, Some("NoTestFailover")),
            (UnplannedFailover, None),
            (Commit, Some("NothingToCommit")),
            (RepairReplication, None),
            (DisableProtection, None),
        ];
        for (operation, code) in expected {
            assert_eq!(
                in_state(operation, P::Protected).as_deref(),
                code,
                "{operation:?}"
            );
        }
    }

    /// One column per operation in the order of `Operation::ALL`.
    #[test]
    fn each_protection_state_gives_its_reason() {
        let running = Some("InitialReplicationRunning");
        let failed = Some("InitialReplicationFailed");
        let (none, nothing) = (Some("NoTestFailover"), Some("NothingToCommit"));
        let (busy, over) = (Some("InProgress"), Some("AlreadyFailedOver"));
        let (ends, runs) = (Some("ProtectionEnds"), Some("MachineRunsFromReplica"));
        let not = Some("NotProtected");
        let table = [
            (P::Unprotected, [not, none, not, nothing, not, not]),
            (
                P::EnablingProtection,
                [running, none, running, nothing, running, None],
            ),
            (P::EnablingFailed, [failed, none, failed, nothing, failed, None]),
            (
                P::InitialReplicationInProgress,
                [running, none, running, nothing, None, None],
            ),
            (
                P::InitialReplicationFailed,
                [failed, none, failed, nothing, None, None],
            ),
            (P::Protected, [None, none, None, nothing, None, None]),
            (
                P::UnplannedFailoverInitiated,
                [busy, none, busy, nothing, busy, busy],
            ),
            (
                P::UnplannedFailoverCompleting,
                [busy, none, busy, nothing, busy, runs],
            ),
            (
                P::UnplannedFailoverCompleted,
                [over, none, over, None, over, runs],
            ),
            (
                P::UnplannedFailoverFailed,
                [
                    Some("FailoverFailed"),
                    none,
                    None,
                    nothing,
                    Some("FailoverFailed"),
                    runs,
                ],
            ),
            (P::CommitFailoverInProgress, [over, none, over, busy, over, runs]),
            (
                P::CommitFailoverCompleted,
                [over, none, over, Some("AlreadyCommitted"), over, runs],
            ),
            (P::CommitFailoverFailed, [over, none, over, None, over, runs]),
            (P::DisablingProtection, [ends, none, ends, nothing, ends, busy]),
            (P::DisablingFailed, [ends, none, ends, nothing, ends, None]),
        ];
        for (state, row) in table {
            for (operation, code) in Operation::ALL.into_iter().zip(row) {
                assert_eq!(
                    in_state(operation, state).as_deref(),
                    code,
                    "{operation:?} in {state:?}"
                );
            }
        }
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
        for kind in [JobKind::Resynchronize, JobKind::ChangeDisks] {
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
        let repair = verdict(RepairReplication, |_| (), |facts| facts.source_connected = false);
        assert_eq!(repair.as_deref(), Some("SourceNotConnected"));
    }
}
