//! `lifeboat agent`: on the protected machine.
use super::failure::Failure;
use super::size;
use super::store::say;
use crate::agent::daemon::{self, AgentSettings};
use crate::agent::fence::{self, Fence};
use crate::agent::identity::{Identity, IdentityError};
use crate::agent::join::{self, JoinError, JoinSpec};
use crate::agent::status::Status;
use crate::agent::update::{Next, UpdateError, Updates};
use crate::agent::{doctor, inventory, status_socket};
use crate::wire::facts::{Check, CheckResult};
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

#[derive(Subcommand)]
pub enum AgentCommand {
    /// Join a configuration server: pins its CA, shows a join token, a registration key or the passphrase, gets a certificate
    #[command(after_help = JOIN_EXAMPLES)]
    Join(JoinArgs),
    /// Replicate by the server's orders until stopped (what the service runs)
    Run(RunArgs),
    /// Without a server: make recovery points of disks in use in a store on this host
    Replicate(super::replicate::ReplicateArgs),
    /// The way home: make disks here equal to a failed-over machine's recovery points, up to the final one
    #[command(after_help = super::receive::EXAMPLES)]
    Receive(super::receive::ReceiveArgs),
    /// What the running agent does
    Status(StateArgs),
    /// Check the prerequisites of a protected machine (exit code 3 when one is not met)
    Doctor(DoctorArgs),
    /// Bring applications to rest for a point: see, try and enable the hooks
    Quiesce(super::quiesce::QuiesceArgs),
    /// Install the executable and a systemd unit, and start it
    Install(InstallArgs),
    /// Before each start of the service, by the previous executable: bring it back when an update did not prove itself
    #[command(hide = true)]
    UpdateCheck(UpdateCheckArgs),
    /// Stop the service; remove its unit, this machine's identity and the tracking of its disks
    Uninstall(UninstallArgs),
}

const JOIN_EXAMPLES: &str = "Examples:
  lifeboat agent join --server dr.example:9443 --fingerprint sha256:4c1f... --passphrase-file pass
  lifeboat agent join --registration-key-file key.json
  LIFEBOAT_PASSPHRASE=... lifeboat agent join --server dr.example --fingerprint sha256:4c1f... --name web1
The server prints its fingerprint and where its passphrase is when it starts, and with: lifeboat server passphrase";

#[derive(Args)]
pub struct StateArgs {
    /// Folder of the agent's identity [default: /var/lib/lifeboat-agent as root, else ./lifeboat-agent]
    #[arg(long, env = "LIFEBOAT_AGENT_STATE")]
    state_dir: Option<PathBuf>,
    /// One JSON document on standard output
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct JoinArgs {
    #[command(flatten)]
    state: StateArgs,
    /// Configuration server, HOST or HOST:PORT of its data port
    #[arg(long, required_unless_present = "registration_key_file")]
    server: Option<String>,
    /// Fingerprint of the server's CA (sha256:...)
    #[arg(long, required_unless_present = "registration_key_file")]
    fingerprint: Option<String>,
    /// File that holds the passphrase; else LIFEBOAT_PASSPHRASE or LIFEBOAT_JOIN_TOKEN is read from the environment
    #[arg(long, conflicts_with = "token_file")]
    passphrase_file: Option<PathBuf>,
    /// File that holds a join token
    #[arg(long)]
    token_file: Option<PathBuf>,
    /// File that `lifeboat vault registration-key --out` made; it says also which server and which vault
    #[arg(long, conflicts_with_all = ["passphrase_file", "token_file"])]
    registration_key_file: Option<PathBuf>,
    /// Vault to join [default: that of the token or key; with the passphrase: default]
    #[arg(long)]
    vault: Option<String>,
    /// Do nothing when this machine has joined this very server already
    #[arg(long)]
    keep: bool,
    /// Name in the vault [default: the host name]
    #[arg(long)]
    name: Option<String>,
    /// Offer only these disks (devices or image files) for protection; may be repeated
    #[arg(long = "disk")]
    disks: Vec<PathBuf>,
    /// Identity of the machine [default: /etc/machine-id]; several agents on one host need one each
    #[arg(long, env = "LIFEBOAT_MACHINE_KEY", hide = true)]
    machine_key: Option<String>,
}

#[derive(Args)]
pub struct RunArgs {
    #[command(flatten)]
    state: StateArgs,
    /// Longest freeze in milliseconds; the guard thaws then, and no point is made
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(50..=60_000))]
    freeze_deadline: u64,
    #[command(flatten)]
    hooks: super::quiesce::HookArgs,
    /// Folder of the hooks that keep the workload down on a machine that was failed over, and bring it up again
    #[arg(long, value_name = "FOLDER", env = "LIFEBOAT_FENCE_DIR", default_value = fence::DEFAULT_FOLDER)]
    fence_dir: PathBuf,
    /// Seconds that each call of such a hook may take
    #[arg(long, value_name = "SECONDS", env = "LIFEBOAT_FENCE_TIMEOUT", default_value_t = fence::DEFAULT_TIMEOUT.as_secs(),
        value_parser = clap::value_parser!(u64).range(1..=3600))]
    fence_timeout: u64,
    /// Seconds within which the server must have answered an updated agent; else the previous executable comes back
    #[arg(long, default_value_t = 120, hide = true)]
    update_deadline: u64,
}

#[derive(Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    hooks: super::quiesce::HookArgs,
    /// Folder of the agent's identity [default: /var/lib/lifeboat-agent as root, else ./lifeboat-agent]
    #[arg(long, env = "LIFEBOAT_AGENT_STATE")]
    state_dir: Option<PathBuf>,
    /// Check for these disks only; may be repeated
    #[arg(long = "disk")]
    disks: Vec<PathBuf>,
    /// One JSON document on standard output
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct UpdateCheckArgs {
    #[command(flatten)]
    state: StateArgs,
    #[arg(long, default_value_t = 120)]
    update_deadline: u64,
}

#[derive(Args)]
pub struct UninstallArgs {
    #[command(flatten)]
    state: StateArgs,
}

#[derive(Args)]
pub struct InstallArgs {
    #[command(flatten)]
    state: StateArgs,
    /// Install below this folder and start nothing: for building images
    #[arg(long)]
    root: Option<PathBuf>,
}

impl StateArgs {
    pub fn folder(&self) -> PathBuf {
        state_folder(self.state_dir.as_ref())
    }
}

/// Where the agent's identity is.
pub(super) fn state_folder(given: Option<&PathBuf>) -> PathBuf {
    given.cloned().unwrap_or_else(|| {
        if rustix::process::geteuid().is_root() {
            PathBuf::from("/var/lib/lifeboat-agent")
        } else {
            PathBuf::from("lifeboat-agent")
        }
    })
}

impl From<IdentityError> for Failure {
    fn from(error: IdentityError) -> Self {
        let message = crate::rt::chain(&error);
        let (code, causes, action) = match error {
            IdentityError::NotJoined(_) => (
                6,
                "the machine has not joined, or --state-dir names another folder",
                "join it first: lifeboat agent join",
            ),
            IdentityError::Damaged(_) => (
                1,
                "the file was changed by hand or lost bytes",
                "join the machine again",
            ),
            IdentityError::Address(_) => (2, "--server is misspelt", "give HOST or HOST:PORT"),
            IdentityError::Io { .. } => (
                1,
                "the folder may not be written by this user, or the disk is full",
                "run as root, or name another folder with --state-dir",
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

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Self {
        let message = crate::rt::chain(&error);
        let (code, causes, action): (u8, String, String) = match error {
            JoinError::Refused(refused) => (6, refused.possible_causes, refused.recommended_action),
            JoinError::Identity(error) => return error.into(),
            JoinError::Tls(crate::wire::tls::TlsError::OtherCa { .. }) => (
                4,
                "another server answers at this address, the server was installed anew, or somebody is in between".into(),
                "compare with the fingerprint that the server itself shows: lifeboat server passphrase".into(),
            ),
            JoinError::Tls(crate::wire::tls::TlsError::Fingerprint) => (
                2,
                "the fingerprint was not copied whole".into(),
                "copy it from the server: lifeboat server passphrase".into(),
            ),
            JoinError::TimedOut(_) | JoinError::Unreachable(_) | JoinError::Tls(_) => (
                8,
                "the server is not running, the address or port is wrong, or a firewall closes the data port (9443)".into(),
                "check --server and that the data port is open from here".into(),
            ),
            JoinError::Key(_) => (1, "this machine cannot make a key".into(), "try again".into()),
        };
        Self {
            code,
            message,
            causes: causes.into(),
            action: action.into(),
        }
    }
}

pub fn run(command: AgentCommand) -> Result<(), Failure> {
    match command {
        AgentCommand::Join(args) => join(&args),
        AgentCommand::Run(args) => run_agent(&args),
        AgentCommand::Replicate(args) => super::replicate::run(&args),
        AgentCommand::Receive(args) => super::receive::run(&args),
        AgentCommand::Status(args) => status(&args),
        AgentCommand::Doctor(args) => run_doctor(&args),
        AgentCommand::Quiesce(args) => super::quiesce::run(&args),
        AgentCommand::Install(args) => install(&args),
        AgentCommand::UpdateCheck(args) => {
            let updates = Updates::of(&args.state.folder(), None, args.update_deadline);
            updates.settle().map(|_| ()).map_err(update_failed)
        }
        AgentCommand::Uninstall(args) => uninstall(&args),
    }
}

pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| super::failure::failed("start", &error))
}

fn join(args: &JoinArgs) -> Result<(), Failure> {
    let folder = args.state.folder();
    let key = args
        .registration_key_file
        .as_deref()
        .map(registration_key)
        .transpose()?;
    // clap sees to it that either the flags or the file are there; what is said twice is taken from the flags.
    let of_key = |field: &str| {
        key.as_ref()
            .and_then(|key| key[field].as_str())
            .map(str::to_owned)
    };
    let fingerprint = args
        .fingerprint
        .clone()
        .or_else(|| of_key("caFingerprint"))
        .unwrap_or_default();
    let server = args
        .server
        .clone()
        .or_else(|| of_key("dataAddress"))
        .unwrap_or_default();
    if args.keep && has_joined(&folder, &fingerprint) {
        say("this machine has joined this server already");
        return Ok(());
    }
    let passphrase = match args.passphrase_file.as_ref().or(args.token_file.as_ref()) {
        None if key.is_some() => of_key("key").unwrap_or_default(),
        Some(path) => {
            std::fs::read_to_string(path).map_err(|error| super::failure::on_file("read", path, error))?
        }
        None => ["LIFEBOAT_JOIN_TOKEN", "LIFEBOAT_PASSPHRASE"]
            .iter()
            .find_map(|name| std::env::var(name).ok().filter(|text| !text.is_empty()))
            .ok_or_else(|| Failure {
                code: 2,
                message: "neither a join token nor the passphrase was given".into(),
                causes: "no file was named, and neither LIFEBOAT_JOIN_TOKEN nor LIFEBOAT_PASSPHRASE is set"
                    .into(),
                action: "get one on the server: lifeboat server join-token, or lifeboat server passphrase"
                    .into(),
            })?,
    };
    let server = if server.contains(':') {
        server
    } else {
        format!("{server}:9443")
    };
    let spec = JoinSpec {
        server,
        fingerprint,
        vault: args.vault.clone(),
        passphrase,
        name: args.name.clone().unwrap_or_else(inventory::host_name),
        machine_key: args
            .machine_key
            .clone()
            .or_else(|| std::fs::read_to_string("/etc/machine-id").ok())
            .unwrap_or_default()
            .trim()
            .to_owned(),
        disks: args.disks.iter().map(absolute).collect(),
    };
    let identity = runtime()?.block_on(join::join(&spec, &folder))?;
    if args.state.json {
        say(
            &json!({ "name": identity.name, "machineId": identity.machine_id, "server": identity.server,
            "certificateEndsUnix": identity.not_after_unix })
            .to_string(),
        );
    } else {
        say(&format!("{} has joined {}", identity.name, identity.server));
        eprintln!(
            "next: lifeboat agent install, then on the server: lifeboat protect {}",
            identity.name
        );
    }
    Ok(())
}

/// The document that the server made.
fn registration_key(path: &Path) -> Result<serde_json::Value, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| super::failure::on_file("read", path, error))?;
    let key: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    let whole = |key: &serde_json::Value| {
        ["key", "dataAddress", "caFingerprint"]
            .iter()
            .all(|field| key[*field].is_string())
    };
    key.filter(whole).ok_or_else(|| Failure {
        code: 2,
        message: format!("{} is no file of a registration key", path.display()),
        causes: "another file was named, or it was not copied whole".into(),
        action: "make one on the server: lifeboat vault registration-key --out FILE".into(),
    })
}

/// With a certificate that has not ended.
fn has_joined(folder: &Path, fingerprint: &str) -> bool {
    Identity::load(folder).is_ok_and(|identity| {
        let ca = crate::wire::tls::certificates(&identity.ca_pem).unwrap_or_default();
        let now = crate::rt::now_unix_nanos() / 1_000_000_000;
        identity.not_after_unix > now
            && ca
                .iter()
                .any(|ca| crate::wire::tls::fingerprint(ca).eq_ignore_ascii_case(fingerprint.trim()))
    })
}

fn absolute(path: &PathBuf) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.clone())
}

fn run_agent(args: &RunArgs) -> Result<(), Failure> {
    let state = args.state.folder();
    let identity = Identity::load(&state)?;
    let program =
        std::env::current_exe().map_err(|error| super::failure::failed("find this program", &error))?;
    let updates = Updates::of(&state, Some(program.clone()), args.update_deadline);
    if updates.settle().map_err(update_failed)? == Next::Execute {
        return Err(update_failed(updates.execute()));
    }
    let runtime = runtime()?;
    let stop = CancellationToken::new();
    let signalled = stop.clone();
    runtime.spawn(async move {
        super::until_signalled().await;
        signalled.cancel();
    });
    let quiesce = args.hooks.settings(&state);
    let mut fence = Fence::new(identity.name.clone());
    fence.folder = std::path::absolute(&args.fence_dir).unwrap_or_else(|_| args.fence_dir.clone());
    fence.timeout = Duration::from_secs(args.fence_timeout);
    let settings = AgentSettings {
        state,
        program,
        freeze_deadline: Duration::from_millis(args.freeze_deadline),
        quiesce,
        fence,
    };
    tracing::info!(name = %identity.name, server = %identity.server, "agent started");
    crate::rt::supervisor::notify("READY=1");
    daemon::run_updatable(settings, identity, runtime.handle(), stop, Some(updates.clone()))
        .map_err(|error| super::failure::failed("go on", &error))?;
    match updates.change_over().map_err(update_failed)? {
        Next::GoOn => Ok(()),
        Next::Execute => Err(update_failed(updates.execute())),
    }
}

fn update_failed(error: UpdateError) -> Failure {
    Failure {
        code: 1,
        message: crate::rt::chain(&error),
        causes: "the folder of the executable or of the agent's state cannot be written".into(),
        action: "make room or writable; the agent is started again with the executable that is there".into(),
    }
}

fn status(args: &StateArgs) -> Result<(), Failure> {
    let folder = args.folder();
    let identity = Identity::load(&folder)?;
    let status = status_socket::ask(&folder).map_err(|error| Failure {
        code: 8,
        message: format!("the agent of {} does not answer: {error}", identity.name),
        causes: "it is not running".into(),
        action: "start it: systemctl start lifeboat-agent, or lifeboat agent run".into(),
    })?;
    if args.json {
        say(&serde_json::to_string(&status).unwrap_or_default());
        return Ok(());
    }
    print_status(&status);
    Ok(())
}

fn print_status(status: &Status) {
    let connected = if status.connected {
        "Connected"
    } else {
        "not connected"
    };
    say(&format!(
        "{} -> {} ({connected}): {}",
        status.name, status.server, status.phase
    ));
    for disk in status.disks.values() {
        let progress = match (disk.state.as_str(), disk.total_bytes) {
            ("InitialReplicationInProgress" | "Resynchronizing", total) if total > 0 => {
                format!(", {} %", disk.done_bytes * 100 / total)
            }
            _ => String::new(),
        };
        say(&format!(
            "  {}: {}{progress}, {} pending ({})",
            disk.device,
            disk.state,
            size::bytes(disk.pending_bytes),
            disk.capture
        ));
    }
    if let Some(instant) = status.last_point_unix_nanos {
        say(&format!(
            "  last recovery point {}, {} since the agent started",
            size::instant(instant),
            status.points
        ));
    }
    for (code, trouble) in &status.troubles {
        say(&format!("  {} {code}: {}", trouble.severity, trouble.message));
        say(&format!("    possible causes: {}", trouble.possible_causes));
        say(&format!("    recommended action: {}", trouble.recommended_action));
    }
}

fn run_doctor(args: &DoctorArgs) -> Result<(), Failure> {
    let only: Vec<PathBuf> = args.disks.iter().map(absolute).collect();
    let inventory = inventory::take(&only);
    let state = StateArgs {
        state_dir: args.state_dir.clone(),
        json: args.json,
    };
    let quiesce = args.hooks.settings(&state.folder());
    let checks = doctor::checks(&inventory, &only, &quiesce);
    if args.json {
        say(&json!({ "inventory": inventory, "checks": checks }).to_string());
    } else {
        checks.iter().for_each(print_check);
    }
    let unmet = checks
        .iter()
        .filter(|check| check.result == CheckResult::Error)
        .count();
    if unmet > 0 {
        return Err(Failure {
            code: 3,
            message: format!("{unmet} prerequisites are not met"),
            causes: "see above".into(),
            action: "do what is said beside each, then run this again".into(),
        });
    }
    Ok(())
}

fn print_check(check: &Check) {
    let word = match check.result {
        CheckResult::Pass => "pass   ",
        CheckResult::Warning => "warning",
        CheckResult::Error => "error  ",
    };
    say(&format!("{word} {}: {}", check.name, check.message));
    if check.result != CheckResult::Pass {
        say(&format!("        possible causes: {}", check.causes));
        say(&format!("        recommended action: {}", check.action));
    }
}

/// The unit of the package, for an executable and a folder of state elsewhere.
fn unit(state: &Path) -> String {
    include_str!("../../packaging/lifeboat-agent.service")
        .replace("/usr/bin/", "/usr/local/bin/")
        .replace("/var/lib/lifeboat-agent", &state.display().to_string())
}

/// Safe to repeat: replaces the executable and the unit, restarts the service.
fn install(args: &InstallArgs) -> Result<(), Failure> {
    let root = args.root.clone().unwrap_or_else(|| PathBuf::from("/"));
    let state = args.state.folder();
    if args.root.is_none() {
        Identity::load(&state)?;
    }
    let program =
        std::env::current_exe().map_err(|error| super::failure::failed("find this program", &error))?;
    let target = root.join("usr/local/bin/lifeboat");
    let unit_path = root.join("etc/systemd/system/lifeboat-agent.service");
    if program != target {
        replace(&target, |fresh| {
            std::fs::copy(&program, fresh)?;
            std::fs::set_permissions(fresh, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        })?;
    }
    replace(&unit_path, |fresh| std::fs::write(fresh, unit(&absolute(&state))))?;
    say(&format!(
        "installed {} and {}",
        target.display(),
        unit_path.display()
    ));
    if args.root.is_some() {
        return Ok(());
    }
    for arguments in [
        &["daemon-reload"][..],
        &["enable", "lifeboat-agent"],
        &["restart", "lifeboat-agent"],
    ] {
        let status = std::process::Command::new("systemctl").args(arguments).status();
        if !status.as_ref().is_ok_and(std::process::ExitStatus::success) {
            return Err(Failure {
                code: 1,
                message: format!("systemctl {} failed", arguments.join(" ")),
                causes: "this system does not run systemd, or the user is not root".into(),
                action: "run it by another supervisor: lifeboat agent run".into(),
            });
        }
    }
    say("the agent runs; see: lifeboat agent status");
    // Not enabled by itself: a hook may hold up an application's writes, and that is its administrator's to decide.
    let found: Vec<&str> = crate::agent::quiesce::shipped::SHIPPED
        .iter()
        .filter(|shipped| shipped.is_useful(Path::new("/")))
        .map(|shipped| shipped.name)
        .collect();
    if !found.is_empty() {
        eprintln!(
            "next, for app-consistent recovery points of {}: lifeboat agent quiesce enable",
            found.join(" and ")
        );
    }
    Ok(())
}

/// Safe to repeat. The executable stays: this command, and perhaps a server, run from it.
fn uninstall(args: &UninstallArgs) -> Result<(), Failure> {
    let state = args.state.folder();
    let unit_path = Path::new("/etc/systemd/system/lifeboat-agent.service");
    if unit_path.exists() {
        for arguments in [&["disable", "--now", "lifeboat-agent"][..], &["daemon-reload"]] {
            if arguments[0] == "daemon-reload" {
                std::fs::remove_file(unit_path)
                    .map_err(|error| super::failure::on_file("remove", unit_path, error))?;
            }
            let status = std::process::Command::new("systemctl").args(arguments).status();
            if !status.as_ref().is_ok_and(std::process::ExitStatus::success) {
                tracing::warn!("systemctl {} failed", arguments.join(" "));
            }
        }
    }
    if status_socket::ask(&state).is_ok() {
        return Err(Failure {
            code: 6,
            message: "the agent still runs".into(),
            causes: "it is run by another supervisor than systemd, or by hand".into(),
            action: "stop it there, then run this again".into(),
        });
    }
    // The kernel goes on marking changed blocks until it is told.
    for disk in crate::agent::progress::Kept::load(&state).tracked() {
        crate::agent::capture::forget(*disk);
    }
    match std::fs::remove_dir_all(&state) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(super::failure::on_file("remove", &state, error));
        }
        _ => {}
    }
    say(&format!(
        "removed {} and {}",
        unit_path.display(),
        state.display()
    ));
    Ok(())
}

fn replace(path: &Path, write: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<(), Failure> {
    let fresh = path.with_extension("new");
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder)
        .and_then(|()| write(&fresh))
        .and_then(|()| std::fs::rename(&fresh, path))
        .map_err(|error| super::failure::on_file("write", path, error))
}
