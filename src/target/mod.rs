//! The target site: machines started from replicas, and the networks they are put in.
//!
//! Last on the block's way: a machine reads its disks over NBD from `export`. Nothing here knows of vaults or jobs; orders
//! come as plain values ([`MachineSpec`]). Every verb is safe to run twice.
mod guest;
pub mod network;
pub mod qemu;

pub use guest::UNDERSTOOD;
pub use network::cidr::Cidr;
pub use qemu::QemuCompute;

use crate::wire::facts::Firmware;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use serde::{Deserialize, Serialize};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Connects to a socket whose path may be longer than a socket's address may be (107 bytes).
pub fn connect_unix(path: &Path, limit: Duration) -> io::Result<UnixStream> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let folder = std::fs::File::options()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(folder)?;
    let below = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string());
    let address = SocketAddrUnix::new(below.join(name))?;
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // Also limits the wait for another client to leave.
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(limit))?;
    rustix::net::connect(&socket, &address)?;
    Ok(UnixStream::from(socket))
}

/// All that is needed to start one machine. Stored in the machine's folder, so that a restarted server finds it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineSpec {
    /// Name at the target (`web1-asr`, `web1-test`): unique among running machines.
    pub name: String,
    /// Folder of this machine (`vms/<id>`): sockets, serial log, pid; made by `prepare`, removed by `destroy` with all that is in it.
    pub folder: PathBuf,
    pub cpus: u32,
    pub memory_bytes: u64,
    pub firmware: Firmware,
    pub disk_bus: DiskBus,
    /// In boot order; the first one boots.
    pub disks: Vec<DiskAttachment>,
    pub nics: Vec<Nic>,
}

impl MachineSpec {
    /// Its disks are files: it needs no NBD server.
    pub fn is_on_files(&self) -> bool {
        !self.disks.is_empty() && self.disks.iter().all(|disk| disk.file.is_some())
    }

    /// The same machine with these files as its disks, in their order.
    pub fn on_files(&self, files: &[DiskFile]) -> Self {
        let mut spec = self.clone();
        for (disk, file) in spec.disks.iter_mut().zip(files) {
            disk.file = Some(file.clone());
        }
        spec
    }

    /// Hardware address of a NIC by its place.
    pub fn mac(&self, place: usize) -> String {
        match self.nics.get(place).and_then(|nic| nic.mac.clone()) {
            Some(mac) => mac,
            None => qemu::made_up_mac(&self.name, place),
        }
    }
}

/// A disk as the NBD server in this host offers it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskAttachment {
    /// Unix socket of the NBD server.
    pub socket: PathBuf,
    /// NBD export name.
    pub export: String,
    /// The machine was hydrated: this file is its disk from then on, and the export is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<DiskFile>,
}

/// A disk as a file of the host, which nothing but the hypervisor reads or writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskFile {
    /// Absolute.
    pub path: PathBuf,
    pub format: DiskFormat,
    /// As the guest sees it.
    pub size_bytes: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DiskFormat {
    #[default]
    Raw,
    Qcow2,
}

impl DiskFormat {
    /// The driver's name, and the ending of a file's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// How far the copies of a machine's disks are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MirrorStatus {
    pub done_bytes: u64,
    pub total_bytes: u64,
    /// Every copy holds what was written up to now, and is written to with the disk.
    pub ready: bool,
    /// Why a copy failed, in the hypervisor's words. The machine runs on.
    pub failed: Option<String>,
    /// The hypervisor knows of no copy of every disk: none was begun, or the machine has stopped since.
    pub absent: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DiskBus {
    #[default]
    VirtioBlk,
    VirtioScsi,
    Ahci,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Nic {
    /// None: one is made up from the machine's name and the NIC's place.
    pub mac: Option<String>,
    pub network: Network,
    /// None: the guest keeps the address that it is configured with, or asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<NicAddress>,
}

impl Nic {
    pub fn new(mac: Option<String>, network: Network) -> Self {
        Self {
            mac,
            network,
            address: None,
        }
    }
}

/// What a guest is to use on a NIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NicAddress {
    /// Address and length of its subnet: `192.0.2.7/24`.
    pub cidr: Cidr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Ipv4Addr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<Ipv4Addr>,
}

/// What an isolated network offers to the machines in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Segment {
    /// For machines that bring no address along; None: a range of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cidr: Option<Cidr>,
    /// None: each machine's own gateway; the host stands in for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Ipv4Addr>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<Ipv4Addr>,
    pub dhcp: bool,
}

impl Default for Segment {
    fn default() -> Self {
        Self {
            cidr: None,
            gateway: None,
            dns: Vec::new(),
            dhcp: true,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Network {
    /// Outgoing through the host's own addresses; ports of the host's loopback address lead into the machine.
    User { forwards: Vec<Forward> },
    /// As `User`, but nothing leads out: only the forwards lead in. For a test failover without root.
    IsolatedUser { forwards: Vec<Forward> },
    /// A bridge in a network namespace of its own: machines keep their addresses and reach nothing else.
    Isolated {
        name: String,
        #[serde(default)]
        segment: Segment,
    },
    /// A bridge of the host that leads to the production network.
    Bridge { name: String },
    /// A network of the vault, by its name; what it is then is looked up when the machine is started. No compute sees one.
    Named { name: String },
}

impl Network {
    /// As it is without settings: DHCP on, addresses as the machines bring them along.
    pub fn isolated(name: &str) -> Self {
        Self::Isolated {
            name: name.to_owned(),
            segment: Segment::default(),
        }
    }
}

/// TCP port of 127.0.0.1 on the host to a port of the machine. `host_port` 0: a free one is chosen and shown in the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Forward {
    pub host_port: u16,
    pub guest_port: u16,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineStatus {
    pub power: Power,
    /// Why it is not running, where that is known.
    pub detail: String,
    pub pid: Option<u32>,
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// Ports that lead into the machine, with the host ports that were chosen.
    pub forwards: Vec<Forward>,
    /// First byte on the serial port since the start, in Unix nanoseconds.
    pub first_output_unix_nanos: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Power {
    Absent,
    Stopped,
    Running,
    Paused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Asks the guest (ACPI power button), then powers off after the limit.
    Graceful {
        limit: std::time::Duration,
    },
    PowerOff,
}

#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error("{program} is not installed on the target")]
    Missing { program: &'static str },
    #[error("cannot {action} {object}")]
    Io {
        action: &'static str,
        object: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the machine {machine} did not start: {detail}")]
    DidNotStart { machine: String, detail: String },
    #[error("the machine {machine} does not answer: {detail}")]
    NoAnswer { machine: String, detail: String },
    #[error("network {network}: {detail}")]
    Network { network: String, detail: String },
    #[error("not possible: {0}")]
    Refused(String),
}

impl TargetError {
    pub fn possible_causes(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "the package was never installed on the target, or was removed",
            Self::Io { .. } => "the file system is full or damaged, or its permissions refuse the access",
            Self::DidNotStart { .. } => {
                "the disks are not offered, memory is short, a host port is taken, or the hypervisor refuses the settings"
            }
            Self::NoAnswer { .. } => "the target is overloaded, or the hypervisor hangs",
            Self::Network { .. } => {
                "the network was removed, a bridge of the host is missing, or the kernel lacks the feature"
            }
            Self::Refused(_) => "the order does not fit this target",
        }
    }

    pub fn recommended_action(&self) -> &'static str {
        match self {
            Self::Missing { .. } => {
                "install it; on Debian: apt-get install --no-install-recommends qemu-system-x86 ovmf"
            }
            Self::Io { .. } => "make room or mend the permissions, then run it again",
            Self::DidNotStart { .. } => {
                "read what the hypervisor said above, remove the cause, then run it again"
            }
            Self::NoAnswer { .. } => {
                "look at the load of the target; powering the machine off ends a hypervisor that hangs"
            }
            Self::Network { .. } => "check the network's name and the target's bridges, then run it again",
            Self::Refused(_) => "change what the message names, then run it again",
        }
    }
}

/// A hypervisor. Blocking calls; all verbs are safe to run twice.
pub trait Compute: Send + Sync {
    fn kind(&self) -> &'static str;
    /// Whether machines can be started here at all; the error says what is missing.
    fn check(&self) -> Result<(), TargetError>;
    /// Makes the machine's folder and networks.
    fn prepare(&self, spec: &MachineSpec) -> Result<(), TargetError>;
    /// Behind `prepare`, with the disks offered and the machine not started yet: sets addresses in the guest's own configuration,
    /// where nobody else can. In words what was set, or why nothing was; None: nothing is to be set.
    fn configure_guest(&self, _: &MachineSpec) -> Option<String> {
        None
    }
    /// Of a machine that is stopped, with its disks offered: takes back what `configure_guest` changed, before it goes home, or,
    /// `home` false, does it again. In words; None: nothing was changed.
    fn readdress_guest(&self, _: &MachineSpec, _home: bool) -> Option<String> {
        None
    }
    /// Starts it, or finds it running.
    fn start(&self, spec: &MachineSpec) -> Result<MachineStatus, TargetError>;
    fn stop(&self, spec: &MachineSpec, how: Stop) -> Result<(), TargetError>;
    /// Powers off and removes all that `prepare` and `start` made.
    fn destroy(&self, spec: &MachineSpec) -> Result<(), TargetError>;
    fn status(&self, spec: &MachineSpec) -> Result<MachineStatus, TargetError>;
    /// The log of the serial port; may not exist yet.
    fn serial_log(&self, spec: &MachineSpec) -> PathBuf;
    /// Unix socket on which the screen, keyboard and mouse are served (VNC, without a password: the folder is private).
    fn console(&self, _: &MachineSpec) -> Option<PathBuf> {
        None
    }
    /// A PNG of the screen.
    fn screenshot(&self, spec: &MachineSpec) -> Result<Vec<u8>, TargetError>;

    /// Copies the disks to these files, one per disk, while the machine runs on; one that is stopped is brought up without
    /// letting it run. Files that are there already are written over. Does nothing where the copies are under way.
    fn mirror(&self, _: &MachineSpec, _: &[DiskFile]) -> Result<(), TargetError> {
        Err(TargetError::Refused(
            "this hypervisor does not copy disks".to_owned(),
        ))
    }
    fn mirror_status(&self, _: &MachineSpec) -> Result<MirrorStatus, TargetError> {
        Ok(MirrorStatus {
            absent: true,
            ..MirrorStatus::default()
        })
    }
    /// Holds the machine, lets the copies take what is still on its way, and puts them in the place of its disks. On return
    /// both hold the same, durably, and the machine is held until [`mirror_end`](Self::mirror_end). The copies are ready.
    fn mirror_pivot(&self, spec: &MachineSpec) -> Result<(), TargetError> {
        Err(TargetError::Refused(format!("{} has no copies", spec.name)))
    }
    /// Lets go of the disks that are no longer used, or of the copies, and lets the machine run on. Back on the disks of
    /// before where `keep` is false, also when it was moved already. The files stay. Nothing happens to one that is stopped.
    fn mirror_end(&self, _: &MachineSpec, _keep: bool) -> Result<(), TargetError> {
        Ok(())
    }
}
