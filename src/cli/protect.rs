//! `lifeboat protect` and `lifeboat unprotect`.
use super::failure::Failure;
use super::remote::{Remote, confirm, hint, say, text};
use super::watch::{Display, Patience, Waiting, finish};
use crate::api::EnableRequest;
use crate::api::client::Client;
use clap::Args;
use hyper::Method;
use serde_json::{Value, json};

#[derive(Args)]
#[command(after_help = "Examples:
  lifeboat protect web1
  lifeboat protect web1 --policy gold --wait
  lifeboat protect web1 --disk wwn:0x5000c500a1b2c3d4")]
pub struct ProtectArgs {
    #[command(flatten)]
    remote: Remote,
    /// Machine, by name or id
    name: String,
    /// Replication policy
    #[arg(long, default_value = "default")]
    policy: String,
    /// Disk to protect, by its stable id as `machine show` prints it; may be given again. Default: all
    #[arg(long = "disk", value_name = "STABLE_ID")]
    disks: Vec<String>,
    /// Also while an alarm of the process server is critical (see: lifeboat server status)
    #[arg(long)]
    accept_critical_server: bool,
    /// Wait until the first recovery point is at the target
    #[arg(long)]
    wait: bool,
    /// With --wait: no longer than this many seconds
    #[arg(long, value_name = "SECONDS", requires = "wait")]
    timeout: Option<u64>,
}

#[derive(Args)]
#[command(after_help = "Examples:
  lifeboat unprotect web1 --confirm web1                  the replica and all recovery points are removed
  lifeboat unprotect web1 --confirm web1 --keep-points    the points stay until you remove them
  lifeboat unprotect web1 --confirm web1 --keep-points --keep-days 30
  lifeboat unprotect web1 --confirm web1                  once more: the points that were kept are removed")]
pub struct UnprotectArgs {
    #[command(flatten)]
    remote: Remote,
    /// Machine, by name or id
    name: String,
    /// The machine's name once more: its replica and all recovery points are removed, unless they are kept
    #[arg(long, value_name = "NAME")]
    confirm: Option<String>,
    /// Keep the recovery points: they can be tested, and restored from with `lifeboat store`
    #[arg(long)]
    keep_points: bool,
    /// With --keep-points: remove them after this many days. Default: never by itself
    #[arg(long, value_name = "DAYS", requires = "keep_points")]
    keep_days: Option<u32>,
    #[command(flatten)]
    waiting: Waiting,
}

pub fn protect(args: &ProtectArgs) -> Result<(), Failure> {
    let remote = &args.remote;
    let mut client = remote.client()?;
    let request = EnableRequest {
        machine: args.name.clone(),
        policy: Some(args.policy.clone()),
        disks: (!args.disks.is_empty()).then(|| args.disks.clone()),
        target: None,
        accept_critical_server: args.accept_critical_server,
    };
    let accepted: Value = client.post(&remote.path("/replicated-items"), &request)?;
    if !args.wait {
        let waiting = Waiting {
            no_wait: true,
            timeout: None,
        };
        finish(&mut client, remote, &accepted, &waiting)?;
        return Ok(());
    }
    let item = wait_for_protection(&mut client, remote, &accepted, args.timeout)?;
    let name = text(&item, "name");
    if remote.json {
        say(&json!({ "message_type": "summary", "replicatedItem": item }).to_string());
    } else {
        say(&format!("{name} is protected"));
        hint(&format!("next: lifeboat failover test {name}"));
    }
    Ok(())
}

/// Through the job, then through the initial replication.
fn wait_for_protection(
    client: &mut Client,
    remote: &Remote,
    accepted: &Value,
    timeout: Option<u64>,
) -> Result<Value, Failure> {
    let job_path = remote.path(&format!("/jobs/{}", text(&accepted["job"], "id")));
    let name = text(&accepted["job"]["machine"], "name");
    let path = remote.item(&text(&accepted["job"]["machine"], "id"), "");
    let mut display = Display::new(remote.json);
    let mut patience = Patience::new(client, timeout, format!("the protection of {name}"))?;
    loop {
        if let Some(job) = patience.get(client, &job_path)?
            && matches!(job["state"].as_str(), Some("Failed" | "Cancelled"))
        {
            drop(display);
            // Says why, with the exit code of a job that failed.
            return super::watch::job(client, remote, &text(&job, "id"), None);
        }
        if let Some(item) = patience.get(client, &path)? {
            let status = text(&item, "status");
            match item["protectionState"].as_str() {
                Some("Protected") => return Ok(item),
                Some("EnablingFailed" | "InitialReplicationFailed") => {
                    return Err(Failure {
                        code: 1,
                        message: format!("{name}: {status}"),
                        causes: "the agent or the store gave up".into(),
                        action: format!("see why: lifeboat machine show {name}; lifeboat event list").into(),
                    });
                }
                _ => {}
            }
            let progress = &item["progress"];
            let line = format!("{name}: {status}");
            let report = || json!({ "message_type": "status", "replicatedItem": item.clone() });
            match (progress["doneBytes"].as_u64(), progress["totalBytes"].as_u64()) {
                (Some(done), Some(total)) => display.show_bytes(&line, done, total, report),
                _ => display.show(&line, report),
            }
        }
        patience.pause(client)?;
    }
}

pub fn unprotect(args: &UnprotectArgs) -> Result<(), Failure> {
    let remote = &args.remote;
    let mut client = remote.client()?;
    let path = remote.item(&args.name, "");
    let item: Value = client.get(&path)?;
    let name = text(&item, "name");
    confirm(
        &name,
        args.confirm.as_deref(),
        &match (args.keep_points, item["protectionState"] == "Unprotected") {
            (true, _) => format!("Stop the replication of {name}? Its recovery points stay."),
            (_, true) => format!("Remove the recovery points of {name} that were kept?"),
            _ => format!("Stop the replication of {name} and remove its replica with all recovery points?"),
        },
    )?;
    let path = match (args.keep_points, args.keep_days) {
        (true, Some(days)) => format!("{path}?keepPoints=true&keepDays={days}"),
        (true, None) => format!("{path}?keepPoints=true"),
        _ => path,
    };
    let accepted: Value = client.request(Method::DELETE, &path, None, &[])?.json()?;
    finish(&mut client, remote, &accepted, &args.waiting)?;
    Ok(())
}
