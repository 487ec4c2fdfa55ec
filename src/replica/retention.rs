//! Which recovery points go: thinning by age, pure.
use super::format::manifest::{Pin, PointEntry};
use crate::block::{Consistency, PointId};
use std::collections::HashSet;

const MINUTE: i64 = 60 * 1_000_000_000;
const HOUR: i64 = 60 * MINUTE;

/// How long points are kept: every one for `all`, one per `step` until `steps_until`, one per hour until `keep`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    pub all_nanos: i64,
    pub step_nanos: i64,
    pub steps_until_nanos: i64,
    pub keep_nanos: i64,
}

impl Retention {
    /// The default thinning of the reference model, kept for this many hours.
    pub fn hours(hours: u32) -> Self {
        Self {
            all_nanos: HOUR,
            step_nanos: 5 * MINUTE,
            steps_until_nanos: 24 * HOUR,
            keep_nanos: i64::from(hours) * HOUR,
        }
    }
}

/// The points to remove. Ages count from the newest point, not from now: where no new point is made, the old
/// ones are kept past their retention. Pinned points and the last good one always stay.
pub(super) fn plan(points: &[PointEntry], pins: &[Pin], now: i64, retention: &Retention) -> Vec<PointId> {
    let Some(newest) = points.iter().map(|point| point.instant_unix_nanos).max() else {
        return Vec::new();
    };
    let reference = newest.min(now);
    let last_good = points
        .iter()
        .rev()
        .find(|point| point.consistency > Consistency::Fuzzy)
        .map(|point| point.id);
    let last = points.last().map(|point| point.id);
    let mut taken: HashSet<(i64, i64)> = HashSet::new();
    let mut gone = Vec::new();
    // The better label first, then what other machines share (they keep theirs by the same rule), then the older point, so that
    // a bucket keeps the same point as it ages.
    let mut order: Vec<&PointEntry> = points.iter().collect();
    order.sort_by_key(|point| {
        (
            std::cmp::Reverse((point.consistency, point.shared.is_some())),
            point.instant_unix_nanos,
        )
    });
    for point in order {
        let age = reference.saturating_sub(point.instant_unix_nanos);
        let step = if age <= retention.all_nanos {
            None
        } else if age <= retention.steps_until_nanos {
            Some(retention.step_nanos)
        } else {
            Some(HOUR)
        };
        let fresh = step.is_none_or(|step| taken.insert((step, point.instant_unix_nanos.div_euclid(step))));
        let wanted = fresh && age <= retention.keep_nanos && point.consistency > Consistency::Fuzzy;
        let held = Some(point.id) == last_good
            || Some(point.id) == last
            || pins.iter().any(|pin| pin.point == point.id);
        if !wanted && !held {
            gone.push(point.id);
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(minutes: i64, consistency: Consistency) -> PointEntry {
        PointEntry {
            id: PointId::new(),
            instant_unix_nanos: minutes * MINUTE,
            consistency,
            note: String::new(),
            freeze_micros: 0,
            stored_bytes: 0,
            positions: Default::default(),
            shared: None,
        }
    }

    #[test]
    fn thins_by_age_and_never_takes_the_last_good_or_a_pinned_point() {
        let mut points: Vec<_> = (0..30 * 60)
            .map(|minute| point(minute, Consistency::CrashConsistent))
            .collect();
        let pin = Pin {
            point: points[7].id,
            owner: "a test failover".into(),
        };
        let gone = plan(
            &points,
            std::slice::from_ref(&pin),
            i64::MAX,
            &Retention::hours(26),
        );
        points.retain(|point| !gone.contains(&point.id));
        let newest = 30 * 60 - 1;
        let age = |point: &PointEntry| newest - point.instant_unix_nanos / MINUTE;
        assert_eq!(points.iter().filter(|point| age(point) <= 60).count(), 61);
        let stepped = points
            .iter()
            .filter(|point| age(point) > 60 && age(point) <= 24 * 60)
            .count();
        assert!(
            (276..=278).contains(&stepped),
            "{stepped} points between 1 h and 24 h"
        );
        let hourly = points
            .iter()
            .filter(|point| age(point) > 24 * 60 && point.id != pin.point)
            .count();
        assert!((2..=3).contains(&hourly), "{hourly} points beyond 24 h");
        assert!(points.iter().any(|point| point.id == pin.point));
        // Thinning again takes nothing more.
        assert_eq!(plan(&points, &[pin], i64::MAX, &Retention::hours(26)), []);
    }

    #[test]
    fn fuzzy_points_stay_only_as_the_latest() {
        let points = [
            point(1, Consistency::CrashConsistent),
            point(2, Consistency::Fuzzy),
            point(3, Consistency::Fuzzy),
        ];
        assert_eq!(
            plan(&points, &[], i64::MAX, &Retention::hours(24)),
            [points[1].id]
        );
        // Old, but the only good one.
        let points = [
            point(1, Consistency::CrashConsistent),
            point(100_000, Consistency::Fuzzy),
        ];
        assert_eq!(plan(&points, &[], i64::MAX, &Retention::hours(24)), []);
    }
}
