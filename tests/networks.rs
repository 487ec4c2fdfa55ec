//! Isolated networks of the target: machines get their own addresses inside, and no packet comes out.
#[path = "support/capture.rs"]
mod capture;
mod support;

use capture::Capture;
use lifeboat::target::network::probe::Probe;
use lifeboat::target::network::{IsolatedNetwork, Seat, Seats, tap_on_host_bridge};
use lifeboat::target::{NicAddress, Segment};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};
use support::{lacks_root, ok};

const PATIENCE: Duration = Duration::from_secs(20);
const GUEST: [u8; 6] = [0x52, 0x54, 0, 0x11, 0x22, 0x33];
const BROADCAST: [u8; 6] = [0xff; 6];
/// `virtio_net_hdr`, which a guest puts before each frame.
const HEADER: usize = 10;

fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn frame(to: [u8; 6], kind: u16, body: &[u8]) -> Vec<u8> {
    [&[0; HEADER], &to[..], &GUEST, &kind.to_be_bytes(), body].concat()
}

/// Who has `wanted`? (RFC 826)
fn arp(own: Ipv4Addr, wanted: Ipv4Addr) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, 1];
    frame(
        BROADCAST,
        0x0806,
        &[&head[..], &GUEST, &own.octets(), &[0; 6], &wanted.octets()].concat(),
    )
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    let sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    (!sum as u16).to_be_bytes()
}

fn udp(from: Ipv4Addr, to: Ipv4Addr, ports: (u16, u16), body: &[u8]) -> Vec<u8> {
    let len = (body.len() + 8) as u16;
    let mut ip = [
        &[0x45, 0][..],
        &(len + 20).to_be_bytes(),
        &[0, 1, 0, 0, 64, 17, 0, 0],
        &from.octets(),
        &to.octets(),
    ]
    .concat();
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum);
    let udp = [
        &ports.0.to_be_bytes()[..],
        &ports.1.to_be_bytes(),
        &len.to_be_bytes(),
        &[0, 0],
    ]
    .concat();
    frame(BROADCAST, 0x0800, &[&ip[..], &udp, body].concat())
}

/// A question of a DHCP client, as its bytes are in RFC 2131.
fn dhcp(kind: u8, requested: Option<Ipv4Addr>) -> Vec<u8> {
    let mut body = vec![0; 240];
    body[..3].copy_from_slice(&[1, 1, 6]);
    body[4..8].copy_from_slice(b"test");
    body[28..34].copy_from_slice(&GUEST);
    body[236..240].copy_from_slice(&[99, 130, 83, 99]);
    body.extend_from_slice(&[53, 1, kind]);
    if let Some(address) = requested {
        body.extend_from_slice(&[50, 4]);
        body.extend_from_slice(&address.octets());
    }
    body.push(255);
    udp(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, (68, 67), &body)
}

/// The guest's side of a tap.
struct Guest(File);

impl Guest {
    fn new(tap: File) -> Self {
        // SAFETY: the descriptor is open; only a flag of it changes.
        let set = unsafe { libc::fcntl(tap.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        assert_ne!(set, -1);
        Self(tap)
    }

    fn send(&mut self, frame: &[u8]) {
        self.0.write_all(frame).unwrap();
    }

    /// The next answer of a DHCP server: kind, address, all of it.
    fn dhcp_answer(&mut self) -> Option<(u8, Ipv4Addr, Vec<u8>)> {
        let mut bytes = [0; 2048];
        loop {
            let len = self.0.read(&mut bytes).ok()?;
            let frame = &bytes[HEADER..len];
            // IPv4, UDP, to port 68.
            if frame.len() > 282 && frame[12..14] == [8, 0] && frame[23] == 17 && frame[36..38] == [0, 68] {
                let body = &frame[42..];
                let address = Ipv4Addr::new(body[16], body[17], body[18], body[19]);
                assert_eq!(body[240..242], [53, 1]);
                return Some((body[242], address, body.to_vec()));
            }
        }
    }
}

struct Bridge(String);

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = std::process::Command::new("ip")
            .args(["link", "del", &self.0])
            .status();
    }
}

/// An isolated network with one machine in it, and its end.
struct Isolated {
    network: IsolatedNetwork,
    folder: tempfile::TempDir,
}

impl Isolated {
    fn new(name: &str, segment: Segment) -> Self {
        let network = IsolatedNetwork::new(&format!("{name}-{}", std::process::id())).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let seats = Seats {
            folder: folder.path().to_owned(),
            seats: vec![Seat {
                mac: "52:54:00:11:22:33".into(),
                address: Some(NicAddress {
                    cidr: "192.0.2.77/24".parse().unwrap(),
                    gateway: Some(Ipv4Addr::new(192, 0, 2, 1)),
                    dns: Vec::new(),
                }),
            }],
            segment,
        };
        network.acquire(&seats).unwrap();
        network.acquire(&seats).unwrap();
        Self { network, folder }
    }
}

impl Drop for Isolated {
    fn drop(&mut self) {
        let _ = self.network.release(self.folder.path());
    }
}

#[test]
fn no_packet_of_a_test_reaches_production_and_the_same_guest_would_be_seen_there() {
    if lacks_root() {
        return;
    }
    let production = Bridge(format!("lbt{}", std::process::id() % 100_000));
    ok("ip", &["link", "add", &production.0, "type", "bridge"]);
    ok("ip", &["link", "set", &production.0, "up"]);
    let isolated = Isolated::new("capture", Segment::default());
    let outside = Capture::of(GUEST);
    let inside = isolated.network.inside(|| Capture::of(GUEST)).unwrap();
    let chatter = |guest: &mut Guest| {
        let own = Ipv4Addr::new(192, 0, 2, 77);
        for last in [1, 2, 254] {
            guest.send(&arp(own, Ipv4Addr::new(192, 0, 2, last)));
        }
        guest.send(&udp(own, Ipv4Addr::BROADCAST, (9, 9), b"to everybody"));
        guest.send(&udp(
            own,
            Ipv4Addr::new(198, 51, 100, 1),
            (9, 9),
            b"to somebody outside",
        ));
        guest.send(&dhcp(1, None));
    };
    let mut guest = Guest::new(isolated.network.tap().unwrap());
    chatter(&mut guest);
    let mut within = 0;
    until("the frames are seen inside", || {
        within += inside.seen();
        (within >= 6).then_some(())
    });
    // The host answers inside, as the gateway that the guest knows.
    until("an answer to its question for an address", || {
        // Again: what is asked while the bridge's port is only coming up is lost.
        guest.send(&dhcp(1, None));
        std::thread::sleep(Duration::from_millis(50));
        guest.dhcp_answer()
    });
    assert_eq!(outside.seen(), 0, "a frame of the isolated network came out");

    drop(guest);
    inside.seen();
    // The same frames on the production bridge are seen by the same capture: it does not look past them.
    let mut guest = Guest::new(tap_on_host_bridge(&production.0).unwrap());
    chatter(&mut guest);
    let mut seen = 0;
    until("the frames are seen in production", || {
        seen += outside.seen();
        (seen >= 6).then_some(())
    });
    drop(guest);
    assert_eq!(inside.seen(), 0, "and none of them came in");
}

#[test]
fn a_machine_gets_the_address_that_it_has_at_the_source_also_after_the_server_was_restarted() {
    if lacks_root() {
        return;
    }
    let isolated = Isolated::new("dhcp", Segment::default());
    let own = Ipv4Addr::new(192, 0, 2, 77);
    let mut guest = Guest::new(isolated.network.tap().unwrap());
    let mut ask = |kind, requested| {
        // Until somebody answers: a bridge's port forwards nothing in its first moments.
        until("an answer of the DHCP server", || {
            guest.send(&dhcp(kind, requested));
            std::thread::sleep(Duration::from_millis(50));
            guest.dhcp_answer()
        })
    };
    let (kind, address, body) = ask(1, None);
    assert_eq!((kind, address), (2, own));
    let has = |wanted: &[u8]| body.windows(wanted.len()).any(|part| part == wanted);
    assert!(has(&[1, 4, 255, 255, 255, 0]) && has(&[3, 4, 192, 0, 2, 1]));
    // The answers to what was asked more than once.
    while until("the acknowledgement", || Some(ask(3, Some(own)).0)) != 5 {}
    while ask(3, Some(Ipv4Addr::new(192, 0, 2, 78))).0 != 6 {}
    // The host has the gateway's address: a probe from inside has a neighbour to ask for.
    let refused = isolated.network.probe(
        &Probe::Tcp { port: 9 },
        SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 9)),
        Duration::from_secs(5),
    );
    assert!(refused.unwrap_err().contains("refused"));
    let ping = isolated.network.probe(
        &Probe::Ping,
        SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 0)),
        Duration::from_secs(5),
    );
    ping.unwrap();
    let nobody = isolated.network.probe(
        &Probe::Ping,
        SocketAddr::from((Ipv4Addr::new(192, 0, 2, 2), 0)),
        Duration::from_millis(200),
    );
    nobody.unwrap_err();
    // As a server does that starts: who sits in the network is noted with it.
    lifeboat::target::network::resume(isolated.folder.path());
    let known = isolated.network.known_addresses().unwrap();
    assert_eq!(known.leases.len(), 1);
    assert_eq!(ask(1, None).1, own);
}

#[test]
fn with_dhcp_off_nobody_answers() {
    if lacks_root() {
        return;
    }
    let off = Segment {
        dhcp: false,
        ..Segment::default()
    };
    let isolated = Isolated::new("silent", off);
    let inside = isolated.network.inside(|| Capture::of(GUEST)).unwrap();
    let mut guest = Guest::new(isolated.network.tap().unwrap());
    let mut seen = 0;
    until("its questions are seen inside", || {
        guest.send(&dhcp(1, None));
        std::thread::sleep(Duration::from_millis(20));
        seen += inside.seen();
        (seen >= 5).then_some(())
    });
    assert_eq!(guest.dhcp_answer(), None);
}
