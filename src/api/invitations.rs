//! Join tokens, which let one machine in for an hour, and registration keys of a vault, which are kept for up to five days.
use super::access::Caller;
use super::install;
use super::lists::{Sort, is};
use super::model::{Page, Paging, Time};
use super::problem::ApiError;
use super::site::WayIn;
use super::{ApiState, Origin};
use crate::rt::now_unix_nanos;
use crate::vault::{Invitation, Invites, JOIN_TOKEN_LIFE, JOIN_TOKEN_LIFE_MAX, REGISTRATION_KEY_LIFE};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Invitation)]
pub struct InvitationView {
    pub id: i64,
    /// Valid, Used, Expired, Revoked
    pub state: String,
    pub made_by: String,
    pub created_at: Time,
    pub expires_at: Time,
    pub used_at: Option<Time>,
    /// Name of the machine or server that it let in.
    pub used_by: Option<String>,
}

impl From<Invitation> for InvitationView {
    fn from(row: Invitation) -> Self {
        Self {
            id: row.id,
            state: row.state(now_unix_nanos()).to_owned(),
            made_by: row.made_by,
            created_at: Time(row.created_unix_nanos),
            expires_at: Time(row.expires_unix_nanos),
            used_at: row.used_unix_nanos.map(Time),
            used_by: row.used_by,
        }
    }
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct InvitationQuery {
    /// Valid, Used, Expired, Revoked
    pub state: Option<String>,
    /// Only those that this user made.
    pub made_by: Option<String>,
    /// -id (default): the newest first; id, createdAt, expiresAt, usedAt, madeBy, state; with a `-` before it the other way
    /// round.
    pub sort: Option<String>,
    /// Most items to answer.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub limit: Option<u32>,
    /// `nextCursor` of the part before.
    pub cursor: Option<String>,
}

const SORTS: [&str; 6] = ["id", "createdAt", "expiresAt", "usedAt", "madeBy", "state"];

async fn list(
    state: ApiState,
    invites: Invites,
    vault: String,
    query: InvitationQuery,
) -> Result<Json<Page<InvitationView>>, ApiError> {
    let sort = Sort::of(Some(query.sort.as_deref().unwrap_or("-id")), &SORTS)?;
    let paging = Paging {
        limit: query.limit,
        cursor: query.cursor,
    };
    let rows = state
        .run(move |state| Ok(state.vault.invitations(invites, &vault)?))
        .await?;
    let views = rows
        .into_iter()
        .map(InvitationView::from)
        .filter(|row| is(&row.state, query.state.as_deref()) && is(&row.made_by, query.made_by.as_deref()))
        .collect();
    Ok(Json(sort.page(views, &paging, |row| row.id.to_string())?))
}

#[derive(Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct JoinTokenRequest {
    /// How long the token is good for; an hour where nothing is said.
    #[schema(minimum = 1, maximum = 10080)]
    pub valid_minutes: Option<u32>,
    /// Name or address under which the machine reaches this server; else the one of this call, else the server's own name.
    pub address: Option<String>,
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreatedJoinToken {
    pub id: i64,
    /// Shown this once.
    pub token: String,
    pub expires_at: Time,
    /// What is run on the machine: fetches, checks, installs, joins and starts the agent.
    pub install_command: String,
    /// Of the server's CA, for `lifeboat agent join`.
    pub ca_fingerprint: String,
    /// Address of the data port, for `lifeboat agent join`.
    pub data_address: String,
}

/// The command of one line. The server is known by its public key before a byte of the script is read.
fn install_command(way_in: &WayIn, host: &str, token: &str) -> String {
    format!(
        "curl -fsSk --pinnedpubkey {} https://{host}:{}/install.sh | sudo sh -s -- --token {token}",
        way_in.public_key_pin, way_in.api_port
    )
}

/// Join tokens that were made, without the tokens themselves.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/join-tokens", tag = "Site", params(InvitationQuery),
    responses((status = 200, body = Page<InvitationView>)))]
pub async fn join_tokens(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
    Query(query): Query<InvitationQuery>,
) -> Result<Json<Page<InvitationView>>, ApiError> {
    list(state, Invites::Machine, vault, query).await
}

/// Makes a join token: good for one machine, for a while. With the command to run on the machine.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/join-tokens", tag = "Site", request_body = JoinTokenRequest,
    responses((status = 201, body = CreatedJoinToken)))]
pub async fn create_join_token(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    headers: HeaderMap,
    Json(request): Json<JoinTokenRequest>,
) -> Result<(StatusCode, Json<CreatedJoinToken>), ApiError> {
    let life = request.valid_minutes.map_or(JOIN_TOKEN_LIFE, |minutes| {
        Duration::from_secs(u64::from(minutes) * 60)
    });
    if life.is_zero() || life > JOIN_TOKEN_LIFE_MAX {
        return Err(ApiError::invalid("validMinutes is 1 to 10080"));
    }
    let given = given_host(request.address.as_deref(), &caller, &uri, &headers)?;
    let created = state
        .run(move |state| {
            let way_in = state.site.way_in()?;
            let made = state.vault.invite(Invites::Machine, &vault, &caller.user, life)?;
            let own = || way_in.names.first().cloned().unwrap_or_default();
            let host = given.unwrap_or_else(own);
            Ok(CreatedJoinToken {
                id: made.id,
                expires_at: Time(made.expires_unix_nanos),
                install_command: install_command(&way_in, &host, &made.secret),
                token: made.secret,
                ca_fingerprint: way_in.ca_fingerprint,
                data_address: format!("{host}:{}", way_in.data_port),
            })
        })
        .await?;
    Ok((StatusCode::CREATED, Json(created)))
}

/// Takes a join token back. A machine that joined with it stays.
#[utoipa::path(delete, path = "/api/v1/vaults/{vault}/join-tokens/{token}", tag = "Site",
    responses((status = 204)))]
pub async fn revoke_join_token(
    State(state): State<ApiState>,
    Path((vault, token)): Path<(String, i64)>,
) -> Result<StatusCode, ApiError> {
    state
        .run(move |state| Ok(state.vault.revoke_invitation(Invites::Machine, &vault, token)?))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The name under which this server is reached: as the caller says, else as the call came in. None: its own name.
fn given_host(
    address: Option<&str>,
    caller: &Caller,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Option<String>, ApiError> {
    match address {
        Some(address) => install::host_of(address).map(Some).ok_or_else(|| {
            ApiError::invalid("address is a host name or an address, without a scheme and a port")
        }),
        // Over the socket the host is no address.
        None if matches!(caller.origin, Origin::Tcp(_)) => Ok(install::host_in(uri, headers)),
        None => Ok(None),
    }
}

#[derive(Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RegistrationKeyRequest {
    /// Name or address under which the machine reaches this server; else the one of this call, else the server's own name.
    pub address: Option<String>,
}

/// A registration key, as it is kept in a file until the machine that it is for is set up. With all that joining needs.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistrationKey {
    pub id: i64,
    pub vault: String,
    /// Tells this site from others.
    pub site: String,
    /// Shown this once.
    pub key: String,
    pub expires_at: Time,
    /// Of the vault's HTTPS port.
    pub url: String,
    /// Of the data port, which an agent dials.
    pub data_address: String,
    pub ca_fingerprint: String,
}

/// Registration keys that were made, without the keys themselves.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/registration-keys", tag = "Site", params(InvitationQuery),
    responses((status = 200, body = Page<InvitationView>)))]
pub async fn registration_keys(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
    Query(query): Query<InvitationQuery>,
) -> Result<Json<Page<InvitationView>>, ApiError> {
    list(state, Invites::Server, vault, query).await
}

/// Makes a registration key: it lets one machine join this vault, within five days, with nothing but its file.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/registration-keys", tag = "Site",
    request_body = Option<RegistrationKeyRequest>, responses((status = 201, body = RegistrationKey)))]
pub async fn create_registration_key(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    headers: HeaderMap,
    request: Option<Json<RegistrationKeyRequest>>,
) -> Result<(StatusCode, Json<RegistrationKey>), ApiError> {
    let address = request.and_then(|Json(request)| request.address);
    let called = given_host(address.as_deref(), &caller, &uri, &headers)?;
    let key = state
        .run(move |state| {
            let way_in = state.site.way_in()?;
            let made = state
                .vault
                .invite(Invites::Server, &vault, &caller.user, REGISTRATION_KEY_LIFE)?;
            let own = || way_in.names.first().cloned().unwrap_or_default();
            let host = called.unwrap_or_else(own);
            Ok(RegistrationKey {
                id: made.id,
                vault,
                site: made.site,
                key: made.secret,
                expires_at: Time(made.expires_unix_nanos),
                url: format!("https://{host}:{}", way_in.api_port),
                data_address: format!("{host}:{}", way_in.data_port),
                ca_fingerprint: way_in.ca_fingerprint,
            })
        })
        .await?;
    Ok((StatusCode::CREATED, Json(key)))
}

/// Takes a registration key back.
#[utoipa::path(delete, path = "/api/v1/vaults/{vault}/registration-keys/{key}", tag = "Site",
    responses((status = 204)))]
pub async fn revoke_registration_key(
    State(state): State<ApiState>,
    Path((vault, key)): Path<(String, i64)>,
) -> Result<StatusCode, ApiError> {
    state
        .run(move |state| Ok(state.vault.revoke_invitation(Invites::Server, &vault, key)?))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
