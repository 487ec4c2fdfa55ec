//! `lifeboat apply -f site.toml`: policies, users, replicated items, replication groups and recovery plans as a file says.
//! Applied again, it changes nothing. What the file does not name is left as it is: protection, users, policies, groups and
//! plans are only ever taken away by their own commands.
mod plans;

use super::failure::Failure;
use super::remote::{Remote, hint, say, say_json, segment, table, text, usage};
use crate::api::client::{Client, ClientError};
use clap::Args;
use hyper::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

#[derive(Args)]
#[command(after_help = "Examples:
  lifeboat apply -f site.toml --dry-run       what would be done
  lifeboat apply -f site.toml

A site.toml:
  [[policy]]
  name = \"gold\"
  crash_consistent_seconds = 10
  retention_hours = 72
  rpo_threshold_seconds = 120

  [[user]]
  name = \"olga\"
  role = \"Operator\"

  [[item]]
  machine = \"web1\"
  policy = \"gold\"
  disks = [\"wwn:0x5000c500a1b2c3d4\"]          # default: all; a disk is never excluded by this command
  target = { cpus = 2, memory_bytes = 2147483648 }

  [[group]]                                     # a replication group; it only grows by this command
  name = \"shop\"
  members = [\"web1\", \"db1\"]
  share_seconds = 30

  [[plan]]                                      # replaced where it differs; what is left out stays
  name = \"site\"
  on_machine_failure = \"ask\"                    # stop, goOn, ask
  test_network = \"isolated\"
  after_cleanup = [{ name = \"tell\", kind = \"script\", script = \"tell.sh\", arguments = [\"clean\"] }]
  [[plan.group]]
  name = \"data\"
  machines = [\"db1\"]
  after = [{ name = \"answers\", kind = \"probe\", machine = \"db1\", protocol = \"tcp\", port = 5432 },
           { name = \"look\", kind = \"manual\", instructions = \"Is it whole?\", failover_types = [\"test\"] }]
  [[plan.group]]
  machines = [\"web1\"]")]
pub struct ApplyArgs {
    #[command(flatten)]
    remote: Remote,
    /// The file; - reads standard input
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Site {
    #[serde(default)]
    policy: Vec<PolicyEntry>,
    #[serde(default)]
    user: Vec<UserEntry>,
    #[serde(default)]
    item: Vec<ItemEntry>,
    #[serde(default)]
    group: Vec<plans::GroupEntry>,
    #[serde(default)]
    plan: Vec<plans::PlanEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyEntry {
    name: String,
    rpo_threshold_seconds: Option<u32>,
    retention_hours: Option<u32>,
    crash_consistent_seconds: Option<u32>,
    app_consistent_seconds: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserEntry {
    name: String,
    role: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ItemEntry {
    machine: String,
    policy: Option<String>,
    disks: Option<Vec<String>>,
    #[serde(default)]
    target: TargetEntry,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetEntry {
    name: Option<String>,
    cpus: Option<u32>,
    memory_bytes: Option<u64>,
}

impl PolicyEntry {
    fn values(&self) -> [(&'static str, Option<u32>); 4] {
        [
            ("rpoThresholdSeconds", self.rpo_threshold_seconds),
            ("retentionHours", self.retention_hours),
            ("crashConsistentSeconds", self.crash_consistent_seconds),
            ("appConsistentSeconds", self.app_consistent_seconds),
        ]
    }
}

impl TargetEntry {
    fn values(&self) -> Map<String, Value> {
        let mut values = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                values.insert(name.to_owned(), value);
            }
        };
        put("name", self.name.as_ref().map(|name| json!(name)));
        put("cpus", self.cpus.map(|cpus| json!(cpus)));
        put("memoryBytes", self.memory_bytes.map(|bytes| json!(bytes)));
        values
    }
}

/// One request that brings the site nearer to the file.
struct Change {
    what: String,
    method: Method,
    path: String,
    body: Value,
    etag: Option<String>,
}

/// A resource with its ETag; None: it is not there.
fn known(client: &mut Client, path: &str) -> Result<Option<(Value, Option<String>)>, Failure> {
    match client.request(Method::GET, path, None, &[]) {
        Ok(answer) => Ok(Some((answer.json()?, answer.etag))),
        Err(ClientError::Problem(problem)) if problem.status == 404 => Ok(None),
        Err(error) => Err(error.into()),
    }
}

struct Plan<'a> {
    remote: &'a Remote,
    client: Client,
    changes: Vec<Change>,
    /// What the file would take away, and what this command does not.
    left: Vec<String>,
}

impl Plan<'_> {
    fn add(&mut self, what: String, method: Method, path: String, body: Value, etag: Option<String>) {
        self.changes.push(Change {
            what,
            method,
            path,
            body,
            etag,
        });
    }

    fn policy(&mut self, entry: &PolicyEntry) -> Result<(), Failure> {
        let path = self.remote.path(&format!("/policies/{}", segment(&entry.name)));
        let named = entry
            .values()
            .into_iter()
            .filter_map(|(field, value)| Some((field, value?)));
        let Some((there, etag)) = known(&mut self.client, &path)? else {
            let mut body = json!({ "name": entry.name });
            for (field, value) in named {
                body[field] = json!(value);
            }
            let path = self.remote.path("/policies");
            self.add(
                format!("create the policy {}", entry.name),
                Method::POST,
                path,
                body,
                None,
            );
            return Ok(());
        };
        let mut body = json!({});
        for (field, _) in entry.values() {
            body[field] = there[field].clone();
        }
        let mut differs = Vec::new();
        for (field, value) in named {
            if body[field] != json!(value) {
                differs.push(format!("{field} {} -> {value}", body[field]));
                body[field] = json!(value);
            }
        }
        if !differs.is_empty() {
            let what = format!("change the policy {}: {}", entry.name, differs.join(", "));
            self.add(what, Method::PUT, path, body, etag);
        }
        Ok(())
    }

    fn users(&mut self, entries: &[UserEntry]) -> Result<(), Failure> {
        if entries.is_empty() {
            return Ok(());
        }
        let users = self.client.list(&self.remote.path("/users"), usize::MAX)?;
        for entry in entries {
            let same = |user: &&Value| text(user, "name").eq_ignore_ascii_case(&entry.name);
            let Some(user) = users.iter().find(same) else {
                let body = json!({ "name": entry.name, "role": entry.role });
                let what = format!("create the user {} as {}", entry.name, entry.role);
                let path = self.remote.path("/users");
                self.add(what, Method::POST, path, body, None);
                continue;
            };
            let roles = user["roles"].as_array().into_iter().flatten();
            let has = roles
                .filter(|role| text(role, "vault").eq_ignore_ascii_case(&self.remote.vault))
                .any(|role| text(role, "role") == entry.role);
            if !has {
                let path = self
                    .remote
                    .path(&format!("/role-assignments/{}", segment(&entry.name)));
                let what = format!("give {} the role {}", entry.name, entry.role);
                self.add(what, Method::PUT, path, json!({ "role": entry.role }), None);
            }
        }
        Ok(())
    }

    fn item(&mut self, entry: &ItemEntry) -> Result<(), Failure> {
        let name = &entry.machine;
        let path = self.remote.item(name, "");
        let Some((there, _)) = known(&mut self.client, &path)? else {
            let mut body = json!({ "machine": name });
            if let Some(policy) = &entry.policy {
                body["policy"] = json!(policy);
            }
            if let Some(disks) = &entry.disks {
                body["disks"] = json!(disks);
            }
            let list = self.remote.path("/replicated-items");
            self.add(format!("protect {name}"), Method::POST, list, body, None);
            if !entry.target.values().is_empty() {
                self.left.push(format!(
                    "target settings of {name}: they are set when the file is applied again, once it is an item"
                ));
            }
            return Ok(());
        };
        if let Some(policy) = entry.policy.as_ref().filter(|policy| there["policy"] != **policy) {
            let what = format!(
                "{name} follows the policy {policy} in place of {}",
                text(&there, "policy")
            );
            self.add(
                what,
                Method::PUT,
                format!("{path}/policy"),
                json!({ "policy": policy }),
                None,
            );
        }
        let mut target = there["target"].clone();
        let mut differs = Vec::new();
        for (field, value) in entry.target.values() {
            if target[&field] != value {
                differs.push(format!("{field} {} -> {value}", target[&field]));
                target[&field] = value;
            }
        }
        if !differs.is_empty() {
            let what = format!("change the target of {name}: {}", differs.join(", "));
            self.add(what, Method::PUT, format!("{path}/target-settings"), target, None);
        }
        if let Some(wanted) = &entry.disks {
            let disks = there["disks"].as_array().into_iter().flatten();
            let protected: Vec<String> = disks.map(|disk| text(disk, "stableId")).collect();
            let fresh: Vec<&String> = wanted.iter().filter(|disk| !protected.contains(disk)).collect();
            for disk in protected.iter().filter(|disk| !wanted.contains(disk)) {
                self.left.push(format!(
                    "disk {disk} of {name} stays protected; to exclude it: lifeboat machine set-disks {name} --disk ..."
                ));
            }
            if !fresh.is_empty() {
                let all: Vec<&String> = protected.iter().chain(fresh.iter().copied()).collect();
                let what = format!("include {} disks of {name}", fresh.len());
                self.add(
                    what,
                    Method::PUT,
                    format!("{path}/disks"),
                    json!({ "disks": all }),
                    None,
                );
            }
        }
        Ok(())
    }

    fn others(&mut self, site: &Site) -> Result<(), Failure> {
        let items = self
            .client
            .list(&self.remote.path("/replicated-items"), usize::MAX)?;
        for item in items {
            let name = text(&item, "name");
            let is_named =
                |entry: &ItemEntry| entry.machine.eq_ignore_ascii_case(&name) || item["id"] == *entry.machine;
            if !site.item.iter().any(is_named) {
                self.left.push(format!(
                    "{name} stays protected; to end it: lifeboat unprotect {name}"
                ));
            }
        }
        Ok(())
    }
}

pub fn run(args: &ApplyArgs) -> Result<(), Failure> {
    let remote = &args.remote;
    let content = if args.file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(&args.file)
    };
    let content = content.map_err(|error| super::failure::on_file("read", &args.file, error))?;
    let site: Site = toml::from_str(&content).map_err(|error| {
        usage(
            format!("{}: {}", args.file.display(), error.to_string().trim()),
            "see what the file may hold: lifeboat apply --help",
        )
    })?;
    let mut plan = Plan {
        remote,
        client: remote.client()?,
        changes: Vec::new(),
        left: Vec::new(),
    };
    for entry in &site.policy {
        plan.policy(entry)?;
    }
    plan.users(&site.user)?;
    for entry in &site.item {
        plan.item(entry)?;
    }
    plan.groups(&site.group)?;
    plan.plans(&site.plan)?;
    plan.others(&site)?;
    let Plan {
        mut client,
        changes,
        left,
        ..
    } = plan;
    let mut done = Vec::new();
    for change in &changes {
        if args.dry_run {
            done.push(vec!["would".to_owned(), change.what.clone()]);
            continue;
        }
        let mut headers = Vec::new();
        if let Some(etag) = &change.etag {
            headers.push(("if-match", etag.as_str()));
        }
        let answer = match client.request(change.method.clone(), &change.path, Some(&change.body), &headers) {
            Ok(answer) => answer,
            Err(error) => {
                // What was done stays; the file is applied again when the cause is gone.
                report(remote, args.dry_run, &done, &left);
                let mut failure = Failure::from(error);
                failure.message = format!("cannot {}: {}", change.what, failure.message);
                return Err(failure);
            }
        };
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let mut what = change.what.clone();
        if let Some(password) = body["oneTimePassword"].as_str() {
            what = format!("{what}; one-time password {password}");
        }
        if let Some(job) = body["job"]["id"].as_str() {
            what = format!("{what}; see it: lifeboat job watch {job}");
        }
        done.push(vec!["done".to_owned(), what]);
    }
    report(remote, args.dry_run, &done, &left);
    Ok(())
}

fn report(remote: &Remote, dry_run: bool, done: &[Vec<String>], left: &[String]) {
    if remote.json {
        let changes: Vec<&String> = done.iter().filter_map(|row| row.get(1)).collect();
        return say_json(&json!({ "dryRun": dry_run, "changes": changes, "leftAlone": left }));
    }
    if done.is_empty() {
        say("nothing to change: the site is as the file says");
    } else {
        table(&["", "CHANGE"], done.to_vec());
    }
    for line in left {
        hint(&format!("left alone: {line}"));
    }
}
