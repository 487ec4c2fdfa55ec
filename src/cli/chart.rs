//! `lifeboat machine chart`.
use super::failure::Failure;
use super::remote::{Remote, say, say_json};
use super::size;
use crate::vault::age;
use clap::Args;
use serde_json::Value;

#[derive(Args)]
#[command(after_help = "Examples:
  lifeboat machine chart web1
  lifeboat machine chart web1 --range 7d
  lifeboat machine chart web1 --range 1h --json | jq '.slots[] | [.start, .rpoSeconds]'")]
pub struct ChartArgs {
    /// Name or id
    name: String,
    /// Time up to now
    #[arg(long, value_name = "RANGE", default_value = "24h", value_parser = ["1h", "24h", "7d", "30d"])]
    range: String,
}

/// Fits a terminal of 80 columns beside the name of the row.
const COLUMNS: usize = 60;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// One column per so many slots, the highest of them; None where nothing is known.
fn columns(values: &[Option<f64>]) -> Vec<Option<f64>> {
    let width = values.len().div_ceil(COLUMNS).max(1);
    // From the newest backwards, so that the last column is whole.
    let mut columns: Vec<Option<f64>> = values
        .rchunks(width)
        .map(|slots| slots.iter().flatten().copied().reduce(f64::max))
        .collect();
    columns.reverse();
    columns
}

fn sparkline(columns: &[Option<f64>]) -> String {
    let most = columns.iter().flatten().copied().fold(0.0, f64::max);
    columns
        .iter()
        .map(|value| match value {
            None => ' ',
            Some(value) if most > 0.0 => {
                let place = (value / most * (BARS.len() - 1) as f64).round() as usize;
                BARS[place.min(BARS.len() - 1)]
            }
            Some(_) => BARS[0],
        })
        .collect()
}

fn row(name: &str, values: &[Option<f64>], most: &str, unit: impl Fn(f64) -> String) {
    let known: Vec<f64> = values.iter().flatten().copied().collect();
    if known.is_empty() {
        say(&format!("{name:10}  nothing is known"));
        return;
    }
    let highest = known.iter().copied().fold(0.0, f64::max);
    let mean = known.iter().sum::<f64>() / known.len() as f64;
    say(&format!("{name:10}  {}", sparkline(&columns(values))));
    say(&format!(
        "{:10}  {most} {}, mean {}",
        "",
        unit(highest),
        unit(mean)
    ));
}

pub fn run(remote: &Remote, args: &ChartArgs) -> Result<(), Failure> {
    let path = remote.item(&args.name, &format!("/series?range={}", args.range));
    let series: Value = remote.client()?.get(&path)?;
    if remote.json {
        say_json(&series);
        return Ok(());
    }
    let slots = series["slots"].as_array().cloned().unwrap_or_default();
    let of = |field: &str| -> Vec<Option<f64>> { slots.iter().map(|slot| slot[field].as_f64()).collect() };
    let seconds = series["slotSeconds"].as_i64().unwrap_or(0)
        * i64::try_from(slots.len().div_ceil(COLUMNS)).unwrap_or(0);
    say(&format!(
        "{}, the last {}; a column is {}, the newest on the right",
        args.name,
        args.range,
        whole_age(seconds)
    ));
    let duration = |seconds: f64| age((seconds * 1e9) as i64);
    let rate = |bytes: f64| format!("{}/s", size::bytes(bytes as u64));
    row("RPO", &of("rpoSeconds"), "highest", duration);
    row("throughput", &of("shippedBytesPerSecond"), "highest", rate);
    row("churn", &of("changedBytesPerSecond"), "highest", rate);
    row("freeze", &of("freezeMs"), "longest", |ms| format!("{ms:.1} ms"));
    Ok(())
}

/// Columns are whole minutes or hours: `12 h 0 min` says nothing more than `12 h`.
fn whole_age(seconds: i64) -> String {
    match seconds {
        seconds if seconds >= 3600 && seconds % 3600 == 0 => format!("{} h", seconds / 3600),
        seconds => format!("{} min", seconds / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_shows_peaks_and_gaps() {
        let mut values = vec![Some(1.0); 600];
        values[599] = Some(8.0);
        values[0..10].fill(None);
        let columns = columns(&values);
        assert_eq!(columns.len(), 60);
        assert_eq!(
            (columns[0], columns[1], columns[59]),
            (None, Some(1.0), Some(8.0))
        );
        let line = sparkline(&columns);
        assert!(line.starts_with(" ▂▂") && line.ends_with("▂█"), "{line:?}");
        assert_eq!(sparkline(&[Some(0.0), None, Some(0.0)]), "▁ ▁");
    }
}
