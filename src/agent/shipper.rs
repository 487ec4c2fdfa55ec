//! Builds frames of what was read, compresses them on all processors, and hands them on in their order.
//!
//! Reading and sending happen in the caller's thread, so that a frame is sent while the next ones are compressed.
//! Between two flushes at most [`FRAMES_AHEAD`] frames per thread wait: memory stays bounded.
use super::cycle::CycleError;
use super::sink::{ShipError, Sink};
use crate::block::{BLOCK_BYTES, DiskId, FrameBuilder, PointId};
use crate::replica::{PointSpec, SharedMark};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// For speed on the way, not size: what is kept longer is folded with a higher level.
const ZSTD_LEVEL: i32 = 1;
/// More threads than this read faster than any link sends.
const THREADS_MAX: usize = 4;
const FRAMES_AHEAD: usize = 2;

/// Compresses frames in a thread of its own. Taking turns keeps the order without sorting.
struct Worker {
    /// None once it is told to end.
    jobs: Option<SyncSender<FrameBuilder>>,
    results: Receiver<std::io::Result<Bytes>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    fn start() -> std::io::Result<Self> {
        let (jobs, todo) = sync_channel::<FrameBuilder>(FRAMES_AHEAD);
        let (done, results) = sync_channel(FRAMES_AHEAD);
        let thread = std::thread::Builder::new()
            .name("compress".to_owned())
            .spawn(move || {
                let mut compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL);
                for frame in todo {
                    let result = match &mut compressor {
                        Ok(compressor) => frame.finish_with(compressor),
                        Err(_) => frame.finish(ZSTD_LEVEL),
                    };
                    if done.send(result).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self {
            jobs: Some(jobs),
            results,
            thread: Some(thread),
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.jobs = None;
        // Frames that nobody waits for any more must not hold it up.
        while self.results.recv().is_ok() {}
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub(super) struct Shipper<'a> {
    sink: &'a mut dyn Sink,
    frame: FrameBuilder,
    workers: Vec<Worker>,
    /// Disks of the frames that are being compressed, the oldest first.
    ahead: std::collections::VecDeque<DiskId>,
    /// Whose turn it is to take a frame. The oldest result lies with the one `ahead.len()` turns before.
    turn: usize,
    pub read_bytes: u64,
    pub raw_bytes: u64,
    pub raw_bytes_by_disk: BTreeMap<DiskId, u64>,
    pub stored_bytes: u64,
}

fn failed(what: &'static str, source: std::io::Error) -> CycleError {
    CycleError::Memory { what, source }
}

impl<'a> Shipper<'a> {
    pub fn new(sink: &'a mut dyn Sink) -> Self {
        Self {
            sink,
            frame: FrameBuilder::new(),
            workers: Vec::new(),
            ahead: std::collections::VecDeque::new(),
            turn: 0,
            read_bytes: 0,
            raw_bytes: 0,
            raw_bytes_by_disk: BTreeMap::new(),
            stored_bytes: 0,
        }
    }

    /// Adds whole blocks, in their order on the disk.
    pub fn push(&mut self, disk: DiskId, mut first: u64, mut data: &[u8]) -> Result<(), CycleError> {
        self.raw_bytes += data.len() as u64;
        *self.raw_bytes_by_disk.entry(disk).or_default() += data.len() as u64;
        while !data.is_empty() {
            let room = self.frame.room_blocks() * BLOCK_BYTES;
            if room == 0 {
                self.send(disk)?;
                continue;
            }
            let (part, rest) = data.split_at(room.min(data.len()));
            self.frame.push(first, part);
            first += (part.len() / BLOCK_BYTES) as u64;
            data = rest;
        }
        Ok(())
    }

    /// Ends the frame; a frame holds blocks of one disk.
    pub fn send(&mut self, disk: DiskId) -> Result<(), CycleError> {
        if self.frame.is_empty() {
            return Ok(());
        }
        if self.workers.is_empty() {
            let count = std::thread::available_parallelism().map_or(1, |count| count.get().min(THREADS_MAX));
            for _ in 0..count {
                self.workers
                    .push(Worker::start().map_err(|source| failed("start a thread", source))?);
            }
        }
        if self.ahead.len() == self.workers.len() * FRAMES_AHEAD {
            self.append_oldest()?;
        }
        let frame = std::mem::take(&mut self.frame);
        let worker = &self.workers[self.turn % self.workers.len()];
        let taken = worker.jobs.as_ref().is_some_and(|jobs| jobs.send(frame).is_ok());
        if !taken {
            return Err(failed("compress a frame", std::io::ErrorKind::BrokenPipe.into()));
        }
        self.turn += 1;
        self.ahead.push_back(disk);
        Ok(())
    }

    fn append_oldest(&mut self) -> Result<(), CycleError> {
        let oldest = self.turn - self.ahead.len();
        let Some(disk) = self.ahead.pop_front() else {
            return Ok(());
        };
        let result = self.workers[oldest % self.workers.len()].results.recv();
        let bytes = result
            .unwrap_or_else(|_| Err(std::io::ErrorKind::BrokenPipe.into()))
            .map_err(|source| failed("compress a frame", source))?;
        self.stored_bytes += bytes.len() as u64;
        Ok(self.sink.append(disk, bytes)?)
    }

    fn append_all(&mut self) -> Result<(), CycleError> {
        while !self.ahead.is_empty() {
            self.append_oldest()?;
        }
        Ok(())
    }

    pub fn flush(&mut self) -> Result<(), CycleError> {
        self.append_all()?;
        Ok(self.sink.flush()?)
    }

    pub fn compare(
        &mut self,
        disk: DiskId,
        granule: u64,
        digests: &[[u8; 32]],
    ) -> Result<Option<Vec<bool>>, ShipError> {
        self.sink.compare(disk, granule, digests)
    }

    pub fn share(&mut self, shared: SharedMark) {
        self.sink.share(shared);
    }

    pub fn seal(&mut self, spec: PointSpec) -> Result<PointId, CycleError> {
        self.append_all()?;
        Ok(self.sink.seal(spec, self.raw_bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Frame;

    /// Remembers which blocks came, and refuses from a frame on.
    struct Memory {
        blocks: Vec<u64>,
        frames_left: usize,
    }

    impl Sink for Memory {
        fn append(&mut self, _disk: DiskId, frame: Bytes) -> Result<(), ShipError> {
            if self.frames_left == 0 {
                return Err(ShipError::Disconnected("full".to_owned()));
            }
            self.frames_left -= 1;
            for extent in Frame::parse(frame).unwrap().extents() {
                self.blocks.extend(extent.range().first..extent.range().end());
            }
            Ok(())
        }

        fn flush(&mut self) -> Result<(), ShipError> {
            Ok(())
        }

        fn seal(&mut self, _spec: PointSpec, _changed_bytes: u64) -> Result<PointId, ShipError> {
            Ok(PointId::new())
        }

        fn compare(&mut self, _: DiskId, _: u64, _: &[[u8; 32]]) -> Result<Option<Vec<bool>>, ShipError> {
            Ok(None)
        }
    }

    #[test]
    fn frames_come_in_their_order_and_a_refusal_is_told() {
        let disk = DiskId::new();
        let data: Vec<u8> = (0..3000 * BLOCK_BYTES).map(|at| (at / 5) as u8).collect();
        for frames_left in [usize::MAX, 5] {
            let mut memory = Memory {
                blocks: Vec::new(),
                frames_left,
            };
            let mut ship = Shipper::new(&mut memory);
            let result = ship
                .push(disk, 10, &data)
                .and_then(|()| ship.send(disk))
                .and_then(|()| ship.flush());
            drop(ship);
            if frames_left == usize::MAX {
                result.unwrap();
                assert_eq!(memory.blocks, (10..3010).collect::<Vec<_>>());
            } else {
                assert!(matches!(
                    result,
                    Err(CycleError::Ship(ShipError::Disconnected(_)))
                ));
                assert_eq!(memory.blocks, (10..10 + 5 * 64).collect::<Vec<_>>());
            }
        }
    }
}
