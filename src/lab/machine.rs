//! A bootable machine of the lab, built from packages and this program.
use super::error::LabError;
use super::image::{self, BootCode, DiskIds};
use super::packages::{Kernel, Parts, file_of, run};
use super::{elf, guest, initramfs, ledger, workload};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where on the disk the root file system begins.
pub const ROOT_OFFSET: u64 = image::ROOT_OFFSET;
pub const DEFAULT_DISK_BYTES: u64 = 512 << 20;
/// Folder of the ledger on the machine's root.
pub const DATA_FOLDER: &str = "data";
/// Room that a machine must have for its work: the ledger grows by 220 MiB a day at 20 entries per second.
const ROOM_BYTES: u64 = 64 << 20;
const JOURNAL_BYTES: u64 = 16 << 20;
/// Bitmaps, inode tables, reserved blocks: about 3 % of a file system, and something for small ones.
const FILE_SYSTEM_SHARE: u64 = 30;

/// What a machine is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachinePlan {
    pub name: String,
    pub disk_bytes: u64,
    /// `10.77.0.11/24`: taken where no DHCP server answers.
    pub address: String,
    pub kernel: Kernel,
    /// Ledger entries per second: of the workload on the source, and of the booted replica once it has verified its data.
    pub rate: u32,
    pub table_slots: u32,
    /// A booted replica goes on writing its ledger.
    pub works_after_failover: bool,
}

impl MachinePlan {
    /// Machine `number` (from 1) of a lab: `lab1` with the address 10.77.0.11.
    pub fn numbered(number: u8, disk_bytes: u64) -> Self {
        Self {
            name: format!("lab{number}"),
            disk_bytes,
            address: format!("10.77.0.{}/24", 10_u16 + u16::from(number)),
            kernel: Kernel::default(),
            rate: workload::ENTRIES_PER_SECOND,
            table_slots: workload::TABLE_SLOTS,
            works_after_failover: true,
        }
    }
}

/// A machine's disk in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineImage {
    pub name: String,
    pub path: PathBuf,
    pub disk_bytes: u64,
    pub ids: DiskIds,
}

/// Builds the disk of one machine. `program`: this executable, a copy of which judges the data in the booted machine.
pub fn build(
    plan: &MachinePlan,
    parts: &Parts,
    program: &Path,
    path: &Path,
) -> Result<MachineImage, LabError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let work = tempfile::Builder::new()
        .prefix(".build-")
        .tempdir_in(folder)
        .map_err(LabError::io("make a folder in", folder))?;
    if !crate::wire::is_machine_name(&plan.name) {
        return Err(LabError::Name(plan.name.clone()));
    }
    // A whole number of MiB, as disks have.
    let disk_bytes = plan.disk_bytes / (1 << 20) * (1 << 20);
    let ids = DiskIds::of(&plan.name);
    let tree = work.path().join("root");
    let content = plant(plan, parts, program, &ids, &tree)?;
    let needed = needed_bytes(content);
    if disk_bytes < needed {
        return Err(LabError::TooSmall {
            asked: plan.disk_bytes,
            needed,
        });
    }
    let boot = BootCode::make(parts, work.path())?;
    image::compose(path, disk_bytes, &ids, &boot, &tree, work.path())?;
    image::finish(path, &boot)?;
    Ok(MachineImage {
        name: plan.name.clone(),
        path: path.to_owned(),
        disk_bytes,
        ids,
    })
}

fn needed_bytes(content: u64) -> u64 {
    let root = content + JOURNAL_BYTES + ROOM_BYTES;
    (image::AROUND_ROOT + root + root / FILE_SYSTEM_SHARE).next_multiple_of(1 << 20)
}

/// The content of the root file system; how many bytes its files take.
fn plant(
    plan: &MachinePlan,
    parts: &Parts,
    program: &Path,
    ids: &DiskIds,
    tree: &Path,
) -> Result<u64, LabError> {
    let mut root = Root {
        folder: tree.to_owned(),
        bytes: 0,
    };
    for folder in ["bin", "proc", "sys", "dev", "tmp", "run", "etc/acpi/PWRF"] {
        root.folder(folder)?;
    }
    let busybox = file_of(&parts.busybox, &["bin/busybox", "usr/bin/busybox"])?;
    root.copy(&busybox, "bin/busybox")?;
    let link = tree.join("bin/sh");
    symlink("busybox", &link).map_err(LabError::io("make", &link))?;

    root.copy(&kernel_file(&parts.kernel)?, "boot/vmlinuz")?;
    root.write("boot/initrd", &initramfs::build(&parts.kernel, &busybox)?, 0o644)?;
    // No menu and no wait. The serial port comes last: it is /dev/console. The kernel is not quiet: its first line on
    // the serial port is the sign that it started, so it gets there before the real driver does.
    let grub = format!(
        "linux /boot/vmlinuz root=UUID={} rw earlyprintk=serial,ttyS0,115200 console=tty0 console=ttyS0,115200 panic=-1 \
         random.trust_cpu=on\ninitrd /boot/initrd\nboot\n",
        ids.root_file_system
    );
    root.write("boot/grub/grub.cfg", grub.as_bytes(), 0o644)?;

    root.write("etc/hostname", format!("{}\n", plan.name).as_bytes(), 0o644)?;
    let address = plan.address.split('/').next().unwrap_or_default();
    let hosts = format!("127.0.0.1 localhost\n{address} {}\n", plan.name);
    root.write("etc/hosts", hosts.as_bytes(), 0o644)?;
    root.write("etc/passwd", b"root:x:0:0:root:/:/bin/sh\n", 0o644)?;
    root.write("etc/lab/address", format!("{}\n", plan.address).as_bytes(), 0o644)?;
    if plan.works_after_failover {
        root.write("etc/lab/workload", format!("{}\n", plan.rate).as_bytes(), 0o644)?;
    }
    root.write("sbin/init", guest::INIT.as_bytes(), 0o755)?;
    root.write("etc/udhcpc.script", guest::DHCP.as_bytes(), 0o755)?;
    root.write("etc/acpi/PWRF/00000080", guest::POWER_BUTTON.as_bytes(), 0o755)?;
    copy_program(&mut root, program)?;
    ledger::create(&tree.join(DATA_FOLDER), &plan.name, plan.table_slots)?;
    root.bytes += u64::from(plan.table_slots) * 2 * ledger::COPY_LEN as u64;
    Ok(root.bytes)
}

fn kernel_file(package: &Path) -> Result<PathBuf, LabError> {
    let boot = file_of(package, &["boot"])?;
    std::fs::read_dir(&boot)
        .map_err(LabError::io("read", &boot))?
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with("vmlinuz"))
        .map(|entry| entry.path())
        .ok_or_else(|| LabError::NotInPackage {
            package: package.display().to_string(),
            wanted: "boot/vmlinuz".to_owned(),
        })
}

/// This program with the libraries that it loads, each where it expects them.
fn copy_program(root: &mut Root, program: &Path) -> Result<(), LabError> {
    let bytes = std::fs::read(program).map_err(LabError::io("read", program))?;
    let place = root.folder.join("usr/bin/lifeboat");
    root.folder("usr/bin")?;
    let stripped = ["strip", "llvm-strip", "objcopy"].iter().any(|tool| {
        run(Command::new(tool)
            .arg("--strip-all")
            .arg(program)
            .args(if *tool == "objcopy" {
                vec![place.clone()]
            } else {
                vec!["-o".into(), place.clone()]
            }))
        .is_ok()
    });
    if stripped {
        root.count(&place)?;
    } else {
        // Only larger.
        root.write("usr/bin/lifeboat", &bytes, 0o755)?;
    }
    let Some(loader) = elf::interpreter(&bytes) else {
        return Ok(()); // linked statically
    };
    // The loader itself says what it would load.
    let listed = run(Command::new(loader).arg("--list").arg(program))?;
    let mut libraries = vec![loader.to_owned()];
    libraries.extend(listed_libraries(&String::from_utf8_lossy(&listed.stdout)));
    for library in libraries {
        let inside = library.trim_start_matches('/');
        if !root.folder.join(inside).exists() {
            root.copy(Path::new(&library), inside)?;
        }
    }
    Ok(())
}

/// `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f…)` -> the path.
fn listed_libraries(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.split_once(" => ")?.1.split(" (").next())
        .filter(|path| path.starts_with('/') && !path.contains("/../"))
        .map(str::to_owned)
        .collect()
}

/// The tree that becomes the root file system.
struct Root {
    folder: PathBuf,
    bytes: u64,
}

impl Root {
    fn folder(&self, inside: &str) -> Result<(), LabError> {
        let path = self.folder.join(inside);
        std::fs::create_dir_all(&path).map_err(LabError::io("make", &path))
    }

    fn make_room(&self, inside: &str) -> Result<PathBuf, LabError> {
        if let Some((folder, _)) = inside.rsplit_once('/') {
            self.folder(folder)?;
        }
        Ok(self.folder.join(inside))
    }

    fn count(&mut self, path: &Path) -> Result<(), LabError> {
        let len = path.metadata().map_err(LabError::io("read", path))?.len();
        self.bytes += len.next_multiple_of(4096);
        Ok(())
    }

    fn copy(&mut self, from: &Path, inside: &str) -> Result<(), LabError> {
        let path = self.make_room(inside)?;
        std::fs::copy(from, &path).map_err(LabError::io("copy", from))?;
        self.count(&path)
    }

    fn write(&mut self, inside: &str, content: &[u8], mode: u32) -> Result<(), LabError> {
        let path = self.make_room(inside)?;
        std::fs::write(&path, content)
            .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)))
            .map_err(LabError::io("write", &path))?;
        self.count(&path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule() {
        for good in ["a", "web1", "WEB-1", &"a".repeat(63)] {
            assert!(crate::wire::is_machine_name(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a_b", "a.b", "ä", &"a".repeat(64)] {
            assert!(!crate::wire::is_machine_name(bad), "{bad}");
        }
    }

    #[test]
    fn reads_what_the_loader_lists() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x0)\n\tlibx.so => not found\n";
        assert_eq!(
            listed_libraries(text),
            ["/lib/x86_64-linux-gnu/libc.so.6".to_owned()]
        );
    }
}
