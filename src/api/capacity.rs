//! The capacity planner: what the history of churn asks of link and store, and what if it were otherwise.
use super::ApiState;
use super::model::{Named, Time};
use super::problem::ApiError;
use super::site::SiteError;
use crate::vault::{ChurnSlot, HOUR_SECONDS, ItemRow, SLOT_SECONDS, Series, growth_rate, seconds_until_full};
use axum::Json;
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};

const DAY_SECONDS: i64 = 86_400;
/// Peaks are those of the last week, sums of stored bytes those of two.
const FINE_SECONDS: i64 = 7 * DAY_SECONDS;
const COARSE_SECONDS: i64 = 14 * DAY_SECONDS;
const MOST: f64 = 0.9;
const ALL: f64 = 1.0;

#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct CapacityQuery {
    /// RPO to keep. Default: the lowest threshold among the policies in use.
    #[param(minimum = 1, maximum = 86400)]
    pub rpo_seconds: Option<u32>,
    /// What if the link carried this much.
    #[param(minimum = 1)]
    pub bandwidth_bytes_per_second: Option<u64>,
    /// What if points were kept this long. Default: what each machine's policy says.
    #[param(minimum = 1, maximum = 8760)]
    pub retention_hours: Option<u32>,
    /// What if this much more (or less) were stored and changed.
    #[param(minimum = -90, maximum = 1000)]
    pub growth_percent: Option<i32>,
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineChurn {
    pub machine: Named,
    /// Changed on the machine's disks per day, as a mean over what is known.
    pub changed_bytes_per_day: u64,
    /// On the wire, as a mean.
    pub mean_bytes_per_second: u64,
    /// On the wire, in the busiest 5 minutes.
    pub peak_bytes_per_second: u64,
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BandwidthNeed {
    pub rpo_seconds: u32,
    /// Bytes per second on the wire to keep the RPO in 90 % of the time.
    pub for_90_percent: u64,
    /// And all the time.
    pub for_100_percent: u64,
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BandwidthWhatIf {
    pub bytes_per_second: u64,
    /// RPO that is kept in 90 % of the time; null: the link does not carry the mean, so the backlog grows without end.
    pub rpo_seconds_90_percent: Option<u64>,
    /// RPO that is kept all the time.
    pub rpo_seconds_100_percent: Option<u64>,
    pub keeps_rpo: bool,
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetentionNeed {
    /// Null: each machine by its own policy.
    pub hours: Option<u32>,
    /// The full copies beneath the points.
    pub base_bytes: u64,
    /// What comes in during the retention, at its busiest. Thinning and folding make it less.
    pub history_bytes: u64,
    pub needed_bytes: u64,
    /// False: less time is known than the retention, so the mean was carried on.
    pub measured: bool,
    /// Whether it fits into the file system beside what else is there.
    pub fits: bool,
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoreOutlook {
    pub capacity_bytes: u64,
    pub free_bytes: u64,
    pub stored_bytes: u64,
    /// Trend of the last week; null: less than 6 hours are known.
    pub growth_bytes_per_day: Option<i64>,
    /// By that trend; null: it does not fill up, or no trend is known.
    pub full_in_seconds: Option<u64>,
    pub full_at: Option<Time>,
}

/// From hour to hour of the day, in the server's time zone.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ThrottleWindow {
    pub from_hour: u8,
    /// 24: midnight.
    pub to_hour: u8,
    pub bytes_per_second: u64,
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Capacity {
    /// Time that the history covers, in steps of 5 minutes.
    pub history_seconds: u64,
    /// Bytes on the wire per second, all machines together.
    pub mean_bytes_per_second: u64,
    pub peak_bytes_per_second: u64,
    /// Changed bytes per byte on the wire.
    pub compression: Option<f64>,
    pub bandwidth: BandwidthNeed,
    pub what_if_bandwidth: Option<BandwidthWhatIf>,
    pub retention: RetentionNeed,
    pub store: StoreOutlook,
    /// The lowest limits per hour of the day that would have kept the RPO all the time; null: less than a day is known, or none does.
    pub throttle_schedule: Option<Vec<ThrottleWindow>>,
    pub time_zone: String,
    /// The most by its mean first.
    pub machines: Vec<MachineChurn>,
    /// What to know when reading these figures.
    pub notes: Vec<String>,
}

fn whole(value: f64) -> u64 {
    // Saturates; NaN is 0.
    value.ceil() as u64
}

fn windows(limits: &[u64; 24]) -> Vec<ThrottleWindow> {
    let mut windows: Vec<ThrottleWindow> = Vec::new();
    for (hour, limit) in (0u8..).zip(limits) {
        match windows.last_mut() {
            Some(window) if window.bytes_per_second == *limit => window.to_hour = hour + 1,
            _ => windows.push(ThrottleWindow {
                from_hour: hour,
                to_hour: hour + 1,
                bytes_per_second: *limit,
            }),
        }
    }
    windows
}

/// What bandwidth, disk space and schedule the site needs, by its history.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/capacity", tag = "Site", params(CapacityQuery),
    responses((status = 200, body = Capacity)))]
pub async fn capacity(
    State(state): State<ApiState>,
    Path(vault): Path<String>,
    Query(query): Query<CapacityQuery>,
) -> Result<Json<Capacity>, ApiError> {
    let ranges = [
        (
            "rpoSeconds is 1 to 86400",
            query.rpo_seconds.is_none_or(|v| (1..=86_400).contains(&v)),
        ),
        (
            "bandwidthBytesPerSecond is at least 1",
            query.bandwidth_bytes_per_second != Some(0),
        ),
        (
            "retentionHours is 1 to 8760",
            query.retention_hours.is_none_or(|v| (1..=8760).contains(&v)),
        ),
        (
            "growthPercent is -90 to 1000",
            query.growth_percent.is_none_or(|v| (-90..=1000).contains(&v)),
        ),
    ];
    if let Some((rule, _)) = ranges.iter().find(|(_, fine)| !fine) {
        return Err(ApiError::invalid(*rule));
    }
    let plan = state.run(move |state| plan(state, &vault, &query)).await?;
    Ok(Json(plan))
}

fn plan(state: &ApiState, vault: &str, query: &CapacityQuery) -> Result<Capacity, ApiError> {
    let now_unix = crate::rt::now_unix_nanos() / 1_000_000_000;
    let rows: Vec<ItemRow> = state
        .vault
        .all_items()?
        .into_iter()
        .filter(|row| row.vault == vault)
        .collect();
    let growth = 1.0 + f64::from(query.growth_percent.unwrap_or(0)) / 100.0;
    let fine = state
        .vault
        .churn(vault, SLOT_SECONDS, now_unix - FINE_SECONDS, now_unix)?;
    let wire = Series::sum(fine.values(), SLOT_SECONDS, now_unix, |slot| slot.stored_bytes).scaled(growth);
    let changed =
        Series::sum(fine.values(), SLOT_SECONDS, now_unix, |slot| slot.changed_bytes).scaled(growth);
    let rpo = query.rpo_seconds.unwrap_or_else(|| {
        let thresholds = rows.iter().map(|row| row.policy.rpo_threshold_seconds);
        thresholds.min().unwrap_or(900)
    });
    // A change waits for its point before it waits for the link.
    let interval = rows
        .iter()
        .map(|row| row.policy.crash_consistent_seconds)
        .max()
        .unwrap_or(0);
    let lag = f64::from(rpo.saturating_sub(interval));
    let mut notes = Vec::new();
    if rows.is_empty() {
        notes.push("no machine is replicated yet: there is nothing to reckon from".to_owned());
    } else if wire.seconds() < DAY_SECONDS {
        notes.push(format!(
            "only {} of history are known: wait for a full day, better a week",
            crate::vault::age(wire.seconds().saturating_mul(1_000_000_000))
        ));
    }
    if rpo <= interval && interval > 0 {
        notes.push(format!(
            "an RPO of {rpo} s cannot be kept: a policy makes points every {interval} s only"
        ));
    }
    let what_if_bandwidth = query.bandwidth_bytes_per_second.map(|bandwidth| {
        let rpo_at = |share| {
            wire.lag_with(bandwidth as f64, share)
                .map(|lag| whole(lag) + u64::from(interval))
        };
        let all = rpo_at(ALL);
        BandwidthWhatIf {
            bytes_per_second: bandwidth,
            rpo_seconds_90_percent: rpo_at(MOST),
            rpo_seconds_100_percent: all,
            keeps_rpo: all.is_some_and(|all| all <= u64::from(rpo)),
        }
    });
    let store = store_outlook(state, now_unix, growth)?;
    let retention = retention(state, vault, &rows, query, growth, now_unix, &store)?;
    let zone = jiff::tz::TimeZone::system();
    let hour_of = |unix: i64| {
        let instant = jiff::Timestamp::from_second(unix).unwrap_or_default();
        usize::try_from(zone.to_datetime(instant).hour()).unwrap_or(0)
    };
    let throttle_schedule = wire
        .throttle_schedule(lag, hour_of)
        .map(|limits| windows(&limits));
    let mut machines: Vec<MachineChurn> = rows
        .iter()
        .filter_map(|row| Some(machine_churn(row, fine.get(&row.item.machine)?, now_unix, growth)))
        .collect();
    machines.sort_by_key(|machine| std::cmp::Reverse(machine.mean_bytes_per_second));
    Ok(Capacity {
        history_seconds: wire.seconds().unsigned_abs(),
        mean_bytes_per_second: whole(wire.mean_rate()),
        peak_bytes_per_second: whole(wire.peak_rate()),
        compression: (wire.total() > 0.0).then(|| (changed.total() / wire.total() * 100.0).round() / 100.0),
        bandwidth: BandwidthNeed {
            rpo_seconds: rpo,
            for_90_percent: whole(wire.bandwidth_for(lag, MOST)),
            for_100_percent: whole(wire.bandwidth_for(lag, ALL)),
        },
        what_if_bandwidth,
        retention,
        store,
        throttle_schedule,
        time_zone: zone.iana_name().unwrap_or("UTC").to_owned(),
        machines,
        notes,
    })
}

fn machine_churn(row: &ItemRow, slots: &Vec<ChurnSlot>, now_unix: i64, growth: f64) -> MachineChurn {
    let wire = Series::sum([slots], SLOT_SECONDS, now_unix, |slot| slot.stored_bytes).scaled(growth);
    let changed = Series::sum([slots], SLOT_SECONDS, now_unix, |slot| slot.changed_bytes).scaled(growth);
    MachineChurn {
        machine: Named {
            id: row.item.machine.to_string(),
            name: row.item.name.clone(),
        },
        changed_bytes_per_day: whole(changed.mean_rate() * DAY_SECONDS as f64),
        mean_bytes_per_second: whole(wire.mean_rate()),
        peak_bytes_per_second: whole(wire.peak_rate()),
    }
}

fn store_outlook(state: &ApiState, now_unix: i64, growth: f64) -> Result<StoreOutlook, ApiError> {
    let room = rustix::fs::statvfs(state.store.root()).map_err(|error| SiteError {
        what: "the store's file system cannot be read".to_owned(),
        source: Some(Box::new(std::io::Error::from(error))),
    })?;
    let free_bytes = room.f_bavail.saturating_mul(room.f_frsize);
    let history = state.vault.store_history(now_unix - FINE_SECONDS)?;
    let rate = growth_rate(&history).map(|rate| rate * growth);
    let full = rate.and_then(|rate| seconds_until_full(free_bytes, rate));
    Ok(StoreOutlook {
        capacity_bytes: room.f_blocks.saturating_mul(room.f_frsize),
        free_bytes,
        stored_bytes: state
            .store
            .machines()
            .iter()
            .map(|machine| machine.stored_bytes)
            .sum(),
        growth_bytes_per_day: rate.map(|rate| (rate * DAY_SECONDS as f64).round() as i64),
        full_in_seconds: full.map(|seconds| seconds as u64),
        full_at: full.map(|seconds| {
            Time(
                now_unix
                    .saturating_add(seconds as i64)
                    .saturating_mul(1_000_000_000),
            )
        }),
    })
}

fn retention(
    state: &ApiState,
    vault: &str,
    rows: &[ItemRow],
    query: &CapacityQuery,
    growth: f64,
    now_unix: i64,
    store: &StoreOutlook,
) -> Result<RetentionNeed, ApiError> {
    let hourly = state
        .vault
        .churn(vault, HOUR_SECONDS, now_unix - COARSE_SECONDS, now_unix)?;
    let stored: std::collections::HashMap<_, _> = state
        .store
        .machines()
        .into_iter()
        .map(|machine| (machine.id, machine.stored_bytes))
        .collect();
    let (mut base, mut history, mut measured, mut now_stored) = (0.0, 0.0, true, 0u64);
    for row in rows {
        let machine = row.item.machine;
        let none = Vec::new();
        let slots = hourly.get(&machine).unwrap_or(&none);
        // What is there now is the full copy and what came in within the retention that holds now.
        let held = i64::from(row.policy.retention_hours) * HOUR_SECONDS;
        let recent: u64 = slots
            .iter()
            .filter(|slot| slot.start_unix >= now_unix - held)
            .map(|slot| slot.stored_bytes)
            .sum();
        let bytes = stored.get(&machine).copied().unwrap_or(0);
        now_stored += bytes;
        base += bytes.saturating_sub(recent) as f64;
        let hours = query.retention_hours.unwrap_or(row.policy.retention_hours);
        let series = Series::sum([slots], HOUR_SECONDS, now_unix, |slot| slot.stored_bytes);
        let (most, is_measured) = series.most_within(i64::from(hours) * HOUR_SECONDS);
        history += most;
        measured &= is_measured;
    }
    let needed = (base + history) * growth;
    Ok(RetentionNeed {
        hours: query.retention_hours,
        base_bytes: whole(base * growth),
        history_bytes: whole(history * growth),
        needed_bytes: whole(needed),
        measured,
        fits: needed <= store.free_bytes.saturating_add(now_stored) as f64,
    })
}
