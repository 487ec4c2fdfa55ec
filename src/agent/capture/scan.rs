//! No tracking: everything is read for each point and compared with the target.
//!
//! Works on any file or block device that may be read, without privilege. What it compares with is what the target
//! holds, never hashes of its own: a block that changes between hashing and shipping, and back again, would go
//! unnoticed with those. A point is crash-consistent only when nothing was written from before the first read until
//! after the last one, and that can be proved.
use super::{CaptureError, CaptureKind, ChangeSource};
use crate::block::{BlockRange, PointId};
use std::fs::File;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// Coarsest times that a file system keeps (vfat: 2 s). A change within the same tick as the one before would not
/// show, so the last change must lie further back.
const TICK: Duration = Duration::from_millis(2100);
/// File systems that keep the times as fine as the kernel counts them, which is 10 ms at the coarsest: ext4, xfs,
/// btrfs, tmpfs (`linux/magic.h`).
const FINE: [i128; 4] = [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994];
const FINE_TICK: Duration = Duration::from_millis(50);
/// Longest wait for that, per point.
const PATIENCE: Duration = Duration::from_secs(3);

/// What tells that something was written.
#[derive(Clone, PartialEq, Eq)]
enum Mark {
    /// Size, modification and change time.
    Times(u64, (i64, i64), (i64, i64)),
    /// Writes, sectors written, discards and sectors discarded of a device.
    Counters([u64; 4]),
}

pub struct ScanSource {
    file: File,
    path: PathBuf,
    /// Statistics of a device.
    counters: Option<PathBuf>,
    tick: Duration,
    /// None: not known, or in motion when asked.
    since: Option<Mark>,
}

impl ScanSource {
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let failed = |action, source| CaptureError::Io {
            action,
            object: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(|e| failed("open", e))?;
        let meta = file.metadata().map_err(|e| failed("measure", e))?;
        let counters = meta.file_type().is_block_device().then(|| {
            let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
            PathBuf::from(format!("/sys/dev/block/{major}:{minor}"))
        });
        let fine = rustix::fs::fstatfs(&file).is_ok_and(|stat| FINE.contains(&i128::from(stat.f_type)));
        Ok(Self {
            file,
            path: path.to_owned(),
            counters,
            tick: if fine { FINE_TICK } else { TICK },
            since: None,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The mark at this moment. None: cannot be told, or writes are on their way.
    fn mark_now(&self) -> Option<Mark> {
        let Some(folder) = &self.counters else {
            let meta = self.file.metadata().ok()?;
            return Some(Mark::Times(
                meta.len(),
                (meta.mtime(), meta.mtime_nsec()),
                (meta.ctime(), meta.ctime_nsec()),
            ));
        };
        // A partition has no queue of its own; its numbers are kept like those of its disk.
        let kept = ["queue/iostats", "../queue/iostats"]
            .iter()
            .find_map(|name| std::fs::read_to_string(folder.join(name)).ok())?;
        if kept.trim() == "0" {
            return None;
        }
        let on_their_way = std::fs::read_to_string(folder.join("inflight")).ok()?;
        if on_their_way.split_ascii_whitespace().nth(1) != Some("0") {
            return None;
        }
        parse_counters(&std::fs::read_to_string(folder.join("stat")).ok()?).map(Mark::Counters)
    }
}

/// Fields of `/sys/block/*/stat` (the kernel's Documentation/block/stat.rst).
fn parse_counters(text: &str) -> Option<[u64; 4]> {
    let fields: Vec<u64> = text
        .split_ascii_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    let [_, _, _, _, writes, _, sectors, ..] = fields[..] else {
        return None;
    };
    let discards = fields.get(11).copied().unwrap_or(0);
    let discarded = fields.get(13).copied().unwrap_or(0);
    Some([writes, sectors, discards, discarded])
}

/// The last change lies so far back that the next one shows.
fn is_settled(mark: &Mark, tick: Duration) -> bool {
    let Mark::Times(_, modified, changed) = mark else {
        return true;
    };
    let (seconds, nanos) = *modified.max(changed);
    let last = Duration::new(
        u64::try_from(seconds).unwrap_or(0),
        u32::try_from(nanos).unwrap_or(0),
    );
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH + last)
        .is_ok_and(|age| age >= tick)
}

impl ChangeSource for ScanSource {
    fn kind(&self) -> CaptureKind {
        CaptureKind::Scan
    }

    /// Called before everything is read.
    fn take(&mut self) -> bool {
        // Written through a mapping: shows in the times only from the first store after the page was clean.
        if self.counters.is_none() {
            let _ = self.file.sync_data();
        }
        let end = Instant::now() + PATIENCE;
        loop {
            self.since = self.mark_now();
            let settled = self
                .since
                .as_ref()
                .is_some_and(|mark| is_settled(mark, self.tick));
            if settled || Instant::now() >= end {
                if !settled {
                    self.since = None;
                }
                return settled;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn is_quiet(&self, _except: &[BlockRange]) -> bool {
        self.since.is_some() && self.mark_now() == self.since
    }

    fn next_pending(&self, _from: u64, _blocks_max: u64) -> Option<BlockRange> {
        None
    }

    fn backlog_blocks(&self) -> u64 {
        0
    }

    fn mark(&mut self, _range: BlockRange) {}

    fn acknowledge(&mut self, _range: BlockRange) {}

    fn was_lost(&self) -> bool {
        true
    }

    fn has_gaps(&self) -> bool {
        false
    }

    fn compared(&mut self, _point: PointId) {}

    fn last_point(&self) -> u64 {
        0
    }

    fn doubt(&mut self) {}

    fn forget(self: Box<Self>) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn counters_are_read() {
        let idle = "  1 0 8 0 21 0 168 3 0 4 4 5 0 40 0 0 0";
        assert_eq!(parse_counters(idle), Some([21, 168, 5, 40]));
        let old = "1 0 8 0 21 0 168 3 0 4 4";
        assert_eq!(parse_counters(old), Some([21, 168, 0, 0]));
        assert_eq!(parse_counters("1 0 8"), None);
    }

    #[test]
    fn a_file_is_quiet_until_it_is_written_to() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().write_all_at(&[1; 8192], 0).unwrap();
        let mut source = ScanSource::open(file.path()).unwrap();
        assert!(source.take(), "waits until the last change lies back");
        assert!(source.is_quiet(&[]));
        file.as_file().write_all_at(&[2], 77).unwrap();
        assert!(!source.is_quiet(&[]));
        // SAFETY: nothing else uses this file.
        let mut map = unsafe { memmap2::MmapMut::map_mut(file.as_file()).unwrap() };
        map[0] = 5;
        assert!(source.take());
        map[0] = 6;
        assert!(!source.is_quiet(&[]), "a store through a mapping was not seen");
    }
}
