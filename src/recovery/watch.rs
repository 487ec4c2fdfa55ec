//! Completes the figures of machines that were started: the first output on the serial port comes after the job is over.
use super::job::JobId;
use super::runner::Shared;
use super::steps::{Outcome, millis_since};
use crate::target::{MachineSpec, Power};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The instant itself comes from the hypervisor; this is only how soon it is known.
const LOOK: Duration = Duration::from_millis(200);

struct Watched {
    job: JobId,
    machine: MachineSpec,
    until: Instant,
}

#[derive(Default)]
struct List {
    machines: Vec<Watched>,
    /// A thread looks after it.
    looked_after: bool,
}

#[derive(Default)]
pub(super) struct Watch(Mutex<List>);

impl Watch {
    fn list(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    pub(super) fn watch_start(self: &Arc<Self>, job: JobId, machine: &MachineSpec) {
        let mut list = self.watch.list();
        list.machines.push(Watched {
            job,
            machine: machine.clone(),
            until: Instant::now() + self.limits.first_output,
        });
        if !list.looked_after {
            let shared = self.clone();
            // Without a thread a figure is missing, nothing else.
            list.looked_after = std::thread::Builder::new()
                .name("recovery-watch".into())
                .spawn(move || shared.watch())
                .is_ok();
        }
    }

    fn watch(self: Arc<Self>) {
        loop {
            let stopping = self.pause(LOOK);
            let machines = {
                let mut list = self.watch.list();
                if stopping || list.machines.is_empty() {
                    list.looked_after = false;
                    return;
                }
                std::mem::take(&mut list.machines)
            };
            // Looked at without the lock: a hypervisor may take its time.
            let left: Vec<Watched> = machines
                .into_iter()
                .filter(|watched| self.is_still_silent(watched))
                .collect();
            self.watch.list().machines.extend(left);
        }
    }

    fn is_still_silent(&self, watched: &Watched) -> bool {
        let Ok(mut job) = self.parts.journal.job(watched.job) else {
            return false;
        };
        let mut outcome: Outcome = serde_json::from_value(job.result.clone()).unwrap_or_default();
        if outcome.kernel_start_ms.is_some() || watched.until <= Instant::now() {
            return false;
        }
        match self.parts.compute.status(&watched.machine) {
            Ok(status) => match status.first_output_unix_nanos {
                Some(instant) => {
                    outcome.kernel_start_ms = Some(millis_since(job.created_unix_nanos, instant));
                    job.result = serde_json::to_value(outcome).unwrap_or_default();
                    // Asked again at the next look when the journal refuses now.
                    self.parts.journal.record(&job, None).is_err()
                }
                None => matches!(status.power, Power::Running | Power::Paused),
            },
            Err(_) => true,
        }
    }
}
