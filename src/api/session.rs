//! Logging in and out, and what needs no vault.
use super::access::{COOKIE, Caller};
use super::problem::ApiError;
use super::{ApiState, Origin};
use crate::vault::VaultError;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Healthz {
    pub status: String,
    pub version: String,
}

/// Whether the server answers and can read its database.
#[utoipa::path(get, path = "/healthz", tag = "Site", responses((status = 200, body = Healthz)))]
pub async fn healthz(State(state): State<ApiState>) -> Result<Json<Healthz>, ApiError> {
    state.run(|state| Ok(state.vault.vaults()?)).await?;
    Ok(Json(Healthz {
        status: "ok".to_owned(),
        version: crate::rt::executable::version().to_owned(),
    }))
}

/// This document.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "Site", responses((status = 200, body = Object)))]
pub async fn openapi_document() -> Response {
    use std::sync::LazyLock;
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| super::openapi().to_json().unwrap_or_default());
    (
        [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))],
        DOCUMENT.as_str(),
    )
        .into_response()
}

fn page_part(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(crate::web::POLICY),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
    ];
    (headers, text).into_response()
}

/// The document as a page to read and try. It is made from the document in the browser, so it cannot differ from it.
pub async fn docs() -> Response {
    page_part("text/html; charset=utf-8", include_str!("docs/page.html"))
}

pub async fn docs_script() -> Response {
    page_part("text/javascript; charset=utf-8", include_str!("docs/page.js"))
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoginRequest {
    pub user: String,
    #[schema(format = Password)]
    pub password: String,
    /// True: the answer holds the token and no cookie is set. For programs.
    #[serde(default)]
    pub bearer: bool,
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoginAnswer {
    pub user: String,
    /// Nothing but the change of the password is allowed before it.
    pub must_change_password: bool,
    /// Only where `bearer` was asked for.
    pub token: Option<String>,
}

fn set_cookie(token: &str, seconds: u32) -> HeaderValue {
    let text = format!("{COOKIE}={token}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={seconds}");
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

/// Begins a session.
#[utoipa::path(post, path = "/api/v1/login", tag = "Session", request_body = LoginRequest,
    responses((status = 200, body = LoginAnswer)))]
pub async fn login(
    State(state): State<ApiState>,
    origin: Option<Extension<Origin>>,
    Json(request): Json<LoginRequest>,
) -> Result<Response, ApiError> {
    let origin = origin.map(|Extension(origin)| origin).unwrap_or_default();
    let (user, password, from) = (request.user.clone(), request.password, origin.to_string());
    let result = state
        .run_password(move |state| {
            let token = state.vault.login(&user, &password, &from)?;
            let principal = state.vault.authenticate(&token)?;
            Ok((token, principal.ok_or(VaultError::WrongPassword)?))
        })
        .await;
    let status = result
        .as_ref()
        .map_or_else(|error| error.status, |_| StatusCode::OK);
    let named: String = request.user.chars().take(64).collect();
    state.audit(
        &named,
        &origin,
        "POST /api/v1/login".to_owned(),
        named.clone(),
        status,
    );
    let (token, principal) = result?;
    let mut answer = LoginAnswer {
        user: principal.user,
        must_change_password: principal.must_change_password,
        token: None,
    };
    if request.bearer {
        answer.token = Some(token);
        return Ok(Json(answer).into_response());
    }
    Ok((
        [(header::SET_COOKIE, set_cookie(&token, 12 * 3600))],
        Json(answer),
    )
        .into_response())
}

/// Ends the session.
#[utoipa::path(post, path = "/api/v1/logout", tag = "Session", responses((status = 204)))]
pub async fn logout(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, ApiError> {
    if let Some(token) = caller.token {
        state.run(move |state| Ok(state.vault.logout(&token)?)).await?;
    }
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, set_cookie("", 0))]).into_response())
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PasswordRequest {
    #[schema(format = Password)]
    pub current_password: String,
    #[schema(format = Password, min_length = 10)]
    pub new_password: String,
}

/// Changes the caller's password. Other sessions of the user end.
#[utoipa::path(post, path = "/api/v1/password", tag = "Session", request_body = PasswordRequest,
    responses((status = 204)))]
pub async fn password(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<PasswordRequest>,
) -> Result<StatusCode, ApiError> {
    let is_user = caller
        .principal
        .as_ref()
        .is_some_and(|principal| principal.token.is_none());
    if !is_user {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "NoPassword",
            "only a user who has logged in can change the password",
            "the call came over the unix socket without a login, or with an API token",
            "log in first; root gives a user a new password: lifeboat user reset-password NAME",
        ));
    }
    state
        .run_password(move |state| {
            Ok(state.vault.change_password(
                &caller.user,
                &request.current_password,
                &request.new_password,
                caller.token.as_deref(),
                &caller.origin.to_string(),
            )?)
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct VaultRole {
    pub vault: String,
    /// Reader, Operator, Contributor, Owner
    pub role: String,
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WhoAmI {
    pub user: String,
    pub must_change_password: bool,
    pub roles: Vec<VaultRole>,
    /// `session`, `token` or `unixSocket`
    pub login: String,
}

/// Who the caller is and what the caller may do.
#[utoipa::path(get, path = "/api/v1/whoami", tag = "Session", responses((status = 200, body = WhoAmI)))]
pub async fn whoami(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<WhoAmI>, ApiError> {
    let vaults = state.run(|state| Ok(state.vault.vaults()?)).await?;
    let roles = vaults
        .into_iter()
        .filter_map(|vault| {
            let role = caller.role_in(&vault)?.word().to_owned();
            Some(VaultRole { vault, role })
        })
        .collect();
    let login = match &caller.principal {
        None => "unixSocket",
        Some(principal) if principal.token.is_some() => "token",
        Some(_) => "session",
    };
    Ok(Json(WhoAmI {
        must_change_password: caller
            .principal
            .as_ref()
            .is_some_and(|principal| principal.must_change_password),
        user: caller.user,
        roles,
        login: login.to_owned(),
    }))
}
