//! An agent updates itself on an operator's word, between two executables that differ: dying at any step, with a new one
//! that is broken, with a server that does not answer. Tracking survives it: nothing is compared again.
#[path = "support/serve.rs"]
mod serve;
mod support;
use serve::{LIFEBOAT, Site};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use support::{LoopDisk, lacks_root, ok, wait_for};

const OLD: &str = env!("CARGO_PKG_VERSION");
const NEW: &str = "9.9.9";
const DISK_BYTES: u64 = 128 << 20;

/// This executable as a later version: the record of its version is another one.
fn later(path: &Path) {
    let mut bytes = std::fs::read(LIFEBOAT).unwrap();
    let mark = [b"lifeboat-version:".as_slice(), OLD.as_bytes(), &[0]].concat();
    let at = bytes.windows(mark.len()).position(|part| part == mark).unwrap();
    let start = at + b"lifeboat-version:".len();
    assert_eq!(OLD.len(), NEW.len());
    bytes[start..start + NEW.len()].copy_from_slice(NEW.as_bytes());
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(
        ok(path.to_str().unwrap(), &["--version"]).trim(),
        format!("lifeboat {NEW}")
    );
}

/// The agent of one machine, and what its supervisor does.
struct Agent {
    folder: PathBuf,
    child: Option<Child>,
    deadline: &'static str,
}

impl Agent {
    fn program(&self) -> PathBuf {
        self.folder.join("lifeboat")
    }

    fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    fn command(&self, program: &Path, verb: &str) -> Command {
        let mut command = Command::new(program);
        command
            .args(["agent", verb, "--update-deadline", self.deadline, "--state-dir"])
            .arg(self.state())
            .env_remove("LIFEBOAT_TEST_UPDATE");
        command
    }

    /// As the unit says: first the previous executable looks, then the agent runs.
    fn start(&mut self, test: Option<&str>) {
        let previous = self.folder.join("lifeboat.previous");
        if previous.exists() {
            let status = self.command(&previous, "update-check").status().unwrap();
            assert!(status.success());
        }
        let mut command = self.command(&self.program(), "run");
        if let Some(test) = test {
            command.env("LIFEBOAT_TEST_UPDATE", test);
        }
        self.child = Some(command.stderr(Stdio::null()).spawn().unwrap());
    }

    fn wait_killed(&mut self) {
        let mut child = self.child.take().unwrap();
        let status = wait_for("the agent to die", || child.try_wait().unwrap());
        assert_eq!(status.signal(), Some(9), "{status}");
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Back to the old executable, as if never updated.
    fn reset(&mut self) {
        self.stop();
        std::fs::copy(LIFEBOAT, self.folder.join("old")).unwrap();
        std::fs::rename(self.folder.join("old"), self.program()).unwrap();
        for name in ["lifeboat.previous", "lifeboat.new", "state/update.json"] {
            let _ = std::fs::remove_file(self.folder.join(name));
        }
    }

    fn is(&self, other: &Path) -> bool {
        std::fs::read(self.program()).unwrap() == std::fs::read(other).unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop();
        let text = std::fs::read_to_string(self.state().join("kept.json")).unwrap_or_default();
        let kept: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        for disk in kept["tracked"].as_array().into_iter().flatten() {
            if let Some(Ok(disk)) = disk.as_str().map(str::parse) {
                lifeboat::agent::capture::forget(disk);
            }
        }
    }
}

/// Bytes that were read from a loop device so far.
fn read_bytes(disk: &LoopDisk) -> u64 {
    let name = disk.0.file_name().unwrap().to_str().unwrap();
    let text = std::fs::read_to_string(format!("/sys/block/{name}/stat")).unwrap();
    text.split_whitespace().nth(2).unwrap().parse::<u64>().unwrap() * 512
}

struct Scene {
    agent: Agent,
    site: Site,
    new: PathBuf,
    _folder: tempfile::TempDir,
}

impl Scene {
    fn new(disk: &Path, deadline: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let new = folder.path().join("new");
        later(&new);
        let site = Site::of(&new, &[]);
        let agent = Agent {
            folder: folder.path().join("machine"),
            child: None,
            deadline,
        };
        std::fs::create_dir(&agent.folder).unwrap();
        std::fs::copy(LIFEBOAT, agent.program()).unwrap();
        let token = site.cli(&["server", "join-token", "--address", "127.0.0.1"]);
        let text = |name: &str| token[name].as_str().unwrap().to_owned();
        let status = Command::new(agent.program())
            .args(["agent", "join", "--name", "web1", "--machine-key", "key of web1"])
            .args([
                "--server",
                &text("dataAddress"),
                "--fingerprint",
                &text("caFingerprint"),
            ])
            .arg("--state-dir")
            .arg(agent.state())
            .arg("--disk")
            .arg(disk)
            .env("LIFEBOAT_JOIN_TOKEN", text("token"))
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        Self {
            agent,
            site,
            new,
            _folder: folder,
        }
    }

    fn update(&self) -> (String, String) {
        let path = self.site.data.join("api.sock");
        let address = lifeboat::api::client::Address::Unix(path);
        let mut client = lifeboat::api::client::Client::new(address, None, None).unwrap();
        let value: serde_json::Value = client
            .get("/api/v1/vaults/default/machines/web1/agent-update")
            .unwrap();
        (
            value["state"].as_str().unwrap_or_default().to_owned(),
            value["agentVersion"].as_str().unwrap_or_default().to_owned(),
        )
    }

    /// Orders the update when the server has heard of the old version.
    fn order(&self) {
        wait_for("the old version to be heard", || {
            (self.update().1 == OLD).then_some(())
        });
        self.site.cli(&["machine", "update-agent", "web1", "--no-wait"]);
    }

    fn wait_state(&self, state: &str, version: &str) {
        wait_for(&format!("{state} {version}"), || {
            (self.update() == (state.to_owned(), version.to_owned())).then_some(())
        });
    }

    fn points(&self) -> usize {
        let rows = self.site.cli(&["recovery-point", "list", "web1"]);
        rows["items"].as_array().map_or(0, Vec::len)
    }
}

#[test]
fn tracking_goes_on_through_an_update() {
    if lacks_root() {
        return;
    }
    let disks = tempfile::tempdir().unwrap();
    let disk = LoopDisk::attach(&disks.path().join("disk"), DISK_BYTES);
    let mut scene = Scene::new(&disk.0, "60");
    scene.agent.start(None);
    wait_for("an inventory", || {
        let machines = scene.site.cli(&["machine", "list"]);
        machines["items"][0]["disks"].as_array()?.first().cloned()
    });
    scene
        .site
        .cli(&["policy", "create", "quick", "--crash-consistent-seconds", "5"]);
    scene
        .site
        .cli(&["protect", "web1", "--policy", "quick", "--wait"]);
    wait_for("the first point", || (scene.points() > 0).then_some(()));
    let process = scene.agent.child.as_ref().unwrap().id();
    let (points, read) = (scene.points(), read_bytes(&disk));
    scene.order();
    scene.wait_state("Confirmed", NEW);
    assert!(scene.agent.is(&scene.new));
    assert_eq!(
        std::fs::read(scene.agent.folder.join("lifeboat.previous")).unwrap(),
        std::fs::read(LIFEBOAT).unwrap(),
        "the previous executable is kept"
    );
    wait_for("points after the update", || {
        (scene.points() > points + 1).then_some(())
    });
    assert_eq!(
        scene.agent.child.as_ref().unwrap().id(),
        process,
        "no restart was needed"
    );
    let during = read_bytes(&disk) - read;
    assert!(
        during < DISK_BYTES,
        "{during} bytes were read: the disk was compared again"
    );

    // That a comparison would have been seen.
    let read = read_bytes(&disk);
    scene.site.cli(&["failover", "resynchronize", "web1"]);
    wait_for("a comparison", || {
        (read_bytes(&disk) - read >= DISK_BYTES).then_some(())
    });
}

#[test]
fn an_update_survives_death_at_every_step() {
    if lacks_root() {
        return;
    }
    let disks = tempfile::tempdir().unwrap();
    let file = disks.path().join("disk");
    std::fs::File::create(&file).unwrap().set_len(1 << 20).unwrap();
    let mut scene = Scene::new(&file, "60");
    for step in [
        "downloaded",
        "kept",
        "recorded",
        "swapped",
        "started",
        "confirming",
    ] {
        scene.agent.reset();
        scene.agent.start(Some(&format!("kill:{step}")));
        scene.order();
        scene.agent.wait_killed();
        let runs = Command::new(scene.agent.program())
            .arg("--version")
            .output()
            .unwrap();
        assert!(
            runs.status.success(),
            "{step}: an executable that runs is always there"
        );
        scene.agent.start(None);
        scene.wait_state("Confirmed", NEW);
        assert!(scene.agent.is(&scene.new), "{step}");
    }
}

#[test]
fn what_does_not_prove_itself_is_taken_back() {
    if lacks_root() {
        return;
    }
    let disks = tempfile::tempdir().unwrap();
    let file = disks.path().join("disk");
    std::fs::File::create(&file).unwrap().set_len(1 << 20).unwrap();
    let mut scene = Scene::new(&file, "4");

    // It runs, but no heartbeat is answered: it takes itself back, in the same process.
    scene.agent.start(Some("mute"));
    scene.order();
    scene.wait_state("RolledBack", OLD);
    assert!(scene.agent.is(LIFEBOAT.as_ref()));

    // It dies at each start: the previous one takes its place, told by the supervisor's start.
    scene.agent.reset();
    scene.agent.start(Some("kill:started"));
    scene.order();
    scene.agent.wait_killed();
    assert!(scene.agent.is(&scene.new));
    // Either the supervisor's look before the start, or the new one itself in its last start, finds that time is up.
    loop {
        scene.agent.start(Some("kill:started"));
        let mut child = scene.agent.child.take().unwrap();
        let died = wait_for("a death, or the previous executable", || {
            if child.try_wait().unwrap().is_some() {
                return Some(true);
            }
            scene.agent.is(LIFEBOAT.as_ref()).then_some(false)
        });
        if !died {
            scene.agent.child = Some(child);
            break;
        }
    }
    scene.wait_state("RolledBack", OLD);

    // Dying between the decision to take it back and the deed.
    scene.agent.reset();
    scene.agent.start(Some("mute"));
    scene.order();
    wait_for("the trial", || scene.agent.is(&scene.new).then_some(()));
    scene.agent.stop();
    let record = scene.agent.state().join("update.json");
    let text = std::fs::read_to_string(&record).unwrap();
    assert!(text.contains("Trying"), "{text}");
    std::fs::write(&record, text.replace("Trying", "RolledBack")).unwrap();
    scene.agent.start(None);
    scene.wait_state("RolledBack", OLD);
    assert!(scene.agent.is(LIFEBOAT.as_ref()));
}
