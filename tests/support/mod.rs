//! Loop devices and mounts that go away with the test, also when it fails.
#![allow(dead_code)] // each test file uses a part
use std::path::{Path, PathBuf};
use std::process::Command;

/// True: the test cannot run here, and says why. Never in CI.
pub fn lacks_root() -> bool {
    // SAFETY: no arguments, no failure.
    if unsafe { libc::geteuid() } == 0 {
        return false;
    }
    assert!(std::env::var_os("CI").is_none(), "CI runs as root");
    eprintln!("skipped: needs root for loop devices and freezing");
    true
}

pub fn ok(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed (tests/all.sh installs it): {error}"));
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{program} {args:?}: {text}");
    text
}

pub struct LoopDisk(pub PathBuf);

impl LoopDisk {
    /// Attaches a file, made with this size when it is new.
    pub fn attach(file: &Path, size: u64) -> Self {
        if !file.exists() {
            std::fs::File::create(file).unwrap().set_len(size).unwrap();
        }
        let device = ok("losetup", &["--find", "--show", file.to_str().unwrap()]);
        Self(PathBuf::from(device.trim()))
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

pub struct Mounted(pub PathBuf);

impl Mounted {
    pub fn new(device: &str, point: &Path, options: &str) -> Self {
        std::fs::create_dir_all(point).unwrap();
        ok("mount", &["-o", options, device, point.to_str().unwrap()]);
        Self(point.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // SIGKILLed children may hold it a moment longer: lazily, so that nothing is left in any case.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

impl LoopDisk {
    /// With its partitions. A kernel that knows no partition tables is told what the table says.
    pub fn attach_with_partitions(file: &Path) -> Self {
        let arguments = ["--find", "--show", "--partscan", file.to_str().unwrap()];
        let disk = Self(PathBuf::from(ok("losetup", &arguments).trim()));
        ok("partx", &["--update", disk.path()]);
        let node = PathBuf::from(format!("{}p1", disk.path()));
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !node.exists() {
            assert!(std::time::Instant::now() < end, "{} did not come", node.display());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        disk
    }
}

/// A disk without requests, made of compressed memory.
pub struct ZramDisk(pub PathBuf, String);

impl ZramDisk {
    /// None where this kernel has none; that is said.
    pub fn new(size: u64) -> Option<Self> {
        let Ok(number) = std::fs::read_to_string("/sys/class/zram-control/hot_add") else {
            eprintln!("skipped: this kernel has no zram to stand for disks without requests");
            return None;
        };
        let number = number.trim().to_owned();
        let disk = Self(PathBuf::from(format!("/dev/zram{number}")), number);
        std::fs::write(format!("/sys/block/zram{}/disksize", disk.1), size.to_string()).unwrap();
        Some(disk)
    }
}

impl Drop for ZramDisk {
    fn drop(&mut self) {
        // Busy for a moment after its last user.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while std::fs::write("/sys/class/zram-control/hot_remove", &self.1).is_err()
            && std::time::Instant::now() < end
        {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// What is pinned for a disk goes with the test.
pub struct Pins(PathBuf);

impl Pins {
    pub fn of(disk: lifeboat::block::DiskId) -> Self {
        Self(Path::new("/sys/fs/bpf/lifeboat").join(disk.to_string()))
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let _ = std::fs::remove_file(entry.path());
        }
        let _ = std::fs::remove_dir(&self.0);
    }
}

pub struct Swap(PathBuf);

impl Swap {
    pub fn on(path: &Path) -> Self {
        // Lowest priority: the machine does not begin to use it.
        ok("swapon", &["--priority", "0", path.to_str().unwrap()]);
        Self(path.to_owned())
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        let _ = Command::new("swapoff").arg(&self.0).status();
    }
}

pub fn ok_with_input(program: &str, args: &[&str], input: &str) {
    use std::io::Write;
    let mut child = Command::new(program)
        .args(args)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{program} is needed (tests/all.sh installs it): {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{program} {args:?}");
}

/// For processes that a test starts: a test that was killed cannot end them.
pub fn end_with_parent(parent: u32) {
    if std::os::unix::process::parent_id() != parent {
        std::process::exit(1);
    }
}
