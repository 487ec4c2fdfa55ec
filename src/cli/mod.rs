//! The command line: one file per noun. Standard output carries data, standard error messages.
mod agent;
mod failure;
mod lab;
mod serve;
mod size;
mod store;

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
  lifeboat store import --dir store --name web1 disk.img    take a recovery point of a disk
  lifeboat store points --dir store web1                    list its recovery points
  lifeboat store nbd --dir store web1 --listen unix:w.sock  offer the newest one as an NBD export
  lifeboat store verify --dir store                         read everything, name any damage";

#[derive(Subcommand)]
enum Command {
    /// Run the server: vault, configuration server, process server, target
    Serve(serve::ServeArgs),
    /// On the protected machine: join, run, status, doctor, install
    #[command(subcommand)]
    Agent(agent::AgentCommand),
    /// A whole site with protected machines on this computer, for trying and for training
    Lab(lab::LabArgs),
    /// Work on a replica store from its folder alone: no server, no database
    #[command(subcommand)]
    Store(store::StoreCommand),
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
    let result = match cli.command {
        Command::Serve(args) => serve::run(&args),
        Command::Agent(command) => agent::run(command),
        Command::Lab(args) => lab::run(&args),
        Command::Store(command) => store::run(command),
        Command::LabWorkload(args) => {
            crate::lab::workload::main(&args).map_err(|error| LabError::from(error).into())
        }
        Command::LabGuest(args) => crate::lab::guest::main(&args)
            .map_err(|error| failure::on_file("serve the report of", &args.folder, error)),
    };
    match result {
        Ok(()) => 0,
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
