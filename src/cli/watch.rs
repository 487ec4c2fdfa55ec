//! Waiting for jobs: progress on a terminal, plain lines elsewhere, JSON lines with `--json`.
use super::failure::Failure;
use super::remote::{Remote, hint, say, text};
use crate::api::client::{Client, ClientError};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};

#[derive(Args, Clone)]
pub struct Waiting {
    /// Return when the order is taken; do not wait for the job
    #[arg(long, conflicts_with = "timeout")]
    pub no_wait: bool,
    /// Wait no longer than this many seconds; the job goes on
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
}

const LOOK: Duration = Duration::from_millis(400);
const PLAIN_LINE_EVERY: Duration = Duration::from_secs(10);
/// A server that restarts takes its jobs up again; so long it may be away.
const AWAY_MAX: Duration = Duration::from_secs(60);

/// What is shown while waiting.
pub struct Display {
    bar: Option<ProgressBar>,
    json: bool,
    last: String,
    told: Instant,
}

impl Display {
    pub fn new(json: bool) -> Self {
        let bar = (!json && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new_spinner();
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self {
            bar,
            json,
            last: String::new(),
            told: Instant::now(),
        }
    }

    /// `status`: the document that `--json` prints when the line changed.
    pub fn show(&mut self, line: &str, status: impl FnOnce() -> Value) {
        let changed = line != self.last;
        if self.json {
            if changed {
                say(&status().to_string());
            }
        } else if let Some(bar) = &self.bar {
            bar.set_message(line.to_owned());
        } else if changed || self.told.elapsed() >= PLAIN_LINE_EVERY {
            hint(line);
            self.told = Instant::now();
        }
        if changed {
            line.clone_into(&mut self.last);
        }
    }

    /// As `show`, with a share that is done.
    pub fn show_bytes(&mut self, line: &str, done: u64, total: u64, status: impl FnOnce() -> Value) {
        let Some(bar) = &self.bar else {
            let percent = (done * 100).checked_div(total).unwrap_or(0);
            // Tens, so that a plain log stays readable.
            let shown = if self.json { percent } else { percent / 10 * 10 };
            return self.show(&format!("{line}: {shown} %"), status);
        };
        if bar.length().is_none() {
            let style = "{spinner} {msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
            bar.set_style(
                ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
        }
        bar.set_length(total);
        bar.set_position(done);
        bar.set_message(line.to_owned());
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Time to look again, until the limit or Ctrl-C. Ctrl-C leaves the job alone.
pub struct Patience {
    interrupt: Signal,
    deadline: Option<Instant>,
    away_since: Option<Instant>,
    /// What goes on without us, for the message.
    what: String,
}

impl Patience {
    pub fn new(client: &Client, timeout: Option<u64>, what: String) -> Result<Self, Failure> {
        let _inside = client.runtime().enter();
        let interrupt = signal(SignalKind::interrupt()).map_err(|error| Failure {
            code: 1,
            message: format!("Ctrl-C cannot be waited for: {error}"),
            causes: "a limit of the system is reached".into(),
            action: "give --no-wait".into(),
        })?;
        Ok(Self {
            interrupt,
            deadline: timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds)),
            away_since: None,
            what,
        })
    }

    pub fn pause(&mut self, client: &Client) -> Result<(), Failure> {
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(Failure {
                code: 7,
                message: format!("not over within the limit: {}", self.what),
                causes: "it takes longer than --timeout".into(),
                action: "it goes on; see it again: lifeboat job list".into(),
            });
        }
        let interrupt = &mut self.interrupt;
        let interrupted = client.runtime().block_on(async {
            tokio::select! {
                _ = interrupt.recv() => true,
                () = tokio::time::sleep(LOOK) => false,
            }
        });
        if interrupted {
            return Err(Failure {
                code: 130,
                message: format!("no longer waiting; it goes on: {}", self.what),
                causes: "Ctrl-C".into(),
                action: "see it again: lifeboat job list".into(),
            });
        }
        Ok(())
    }

    /// None: the server is away for a moment.
    pub fn get(&mut self, client: &mut Client, path: &str) -> Result<Option<Value>, Failure> {
        match client.get(path) {
            Ok(value) => {
                self.away_since = None;
                Ok(Some(value))
            }
            Err(error @ ClientError::Unreachable { .. }) => {
                let since = *self.away_since.get_or_insert_with(Instant::now);
                if since.elapsed() > AWAY_MAX {
                    return Err(error.into());
                }
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn is_over(job: &Value) -> bool {
    matches!(job["state"].as_str(), Some("Succeeded" | "Failed" | "Cancelled"))
}

/// `Test failover of web1`
pub fn title(job: &Value) -> String {
    format!("{} of {}", text(job, "scenario"), text(&job["machine"], "name"))
}

fn line(job: &Value) -> String {
    let empty = Vec::new();
    let tasks = job["tasks"].as_array().unwrap_or(&empty);
    let done = tasks
        .iter()
        .filter(|task| !matches!(task["state"].as_str(), Some("NotStarted" | "InProgress")))
        .count();
    let task = tasks.iter().find(|task| task["state"] == "InProgress");
    let now = match task {
        // Whoever waits here may be the one who is waited for.
        _ if job["state"] == "Suspended" => format!(
            " waits for a person: {}; then: lifeboat job resume {} --comment TEXT",
            task.map_or_else(|| "see its tasks".to_owned(), |task| text(task, "message")),
            text(job, "id")
        ),
        Some(task) => match text(task, "message") {
            message if message.is_empty() => format!(": {}", text(task, "name")),
            message => format!(": {} {message}", text(task, "name")),
        },
        None => String::new(),
    };
    format!("{} {done}/{}{now}", title(job), tasks.len())
}

/// Waits until a job is over; the job as it ended. A job that failed is a failure.
pub fn job(client: &mut Client, remote: &Remote, id: &str, timeout: Option<u64>) -> Result<Value, Failure> {
    let path = remote.path(&format!("/jobs/{id}"));
    let mut display = Display::new(remote.json);
    let mut patience = Patience::new(client, timeout, format!("job {id}"))?;
    loop {
        if let Some(job) = patience.get(client, &path)? {
            if is_over(&job) {
                drop(display);
                return ended(job);
            }
            display.show(
                &line(&job),
                || json!({ "message_type": "status", "job": job.clone() }),
            );
        }
        patience.pause(client)?;
    }
}

fn ended(job: Value) -> Result<Value, Failure> {
    let error = &job["error"];
    let told = |text: String, other: &'static str| -> Cow<'static, str> {
        if text.is_empty() {
            other.into()
        } else {
            text.into()
        }
    };
    match job["state"].as_str() {
        Some("Succeeded") => Ok(job),
        Some("Cancelled") => Err(Failure {
            code: 1,
            message: format!("{} was cancelled", title(&job)),
            causes: "somebody cancelled it".into(),
            action: "see what was done: lifeboat job show".into(),
        }),
        _ => Err(Failure {
            code: 1,
            message: format!("{} failed: {}", title(&job), text(error, "message")),
            causes: told(text(error, "possibleCauses"), "see its tasks"),
            action: told(
                text(error, "recommendedAction"),
                "see its tasks: lifeboat job show",
            ),
        }),
    }
}

/// The end of an order: waits as told and prints what came out. The job, when it was waited for.
pub fn finish(
    client: &mut Client,
    remote: &Remote,
    accepted: &Value,
    waiting: &Waiting,
) -> Result<Option<Value>, Failure> {
    let job = &accepted["job"];
    let id = text(job, "id");
    if waiting.no_wait {
        if remote.json {
            super::remote::say_json(accepted);
        } else {
            say(&format!("{}: job {id}", title(job)));
            hint(&format!("next: lifeboat job watch {id}"));
        }
        return Ok(None);
    }
    let over = self::job(client, remote, &id, waiting.timeout)?;
    summary(remote, &over);
    Ok(Some(over))
}

/// What came of a job.
pub fn summary(remote: &Remote, job: &Value) {
    if remote.json {
        say(&json!({ "message_type": "summary", "job": job }).to_string());
        return;
    }
    say(&format!("{} succeeded", title(job)));
    if let Some(result) = job["result"].as_object() {
        let rows: Vec<(&str, String)> = result
            .iter()
            .filter(|(_, value)| !value.is_object() && !value.is_array())
            .map(
                |(name, value)| match (name.strip_suffix("UnixNanos"), value.as_i64()) {
                    // A person reads no nanoseconds; programs take --json.
                    (Some(name), Some(nanos)) => (name, super::size::instant(nanos)),
                    _ => (name.as_str(), text(&job["result"], name)),
                },
            )
            .collect();
        super::remote::facts(&rows);
    }
}
