//! One replication session: receives, admits by permits, appends, acknowledges.
//!
//! ```text
//! stream --(permit)--> bounded queue --> worker thread: append | compare | seal, fsync, acknowledge
//! ```
//! The stream is read by an async task, the store is written by a thread of its own. A permit for a message's bytes is
//! taken before the next message is read and travels with it until it is durable; where there is none, the stream is not read
//! and the window of the connection holds the agent back. A full store does not end a session: the worker says so, waits for
//! room, and goes on with the same frame.
use super::sessions::{Place, Sessions};
use super::{Admission, Admitted};
use crate::block::{DiskId, GRANULE_BYTES, GroupPointId, MachineId};
use crate::replica::{DiskSpec, Image, MachineWriter, PointSpec, ReplicaError, SharedMark, Store};
use crate::rt::{Fact, Report, now_unix_nanos};
use crate::wire::proto::agent_message::Kind as Said;
use crate::wire::proto::replication_server::Replication;
use crate::wire::proto::server_message::Kind as Answer;
use crate::wire::proto::{
    Ack, AgentMessage, Compare, Compared, Hello, Pause, Seal, Sealed, ServerDisk, ServerMessage, Welcome,
};
use crate::wire::{DIGESTS_MAX, DISKS_MAX, PROTOCOL_VERSION, Refused};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

/// What an agent may have sent and not seen acknowledged: enough to keep a disk busy over a link of 10 ms at 1 GB/s.
const WINDOW_BYTES: u64 = 8 << 20;
/// Made durable together at most; less when the queue runs empty.
const FLUSH_BYTES: usize = 2 << 20;
/// All sessions together hold at most this much that is not in the store yet.
const HELD_BYTES_MAX: usize = 256 << 20;
const PERMIT_BYTES: usize = 1024;
const QUEUE_MESSAGES: usize = 64;
const HELLO_LIMIT: Duration = Duration::from_secs(15);
/// How often a full store is asked again. The kernel tells nobody when room appears.
const ROOM_INTERVAL: Duration = Duration::from_millis(250);

pub struct ReplicationService {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    admission: Arc<dyn Admission>,
    report: Arc<dyn Report>,
    sessions: Sessions,
    held: Arc<Semaphore>,
    /// Sessions end by themselves; a server that stops waits for them.
    tasks: TaskTracker,
}

impl ReplicationService {
    pub fn new(
        store: Store,
        admission: Arc<dyn Admission>,
        report: Arc<dyn Report>,
        sessions: Sessions,
        tasks: TaskTracker,
    ) -> Self {
        let shared = Shared {
            store,
            admission,
            report,
            sessions,
            held: Arc::new(Semaphore::new(HELD_BYTES_MAX / PERMIT_BYTES)),
            tasks,
        };
        Self {
            shared: Arc::new(shared),
        }
    }
}

type Outgoing = mpsc::Sender<Result<ServerMessage, Status>>;

#[tonic::async_trait]
impl Replication for ReplicationService {
    type SessionStream = ReceiverStream<Result<ServerMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (machine, serial) = caller(&request)?;
        let admission = self.shared.admission.clone();
        blocking(move || admission.authenticate(machine, &serial))
            .await?
            .map_err(|refused| refused.status())?;
        let (answers, stream) = mpsc::channel(QUEUE_MESSAGES);
        self.shared
            .tasks
            .spawn(run(self.shared.clone(), machine, request.into_inner(), answers));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// Machine and certificate serial number of a caller with a client certificate.
pub fn caller<T>(request: &Request<T>) -> Result<(MachineId, String), Status> {
    let no = |why: &str| {
        Refused::new(
            "NoCertificate",
            why,
            "the agent has not joined, or its certificate was made by another configuration server",
            "join it: lifeboat agent join",
        )
        .status()
    };
    let certificates = request
        .peer_certs()
        .ok_or_else(|| no("this call needs a client certificate"))?;
    let first = certificates
        .first()
        .ok_or_else(|| no("this call needs a client certificate"))?;
    let (_, certificate) = x509_parser::parse_x509_certificate(first)
        .map_err(|_| no("the client certificate cannot be read"))?;
    let name = certificate.subject().iter_common_name().next();
    let machine = name
        .and_then(|name| name.as_str().ok())
        .and_then(|name| name.parse().ok())
        .ok_or_else(|| no("the client certificate names no machine"))?;
    Ok((machine, hex::encode(certificate.raw_serial())))
}

/// Runs what blocks away from the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Status::internal("the server is stopping"))
}

async fn run(
    shared: Arc<Shared>,
    machine: MachineId,
    mut incoming: Streaming<AgentMessage>,
    answers: Outgoing,
) {
    let hello = match tokio::time::timeout(HELLO_LIMIT, incoming.message()).await {
        Ok(Ok(Some(AgentMessage {
            kind: Some(Said::Hello(hello)),
        }))) => hello,
        _ => {
            let refused = Refused::new(
                "Protocol",
                "a session begins with a hello",
                "another program dials the data port",
                "see which one",
            );
            return refuse(&answers, refused).await;
        }
    };
    let place = shared.sessions.take(machine);
    let ended = place.ended.clone();
    let opened = {
        let (shared, answers) = (shared.clone(), answers.clone());
        blocking(move || Worker::open(shared, machine, place, &hello, answers)).await
    };
    let mut worker = match opened {
        Ok(Ok(worker)) => worker,
        Ok(Err(refused)) => return refuse(&answers, refused).await,
        Err(_) => return,
    };
    let (queue, mut messages) = mpsc::channel::<(AgentMessage, OwnedSemaphorePermit)>(QUEUE_MESSAGES);
    let (generation, disks) = (worker.generation, worker.disks.clone());
    shared.report.report(Fact::SessionOpened { machine, generation });
    let writing = tokio::task::spawn_blocking(move || worker.work(&mut messages));
    let mut reason = "the agent closed it".to_owned();
    loop {
        let message = tokio::select! {
            // Both are safe to drop at an await: a message is either received whole or not at all.
            () = ended.cancelled() => { reason = "ended by the server".to_owned(); break }
            message = incoming.message() => message,
        };
        match message {
            Ok(Some(message)) => {
                let permits = size_of(&message).div_ceil(PERMIT_BYTES) as u32;
                let Ok(permit) = shared.held.clone().acquire_many_owned(permits).await else {
                    break;
                };
                if let Some(Said::Frame(frame)) = &message.kind
                    && let Some(disk) = disks.get(frame.disk as usize)
                {
                    shared.sessions.received(machine, *disk, frame.frame.len() as u64);
                }
                if queue.send((message, permit)).await.is_err() {
                    break; // the worker ended and has said why
                }
            }
            Ok(None) => break,
            Err(status) => {
                reason = format!("the connection ended: {}", status.message());
                break;
            }
        }
    }
    drop(queue);
    if let Ok(Err(refused)) = writing.await {
        reason = refused.message.clone();
        refuse(&answers, refused).await;
    }
    shared.report.report(Fact::SessionClosed { machine, reason });
}

async fn refuse(answers: &Outgoing, refused: Refused) {
    let kind = Some(Answer::Refusal(refused.into()));
    // An agent that is gone needs no reason.
    let _ = answers.send(Ok(ServerMessage { kind })).await;
}

fn size_of(message: &AgentMessage) -> usize {
    use prost::Message;
    message.encoded_len().max(1)
}

/// Owns the writer of the machine. Runs on a thread of its own.
struct Worker {
    shared: Arc<Shared>,
    machine: MachineId,
    generation: u64,
    place: Place,
    writer: MachineWriter,
    disks: Vec<DiskId>,
    answers: Outgoing,
    /// Highest sequence number that was appended, and bytes since the last flush.
    appended: u64,
    unflushed: usize,
    unflushed_by_disk: HashMap<DiskId, u64>,
    /// Base of the comparison under way: disk, next granule, image. A comparison that goes on where the last one ended reads
    /// the same image; only blocks behind it were shipped since.
    comparing: Option<(u32, u64, Image)>,
}

impl Worker {
    fn open(
        shared: Arc<Shared>,
        machine: MachineId,
        place: Place,
        hello: &Hello,
        answers: Outgoing,
    ) -> Result<Self, Refused> {
        if hello.protocol_version != PROTOCOL_VERSION {
            return Err(Refused::new(
                "ProtocolVersion",
                format!(
                    "the agent speaks protocol {} and the server {PROTOCOL_VERSION}",
                    hello.protocol_version
                ),
                "agent and server are of different releases",
                "update the older of the two",
            ));
        }
        let admitted = shared.admission.admit(machine, hello.generation)?;
        let disks = chosen(hello, &admitted)?;
        let last_points: Vec<u64> = hello.disks.iter().map(|disk| disk.last_point).collect();
        let store = shared.store.clone();
        let writer = register(&store, machine, &admitted).map_err(|error| of_store(&error))?;
        let points = store.points(machine).map_err(|error| of_store(&error))?;
        let mut has_base = Vec::new();
        for (disk, last_point) in disks.iter().zip(&last_points) {
            has_base.push(ServerDisk {
                has_base: writer.has_data(*disk).map_err(|error| of_store(&error))?,
                has_point: points
                    .iter()
                    .any(|point| point.id.mark() == *last_point && point.disks.contains(disk)),
            });
        }
        let worker = Self {
            shared,
            machine,
            generation: admitted.generation,
            place,
            writer,
            disks,
            answers,
            appended: 0,
            unflushed: 0,
            unflushed_by_disk: HashMap::new(),
            comparing: None,
        };
        worker.answer(Answer::Welcome(Welcome {
            window_bytes: WINDOW_BYTES,
            clock_unix_nanos: now_unix_nanos(),
            disks: has_base,
        }));
        Ok(worker)
    }

    fn answer(&self, kind: Answer) {
        // Nobody to answer: the stream's end is seen by the reader.
        let _ = self.answers.blocking_send(Ok(ServerMessage { kind: Some(kind) }));
    }

    fn work(
        &mut self,
        messages: &mut mpsc::Receiver<(AgentMessage, OwnedSemaphorePermit)>,
    ) -> Result<(), Refused> {
        while let Some((message, _permit)) = messages.blocking_recv() {
            match message.kind {
                Some(Said::Frame(frame)) => {
                    let disk = self.disk(frame.disk)?;
                    self.in_sequence(frame.sequence)?;
                    let bytes = frame.frame;
                    self.unflushed += bytes.len();
                    *self.unflushed_by_disk.entry(disk).or_default() += bytes.len() as u64;
                    self.until_room(|worker| worker.writer.append(disk, bytes.clone()))?;
                }
                Some(Said::Seal(seal)) => {
                    self.in_sequence(seal.sequence)?;
                    self.seal(seal)?;
                }
                Some(Said::Compare(compare)) => self.compare(&compare)?,
                Some(Said::Hello(_)) | None => return Err(broken("a message that is not due")),
            }
            if self.unflushed > 0 && (self.unflushed >= FLUSH_BYTES || messages.is_empty()) {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn disk(&self, index: u32) -> Result<DiskId, Refused> {
        self.disks
            .get(index as usize)
            .copied()
            .ok_or_else(|| broken("a disk that the hello did not name"))
    }

    fn in_sequence(&mut self, sequence: u64) -> Result<(), Refused> {
        if sequence != self.appended + 1 {
            return Err(broken("a sequence number that does not follow the last one"));
        }
        self.appended = sequence;
        Ok(())
    }

    /// What was appended is durable.
    fn stored(&mut self) {
        self.unflushed = 0;
        self.shared
            .sessions
            .stored(self.machine, self.unflushed_by_disk.drain());
    }

    fn flush(&mut self) -> Result<(), Refused> {
        self.until_room(|worker| worker.writer.flush())?;
        self.stored();
        self.answer(Answer::Ack(Ack {
            sequence: self.appended,
        }));
        Ok(())
    }

    fn seal(&mut self, seal: Seal) -> Result<(), Refused> {
        let consistency = seal
            .consistency
            .parse()
            .map_err(|_| broken("an unknown consistency"))?;
        let mut note = seal.note;
        // A person reads it; a peer must not fill the manifest with it.
        note.truncate(
            (0..=1000)
                .rev()
                .find(|&at| note.is_char_boundary(at))
                .unwrap_or(0),
        );
        let spec = PointSpec {
            instant_unix_nanos: seal.instant_unix_nanos,
            consistency,
            note: note.clone(),
            freeze_micros: seal.freeze_micros,
        };
        let shared = match seal.group_point.len() {
            0 => None,
            _ => {
                let id = GroupPointId::from_slice(&seal.group_point)
                    .map_err(|_| broken("a group's point that is none"))?;
                // The agent's word is not enough: another machine's choice of a point depends on it.
                let members = self.shared.admission.shared_by(self.machine, id);
                members.map(|members| SharedMark { id, members })
            }
        };
        let stored_bytes = self.writer.appended_bytes();
        let point = self.until_room(|worker| worker.writer.seal_shared(spec.clone(), shared))?;
        self.stored();
        self.shared.sessions.sealed(self.machine);
        self.shared.report.report(Fact::PointSealed {
            machine: self.machine,
            point,
            instant_unix_nanos: seal.instant_unix_nanos,
            consistency,
            note,
            freeze_micros: seal.freeze_micros,
            changed_bytes: seal.changed_bytes,
            stored_bytes,
            sync_request: seal.sync_request,
        });
        self.answer(Answer::Sealed(Sealed {
            sequence: seal.sequence,
            point_id: point.as_bytes().to_vec(),
        }));
        Ok(())
    }

    fn compare(&mut self, compare: &Compare) -> Result<(), Refused> {
        let disk = self.disk(compare.disk)?;
        let (digests, rest) = compare.digests.as_chunks::<32>();
        if !rest.is_empty() || digests.is_empty() || digests.len() > DIGESTS_MAX {
            return Err(broken("a comparison of no or too many granules"));
        }
        let image = match self.comparing.take() {
            Some((index, next, image)) if (index, next) == (compare.disk, compare.first_granule) => image,
            _ => self.writer.latest(disk).map_err(|error| of_store(&error))?,
        };
        let end = compare.first_granule.saturating_add(digests.len() as u64);
        if end > image.size_bytes().div_ceil(GRANULE_BYTES as u64) {
            return Err(broken("a comparison past the end of the disk"));
        }
        let mut differing = vec![0u8; digests.len().div_ceil(8)];
        for (index, digest) in digests.iter().enumerate() {
            let there = image
                .granule_digest(compare.first_granule + index as u64)
                .map_err(|error| of_store(&error))?;
            if there != *digest {
                differing[index / 8] |= 1 << (index % 8);
            }
        }
        self.comparing = Some((compare.disk, end, image));
        self.answer(Answer::Compared(Compared {
            sequence: compare.sequence,
            differing,
        }));
        Ok(())
    }

    /// Repeats a step while the store is full: the agent is told, and nothing of what it sent is lost.
    fn until_room<T>(
        &mut self,
        mut step: impl FnMut(&mut Self) -> Result<T, ReplicaError>,
    ) -> Result<T, Refused> {
        let mut waiting = false;
        loop {
            match step(self) {
                Ok(done) => {
                    if waiting {
                        self.shared.report.report(Fact::StoreHasRoom {
                            machine: self.machine,
                        });
                        self.answer(Answer::Pause(Pause {
                            paused: false,
                            message: String::new(),
                        }));
                    }
                    return Ok(done);
                }
                Err(error @ ReplicaError::Full { .. }) => {
                    if !waiting {
                        waiting = true;
                        let message = error.to_string();
                        self.answer(Answer::Pause(Pause {
                            paused: true,
                            message: message.clone(),
                        }));
                        self.shared.report.report(Fact::StoreFull {
                            machine: self.machine,
                            message,
                        });
                    }
                    if self.place.ended.is_cancelled() || self.answers.is_closed() {
                        return Err(of_store(&error));
                    }
                    std::thread::sleep(ROOM_INTERVAL);
                }
                Err(error) => {
                    if let ReplicaError::Corrupt { .. } = error {
                        self.shared.report.report(Fact::Damaged {
                            machine: self.machine,
                            message: error.to_string(),
                        });
                    }
                    return Err(of_store(&error));
                }
            }
        }
    }
}

/// The disks of the hello, in its order, each of them admitted.
fn chosen(hello: &Hello, admitted: &Admitted) -> Result<Vec<DiskId>, Refused> {
    if hello.disks.is_empty() || hello.disks.len() > DISKS_MAX {
        return Err(broken("no disk, or too many of them"));
    }
    let mut disks = Vec::new();
    for disk in &hello.disks {
        let id = DiskId::from_slice(&disk.disk_id).map_err(|_| broken("a disk id that is none"))?;
        let known = admitted.disks.iter().find(|known| known.id == id);
        let Some(known) = known.filter(|_| !disks.contains(&id)) else {
            return Err(Refused::new(
                "ForeignDisk",
                format!("disk {id} is not protected for this machine"),
                "the agent works by older orders than the server's",
                "nothing: the agent gets new orders with its next heartbeat",
            ));
        };
        if known.size_bytes != disk.size_bytes {
            return Err(Refused::new(
                "SizeChanged",
                format!(
                    "disk {} has {} bytes now and is protected with {}",
                    known.name, disk.size_bytes, known.size_bytes
                ),
                "the disk was resized or replaced",
                "disable replication of the machine and enable it again",
            ));
        }
        disks.push(id);
    }
    Ok(disks)
}

fn register(store: &Store, machine: MachineId, admitted: &Admitted) -> Result<MachineWriter, ReplicaError> {
    store.register_machine(machine, &admitted.name)?;
    for disk in &admitted.disks {
        let spec = DiskSpec {
            id: disk.id,
            name: disk.name.clone(),
            size_bytes: disk.size_bytes,
        };
        store.register_disk(machine, spec)?;
    }
    let mut writer = store.begin(machine, admitted.generation)?;
    writer.only(admitted.disks.iter().map(|disk| disk.id));
    Ok(writer)
}

fn broken(what: &str) -> Refused {
    Refused::new(
        "Protocol",
        format!("the agent sent {what}"),
        "agent and server do not fit together, or the connection is tampered with",
        "update the older of the two",
    )
}

pub(super) fn of_store(error: &ReplicaError) -> Refused {
    let (code, causes, action) = match error {
        ReplicaError::Full { .. } => (
            "StoreFull",
            "the file system of the store is full",
            "make room; replication goes on by itself",
        ),
        ReplicaError::Fenced { .. } => (
            "Fenced",
            "a newer session or a failover took over",
            "none, where another session of this agent is open; after a failover the source stays fenced",
        ),
        ReplicaError::Corrupt { .. } => (
            "StoreDamaged",
            "bytes of the store were changed or lost beneath Lifeboat",
            "see which recovery points are hit: lifeboat store verify",
        ),
        _ => (
            "StoreFailed",
            "the medium of the store or its permissions",
            "look at the server's log and at the kernel's log",
        ),
    };
    Refused::new(code, error.to_string(), causes, action)
}
