//! A branch: a read-only disk with what was written since in files beside it (copy on write).
//!
//! Two files in the branch's folder: `data`, sparse, as large as the disk; `present`, one bit per 4 KiB block
//! that `data` answers for. A flush makes `data` durable first and `present` after it, so a bit never promises
//! a block that is not there. What was written after the last flush may be lost in a crash, as with any disk.
use super::BlockDevice;
use crate::block::BLOCK_BYTES;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

const BLOCK: u64 = BLOCK_BYTES as u64;
/// Part of `present` that is written at once.
const PAGE_BYTES: usize = 4096;

pub struct Branch {
    base: Arc<dyn BlockDevice>,
    data: File,
    present: File,
    bits: RwLock<Bits>,
    /// Serialises the writers that must first read the rest of a block.
    partial: Mutex<()>,
    /// Serialises flushes.
    flushing: Mutex<()>,
}

struct Bits {
    words: Vec<u8>,
    dirty_pages: Vec<bool>,
}

impl Bits {
    fn get(&self, block: u64) -> bool {
        self.words[(block / 8) as usize] & 1 << (block % 8) != 0
    }

    fn set(&mut self, block: u64) {
        self.words[(block / 8) as usize] |= 1 << (block % 8);
        self.dirty_pages[block as usize / 8 / PAGE_BYTES] = true;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Branch {
    /// Makes the files of a branch, or opens those that are there. The base must be the one it was made over.
    pub fn open(folder: &Path, base: Arc<dyn BlockDevice>) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let open = |name: &str| {
            File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(folder.join(name))
        };
        let (data, present) = (open("data")?, open("present")?);
        let blocks = base.size_bytes().div_ceil(BLOCK);
        let pages = (blocks as usize).div_ceil(8 * PAGE_BYTES);
        let found = present.metadata()?.len();
        if found != 0 && found != (pages * PAGE_BYTES) as u64 {
            let text = format!("{} belongs to a disk of another size", folder.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        data.set_len(blocks * BLOCK)?;
        present.set_len((pages * PAGE_BYTES) as u64)?;
        let mut words = vec![0; pages * PAGE_BYTES];
        present.read_exact_at(&mut words, 0)?;
        data.sync_all()?;
        present.sync_all()?;
        File::open(folder)?.sync_all()?;
        let bits = RwLock::new(Bits {
            words,
            dirty_pages: vec![false; pages],
        });
        Ok(Self {
            base,
            data,
            present,
            bits,
            partial: Mutex::new(()),
            flushing: Mutex::new(()),
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
        self.bits()
            .words
            .iter()
            .map(|byte| u64::from(byte.count_ones()))
            .sum()
    }

    fn bits(&self) -> std::sync::RwLockReadGuard<'_, Bits> {
        self.bits.read().unwrap_or_else(PoisonError::into_inner)
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

    /// Consecutive runs of the range: (offset, bytes, in this branch).
    fn runs(&self, offset: u64, len: u64) -> Vec<(u64, u64, bool)> {
        let bits = self.bits();
        let mut runs: Vec<(u64, u64, bool)> = Vec::new();
        let mut at = offset;
        while at < offset + len {
            let end = ((at / BLOCK + 1) * BLOCK).min(offset + len);
            let here = bits.get(at / BLOCK);
            match runs.last_mut() {
                Some(last) if last.2 == here => last.1 += end - at,
                _ => runs.push((at, end - at, here)),
            }
            at = end;
        }
        runs
    }

    fn mark(&self, offset: u64, len: u64) {
        let mut bits = self.bits.write().unwrap_or_else(PoisonError::into_inner);
        for block in offset / BLOCK..(offset + len).div_ceil(BLOCK) {
            bits.set(block);
        }
    }

    /// Writes a part of one block: the rest of it comes from the base when it is not here yet.
    fn write_part(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let _one = lock(&self.partial);
        let block = offset / BLOCK;
        if !self.bits().get(block) {
            let mut whole = [0; BLOCK_BYTES];
            let there = (self.size_bytes() - block * BLOCK).min(BLOCK) as usize;
            self.base.read_at(block * BLOCK, &mut whole[..there])?;
            let at = (offset % BLOCK) as usize;
            whole[at..at + data.len()].copy_from_slice(data);
            self.data.write_all_at(&whole, block * BLOCK)?;
            self.mark(block * BLOCK, BLOCK);
            return Ok(());
        }
        self.data.write_all_at(data, offset)
    }

    fn flush_with(&self, mut step: impl FnMut(usize)) -> io::Result<()> {
        let _one = lock(&self.flushing);
        // The pages are taken before the data is synced: a bit set later waits for the next flush.
        let pages: Vec<(usize, Vec<u8>)> = {
            let mut bits = self.bits.write().unwrap_or_else(PoisonError::into_inner);
            let dirty: Vec<usize> = (0..bits.dirty_pages.len())
                .filter(|&page| bits.dirty_pages[page])
                .collect();
            dirty.iter().for_each(|&page| bits.dirty_pages[page] = false);
            dirty
                .into_iter()
                .map(|page| (page, bits.words[page * PAGE_BYTES..][..PAGE_BYTES].to_vec()))
                .collect()
        };
        let result = (|| {
            step(0);
            self.data.sync_data()?;
            step(1);
            for (page, bytes) in &pages {
                self.present.write_all_at(bytes, (page * PAGE_BYTES) as u64)?;
                step(2);
            }
            self.present.sync_data()
        })();
        if result.is_err() {
            let mut bits = self.bits.write().unwrap_or_else(PoisonError::into_inner);
            pages.iter().for_each(|(page, _)| bits.dirty_pages[*page] = true);
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
        self.check(offset, data.len() as u64)?;
        let end = offset + data.len() as u64;
        // A last block that the disk cuts short is whole for our purpose: `data` is longer than the disk.
        let whole_end = if end == self.size_bytes() {
            end
        } else {
            end / BLOCK * BLOCK
        };
        let whole_from = offset.div_ceil(BLOCK) * BLOCK;
        if whole_from >= whole_end {
            let cut = whole_from.clamp(offset, end);
            let (head, tail) = data.split_at((cut - offset) as usize);
            for (at, part) in [(offset, head), (cut, tail)] {
                if !part.is_empty() {
                    self.write_part(at, part)?;
                }
            }
            return Ok(());
        }
        if whole_from > offset {
            self.write_part(offset, &data[..(whole_from - offset) as usize])?;
        }
        self.data.write_all_at(
            &data[(whole_from - offset) as usize..(whole_end - offset) as usize],
            whole_from,
        )?;
        self.mark(whole_from, whole_end - whole_from);
        if end > whole_end {
            self.write_part(whole_end, &data[(whole_end - offset) as usize..])?;
        }
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check(offset, len)?;
        let zeros = vec![0; len.min(1 << 20) as usize];
        let mut at = offset;
        while at < offset + len {
            // To a multiple of the buffer's size, so that all but the first and last part are whole blocks.
            let part = ((at / (1 << 20) + 1) * (1 << 20)).min(offset + len) - at;
            self.write_at(at, &zeros[..part as usize])?;
            at += part;
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.flush_with(|_| ())
    }

    fn status(&self, offset: u64, len: u64) -> io::Result<Vec<(u64, bool)>> {
        self.check(offset, len)?;
        let mut status: Vec<(u64, bool)> = Vec::new();
        for (at, len, here) in self.runs(offset, len) {
            let runs = if here {
                vec![(len, false)]
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A base whose every byte tells its place.
    pub struct Pattern(pub u64);

    pub fn pattern(at: u64) -> u8 {
        (at / 7 % 251) as u8
    }

    impl BlockDevice for Pattern {
        fn size_bytes(&self) -> u64 {
            self.0
        }
        fn read_only(&self) -> bool {
            true
        }
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            buffer
                .iter_mut()
                .enumerate()
                .for_each(|(index, byte)| *byte = pattern(offset + index as u64));
            Ok(())
        }
        fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
            Err(io::ErrorKind::PermissionDenied.into())
        }
        fn write_zeroes(&self, _: u64, _: u64) -> io::Result<()> {
            Err(io::ErrorKind::PermissionDenied.into())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
        fn status(&self, _: u64, len: u64) -> io::Result<Vec<(u64, bool)>> {
            Ok(vec![(len, false)])
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
        #[test]
        fn reads_what_was_written_also_after_reopening(
            short in 0u64..3,
            steps in prop::collection::vec((0u64..70_000, 1u64..20_000, any::<Option<u8>>()), 1..20),
        ) {
            let size = 20 * BLOCK - short * 512;
            let folder = tempfile::tempdir().unwrap();
            let mut branch = Branch::open(folder.path(), Arc::new(Pattern(size))).unwrap();
            let mut model: Vec<u8> = (0..size).map(pattern).collect();
            for (offset, len, byte) in steps {
                let len = len.min(size - offset);
                match byte {
                    Some(0) => branch.write_zeroes(offset, len).unwrap(),
                    Some(byte) => branch.write_at(offset, &vec![byte; len as usize]).unwrap(),
                    None => {
                        branch.flush().unwrap();
                        drop(branch);
                        branch = Branch::open(folder.path(), Arc::new(Pattern(size))).unwrap();
                    }
                }
                if let Some(byte) = byte {
                    model[offset as usize..(offset + len) as usize].fill(byte);
                }
                let mut read = vec![0; size as usize];
                branch.read_at(0, &mut read).unwrap();
                prop_assert!(read == model);
            }
            prop_assert!(branch.write_at(size, &[1]).is_err());
        }
    }

    #[test]
    fn a_crash_at_each_step_of_a_flush_keeps_what_was_flushed_before() {
        let size = 80_000 * BLOCK;
        for cut in 0..5 {
            let folder = tempfile::tempdir().unwrap();
            let copy = tempfile::tempdir().unwrap();
            let branch = Branch::open(folder.path(), Arc::new(Pattern(size))).unwrap();
            branch.write_at(100, &[1; 10]).unwrap();
            branch.flush().unwrap();
            branch.write_at(200, &[2; 10]).unwrap();
            branch.write_at(79_000 * BLOCK, &[3; BLOCK_BYTES]).unwrap();
            let mut count = 0;
            branch
                .flush_with(|_| {
                    if count == cut {
                        // What a killed process leaves: the files as they are now.
                        for name in ["data", "present"] {
                            let args = [
                                "--sparse=always".into(),
                                folder.path().join(name),
                                copy.path().join(name),
                            ];
                            assert!(
                                std::process::Command::new("cp")
                                    .args(args)
                                    .status()
                                    .unwrap()
                                    .success()
                            );
                        }
                    }
                    count += 1;
                })
                .unwrap();
            if count <= cut {
                break;
            }
            let crashed = Branch::open(copy.path(), Arc::new(Pattern(size))).unwrap();
            let mut read = [0; 300];
            crashed.read_at(0, &mut read).unwrap();
            assert_eq!(read[100..110], [1; 10]);
            assert_eq!(read[0], pattern(0));
            assert!(read[200..210] == [2; 10] || (200..210).all(|at| read[at] == pattern(at as u64)));
            crashed.read_at(79_000 * BLOCK, &mut read[..1]).unwrap();
            assert!(read[0] == 3 || read[0] == pattern(79_000 * BLOCK));
        }
    }

    #[test]
    fn a_folder_of_another_disk_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        Branch::open(folder.path(), Arc::new(Pattern(BLOCK))).unwrap();
        assert!(Branch::open(folder.path(), Arc::new(Pattern(1 << 30))).is_err());
        Branch::discard(folder.path()).unwrap();
        Branch::discard(folder.path()).unwrap();
    }
}
