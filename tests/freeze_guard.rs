//! Whatever happens to the agent or the guard, no file system stays frozen.
mod support;
use lifeboat::agent::freeze::{FreezeError, Guard};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use support::{LoopDisk, Mounted, lacks_root, ok};

/// Longer than any healthy thaw on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_lifeboat"))
}

/// Field order is drop order: the mount goes before its device, the device before its file.
struct Fixture {
    mount: Mounted,
    _disk: LoopDisk,
    _folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let disk = LoopDisk::attach(&folder.path().join("disk"), 32 << 20);
        ok("mkfs.ext4", &["-q", disk.path()]);
        let mount = Mounted::new(disk.path(), &folder.path().join("mnt"), "rw");
        Self {
            mount,
            _disk: disk,
            _folder: folder,
        }
    }

    fn mounts(&self) -> Vec<PathBuf> {
        vec![self.mount.0.clone()]
    }

    /// A write that ends when the file system is not frozen.
    fn begin_write(&self, name: &str) -> mpsc::Receiver<Instant> {
        let (done, receiver) = mpsc::sync_channel(1);
        let path = self.mount.0.join(name);
        std::thread::spawn(move || {
            std::fs::write(path, b"x").unwrap();
            let _ = done.send(Instant::now());
        });
        receiver
    }
}

#[test]
fn freezes_and_thaws_on_command() {
    if lacks_root() {
        return;
    }
    let fixture = Fixture::new();
    let frozen = Guard::spawn(program(), &fixture.mounts(), PATIENCE)
        .unwrap()
        .freeze()
        .unwrap();
    let write = fixture.begin_write("a");
    assert!(
        write.recv_timeout(Duration::from_millis(300)).is_err(),
        "a write went through a freeze"
    );
    let lasted = frozen.thaw().unwrap();
    assert!(lasted >= Duration::from_millis(300));
    write.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn an_agent_that_does_nothing_any_more_is_thawed_at_the_deadline() {
    if lacks_root() {
        return;
    }
    let fixture = Fixture::new();
    let deadline = Duration::from_millis(700);
    let begin = Instant::now();
    let frozen = Guard::spawn(program(), &fixture.mounts(), deadline)
        .unwrap()
        .freeze()
        .unwrap();
    let write = fixture.begin_write("a");
    let written = write.recv_timeout(PATIENCE).unwrap();
    assert!(written - begin >= deadline);
    // And the point is not passed off as consistent.
    assert!(matches!(frozen.thaw(), Err(FreezeError::Deadline)));
}

#[test]
fn a_killed_agent_leaves_nothing_frozen() {
    if lacks_root() {
        return;
    }
    let fixture = Fixture::new();
    // Stands in for the agent: it freezes and is killed; then its pipe closes.
    let script = r#"exec 3< <(:); { printf F; sleep 600; } | "$0" freeze-guard 600000 "$1""#;
    let mut agent = Command::new("bash")
        .args([
            "-c",
            script,
            program().to_str().unwrap(),
            fixture.mount.0.to_str().unwrap(),
        ])
        .stdout(Stdio::piped())
        .process_group_of_its_own()
        .spawn()
        .unwrap();
    let mut answers = [0; 2];
    agent.stdout.as_mut().unwrap().read_exact(&mut answers).unwrap();
    assert_eq!(&answers, b"RF");
    let write = fixture.begin_write("a");
    assert!(
        write.recv_timeout(Duration::from_millis(300)).is_err(),
        "a write went through a freeze"
    );
    // The agent's side of the pipe dies; the guard does not.
    ok("pkill", &["-KILL", "-g", &agent.id().to_string(), "-x", "sleep"]);
    ok(
        "sh",
        &["-c", &format!("pkill -KILL -P {} -x bash || true", agent.id())],
    );
    write.recv_timeout(PATIENCE).unwrap();
    let _ = agent.wait();
}

#[test]
fn a_killed_guard_is_replaced_by_the_agent() {
    if lacks_root() {
        return;
    }
    let fixture = Fixture::new();
    let frozen = Guard::spawn(program(), &fixture.mounts(), PATIENCE)
        .unwrap()
        .freeze()
        .unwrap();
    let write = fixture.begin_write("a");
    ok("kill", &["-KILL", &frozen.guard_pid().to_string()]);
    assert!(write.recv_timeout(Duration::from_millis(300)).is_err());
    assert!(matches!(frozen.thaw(), Err(FreezeError::GuardDied)));
    write.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn a_file_system_that_cannot_be_frozen_is_said_and_the_others_are_thawed() {
    if lacks_root() {
        return;
    }
    let fixture = Fixture::new();
    let mounts = [fixture.mount.0.clone(), PathBuf::from("/proc")];
    let frozen = Guard::spawn(program(), &mounts, PATIENCE)
        .unwrap()
        .freeze()
        .unwrap();
    assert_eq!((frozen.is_still(0), frozen.is_still(1)), (true, false));
    let write = fixture.begin_write("a");
    assert!(write.recv_timeout(Duration::from_millis(300)).is_err());
    frozen.thaw().unwrap();
    write.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn what_another_program_froze_is_refused_and_stays_frozen() {
    if lacks_root() {
        return;
    }
    let fixture = Fixture::new();
    let theirs = fixture.mount.0.to_str().unwrap();
    ok("fsfreeze", &["--freeze", theirs]);
    let refused = Guard::spawn(program(), &fixture.mounts(), PATIENCE)
        .unwrap()
        .freeze();
    let write = fixture.begin_write("a");
    let held = write.recv_timeout(Duration::from_millis(300)).is_err();
    ok("fsfreeze", &["--unfreeze", theirs]);
    assert!(matches!(refused, Err(FreezeError::Refused)));
    assert!(held, "the freeze of another program was ended");
    write.recv_timeout(PATIENCE).unwrap();
}

trait OwnGroup {
    fn process_group_of_its_own(&mut self) -> &mut Self;
}

impl OwnGroup for Command {
    fn process_group_of_its_own(&mut self) -> &mut Self {
        std::os::unix::process::CommandExt::process_group(self, 0)
    }
}
