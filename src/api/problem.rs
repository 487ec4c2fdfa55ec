//! The only way from an error to an HTTP answer: RFC 9457, with what a person needs.
use super::Origin;
use crate::recovery::{JournalError, RecoveryError, Refusal};
use crate::replica::{Disposition, ReplicaError};
use crate::rt::chain;
use crate::vault::VaultError;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::error::Error;

/// An error that a person or a program can act on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// `urn:lifeboat:problem:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    /// Stable, e.g. `AlreadyReplicated`.
    pub code: String,
    pub message: String,
    pub possible_causes: String,
    pub recommended_action: String,
    pub request_id: String,
}

#[derive(Clone, Debug)]
pub struct ApiError {
    pub status: StatusCode,
    pub code: String,
    pub message: String,
    pub possible_causes: String,
    pub recommended_action: String,
    pub retry_after_seconds: Option<u64>,
}

impl ApiError {
    pub fn new(
        status: StatusCode,
        code: &str,
        message: impl Into<String>,
        causes: impl Into<String>,
        action: impl Into<String>,
    ) -> Self {
        Self {
            status,
            code: code.to_owned(),
            message: message.into(),
            possible_causes: causes.into(),
            recommended_action: action.into(),
            retry_after_seconds: None,
        }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "InvalidRequest",
            message,
            "a value is misspelt, missing or outside its range",
            "see what is accepted: /api/v1/openapi.json",
        )
    }

    pub fn not_found(what: &str, name: &str) -> Self {
        let name: String = name.chars().take(100).collect();
        Self::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            format!("there is no {what} {name}"),
            "the name or the id is misspelt, or it was removed",
            "list what there is",
        )
    }

    /// A fault of the server: the chain goes to the log, the caller gets the request id to look it up.
    fn internal(error: &(dyn Error + 'static)) -> Self {
        tracing::error!(error = chain(error), "a request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalError",
            "the server could not carry the request out",
            "the database or a file of the server cannot be read or written, or this is a defect",
            "look for the request id in the server's log",
        )
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        if let Some(seconds) = self.retry_after_seconds {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            &refusal.code,
            refusal.message,
            refusal.possible_causes,
            refusal.recommended_action,
        )
    }
}

impl From<VaultError> for ApiError {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Refused(refusal) => (*refusal).into(),
            VaultError::NotFound { what, name } => Self::not_found(what, &name),
            VaultError::BadName(_) => Self::new(
                StatusCode::BAD_REQUEST,
                "BadMachineName",
                error.to_string(),
                "the name breaks the rule",
                "choose another name",
            ),
            VaultError::DuplicateName(_) => Self::new(
                StatusCode::CONFLICT,
                "DuplicateMachineName",
                error.to_string(),
                "two machines with one host name, or one that was installed anew under another identity",
                "choose another name, or remove the old machine",
            ),
            VaultError::Invalid { .. } => Self::new(
                StatusCode::BAD_REQUEST,
                "InvalidValue",
                error.to_string(),
                "the value is outside what is allowed",
                "give a value that follows the rule",
            ),
            VaultError::Conflict { .. } => Self::new(
                StatusCode::PRECONDITION_FAILED,
                "Changed",
                error.to_string(),
                "another user or a job changed it after it was read",
                "read it again and repeat the change",
            ),
            VaultError::WrongPassword => Self::new(
                StatusCode::UNAUTHORIZED,
                "WrongPassword",
                error.to_string(),
                "a typing error, or the password was changed",
                "try again; on the server itself root needs no login: lifeboat user reset-password NAME",
            ),
            VaultError::Throttled { seconds } => Self {
                retry_after_seconds: Some(seconds),
                ..Self::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "TooManyLogins",
                    error.to_string(),
                    "the password was wrong several times",
                    "wait; on the server itself root needs no login",
                )
            },
            VaultError::NewerSchema { .. } | VaultError::Database(_) => Self::internal(&error),
        }
    }
}

impl From<ReplicaError> for ApiError {
    fn from(error: ReplicaError) -> Self {
        match (&error, error.disposition()) {
            (ReplicaError::NoMachine(_) | ReplicaError::NoDisk(_) | ReplicaError::NoPoint(_), _) => {
                Self::new(
                    StatusCode::NOT_FOUND,
                    "NotFound",
                    error.to_string(),
                    "nothing was replicated yet, or retention removed the point",
                    "list what there is: lifeboat recovery-point list NAME",
                )
            }
            (_, Disposition::Corrupt) => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "ReplicaDamaged",
                chain(&error),
                "bytes of the store were changed or lost beneath Lifeboat",
                "see which recovery points are hit: lifeboat store verify; use another point",
            ),
            _ => Self::internal(&error),
        }
    }
}

impl From<JournalError> for ApiError {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::NoItem(machine) => Self::not_found("replicated item", &machine.to_string()),
            JournalError::NoJob(job) => Self::not_found("job", &job.to_string()),
            JournalError::Conflict => Self::new(
                StatusCode::CONFLICT,
                "Changed",
                error.to_string(),
                "another user or a job changed it at the same moment",
                "look at it again and repeat the order",
            ),
            JournalError::Database(_) => Self::internal(&error),
        }
    }
}

impl From<RecoveryError> for ApiError {
    fn from(error: RecoveryError) -> Self {
        match error {
            RecoveryError::Refused(refusal) => refusal.into(),
            RecoveryError::Journal(error) => error.into(),
            RecoveryError::Store(error) => error.into(),
            RecoveryError::NoMachine => Self::new(
                StatusCode::NOT_FOUND,
                "NoMachine",
                error.to_string(),
                "it was not failed over, or was cleaned up",
                "start one: lifeboat failover test NAME",
            ),
            RecoveryError::ShuttingDown => Self {
                retry_after_seconds: Some(5),
                ..Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "ShuttingDown",
                    error.to_string(),
                    "the server is being stopped or restarted",
                    "repeat the order when it is up again",
                )
            },
            RecoveryError::Target(_) => Self::new(
                StatusCode::BAD_GATEWAY,
                "TargetFailed",
                chain(&error),
                "the hypervisor refused, or the machine does not answer",
                "look at the machine's serial log and at the target",
            ),
            RecoveryError::StillRunning(_) => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                "StillRunning",
                error.to_string(),
                "it takes longer than was waited",
                "the job goes on; ask again",
            ),
        }
    }
}

/// Longest text of a rejection that is passed on.
const REJECTION_BYTES_MAX: usize = 4096;

/// Outermost: gives each request an id, and every error its one shape.
pub async fn render(mut request: Request, next: Next) -> Response {
    let id = uuid::Uuid::now_v7().to_string();
    let origin = request.extensions().get::<Origin>().cloned();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    request.extensions_mut().insert(super::RequestId(id.clone()));
    let mut response = next.run(request).await;
    let status = response.status();
    if status.is_client_error() || status.is_server_error() {
        let error = match response.extensions_mut().remove::<ApiError>() {
            Some(error) => error,
            None => foreign(status, &mut response).await,
        };
        if status.is_server_error() {
            tracing::warn!(request_id = id, %method, path, ?origin, code = error.code, error.message, "request failed");
        }
        let problem = Problem {
            kind: format!("urn:lifeboat:problem:{}", error.code),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            code: error.code,
            message: error.message,
            possible_causes: error.possible_causes,
            recommended_action: error.recommended_action,
            request_id: id.clone(),
        };
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        *response.body_mut() = Body::from(body);
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
    }
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert("x-request-id", id);
    }
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

/// An error that axum made: its text says what is wrong with the request.
async fn foreign(status: StatusCode, response: &mut Response) -> ApiError {
    let body = std::mem::replace(response.body_mut(), Body::empty());
    let text = axum::body::to_bytes(body, REJECTION_BYTES_MAX)
        .await
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    let (code, message) = match status {
        StatusCode::NOT_FOUND => ("NoSuchRoute", "there is nothing at this address".to_owned()),
        StatusCode::METHOD_NOT_ALLOWED => (
            "MethodNotAllowed",
            "this address does not take this method".to_owned(),
        ),
        StatusCode::PAYLOAD_TOO_LARGE => ("TooLarge", "the body is too large".to_owned()),
        _ => ("InvalidRequest", text),
    };
    ApiError::new(
        status,
        code,
        message,
        "the request is not one of this API, or another version of it is meant",
        "see what is accepted: /api/v1/openapi.json",
    )
}
