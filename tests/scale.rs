//! How quick list calls are in a large site, and how that grows. Not part of the ordinary run:
//! `cargo test --release --test scale -- --ignored --nocapture`
#[path = "support/site.rs"]
mod site;

use lifeboat::api::client::Client;
use lifeboat::recovery::{JobId, JobKind, JobState};
use lifeboat::rt::now_unix_nanos;
use serde_json::Value;
use site::TestServer;
use std::time::Instant;

const V: &str = "/api/v1/vaults/default";
const MACHINES: usize = 200;
/// What a call may take at the full size, at the 95th percentile. Pages ask again every few seconds.
const BAR_MS: f64 = 250.0;
const CALLS: usize = 60;

const LISTS: [&str; 14] = [
    "/machines?limit=100",
    "/machines?sort=-lastHeartbeatAt&limit=100",
    "/replicated-items?limit=50",
    "/replicated-items?sort=-rpoSeconds&limit=50",
    "/replicated-items?replicationHealth=Critical&limit=50",
    "/jobs?limit=100",
    "/jobs?machine=web007&limit=100",
    "/jobs?state=Failed&limit=100",
    "/jobs?user=user3&kind=TestFailover&limit=100",
    "/events?limit=100",
    "/events?machine=web007&limit=100",
    "/events?severity=Critical&limit=100",
    "/events?code=RpoExceeded&sort=at&limit=100",
    "/policies?limit=100",
];

/// Jobs and events as the server writes them, straight into its database: a million through the API would take hours.
fn fill(server: &TestServer, ids: &[String], jobs: usize, events: usize, from: (usize, usize)) {
    let mut template = server
        .vault
        .jobs("default", &lifeboat::vault::JobFilter::default(), 1)
        .unwrap()
        .remove(0)
        .job;
    let mut database = rusqlite::Connection::open(server.folder.path().join("vault.db")).unwrap();
    database.busy_timeout(std::time::Duration::from_secs(60)).unwrap();
    // What live views are told is not what is measured.
    database
        .execute_batch("DROP TRIGGER IF EXISTS changes_job_made; DROP TRIGGER IF EXISTS changes_event;")
        .unwrap();
    let transaction = database.transaction().unwrap();
    let now = now_unix_nanos();
    for number in from.0..jobs {
        template.id = JobId::new();
        template.machine = ids[number % ids.len()].parse().unwrap();
        template.kind = JobKind::TestFailover;
        template.state = if number % 50 == 0 {
            JobState::Failed
        } else {
            JobState::Succeeded
        };
        template.user = format!("user{}", number % 7);
        template.created_unix_nanos = now;
        transaction
            .prepare_cached(
                "INSERT INTO jobs (id, machine, kind, state, is_over, created, body) VALUES (?1, ?2, 'TestFailover', ?3, 1, ?4, ?5)",
            )
            .unwrap()
            .execute(rusqlite::params![
                template.id.to_string(),
                template.machine.to_string(),
                format!("{:?}", template.state),
                now,
                serde_json::to_string(&template).unwrap()
            ])
            .unwrap();
    }
    for number in from.1..events {
        let (severity, code) = match number % 1000 {
            0 => ("Critical", "StoreFull"),
            1..10 => ("Warning", "RpoExceeded"),
            _ => ("Information", "JobSucceeded"),
        };
        transaction
            .prepare_cached(
                "INSERT INTO events (vault, at, severity, code, machine, job, message, possible_causes, recommended_action)
                 VALUES (1, ?1, ?2, ?3, ?4, NULL, 'Test failover of a machine succeeded', 'none', 'none')",
            )
            .unwrap()
            .execute(rusqlite::params![now + number as i64, severity, code, ids[number % ids.len()]])
            .unwrap();
    }
    transaction.commit().unwrap();
}

fn p95(client: &mut Client, path: &str) -> f64 {
    let mut times: Vec<f64> = (0..CALLS)
        .map(|_| {
            let begin = Instant::now();
            client.get::<Value>(&format!("{V}{path}")).unwrap();
            begin.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[CALLS * 95 / 100]
}

#[test]
#[ignore = "takes minutes: a million events"]
fn lists_stay_quick_in_a_large_site() {
    let server = TestServer::start();
    let ids: Vec<String> = (0..MACHINES)
        .map(|number| server.protect(&format!("web{number:03}")).0.to_string())
        .collect();
    let mut root = server.root();
    let mut known = (0, 0);
    let mut measured: Vec<Vec<f64>> = Vec::new();
    let sizes = [(500, 10_000), (5_000, 100_000), (50_000, 1_000_000)];
    for (jobs, events) in sizes {
        fill(&server, &ids, jobs, events, known);
        known = (jobs, events);
        measured.push(LISTS.iter().map(|path| p95(&mut root, path)).collect());
    }
    println!("p95 in ms with {MACHINES} machines, and jobs/events:");
    println!("{:62} {:>10} {:>10} {:>10}", "", "500/10k", "5k/100k", "50k/1M");
    for (index, path) in LISTS.iter().enumerate() {
        let row: Vec<String> = measured.iter().map(|at| format!("{:10.1}", at[index])).collect();
        println!("{path:62} {}", row.join(" "));
    }
    for (index, path) in LISTS.iter().enumerate() {
        let (small, large) = (measured[0][index], measured[2][index]);
        assert!(large <= BAR_MS, "{path}: {large:.1} ms");
        // A hundred times the rows, and at most thrice the time, or too little to matter.
        assert!(
            large <= small * 3.0 || large < 30.0,
            "{path} grows: {small:.1} to {large:.1} ms"
        );
    }
}
