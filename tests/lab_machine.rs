//! A machine of the lab: built from packages, at work on a loop device, booted in QEMU from copies of its disk.
mod support;
use lifeboat::agent::freeze::Guard;
use lifeboat::lab::guest::{ConsoleVerdict, Report, parse_console};
use lifeboat::lab::ledger::{Ledger, RECORD_LEN};
use lifeboat::lab::machine::{DATA_FOLDER, MachineImage, MachinePlan, build};
use lifeboat::lab::packages::{Kernel, Parts, fetch};
use lifeboat::lab::site::{Site, SourceMachine};
use lifeboat::lab::verify::verify;
use lifeboat::lab::workload::Workload;
use lifeboat::lab::{LabError, machine};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use support::{LoopDisk, Mounted, lacks_root, ok};

/// A boot takes seconds where there is a processor to spare, and much longer where there is not.
const BOOT: Duration = Duration::from_secs(240);
const PATIENCE: Duration = Duration::from_secs(60);

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_lifeboat"))
}

/// Emulated machines one at a time: their boot times are measured.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn parts(kernel: Kernel) -> Parts {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("lab-cache");
    fetch(&cache, kernel, &mut |line| eprintln!("{line}")).unwrap()
}

/// Asks for a state until it is there.
fn wait_until<T>(limit: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

struct Fixture {
    image: MachineImage,
    site: Site,
    folder: tempfile::TempDir,
}

impl Fixture {
    fn new(name: &str) -> Self {
        Self::with(name, |_| ())
    }

    fn with(name: &str, change: impl FnOnce(&mut MachinePlan)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut plan = MachinePlan::numbered(1, machine::DEFAULT_DISK_BYTES);
        plan.name = name.to_owned();
        change(&mut plan);
        let parts = parts(plan.kernel);
        let begin = Instant::now();
        let image = build(&plan, &parts, program(), &folder.path().join("disk.img")).unwrap();
        eprintln!("{name}: built in {:.2?}", begin.elapsed());
        let (site, leftovers) = Site::open(&folder.path().join("site")).unwrap();
        assert!(leftovers.is_empty());
        Self { image, site, folder }
    }

    /// Attached, with a workload that has written so many entries.
    fn at_work(&self, rate: u32, entries: u64) -> SourceMachine {
        let mut machine = self.site.attach(&self.image).unwrap();
        machine.start_workload(program(), rate).unwrap();
        wait_until(PATIENCE, "entries of the workload", || {
            machine.check_workload().unwrap();
            (machine.entries().unwrap() >= entries).then_some(())
        });
        machine
    }

    fn copy(&self, name: &str) -> PathBuf {
        let copy = self.folder.path().join(name);
        ok(
            "cp",
            &[
                "--sparse=always",
                self.image.path.to_str().unwrap(),
                copy.to_str().unwrap(),
            ],
        );
        copy
    }
}

struct Vm {
    child: Child,
    serial: PathBuf,
    begin: Instant,
    http: u16,
}

impl Vm {
    fn start(disk: &Path, more: &[&str]) -> Self {
        // Free when it was asked for; nobody else here asks for ports.
        let http = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let network = format!("user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{http}-:80");
        let mut vm = Self::within(&["env"], &network, disk, more);
        vm.http = http;
        vm
    }

    /// `prefix`: the program that starts QEMU in its place.
    fn within(prefix: &[&str], network: &str, disk: &Path, more: &[&str]) -> Self {
        let serial = disk.with_extension("serial");
        let _ = std::fs::remove_file(&serial);
        let begin = Instant::now();
        let child = Command::new(prefix[0])
            .args(&prefix[1..])
            .arg("qemu-system-x86_64")
            .args([
                "-nodefaults",
                "-no-user-config",
                "-machine",
                "q35",
                "-accel",
                "tcg",
                "-m",
                "256",
            ])
            .args(["-display", "none", "-monitor", "stdio", "-no-reboot"])
            .arg("-serial")
            .arg(format!("file:{}", serial.display()))
            .arg("-drive")
            .arg(format!("file={},format=raw,if=none,id=disk", disk.display()))
            .args(["-netdev", network])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("qemu-system-x86_64 is needed (tests/all.sh installs it)");
        Self {
            child,
            serial,
            begin,
            http: 0,
        }
    }

    fn virtio(disk: &Path) -> Self {
        Self::start(
            disk,
            &[
                "-device",
                "virtio-blk-pci,drive=disk",
                "-device",
                "virtio-net-pci,netdev=net",
            ],
        )
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.serial).unwrap_or_default()).into_owned()
    }

    /// The verdict on the serial port; tells how long it took.
    fn verdict(&mut self) -> ConsoleVerdict {
        let kernel = wait_until(BOOT, "the kernel's first line", || {
            self.log().contains("Linux version").then(|| self.begin.elapsed())
        });
        let verdict = wait_until(BOOT, "the verdict on the serial port", || {
            assert!(
                self.child.try_wait().unwrap().is_none(),
                "the machine ended: {}",
                self.log()
            );
            parse_console(&self.log())
        });
        eprintln!(
            "{}: kernel after {kernel:.2?}, verdict after {:.2?}: {verdict:?}",
            self.serial.file_stem().unwrap().to_string_lossy(),
            self.begin.elapsed()
        );
        verdict
    }

    fn entries(&mut self) -> u64 {
        let verdict = self.verdict();
        assert!(verdict.ok(), "{verdict:?}");
        verdict.ledger.unwrap().0
    }

    /// Status line and report.
    fn ask(&self) -> Option<(String, Report)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        Some((head.lines().next()?.to_owned(), serde_json::from_str(body).ok()?))
    }

    /// Presses the power button and waits until the machine is off.
    fn power_off(mut self) {
        let monitor = self.child.stdin.as_mut().unwrap();
        monitor.write_all(b"system_powerdown\n").unwrap();
        wait_until(PATIENCE, "the machine to power off", || {
            self.child.try_wait().unwrap()
        });
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The root file system of a disk's file, mounted beside it. Field order is drop order.
struct Root {
    mounted: Mounted,
    device: LoopDisk,
}

impl Root {
    fn of(disk: &Path) -> Self {
        let offset = machine::ROOT_OFFSET.to_string();
        let device = ok(
            "losetup",
            &["--find", "--show", "--offset", &offset, disk.to_str().unwrap()],
        );
        let device = LoopDisk(PathBuf::from(device.trim()));
        let mounted = Mounted::new(device.path(), &disk.with_extension("mnt"), "rw");
        Self { mounted, device }
    }
}

/// The data on a disk's file, judged on this host. Mounting replays the journal, as the machine's boot would.
fn judged_here(disk: &Path) -> lifeboat::lab::verify::Verdict {
    let root = Root::of(disk);
    let verdict = verify(&root.mounted.0.join(DATA_FOLDER));
    let Root { mounted, device } = root;
    drop(mounted);
    ok("e2fsck", &["-fn", device.path()]);
    verdict
}

/// `FS_IOC_SHUTDOWN` without flushing the journal: from this instant the file system writes nothing more, as if the power
/// were cut. (`EXT4_IOC_SHUTDOWN`, `_IOR('X', 125, u32)`.)
fn cut_the_power(mount: &Path) {
    const SHUTDOWN: libc::c_ulong = 0x8004_587d;
    let flags: u32 = 2;
    let folder = std::fs::File::open(mount).unwrap();
    // SAFETY: the descriptor is open and the argument points to the number that the request reads.
    let result = unsafe { libc::ioctl(folder.as_raw_fd(), SHUTDOWN, &raw const flags) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn a_machine_boots_by_bios_says_that_its_data_is_whole_goes_on_working_and_powers_off() {
    if lacks_root() {
        return;
    }
    let fixture = Fixture::new("bios");
    let machine = fixture.at_work(200, 100);
    machine.detach().unwrap();
    let before = judged_here(&fixture.image.path);
    assert!(
        before.ok() && before.entries >= 100 && !before.torn_tail,
        "{before:?}"
    );
    assert_eq!(before.name, "bios");

    let copy = fixture.copy("bios-copy");
    let _turn = turn();
    let mut vm = Vm::virtio(&copy);
    let verdict = vm.verdict();
    assert_eq!(verdict.ledger, Ok((before.entries, before.last_hash.clone())));
    assert_eq!(verdict.table, Ok(()));
    let (status, report) = wait_until(BOOT, "the report over HTTP", || vm.ask());
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert_eq!(report.verdict, before);
    wait_until(PATIENCE, "entries of the started machine", || {
        let (_, report) = vm.ask()?;
        assert_eq!(report.workload_problem, None);
        (report.working && report.entries_now > before.entries + 20).then_some(())
    });
    vm.power_off();
    let after = judged_here(&copy);
    assert!(after.ok(), "{after:?}");
    assert!(after.entries > before.entries + 20);
}

#[test]
fn a_machine_boots_by_uefi() {
    if lacks_root() {
        return;
    }
    let fixture = Fixture::new("uefi");
    fixture.at_work(200, 50).detach().unwrap();
    let written = judged_here(&fixture.image.path).entries;
    // Partition 2, as others judge it.
    let efi = fixture.folder.path().join("efi");
    let mut content = vec![0; 4 << 20];
    let disk = std::fs::File::open(&fixture.image.path).unwrap();
    disk.read_exact_at(&mut content, 1 << 20).unwrap();
    std::fs::write(&efi, content).unwrap();
    let said = ok("fsck.vfat", &["-n", efi.to_str().unwrap()]);
    assert!(!said.contains("emoving") && said.contains("4 files"), "{said}");
    let _turn = turn();
    let mut vm = Vm::start(
        &fixture.image.path,
        &[
            "-bios",
            "/usr/share/ovmf/OVMF.fd",
            "-device",
            "virtio-scsi-pci",
            "-device",
            "scsi-hd,drive=disk,bootindex=0",
            "-device",
            "virtio-net-pci,netdev=net",
        ],
    );
    assert_eq!(vm.entries(), written);
}

#[test]
fn a_machine_with_the_kernel_of_servers_boots_from_ahci() {
    if lacks_root() {
        return;
    }
    let fixture = Fixture::with("ahci", |plan| plan.kernel = Kernel::Generic);
    let _turn = turn();
    let mut vm = Vm::start(
        &fixture.image.path,
        &[
            "-device",
            "ide-hd,drive=disk,bus=ide.0",
            "-device",
            "e1000,netdev=net",
        ],
    );
    assert_eq!(vm.entries(), 0);
    let (status, _) = wait_until(BOOT, "the report over HTTP by e1000", || vm.ask());
    assert_eq!(status, "HTTP/1.1 200 OK");
}

#[test]
fn a_copy_made_while_frozen_boots_with_every_entry_of_before_the_freeze() {
    if lacks_root() {
        return;
    }
    let fixture = Fixture::new("frozen");
    let machine = fixture.at_work(200, 100);
    let frozen = Guard::spawn(program(), std::slice::from_ref(&machine.mount), PATIENCE)
        .unwrap()
        .freeze()
        .unwrap();
    let instant = jiff::Timestamp::now().as_nanosecond() as i64;
    let copy = fixture.copy("frozen-copy");
    frozen.thaw().unwrap();
    let at_point = machine.entries_at(instant).unwrap();
    wait_until(PATIENCE, "work after the freeze", || {
        (machine.entries().unwrap() > at_point + 20).then_some(())
    });
    drop(machine);
    let _turn = turn();
    let entries = Vm::virtio(&copy).entries();
    assert!(
        entries == at_point || entries + 1 == at_point,
        "{entries} entries in the copy, {at_point} at its instant"
    );
}

#[test]
fn no_power_cut_loses_an_acknowledged_entry_or_tears_the_data() {
    if lacks_root() {
        return;
    }
    let fixture = Fixture::new("cut");
    let (mut torn, mut in_flight) = (0, 0);
    let mut entries = 0;
    for round in 0..25 {
        let mut machine = fixture.at_work(10_000, entries + 30 + round * 7);
        // Counted before the cut: of these the last one may have been on its way.
        let acknowledged = machine.entries().unwrap() - 1;
        cut_the_power(&machine.mount);
        machine.kill_workload();
        let copy = fixture.copy("cut-copy");
        drop(machine);
        let verdict = judged_here(&copy);
        assert!(verdict.ok(), "round {round}: {verdict:?}");
        assert!(
            verdict.entries >= acknowledged,
            "round {round}: {acknowledged} acknowledged, but {verdict:?}"
        );
        torn += u32::from(verdict.torn_tail);
        in_flight += u32::from(verdict.slot_in_flight.is_some());
        entries = verdict.entries;
    }
    eprintln!("25 power cuts: {torn} torn records, {in_flight} slots in flight, {entries} entries");
    // And once more as the machine itself sees it: it replays the journal and goes on.
    let machine = fixture.at_work(1000, entries + 50);
    let acknowledged = machine.entries().unwrap() - 1;
    cut_the_power(&machine.mount);
    let copy = fixture.copy("cut-copy");
    drop(machine);
    let _turn = turn();
    let mut vm = Vm::virtio(&copy);
    let found = vm.entries();
    assert!(found >= acknowledged, "{found} of {acknowledged}");
}

#[test]
fn the_machine_names_what_is_broken() {
    if lacks_root() {
        return;
    }
    let fixture = Fixture::new("broken");
    fixture.at_work(200, 60).detach().unwrap();
    let damage = |copy: &Path, file: &str, offset: u64| {
        let root = Root::of(copy);
        let file = std::fs::File::options()
            .read(true)
            .write(true)
            .open(root.mounted.0.join(DATA_FOLDER).join(file))
            .unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
        file.sync_all().unwrap();
    };
    let copy = fixture.copy("broken-ledger");
    damage(&copy, "ledger", 31 * RECORD_LEN as u64 + 60);
    let _turn = turn();
    let mut vm = Vm::virtio(&copy);
    let verdict = vm.verdict();
    let told = verdict.ledger.unwrap_err();
    assert!(told.starts_with("entry 31 is damaged"), "{told}");
    let (status, report) = wait_until(BOOT, "the report over HTTP", || vm.ask());
    assert_eq!(status, "HTTP/1.1 503 Service Unavailable");
    assert!(!report.verdict.ok() && !report.working);
    drop(vm);

    let copy = fixture.copy("broken-table");
    // Most slots were never written: a byte in a blank copy shows as well. Two, because one of them might be due for the
    // next entry, where a torn copy is excused.
    damage(&copy, "table", 4096 * 2 * 50 + 7);
    damage(&copy, "table", 4096 * 2 * 51 + 7);
    let verdict = Vm::virtio(&copy).verdict();
    assert!(verdict.ledger.is_ok());
    let told = verdict.table.unwrap_err();
    assert!(
        told.starts_with("slot 5") && told.contains("is damaged"),
        "{told}"
    );
}

#[test]
fn a_disk_that_is_too_small_is_refused_with_the_size_that_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let parts = parts(Kernel::Cloud);
    let mut plan = MachinePlan::numbered(1, 16 << 20);
    let path = folder.path().join("disk.img");
    let error = build(&plan, &parts, program(), &path).unwrap_err();
    let LabError::TooSmall { asked, needed } = error else {
        panic!("{error}");
    };
    assert_eq!(asked, 16 << 20);
    assert!(!path.exists());
    plan.disk_bytes = needed;
    let image = build(&plan, &parts, program(), &path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), image.disk_bytes);
    // Nothing is left but the disk.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    plan.name = "not a name".to_owned();
    assert!(matches!(
        build(&plan, &parts, program(), &path),
        Err(LabError::Name(_))
    ));
}

/// A network of its own, without anybody who gives addresses. Processes in it are ended by their owners.
struct Namespace(String);

impl Namespace {
    fn new() -> Self {
        let name = format!("lab-test-{}", std::process::id());
        ok("ip", &["netns", "add", &name]);
        let namespace = Self(name);
        for command in [
            "tuntap add dev guest mode tap",
            "addr add 10.77.0.1/24 dev guest",
            "link set guest up",
        ] {
            let words: Vec<&str> = ["-n", &namespace.0]
                .into_iter()
                .chain(command.split(' '))
                .collect();
            ok("ip", &words);
        }
        namespace
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

#[test]
fn a_machine_keeps_its_address_where_nobody_gives_it_one() {
    if lacks_root() {
        return;
    }
    let fixture = Fixture::new("isolated");
    let namespace = Namespace::new();
    let _turn = turn();
    let mut vm = Vm::within(
        &["ip", "netns", "exec", &namespace.0],
        "tap,id=net,ifname=guest,script=no,downscript=no",
        &fixture.image.path,
        &[
            "-device",
            "virtio-blk-pci,drive=disk",
            "-device",
            "virtio-net-pci,netdev=net",
        ],
    );
    assert_eq!(vm.entries(), 0);
    let ask = r#"exec 3<>/dev/tcp/10.77.0.11/80 && printf 'GET / HTTP/1.0\r\n\r\n' >&3 && cat <&3"#;
    let text = wait_until(PATIENCE, "an answer from the machine's own address", || {
        let output = Command::new("ip")
            .args(["netns", "exec", &namespace.0, "timeout", "5", "bash", "-c", ask])
            .output()
            .unwrap();
        output.status.success().then_some(output.stdout)
    });
    let text = String::from_utf8(text).unwrap();
    assert!(
        text.starts_with("HTTP/1.1 200 OK") && text.contains(r#""name":"isolated""#),
        "{text}"
    );
}

#[test]
fn a_full_file_system_makes_the_workload_wait_not_fail() {
    if lacks_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let device = LoopDisk::attach(&folder.path().join("disk"), 16 << 20);
    ok("mkfs.ext4", &["-q", "-m", "0", device.path()]);
    let mounted = Mounted::new(device.path(), &folder.path().join("mnt"), "rw");
    let data = mounted.0.join("data");
    lifeboat::lab::ledger::create(&data, "full", 8).unwrap();
    let filler = mounted.0.join("filler");
    let free = rustix::fs::statvfs(&mounted.0).unwrap();
    let rest = free.f_bavail * free.f_frsize - (200 << 10);
    std::fs::write(&filler, vec![1; usize::try_from(rest).unwrap()]).unwrap();
    let mut workload = Workload::start(program(), &data, 10_000).unwrap();
    // It tries again every second; what the noise gave up is used up as well when two turns bring nothing.
    let mut last = (0, Instant::now());
    wait_until(
        PATIENCE,
        "the file system to be full and the writer to wait",
        || {
            workload.check().unwrap();
            let now = workload.entries().unwrap();
            if now != last.0 {
                last = (now, Instant::now());
            }
            (now > 100 && last.1.elapsed() > Duration::from_millis(2500)).then_some(())
        },
    );
    let stuck_at = workload.entries().unwrap();
    std::fs::remove_file(&filler).unwrap();
    wait_until(PATIENCE, "work to go on", || {
        workload.check().unwrap();
        (workload.entries().unwrap() > stuck_at + 10).then_some(())
    });
    workload.stop().unwrap();
    let verdict = verify(&data);
    assert!(verdict.ok() && verdict.entries > stuck_at + 10, "{verdict:?}");
}

/// Takes a disk and hangs on to it, until it is killed by the test below.
#[test]
fn helper_that_is_killed() {
    let Some(folder) = std::env::var_os("LAB_KILLED_IN") else {
        return;
    };
    let folder = PathBuf::from(folder);
    let (site, _) = Site::open(&folder.join("site")).unwrap();
    let plan = MachinePlan::numbered(1, machine::DEFAULT_DISK_BYTES);
    let image = build(&plan, &parts(plan.kernel), program(), &folder.join("disk.img")).unwrap();
    let mut machine = site.attach(&image).unwrap();
    machine.start_workload(program(), 100).unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn a_killed_lab_is_cleaned_up_by_the_next_one_and_nothing_else_is() {
    if lacks_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("site/site.json");
    let mut killed = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "helper_that_is_killed", "--nocapture"])
        .env("LAB_KILLED_IN", folder.path())
        .spawn()
        .unwrap();
    let pid = wait_until(PATIENCE, "the other lab to be at work", || {
        let state: serde_json::Value = serde_json::from_slice(&std::fs::read(&state).ok()?).ok()?;
        state["lab1"]["workload"]["pid"].as_u64()
    });
    // While it lives, its folder is its own.
    assert!(Site::open(&folder.path().join("site")).is_err());
    let foreign = LoopDisk::attach(&folder.path().join("foreign"), 1 << 20);
    killed.kill().unwrap();
    killed.wait().unwrap();
    let disk = folder.path().join("disk.img");
    let loops = || ok("losetup", &["--noheadings", "--list", "--output", "BACK-FILE"]);
    assert!(loops().contains(disk.to_str().unwrap()));

    let (site, removed) = Site::open(&folder.path().join("site")).unwrap();
    eprintln!("removed: {removed:?}");
    assert!(
        removed.iter().any(|text| text.starts_with("mount "))
            && removed.iter().any(|text| text.starts_with("loop device "))
    );
    assert!(!loops().contains(disk.to_str().unwrap()), "{}", loops());
    assert!(loops().contains(folder.path().join("foreign").to_str().unwrap()));
    // Gone, or dead and not yet fetched by whoever became its parent: then it has no command line any more.
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    assert!(command.is_empty(), "{}", String::from_utf8_lossy(&command));
    drop(site);
    drop(foreign);
    let verdict = judged_here(&disk);
    assert!(verdict.ok(), "{verdict:?}");
    // And the ledger can be gone on with.
    let (_, again) = Site::open(&folder.path().join("site")).unwrap();
    assert!(again.is_empty());
}

#[test]
fn a_workload_refuses_a_broken_ledger_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    lifeboat::lab::ledger::create(folder.path(), "web1", 4).unwrap();
    Ledger::open(folder.path()).unwrap().append(1).unwrap();
    std::fs::remove_file(folder.path().join("table")).unwrap();
    let output = Command::new(program())
        .args(["lab-workload", "--folder", folder.path().to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("is broken") && text.contains("recommended action"),
        "{text}"
    );
}
