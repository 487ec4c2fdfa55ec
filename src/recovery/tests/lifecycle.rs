//! The ways beyond the first failover: planned, to another point, cancelled, home again; and what a machine writes at the
//! target, in recovery points.
use super::crashes::at_every_record;
use super::*;
use crate::replica::{At, RecoveryPoint};

pub const NOTE: &str = "made at the target";

/// First byte of a block of the first disk, as of a point.
pub fn byte_at(bed: &Bed, point: PointId, block: u64) -> u8 {
    let image = bed
        .store()
        .image(bed.machine, bed.disks[0], At::Point(point))
        .unwrap();
    let mut byte = [0];
    image.read_at(block * BLOCK_BYTES as u64, &mut byte).unwrap();
    byte[0]
}

pub fn points(bed: &Bed) -> Vec<RecoveryPoint> {
    bed.store().points(bed.machine).unwrap()
}

pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The newest point that was made at the target and holds this byte in the block.
pub fn sealed(bed: &Bed, block: u64, byte: u8) -> RecoveryPoint {
    wait_for("no such point was made at the target", || {
        let newest = points(bed).into_iter().next_back()?;
        (newest.note == NOTE && byte_at(bed, newest.id, block) == byte).then_some(newest)
    })
}

pub fn write(bed: &Bed, block: u64, byte: u8) {
    let real = bed.item().failover.unwrap();
    Client::connect(&real.machine.disks[0]).write(block * BLOCK_BYTES as u64, &[byte; BLOCK_BYTES]);
}

pub fn change_to(point: PointId) -> Request {
    Request::ChangeRecoveryPoint {
        point: PointChoice::Custom(point),
    }
}

/// The source seals this byte as its last point.
pub fn rests(bed: &Bed, byte: u8) {
    let (store, machine, disks) = (bed.store().clone(), bed.machine, bed.disks.clone());
    bed.site.rests(move || {
        seal(&store, machine, &disks, byte, Consistency::CrashConsistent).map_err(|error| error.to_string())
    });
}

pub fn ok(job: &Job) {
    assert_eq!(job.state, JobState::Succeeded, "{job:#?}");
}

#[test]
fn what_a_machine_writes_at_the_target_becomes_points() {
    let mut bed = Bed::new();
    ok(&bed.run(failover()));
    write(&bed, 5, 0x55);
    let point = sealed(&bed, 5, 0x55);
    assert_eq!(point.consistency, Consistency::CrashConsistent);
    assert_eq!(byte_at(&bed, point.id, 0), 2);
    assert_eq!(point.disks.len(), 2);
    // Over a restart of the server too, which remembers nothing of what was written.
    write(&bed, 6, 0x66);
    bed.restart();
    let point = sealed(&bed, 6, 0x66);
    assert_eq!(byte_at(&bed, point.id, 5), 0x55);
    write(&bed, 6, 0x67);
    sealed(&bed, 6, 0x67);
    // Such a point is one like any other.
    ok(&bed.run(test_failover(PointChoice::Latest)));
    let test = bed.item().test_failover.unwrap();
    assert_eq!(
        Client::connect(&test.machine.disks[0]).read(6 * BLOCK_BYTES as u64, 1),
        [0x67]
    );
    ok(&bed.run(cleanup()));
    // The commit keeps them, and removes those that the choice was made from.
    ok(&bed.run(Request::Commit));
    let real = bed.item().failover.unwrap();
    for point in points(&bed) {
        assert!(point.id == real.point || point.note == NOTE, "{point:?}");
    }
}

#[test]
fn the_line_of_an_older_point_takes_back_what_came_after_it() {
    let bed = Bed::new();
    let oldest = points(&bed)[0].id;
    ok(&bed.run(Request::UnplannedFailover {
        point: PointChoice::Custom(oldest),
        last_sync: false,
    }));
    sealed(&bed, 0, 1);
    assert_eq!(bed.compute.saw("web1-asr"), [1, 1]);
}

#[test]
fn a_planned_failover_starts_from_the_last_point_of_a_source_at_rest() {
    let bed = Bed::new();
    assert_eq!(bed.refused(Request::PlannedFailover), "SourceNotConnected");
    bed.site.rests(|| Err("a hook failed".into()));
    let job = bed.run(Request::PlannedFailover);
    assert_eq!(job.error.unwrap().code, "SourceNotStopped");
    assert_eq!(bed.item().protection, ProtectionState::Protected);
    assert_eq!(bed.site.fenced(), []);
    bed.assert_clean("after a source that did not rest");

    rests(&bed, 9);
    let job = bed.run(Request::PlannedFailover);
    ok(&job);
    assert_eq!(outcome(&job).stayed_at_rest, Some(true));
    assert_eq!(bed.compute.saw("web1-asr"), [9, 9]);
    assert_eq!(bed.item().protection, ProtectionState::PlannedFailoverCompleted);
    assert_eq!(bed.item().active_location, ActiveLocation::Recovery);
    assert!(bed.item().source_is_fenced());
}

#[test]
fn a_planned_failover_that_failed_behind_the_fence_is_run_again_or_cancelled() {
    let bed = Bed::new();
    rests(&bed, 9);
    bed.compute.trouble(Verb::Start, Some(Trouble::Fails));
    assert_eq!(bed.run(Request::PlannedFailover).state, JobState::Failed);
    assert_eq!(bed.item().protection, ProtectionState::PlannedFailoverFailed);
    assert!(bed.item().source_is_fenced());
    bed.compute.trouble(Verb::Start, None);
    ok(&bed.run(Request::PlannedFailover));
    assert_eq!(bed.compute.saw("web1-asr"), [9, 9]);
    ok(&bed.run(Request::CancelFailover));
    let item = bed.item();
    assert_eq!(item.protection, ProtectionState::Protected);
    assert!(!item.source_is_fenced());
    bed.assert_clean("after the cancel");
}

#[test]
fn another_point_replaces_the_machine_until_the_commit() {
    let bed = Bed::new();
    let first = points(&bed)[0].id;
    assert_eq!(bed.refused(change_to(first)), "NothingToCommit");
    ok(&bed.run(failover()));
    write(&bed, 5, 0x55);
    let at_target = sealed(&bed, 5, 0x55);
    ok(&bed.run(change_to(first)));
    assert_eq!(
        bed.item().protection,
        ProtectionState::ChangeRecoveryPointCompleted
    );
    assert_eq!(bed.compute.saw("web1-asr"), [1, 1]);
    assert_eq!(
        entries(&bed.vms()).len(),
        1,
        "the branches of the machine before are gone"
    );
    sealed(&bed, 0, 1);
    // Forward again, to what the first machine wrote.
    ok(&bed.run(change_to(at_target.id)));
    let real = bed.item().failover.unwrap();
    assert_eq!(
        Client::connect(&real.machine.disks[0]).read(5 * BLOCK_BYTES as u64, 1),
        [0x55]
    );
    assert_eq!(bed.store().pins(bed.machine).unwrap().len(), 1);
    ok(&bed.run(Request::Commit));
    assert_eq!(bed.refused(change_to(at_target.id)), "NotReprotected");
}

#[test]
fn a_change_that_fails_leaves_nothing_and_can_be_run_again() {
    let bed = Bed::new();
    ok(&bed.run(failover()));
    let first = points(&bed)[0].id;
    bed.compute.trouble(Verb::Start, Some(Trouble::Fails));
    assert_eq!(bed.run(change_to(first)).state, JobState::Failed);
    let item = bed.item();
    assert_eq!(item.protection, ProtectionState::ChangeRecoveryPointFailed);
    assert_eq!(item.failover, None);
    assert_eq!(bed.refused(Request::Commit), "ChangeRecoveryPointFailed");
    bed.compute.trouble(Verb::Start, None);
    ok(&bed.run(change_to(first)));
    ok(&bed.run(Request::Commit));
}

#[test]
fn a_cancelled_failover_lets_the_source_go_on_in_a_new_generation() {
    let bed = Bed::new();
    ok(&bed.run(failover()));
    write(&bed, 5, 0x55);
    sealed(&bed, 5, 0x55);
    ok(&bed.run(Request::CancelFailover));
    let item = bed.item();
    assert_eq!(item.protection, ProtectionState::Protected);
    assert_eq!(item.active_location, ActiveLocation::Primary);
    assert_eq!(item.generation, 3);
    assert!(!item.source_is_fenced());
    bed.assert_clean("after the cancel");
    assert!(
        bed.store().begin(bed.machine, 2).is_err(),
        "the target's line is over"
    );
    assert!(bed.store().begin(bed.machine, 3).is_ok());
    ok(&bed.run(failover()));
}

/// Failed over, committed, and reprotected by a receiver that holds the disks.
pub fn away(bed: &Bed) {
    ok(&bed.run(failover()));
    write(bed, 5, 0x55);
    ok(&bed.run(Request::Commit));
    bed.journal.change(bed.machine, |item| {
        item.protection = ProtectionState::Protected;
        item.reprotect = Some(Reprotect {
            receiver: item.machine,
            final_point: None,
        });
    });
}

/// Takes whatever final point there is, as a receiver does.
pub fn receive(bed: &Bed) -> std::thread::JoinHandle<()> {
    let (journal, site, machine) = (bed.journal.clone(), bed.site.clone(), bed.machine);
    let jobs = journal.kept().jobs.len();
    std::thread::spawn(move || {
        wait_for("no final point", || {
            // Until the job that is about to come is over.
            let kept = journal.kept();
            let over = kept.jobs.len() > jobs && kept.jobs.values().all(|job| job.state.is_over());
            let point = kept.items[&machine]
                .reprotect
                .as_ref()
                .and_then(|reprotect| reprotect.final_point);
            drop(kept);
            if point.is_some() {
                site.receives(Ok(point));
            }
            over.then_some(())
        });
    })
}

#[test]
fn a_failback_brings_home_all_that_was_written_at_the_target() {
    let bed = Bed::new();
    assert_eq!(bed.refused(Request::Failback), "NotFailedOver");
    away(&bed);
    bed.site.receives(Err("it is not heard".into()));
    assert_eq!(bed.refused(Request::Failback), "ReceiverNotReady");
    bed.site.receives(Ok(None));
    write(&bed, 6, 0x66);
    let receiver = receive(&bed);
    let job = bed.run(Request::Failback);
    receiver.join().unwrap();
    ok(&job);
    let last = outcome(&job).point_id.unwrap();
    assert_eq!(byte_at(&bed, last, 6), 0x66);
    let item = bed.item();
    assert_eq!(item.protection, ProtectionState::PlannedFailoverCompleted);
    assert_eq!(item.active_location, ActiveLocation::Primary);
    assert!(item.source_is_fenced(), "until it is reprotected");
    assert_eq!(
        bed.compute
            .status(&item.failover.as_ref().unwrap().machine)
            .unwrap()
            .power,
        Power::Stopped
    );
    // Not as it should be at home: the machine goes on at the target, where it was stopped.
    ok(&bed.run(Request::CancelFailover));
    let item = bed.item();
    assert_eq!(item.active_location, ActiveLocation::Recovery);
    assert_eq!(item.protection, ProtectionState::Protected);
    assert_eq!(item.reprotect.unwrap().final_point, None);
    write(&bed, 7, 0x77);
    sealed(&bed, 7, 0x77);
    let receiver = receive(&bed);
    ok(&bed.run(Request::Failback));
    receiver.join().unwrap();
    ok(&bed.run(Request::Commit));
    let item = bed.item();
    assert_eq!(item.protection, ProtectionState::CommitFailoverCompleted);
    assert_eq!(item.reprotect, None);
    bed.assert_clean("after the commit at home");
}

#[test]
fn a_receiver_in_trouble_lets_the_machine_go_on_at_the_target() {
    let bed = Bed::new();
    away(&bed);
    let site = bed.site.clone();
    bed.journal.hook(move |job| {
        let handing = job
            .tasks
            .iter()
            .any(|task| task.name == "HandHome" && task.state == TaskState::InProgress);
        if handing {
            site.receives(Err("the disk at home failed".into()));
        }
    });
    let job = bed.run(Request::Failback);
    assert_eq!(job.error.as_ref().unwrap().code, "NotHome");
    let item = bed.item();
    assert_eq!(item.protection, ProtectionState::Protected);
    assert_eq!(item.active_location, ActiveLocation::Recovery);
    assert_eq!(item.reprotect.clone().unwrap().final_point, None);
    let machine = item.failover.unwrap().machine;
    assert_eq!(bed.compute.status(&machine).unwrap().power, Power::Running);
    write(&bed, 8, 0x88);
    sealed(&bed, 8, 0x88);
}

#[test]
fn a_planned_failover_survives_a_crash_at_every_record() {
    at_every_record(
        "planned failover",
        |bed| rests(bed, 9),
        Request::PlannedFailover,
        |bed, job, story| {
            let Some(job) = job else {
                assert_eq!(bed.item().protection, ProtectionState::Protected, "{story}");
                return;
            };
            // The source's closure holds the store of the server before; a real one dials the next.
            if job.state == JobState::Failed {
                assert_eq!(bed.item().protection, ProtectionState::Protected, "{story}");
                assert_eq!(bed.site.fenced(), [], "{story}");
                return;
            }
            assert_eq!(
                bed.item().protection,
                ProtectionState::PlannedFailoverCompleted,
                "{story}: {job:?}"
            );
            assert_eq!(bed.item().generation, 2, "{story}: fenced once");
            assert_eq!(bed.compute.names(), ["web1-asr"], "{story}");
            assert_eq!(bed.compute.saw("web1-asr"), [9, 9], "{story}");
        },
    );
}

#[test]
fn a_change_of_the_point_survives_a_crash_at_every_record() {
    at_every_record(
        "change of the point",
        |bed| ok(&bed.run(failover())),
        Request::ChangeRecoveryPoint {
            point: PointChoice::LatestAppConsistent,
        },
        |bed, job, story| {
            if job.is_none() {
                assert_eq!(
                    bed.item().protection,
                    ProtectionState::UnplannedFailoverCompleted,
                    "{story}"
                );
                return;
            }
            assert_eq!(
                bed.item().protection,
                ProtectionState::ChangeRecoveryPointCompleted,
                "{story}"
            );
            assert_eq!(bed.compute.saw("web1-asr"), [1, 1], "{story}");
            assert_eq!(bed.store().pins(bed.machine).unwrap().len(), 1, "{story}");
            assert_eq!(entries(&bed.vms()).len(), 1, "{story}");
        },
    );
}

#[test]
fn a_cancel_survives_a_crash_at_every_record() {
    at_every_record(
        "cancel",
        |bed| ok(&bed.run(failover())),
        Request::CancelFailover,
        |bed, job, story| {
            if job.is_none() {
                assert_eq!(
                    bed.item().protection,
                    ProtectionState::UnplannedFailoverCompleted,
                    "{story}"
                );
                return;
            }
            assert_eq!(bed.item().protection, ProtectionState::Protected, "{story}");
            assert_eq!(bed.item().generation, 3, "{story}: raised once");
            bed.assert_clean(story);
        },
    );
}

#[test]
fn a_failback_and_its_end_survive_a_crash_at_every_record() {
    let home = |bed: &Bed| {
        away(bed);
        bed.site.receives(Ok(None));
    };
    at_every_record(
        "failback",
        |bed| {
            home(bed);
            // Outlives the server that dies.
            receive(bed);
        },
        Request::Failback,
        |bed, job, story| {
            let item = bed.item();
            if job.is_none() {
                assert_eq!(item.protection, ProtectionState::Protected, "{story}");
                return;
            }
            assert_eq!(
                item.protection,
                ProtectionState::PlannedFailoverCompleted,
                "{story}: {job:#?}"
            );
            assert_eq!(item.active_location, ActiveLocation::Primary, "{story}");
            assert_eq!(item.generation, 3, "{story}: raised once");
            let machine = item.failover.unwrap().machine;
            assert_eq!(
                bed.compute.status(&machine).unwrap().power,
                Power::Stopped,
                "{story}"
            );
        },
    );
    let came_home = |bed: &Bed| {
        home(bed);
        let receiver = receive(bed);
        ok(&bed.run(Request::Failback));
        receiver.join().unwrap();
    };
    at_every_record("commit at home", came_home, Request::Commit, |bed, job, story| {
        if job.is_some() {
            assert_eq!(
                bed.item().protection,
                ProtectionState::CommitFailoverCompleted,
                "{story}"
            );
            bed.assert_clean(story);
        }
    });
    at_every_record(
        "cancel at home",
        came_home,
        Request::CancelFailover,
        |bed, job, story| {
            if job.is_some() {
                let item = bed.item();
                assert_eq!(item.protection, ProtectionState::Protected, "{story}");
                assert_eq!(item.active_location, ActiveLocation::Recovery, "{story}");
                let machine = item.failover.unwrap().machine;
                assert_eq!(
                    bed.compute.status(&machine).unwrap().power,
                    Power::Running,
                    "{story}"
                );
            }
        },
    );
}
