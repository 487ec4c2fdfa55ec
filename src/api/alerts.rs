//! Alert settings, their test, the delivery log, and the health errors that are on.
use super::access::Caller;
use super::lists::{Sort, is};
use super::model::{Named, Page, Paging, Reason, Time, etag, if_match, oldest_first};
use super::problem::ApiError;
use super::{ApiState, RequestId};
use crate::alerts;
use crate::vault::{
    AlertSettings, Channel, Delivery, DeliveryFilter, DeliveryState, EmailSettings, KnownAlertSettings,
    MailSecurity, QuietHours, Secret, Severity, WebhookSettings,
};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub enum AlertSeverity {
    Information,
    Warning,
    Critical,
}

impl From<AlertSeverity> for Severity {
    fn from(word: AlertSeverity) -> Self {
        match word {
            AlertSeverity::Information => Self::Information,
            AlertSeverity::Warning => Self::Warning,
            AlertSeverity::Critical => Self::Critical,
        }
    }
}

impl From<Severity> for AlertSeverity {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Information => Self::Information,
            Severity::Warning => Self::Warning,
            Severity::Critical => Self::Critical,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub enum SmtpSecurity {
    /// Becomes TLS before anything is said, or fails.
    StartTls,
    /// TLS from the first byte.
    Tls,
    /// No TLS: without a login, or on the server's own host.
    None,
}

impl From<SmtpSecurity> for MailSecurity {
    fn from(word: SmtpSecurity) -> Self {
        match word {
            SmtpSecurity::StartTls => Self::StartTls,
            SmtpSecurity::Tls => Self::Tls,
            SmtpSecurity::None => Self::None,
        }
    }
}

impl From<MailSecurity> for SmtpSecurity {
    fn from(security: MailSecurity) -> Self {
        match security {
            MailSecurity::StartTls => Self::StartTls,
            MailSecurity::Tls => Self::Tls,
            MailSecurity::None => Self::None,
        }
    }
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertEmail {
    pub server: String,
    pub port: u16,
    pub security: SmtpSecurity,
    pub user: Option<String>,
    /// The password itself is never shown.
    pub password_set: bool,
    pub from: String,
    pub to: Vec<String>,
    pub ca_pem: Option<String>,
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertWebhook {
    pub name: String,
    pub url: String,
    /// The secret itself is never shown.
    pub secret_set: bool,
    pub ca_pem: Option<String>,
}

/// From when to when only what is critical is sent, in the server's time zone; the rest waits for the end.
#[derive(Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = QuietHours)]
pub struct QuietHoursView {
    /// HH:MM
    pub from: String,
    /// HH:MM; before `from`: on the next day.
    pub to: String,
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AlertSettings)]
pub struct AlertSettingsView {
    /// What is milder is in the events only.
    pub least_severity: AlertSeverity,
    /// News is collected this long and sent as one message.
    pub digest_seconds: u32,
    pub quiet_hours: Option<QuietHoursView>,
    /// HH:MM in the server's time zone; null: no daily summary.
    pub daily_summary_at: Option<String>,
    pub email: Option<AlertEmail>,
    pub webhooks: Vec<AlertWebhook>,
    /// The ETag.
    pub revision: u64,
}

impl From<KnownAlertSettings> for AlertSettingsView {
    fn from(known: KnownAlertSettings) -> Self {
        let has = |channel: &Channel| known.with_secret.contains(channel);
        let email = known.settings.email.map(|email| AlertEmail {
            server: email.server,
            port: email.port,
            security: email.security.into(),
            user: email.user,
            password_set: has(&Channel::Email),
            from: email.from,
            to: email.to,
            ca_pem: email.ca_pem,
        });
        let webhooks = known
            .settings
            .webhooks
            .into_iter()
            .map(|hook| AlertWebhook {
                secret_set: has(&Channel::Webhook(hook.name.clone())),
                name: hook.name,
                url: hook.url,
                ca_pem: hook.ca_pem,
            })
            .collect();
        Self {
            least_severity: known.settings.least_severity.into(),
            digest_seconds: known.settings.digest_seconds,
            quiet_hours: known.settings.quiet_hours.map(|hours| QuietHoursView {
                from: hours.from,
                to: hours.to,
            }),
            daily_summary_at: known.settings.daily_summary_at,
            email,
            webhooks,
            revision: known.revision,
        }
    }
}

/// The e-mail to send. No `Debug`: it holds a password.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AlertEmailRequest {
    pub server: String,
    /// Default 587, with Tls 465, with None 25.
    #[serde(default)]
    pub port: Option<u16>,
    /// Default StartTls.
    #[serde(default)]
    pub security: Option<SmtpSecurity>,
    /// Left out: no login.
    #[serde(default)]
    pub user: Option<String>,
    /// Left out: the one that is stored stays, unless it would go to another server.
    #[serde(default)]
    #[schema(write_only, max_length = 1024)]
    pub password: Option<String>,
    pub from: String,
    #[schema(min_items = 1, max_items = 50)]
    pub to: Vec<String>,
    /// Trusted in place of the system's authorities.
    #[serde(default)]
    pub ca_pem: Option<String>,
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AlertWebhookRequest {
    pub name: String,
    pub url: String,
    /// Key of the signature, HMAC-SHA256. Left out: the one that is stored stays.
    #[serde(default)]
    #[schema(write_only, min_length = 16, max_length = 1024)]
    pub secret: Option<String>,
    /// Trusted in place of the system's authorities.
    #[serde(default)]
    pub ca_pem: Option<String>,
}

/// All of the settings; what is left out has the default, and channels that are left out are removed.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AlertSettingsRequest {
    /// Default Warning.
    #[serde(default)]
    pub least_severity: Option<AlertSeverity>,
    /// Default 60.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 86400)]
    pub digest_seconds: Option<u32>,
    #[serde(default)]
    pub quiet_hours: Option<QuietHoursView>,
    /// HH:MM in the server's time zone. Sent once a day from then on.
    #[serde(default)]
    pub daily_summary_at: Option<String>,
    #[serde(default)]
    pub email: Option<AlertEmailRequest>,
    #[serde(default)]
    #[schema(max_items = 10)]
    pub webhooks: Vec<AlertWebhookRequest>,
}

impl AlertSettingsRequest {
    fn split(self) -> (AlertSettings, BTreeMap<Channel, Option<Secret>>) {
        let default = AlertSettings::default();
        let mut secrets = BTreeMap::new();
        let email = self.email.map(|email| {
            match (email.password, &email.user) {
                (Some(password), _) => {
                    secrets.insert(Channel::Email, Some(Secret::new(password)));
                }
                // A password without a user is of no use.
                (None, None) => {
                    secrets.insert(Channel::Email, None);
                }
                (None, Some(_)) => {}
            }
            let security = email.security.map_or(MailSecurity::StartTls, MailSecurity::from);
            EmailSettings {
                server: email.server,
                port: email.port.unwrap_or(match security {
                    MailSecurity::StartTls => 587,
                    MailSecurity::Tls => 465,
                    MailSecurity::None => 25,
                }),
                security,
                user: email.user,
                from: email.from,
                to: email.to,
                ca_pem: email.ca_pem,
            }
        });
        let webhooks = self
            .webhooks
            .into_iter()
            .map(|hook| {
                if let Some(secret) = hook.secret {
                    secrets.insert(Channel::Webhook(hook.name.clone()), Some(Secret::new(secret)));
                }
                WebhookSettings {
                    name: hook.name,
                    url: hook.url,
                    ca_pem: hook.ca_pem,
                }
            })
            .collect();
        let settings = AlertSettings {
            least_severity: self.least_severity.map_or(default.least_severity, Severity::from),
            digest_seconds: self.digest_seconds.unwrap_or(default.digest_seconds),
            quiet_hours: self.quiet_hours.map(|hours| QuietHours {
                from: hours.from,
                to: hours.to,
            }),
            daily_summary_at: self.daily_summary_at,
            email,
            webhooks,
        };
        (settings, secrets)
    }
}

fn answer(known: KnownAlertSettings) -> Response {
    let etag = etag(known.revision);
    ([(header::ETAG, etag)], Json(AlertSettingsView::from(known))).into_response()
}

/// Who is told of what is wrong, and how.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/alert-settings", tag = "Alerts",
    responses((status = 200, body = AlertSettingsView)))]
pub async fn settings(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
) -> Result<Response, ApiError> {
    let known = state
        .run(move |state| Ok(state.vault.alert_settings(&vault)?))
        .await?;
    Ok(answer(known))
}

/// Replaces the settings. A channel that is new hears of what is on already.
#[utoipa::path(put, path = "/api/v1/vaults/{vault}/alert-settings", tag = "Alerts",
    params(("If-Match" = Option<String>, Header, description = "ETag of the settings: refused when they were changed since")),
    request_body = AlertSettingsRequest, responses((status = 200, body = AlertSettingsView)))]
pub async fn set(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
    headers: HeaderMap,
    Json(request): Json<AlertSettingsRequest>,
) -> Result<Response, ApiError> {
    let revision = if_match(&headers)?;
    let known = state
        .run(move |state| {
            let (settings, secrets) = request.split();
            Ok(state
                .vault
                .set_alert_settings(&vault, &settings, &secrets, revision)?)
        })
        .await?;
    Ok(answer(known))
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AlertTestRequest {
    /// `email` or `webhook:NAME`; left out: all.
    #[serde(default)]
    pub channel: Option<String>,
}

#[derive(Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertTestResult {
    pub channel: String,
    pub delivered: bool,
    /// In the delivery log, and in the message.
    pub delivery_id: String,
    pub error: Option<Reason>,
}

#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub struct AlertTest {
    pub results: Vec<AlertTestResult>,
}

/// Sends a test message now and says what became of it.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/alert-settings/test", tag = "Alerts",
    request_body = AlertTestRequest, responses((status = 200, body = AlertTest)))]
pub async fn test(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
    Extension(caller): Extension<Caller>,
    request_id: Option<Extension<RequestId>>,
    Json(request): Json<AlertTestRequest>,
) -> Result<Json<AlertTest>, ApiError> {
    let deliveries = state
        .run(move |state| begin_tests(state, &vault, request.channel.as_deref(), &caller.user))
        .await?;
    let sending = deliveries.into_iter().map(|delivery| {
        let vault = state.vault.clone();
        async move {
            let sent = alerts::send(&vault, &delivery).await;
            (delivery, sent)
        }
    });
    let mut results = Vec::new();
    for (delivery, sent) in futures_util::future::join_all(sending).await {
        if let Err(error) = &sent {
            let request_id = request_id.as_ref().map(|id| id.0.0.as_str());
            tracing::info!(%error, request_id, channel = %delivery.channel, "a test of alerts failed");
        }
        let error = sent.err().map(|error| {
            let (code, causes, action) = error.advice();
            Reason {
                code: code.to_owned(),
                message: error.to_string(),
                possible_causes: causes.to_owned(),
                recommended_action: action.to_owned(),
            }
        });
        results.push(AlertTestResult {
            channel: delivery.channel.to_string(),
            delivered: error.is_none(),
            delivery_id: delivery.id.to_string(),
            error,
        });
    }
    Ok(Json(AlertTest { results }))
}

fn begin_tests(
    state: &ApiState,
    vault: &str,
    wanted: Option<&str>,
    user: &str,
) -> Result<Vec<Delivery>, ApiError> {
    let mut channels = state.vault.alert_settings(vault)?.settings.channels();
    if channels.is_empty() {
        return Err(ApiError::new(
            StatusCode::NOT_FOUND,
            "NoSuchChannel",
            "nobody is told of alerts yet: neither an e-mail nor a webhook is set",
            "none was set yet, or the last one was removed",
            "set one: lifeboat alert email --help, lifeboat alert webhook --help",
        ));
    }
    if let Some(wanted) = wanted {
        let wanted: Channel = wanted.parse()?;
        channels.retain(|channel| *channel == wanted);
    }
    if channels.is_empty() {
        return Err(ApiError::new(
            StatusCode::NOT_FOUND,
            "NoSuchChannel",
            "there is no such channel in the alert settings",
            "none was set yet, or its name is misspelt",
            "see them: lifeboat alert show; set one: lifeboat alert email, lifeboat alert webhook",
        ));
    }
    let digest = alerts::test_digest(user);
    let now = crate::rt::now_unix_nanos();
    channels
        .iter()
        .map(|channel| Ok(state.vault.begin_alert_test(vault, channel, &digest, now)?))
        .collect()
}

/// A line of the delivery log.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertDelivery {
    pub id: String,
    /// `email` or `webhook:NAME`
    pub channel: String,
    /// Alert, Test
    pub kind: String,
    /// Pending (also while it is tried again), Delivered, Failed (given up), Cancelled (its channel was removed)
    pub state: String,
    pub severity: AlertSeverity,
    pub subject: String,
    pub created_at: Time,
    pub next_attempt_at: Option<Time>,
    pub attempts: u32,
    pub ended_at: Option<Time>,
    /// Why the last attempt failed.
    pub error: String,
}

impl From<Delivery> for AlertDelivery {
    fn from(delivery: Delivery) -> Self {
        let is_pending = delivery.state == DeliveryState::Pending;
        Self {
            id: delivery.id.to_string(),
            channel: delivery.channel.to_string(),
            kind: if delivery.is_test { "Test" } else { "Alert" }.to_owned(),
            state: format!("{:?}", delivery.state),
            severity: delivery.digest.severity().into(),
            subject: alerts::subject(&delivery),
            created_at: Time(delivery.created_unix_nanos),
            next_attempt_at: is_pending.then_some(Time(delivery.next_unix_nanos)),
            attempts: delivery.attempts,
            ended_at: delivery.ended_unix_nanos.map(Time),
            error: delivery.error,
        }
    }
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DeliveryQuery {
    /// `email` or `webhook:NAME`
    pub channel: Option<String>,
    /// Alert, Test
    pub kind: Option<String>,
    /// Pending, Delivered, Failed, Cancelled
    pub state: Option<String>,
    /// -createdAt (default): the newest first; createdAt: the oldest first.
    pub sort: Option<String>,
    /// Most items to answer.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub limit: Option<u32>,
    /// `nextCursor` of the part before.
    pub cursor: Option<String>,
}

/// What was sent and what waits to be sent, the newest first.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/alert-deliveries", tag = "Alerts", params(DeliveryQuery),
    responses((status = 200, body = Page<AlertDelivery>)))]
pub async fn deliveries(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
    Query(query): Query<DeliveryQuery>,
) -> Result<Json<Page<AlertDelivery>>, ApiError> {
    let paging = Paging {
        limit: query.limit,
        cursor: query.cursor,
    };
    let (limit, after) = (paging.limit()?, paging.after_parsed()?);
    let filter = DeliveryFilter {
        channel: query.channel,
        kind: query.kind,
        state: query.state,
        oldest_first: oldest_first(query.sort.as_deref(), "createdAt")?,
    };
    let page = state
        .run(move |state| {
            let rows = state.vault.deliveries(&vault, &filter, after, limit + 1)?;
            Page::of(rows, limit, |row| row.number.to_string(), |row| Ok(row.into()))
        })
        .await?;
    Ok(Json(page))
}

/// A health error that is on.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OpenHealthErrorView {
    pub code: String,
    /// Null: of the site.
    pub machine: Option<Named>,
    pub severity: AlertSeverity,
    pub summary: String,
    pub message: String,
    pub possible_causes: String,
    pub recommended_action: String,
    pub since: Time,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct HealthErrorQuery {
    /// Only of this machine, by name or id.
    pub machine: Option<String>,
    /// Only this code.
    pub code: Option<String>,
    /// Information, Warning, Critical
    pub severity: Option<String>,
    /// -severity (default): the worst first, of these the oldest; severity, since, code; with a `-` before it the other way
    /// round.
    pub sort: Option<String>,
    /// Most items to answer.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub limit: Option<u32>,
    /// `nextCursor` of the part before.
    pub cursor: Option<String>,
}

/// Health errors of all machines and of the site, the worst first.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/health-errors", tag = "Alerts", params(HealthErrorQuery),
    responses((status = 200, body = Page<OpenHealthErrorView>)))]
pub async fn health_errors(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
    Query(query): Query<HealthErrorQuery>,
) -> Result<Json<Page<OpenHealthErrorView>>, ApiError> {
    let sort = Sort::of(
        Some(query.sort.as_deref().unwrap_or("-severity")),
        &["severity", "since", "code"],
    )?;
    let paging = Paging {
        limit: query.limit,
        cursor: query.cursor,
    };
    let errors = state
        .run(move |state| Ok(state.vault.open_health_errors(&vault)?))
        .await?;
    let views = errors
        .into_iter()
        .map(|error| OpenHealthErrorView {
            code: error.code,
            machine: error.machine.map(|id| Named {
                id: id.to_string(),
                name: error.machine_name,
            }),
            severity: error.severity.into(),
            summary: error.summary,
            message: error.message,
            possible_causes: error.possible_causes,
            recommended_action: error.recommended_action,
            since: Time(error.since_unix_nanos),
        })
        .filter(|error| {
            let of = error.machine.as_ref();
            (query.machine.is_none()
                || of.is_some_and(|machine| {
                    is(&machine.name, query.machine.as_deref()) || is(&machine.id, query.machine.as_deref())
                }))
                && is(&error.code, query.code.as_deref())
                && is(&format!("{:?}", error.severity), query.severity.as_deref())
        })
        .collect();
    let id = |error: &OpenHealthErrorView| {
        let machine = error.machine.as_ref().map(|machine| machine.id.as_str());
        format!("{} {}", error.code, machine.unwrap_or_default())
    };
    let key = |error: &OpenHealthErrorView, field: &str| match field {
        // Not by the alphabet. The order is turned round as a whole, so the time is counted backwards.
        "severity" => json!(format!(
            "{} {:020}",
            error.severity as u8,
            i64::MAX - error.since.0
        )),
        "since" => json!(error.since),
        _ => json!(error.code),
    };
    Ok(Json(sort.page_by(views, &paging, id, key)?))
}
