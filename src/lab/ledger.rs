//! The workload's data: a hash-chained ledger and a table of slots, written so that any loss shows.
//!
//! Two files in one folder, little-endian, never renamed after they are made.
//! ```text
//! ledger  header, then one record of 128 bytes per entry, appended
//!   header  0 "LBLEDGER"  8 version u32 = 1  12 slots u32  16 name [64]  80 zero [16]  96 BLAKE3 of 0..96
//!   record  0 number u64 (from 1)  8 stamp i64 (Unix ns)  16 slot u32  20 slot version u32
//!           24 digest of the slot's copy [32]  56 text [40]  96 BLAKE3(hash of the record before | 0..96)
//! table   two copies of 4096 bytes per slot, written in place; version v lives in copy v % 2; never written: zero
//!   copy    0 "LBSLOT01"  8 slot u32  12 version u32  16 entry u64  24 stamp i64
//!           32 hash of the ledger at entry - 1 [32]  64 content  4064 BLAKE3 of 0..4064
//! ```
//! Step n of the writer: the slot that the hash of entry n - 1 chooses gets its next version, which names entry n;
//! the table is flushed; entry n, which names that slot, version and digest, is appended; the ledger is flushed.
//! So on a disk at any crash-consistent instant, with N the last whole entry:
//! - entries 1 to N are whole and chained; behind them at most one torn record, and then its slot is whole;
//! - every copy holds exactly what the entries say, except the one that step N + 1 writes: old, torn, or whole.
//!   Because the chain chooses the slot, it is known which copy that may be, and nothing else is excused.
//! - no copy names an entry above N + 1: entries that went missing from the end are seen by the table.
//!
//! What cannot be seen from the folder alone: the last entry lost together with being in flight. Whoever counts
//! the acknowledged entries (the lab does) sees that too.
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

pub const LEDGER_FILE: &str = "ledger";
pub const TABLE_FILE: &str = "table";
/// Header and every record. Divides a sector, so that no record spans two.
pub const RECORD_LEN: usize = 128;
/// One page and one block of the file system: a copy is written by one request.
pub(super) const COPY_LEN: usize = 4096;
const HASHED: usize = RECORD_LEN - 32;
const COPY_HASHED: usize = COPY_LEN - 32;
const CONTENT: usize = 64;
const NAME_LEN: usize = 64;
const TEXT_LEN: usize = 40;
/// A table of 8 GiB; what is above is no ledger of ours.
pub(super) const SLOTS_LIMIT: u32 = 1 << 20;

pub type Hash = [u8; 32];

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("cannot {action} {path}")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the ledger in {folder} is broken: {problem}")]
    Broken { folder: PathBuf, problem: String },
    #[error("a ledger needs a name of 1 to 64 bytes and 1 to {SLOTS_LIMIT} slots")]
    Invalid,
    #[error("an earlier write failed; the ledger must be opened again")]
    Failed,
}

fn on<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> LedgerError + 'a {
    move |source| LedgerError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub name: String,
    pub slots: u32,
    /// Where the chain begins.
    pub hash: Hash,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub number: u64,
    pub stamp_unix_nanos: i64,
    pub slot: u32,
    pub slot_version: u32,
    pub slot_digest: Hash,
    pub hash: Hash,
}

/// What one copy of a slot says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SlotCopy {
    pub slot: u32,
    pub version: u32,
    pub entry: u64,
    pub ledger_hash: Hash,
    pub digest: Hash,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4]
        .iter()
        .rev()
        .fold(0, |value, byte| value << 8 | u32::from(*byte))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8]
        .iter()
        .rev()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn hash_at(bytes: &[u8], at: usize) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(&bytes[at..at + 32]);
    hash
}

impl Header {
    fn encode(name: &str, slots: u32) -> [u8; RECORD_LEN] {
        let mut bytes = [0; RECORD_LEN];
        bytes[..8].copy_from_slice(b"LBLEDGER");
        bytes[8..12].copy_from_slice(&1_u32.to_le_bytes());
        bytes[12..16].copy_from_slice(&slots.to_le_bytes());
        bytes[16..16 + name.len()].copy_from_slice(name.as_bytes());
        let hash = blake3::hash(&bytes[..HASHED]);
        bytes[HASHED..].copy_from_slice(hash.as_bytes());
        bytes
    }

    /// None: not a whole header of a version that is known.
    pub(super) fn decode(bytes: &[u8; RECORD_LEN]) -> Option<Self> {
        let hash = hash_at(bytes, HASHED);
        let slots = u32_at(bytes, 12);
        let known = bytes.starts_with(b"LBLEDGER") && u32_at(bytes, 8) == 1;
        if !known || *blake3::hash(&bytes[..HASHED]).as_bytes() != hash || !(1..=SLOTS_LIMIT).contains(&slots)
        {
            return None;
        }
        let name = std::str::from_utf8(&bytes[16..16 + NAME_LEN]).ok()?;
        Some(Self {
            name: name.trim_end_matches('\0').to_owned(),
            slots,
            hash,
        })
    }
}

impl Entry {
    /// The entry as it stands there, and whether its hash follows from `before`.
    pub(super) fn decode(bytes: &[u8; RECORD_LEN], before: &Hash) -> (Self, bool) {
        let entry = Self {
            number: u64_at(bytes, 0),
            stamp_unix_nanos: u64_at(bytes, 8).cast_signed(),
            slot: u32_at(bytes, 16),
            slot_version: u32_at(bytes, 20),
            slot_digest: hash_at(bytes, 24),
            hash: hash_at(bytes, HASHED),
        };
        let follows = chained(before, &bytes[..HASHED]) == entry.hash;
        (entry, follows)
    }

    fn encode(&mut self, before: &Hash, text: &str) -> [u8; RECORD_LEN] {
        let mut bytes = [0; RECORD_LEN];
        bytes[..8].copy_from_slice(&self.number.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.stamp_unix_nanos.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.slot.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.slot_version.to_le_bytes());
        bytes[24..56].copy_from_slice(&self.slot_digest);
        let len = text.len().min(TEXT_LEN);
        bytes[56..56 + len].copy_from_slice(&text.as_bytes()[..len]);
        self.hash = chained(before, &bytes[..HASHED]);
        bytes[HASHED..].copy_from_slice(&self.hash);
        bytes
    }
}

impl SlotCopy {
    fn encode(&mut self, stamp_unix_nanos: i64) -> Vec<u8> {
        let mut bytes = vec![0; COPY_LEN];
        bytes[..8].copy_from_slice(b"LBSLOT01");
        bytes[8..12].copy_from_slice(&self.slot.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.version.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.entry.to_le_bytes());
        bytes[24..32].copy_from_slice(&stamp_unix_nanos.to_le_bytes());
        bytes[32..64].copy_from_slice(&self.ledger_hash);
        // Half of it compresses and half does not, like the pages of a database.
        let middle = CONTENT + (COPY_HASHED - CONTENT) / 2;
        let mut noise = blake3::Hasher::new_keyed(&self.ledger_hash);
        noise.update(&self.version.to_le_bytes());
        noise.finalize_xof().fill(&mut bytes[CONTENT..middle]);
        let line = format!("slot {} entry {}; ", self.slot, self.entry);
        for (byte, letter) in bytes[middle..COPY_HASHED].iter_mut().zip(line.bytes().cycle()) {
            *byte = letter;
        }
        self.digest = *blake3::hash(&bytes[..COPY_HASHED]).as_bytes();
        bytes[COPY_HASHED..].copy_from_slice(&self.digest);
        bytes
    }

    /// None: torn, damaged, or never written.
    pub(super) fn decode(bytes: &[u8; COPY_LEN]) -> Option<Self> {
        let digest = hash_at(bytes, COPY_HASHED);
        if !bytes.starts_with(b"LBSLOT01") || *blake3::hash(&bytes[..COPY_HASHED]).as_bytes() != digest {
            return None;
        }
        Some(Self {
            slot: u32_at(bytes, 8),
            version: u32_at(bytes, 12),
            entry: u64_at(bytes, 16),
            ledger_hash: hash_at(bytes, 32),
            digest,
        })
    }
}

fn chained(before: &Hash, bytes: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before).update(bytes);
    *hasher.finalize().as_bytes()
}

/// The slot that the step after the entry with this hash writes.
pub(super) fn next_slot(hash: &Hash, slots: u32) -> u32 {
    u32::try_from(u64_at(hash, 0) % u64::from(slots)).unwrap_or(0)
}

/// Byte offset of the copy that holds a version of a slot.
pub(super) fn copy_offset(slot: u32, version: u32) -> u64 {
    (u64::from(slot) * 2 + u64::from(version % 2)) * COPY_LEN as u64
}

/// Makes an empty ledger and table. The ledger comes last: where it exists, the table is whole.
pub fn create(folder: &Path, name: &str, slots: u32) -> Result<(), LedgerError> {
    if name.is_empty() || name.len() > NAME_LEN || !(1..=SLOTS_LIMIT).contains(&slots) {
        return Err(LedgerError::Invalid);
    }
    std::fs::create_dir_all(folder).map_err(on("make", folder))?;
    let path = folder.join(TABLE_FILE);
    let table = File::create(&path).map_err(on("make", &path))?;
    // Written, not just sized: later writes then change blocks in place and nothing else.
    let zeros = vec![0; COPY_LEN * 2];
    for slot in 0..slots {
        table
            .write_all_at(&zeros, copy_offset(slot, 0))
            .map_err(on("write", &path))?;
    }
    table.sync_all().map_err(on("flush", &path))?;
    let path = folder.join(LEDGER_FILE);
    let new = folder.join("ledger.new");
    std::fs::write(&new, Header::encode(name, slots)).map_err(on("write", &new))?;
    File::open(&new)
        .and_then(|file| file.sync_all())
        .map_err(on("flush", &new))?;
    std::fs::rename(&new, &path).map_err(on("name", &path))?;
    File::open(folder)
        .and_then(|file| file.sync_all())
        .map_err(on("flush", folder))
}

/// The one writer of a ledger.
pub struct Ledger {
    folder: PathBuf,
    ledger: File,
    table: File,
    header: Header,
    last: u64,
    last_hash: Hash,
    last_stamp: i64,
    versions: Vec<u32>,
    failed: bool,
}

impl Ledger {
    /// Opens after a proper end or a crash; refuses what [`super::verify::verify`] finds broken, and cuts off a torn tail.
    pub fn open(folder: &Path) -> Result<Self, LedgerError> {
        let broken = |problem: String| LedgerError::Broken {
            folder: folder.to_owned(),
            problem,
        };
        let (verdict, state) = super::verify::replay(folder);
        if let Some(problem) = verdict.problems.first() {
            return Err(broken(problem.to_string()));
        }
        let Some(state) = state else {
            return Err(broken("there is no ledger".to_owned()));
        };
        let path = folder.join(LEDGER_FILE);
        let ledger = File::options()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(on("open", &path))?;
        ledger
            .set_len(record_offset(state.last + 1))
            .map_err(on("cut", &path))?;
        ledger.sync_all().map_err(on("flush", &path))?;
        let path = folder.join(TABLE_FILE);
        let table = File::options()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(on("open", &path))?;
        Ok(Self {
            folder: folder.to_owned(),
            ledger,
            table,
            header: state.header,
            last: state.last,
            last_hash: state.last_hash,
            last_stamp: state.last_stamp.unwrap_or(i64::MIN),
            versions: state.versions,
            failed: false,
        })
    }

    /// Number of the newest entry; everything up to it is durable.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Does one step. When it returns, the entry and its slot are durable; after an error neither may be, and the
    /// ledger must be opened again.
    pub fn append(&mut self, now_unix_nanos: i64) -> Result<u64, LedgerError> {
        if self.failed {
            return Err(LedgerError::Failed);
        }
        // Whatever is only half done below is settled by opening again, so that the state here is never guessed.
        self.failed = true;
        let number = self.last + 1;
        // A clock set back must not make entries look older than those before them.
        let stamp = now_unix_nanos.max(self.last_stamp);
        let slot = next_slot(&self.last_hash, self.header.slots);
        let mut copy = SlotCopy {
            slot,
            version: self.versions[slot as usize].wrapping_add(1),
            entry: number,
            ledger_hash: self.last_hash,
            digest: [0; 32],
        };
        let bytes = copy.encode(stamp);
        let path = self.folder.join(TABLE_FILE);
        self.table
            .write_all_at(&bytes, copy_offset(slot, copy.version))
            .and_then(|()| self.table.sync_data())
            .map_err(on("write", &path))?;
        let mut entry = Entry {
            number,
            stamp_unix_nanos: stamp,
            slot,
            slot_version: copy.version,
            slot_digest: copy.digest,
            hash: [0; 32],
        };
        let text = format!("order {number} of {}", self.header.name);
        let bytes = entry.encode(&self.last_hash, &text);
        let path = self.folder.join(LEDGER_FILE);
        self.ledger
            .write_all_at(&bytes, record_offset(number))
            .and_then(|()| self.ledger.sync_data())
            .map_err(on("write", &path))?;
        self.versions[slot as usize] = copy.version;
        self.last = number;
        self.last_hash = entry.hash;
        self.last_stamp = stamp;
        self.failed = false;
        Ok(number)
    }
}

pub(super) fn record_offset(number: u64) -> u64 {
    number * RECORD_LEN as u64
}

/// Reads a record, or as much as there is: the bytes read.
pub(super) fn read_record(from: &mut impl Read, record: &mut [u8; RECORD_LEN]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < RECORD_LEN {
        match from.read(&mut record[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// How many entries a ledger holds that were stamped at or before an instant, also while it is being written.
///
/// The stamp is taken when an entry's step begins. Of the entries counted at the instant of a freeze, the last one may
/// therefore not have been written yet: a recovery point holds this many, or one less.
pub fn entries_at(folder: &Path, instant_unix_nanos: i64) -> Result<u64, LedgerError> {
    let path = folder.join(LEDGER_FILE);
    let file = File::open(&path).map_err(on("open", &path))?;
    let len = file.metadata().map_err(on("read", &path))?.len();
    let read = |number: u64| -> Result<[u8; RECORD_LEN], LedgerError> {
        let mut record = [0; RECORD_LEN];
        file.read_exact_at(&mut record, record_offset(number))
            .map_err(on("read", &path))?;
        Ok(record)
    };
    let mut last = (len / RECORD_LEN as u64).saturating_sub(1);
    if last == 0 {
        return Ok(0);
    }
    // The last one may be half written just now.
    let before = hash_at(&read(last - 1)?, HASHED);
    if !Entry::decode(&read(last)?, &before).1 {
        last -= 1;
    }
    // Stamps never fall: the first entry behind the instant is found by halving.
    let (mut low, mut high) = (0, last);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if u64_at(&read(middle)?, 8).cast_signed() <= instant_unix_nanos {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    Ok(low)
}

/// Entries in the ledger, also while it is being written.
pub fn entries(folder: &Path) -> Result<u64, LedgerError> {
    entries_at(folder, i64::MAX)
}
