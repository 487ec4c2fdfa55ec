//! Reads of many places of a disk at once, without allocating: random blocks one after the other would cost a
//! round trip to the medium each, and file systems are frozen meanwhile.
//!
//! Uses the kernel's asynchronous I/O (`io_submit(2)`), which does direct reads of disks without blocking. Where it
//! is not available the reads are done one after the other.
use super::DiskReader;
use crate::block::{BLOCK_BYTES, BlockRange};
use std::os::fd::AsRawFd;

/// Reads on their way at a time: enough for any disk, and far below the system's limit (`fs.aio-max-nr`).
const DEPTH: usize = 64;
/// Largest read: what common disks take as one request.
pub(super) const READ_BYTES_MAX: usize = 1 << 20;

/// `struct iocb` of `linux/aio_abi.h`, little-endian order of the first two words.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct ControlBlock {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    event_fd: u32,
}

/// `struct io_event`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Event {
    data: u64,
    control_block: u64,
    result: i64,
    result2: i64,
}

/// `IOCB_CMD_PREAD`.
const READ: u16 = 0;

/// Which read failed. Holds no path, so that it is made without allocating.
#[derive(Debug)]
pub struct ReadError {
    pub first_block: u64,
    pub source: std::io::Error,
}

pub struct Batch {
    /// 0: not available.
    context: libc::c_ulong,
    blocks: Box<[ControlBlock; DEPTH]>,
    events: Box<[Event; DEPTH]>,
    /// Indices of unused blocks.
    free: Box<[u16; DEPTH]>,
}

impl Batch {
    pub fn new() -> Self {
        let mut context: libc::c_ulong = 0;
        // SAFETY: `context` is a valid place for the handle, and zero as the call demands.
        let made = unsafe { libc::syscall(libc::SYS_io_setup, DEPTH as libc::c_long, &raw mut context) };
        if made != 0 {
            context = 0;
        }
        Self {
            context,
            blocks: Box::new([ControlBlock::default(); DEPTH]),
            events: Box::new([Event::default(); DEPTH]),
            free: Box::new(std::array::from_fn(|index| index as u16)),
        }
    }

    /// Reads the ranges that `next` gives one after the other into `buffer`, until it gives none; returns the
    /// bytes read. The caller makes sure that they fit.
    pub fn read(
        &mut self,
        reader: &DiskReader,
        buffer: &mut [u8],
        next: &mut dyn FnMut() -> Option<BlockRange>,
    ) -> Result<usize, ReadError> {
        let (mut at, mut in_flight, mut failed) = (0, 0, None);
        let mut rest: Option<BlockRange> = None;
        loop {
            // Handed over together: one call, and the kernel merges what lies side by side.
            let mut pointers: [*mut ControlBlock; DEPTH] = [std::ptr::null_mut(); DEPTH];
            let mut ready = 0;
            while in_flight + ready < DEPTH && failed.is_none() {
                let Some(range) = rest.take().or_else(&mut *next) else {
                    break;
                };
                let part = BlockRange::new(
                    range.first,
                    range.count.min((READ_BYTES_MAX / BLOCK_BYTES) as u64),
                );
                rest =
                    (part.count < range.count).then(|| BlockRange::new(part.end(), range.count - part.count));
                let len = part.count as usize * BLOCK_BYTES;
                let Some(target) = buffer.get_mut(at..at + len) else {
                    failed = Some(ReadError {
                        first_block: part.first,
                        source: std::io::ErrorKind::OutOfMemory.into(),
                    });
                    break;
                };
                at += len;
                // The end of a disk that is not whole blocks is read by itself.
                let whole = part.end() * BLOCK_BYTES as u64 <= reader.size_bytes();
                if self.context != 0 && whole {
                    let slot = self.free[DEPTH - 1 - in_flight - ready];
                    self.blocks[usize::from(slot)] = ControlBlock {
                        data: u64::from(slot),
                        opcode: READ,
                        fd: reader.file().as_raw_fd() as u32,
                        buffer: target.as_mut_ptr() as u64,
                        bytes: len as u64,
                        offset: (part.first * BLOCK_BYTES as u64) as i64,
                        ..ControlBlock::default()
                    };
                    pointers[ready] = &raw mut self.blocks[usize::from(slot)];
                    ready += 1;
                } else if let Err(source) = reader.read_into(part.first, target) {
                    failed = Some(ReadError {
                        first_block: part.first,
                        source,
                    });
                }
            }
            if ready > 0 {
                // SAFETY: each block names a descriptor that is open and memory that is borrowed by this call; it
                // does not return before all reads have ended.
                let taken =
                    unsafe { libc::syscall(libc::SYS_io_submit, self.context, ready, pointers.as_mut_ptr()) };
                let taken = usize::try_from(taken).unwrap_or(0).min(ready);
                in_flight += taken;
                // What the kernel did not take is read here. Their places in `free` are still theirs to give.
                for pointer in &pointers[taken..ready] {
                    // SAFETY: points into `self.blocks`, and the kernel does not know it.
                    let block = unsafe { **pointer };
                    let again = read_again(reader, buffer, &block);
                    failed = failed.or(again.err());
                }
            }
            if in_flight == 0 {
                return failed.map_or(Ok(at), Err);
            }
            // SAFETY: there is room for DEPTH events; no timeout.
            let ended = unsafe {
                libc::syscall(
                    libc::SYS_io_getevents,
                    self.context,
                    1,
                    DEPTH,
                    self.events.as_mut_ptr(),
                    std::ptr::null::<libc::timespec>(),
                )
            };
            // Interrupted: asked again. The reads on their way must end before this returns.
            for index in 0..usize::try_from(ended).unwrap_or(0) {
                let event = self.events[index];
                let block = self.blocks[event.data as usize % DEPTH];
                in_flight -= 1;
                self.free[DEPTH - 1 - in_flight] = block.data as u16;
                if event.result == block.bytes as i64 {
                    continue;
                }
                // Short or failed: once more by itself, for the rest or for the error.
                let again = read_again(reader, buffer, &block);
                failed = failed.or(again.err());
            }
        }
    }
}

/// Reads what the block names without the kernel's queue.
fn read_again(reader: &DiskReader, buffer: &mut [u8], block: &ControlBlock) -> Result<(), ReadError> {
    let first_block = block.offset as u64 / BLOCK_BYTES as u64;
    let from = block.buffer as usize - buffer.as_ptr() as usize;
    reader
        .read_into(first_block, &mut buffer[from..from + block.bytes as usize])
        .map_err(|source| ReadError { first_block, source })
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if self.context != 0 {
            // SAFETY: made by io_setup and used by nobody else; nothing is on its way between calls.
            unsafe { libc::syscall(libc::SYS_io_destroy, self.context) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::AlignedBuffer;
    use super::*;

    #[test]
    fn reads_many_places_and_an_end_that_is_no_whole_block() {
        let folder = tempfile::tempdir_in(".").unwrap();
        let path = folder.path().join("disk");
        let size = 5000 * BLOCK_BYTES + 512;
        let content: Vec<u8> = (0..size).map(|at| (at / 512 * 7) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let reader = DiskReader::open(&path).unwrap();
        let mut ranges: Vec<_> = (0..300).map(|index| BlockRange::new(index * 3, 2)).collect();
        ranges.push(BlockRange::new(1000, 3000));
        ranges.push(BlockRange::new(4999, 2));
        let blocks: u64 = ranges.iter().map(|range| range.count).sum();
        let mut buffer = AlignedBuffer::new(blocks as usize * BLOCK_BYTES).unwrap();
        for context in [true, false] {
            buffer.fill(0xee);
            let mut batch = Batch::new();
            let made = batch.context;
            if !context {
                batch.context = 0;
            }
            let mut left = ranges.iter().copied();
            let read = batch.read(&reader, &mut buffer, &mut || left.next()).unwrap();
            batch.context = made;
            assert_eq!(read, buffer.len());
            let mut at = 0;
            for range in &ranges {
                for block in range.first..range.end() {
                    let from = block as usize * BLOCK_BYTES;
                    let there = &content[from.min(size)..(from + BLOCK_BYTES).min(size)];
                    assert_eq!(&buffer[at..at + there.len()], there, "block {block}");
                    assert!(buffer[at + there.len()..at + BLOCK_BYTES].iter().all(|&b| b == 0));
                    at += BLOCK_BYTES;
                }
            }
        }
        let mut one = Some(BlockRange::new(0, 300));
        let error = Batch::new().read(&reader, &mut buffer[..BLOCK_BYTES], &mut || one.take());
        assert!(error.is_err());
    }
}
