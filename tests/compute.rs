//! A machine is started from a branch over NBD, looked at, stopped and removed; servers are killed beside it.
//!
//! The guest is one sector (tests/fixtures/guest): it prints, reads and writes through the BIOS, and needs no kernel.
mod support;
use lifeboat::export::nbd::{Export, Listen, NbdServer};
use lifeboat::export::{BlockDevice, Branch};
use lifeboat::target::network::IsolatedNetwork;
use lifeboat::target::{
    Compute, DiskAttachment, DiskBus, Forward, MachineSpec, MachineStatus, Network, Nic, Power, QemuCompute,
    Stop, TargetError,
};
use lifeboat::wire::facts::Firmware;
use std::io::Read;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::{Base, noise};

/// Longer than anything takes on a busy machine without KVM.
const PATIENCE: Duration = Duration::from_secs(120);
const OBEYS_POWER_BUTTON: u8 = 1;
const WRITES: u8 = 2;

/// The guest's disk: its sector, a text for it to print, and what it shall do.
fn guest_disk(text: &str, mode: u8) -> Vec<u8> {
    let mut disk = noise(1 << 20, 3);
    disk[..512].copy_from_slice(include_bytes!("fixtures/guest/boot.bin"));
    disk[512..1024].fill(0);
    disk[512..512 + text.len()].copy_from_slice(text.as_bytes());
    disk[1023] = mode;
    disk
}

fn serve(folder: &Path, disk: Vec<u8>) -> NbdServer {
    let branch = Branch::open(&folder.join("branch"), Arc::new(Base(disk))).unwrap();
    let export = Export {
        name: "disk".into(),
        device: Arc::new(branch),
    };
    NbdServer::bind(Listen::Unix(folder.join("nbd.sock")), vec![export]).unwrap()
}

/// Destroyed with the test, also when it fails.
struct Machine {
    compute: QemuCompute,
    spec: MachineSpec,
}

impl Machine {
    fn new(folder: &Path) -> Self {
        Self {
            compute: QemuCompute::new(),
            spec: MachineSpec {
                name: "web1-test".into(),
                folder: folder.join("vm"),
                cpus: 1,
                memory_bytes: 64 << 20,
                firmware: Firmware::Bios,
                disk_bus: DiskBus::VirtioBlk,
                disks: vec![DiskAttachment {
                    socket: folder.join("nbd.sock"),
                    export: "disk".into(),
                    file: None,
                }],
                nics: Vec::new(),
            },
        }
    }

    fn start(&self) -> MachineStatus {
        self.compute
            .start(&self.spec)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    fn status(&self) -> MachineStatus {
        self.compute.status(&self.spec).unwrap()
    }

    fn serial(&self) -> String {
        let log = std::fs::read(self.compute.serial_log(&self.spec)).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    fn wait_for(&self, what: &str, fine: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !fine(&self.serial()) {
            let log = self.serial();
            let wrong = log.contains("BAD") || log.contains("ERROR");
            assert!(!wrong && Instant::now() < deadline, "{what} did not come: {log}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn says(&self, text: &str) {
        self.wait_for(text, |log| log.contains(text));
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Err(error) = self.compute.destroy(&self.spec) {
            eprintln!("{error}");
        }
    }
}

/// Processes that work in the folder: every QEMU of the machine, whatever the pid file says.
fn processes_in(folder: &Path) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
            continue;
        };
        let works_in = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        let name = works_in.to_string_lossy().replace(" (deleted)", "");
        if Path::new(&name) == folder {
            found.push(pid);
        }
    }
    found
}

/// Waits until exactly these processes work in the folder.
fn only(folder: &Path, pids: &[u32]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = processes_in(folder);
        if found == pids {
            return;
        }
        assert!(Instant::now() < deadline, "{found:?} instead of {pids:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Width and height of a PNG.
fn png_size(png: &[u8]) -> (u32, u32) {
    assert_eq!(png[..8], *b"\x89PNG\r\n\x1a\n");
    assert_eq!(png[12..16], *b"IHDR");
    assert_eq!(png[png.len() - 8..png.len() - 4], *b"IEND");
    let number = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
    (number(16), number(20))
}

/// What every hypervisor must do: each verb twice, and the status after each.
fn conforms(machine: &Machine, server: &NbdServer) {
    let Machine { compute, spec } = machine;
    let power = || compute.status(spec).unwrap().power;
    compute.check().unwrap();
    assert_eq!(power(), Power::Absent);
    compute.stop(spec, Stop::PowerOff).unwrap();
    compute.destroy(spec).unwrap();
    for _ in 0..2 {
        compute.prepare(spec).unwrap();
        assert_eq!(power(), Power::Stopped);
    }
    compute.stop(spec, Stop::PowerOff).unwrap();
    assert!(matches!(compute.screenshot(spec), Err(TargetError::Refused(_))));

    let before = lifeboat::rt::now_unix_nanos();
    let first = machine.start();
    assert_eq!(
        (first.power, first.detail.contains("died")),
        (Power::Running, false)
    );
    assert!(["kvm", "tcg"].contains(&first.accelerator.as_str()), "{first:?}");
    let again = machine.start();
    assert_eq!(first.pid, again.pid);
    assert_eq!(processes_in(&spec.folder), vec![first.pid.unwrap()]);
    machine.says("BOOT\nhello from sector one\n");
    assert!(server.first_read().is_some());
    let deadline = Instant::now() + PATIENCE;
    let spoke = loop {
        if let Some(instant) = machine.status().first_output_unix_nanos {
            break instant;
        }
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(before < spoke && spoke < lifeboat::rt::now_unix_nanos());
    let screen = compute.screenshot(spec).unwrap();
    let (width, height) = png_size(&screen);
    assert!(
        (600..4000).contains(&width) && (300..3000).contains(&height),
        "{width}x{height}"
    );
    std::os::unix::net::UnixStream::connect(compute.console(spec).unwrap()).unwrap();

    for _ in 0..2 {
        compute.stop(spec, Stop::PowerOff).unwrap();
        assert_eq!(power(), Power::Stopped);
    }
    assert_eq!(processes_in(&spec.folder), Vec::<u32>::new());
    // The log goes on where it was.
    let second = machine.start();
    assert_ne!(second.pid, first.pid);
    assert_eq!(second.first_output_unix_nanos, None);
    machine.wait_for("a second boot", |log| {
        log.matches("BOOT\nhello from sector one\n").count() == 2
    });
    // Destroyed while it runs.
    for _ in 0..2 {
        compute.destroy(spec).unwrap();
        assert_eq!(power(), Power::Absent);
    }
    assert!(!spec.folder.exists());
    assert_eq!(processes_in(&spec.folder), Vec::<u32>::new());
}

fn conforms_on(bus: DiskBus) {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path(), guest_disk("hello from sector one", 0));
    let mut machine = Machine::new(folder.path());
    machine.spec.disk_bus = bus;
    // A second disk, which is not booted from.
    machine.spec.disks.push(machine.spec.disks[0].clone());
    machine.spec.nics = vec![
        Nic {
            mac: None,
            network: Network::User { forwards: Vec::new() },
            address: None,
        },
        Nic {
            mac: Some("02:00:00:00:00:07".into()),
            network: Network::IsolatedUser { forwards: Vec::new() },
            address: None,
        },
    ];
    conforms(&machine, &server);
}

#[test]
fn conforms_with_virtio_blk() {
    conforms_on(DiskBus::VirtioBlk);
}

#[test]
fn conforms_with_virtio_scsi() {
    conforms_on(DiskBus::VirtioScsi);
}

#[test]
fn conforms_with_ahci_and_e1000() {
    conforms_on(DiskBus::Ahci);
}

/// A branch on a file system that is full at times.
struct Full(Branch, AtomicBool);

impl BlockDevice for Full {
    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }
    fn read_only(&self) -> bool {
        false
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        self.0.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        if self.1.load(Ordering::SeqCst) {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.0.write_at(offset, data)
    }
    fn write_zeroes(&self, offset: u64, len: u64) -> std::io::Result<()> {
        self.0.write_zeroes(offset, len)
    }
    fn flush(&self) -> std::io::Result<()> {
        self.0.flush()
    }
    fn status(&self, offset: u64, len: u64) -> std::io::Result<Vec<(u64, bool)>> {
        self.0.status(offset, len)
    }
}

#[test]
fn a_machine_whose_disk_is_full_pauses_and_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let base = Arc::new(Base(guest_disk("ready", WRITES)));
    let branch = Branch::open(&folder.path().join("branch"), base).unwrap();
    let device = Arc::new(Full(branch, AtomicBool::new(false)));
    let export = Export {
        name: "disk".into(),
        device: device.clone(),
    };
    let _server = NbdServer::bind(Listen::Unix(folder.path().join("nbd.sock")), vec![export]).unwrap();
    let machine = Machine::new(folder.path());
    let pid = machine.start().pid;
    machine.says("00000040\n");
    device.1.store(true, Ordering::SeqCst);
    let deadline = Instant::now() + PATIENCE;
    while machine.status().power != Power::Paused {
        assert!(Instant::now() < deadline, "{:?}", machine.status());
    }
    assert!(
        machine.status().detail.contains("no room"),
        "{:?}",
        machine.status()
    );
    device.1.store(false, Ordering::SeqCst);
    let status = machine.start();
    assert_eq!((status.power, status.pid), (Power::Running, pid));
    let before = machine.serial().lines().count();
    machine.wait_for("more steps", |log| log.lines().count() > before + 8);
}

/// The number in a sector that the guest writes.
fn number_in(device: &dyn BlockDevice, sector: u64) -> u32 {
    let mut bytes = [0; 4];
    device.read_at(sector * 512, &mut bytes).unwrap();
    u32::from_le_bytes(bytes)
}

#[test]
fn a_guest_that_floods_its_serial_port_fills_no_disk_and_runs_on() {
    let folder = tempfile::tempdir().unwrap();
    let base = Arc::new(Base(guest_disk("ready", WRITES)));
    let branch = Arc::new(Branch::open(&folder.path().join("branch"), base).unwrap());
    let export = Export {
        name: "disk".into(),
        device: branch.clone(),
    };
    let _server = NbdServer::bind(Listen::Unix(folder.path().join("nbd.sock")), vec![export]).unwrap();
    let machine = Machine::new(folder.path());
    let pid = machine.start().pid.unwrap().to_string();
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let limit = limits
        .lines()
        .find(|line| line.starts_with("Max file size"))
        .unwrap();
    assert_eq!(limit.split_whitespace().nth(3), Some("67108864"), "{limit}");
    machine.says("00000050\n");
    // The same limit, nearer.
    support::ok("prlimit", &["--pid", &pid, "--fsize=400"]);
    let reached = |limit: u32| {
        let deadline = Instant::now() + PATIENCE;
        while number_in(&*branch, 64) < limit {
            assert!(Instant::now() < deadline, "{:?}", machine.status());
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    reached(900);
    assert_eq!(machine.serial().len(), 400);
    assert_eq!(machine.status().power, Power::Running);
}

/// The firmware's shell is the guest: it runs a script from the disk.
#[test]
fn uefi_boots_writes_a_file_and_reaches_the_isolated_network() {
    let folder = tempfile::tempdir().unwrap();
    let root = !support::lacks_root();
    let ping = "connect -r\r\n\
        ifconfig -s eth0 static 10.9.8.2 255.255.255.0 10.9.8.1\r\n\
        stall 1000000\r\n\
        ping -n 3 10.9.8.1\r\n";
    let script = format!(
        "echo -off\r\necho written by the guest >a fs0:\\note.txt\r\n{}reset -s\r\n",
        if root { ping } else { "" }
    );
    let disk = support::fat_disk(b"STARTUP NSH", script.as_bytes());
    let server = serve(folder.path(), disk.clone());
    let mut machine = Machine::new(folder.path());
    machine.spec.firmware = Firmware::Uefi;
    machine.spec.memory_bytes = 256 << 20;
    let name = format!("uefi-{}", std::process::id());
    if root {
        machine.spec.nics.push(Nic {
            mac: None,
            network: Network::isolated(&name),
            address: None,
        });
    }
    machine.compute.prepare(&machine.spec).unwrap();
    assert_eq!(machine.start().power, Power::Running);
    if root {
        // In place of the address that follows from the machine's own.
        let network = IsolatedNetwork::new(&name).unwrap();
        network.set_address(Ipv4Addr::new(10, 9, 8, 1), 24).unwrap();
    }
    machine.says("UEFI Interactive Shell");
    let (width, height) = png_size(&machine.compute.screenshot(&machine.spec).unwrap());
    assert!(width >= 640 && height >= 400, "{width}x{height}");
    assert!(machine.status().first_output_unix_nanos.is_some());
    // It switches itself off.
    let deadline = Instant::now() + PATIENCE;
    while machine.status().power != Power::Stopped {
        assert!(Instant::now() < deadline, "{}", machine.serial());
        std::thread::sleep(Duration::from_millis(5));
    }
    if root {
        let log = machine.serial();
        assert!(log.contains("3 packets transmitted, 3 received"), "{log}");
    }
    assert!(server.first_read().is_some());
    drop(server);
    let branch = Branch::open(&folder.path().join("branch"), Arc::new(Base(disk))).unwrap();
    let mut content = vec![0; branch.size_bytes() as usize];
    branch.read_at(0, &mut content).unwrap();
    let note = b"written by the guest";
    assert!(content.windows(note.len()).any(|bytes| bytes == note));
    // The variables are the machine's own: they outlive a stop, and prepare leaves them.
    let variables = machine.spec.folder.join("uefi-variables.fd");
    let changed = std::fs::read(&variables).unwrap();
    machine.compute.prepare(&machine.spec).unwrap();
    assert!(std::fs::read(&variables).unwrap() == changed);
}

#[test]
fn a_guest_that_obeys_is_asked_and_one_that_does_not_is_switched_off() {
    let folder = tempfile::tempdir().unwrap();
    for (mode, limit) in [(OBEYS_POWER_BUTTON, PATIENCE), (0, Duration::from_millis(1500))] {
        let _server = serve(folder.path(), guest_disk("ready", mode));
        let machine = Machine::new(folder.path());
        machine.start();
        machine.says("ready");
        let begin = Instant::now();
        machine
            .compute
            .stop(&machine.spec, Stop::Graceful { limit })
            .unwrap();
        assert_eq!(machine.status().power, Power::Stopped);
        if mode == OBEYS_POWER_BUTTON {
            assert!(machine.serial().ends_with("OFF"), "{}", machine.serial());
            assert!(begin.elapsed() < limit);
        } else {
            assert!(begin.elapsed() >= limit);
        }
    }
}

#[test]
fn a_qemu_that_was_killed_is_seen_as_stopped_and_can_be_started() {
    let folder = tempfile::tempdir().unwrap();
    let _server = serve(folder.path(), guest_disk("ready", 0));
    let machine = Machine::new(folder.path());
    let pid = machine.start().pid.unwrap();
    machine.says("ready");
    support::ok("kill", &["-9", &pid.to_string()]);
    let deadline = Instant::now() + PATIENCE;
    while machine.status().power != Power::Stopped {
        assert!(Instant::now() < deadline);
    }
    assert!(machine.status().pid.is_none());
    machine.compute.stop(&machine.spec, Stop::PowerOff).unwrap();
    assert_ne!(machine.start().pid.unwrap(), pid);
    machine.wait_for("a second boot", |log| log.matches("ready").count() == 2);
}

#[test]
fn a_machine_without_its_disk_does_not_start_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(folder.path());
    let error = machine.compute.start(&machine.spec).unwrap_err();
    assert!(error.to_string().contains("nbd.sock"), "{error}");
    assert!(!error.possible_causes().is_empty() && !error.recommended_action().is_empty());
    let status = machine.status();
    assert_eq!(status.power, Power::Stopped);
    assert!(status.detail.contains("nbd.sock"), "{}", status.detail);
    // It starts when the disk is there.
    let _server = serve(folder.path(), guest_disk("ready", 0));
    machine.start();
    machine.says("ready");
}

#[test]
fn ports_lead_into_a_user_network_and_are_known_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let _server = serve(folder.path(), guest_disk("ready", 0));
    let mut machine = Machine::new(folder.path());
    let forward = |guest_port| Forward {
        host_port: 0,
        guest_port,
    };
    machine.spec.nics = vec![
        Nic {
            mac: None,
            network: Network::User {
                forwards: vec![forward(80), forward(22)],
            },
            address: None,
        },
        Nic {
            mac: None,
            network: Network::IsolatedUser {
                forwards: vec![forward(443)],
            },
            address: None,
        },
    ];
    let forwards = machine.start().forwards;
    let guest_ports: Vec<u16> = forwards.iter().map(|forward| forward.guest_port).collect();
    assert_eq!(guest_ports, [80, 22, 443]);
    for forward in &forwards {
        assert_ne!(forward.host_port, 0);
        TcpStream::connect((Ipv4Addr::LOCALHOST, forward.host_port)).unwrap();
    }
    let restarted = QemuCompute::new();
    assert_eq!(restarted.status(&machine.spec).unwrap().forwards, forwards);
    machine.compute.stop(&machine.spec, Stop::PowerOff).unwrap();
    assert_eq!(machine.status().forwards, []);
    assert_eq!(restarted.start(&machine.spec).unwrap().forwards, forwards);
}

#[test]
fn an_isolated_network_lives_as_long_as_a_machine_is_in_it() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let name = format!("compute-{}", std::process::id());
    let isolated = Nic {
        mac: None,
        network: Network::isolated(&name),
        address: None,
    };
    if support::lacks_root() {
        let mut machine = Machine::new(folders[0].path());
        machine.spec.nics.push(isolated);
        let refused = machine.compute.prepare(&machine.spec);
        assert!(matches!(refused, Err(TargetError::Refused(_))));
        machine.compute.destroy(&machine.spec).unwrap();
        return;
    }
    let network = IsolatedNetwork::new(&name).unwrap();
    let devices = || {
        let listed = network.run(Command::new("cat").arg("/proc/thread-self/net/dev"));
        listed.map(|output| String::from_utf8(output.stdout).unwrap())
    };
    let servers = folders
        .each_ref()
        .map(|folder| serve(folder.path(), guest_disk("ready", 0)));
    let machines = folders.each_ref().map(|folder| {
        let mut machine = Machine::new(folder.path());
        machine.spec.nics.push(isolated.clone());
        machine
    });
    machines[0].compute.prepare(&machines[0].spec).unwrap();
    assert!(devices().unwrap().contains("bridge0"));
    for (machine, bus) in machines.iter().zip([DiskBus::VirtioBlk, DiskBus::Ahci]) {
        let mut spec = machine.spec.clone();
        spec.disk_bus = bus;
        machine.compute.start(&spec).unwrap();
    }
    machines[1].says("ready");
    assert_eq!(devices().unwrap().matches("lifeboat").count(), 2);
    // Nothing of it is seen from here.
    let here = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    assert!(!here.contains("lifeboat") && !here.contains("bridge0"), "{here}");
    machines[0]
        .compute
        .stop(&machines[0].spec, Stop::PowerOff)
        .unwrap();
    assert_eq!(devices().unwrap().matches("lifeboat").count(), 1);
    machines[0].compute.destroy(&machines[0].spec).unwrap();
    assert!(devices().is_ok());
    machines[1].compute.destroy(&machines[1].spec).unwrap();
    assert!(devices().is_err());
    drop(servers);
}

const CHILD_FOLDER: &str = "LIFEBOAT_TEST_FOLDER";

fn child(test: &str, folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
        .env(CHILD_FOLDER, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Ended with the test, also when it fails.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "the server that the next test kills"]
fn child_that_serves_the_disk() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER).map(PathBuf::from) else {
        return; // not a test of its own
    };
    serve(&folder, guest_disk("ready", WRITES)).wait();
}

#[test]
fn a_guest_outlives_a_killed_server_and_reads_what_it_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let server = || Killed(child("child_that_serves_the_disk", folder.path()));
    let mut serving = server();
    let machine = Machine::new(folder.path());
    let deadline = Instant::now() + PATIENCE;
    while !folder.path().join("nbd.sock").exists() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = machine.start().pid;
    machine.says("00000040\n");
    let lines = || machine.serial().lines().count();
    for _ in 0..5 {
        serving.0.kill().unwrap();
        serving.0.wait().unwrap();
        let status = machine.status();
        assert_eq!((status.power, status.pid), (Power::Running, pid));
        let before = lines();
        // The guest waits; it has seen no error.
        serving = server();
        machine.wait_for("more steps", |_| lines() > before + 8);
    }
    // The disk holds the last writes, each sector one number, and the rest as it was.
    let last = machine.serial().lines().rev().nth(1).unwrap().to_owned();
    machine.compute.stop(&machine.spec, Stop::PowerOff).unwrap();
    drop(serving);
    let base = Arc::new(Base(guest_disk("ready", WRITES)));
    let branch = Branch::open(&folder.path().join("branch"), base.clone()).unwrap();
    let mut sector = [0; 512];
    let mut newest = 0;
    for place in 0..64u32 {
        branch.read_at(u64::from(64 + place) * 512, &mut sector).unwrap();
        let number = u32::from_le_bytes(sector[..4].try_into().unwrap());
        assert!(sector.chunks(4).all(|word| word == number.to_le_bytes()));
        assert_eq!(number % 64, place);
        newest = newest.max(number);
    }
    assert!(
        newest >= u32::from_str_radix(&last, 16).unwrap(),
        "{newest:x} after {last}"
    );
    branch.read_at(128 * 512, &mut sector).unwrap();
    assert_eq!(sector, base.0[128 * 512..129 * 512]);
}

#[test]
#[ignore = "the server that the next test kills"]
fn child_that_starts_the_machine() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER).map(PathBuf::from) else {
        return; // not a test of its own
    };
    let machine = Machine::new(&folder);
    eprintln!("begin");
    machine.compute.start(&machine.spec).unwrap();
    eprintln!("started");
    // Until it is killed: its end would destroy the machine.
    loop {
        std::thread::park();
    }
}

#[test]
fn a_server_killed_while_it_starts_a_machine_leaves_one_that_the_next_server_takes_over() {
    let folder = tempfile::tempdir().unwrap();
    let _server = serve(folder.path(), guest_disk("ready", 0));
    let machine = Machine::new(folder.path());
    for round in 0..12u32 {
        let mut starting = Killed(child("child_that_starts_the_machine", folder.path()));
        let mut said = starting.0.stderr.take().unwrap();
        said.read_exact(&mut [0; 6]).unwrap();
        // The kill comes at different stages of the start: from before the fork to after the answer.
        let stages: [&str; 4] = ["", "machine.json", "run.json", "pid"];
        let deadline = Instant::now() + PATIENCE;
        let stage = stages[(round % 4) as usize];
        while !machine.spec.folder.join(stage).exists() {
            assert!(Instant::now() < deadline);
        }
        for _ in 0..round * 20_000 {
            std::hint::spin_loop();
        }
        drop(starting);
        let status = machine.start();
        assert_eq!(status.power, Power::Running);
        // The process between server and QEMU may still be on its way out; a second QEMU would stay.
        only(&machine.spec.folder, &[status.pid.unwrap()]);
        machine.says("ready");
        machine.compute.destroy(&machine.spec).unwrap();
        only(&machine.spec.folder, &[]);
    }
    // One that was started in full and whose server is then killed.
    let mut starting = Killed(child("child_that_starts_the_machine", folder.path()));
    let mut said = starting.0.stderr.take().unwrap();
    said.read_exact(&mut [0; "begin\nstarted\n".len()]).unwrap();
    let pid = machine.status().pid.unwrap();
    drop(starting);
    assert_eq!(machine.status().pid, Some(pid));
    machine.says("ready");
    assert_eq!(machine.start().pid, Some(pid));
}
