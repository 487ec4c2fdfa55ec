//! Replication groups and recovery plans of a site's file. A plan is replaced where it differs; a group only grows.
use super::{Plan as Changes, known};
use crate::cli::failure::Failure;
use crate::cli::remote::{segment, text};
use hyper::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::HashMap;

/// As the API has it where an action names none.
const TIMEOUT_SECONDS: u32 = 300;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupEntry {
    pub(super) name: String,
    /// Left out: they stay as they are.
    members: Option<Vec<String>>,
    share_seconds: Option<u32>,
    app_consistent_seconds: Option<u32>,
}

impl GroupEntry {
    fn values(&self) -> impl Iterator<Item = (&'static str, u32)> {
        [
            ("shareSeconds", self.share_seconds),
            ("appConsistentSeconds", self.app_consistent_seconds),
        ]
        .into_iter()
        .filter_map(|(field, value)| Some((field, value?)))
    }
}

/// What is left out stays as it is, or has the default.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlanEntry {
    pub(super) name: String,
    group: Option<Vec<BootGroup>>,
    on_machine_failure: Option<String>,
    test_network: Option<String>,
    on_failure: Option<Vec<Action>>,
    after_cleanup: Option<Vec<Action>>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct BootGroup {
    #[serde(default)]
    name: String,
    #[serde(default)]
    machines: Vec<String>,
    #[serde(default)]
    before: Vec<Action>,
    #[serde(default)]
    after: Vec<Action>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all(serialize = "camelCase"))]
struct Action {
    name: String,
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    script: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    arguments: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    machine: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instructions: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_seconds: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    failover_types: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    directions: Vec<String>,
}

/// Names of machines as the server writes them, by what a file may call them.
struct Names(HashMap<String, String>);

impl Names {
    fn canonical(&self, given: &str) -> String {
        let found = self.0.get(&given.to_lowercase());
        found.cloned().unwrap_or_else(|| given.to_owned())
    }

    fn action(&self, action: &Action) -> Value {
        let mut value = json!(action);
        if let Some(machine) = &action.machine {
            value["machine"] = json!(self.canonical(machine));
        }
        if ["script", "command", "probe"].contains(&action.kind.as_str()) && action.timeout_seconds.is_none()
        {
            value["timeoutSeconds"] = json!(TIMEOUT_SECONDS);
        }
        value
    }

    fn actions(&self, actions: &[Action]) -> Value {
        actions.iter().map(|action| self.action(action)).collect()
    }

    fn group(&self, group: &BootGroup) -> Value {
        let machines: Vec<String> = group.machines.iter().map(|name| self.canonical(name)).collect();
        json!({ "name": group.name, "machines": machines, "before": self.actions(&group.before),
            "after": self.actions(&group.after) })
    }

    /// The fields that the file gives.
    fn plan(&self, entry: &PlanEntry) -> Vec<(&'static str, Value)> {
        let groups = |groups: &Vec<BootGroup>| groups.iter().map(|group| self.group(group)).collect();
        let fields = [
            ("groups", entry.group.as_ref().map(groups)),
            (
                "onMachineFailure",
                entry.on_machine_failure.as_ref().map(|mode| json!(mode)),
            ),
            // As there is no null in a file: an empty name is none.
            (
                "testNetwork",
                entry.test_network.as_ref().map(|name| match name.as_str() {
                    "" => Value::Null,
                    name => json!(name),
                }),
            ),
            (
                "onFailure",
                entry.on_failure.as_ref().map(|actions| self.actions(actions)),
            ),
            (
                "afterCleanup",
                entry.after_cleanup.as_ref().map(|actions| self.actions(actions)),
            ),
        ];
        fields
            .into_iter()
            .filter_map(|(field, value)| Some((field, value?)))
            .collect()
    }
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

/// `+look` was not there, `-look` is there no more, `look` is another now; `order` where nothing else differs.
fn actions_differ(there: &Value, wanted: &Value) -> String {
    let (there, wanted) = (list(there), list(wanted));
    let of = |all: &[Value], name: &Value| all.iter().find(|action| action["name"] == *name).cloned();
    let mut differs = Vec::new();
    for action in &wanted {
        match of(&there, &action["name"]) {
            None => differs.push(format!("+{}", text(action, "name"))),
            Some(known) if known != *action => differs.push(text(action, "name")),
            Some(_) => {}
        }
    }
    for action in there
        .iter()
        .filter(|action| of(&wanted, &action["name"]).is_none())
    {
        differs.push(format!("-{}", text(action, "name")));
    }
    if differs.is_empty() {
        differs.push("order".to_owned());
    }
    differs.join(" ")
}

fn machines(group: &Value) -> String {
    let names: Vec<String> = list(&group["machines"])
        .iter()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(" ")
    }
}

fn groups_differ(there: &Value, wanted: &Value) -> Vec<String> {
    let (there, wanted) = (list(there), list(wanted));
    let mut differs = Vec::new();
    for number in 0..there.len().max(wanted.len()) {
        let at = number + 1;
        match (there.get(number), wanted.get(number)) {
            (Some(before), Some(after)) => {
                if before["name"] != after["name"] {
                    differs.push(format!("group {at} name {} -> {}", before["name"], after["name"]));
                }
                if before["machines"] != after["machines"] {
                    differs.push(format!(
                        "group {at} machines {} -> {}",
                        machines(before),
                        machines(after)
                    ));
                }
                for list in ["before", "after"] {
                    if before[list] != after[list] {
                        let which = actions_differ(&before[list], &after[list]);
                        differs.push(format!("group {at} {list}: {which}"));
                    }
                }
            }
            (None, Some(after)) => differs.push(format!("+group {at} with {}", machines(after))),
            (Some(before), None) => differs.push(format!("-group {at} with {}", machines(before))),
            (None, None) => {}
        }
    }
    differs
}

fn differences(field: &str, there: &Value, wanted: &Value) -> Vec<String> {
    match field {
        "groups" => groups_differ(there, wanted),
        "onFailure" | "afterCleanup" => vec![format!("{field}: {}", actions_differ(there, wanted))],
        _ => vec![format!("{field} {there} -> {wanted}")],
    }
}

impl Changes<'_> {
    pub(super) fn groups(&mut self, entries: &[GroupEntry]) -> Result<(), Failure> {
        let all = self
            .client
            .list(&self.remote.path("/replication-groups"), usize::MAX)?;
        for group in &all {
            let name = text(group, "name");
            if !entries.iter().any(|entry| entry.name == name) {
                self.left.push(format!(
                    "the replication group {name} stays; to remove it: lifeboat group delete {name}"
                ));
            }
        }
        if entries.is_empty() {
            return Ok(());
        }
        let names = self.names()?;
        for entry in entries {
            let name = &entry.name;
            let path = self
                .remote
                .path(&format!("/replication-groups/{}", segment(name)));
            let members: Vec<String> = entry
                .members
                .iter()
                .flatten()
                .map(|name| names.canonical(name))
                .collect();
            let Some((there, etag)) = known(&mut self.client, &path)? else {
                let mut body = json!({ "name": name, "members": members });
                for (field, value) in entry.values() {
                    body[field] = json!(value);
                }
                let what = format!("create the replication group {name} of {}", members.join(" "));
                let list = self.remote.path("/replication-groups");
                self.add(what, Method::POST, list, body, None);
                continue;
            };
            let mut body = json!({});
            let mut differs = Vec::new();
            for (field, value) in entry
                .values()
                .filter(|(field, value)| there[field] != json!(value))
            {
                differs.push(format!("{field} {} -> {value}", there[field]));
                body[field] = json!(value);
            }
            if !differs.is_empty() {
                let what = format!("change the replication group {name}: {}", differs.join(", "));
                self.add(what, Method::PUT, path.clone(), body, etag);
            }
            let held: Vec<String> = list(&there["members"])
                .iter()
                .map(|member| text(member, "name"))
                .collect();
            for machine in members.iter().filter(|machine| !held.contains(machine)) {
                let what = format!("take {machine} into the replication group {name}");
                let body = json!({ "machine": machine });
                self.add(what, Method::POST, format!("{path}/members"), body, None);
            }
            for machine in held
                .iter()
                .filter(|machine| entry.members.is_some() && !members.contains(machine))
            {
                self.left.push(format!(
                    "{machine} stays in the replication group {name}; to take it out: lifeboat group remove {name} {machine}"
                ));
            }
        }
        Ok(())
    }

    pub(super) fn plans(&mut self, entries: &[PlanEntry]) -> Result<(), Failure> {
        let all = self
            .client
            .list(&self.remote.path("/recovery-plans"), usize::MAX)?;
        for plan in &all {
            let name = text(plan, "name");
            if !entries.iter().any(|entry| entry.name == name) {
                self.left.push(format!(
                    "the recovery plan {name} stays; to remove it: lifeboat plan delete {name}"
                ));
            }
        }
        if entries.is_empty() {
            return Ok(());
        }
        let names = self.names()?;
        for entry in entries {
            let name = &entry.name;
            let path = self.remote.path(&format!("/recovery-plans/{}", segment(name)));
            let wanted = names.plan(entry);
            let Some((there, etag)) = known(&mut self.client, &path)? else {
                let mut body = json!({ "name": name });
                for (field, value) in wanted {
                    body[field] = value;
                }
                let groups = groups_differ(&Value::Null, &body["groups"]).join(", ");
                let what = format!("create the recovery plan {name}: {groups}");
                let list = self.remote.path("/recovery-plans");
                self.add(
                    what.trim_end_matches(": ").to_owned(),
                    Method::POST,
                    list,
                    body,
                    None,
                );
                continue;
            };
            // All of it is sent: what the file leaves out, as it is there.
            let mut body = json!({});
            for field in crate::cli::plan::FIELDS {
                body[field] = there[field].clone();
            }
            let mut differs = Vec::new();
            for (field, value) in wanted.into_iter().filter(|(field, value)| there[field] != *value) {
                differs.extend(differences(field, &there[field], &value));
                body[field] = value;
            }
            if !differs.is_empty() {
                let what = format!("change the recovery plan {name}: {}", differs.join(", "));
                self.add(what, Method::PUT, path, body, etag);
            }
        }
        Ok(())
    }

    fn names(&mut self) -> Result<Names, Failure> {
        let machines = self.client.list(&self.remote.path("/machines"), usize::MAX)?;
        let mut names = HashMap::new();
        for machine in machines {
            let name = text(&machine, "name");
            names.insert(text(&machine, "id").to_lowercase(), name.clone());
            names.insert(name.to_lowercase(), name);
        }
        Ok(Names(names))
    }
}
