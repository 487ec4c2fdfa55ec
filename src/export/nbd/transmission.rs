//! Requests and their answers: one after the other on a connection, except that a flush does not hold up what follows it.
use super::Stream;
use super::handshake::{ALLOCATION_CONTEXT, Chosen};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

/// What every client may rely on by the protocol.
pub(super) const REQUEST_BYTES_MAX: u32 = 32 << 20;

const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY: u32 = 0x6744_6698;
const STRUCTURED_REPLY: u32 = 0x668e_33ef;

const CMD_READ: u16 = 0;
const CMD_WRITE: u16 = 1;
const CMD_DISC: u16 = 2;
const CMD_FLUSH: u16 = 3;
const CMD_TRIM: u16 = 4;
const CMD_WRITE_ZEROES: u16 = 6;
const CMD_BLOCK_STATUS: u16 = 7;

const FLAG_FUA: u16 = 1;
const FLAG_REQ_ONE: u16 = 1 << 3;

const CHUNK_NONE: u16 = 0;
const CHUNK_DATA: u16 = 1;
const CHUNK_HOLE: u16 = 2;
const CHUNK_STATUS: u16 = 5;
const CHUNK_ERROR: u16 = 0x8001;
const CHUNK_DONE: u16 = 1;

const EPERM: u32 = 1;
const EIO: u32 = 5;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;

/// Flushes that wait on one connection; guests send a few at once.
const FLUSHES_MAX: usize = 64;
/// Runs in one answer to a status query: a client asks again for the rest.
const STATUS_RUNS_MAX: usize = 16 * 1024;
/// Longest range that one status query is answered for.
const STATUS_BYTES_MAX: u64 = 1 << 30;

struct Request {
    flags: u16,
    command: u16,
    cookie: [u8; 8],
    offset: u64,
    len: u32,
}

fn code_of(error: &io::Error) -> u32 {
    match error.kind() {
        io::ErrorKind::PermissionDenied => EPERM,
        io::ErrorKind::InvalidInput => EINVAL,
        io::ErrorKind::StorageFull => ENOSPC,
        _ => EIO,
    }
}

fn read_request(input: &mut impl Read) -> io::Result<Request> {
    let mut bytes = [0; 28];
    input.read_exact(&mut bytes)?;
    if bytes[..4] != REQUEST_MAGIC.to_be_bytes() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "no request where one was due",
        ));
    }
    let (mut cookie, mut offset) = ([0; 8], [0; 8]);
    cookie.copy_from_slice(&bytes[8..16]);
    offset.copy_from_slice(&bytes[16..24]);
    Ok(Request {
        flags: u16::from_be_bytes([bytes[4], bytes[5]]),
        command: u16::from_be_bytes([bytes[6], bytes[7]]),
        cookie,
        offset: u64::from_be_bytes(offset),
        len: u32::from_be_bytes([bytes[24], bytes[25], bytes[26], bytes[27]]),
    })
}

struct Output {
    stream: BufWriter<Box<dyn Stream>>,
    structured: bool,
}

impl Output {
    fn chunk(&mut self, request: &Request, done: bool, kind: u16, parts: &[&[u8]]) -> io::Result<()> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        self.stream.write_all(&STRUCTURED_REPLY.to_be_bytes())?;
        self.stream
            .write_all(&(if done { CHUNK_DONE } else { 0 }).to_be_bytes())?;
        self.stream.write_all(&kind.to_be_bytes())?;
        self.stream.write_all(&request.cookie)?;
        self.stream.write_all(&(len as u32).to_be_bytes())?;
        parts.iter().try_for_each(|part| self.stream.write_all(part))
    }

    /// The answer without data: success with code 0.
    fn simple(&mut self, request: &Request, code: u32, data: &[u8]) -> io::Result<()> {
        self.stream.write_all(&SIMPLE_REPLY.to_be_bytes())?;
        self.stream.write_all(&code.to_be_bytes())?;
        self.stream.write_all(&request.cookie)?;
        self.stream.write_all(data)
    }

    fn done(&mut self, request: &Request, result: io::Result<()>) -> io::Result<()> {
        match result {
            Ok(()) if self.structured => self.chunk(request, true, CHUNK_NONE, &[]),
            Ok(()) => self.simple(request, 0, &[]),
            Err(error) => self.error(request, &error),
        }
    }

    fn error(&mut self, request: &Request, error: &io::Error) -> io::Result<()> {
        let code = code_of(error);
        if !self.structured {
            return self.simple(request, code, &[]);
        }
        let text = error.to_string();
        let text = &text.as_bytes()[..text.len().min(4096)];
        let parts: [&[u8]; 3] = [&code.to_be_bytes(), &(text.len() as u16).to_be_bytes(), text];
        self.chunk(request, true, CHUNK_ERROR, &parts)
    }
}

type Shared<'a> = &'a Mutex<Output>;

fn lock(output: Shared<'_>) -> MutexGuard<'_, Output> {
    output.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn serve(
    stream: Box<dyn Stream>,
    chosen: &Chosen,
    first_read: &OnceLock<Instant>,
) -> io::Result<()> {
    let input = BufReader::with_capacity(64 * 1024, stream.clone_box()?);
    let output = Mutex::new(Output {
        stream: BufWriter::with_capacity(64 * 1024, stream),
        structured: chosen.structured,
    });
    let (flushes, waiting) = sync_channel(FLUSHES_MAX);
    std::thread::scope(|scope| {
        // A fsync may take seconds; reads must not wait for it.
        std::thread::Builder::new()
            .name("nbd-flush".into())
            .spawn_scoped(scope, {
                let output = &output;
                move || flush_loop(&*chosen.export.device, &waiting, output)
            })?;
        // Ends with the sender, which the requests own: every flush is answered.
        requests(input, &output, chosen, first_read, flushes)
    })
}

/// Answers flushes. Those that wait together are answered by one.
fn flush_loop(device: &dyn super::BlockDevice, waiting: &Receiver<Request>, output: Shared) {
    while let Ok(first) = waiting.recv() {
        let requests: Vec<Request> = std::iter::once(first).chain(waiting.try_iter()).collect();
        let result = device.flush();
        let mut output = lock(output);
        for request in &requests {
            let answered = match &result {
                Ok(()) => output.done(request, Ok(())),
                Err(error) => output.error(request, error),
            };
            if answered.is_err() {
                return; // the peer is gone; the reader of its requests sees it too
            }
        }
        if output.stream.flush().is_err() {
            return;
        }
    }
}

fn requests(
    mut input: BufReader<Box<dyn Stream>>,
    output: Shared,
    chosen: &Chosen,
    first_read: &OnceLock<Instant>,
    flushes: SyncSender<Request>,
) -> io::Result<()> {
    let device = &*chosen.export.device;
    let mut buffer = Vec::new();
    loop {
        // Answers wait in the buffer while more requests are there to be read.
        if input.buffer().is_empty() {
            lock(output).stream.flush()?;
        }
        let request = read_request(&mut input)?;
        let too_long = request.len > REQUEST_BYTES_MAX;
        let result = match request.command {
            CMD_DISC => return lock(output).stream.flush(),
            CMD_WRITE if too_long => {
                // The data follows and cannot be skipped within a limit.
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a write of more than 32 MiB",
                ));
            }
            CMD_READ if too_long || request.len == 0 => Err(io::ErrorKind::InvalidInput.into()),
            CMD_READ => {
                let mut output = lock(output);
                read(device, &request, &mut output, &mut buffer)?;
                if first_read.get().is_none() {
                    output.stream.flush()?;
                    first_read.get_or_init(Instant::now);
                }
                continue;
            }
            CMD_WRITE => {
                let data = room(&mut buffer, request.len);
                input.read_exact(data)?;
                past_end(device, &request).and_then(|()| device.write_at(request.offset, data))
            }
            CMD_FLUSH => Ok(()),
            // Trimmed blocks read as zeros: the same as writing zeros, which is always right.
            CMD_WRITE_ZEROES | CMD_TRIM => past_end(device, &request)
                .and_then(|()| device.write_zeroes(request.offset, u64::from(request.len))),
            CMD_BLOCK_STATUS if chosen.allocation => {
                status(device, &request, &mut lock(output))?;
                continue;
            }
            _ => Err(io::ErrorKind::InvalidInput.into()),
        };
        let flush = request.command == CMD_FLUSH || request.flags & FLAG_FUA != 0;
        if flush && result.is_ok() {
            lock(output).stream.flush()?;
            if flushes.send(request).is_err() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        } else {
            lock(output).done(&request, result)?;
        }
        if buffer.capacity() > 4 << 20 {
            buffer = Vec::new();
        }
    }
}

/// A part of the buffer, with whatever it holds; grown where it is too short. Not filled with zeros for each request: that costs as
/// much as the read.
fn room(buffer: &mut Vec<u8>, len: u32) -> &mut [u8] {
    if buffer.len() < len as usize {
        *buffer = vec![0; len as usize];
    }
    &mut buffer[..len as usize]
}

/// The protocol wants ENOSPC for what would change bytes past the end.
fn past_end(device: &dyn super::BlockDevice, request: &Request) -> io::Result<()> {
    match request.offset.checked_add(u64::from(request.len)) {
        Some(end) if end <= device.size_bytes() => Ok(()),
        _ => Err(io::ErrorKind::StorageFull.into()),
    }
}

fn read(
    device: &dyn super::BlockDevice,
    request: &Request,
    output: &mut Output,
    buffer: &mut Vec<u8>,
) -> io::Result<()> {
    let runs = match device.status(request.offset, u64::from(request.len)) {
        Ok(runs) => runs,
        Err(error) => return output.error(request, &error),
    };
    if !output.structured || runs.iter().all(|(_, zero)| !zero) {
        let buffer = room(buffer, request.len);
        return match device.read_at(request.offset, buffer) {
            Ok(()) if output.structured => output.chunk(
                request,
                true,
                CHUNK_DATA,
                &[&request.offset.to_be_bytes(), buffer],
            ),
            Ok(()) => output.simple(request, 0, buffer),
            Err(error) => output.error(request, &error),
        };
    }
    let mut at = request.offset;
    let last = runs.len() - 1;
    for (index, (len, zero)) in runs.into_iter().enumerate() {
        let place = at.to_be_bytes();
        if zero {
            output.chunk(
                request,
                index == last,
                CHUNK_HOLE,
                &[&place, &(len as u32).to_be_bytes()],
            )?;
        } else {
            let buffer = room(buffer, len as u32);
            if let Err(error) = device.read_at(at, buffer) {
                return output.error(request, &error);
            }
            output.chunk(request, index == last, CHUNK_DATA, &[&place, buffer])?;
        }
        at += len;
    }
    Ok(())
}

/// State of a run: bit 0 = hole, bit 1 = reads as zero.
fn status(device: &dyn super::BlockDevice, request: &Request, output: &mut Output) -> io::Result<()> {
    if request.len == 0 {
        return output.error(request, &io::ErrorKind::InvalidInput.into());
    }
    let len = u64::from(request.len).min(STATUS_BYTES_MAX);
    let mut runs = match device.status(request.offset, len) {
        Ok(runs) => runs,
        Err(error) => return output.error(request, &error),
    };
    runs.truncate(if request.flags & FLAG_REQ_ONE != 0 {
        1
    } else {
        STATUS_RUNS_MAX
    });
    let mut data = ALLOCATION_CONTEXT.to_be_bytes().to_vec();
    for (len, zero) in runs {
        data.extend_from_slice(&(len as u32).to_be_bytes());
        data.extend_from_slice(&(if zero { 3u32 } else { 0 }).to_be_bytes());
    }
    output.chunk(request, true, CHUNK_STATUS, &[&data])
}
