//! The way home, as the server sees it: orders, digests, changed ranges, and the blocks of a point.
//!
//! Every call stands alone: it is authenticated, its order is asked for again, its generation compared, and what it reads is a
//! point, which never changes. A server that is killed has nothing to take up. Points that the receiver builds on are pinned when a
//! report names them, before the receiver writes a byte towards them.
use super::handover::{
    Handover, OLD_ORDERS, ReceiveDiskReport, ReceiveOrder, ReceiveReport, ReceiveTrouble, pin_owner,
};
use super::session::{blocking, caller, of_store};
use crate::block::{
    BLOCK_BYTES, BlockRange, DiskId, FRAME_RAW_BYTES_MAX, FrameBuilder, GRANULE_BYTES, MachineId, PointId,
};
use crate::replica::{At, Image, ReplicaError, Store};
use crate::wire::proto::receive_server::Receive;
use crate::wire::proto::{
    BlockRun, ChangesPart, ChangesRequest, DigestsPart, DigestsRequest, ReadPart, ReadRequest,
    ReceiveDisk as DiskMessage, ReceiveOrderReply, ReceiveOrderRequest, ReceiveReportReply,
    ReceiveReportRequest, Received, Trouble,
};
use crate::wire::{
    DIGESTS_MAX, DISKS_MAX, ORDER_WAIT_SECONDS_MAX, POINT_GONE, PROTOCOL_VERSION, RUNS_MAX, Refused,
};
use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Streams under way at once, of all receivers: each may hold an image's cache and a few frames.
const STREAMS_MAX: usize = 16;
/// Parts of a stream that wait to be sent.
const QUEUE_PARTS: usize = 4;
/// How often a waiting order is asked for again.
const ORDER_INTERVAL: Duration = Duration::from_millis(250);
/// Looked at together when zeros are told from data.
const STATUS_BYTES: u64 = 64 << 20;
/// Points that a receiver may name for one disk: the one it holds and the one it is on the way to, and one to spare.
const KEEP_MAX: usize = 4;
const TEXT_CHARS_MAX: usize = 1000;
const LEVEL: i32 = 1;

static ZERO_GRANULE: LazyLock<[u8; 32]> = LazyLock::new(|| *blake3::hash(&[0; GRANULE_BYTES]).as_bytes());

pub struct ReceiveService {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    handover: Arc<dyn Handover>,
    streams: Arc<Semaphore>,
}

impl ReceiveService {
    pub fn new(store: Store, handover: Arc<dyn Handover>) -> Self {
        Self {
            shared: Arc::new(Shared {
                store,
                handover,
                streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            }),
        }
    }

    /// Runs `produce` on a thread of its own, which sends parts until it has no more or nobody takes them.
    async fn stream<R, P: Send + 'static>(
        &self,
        request: Request<R>,
        open: impl FnOnce(&Shared, MachineId, R) -> Result<Producer<P>, Refused> + Send + 'static,
    ) -> Result<Response<ReceiverStream<Result<P, Status>>>, Status>
    where
        R: Send + 'static,
    {
        let (receiver, serial) = caller(&request)?;
        let permit: OwnedSemaphorePermit = self
            .shared
            .streams
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| Status::internal("the server is stopping"))?;
        let (shared, asked) = (self.shared.clone(), request.into_inner());
        let produce = blocking(move || {
            shared.handover.authenticate(receiver, &serial)?;
            open(&shared, receiver, asked)
        })
        .await?
        .map_err(|refused| refused.status())?;
        let (parts, stream) = mpsc::channel(QUEUE_PARTS);
        tokio::task::spawn_blocking(move || {
            let mut send = |part| parts.blocking_send(Ok(part)).is_ok();
            if let Err(refused) = produce(&mut send) {
                let _ = parts.blocking_send(Err(refused.status()));
            }
            drop(permit);
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// Sends its parts through the function that it is given, until that says that nobody listens.
type Producer<P> = Box<dyn FnOnce(&mut dyn FnMut(P) -> bool) -> Result<(), Refused> + Send>;

impl Shared {
    /// The order in force, if the call was made by it.
    fn order(&self, receiver: MachineId, received: Option<&Received>) -> Result<ReceiveOrder, Refused> {
        let received = received.ok_or_else(|| broken("no machine"))?;
        let machine =
            MachineId::from_slice(&received.machine_id).map_err(|_| broken("a machine id that is none"))?;
        let order = self.handover.order(receiver, Some(&machine.to_string()))?;
        if order.generation != received.generation || order.machine != machine {
            return Err(Refused::new(
                OLD_ORDERS,
                format!(
                    "the receiver works in generation {}, the server is at {}",
                    received.generation, order.generation
                ),
                "the machine was failed over again, or the way home was cancelled or begun anew, since the receiver took its order",
                "see the state of the machine: lifeboat machine show; then run the receiver again",
            ));
        }
        Ok(order)
    }

    /// The disk of the call, and its size.
    fn disk(
        &self,
        receiver: MachineId,
        received: Option<&Received>,
        disk: &[u8],
    ) -> Result<(MachineId, DiskId, u64), Refused> {
        let order = self.order(receiver, received)?;
        let disk = DiskId::from_slice(disk).map_err(|_| broken("a disk id that is none"))?;
        let known = order.disks.iter().find(|known| known.id == disk);
        let known = known.ok_or_else(|| broken("a disk that is not in the order"))?;
        Ok((order.machine, disk, known.size_bytes))
    }

    fn image(&self, machine: MachineId, disk: DiskId, point: &[u8]) -> Result<Image, Refused> {
        let point = point_id(point)?;
        self.store
            .image(machine, disk, At::Point(point))
            .map_err(|error| of_point(&error))
    }

    fn report(&self, receiver: MachineId, request: ReceiveReportRequest) -> Result<(), Refused> {
        let order = self.order(receiver, request.received.as_ref())?;
        if request.disks.len() > DISKS_MAX {
            return Err(broken("too many disks"));
        }
        let (mut needed, mut held) = (BTreeSet::new(), BTreeSet::new());
        let mut disks = Vec::new();
        for disk in &request.disks {
            let id = DiskId::from_slice(&disk.disk_id).map_err(|_| broken("a disk id that is none"))?;
            if disk.keep.len() > KEEP_MAX || !order.disks.iter().any(|known| known.id == id) {
                return Err(broken("a disk that is not in the order, or too many points"));
            }
            for point in &disk.keep {
                needed.insert(point_id(point)?);
            }
            let holds = optional_point(&disk.holds)?;
            held.extend(holds);
            disks.push(ReceiveDiskReport {
                disk: id,
                device: short(&disk.device),
                size_bytes: disk.size_bytes,
                holds,
                done_bytes: disk.done_bytes,
                total_bytes: disk.total_bytes,
                copied_bytes: disk.copied_bytes,
            });
        }
        let report = ReceiveReport {
            machine: order.machine,
            generation: order.generation,
            phase: request
                .phase
                .parse()
                .map_err(|_| broken("a phase that is not known"))?,
            disks,
            verified: optional_point(&request.verified_point)?,
            trouble: request.trouble.map(trouble),
            bytes_per_second: request.bytes_per_second,
        };
        self.keep(order.machine, receiver, &needed, &held)?;
        self.handover.report(receiver, report)
    }

    /// The receiver's pins become these. A point that is needed and is not there is refused, one that was merely held is forgotten.
    fn keep(
        &self,
        machine: MachineId,
        receiver: MachineId,
        needed: &BTreeSet<PointId>,
        held: &BTreeSet<PointId>,
    ) -> Result<(), Refused> {
        let owner = pin_owner(receiver);
        for point in needed.union(held) {
            match self.store.pin(machine, *point, &owner) {
                Err(ReplicaError::NoPoint(_)) if !needed.contains(point) => {}
                pinned => pinned.map_err(|error| of_point(&error))?,
            }
        }
        let pins = self.store.pins(machine).map_err(|error| of_store(&error))?;
        for (point, by) in pins {
            if by == owner && !needed.contains(&point) && !held.contains(&point) {
                self.store
                    .unpin(machine, point, &owner)
                    .map_err(|error| of_store(&error))?;
            }
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl Receive for ReceiveService {
    type DigestsStream = ReceiverStream<Result<DigestsPart, Status>>;
    type ChangesStream = ReceiverStream<Result<ChangesPart, Status>>;
    type ReadStream = ReceiverStream<Result<ReadPart, Status>>;

    async fn order(
        &self,
        request: Request<ReceiveOrderRequest>,
    ) -> Result<Response<ReceiveOrderReply>, Status> {
        let (receiver, serial) = caller(&request)?;
        let asked = request.into_inner();
        if asked.protocol_version != PROTOCOL_VERSION {
            return Err(Refused::new(
                "ProtocolVersion",
                format!(
                    "the receiver speaks protocol {} and the server {PROTOCOL_VERSION}",
                    asked.protocol_version
                ),
                "receiver and server are of different releases",
                "update the older of the two",
            )
            .status());
        }
        let known = optional_point(&asked.known_point).map_err(|refused| refused.status())?;
        let wait = Duration::from_secs(u64::from(asked.wait_seconds.min(ORDER_WAIT_SECONDS_MAX)));
        let end = tokio::time::Instant::now() + wait;
        let wanted = short(&asked.machine);
        loop {
            let (shared, serial, wanted) = (self.shared.clone(), serial.clone(), wanted.clone());
            let order = blocking(move || {
                shared.handover.authenticate(receiver, &serial)?;
                let wanted = (!wanted.is_empty()).then_some(wanted.as_str());
                shared.handover.order(receiver, wanted)
            })
            .await?
            .map_err(|refused| refused.status())?;
            let is_news = match order.point {
                Some(point) => Some(point.id) != known || order.is_final != asked.known_final,
                None => known.is_some(),
            };
            if is_news || tokio::time::Instant::now() >= end {
                return Ok(Response::new(reply(&order)));
            }
            tokio::time::sleep(ORDER_INTERVAL).await;
        }
    }

    async fn digests(
        &self,
        request: Request<DigestsRequest>,
    ) -> Result<Response<Self::DigestsStream>, Status> {
        self.stream(request, |shared, receiver, asked: DigestsRequest| {
            let (machine, disk, size_bytes) =
                shared.disk(receiver, asked.received.as_ref(), &asked.disk_id)?;
            let image = shared.image(machine, disk, &asked.point)?;
            let granules = size_bytes.div_ceil(GRANULE_BYTES as u64);
            let end = asked.first_granule.checked_add(asked.count);
            let end = end
                .filter(|end| *end <= granules && image.size_bytes() == size_bytes)
                .ok_or_else(|| broken("granules past the end of the disk"))?;
            Ok(Box::new(move |send| {
                digests(&image, asked.first_granule, end, send)
            }))
        })
        .await
    }

    async fn changes(
        &self,
        request: Request<ChangesRequest>,
    ) -> Result<Response<Self::ChangesStream>, Status> {
        self.stream(request, |shared, receiver, asked: ChangesRequest| {
            let (machine, disk, _) = shared.disk(receiver, asked.received.as_ref(), &asked.disk_id)?;
            let (from, to) = (point_id(&asked.from_point)?, point_id(&asked.to_point)?);
            let changed = shared
                .store
                .changed_since(machine, disk, from, At::Point(to))
                .map_err(|error| of_point(&error))?;
            Ok(Box::new(move |send| {
                let mut runs = Vec::new();
                for range in changed.iter() {
                    runs.push(BlockRun {
                        first: range.first,
                        count: range.count,
                    });
                    if runs.len() == RUNS_MAX {
                        let runs = std::mem::take(&mut runs);
                        if !send(ChangesPart { runs }) {
                            return Ok(());
                        }
                    }
                }
                if !runs.is_empty() {
                    send(ChangesPart { runs });
                }
                Ok(())
            }))
        })
        .await
    }

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        self.stream(request, |shared, receiver, asked: ReadRequest| {
            let (machine, disk, size_bytes) =
                shared.disk(receiver, asked.received.as_ref(), &asked.disk_id)?;
            let image = shared.image(machine, disk, &asked.point)?;
            let runs = runs_of(&asked.runs, size_bytes.min(image.size_bytes()))?;
            Ok(Box::new(move |send| read(&image, &runs, send)))
        })
        .await
    }

    async fn report(
        &self,
        request: Request<ReceiveReportRequest>,
    ) -> Result<Response<ReceiveReportReply>, Status> {
        let (receiver, serial) = caller(&request)?;
        let (shared, report) = (self.shared.clone(), request.into_inner());
        blocking(move || {
            shared.handover.authenticate(receiver, &serial)?;
            shared.report(receiver, report)
        })
        .await?
        .map_err(|refused| refused.status())?;
        Ok(Response::new(ReceiveReportReply {}))
    }
}

fn reply(order: &ReceiveOrder) -> ReceiveOrderReply {
    let disk = |disk: &super::handover::ReceiveDisk| DiskMessage {
        disk_id: disk.id.as_bytes().to_vec(),
        name: disk.name.clone(),
        stable_id: disk.stable_id.clone(),
        size_bytes: disk.size_bytes,
    };
    ReceiveOrderReply {
        machine_id: order.machine.as_bytes().to_vec(),
        machine_name: order.name.clone(),
        generation: order.generation,
        disks: order.disks.iter().map(disk).collect(),
        point: order
            .point
            .map(|point| point.id.as_bytes().to_vec())
            .unwrap_or_default(),
        point_unix_nanos: order.point.map_or(0, |point| point.instant_unix_nanos),
        r#final: order.is_final,
        original: order.is_original,
    }
}

/// Runs as a peer gave them: sorted, disjoint, within the disk.
fn runs_of(runs: &[BlockRun], size_bytes: u64) -> Result<Vec<BlockRange>, Refused> {
    let blocks = size_bytes.div_ceil(BLOCK_BYTES as u64);
    if runs.len() > RUNS_MAX {
        return Err(broken("too many runs of blocks"));
    }
    let mut last_end = 0;
    let mut ranges = Vec::with_capacity(runs.len());
    for run in runs {
        let end = run.first.checked_add(run.count);
        let fits = run.count > 0 && run.first >= last_end && end.is_some_and(|end| end <= blocks);
        if !fits {
            return Err(broken(
                "runs of blocks that are unsorted, empty or past the end of the disk",
            ));
        }
        last_end = run.first + run.count;
        ranges.push(BlockRange::new(run.first, run.count));
    }
    Ok(ranges)
}

fn digests(
    image: &Image,
    first: u64,
    end: u64,
    send: &mut dyn FnMut(DigestsPart) -> bool,
) -> Result<(), Refused> {
    const GRANULE: u64 = GRANULE_BYTES as u64;
    let mut buffer = vec![0; GRANULE_BYTES];
    let mut next = first;
    while next < end {
        let count = (end - next).min(DIGESTS_MAX as u64);
        let from = next * GRANULE;
        let len = (count * GRANULE).min(image.size_bytes() - from);
        let mut digests = Vec::with_capacity(count as usize * 32);
        let known = image.status(from, len).map_err(|error| of_store(&error))?;
        let (mut runs, mut run_end, mut is_zero) = (known.into_iter(), from, false);
        for granule in next..next + count {
            let (begin, stop) = (
                granule * GRANULE,
                ((granule + 1) * GRANULE).min(image.size_bytes()),
            );
            // The run that holds the beginning of the granule.
            while run_end <= begin {
                let Some((run, zero)) = runs.next() else { break };
                (run_end, is_zero) = (run_end + run, zero);
            }
            if is_zero && run_end >= stop && stop - begin == GRANULE {
                digests.extend_from_slice(&*ZERO_GRANULE);
                continue;
            }
            let bytes = &mut buffer[..(stop - begin) as usize];
            image.read_at(begin, bytes).map_err(|error| of_store(&error))?;
            digests.extend_from_slice(blake3::hash(bytes).as_bytes());
        }
        if !send(DigestsPart { digests }) {
            return Ok(());
        }
        next += count;
    }
    Ok(())
}

/// The blocks of the ranges as frames, in order, each block once.
fn read(image: &Image, ranges: &[BlockRange], send: &mut dyn FnMut(ReadPart) -> bool) -> Result<(), Refused> {
    const BLOCK: u64 = BLOCK_BYTES as u64;
    let mut compressor = zstd::bulk::Compressor::new(LEVEL).map_err(|error| of_memory(&error))?;
    let mut frame = FrameBuilder::new();
    let mut buffer = vec![0; FRAME_RAW_BYTES_MAX];
    // True: somebody takes it.
    let mut finish = |frame: &mut FrameBuilder, send: &mut dyn FnMut(ReadPart) -> bool| {
        let full = std::mem::take(frame);
        if full.is_empty() {
            return Ok(true);
        }
        let frame = full
            .finish_with(&mut compressor)
            .map_err(|error| of_memory(&error))?;
        Ok::<_, Refused>(send(ReadPart { frame }))
    };
    for range in ranges {
        let mut at = range.first * BLOCK;
        let end = (range.end() * BLOCK).min(image.size_bytes());
        while at < end {
            let known = image.status(at, (end - at).min(STATUS_BYTES));
            for (mut len, zero) in known.map_err(|error| of_store(&error))? {
                while len > 0 {
                    if frame.is_full() && !finish(&mut frame, send)? {
                        return Ok(());
                    }
                    let first = at / BLOCK;
                    let part = if zero {
                        frame.push_zero(BlockRange::new(first, len.div_ceil(BLOCK)));
                        len
                    } else {
                        let part = len.min(frame.room_blocks() as u64 * BLOCK);
                        // The disk may end within its last block.
                        let whole = part.next_multiple_of(BLOCK) as usize;
                        image
                            .read_at(at, &mut buffer[..part as usize])
                            .map_err(|error| of_store(&error))?;
                        buffer[part as usize..whole].fill(0);
                        frame.push(first, &buffer[..whole]);
                        part
                    };
                    at += part;
                    len -= part;
                }
            }
        }
    }
    finish(&mut frame, send)?;
    Ok(())
}

fn point_id(bytes: &[u8]) -> Result<PointId, Refused> {
    PointId::from_slice(bytes).map_err(|_| broken("a point id that is none"))
}

fn optional_point(bytes: &[u8]) -> Result<Option<PointId>, Refused> {
    (!bytes.is_empty()).then(|| point_id(bytes)).transpose()
}

fn short(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(TEXT_CHARS_MAX)
        .collect()
}

fn trouble(trouble: Trouble) -> ReceiveTrouble {
    ReceiveTrouble {
        code: short(&trouble.code),
        severity: short(&trouble.severity),
        message: short(&trouble.message),
        possible_causes: short(&trouble.causes),
        recommended_action: short(&trouble.action),
    }
}

fn of_point(error: &ReplicaError) -> Refused {
    match error {
        // A disk that the point does not hold is, for this disk, no point.
        ReplicaError::NoPoint(_) | ReplicaError::NoDisk(_) => Refused::new(
            POINT_GONE,
            error.to_string(),
            "retention removed the point, it was removed by a commit, or the store was restored from an older copy",
            "nothing: the receiver compares its disks with a newer point",
        ),
        error => of_store(error),
    }
}

fn of_memory(error: &std::io::Error) -> Refused {
    Refused::new(
        "StoreFailed",
        format!("a frame cannot be made: {error}"),
        "the server is short of memory",
        "make memory free on the server; the receiver goes on by itself",
    )
}

fn broken(what: &str) -> Refused {
    Refused::new(
        "Protocol",
        format!("the receiver sent {what}"),
        "receiver and server do not fit together, or the connection is tampered with",
        "update the older of the two",
    )
}
