//! A disk that boots by BIOS and by UEFI alike, put together in a file without a mount and without root.
//!
//! ```text
//! sector 0        GRUB's boot.img around the protective MBR      34..  GPT, then
//! 40..2047        partition 1, BIOS boot: GRUB's core.img
//! 2048..10239     partition 2, EFI system partition: GRUB as one EFI program
//! 16384..         partition 3, ext4: the root; kernel, initramfs and grub.cfg are read from it
//! ```
use super::error::LabError;
use super::fat;
use super::packages::{Parts, file_of, run};
use gpt::partition::Partition;
use gpt::partition_types::{BIOS, EFI, LINUX_FS, Type};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use uuid::Uuid;

const SECTOR: u64 = 512;
const BIOS_FIRST: u64 = 40;
const BIOS_SECTORS: u64 = 2008;
const EFI_FIRST: u64 = 2048;
const ROOT_FIRST: u64 = 16384;
pub const ROOT_PARTITION: u32 = 3;
/// Where the root begins.
pub const ROOT_OFFSET: u64 = ROOT_FIRST * SECTOR;
/// Before the root and behind it (the second partition table, rounded up).
pub const AROUND_ROOT: u64 = ROOT_OFFSET + (1 << 20);

/// Ids of one disk. Made from the machine's name: the same machine built again is the same machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskIds {
    pub disk: Uuid,
    pub partitions: [Uuid; 3],
    pub root_file_system: Uuid,
}

impl DiskIds {
    pub fn of(name: &str) -> Self {
        let id = |of: &str| {
            let hash = blake3::derive_key("lifeboat lab disk ids v1", format!("{name}\0{of}").as_bytes());
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&hash[..16]);
            uuid::Builder::from_random_bytes(bytes).into_uuid()
        };
        Self {
            disk: id("disk"),
            partitions: [id("bios"), id("efi"), id("root")],
            root_file_system: id("root file system"),
        }
    }
}

/// GRUB for both kinds of firmware.
pub struct BootCode {
    boot: Vec<u8>,
    core: Vec<u8>,
    efi: Vec<u8>,
}

impl BootCode {
    /// Runs GRUB's image maker from its unpacked package. `work`: a folder for what it makes.
    pub fn make(parts: &Parts, work: &Path) -> Result<Self, LabError> {
        let pc = file_of(&parts.grub_pc, &["usr/lib/grub/i386-pc"])?;
        let efi = file_of(&parts.grub_efi, &["usr/lib/grub/x86_64-efi"])?;
        let boot = pc.join("boot.img");
        let boot = std::fs::read(&boot).map_err(LabError::io("read", &boot))?;
        let core = mkimage(
            parts,
            work,
            "i386-pc",
            &pc,
            &["biosdisk", "part_gpt", "ext2", "normal", "linux"],
        )?;
        let efi = mkimage(
            parts,
            work,
            "x86_64-efi",
            &efi,
            &["part_gpt", "ext2", "normal", "linux", "efi_gop"],
        )?;
        Self::prepare(boot, core, efi).map_err(|detail| LabError::Malformed {
            object: pc,
            detail: detail.to_owned(),
        })
    }

    /// Writes into the first sectors where the next ones are, as `grub-bios-setup` would.
    fn prepare(mut boot: Vec<u8>, mut core: Vec<u8>, efi: Vec<u8>) -> Result<Self, &'static str> {
        if boot.len() != SECTOR as usize || boot[510..] != [0x55, 0xaa] {
            return Err("boot.img is no boot sector");
        }
        let sectors = (core.len() as u64).div_ceil(SECTOR);
        if !(2..=BIOS_SECTORS).contains(&sectors) {
            return Err("core.img does not fit its partition");
        }
        boot[0x5c..0x64].copy_from_slice(&BIOS_FIRST.to_le_bytes());
        // Boot from the disk that the firmware names, and do not second-guess it.
        boot[0x64] = 0xff;
        boot[0x66..0x68].copy_from_slice(&[0x90, 0x90]);
        // The last entry of the block list in the first sector: start, count, and the segment to load to.
        core[500..508].copy_from_slice(&(BIOS_FIRST + 1).to_le_bytes());
        core[508..510].copy_from_slice(&u16::try_from(sectors - 1).unwrap_or(u16::MAX).to_le_bytes());
        core[510..512].copy_from_slice(&0x820_u16.to_le_bytes());
        Ok(Self { boot, core, efi })
    }
}

fn mkimage(
    parts: &Parts,
    work: &Path,
    format: &str,
    modules: &Path,
    wanted: &[&str],
) -> Result<Vec<u8>, LabError> {
    let program = file_of(&parts.grub_common, &["usr/bin/grub-mkimage"])?;
    let output = work.join(format!("grub-{format}"));
    let libraries: Vec<PathBuf> = ["lib", "usr/lib"]
        .iter()
        .map(|folder| parts.device_mapper.join(folder).join("x86_64-linux-gnu"))
        .collect();
    run(Command::new(program)
        .env(
            "LD_LIBRARY_PATH",
            std::env::join_paths(libraries).unwrap_or_default(),
        )
        .args(["--format", format, "--directory"])
        .arg(modules)
        .arg("--output")
        .arg(&output)
        // The third partition of whatever disk it was started from.
        .args(["--prefix", "(,gpt3)/boot/grub"])
        .args(wanted))?;
    std::fs::read(&output).map_err(LabError::io("read", &output))
}

/// Makes the disk's file: partition table, boot code, and the root with the content of `tree`.
pub fn compose(
    path: &Path,
    disk_bytes: u64,
    ids: &DiskIds,
    boot: &BootCode,
    tree: &Path,
    work: &Path,
) -> Result<(), LabError> {
    let write = || LabError::io("write", path);
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .map_err(LabError::io("make", path))?;
    file.set_len(disk_bytes).map_err(write())?;
    let root_last = (disk_bytes - (1 << 20)) / SECTOR - 1;
    partition(&mut file, disk_bytes, ids, root_last).map_err(|error| LabError::PartitionTable {
        action: "write",
        object: path.to_owned(),
        detail: error.to_string(),
    })?;
    file.write_all_at(&boot.core, BIOS_FIRST * SECTOR)
        .map_err(write())?;
    let serial = ids.partitions[1].as_fields().0;
    let efi = fat::efi_system_partition(&boot.efi, serial).ok_or_else(|| LabError::Malformed {
        object: path.to_owned(),
        detail: "GRUB's EFI program does not fit the EFI system partition".to_owned(),
    })?;
    file.write_all_at(&efi, EFI_FIRST * SECTOR).map_err(write())?;
    make_root(
        path,
        ids,
        (root_last + 1 - ROOT_FIRST) * SECTOR / 1024,
        tree,
        work,
    )?;
    file.sync_all().map_err(LabError::io("flush", path))
}

fn partition(file: &mut File, disk_bytes: u64, ids: &DiskIds, root_last: u64) -> Result<(), gpt::GptError> {
    let sectors = u32::try_from(disk_bytes / SECTOR - 1).unwrap_or(u32::MAX);
    file.write_all_at(&gpt::mbr::ProtectiveMBR::with_lb_size(sectors).to_bytes(), 0)?;
    let mut disk = gpt::GptConfig::new()
        .writable(true)
        .change_partition_count(true)
        .create_from_device(&mut *file, Some(ids.disk))?;
    let entry = |place: usize, part_type_guid: Type, first_lba, last_lba, name: &str| Partition {
        part_type_guid,
        part_guid: ids.partitions[place],
        first_lba,
        last_lba,
        flags: 0,
        name: name.to_owned(),
    };
    disk.update_partitions(BTreeMap::from([
        (
            1,
            entry(0, BIOS, BIOS_FIRST, BIOS_FIRST + BIOS_SECTORS - 1, "bios"),
        ),
        (
            2,
            entry(1, EFI, EFI_FIRST, EFI_FIRST + u64::from(fat::SECTORS) - 1, "efi"),
        ),
        (3, entry(2, LINUX_FS, ROOT_FIRST, root_last, "root")),
    ]))?;
    disk.write()?;
    Ok(())
}

/// `mke2fs` with all its settings given, so that a host's own configuration changes nothing: GRUB must be able to read it.
fn make_root(path: &Path, ids: &DiskIds, kib: u64, tree: &Path, work: &Path) -> Result<(), LabError> {
    let settings = work.join("mke2fs.conf");
    let features = "has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,\
                    large_file,huge_file,dir_nlink,extra_isize,metadata_csum";
    std::fs::write(
        &settings,
        format!("[defaults]\n base_features = {features}\n default_mntopts = acl,user_xattr\n blocksize = 4096\n inode_size = 256\n inode_ratio = 16384\n"),
    )
    .map_err(LabError::io("write", &settings))?;
    run(Command::new("mke2fs")
        .env("MKE2FS_CONFIG", &settings)
        .env("PATH", with_system_programs())
        .args(["-q", "-F", "-t", "ext4", "-L", "root", "-m", "1"])
        .args(["-U", &ids.root_file_system.to_string()])
        // Nothing is left to be initialized in the background: that would be changed blocks that nobody wrote.
        .args([
            "-E",
            &format!(
                "offset={ROOT_OFFSET},lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0,hash_seed={}",
                ids.partitions[2]
            ),
        ])
        .arg("-d")
        .arg(tree)
        .arg(path)
        .arg(format!("{kib}k")))?;
    Ok(())
}

/// `PATH` with the folders of system programs, which users other than root often lack.
pub(super) fn with_system_programs() -> std::ffi::OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}

/// Writes the boot sector's code; last, because without it the disk is not mistaken for a finished one.
pub fn finish(path: &Path, boot: &BootCode) -> Result<(), LabError> {
    let file = File::options()
        .write(true)
        .open(path)
        .map_err(LabError::io("open", path))?;
    file.write_all_at(&boot.boot[..440], 0)
        .and_then(|()| file.sync_all())
        .map_err(LabError::io("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_the_name() {
        let ids = DiskIds::of("web1");
        assert_eq!(ids, DiskIds::of("web1"));
        let other = DiskIds::of("web2");
        assert_ne!(ids.disk, other.disk);
        assert_ne!(ids.root_file_system, other.root_file_system);
        assert_ne!(ids.partitions[0], ids.partitions[1]);
    }

    #[test]
    fn boot_code_that_is_none_is_refused() {
        let sector = {
            let mut sector = vec![0; 512];
            sector[510..].copy_from_slice(&[0x55, 0xaa]);
            sector
        };
        let prepare = BootCode::prepare;
        assert!(prepare(vec![0; 512], vec![0; 2048], vec![]).is_err());
        assert!(prepare(sector.clone(), vec![0; 100], vec![]).is_err());
        assert!(prepare(sector.clone(), vec![0; 2 << 20], vec![]).is_err());
        let code = prepare(sector, vec![0; 1025], vec![]).unwrap();
        assert_eq!(code.boot[0x5c], 40);
        assert_eq!(code.core[500..512], [41, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0x20, 8]);
    }
}
