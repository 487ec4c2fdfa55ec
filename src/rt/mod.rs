//! What every role needs to run: the clock, its own executable, small durable files, errors in words, and the facts that the
//! data plane emits.
mod chain;
pub mod executable;
pub mod memory;
mod private_file;
mod report;
pub mod supervisor;

pub use chain::{chain, chain_from};
pub use private_file::write_private;
pub use report::{Fact, Report};

/// Nanoseconds of Unix time on this host's clock.
pub fn now_unix_nanos() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}
