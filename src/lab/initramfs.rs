//! The first root of a booting machine: busybox, the drivers of the hardware it may meet, and a script.
//!
//! A driver is loaded with all it depends on, in that order, when its device is seen; see `initramfs.sh`. The dependencies are
//! read from the modules themselves: the package holds no `modules.dep`, which is made at installation.
use super::elf;
use super::error::LabError;
use super::packages::run;
use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Groups as the script names them, and their modules. What a kernel has built in, or has not, is left out.
const GROUPS: [(&str, &[&str]); 9] = [
    (
        "always",
        &["crc32c_generic", "crc32c_intel", "ext4", "evdev", "button"],
    ),
    ("virtio-blk", &["virtio_pci", "virtio_blk"]),
    ("virtio-scsi", &["virtio_pci", "virtio_scsi", "sd_mod"]),
    ("virtio-net", &["virtio_pci", "virtio_net"]),
    ("ahci", &["ahci", "sd_mod"]),
    ("ide", &["ata_piix", "sd_mod"]),
    ("nvme", &["nvme"]),
    ("e1000", &["e1000"]),
    ("e1000e", &["e1000e"]),
];

/// Builds the archive from an unpacked kernel package and busybox.
pub fn build(kernel: &Path, busybox: &Path) -> Result<Vec<u8>, LabError> {
    let modules = Modules::find(kernel)?;
    let mut archive = Cpio::default();
    for folder in ["bin", "modules", "proc", "sys", "dev", "root"] {
        archive.add(folder, 0o040_755, &[]);
    }
    let busybox = std::fs::read(busybox).map_err(LabError::io("read", busybox))?;
    archive.add("bin/busybox", 0o100_755, &busybox);
    archive.add("init", 0o100_755, include_bytes!("initramfs.sh"));
    let mut written = HashSet::new();
    for (group, wanted) in GROUPS {
        let mut order = Vec::new();
        for name in wanted {
            modules.order_of(name, &mut order)?;
        }
        let mut list = String::new();
        for (name, content) in &order {
            list += &format!("{name}.ko\n");
            if written.insert(name.clone()) {
                archive.add(&format!("modules/{name}.ko"), 0o100_644, content);
            }
        }
        archive.add(&format!("modules/{group}"), 0o100_644, list.as_bytes());
    }
    Ok(archive.finish())
}

/// The modules of a kernel package by name.
struct Modules(BTreeMap<String, PathBuf>);

impl Modules {
    fn find(kernel: &Path) -> Result<Self, LabError> {
        let top = super::packages::file_of(kernel, &["lib/modules", "usr/lib/modules"])?;
        let mut found = BTreeMap::new();
        let mut folders = vec![top];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).map_err(LabError::io("read", &folder))? {
                let entry = entry.map_err(LabError::io("read", &folder))?;
                let path = entry.path();
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(path);
                } else if let Some((name, _)) =
                    path.file_name().and_then(|name| name.to_str()?.split_once(".ko"))
                {
                    // Names of modules and of their files differ in this sign only.
                    found.insert(name.replace('-', "_"), path);
                }
            }
        }
        Ok(Self(found))
    }

    fn content(path: &Path) -> Result<Vec<u8>, LabError> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("xz") => Ok(run(Command::new("xz").arg("-dc").arg(path))?.stdout),
            Some("zst") => {
                let packed = std::fs::File::open(path).map_err(LabError::io("read", path))?;
                zstd::decode_all(packed).map_err(LabError::io("unpack", path))
            }
            _ => std::fs::read(path).map_err(LabError::io("read", path)),
        }
    }

    /// Appends a module behind all it needs. A module that is not there is built in, or made for other hardware.
    fn order_of(&self, name: &str, order: &mut Vec<(String, Vec<u8>)>) -> Result<(), LabError> {
        let Some(path) = self.0.get(name) else {
            return Ok(());
        };
        if order.iter().any(|(there, _)| there == name) {
            return Ok(());
        }
        let content = Self::content(path)?;
        if elf::section(&content, ".modinfo").is_none() {
            return Err(LabError::Malformed {
                object: path.clone(),
                detail: "it is no kernel module".to_owned(),
            });
        }
        let needed: Vec<String> = elf::module_info(&content, "depends")
            .flat_map(|list| list.split(','))
            .map(|needed| needed.replace('-', "_"))
            .filter(|needed| !needed.is_empty() && needed != name)
            .collect();
        for needed in needed {
            self.order_of(&needed, order)?;
        }
        order.push((name.to_owned(), content));
        Ok(())
    }
}

/// An archive in the "newc" form (`buffer-format.rst` of the kernel's documentation).
#[derive(Default)]
struct Cpio {
    bytes: Vec<u8>,
    count: u32,
}

impl Cpio {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.count += 1;
        let len = u32::try_from(content.len()).unwrap_or(u32::MAX);
        // inode, mode, uid, gid, links, time, size, device (2), device of a node (2), length of the name, no checksum
        let fields = [
            self.count,
            mode,
            0,
            0,
            1,
            0,
            len,
            0,
            0,
            0,
            0,
            u32::try_from(name.len() + 1).unwrap_or(u32::MAX),
            0,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            // Writing to a vector does not fail.
            let _ = write!(self.bytes, "{field:08x}");
        }
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_the_form_that_the_kernel_reads() {
        let mut archive = Cpio::default();
        archive.add("a", 0o100_644, b"hello");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        assert!(bytes.starts_with(b"07070100000001000081a400000000000000000000000100000000000000050000"));
        assert_eq!(&bytes[110..112], b"a\0");
        assert_eq!(&bytes[112..117], b"hello");
        assert_eq!(&bytes[120..126], b"070701");
        assert!(bytes.windows(10).any(|window| window == b"TRAILER!!!"));
    }
}
