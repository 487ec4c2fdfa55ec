//! Recovery plans over the API and the command line's words for them: made by a Contributor, run by an Operator.
#[path = "support/site.rs"]
mod site;

use hyper::Method;
use lifeboat::api::client::Client;
use lifeboat::vault::Role;
use serde_json::{Value, json};
use site::{TestServer, refusal, until};

const V: &str = "/api/v1/vaults/default";

fn run_in(client: &mut Client, plan: &str, states: &[&str]) -> Value {
    let path = format!("{V}/recovery-plans/{plan}/runs/latest");
    let mut last = Value::Null;
    until(&format!("the run is {states:?}"), || {
        last = client.get(&path).unwrap();
        let state = last["state"].as_str().unwrap();
        assert!(state != "Failed" || states.contains(&"Failed"), "{last:#}");
        states.contains(&state)
    });
    last
}

#[test]
fn a_plan_is_made_checked_tested_and_cleaned_up_by_those_who_may() {
    let server = TestServer::start();
    for name in ["db1", "web1"] {
        server.protect(name);
    }
    let mut contributor = server.https(Some(&server.session("carla", Role::Contributor)));
    let mut operator = server.https(Some(&server.session("omar", Role::Operator)));
    let mut reader = server.https(Some(&server.session("rita", Role::Reader)));
    let plans = format!("{V}/recovery-plans");
    let body = json!({
        "name": "site",
        "groups": [
            { "name": "data", "machines": ["db1"], "after": [
                { "name": "look at it", "kind": "manual", "instructions": "Is the database up?" }] },
            { "name": "front", "machines": ["web1"], "before": [
                { "name": "settle", "kind": "delay", "seconds": 1, "failoverTypes": ["test"] }] }
        ],
        "onMachineFailure": "ask"
    });
    assert_eq!(refusal(operator.post::<Value>(&plans, &body)).0, 403);
    let made: Value = contributor.post(&plans, &body).unwrap();
    assert_eq!(
        (made["machineCount"].as_u64(), made["revision"].as_u64()),
        (Some(2), Some(1))
    );
    assert_eq!(made["groups"], body["groups"].clone().take_with_defaults());
    assert_eq!(refusal(contributor.post::<Value>(&plans, &body)).1, "PlanExists");
    for (wrong, code) in [
        (
            json!({ "name": "x", "groups": [{ "machines": ["nobody"] }] }),
            "NotFound",
        ),
        (
            json!({ "name": "x", "groups": [{ "machines": ["db1"] }, { "machines": ["db1"] }] }),
            "InvalidPlan",
        ),
        (
            json!({ "name": "x", "groups": [{ "before": [{ "name": "a", "kind": "manual" }] }] }),
            "InvalidRequest",
        ),
        (
            json!({ "name": "x", "groups": [{ "before": [{ "name": "a", "kind": "script", "script": "../sh" }] }] }),
            "InvalidPlan",
        ),
        (json!({ "name": "x", "testNetwork": "user" }), "InvalidValue"),
    ] {
        assert_eq!(
            refusal(contributor.post::<Value>(&plans, &wrong)).1,
            code,
            "{wrong}"
        );
    }
    let checks: Value = reader.get(&format!("{plans}/site/checks")).unwrap();
    assert_eq!(checks["problems"], json!([]));

    // Edited under the revision that was read.
    let path = format!("{plans}/site");
    let etag = contributor
        .request(Method::GET, &path, None, &[])
        .unwrap()
        .etag
        .unwrap();
    let mut changed = body.clone();
    changed["groups"][0]["name"] = json!("database");
    let edit =
        |client: &mut Client| client.request(Method::PUT, &path, Some(&changed), &[("if-match", &etag)]);
    assert_eq!(refusal(edit(&mut operator)).0, 403);
    edit(&mut contributor).unwrap();
    assert_eq!(refusal(edit(&mut contributor)).0, 412);

    // Run by an operator.
    let test = format!("{path}/test-failover");
    assert_eq!(refusal(reader.post::<Value>(&test, &json!({}))).0, 403);
    let custom = json!({ "recoveryPoint": "018f0000-0000-7000-8000-000000000000" });
    assert_eq!(refusal(operator.post::<Value>(&test, &custom)).0, 400);
    let accepted: Value = operator.post(&test, &json!({})).unwrap();
    assert_eq!(accepted["run"]["scenario"], "Test failover");
    let run = run_in(&mut reader, "site", &["Suspended"]);
    assert_eq!(run["waitsFor"], "look at it: Is the database up?");
    assert_eq!(run["steps"][0]["groupName"], "database");
    let job: Value = reader
        .get(&format!("{V}/jobs/{}", run["steps"][0]["job"].as_str().unwrap()))
        .unwrap();
    assert_eq!(
        (&job["state"], &job["parameters"]["planRun"]),
        (&json!("Succeeded"), &run["id"])
    );
    assert_eq!(
        refusal(contributor.request(Method::DELETE, &path, None, &[])).1,
        "PlanRuns"
    );
    assert_eq!(refusal(operator.post::<Value>(&test, &json!({}))).1, "PlanRuns");
    let resume = format!("{path}/runs/latest/resume");
    let comment = json!({ "comment": "it is" });
    assert_eq!(refusal(reader.post::<Value>(&resume, &comment)).0, 403);
    operator.post::<Value>(&resume, &comment).unwrap();
    let run = run_in(&mut reader, "site", &["Succeeded"]);
    assert_eq!(
        (&run["steps"][1]["decidedBy"], &run["steps"][1]["comment"]),
        (&json!("omar"), &json!("it is"))
    );
    assert_eq!(run["result"]["machinesSucceeded"], 2);
    assert!(
        run["result"]["rtoSeconds"].as_f64().unwrap() >= 1.0,
        "the delay counts: {}",
        run["result"]
    );
    let checks: Value = reader.get(&format!("{plans}/site/checks")).unwrap();
    assert_eq!(checks["problems"][0]["code"], "CleanupPending");

    operator
        .post::<Value>(
            &format!("{path}/test-failover-cleanup"),
            &json!({ "notes": "all well" }),
        )
        .unwrap();
    let run = run_in(&mut reader, "site", &["Succeeded"]);
    assert_eq!(
        (&run["operation"], &run["notes"]),
        (&json!("TestFailoverCleanup"), &json!("all well"))
    );
    let plan: Value = reader.get(&path).unwrap();
    assert!(plan["lastSuccessfulTestFailoverAt"].is_string());
    let runs = reader.list(&format!("{path}/runs"), 10).unwrap();
    assert_eq!(runs.len(), 2);
    let events = reader.list(&format!("{V}/events"), 100).unwrap();
    for code in ["PlanRunStarted", "PlanRunWaits", "PlanRunSucceeded"] {
        assert!(events.iter().any(|event| event["code"] == code), "{code}");
    }

    // For real; again where all are over already; committed.
    operator
        .post::<Value>(&format!("{path}/unplanned-failover"), &json!({}))
        .unwrap();
    run_in(&mut operator, "site", &["Suspended"]);
    operator
        .post::<Value>(&format!("{path}/runs/latest/skip"), &comment)
        .unwrap();
    let run = run_in(&mut operator, "site", &["Succeeded"]);
    assert!(
        run["steps"]
            .as_array()
            .unwrap()
            .iter()
            .all(|step| step["name"] != "settle"),
        "of tests only"
    );
    operator
        .post::<Value>(&format!("{path}/commit"), &json!({}))
        .unwrap();
    let run = run_in(&mut operator, "site", &["Succeeded"]);
    assert_eq!(run["operation"], "Commit");
    let item: Value = reader.get(&format!("{V}/replicated-items/db1")).unwrap();
    assert_eq!(item["protectionState"], "CommitFailoverCompleted");
    contributor.request(Method::DELETE, &path, None, &[]).unwrap();
    assert!(reader.list(&plans, 10).unwrap().is_empty());
}

trait WithDefaults {
    /// What the server adds to what was left out.
    fn take_with_defaults(self) -> Self;
}

impl WithDefaults for Value {
    fn take_with_defaults(mut self) -> Self {
        for group in self.as_array_mut().unwrap() {
            for field in ["before", "after"] {
                if group.get(field).is_none() {
                    group[field] = json!([]);
                }
            }
        }
        self
    }
}
