//! App-consistent points as a person meets them: made at their time and on demand, with hooks that fail, hang, are not
//! trusted, and an agent that is killed while applications are at rest.
#[path = "support/serve.rs"]
mod serve;
mod support;
use serde_json::Value;
use serve::{LIFEBOAT, Site, forget_disks};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use support::{LoopDisk, Mounted, lacks_root, ok, wait_for};

struct Machine {
    site: Site,
    agent: Option<Child>,
    _mounted: Mounted,
    _disk: LoopDisk,
    folder: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let disk = LoopDisk::attach(&folder.path().join("disk"), 64 << 20);
        ok("mkfs.ext4", &["-q", disk.path()]);
        let mounted = Mounted::new(disk.path(), &folder.path().join("mnt"), "noatime");
        let site = Site::start();
        site.join("web1", &folder.path().join("state"), &[disk.path()]);
        std::fs::create_dir(folder.path().join("quiesce.d")).unwrap();
        Self {
            site,
            agent: None,
            _mounted: mounted,
            _disk: disk,
            folder,
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn hook(&self, name: &str, script: &str) {
        let path = self.at("quiesce.d").join(name);
        let log = self.at("calls");
        let text = format!(
            "#!/bin/sh\necho \"{name} $1 $LIFEBOAT_REASON\" >> {}\ncd {}\n{script}\n",
            log.display(),
            self.folder.path().display()
        );
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// How hooks were called since the last look.
    fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.at("calls")).unwrap_or_default();
        let _ = std::fs::remove_file(self.at("calls"));
        text.lines().map(str::to_owned).collect()
    }

    fn start_agent(&mut self) {
        let mut command = Command::new(LIFEBOAT);
        command
            .args(["agent", "run", "--quiesce-timeout", "3", "--state-dir"])
            .arg(self.at("state"))
            .arg("--quiesce-dir")
            .arg(self.at("quiesce.d"))
            .stderr(Stdio::null());
        self.agent = Some(command.spawn().unwrap());
    }

    fn kill_agent(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }

    /// Exit code, standard output's last line, standard error.
    fn create(&self) -> (i32, Value, String) {
        let output = Command::new(LIFEBOAT)
            .args(["recovery-point", "create", "web1", "--app-consistent", "--json"])
            .env("LIFEBOAT_DATA_DIR", &self.site.data)
            .env("LIFEBOAT_CONFIG_DIR", self.site.data.join("none"))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let last = text.lines().last().unwrap_or_default();
        (
            output.status.code().unwrap(),
            serde_json::from_str(last).unwrap_or_default(),
            String::from_utf8(output.stderr).unwrap(),
        )
    }

    fn item(&self) -> Value {
        let path = self.site.data.join("api.sock");
        let address = lifeboat::api::client::Address::Unix(path);
        let mut client = lifeboat::api::client::Client::new(address, None, None).unwrap();
        client
            .get("/api/v1/vaults/default/replicated-items/web1")
            .unwrap()
    }

    fn health(&self, code: &str) -> Option<Value> {
        let item = self.item();
        let errors = item["healthErrors"].as_array().unwrap().clone();
        errors.into_iter().find(|error| error["code"] == code)
    }

    fn newest(&self) -> Value {
        let points = self.site.cli(&["recovery-point", "list", "web1", "--limit", "1"]);
        points["items"][0].clone()
    }

    fn agent_cli(&self, args: &[&str]) -> (i32, Value) {
        let output = Command::new(LIFEBOAT)
            .args([
                "agent",
                "quiesce",
                "--json",
                "--quiesce-timeout",
                "3",
                "--state-dir",
            ])
            .arg(self.at("state"))
            .arg("--quiesce-dir")
            .arg(self.at("quiesce.d"))
            .args(args)
            .output()
            .unwrap();
        let value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code().unwrap(), value)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill_agent();
        // A hook that hangs on purpose goes with the test.
        let text = std::fs::read_to_string(self.at("hanging")).unwrap_or_default();
        if let Ok(pid) = text.trim().parse::<u32>() {
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).output();
        }
        forget_disks(&self.at("state"));
    }
}

fn is_alive(pid: &str) -> bool {
    std::fs::read_to_string(Path::new("/proc").join(pid).join("stat"))
        .is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn app_consistent_points_and_what_prevents_them() {
    if lacks_root() {
        return;
    }
    let mut machine = Machine::new();
    machine.hook("10-first", "");
    machine.hook(
        "20-app",
        "if [ $1 = pre ]; then
            if [ -e fail ]; then echo the application is down >&2; exit 7; fi
            if [ -e hang ]; then echo $$ > hanging; exec sleep 600; fi
         fi",
    );
    // Tried before anything is protected.
    let (code, tried) = machine.agent_cli(&["test"]);
    assert_eq!(
        (code, tried["steps"].as_array().unwrap().len()),
        (0, 4),
        "{tried}"
    );
    assert_eq!(
        machine.calls(),
        [
            "10-first pre test",
            "20-app pre test",
            "20-app post test",
            "10-first post test"
        ]
    );

    machine.start_agent();
    wait_for("an inventory", || {
        let machines = machine.site.cli(&["machine", "list"]);
        machines["items"][0]["disks"].as_array()?.first().cloned()
    });
    machine.site.cli(&["protect", "web1", "--wait"]);
    // The default policy wants one every hour: the first is due at once, and only that one.
    wait_for("the first app-consistent point", || {
        machine.item()["latestAppConsistentPoint"]["id"]
            .as_str()
            .map(str::to_owned)
    });
    let newest = machine.newest();
    assert_eq!(newest["consistency"], "AppConsistent", "{newest}");
    assert_eq!(newest["note"], "at rest: 10-first, 20-app");
    let calls = machine.calls();
    assert_eq!(calls[0], "10-first pre schedule");
    assert_eq!(calls.len(), 4, "{calls:?}");

    // On demand.
    let (code, summary, _) = machine.create();
    assert_eq!(code, 0, "{summary}");
    let newest = machine.newest();
    assert_eq!(newest["consistency"], "AppConsistent", "{newest}");
    assert_eq!(machine.calls()[1], "20-app pre request");

    // A hook that fails: a crash-consistent point, labelled so, and the reason everywhere.
    std::fs::write(machine.at("fail"), "").unwrap();
    let (code, _, error) = machine.create();
    assert_eq!(code, 1, "{error}");
    let newest = machine.newest();
    assert_eq!(newest["consistency"], "CrashConsistent", "{newest}");
    let note = newest["note"].as_str().unwrap();
    let health = wait_for("a health error", || machine.health("AppConsistencyFailed"));
    for text in [&error, note, health["message"].as_str().unwrap()] {
        assert!(
            text.contains("20-app failed in pre") && text.contains("status: 7") && text.contains("is down"),
            "{text}"
        );
    }
    assert!(!health["possibleCauses"].as_str().unwrap().is_empty());
    let action = health["recommendedAction"].as_str().unwrap();
    assert!(action.contains("lifeboat agent quiesce test"), "{action}");
    let calls = machine.calls();
    assert_eq!(
        calls[2..],
        ["20-app post request", "10-first post request"],
        "{calls:?}"
    );
    assert_eq!(machine.agent_cli(&["test"]).0, 1);
    machine.calls();
    std::fs::remove_file(machine.at("fail")).unwrap();

    // Not trusted: not run at all.
    let path = machine.at("quiesce.d").join("20-app");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).unwrap();
    let (code, _, error) = machine.create();
    assert_eq!(code, 1);
    assert!(
        error.contains("20-app is not run") && error.contains("written by everybody"),
        "{error}"
    );
    assert!(machine.calls().is_empty());
    assert_eq!(machine.agent_cli(&["list"]).0, 3);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(machine.agent_cli(&["list"]).0, 0);

    // One that hangs is ended at its limit.
    std::fs::write(machine.at("hang"), "").unwrap();
    let (code, _, error) = machine.create();
    assert_eq!(code, 1);
    assert!(error.contains("did not end within 3 s"), "{error}");
    let hanging = std::fs::read_to_string(machine.at("hanging")).unwrap();
    assert!(!is_alive(hanging.trim()));
    std::fs::remove_file(machine.at("hang")).unwrap();
    machine.calls();

    // All is well again, and said to be.
    assert_eq!(machine.create().0, 0);
    wait_for("the health error to be over", || {
        machine.health("AppConsistencyFailed").is_none().then_some(())
    });

    // The hooks are gone: asked for by a person, that is a failure; else nothing is wrong.
    for name in ["10-first", "20-app"] {
        std::fs::remove_file(machine.at("quiesce.d").join(name)).unwrap();
    }
    let (code, _, error) = machine.create();
    assert_eq!(code, 1);
    assert!(error.contains("there is no hook in"), "{error}");
    assert!(machine.health("AppConsistencyFailed").is_none());
}

#[test]
fn a_killed_agent_leaves_nothing_at_rest() {
    if lacks_root() {
        return;
    }
    let mut machine = Machine::new();
    machine.hook("10-first", "");
    machine.hook(
        "20-app",
        "if [ $1 = pre ]; then echo $$ > hanging; exec sleep 600; fi; [ ! -e broken ]",
    );
    machine.start_agent();
    wait_for("an inventory", || {
        let machines = machine.site.cli(&["machine", "list"]);
        machines["items"][0]["disks"].as_array()?.first().cloned()
    });
    machine.site.cli(&["protect", "web1"]);
    let begun = || {
        wait_for("a hook to be running", || {
            let pid = std::fs::read_to_string(machine.at("hanging")).ok()?;
            let pid = pid.trim().to_owned();
            (!pid.is_empty() && is_alive(&pid)).then_some(pid)
        })
    };
    let pid = begun();
    machine.kill_agent();
    assert!(is_alive(&pid), "it outlives the agent");
    let calls = machine.calls();
    assert_eq!(calls, ["10-first pre schedule", "20-app pre schedule"]);
    let (_, list) = machine.agent_cli(&["list"]);
    assert_eq!(list["leftAtRest"], serde_json::json!(["10-first", "20-app"]));

    // The next agent ends the hook and calls post of both, before it does anything else.
    machine.hook("20-app", "[ ! -e broken ]");
    machine.start_agent();
    wait_for("the post of both", || {
        let text = std::fs::read_to_string(machine.at("calls")).unwrap_or_default();
        (text.lines().count() >= 2).then_some(())
    });
    assert!(!is_alive(&pid));
    assert_eq!(
        machine.calls()[..2],
        ["20-app post recovery", "10-first post recovery"]
    );
    wait_for("an app-consistent point", || {
        machine.item()["latestAppConsistentPoint"]["id"]
            .as_str()
            .map(str::to_owned)
    });

    wait_for("protection", || {
        (machine.item()["protectionState"] == "Protected").then_some(())
    });

    // A post that fails is told as critical, and stays due until it succeeds.
    std::fs::write(machine.at("broken"), "").unwrap();
    let (code, _, _) = machine.create();
    assert_eq!(code, 1);
    let health = wait_for("a health error", || machine.health("ApplicationsHeld"));
    assert_eq!(health["severity"], "Critical", "{health}");
    assert_eq!(machine.newest()["consistency"], "CrashConsistent");
    assert_eq!(machine.agent_cli(&["resume"]).0, 1);
    std::fs::remove_file(machine.at("broken")).unwrap();
    assert_eq!(machine.agent_cli(&["resume"]).0, 0);
    assert_eq!(machine.create().0, 0);
    wait_for("the health error to be over", || {
        machine.health("ApplicationsHeld").is_none().then_some(())
    });
}
