//! Which blocks of a disk changed.
//!
//! First on the block's way. Taking bits moves them to a second, pinned set; they leave it only when what was
//! read for them is durable at the target. An agent that is killed or restarted therefore misses nothing, and a
//! backlog costs bits, not data.
mod ebpf;
mod reader;

pub use ebpf::{EbpfSource, forget, is_available};
pub use reader::{AlignedBuffer, DiskReader};

use crate::block::ExtentSet;
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
    #[error("{0} is not tracked by requests (device mapper, md, zram): it cannot be protected online yet")]
    NotRequestBased(PathBuf),
}

/// Tracks one disk.
pub trait ChangeSource: Send {
    /// Takes what changed since the last call into `set`, and remembers it as pending.
    fn drain(&mut self, set: &mut ExtentSet);
    /// For a disk whose file systems are frozen: also takes requests whose completion no program saw.
    fn settle(&mut self, set: &mut ExtentSet);
    /// Taken and not acknowledged, also by an agent before this one.
    fn pending(&self) -> ExtentSet;
    /// What was read for these blocks is durable at the target.
    fn acknowledge(&mut self, set: &ExtentSet);
    /// True: changes before tracking began are unknown (first attach, other disk, reboot) and no point was sealed
    /// since, so everything must be compared with the target.
    fn was_lost(&self) -> bool;
    /// A point was sealed that holds the whole disk: from here on the bits tell everything.
    fn compared(&mut self);
}
