//! Which mounted file systems live on a disk.
use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// One mount point per file system on the disk or its partitions, in the order of their mounting.
pub fn of_disk(device: &Path) -> io::Result<Vec<PathBuf>> {
    let devices = devices_of(device)?;
    let table = std::fs::read("/proc/self/mountinfo")?;
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for line in table.split(|&byte| byte == b'\n') {
        let Some((mount_point, source)) = parse(line) else {
            continue;
        };
        // By the source, not by the device number of the mount: btrfs shows a number of its own there.
        let Ok(meta) = std::fs::metadata(&source) else {
            continue;
        };
        if meta.file_type().is_block_device() && devices.contains(&meta.rdev()) && seen.insert(meta.rdev()) {
            found.push(mount_point);
        }
    }
    Ok(found)
}

/// Every mount: its mount point and the device number of its source, where that is a device.
pub fn table() -> Vec<(PathBuf, Option<u64>)> {
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    table
        .split(|&byte| byte == b'\n')
        .filter_map(parse)
        .map(|(point, source)| {
            let meta = std::fs::metadata(source).ok();
            let device = meta.filter(|meta| meta.file_type().is_block_device());
            (point, device.map(|meta| meta.rdev()))
        })
        .collect()
}

/// Whether this device is the disk or one of its partitions.
pub fn is_on(number: u64, disk: &Path) -> io::Result<bool> {
    Ok(devices_of(disk)?.contains(&number))
}

/// Whether the kernel can freeze a file system of this kind.
pub fn can_freeze(file_system: &str) -> bool {
    [
        "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "jfs", "nilfs2", "reiserfs",
    ]
    .contains(&file_system)
}

/// Device numbers of the disk and its partitions.
fn devices_of(device: &Path) -> io::Result<HashSet<u64>> {
    let number = std::fs::metadata(device)?.rdev();
    let mut devices = HashSet::from([number]);
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    for entry in std::fs::read_dir(format!("/sys/dev/block/{major}:{minor}"))?.flatten() {
        if !entry.path().join("partition").exists() {
            continue;
        }
        let text = std::fs::read_to_string(entry.path().join("dev"))?;
        if let Some((major, minor)) = text.trim().split_once(':')
            && let (Ok(major), Ok(minor)) = (major.parse(), minor.parse())
        {
            devices.insert(rustix::fs::makedev(major, minor));
        }
    }
    Ok(devices)
}

/// Mount point and source of one line of `mountinfo` (proc(5)): fields 5 and, after " - ", 2.
fn parse(line: &[u8]) -> Option<(PathBuf, PathBuf)> {
    let mut fields = line.split(|&byte| byte == b' ');
    let mount_point = unescape(fields.nth(4)?);
    fields.find(|field| *field == b"-")?;
    let source = unescape(fields.nth(1)?);
    Some((mount_point, source))
}

/// Blanks and the like stand as a backslash and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| byte == b'\\').and_then(|digits| {
            let text = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(text, 8).ok()
        });
        bytes.push(octal.unwrap_or(byte));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lines_with_blanks_and_optional_fields() {
        let line = br"36 35 98:0 /mnt1 /mnt/my\040disk rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue";
        assert_eq!(parse(line), Some(("/mnt/my disk".into(), "/dev/root".into())));
        assert_eq!(parse(b"36 35 98:0"), None);
        assert_eq!(unescape(br"a\04"), PathBuf::from(r"a\04"));
    }
}
