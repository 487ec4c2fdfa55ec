//! Negotiation: from the greeting to the chosen export.
use super::{Export, Stream};
use std::io;

const GREETING: u64 = 0x4e42_444d_4147_4943; // NBDMAGIC
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054; // IHAVEOPT
const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// An option's data: an export name has at most 4096 bytes, queries little more.
const OPTION_BYTES_MAX: u32 = 16 * 1024;

const OPT_EXPORT_NAME: u32 = 1;
const OPT_ABORT: u32 = 2;
const OPT_LIST: u32 = 3;
const OPT_INFO: u32 = 6;
const OPT_GO: u32 = 7;
const OPT_STRUCTURED_REPLY: u32 = 8;
const OPT_LIST_META_CONTEXT: u32 = 9;
const OPT_SET_META_CONTEXT: u32 = 10;

const REP_ACK: u32 = 1;
const REP_SERVER: u32 = 2;
const REP_INFO: u32 = 3;
const REP_META_CONTEXT: u32 = 4;
const REP_ERR_UNSUP: u32 = 0x8000_0001;
const REP_ERR_INVALID: u32 = 0x8000_0003;
const REP_ERR_UNKNOWN: u32 = 0x8000_0006;

const INFO_EXPORT: u16 = 0;
const INFO_BLOCK_SIZE: u16 = 3;

/// The one metadata context: allocation, as `base:allocation`.
pub(super) const ALLOCATION_CONTEXT: u32 = 1;

pub(super) struct Chosen {
    pub export: Export,
    pub structured: bool,
    pub allocation: bool,
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn read<const N: usize>(stream: &mut Box<dyn Stream>) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// HAS_FLAGS, FLUSH, FUA, TRIM, WRITE_ZEROES, CAN_MULTI_CONN; READ_ONLY where it is.
fn transmission_flags(export: &Export) -> u16 {
    let flags = 1 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 8;
    if export.device.read_only() {
        flags | 1 << 1
    } else {
        flags
    }
}

fn reply(stream: &mut Box<dyn Stream>, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(20 + data.len());
    bytes.extend_from_slice(&REPLY_MAGIC.to_be_bytes());
    bytes.extend_from_slice(&option.to_be_bytes());
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&(data.len() as u32).to_be_bytes());
    bytes.extend_from_slice(data);
    stream.write_all(&bytes)
}

/// Cuts an option's data; None where it is shorter than it says.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.take(len as usize)
    }
}

/// An empty name means the first export.
fn find<'a>(exports: &'a [Export], name: &[u8]) -> Option<&'a Export> {
    if name.is_empty() {
        exports.first()
    } else {
        exports.iter().find(|export| export.name.as_bytes() == name)
    }
}

/// None: the client ended the talk in good order.
pub(super) fn negotiate(stream: &mut Box<dyn Stream>, exports: &[Export]) -> io::Result<Option<Chosen>> {
    stream.write_all(&GREETING.to_be_bytes())?;
    stream.write_all(&OPTION_MAGIC.to_be_bytes())?;
    stream.write_all(&3u16.to_be_bytes())?; // FIXED_NEWSTYLE, NO_ZEROES
    let client_flags = u32::from_be_bytes(read(stream)?);
    if client_flags & !3 != 0 {
        return Err(invalid("the client sets flags that do not exist"));
    }
    let (mut structured, mut context_for) = (false, None::<Vec<u8>>);
    loop {
        if u64::from_be_bytes(read(stream)?) != OPTION_MAGIC {
            return Err(invalid("no option where one was due"));
        }
        let option = u32::from_be_bytes(read(stream)?);
        let len = u32::from_be_bytes(read(stream)?);
        if len > OPTION_BYTES_MAX {
            return Err(invalid("an option is longer than 16 KiB"));
        }
        let mut data = vec![0; len as usize];
        stream.read_exact(&mut data)?;
        match option {
            OPT_EXPORT_NAME => {
                let export = find(exports, &data).ok_or_else(|| invalid("no such export"))?;
                stream.write_all(&export.device.size_bytes().to_be_bytes())?;
                stream.write_all(&transmission_flags(export).to_be_bytes())?;
                if client_flags & 2 == 0 {
                    stream.write_all(&[0; 124])?;
                }
                let allocation = context_for.as_deref() == Some(export.name.as_bytes());
                return Ok(Some(Chosen {
                    export: export.clone(),
                    structured,
                    allocation,
                }));
            }
            OPT_ABORT => {
                reply(stream, option, REP_ACK, &[])?;
                return Ok(None);
            }
            OPT_LIST if data.is_empty() => {
                for export in exports {
                    let name = export.name.as_bytes();
                    reply(
                        stream,
                        option,
                        REP_SERVER,
                        &[&(name.len() as u32).to_be_bytes(), name].concat(),
                    )?;
                }
                reply(stream, option, REP_ACK, &[])?;
            }
            OPT_STRUCTURED_REPLY if data.is_empty() => {
                structured = true;
                reply(stream, option, REP_ACK, &[])?;
            }
            OPT_INFO | OPT_GO => {
                let mut cursor = Cursor(&data);
                let Some(name) = cursor.string() else {
                    reply(stream, option, REP_ERR_INVALID, b"the option is cut short")?;
                    continue;
                };
                let Some(export) = find(exports, name) else {
                    reply(stream, option, REP_ERR_UNKNOWN, b"no such export")?;
                    continue;
                };
                let mut info = INFO_EXPORT.to_be_bytes().to_vec();
                info.extend_from_slice(&export.device.size_bytes().to_be_bytes());
                info.extend_from_slice(&transmission_flags(export).to_be_bytes());
                reply(stream, option, REP_INFO, &info)?;
                let mut sizes = INFO_BLOCK_SIZE.to_be_bytes().to_vec();
                for size in [1u32, 4096, super::transmission::REQUEST_BYTES_MAX] {
                    sizes.extend_from_slice(&size.to_be_bytes());
                }
                reply(stream, option, REP_INFO, &sizes)?;
                reply(stream, option, REP_ACK, &[])?;
                if option == OPT_GO {
                    let allocation = context_for.as_deref() == Some(export.name.as_bytes());
                    return Ok(Some(Chosen {
                        export: export.clone(),
                        structured,
                        allocation,
                    }));
                }
            }
            OPT_LIST_META_CONTEXT | OPT_SET_META_CONTEXT => {
                meta_context(stream, option, &data, exports, structured, &mut context_for)?;
            }
            OPT_LIST | OPT_STRUCTURED_REPLY => reply(stream, option, REP_ERR_INVALID, b"no data was due")?,
            _ => reply(stream, option, REP_ERR_UNSUP, b"not supported")?,
        }
    }
}

fn meta_context(
    stream: &mut Box<dyn Stream>,
    option: u32,
    data: &[u8],
    exports: &[Export],
    structured: bool,
    context_for: &mut Option<Vec<u8>>,
) -> io::Result<()> {
    let set = option == OPT_SET_META_CONTEXT;
    if set {
        *context_for = None;
    }
    let mut cursor = Cursor(data);
    let parsed = (|| {
        let name = cursor.string()?;
        let count = cursor.u32()?;
        let mut queries = Vec::new();
        for _ in 0..count {
            queries.push(cursor.string()?);
        }
        Some((name, queries))
    })();
    let Some((name, queries)) = parsed.filter(|_| structured || !set) else {
        return reply(
            stream,
            option,
            REP_ERR_INVALID,
            b"structured replies come first, and whole queries",
        );
    };
    let Some(export) = find(exports, name) else {
        return reply(stream, option, REP_ERR_UNKNOWN, b"no such export");
    };
    let wanted = |query: &&[u8]| *query == b"base:allocation" || !set && *query == b"base:";
    if queries.iter().any(wanted) || !set && queries.is_empty() {
        let mut context = ALLOCATION_CONTEXT.to_be_bytes().to_vec();
        context.extend_from_slice(b"base:allocation");
        reply(stream, option, REP_META_CONTEXT, &context)?;
        if set {
            *context_for = Some(export.name.as_bytes().to_vec());
        }
    }
    reply(stream, option, REP_ACK, &[])
}
