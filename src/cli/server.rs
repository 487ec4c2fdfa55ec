//! `lifeboat server`: the site as a whole.
use super::failure::Failure;
use super::remote::{Remote, ago, facts, hint, say, say_json, size, table, text};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

#[derive(Args)]
#[command(after_help = "Examples:
  lifeboat server status
  lifeboat server join-token          the command that installs the agent on a machine and joins it
  lifeboat server passphrase          what agents join with
  lifeboat server status --server https://vault:8443 --ca-file ca.pem --json")]
pub struct ServerArgs {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Servers, machines, store: whether all is well
    Status,
    /// What agents and process servers join with
    Passphrase {
        /// Make a new one; the old one is refused from now on
        #[arg(long)]
        rotate: bool,
    },
    /// Make a join token for one machine, and the command of one line that installs the agent on it
    JoinToken(super::join_token::JoinTokenArgs),
}

pub fn run(args: &ServerArgs) -> Result<(), Failure> {
    let remote = &args.remote;
    match &args.verb {
        Verb::Status => status(remote),
        Verb::JoinToken(token) => super::join_token::run(remote, token),
        Verb::Passphrase { rotate } => {
            let mut client = remote.client()?;
            let joining: Value = if *rotate {
                client.post(&remote.path("/passphrase/rotate"), &json!({}))?
            } else {
                client.get(&remote.path("/passphrase"))?
            };
            if remote.json {
                say_json(&joining);
            } else {
                say(&text(&joining, "passphrase"));
            }
            Ok(())
        }
    }
}

fn status(remote: &Remote) -> Result<(), Failure> {
    let mut client = remote.client()?;
    let health: Value = client.get("/healthz")?;
    let servers = client.list(&remote.path("/servers"), usize::MAX)?;
    let store: Value = client.get(&remote.path("/store"))?;
    let machines = client.list(&remote.path("/machines"), usize::MAX)?;
    let items = client.list(&remote.path("/replicated-items"), usize::MAX)?;
    let jobs = client.list(&remote.path("/jobs?state=InProgress"), 1000)?;
    let with = |health: &str| {
        items
            .iter()
            .filter(|item| item["replicationHealth"] == health)
            .count()
    };
    let (critical, warning) = (with("Critical"), with("Warning"));
    let down = servers
        .iter()
        .filter(|server| server["state"] != "Connected")
        .count();
    let summary = json!({
        "server": client.address().to_string(),
        "version": health["version"],
        "servers": servers,
        "store": store,
        "machines": machines.len(),
        "replicatedItems": items.len(),
        "critical": critical,
        "warning": warning,
        "jobsInProgress": jobs.len(),
    });
    if remote.json {
        say_json(&summary);
    } else {
        facts(&[
            ("server", text(&summary, "server")),
            ("version", text(&summary, "version")),
            (
                "machines",
                format!("{} joined, {} replicated", machines.len(), items.len()),
            ),
            ("health", format!("{critical} critical, {warning} warning")),
            ("jobs in progress", jobs.len().to_string()),
            (
                "store",
                format!(
                    "{} stored, {} free of {}",
                    size(&store, "storedBytes"),
                    size(&store, "freeBytes"),
                    size(&store, "capacityBytes")
                ),
            ),
        ]);
        say("");
        table(
            &[
                "SERVER",
                "ROLES",
                "STATE",
                "HEALTH",
                "VERSION",
                "HEARTBEAT",
                "DETAIL",
            ],
            servers
                .iter()
                .map(|server| {
                    let roles: Vec<&str> = server["roles"]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .filter_map(Value::as_str)
                        .collect();
                    vec![
                        text(server, "name"),
                        roles.join(","),
                        text(server, "state"),
                        text(server, "health"),
                        text(server, "version"),
                        ago(server, "lastHeartbeatAt"),
                        text(server, "detail"),
                    ]
                })
                .collect(),
        );
    }
    for alarm in servers
        .iter()
        .filter_map(|server| server["alarms"].as_array())
        .flatten()
        .filter(|_| !remote.json)
    {
        say(&format!(
            "\n{}: {}",
            text(alarm, "severity"),
            text(alarm, "message")
        ));
        say(&format!("  possible causes: {}", text(alarm, "possibleCauses")));
        say(&format!(
            "  recommended action: {}",
            text(alarm, "recommendedAction")
        ));
    }
    if critical + down > 0 {
        hint("something is wrong: lifeboat machine list; lifeboat event list");
    }
    Ok(())
}
