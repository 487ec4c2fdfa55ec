//! What is made from the command line's own description: completions and man pages.
use super::Cli;
use super::failure::{Failure, on_file};
use clap::{Args, CommandFactory};
use std::io::Write;
use std::path::PathBuf;

#[derive(Args)]
#[command(after_help = "Examples:
  lifeboat completions bash > /usr/share/bash-completion/completions/lifeboat
  lifeboat completions zsh > /usr/share/zsh/vendor-completions/_lifeboat
  lifeboat completions fish > /usr/share/fish/vendor_completions.d/lifeboat.fish")]
pub struct CompletionArgs {
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

#[derive(Args)]
pub struct ManArgs {
    /// Folder to write the pages into; made where it is missing
    #[arg(long)]
    out: PathBuf,
}

pub fn completions(args: &CompletionArgs) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "lifeboat", &mut text);
    // A reader that went away is no error.
    let _ = std::io::stdout().write_all(&text);
    Ok(())
}

pub fn man(args: &ManArgs) -> Result<(), Failure> {
    std::fs::create_dir_all(&args.out).map_err(|error| on_file("make", &args.out, error))?;
    let command = Cli::command().disable_help_subcommand(true);
    clap_mangen::generate_to(command, &args.out).map_err(|error| on_file("write", &args.out, error))
}
