//! Agent, server and running machines killed with -9 at random instants, a hundred times: no acknowledged point is lost or
//! wrong, no file system stays frozen, and everything goes on.
mod support;
use lifeboat::api::client::{Address, Client};
use lifeboat::export::to_raw;
use lifeboat::lab::workload::Workload;
use lifeboat::lab::{ledger, verify::verify};
use lifeboat::replica::{At, Store, VaultKey};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::{LoopDisk, Mounted, lacks_root, ok, umount};

const KILLS: u32 = 100;
/// Every so many kills hit a running machine.
const MACHINE_EVERY: u32 = 10;
const DISK_BYTES: u64 = 96 << 20;
const PATIENCE: Duration = Duration::from_secs(90);

fn program() -> &'static str {
    env!("CARGO_BIN_EXE_lifeboat")
}

fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ready() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A child that is killed when the test ends.
struct Victim(Child);

impl Victim {
    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.kill();
    }
}

struct Site {
    folder: tempfile::TempDir,
    /// Of the first start: the later ones listen at the same places.
    ready: Value,
    server: Option<Victim>,
    agent: Option<Victim>,
}

impl Site {
    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("agent")
    }

    fn start_server(&mut self) {
        let at = |key: &str| {
            let text = self.ready[key].as_str().unwrap_or("127.0.0.1:0").to_owned();
            text.trim_start_matches("https://")
                .trim_end_matches('/')
                .to_owned()
        };
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("server.log"))
            .unwrap();
        let mut child = Command::new(program())
            .args(["serve", "--json", "--heartbeat", "1", "--data-dir"])
            .arg(self.data())
            .args(["--data-listen", &at("dataAddress"), "--api-listen", &at("apiUrl")])
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        self.server = Some(Victim(child));
        self.ready = serde_json::from_str(&line).unwrap_or_else(|_| {
            let log = std::fs::read_to_string(self.folder.path().join("server.log")).unwrap();
            panic!("the server did not start: {log}")
        });
    }

    fn start_agent(&mut self) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("agent.log"))
            .unwrap();
        let child = Command::new(program())
            .args(["agent", "run", "--state-dir"])
            .arg(self.state())
            .stderr(log)
            .spawn()
            .unwrap();
        self.agent = Some(Victim(child));
    }

    fn client(&self) -> Client {
        Client::new(Address::Unix(self.data().join("api.sock")), None, None).unwrap()
    }

    fn get(&self, path: &str) -> Option<Value> {
        self.client().get(&format!("/api/v1/vaults/default/{path}")).ok()
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        self.client()
            .post(&format!("/api/v1/vaults/default/{path}"), body)
            .unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn points(&self) -> Option<BTreeSet<String>> {
        let all = self
            .client()
            .list(
                "/api/v1/vaults/default/replicated-items/web1/recovery-points",
                100_000,
            )
            .ok()?;
        Some(
            all.iter()
                .map(|point| point["id"].as_str().unwrap().to_owned())
                .collect(),
        )
    }

    fn job(&self, accepted: &Value) {
        let id = accepted["job"]["id"].as_str().unwrap();
        let job = wait_for("the job", || {
            let job = self.get(&format!("jobs/{id}"))?;
            ["Succeeded", "Failed", "Cancelled"]
                .contains(&job["state"].as_str()?)
                .then_some(job)
        });
        assert_eq!(job["state"], "Succeeded", "{job:#}");
    }

    fn join(&self, disk: &str) {
        let key = [
            "--machine-key",
            "the machine of the kill test",
            "--name",
            "web1",
            "--disk",
            disk,
        ];
        let text = |name: &str| self.ready[name].as_str().unwrap().to_owned();
        let (server, fingerprint, passphrase) =
            (text("dataAddress"), text("fingerprint"), text("passphraseFile"));
        let state = self.state();
        let mut arguments = vec![
            "agent",
            "join",
            "--server",
            &server,
            "--fingerprint",
            &fingerprint,
        ];
        arguments.extend([
            "--passphrase-file",
            &passphrase,
            "--state-dir",
            state.to_str().unwrap(),
        ]);
        arguments.extend(key);
        ok(program(), &arguments);
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.agent = None;
        self.server = None;
        support::end_machines(self.folder.path());
        for machine in std::fs::read_dir(self.data().join("store/machines"))
            .into_iter()
            .flatten()
            .flatten()
        {
            for disk in std::fs::read_dir(machine.path()).into_iter().flatten().flatten() {
                if let Some(id) = disk.file_name().to_str().and_then(|name| name.parse().ok()) {
                    lifeboat::agent::capture::forget(id);
                }
            }
        }
    }
}

/// A seed from outside, printed, so that a run can be looked at again.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % below
    }
}

#[test]
fn a_hundred_kills_lose_nothing() {
    if lacks_root() {
        return;
    }
    let seed = std::env::var("LIFEBOAT_TEST_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| lifeboat::rt::now_unix_nanos() as u64);
    println!("LIFEBOAT_TEST_SEED={seed}");
    let mut random = Random(seed);
    let folder = tempfile::tempdir().unwrap();
    let disk = LoopDisk::attach(&folder.path().join("disk"), DISK_BYTES);
    ok("mkfs.ext4", &["-q", disk.path()]);
    let mounted = Mounted::new(disk.path(), &folder.path().join("mnt"), "discard");
    let data = mounted.0.join("data");
    std::fs::create_dir(&data).unwrap();
    ledger::create(&data, "web1", 256).unwrap();
    let mut workload = Workload::start(Path::new(program()), &data, 40).unwrap();
    let mut site = Site {
        folder,
        ready: Value::Null,
        server: None,
        agent: None,
    };
    site.start_server();
    site.join(disk.path());
    site.start_agent();
    wait_for("an inventory", || {
        let machine = site.get("machines/web1")?;
        (!machine["disks"].as_array()?.is_empty()).then_some(())
    });
    site.post(
        "policies",
        &json!({ "name": "quick", "crashConsistentSeconds": 5 }),
    );
    let enable = json!({ "machine": "web1", "policy": "quick" });
    site.job(&site.post("replicated-items", &enable));
    wait_for("protection", || {
        let item = site.get("replicated-items/web1")?;
        (item["protectionState"] == "Protected").then_some(())
    });

    let mut known = BTreeSet::new();
    for kill in 1..=KILLS {
        if kill % MACHINE_EVERY == 0 {
            kill_a_machine(&site, &mut random);
        } else {
            std::thread::sleep(Duration::from_millis(random.next(1200)));
            known.extend(site.points().unwrap_or_default());
            if random.next(2) == 0 {
                site.agent.as_mut().unwrap().kill();
            } else {
                site.server.as_mut().unwrap().kill();
            }
        }
        // Whatever died, and wherever it was: the workload's file system moves.
        let entries = workload.entries().unwrap();
        wait_for("the workload to go on", || {
            (workload.entries().unwrap() > entries).then_some(())
        });
        workload.check().unwrap();
        if site.server.as_mut().unwrap().0.try_wait().unwrap().is_some() {
            site.start_server();
        }
        if site.agent.as_mut().unwrap().0.try_wait().unwrap().is_some() {
            site.start_agent();
        }
        if kill % 5 == 0 {
            // What was listed is listed still, and new points are made.
            let now = wait_for("a new point", || {
                let now = site.points()?;
                now.difference(&known).next().is_some().then_some(now)
            });
            let lost: Vec<_> = known.difference(&now).collect();
            assert!(lost.is_empty(), "after kill {kill}: lost {lost:?}");
            known = now;
        }
    }
    site.agent.as_mut().unwrap().kill();
    site.server.as_mut().unwrap().kill();
    workload.stop().unwrap();
    check_points(&site, &data, &known);
}

/// A test failover whose machine is killed; the job of its cleanup succeeds all the same.
fn kill_a_machine(site: &Site, random: &mut Random) {
    let test = json!({ "recoveryPoint": "LatestProcessed" });
    site.job(&site.post("replicated-items/web1/test-failover", &test));
    let path = "replicated-items/web1/target-machine?test=true";
    let pid = site
        .get(path)
        .and_then(|machine| machine["pid"].as_u64())
        .unwrap();
    std::thread::sleep(Duration::from_millis(random.next(600)));
    ok("kill", &["-KILL", &pid.to_string()]);
    wait_for("the machine to be seen as stopped", || {
        (site.get(path)?["power"] == "stopped").then_some(())
    });
    let notes = json!({ "notes": "killed" });
    site.job(&site.post("replicated-items/web1/test-failover-cleanup", &notes));
}

/// Every point that was ever listed: mounts, and holds what was acknowledged before its instant.
fn check_points(site: &Site, source: &Path, known: &BTreeSet<String>) {
    let key = VaultKey::load(&site.data().join("pki/vault.key")).unwrap();
    let store = Store::open(&site.data().join("store"), &key).unwrap();
    let damage = store.verify(&mut |_, _| ()).unwrap();
    assert!(damage.damages.is_empty(), "{damage:?}");
    let machine = store.machines().remove(0).id;
    let points = store.points(machine).unwrap();
    let raw = site.folder.path().join("raw");
    let mut checked = 0;
    for point in points
        .iter()
        .filter(|point| known.contains(&point.id.to_string()))
    {
        let image = store.image(machine, point.disks[0], At::Point(point.id)).unwrap();
        to_raw(&image, &raw, &mut |_, _| ()).unwrap();
        let copy = LoopDisk::attach(&raw, 0);
        {
            let mounted = Mounted::new(copy.path(), &site.folder.path().join("check"), "rw");
            let verdict = verify(&mounted.0.join("data"));
            assert!(verdict.ok(), "point {}: {verdict:?}", point.id);
            // Stamps are taken before the flush: the entry in flight may be missing.
            let acknowledged = ledger::entries_at(source, point.instant_unix_nanos).unwrap();
            assert!(
                verdict.entries + 1 >= acknowledged,
                "point {}: {} entries of {acknowledged}",
                point.id,
                verdict.entries
            );
            umount(&mounted.0);
            std::mem::forget(mounted);
        }
        ok("e2fsck", &["-fn", copy.path()]);
        std::fs::remove_file(&raw).unwrap();
        checked += 1;
    }
    assert_eq!(checked, known.len(), "a point that was listed is gone");
    println!("{checked} points hold what was acknowledged before them");
}
