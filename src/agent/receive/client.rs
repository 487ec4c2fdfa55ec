//! The calls of a receiver, from a thread that may wait. What the server answers is taken with limits: lengths, orders and places
//! are checked before anything is written to a disk.
use super::ReceiveError;
use crate::agent::identity::Identity;
use crate::agent::ship::reason;
use crate::block::{BLOCK_BYTES, BlockRange, DiskId, Frame, GRANULE_BYTES, MachineId, PointId};
use crate::wire::proto::receive_client::ReceiveClient;
use crate::wire::proto::{
    BlockRun, ChangesPart, ChangesRequest, DigestsPart, DigestsRequest, ReadPart, ReadRequest,
    ReceiveOrderReply, ReceiveOrderRequest, ReceiveReportRequest, Received,
};
use crate::wire::{
    DIGESTS_MAX, DISKS_MAX, MESSAGE_BYTES_MAX, ORDER_WAIT_SECONDS_MAX, PROTOCOL_VERSION, RUNS_MAX, Refused,
};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

const CALL_LIMIT: Duration = Duration::from_secs(30);
/// A server that lives answers within this time; it may have to read a layer first.
const PART_LIMIT: Duration = Duration::from_secs(120);
/// More runs than this are not worth a delta: everything is compared.
pub const CHANGED_RUNS_MAX: usize = 1 << 20;
/// A disk of more bytes than this is nobody's.
const DISK_BYTES_MAX: u64 = 1 << 60;
const TEXT_CHARS_MAX: usize = 200;

/// What the server wants.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    pub machine: MachineId,
    pub name: String,
    pub generation: u64,
    pub disks: Vec<OrderedDisk>,
    pub point: Option<PointId>,
    pub point_unix_nanos: i64,
    pub is_final: bool,
    pub is_original: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct OrderedDisk {
    pub id: DiskId,
    pub name: String,
    pub stable_id: String,
    pub size_bytes: u64,
}

/// Machine and generation, as every further call carries them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderKey {
    pub machine: MachineId,
    pub generation: u64,
}

impl Order {
    pub fn key(&self) -> OrderKey {
        OrderKey {
            machine: self.machine,
            generation: self.generation,
        }
    }
}

#[derive(Clone)]
pub struct Client {
    runtime: Handle,
    control: ReceiveClient<Channel>,
    bulk: ReceiveClient<Channel>,
    stop: CancellationToken,
}

impl Client {
    /// Dials on first use. Orders and reports have a connection of their own, so that bulk data delays none.
    pub fn new(identity: &Identity, runtime: Handle, stop: CancellationToken) -> Result<Self, ReceiveError> {
        let client = || -> Result<_, ReceiveError> {
            let _entered = runtime.enter();
            Ok(ReceiveClient::new(identity.channel()?)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX))
        };
        let (control, bulk) = (client()?, client()?);
        Ok(Self {
            runtime,
            control,
            bulk,
            stop,
        })
    }

    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// For what is still to be said after the work was told to stop.
    pub fn although_stopped(&self) -> Self {
        Self {
            stop: CancellationToken::new(),
            ..self.clone()
        }
    }

    fn wait<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, ReceiveError> {
        self.runtime.block_on(async {
            tokio::select! {
                () = self.stop.cancelled() => Err(ReceiveError::Cancelled),
                answer = tokio::time::timeout(limit, call) => match answer {
                    Ok(answer) => answer.map_err(|status| of_status(&status)),
                    Err(_) => Err(ReceiveError::Disconnected("the server does not answer".to_owned())),
                },
            }
        })
    }

    /// `known`: answer when there is something newer, or after `wait`.
    pub fn order(
        &self,
        machine: &str,
        known: Option<(PointId, bool)>,
        wait: Duration,
    ) -> Result<Order, ReceiveError> {
        let wait_seconds = (wait.as_secs() as u32).min(ORDER_WAIT_SECONDS_MAX);
        let request = ReceiveOrderRequest {
            protocol_version: PROTOCOL_VERSION,
            machine: machine.to_owned(),
            known_point: known.map(|(point, _)| id(point.as_bytes())).unwrap_or_default(),
            known_final: known.is_some_and(|(_, is_final)| is_final),
            wait_seconds,
        };
        let mut client = self.control.clone();
        let limit = CALL_LIMIT + Duration::from_secs(u64::from(wait_seconds));
        let reply = self
            .wait(limit, async { client.order(request).await })?
            .into_inner();
        parse_order(reply)
    }

    pub fn report(&self, report: ReceiveReportRequest) -> Result<(), ReceiveError> {
        let mut client = self.control.clone();
        self.wait(CALL_LIMIT, async { client.report(report).await })?;
        Ok(())
    }

    fn stream<P>(
        &self,
        call: impl Future<Output = Result<tonic::Response<Streaming<P>>, Status>>,
    ) -> Result<Parts<P>, ReceiveError> {
        Ok(Parts {
            client: self.clone(),
            stream: self.wait(PART_LIMIT, call)?.into_inner(),
        })
    }

    /// Digests of the granules of a disk of this size, from one on, to the end.
    pub fn digests(
        &self,
        of: OrderKey,
        disk: DiskId,
        point: PointId,
        granules: std::ops::Range<u64>,
    ) -> Result<Digests, ReceiveError> {
        let request = DigestsRequest {
            received: Some(of.message()),
            disk_id: id(disk.as_bytes()),
            point: id(point.as_bytes()),
            first_granule: granules.start,
            count: granules.end - granules.start,
        };
        let mut client = self.bulk.clone();
        Ok(Digests {
            parts: self.stream(async { client.digests(request).await })?,
            left: granules.end - granules.start,
        })
    }

    /// The blocks written between two points; None where they are too scattered to be worth it.
    pub fn changes(
        &self,
        of: OrderKey,
        disk: DiskId,
        (from, to): (PointId, PointId),
        size_bytes: u64,
    ) -> Result<Option<Vec<BlockRange>>, ReceiveError> {
        let request = ChangesRequest {
            received: Some(of.message()),
            disk_id: id(disk.as_bytes()),
            from_point: id(from.as_bytes()),
            to_point: id(to.as_bytes()),
        };
        let mut client = self.bulk.clone();
        let mut parts: Parts<ChangesPart> = self.stream(async { client.changes(request).await })?;
        let mut ranges = Vec::new();
        while let Some(part) = parts.next()? {
            take_runs(&part.runs, size_bytes, &mut ranges)?;
            if ranges.len() > CHANGED_RUNS_MAX {
                return Ok(None);
            }
        }
        Ok(Some(ranges))
    }

    /// The blocks of these ranges, in their order.
    pub fn read(
        &self,
        of: OrderKey,
        disk: DiskId,
        point: PointId,
        ranges: Vec<BlockRange>,
    ) -> Result<Frames, ReceiveError> {
        let run = |range: &BlockRange| BlockRun {
            first: range.first,
            count: range.count,
        };
        let request = ReadRequest {
            received: Some(of.message()),
            disk_id: id(disk.as_bytes()),
            point: id(point.as_bytes()),
            runs: ranges.iter().map(run).collect(),
        };
        let mut client = self.bulk.clone();
        Ok(Frames {
            parts: self.stream(async { client.read(request).await })?,
            due: Due::new(ranges),
        })
    }
}

impl OrderKey {
    pub fn message(self) -> Received {
        Received {
            machine_id: id(self.machine.as_bytes()),
            generation: self.generation,
        }
    }
}

fn id(bytes: &[u8; 16]) -> Vec<u8> {
    bytes.to_vec()
}

fn of_status(status: &Status) -> ReceiveError {
    match Refused::of_status(status) {
        Some(refused) => ReceiveError::Refused(clean(refused)),
        None if status.code() == tonic::Code::Unimplemented => ReceiveError::Refused(Refused::new(
            "ProtocolVersion",
            "the server does not know the way home",
            "the server is older than this agent",
            "update the server",
        )),
        // A message that is longer than allowed.
        None if status.code() == tonic::Code::OutOfRange => {
            ReceiveError::Protocol("a message that is too long")
        }
        None => ReceiveError::Disconnected(reason(status)),
    }
}

/// Words of a peer, for a terminal.
fn text(from: &str) -> String {
    from.chars()
        .filter(|letter| !letter.is_control())
        .take(TEXT_CHARS_MAX)
        .collect()
}

fn clean(refused: Refused) -> Refused {
    let long = |from: &str| -> String {
        from.chars()
            .filter(|letter| !letter.is_control())
            .take(1000)
            .collect()
    };
    Refused {
        code: text(&refused.code),
        message: long(&refused.message),
        possible_causes: long(&refused.possible_causes),
        recommended_action: long(&refused.recommended_action),
    }
}

fn parse_order(reply: ReceiveOrderReply) -> Result<Order, ReceiveError> {
    let wrong = || ReceiveError::Protocol("an order that cannot be read");
    if reply.disks.is_empty() || reply.disks.len() > DISKS_MAX {
        return Err(ReceiveError::Protocol("an order of no disk, or of too many"));
    }
    let mut disks: Vec<OrderedDisk> = Vec::new();
    for disk in &reply.disks {
        let id = DiskId::from_slice(&disk.disk_id).map_err(|_| wrong())?;
        if disk.size_bytes == 0
            || disk.size_bytes > DISK_BYTES_MAX
            || disks.iter().any(|known| known.id == id)
        {
            return Err(ReceiveError::Protocol(
                "a disk without a size, of an impossible size, or named twice",
            ));
        }
        disks.push(OrderedDisk {
            id,
            name: text(&disk.name),
            stable_id: text(&disk.stable_id),
            size_bytes: disk.size_bytes,
        });
    }
    Ok(Order {
        machine: MachineId::from_slice(&reply.machine_id).map_err(|_| wrong())?,
        name: text(&reply.machine_name),
        generation: reply.generation,
        disks,
        point: match reply.point.as_slice() {
            [] => None,
            bytes => Some(PointId::from_slice(bytes).map_err(|_| wrong())?),
        },
        point_unix_nanos: reply.point_unix_nanos,
        is_final: reply.r#final,
        is_original: reply.original,
    })
}

/// Appends runs that must lie behind those before, within the disk; runs that touch become one.
fn take_runs(runs: &[BlockRun], size_bytes: u64, to: &mut Vec<BlockRange>) -> Result<(), ReceiveError> {
    let blocks = size_bytes.div_ceil(BLOCK_BYTES as u64);
    if runs.len() > RUNS_MAX {
        return Err(ReceiveError::Protocol("too many runs of blocks in one message"));
    }
    for run in runs {
        let last_end = to.last().map_or(0, BlockRange::end);
        let end = run.first.checked_add(run.count);
        if run.count == 0 || run.first < last_end || end.is_none_or(|end| end > blocks) {
            return Err(ReceiveError::Protocol(
                "runs of blocks that are empty, unsorted or past the end of the disk",
            ));
        }
        match to.last_mut() {
            Some(last) if last.end() == run.first => last.count += run.count,
            _ => to.push(BlockRange::new(run.first, run.count)),
        }
    }
    Ok(())
}

/// Parts of an answer, one after the other.
struct Parts<P> {
    client: Client,
    stream: Streaming<P>,
}

impl<P> Parts<P> {
    fn next(&mut self) -> Result<Option<P>, ReceiveError> {
        let Self { client, stream } = self;
        client.wait(PART_LIMIT, stream.message())
    }
}

pub struct Digests {
    parts: Parts<DigestsPart>,
    left: u64,
}

impl Digests {
    /// The next ones; None at the end, which comes with the last granule and not before.
    pub fn next(&mut self) -> Result<Option<Vec<[u8; 32]>>, ReceiveError> {
        let Some(part) = self.parts.next()? else {
            return if self.left == 0 {
                Ok(None)
            } else {
                Err(ReceiveError::Disconnected("the answer is cut short".to_owned()))
            };
        };
        let (digests, rest) = part.digests.as_chunks::<32>();
        let fits = rest.is_empty() && !digests.is_empty() && digests.len() <= DIGESTS_MAX;
        match self.left.checked_sub(digests.len() as u64) {
            Some(left) if fits => self.left = left,
            _ => return Err(ReceiveError::Protocol("digests that were not asked for")),
        }
        Ok(Some(digests.to_vec()))
    }
}

/// A frame whose every block was asked for.
pub struct Fetched {
    pub extents: Vec<crate::block::FrameExtent>,
    /// Blocks of the extents that are not zero, one after the other.
    pub raw: Vec<u8>,
    pub stored_bytes: u64,
}

pub struct Frames {
    parts: Parts<ReadPart>,
    due: Due,
}

impl Frames {
    /// The next one; None at the end, which comes with the last block and not before.
    pub fn next(&mut self) -> Result<Option<Fetched>, ReceiveError> {
        let Some(part) = self.parts.next()? else {
            return if self.due.is_over() {
                Ok(None)
            } else {
                Err(ReceiveError::Disconnected("the answer is cut short".to_owned()))
            };
        };
        let stored_bytes = part.frame.len() as u64;
        let frame =
            Frame::parse(part.frame).map_err(|_| ReceiveError::Protocol("a frame that is not valid"))?;
        for extent in frame.extents() {
            self.due.take(extent.range())?;
        }
        let raw = frame
            .decompress()
            .map_err(|_| ReceiveError::Protocol("a frame that does not decompress"))?;
        Ok(Some(Fetched {
            extents: frame.extents().to_vec(),
            raw,
            stored_bytes,
        }))
    }
}

/// What was asked for and has not come.
struct Due {
    ranges: std::vec::IntoIter<BlockRange>,
    now: BlockRange,
}

impl Due {
    fn new(ranges: Vec<BlockRange>) -> Self {
        Self {
            ranges: ranges.into_iter(),
            now: BlockRange::new(0, 0),
        }
    }

    fn refill(&mut self) -> bool {
        while self.now.count == 0 {
            match self.ranges.next() {
                Some(range) => self.now = range,
                None => return false,
            }
        }
        true
    }

    fn take(&mut self, mut got: BlockRange) -> Result<(), ReceiveError> {
        while got.count > 0 {
            if !self.refill() || got.first != self.now.first {
                return Err(ReceiveError::Protocol("blocks that were not asked for"));
            }
            let count = got.count.min(self.now.count);
            got = BlockRange::new(got.first + count, got.count - count);
            self.now = BlockRange::new(self.now.first + count, self.now.count - count);
        }
        Ok(())
    }

    fn is_over(&mut self) -> bool {
        !self.refill()
    }
}

/// Granules of a disk of this size.
pub fn granules(size_bytes: u64) -> u64 {
    size_bytes.div_ceil(GRANULE_BYTES as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_asked_for_is_taken_and_all_of_it() {
        let asked = || Due::new(vec![BlockRange::new(2, 3), BlockRange::new(9, 1)]);
        let mut due = asked();
        due.take(BlockRange::new(2, 1)).unwrap();
        due.take(BlockRange::new(3, 2)).unwrap();
        assert!(!due.is_over());
        due.take(BlockRange::new(9, 1)).unwrap();
        assert!(due.is_over());
        for wrong in [(0, 1), (3, 1), (2, 4), (9, 1), (u64::MAX, 1)] {
            assert!(
                asked().take(BlockRange::new(wrong.0, wrong.1)).is_err(),
                "{wrong:?}"
            );
        }
        let mut due = asked();
        due.take(BlockRange::new(2, 3)).unwrap();
        due.take(BlockRange::new(9, 1)).unwrap();
        assert!(
            due.take(BlockRange::new(10, 1)).is_err(),
            "a block too many was taken"
        );
    }

    #[test]
    fn runs_are_taken_sorted_and_within_the_disk() {
        let run = |first, count| BlockRun { first, count };
        let size = 100 * BLOCK_BYTES as u64 - 512;
        let mut to = Vec::new();
        take_runs(&[run(0, 2), run(2, 1), run(50, 50)], size, &mut to).unwrap();
        assert_eq!(to, [BlockRange::new(0, 3), BlockRange::new(50, 50)]);
        for wrong in [run(99, 1), run(100, 1), run(u64::MAX, 2), run(0, 0)] {
            assert!(take_runs(&[wrong], size, &mut to.clone()).is_err(), "{wrong:?}");
        }
        let many = vec![run(0, 1); RUNS_MAX + 1];
        assert!(take_runs(&many, size, &mut Vec::new()).is_err());
    }

    #[test]
    fn orders_are_read_with_limits() {
        let disk = crate::wire::proto::ReceiveDisk {
            disk_id: id(DiskId::new().as_bytes()),
            name: "boot\u{1b}[2J".to_owned(),
            stable_id: "wwn:1".to_owned(),
            size_bytes: 4096,
        };
        let good = ReceiveOrderReply {
            machine_id: id(MachineId::new().as_bytes()),
            machine_name: "web1".to_owned(),
            generation: 3,
            disks: vec![disk.clone()],
            ..ReceiveOrderReply::default()
        };
        let order = parse_order(good.clone()).unwrap();
        assert_eq!((order.disks[0].name.as_str(), order.point), ("boot[2J", None));
        let wrong: [fn(&mut ReceiveOrderReply); 6] = [
            |reply| reply.machine_id.truncate(3),
            |reply| reply.disks.clear(),
            |reply| reply.disks.push(reply.disks[0].clone()),
            |reply| reply.disks[0].size_bytes = 0,
            |reply| reply.disks[0].size_bytes = u64::MAX,
            |reply| reply.point = vec![1; 15],
        ];
        for (index, change) in wrong.iter().enumerate() {
            let mut reply = good.clone();
            change(&mut reply);
            assert!(parse_order(reply).is_err(), "change {index}");
        }
        let many = ReceiveOrderReply {
            disks: (0..=DISKS_MAX)
                .map(|_| crate::wire::proto::ReceiveDisk {
                    disk_id: id(DiskId::new().as_bytes()),
                    ..disk.clone()
                })
                .collect(),
            ..good
        };
        assert!(parse_order(many).is_err());
    }
}
