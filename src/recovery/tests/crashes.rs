//! The server dies at every record of every job, before and after it is kept, and another one goes on.
use super::*;

/// Runs a request with a journal that dies at the `record`-th record; then a new server takes over. None: the job needs
/// fewer records. The job, as it ended.
fn crash_at(bed: &mut Bed, request: Request, record: usize, cut: Cut) -> Option<Option<Job>> {
    let before = bed.journal.kept().records;
    bed.journal.cut(record, cut);
    let submitted = bed.runner().submit(bed.machine, request, "tester");
    let deadline = Instant::now() + LIMIT;
    // Until the journal is dead or the job is over.
    let id = match submitted {
        Ok(id) => {
            while !bed.journal.is_dead() {
                assert!(Instant::now() < deadline, "the job neither ended nor died");
                match bed.runner().wait(id, Duration::from_millis(20)) {
                    Ok(_) => {
                        bed.journal.heal();
                        assert!(bed.journal.kept().records < before + record);
                        return None;
                    }
                    Err(RecoveryError::StillRunning(_) | RecoveryError::Journal(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            Some(id)
        }
        Err(RecoveryError::Journal(_)) => None,
        Err(error) => panic!("{error}"),
    };
    bed.restart();
    // An order that was not answered may have been kept all the same.
    let id = id.or_else(|| {
        let open = bed.journal.kept().jobs.values().last().map(|job| job.id);
        open.filter(|_| cut == Cut::After)
    });
    Some(id.map(|id| bed.runner().wait(id, LIMIT).unwrap()))
}

pub(super) fn at_every_record(
    what: &str,
    prepare: impl Fn(&Bed),
    request: Request,
    mut check: impl FnMut(&Bed, Option<&Job>, &str),
) {
    let mut records = 0;
    for record in 1.. {
        let mut over = false;
        for cut in [Cut::Before, Cut::After] {
            let story = format!("{what}, cut {cut:?} record {record}");
            let mut bed = Bed::new();
            prepare(&bed);
            match crash_at(&mut bed, request.clone(), record, cut) {
                None => over = true,
                Some(job) => {
                    if let Some(job) = &job {
                        assert!(job.state.is_over(), "{story}");
                    }
                    assert_eq!(bed.journal.open_jobs().unwrap(), [], "{story}");
                    check(&bed, job.as_ref(), &story);
                }
            }
        }
        if over {
            break;
        }
        records = record;
    }
    assert!(records >= 2, "{what}: {records} records");
}

#[test]
fn a_test_failover_survives_a_crash_at_every_record() {
    at_every_record(
        "test failover",
        |_| (),
        test_failover(PointChoice::Latest),
        |bed, job, story| {
            let Some(job) = job else {
                return bed.assert_clean(story);
            };
            assert_eq!(job.state, JobState::Succeeded, "{story}: {job:?}");
            assert_eq!(bed.compute.saw("web1-test"), [2, 2], "{story}");
            assert_eq!(bed.store().pins(bed.machine).unwrap().len(), 1, "{story}");
            // Its disks are there.
            let test = bed.item().test_failover.unwrap();
            for disk in &test.machine.disks {
                assert_eq!(Client::connect(disk).read(0, 1), [2], "{story}");
            }
            assert_eq!(bed.run(cleanup()).state, JobState::Succeeded, "{story}");
            bed.assert_clean(story);
        },
    );
}

#[test]
fn a_cleanup_survives_a_crash_at_every_record() {
    at_every_record(
        "cleanup",
        |bed| {
            bed.run(test_failover(PointChoice::Latest));
        },
        cleanup(),
        |bed, job, story| {
            if job.is_none() {
                assert_eq!(
                    bed.item().test_failover_state,
                    TestFailoverState::TestFailoverCompleted,
                    "{story}"
                );
                bed.run(cleanup());
            }
            bed.assert_clean(story);
            assert!(bed.item().last_successful_test_unix_nanos.is_some(), "{story}");
        },
    );
}

#[test]
fn a_failover_survives_a_crash_at_every_record() {
    at_every_record(
        "failover",
        |_| (),
        failover(),
        |bed, job, story| {
            if job.is_none() {
                assert_eq!(bed.item().protection, ProtectionState::Protected, "{story}");
                assert_eq!(bed.site.fenced(), [], "{story}");
                return;
            }
            let item = bed.item();
            assert_eq!(
                item.protection,
                ProtectionState::UnplannedFailoverCompleted,
                "{story}: {job:?}"
            );
            assert_eq!(item.active_location, ActiveLocation::Recovery, "{story}");
            assert_eq!(item.generation, 2, "{story}: fenced once");
            assert_eq!(bed.compute.names(), ["web1-asr"], "{story}");
            assert_eq!(bed.store().pins(bed.machine).unwrap().len(), 1, "{story}");
        },
    );
}

#[test]
fn a_commit_survives_a_crash_at_every_record() {
    at_every_record(
        "commit",
        |bed| {
            bed.run(failover());
        },
        Request::Commit,
        |bed, job, story| {
            if job.is_none() {
                bed.run(Request::Commit);
            }
            assert_eq!(
                bed.item().protection,
                ProtectionState::CommitFailoverCompleted,
                "{story}"
            );
            let base = bed.item().failover.unwrap().point;
            for point in bed.store().points(bed.machine).unwrap() {
                assert!(
                    point.id == base || point.note == lifecycle::NOTE,
                    "{story}: {point:?}"
                );
            }
        },
    );
}

/// The undo is cut off too, and done again by the next server.
#[test]
fn a_failing_job_survives_a_crash_at_every_record() {
    for (verb, trouble) in [
        (Verb::Prepare, Trouble::Fails),
        (Verb::Start, Trouble::Fails),
        (Verb::Start, Trouble::Dies),
        (Verb::Start, Trouble::Panics),
    ] {
        for request in [test_failover(PointChoice::Latest), failover()] {
            at_every_record(
                &format!("{verb:?} {trouble:?}"),
                |bed| bed.compute.trouble(verb, Some(trouble)),
                request.clone(),
                |bed, job, story| {
                    bed.assert_clean(story);
                    let fenced = bed.item().protection == ProtectionState::UnplannedFailoverFailed;
                    assert_eq!(fenced, bed.item().generation > 1, "{story}");
                    if let Some(job) = job {
                        assert_eq!(job.state, JobState::Failed, "{story}");
                        assert_eq!(fenced, job.kind == JobKind::UnplannedFailover, "{story}");
                    }
                    // Never stuck: it works as soon as the trouble is gone.
                    bed.compute.trouble(verb, None);
                    let again = if fenced {
                        failover()
                    } else {
                        test_failover(PointChoice::Latest)
                    };
                    assert_eq!(bed.run(again).state, JobState::Succeeded, "{story}");
                },
            );
        }
    }
}

#[test]
fn disks_are_served_again_at_their_old_place_with_what_was_written() {
    let mut bed = Bed::new();
    bed.run(test_failover(PointChoice::LatestProcessed));
    let machine = bed.item().test_failover.unwrap().machine;
    let mut client = Client::connect(&machine.disks[1]);
    // Not flushed: the guest does not know that its server stops.
    client.write(8192, &[0x77; 512]);
    let resumed = bed.restart();
    assert_eq!((resumed.machines, resumed.jobs), (1, 0));
    assert_eq!(resumed.troubles, []);
    let mut client = Client::connect(&machine.disks[1]);
    assert_eq!(client.read(8192, 512), [0x77; 512]);
    assert_eq!(client.read(0, 1), [2]);
    assert_eq!(
        Client::connect(&machine.disks[0]).read(8192, 512),
        [0; 512],
        "the other disk"
    );
    assert_eq!(bed.run(cleanup()).state, JobState::Succeeded);
    bed.assert_clean("after the restart");
}

#[test]
fn a_branch_that_is_gone_is_not_replaced_by_an_empty_one() {
    let mut bed = Bed::new();
    bed.run(failover());
    let real = bed.item().failover.unwrap();
    let disks = bed.vms().join(real.job.to_string()).join("disks");
    std::fs::remove_dir_all(disks.join(bed.disks[0].to_string())).unwrap();
    let resumed = bed.restart();
    assert_eq!(resumed.machines, 0);
    assert_eq!(resumed.troubles.len(), 1);
    assert_eq!(resumed.troubles[0].1.code, "BranchFailed");
    assert_eq!(entries(&disks), [bed.disks[1].to_string()]);
}

#[test]
fn a_journal_that_refuses_for_a_while_only_delays() {
    let bed = Bed::new();
    let mut cleanups = 0;
    for cut in [Cut::Before, Cut::After] {
        for record in 2..14 {
            bed.journal.cut(record, cut);
            let job = bed
                .runner()
                .submit(bed.machine, test_failover(PointChoice::Latest), "tester")
                .unwrap();
            let deadline = Instant::now() + LIMIT;
            let ended = loop {
                assert!(Instant::now() < deadline);
                match bed.runner().wait(job, Duration::from_millis(20)) {
                    Ok(job) => break job,
                    Err(_) if bed.journal.is_dead() => bed.journal.heal(),
                    Err(_) => {}
                }
            };
            bed.journal.heal();
            assert_eq!(ended.state, JobState::Succeeded, "{cut:?} {record}: {ended:?}");
            assert_eq!(bed.run(cleanup()).state, JobState::Succeeded);
            bed.assert_clean("after the cleanup");
            cleanups += 1;
            assert_eq!(
                bed.compute.count(Verb::Destroy),
                cleanups,
                "{cut:?} {record}: a machine that was started is taken down by its cleanup only"
            );
        }
    }
}

#[test]
fn a_step_that_hangs_does_not_hold_up_the_end_of_the_server() {
    let mut bed = Bed::new();
    bed.limits.shut_down = Duration::from_millis(100);
    bed.restart();
    bed.compute.trouble(Verb::Prepare, Some(Trouble::Hangs));
    let job = bed
        .runner()
        .submit(bed.machine, test_failover(PointChoice::Latest), "tester")
        .unwrap();
    bed.compute.called(Verb::Prepare, 1);
    bed.runner().shut_down();
    assert!(matches!(
        bed.runner().submit(bed.machine, cleanup(), "tester"),
        Err(RecoveryError::ShuttingDown)
    ));
    assert!(!bed.journal.job(job).unwrap().state.is_over());
    bed.compute.trouble(Verb::Prepare, None);
    let resumed = bed.restart();
    assert_eq!(resumed.jobs, 1);
    assert_eq!(bed.runner().wait(job, LIMIT).unwrap().state, JobState::Succeeded);
}

#[test]
fn orders_that_cannot_be_read_do_not_keep_an_item_stuck() {
    let mut bed = Bed::new();
    bed.limits.shut_down = Duration::from_millis(10);
    bed.restart();
    bed.compute.trouble(Verb::Prepare, Some(Trouble::Hangs));
    let id = bed
        .runner()
        .submit(bed.machine, test_failover(PointChoice::Latest), "tester")
        .unwrap();
    bed.compute.called(Verb::Prepare, 1);
    let mut job = bed.journal.job(id).unwrap();
    bed.runner().shut_down();
    bed.compute.trouble(Verb::Prepare, None);
    job.parameters = serde_json::json!({ "request": 7 });
    bed.journal.put(job);
    bed.restart();
    let job = bed.runner().wait(id, LIMIT).unwrap();
    assert_eq!(job.state, JobState::Failed);
    assert_eq!(job.error.unwrap().code, "JobIncomplete");
    assert_eq!(bed.item().test_failover_state, TestFailoverState::None);
}

#[test]
fn a_job_whose_item_is_taken_away_ends() {
    let bed = Bed::new();
    bed.compute.trouble(Verb::Prepare, Some(Trouble::Hangs));
    let id = bed
        .runner()
        .submit(bed.machine, test_failover(PointChoice::Latest), "tester")
        .unwrap();
    bed.compute.called(Verb::Prepare, 1);
    bed.journal.remove(bed.machine);
    bed.compute.trouble(Verb::Prepare, None);
    let job = bed.runner().wait(id, LIMIT).unwrap();
    assert_eq!(job.state, JobState::Failed);
    assert_eq!(job.error.unwrap().code, "StateChanged");
    assert_eq!(bed.compute.names(), Vec::<String>::new());
    assert_eq!(entries(&bed.vms()), Vec::<String>::new());
    assert_eq!(bed.store().pins(bed.machine).unwrap(), []);
}

#[test]
fn another_writer_of_the_item_only_delays() {
    let bed = Bed::new();
    let journal = bed.journal.clone();
    let machine = bed.machine;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = {
        let stop = stop.clone();
        std::thread::spawn(move || {
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                journal.change(machine, |item| item.target.cpus += 1);
                std::thread::sleep(Duration::from_micros(200));
            }
        })
    };
    for _ in 0..5 {
        assert_eq!(
            bed.run(test_failover(PointChoice::Latest)).state,
            JobState::Succeeded
        );
        assert_eq!(bed.run(cleanup()).state, JobState::Succeeded);
    }
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    writer.join().unwrap();
    bed.assert_clean("after five tests");
}

/// A context of a test failover's steps outside of any runner.
fn with_context<T>(
    bed: &Bed,
    parts: &Parts,
    disks: &disks::Disks,
    id: JobId,
    outcome: &mut steps::Outcome,
    call: impl FnOnce(&mut steps::Context) -> T,
) -> T {
    let machine = MachineSpec {
        name: "web1-test".into(),
        folder: disks.folder(id).join("machine"),
        cpus: 1,
        memory_bytes: 1 << 28,
        firmware: Firmware::Bios,
        disk_bus: DiskBus::VirtioBlk,
        disks: disks.attachments(id, &bed.disks),
        nics: Vec::new(),
    };
    let failover = Failover {
        job: id,
        point: bed.store().points(bed.machine).unwrap()[0].id,
        point_instant_unix_nanos: 0,
        started_unix_nanos: 0,
        machine: machine.clone(),
    };
    let parameters = steps::Parameters {
        request: test_failover(PointChoice::Latest),
        machine: Some(machine),
        failover: Some(failover),
        test_succeeded: false,
        source_is_fenced: false,
        active: None,
        is_homecoming: false,
        plan_run: None,
        files: Vec::new(),
    };
    call(&mut steps::Context {
        parts,
        disks,
        limits: &bed.limits,
        id,
        machine: bed.machine,
        created_unix_nanos: now_unix_nanos(),
        parameters: &parameters,
        outcome,
        started_here: &mut false,
        interrupted: &|| false,
        tell: &|_, _| (),
    })
}

/// Also in another process, which knows nothing of what the first one had open.
#[test]
fn every_step_and_every_undo_can_be_done_twice() {
    use steps::Step;
    let bed = Bed::new();
    let parts = Parts {
        journal: bed.journal.clone(),
        store: bed.store().clone(),
        compute: bed.compute.clone(),
        vms: bed.vms(),
        source: bed.site.clone(),
        report: Arc::new(()),
    };
    std::fs::create_dir_all(bed.vms()).unwrap();
    let start = steps::plan(&test_failover(PointChoice::Latest), false);
    let stop = steps::plan(&cleanup(), false);
    for in_another_process in [false, true] {
        for by_cleanup in [false, true] {
            let id = JobId::new();
            let mut outcome = steps::Outcome::default();
            let mut disks = disks::Disks::new(bed.store().clone(), bed.vms());
            let anew = |disks: &mut disks::Disks| {
                if in_another_process {
                    disks.shut_down();
                    *disks = disks::Disks::new(bed.store().clone(), bed.vms());
                }
            };
            for &step in &start {
                for _ in 0..2 {
                    with_context(&bed, &parts, &disks, id, &mut outcome, |context| {
                        step.run(context)
                    })
                    .unwrap_or_else(|fault| panic!("{step:?}: {fault:?}"));
                    anew(&mut disks);
                    // As the runner does for a job that it takes up.
                    if !matches!(
                        step,
                        Step::CheckTarget
                            | Step::LastSync
                            | Step::ChoosePoint
                            | Step::PinPoint
                            | Step::MakeBranches
                    ) {
                        with_context(&bed, &parts, &disks, id, &mut outcome, |context| {
                            Step::ServeDisks.run(context)
                        })
                        .unwrap();
                    }
                }
            }
            assert_eq!(bed.compute.names(), ["web1-test"]);
            assert_eq!(bed.store().pins(bed.machine).unwrap().len(), 1);
            if by_cleanup {
                for &step in &stop {
                    for _ in 0..2 {
                        with_context(&bed, &parts, &disks, id, &mut outcome, |context| {
                            step.run(context)
                        })
                        .unwrap_or_else(|fault| panic!("{step:?}: {fault:?}"));
                        anew(&mut disks);
                    }
                }
            } else {
                for &step in start.iter().rev() {
                    for _ in 0..2 {
                        with_context(&bed, &parts, &disks, id, &mut outcome, |context| {
                            step.undo(context)
                        })
                        .unwrap_or_else(|error| panic!("{step:?}: {error:?}"));
                        anew(&mut disks);
                    }
                }
            }
            bed.assert_clean(&format!("in another process: {in_another_process}"));
        }
    }
}

#[test]
fn a_job_that_somebody_else_ended_does_not_spin() {
    let mut bed = Bed::new();
    bed.compute.trouble(Verb::Prepare, Some(Trouble::Hangs));
    let id = bed
        .runner()
        .submit(bed.machine, test_failover(PointChoice::Latest), "tester")
        .unwrap();
    bed.compute.called(Verb::Prepare, 1);
    let mut job = bed.journal.job(id).unwrap();
    job.state = JobState::Cancelled;
    bed.journal.put(job);
    bed.compute.trouble(Verb::Prepare, None);
    bed.compute.called(Verb::Destroy, 1);
    // It ends: the next server could not open the store otherwise.
    bed.restart();
    assert_eq!(bed.journal.job(id).unwrap().state, JobState::Cancelled);
    assert_eq!(bed.compute.names(), Vec::<String>::new());
}

#[test]
fn a_machine_that_stopped_is_started_again_with_its_disks() {
    let mut bed = Bed::new();
    assert!(matches!(
        bed.runner().start_machine(bed.machine, false),
        Err(RecoveryError::NoMachine)
    ));
    bed.run(failover());
    let machine = bed.item().failover.unwrap().machine;
    Client::connect(&machine.disks[0]).write(0, &[0x55; BLOCK_BYTES]);
    bed.compute.kill("web1-asr");
    bed.restart();
    let status = bed.runner().start_machine(bed.machine, false).unwrap();
    assert_eq!(status.power, Power::Running);
    assert_eq!(
        bed.compute.saw("web1-asr"),
        [0x55, 2],
        "what it had written is there"
    );
    bed.runner().start_machine(bed.machine, false).unwrap();
}
