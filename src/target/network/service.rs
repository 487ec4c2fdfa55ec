//! The DHCP servers of this process: a thread for each isolated network that its machines are in.
//!
//! A thread's socket keeps the namespace alive, so it ends with the network: told by this process, or because it sees that
//! another one has removed it. A server that ends takes its threads along; the next one begins anew ([`super::resume`]).
use super::{BRIDGE, IsolatedNetwork, dhcp};
use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How soon a network that another process removed is let go.
const LOOK: Duration = Duration::from_millis(500);
/// A server that takes over may come before the one before has let go of the port.
const BIND_TRIES: u32 = 20;

struct Service {
    /// The namespace that it serves.
    identity: u64,
    stop: Arc<AtomicBool>,
}

static SERVICES: Mutex<Option<HashMap<String, Service>>> = Mutex::new(None);

fn services() -> MutexGuard<'static, Option<HashMap<String, Service>>> {
    SERVICES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves the network, unless it is served already by this process.
pub fn ensure(network: &IsolatedNetwork) -> io::Result<()> {
    let Some(identity) = network.identity() else {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the network is gone"));
    };
    let mut services = services();
    let services = services.get_or_insert_with(HashMap::new);
    if let Some(known) = services.get(&network.name)
        && known.identity == identity
        && !known.stop.load(Ordering::Relaxed)
    {
        return Ok(());
    }
    let socket = network.enter(|| dhcp::socket(BRIDGE))?;
    let socket = match socket {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => None,
        other => Some(other?),
    };
    let stop = Arc::new(AtomicBool::new(false));
    let (network, stopped) = (
        IsolatedNetwork {
            name: network.name.clone(),
        },
        stop.clone(),
    );
    services.insert(network.name.clone(), Service { identity, stop });
    std::thread::Builder::new().name("dhcp".into()).spawn(move || {
        if let Err(error) = serve(&network, identity, &stopped, socket) {
            tracing::warn!(network = network.name, %error, "addresses are no longer handed out in this network");
        }
        // The next one who asks starts it anew.
        stopped.store(true, Ordering::Relaxed);
    })?;
    Ok(())
}

fn serve(
    network: &IsolatedNetwork,
    identity: u64,
    stop: &AtomicBool,
    bound: Option<std::net::UdpSocket>,
) -> io::Result<()> {
    let gone = || stop.load(Ordering::Relaxed) || network.identity() != Some(identity);
    let mut tries = 0;
    let socket = match bound {
        Some(socket) => socket,
        None => loop {
            if gone() {
                return Ok(());
            }
            match network.enter(|| dhcp::socket(BRIDGE))? {
                Ok(socket) => break socket,
                Err(error) if tries >= BIND_TRIES => return Err(error),
                Err(_) => {
                    tries += 1;
                    std::thread::sleep(LOOK);
                }
            }
        },
    };
    socket.set_read_timeout(Some(LOOK))?;
    let mut bytes = [0; dhcp::BYTES_MAX];
    loop {
        match socket.recv_from(&mut bytes) {
            // Also between two questions of guests that never stop asking.
            Ok((len, _)) => {
                if gone() {
                    return Ok(());
                }
                let Some(answer) = dhcp::answer(&bytes[..len], &network.addresses()?) else {
                    continue;
                };
                // One that is lost is asked for again.
                let _ = socket.send_to(&answer, (Ipv4Addr::BROADCAST, dhcp::CLIENT_PORT));
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                if gone() {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

pub fn end(name: &str) {
    if let Some(service) = services().as_mut().and_then(|services| services.remove(name)) {
        service.stop.store(true, Ordering::Relaxed);
    }
}
