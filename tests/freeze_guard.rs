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
fn a_file_system_that_cannot_be_frozen_is_said_and_the_others_are_frozen() {
    if lacks_root() {
        return;
    }
    let fixture = Fixture::new();
    let mounts = [fixture.mount.0.clone(), PathBuf::from("/proc")];
    let frozen = Guard::spawn(program(), &mounts, PATIENCE)
        .unwrap()
        .freeze()
        .unwrap();
    assert!(frozen.is_still(0) && !frozen.is_still(1));
    let write = fixture.begin_write("a");
    assert!(write.recv_timeout(Duration::from_millis(300)).is_err());
    frozen.thaw().unwrap();
    write.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn what_another_program_froze_is_refused_and_left_frozen() {
    if lacks_root() {
        return;
    }
    let (fixture, other) = (Fixture::new(), Fixture::new());
    ok("fsfreeze", &["--freeze", other.mount.0.to_str().unwrap()]);
    let mounts = [other.mount.0.clone(), fixture.mount.0.clone()];
    let guard = Guard::spawn(program(), &mounts, PATIENCE).unwrap();
    let refused = guard.freeze();
    let held = other
        .begin_write("a")
        .recv_timeout(Duration::from_millis(300))
        .is_err();
    ok("fsfreeze", &["--unfreeze", other.mount.0.to_str().unwrap()]);
    assert!(matches!(refused, Err(FreezeError::Refused)));
    assert!(held, "the freeze of the other program was ended");
    fixture.begin_write("a").recv_timeout(PATIENCE).unwrap();
}

/// A file system in a file on another one: freezing the outer one first would wait for ever.
#[test]
fn nested_file_systems_are_frozen_from_the_inside() {
    if lacks_root() {
        return;
    }
    let outer = Fixture::new();
    let disk = LoopDisk::attach(&outer.mount.0.join("inner"), 8 << 20);
    ok("mkfs.ext4", &["-q", disk.path()]);
    let inner = Mounted::new(disk.path(), &outer.mount.0.join("mnt"), "rw");
    std::fs::write(inner.0.join("file"), vec![7; 1 << 20]).unwrap();
    let mounts = [outer.mount.0.clone(), inner.0.clone()];
    let frozen = Guard::spawn(program(), &mounts, Duration::from_secs(5))
        .unwrap()
        .freeze()
        .unwrap();
    assert!(frozen.is_still(0) && frozen.is_still(1));
    frozen.thaw().unwrap();
    // The wrong way round on purpose: the inner one has to write to what is frozen. The deadline holds.
    std::fs::write(inner.0.join("file"), vec![8; 1 << 20]).unwrap();
    let mounts = [inner.0.clone(), outer.mount.0.clone()];
    let begin = Instant::now();
    let ended = Guard::spawn(program(), &mounts, Duration::from_millis(700))
        .unwrap()
        .freeze_without_sync();
    assert!(
        matches!(ended, Err(FreezeError::Deadline)),
        "{:?}",
        begin.elapsed()
    );
    std::fs::write(inner.0.join("after"), b"x").unwrap();
    outer.begin_write("after").recv_timeout(PATIENCE).unwrap();
}

trait OwnGroup {
    fn process_group_of_its_own(&mut self) -> &mut Self;
}

impl OwnGroup for Command {
    fn process_group_of_its_own(&mut self) -> &mut Self {
        std::os::unix::process::CommandExt::process_group(self, 0)
    }
}
