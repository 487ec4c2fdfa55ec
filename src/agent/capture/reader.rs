//! Reading a disk past the page cache: the cache of the device does not see what a file system writes.
use super::CaptureError;
use crate::block::BLOCK_BYTES;
use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Memory that direct I/O accepts.
pub struct AlignedBuffer(memmap2::MmapMut);

impl AlignedBuffer {
    pub fn new(len: usize) -> std::io::Result<Self> {
        let mut map = memmap2::MmapMut::map_anon(len)?;
        // Touched now: while file systems are frozen there is no time to find pages.
        map.fill(0);
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

pub struct DiskReader {
    file: File,
    path: PathBuf,
    size_bytes: u64,
}

impl DiskReader {
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let failed = |action, source| CaptureError::Io {
            action,
            object: path.to_owned(),
            source,
        };
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_DIRECT | libc::O_CLOEXEC)
            .open(path)
            .map_err(|e| failed("open", e))?;
        let size_bytes =
            rustix::fs::seek(&file, rustix::fs::SeekFrom::End(0)).map_err(|e| failed("measure", e.into()))?;
        Ok(Self {
            file,
            path: path.to_owned(),
            size_bytes,
        })
    }

    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whole blocks from `first_block` on into page-aligned memory; zeros past the end of the disk.
    pub fn read(&self, first_block: u64, buffer: &mut [u8]) -> Result<(), CaptureError> {
        let offset = first_block * BLOCK_BYTES as u64;
        let there = self.size_bytes.saturating_sub(offset).min(buffer.len() as u64) as usize;
        buffer[there..].fill(0);
        self.file
            .read_exact_at(&mut buffer[..there], offset)
            .map_err(|source| CaptureError::Io {
                action: "read",
                object: self.path.clone(),
                source,
            })
    }
}
