use super::super::{DiskBus, Nic};
use super::disk::{LOOK, OFFER_MAX};
use super::*;
use crate::wire::facts::Firmware;
use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command};
use std::time::Instant;

const MAC: &str = "52:54:00:00:00:07";
const BEGIN: u64 = 1 << 20;

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
    let (name, changed) = settings::ifupdown(text, 0, &address()).unwrap();
    assert_eq!(name, "eth0");
    assert_eq!(
        changed,
        "# by hand\nauto lo\niface lo inet loopback\n\nallow-hotplug eth0\niface eth0 inet static\n    address 192.0.2.7\n    netmask 255.255.255.0\n    gateway 192.0.2.1\n    dns-nameservers 192.0.2.53\n\nauto eth1\niface eth1 inet static\n    address 10.0.0.1/8\n"
    );
    assert_eq!(
        settings::ifupdown(&changed, 0, &address()).unwrap().1,
        changed,
        "twice is as once"
    );
    let (name, changed) = settings::ifupdown(text, 1, &address()).unwrap();
    assert!(
        name == "eth1"
            && changed.contains("iface eth0 inet dhcp\n    up /bin/true")
            && !changed.contains("10.0.0.1")
    );
    assert_eq!(settings::ifupdown(text, 2, &address()), None);
    assert_eq!(settings::ifupdown("", 0, &address()), None);
    assert!(settings::reads_more("source /etc/network/interfaces.d/*\n"));
    assert!(!settings::reads_more("# source /etc/network/interfaces.d/*\n"));
}

#[test]
fn what_nics_are_joined_to_is_seen_and_what_only_looks_like_it_is_not() {
    let plain = "# bonds: none\nnetwork:\n  version: 2\n  ethernets:\n    ens3: {dhcp4: true}\n";
    assert!(!settings::netplan_is_joined_up(plain) && !settings::netplan_is_not_understood(plain));
    assert!(settings::netplan_is_joined_up(
        "network:\n  bonds: # two\n    bond0:\n"
    ));
    assert!(settings::netplan_is_joined_up(
        "network:\n  \"vlans\":\n    v5:\n"
    ));
    let flow = "network: {version: 2, bonds: {bond0: {interfaces: [a, b]}}}\n";
    assert!(settings::netplan_is_not_understood(flow));
    assert!(settings::netplan_uses_network_manager(
        "network:\n  renderer: \"NetworkManager\"  # desktop\n"
    ));
    assert!(!settings::netplan_uses_network_manager(
        "network:\n  # renderer: NetworkManager\n"
    ));
    assert!(settings::keyfile_is_joined_up("[connection]\ntype=bond\n"));
    assert!(settings::keyfile_is_joined_up(
        "[connection]\ntype=ethernet\nmaster=bond0\n"
    ));
    assert!(!settings::keyfile_is_joined_up("[connection]\ntype=ethernet\n"));
    assert!(settings::ifupdown_is_joined_up(
        "iface br0 inet dhcp\n  bridge_ports eth0\n"
    ));
    assert!(!settings::ifupdown_is_joined_up("iface eth0 inet dhcp\n"));
    assert!(settings::cloud_init_leaves_networks(
        "network: {config: disabled}\n"
    ));
    assert!(settings::cloud_init_leaves_networks(
        "network:\n  config: disabled\n"
    ));
    assert!(!settings::cloud_init_leaves_networks(
        "# network: {config: disabled}\n"
    ));
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

/// A disk with a partition, served over NBD as a branch is.
struct Bed {
    _server: Ended,
    spec: MachineSpec,
    disk: String,
    folder: tempfile::TempDir,
}

impl Bed {
    /// With this tree on ext4.
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        for (path, text) in files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            if path.extension().is_some_and(|end| end == "yaml") {
                std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
            }
        }
        let disk = folder.path().join("disk.raw");
        File::create(&disk).unwrap().set_len(33 << 20).unwrap();
        let path = disk.to_str().unwrap().to_owned();
        let offset = format!("offset={BEGIN}");
        run(
            "mkfs.ext4",
            &["-q", "-d", root.to_str().unwrap(), "-E", &offset, &path, "32M"],
        );
        let mut mbr = [0; 512];
        mbr[446 + 4] = 0x83;
        mbr[454..458].copy_from_slice(&2048u32.to_le_bytes());
        mbr[458..462].copy_from_slice(&65536u32.to_le_bytes());
        mbr[510..].copy_from_slice(&[0x55, 0xaa]);
        let file = File::options().write(true).open(&disk).unwrap();
        file.write_all_at(&mbr, 0).unwrap();
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
        let mut spec = spec(machine);
        spec.disks.push(DiskAttachment {
            socket,
            export: "disk".into(),
            file: None,
        });
        Self {
            _server: server,
            spec,
            disk: path,
            folder,
        }
    }

    fn at(&self) -> String {
        format!("{}?offset={BEGIN}", self.disk)
    }

    /// Every file below /etc with its mode, as others read it; and the file system is whole.
    fn tree(&self) -> BTreeMap<String, (u32, String)> {
        run("e2fsck", &["-fn", &self.at()]);
        let out = self.folder.path().join("out");
        let _ = std::fs::remove_dir_all(&out);
        std::fs::create_dir(&out).unwrap();
        run(
            "debugfs",
            &["-R", &format!("rdump /etc {}", out.display()), &self.at()],
        );
        let mut found = BTreeMap::new();
        gather(&out, &out, &mut found);
        found
    }
}

fn gather(root: &Path, folder: &Path, found: &mut BTreeMap<String, (u32, String)>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            gather(root, &path, found);
        } else {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o7777;
            found.insert(name, (mode, std::fs::read_to_string(&path).unwrap()));
        }
    }
}

fn spec(folder: PathBuf) -> MachineSpec {
    let mut nic = Nic::new(Some(MAC.into()), Network::Bridge { name: "br0".into() });
    nic.address = Some(address());
    MachineSpec {
        name: "web1-asr".into(),
        folder,
        cpus: 1,
        memory_bytes: 1 << 28,
        firmware: Firmware::Bios,
        disk_bus: DiskBus::VirtioBlk,
        disks: Vec::new(),
        nics: vec![nic],
    }
}

fn lacks_root() -> bool {
    if rustix::process::geteuid().is_root() {
        return false;
    }
    eprintln!("skipped: needs root for FUSE");
    true
}

const UNIT: &str = "[Unit]\n";
const NETWORKD: &str = "etc/systemd/system/multi-user.target.wants/systemd-networkd.service";
const MANAGER: &str = "etc/systemd/system/multi-user.target.wants/NetworkManager.service";
/// As cloud-init writes it on a machine with a static address.
const CLOUD_INIT_NETPLAN: &str = "# This file is generated from information provided by the datasource.\nnetwork:\n    ethernets:\n        ens3:\n            addresses:\n            - 10.0.0.4/24\n            match:\n                macaddress: 52:54:00:00:00:07\n            set-name: ens3\n    version: 2\n";

/// Each as it is installed: what is changed, with what in it; it is taken back, and set again.
#[test]
fn whoever_configures_the_guest_is_told_and_told_back() {
    if lacks_root() {
        return;
    }
    let networkd = "etc/systemd/network/00-lifeboat-0.network";
    let keyfile = "etc/NetworkManager/system-connections/lifeboat-0.nmconnection";
    type Case<'a> = (&'a str, Vec<(&'a str, &'a str)>, &'a str, u32, &'a [&'a str]);
    let cases: [Case; 6] = [
        (
            "ifupdown sets eth0",
            vec![("etc/network/interfaces", "auto eth0\niface eth0 inet dhcp\n")],
            "etc/network/interfaces",
            0o644,
            &[
                "iface eth0 inet static",
                "address 192.0.2.7",
                "netmask 255.255.255.0",
                "gateway 192.0.2.1",
            ],
        ),
        (
            "; cloud-init is told to leave the network alone.",
            vec![
                (
                    "etc/network/interfaces",
                    "source /etc/network/interfaces.d/*\nauto lo\niface lo inet loopback\n",
                ),
                (
                    "etc/network/interfaces.d/50-cloud-init",
                    "auto ens3\niface ens3 inet dhcp\n",
                ),
                ("etc/cloud/cloud.cfg", "users:\n - default\n"),
            ],
            "etc/network/interfaces.d/50-cloud-init",
            0o644,
            &[
                "iface ens3 inet static",
                "address 192.0.2.7",
                "netmask 255.255.255.0",
            ],
        ),
        (
            "systemd-networkd sets 52:54:00:00:00:07",
            vec![
                (NETWORKD, UNIT),
                ("etc/systemd/network/20-wired.network", "[Match]\nName=en*\n"),
            ],
            networkd,
            0o644,
            &[
                "MACAddress=52:54:00:00:00:07",
                "Address=192.0.2.7/24",
                "Gateway=192.0.2.1",
                "DNS=192.0.2.53",
            ],
        ),
        (
            "netplan's systemd-networkd sets 52:54:00:00:00:07",
            vec![
                ("etc/netplan/50-cloud-init.yaml", CLOUD_INIT_NETPLAN),
                ("etc/cloud/cloud.cfg", "users:\n - default\n"),
            ],
            networkd,
            0o644,
            &["MACAddress=52:54:00:00:00:07", "Address=192.0.2.7/24"],
        ),
        (
            "netplan's NetworkManager sets",
            vec![
                (
                    "etc/netplan/01-network-manager-all.yaml",
                    "network:\n  version: 2\n  renderer: NetworkManager\n",
                ),
                (
                    "etc/NetworkManager/NetworkManager.conf",
                    "[main]\nplugins=keyfile\n",
                ),
            ],
            keyfile,
            0o600,
            &[
                "mac-address=52:54:00:00:00:07",
                "address1=192.0.2.7/24,192.0.2.1",
                "dns=192.0.2.53;",
                "autoconnect-priority=999",
            ],
        ),
        (
            "NetworkManager sets",
            vec![
                (MANAGER, UNIT),
                ("etc/network/interfaces", "auto lo\niface lo inet loopback\n"),
                (
                    "etc/NetworkManager/system-connections/wired.nmconnection",
                    "[connection]\ntype=ethernet\n",
                ),
            ],
            keyfile,
            0o600,
            &["method=manual", "address1=192.0.2.7/24,192.0.2.1"],
        ),
    ];
    for (says, files, path, mode, holds) in cases {
        let bed = Bed::new(&files);
        let at_home = bed.tree();
        let first = configure(&bed.spec).unwrap();
        assert!(
            first.starts_with("In its branch: ") && first.contains(says),
            "{first}"
        );
        assert!(first.contains("192.0.2.7/24"), "{first}");
        let at_target = bed.tree();
        let inside = path;
        let (found_mode, text) = &at_target[inside];
        assert_eq!(*found_mode, mode, "{inside}");
        for part in holds {
            assert!(text.contains(part), "{says}: {text}");
        }
        // No file of somebody else but the one that is named was touched.
        for (name, was) in at_home.iter().filter(|(name, _)| *name != inside) {
            assert_eq!(&at_target[name], was, "{says}: {name}");
        }
        assert_eq!(configure(&bed.spec).unwrap(), first, "twice is as once");
        assert_eq!(bed.tree(), at_target);
        let left: Vec<_> = std::fs::read_dir(&bed.spec.folder).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "beside the machine are the notes alone: {left:?}");

        for (home, tree) in [
            (true, &at_home),
            (true, &at_home),
            (false, &at_target),
            (true, &at_home),
        ] {
            let told = readdress(&bed.spec, home).unwrap();
            assert!(!told.contains("could not") && !told.contains("kept"), "{told}");
            assert_eq!(&bed.tree(), tree, "{says}, home: {home}");
        }
    }
}

#[test]
fn a_file_that_somebody_changed_at_the_target_comes_home_as_it_is() {
    if lacks_root() {
        return;
    }
    let bed = Bed::new(&[("etc/network/interfaces", "auto eth0\niface eth0 inet dhcp\n")]);
    assert_eq!(readdress(&bed.spec, true), None, "nothing was set");
    configure(&bed.spec).unwrap();
    let other = bed.folder.path().join("other");
    std::fs::write(&other, "auto eth0\niface eth0 inet manual\n").unwrap();
    let commands = bed.folder.path().join("commands");
    let text = format!(
        "rm /etc/network/interfaces\nwrite {} /etc/network/interfaces\n",
        other.display()
    );
    std::fs::write(&commands, text).unwrap();
    {
        let offer = Offer::new(&bed.spec, &bed.spec.disks[0]).unwrap();
        let at = format!(
            "{}?offset={BEGIN}",
            bed.spec.folder.join("configure.raw").display()
        );
        run("debugfs", &["-w", "-f", commands.to_str().unwrap(), &at]);
        offer.sync().unwrap();
    }
    let told = readdress(&bed.spec, true).unwrap();
    assert_eq!(
        told,
        "Changed at the target by somebody else and kept: /etc/network/interfaces"
    );
    assert!(bed.tree()["etc/network/interfaces"].1.contains("manual"));
}

#[test]
fn what_is_not_changed_from_here_is_named() {
    if lacks_root() {
        return;
    }
    let bond = "network:\n  version: 2\n  bonds:\n    bond0:\n      interfaces: [ens3, ens4]\n";
    let cases: [(&[(&str, &str)], &str); 6] = [
        (
            &[("etc/hostname", "web1\n")],
            "no network configuration was found of netplan",
        ),
        (
            &[("etc/netplan/01-bond.yaml", bond)],
            "netplan joins NICs to bonds, bridges or VLANs",
        ),
        (
            &[(
                "etc/netplan/01.yaml",
                "network: {version: 2, ethernets: {ens3: {dhcp4: true}}}\n",
            )],
            "netplan's files are not understood",
        ),
        (
            &[("etc/wicked/common.xml", "<config/>\n")],
            "the guest uses wicked",
        ),
        (
            &[("etc/sysconfig/network-scripts/ifcfg-eth0", "DEVICE=eth0\n")],
            "the guest uses ifcfg files",
        ),
        (
            &[
                (NETWORKD, UNIT),
                ("etc/systemd/network/bond0.netdev", "[NetDev]\nKind=bond\n"),
            ],
            "systemd-networkd joins NICs",
        ),
    ];
    for (files, says) in cases {
        let bed = Bed::new(files);
        let before = bed.tree();
        let told = configure(&bed.spec).unwrap();
        assert!(
            told.starts_with("Its addresses are not set (") && told.contains(says),
            "{told}"
        );
        assert_eq!(bed.tree(), before, "{says}");
    }
    let bed = Bed::new(&[]);
    for (at, magic, says) in [
        (
            512,
            &b"LABELONE"[..],
            "the disk holds LVM, which is not changed from here",
        ),
        (
            0,
            &b"XFSB"[..],
            "the disk holds XFS, which is not changed from here",
        ),
    ] {
        let offer = Offer::new(&bed.spec, &bed.spec.disks[0]).unwrap();
        let file = File::options()
            .write(true)
            .open(bed.spec.folder.join("configure.raw"));
        let mut bytes = vec![0; 4096];
        bytes[at..at + magic.len()].copy_from_slice(magic);
        file.unwrap().write_all_at(&bytes, BEGIN).unwrap();
        offer.sync().unwrap();
        drop(offer);
        let told = configure(&bed.spec).unwrap();
        assert!(told.contains(says), "{told}");
    }
}

#[test]
fn a_nic_that_gets_its_address_by_dhcp_needs_nothing_of_the_guest() {
    let mut spec = spec("/nonexistent".into());
    spec.nics[0].network = Network::isolated("x");
    assert_eq!(configure(&spec), None);
    spec.nics[0].network = Network::Bridge { name: "br0".into() };
    assert!(configure(&spec).is_some());
    spec.nics[0].address = None;
    assert_eq!(configure(&spec), None);
}
