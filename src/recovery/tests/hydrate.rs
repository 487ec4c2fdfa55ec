//! A machine at the target becomes independent of its replica, and its migration is completed.
use super::crashes::at_every_record;
use super::*;

/// A committed machine at the target that wrote something.
fn away(bed: &Bed) {
    assert_eq!(bed.run(failover()).state, JobState::Succeeded);
    assert_eq!(bed.run(Request::Commit).state, JobState::Succeeded);
    let machine = bed.item().failover.unwrap().machine;
    Client::connect(&machine.disks[0]).write(0, &[0x55; BLOCK_BYTES]);
}

/// Outside of the server's data folder.
fn place() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn hydrate(folder: &Path) -> Request {
    Request::Hydrate {
        folder: folder.to_owned(),
        format: DiskFormat::Raw,
    }
}

/// It lives on the files, and nothing is left of what it lived on before.
fn assert_hydrated(bed: &mut Bed, folder: &Path, story: &str) {
    let item = bed.item();
    assert!(item.is_hydrated(), "{story}");
    assert_eq!(
        item.protection,
        ProtectionState::CommitFailoverCompleted,
        "{story}"
    );
    let failover = item.failover.unwrap();
    let own = folder.join("web1-asr");
    let mut there = entries(&own);
    there.sort();
    assert_eq!(there, ["disk0.raw", "disk1.raw", "machine.json"], "{story}");
    assert_eq!(
        entries(&bed.vms().join(failover.job.to_string())),
        ["machine"],
        "{story}"
    );
    assert_eq!(bed.store().pins(bed.machine).unwrap(), [], "{story}");
    assert_eq!(
        bed.compute.disks_of("web1-asr"),
        failover.machine.disks,
        "{story}"
    );
    // After a restart of both it is started from the files, with what it wrote.
    bed.compute.kill("web1-asr");
    let resumed = bed.restart();
    assert_eq!((resumed.machines, resumed.troubles.len()), (0, 0), "{story}");
    let status = bed.runner().start_machine(bed.machine, false).unwrap();
    assert_eq!(status.power, Power::Running, "{story}");
    assert_eq!(bed.compute.saw("web1-asr"), [0x55, 2], "{story}");
}

/// It lives on its branches as before, and nothing is left at the destination.
fn assert_untouched(bed: &Bed, folder: &Path, story: &str) {
    let item = bed.item();
    assert!(item.runs_at_target() && !item.is_hydrated(), "{story}");
    assert_eq!(entries(folder), Vec::<String>::new(), "{story}");
    let machine = item.failover.unwrap().machine;
    assert_eq!(Client::connect(&machine.disks[0]).read(0, 1), [0x55], "{story}");
    let status = bed.runner().machine_status(bed.machine, false).unwrap().unwrap();
    assert_eq!(status.power, Power::Running, "{story}");
}

#[test]
fn a_hydrated_machine_lives_on_files_and_its_migration_is_completed() {
    let (mut bed, folder) = (Bed::new(), place());
    assert_eq!(bed.refused(hydrate(folder.path())), "NotFailedOver");
    bed.run(failover());
    assert_eq!(bed.refused(hydrate(folder.path())), "CommitPending");
    bed.run(Request::Commit);
    let machine = bed.item().failover.unwrap().machine;
    Client::connect(&machine.disks[0]).write(0, &[0x55; BLOCK_BYTES]);
    assert_eq!(bed.refused(hydrate(Path::new("machines"))), "NotAFolder");
    assert_eq!(bed.refused(hydrate(&folder.path().join("../x"))), "NotAFolder");
    assert_eq!(bed.refused(hydrate(&bed.vms())), "InsideDataFolder");
    let complete = |keep_points| Request::CompleteMigration { keep_points };
    assert_eq!(bed.refused(complete(None)), "NotHydrated");
    let job = bed.run(hydrate(folder.path()));
    assert_eq!(job.state, JobState::Succeeded, "{job:?}");
    let words = &task(&job, "ReleaseBranches").message;
    assert!(words.contains("The last recovery point made of it is"), "{words}");
    // That point holds what was written, and can be tested.
    let last = bed.store().points(bed.machine).unwrap().pop().unwrap();
    let image = bed
        .store()
        .image(bed.machine, bed.disks[0], crate::replica::At::Point(last.id))
        .unwrap();
    let mut byte = [0];
    image.read_at(0, &mut byte).unwrap();
    assert_eq!(byte, [0x55]);
    assert!(
        outcome(&job).freed_bytes.unwrap() > 0 && outcome(&job).held_ms.is_some(),
        "{job:?}"
    );
    assert_hydrated(&mut bed, folder.path(), "hydrated");
    assert_eq!(
        bed.run(test_failover(PointChoice::LatestProcessed)).state,
        JobState::Succeeded
    );
    assert_eq!(bed.refused(complete(None)), "CleanupPending");
    assert_eq!(bed.run(cleanup()).state, JobState::Succeeded);
    let before = bed.item().generation;
    let job = bed.run(complete(Some(KeepPoints::default())));
    assert_eq!(job.state, JobState::Succeeded, "{job:?}");
    let item = bed.item();
    assert!(
        item.is_migrated() && item.source_is_fenced() && item.generation > before,
        "{item:?}"
    );
    assert_eq!(
        outcome(&job).kept_points,
        Some(bed.store().points(bed.machine).unwrap().len())
    );
    assert!(item.kept_points.is_some());
    // The points that were kept can still be tested.
    assert_eq!(
        bed.run(test_failover(PointChoice::LatestProcessed)).state,
        JobState::Succeeded
    );
    assert_eq!(bed.run(cleanup()).state, JobState::Succeeded);
    assert_eq!(bed.refused(complete(None)), "NotProtected");
}

#[test]
fn completing_a_migration_removes_the_points_and_says_how_much_that_frees() {
    let (bed, folder) = (Bed::new(), place());
    away(&bed);
    bed.run(hydrate(folder.path()));
    let job = bed.run(Request::CompleteMigration { keep_points: None });
    assert_eq!(job.state, JobState::Succeeded, "{job:?}");
    assert!(outcome(&job).freed_bytes.unwrap() > 0, "{job:?}");
    assert!(bed.store().machines().is_empty());
    let fenced = bed.site.fenced();
    assert_eq!(fenced.last(), Some(&(bed.machine, bed.item().generation)));
    assert!(bed.item().is_migrated() && bed.item().kept_points.is_none());
}

#[test]
fn a_stopped_machine_is_hydrated_and_stays_stopped() {
    let (mut bed, folder) = (Bed::new(), place());
    away(&bed);
    bed.compute.kill("web1-asr");
    let job = bed.run(hydrate(folder.path()));
    assert_eq!(job.state, JobState::Succeeded, "{job:?}");
    let status = bed.runner().machine_status(bed.machine, false).unwrap().unwrap();
    assert_eq!(status.power, Power::Stopped);
    assert_hydrated(&mut bed, folder.path(), "of a stopped machine");
}

#[test]
fn a_machine_that_stops_before_the_pivot_is_copied_anew() {
    let (mut bed, folder) = (Bed::new(), place());
    away(&bed);
    bed.compute.trouble(Verb::Pivot, Some(Trouble::Hangs));
    let job = bed
        .runner()
        .submit(bed.machine, hydrate(folder.path()), "tester")
        .unwrap();
    bed.compute.called(Verb::Pivot, 1);
    // The copy goes with it: the pivot fails, and all is as before; then it is hydrated as a stopped machine.
    bed.compute.kill("web1-asr");
    bed.compute.trouble(Verb::Pivot, None);
    let job = bed.runner().wait(job, LIMIT).unwrap();
    assert_eq!(job.state, JobState::Failed, "{job:?}");
    assert_eq!(entries(folder.path()), Vec::<String>::new());
    assert_eq!(bed.run(hydrate(folder.path())).state, JobState::Succeeded);
    assert_hydrated(&mut bed, folder.path(), "after it stopped");
}

#[test]
fn a_hydrate_that_fails_or_is_cancelled_leaves_nothing_and_the_machine_runs_on() {
    let (mut bed, folder) = (Bed::new(), place());
    away(&bed);
    for (verb, trouble) in [
        (Verb::Mirror, Trouble::Fails),
        (Verb::Mirror, Trouble::Panics),
        (Verb::Pivot, Trouble::Fails),
        (Verb::Pivot, Trouble::Panics),
    ] {
        let story = format!("{verb:?} {trouble:?}");
        bed.compute.trouble(verb, Some(trouble));
        let job = bed.run(hydrate(folder.path()));
        assert_eq!(job.state, JobState::Failed, "{story}: {job:?}");
        bed.compute.trouble(verb, None);
        assert_untouched(&bed, folder.path(), &story);
    }
    bed.compute.trouble(Verb::Mirror, Some(Trouble::Hangs));
    let job = bed
        .runner()
        .submit(bed.machine, hydrate(folder.path()), "tester")
        .unwrap();
    bed.compute.called(Verb::Mirror, 3);
    bed.runner().cancel(job).unwrap();
    bed.compute.trouble(Verb::Mirror, None);
    let job = bed.runner().wait(job, LIMIT).unwrap();
    assert_eq!(job.state, JobState::Cancelled, "{job:?}");
    assert_untouched(&bed, folder.path(), "cancelled");
    // Somebody else's files are never touched.
    let own = folder.path().join("web1-asr");
    std::fs::create_dir(&own).unwrap();
    std::fs::write(own.join("disk0.raw"), "precious").unwrap();
    let job = bed.run(hydrate(folder.path()));
    assert_eq!(job.error.unwrap().code, "DestinationTaken");
    assert_eq!(std::fs::read(own.join("disk0.raw")).unwrap(), b"precious");
    std::fs::remove_dir_all(&own).unwrap();
    let missing = bed.run(hydrate(&folder.path().join("missing")));
    assert_eq!(missing.error.unwrap().code, "DestinationFailed");
    assert_eq!(bed.run(hydrate(folder.path())).state, JobState::Succeeded);
    assert_hydrated(&mut bed, folder.path(), "at last");
}

#[test]
fn a_hydrate_survives_a_crash_at_every_record() {
    let folders = Mutex::new(Vec::new());
    // One destination per bed: the request is made before its bed.
    let outer = place();
    at_every_record(
        "hydrate",
        |bed| {
            away(bed);
            let _ = std::fs::remove_dir_all(outer.path().join("web1-asr"));
            folders.lock().unwrap().push(bed.machine);
        },
        hydrate(outer.path()),
        |bed, job, story| {
            let Some(job) = job else {
                return assert_untouched(bed, outer.path(), story);
            };
            assert_eq!(job.state, JobState::Succeeded, "{story}: {job:?}");
            let item = bed.item();
            assert!(item.is_hydrated(), "{story}");
            let machine = item.failover.unwrap().machine;
            assert_eq!(bed.compute.disks_of("web1-asr"), machine.disks, "{story}");
            let first = std::fs::read(&machine.disks[0].file.as_ref().unwrap().path).unwrap();
            assert_eq!(first[0], 0x55, "{story}");
            let status = bed.runner().machine_status(bed.machine, false).unwrap().unwrap();
            assert_eq!(status.power, Power::Running, "{story}");
            assert_eq!(bed.store().pins(bed.machine).unwrap(), [], "{story}");
        },
    );
}

#[test]
fn a_failing_hydrate_survives_a_crash_at_every_record() {
    let outer = place();
    for verb in [Verb::Mirror, Verb::Pivot] {
        at_every_record(
            &format!("hydrate, {verb:?} fails"),
            |bed| {
                away(bed);
                let _ = std::fs::remove_dir_all(outer.path().join("web1-asr"));
                bed.compute.trouble(verb, Some(Trouble::Fails));
            },
            hydrate(outer.path()),
            |bed, job, story| {
                if let Some(job) = job {
                    assert_eq!(job.state, JobState::Failed, "{story}: {job:?}");
                }
                assert_untouched(bed, outer.path(), story);
            },
        );
    }
}

#[test]
fn completing_a_migration_survives_a_crash_at_every_record() {
    for keep_points in [None, Some(KeepPoints::default())] {
        let outer = place();
        let complete = Request::CompleteMigration { keep_points };
        at_every_record(
            "complete migration",
            |bed| {
                away(bed);
                let _ = std::fs::remove_dir_all(outer.path().join("web1-asr"));
                assert_eq!(bed.run(hydrate(outer.path())).state, JobState::Succeeded);
            },
            complete.clone(),
            |bed, job, story| {
                if job.is_none() {
                    assert_eq!(bed.run(complete.clone()).state, JobState::Succeeded, "{story}");
                }
                let item = bed.item();
                assert!(item.is_migrated() && item.source_is_fenced(), "{story}: {item:?}");
                assert_eq!(item.kept_points.is_some(), keep_points.is_some(), "{story}");
                assert_eq!(
                    bed.store().machines().is_empty(),
                    keep_points.is_none(),
                    "{story}"
                );
                assert_eq!(bed.compute.names(), ["web1-asr"], "{story}");
            },
        );
    }
}
