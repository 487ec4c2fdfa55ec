//! Which blocks of a disk are swap: they change past the file systems and mean nothing after a start, so they are
//! not replicated. The first page of each area is: it holds the label and the identifier that a start looks for.
use super::mounts;
use crate::block::{BLOCK_BYTES, BlockRange};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The header fills one page, which has at most 64 KiB.
const HEADER_BYTES: u64 = 64 << 10;
const SECTOR_BYTES: u64 = 512;

/// Sorted and disjoint. What cannot be told (swap on a stacked device, on btrfs) is not in it and is replicated as
/// data.
pub fn of_disk(device: &Path) -> io::Result<Vec<BlockRange>> {
    let disk = std::fs::metadata(device)?.rdev();
    let mut ranges = Vec::new();
    for line in std::fs::read("/proc/swaps")?.split(|&byte| byte == b'\n').skip(1) {
        let Some(field) = line
            .split(u8::is_ascii_whitespace)
            .next()
            .filter(|field| !field.is_empty())
        else {
            continue;
        };
        let path = mounts::unescape(field);
        let Ok(meta) = std::fs::metadata(&path) else {
            continue;
        };
        if meta.rdev() != 0 {
            if let Some((start, size)) = place_on(disk, meta.rdev()) {
                ranges.extend(blocks_within(start + HEADER_BYTES, start + size));
            }
        } else if let Some((start, _)) = place_on(disk, meta.dev()) {
            // Not allowed to look: replicated as data.
            let Ok(file) = File::open(&path) else { continue };
            for (logical, physical, bytes) in extents(&file)? {
                let header = HEADER_BYTES.saturating_sub(logical).min(bytes);
                ranges.extend(blocks_within(start + physical + header, start + physical + bytes));
            }
        }
    }
    ranges.sort_unstable();
    ranges.dedup_by(|next, last| next.first < last.end());
    Ok(ranges)
}

/// Offset and size in bytes of a device that is the disk or a partition of it.
fn place_on(disk: u64, device: u64) -> Option<(u64, u64)> {
    let folder = |number| {
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        std::fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()
    };
    let (whole, part) = (folder(disk)?, folder(device)?);
    let number = |name: &str| -> Option<u64> {
        let text = std::fs::read_to_string(part.join(name)).ok()?;
        Some(text.trim().parse::<u64>().ok()? * SECTOR_BYTES)
    };
    if whole == part {
        Some((0, number("size")?))
    } else if part.parent() == Some(&whole) {
        Some((number("start")?, number("size")?))
    } else {
        None
    }
}

/// Blocks that lie wholly in these bytes.
fn blocks_within(from: u64, to: u64) -> Option<BlockRange> {
    let first = from.div_ceil(BLOCK_BYTES as u64);
    let end = to / BLOCK_BYTES as u64;
    (first < end).then(|| BlockRange::new(first, end - first))
}

const EXTENTS_AT_ONCE: usize = 64;
/// `_IOWR('f', 11, struct fiemap)` of `linux/fiemap.h`.
const FS_IOC_FIEMAP: libc::c_ulong = 0xC020_660B;
const EXTENT_LAST: u32 = 1;
/// Unknown place, not yet allocated, encoded, encrypted, inline, or packed with others.
const EXTENT_NOT_PLAIN: u32 = 0x2 | 0x4 | 0x8 | 0x80 | 0x200 | 0x400;

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Extent {
    logical: u64,
    physical: u64,
    bytes: u64,
    reserved: [u64; 2],
    flags: u32,
    reserved_too: [u32; 3],
}

#[repr(C)]
struct Map {
    start: u64,
    bytes: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
    extents: [Extent; EXTENTS_AT_ONCE],
}

/// Where a file lies on its device: logical offset, physical offset, length.
fn extents(file: &File) -> io::Result<Vec<(u64, u64, u64)>> {
    let (mut found, mut start) = (Vec::new(), 0);
    loop {
        let mut map = Map {
            start,
            bytes: u64::MAX - start,
            flags: 0,
            mapped: 0,
            count: EXTENTS_AT_ONCE as u32,
            reserved: 0,
            extents: [Extent::default(); EXTENTS_AT_ONCE],
        };
        // SAFETY: the descriptor is open, and the structure has the layout and the room that it names.
        if unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FIEMAP, &raw mut map) } != 0 {
            return match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(found),
                error => Err(error),
            };
        }
        let part = &map.extents[..(map.mapped as usize).min(EXTENTS_AT_ONCE)];
        for extent in part {
            if extent.flags & EXTENT_NOT_PLAIN == 0 {
                found.push((extent.logical, extent.physical, extent.bytes));
            }
            start = extent.logical + extent.bytes;
        }
        if part.last().is_none_or(|extent| extent.flags & EXTENT_LAST != 0) {
            return Ok(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_blocks_count() {
        assert_eq!(blocks_within(1, 8192), Some(BlockRange::new(1, 1)));
        assert_eq!(blocks_within(0, 4095), None);
        assert_eq!(blocks_within(5000, 5000), None);
    }

    #[test]
    fn extents_of_a_file_cover_it() {
        let mut file = tempfile::tempfile_in(".").unwrap();
        io::Write::write_all(&mut file, &vec![7; 300_000]).unwrap();
        file.sync_all().unwrap();
        let found = extents(&file).unwrap();
        // A file system without maps gives none.
        let bytes: u64 = found.iter().map(|(_, _, bytes)| bytes).sum();
        assert!(found.is_empty() || bytes >= 300_000, "{found:?}");
    }
}
