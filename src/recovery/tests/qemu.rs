//! The whole way once: a point in the store, a branch, NBD, and a QEMU that boots from it. The guest is one sector, made
//! for the tests of the target (`tests/fixtures/guest`); it needs neither root nor KVM.
use super::*;

/// Under emulation on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// The guest writes numbered sectors for ever and reads them again.
const WRITES: u8 = 2;

fn bed() -> Bed {
    let mut item = item();
    item.disks.truncate(1);
    item.target.memory_bytes = 64 << 20;
    item.target.nics = Vec::new();
    let mut bed = Bed::empty(item);
    bed.qemu = true;
    bed.limits.first_read = PATIENCE;
    bed.boot();
    let mut disk = vec![0; DISK_BYTES as usize];
    disk[..512].copy_from_slice(include_bytes!("../../../tests/fixtures/guest/boot.bin"));
    disk[512..524].copy_from_slice(b"from a point");
    disk[1023] = WRITES;
    let mut writer = bed.store().begin(bed.machine, 1).unwrap();
    for (index, part) in disk.chunks(64 * BLOCK_BYTES).enumerate() {
        let mut builder = FrameBuilder::new();
        builder.push(index as u64 * 64, part);
        writer.append(bed.disks[0], builder.finish(1).unwrap()).unwrap();
    }
    let spec = PointSpec {
        instant_unix_nanos: now_unix_nanos(),
        consistency: Consistency::CrashConsistent,
        note: String::new(),
        freeze_micros: 0,
    };
    writer.seal(spec).unwrap();
    bed
}

fn serial(bed: &Bed, test: bool) -> String {
    let path = bed.runner().serial_log(bed.machine, test).unwrap();
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

fn wait_for(bed: &Bed, test: bool, what: impl Fn(&str) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !what(&serial(bed, test)) {
        assert!(Instant::now() < deadline, "{}", serial(bed, test));
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn is_running(bed: &Bed, test: bool) -> u32 {
    let status = bed.runner().machine_status(bed.machine, test).unwrap().unwrap();
    assert_eq!(status.power, Power::Running, "{status:?}");
    status.pid.unwrap()
}

/// New numbers come, and each that was written is read back.
fn goes_on(bed: &Bed, test: bool) {
    let before = serial(bed, test).lines().count();
    wait_for(bed, test, |log| log.lines().count() > before + 3);
    let log = serial(bed, test);
    assert!(!log.contains("BAD") && !log.contains("ERROR"), "{log}");
}

#[test]
fn a_machine_boots_from_a_point_outlives_the_server_and_is_cleaned_up() {
    let mut bed = bed();
    let forwards = vec![Forward {
        host_port: 0,
        guest_port: 22,
    }];
    let network = Network::User { forwards };
    let request = Request::TestFailover {
        point: PointChoice::Latest,
        network: Some(vec![Nic {
            mac: None,
            network,
            address: None,
        }]),
    };
    let job = bed.runner().submit(bed.machine, request, "tester").unwrap();
    let job = bed.runner().wait(job, PATIENCE).unwrap();
    assert_eq!(job.state, JobState::Succeeded, "{job:?}");
    wait_for(&bed, true, |log| {
        log.contains("BOOT") && log.contains("from a point")
    });
    let deadline = Instant::now() + LIMIT;
    let result = loop {
        let result = outcome(&bed.journal.job(job.id).unwrap());
        if result.kernel_start_ms.is_some() {
            break result;
        }
        assert!(Instant::now() < deadline, "{result:?}");
        std::thread::sleep(Duration::from_millis(5));
    };
    eprintln!(
        "first read after {:?} ms, first output after {:?} ms",
        result.first_read_ms, result.kernel_start_ms
    );
    assert!(result.first_read_ms <= result.kernel_start_ms, "{result:?}");
    assert!(result.forwards[0].host_port != 0, "{result:?}");
    let pid = is_running(&bed, true);
    goes_on(&bed, true);
    for _ in 0..3 {
        let resumed = bed.restart();
        assert_eq!((resumed.machines, resumed.troubles.len()), (1, 0));
        assert_eq!(is_running(&bed, true), pid);
        goes_on(&bed, true);
    }
    let png = bed.runner().screenshot(bed.machine, true).unwrap();
    assert!(png.starts_with(b"\x89PNG"));
    let job = bed.run(cleanup());
    assert_eq!(job.state, JobState::Succeeded, "{job:?}");
    bed.assert_clean("after the cleanup");
    // Gone, or dead and not yet collected by the system's first process.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
}

#[test]
fn a_failed_over_machine_is_committed_and_its_death_shows() {
    let mut bed = bed();
    let job = bed.runner().submit(bed.machine, failover(), "tester").unwrap();
    let job = bed.runner().wait(job, PATIENCE).unwrap();
    assert_eq!(job.state, JobState::Succeeded, "{job:?}");
    wait_for(&bed, false, |log| log.contains("from a point"));
    assert_eq!(bed.run(Request::Commit).state, JobState::Succeeded);
    bed.store().compact(bed.machine).unwrap();
    let resumed = bed.restart();
    assert_eq!((resumed.machines, resumed.troubles.len()), (1, 0));
    goes_on(&bed, false);
    let pid = is_running(&bed, false);
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let deadline = Instant::now() + LIMIT;
    loop {
        let status = bed.runner().machine_status(bed.machine, false).unwrap().unwrap();
        if status.power == Power::Stopped {
            break;
        }
        assert!(Instant::now() < deadline, "{status:?}");
    }
    // Nothing else is disturbed by it.
    assert_eq!(
        allowed(&bed),
        [
            Operation::TestFailover,
            Operation::ReverseReplicate,
            Operation::Hydrate
        ]
    );
}

#[test]
fn a_machine_that_qemu_refuses_leaves_nothing_and_can_be_tried_again() {
    // More memory than there is.
    let bed = bed();
    bed.journal
        .change(bed.machine, |item| item.target.memory_bytes = 1 << 50);
    let job = bed.runner().submit(bed.machine, failover(), "tester").unwrap();
    let job = bed.runner().wait(job, PATIENCE).unwrap();
    assert_eq!(job.state, JobState::Failed, "{job:?}");
    let error = job.error.unwrap();
    eprintln!("{}: {}", error.code, error.message);
    assert_eq!(error.code, "TargetDidNotStart");
    assert_eq!(bed.item().protection, ProtectionState::UnplannedFailoverFailed);
    bed.assert_clean("after the failure");
    bed.journal
        .change(bed.machine, |item| item.target.memory_bytes = 64 << 20);
    let job = bed.runner().submit(bed.machine, failover(), "tester").unwrap();
    let job = bed.runner().wait(job, PATIENCE).unwrap();
    assert_eq!(job.state, JobState::Succeeded, "{job:?}");
}

fn hydrate(folder: &Path, format: DiskFormat) -> Request {
    Request::Hydrate {
        folder: folder.to_owned(),
        format,
    }
}

/// A committed machine at the target that writes.
fn away() -> Bed {
    let bed = bed();
    let job = bed.runner().submit(bed.machine, failover(), "tester").unwrap();
    let job = bed.runner().wait(job, PATIENCE).unwrap();
    assert_eq!(job.state, JobState::Succeeded, "{job:?}");
    wait_for(&bed, false, |log| log.contains("from a point"));
    assert_eq!(bed.run(Request::Commit).state, JobState::Succeeded);
    goes_on(&bed, false);
    bed
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

fn has_stopped(bed: &Bed) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let status = bed.runner().machine_status(bed.machine, false).unwrap().unwrap();
        if status.power == Power::Stopped {
            return;
        }
        assert!(Instant::now() < deadline, "{status:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The first sectors of the guest's disk say where it came from.
fn starts_from_its_files(bed: &Bed) {
    let before = serial(bed, false).matches("from a point").count();
    let status = bed.runner().start_machine(bed.machine, false).unwrap();
    assert_eq!(status.power, Power::Running, "{status:?}");
    wait_for(bed, false, |log| log.matches("from a point").count() > before);
    goes_on(bed, false);
}

#[test]
fn a_machine_that_writes_is_hydrated_and_needs_no_server_any_more() {
    for format in [DiskFormat::Raw, DiskFormat::Qcow2] {
        let (mut bed, folder) = (away(), tempfile::tempdir().unwrap());
        let pid = is_running(&bed, false);
        let job = bed
            .runner()
            .submit(bed.machine, hydrate(folder.path(), format), "tester")
            .unwrap();
        let job = bed.runner().wait(job, PATIENCE).unwrap();
        assert_eq!(job.state, JobState::Succeeded, "{job:?}");
        let result = outcome(&job);
        eprintln!("{format:?}: held for {:?} ms", result.held_ms);
        assert!(result.held_ms.is_some_and(|held| held < 60_000), "{result:?}");
        assert_eq!(is_running(&bed, false), pid, "the same process goes on");
        goes_on(&bed, false);
        let machine = bed.item().failover.unwrap().machine;
        let file = machine.disks[0].file.clone().unwrap();
        assert_eq!(file.path.extension().unwrap(), format.name());
        // Without any server it writes on, to the file.
        bed.runner().shut_down();
        let log = bed.runner().serial_log(bed.machine, false).unwrap();
        let lines = || std::fs::read_to_string(&log).unwrap().lines().count();
        let (before, deadline) = (lines(), Instant::now() + PATIENCE);
        while lines() <= before + 3 {
            assert!(Instant::now() < deadline, "it stands still without a server");
            std::thread::sleep(Duration::from_millis(5));
        }
        bed.restart();
        kill(pid);
        has_stopped(&bed);
        starts_from_its_files(&bed);
        QemuCompute::new().destroy(&machine).unwrap();
    }
}

#[test]
fn a_copy_under_way_outlives_the_server_and_a_stopped_machine_is_hydrated_too() {
    let (mut bed, folder) = (away(), tempfile::tempdir().unwrap());
    let pid = is_running(&bed, false);
    // The server dies with the first record behind the copy's begin: the copy is QEMU's, and goes on.
    let order = hydrate(folder.path(), DiskFormat::Raw);
    bed.journal.cut(4, Cut::Before);
    let job = bed.runner().submit(bed.machine, order, "tester").unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !bed.journal.is_dead() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    let resumed = bed.restart();
    assert_eq!((resumed.machines, resumed.jobs), (1, 1), "{resumed:?}");
    let job = bed.runner().wait(job, PATIENCE).unwrap();
    assert_eq!(job.state, JobState::Succeeded, "{job:?}");
    assert_eq!(is_running(&bed, false), pid);
    goes_on(&bed, false);
    let machine = bed.item().failover.unwrap().machine;
    QemuCompute::new().destroy(&machine).unwrap();

    let (bed, folder) = (away(), tempfile::tempdir().unwrap());
    kill(is_running(&bed, false));
    has_stopped(&bed);
    let order = hydrate(folder.path(), DiskFormat::Qcow2);
    let job = bed.runner().submit(bed.machine, order, "tester").unwrap();
    let job = bed.runner().wait(job, PATIENCE).unwrap();
    assert_eq!(job.state, JobState::Succeeded, "{job:?}");
    let status = bed.runner().machine_status(bed.machine, false).unwrap().unwrap();
    assert_eq!(status.power, Power::Stopped, "{job:?}");
    starts_from_its_files(&bed);
    let machine = bed.item().failover.unwrap().machine;
    QemuCompute::new().destroy(&machine).unwrap();
}

/// Empty, as large as the disk.
fn raw_file(folder: &Path) -> DiskFile {
    let path = folder.join("disk0.raw");
    let made = std::fs::File::create(&path).unwrap();
    made.set_len(DISK_BYTES).unwrap();
    DiskFile {
        path,
        format: DiskFormat::Raw,
        size_bytes: DISK_BYTES,
    }
}

/// A pivot that fails when one disk is moved already: both go back, and the guest notices nothing but a pause.
#[test]
fn a_pivot_is_taken_back_while_the_machine_is_held() {
    let (bed, folder) = (away(), tempfile::tempdir().unwrap());
    let pid = is_running(&bed, false);
    let machine = bed.item().failover.unwrap().machine;
    let compute = QemuCompute::new();
    let file = raw_file(folder.path());
    for keeps in [false, false, true] {
        for _ in 0..2 {
            compute.mirror(&machine, std::slice::from_ref(&file)).unwrap();
        }
        let deadline = Instant::now() + PATIENCE;
        while !compute.mirror_status(&machine).unwrap().ready {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(5));
        }
        for _ in 0..2 {
            compute.mirror_pivot(&machine).unwrap();
        }
        assert_eq!(compute.status(&machine).unwrap().power, Power::Paused);
        for _ in 0..2 {
            compute.mirror_end(&machine, keeps).unwrap();
        }
        assert_eq!(is_running(&bed, false), pid);
        goes_on(&bed, false);
        assert!(compute.mirror_status(&machine).unwrap().absent);
    }
}

/// A file system in memory that goes with the test.
struct Tiny(PathBuf);

impl Tiny {
    fn mount(at: &Path, size: &str) -> Self {
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tiny"])
            .arg(at)
            .status()
            .unwrap();
        assert!(mounted.success());
        Self(at.to_owned())
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_destination_that_is_full_fails_the_copy_and_the_machine_runs_on() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: a small file system is mounted by root only");
        return;
    }
    let (bed, folder) = (away(), tempfile::tempdir().unwrap());
    let pid = is_running(&bed, false);
    let machine = bed.item().failover.unwrap().machine;
    // Beyond what the guest uses: bytes that take room.
    let mut noise = vec![0; 256 << 10];
    let mut bytes = blake3::Hasher::new().finalize_xof();
    bytes.fill(&mut noise);
    Client::connect(&machine.disks[0]).write(512 << 10, &noise);
    let tiny = Tiny::mount(folder.path(), "128k");
    // Seen beforehand.
    let job = bed.run(hydrate(folder.path(), DiskFormat::Raw));
    assert_eq!(job.error.unwrap().code, "DestinationFull");
    assert_eq!(entries(folder.path()), Vec::<String>::new());
    // And on the way.
    let compute = QemuCompute::new();
    let file = raw_file(folder.path());
    compute.mirror(&machine, std::slice::from_ref(&file)).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let why = loop {
        let status = compute.mirror_status(&machine).unwrap();
        assert!(!status.ready && Instant::now() < deadline, "{status:?}");
        if let Some(why) = status.failed {
            break why;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(why.contains("No space left"), "{why}");
    goes_on(&bed, false);
    compute.mirror_end(&machine, false).unwrap();
    drop(tiny);
    // With room it is hydrated.
    let job = bed
        .runner()
        .submit(bed.machine, hydrate(folder.path(), DiskFormat::Raw), "tester")
        .unwrap();
    let job = bed.runner().wait(job, PATIENCE).unwrap();
    assert_eq!(job.state, JobState::Succeeded, "{job:?}");
    assert_eq!(is_running(&bed, false), pid);
    goes_on(&bed, false);
    let machine = bed.item().failover.unwrap().machine;
    let copied = std::fs::read(&machine.disks[0].file.as_ref().unwrap().path).unwrap();
    assert!(copied[512 << 10..][..noise.len()] == noise[..]);
    compute.destroy(&machine).unwrap();
}
