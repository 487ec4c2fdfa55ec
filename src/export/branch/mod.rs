//! A branch: a read-only disk with what was written since in files beside it (copy on write).
//!
//! The files are described in `proto/branch-format.md`. What was acknowledged survives a kill of this process at any
//! instant: the data is in the kernel's hands before its bit is, and the bit before the answer. A flush makes `data` durable
//! first and the bits after it, so a bit never promises a block that is not there. What was written after the last flush may
//! be lost in a power cut, as with any disk.
mod bitmap;
mod changed;
#[cfg(test)]
pub(super) mod tests;

use super::BlockDevice;
use crate::block::{BLOCK_BYTES, BlockRange, ExtentSet};
use bitmap::Bitmap;
use changed::Changed;
use rustix::fs::{FallocateFlags, FlockOperation, SeekFrom};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

const BLOCK: u64 = BLOCK_BYTES as u64;
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

pub struct Branch {
    base: Arc<dyn BlockDevice>,
    data: File,
    bits: RwLock<Bitmap>,
    /// Who fills the rest of a block from the base must not meet another writer of that block: it writes, the others read.
    filling: RwLock<()>,
    /// Serialises flushes.
    flushing: Mutex<()>,
    /// What was written since it was last asked for; of this process only.
    changed: Changed,
    /// Writers pass it together; who makes a recovery point of the branch closes it for a moment.
    gate: RwLock<()>,
    /// A sync of `data` failed: the kernel may have dropped what it could not write, and says so only once.
    failed: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A process that was killed a moment ago, or a child that it was just making, may hold the lock a little longer.
fn lock_file(data: &File, folder: &Path) -> io::Result<()> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match rustix::fs::flock(data, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(Errno::WOULDBLOCK) => {
                let text = format!("the branch {} is in use", folder.display());
                return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
            }
            other => return Ok(other?),
        }
    }
}

impl Drop for Branch {
    /// Not left to the closing of the file: a child that is being made may have a copy of it.
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.data, FlockOperation::Unlock);
    }
}

impl Branch {
    /// Makes the files of a branch, or opens those that are there. The base must be the one it was made over.
    /// `WouldBlock`: another process, or this one, has it open.
    pub fn open(folder: &Path, base: Arc<dyn BlockDevice>) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let data = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(folder.join("data"))?;
        lock_file(&data, folder)?;
        let blocks = base.size_bytes().div_ceil(BLOCK);
        let (bits, made) = Bitmap::open(folder, blocks)?;
        if made || data.metadata()?.len() != blocks * BLOCK {
            data.set_len(blocks * BLOCK)?;
            data.sync_all()?;
            bits.present()?.sync_all()?;
            File::open(folder)?.sync_all()?;
        }
        Ok(Self {
            base,
            data,
            bits: RwLock::new(bits),
            filling: RwLock::new(()),
            flushing: Mutex::new(()),
            changed: Changed::new(blocks),
            gate: RwLock::new(()),
            failed: AtomicBool::new(false),
        })
    }

    /// Removes the files of a branch; safe to repeat.
    pub fn discard(folder: &Path) -> io::Result<()> {
        match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Blocks that were written since the branch was made.
    pub fn changed_blocks(&self) -> u64 {
        self.bits().count()
    }

    /// The blocks that this branch answers for.
    pub fn written(&self) -> ExtentSet {
        let (bits, end) = (self.bits(), self.size_bytes().div_ceil(BLOCK));
        let mut written = ExtentSet::new();
        let mut at = 0;
        while at < end {
            let here = bits.get(at);
            let to = bits.run_end(at, end, here);
            if here {
                written.insert(BlockRange::new(at, to - at));
            }
            at = to;
        }
        written
    }

    /// The blocks written since the last call, or since the branch was opened. A block that is read after this holds at
    /// least what was written before it, or is named by the next call.
    pub fn take_changed(&self) -> ExtentSet {
        self.changed.take()
    }

    /// Holds writers back: none is under way, none begins until the guard is dropped.
    pub fn hold(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A write as a whole. It is noted when its data is in place: whoever takes the note and reads finds it.
    fn as_one_write(&self, offset: u64, len: u64, write: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.check_write(offset, len)?;
        let _passing = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let written = write();
        // Also one that failed: a part of it may be there.
        self.changed.note(offset / BLOCK, (offset + len).div_ceil(BLOCK));
        written
    }

    fn bits(&self) -> RwLockReadGuard<'_, Bitmap> {
        self.bits.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn bits_mut(&self) -> RwLockWriteGuard<'_, Bitmap> {
        self.bits.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, offset: u64, len: u64) -> io::Result<()> {
        if offset.checked_add(len).is_none_or(|end| end > self.size_bytes()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "past the end of the disk",
            ));
        }
        Ok(())
    }

    fn check_write(&self, offset: u64, len: u64) -> io::Result<()> {
        if self.failed.load(Ordering::Acquire) {
            return Err(io::Error::other("an earlier flush of this branch failed"));
        }
        self.check(offset, len)
    }

    /// Consecutive runs of the range: (offset, bytes, in this branch).
    fn runs(&self, offset: u64, len: u64) -> Vec<(u64, u64, bool)> {
        let bits = self.bits();
        let end = offset + len;
        let mut runs = Vec::new();
        let mut at = offset;
        while at < end {
            let here = bits.get(at / BLOCK);
            let to = (bits.run_end(at / BLOCK, end.div_ceil(BLOCK), here) * BLOCK).min(end);
            runs.push((at, to - at, here));
            at = to;
        }
        runs
    }

    /// After their data was written.
    fn mark(&self, offset: u64, len: u64) -> io::Result<()> {
        let (first, end) = (offset / BLOCK, (offset + len).div_ceil(BLOCK));
        // Most writes go where something was written before.
        if self.bits().all(first, end) {
            return Ok(());
        }
        self.bits_mut().set(first, end)
    }

    /// Writes a part of one block: the rest of it comes from the base when it is not here yet.
    fn write_part(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let block = offset / BLOCK;
        {
            let _shared = self.filling.read().unwrap_or_else(PoisonError::into_inner);
            if self.bits().get(block) {
                return self.data.write_all_at(data, offset);
            }
        }
        let _alone = self.filling.write().unwrap_or_else(PoisonError::into_inner);
        if self.bits().get(block) {
            return self.data.write_all_at(data, offset);
        }
        let mut whole = [0; BLOCK_BYTES];
        let there = (self.size_bytes() - block * BLOCK).min(BLOCK) as usize;
        self.base.read_at(block * BLOCK, &mut whole[..there])?;
        let at = (offset % BLOCK) as usize;
        whole[at..at + data.len()].copy_from_slice(data);
        self.data.write_all_at(&whole, block * BLOCK)?;
        self.mark(block * BLOCK, BLOCK)
    }

    /// Splits a range at blocks: a part of the first block, whole blocks, a part of the last one; each may be empty.
    /// A last block that the disk cuts short is whole for our purpose: `data` is longer than the disk.
    fn split(&self, offset: u64, len: u64) -> [(u64, u64); 3] {
        let end = offset + len;
        let whole_end = if end == self.size_bytes() {
            end
        } else {
            end / BLOCK * BLOCK
        };
        let whole_from = offset.next_multiple_of(BLOCK);
        if whole_from >= whole_end {
            // Within two blocks at most.
            let cut = whole_from.clamp(offset, end);
            return [(offset, cut - offset), (cut, 0), (cut, end - cut)];
        }
        [
            (offset, whole_from - offset),
            (whole_from, whole_end - whole_from),
            (whole_end, end - whole_end),
        ]
    }

    /// Makes whole blocks read as zeros, without writing them where the file system knows holes.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let _shared = self.filling.read().unwrap_or_else(PoisonError::into_inner);
        // To the end of a last block that the disk cuts short.
        let len = len.next_multiple_of(BLOCK);
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.data, flags, offset, len) {
            Err(Errno::OPNOTSUPP) => {
                let zeros = vec![0; len.min(1 << 20) as usize];
                let mut at = offset;
                while at < offset + len {
                    let part = (offset + len - at).min(zeros.len() as u64);
                    self.data.write_all_at(&zeros[..part as usize], at)?;
                    at += part;
                }
            }
            other => other?,
        }
        self.mark(offset, len)
    }

    /// Runs of (bytes, hole) of `data`; a hole reads as zeros. A file system that cannot tell has data everywhere.
    fn holes(&self, offset: u64, len: u64) -> Vec<(u64, bool)> {
        let end = offset + len;
        let mut runs = Vec::new();
        let mut at = offset;
        while at < end {
            let data = match rustix::fs::seek(&self.data, SeekFrom::Data(at)) {
                Ok(data) => data.min(end),
                Err(Errno::NXIO) => end,
                Err(_) => at,
            };
            if data > at {
                runs.push((data - at, true));
            }
            if data < end {
                let hole = rustix::fs::seek(&self.data, SeekFrom::Hole(data)).unwrap_or(end);
                let hole = hole.clamp(data + 1, end);
                runs.push((hole - data, false));
                at = hole;
            } else {
                at = end;
            }
        }
        runs
    }

    fn flush_with(&self, mut step: impl FnMut(usize)) -> io::Result<()> {
        let _one = lock(&self.flushing);
        if self.failed.load(Ordering::Acquire) {
            return Err(io::Error::other("an earlier flush of this branch failed"));
        }
        // The pages are taken before the data is synced: a bit set later waits for the next flush.
        let (pages, present) = {
            let mut bits = self.bits_mut();
            let present = bits.present()?;
            (bits.take_dirty(), present)
        };
        let result = (|| {
            step(0);
            self.data
                .sync_data()
                .inspect_err(|_| self.failed.store(true, Ordering::Release))?;
            step(1);
            for page in &pages {
                page.write(&present)?;
                step(2);
            }
            if pages.is_empty() {
                return Ok(());
            }
            present.sync_data()
        })();
        if result.is_err() {
            self.bits_mut().give_back(&pages);
        }
        result
    }
}

impl BlockDevice for Branch {
    fn size_bytes(&self) -> u64 {
        self.base.size_bytes()
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.check(offset, buffer.len() as u64)?;
        for (at, len, here) in self.runs(offset, buffer.len() as u64) {
            let part = &mut buffer[(at - offset) as usize..(at - offset + len) as usize];
            if here {
                self.data.read_exact_at(part, at)?
            } else {
                self.base.read_at(at, part)?
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.as_one_write(offset, data.len() as u64, || {
            let [head, whole, tail] = self.split(offset, data.len() as u64);
            let bytes = |(at, len): (u64, u64)| &data[(at - offset) as usize..(at - offset + len) as usize];
            for part in [head, tail] {
                if part.1 > 0 {
                    self.write_part(part.0, bytes(part))?;
                }
            }
            if whole.1 > 0 {
                let _shared = self.filling.read().unwrap_or_else(PoisonError::into_inner);
                self.data.write_all_at(bytes(whole), whole.0)?;
                self.mark(whole.0, whole.1)?;
            }
            Ok(())
        })
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> io::Result<()> {
        self.as_one_write(offset, len, || {
            let [head, whole, tail] = self.split(offset, len);
            for (at, len) in [head, tail] {
                if len > 0 {
                    self.write_part(at, &[0; BLOCK_BYTES][..len as usize])?;
                }
            }
            if whole.1 > 0 {
                self.punch(whole.0, whole.1)?;
            }
            Ok(())
        })
    }

    fn flush(&self) -> io::Result<()> {
        self.flush_with(|_| ())
    }

    fn status(&self, offset: u64, len: u64) -> io::Result<Vec<(u64, bool)>> {
        self.check(offset, len)?;
        let mut status: Vec<(u64, bool)> = Vec::new();
        for (at, len, here) in self.runs(offset, len) {
            let runs = if here {
                self.holes(at, len)
            } else {
                self.base.status(at, len)?
            };
            for (len, zero) in runs {
                match status.last_mut() {
                    Some(last) if last.1 == zero => last.0 += len,
                    _ => status.push((len, zero)),
                }
            }
        }
        Ok(status)
    }
}
