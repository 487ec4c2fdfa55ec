//! A person declares a site in a file, looks at the plan, applies it, and applies it again; and manages vaults, machines and
//! jobs from the command line.
#[path = "support/site.rs"]
mod site;

use lifeboat::recovery::Journal;
use serde_json::{Value, json};
use site::TestServer;
use std::process::{Command, Output, Stdio};

const SITE: &str = r#"
[[policy]]
name = "gold"
crash_consistent_seconds = 10
retention_hours = 72

[[user]]
name = "olga"
role = "Operator"

[[item]]
machine = "web1"
policy = "gold"
target = { cpus = 3 }

[[item]]
machine = "web2"
"#;

fn run(server: &TestServer, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lifeboat"))
        .env_clear()
        .env("LIFEBOAT_DATA_DIR", server.folder.path())
        .env("LIFEBOAT_CONFIG_DIR", server.folder.path().join("config"))
        .stdin(Stdio::null())
        .args(args)
        .output()
        .unwrap()
}

fn ok(server: &TestServer, args: &[&str]) -> String {
    let output = run(server, args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_site_is_as_its_file_says_and_nothing_is_taken_away() {
    let server = TestServer::start();
    let (web1, _) = server.protect("web1");
    server.protect("db1");
    let web2 = server.join("web2");
    let file = server.folder.path().join("site.toml");
    std::fs::write(&file, SITE).unwrap();
    let apply = |more: &[&str]| -> Value {
        let mut args = vec!["apply", "--json", "-f", file.to_str().unwrap()];
        args.extend(more);
        serde_json::from_str(&ok(&server, &args)).unwrap()
    };
    let plan = apply(&["--dry-run"]);
    assert_eq!(plan["changes"].as_array().unwrap().len(), 5, "{plan:#}");
    assert!(server.vault.item(web2).is_err(), "a dry run does nothing");
    assert!(
        plan["leftAlone"][0]
            .as_str()
            .unwrap()
            .contains("db1 stays protected"),
        "{plan:#}"
    );
    let done = apply(&[]);
    assert_eq!(done["changes"].as_array().unwrap().len(), 5);
    assert!(done["changes"].to_string().contains("one-time password"));
    assert_eq!(server.vault.policy_of(web1).unwrap().name, "gold");
    assert_eq!(server.vault.item(web1).unwrap().target.cpus, 3);
    assert!(server.vault.item(web2).is_ok());
    let again = apply(&[]);
    assert_eq!(again["changes"].as_array().unwrap().len(), 0, "{again:#}");
    // A value that changed, and only that.
    std::fs::write(
        &file,
        SITE.replace("retention_hours = 72", "retention_hours = 48"),
    )
    .unwrap();
    let changed = apply(&[]);
    assert_eq!(changed["changes"].as_array().unwrap().len(), 1, "{changed:#}");
    let gold = server.vault.policy("default", "gold").unwrap();
    assert_eq!((gold.retention_hours, gold.crash_consistent_seconds), (48, 10));
    // Emptied: everything stays.
    std::fs::write(&file, "").unwrap();
    let empty = apply(&[]);
    assert_eq!(empty["changes"].as_array().unwrap().len(), 0);
    assert_eq!(empty["leftAlone"].as_array().unwrap().len(), 3);
    std::fs::write(&file, "[[polic]]\n").unwrap();
    let refused = run(&server, &["apply", "-f", file.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(2));
}

const TOGETHER: &str = r#"
[[item]]
machine = "web2"

[[group]]
name = "shop"
members = ["WEB1", "web2"]
share_seconds = 10

[[plan]]
name = "site"
on_machine_failure = "ask"
on_failure = [{ name = "tell", kind = "script", script = "tell.sh", arguments = ["two words", ""], directions = ["recoveryToPrimary"] }]

[[plan.group]]
name = "data"
machines = ["Web1"]
before = [{ name = "settle", kind = "delay", seconds = 5 }]
after = [
  { name = "answers", kind = "probe", machine = "WEB1", protocol = "http", port = 80, path = "/health", status = 204 },
  { name = "look", kind = "manual", instructions = "Is it whole?", failover_types = ["test"] },
]

[[plan.group]]
machines = ["web2"]
"#;

#[test]
fn groups_and_plans_are_as_their_file_says() {
    let server = TestServer::start();
    server.protect("web1");
    server.protect("db1");
    server.join("web2");
    let file = server.folder.path().join("site.toml");
    let apply = |text: &str, more: &[&str]| -> (Vec<String>, Vec<String>) {
        std::fs::write(&file, text).unwrap();
        let mut args = vec!["apply", "--json", "-f", file.to_str().unwrap()];
        args.extend(more);
        let told: Value = serde_json::from_str(&ok(&server, &args)).unwrap();
        let lines = |field: &str| {
            let lines = told[field].as_array().unwrap().iter();
            lines.map(|line| line.as_str().unwrap().to_owned()).collect()
        };
        (lines("changes"), lines("leftAlone"))
    };
    let show = |args: &[&str]| -> Value { serde_json::from_str(&ok(&server, args)).unwrap() };
    let (planned, _) = apply(TOGETHER, &["--dry-run"]);
    assert_eq!(
        planned[1..],
        [
            "create the replication group shop of web1 web2",
            "create the recovery plan site: +group 1 with web1, +group 2 with web2",
        ],
        "{planned:?}"
    );
    assert!(
        server.vault.plans("default").unwrap().is_empty(),
        "a dry run does nothing"
    );
    let (done, _) = apply(TOGETHER, &[]);
    assert_eq!(done.len(), 3, "{done:?}");
    let plan = show(&["plan", "show", "site", "--json"]);
    let on_failure = &plan["onFailure"][0];
    assert_eq!(
        (
            &on_failure["arguments"],
            &on_failure["directions"],
            &on_failure["timeoutSeconds"]
        ),
        (
            &json!(["two words", ""]),
            &json!(["recoveryToPrimary"]),
            &json!(300)
        )
    );
    assert_eq!(plan["groups"][0]["after"][0]["status"], 204);
    let told = ok(&server, &["plan", "show", "site"]);
    for line in [
        "before  delay: settle (5 s)",
        "after   probe: answers (http 80 /health of web1; status 204; up to 300 s)",
        "after   manual: look (Is it whole?; only at test)",
        "on failure     script: tell (tell.sh \"two words\" \"\"; up to 300 s; only recoveryToPrimary)",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    let (again, left) = apply(TOGETHER, &[]);
    assert_eq!(again, Vec::<String>::new());
    assert!(
        left.iter().all(|line| line.contains("stays protected")),
        "{left:?}"
    );

    // What differs is said, and only that is changed; what the file leaves out of a plan stays.
    let changed = TOGETHER
        .replace("seconds = 5", "seconds = 6")
        .replace("share_seconds = 10", "share_seconds = 20")
        .replace("{ name = \"look\"", "{ name = \"look well\"")
        .replace("machines = [\"web2\"]", "machines = [\"web2\", \"db1\"]")
        .replace("[\"WEB1\", \"web2\"]", "[\"web1\", \"db1\"]");
    let changed: String = changed
        .lines()
        .filter(|line| !line.starts_with("on_"))
        .map(|line| format!("{line}\n"))
        .collect();
    let (would, _) = apply(&changed, &["--dry-run"]);
    let (done, left) = apply(&changed, &[]);
    assert_eq!(would, done);
    assert_eq!(
        done,
        [
            "change the replication group shop: shareSeconds 10 -> 20",
            "take db1 into the replication group shop",
            "change the recovery plan site: group 1 before: settle, group 1 after: +look well -look, group 2 machines web2 -> web2 db1",
        ]
    );
    assert!(
        left.iter()
            .any(|line| line.contains("lifeboat group remove shop web2")),
        "{left:?}"
    );
    let plan = show(&["plan", "show", "site", "--json"]);
    assert_eq!(
        (&plan["onMachineFailure"], &plan["onFailure"][0]),
        (&json!("ask"), on_failure)
    );
    assert_eq!(apply(&changed, &[]).0, Vec::<String>::new());
    let group = show(&["group", "show", "shop", "--json"]);
    assert_eq!(
        group["members"].as_array().unwrap().len(),
        3,
        "nobody is put out: {group}"
    );
    // No file, no word: they stay.
    let (done, left) = apply("", &[]);
    assert_eq!(done, Vec::<String>::new());
    assert!(
        left.iter().any(|line| line.contains("lifeboat plan delete site")),
        "{left:?}"
    );
    assert!(
        left.iter()
            .any(|line| line.contains("lifeboat group delete shop")),
        "{left:?}"
    );
    // What the server refuses is its word; what the file says wrongly is found before anything is done.
    std::fs::write(&file, changed.replace("\"probe\"", "\"knock\"")).unwrap();
    let refused = run(&server, &["apply", "-f", file.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("cannot change the recovery plan site"),
        "{said}"
    );
    std::fs::write(&file, changed.replace("instructions", "instruction")).unwrap();
    let refused = run(&server, &["apply", "-f", file.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn vaults_machines_and_jobs_from_the_command_line() {
    let server = TestServer::start();
    server.protect("web1");
    server.join("web2");
    ok(&server, &["vaults", "create", "branch"]);
    assert!(ok(&server, &["vaults", "list"]).contains("branch"));
    let unconfirmed = run(&server, &["vaults", "delete", "branch"]);
    assert_eq!(unconfirmed.status.code(), Some(2));
    ok(&server, &["vaults", "delete", "branch", "--confirm", "branch"]);
    let refused = run(&server, &["machine", "remove", "web1", "--confirm", "web1"]);
    assert_eq!(refused.status.code(), Some(6));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("lifeboat unprotect web1"));
    ok(&server, &["machine", "remove", "web2", "--confirm", "web2"]);
    let list = ok(&server, &["machine", "list", "--wide"]);
    assert!(list.contains("CHURN") && !list.contains("web2"), "{list}");
    ok(&server, &["policy", "create", "gold"]);
    ok(&server, &["machine", "set-policy", "web1", "gold"]);
    let csv = ok(
        &server,
        &["job", "export", "--format", "csv", "--machine", "web1"],
    );
    assert!(
        csv.starts_with("id,kind,") && csv.contains("EnableReplication"),
        "{csv}"
    );
    let explained = run(&server, &["policy", "create", "silver", "--explain"]);
    let told = String::from_utf8_lossy(&explained.stderr);
    assert!(
        told.contains("POST unix:") && told.contains("\"silver\""),
        "{told}"
    );
    let events = ok(&server, &["event", "list", "--code", "MachineRemoved"]);
    assert!(events.contains("web2 was removed"), "{events}");
}
