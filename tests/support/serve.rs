//! A server process on loopback, in a folder of its own.
#![allow(dead_code)] // each test file uses a part
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

pub const LIFEBOAT: &str = env!("CARGO_BIN_EXE_lifeboat");

pub struct Site {
    pub data: PathBuf,
    pub child: Child,
    pub ready: Value,
    _folder: tempfile::TempDir,
}

impl Site {
    pub fn start() -> Self {
        Self::of(LIFEBOAT.as_ref(), &[])
    }

    /// Run from another executable.
    pub fn of(program: &Path, args: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let (child, ready) = serve(program, &data, args);
        Self {
            data,
            child,
            ready,
            _folder: folder,
        }
    }

    /// Ends the server as a crash does, does something, and starts it again on the same ports.
    pub fn restart(&mut self, between: impl FnOnce(&Path), args: &[&str]) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        between(&self.data);
        let port = |name: &str, scheme: &str| {
            let text = self.ready[name].as_str().unwrap().trim_end_matches('/');
            text.trim_start_matches(scheme).to_owned()
        };
        let (data, api) = (port("dataAddress", ""), port("apiUrl", "https://"));
        let mut all = vec!["--data-listen", &data, "--api-listen", &api];
        all.extend(args);
        (self.child, self.ready) = serve(LIFEBOAT.as_ref(), &self.data, &all);
    }

    /// What the command says.
    fn said(&self, args: &[&str]) -> String {
        let output = Command::new(LIFEBOAT)
            .args(args)
            .arg("--json")
            .env("LIFEBOAT_DATA_DIR", &self.data)
            .env("LIFEBOAT_CONFIG_DIR", self.data.join("none"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn cli(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.said(args)).unwrap_or_default()
    }

    /// An order that is waited for; its job.
    pub fn order(&self, args: &[&str]) -> Value {
        let said = self.said(args);
        let last: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
        last["job"].clone()
    }

    /// The policy `quick`: crash-consistent points only, this often.
    pub fn quick_policy(&self, seconds: &str) {
        let every = [
            "--crash-consistent-seconds",
            seconds,
            "--app-consistent-seconds",
            "0",
        ];
        self.cli(&[&["policy", "create", "quick"][..], &every].concat());
    }

    /// The machine joins with these disks.
    pub fn join<D: AsRef<Path>>(&self, name: &str, state: &Path, disks: &[D]) {
        let made = self.cli(&["server", "join-token", "--address", "127.0.0.1"]);
        let text = |name: &str| made[name].as_str().unwrap().to_owned();
        let status = Command::new(LIFEBOAT)
            .args(["agent", "join", "--name", name])
            .args(disks.iter().flat_map(|disk| [Path::new("--disk"), disk.as_ref()]))
            .args(["--machine-key", &format!("key of {name}")])
            .args(["--server", &text("dataAddress")])
            .args(["--fingerprint", &text("caFingerprint")])
            .arg("--state-dir")
            .arg(state)
            .env("LIFEBOAT_JOIN_TOKEN", text("token"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// The line for the machine, as root there.
    pub fn line(&self) -> String {
        let made = self.cli(&["server", "join-token", "--address", "127.0.0.1"]);
        let line = made["installCommand"].as_str().unwrap();
        line.replace("| sudo sh", "| sh")
    }
}

/// What is pinned for the disks of an agent with this state goes with the test.
pub fn forget_disks(state: &Path) {
    let text = std::fs::read_to_string(state.join("kept.json")).unwrap_or_default();
    let kept: Value = serde_json::from_str(&text).unwrap_or_default();
    for disk in kept["tracked"].as_array().into_iter().flatten() {
        if let Some(Ok(disk)) = disk.as_str().map(str::parse) {
            lifeboat::agent::capture::forget(disk);
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        crate::support::end_machines(&self.data);
    }
}

fn serve(program: &Path, data: &Path, args: &[&str]) -> (Child, Value) {
    let mut command = Command::new(program);
    command
        .args(["serve", "--json", "--heartbeat", "1", "--data-dir"])
        .arg(data);
    if !args.contains(&"--data-listen") {
        command.args(["--data-listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"]);
    }
    let mut child = command
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let ready = serde_json::from_str(&line);
    (
        child,
        ready.unwrap_or_else(|_| panic!("the server did not start: {line}")),
    )
}
