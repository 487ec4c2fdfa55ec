//! Taking a recovery point of disks that nothing writes to, straight into a store.
//!
//! Reads everything, compares 64 KiB granules with the newest state in the store, and stores what differs.
//! A crash in between leaves the older points as they were.
use crate::block::{
    BLOCK_BYTES, BlockRange, Consistency, DiskId, FrameBuilder, GRANULE_BYTES, MachineId, PointId,
};
use crate::replica::{At, DiskSpec, Image, MachineWriter, PointSpec, ReplicaError, Store};
use std::fs::File;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What one import did. `changed_bytes`: raw bytes of granules that differed.
#[derive(Debug)]
pub struct Imported {
    pub machine: MachineId,
    pub point: PointId,
    pub consistency: Consistency,
    pub note: String,
    pub read_bytes: u64,
    pub changed_bytes: u64,
    pub stored_bytes: u64,
}

struct Source {
    path: PathBuf,
    file: File,
    size_bytes: u64,
    /// Change time and modification time of a plain file; a device is opened exclusively instead.
    times: Option<(i64, i64, i64, i64)>,
}

fn failed(action: &'static str, path: &Path, source: std::io::Error) -> ReplicaError {
    ReplicaError::Io {
        action,
        object: path.to_owned(),
        source,
    }
}

fn times(file: &File) -> std::io::Result<(i64, i64, i64, i64)> {
    let meta = file.metadata()?;
    Ok((meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()))
}

impl Source {
    fn open(path: &Path) -> Result<Self, ReplicaError> {
        let device = std::fs::metadata(path)
            .map_err(|e| failed("open", path, e))?
            .file_type()
            .is_block_device();
        let mut options = File::options();
        options.read(true);
        if device {
            // Exclusive: refused while the device is mounted or otherwise in use.
            options.custom_flags(libc::O_EXCL);
        }
        let file = options.open(path).map_err(|e| failed("open", path, e))?;
        let size_bytes = rustix::fs::seek(&file, rustix::fs::SeekFrom::End(0))
            .map_err(|e| failed("measure", path, e.into()))?;
        let times = if device {
            None
        } else {
            Some(times(&file).map_err(|e| failed("measure", path, e))?)
        };
        Ok(Self {
            path: path.to_owned(),
            file,
            size_bytes,
            times,
        })
    }

    fn is_unchanged(&self) -> bool {
        self.times.is_none() || times(&self.file).ok() == self.times
    }

    /// `buffer` is filled with zeros past the end of the disk.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReplicaError> {
        let there = (self.size_bytes - offset).min(buffer.len() as u64) as usize;
        buffer[there..].fill(0);
        self.file
            .read_exact_at(&mut buffer[..there], offset)
            .map_err(|e| failed("read", &self.path, e))
    }
}

/// Makes a recovery point of these disks under the machine's name. `progress`: bytes read, bytes in all.
///
/// The point is crash-consistent when nothing wrote to a disk in the meantime, else fuzzy with a note.
pub fn import(
    store: &Store,
    name: &str,
    disks: &[PathBuf],
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Imported, ReplicaError> {
    let sources = disks
        .iter()
        .map(|path| Source::open(path))
        .collect::<Result<Vec<_>, _>>()?;
    let sizes: Vec<u64> = sources.iter().map(|source| source.size_bytes).collect();
    let (machine, ids) = register(store, name, &sizes)?;
    let total = sources.iter().map(|source| source.size_bytes).sum();
    let mut writer = store.begin(machine, generation(store, machine))?;
    let instant = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
    let (mut read_bytes, mut changed_bytes, mut stored_bytes) = (0, 0, 0);
    for (source, &disk) in sources.iter().zip(&ids) {
        let base = store.image(machine, disk, At::Latest)?;
        let mut disk_writer = DiskWriter {
            writer: &mut writer,
            disk,
            frame: FrameBuilder::new(),
            stored_bytes: 0,
        };
        let mut buffer = vec![0; GRANULE_BYTES];
        for granule in 0..source.size_bytes.div_ceil(GRANULE_BYTES as u64) {
            let offset = granule * GRANULE_BYTES as u64;
            source.read(offset, &mut buffer)?;
            let len = (source.size_bytes - offset).min(GRANULE_BYTES as u64);
            read_bytes += len;
            if differs(&base, granule, &buffer[..len as usize])? {
                changed_bytes += len;
                let whole = (len as usize).div_ceil(BLOCK_BYTES) * BLOCK_BYTES;
                disk_writer.push(offset / BLOCK_BYTES as u64, &buffer[..whole])?;
            }
            progress(read_bytes, total);
        }
        disk_writer.finish(source.size_bytes)?;
        stored_bytes += disk_writer.stored_bytes;
    }
    let moved: Vec<_> = sources
        .iter()
        .filter(|source| !source.is_unchanged())
        .map(|source| source.path.display().to_string())
        .collect();
    let (consistency, note) = if moved.is_empty() {
        (Consistency::CrashConsistent, String::new())
    } else {
        (
            Consistency::Fuzzy,
            format!("written to while it was read: {}", moved.join(", ")),
        )
    };
    let spec = PointSpec {
        instant_unix_nanos: instant,
        consistency,
        note: note.clone(),
        freeze_micros: 0,
    };
    let point = writer.seal(spec)?;
    Ok(Imported {
        machine,
        point,
        consistency,
        note,
        read_bytes,
        changed_bytes,
        stored_bytes,
    })
}

/// The machine of this name and its disks, in their order; made where they are new.
pub fn register(store: &Store, name: &str, sizes: &[u64]) -> Result<(MachineId, Vec<DiskId>), ReplicaError> {
    let known = store.machines().into_iter().find(|machine| machine.name == name);
    let machine = known.map_or_else(MachineId::new, |machine| machine.id);
    store.register_machine(machine, name)?;
    let registered = store.disks(machine)?;
    let mut ids = Vec::new();
    for (index, &size_bytes) in sizes.iter().enumerate() {
        let id = registered.get(index).map_or_else(DiskId::new, |disk| disk.id);
        store.register_disk(
            machine,
            DiskSpec {
                id,
                name: format!("disk{index}"),
                size_bytes,
            },
        )?;
        ids.push(id);
    }
    Ok((machine, ids))
}

/// The generation that may write a machine's line now.
pub fn generation(store: &Store, machine: MachineId) -> u64 {
    store
        .machines()
        .into_iter()
        .find(|known| known.id == machine)
        .map_or(0, |known| known.generation)
}

fn differs(base: &Image, granule: u64, bytes: &[u8]) -> Result<bool, ReplicaError> {
    Ok(*blake3::hash(bytes).as_bytes() != base.granule_digest(granule)?)
}

struct DiskWriter<'a> {
    writer: &'a mut MachineWriter,
    disk: DiskId,
    frame: FrameBuilder,
    stored_bytes: u64,
}

impl DiskWriter<'_> {
    fn push(&mut self, mut first: u64, mut data: &[u8]) -> Result<(), ReplicaError> {
        while !data.is_empty() {
            let room = self.frame.room_blocks() * BLOCK_BYTES;
            if room == 0 {
                self.send()?;
                continue;
            }
            let (part, rest) = data.split_at(room.min(data.len()));
            self.frame.push(first, part);
            first += (part.len() / BLOCK_BYTES) as u64;
            data = rest;
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), ReplicaError> {
        let frame = std::mem::take(&mut self.frame);
        let bytes = frame
            .finish(1)
            .map_err(|e| failed("compress", Path::new("a frame"), e))?;
        self.stored_bytes += bytes.len() as u64;
        self.writer.append(self.disk, bytes)
    }

    /// Sends the rest. A disk that never had a frame gets one that names it as zeros, so that points hold it.
    fn finish(&mut self, size_bytes: u64) -> Result<(), ReplicaError> {
        let untouched = self.frame.is_empty() && self.stored_bytes == 0;
        if untouched && size_bytes > 0 && !self.writer.has_data(self.disk)? {
            self.frame
                .push_zero(BlockRange::new(0, size_bytes.div_ceil(BLOCK_BYTES as u64)));
        }
        if self.frame.is_empty() {
            Ok(())
        } else {
            self.send()
        }
    }
}
