//! Figures for others: `/metrics` judged by promtool, the examples that use them, and the capacity planner.
#[path = "support/site.rs"]
mod site;

use lifeboat::block::{Consistency, MachineId, PointId};
use lifeboat::rt::{Fact, Report, now_unix_nanos};
use lifeboat::vault::{LiveDisk, Role, StoreSample};
use serde_json::Value;
use site::{TestServer, refusal};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn promtool(args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new("promtool")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is needed (tests/all.sh installs it)");
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

fn accepted(output: &Output) {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&text));
}

fn metrics(client: &mut lifeboat::api::client::Client) -> String {
    let answer = client.request(hyper::Method::GET, "/metrics", None, &[]).unwrap();
    String::from_utf8(answer.body.to_vec()).unwrap()
}

/// Names of our metrics in a text.
fn names(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("lifeboat_"))
        .map(str::to_owned)
        .collect()
}

fn example(name: &str) -> String {
    std::fs::read_to_string(Path::new(".").join("examples").join(name)).unwrap()
}

fn disk(machine: MachineId, server: &TestServer) -> LiveDisk {
    LiveDisk {
        disk: server.vault.item_row(machine).unwrap().disks[0].id,
        state: "Protected".to_owned(),
        capture: "ebpf".to_owned(),
        pending_bytes: 12_345,
        done_bytes: 0,
        total_bytes: 0,
        read_bytes: 111,
        shipped_bytes: 222,
        changed_bytes: 333,
    }
}

#[test]
fn promtool_accepts_the_figures_and_what_is_made_of_them() {
    let server = TestServer::start();
    let (web1, _) = server.protect("web1");
    server.protect("db-1");
    server.beat(web1, vec![disk(web1, &server)]);
    let now = now_unix_nanos();
    server
        .vault
        .certificate_issued(web1, "serial-1", now / 1_000_000_000 + 86_400)
        .unwrap();
    server.vault.look_at_certificates().unwrap();
    {
        use lifeboat::recovery::Journal;
        let mut item = server.vault.item(web1).unwrap();
        item.last_successful_test_unix_nanos = Some(now - 5_000_000_000);
        let job = server
            .vault
            .jobs(
                "default",
                &lifeboat::vault::JobFilter {
                    machine: Some(web1),
                    ..lifeboat::vault::JobFilter::default()
                },
                1,
            )
            .unwrap();
        server.vault.record(&job[0].job, Some(&item)).unwrap();
    }
    server.vault.report(Fact::Damaged {
        machine: web1,
        message: "granule 7".to_owned(),
    });
    site::until("the error is on", || {
        !server.vault.open_health_errors("default").unwrap().is_empty()
    });
    let mut reader = server.https(Some(&server.session("rita", Role::Reader)));
    let text = metrics(&mut reader);
    accepted(&promtool(&["check", "metrics"], text.as_bytes()));
    for line in [
        "lifeboat_replication_health{vault=\"default\",machine=\"web1\"} 2",
        "lifeboat_replication_health{vault=\"default\",machine=\"db-1\"} 0",
        "lifeboat_replication_lag_bytes{vault=\"default\",machine=\"web1\"} 12345",
        "lifeboat_agent_shipped_bytes_total{vault=\"default\",machine=\"web1\"} 222",
        "lifeboat_replication_rpo_threshold_seconds{vault=\"default\",machine=\"web1\"} 900",
        "lifeboat_freeze_seconds{vault=\"default\",machine=\"web1\"} 0.0015",
        "lifeboat_job_total{vault=\"default\",kind=\"EnableReplication\",result=\"Succeeded\"} 2",
        "lifeboat_health_errors{vault=\"default\",code=\"ReplicaDamaged\",severity=\"Critical\"} 1",
        "lifeboat_recovery_points{vault=\"default\",machine=\"web1\"} 1",
        "lifeboat_alert_deliveries_pending{vault=\"default\"} 0",
    ] {
        assert!(
            text.lines().any(|known| known == line),
            "{line} is missing in\n{text}"
        );
    }
    // A word of the sender's choice does not break the format.
    assert_eq!(names(&text).len(), text.matches("# TYPE lifeboat_").count());
    // Rules and dashboard use names that are there.
    let rules = Path::new(".").join("examples/prometheus-rules.yml");
    accepted(&promtool(&["check", "rules", rules.to_str().unwrap()], b""));
    let known = names(&text);
    let dashboard: Value = serde_json::from_str(&example("grafana-dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() > 10);
    let queries: Vec<&str> = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap())
        .map(|target| target["expr"].as_str().unwrap())
        .collect();
    for query in &queries {
        // The dashboard's variables are Grafana's; promtool gets what Grafana would put there.
        let query = query.replace("$vault", "default").replace("$machine", "web1");
        let rule = format!("groups: [ {{ name: a, rules: [ {{ record: a, expr: '{query}' }} ] }} ]\n");
        let file = server.folder.path().join("query.yml");
        std::fs::write(&file, rule).unwrap();
        accepted(&promtool(&["check", "rules", file.to_str().unwrap()], b""));
    }
    for used in names(&example("prometheus-rules.yml"))
        .iter()
        .chain(&names(&queries.join(" ")))
    {
        assert!(
            known.contains(used),
            "{used} is used in examples/ and is not in /metrics"
        );
    }
}

#[test]
fn figures_need_a_login_and_show_what_it_may_read() {
    let server = TestServer::start();
    server.protect("web1");
    let nobody = server
        .https(None)
        .request(hyper::Method::GET, "/metrics", None, &[]);
    assert_eq!(refusal(nobody).0, 401);
    let outsider = server.session("olga", Role::Reader);
    server.vault.assign_role("olga", "default", None, None).unwrap();
    let text = metrics(&mut server.https(Some(&outsider)));
    assert!(
        text.contains("lifeboat_build_info") && !text.contains("web1"),
        "{text}"
    );
    assert!(
        metrics(&mut server.root()).contains("web1"),
        "root on the socket sees all"
    );
}

/// Slots of 5 minutes up to now, whole ones.
fn slots_ago(count: i64) -> i64 {
    let now = now_unix_nanos() / 1_000_000_000;
    now - now.rem_euclid(300) - count * 300
}

/// A machine with two points per slot: `bytes(slot)` change in each and come compressed by half.
fn history(server: &TestServer, machine: MachineId, count: i64, bytes: impl Fn(i64) -> u64) {
    let start = slots_ago(count);
    for slot in 0..count {
        for half in 0..2 {
            server.vault.report(Fact::PointSealed {
                machine,
                point: PointId::new(),
                instant_unix_nanos: (start + slot * 300 + half * 150 + 149) * 1_000_000_000,
                consistency: Consistency::CrashConsistent,
                note: String::new(),
                freeze_micros: 0,
                changed_bytes: bytes(slot),
                stored_bytes: bytes(slot) / 2,
                sync_request: 0,
            });
        }
    }
    server
        .vault
        .write_churn(now_unix_nanos() / 1_000_000_000)
        .unwrap();
}

fn planned(server: &TestServer, query: &str) -> Value {
    server
        .root()
        .get(&format!("/api/v1/vaults/default/capacity?{query}"))
        .unwrap()
}

#[test]
fn the_planner_reckons_from_what_machines_wrote() {
    let server = TestServer::start();
    let id = server.join("web1");
    let now = now_unix_nanos();
    let mark = |instant| lifeboat::vault::PointMark {
        id: PointId::new(),
        instant_unix_nanos: instant,
        consistency: Consistency::CrashConsistent,
    };
    server.vault.enable(id, "default", None, None, "admin").unwrap();
    // The first copy is over: what comes now are changes.
    server
        .vault
        .remember_points(id, [mark(slots_ago(288) * 1_000_000_000)]);
    // A day: 30 MB per slot, one slot of 3000 MB on the wire (twice that changed).
    history(&server, id, 288, |slot| {
        if slot == 100 { 3_000_000_000 } else { 30_000_000 }
    });
    let plan = planned(&server, "rpoSeconds=330");
    assert_eq!(plan["historySeconds"], 86_400, "{plan}");
    assert_eq!(plan["compression"], 2.0);
    let near = |value: &Value, expected: f64| {
        let found = value.as_f64().unwrap();
        // Points lie a second beside the borders of slots: some bytes are booked next door.
        assert!(
            (found / expected - 1.0).abs() < 0.03,
            "found {found}, expected {expected}"
        );
    };
    near(&plan["peakBytesPerSecond"], 1e7);
    near(&plan["meanBytesPerSecond"], (287.0 * 30e6 + 3e9) / 86_400.0);
    // Points every 30 s leave 300 s for the link: 3000 MB within 600 s, less what ships besides.
    near(&plan["bandwidth"]["for100Percent"], 5.0e6);
    // Nine tenths of the time need no more than the even flow; what the burst left must be through in 28 slots.
    let most = plan["bandwidth"]["for90Percent"].as_f64().unwrap();
    assert!(most > 1e5 && most < 6e5, "{most}");
    near(
        &plan["machines"][0]["changedBytesPerDay"],
        2.0 * (287.0 * 30e6 + 3e9),
    );
    // What if.
    let what_if =
        planned(&server, "rpoSeconds=330&bandwidthBytesPerSecond=20000000")["whatIfBandwidth"].clone();
    assert_eq!(
        (&what_if["keepsRpo"], &what_if["rpoSeconds100Percent"]),
        (&true.into(), &30.into())
    );
    let thin = planned(&server, "rpoSeconds=330&bandwidthBytesPerSecond=100000")["whatIfBandwidth"].clone();
    assert_eq!(
        thin["rpoSeconds100Percent"],
        Value::Null,
        "below the mean: {thin}"
    );
    near(
        &planned(&server, "rpoSeconds=330&growthPercent=100")["bandwidth"]["for100Percent"],
        10.0e6,
    );
    // A day of points and the full copy (none here).
    near(
        &planned(&server, "retentionHours=23")["retention"]["historyBytes"],
        275.0 * 30e6 + 3e9,
    );
    let month = planned(&server, "retentionHours=720");
    assert_eq!(month["retention"]["measured"], false, "{month}");
    // A schedule from the first full day on; the busy hour has the highest limit.
    let windows = plan["throttleSchedule"].as_array().unwrap();
    let limits: Vec<u64> = windows
        .iter()
        .map(|window| window["bytesPerSecond"].as_u64().unwrap())
        .collect();
    assert!(
        limits.iter().max().unwrap() > &1_000_000 && limits.iter().min().unwrap() == &131_072,
        "{windows:?}"
    );
    assert_eq!(
        (&windows[0]["fromHour"], &windows[windows.len() - 1]["toHour"]),
        (&0.into(), &24.into())
    );
    // The store: 1 MB less free per second over ten hours.
    let room = planned(&server, "")["store"]["freeBytes"].as_u64().unwrap();
    for hour in 0..10i64 {
        let sample = StoreSample {
            at_unix: now / 1_000_000_000 - (10 - hour) * 3600,
            stored_bytes: 0,
            free_bytes: room + u64::try_from((10 - hour) * 3600).unwrap() * 1_000_000,
            capacity_bytes: room * 2 + (1 << 40),
        };
        server.vault.record_store(sample).unwrap();
    }
    let store = planned(&server, "")["store"].clone();
    near(&store["growthBytesPerDay"], 86_400e6);
    near(
        &store["fullInSeconds"],
        store["freeBytes"].as_f64().unwrap() / 1e6,
    );
    for wrong in [
        "rpoSeconds=0",
        "growthPercent=-95",
        "retentionHours=9000",
        "bandwidthBytesPerSecond=0",
        "rpoSeconds=x",
    ] {
        let path = format!("/api/v1/vaults/default/capacity?{wrong}");
        let answer = server.root().request(hyper::Method::GET, &path, None, &[]);
        assert_eq!(refusal(answer).0, 400, "{wrong}");
    }
    // The same on the command line.
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_lifeboat"))
            .env_clear()
            .env("LIFEBOAT_DATA_DIR", server.folder.path())
            .env("LIFEBOAT_CONFIG_DIR", server.folder.path())
            .arg("capacity")
            .args(args)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let json: Value = serde_json::from_str(&run(&["--rpo", "330s", "--bandwidth", "10M", "--json"])).unwrap();
    assert_eq!(json["whatIfBandwidth"]["bytesPerSecond"], 10 << 20);
    assert_eq!(json["bandwidth"], plan["bandwidth"]);
    let text = run(&["--rpo", "330s", "--retention", "12h", "--growth", "-10"]);
    for part in [
        "for an RPO of 5 min 30 s in 90 % of the time",
        "to keep points for 12 h",
        "web1",
        "Lowest limits",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}

/// The server as a process; killed with the test.
struct Serving(std::process::Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn figures_are_public_only_where_it_was_asked_for() {
    use lifeboat::api::client::{Address, Client, Trust};
    use std::io::{BufRead, BufReader};
    let folder = tempfile::tempdir().unwrap();
    for public in [false, true] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command
            .args([
                "serve",
                "--json",
                "--data-listen",
                "127.0.0.1:0",
                "--api-listen",
                "127.0.0.1:0",
            ])
            .arg("--data-dir")
            .arg(folder.path());
        if public {
            command.arg("--metrics-public");
        }
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Serving(child);
        let mut line = String::new();
        BufReader::new(server.0.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        let url = ready["apiUrl"]
            .as_str()
            .unwrap()
            .replace("127.0.0.1", "localhost");
        let ca = std::fs::read_to_string(folder.path().join("pki/ca.pem")).unwrap();
        let address: Address = url.parse().unwrap();
        let mut nobody = Client::new(address, Some(&Trust::Ca(ca)), None).unwrap();
        if public {
            let text = metrics(&mut nobody);
            accepted(&promtool(&["check", "metrics"], text.as_bytes()));
            assert!(
                text.contains("lifeboat_certificate_expiry_timestamp_seconds{subject=\"server\"}"),
                "{text}"
            );
        } else {
            assert_eq!(
                refusal(nobody.request(hyper::Method::GET, "/metrics", None, &[])).0,
                401
            );
        }
        // Nothing else became public.
        let vaults = nobody.request(hyper::Method::GET, "/api/v1/vaults", None, &[]);
        assert_eq!(refusal(vaults).0, 401);
    }
}
