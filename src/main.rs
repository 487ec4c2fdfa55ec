//! argv -> command -> exit code.
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    // Before anything else: the guard must be ready quickly and hold little memory.
    if args.nth(1).is_some_and(|word| word == "freeze-guard") {
        return ExitCode::from(lifeboat::agent::freeze::guard_main(args));
    }
    lifeboat::rt::memory::keep_little();
    let filter = tracing_subscriber::EnvFilter::try_from_env("LIFEBOAT_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,lifeboat=info"));
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_env_filter(filter)
        .init();
    ExitCode::from(lifeboat::cli::run())
}
