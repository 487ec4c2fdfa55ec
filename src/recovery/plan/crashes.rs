//! Every operation of a plan: its run is cut off at every record of its own and at every record of its machines' jobs, meets
//! trouble at every verb, and is run twice. Real store, real branches; the test's hypervisor and source site.
use super::tests::{PlanBed, over, states};
use super::*;
use crate::block::{Consistency, MachineId};
use crate::recovery::job::{JobId, JobKind, JobState, Journal};
use crate::recovery::tests::{Cut, LIMIT, Trouble, Verb, seal};
use crate::recovery::{RecoveryError, Refusal};
use std::collections::HashMap;
use std::time::{Duration, Instant};

fn kind(operation: PlanOperation) -> JobKind {
    match operation {
        PlanOperation::TestFailover => JobKind::TestFailover,
        PlanOperation::TestFailoverCleanup => JobKind::TestFailoverCleanup,
        PlanOperation::PlannedFailover => JobKind::PlannedFailover,
        PlanOperation::UnplannedFailover => JobKind::UnplannedFailover,
        PlanOperation::Commit => JobKind::CommitFailover,
        PlanOperation::CancelFailover => JobKind::CancelFailover,
        PlanOperation::ReverseReplicate => JobKind::Reprotect,
        PlanOperation::Failback => JobKind::Failback,
    }
}

/// A plan of which everything before the operation was done, by runs of its own.
fn before(operation: PlanOperation) -> PlanBed {
    use PlanOperation::*;
    let mut bed = PlanBed::new();
    bed.plan.on_machine_failure = OnMachineFailure::Ask;
    let mut lasts = HashMap::new();
    for &machine in &bed.machines {
        let disks = bed.bed.journal.item(machine).unwrap().disks;
        let last = seal(bed.bed.store(), machine, &disks, 9, Consistency::CrashConsistent).unwrap();
        lasts.insert(machine, last);
    }
    // An unplanned one is of sources that do not answer.
    if operation != UnplannedFailover {
        bed.bed.site.rest_at(lasts);
    }
    bed.bed.site.receives_at_once();
    let chain: &[PlanOperation] = match operation {
        TestFailover | PlannedFailover | UnplannedFailover => &[],
        TestFailoverCleanup => &[TestFailover],
        Commit | CancelFailover => &[PlannedFailover],
        ReverseReplicate => &[PlannedFailover, Commit],
        Failback => &[PlannedFailover, Commit, ReverseReplicate],
    };
    for earlier in chain {
        let run = bed.run(*earlier);
        assert_eq!(run.state, JobState::Succeeded, "{earlier:?}: {:?}", states(&run));
    }
    bed
}

/// Each machine is where the operation wants it, by one job; run once more, all of it is done already.
fn check(bed: &PlanBed, operation: PlanOperation, jobs: usize, story: &str) {
    assert_eq!(bed.bed.journal.open_jobs().unwrap(), [], "{story}");
    assert_eq!(bed.bed.journal.open_plan_runs().unwrap(), [], "{story}");
    for &machine in &bed.machines {
        let item = bed.bed.journal.item(machine).unwrap();
        let there = match operation {
            PlanOperation::TestFailover => item.test_failover.is_some(),
            _ => operation.is_done(&item),
        };
        assert!(there, "{story}: {item:?}");
        assert_eq!(bed.bed.journal.jobs_of(machine, kind(operation)), jobs, "{story}");
    }
    if matches!(
        operation,
        PlanOperation::PlannedFailover | PlanOperation::UnplannedFailover
    ) {
        for name in ["web1-asr", "db1-asr", "app1-asr"] {
            assert_eq!(
                bed.bed.compute.saw(name),
                [9, 9],
                "{story}: {name} started from the last point"
            );
        }
    }
    if operation == PlanOperation::TestFailover {
        return;
    }
    let again = bed.run(operation);
    assert_eq!(again.state, JobState::Succeeded, "{story}: {:?}", states(&again));
    assert!(
        again.steps.iter().all(|step| step.state == StepState::Skipped),
        "{story}: {:?}",
        states(&again)
    );
}

/// Until the run is over or the journal has died.
fn follow(bed: &PlanBed, id: JobId, story: &str) {
    let deadline = Instant::now() + LIMIT;
    while !bed.bed.journal.is_dead() {
        assert!(Instant::now() < deadline, "{story}: it neither ended nor died");
        if bed.bed.journal.plan_run(id).is_ok_and(|run| run.state.is_over()) {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// `of_runs`: the records of runs, else those of jobs. How many there were.
fn cut_at_every_record(operation: PlanOperation, of_runs: bool) -> usize {
    for record in 1.. {
        let mut died = false;
        for cut in [Cut::Before, Cut::After] {
            // Of jobs there are many: before and after in turn.
            if !of_runs && (record % 2 == 0) == (cut == Cut::After) {
                continue;
            }
            let story = format!(
                "{operation:?}, cut {cut:?} record {record} of {}",
                if of_runs { "runs" } else { "jobs" }
            );
            let mut bed = before(operation);
            match of_runs {
                true => bed.bed.journal.cut_run(record, cut),
                false => bed.bed.journal.cut(record, cut),
            }
            let id = match bed.start(operation) {
                Ok(id) => {
                    follow(&bed, id, &story);
                    Some(id)
                }
                Err(RecoveryError::Journal(_)) => None,
                Err(error) => panic!("{story}: {error}"),
            };
            if bed.bed.journal.is_dead() {
                died = true;
                bed.restart();
            }
            bed.bed.journal.heal();
            let kept = || {
                bed.bed
                    .journal
                    .open_plan_runs()
                    .unwrap()
                    .first()
                    .map(|run| run.id)
            };
            let Some(id) = id.or_else(kept) else {
                assert_eq!(
                    (record, cut),
                    (1, Cut::Before),
                    "{story}: an order that was taken is lost"
                );
                continue;
            };
            let run = over(&bed, id);
            assert_eq!(run.state, JobState::Succeeded, "{story}: {run:#?}");
            check(&bed, operation, 1, &story);
        }
        if !died {
            return record - 1;
        }
    }
    0
}

fn survives(operation: PlanOperation) {
    let runs = cut_at_every_record(operation, true);
    // Its begin, each of two groups begun and ended, its end.
    assert!(runs >= 4, "{operation:?}: {runs} records of the run");
    if operation != PlanOperation::ReverseReplicate {
        let jobs = cut_at_every_record(operation, false);
        assert!(jobs >= 9, "{operation:?}: {jobs} records of jobs");
    }
}

#[test]
fn a_planned_failover_of_a_plan_survives_a_crash_at_every_record() {
    survives(PlanOperation::PlannedFailover);
}

#[test]
fn an_unplanned_failover_of_a_plan_survives_a_crash_at_every_record() {
    survives(PlanOperation::UnplannedFailover);
}

#[test]
fn a_cancel_of_a_plan_survives_a_crash_at_every_record() {
    survives(PlanOperation::CancelFailover);
}

#[test]
fn commit_reprotect_and_cleanup_of_a_plan_survive_a_crash_at_every_record() {
    survives(PlanOperation::Commit);
    survives(PlanOperation::ReverseReplicate);
    survives(PlanOperation::TestFailoverCleanup);
}

#[test]
fn a_failback_of_a_plan_survives_a_crash_at_every_record() {
    survives(PlanOperation::Failback);
}

/// Asked for a decision, a person lets what failed be tried again; until nothing waits.
fn resumed(bed: &PlanBed, id: JobId, story: &str) -> PlanRun {
    let deadline = Instant::now() + LIMIT;
    loop {
        assert!(Instant::now() < deadline, "{story}");
        let run = bed.wait(id);
        if run.state.is_over() {
            return run;
        }
        let word = PersonsWord::Resume {
            step: None,
            comment: "once more".into(),
        };
        // Refused where it goes on by itself meanwhile.
        let _ = bed.engine().say(id, &word, "bob");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn failed(run: &PlanRun) -> Vec<&str> {
    let failed = |step: &&RunStep| step.state == StepState::Failed;
    run.steps.iter().filter(failed).map(RunStep::name).collect()
}

#[test]
fn every_step_of_every_operation_that_fails_once_is_tried_again() {
    use PlanOperation::*;
    let table: [(PlanOperation, &[Verb]); 6] = [
        (TestFailover, &[Verb::Check, Verb::Prepare, Verb::Start]),
        (TestFailoverCleanup, &[Verb::Destroy]),
        (PlannedFailover, &[Verb::Check, Verb::Prepare, Verb::Start]),
        (UnplannedFailover, &[Verb::Check, Verb::Prepare, Verb::Start]),
        (CancelFailover, &[Verb::Destroy]),
        (Failback, &[Verb::Stop]),
    ];
    for (operation, verbs) in table {
        for &verb in verbs {
            let story = format!("{operation:?}, {verb:?} fails");
            let bed = before(operation);
            bed.bed.compute.trouble(verb, Some(Trouble::Fails));
            let id = bed.start(operation).unwrap();
            let run = bed.wait(id);
            assert_eq!(run.state, JobState::Suspended, "{story}: {:?}", states(&run));
            let first = if operation == TestFailoverCleanup {
                vec!["app1", "web1"]
            } else {
                vec!["db1"]
            };
            assert_eq!(
                failed(&run),
                first,
                "{story}: the first group, and no other was begun"
            );
            bed.bed.compute.trouble(verb, None);
            let run = resumed(&bed, id, &story);
            assert_eq!(run.state, JobState::Succeeded, "{story}: {run:#?}");
            let step = run.steps.iter().find(|step| step.name() == first[0]).unwrap();
            // What the hypervisor said of itself is believed for some seconds: until then it is refused again.
            let attempts = if verb == Verb::Check {
                step.attempt.max(2)
            } else {
                2
            };
            assert_eq!(
                (
                    step.attempt,
                    step.earlier_jobs.len() as u32 + 1,
                    step.comment.as_str()
                ),
                (attempts, attempts, "once more"),
                "{story}"
            );
            if operation != TestFailover {
                let again = bed.run(operation);
                assert!(
                    again.steps.iter().all(|step| step.state == StepState::Skipped),
                    "{story}: {:?}",
                    states(&again)
                );
            }
        }
    }
}

#[test]
fn a_source_that_does_not_rest_and_a_receiver_in_trouble_hold_a_plan_up_and_nothing_is_lost() {
    let bed = before(PlanOperation::PlannedFailover);
    // One of the second group: the first one is over by then.
    let (web1, mut lasts) = (bed.machines[0], HashMap::<MachineId, _>::new());
    for &machine in &bed.machines[1..] {
        lasts.insert(
            machine,
            bed.bed.store().points(machine).unwrap().last().unwrap().id,
        );
    }
    bed.bed.site.rest_at(lasts.clone());
    let id = bed.start(PlanOperation::PlannedFailover).unwrap();
    let run = bed.wait(id);
    assert_eq!(
        (run.state, failed(&run)),
        (JobState::Suspended, vec!["web1"]),
        "{:?}",
        states(&run)
    );
    assert!(
        !bed.bed.journal.item(web1).unwrap().source_is_fenced(),
        "its source goes on"
    );
    lasts.insert(web1, bed.bed.store().points(web1).unwrap().last().unwrap().id);
    bed.bed.site.rest_at(lasts);
    assert_eq!(resumed(&bed, id, "rest").state, JobState::Succeeded);

    for operation in [PlanOperation::Commit, PlanOperation::ReverseReplicate] {
        if operation == PlanOperation::ReverseReplicate {
            let trouble = Refusal::new(
                "ReceiverIsReplicated",
                "It is replicated itself.",
                "A mistake.",
                "Take another.",
            );
            bed.bed.journal.refuse_reprotect(trouble.into());
            let id = bed.start(operation).unwrap();
            let run = bed.wait(id);
            assert_eq!(
                (run.state, failed(&run)),
                (JobState::Suspended, vec!["db1"]),
                "{:?}",
                states(&run)
            );
            assert_eq!(resumed(&bed, id, "reprotect").state, JobState::Succeeded);
        } else {
            assert_eq!(bed.run(operation).state, JobState::Succeeded);
        }
    }
    bed.bed.site.receives(Err("it is not heard".into()));
    let id = bed.start(PlanOperation::Failback).unwrap();
    let run = bed.wait(id);
    assert_eq!(
        (run.state, failed(&run)),
        (JobState::Suspended, vec!["db1"]),
        "{:?}",
        states(&run)
    );
    assert!(run.waits_for.contains("db1 failed"), "{}", run.waits_for);
    assert_eq!(
        bed.bed.compute.names(),
        ["app1-asr", "db1-asr", "web1-asr"],
        "they go on at the target"
    );
    bed.bed.site.receives(Ok(None));
    assert_eq!(resumed(&bed, id, "home").state, JobState::Succeeded);
    assert_eq!(bed.run(PlanOperation::Commit).state, JobState::Succeeded);
    assert_eq!(
        bed.run(PlanOperation::ReverseReplicate).state,
        JobState::Succeeded
    );
    for &machine in &bed.machines {
        let item = bed.bed.journal.item(machine).unwrap();
        assert!(
            !item.source_is_fenced() && item.failover.is_none(),
            "home and protected: {item:?}"
        );
    }
    bed.bed.assert_clean("home again");
}
