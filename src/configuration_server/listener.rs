//! The data port: TCP, TLS handshake, then gRPC. The handshake is done here and not by the gRPC library, so that a peer that is
//! turned away leaves a line that says why.
use rustls::{CertificateError, Error as Tls};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Handshakes under way at once; more wait in the kernel's queue.
const HANDSHAKES_MAX: usize = 64;

/// Connections whose handshake succeeded. Ends with `stop`.
pub fn accept(
    listener: TcpListener,
    config: rustls::ServerConfig,
    stop: CancellationToken,
) -> ReceiverStream<std::io::Result<TlsStream<TcpStream>>> {
    let (connections, stream) = mpsc::channel(16);
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let under_way = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    tokio::spawn(async move {
        loop {
            let Ok(permit) = under_way.clone().acquire_owned().await else {
                return;
            };
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (socket, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, or a connection that went away: neither ends the port.
                    tracing::warn!(%error, "a connection on the data port could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let (acceptor, connections) = (acceptor.clone(), connections.clone());
            tokio::spawn(async move {
                let _ = socket.set_nodelay(true);
                match tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(socket)).await {
                    Ok(Ok(stream)) => drop(connections.send(Ok(stream)).await),
                    Ok(Err(error)) => turned_away(peer, &error),
                    Err(_) => tracing::info!(%peer, "a peer on the data port did not finish its handshake"),
                }
                drop(permit);
            });
        }
    });
    ReceiverStream::new(stream)
}

fn turned_away(peer: SocketAddr, error: &std::io::Error) {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Tls>());
    match tls {
        Some(Tls::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        )) => {
            tracing::warn!(%peer, "turned away: the client certificate has expired; the machine must join again (lifeboat agent join)");
        }
        Some(Tls::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        )) => {
            tracing::warn!(%peer, "turned away: the client certificate is not valid yet; this server's clock is behind");
        }
        Some(Tls::InvalidCertificate(reason)) => {
            tracing::warn!(%peer, ?reason, "turned away: the client certificate was made by another configuration server");
        }
        _ => tracing::info!(%peer, %error, "a peer on the data port was turned away"),
    }
}
