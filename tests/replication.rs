//! The way of the block over the network: a machine joins, is protected, ships; cut links, killed agents and a server that
//! comes and goes lose nothing that was acknowledged.
mod support;
use lifeboat::agent::daemon::{self, AgentSettings};
use lifeboat::agent::identity::Identity;
use lifeboat::agent::join::{JoinError, JoinSpec, join};
use lifeboat::block::{Consistency, MachineId};
use lifeboat::export::to_raw;
use lifeboat::recovery::{Journal, ProtectionState};
use lifeboat::replica::At;
use lifeboat::server::{Server, ServerSettings};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use support::{LoopDisk, Mounted, lacks_root, ok};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);

fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ready() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

struct Site {
    runtime: tokio::runtime::Runtime,
    _mounted: Option<Mounted>,
    folder: tempfile::TempDir,
    server: Option<Server>,
    address: SocketAddr,
}

impl Site {
    fn new() -> Self {
        Self::on(None)
    }

    /// `store`: options of a tmpfs for the store alone.
    fn on(store: Option<&str>) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mounted = store.map(|options| {
            let at = folder.path().join("data/store");
            std::fs::create_dir_all(&at).unwrap();
            Mounted::of_kind("tmpfs", "tmpfs", &at, options)
        });
        let mut site = Self {
            runtime,
            _mounted: mounted,
            folder,
            server: None,
            address: "127.0.0.1:0".parse().unwrap(),
        };
        site.start();
        site
    }

    fn start(&mut self) {
        let mut settings = ServerSettings::new(
            self.folder.path().join("data"),
            self.address,
            "127.0.0.1:0".parse().unwrap(),
        );
        settings.heartbeat = Duration::from_secs(1);
        settings.maintenance = Duration::from_secs(1);
        let server = self.runtime.block_on(Server::start(settings)).unwrap();
        self.address = server.data_address;
        self.server = Some(server);
    }

    fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.stop());
        }
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    fn spec(&self, name: &str, disk: &Path) -> JoinSpec {
        JoinSpec {
            server: self.address.to_string(),
            fingerprint: self.server().pki.fingerprint().unwrap(),
            passphrase: self.server().pki.passphrase(),
            name: name.to_owned(),
            machine_key: format!("key of {name}"),
            disks: vec![disk.to_owned()],
        }
    }

    fn state(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("agent-{name}"))
    }

    fn join(&self, spec: &JoinSpec) -> Result<Identity, JoinError> {
        self.runtime.block_on(join(spec, &self.state(&spec.name)))
    }

    fn agent(&self, name: &str) -> Agent {
        let settings = AgentSettings {
            state: self.state(name),
            program: env!("CARGO_BIN_EXE_lifeboat").into(),
            freeze_deadline: Duration::from_secs(10),
        };
        let identity = Identity::load(&settings.state).unwrap();
        let (stop, handle) = (CancellationToken::new(), self.runtime.handle().clone());
        let token = stop.clone();
        let thread = std::thread::spawn(move || daemon::run(settings, identity, &handle, token).unwrap());
        Agent {
            stop,
            thread: Some(thread),
        }
    }

    fn protect(&self, machine: MachineId) {
        let vault = &self.server().vault;
        wait_for("an inventory", || vault.machine(machine).ok()?.inventory);
        vault.enable(machine, "default", None, None, "test").unwrap();
        wait_for("protection", || {
            let state = vault.item(machine).ok()?.protection;
            (state == ProtectionState::Protected).then_some(())
        });
    }

    fn points(&self, machine: MachineId) -> usize {
        self.server()
            .store
            .points(machine)
            .map_or(0, |points| points.len())
    }

    fn next_point(&self, machine: MachineId) {
        let before = self.points(machine);
        self.server().vault.request_sync(machine).unwrap();
        wait_for("a recovery point", || {
            (self.points(machine) > before).then_some(())
        });
    }

    /// The newest point, exported, against the disk itself.
    fn check(&self, machine: MachineId, disk: &Path) {
        let store = &self.server().store;
        let point = store.points(machine).unwrap().pop().unwrap();
        assert_eq!(point.consistency, Consistency::CrashConsistent, "{}", point.note);
        let image = store.image(machine, point.disks[0], At::Point(point.id)).unwrap();
        let raw = self.folder.path().join(format!("raw-{}", point.id));
        to_raw(&image, &raw, &mut |_, _| ()).unwrap();
        let same = std::fs::read(&raw).unwrap() == std::fs::read(disk).unwrap();
        assert!(same, "the newest point is not the disk");
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop();
        // The maps of this test's disks.
        for machine in std::fs::read_dir(self.folder.path().join("data/store/machines"))
            .into_iter()
            .flatten()
            .flatten()
        {
            for disk in std::fs::read_dir(machine.path()).into_iter().flatten().flatten() {
                if let Some(id) = disk.file_name().to_str().and_then(|name| name.parse().ok()) {
                    lifeboat::agent::capture::forget(id);
                }
            }
        }
    }
}

struct Agent {
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }
}

/// Writes that are on the medium on return.
fn scribble(disk: &Path, seed: u8) {
    use std::os::unix::fs::{FileExt, OpenOptionsExt};
    let file = std::fs::File::options()
        .write(true)
        .custom_flags(libc::O_DIRECT | libc::O_SYNC)
        .open(disk)
        .unwrap();
    let mut buffer = lifeboat::agent::capture::AlignedBuffer::new(64 << 10).unwrap();
    for part in 0..20u64 {
        buffer.fill(seed.wrapping_add(part as u8));
        let at = (u64::from(seed) * 7919 + part * 104_729) % 500 * (64 << 10);
        file.write_all_at(&buffer, at).unwrap();
    }
}

#[test]
fn what_is_written_arrives_whatever_comes_and_goes() {
    if lacks_root() {
        return;
    }
    let mut site = Site::new();
    let file = site.folder.path().join("disk");
    let disk = LoopDisk::attach(&file, 32 << 20);
    scribble(&disk.0, 1);
    let identity = site.join(&site.spec("web1", &disk.0)).unwrap();
    let machine: MachineId = identity.machine_id.parse().unwrap();
    let agent = site.agent("web1");
    site.protect(machine);
    site.check(machine, &disk.0);

    // A delta.
    scribble(&disk.0, 2);
    site.next_point(machine);
    site.check(machine, &disk.0);

    // The server goes and comes back; meanwhile the disk changes.
    site.stop();
    scribble(&disk.0, 3);
    site.start();
    site.next_point(machine);
    site.check(machine, &disk.0);

    // The agent goes and comes back; meanwhile the disk changes.
    drop(agent);
    scribble(&disk.0, 4);
    let agent = site.agent("web1");
    site.next_point(machine);
    site.check(machine, &disk.0);

    // An order to resynchronize finds nothing to ship.
    site.server().vault.request_resync(machine).unwrap();
    site.next_point(machine);
    site.check(machine, &disk.0);

    // Disabling removes the replica and ends the tracking.
    let disk_id = site.server().vault.item(machine).unwrap().disks[0];
    site.server().vault.disable(machine, "test").unwrap();
    wait_for("the replica to go", || {
        (site.server().vault.item(machine).is_err() && site.points(machine) == 0).then_some(())
    });
    let pins = Path::new("/sys/fs/bpf/lifeboat").join(disk_id.to_string());
    wait_for("the tracking to end", || (!pins.exists()).then_some(()));
    drop(agent);
    ok("sync", &[]);
}

#[test]
fn who_may_not_join_is_told_why() {
    let site = Site::new();
    let disk = site.folder.path().join("disk");
    std::fs::write(&disk, vec![0; 1 << 20]).unwrap();
    let spec = || site.spec("web1", &disk);
    let code = |result: Result<Identity, JoinError>| match result {
        Err(JoinError::Refused(refused)) => {
            assert!(!refused.possible_causes.is_empty() && !refused.recommended_action.is_empty());
            refused.code
        }
        other => format!("{other:?}"),
    };
    let wrong = JoinSpec {
        passphrase: "wrong".into(),
        ..spec()
    };
    assert_eq!(code(site.join(&wrong)), "WrongPassphrase");
    let bad = JoinSpec {
        name: "-web".into(),
        ..spec()
    };
    assert_eq!(code(site.join(&bad)), "BadMachineName");
    let first = site.join(&spec()).unwrap();
    let other = JoinSpec {
        machine_key: "another machine".into(),
        ..spec()
    };
    assert_eq!(code(site.join(&other)), "DuplicateMachineName");
    // The same machine again keeps its id.
    assert_eq!(site.join(&spec()).unwrap().machine_id, first.machine_id);
    let strange = JoinSpec {
        fingerprint: format!("sha256:{}", "0".repeat(64)),
        ..spec()
    };
    assert!(matches!(
        site.join(&strange),
        Err(JoinError::Tls(lifeboat::wire::tls::TlsError::OtherCa { .. }))
    ));
    let misspelt = JoinSpec {
        fingerprint: "sha256:12".into(),
        ..spec()
    };
    assert!(matches!(
        site.join(&misspelt),
        Err(JoinError::Tls(lifeboat::wire::tls::TlsError::Fingerprint))
    ));
}

#[test]
fn a_store_that_lost_what_it_acknowledged_is_noticed() {
    if lacks_root() {
        return;
    }
    let mut site = Site::new();
    let disk = LoopDisk::attach(&site.folder.path().join("disk"), 32 << 20);
    scribble(&disk.0, 1);
    let identity = site.join(&site.spec("web1", &disk.0)).unwrap();
    let machine: MachineId = identity.machine_id.parse().unwrap();
    let _agent = site.agent("web1");
    site.protect(machine);
    let (store, copy) = (
        site.folder.path().join("data/store"),
        site.folder.path().join("copy"),
    );
    site.stop();
    ok("cp", &["-a", store.to_str().unwrap(), copy.to_str().unwrap()]);
    site.start();
    scribble(&disk.0, 2);
    site.next_point(machine);
    // The site's folder comes back from yesterday's backup: the agent's bits of what was shipped since are gone.
    site.stop();
    std::fs::remove_dir_all(&store).unwrap();
    std::fs::rename(&copy, &store).unwrap();
    site.start();
    site.next_point(machine);
    site.check(machine, &disk.0);
}

#[test]
fn a_full_store_holds_replication_back_and_loses_nothing() {
    if lacks_root() {
        return;
    }
    let site = Site::on(Some("size=24m"));
    let store = site.folder.path().join("data/store");
    let file = site.folder.path().join("disk");
    let disk = LoopDisk::attach(&file, 32 << 20);
    // Does not compress: 40 MiB do not fit into 24 MiB.
    let args = [
        "if=/dev/urandom",
        &format!("of={}", disk.path()),
        "bs=1M",
        "count=32",
        "oflag=direct",
    ];
    ok("dd", &args);
    let identity = site.join(&site.spec("web1", &disk.0)).unwrap();
    let machine: MachineId = identity.machine_id.parse().unwrap();
    let _agent = site.agent("web1");
    let vault = &site.server().vault;
    wait_for("an inventory", || vault.machine(machine).ok()?.inventory);
    vault.enable(machine, "default", None, None, "test").unwrap();
    wait_for("the alert", || vault.live(machine).store_full);
    wait_for("the health error", || {
        let health = vault.health(&vault.item_row(machine).ok()?);
        health
            .errors
            .iter()
            .any(|error| error.code == "StoreFull")
            .then_some(())
    });
    assert_eq!(site.points(machine), 0);
    ok("mount", &["-o", "remount,size=128m", store.to_str().unwrap()]);
    wait_for("protection", || {
        let state = vault.item(machine).ok()?.protection;
        (state == ProtectionState::Protected).then_some(())
    });
    assert_eq!(vault.live(machine).store_full, None);
    site.check(machine, &disk.0);
}
