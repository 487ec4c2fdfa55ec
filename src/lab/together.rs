//! Machines together: a replication group that shares points, and a recovery plan that tests all of them at one instant, with
//! an action that waits for a person. The tour is that person.
use super::error::LabError;
use super::figures::{Group, Plan, PlanMachine};
use super::messages::{Messages, in_order};
use super::run::Lab;
use super::tour::{fetch, instant_of, points_of};
use super::verify::Part;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub(super) const NAME: &str = "lab";
const SHARE_SECONDS: u32 = 2;
/// Before the plan is tested, and more while it is: its machines take their turns from one instant all the same.
const SHARED_POINTS_MIN: u64 = 3;
const SHARE_LIMIT: Duration = Duration::from_secs(120);
const PROBE_SECONDS: u32 = 400;
const RUN_LIMIT: Duration = Duration::from_secs(1200);
const MANUAL: &str = "look at the ledger of the first machine";

pub(super) fn walk(lab: &mut Lab) -> Result<(), LabError> {
    let names: Vec<String> = lab
        .machines
        .iter()
        .map(|machine| machine.figures.name.clone())
        .collect();
    let folders: Vec<PathBuf> = lab
        .machines
        .iter_mut()
        .filter_map(|machine| machine.source.live().map(|source| source.data_folder()))
        .collect();
    // One machine shares nothing; one at rest cannot be held still together with others.
    let share = names.len() > 1 && folders.len() == names.len();
    let messages = if share {
        Some(begin_group(lab, &names, &folders)?)
    } else {
        None
    };
    let plan = test_plan(lab, &names, share, messages)?;
    lab.plan = Some(plan);
    Ok(())
}

fn broken(what: String) -> LabError {
    LabError::Program {
        program: "the recovery plan".to_owned(),
        detail: what,
    }
}

/// Makes the group, and messages from each of its machines to the next; until it has shared points.
fn begin_group(lab: &mut Lab, names: &[String], folders: &[PathBuf]) -> Result<Messages, LabError> {
    lab.say(&format!(
        "{}: a replication group, one message goes from each to the next",
        names.join(", ")
    ));
    let messages = Messages::start(folders)?;
    let group =
        json!({ "name": NAME, "members": names, "shareSeconds": SHARE_SECONDS, "appConsistentSeconds": 0 });
    lab.client.post("replication-groups", &group)?;
    let shared = lab.wait("shared recovery points", SHARE_LIMIT, |lab| {
        let group = lab.client.get(&format!("replication-groups/{NAME}"))?;
        let enough = group["sharedPoints"].as_u64() >= Some(SHARED_POINTS_MIN);
        Ok(enough.then_some(group))
    })?;
    lab.say(&format!(
        "{} shared points of {} tried",
        shared["sharedPoints"], shared["rounds"]
    ));
    Ok(messages)
}

/// Orders a run of the plan; its id.
pub(super) fn begin_run(lab: &Lab, operation: &str) -> Result<String, LabError> {
    let accepted = lab
        .client
        .post(&format!("recovery-plans/{NAME}/{operation}"), &json!({}))?;
    Ok(accepted["run"]["id"].as_str().unwrap_or_default().to_owned())
}

/// What a person says about a run: stop, resume, skip.
pub(super) fn say_to(lab: &Lab, run: &str, word: &str, comment: &str) -> Result<(), LabError> {
    let body = match word {
        "stop" => json!({}),
        _ => json!({ "comment": comment }),
    };
    lab.client
        .post(&format!("recovery-plans/{NAME}/runs/{run}/{word}"), &body)
        .map(drop)
}

/// The run when it is over or waits for a person.
pub(super) fn until_it_waits(lab: &mut Lab, run: &str) -> Result<Value, LabError> {
    lab.wait("the run of the recovery plan", RUN_LIMIT, |lab| {
        let run = lab.client.get(&format!("recovery-plans/{NAME}/runs/{run}"))?;
        let state = run["state"].as_str().unwrap_or_default();
        let rests = ["Suspended", "Succeeded", "Failed", "Cancelled"].contains(&state);
        Ok(rests.then_some(run))
    })
}

pub(super) fn succeeded(run: Value) -> Result<Value, LabError> {
    if run["state"] == "Succeeded" {
        return Ok(run);
    }
    Err(broken(format!(
        "{} is {}: {} {}",
        run["scenario"], run["state"], run["waitsFor"], run["error"]["message"]
    )))
}

fn test_plan(
    lab: &mut Lab,
    names: &[String],
    share: bool,
    messages: Option<Messages>,
) -> Result<Plan, LabError> {
    let probe = |machine: &String| {
        // A machine at home is not asked: nothing of the target leads to it.
        json!({ "name": format!("{machine} answers"), "kind": "probe", "machine": machine, "protocol": "http",
            "port": 80, "timeoutSeconds": PROBE_SECONDS, "directions": ["primaryToRecovery"] })
    };
    let (first, rest) = names.split_at(1);
    let manual = json!({ "name": MANUAL, "kind": "manual", "directions": ["primaryToRecovery"],
        "instructions": "Ask the copy of the first machine whether its ledger and its table are whole." });
    let mut groups = vec![json!({ "name": "data", "machines": first, "after": [probe(&first[0]), manual] })];
    if !rest.is_empty() {
        let probes: Vec<Value> = rest.iter().map(probe).collect();
        groups.push(json!({ "name": "front", "machines": rest, "after": probes }));
    }
    lab.client
        .post("recovery-plans", &json!({ "name": NAME, "groups": groups }))?;
    let point = if share { "LatestMultiVm" } else { "LatestProcessed" };
    lab.say(&format!(
        "test failover of a recovery plan: {}, then {}; from {point}",
        first[0],
        if rest.is_empty() {
            "nothing more".to_owned()
        } else {
            rest.join(" and ")
        }
    ));
    let accepted = lab.client.post(
        &format!("recovery-plans/{NAME}/test-failover"),
        &json!({ "recoveryPoint": point }),
    )?;
    let run = accepted["run"]["id"].as_str().unwrap_or_default().to_owned();
    let waits = until_it_waits(lab, &run)?;
    if waits["state"] != "Suspended" {
        succeeded(waits)?;
        return Err(broken("its manual action waited for nobody".to_owned()));
    }
    // Newer shared points are there by now; the machines that come next must not take them.
    let sent = messages.map(Messages::stop).transpose()?;
    let begin = Instant::now();
    let seen = report_of(lab, &first[0])?;
    let comment = format!(
        "{}: ledger and table whole, {} entries",
        first[0], seen.verdict.entries
    );
    lab.say(&format!("the plan waits for a person: {comment}"));
    say_to(lab, &run, "resume", &comment)?;
    let manual_seconds = begin.elapsed().as_secs_f64();
    let ended = until_it_waits(lab, &run).and_then(succeeded)?;
    let mut plan = Plan {
        groups: groups.len(),
        recovery_point: point.to_owned(),
        rto_seconds: ended["result"]["rtoSeconds"].as_f64().unwrap_or(0.0),
        plan_rto_seconds: ended["result"]["planRtoSeconds"].as_f64().unwrap_or(0.0),
        rpo_seconds: ended["result"]["rpoSeconds"].as_f64().unwrap_or(0.0),
        manual_actions: 1,
        manual_seconds,
        ..Plan::default()
    };
    let mut instants = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let (machine, instant) = judge(lab, index, name, &ended)?;
        instants.push(instant);
        plan.machines.push(machine);
    }
    if let Some(sent) = sent {
        lab.group = Some(of_group(lab, &plan, &instants, sent)?);
    }
    lab.say(&format!(
        "the plan was up after {:.1} s, its machines after {:.1} s, from points {:.1} s old",
        plan.plan_rto_seconds, plan.rto_seconds, plan.rpo_seconds
    ));
    let begin = Instant::now();
    let accepted = lab.client.post(
        &format!("recovery-plans/{NAME}/test-failover-cleanup"),
        &json!({ "notes": "the lab's tour: every ledger and table whole, messages in order" }),
    )?;
    let run = accepted["run"]["id"].as_str().unwrap_or_default().to_owned();
    until_it_waits(lab, &run).and_then(succeeded)?;
    plan.cleanup_seconds = begin.elapsed().as_secs_f64();
    for name in names {
        let item = lab.client.get(&format!("replicated-items/{name}"))?;
        if item["testFailoverState"] != "None" {
            return Err(broken(format!(
                "{name} is left after the cleanup: {}",
                item["testFailoverState"]
            )));
        }
    }
    lab.say(&format!(
        "the plan is cleaned up after {:.1} s",
        plan.cleanup_seconds
    ));
    Ok(plan)
}

/// What the copy of a machine says of itself.
fn report_of(lab: &mut Lab, name: &str) -> Result<super::guest::Report, LabError> {
    let status = lab
        .client
        .get(&format!("replicated-items/{name}/target-machine?test=true"))?;
    let port = status["forwards"][0]["hostPort"]
        .as_u64()
        .and_then(|port| u16::try_from(port).ok())
        .ok_or_else(|| broken(format!("no port leads to {name}")))?;
    let report = lab.wait("the guest's HTTP report", Duration::from_secs(60), |_| {
        Ok(fetch(port))
    })?;
    for part in [Part::Ledger, Part::Table] {
        if let Some(problem) = report.verdict.first_problem(part) {
            return Err(broken(format!("{name}: {problem}")));
        }
    }
    if !report.verdict.ok() {
        return Err(broken(format!("{name} does not say that it is whole")));
    }
    Ok(report)
}

/// A machine of the test against its source: what was acknowledged before the instant of its point is there. With the point.
fn judge(lab: &mut Lab, index: usize, name: &str, run: &Value) -> Result<(PlanMachine, Value), LabError> {
    let report = report_of(lab, name)?;
    let id = lab.client.get(&format!("replicated-items/{name}"))?["testFailover"]["recoveryPoint"].clone();
    let point = points_of(lab, name)?
        .into_iter()
        .find(|point| point["id"] == id)
        .ok_or_else(|| broken(format!("the recovery point of {name} is not listed")))?;
    let instant = instant_of(&point["instant"])
        .and_then(|instant| i64::try_from(instant.as_nanosecond()).ok())
        .ok_or_else(|| broken(format!("the recovery point of {name} has no instant")))?;
    let acknowledged = lab.machines[index].source.entries_at(instant)?;
    // As with a single failover: the entry that was in flight at the instant may be missing, no other.
    if report.verdict.entries + 1 < acknowledged {
        return Err(broken(format!(
            "{name} holds {} entries, {acknowledged} were acknowledged before the instant of its point",
            report.verdict.entries
        )));
    }
    let steps = run["steps"].as_array().into_iter().flatten();
    let step = steps
        .clone()
        .find(|step| step["machine"]["name"] == name && step["phase"] == "Machines");
    let machine = PlanMachine {
        name: name.to_owned(),
        ledger_ok: report.verdict.ledger_ok,
        table_ok: report.verdict.table_ok,
        entries_at_point: report.verdict.entries,
        rto_seconds: step.and_then(|step| step["rtoSeconds"].as_f64()).unwrap_or(0.0),
        recovery_point: id.as_str().unwrap_or_default().to_owned(),
        message_at_point: report.message,
    };
    Ok((machine, point))
}

/// The messages in the copies tell whether their points are of one instant; and how the group's rounds went.
fn of_group(lab: &mut Lab, plan: &Plan, points: &[Value], sent: u64) -> Result<Group, LabError> {
    let shared = points[0]["groupPoint"].clone();
    let instant = points[0]["instant"].clone();
    let one = points
        .iter()
        .all(|point| point["groupPoint"] == shared && point["instant"] == instant);
    if !shared.is_string() || !one {
        return Err(broken(
            "its machines were not started from one shared point".to_owned(),
        ));
    }
    let found: Vec<u64> = plan
        .machines
        .iter()
        .filter_map(|machine| machine.message_at_point)
        .collect();
    if found.len() != plan.machines.len() || found.contains(&0) || !in_order(&found) {
        return Err(broken(format!("messages out of order: {found:?}")));
    }
    let group = lab.client.get(&format!("replication-groups/{NAME}"))?;
    let figures = Group {
        machines: plan.machines.iter().map(|machine| machine.name.clone()).collect(),
        shared_points: group["sharedPoints"].as_u64().unwrap_or(0),
        rounds: group["rounds"].as_u64().unwrap_or(0),
        freeze_window_ms_p50: group["freezeWindowMsP50"].as_f64().unwrap_or(0.0),
        freeze_window_ms_p99: group["freezeWindowMsP99"].as_f64().unwrap_or(0.0),
        tested_point: shared.as_str().unwrap_or_default().to_owned(),
        messages_sent: sent,
        messages_at_point: found,
        in_order: true,
    };
    lab.say(&format!(
        "one instant: messages {:?} of {sent} sent; frozen together for {:.1} ms (p50), {} of {} rounds shared a point",
        figures.messages_at_point, figures.freeze_window_ms_p50, figures.shared_points, figures.rounds
    ));
    Ok(figures)
}
