//! Reading a disk past the page cache: the cache of the device does not see what a file system writes.
use super::CaptureError;
use crate::block::BLOCK_BYTES;
use std::fs::File;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Memory that direct I/O accepts.
pub struct AlignedBuffer(memmap2::MmapMut);

impl AlignedBuffer {
    pub fn new(len: usize) -> std::io::Result<Self> {
        let mut map = memmap2::MmapMut::map_anon(len)?;
        // Touched and kept now: while file systems are frozen there is no time to find pages, and finding them
        // could wait for a frozen one. Not being allowed to lock is no reason to stop.
        map.fill(0);
        let _ = map.lock();
        Ok(Self(map))
    }
}

impl std::ops::Deref for AlignedBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl std::ops::DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// A disk or an image file, open for reading.
pub struct DiskReader {
    file: File,
    path: PathBuf,
    size_bytes: u64,
    name: (u64, u64),
}

/// What tells a disk from one that took its place under the same path: device number and the kernel's disk sequence number,
/// or file system and inode.
fn name_of(meta: &std::fs::Metadata) -> (u64, u64) {
    if !meta.file_type().is_block_device() {
        return (meta.dev(), meta.ino());
    }
    let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    // Partitions and old kernels have none.
    let sequence = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/diskseq"));
    let sequence = sequence.ok().and_then(|text| text.trim().parse().ok());
    (meta.rdev(), sequence.unwrap_or(0))
}

fn size_of(file: &File) -> std::io::Result<u64> {
    Ok(rustix::fs::seek(file, rustix::fs::SeekFrom::End(0))?)
}

impl DiskReader {
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let failed = |action, source| CaptureError::Io {
            action,
            object: path.to_owned(),
            source,
        };
        let open = |flags| {
            File::options()
                .read(true)
                .custom_flags(flags | libc::O_CLOEXEC)
                .open(path)
        };
        let file = match open(libc::O_DIRECT) {
            // A file system without direct I/O; a disk always has it.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => open(0),
            other => other,
        }
        .map_err(|e| failed("open", e))?;
        let size_bytes = size_of(&file).map_err(|e| failed("measure", e))?;
        let name = name_of(&file.metadata().map_err(|e| failed("measure", e))?);
        Ok(Self {
            file,
            path: path.to_owned(),
            size_bytes,
            name,
        })
    }

    /// Whether what is at the path now is what was opened. A disk that was taken away answers no read that nobody makes, and
    /// one that has grown may hold a file system that reaches past the end that is known here.
    pub fn check(&self) -> Result<(), CaptureError> {
        let there = std::fs::metadata(&self.path).map(|meta| name_of(&meta));
        if !there.is_ok_and(|name| name == self.name) {
            return Err(CaptureError::Replaced(self.path.clone()));
        }
        let now = size_of(&self.file).map_err(|source| self.failed(source))?;
        if now != self.size_bytes {
            return Err(CaptureError::SizeChanged {
                object: self.path.clone(),
                before: self.size_bytes,
                now,
            });
        }
        Ok(())
    }

    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Whole blocks from `first_block` on into page-aligned memory; zeros past the end of the disk.
    pub fn read(&self, first_block: u64, buffer: &mut [u8]) -> Result<(), CaptureError> {
        self.read_into(first_block, buffer)
            .map_err(|source| self.failed(source))
    }

    /// Writes out what the cache of the device holds. What fails here shows in the reads.
    pub fn sync(&self) {
        let _ = self.file.sync_data();
    }

    /// A failed read as what a person may read.
    pub fn failed(&self, source: std::io::Error) -> CaptureError {
        CaptureError::Io {
            action: "read",
            object: self.path.clone(),
            source,
        }
    }

    /// As [`read`](Self::read), with an error that is made without allocating.
    pub(super) fn read_into(&self, first_block: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        let offset = first_block * BLOCK_BYTES as u64;
        let there = self.size_bytes.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let mut got = 0;
        while got < there {
            // Whole blocks are asked for also at the end: direct I/O takes no other lengths, and gives what there is.
            match self.file.read_at(&mut buffer[got..], offset + got as u64) {
                Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => got += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        buffer[there..].fill(0);
        Ok(())
    }
}
