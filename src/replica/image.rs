//! A disk at one point, read-only. Newest layer that holds a block wins; what no layer holds is zero.
use super::ReplicaError;
use super::layer::Layer;
use super::layer_map::{LayerMap, Segment};
use crate::block::{BLOCK_BYTES, BlockRange, GRANULE_BYTES};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// Decompressed frames kept per image: enough for the read-ahead of a booting guest.
const CACHE_BYTES: usize = 32 << 20;

#[derive(Clone)]
pub struct Image(Arc<Inner>);

struct Inner {
    size_bytes: u64,
    /// In the order of time.
    chain: Vec<(Arc<LayerMap>, Arc<Layer>)>,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    frames: HashMap<(u64, u64), Arc<Vec<u8>>>,
    order: VecDeque<(u64, u64)>,
    bytes: usize,
}

/// Where the blocks of a range come from.
struct Part {
    range: BlockRange,
    /// Index into the chain, and the segment; None for zeros.
    source: Option<(usize, Segment)>,
}

impl Image {
    pub(super) fn new(size_bytes: u64, chain: Vec<(Arc<LayerMap>, Arc<Layer>)>) -> Self {
        Self(Arc::new(Inner {
            size_bytes,
            chain,
            cache: Mutex::default(),
        }))
    }

    pub fn size_bytes(&self) -> u64 {
        self.0.size_bytes
    }

    /// Any offset and length within the disk; past its end is an error.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReplicaError> {
        self.check(offset, buffer.len() as u64)?;
        let block_bytes = BLOCK_BYTES as u64;
        let first = offset / block_bytes;
        let end = (offset + buffer.len() as u64).div_ceil(block_bytes);
        for part in self.parts(BlockRange::new(first, end - first)) {
            // The part of the buffer that these blocks cover, and where it begins in them.
            let from = (part.range.first * block_bytes).max(offset);
            let to = (part.range.end() * block_bytes).min(offset + buffer.len() as u64);
            let target = &mut buffer[(from - offset) as usize..(to - offset) as usize];
            let raw_at = |segment: &Segment| {
                segment
                    .raw_block
                    .map(|raw| (raw * block_bytes + (from - part.range.first * block_bytes)) as usize)
            };
            match part
                .source
                .as_ref()
                .and_then(|(index, segment)| Some((index, segment, raw_at(segment)?)))
            {
                None => target.fill(0),
                Some((index, segment, at)) => {
                    let raw = self.frame(*index, segment.record)?;
                    let layer = &self.0.chain[*index].1;
                    let bytes = raw
                        .get(at..at + target.len())
                        .ok_or_else(|| ReplicaError::Corrupt {
                            object: layer.path.clone(),
                            offset: segment.record,
                            what: "the frame holds fewer bytes than its extents name".to_owned(),
                        })?;
                    target.copy_from_slice(bytes);
                }
            }
        }
        Ok(())
    }

    fn check(&self, offset: u64, len: u64) -> Result<(), ReplicaError> {
        if offset.checked_add(len).is_none_or(|end| end > self.0.size_bytes) {
            let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, "past the end of the disk");
            return Err(ReplicaError::io("read", std::path::Path::new("an image"), source));
        }
        Ok(())
    }

    /// Runs of (bytes, known to be zero) that cover the range; ends at the end of the disk.
    pub fn status(&self, offset: u64, len: u64) -> Result<Vec<(u64, bool)>, ReplicaError> {
        self.check(offset, len)?;
        let block_bytes = BLOCK_BYTES as u64;
        let first = offset / block_bytes;
        let end = (offset + len).div_ceil(block_bytes);
        let mut runs: Vec<(u64, bool)> = Vec::new();
        for part in self.parts(BlockRange::new(first, end - first)) {
            let from = (part.range.first * block_bytes).max(offset);
            let to = (part.range.end() * block_bytes).min(offset + len);
            let zero = part.source.is_none_or(|(_, segment)| segment.raw_block.is_none());
            match runs.last_mut() {
                Some(last) if last.1 == zero => last.0 += to - from,
                _ => runs.push((to - from, zero)),
            }
        }
        Ok(runs)
    }

    /// BLAKE3 of the 64 KiB granule, shorter at the end of the disk.
    pub fn granule_digest(&self, granule: u64) -> Result<[u8; 32], ReplicaError> {
        let offset = granule.saturating_mul(GRANULE_BYTES as u64);
        let len = self.0.size_bytes.saturating_sub(offset).min(GRANULE_BYTES as u64);
        let mut bytes = vec![0; len as usize];
        self.read_at(offset, &mut bytes)?;
        Ok(*blake3::hash(&bytes).as_bytes())
    }

    fn parts(&self, range: BlockRange) -> Vec<Part> {
        let mut parts = Vec::new();
        self.collect(range, self.0.chain.len(), &mut parts);
        parts
    }

    /// Asks the newest of the first `depth` layers, and for the gaps it leaves the ones below.
    fn collect(&self, range: BlockRange, depth: usize, parts: &mut Vec<Part>) {
        let Some(index) = depth.checked_sub(1) else {
            parts.push(Part { range, source: None });
            return;
        };
        self.0.chain[index].0.walk(range, |range, segment| match segment {
            Some(segment) => parts.push(Part {
                range,
                source: Some((index, segment)),
            }),
            None => self.collect(range, index, parts),
        });
    }

    fn frame(&self, index: usize, record: u64) -> Result<Arc<Vec<u8>>, ReplicaError> {
        let layer = &self.0.chain[index].1;
        let name = (layer.number, record);
        if let Some(raw) = self.cache().frames.get(&name) {
            return Ok(raw.clone());
        }
        let (frame, _, _) = layer.read_record(record)?;
        let raw = Arc::new(frame.decompress()?);
        let mut cache = self.cache();
        if cache.frames.insert(name, raw.clone()).is_none() {
            cache.bytes += raw.len();
            cache.order.push_back(name);
        }
        while cache.bytes > CACHE_BYTES {
            let Some(oldest) = cache.order.pop_front() else {
                break;
            };
            if let Some(gone) = cache.frames.remove(&oldest) {
                cache.bytes -= gone.len();
            }
        }
        Ok(raw)
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.0.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
