//! Which mounted file systems live on which disks.
use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A mounted file system on at least one of the disks asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystem {
    pub mount_point: PathBuf,
    /// Indices of the disks it lives on.
    pub disks: Vec<usize>,
}

/// File systems of these whole disks, in the order of their mounting: also those on partitions, and on device-mapper
/// and md devices above them.
pub fn of_disks<'a>(devices: impl Iterator<Item = &'a Path>) -> io::Result<Vec<FileSystem>> {
    let sys = Path::new("/sys");
    let disks = devices
        .map(|path| devices_of(sys, std::fs::metadata(path)?.rdev()))
        .collect::<io::Result<Vec<_>>>()?;
    let table = std::fs::read("/proc/self/mountinfo")?;
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for mount in table.split(|&byte| byte == b'\n').filter_map(Mount::parse) {
        let lives_on = mount.devices(sys);
        let disks: Vec<usize> = (0..disks.len())
            .filter(|&index| !disks[index].is_disjoint(&lives_on))
            .collect();
        // Hidden beneath another mount: its path leads elsewhere. Often it is mounted at a second place.
        if disks.is_empty() || seen.contains(&mount.device) || mount.is_hidden() {
            continue;
        }
        seen.insert(mount.device);
        found.push(FileSystem {
            mount_point: mount.point,
            disks,
        });
    }
    Ok(found)
}

/// Every mount: its mount point and the device numbers that hold its data.
pub fn table() -> Vec<(PathBuf, HashSet<u64>)> {
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    table
        .split(|&byte| byte == b'\n')
        .filter_map(Mount::parse)
        .map(|mount| {
            let devices = mount.devices(Path::new("/sys"));
            (mount.point, devices)
        })
        .collect()
}

/// Whether one of these devices is the disk, one of its partitions, or stacked upon them.
pub fn is_on(devices: &HashSet<u64>, disk: &Path) -> bool {
    std::fs::metadata(disk)
        .and_then(|meta| devices_of(Path::new("/sys"), meta.rdev()))
        .is_ok_and(|of_disk| !of_disk.is_disjoint(devices))
}

/// Whether the kernel can freeze a file system of this kind.
pub fn can_freeze(file_system: &str) -> bool {
    [
        "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "jfs", "nilfs2", "reiserfs",
    ]
    .contains(&file_system)
}

fn number(text: &str) -> Option<u64> {
    let (major, minor) = text.trim().split_once(':')?;
    Some(rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?))
}

fn folder_of(sys: &Path, device: u64) -> PathBuf {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    sys.join(format!("dev/block/{major}:{minor}"))
}

/// Device numbers of the disk, its partitions, and what is stacked upon them.
fn devices_of(sys: &Path, disk: u64) -> io::Result<HashSet<u64>> {
    let mut devices = HashSet::new();
    let mut left = vec![disk];
    while let Some(device) = left.pop() {
        if !devices.insert(device) {
            continue;
        }
        let folder = folder_of(sys, device);
        let partitions = std::fs::read_dir(&folder)?
            .flatten()
            .filter(|entry| entry.path().join("partition").exists());
        // None for a partition of an old kernel.
        let holders = std::fs::read_dir(folder.join("holders"))
            .into_iter()
            .flatten()
            .flatten();
        for entry in partitions.chain(holders) {
            if let Ok(text) = std::fs::read_to_string(entry.path().join("dev")) {
                left.extend(number(&text));
            }
        }
    }
    Ok(devices)
}

/// One line of `mountinfo` (proc(5)).
struct Mount {
    id: u64,
    /// As the kernel numbers the file system; btrfs has a number of its own here.
    device: u64,
    point: PathBuf,
    kind: Vec<u8>,
    source: PathBuf,
}

impl Mount {
    fn parse(line: &[u8]) -> Option<Self> {
        let text = |field: &[u8]| std::str::from_utf8(field).map(str::to_owned).ok();
        let mut fields = line.split(|&byte| byte == b' ');
        let id = text(fields.next()?)?.parse().ok()?;
        let device = number(&text(fields.nth(1)?)?)?;
        let point = unescape(fields.nth(1)?);
        fields.find(|field| *field == b"-")?;
        let kind = fields.next()?.to_owned();
        let source = unescape(fields.next()?);
        Some(Self {
            id,
            device,
            point,
            kind,
            source,
        })
    }

    /// Block devices that hold its data.
    fn devices(&self, sys: &Path) -> HashSet<u64> {
        let mut devices = HashSet::from([self.device]);
        // "/dev/root" names no device on many systems; then the number alone counts.
        if self.source.starts_with("/dev")
            && let Ok(meta) = std::fs::metadata(&self.source)
            && meta.file_type().is_block_device()
        {
            devices.insert(meta.rdev());
        }
        if self.kind == b"btrfs" {
            let all = std::fs::read_dir(sys.join("fs/btrfs"))
                .into_iter()
                .flatten()
                .flatten();
            for file_system in all {
                let members: HashSet<u64> = std::fs::read_dir(file_system.path().join("devices"))
                    .into_iter()
                    .flatten()
                    .flatten()
                    .filter_map(|entry| number(&std::fs::read_to_string(entry.path().join("dev")).ok()?))
                    .collect();
                if !members.is_disjoint(&devices) {
                    devices.extend(members);
                }
            }
        }
        devices
    }

    /// Whether the path leads to another mount.
    fn is_hidden(&self) -> bool {
        use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
        let flags = AtFlags::NO_AUTOMOUNT;
        match statx(CWD, &self.point, flags, StatxFlags::MNT_ID) {
            // A kernel before 5.8 does not tell.
            Ok(stat) => stat.stx_mask & StatxFlags::MNT_ID.bits() != 0 && stat.stx_mnt_id != self.id,
            Err(_) => true,
        }
    }
}

/// Blanks and the like stand as a backslash and three octal digits.
pub(super) fn unescape(field: &[u8]) -> PathBuf {
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
        let mount = Mount::parse(line).unwrap();
        assert_eq!((mount.id, mount.device), (36, rustix::fs::makedev(98, 0)));
        assert_eq!(mount.point, PathBuf::from("/mnt/my disk"));
        assert_eq!(
            (mount.kind.as_slice(), mount.source),
            (&b"ext3"[..], "/dev/root".into())
        );
        assert!(Mount::parse(b"36 35 98:0").is_none());
        assert_eq!(unescape(br"a\04"), PathBuf::from(r"a\04"));
    }

    /// A disk 8:0 with partition 8:1, upon it a crypt device 252:0, upon that a volume 252:1.
    #[test]
    fn stacked_devices_belong_to_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let sys = folder.path();
        let make = |path: &str, content: &str| {
            let path = sys.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        };
        make("dev/block/8:0/sda1/partition", "1\n");
        make("dev/block/8:0/sda1/dev", "8:1\n");
        make("dev/block/8:0/queue/depth", "1\n");
        make("dev/block/8:1/holders/dm-0/dev", "252:0\n");
        make("dev/block/252:0/holders/dm-1/dev", "252:1\n");
        make("dev/block/252:1/dev", "252:1\n");
        let found = devices_of(sys, rustix::fs::makedev(8, 0)).unwrap();
        let expected = [(8, 0), (8, 1), (252, 0), (252, 1)];
        assert_eq!(
            found,
            expected
                .map(|(major, minor)| rustix::fs::makedev(major, minor))
                .into()
        );
        // A file system of which the kernel names only the number.
        let line = b"1 0 252:1 / / rw - ext4 /dev/no-such-root rw";
        assert!(!Mount::parse(line).unwrap().devices(sys).is_disjoint(&found));
    }
}
