//! `lifeboat job`.
use super::failure::Failure;
use super::remote::{Remote, Watching, ago, facts, hint, instant, say, say_json, segment, table, text};
use super::watch::{self, Waiting, title};
use crate::api::client::Client;
use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};
use std::io::Write;

#[derive(Args)]
#[command(after_help = "Examples:
  lifeboat job list --machine web1
  lifeboat job watch 0192f0c1-...
  lifeboat job cancel 0192f0c1-...
  lifeboat job resume 0192f0c1-... --comment 'the switch is set'")]
pub struct JobArgs {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Jobs, the newest first
    #[command(visible_alias = "ls")]
    List {
        /// Only of this machine, by name or id
        #[arg(long)]
        machine: Option<String>,
        /// Only in this state: NotStarted, InProgress, Succeeded, Failed, Cancelled, Suspended
        #[arg(long)]
        state: Option<String>,
        /// Only of this kind, e.g. TestFailover
        #[arg(long)]
        kind: Option<String>,
        /// Most jobs to list
        #[arg(long, default_value_t = 50)]
        limit: usize,
        #[command(flatten)]
        watching: Watching,
    },
    /// One job with its tasks
    Show { id: String },
    /// Wait until a job is over; Ctrl-C leaves it alone
    Watch {
        id: String,
        /// Wait no longer than this many seconds; the job goes on
        #[arg(long, value_name = "SECONDS")]
        timeout: Option<u64>,
    },
    /// Ask a job to stop and undo what it did
    Cancel { id: String },
    /// Give the order of a job that failed or was cancelled once more
    Restart {
        id: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Take a job up again that waits for a person
    Resume {
        id: String,
        /// What was done or seen; kept with the job
        #[arg(long, default_value = "", alias = "comments")]
        comment: String,
    },
    /// Write all jobs to standard output or a file
    Export {
        /// json or csv
        #[arg(long, default_value = "json", value_parser = ["json", "csv"])]
        format: String,
        /// Only of this machine, by name or id
        #[arg(long)]
        machine: Option<String>,
        /// Only in this state
        #[arg(long)]
        state: Option<String>,
        /// Only of this kind
        #[arg(long)]
        kind: Option<String>,
        /// Created at or after this instant, e.g. 2026-11-01T00:00:00Z
        #[arg(long)]
        since: Option<String>,
        /// Created before this instant
        #[arg(long)]
        until: Option<String>,
        /// File to write [default: standard output]
        #[arg(long, value_name = "FILE")]
        out: Option<std::path::PathBuf>,
    },
}

pub fn run(args: &JobArgs) -> Result<(), Failure> {
    let remote = &args.remote;
    let mut client = remote.client()?;
    match &args.verb {
        Verb::Restart { id, waiting } => {
            let path = remote.path(&format!("/jobs/{}/restart", segment(id)));
            let accepted: Value = client.post(&path, &json!({}))?;
            watch::finish(&mut client, remote, &accepted, waiting)?;
        }
        Verb::Resume { id, comment } => {
            let path = remote.path(&format!("/jobs/{}/resume", segment(id)));
            let accepted: Value = client.post(&path, &json!({ "comments": comment }))?;
            super::machine::done(remote, &format!("{} goes on", title(&accepted["job"])));
        }
        Verb::Export {
            format,
            machine,
            state,
            kind,
            since,
            until,
            out,
        } => {
            let mut path = remote.path(&format!("/jobs/export?format={format}"));
            let filters = [
                ("machine", machine),
                ("state", state),
                ("kind", kind),
                ("since", since),
                ("until", until),
            ];
            for (name, value) in filters {
                if let Some(value) = value {
                    path = format!("{path}&{name}={}", segment(value));
                }
            }
            let document = client.request(Method::GET, &path, None, &[])?;
            match out {
                Some(file) => {
                    std::fs::write(file, &document.body)
                        .map_err(|error| super::failure::on_file("write", file, error))?;
                    super::machine::done(remote, &format!("the jobs are in {}", file.display()));
                }
                None => {
                    let _ = std::io::stdout().write_all(&document.body);
                }
            }
        }
        Verb::List {
            machine,
            state,
            kind,
            limit,
            watching,
        } => {
            let mut path = remote.path("/jobs?");
            if let Some(machine) = machine {
                path = format!("{path}machine={}&", segment(machine));
            }
            if let Some(state) = state {
                path = format!("{path}state={}&", segment(state));
            }
            if let Some(kind) = kind {
                path = format!("{path}kind={}&", segment(kind));
            }
            let path = path.trim_end_matches(['&', '?']);
            watching.show(|| list(&mut client, remote, path, *limit))?;
        }
        Verb::Show { id } => {
            let job: Value = client.get(&remote.path(&format!("/jobs/{}", segment(id))))?;
            if remote.json {
                say_json(&job);
            } else {
                show(&job);
            }
        }
        Verb::Watch { id, timeout } => {
            let job = watch::job(&mut client, remote, &segment(id), *timeout)?;
            watch::summary(remote, &job);
        }
        Verb::Cancel { id } => {
            let path = remote.path(&format!("/jobs/{}/cancel", segment(id)));
            let job: Value = client.post(&path, &json!({}))?;
            if remote.json {
                say_json(&job);
            } else {
                say(&format!("{} is asked to stop", title(&job)));
                hint(&format!("next: lifeboat job watch {id}"));
            }
        }
    }
    Ok(())
}

fn show(job: &Value) {
    facts(&[
        ("job", title(job)),
        ("id", text(job, "id")),
        ("state", text(job, "state")),
        ("by", text(job, "user")),
        ("created", instant(job, "createdAt")),
        ("started", instant(job, "startedAt")),
        ("ended", instant(job, "endedAt")),
    ]);
    say("");
    let tasks = job["tasks"].as_array().cloned().unwrap_or_default();
    table(
        &["TASK", "STATE", "STARTED", "ENDED", "MESSAGE"],
        tasks
            .iter()
            .map(|task| {
                vec![
                    text(task, "name"),
                    text(task, "state"),
                    instant(task, "startedAt"),
                    instant(task, "endedAt"),
                    text(task, "message"),
                ]
            })
            .collect(),
    );
    let mut result = job["result"].clone();
    let comments = match result
        .as_object_mut()
        .and_then(|result| result.remove("comments"))
    {
        Some(Value::Array(comments)) => comments,
        _ => Vec::new(),
    };
    if let Some(result) = result.as_object().filter(|result| !result.is_empty()) {
        say("");
        let rows: Vec<(&str, String)> = result
            .keys()
            .map(|name| (name.as_str(), text(&job["result"], name)))
            .collect();
        facts(&rows);
    }
    for comment in comments {
        say(&format!(
            "{} {}: {}",
            instant(&comment, "at"),
            text(&comment, "user"),
            text(&comment, "text")
        ));
    }
    if job["state"] == "Suspended" {
        hint(&format!(
            "It waits for a person. When it may go on: lifeboat job resume {} --comment TEXT",
            text(job, "id")
        ));
    }
    let error = &job["error"];
    if !error.is_null() {
        say(&format!("\nerror: {}", text(error, "message")));
        say(&format!("possible causes: {}", text(error, "possibleCauses")));
        say(&format!(
            "recommended action: {}",
            text(error, "recommendedAction")
        ));
    }
}

fn list(client: &mut Client, remote: &Remote, path: &str, limit: usize) -> Result<(), Failure> {
    let jobs = client.list(path, limit)?;
    if remote.json {
        say_json(&json!({ "items": jobs }));
        return Ok(());
    }
    if jobs.is_empty() {
        hint("There is no such job. All of them: lifeboat job list");
        return Ok(());
    }
    table(
        &["ID", "JOB", "MACHINE", "STATE", "BY", "AGE", "ERROR"],
        jobs.iter()
            .map(|job| {
                vec![
                    text(job, "id"),
                    text(job, "scenario"),
                    text(&job["machine"], "name"),
                    text(job, "state"),
                    text(job, "user"),
                    ago(job, "createdAt"),
                    text(&job["error"], "code"),
                ]
            })
            .collect(),
    );
    Ok(())
}
