//! `lifeboat group`: replication groups, whose machines share recovery points.
use super::failure::Failure;
use super::machine::done;
use super::remote::{Remote, ago, facts, hint, say_json, segment, table, text};
use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};

#[derive(Args)]
#[command(after_help = "Examples:
  lifeboat group create shop web1 db1 queue1
  lifeboat group create shop web1 db1 --share-seconds 60
  lifeboat group list
  lifeboat group add shop cache1
  lifeboat failover test web1 --point latest-multi-vm")]
pub struct GroupArgs {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Args)]
struct Values {
    /// From one shared point to the next, 1 to 3600
    #[arg(long, value_name = "SECONDS")]
    share_seconds: Option<u32>,
    /// From one app-consistent shared point to the next, 3600 to 43200; 0: off
    #[arg(long, value_name = "SECONDS")]
    app_consistent_seconds: Option<u32>,
}

impl Values {
    fn put_into(&self, body: &mut Value) {
        for (name, value) in [
            ("shareSeconds", self.share_seconds),
            ("appConsistentSeconds", self.app_consistent_seconds),
        ] {
            if let Some(value) = value {
                body[name] = json!(value);
            }
        }
    }
}

#[derive(Subcommand)]
enum Verb {
    /// All replication groups
    #[command(visible_alias = "ls")]
    List,
    /// One group: its members, and how its shared points go
    Show { name: String },
    /// Make a group of replicated machines, at most 16
    Create {
        name: String,
        /// Machines, by name or id
        machines: Vec<String>,
        #[command(flatten)]
        values: Values,
    },
    /// Change how often points are shared; what is left out stays
    Update {
        name: String,
        #[command(flatten)]
        values: Values,
    },
    /// Take machines into a group
    Add {
        name: String,
        #[arg(required = true)]
        machines: Vec<String>,
    },
    /// Take machines out of a group
    Remove {
        name: String,
        #[arg(required = true)]
        machines: Vec<String>,
    },
    /// Remove a group; its machines go on with recovery points of their own
    Delete { name: String },
}

pub fn run(args: &GroupArgs) -> Result<(), Failure> {
    let remote = &args.remote;
    let mut client = remote.client()?;
    let path = |name: &str, rest: &str| remote.path(&format!("/replication-groups/{}{rest}", segment(name)));
    match &args.verb {
        Verb::List => {
            let groups = client.list(&remote.path("/replication-groups"), usize::MAX)?;
            if remote.json {
                say_json(&json!({ "items": groups }));
                return Ok(());
            }
            if groups.is_empty() {
                hint("no replication group yet; make one: lifeboat group create NAME MACHINE MACHINE");
                return Ok(());
            }
            let rows = groups.iter().map(|group| {
                vec![
                    text(group, "name"),
                    text(group, "health"),
                    names(group),
                    format!("{} s", text(group, "shareSeconds")),
                    last(group, "lastSharedPoint"),
                ]
            });
            table(
                &["NAME", "HEALTH", "MACHINES", "EVERY", "LAST SHARED POINT"],
                rows.collect(),
            );
        }
        Verb::Show { name } => show(remote, &client.get(&path(name, ""))?),
        Verb::Create {
            name,
            machines,
            values,
        } => {
            let mut body = json!({ "name": name, "members": machines });
            values.put_into(&mut body);
            show(remote, &client.post(&remote.path("/replication-groups"), &body)?);
        }
        Verb::Update { name, values } => {
            let mut body = json!({});
            values.put_into(&mut body);
            let changed = client.request(Method::PUT, &path(name, ""), Some(&body), &[])?;
            show(remote, &changed.json()?);
        }
        Verb::Add { name, machines } => {
            let mut group = Value::Null;
            for machine in machines {
                group = client.post(&path(name, "/members"), &json!({ "machine": machine }))?;
            }
            show(remote, &group);
        }
        Verb::Remove { name, machines } => {
            let mut group = Value::Null;
            for machine in machines {
                let member = path(name, &format!("/members/{}", segment(machine)));
                group = client.request(Method::DELETE, &member, None, &[])?.json()?;
            }
            show(remote, &group);
        }
        Verb::Delete { name } => {
            client.request(Method::DELETE, &path(name, ""), None, &[])?;
            done(remote, &format!("the replication group {name} is removed"));
        }
    }
    Ok(())
}

fn members(group: &Value) -> Vec<Value> {
    group["members"].as_array().cloned().unwrap_or_default()
}

fn names(group: &Value) -> String {
    let names: Vec<String> = members(group).iter().map(|member| text(member, "name")).collect();
    names.join(", ")
}

fn last(group: &Value, field: &str) -> String {
    match &group[field] {
        Value::Null => "none".to_owned(),
        point => format!("{} ago", ago(point, "instant")),
    }
}

fn show(remote: &Remote, group: &Value) {
    if remote.json {
        return say_json(group);
    }
    let window = |field: &str| {
        group[field]
            .as_f64()
            .map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms"))
    };
    let app = match group["appConsistentSeconds"].as_u64() {
        Some(0) | None => "off".to_owned(),
        Some(seconds) => format!("{seconds} s"),
    };
    facts(&[
        ("name", text(group, "name")),
        ("health", text(group, "health")),
        (
            "a shared point every",
            format!("{} s", text(group, "shareSeconds")),
        ),
        ("app-consistent every", app),
        ("last shared point", last(group, "lastSharedPoint")),
        ("last app-consistent", last(group, "lastAppConsistentPoint")),
        (
            "shared of tried",
            format!("{} of {}", text(group, "sharedPoints"), text(group, "rounds")),
        ),
        (
            "frozen together",
            format!(
                "p50 {}, p99 {}",
                window("freezeWindowMsP50"),
                window("freezeWindowMsP99")
            ),
        ),
    ]);
    table(
        &["MACHINE", "TAKES PART", "WHY NOT"],
        members(group)
            .iter()
            .map(|member| {
                let takes_part = member["takesPart"] == true;
                vec![
                    text(member, "name"),
                    if takes_part { "yes" } else { "no" }.to_owned(),
                    text(member, "trouble"),
                ]
            })
            .collect(),
    );
}
