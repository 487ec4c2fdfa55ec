//! What the store holds, as a disk: images, branches over them, and the NBD server that hands them out.
//!
//! On the block's way between the replica store and the machine that is started. Nothing here changes the
//! store: a branch keeps what is written in files of its own.
mod branch;
mod convert;
pub mod nbd;

pub use branch::Branch;
pub use convert::to_raw;

use crate::replica::{Image, ReplicaError};
use std::io;

/// A disk by the byte. Offsets and lengths lie within [`size_bytes`](Self::size_bytes), else `InvalidInput`.
/// Safe to call from many threads; a read that overlaps a write sees each 4 KiB block before or after it.
pub trait BlockDevice: Send + Sync {
    fn size_bytes(&self) -> u64;
    fn read_only(&self) -> bool;
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    fn write_zeroes(&self, offset: u64, len: u64) -> io::Result<()>;
    /// On return everything written before survives a power cut.
    fn flush(&self) -> io::Result<()>;
    /// Runs of (bytes, known to be zero) that cover the range.
    fn status(&self, offset: u64, len: u64) -> io::Result<Vec<(u64, bool)>>;
}

fn as_io(error: ReplicaError) -> io::Error {
    match error {
        ReplicaError::Io { source, .. } => source,
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "a recovery point is read-only")
}

impl BlockDevice for Image {
    fn size_bytes(&self) -> u64 {
        Image::size_bytes(self)
    }

    fn read_only(&self) -> bool {
        true
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        Image::read_at(self, offset, buffer).map_err(as_io)
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(refused())
    }

    fn write_zeroes(&self, _: u64, _: u64) -> io::Result<()> {
        Err(refused())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn status(&self, offset: u64, len: u64) -> io::Result<Vec<(u64, bool)>> {
        Image::status(self, offset, len).map_err(as_io)
    }
}
