//! The replication session as the agent sees it: frames out in a bounded window, durable acknowledgements in.
//!
//! The cycle runs on a thread and blocks here; the connection lives in async tasks. What stands between them is one queue
//! outwards and one state that the receiving task changes. A cut link fails the call under way and every later one; nothing is
//! lost, because what was not acknowledged is still marked as changed.
use super::sink::{ShipError, Sink};
use crate::block::{DiskId, PointId};
use crate::replica::{PointSpec, SharedMark};
use crate::wire::proto::agent_message::Kind as Said;
use crate::wire::proto::replication_client::ReplicationClient;
use crate::wire::proto::server_message::Kind as Answer;
use crate::wire::proto::{
    AgentMessage, Compare, FrameMessage, Hello, HelloDisk, Seal, ServerDisk, ServerMessage, Welcome,
};
use crate::wire::{MESSAGE_BYTES_MAX, PROTOCOL_VERSION, Refused};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// Messages between the cycle and the connection; their bytes are bounded by the window.
const QUEUE_MESSAGES: usize = 64;
/// Whatever window a server offers: the agent's memory is its own.
const WINDOW_BYTES_MAX: u64 = 16 << 20;
/// How often a wait looks whether it was cancelled.
const CANCEL_INTERVAL: Duration = Duration::from_millis(100);

/// What to open a session for.
#[derive(Clone, Debug)]
pub struct SessionSpec {
    pub generation: u64,
    /// Id, bytes, mark of the last point; in the order of the cycle's disks.
    pub disks: Vec<(DiskId, u64, u64)>,
}

/// Stored bytes of the frames that were shipped since the agent started, by disk; for the heartbeat.
#[derive(Debug, Default)]
pub struct ShipCounters(Mutex<HashMap<DiskId, u64>>);

impl ShipCounters {
    fn add(&self, disk: DiskId, bytes: u64) {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counted.entry(disk).or_default() += bytes;
    }

    pub fn of(&self, disk: DiskId) -> u64 {
        let counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counted.get(&disk).copied().unwrap_or_default()
    }
}

pub struct Session {
    outgoing: mpsc::Sender<AgentMessage>,
    shared: Arc<Shared>,
    disks: Vec<DiskId>,
    /// In the order of `disks`: what the target holds of each.
    bases: Vec<ServerDisk>,
    window_bytes: u64,
    sequence: u64,
    comparisons: u64,
    cancel: Arc<AtomicBool>,
    counters: Arc<ShipCounters>,
    sync_request: u64,
    group_instant: Option<SharedMark>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Sequence number and bytes of what is not acknowledged.
    in_flight: VecDeque<(u64, u64)>,
    in_flight_bytes: u64,
    sealed: Option<(u64, PointId)>,
    compared: Option<(u64, Vec<u8>)>,
    paused: Option<String>,
    ended: Option<End>,
}

#[derive(Clone)]
enum End {
    Refused(Refused),
    Disconnected(String),
}

impl From<End> for ShipError {
    fn from(end: End) -> Self {
        match end {
            End::Refused(refused) => refused.into(),
            End::Disconnected(why) => Self::Disconnected(why),
        }
    }
}

impl From<Refused> for ShipError {
    fn from(refused: Refused) -> Self {
        Self::Refused {
            code: refused.code,
            message: refused.message,
            causes: refused.possible_causes,
            action: refused.recommended_action,
        }
    }
}

/// A failed call in the agent's words.
pub fn of_status(status: &Status) -> ShipError {
    match Refused::of_status(status) {
        Some(refused) => refused.into(),
        None => ShipError::Disconnected(reason(status)),
    }
}

/// A status with all that caused it, each once.
pub fn reason(status: &Status) -> String {
    crate::rt::chain_from(status.message().to_owned(), std::error::Error::source(status))
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, end: End) {
        // The first reason is the true one.
        self.state().ended.get_or_insert(end);
        self.changed.notify_all();
    }
}

impl Session {
    /// Dials and says hello; the runtime drives the connection.
    pub fn open(
        runtime: &Handle,
        channel: Channel,
        spec: &SessionSpec,
        cancel: Arc<AtomicBool>,
        counters: Arc<ShipCounters>,
    ) -> Result<Self, ShipError> {
        let (outgoing, queue) = mpsc::channel(QUEUE_MESSAGES);
        let hello = Hello {
            protocol_version: PROTOCOL_VERSION,
            generation: spec.generation,
            disks: spec
                .disks
                .iter()
                .map(|(id, size_bytes, last_point)| HelloDisk {
                    disk_id: id.as_bytes().to_vec(),
                    size_bytes: *size_bytes,
                    last_point: *last_point,
                })
                .collect(),
            agent_version: crate::rt::executable::version().to_owned(),
        };
        let said = Some(Said::Hello(hello));
        outgoing
            .blocking_send(AgentMessage { kind: said })
            .map_err(|_| ShipError::Disconnected("the agent is stopping".to_owned()))?;
        let mut client = ReplicationClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let mut incoming = runtime
            .block_on(client.session(ReceiverStream::new(queue)))
            .map_err(|status| of_status(&status))?
            .into_inner();
        let welcome = runtime.block_on(welcome(&mut incoming))?;
        let shared = Arc::new(Shared::default());
        runtime.spawn(receive(incoming, shared.clone()));
        Ok(Self {
            outgoing,
            shared,
            disks: spec.disks.iter().map(|(id, ..)| *id).collect(),
            bases: welcome.disks,
            window_bytes: welcome.window_bytes.min(WINDOW_BYTES_MAX),
            sequence: 0,
            comparisons: 0,
            cancel,
            counters,
            sync_request: 0,
            group_instant: None,
        })
    }

    /// Points that are sealed from now on answer the orders up to this one.
    pub fn answers(&mut self, sync_request: u64) {
        self.sync_request = sync_request;
    }

    fn base(&self, disk: DiskId) -> Option<&ServerDisk> {
        self.bases.get(self.index(disk)?)
    }

    /// Whether the target holds the last point that was sealed of this disk: only then do the changed bits tell all that it
    /// lacks.
    pub fn has_point(&self, disk: DiskId) -> bool {
        self.base(disk).is_some_and(|base| base.has_point)
    }

    /// Why the target takes nothing now, if so.
    pub fn paused(&self) -> Option<String> {
        self.shared.state().paused.clone()
    }

    /// Whether the session has ended; the next call says why.
    pub fn has_ended(&self) -> bool {
        self.shared.state().ended.is_some()
    }

    fn index(&self, disk: DiskId) -> Option<usize> {
        self.disks.iter().position(|known| *known == disk)
    }

    fn disk(&self, disk: DiskId) -> Result<u32, ShipError> {
        self.index(disk)
            .map(|index| index as u32)
            .ok_or_else(|| ShipError::Disconnected(format!("disk {disk} is not part of this session")))
    }

    /// Blocks until `ready` gives something, the session ends, or the work is cancelled.
    fn wait<T>(&self, mut ready: impl FnMut(&mut State) -> Option<T>) -> Result<T, ShipError> {
        let mut state = self.shared.state();
        loop {
            if let Some(found) = ready(&mut state) {
                return Ok(found);
            }
            if let Some(end) = &state.ended {
                return Err(end.clone().into());
            }
            if self.cancel.load(Ordering::SeqCst) {
                return Err(ShipError::Cancelled);
            }
            state = self
                .shared
                .changed
                .wait_timeout(state, CANCEL_INTERVAL)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn send(&self, said: Said) -> Result<(), ShipError> {
        let message = AgentMessage { kind: Some(said) };
        if self.outgoing.blocking_send(message).is_ok() {
            return Ok(());
        }
        // The connection's task is gone; its reason arrives through the receiving one.
        self.wait(|_| None)
    }
}

async fn welcome(incoming: &mut Streaming<ServerMessage>) -> Result<Welcome, ShipError> {
    match incoming.message().await {
        Ok(Some(ServerMessage {
            kind: Some(Answer::Welcome(welcome)),
        })) => Ok(welcome),
        Ok(Some(ServerMessage {
            kind: Some(Answer::Refusal(refusal)),
        })) => Err(Refused::from(refusal).into()),
        Ok(_) => Err(ShipError::Disconnected(
            "the server did not answer the hello".to_owned(),
        )),
        Err(status) => Err(of_status(&status)),
    }
}

async fn receive(mut incoming: Streaming<ServerMessage>, shared: Arc<Shared>) {
    loop {
        let answer = match incoming.message().await {
            Ok(Some(message)) => message.kind,
            Ok(None) => return shared.end(End::Disconnected("the server closed the session".to_owned())),
            Err(status) => {
                return shared.end(match Refused::of_status(&status) {
                    Some(refused) => End::Refused(refused),
                    None => End::Disconnected(reason(&status)),
                });
            }
        };
        let mut state = shared.state();
        match answer {
            Some(Answer::Ack(ack)) => acknowledged(&mut state, ack.sequence),
            Some(Answer::Sealed(sealed)) => {
                acknowledged(&mut state, sealed.sequence);
                if let Ok(point) = PointId::from_slice(&sealed.point_id) {
                    state.sealed = Some((sealed.sequence, point));
                }
            }
            Some(Answer::Compared(compared)) => {
                state.compared = Some((compared.sequence, compared.differing))
            }
            Some(Answer::Pause(pause)) => state.paused = pause.paused.then_some(pause.message),
            Some(Answer::Refusal(refusal)) => {
                drop(state);
                return shared.end(End::Refused(refusal.into()));
            }
            // A newer server may say more; what it says does not change what is durable.
            Some(Answer::Welcome(_)) | None => {}
        }
        drop(state);
        shared.changed.notify_all();
    }
}

fn acknowledged(state: &mut State, sequence: u64) {
    while let Some(&(first, bytes)) = state.in_flight.front()
        && first <= sequence
    {
        state.in_flight.pop_front();
        state.in_flight_bytes -= bytes;
    }
}

impl Sink for Session {
    fn append(&mut self, disk: DiskId, frame: Bytes) -> Result<(), ShipError> {
        let (id, disk) = (disk, self.disk(disk)?);
        let bytes = frame.len() as u64;
        let sequence = self.sequence + 1;
        let window = self.window_bytes;
        self.wait(|state| {
            // One frame always fits, so that a tiny window does not stand still.
            if state.in_flight.is_empty() || state.in_flight_bytes + bytes <= window {
                state.in_flight.push_back((sequence, bytes));
                state.in_flight_bytes += bytes;
                return Some(());
            }
            None
        })?;
        self.sequence = sequence;
        self.send(Said::Frame(FrameMessage {
            sequence,
            disk,
            frame,
        }))?;
        self.counters.add(id, bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), ShipError> {
        self.wait(|state| state.in_flight.is_empty().then_some(()))
    }

    fn seal(&mut self, spec: PointSpec, changed_bytes: u64) -> Result<PointId, ShipError> {
        self.sequence += 1;
        let sequence = self.sequence;
        let shared = self.group_instant.take();
        self.send(Said::Seal(Seal {
            sequence,
            instant_unix_nanos: spec.instant_unix_nanos,
            consistency: spec.consistency.to_string(),
            note: spec.note,
            freeze_micros: spec.freeze_micros,
            changed_bytes,
            sync_request: self.sync_request,
            group_point: shared.map_or_else(Vec::new, |shared| shared.id.as_bytes().to_vec()),
        }))?;
        self.wait(|state| {
            state
                .sealed
                .take_if(|(sealed, _)| *sealed == sequence)
                .map(|(_, point)| point)
        })
    }

    fn share(&mut self, shared: SharedMark) {
        self.group_instant = Some(shared);
    }

    fn compare(
        &mut self,
        disk: DiskId,
        first_granule: u64,
        digests: &[[u8; 32]],
    ) -> Result<Option<Vec<bool>>, ShipError> {
        if !self.base(disk).is_some_and(|base| base.has_base) {
            return Ok(None);
        }
        let disk = self.disk(disk)?;
        self.comparisons += 1;
        let sequence = self.comparisons;
        self.send(Said::Compare(Compare {
            sequence,
            disk,
            first_granule,
            digests: digests.concat(),
        }))?;
        let differing = self.wait(|state| {
            state
                .compared
                .take_if(|(compared, _)| *compared == sequence)
                .map(|(_, bits)| bits)
        })?;
        let differs = |index: usize| {
            differing
                .get(index / 8)
                .is_none_or(|byte| byte & 1 << (index % 8) != 0)
        };
        Ok(Some((0..digests.len()).map(differs).collect()))
    }
}
