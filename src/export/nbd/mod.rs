//! NBD server: fixed newstyle, structured replies, block status, multi-conn. Source of the protocol: the
//! "NBD Protocol" document of the NetworkBlockDevice project.
//!
//! Threads, not async: every request ends in a blocking read or an fsync, and a connection needs few of them.
//! A peer's bytes are checked against limits before anything is allocated; a bad request is answered with an
//! error, and a peer that breaks the framing is disconnected. Nothing here panics for a peer.
mod handshake;
mod transmission;

use super::BlockDevice;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Connections at once; a guest opens one per disk, a copying client a handful.
const CONNECTIONS_MAX: usize = 32;
/// A peer that does not get through the negotiation in this time gives its place to another.
const NEGOTIATION_MAX: Duration = Duration::from_secs(20);

#[derive(Clone, Debug)]
pub enum Listen {
    /// A socket of mode 0600; an old one is replaced in one step, so that a machine that waits for it never meets a gap.
    Unix(PathBuf),
    Tcp(SocketAddr),
}

#[derive(Clone)]
pub struct Export {
    pub name: String,
    pub device: Arc<dyn BlockDevice>,
}

struct Shared {
    exports: Vec<Export>,
    stopping: AtomicBool,
    first_read: OnceLock<Instant>,
    /// Closes what is connected when the server stops.
    peers: Mutex<Vec<(usize, Box<dyn Stream>)>>,
}

/// A connected socket of either kind.
pub(super) trait Stream: io::Read + io::Write + Send {
    fn clone_box(&self) -> io::Result<Box<dyn Stream>>;
    fn shut_down(&self);
    /// Longest wait for the peer's next bytes.
    fn set_patience(&self, limit: Option<Duration>) -> io::Result<()>;
}

impl Stream for std::net::TcpStream {
    fn clone_box(&self) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(self.try_clone()?))
    }
    fn shut_down(&self) {
        let _ = self.shutdown(std::net::Shutdown::Both);
    }
    fn set_patience(&self, limit: Option<Duration>) -> io::Result<()> {
        self.set_read_timeout(limit)
    }
}

impl Stream for std::os::unix::net::UnixStream {
    fn clone_box(&self) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(self.try_clone()?))
    }
    fn shut_down(&self) {
        let _ = self.shutdown(std::net::Shutdown::Both);
    }
    fn set_patience(&self, limit: Option<Duration>) -> io::Result<()> {
        self.set_read_timeout(limit)
    }
}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Unix(listener) => Box::new(listener.accept()?.0),
            Self::Tcp(listener) => {
                let stream = listener.accept()?.0;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
        })
    }

    /// Ends an accept that waits, and all that come.
    fn close(&self) {
        let socket = match self {
            Self::Unix(listener) => listener.as_fd(),
            Self::Tcp(listener) => listener.as_fd(),
        };
        let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
    }
}

/// Replaces what an earlier server left, but nothing else than a socket.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            let text = format!("{} is there and is no socket", path.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        _ => {}
    }
    // Shorter than most names: the path of a socket has 107 bytes at most.
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let unfinished = path.with_file_name(format!(".{}-{count}", std::process::id()));
    let _ = std::fs::remove_file(&unfinished);
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    SocketAddrUnix::new(path)?;
    let bound = (|| {
        rustix::net::bind(&socket, &SocketAddrUnix::new(&unfinished)?)?;
        // Before anybody can connect.
        std::fs::set_permissions(&unfinished, std::fs::Permissions::from_mode(0o600))?;
        rustix::net::listen(&socket, 64)?;
        std::fs::rename(&unfinished, path)
    })();
    if bound.is_err() {
        let _ = std::fs::remove_file(&unfinished);
    }
    bound.map(|()| UnixListener::from(socket))
}

pub struct NbdServer {
    shared: Arc<Shared>,
    listener: Arc<Listener>,
    acceptor: Option<std::thread::JoinHandle<()>>,
    /// Path and inode of the socket, to be removed in the end.
    socket: Option<(PathBuf, u64)>,
}

impl NbdServer {
    pub fn bind(listen: Listen, exports: Vec<Export>) -> io::Result<Self> {
        let (listener, socket) = match listen {
            Listen::Unix(path) => {
                let listener = bind_unix(&path)?;
                let inode = std::fs::symlink_metadata(&path)?.ino();
                (Listener::Unix(listener), Some((path, inode)))
            }
            Listen::Tcp(address) => (Listener::Tcp(TcpListener::bind(address)?), None),
        };
        let listener = Arc::new(listener);
        let shared = Arc::new(Shared {
            exports,
            stopping: AtomicBool::new(false),
            first_read: OnceLock::new(),
            peers: Mutex::new(Vec::new()),
        });
        let acceptor = {
            let (listener, shared) = (listener.clone(), shared.clone());
            std::thread::Builder::new()
                .name("nbd-accept".into())
                .spawn(move || accept_loop(&listener, &shared))?
        };
        Ok(Self {
            shared,
            listener,
            acceptor: Some(acceptor),
            socket,
        })
    }

    /// The port that was given, for TCP.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &*self.listener {
            Listener::Unix(_) => None,
            Listener::Tcp(listener) => listener.local_addr().ok(),
        }
    }

    /// When the first read of any export was answered.
    pub fn first_read(&self) -> Option<Instant> {
        self.shared.first_read.get().copied()
    }

    /// Stops listening, cuts every connection, removes the socket; requests under way end first.
    pub fn shutdown(mut self) {
        self.stop();
    }

    /// Waits until the server is stopped from elsewhere.
    pub fn wait(mut self) {
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }

    fn stop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.listener.close();
        for (_, peer) in self
            .shared
            .peers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            peer.shut_down();
        }
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        // Not the one of a server that has taken the place.
        if let Some((path, inode)) = self.socket.take()
            && std::fs::symlink_metadata(&path).is_ok_and(|found| found.ino() == inode)
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Drop for NbdServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn accept_loop(listener: &Listener, shared: &Arc<Shared>) {
    let mut workers: Vec<std::thread::JoinHandle<()>> = Vec::new();
    for number in 0.. {
        let stream = listener.accept();
        if shared.stopping.load(Ordering::SeqCst) {
            break;
        }
        workers.retain(|worker| !worker.is_finished());
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept an NBD client");
                // Most likely no descriptor is free: not in a busy loop.
                std::thread::sleep(Duration::from_millis(50));
                continue;
            }
        };
        if workers.len() >= CONNECTIONS_MAX {
            tracing::warn!("an NBD client was turned away: {CONNECTIONS_MAX} are connected");
            continue;
        }
        let Ok(peer) = stream.clone_box() else { continue };
        shared
            .peers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((number, peer));
        if shared.stopping.load(Ordering::SeqCst) {
            stream.shut_down();
        }
        let shared = shared.clone();
        let worker = std::thread::Builder::new().name("nbd".into()).spawn(move || {
            let end = serve(stream, &shared);
            shared
                .peers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .retain(|(peer, _)| *peer != number);
            if let Err(error) = end
                && error.kind() != io::ErrorKind::UnexpectedEof
            {
                tracing::info!(%error, "an NBD client was disconnected");
            }
        });
        workers.extend(worker);
    }
    for worker in workers {
        let _ = worker.join();
    }
}

fn serve(mut stream: Box<dyn Stream>, shared: &Shared) -> io::Result<()> {
    stream.set_patience(Some(NEGOTIATION_MAX))?;
    let Some(chosen) = handshake::negotiate(&mut stream, &shared.exports)? else {
        return Ok(());
    };
    stream.set_patience(None)?;
    transmission::serve(stream, &chosen, &shared.first_read)
}
