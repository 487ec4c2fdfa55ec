//! Tells the server what the receiver does and holds: at every change that matters, and every few seconds.
use super::ReceiveError;
use super::client::{Client, OrderKey};
use super::copy::Fence;
use super::progress::Progress;
use crate::block::PointId;
use crate::wire::ReceivePhase;
use crate::wire::proto::{ReceiveDiskReport, ReceiveReportRequest, Trouble};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const PERIOD: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub(super) struct Reporter(Arc<Inner>);

struct Inner {
    /// Held while a report is under way: an older one must not arrive behind a newer and take back what that pinned.
    to: Mutex<(Client, OrderKey)>,
    progress: Arc<Progress>,
    fence: Arc<Fence>,
}

impl Reporter {
    pub(super) fn new(client: Client, key: OrderKey, progress: Arc<Progress>, fence: Arc<Fence>) -> Self {
        Self(Arc::new(Inner {
            to: Mutex::new((client, key)),
            progress,
            fence,
        }))
    }

    /// What was refused to a report of older orders counts no more.
    pub(super) fn set_key(&self, key: OrderKey) {
        let mut to = self.lock();
        to.1 = key;
        self.0.fence.take();
    }

    pub(super) fn set_client(&self, client: Client) {
        self.lock().0 = client;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Client, OrderKey)> {
        self.0.to.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// On return the server has heard it, and pinned what the next steps need.
    pub(super) fn now(&self) -> Result<(), ReceiveError> {
        let to = self.lock();
        let told = to.0.report(self.message(to.1, None));
        // A point that went is met by the step that needs it; everything else ends the work under way.
        if let Err(ReceiveError::Refused(refused)) = &told
            && refused.code != crate::wire::POINT_GONE
        {
            self.0.fence.close(refused.clone());
        }
        told
    }

    /// That it ended before the machine was home, and why, if that can still be told.
    pub(super) fn last(&self, error: Option<&ReceiveError>) {
        let to = self.lock();
        let error = error.filter(|error| !matches!(error, ReceiveError::Cancelled));
        let trouble = error.map(ReceiveError::words).map(|words| Trouble {
            code: words.code,
            severity: "Critical".to_owned(),
            message: words.message,
            causes: words.possible_causes,
            action: words.recommended_action,
        });
        if let Err(error) = to.0.although_stopped().report(self.message(to.1, trouble)) {
            tracing::info!(%error, "the server could not be told that the receiver ended");
        }
    }

    fn message(&self, key: OrderKey, trouble: Option<Trouble>) -> ReceiveReportRequest {
        let now = self.0.progress.now();
        let id = |point: &PointId| point.as_bytes().to_vec();
        ReceiveReportRequest {
            received: Some(key.message()),
            phase: now.phase.unwrap_or(ReceivePhase::Comparing).to_string(),
            disks: now
                .disks
                .iter()
                .map(|disk| ReceiveDiskReport {
                    disk_id: disk.id.as_bytes().to_vec(),
                    device: disk.device.display().to_string(),
                    size_bytes: disk.size_bytes,
                    holds: disk.holds.as_ref().map(id).unwrap_or_default(),
                    keep: disk.keep.iter().map(id).collect(),
                    done_bytes: disk.done_bytes,
                    total_bytes: disk.total_bytes,
                    copied_bytes: disk.copied_bytes,
                })
                .collect(),
            verified_point: now.verified.as_ref().map(id).unwrap_or_default(),
            trouble,
            bytes_per_second: now.bytes_per_second,
        }
    }

    /// Until `ended`.
    pub(super) fn run(&self, ended: &CancellationToken) {
        while !self.pause(ended) {
            if let Err(error) = self.now() {
                tracing::debug!(%error, "a report was lost; the next one says the same");
            }
        }
    }

    /// True: it is over.
    fn pause(&self, ended: &CancellationToken) -> bool {
        let runtime = self.lock().0.runtime().clone();
        runtime.block_on(async { tokio::time::timeout(PERIOD, ended.cancelled()).await.is_ok() })
    }
}
