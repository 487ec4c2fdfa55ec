//! Every step of every flow fails once: the job says what failed, its undo done again changes nothing, and the next order
//! does what the first one should have done. Then the store stumbles at every single write of every flow.
use super::lifecycle::{away, byte_at, change_to, ok, points, receive, rests, sealed, write};
use super::*;

/// What is made to fail while a step is under way.
#[derive(Clone, Copy, Debug)]
enum Fails {
    Hypervisor(Verb, Trouble),
    Store,
    /// The agent at the source, or the receiver.
    OtherSide,
    /// A file where the folder of the job's own disks is to be.
    Folder,
    /// A folder where the socket of the job's own disks is to be.
    Socket,
    /// The same of the machine that the job is about.
    SocketOfMachine,
}

struct Flow {
    name: &'static str,
    prepare: fn(&Bed),
    request: fn(&Bed) -> Request,
    steps: &'static [(&'static str, Fails)],
    /// Where a failure before the step that is named here leaves the item, and where one from it on.
    left: (ProtectionState, &'static str, ProtectionState),
    /// When it was done.
    check: fn(&Bed, &str),
}

use Fails::*;
use ProtectionState as S;
const FAILS: Trouble = Trouble::Fails;

/// Steps that bring a machine up, as they may fail.
macro_rules! with_start {
    ($($step:expr),* $(,)?) => {
        &[
            $($step,)*
            ("PinPoint", Store),
            ("MakeBranches", Folder),
            ("ServeDisks", Socket),
            ("PrepareMachine", Hypervisor(Verb::Prepare, FAILS)),
            ("StartMachine", Hypervisor(Verb::Start, FAILS)),
            ("ConfirmStart", Hypervisor(Verb::Status, FAILS)),
        ]
    };
}

fn flows() -> Vec<Flow> {
    let failed_over = |bed: &Bed| ok(&bed.run(failover()));
    let home: fn(&Bed) = |bed| {
        away(bed);
        bed.site.receives(Ok(None));
        write(bed, 6, 0x66);
    };
    vec![
        Flow {
            name: "planned failover",
            prepare: |bed| rests(bed, 9),
            request: |_| Request::PlannedFailover,
            steps: with_start![
                ("CheckTarget", Hypervisor(Verb::Check, FAILS)),
                ("StopSource", OtherSide),
                ("FenceSource", Store),
            ],
            left: (S::Protected, "FenceSource", S::PlannedFailoverFailed),
            check: |bed, story| {
                assert_eq!(bed.compute.names(), ["web1-asr"], "{story}");
                assert_eq!(bed.item().protection, S::PlannedFailoverCompleted, "{story}");
                let saw = bed.compute.saw("web1-asr");
                // Without the last point of a source that did not come to rest the fence was never reached.
                assert_eq!(saw, [9, 9], "{story}");
            },
        },
        Flow {
            name: "unplanned failover",
            prepare: |_| (),
            request: |_| failover(),
            steps: with_start![
                ("CheckTarget", Hypervisor(Verb::Check, FAILS)),
                ("FenceSource", Store),
            ],
            left: (S::Protected, "FenceSource", S::UnplannedFailoverFailed),
            check: |bed, story| {
                assert_eq!(bed.compute.saw("web1-asr"), [2, 2], "{story}");
                write(bed, 5, 0x55);
                sealed(bed, 5, 0x55);
            },
        },
        Flow {
            name: "failover that is run again",
            prepare: |bed| {
                bed.compute.trouble(Verb::Start, Some(FAILS));
                bed.compute.trouble(Verb::Destroy, Some(FAILS));
                assert_eq!(bed.run(failover()).state, JobState::Failed);
                bed.compute.trouble(Verb::Start, None);
                bed.compute.trouble(Verb::Destroy, None);
            },
            request: |_| failover(),
            steps: &[
                ("DiscardFailedAttempt", Hypervisor(Verb::Destroy, FAILS)),
                ("DiscardFailedAttempt", SocketOfMachine),
                ("DiscardFailedAttempt", Store),
            ],
            left: (S::Protected, "CheckTarget", S::UnplannedFailoverFailed),
            check: |bed, story| {
                assert_eq!(bed.compute.saw("web1-asr"), [2, 2], "{story}");
                assert_eq!(entries(&bed.vms()).len(), 1, "{story}");
                assert_eq!(bed.store().pins(bed.machine).unwrap().len(), 1, "{story}");
            },
        },
        Flow {
            name: "change of the point",
            prepare: |bed| {
                ok(&bed.run(failover()));
                write(bed, 5, 0x55);
                sealed(bed, 5, 0x55);
            },
            request: |bed| change_to(points(bed)[0].id),
            steps: with_start![
                ("CheckTarget", Hypervisor(Verb::Check, FAILS)),
                ("DiscardMachine", Hypervisor(Verb::Destroy, FAILS)),
                ("DiscardMachine", SocketOfMachine),
                ("DiscardMachine", Store),
            ],
            left: (
                S::ChangeRecoveryPointFailed,
                "CheckTarget",
                S::ChangeRecoveryPointFailed,
            ),
            check: |bed, story| {
                assert_eq!(bed.compute.saw("web1-asr"), [1, 1], "{story}");
                assert_eq!(entries(&bed.vms()).len(), 1, "{story}");
                assert_eq!(bed.store().pins(bed.machine).unwrap().len(), 1, "{story}");
                // The line goes on with the other machine.
                write(bed, 7, 0x77);
                let point = sealed(bed, 7, 0x77);
                assert_eq!(byte_at(bed, point.id, 5), 0, "{story}");
            },
        },
        Flow {
            name: "cancel",
            prepare: failed_over,
            request: |_| Request::CancelFailover,
            steps: &[
                ("DiscardMachine", Hypervisor(Verb::Destroy, FAILS)),
                ("DiscardMachine", SocketOfMachine),
                ("DiscardMachine", Store),
                ("ReleaseSource", Store),
            ],
            left: (S::CancelFailoverFailed, "DiscardMachine", S::CancelFailoverFailed),
            check: |bed, story| {
                let item = bed.item();
                assert_eq!(item.protection, S::Protected, "{story}");
                assert_eq!(item.active_location, ActiveLocation::Primary, "{story}");
                assert!(!item.source_is_fenced(), "{story}");
                bed.assert_clean(story);
                let fenced = bed.store().begin(bed.machine, item.generation - 1);
                assert!(fenced.is_err(), "{story}: the target's line is over");
            },
        },
        Flow {
            name: "commit",
            prepare: failed_over,
            request: |_| Request::Commit,
            steps: &[("RemoveOtherPoints", Store)],
            left: (
                S::CommitFailoverFailed,
                "RemoveOtherPoints",
                S::CommitFailoverFailed,
            ),
            check: |bed, story| {
                assert_eq!(bed.item().protection, S::CommitFailoverCompleted, "{story}");
                let base = bed.item().failover.unwrap().point;
                assert!(
                    points(bed)
                        .iter()
                        .all(|point| point.id == base || point.note == lifecycle::NOTE),
                    "{story}"
                );
            },
        },
        Flow {
            name: "failback",
            prepare: home,
            request: |_| Request::Failback,
            steps: &[
                ("CheckReceiver", OtherSide),
                ("StopTarget", Hypervisor(Verb::Stop, FAILS)),
                ("SealFinalPoint", Store),
                ("HandHome", OtherSide),
                ("FenceTarget", Store),
            ],
            left: (S::Protected, "FenceTarget", S::PlannedFailoverFailed),
            check: |bed, story| {
                let item = bed.item();
                assert_eq!(item.protection, S::PlannedFailoverCompleted, "{story}");
                assert_eq!(item.active_location, ActiveLocation::Primary, "{story}");
                let last = item.reprotect.unwrap().final_point.unwrap();
                assert_eq!(byte_at(bed, last, 6), 0x66, "{story}");
                let machine = item.failover.unwrap().machine;
                let status = bed.compute.status(&machine).unwrap();
                assert_eq!(status.power, Power::Stopped, "{story}");
            },
        },
        Flow {
            name: "commit at home",
            prepare: came_home,
            request: |_| Request::Commit,
            steps: &[
                ("DiscardMachine", Hypervisor(Verb::Destroy, FAILS)),
                ("DiscardMachine", SocketOfMachine),
                ("DiscardMachine", Store),
            ],
            left: (S::CommitFailoverFailed, "DiscardMachine", S::CommitFailoverFailed),
            check: |bed, story| {
                assert_eq!(bed.item().protection, S::CommitFailoverCompleted, "{story}");
                bed.assert_clean(story);
            },
        },
        Flow {
            name: "cancel at home",
            prepare: came_home,
            request: |_| Request::CancelFailover,
            steps: &[
                ("RestartMachine", SocketOfMachine),
                ("RestartMachine", Hypervisor(Verb::Start, FAILS)),
            ],
            left: (S::CancelFailoverFailed, "RestartMachine", S::CancelFailoverFailed),
            check: |bed, story| {
                goes_on_at_target(bed, story);
                assert_eq!(bed.item().protection, S::Protected, "{story}");
            },
        },
    ]
}

fn came_home(bed: &Bed) {
    away(bed);
    bed.site.receives(Ok(None));
    write(bed, 6, 0x66);
    let receiver = receive(bed);
    ok(&bed.run(Request::Failback));
    receiver.join().unwrap();
}

/// The machine runs at the target with all that it ever wrote there, and is protected.
fn goes_on_at_target(bed: &Bed, story: &str) {
    let item = bed.item();
    assert_eq!(item.active_location, ActiveLocation::Recovery, "{story}");
    assert_eq!(item.reprotect.unwrap().final_point, None, "{story}");
    let machine = item.failover.unwrap().machine;
    let status = bed.compute.status(&machine).unwrap();
    assert_eq!(status.power, Power::Running, "{story}");
    let mut disk = Client::connect(&machine.disks[0]);
    assert_eq!(disk.read(6 * BLOCK_BYTES as u64, 1), [0x66], "{story}");
    write(bed, 8, 0x88);
    let point = sealed(bed, 8, 0x88);
    assert_eq!(byte_at(bed, point.id, 6), 0x66, "{story}");
}

/// With a receiver beside it, where it needs one.
fn run(bed: &Bed, request: &Request) -> Job {
    let receiver = (*request == Request::Failback).then(|| receive(bed));
    let job = bed.run(request.clone());
    if let Some(receiver) = receiver {
        receiver.join().unwrap();
    }
    job
}

fn blocked(folder: &Path, block: bool) {
    if block {
        std::fs::create_dir_all(folder.parent().unwrap()).unwrap();
        let _ = std::fs::remove_file(folder);
        std::fs::create_dir_all(folder).unwrap();
    } else if folder.is_dir() {
        std::fs::remove_dir_all(folder).unwrap();
    }
}

fn make_fail(bed: &Bed, step: &'static str, fails: Fails) {
    let (compute, site, storage, vms) = (
        bed.compute.clone(),
        bed.site.clone(),
        bed.storage.clone(),
        bed.vms(),
    );
    let machine = bed.item().failover.map(|failover| failover.job);
    let (armed, done) = (
        std::sync::atomic::AtomicBool::new(false),
        std::sync::atomic::AtomicBool::new(false),
    );
    bed.journal.hook(move |job| {
        use std::sync::atomic::Ordering::SeqCst;
        let under_way = job
            .tasks
            .iter()
            .any(|task| task.name == step && task.state == TaskState::InProgress);
        let change = |fail: bool| match fails {
            Hypervisor(verb, trouble) => compute.trouble(verb, fail.then_some(trouble)),
            Store if fail => storage.fail_after(0),
            Store => storage.heal(),
            OtherSide => site.trouble(fail),
            Folder if fail => std::fs::write(vms.join(job.id.to_string()), "in the way").unwrap(),
            Folder => {
                let _ = std::fs::remove_file(vms.join(job.id.to_string()));
            }
            Socket => blocked(&vms.join(job.id.to_string()).join("nbd"), fail),
            SocketOfMachine => blocked(&vms.join(machine.unwrap().to_string()).join("nbd"), fail),
        };
        if under_way && !done.swap(true, SeqCst) {
            armed.store(true, SeqCst);
            change(true);
        } else if !under_way && armed.swap(false, SeqCst) {
            change(false);
        }
    });
}

fn assert_said(job: &Job, story: &str) {
    assert_eq!(job.state, JobState::Failed, "{story}: {job:#?}");
    let error = job.error.as_ref().unwrap();
    for text in [&error.message, &error.possible_causes, &error.recommended_action] {
        assert!(text.ends_with('.') && text.len() > 10, "{story}: {error:?}");
    }
    assert_ne!(error.code, "InternalError", "{story}: {error:?}");
}

/// Everything that an undo may touch.
fn snapshot(bed: &Bed) -> impl PartialEq + std::fmt::Debug {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for name in entries(folder) {
            let path = folder.join(name);
            walk(&path, found);
            found.push(path);
        }
    }
    let mut files = Vec::new();
    walk(&bed.vms(), &mut files);
    files.sort();
    let power: Vec<_> = bed
        .compute
        .names()
        .iter()
        .map(|name| (name.clone(), bed.compute.lock().known[name].1))
        .collect();
    (files, power, bed.store().pins(bed.machine).unwrap(), bed.item())
}

#[test]
fn every_step_of_every_flow_fails_once() {
    for flow in flows() {
        let (before, fence, after) = flow.left;
        let mut behind = false;
        for (step, fails) in flow.steps {
            behind |= *step == fence || fence == "CheckTarget";
            let story = format!("{}: {step} {fails:?}", flow.name);
            let bed = Bed::new();
            (flow.prepare)(&bed);
            let request = (flow.request)(&bed);
            make_fail(&bed, step, *fails);
            let job = run(&bed, &request);
            assert_said(&job, &story);
            let failed = task(&job, step);
            assert_eq!(failed.state, TaskState::Failed, "{story}: {job:#?}");
            assert_eq!(failed.error, job.error, "{story}");
            let expected = if behind { after } else { before };
            assert_eq!(bed.item().protection, expected, "{story}");
            if let Some(undo) = job.tasks.iter().find(|task| task.name == "Undo") {
                assert_eq!(undo.state, TaskState::Succeeded, "{story}: {undo:?}");
            }
            let left = snapshot(&bed);
            bed.runner().undo_again(job).unwrap();
            assert_eq!(snapshot(&bed), left, "{story}: undone twice");
            if request == Request::Failback {
                goes_on_at_target(&bed, &story);
            }
            ok(&run(&bed, &request));
            (flow.check)(&bed, &story);
            assert_eq!(bed.journal.open_jobs().unwrap(), [], "{story}");
        }
    }
}

/// It may have been given up already, or the failover is not to be tried once more: the source is the machine again.
#[test]
fn what_failed_behind_the_fence_is_cancelled() {
    for flow in flows() {
        for (step, fails) in flow.steps {
            let story = format!("{}: {step} {fails:?}", flow.name);
            let bed = Bed::new();
            (flow.prepare)(&bed);
            let request = (flow.request)(&bed);
            make_fail(&bed, step, *fails);
            run(&bed, &request);
            if !allowed(&bed).contains(&Operation::CancelFailover) {
                continue;
            }
            let homeward = bed.item().reprotect.is_some();
            ok(&bed.run(Request::CancelFailover));
            assert_eq!(bed.item().protection, S::Protected, "{story}");
            if homeward {
                // To cancel a failback is to go on where the machine is, with all that it wrote there.
                goes_on_at_target(&bed, &story);
            } else {
                assert_eq!(bed.item().active_location, ActiveLocation::Primary, "{story}");
                bed.assert_clean(&story);
            }
        }
    }
}

/// The line of a machine at the target writes to the store too: what it meets must not be wrong either.
#[test]
fn the_store_stumbles_at_every_write_of_every_flow() {
    for flow in flows() {
        let mut met = 0;
        for write in 0..80 {
            let bed = Bed::with_fault(Fault::Once);
            (flow.prepare)(&bed);
            let request = (flow.request)(&bed);
            bed.storage.fail_after(write);
            let job = run(&bed, &request);
            let story = format!("{}: write {write}", flow.name);
            let failed = bed.storage.has_failed();
            bed.storage.heal();
            if job.state != JobState::Succeeded {
                met += 1;
                assert_said(&job, &story);
                ok(&run(&bed, &request));
            }
            (flow.check)(&bed, &story);
            if !failed {
                break;
            }
        }
        // The cancel at home writes nothing to the store itself.
        assert!(met > 0 || flow.name == "cancel at home", "{}", flow.name);
    }
}

#[test]
fn the_point_of_a_change_is_held_before_the_machine_is_given_up() {
    let bed = Bed::new();
    ok(&bed.run(failover()));
    write(&bed, 5, 0x55);
    sealed(&bed, 5, 0x55);
    let (oldest, base) = (points(&bed)[0].id, bed.item().failover.unwrap().point);
    let (store, machine) = (bed.store().clone(), bed.machine);
    // Retention takes the point that was asked for between the look at it and the end of the machine.
    bed.journal.hook(move |job| {
        let choosing = job
            .tasks
            .iter()
            .any(|task| task.name == "ChoosePoint" && task.state == TaskState::InProgress);
        if choosing {
            store.keep_only(machine, |point| point.id != oldest).unwrap();
        }
    });
    let job = bed.run(change_to(oldest));
    assert_eq!(job.error.unwrap().code, "NoSuchPoint");
    assert_eq!(
        bed.compute.names(),
        ["web1-asr"],
        "the machine is there as before"
    );
    write(&bed, 6, 0x66);
    sealed(&bed, 6, 0x66);
    let item = bed.item();
    assert_eq!(item.protection, S::ChangeRecoveryPointFailed);
    assert_eq!(item.failover.unwrap().point, base);
    ok(&bed.run(Request::Commit));
}

#[test]
fn a_machine_whose_disks_could_not_be_served_is_protected_when_they_are() {
    let mut bed = Bed::new();
    ok(&bed.run(failover()));
    let real = bed.item().failover.unwrap();
    let disk = bed
        .vms()
        .join(real.job.to_string())
        .join("disks")
        .join(bed.disks[0].to_string());
    let away = bed.folder.path().join("away");
    std::fs::rename(&disk, &away).unwrap();
    assert_eq!(bed.restart().troubles.len(), 1);
    let known = points(&bed).len();
    std::fs::rename(&away, &disk).unwrap();
    bed.runner().start_machine(bed.machine, false).unwrap();
    write(&bed, 5, 0x55);
    sealed(&bed, 5, 0x55);
    for point in points(&bed).iter().skip(known) {
        assert_eq!(point.disks.len(), 2, "a point of a machine without its disks");
    }
}
