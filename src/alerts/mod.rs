//! Sends alerts: e-mail and webhooks. Beside the block's way.
//!
//! What is to be sent stands in the vault's database before anything leaves here, and is noted there when it has arrived
//! ([`crate::vault::Delivery`]). A crash in between sends it again under the same id. One task decides what is due; each
//! message is sent by a task of its own with a time limit, at most `AT_ONCE_MAX` together and one per channel.
mod mail;
mod message;
mod ringing;
mod watch;
mod webhook;

pub use message::{subject, test_digest, webhook_body};
pub use watch::SiteWatch;
pub use webhook::{SIGNATURE_HEADER, TIMESTAMP_HEADER, signature};

use crate::rt::now_unix_nanos;
use crate::vault::{Channel, Delivery, Vault, VaultError};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// Of one message, from the look-up of the name to the receiver's answer.
const SEND_LIMIT: Duration = Duration::from_secs(30);
const AT_ONCE_MAX: u32 = 8;

#[derive(Debug, thiserror::Error)]
pub enum AlertError {
    #[error("there is no {0} in the alert settings")]
    NoChannel(Channel),
    #[error("the message could not be written: {0}")]
    BadMessage(String),
    #[error("the mail server {server} did not take the message: {answer}")]
    Mail { server: String, answer: String },
    #[error("{address} cannot be reached: {source}")]
    Unreachable {
        address: String,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the receiver answered {0}")]
    Status(u16),
    #[error("the trusted certificates cannot be used: {0}")]
    BadTrust(String),
    #[error("no answer within {} s", SEND_LIMIT.as_secs())]
    TooSlow,
    #[error(transparent)]
    Vault(#[from] VaultError),
}

impl AlertError {
    /// A stable code, possible causes, recommended action.
    pub fn advice(&self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::NoChannel(_) => (
                "NoSuchChannel",
                "it was removed, or its name is misspelt",
                "see the channels: lifeboat alert show",
            ),
            Self::BadMessage(_) => (
                "BadMessage",
                "an address in the settings is not one that mail can be sent to",
                "check the addresses: lifeboat alert show",
            ),
            Self::Mail { .. } => (
                "MailRefused",
                "server, port or security is wrong, the login is refused, the certificate is not trusted, or the sender is not \
                 allowed",
                "compare with what the mail server's owner says: lifeboat alert show; change it: lifeboat alert email",
            ),
            Self::Unreachable { .. } => (
                "ReceiverUnreachable",
                "the receiver is down, a firewall is in between, or its certificate is not trusted",
                "open the address from this server; a private CA is given with --webhook-ca-file",
            ),
            Self::Status(_) => (
                "ReceiverRefused",
                "the receiver does not know the address or refuses the signature",
                "look at the receiver's log; check the address and the secret",
            ),
            Self::BadTrust(_) => (
                "BadTrust",
                "the CA in the settings is not a certificate, or this system has no list of authorities",
                "give the CA again (lifeboat alert email --smtp-ca-file), or install ca-certificates",
            ),
            Self::TooSlow => (
                "ReceiverTooSlow",
                "the receiver is overloaded or hangs",
                "look at the receiver",
            ),
            Self::Vault(_) => (
                "VaultFailed",
                "the server's disk is full or failing",
                "look at the server's log",
            ),
        }
    }
}

/// Runs what blocks on a thread for it.
async fn blocking<T: Send + 'static>(
    action: impl FnOnce() -> Result<T, AlertError> + Send + 'static,
) -> Result<T, AlertError> {
    tokio::task::spawn_blocking(action)
        .await
        .unwrap_or_else(|error| Err(AlertError::BadMessage(error.to_string())))
}

async fn send_unlimited(vault: &Vault, delivery: &Delivery) -> Result<(), AlertError> {
    let (settings, secret) = {
        let (vault, name, channel) = (vault.clone(), delivery.vault.clone(), delivery.channel.clone());
        blocking(move || {
            Ok((
                vault.alert_settings(&name)?.settings,
                vault.alert_secret(&name, &channel)?,
            ))
        })
        .await?
    };
    let gone = || AlertError::NoChannel(delivery.channel.clone());
    match &delivery.channel {
        Channel::Email => {
            let email = settings.email.as_ref().ok_or_else(gone)?;
            mail::send(email, secret.as_ref(), delivery).await
        }
        Channel::Webhook(name) => {
            let hook = settings
                .webhooks
                .iter()
                .find(|hook| hook.name == *name)
                .ok_or_else(gone)?;
            webhook::send(hook, &secret.ok_or_else(gone)?, delivery).await
        }
    }
}

/// Sends one message and notes in the delivery log what became of it.
pub async fn send(vault: &Vault, delivery: &Delivery) -> Result<(), AlertError> {
    let sent = tokio::time::timeout(SEND_LIMIT, send_unlimited(vault, delivery))
        .await
        .unwrap_or(Err(AlertError::TooSlow));
    let error = sent.as_ref().err().map(ToString::to_string);
    let (vault, delivery) = (vault.clone(), delivery.clone());
    let noted = blocking(move || {
        match error {
            None => vault.delivered(&delivery, now_unix_nanos())?,
            Some(error) => {
                tracing::warn!(channel = %delivery.channel, id = %delivery.id, error, "an alert was not delivered");
                vault.delivery_failed(&delivery, &error, now_unix_nanos())?;
            }
        }
        Ok(())
    });
    noted.await?;
    sent
}

/// Composes and sends what is due.
pub struct Dispatcher {
    pub vault: Vault,
}

impl Dispatcher {
    /// Runs until `stop`. What is being sent then is given its time limit no longer: it is sent again after the next start.
    pub async fn run(self, stop: CancellationToken) {
        let vault = self.vault;
        let begun = {
            let vault = vault.clone();
            blocking(move || Ok(vault.abandon_alert_tests(now_unix_nanos())?))
        };
        if let Err(error) = begun.await {
            tracing::warn!(%error, "the delivery log was not read");
        }
        let (tasks, under_way) = (TaskTracker::new(), Arc::new(Mutex::new(HashSet::<Uuid>::new())));
        let mut tick = tokio::time::interval(LOOK_PERIOD);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let due = {
                let vault = vault.clone();
                blocking(move || {
                    let now = now_unix_nanos();
                    vault.compose_alerts(now)?;
                    // One per channel is open at most, so those under way cannot hide others for long.
                    Ok(vault.due_deliveries(now, 4 * AT_ONCE_MAX)?)
                })
            };
            let due = match due.await {
                Ok(due) => due,
                Err(error) => {
                    tracing::warn!(%error, "alerts were not looked at");
                    continue;
                }
            };
            for delivery in due {
                let mut ids = under_way.lock().unwrap_or_else(PoisonError::into_inner);
                if ids.len() >= AT_ONCE_MAX as usize || !ids.insert(delivery.id) {
                    continue;
                }
                drop(ids);
                let (vault, under_way, stop) = (vault.clone(), under_way.clone(), stop.clone());
                tasks.spawn(async move {
                    tokio::select! {
                        // Its outcome is in the log.
                        _ = send(&vault, &delivery) => {}
                        () = stop.cancelled() => {}
                    }
                    under_way
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .remove(&delivery.id);
                });
            }
        }
    }
}
