//! The frame: what one read of a protected disk becomes, and what stays unchanged into the layer file.
//!
//! Made once on the protected machine, sent, encrypted and stored as it is. Its bytes are given in
//! `proto/replica-format.md`, section Frame. A frame is parsed with limits before anything is allocated:
//! a peer's bytes may say anything.
use super::{BLOCK_BYTES, BlockRange, FRAME_RAW_BYTES_MAX, FRAME_STORED_BYTES_MAX};
use bytes::{Bytes, BytesMut};

const MAGIC: [u8; 4] = *b"LBFR";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 24;
const EXTENT_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 16;
const ZERO_FLAG: u32 = 1;
/// Extents in one frame: every second block of the raw bytes, and as many zero runs between them, and a few.
const EXTENTS_MAX: usize = 1024;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("the frame is cut short: {found} bytes where {expected} are needed")]
    Short { expected: usize, found: usize },
    #[error("these bytes are not a frame")]
    Magic,
    #[error("frame version {0} is not known to this version")]
    Version(u16),
    #[error("the frame breaks a limit: {0}")]
    Limit(&'static str),
    #[error("the checksum of the frame does not match its bytes")]
    Checksum,
    #[error("the payload of the frame does not decompress to the length it names")]
    Payload,
}

/// A run of blocks in a frame. `zero`: named only, no bytes in the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameExtent {
    pub first: u64,
    pub count: u32,
    pub zero: bool,
}

impl FrameExtent {
    pub fn range(&self) -> BlockRange {
        BlockRange {
            first: self.first,
            count: u64::from(self.count),
        }
    }
}

/// Collects sorted runs of blocks until the frame is full.
#[derive(Default)]
pub struct FrameBuilder {
    extents: Vec<FrameExtent>,
    raw: Vec<u8>,
}

impl FrameBuilder {
    pub fn new() -> Self {
        Self::default()
    }

    /// Room left, in blocks of data. A caller pushes at most this many blocks.
    pub fn room_blocks(&self) -> usize {
        // A block may need an extent of its own and one for zeros before it.
        let by_extents = (EXTENTS_MAX - self.extents.len().min(EXTENTS_MAX)) / 2;
        ((FRAME_RAW_BYTES_MAX - self.raw.len()) / BLOCK_BYTES).min(by_extents)
    }

    pub fn is_full(&self) -> bool {
        self.room_blocks() == 0
    }

    pub fn is_empty(&self) -> bool {
        self.extents.is_empty()
    }

    pub fn raw_bytes(&self) -> usize {
        self.raw.len()
    }

    /// Adds the blocks of `data`, a multiple of 4 KiB long, from block `first` on; blocks of zeros are only named.
    ///
    /// # Panics
    /// When `data` is not whole blocks, exceeds [`room_blocks`](Self::room_blocks), or `first` lies before what
    /// was pushed last: errors of the caller, never of input.
    pub fn push(&mut self, first: u64, data: &[u8]) {
        assert!(data.len().is_multiple_of(BLOCK_BYTES) && data.len() / BLOCK_BYTES <= self.room_blocks());
        for (index, block) in data.chunks_exact(BLOCK_BYTES).enumerate() {
            let zero = is_zero(block);
            self.extend(first + index as u64, 1, zero);
            if !zero {
                self.raw.extend_from_slice(block);
            }
        }
    }

    /// Names blocks that are known to be zero without reading them.
    pub fn push_zero(&mut self, range: BlockRange) {
        let mut at = range.first;
        while at < range.end() {
            let count = (range.end() - at).min(u64::from(u32::MAX)) as u32;
            self.extend(at, count, true);
            at += u64::from(count);
        }
    }

    fn extend(&mut self, first: u64, count: u32, zero: bool) {
        if let Some(last) = self.extents.last_mut() {
            assert!(last.range().end() <= first, "frames hold sorted extents");
            if last.zero == zero && last.range().end() == first && last.count.checked_add(count).is_some() {
                last.count += count;
                return;
            }
        }
        self.extents.push(FrameExtent { first, count, zero });
    }

    /// The bytes of the frame, the payload compressed with this zstd level, or as it is when that is shorter.
    pub fn finish(self, level: i32) -> std::io::Result<Bytes> {
        self.finish_with(&mut zstd::bulk::Compressor::new(level)?)
    }

    /// As [`finish`](Self::finish); a compressor that is used again saves making its tables anew.
    pub fn finish_with(self, compressor: &mut zstd::bulk::Compressor) -> std::io::Result<Bytes> {
        let packed = if self.raw.is_empty() {
            Vec::new()
        } else {
            compressor.compress(&self.raw)?
        };
        let (payload, stored_raw) = if packed.len() < self.raw.len() {
            (&packed, 0u16)
        } else {
            (&self.raw, 1u16)
        };
        let total = HEADER_BYTES + self.extents.len() * EXTENT_BYTES + payload.len() + CHECKSUM_BYTES;
        let mut out = BytesMut::with_capacity(total);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&stored_raw.to_le_bytes());
        out.extend_from_slice(&(self.extents.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.raw.len() as u32).to_le_bytes());
        out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        out.extend_from_slice(&0u32.to_le_bytes());
        for extent in &self.extents {
            out.extend_from_slice(&extent.first.to_le_bytes());
            out.extend_from_slice(&extent.count.to_le_bytes());
            out.extend_from_slice(&(if extent.zero { ZERO_FLAG } else { 0 }).to_le_bytes());
        }
        out.extend_from_slice(payload);
        let checksum = checksum(&out);
        out.extend_from_slice(&checksum);
        Ok(out.freeze())
    }
}

fn is_zero(block: &[u8]) -> bool {
    // The comparison of memory is fast also in a build that is not optimized.
    static ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];
    *block == ZEROS
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut short = [0; CHECKSUM_BYTES];
    short.copy_from_slice(&blake3::hash(bytes).as_bytes()[..CHECKSUM_BYTES]);
    short
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// A frame whose header, extents and checksum were found right.
#[derive(Clone, Debug)]
pub struct Frame {
    bytes: Bytes,
    extents: Vec<FrameExtent>,
    raw_bytes: usize,
    payload: std::ops::Range<usize>,
    stored_raw: bool,
}

impl Frame {
    pub fn parse(bytes: Bytes) -> Result<Self, FrameError> {
        let found = bytes.len();
        if found > FRAME_STORED_BYTES_MAX {
            return Err(FrameError::Limit("a frame has at most 512 KiB"));
        }
        if found < HEADER_BYTES + CHECKSUM_BYTES {
            return Err(FrameError::Short {
                expected: HEADER_BYTES + CHECKSUM_BYTES,
                found,
            });
        }
        if bytes[..4] != MAGIC {
            return Err(FrameError::Magic);
        }
        let version = u16::from_le_bytes([bytes[4], bytes[5]]);
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        let flags = u16::from_le_bytes([bytes[6], bytes[7]]);
        if flags > 1 || u32_at(&bytes, 20) != 0 {
            return Err(FrameError::Limit("unknown flags are set"));
        }
        let extents_count = u32_at(&bytes, 8) as usize;
        let raw_bytes = u32_at(&bytes, 12) as usize;
        let payload_bytes = u32_at(&bytes, 16) as usize;
        if extents_count > EXTENTS_MAX || raw_bytes > FRAME_RAW_BYTES_MAX || payload_bytes > raw_bytes {
            return Err(FrameError::Limit("extents, raw bytes or payload are too many"));
        }
        let payload_at = HEADER_BYTES + extents_count * EXTENT_BYTES;
        let expected = payload_at + payload_bytes + CHECKSUM_BYTES;
        if found != expected {
            return Err(FrameError::Short { expected, found });
        }
        if checksum(&bytes[..found - CHECKSUM_BYTES]) != bytes[found - CHECKSUM_BYTES..] {
            return Err(FrameError::Checksum);
        }
        let mut extents = Vec::with_capacity(extents_count);
        let (mut last_end, mut data_blocks) = (0u64, 0u64);
        for index in 0..extents_count {
            let at = HEADER_BYTES + index * EXTENT_BYTES;
            let (first, count, flags) = (
                u64_at(&bytes, at),
                u32_at(&bytes, at + 8),
                u32_at(&bytes, at + 12),
            );
            let end = first
                .checked_add(u64::from(count))
                .ok_or(FrameError::Limit("an extent ends past 2^64"))?;
            if count == 0 || flags & !ZERO_FLAG != 0 || first < last_end {
                return Err(FrameError::Limit(
                    "extents are empty, unsorted or of unknown kind",
                ));
            }
            last_end = end;
            let zero = flags == ZERO_FLAG;
            data_blocks += if zero { 0 } else { u64::from(count) };
            extents.push(FrameExtent { first, count, zero });
        }
        let stored_raw = flags == 1;
        if data_blocks * BLOCK_BYTES as u64 != raw_bytes as u64 || stored_raw && payload_bytes != raw_bytes {
            return Err(FrameError::Limit("extents and payload differ in length"));
        }
        Ok(Self {
            bytes,
            extents,
            raw_bytes,
            payload: payload_at..payload_at + payload_bytes,
            stored_raw,
        })
    }

    /// Sorted and disjoint.
    pub fn extents(&self) -> &[FrameExtent] {
        &self.extents
    }

    /// The block after the last one this frame speaks of.
    pub fn end_block(&self) -> u64 {
        self.extents.last().map_or(0, |extent| extent.range().end())
    }

    pub fn raw_bytes(&self) -> usize {
        self.raw_bytes
    }

    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The blocks of all extents that are not zero, one after the other.
    pub fn decompress(&self) -> Result<Vec<u8>, FrameError> {
        let payload = &self.bytes[self.payload.clone()];
        if self.stored_raw || self.raw_bytes == 0 {
            return Ok(payload.to_vec());
        }
        match zstd::bulk::decompress(payload, self.raw_bytes) {
            Ok(raw) if raw.len() == self.raw_bytes => Ok(raw),
            _ => Err(FrameError::Payload),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(blocks: &[(u64, u8)]) -> Bytes {
        let mut builder = FrameBuilder::new();
        for &(block, byte) in blocks {
            builder.push(block, &[byte; BLOCK_BYTES]);
        }
        builder.finish(1).unwrap()
    }

    #[test]
    fn zero_blocks_are_named_and_not_carried() {
        let parsed = Frame::parse(frame(&[(3, 1), (4, 0), (5, 0), (6, 2)])).unwrap();
        let kinds: Vec<_> = parsed
            .extents()
            .iter()
            .map(|e| (e.first, e.count, e.zero))
            .collect();
        assert_eq!(kinds, [(3, 1, false), (4, 2, true), (6, 1, false)]);
        let raw = parsed.decompress().unwrap();
        assert!(raw[..BLOCK_BYTES].iter().all(|&b| b == 1) && raw[BLOCK_BYTES..].iter().all(|&b| b == 2));
    }

    #[test]
    fn a_full_builder_says_so_before_it_breaks_a_limit() {
        let mut builder = FrameBuilder::new();
        let mut block = 0;
        while !builder.is_full() {
            builder.push(block, &[9; BLOCK_BYTES]);
            block += 2;
        }
        assert_eq!(builder.raw_bytes(), FRAME_RAW_BYTES_MAX);
        Frame::parse(builder.finish(1).unwrap()).unwrap();
        let mut zeros = FrameBuilder::new();
        zeros.push_zero(BlockRange::new(0, 1 << 34));
        let parsed = Frame::parse(zeros.finish(1).unwrap()).unwrap();
        assert_eq!(parsed.end_block(), 1 << 34);
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let good = frame(&[(1, 7), (2, 0), (9, 8)]);
        for at in 0..good.len() {
            let mut bad = good.to_vec();
            bad[at] ^= 0x40;
            assert!(
                Frame::parse(bad.into()).is_err(),
                "byte {at} was changed unnoticed"
            );
        }
        for len in 0..good.len() {
            assert!(Frame::parse(good.slice(..len)).is_err());
        }
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(blocks in prop::collection::btree_map(0u64..5000, 0u8..4, 1..60)) {
            let blocks: Vec<_> = blocks.into_iter().collect();
            let parsed = Frame::parse(frame(&blocks)).unwrap();
            let raw = parsed.decompress().unwrap();
            let mut data = raw.chunks_exact(BLOCK_BYTES);
            let mut found = Vec::new();
            for extent in parsed.extents() {
                for block in extent.first..extent.range().end() {
                    found.push((block, if extent.zero { 0 } else { data.next().unwrap()[0] }));
                }
            }
            prop_assert_eq!(found, blocks);
        }

        #[test]
        fn any_bytes_are_parsed_without_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300), seal in any::<bool>()) {
            if seal && bytes.len() > 40 {
                // A right checksum, so that the limits behind it are reached.
                bytes[..6].copy_from_slice(&[b'L', b'B', b'F', b'R', 1, 0]);
                bytes[6..8].copy_from_slice(&[0, 0]);
                let end = bytes.len() - CHECKSUM_BYTES;
                let sum = checksum(&bytes[..end]);
                bytes[end..].copy_from_slice(&sum);
            }
            if let Ok(frame) = Frame::parse(bytes.into()) {
                let _ = frame.decompress();
            }
        }
    }
}
