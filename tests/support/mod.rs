//! Loop devices and mounts that go away with the test, also when it fails.
#![allow(dead_code)] // each test file uses a part
pub mod homeward;
pub mod network;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a state may take to come; a busy host takes its time.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ready() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

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

/// Unmounts. A process that another test is just starting holds a copy of every open file until it executes: busy then passes.
pub fn umount(point: &Path) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let output = Command::new("umount").arg(point).output().unwrap();
        if output.status.success() {
            return;
        }
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("busy") && std::time::Instant::now() < end, "{text}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
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
    /// With the kind named: for file systems without a device.
    pub fn of_kind(kind: &str, source: &str, point: &Path, options: &str) -> Self {
        ok(
            "mount",
            &["-t", kind, "-o", options, source, point.to_str().unwrap()],
        );
        Self(point.to_owned())
    }

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

/// A read-only disk in memory, to make branches over.
pub struct Base(pub Vec<u8>);

impl lifeboat::export::BlockDevice for Base {
    fn size_bytes(&self) -> u64 {
        self.0.len() as u64
    }
    fn read_only(&self) -> bool {
        true
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        let at = offset as usize;
        let bytes = self.0.get(at..at + buffer.len());
        buffer.copy_from_slice(bytes.ok_or(std::io::ErrorKind::InvalidInput)?);
        Ok(())
    }
    fn write_at(&self, _: u64, _: &[u8]) -> std::io::Result<()> {
        Err(std::io::ErrorKind::PermissionDenied.into())
    }
    fn write_zeroes(&self, _: u64, _: u64) -> std::io::Result<()> {
        Err(std::io::ErrorKind::PermissionDenied.into())
    }
    fn flush(&self) -> std::io::Result<()> {
        Ok(())
    }
    fn status(&self, _: u64, len: u64) -> std::io::Result<Vec<(u64, bool)>> {
        Ok(vec![(len, false)])
    }
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

/// A floppy-sized FAT12 disk with one file, named as a directory entry has it (`STARTUP NSH`).
pub fn fat_disk(name: &[u8; 11], content: &[u8]) -> Vec<u8> {
    const SECTOR: usize = 512;
    const FAT_SECTORS: usize = 9;
    const ROOT_ENTRIES: usize = 224;
    let mut disk = vec![0; 2880 * SECTOR];
    disk[..11].copy_from_slice(b"\xeb\x3c\x90LIFEBOAT");
    let mut parameters = Vec::new();
    parameters.extend_from_slice(&(SECTOR as u16).to_le_bytes());
    parameters.extend_from_slice(&[1, 1, 0, 2]); // sectors per cluster, reserved sectors, FATs
    parameters.extend_from_slice(&(ROOT_ENTRIES as u16).to_le_bytes());
    parameters.extend_from_slice(&2880u16.to_le_bytes());
    parameters.extend_from_slice(&[0xf0, FAT_SECTORS as u8, 0, 18, 0, 2, 0]);
    disk[11..11 + parameters.len()].copy_from_slice(&parameters);
    disk[38] = 0x29;
    disk[39..62].copy_from_slice(b"1234TEST       FAT12   ");
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    // The file lies in clusters 2, 3, ..; the last one ends the chain.
    let clusters = content.len().div_ceil(SECTOR).max(1);
    let mut fat = vec![0u8; FAT_SECTORS * SECTOR];
    let mut set = |index: usize, value: u16| {
        let at = index * 3 / 2;
        let both = u16::from_le_bytes([fat[at], fat[at + 1]]);
        let both = match index % 2 {
            0 => both & 0xf000 | value,
            _ => both & 0x000f | value << 4,
        };
        fat[at..at + 2].copy_from_slice(&both.to_le_bytes());
    };
    set(0, 0xff0);
    set(1, 0xfff);
    for index in 0..clusters {
        let next = if index + 1 == clusters {
            0xfff
        } else {
            index as u16 + 3
        };
        set(index + 2, next);
    }
    for copy in 0..2 {
        let at = (1 + copy * FAT_SECTORS) * SECTOR;
        disk[at..at + fat.len()].copy_from_slice(&fat);
    }
    let root = (1 + 2 * FAT_SECTORS) * SECTOR;
    disk[root..root + 11].copy_from_slice(name);
    disk[root + 11] = 0x20;
    disk[root + 26..root + 28].copy_from_slice(&2u16.to_le_bytes());
    disk[root + 28..root + 32].copy_from_slice(&(content.len() as u32).to_le_bytes());
    let data = root + ROOT_ENTRIES * 32;
    disk[data..data + content.len()].copy_from_slice(content);
    disk
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

/// Ends the machines that run below this folder: they outlive their server on purpose.
pub fn end_machines(folder: &Path) {
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let works_in = std::fs::read_link(process.path().join("cwd")).unwrap_or_default();
        let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        if works_in.starts_with(folder) && name.starts_with("qemu-system") {
            let pid = process.file_name();
            let _ = Command::new("kill").arg("-KILL").arg(pid).status();
        }
    }
}
