//! Sets a guest's address in its configuration: in the branch that it is about to boot from, never in replicated data.
//!
//! The disk is offered as a file by `qemu-storage-daemon` over FUSE, and its ext4 file systems are changed by `e2fsck`, which
//! replays the journal first, and `debugfs`: nothing is mounted by this host's kernel, so a guest's file system is never its to
//! trust. What is not understood is left alone, and that is said. Doing it twice is the same as once.
use super::{DiskAttachment, MachineSpec, Network, NicAddress, TargetError};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const OFFER_MAX: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(20);
const PARTITIONS_MAX: usize = 128;
/// A configuration that is larger is no configuration.
const FILE_BYTES_MAX: usize = 256 * 1024;
const SECTOR: u64 = 512;

/// The NICs whose addresses nobody but the guest itself can set.
fn wanted(spec: &MachineSpec) -> Vec<(usize, NicAddress)> {
    let own = |network: &Network| match network {
        Network::Bridge { .. } => true,
        Network::Isolated { segment, .. } => !segment.dhcp,
        _ => false,
    };
    let nics = spec.nics.iter().enumerate();
    nics.filter(|(_, nic)| own(&nic.network))
        .filter_map(|(place, nic)| Some((place, nic.address.clone()?)))
        .collect()
}

/// In words what was set, or why nothing was; None: no NIC has an address that is to be set.
pub fn configure(spec: &MachineSpec) -> Option<String> {
    let nics = wanted(spec);
    if nics.is_empty() {
        return None;
    }
    let mut done = Vec::new();
    let mut trouble = String::new();
    for disk in &spec.disks {
        match on_disk(spec, disk, &nics) {
            Ok(words) => done.extend(words),
            Err(error) => trouble = error.to_string(),
        }
    }
    Some(match (done.is_empty(), trouble.is_empty()) {
        (false, _) => format!("In its branch: {}.", done.join("; ")),
        (true, true) => {
            "Its addresses are not set: no network configuration was found that is understood (ifupdown or \
                         systemd-networkd on ext4); the guest keeps its own, or asks a DHCP server"
                .to_owned()
        }
        (true, false) => {
            format!("Its addresses are not set ({trouble}); the guest keeps its own, or asks a DHCP server")
        }
    })
}

/// The disk as a file, for as long as this lives.
struct Offer {
    daemon: Child,
    file: PathBuf,
}

impl Drop for Offer {
    fn drop(&mut self) {
        // It takes its mount away and writes what it holds before it ends.
        if let Some(pid) = rustix::process::Pid::from_raw(self.daemon.id() as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let end = Instant::now() + OFFER_MAX;
        while matches!(self.daemon.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(LOOK);
        }
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        take_away(&self.file);
    }
}

/// Also what a server that was killed has left.
fn take_away(file: &Path) {
    if rustix::mount::unmount(file, rustix::mount::UnmountFlags::DETACH).is_ok() || file.exists() {
        let _ = std::fs::remove_file(file);
    }
}

fn io_of(action: &'static str, object: &Path) -> impl FnOnce(io::Error) -> TargetError {
    let object = object.to_owned();
    move |source| TargetError::Io {
        action,
        object,
        source,
    }
}

impl Offer {
    fn new(spec: &MachineSpec, disk: &DiskAttachment) -> Result<Self, TargetError> {
        let file = spec.folder.join("configure.raw");
        take_away(&file);
        File::create(&file).map_err(io_of("make", &file))?;
        let node = serde_json::json!({ "driver": "nbd", "node-name": "disk",
            "server": { "type": "unix", "path": disk.socket }, "export": disk.export });
        let export = serde_json::json!({ "type": "fuse", "id": "file", "node-name": "disk", "writable": true,
            "mountpoint": file, "growable": false });
        let mut command = Command::new("qemu-storage-daemon");
        command
            .args(["--blockdev", &node.to_string(), "--export", &export.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // SAFETY: between fork and exec only one system call is made, which is safe there.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
                -1 => Err(io::Error::last_os_error()),
                _ => Ok(()),
            });
        }
        let daemon = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => TargetError::Missing {
                program: "qemu-storage-daemon",
            },
            _ => io_of("run", Path::new("qemu-storage-daemon"))(error),
        })?;
        let mut offer = Self { daemon, file };
        let end = Instant::now() + OFFER_MAX;
        // An empty file until the disk is mounted over it.
        while !std::fs::metadata(&offer.file).is_ok_and(|found| found.len() > 0) {
            let ended = !matches!(offer.daemon.try_wait(), Ok(None));
            if ended || Instant::now() > end {
                return Err(TargetError::Refused(
                    "qemu-storage-daemon does not offer the disk as a file: FUSE is missing".to_owned(),
                ));
            }
            std::thread::sleep(LOOK);
        }
        Ok(offer)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u64 {
    let part = bytes.get(at..at + 4).and_then(|part| part.try_into().ok());
    u64::from(u32::from_le_bytes(part.unwrap_or_default()))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let part = bytes.get(at..at + 8).and_then(|part| part.try_into().ok());
    u64::from_le_bytes(part.unwrap_or_default())
}

/// Begins of what may be file systems, in bytes: the whole disk, and the partitions of an MBR or a GPT.
fn begins(disk: &File) -> io::Result<Vec<u64>> {
    let mut head = vec![0; 34 * SECTOR as usize];
    disk.read_exact_at(&mut head, 0)?;
    let mut found = vec![0];
    if head[510..512] != [0x55, 0xaa] {
        return Ok(found);
    }
    if &head[512..520] == b"EFI PART" {
        let (table, count, len) = (
            u64_at(&head, 512 + 72),
            u32_at(&head, 512 + 80),
            u32_at(&head, 512 + 84),
        );
        if (128..=4096).contains(&len) && table > 0 {
            for number in 0..count.min(PARTITIONS_MAX as u64) {
                let mut entry = [0; 128];
                let at = table.saturating_mul(SECTOR).saturating_add(number * len);
                if disk.read_exact_at(&mut entry, at).is_err() || entry[..16] == [0; 16] {
                    continue;
                }
                found.push(u64_at(&entry, 32).saturating_mul(SECTOR));
            }
        }
    } else {
        let entries = (0..4).map(|number| 446 + number * 16);
        found.extend(
            entries
                .filter(|at| head[at + 4] != 0)
                .map(|at| u32_at(&head, at + 8) * SECTOR),
        );
    }
    Ok(found)
}

fn is_ext(disk: &File, begin: u64) -> bool {
    let mut magic = [0; 2];
    disk.read_exact_at(&mut magic, begin.saturating_add(1024 + 56))
        .is_ok()
        && magic == [0x53, 0xef]
}

/// An ext file system inside a file, through its tools.
struct Ext {
    at: String,
    work: PathBuf,
}

impl Ext {
    fn tool(&self, program: &'static str, args: &[&str]) -> Result<Output, TargetError> {
        let run = Command::new(program)
            .args(args)
            .arg(&self.at)
            .env("LANG", "C")
            .stdin(Stdio::null())
            .output();
        run.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => TargetError::Missing { program },
            _ => io_of("run", Path::new(program))(error),
        })
    }

    /// None: it is not there.
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, TargetError> {
        let copy = self.work.join("configure.file");
        let _ = std::fs::remove_file(&copy);
        // Paths here are our own, without a space.
        self.tool("debugfs", &["-R", &format!("dump {path} {}", copy.display())])?;
        let bytes = std::fs::read(&copy).unwrap_or_default();
        let _ = std::fs::remove_file(&copy);
        Ok(Some(bytes).filter(|bytes| !bytes.is_empty() && bytes.len() <= FILE_BYTES_MAX))
    }

    fn has(&self, path: &str) -> Result<bool, TargetError> {
        let said = self.tool("debugfs", &["-R", &format!("stat {path}")])?;
        Ok(String::from_utf8_lossy(&said.stdout).contains("Inode:"))
    }

    fn write(&self, path: &str, content: &[u8]) -> Result<(), TargetError> {
        let copy = self.work.join("configure.file");
        let script = self.work.join("configure.commands");
        let failed = |error| io_of("write", &copy)(error);
        File::create(&copy)
            .and_then(|mut file| file.write_all(content))
            .map_err(failed)?;
        let commands = format!(
            "rm {path}\nwrite {} {path}\nsif {path} mode 0100644\nsif {path} uid 0\nsif {path} gid 0\n",
            copy.display()
        );
        std::fs::write(&script, commands).map_err(io_of("write", &script))?;
        self.tool("debugfs", &["-w", "-f", &script.display().to_string()])?;
        let _ = std::fs::remove_file(&copy);
        let _ = std::fs::remove_file(&script);
        match self.read(path)? {
            Some(found) if found == content => Ok(()),
            _ => Err(TargetError::Refused(format!(
                "{path} could not be written in the guest"
            ))),
        }
    }
}

fn on_disk(
    spec: &MachineSpec,
    disk: &DiskAttachment,
    nics: &[(usize, NicAddress)],
) -> Result<Vec<String>, TargetError> {
    let offer = Offer::new(spec, disk)?;
    let file = File::options()
        .read(true)
        .write(true)
        .open(&offer.file)
        .map_err(io_of("open", &offer.file))?;
    let mut done = Vec::new();
    for begin in begins(&file).map_err(io_of("read", &offer.file))? {
        if !is_ext(&file, begin) {
            continue;
        }
        let ext = Ext {
            at: format!("{}?offset={begin}", offer.file.display()),
            work: spec.folder.clone(),
        };
        // Else the guest's kernel would write its journal over what is changed here. Above 1 it could not be mended.
        let mended = ext.tool("e2fsck", &["-p", "-E", "journal_only"])?;
        if mended.status.code().is_none_or(|code| code > 1) || !ext.has("/etc")? {
            continue;
        }
        done.extend(in_file_system(spec, &ext, nics)?);
    }
    file.sync_all().map_err(io_of("write", &offer.file))?;
    Ok(done)
}

fn in_file_system(
    spec: &MachineSpec,
    ext: &Ext,
    nics: &[(usize, NicAddress)],
) -> Result<Vec<String>, TargetError> {
    let mut done = Vec::new();
    if ext.has("/etc/lab/address")? {
        if let Some((_, address)) = nics.first() {
            ext.write("/etc/lab/address", format!("{}\n", address.cidr).as_bytes())?;
            done.push(format!("the address is set to {}", address.cidr));
        }
    } else if ext.has("/etc/systemd/network")?
        && ext.has("/etc/systemd/system/multi-user.target.wants/systemd-networkd.service")?
    {
        for (place, address) in nics {
            let path = format!("/etc/systemd/network/00-lifeboat-{place}.network");
            ext.write(&path, networkd(&spec.mac(*place), address).as_bytes())?;
            done.push(format!(
                "systemd-networkd sets {} to {}",
                spec.mac(*place),
                address.cidr
            ));
        }
    } else if let Some(known) = ext.read("/etc/network/interfaces")? {
        let mut text = String::from_utf8_lossy(&known).into_owned();
        for (place, address) in nics {
            if let Some((name, changed)) = ifupdown(&text, *place, address) {
                text = changed;
                done.push(format!("ifupdown sets {name} to {}", address.cidr));
            }
        }
        if !done.is_empty() {
            ext.write("/etc/network/interfaces", text.as_bytes())?;
        }
    }
    Ok(done)
}

/// `systemd.network(5)`. By the hardware address, so that the NIC's name at the target does not matter.
fn networkd(mac: &str, address: &NicAddress) -> String {
    let mut text = format!(
        "[Match]\nMACAddress={mac}\n\n[Network]\nDHCP=no\nAddress={}\n",
        address.cidr
    );
    if let Some(gateway) = address.gateway {
        text += &format!("Gateway={gateway}\n");
    }
    for dns in &address.dns {
        text += &format!("DNS={dns}\n");
    }
    text
}

/// `interfaces(5)`: the stanza of the NIC at that place among those that are no loopback, with the address in place of whatever
/// it had. None: there is no such stanza. The name stays: a NIC that is named otherwise at the target does not get it.
fn ifupdown(text: &str, place: usize, address: &NicAddress) -> Option<(String, String)> {
    const BEGINS: [&str; 7] = [
        "iface",
        "auto",
        "mapping",
        "source",
        "source-directory",
        "no-auto-down",
        "no-scripts",
    ];
    let begins = |line: &str| {
        let word = line.split_whitespace().next().unwrap_or_default();
        BEGINS.contains(&word) || word.starts_with("allow-")
    };
    let lines: Vec<&str> = text.lines().collect();
    let stanzas: Vec<(usize, &str)> = lines
        .iter()
        .enumerate()
        .filter_map(|(number, line)| {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["iface", name, "inet", method, ..] if *name != "lo" && *method != "loopback" => {
                    Some((number, *name))
                }
                _ => None,
            }
        })
        .collect();
    let (from, name) = *stanzas.get(place)?;
    let to = lines[from + 1..]
        .iter()
        .position(|line| begins(line))
        .map_or(lines.len(), |len| from + 1 + len);
    let mut changed: Vec<String> = lines[..from].iter().map(|line| (*line).to_owned()).collect();
    changed.push(format!("iface {name} inet static"));
    changed.push(format!("    address {}", address.cidr));
    changed.extend(address.gateway.map(|gateway| format!("    gateway {gateway}")));
    if !address.dns.is_empty() {
        let dns: Vec<String> = address.dns.iter().map(ToString::to_string).collect();
        changed.push(format!("    dns-nameservers {}", dns.join(" ")));
    }
    changed.push(String::new());
    changed.extend(lines[to..].iter().map(|line| (*line).to_owned()));
    Some((name.to_owned(), changed.join("\n") + "\n"))
}

#[cfg(test)]
mod tests {
    use super::super::{DiskBus, Nic};
    use super::*;
    use crate::wire::facts::Firmware;

    fn address() -> NicAddress {
        NicAddress {
            cidr: "192.0.2.7/24".parse().unwrap(),
            gateway: Some("192.0.2.1".parse().unwrap()),
            dns: vec!["192.0.2.53".parse().unwrap()],
        }
    }

    #[test]
    fn a_stanza_of_ifupdown_is_replaced_and_the_others_stay() {
        let text = "# by hand\nauto lo\niface lo inet loopback\n\nallow-hotplug eth0\niface eth0 inet dhcp\n    up /bin/true\nauto eth1\niface eth1 inet static\n    address 10.0.0.1/8\n";
        let (name, changed) = ifupdown(text, 0, &address()).unwrap();
        assert_eq!(name, "eth0");
        assert_eq!(
            changed,
            "# by hand\nauto lo\niface lo inet loopback\n\nallow-hotplug eth0\niface eth0 inet static\n    address 192.0.2.7/24\n    gateway 192.0.2.1\n    dns-nameservers 192.0.2.53\n\nauto eth1\niface eth1 inet static\n    address 10.0.0.1/8\n"
        );
        assert_eq!(
            ifupdown(&changed, 0, &address()).unwrap().1,
            changed,
            "twice is as once"
        );
        let (name, changed) = ifupdown(text, 1, &address()).unwrap();
        assert!(
            name == "eth1"
                && changed.contains("iface eth0 inet dhcp\n    up /bin/true")
                && !changed.contains("10.0.0.1")
        );
        assert_eq!(ifupdown(text, 2, &address()), None);
        assert_eq!(ifupdown("", 0, &address()), None);
    }

    fn run(program: &str, args: &[&str]) -> String {
        let output = Command::new(program).args(args).output().unwrap();
        assert!(
            output.status.success(),
            "{program} {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    struct Ended(Child);

    impl Drop for Ended {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// A disk with a partition, served over NBD as a branch is; what the guest would read is changed, and its file system is whole.
    #[test]
    fn the_configuration_inside_a_partition_is_changed_over_nbd() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root for FUSE");
            return;
        }
        for (kind, file) in [
            ("ifupdown", "/etc/network/interfaces"),
            ("networkd", "/etc/systemd/network/00-lifeboat-0.network"),
            ("none", ""),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path().join("root");
            std::fs::create_dir_all(root.join("etc")).unwrap();
            match kind {
                "ifupdown" => {
                    std::fs::create_dir_all(root.join("etc/network")).unwrap();
                    std::fs::write(
                        root.join("etc/network/interfaces"),
                        "auto eth0\niface eth0 inet dhcp\n",
                    )
                    .unwrap();
                }
                "networkd" => {
                    std::fs::create_dir_all(root.join("etc/systemd/network")).unwrap();
                    let wants = root.join("etc/systemd/system/multi-user.target.wants");
                    std::fs::create_dir_all(&wants).unwrap();
                    std::fs::write(wants.join("systemd-networkd.service"), "[Unit]\n").unwrap();
                }
                _ => {}
            }
            let disk = folder.path().join("disk.raw");
            File::create(&disk).unwrap().set_len(33 << 20).unwrap();
            let path = disk.to_str().unwrap();
            run(
                "mkfs.ext4",
                &[
                    "-q",
                    "-d",
                    root.to_str().unwrap(),
                    "-E",
                    "offset=1048576",
                    path,
                    "32M",
                ],
            );
            let mut mbr = [0; 512];
            mbr[446 + 4] = 0x83;
            mbr[454..458].copy_from_slice(&2048u32.to_le_bytes());
            mbr[458..462].copy_from_slice(&65536u32.to_le_bytes());
            mbr[510..].copy_from_slice(&[0x55, 0xaa]);
            File::options()
                .write(true)
                .open(&disk)
                .unwrap()
                .write_all_at(&mbr, 0)
                .unwrap();
            let socket = folder.path().join("nbd");
            let server = Command::new("qemu-nbd")
                .args(["--persistent", "--shared=4", "--format=raw", "--export-name=disk"])
                .arg(format!("--socket={}", socket.display()))
                .arg(&disk)
                .spawn()
                .unwrap();
            let server = Ended(server);
            let end = Instant::now() + OFFER_MAX;
            while !socket.exists() {
                assert!(Instant::now() < end);
                std::thread::sleep(LOOK);
            }
            let machine = folder.path().join("machine");
            std::fs::create_dir(&machine).unwrap();
            let mut nic = Nic::new(
                Some("52:54:00:00:00:07".into()),
                Network::Bridge { name: "br0".into() },
            );
            nic.address = Some(address());
            let spec = MachineSpec {
                name: "web1-asr".into(),
                folder: machine.clone(),
                cpus: 1,
                memory_bytes: 1 << 28,
                firmware: Firmware::Bios,
                disk_bus: DiskBus::VirtioBlk,
                disks: vec![DiskAttachment {
                    socket,
                    export: "disk".into(),
                    file: None,
                }],
                nics: vec![nic],
            };
            let first = configure(&spec).unwrap();
            assert_eq!(configure(&spec).unwrap(), first, "twice is as once");
            assert_eq!(
                std::fs::read_dir(&machine).unwrap().count(),
                0,
                "nothing is left beside the machine"
            );
            drop(server);
            let at = format!("{path}?offset=1048576");
            run("e2fsck", &["-fn", &at]);
            if kind == "none" {
                assert!(
                    first.contains("not set: no network configuration was found"),
                    "{first}"
                );
                continue;
            }
            assert!(first.contains("192.0.2.7/24"), "{first}");
            let found = run("debugfs", &["-R", &format!("cat {file}"), &at]);
            assert!(
                found.contains("192.0.2.7/24") && found.to_lowercase().contains("gateway"),
                "{kind}: {found}"
            );
            assert!(run("debugfs", &["-R", &format!("stat {file}"), &at]).contains("Mode:  0644"));
        }
    }

    #[test]
    fn a_nic_that_gets_its_address_by_dhcp_needs_nothing_of_the_guest() {
        let mut spec = MachineSpec {
            name: "web1-test".into(),
            folder: "/nonexistent".into(),
            cpus: 1,
            memory_bytes: 1 << 28,
            firmware: Firmware::Bios,
            disk_bus: DiskBus::VirtioBlk,
            disks: Vec::new(),
            nics: vec![Nic::new(None, Network::isolated("x"))],
        };
        spec.nics[0].address = Some(address());
        assert_eq!(configure(&spec), None);
        spec.nics[0].network = Network::Bridge { name: "br0".into() };
        assert!(configure(&spec).is_some());
        spec.nics[0].address = None;
        assert_eq!(configure(&spec), None);
    }
}
