//! Events, the audit log, and the live view of what changes.
use super::model::{JobView, Named, Page, Paging, Time};
use super::problem::ApiError;
use super::{ApiState, items};
use crate::block::MachineId;
use crate::recovery::plan::PlanJournal;
use crate::vault::{Change, DEFAULT_VAULT, Event, EventFilter, Severity};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event as Sse, KeepAlive, Sse as SseResponse};
use futures_util::stream::Stream;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Event)]
pub struct EventView {
    pub id: i64,
    pub at: Time,
    /// Information, Warning, Critical
    pub severity: String,
    pub code: String,
    pub machine: Option<Named>,
    pub job: Option<String>,
    pub message: String,
    pub possible_causes: String,
    pub recommended_action: String,
}

impl From<Event> for EventView {
    fn from(row: Event) -> Self {
        let event = row.event;
        Self {
            id: row.id,
            at: Time(row.at_unix_nanos),
            severity: format!("{:?}", event.severity),
            code: event.code,
            machine: event.machine.map(|id| Named {
                id: id.to_string(),
                name: row.machine_name.unwrap_or_default(),
            }),
            job: event.job.map(|job| job.to_string()),
            message: event.message,
            possible_causes: event.possible_causes,
            recommended_action: event.recommended_action,
        }
    }
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct EventQuery {
    /// Name or id.
    pub machine: Option<String>,
    /// Information, Warning, Critical
    pub severity: Option<String>,
    /// For example RpoExceeded.
    pub code: Option<String>,
    /// At or after this instant.
    pub since: Option<Time>,
    /// Before this instant.
    pub until: Option<Time>,
    /// -at (default): the newest first; at: the oldest first.
    pub sort: Option<String>,
    /// Most items to answer.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub limit: Option<u32>,
    /// `nextCursor` of the part before.
    pub cursor: Option<String>,
}

/// Events, the newest first.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/events", tag = "Events", params(EventQuery),
    responses((status = 200, body = Page<EventView>)))]
pub async fn list(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
    Query(query): Query<EventQuery>,
) -> Result<Json<Page<EventView>>, ApiError> {
    let paging = Paging {
        limit: query.limit,
        cursor: query.cursor,
    };
    let limit = paging.limit()?;
    let mut filter = EventFilter {
        machine: None,
        severity: match query.severity.as_deref() {
            None => None,
            Some("Information") => Some(Severity::Information),
            Some("Warning") => Some(Severity::Warning),
            Some("Critical") => Some(Severity::Critical),
            Some(_) => return Err(ApiError::invalid("severity is Information, Warning or Critical")),
        },
        code: query.code,
        since_unix_nanos: query.since.map(|time| time.0),
        until_unix_nanos: query.until.map(|time| time.0),
        oldest_first: super::model::oldest_first(query.sort.as_deref(), "at")?,
        after: paging.after_parsed()?,
    };
    let page = state
        .run(move |state| {
            filter.machine = query
                .machine
                .map(|machine| state.machine(&vault, &machine))
                .transpose()?;
            let rows = state.vault.events(&vault, &filter, limit + 1)?;
            Page::of(rows, limit, |row| row.id.to_string(), |row| Ok(row.into()))
        })
        .await?;
    Ok(Json(page))
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct AuditView {
    pub id: i64,
    pub at: Time,
    pub user: String,
    /// Address, or `unix socket`.
    pub origin: String,
    pub action: String,
    pub object: String,
    /// HTTP status.
    pub outcome: String,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// Only what this user did.
    pub user: Option<String>,
    /// Most items to answer.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub limit: Option<u32>,
    /// `nextCursor` of the part before.
    pub cursor: Option<String>,
}

/// Who changed what from where, the newest first. In the vault `default` also what belongs to no vault.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/audit", tag = "Events", params(AuditQuery),
    responses((status = 200, body = Page<AuditView>)))]
pub async fn audit(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
    Query(query): Query<AuditQuery>,
) -> Result<Json<Page<AuditView>>, ApiError> {
    let paging = Paging {
        limit: query.limit,
        cursor: query.cursor,
    };
    let (limit, before) = (paging.limit()?, paging.after_parsed()?);
    let page = state
        .run(move |state| {
            // Logins and what else belongs to no vault is the site's, which `default` stands for.
            let whole_site = vault.eq_ignore_ascii_case(DEFAULT_VAULT);
            let of = (!whole_site).then_some(vault.as_str());
            let user = query.user.as_deref();
            let rows = state.vault.audit_log(of, user, before, limit + 1)?;
            Page::of(
                rows,
                limit,
                |row| row.id.to_string(),
                |row| {
                    Ok(AuditView {
                        id: row.id,
                        at: Time(row.at_unix_nanos),
                        user: row.user,
                        origin: row.origin,
                        action: row.action,
                        object: row.object,
                        outcome: row.outcome,
                    })
                },
            )
        })
        .await?;
    Ok(Json(page))
}

/// Changes that are read at once.
const CHANGES_AT_ONCE: u32 = 256;
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// One live view.
struct View {
    state: ApiState,
    vault: String,
    commits: tokio::sync::watch::Receiver<u64>,
    last: i64,
    ready: VecDeque<Sse>,
}

impl View {
    /// Changes since the last ones; each object once, as it is now.
    async fn fill(&mut self) -> Result<(), ApiError> {
        let (vault, last) = (self.vault.clone(), self.last);
        let found = self
            .state
            .run(move |state| {
                let changes = state.vault.changes(&vault, last, CHANGES_AT_ONCE)?;
                let mut seen = HashSet::new();
                let mut ready = Vec::new();
                // From the newest, so that an object that changed twice is told at its last change.
                for change in changes.iter().rev() {
                    if seen.insert((change.kind.clone(), change.object.clone())) {
                        ready.push(told(state, change)?);
                    }
                }
                ready.reverse();
                Ok((changes.last().map(|change| change.id), ready))
            })
            .await?;
        if let Some(last) = found.0 {
            self.last = last;
        }
        self.ready.extend(found.1);
        Ok(())
    }
}

/// What a view is told of a change: the object as it is now, or that it is gone.
fn told(state: &ApiState, change: &Change) -> Result<Sse, ApiError> {
    let gone = serde_json::json!({ "id": change.object, "gone": true });
    let object = match change.kind.as_str() {
        "item" => {
            let id: Option<MachineId> = change.object.parse().ok();
            match id.map(|id| state.vault.item_row(id)) {
                Some(Ok(row)) => serde_json::to_value(items::view(state, row)?),
                _ => Ok(gone),
            }
        }
        "job" => match uuid::Uuid::parse_str(&change.object)
            .ok()
            .map(|id| state.vault.job_row(crate::recovery::JobId(id)))
        {
            Some(Ok(row)) => serde_json::to_value(JobView::from(row)),
            _ => Ok(gone),
        },
        "event" => {
            let id: i64 = change.object.parse().unwrap_or_default();
            match state.vault.event_row(id)? {
                Some(event) => serde_json::to_value(EventView::from(event)),
                _ => Ok(gone),
            }
        }
        "planRun" => match uuid::Uuid::parse_str(&change.object)
            .ok()
            .map(|id| state.vault.plan_run(crate::recovery::JobId(id)))
        {
            Some(Ok(run)) => serde_json::to_value(super::plan_runs::PlanRunView::from(run)),
            _ => Ok(gone),
        },
        // Machines and policies: the view asks for what it shows.
        _ => Ok(serde_json::json!({ "id": change.object })),
    };
    let data = object.map_err(|error| ApiError::invalid(error.to_string()))?;
    Ok(Sse::default()
        .id(change.id.to_string())
        .event(change.kind.clone())
        .data(data.to_string()))
}

/// Live view: server-sent events `item`, `job`, `event`, `machine`, `policy`, each with the object as it is now. After a
/// break send `Last-Event-ID`; what was missed comes first. `reset`: too much was missed, read the lists again.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/events/stream", tag = "Events",
    params(("Last-Event-ID" = Option<String>, Header, description = "id of the last event that was seen")),
    responses((status = 200, content_type = "text/event-stream", body = String)))]
pub async fn stream(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
    headers: HeaderMap,
) -> Result<SseResponse<impl Stream<Item = Result<Sse, Infallible>>>, ApiError> {
    let wanted: Option<i64> = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse().ok());
    let commits = state.vault.commits();
    let bounds = {
        let vault = vault.clone();
        state
            .run(move |state| Ok(state.vault.change_bounds(&vault)?))
            .await?
    };
    let (first, newest) = bounds;
    let mut ready = VecDeque::new();
    let last = match wanted {
        // What lies between is still there.
        Some(wanted) if wanted >= first - 1 && wanted <= newest => wanted,
        Some(_) => {
            ready.push_back(Sse::default().id(newest.to_string()).event("reset").data("{}"));
            newest
        }
        // Tells at once where the view begins, so that a break before the first change loses nothing.
        None => {
            ready.push_back(Sse::default().id(newest.to_string()).event("hello").data("{}"));
            newest
        }
    };
    let view = View {
        state,
        vault,
        commits,
        last,
        ready,
    };
    let stream = futures_util::stream::unfold(view, |mut view| async move {
        loop {
            if let Some(event) = view.ready.pop_front() {
                return Some((Ok(event), view));
            }
            // Marked as seen before reading: a commit during the read wakes again.
            view.commits.borrow_and_update();
            if let Err(error) = view.fill().await {
                tracing::warn!(?error, "a live view ended");
                return None;
            }
            if !view.ready.is_empty() {
                continue;
            }
            tokio::select! {
                () = view.state.shutdown.cancelled() => return None,
                changed = view.commits.changed() => changed.ok()?,
            }
        }
    });
    Ok(SseResponse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}
