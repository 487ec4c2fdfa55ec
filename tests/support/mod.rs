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
