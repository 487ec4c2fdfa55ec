//! Listening: the unix socket for root of this host, and HTTPS for everybody else.
use super::Origin;
use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// Connections at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 512;
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
const HEADER_LIMIT: Duration = Duration::from_secs(15);
/// Requests under way at shutdown get this long; live views have none to finish.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

struct Server {
    router: Router,
    http: auto::Builder<TokioExecutor>,
    permits: Arc<Semaphore>,
    connections: TaskTracker,
    shutdown: CancellationToken,
}

impl Server {
    fn new(router: Router, shutdown: CancellationToken) -> Arc<Self> {
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_LIMIT);
        http.http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(20))
            .max_concurrent_streams(64);
        Arc::new(Self {
            router,
            http,
            permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            connections: TaskTracker::new(),
            shutdown,
        })
    }

    /// Serves one connection until it ends, or until its requests under way are answered after `shutdown`.
    async fn connection(&self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, origin: Origin) {
        let router = self.router.clone();
        let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(origin.clone());
            router.clone().oneshot(request.map(Body::new))
        });
        let mut connection = std::pin::pin!(
            self.http
                .serve_connection_with_upgrades(TokioIo::new(stream), service)
        );
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = self.shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        // Peers that go away are everyday business.
        if let Err(error) = result {
            tracing::debug!(error, "a connection ended");
        }
    }

    /// A place for one more connection; None: it is time to stop.
    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            () = self.shutdown.cancelled() => None,
            permit = self.permits.clone().acquire_owned() => permit.ok(),
        }
    }

    async fn drain(&self) {
        self.connections.close();
        let _ = tokio::time::timeout(DRAIN_LIMIT, self.connections.wait()).await;
    }
}

/// A failed accept is of the peer (gone already) or of a limit (files): neither ends the server, both wait a moment.
async fn accept_failed(error: &std::io::Error) {
    tracing::warn!(%error, "a connection was not accepted");
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// The API's unix socket, ready to be connected to. Whoever holds the data folder's lock owns the path: a socket that a crash
/// left is replaced.
pub fn bind_unix(path: &Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    // The kernel tells who connects; this keeps others from trying.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves the unix socket at `path` until `shutdown`.
pub async fn serve_unix(path: &Path, router: Router, shutdown: CancellationToken) -> std::io::Result<()> {
    serve_bound(bind_unix(path)?, path, router, shutdown).await
}

/// Serves what [`bind_unix`] bound at `path`.
pub async fn serve_bound(
    listener: UnixListener,
    path: &Path,
    router: Router,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let own = rustix::process::geteuid().as_raw();
    let server = Server::new(router, shutdown);
    while let Some(permit) = server.permit().await {
        let stream = tokio::select! {
            () = server.shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    accept_failed(&error).await;
                    continue;
                }
            },
        };
        let user = match stream.peer_cred() {
            Ok(peer) if peer.uid() == 0 => Some("root".to_owned()),
            Ok(peer) if peer.uid() == own => Some(format!("uid {own}")),
            _ => None,
        };
        let handle = server.clone();
        server.connections.spawn(async move {
            handle.connection(stream, Origin::Unix { user }).await;
            drop(permit);
        });
    }
    server.drain().await;
    let _ = std::fs::remove_file(path);
    Ok(())
}

/// Serves HTTPS on `listener` until `shutdown`.
pub async fn serve_tls(
    listener: TcpListener,
    config: Arc<rustls::ServerConfig>,
    router: Router,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let acceptor = tokio_rustls::TlsAcceptor::from(config);
    let server = Server::new(router, shutdown);
    while let Some(permit) = server.permit().await {
        let (stream, address) = tokio::select! {
            () = server.shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    accept_failed(&error).await;
                    continue;
                }
            },
        };
        let _ = stream.set_nodelay(true);
        let (acceptor, handle) = (acceptor.clone(), server.clone());
        server.connections.spawn(async move {
            let handshake = tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(stream));
            let stream = tokio::select! {
                () = handle.shutdown.cancelled() => return,
                result = handshake => match result {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(error)) => return tracing::debug!(%error, %address, "TLS handshake failed"),
                    Err(_) => return tracing::debug!(%address, "TLS handshake took too long"),
                },
            };
            handle.connection(stream, Origin::Tcp(address)).await;
            drop(permit);
        });
    }
    server.drain().await;
    Ok(())
}
