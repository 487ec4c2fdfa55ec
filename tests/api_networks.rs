//! Networks of a vault: made, mapped to those of the source, and what a failover would connect.
#[path = "support/site.rs"]
mod site;

use hyper::Method;
use lifeboat::api::client::Client;
use lifeboat::vault::{Heartbeat, Role};
use lifeboat::wire::facts::NicFacts;
use serde_json::{Value, json};
use site::{TestServer, refusal};

const V: &str = "/api/v1/vaults/default";

fn put(client: &mut Client, path: &str, body: &Value) -> Result<Value, lifeboat::api::client::ClientError> {
    let answer = client.request(Method::PUT, &format!("{V}/{path}"), Some(body), &[])?;
    Ok(answer.json().unwrap())
}

#[test]
fn networks_are_mapped_used_shown_before_a_failover_and_kept_while_they_are_in_use() {
    let server = TestServer::start();
    let mut owner = server.https(Some(&server.session("olga", Role::Contributor)));
    let mut operator = server.https(Some(&server.session("omar", Role::Operator)));
    let networks = format!("{V}/networks");
    let names = |client: &mut Client| -> Vec<String> {
        let name = |row: Value| row["name"].as_str().unwrap().to_owned();
        client
            .list(&networks, 100)
            .unwrap()
            .into_iter()
            .map(name)
            .collect()
    };
    assert_eq!(names(&mut operator), ["isolated", "user"]);
    let drill =
        json!({ "name": "drill", "kind": "isolated", "cidr": "192.0.2.0/24", "gateway": "192.0.2.1" });
    assert_eq!(refusal(operator.post::<Value>(&networks, &drill)).0, 403);
    let made: Value = owner.post(&networks, &drill).unwrap();
    assert_eq!(
        (made["dhcp"].as_bool(), made["revision"].as_u64()),
        (Some(true), Some(1))
    );
    assert_eq!(refusal(owner.post::<Value>(&networks, &drill)).1, "NetworkExists");
    for wrong in [
        json!({ "name": "lan", "kind": "productionBridge" }),
        json!({ "name": "lan", "kind": "productionBridge", "bridge": "a/b" }),
        json!({ "name": "lan", "kind": "isolated", "bridge": "br0" }),
        json!({ "name": "lan", "kind": "isolated", "cidr": "192.0.2.0/24", "gateway": "198.51.100.1" }),
        json!({ "name": "../lan", "kind": "isolated" }),
        json!({ "name": "lan", "kind": "isolated", "cidr": "192.0.2.0" }),
    ] {
        let (status, _) = refusal(owner.post::<Value>(&networks, &wrong));
        assert!((400..=422).contains(&status), "{status} {wrong}");
    }
    let lan = json!({ "name": "lan", "kind": "productionBridge", "bridge": "br0" });
    owner.post::<Value>(&networks, &lan).unwrap();

    // A machine of which is known that it has eth0 in no subnet: the mapping of all others is its.
    let to_lan = json!({ "source": "*", "target": "lan", "test": "drill" });
    assert_eq!(refusal(put(&mut operator, "network-mappings", &to_lan)).0, 403);
    let to_production = json!({ "source": "*", "test": "lan" });
    assert_eq!(
        refusal(put(&mut owner, "network-mappings", &to_production)).0,
        400
    );
    put(&mut owner, "network-mappings", &to_lan).unwrap();
    let (web1, _) = server.protect("web1");
    let item: Value = owner.get(&format!("{V}/replicated-items/web1")).unwrap();
    assert_eq!(
        item["target"]["nics"][0]["network"],
        json!({ "kind": "named", "name": "lan" })
    );
    assert_eq!(
        item["target"]["testNics"][0]["network"],
        json!({ "kind": "named", "name": "drill" })
    );
    let preview: Value = operator
        .get(&format!("{V}/replicated-items/web1/failover-preview"))
        .unwrap();
    assert_eq!(preview["machineName"], "web1-asr");
    assert_eq!(preview["nics"][0]["networkKind"], "bridge");
    assert_eq!(preview["nics"][0]["networkName"], "br0");
    let preview: Value = operator
        .get(&format!("{V}/replicated-items/web1/failover-preview?test=true"))
        .unwrap();
    assert_eq!(preview["machineName"], "web1-test");
    let network = preview["nics"][0]["networkName"].as_str().unwrap();
    assert!(network.starts_with("drill."), "{network}");
    assert!(preview["nics"][0]["how"].as_str().unwrap().contains("DHCP"));

    // Every operation that starts a machine can be asked for; a failback starts the one at home.
    let mut of = |operation: &str| -> Value {
        let path = format!("{V}/replicated-items/web1/failover-preview?operation={operation}");
        operator.get(&path).unwrap()
    };
    assert_eq!(of("TestFailover")["machineName"], "web1-test");
    for operation in ["PlannedFailover", "UnplannedFailover"] {
        let preview = of(operation);
        assert_eq!(preview["machineName"], "web1-asr");
        assert_eq!(preview["nics"][0]["networkName"], "br0");
    }
    let nic = |name: &str, mac: &str, address: &str, gateway: Option<&str>| NicFacts {
        name: name.to_owned(),
        mac: mac.to_owned(),
        addresses: vec!["fe80::1/64".to_owned(), address.to_owned()],
        default_gateway: gateway.map(str::to_owned),
    };
    let mut inventory = server.vault.machine(web1).unwrap().inventory.unwrap();
    inventory.nics = vec![
        nic("lo", "", "127.0.0.1/8", None),
        nic(
            "eth0",
            "52:54:00:00:00:01",
            "192.168.7.20/24",
            Some("192.168.7.1"),
        ),
    ];
    let heartbeat = Heartbeat {
        at_unix_nanos: lifeboat::rt::now_unix_nanos(),
        inventory: Some(inventory),
        ..Heartbeat::default()
    };
    server.vault.heartbeat(web1, heartbeat).unwrap();
    let home = of("Failback");
    assert_eq!((&home["machineName"], &home["cpus"]), (&json!("web1"), &json!(2)));
    assert_eq!(
        home["nics"],
        json!([{
            "name": "eth0",
            "mac": "52:54:00:00:00:01",
            "networkKind": "source",
            "networkName": "192.168.7.0/24",
            "address": { "cidr": "192.168.7.20/24", "gateway": "192.168.7.1", "dns": [] },
            "how": "192.168.7.20/24, as it had it when it was last seen at home; what was set for the target is taken back",
        }])
    );
    let wrong = operator.get::<Value>(&format!(
        "{V}/replicated-items/web1/failover-preview?operation=Commit"
    ));
    assert_eq!(refusal(wrong).0, 400);

    let remove = |client: &mut Client, name: &str| {
        client.request(Method::DELETE, &format!("{networks}/{name}"), None, &[])
    };
    put(&mut owner, "network-mappings", &json!({ "source": "*" })).unwrap();
    match remove(&mut owner, "drill") {
        Err(lifeboat::api::client::ClientError::Problem(problem)) => {
            assert_eq!(problem.code, "NetworkInUse");
            assert!(
                problem.message.contains("target settings of web1"),
                "{}",
                problem.message
            );
        }
        other => panic!("{other:?}"),
    }
    // What is replicated already moves when that is asked for.
    let moved = json!({ "source": "*", "target": "user", "test": "isolated", "applyToItems": true });
    let moved = put(&mut owner, "network-mappings", &moved).unwrap();
    assert_eq!(moved["changedItems"], json!(["web1"]));
    remove(&mut owner, "drill").unwrap();
    assert_eq!(refusal(remove(&mut owner, "isolated")).1, "NetworkInUse");
    let known: Value = operator.get(&format!("{V}/network-mappings")).unwrap();
    assert_eq!(
        known["mappings"],
        json!([{ "source": "*", "target": "user", "test": "isolated" }])
    );

    // A network that is changed is another one from the next failover on; who read an old one is told.
    let etag = owner
        .request(Method::GET, &format!("{networks}/lan"), None, &[])
        .unwrap()
        .etag
        .unwrap();
    let change = json!({ "kind": "productionBridge", "bridge": "br1" });
    let with = |client: &mut Client, etag: &str| {
        client.request(
            Method::PUT,
            &format!("{networks}/lan"),
            Some(&change),
            &[("if-match", etag)],
        )
    };
    with(&mut owner, &etag).unwrap();
    assert_eq!(refusal(with(&mut owner, &etag)).0, 412);
}
