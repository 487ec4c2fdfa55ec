//! Vaults of the site.
use super::ApiState;
use super::access::Caller;
use super::lists::{Sort, holds};
use super::model::{Page, Paging, Time};
use super::problem::ApiError;
use crate::vault::VaultRow;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Vault)]
pub struct VaultView {
    pub name: String,
    pub created_at: Time,
    /// Machines that are joined to it.
    pub machines: u64,
    pub replicated_items: u64,
    /// The caller's.
    pub role: String,
}

fn view(row: VaultRow, caller: &Caller) -> Option<VaultView> {
    let role = caller.role_in(&row.name)?.word().to_owned();
    Some(VaultView {
        name: row.name,
        created_at: Time(row.created_unix_nanos),
        machines: row.machines,
        replicated_items: row.replicated_items,
        role,
    })
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct VaultFilter {
    /// Part of the name.
    pub name: Option<String>,
    /// name (default), createdAt, machines, replicatedItems; with a `-` before it the other way round.
    pub sort: Option<String>,
    /// Most items to answer.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub limit: Option<u32>,
    /// `nextCursor` of the part before.
    pub cursor: Option<String>,
}

/// The vaults in which the caller has a role.
#[utoipa::path(get, path = "/api/v1/vaults", tag = "Site", params(VaultFilter),
    responses((status = 200, body = Page<VaultView>)))]
pub async fn list(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Query(filter): Query<VaultFilter>,
) -> Result<Json<Page<VaultView>>, ApiError> {
    let sort = Sort::of(
        filter.sort.as_deref(),
        &["name", "createdAt", "machines", "replicatedItems"],
    )?;
    let rows = state.run(|state| Ok(state.vault.vault_rows()?)).await?;
    let views = rows
        .into_iter()
        .filter(|row| holds(&row.name, filter.name.as_deref()))
        .filter_map(|row| view(row, &caller))
        .collect();
    let paging = Paging {
        limit: filter.limit,
        cursor: filter.cursor,
    };
    Ok(Json(sort.page(views, &paging, |view| view.name.clone())?))
}

#[derive(Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateVaultRequest {
    /// 1 to 63 letters, digits and hyphens; starts and ends with a letter or digit.
    pub name: String,
}

/// Makes a vault with the default policy; its maker becomes its Owner. For Owners of the vault `default`.
#[utoipa::path(post, path = "/api/v1/vaults", tag = "Site", request_body = CreateVaultRequest,
    responses((status = 201, body = VaultView)))]
pub async fn create(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<CreateVaultRequest>,
) -> Result<(StatusCode, Json<VaultView>), ApiError> {
    let owner = caller.principal.as_ref().map(|principal| principal.user.clone());
    let row = state
        .run(move |state| Ok(state.vault.create_vault(&request.name, owner.as_deref())?))
        .await?;
    let view = VaultView {
        name: row.name,
        created_at: Time(row.created_unix_nanos),
        machines: row.machines,
        replicated_items: row.replicated_items,
        role: crate::vault::Role::Owner.word().to_owned(),
    };
    Ok((StatusCode::CREATED, Json(view)))
}

/// Removes a vault with its history, its roles and its tokens; refused while a machine is joined to it, with the list of
/// what is in the way.
#[utoipa::path(delete, path = "/api/v1/vaults/{vault}", tag = "Site", responses((status = 204)))]
pub async fn remove(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
) -> Result<StatusCode, ApiError> {
    state
        .run(move |state| Ok(state.vault.remove_vault(&vault)?))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
