//! The heartbeat: facts up, orders down, and the certificate renewed in time.
use super::clock::ClockSample;
use super::identity::Identity;
use super::join::{self, JoinError};
use super::orders::{OrderBook, Orders};
use super::quiesce::Quiesce;
use super::ship::{ShipCounters, of_status};
use super::sink::ShipError;
use super::status::Board;
use super::update::Updates;
use super::{doctor, inventory};
use crate::rt::now_unix_nanos;
use crate::wire::proto::control_client::ControlClient;
use crate::wire::proto::{HeartbeatReply, HeartbeatRequest};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

const CALL_LIMIT: Duration = Duration::from_secs(15);
/// The inventory is taken anew this often, and when a disk came, went or changed its size.
const INVENTORY_PERIOD: Duration = Duration::from_secs(300);
/// Until the server says otherwise.
const PERIOD: Duration = Duration::from_secs(5);
/// More than this is worth a person's attention; points are stamped by the server's clock in any case.
const SKEW_WARNING: Duration = Duration::from_secs(60);

type Glance = Vec<(PathBuf, u64, String)>;

pub(super) struct Heart {
    identity: watch::Sender<Identity>,
    state: PathBuf,
    book: OrderBook,
    board: Board,
    counters: Arc<ShipCounters>,
    channel: Option<Channel>,
    inventory_sent: Option<(std::time::Instant, Glance)>,
    updates: Option<Updates>,
    quiesce: Quiesce,
}

impl Heart {
    pub(super) fn new(
        identity: Identity,
        state: PathBuf,
        book: OrderBook,
        board: Board,
        counters: Arc<ShipCounters>,
        updates: Option<Updates>,
        quiesce: Quiesce,
    ) -> Self {
        Self {
            identity: watch::Sender::new(identity),
            state,
            book,
            board,
            counters,
            channel: None,
            inventory_sent: None,
            updates,
            quiesce,
        }
    }

    /// The identity in force; another one after a renewal.
    pub(super) fn identities(&self) -> watch::Receiver<Identity> {
        self.identity.subscribe()
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            let period = tokio::select! {
                () = stop.cancelled() => return,
                period = self.beat() => period,
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(period) => {}
                () = self.board.is_urgent() => {}
            }
        }
    }

    /// One heartbeat; how long to wait for the next.
    async fn beat(&mut self) -> Duration {
        let now = now_unix_nanos() / 1_000_000_000;
        let (not_after, renew_at) = {
            let identity = self.identity.borrow();
            (identity.not_after_unix, identity.renew_at_unix())
        };
        if now >= not_after {
            self.board.change().connected = false;
            self.board.trouble(
                "CertificateExpired",
                true,
                "the certificate of this machine has expired: the server turns it away".to_owned(),
                "the agent was off or unreachable for too long, or this machine's clock is wrong",
                "check the clock, then join again: lifeboat agent join",
            );
            return PERIOD * 6;
        }
        self.board.over(&["CertificateExpired"]);
        if now >= renew_at {
            self.renew().await;
        }
        match tokio::time::timeout(CALL_LIMIT, self.call()).await {
            Ok(Ok(reply)) => {
                self.board.change().connected = true;
                self.board.over(&["Heartbeat", "HeartbeatRefused"]);
                Duration::from_secs(u64::from(reply.heartbeat_seconds.clamp(1, 600)))
            }
            Ok(Err(ShipError::Refused {
                code,
                message,
                causes,
                action,
            })) => {
                self.board.change().connected = false;
                self.board.trouble(
                    "HeartbeatRefused",
                    true,
                    format!("{message} ({code})"),
                    &causes,
                    &action,
                );
                PERIOD
            }
            Ok(Err(error)) => self.unreachable(&error.to_string()),
            Err(_) => self.unreachable("no answer to the heartbeat"),
        }
    }

    fn unreachable(&mut self, why: &str) -> Duration {
        self.channel = None;
        self.board.change().connected = false;
        self.board.trouble(
            "Heartbeat",
            false,
            format!("the configuration server does not answer: {why}"),
            "it is stopped or restarting, the network is down, or a firewall closes the data port",
            "none if it passes; else look at the server and at the way to its data port",
        );
        PERIOD.min(Duration::from_secs(2))
    }

    async fn call(&mut self) -> Result<HeartbeatReply, ShipError> {
        let channel = self.channel()?;
        let (glance, inventory) = self.inventory().await;
        let status = self.board.now();
        let sent_at = now_unix_nanos();
        let request = HeartbeatRequest {
            clock_unix_nanos: sent_at,
            agent_version: crate::rt::executable::version().to_owned(),
            inventory_json: inventory.clone().unwrap_or_default(),
            boot_id: inventory::boot_id(),
            disks: status.disk_messages(|disk| self.counters.of(disk)),
            phase: status.phase.clone(),
            troubles: status.trouble_messages(),
            generation: status.generation,
            resync_done: status.resynchronized,
            halt: status.halt_message(),
            update: self.updates.as_ref().and_then(Updates::report),
        };
        let reply = ControlClient::new(channel)
            .heartbeat(request)
            .await
            .map_err(|status| of_status(&status))?
            .into_inner();
        if inventory.is_some() {
            self.inventory_sent = Some((std::time::Instant::now(), glance));
        }
        if reply.want_inventory {
            self.inventory_sent = None;
        }
        let sample = ClockSample::new(
            sent_at,
            reply.received_unix_nanos,
            reply.clock_unix_nanos,
            now_unix_nanos(),
        );
        self.book.clock().add(sample);
        self.skew(sample.offset_nanos);
        if let Some(updates) = &self.updates {
            updates.healthy();
            if let Some(order) = reply.desired.as_ref().and_then(|desired| desired.update.clone()) {
                updates.order(order, &self.identity.borrow());
            }
        }
        if let Some(desired) = reply.desired.clone() {
            self.book.give(Orders::of_message(desired));
        }
        Ok(reply)
    }

    fn channel(&mut self) -> Result<Channel, ShipError> {
        if let Some(channel) = &self.channel {
            return Ok(channel.clone());
        }
        let channel = self
            .identity
            .borrow()
            .channel()
            .map_err(|error| ShipError::Disconnected(error.to_string()))?;
        self.channel = Some(channel.clone());
        Ok(channel)
    }

    /// The inventory in JSON when the server is to get it: when it asked, the last one is old, or the disks are others.
    async fn inventory(&self) -> (Glance, Option<String>) {
        let (only, quiesce) = (self.identity.borrow().disks.clone(), self.quiesce.clone());
        let known = match &self.inventory_sent {
            Some((sent, glance)) if sent.elapsed() < INVENTORY_PERIOD => Some(glance.clone()),
            _ => None,
        };
        let looked = tokio::task::spawn_blocking(move || {
            // Before the inventory: what changes while it is taken shows in the next glance.
            let glance = inventory::glance(&only);
            if known.is_some_and(|known| known == glance) {
                return (glance, None);
            }
            let mut inventory = inventory::take(&only);
            inventory.checks = doctor::checks(&inventory, &only, &quiesce);
            let text = serde_json::to_string(&inventory).ok();
            (glance, text)
        });
        looked.await.unwrap_or_default()
    }

    fn skew(&self, offset_nanos: i64) {
        if offset_nanos.unsigned_abs() > SKEW_WARNING.as_nanos() as u64 {
            self.board.trouble(
                "ClockSkew",
                false,
                format!(
                    "this machine's clock is {} off the server's",
                    humantime::format_duration(Duration::from_secs(offset_nanos.unsigned_abs() / 1_000_000_000))
                ),
                "one of the two clocks has no time service",
                "set the clock on the wrong one (timedatectl); recovery points are stamped by the server's clock",
            );
        } else {
            self.board.over(&["ClockSkew"]);
        }
    }

    async fn renew(&mut self) {
        let Ok(channel) = self.channel() else { return };
        let identity = self.identity.borrow().clone();
        match tokio::time::timeout(CALL_LIMIT, join::renew(&identity, channel, &self.state)).await {
            Ok(Ok(fresh)) => {
                tracing::info!("the certificate was renewed");
                self.identity.send_replace(fresh);
                self.channel = None;
                self.board.over(&["CertificateRenewal"]);
            }
            Ok(Err(JoinError::Unreachable(_))) | Err(_) => {}
            Ok(Err(error)) => self.board.trouble(
                "CertificateRenewal",
                false,
                format!("the certificate could not be renewed: {error}"),
                "the server refused, or the state folder cannot be written",
                "look at the server's log; join again before the certificate ends",
            ),
        }
    }
}
