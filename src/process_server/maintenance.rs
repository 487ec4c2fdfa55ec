//! Housekeeping of the store beside the sessions: thinning by policy, then folding what no point tells apart.
//!
//! A reconciler: takes no input, compares what is there with what the policy wants, on a timer. A machine whose housekeeping
//! fails is reported and tried again; the others go on.
use crate::block::MachineId;
use crate::replica::{ReplicaError, Retention, Store};
use crate::rt::{Fact, Report, now_unix_nanos};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long the points of a machine are kept; None for one that is not to be thinned.
pub trait RetentionOf: Send + Sync {
    fn retention(&self, machine: MachineId) -> Option<Retention>;
}

pub struct Maintenance {
    pub store: Store,
    pub retention: Arc<dyn RetentionOf>,
    pub report: Arc<dyn Report>,
    pub interval: Duration,
}

impl Maintenance {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let this = Arc::new(self);
        let mut tick = tokio::time::interval(this.interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let round = this.clone();
            // A round that panics must not end the housekeeping of the others for ever.
            let _ = tokio::task::spawn_blocking(move || round.round()).await;
        }
    }

    fn round(&self) {
        for machine in self.store.machines() {
            let Some(retention) = self.retention.retention(machine.id) else {
                continue;
            };
            match self.thin(machine.id, &retention) {
                Ok((0, 0)) => {}
                Ok((points, freed_bytes)) => self.report.report(Fact::Thinned {
                    machine: machine.id,
                    points,
                    freed_bytes,
                }),
                Err(error @ ReplicaError::Corrupt { .. }) => self.report.report(Fact::Damaged {
                    machine: machine.id,
                    message: error.to_string(),
                }),
                // A full store thins all the same with the next round; others are repeated too.
                Err(error) => {
                    tracing::warn!(machine = %machine.name, %error, "housekeeping of the store failed")
                }
            }
        }
    }

    fn thin(&self, machine: MachineId, retention: &Retention) -> Result<(usize, u64), ReplicaError> {
        let gone = self.store.prune(machine, now_unix_nanos(), retention)?;
        let freed = self.store.compact(machine)?;
        Ok((gone.len(), freed))
    }
}
