//! A disk that is written: nobody else may use it, and what was written is durable before it is told.
use crate::agent::capture::AlignedBuffer;
use crate::agent::{inventory, mounts};
use crate::block::BLOCK_BYTES;
use crate::wire::facts::DiskFacts;
use rustix::fs::FallocateFlags;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Written at once at most.
const WRITE_BYTES: usize = 256 << 10;
const BLOCK: u64 = BLOCK_BYTES as u64;

#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error("{0} does not exist")]
    Missing(PathBuf),
    #[error("{0} is neither a block device nor an image file")]
    NotADisk(PathBuf),
    #[error("{path} has {found} bytes, the replica's disk has {needed}")]
    TooSmall { path: PathBuf, found: u64, needed: u64 },
    #[error("{path} is in use: {by}")]
    InUse { path: PathBuf, by: String },
    #[error("{0} holds the system that runs here")]
    RunsHere(PathBuf),
    #[error("{path} is another disk than before: {what}")]
    Replaced { path: PathBuf, what: String },
    #[error("cannot {action} {path}")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl TargetError {
    /// Code, possible causes, recommended action.
    pub fn words(&self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Missing(_) | Self::NotADisk(_) => (
                "NoSuchDisk",
                "the path is misspelt, or the disk is not attached",
                "list the disks of this machine with lsblk; an image file must be there with its size (truncate --size BYTES FILE)",
            ),
            Self::TooSmall { .. } => (
                "DiskTooSmall",
                "a smaller disk was put in, or another one is meant",
                "name a disk of at least the size of the original; a larger one is fine, its rest is left alone",
            ),
            Self::InUse { .. } => (
                "DiskInUse",
                "the system mounted it by itself, or another program works on it",
                "unmount it, stop what uses it (swapoff, vgchange --activate n, mdadm --stop), then run the receiver again",
            ),
            Self::RunsHere(_) => (
                "DiskInUse",
                "the machine runs from the disk that is to be overwritten",
                "start the machine from a rescue or live system, then run the receiver there",
            ),
            Self::Replaced { .. } => (
                "DiskReplaced",
                "the disk was taken out, resized, or another one got its name",
                "run the receiver again and name the disk that is meant; what it holds is found by comparing",
            ),
            Self::Io { .. } => (
                "DiskFailed",
                "the disk or its cable fails, it was taken out, or the room beneath an image file is used up",
                "look at the kernel's log; put in a good disk and run the receiver again: it finds by comparing what is there",
            ),
        }
    }
}

pub struct Target {
    file: File,
    facts: DiskFacts,
    path: PathBuf,
    is_block: bool,
    number: (u64, u64),
    /// Of the disk that is received; the target may be larger.
    needed: u64,
}

impl Target {
    /// Takes the disk for itself: nothing can mount it, or a part of it, while it is open.
    pub fn open(path: &Path, needed: u64) -> Result<Self, TargetError> {
        let own = path.to_owned();
        let meta = std::fs::metadata(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => TargetError::Missing(own.clone()),
            _ => failed("open", path, source),
        })?;
        let is_block = meta.file_type().is_block_device();
        if !is_block && !meta.is_file() {
            return Err(TargetError::NotADisk(own));
        }
        if let Some(point) = mount_points(path).first() {
            return Err(if *point == Path::new("/") {
                TargetError::RunsHere(own)
            } else {
                TargetError::InUse {
                    path: own,
                    by: format!("mounted on {}", point.display()),
                }
            });
        }
        if !is_block && let Some(device) = loop_device_of(path) {
            return Err(TargetError::InUse {
                path: own,
                by: format!("the loop device {device} stands on it"),
            });
        }
        let facts = inventory::disk(path).ok_or_else(|| TargetError::NotADisk(own.clone()))?;
        if facts.size_bytes < needed {
            return Err(TargetError::TooSmall {
                path: own,
                found: facts.size_bytes,
                needed,
            });
        }
        let open = |flags: i32| {
            let exclusive = if is_block { libc::O_EXCL } else { 0 };
            File::options()
                .read(true)
                .write(true)
                .custom_flags(flags | exclusive | libc::O_CLOEXEC)
                .open(path)
        };
        // Direct: what is read back comes from the medium. Not for files whose end no direct write reaches.
        let direct = is_block || facts.size_bytes.is_multiple_of(BLOCK);
        let opened = match open(if direct { libc::O_DIRECT } else { 0 }) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => open(0),
            opened => opened,
        };
        let file = opened.map_err(|source| {
            if source.raw_os_error() == Some(libc::EBUSY) {
                return TargetError::InUse {
                    path: own.clone(),
                    by: "swap, a volume group, a RAID or another program holds it or a partition of it"
                        .to_owned(),
                };
            }
            failed("open", path, source)
        })?;
        if !is_block {
            file.try_lock().map_err(|_| TargetError::InUse {
                path: own.clone(),
                by: "another program has locked it".to_owned(),
            })?;
        }
        Ok(Self {
            file,
            facts,
            path: own,
            is_block,
            number: number(&meta),
            needed,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was on it when it was opened.
    pub fn facts(&self) -> &DiskFacts {
        &self.facts
    }

    /// Of the disk that is received.
    pub fn needed(&self) -> u64 {
        self.needed
    }

    /// Whether the path still leads to the disk that was opened.
    pub fn check(&self) -> Result<(), TargetError> {
        let replaced = |what: String| TargetError::Replaced {
            path: self.path.clone(),
            what,
        };
        let meta =
            std::fs::metadata(&self.path).map_err(|error| replaced(format!("it is gone ({error})")))?;
        if number(&meta) != self.number {
            return Err(replaced("the name leads elsewhere now".to_owned()));
        }
        let now = inventory::disk(&self.path).ok_or_else(|| replaced("it cannot be read".to_owned()))?;
        if now.size_bytes < self.needed || now.size_bytes < self.facts.size_bytes {
            return Err(replaced(format!(
                "it has {} bytes now and had {}",
                now.size_bytes, self.facts.size_bytes
            )));
        }
        // What the content says of itself changes as it is written.
        let of_content = |id: &str| id.is_empty() || id.starts_with("gpt:") || id.starts_with("mbr:");
        if now.stable_id != self.facts.stable_id
            && !of_content(&now.stable_id)
            && !of_content(&self.facts.stable_id)
        {
            return Err(replaced(format!(
                "it calls itself {} now and was {}",
                now.stable_id, self.facts.stable_id
            )));
        }
        Ok(())
    }

    /// From a block on; past the end of the received disk nothing is read. `buffer`: page-aligned.
    pub fn read(&self, first_block: u64, buffer: &mut [u8]) -> Result<(), TargetError> {
        let offset = first_block * BLOCK;
        // Up to the end of its last block, where the device goes on: direct I/O takes no odd lengths.
        let end = self.needed.next_multiple_of(BLOCK).min(self.facts.size_bytes);
        let there = end.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let mut got = 0;
        while got < there {
            match self.file.read_at(&mut buffer[got..], offset + got as u64) {
                Ok(0) => return Err(self.failed("read", io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => got += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed("read", error)),
            }
        }
        Ok(())
    }

    /// Whole blocks from a block on; `scratch` takes them to an address that direct I/O accepts.
    pub fn write(
        &self,
        first_block: u64,
        data: &[u8],
        scratch: &mut AlignedBuffer,
    ) -> Result<(), TargetError> {
        let mut at = first_block * BLOCK;
        for part in data.chunks(scratch.len().min(WRITE_BYTES)) {
            let there = self.needed.saturating_sub(at).min(part.len() as u64) as usize;
            scratch[..part.len()].copy_from_slice(part);
            let mut len = there;
            if there < part.len() {
                // The received disk ends within this block. What lies behind on a larger disk is left alone.
                let tail = there - there % BLOCK_BYTES;
                if at + (tail + BLOCK_BYTES) as u64 <= self.facts.size_bytes {
                    let mut block = AlignedBuffer::new(BLOCK_BYTES).map_err(|e| self.failed("write", e))?;
                    self.file
                        .read_exact_at(&mut block, at + tail as u64)
                        .map_err(|e| self.failed("read", e))?;
                    scratch[there..tail + BLOCK_BYTES].copy_from_slice(&block[there - tail..]);
                    len = tail + BLOCK_BYTES;
                }
            }
            self.file
                .write_all_at(&scratch[..len], at)
                .map_err(|e| self.failed("write", e))?;
            at += part.len() as u64;
        }
        Ok(())
    }

    /// Zeros, without sending them where the disk can make them itself.
    pub fn write_zeroes(
        &self,
        first_block: u64,
        count: u64,
        scratch: &mut AlignedBuffer,
    ) -> Result<(), TargetError> {
        let begin = first_block * BLOCK;
        let end = ((first_block + count) * BLOCK).min(self.needed);
        let whole = (end - begin) / BLOCK * BLOCK;
        for flags in [
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
        ] {
            if whole == 0 {
                break;
            }
            if rustix::fs::fallocate(&self.file, flags, begin, whole).is_ok() {
                let rest = (end - begin) - whole;
                return if rest == 0 {
                    Ok(())
                } else {
                    self.write((begin + whole) / BLOCK, &[0; BLOCK_BYTES], scratch)
                };
            }
        }
        let zeros = vec![0; WRITE_BYTES];
        let mut block = first_block;
        while block < first_block + count {
            let part = (first_block + count - block).min((WRITE_BYTES / BLOCK_BYTES) as u64);
            self.write(block, &zeros[..part as usize * BLOCK_BYTES], scratch)?;
            block += part;
        }
        Ok(())
    }

    /// On return all that was written survives a power cut.
    pub fn sync(&self) -> Result<(), TargetError> {
        self.file.sync_data().map_err(|e| self.failed("make durable", e))
    }

    /// Lets the kernel see the partitions that are there now. What fails here costs a `partprobe`.
    pub fn reread_partitions(&self) {
        if self.is_block {
            const BLKRRPART: libc::c_ulong = 0x125f;
            let file = std::os::fd::AsRawFd::as_raw_fd(&self.file);
            // SAFETY: the call takes no argument, and the descriptor is open.
            let _ = unsafe { libc::ioctl(file, BLKRRPART) };
        }
    }

    fn failed(&self, action: &'static str, source: io::Error) -> TargetError {
        failed(action, &self.path, source)
    }
}

/// Which device it is, or which file.
fn number(meta: &std::fs::Metadata) -> (u64, u64) {
    if meta.file_type().is_block_device() {
        (meta.rdev(), 0)
    } else {
        (meta.dev(), meta.ino())
    }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> TargetError {
    TargetError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// Where the disk, a partition of it, or what is stacked upon it is mounted; the root first.
fn mount_points(disk: &Path) -> Vec<PathBuf> {
    let is_block = std::fs::metadata(disk).is_ok_and(|meta| meta.file_type().is_block_device());
    let mut points: Vec<PathBuf> = mounts::table()
        .into_iter()
        .filter(|(_, devices)| is_block && mounts::is_on(devices, disk))
        .map(|(point, _)| point)
        .collect();
    points.sort_by_key(|point| point.as_os_str().len());
    points
}

/// The loop device whose content this file is.
fn loop_device_of(file: &Path) -> Option<String> {
    let own = std::fs::canonicalize(file).ok()?;
    let entries = std::fs::read_dir("/sys/block").ok()?;
    entries.flatten().find_map(|entry| {
        let backing = std::fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
        (Path::new(backing.trim()) == own).then(|| entry.file_name().to_string_lossy().into_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(folder: &Path, bytes: &[u8]) -> PathBuf {
        let path = folder.join("disk.img");
        std::fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn what_lies_behind_the_received_disk_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        // The received disk ends within a block, the target is larger.
        for needed in [3 * BLOCK - 512, 2 * BLOCK + 512, 3 * BLOCK] {
            let path = image(folder.path(), &vec![7; 4 * BLOCK_BYTES]);
            let target = Target::open(&path, needed).unwrap();
            let mut scratch = AlignedBuffer::new(WRITE_BYTES).unwrap();
            target.write(1, &[9; 2 * BLOCK_BYTES], &mut scratch).unwrap();
            target.sync().unwrap();
            drop(target);
            let bytes = std::fs::read(&path).unwrap();
            let expected = |at: u64| if (BLOCK..needed).contains(&at) { 9 } else { 7 };
            assert!(
                (0..).zip(&bytes).all(|(at, byte)| *byte == expected(at)),
                "{needed}"
            );
            let target = Target::open(&path, needed).unwrap();
            target.write_zeroes(0, 3, &mut scratch).unwrap();
            drop(target);
            let bytes = std::fs::read(&path).unwrap();
            let expected = |at: u64| if at < needed { 0 } else { 7 };
            assert!(
                (0..).zip(&bytes).all(|(at, byte)| *byte == expected(at)),
                "{needed}"
            );
        }
    }

    #[test]
    fn a_file_with_an_odd_end_is_written_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = image(folder.path(), &[1; 5000]);
        let target = Target::open(&path, 5000).unwrap();
        let mut scratch = AlignedBuffer::new(WRITE_BYTES).unwrap();
        target.write(0, &[2; 2 * BLOCK_BYTES], &mut scratch).unwrap();
        let mut back = AlignedBuffer::new(2 * BLOCK_BYTES).unwrap();
        target.read(0, &mut back).unwrap();
        assert!(back[..5000].iter().all(|byte| *byte == 2));
        drop(target);
        assert_eq!(std::fs::read(&path).unwrap(), [2; 5000]);
    }

    #[test]
    fn what_cannot_be_written_is_refused_with_its_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = image(folder.path(), &[0; BLOCK_BYTES]);
        let missing = folder.path().join("none");
        assert!(matches!(Target::open(&missing, 1), Err(TargetError::Missing(_))));
        assert!(matches!(
            Target::open(folder.path(), 1),
            Err(TargetError::NotADisk(_))
        ));
        assert!(matches!(
            Target::open(&path, BLOCK + 1),
            Err(TargetError::TooSmall { .. })
        ));
        let first = Target::open(&path, BLOCK).unwrap();
        assert!(matches!(
            Target::open(&path, BLOCK),
            Err(TargetError::InUse { .. })
        ));
        first.check().unwrap();
        std::fs::write(&path, [0; 100]).unwrap();
        assert!(matches!(first.check(), Err(TargetError::Replaced { .. })));
        std::fs::write(&path, [0; BLOCK_BYTES]).unwrap();
        first.check().unwrap();
        let other = folder.path().join("other");
        std::fs::write(&other, [0; BLOCK_BYTES]).unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert!(matches!(first.check(), Err(TargetError::Replaced { .. })));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(first.check(), Err(TargetError::Replaced { .. })));
    }
}
