//! A person works with a server from the command line: protects, tests, fails over, looks after jobs and users.
#[path = "support/site.rs"]
mod site;

use lifeboat::recovery::Journal;
use lifeboat::vault::{LiveDisk, Role};
use serde_json::Value;
use site::{TestServer, until};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

struct Person<'a> {
    server: &'a TestServer,
    config: tempfile::TempDir,
}

impl<'a> Person<'a> {
    fn new(server: &'a TestServer) -> Self {
        Self {
            server,
            config: tempfile::tempdir().unwrap(),
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command
            .env_clear()
            .env("LIFEBOAT_DATA_DIR", self.server.folder.path())
            .env("LIFEBOAT_CONFIG_DIR", self.config.path())
            .stdin(Stdio::null())
            .args(args);
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        let mut all = args.to_vec();
        all.push("--json");
        serde_json::from_str(&self.ok(&all)).unwrap()
    }

    /// Exit code and standard error.
    fn refused(&self, args: &[&str]) -> (i32, String) {
        let output = self.run(args);
        assert!(output.stdout.is_empty(), "{args:?} prints data and fails");
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    }
}

/// Does the reconciler's and the agent's work when `protect` has written its job.
fn reconcile_when_asked<'scope>(scope: &'scope std::thread::Scope<'scope, '_>, server: &'scope TestServer) {
    scope.spawn(move || {
        until("the job is there", || {
            !server.vault.open_jobs().unwrap().is_empty()
        });
        let machine = server.vault.open_jobs().unwrap()[0].machine;
        let disk = server.vault.item(machine).unwrap().disks[0];
        server.beat(
            machine,
            vec![LiveDisk {
                disk,
                state: "InitialReplicationInProgress".to_owned(),
                capture: "scan".to_owned(),
                pending_bytes: 0,
                done_bytes: 512 << 10,
                total_bytes: 1 << 20,
                read_bytes: 0,
                shipped_bytes: 0,
                changed_bytes: 0,
            }],
        );
        server.reconcile(machine);
    });
}

#[test]
fn a_machine_goes_through_its_life() {
    let server = TestServer::start();
    let person = Person::new(&server);
    assert!(String::from_utf8_lossy(&person.run(&["machine", "list"]).stderr).contains("join-token"));
    server.join("web1");
    assert!(person.ok(&["machine", "list"]).contains("not replicated"));
    let (code, text) = person.refused(&["failover", "test", "web1"]);
    assert_eq!(code, 5, "{text}");
    assert!(text.contains("lifeboat protect web1"), "{text}");

    std::thread::scope(|scope| {
        reconcile_when_asked(scope, &server);
        let out = person.ok(&["protect", "web1", "--wait", "--timeout", "60"]);
        assert_eq!(out, "web1 is protected\n");
    });
    let (code, text) = person.refused(&["protect", "web1"]);
    assert_eq!(code, 6);
    for part in ["error: ", "possible causes: ", "recommended action: "] {
        assert!(text.contains(part), "{text}");
    }
    let shown = person.json(&["machine", "show", "web1"]);
    assert_eq!(shown["replicatedItem"]["protectionState"], "Protected");
    let text = person.ok(&["machine", "show", "web1"]);
    assert!(
        text.contains("serial:boot") && text.contains("TestFailover"),
        "{text}"
    );
    let points = person.json(&["recovery-point", "list", "web1"]);
    let point = points["items"][0]["id"].as_str().unwrap().to_owned();
    assert!(person.ok(&["recovery-point", "list", "web1"]).contains(&point));

    let out = person.ok(&["failover", "test", "web1", "--point", &point]);
    assert!(out.contains("Test failover of web1 succeeded"), "{out}");
    assert!(out.contains("power        running"), "{out}");
    let log = person.ok(&["failover", "machine", "web1", "--test", "--serial-log"]);
    assert_eq!(log, "booted\n");
    let screen = server.folder.path().join("screen.png");
    person.ok(&[
        "failover",
        "machine",
        "web1",
        "--test",
        "--screenshot",
        screen.to_str().unwrap(),
    ]);
    assert!(std::fs::read(&screen).unwrap().starts_with(b"\x89PNG"));
    assert_eq!(person.refused(&["unprotect", "web1", "--confirm", "web1"]).0, 6);
    // JSON lines: progress, then one summary.
    let lines = person.ok(&["failover", "cleanup", "web1", "--notes", "well", "--json"]);
    let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&last["message_type"], &last["job"]["state"]),
        (&"summary".into(), &"Succeeded".into())
    );

    for (args, code) in [
        (&["failover", "unplanned", "web1"][..], 2),
        (&["failover", "unplanned", "web1", "--confirm", "web2"], 2),
        (&["failover", "unplanned", "web2", "--confirm", "web2"], 5),
        (&["failover", "commit", "web1", "--confirm", "web1"], 6),
    ] {
        assert_eq!(person.refused(args).0, code, "{args:?}");
    }
    assert!(server.compute.names().is_empty(), "nothing was started");
    let id = shown["machine"]["id"].as_str().unwrap();
    let out = person.ok(&["failover", "unplanned", id, "--confirm", "web1", "--no-wait"]);
    let job = out.trim().rsplit(' ').next().unwrap();
    assert!(
        person
            .ok(&["job", "watch", job])
            .starts_with("Unplanned failover of web1 succeeded")
    );
    person.ok(&["failover", "commit", "web1", "--confirm", "web1"]);
    let shown = person.json(&["machine", "show", "web1"]);
    assert_eq!(shown["replicatedItem"]["activeLocation"], "Recovery");

    let jobs = person.json(&["job", "list", "--machine", "web1"]);
    let kinds: Vec<_> = jobs["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| job["kind"].as_str().unwrap())
        .collect();
    let expected = [
        "CommitFailover",
        "UnplannedFailover",
        "TestFailoverCleanup",
        "TestFailover",
        "EnableReplication",
    ];
    assert_eq!(kinds, expected);
    assert!(person.ok(&["job", "show", job]).contains("TASK"));
    assert_eq!(person.refused(&["job", "cancel", job]).0, 6);
    assert!(person.ok(&["event", "list"]).contains("Commit of web1 succeeded"));
    assert!(person.ok(&["event", "audit"]).contains("unplanned-failover"));
    let status = person.json(&["server", "status"]);
    assert_eq!(
        (&status["machines"], &status["replicatedItems"]),
        (&1.into(), &1.into())
    );
}

#[test]
fn waiting_ends_at_its_limit_and_the_job_goes_on() {
    let server = TestServer::start();
    let person = Person::new(&server);
    server.join("web1");
    let output = person.run(&["protect", "web1", "--wait", "--timeout", "1"]);
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    let out = person.json(&["job", "list"]);
    assert_eq!(out["items"][0]["state"], "NotStarted");
    let (code, text) = person.refused(&["protect", "nosuch", "--json"]);
    let error: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (code, &error["code"], &error["exitCode"]),
        (5, &"NotFound".into(), &5.into())
    );

    // Ctrl-C: only the waiting ends.
    let job = out["items"][0]["id"].as_str().unwrap();
    let mut child = person
        .command(&["job", "watch", job])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    // Once it shows the job it has its handler.
    child.stderr.as_mut().unwrap().read_exact(&mut [0; 1]).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert_eq!(server.vault.open_jobs().unwrap().len(), 1);
}

#[test]
fn no_server_is_told_with_its_own_exit_code() {
    let server = TestServer::start();
    let person = Person::new(&server);
    let (code, text) = person.refused(&["machine", "list", "--server", "unix:/nowhere/api.sock"]);
    assert_eq!(code, 8, "{text}");
    assert!(text.contains("lifeboat serve"), "{text}");
    assert_eq!(
        person.refused(&["machine", "list", "--server", "vault:8443"]).0,
        2
    );
    let address = format!("https://localhost:{}", server.port);
    let (code, text) = person.refused(&["machine", "list", "--server", &address]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("--ca-file"));
}

#[test]
fn a_user_logs_in_over_https_and_has_no_more_rights_than_the_role() {
    let server = TestServer::start();
    server.join("web1");
    let root = Person::new(&server);
    let folder = server.folder.path();
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let ca = write("ca.pem", &server.ca_pem);
    let address = format!("https://localhost:{}", server.port);
    let once = root.ok(&["user", "create", "anna", "--role", "Operator"]);
    let (old, new) = (write("old", &once), write("new", "correct horse battery\n"));
    let anna = Person::new(&server);
    let (code, _) = anna.refused(&[
        "login",
        "--server",
        &address,
        "--ca-file",
        &ca,
        "--user",
        "anna",
        "--password-file",
        &new,
    ]);
    assert_eq!(code, 4);
    anna.ok(&[
        "login",
        "--server",
        &address,
        "--ca-file",
        &ca,
        "--user",
        "anna",
        "--password-file",
        &old,
        "--new-password-file",
        &new,
    ]);
    let saved = anna.config.path().join("login.json");
    assert_eq!(
        std::fs::metadata(&saved).unwrap().permissions().mode() & 0o777,
        0o600
    );
    // From here on without a word about the server.
    assert_eq!(anna.json(&["whoami"])["user"], "anna");
    assert!(anna.ok(&["machine", "list"]).contains("web1"));
    let (code, text) = anna.refused(&["protect", "web1"]);
    assert_eq!(code, 4);
    assert!(text.contains("Contributor"), "{text}");
    assert_eq!(
        anna.refused(&["token", "create", "ci", "--role", "Owner"]).0,
        6,
        "no more than one's own role"
    );
    let token = write("token", &anna.ok(&["token", "create", "ci", "--role", "Reader"]));
    let program = Person::new(&server);
    let args = ["--server", &address, "--ca-file", &ca, "--token-file", &token];
    let list = program.ok(&[&["machine", "list"][..], &args].concat());
    assert!(list.contains("web1"));
    root.ok(&["token", "revoke", "1"]);
    assert_eq!(program.refused(&[&["machine", "list"][..], &args].concat()).0, 4);
    anna.ok(&["logout"]);
    assert!(!saved.exists());
    assert_eq!(server.vault.users().unwrap().len(), 2);
    assert!(
        server
            .vault
            .users()
            .unwrap()
            .iter()
            .any(|user| user.roles.iter().any(|(_, role)| *role == Role::Operator))
    );
}

#[test]
fn policies_are_made_changed_and_removed() {
    let server = TestServer::start();
    let person = Person::new(&server);
    let gold = person.json(&["policy", "create", "gold", "--crash-consistent-seconds", "5"]);
    assert_eq!(
        (&gold["crashConsistentSeconds"], &gold["retentionHours"]),
        (&5.into(), &24.into())
    );
    let gold = person.json(&["policy", "update", "gold", "--retention-hours", "72"]);
    assert_eq!(
        (&gold["crashConsistentSeconds"], &gold["retentionHours"]),
        (&5.into(), &72.into()),
        "what is left out stays"
    );
    assert!(person.ok(&["policy", "list"]).contains("gold-failback"));
    let (code, text) = person.refused(&["policy", "create", "bad", "--crash-consistent-seconds", "4"]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("5 to 3600"), "{text}");
    person.ok(&["policy", "delete", "gold"]);
    assert_eq!(person.refused(&["policy", "show", "gold"]).0, 5);
    server.join("web1");
    person.ok(&["protect", "web1"]);
    assert_eq!(person.refused(&["policy", "delete", "default"]).0, 6);
    assert!(
        person
            .ok(&["unprotect", "web1", "--confirm", "web1", "--no-wait"])
            .contains("Disable")
    );
}

/// A reader that goes away is no error.
#[test]
fn a_closed_pipe_is_quiet() {
    let server = TestServer::start();
    let person = Person::new(&server);
    server.join("web1");
    let mut child = person
        .command(&["machine", "show", "web1", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

/// `lifeboat serve` until it is dropped.
struct Serve {
    child: std::process::Child,
    ready: Value,
}

impl Serve {
    fn start(folder: &std::path::Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_lifeboat"))
            .env_clear()
            .args(["serve", "--json", "--name", "localhost"])
            .args(["--data-listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let ready = serde_json::from_str(&line).unwrap();
        until("the socket is there", || {
            std::os::unix::net::UnixStream::connect(folder.join("api.sock")).is_ok()
        });
        Self { child, ready }
    }

    fn address(&self) -> String {
        let port = self.ready["apiUrl"].as_str().unwrap();
        let port = port.trim_end_matches('/').rsplit(':').next().unwrap();
        format!("https://localhost:{port}")
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_first_day_with_a_real_server() {
    let (data, config) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let person = |args: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_lifeboat"))
            .env_clear()
            .env("LIFEBOAT_DATA_DIR", data.path())
            .env("LIFEBOAT_CONFIG_DIR", config.path())
            .stdin(Stdio::null())
            .args(args)
            .output()
            .unwrap()
    };
    let write = |name: &str, text: &str| {
        let path = config.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let server = Serve::start(data.path());
    let status = person(&["server", "status", "--json"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["servers"][0]["state"], "Connected");
    let old = write("old", server.ready["oneTimePassword"].as_str().unwrap());
    let new = write("new", "correct horse battery");
    let fingerprint = server.ready["fingerprint"].as_str().unwrap().to_owned();
    let wrong = fingerprint.replace(&fingerprint[7..11], "0000");
    let login = |address: &str, fingerprint: &str, password: &str| {
        let args = ["login", "--server", address, "--fingerprint", fingerprint];
        person(
            &[
                &args[..],
                &["--password-file", password, "--new-password-file", &new],
            ]
            .concat(),
        )
    };
    let refused = login(&server.address(), &wrong, &old);
    assert_eq!(
        refused.status.code(),
        Some(8),
        "another CA is not trusted: {refused:?}"
    );
    let done = login(&server.address(), &fingerprint, &old);
    assert!(done.status.success(), "{done:?}");
    let who = person(&["whoami", "--json"]);
    let who: Value = serde_json::from_slice(&who.stdout).unwrap();
    assert_eq!(
        (&who["user"], &who["login"], &who["roles"][0]["role"]),
        (&"admin".into(), &"session".into(), &"Owner".into())
    );
    let passphrase = person(&["server", "passphrase"]).stdout;
    let rotated = person(&["server", "passphrase", "--rotate"]).stdout;
    assert!(passphrase.len() > 10 && rotated != passphrase);
    // Killed and started again: the password, not the one-time one, opens it.
    drop(server);
    assert_eq!(person(&["machine", "list"]).status.code(), Some(8));
    let server = Serve::start(data.path());
    assert_eq!(server.ready["oneTimePassword"], Value::Null);
    assert_eq!(
        login(&server.address(), &fingerprint, &old).status.code(),
        Some(4)
    );
    assert!(login(&server.address(), &fingerprint, &new).status.success());
    assert_eq!(person(&["server", "passphrase"]).stdout, rotated);
}
