//! The charts of a replicated item.
use super::ApiState;
use super::items;
use super::model::Time;
use super::problem::ApiError;
use crate::vault::{SeriesRange, SeriesSlot};
use axum::Json;
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};

const SECOND_NANOS: i64 = 1_000_000_000;

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub enum RangeView {
    #[serde(rename = "1h")]
    Hour,
    #[default]
    #[serde(rename = "24h")]
    Day,
    #[serde(rename = "7d")]
    Week,
    #[serde(rename = "30d")]
    Month,
}

impl From<RangeView> for SeriesRange {
    fn from(range: RangeView) -> Self {
        match range {
            RangeView::Hour => Self::Hour,
            RangeView::Day => Self::Day,
            RangeView::Week => Self::Week,
            RangeView::Month => Self::Month,
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct SeriesQuery {
    /// Time up to now. Default: 24h.
    #[param(inline)]
    pub range: Option<RangeView>,
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SeriesSlotView {
    pub start: Time,
    /// The highest RPO.
    pub rpo_seconds: Option<f64>,
    pub mean_rpo_seconds: Option<f64>,
    /// Throughput: what left the machine on the wire, per second, also in copies and comparisons.
    pub shipped_bytes_per_second: Option<f64>,
    /// Churn: what changed on its disks, per second.
    pub changed_bytes_per_second: Option<f64>,
    /// Recovery points.
    pub points: Option<u64>,
    /// The longest freeze; null when there was no point.
    pub freeze_ms: Option<f64>,
}

/// RPO, throughput, churn and freeze over a time, slot by slot without gaps. A figure is null where nothing is known of
/// the slot: the server or the agent was away, or the machine was not replicated.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Series {
    #[schema(inline)]
    pub range: RangeView,
    pub slot_seconds: i64,
    pub rpo_threshold_seconds: u32,
    /// The oldest first; the last one is not over yet.
    pub slots: Vec<SeriesSlotView>,
}

/// RPO, throughput, churn and freeze of an item over the last hour, day, week or month.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/replicated-items/{item}/series", tag = "Replicated items",
    params(SeriesQuery), responses((status = 200, body = Series)))]
pub async fn series(
    State(state): State<ApiState>,
    Path((vault, item)): Path<(String, String)>,
    Query(query): Query<SeriesQuery>,
) -> Result<Json<Series>, ApiError> {
    let range = query.range.unwrap_or_default();
    let series = state
        .run(move |state| {
            let row = items::find(state, &vault, &item)?;
            let now_unix = crate::rt::now_unix_nanos() / SECOND_NANOS;
            let slot_seconds = SeriesRange::from(range).slot_seconds();
            let slots = state.vault.series(row.item.machine, range.into(), now_unix)?;
            Ok(Series {
                range,
                slot_seconds,
                rpo_threshold_seconds: row.policy.rpo_threshold_seconds,
                slots: slots
                    .into_iter()
                    .map(|slot| slot_view(slot, slot_seconds, now_unix))
                    .collect(),
            })
        })
        .await?;
    Ok(Json(series))
}

fn slot_view(slot: SeriesSlot, slot_seconds: i64, now_unix: i64) -> SeriesSlotView {
    // Of the slot that is not over, so much has gone by.
    let seconds = (now_unix + 1 - slot.start_unix).clamp(1, slot_seconds) as f64;
    let rate = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64 / seconds);
    SeriesSlotView {
        start: Time(slot.start_unix.saturating_mul(SECOND_NANOS)),
        rpo_seconds: slot.rpo_seconds,
        mean_rpo_seconds: slot.mean_rpo_seconds,
        shipped_bytes_per_second: rate(slot.shipped_bytes),
        changed_bytes_per_second: rate(slot.changed_bytes),
        points: slot.points,
        freeze_ms: slot.freeze_ms,
    }
}
