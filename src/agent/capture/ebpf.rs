//! Tracking by eBPF programs on the kernel's block tracepoints; maps and links are pinned, so that tracking goes
//! on while no agent runs.
//!
//! The pins of a disk are valid for one attachment of one device in one boot: the folder holds the device
//! number, the kernel's disk sequence number and the size in the map `identity`, written last. Anything else
//! is removed and made anew, and [`was_lost`](ChangeSource::was_lost) says so.
use super::bits::{Bits, outside, summary_words};
use super::{CaptureError, CaptureKind, ChangeSource};
use crate::block::{BLOCK_BYTES, BlockRange, DiskId, PointId};
use aya::maps::{Map, MapData};
use aya::programs::links::FdLink;
use aya::programs::{BtfTracePoint, ProgramInfo};
use aya::{Btf, EbpfLoader};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Built by `build.rs` from `bpf/changed_blocks.bpf.c`, or the committed one where there is no clang.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/changed_blocks.bpf.o"));

const BPF_FS: &str = "/sys/fs/bpf";
/// Pin of the program that notes what begins.
const PROGRAM: &str = "issued_program";
const MAPS: [&str; 5] = ["changed", "summary", "pending", "in_flight", "identity"];
/// Layout of a note, as in the program: first block, count of blocks, salt, and our own mark for "seen".
const COUNT_BITS: u64 = 21;
const SALT_BITS: u64 = 7;
const SEEN: u64 = 1 << (SALT_BITS - 1);
/// Bios on their way that can be noted; a device has rarely more than its queues are deep.
const BIO_SLOTS: u32 = 32768;
/// Keeps the notes of a device with very many queues within 8 MiB.
const SLOTS_MAX: u32 = 1 << 20;

const IDENTITY_WORDS: usize = 8;
/// Fifth word of the identity: everything is attached and pinned. Changes with the layout of the maps.
const COMPLETE: u64 = 0x4c42_4f4d;
/// The words that are compared; what follows changes.
const IDENTITY_FIXED: usize = 5;
/// Index of the word that holds how often the program that notes was not run when [`COMPARED`] began.
const MISSES: usize = 5;
/// Index of the word that says: a point was sealed since tracking began.
const COMPARED: usize = 6;
/// Index of the word in which the program counts what it could not note.
const OVERFLOWS: usize = 7;

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

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, `len` words long, and lives as long as `self`; the kernel and
        // other processes change it by atomic operations only.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast::<AtomicU64>(), self.len) }
    }
}

/// What the kernel says of a whole disk.
struct Device {
    folder: PathBuf,
    major: u32,
    minor: u32,
    sequence: u64,
    sectors: u64,
    /// Requests: how the word of a tag is found. None: the disk has no requests, only bios.
    tag_bits: Option<u32>,
    slots: u32,
}

impl Device {
    fn find(path: &Path) -> Result<Self, CaptureError> {
        let meta = std::fs::metadata(path).map_err(|e| failed("open", path, e))?;
        let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
        let folder = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
        if folder.join("partition").exists() || !folder.exists() {
            return Err(CaptureError::NotADisk(path.to_owned()));
        }
        let number = |path: &Path| -> Result<u64, CaptureError> {
            let text = std::fs::read_to_string(path).map_err(|e| failed("read", path, e))?;
            text.trim()
                .parse()
                .map_err(|_| failed("read", path, std::io::ErrorKind::InvalidData.into()))
        };
        let queues = queues_of(&folder);
        let tag_bits = queues.map(|(_, tags)| tags.next_power_of_two().trailing_zeros());
        let slots = queues.map_or(BIO_SLOTS, |(queues, tags)| {
            queues
                .next_power_of_two()
                .saturating_mul(tags.next_power_of_two())
                .clamp(1, SLOTS_MAX)
        });
        Ok(Self {
            major,
            minor,
            // Tells two attachments under the same device number apart.
            sequence: number(&folder.join("diskseq"))?,
            sectors: number(&folder.join("size"))?,
            tag_bits,
            slots,
            folder,
        })
    }

    fn identity(&self) -> [u64; IDENTITY_FIXED] {
        let device = u64::from(self.major) << 32 | u64::from(self.minor);
        let slots = u64::from(self.slots) << 8 | self.tag_bits.map_or(0, |bits| u64::from(bits) + 1);
        [device, self.sequence, self.sectors, slots, COMPLETE]
    }

    fn words(&self) -> usize {
        (self.sectors * 512)
            .div_ceil(BLOCK_BYTES as u64)
            .div_ceil(64)
            .max(1) as usize
    }
}

/// How many hardware queues and tags in each. None: a device without requests.
fn queues_of(folder: &Path) -> Option<(u32, u32)> {
    if folder.join("dm").exists() || folder.join("md").exists() {
        return None;
    }
    let (mut queues, mut tags_max) = (0, 1);
    for entry in std::fs::read_dir(folder.join("mq")).ok()?.flatten() {
        queues += 1;
        let text = std::fs::read_to_string(entry.path().join("nr_tags")).unwrap_or_default();
        tags_max = tags_max.max(text.trim().parse().unwrap_or(1024));
    }
    (queues > 0).then_some((queues, tags_max))
}

/// Opens what the kernel says of the program that notes.
fn account_of(folder: &Path) -> Option<(aya::programs::ProgramFd, File)> {
    let program = ProgramInfo::from_pin(folder.join(PROGRAM)).ok()?.fd().ok()?;
    let path = format!("/proc/self/fdinfo/{}", program.as_fd().as_raw_fd());
    Some((program, File::open(path).ok()?))
}

pub struct EbpfSource {
    folder: PathBuf,
    changed: Words,
    summary: Words,
    pending: Words,
    /// Of `pending`, in the memory of this agent.
    pending_summary: Vec<AtomicU64>,
    in_flight: Words,
    identity: Words,
    /// Notes stand in every word, or in the second of each pair.
    by_bio: bool,
    /// The kernel's count of requests on their way. None where it does not keep one.
    on_their_way: Option<File>,
    /// The kernel's account of the program that notes, and what keeps it open.
    account: Option<(aya::programs::ProgramFd, File)>,
}

impl EbpfSource {
    /// Begins or takes up again the tracking of a whole disk.
    pub fn open(path: &Path, disk: DiskId) -> Result<Self, CaptureError> {
        mount_bpf_fs()?;
        let device = Device::find(path)?;
        let folder = Path::new(BPF_FS).join("lifeboat").join(disk.to_string());
        if let Some(source) = Self::take_up(&folder, &device) {
            return Ok(source);
        }
        Self::remove(&folder);
        Self::begin(&folder, &device)
    }

    fn new(folder: &Path, device: &Device, maps: [Words; 5]) -> Self {
        let [changed, summary, pending, in_flight, identity] = maps;
        let pending_summary = (0..summary.len).map(|_| AtomicU64::new(0)).collect();
        let counted =
            std::fs::read_to_string(device.folder.join("queue/iostats")).is_ok_and(|text| text.trim() != "0");
        let source = Self {
            folder: folder.to_owned(),
            changed,
            summary,
            pending,
            pending_summary,
            in_flight,
            identity,
            by_bio: device.tag_bits.is_none(),
            on_their_way: counted
                .then(|| File::open(device.folder.join("inflight")).ok())
                .flatten(),
            account: account_of(folder),
        };
        source.changed().sum_up();
        source.pending().sum_up();
        source
    }

    fn changed(&self) -> Bits<'_> {
        Bits {
            words: self.changed.words(),
            summary: self.summary.words(),
        }
    }

    fn pending(&self) -> Bits<'_> {
        Bits {
            words: self.pending.words(),
            summary: &self.pending_summary,
        }
    }

    fn take_up(folder: &Path, device: &Device) -> Option<Self> {
        let map = |name: &str, len| Words::new(&MapData::from_pin(folder.join(name)).ok()?, len).ok();
        let identity = map("identity", IDENTITY_WORDS)?;
        let same = identity
            .words()
            .iter()
            .zip(device.identity())
            .all(|(word, expected)| word.load(Ordering::SeqCst) == expected);
        if !same || !folder.join("completed").exists() || !folder.join("issued").exists() {
            return None;
        }
        let words = device.words();
        let maps = [
            map("changed", words)?,
            map("summary", summary_words(words))?,
            map("pending", words)?,
            map("in_flight", device.slots as usize)?,
            identity,
        ];
        Some(Self::new(folder, device, maps))
    }

    fn begin(folder: &Path, device: &Device) -> Result<Self, CaptureError> {
        let words = device.words();
        let btf = Btf::from_sys_fs().map_err(unavailable)?;
        let (count, tag_bits, slot_mask) = (words as u64, device.tag_bits.unwrap_or(0), device.slots - 1);
        let mut programs = EbpfLoader::new()
            .btf(Some(&btf))
            .override_global("disk_major", &device.major, true)
            .override_global("disk_minor", &device.minor, true)
            .override_global("word_count", &count, true)
            .override_global("tag_bits", &tag_bits, true)
            .override_global("slot_mask", &slot_mask, true)
            .map_max_entries("changed", words as u32)
            .map_max_entries("summary", summary_words(words) as u32)
            .map_max_entries("pending", words as u32)
            .map_max_entries("in_flight", device.slots)
            .load(OBJECT)
            .map_err(unavailable)?;
        std::fs::create_dir_all(folder).map_err(|e| failed("make", folder, e))?;
        let missing = |name: &str| {
            failed(
                "find in the eBPF object",
                Path::new(name),
                std::io::ErrorKind::NotFound.into(),
            )
        };
        let mut attach = |name: &str, tracepoint: &str, pin: &str| -> Result<(), CaptureError> {
            let program: &mut BtfTracePoint = programs
                .program_mut(name)
                .ok_or_else(|| missing(name))?
                .try_into()
                .map_err(unavailable)?;
            program.load(tracepoint, &btf).map_err(unavailable)?;
            if pin == "issued" {
                program.pin(folder.join(PROGRAM)).map_err(unavailable)?;
            }
            let id = program.attach().map_err(unavailable)?;
            let link: FdLink = program.take_link(id).map_err(unavailable)?.into();
            link.pin(folder.join(pin)).map_err(unavailable)?;
            Ok(())
        };
        // Two tracepoints lost their first argument in newer kernels; only the right program passes the verifier.
        if device.tag_bits.is_some() {
            attach("issued_request", "block_rq_issue", "issued")
                .or_else(|_| attach("issued_queue_request", "block_rq_issue", "issued"))?;
            attach("completed", "block_rq_complete", "completed")?;
        } else {
            attach("queued_bio", "block_bio_queue", "issued")
                .or_else(|_| attach("queued_queue_bio", "block_bio_queue", "issued"))?;
            attach("completed_bio", "block_bio_complete", "completed")?;
        }
        let lens = [
            words,
            summary_words(words),
            words,
            device.slots as usize,
            IDENTITY_WORDS,
        ];
        let mut maps = Vec::new();
        for (name, len) in MAPS.into_iter().zip(lens) {
            let Some(Map::Array(data)) = programs.take_map(name) else {
                return Err(missing(name));
            };
            data.pin(folder.join(name)).map_err(unavailable)?;
            maps.push(Words::new(&data, len).map_err(|e| failed("map", folder, e))?);
        }
        let maps: [Words; 5] = maps.try_into().map_err(|_| missing("maps"))?;
        for (word, value) in maps[4].words().iter().zip(device.identity()) {
            word.store(value, Ordering::SeqCst);
        }
        Ok(Self::new(folder, device, maps))
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

    /// No write is on its way; false also where that is not known. The kernel's count holds reads and writes. Where
    /// it keeps none (zram) there is ours, in which a write stays whose completion was missed.
    fn is_idle(&self) -> bool {
        let Some(file) = &self.on_their_way else {
            return self.notes().next().is_none();
        };
        let mut text = [0; 64];
        let len = file.read_at(&mut text, 0).unwrap_or(0);
        let mut numbers = text[..len]
            .split(u8::is_ascii_whitespace)
            .filter(|number| !number.is_empty());
        numbers.next().is_some() && numbers.next() == Some(b"0")
    }

    /// How often the kernel did not run the program that notes, because it ran already on that processor. Such a
    /// write is still marked when it completes, unless that was missed as well.
    /// None where it does not say.
    pub fn misses(&self) -> Option<u64> {
        let mut text = [0; 1024];
        let len = self.account.as_ref()?.1.read_at(&mut text, 0).ok()?;
        text[..len]
            .split(|&byte| byte == b'\n')
            .find_map(|line| line.strip_prefix(b"recursion_misses:"))
            .and_then(|number| std::str::from_utf8(number).ok()?.trim().parse().ok())
    }

    fn notes(&self) -> impl Iterator<Item = (&AtomicU64, u64)> {
        let (skip, step) = if self.by_bio { (1, 2) } else { (0, 1) };
        self.in_flight
            .words()
            .iter()
            .skip(skip)
            .step_by(step)
            .map(|word| (word, word.load(Ordering::SeqCst)))
            .filter(|(_, note)| *note != 0)
    }
}

fn noted(note: u64) -> BlockRange {
    BlockRange::new(
        note >> (COUNT_BITS + SALT_BITS),
        note >> SALT_BITS & ((1 << COUNT_BITS) - 1),
    )
}

impl ChangeSource for EbpfSource {
    fn kind(&self) -> CaptureKind {
        CaptureKind::Ebpf
    }

    /// Notes first, bits second, and then the question whether a write is on its way. When it says no, each write
    /// begun before is on the medium now and its blocks are pending or still marked; each write begun later shows
    /// as a note without the mark "seen", or as a bit.
    fn take(&mut self) -> bool {
        // What was seen in a call before and has ended since is on the medium, though its completion was missed.
        let was_idle = self.is_idle();
        for (word, note) in self.notes() {
            self.pending().set(noted(note));
            let next = if note & SEEN != 0 && was_idle {
                0
            } else {
                note | SEEN
            };
            // The word stays when the tag was used again meanwhile: its salt differs.
            let _ = word.compare_exchange(note, next, Ordering::SeqCst, Ordering::SeqCst);
        }
        self.changed().move_to(&self.pending());
        self.is_idle()
    }

    fn is_quiet(&self, except: &[BlockRange]) -> bool {
        let begun = self
            .notes()
            .any(|(_, note)| note & SEEN == 0 && outside(noted(note), except).is_ok());
        !begun && !self.changed().any_except(except)
    }

    fn next_pending(&self, from: u64, blocks_max: u64) -> Option<BlockRange> {
        self.pending().next(from, blocks_max)
    }

    fn backlog_blocks(&self) -> u64 {
        let ones = |word: u64| u64::from(word.count_ones());
        let pending: u64 = self.pending().each_word().map(|(_, word)| ones(word)).sum();
        // Blocks in both are counted once.
        let known = |index: usize| self.pending.words()[index].load(Ordering::Relaxed);
        let new = self
            .changed()
            .each_word()
            .map(|(index, word)| ones(word & !known(index)));
        pending + new.sum::<u64>()
    }

    fn mark(&mut self, range: BlockRange) {
        self.pending().set(range);
    }

    fn acknowledge(&mut self, range: BlockRange) {
        self.pending().clear(range);
    }

    fn was_lost(&self) -> bool {
        self.identity.words()[COMPARED].load(Ordering::SeqCst) == 0 || self.has_gaps()
    }

    fn has_gaps(&self) -> bool {
        let words = self.identity.words();
        words[OVERFLOWS].load(Ordering::SeqCst) != 0
            || words[MISSES].load(Ordering::SeqCst) != self.misses().unwrap_or(0)
    }

    fn compared(&mut self, point: PointId) {
        self.identity.words()[COMPARED].store(point.mark(), Ordering::SeqCst);
    }

    fn last_point(&self) -> u64 {
        self.identity.words()[COMPARED].load(Ordering::SeqCst)
    }

    fn doubt(&mut self) {
        let words = self.identity.words();
        words[COMPARED].store(0, Ordering::SeqCst);
        words[OVERFLOWS].store(0, Ordering::SeqCst);
        words[MISSES].store(self.misses().unwrap_or(0), Ordering::SeqCst);
    }

    fn forget(self: Box<Self>) {
        Self::remove(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_object_was_built_from_the_committed_source() {
        let source = blake3::hash(include_bytes!("bpf/changed_blocks.bpf.c"));
        let recorded = include_str!("bpf/changed_blocks.bpf.blake3");
        assert_eq!(
            recorded.split_whitespace().next(),
            Some(source.to_hex().as_str()),
            "run src/agent/capture/bpf/build.sh"
        );
    }

    #[test]
    fn notes_are_read_as_the_program_writes_them() {
        let note = 77 << (COUNT_BITS + SALT_BITS) | 5 << SALT_BITS | SEEN | 3;
        assert_eq!(noted(note), BlockRange::new(77, 5));
    }
}
