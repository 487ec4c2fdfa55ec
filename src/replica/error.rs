//! What can go wrong in the store, and what the caller may do about it.
use crate::block::{DiskId, FrameError, MachineId, PointId};
use std::path::PathBuf;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    Retry,
    Refuse,
    Corrupt,
}

#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    #[error("no space left in the replica store while writing {object}")]
    Full { object: PathBuf },
    #[error("cannot {action} {object}")]
    Io {
        action: &'static str,
        object: PathBuf,
        source: std::io::Error,
    },
    #[error("{object} is damaged at offset {offset}: {what}")]
    Corrupt {
        object: PathBuf,
        offset: u64,
        what: String,
    },
    #[error("a newer session writes machine {machine}; generation {generation} is fenced off")]
    Fenced { machine: MachineId, generation: u64 },
    #[error("machine {0} is not in this store")]
    NoMachine(MachineId),
    #[error("disk {0} is not a disk of this machine")]
    NoDisk(DiskId),
    #[error("recovery point {0} does not exist, or retention has removed it")]
    NoPoint(PointId),
    #[error(
        "disk {disk} has {known} bytes in the store and {given} bytes now; it must be replicated as a new disk"
    )]
    SizeChanged { disk: DiskId, known: u64, given: u64 },
    #[error("the frame reaches past the end of disk {0}")]
    OutOfDisk(DiskId),
    #[error("a frame is not valid")]
    Frame(#[from] FrameError),
    #[error("the vault key does not open this store")]
    WrongKey,
    #[error("another process has the store {0} open for writing")]
    Locked(PathBuf),
    #[error("the store was opened for reading only")]
    ReadOnly,
    #[error("this writer failed before; begin a new one")]
    WriterFailed,
}

impl ReplicaError {
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Full { .. } | Self::Io { .. } | Self::WriterFailed => Disposition::Retry,
            Self::Corrupt { .. } => Disposition::Corrupt,
            _ => Disposition::Refuse,
        }
    }

    pub(super) fn io(action: &'static str, object: &std::path::Path, source: std::io::Error) -> Self {
        if source.kind() == std::io::ErrorKind::StorageFull
            || source.kind() == std::io::ErrorKind::QuotaExceeded
        {
            return Self::Full {
                object: object.to_owned(),
            };
        }
        Self::Io {
            action,
            object: object.to_owned(),
            source,
        }
    }
}
