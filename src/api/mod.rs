//! REST over HTTPS and over the unix socket. One file per resource; `problem` is the only way from an error to an answer;
//! `access` says who may call what. The OpenAPI document is made from the same code as the routes.
//!
//! Beside the block's way: nothing here holds state that matters; whatever is answered with success is in the vault's
//! database already. Calls of the vault, the runner and the store block, so they run on blocking threads ([`ApiState::run`]).
mod access;
mod agent_update;
mod alerts;
mod backups;
mod capacity;
pub mod client;
mod console;
mod events;
mod failover;
mod groups;
mod idempotency;
mod install;
mod invitations;
mod items;
mod jobs;
mod lists;
mod machines;
mod maintenance;
mod metrics;
mod migration;
mod model;
mod networks;
mod plan_runs;
mod plans;
mod points;
mod policies;
mod precondition;
mod problem;
mod series;
mod serve;
mod session;
mod site;
mod users;
mod vaults;
mod websocket;

pub use access::{COOKIE, CSRF_HEADER, Caller, Need, need};
pub use items::{EnableRequest, ReplicatedItem};
pub use model::{JobView, Page, Time};
pub use problem::{ApiError, Problem};
pub use serve::{bind_unix, serve_bound, serve_tls, serve_unix};
pub use site::{ServerAlarm, ServerFacts, Site, SiteError, WayIn};

use crate::block::MachineId;
use crate::recovery::Runner;
use crate::recovery::plan::Engine;
use crate::replica::Store;
use crate::vault::{PointMark, Vault};
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

const BODY_BYTES_MAX: usize = 256 * 1024;
const REQUEST_LIMIT: Duration = Duration::from_secs(60);
/// Each takes 19 MiB and a core for a while.
const PASSWORDS_AT_ONCE: usize = 2;

/// Where a request comes from.
#[derive(Clone, Debug, Default)]
pub enum Origin {
    #[default]
    Unknown,
    /// `user`: Some, when the kernel says that it is root or the user of this server.
    Unix {
        user: Option<String>,
    },
    Tcp(std::net::SocketAddr),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown => f.write_str("unknown"),
            Self::Unix { .. } => f.write_str("unix socket"),
            Self::Tcp(address) => address.ip().fmt(f),
        }
    }
}

/// Of one request; the answer has it as `x-request-id`.
#[derive(Clone, Debug)]
pub struct RequestId(pub String);

/// What the API works with. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    pub vault: Vault,
    pub runner: Runner,
    pub plans: Engine,
    pub store: Store,
    pub site: Arc<dyn Site>,
    /// Ends live views, so that a stop of the server does not wait for them.
    pub shutdown: CancellationToken,
    /// `/metrics` needs no login.
    metrics_public: bool,
    passwords: Arc<Semaphore>,
    consoles: Arc<Semaphore>,
    keys_in_use: Arc<Mutex<HashSet<(String, String)>>>,
}

impl ApiState {
    /// Also tells the vault of the newest points in the store: it forgot them with the last process.
    pub fn new(
        vault: Vault,
        runner: Runner,
        plans: Engine,
        store: Store,
        site: Arc<dyn Site>,
        shutdown: CancellationToken,
    ) -> Self {
        for machine in store.machines() {
            if let Ok(points) = store.points(machine.id) {
                let marks = points.into_iter().map(|point| PointMark {
                    id: point.id,
                    instant_unix_nanos: point.instant_unix_nanos,
                    consistency: point.consistency,
                });
                vault.remember_points(machine.id, marks);
            }
        }
        Self {
            vault,
            runner,
            plans,
            store,
            site,
            shutdown,
            metrics_public: false,
            passwords: Arc::new(Semaphore::new(PASSWORDS_AT_ONCE)),
            consoles: Arc::new(Semaphore::new(console::CONSOLES_MAX)),
            keys_in_use: Arc::default(),
        }
    }

    /// Opens `/metrics` to everybody, or not.
    pub fn with_public_metrics(mut self, public: bool) -> Self {
        self.metrics_public = public;
        self
    }

    /// Runs what blocks on a thread for it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        action: impl FnOnce(&Self) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let state = self.clone();
        tokio::task::spawn_blocking(move || action(&state))
            .await
            .unwrap_or_else(|error| {
                tracing::error!(%error, "a request ended in a panic");
                Err(ApiError::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "InternalError",
                    "the server could not carry the request out",
                    "this is a defect",
                    "look for the request id in the server's log",
                ))
            })
    }

    /// As [`Self::run`], for what hashes passwords.
    pub(crate) async fn run_password<T: Send + 'static>(
        &self,
        action: impl FnOnce(&Self) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let _permit = self.passwords.acquire().await;
        self.run(action).await
    }

    /// The id of a machine given by name or id.
    fn machine(&self, vault: &str, name: &str) -> Result<MachineId, ApiError> {
        Ok(self.vault.find_machine(vault, name)?.id)
    }

    /// Writes to the audit log, in the background of the answer.
    fn audit(&self, user: &str, origin: &Origin, action: String, object: String, status: StatusCode) {
        let (vault, user, origin) = (self.vault.clone(), user.to_owned(), origin.to_string());
        let object: String = object.chars().take(500).collect();
        let outcome = status.as_u16().to_string();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = vault.audit(&user, &origin, &action, &object, &outcome) {
                tracing::error!(%error, user, action, object, outcome, "the audit log was not written");
            }
        });
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Lifeboat",
        description = "Disaster recovery in one executable. Errors are problem+json with code, message, possibleCauses \
                       and recommendedAction. Long work answers 202 with a job. Machines are given by name or id."
    ),
    tags(
        (name = "Session"), (name = "Site"), (name = "Machines"), (name = "Replicated items"), (name = "Failover"),
        (name = "Policies"), (name = "Networks"), (name = "Replication groups"), (name = "Recovery plans"), (name = "Jobs"), (name = "Events"), (name = "Alerts"), (name = "Users")
    )
)]
struct Document;

fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(session::healthz))
        .routes(routes!(session::openapi_document))
        .routes(routes!(session::login))
        .routes(routes!(session::logout))
        .routes(routes!(session::password))
        .routes(routes!(session::whoami))
        .routes(routes!(vaults::list, vaults::create))
        .routes(routes!(vaults::remove))
        .routes(routes!(backups::list, backups::make))
        .routes(routes!(site::servers))
        .routes(routes!(site::store))
        .routes(routes!(site::passphrase))
        .routes(routes!(site::rotate_passphrase))
        .routes(routes!(install::script))
        .routes(routes!(install::executable))
        .routes(routes!(install::executable_digest))
        .routes(routes!(invitations::join_tokens, invitations::create_join_token))
        .routes(routes!(invitations::revoke_join_token))
        .routes(routes!(
            invitations::registration_keys,
            invitations::create_registration_key
        ))
        .routes(routes!(invitations::revoke_registration_key))
        .routes(routes!(machines::list))
        .routes(routes!(machines::show, machines::remove))
        .routes(routes!(machines::rename))
        .routes(routes!(machines::revoke))
        .routes(routes!(agent_update::show, agent_update::order))
        .routes(routes!(items::list, items::enable))
        .routes(routes!(items::show, items::disable))
        .routes(routes!(items::set_target))
        .routes(routes!(items::set_policy))
        .routes(routes!(items::set_disks))
        .routes(routes!(points::list, points::create))
        .routes(routes!(series::series))
        .routes(routes!(failover::test_failover))
        .routes(routes!(failover::test_failover_cleanup))
        .routes(routes!(failover::planned_failover))
        .routes(routes!(failover::unplanned_failover))
        .routes(routes!(failover::change_recovery_point))
        .routes(routes!(failover::cancel_failover))
        .routes(routes!(failover::reprotect))
        .routes(routes!(failover::failback))
        .routes(routes!(failover::commit))
        .routes(routes!(migration::hydrate))
        .routes(routes!(migration::complete_migration))
        .routes(routes!(migration::start_machine))
        .routes(routes!(failover::resynchronize))
        .routes(routes!(failover::target_machine))
        .routes(routes!(failover::screenshot))
        .routes(routes!(failover::serial_log))
        .routes(routes!(plans::list, plans::create))
        .routes(routes!(plans::show, plans::update, plans::remove))
        .routes(routes!(plans::checks))
        .routes(routes!(plans::scripts))
        .routes(routes!(plan_runs::test_failover))
        .routes(routes!(plan_runs::test_failover_cleanup))
        .routes(routes!(plan_runs::unplanned_failover))
        .routes(routes!(plan_runs::planned_failover))
        .routes(routes!(plan_runs::commit))
        .routes(routes!(plan_runs::cancel_failover))
        .routes(routes!(plan_runs::reprotect))
        .routes(routes!(plan_runs::failback))
        .routes(routes!(plan_runs::list))
        .routes(routes!(plan_runs::show))
        .routes(routes!(plan_runs::stop))
        .routes(routes!(plan_runs::resume))
        .routes(routes!(plan_runs::skip))
        .routes(routes!(plan_runs::cancel))
        .routes(routes!(groups::list, groups::create))
        .routes(routes!(groups::show, groups::update, groups::remove))
        .routes(routes!(groups::add_member))
        .routes(routes!(groups::remove_member))
        .routes(routes!(networks::list, networks::create))
        .routes(routes!(networks::show, networks::update, networks::remove))
        .routes(routes!(networks::mappings, networks::map))
        .routes(routes!(networks::preview))
        .routes(routes!(console::console))
        .routes(routes!(policies::list, policies::create))
        .routes(routes!(policies::show, policies::update, policies::remove))
        .routes(routes!(jobs::list))
        .routes(routes!(jobs::export))
        .routes(routes!(jobs::show))
        .routes(routes!(jobs::cancel))
        .routes(routes!(jobs::restart))
        .routes(routes!(jobs::resume))
        .routes(routes!(events::list))
        .routes(routes!(events::stream))
        .routes(routes!(events::audit))
        .routes(routes!(alerts::settings, alerts::set))
        .routes(routes!(alerts::test))
        .routes(routes!(alerts::deliveries))
        .routes(routes!(alerts::health_errors))
        .routes(routes!(maintenance::list, maintenance::create))
        .routes(routes!(maintenance::remove))
        .routes(routes!(capacity::capacity))
        .routes(routes!(metrics::metrics))
        .routes(routes!(users::list, users::create))
        .routes(routes!(users::show, users::remove))
        .routes(routes!(users::reset_password))
        .routes(routes!(users::assign, users::unassign))
        .routes(routes!(users::tokens, users::create_token))
        .routes(routes!(users::revoke_token))
}

/// The OpenAPI document, with the role that each operation needs.
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut document = routes().into_openapi();
    model::finish_document(&mut document);
    document
}

pub fn router(state: ApiState) -> Router {
    let (router, _) = routes()
        .route("/api/v1/docs", get(session::docs))
        .route("/api/v1/docs.js", get(session::docs_script))
        .split_for_parts();
    // The last layer is the first to see a request.
    router
        .fallback(crate::web::page)
        .layer(from_fn_with_state(state.clone(), precondition::check))
        .layer(from_fn_with_state(state.clone(), idempotency::replay))
        .layer(from_fn_with_state(state.clone(), access::check))
        .layer(from_fn_with_state(state.clone(), limit_time))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn(problem::render))
        .with_state(state)
}

async fn limit_time(State(_): State<ApiState>, request: Request, next: Next) -> Result<Response, ApiError> {
    tokio::time::timeout(REQUEST_LIMIT, next.run(request))
        .await
        .map_err(|_| {
            ApiError::new(
                StatusCode::GATEWAY_TIMEOUT,
                "TooSlow",
                format!("no answer within {} s", REQUEST_LIMIT.as_secs()),
                "the server is overloaded or its disk is very slow",
                "try again; an order that was taken is in the list of jobs",
            )
        })
}
