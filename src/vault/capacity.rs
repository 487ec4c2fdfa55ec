//! The capacity planner: pure arithmetic over the history of churn.
//!
//! The link is a pipe of some bandwidth in front of a queue: in each slot of time bytes come in evenly, and the link takes out
//! what it can. How long the last byte of a slot has to wait is the lag; an RPO is met in a slot when the lag is not above it.
use super::{ChurnSlot, StoreSample};

const HOURS: usize = 24;
/// Even an idle hour must carry heartbeats and small changes.
const LIMIT_MIN: f64 = 131_072.0;
/// Limits are rounded up to this: a person types them.
const LIMIT_STEP: f64 = 131_072.0;
/// A trend of fewer hours is noise.
const TREND_SECONDS_MIN: i64 = 6 * 3600;
const TREND_SAMPLES_MIN: usize = 4;

/// Bytes per slot, without gaps.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub start_unix: i64,
    pub slot_seconds: i64,
    pub bytes: Vec<f64>,
}

impl Series {
    /// Adds machines up slot by slot, from the first slot that is known to the last that is over; what is missing is 0.
    pub fn sum<'a>(
        machines: impl IntoIterator<Item = &'a Vec<ChurnSlot>>,
        slot_seconds: i64,
        now_unix: i64,
        bytes: impl Fn(&ChurnSlot) -> u64,
    ) -> Self {
        let slots: Vec<&ChurnSlot> = machines.into_iter().flatten().collect();
        let end = now_unix - now_unix.rem_euclid(slot_seconds);
        let start = slots.iter().map(|slot| slot.start_unix).min().unwrap_or(end);
        let len = usize::try_from((end - start) / slot_seconds).unwrap_or(0);
        let mut series = vec![0.0; len];
        for slot in slots {
            let place = usize::try_from((slot.start_unix - start) / slot_seconds).unwrap_or(usize::MAX);
            if let Some(sum) = series.get_mut(place) {
                *sum += bytes(slot) as f64;
            }
        }
        Self {
            start_unix: start,
            slot_seconds,
            bytes: series,
        }
    }

    pub fn scaled(mut self, factor: f64) -> Self {
        for bytes in &mut self.bytes {
            *bytes *= factor;
        }
        self
    }

    pub fn seconds(&self) -> i64 {
        self.slot_seconds * i64::try_from(self.bytes.len()).unwrap_or(i64::MAX / self.slot_seconds)
    }

    pub fn total(&self) -> f64 {
        self.bytes.iter().sum()
    }

    /// Bytes per second over the whole time; 0 when nothing is known.
    pub fn mean_rate(&self) -> f64 {
        match self.seconds() {
            0 => 0.0,
            seconds => self.total() / seconds as f64,
        }
    }

    /// Bytes per second of the busiest slot.
    pub fn peak_rate(&self) -> f64 {
        self.bytes.iter().copied().fold(0.0, f64::max) / self.slot_seconds as f64
    }

    /// Lag at the end of each slot, in seconds, with the same rate all the time.
    fn even_lags(&self, rate: f64) -> Vec<f64> {
        let mut backlog = 0.0f64;
        self.bytes
            .iter()
            .map(|bytes| {
                backlog = (backlog + bytes - rate * self.slot_seconds as f64).max(0.0);
                if backlog > 0.0 { backlog / rate } else { 0.0 }
            })
            .collect()
    }

    /// Lag at the end of each slot, in seconds, when slot `i` can ship `rate(i)` bytes per second. Behind the last slot its
    /// rate goes on. A lag above `most` is not reckoned to its end: it is infinite.
    fn lags(&self, most: f64, rate: impl Fn(usize) -> f64) -> Vec<f64> {
        let (slot, count) = (self.slot_seconds as f64, self.bytes.len());
        let mut backlog = 0.0f64;
        let mut lags = Vec::with_capacity(count);
        for (place, bytes) in self.bytes.iter().enumerate() {
            backlog = (backlog + bytes - rate(place) * slot).max(0.0);
            let (mut rest, mut wait, mut next) = (backlog, 0.0, place + 1);
            while rest > 0.0 {
                let speed = rate(next.min(count - 1));
                if next >= count || rest <= speed * slot {
                    wait += if speed > 0.0 { rest / speed } else { f64::INFINITY };
                    break;
                }
                rest -= speed * slot;
                wait += slot;
                next += 1;
                if wait > most {
                    wait = f64::INFINITY;
                    break;
                }
            }
            lags.push(wait);
        }
        lags
    }

    /// Least bandwidth, bytes per second, with which the lag is at most `lag_seconds` in at least `share` (0 to 1) of the time.
    pub fn bandwidth_for(&self, lag_seconds: f64, share: f64) -> f64 {
        let meets = |rate: f64| {
            let lags = self.even_lags(rate);
            let met = lags
                .iter()
                .filter(|lag| **lag <= lag_seconds * (1.0 + 1e-9))
                .count();
            met as f64 >= share * lags.len() as f64 - 1e-9
        };
        if meets(0.0) {
            return 0.0;
        }
        // With the rate of the busiest slot nothing ever waits.
        let (mut low, mut high) = (0.0, self.peak_rate());
        for _ in 0..60 {
            let middle = (low + high) / 2.0;
            if meets(middle) {
                high = middle;
            } else {
                low = middle;
            }
        }
        high
    }

    /// The lag that is not exceeded in `share` of the time with a bandwidth. None: the link cannot carry the mean, so the backlog
    /// grows without end.
    pub fn lag_with(&self, bandwidth: f64, share: f64) -> Option<f64> {
        if self.total() == 0.0 {
            return Some(0.0);
        }
        if bandwidth < self.mean_rate() {
            return None;
        }
        let mut lags = self.even_lags(bandwidth);
        lags.sort_by(f64::total_cmp);
        let place = (share * lags.len() as f64 - 1e-9).ceil() as usize;
        lags.get(place.saturating_sub(1).min(lags.len().saturating_sub(1)))
            .copied()
    }

    /// Most bytes within any stretch of `seconds`. When less time is known, the mean is carried on; then `.1` is false.
    pub fn most_within(&self, seconds: i64) -> (f64, bool) {
        let width = usize::try_from(seconds / self.slot_seconds).unwrap_or(0).max(1);
        if self.bytes.len() < width {
            return (self.mean_rate() * seconds as f64, false);
        }
        let mut sum: f64 = self.bytes.iter().take(width).sum();
        let mut most = sum;
        for place in width..self.bytes.len() {
            sum += self.bytes[place] - self.bytes[place - width];
            most = most.max(sum);
        }
        (most, true)
    }

    /// A limit per hour of the day that keeps the lag all the time and is as low as the history allows. None: less than a day
    /// is known. `hour_of`: hour of the day of an instant, 0 to 23.
    pub fn throttle_schedule(
        &self,
        lag_seconds: f64,
        hour_of: impl Fn(i64) -> usize,
    ) -> Option<[u64; HOURS]> {
        if self.seconds() < 86_400 {
            return None;
        }
        let hours: Vec<usize> = (0..self.bytes.len())
            .map(|place| hour_of(self.start_unix + self.slot_seconds * place as i64).min(HOURS - 1))
            .collect();
        // What each hour of the day needs by itself, on its busiest day.
        let mut wanted = [0.0f64; HOURS];
        let mut place = 0;
        for run in hours.chunk_by(|a, b| a == b) {
            let alone = Self {
                start_unix: self.start_unix,
                slot_seconds: self.slot_seconds,
                bytes: self.bytes[place..place + run.len()].to_vec(),
            };
            place += run.len();
            wanted[run[0]] = wanted[run[0]].max(alone.bandwidth_for(lag_seconds, 1.0));
        }
        // What one hour leaves for the next may need somewhat more.
        let limits = |factor: f64| {
            wanted.map(|rate| ((rate * factor).max(LIMIT_MIN) / LIMIT_STEP).ceil() * LIMIT_STEP)
        };
        let meets = |factor: f64| {
            let limits = limits(factor);
            self.lags(lag_seconds, |place| limits[hours[place]])
                .iter()
                .all(|lag| *lag <= lag_seconds)
        };
        let mut high = 1.0;
        while !meets(high) {
            high *= 2.0;
            if high > 4096.0 {
                return None;
            }
        }
        let mut low = 0.0;
        for _ in 0..30 {
            let middle = (low + high) / 2.0;
            if meets(middle) {
                high = middle;
            } else {
                low = middle;
            }
        }
        Some(limits(high).map(|limit| limit as u64))
    }
}

/// Bytes per second by which the used room grows: the least-squares line through the samples. None: too little is known.
pub fn growth_rate(samples: &[StoreSample]) -> Option<f64> {
    let (first, last) = (samples.first()?, samples.last()?);
    if samples.len() < TREND_SAMPLES_MIN || last.at_unix - first.at_unix < TREND_SECONDS_MIN {
        return None;
    }
    let count = samples.len() as f64;
    let x = |sample: &StoreSample| (sample.at_unix - first.at_unix) as f64;
    let y = |sample: &StoreSample| sample.capacity_bytes.saturating_sub(sample.free_bytes) as f64;
    let mean_x = samples.iter().map(x).sum::<f64>() / count;
    let mean_y = samples.iter().map(y).sum::<f64>() / count;
    let covariance: f64 = samples
        .iter()
        .map(|sample| (x(sample) - mean_x) * (y(sample) - mean_y))
        .sum();
    let variance: f64 = samples.iter().map(|sample| (x(sample) - mean_x).powi(2)).sum();
    (variance > 0.0).then(|| covariance / variance)
}

/// None: it does not grow, or so slowly that it is not full within 10 years.
pub fn seconds_until_full(free_bytes: u64, growth_per_second: f64) -> Option<f64> {
    let seconds = free_bytes as f64 / growth_per_second;
    (growth_per_second > 0.0 && seconds < 10.0 * 365.0 * 86_400.0).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(slot_seconds: i64, bytes: &[f64]) -> Series {
        Series {
            start_unix: 0,
            slot_seconds,
            bytes: bytes.to_vec(),
        }
    }

    fn near(found: f64, expected: f64) {
        assert!(
            (found - expected).abs() <= expected.abs() * 1e-6 + 1e-6,
            "found {found}, expected {expected}"
        );
    }

    #[test]
    fn bandwidth_by_hand() {
        // 300 MB come in within 300 s, then nothing.
        let burst = series(300, &[300e6, 0.0, 0.0]);
        // Nothing may wait: 300 MB / 300 s.
        near(burst.bandwidth_for(0.0, 1.0), 1e6);
        // The last byte may come 300 s later: 300 MB within 600 s.
        near(burst.bandwidth_for(300.0, 1.0), 0.5e6);
        near(burst.bandwidth_for(600.0, 1.0), 300e6 / 900.0);
        // One slot of ten may be late, so all must be through at the end of the second.
        let mut ten = vec![0.0; 10];
        ten[0] = 300e6;
        near(series(300, &ten).bandwidth_for(0.0, 0.9), 0.5e6);
        // Two bursts one after the other queue up: 600 MB within 900 s.
        near(
            series(300, &[300e6, 300e6, 0.0, 0.0]).bandwidth_for(300.0, 1.0),
            600e6 / 900.0,
        );
        // An even flow needs its rate, whatever the share: half of it is late after 300 s for good.
        let even = series(300, &[30e6; 1000]);
        near(even.bandwidth_for(0.0, 1.0), 1e5);
        assert!(even.bandwidth_for(0.0, 0.9) > 0.99e5);
        assert_eq!(series(300, &[]).bandwidth_for(10.0, 1.0), 0.0);
        assert_eq!(series(300, &[0.0; 5]).bandwidth_for(10.0, 1.0), 0.0);
    }

    #[test]
    fn lag_by_hand() {
        let mut bytes = vec![0.0; 10];
        bytes[0] = 300e6;
        let burst = series(300, &bytes);
        // 150 MB are left at the end of the first slot and take 300 s; then none.
        near(burst.lag_with(0.5e6, 1.0).unwrap(), 300.0);
        near(burst.lag_with(0.5e6, 0.9).unwrap(), 0.0);
        near(burst.lag_with(1e6, 1.0).unwrap(), 0.0);
        // 0.1 MB/s is the mean: it is through at the very end, and its last byte waits for nine slots.
        near(burst.lag_with(0.1e6, 1.0).unwrap(), 2700.0);
        assert_eq!(burst.lag_with(0.09e6, 1.0), None, "the backlog never ends");
        assert_eq!(series(300, &[0.0; 3]).lag_with(0.0, 1.0), Some(0.0));
    }

    #[test]
    fn an_even_rate_and_one_per_slot_are_the_same() {
        let bytes: Vec<f64> = (0..300u64).map(|i| ((i * 7919) % 97) as f64 * 1e6).collect();
        let busy = series(300, &bytes);
        for rate in [0.1e6, 0.16e6, 0.2e6, 1e6] {
            let (even, each) = (busy.even_lags(rate), busy.lags(f64::INFINITY, |_| rate));
            for (even, each) in even.into_iter().zip(each) {
                near(each, even);
            }
        }
        // 2 MB left at the end of the first slot: 300 s at 4 kB/s, then the rest, 0.8 MB, at 8 kB/s: 100 s.
        let falling = series(300, &[3.2e6, 0.0, 0.0]);
        near(
            falling.lags(f64::INFINITY, |place| [4e3, 4e3, 8e3][place])[0],
            400.0,
        );
        assert_eq!(
            falling.lags(299.0, |place| [4e3, 4e3, 8e3][place])[0],
            f64::INFINITY
        );
    }

    #[test]
    fn bandwidth_and_lag_agree() {
        let bytes: Vec<f64> = (0..500u64).map(|i| ((i * 7919) % 97) as f64 * 1e6).collect();
        let busy = series(300, &bytes);
        for (lag, share) in [(30.0, 1.0), (300.0, 1.0), (900.0, 0.9), (60.0, 0.9)] {
            let need = busy.bandwidth_for(lag, share);
            if need >= busy.mean_rate() {
                assert!(
                    busy.lag_with(need * 1.000001, share).unwrap() <= lag * 1.001,
                    "{lag} {share}"
                );
            }
            if need * 0.99 >= busy.mean_rate() {
                assert!(
                    busy.lag_with(need * 0.99, share).unwrap() > lag,
                    "{lag} {share} needs less"
                );
            }
        }
    }

    #[test]
    fn the_busiest_stretch() {
        let hours = series(3600, &[1.0, 5.0, 2.0, 2.0, 4.0, 0.0]);
        assert_eq!(hours.most_within(3600), (5.0, true));
        assert_eq!(hours.most_within(2 * 3600), (7.0, true));
        assert_eq!(hours.most_within(6 * 3600), (14.0, true));
        // 14 bytes in 6 hours: 28 in 12.
        let (carried_on, measured) = hours.most_within(12 * 3600);
        near(carried_on, 28.0);
        assert!(!measured);
    }

    #[test]
    fn the_sum_of_machines_has_no_gaps() {
        let slot = |start_unix, stored_bytes| ChurnSlot {
            start_unix,
            changed_bytes: 2 * stored_bytes,
            stored_bytes,
        };
        let machines = [
            vec![slot(600, 1), slot(1500, 2)],
            vec![slot(900, 4), slot(1500, 8)],
        ];
        let sum = Series::sum(&machines, 300, 1899, |slot| slot.stored_bytes);
        assert_eq!((sum.start_unix, sum.bytes), (600, vec![1.0, 4.0, 0.0, 10.0]));
        let none = Series::sum(&[], 300, 1899, |slot| slot.stored_bytes);
        assert_eq!(
            (none.seconds(), none.mean_rate(), none.peak_rate()),
            (0, 0.0, 0.0)
        );
    }

    #[test]
    fn a_schedule_keeps_the_lag_and_throttles_quiet_hours() {
        // Two days: 8 to 17 o'clock 600 MB per slot of 300 s (2 MB/s), else 3 MB (10 kB/s).
        let hour = |unix: i64| usize::try_from(unix / 3600 % 24).unwrap();
        let bytes: Vec<f64> = (0..2 * 288)
            .map(|slot| {
                if (8..18).contains(&(slot / 12 % 24)) {
                    600e6
                } else {
                    3e6
                }
            })
            .collect();
        let two_days = series(300, &bytes);
        let limits = two_days.throttle_schedule(60.0, hour).unwrap();
        for (hour, limit) in limits.iter().enumerate() {
            if (8..18).contains(&hour) {
                // 2 MB/s rounded up to 128 KiB/s; somewhat less may do, as one minute may be late.
                assert!((1_835_008..=2_097_152).contains(limit), "{hour}: {limit}");
            } else {
                assert_eq!(*limit, 131_072, "{hour}");
            }
        }
        let kept = two_days.lags(60.0, |place| limits[hour(300 * place as i64)] as f64);
        assert!(kept.iter().all(|lag| *lag <= 60.0));
        assert_eq!(
            series(300, &[1.0; 287]).throttle_schedule(60.0, hour),
            None,
            "less than a day"
        );
    }

    #[test]
    fn the_store_fills_up() {
        let sample = |hour: i64, free_bytes| StoreSample {
            at_unix: hour * 3600,
            stored_bytes: 0,
            free_bytes,
            capacity_bytes: 1_000_000,
        };
        // 3,600 bytes less per hour: one per second.
        let line: Vec<_> = (0..10)
            .map(|hour| sample(hour, 500_000 - 3600 * hour as u64))
            .collect();
        let rate = growth_rate(&line).unwrap();
        near(rate, 1.0);
        near(seconds_until_full(86_400, rate).unwrap(), 86_400.0);
        assert_eq!(growth_rate(&line[..3]), None);
        assert_eq!(growth_rate(&line[..6]), None, "five hours");
        // The line through (0,0) (2,1) (4,3) (6,4), hours and kB: slope 0.7 kB per hour.
        let bent = [(0, 0), (2, 1), (4, 3), (6, 4)].map(|(hour, kb)| sample(hour, 500_000 - kb * 1000));
        near(growth_rate(&bent).unwrap(), 700.0 / 3600.0);
        assert_eq!(seconds_until_full(1000, 0.0), None);
        assert_eq!(seconds_until_full(1000, -5.0), None);
        assert_eq!(seconds_until_full(u64::MAX, 1.0), None, "not in this life");
    }
}
