//! `lifeboat recovery-point`.
use super::failure::Failure;
use super::remote::{Remote, ago, hint, instant, say_json, size, table, text};
use clap::{Args, Subcommand};
use serde_json::json;

#[derive(Args)]
#[command(after_help = "Examples:
  lifeboat recovery-point list web1
  lifeboat recovery-point list web1 --limit 5 --json")]
pub struct PointArgs {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Recovery points of a machine, the newest first
    #[command(visible_alias = "ls")]
    List {
        /// Machine, by name or id
        name: String,
        /// Most points to list
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
}

pub fn run(args: &PointArgs) -> Result<(), Failure> {
    let remote = &args.remote;
    let Verb::List { name, limit } = &args.verb;
    let points = remote
        .client()?
        .list(&remote.item(name, "/recovery-points"), *limit)?;
    if remote.json {
        say_json(&json!({ "items": points }));
        return Ok(());
    }
    if points.is_empty() {
        hint(&format!(
            "{name} has no recovery point yet: its initial replication is not complete. See: lifeboat machine show {name}"
        ));
        return Ok(());
    }
    table(
        &["ID", "INSTANT", "AGE", "CONSISTENCY", "FROZEN", "STORED", "NOTE"],
        points
            .iter()
            .map(|point| {
                vec![
                    text(point, "id"),
                    instant(point, "instant"),
                    ago(point, "instant"),
                    text(point, "consistency"),
                    format!("{:.1} ms", point["freezeMs"].as_f64().unwrap_or(0.0)),
                    size(point, "storedBytes"),
                    text(point, "note"),
                ]
            })
            .collect(),
    );
    Ok(())
}
