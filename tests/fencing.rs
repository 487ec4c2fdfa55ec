//! A source that is to keep still: at rest for a planned failover, fenced after one, and back again when it was taken back.
mod support;
use lifeboat::block::MachineId;
use lifeboat::recovery::{Job, JobState, PointChoice, ProtectionState, Request};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::network::{Site, wait_for};
use support::{LoopDisk, Mounted, lacks_root, ok};

const LIMIT: Duration = Duration::from_secs(120);

/// A protected machine whose disk is a loop device with a mounted file system.
struct Bed {
    site: Site,
    machine: MachineId,
    mounted: Mounted,
    _disk: LoopDisk,
    _image: tempfile::TempDir,
    _agent: support::network::Agent,
}

impl Bed {
    fn new(name: &str) -> Self {
        let site = Site::new();
        let image = tempfile::tempdir().unwrap();
        let file = image.path().join("disk");
        let disk = LoopDisk::attach(&file, 64 << 20);
        ok("mkfs.ext4", &["-q", disk.path()]);
        let mounted = Mounted::new(disk.path(), &image.path().join("mount"), "noatime");
        let identity = site.join(&site.spec(name, Path::new(disk.path()))).unwrap();
        let machine: MachineId = identity.machine_id.parse().unwrap();
        let agent = site.agent(name);
        site.protect(machine);
        Self {
            site,
            machine,
            mounted,
            _disk: disk,
            _image: image,
            _agent: agent,
        }
    }

    fn hooks(&self, name: &str) -> PathBuf {
        self.site.folder.path().join(format!("fence-{name}.d"))
    }

    fn run(&self, request: Request) -> Job {
        let runner = &self.site.server().runner;
        let job = runner.submit(self.machine, request, "tester").unwrap();
        runner.wait(job, LIMIT).unwrap()
    }

    fn sync(&self) {
        ok("sync", &["-f", self.mounted.0.to_str().unwrap()]);
    }

    fn state(&self) -> ProtectionState {
        use lifeboat::recovery::Journal;
        self.site.server().vault.item(self.machine).unwrap().protection
    }

    fn troubles(&self) -> Vec<String> {
        let heartbeat = self.site.server().vault.live(self.machine).heartbeat;
        let troubles = heartbeat.map(|heartbeat| heartbeat.troubles).unwrap_or_default();
        troubles.into_iter().map(|trouble| trouble.code).collect()
    }
}

impl Drop for Bed {
    /// Machines outlive their server.
    fn drop(&mut self) {
        support::end_machines(self.site.folder.path());
    }
}

fn hook(folder: &Path, text: &str) {
    std::fs::create_dir_all(folder).unwrap();
    let path = folder.join("10-workload");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn a_planned_failover_stops_the_workload_and_its_cancel_starts_it() {
    if lacks_root() {
        return;
    }
    let bed = Bed::new("rest1");
    let (hooks, log) = (bed.hooks("rest1"), bed.site.folder.path().join("hooks.log"));
    hook(&hooks, "echo cannot >&2; [ \"$1\" != stop ]");
    let job = bed.run(Request::PlannedFailover);
    assert_eq!(job.state, JobState::Failed);
    let error = job.error.unwrap();
    assert_eq!(error.code, "SourceNotStopped");
    assert!(error.message.contains("10-workload"), "{}", error.message);
    assert_eq!(bed.state(), ProtectionState::Protected);

    hook(&hooks, &format!("echo $1 >>{}", log.display()));
    std::fs::write(bed.mounted.0.join("last"), "written last").unwrap();
    let job = bed.run(Request::PlannedFailover);
    assert_eq!(job.state, JobState::Succeeded, "{job:#?}");
    assert_eq!(job.result["stayedAtRest"], true, "{job:#?}");
    // Frozen: whoever writes waits, until the failover is taken back.
    let file = bed.mounted.0.join("later");
    let writer = std::thread::spawn(move || std::fs::write(file, "written later").unwrap());
    wait_for("word of the fence", || {
        bed.troubles().contains(&"Fenced".to_owned()).then_some(())
    });
    assert!(!writer.is_finished(), "the file system stands still");
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "stop\n");

    let job = bed.run(Request::CancelFailover);
    assert_eq!(job.state, JobState::Succeeded, "{job:#?}");
    writer.join().unwrap();
    wait_for("the workload's start", || {
        std::fs::read_to_string(&log)
            .unwrap()
            .ends_with("start\n")
            .then_some(())
    });
    bed.site.next_point(bed.machine);
    bed.sync();
    wait_for("the end of the fence", || bed.troubles().is_empty().then_some(()));
}

#[test]
fn what_is_written_to_a_fenced_source_is_told_and_not_replicated() {
    if lacks_root() {
        return;
    }
    let bed = Bed::new("split1");
    let (hooks, log) = (bed.hooks("split1"), bed.site.folder.path().join("hooks.log"));
    hook(&hooks, &format!("echo $1 >>{}", log.display()));
    let job = bed.run(Request::UnplannedFailover {
        point: PointChoice::LatestProcessed,
        last_sync: false,
    });
    assert_eq!(job.state, JobState::Succeeded, "{job:#?}");
    wait_for("the hook", || {
        std::fs::read_to_string(&log)
            .is_ok_and(|text| text == "fenced\n")
            .then_some(())
    });
    wait_for("word of the fence", || {
        bed.troubles().contains(&"Fenced".to_owned()).then_some(())
    });
    wait_for("word of the writer", || {
        let path = bed.mounted.0.join("still-here");
        std::fs::write(path, vec![7; 1 << 20]).unwrap();
        bed.sync();
        bed.troubles().contains(&"SplitBrain".to_owned()).then_some(())
    });
    // The line is the target's: nothing of it got there.
    let store = &bed.site.server().store;
    let points = store.points(bed.machine).unwrap();
    assert!(
        points.last().unwrap().note.contains("made at the target"),
        "{points:?}"
    );
}
