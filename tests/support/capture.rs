//! Sees every frame of one hardware address that passes any device of a network namespace.
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

pub struct Capture(OwnedFd);

/// Only frames from or to the address reach the socket: whatever else passes cannot crowd them out.
fn filter(mac: [u8; 6]) -> [libc::sock_filter; 10] {
    const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
    const IS: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const END: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let head = u32::from_be_bytes([mac[0], mac[1], mac[2], mac[3]]);
    let tail = u32::from(u16::from_be_bytes([mac[4], mac[5]]));
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    [
        step(LOAD_WORD, 0, 0, 0),
        step(IS, 0, 2, head),
        step(LOAD_HALF, 0, 0, 4),
        step(IS, 4, 0, tail),
        step(LOAD_WORD, 0, 0, 6),
        step(IS, 0, 3, head),
        step(LOAD_HALF, 0, 0, 10),
        step(IS, 0, 1, tail),
        step(END, 0, 0, 0xffff),
        step(END, 0, 0, 0),
    ]
}

impl Capture {
    /// In the namespace of the calling thread.
    pub fn of(mac: [u8; 6]) -> Self {
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK;
        // SAFETY: no pointers. Protocol 0: nothing arrives before the filter is there.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        assert_ne!(fd, -1, "{}", io::Error::last_os_error());
        // SAFETY: just made, and nobody else's.
        let made = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        let mut filter = filter(mac);
        let program = libc::sock_fprog {
            len: filter.len() as u16,
            filter: filter.as_mut_ptr(),
        };
        // SAFETY: the program and its steps outlive the call, which copies them.
        let set = unsafe {
            libc::setsockopt(
                fd,
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                size_of::<libc::sock_fprog>() as u32,
            )
        };
        assert_eq!(set, 0, "{}", io::Error::last_os_error());
        // SAFETY: all zeros is a valid address; the length is its own.
        let bound = unsafe {
            let mut all: libc::sockaddr_ll = std::mem::zeroed();
            all.sll_family = libc::AF_PACKET as u16;
            all.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
            libc::bind(fd, (&raw const all).cast(), size_of::<libc::sockaddr_ll>() as u32)
        };
        assert_eq!(bound, 0, "{}", io::Error::last_os_error());
        made
    }

    /// Frames since the last look.
    pub fn seen(&self) -> usize {
        let mut count = 0;
        let mut frame = [0u8; 2048];
        loop {
            // SAFETY: the buffer outlives the call.
            let len = unsafe { libc::recv(self.0.as_raw_fd(), frame.as_mut_ptr().cast(), frame.len(), 0) };
            if len < 0 {
                let error = io::Error::last_os_error();
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
                return count;
            }
            count += 1;
        }
    }
}
