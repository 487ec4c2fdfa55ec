//! The web interface before a large site: 200 items that live, 5,000 recovery points of one of them, in a real browser.
//! Not part of the ordinary run, since it wants a quiet host; needs Node.js and chromium, as `web/e2e/run.sh` does:
//! `cargo test --test web_scale -- --ignored --nocapture`
#[path = "support/site.rs"]
mod site;

use lifeboat::block::{Consistency, MachineId, PointId};
use lifeboat::recovery::Journal;
use lifeboat::replica::{MachineWriter, PointSpec};
use lifeboat::rt::{Fact, Report, now_unix_nanos};
use lifeboat::vault::{LiveDisk, Role};
use site::TestServer;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const MACHINES: usize = 200;
/// Where the environment says no other number in LIFEBOAT_SCALE_POINTS: each of them publishes a manifest that names all.
const POINTS: i64 = 5000;
/// Of each machine, as agents beat; and of new points of the one that is looked at.
const EVERY: Duration = Duration::from_secs(5);
const SECOND_NANOS: i64 = 1_000_000_000;

fn seal(server: &TestServer, writer: &mut MachineWriter, machine: MachineId, instant_unix_nanos: i64) {
    let consistency = if instant_unix_nanos / SECOND_NANOS % 60 < 15 {
        Consistency::AppConsistent
    } else {
        Consistency::CrashConsistent
    };
    let point: PointId = writer
        .seal(PointSpec {
            instant_unix_nanos,
            consistency,
            note: String::new(),
            freeze_micros: 1500,
        })
        .unwrap();
    server.vault.report(Fact::PointSealed {
        machine,
        point,
        instant_unix_nanos,
        consistency,
        note: String::new(),
        freeze_micros: 1500,
        changed_bytes: 4096,
        stored_bytes: 4096,
        sync_request: 0,
    });
}

#[test]
#[ignore = "measures: wants a quiet host"]
fn a_large_site_stays_smooth_in_the_browser() {
    let server = TestServer::start();
    let ids: Vec<MachineId> = (0..MACHINES)
        .map(|number| server.protect(&format!("web{number:03}")).0)
        .collect();
    let disks: Vec<_> = ids
        .iter()
        .map(|id| server.vault.item(*id).unwrap().disks[0])
        .collect();
    let watched = ids[0];
    let generation = server.vault.item(watched).unwrap().generation;
    let mut writer = server.store.begin(watched, generation).unwrap();
    let wanted = std::env::var("LIFEBOAT_SCALE_POINTS").ok();
    let points = wanted.map_or(POINTS, |text| text.parse().unwrap());
    let now = now_unix_nanos();
    for number in 0..points {
        seal(
            &server,
            &mut writer,
            watched,
            now - (points - number) * 15 * SECOND_NANOS,
        );
    }
    let session = server.session("watcher", Role::Owner);
    let over = AtomicBool::new(false);
    let status = std::thread::scope(|scope| {
        // Every machine beats and one makes points, spread over the interval.
        scope.spawn(|| {
            let mut shipped = 0;
            while !over.load(Ordering::SeqCst) {
                for (id, disk) in ids.iter().zip(&disks) {
                    shipped += 4096;
                    let live = LiveDisk {
                        disk: *disk,
                        state: "Protected".to_owned(),
                        pending_bytes: shipped % 65_536,
                        capture: "scan".to_owned(),
                        done_bytes: site::DISK_BYTES,
                        total_bytes: site::DISK_BYTES,
                        read_bytes: shipped,
                        shipped_bytes: shipped,
                        changed_bytes: shipped,
                    };
                    server.beat(*id, vec![live]);
                    std::thread::sleep(EVERY / MACHINES as u32);
                }
                seal(&server, &mut writer, watched, now_unix_nanos());
            }
        });
        let status = Command::new("node")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("web/e2e/scale.mjs"))
            .env("BASE", format!("https://localhost:{}", server.port))
            .env("SESSION", &session)
            .env("ITEMS", MACHINES.to_string())
            .env("POINTS", points.to_string())
            .status();
        over.store(true, Ordering::SeqCst);
        status
    });
    assert!(status.expect("Node.js runs").success());
}
