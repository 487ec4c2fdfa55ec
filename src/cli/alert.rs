//! `lifeboat alert`.
use super::failure::Failure;
use super::remote::{Remote, facts, hint, instant, say, say_json, secret, table, text, usage};
use crate::api::client::Client;
use clap::{Args, Subcommand, ValueEnum};
use hyper::Method;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[derive(Args)]
#[command(after_help = "Examples:
  lifeboat alert list                                     what is wrong now
  lifeboat alert email --smtp-server mail.example.org --from lifeboat@example.org --to ops@example.org \\
      --user lifeboat --password-file /root/smtp-password
  lifeboat alert webhook chat --url https://chat.example.org/hooks/1 --secret-file /root/hook-secret
  lifeboat alert test                                     send a test message on every channel
  lifeboat alert set --quiet-hours 22:00-06:30 --daily-summary 07:00
  lifeboat alert maintenance --machine web1 --for 2h      tell nobody of web1 for a while
  lifeboat alert log                                      what was sent and what waits")]
pub struct AlertArgs {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Copy, ValueEnum)]
enum Security {
    Starttls,
    Tls,
    None,
}

#[derive(Clone, Copy, ValueEnum)]
enum Least {
    Information,
    Warning,
    Critical,
}

#[derive(Args)]
struct EmailArgs {
    /// Host of the mail server
    #[arg(long, value_name = "HOST")]
    smtp_server: Option<String>,
    /// Default: 587; with --security tls 465, with none 25
    #[arg(long, value_name = "PORT")]
    smtp_port: Option<u16>,
    /// How the connection is protected [default: starttls]
    #[arg(long)]
    security: Option<Security>,
    /// Log in as this user; empty: no login
    #[arg(long)]
    user: Option<String>,
    /// File with the user's password, - for standard input. Also LIFEBOAT_SMTP_PASSWORD
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Sender
    #[arg(long, value_name = "ADDRESS")]
    from: Option<String>,
    /// Receiver; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    to: Vec<String>,
    /// Trust this CA (PEM) in place of the system's
    #[arg(long, value_name = "FILE")]
    smtp_ca_file: Option<PathBuf>,
    /// Send no e-mail any more
    #[arg(long)]
    remove: bool,
}

#[derive(Args)]
struct WebhookArgs {
    /// Name of the webhook
    name: String,
    /// Where it is sent to: https://HOST[:PORT]/PATH
    #[arg(long)]
    url: Option<String>,
    /// File with the key of the signature, - for standard input. Also LIFEBOAT_WEBHOOK_SECRET
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// Trust this CA (PEM) in place of the system's
    #[arg(long, value_name = "FILE")]
    webhook_ca_file: Option<PathBuf>,
    /// Remove it
    #[arg(long)]
    remove: bool,
}

#[derive(Subcommand)]
enum Verb {
    /// Health errors that are on, the worst first
    #[command(visible_alias = "ls")]
    List,
    /// The settings; secrets are never shown
    Show,
    /// What is told, and how often
    Set {
        /// What is milder is in the events only
        #[arg(long)]
        least_severity: Option<Least>,
        /// News is collected this long and sent as one message
        #[arg(long, value_name = "SECONDS")]
        digest_seconds: Option<u32>,
        /// Send only what is critical from when to when, in the server's time zone: 22:00-06:30; none: always all
        #[arg(long, value_name = "HH:MM-HH:MM")]
        quiet_hours: Option<String>,
        /// Say once a day how the vault is, from this time on: 07:00; none: not
        #[arg(long, value_name = "HH:MM")]
        daily_summary: Option<String>,
    },
    /// Tell nobody of a machine, or of anything, for a while; events are kept and marked
    Maintenance(super::maintenance::MaintenanceArgs),
    /// Set or remove the e-mail; what is left out stays
    Email(Box<EmailArgs>),
    /// Set or remove a webhook; what is left out stays
    Webhook(WebhookArgs),
    /// Send a test message now
    Test {
        /// email or webhook:NAME [default: all]
        channel: Option<String>,
    },
    /// The delivery log, the newest first
    Log {
        /// Most lines to list
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
}

/// From a file, from standard input, or from the environment; never from the command line, which others can see.
fn given(what: &str, file: Option<&Path>, variable: &str) -> Result<Option<String>, Failure> {
    match (file, std::env::var(variable)) {
        (Some(file), _) => Ok(Some(secret(what, Some(file))?)),
        (None, Ok(text)) => Ok(Some(text)),
        (None, Err(_)) => Ok(None),
    }
}

fn read_ca(path: Option<&Path>) -> Result<Option<String>, Failure> {
    let Some(path) = path else { return Ok(None) };
    std::fs::read_to_string(path)
        .map(Some)
        .map_err(|error| super::failure::on_file("read", path, error))
}

/// The settings as they can be sent back: without what only the server says.
fn editable(mut settings: Value) -> Value {
    if let Some(object) = settings.as_object_mut() {
        object.remove("revision");
    }
    if let Some(email) = settings["email"].as_object_mut() {
        email.remove("passwordSet");
    }
    for hook in settings["webhooks"].as_array_mut().into_iter().flatten() {
        if let Some(hook) = hook.as_object_mut() {
            hook.remove("secretSet");
        }
    }
    settings
}

/// Reads the settings, lets `change` work on them, and writes them back if nobody else did in the meantime.
fn change(
    remote: &Remote,
    client: &mut Client,
    change: impl FnOnce(&mut Value) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let path = remote.path("/alert-settings");
    let known = client.request(Method::GET, &path, None, &[])?;
    let etag = known.etag.clone().unwrap_or_default();
    let mut settings = editable(known.json()?);
    change(&mut settings)?;
    let changed = client.request(Method::PUT, &path, Some(&settings), &[("if-match", &etag)])?;
    show(remote, &changed.json()?);
    Ok(())
}

pub fn run(args: &AlertArgs) -> Result<(), Failure> {
    let remote = &args.remote;
    let mut client = remote.client()?;
    match &args.verb {
        Verb::List => list(remote, &mut client),
        Verb::Show => {
            show(remote, &client.get(&remote.path("/alert-settings"))?);
            Ok(())
        }
        Verb::Set {
            least_severity,
            digest_seconds,
            quiet_hours,
            daily_summary,
        } => change(remote, &mut client, |settings| {
            if let Some(least) = least_severity {
                settings["leastSeverity"] = json!(match least {
                    Least::Information => "Information",
                    Least::Warning => "Warning",
                    Least::Critical => "Critical",
                });
            }
            if let Some(seconds) = digest_seconds {
                settings["digestSeconds"] = json!(seconds);
            }
            match quiet_hours.as_deref() {
                None => {}
                Some("none") => settings["quietHours"] = Value::Null,
                Some(hours) => {
                    let (from, to) = hours.split_once('-').ok_or_else(|| {
                        usage(
                            format!("{hours} is no range of hours"),
                            "for example --quiet-hours 22:00-06:30; --quiet-hours none takes them away",
                        )
                    })?;
                    settings["quietHours"] = json!({ "from": from.trim(), "to": to.trim() });
                }
            }
            match daily_summary.as_deref() {
                None => {}
                Some("none") => settings["dailySummaryAt"] = Value::Null,
                Some(at) => settings["dailySummaryAt"] = json!(at),
            }
            Ok(())
        }),
        Verb::Email(email) => change(remote, &mut client, |settings| email.put_into(settings)),
        Verb::Webhook(hook) => change(remote, &mut client, |settings| hook.put_into(settings)),
        Verb::Maintenance(args) => super::maintenance::run(remote, &mut client, args),
        Verb::Test { channel } => test(remote, &mut client, channel.as_deref()),
        Verb::Log { limit } => log(remote, &mut client, *limit),
    }
}

impl EmailArgs {
    fn put_into(&self, settings: &mut Value) -> Result<(), Failure> {
        if self.remove {
            settings["email"] = Value::Null;
            return Ok(());
        }
        let password = given(
            "the password",
            self.password_file.as_deref(),
            "LIFEBOAT_SMTP_PASSWORD",
        )?;
        let is_new = settings["email"].is_null();
        let missing = self.smtp_server.is_none() || self.from.is_none() || self.to.is_empty();
        if is_new && missing {
            return Err(usage(
                "no e-mail is set yet: --smtp-server, --from and --to are needed",
                "for example: lifeboat alert email --smtp-server HOST --from ADDRESS --to ADDRESS",
            ));
        }
        if is_new {
            settings["email"] = json!({});
        }
        let email = &mut settings["email"];
        if let Some(server) = &self.smtp_server {
            email["server"] = json!(server);
        }
        if let Some(security) = self.security {
            email["security"] = json!(match security {
                Security::Starttls => "StartTls",
                Security::Tls => "Tls",
                Security::None => "None",
            });
            // Each has its own port, unless one is given.
            email["port"] = Value::Null;
        }
        if let Some(port) = self.smtp_port {
            email["port"] = json!(port);
        }
        match self.user.as_deref() {
            Some("") => email["user"] = Value::Null,
            Some(user) => email["user"] = json!(user),
            None => {}
        }
        if let Some(password) = password {
            email["password"] = json!(password);
        }
        if let Some(from) = &self.from {
            email["from"] = json!(from);
        }
        if !self.to.is_empty() {
            email["to"] = json!(self.to);
        }
        if let Some(pem) = read_ca(self.smtp_ca_file.as_deref())? {
            email["caPem"] = json!(pem);
        }
        Ok(())
    }
}

impl WebhookArgs {
    fn put_into(&self, settings: &mut Value) -> Result<(), Failure> {
        let hooks = settings["webhooks"]
            .as_array_mut()
            .ok_or_else(|| usage("the server's answer has no webhooks", "check --server"))?;
        let place = hooks.iter().position(|hook| hook["name"] == *self.name);
        if self.remove {
            let place = place.ok_or_else(|| Failure {
                code: 5,
                message: format!("there is no webhook {}", self.name),
                causes: "its name is misspelt, or it was removed already".into(),
                action: "see them: lifeboat alert show".into(),
            })?;
            hooks.remove(place);
            return Ok(());
        }
        let secret = given(
            "the secret",
            self.secret_file.as_deref(),
            "LIFEBOAT_WEBHOOK_SECRET",
        )?;
        let mut hook = match place {
            Some(place) => hooks.remove(place),
            None if self.url.is_none() || secret.is_none() => {
                return Err(usage(
                    format!(
                        "the webhook {} is new: --url and --secret-file are needed",
                        self.name
                    ),
                    "make a secret, for example: openssl rand -hex 32 > FILE; the receiver needs the same",
                ));
            }
            None => json!({ "name": self.name }),
        };
        if let Some(url) = &self.url {
            hook["url"] = json!(url);
        }
        if let Some(secret) = secret {
            hook["secret"] = json!(secret);
        }
        if let Some(pem) = read_ca(self.webhook_ca_file.as_deref())? {
            hook["caPem"] = json!(pem);
        }
        hooks.push(hook);
        Ok(())
    }
}

fn show(remote: &Remote, settings: &Value) {
    if remote.json {
        return say_json(settings);
    }
    facts(&[
        ("least severity", text(settings, "leastSeverity")),
        ("digest", format!("{} s", text(settings, "digestSeconds"))),
        (
            "quiet hours",
            settings["quietHours"]["from"]
                .as_str()
                .map_or_else(String::new, |from| {
                    format!(
                        "{from} to {}; what is critical is sent all the same",
                        text(&settings["quietHours"], "to")
                    )
                }),
        ),
        ("daily summary", text(settings, "dailySummaryAt")),
    ]);
    let email = &settings["email"];
    if email.is_null() {
        hint("no e-mail is set: lifeboat alert email --help");
    } else {
        let to: Vec<&str> = email["to"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let login = match (email["user"].as_str(), email["passwordSet"] == true) {
            (Some(user), true) => format!("{user}, password set"),
            (Some(user), false) => format!("{user}, no password"),
            (None, _) => "none".to_owned(),
        };
        say("");
        facts(&[
            (
                "e-mail over",
                format!(
                    "{}:{} ({})",
                    text(email, "server"),
                    text(email, "port"),
                    text(email, "security")
                ),
            ),
            ("login", login),
            ("from", text(email, "from")),
            ("to", to.join(", ")),
        ]);
    }
    let hooks = settings["webhooks"].as_array().cloned().unwrap_or_default();
    if !hooks.is_empty() {
        say("");
        let rows = hooks
            .iter()
            .map(|hook| vec![text(hook, "name"), text(hook, "url")])
            .collect();
        table(&["WEBHOOK", "ADDRESS"], rows);
    }
}

fn list(remote: &Remote, client: &mut Client) -> Result<(), Failure> {
    let errors = client.list(&remote.path("/health-errors"), usize::MAX)?;
    if remote.json {
        say_json(&json!({ "items": errors }));
        return Ok(());
    }
    if errors.is_empty() {
        hint("nothing is wrong");
        return Ok(());
    }
    let rows = errors
        .iter()
        .map(|error| {
            vec![
                instant(error, "since"),
                text(error, "severity"),
                text(error, "code"),
                text(&error["machine"], "name"),
                text(error, "message"),
                text(error, "recommendedAction"),
            ]
        })
        .collect();
    table(
        &["SINCE", "SEVERITY", "CODE", "MACHINE", "MESSAGE", "WHAT TO DO"],
        rows,
    );
    Ok(())
}

fn test(remote: &Remote, client: &mut Client, channel: Option<&str>) -> Result<(), Failure> {
    let body = match channel {
        Some(channel) => json!({ "channel": channel }),
        None => json!({}),
    };
    let answer: Value = client.post(&remote.path("/alert-settings/test"), &body)?;
    let results = answer["results"].as_array().cloned().unwrap_or_default();
    if remote.json {
        say_json(&answer);
    } else {
        for result in &results {
            let channel = text(result, "channel");
            if result["delivered"] == true {
                say(&format!("{channel}: delivered"));
            } else {
                say(&format!(
                    "{channel}: not delivered: {}",
                    text(&result["error"], "message")
                ));
            }
        }
    }
    let failed: Vec<&Value> = results
        .iter()
        .filter(|result| result["delivered"] != true)
        .collect();
    let Some(first) = failed.first() else {
        return Ok(());
    };
    let error = &first["error"];
    Err(Failure {
        code: if failed.len() == results.len() { 1 } else { 3 },
        message: format!("{} of {} channels do not work", failed.len(), results.len()),
        causes: text(error, "possibleCauses").into(),
        action: text(error, "recommendedAction").into(),
    })
}

fn log(remote: &Remote, client: &mut Client, limit: usize) -> Result<(), Failure> {
    let deliveries = client.list(&remote.path("/alert-deliveries"), limit)?;
    if remote.json {
        say_json(&json!({ "items": deliveries }));
        return Ok(());
    }
    let rows = deliveries
        .iter()
        .map(|delivery| {
            vec![
                instant(delivery, "createdAt"),
                text(delivery, "channel"),
                text(delivery, "state"),
                text(delivery, "attempts"),
                text(delivery, "subject"),
                text(delivery, "error"),
            ]
        })
        .collect();
    table(
        &["TIME", "CHANNEL", "STATE", "ATTEMPTS", "SUBJECT", "ERROR"],
        rows,
    );
    Ok(())
}
