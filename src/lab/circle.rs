//! There and back: a planned failover that loses nothing, work at the target, and the way home that loses nothing. Of one
//! machine, or of all of them by a recovery plan ([`super::whole_plan`]), from the same parts.
use super::error::LabError;
use super::figures::{Circle, Spread};
use super::processes::Process;
use super::run::{Lab, agent_state, start_agent};
use super::tour::{fetch, follow, instant_of, job, points_of, told};
use super::verify::verify;
use super::workload::ENTRIES_PER_SECOND;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Of work at the target.
const ENTRIES_MIN: u64 = 30;
const POINTS_MIN: usize = 2;
const WORK_LIMIT: Duration = Duration::from_secs(300);
/// How recovery points of a machine at the target are noted.
const MADE_AT_TARGET: &str = "made at the target";

pub(super) fn walk(lab: &mut Lab, index: usize) -> Result<(), LabError> {
    // The machine at rest has no device that could come to rest.
    if lab.machines[index].source.live().is_none() {
        return Ok(());
    }
    let name = lab.machines[index].figures.name.clone();
    let mut circle = Circle::default();
    planned_failover(lab, index, &name, &mut circle)?;
    work_at_target(lab, &name, &mut circle)?;
    let accepted = lab
        .client
        .post(&format!("replicated-items/{name}/commit"), &json!({}))?;
    job(lab, &accepted)?;
    come_home(lab, index, &name, &mut circle)?;
    protect_again(lab, index, &name, &mut circle)?;
    lab.machines[index].figures.circle = Some(circle);
    Ok(())
}

pub(super) fn broken(name: &str, what: String) -> LabError {
    LabError::Program {
        program: format!("the machine {name}"),
        detail: what,
    }
}

fn planned_failover(lab: &mut Lab, index: usize, name: &str, circle: &mut Circle) -> Result<(), LabError> {
    lab.say(&format!("{name}: planned failover, from a source at rest"));
    let call = Instant::now();
    let accepted = lab
        .client
        .post(&format!("replicated-items/{name}/planned-failover"), &json!({}))?;
    went_away(lab, index, name, &accepted, call, circle)?;
    let line = told(name, &circle.planned_failover);
    lab.say(&line);
    Ok(())
}

/// Judges the machine that a planned failover started. `accepted`: names the job.
pub(super) fn went_away(
    lab: &mut Lab,
    index: usize,
    name: &str,
    accepted: &Value,
    call: Instant,
    circle: &mut Circle,
) -> Result<(), LabError> {
    let ended = job(lab, accepted)?;
    circle.stayed_at_rest = ended["result"]["stayedAtRest"] == true;
    // The source stands still: what it acknowledged by now is all that it ever will.
    let written = lab.machines[index].source.entries()?;
    circle.planned_failover = follow(lab, index, accepted, (call, written), false)?;
    if circle.planned_failover.entries_lost > 0 || !circle.stayed_at_rest {
        return Err(broken(name, "a planned failover lost entries".to_owned()));
    }
    Ok(())
}

/// Entries that the machine at the target has written by now, and whether it goes on.
fn ask(lab: &mut Lab, name: &str) -> Result<Option<u64>, LabError> {
    let status = lab
        .client
        .get(&format!("replicated-items/{name}/target-machine"))?;
    let port = status["forwards"][0]["hostPort"].as_u64();
    let report = port.and_then(|port| u16::try_from(port).ok()).and_then(fetch);
    Ok(report
        .filter(|report| report.working)
        .map(|report| report.entries_now))
}

fn points_at_target(lab: &Lab, name: &str) -> Result<Vec<Value>, LabError> {
    let mut points = points_of(lab, name)?;
    points.retain(|point| point["note"] == MADE_AT_TARGET);
    Ok(points)
}

pub(super) fn work_at_target(lab: &mut Lab, name: &str, circle: &mut Circle) -> Result<(), LabError> {
    let before = circle.planned_failover.entries_at_point;
    let begin = jiff::Timestamp::now();
    lab.wait("work and recovery points at the target", WORK_LIMIT, |lab| {
        let entries = ask(lab, name)?.unwrap_or(0);
        let points = points_at_target(lab, name)?;
        let fresh = points
            .iter()
            .filter(|point| instant_of(&point["instant"]).is_some_and(|instant| instant > begin))
            .count();
        Ok((entries >= before + ENTRIES_MIN && fresh >= POINTS_MIN).then_some(()))
    })?;
    lab.say(&format!(
        "{name}: works at the target, and points are made of it there"
    ));
    Ok(())
}

fn come_home(lab: &mut Lab, index: usize, name: &str, circle: &mut Circle) -> Result<(), LabError> {
    lie_down(lab, index)?;
    lab.say(&format!(
        "{name}: reprotect; {} at home receives what differs",
        lab.machines[index].source.disk().display()
    ));
    let call = Instant::now();
    let accepted = lab
        .client
        .post(&format!("replicated-items/{name}/reprotect"), &json!({}))?;
    let mut receiver = receive(lab, index, name)?;
    job(lab, &accepted)?;
    circle.reprotect_seconds = call.elapsed().as_secs_f64();
    count_points(lab, name, circle)?;
    lab.say(&format!("{name}: failback"));
    let call = Instant::now();
    let accepted = lab
        .client
        .post(&format!("replicated-items/{name}/failback"), &json!({}))?;
    job(lab, &accepted)?;
    circle.failback_seconds = call.elapsed().as_secs_f64();
    came_home(lab, index, name, &mut receiver, circle)
}

/// As when the machine is started from a rescue system: its agent and whatever used the disk are gone.
pub(super) fn lie_down(lab: &mut Lab, index: usize) -> Result<(), LabError> {
    let machine = &mut lab.machines[index];
    if let Some(mut agent) = machine.agent.take() {
        agent.stop();
        lab.agent_peak_rss_bytes = lab.agent_peak_rss_bytes.max(agent.peak_rss_bytes);
    }
    if let Some(source) = machine.source.live() {
        source.lay_down()?;
    }
    Ok(())
}

/// Starts the receiver of a machine that is to come home.
pub(super) fn receive(lab: &Lab, index: usize, name: &str) -> Result<Process, LabError> {
    let device = lab.machines[index].source.disk().to_string_lossy().into_owned();
    let log = lab
        .settings
        .folder
        .join("agents")
        .join(format!("{name}-receive.log"));
    let state = agent_state(lab, name);
    let (receiver, _) = Process::spawn(
        &lab.settings.program,
        &[
            "agent",
            "receive",
            "--json",
            "--yes",
            "--state-dir",
            &state,
            "--machine",
            name,
            "--disk",
            &device,
        ],
        log,
    )?;
    Ok(receiver)
}

/// What was made of the machine at the target by now.
pub(super) fn count_points(lab: &Lab, name: &str, circle: &mut Circle) -> Result<(), LabError> {
    let points = points_at_target(lab, name)?;
    circle.points_at_target = points.len();
    circle.hold_ms = Spread::of(
        points
            .iter()
            .filter_map(|point| point["freezeMs"].as_f64())
            .collect(),
    );
    Ok(())
}

/// Behind a failback: judges the disk at home against what the machine said at its end, and switches it on.
pub(super) fn came_home(
    lab: &mut Lab,
    index: usize,
    name: &str,
    receiver: &mut Process,
    circle: &mut Circle,
) -> Result<(), LabError> {
    let code = lab.wait("the end of the receiver", Duration::from_secs(60), |_| {
        Ok(receiver.ended())
    })?;
    if code != 0 {
        return Err(broken(
            name,
            format!("the receiver ended with {code}: {}", receiver.last_words()),
        ));
    }
    let console = lab.client.text(&format!(
        "replicated-items/{name}/target-machine/serial-log?test=false"
    ))?;
    let acknowledged: u64 = console
        .lines()
        .filter_map(|line| line.trim().strip_prefix("ENDED entries="))
        .next_back()
        .and_then(|count| count.parse().ok())
        .ok_or_else(|| broken(name, "it did not say how many entries it wrote".to_owned()))?;
    let Some(source) = lab.machines[index].source.live() else {
        return Ok(());
    };
    source.get_up()?;
    let verdict = verify(&source.data_folder());
    (circle.ledger_ok, circle.table_ok) = (verdict.ledger_ok, verdict.table_ok);
    circle.entries_at_target = acknowledged.saturating_sub(circle.planned_failover.entries_at_point);
    circle.failback_entries_lost = acknowledged.saturating_sub(verdict.entries);
    if !verdict.ok() || circle.failback_entries_lost > 0 {
        return Err(broken(
            name,
            format!(
                "at home it holds {} entries of {acknowledged}: {}",
                verdict.entries,
                verdict
                    .first_problem(super::verify::Part::Ledger)
                    .unwrap_or_default()
            ),
        ));
    }
    lab.say(&format!(
        "{name}: home after {:.1} s with {} entries, {} lost",
        circle.failback_seconds, verdict.entries, circle.failback_entries_lost
    ));
    Ok(())
}

fn protect_again(lab: &mut Lab, index: usize, name: &str, circle: &mut Circle) -> Result<(), LabError> {
    work_again(lab, index)?;
    let accepted = lab
        .client
        .post(&format!("replicated-items/{name}/commit"), &json!({}))?;
    job(lab, &accepted)?;
    lab.machines[index].agent = Some(start_agent(lab, name)?);
    let call = Instant::now();
    let accepted = lab
        .client
        .post(&format!("replicated-items/{name}/reprotect"), &json!({}))?;
    job(lab, &accepted)?;
    circle.protected_again_seconds = call.elapsed().as_secs_f64();
    lab.say(&format!(
        "{name}: protected again after {:.1} s",
        circle.protected_again_seconds
    ));
    Ok(())
}

pub(super) fn work_again(lab: &mut Lab, index: usize) -> Result<(), LabError> {
    let program = lab.settings.program.clone();
    match lab.machines[index].source.live() {
        Some(source) => source.start_workload(&program, ENTRIES_PER_SECOND),
        None => Ok(()),
    }
}
