//! `lifeboat recovery-point`.
use super::failure::Failure;
use super::remote::{Remote, ago, hint, instant, say_json, size, table, text};
use super::watch::{Waiting, finish};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

#[derive(Args)]
#[command(after_help = "Examples:
  lifeboat recovery-point list web1
  lifeboat recovery-point list web1 --limit 5 --json
  lifeboat recovery-point create web1 --app-consistent")]
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
    /// Make a recovery point at once
    Create {
        /// Machine, by name or id
        name: String,
        /// Bring applications to rest first, by the hooks on the machine; where that fails the point is crash-consistent and
        /// this command fails
        #[arg(long)]
        app_consistent: bool,
        #[command(flatten)]
        waiting: Waiting,
    },
}

pub fn run(args: &PointArgs) -> Result<(), Failure> {
    let remote = &args.remote;
    let mut client = remote.client()?;
    let (name, limit) = match &args.verb {
        Verb::List { name, limit } => (name, limit),
        Verb::Create {
            name,
            app_consistent,
            waiting,
        } => {
            let body = json!({ "appConsistent": app_consistent });
            let accepted: Value = client.post(&remote.item(name, "/recovery-points"), &body)?;
            finish(&mut client, remote, &accepted, waiting)?;
            return Ok(());
        }
    };
    let points = client.list(&remote.item(name, "/recovery-points"), *limit)?;
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
                    match &point["groupPoint"] {
                        Value::Null => text(point, "consistency"),
                        _ => format!("{}, shared", text(point, "consistency")),
                    },
                    format!("{:.1} ms", point["freezeMs"].as_f64().unwrap_or(0.0)),
                    size(point, "storedBytes"),
                    text(point, "note"),
                ]
            })
            .collect(),
    );
    Ok(())
}
