//! The work on one disk: compare, copy, verify.
//!
//! ```text
//! source (compares, or lists what changed) -> batches of runs -> fetch (network, decompress) -> frames -> write, fsync
//! ```
//! Three threads with short queues between them, so that reading the disk, the network and writing overlap. A step is
//! complete when all three ended well; what a batch reached is told only when it is durable.
use super::ReceiveError;
use super::client::{Client, Fetched, OrderKey, granules};
use super::progress::Progress;
use super::target::Target;
use crate::agent::capture::AlignedBuffer;
use crate::block::{BLOCK_BYTES, BlockRange, DiskId, GRANULE_BYTES, PointId};
use crate::wire::{RUNS_MAX, ReceivePhase, Refused};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const GRANULE: u64 = GRANULE_BYTES as u64;
const GRANULE_BLOCKS: u64 = (GRANULE_BYTES / BLOCK_BYTES) as u64;
/// Read from the disk at once while comparing.
const READ_GRANULES: u64 = 16;
const SCRATCH_BYTES: usize = 256 << 10;
/// Asked for in one call: few round trips, and a place to go on from.
const BATCH_BLOCKS: u64 = (32 << 20) / BLOCK_BYTES as u64;
const BATCH_RUNS: usize = 2048;
const BATCH_PERIOD: Duration = Duration::from_secs(1);
/// What was written is made durable at least this often: a receiver that is killed repeats no more.
const SYNC_BYTES: u64 = 256 << 20;
const SYNC_PERIOD: Duration = Duration::from_secs(5);
/// How often what differs is written again before the disk counts as one that does not keep what it is given.
const MEND_ROUNDS: usize = 2;
const THREADS_MAX: usize = 4;

/// Lets so many bytes in each second.
pub(super) struct Throttle {
    bytes_per_second: Option<u64>,
    free_at: Mutex<Instant>,
}

impl Throttle {
    pub(super) fn new(bytes_per_second: Option<u64>) -> Self {
        Self {
            bytes_per_second: bytes_per_second.filter(|limit| *limit > 0),
            free_at: Mutex::new(Instant::now()),
        }
    }

    fn take(&self, bytes: u64, job: &Job) -> Result<(), ReceiveError> {
        let Some(limit) = self.bytes_per_second else {
            return Ok(());
        };
        let wait_until = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let begin = (*free_at).max(Instant::now());
            *free_at = begin + Duration::from_secs_f64(bytes as f64 / limit as f64);
            *free_at
        };
        while let Some(left) = wait_until.checked_duration_since(Instant::now()) {
            job.check()?;
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
        Ok(())
    }
}

/// What was refused to the reporter meanwhile: the work ends by it.
#[derive(Default)]
pub(super) struct Fence(Mutex<Option<Refused>>);

impl Fence {
    pub(super) fn close(&self, refused: Refused) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(refused);
    }

    pub(super) fn take(&self) -> Option<Refused> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// One disk on its way to one point.
pub(super) struct Job<'a> {
    pub client: &'a Client,
    pub key: OrderKey,
    pub disk: DiskId,
    pub point: PointId,
    pub target: &'a Target,
    pub progress: &'a Progress,
    /// Its place in the progress.
    pub index: usize,
    pub throttle: &'a Throttle,
    pub fence: &'a Fence,
    pub stop: &'a CancellationToken,
}

/// Runs of blocks, and how far the step is when they are written.
struct Batch {
    ranges: Vec<BlockRange>,
    reached_bytes: u64,
}

enum Item {
    Frame(Fetched),
    Reached(u64),
}

impl Job<'_> {
    fn check(&self) -> Result<(), ReceiveError> {
        if self.stop.is_cancelled() {
            return Err(ReceiveError::Cancelled);
        }
        self.fence
            .take()
            .map_or(Ok(()), |refused| Err(ReceiveError::Refused(refused)))
    }

    /// Compares from a byte on, and takes what differs. `reached`: durable up to this byte.
    pub(super) fn compare(
        &self,
        from_bytes: u64,
        reached: impl FnMut(u64) -> Result<(), ReceiveError>,
    ) -> Result<(), ReceiveError> {
        let size = self.target.needed();
        let first = from_bytes.min(size) / GRANULE;
        self.progress.begin(self.index, first * GRANULE, size);
        let source = |batches: &SyncSender<Batch>| {
            let (mut batch, mut blocks, mut since) = (Vec::new(), 0, Instant::now());
            self.scan(first..granules(size), &mut |differing, reached_bytes| {
                blocks += differing.iter().map(|range| range.count).sum::<u64>();
                batch.extend_from_slice(differing);
                let is_due = blocks >= BATCH_BLOCKS
                    || batch.len() >= BATCH_RUNS
                    || since.elapsed() >= BATCH_PERIOD
                    || reached_bytes >= size;
                if !is_due {
                    return true;
                }
                (blocks, since) = (0, Instant::now());
                let ranges = std::mem::take(&mut batch);
                batches
                    .send(Batch {
                        ranges,
                        reached_bytes,
                    })
                    .is_ok()
            })
        };
        self.pipeline(source, false, reached)
    }

    /// Takes these runs.
    pub(super) fn copy(&self, ranges: &[BlockRange]) -> Result<(), ReceiveError> {
        let total = ranges.iter().map(|range| range.count).sum::<u64>() * BLOCK_BYTES as u64;
        self.progress.begin(self.index, 0, total);
        let source = |batches: &SyncSender<Batch>| {
            for (ranges, blocks) in batches_of(ranges) {
                let batch = Batch {
                    ranges,
                    reached_bytes: blocks * BLOCK_BYTES as u64,
                };
                self.check()?;
                if batches.send(batch).is_err() {
                    break;
                }
            }
            Ok(())
        };
        self.pipeline(source, true, |_| Ok(()))
    }

    /// `counts_written`: progress is what was written, not what was compared.
    fn pipeline(
        &self,
        source: impl FnOnce(&SyncSender<Batch>) -> Result<(), ReceiveError> + Send,
        counts_written: bool,
        reached: impl FnMut(u64) -> Result<(), ReceiveError>,
    ) -> Result<(), ReceiveError> {
        std::thread::scope(|scope| {
            let (batches, to_fetch) = sync_channel::<Batch>(2);
            let (items, to_write) = sync_channel::<Item>(8);
            // Each ends its queue by ending itself; the others then end too.
            let source = scope.spawn(move || source(&batches));
            let fetch = scope.spawn(move || {
                for batch in to_fetch {
                    if !self.fetch(batch, &items)? {
                        break;
                    }
                }
                Ok(())
            });
            let written = self.write(&to_write, counts_written, reached);
            drop(to_write);
            let ended = |ended: std::thread::Result<Result<(), ReceiveError>>| {
                ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            let (fetched, sourced) = (ended(fetch.join()), ended(source.join()));
            // A disk that fails explains more than the queue that it left behind.
            written.and(fetched).and(sourced)
        })?;
        // Also what the last batch did not need to make durable.
        Ok(self.target.sync()?)
    }

    /// False: nobody writes any more.
    fn fetch(&self, batch: Batch, items: &SyncSender<Item>) -> Result<bool, ReceiveError> {
        for ranges in batch.ranges.chunks(RUNS_MAX) {
            self.progress.change(|now| {
                if now.phase == Some(ReceivePhase::Comparing) {
                    now.phase = Some(ReceivePhase::Copying);
                }
            });
            let mut frames = self
                .client
                .read(self.key, self.disk, self.point, ranges.to_vec())?;
            while let Some(frame) = frames.next()? {
                self.progress
                    .change(|now| now.received_bytes += frame.stored_bytes);
                self.throttle.take(frame.stored_bytes, self)?;
                if items.send(Item::Frame(frame)).is_err() {
                    return Ok(false);
                }
            }
        }
        Ok(items.send(Item::Reached(batch.reached_bytes)).is_ok())
    }

    fn write(
        &self,
        items: &std::sync::mpsc::Receiver<Item>,
        counts_written: bool,
        mut reached: impl FnMut(u64) -> Result<(), ReceiveError>,
    ) -> Result<(), ReceiveError> {
        let mut scratch = AlignedBuffer::new(SCRATCH_BYTES).map_err(ReceiveError::Memory)?;
        let (mut unsynced, mut since) = (0u64, Instant::now());
        for item in items {
            match item {
                Item::Frame(frame) => {
                    let bytes = self.write_frame(&frame, &mut scratch)?;
                    unsynced += bytes;
                    self.progress.change(|now| {
                        if let Some(disk) = now.disks.get_mut(self.index) {
                            disk.copied_bytes += bytes;
                        }
                    });
                    if counts_written {
                        self.progress.done(self.index, bytes);
                    }
                }
                Item::Reached(bytes) => {
                    if unsynced >= SYNC_BYTES || since.elapsed() >= SYNC_PERIOD {
                        self.target.sync()?;
                        reached(bytes)?;
                        (unsynced, since) = (0, Instant::now());
                    }
                }
            }
        }
        Ok(())
    }

    fn write_frame(&self, frame: &Fetched, scratch: &mut AlignedBuffer) -> Result<u64, ReceiveError> {
        let (mut at, mut bytes) = (0, 0);
        for extent in &frame.extents {
            let len = extent.count as usize * BLOCK_BYTES;
            bytes += len as u64;
            if extent.zero {
                self.target
                    .write_zeroes(extent.first, u64::from(extent.count), scratch)?;
                continue;
            }
            let data = frame
                .raw
                .get(at..at + len)
                .ok_or(ReceiveError::Protocol("a frame that is not valid"))?;
            self.target.write(extent.first, data, scratch)?;
            at += len;
        }
        Ok(bytes)
    }

    /// Reads granules back from the medium and compares them with the point; tells runs that differ, and the byte up to which
    /// everything was looked at. Ends early when `found` gives false.
    fn scan(
        &self,
        range: Range<u64>,
        found: &mut dyn FnMut(&[BlockRange], u64) -> bool,
    ) -> Result<(), ReceiveError> {
        let mut digests = self
            .client
            .digests(self.key, self.disk, self.point, range.clone())?;
        let threads =
            std::thread::available_parallelism().map_or(1, |threads| threads.get().min(THREADS_MAX));
        let mut buffers = (0..threads)
            .map(|_| AlignedBuffer::new(READ_GRANULES as usize * GRANULE_BYTES))
            .collect::<std::io::Result<Vec<_>>>()
            .map_err(ReceiveError::Memory)?;
        let size = self.target.needed();
        let mut first = range.start;
        while let Some(part) = digests.next()? {
            let differing = self.differing(first, &part, &mut buffers)?;
            first += part.len() as u64;
            if !found(&differing, (first * GRANULE).min(size)) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Which of these granules differ. Reading and hashing are shared among threads, a piece at a time.
    fn differing(
        &self,
        first: u64,
        digests: &[[u8; 32]],
        buffers: &mut [AlignedBuffer],
    ) -> Result<Vec<BlockRange>, ReceiveError> {
        let size = self.target.needed();
        let blocks = size.div_ceil(BLOCK_BYTES as u64);
        let next = AtomicU64::new(0);
        let work = |buffer: &mut AlignedBuffer| -> Result<Vec<u64>, ReceiveError> {
            let mut found = Vec::new();
            loop {
                let piece = next.fetch_add(READ_GRANULES, Ordering::Relaxed);
                if piece >= digests.len() as u64 {
                    return Ok(found);
                }
                self.check()?;
                let count = READ_GRANULES.min(digests.len() as u64 - piece);
                let begin = (first + piece) * GRANULE;
                // Whole blocks: direct I/O takes no other lengths. The tail of the disk may end before.
                self.target.read(
                    begin / BLOCK_BYTES as u64,
                    &mut buffer[..(count * GRANULE) as usize],
                )?;
                for granule in 0..count {
                    let from = (granule * GRANULE) as usize;
                    let len = (size - begin - granule * GRANULE).min(GRANULE) as usize;
                    let digest = blake3::hash(&buffer[from..from + len]);
                    if *digest.as_bytes() != digests[(piece + granule) as usize] {
                        found.push(first + piece + granule);
                    }
                }
                let bytes = (count * GRANULE).min(size - begin);
                self.progress.done(self.index, bytes);
            }
        };
        let mut granules = std::thread::scope(|scope| {
            let threads: Vec<_> = buffers
                .iter_mut()
                .map(|buffer| scope.spawn(|| work(buffer)))
                .collect();
            let mut all = Vec::new();
            for thread in threads {
                let found = thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                all.extend(found?);
            }
            Ok::<_, ReceiveError>(all)
        })?;
        granules.sort_unstable();
        let mut ranges: Vec<BlockRange> = Vec::new();
        for granule in granules {
            let begin = granule * GRANULE_BLOCKS;
            let count = GRANULE_BLOCKS.min(blocks - begin);
            match ranges.last_mut() {
                Some(last) if last.end() == begin => last.count += count,
                _ => ranges.push(BlockRange::new(begin, count)),
            }
        }
        Ok(ranges)
    }

    /// Reads the whole disk back. What differs is written again and read again; how many granules that were. `mending` is
    /// called before the first write.
    pub(super) fn verify(
        &self,
        mut mending: impl FnMut() -> Result<(), ReceiveError>,
    ) -> Result<u64, ReceiveError> {
        let size = self.target.needed();
        let mut spans: Vec<Range<u64>> = std::iter::once(0..granules(size)).collect();
        let mut mended = 0;
        for round in 0.. {
            let total: u64 = spans.iter().map(|span| span.end - span.start).sum();
            self.progress.begin(self.index, 0, (total * GRANULE).min(size));
            let mut differing: Vec<BlockRange> = Vec::new();
            for span in spans {
                self.scan(span, &mut |found, _| {
                    differing.extend_from_slice(found);
                    true
                })?;
            }
            if differing.is_empty() {
                break;
            }
            let count: u64 = differing
                .iter()
                .map(|range| range.count.div_ceil(GRANULE_BLOCKS))
                .sum();
            if round == MEND_ROUNDS {
                return Err(ReceiveError::NotVerified {
                    path: self.target.path().to_owned(),
                    granules: count,
                    first_offset: differing
                        .first()
                        .map_or(0, |range| range.first * BLOCK_BYTES as u64),
                });
            }
            mended += if round == 0 { count } else { 0 };
            mending()?;
            self.copy(&differing)?;
            spans = differing
                .iter()
                .map(|range| range.first / GRANULE_BLOCKS..range.end().div_ceil(GRANULE_BLOCKS))
                .collect();
        }
        Ok(mended)
    }
}

/// Parts that one call asks for, each with the blocks up to its end.
fn batches_of(ranges: &[BlockRange]) -> impl Iterator<Item = (Vec<BlockRange>, u64)> {
    let (mut index, mut taken, mut all) = (0, 0, 0);
    std::iter::from_fn(move || {
        let (mut batch, mut blocks) = (Vec::new(), 0);
        while let Some(range) = ranges.get(index)
            && blocks < BATCH_BLOCKS
            && batch.len() < BATCH_RUNS
        {
            let count = (range.count - taken).min(BATCH_BLOCKS - blocks);
            if count > 0 {
                batch.push(BlockRange::new(range.first + taken, count));
            }
            blocks += count;
            taken += count;
            if taken == range.count {
                (index, taken) = (index + 1, 0);
            }
        }
        all += blocks;
        (!batch.is_empty()).then_some((batch, all))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_all_blocks_once_and_none_is_too_large() {
        let mut ranges = vec![
            BlockRange::new(0, BATCH_BLOCKS * 2 + 5),
            BlockRange::new(BATCH_BLOCKS * 3, 1),
        ];
        ranges.extend((0..5000).map(|index| BlockRange::new(BATCH_BLOCKS * 4 + index * 2, 1)));
        let (mut next, mut all) = (0, Vec::new());
        for (batch, reached) in batches_of(&ranges) {
            let blocks: u64 = batch.iter().map(|range| range.count).sum();
            assert!(blocks <= BATCH_BLOCKS && batch.len() <= BATCH_RUNS && blocks > 0);
            next += blocks;
            assert_eq!(next, reached);
            all.extend(batch);
        }
        let set = |ranges: &[BlockRange]| ranges.iter().copied().collect::<crate::block::ExtentSet>();
        assert_eq!(set(&all), set(&ranges));
        assert_eq!(next, ranges.iter().map(|range| range.count).sum::<u64>());
        assert_eq!(batches_of(&[]).count(), 0);
    }
}
