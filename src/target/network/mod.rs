//! Networks that machines are put in.
//!
//! An isolated network is a bridge in a network namespace of its own. A machine's tap is made inside and handed to its QEMU as an
//! open descriptor, so QEMU itself stays outside and the machine has no way out. Probes run inside: see [`IsolatedNetwork::inside`].
//! The namespace is bound to `/run/netns/lifeboat-NAME`, where `ip netns` finds it too. Who uses it is noted in
//! `/run/lifeboat/networks/NAME`; with the last user it goes. Both are gone after a restart of the host, as the machines are.
pub mod cidr;
mod device;
mod dhcp;
pub mod probe;
mod seats;
mod service;

pub use seats::{Addresses, Lease, Seat, Seats};

use super::TargetError;
use rustix::fs::FlockOperation;
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

const NAMESPACES: &str = "/run/netns";
const USERS: &str = "/run/lifeboat/networks";
const BRIDGE: &str = "bridge0";

/// What the kernel wants for namespaces, bridges and taps.
fn need_root(what: &str) -> Result<(), TargetError> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(TargetError::Refused(format!(
        "{what} needs root; without it machines can be put in a user network"
    )))
}

fn mkdir(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
}

/// A tap on a bridge of the host.
pub fn tap_on_host_bridge(bridge: &str) -> Result<File, TargetError> {
    need_root("a bridge of the host")?;
    device::tap(bridge).map_err(|error| TargetError::Network {
        network: bridge.to_owned(),
        detail: format!("cannot connect a machine to this bridge of the host: {error}"),
    })
}

pub struct IsolatedNetwork {
    name: String,
}

impl IsolatedNetwork {
    /// Makes nothing yet.
    pub fn new(name: &str) -> Result<Self, TargetError> {
        let fine = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
        if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.chars().all(fine) {
            return Err(TargetError::Refused(format!(
                "{name:?} is no name of a network: 1-64 letters, digits, hyphens, dots, underscores"
            )));
        }
        need_root("an isolated network")?;
        Ok(Self {
            name: name.to_owned(),
        })
    }

    /// As `ip netns` lists it.
    pub fn namespace(&self) -> String {
        format!("lifeboat-{}", self.name)
    }

    fn namespace_file(&self) -> PathBuf {
        Path::new(NAMESPACES).join(self.namespace())
    }

    fn users(&self) -> PathBuf {
        Path::new(USERS).join(&self.name)
    }

    fn error(&self, what: &str, error: io::Error) -> TargetError {
        TargetError::Network {
            network: self.name.clone(),
            detail: format!("{what}: {error}"),
        }
    }

    /// Against two servers, or two threads, that make and remove.
    fn lock(&self) -> io::Result<File> {
        mkdir(Path::new(USERS))?;
        let file = File::create(Path::new(USERS).join(".lock"))?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
        Ok(file)
    }

    fn exists(&self) -> bool {
        // A file that nothing is bound to was left by a start of the host, or of a container.
        rustix::fs::statfs(self.namespace_file()).is_ok_and(|found| found.f_type == libc::NSFS_MAGIC)
    }

    /// Makes the network where it is missing, and notes the NICs that this folder's machine has in it. The host gets an address
    /// in each of their subnets, so that probes reach them, and hands out theirs by DHCP where that is on.
    pub fn acquire(&self, user: &Seats) -> Result<(), TargetError> {
        let acquire = || -> io::Result<()> {
            let _lock = self.lock()?;
            mkdir(&self.users())?;
            let unfinished = self.users().join(".new");
            std::fs::write(&unfinished, serde_json::to_vec(user)?)?;
            std::fs::rename(&unfinished, self.users().join(mark(&user.folder)))?;
            if !self.exists() {
                self.make()?;
            }
            self.enter(|| {
                device::up("lo")?;
                device::bridge(BRIDGE)
            })??;
            self.serve()
        };
        acquire().map_err(|error| self.error("cannot make it", error))
    }

    /// What follows from the notes: the host's addresses, and a DHCP server in this process.
    fn serve(&self) -> io::Result<()> {
        let addresses = self.addresses()?;
        self.enter(|| {
            addresses.host.iter().enumerate().try_for_each(|(place, cidr)| {
                // One more address needs a label of its own.
                let label = if place == 0 {
                    BRIDGE.to_owned()
                } else {
                    format!("{BRIDGE}:{place}")
                };
                device::set_address(&label, cidr.address, cidr.prefix())
            })
        })??;
        if self.seats()?.iter().any(|seats| seats.segment.dhcp) {
            service::ensure(self)?;
        }
        Ok(())
    }

    fn seats(&self) -> io::Result<Vec<Seats>> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(self.users())? {
            let entry = entry?;
            if !entry.file_name().as_encoded_bytes().starts_with(b".") {
                all.extend(note(&std::fs::read(entry.path())?));
            }
        }
        // In an order that does not depend on the folder's.
        all.sort_by(|a, b| a.folder.cmp(&b.folder));
        Ok(all)
    }

    /// Who has which address inside.
    pub fn known_addresses(&self) -> Result<Addresses, TargetError> {
        self.addresses()
            .map_err(|error| self.error("cannot read who is in it", error))
    }

    fn addresses(&self) -> io::Result<Addresses> {
        Ok(seats::addresses(&self.seats()?))
    }

    /// The user needs it no more; with the last one it goes. Safe to repeat.
    pub fn release(&self, user: &Path) -> Result<(), TargetError> {
        let release = || -> io::Result<()> {
            let _lock = self.lock()?;
            gone(std::fs::remove_file(self.users().join(mark(user))))?;
            match std::fs::read_dir(self.users()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                listed => {
                    for entry in listed? {
                        let entry = entry?.path();
                        let folder = note(&std::fs::read(&entry)?).map(|seats| seats.folder);
                        if folder.is_some_and(|folder| folder.exists()) {
                            return Ok(());
                        }
                        // Its folder was removed without us.
                        gone(std::fs::remove_file(entry))?;
                    }
                }
            }
            service::end(&self.name);
            if self.exists() {
                rustix::mount::unmount(self.namespace_file(), UnmountFlags::DETACH)?;
            }
            gone(std::fs::remove_file(self.namespace_file()))?;
            gone(std::fs::remove_dir(self.users()))
        };
        release().map_err(|error| self.error("cannot remove it", error))
    }

    fn make(&self) -> io::Result<()> {
        let folder = Path::new(NAMESPACES);
        mkdir(folder)?;
        // As `ip netns` does: what is bound here shall be seen in every mount namespace.
        let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
        if rustix::mount::mount_change(folder, shared).is_err() {
            rustix::mount::mount_bind(folder, folder)?;
            rustix::mount::mount_change(folder, shared)?;
        }
        let file = self.namespace_file();
        File::create(&file)?;
        // On a thread of its own: it stays in the new namespace until it ends.
        let made = in_thread(|| {
            // SAFETY: no pointers; changes this thread only.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } == -1 {
                return Err(io::Error::last_os_error());
            }
            Ok(rustix::mount::mount_bind("/proc/thread-self/ns/net", &file)?)
        })?;
        if made.is_err() {
            let _ = std::fs::remove_file(file);
        }
        made
    }

    fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        let namespace = File::open(self.namespace_file())?;
        in_thread(|| {
            // SAFETY: a descriptor that is open; changes this thread only.
            if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } == -1 {
                return Err(io::Error::last_os_error());
            }
            Ok(work())
        })?
    }

    /// Does the work on a thread inside the network: sockets made there, and commands started there, are in it for good.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, TargetError> {
        self.enter(work)
            .map_err(|error| self.error("cannot enter it", error))
    }

    /// Which namespace it is now: a network that was removed and made again is another one.
    fn identity(&self) -> Option<u64> {
        use std::os::unix::fs::MetadataExt;
        self.exists().then(|| {
            std::fs::metadata(self.namespace_file())
                .ok()
                .map(|found| found.ino())
        })?
    }

    /// Asks a machine inside.
    pub fn probe(
        &self,
        probe: &probe::Probe,
        address: SocketAddr,
        limit: Duration,
    ) -> Result<String, String> {
        self.inside(|| probe.ask(address, limit))
            .unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Gives the host an address inside, so that probes reach the machines. Replaces the one before.
    pub fn set_address(&self, address: Ipv4Addr, prefix: u8) -> Result<(), TargetError> {
        self.inside(|| device::set_address(BRIDGE, address, prefix))?
            .map_err(|error| self.error("cannot set the address of the bridge", error))
    }

    /// A TCP connection to a machine inside.
    pub fn connect(&self, address: SocketAddr, limit: Duration) -> Result<TcpStream, TargetError> {
        self.inside(|| TcpStream::connect_timeout(&address, limit))?
            .map_err(|error| self.error(&format!("no connection to {address}"), error))
    }

    /// Runs a command inside, to its end.
    pub fn run(&self, command: &mut Command) -> Result<Output, TargetError> {
        self.inside(|| command.output())?
            .map_err(|error| self.error("cannot run the command", error))
    }

    /// A tap on the bridge, for a machine's QEMU.
    pub fn tap(&self) -> Result<File, TargetError> {
        self.inside(|| device::tap(BRIDGE))?
            .map_err(|error| self.error("cannot connect a machine", error))
    }
}

/// A user as it was noted, also by a version that noted the folder alone.
fn note(bytes: &[u8]) -> Option<Seats> {
    if bytes.first() == Some(&b'/') {
        return Some(Seats {
            folder: PathBuf::from(OsStr::from_bytes(bytes)),
            ..Seats::default()
        });
    }
    serde_json::from_slice(bytes).ok()
}

/// After a start of the server: serves the networks of machines below this folder again.
pub fn resume(vms: &Path) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let names: Vec<String> = std::fs::read_dir(USERS)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    for network in names.iter().filter_map(|name| IsolatedNetwork::new(name).ok()) {
        let ours = network
            .seats()
            .is_ok_and(|all| all.iter().any(|seats| seats.folder.starts_with(vms)));
        if ours
            && network.exists()
            && let Err(error) = network.serve()
        {
            tracing::warn!(network = network.name, %error, "addresses are not handed out in this network");
        }
    }
}

/// The file name of a user.
fn mark(user: &Path) -> String {
    let hash = blake3::hash(user.as_os_str().as_encoded_bytes());
    hash.to_hex()[..32].to_owned()
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn in_thread<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .spawn_scoped(scope, work)?
            .join()
            .map_err(|_| io::Error::other("the thread panicked"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(name: &str) -> Option<IsolatedNetwork> {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "CI runs as root");
            eprintln!("skipped: needs root for network namespaces");
            let refused = IsolatedNetwork::new(name).err().unwrap();
            assert!(matches!(refused, TargetError::Refused(_)));
            return None;
        }
        Some(IsolatedNetwork::new(&format!("{name}-{}", std::process::id())).unwrap())
    }

    #[test]
    fn names() {
        for wrong in ["", ".", "..", "a/b", "a b", &"a".repeat(65)] {
            let refused = IsolatedNetwork::new(wrong).err().unwrap();
            assert!(matches!(refused, TargetError::Refused(_)), "{wrong}");
        }
    }

    #[test]
    fn lives_from_its_first_user_to_its_last() {
        let Some(network) = network("unit") else { return };
        let folder = tempfile::tempdir().unwrap();
        let users = ["a", "b", "gone"].map(|name| folder.path().join(name));
        users.iter().for_each(|user| std::fs::create_dir(user).unwrap());
        for user in &users {
            let seats = Seats {
                folder: user.clone(),
                ..Seats::default()
            };
            network.acquire(&seats).unwrap();
            network.acquire(&seats).unwrap();
        }
        assert!(network.exists());
        network.set_address(Ipv4Addr::new(10, 9, 8, 7), 24).unwrap();
        network.set_address(Ipv4Addr::new(10, 9, 8, 8), 24).unwrap();
        // Inside there is only what is inside: a listener there is not reached from here.
        let listener = network
            .inside(|| std::net::TcpListener::bind("0.0.0.0:0").unwrap())
            .unwrap();
        let port = listener.local_addr().unwrap().port();
        let address = SocketAddr::from((Ipv4Addr::new(10, 9, 8, 8), port));
        network.connect(address, Duration::from_secs(10)).unwrap();
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        network.connect(loopback, Duration::from_secs(10)).unwrap();
        let outside = TcpStream::connect_timeout(&loopback, Duration::from_secs(10));
        assert_eq!(outside.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let devices = || {
            let listed = network.run(Command::new("cat").arg("/proc/thread-self/net/dev"));
            String::from_utf8(listed.unwrap().stdout).unwrap()
        };
        assert!(devices().contains("bridge0") && !devices().contains("lifeboat0"));
        let tap = network.tap().unwrap();
        assert!(devices().contains("lifeboat0"));
        drop(tap);
        assert!(!devices().contains("lifeboat0"));
        drop(listener);
        std::fs::remove_dir(&users[2]).unwrap();
        network.release(&users[0]).unwrap();
        assert!(network.exists());
        network.release(&users[1]).unwrap();
        network.release(&users[1]).unwrap();
        assert!(!network.exists() && !network.namespace_file().exists() && !network.users().exists());
        assert!(network.connect(address, Duration::from_millis(300)).is_err());
    }
}
