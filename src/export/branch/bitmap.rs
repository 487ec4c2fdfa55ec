//! Which blocks a branch answers for: in memory, in `live` (survives the process), in `present` (survives a power cut).
//!
//! `live` is written with `write`, not through a mapping: on a full file system a write fails, a mapping kills the process.
use crate::block::BLOCK_BYTES;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Part of `present` that is written at once.
const PAGE_BYTES: usize = 4096;
const HEADER_BYTES: usize = 4096;
const MAGIC: &[u8; 8] = b"LBBRLIVE";
const VERSION: u32 = 1;

pub(super) struct Bitmap {
    words: Vec<u8>,
    /// Pages of which `present` does not know all bits.
    dirty: Vec<bool>,
    live: File,
    present: File,
}

/// A page of bits as it was when a flush began.
pub(super) struct Page {
    index: usize,
    bytes: Vec<u8>,
}

fn boot_id() -> io::Result<[u8; 16]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let id = uuid::Uuid::parse_str(text.trim()).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    Ok(id.into_bytes())
}

fn header(blocks: u64) -> io::Result<Vec<u8>> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&VERSION.to_le_bytes());
    header.extend_from_slice(&[0; 4]);
    header.extend_from_slice(&boot_id()?);
    header.extend_from_slice(&blocks.to_le_bytes());
    header.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
    header.resize(HEADER_BYTES, 0);
    Ok(header)
}

fn options() -> std::fs::OpenOptions {
    let mut options = File::options();
    options.read(true).write(true).mode(0o600);
    options
}

/// Reads what is not a hole.
fn read_sparse(file: &File, from: u64, words: &mut [u8]) -> io::Result<()> {
    let end = from + words.len() as u64;
    let mut at = from;
    while at < end {
        let data = match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(rustix::io::Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let hole = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(data))?.min(end);
        if data >= hole {
            return Ok(());
        }
        file.read_exact_at(&mut words[(data - from) as usize..(hole - from) as usize], data)?;
        at = hole;
    }
    Ok(())
}

impl Bitmap {
    /// True: `present` was made here, so the folder must be synced.
    pub fn open(folder: &Path, blocks: u64) -> io::Result<(Self, bool)> {
        let pages = (blocks as usize).div_ceil(8 * PAGE_BYTES);
        let len = pages * PAGE_BYTES;
        let present = options()
            .create(true)
            .truncate(false)
            .open(folder.join("present"))?;
        let found = present.metadata()?.len();
        if found != 0 && found != len as u64 {
            let text = format!("{} belongs to a disk of another size", folder.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        present.set_len(len as u64)?;
        let mut durable = vec![0; len];
        read_sparse(&present, 0, &mut durable)?;
        let header = header(blocks)?;
        let (live, words) = match Self::open_live(folder, &header, len)? {
            Some(found) => found,
            None => (Self::make_live(folder, &header, &durable)?, durable.clone()),
        };
        let dirty = words
            .chunks(PAGE_BYTES)
            .zip(durable.chunks(PAGE_BYTES))
            .map(|(live, durable)| live != durable)
            .collect();
        let bitmap = Self {
            words,
            dirty,
            live,
            present,
        };
        Ok((bitmap, found == 0))
    }

    /// None: there is none of this boot of the host.
    fn open_live(folder: &Path, header: &[u8], len: usize) -> io::Result<Option<(File, Vec<u8>)>> {
        let file = match options().open(folder.join("live")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        if file.metadata()?.len() != (HEADER_BYTES + len) as u64 {
            return Ok(None);
        }
        let mut found = vec![0; HEADER_BYTES];
        file.read_exact_at(&mut found, 0)?;
        if found != header {
            return Ok(None);
        }
        let mut words = vec![0; len];
        read_sparse(&file, HEADER_BYTES as u64, &mut words)?;
        Ok(Some((file, words)))
    }

    /// Under another name first: a process that is killed here leaves no half `live`.
    fn make_live(folder: &Path, header: &[u8], words: &[u8]) -> io::Result<File> {
        let unfinished = folder.join("live.new");
        let file = options().create(true).truncate(true).open(&unfinished)?;
        file.set_len((HEADER_BYTES + words.len()) as u64)?;
        file.write_all_at(header, 0)?;
        for (index, page) in words.chunks(PAGE_BYTES).enumerate() {
            if page.iter().any(|byte| *byte != 0) {
                file.write_all_at(page, (HEADER_BYTES + index * PAGE_BYTES) as u64)?;
            }
        }
        std::fs::rename(unfinished, folder.join("live"))?;
        Ok(file)
    }

    pub fn get(&self, block: u64) -> bool {
        self.words[(block / 8) as usize] & 1 << (block % 8) != 0
    }

    pub fn all(&self, first: u64, end: u64) -> bool {
        (first..end).all(|block| self.get(block))
    }

    /// First block at or after `from`, before `end`, whose bit is not `bit`; `end` when there is none.
    pub fn run_end(&self, from: u64, end: u64, bit: bool) -> u64 {
        let uniform = if bit { 0xff } else { 0 };
        let mut at = from;
        while at < end {
            if at.is_multiple_of(8) && at + 8 <= end && self.words[(at / 8) as usize] == uniform {
                at += 8;
            } else if self.get(at) == bit {
                at += 1;
            } else {
                return at;
            }
        }
        end
    }

    /// The data of these blocks must have been written. On return a killed process does not lose them.
    pub fn set(&mut self, first: u64, end: u64) -> io::Result<()> {
        if self.all(first, end) {
            return Ok(());
        }
        let from = (first / 8) as usize;
        let mut bytes = self.words[from..end.div_ceil(8) as usize].to_vec();
        for block in first..end {
            bytes[(block / 8) as usize - from] |= 1 << (block % 8);
        }
        self.live.write_all_at(&bytes, (HEADER_BYTES + from) as u64)?;
        for (index, byte) in bytes.into_iter().enumerate() {
            if self.words[from + index] != byte {
                self.words[from + index] = byte;
                self.dirty[(from + index) / PAGE_BYTES] = true;
            }
        }
        Ok(())
    }

    /// Bits that are set.
    pub fn count(&self) -> u64 {
        self.words.iter().map(|byte| u64::from(byte.count_ones())).sum()
    }

    /// The pages that a flush must make durable. They count as clean from here on.
    pub fn take_dirty(&mut self) -> Vec<Page> {
        let mut pages = Vec::new();
        for (index, dirty) in self.dirty.iter_mut().enumerate() {
            if std::mem::take(dirty) {
                let bytes = self.words[index * PAGE_BYTES..][..PAGE_BYTES].to_vec();
                pages.push(Page { index, bytes });
            }
        }
        pages
    }

    /// After a flush that failed.
    pub fn give_back(&mut self, pages: &[Page]) {
        pages.iter().for_each(|page| self.dirty[page.index] = true);
    }

    /// A second handle on `present`, so that a flush writes it without holding the bits.
    pub fn present(&self) -> io::Result<File> {
        self.present.try_clone()
    }
}

impl Page {
    pub fn write(&self, present: &File) -> io::Result<()> {
        present.write_all_at(&self.bytes, (self.index * PAGE_BYTES) as u64)
    }
}

const _: () = assert!(BLOCK_BYTES == 4096, "the format says so");
