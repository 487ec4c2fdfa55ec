//! `lifeboat serve`: all roles of the target site in one process.
use super::failure::Failure;
use crate::agent::inventory;
use crate::server::{Server, ServerError, ServerSettings};
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Args)]
#[command(after_help = "Examples:
  lifeboat serve                                      as root: /var/lib/lifeboat, ports 9443 and 8443
  lifeboat serve --data-dir ./site --data-listen 127.0.0.1:9443 --api-listen 127.0.0.1:8443
Every flag can be set in the environment: LIFEBOAT_DATA_DIR, LIFEBOAT_DATA_LISTEN, ...")]
pub struct ServeArgs {
    /// Folder of all state [default: /var/lib/lifeboat as root, else ./lifeboat-data]
    #[arg(long, env = "LIFEBOAT_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Data port, which agents dial; port 443 is refused
    #[arg(long, env = "LIFEBOAT_DATA_LISTEN", default_value = "0.0.0.0:9443")]
    data_listen: SocketAddr,
    /// HTTPS port of API and web interface
    #[arg(long, env = "LIFEBOAT_API_LISTEN", default_value = "0.0.0.0:8443")]
    api_listen: SocketAddr,
    /// A name or address of this server, for its certificate; may be repeated [default: host name, localhost, own addresses]
    #[arg(long = "name", env = "LIFEBOAT_SERVER_NAMES", value_delimiter = ',')]
    names: Vec<String>,
    /// Seconds between two heartbeats of an agent
    #[arg(long, env = "LIFEBOAT_HEARTBEAT", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    heartbeat: u64,
    /// Minutes between two backups of the vault's database into the store
    #[arg(long, env = "LIFEBOAT_BACKUP_INTERVAL", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=10080))]
    backup_interval: u64,
    /// The vault's database is lost: make it again from its newest backup in the store, or from the manifests of the store
    #[arg(long)]
    rebuild_from_store: bool,
    /// Show /metrics without a login to whoever reaches the HTTPS port
    #[arg(long, env = "LIFEBOAT_METRICS_PUBLIC")]
    metrics_public: bool,
    /// Folder of the scripts that recovery plans may use [default: plan-scripts in the data folder]
    #[arg(long, value_name = "DIR", env = "LIFEBOAT_PLAN_SCRIPTS")]
    plan_scripts: Option<PathBuf>,
    /// One line of JSON on standard output when the server is ready: addresses, fingerprint, where the passphrase is
    #[arg(long)]
    json: bool,
}

/// As root the system's folder, else one beside the caller.
pub fn default_data_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        PathBuf::from("/var/lib/lifeboat")
    } else {
        PathBuf::from("lifeboat-data")
    }
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        let message = crate::rt::chain(&error);
        let (code, causes, action) = match error {
            ServerError::Replica(error) => return error.into(),
            ServerError::Port443 => (2, "--data-listen names port 443", "take the default, 9443"),
            ServerError::DatabaseLost { .. } => (
                6,
                "vault.db was deleted or its disk was lost, or --data-dir is wrong",
                "make it again: lifeboat serve --rebuild-from-store; or put vault.db back",
            ),
            ServerError::NothingToRebuild(_) => (
                6,
                "--rebuild-from-store is for a database that is lost",
                "start without it; to go back to a backup: lifeboat vault restore; to rebuild, move vault.db away first",
            ),
            ServerError::Io {
                action: "listen on", ..
            } => (
                1,
                "another program listens on the port, or it needs root",
                "stop the other program, or choose a port with --data-listen and --api-listen",
            ),
            _ => (
                1,
                "the data folder cannot be written, is full, or is damaged",
                "run as its owner; look at the message; choose another folder with --data-dir",
            ),
        };
        Self {
            code,
            message,
            causes: causes.into(),
            action: action.into(),
        }
    }
}

pub fn run(args: &ServeArgs) -> Result<(), Failure> {
    let data_dir = args.data_dir.clone().unwrap_or_else(default_data_dir);
    let data_dir = std::path::absolute(&data_dir).unwrap_or(data_dir);
    let mut settings = ServerSettings::new(data_dir, args.data_listen, args.api_listen);
    settings.backup_interval = Duration::from_secs(args.backup_interval * 60);
    settings.rebuild = args.rebuild_from_store;
    settings.heartbeat = Duration::from_secs(args.heartbeat);
    settings.metrics_public = args.metrics_public;
    if let Some(folder) = &args.plan_scripts {
        settings.plan_scripts = std::path::absolute(folder).unwrap_or_else(|_| folder.clone());
    }
    if args.names.is_empty() {
        settings.names = own_names();
    } else {
        settings.names.clone_from(&args.names);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| super::failure::failed("start", &error))?;
    runtime.block_on(async {
        let server = Server::start(settings).await?;
        greet(&server);
        if args.json {
            super::store::say(&ready(&server).to_string());
        }
        crate::rt::supervisor::notify("READY=1");
        super::until_signalled().await;
        crate::rt::supervisor::notify("STOPPING=1");
        eprintln!("stopping; running machines go on running");
        server.stop().await;
        Ok(())
    })
}

fn own_names() -> Vec<String> {
    let mut names = vec![
        inventory::host_name(),
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
    ];
    for nic in inventory::nics() {
        for address in nic.addresses {
            let address = address.split('/').next().unwrap_or_default().to_owned();
            if !address.starts_with("fe80:") {
                names.push(address);
            }
        }
    }
    names.retain(|name| !name.is_empty());
    names.dedup();
    names
}

fn ready(server: &Server) -> serde_json::Value {
    serde_json::json!({
        "message_type": "status",
        "dataAddress": server.data_address.to_string(),
        "apiUrl": format!("https://{}/", server.api_address),
        "fingerprint": server.pki.fingerprint().unwrap_or_default(),
        "passphraseFile": server.data_dir.join("pki/passphrase"),
        "apiSocket": server.data_dir.join("api.sock"),
        "oneTimePassword": server.one_time_password,
    })
}

/// What a person needs next, on standard error. The one-time password is shown once and kept nowhere in clear.
fn greet(server: &Server) {
    eprintln!("Lifeboat {} is running", crate::rt::executable::version());
    eprintln!("  data folder   {}", server.data_dir.display());
    eprintln!("  agents dial   {} (data port)", server.data_address);
    eprintln!("  people use    https://{}/", server.api_address);
    if let Ok(fingerprint) = server.pki.fingerprint() {
        eprintln!("  fingerprint   {fingerprint}");
    }
    eprintln!(
        "  passphrase    in {}",
        server.data_dir.join("pki/passphrase").display()
    );
    if let Some(password) = &server.one_time_password {
        eprintln!("  first login   user admin, one-time password {password}");
    }
    eprintln!(
        "next: join a machine, on it: lifeboat agent join --server HOST:{} --fingerprint ...",
        server.data_address.port()
    );
}
