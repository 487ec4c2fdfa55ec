//! Carries jobs out.
use super::error::{RecoveryError, Refusal};
use super::job::{Job, JobError, JobId, Journal};
use super::request::{Operation, Request, Source};
use crate::block::MachineId;
use crate::replica::Store;
use crate::target::{Compute, MachineStatus};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What recovery works with.
pub struct Parts {
    pub journal: Arc<dyn Journal>,
    pub store: Store,
    pub compute: Arc<dyn Compute>,
    /// Folder of the running machines; made when it is missing.
    pub vms: PathBuf,
    pub source: Arc<dyn Source>,
}

/// Cheap to clone. All calls block; async callers go through a blocking thread.
#[derive(Clone)]
pub struct Runner(#[allow(dead_code)] Arc<Parts>);

/// What [`Runner::resume`] found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resumed {
    /// Machines whose disks are served again.
    pub machines: usize,
    /// Open jobs that were taken up.
    pub jobs: usize,
    /// Machines whose disks could not be served; the others go on.
    pub troubles: Vec<(MachineId, JobError)>,
}

impl Runner {
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// After a start of the server: serves the disks of running machines at their old sockets again, takes up open jobs.
    /// Call once, before the first `submit`.
    pub fn resume(&self) -> Result<Resumed, RecoveryError> {
        todo!()
    }

    /// Takes an order: when this returns, the job is in the journal and will be carried out, also after a crash.
    pub fn submit(
        &self,
        _machine: MachineId,
        _request: Request,
        _user: &str,
    ) -> Result<JobId, RecoveryError> {
        todo!()
    }

    /// Every operation, with the reason where it is refused.
    pub fn allowed(&self, _machine: MachineId) -> Result<Vec<(Operation, Option<Refusal>)>, RecoveryError> {
        todo!()
    }

    /// Asks a job to stop and undo what it did. Refused past its point of no return. It is over when `wait` says so.
    pub fn cancel(&self, _job: JobId) -> Result<(), RecoveryError> {
        todo!()
    }

    /// The job when it is over; [`RecoveryError::StillRunning`] when it is not by then.
    pub fn wait(&self, _job: JobId, _limit: Duration) -> Result<Job, RecoveryError> {
        todo!()
    }

    /// The machine started by a failover, or by a test failover. None: there is none.
    pub fn machine_status(
        &self,
        _machine: MachineId,
        _test: bool,
    ) -> Result<Option<MachineStatus>, RecoveryError> {
        todo!()
    }

    /// Path of the serial port's log; may not exist yet. [`RecoveryError::NoMachine`]: there is no such machine.
    pub fn serial_log(&self, _machine: MachineId, _test: bool) -> Result<PathBuf, RecoveryError> {
        todo!()
    }

    /// A PNG of the screen.
    pub fn screenshot(&self, _machine: MachineId, _test: bool) -> Result<Vec<u8>, RecoveryError> {
        todo!()
    }

    /// Stops taking orders and serving disks. Machines go on running and wait for their disks; open jobs are taken up by
    /// the next `resume`.
    pub fn shut_down(&self) {
        todo!()
    }
}
