//! A site in this process: vault, store, runner and API, on a unix socket and on HTTPS. The hypervisor is a double that
//! keeps what it was told; everything else is real.
#![allow(dead_code)] // each test file uses a part
use lifeboat::api::client::{Address, Client, ClientError, Trust};
use lifeboat::api::{self, ApiState, ServerFacts, Site, SiteError, WayIn};
use lifeboat::block::{Consistency, DiskId, FrameBuilder, MachineId, PointId};
use lifeboat::process_server::Backlog;
use lifeboat::recovery::plan::{Engine, EngineParts};
use lifeboat::recovery::{JobId, JobState, Journal, Parts, ProtectionState, Runner, Source, TaskState};
use lifeboat::replica::{DiskSpec, PointSpec, Store, VaultKey};
use lifeboat::rt::{Fact, Report, now_unix_nanos};
use lifeboat::target::{Compute, DiskAttachment, MachineSpec, MachineStatus, Power, Stop, TargetError};
use lifeboat::vault::{Backup, DEFAULT_POLICY, DEFAULT_VAULT, Heartbeat, LiveDisk, Role, Vault};
use lifeboat::wire::facts::{DiskFacts, Inventory};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

pub const DISK_BYTES: u64 = 1 << 20;

/// What firmware does: reads the start of a disk over NBD.
fn read_first_block(disk: &DiskAttachment) -> std::io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(&disk.socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.read_exact(&mut [0; 18])?;
    // Fixed newstyle without zeroes; the export by its name; then one read of 4 KiB.
    let mut ask = 3u32.to_be_bytes().to_vec();
    ask.extend_from_slice(b"IHAVEOPT\0\0\0\x01");
    ask.extend_from_slice(&(disk.export.len() as u32).to_be_bytes());
    ask.extend_from_slice(disk.export.as_bytes());
    stream.write_all(&ask)?;
    stream.read_exact(&mut [0; 10])?;
    let mut read = 0x2560_9513u32.to_be_bytes().to_vec();
    read.extend_from_slice(&[0; 20]);
    read.extend_from_slice(&4096u32.to_be_bytes());
    stream.write_all(&read)?;
    let mut reply = [0; 16 + 4096];
    stream.read_exact(&mut reply)?;
    Ok(reply[16..].to_vec())
}

/// A hypervisor whose machines read the start of their disks and do no more.
#[derive(Default)]
pub struct TestCompute {
    running: Mutex<HashMap<String, MachineSpec>>,
    fails: AtomicBool,
}

impl TestCompute {
    pub fn fail_starts(&self, fails: bool) {
        self.fails.store(fails, Ordering::SeqCst);
    }

    pub fn spec(&self, name: &str) -> MachineSpec {
        self.running.lock().unwrap()[name].clone()
    }

    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.running.lock().unwrap().keys().cloned().collect();
        names.sort();
        names
    }
}

impl Compute for TestCompute {
    fn kind(&self) -> &'static str {
        "test"
    }

    fn check(&self) -> Result<(), TargetError> {
        Ok(())
    }

    fn prepare(&self, spec: &MachineSpec) -> Result<(), TargetError> {
        std::fs::create_dir_all(&spec.folder).map_err(|source| TargetError::Io {
            action: "make",
            object: spec.folder.clone(),
            source,
        })
    }

    fn start(&self, spec: &MachineSpec) -> Result<MachineStatus, TargetError> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(TargetError::Io {
                action: "start",
                object: spec.folder.clone(),
                source: std::io::Error::other("it is told to fail"),
            });
        }
        for disk in &spec.disks {
            let first = read_first_block(disk).map_err(|source| TargetError::Io {
                action: "read",
                object: disk.socket.clone(),
                source,
            })?;
            assert_eq!(
                first, [b'x'; 4096],
                "the machine's disk is that of the recovery point"
            );
        }
        std::fs::write(self.serial_log(spec), b"booted\n").map_err(|source| TargetError::Io {
            action: "write",
            object: spec.folder.clone(),
            source,
        })?;
        self.running
            .lock()
            .unwrap()
            .insert(spec.name.clone(), spec.clone());
        self.status(spec)
    }

    fn stop(&self, spec: &MachineSpec, _how: Stop) -> Result<(), TargetError> {
        self.running.lock().unwrap().remove(&spec.name);
        Ok(())
    }

    fn destroy(&self, spec: &MachineSpec) -> Result<(), TargetError> {
        self.running.lock().unwrap().remove(&spec.name);
        let _ = std::fs::remove_dir_all(&spec.folder);
        Ok(())
    }

    fn status(&self, spec: &MachineSpec) -> Result<MachineStatus, TargetError> {
        let running = self.running.lock().unwrap().contains_key(&spec.name);
        Ok(MachineStatus {
            power: if running { Power::Running } else { Power::Absent },
            detail: String::new(),
            pid: None,
            accelerator: "none".to_owned(),
            forwards: Vec::new(),
            first_output_unix_nanos: running.then(now_unix_nanos),
        })
    }

    fn serial_log(&self, spec: &MachineSpec) -> PathBuf {
        spec.folder.join("serial.log")
    }

    fn console(&self, spec: &MachineSpec) -> Option<PathBuf> {
        Some(spec.folder.join("vnc.sock"))
    }

    fn screenshot(&self, _spec: &MachineSpec) -> Result<Vec<u8>, TargetError> {
        Ok(b"\x89PNG\r\n\x1a\n".to_vec())
    }
}

struct TestSource;

impl Source for TestSource {
    fn is_connected(&self, _machine: MachineId) -> bool {
        false
    }

    fn last_sync(&self, _machine: MachineId, _limit: Duration) -> Result<(), String> {
        Err("the source is not connected".to_owned())
    }

    fn halt(&self, _machine: MachineId, _job: JobId, _limit: Duration) -> Result<PointId, String> {
        Err("the source is not connected".to_owned())
    }

    fn stayed_at_rest(&self, _: MachineId, _: JobId, _: PointId, _limit: Duration) -> bool {
        false
    }

    fn point_interval(&self, _machine: MachineId) -> Duration {
        Duration::from_secs(1)
    }

    fn receiver_trouble(&self, _machine: MachineId) -> Option<String> {
        Some("the receiver has not been heard".to_owned())
    }

    fn is_home(&self, _machine: MachineId, _point: PointId) -> Result<bool, String> {
        Ok(false)
    }

    fn fence(&self, _machine: MachineId, _generation: u64) {}
}

#[derive(Default)]
pub struct TestSite {
    passphrases: AtomicU64,
    pub nudges: AtomicU64,
    pub revoked: Mutex<Vec<MachineId>>,
    backups: Mutex<Vec<Backup>>,
}

impl Site for TestSite {
    fn servers(&self) -> Vec<ServerFacts> {
        vec![ServerFacts {
            name: "here".to_owned(),
            roles: vec!["configuration".to_owned(), "process".to_owned()],
            version: "0.1.0".to_owned(),
            state: "Connected".to_owned(),
            detail: String::new(),
            addresses: vec!["127.0.0.1:9443".to_owned()],
            health: "Normal".to_owned(),
            ..ServerFacts::default()
        }]
    }

    fn passphrase(&self) -> Result<String, SiteError> {
        Ok(format!("passphrase-{}", self.passphrases.load(Ordering::SeqCst)))
    }

    fn rotate_passphrase(&self) -> Result<String, SiteError> {
        self.passphrases.fetch_add(1, Ordering::SeqCst);
        self.passphrase()
    }

    fn ca_pem(&self) -> String {
        "none".to_owned()
    }

    fn backlog(&self, _machine: MachineId) -> HashMap<DiskId, Backlog> {
        HashMap::new()
    }

    fn way_in(&self) -> Result<WayIn, SiteError> {
        Ok(WayIn {
            public_key_pin: "sha256//none".to_owned(),
            ca_fingerprint: "sha256:none".to_owned(),
            api_port: 8443,
            data_port: 9443,
            names: vec!["vault.example".to_owned()],
        })
    }

    fn backups(&self) -> Result<Vec<Backup>, SiteError> {
        Ok(self.backups.lock().unwrap().clone())
    }

    fn back_up(&self) -> Result<Backup, SiteError> {
        let made = Backup {
            name: "20261125T220000.000Z-by-hand.lbvb".to_owned(),
            made_unix_nanos: now_unix_nanos(),
            reason: "by-hand".to_owned(),
            bytes: 4096,
        };
        self.backups.lock().unwrap().insert(0, made.clone());
        Ok(made)
    }

    fn machine_revoked(&self, machine: MachineId) {
        self.revoked.lock().unwrap().push(machine);
    }

    fn nudge(&self) {
        self.nudges.fetch_add(1, Ordering::SeqCst);
    }
}

pub struct TestServer {
    pub folder: tempfile::TempDir,
    pub vault: Vault,
    pub store: Store,
    pub runner: Runner,
    pub plans: Engine,
    pub compute: Arc<TestCompute>,
    pub site: Arc<TestSite>,
    pub once: String,
    pub ca_pem: String,
    pub port: u16,
    pub certificate: Vec<u8>,
    shutdown: CancellationToken,
    runtime: Option<tokio::runtime::Runtime>,
}

impl TestServer {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::open(&folder.path().join("vault.db")).unwrap();
        let once = vault.first_start().unwrap().unwrap();
        let store = Store::create(&folder.path().join("store"), &VaultKey::generate()).unwrap();
        let compute = Arc::new(TestCompute::default());
        let runner = Runner::new(Parts {
            journal: Arc::new(vault.clone()),
            store: store.clone(),
            compute: compute.clone(),
            vms: folder.path().join("vms"),
            source: Arc::new(TestSource),
            report: Arc::new(vault.clone()),
        });
        let plans = Engine::new(EngineParts {
            runner: runner.clone(),
            journal: Arc::new(vault.clone()),
            scripts: folder.path().join("plan-scripts"),
        });
        let site = Arc::new(TestSite::default());
        let shutdown = CancellationToken::new();
        let state = ApiState::new(
            vault.clone(),
            runner.clone(),
            plans.clone(),
            store.clone(),
            site.clone(),
            shutdown.clone(),
        );
        let router = api::router(state);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let certificate = signed.cert.der().to_vec();
        let key = rustls::pki_types::PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
        let config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![signed.cert.der().clone()], key)
                .unwrap();
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let port = listener.local_addr().unwrap().port();
        let socket = folder.path().join("api.sock");
        {
            let (router, shutdown, socket) = (router.clone(), shutdown.clone(), socket.clone());
            runtime.spawn(async move { api::serve_unix(&socket, router, shutdown).await.unwrap() });
        }
        {
            let shutdown = shutdown.clone();
            runtime.spawn(async move {
                api::serve_tls(listener, Arc::new(config), router, shutdown)
                    .await
                    .unwrap();
            });
        }
        until("the socket is there", || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
        Self {
            vault,
            store,
            runner,
            plans,
            compute,
            site,
            once,
            ca_pem: signed.cert.pem(),
            port,
            certificate,
            shutdown,
            runtime: Some(runtime),
            folder,
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("api.sock")
    }

    /// As root of this host.
    pub fn root(&self) -> Client {
        Client::new(Address::Unix(self.socket()), None, None).unwrap()
    }

    /// Over the unix socket, but with a token: its rights count.
    pub fn with_token(&self, token: &str) -> Client {
        Client::new(Address::Unix(self.socket()), None, Some(token.to_owned())).unwrap()
    }

    pub fn https(&self, token: Option<&str>) -> Client {
        let address = Address::Https {
            host: "localhost".to_owned(),
            port: self.port,
        };
        let trust = Trust::Ca(self.ca_pem.clone());
        Client::new(address, Some(&trust), token.map(str::to_owned)).unwrap()
    }

    /// A session of a fresh user with this role.
    pub fn session(&self, name: &str, role: Role) -> String {
        let once = self.vault.create_user(name, DEFAULT_VAULT, role).unwrap();
        let password = "correct horse battery";
        self.vault
            .change_password(name, &once, password, None, "test")
            .unwrap();
        self.vault.login(name, password, "test").unwrap()
    }

    pub fn join(&self, name: &str) -> MachineId {
        self.join_to(DEFAULT_VAULT, name)
    }

    pub fn join_to(&self, vault: &str, name: &str) -> MachineId {
        let id = self
            .vault
            .enrol(vault, name, &format!("key-{name}"), "0.1.0")
            .unwrap();
        self.beat(id, Vec::new());
        id
    }

    /// Disables replication as the configuration server's reconciler does; the job.
    pub fn unprotect(&self, vault: &str, name: &str) -> lifeboat::recovery::JobId {
        let id = self.vault.find_machine(vault, name).unwrap().id;
        let ordered = self.vault.disable(id, "admin").unwrap();
        let mut job = self.vault.job(ordered).unwrap();
        let mut item = self.vault.item(id).unwrap();
        job.state = JobState::Succeeded;
        item.protection = ProtectionState::Unprotected;
        let _ = self.store.remove_machine(id);
        self.vault.record(&job, Some(&item)).unwrap();
        ordered
    }

    pub fn beat(&self, id: MachineId, disks: Vec<LiveDisk>) {
        self.beat_with(id, &["serial:boot"], disks);
    }

    /// A heartbeat of a machine that has these disks.
    pub fn beat_with(&self, id: MachineId, stable_ids: &[&str], disks: Vec<LiveDisk>) {
        let inventory = Inventory {
            host_name: "host".to_owned(),
            cpus: 2,
            memory_bytes: 1 << 30,
            disks: stable_ids
                .iter()
                .map(|stable_id| DiskFacts {
                    stable_id: (*stable_id).to_owned(),
                    device: "/dev/vda".to_owned(),
                    size_bytes: DISK_BYTES,
                    boot: *stable_id == "serial:boot",
                    ..DiskFacts::default()
                })
                .collect(),
            ..Inventory::default()
        };
        let heartbeat = Heartbeat {
            at_unix_nanos: now_unix_nanos(),
            agent_version: "0.1.0".to_owned(),
            inventory: Some(inventory),
            phase: "waiting".to_owned(),
            disks,
            ..Heartbeat::default()
        };
        self.vault.heartbeat(id, heartbeat).unwrap();
    }

    /// Does what the configuration server's reconciler and an agent do, up to the first point.
    pub fn protect(&self, name: &str) -> (MachineId, PointId) {
        let id = self.join(name);
        self.vault
            .enable(id, DEFAULT_POLICY, None, None, "admin")
            .unwrap();
        (id, self.reconcile(id))
    }

    /// Carries an open EnableReplication out and makes the first point.
    pub fn reconcile(&self, id: MachineId) -> PointId {
        let mut job = self.vault.open_jobs().unwrap().pop().unwrap();
        let mut item = self.vault.item(id).unwrap();
        self.store.register_machine(id, &item.name).unwrap();
        for disk in &item.disks {
            let spec = DiskSpec {
                id: *disk,
                name: "boot".to_owned(),
                size_bytes: DISK_BYTES,
            };
            self.store.register_disk(id, spec).unwrap();
        }
        for task in &mut job.tasks {
            task.state = TaskState::Succeeded;
        }
        job.state = JobState::Succeeded;
        item.protection = ProtectionState::InitialReplicationInProgress;
        self.vault.record(&job, Some(&item)).unwrap();
        let point = self.seal(id, &item.disks);
        until("Protected", || {
            self.vault.item(id).unwrap().protection == ProtectionState::Protected
        });
        point
    }

    /// A recovery point of a disk of zeroes and a little text.
    pub fn seal(&self, machine: MachineId, disks: &[DiskId]) -> PointId {
        let generation = self.vault.item(machine).unwrap().generation;
        let mut writer = self.store.begin(machine, generation).unwrap();
        for disk in disks {
            let mut frame = FrameBuilder::new();
            frame.push(0, &[b'x'; 4096]);
            writer.append(*disk, frame.finish(1).unwrap()).unwrap();
        }
        let instant = now_unix_nanos();
        let point = writer
            .seal(PointSpec {
                instant_unix_nanos: instant,
                consistency: Consistency::CrashConsistent,
                note: String::new(),
                freeze_micros: 1500,
            })
            .unwrap();
        self.vault.report(Fact::PointSealed {
            machine,
            point,
            instant_unix_nanos: instant,
            consistency: Consistency::CrashConsistent,
            note: String::new(),
            freeze_micros: 1500,
            changed_bytes: 4096,
            stored_bytes: 4096,
            sync_request: 0,
        });
        point
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.runner.shut_down();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(10));
        }
    }
}

pub fn until(what: &str, mut state: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !state() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Status and code of a refusal.
pub fn refusal<T: std::fmt::Debug>(result: Result<T, ClientError>) -> (u16, String) {
    match result {
        Err(ClientError::Problem(problem)) => (problem.status, problem.code),
        other => panic!("{other:?}"),
    }
}
