//! Updating the agent of a machine to the server's own version.
use super::ApiState;
use super::problem::ApiError;
use crate::rt::executable;
use crate::vault::AgentUpdate;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AgentUpdate)]
pub struct AgentUpdateView {
    /// Number of the order; 0: there was none.
    pub request: u64,
    /// Ordered, Trying, Confirmed, RolledBack, Failed; null: never ordered.
    pub state: Option<String>,
    /// Why it was rolled back or failed.
    pub message: String,
    pub agent_version: String,
    /// The version that an update brings.
    pub server_version: String,
}

impl From<AgentUpdate> for AgentUpdateView {
    fn from(update: AgentUpdate) -> Self {
        Self {
            request: update.request,
            state: update.state,
            message: update.message,
            agent_version: update.agent_version,
            server_version: executable::version().to_owned(),
        }
    }
}

/// What became of the last order to update the agent.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/machines/{machine}/agent-update", tag = "Machines",
    responses((status = 200, body = AgentUpdateView)))]
pub async fn show(
    State(state): State<ApiState>,
    Path((vault, machine)): Path<(String, String)>,
) -> Result<Json<AgentUpdateView>, ApiError> {
    let update = state
        .run(move |state| {
            let machine = state.machine(&vault, &machine)?;
            Ok(state.vault.agent_update(machine)?)
        })
        .await?;
    Ok(Json(update.into()))
}

/// Orders the agent to update itself to the server's version. It rolls back by itself when the new one does not reach the
/// server; no reboot, nothing is compared or copied again.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/machines/{machine}/agent-update", tag = "Machines",
    responses((status = 202, body = AgentUpdateView)))]
pub async fn order(
    State(state): State<ApiState>,
    Path((vault, machine)): Path<(String, String)>,
) -> Result<(StatusCode, Json<AgentUpdateView>), ApiError> {
    let update = state
        .run(move |state| {
            let machine = state.machine(&vault, &machine)?;
            Ok(state
                .vault
                .order_update(machine, executable::version(), std::env::consts::ARCH)?)
        })
        .await?;
    Ok((StatusCode::ACCEPTED, Json(update.into())))
}
