//! `lifeboat policy`.
use super::failure::Failure;
use super::machine::done;
use super::remote::{Remote, facts, say_json, seconds, segment, table, text};
use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};

#[derive(Args)]
#[command(after_help = "Examples:
  lifeboat policy list
  lifeboat policy create gold --crash-consistent-seconds 5 --retention-hours 72")]
pub struct PolicyArgs {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Args)]
struct Values {
    /// The newest point may get this old before it is an error
    #[arg(long, value_name = "SECONDS")]
    rpo_threshold_seconds: Option<u32>,
    /// How long points are kept, 1 to 360
    #[arg(long, value_name = "HOURS")]
    retention_hours: Option<u32>,
    /// From one point to the next, 5 to 3600
    #[arg(long, value_name = "SECONDS")]
    crash_consistent_seconds: Option<u32>,
    /// From one app-consistent point to the next, 3600 to 43200; 0: off
    #[arg(long, value_name = "SECONDS")]
    app_consistent_seconds: Option<u32>,
}

#[derive(Subcommand)]
enum Verb {
    /// All policies
    #[command(visible_alias = "ls")]
    List,
    /// One policy
    Show { name: String },
    /// Make a policy; what is left out has the default
    Create {
        name: String,
        #[command(flatten)]
        values: Values,
    },
    /// Change a policy, also for the machines that follow it; what is left out stays
    Update {
        name: String,
        #[command(flatten)]
        values: Values,
    },
    /// Remove a policy that no machine follows
    Delete { name: String },
}

impl Values {
    fn put_into(&self, body: &mut Value) {
        for (name, value) in [
            ("rpoThresholdSeconds", self.rpo_threshold_seconds),
            ("retentionHours", self.retention_hours),
            ("crashConsistentSeconds", self.crash_consistent_seconds),
            ("appConsistentSeconds", self.app_consistent_seconds),
        ] {
            if let Some(value) = value {
                body[name] = json!(value);
            }
        }
    }
}

pub fn run(args: &PolicyArgs) -> Result<(), Failure> {
    let remote = &args.remote;
    let mut client = remote.client()?;
    let path = |name: &str| remote.path(&format!("/policies/{}", segment(name)));
    match &args.verb {
        Verb::List => {
            let policies = client.list(&remote.path("/policies"), usize::MAX)?;
            if remote.json {
                say_json(&json!({ "items": policies }));
                return Ok(());
            }
            table(
                &[
                    "NAME",
                    "RPO THRESHOLD",
                    "RETENTION",
                    "CRASH-CONSISTENT",
                    "APP-CONSISTENT",
                    "MACHINES",
                ],
                policies
                    .iter()
                    .map(|policy| {
                        vec![
                            text(policy, "name"),
                            seconds(policy, "rpoThresholdSeconds"),
                            format!("{} h", text(policy, "retentionHours")),
                            seconds(policy, "crashConsistentSeconds"),
                            app_consistent(policy),
                            text(policy, "items"),
                        ]
                    })
                    .collect(),
            );
        }
        Verb::Show { name } => show(remote, &client.get(&path(name))?),
        Verb::Create { name, values } => {
            let mut body = json!({ "name": name });
            values.put_into(&mut body);
            show(remote, &client.post(&remote.path("/policies"), &body)?);
        }
        Verb::Update { name, values } => {
            let known = client.request(Method::GET, &path(name), None, &[])?;
            let etag = known.etag.clone().unwrap_or_default();
            let known: Value = known.json()?;
            let mut body = json!({});
            for field in [
                "rpoThresholdSeconds",
                "retentionHours",
                "crashConsistentSeconds",
                "appConsistentSeconds",
            ] {
                body[field] = known[field].clone();
            }
            values.put_into(&mut body);
            let changed = client.request(Method::PUT, &path(name), Some(&body), &[("if-match", &etag)])?;
            show(remote, &changed.json()?);
        }
        Verb::Delete { name } => {
            client.request(Method::DELETE, &path(name), None, &[])?;
            done(remote, &format!("the policy {name} is removed"));
        }
    }
    Ok(())
}

fn app_consistent(policy: &Value) -> String {
    if policy["appConsistentSeconds"] == 0 {
        "off".to_owned()
    } else {
        seconds(policy, "appConsistentSeconds")
    }
}

fn show(remote: &Remote, policy: &Value) {
    if remote.json {
        return say_json(policy);
    }
    facts(&[
        ("name", text(policy, "name")),
        ("RPO threshold", seconds(policy, "rpoThresholdSeconds")),
        ("retention", format!("{} h", text(policy, "retentionHours"))),
        (
            "crash-consistent every",
            seconds(policy, "crashConsistentSeconds"),
        ),
        ("app-consistent every", app_consistent(policy)),
        ("for the way back of", text(policy, "failbackOf")),
        ("machines", text(policy, "items")),
    ]);
}
