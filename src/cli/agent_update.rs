//! `lifeboat machine update-agent`.
use super::failure::Failure;
use super::remote::{Remote, hint, say, say_json, segment, text};
use clap::Args;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

#[derive(Args)]
pub struct UpdateAgentArgs {
    /// Name or id
    name: String,
    /// Return at once; the order stands
    #[arg(long)]
    no_wait: bool,
    /// Seconds to wait for the end
    #[arg(long, default_value_t = 300)]
    timeout: u64,
}

pub fn run(remote: &Remote, args: &UpdateAgentArgs) -> Result<(), Failure> {
    let path = remote.path(&format!("/machines/{}/agent-update", segment(&args.name)));
    let mut client = remote.client()?;
    let mut update: Value = client.post(&path, &json!({}))?;
    let end = Instant::now() + Duration::from_secs(args.timeout);
    let is_open = |update: &Value| matches!(update["state"].as_str(), Some("Ordered" | "Trying"));
    while !args.no_wait && is_open(&update) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(500));
        update = client.get(&path)?;
    }
    if remote.json {
        say_json(&update);
    } else {
        say(&format!(
            "{}: {} (agent {}, server {})",
            args.name,
            text(&update, "state"),
            text(&update, "agentVersion"),
            text(&update, "serverVersion")
        ));
    }
    match update["state"].as_str() {
        Some("RolledBack" | "Failed") => Err(Failure {
            code: 1,
            message: format!("the agent was not updated: {}", text(&update, "message")),
            causes: "the new executable does not run there, or did not reach the server in time".into(),
            action: "the agent goes on with its previous version; look at its log on the machine".into(),
        }),
        Some("Ordered" | "Trying") if !args.no_wait => Err(Failure {
            code: 7,
            message: format!(
                "the update is not over after {} s; the order stands",
                args.timeout
            ),
            causes: "the machine is off or not connected".into(),
            action: "look again: lifeboat machine show".into(),
        }),
        Some("Ordered" | "Trying") => {
            hint("the agent updates itself with its next heartbeat");
            Ok(())
        }
        _ => Ok(()),
    }
}
