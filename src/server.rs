//! The server: the roles of one process put together.
//!
//! Owns the data folder: `vault.db`, `pki/`, `store/`, `vms/`, `api.sock`. The store's lock keeps a second server out.
use crate::configuration_server::pki::{Pki, PkiError};
use crate::configuration_server::{ControlService, DEFAULT_CLIENT_LIFE, Reconciler, Roster, accept};
use crate::process_server::{Maintenance, ReplicationService, Sessions};
use crate::replica::{ReplicaError, Store};
use crate::vault::{Vault, VaultError};
use crate::wire::MESSAGE_BYTES_MAX;
use crate::wire::proto::control_server::ControlServer;
use crate::wire::proto::replication_server::ReplicationServer;
use crate::wire::tls::{TlsError, server_config};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

#[derive(Clone, Debug)]
pub struct ServerSettings {
    pub data_dir: PathBuf,
    /// Data port: agents dial it.
    pub data_listen: SocketAddr,
    /// HTTPS port of API and web interface.
    pub api_listen: SocketAddr,
    /// Names and addresses of this host, for the certificate that browsers see.
    pub names: Vec<String>,
    pub heartbeat: Duration,
    /// Between two rounds of thinning and folding.
    pub maintenance: Duration,
    /// Of new client certificates.
    pub client_life: Duration,
}

impl ServerSettings {
    pub fn new(data_dir: PathBuf, data_listen: SocketAddr, api_listen: SocketAddr) -> Self {
        Self {
            data_dir,
            data_listen,
            api_listen,
            names: vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
            heartbeat: Duration::from_secs(5),
            maintenance: Duration::from_secs(30),
            client_life: DEFAULT_CLIENT_LIFE,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("443 is refused as the data port: it is kept for web servers; take another one")]
    Port443,
    #[error("cannot {action} {object}")]
    Io {
        action: &'static str,
        object: String,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A running server.
pub struct Server {
    pub vault: Vault,
    pub store: Store,
    pub pki: Arc<Pki>,
    pub roster: Arc<Roster>,
    pub sessions: Sessions,
    /// Where the data port listens.
    pub data_address: SocketAddr,
    /// Where the API listens.
    pub api_address: SocketAddr,
    pub data_dir: PathBuf,
    /// Of the first administrator, when this start made it.
    pub one_time_password: Option<String>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    pub async fn start(settings: ServerSettings) -> Result<Self, ServerError> {
        if settings.data_listen.port() == 443 {
            return Err(ServerError::Port443);
        }
        let opened = {
            let settings = settings.clone();
            tokio::task::spawn_blocking(move || open(&settings))
        };
        let (pki, vault, store) = opened.await.map_err(|_| ServerError::Io {
            action: "open",
            object: settings.data_dir.display().to_string(),
            source: std::io::Error::other("the start was interrupted"),
        })??;
        let listener = tokio::net::TcpListener::bind(settings.data_listen)
            .await
            .and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (data_address, listener) = listener.map_err(|source| ServerError::Io {
            action: "listen on",
            object: settings.data_listen.to_string(),
            source,
        })?;
        let (stop, tasks, sessions) = (CancellationToken::new(), TaskTracker::new(), Sessions::default());
        let roster = Roster::new(vault.clone(), store.clone(), sessions.clone(), settings.heartbeat);
        let maintenance = Maintenance {
            store: store.clone(),
            retention: roster.clone(),
            report: roster.clone(),
            interval: settings.maintenance,
        };
        tasks.spawn(maintenance.run(stop.clone()));
        let reconciler = Reconciler {
            vault: vault.clone(),
            store: store.clone(),
            sessions: sessions.clone(),
            roster: roster.clone(),
        };
        tasks.spawn(reconciler.run(stop.clone()));
        let server = Self {
            vault,
            store,
            pki,
            roster,
            sessions,
            data_address,
            api_address: settings.api_listen,
            data_dir: settings.data_dir.clone(),
            one_time_password: None,
            stop,
            tasks,
        };
        server.serve_agents(&settings, listener)?;
        Ok(server)
    }

    fn serve_agents(
        &self,
        settings: &ServerSettings,
        listener: tokio::net::TcpListener,
    ) -> Result<(), ServerError> {
        let tls = server_config(&self.pki.chain_pem, &self.pki.key_pem, self.pki.ca_pem())?;
        let control = ControlService {
            vault: self.vault.clone(),
            pki: self.pki.clone(),
            roster: self.roster.clone(),
            heartbeat: settings.heartbeat,
            client_life: settings.client_life,
        };
        let replication = ReplicationService::new(
            self.store.clone(),
            self.roster.clone(),
            self.roster.clone(),
            self.sessions.clone(),
            self.tasks.clone(),
        );
        let router = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(Duration::from_secs(10)))
            .http2_keepalive_timeout(Some(Duration::from_secs(20)))
            .initial_stream_window_size(2 << 20)
            .initial_connection_window_size(4 << 20)
            .add_service(ControlServer::new(control).max_decoding_message_size(MESSAGE_BYTES_MAX))
            .add_service(ReplicationServer::new(replication).max_decoding_message_size(MESSAGE_BYTES_MAX));
        let connections = accept(listener, tls, self.stop.clone());
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let ended = router
                .serve_with_incoming_shutdown(connections, stop.cancelled_owned())
                .await;
            if let Err(error) = ended {
                tracing::error!(%error, "the data port ended");
            }
        });
        Ok(())
    }

    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Tasks that must have ended before the process may end.
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Ends sessions and tasks. What was acknowledged is durable already.
    pub async fn stop(self) {
        self.stop.cancel();
        self.sessions.end_all();
        self.tasks.close();
        // A peer that keeps its connection open must not keep the server from stopping.
        let _ = tokio::time::timeout(Duration::from_secs(10), self.tasks.wait()).await;
    }
}

fn open(settings: &ServerSettings) -> Result<(Arc<Pki>, Vault, Store), ServerError> {
    let folder = &settings.data_dir;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|source| ServerError::Io {
            action: "make",
            object: folder.display().to_string(),
            source,
        })?;
    let pki = Pki::open(&folder.join("pki"), &settings.names)?;
    // The store first: its lock tells a second server before it touches the database.
    let store = Store::create(&folder.join("store"), &pki.vault_key)?;
    let vault = Vault::open(&folder.join("vault.db"))?;
    for machine in store.machines() {
        let points = store.points(machine.id)?;
        vault.remember_points(
            machine.id,
            points.iter().map(|point| crate::vault::PointMark {
                id: point.id,
                instant_unix_nanos: point.instant_unix_nanos,
                consistency: point.consistency,
            }),
        );
    }
    Ok((Arc::new(pki), vault, store))
}
