//! What every role needs to run: the clock, its own executable, and the facts that the data plane emits.
pub mod executable;
mod report;
pub mod supervisor;

pub use report::{Fact, Report};

/// Nanoseconds of Unix time on this host's clock.
pub fn now_unix_nanos() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}
