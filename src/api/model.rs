//! Values that several resources share, as they go over the wire.
use super::access::{self, Need};
use super::idempotency;
use super::precondition;
use super::problem::ApiError;
use crate::recovery::{Job, JobError, JobKind, JobState, Task, TaskState};
use crate::vault::{JobRow, scenario};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{OpenApi, SecurityRequirement};

/// An instant, RFC 3339 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, utoipa::ToSchema)]
#[schema(value_type = String, format = DateTime)]
pub struct Time(pub i64);

impl Time {
    /// The day, in UTC.
    pub fn date(self) -> String {
        let instant = jiff::Timestamp::from_nanosecond(i128::from(self.0)).unwrap_or_default();
        instant.strftime("%Y-%m-%d").to_string()
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Every i64 of nanoseconds lies between the years 1677 and 2262.
        let instant = jiff::Timestamp::from_nanosecond(i128::from(self.0)).unwrap_or_default();
        serializer.collect_str(&instant)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let instant: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        Ok(Self(
            i64::try_from(instant.as_nanosecond()).map_err(serde::de::Error::custom)?,
        ))
    }
}

/// Part of a list. `nextCursor` null: it was the last part.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Page<T> {
    pub items: Vec<T>,
    pub next_cursor: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// Most items to answer.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub limit: Option<u32>,
    /// `nextCursor` of the part before.
    pub cursor: Option<String>,
}

impl Paging {
    pub fn limit(&self) -> Result<u32, ApiError> {
        match self.limit.unwrap_or(100) {
            limit @ 1..=1000 => Ok(limit),
            _ => Err(ApiError::invalid("limit is 1 to 1000")),
        }
    }

    /// What `cursor` stands for.
    pub fn after(&self) -> Result<Option<String>, ApiError> {
        self.cursor
            .as_deref()
            .map(|cursor| {
                URL_SAFE_NO_PAD
                    .decode(cursor)
                    .ok()
                    .and_then(|bytes| String::from_utf8(bytes).ok())
                    .ok_or_else(|| ApiError::invalid("the cursor is not one that this server gave"))
            })
            .transpose()
    }

    pub fn after_parsed<T: std::str::FromStr>(&self) -> Result<Option<T>, ApiError> {
        self.after()?
            .map(|text| {
                text.parse()
                    .map_err(|_| ApiError::invalid("the cursor is not one that this server gave"))
            })
            .transpose()
    }
}

impl<T> Page<T> {
    /// `rows` may hold one more than `limit`, which tells that there are more.
    pub fn of<R>(
        mut rows: Vec<R>,
        limit: u32,
        key: impl Fn(&R) -> String,
        view: impl Fn(R) -> Result<T, ApiError>,
    ) -> Result<Self, ApiError> {
        let limit = limit as usize;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next_cursor = rows
            .last()
            .filter(|_| more)
            .map(|row| URL_SAFE_NO_PAD.encode(key(row)));
        Ok(Self {
            items: rows.into_iter().map(view).collect::<Result<_, _>>()?,
            next_cursor,
        })
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Named {
    pub id: String,
    pub name: String,
}

/// Why something is not allowed or failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reason {
    pub code: String,
    pub message: String,
    pub possible_causes: String,
    pub recommended_action: String,
}

impl From<JobError> for Reason {
    fn from(error: JobError) -> Self {
        Self {
            code: error.code,
            message: error.message,
            possible_causes: error.possible_causes,
            recommended_action: error.recommended_action,
        }
    }
}

impl From<crate::recovery::Refusal> for Reason {
    fn from(refusal: crate::recovery::Refusal) -> Self {
        JobError::from(refusal).into()
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskView {
    pub name: String,
    /// NotStarted, InProgress, Succeeded, Failed, Skipped
    pub state: String,
    pub started_at: Option<Time>,
    pub ended_at: Option<Time>,
    pub message: String,
    pub error: Option<Reason>,
}

/// A job: something that takes time, with its tasks.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Job)]
pub struct JobView {
    pub id: String,
    /// EnableReplication, DisableReplication, TestFailover, TestFailoverCleanup, PlannedFailover, UnplannedFailover,
    /// ChangeRecoveryPoint, CommitFailover, CancelFailover, Reprotect, Failback,
    /// Resynchronize, ChangeDisks, CreateRecoveryPoint, Hydrate, CompleteMigration
    pub kind: String,
    /// `kind` in words.
    pub scenario: String,
    pub machine: Named,
    /// NotStarted, InProgress, Succeeded, Failed, Cancelled, Suspended
    pub state: String,
    pub user: String,
    pub created_at: Time,
    pub started_at: Option<Time>,
    pub ended_at: Option<Time>,
    /// What was asked for.
    #[schema(value_type = Object)]
    pub parameters: serde_json::Value,
    /// What came out.
    #[schema(value_type = Object)]
    pub result: serde_json::Value,
    pub tasks: Vec<TaskView>,
    pub error: Option<Reason>,
    /// The job that failed and is tried again by this one.
    pub restart_of: Option<String>,
    /// `cancel` while it may be cancelled; `restart` when it failed or was cancelled; `resume` while it is suspended.
    pub allowed_actions: Vec<String>,
}

fn task_view(task: Task) -> TaskView {
    let state = match task.state {
        TaskState::NotStarted => "NotStarted",
        TaskState::InProgress => "InProgress",
        TaskState::Succeeded => "Succeeded",
        TaskState::Failed => "Failed",
        TaskState::Skipped => "Skipped",
    };
    TaskView {
        name: task.name,
        state: state.to_owned(),
        started_at: task.started_unix_nanos.map(Time),
        ended_at: task.ended_unix_nanos.map(Time),
        message: task.message,
        error: task.error.map(Reason::from),
    }
}

/// Jobs of the configuration server's reconciler are ended by disabling, not by cancelling.
pub fn is_cancellable(job: &Job) -> bool {
    !job.state.is_over()
        && (!job.kind.holds_nothing_up() || job.kind == JobKind::Reprotect)
        && !matches!(job.kind, JobKind::EnableReplication | JobKind::DisableReplication)
}

pub fn is_restartable(job: &Job) -> bool {
    matches!(job.state, JobState::Failed | JobState::Cancelled)
}

impl From<JobRow> for JobView {
    fn from(row: JobRow) -> Self {
        let job = row.job;
        let state = match job.state {
            JobState::NotStarted => "NotStarted",
            JobState::InProgress => "InProgress",
            JobState::Succeeded => "Succeeded",
            JobState::Failed => "Failed",
            JobState::Cancelled => "Cancelled",
            JobState::Suspended => "Suspended",
        };
        // An empty object rather than null: the document says object.
        let object = |value: serde_json::Value| match value {
            serde_json::Value::Object(_) => value,
            serde_json::Value::Null => serde_json::json!({}),
            other => serde_json::json!({ "value": other }),
        };
        let allowed_actions = [
            ("cancel", is_cancellable(&job)),
            ("restart", is_restartable(&job)),
            ("resume", job.state == JobState::Suspended),
        ];
        let allowed_actions = allowed_actions
            .into_iter()
            .filter(|(_, allowed)| *allowed)
            .map(|(action, _)| action.to_owned())
            .collect();
        Self {
            id: job.id.to_string(),
            kind: format!("{:?}", job.kind),
            scenario: scenario(job.kind).to_owned(),
            machine: Named {
                id: job.machine.to_string(),
                name: row.machine_name,
            },
            state: state.to_owned(),
            user: job.user,
            created_at: Time(job.created_unix_nanos),
            started_at: job.started_unix_nanos.map(Time),
            ended_at: job.ended_unix_nanos.map(Time),
            parameters: object(job.parameters),
            result: object(job.result),
            tasks: job.tasks.into_iter().map(task_view).collect(),
            error: job.error.map(Reason::from),
            restart_of: job.restart_of.map(|job| job.to_string()),
            allowed_actions,
        }
    }
}

/// The answer to an order that a job carries out.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Accepted {
    pub job: JobView,
}

impl IntoResponse for Accepted {
    fn into_response(self) -> Response {
        (axum::http::StatusCode::ACCEPTED, axum::Json(self)).into_response()
    }
}

pub fn etag(revision: u64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{revision}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// Of a view that has no revision of its own.
pub fn etag_of(view: &impl Serialize) -> HeaderValue {
    let bytes = serde_json::to_vec(view).unwrap_or_default();
    let mut first = [0; 8];
    first.copy_from_slice(&blake3::hash(&bytes).as_bytes()[..8]);
    etag(u64::from_le_bytes(first))
}

/// Of a list in the order of time: `-FIELD` (default) or `FIELD`.
pub fn oldest_first(sort: Option<&str>, field: &str) -> Result<bool, ApiError> {
    match sort {
        None => Ok(false),
        Some(text) if text == field => Ok(true),
        Some(text) if text.strip_prefix('-') == Some(field) => Ok(false),
        Some(_) => Err(ApiError::invalid(format!("sort is {field} or -{field}"))),
    }
}

/// The revision that `If-Match` names; None: any.
pub fn if_match(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(value) = headers.get(header::IF_MATCH) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    text.strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .and_then(|digits| digits.parse().ok())
        .map(Some)
        .ok_or_else(|| ApiError::invalid("If-Match is an ETag that this server gave"))
}

/// Writes into the document what is the same for all operations: errors, login, role.
pub fn finish_document(document: &mut OpenApi) {
    let components = document.components.get_or_insert_default();
    let problem = <super::Problem as utoipa::PartialSchema>::schema();
    components.schemas.insert("Problem".to_owned(), problem);
    components.security_schemes.insert(
        "token".to_owned(),
        SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build()).into(),
    );
    components.security_schemes.insert(
        "session".to_owned(),
        SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(access::COOKIE))).into(),
    );
    for (path, item) in &mut document.paths.paths {
        let operations = [
            (Method::GET, &mut item.get),
            (Method::POST, &mut item.post),
            (Method::PUT, &mut item.put),
            (Method::DELETE, &mut item.delete),
        ];
        for (method, operation) in operations {
            if let Some(operation) = operation {
                finish_operation(&method, path, operation);
            }
        }
    }
}

/// What a client generator names a call by. The functions of each resource are named alike, so their names need the
/// resource: `list` of `/vaults/{vault}/jobs` is `listJobs`, `show` of `/jobs/{job}` is `showJob`.
fn operation_id(path: &str, function: &str) -> String {
    let literals: Vec<&str> = path
        .split('/')
        .filter(|part| !part.is_empty() && !part.starts_with('{'))
        .collect();
    let words = |text: &str| -> String {
        let mut all = String::new();
        for word in text.split(['-', '_', '.']) {
            let mut letters = word.chars();
            all.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
            all.push_str(letters.as_str());
        }
        all
    };
    let singular = |word: &str| match (word.strip_suffix("ies"), word.strip_suffix('s')) {
        (Some(stem), _) => format!("{stem}y"),
        (None, Some(stem)) => stem.to_owned(),
        (None, None) => word.to_owned(),
    };
    let is_verb = [
        "list",
        "create",
        "show",
        "remove",
        "update",
        "set",
        "test",
        "export",
        "order",
        "rename",
        "revoke",
        "cancel",
        "restart",
        "resume",
        "enable",
        "disable",
        "commit",
        "resynchronize",
        "stream",
        "assign",
        "unassign",
    ]
    .contains(&function);
    let mut name = words(function);
    if is_verb {
        // `POST /jobs/{job}/cancel` ends with the verb itself.
        let place = literals.iter().rposition(|part| *part != function).unwrap_or(0);
        let noun = literals.get(place).copied().unwrap_or_default();
        let of_one = matches!(function, "create" | "enable") || path.contains(&format!("/{noun}/{{"));
        name += &words(&if of_one { singular(noun) } else { noun.to_owned() });
    }
    let mut letters = name.chars();
    let first = letters.next().map(|letter| letter.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}

fn finish_operation(method: &Method, path: &str, operation: &mut Operation) {
    use utoipa::openapi::{Content, Ref, ResponseBuilder};
    operation.operation_id = operation
        .operation_id
        .as_deref()
        .map(|function| operation_id(path, function));
    let error = ResponseBuilder::new()
        .description("An error, with what to do about it")
        .content(
            "application/problem+json",
            Content::new(Some(Ref::from_schema_name("Problem"))),
        )
        .build();
    operation
        .responses
        .responses
        .insert("default".to_owned(), error.into());
    if *method == Method::POST && idempotency::is_kept(path) {
        let key = ParameterBuilder::new()
            .name("Idempotency-Key")
            .parameter_in(ParameterIn::Header)
            .description(Some(
                "An order that is sent again under the same key gets the first answer and is not carried out again",
            ))
            .schema(Some(
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .max_length(Some(128))
                    .build(),
            ))
            .build();
        operation.parameters.get_or_insert_default().push(key.into());
    }
    if precondition::is_order(method, path) {
        let tag = ParameterBuilder::new()
            .name("If-Match")
            .parameter_in(ParameterIn::Header)
            .description(Some("ETag of the item: refused when it was changed since"))
            .schema(Some(ObjectBuilder::new().schema_type(Type::String).build()))
            .build();
        operation.parameters.get_or_insert_default().push(tag.into());
    }
    let (role, open) = match access::need(method, path) {
        None => ("nobody", false),
        Some(Need::Nothing) => ("none", true),
        Some(Need::Login | Need::User) => ("any", false),
        Some(Need::Role(role) | Need::Site(role)) => (role.word(), false),
    };
    operation.security = Some(if open {
        Vec::new()
    } else {
        vec![
            SecurityRequirement::new("token", [] as [&str; 0]),
            SecurityRequirement::new("session", [] as [&str; 0]),
        ]
    });
    operation.extensions = Some(ExtensionsBuilder::new().add("x-required-role", role).build());
}
