//! The command line: one file per noun. Standard output carries data, standard error messages.
mod agent;
mod agent_update;
mod apply;
mod documents;
mod alert;
mod capacity;
mod chart;
mod event;
mod failover;
mod failure;
mod job;
mod group;
mod join_token;
mod lab;
mod login;
mod machine;
mod maintenance;
mod network;
mod plan;
mod policy;
mod protect;
mod receive;
mod quiesce;
mod recovery_point;
mod remote;
mod replicate;
mod serve;
mod server;
mod size;
mod store;
mod user;
mod vault;
mod vaults;
mod watch;

use crate::lab::LabError;
use clap::{Parser, Subcommand};
pub use failure::Failure;

/// Disaster recovery in one executable.
#[derive(Parser)]
#[command(name = "lifeboat", version = crate::rt::executable::version(), arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  lifeboat lab --tour                                       see the whole lifecycle on this computer
  lifeboat serve                                            run the server
  lifeboat agent join --server HOST --fingerprint sha256:.. join a machine to it
  lifeboat machine list                                     machines that joined, and their state
  lifeboat protect web1 --wait                              replicate a machine
  lifeboat failover test web1                               start a copy of it at the target
  lifeboat failover unplanned web1 --confirm web1           start it there for real
  lifeboat store import --dir store --name web1 disk.img    take a recovery point of a disk
  lifeboat store points --dir store web1                    list its recovery points
  lifeboat store nbd --dir store web1 --listen unix:w.sock  offer the newest one as an NBD export
  lifeboat store verify --dir store                         read everything, name any damage";

#[derive(Subcommand)]
enum Command {
    /// Run the server: vault, configuration server, process server, target
    Serve(serve::ServeArgs),
    /// Machines that joined: list, show
    Machine(machine::MachineArgs),
    /// Enable replication of a machine
    Protect(protect::ProtectArgs),
    /// Disable replication of a machine; its recovery points are removed, or kept
    Unprotect(protect::UnprotectArgs),
    /// Recovery points of a machine
    RecoveryPoint(recovery_point::PointArgs),
    /// Test failover, cleanup, failover, commit, failback, hydrate, complete-migration
    Failover(failover::FailoverArgs),
    /// Jobs: list, show, watch, cancel
    Job(job::JobArgs),
    /// What happened
    Event(event::EventArgs),
    /// What is wrong now; who is told of it, by e-mail and webhook
    Alert(alert::AlertArgs),
    /// Bandwidth and disk space that the site needs, and what if it were otherwise
    Capacity(capacity::CapacityArgs),
    /// Replication policies
    Policy(policy::PolicyArgs),
    /// Recovery plans: machines in groups, with what is done before and after; tests and failovers of all of them
    Plan(plan::PlanArgs),
    /// Replication groups: machines that share recovery points
    Group(group::GroupArgs),
    /// Networks of the target site, and which of them stand for those of the source
    Network(network::NetworkArgs),
    /// Policies, users and replicated items as a file says
    Apply(apply::ApplyArgs),
    /// The vaults of the site
    Vaults(vaults::VaultsArgs),
    /// The site: status, passphrase, join tokens
    Server(server::ServerArgs),
    /// The vault: registration keys, backups of its database
    Vault(vault::VaultArgs),
    /// Begin a session with a server
    Login(login::LoginArgs),
    /// End the session
    Logout(login::SessionArgs),
    /// Who the server takes us for
    Whoami(login::SessionArgs),
    /// Users and roles
    User(user::UserArgs),
    /// API tokens for programs
    Token(user::TokenArgs),
    /// On the protected machine: join, run, status, doctor, install, receive
    #[command(subcommand)]
    Agent(agent::AgentCommand),
    /// A whole site with protected machines on this computer, for trying and for training
    Lab(lab::LabArgs),
    /// Work on a replica store from its folder alone: no server, no database
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Completions for a shell, on standard output
    Completions(documents::CompletionArgs),
    /// Man pages, one per command
    Man(documents::ManArgs),
    /// The ledger writer of a machine of the lab
    #[command(hide = true)]
    LabWorkload(crate::lab::workload::WorkloadArgs),
    /// What a booted machine of the lab runs
    #[command(hide = true)]
    LabGuest(crate::lab::guest::GuestArgs),
}

/// Runs the command line; the exit code of the process.
pub fn run() -> u8 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { 2 } else { 0 };
        }
    };
    let talks_to_a_server = !matches!(
        cli.command,
        Command::Agent(_)
            | Command::Store(_)
            | Command::Serve(_)
            | Command::Lab(_)
            | Command::Completions(_)
            | Command::Man(_)
            | Command::LabWorkload(_)
            | Command::LabGuest(_)
    );
    let result = match cli.command {
        Command::Serve(args) => serve::run(&args),
        Command::Machine(args) => machine::run(&args),
        Command::Protect(args) => protect::protect(&args),
        Command::Unprotect(args) => protect::unprotect(&args),
        Command::RecoveryPoint(args) => recovery_point::run(&args),
        Command::Failover(args) => failover::run(&args),
        Command::Job(args) => job::run(&args),
        Command::Event(args) => event::run(&args),
        Command::Alert(args) => alert::run(&args),
        Command::Capacity(args) => capacity::run(&args),
        Command::Policy(args) => policy::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Group(args) => group::run(&args),
        Command::Network(args) => network::run(&args),
        Command::Apply(args) => apply::run(&args),
        Command::Vaults(args) => vaults::run(&args),
        Command::Server(args) => server::run(&args),
        Command::Vault(args) => vault::run(&args),
        Command::Login(args) => login::login(&args),
        Command::Logout(args) => login::logout(&args),
        Command::Whoami(args) => login::whoami(&args),
        Command::User(args) => user::user(&args),
        Command::Token(args) => user::token(&args),
        Command::Agent(command) => agent::run(command),
        Command::Lab(args) => lab::run(&args),
        Command::Completions(args) => documents::completions(&args),
        Command::Man(args) => documents::man(&args),
        Command::Store(command) => store::run(command),
        Command::LabWorkload(args) => {
            crate::lab::workload::main(&args).map_err(|error| LabError::from(error).into())
        }
        Command::LabGuest(args) => crate::lab::guest::main(&args)
            .map_err(|error| failure::on_file("serve the report of", &args.folder, error)),
    };
    match result {
        Ok(()) => 0,
        Err(failure) if talks_to_a_server && std::env::args_os().any(|word| word == "--json") => {
            eprintln!("{}", remote::exit_error(&failure));
            failure.code
        }
        Err(failure) => failure.print(),
    }
}

/// Ends with the first SIGINT or SIGTERM.
async fn until_signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
