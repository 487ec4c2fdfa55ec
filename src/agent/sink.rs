//! Where frames go: a store in this process, or a process server over the network.
use crate::block::{DiskId, PointId};
use crate::replica::{MachineWriter, PointSpec, ReplicaError, SharedMark};
use bytes::Bytes;

/// Most digests in one question; keeps the question under the limit of a message.
pub const DIGESTS_MAX: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub enum ShipError {
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// The target said no; trying again without a change does not help.
    #[error("{message}")]
    Refused {
        code: String,
        message: String,
        causes: String,
        action: String,
    },
    /// Nothing is lost: what was not acknowledged is still marked as changed.
    #[error("the connection to the target ended: {0}")]
    Disconnected(String),
    #[error("cancelled")]
    Cancelled,
}

/// Takes the frames of one machine, in order.
pub trait Sink {
    fn append(&mut self, disk: DiskId, frame: Bytes) -> Result<(), ShipError>;
    /// On return all that was appended is durable at the target.
    fn flush(&mut self) -> Result<(), ShipError>;
    /// Everything appended so far becomes a recovery point. `changed_bytes`: raw bytes shipped for it.
    fn seal(&mut self, spec: PointSpec, changed_bytes: u64) -> Result<PointId, ShipError>;
    /// The next point that is sealed is shared with other machines. A place without other machines forgets it.
    fn share(&mut self, _shared: SharedMark) {}
    /// Which of these 64 KiB granules differ at the target, given what they should hold: BLAKE3 of each, from
    /// `first_granule` on, at most [`DIGESTS_MAX`]. None where the target holds nothing of the disk: then everything
    /// is shipped without asking again.
    fn compare(
        &mut self,
        disk: DiskId,
        first_granule: u64,
        digests: &[[u8; 32]],
    ) -> Result<Option<Vec<bool>>, ShipError>;
}

impl Sink for MachineWriter {
    fn append(&mut self, disk: DiskId, frame: Bytes) -> Result<(), ShipError> {
        Ok(MachineWriter::append(self, disk, frame)?)
    }

    fn flush(&mut self) -> Result<(), ShipError> {
        Ok(MachineWriter::flush(self)?)
    }

    fn seal(&mut self, spec: PointSpec, _changed_bytes: u64) -> Result<PointId, ShipError> {
        Ok(MachineWriter::seal(self, spec)?)
    }

    fn compare(
        &mut self,
        disk: DiskId,
        first_granule: u64,
        digests: &[[u8; 32]],
    ) -> Result<Option<Vec<bool>>, ShipError> {
        if !self.has_data(disk)? {
            return Ok(None);
        }
        let image = self.latest(disk)?;
        let differing: Result<Vec<bool>, ReplicaError> = (first_granule..)
            .zip(digests)
            .map(|(granule, digest)| Ok(image.granule_digest(granule)? != *digest))
            .collect();
        Ok(Some(differing?))
    }
}
