//! A person declares a site in a file, looks at the plan, applies it, and applies it again; and manages vaults, machines and
//! jobs from the command line.
#[path = "support/site.rs"]
mod site;

use lifeboat::recovery::Journal;
use serde_json::Value;
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
