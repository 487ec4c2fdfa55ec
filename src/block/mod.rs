//! Nouns of the whole path: disks, ranges of blocks, sets of ranges, frames.
//!
//! Pure values: no I/O, no clock, no async. Everything else imports this module and it imports nothing.
mod extent_set;
mod frame;
mod id;

pub use extent_set::{BlockRange, ExtentSet};
pub use frame::{Frame, FrameBuilder, FrameError, FrameExtent};
pub use id::{DiskId, GroupPointId, IdError, MachineId, PointId};

use serde::{Deserialize, Serialize};

/// The unit of tracking, of extents and of copy-on-write: 4 KiB, the page and the common file system block.
pub const BLOCK_BYTES: usize = 4096;
/// The unit of comparison: one BLAKE3 hash for 64 KiB keeps the hashes of a 1 TiB disk at 512 MiB of wire.
pub const GRANULE_BYTES: usize = 65536;
/// Most raw bytes in one frame. Larger frames compress little better and make a random read dearer.
pub const FRAME_RAW_BYTES_MAX: usize = 256 * 1024;
/// Most stored bytes of one frame: header, extents and digests at their limits, and a payload that did not shrink.
pub const FRAME_STORED_BYTES_MAX: usize = 512 * 1024;

/// What a recovery point may promise. Ordered from the weakest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Consistency {
    /// Blocks of more than one instant: kept as latest data only, never offered as better.
    Fuzzy,
    /// What a power cut would leave: file systems were frozen, or the medium was provably quiet.
    CrashConsistent,
    /// As crash-consistent, and the applications were told to be quiet before.
    AppConsistent,
}

impl std::fmt::Display for Consistency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Fuzzy => "Fuzzy",
            Self::CrashConsistent => "CrashConsistent",
            Self::AppConsistent => "AppConsistent",
        })
    }
}

impl std::str::FromStr for Consistency {
    type Err = UnknownConsistency;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "Fuzzy" => Ok(Self::Fuzzy),
            "CrashConsistent" => Ok(Self::CrashConsistent),
            "AppConsistent" => Ok(Self::AppConsistent),
            _ => Err(UnknownConsistency),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("a consistency is Fuzzy, CrashConsistent or AppConsistent")]
pub struct UnknownConsistency;
