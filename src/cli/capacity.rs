//! `lifeboat capacity`.
use super::failure::Failure;
use super::remote::{Remote, facts, hint, say, say_json, table, text, usage};
use super::size::{self, Size};
use crate::vault::age;
use clap::Args;
use serde_json::Value;
use std::time::Duration;

#[derive(Args)]
#[command(after_help = "Examples:
  lifeboat capacity                         what the last week asks of link and store
  lifeboat capacity --rpo 1min              bandwidth needed for this RPO
  lifeboat capacity --bandwidth 10M         RPO that 10 MiB per second keep
  lifeboat capacity --retention 72h         disk space needed to keep points for 72 hours
  lifeboat capacity --growth 50             all of it, if half as much more were written")]
pub struct CapacityArgs {
    #[command(flatten)]
    remote: Remote,
    /// RPO to keep [default: the lowest threshold among the policies in use]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    rpo: Option<Duration>,
    /// What if the link carried this many bytes per second: 500K, 10M, 1G
    #[arg(long, value_name = "SIZE")]
    bandwidth: Option<Size>,
    /// What if points were kept this long: 24h, 7days
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    retention: Option<Duration>,
    /// What if this much more (or less) were stored and changed
    #[arg(long, value_name = "PERCENT", allow_negative_numbers = true)]
    growth: Option<i32>,
}

impl CapacityArgs {
    fn path(&self) -> Result<String, Failure> {
        let mut query = Vec::new();
        if let Some(rpo) = self.rpo {
            query.push(format!("rpoSeconds={}", rpo.as_secs()));
        }
        if let Some(bandwidth) = self.bandwidth {
            query.push(format!("bandwidthBytesPerSecond={}", bandwidth.0));
        }
        if let Some(retention) = self.retention {
            let seconds = retention.as_secs();
            if seconds == 0 || !seconds.is_multiple_of(3600) {
                return Err(usage(
                    "--retention is in whole hours",
                    "for example --retention 72h",
                ));
            }
            query.push(format!("retentionHours={}", seconds / 3600));
        }
        if let Some(growth) = self.growth {
            query.push(format!("growthPercent={growth}"));
        }
        Ok(self.remote.path(&format!("/capacity?{}", query.join("&"))))
    }
}

fn rate(value: &Value, field: &str) -> String {
    value[field]
        .as_u64()
        .map(|bytes| format!("{}/s", size::bytes(bytes)))
        .unwrap_or_default()
}

fn bytes(value: &Value, field: &str) -> String {
    value[field].as_u64().map(size::bytes).unwrap_or_default()
}

fn seconds(value: &Value, field: &str) -> Option<String> {
    let seconds = i64::try_from(value[field].as_u64()?).ok()?;
    Some(age(seconds.saturating_mul(1_000_000_000)))
}

pub fn run(args: &CapacityArgs) -> Result<(), Failure> {
    let plan: Value = args.remote.client()?.get(&args.path()?)?;
    if args.remote.json {
        say_json(&plan);
        return Ok(());
    }
    let bandwidth = &plan["bandwidth"];
    let rpo = seconds(bandwidth, "rpoSeconds").unwrap_or_default();
    say("Bandwidth");
    facts(&[
        ("  history", seconds(&plan, "historySeconds").unwrap_or_default()),
        ("  mean", rate(&plan, "meanBytesPerSecond")),
        ("  peak (5 min)", rate(&plan, "peakBytesPerSecond")),
        (
            "  needed",
            format!(
                "{} for an RPO of {rpo} in 90 % of the time, {} all the time",
                rate(bandwidth, "for90Percent"),
                rate(bandwidth, "for100Percent")
            ),
        ),
    ]);
    what_if(&plan["whatIfBandwidth"], &rpo);
    store(&plan);
    schedule(&plan);
    let machines = plan["machines"].as_array().cloned().unwrap_or_default();
    if !machines.is_empty() {
        say("");
        let rows = machines
            .iter()
            .map(|machine| {
                vec![
                    text(&machine["machine"], "name"),
                    bytes(machine, "changedBytesPerDay"),
                    rate(machine, "meanBytesPerSecond"),
                    rate(machine, "peakBytesPerSecond"),
                ]
            })
            .collect();
        table(&["MACHINE", "CHANGES PER DAY", "MEAN ON THE WIRE", "PEAK"], rows);
    }
    for note in plan["notes"].as_array().into_iter().flatten() {
        hint(&format!("note: {}", note.as_str().unwrap_or_default()));
    }
    Ok(())
}

fn what_if(plan: &Value, rpo: &str) {
    if plan.is_null() {
        return;
    }
    let kept =
        |field| seconds(plan, field).unwrap_or_else(|| "no RPO: the backlog grows without end".to_owned());
    let verdict = if plan["keepsRpo"] == true {
        format!("keeps the RPO of {rpo}")
    } else {
        format!("does not keep the RPO of {rpo}")
    };
    facts(&[(
        "  what if",
        format!(
            "{} {verdict}: {} in 90 % of the time, {} at worst",
            rate(plan, "bytesPerSecond"),
            kept("rpoSeconds90Percent"),
            kept("rpoSeconds100Percent")
        ),
    )]);
}

fn store(plan: &Value) {
    let (store, retention) = (&plan["store"], &plan["retention"]);
    let kept = match retention["hours"].as_u64() {
        Some(hours) => format!("to keep points for {hours} h"),
        None => "to keep points as the policies say".to_owned(),
    };
    let growth = match store["growthBytesPerDay"].as_i64() {
        Some(growth) => format!(
            "{}{} per day",
            if growth < 0 { "-" } else { "" },
            size::bytes(growth.unsigned_abs())
        ),
        None => "not known yet (6 hours are needed)".to_owned(),
    };
    let full = seconds(store, "fullInSeconds")
        .map_or_else(|| "not foreseen".to_owned(), |time| format!("in {time}"));
    say("\nStore");
    facts(&[
        (
            "  room",
            format!(
                "{} of {} free, {} stored",
                bytes(store, "freeBytes"),
                bytes(store, "capacityBytes"),
                bytes(store, "storedBytes")
            ),
        ),
        (
            "  needed",
            format!(
                "{} {kept}{}; {}",
                bytes(retention, "neededBytes"),
                if retention["measured"] == true {
                    ""
                } else {
                    " (the mean carried on: less history than that)"
                },
                if retention["fits"] == true {
                    "it fits"
                } else {
                    "it does not fit"
                }
            ),
        ),
        ("  growth", growth),
        ("  full", full),
    ]);
}

fn schedule(plan: &Value) {
    let Some(windows) = plan["throttleSchedule"].as_array() else {
        return;
    };
    say(&format!(
        "\nLowest limits that keep the RPO ({})",
        text(plan, "timeZone")
    ));
    let hour = |window: &Value, field: &str| format!("{:02}:00", window[field].as_u64().unwrap_or(0));
    let rows = windows
        .iter()
        .map(|window| {
            vec![
                format!("{} - {}", hour(window, "fromHour"), hour(window, "toHour")),
                rate(window, "bytesPerSecond"),
            ]
        })
        .collect();
    table(&["  HOURS", "LIMIT"], rows);
}
