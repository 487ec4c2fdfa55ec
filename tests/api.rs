//! The API as a program sees it: over a real unix socket and real TLS.
#[path = "support/site.rs"]
mod site;

use hyper::Method;
use lifeboat::api::client::{Address, Client, ClientError, Trust};
use lifeboat::recovery::{ActiveLocation, Journal, ProtectionState};
use lifeboat::vault::{DEFAULT_VAULT, HealthError, LiveDisk, Role, ServerTrouble, Severity};
use serde_json::{Value, json};
use site::{TestServer, refusal, until};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

const V: &str = "/api/v1/vaults/default";

/// The matrix of the reference model, written down again: the least role per route, None for a login of whatever role.
fn least_role(method: &str, path: &str) -> Option<Role> {
    if (method, path) == ("post", "/api/v1/vaults") {
        return Some(Role::Owner);
    }
    if path == "/api/v1/backups" {
        return Some(if method == "get" {
            Role::Reader
        } else {
            Role::Contributor
        });
    }
    let below = path.strip_prefix("/api/v1/vaults/{vault}")?;
    let last = below.rsplit('/').next().unwrap_or_default();
    Some(match (method, below) {
        ("get", "/passphrase" | "/join-tokens" | "/registration-keys") => Role::Contributor,
        ("get", "/tokens") => Role::Owner,
        ("get", "/replicated-items/{item}/target-machine/console") => Role::Operator,
        ("get", _) => Role::Reader,
        // A token for oneself, never above one's own role.
        ("post", "/tokens") => Role::Reader,
        // Failover, test, commit, resynchronize, jobs.
        (
            "post",
            "/replicated-items/{item}/test-failover"
            | "/replicated-items/{item}/test-failover-cleanup"
            | "/replicated-items/{item}/unplanned-failover"
            | "/replicated-items/{item}/planned-failover"
            | "/replicated-items/{item}/change-recovery-point"
            | "/replicated-items/{item}/cancel-failover"
            | "/replicated-items/{item}/reprotect"
            | "/replicated-items/{item}/failback"
            | "/replicated-items/{item}/commit"
            | "/replicated-items/{item}/resynchronize"
            | "/replicated-items/{item}/recovery-points"
            | "/replicated-items/{item}/target-machine/start"
            | "/machines/{machine}/agent-update"
            | "/jobs/{job}/cancel"
            | "/jobs/{job}/restart"
            | "/jobs/{job}/resume",
        ) => Role::Operator,
        ("post", _) if below.starts_with("/recovery-plans/{plan}/") => Role::Operator,
        // Infrastructure, protection, policies, networks, plans.
        ("post", "/replication-groups" | "/replication-groups/{group}/members") => Role::Contributor,
        ("put", "/replication-groups/{group}") => Role::Contributor,
        ("delete", "/replication-groups/{group}" | "/replication-groups/{group}/members/{machine}") => {
            Role::Contributor
        }
        ("post", "/replicated-items/{item}/hydrate" | "/replicated-items/{item}/complete-migration") => {
            Role::Contributor
        }
        ("post", "/networks" | "/recovery-plans") => Role::Contributor,
        ("put", "/networks/{network}" | "/network-mappings" | "/recovery-plans/{plan}") => Role::Contributor,
        ("delete", "/networks/{network}" | "/recovery-plans/{plan}") => Role::Contributor,
        ("post", "/join-tokens" | "/registration-keys") => Role::Contributor,
        ("delete", "/join-tokens/{token}" | "/registration-keys/{key}") => Role::Contributor,
        ("post", "/passphrase/rotate" | "/replicated-items" | "/policies") => Role::Contributor,
        ("post", "/alert-settings/test" | "/maintenance-windows") => Role::Contributor,
        ("delete", "/maintenance-windows/{window}") => Role::Contributor,
        ("post", _) if matches!(last, "rename" | "revoke") => Role::Contributor,
        (
            "put",
            "/replicated-items/{item}/target-settings"
            | "/replicated-items/{item}/policy"
            | "/replicated-items/{item}/disks"
            | "/policies/{policy}"
            | "/alert-settings",
        ) => Role::Contributor,
        ("delete", "/replicated-items/{item}" | "/policies/{policy}" | "/machines/{machine}") => {
            Role::Contributor
        }
        // Users and roles, and whatever else there may be.
        _ => Role::Owner,
    })
}

fn operations() -> Vec<(String, String)> {
    let document = serde_json::to_value(lifeboat::api::openapi()).unwrap();
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            if ["get", "post", "put", "delete"].contains(&method.as_str()) {
                all.push((method.clone(), path.clone()));
            }
        }
    }
    assert!(all.len() > 40, "the routes were not found");
    all
}

/// The path with names of things that are not there, so that what is allowed does nothing.
fn filled(path: &str) -> String {
    path.replace("{vault}", "default")
        .replace("{job}", "018f0000-0000-7000-8000-000000000000")
        .replace("{token}", "999999")
        .replace("{key}", "999999")
        .replace("{window}", "999999")
        .replace("{machine}", "nosuch")
        .replace("{item}", "nosuch")
        .replace("{group}", "nosuch")
        .replace("{user}", "nosuch")
        .replace("{policy}", "nosuch")
        .replace("{network}", "nosuch")
        .replace("{plan}", "nosuch")
        .replace("{run}", "018f0000-0000-7000-8000-000000000000")
}

fn call(client: &mut Client, method: &str, path: &str) -> u16 {
    let method: Method = method.to_uppercase().parse().unwrap();
    let body = json!({});
    match client.request(method, &filled(path), Some(&body), &[]) {
        Ok(answer) => answer.status.as_u16(),
        Err(ClientError::Problem(problem)) => {
            assert_eq!(problem.status / 100, 4, "{path}: {problem:?}");
            assert!(
                !problem.message.is_empty() && !problem.request_id.is_empty(),
                "{problem:?}"
            );
            assert!(
                !problem.possible_causes.is_empty() && !problem.recommended_action.is_empty(),
                "{problem:?}"
            );
            problem.status
        }
        Err(error) => panic!("{path}: {error:?}"),
    }
}

#[test]
fn every_route_keeps_every_role_in_its_bounds() {
    let server = TestServer::start();
    let mut sessions: Vec<(Option<Role>, Client)> = vec![(None, server.https(None))];
    for role in Role::ALL {
        let token = server.session(role.word(), role);
        sessions.push((Some(role), server.https(Some(&token))));
    }
    let outsider = server.session("outsider", Role::Reader);
    server
        .vault
        .assign_role("outsider", DEFAULT_VAULT, None, None)
        .unwrap();
    let mut outsider = server.https(Some(&outsider));
    let once = server
        .vault
        .create_user("fresh", DEFAULT_VAULT, Role::Owner)
        .unwrap();
    let fresh = server.vault.login("fresh", &once, "test").unwrap();
    let mut fresh = server.https(Some(&fresh));
    for (method, path) in operations() {
        let open = ["/healthz", "/api/v1/openapi.json", "/api/v1/login", "/install.sh"]
            .contains(&path.as_str())
            || path.starts_with("/agent/");
        // One would end the session that the others need, the other sends this executable: tests/joining.rs fetches it.
        if ["/api/v1/logout", "/agent/lifeboat"].contains(&path.as_str()) {
            continue;
        }
        let least = least_role(&method, &path);
        for (role, client) in &mut sessions {
            let allowed = open
                || match (least, *role) {
                    (_, None) => false,
                    (None, Some(_)) => true,
                    (Some(least), Some(role)) => role >= least,
                };
            // A live view has no end to wait for, and an executable is more than a client of the API takes.
            if allowed && (path.ends_with("/stream") || path == "/agent/lifeboat") {
                continue;
            }
            let status = call(client, &method, &path);
            let refused = if role.is_none() { 401 } else { 403 };
            assert_eq!(
                status == refused,
                !allowed,
                "{method} {path} as {role:?} answered {status}"
            );
        }
        if least.is_some() {
            assert_eq!(
                call(&mut outsider, &method, &path),
                403,
                "{method} {path} without a role"
            );
        }
        let own = ["/api/v1/whoami", "/api/v1/password"].contains(&path.as_str());
        if !open && !own {
            assert_eq!(
                call(&mut fresh, &method, &path),
                403,
                "{method} {path} with a one-time password"
            );
        }
    }
    let audit = server.vault.audit_log(None, None, None, 1000).unwrap();
    assert!(audit.iter().any(|row| row.user == "Contributor"
        && row.action == "POST /api/v1/vaults/{vault}/passphrase/rotate"
        && row.outcome == "200"
        && row.origin == "127.0.0.1"));
}

#[test]
fn the_document_is_the_committed_one() {
    let made = lifeboat::api::openapi().to_pretty_json().unwrap() + "\n";
    let path = "proto/openapi.json";
    if std::env::var_os("LIFEBOAT_WRITE_OPENAPI").is_some() {
        std::fs::write(path, &made).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        made == committed,
        "proto/openapi.json is not what the code makes; run: LIFEBOAT_WRITE_OPENAPI=1 cargo test --test api the_document"
    );
    let value: Value = serde_json::from_str(&made).unwrap();
    assert_eq!(value["openapi"], "3.1.0");
    let action = &value["paths"]["/api/v1/vaults/{vault}/replicated-items/{item}/test-failover"]["post"];
    assert_eq!(action["x-required-role"], "Operator");
    assert!(action["responses"]["default"]["content"]["application/problem+json"].is_object());
    assert_eq!(action["operationId"], "testFailover");
    // Tools name calls by it: two of the same would hide each other.
    let mut ids = std::collections::HashSet::new();
    for (path, item) in value["paths"].as_object().unwrap() {
        for operation in item.as_object().unwrap().values() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{path}: {id} is taken");
        }
    }
}

#[test]
fn the_first_login_changes_the_password_and_nothing_else() {
    let server = TestServer::start();
    let mut client = server.https(None);
    let login = |client: &mut Client, password: &str| {
        client.post::<Value>(
            "/api/v1/login",
            &json!({ "user": "admin", "password": password, "bearer": true }),
        )
    };
    assert_eq!(
        refusal(login(&mut client, "wrong")),
        (401, "WrongPassword".to_owned())
    );
    let answer = login(&mut client, &server.once).unwrap();
    assert_eq!(answer["mustChangePassword"], true);
    client.set_token(answer["token"].as_str().map(str::to_owned));
    assert_eq!(
        refusal(client.get::<Value>(&format!("{V}/machines"))),
        (403, "PasswordMustBeChanged".to_owned())
    );
    let change = json!({ "currentPassword": server.once, "newPassword": "correct horse" });
    client
        .request(Method::POST, "/api/v1/password", Some(&change), &[])
        .unwrap();
    let who: Value = client.get("/api/v1/whoami").unwrap();
    assert_eq!(who["roles"], json!([{ "vault": "default", "role": "Owner" }]));
    client.get::<Value>(&format!("{V}/machines")).unwrap();
    client.request(Method::POST, "/api/v1/logout", None, &[]).unwrap();
    assert_eq!(refusal(client.get::<Value>("/api/v1/whoami")).0, 401);
    for _ in 0..5 {
        assert_eq!(refusal(login(&mut client, "wrong")).0, 401);
    }
    assert_eq!(
        refusal(login(&mut client, "correct horse")),
        (429, "TooManyLogins".to_owned())
    );
}

/// One request as a browser sends it; status and head.
fn browser(server: &TestServer, head: &str, body: &str) -> (u16, String, String) {
    let mut stream = UnixStream::connect(server.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let length = body.len();
    // In one piece: a refusal may come, and the connection end, before a second one is written.
    let whole = format!(
        "{head}\r\nHost: vault:8443\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    stream.write_all(whole.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let status = text.split(' ').nth(1).unwrap().parse().unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (status, head.to_owned(), body.to_owned())
}

#[test]
fn a_cookie_alone_does_not_carry_a_change_from_a_foreign_page() {
    let server = TestServer::start();
    let login = json!({ "user": "admin", "password": server.once }).to_string();
    let (status, head, body) = browser(&server, "POST /api/v1/login HTTP/1.1", &login);
    assert_eq!(status, 200, "{body}");
    let cookie = head
        .lines()
        .find_map(|line| line.strip_prefix("set-cookie: "))
        .unwrap();
    for part in ["Secure", "HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(
        !body.contains("lbs_"),
        "a page's script never sees the token: {body}"
    );
    let cookie = cookie.split(';').next().unwrap();
    let change = json!({ "currentPassword": server.once, "newPassword": "correct horse" }).to_string();
    let post = format!("POST /api/v1/password HTTP/1.1\r\nCookie: {cookie}");
    let (status, _, body) = browser(&server, &post, &change);
    assert_eq!(status, 403, "{body}");
    assert!(body.contains("CrossSiteRequest"));
    let foreign = format!("{post}\r\nOrigin: https://evil.example");
    assert_eq!(browser(&server, &foreign, &change).0, 403);
    let own = format!("{post}\r\nOrigin: https://vault:8443");
    assert_eq!(browser(&server, &own, &change).0, 204);
    let read = format!("GET /api/v1/whoami HTTP/1.1\r\nCookie: {cookie}");
    assert_eq!(browser(&server, &read, "").0, 200);
}

#[test]
fn only_the_right_server_is_trusted() {
    let server = TestServer::start();
    let address = Address::Https {
        host: "localhost".to_owned(),
        port: server.port,
    };
    let digest = ring::digest::digest(&ring::digest::SHA256, &server.certificate);
    let mut pin = [0; 32];
    pin.copy_from_slice(digest.as_ref());
    let mut pinned = Client::new(address.clone(), Some(&Trust::Fingerprint(pin)), None).unwrap();
    assert_eq!(pinned.get::<Value>("/healthz").unwrap()["status"], "ok");
    pin[0] ^= 1;
    let mut wrong = Client::new(address.clone(), Some(&Trust::Fingerprint(pin)), None).unwrap();
    assert!(matches!(
        wrong.get::<Value>("/healthz"),
        Err(ClientError::Unreachable { .. })
    ));
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let mut wrong = Client::new(address.clone(), Some(&Trust::Ca(other.cert.pem())), None).unwrap();
    assert!(matches!(
        wrong.get::<Value>("/healthz"),
        Err(ClientError::Unreachable { .. })
    ));
    assert!(matches!(
        Client::new(address, None, None),
        Err(ClientError::NoTrust)
    ));
}

#[test]
fn errors_have_one_shape() {
    let server = TestServer::start();
    let mut root = server.root();
    assert_eq!(
        refusal(root.get::<Value>("/api/v1/nothing")),
        (404, "NoSuchRoute".to_owned())
    );
    assert_eq!(
        refusal(root.get::<Value>("/api/v1/vaults/none/machines")),
        (404, "NotFound".to_owned())
    );
    let put = root.request(Method::PUT, &format!("{V}/jobs"), None, &[]);
    assert_eq!(refusal(put), (405, "MethodNotAllowed".to_owned()));
    let many = root.get::<Value>(&format!("{V}/machines?limit=1001"));
    assert_eq!(refusal(many), (400, "InvalidRequest".to_owned()));
    let odd = root.get::<Value>(&format!("{V}/jobs?limit=no"));
    assert_eq!(refusal(odd), (400, "InvalidRequest".to_owned()));
    let cursor = root.get::<Value>(&format!("{V}/events?cursor=%21"));
    assert_eq!(refusal(cursor).0, 400);
    let unknown = json!({ "machine": "web1", "polic": "x" });
    let unknown = root.post::<Value>(&format!("{V}/replicated-items"), &unknown);
    assert_eq!(refusal(unknown), (422, "InvalidRequest".to_owned()));
    let large = json!({ "notes": "x".repeat(300 * 1024) });
    let large = root.post::<Value>(&format!("{V}/replicated-items/x/test-failover-cleanup"), &large);
    assert_eq!(refusal(large), (413, "TooLarge".to_owned()));
}

#[test]
fn a_machine_is_protected_shown_and_unprotected() {
    let server = TestServer::start();
    let id = server.join("web1");
    let mut root = server.root();
    let machine: Value = root.get(&format!("{V}/machines/web1")).unwrap();
    assert_eq!(machine["replicated"], false);
    assert_eq!(machine["prerequisites"], "pass");
    assert_eq!(machine["disks"][0]["stableId"], "serial:boot");
    assert_eq!(
        refusal(root.get::<Value>(&format!("{V}/replicated-items/web1"))),
        (404, "NotReplicated".to_owned())
    );
    let enable = json!({ "machine": "web1" });
    let accepted: Value = root.post(&format!("{V}/replicated-items"), &enable).unwrap();
    assert_eq!(accepted["job"]["kind"], "EnableReplication");
    assert_eq!(accepted["job"]["user"], "root");
    assert_eq!(server.site.nudges.load(std::sync::atomic::Ordering::SeqCst), 1);
    assert_eq!(
        refusal(root.post::<Value>(&format!("{V}/replicated-items"), &enable)),
        (409, "AlreadyReplicated".to_owned())
    );
    let cancel = format!("{V}/jobs/{}/cancel", accepted["job"]["id"].as_str().unwrap());
    assert_eq!(
        refusal(root.post::<Value>(&cancel, &json!({}))),
        (409, "NotCancellable".to_owned())
    );
    let point = server.reconcile(id);
    let disk = server.vault.item(id).unwrap().disks[0];
    let live = |state: &str, done| LiveDisk {
        disk,
        state: state.to_owned(),
        capture: "scan".to_owned(),
        pending_bytes: 42,
        done_bytes: done,
        total_bytes: 1000,
        read_bytes: 0,
        shipped_bytes: 0,
        changed_bytes: 0,
    };
    server.beat(id, vec![live("InitialReplicationInProgress", 100)]);
    server.beat(id, vec![live("InitialReplicationInProgress", 250)]);
    let path = format!("{V}/replicated-items/{id}");
    let item: Value = root.get(&path).unwrap();
    assert_eq!(item["name"], "web1");
    assert_eq!(item["protectionState"], "Protected");
    assert_eq!(item["progress"]["percent"], 25.0);
    assert!(item["progress"]["etaSeconds"].is_u64());
    assert_eq!(item["pendingBytes"], 42);
    assert_eq!(item["lastRecoveryPoint"]["id"], point.to_string());
    assert!(item["rpoSeconds"].as_f64().unwrap() < 60.0);
    assert_eq!(item["failoverHealth"], "Warning", "a test is due");
    server.beat(id, vec![live("Protected", 0)]);
    assert_eq!(root.get::<Value>(&path).unwrap()["progress"], Value::Null);
    let operations = item["allowedOperations"].as_array().unwrap();
    for operation in operations {
        assert_eq!(
            operation["allowed"].as_bool().unwrap(),
            operation["reason"].is_null(),
            "{operation}"
        );
    }
    let points = root.list(&format!("{path}/recovery-points"), 10).unwrap();
    assert_eq!(points.len(), 1);
    assert_eq!(points[0]["freezeMs"], 1.5);
    let list = root.list(&format!("{V}/replicated-items"), 10).unwrap();
    assert_eq!(list.len(), 1);
    let answer = root
        .request(Method::DELETE, &path, None, &[])
        .unwrap()
        .json::<Value>()
        .unwrap();
    assert_eq!(answer["job"]["kind"], "DisableReplication");
}

#[test]
fn what_was_changed_by_another_is_not_overwritten() {
    let server = TestServer::start();
    let (id, _) = server.protect("web1");
    let mut root = server.root();
    let path = format!("{V}/replicated-items/web1");
    let answer = root.request(Method::GET, &path, None, &[]).unwrap();
    let etag = answer.etag.clone().unwrap();
    let mut target = answer.json::<Value>().unwrap()["target"].clone();
    target["cpus"] = json!(4);
    let put = format!("{path}/target-settings");
    let mut change =
        |target: &Value, etag: &str| root.request(Method::PUT, &put, Some(target), &[("if-match", etag)]);
    let changed = change(&target, &etag).unwrap();
    assert_eq!(changed.json::<Value>().unwrap()["target"]["cpus"], 4);
    assert_eq!(server.vault.item(id).unwrap().target.cpus, 4);
    assert_eq!(refusal(change(&target, &etag)), (412, "Changed".to_owned()));
    let next = changed.etag.unwrap();
    target["memoryBytes"] = json!(1);
    assert_eq!(refusal(change(&target, &next)), (400, "InvalidValue".to_owned()));

    let policy = format!("{V}/policies/default");
    let values = json!({ "crashConsistentSeconds": 10 });
    let etag = root
        .request(Method::GET, &policy, None, &[])
        .unwrap()
        .etag
        .unwrap();
    root.request(Method::PUT, &policy, Some(&values), &[("if-match", &etag)])
        .unwrap();
    assert_eq!(
        refusal(root.request(Method::PUT, &policy, Some(&values), &[("if-match", &etag)])).0,
        412
    );
    assert_eq!(
        server.vault.desired(id).unwrap().crash_consistent_seconds,
        10,
        "on the live item"
    );
    let twin: Value = root.get(&format!("{V}/policies/default-failback")).unwrap();
    assert_eq!(
        (&twin["crashConsistentSeconds"], &twin["editable"]),
        (&json!(10), &json!(false))
    );
    assert_eq!(
        refusal(root.request(Method::DELETE, &policy, None, &[])),
        (409, "PolicyInUse".to_owned())
    );
    // Orders to an item, a machine's certificates, a user and the user's role: what was read before is refused each time.
    let order = format!("{path}/commit");
    let old = [("if-match", "\"1\"")];
    assert_ne!(server.vault.item(id).unwrap().revision, 1);
    assert_eq!(
        refusal(root.request(Method::POST, &order, Some(&json!({})), &old)),
        (412, "Changed".to_owned())
    );
    let now = root.request(Method::GET, &path, None, &[]).unwrap().etag.unwrap();
    let admitted = refusal(root.request(Method::POST, &order, Some(&json!({})), &[("if-match", &now)]));
    assert_eq!(
        admitted.0, 409,
        "the state refuses it, the ETag does not: {admitted:?}"
    );
    server
        .vault
        .create_user("olga", DEFAULT_VAULT, Role::Reader)
        .unwrap();
    let user = format!("{V}/users/olga");
    let role = format!("{V}/role-assignments/olga");
    let reset = format!("{user}/reset-password");
    let revoke = format!("{V}/machines/web1/revoke");
    let machine = format!("{V}/machines/web1");
    let operator = json!({ "role": "Operator" });
    for (resource, method, action, body) in [
        (&user, Method::PUT, &role, Some(&operator)),
        (&user, Method::POST, &reset, None),
        (&user, Method::DELETE, &role, None),
        (&user, Method::DELETE, &user, None),
        (&machine, Method::POST, &revoke, None),
    ] {
        let tag = root
            .request(Method::GET, resource, None, &[])
            .unwrap()
            .etag
            .unwrap();
        let mut with = |tag: &str| root.request(method.clone(), action, body, &[("if-match", tag)]);
        assert_eq!(
            refusal(with("\"1\"")),
            (412, "Changed".to_owned()),
            "{method} {action}"
        );
        with(&tag).unwrap();
        assert_ne!(
            refusal(with(&tag)).0,
            409,
            "{method} {action} is refused as changed or gone"
        );
    }
}

#[test]
fn an_unhealthy_process_server_takes_no_further_machine() {
    let server = TestServer::start();
    server.join("web1");
    let trouble = |code: &'static str, free_bytes| ServerTrouble {
        error: HealthError {
            code,
            category: "Infrastructure",
            severity: Severity::Critical,
            summary: "too much".to_owned(),
            message: "the processor is 99 % busy".to_owned(),
            possible_causes: "another program".to_owned(),
            recommended_action: "see what runs there".to_owned(),
        },
        free_bytes,
    };
    let mut root = server.root();
    let path = format!("{V}/replicated-items");
    let busy = trouble("ProcessServerCpu", None);
    let no_room = trouble("ProcessServerStore", Some(1));
    for trouble in [busy, no_room] {
        server.vault.set_server_troubles(vec![trouble]);
        let refused = root.post::<Value>(&path, &json!({ "machine": "web1" }));
        match refused {
            Err(ClientError::Problem(problem)) => {
                assert_eq!(
                    (problem.status, problem.code.as_str()),
                    (409, "ProcessServerCritical")
                );
                assert!(problem.message.contains("99 % busy"), "{problem:?}");
                assert!(
                    problem.recommended_action.contains("--accept-critical-server"),
                    "{problem:?}"
                );
            }
            other => panic!("{other:?}"),
        }
        assert!(server.vault.all_items().unwrap().is_empty());
    }
    // Little room is none of a machine that fits into it; and a person may want it all the same.
    server
        .vault
        .set_server_troubles(vec![trouble("ProcessServerStore", Some(u64::MAX))]);
    root.post::<Value>(&path, &json!({ "machine": "web1" })).unwrap();
    server.join("web2");
    server
        .vault
        .set_server_troubles(vec![trouble("ProcessServerCpu", None)]);
    let accepting = json!({ "machine": "web2", "acceptCriticalServer": true });
    root.post::<Value>(&path, &accepting).unwrap();
}

#[test]
fn an_order_sent_twice_under_one_key_is_carried_out_once() {
    let server = TestServer::start();
    server.join("web1");
    server.join("web2");
    let mut root = server.root();
    let path = format!("{V}/replicated-items");
    let mut enable = |machine: &str, key: &str| {
        let body = json!({ "machine": machine });
        root.request(Method::POST, &path, Some(&body), &[("idempotency-key", key)])
    };
    let first = enable("web1", "k1").unwrap();
    let again = enable("web1", "k1").unwrap();
    assert_eq!((first.status, &first.body), (again.status, &again.body));
    assert_eq!(refusal(enable("web2", "k1")), (422, "KeyReused".to_owned()));
    enable("web2", "k2").unwrap();
    let jobs = root.list(&format!("{V}/jobs"), 100).unwrap();
    assert_eq!(jobs.len(), 2);
}

#[test]
fn lists_come_in_parts_without_gaps() {
    let server = TestServer::start();
    let names: Vec<String> = (0..7).map(|number| format!("web{number}")).collect();
    for name in &names {
        server.join(name);
    }
    let mut root = server.root();
    let mut seen = Vec::new();
    let mut path = format!("{V}/machines?limit=3");
    loop {
        let page: Value = root.get(&path).unwrap();
        for machine in page["items"].as_array().unwrap() {
            seen.push(machine["name"].as_str().unwrap().to_owned());
        }
        match page["nextCursor"].as_str() {
            Some(cursor) => path = format!("{V}/machines?limit=3&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, names);
    let events = root.list(&format!("{V}/events?machine=web3"), 100).unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["code"], "MachineJoined");
    // What is sorted after it was made comes in parts too, the newest first.
    for _ in 0..5 {
        root.post::<Value>(&format!("{V}/join-tokens"), &json!({}))
            .unwrap();
    }
    root.request(Method::DELETE, &format!("{V}/join-tokens/2"), None, &[])
        .unwrap();
    let mut ids = |query: &str| -> Vec<i64> {
        let (mut ids, mut cursor) = (Vec::new(), String::new());
        loop {
            let page: Value = root
                .get(&format!("{V}/join-tokens?limit=2{query}{cursor}"))
                .unwrap();
            ids.extend(
                page["items"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|row| row["id"].as_i64().unwrap()),
            );
            match page["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return ids,
            }
        }
    };
    assert_eq!(ids(""), [5, 4, 3, 2, 1]);
    assert_eq!(ids("&sort=id&state=valid"), [1, 3, 4, 5]);
    assert_eq!(ids("&state=Revoked"), [2]);
    for list in [
        "join-tokens",
        "registration-keys",
        "health-errors",
        "alert-deliveries",
    ] {
        let wrong = root.get::<Value>(&format!("{V}/{list}?sort=colour"));
        assert_eq!(refusal(wrong), (400, "InvalidRequest".to_owned()), "{list}");
    }
}

#[test]
fn a_live_view_is_told_what_changes_and_catches_up() {
    let server = TestServer::start();
    let open = |last: Option<&str>| {
        let mut stream = UnixStream::connect(server.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let last = last.map_or_else(String::new, |last| format!("Last-Event-ID: {last}\r\n"));
        write!(stream, "GET {V}/events/stream HTTP/1.1\r\nHost: x\r\n{last}\r\n").unwrap();
        BufReader::new(stream)
    };
    // (event, id, data)
    fn next(stream: &mut BufReader<UnixStream>) -> (String, String, String) {
        let mut found = (String::new(), String::new(), String::new());
        loop {
            let mut line = String::new();
            assert!(stream.read_line(&mut line).unwrap() > 0, "the view ended");
            let line = line.trim_end();
            if let Some(event) = line.strip_prefix("event: ") {
                found.0 = event.to_owned();
            } else if let Some(id) = line.strip_prefix("id: ") {
                found.1 = id.to_owned();
            } else if let Some(data) = line.strip_prefix("data: ") {
                found.2 = data.to_owned();
            } else if line.is_empty() && !found.0.is_empty() {
                return found;
            }
        }
    }
    let mut stream = open(None);
    let (kind, begin, _) = next(&mut stream);
    assert_eq!(kind, "hello");
    server.join("web1");
    // The machine changes once more with its inventory: it is told before the event, after it, or twice.
    let (mut machine, mut joined) = (false, false);
    while !(machine && joined) {
        let (kind, _, data) = next(&mut stream);
        machine |= kind == "machine";
        joined |= kind == "event" && data.contains("MachineJoined");
    }
    drop(stream);
    let mut stream = open(Some(&begin));
    let mut missed = [next(&mut stream).0, next(&mut stream).0];
    missed.sort();
    assert_eq!(missed, ["event", "machine"], "what was missed comes first");
    drop(stream);
    let mut stream = open(Some("99999999"));
    assert_eq!(next(&mut stream).0, "reset");
}

/// The machine's console is a socket in its folder; what is written there arrives as frames of a WebSocket, and back.
fn the_console_is_an_operators_and_of_the_own_page(server: &TestServer, path: &str) {
    let ask = |who: &str| {
        format!(
            "GET {path}/target-machine/console?test=true HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nConnection: Upgrade\r\nHost: vault:8443\r\n{who}\r\n"
        )
    };
    let open = |who: &str| -> (u16, UnixStream) {
        let mut stream = UnixStream::connect(server.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(ask(who).as_bytes()).unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        if head.starts_with("HTTP/1.1 101") {
            assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        }
        (head[9..12].parse().unwrap(), stream)
    };
    let cookie =
        |name: &str, role: Role| format!("Cookie: __Host-lifeboat={}\r\n", server.session(name, role));
    let operator = cookie("console-op", Role::Operator);
    let own = "Origin: https://vault:8443\r\n";
    assert_eq!(
        open(&format!("{operator}{own}")).0,
        502,
        "the double serves no console yet"
    );
    let spec = server.compute.spec("web1-test");
    let socket = std::os::unix::net::UnixListener::bind(spec.folder.join("vnc.sock")).unwrap();
    assert_eq!(open(&operator).0, 403, "no Origin");
    assert_eq!(
        open(&format!("{operator}Origin: https://evil.example\r\n")).0,
        403
    );
    let reader = cookie("console-reader", Role::Reader);
    assert_eq!(open(&format!("{reader}{own}")).0, 403, "a Reader");
    let (status, mut page) = open(&format!("{operator}{own}"));
    assert_eq!(status, 101);
    let (mut guest, _) = socket.accept().unwrap();
    guest.write_all(b"RFB 003.008\n").unwrap();
    let mut frame = [0; 14];
    page.read_exact(&mut frame).unwrap();
    assert_eq!(&frame, b"\x82\x0cRFB 003.008\n");
    page.write_all(b"\x82\x84\x01\x02\x03\x04\x71\x70\x6a\x70")
        .unwrap();
    let mut typed = [0; 4];
    guest.read_exact(&mut typed).unwrap();
    assert_eq!(&typed, b"prit");
    drop(guest);
    let mut goodbye = [0; 4];
    page.read_exact(&mut goodbye).unwrap();
    assert_eq!((goodbye[0], &goodbye[2..]), (0x88, &1000u16.to_be_bytes()[..]));
    until("the console is in the audit log", || {
        let audit = server.vault.audit_log(None, None, None, 1000).unwrap();
        audit.iter().any(|row| {
            row.user == "console-op"
                && row.action.ends_with("/target-machine/console")
                && row.outcome == "101"
        })
    });
}

#[test]
fn a_test_failover_runs_is_seen_and_is_cleaned_up() {
    let server = TestServer::start();
    let (id, point) = server.protect("web1");
    let mut operator = server.https(Some(&server.session("op", Role::Operator)));
    let path = format!("{V}/replicated-items/web1");
    assert_eq!(
        refusal(operator.get::<Value>(&format!("{path}/target-machine?test=true"))),
        (404, "NoMachine".to_owned())
    );
    let bad = json!({ "recoveryPoint": "newest" });
    assert_eq!(
        refusal(operator.post::<Value>(&format!("{path}/test-failover"), &bad)).0,
        400
    );
    let wait = |client: &mut Client, accepted: &Value| -> Value {
        let job = format!("{V}/jobs/{}", accepted["job"]["id"].as_str().unwrap());
        let mut last = Value::Null;
        until("the job is over", || {
            last = client.get(&job).unwrap();
            ["Succeeded", "Failed", "Cancelled"].contains(&last["state"].as_str().unwrap())
        });
        assert_eq!(last["state"], "Succeeded", "{last:#}");
        last
    };
    let order = json!({ "recoveryPoint": "LatestProcessed" });
    let accepted: Value = operator.post(&format!("{path}/test-failover"), &order).unwrap();
    let job = wait(&mut operator, &accepted);
    assert!(!job["tasks"].as_array().unwrap().is_empty());
    assert_eq!(job["user"], "op");
    assert_eq!(server.compute.names(), ["web1-test"]);
    let item: Value = operator.get(&path).unwrap();
    assert_eq!(item["testFailoverState"], "TestFailoverCompleted");
    assert_eq!(item["testFailover"]["recoveryPoint"], point.to_string());
    let machine: Value = operator.get(&format!("{path}/target-machine?test=true")).unwrap();
    assert_eq!(machine["power"], "running");
    let log = operator
        .request(
            Method::GET,
            &format!("{path}/target-machine/serial-log?test=true"),
            None,
            &[],
        )
        .unwrap();
    assert_eq!(log.body, "booted\n");
    let screen = operator
        .request(
            Method::GET,
            &format!("{path}/target-machine/screenshot?test=true"),
            None,
            &[],
        )
        .unwrap();
    assert!(screen.body.starts_with(b"\x89PNG"));
    the_console_is_an_operators_and_of_the_own_page(&server, &path);
    let again = operator.post::<Value>(&format!("{path}/test-failover"), &order);
    assert_eq!(refusal(again).0, 409);
    let notes = json!({ "notes": "all well" });
    let accepted: Value = operator
        .post(&format!("{path}/test-failover-cleanup"), &notes)
        .unwrap();
    wait(&mut operator, &accepted);
    assert!(server.compute.names().is_empty());
    let item: Value = operator.get(&path).unwrap();
    assert_eq!(item["failoverHealth"], "Normal");

    let order = json!({ "recoveryPoint": point.to_string() });
    let accepted: Value = operator
        .post(&format!("{path}/unplanned-failover"), &order)
        .unwrap();
    wait(&mut operator, &accepted);
    assert_eq!(server.compute.names(), ["web1-asr"]);
    assert!(server.vault.desired(id).unwrap().fenced.is_some());
    let accepted: Value = operator.post(&format!("{path}/commit"), &json!({})).unwrap();
    wait(&mut operator, &accepted);
    let item = server.vault.item(id).unwrap();
    assert_eq!(item.protection, ProtectionState::CommitFailoverCompleted);
    assert_eq!(item.active_location, ActiveLocation::Recovery);
}
