//! The command line: one file per noun. Standard output carries data, standard error messages.
mod agent;
mod event;
mod failover;
mod failure;
mod job;
mod login;
mod machine;
mod policy;
mod protect;
mod recovery_point;
mod remote;
mod server;
mod size;
mod store;
mod user;
mod watch;

use clap::{Parser, Subcommand};
pub use failure::Failure;

/// Disaster recovery in one executable.
#[derive(Parser)]
#[command(name = "lifeboat", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  lifeboat machine list                                     machines that joined, and their state
  lifeboat protect web1 --wait                              replicate a machine
  lifeboat failover test web1                               start a copy of it at the target
  lifeboat failover unplanned web1 --confirm web1           start it there for real
  lifeboat agent replicate --dir store --name web1 /dev/sdb --every 30   points of a disk in use
  lifeboat store import --dir store --name web1 disk.img    take a recovery point of a disk
  lifeboat store points --dir store web1                    list its recovery points
  lifeboat store nbd --dir store web1 --listen unix:w.sock  offer the newest one as an NBD export
  lifeboat store verify --dir store                         read everything, name any damage";

#[derive(Subcommand)]
enum Command {
    /// Machines that joined: list, show
    Machine(machine::MachineArgs),
    /// Enable replication of a machine
    Protect(protect::ProtectArgs),
    /// Disable replication of a machine and remove its replica
    Unprotect(protect::UnprotectArgs),
    /// Recovery points of a machine
    RecoveryPoint(recovery_point::PointArgs),
    /// Test failover, cleanup, failover, commit
    Failover(failover::FailoverArgs),
    /// Jobs: list, show, watch, cancel
    Job(job::JobArgs),
    /// What happened
    Event(event::EventArgs),
    /// Replication policies
    Policy(policy::PolicyArgs),
    /// The site: status, passphrase
    Server(server::ServerArgs),
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
    /// On the protected machine: track, freeze and replicate its disks
    #[command(subcommand)]
    Agent(agent::AgentCommand),
    /// Work on a replica store from its folder alone: no server, no database
    #[command(subcommand)]
    Store(store::StoreCommand),
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
    let talks_to_a_server = !matches!(cli.command, Command::Agent(_) | Command::Store(_));
    let result = match cli.command {
        Command::Machine(args) => machine::run(&args),
        Command::Protect(args) => protect::protect(&args),
        Command::Unprotect(args) => protect::unprotect(&args),
        Command::RecoveryPoint(args) => recovery_point::run(&args),
        Command::Failover(args) => failover::run(&args),
        Command::Job(args) => job::run(&args),
        Command::Event(args) => event::run(&args),
        Command::Policy(args) => policy::run(&args),
        Command::Server(args) => server::run(&args),
        Command::Login(args) => login::login(&args),
        Command::Logout(args) => login::logout(&args),
        Command::Whoami(args) => login::whoami(&args),
        Command::User(args) => user::user(&args),
        Command::Token(args) => user::token(&args),
        Command::Agent(command) => agent::run(command),
        Command::Store(command) => store::run(command),
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
