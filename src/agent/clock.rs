//! The server's clock, seen from here: the best of the recent measurements (RFC 5905, section 8: offset and delay of four
//! instants; section 10: of several samples the one with the least delay).
use crate::rt::now_unix_nanos;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// As many as NTP keeps.
const SAMPLES: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClockSample {
    /// Server's clock minus this host's.
    pub offset_nanos: i64,
    /// Time on the way, there and back: the offset is right to half of it.
    pub delay_nanos: i64,
}

impl ClockSample {
    /// `sent`, `back` by this host's clock; `received`, `answered` by the server's.
    pub fn new(sent: i64, received: i64, answered: i64, back: i64) -> Self {
        let there = received.saturating_sub(sent);
        let home = back.saturating_sub(answered);
        Self {
            offset_nanos: there.saturating_sub(home) / 2,
            delay_nanos: there.saturating_add(home).max(0),
        }
    }
}

#[derive(Default)]
pub(super) struct ServerClock(Mutex<VecDeque<ClockSample>>);

impl ServerClock {
    pub fn add(&self, sample: ClockSample) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() == SAMPLES {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// Unix nanoseconds on the server's clock, never later than it is there: what was acknowledged before this instant was
    /// acknowledged before now.
    pub fn now(&self) -> i64 {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let best = samples.iter().min_by_key(|sample| sample.delay_nanos);
        let shift = best.map_or(0, |best| best.offset_nanos - best.delay_nanos / 2);
        now_unix_nanos().saturating_add(shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_delayed_sample_counts_and_the_clock_is_never_ahead() {
        // The server is 1,000 ahead; 10 there, 30 back, 500 in the server.
        let sample = ClockSample::new(0, 1010, 1510, 540);
        assert_eq!((sample.offset_nanos, sample.delay_nanos), (990, 40));
        let clock = ServerClock::default();
        for delay in [900_000_000, 40, 700_000_000] {
            clock.add(ClockSample {
                offset_nanos: if delay == 40 { 5_000_000_000 } else { 0 },
                delay_nanos: delay,
            });
        }
        let ahead = clock.now() - now_unix_nanos();
        assert!((4_900_000_000..=5_000_000_000).contains(&ahead), "{ahead}");
        // Old samples are forgotten.
        for _ in 0..SAMPLES {
            clock.add(ClockSample {
                offset_nanos: 0,
                delay_nanos: 50,
            });
        }
        assert!(clock.now() <= now_unix_nanos());
    }
}
