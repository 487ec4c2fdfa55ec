//! Who is told of alerts, and how. Secrets are kept apart and go nowhere but to the sender.
use super::{QuietHours, Severity, Vault, VaultError, alerts, vault_id};
use crate::rt::now_unix_nanos;
use rusqlite::{OptionalExtension, Transaction, params};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use zeroize::Zeroizing;

const RECIPIENTS_MAX: usize = 50;
const WEBHOOKS_MAX: usize = 10;
const CA_BYTES_MAX: usize = 64 * 1024;
const SECRET_BYTES_MAX: usize = 1024;
/// An HMAC key that can be guessed signs nothing.
const WEBHOOK_SECRET_BYTES_MIN: usize = 16;

/// Where alerts go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    Email,
    Webhook(String),
}

impl std::fmt::Display for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Email => f.write_str("email"),
            Self::Webhook(name) => write!(f, "webhook:{name}"),
        }
    }
}

impl std::str::FromStr for Channel {
    type Err = VaultError;

    fn from_str(text: &str) -> Result<Self, VaultError> {
        match text.split_once(':') {
            None if text == "email" => Ok(Self::Email),
            Some(("webhook", name)) if !name.is_empty() => Ok(Self::Webhook(name.to_owned())),
            _ => Err(VaultError::Invalid {
                field: "channel",
                rule: "email, or webhook:NAME".to_owned(),
            }),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MailSecurity {
    /// Plain connection that must become TLS before anything is said.
    StartTls,
    /// TLS from the first byte.
    Tls,
    /// No TLS: without a login, or on this host.
    None,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EmailSettings {
    pub server: String,
    pub port: u16,
    pub security: MailSecurity,
    /// None: no login.
    pub user: Option<String>,
    pub from: String,
    pub to: Vec<String>,
    /// Trusted in place of the system's authorities.
    pub ca_pem: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookSettings {
    pub name: String,
    pub url: String,
    /// Trusted in place of the system's authorities.
    pub ca_pem: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AlertSettings {
    pub least_severity: Severity,
    /// News is collected this long and sent as one message.
    pub digest_seconds: u32,
    /// Only what is critical is sent then; the rest waits.
    pub quiet_hours: Option<QuietHours>,
    /// HH:MM in the server's time zone. None: no summary.
    pub daily_summary_at: Option<String>,
    pub email: Option<EmailSettings>,
    pub webhooks: Vec<WebhookSettings>,
}

impl Default for AlertSettings {
    fn default() -> Self {
        Self {
            least_severity: Severity::Warning,
            digest_seconds: 60,
            quiet_hours: None,
            daily_summary_at: None,
            email: None,
            webhooks: Vec::new(),
        }
    }
}

/// A password or a key for signatures. Never shown.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// For the sender only.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// The settings as they are kept, and which channels have a secret.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownAlertSettings {
    pub settings: AlertSettings,
    pub revision: u64,
    pub with_secret: Vec<Channel>,
}

fn invalid<T>(field: &'static str, rule: impl Into<String>) -> Result<T, VaultError> {
    Err(VaultError::Invalid {
        field,
        rule: rule.into(),
    })
}

/// Scheme, host and port of a webhook.
pub fn webhook_address(url: &str) -> Option<(bool, String, u16)> {
    let uri: hyper::Uri = url.parse().ok()?;
    let tls = match uri.scheme_str()? {
        "https" => true,
        "http" => false,
        _ => return None,
    };
    let authority = uri.authority()?;
    // A login in the address would be shown with it.
    if authority.as_str().contains('@') || uri.host()?.is_empty() {
        return None;
    }
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    Some((tls, uri.host()?.to_owned(), port))
}

/// Whether a name or address is this host.
pub fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost"
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn check_ca(field: &'static str, pem: Option<&str>) -> Result<(), VaultError> {
    use rustls::pki_types::pem::PemObject;
    let Some(pem) = pem else { return Ok(()) };
    let count = rustls::pki_types::CertificateDer::pem_slice_iter(pem.as_bytes())
        .take_while(Result::is_ok)
        .count();
    if pem.len() > CA_BYTES_MAX || count == 0 {
        return invalid(field, "certificates in PEM, at most 64 KiB");
    }
    Ok(())
}

impl EmailSettings {
    fn check(&self) -> Result<(), VaultError> {
        let host = &self.server;
        let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'_');
        if host.is_empty() || host.len() > 253 || !host.bytes().all(fine) {
            return invalid("email.server", "a host name or an address, without port");
        }
        if self.port == 0 {
            return invalid("email.port", "1 to 65535; usually 587 (StartTls) or 465 (Tls)");
        }
        let is_address = |text: &str| text.len() <= 320 && text.parse::<lettre::message::Mailbox>().is_ok();
        if !is_address(&self.from) {
            return invalid("email.from", "an address, for example lifeboat@example.org");
        }
        if self.to.is_empty() || self.to.len() > RECIPIENTS_MAX || !self.to.iter().all(|to| is_address(to)) {
            return invalid("email.to", "1 to 50 addresses");
        }
        if self.security == MailSecurity::None && self.user.is_some() && !is_loopback(host) {
            return invalid(
                "email.security",
                "StartTls or Tls: a password does not go over the network in clear",
            );
        }
        if self
            .user
            .as_ref()
            .is_some_and(|user| user.is_empty() || user.len() > 320)
        {
            return invalid("email.user", "1 to 320 bytes");
        }
        check_ca("email.caPem", self.ca_pem.as_deref())
    }
}

impl AlertSettings {
    pub fn channels(&self) -> Vec<Channel> {
        let email = self.email.iter().map(|_| Channel::Email);
        let webhooks = self
            .webhooks
            .iter()
            .map(|hook| Channel::Webhook(hook.name.clone()));
        email.chain(webhooks).collect()
    }

    fn check(&self) -> Result<(), VaultError> {
        if !(1..=86_400).contains(&self.digest_seconds) {
            return invalid("digestSeconds", "1 second to 1 day (1 to 86400)");
        }
        if let Some(hours) = &self.quiet_hours {
            hours.check()?;
        }
        if let Some(at) = &self.daily_summary_at {
            super::day_time::minute_of("dailySummaryAt", at)?;
        }
        if let Some(email) = &self.email {
            email.check()?;
        }
        if self.webhooks.len() > WEBHOOKS_MAX {
            return invalid("webhooks", "at most 10");
        }
        for (place, hook) in self.webhooks.iter().enumerate() {
            let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
            if !(1..=63).contains(&hook.name.len()) || !hook.name.bytes().all(fine) {
                return invalid(
                    "webhooks.name",
                    "1 to 63 letters, digits, hyphens, underscores and full stops",
                );
            }
            if self
                .webhooks
                .iter()
                .take(place)
                .any(|other| other.name == hook.name)
            {
                return invalid(
                    "webhooks.name",
                    format!("each its own; {} stands there twice", hook.name),
                );
            }
            if hook.url.len() > 2000 || webhook_address(&hook.url).is_none() {
                return invalid(
                    "webhooks.url",
                    "https://HOST[:PORT]/PATH or http://, without a login in it",
                );
            }
            check_ca("webhooks.caPem", hook.ca_pem.as_deref())?;
        }
        Ok(())
    }
}

fn stored(transaction: &Transaction<'_>, vault: i64) -> Result<(AlertSettings, u64), VaultError> {
    let row: Option<(String, u64)> = transaction
        .prepare_cached("SELECT body, revision FROM alert_settings WHERE vault = ?1")?
        .query_row([vault], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    match row {
        Some((body, revision)) => Ok((serde_json::from_str(&body)?, revision)),
        None => Ok((AlertSettings::default(), 0)),
    }
}

pub(super) fn settings(transaction: &Transaction<'_>, vault: i64) -> Result<AlertSettings, VaultError> {
    Ok(stored(transaction, vault)?.0)
}

/// Channels that want to hear of this severity.
pub(super) fn listening(
    transaction: &Transaction<'_>,
    vault: i64,
    severity: Severity,
) -> Result<Vec<Channel>, VaultError> {
    // Called in the transaction of an event or a job: settings that cannot be read must not stop a failover from being recorded.
    let settings = match settings(transaction, vault) {
        Ok(settings) => settings,
        Err(error) => {
            tracing::error!(
                ?error,
                "the alert settings cannot be read: nobody is told of what is wrong"
            );
            return Ok(Vec::new());
        }
    };
    Ok(if severity >= settings.least_severity {
        settings.channels()
    } else {
        Vec::new()
    })
}

fn known(transaction: &Transaction<'_>, vault: i64) -> Result<KnownAlertSettings, VaultError> {
    let (settings, revision) = stored(transaction, vault)?;
    let with_secret = transaction
        .prepare_cached("SELECT channel FROM alert_secrets WHERE vault = ?1 ORDER BY channel")?
        .query_map([vault], |row| super::id_column(row, 0))?
        .collect::<Result<_, _>>()?;
    Ok(KnownAlertSettings {
        settings,
        revision,
        with_secret,
    })
}

/// Whether the secret of the channel would go to another server than before.
fn goes_elsewhere(old: &AlertSettings, new: &AlertSettings) -> bool {
    match (&old.email, &new.email) {
        (Some(old), Some(new)) => {
            (&old.server, old.port, &old.user) != (&new.server, new.port, &new.user)
                || old.security != new.security
                || old.ca_pem != new.ca_pem
        }
        _ => false,
    }
}

impl Vault {
    pub fn alert_settings(&self, vault: &str) -> Result<KnownAlertSettings, VaultError> {
        self.read(|transaction| known(transaction, vault_id(transaction, vault)?))
    }

    /// Replaces the settings. `secrets`: new ones; None removes; those not named stay. `revision`: the one that the caller
    /// read; None: whatever is stored.
    pub fn set_alert_settings(
        &self,
        vault: &str,
        new: &AlertSettings,
        secrets: &BTreeMap<Channel, Option<Secret>>,
        revision: Option<u64>,
    ) -> Result<KnownAlertSettings, VaultError> {
        new.check()?;
        for (channel, secret) in secrets {
            let len = secret.as_ref().map(|secret| secret.reveal().len());
            match (channel, len) {
                (_, None) => {}
                (Channel::Email, Some(1..=SECRET_BYTES_MAX)) => {}
                (Channel::Webhook(_), Some(WEBHOOK_SECRET_BYTES_MIN..=SECRET_BYTES_MAX)) => {}
                (Channel::Email, Some(_)) => return invalid("email.password", "1 to 1024 bytes"),
                (Channel::Webhook(_), Some(_)) => return invalid("webhooks.secret", "16 to 1024 bytes"),
            }
        }
        self.write(|transaction| {
            let now = now_unix_nanos();
            let name = vault;
            let vault = vault_id(transaction, name)?;
            let before = known(transaction, vault)?;
            if revision.is_some_and(|revision| revision != before.revision) {
                return Err(VaultError::Conflict {
                    what: "alert settings of",
                    name: name.to_owned(),
                });
            }
            let (old, current) = (before.settings.channels(), new.channels());
            for gone in old.iter().filter(|channel| !current.contains(channel)) {
                alerts::dismiss(transaction, vault, &gone.to_string(), now)?;
            }
            for (channel, secret) in secrets.iter().filter(|(channel, _)| current.contains(channel)) {
                put_secret(transaction, vault, channel, secret.as_ref())?;
            }
            check_secrets(transaction, vault, &before.settings, new, secrets)?;
            transaction.execute(
                "INSERT INTO alert_settings (vault, revision, body) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET revision = ?2, body = ?3",
                params![vault, before.revision + 1, serde_json::to_string(new)?],
            )?;
            for fresh in current.iter().filter(|channel| !old.contains(channel)) {
                alerts::introduce(transaction, vault, fresh, new.least_severity, now)?;
            }
            known(transaction, vault)
        })
    }

    /// For the sender only.
    pub fn alert_secret(&self, vault: &str, channel: &Channel) -> Result<Option<Secret>, VaultError> {
        self.read(|transaction| {
            let vault = vault_id(transaction, vault)?;
            secret(transaction, vault, channel)
        })
    }
}

fn secret(
    transaction: &Transaction<'_>,
    vault: i64,
    channel: &Channel,
) -> Result<Option<Secret>, VaultError> {
    Ok(transaction
        .prepare_cached("SELECT value FROM alert_secrets WHERE vault = ?1 AND channel = ?2")?
        .query_row(params![vault, channel.to_string()], |row| row.get(0))
        .optional()?
        .map(Secret::new))
}

fn put_secret(
    transaction: &Transaction<'_>,
    vault: i64,
    channel: &Channel,
    secret: Option<&Secret>,
) -> Result<(), VaultError> {
    match secret {
        Some(secret) => transaction.execute(
            "INSERT INTO alert_secrets (vault, channel, value) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET value = ?3",
            params![vault, channel.to_string(), secret.reveal()],
        )?,
        None => transaction.execute(
            "DELETE FROM alert_secrets WHERE vault = ?1 AND channel = ?2",
            params![vault, channel.to_string()],
        )?,
    };
    Ok(())
}

fn check_secrets(
    transaction: &Transaction<'_>,
    vault: i64,
    old: &AlertSettings,
    new: &AlertSettings,
    secrets: &BTreeMap<Channel, Option<Secret>>,
) -> Result<(), VaultError> {
    if let Some(email) = &new.email {
        let has = secret(transaction, vault, &Channel::Email)?.is_some();
        if email.user.is_some() && !has {
            return invalid("email.password", "needed, because a user is named");
        }
        // Who may change the settings need not know the password: it must not be sent to a server of their choice.
        if has && goes_elsewhere(old, new) && !secrets.contains_key(&Channel::Email) {
            return invalid(
                "email.password",
                "to be given again when server, port, security, user or CA change",
            );
        }
    }
    for hook in &new.webhooks {
        if secret(transaction, vault, &Channel::Webhook(hook.name.clone()))?.is_none() {
            return invalid(
                "webhooks.secret",
                format!("the webhook {} needs one: 16 to 1024 bytes", hook.name),
            );
        }
    }
    Ok(())
}
