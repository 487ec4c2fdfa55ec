//! `Idempotency-Key`: a POST that is sent again gets the answer of the first time, and is not done again.
//!
//! Answers are kept for a day. Of one that holds a secret only that it was given is kept: the same order again is refused,
//! not done again. A failure is not kept, so that it may be tried again.
//! The key's answer is written after the order: a crash between the two leaves the order without its answer, and the same
//! order again is refused by the item's state, not done twice.
use super::ApiState;
use super::access::Caller;
use super::problem::ApiError;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use std::sync::PoisonError;

const KEY_LEN_MAX: usize = 128;
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Answers of these hold a password, a token or the passphrase.
const SECRET: [&str; 7] = [
    "/login",
    "/users",
    "/reset-password",
    "/tokens",
    "/rotate",
    "/join-tokens",
    "/registration-keys",
];

/// Whether this route takes an Idempotency-Key.
pub(super) fn is_kept(matched: &str) -> bool {
    matched.contains("{vault}") || matched == "/api/v1/vaults"
}

fn is_secret(matched: &str) -> bool {
    SECRET.iter().any(|end| matched.ends_with(end))
}

/// Frees the key when the request is over, whatever becomes of it.
struct InUse<'a>(&'a ApiState, (String, String));

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        let mut keys = self.0.keys_in_use.lock().unwrap_or_else(PoisonError::into_inner);
        keys.remove(&self.1);
    }
}

pub async fn replay(
    State(state): State<ApiState>,
    matched: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let key = match request.headers().get("idempotency-key") {
        Some(key) if request.method() == Method::POST => key.to_str().unwrap_or_default().to_owned(),
        _ => return Ok(next.run(request).await),
    };
    let Some(caller) = request.extensions().get::<Caller>().cloned() else {
        return Ok(next.run(request).await);
    };
    let matched = matched.map(|path| path.as_str().to_owned()).unwrap_or_default();
    // Logging in and out twice does no harm.
    if !is_kept(&matched) {
        return Ok(next.run(request).await);
    }
    if key.is_empty() || key.len() > KEY_LEN_MAX {
        return Err(ApiError::invalid("Idempotency-Key has 1 to 128 characters"));
    }
    let owner = (caller.user.clone(), key.clone());
    let free = {
        let mut keys = state.keys_in_use.lock().unwrap_or_else(PoisonError::into_inner);
        keys.insert(owner.clone())
    };
    if !free {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "KeyInUse",
            "a request with this Idempotency-Key is under way",
            "it was sent again before the first one was answered",
            "wait for the answer of the first one, then send it again",
        ));
    }
    let _in_use = InUse(&state, owner);
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, super::BODY_BYTES_MAX)
        .await
        .map_err(|_| {
            ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "TooLarge",
                "the body is too large or broke off",
                "more was sent than any call takes",
                "see what is accepted: /api/v1/openapi.json",
            )
        })?;
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(parts.uri.path().as_bytes())
        .update(b"\n")
        .update(&body);
    let digest = *hasher.finalize().as_bytes();
    let known = {
        let (user, key) = (caller.user.clone(), key.clone());
        state
            .run(move |state| Ok(state.vault.kept_answer(&user, &key)?))
            .await?
    };
    if let Some(answer) = known {
        if answer.request != digest {
            return Err(ApiError::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "KeyReused",
                "this Idempotency-Key was sent with another request",
                "each order needs a key of its own",
                "choose a new key",
            ));
        }
        if is_secret(&matched) {
            return Err(ApiError::new(
                StatusCode::CONFLICT,
                "DoneAlready",
                "this order was carried out under this Idempotency-Key; its answer held a secret, which is shown once and not kept",
                "the first answer was lost on the way, or the order was sent twice",
                "give the order again under a new key; revoke or remove what the first one made",
            ));
        }
        let mut response = Response::new(Body::from(answer.body));
        *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("idempotency-replayed", HeaderValue::from_static("true"));
        return Ok(response);
    }
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    if !response.status().is_success() {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let Ok(bytes) = axum::body::to_bytes(body, ANSWER_BYTES_MAX).await else {
        return Err(ApiError::invalid(
            "the answer is too large to be kept; leave Idempotency-Key out",
        ));
    };
    let text = if is_secret(&matched) {
        String::new()
    } else {
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let status = parts.status.as_u16();
    let user = caller.user.clone();
    state
        .run(move |state| Ok(state.vault.keep_answer(&user, &key, &digest, status, &text)?))
        .await?;
    Ok(Response::from_parts(parts, Body::from(bytes)))
}
