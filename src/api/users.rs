//! Users, role assignments, API tokens.
use super::ApiState;
use super::access::Caller;
use super::lists::{Sort, holds, is};
use super::model::{Page, Paging, Time, etag, if_match};
use super::problem::ApiError;
use super::session::VaultRole;
use crate::vault::{Role, UserRow};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = User)]
pub struct UserView {
    pub name: String,
    /// Grows with every change; the ETag.
    pub revision: u64,
    pub must_change_password: bool,
    pub created_at: Time,
    pub roles: Vec<VaultRole>,
}

impl From<UserRow> for UserView {
    fn from(row: UserRow) -> Self {
        Self {
            name: row.name,
            revision: row.revision,
            must_change_password: row.must_change_password,
            created_at: Time(row.created_unix_nanos),
            roles: row
                .roles
                .into_iter()
                .map(|(vault, role)| VaultRole {
                    vault,
                    role: role.word().to_owned(),
                })
                .collect(),
        }
    }
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct UserQuery {
    /// Part of the name.
    pub name: Option<String>,
    /// Role in this vault: Reader, Operator, Contributor, Owner
    pub role: Option<String>,
    /// name (default), createdAt; with a `-` before it the other way round.
    pub sort: Option<String>,
    /// Most items to answer.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub limit: Option<u32>,
    /// `nextCursor` of the part before.
    pub cursor: Option<String>,
}

/// Users of this site.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/users", tag = "Users", params(UserQuery),
    responses((status = 200, body = Page<UserView>)))]
pub async fn list(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
    Query(query): Query<UserQuery>,
) -> Result<Json<Page<UserView>>, ApiError> {
    let sort = Sort::of(query.sort.as_deref(), &["name", "createdAt"])?;
    let paging = Paging {
        limit: query.limit,
        cursor: query.cursor,
    };
    let users = state.run(|state| Ok(state.vault.users()?)).await?;
    let has_role = |user: &UserView| {
        query.role.is_none()
            || user
                .roles
                .iter()
                .any(|role| role.vault.eq_ignore_ascii_case(&vault) && is(&role.role, query.role.as_deref()))
    };
    let views = users
        .into_iter()
        .map(UserView::from)
        .filter(|user| holds(&user.name, query.name.as_deref()) && has_role(user))
        .collect();
    Ok(Json(sort.page(views, &paging, |user| user.name.clone())?))
}

#[derive(Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateUserRequest {
    pub name: String,
    /// Reader, Operator, Contributor, Owner
    pub role: String,
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OneTimePassword {
    pub user: String,
    /// Shown this once; must be changed at the first login.
    pub one_time_password: String,
}

/// Makes a user with a role in this vault.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/users", tag = "Users", request_body = CreateUserRequest,
    responses((status = 201, body = OneTimePassword)))]
pub async fn create(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
    Json(request): Json<CreateUserRequest>,
) -> Result<(StatusCode, Json<OneTimePassword>), ApiError> {
    let answer = state
        .run_password(move |state| {
            let role: Role = request.role.parse()?;
            let one_time_password = state.vault.create_user(&request.name, &vault, role)?;
            Ok(OneTimePassword {
                user: request.name,
                one_time_password,
            })
        })
        .await?;
    Ok((StatusCode::CREATED, Json(answer)))
}

/// One user, by name.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/users/{user}", tag = "Users",
    responses((status = 200, body = UserView)))]
pub async fn show(
    State(state): State<ApiState>,
    Path((_vault, user)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let row = state.run(move |state| find(state, &user)).await?;
    Ok(([(header::ETAG, etag(row.revision))], Json(UserView::from(row))).into_response())
}

fn find(state: &ApiState, name: &str) -> Result<UserRow, ApiError> {
    state
        .vault
        .users()?
        .into_iter()
        .find(|user| user.name.eq_ignore_ascii_case(name))
        .ok_or_else(|| ApiError::not_found("user", name))
}

/// Only a caller who may assign roles wherever this user has one may take the user over or away.
fn outranks(state: &ApiState, caller: &Caller, name: &str) -> Result<(), ApiError> {
    let user = find(state, name)?;
    let foreign = user
        .roles
        .iter()
        .find(|(vault, _)| caller.role_in(vault) != Some(Role::Owner));
    match foreign {
        None => Ok(()),
        Some((vault, _)) => Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "RoleMissing",
            format!(
                "{name} has a role in the vault {vault}, of which {} is not Owner",
                caller.user
            ),
            "users belong to the whole site",
            "take away the role in this vault only, or ask an Owner of the other one",
        )),
    }
}

/// Removes a user with all sessions, tokens and roles.
#[utoipa::path(delete, path = "/api/v1/vaults/{vault}/users/{user}", tag = "Users",
    params(("If-Match" = Option<String>, Header, description = "ETag of the user: refused when it was changed since")),
    responses((status = 204)))]
pub async fn remove(
    State(state): State<ApiState>,
    Path((_vault, user)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let revision = if_match(&headers)?;
    state
        .run(move |state| {
            outranks(state, &caller, &user)?;
            Ok(state.vault.remove_user(&user, revision)?)
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives a user a new one-time password and ends all sessions of the user.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/users/{user}/reset-password", tag = "Users",
    params(("If-Match" = Option<String>, Header, description = "ETag of the user: refused when it was changed since")),
    responses((status = 200, body = OneTimePassword)))]
pub async fn reset_password(
    State(state): State<ApiState>,
    Path((_vault, user)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Result<Json<OneTimePassword>, ApiError> {
    let revision = if_match(&headers)?;
    let answer = state
        .run_password(move |state| {
            outranks(state, &caller, &user)?;
            let one_time_password = state.vault.reset_password(&user, revision)?;
            Ok(OneTimePassword {
                user,
                one_time_password,
            })
        })
        .await?;
    Ok(Json(answer))
}

#[derive(Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AssignRequest {
    /// Reader, Operator, Contributor, Owner
    pub role: String,
}

/// Gives a user a role in this vault, in place of the one before.
#[utoipa::path(put, path = "/api/v1/vaults/{vault}/role-assignments/{user}", tag = "Users", request_body = AssignRequest,
    params(("If-Match" = Option<String>, Header, description = "ETag of the user: refused when it was changed since")),
    responses((status = 204)))]
pub async fn assign(
    State(state): State<ApiState>,
    Path((vault, user)): Path<(String, String)>,
    headers: HeaderMap,
    Json(request): Json<AssignRequest>,
) -> Result<StatusCode, ApiError> {
    let revision = if_match(&headers)?;
    state
        .run(move |state| {
            let role: Role = request.role.parse()?;
            Ok(state.vault.assign_role(&user, &vault, Some(role), revision)?)
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a user's role in this vault away.
#[utoipa::path(delete, path = "/api/v1/vaults/{vault}/role-assignments/{user}", tag = "Users",
    params(("If-Match" = Option<String>, Header, description = "ETag of the user: refused when it was changed since")),
    responses((status = 204)))]
pub async fn unassign(
    State(state): State<ApiState>,
    Path((vault, user)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let revision = if_match(&headers)?;
    state
        .run(move |state| Ok(state.vault.assign_role(&user, &vault, None, revision)?))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ApiToken)]
pub struct TokenView {
    pub id: i64,
    pub name: String,
    pub user: String,
    pub role: String,
    pub created_at: Time,
    pub expires_at: Time,
    pub last_used_at: Option<Time>,
    pub revoked: bool,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct TokenQuery {
    /// Only of this user.
    pub user: Option<String>,
    /// Only those that are revoked, or only those that are not.
    pub revoked: Option<bool>,
    /// id (default), name, user, role, createdAt, expiresAt, lastUsedAt; with a `-` before it the other way round.
    pub sort: Option<String>,
    /// Most items to answer.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub limit: Option<u32>,
    /// `nextCursor` of the part before.
    pub cursor: Option<String>,
}

const TOKEN_SORTS: [&str; 7] = [
    "id",
    "name",
    "user",
    "role",
    "createdAt",
    "expiresAt",
    "lastUsedAt",
];

/// API tokens of this vault.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/tokens", tag = "Users", params(TokenQuery),
    responses((status = 200, body = Page<TokenView>)))]
pub async fn tokens(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
    Query(query): Query<TokenQuery>,
) -> Result<Json<Page<TokenView>>, ApiError> {
    let sort = Sort::of(query.sort.as_deref(), &TOKEN_SORTS)?;
    let paging = Paging {
        limit: query.limit,
        cursor: query.cursor,
    };
    let rows = state.run(move |state| Ok(state.vault.tokens(&vault)?)).await?;
    let views = rows
        .into_iter()
        .filter(|row| is(&row.user, query.user.as_deref()))
        .filter(|row| query.revoked.is_none_or(|wanted| row.revoked == wanted))
        .map(|row| TokenView {
            id: row.id,
            name: row.name,
            user: row.user,
            role: row.role.word().to_owned(),
            created_at: Time(row.created_unix_nanos),
            expires_at: Time(row.expires_unix_nanos),
            last_used_at: row.last_used_unix_nanos.map(Time),
            revoked: row.revoked,
        })
        .collect();
    Ok(Json(sort.page(views, &paging, |token| token.id.to_string())?))
}

#[derive(Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateTokenRequest {
    pub name: String,
    /// At most the caller's own.
    pub role: String,
    #[schema(minimum = 1, maximum = 366)]
    pub expires_in_days: u32,
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreatedToken {
    pub id: i64,
    /// Shown this once.
    pub token: String,
}

/// Makes a token of the caller for programs.
#[utoipa::path(post, path = "/api/v1/vaults/{vault}/tokens", tag = "Users", request_body = CreateTokenRequest,
    responses((status = 201, body = CreatedToken)))]
pub async fn create_token(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<CreateTokenRequest>,
) -> Result<(StatusCode, Json<CreatedToken>), ApiError> {
    let logged_in = caller
        .principal
        .as_ref()
        .is_some_and(|principal| principal.token.is_none());
    if !logged_in {
        // A token that could make tokens would never expire.
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "NeedsLogin",
            "a token is made by a user who has logged in",
            "the call came with an API token, or over the unix socket without a login",
            "log in: lifeboat login",
        ));
    }
    let created = state
        .run(move |state| {
            let role: Role = request.role.parse()?;
            let valid = Duration::from_secs(u64::from(request.expires_in_days) * 86_400);
            let (id, token) = state
                .vault
                .create_token(&caller.user, &vault, &request.name, role, valid)?;
            Ok(CreatedToken { id, token })
        })
        .await?;
    Ok((StatusCode::CREATED, Json(created)))
}

/// Revokes a token.
#[utoipa::path(delete, path = "/api/v1/vaults/{vault}/tokens/{token}", tag = "Users", responses((status = 204)))]
pub async fn revoke_token(
    State(state): State<ApiState>,
    Path((vault, token)): Path<(String, i64)>,
) -> Result<StatusCode, ApiError> {
    state
        .run(move |state| Ok(state.vault.revoke_token(&vault, token)?))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
