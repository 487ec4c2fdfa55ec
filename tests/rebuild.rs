//! The vault's database is lost. From a backup, or from the manifests of the store alone, the site comes back: every
//! recovery point is there, the agent goes on, a failover works.
#[path = "support/serve.rs"]
mod serve;
mod support;
use serde_json::Value;
use serve::{LIFEBOAT, Site};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use support::wait_for;

struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn points(site: &Site) -> BTreeSet<String> {
    let rows = site.cli(&["recovery-point", "list", "web1"]);
    let rows = rows["items"].as_array().cloned().unwrap_or_default();
    rows.iter()
        .map(|row| row["id"].as_str().unwrap().to_owned())
        .collect()
}

fn next_point(site: &Site) {
    let before = points(site);
    wait_for("another recovery point", || {
        (!points(site).is_subset(&before)).then_some(())
    });
}

fn lose(data: &Path) {
    for name in ["vault.db", "vault.db-wal", "vault.db-shm"] {
        let _ = std::fs::remove_file(data.join(name));
    }
}

fn machine(site: &Site) -> Value {
    site.cli(&["machine", "list"])["items"][0].clone()
}

#[test]
fn a_lost_database_comes_back_from_a_backup_and_from_manifests() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, state) = (folder.path().join("disk"), folder.path().join("agent"));
    std::fs::write(&disk, support::noise(2 << 20, 1)).unwrap();
    let mut site = Site::start();
    site.join("web1", &state, &[&disk]);
    let agent = Command::new(LIFEBOAT)
        .args(["agent", "run", "--state-dir"])
        .arg(&state)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _agent = Agent(agent);
    wait_for("an inventory", || {
        machine(&site)["disks"].as_array()?.first().cloned()
    });
    site.cli(&["policy", "create", "quick", "--crash-consistent-seconds", "5"]);
    site.cli(&["protect", "web1", "--policy", "quick", "--wait"]);
    next_point(&site);
    let id = machine(&site)["id"].clone();
    let named = site.cli(&["vault", "backup"])["name"]
        .as_str()
        .unwrap()
        .to_owned();
    let listed = site.cli(&["vault", "list"]);
    assert!(
        listed["items"]
            .as_array()
            .unwrap()
            .iter()
            .any(|row| row["name"] == named.as_str())
    );
    next_point(&site);

    // With a server on it nothing is restored.
    let restore = |data: &Path| {
        let output = Command::new(LIFEBOAT)
            .args(["vault", "restore", &named, "--confirm", &named, "--data-dir"])
            .arg(data)
            .output()
            .unwrap();
        output.status.code()
    };
    assert_eq!(restore(&site.data), Some(11));

    // Lost: a start says so and makes no empty vault; the rebuild takes the backup.
    let known = points(&site);
    let plain = |data: &Path| {
        lose(data);
        let output = Command::new(LIFEBOAT)
            .args([
                "serve",
                "--data-listen",
                "127.0.0.1:0",
                "--api-listen",
                "127.0.0.1:0",
            ])
            .arg("--data-dir")
            .arg(data)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(6), "{text}");
        assert!(text.contains("--rebuild-from-store"), "{text}");
        assert!(!data.join("vault.db").exists());
    };
    site.restart(plain, &["--rebuild-from-store"]);
    assert_eq!(site.ready["oneTimePassword"], Value::Null, "users came back");
    assert!(points(&site).is_superset(&known));
    let item = &machine(&site)["replicatedItem"];
    assert_eq!(
        (&machine(&site)["id"], &item["policy"]),
        (&id, &Value::from("quick"))
    );
    next_point(&site);

    // The server is stopped: a restore is allowed, and the agent goes on again.
    site.restart(|data| assert_eq!(restore(data), Some(0)), &[]);
    next_point(&site);

    // Not even a backup is left: manifests.
    let known = points(&site);
    let all = |data: &Path| {
        lose(data);
        std::fs::remove_dir_all(data.join("store/vault-backups")).unwrap();
    };
    site.restart(all, &["--rebuild-from-store"]);
    assert!(
        site.ready["oneTimePassword"].is_string(),
        "users did not come back"
    );
    assert!(points(&site).is_superset(&known));
    let row = machine(&site);
    assert_eq!((&row["id"], &row["name"]), (&id, &Value::from("web1")));
    assert_eq!(row["replicatedItem"]["protectionState"], "Protected");
    next_point(&site);
    assert!(
        points(&site).is_superset(&known),
        "no policy thinned what was there"
    );
    let events = site.cli(&["event", "list"]);
    assert!(events.to_string().contains("VaultRebuilt"), "{events}");
    // What the target needs to know came with the agent's next inventory.
    wait_for("target settings of the machine", || {
        let target = &machine(&site)["replicatedItem"];
        (!target.is_null()).then_some(())
    });
    // It joins again as the machine that it was.
    site.join("web1", &folder.path().join("again"), &[&disk]);
    assert_eq!(machine(&site)["id"], id);

    if Command::new("qemu-system-x86_64")
        .arg("--version")
        .output()
        .is_ok()
    {
        site.cli(&["failover", "unplanned", "web1", "--confirm", "web1"]);
        let item = machine(&site)["replicatedItem"].clone();
        assert_eq!(item["activeLocation"], "Recovery", "{item}");
    }
}
