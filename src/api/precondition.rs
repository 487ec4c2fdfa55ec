//! `If-Match` on what is ordered of a replicated item: refused when the item was changed since its caller looked.
//!
//! Looked at before the order, not in its transaction: two orders at once are kept apart by what the item's state allows.
//! What overwrites settings looks again in its own transaction.
use super::ApiState;
use super::items;
use super::model::if_match;
use super::problem::ApiError;
use crate::vault::VaultError;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{MatchedPath, RawPathParams, Request, State};
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::Response;

const ITEM: &str = "/api/v1/vaults/{vault}/replicated-items/{item}/";

/// Whether this is an order to an item.
pub(super) fn is_order(method: &Method, matched: &str) -> bool {
    *method == Method::POST && matched.starts_with(ITEM)
}

pub async fn check(
    State(state): State<ApiState>,
    matched: Option<MatchedPath>,
    params: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let is_order = matched.is_some_and(|matched| is_order(request.method(), matched.as_str()));
    if let (true, Ok(params), true) = (is_order, params, request.headers().contains_key(header::IF_MATCH))
        && let Some(revision) = if_match(request.headers())?
    {
        let param = |wanted: &str| {
            let found = params.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| value.to_owned()).unwrap_or_default()
        };
        let (vault, item) = (param("vault"), param("item"));
        state
            .run(move |state| {
                let item = items::find(state, &vault, &item)?.item;
                if item.revision != revision {
                    let what = "replicated item";
                    let name = item.name;
                    return Err(VaultError::Conflict { what, name }.into());
                }
                Ok(())
            })
            .await?;
    }
    Ok(next.run(request).await)
}
