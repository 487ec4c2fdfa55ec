//! One layer: an append log of encrypted frames of one disk, and the index of what is where in it.
//!
//! The index lives in memory and is built from the frames themselves; a crash can therefore never leave an
//! index that disagrees with the data.
use super::ReplicaError;
use super::format::record::{LAYER_HEADER_BYTES, LayerHeader, RECORD_HEADER_BYTES, RecordHeader, TAG_BYTES};
use super::keys::{DataKey, LayerKey, new_salt};
use super::layer_map::LayerMap;
use super::storage::Storage;
use crate::block::{DiskId, ExtentSet, Frame};
use bytes::Bytes;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Where one frame stands in a layer, and what it speaks of.
#[derive(Clone, Debug)]
pub(super) struct IndexEntry {
    pub offset: u64,
    pub end: u64,
    pub extents: Vec<crate::block::FrameExtent>,
}

pub(super) struct Layer {
    pub number: u64,
    pub path: PathBuf,
    file: File,
    key: LayerKey,
    state: Mutex<LayerState>,
}

struct LayerState {
    end: u64,
    counter: u64,
    entries: Vec<IndexEntry>,
    /// Resolved map and the end it was made for.
    map: Option<(u64, Arc<LayerMap>)>,
}

impl Layer {
    pub(super) fn path(folder: &Path, number: u64) -> PathBuf {
        folder.join(format!("{number:08}.layer"))
    }

    pub(super) fn create(
        storage: &Storage,
        folder: &Path,
        disk: DiskId,
        number: u64,
        key: &DataKey,
    ) -> Result<Self, ReplicaError> {
        let header = LayerHeader {
            disk,
            number,
            salt: new_salt(),
        };
        let path = Self::path(folder, number);
        let file = storage.create(&path, &header.encode())?;
        storage.sync_folder(folder)?;
        let end = LAYER_HEADER_BYTES as u64;
        let state = LayerState {
            end,
            counter: 0,
            entries: Vec::new(),
            map: None,
        };
        Ok(Self {
            number,
            path,
            file,
            key: key.for_layer(&header.salt),
            state: Mutex::new(state),
        })
    }

    /// Opens a layer and reads its index. `end`: None finds the last whole record; Some demands every byte to it.
    pub(super) fn open(
        folder: &Path,
        disk: DiskId,
        number: u64,
        key: &DataKey,
        end: Option<u64>,
    ) -> Result<Self, ReplicaError> {
        let path = Self::path(folder, number);
        let file = File::open(&path).map_err(|e| ReplicaError::io("open", &path, e))?;
        let corrupt = |offset: u64, what: &str| ReplicaError::Corrupt {
            object: path.clone(),
            offset,
            what: what.to_owned(),
        };
        let mut header = [0; LAYER_HEADER_BYTES];
        file.read_exact_at(&mut header, 0)
            .map_err(|_| corrupt(0, "the header is cut short"))?;
        let header = LayerHeader::decode(&header).map_err(|what| corrupt(0, what))?;
        if header.disk != disk || header.number != number {
            return Err(corrupt(0, "the header is that of another layer"));
        }
        let state = LayerState {
            end: LAYER_HEADER_BYTES as u64,
            counter: 0,
            entries: Vec::new(),
            map: None,
        };
        let layer = Self {
            number,
            path: path.clone(),
            file,
            key: key.for_layer(&header.salt),
            state: Mutex::new(state),
        };
        let mut at = LAYER_HEADER_BYTES as u64;
        while end.is_none_or(|end| at < end) {
            match layer.read_record(at) {
                Ok((frame, next, counter)) => {
                    let mut state = layer.state();
                    let extents = frame.extents().to_vec();
                    state.entries.push(IndexEntry {
                        offset: at,
                        end: next,
                        extents,
                    });
                    state.end = next;
                    state.counter = counter + 1;
                    at = next;
                }
                Err(_) if end.is_none() => break,
                Err(error) => return Err(error),
            }
        }
        if let Some(end) = end
            && at != end
        {
            return Err(corrupt(end, "the records do not end where the manifest says"));
        }
        Ok(layer)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, LayerState> {
        // A panic elsewhere leaves the state as whole as before: every change is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn end(&self) -> u64 {
        self.state().end
    }

    /// Appends a frame; it is durable after the next [`sync`](Self::sync). The end moves only when all bytes
    /// were written, so that a failed write is simply overwritten by the next.
    pub(super) fn append(&self, storage: &Storage, frame: &Frame) -> Result<(), ReplicaError> {
        let mut state = self.state();
        let counter = state.counter;
        // Also when the write below fails: a nonce is never used twice.
        state.counter += 1;
        let sealed_bytes = (frame.bytes().len() + TAG_BYTES) as u32;
        let header = RecordHeader {
            sealed_bytes,
            counter,
        }
        .encode();
        let mut sealed = Vec::with_capacity(frame.bytes().len() + TAG_BYTES);
        sealed.extend_from_slice(frame.bytes());
        self.key.seal(counter, &header, &mut sealed);
        let mut record = Vec::with_capacity(RECORD_HEADER_BYTES + sealed.len());
        record.extend_from_slice(&header);
        record.extend_from_slice(&sealed);
        let offset = state.end;
        storage.write_at(&self.file, &self.path, &record, offset)?;
        let end = offset + record.len() as u64;
        state.entries.push(IndexEntry {
            offset,
            end,
            extents: frame.extents().to_vec(),
        });
        state.end = end;
        Ok(())
    }

    pub(super) fn sync(&self, storage: &Storage) -> Result<(), ReplicaError> {
        storage.sync(&self.file, &self.path)
    }

    /// The frame at this offset, the offset behind it, and its counter.
    pub(super) fn read_record(&self, offset: u64) -> Result<(Frame, u64, u64), ReplicaError> {
        let corrupt = |what: String| ReplicaError::Corrupt {
            object: self.path.clone(),
            offset,
            what,
        };
        let mut header = [0; RECORD_HEADER_BYTES];
        self.read(&mut header, offset)?;
        let record = RecordHeader::decode(&header).map_err(|what| corrupt(what.to_owned()))?;
        let mut sealed = vec![0; record.sealed_bytes as usize];
        self.read(&mut sealed, offset + RECORD_HEADER_BYTES as u64)?;
        let len = self
            .key
            .open(record.counter, &header, &mut sealed)
            .ok_or_else(|| corrupt("the record does not decrypt".to_owned()))?
            .len();
        sealed.truncate(len);
        let frame = Frame::parse(Bytes::from(sealed)).map_err(|e| corrupt(e.to_string()))?;
        Ok((
            frame,
            offset + RECORD_HEADER_BYTES as u64 + u64::from(record.sealed_bytes),
            record.counter,
        ))
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<(), ReplicaError> {
        self.file
            .read_exact_at(buffer, offset)
            .map_err(|e| match e.kind() {
                std::io::ErrorKind::UnexpectedEof => ReplicaError::Corrupt {
                    object: self.path.clone(),
                    offset,
                    what: "the layer is cut short".to_owned(),
                },
                _ => ReplicaError::io("read", &self.path, e),
            })
    }

    /// Adds the blocks that the records between two offsets speak of.
    pub(super) fn ranges(&self, begin: u64, end: u64, to: &mut ExtentSet) {
        let state = self.state();
        let between = state
            .entries
            .iter()
            .filter(|entry| entry.offset >= begin && entry.end <= end);
        for extent in between.flat_map(|entry| &entry.extents) {
            to.insert(extent.range());
        }
    }

    /// Which frame answers for which block, of the records before `end`.
    pub(super) fn map(&self, end: u64) -> Arc<LayerMap> {
        let mut state = self.state();
        if let Some((made_for, map)) = &state.map
            && *made_for == end
        {
            return map.clone();
        }
        let mut map = LayerMap::default();
        for entry in state.entries.iter().take_while(|entry| entry.end <= end) {
            map.insert(entry);
        }
        let map = Arc::new(map);
        state.map = Some((end, map.clone()));
        map
    }
}
