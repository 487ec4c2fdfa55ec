//! Machines as QEMU processes.
//!
//! A machine is a folder: its specification, sockets, logs, UEFI variables, and the pid of a QEMU that is nobody's child. The server
//! may end, be killed or be upgraded: the machine runs on, waits for its disks at the same NBD sockets, and the next server finds it by
//! its folder. A crash at any instant leaves a folder that `start` and `destroy` can work with.
mod command_line;
mod mirror;
mod png;
mod process;
mod qmp;
mod record;
mod serial;

pub use command_line::Accelerator;
pub(super) use command_line::made_up_mac;

use super::network::{IsolatedNetwork, Seat, Seats, tap_on_host_bridge};
use super::{
    Compute, DiskFile, Forward, MachineSpec, MachineStatus, MirrorStatus, Network, Power, Stop, TargetError,
};
use crate::wire::facts::Firmware;
use command_line::{NicPlan, Plan};
use process::Process;
use qmp::{Qmp, QmpError};
use record::{Run, io_error, load, save};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Firmware, devices and many NICs on a busy host take seconds, not minutes.
const START_MAX: Duration = Duration::from_secs(60);
const MONITOR_MAX: Duration = Duration::from_secs(5);
const QUIT_MAX: Duration = Duration::from_secs(5);
/// A guest that boots may miss the power button: it is pressed again.
const PRESS_AGAIN: Duration = Duration::from_secs(10);
/// A log longer than this is put aside at the next start.
const SERIAL_BYTES_MAX: u64 = 8 << 20;
const SCREENSHOT_BYTES_MAX: u64 = 64 << 20;
const PORT_TRIES: u32 = 5;
/// What a socket's path may have, without the final zero.
const SOCKET_PATH_MAX: usize = 107;

/// UEFI code and empty variables as distributions install them.
const FIRMWARE: [(&str, &str); 6] = [
    (
        "/usr/share/OVMF/OVMF_CODE_4M.fd",
        "/usr/share/OVMF/OVMF_VARS_4M.fd",
    ),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    (
        "/usr/share/edk2/ovmf/OVMF_CODE.fd",
        "/usr/share/edk2/ovmf/OVMF_VARS.fd",
    ),
    (
        "/usr/share/edk2/x64/OVMF_CODE.4m.fd",
        "/usr/share/edk2/x64/OVMF_VARS.4m.fd",
    ),
    (
        "/usr/share/edk2-ovmf/x64/OVMF_CODE.fd",
        "/usr/share/edk2-ovmf/x64/OVMF_VARS.fd",
    ),
    (
        "/usr/share/qemu/ovmf-x86_64-code.bin",
        "/usr/share/qemu/ovmf-x86_64-vars.bin",
    ),
];

#[derive(Default)]
pub struct QemuCompute {
    accelerator: Option<Accelerator>,
    machines: Mutex<HashMap<PathBuf, Arc<Machine>>>,
}

/// What this process must keep in order for one machine.
#[derive(Default)]
struct Machine {
    /// One order that changes it at a time.
    order: Mutex<()>,
    /// QEMU's monitor serves one client at a time.
    monitor: Mutex<()>,
    serial: serial::Watch,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refused(text: String) -> TargetError {
    TargetError::Refused(text)
}

fn program() -> Result<PathBuf, TargetError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/bin", "/usr/local/bin"].map(PathBuf::from))
        .map(|folder| folder.join("qemu-system-x86_64"))
        // The distributions of one vendor install it under this name only.
        .chain([PathBuf::from("/usr/libexec/qemu-kvm")])
        .find(|path| {
            std::fs::metadata(path)
                .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        })
        .ok_or(TargetError::Missing {
            program: "qemu-system-x86_64",
        })
}

fn firmware() -> Result<(&'static Path, &'static Path), TargetError> {
    FIRMWARE
        .iter()
        .map(|(code, variables)| (Path::new(code), Path::new(variables)))
        .find(|(code, variables)| code.exists() && variables.exists())
        .ok_or(TargetError::Missing {
            program: "the UEFI firmware OVMF",
        })
}

/// KVM with the processor's help. There are hosts that offer KVM without it: they run some guests only.
fn kvm() -> Result<(), String> {
    File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .map_err(|error| format!("no KVM: /dev/kvm: {error}"))?;
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let helps = processor
        .lines()
        .find(|line| line.starts_with("flags"))
        .is_some_and(|line| line.split_whitespace().any(|flag| flag == "vmx" || flag == "svm"));
    if helps {
        Ok(())
    } else {
        Err("no KVM: the processor offers no virtualisation".to_owned())
    }
}

fn validate(spec: &MachineSpec) -> Result<(), TargetError> {
    let fine = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    if spec.name.is_empty() || spec.name.len() > 80 || !spec.name.chars().all(fine) {
        return Err(refused(format!("{:?} is no name of a machine", spec.name)));
    }
    if !spec.folder.is_absolute() {
        return Err(refused(format!(
            "{} is not an absolute path",
            spec.folder.display()
        )));
    }
    for disk in &spec.disks {
        let path = disk.socket.to_str().unwrap_or_default();
        if !disk.socket.is_absolute() || path.is_empty() || path.len() > SOCKET_PATH_MAX {
            let path = disk.socket.display();
            return Err(refused(format!(
                "the disk's socket {path} is no absolute path of at most {SOCKET_PATH_MAX} bytes"
            )));
        }
        if let Some(file) = &disk.file
            && (!file.path.is_absolute() || file.path.to_str().is_none())
        {
            return Err(refused(format!(
                "the disk's file {} is no absolute path",
                file.path.display()
            )));
        }
    }
    for nic in &spec.nics {
        if let Some(mac) = nic.mac.as_ref().filter(|mac| !command_line::is_mac(mac)) {
            return Err(refused(format!("{mac:?} is no hardware address of a NIC")));
        }
    }
    Ok(())
}

fn forwards_of(spec: &MachineSpec) -> Vec<Forward> {
    let of = |network: &Network| match network {
        Network::User { forwards } | Network::IsolatedUser { forwards } => forwards.clone(),
        Network::Isolated { .. } | Network::Bridge { .. } | Network::Named { .. } => Vec::new(),
    };
    spec.nics.iter().flat_map(|nic| of(&nic.network)).collect()
}

fn isolated_networks(spec: &MachineSpec) -> impl Iterator<Item = &str> {
    spec.nics.iter().filter_map(|nic| match &nic.network {
        Network::Isolated { name, .. } => Some(name.as_str()),
        _ => None,
    })
}

/// The NICs that a machine has in an isolated network.
fn seats(spec: &MachineSpec, network: &str) -> Seats {
    let mut seats = Seats {
        folder: spec.folder.clone(),
        ..Seats::default()
    };
    for (place, nic) in spec.nics.iter().enumerate() {
        if let Network::Isolated { name, segment } = &nic.network
            && name == network
        {
            seats.segment = segment.clone();
            seats.seats.push(Seat {
                mac: spec.mac(place),
                address: nic.address.clone(),
            });
        }
    }
    seats
}

/// Fills in the host ports that are to be chosen: those of the last run where they are free, else others.
fn choose_ports(spec: &MachineSpec, before: &[Forward]) -> io::Result<Vec<Forward>> {
    // All are held until all are chosen, so that none is chosen twice.
    let mut held = Vec::new();
    let mut chosen = forwards_of(spec);
    for (index, forward) in chosen.iter_mut().enumerate() {
        if forward.host_port != 0 {
            continue;
        }
        let last = before
            .get(index)
            .filter(|last| last.guest_port == forward.guest_port)
            .and_then(|last| TcpListener::bind((Ipv4Addr::LOCALHOST, last.host_port)).ok());
        let listener = match last {
            Some(listener) => listener,
            None => TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
        };
        forward.host_port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(chosen)
}

/// NICs with what QEMU inherits for them.
fn plan_nics(spec: &MachineSpec, forwards: &[Forward]) -> Result<(Vec<NicPlan>, Vec<File>), TargetError> {
    let (mut plans, mut taps) = (Vec::new(), Vec::new());
    let mut left = forwards;
    for (place, nic) in spec.nics.iter().enumerate() {
        let mac = spec.mac(place);
        let tap = match &nic.network {
            Network::User { forwards } | Network::IsolatedUser { forwards } => {
                let (own, rest) = left.split_at(forwards.len().min(left.len()));
                left = rest;
                plans.push(NicPlan::User {
                    forwards: own.to_vec(),
                    restricted: matches!(nic.network, Network::IsolatedUser { .. }),
                    mac,
                });
                continue;
            }
            Network::Isolated { name, .. } => IsolatedNetwork::new(name)?.tap()?,
            Network::Bridge { name } => tap_on_host_bridge(name)?,
            Network::Named { name } => {
                return Err(refused(format!(
                    "the network {name} was not looked up in the vault"
                )));
            }
        };
        plans.push(NicPlan::Tap {
            fd: tap.as_raw_fd(),
            mac,
        });
        taps.push(tap);
    }
    Ok((plans, taps))
}

/// How one start is tried.
struct Attempt {
    accelerator: Accelerator,
    sandbox: bool,
    held: bool,
    notes: Vec<String>,
    forwards: Vec<Forward>,
}

impl QemuCompute {
    pub fn new() -> Self {
        Self::default()
    }

    /// Always this one, without trying another.
    pub fn with_accelerator(accelerator: Accelerator) -> Self {
        Self {
            accelerator: Some(accelerator),
            ..Self::default()
        }
    }

    fn machine(&self, spec: &MachineSpec) -> Arc<Machine> {
        lock(&self.machines)
            .entry(spec.folder.clone())
            .or_default()
            .clone()
    }

    fn ask(
        machine: &Machine,
        spec: &MachineSpec,
        command: &str,
        arguments: Value,
        limit: Duration,
    ) -> Result<Value, QmpError> {
        let _one = lock(&machine.monitor);
        Qmp::connect(&spec.folder, record::MONITOR_SOCKET, limit)?.execute(command, arguments)
    }

    fn prepare_folder(spec: &MachineSpec) -> Result<(), TargetError> {
        validate(spec)?;
        let folder = &spec.folder;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(io_error("make", folder))?;
        if load::<MachineSpec>(folder, record::MACHINE).as_ref() != Some(spec) {
            save(folder, record::MACHINE, spec)?;
        }
        if spec.firmware == Firmware::Uefi {
            let variables = folder.join(record::VARIABLES);
            // Made once: they are the machine's, as a chip on its board is.
            if !variables.exists() {
                let unfinished = folder.join("uefi-variables.new");
                std::fs::copy(firmware()?.1, &unfinished)
                    .and_then(|_| {
                        std::fs::set_permissions(&unfinished, std::fs::Permissions::from_mode(0o600))
                    })
                    .and_then(|()| std::fs::rename(&unfinished, &variables))
                    .map_err(io_error("make", &variables))?;
            }
        }
        for name in isolated_networks(spec) {
            IsolatedNetwork::new(name)?.acquire(&seats(spec, name))?;
        }
        Ok(())
    }

    /// The folder's lock; None: its QEMU runs.
    fn lock_or_running(spec: &MachineSpec) -> Result<Option<File>, TargetError> {
        let deadline = Instant::now() + START_MAX;
        loop {
            let lock = process::lock(&spec.folder).map_err(io_error("lock", &spec.folder))?;
            if lock.is_some() {
                return Ok(lock);
            }
            if Process::find(&spec.folder)
                .map_err(io_error("look into", &spec.folder))?
                .is_some()
            {
                return Ok(None);
            }
            // Another server is just starting it, or a QEMU that was killed is not quite gone.
            if Instant::now() > deadline {
                return Err(TargetError::NoAnswer {
                    machine: spec.name.clone(),
                    detail: "something holds the lock of its folder and is not its QEMU".to_owned(),
                });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn launch(
        machine: &Arc<Machine>,
        spec: &MachineSpec,
        program: &Path,
        lock: &File,
        attempt: &Attempt,
    ) -> Result<(), TargetError> {
        let folder = &spec.folder;
        let firmware = match spec.firmware {
            Firmware::Uefi => Some(firmware()?.0),
            Firmware::Bios => None,
        };
        let (nics, taps) = plan_nics(spec, &attempt.forwards)?;
        let plan = Plan {
            accelerator: attempt.accelerator,
            sandbox: attempt.sandbox,
            held: attempt.held,
            firmware,
            nics: &nics,
        };
        let args = command_line::build(spec, &plan);
        let watch = serial::Watcher::prepare(folder).map_err(io_error("watch", folder))?;
        let run = Run {
            started_unix_nanos: crate::rt::now_unix_nanos(),
            accelerator: attempt.accelerator.name().to_owned(),
            note: attempt.notes.join("; "),
            forwards: attempt.forwards.clone(),
            serial_offset: watch.offset(),
        };
        save(folder, record::RUN, &run)?;
        let inherited: Vec<RawFd> = taps.iter().map(AsRawFd::as_raw_fd).collect();
        let _ = std::fs::remove_file(folder.join(record::MONITOR_SOCKET));
        let files = spec.disks.iter().filter_map(|disk| disk.file.as_ref());
        process::spawn(
            folder,
            program,
            &args,
            lock,
            &inherited,
            mirror::file_bytes_max(files),
        )
        .map_err(io_error("start", program))?;
        let died = |detail: &str| TargetError::DidNotStart {
            machine: spec.name.clone(),
            detail: match process::last_words(folder) {
                words if words.is_empty() => detail.to_owned(),
                words => words,
            },
        };
        let found = Process::find(folder).map_err(io_error("look into", folder))?;
        let Some(process) = found else {
            return Err(died("QEMU ended at once"));
        };
        machine.serial.begin(watch, folder, &run, &process);
        let deadline = Instant::now() + START_MAX;
        let answer = loop {
            match Self::ask(machine, spec, "query-status", json!({}), MONITOR_MAX) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => break error,
                Err(_) if process.ended_within(Duration::from_millis(5)) => {
                    return Err(died("QEMU ended before it was ready"));
                }
                Err(_) => {}
            }
        };
        process.kill();
        Err(died(&answer.to_string()))
    }

    fn end(machine: &Machine, spec: &MachineSpec, process: &Process) -> Result<(), TargetError> {
        let quit = Self::ask(machine, spec, "quit", json!({}), MONITOR_MAX);
        // One that waits for a disk that does not come does not quit.
        if quit.is_ok() && process.ended_within(QUIT_MAX) || process.kill() {
            return Ok(());
        }
        Err(TargetError::NoAnswer {
            machine: spec.name.clone(),
            detail: format!("QEMU (pid {}) does not end, not even killed", process.pid),
        })
    }

    fn find(spec: &MachineSpec) -> Result<Option<Process>, TargetError> {
        match Process::find(&spec.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map_err(io_error("look into", &spec.folder)),
        }
    }

    /// Running or paused, with the reason in words.
    fn power(machine: &Machine, spec: &MachineSpec) -> (Power, String) {
        let answer = match Self::ask(machine, spec, "query-status", json!({}), MONITOR_MAX) {
            Ok(answer) => answer,
            Err(error) => return (Power::Running, error.to_string()),
        };
        let why = match answer["status"].as_str().unwrap_or_default() {
            "running" => return (Power::Running, String::new()),
            "io-error" => "a disk has no room left; start it again when there is room",
            "guest-panicked" => "the guest's kernel panicked",
            "internal-error" => "QEMU met an internal error",
            "suspended" => "the guest sleeps",
            _ => "paused",
        };
        (Power::Paused, why.to_owned())
    }

    /// `held`: one that does not run is brought up but does not run yet, and one that waits goes on waiting.
    fn bring_up(
        &self,
        machine: &Arc<Machine>,
        spec: &MachineSpec,
        held: bool,
    ) -> Result<MachineStatus, TargetError> {
        let program = program()?;
        // Also again: a restart of the host took the networks away.
        Self::prepare_folder(spec)?;
        let Some(folder_lock) = Self::lock_or_running(spec)? else {
            if !held && Self::power(machine, spec).0 == Power::Paused {
                let _ = Self::ask(machine, spec, "cont", json!({}), MONITOR_MAX);
            }
            return Self::status_of(machine, spec);
        };
        serial::put_aside(&spec.folder, SERIAL_BYTES_MAX).map_err(io_error("put aside", &spec.folder))?;
        let before: Option<Run> = load(&spec.folder, record::RUN);
        let before = before.map(|run| run.forwards).unwrap_or_default();
        let ports = |before| choose_ports(spec, before).map_err(io_error("choose a port for", &spec.folder));
        let (accelerator, notes) = match (self.accelerator, kvm()) {
            (Some(fixed), _) => (fixed, Vec::new()),
            (None, Ok(())) => (Accelerator::Kvm, Vec::new()),
            (None, Err(why)) => (Accelerator::Tcg, vec![why]),
        };
        let mut attempt = Attempt {
            accelerator,
            sandbox: true,
            held,
            notes,
            forwards: ports(&before)?,
        };
        let mut tries = 0;
        loop {
            let detail = match Self::launch(machine, spec, &program, &folder_lock, &attempt) {
                Ok(()) => return Self::status_of(machine, spec),
                Err(TargetError::DidNotStart { detail, .. }) => detail,
                Err(error) => return Err(error),
            };
            if detail.contains("host forwarding") && tries < PORT_TRIES {
                // Somebody took a port between our choice and QEMU's start.
                tries += 1;
                attempt.forwards = ports(&[])?;
            } else if detail.contains("sandbox") && attempt.sandbox {
                attempt.sandbox = false;
                attempt
                    .notes
                    .push("this QEMU cannot confine itself (no seccomp)".to_owned());
            } else if attempt.accelerator == Accelerator::Kvm && self.accelerator.is_none() {
                attempt.accelerator = Accelerator::Tcg;
                let first = detail.lines().next().unwrap_or_default();
                attempt.notes.push(format!("with KVM it did not start: {first}"));
            } else {
                return Err(TargetError::DidNotStart {
                    machine: spec.name.clone(),
                    detail,
                });
            }
        }
    }

    fn status_of(machine: &Arc<Machine>, spec: &MachineSpec) -> Result<MachineStatus, TargetError> {
        let mut status = MachineStatus {
            power: Power::Absent,
            detail: String::new(),
            pid: None,
            accelerator: String::new(),
            forwards: Vec::new(),
            first_output_unix_nanos: None,
        };
        if !spec.folder.exists() {
            return Ok(status);
        }
        let run: Option<Run> = load(&spec.folder, record::RUN);
        let Some(process) = Self::find(spec)? else {
            status.power = Power::Stopped;
            status.detail = match (&run, process::last_words(&spec.folder)) {
                (None, _) => "not started yet".to_owned(),
                (Some(_), words) if words.is_empty() => "QEMU has ended".to_owned(),
                (Some(_), words) => format!("QEMU has ended: {words}"),
            };
            return Ok(status);
        };
        (status.power, status.detail) = Self::power(machine, spec);
        status.pid = Some(process.pid);
        if let Some(run) = run {
            status.first_output_unix_nanos = machine.serial.first_output(&spec.folder, &run, &process);
            if status.detail.is_empty() {
                status.detail = run.note;
            }
            status.accelerator = run.accelerator;
            status.forwards = run.forwards;
        }
        Ok(status)
    }
}

impl Compute for QemuCompute {
    fn kind(&self) -> &'static str {
        "qemu"
    }

    fn check(&self) -> Result<(), TargetError> {
        program().map(|_| ())
    }

    fn prepare(&self, spec: &MachineSpec) -> Result<(), TargetError> {
        let machine = self.machine(spec);
        let _order = lock(&machine.order);
        Self::prepare_folder(spec)
    }

    fn configure_guest(&self, spec: &MachineSpec) -> Option<String> {
        super::guest::configure(spec)
    }

    fn readdress_guest(&self, spec: &MachineSpec, home: bool) -> Option<String> {
        super::guest::readdress(spec, home)
    }

    fn start(&self, spec: &MachineSpec) -> Result<MachineStatus, TargetError> {
        let machine = self.machine(spec);
        let _order = lock(&machine.order);
        self.bring_up(&machine, spec, false)
    }

    fn stop(&self, spec: &MachineSpec, how: Stop) -> Result<(), TargetError> {
        let machine = self.machine(spec);
        if let Stop::Graceful { limit } = how {
            // Without the order's lock: whoever loses patience can power off meanwhile.
            let deadline = Instant::now() + limit;
            loop {
                let Some(process) = Self::find(spec)? else {
                    return Ok(());
                };
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                let _ = Self::ask(
                    &machine,
                    spec,
                    "system_powerdown",
                    json!({}),
                    MONITOR_MAX.min(left),
                );
                let left = deadline.saturating_duration_since(Instant::now());
                process.ended_within(left.min(PRESS_AGAIN));
            }
        }
        let _order = lock(&machine.order);
        match Self::find(spec)? {
            Some(process) => Self::end(&machine, spec, &process),
            None => Ok(()),
        }
    }

    fn destroy(&self, spec: &MachineSpec) -> Result<(), TargetError> {
        validate(spec)?;
        let machine = self.machine(spec);
        let _order = lock(&machine.order);
        let stored: Option<MachineSpec> = load(&spec.folder, record::MACHINE);
        if let Some(process) = Self::find(spec)?
            && !process.kill()
        {
            return Err(TargetError::NoAnswer {
                machine: spec.name.clone(),
                detail: format!("QEMU (pid {}) does not end, not even killed", process.pid),
            });
        }
        machine.serial.settle();
        // Nobody starts it while its folder goes.
        let folder_lock = if spec.folder.join(record::MACHINE).exists() {
            match Self::lock_or_running(spec)? {
                Some(lock) => Some(lock),
                None => {
                    return Err(refused(format!(
                        "the machine {} is being started by another server",
                        spec.name
                    )));
                }
            }
        } else {
            None
        };
        for name in stored.iter().chain([spec]).flat_map(isolated_networks) {
            // Where it is refused, none was made.
            if let Ok(network) = IsolatedNetwork::new(name) {
                network.release(&spec.folder)?;
            }
        }
        remove_folder(&spec.folder)?;
        drop(folder_lock);
        lock(&self.machines).remove(&spec.folder);
        Ok(())
    }

    fn status(&self, spec: &MachineSpec) -> Result<MachineStatus, TargetError> {
        Self::status_of(&self.machine(spec), spec)
    }

    fn serial_log(&self, spec: &MachineSpec) -> PathBuf {
        spec.folder.join(record::SERIAL)
    }

    fn console(&self, spec: &MachineSpec) -> Option<PathBuf> {
        Some(spec.folder.join(record::VNC_SOCKET))
    }

    fn screenshot(&self, spec: &MachineSpec) -> Result<Vec<u8>, TargetError> {
        let machine = self.machine(spec);
        let _order = lock(&machine.order);
        if Self::find(spec)?.is_none() {
            return Err(refused(format!("the machine {} does not run", spec.name)));
        }
        // QEMU works in the folder.
        let name = "screenshot.new";
        let file = spec.folder.join(name);
        let ask = |arguments| Self::ask(&machine, spec, "screendump", arguments, MONITOR_MAX);
        let asked = match ask(json!({ "filename": name, "format": "png" })) {
            // A QEMU that is older, or was built without PNG.
            Err(QmpError::Said(_)) => ask(json!({ "filename": name })),
            other => other,
        };
        let no_answer = |detail: String| TargetError::NoAnswer {
            machine: spec.name.clone(),
            detail,
        };
        let read = || -> io::Result<Vec<u8>> {
            if std::fs::metadata(&file)?.len() > SCREENSHOT_BYTES_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a picture too large"));
            }
            std::fs::read(&file)
        };
        let bytes = asked
            .map_err(|error| no_answer(error.to_string()))
            .and_then(|_| read().map_err(io_error("read", &file)));
        let _ = std::fs::remove_file(&file);
        let bytes = bytes?;
        if bytes.starts_with(b"\x89PNG") {
            return Ok(bytes);
        }
        png::from_ppm(&bytes).ok_or_else(|| no_answer("its picture is neither PNG nor PPM".to_owned()))
    }

    fn mirror(&self, spec: &MachineSpec, files: &[DiskFile]) -> Result<(), TargetError> {
        self.begin_copies(spec, files)
    }

    fn mirror_status(&self, spec: &MachineSpec) -> Result<MirrorStatus, TargetError> {
        self.copies(spec)
    }

    fn mirror_pivot(&self, spec: &MachineSpec) -> Result<(), TargetError> {
        self.pivot(spec)
    }

    fn mirror_end(&self, spec: &MachineSpec, keep: bool) -> Result<(), TargetError> {
        self.end_copies(spec, keep)
    }
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes a machine's folder, and no other: what makes it ours goes last, so that a removal that was cut short can be repeated.
fn remove_folder(folder: &Path) -> Result<(), TargetError> {
    let unfinished = format!("{}.new", record::MACHINE);
    let marks = [unfinished.as_str(), record::MACHINE];
    let remove = || -> io::Result<bool> {
        let entries: Vec<_> = match std::fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            entries => entries?.collect::<io::Result<_>>()?,
        };
        let ours = entries
            .iter()
            .any(|entry| marks.iter().any(|mark| entry.file_name() == *mark));
        if !ours && !entries.is_empty() {
            return Ok(false);
        }
        for entry in &entries {
            if marks.iter().all(|mark| entry.file_name() != *mark) {
                // A file may be gone before us: another server may note something here at this moment.
                gone(if entry.file_type()?.is_dir() {
                    std::fs::remove_dir_all(entry.path())
                } else {
                    std::fs::remove_file(entry.path())
                })?;
            }
        }
        for mark in marks {
            gone(std::fs::remove_file(folder.join(mark)))?;
        }
        std::fs::remove_dir(folder)?;
        Ok(true)
    };
    if remove().map_err(io_error("remove", folder))? {
        return Ok(());
    }
    Err(refused(format!(
        "{} holds other files and no machine; it is left as it is",
        folder.display()
    )))
}

#[cfg(test)]
mod tests;
