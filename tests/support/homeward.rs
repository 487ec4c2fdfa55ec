//! A store with points, a server of the way home before it, and receivers that are the real program.
#![allow(dead_code)] // each test file uses a part
use super::noise;
use lifeboat::agent::identity::Identity;
use lifeboat::block::{BLOCK_BYTES, Consistency, DiskId, FrameBuilder, MachineId, PointId};
use lifeboat::configuration_server::accept;
use lifeboat::configuration_server::pki::{CLIENT_LIFE, Pki};
use lifeboat::process_server::{
    Handover, ReceiveDisk, ReceiveOrder, ReceivePhase, ReceivePoint, ReceiveReport, ReceiveService,
};
use lifeboat::replica::{DiskSpec, PointSpec, Store, VaultKey};
use lifeboat::wire::proto::receive_server::{Receive, ReceiveServer};
use lifeboat::wire::proto::{
    ChangesPart, ChangesRequest, DigestsPart, DigestsRequest, ReadPart, ReadRequest, ReceiveOrderReply,
    ReceiveOrderRequest, ReceiveReportReply, ReceiveReportRequest,
};
use lifeboat::wire::tls::server_config;
use lifeboat::wire::{MESSAGE_BYTES_MAX, Refused};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

pub use super::{PATIENCE, wait_for};

pub const NAME: &str = "web1";

/// What the server says and heard.
#[derive(Default)]
pub struct Desk {
    pub order: Option<ReceiveOrder>,
    /// In place of an order.
    pub refusal: Option<Refused>,
    pub reports: Vec<ReceiveReport>,
    /// Hears that it is done, goes on, and dies before it answers.
    pub loses_the_last_answer: bool,
}

#[derive(Clone, Default)]
pub struct SharedDesk(pub Arc<Mutex<Desk>>);

impl SharedDesk {
    pub fn lock(&self) -> MutexGuard<'_, Desk> {
        self.0.lock().unwrap()
    }
}

impl Handover for SharedDesk {
    fn authenticate(&self, _: MachineId, _: &str) -> Result<(), Refused> {
        Ok(())
    }

    fn order(&self, _: MachineId, machine: Option<&str>) -> Result<ReceiveOrder, Refused> {
        let desk = self.lock();
        if let Some(refused) = &desk.refusal {
            return Err(refused.clone());
        }
        let order = desk.order.clone().filter(|order| {
            machine.is_none_or(|name| name == order.name || name == order.machine.to_string())
        });
        order.ok_or_else(|| {
            Refused::new(
                "NothingToReceive",
                "nothing is on its way home",
                "not reprotected yet",
                "wait",
            )
        })
    }

    fn report(&self, _: MachineId, report: ReceiveReport) -> Result<(), Refused> {
        let mut desk = self.lock();
        let is_lost = desk.loses_the_last_answer && report.phase == ReceivePhase::Done;
        desk.reports.push(report);
        if is_lost {
            desk.order = None;
            drop(desk);
            panic!("the answer is lost on purpose");
        }
        Ok(())
    }
}

/// Serves until `stop`; where it listens.
pub fn serve(
    runtime: &tokio::runtime::Handle,
    service: impl Receive,
    pki: &Pki,
    address: SocketAddr,
    stop: CancellationToken,
) -> SocketAddr {
    let tls = server_config(&pki.chain_pem, &pki.key_pem, pki.ca_pem()).unwrap();
    let _entered = runtime.enter();
    let listener = runtime.block_on(tokio::net::TcpListener::bind(address)).unwrap();
    let address = listener.local_addr().unwrap();
    let connections = accept(listener, tls, stop.clone());
    let router = tonic::transport::Server::builder()
        .add_service(ReceiveServer::new(service).max_decoding_message_size(MESSAGE_BYTES_MAX));
    runtime.spawn(router.serve_with_incoming_shutdown(connections, stop.cancelled_owned()));
    address
}

/// The disks of the machine as plain bytes.
pub type Disks = Vec<Vec<u8>>;

pub struct Home {
    pub runtime: tokio::runtime::Runtime,
    pub folder: tempfile::TempDir,
    pub store: Option<Store>,
    pub machine: MachineId,
    pub receiver: MachineId,
    pub disks: Vec<DiskId>,
    pub now: Disks,
    pub points: Vec<(PointId, Disks)>,
    pub desk: SharedDesk,
    pub pki: Pki,
    pub address: SocketAddr,
    stop: CancellationToken,
}

pub fn key() -> VaultKey {
    VaultKey::generate()
}

impl Home {
    /// A machine with disks of these sizes, with a first point of noise, zeros between it.
    pub fn new(sizes: &[u64]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let pki = Pki::open(&folder.path().join("pki"), &["localhost".to_owned()]).unwrap();
        let store = Store::create(&folder.path().join("store"), &pki.vault_key).unwrap();
        let (machine, receiver) = (MachineId::new(), MachineId::new());
        store.register_machine(machine, NAME).unwrap();
        let mut disks = Vec::new();
        let mut now = Vec::new();
        for (index, size) in sizes.iter().enumerate() {
            let id = DiskId::new();
            let spec = DiskSpec {
                id,
                name: format!("disk{index}"),
                size_bytes: *size,
            };
            store.register_disk(machine, spec).unwrap();
            disks.push(id);
            let mut bytes = noise(*size as usize, index as u64);
            // A quarter of it is zeros.
            for part in bytes.chunks_mut(1 << 20).skip(1).step_by(4) {
                part.fill(0);
            }
            now.push(bytes);
        }
        let mut home = Self {
            runtime,
            folder,
            store: Some(store),
            machine,
            receiver,
            disks,
            points: Vec::new(),
            now: now.clone(),
            desk: SharedDesk::default(),
            pki,
            address: "127.0.0.1:0".parse().unwrap(),
            stop: CancellationToken::new(),
        };
        home.identity(&home.folder.path().join("agent"));
        let whole: Vec<_> = (now.iter().enumerate())
            .map(|(disk, bytes)| (disk, 0, bytes.clone()))
            .collect();
        home.write(whole);
        home.seal();
        home
    }

    pub fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("agent")
    }

    /// What `agent join` leaves.
    pub fn identity(&self, at: &Path) {
        let key = rcgen::KeyPair::generate().unwrap();
        let csr = rcgen::CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        let issued = self
            .pki
            .issue(&self.receiver.to_string(), &csr.pem().unwrap(), CLIENT_LIFE)
            .unwrap();
        let identity = Identity {
            server: self.address.to_string(),
            name: "rescue".to_owned(),
            machine_id: self.receiver.to_string(),
            ca_pem: self.pki.ca_pem().to_owned(),
            certificate_pem: issued.pem,
            key_pem: key.serialize_pem(),
            not_before_unix: issued.not_after_unix - 90 * 24 * 3600,
            not_after_unix: issued.not_after_unix,
            disks: Vec::new(),
        };
        identity.save(at).unwrap();
    }

    /// Writes whole blocks at the target: (disk, first block, bytes).
    pub fn write(&mut self, writes: Vec<(usize, u64, Vec<u8>)>) {
        let mut writer = self.store().begin(self.machine, 1).unwrap();
        let mut pieces: Vec<(usize, u64, Vec<u8>)> = Vec::new();
        for (disk, first, bytes) in writes {
            let at = first as usize * BLOCK_BYTES;
            self.now[disk][at..at + bytes.len()].copy_from_slice(&bytes);
            for (index, block) in bytes.chunks(BLOCK_BYTES).enumerate() {
                let mut whole = block.to_vec();
                whole.resize(BLOCK_BYTES, 0);
                pieces.push((disk, first + index as u64, whole));
            }
        }
        pieces.sort_by_key(|(disk, block, _)| (*disk, *block));
        pieces.dedup_by(|later, earlier| {
            let same = (later.0, later.1) == (earlier.0, earlier.1);
            if same {
                earlier.2 = later.2.clone();
            }
            same
        });
        let mut frame = FrameBuilder::new();
        let mut of = 0;
        for (disk, block, bytes) in pieces {
            if frame.is_full() || of != disk && !frame.is_empty() {
                let full = std::mem::take(&mut frame);
                writer.append(self.disks[of], full.finish(1).unwrap()).unwrap();
            }
            of = disk;
            frame.push(block, &bytes);
        }
        if !frame.is_empty() {
            writer.append(self.disks[of], frame.finish(1).unwrap()).unwrap();
        }
        writer.flush().unwrap();
    }

    pub fn seal(&mut self) -> PointId {
        let mut writer = self.store().begin(self.machine, 1).unwrap();
        let point = writer
            .seal(PointSpec {
                instant_unix_nanos: lifeboat::rt::now_unix_nanos(),
                consistency: Consistency::CrashConsistent,
                note: String::new(),
                freeze_micros: 0,
            })
            .unwrap();
        self.points.push((point, self.now.clone()));
        point
    }

    /// Changes this many blocks of each disk, sometimes to zeros, and seals.
    pub fn change(&mut self, blocks: u64, seed: u64) -> PointId {
        let mut writes = Vec::new();
        for disk in 0..self.now.len() {
            let all = self.now[disk].len() as u64 / BLOCK_BYTES as u64;
            for index in 0..blocks {
                let random =
                    blake3::hash(&[seed.to_le_bytes(), index.to_le_bytes(), [disk as u8; 8]].concat());
                let random = u64::from_le_bytes(random.as_bytes()[..8].try_into().unwrap());
                let bytes = if index % 5 == 4 {
                    vec![0; BLOCK_BYTES]
                } else {
                    noise(BLOCK_BYTES, random)
                };
                writes.push((disk, random % all, bytes));
            }
        }
        self.write(writes);
        self.seal()
    }

    pub fn order(&self, point: PointId, is_final: bool) -> ReceiveOrder {
        ReceiveOrder {
            machine: self.machine,
            name: NAME.to_owned(),
            generation: 1,
            disks: (self.disks.iter().zip(&self.now).enumerate())
                .map(|(index, (id, bytes))| ReceiveDisk {
                    id: *id,
                    name: format!("disk{index}"),
                    stable_id: format!("serial:{index}"),
                    size_bytes: bytes.len() as u64,
                })
                .collect(),
            point: Some(ReceivePoint {
                id: point,
                instant_unix_nanos: 1_700_000_000_000_000_000,
            }),
            is_final,
            is_original: false,
        }
    }

    pub fn want(&self, point: PointId, is_final: bool) {
        let order = self.order(point, is_final);
        self.desk.lock().order = Some(order);
    }

    /// Serves in this process.
    pub fn start(&mut self) {
        let service = ReceiveService::new(self.store().clone(), Arc::new(self.desk.clone()));
        self.start_with(service);
    }

    pub fn start_with(&mut self, service: impl Receive) {
        self.stop = CancellationToken::new();
        self.address = serve(
            self.runtime.handle(),
            service,
            &self.pki,
            self.address,
            self.stop.clone(),
        );
        self.identity(&self.state());
    }

    /// A disk at home with this content.
    pub fn image(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// The receiver, not asking, telling in JSON.
    pub fn receive(&self, targets: &[&Path], more: &[&str]) -> Receiving {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command.args([
            "agent",
            "receive",
            "--json",
            "--yes",
            "--machine",
            NAME,
            "--state-dir",
        ]);
        command.arg(self.state()).args(more);
        for (index, target) in targets.iter().enumerate() {
            command
                .arg("--disk")
                .arg(format!("disk{index}={}", target.display()));
        }
        Receiving::start(command)
    }

    pub fn wait_report(&self, what: &str, found: impl Fn(&ReceiveReport) -> bool) -> ReceiveReport {
        wait_for(what, || {
            self.desk
                .lock()
                .reports
                .iter()
                .find(|report| found(report))
                .cloned()
        })
    }

    /// Until the receiver says that all its disks hold this point.
    pub fn wait_holds(&self, point: PointId) -> ReceiveReport {
        self.wait_report("a point to be held", |report| {
            report.holds() == Some(point) && report.phase == ReceivePhase::Following
        })
    }

    pub fn pins(&self) -> Vec<PointId> {
        let owner = lifeboat::process_server::pin_owner(self.receiver);
        let pins = self.store().pins(self.machine).unwrap();
        pins.into_iter()
            .filter(|(_, by)| *by == owner)
            .map(|(point, _)| point)
            .collect()
    }

    /// These disks are bit by bit what the machine had at this point.
    pub fn check(&self, point: PointId, targets: &[&Path]) {
        let (_, disks) = self.points.iter().find(|(id, _)| *id == point).unwrap();
        for (index, (target, wanted)) in targets.iter().zip(disks).enumerate() {
            let mut found = vec![0; wanted.len()];
            std::fs::File::open(target)
                .unwrap()
                .read_exact(&mut found)
                .unwrap();
            if let Some(at) = (0..found.len()).find(|&at| found[at] != wanted[at]) {
                panic!("disk {index} differs, first at byte {at}");
            }
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub struct Receiving {
    child: Child,
    lines: Arc<Mutex<Vec<Value>>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

pub struct Ended {
    pub code: Option<i32>,
    pub lines: Vec<Value>,
    pub stderr: String,
}

impl Receiving {
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (out, kept) = (child.stdout.take().unwrap(), lines.clone());
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                // A killed program may leave half a line.
                if let Ok(value) = serde_json::from_str(&line) {
                    kept.lock().unwrap().push(value);
                }
            }
        });
        Self {
            child,
            lines,
            reader: Some(reader),
        }
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        super::ok("kill", &["-s", name, &pid]);
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub fn lines(&self) -> Vec<Value> {
        self.lines.lock().unwrap().clone()
    }

    pub fn wait_line(&self, kind: &str) -> Value {
        wait_for(kind, || {
            self.lines().into_iter().find(|line| line["message_type"] == kind)
        })
    }

    pub fn end(mut self) -> Ended {
        let end = Instant::now() + PATIENCE;
        let code = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.code();
            }
            assert!(
                Instant::now() < end,
                "the receiver did not end: {:?}",
                self.lines()
            );
            std::thread::sleep(Duration::from_millis(5));
        };
        let mut stderr = String::new();
        let _ = self.child.stderr.take().unwrap().read_to_string(&mut stderr);
        let _ = self.reader.take().unwrap().join();
        Ended {
            code,
            lines: self.lines(),
            stderr,
        }
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// The last line of this kind.
    pub fn line(&self, kind: &str) -> &Value {
        let found = self.lines.iter().rev().find(|line| line["message_type"] == kind);
        found.unwrap_or_else(|| panic!("no {kind} in {:?}; {}", self.lines, self.stderr))
    }

    pub fn count(&self) -> BTreeMap<String, usize> {
        let mut count = BTreeMap::new();
        for line in &self.lines {
            *count
                .entry(line["message_type"].as_str().unwrap_or_default().to_owned())
                .or_default() += 1;
        }
        count
    }
}

/// Which bytes the hostile server sends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Evil {
    NoDisks,
    TooManyDisks,
    HugeDisk,
    TwiceTheSameDisk,
    HalfADigest,
    TooManyDigests,
    MoreDigestsThanAsked,
    Garbage,
    FlippedBit,
    OtherBlock,
    BlockTwice,
    PastTheEnd,
    HugeZeros,
    TooLong,
}

impl Evil {
    pub const ALL: [Self; 14] = [
        Self::NoDisks,
        Self::TooManyDisks,
        Self::HugeDisk,
        Self::TwiceTheSameDisk,
        Self::HalfADigest,
        Self::TooManyDigests,
        Self::MoreDigestsThanAsked,
        Self::Garbage,
        Self::FlippedBit,
        Self::OtherBlock,
        Self::BlockTwice,
        Self::PastTheEnd,
        Self::HugeZeros,
        Self::TooLong,
    ];
}

/// A server that lies about one thing and says the truth otherwise: everything differs, every block is 0xAA.
pub struct EvilServer {
    pub evil: Evil,
    pub order: ReceiveOrder,
}

type Answer<P> = tokio_stream::Iter<std::vec::IntoIter<Result<P, tonic::Status>>>;

fn parts<P>(parts: Vec<P>) -> Result<tonic::Response<Answer<P>>, tonic::Status> {
    let parts: Vec<_> = parts.into_iter().map(Ok).collect();
    Ok(tonic::Response::new(tokio_stream::iter(parts)))
}

#[tonic::async_trait]
impl Receive for EvilServer {
    type DigestsStream = Answer<DigestsPart>;
    type ChangesStream = Answer<ChangesPart>;
    type ReadStream = Answer<ReadPart>;

    async fn order(
        &self,
        _: tonic::Request<ReceiveOrderRequest>,
    ) -> Result<tonic::Response<ReceiveOrderReply>, tonic::Status> {
        let disk = |disk: &ReceiveDisk| lifeboat::wire::proto::ReceiveDisk {
            disk_id: disk.id.as_bytes().to_vec(),
            name: disk.name.clone(),
            stable_id: disk.stable_id.clone(),
            size_bytes: disk.size_bytes,
        };
        let mut disks: Vec<_> = self.order.disks.iter().map(disk).collect();
        match self.evil {
            Evil::NoDisks => disks.clear(),
            Evil::TooManyDisks => disks = vec![disks[0].clone(); 65],
            Evil::HugeDisk => disks[0].size_bytes = u64::MAX,
            Evil::TwiceTheSameDisk => disks.push(disks[0].clone()),
            _ => {}
        }
        Ok(tonic::Response::new(ReceiveOrderReply {
            machine_id: self.order.machine.as_bytes().to_vec(),
            machine_name: self.order.name.clone(),
            generation: 1,
            disks,
            point: self.order.point.unwrap().id.as_bytes().to_vec(),
            point_unix_nanos: 0,
            r#final: false,
            original: false,
        }))
    }

    async fn digests(
        &self,
        request: tonic::Request<DigestsRequest>,
    ) -> Result<tonic::Response<Answer<DigestsPart>>, tonic::Status> {
        let count = request.into_inner().count as usize;
        parts(vec![DigestsPart {
            digests: match self.evil {
                Evil::HalfADigest => vec![1; count * 32 - 16],
                Evil::TooManyDigests => vec![1; 1025 * 32],
                Evil::MoreDigestsThanAsked => vec![1; (count + 1) * 32],
                _ => vec![1; count * 32],
            },
        }])
    }

    async fn changes(
        &self,
        _: tonic::Request<ChangesRequest>,
    ) -> Result<tonic::Response<Answer<ChangesPart>>, tonic::Status> {
        parts(Vec::new())
    }

    async fn read(
        &self,
        request: tonic::Request<ReadRequest>,
    ) -> Result<tonic::Response<Answer<ReadPart>>, tonic::Status> {
        let first = request.into_inner().runs[0].first;
        let frame = |blocks: &[u64]| {
            let mut frame = FrameBuilder::new();
            blocks
                .iter()
                .for_each(|block| frame.push(*block, &[0xAA; BLOCK_BYTES]));
            ReadPart {
                frame: frame.finish(1).unwrap(),
            }
        };
        parts(match self.evil {
            Evil::Garbage => vec![ReadPart {
                frame: vec![7; 5000].into(),
            }],
            Evil::FlippedBit => {
                let mut bytes = frame(&[first]).frame.to_vec();
                bytes[40] ^= 1;
                vec![ReadPart { frame: bytes.into() }]
            }
            Evil::OtherBlock => vec![frame(&[first + 1])],
            Evil::BlockTwice => vec![frame(&[first]), frame(&[first])],
            Evil::PastTheEnd => vec![frame(&[u64::from(u32::MAX)])],
            Evil::HugeZeros => {
                let mut frame = FrameBuilder::new();
                frame.push_zero(lifeboat::block::BlockRange::new(first, 1 << 40));
                vec![ReadPart {
                    frame: frame.finish(1).unwrap(),
                }]
            }
            Evil::TooLong => vec![ReadPart {
                frame: noise(3 << 20, 1).into(),
            }],
            _ => vec![frame(&[first])],
        })
    }

    async fn report(
        &self,
        _: tonic::Request<ReceiveReportRequest>,
    ) -> Result<tonic::Response<ReceiveReportReply>, tonic::Status> {
        Ok(tonic::Response::new(ReceiveReportReply {}))
    }
}
