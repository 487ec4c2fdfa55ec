//! Who may call what. Every route stands in [`TABLE`]; one that does not is refused to everybody, so that a forgotten line
//! is found by its first test and not by a stranger.
use super::problem::ApiError;
use super::{ApiState, Origin};
use crate::vault::{Principal, Role};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// No login.
    Nothing,
    /// A login, also one that still has its one-time password.
    Login,
    /// A login, in whatever vault.
    User,
    /// At least this role in the vault of the path.
    Role(Role),
    /// At least this role in the vault `default`, which stands for the site.
    Site(Role),
}

pub const COOKIE: &str = "__Host-lifeboat";
/// Browsers do not let a foreign page send it without asking.
pub const CSRF_HEADER: &str = "x-lifeboat-request";

/// Shows what its caller may read; an operator of the server may open it to everybody.
const METRICS: &str = "/metrics";

const V: &str = "/api/v1/vaults/{vault}";

/// (method, path below [`V`] or from the root, what it needs)
const TABLE: &[(&str, &str, Need)] = &[
    ("GET", "/healthz", Need::Nothing),
    ("GET", "/api/v1/openapi.json", Need::Nothing),
    ("GET", "/api/v1/docs", Need::Nothing),
    ("GET", "/api/v1/docs.js", Need::Nothing),
    ("POST", "/api/v1/login", Need::Nothing),
    // Nothing secret in them; whoever fetches them knows the server by its public key.
    ("GET", "/install.sh", Need::Nothing),
    ("GET", "/agent/lifeboat", Need::Nothing),
    ("GET", "/agent/lifeboat.sha256", Need::Nothing),
    ("POST", "/api/v1/logout", Need::Login),
    ("POST", "/api/v1/password", Need::Login),
    ("GET", "/api/v1/whoami", Need::Login),
    ("GET", "/api/v1/vaults", Need::User),
    ("POST", "/api/v1/vaults", Need::Site(Role::Owner)),
    // The database is that of all vaults.
    ("GET", "/api/v1/backups", Need::Site(Role::Reader)),
    ("POST", "/api/v1/backups", Need::Site(Role::Contributor)),
    ("DELETE", "+", Need::Role(Role::Owner)),
    ("GET", "+/servers", Need::Role(Role::Reader)),
    ("GET", "+/store", Need::Role(Role::Reader)),
    ("GET", "+/passphrase", Need::Role(Role::Contributor)),
    ("POST", "+/passphrase/rotate", Need::Role(Role::Contributor)),
    ("GET", "+/join-tokens", Need::Role(Role::Contributor)),
    ("POST", "+/join-tokens", Need::Role(Role::Contributor)),
    ("DELETE", "+/join-tokens/{token}", Need::Role(Role::Contributor)),
    ("GET", "+/registration-keys", Need::Role(Role::Contributor)),
    ("POST", "+/registration-keys", Need::Role(Role::Contributor)),
    (
        "DELETE",
        "+/registration-keys/{key}",
        Need::Role(Role::Contributor),
    ),
    ("GET", "+/machines", Need::Role(Role::Reader)),
    ("GET", "+/machines/{machine}", Need::Role(Role::Reader)),
    ("DELETE", "+/machines/{machine}", Need::Role(Role::Contributor)),
    (
        "POST",
        "+/machines/{machine}/rename",
        Need::Role(Role::Contributor),
    ),
    (
        "POST",
        "+/machines/{machine}/revoke",
        Need::Role(Role::Contributor),
    ),
    (
        "GET",
        "+/machines/{machine}/agent-update",
        Need::Role(Role::Reader),
    ),
    (
        "POST",
        "+/machines/{machine}/agent-update",
        Need::Role(Role::Operator),
    ),
    ("GET", "+/replicated-items", Need::Role(Role::Reader)),
    ("POST", "+/replicated-items", Need::Role(Role::Contributor)),
    ("GET", "+/replicated-items/{item}", Need::Role(Role::Reader)),
    (
        "DELETE",
        "+/replicated-items/{item}",
        Need::Role(Role::Contributor),
    ),
    (
        "PUT",
        "+/replicated-items/{item}/target-settings",
        Need::Role(Role::Contributor),
    ),
    (
        "PUT",
        "+/replicated-items/{item}/policy",
        Need::Role(Role::Contributor),
    ),
    (
        "PUT",
        "+/replicated-items/{item}/disks",
        Need::Role(Role::Contributor),
    ),
    (
        "GET",
        "+/replicated-items/{item}/series",
        Need::Role(Role::Reader),
    ),
    (
        "GET",
        "+/replicated-items/{item}/recovery-points",
        Need::Role(Role::Reader),
    ),
    (
        "POST",
        "+/replicated-items/{item}/test-failover",
        Need::Role(Role::Operator),
    ),
    (
        "POST",
        "+/replicated-items/{item}/test-failover-cleanup",
        Need::Role(Role::Operator),
    ),
    (
        "POST",
        "+/replicated-items/{item}/planned-failover",
        Need::Role(Role::Operator),
    ),
    (
        "POST",
        "+/replicated-items/{item}/change-recovery-point",
        Need::Role(Role::Operator),
    ),
    (
        "POST",
        "+/replicated-items/{item}/cancel-failover",
        Need::Role(Role::Operator),
    ),
    (
        "POST",
        "+/replicated-items/{item}/reprotect",
        Need::Role(Role::Operator),
    ),
    (
        "POST",
        "+/replicated-items/{item}/failback",
        Need::Role(Role::Operator),
    ),
    (
        "POST",
        "+/replicated-items/{item}/unplanned-failover",
        Need::Role(Role::Operator),
    ),
    (
        "POST",
        "+/replicated-items/{item}/commit",
        Need::Role(Role::Operator),
    ),
    (
        "POST",
        "+/replicated-items/{item}/hydrate",
        Need::Role(Role::Contributor),
    ),
    (
        "POST",
        "+/replicated-items/{item}/complete-migration",
        Need::Role(Role::Contributor),
    ),
    (
        "POST",
        "+/replicated-items/{item}/target-machine/start",
        Need::Role(Role::Operator),
    ),
    (
        "POST",
        "+/replicated-items/{item}/resynchronize",
        Need::Role(Role::Operator),
    ),
    (
        "GET",
        "+/replicated-items/{item}/target-machine",
        Need::Role(Role::Reader),
    ),
    (
        "GET",
        "+/replicated-items/{item}/target-machine/screenshot",
        Need::Role(Role::Reader),
    ),
    (
        "GET",
        "+/replicated-items/{item}/target-machine/serial-log",
        Need::Role(Role::Reader),
    ),
    ("GET", "+/replication-groups", Need::Role(Role::Reader)),
    ("POST", "+/replication-groups", Need::Role(Role::Contributor)),
    ("GET", "+/replication-groups/{group}", Need::Role(Role::Reader)),
    (
        "PUT",
        "+/replication-groups/{group}",
        Need::Role(Role::Contributor),
    ),
    (
        "DELETE",
        "+/replication-groups/{group}",
        Need::Role(Role::Contributor),
    ),
    (
        "POST",
        "+/replication-groups/{group}/members",
        Need::Role(Role::Contributor),
    ),
    (
        "DELETE",
        "+/replication-groups/{group}/members/{machine}",
        Need::Role(Role::Contributor),
    ),
    ("GET", "+/recovery-plans", Need::Role(Role::Reader)),
    ("POST", "+/recovery-plans", Need::Role(Role::Contributor)),
    ("GET", "+/recovery-plans/{plan}", Need::Role(Role::Reader)),
    ("PUT", "+/recovery-plans/{plan}", Need::Role(Role::Contributor)),
    ("DELETE", "+/recovery-plans/{plan}", Need::Role(Role::Contributor)),
    ("GET", "+/recovery-plans/{plan}/checks", Need::Role(Role::Reader)),
    ("GET", "+/plan-scripts", Need::Role(Role::Reader)),
    ("GET", "+/recovery-plans/{plan}/runs", Need::Role(Role::Reader)),
    (
        "GET",
        "+/recovery-plans/{plan}/runs/{run}",
        Need::Role(Role::Reader),
    ),
    (
        "POST",
        "+/recovery-plans/{plan}/test-failover",
        Need::Role(Role::Operator),
    ),
    (
        "POST",
        "+/recovery-plans/{plan}/test-failover-cleanup",
        Need::Role(Role::Operator),
    ),
    (
        "POST",
        "+/recovery-plans/{plan}/unplanned-failover",
        Need::Role(Role::Operator),
    ),
    (
        "POST",
        "+/recovery-plans/{plan}/commit",
        Need::Role(Role::Operator),
    ),
    (
        "POST",
        "+/recovery-plans/{plan}/runs/{run}/stop",
        Need::Role(Role::Operator),
    ),
    (
        "POST",
        "+/recovery-plans/{plan}/runs/{run}/resume",
        Need::Role(Role::Operator),
    ),
    (
        "POST",
        "+/recovery-plans/{plan}/runs/{run}/skip",
        Need::Role(Role::Operator),
    ),
    (
        "POST",
        "+/recovery-plans/{plan}/runs/{run}/cancel",
        Need::Role(Role::Operator),
    ),
    (
        "POST",
        "+/recovery-plans/{plan}/planned-failover",
        Need::Role(Role::Operator),
    ),
    (
        "POST",
        "+/recovery-plans/{plan}/cancel-failover",
        Need::Role(Role::Operator),
    ),
    (
        "POST",
        "+/recovery-plans/{plan}/reprotect",
        Need::Role(Role::Operator),
    ),
    (
        "POST",
        "+/recovery-plans/{plan}/failback",
        Need::Role(Role::Operator),
    ),
    ("GET", "+/networks", Need::Role(Role::Reader)),
    ("POST", "+/networks", Need::Role(Role::Contributor)),
    ("GET", "+/networks/{network}", Need::Role(Role::Reader)),
    ("PUT", "+/networks/{network}", Need::Role(Role::Contributor)),
    ("DELETE", "+/networks/{network}", Need::Role(Role::Contributor)),
    ("GET", "+/network-mappings", Need::Role(Role::Reader)),
    ("PUT", "+/network-mappings", Need::Role(Role::Contributor)),
    (
        "GET",
        "+/replicated-items/{item}/failover-preview",
        Need::Role(Role::Reader),
    ),
    // Whoever sees the console may type there.
    (
        "GET",
        "+/replicated-items/{item}/target-machine/console",
        Need::Role(Role::Operator),
    ),
    ("GET", "+/policies", Need::Role(Role::Reader)),
    ("POST", "+/policies", Need::Role(Role::Contributor)),
    ("GET", "+/policies/{policy}", Need::Role(Role::Reader)),
    ("PUT", "+/policies/{policy}", Need::Role(Role::Contributor)),
    ("DELETE", "+/policies/{policy}", Need::Role(Role::Contributor)),
    (
        "POST",
        "+/replicated-items/{item}/recovery-points",
        Need::Role(Role::Operator),
    ),
    ("GET", "+/jobs", Need::Role(Role::Reader)),
    ("GET", "+/jobs/{job}", Need::Role(Role::Reader)),
    ("GET", "+/jobs/export", Need::Role(Role::Reader)),
    ("POST", "+/jobs/{job}/cancel", Need::Role(Role::Operator)),
    ("POST", "+/jobs/{job}/restart", Need::Role(Role::Operator)),
    ("POST", "+/jobs/{job}/resume", Need::Role(Role::Operator)),
    ("GET", "+/events", Need::Role(Role::Reader)),
    ("GET", "+/events/stream", Need::Role(Role::Reader)),
    ("GET", "+/audit", Need::Role(Role::Reader)),
    ("GET", "+/alert-settings", Need::Role(Role::Reader)),
    ("PUT", "+/alert-settings", Need::Role(Role::Contributor)),
    ("POST", "+/alert-settings/test", Need::Role(Role::Contributor)),
    ("GET", "+/alert-deliveries", Need::Role(Role::Reader)),
    ("GET", "+/health-errors", Need::Role(Role::Reader)),
    ("GET", "+/maintenance-windows", Need::Role(Role::Reader)),
    ("POST", "+/maintenance-windows", Need::Role(Role::Contributor)),
    (
        "DELETE",
        "+/maintenance-windows/{window}",
        Need::Role(Role::Contributor),
    ),
    ("GET", "+/capacity", Need::Role(Role::Reader)),
    ("GET", METRICS, Need::User),
    ("GET", "+/users", Need::Role(Role::Reader)),
    ("POST", "+/users", Need::Role(Role::Owner)),
    ("GET", "+/users/{user}", Need::Role(Role::Reader)),
    ("DELETE", "+/users/{user}", Need::Role(Role::Owner)),
    ("POST", "+/users/{user}/reset-password", Need::Role(Role::Owner)),
    ("PUT", "+/role-assignments/{user}", Need::Role(Role::Owner)),
    ("DELETE", "+/role-assignments/{user}", Need::Role(Role::Owner)),
    ("GET", "+/tokens", Need::Role(Role::Owner)),
    ("POST", "+/tokens", Need::Role(Role::Reader)),
    ("DELETE", "+/tokens/{token}", Need::Role(Role::Owner)),
];

fn is_at(entry: &str, matched: &str) -> bool {
    match entry.strip_prefix('+') {
        Some(below) => matched.strip_prefix(V) == Some(below),
        None => entry == matched,
    }
}

/// What a route needs; None: nobody may call it.
pub fn need(method: &Method, matched: &str) -> Option<Need> {
    // axum answers HEAD by the handler of GET.
    let method = if method == Method::HEAD {
        "GET"
    } else {
        method.as_str()
    };
    TABLE
        .iter()
        .find(|(verb, path, _)| *verb == method && is_at(path, matched))
        .map(|(_, _, need)| *need)
}

/// A call that is not in the table: of another method, or of a route that was forgotten.
fn not_listed(matched: &str) -> ApiError {
    if TABLE.iter().any(|(_, path, _)| is_at(path, matched)) {
        return ApiError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "this address does not take this method",
            "another method is meant",
            "see what is accepted: /api/v1/openapi.json",
        );
    }
    forbidden(
        "NotAllowed",
        "nobody may do this".to_owned(),
        "see what is accepted: /api/v1/openapi.json",
    )
}

/// Who is calling and from where.
#[derive(Clone, Debug)]
pub struct Caller {
    pub user: String,
    pub origin: Origin,
    /// None: root on this host, who may do everything.
    pub principal: Option<Arc<Principal>>,
    /// The session or API token.
    pub token: Option<String>,
}

impl Caller {
    pub fn role_in(&self, vault: &str) -> Option<Role> {
        match &self.principal {
            None => Some(Role::Owner),
            Some(principal) => principal.role_in(vault),
        }
    }
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .strip_prefix("Bearer ")
}

/// A request that a browser sends with its cookie must come from our own page.
fn comes_from_own_page(headers: &HeaderMap) -> bool {
    if headers.contains_key(CSRF_HEADER) {
        return true;
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    match (text(header::ORIGIN), text(header::HOST)) {
        (Some(origin), Some(host)) => origin.strip_prefix("https://") == Some(host),
        _ => false,
    }
}

/// A WebSocket begins with a GET, but what follows may change things; and a browser opens one for any page.
fn only_reads(method: &Method, headers: &HeaderMap) -> bool {
    let upgrade = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok());
    matches!(*method, Method::GET | Method::HEAD)
        && !upgrade.is_some_and(|to| to.eq_ignore_ascii_case("websocket"))
}

fn not_logged_in(message: &str) -> ApiError {
    ApiError::new(
        StatusCode::UNAUTHORIZED,
        "NotLoggedIn",
        message,
        "no login, a session that has ended, or a token that has expired or was revoked",
        "log in: lifeboat login; on the server itself root needs no login",
    )
}

fn forbidden(code: &str, message: String, action: &str) -> ApiError {
    ApiError::new(
        StatusCode::FORBIDDEN,
        code,
        message,
        "the user has another role, or none, in this vault",
        action,
    )
}

async fn identify(
    state: &ApiState,
    origin: Origin,
    headers: &HeaderMap,
    method: &Method,
) -> Result<Option<Caller>, ApiError> {
    let (token, by_cookie) = match (bearer(headers), cookie(headers)) {
        (Some(token), _) => (Some(token.to_owned()), false),
        (None, Some(token)) => (Some(token.to_owned()), true),
        (None, None) => (None, false),
    };
    let Some(token) = token else {
        return Ok(match &origin {
            // The kernel says who it is: root, or the very user that this server runs as and whose files these are.
            Origin::Unix { user: Some(user), .. } => Some(Caller {
                user: user.clone(),
                origin,
                principal: None,
                token: None,
            }),
            _ => None,
        });
    };
    let known = {
        let token = token.clone();
        state
            .run(move |state| Ok(state.vault.authenticate(&token)?))
            .await?
    };
    let principal = known.ok_or_else(|| not_logged_in("the session or token is not valid"))?;
    if by_cookie && !only_reads(method, headers) && !comes_from_own_page(headers) {
        return Err(forbidden(
            "CrossSiteRequest",
            format!(
                "a request with a session cookie needs the header {CSRF_HEADER} or an Origin of this server"
            ),
            "send the header, or use a bearer token",
        ));
    }
    Ok(Some(Caller {
        user: principal.user.clone(),
        origin,
        principal: Some(Arc::new(principal)),
        token: Some(token),
    }))
}

/// The vault that a path names: its segment at the place of `{vault}`. Not decoded: names need no encoding, and an encoded
/// one is nobody's vault.
fn vault_in<'a>(matched: &str, path: &'a str) -> Option<&'a str> {
    let place = matched.split('/').position(|segment| segment == "{vault}")?;
    path.split('/').nth(place)
}

pub async fn check(
    State(state): State<ApiState>,
    matched: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let Some(matched) = matched else {
        return Ok(next.run(request).await);
    };
    let need = need(request.method(), matched.as_str());
    let is_public = state.metrics_public && matched.as_str() == METRICS;
    if need == Some(Need::Nothing) || (is_public && need.is_some()) {
        return Ok(next.run(request).await);
    }
    let origin = request.extensions().get::<Origin>().cloned().unwrap_or_default();
    // Copies: a body may not be shared between threads while the database is asked.
    let (headers, method) = (request.headers().clone(), request.method().clone());
    let caller = identify(&state, origin, &headers, &method)
        .await?
        .ok_or_else(|| not_logged_in("this needs a login"))?;
    let need = need.ok_or_else(|| not_listed(matched.as_str()))?;
    let must_change = caller
        .principal
        .as_ref()
        .is_some_and(|principal| principal.must_change_password);
    if must_change && need != Need::Login {
        return Err(forbidden(
            "PasswordMustBeChanged",
            "the one-time password must be changed first".to_owned(),
            "change it: lifeboat login asks for a new one",
        ));
    }
    let of_vault = match need {
        Need::Role(role) => Some((
            role,
            vault_in(matched.as_str(), request.uri().path()).unwrap_or_default(),
        )),
        Need::Site(role) => Some((role, crate::vault::DEFAULT_VAULT)),
        Need::Nothing | Need::Login | Need::User => None,
    };
    if let Some((role, vault)) = of_vault {
        let has = caller.role_in(vault);
        if has.is_none_or(|has| has < role) {
            return Err(forbidden(
                "RoleMissing",
                format!(
                    "this needs the role {} in the vault {}; {} has {}",
                    role.word(),
                    vault.chars().take(100).collect::<String>(),
                    caller.user,
                    has.map_or("none", Role::word)
                ),
                "ask an Owner of the vault for the role",
            ));
        }
    }
    request.extensions_mut().insert(caller.clone());
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    if !only_reads(&method, &headers) {
        let action = format!("{method} {}", matched.as_str());
        state.audit(&caller.user, &caller.origin, action, path, response.status());
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn cookies_and_origins() {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::COOKIE,
            HeaderValue::from_static("a=b; __Host-lifeboat=lbs_x; c"),
        );
        assert_eq!(cookie(&headers), Some("lbs_x"));
        headers.insert(header::HOST, HeaderValue::from_static("vault:8443"));
        assert!(!comes_from_own_page(&headers));
        headers.insert(header::ORIGIN, HeaderValue::from_static("https://evil:8443"));
        assert!(!comes_from_own_page(&headers));
        headers.insert(header::ORIGIN, HeaderValue::from_static("http://vault:8443"));
        assert!(!comes_from_own_page(&headers));
        headers.insert(header::ORIGIN, HeaderValue::from_static("https://vault:8443"));
        assert!(comes_from_own_page(&headers));
    }

    #[test]
    fn a_websocket_is_more_than_reading() {
        let mut headers = HeaderMap::new();
        assert!(only_reads(&Method::GET, &headers) && !only_reads(&Method::POST, &headers));
        headers.insert(header::UPGRADE, HeaderValue::from_static("h2c"));
        assert!(only_reads(&Method::GET, &headers));
        headers.insert(header::UPGRADE, HeaderValue::from_static("WebSocket"));
        assert!(!only_reads(&Method::GET, &headers));
    }

    #[test]
    fn a_route_that_is_not_listed_is_nobodys() {
        assert_eq!(need(&Method::GET, "/api/v1/secret"), None);
        assert_eq!(
            need(&Method::HEAD, "/api/v1/vaults/{vault}/jobs"),
            Some(Need::Role(Role::Reader))
        );
        assert_eq!(need(&Method::DELETE, "/api/v1/vaults/{vault}/jobs"), None);
    }
}
