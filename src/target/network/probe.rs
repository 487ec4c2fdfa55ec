//! Asks a machine whether it is there: by TCP, HTTP or ping, from inside its network.
//!
//! What answers are a guest's bytes: little of it is read, and only as text.
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// A status line and some headers; the rest is not wanted.
const HTTP_BYTES_MAX: u64 = 16 * 1024;
const PING_BYTES: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    Tcp {
        port: u16,
    },
    /// `status`: None: 200 to 399.
    Http {
        port: u16,
        path: String,
        status: Option<u16>,
    },
    Ping,
}

impl Probe {
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp { port } | Self::Http { port, .. } => Some(*port),
            Self::Ping => None,
        }
    }

    /// What was seen. From the network namespace of the calling thread.
    pub fn ask(&self, address: SocketAddr, limit: Duration) -> Result<String, String> {
        let words = |error: io::Error| format!("{address}: {error}");
        match self {
            Self::Tcp { .. } => {
                let begin = Instant::now();
                TcpStream::connect_timeout(&address, limit).map_err(words)?;
                Ok(format!(
                    "{address} answers after {} ms",
                    begin.elapsed().as_millis()
                ))
            }
            Self::Http { path, status, .. } => {
                let (found, line) = http(address, path, limit).map_err(words)?;
                let fine = match status {
                    Some(wanted) => found == *wanted,
                    None => (200..400).contains(&found),
                };
                if fine {
                    Ok(format!("http://{address}{path} says {line}"))
                } else {
                    Err(format!("http://{address}{path} says {line}"))
                }
            }
            Self::Ping => {
                let SocketAddr::V4(v4) = address else {
                    return Err(format!("{address} is not an IPv4 address"));
                };
                let took = ping(*v4.ip(), limit).map_err(|error| format!("{}: {error}", v4.ip()))?;
                Ok(format!("{} answers after {} ms", v4.ip(), took.as_millis()))
            }
        }
    }
}

/// Status code and line.
fn http(address: SocketAddr, path: &str, limit: Duration) -> io::Result<(u16, String)> {
    let deadline = Instant::now() + limit;
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    let left = || {
        deadline
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(1))
    };
    stream.set_write_timeout(Some(left()))?;
    stream.write_all(
        format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut bytes = Vec::new();
    let mut part = [0; 1024];
    while !bytes.contains(&b'\n') && (bytes.len() as u64) < HTTP_BYTES_MAX {
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left()))?;
        match stream.read(&mut part)? {
            0 => break,
            len => bytes.extend_from_slice(&part[..len]),
        }
    }
    let line: String = String::from_utf8_lossy(bytes.split(|byte| *byte == b'\n').next().unwrap_or_default())
        .chars()
        .filter(|letter| !letter.is_control())
        .take(100)
        .collect();
    let status = line
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split_whitespace().nth(1))
        .and_then(|status| status.parse().ok());
    match status {
        Some(status) => Ok((status, line)),
        None => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the answer is not HTTP",
        )),
    }
}

/// The internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// One echo (RFC 792). Needs root.
fn ping(address: Ipv4Addr, limit: Duration) -> io::Result<Duration> {
    // SAFETY: no pointers.
    let fd = unsafe {
        libc::socket(
            libc::AF_INET,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            libc::IPPROTO_ICMP,
        )
    };
    if fd == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // The standard library's socket of datagrams has the calls that are needed.
    let socket = std::net::UdpSocket::from(socket);
    let mut id = [0; 2];
    mark_of(&mut id);
    let mut echo = [0; PING_BYTES];
    echo[0] = 8;
    echo[4..6].copy_from_slice(&id);
    let sum = checksum(&echo);
    echo[2..4].copy_from_slice(&sum.to_be_bytes());
    let begin = Instant::now();
    socket.send_to(&echo, (address, 0))?;
    let mut answer = [0; 256];
    loop {
        let left = limit.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer to the ping"));
        }
        socket.set_read_timeout(Some(left))?;
        let (len, from) = match socket.recv_from(&mut answer) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                continue;
            }
            other => other?,
        };
        // Behind the IP header, whose length is in its first byte.
        let head = usize::from(answer[0] & 15) * 4;
        let body = answer.get(head..len).unwrap_or_default();
        if from.ip() == address && body.len() >= 8 && body[0] == 0 && body[4..6] == id {
            return Ok(begin.elapsed());
        }
    }
}

/// Tells this echo from those of others; no secret.
fn mark_of(bytes: &mut [u8; 2]) {
    let hash = blake3::hash(&crate::rt::now_unix_nanos().to_le_bytes());
    bytes.copy_from_slice(&hash.as_bytes()[..2]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const LIMIT: Duration = Duration::from_secs(10);

    fn answering(text: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 512]);
            let _ = stream.write_all(text.as_bytes());
        });
        address
    }

    fn http_of(text: &'static str, status: Option<u16>) -> Result<String, String> {
        let address = answering(text);
        let probe = Probe::Http {
            port: address.port(),
            path: "/".into(),
            status,
        };
        probe.ask(address, LIMIT)
    }

    #[test]
    fn http_by_its_status() {
        assert!(
            http_of("HTTP/1.1 200 OK\r\n\r\n", None)
                .unwrap()
                .ends_with("HTTP/1.1 200 OK")
        );
        assert!(
            http_of("HTTP/1.1 503 No\r\n\r\n", None)
                .unwrap_err()
                .ends_with("503 No")
        );
        assert!(http_of("HTTP/1.1 503 No\r\n\r\n", Some(503)).is_ok());
        assert!(http_of("HTTP/1.1 200 OK\r\n\r\n", Some(204)).is_err());
        for wrong in ["", "SSH-2.0-x\r\n", "HTTP/1.1 \r\n", "HTTP/1.1 2x0 OK\n"] {
            assert!(http_of(wrong, None).unwrap_err().contains("not HTTP"), "{wrong}");
        }
    }

    #[test]
    fn tcp_and_ping() {
        let address = answering("");
        let tcp = Probe::Tcp { port: address.port() };
        tcp.ask(address, LIMIT).unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        tcp.ask(closed, LIMIT).unwrap_err();
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: a ping needs root");
            return;
        }
        Probe::Ping
            .ask(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), LIMIT)
            .unwrap();
        assert_eq!(
            checksum(&[
                0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7
            ]),
            0xb861
        );
    }
}
