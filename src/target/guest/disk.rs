//! A disk of the guest as a file, and the files of its ext4 file systems, without mounting them.
use super::super::{DiskAttachment, MachineSpec, TargetError};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub const OFFER_MAX: Duration = Duration::from_secs(20);
pub const LOOK: Duration = Duration::from_millis(20);
const PARTITIONS_MAX: usize = 128;
/// A configuration that is larger is no configuration.
const FILE_BYTES_MAX: usize = 256 * 1024;
/// Of one folder.
const FILES_MAX: usize = 64;
const SECTOR: u64 = 512;

/// The disk as a file, for as long as this lives.
pub struct Offer {
    daemon: Child,
    path: PathBuf,
    file: Option<File>,
}

impl Drop for Offer {
    fn drop(&mut self) {
        self.file = None;
        // It takes its mount away and writes what it holds before it ends.
        if let Some(pid) = rustix::process::Pid::from_raw(self.daemon.id() as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let end = Instant::now() + OFFER_MAX;
        while matches!(self.daemon.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(LOOK);
        }
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        take_away(&self.path);
    }
}

/// Also what a server that was killed has left.
fn take_away(file: &Path) {
    if rustix::mount::unmount(file, rustix::mount::UnmountFlags::DETACH).is_ok() || file.exists() {
        let _ = std::fs::remove_file(file);
    }
}

pub fn io_of(action: &'static str, object: &Path) -> impl FnOnce(io::Error) -> TargetError {
    let object = object.to_owned();
    move |source| TargetError::Io {
        action,
        object,
        source,
    }
}

impl Offer {
    pub fn new(spec: &MachineSpec, disk: &DiskAttachment) -> Result<Self, TargetError> {
        let path = spec.folder.join("configure.raw");
        take_away(&path);
        File::create(&path).map_err(io_of("make", &path))?;
        let node = serde_json::json!({ "driver": "nbd", "node-name": "disk",
            "server": { "type": "unix", "path": disk.socket }, "export": disk.export });
        let export = serde_json::json!({ "type": "fuse", "id": "file", "node-name": "disk", "writable": true,
            "mountpoint": path, "growable": false });
        let mut command = Command::new("qemu-storage-daemon");
        command
            .args(["--blockdev", &node.to_string(), "--export", &export.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // SAFETY: between fork and exec only one system call is made, which is safe there.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
                -1 => Err(io::Error::last_os_error()),
                _ => Ok(()),
            });
        }
        let daemon = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => TargetError::Missing {
                program: "qemu-storage-daemon",
            },
            _ => io_of("run", Path::new("qemu-storage-daemon"))(error),
        })?;
        let mut offer = Self {
            daemon,
            path,
            file: None,
        };
        let end = Instant::now() + OFFER_MAX;
        // An empty file until the disk is mounted over it.
        while !std::fs::metadata(&offer.path).is_ok_and(|found| found.len() > 0) {
            let ended = !matches!(offer.daemon.try_wait(), Ok(None));
            if ended || Instant::now() > end {
                return Err(TargetError::Refused(
                    "qemu-storage-daemon does not offer the disk as a file: FUSE is missing".to_owned(),
                ));
            }
            std::thread::sleep(LOOK);
        }
        let file = File::options().read(true).write(true).open(&offer.path);
        offer.file = Some(file.map_err(io_of("open", &offer.path))?);
        Ok(offer)
    }

    fn read_exact_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        file.read_exact_at(bytes, at)
    }

    /// What was written is in the branch for good.
    pub fn sync(&self) -> Result<(), TargetError> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotConnected.into());
        file.and_then(File::sync_all).map_err(io_of("write", &self.path))
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u64 {
    let part = bytes.get(at..at + 4).and_then(|part| part.try_into().ok());
    u64::from(u32::from_le_bytes(part.unwrap_or_default()))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let part = bytes.get(at..at + 8).and_then(|part| part.try_into().ok());
    u64::from_le_bytes(part.unwrap_or_default())
}

/// Begins of what may be file systems, in bytes: the whole disk, and the partitions of an MBR or a GPT.
pub fn begins(disk: &Offer) -> Result<Vec<u64>, TargetError> {
    let mut head = vec![0; 34 * SECTOR as usize];
    disk.read_exact_at(&mut head, 0)
        .map_err(io_of("read", &disk.path))?;
    let mut found = vec![0];
    if head[510..512] != [0x55, 0xaa] {
        return Ok(found);
    }
    if &head[512..520] == b"EFI PART" {
        let (table, count, len) = (
            u64_at(&head, 512 + 72),
            u32_at(&head, 512 + 80),
            u32_at(&head, 512 + 84),
        );
        if (128..=4096).contains(&len) && table > 0 {
            for number in 0..count.min(PARTITIONS_MAX as u64) {
                let mut entry = [0; 128];
                let at = table.saturating_mul(SECTOR).saturating_add(number * len);
                if disk.read_exact_at(&mut entry, at).is_err() || entry[..16] == [0; 16] {
                    continue;
                }
                found.push(u64_at(&entry, 32).saturating_mul(SECTOR));
            }
        }
    } else {
        let entries = (0..4).map(|number| 446 + number * 16);
        found.extend(
            entries
                .filter(|at| head[at + 4] != 0)
                .map(|at| u32_at(&head, at + 8) * SECTOR),
        );
    }
    Ok(found)
}

#[derive(Debug, PartialEq)]
pub enum Content {
    Ext,
    /// Something that a system may be on, by name.
    Other(&'static str),
    Unknown,
}

/// What begins there, by its magic.
pub fn content(disk: &Offer, begin: u64) -> Content {
    let is = |at: u64, magic: &[u8]| {
        let mut found = vec![0; magic.len()];
        disk.read_exact_at(&mut found, begin.saturating_add(at)).is_ok() && found == magic
    };
    const OTHERS: [(u64, &[u8], &str); 5] = [
        (0, b"XFSB", "XFS"),
        (0x1_0040, b"_BHRfS_M", "btrfs"),
        (SECTOR, b"LABELONE", "LVM"),
        (0, b"LUKS\xba\xbe", "an encrypted volume"),
        (3, b"NTFS    ", "NTFS"),
    ];
    if is(1024 + 56, &[0x53, 0xef]) {
        return Content::Ext;
    }
    let other = OTHERS.into_iter().find(|(at, magic, _)| is(*at, magic));
    other.map_or(Content::Unknown, |(_, _, name)| Content::Other(name))
}

/// An ext file system inside a file, through its tools.
pub struct Ext {
    at: String,
    work: PathBuf,
}

/// Paths here are our own, or of names that [`Ext::list`] let through: without a space.
impl Ext {
    pub fn at(offer: &Offer, begin: u64, spec: &MachineSpec) -> Self {
        Self {
            at: format!("{}?offset={begin}", offer.path.display()),
            work: spec.folder.clone(),
        }
    }

    fn tool(&self, program: &'static str, args: &[&str]) -> Result<Output, TargetError> {
        let run = Command::new(program)
            .args(args)
            .arg(&self.at)
            .env("LANG", "C")
            .stdin(Stdio::null())
            .output();
        run.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => TargetError::Missing { program },
            _ => io_of("run", Path::new(program))(error),
        })
    }

    fn ask(&self, request: &str) -> Result<String, TargetError> {
        let said = self.tool("debugfs", &["-R", request])?;
        Ok(String::from_utf8_lossy(&said.stdout).into_owned())
    }

    /// Replays the journal. False: it is damaged beyond that.
    pub fn mend(&self) -> Result<bool, TargetError> {
        let mended = self.tool("e2fsck", &["-p", "-E", "journal_only"])?;
        Ok(mended.status.code().is_some_and(|code| code <= 1))
    }

    pub fn has(&self, path: &str) -> Result<bool, TargetError> {
        Ok(self.ask(&format!("stat {path}"))?.contains("Inode:"))
    }

    /// Permissions of a plain file; None: there is none.
    pub fn mode(&self, path: &str) -> Result<Option<u32>, TargetError> {
        let said = self.ask(&format!("stat {path}"))?;
        if !said.contains("Type: regular") {
            return Ok(None);
        }
        let mode = said.split("Mode:").nth(1).and_then(|rest| {
            let word = rest.split_whitespace().next()?;
            u32::from_str_radix(word, 8).ok()
        });
        Ok(Some(mode.unwrap_or(0o644) & 0o7777))
    }

    /// Content of a plain file; None: it is not there, is empty, or is no configuration.
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>, TargetError> {
        if self.mode(path)?.is_none() {
            return Ok(None);
        }
        let copy = self.work.join("configure.file");
        let _ = std::fs::remove_file(&copy);
        self.ask(&format!("dump {path} {}", copy.display()))?;
        let bytes = std::fs::read(&copy).unwrap_or_default();
        let _ = std::fs::remove_file(&copy);
        Ok(Some(bytes).filter(|bytes| !bytes.is_empty() && bytes.len() <= FILE_BYTES_MAX))
    }

    /// Names of the plain files of a folder, sorted. Those with unusual letters are left out.
    pub fn list(&self, folder: &str) -> Result<Vec<String>, TargetError> {
        let said = self.ask(&format!("ls -p {folder}"))?;
        let fine = |name: &str| {
            !name.is_empty()
                && name
                    .chars()
                    .all(|letter| letter.is_ascii_alphanumeric() || "-_.@+".contains(letter))
        };
        let mut names: Vec<String> = said
            .lines()
            .filter_map(|line| {
                // /inode/mode/uid/gid/name/size/
                let mut fields = line.split('/').skip(2);
                let (mode, name) = (fields.next()?, fields.nth(2)?);
                (mode.starts_with("100") && fine(name)).then(|| name.to_owned())
            })
            .take(FILES_MAX)
            .collect();
        names.sort();
        Ok(names)
    }

    fn change(&self, commands: &str) -> Result<(), TargetError> {
        let script = self.work.join("configure.commands");
        std::fs::write(&script, commands).map_err(io_of("write", &script))?;
        self.tool("debugfs", &["-w", "-f", &script.display().to_string()])?;
        let _ = std::fs::remove_file(&script);
        Ok(())
    }

    pub fn write(&self, path: &str, content: &[u8], mode: u32) -> Result<(), TargetError> {
        let copy = self.work.join("configure.file");
        File::create(&copy)
            .and_then(|mut file| file.write_all(content))
            .map_err(io_of("write", &copy))?;
        let mut make = String::new();
        for (end, _) in path.match_indices('/').skip(1) {
            let folder = &path[..end];
            if !make.is_empty() || !self.has(folder)? {
                make += &format!("mkdir {folder}\n");
            }
        }
        let done = self.change(&format!(
            "{make}rm {path}\nwrite {} {path}\nsif {path} mode 0{:o}\nsif {path} uid 0\nsif {path} gid 0\n",
            copy.display(),
            0o100_000 | mode
        ));
        let _ = std::fs::remove_file(&copy);
        done?;
        match self.read(path)? {
            Some(found) if found == content => Ok(()),
            _ => Err(TargetError::Refused(format!(
                "{path} could not be written in the guest"
            ))),
        }
    }

    pub fn remove(&self, path: &str) -> Result<(), TargetError> {
        self.change(&format!("rm {path}\n"))?;
        if self.has(path)? {
            return Err(TargetError::Refused(format!(
                "{path} could not be removed in the guest"
            )));
        }
        Ok(())
    }
}
