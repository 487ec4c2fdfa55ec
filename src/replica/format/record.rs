//! Header of a layer and of a record in it (spec: Layer).
use crate::block::{DiskId, FRAME_STORED_BYTES_MAX};

pub const LAYER_HEADER_BYTES: usize = 80;
pub const RECORD_HEADER_BYTES: usize = 16;
/// AES-GCM's tag.
pub const TAG_BYTES: usize = 16;
const LAYER_MAGIC: [u8; 4] = *b"LBLY";
const RECORD_MAGIC: [u8; 4] = *b"LBRC";

pub struct LayerHeader {
    pub disk: DiskId,
    pub number: u64,
    pub salt: [u8; 32],
}

impl LayerHeader {
    pub fn encode(&self) -> [u8; LAYER_HEADER_BYTES] {
        let mut bytes = [0; LAYER_HEADER_BYTES];
        bytes[..4].copy_from_slice(&LAYER_MAGIC);
        bytes[4..8].copy_from_slice(&1u32.to_le_bytes());
        bytes[8..24].copy_from_slice(self.disk.as_bytes());
        bytes[24..32].copy_from_slice(&self.number.to_le_bytes());
        bytes[32..64].copy_from_slice(&self.salt);
        let sum = blake3::hash(&bytes[..64]);
        bytes[64..].copy_from_slice(&sum.as_bytes()[..16]);
        bytes
    }

    pub fn decode(bytes: &[u8; LAYER_HEADER_BYTES]) -> Result<Self, &'static str> {
        if bytes[..4] != LAYER_MAGIC {
            return Err("not a layer");
        }
        if bytes[4..8] != 1u32.to_le_bytes() {
            return Err("a layer version that is not known to this version");
        }
        if blake3::hash(&bytes[..64]).as_bytes()[..16] != bytes[64..] {
            return Err("the header's checksum does not match");
        }
        let mut salt = [0; 32];
        salt.copy_from_slice(&bytes[32..64]);
        let mut number = [0; 8];
        number.copy_from_slice(&bytes[24..32]);
        let disk = DiskId::from_slice(&bytes[8..24]).map_err(|_| "no disk id")?;
        Ok(Self {
            disk,
            number: u64::from_le_bytes(number),
            salt,
        })
    }
}

pub struct RecordHeader {
    pub sealed_bytes: u32,
    pub counter: u64,
}

impl RecordHeader {
    pub fn encode(&self) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        bytes[..4].copy_from_slice(&RECORD_MAGIC);
        bytes[4..8].copy_from_slice(&self.sealed_bytes.to_le_bytes());
        bytes[8..].copy_from_slice(&self.counter.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8; RECORD_HEADER_BYTES]) -> Result<Self, &'static str> {
        if bytes[..4] != RECORD_MAGIC {
            return Err("not a record");
        }
        let sealed_bytes = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        if sealed_bytes as usize > FRAME_STORED_BYTES_MAX + TAG_BYTES || (sealed_bytes as usize) < TAG_BYTES {
            return Err("a record of impossible length");
        }
        let mut counter = [0; 8];
        counter.copy_from_slice(&bytes[8..]);
        Ok(Self {
            sealed_bytes,
            counter: u64::from_le_bytes(counter),
        })
    }
}
