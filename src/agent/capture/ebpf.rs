//! Tracking by an eBPF program on the kernel's block tracepoints; maps and links are pinned, so that tracking
//! goes on while no agent runs.
//!
//! The pins of a disk are valid for one attachment of one device in one boot: the folder holds the device
//! number, the kernel's disk sequence number and the size in the map `identity`, written last. Anything else
//! is removed and made anew, and [`was_lost`](ChangeSource::was_lost) says so.
use super::{CaptureError, ChangeSource};
use crate::block::{BLOCK_BYTES, BlockRange, DiskId, ExtentSet};
use aya::maps::{Map, MapData};
use aya::programs::BtfTracePoint;
use aya::programs::links::FdLink;
use aya::{Btf, EbpfLoader};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

static OBJECT: &[u8] = aya::include_bytes_aligned!("bpf/changed_blocks.bpf.o");

const BPF_FS: &str = "/sys/fs/bpf";
const MAPS: [&str; 4] = ["changed", "pending", "in_flight", "identity"];
const SLOTS: usize = 16384;
const COUNT_BITS: u64 = 21;
const SALT_BITS: u64 = 7;
/// Last word of the identity: everything is attached and pinned.
const COMPLETE: u64 = 0x4c42_4f4b;
/// Index of the word that says: a point was sealed since tracking began.
const COMPARED: usize = 6;

fn failed(action: &'static str, object: &Path, source: std::io::Error) -> CaptureError {
    CaptureError::Io {
        action,
        object: object.to_owned(),
        source,
    }
}

fn unavailable(error: impl std::error::Error + Send + Sync + 'static) -> CaptureError {
    CaptureError::Unavailable(Box::new(error))
}

/// Whether this process may track here at all; the error says why not.
pub fn is_available() -> Result<(), CaptureError> {
    mount_bpf_fs()?;
    Btf::from_sys_fs().map(|_| ()).map_err(unavailable)
}

fn mount_bpf_fs() -> Result<(), CaptureError> {
    let path = Path::new(BPF_FS);
    const BPF_FS_MAGIC: i128 = 0xcafe_4a11;
    let is_bpf = rustix::fs::statfs(path).is_ok_and(|stat| i128::from(stat.f_type) == BPF_FS_MAGIC);
    if is_bpf {
        return Ok(());
    }
    rustix::mount::mount("bpf", path, "bpf", rustix::mount::MountFlags::empty(), None)
        .map_err(|e| failed("mount the bpf file system on", path, e.into()))
}

/// Ends the tracking of a disk for good, whoever began it.
pub fn forget(disk: DiskId) {
    EbpfSource::remove(&Path::new(BPF_FS).join("lifeboat").join(disk.to_string()));
}

/// The words of a map, shared with the kernel.
struct Words {
    map: memmap2::MmapRaw,
    len: usize,
}

impl Words {
    fn new(data: &MapData, len: usize) -> std::io::Result<Self> {
        let map = memmap2::MmapOptions::new()
            .len(len * 8)
            .map_raw(&data.fd().as_fd())?;
        Ok(Self { map, len })
    }

    fn iter(&self) -> impl Iterator<Item = &AtomicU64> {
        // SAFETY: the mapping is page-aligned, `len` words long, and lives as long as `self`; the kernel and
        // other processes change it by atomic operations only.
        (0..self.len)
            .map(|index| unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().cast::<u64>().add(index)) })
    }

    fn at(&self, index: usize) -> Option<&AtomicU64> {
        self.iter().nth(index)
    }
}

/// Which attachment of which device: major, minor, disk sequence number, size, boot.
fn identity_of(device: &Path) -> Result<[u64; 6], CaptureError> {
    let meta = std::fs::metadata(device).map_err(|e| failed("open", device, e))?;
    let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    let folder = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    let number = |name: &str| -> Result<u64, CaptureError> {
        let path = folder.join(name);
        let text = std::fs::read_to_string(&path).map_err(|e| failed("read", &path, e))?;
        text.trim()
            .parse()
            .map_err(|_| failed("read", &path, std::io::ErrorKind::InvalidData.into()))
    };
    if folder.join("dm").exists() || folder.join("md").exists() || !folder.join("mq").exists() {
        return Err(CaptureError::NotRequestBased(device.to_owned()));
    }
    // The sequence number tells two attachments under the same device number apart.
    Ok([
        u64::from(major),
        u64::from(minor),
        number("diskseq")?,
        number("size")?,
        0,
        COMPLETE,
    ])
}

pub struct EbpfSource {
    folder: PathBuf,
    changed: Words,
    pending: Words,
    in_flight: Words,
    identity: Words,
}

impl EbpfSource {
    /// Begins or takes up again the tracking of a whole disk.
    pub fn open(device: &Path, disk: DiskId) -> Result<Self, CaptureError> {
        mount_bpf_fs()?;
        let identity = identity_of(device)?;
        let folder = Path::new(BPF_FS).join("lifeboat").join(disk.to_string());
        if let Some(source) = Self::take_up(&folder, &identity) {
            return Ok(source);
        }
        Self::remove(&folder);
        Self::begin(&folder, &identity)
    }

    fn take_up(folder: &Path, identity: &[u64; 6]) -> Option<Self> {
        let data = |name: &str| MapData::from_pin(folder.join(name)).ok();
        let known = Words::new(&data("identity")?, 8).ok()?;
        let same = known
            .iter()
            .zip(identity)
            .all(|(word, expected)| word.load(Ordering::SeqCst) == *expected);
        if !same || !folder.join("completed").exists() || !folder.join("issued").exists() {
            return None;
        }
        let words = words_for(identity[3]);
        Some(Self {
            folder: folder.to_owned(),
            changed: Words::new(&data("changed")?, words).ok()?,
            pending: Words::new(&data("pending")?, words).ok()?,
            in_flight: Words::new(&data("in_flight")?, SLOTS).ok()?,
            identity: known,
        })
    }

    fn begin(folder: &Path, identity: &[u64; 6]) -> Result<Self, CaptureError> {
        let words = words_for(identity[3]);
        let btf = Btf::from_sys_fs().map_err(unavailable)?;
        let (major, minor, count) = (identity[0] as u32, identity[1] as u32, words as u64);
        let mut programs = EbpfLoader::new()
            .btf(Some(&btf))
            .override_global("disk_major", &major, true)
            .override_global("disk_minor", &minor, true)
            .override_global("word_count", &count, true)
            .map_max_entries("changed", words as u32)
            .map_max_entries("pending", words as u32)
            .load(OBJECT)
            .map_err(unavailable)?;
        std::fs::create_dir_all(folder).map_err(|e| failed("make", folder, e))?;
        let mut attach = |name: &str, tracepoint: &str, pin: &str| -> Result<(), CaptureError> {
            let missing = || {
                failed(
                    "find a program in",
                    Path::new(name),
                    std::io::ErrorKind::NotFound.into(),
                )
            };
            let program: &mut BtfTracePoint = programs
                .program_mut(name)
                .ok_or_else(missing)?
                .try_into()
                .map_err(unavailable)?;
            program.load(tracepoint, &btf).map_err(unavailable)?;
            let id = program.attach().map_err(unavailable)?;
            let link: FdLink = program.take_link(id).map_err(unavailable)?.into();
            link.pin(folder.join(pin)).map_err(unavailable)?;
            Ok(())
        };
        // The tracepoint lost its first argument in newer kernels; only the right program passes the verifier.
        attach("issued_request", "block_rq_issue", "issued")
            .or_else(|_| attach("issued_queue_request", "block_rq_issue", "issued"))?;
        attach("completed", "block_rq_complete", "completed")?;
        let mut maps = Vec::new();
        for name in MAPS {
            let Some(Map::Array(data)) = programs.take_map(name) else {
                return Err(failed(
                    "find the map in",
                    Path::new(name),
                    std::io::ErrorKind::NotFound.into(),
                ));
            };
            data.pin(folder.join(name)).map_err(unavailable)?;
            maps.push(data);
        }
        let map = |index: usize, len| Words::new(&maps[index], len).map_err(|e| failed("map", folder, e));
        let source = Self {
            folder: folder.to_owned(),
            changed: map(0, words)?,
            pending: map(1, words)?,
            in_flight: map(2, SLOTS)?,
            identity: map(3, 8)?,
        };
        for (word, value) in source.identity.iter().zip(identity) {
            word.store(*value, Ordering::SeqCst);
        }
        Ok(source)
    }

    fn remove(folder: &Path) {
        let Ok(entries) = std::fs::read_dir(folder) else {
            return;
        };
        for entry in entries.flatten() {
            let _ = std::fs::remove_file(entry.path());
        }
        let _ = std::fs::remove_dir(folder);
    }

    /// Ends the tracking for good.
    pub fn forget(self) {
        Self::remove(&self.folder);
    }

    fn add_pending(&self, range: BlockRange) {
        for block in range.first..range.end() {
            if let Some(word) = self.pending.at((block / 64) as usize) {
                word.fetch_or(1 << (block % 64), Ordering::SeqCst);
            }
        }
    }
}

fn words_for(sectors: u64) -> usize {
    (sectors * 512).div_ceil(BLOCK_BYTES as u64).div_ceil(64).max(1) as usize
}

fn insert_bits(set: &mut ExtentSet, word_index: usize, mut bits: u64) {
    while bits != 0 {
        let first = bits.trailing_zeros();
        let count = (bits >> first).trailing_ones();
        set.insert(BlockRange::new(
            word_index as u64 * 64 + u64::from(first),
            u64::from(count),
        ));
        bits &= if first + count == 64 {
            0
        } else {
            !0 << (first + count)
        };
    }
}

impl ChangeSource for EbpfSource {
    fn drain(&mut self, set: &mut ExtentSet) {
        for (index, (changed, pending)) in self.changed.iter().zip(self.pending.iter()).enumerate() {
            let bits = changed.load(Ordering::SeqCst);
            if bits != 0 {
                // Pending first: an agent that dies between the two takes the bits once more, never not at all.
                // A write that completes before the bit is wiped is on the medium when the block is read.
                pending.fetch_or(bits, Ordering::SeqCst);
                changed.fetch_and(!bits, Ordering::SeqCst);
                insert_bits(set, index, bits);
            }
        }
    }

    fn settle(&mut self, set: &mut ExtentSet) {
        for slot in self.in_flight.iter() {
            let note = slot.load(Ordering::SeqCst);
            if note == 0 {
                continue;
            }
            let range = BlockRange::new(
                note >> (COUNT_BITS + SALT_BITS),
                note >> SALT_BITS & ((1 << COUNT_BITS) - 1),
            );
            self.add_pending(range);
            set.insert(range);
            // The word stays when the tag was used again meanwhile: its salt differs.
            let _ = slot.compare_exchange(note, 0, Ordering::SeqCst, Ordering::SeqCst);
        }
    }

    fn pending(&self) -> ExtentSet {
        let mut set = ExtentSet::new();
        for (index, word) in self.pending.iter().enumerate() {
            insert_bits(&mut set, index, word.load(Ordering::SeqCst));
        }
        set
    }

    fn acknowledge(&mut self, set: &ExtentSet) {
        for range in set.iter() {
            let mut block = range.first;
            while block < range.end() {
                let end = ((block / 64 + 1) * 64).min(range.end());
                let mask = if end - block == 64 {
                    !0
                } else {
                    ((1u64 << (end - block)) - 1) << (block % 64)
                };
                if let Some(word) = self.pending.at((block / 64) as usize) {
                    word.fetch_and(!mask, Ordering::SeqCst);
                }
                block = end;
            }
        }
    }

    fn was_lost(&self) -> bool {
        self.identity
            .at(COMPARED)
            .is_none_or(|word| word.load(Ordering::SeqCst) == 0)
    }

    fn compared(&mut self) {
        if let Some(word) = self.identity.at(COMPARED) {
            word.store(1, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_object_was_built_from_the_committed_source() {
        let source = blake3::hash(include_bytes!("bpf/changed_blocks.bpf.c"));
        let recorded = include_str!("bpf/changed_blocks.bpf.blake3").trim();
        assert_eq!(
            source.to_hex().as_str(),
            recorded,
            "run src/agent/capture/bpf/build.sh"
        );
    }

    #[test]
    fn bits_become_ranges() {
        let mut set = ExtentSet::new();
        insert_bits(&mut set, 1, !0);
        insert_bits(&mut set, 2, 0b1011);
        insert_bits(&mut set, 3, 1 << 63);
        let ranges: Vec<_> = set.iter().map(|range| (range.first, range.count)).collect();
        assert_eq!(ranges, [(64, 66), (131, 1), (255, 1)]);
    }
}
