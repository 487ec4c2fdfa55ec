//! From a machine's specification to QEMU's arguments. Pure.
//!
//! QEMU works in the machine's folder and names its own files without a path, so the length of the path does not matter.
//! The guest gets nothing of the host's file system: its disks are NBD exports, its network a descriptor or user networking.
use super::record::{MONITOR_SOCKET, SERIAL, VARIABLES, VNC_SOCKET};
use crate::target::{DiskBus, DiskFile, Forward, MachineSpec};
use serde_json::json;
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::Path;

/// Argument by which a process is known as a machine's.
pub(super) const MONITOR: &str = "socket,id=lifeboat-monitor,path=qmp.sock,server=on,wait=off";
const _: () = assert!(MONITOR_SOCKET.len() == 8);

/// How long a machine waits for the NBD server to come back, in seconds: a year. Until then its disks hang, as a disk that is
/// slow; a server that is restarted, upgraded or repaired costs the guest time, not data.
const RECONNECT_SECONDS: u32 = 365 * 24 * 3600;
/// Disks on one AHCI controller.
const AHCI_PORTS: usize = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    Kvm,
    Tcg,
}

impl Accelerator {
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

pub(super) enum NicPlan {
    /// An open tap device, which QEMU inherits under this number.
    Tap { fd: RawFd, mac: String },
    User {
        forwards: Vec<Forward>,
        restricted: bool,
        mac: String,
    },
}

pub(super) struct Plan<'a> {
    pub accelerator: Accelerator,
    pub sandbox: bool,
    /// It is brought up, but does not run.
    pub held: bool,
    /// The code of the UEFI firmware; none: BIOS.
    pub firmware: Option<&'a Path>,
    pub nics: &'a [NicPlan],
}

pub(super) fn build(spec: &MachineSpec, plan: &Plan) -> Vec<OsString> {
    let mut args: Vec<OsString> = Vec::new();
    let mut add = |name: &str, value: String| {
        args.push(name.into());
        args.push(value.into());
    };
    let switch = ["-nodefaults", "-no-user-config"];
    add("-name", format!("guest={},debug-threads=on", spec.name));
    let pflash = if plan.firmware.is_some() {
        ",pflash0=code,pflash1=variables"
    } else {
        ""
    };
    add("-machine", format!("q35,usb=off,dump-guest-core=off{pflash}"));
    match plan.accelerator {
        Accelerator::Kvm => {
            add("-accel", "kvm".into());
            add("-cpu", "host".into());
        }
        Accelerator::Tcg => {
            // The default cache of translated code is 1 GiB: too much beside other machines.
            add("-accel", "tcg,thread=multi,tb-size=256".into());
            add("-cpu", "max".into());
        }
    }
    if plan.sandbox {
        add(
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny".into(),
        );
    }
    add("-smp", spec.cpus.max(1).to_string());
    add("-m", format!("{}M", (spec.memory_bytes >> 20).max(16)));
    add("-rtc", "base=utc,driftfix=slew".into());
    add("-boot", "menu=off,strict=on".into());
    if let Some(code) = plan.firmware {
        let code = json!({ "driver": "file", "node-name": "code", "filename": code, "read-only": true });
        add("-blockdev", code.to_string());
        let variables = json!({ "driver": "file", "node-name": "variables", "filename": VARIABLES });
        add("-blockdev", variables.to_string());
    }
    add("-chardev", MONITOR.into());
    add("-mon", "chardev=lifeboat-monitor,mode=control".into());
    add("-chardev", format!("file,id=serial,path={SERIAL},append=on"));
    add("-serial", "chardev:serial".into());
    add("-display", "none".into());
    add("-vga", "std".into());
    add("-vnc", format!("unix:{VNC_SOCKET}"));
    add("-object", "rng-builtin,id=rng".into());
    add("-device", "virtio-rng-pci,rng=rng".into());
    disks(spec, &mut add);
    for (index, nic) in plan.nics.iter().enumerate() {
        let mac = match nic {
            NicPlan::Tap { fd, mac } => {
                add("-netdev", format!("tap,id=net{index},fd={fd}"));
                mac
            }
            NicPlan::User {
                forwards,
                restricted,
                mac,
            } => {
                let mut user = format!("user,id=net{index}");
                if *restricted {
                    user += ",restrict=on";
                }
                for Forward {
                    host_port,
                    guest_port,
                } in forwards
                {
                    user += &format!(",hostfwd=tcp:127.0.0.1:{host_port}-:{guest_port}");
                }
                add("-netdev", user);
                mac
            }
        };
        // Without a ROM: nothing boots from the network, and no file of the host is needed for it.
        let model = match spec.disk_bus {
            DiskBus::Ahci => "e1000",
            DiskBus::VirtioBlk | DiskBus::VirtioScsi => "virtio-net-pci",
        };
        add("-device", format!("{model},netdev=net{index},mac={mac},romfile="));
    }
    args.extend(switch.map(OsString::from));
    if plan.held {
        args.push("-S".into());
    }
    args
}

fn disks(spec: &MachineSpec, add: &mut impl FnMut(&str, String)) {
    if spec.disk_bus == DiskBus::VirtioScsi {
        add("-device", "virtio-scsi-pci,id=scsi".into());
    }
    for (index, disk) in spec.disks.iter().enumerate() {
        let node = match &disk.file {
            Some(file) => file_node(file, &format!("disk{index}")),
            None => json!({
                "driver": "nbd", "node-name": format!("disk{index}"),
                "server": { "type": "unix", "path": disk.socket }, "export": disk.export,
                "reconnect-delay": RECONNECT_SECONDS,
                // Flushes reach the server; discards too. The server's answer is what the guest gets.
                "cache": { "direct": false, "no-flush": false }, "discard": "unmap",
            }),
        };
        add("-blockdev", node.to_string());
        let boot = index + 1;
        let common = format!("drive=disk{index},id=device{index},bootindex={boot},write-cache=on");
        let device = match spec.disk_bus {
            DiskBus::VirtioBlk => format!("virtio-blk-pci,{common}"),
            DiskBus::VirtioScsi => format!("scsi-hd,bus=scsi.0,channel=0,scsi-id=0,lun={index},{common}"),
            DiskBus::Ahci => {
                let (controller, port) = (index / AHCI_PORTS, index % AHCI_PORTS);
                if controller > 0 && port == 0 {
                    add("-device", format!("ahci,id=ahci{controller}"));
                }
                // The machine has a first controller of its own.
                let bus = match controller {
                    0 => format!("ide.{port}"),
                    _ => format!("ahci{controller}.{port}"),
                };
                format!("ide-hd,bus={bus},{common}")
            }
        };
        add("-device", device);
    }
}

/// A disk that is a file. What is discarded or written as zeros makes it smaller.
pub(super) fn file_node(file: &DiskFile, name: &str) -> serde_json::Value {
    json!({
        "driver": file.format.name(), "node-name": name, "discard": "unmap", "detect-zeroes": "unmap",
        "file": { "driver": "file", "node-name": format!("{name}-file"), "filename": file.path, "discard": "unmap",
                  "cache": { "direct": false, "no-flush": false } },
    })
}

/// The same machine has the same address at every start. Locally administered.
pub(in crate::target) fn made_up_mac(name: &str, place: usize) -> String {
    let hash = blake3::hash(format!("{name}/{place}").as_bytes());
    let hash = hash.as_bytes();
    format!(
        "02:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}",
        hash[0], hash[1], hash[2], hash[3], hash[4]
    )
}

/// Six bytes, of one station.
pub(super) fn is_mac(text: &str) -> bool {
    let bytes: Vec<&str> = text.split(':').collect();
    let first = bytes.first().and_then(|byte| u8::from_str_radix(byte, 16).ok());
    bytes.len() == 6
        && bytes
            .iter()
            .all(|byte| byte.len() == 2 && byte.bytes().all(|digit| digit.is_ascii_hexdigit()))
        && first.is_some_and(|first| first & 1 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(made_up_mac("web1-asr", 0), made_up_mac("web1-asr", 0));
        assert_ne!(made_up_mac("web1-asr", 0), made_up_mac("web1-asr", 1));
        assert!(is_mac(&made_up_mac("web1-asr", 3)) && is_mac("52:54:00:AB:cd:ef"));
        for wrong in [
            "",
            "52:54:00:ab:cd",
            "01:00:00:00:00:00",
            "52:54:00:ab:cd:e,",
            "+2:54:00:ab:cd:ef",
        ] {
            assert!(!is_mac(wrong), "{wrong}");
        }
    }
}
