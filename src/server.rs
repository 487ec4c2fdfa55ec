//! The server: the roles of one process put together.
//!
//! Owns the data folder: `vault.db`, `pki/`, `store/`, `vms/`, `api.sock`. The store's lock keeps a second server out.
use crate::alerts::{Dispatcher, SiteWatch};
use crate::api::{self, ApiState};
use crate::block::{DiskId, MachineId};
use crate::configuration_server::groups;
use crate::configuration_server::pki::{Pki, PkiError, days_left, ends_unix};
use crate::configuration_server::vitals::VitalsWatch;
use crate::configuration_server::{
    ControlService, DEFAULT_CLIENT_LIFE, HandoverDesk, Reconciler, Roster, accept,
};
use crate::process_server::{Backlog, Maintenance, ReceiveService, ReplicationService, Sessions};
use crate::recovery::plan::{Engine, EngineParts};
use crate::recovery::{Parts, Runner};
use crate::replica::{ReplicaError, Store};
use crate::target::QemuCompute;
use crate::vault::{Adopted, BackupError, Backups, Vault, VaultError, is_of_older_schema};
use crate::wire::MESSAGE_BYTES_MAX;
use crate::wire::proto::control_server::ControlServer;
use crate::wire::proto::receive_server::ReceiveServer;
use crate::wire::proto::replication_server::ReplicationServer;
use crate::wire::tls::{TlsError, https_config, server_config};
use std::collections::HashMap;
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
    /// Between two backups of the database, where it changed.
    pub backup_interval: Duration,
    /// The database is lost: make it again from its newest backup, or from the manifests of the store.
    pub rebuild: bool,
    /// `/metrics` needs no login.
    pub metrics_public: bool,
    /// Folder of the scripts that recovery plans may use.
    pub plan_scripts: PathBuf,
}

impl ServerSettings {
    pub fn new(data_dir: PathBuf, data_listen: SocketAddr, api_listen: SocketAddr) -> Self {
        Self {
            plan_scripts: data_dir.join("plan-scripts"),
            data_dir,
            data_listen,
            api_listen,
            names: vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
            heartbeat: Duration::from_secs(5),
            maintenance: Duration::from_secs(30),
            client_life: DEFAULT_CLIENT_LIFE,
            backup_interval: Duration::from_secs(3600),
            rebuild: false,
            metrics_public: false,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("443 is refused as the data port: it is kept for web servers; take another one")]
    Port443,
    #[error(
        "the vault's database is missing, but the store holds {machines} machines and {backups} backups of it"
    )]
    DatabaseLost { machines: usize, backups: usize },
    #[error("the vault's database {0} is there: nothing is rebuilt over it")]
    NothingToRebuild(PathBuf),
    #[error(transparent)]
    Backup(#[from] BackupError),
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
    pub runner: Runner,
    pub plans: Engine,
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
    vitals: Arc<VitalsWatch>,
    backups: Arc<Backups>,
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
        let (pki, vault, store, one_time_password) = opened.await.map_err(|_| ServerError::Io {
            action: "open",
            object: settings.data_dir.display().to_string(),
            source: std::io::Error::other("the start was interrupted"),
        })??;
        let (data_address, data_listener) = bind(settings.data_listen).await?;
        let (api_address, api_listener) = bind(settings.api_listen).await?;
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
        tasks.spawn(groups::run(roster.clone(), vault.clone(), stop.clone()));
        let dispatcher = Dispatcher { vault: vault.clone() };
        tasks.spawn(dispatcher.run(stop.clone()));
        let vitals = Arc::new(VitalsWatch::new(vault.clone(), store.clone(), sessions.clone()));
        tasks.spawn(vitals.clone().run(stop.clone()));
        let (watched, ringing) = (pki.clone(), vitals.clone());
        let watch = SiteWatch {
            vault: vault.clone(),
            store: store.clone(),
            alarms: Arc::new(move || ringing.now().troubles()),
            certificate_days: Arc::new(move || days_left(&watched.chain_pem)),
        };
        tasks.spawn(watch.run(stop.clone()));
        let runner = Runner::new(Parts {
            journal: Arc::new(vault.clone()),
            store: store.clone(),
            compute: Arc::new(QemuCompute::new()),
            vms: settings.data_dir.join("vms"),
            source: roster.clone(),
            report: roster.clone(),
        });
        let backups = Arc::new(Backups::of(store.root(), pki.vault_key.clone()));
        let plans = Engine::new(EngineParts {
            runner: runner.clone(),
            journal: Arc::new(vault.clone()),
            scripts: settings.plan_scripts.clone(),
        });
        let server = Self {
            vitals,
            backups,
            runner,
            plans,
            vault,
            store,
            pki,
            roster,
            sessions,
            data_address,
            api_address,
            data_dir: settings.data_dir.clone(),
            one_time_password,
            stop,
            tasks,
        };
        server.tasks.spawn(keep_backups(
            server.vault.clone(),
            server.backups.clone(),
            server.data_dir.join("vault.db"),
            settings.backup_interval,
            server.stop.clone(),
        ));
        // Before anybody is let in: machines that run find their disks again, open jobs go on.
        server.resume().await;
        server.serve_agents(&settings, data_listener)?;
        server.serve_people(&settings, api_listener)?;
        Ok(server)
    }

    async fn resume(&self) {
        let runner = self.runner.clone();
        let vms = std::path::absolute(self.data_dir.join("vms"));
        if let Ok(vms) = vms {
            let _ = tokio::task::spawn_blocking(move || crate::target::network::resume(&vms)).await;
        }
        match tokio::task::spawn_blocking(move || runner.resume()).await {
            Ok(Ok(resumed)) => {
                for (machine, trouble) in &resumed.troubles {
                    tracing::error!(%machine, code = %trouble.code, "{}; {}", trouble.message, trouble.recommended_action);
                }
                if resumed.machines + resumed.jobs > 0 {
                    tracing::info!(machines = resumed.machines, jobs = resumed.jobs, "taken up again");
                }
            }
            Ok(Err(error)) => tracing::error!(%error, "running machines and open jobs could not be taken up"),
            Err(_) => tracing::error!("running machines and open jobs could not be taken up"),
        }
        let plans = self.plans.clone();
        match tokio::task::spawn_blocking(move || plans.resume()).await {
            Ok(Ok(0)) => {}
            Ok(Ok(runs)) => tracing::info!(runs, "runs of recovery plans were taken up again"),
            Ok(Err(error)) => tracing::error!(%error, "runs of recovery plans could not be taken up"),
            Err(_) => tracing::error!("runs of recovery plans could not be taken up"),
        }
    }

    fn serve_people(
        &self,
        settings: &ServerSettings,
        listener: tokio::net::TcpListener,
    ) -> Result<(), ServerError> {
        let state = ApiState::new(
            self.vault.clone(),
            self.runner.clone(),
            self.plans.clone(),
            self.store.clone(),
            Arc::new(SiteOf {
                pki: self.pki.clone(),
                sessions: self.sessions.clone(),
                data_address: self.data_address,
                api_address: self.api_address,
                names: settings.names.clone(),
                vitals: self.vitals.clone(),
                backups: self.backups.clone(),
                database: self.data_dir.join("vault.db"),
            }),
            self.stop.clone(),
        );
        let router = api::router(state.with_public_metrics(settings.metrics_public));
        let tls = Arc::new(https_config(&self.pki.chain_pem, &self.pki.key_pem)?);
        let (https, stop) = (router.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            if let Err(error) = api::serve_tls(listener, tls, https, stop).await {
                tracing::error!(%error, "the HTTPS port ended");
            }
        });
        let (socket, stop) = (self.data_dir.join("api.sock"), self.stop.clone());
        // Bound before the server says that it is ready.
        let bound = api::bind_unix(&socket).map_err(|source| ServerError::Io {
            action: "listen on",
            object: socket.display().to_string(),
            source,
        })?;
        self.tasks.spawn(async move {
            if let Err(error) = api::serve_bound(bound, &socket, router, stop).await {
                tracing::error!(%error, "the API's socket ended");
            }
        });
        Ok(())
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
        let desk = Arc::new(HandoverDesk::new(
            self.vault.clone(),
            self.store.clone(),
            self.roster.clone(),
        ));
        let receive = ReceiveService::new(self.store.clone(), desk);
        let router = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(Duration::from_secs(10)))
            .http2_keepalive_timeout(Some(Duration::from_secs(20)))
            .initial_stream_window_size(2 << 20)
            .initial_connection_window_size(4 << 20)
            .add_service(ControlServer::new(control).max_decoding_message_size(MESSAGE_BYTES_MAX))
            .add_service(ReplicationServer::new(replication).max_decoding_message_size(MESSAGE_BYTES_MAX))
            .add_service(ReceiveServer::new(receive).max_decoding_message_size(MESSAGE_BYTES_MAX));
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
        let (runner, plans, vault) = (self.runner.clone(), self.plans.clone(), self.vault.clone());
        let _ = tokio::task::spawn_blocking(move || {
            plans.shut_down();
            runner.shut_down();
            if let Err(error) = vault.write_churn(crate::rt::now_unix_nanos() / 1_000_000_000) {
                tracing::warn!(%error, "the history of churn was not written");
            }
        })
        .await;
    }
}

async fn bind(address: SocketAddr) -> Result<(SocketAddr, tokio::net::TcpListener), ServerError> {
    let bound = tokio::net::TcpListener::bind(address)
        .await
        .and_then(|listener| Ok((listener.local_addr()?, listener)));
    bound.map_err(|source| ServerError::Io {
        action: "listen on",
        object: address.to_string(),
        source,
    })
}

/// What the API asks of the configuration server.
struct SiteOf {
    pki: Arc<Pki>,
    sessions: Sessions,
    data_address: SocketAddr,
    api_address: SocketAddr,
    names: Vec<String>,
    vitals: Arc<VitalsWatch>,
    backups: Arc<Backups>,
    database: PathBuf,
}

fn backup_failed(error: crate::vault::BackupError) -> api::SiteError {
    api::SiteError {
        what: format!("the backup of the database failed: {error}"),
        source: Some(Box::new(error)),
    }
}

impl api::Site for SiteOf {
    fn backups(&self) -> Result<Vec<crate::vault::Backup>, api::SiteError> {
        self.backups.list().map_err(backup_failed)
    }

    fn back_up(&self) -> Result<crate::vault::Backup, api::SiteError> {
        self.backups
            .make(&self.database, "by-hand")
            .map_err(backup_failed)
    }

    fn servers(&self) -> Vec<api::ServerFacts> {
        let words = |days: Option<i64>| match days {
            Some(days) if days < 30 => {
                format!("the server's certificate ends in {days} days; restart the server")
            }
            _ => format!("{} replication sessions", self.sessions.count()),
        };
        let vitals = self.vitals.now();
        let alarms = vitals.alarms();
        let health = match alarms.iter().map(|alarm| alarm.severity).max() {
            None => "Normal".to_owned(),
            Some(worst) => format!("{worst:?}"),
        };
        vec![api::ServerFacts {
            name: crate::agent::inventory::host_name(),
            roles: ["configuration", "process", "vault", "target"]
                .map(str::to_owned)
                .to_vec(),
            version: crate::rt::executable::version().to_owned(),
            state: "Connected".to_owned(),
            detail: words(days_left(&self.pki.chain_pem)),
            addresses: vec![self.data_address.to_string(), self.api_address.to_string()],
            last_heartbeat_at: Some(api::Time(crate::rt::now_unix_nanos())),
            health,
            alarms: alarms
                .into_iter()
                .map(|alarm| api::ServerAlarm {
                    code: alarm.code.to_owned(),
                    severity: format!("{:?}", alarm.severity),
                    message: alarm.message,
                    possible_causes: alarm.possible_causes.to_owned(),
                    recommended_action: alarm.recommended_action.to_owned(),
                })
                .collect(),
            cpu_percent: vitals.cpu_percent,
            memory_percent: vitals.memory_percent,
            store_capacity_bytes: vitals.store_capacity_bytes,
            store_free_bytes: vitals.store_free_bytes,
            backlog_bytes: vitals.backlog_bytes,
            held_bytes: vitals.held_bytes,
            received_bytes_per_second: vitals.received_bytes_per_second,
            backlog_eta_seconds: vitals.backlog_eta_seconds,
            sessions: self.sessions.count() as u64,
        }]
    }

    fn passphrase(&self) -> Result<String, api::SiteError> {
        Ok(self.pki.passphrase())
    }

    fn rotate_passphrase(&self) -> Result<String, api::SiteError> {
        self.pki.rotate_passphrase().map_err(|error| api::SiteError {
            what: "the new passphrase could not be kept".to_owned(),
            source: Some(Box::new(error)),
        })
    }

    fn ca_pem(&self) -> String {
        self.pki.ca_pem().to_owned()
    }

    fn backlog(&self, machine: MachineId) -> HashMap<DiskId, Backlog> {
        self.sessions.backlog(machine)
    }

    fn way_in(&self) -> Result<api::WayIn, api::SiteError> {
        let failed = |error: PkiError| api::SiteError {
            what: "the server's certificate cannot be read".to_owned(),
            source: Some(Box::new(error)),
        };
        // Loopback only where there is nothing else: the command is run on another machine.
        let (near, far): (Vec<_>, Vec<_>) = self
            .names
            .iter()
            .cloned()
            .partition(|name| name == "localhost" || name.starts_with("127.") || name == "::1");
        Ok(api::WayIn {
            public_key_pin: self.pki.public_key_pin().map_err(failed)?,
            ca_fingerprint: self.pki.fingerprint().map_err(failed)?,
            api_port: self.api_address.port(),
            data_port: self.data_address.port(),
            names: [far, near].concat(),
        })
    }

    fn certificate_ends_unix(&self) -> Option<i64> {
        ends_unix(&self.pki.chain_pem)
    }

    fn machine_revoked(&self, machine: MachineId) {
        self.sessions.end(machine);
    }

    // The reconciler hears of every commit of the vault.
    fn nudge(&self) {}
}

/// A database that is lost beside a store that is not must be said: an empty vault would fence and forget what is there.
fn open_vault(settings: &ServerSettings, store: &Store, pki: &Pki) -> Result<Vault, ServerError> {
    let database = settings.data_dir.join("vault.db");
    let backups = Backups::of(store.root(), pki.vault_key.clone());
    let known = backups.list()?;
    match (database.exists(), settings.rebuild) {
        (true, true) => return Err(ServerError::NothingToRebuild(database)),
        (false, false) if !known.is_empty() || !store.machines().is_empty() => {
            return Err(ServerError::DatabaseLost {
                machines: store.machines().len(),
                backups: known.len(),
            });
        }
        (false, true) => {
            // One that cannot be used is passed over: an older one tells more than manifests do.
            for backup in &known {
                match backups.restore(&backup.name, &database) {
                    Ok(()) => {
                        tracing::warn!(name = backup.name, "the database is restored from this backup");
                        break;
                    }
                    Err(error) => {
                        tracing::error!(error = crate::rt::chain(&error), "a backup cannot be used");
                    }
                }
            }
        }
        _ => {
            if is_of_older_schema(&database)? {
                backups.make(&database, "before-migration")?;
            }
        }
    }
    let vault = Vault::open(&database)?;
    let adopted = vault.adopt_store(store, settings.rebuild)?;
    if adopted != Adopted::default() {
        tracing::warn!(
            rebuilt = adopted.rebuilt,
            generations_raised = adopted.raised,
            "the vault was brought together with the store"
        );
    }
    Ok(vault)
}

/// Whenever the database changed since the last one, but no more often than the interval.
async fn keep_backups(
    vault: Vault,
    backups: Arc<Backups>,
    database: PathBuf,
    interval: Duration,
    stop: CancellationToken,
) {
    let commits = vault.commits();
    let mut saved = None;
    loop {
        let now = *commits.borrow();
        if saved != Some(now) {
            let (backups, database) = (backups.clone(), database.clone());
            let made = tokio::task::spawn_blocking(move || backups.make(&database, "scheduled")).await;
            match made {
                Ok(Ok(_)) => saved = Some(now),
                Ok(Err(error)) => {
                    tracing::error!(
                        error = crate::rt::chain(&error),
                        "the vault's database could not be backed up"
                    );
                }
                Err(_) => {}
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
    }
}

fn open(settings: &ServerSettings) -> Result<(Arc<Pki>, Vault, Store, Option<String>), ServerError> {
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
    // Where it cannot be made, plans with scripts say so.
    let _ = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&settings.plan_scripts);
    let pki = Pki::open(&folder.join("pki"), &settings.names)?;
    // The store first: its lock tells a second server before it touches the database.
    let store = Store::create(&folder.join("store"), &pki.vault_key)?;
    let vault = open_vault(settings, &store, &pki)?;
    let one_time_password = vault.first_start()?;
    Ok((Arc::new(pki), vault, store, one_time_password))
}
