//! `lifeboat event`.
use super::failure::Failure;
use super::remote::{Remote, Watching, instant, say_json, segment, table, text};
use clap::{Args, Subcommand};
use serde_json::json;

#[derive(Args)]
#[command(after_help = "Examples:
  lifeboat event list
  lifeboat event list --machine web1 --limit 20")]
pub struct EventArgs {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// What happened, the newest first
    #[command(visible_alias = "ls")]
    List {
        /// Only of this machine, by name or id
        #[arg(long)]
        machine: Option<String>,
        /// Information, Warning, Critical
        #[arg(long)]
        severity: Option<String>,
        /// Only of this code, e.g. RpoExceeded
        #[arg(long)]
        code: Option<String>,
        /// At or after this instant, e.g. 2026-11-01T00:00:00Z
        #[arg(long)]
        since: Option<String>,
        /// Most events to list
        #[arg(long, default_value_t = 50)]
        limit: usize,
        #[command(flatten)]
        watching: Watching,
    },
    /// Who changed what from where, the newest first
    Audit {
        /// Most lines to list
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
}

pub fn run(args: &EventArgs) -> Result<(), Failure> {
    let remote = &args.remote;
    let mut client = remote.client()?;
    match &args.verb {
        Verb::List {
            machine,
            severity,
            code,
            since,
            limit,
            watching,
        } => watching.show(|| {
            let filters = [
                ("machine", machine),
                ("severity", severity),
                ("code", code),
                ("since", since),
            ];
            let filters: Vec<String> = filters
                .into_iter()
                .filter_map(|(name, value)| Some(format!("{name}={}", segment(value.as_deref()?))))
                .collect();
            let path = match filters.as_slice() {
                [] => remote.path("/events"),
                filters => remote.path(&format!("/events?{}", filters.join("&"))),
            };
            let events = client.list(&path, *limit)?;
            if remote.json {
                say_json(&json!({ "items": events }));
                return Ok(());
            }
            table(
                &["TIME", "SEVERITY", "CODE", "MACHINE", "MESSAGE"],
                events
                    .iter()
                    .map(|event| {
                        vec![
                            instant(event, "at"),
                            text(event, "severity"),
                            text(event, "code"),
                            text(&event["machine"], "name"),
                            text(event, "message"),
                        ]
                    })
                    .collect(),
            );
            Ok(())
        })?,
        Verb::Audit { limit } => {
            let lines = client.list(&remote.path("/audit"), *limit)?;
            if remote.json {
                say_json(&json!({ "items": lines }));
                return Ok(());
            }
            table(
                &["TIME", "USER", "FROM", "ACTION", "OBJECT", "OUTCOME"],
                lines
                    .iter()
                    .map(|line| {
                        vec![
                            instant(line, "at"),
                            text(line, "user"),
                            text(line, "origin"),
                            text(line, "action"),
                            text(line, "object"),
                            text(line, "outcome"),
                        ]
                    })
                    .collect(),
            );
        }
    }
    Ok(())
}
