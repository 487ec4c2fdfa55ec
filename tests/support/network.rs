//! A server with agents over the network, all in the test's process.
#![allow(dead_code)] // each test file uses a part
use super::Mounted;
use lifeboat::agent::daemon::{self, AgentSettings};
use lifeboat::agent::fence::Fence;
use lifeboat::agent::identity::Identity;
use lifeboat::agent::join::{JoinError, JoinSpec, join};
use lifeboat::agent::quiesce::Quiesce;
use lifeboat::block::{Consistency, MachineId};
use lifeboat::export::to_raw;
use lifeboat::recovery::{Journal, ProtectionState};
use lifeboat::replica::At;
use lifeboat::server::{Server, ServerSettings};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

pub use super::wait_for;

pub struct Site {
    pub runtime: tokio::runtime::Runtime,
    _mounted: Option<Mounted>,
    pub folder: tempfile::TempDir,
    pub server: Option<Server>,
    pub address: SocketAddr,
    /// Of certificates that are issued from the next start on.
    pub client_life: Duration,
}

impl Site {
    pub fn new() -> Self {
        Self::on(None)
    }

    /// `store`: options of a tmpfs for the store alone.
    pub fn on(store: Option<&str>) -> Self {
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
            client_life: Duration::from_secs(24 * 3600),
        };
        site.start();
        site
    }

    pub fn start(&mut self) {
        let mut settings = ServerSettings::new(
            self.folder.path().join("data"),
            self.address,
            "127.0.0.1:0".parse().unwrap(),
        );
        settings.heartbeat = Duration::from_secs(1);
        settings.client_life = self.client_life;
        settings.maintenance = Duration::from_secs(1);
        let server = self.runtime.block_on(Server::start(settings)).unwrap();
        self.address = server.data_address;
        self.server = Some(server);
    }

    pub fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.stop());
        }
    }

    pub fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    pub fn spec(&self, name: &str, disk: &Path) -> JoinSpec {
        JoinSpec {
            server: self.address.to_string(),
            fingerprint: self.server().pki.fingerprint().unwrap(),
            passphrase: self.server().pki.passphrase(),
            vault: None,
            name: name.to_owned(),
            machine_key: format!("key of {name}"),
            disks: vec![disk.to_owned()],
        }
    }

    pub fn state(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("agent-{name}"))
    }

    pub fn join(&self, spec: &JoinSpec) -> Result<Identity, JoinError> {
        self.runtime.block_on(join(spec, &self.state(&spec.name)))
    }

    /// Folder of the hooks of an agent; made by who needs some.
    pub fn hooks(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("quiesce-{name}.d"))
    }

    pub fn agent(&self, name: &str) -> Agent {
        let settings = AgentSettings {
            state: self.state(name),
            program: env!("CARGO_BIN_EXE_lifeboat").into(),
            freeze_deadline: Duration::from_secs(10),
            quiesce: Quiesce {
                folder: self.hooks(name),
                state: self.state(name),
                machine: name.to_owned(),
                timeout: Duration::from_secs(20),
                hold: Duration::from_secs(20),
            },
            fence: Fence {
                folder: self.folder.path().join(format!("fence-{name}.d")),
                timeout: Duration::from_secs(20),
                machine: name.to_owned(),
                console: None,
            },
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

    pub fn protect(&self, machine: MachineId) {
        let vault = &self.server().vault;
        wait_for("an inventory", || vault.machine(machine).ok()?.inventory);
        vault.enable(machine, "default", None, None, "test").unwrap();
        wait_for("protection", || {
            let state = vault.item(machine).ok()?.protection;
            (state == ProtectionState::Protected).then_some(())
        });
    }

    pub fn points(&self, machine: MachineId) -> usize {
        self.server()
            .store
            .points(machine)
            .map_or(0, |points| points.len())
    }

    pub fn next_point(&self, machine: MachineId) {
        let before = self.points(machine);
        self.server().vault.request_sync(machine).unwrap();
        wait_for("a recovery point", || {
            (self.points(machine) > before).then_some(())
        });
    }

    /// The newest point, exported, against the disk itself.
    pub fn check(&self, machine: MachineId, disk: &Path) {
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

pub struct Agent {
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
