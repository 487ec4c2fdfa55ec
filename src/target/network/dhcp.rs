//! As much of a DHCP server (RFC 2131, 2132) as an isolated network needs: every NIC in it is known beforehand, with the address
//! that it gets, so nothing is handed out that has to be remembered. A NIC that is not known gets no answer.
//!
//! Answers are always broadcast: there is nobody else to disturb, and the NIC has no address yet.
use super::seats::{Addresses, Lease, Mac};
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;

pub const SERVER_PORT: u16 = 67;
pub const CLIENT_PORT: u16 = 68;
/// Ethernet's; options beyond it are not read.
pub const BYTES_MAX: usize = 1500;
/// The fixed part before the options, with the magic number.
const HEAD: usize = 240;
const MAGIC: [u8; 4] = [99, 130, 83, 99];
/// Clients refuse less (BOOTP).
const ANSWER_BYTES_MIN: usize = 300;
const LEASE_SECONDS: u32 = 3600;
const DNS_MAX: usize = 8;

mod option {
    pub const PAD: u8 = 0;
    pub const MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const DNS: u8 = 6;
    pub const BROADCAST: u8 = 28;
    pub const REQUESTED: u8 = 50;
    pub const LEASE: u8 = 51;
    pub const KIND: u8 = 53;
    pub const SERVER: u8 = 54;
    pub const END: u8 = 255;
}

mod kind {
    pub const DISCOVER: u8 = 1;
    pub const OFFER: u8 = 2;
    pub const REQUEST: u8 = 3;
    pub const ACK: u8 = 5;
    pub const NAK: u8 = 6;
    pub const INFORM: u8 = 8;
}

#[derive(Debug, PartialEq, Eq)]
struct Question {
    kind: u8,
    transaction: [u8; 4],
    seconds_and_flags: [u8; 4],
    /// The client's own, where it has one already.
    own: Ipv4Addr,
    mac: Mac,
    requested: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
}

fn ipv4(bytes: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?))
}

/// None: not a question that is answered here.
fn parse(bytes: &[u8]) -> Option<Question> {
    let head = bytes.get(..HEAD)?;
    // A request, on Ethernet.
    if head[0] != 1 || head[1] != 1 || head[2] != 6 || head[236..240] != MAGIC {
        return None;
    }
    let mut question = Question {
        kind: 0,
        transaction: head[4..8].try_into().ok()?,
        seconds_and_flags: head[8..12].try_into().ok()?,
        own: ipv4(&head[12..16])?,
        mac: head[28..34].try_into().ok()?,
        requested: None,
        server: None,
    };
    let mut rest = &bytes[HEAD..];
    while let Some((&code, after)) = rest.split_first() {
        match code {
            option::END => break,
            option::PAD => {
                rest = after;
                continue;
            }
            _ => {}
        }
        let (&len, after) = after.split_first()?;
        let value = after.get(..usize::from(len))?;
        rest = &after[usize::from(len)..];
        match code {
            option::KIND => question.kind = *value.first()?,
            option::REQUESTED => question.requested = Some(ipv4(value)?),
            option::SERVER => question.server = Some(ipv4(value)?),
            _ => {}
        }
    }
    Some(question)
}

fn answer_of(question: &Question, kind: u8, lease: &Lease) -> Vec<u8> {
    let mut bytes = vec![0; HEAD];
    // An answer, on Ethernet.
    bytes[..3].copy_from_slice(&[2, 1, 6]);
    bytes[4..8].copy_from_slice(&question.transaction);
    bytes[10..12].copy_from_slice(&question.seconds_and_flags[2..]);
    if kind != kind::NAK {
        bytes[12..16].copy_from_slice(&question.own.octets());
        if question.kind != kind::INFORM {
            bytes[16..20].copy_from_slice(&lease.cidr.address.octets());
        }
    }
    bytes[28..34].copy_from_slice(&question.mac);
    bytes[236..240].copy_from_slice(&MAGIC);
    let mut put = |code: u8, value: &[u8]| {
        bytes.push(code);
        // All of them are far below 255 bytes.
        bytes.push(value.len() as u8);
        bytes.extend_from_slice(value);
    };
    put(option::KIND, &[kind]);
    put(option::SERVER, &lease.server.octets());
    if kind != kind::NAK {
        if question.kind != kind::INFORM {
            put(option::LEASE, &LEASE_SECONDS.to_be_bytes());
        }
        put(option::MASK, &lease.cidr.mask().octets());
        put(option::BROADCAST, &lease.cidr.broadcast().octets());
        if let Some(router) = lease.router {
            put(option::ROUTER, &router.octets());
        }
        let dns: Vec<u8> = lease
            .dns
            .iter()
            .take(DNS_MAX)
            .flat_map(|one| one.octets())
            .collect();
        if !dns.is_empty() {
            put(option::DNS, &dns);
        }
    }
    bytes.push(option::END);
    bytes.resize(bytes.len().max(ANSWER_BYTES_MIN), 0);
    bytes
}

/// The answer to a datagram; None: none. Pure.
pub fn answer(bytes: &[u8], addresses: &Addresses) -> Option<Vec<u8>> {
    let question = parse(bytes)?;
    let lease = addresses.leases.get(&question.mac)?;
    // It took the offer of somebody else.
    if question.server.is_some_and(|server| server != lease.server) {
        return None;
    }
    let kind = match question.kind {
        kind::DISCOVER => kind::OFFER,
        kind::INFORM => kind::ACK,
        kind::REQUEST => {
            let wanted = question.requested.unwrap_or(question.own);
            if wanted == lease.cidr.address {
                kind::ACK
            } else {
                kind::NAK
            }
        }
        // Declined or given back: the address stays the machine's.
        _ => return None,
    };
    Some(answer_of(&question, kind, lease))
}

/// A socket for it, in the network namespace of the calling thread.
pub fn socket(device: &str) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, SERVER_PORT))?;
    socket.set_broadcast(true)?;
    // So that a broadcast finds its way without a route.
    let name = device.as_bytes();
    // SAFETY: the pointer and the length are those of one slice, which outlives the call.
    let bound = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            name.as_ptr().cast(),
            name.len() as libc::socklen_t,
        )
    };
    if bound == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(socket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::NicAddress;
    use crate::target::network::seats::{Seat, Seats, addresses};

    const MAC: &str = "52:54:00:00:00:0a";

    fn known() -> Addresses {
        addresses(&[Seats {
            seats: vec![Seat {
                mac: MAC.into(),
                address: Some(NicAddress {
                    cidr: "192.0.2.7/24".parse().unwrap(),
                    gateway: Some(Ipv4Addr::new(192, 0, 2, 1)),
                    dns: vec![Ipv4Addr::new(192, 0, 2, 53)],
                }),
            }],
            ..Seats::default()
        }])
    }

    fn ask(kind: u8, options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEAD];
        bytes[..3].copy_from_slice(&[1, 1, 6]);
        bytes[4..8].copy_from_slice(b"xact");
        bytes[28..34].copy_from_slice(&super::super::seats::mac(MAC).unwrap());
        bytes[236..240].copy_from_slice(&MAGIC);
        bytes.extend_from_slice(&[option::PAD, option::KIND, 1, kind]);
        bytes.extend_from_slice(options);
        bytes.push(option::END);
        bytes
    }

    fn kind_of(answer: &[u8]) -> u8 {
        assert!(answer.len() >= ANSWER_BYTES_MIN && answer[..3] == [2, 1, 6] && &answer[4..8] == b"xact");
        assert_eq!(answer[HEAD], option::KIND);
        answer[HEAD + 2]
    }

    #[test]
    fn a_known_nic_gets_its_own_address() {
        let known = known();
        let offer = answer(&ask(kind::DISCOVER, &[]), &known).unwrap();
        assert_eq!(kind_of(&offer), kind::OFFER);
        assert_eq!(offer[16..20], [192, 0, 2, 7]);
        let has = |wanted: &[u8]| offer.windows(wanted.len()).any(|part| part == wanted);
        assert!(has(&[option::MASK, 4, 255, 255, 255, 0]) && has(&[option::ROUTER, 4, 192, 0, 2, 1]));
        assert!(has(&[option::DNS, 4, 192, 0, 2, 53]) && has(&[option::SERVER, 4, 192, 0, 2, 1]));
        let wanted = |last| [option::REQUESTED, 4, 192, 0, 2, last];
        assert_eq!(
            kind_of(&answer(&ask(kind::REQUEST, &wanted(7)), &known).unwrap()),
            kind::ACK
        );
        // From a lease that it had elsewhere: it is to ask anew.
        assert_eq!(
            kind_of(&answer(&ask(kind::REQUEST, &wanted(8)), &known).unwrap()),
            kind::NAK
        );
        let other = [&wanted(7)[..], &[option::SERVER, 4, 192, 0, 2, 99]].concat();
        assert_eq!(answer(&ask(kind::REQUEST, &other), &known), None);
        assert_eq!(answer(&ask(7, &[]), &known), None);
        assert_eq!(answer(&ask(kind::DISCOVER, &[]), &Addresses::default()), None);
    }

    #[test]
    fn damaged_questions_get_no_answer_and_do_no_harm() {
        let known = known();
        let whole = ask(kind::REQUEST, &[option::REQUESTED, 4, 192, 0, 2, 7]);
        assert!(answer(&whole, &known).is_some());
        for len in 0..whole.len() - 1 {
            // Without its end the last option may be whole all the same.
            assert!(answer(&whole[..len], &known).is_none() || len > HEAD + 3, "{len}");
        }
        for place in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut other = whole.clone();
                other[place] = value;
                let _ = answer(&other, &known);
            }
        }
    }
}
