//! `lifeboat alert maintenance`.
use super::failure::Failure;
use super::remote::{Remote, hint, instant, say, say_json, segment, table, text};
use crate::api::Time;
use crate::api::client::Client;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::time::Duration;

#[derive(Args)]
#[command(after_help = "Examples:
  lifeboat alert maintenance --machine web1 --for 2h --note 'new disks'
  lifeboat alert maintenance --for 30min                  nobody is told of anything in the vault
  lifeboat alert maintenance list
  lifeboat alert maintenance end 3")]
pub struct MaintenanceArgs {
    /// Machine, by name or id [default: all of the vault]
    #[arg(long)]
    machine: Option<String>,
    /// How long from now on
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    lasting: Option<Duration>,
    /// Why; shown with it
    #[arg(long, default_value = "")]
    note: String,
    #[command(subcommand)]
    verb: Option<WindowVerb>,
}

#[derive(Subcommand)]
enum WindowVerb {
    /// Windows that are planned, on or over
    List,
    /// End a window now
    End { id: i64 },
}

pub fn run(remote: &Remote, client: &mut Client, args: &MaintenanceArgs) -> Result<(), Failure> {
    let path = remote.path("/maintenance-windows");
    match &args.verb {
        Some(WindowVerb::List) => list(remote, client, &path),
        Some(WindowVerb::End { id }) => {
            let path = format!("{path}/{}", segment(&id.to_string()));
            client.request(hyper::Method::DELETE, &path, None, &[])?;
            super::machine::done(remote, "the window is over; what is still wrong is told now");
            Ok(())
        }
        None => {
            let Some(lasting) = args.lasting else {
                return Err(super::remote::usage(
                    "a window has an end: --for is needed",
                    "for example: lifeboat alert maintenance --machine web1 --for 2h",
                ));
            };
            let nanos = i64::try_from(lasting.as_nanos()).unwrap_or(i64::MAX);
            let ends = crate::rt::now_unix_nanos().saturating_add(nanos);
            let request = json!({ "machine": args.machine, "endsAt": Time(ends), "note": args.note });
            let made: Value = client.post(&path, &request)?;
            if remote.json {
                say_json(&made);
                return Ok(());
            }
            let whose = match made["machine"]["name"].as_str() {
                Some(name) => name.to_owned(),
                None => "anything in the vault".to_owned(),
            };
            say(&format!(
                "until {} nobody is told of {whose}; events are kept and marked",
                instant(&made, "endsAt")
            ));
            hint(&format!(
                "to end it before: lifeboat alert maintenance end {}",
                text(&made, "id")
            ));
            Ok(())
        }
    }
}

fn list(remote: &Remote, client: &mut Client, path: &str) -> Result<(), Failure> {
    let windows = client.list(path, usize::MAX)?;
    if remote.json {
        say_json(&json!({ "items": windows }));
        return Ok(());
    }
    if windows.is_empty() {
        hint("There is no maintenance window. Plan one: lifeboat alert maintenance --for 2h");
        return Ok(());
    }
    let rows = windows.iter().map(|window| {
        let name = text(&window["machine"], "name");
        vec![
            text(window, "id"),
            text(window, "state"),
            if name.is_empty() { "(all)".to_owned() } else { name },
            instant(window, "beginsAt"),
            instant(window, "endsAt"),
            text(window, "madeBy"),
            text(window, "note"),
        ]
    });
    table(
        &["ID", "STATE", "MACHINE", "FROM", "UNTIL", "BY", "NOTE"],
        rows.collect(),
    );
    Ok(())
}
