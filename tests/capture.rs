//! What every capture backend must do, seen through recovery points: nothing that was written is missed, also while
//! no agent runs, and no point is called better than it is.
mod support;
use lifeboat::agent::capture::{AlignedBuffer, CaptureKind, ChangeSource, DiskReader, EbpfSource};
use lifeboat::agent::cycle::{self, CycleReport, CycleSettings, Moment, ProtectedDisk, Reserve};
use lifeboat::agent::import::{generation, register};
use lifeboat::block::{BlockRange, Consistency, DiskId, MachineId};
use lifeboat::replica::{At, Store, VaultKey};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use support::{LoopDisk, Pins, ZramDisk, lacks_root, ok};

/// No whole granule, no whole block.
const ODD_BYTES: u64 = (24 << 20) + 12288 + 3 * 512;
/// `_IO(0x12, 119)` and 127 of `linux/fs.h`: offset and length.
const BLKDISCARD: libc::c_ulong = 0x1277;
const BLKZEROOUT: libc::c_ulong = 0x127f;

struct Site {
    folder: tempfile::TempDir,
    store: Store,
    machine: MachineId,
    disk: DiskId,
    reserve: Reserve,
    _pins: Pins,
}

impl Site {
    fn new(size: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(&folder.path().join("store"), &VaultKey::generate()).unwrap();
        let (machine, ids) = register(&store, "m", &[size]).unwrap();
        Self {
            folder,
            store,
            machine,
            disk: ids[0],
            reserve: Reserve::new().unwrap(),
            _pins: Pins::of(ids[0]),
        }
    }

    fn cycle(&mut self, disk: &mut ProtectedDisk, witness: &mut dyn FnMut(Moment)) -> CycleReport {
        let mut writer = self
            .store
            .begin(self.machine, generation(&self.store, self.machine))
            .unwrap();
        let mut settings = CycleSettings {
            guard: env!("CARGO_BIN_EXE_lifeboat").into(),
            freeze_deadline: Duration::from_secs(20),
            quiet_patience: Duration::ZERO,
            witness: Some(witness),
            progress: &mut |_| (),
            clock: &lifeboat::rt::now_unix_nanos,
            cancel: &AtomicBool::new(false),
            hold: None,
            round: None,
            quiesce: None,
        };
        cycle::run(
            std::slice::from_mut(disk),
            &mut writer,
            &mut self.reserve,
            &mut settings,
        )
        .unwrap()
    }

    fn assert_equal(&self, path: &Path, what: &str) {
        let image = self.store.image(self.machine, self.disk, At::Latest).unwrap();
        let reader = DiskReader::open(path).unwrap();
        assert_eq!(image.size_bytes(), reader.size_bytes());
        let mut disk = AlignedBuffer::new(1 << 20).unwrap();
        let mut stored = vec![0; 1 << 20];
        for at in (0..reader.size_bytes()).step_by(1 << 20) {
            let len = (reader.size_bytes() - at).min(1 << 20) as usize;
            let whole = len.div_ceil(4096) * 4096;
            reader.read(at / 4096, &mut disk[..whole]).unwrap();
            image.read_at(at, &mut stored[..len]).unwrap();
            if disk[..len] != stored[..len] {
                let wrong = (0..len).find(|&index| disk[index] != stored[index]);
                panic!("after {what}: byte {} differs", at + wrong.unwrap() as u64);
            }
        }
    }
}

fn open_disk(path: &Path, flags: i32) -> File {
    File::options()
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open(path)
        .unwrap()
}

fn write_direct(path: &Path, offset: u64, len: usize, byte: u8) {
    let mut buffer = AlignedBuffer::new(len).unwrap();
    buffer.fill(byte);
    open_disk(path, libc::O_DIRECT)
        .write_all_at(&buffer, offset)
        .unwrap();
}

fn device_range(path: &Path, request: libc::c_ulong, offset: u64, len: u64) {
    let range = [offset, len];
    let file = open_disk(path, 0);
    // SAFETY: the descriptor is open and the request takes a pointer to two numbers.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, range.as_ptr()) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// All ways to change a disk, each at a place of its own.
fn change(path: &Path, round: u8, device: bool) {
    let mib = 1u64 << 20;
    let size = DiskReader::open(path).unwrap().size_bytes();
    let byte = 0x10 + round;
    write_direct(path, mib, 300 << 10, byte);
    write_direct(path, 2 * mib + 4096, 4096, byte);
    // Buffered, odd, and made durable.
    let file = open_disk(path, 0);
    file.write_all_at(&[byte; 777], 3 * mib + 333).unwrap();
    file.write_all_at(&[byte; 100], size - 100).unwrap();
    file.sync_all().unwrap();
    // Flush and force-unit-access writes.
    open_disk(path, libc::O_DSYNC)
        .write_all_at(&[byte; 5000], 4 * mib)
        .unwrap();
    if device {
        device_range(path, BLKDISCARD, 5 * mib + 65536 * u64::from(round), 4 * mib);
        device_range(path, BLKZEROOUT, 12 * mib + 65536 * u64::from(round), mib);
    } else {
        let mode = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&file, mode, 5 * mib, 4 * mib).unwrap();
    }
    file.sync_all().unwrap();
}

/// The suite. `open` begins or takes up the tracking.
fn conforms(path: &Path, device: bool, open: &dyn Fn(&Path, DiskId) -> ProtectedDisk) {
    let size = DiskReader::open(path).unwrap().size_bytes();
    for at in (0..size).step_by(1 << 20) {
        let len = (size - at).min(1 << 20) as usize;
        open_disk(path, 0)
            .write_all_at(&vec![(at >> 20) as u8 | 1; len], at)
            .unwrap();
    }
    open_disk(path, 0).sync_all().unwrap();
    let mut site = Site::new(size);
    let mut disk = open(path, site.disk);
    let tracked = disk.kind() == CaptureKind::Ebpf;
    assert!(disk.was_lost(), "what came before is not known");
    let report = site.cycle(&mut disk, &mut |_| ());
    assert_eq!(
        report.consistency,
        Consistency::CrashConsistent,
        "{}",
        report.note
    );
    site.assert_equal(path, "the first point");
    assert_eq!(disk.was_lost(), !tracked);
    for round in 1..4 {
        change(path, round, device);
        let report = site.cycle(&mut disk, &mut |_| ());
        assert_eq!(
            report.consistency,
            Consistency::CrashConsistent,
            "{}",
            report.note
        );
        site.assert_equal(path, &format!("round {round}"));
        if tracked {
            // About 5.5 MiB changed.
            assert!(report.read_bytes < 8 << 20, "{report:?}");
            assert_eq!(report.compared_raw_bytes, 0);
        }
    }
    // While no agent runs.
    drop(disk);
    change(path, 4, device);
    let mut disk = open(path, site.disk);
    assert_eq!(disk.was_lost(), !tracked, "tracking went on without an agent");
    let report = site.cycle(&mut disk, &mut |_| ());
    assert_eq!(
        report.consistency,
        Consistency::CrashConsistent,
        "{}",
        report.note
    );
    site.assert_equal(path, "a restart");
    // A writer between the first and the last read.
    let report = site.cycle(&mut disk, &mut |moment| {
        if moment == Moment::Read {
            write_direct(path, 9 << 20, 8192, 0x77);
        }
    });
    assert_eq!(report.consistency, Consistency::Fuzzy);
    assert!(report.note.contains(path.to_str().unwrap()), "{}", report.note);
    let report = site.cycle(&mut disk, &mut |_| ());
    assert_eq!(
        report.consistency,
        Consistency::CrashConsistent,
        "{}",
        report.note
    );
    site.assert_equal(path, "a fuzzy point");
    // Doubt: everything is compared and nothing shipped twice.
    disk.resynchronize();
    assert!(disk.was_lost());
    let report = site.cycle(&mut disk, &mut |_| ());
    assert_eq!(report.compared_raw_bytes + report.changed_raw_bytes, 0);
    assert_eq!(report.read_bytes, size.div_ceil(4096) * 4096);
    disk.forget();
    assert!(open(path, site.disk).was_lost());
}

#[test]
fn ebpf_by_requests() {
    if lacks_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let disk = LoopDisk::attach(&folder.path().join("disk"), ODD_BYTES);
    conforms(&disk.0, true, &|path, id| ProtectedDisk::open(path, id).unwrap());
}

#[test]
fn ebpf_by_bios() {
    if lacks_root() {
        return;
    }
    let Some(disk) = ZramDisk::new(24 << 20) else {
        return;
    };
    conforms(&disk.0, true, &|path, id| ProtectedDisk::open(path, id).unwrap());
}

#[test]
fn scan_of_a_device() {
    if lacks_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let disk = LoopDisk::attach(&folder.path().join("disk"), ODD_BYTES);
    conforms(&disk.0, true, &|path, id| ProtectedDisk::scan(path, id).unwrap());
}

#[test]
fn scan_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    File::create(&path).unwrap().set_len(ODD_BYTES).unwrap();
    conforms(&path, false, &|path, id| ProtectedDisk::scan(path, id).unwrap());
}

fn pending(source: &dyn ChangeSource) -> Vec<BlockRange> {
    let (mut from, mut all) = (0, Vec::new());
    while let Some(range) = source.next_pending(from, u64::MAX) {
        from = range.end();
        all.push(range);
    }
    all
}

/// More changed between the last pass and the freeze than there was room for: more room is made, and the point comes.
#[test]
fn what_does_not_fit_at_the_freeze_gets_room() {
    if lacks_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let disk = LoopDisk::attach(&folder.path().join("disk"), ODD_BYTES);
    let mut site = Site::new(ODD_BYTES);
    site.reserve = Reserve::with_bytes(64 << 10).unwrap();
    let mut protected = ProtectedDisk::open(&disk.0, site.disk).unwrap();
    site.cycle(&mut protected, &mut |_| ());
    // Little enough for no pass of its own, and more than fits.
    write_direct(&disk.0, 1 << 20, 512 << 10, 0x5a);
    let mut reads = 0;
    let report = site.cycle(&mut protected, &mut |moment| {
        reads += usize::from(moment == Moment::Read);
    });
    assert_eq!((report.frozen_bytes, report.passes), (512 << 10, 0));
    assert_eq!(reads, 2, "the first try had no room");
    assert_eq!(
        report.consistency,
        Consistency::CrashConsistent,
        "{}",
        report.note
    );
    site.assert_equal(&disk.0, "a point that got room");
}

/// A request has at most 4 GiB; a discard of a disk is many of them.
#[test]
fn a_discard_of_gigabytes_is_seen_whole() {
    if lacks_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let size = 11u64 << 30;
    let disk = LoopDisk::attach(&folder.path().join("disk"), size);
    let id = DiskId::new();
    let _pins = Pins::of(id);
    let mut source = EbpfSource::open(&disk.0, id).unwrap();
    source.take();
    pending(&source)
        .into_iter()
        .for_each(|range| source.acknowledge(range));
    for (offset, len, request) in [
        (1 << 20, size - (3 << 20), BLKDISCARD),
        (3 << 30, 5 << 30, BLKZEROOUT),
    ] {
        device_range(&disk.0, request, offset, len);
        source.take();
        let seen = pending(&source);
        assert_eq!(seen, [BlockRange::new(offset / 4096, len / 4096)]);
        source.acknowledge(seen[0]);
    }
    ok("blkdiscard", &["-o", "4096", disk.path()]);
    source.take();
    assert_eq!(pending(&source), [BlockRange::new(1, size / 4096 - 1)]);
}

/// Writes to a partition are writes to the disk, at their place.
#[test]
fn partitions_and_swap() {
    if lacks_root() {
        return;
    }
    let mib = 1u64 << 20;
    let size = 64 * mib;
    let mut site = Site::new(size);
    let file = site.folder.path().join("disk");
    File::create(&file).unwrap().set_len(size).unwrap();
    support::ok_with_input(
        "sfdisk",
        &[file.to_str().unwrap()],
        "label: dos\nstart=2048, size=40960, type=82\nstart=45056, type=83\n",
    );
    let disk = LoopDisk::attach_with_partitions(&file);
    let part = |number: u8| PathBuf::from(format!("{}p{number}", disk.path()));
    ok("mkswap", &[part(1).to_str().unwrap()]);
    let _swap = support::Swap::on(&part(1));
    let mut protected = ProtectedDisk::open(&disk.0, site.disk).unwrap();
    site.cycle(&mut protected, &mut |_| ());
    site.assert_equal(&disk.0, "the first point");
    write_direct(&part(2), 3 * mib, 8192, 0x55);
    let report = site.cycle(&mut protected, &mut |_| ());
    site.assert_equal(&disk.0, "a write to a partition");
    assert_eq!(report.changed_raw_bytes, 8192);
    // Swap is written to, also in the freeze: neither shipped nor held against the point.
    // Past the partition, whose node is locked.
    write_direct(&disk.0, 2 * mib, 2 << 20, 0x66);
    let report = site.cycle(&mut protected, &mut |moment| {
        if moment == Moment::Read {
            write_direct(&disk.0, 6 * mib, 65536, 0x67);
        }
    });
    assert_eq!(
        report.consistency,
        Consistency::CrashConsistent,
        "{}",
        report.note
    );
    assert_eq!(report.changed_raw_bytes, 0);
    assert_eq!(protected.pending_bytes(), 0);
    // A restarted agent still knows which blocks it left out.
    drop(protected);
    let mut protected = ProtectedDisk::open(&disk.0, site.disk).unwrap();
    assert_eq!(site.cycle(&mut protected, &mut |_| ()).changed_raw_bytes, 0);
    // No swap any more: what lies there is data like any other.
    drop(_swap);
    let report = site.cycle(&mut protected, &mut |_| ());
    assert!(report.changed_raw_bytes > 19 * mib, "{report:?}");
    site.assert_equal(&disk.0, "the end of swap");
}

/// Another device under the same name is not taken for the one before.
#[test]
fn another_device_begins_anew() {
    if lacks_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let id = DiskId::new();
    let _pins = Pins::of(id);
    let first = LoopDisk::attach(&folder.path().join("one"), 8 << 20);
    let mut source = EbpfSource::open(&first.0, id).unwrap();
    source.compared(lifeboat::block::PointId::new());
    assert!(!EbpfSource::open(&first.0, id).unwrap().was_lost());
    drop(first);
    let second = LoopDisk::attach(&folder.path().join("two"), 8 << 20);
    assert!(EbpfSource::open(&second.0, id).unwrap().was_lost());
    assert!(EbpfSource::open(&folder.path().join("two"), id).is_err());
}

/// The kernel says how often it did not run the program that notes writes; that must be readable, or gaps would go
/// unnoticed.
#[test]
fn the_kernels_account_of_the_program_is_read() {
    if lacks_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let disk = LoopDisk::attach(&folder.path().join("disk"), 8 << 20);
    let id = DiskId::new();
    let _pins = Pins::of(id);
    let mut source = EbpfSource::open(&disk.0, id).unwrap();
    assert!(source.misses().is_some());
    source.compared(lifeboat::block::PointId::new());
    assert!(!source.was_lost() && !source.has_gaps());
    source.doubt();
    assert!(source.was_lost() && !source.has_gaps());
}
