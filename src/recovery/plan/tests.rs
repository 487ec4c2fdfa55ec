//! The order of steps by tables, and runs with a real store, real branches and the recovery tests' hypervisor.
use super::run::seconds;
use super::*;
use crate::block::{Consistency, GroupPointId, MachineId};
use crate::recovery::job::{JobId, JobKind, JobState};
use crate::recovery::tests::{Bed, Cut, LIMIT, Trouble, Verb, item, seal};
use crate::recovery::{PointChoice, RecoveryError, TestFailoverState};
use crate::replica::{DiskSpec, PointSpec, SharedMark};
use crate::rt::now_unix_nanos;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

fn manual(name: &str) -> Action {
    Action {
        name: name.into(),
        kind: ActionKind::Manual {
            instructions: format!("do {name}"),
        },
        failover_types: Vec::new(),
        directions: Vec::new(),
    }
}

fn machine(name: &str) -> PlanMachine {
    PlanMachine {
        id: MachineId::new(),
        name: name.into(),
    }
}

/// before A, machines m and n, after B; machine o; on failure F. In this order.
fn plan(mode: OnMachineFailure) -> Plan {
    Plan {
        name: "site".into(),
        groups: vec![
            Group {
                name: "first".into(),
                machines: vec![machine("m"), machine("n")],
                before: vec![manual("A")],
                after: vec![manual("B")],
            },
            Group {
                machines: vec![machine("o")],
                ..Group::default()
            },
        ],
        on_machine_failure: mode,
        on_failure: vec![manual("F")],
        ..Plan::default()
    }
}

fn run_of(plan: Plan, operation: PlanOperation) -> PlanRun {
    PlanRun::new(
        JobId::new(),
        ("default", "plan"),
        plan,
        operation,
        RunOptions::default(),
        "ann",
        0,
    )
}

fn run_in(mode: OnMachineFailure, states: &str) -> PlanRun {
    let mut run = run_of(plan(mode), PlanOperation::TestFailover);
    assert_eq!(run.steps.len(), states.len());
    for (step, state) in run.steps.iter_mut().zip(states.chars()) {
        step.state = match state {
            '.' => StepState::NotStarted,
            'i' => StepState::InProgress,
            'w' => StepState::Suspended,
            's' => StepState::Succeeded,
            'f' => StepState::Failed,
            'k' => StepState::Skipped,
            other => panic!("{other}"),
        };
    }
    run
}

fn decided(run: &PlanRun) -> String {
    match next(run) {
        Decision::Begin(places) => {
            let names: String = places.iter().map(|place| run.steps[*place].name()).collect();
            format!("begin {names}")
        }
        Decision::Wait => "wait".into(),
        Decision::Suspend(why) => format!("suspend: {why}"),
        Decision::End(state) => format!("end {state:?}"),
    }
}

#[test]
fn what_is_next_follows_from_the_steps() {
    use OnMachineFailure::*;
    // A, m, n, B, o, F
    let table = [
        (Stop, "......", "begin A"),
        (Stop, "w.....", "suspend: A: do A"),
        (Stop, "i.....", "wait"),
        (Stop, "s.....", "begin mn"),
        (Stop, "k.....", "begin mn"),
        (Stop, "sis...", "wait"),
        (Stop, "s.i...", "begin m"),
        (Stop, "sss...", "begin B"),
        (Stop, "ssks..", "begin o"),
        (Stop, "sssss.", "end Succeeded"),
        (Stop, "skkkk.", "end Succeeded"),
        // A failure: what is under way ends, nothing new begins, then the actions for it.
        (Stop, "sfi...", "wait"),
        (Stop, "sfs...", "begin F"),
        (Stop, "f.....", "begin F"),
        (Stop, "sfs..i", "wait"),
        (Stop, "sfs..w", "suspend: F: do F"),
        (Stop, "sfs..s", "end Failed"),
        (Stop, "sfs..f", "end Failed"),
        (GoOn, "sfi...", "wait"),
        (GoOn, "sfs...", "begin B"),
        (GoOn, "sfsss.", "begin F"),
        (GoOn, "sfsssk", "end Failed"),
        (GoOn, "fsssss", "end Failed"),
        // A person decides: with one that is under way there is time.
        (Ask, "sfi...", "wait"),
        (Ask, "sfs...", "suspend: m failed: "),
        (Ask, "s.s...", "begin m"),
        (Ask, "sks...", "begin B"),
        (Ask, "sssf..", "suspend: B failed: "),
        (Ask, "sssss.", "end Succeeded"),
    ];
    for (mode, states, expected) in table {
        assert_eq!(decided(&run_in(mode, states)), expected, "{mode:?} {states}");
        let mut stopped = run_in(mode, states);
        stopped.stopped_by = Some("bob".into());
        let expected = match expected {
            text if text.starts_with("begin") && states.contains('i') => "wait",
            text if text.starts_with("begin") || text.starts_with("suspend") => "suspend: Stopped by bob.",
            other => other,
        };
        assert_eq!(decided(&stopped), expected, "stopped {mode:?} {states}");
        let mut cancelled = run_in(mode, states);
        cancelled.cancelled_by = Some("bob".into());
        let expected = if states.contains('i') {
            "wait"
        } else {
            "end Cancelled"
        };
        assert_eq!(decided(&cancelled), expected, "cancelled {mode:?} {states}");
    }
}

#[test]
fn no_states_of_the_steps_leave_a_run_without_a_way_on() {
    // All of them: 6 states of 6 steps, 3 modes. Whoever waits can be helped.
    let letters = ['.', 'i', 'w', 's', 'f', 'k'];
    for mode in [
        OnMachineFailure::Stop,
        OnMachineFailure::GoOn,
        OnMachineFailure::Ask,
    ] {
        for number in 0..6usize.pow(6) {
            let states: String = (0..6)
                .map(|place| letters[number / 6usize.pow(place) % 6])
                .collect();
            let run = run_in(mode, &states);
            match next(&run) {
                Decision::Begin(places) => assert!(!places.is_empty()),
                Decision::Wait => assert!(states.contains('i'), "{states}"),
                Decision::Suspend(_) => {
                    assert!(run.allowed_actions().contains(&"resume"), "{mode:?} {states}");
                    assert!(run.allowed_actions().contains(&"skip"), "{mode:?} {states}");
                }
                Decision::End(_) => assert!(!states.contains('i'), "{mode:?} {states}"),
            }
        }
    }
}

#[test]
fn what_people_say() {
    let resume = |step| PersonsWord::Resume {
        step,
        comment: "did it".into(),
    };
    let skip = |step| PersonsWord::Skip {
        step,
        comment: "no need".into(),
    };
    let heard = |mode, states: &str, word: &PersonsWord| {
        let mut run = run_in(mode, states);
        run.hear(word, "ann", 7).map(|()| {
            let letter = |step: &RunStep| match step.state {
                StepState::NotStarted => '.',
                StepState::InProgress => 'i',
                StepState::Suspended => 'w',
                StepState::Succeeded => 's',
                StepState::Failed => 'f',
                StepState::Skipped => 'k',
            };
            run.steps.iter().map(letter).collect::<String>()
        })
    };
    use OnMachineFailure::*;
    assert_eq!(heard(Stop, "w.....", &resume(None)).unwrap(), "s.....");
    assert_eq!(heard(Stop, "w.....", &skip(None)).unwrap(), "k.....");
    assert_eq!(heard(Stop, "i.....", &skip(Some(0))).unwrap(), "k.....");
    assert_eq!(heard(Ask, "sfs...", &resume(None)).unwrap(), "s.s...");
    assert_eq!(heard(Ask, "sff...", &resume(Some(2))).unwrap(), "sf....");
    assert_eq!(heard(Ask, "sff...", &skip(Some(1))).unwrap(), "skf...");
    for (mode, states, word) in [
        (Stop, "s.....", resume(None)),
        (Stop, "si....", skip(None)),
        (Stop, "si....", skip(Some(1))),
        (Stop, "sfs...", resume(None)),
        (Ask, "sfs...", resume(Some(2))),
        (Ask, "sfs...", resume(Some(99))),
        (Ask, "sfs...", skip(Some(4))),
    ] {
        assert_eq!(
            heard(mode, states, &word).unwrap_err().code,
            "NothingWaits",
            "{states} {word:?}"
        );
    }
    // Stopped and waiting: the first word ends the stop, the second the wait.
    let mut run = run_in(Stop, "w.....");
    run.hear(&PersonsWord::Stop, "bob", 1).unwrap();
    assert_eq!(run.allowed_actions(), ["resume", "skip", "cancel"]);
    run.hear(&resume(None), "ann", 2).unwrap();
    assert_eq!(run.steps[0].state, StepState::Suspended);
    run.hear(&resume(None), "ann", 3).unwrap();
    assert_eq!(
        (run.steps[0].state, run.steps[0].comment.as_str()),
        (StepState::Succeeded, "did it")
    );
    run.hear(&PersonsWord::Cancel, "ann", 4).unwrap();
    assert_eq!(run.hear(&resume(None), "ann", 5).unwrap_err().code, "RunIsOver");
}

#[test]
fn actions_are_limited_to_types_and_directions_and_a_cleanup_goes_backwards() {
    let mut plan = plan(OnMachineFailure::Stop);
    plan.groups[0].before[0].failover_types = vec![FailoverType::Unplanned];
    plan.groups[0].after[0].directions = vec![Direction::RecoveryToPrimary];
    plan.after_cleanup = vec![manual("C")];
    let names = |operation| {
        let run = run_of(plan.clone(), operation);
        run.steps.iter().map(RunStep::name).collect::<Vec<_>>().concat()
    };
    assert_eq!(names(PlanOperation::TestFailover), "mnoF");
    assert_eq!(names(PlanOperation::UnplannedFailover), "AmnoF");
    assert_eq!(names(PlanOperation::TestFailoverCleanup), "omnC");
    assert_eq!(names(PlanOperation::Commit), "mno");
}

#[test]
fn rules_of_a_plan() {
    let good = plan(OnMachineFailure::Stop);
    good.check().unwrap();
    let broken = |change: &dyn Fn(&mut Plan)| {
        let mut plan = good.clone();
        change(&mut plan);
        plan.check().unwrap_err().field
    };
    assert_eq!(broken(&|plan| plan.name = "a b".into()), "name");
    assert_eq!(
        broken(&|plan| plan.groups = vec![Group::default(); GROUPS_MAX + 1]),
        "groups"
    );
    assert_eq!(
        broken(
            &|plan| plan.groups[0].machines = (0..=MACHINES_MAX).map(|n| machine(&format!("m{n}"))).collect()
        ),
        "groups"
    );
    assert_eq!(
        broken(&|plan| {
            let twice = plan.groups[0].machines[0].clone();
            plan.groups[1].machines.push(twice)
        }),
        "groups"
    );
    let action = |kind: ActionKind| {
        broken(&|plan| {
            plan.groups[0].before[0].kind = kind.clone();
        })
    };
    let script = |script: &str, timeout_seconds| ActionKind::Script {
        script: script.into(),
        arguments: Vec::new(),
        timeout_seconds,
    };
    for name in ["", "../x", "/bin/sh", "a b", ".hidden", "x;y"] {
        assert_eq!(action(script(name, 1)), "groups[0].before[0].script", "{name}");
    }
    assert_eq!(action(script("fine.sh", 0)), "groups[0].before[0].timeoutSeconds");
    let probe = |machine, protocol: &str, port, path: Option<&str>| ActionKind::Probe {
        machine,
        protocol: protocol.into(),
        port,
        path: path.map(str::to_owned),
        status: None,
        timeout_seconds: 1,
    };
    let known = good.groups[0].machines[0].id;
    assert_eq!(
        action(probe(MachineId::new(), "ping", None, None)),
        "groups[0].before[0].machine"
    );
    assert_eq!(
        action(probe(known, "tcp", None, None)),
        "groups[0].before[0].port"
    );
    assert_eq!(
        action(probe(known, "udp", Some(1), None)),
        "groups[0].before[0].protocol"
    );
    assert_eq!(
        action(probe(known, "http", Some(1), Some("/a b"))),
        "groups[0].before[0].path"
    );
    assert_eq!(
        action(ActionKind::Delay { seconds: 0 }),
        "groups[0].before[0].seconds"
    );
}

/// Three machines: web1 of the bed, and two more.
pub(super) struct PlanBed {
    pub(super) bed: Bed,
    engine: Option<Engine>,
    pub(super) plan: Plan,
    pub(super) machines: Vec<MachineId>,
    scripts: tempfile::TempDir,
}

impl PlanBed {
    pub(super) fn new() -> Self {
        let bed = Bed::new();
        let scripts = tempfile::tempdir().unwrap();
        std::fs::set_permissions(scripts.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut machines = vec![bed.machine];
        for name in ["db1", "app1"] {
            let mut other = item();
            other.name = name.into();
            other.target.name = format!("{name}-asr");
            bed.store().register_machine(other.machine, name).unwrap();
            for &id in &other.disks {
                let spec = DiskSpec {
                    id,
                    name: "disk".into(),
                    size_bytes: 1 << 20,
                };
                bed.store().register_disk(other.machine, spec).unwrap();
            }
            seal(
                bed.store(),
                other.machine,
                &other.disks,
                3,
                Consistency::CrashConsistent,
            )
            .unwrap();
            machines.push(other.machine);
            bed.journal.add(other);
        }
        let of = |place: usize, name: &str| PlanMachine {
            id: machines[place],
            name: name.into(),
        };
        let plan = Plan {
            name: "site".into(),
            groups: vec![
                Group {
                    name: "data".into(),
                    machines: vec![of(1, "db1")],
                    ..Group::default()
                },
                Group {
                    name: "front".into(),
                    machines: vec![of(2, "app1"), of(0, "web1")],
                    ..Group::default()
                },
            ],
            ..Plan::default()
        };
        let mut bed = Self {
            bed,
            engine: None,
            plan,
            machines,
            scripts,
        };
        bed.boot();
        bed
    }

    pub(super) fn boot(&mut self) {
        let parts = EngineParts {
            runner: self.bed.runner().clone(),
            journal: self.bed.journal.clone(),
            scripts: self.scripts.path().to_owned(),
        };
        let limits = EngineLimits {
            look: Duration::from_millis(5),
            shut_down: LIMIT,
        };
        self.engine = Some(Engine::with_limits(parts, limits));
    }

    pub(super) fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }

    pub(super) fn restart(&mut self) {
        let engine = self.engine.take().unwrap();
        engine.shut_down();
        drop(engine);
        self.bed.restart();
        self.boot();
        self.engine().resume().unwrap();
    }

    pub(super) fn start(&self, operation: PlanOperation) -> Result<JobId, RecoveryError> {
        self.engine().start(NewRun {
            vault: "default".into(),
            plan_id: "plan".into(),
            plan: self.plan.clone(),
            operation,
            options: RunOptions {
                notes: "all fine".into(),
                ..RunOptions::default()
            },
            user: "ann".into(),
        })
    }

    /// Until it is over or waits.
    pub(super) fn wait(&self, id: JobId) -> PlanRun {
        self.engine()
            .wait(id, LIMIT)
            .unwrap()
            .expect("the run goes on and on")
    }

    pub(super) fn run(&self, operation: PlanOperation) -> PlanRun {
        self.wait(self.start(operation).unwrap())
    }

    fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.scripts.path().join(name);
        let mut file = std::fs::File::options()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o700)
            .open(&path)
            .unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        path
    }

    fn scripted(&self, name: &str, timeout_seconds: u32) -> Action {
        Action {
            name: format!("run {name}"),
            kind: ActionKind::Script {
                script: name.into(),
                arguments: vec![self.scripts.path().display().to_string()],
                timeout_seconds,
            },
            failover_types: Vec::new(),
            directions: Vec::new(),
        }
    }
}

pub(super) fn states(run: &PlanRun) -> Vec<(&str, StepState)> {
    run.steps.iter().map(|step| (step.name(), step.state)).collect()
}

fn ended(step: &RunStep) -> i64 {
    step.ended_unix_nanos.unwrap()
}

#[test]
fn groups_follow_each_other_machines_of_one_start_at_once_and_the_cleanup_leaves_nothing() {
    let mut bed = PlanBed::new();
    let told = bed.scripts.path().join("told");
    bed.script(
        "note",
        "#!/bin/sh\ncat >\"$1/told\"\necho first line\necho noted\n",
    );
    let note = bed.scripted("note", 20);
    bed.plan.groups[0].after.push(note);
    let run = bed.run(PlanOperation::TestFailover);
    assert_eq!(run.state, JobState::Succeeded, "{run:#?}");
    let step = |name: &str| run.steps.iter().find(|step| step.name() == name).unwrap();
    assert!(ended(step("db1")) <= step("run note").started_unix_nanos.unwrap());
    assert!(ended(step("run note")) <= step("web1").started_unix_nanos.unwrap());
    assert_eq!(step("web1").started_unix_nanos, step("app1").started_unix_nanos);
    assert_eq!(step("run note").message, "note: noted");
    // One network for all of them, and of this run alone.
    let networks: Vec<_> = bed
        .machines
        .iter()
        .map(|machine| {
            let test = bed.bed.runner().item(*machine).unwrap().test_failover.unwrap();
            serde_json::to_value(&test.machine.nics[0].network).unwrap()
        })
        .collect();
    assert!(
        networks[0]["name"].as_str().unwrap().starts_with("test-")
            && networks.iter().all(|one| *one == networks[0])
    );
    // What the script was told.
    let told: serde_json::Value = serde_json::from_slice(&std::fs::read(told).unwrap()).unwrap();
    assert_eq!(
        (&told["plan"], &told["failoverType"], &told["attempt"]),
        (&"site".into(), &"test".into(), &1.into())
    );
    assert_eq!(told["machines"][0]["targetName"], "db1-test");
    assert_eq!(told["machines"][1]["state"], "NotStarted");
    // Figures of what was measured.
    let result = run.result();
    assert_eq!(result["machinesSucceeded"], 3);
    let whole = seconds(run.ended_unix_nanos.unwrap() - run.created_unix_nanos);
    let rto = result["rtoSeconds"].as_f64().unwrap();
    assert!(rto > 0.0 && rto <= result["planRtoSeconds"].as_f64().unwrap() && rto <= whole);
    assert!(result["rpoSeconds"].as_f64().unwrap() > 0.0);

    let cleaned = bed.run(PlanOperation::TestFailoverCleanup);
    assert_eq!(cleaned.state, JobState::Succeeded, "{cleaned:#?}");
    assert_eq!(cleaned.steps.last().unwrap().name(), "db1", "backwards");
    assert!(cleaned.result()["rpoSeconds"].is_null(), "{}", cleaned.result());
    bed.bed.assert_clean("plan");
    for machine in &bed.machines {
        let item = bed.bed.runner().item(*machine).unwrap();
        assert_eq!(item.test_failover_state, TestFailoverState::None);
        assert!(item.last_successful_test_unix_nanos.is_some());
    }
    // Nothing is left to clean up: that is said, and is no failure.
    let again = bed.run(PlanOperation::TestFailoverCleanup);
    assert_eq!(again.state, JobState::Succeeded);
    assert!(
        again.steps.iter().all(|step| step.state == StepState::Skipped),
        "{:?}",
        states(&again)
    );
}

#[test]
fn a_manual_action_waits_for_a_person_over_a_restart_and_one_run_at_a_time_works_on_a_plan() {
    let mut bed = PlanBed::new();
    bed.plan.groups[1].before.push(manual("switch the lamp on"));
    let run = bed.run(PlanOperation::TestFailover);
    assert_eq!(
        (run.state, run.waits_for.as_str()),
        (JobState::Suspended, "switch the lamp on: do switch the lamp on")
    );
    match bed.start(PlanOperation::Commit) {
        Err(RecoveryError::Refused(refusal)) => assert_eq!(refusal.code, "PlanRuns"),
        other => panic!("{other:?}"),
    }
    bed.restart();
    assert_eq!(bed.wait(run.id).state, JobState::Suspended);
    let word = PersonsWord::Resume {
        step: None,
        comment: "it burns".into(),
    };
    bed.engine().say(run.id, &word, "bob").unwrap();
    let run = over(&bed, run.id);
    assert_eq!(run.state, JobState::Succeeded, "{:?}", states(&run));
    let lamp = run
        .steps
        .iter()
        .find(|step| step.name() == "switch the lamp on")
        .unwrap();
    assert_eq!(
        (lamp.decided_by.as_deref(), lamp.comment.as_str()),
        (Some("bob"), "it burns")
    );
}

/// Past every wait.
pub(super) fn over(bed: &PlanBed, id: JobId) -> PlanRun {
    let deadline = Instant::now() + LIMIT;
    loop {
        let run = bed.bed.journal.plan_run(id).unwrap();
        if run.state.is_over() {
            return run;
        }
        assert!(Instant::now() < deadline, "{:?}", states(&run));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_machine_that_fails_stops_the_run_or_not_as_the_plan_says() {
    for mode in [
        OnMachineFailure::Stop,
        OnMachineFailure::GoOn,
        OnMachineFailure::Ask,
    ] {
        let mut bed = PlanBed::new();
        bed.plan.on_machine_failure = mode;
        bed.script("sorry", "#!/bin/sh\ntouch \"$1/sorry.ran\"\n");
        let sorry = bed.scripted("sorry", 20);
        bed.plan.on_failure.push(sorry);
        let sorry = bed.scripts.path().join("sorry.ran");
        bed.bed.compute.trouble(Verb::Start, Some(Trouble::Fails));
        let run = bed.run(PlanOperation::TestFailover);
        let by_name =
            |run: &PlanRun, name: &str| run.steps.iter().find(|step| step.name() == name).unwrap().clone();
        match mode {
            OnMachineFailure::Stop => {
                assert_eq!(run.state, JobState::Failed);
                assert!(
                    run.error.as_ref().unwrap().message.starts_with("db1: "),
                    "{:?}",
                    run.error
                );
                assert_eq!(by_name(&run, "web1").state, StepState::Skipped);
                assert!(sorry.exists());
                assert_eq!(bed.bed.journal.jobs_of(bed.machines[0], JobKind::TestFailover), 0);
            }
            OnMachineFailure::GoOn => {
                assert_eq!(run.state, JobState::Failed);
                assert_eq!(
                    by_name(&run, "web1").state,
                    StepState::Failed,
                    "tried all the same"
                );
                assert!(sorry.exists());
            }
            OnMachineFailure::Ask => {
                assert_eq!(run.state, JobState::Suspended);
                assert!(run.waits_for.starts_with("db1 failed: "), "{}", run.waits_for);
                bed.bed.compute.trouble(Verb::Start, None);
                let word = PersonsWord::Resume {
                    step: None,
                    comment: String::new(),
                };
                bed.engine().say(run.id, &word, "bob").unwrap();
                let run = over(&bed, run.id);
                assert_eq!(run.state, JobState::Succeeded, "{:?}", states(&run));
                let db = by_name(&run, "db1");
                assert_eq!((db.attempt, db.earlier_jobs.len()), (2, 1));
                assert!(!sorry.exists());
            }
        }
    }
}

#[test]
fn scripts_fail_time_out_are_refused_and_are_skipped() {
    let mut bed = PlanBed::new();
    bed.plan.on_machine_failure = OnMachineFailure::Ask;
    bed.script("bad", "#!/bin/sh\necho broken >&2\nexit 3\n");
    // What it starts is ended with it.
    bed.script("slow", "#!/bin/sh\nsleep 300 &\necho $! >\"$1/pid\"\nsleep 300\n");
    std::fs::set_permissions(
        bed.script("open", "#!/bin/sh\n"),
        std::fs::Permissions::from_mode(0o722),
    )
    .unwrap();
    std::os::unix::fs::symlink("/bin/true", bed.scripts.path().join("linked")).unwrap();
    let actions = [
        ("bad", 20),
        ("slow", 1),
        ("open", 20),
        ("linked", 20),
        ("missing", 20),
        ("slow", 200),
    ];
    bed.plan.groups[0].before = actions
        .iter()
        .map(|(name, seconds)| bed.scripted(name, *seconds))
        .collect();
    assert_eq!(bed.engine().scripts().1, ["bad", "slow"]);
    let id = bed.start(PlanOperation::TestFailover).unwrap();
    let expected = [
        "ended with exit status: 3: broken",
        "did not end within 1 s",
        "may be changed by others",
        "is no plain file",
        "No such file",
    ];
    for (place, expected) in expected.into_iter().enumerate() {
        let deadline = Instant::now() + LIMIT;
        let run = loop {
            let run = bed.wait(id);
            if run.steps[place].state == StepState::Failed && run.state == JobState::Suspended {
                break run;
            }
            assert!(Instant::now() < deadline, "{:?}", states(&run));
        };
        let error = run.steps[place].error.as_ref().unwrap();
        assert!(error.message.contains(expected), "{}", error.message);
        let word = PersonsWord::Skip {
            step: Some(place),
            comment: "never mind".into(),
        };
        bed.engine().say(id, &word, "ann").unwrap();
    }
    // One that is under way is skipped too: it is killed, with what it started.
    let pid = bed.scripts.path().join("pid");
    std::fs::remove_file(&pid).unwrap();
    let deadline = Instant::now() + LIMIT;
    let child = loop {
        let text = std::fs::read_to_string(&pid).unwrap_or_default();
        if text.ends_with('\n') {
            break text.trim().to_owned();
        }
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    };
    let word = PersonsWord::Skip {
        step: None,
        comment: String::new(),
    };
    bed.engine().say(id, &word, "ann").unwrap();
    let gone = || {
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    };
    while !gone() {
        assert!(Instant::now() < deadline + LIMIT, "the script's child lives on");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(over(&bed, id).state, JobState::Succeeded);
}

#[test]
fn a_stop_holds_what_is_next_and_a_cancel_ends_the_run() {
    let mut bed = PlanBed::new();
    bed.plan.groups[0].after.push(manual("look"));
    bed.bed.compute.trouble(Verb::Start, Some(Trouble::Hangs));
    let id = bed.start(PlanOperation::TestFailover).unwrap();
    bed.bed.compute.called(Verb::Start, 1);
    bed.engine().say(id, &PersonsWord::Stop, "bob").unwrap();
    bed.bed.compute.trouble(Verb::Start, None);
    let run = bed.wait(id);
    assert_eq!(
        (run.state, run.waits_for.as_str()),
        (JobState::Suspended, "Stopped by bob.")
    );
    assert_eq!(
        run.steps[0].state,
        StepState::Succeeded,
        "what was under way went on"
    );
    assert_eq!(run.steps[1].state, StepState::NotStarted);
    let word = PersonsWord::Resume {
        step: None,
        comment: String::new(),
    };
    bed.engine().say(id, &word, "ann").unwrap();
    let deadline = Instant::now() + LIMIT;
    while bed.bed.journal.plan_run(id).unwrap().steps[1].state != StepState::Suspended {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    bed.engine().say(id, &PersonsWord::Cancel, "ann").unwrap();
    let run = over(&bed, id);
    assert_eq!(run.state, JobState::Cancelled);
    assert!(
        run.steps[1..].iter().all(|step| step.state == StepState::Skipped),
        "{:?}",
        states(&run)
    );
    // What was started waits for its cleanup.
    assert_eq!(bed.bed.compute.names(), ["db1-test"]);
    assert_eq!(
        bed.run(PlanOperation::TestFailoverCleanup).state,
        JobState::Succeeded
    );
    assert_eq!(bed.bed.compute.names(), Vec::<String>::new());
}

#[test]
fn a_failover_of_a_plan_is_run_again_where_it_failed_and_committed() {
    let bed = PlanBed::new();
    // Its agents do not answer; that is why people fail over.
    bed.bed.compute.trouble(Verb::Prepare, Some(Trouble::Fails));
    let run = bed.run(PlanOperation::UnplannedFailover);
    assert_eq!(run.state, JobState::Failed);
    bed.bed.compute.trouble(Verb::Prepare, None);
    let run = bed.run(PlanOperation::UnplannedFailover);
    assert_eq!(run.state, JobState::Succeeded, "{run:#?}");
    assert_eq!(bed.bed.compute.names(), ["app1-asr", "db1-asr", "web1-asr"]);
    // Once more: all of them are there already.
    let again = bed.run(PlanOperation::UnplannedFailover);
    assert_eq!(again.state, JobState::Succeeded);
    assert!(again.steps.iter().all(|step| step.state == StepState::Skipped));
    assert_eq!(again.result()["description"], "CompletedWithInformation");
    assert_eq!(bed.run(PlanOperation::Commit).state, JobState::Succeeded);
}

/// The server is killed at every record of the run, before and after it is kept; the next one takes the run up.
#[test]
fn a_run_survives_a_crash_at_every_record_and_orders_no_job_twice() {
    let mut records = 0;
    for record in 1.. {
        let mut over_before = false;
        for cut in [Cut::Before, Cut::After] {
            let story = format!("cut {cut:?} record {record}");
            let mut bed = PlanBed::new();
            bed.script("note", "#!/bin/sh\necho x >>\"$1/noted\"\n");
            let note = bed.scripted("note", 20);
            bed.plan.groups[0].before.push(note);
            bed.plan.groups[0].after.push(manual("look"));
            bed.plan.groups[1].after.push(Action {
                kind: ActionKind::Delay { seconds: 1 },
                ..manual("rest")
            });
            bed.bed.journal.cut_run(record, cut);
            let started = bed.start(PlanOperation::TestFailover);
            let id = match started {
                Ok(id) => {
                    let deadline = Instant::now() + LIMIT;
                    loop {
                        assert!(Instant::now() < deadline, "{story}");
                        if bed.bed.journal.is_dead() {
                            break;
                        }
                        match bed.bed.journal.plan_run(id) {
                            Ok(run) if run.state.is_over() => break,
                            Ok(run) if run.state == JobState::Suspended => {
                                let word = PersonsWord::Resume {
                                    step: None,
                                    comment: String::new(),
                                };
                                // Refused, or lost with the journal: asked again by the next look.
                                let _ = bed.engine().say(id, &word, "bob");
                            }
                            _ => {}
                        }
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    over_before |= !bed.bed.journal.is_dead();
                    Some(id)
                }
                Err(RecoveryError::Journal(_)) => None,
                Err(error) => panic!("{error}"),
            };
            if bed.bed.journal.is_dead() {
                bed.restart();
            }
            bed.bed.journal.heal();
            let id = id.or_else(|| {
                bed.bed
                    .journal
                    .open_plan_runs()
                    .unwrap()
                    .first()
                    .map(|run| run.id)
            });
            let Some(id) = id else {
                assert_eq!((record, cut), (1, Cut::Before), "{story}");
                continue;
            };
            let deadline = Instant::now() + LIMIT;
            let run = loop {
                assert!(Instant::now() < deadline, "{story}");
                let run = bed.bed.journal.plan_run(id).unwrap();
                if run.state.is_over() {
                    break run;
                }
                if run.state == JobState::Suspended {
                    let word = PersonsWord::Resume {
                        step: None,
                        comment: String::new(),
                    };
                    let _ = bed.engine().say(id, &word, "bob");
                }
                std::thread::sleep(Duration::from_millis(2));
            };
            assert_eq!(run.state, JobState::Succeeded, "{story}: {run:#?}");
            for machine in &bed.machines {
                assert_eq!(
                    bed.bed.journal.jobs_of(*machine, JobKind::TestFailover),
                    1,
                    "{story}"
                );
            }
            // A script may be run again after a crash, and is told so; it is never left out.
            let noted = std::fs::read_to_string(bed.scripts.path().join("noted")).unwrap();
            assert!((1..=2).contains(&noted.lines().count()), "{story}: {noted}");
            assert_eq!(
                bed.run(PlanOperation::TestFailoverCleanup).state,
                JobState::Succeeded,
                "{story}"
            );
            bed.bed.assert_clean(&story);
        }
        if over_before {
            break;
        }
        records = record;
    }
    assert!(records >= 8, "{records} records");
}

#[test]
fn points_are_chosen_for_all_machines() {
    let bed = PlanBed::new();
    let options = RunOptions {
        point: Some(PointChoice::LatestAppConsistent),
        ..RunOptions::default()
    };
    let id = bed
        .engine()
        .start(NewRun {
            vault: "default".into(),
            plan_id: "plan".into(),
            plan: bed.plan.clone(),
            operation: PlanOperation::TestFailover,
            options,
            user: "ann".into(),
        })
        .unwrap();
    // Only web1 has one.
    let run = bed.wait(id);
    assert_eq!(run.state, JobState::Failed);
    assert_eq!(run.error.unwrap().code, "NoAppConsistentPoint");
}

/// A newer shared point is made between the turns of two groups, and the server is started again: the second does not take it.
#[test]
fn machines_that_share_points_start_from_one_instant_whenever_their_turn_comes() {
    let mut bed = PlanBed::new();
    bed.plan.groups[0].after.push(manual("look"));
    let (web1, db1, app1) = (bed.machines[0], bed.machines[1], bed.machines[2]);
    let share = |bed: &PlanBed, instant: i64| {
        let id = GroupPointId::new();
        for machine in [db1, app1] {
            let mut writer = bed.bed.store().begin(machine, 1).unwrap();
            let spec = PointSpec {
                instant_unix_nanos: now_unix_nanos() + instant,
                consistency: Consistency::CrashConsistent,
                note: String::new(),
                freeze_micros: 0,
            };
            writer
                .seal_shared(spec, Some(SharedMark { id, members: 2 }))
                .unwrap();
        }
        id
    };
    let start = |bed: &PlanBed| {
        bed.engine().start(NewRun {
            vault: "default".into(),
            plan_id: "plan".into(),
            plan: bed.plan.clone(),
            operation: PlanOperation::TestFailover,
            options: RunOptions {
                point: Some(PointChoice::LatestMultiVm),
                ..RunOptions::default()
            },
            user: "ann".into(),
        })
    };
    match start(&bed) {
        Err(RecoveryError::Refused(refusal)) => assert_eq!(refusal.code, "NoSharedPoint"),
        other => panic!("{other:?}"),
    }
    share(&bed, 0);
    let wanted = share(&bed, 1_000_000);
    let id = start(&bed).unwrap();
    assert_eq!(bed.wait(id).state, JobState::Suspended);
    share(&bed, 2_000_000);
    bed.restart();
    let word = PersonsWord::Resume {
        step: None,
        comment: String::new(),
    };
    bed.engine().say(id, &word, "bob").unwrap();
    let run = over(&bed, id);
    assert_eq!(run.state, JobState::Succeeded, "{run:#?}");
    let started_from = |machine| {
        let point = bed
            .bed
            .runner()
            .item(machine)
            .unwrap()
            .test_failover
            .unwrap()
            .point;
        let points = bed.bed.store().points(machine).unwrap();
        points.into_iter().find(|known| known.id == point).unwrap().shared
    };
    for machine in [db1, app1] {
        assert_eq!(started_from(machine).unwrap().id, wanted);
    }
    assert_eq!(
        started_from(web1),
        None,
        "it shares nothing, and takes its latest"
    );
}
