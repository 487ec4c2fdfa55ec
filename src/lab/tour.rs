//! The tour: the lifecycle of the machines, unattended, with every ledger judged and every step measured.
//!
//! Points accumulate under load; each machine has a test failover, while its replication goes on; a recovery plan tests all of
//! them at one instant; the last one goes to the target and comes home; the first one is then lost as in a disaster (workload
//! and agent killed at once) and failed over for real.
use super::error::LabError;
use super::figures::{Failover, Spread};
use super::guest::{Report as GuestReport, parse_console};
use super::run::Lab;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const JOB_LIMIT: Duration = Duration::from_secs(300);
const BOOT_LIMIT: Duration = Duration::from_secs(300);
/// Points that every machine must have before its first test.
const POINTS_MIN: usize = 3;
const RPO_SAMPLE: Duration = Duration::from_millis(250);

pub(super) fn walk(lab: &mut Lab) -> Result<(), LabError> {
    under_load(lab)?;
    for index in 0..lab.machines.len() {
        test_failover(lab, index)?;
    }
    super::together::walk(lab)?;
    let last = lab.machines.len() - 1;
    super::circle::walk(lab, last)?;
    unplanned_failover(lab, 0)?;
    for index in 0..lab.machines.len() {
        let name = lab.machines[index].figures.name.clone();
        let points = points_of(lab, &name)?;
        let figures = &mut lab.machines[index].figures;
        // After a commit only the point that was failed over to is left: what was counted before stands.
        figures.recovery_points = figures.recovery_points.max(points.len());
    }
    lab.say("every ledger and table was whole");
    Ok(())
}

/// All machines by the plan.
pub(super) fn walk_plan(lab: &mut Lab) -> Result<(), LabError> {
    super::together::walk(lab)?;
    super::whole_plan::walk(lab)?;
    lab.say("every ledger and table was whole");
    Ok(())
}

pub(super) fn points_of(lab: &Lab, name: &str) -> Result<Vec<Value>, LabError> {
    lab.client
        .list(&format!("replicated-items/{name}/recovery-points"))
}

/// Bytes that the kernel counted as written to a block device (Documentation/block/stat: seventh field, 512-byte sectors).
/// An image file has no such count: there it is what the agent found changed.
fn written_bytes(lab: &Lab, index: usize, item: &Value) -> u64 {
    let device = lab.machines[index].source.disk();
    let name = device.file_name().unwrap_or_default().to_string_lossy();
    match std::fs::read_to_string(format!("/sys/block/{name}/stat")) {
        Ok(stat) => {
            let sectors = stat.split_whitespace().nth(6);
            sectors.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) * 512
        }
        Err(_) => item["disks"][0]["changedBytes"].as_u64().unwrap_or(0),
    }
}

pub(super) fn instant_of(value: &Value) -> Option<jiff::Timestamp> {
    value.as_str()?.parse().ok()
}

fn shipped_bytes(item: &Value) -> u64 {
    item["disks"][0]["shippedBytes"].as_u64().unwrap_or(0)
}

/// Lets points accumulate, and measures what the load costs.
fn under_load(lab: &mut Lab) -> Result<(), LabError> {
    let count = lab.machines.len();
    let names: Vec<String> = lab
        .machines
        .iter()
        .map(|machine| machine.figures.name.clone())
        .collect();
    lab.say(&format!(
        "points accumulate under load for {} s",
        lab.settings.load.as_secs()
    ));
    let mut before = Vec::new();
    for (index, name) in names.iter().enumerate() {
        // What the initial replication shipped is told with a heartbeat: counted from one behind the second point.
        lab.wait(
            "a heartbeat behind the second point",
            Duration::from_secs(120),
            |lab| {
                let points = points_of(lab, name)?;
                let newest = points
                    .iter()
                    .filter_map(|point| instant_of(&point["instant"]))
                    .max();
                let beat = instant_of(&lab.client.get(&format!("machines/{name}"))?["lastHeartbeatAt"]);
                Ok((points.len() >= 2 && beat > newest).then_some(()))
            },
        )?;
        let item = lab.client.get(&format!("replicated-items/{name}"))?;
        before.push((written_bytes(lab, index, &item), shipped_bytes(&item)));
    }
    let end = Instant::now() + lab.settings.load;
    let mut rpo: Vec<Vec<f64>> = vec![Vec::new(); count];
    let mut next = Instant::now();
    lab.wait(
        "enough recovery points",
        lab.settings.load * 4 + Duration::from_secs(120),
        |lab| {
            if Instant::now() < next {
                return Ok(None);
            }
            next = Instant::now() + RPO_SAMPLE;
            let mut enough = true;
            for (index, name) in names.iter().enumerate() {
                let item = lab.client.get(&format!("replicated-items/{name}"))?;
                rpo[index].extend(item["rpoSeconds"].as_f64());
                enough &= points_of(lab, name)?.len() >= POINTS_MIN;
            }
            Ok((Instant::now() >= end && enough).then_some(()))
        },
    )?;
    for (index, name) in names.iter().enumerate() {
        // What is written by now is shipped with the point after next at the latest; counted once that is there.
        let item = lab.client.get(&format!("replicated-items/{name}"))?;
        let written = written_bytes(lab, index, &item).saturating_sub(before[index].0);
        let points = points_of(lab, name)?.len();
        lab.wait("the next recovery point", Duration::from_secs(120), |lab| {
            Ok((points_of(lab, name)?.len() > points).then_some(()))
        })?;
        let item = lab.client.get(&format!("replicated-items/{name}"))?;
        let shipped = shipped_bytes(&item).saturating_sub(before[index].1);
        let points = points_of(lab, name)?;
        let freezes = points
            .iter()
            .filter_map(|point| point["freezeMs"].as_f64())
            .collect();
        let figures = &mut lab.machines[index].figures;
        item["disks"][0]["capture"]
            .as_str()
            .unwrap_or_default()
            .clone_into(&mut figures.capture);
        figures.bytes_shipped_per_byte_changed = shipped as f64 / written.max(1) as f64;
        figures.recovery_points = points.len();
        figures.freeze_ms = Spread::of(freezes);
        figures.rpo_seconds = Spread::of(std::mem::take(&mut rpo[index]));
        let line = format!(
            "{name}: {} points, RPO p99 {:.1} s, freeze p99 {:.1} ms, {:.2} bytes shipped per byte written",
            figures.recovery_points,
            figures.rpo_seconds.p99,
            figures.freeze_ms.p99,
            figures.bytes_shipped_per_byte_changed
        );
        lab.say(&line);
    }
    Ok(())
}

pub(super) fn test_failover(lab: &mut Lab, index: usize) -> Result<(), LabError> {
    let name = lab.machines[index].figures.name.clone();
    lab.say(&format!("{name}: test failover"));
    let points = points_of(lab, &name)?.len();
    let written = lab.machines[index].source.entries()?;
    let call = Instant::now();
    let accepted = lab.client.post(
        &format!("replicated-items/{name}/test-failover"),
        &json!({ "recoveryPoint": "Latest" }),
    )?;
    let failover = follow(lab, index, &accepted, (call, written), true)?;
    let line = told(&name, &failover);
    lab.say(&line);
    lab.machines[index].figures.test_failover = Some(failover);
    // Replication goes on beside the test.
    lab.wait(
        "a recovery point during the test",
        Duration::from_secs(120),
        |lab| Ok((points_of(lab, &name)?.len() > points).then_some(())),
    )?;
    let accepted = lab.client.post(
        &format!("replicated-items/{name}/test-failover-cleanup"),
        &json!({ "notes": "the lab's tour: ledger and table verified by the guest" }),
    )?;
    job(lab, &accepted)?;
    lab.say(&format!("{name}: cleaned up"));
    Ok(())
}

/// The disaster, and the way out.
fn unplanned_failover(lab: &mut Lab, index: usize) -> Result<(), LabError> {
    let name = lab.machines[index].figures.name.clone();
    let machine = &mut lab.machines[index];
    if let Some(mut agent) = machine.agent.take() {
        agent.kill();
        lab.agent_peak_rss_bytes = lab.agent_peak_rss_bytes.max(agent.peak_rss_bytes);
    }
    machine.source.lose();
    lab.say(&format!(
        "{name}: lost (workload and agent killed); unplanned failover to the latest point"
    ));
    let written = lab.machines[index].source.entries()?;
    let call = Instant::now();
    let accepted = lab.client.post(
        &format!("replicated-items/{name}/unplanned-failover"),
        &json!({ "recoveryPoint": "Latest", "lastSync": false }),
    )?;
    let failover = follow(lab, index, &accepted, (call, written), false)?;
    let line = told(&name, &failover);
    lab.say(&line);
    lab.machines[index].figures.unplanned_failover = Some(failover);
    let accepted = lab
        .client
        .post(&format!("replicated-items/{name}/commit"), &json!({}))?;
    job(lab, &accepted)?;
    lab.say(&format!("{name}: committed"));
    Ok(())
}

pub(super) fn told(name: &str, failover: &Failover) -> String {
    let ms = |value: Option<f64>| value.map_or_else(|| "?".to_owned(), |value| format!("{value:.0}"));
    format!(
        "{name}: first read after {} ms, kernel after {} ms, ledger verified after {} ms: {} entries, {} lost",
        ms(failover.first_read_ms),
        ms(failover.kernel_start_ms),
        ms(failover.verified_ms),
        failover.entries_at_point,
        failover.entries_lost
    )
}

/// Waits for the end of an accepted job; the job.
pub(super) fn job(lab: &mut Lab, accepted: &Value) -> Result<Value, LabError> {
    let id = accepted["job"]["id"].as_str().unwrap_or_default().to_owned();
    let ended = lab.wait("the job", JOB_LIMIT, |lab| {
        let job = lab.client.get(&format!("jobs/{id}"))?;
        let over = ["Succeeded", "Failed", "Cancelled"].contains(&job["state"].as_str().unwrap_or_default());
        Ok(over.then_some(job))
    })?;
    if ended["state"] == "Succeeded" {
        return Ok(ended);
    }
    Err(LabError::Server {
        call: format!("job {id}"),
        detail: format!("{}: {}", ended["state"], ended["error"]["message"]),
    })
}

/// From an accepted failover to the guest's verdict. `call`: when it was asked for, and how many entries the source had then.
pub(super) fn follow(
    lab: &mut Lab,
    index: usize,
    accepted: &Value,
    (call, written): (Instant, u64),
    test: bool,
) -> Result<Failover, LabError> {
    let name = lab.machines[index].figures.name.clone();
    let ended = job(lab, accepted)?;
    let log = format!("replicated-items/{name}/target-machine/serial-log?test={test}");
    let mut failover = Failover {
        recovery_point: ended["result"]["pointId"].as_str().unwrap_or_default().to_owned(),
        ..Failover::default()
    };
    let verdict = lab.wait("the guest's verdict", BOOT_LIMIT, |lab| {
        let console = lab.client.text(&log)?;
        if console.contains("Linux version") {
            failover
                .kernel_start_ms
                .get_or_insert(call.elapsed().as_secs_f64() * 1000.0);
        }
        Ok(parse_console(&console))
    })?;
    failover.verified_ms = Some(call.elapsed().as_secs_f64() * 1000.0);
    let id = accepted["job"]["id"].as_str().unwrap_or_default();
    failover.first_read_ms = lab.client.get(&format!("jobs/{id}"))?["result"]["firstReadMs"].as_f64();
    let broken = |what: String| LabError::Program {
        program: format!("the replica of {name}"),
        detail: what,
    };
    let (last, _) = verdict.ledger.map_err(&broken)?;
    verdict.table.map_err(&broken)?;
    (failover.ledger_ok, failover.table_ok) = (true, true);
    failover.entries_at_point = last;
    let source = &lab.machines[index].source;
    let point = points_of(lab, &name)?
        .into_iter()
        .find(|point| point["id"] == failover.recovery_point.as_str());
    let instant = point
        .as_ref()
        .and_then(|point| instant_of(&point["instant"]))
        .and_then(|instant| i64::try_from(instant.as_nanosecond()).ok())
        .ok_or_else(|| broken("its recovery point is not listed".to_owned()))?;
    // Stamps are taken before the flush: the entry that was in flight at the instant may be missing, no other.
    let acknowledged = source.entries_at(instant)?;
    if last + 1 < acknowledged {
        return Err(broken(format!(
            "it holds {last} entries, {acknowledged} were acknowledged before the instant of its point"
        )));
    }
    failover.entries_lost = written.saturating_sub(last);
    failover.http_ok = ask_guest(lab, &name, test)?;
    Ok(failover)
}

/// The same verdict over HTTP, through the port that leads into the machine.
fn ask_guest(lab: &mut Lab, name: &str, test: bool) -> Result<bool, LabError> {
    let status = lab
        .client
        .get(&format!("replicated-items/{name}/target-machine?test={test}"))?;
    let Some(port) = status["forwards"][0]["hostPort"]
        .as_u64()
        .and_then(|port| u16::try_from(port).ok())
    else {
        return Ok(false);
    };
    let report = lab.wait("the guest's HTTP report", Duration::from_secs(60), |_| {
        Ok(fetch(port))
    })?;
    Ok(report.verdict.ledger_ok && report.verdict.table_ok)
}

pub(super) fn fetch(port: u16) -> Option<GuestReport> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")
        .ok()?;
    let mut answer = String::new();
    stream.take(1 << 20).read_to_string(&mut answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    serde_json::from_str(body).ok()
}
