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
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

/// Connections at once; a guest opens one per disk, a copying client a handful.
const CONNECTIONS_MAX: usize = 32;

#[derive(Clone, Debug)]
pub enum Listen {
    /// A socket of mode 0600; an old one is replaced.
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
}

impl Stream for std::net::TcpStream {
    fn clone_box(&self) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(self.try_clone()?))
    }
    fn shut_down(&self) {
        let _ = self.shutdown(std::net::Shutdown::Both);
    }
}

impl Stream for std::os::unix::net::UnixStream {
    fn clone_box(&self) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(self.try_clone()?))
    }
    fn shut_down(&self) {
        let _ = self.shutdown(std::net::Shutdown::Both);
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

    /// Unblocks an accept.
    fn poke(&self) {
        match self {
            Self::Unix(listener) => {
                if let Ok(address) = listener.local_addr()
                    && let Some(path) = address.as_pathname()
                {
                    let _ = std::os::unix::net::UnixStream::connect(path);
                }
            }
            Self::Tcp(listener) => {
                if let Ok(address) = listener.local_addr() {
                    let _ = std::net::TcpStream::connect(address);
                }
            }
        }
    }
}

pub struct NbdServer {
    shared: Arc<Shared>,
    listener: Arc<Listener>,
    acceptor: Option<std::thread::JoinHandle<()>>,
}

impl NbdServer {
    pub fn bind(listen: Listen, exports: Vec<Export>) -> io::Result<Self> {
        let listener = match &listen {
            Listen::Unix(path) => {
                let _ = std::fs::remove_file(path);
                let listener = UnixListener::bind(path)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
                Listener::Unix(listener)
            }
            Listen::Tcp(address) => Listener::Tcp(TcpListener::bind(address)?),
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

    /// Stops listening and cuts every connection; requests under way end first.
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
        self.listener.poke();
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
        let Ok(stream) = stream else { continue };
        if workers.len() >= CONNECTIONS_MAX {
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
    let Some(chosen) = handshake::negotiate(&mut stream, &shared.exports)? else {
        return Ok(());
    };
    transmission::serve(stream, &chosen, &shared.first_read)
}
