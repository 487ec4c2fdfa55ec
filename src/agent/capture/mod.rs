//! Which blocks of a disk changed.
//!
//! First on the block's way. Taking bits moves them to a second, pinned set; they leave it only when what was
//! read for them is durable at the target. An agent that is killed or restarted therefore misses nothing, and a
//! backlog costs bits, not data, however large it gets.
mod batch;
mod bits;
mod ebpf;
mod reader;
mod scan;

pub use batch::{Batch, ReadError};
pub use bits::outside;
pub use ebpf::{EbpfSource, forget, is_available};
pub use reader::{AlignedBuffer, DiskReader};
pub use scan::ScanSource;

use crate::block::{BlockRange, PointId};
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    #[error("cannot {action} {object}")]
    Io {
        action: &'static str,
        object: PathBuf,
        source: std::io::Error,
    },
    #[error("change tracking by eBPF is not available")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("{0} is not a whole disk; only whole disks can be tracked")]
    NotADisk(PathBuf),
    #[error("{object} has {now} bytes and had {before} when it was opened")]
    SizeChanged { object: PathBuf, before: u64, now: u64 },
    #[error("{0} is gone, or is another disk than when it was opened")]
    Replaced(PathBuf),
}

impl CaptureError {
    /// It is not the disk that was opened: who opens it anew learns what it is.
    pub fn is_other_disk(&self) -> bool {
        matches!(self, Self::SizeChanged { .. } | Self::Replaced(_))
    }
}

/// How a disk is tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureKind {
    Ebpf,
    Scan,
}

impl std::fmt::Display for CaptureKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ebpf => "ebpf",
            Self::Scan => "scan",
        })
    }
}

/// Tracks one disk. What is called while file systems are frozen (`take`, `is_quiet`, `next_pending`) neither
/// allocates nor touches a file system.
pub trait ChangeSource: Send {
    fn kind(&self) -> CaptureKind;
    /// Moves what changed since the last call to what is pending. True: no write is on its way at this moment.
    fn take(&mut self) -> bool;
    /// Nothing was written since the last [`take`](Self::take), nor begun to be written, outside of these sorted
    /// ranges. Only a source that knows it says so.
    fn is_quiet(&self, except: &[BlockRange]) -> bool;
    /// The first range at or after block `from` that was taken and not acknowledged, also by an agent before this
    /// one; at most `blocks_max` blocks.
    fn next_pending(&self, from: u64, blocks_max: u64) -> Option<BlockRange>;
    /// Taken and not acknowledged, and changed and not taken, in blocks.
    fn backlog_blocks(&self) -> u64;
    /// Adds blocks to what is pending.
    fn mark(&mut self, range: BlockRange);
    /// What was read for these blocks is durable at the target. Nothing may be taken between reading and this.
    fn acknowledge(&mut self, range: BlockRange);
    /// True: what changed is not known (tracking began, other disk, reboot, doubt), so everything must be compared
    /// with the target.
    fn was_lost(&self) -> bool;
    /// True: since [`doubt`](Self::doubt) or [`compared`](Self::compared) changes happened that were not tracked.
    fn has_gaps(&self) -> bool;
    /// This point was sealed and holds the whole disk: from here on the bits tell everything.
    fn compared(&mut self, point: PointId);
    /// [`PointId::mark`] of the last one told to [`compared`](Self::compared); 0: none. A target that does not hold that
    /// point any more has lost what was acknowledged.
    fn last_point(&self) -> u64;
    /// Makes [`was_lost`](Self::was_lost) true, until a comparison that begins after this has ended in a point.
    fn doubt(&mut self);
    /// Ends the tracking for good.
    fn forget(self: Box<Self>);
}
