//! Alerts arrive: by e-mail over SMTP with STARTTLS and a login, by signed webhooks over HTTPS, and after a kill.
#[path = "support/receiver.rs"]
mod receiver;
#[path = "support/site.rs"]
mod site;

use lifeboat::alerts::Dispatcher;
use lifeboat::block::MachineId;
use lifeboat::rt::{Fact, Report};
use lifeboat::vault::{NewEvent, Role, Severity, Vault};
use receiver::{Answer, MailServer, Webhook, identity};
use serde_json::{Value, json};
use site::{TestServer, refusal, until};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use tokio_util::sync::CancellationToken;

const SETTINGS: &str = "/api/v1/vaults/default/alert-settings";
const SECRET: &str = "0123456789abcdef-webhook";

/// Sends the alerts of a server until it is dropped.
struct Sending(CancellationToken, Option<tokio::runtime::Runtime>);

impl Sending {
    fn start(vault: &Vault) -> Self {
        let (stop, runtime) = (
            CancellationToken::new(),
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap(),
        );
        runtime.spawn(Dispatcher { vault: vault.clone() }.run(stop.clone()));
        Self(stop, Some(runtime))
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.cancel();
        if let Some(runtime) = self.1.take() {
            runtime.shutdown_timeout(std::time::Duration::from_secs(10));
        }
    }
}

fn put(server: &TestServer, settings: &Value) -> Value {
    server
        .root()
        .request(hyper::Method::PUT, SETTINGS, Some(settings), &[])
        .unwrap()
        .json()
        .unwrap()
}

fn full(server: &TestServer, machines: &[MachineId]) {
    for machine in machines {
        server.vault.report(Fact::StoreFull {
            machine: *machine,
            message: "no space left on device".to_owned(),
        });
    }
}

#[test]
fn a_storm_is_one_mail_and_its_end_another() {
    let (server, identity) = (TestServer::start(), identity());
    let mail = MailServer::start(&identity, "lifeboat", "s3cret-password");
    let machines: Vec<MachineId> = ["web1", "web2", "db1"].map(|name| server.protect(name).0).into();
    let mut email = json!({
        "server": "localhost", "port": mail.port, "security": "StartTls", "user": "lifeboat", "password": "wrong",
        "from": "Lifeboat <lifeboat@example.org>", "to": ["ops@example.org", "boss@example.org"],
        "caPem": identity.certificate,
    });
    let known = put(&server, &json!({ "digestSeconds": 8, "email": email }));
    assert_eq!(known["email"]["passwordSet"], true);
    assert!(!known.to_string().contains("wrong"), "{known}");
    // A test says what is wrong, in words.
    let mut root = server.root();
    let test = |root: &mut lifeboat::api::client::Client| -> Value {
        root.post(&format!("{SETTINGS}/test"), &json!({})).unwrap()
    };
    let refused = test(&mut root);
    assert_eq!(refused["results"][0]["delivered"], false, "{refused}");
    assert_eq!(refused["results"][0]["error"]["code"], "MailRefused", "{refused}");
    let message = refused["results"][0]["error"]["message"].as_str().unwrap();
    assert!(message.contains("535") && !message.contains("wrong"), "{message}");
    email["password"] = json!("s3cret-password");
    put(&server, &json!({ "digestSeconds": 8, "email": email }));
    let delivered = test(&mut root);
    assert_eq!(delivered["results"][0]["delivered"], true, "{delivered}");
    let first = mail.next("the test message");
    assert_eq!(first["tls"], true);
    assert_eq!(first["automatic"], "auto-generated");
    assert!(first["subject"].as_str().unwrap().contains("Test: "), "{first}");
    // A mail server that cannot be trusted gets nothing.
    let mut other = email.clone();
    other["caPem"] = json!(receiver::identity().certificate);
    put(&server, &json!({ "digestSeconds": 8, "email": other }));
    let distrusted = test(&mut root);
    assert_eq!(distrusted["results"][0]["delivered"], false, "{distrusted}");
    put(&server, &json!({ "digestSeconds": 8, "email": email }));

    let _sending = Sending::start(&server.vault);
    full(&server, &machines);
    let storm = mail.next("the storm");
    assert_eq!(
        storm["subject"],
        "[Lifeboat default] Critical: The store has no room on 3 machines"
    );
    assert_eq!(storm["to"], json!(["ops@example.org", "boss@example.org"]));
    let text = storm["text"].as_str().unwrap();
    for part in [
        "web1: ",
        "web2: ",
        "db1: ",
        "Possible causes: ",
        "Recommended action: make room",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    let open: Value = root.get("/api/v1/vaults/default/health-errors").unwrap();
    assert_eq!(open["items"].as_array().unwrap().len(), 3, "{open}");
    for machine in &machines {
        server.vault.report(Fact::StoreHasRoom { machine: *machine });
    }
    let over = mail.next("the end of the storm");
    assert_eq!(
        over["subject"],
        "[Lifeboat default] Over: The store has no room on 3 machines"
    );
    // Nothing else was sent: the log has it all.
    let log = root.list("/api/v1/vaults/default/alert-deliveries", 100).unwrap();
    let alerts: Vec<_> = log.iter().filter(|line| line["kind"] == "Alert").collect();
    assert_eq!(alerts.len(), 2, "{log:?}");
    // The row is written when the receiver's answer has come, which is a moment after the message.
    until("both are noted as delivered", || {
        let log = root.list("/api/v1/vaults/default/alert-deliveries", 100).unwrap();
        log.iter()
            .filter(|line| line["kind"] == "Alert")
            .all(|line| line["state"] == "Delivered")
    });
    assert!(mail.mails.try_recv().is_err(), "a message too many");
}

#[test]
fn a_webhook_is_signed_and_sent_again_until_it_arrives() {
    let (server, identity) = (TestServer::start(), identity());
    let hook = Webhook::start(Some(&identity));
    let url = format!("https://localhost:{}/hooks/ops?team=1", hook.port);
    put(
        &server,
        &json!({ "digestSeconds": 1, "webhooks": [
            { "name": "ops", "url": url, "secret": SECRET, "caPem": identity.certificate }
        ]}),
    );
    let _sending = Sending::start(&server.vault);
    let (web1, _) = server.protect("web1");
    // Down for maintenance, then it does not like the time of day, then a redirect that must not be followed.
    hook.answer(&[Answer::Status(503), Answer::Status(400), Answer::Status(307)]);
    full(&server, &[web1]);
    let mut ids = Vec::new();
    for attempt in 1..=4 {
        let post = hook.next("an attempt");
        assert_eq!(post.path, "/hooks/ops?team=1");
        assert!(post.is_signed_with(SECRET), "attempt {attempt}");
        assert!(!post.is_signed_with("another secret of some length"));
        ids.push(post.headers["x-lifeboat-delivery"].clone());
        let body = post.json();
        assert_eq!((&body["version"], &body["kind"]), (&json!(1), &json!("alert")));
        let alert = &body["alerts"][0];
        assert_eq!(
            (&alert["code"], &alert["state"]),
            (&json!("StoreFull"), &json!("raised"))
        );
        assert_eq!(alert["machines"][0]["name"], "web1");
        assert_eq!(alert["machines"][0]["id"], web1.to_string());
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "one message, one id: {ids:?}");
    let line = || {
        let log = server
            .root()
            .list("/api/v1/vaults/default/alert-deliveries", 10)
            .unwrap();
        log[0].clone()
    };
    until("it is noted", || line()["state"] == "Delivered");
    assert_eq!(line()["attempts"], 4);
    server.vault.report(Fact::StoreHasRoom { machine: web1 });
    let over = hook.next("the end").json();
    assert_eq!(over["alerts"][0]["state"], "over");
    assert_eq!(over["severity"], "Information");
}

#[test]
fn secrets_are_shown_to_nobody_and_go_to_no_other_server() {
    let server = TestServer::start();
    let mut contributor = server.https(Some(&server.session("carl", Role::Contributor)));
    let email = json!({
        "server": "mail.example.org", "user": "lifeboat", "password": "s3cret-password",
        "from": "a@example.org", "to": ["b@example.org"],
    });
    let hook = json!({ "name": "ops", "url": "https://ops.example.org/x", "secret": SECRET });
    let settings = json!({ "email": email, "webhooks": [hook] });
    let mut set = |settings: &Value| contributor.request(hyper::Method::PUT, SETTINGS, Some(settings), &[]);
    let known: Value = set(&settings).unwrap().json().unwrap();
    assert_eq!(
        (&known["email"]["port"], &known["leastSeverity"]),
        (&json!(587), &json!("Warning"))
    );
    // What is left out stays.
    let mut same = settings.clone();
    same["email"].as_object_mut().unwrap().remove("password");
    same["webhooks"][0].as_object_mut().unwrap().remove("secret");
    let known: Value = set(&same).unwrap().json().unwrap();
    assert_eq!(known["email"]["passwordSet"], true);
    assert_eq!(known["webhooks"][0]["secretSet"], true);
    // The stored password would go to a server of the caller's choice.
    for (field, value) in [
        ("server", json!("evil.example.org")),
        ("port", json!(25)),
        ("security", json!("None")),
        ("caPem", json!(identity().certificate)),
    ] {
        let mut elsewhere = same.clone();
        elsewhere["email"][field] = value;
        let problem = refusal(set(&elsewhere));
        assert_eq!(problem, (400, "InvalidValue".to_owned()), "{field}");
    }
    for wrong in [
        json!({ "digestSeconds": 0 }),
        json!({ "webhooks": [{ "name": "a", "url": "ftp://x", "secret": SECRET }] }),
        json!({ "webhooks": [{ "name": "a", "url": "https://user:pw@x/", "secret": SECRET }] }),
        json!({ "webhooks": [{ "name": "a", "url": "https://x/", "secret": "short" }] }),
        json!({ "webhooks": [{ "name": "a", "url": "https://x/" }] }),
        json!({ "email": { "server": "x", "from": "not an address", "to": ["b@example.org"] } }),
        json!({ "email": { "server": "x", "from": "a@example.org", "to": [] } }),
        json!({ "email": { "server": "x", "from": "a@example.org", "to": ["b@example.org"], "unknown": 1 } }),
    ] {
        assert_eq!(refusal(set(&wrong)).0 / 100, 4, "{wrong}");
    }
    let shown = server
        .root()
        .request(hyper::Method::GET, SETTINGS, None, &[])
        .unwrap();
    let shown = String::from_utf8(shown.body.to_vec()).unwrap();
    assert!(!shown.contains("s3cret") && !shown.contains(SECRET), "{shown}");
    let audit: Value = server.root().get("/api/v1/vaults/default/audit").unwrap();
    assert!(audit.to_string().contains("alert-settings"));
    assert!(!audit.to_string().contains("s3cret"), "{audit}");
    // A stale ETag loses.
    let stale = server.root().request(
        hyper::Method::PUT,
        SETTINGS,
        Some(&same),
        &[("if-match", "\"1\"")],
    );
    assert_eq!(refusal(stale).0, 412);
}

/// The server as a process.
struct Serving(Child);

impl Serving {
    fn start(folder: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_lifeboat"))
            .args([
                "serve",
                "--json",
                "--data-listen",
                "127.0.0.1:0",
                "--api-listen",
                "127.0.0.1:0",
            ])
            .arg("--data-dir")
            .arg(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let this = Self(child);
        assert!(line.contains("apiUrl"), "it did not start: {line}");
        this
    }

    /// SIGKILL.
    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.kill();
    }
}

fn cli(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lifeboat"))
        .env_clear()
        .env("LIFEBOAT_DATA_DIR", folder)
        .env("LIFEBOAT_CONFIG_DIR", folder.join("config"))
        .env("LIFEBOAT_WEBHOOK_SECRET", SECRET)
        .stdin(Stdio::null())
        .args(args)
        .output()
        .unwrap()
}

fn cli_json(folder: &Path, args: &[&str]) -> Value {
    let output = cli(folder, args);
    assert!(
        output.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Something that a person must know, written by another process or just before a crash.
fn happens(folder: &Path, message: &str) {
    let vault = Vault::open(&folder.join("vault.db")).unwrap();
    vault
        .event(&NewEvent {
            severity: Severity::Warning,
            code: "FailoverFailed".to_owned(),
            machine: None,
            job: None,
            message: message.to_owned(),
            possible_causes: "a test".to_owned(),
            recommended_action: "none".to_owned(),
        })
        .unwrap();
}

#[test]
fn what_a_killed_server_had_to_tell_is_told_after_its_restart() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let hook = Webhook::start(None);
    let mut server = Serving::start(folder);
    let url = format!("http://127.0.0.1:{}/hook", hook.port);
    assert!(
        cli(folder, &["alert", "webhook", "ops", "--url", &url])
            .status
            .success()
    );
    assert!(
        cli(folder, &["alert", "set", "--digest-seconds", "1"])
            .status
            .success()
    );
    let tested = cli(folder, &["alert", "test"]);
    assert!(
        tested.status.success(),
        "{}",
        String::from_utf8_lossy(&tested.stderr)
    );
    assert_eq!(hook.next("the test").json()["kind"], "test");
    // Killed after sending and before the receiver's answer.
    hook.answer(&[Answer::Silence]);
    happens(folder, "the first");
    let sent = hook.next("the first message");
    let id = sent.headers["x-lifeboat-delivery"].clone();
    server.kill();
    // Killed between the event and its message.
    happens(folder, "the second");
    let mut server = Serving::start(folder);
    let again = hook.next("the first message again");
    assert_eq!(again.headers["x-lifeboat-delivery"], id, "the same message");
    assert_eq!(again.json()["alerts"], sent.json()["alerts"]);
    assert!(again.is_signed_with(SECRET));
    let second = hook.next("the second message");
    assert_eq!(second.json()["alerts"][0]["message"], "the second");
    until("all are noted as delivered", || {
        let log = cli_json(folder, &["alert", "log", "--json"]);
        let items = log["items"].as_array().unwrap();
        items.len() == 3 && items.iter().all(|line| line["state"] == "Delivered")
    });
    // Another restart tells nothing again.
    server.kill();
    let _server = Serving::start(folder);
    happens(folder, "the third");
    assert_eq!(hook.next("the third").json()["alerts"][0]["message"], "the third");
    assert!(hook.posts.try_recv().is_err());
}

#[test]
fn the_command_line_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let _server = Serving::start(folder);
    let refused = |args: &[&str]| {
        let output = cli(folder, args);
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, text) = refused(&["alert", "email", "--from", "a@example.org"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("--smtp-server"), "{text}");
    let (code, text) = refused(&["alert", "test"]);
    assert_eq!(code, Some(5), "{text}");
    let (code, _) = refused(&["alert", "webhook", "nosuch", "--remove"]);
    assert_eq!(code, Some(5));
    // Nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = format!("http://127.0.0.1:{port}/");
    assert_eq!(refused(&["alert", "webhook", "ops", "--url", &url]).0, Some(0));
    let (code, text) = refused(&["alert", "test", "webhook:ops"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("recommended action: open the address"), "{text}");
    let shown = cli(folder, &["alert", "show"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains(&url));
    // Settings of one channel leave the other alone.
    let set = cli(
        folder,
        &[
            "alert",
            "email",
            "--smtp-server",
            "localhost",
            "--security",
            "none",
            "--from",
            "a@example.org",
            "--to",
            "b@example.org",
        ],
    );
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    let known = cli_json(folder, &["alert", "show", "--json"]);
    assert_eq!(known["email"]["port"], 25);
    assert_eq!(known["webhooks"][0]["secretSet"], true);
    let known = cli_json(folder, &["alert", "email", "--remove", "--json"]);
    assert_eq!(known["email"], Value::Null);
    assert_eq!(known["webhooks"][0]["name"], "ops");
}
