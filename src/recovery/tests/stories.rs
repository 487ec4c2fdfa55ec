//! What people do, from the order to the end.
use super::*;

#[test]
fn a_test_failover_starts_a_machine_at_a_point_and_its_cleanup_leaves_nothing() {
    let bed = Bed::new();
    let newest = bed.store().points(bed.machine).unwrap().pop().unwrap();
    let job = bed.run(test_failover(PointChoice::LatestProcessed));
    assert_eq!(job.state, JobState::Succeeded, "{job:?}");
    assert_eq!(job.user, "tester");
    assert!(
        job.tasks
            .iter()
            .all(|task| matches!(task.state, TaskState::Succeeded | TaskState::Skipped)),
        "{job:?}"
    );
    let result = outcome(&job);
    assert_eq!(result.point_id, Some(newest.id));
    assert_eq!(result.point_instant_unix_nanos, Some(newest.instant_unix_nanos));
    assert_eq!(result.machine_name.as_deref(), Some("web1-test"));
    assert!(result.first_read_ms.is_some_and(|ms| ms < 5000), "{result:?}");
    assert_eq!(bed.compute.saw("web1-test"), [2, 2]);
    let item = bed.item();
    assert_eq!(item.test_failover_state, TestFailoverState::TestFailoverCompleted);
    assert_eq!(item.protection, ProtectionState::Protected);
    assert_eq!(item.active_location, ActiveLocation::Primary);
    assert_eq!(item.generation, 1, "a test fences nobody");
    let test = item.test_failover.unwrap();
    assert_eq!((test.job, test.point), (job.id, newest.id));
    let tail = test.job.to_string().split('-').next_back().unwrap().to_owned();
    assert_eq!(
        test.machine.nics[0].network,
        Network::isolated(&format!("test-{tail}")),
        "an isolated network of its own"
    );
    let status = bed.runner().machine_status(bed.machine, true).unwrap().unwrap();
    assert_eq!(status.power, Power::Running);
    assert!(bed.runner().serial_log(bed.machine, true).unwrap().exists());
    assert!(bed.runner().machine_status(bed.machine, false).unwrap().is_none());
    // The figure that comes later.
    let deadline = Instant::now() + LIMIT;
    while outcome(&bed.journal.job(job.id).unwrap())
        .kernel_start_ms
        .is_none()
    {
        assert!(Instant::now() < deadline, "the start of the kernel was not noted");
        std::thread::yield_now();
    }
    // Replication and retention go on; the point is held.
    assert_eq!(bed.refused(test_failover(PointChoice::Latest)), "CleanupPending");
    let later = bed.seal(3, Consistency::CrashConsistent);
    bed.store()
        .keep_only(bed.machine, |point| point.id == later)
        .unwrap();
    assert!(
        bed.store()
            .points(bed.machine)
            .unwrap()
            .iter()
            .any(|point| point.id == newest.id)
    );
    let job = bed.run(cleanup());
    assert_eq!(job.state, JobState::Succeeded, "{job:?}");
    assert_eq!(outcome(&job).notes.as_deref(), Some("all fine"));
    bed.assert_clean("after the cleanup");
    assert!(bed.item().last_successful_test_unix_nanos.is_some());
    assert_eq!(bed.refused(cleanup()), "NoTestFailover");
}

#[test]
fn the_network_of_a_test_can_be_chosen() {
    let bed = Bed::new();
    let nic = Nic {
        mac: None,
        network: Network::User { forwards: Vec::new() },
        address: None,
    };
    let job = bed.run(Request::TestFailover {
        point: PointChoice::LatestAppConsistent,
        network: Some(vec![nic.clone()]),
    });
    assert_eq!(job.state, JobState::Succeeded, "{job:?}");
    assert_eq!(bed.item().test_failover.unwrap().machine.nics, [nic]);
    assert_eq!(
        bed.compute.saw("web1-test"),
        [1, 1],
        "the app-consistent point is the older one"
    );
}

#[test]
fn latest_ships_what_is_pending_first_where_the_source_answers() {
    let bed = Bed::new();
    let job = bed.run(test_failover(PointChoice::Latest));
    let sync = task(&job, "LastSync");
    assert_eq!(sync.state, TaskState::Skipped);
    assert!(sync.message.contains("does not answer"), "{sync:?}");
    assert_eq!(bed.compute.saw("web1-test"), [2, 2]);
    bed.run(cleanup());

    let (store, machine, disks) = (bed.store().clone(), bed.machine, bed.disks.clone());
    bed.site.connect(move || {
        seal(&store, machine, &disks, 9, Consistency::CrashConsistent).unwrap();
        Ok(())
    });
    let job = bed.run(test_failover(PointChoice::Latest));
    assert_eq!(task(&job, "LastSync").state, TaskState::Succeeded);
    assert_eq!(bed.compute.saw("web1-test"), [9, 9]);
    bed.run(cleanup());

    bed.site.connect(|| Err("the link broke".into()));
    let job = bed.run(test_failover(PointChoice::Latest));
    assert_eq!(job.state, JobState::Succeeded);
    assert!(task(&job, "LastSync").message.contains("the link broke"));
    bed.run(cleanup());
    bed.assert_clean("after three tests");
}

#[test]
fn an_unplanned_failover_fences_the_source_and_its_commit_ends_the_choice() {
    let bed = Bed::new();
    assert_eq!(bed.refused(Request::Commit), "NothingToCommit");
    let job = bed.run(failover());
    assert_eq!(job.state, JobState::Succeeded, "{job:?}");
    let item = bed.item();
    assert_eq!(item.protection, ProtectionState::UnplannedFailoverCompleted);
    assert_eq!(item.active_location, ActiveLocation::Recovery);
    assert_eq!(item.generation, 2);
    assert_eq!(bed.site.fenced(), [(bed.machine, 2)]);
    let fenced = seal(
        bed.store(),
        bed.machine,
        &bed.disks,
        7,
        Consistency::CrashConsistent,
    );
    assert!(matches!(fenced, Err(crate::replica::ReplicaError::Fenced { .. })));
    let real = item.failover.unwrap();
    assert_eq!(real.machine.name, "web1-asr");
    assert_eq!(real.machine.nics[0].network, Network::isolated("production"));
    assert_eq!(bed.refused(failover()), "CommitPending");

    let job = bed.run(Request::Commit);
    assert_eq!(job.state, JobState::Succeeded, "{job:?}");
    assert_eq!(outcome(&job).removed_points, Some(1));
    for point in bed.store().points(bed.machine).unwrap() {
        assert!(
            point.id == real.point || point.note == super::lifecycle::NOTE,
            "{point:?}"
        );
    }
    assert_eq!(bed.item().protection, ProtectionState::CommitFailoverCompleted);
    assert_eq!(
        bed.store().pins(bed.machine).unwrap(),
        [(real.point, real.job.to_string())]
    );
    assert_eq!(bed.refused(Request::Commit), "AlreadyCommitted");
    assert_eq!(
        allowed(&bed),
        [
            Operation::TestFailover,
            Operation::ReverseReplicate,
            Operation::Hydrate
        ]
    );
}

/// A point is sealed at every record of the job, for as long as the store lets the source in: none that was acknowledged is
/// forgotten, and none comes after the choice.
#[test]
fn the_point_is_chosen_behind_the_fence() {
    let bed = Bed::new();
    let (store, machine, disks) = (bed.store().clone(), bed.machine, bed.disks.clone());
    let sealed = Arc::new(Mutex::new(Vec::new()));
    let acknowledged = sealed.clone();
    bed.journal.hook(move |job| {
        let byte = 10 + sealed.lock().unwrap().len() as u8;
        match seal(&store, machine, &disks, byte, Consistency::CrashConsistent) {
            Ok(point) => sealed.lock().unwrap().push((point, byte)),
            Err(crate::replica::ReplicaError::Fenced { .. }) => {
                let fence = task(job, "FenceSource").state;
                assert_eq!(fence, TaskState::Succeeded, "refused too early");
            }
            Err(error) => panic!("{error}"),
        }
    });
    let job = bed.run(failover());
    assert_eq!(job.state, JobState::Succeeded, "{job:?}");
    let acknowledged = acknowledged.lock().unwrap();
    assert!(
        acknowledged.len() >= 3,
        "the order, its first steps and the fence: {acknowledged:?}"
    );
    let (point, byte) = *acknowledged.last().unwrap();
    assert_eq!(outcome(&job).point_id, Some(point));
    assert_eq!(bed.compute.saw("web1-asr"), [byte, byte]);
}

#[test]
fn a_real_failover_does_not_wait_for_a_test_but_the_commit_does() {
    let bed = Bed::new();
    bed.run(test_failover(PointChoice::LatestProcessed));
    let job = bed.run(failover());
    assert_eq!(job.state, JobState::Succeeded, "{job:?}");
    assert_eq!(bed.compute.names(), ["web1-asr", "web1-test"]);
    assert_eq!(bed.refused(Request::Commit), "CleanupPending");
    assert_eq!(bed.run(cleanup()).state, JobState::Succeeded);
    assert_eq!(bed.compute.names(), ["web1-asr"]);
    assert_eq!(bed.store().pins(bed.machine).unwrap().len(), 1);
    assert_eq!(bed.run(Request::Commit).state, JobState::Succeeded);
}

#[test]
fn one_job_at_a_time_works_on_a_machine() {
    let bed = Bed::new();
    bed.compute.trouble(Verb::Prepare, Some(Trouble::Hangs));
    let job = bed
        .runner()
        .submit(bed.machine, test_failover(PointChoice::Latest), "tester")
        .unwrap();
    bed.compute.called(Verb::Prepare, 1);
    assert_eq!(bed.refused(failover()), "JobRunning");
    assert!(matches!(
        bed.runner().wait(job, Duration::from_millis(10)),
        Err(RecoveryError::StillRunning(_))
    ));
    bed.compute.trouble(Verb::Prepare, None);
    assert_eq!(bed.runner().wait(job, LIMIT).unwrap().state, JobState::Succeeded);
}

#[test]
fn a_hanging_machine_holds_up_nobody_else_and_more_jobs_than_threads_wait() {
    let mut bed = Bed::new();
    bed.limits.jobs = 2;
    bed.restart();
    // A second and a third machine on the same store and journal.
    let mut others = Vec::new();
    for name in ["web2", "web3"] {
        let mut other = item();
        other.name = name.into();
        other.target.name = format!("{name}-asr");
        bed.store().register_machine(other.machine, name).unwrap();
        for &id in &other.disks {
            let spec = DiskSpec {
                id,
                name: "disk".into(),
                size_bytes: DISK_BYTES,
            };
            bed.store().register_disk(other.machine, spec).unwrap();
        }
        seal(
            bed.store(),
            other.machine,
            &other.disks,
            5,
            Consistency::CrashConsistent,
        )
        .unwrap();
        bed.journal.kept().items.insert(other.machine, other.clone());
        others.push(other.machine);
    }
    let (send, receive) = std::sync::mpsc::sync_channel::<()>(1);
    bed.site.connect(move || {
        let _ = receive.recv();
        Ok(())
    });
    let hanging = bed
        .runner()
        .submit(bed.machine, test_failover(PointChoice::Latest), "tester")
        .unwrap();
    let jobs: Vec<_> = others
        .iter()
        .map(|&machine| {
            bed.runner()
                .submit(machine, test_failover(PointChoice::LatestProcessed), "tester")
                .unwrap()
        })
        .collect();
    for job in jobs {
        assert_eq!(bed.runner().wait(job, LIMIT).unwrap().state, JobState::Succeeded);
    }
    assert!(!bed.journal.job(hanging).unwrap().state.is_over());
    send.send(()).unwrap();
    assert_eq!(
        bed.runner().wait(hanging, LIMIT).unwrap().state,
        JobState::Succeeded
    );
}

#[test]
fn each_verb_that_fails_is_undone_and_said() {
    for (verb, trouble, code) in [
        (Verb::Prepare, Trouble::Fails, "TargetDidNotStart"),
        (Verb::Start, Trouble::Fails, "TargetDidNotStart"),
        (Verb::Start, Trouble::Dies, "TargetStopped"),
        (Verb::Status, Trouble::Fails, "TargetDidNotStart"),
        (Verb::Prepare, Trouble::Panics, "InternalError"),
        (Verb::Start, Trouble::Panics, "InternalError"),
    ] {
        let story = format!("{verb:?} {trouble:?}");
        let bed = Bed::new();
        bed.compute.trouble(verb, Some(trouble));
        let job = bed.run(test_failover(PointChoice::Latest));
        assert_eq!(job.state, JobState::Failed, "{story}");
        let error = job.error.clone().unwrap();
        assert_eq!(error.code, code, "{story}");
        for text in [&error.message, &error.possible_causes, &error.recommended_action] {
            assert!(text.ends_with('.'), "{text}");
        }
        assert_eq!(task(&job, "Undo").state, TaskState::Succeeded, "{job:?}");
        bed.assert_clean(&story);
        assert_eq!(
            bed.item().last_successful_test_unix_nanos,
            None,
            "{story}: a test that failed proves nothing"
        );

        let job = bed.run(failover());
        assert_eq!(job.state, JobState::Failed, "{story}");
        let item = bed.item();
        assert_eq!(item.protection, ProtectionState::UnplannedFailoverFailed);
        assert_eq!(item.active_location, ActiveLocation::Primary);
        assert_eq!(item.generation, 2, "the fence stays");
        bed.assert_clean(&story);
        // Once more without the trouble.
        bed.compute.trouble(verb, None);
        assert_eq!(bed.refused(test_failover(PointChoice::Latest)), "FailoverFailed");
        let job = bed.run(failover());
        assert_eq!(job.state, JobState::Succeeded, "{story}: {job:?}");
        assert_eq!(bed.item().active_location, ActiveLocation::Recovery);
    }
}

#[test]
fn a_target_that_is_not_ready_is_seen_before_the_source_is_fenced() {
    let bed = Bed::new();
    bed.compute.trouble(Verb::Check, Some(Trouble::Fails));
    assert_eq!(bed.refused(failover()), "TargetNotReady");
    assert_eq!(bed.site.fenced(), []);

    // Ready when asked, not ready when it is done.
    let bed = Bed::new();
    let compute = bed.compute.clone();
    bed.journal
        .hook(move |_| compute.trouble(Verb::Check, Some(Trouble::Fails)));
    let job = bed.run(failover());
    assert_eq!(job.state, JobState::Failed);
    let item = bed.item();
    assert_eq!(
        (item.protection, item.generation),
        (ProtectionState::Protected, 1)
    );
    assert_eq!(bed.site.fenced(), []);
    bed.assert_clean("not ready");
}

#[test]
fn a_damaged_replica_is_seen_before_the_source_is_fenced() {
    let mut bed = Bed::new();
    for disk in &bed.disks {
        let folder = bed
            .folder
            .path()
            .join("store/machines")
            .join(bed.machine.to_string())
            .join(disk.to_string());
        for name in entries(&folder) {
            let path = folder.join(name);
            let mut bytes = std::fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle..].iter_mut().for_each(|byte| *byte ^= 0x55);
            std::fs::write(path, bytes).unwrap();
        }
    }
    bed.restart();
    let job = bed.run(failover());
    assert_eq!(job.state, JobState::Failed, "{job:?}");
    let code = job.error.unwrap().code;
    assert_eq!(code, "StoreDamaged");
    assert_eq!(bed.item().protection, ProtectionState::Protected);
    bed.assert_clean("damaged");
}

#[test]
fn what_cannot_be_undone_waits_for_a_cleanup() {
    let bed = Bed::new();
    bed.compute.trouble(Verb::Start, Some(Trouble::Fails));
    bed.compute.trouble(Verb::Destroy, Some(Trouble::Fails));
    let job = bed.run(test_failover(PointChoice::Latest));
    assert_eq!(job.state, JobState::Failed);
    assert_eq!(task(&job, "Undo").state, TaskState::Failed);
    let item = bed.item();
    assert_eq!(item.test_failover_state, TestFailoverState::TestFailoverFailed);
    assert!(item.test_failover.is_some());
    // The branch under a machine that may run is not touched.
    assert!(!entries(&bed.vms()).is_empty());
    let job = bed.run(cleanup());
    assert_eq!(job.state, JobState::Failed, "it still cannot be destroyed");
    assert_eq!(
        bed.item().test_failover_state,
        TestFailoverState::TestFailoverFailed
    );
    bed.compute.trouble(Verb::Destroy, None);
    assert_eq!(bed.run(cleanup()).state, JobState::Succeeded);
    bed.assert_clean("after the second cleanup");
    assert_eq!(
        bed.item().last_successful_test_unix_nanos,
        None,
        "the test had failed"
    );
}

#[test]
fn a_cleanup_that_fails_can_be_repeated_and_the_test_counts() {
    for verb in [Verb::Stop, Verb::Destroy] {
        let bed = Bed::new();
        bed.run(test_failover(PointChoice::Latest));
        bed.compute.trouble(verb, Some(Trouble::Fails));
        assert_eq!(bed.run(cleanup()).state, JobState::Failed);
        assert_eq!(
            bed.item().test_failover_state,
            TestFailoverState::TestFailoverCompleted
        );
        assert_eq!(bed.item().last_successful_test_unix_nanos, None);
        bed.compute.trouble(verb, None);
        assert_eq!(bed.run(cleanup()).state, JobState::Succeeded);
        bed.assert_clean("after the second cleanup");
        assert!(bed.item().last_successful_test_unix_nanos.is_some());
    }
}

#[test]
fn a_failed_failover_that_left_something_removes_it_before_the_next_attempt() {
    let bed = Bed::new();
    bed.compute.trouble(Verb::Start, Some(Trouble::Fails));
    bed.compute.trouble(Verb::Destroy, Some(Trouble::Fails));
    let first = bed.run(failover());
    assert_eq!(first.state, JobState::Failed);
    assert_eq!(bed.item().protection, ProtectionState::UnplannedFailoverFailed);
    assert!(bed.item().failover.is_some());
    bed.compute.trouble(Verb::Start, None);
    bed.compute.trouble(Verb::Destroy, None);
    let second = bed.run(failover());
    assert_eq!(second.state, JobState::Succeeded, "{second:?}");
    assert_eq!(task(&second, "DiscardFailedAttempt").state, TaskState::Succeeded);
    assert_eq!(entries(&bed.vms()), [second.id.to_string()]);
    let pins = bed.store().pins(bed.machine).unwrap();
    assert_eq!(pins.len(), 1);
    assert_eq!(pins[0].1, second.id.to_string());
    assert_eq!(bed.item().failover.unwrap().job, second.id);
}

#[test]
fn a_job_is_cancelled_before_its_point_of_no_return_only() {
    // While it waits for a source that hangs.
    let bed = Bed::new();
    let (_keep, receive) = std::sync::mpsc::sync_channel::<()>(1);
    bed.site.connect(move || {
        let _ = receive.recv();
        Ok(())
    });
    let request = Request::UnplannedFailover {
        point: PointChoice::Latest,
        last_sync: true,
    };
    let job = bed.runner().submit(bed.machine, request, "tester").unwrap();
    bed.runner().cancel(job).unwrap();
    bed.runner().cancel(job).unwrap();
    let ended = bed.runner().wait(job, LIMIT).unwrap();
    assert_eq!(ended.state, JobState::Cancelled);
    assert_eq!(bed.item().protection, ProtectionState::Protected);
    assert_eq!(bed.site.fenced(), []);
    bed.assert_clean("cancelled while waiting");
    assert!(matches!(
        bed.runner().cancel(job),
        Err(RecoveryError::Refused(refusal)) if refusal.code == "JobIsOver"
    ));

    // While a machine is prepared: a test goes back, a real failover does not.
    for (request, cancelled) in [
        (test_failover(PointChoice::LatestProcessed), true),
        (failover(), false),
    ] {
        let bed = Bed::new();
        bed.compute.trouble(Verb::Prepare, Some(Trouble::Hangs));
        let job = bed.runner().submit(bed.machine, request, "tester").unwrap();
        bed.compute.called(Verb::Prepare, 1);
        let answer = bed.runner().cancel(job);
        bed.compute.trouble(Verb::Prepare, None);
        let ended = bed.runner().wait(job, LIMIT).unwrap();
        if cancelled {
            answer.unwrap();
            assert_eq!(ended.state, JobState::Cancelled, "{ended:?}");
            assert_eq!(ended.error.unwrap().code, "Cancelled");
            bed.assert_clean("cancelled while preparing");
        } else {
            assert!(matches!(
                answer,
                Err(RecoveryError::Refused(refusal)) if refusal.code == "PastPointOfNoReturn"
            ));
            assert_eq!(ended.state, JobState::Succeeded, "{ended:?}");
        }
    }
}

#[test]
fn a_point_that_retention_takes_is_chosen_anew_unless_it_was_asked_for() {
    let take = |bed: &Bed, keep: PointId| {
        let (store, machine) = (bed.store().clone(), bed.machine);
        bed.journal.hook(move |job| {
            let pinning = job
                .tasks
                .iter()
                .any(|task| task.name == "PinPoint" && task.state == TaskState::InProgress);
            if pinning && store.pins(machine).unwrap().is_empty() {
                store.keep_only(machine, |point| point.id == keep).unwrap();
            }
        });
    };
    let bed = Bed::new();
    let points = bed.store().points(bed.machine).unwrap();
    take(&bed, points[0].id);
    let job = bed.run(test_failover(PointChoice::LatestProcessed));
    assert_eq!(job.state, JobState::Succeeded, "{job:?}");
    assert_eq!(outcome(&job).point_id, Some(points[0].id));
    assert_eq!(bed.compute.saw("web1-test"), [1, 1]);

    let bed = Bed::new();
    let points = bed.store().points(bed.machine).unwrap();
    take(&bed, points[0].id);
    let job = bed.run(test_failover(PointChoice::Custom(points[1].id)));
    assert_eq!(job.state, JobState::Failed);
    assert_eq!(job.error.unwrap().code, "NoSuchPoint");
    bed.assert_clean("the point is gone");
}

#[test]
fn what_cannot_be_started_is_refused_with_its_reason() {
    let bed = Bed::empty(item());
    assert_eq!(bed.refused(failover()), "NoRecoveryPoint");
    bed.seal(1, Consistency::Fuzzy);
    assert_eq!(bed.refused(failover()), "NoRecoveryPoint");
    bed.seal(2, Consistency::CrashConsistent);
    assert_eq!(
        bed.refused(test_failover(PointChoice::LatestAppConsistent)),
        "NoAppConsistentPoint"
    );
    assert_eq!(
        bed.refused(test_failover(PointChoice::Custom(PointId::new()))),
        "NoSuchPoint"
    );
    assert_eq!(entries(&bed.vms()), Vec::<String>::new());
    // A machine that the vault does not know.
    assert!(matches!(
        bed.runner().submit(MachineId::new(), failover(), "tester"),
        Err(RecoveryError::Journal(JournalError::NoItem(_)))
    ));
}

#[test]
fn a_machine_that_dies_by_itself_shows() {
    let bed = Bed::new();
    bed.run(failover());
    bed.compute.kill("web1-asr");
    let status = bed.runner().machine_status(bed.machine, false).unwrap().unwrap();
    assert_eq!(status.power, Power::Stopped);
}
