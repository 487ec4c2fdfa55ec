//! Bridges and tap devices of the network namespace that the calling thread is in. By ioctl: no program is needed.
//!
//! A tap is not persistent: it lives as long as a descriptor of it, so a machine that ends in any way leaves none behind.
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};

const BRIDGE_ADD: libc::c_ulong = 0x89a0; // SIOCBRADDBR
const BRIDGE_ADD_PORT: libc::c_ulong = 0x89a2; // SIOCBRADDIF

fn request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: plain data, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains('\0') {
        let text = format!("{name:?} is no name of a network device");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

fn ioctl(fd: RawFd, number: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: every request used here takes an ifreq, which outlives the call.
    match unsafe { libc::ioctl(fd, number as _, std::ptr::from_mut(request)) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Any socket of the namespace takes these requests.
fn control() -> io::Result<UdpSocket> {
    // A local socket that is bound and sends nothing; works in a namespace where no device is up.
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
}

pub(super) fn up(name: &str) -> io::Result<()> {
    let control = control()?;
    let mut request = request(name)?;
    ioctl(control.as_raw_fd(), libc::SIOCGIFFLAGS as _, &mut request)?;
    // SAFETY: the kernel has just filled this member; any value of it is valid.
    unsafe { request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short };
    ioctl(control.as_raw_fd(), libc::SIOCSIFFLAGS as _, &mut request)
}

/// Makes a bridge, or finds it, and switches it on. It has an address of its own: else it takes one of its ports, and neighbours
/// lose it when ports come and go.
pub(super) fn bridge(name: &str) -> io::Result<()> {
    let control = control()?;
    let mut request = request(name)?;
    // This one takes the bare name, with which an ifreq begins.
    match ioctl(control.as_raw_fd(), BRIDGE_ADD, &mut request) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
        Ok(()) => {
            let mut data = [0; 14];
            // Locally administered; nobody else is in its namespace.
            data[..6].copy_from_slice(&[0x02, 0x6c, 0x62, 0, 0, 1]);
            request.ifr_ifru.ifru_hwaddr = libc::sockaddr {
                sa_family: libc::ARPHRD_ETHER,
                sa_data: data,
            };
            ioctl(control.as_raw_fd(), libc::SIOCSIFHWADDR as _, &mut request)?;
        }
    }
    up(name)
}

fn ipv4(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    for (to, from) in data[2..6].iter_mut().zip(address.octets()) {
        *to = from as libc::c_char;
    }
    libc::sockaddr {
        sa_family: libc::AF_INET as libc::sa_family_t,
        sa_data: data,
    }
}

/// Replaces the address of a device.
pub(super) fn set_address(name: &str, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
    let control = control()?;
    let mut request = request(name)?;
    request.ifr_ifru.ifru_addr = ipv4(address);
    ioctl(control.as_raw_fd(), libc::SIOCSIFADDR as _, &mut request)?;
    request.ifr_ifru.ifru_addr = ipv4(Ipv4Addr::from(mask));
    ioctl(control.as_raw_fd(), libc::SIOCSIFNETMASK as _, &mut request)
}

/// A new tap device on a bridge, switched on.
pub(super) fn tap(bridge: &str) -> io::Result<File> {
    let tap = File::options().read(true).write(true).open("/dev/net/tun")?;
    let mut named = request("lifeboat%d")?;
    named.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    ioctl(tap.as_raw_fd(), libc::TUNSETIFF as _, &mut named)?;
    let name: String = named
        .ifr_name
        .iter()
        .take_while(|letter| **letter != 0)
        .map(|letter| *letter as u8 as char)
        .collect();
    let control = control()?;
    let mut index = request(&name)?;
    ioctl(control.as_raw_fd(), libc::SIOCGIFINDEX as _, &mut index)?;
    let mut port = request(bridge)?;
    // SAFETY: the kernel has just filled this member; any value of it is valid.
    port.ifr_ifru.ifru_ifindex = unsafe { index.ifr_ifru.ifru_ifindex };
    ioctl(control.as_raw_fd(), BRIDGE_ADD_PORT, &mut port)?;
    up(&name)?;
    Ok(tap)
}
