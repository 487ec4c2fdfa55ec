//! Recovery: the states of a replicated item, what is allowed in each and why not, and the runner that carries a failover
//! out step by step.
//!
//! Knows `replica`, `export` and `target`; keeps nothing itself: what must survive a crash goes through [`Journal`], which
//! the vault implements. The new state is journalled before its effects run, and every effect is safe to run twice.
pub mod admission;
mod changes;
mod disks;
mod error;
mod execute;
pub mod job;
mod line;
pub mod plan;
mod points;
mod request;
mod runner;
pub mod state;
mod steps;
#[cfg(test)]
pub(super) mod tests;
mod watch;

pub use error::{RecoveryError, Refusal};
pub use job::{Job, JobError, JobId, JobKind, JobState, Journal, JournalError, Task, TaskState};
pub use request::{KeepPoints, Operation, PointChoice, Request, Source};
pub use runner::{Parts, Resumed, Runner};
pub use state::{
    ActiveLocation, Failover, Item, KeptPoints, ProtectionEvent, ProtectionState, Reprotect, TargetSettings,
    TestEvent, TestFailoverState,
};
pub use steps::STOP_SOURCE;
