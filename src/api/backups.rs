//! Backups of the vault's database in the store: what there is, and one more now. Going back to one is done on the server,
//! with the server stopped: `lifeboat vault restore`.
use super::ApiState;
use super::model::{Page, Time};
use super::problem::ApiError;
use crate::vault::Backup;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Backup)]
pub struct BackupView {
    /// As `lifeboat vault restore` takes it.
    pub name: String,
    pub made_at: Time,
    /// scheduled, before-migration, by-hand
    pub reason: String,
    pub bytes: u64,
}

impl From<Backup> for BackupView {
    fn from(backup: Backup) -> Self {
        Self {
            name: backup.name,
            made_at: Time(backup.made_unix_nanos),
            reason: backup.reason,
            bytes: backup.bytes,
        }
    }
}

/// Backups of the vault's database, sealed with the vault key, in the store; the newest first.
#[utoipa::path(get, path = "/api/v1/backups", tag = "Site", responses((status = 200, body = Page<BackupView>)))]
pub async fn list(State(state): State<ApiState>) -> Result<Json<Page<BackupView>>, ApiError> {
    let backups = state.run(|state| Ok(state.site.backups()?)).await?;
    Ok(Json(Page {
        items: backups.into_iter().map(Into::into).collect(),
        next_cursor: None,
    }))
}

/// Makes a backup now, beside those that the server makes by itself.
#[utoipa::path(post, path = "/api/v1/backups", tag = "Site", responses((status = 201, body = BackupView)))]
pub async fn make(State(state): State<ApiState>) -> Result<(StatusCode, Json<BackupView>), ApiError> {
    let made = state.run(|state| Ok(state.site.back_up()?)).await?;
    Ok((StatusCode::CREATED, Json(made.into())))
}
