//! `lifeboat plan`: recovery plans, made, checked and run.
use super::failure::Failure;
use super::machine::done;
use super::remote::{Remote, ago, confirm, facts, hint, say, say_json, segment, table, text, usage};
use super::watch::{Display, Patience, Waiting};
use crate::api::client::Client;
use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[derive(Args)]
#[command(after_help = "Examples:
  lifeboat plan create site --group db1 --group app1,web1
  lifeboat plan show site --json > site.json           all of it, to be edited
  lifeboat plan edit site -f site.json
  lifeboat plan validate site
  lifeboat plan test site
  lifeboat plan run resume site --comment 'checked by Ann'
  lifeboat plan cleanup site --notes 'all well'
Exit codes beyond those of other commands: 3 when a run waits for a person.")]
pub struct PlanArgs {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    verb: Verb,
}

const POINT: &str = "latest, latest-processed, latest-app-consistent, latest-crash-consistent; latest-multi-vm, latest-multi-vm-app-consistent: machines of a replication group at one instant";

#[derive(Subcommand)]
enum Verb {
    /// All plans
    #[command(visible_alias = "ls")]
    List,
    /// One plan; with --json as `edit -f` takes it
    Show { name: String },
    /// Make a plan
    Create {
        name: String,
        /// Machines of a group, separated by commas; once for each group, in their order
        #[arg(long = "group", value_name = "MACHINE,...", conflicts_with = "file")]
        groups: Vec<String>,
        /// All of it, as `plan show --json` prints it
        #[arg(short, long)]
        file: Option<PathBuf>,
    },
    /// Replace a plan by what a file says, for runs from now on
    Edit {
        name: String,
        /// As `plan show --json` prints it
        #[arg(short, long)]
        file: PathBuf,
    },
    /// Remove a plan; its machines stay as they are
    Delete { name: String },
    /// Check a plan against the site as it is now
    Validate { name: String },
    /// Scripts on the server that plans may use
    Scripts,
    /// Start copies of all machines in an isolated network
    Test {
        name: String,
        #[arg(long, default_value = "latest-processed", help = POINT)]
        point: String,
        /// Isolated network in place of the plan's
        #[arg(long)]
        network: Option<String>,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Remove the machines of a test
    Cleanup {
        name: String,
        /// What was seen; kept with the run
        #[arg(long, default_value = "")]
        notes: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Start all machines at the target for real; their sources are fenced
    Failover {
        name: String,
        #[arg(long, default_value = "latest", help = POINT)]
        point: String,
        /// The plan's name once more
        #[arg(long, value_name = "NAME")]
        confirm: Option<String>,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Shut all machines down at the source and start them at the target, without loss
    Planned(Severe),
    /// Take the failover of all machines back; what they wrote since is discarded
    CancelFailover(Severe),
    /// Replicate all machines in the other direction; each receives itself with `lifeboat agent receive`
    Reprotect(Severe),
    /// Bring all machines home
    Failback(Severe),
    /// Keep the failover of all machines
    Commit(Severe),
    /// Runs of a plan: list, show, stop, resume, skip, cancel
    #[command(subcommand)]
    Run(RunVerb),
}

#[derive(Args)]
struct Severe {
    name: String,
    /// The plan's name once more
    #[arg(long, value_name = "NAME")]
    confirm: Option<String>,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(Args)]
struct Which {
    /// Plan
    name: String,
    /// Id of the run; left out: the newest
    #[arg(long, value_name = "ID", default_value = "latest")]
    run: String,
}

#[derive(Args)]
struct Decision {
    #[command(flatten)]
    which: Which,
    /// Number of the step, as `run show` prints it
    #[arg(long)]
    step: Option<u64>,
    /// What was done or seen; kept with the step
    #[arg(long, default_value = "")]
    comment: String,
    /// Return at once; do not follow the run
    #[arg(long)]
    no_wait: bool,
}

#[derive(Subcommand)]
enum RunVerb {
    /// Runs of a plan, the newest first
    #[command(visible_alias = "ls")]
    List { name: String },
    /// One run with its steps
    Show(Which),
    /// Follow a run until it is over or waits for a person
    Watch(Which),
    /// Nothing new begins until it is resumed
    Stop(Which),
    /// It goes on: a manual action is done, a failed step is tried again
    Resume(Decision),
    /// It goes on without a step
    Skip(Decision),
    /// End it for good; what was started stays
    Cancel(Which),
}

pub(super) const FIELDS: [&str; 5] = [
    "groups",
    "onMachineFailure",
    "testNetwork",
    "onFailure",
    "afterCleanup",
];

/// The plan alone, of all that the server tells of it.
fn document(plan: &Value) -> Value {
    let mut document = json!({ "name": plan["name"] });
    for field in FIELDS {
        document[field] = plan[field].clone();
    }
    document
}

fn read(file: &Path) -> Result<Value, Failure> {
    let bytes = std::fs::read(file).map_err(|error| super::failure::on_file("read", file, error))?;
    let plan: Value = serde_json::from_slice(&bytes).map_err(|error| {
        usage(
            format!("{}: {error}", file.display()),
            "it is JSON, as plan show --json prints it",
        )
    })?;
    Ok(plan)
}

/// Of what `show --json` printed, with fields that the server adds.
fn editable(plan: Value) -> Value {
    let mut body = json!({});
    for field in FIELDS.into_iter().chain(["name"]) {
        if let Some(value) = plan.get(field).filter(|value| !value.is_null()) {
            body[field] = value.clone();
        }
    }
    body
}

pub fn run(args: &PlanArgs) -> Result<(), Failure> {
    let remote = &args.remote;
    let mut client = remote.client()?;
    let plans = remote.path("/recovery-plans");
    let path = |name: &str, rest: &str| format!("{plans}/{}{rest}", segment(name));
    match &args.verb {
        Verb::List => list(&mut client, remote, &plans)?,
        Verb::Show { name } => {
            let plan: Value = client.get(&path(name, ""))?;
            if remote.json {
                say_json(&document(&plan));
            } else {
                show(&plan);
            }
        }
        Verb::Create { name, groups, file } => {
            let mut body = match file {
                Some(file) => editable(read(file)?),
                None => {
                    let group = |(place, machines): (usize, &String)| {
                        let machines: Vec<&str> = machines
                            .split(',')
                            .map(str::trim)
                            .filter(|name| !name.is_empty())
                            .collect();
                        json!({ "name": format!("Group {}", place + 1), "machines": machines })
                    };
                    json!({ "groups": groups.iter().enumerate().map(group).collect::<Vec<_>>() })
                }
            };
            body["name"] = json!(name);
            let plan: Value = client.post(&plans, &body)?;
            if remote.json {
                say_json(&document(&plan));
            } else {
                show(&plan);
                hint(&format!(
                    "next: lifeboat plan validate {name}; lifeboat plan test {name}"
                ));
            }
        }
        Verb::Edit { name, file } => {
            let known = client.request(Method::GET, &path(name, ""), None, &[])?;
            let etag = known.etag.clone().unwrap_or_default();
            let body = editable(read(file)?);
            let changed =
                client.request(Method::PUT, &path(name, ""), Some(&body), &[("if-match", &etag)])?;
            let plan: Value = changed.json()?;
            if remote.json {
                say_json(&document(&plan));
            } else {
                show(&plan);
            }
        }
        Verb::Delete { name } => {
            client.request(Method::DELETE, &path(name, ""), None, &[])?;
            done(remote, &format!("the recovery plan {name} is removed"));
        }
        Verb::Validate { name } => validate(&mut client, remote, name, &path(name, "/checks"))?,
        Verb::Scripts => {
            let known: Value = client.get(&remote.path("/plan-scripts"))?;
            if remote.json {
                say_json(&known);
                return Ok(());
            }
            let names: Vec<&str> = known["scripts"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            if names.is_empty() {
                hint(&format!(
                    "no scripts yet; on the server put executables into {}",
                    text(&known, "folder")
                ));
            }
            names.iter().for_each(|name| say(name));
        }
        Verb::Test {
            name,
            point,
            network,
            waiting,
        } => {
            let mut body = json!({ "recoveryPoint": point });
            if let Some(network) = network {
                body["testNetwork"] = json!(network);
            }
            let accepted: Value = client.post(&path(name, "/test-failover"), &body)?;
            follow(&mut client, remote, &accepted, waiting)?;
            if !waiting.no_wait && !remote.json {
                hint(&format!("next: lifeboat plan cleanup {name} --notes '...'"));
            }
        }
        Verb::Cleanup { name, notes, waiting } => {
            let accepted: Value =
                client.post(&path(name, "/test-failover-cleanup"), &json!({ "notes": notes }))?;
            follow(&mut client, remote, &accepted, waiting)?;
        }
        Verb::Failover {
            name,
            point,
            confirm: given,
            waiting,
        } => {
            let question = "Fail all machines of the plan over? They are started at the target; their sources are fenced and must not be used.";
            let name = named(&mut client, &path(name, ""), given.as_deref(), question)?;
            let body = json!({ "recoveryPoint": point });
            let accepted: Value = client.post(&path(&name, "/unplanned-failover"), &body)?;
            follow(&mut client, remote, &accepted, waiting)?;
            if !waiting.no_wait && !remote.json {
                hint(&format!("next: lifeboat plan commit {name}"));
            }
        }
        Verb::Planned(severe) => {
            let question = "Fail all machines of the plan over? They are shut down at the source and started at the target.";
            order(&mut client, remote, severe, "planned-failover", question)?;
        }
        Verb::CancelFailover(severe) => {
            let question = "Take the failover of all machines of the plan back? What they wrote at the target is discarded.";
            order(&mut client, remote, severe, "cancel-failover", question)?;
        }
        Verb::Reprotect(severe) => {
            let question =
                "Reprotect all machines of the plan? Replication goes in the other direction from then on.";
            order(&mut client, remote, severe, "reprotect", question)?;
        }
        Verb::Failback(severe) => {
            let question = "Bring all machines of the plan home? They are stopped at the target.";
            order(&mut client, remote, severe, "failback", question)?;
        }
        Verb::Commit(severe) => {
            let question =
                "Commit the failover of all machines of the plan? Their other recovery points are removed.";
            order(&mut client, remote, severe, "commit", question)?;
        }
        Verb::Run(verb) => runs(&mut client, remote, verb)?,
    }
    Ok(())
}

/// An order that must be confirmed.
fn order(
    client: &mut Client,
    remote: &Remote,
    severe: &Severe,
    verb: &str,
    question: &str,
) -> Result<(), Failure> {
    let path = |name: &str, rest: &str| remote.path(&format!("/recovery-plans/{}{rest}", segment(name)));
    let name = named(
        client,
        &path(&severe.name, ""),
        severe.confirm.as_deref(),
        question,
    )?;
    let accepted: Value = client.post(&path(&name, &format!("/{verb}")), &json!({}))?;
    follow(client, remote, &accepted, &severe.waiting)
}

/// The plan's name as the server has it, after the person has given it once more.
fn named(client: &mut Client, path: &str, given: Option<&str>, question: &str) -> Result<String, Failure> {
    let plan: Value = client.get(path)?;
    let name = text(&plan, "name");
    confirm(&name, given, question)?;
    Ok(name)
}

fn list(client: &mut Client, remote: &Remote, plans: &str) -> Result<(), Failure> {
    let plans = client.list(plans, usize::MAX)?;
    if remote.json {
        say_json(&json!({ "items": plans }));
        return Ok(());
    }
    if plans.is_empty() {
        hint("no recovery plans yet; make one: lifeboat plan create NAME --group MACHINE,...");
        return Ok(());
    }
    let row = |plan: &Value| {
        let last = &plan["lastRun"];
        let last_run = match last.is_null() {
            true => String::new(),
            false => format!("{}: {}", text(last, "scenario"), text(last, "state")),
        };
        vec![
            text(plan, "name"),
            plan["groups"].as_array().map_or(0, Vec::len).to_string(),
            text(plan, "machineCount"),
            last_run,
            ago(plan, "lastSuccessfulTestFailoverAt"),
        ]
    };
    table(
        &["NAME", "GROUPS", "MACHINES", "LAST RUN", "LAST GOOD TEST"],
        plans.iter().map(row).collect(),
    );
    Ok(())
}

fn validate(client: &mut Client, remote: &Remote, name: &str, path: &str) -> Result<(), Failure> {
    let checks: Value = client.get(path)?;
    let problems = checks["problems"].as_array().cloned().unwrap_or_default();
    if remote.json {
        say_json(&checks);
    } else if problems.is_empty() {
        say(&format!("{name}: nothing stands in the way of a test failover"));
    } else {
        let row = |problem: &Value| {
            vec![
                text(problem, "severity"),
                text(problem, "object"),
                text(problem, "message"),
                text(problem, "recommendedAction"),
            ]
        };
        table(
            &["SEVERITY", "OBJECT", "PROBLEM", "ACTION"],
            problems.iter().map(row).collect(),
        );
    }
    if problems.iter().any(|problem| problem["severity"] == "Error") {
        return Err(Failure {
            code: 3,
            message: format!("{name}: {} problems", problems.len()),
            causes: "the plan does not fit the site as it is now".into(),
            action: "see the list above".into(),
        });
    }
    Ok(())
}

/// All of an action in one line: what it does, with what, and when it is left out.
fn words_of(action: &Value) -> String {
    let mut words = format!("{}: {}", text(action, "kind"), text(action, "name"));
    let strings = |field: &str| -> Vec<String> {
        let list = action[field].as_array().into_iter().flatten();
        list.filter_map(|entry| entry.as_str().map(str::to_owned))
            .collect()
    };
    // As one would type it, so that an empty one or one with a blank is seen.
    let quoted = |argument: &String| match argument
        .chars()
        .all(|c| c.is_alphanumeric() || "-_./:=".contains(c))
    {
        true if !argument.is_empty() => argument.clone(),
        _ => format!("{argument:?}"),
    };
    let mut call = vec![text(action, "script")];
    call.extend(strings("arguments").iter().map(quoted));
    let call = call.join(" ");
    let mut details = vec![match action["kind"].as_str() {
        Some("script") => call,
        Some("command") => format!("{call} in the network of {}", text(action, "machine")),
        Some("probe") => ["protocol", "port", "path"]
            .iter()
            .map(|field| text(action, field))
            .filter(|part| !part.is_empty())
            .chain([format!("of {}", text(action, "machine"))])
            .collect::<Vec<_>>()
            .join(" "),
        Some("delay") => format!("{} s", text(action, "seconds")),
        _ => text(action, "instructions"),
    }];
    if !action["status"].is_null() {
        details.push(format!("status {}", text(action, "status")));
    }
    if !action["timeoutSeconds"].is_null() {
        details.push(format!("up to {} s", text(action, "timeoutSeconds")));
    }
    if !strings("failoverTypes").is_empty() {
        details.push(format!("only at {}", strings("failoverTypes").join(", ")));
    }
    if !strings("directions").is_empty() {
        details.push(format!("only {}", strings("directions").join(", ")));
    }
    details.retain(|detail| !detail.is_empty());
    if !details.is_empty() {
        words += &format!(" ({})", details.join("; "));
    }
    words
}

fn show(plan: &Value) {
    facts(&[
        ("name", text(plan, "name")),
        ("when a machine fails", text(plan, "onMachineFailure")),
        ("network of a test", text(plan, "testNetwork")),
        ("last run", text(&plan["lastRun"], "state")),
        ("last good test", ago(plan, "lastSuccessfulTestFailoverAt")),
    ]);
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for (number, group) in list(&plan["groups"]).iter().enumerate() {
        say(&format!("group {} {}", number + 1, text(group, "name")));
        let machines: Vec<String> = list(&group["machines"])
            .iter()
            .filter_map(|machine| machine.as_str().map(str::to_owned))
            .collect();
        list(&group["before"])
            .iter()
            .for_each(|action| say(&format!("  before  {}", words_of(action))));
        say(&format!("  start   {}", machines.join(", ")));
        list(&group["after"])
            .iter()
            .for_each(|action| say(&format!("  after   {}", words_of(action))));
    }
    list(&plan["onFailure"])
        .iter()
        .for_each(|action| say(&format!("on failure     {}", words_of(action))));
    list(&plan["afterCleanup"])
        .iter()
        .for_each(|action| say(&format!("after cleanup  {}", words_of(action))));
}

fn title(run: &Value) -> String {
    format!(
        "{} of the plan {}",
        text(run, "scenario"),
        text(&run["plan"], "name")
    )
}

fn steps(run: &Value) -> Vec<Value> {
    run["steps"].as_array().cloned().unwrap_or_default()
}

fn line(run: &Value) -> String {
    let steps = steps(run);
    let over = |step: &&Value| matches!(step["state"].as_str(), Some("Succeeded" | "Failed" | "Skipped"));
    let busy: Vec<String> = steps
        .iter()
        .filter(|step| step["state"] == "InProgress")
        .map(|step| match text(step, "message") {
            message if message.is_empty() => text(step, "name"),
            message => format!("{} ({message})", text(step, "name")),
        })
        .collect();
    format!(
        "{} {}/{}: {}",
        title(run),
        steps.iter().filter(over).count(),
        steps.len(),
        busy.join(", ")
    )
}

/// Follows a run until it is over or waits for a person, and says what came of it.
fn follow(client: &mut Client, remote: &Remote, accepted: &Value, waiting: &Waiting) -> Result<(), Failure> {
    let run = &accepted["run"];
    let (id, plan) = (text(run, "id"), text(&run["plan"], "name"));
    if waiting.no_wait {
        if remote.json {
            say_json(accepted);
        } else {
            say(&format!("{}: run {id}", title(run)));
            hint(&format!("next: lifeboat plan run watch {plan}"));
        }
        return Ok(());
    }
    watch(client, remote, &plan, &id, waiting.timeout)
}

fn run_path(remote: &Remote, plan: &str, run: &str, rest: &str) -> String {
    remote.path(&format!(
        "/recovery-plans/{}/runs/{}{rest}",
        segment(plan),
        segment(run)
    ))
}

fn watch(
    client: &mut Client,
    remote: &Remote,
    plan: &str,
    id: &str,
    timeout: Option<u64>,
) -> Result<(), Failure> {
    let path = run_path(remote, plan, id, "");
    let mut display = Display::new(remote.json);
    let mut patience = Patience::new(client, timeout, format!("the run of the plan {plan}"))?;
    loop {
        if let Some(run) = patience.get(client, &path)? {
            // A word that was just said has not been heard by the engine yet.
            let waits = run["state"] == "Suspended";
            if waits || matches!(run["state"].as_str(), Some("Succeeded" | "Failed" | "Cancelled")) {
                drop(display);
                return ended(remote, &run);
            }
            display.show(
                &line(&run),
                || json!({ "message_type": "status", "run": run.clone() }),
            );
        }
        patience.pause(client)?;
    }
}

fn ended(remote: &Remote, run: &Value) -> Result<(), Failure> {
    let error = &run["error"];
    if remote.json {
        say(&json!({ "message_type": "summary", "run": run }).to_string());
    } else {
        show_run(run);
    }
    let plan = text(&run["plan"], "name");
    match run["state"].as_str() {
        Some("Succeeded") => Ok(()),
        Some("Suspended") => Err(Failure {
            code: 3,
            message: format!("{} waits for a person: {}", title(run), text(run, "waitsFor")),
            causes: "a manual action, a failed step of a plan that asks, or a stop".into(),
            action: format!("lifeboat plan run resume {plan} --comment '...', or skip, or cancel").into(),
        }),
        Some("Cancelled") => Err(Failure {
            code: 1,
            message: format!("{} was cancelled", title(run)),
            causes: "somebody cancelled it".into(),
            action: "what was started stays; clean it up: lifeboat plan cleanup".into(),
        }),
        _ => Err(Failure {
            code: 1,
            message: format!("{} failed: {}", title(run), text(error, "message")),
            causes: text(error, "possibleCauses").into(),
            action: text(error, "recommendedAction").into(),
        }),
    }
}

fn figure(run: &Value, name: &str) -> String {
    run["result"][name]
        .as_f64()
        .map(|seconds| format!("{seconds:.1} s"))
        .unwrap_or_default()
}

fn show_run(run: &Value) {
    facts(&[
        ("run", text(run, "id")),
        ("operation", title(run)),
        ("state", text(run, "state")),
        ("waits for", text(run, "waitsFor")),
        ("by", text(run, "user")),
        ("recovery point", text(run, "recoveryPoint")),
        ("RPO, the oldest point", figure(run, "rpoSeconds")),
        ("RTO, the last machine", figure(run, "rtoSeconds")),
        ("RTO, the whole plan", figure(run, "planRtoSeconds")),
    ]);
    let row = |step: &Value| {
        let group = match step["group"].as_u64() {
            Some(group) => (group + 1).to_string(),
            None => String::new(),
        };
        let mut message = text(step, "message");
        for part in [text(step, "decidedBy"), text(step, "comment")] {
            if !part.is_empty() && !message.contains(&part) {
                message = format!("{message} {part}").trim().to_owned();
            }
        }
        vec![
            text(step, "index"),
            group,
            text(step, "kind"),
            text(step, "name"),
            text(step, "state"),
            message,
        ]
    };
    table(
        &["STEP", "GROUP", "KIND", "NAME", "STATE", "MESSAGE"],
        steps(run).iter().map(row).collect(),
    );
}

fn runs(client: &mut Client, remote: &Remote, verb: &RunVerb) -> Result<(), Failure> {
    let mut order = |which: &Which, word: &str| -> Result<(), Failure> {
        let path = run_path(remote, &which.name, &which.run, &format!("/{word}"));
        let accepted: Value = client.post(&path, &json!({}))?;
        done(remote, &format!("{}: {word}", title(&accepted["run"])));
        Ok(())
    };
    match verb {
        RunVerb::Stop(which) => order(which, "stop")?,
        RunVerb::Cancel(which) => order(which, "cancel")?,
        RunVerb::List { name } => {
            let path = remote.path(&format!("/recovery-plans/{}/runs", segment(name)));
            let runs = client.list(&path, 1000)?;
            if remote.json {
                say_json(&json!({ "items": runs }));
                return Ok(());
            }
            let row = |run: &Value| {
                vec![
                    text(run, "id"),
                    text(run, "scenario"),
                    text(run, "state"),
                    text(run, "user"),
                    ago(run, "createdAt"),
                    figure(run, "rtoSeconds"),
                    figure(run, "rpoSeconds"),
                ]
            };
            table(
                &["RUN", "OPERATION", "STATE", "BY", "STARTED", "RTO", "RPO"],
                runs.iter().map(row).collect(),
            );
        }
        RunVerb::Show(which) => {
            let run: Value = client.get(&run_path(remote, &which.name, &which.run, ""))?;
            if remote.json {
                say_json(&run);
            } else {
                show_run(&run);
            }
        }
        RunVerb::Watch(which) => watch(client, remote, &which.name, &which.run, None)?,
        RunVerb::Resume(decision) | RunVerb::Skip(decision) => {
            let word = if matches!(verb, RunVerb::Resume(_)) {
                "resume"
            } else {
                "skip"
            };
            let mut body = json!({ "comment": decision.comment });
            if let Some(step) = decision.step {
                body["step"] = json!(step);
            }
            let which = &decision.which;
            let path = run_path(remote, &which.name, &which.run, &format!("/{word}"));
            let accepted: Value = client.post(&path, &body)?;
            let waiting = Waiting {
                no_wait: decision.no_wait,
                timeout: None,
            };
            follow(client, remote, &accepted, &waiting)?;
        }
    }
    Ok(())
}
