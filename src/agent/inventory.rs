//! What this machine is: disks by an identity that outlives device names, file systems, firmware, NICs. Read-only, from
//! sysfs and procfs; what cannot be read is left out, never guessed.
use super::mounts;
use crate::wire::facts::{DiskFacts, Firmware, Inventory, NicFacts, PartitionFacts};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Kernel devices that are no disks of the machine.
const NOT_DISKS: [&str; 8] = ["loop", "ram", "zram", "sr", "fd", "dm-", "nbd", "md"];

/// The machine as it is now. `only`: these devices or image files and no others; empty: all disks that are found.
pub fn take(only: &[PathBuf]) -> Inventory {
    let devices = if only.is_empty() { found() } else { only.to_vec() };
    let mut disks: Vec<DiskFacts> = devices.iter().filter_map(|device| disk(device)).collect();
    mark_boot(&mut disks);
    let uname = rustix::system::uname();
    let text = |cstr: &std::ffi::CStr| cstr.to_string_lossy().into_owned();
    Inventory {
        host_name: host_name(),
        os: os_name(),
        kernel: text(uname.release()),
        architecture: text(uname.machine()),
        cpus: std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u32),
        memory_bytes: memory_bytes(),
        firmware: if Path::new("/sys/firmware/efi").exists() {
            Firmware::Uefi
        } else {
            Firmware::Bios
        },
        boot_id: boot_id(),
        disks,
        nics: nics(),
        checks: Vec::new(),
    }
}

/// Which disks there are and how large each is: cheap enough to look often, so that a disk that comes, goes or grows is told of
/// soon. Two glances that differ call for another [`take`].
pub fn glance(only: &[PathBuf]) -> Vec<(PathBuf, u64, String)> {
    let devices = if only.is_empty() { found() } else { only.to_vec() };
    let look = |device: PathBuf| match std::fs::metadata(&device) {
        Ok(meta) if meta.file_type().is_block_device() => {
            let sys = sys_folder(meta.rdev());
            let text = |name: &str| line(sys.join(name)).unwrap_or_default();
            (
                device,
                meta.rdev(),
                format!("{} {}", text("size"), text("diskseq")),
            )
        }
        Ok(meta) => (device, meta.ino(), meta.len().to_string()),
        Err(_) => (device, 0, String::new()),
    };
    devices.into_iter().map(look).collect()
}

fn line(path: impl AsRef<Path>) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Tells one boot of the kernel from the next.
pub fn boot_id() -> String {
    line("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn os_name() -> String {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

fn memory_bytes() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = info
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn found() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let mut devices: Vec<PathBuf> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let disk = !NOT_DISKS.iter().any(|prefix| name.starts_with(prefix))
                && line(entry.path().join("size")).is_some_and(|size| size != "0")
                && line(entry.path().join("removable")).is_none_or(|removable| removable == "0");
            disk.then(|| Path::new("/dev").join(name.replace('!', "/")))
        })
        .collect();
    devices.sort();
    devices
}

/// One disk or image file; None for what is neither, or cannot be read.
pub(super) fn disk(device: &Path) -> Option<DiskFacts> {
    let meta = std::fs::metadata(device).ok()?;
    let path = std::fs::canonicalize(device).ok()?;
    if !meta.file_type().is_block_device() {
        return meta.is_file().then(|| DiskFacts {
            stable_id: format!("file:{}", path.display()),
            device: path.display().to_string(),
            size_bytes: meta.len(),
            boot: is_bootable(&path),
            partitions: Vec::new(),
        });
    }
    let sys = sys_folder(meta.rdev());
    let size_bytes = line(sys.join("size"))?.parse::<u64>().ok()? * 512;
    Some(DiskFacts {
        stable_id: stable_id(&path, &sys).unwrap_or_default(),
        device: path.display().to_string(),
        size_bytes,
        boot: false,
        partitions: partitions(&path, &sys),
    })
}

fn sys_folder(number: u64) -> PathBuf {
    PathBuf::from(format!(
        "/sys/dev/block/{}:{}",
        rustix::fs::major(number),
        rustix::fs::minor(number)
    ))
}

/// What the device says of itself first, then what is written on it.
fn stable_id(device: &Path, sys: &Path) -> Option<String> {
    if let Some(file) = line(sys.join("loop/backing_file")) {
        return Some(format!("backing:{file}"));
    }
    for name in ["wwid", "device/wwid"] {
        if let Some(wwn) = line(sys.join(name)) {
            return Some(format!(
                "wwn:{}",
                wwn.split_whitespace().collect::<Vec<_>>().join("-")
            ));
        }
    }
    for name in ["serial", "device/serial"] {
        if let Some(serial) = line(sys.join(name)) {
            return Some(format!("serial:{serial}"));
        }
    }
    table_id(device)
}

/// GUID of a GPT (UEFI specification, section 5.3.2: offset 56 of the header), else the signature of an MBR (offset 440).
fn table_id(device: &Path) -> Option<String> {
    let file = File::open(device).ok()?;
    for sector in [512, 4096] {
        let mut header = [0; 92];
        if file.read_exact_at(&mut header, sector).is_ok() && header.starts_with(b"EFI PART") {
            let guid = uuid::Uuid::from_slice_le(&header[56..72]).ok()?;
            return Some(format!("gpt:{guid}"));
        }
    }
    let mut sector = [0; 512];
    file.read_exact_at(&mut sector, 0).ok()?;
    let signature = [sector[440], sector[441], sector[442], sector[443]];
    (sector[510..] == [0x55, 0xaa] && signature != [0; 4])
        .then(|| format!("mbr:{:08x}", u32::from_le_bytes(signature)))
}

fn partitions(device: &Path, sys: &Path) -> Vec<PartitionFacts> {
    let mounted = mounts::table();
    let facts = |path: PathBuf, sys: &Path| {
        let number = std::fs::metadata(&path).map(|meta| meta.rdev()).ok();
        let sectors = |name: &str| line(sys.join(name)).and_then(|text| text.parse::<u64>().ok());
        PartitionFacts {
            offset_bytes: sectors("start").unwrap_or(0) * 512,
            size_bytes: sectors("size").unwrap_or(0) * 512,
            file_system: file_system(&path).unwrap_or_default().to_owned(),
            mount_points: mounted
                .iter()
                .filter(|(_, devices)| number.is_some_and(|number| devices.contains(&number)))
                .map(|(point, _)| point.display().to_string())
                .collect(),
            device: path.display().to_string(),
        }
    };
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(sys).into_iter().flatten().flatten() {
        if let Some(number) = line(entry.path().join("partition")).and_then(|text| text.parse::<u32>().ok())
            && let Ok(name) = entry.file_name().into_string()
        {
            let path = Path::new("/dev").join(name.replace('!', "/"));
            found.insert(number, facts(path, &entry.path()));
        }
    }
    if found.is_empty() && file_system(device).is_some() {
        found.insert(0, facts(device.to_owned(), sys));
    }
    found.into_values().collect()
}

/// By the marks that each kind leaves at its known place.
fn file_system(device: &Path) -> Option<&'static str> {
    const MARKS: [(u64, &[u8], &str); 8] = [
        (1080, &[0x53, 0xef], "ext4"),
        (0, b"XFSB", "xfs"),
        (65_600, b"_BHRfS_M", "btrfs"),
        (54, b"FAT", "vfat"),
        (82, b"FAT32", "vfat"),
        (4086, b"SWAPSPACE2", "swap"),
        (512, b"LABELONE", "lvm"),
        (4096, b"\xfc\x4e\x2b\xa9", "md"),
    ];
    let file = File::open(device).ok()?;
    MARKS.into_iter().find_map(|(offset, mark, name)| {
        let mut bytes = vec![0; mark.len()];
        (file.read_exact_at(&mut bytes, offset).is_ok() && bytes == mark).then_some(name)
    })
}

/// The disk of `/boot` or `/`; where neither is on one of them, the first that a firmware could start from.
fn mark_boot(disks: &mut [DiskFacts]) {
    for wanted in ["/boot", "/"] {
        let holds = |disk: &DiskFacts| {
            let mut points = disk.partitions.iter().flat_map(|part| &part.mount_points);
            points.any(|point| point == wanted)
        };
        if let Some(disk) = disks.iter_mut().find(|disk| holds(disk)) {
            disk.boot = true;
            return;
        }
    }
    if let Some(disk) = disks.iter_mut().find(|disk| is_bootable(Path::new(&disk.device))) {
        disk.boot = true;
    }
}

/// Boot code in the first sector, or an EFI system partition.
fn is_bootable(device: &Path) -> bool {
    /// Type GUID of an EFI system partition, as it stands on the disk.
    const ESP: [u8; 16] = [
        0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b,
    ];
    let mut bytes = vec![0; 34 * 512];
    let Ok(file) = File::open(device) else {
        return false;
    };
    if file.read_exact_at(&mut bytes, 0).is_err() {
        return false;
    }
    let boot_code = bytes[510..512] == [0x55, 0xaa] && bytes[..440].iter().any(|byte| *byte != 0);
    boot_code
        || bytes[1024..]
            .chunks_exact(128)
            .any(|entry| entry.starts_with(&ESP))
}

/// NICs except the loopback, by name.
pub fn nics() -> Vec<NicFacts> {
    let gateways = gateways();
    let mut addresses = addresses();
    let mut nics: Vec<NicFacts> = std::fs::read_dir("/sys/class/net")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            if name == "lo" || !entry.path().exists() {
                return None;
            }
            Some(NicFacts {
                mac: line(entry.path().join("address")).unwrap_or_default(),
                addresses: addresses.remove(&name).unwrap_or_default(),
                default_gateway: gateways.get(&name).cloned(),
                name,
            })
        })
        .collect();
    nics.sort_by(|a, b| a.name.cmp(&b.name));
    nics
}

/// Default gateways by interface (proc(5), `/proc/net/route`: hexadecimal in the host's byte order).
fn gateways() -> BTreeMap<String, String> {
    let table = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (name, destination, gateway) = (fields.first()?, fields.get(1)?, fields.get(2)?);
            let gateway = u32::from_str_radix(gateway, 16).ok()?;
            (*destination == "00000000" && gateway != 0).then(|| {
                let address = std::net::Ipv4Addr::from(gateway.to_ne_bytes());
                ((*name).to_owned(), address.to_string())
            })
        })
        .collect()
}

/// Addresses with prefix length by interface, as getifaddrs(3) lists them.
fn addresses() -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: `list` is a valid place for the result; it is freed below by the call that belongs to it.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return found;
    }
    let mut next = list;
    while !next.is_null() {
        // SAFETY: `next` is an element of the list, which lives until freeifaddrs.
        let entry = unsafe { &*next };
        next = entry.ifa_next;
        if entry.ifa_addr.is_null() || entry.ifa_netmask.is_null() || entry.ifa_name.is_null() {
            continue;
        }
        // SAFETY: the name is a C string of the list.
        let name = unsafe { std::ffi::CStr::from_ptr(entry.ifa_name) }.to_string_lossy();
        // SAFETY: the family says which structure the address and the mask are.
        let address = unsafe {
            match i32::from((*entry.ifa_addr).sa_family) {
                libc::AF_INET => {
                    let ip = (*entry.ifa_addr.cast::<libc::sockaddr_in>()).sin_addr.s_addr;
                    let mask = (*entry.ifa_netmask.cast::<libc::sockaddr_in>()).sin_addr.s_addr;
                    let ip = std::net::Ipv4Addr::from(ip.to_ne_bytes());
                    Some(format!("{ip}/{}", mask.count_ones()))
                }
                libc::AF_INET6 => {
                    let ip = (*entry.ifa_addr.cast::<libc::sockaddr_in6>()).sin6_addr.s6_addr;
                    let mask = (*entry.ifa_netmask.cast::<libc::sockaddr_in6>())
                        .sin6_addr
                        .s6_addr;
                    let bits: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
                    Some(format!("{}/{bits}", std::net::Ipv6Addr::from(ip)))
                }
                _ => None,
            }
        };
        found.entry(name.into_owned()).or_default().extend(address);
    }
    // SAFETY: the list came from getifaddrs and is not used after this.
    unsafe { libc::freeifaddrs(list) };
    found
}

/// The device of a disk with this identity, now.
pub fn find(stable_id: &str, only: &[PathBuf]) -> Option<PathBuf> {
    let devices = if only.is_empty() { found() } else { only.to_vec() };
    devices
        .iter()
        .filter_map(|device| disk(device))
        .find(|disk| disk.stable_id == stable_id)
        .map(|disk| PathBuf::from(disk.device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_described() {
        let inventory = take(&[]);
        assert!(!inventory.kernel.is_empty() && !inventory.boot_id.is_empty());
        assert!(inventory.cpus > 0 && inventory.memory_bytes > 0);
        assert_eq!(inventory.architecture, std::env::consts::ARCH);
        assert!(addresses()["lo"].iter().any(|address| address == "127.0.0.1/8"));
    }

    #[test]
    fn an_image_file_is_a_disk_and_its_marks_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.img");
        let mut bytes = vec![0; 1 << 20];
        bytes[1080..1082].copy_from_slice(&[0x53, 0xef]);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(file_system(&path), Some("ext4"));
        let disk = take(std::slice::from_ref(&path)).disks.remove(0);
        assert_eq!((disk.size_bytes, disk.boot), (1 << 20, false));
        assert!(disk.stable_id.starts_with("file:/"));
        assert_eq!(
            find(&disk.stable_id, std::slice::from_ref(&path)),
            Some(PathBuf::from(&disk.device))
        );
        bytes[..3].copy_from_slice(&[0xeb, 0x3c, 0x90]);
        bytes[440..444].copy_from_slice(&[4, 3, 2, 1]);
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(table_id(&path).as_deref(), Some("mbr:01020304"));
        assert!(take(&[path]).disks[0].boot);
    }
}
