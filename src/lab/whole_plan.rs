//! A recovery plan there and back: all machines go to the target, are called back, go once more, work there, and come home, by
//! runs of the plan alone. Nothing that was acknowledged may be lost, and a person stops, resumes and skips on the way.
use super::circle::{
    broken, came_home, count_points, lie_down, receive, went_away, work_again, work_at_target,
};
use super::error::LabError;
use super::figures::{Circle, PlanCircle};
use super::processes::Process;
use super::run::{Lab, start_agent};
use super::together::{NAME, begin_run, say_to, succeeded, until_it_waits};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const SOURCE_LIMIT: Duration = Duration::from_secs(120);
const RUN_LIMIT: Duration = Duration::from_secs(1200);

/// Behind [`super::together::walk`], which made the plan.
pub(super) fn walk(lab: &mut Lab) -> Result<(), LabError> {
    if lab
        .machines
        .iter_mut()
        .any(|machine| machine.source.live().is_none())
    {
        return Ok(());
    }
    let names: Vec<String> = lab
        .machines
        .iter()
        .map(|machine| machine.figures.name.clone())
        .collect();
    let mut whole = PlanCircle::default();
    let mut circles = vec![Circle::default(); names.len()];
    lab.say("the plan: planned failover; its manual action is skipped");
    away(lab, &names, &mut circles, false, &mut whole)?;
    called_back(lab, &names, &mut whole)?;
    lab.say("the plan: planned failover once more; a person stops it and lets it go on");
    away(lab, &names, &mut circles, true, &mut whole)?;
    for (name, circle) in names.iter().zip(&mut circles) {
        work_at_target(lab, name, circle)?;
    }
    let run = begin_run(lab, "commit")?;
    until_it_waits(lab, &run).and_then(succeeded)?;
    home(lab, &names, &mut circles, &mut whole)?;
    again(lab, &names, &mut whole)?;
    for (machine, circle) in lab.machines.iter_mut().zip(circles) {
        machine.figures.circle = Some(circle);
    }
    lab.plan_circle = Some(whole);
    Ok(())
}

/// Step of a machine in a run.
fn step<'a>(run: &'a Value, name: &str) -> &'a Value {
    let steps = run["steps"].as_array().into_iter().flatten();
    steps
        .filter(|step| step["phase"] == "Machines")
        .find(|step| step["machine"]["name"] == name)
        .unwrap_or(&Value::Null)
}

fn away(
    lab: &mut Lab,
    names: &[String],
    circles: &mut [Circle],
    stopped: bool,
    whole: &mut PlanCircle,
) -> Result<(), LabError> {
    let call = Instant::now();
    let run = begin_run(lab, "planned-failover")?;
    if stopped {
        say_to(lab, &run, "stop", "")?;
        let waits = until_it_waits(lab, &run)?;
        // What was under way has ended, and nothing else has begun.
        let last = names.last().map(String::as_str).unwrap_or_default();
        if waits["state"] != "Suspended" || step(&waits, last)["state"] != "NotStarted" {
            return Err(broken(
                "the plan",
                format!("a stop does not hold it: {}", waits["state"]),
            ));
        }
        lab.say(&format!(
            "the plan waits: {}",
            waits["waitsFor"].as_str().unwrap_or_default()
        ));
        whole.stops += 1;
        say_to(lab, &run, "resume", "the storm has passed")?;
    }
    let waits = until_it_waits(lab, &run)?;
    if waits["state"] != "Suspended" {
        succeeded(waits)?;
        return Err(broken(
            "the plan",
            "its manual action waited for nobody".to_owned(),
        ));
    }
    let word = if stopped { "resume" } else { "skip" };
    say_to(lab, &run, word, "seen")?;
    let ended = until_it_waits(lab, &run).and_then(succeeded)?;
    whole.planned_failover_seconds = call.elapsed().as_secs_f64();
    let manual = ended["steps"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|step| step["kind"] == "manual");
    let (wanted, count) = match stopped {
        true => ("Succeeded", &mut whole.resumed),
        false => ("Skipped", &mut whole.skipped),
    };
    if manual.is_none_or(|step| step["state"] != wanted || step["comment"] != "seen") {
        return Err(broken("the plan", format!("its manual action is not {wanted}")));
    }
    *count += 1;
    for (index, (name, circle)) in names.iter().zip(circles).enumerate() {
        let accepted = json!({ "job": { "id": step(&ended, name)["job"] } });
        went_away(lab, index, name, &accepted, call, circle)?;
        let failover = &mut circle.planned_failover;
        // Looked at when all of the run was over: only the run says how long it took.
        (failover.kernel_start_ms, failover.verified_ms) = (None, None);
        whole.planned_entries_lost += failover.entries_lost;
        let line = format!(
            "{name}: {} entries, {} lost; started {:.1} s into the run",
            failover.entries_at_point,
            failover.entries_lost,
            step(&ended, name)["rtoSeconds"].as_f64().unwrap_or(0.0)
        );
        lab.say(&line);
    }
    Ok(())
}

/// Cancel: the sources go on where they stood still, with their own ledgers.
fn called_back(lab: &mut Lab, names: &[String], whole: &mut PlanCircle) -> Result<(), LabError> {
    lab.say("the plan: cancel of the failover");
    let call = Instant::now();
    let before = lab
        .machines
        .iter()
        .map(|machine| machine.source.entries())
        .collect::<Result<Vec<_>, _>>()?;
    let run = begin_run(lab, "cancel-failover")?;
    until_it_waits(lab, &run).and_then(succeeded)?;
    whole.cancel_seconds = call.elapsed().as_secs_f64();
    for (index, (name, before)) in names.iter().zip(before).enumerate() {
        lab.wait("work at the source again", SOURCE_LIMIT, |lab| {
            let entries = lab.machines[index].source.entries()?;
            let item = lab.client.get(&format!("replicated-items/{name}"))?;
            let home = item["activeLocation"] == "Primary" && item["protectionState"] == "Protected";
            Ok((home && entries > before + 20).then_some(()))
        })?;
    }
    lab.say(&format!(
        "the plan: taken back after {:.1} s; the sources work again",
        whole.cancel_seconds
    ));
    Ok(())
}

/// Reprotect and failback: each machine's receiver is started when the run has come to it.
fn home(
    lab: &mut Lab,
    names: &[String],
    circles: &mut [Circle],
    whole: &mut PlanCircle,
) -> Result<(), LabError> {
    for index in 0..names.len() {
        lie_down(lab, index)?;
    }
    lab.say("the plan: reprotect; the disks at home receive what differs");
    let call = Instant::now();
    let run = begin_run(lab, "reprotect")?;
    let mut receivers: Vec<Option<Process>> = names.iter().map(|_| None).collect();
    let ended = lab.wait("the reprotect of the plan", RUN_LIMIT, |lab| {
        let run = lab.client.get(&format!("recovery-plans/{NAME}/runs/{run}"))?;
        for (index, name) in names.iter().enumerate() {
            if receivers[index].is_none() && step(&run, name)["state"] == "InProgress" {
                receivers[index] = Some(receive(lab, index, name)?);
            }
            // It stays until the machine is home; without it the run would wait for ever.
            if let Some(receiver) = &mut receivers[index]
                && let Some(code) = receiver.ended()
            {
                let said = receiver.last_words();
                return Err(broken(name, format!("the receiver ended with {code}: {said}")));
            }
        }
        let state = run["state"].as_str().unwrap_or_default();
        let over = ["Succeeded", "Failed", "Cancelled", "Suspended"].contains(&state);
        Ok(over.then_some(run))
    })?;
    succeeded(ended)?;
    whole.reprotect_seconds = call.elapsed().as_secs_f64();
    for (name, circle) in names.iter().zip(circles.iter_mut()) {
        count_points(lab, name, circle)?;
        circle.reprotect_seconds = whole.reprotect_seconds;
    }
    lab.say("the plan: failback");
    let call = Instant::now();
    let run = begin_run(lab, "failback")?;
    let ended = until_it_waits(lab, &run).and_then(succeeded)?;
    whole.failback_seconds = call.elapsed().as_secs_f64();
    for (index, (name, circle)) in names.iter().zip(circles).enumerate() {
        let Some(mut receiver) = receivers[index].take() else {
            return Err(broken(name, "it was not received".to_owned()));
        };
        circle.failback_seconds = step(&ended, name)["rtoSeconds"].as_f64().unwrap_or(0.0);
        came_home(lab, index, name, &mut receiver, circle)?;
        whole.entries_at_target += circle.entries_at_target;
        whole.failback_entries_lost += circle.failback_entries_lost;
    }
    Ok(())
}

fn again(lab: &mut Lab, names: &[String], whole: &mut PlanCircle) -> Result<(), LabError> {
    for index in 0..names.len() {
        work_again(lab, index)?;
    }
    let run = begin_run(lab, "commit")?;
    until_it_waits(lab, &run).and_then(succeeded)?;
    for (index, name) in names.iter().enumerate() {
        lab.machines[index].agent = Some(start_agent(lab, name)?);
    }
    let call = Instant::now();
    let run = begin_run(lab, "reprotect")?;
    until_it_waits(lab, &run).and_then(succeeded)?;
    for name in names {
        let item = lab.client.get(&format!("replicated-items/{name}"))?;
        if item["protectionState"] != "Protected" || item["activeLocation"] != "Primary" {
            return Err(broken(
                name,
                format!("it is not protected at home: {}", item["protectionState"]),
            ));
        }
    }
    whole.protected_again_seconds = call.elapsed().as_secs_f64();
    lab.say(&format!(
        "the plan: all machines are protected again after {:.1} s; {} entries of the target came home",
        whole.protected_again_seconds, whole.entries_at_target
    ));
    Ok(())
}
