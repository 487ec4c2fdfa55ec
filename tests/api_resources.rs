//! Resources and orders of the API beyond protecting and failing over: vaults, machines that are removed, policies and disks
//! of a live item, jobs that are given again and exported, lists that are filtered and sorted.
#[path = "support/site.rs"]
mod site;

use hyper::Method;
use lifeboat::api::client::Client;
use lifeboat::recovery::{JobKind, JobState, Journal};
use lifeboat::vault::Role;
use serde_json::{Value, json};
use site::{TestServer, refusal, until};

const V: &str = "/api/v1/vaults/default";

fn over(client: &mut Client, accepted: &Value) -> Value {
    let path = format!("{V}/jobs/{}", accepted["job"]["id"].as_str().unwrap());
    let mut last = Value::Null;
    until("the job is over", || {
        last = client.get(&path).unwrap();
        ["Succeeded", "Failed", "Cancelled"].contains(&last["state"].as_str().unwrap())
    });
    last
}

fn names(client: &mut Client, path: &str) -> Vec<String> {
    let name = |item: Value| item["name"].as_str().unwrap().to_owned();
    client.list(path, 1000).unwrap().into_iter().map(name).collect()
}

#[test]
fn a_vault_is_made_used_and_removed_when_it_is_empty() {
    let server = TestServer::start();
    let mut owner = server.https(Some(&server.session("olga", Role::Owner)));
    let mut reader = server.https(Some(&server.session("rita", Role::Reader)));
    let make = json!({ "name": "branch" });
    assert_eq!(refusal(reader.post::<Value>("/api/v1/vaults", &make)).0, 403);
    let bad = owner.post::<Value>("/api/v1/vaults", &json!({ "name": "-x" }));
    assert_eq!(refusal(bad), (400, "InvalidValue".to_owned()));
    let made: Value = owner.post("/api/v1/vaults", &make).unwrap();
    assert_eq!(made["role"], "Owner");
    let again = owner.post::<Value>("/api/v1/vaults", &json!({ "name": "BRANCH" }));
    assert_eq!(refusal(again), (409, "VaultExists".to_owned()));
    assert_eq!(names(&mut owner, "/api/v1/vaults"), ["branch", "default"]);
    assert_eq!(names(&mut reader, "/api/v1/vaults"), ["default"]);

    // A role of its own, and no view from one into the other.
    assert_eq!(refusal(reader.get::<Value>("/api/v1/vaults/branch/jobs")).0, 403);
    let role = json!({ "role": "Reader" });
    owner
        .request(
            Method::PUT,
            "/api/v1/vaults/branch/role-assignments/rita",
            Some(&role),
            &[],
        )
        .unwrap();
    server.join("web1");
    server.join_to("branch", "web1");
    assert_eq!(
        names(&mut reader, "/api/v1/vaults/branch/policies"),
        ["default", "default-failback"]
    );
    assert_eq!(names(&mut reader, "/api/v1/vaults/branch/machines"), ["web1"]);
    let enabled: Value = owner
        .post(
            "/api/v1/vaults/branch/replicated-items",
            &json!({ "machine": "web1" }),
        )
        .unwrap();
    let job = enabled["job"]["id"].as_str().unwrap();
    assert_eq!(refusal(owner.get::<Value>(&format!("{V}/jobs/{job}"))).0, 404);
    assert_eq!(owner.list(&format!("{V}/jobs"), 10).unwrap().len(), 0);
    let audit = reader.list("/api/v1/vaults/branch/audit", 100).unwrap();
    assert!(!audit.is_empty());
    assert!(audit.iter().all(|line| {
        line["object"]
            .as_str()
            .unwrap()
            .starts_with("/api/v1/vaults/branch/")
    }));

    let remove = |client: &mut Client, name: &str| {
        client.request(Method::DELETE, &format!("/api/v1/vaults/{name}"), None, &[])
    };
    assert_eq!(
        refusal(remove(&mut owner, "default")),
        (409, "DefaultVault".to_owned())
    );
    match remove(&mut owner, "branch") {
        Err(lifeboat::api::client::ClientError::Problem(problem)) => {
            assert_eq!(problem.code, "VaultNotEmpty");
            assert!(
                problem.message.contains("replicated item web1"),
                "{}",
                problem.message
            );
        }
        other => panic!("{other:?}"),
    }
    server.unprotect("branch", "web1");
    assert_eq!(refusal(remove(&mut owner, "branch")).1, "VaultNotEmpty");
    owner
        .request(Method::DELETE, "/api/v1/vaults/branch/machines/web1", None, &[])
        .unwrap();
    remove(&mut owner, "branch").unwrap();
    assert_eq!(names(&mut owner, "/api/v1/vaults"), ["default"]);
    assert_eq!(refusal(owner.get::<Value>("/api/v1/vaults/branch/jobs")).0, 403);
    // Its name is free, and nothing of it is left.
    owner.post::<Value>("/api/v1/vaults", &make).unwrap();
    assert!(owner.list("/api/v1/vaults/branch/events", 10).unwrap().is_empty());
    assert_eq!(refusal(reader.get::<Value>("/api/v1/vaults/branch/jobs")).0, 403);
}

#[test]
fn a_removed_machine_is_locked_out_and_its_name_is_free() {
    let server = TestServer::start();
    let (id, _) = server.protect("web1");
    server.vault.certificate_issued(id, "01", i64::MAX / 2).unwrap();
    let mut root = server.root();
    let path = format!("{V}/machines/web1");
    let refused = root.request(Method::DELETE, &path, None, &[]);
    assert_eq!(refusal(refused), (409, "MachineReplicated".to_owned()));
    let job = server.unprotect("default", "web1");
    let shown = root.request(Method::GET, &path, None, &[]).unwrap();
    let etag = shown.etag.unwrap();
    let rename = |root: &mut Client, name: &str, etag: &str| {
        root.request(
            Method::POST,
            &format!("{path}/rename"),
            Some(&json!({ "name": name })),
            &[("if-match", etag)],
        )
    };
    rename(&mut root, "WEB1", &etag).unwrap();
    assert_eq!(
        refusal(rename(&mut root, "web2", &etag)),
        (412, "Changed".to_owned())
    );
    let stale = root.request(Method::DELETE, &path, None, &[("if-match", &etag)]);
    assert_eq!(refusal(stale).0, 412);
    root.request(Method::DELETE, &path, None, &[]).unwrap();
    assert_eq!(server.site.revoked.lock().unwrap().as_slice(), [id]);
    assert_eq!(refusal(root.get::<Value>(&path)).0, 404);
    assert!(names(&mut root, &format!("{V}/machines")).is_empty());
    assert_eq!(
        server.vault.certificate_status(id, "01").unwrap(),
        lifeboat::vault::CertificateStatus::Revoked
    );
    let job: Value = root.get(&format!("{V}/jobs/{job}")).unwrap();
    let name = job["machine"]["name"].as_str().unwrap();
    assert!(name.starts_with("WEB1 (removed "), "its history stays: {name}");
    assert_ne!(server.join("web1"), id, "it joins as another machine");
}

#[test]
fn a_live_item_gets_another_policy_and_other_disks() {
    let server = TestServer::start();
    let (id, first) = server.protect("web1");
    let mut root = server.root();
    let item = format!("{V}/replicated-items/web1");
    let make = json!({ "name": "gold", "crashConsistentSeconds": 7, "retentionHours": 72 });
    root.post::<Value>(&format!("{V}/policies"), &make).unwrap();
    let shown = root.request(Method::GET, &item, None, &[]).unwrap();
    let etag = shown.etag.unwrap();
    let mut put = |what: &str, body: &Value, etag: &str| {
        root.request(
            Method::PUT,
            &format!("{item}/{what}"),
            Some(body),
            &[("if-match", etag)],
        )
    };
    let unknown = put("policy", &json!({ "policy": "nosuch" }), &etag);
    assert_eq!(refusal(unknown).0, 404);
    let twin = put("policy", &json!({ "policy": "gold-failback" }), &etag);
    assert_eq!(refusal(twin), (409, "FailbackPolicy".to_owned()));
    let changed = put("policy", &json!({ "policy": "gold" }), &etag).unwrap();
    assert_eq!(changed.json::<Value>().unwrap()["policy"], "gold");
    assert_eq!(refusal(put("policy", &json!({ "policy": "gold" }), &etag)).0, 412);
    assert_eq!(server.vault.desired(id).unwrap().crash_consistent_seconds, 7);
    assert_eq!(server.vault.policy_of(id).unwrap().retention_hours, 72);

    // Another disk.
    server.beat_with(id, &["serial:boot", "serial:data"], Vec::new());
    let set = |disks: &[&str]| json!({ "disks": disks });
    assert_eq!(
        refusal(put("disks", &set(&["serial:data"]), "*")),
        (409, "BootDiskExcluded".to_owned())
    );
    assert_eq!(
        refusal(put("disks", &set(&["serial:boot", "x"]), "*")).1,
        "NoSuchDisk"
    );
    assert_eq!(
        refusal(put("disks", &set(&["serial:boot"]), "*")).1,
        "NothingToChange"
    );
    let before = server.vault.item(id).unwrap();
    let accepted: Value = put("disks", &set(&["serial:boot", "serial:data"]), "*")
        .unwrap()
        .json()
        .unwrap();
    assert_eq!(accepted["job"]["kind"], "ChangeDisks");
    assert_eq!(accepted["job"]["parameters"]["include"], json!(["serial:data"]));
    let desired = server.vault.desired(id).unwrap();
    assert_eq!(
        (desired.disks.len(), desired.generation),
        (2, before.generation + 1)
    );
    let item_now = server.vault.item(id).unwrap();
    assert_eq!(item_now.disks, before.disks, "not before a point holds it");
    let shown: Value = root.get(&item).unwrap();
    let held = |shown: &Value| -> Vec<bool> {
        let disks = shown["disks"].as_array().unwrap();
        disks
            .iter()
            .map(|disk| disk["inRecoveryPoints"] == true)
            .collect()
    };
    assert_eq!(held(&shown), [true, false]);
    let allowed = shown["allowedOperations"].as_array().unwrap();
    let test = allowed
        .iter()
        .find(|entry| entry["operation"] == "TestFailover")
        .unwrap();
    assert_eq!(test["allowed"], true, "from the points there are: {test}");
    // As a test failover while the disk is copied.
    let accepted: Value = root
        .post(
            &format!("{item}/test-failover"),
            &json!({ "recoveryPoint": first.to_string() }),
        )
        .unwrap();
    assert_eq!(over(&mut root, &accepted)["state"], "Succeeded");
    let busy = root.request(
        Method::PUT,
        &format!("{item}/disks"),
        Some(&set(&["serial:boot"])),
        &[],
    );
    // Taken back: the copy is given up, nothing else changes.
    let accepted: Value = busy.unwrap().json().unwrap();
    assert_eq!(accepted["job"]["parameters"]["exclude"], json!(["serial:data"]));
    let jobs = root
        .list(&format!("{V}/jobs?kind=ChangeDisks&state=Cancelled"), 10)
        .unwrap();
    assert_eq!(jobs.len(), 1);
    assert_eq!(server.vault.item_row(id).unwrap().disks.len(), 1);
}

#[test]
fn a_failed_job_is_given_again_and_names_the_old_one() {
    let server = TestServer::start();
    let (_, _) = server.protect("web1");
    let mut operator = server.https(Some(&server.session("op", Role::Operator)));
    let item = format!("{V}/replicated-items/web1");
    server.compute.fail_starts(true);
    let accepted: Value = operator
        .post(&format!("{item}/test-failover"), &json!({}))
        .unwrap();
    let failed = over(&mut operator, &accepted);
    assert_eq!(failed["state"], "Failed");
    assert_eq!(failed["allowedActions"], json!(["restart"]));
    server.compute.fail_starts(false);
    let job = format!("{V}/jobs/{}", failed["id"].as_str().unwrap());
    let refused = operator.post::<Value>(&format!("{job}/resume"), &json!({ "comments": "done" }));
    assert_eq!(refusal(refused), (409, "NotSuspended".to_owned()));
    let accepted: Value = operator.post(&format!("{job}/restart"), &json!({})).unwrap();
    assert_eq!(accepted["job"]["restartOf"], failed["id"]);
    let again = over(&mut operator, &accepted);
    assert_eq!(
        (&again["state"], &again["kind"]),
        (&json!("Succeeded"), &json!("TestFailover"))
    );
    let refused = operator.post::<Value>(
        &format!("{V}/jobs/{}/restart", again["id"].as_str().unwrap()),
        &json!({}),
    );
    assert_eq!(refusal(refused), (409, "NotRestartable".to_owned()));
    // Its cleanup stands in the way now: a restart is admitted like any order.
    let refused = operator.post::<Value>(&format!("{job}/restart"), &json!({}));
    assert_eq!(refusal(refused), (409, "CleanupPending".to_owned()));

    // An order of a Contributor stays one.
    let id = server.join("web2");
    server.vault.enable(id, "default", None, None, "admin").unwrap();
    let mut enabling = server.vault.open_jobs().unwrap().pop().unwrap();
    let mut row = server.vault.item(id).unwrap();
    enabling.state = JobState::Failed;
    row.protection = lifeboat::recovery::ProtectionState::EnablingFailed;
    server.vault.record(&enabling, Some(&row)).unwrap();
    let restart = format!("{V}/jobs/{}/restart", enabling.id);
    assert_eq!(
        refusal(operator.post::<Value>(&restart, &json!({}))),
        (403, "RoleMissing".to_owned())
    );
    let accepted: Value = server.root().post(&restart, &json!({})).unwrap();
    assert_eq!(accepted["job"]["kind"], "EnableReplication");
}

#[test]
fn a_suspended_job_goes_on_when_it_is_resumed() {
    let server = TestServer::start();
    let id = server.join("web1");
    server.vault.enable(id, "default", None, None, "admin").unwrap();
    let mut job = server.vault.open_jobs().unwrap().pop().unwrap();
    job.state = JobState::Suspended;
    job.tasks[0].state = lifeboat::recovery::TaskState::InProgress;
    job.tasks[0].message = "set the switch".to_owned();
    server.vault.record(&job, None).unwrap();
    let mut root = server.root();
    let path = format!("{V}/jobs/{}", job.id);
    let shown: Value = root.get(&path).unwrap();
    assert!(
        shown["allowedActions"]
            .as_array()
            .unwrap()
            .contains(&json!("resume"))
    );
    let body = json!({ "comments": "the switch is set" });
    let accepted: Value = root.post(&format!("{path}/resume"), &body).unwrap();
    assert_eq!(accepted["job"]["state"], "InProgress");
    let comment = &accepted["job"]["result"]["comments"][0];
    assert_eq!(
        (&comment["text"], &comment["user"]),
        (&json!("the switch is set"), &json!("root"))
    );
    // A second wait keeps the first answer; both are told of.
    let mut job = server.vault.open_jobs().unwrap().pop().unwrap();
    job.state = JobState::Suspended;
    server.vault.record(&job, None).unwrap();
    let accepted: Value = root.post(&format!("{path}/resume"), &json!({})).unwrap();
    assert_eq!(accepted["job"]["result"]["comments"].as_array().unwrap().len(), 2);
    let events = root.list(&format!("{V}/events?machine=web1"), 100).unwrap();
    let told = |code: &str| -> Vec<&str> {
        let of = events.iter().filter(|event| event["code"] == code);
        of.map(|event| event["message"].as_str().unwrap()).collect()
    };
    assert_eq!(told("JobWaiting").len(), 2);
    assert!(
        told("JobWaiting")[0].ends_with("waits for a person: set the switch"),
        "{events:#?}"
    );
    assert_eq!(told("JobResumed").len(), 2);
    assert!(
        told("JobResumed")[1].ends_with("goes on, says root: the switch is set"),
        "{events:#?}"
    );
}

#[test]
fn lists_are_filtered_and_sorted() {
    let server = TestServer::start();
    for name in ["web1", "db1", "web2"] {
        server.join(name);
    }
    server.protect("db2");
    let mut root = server.root();
    let mut of = |path: &str| names(&mut root, &format!("{V}{path}"));
    assert_eq!(of("/machines"), ["db1", "db2", "web1", "web2"]);
    assert_eq!(of("/machines?name=WEB&sort=-name"), ["web2", "web1"]);
    assert_eq!(of("/machines?replicated=true"), ["db2"]);
    assert_eq!(of("/machines?sort=joinedAt"), ["web1", "db1", "web2", "db2"]);
    assert_eq!(of("/policies?editable=true"), ["default"]);
    assert_eq!(
        of("/replicated-items?protectionState=Protected&policy=default"),
        ["db2"]
    );
    assert_eq!(
        of("/replicated-items?replicationHealth=Critical"),
        Vec::<String>::new()
    );
    assert_eq!(of("/replicated-items?sort=-rpoSeconds"), ["db2"]);
    assert_eq!(of("/servers?role=process&health=Normal"), ["here"]);
    assert_eq!(of("/users?role=Owner"), ["admin"]);
    for bad in [
        "/machines?sort=size",
        "/jobs?sort=name",
        "/jobs?kind=Nothing",
        "/jobs?since=now",
        "/events?severity=x",
    ] {
        assert_eq!(refusal(root.get::<Value>(&format!("{V}{bad}"))).0, 400, "{bad}");
    }
    let jobs = |root: &mut Client, query: &str| root.list(&format!("{V}/jobs?{query}"), 100).unwrap().len();
    assert_eq!(
        jobs(&mut root, "user=admin&kind=EnableReplication&state=Succeeded"),
        1
    );
    assert_eq!(jobs(&mut root, "user=nobody"), 0);
    assert_eq!(jobs(&mut root, "since=2020-01-01T00:00:00Z"), 1);
    assert_eq!(jobs(&mut root, "until=2020-01-01T00:00:00Z"), 0);
    let codes = |root: &mut Client, query: &str| -> Vec<String> {
        let events = root.list(&format!("{V}/events?{query}"), 100).unwrap();
        events
            .iter()
            .map(|event| event["code"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(codes(&mut root, "code=MachineJoined").len(), 4);
    assert_eq!(codes(&mut root, "sort=at")[0], "MachineJoined");
    assert_eq!(codes(&mut root, "severity=Critical"), Vec::<String>::new());
    assert!(codes(&mut root, "since=2020-01-01T00:00:00Z&machine=db2").contains(&"Protected".to_owned()));
    assert!(codes(&mut root, "until=2020-01-01T00:00:00Z").is_empty());
    let points = |root: &mut Client, query: &str| {
        let path = format!("{V}/replicated-items/db2/recovery-points?{query}");
        root.list(&path, 100).unwrap().len()
    };
    assert_eq!(points(&mut root, "consistency=CrashConsistent&sort=instant"), 1);
    assert_eq!(points(&mut root, "consistency=AppConsistent"), 0);
}

#[test]
fn jobs_are_exported_whole() {
    let server = TestServer::start();
    let (id, _) = server.protect("web1");
    let mut job = server
        .vault
        .jobs("default", &lifeboat::vault::JobFilter::default(), 1)
        .unwrap()
        .remove(0)
        .job;
    assert_eq!(job.machine, id);
    // More than is read at once.
    for number in 0..1100 {
        job.id = lifeboat::recovery::JobId::new();
        job.kind = JobKind::TestFailover;
        job.user = format!("=user{number}");
        server.vault.record(&job, None).unwrap();
    }
    let mut root = server.root();
    let mut get = |query: &str| {
        let answer = root.request(Method::GET, &format!("{V}/jobs/export?{query}"), None, &[]);
        String::from_utf8(answer.unwrap().body.to_vec()).unwrap()
    };
    let all: Vec<Value> = serde_json::from_str(&get("format=json")).unwrap();
    assert_eq!(all.len(), 1101);
    let ids: std::collections::HashSet<&str> = all.iter().map(|job| job["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 1101);
    let table = get("format=csv&kind=TestFailover&sort=createdAt");
    assert_eq!(table.lines().count(), 1101);
    let first = table.lines().nth(1).unwrap();
    assert!(
        first.contains(",Test failover,web1,Succeeded,'=user0,"),
        "{first}"
    );
    let none: Vec<Value> = serde_json::from_str(&get("state=Failed")).unwrap();
    assert!(none.is_empty());
}

#[test]
fn an_order_whose_answer_is_secret_is_not_carried_out_twice() {
    let server = TestServer::start();
    let mut root = server.root();
    let mut make = |name: &str| {
        let body = json!({ "name": name, "role": "Reader" });
        root.request(
            Method::POST,
            &format!("{V}/users"),
            Some(&body),
            &[("idempotency-key", "k1")],
        )
    };
    make("rita").unwrap();
    assert_eq!(refusal(make("rita")), (409, "DoneAlready".to_owned()));
    assert_eq!(refusal(make("ron")), (422, "KeyReused".to_owned()));
    let database = std::fs::read(server.folder.path().join("vault.db")).unwrap();
    let text = String::from_utf8_lossy(&database).into_owned();
    assert!(!text.contains("oneTimePassword"));
}
