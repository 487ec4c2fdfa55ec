//! Alarms of a process server over time: when one is over, and when it keeps new machines out. Pure.
use crate::vault::{HealthError, Severity};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// An alarm that is gone this long is over: one that comes and goes around its threshold is told of once.
const QUIET: Duration = Duration::from_secs(5 * 60);
/// Critical for this long: a peak keeps nobody out.
const LASTING: Duration = Duration::from_secs(5 * 60);

struct Ring {
    error: HealthError,
    last_seen: Instant,
    critical_since: Option<Instant>,
}

#[derive(Default)]
pub struct Ringing(BTreeMap<&'static str, Ring>);

impl Ringing {
    /// Takes what rings at this moment; answers what counts as on, and what of it keeps new machines out.
    pub fn look(&mut self, now: Instant, alarms: Vec<HealthError>) -> (Vec<HealthError>, Vec<HealthError>) {
        for ring in self.0.values_mut() {
            let rings = alarms
                .iter()
                .any(|alarm| alarm.code == ring.error.code && alarm.severity == Severity::Critical);
            if !rings {
                ring.critical_since = None;
            }
        }
        for error in alarms {
            let critical = error.severity == Severity::Critical;
            let before = self.0.get(error.code).and_then(|ring| ring.critical_since);
            let ring = Ring {
                last_seen: now,
                critical_since: critical.then(|| before.unwrap_or(now)),
                error,
            };
            self.0.insert(ring.error.code, ring);
        }
        self.0
            .retain(|_, ring| now.duration_since(ring.last_seen) < QUIET);
        let lasting = |ring: &&Ring| {
            ring.critical_since
                .is_some_and(|since| now.duration_since(since) >= LASTING)
        };
        (
            self.0.values().map(|ring| ring.error.clone()).collect(),
            self.0
                .values()
                .filter(lasting)
                .map(|ring| ring.error.clone())
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alarm(severity: Severity) -> HealthError {
        HealthError {
            code: "ProcessServerCpu",
            category: "Infrastructure",
            severity,
            summary: String::new(),
            message: String::new(),
            possible_causes: String::new(),
            recommended_action: String::new(),
        }
    }

    #[test]
    fn a_peak_keeps_nobody_out_and_a_flicker_is_one_alarm() {
        let start = Instant::now();
        let at = |minute: u64| start + Duration::from_secs(60 * minute);
        let mut ringing = Ringing::default();
        let mut look = |minute, severity: Option<Severity>| {
            let (on, out) = ringing.look(at(minute), severity.map(alarm).into_iter().collect());
            (on.first().map(|error| error.severity), !out.is_empty())
        };
        use Severity::{Critical, Warning};
        assert_eq!(look(0, None), (None, false));
        assert_eq!(look(1, Some(Critical)), (Some(Critical), false));
        // Less for a moment: the time begins anew.
        assert_eq!(look(5, Some(Warning)), (Some(Warning), false));
        assert_eq!(look(6, Some(Critical)), (Some(Critical), false));
        assert_eq!(look(10, Some(Critical)), (Some(Critical), false));
        assert_eq!(look(11, Some(Critical)), (Some(Critical), true));
        // Gone: nobody is kept out any more, and after a while it is over.
        assert_eq!(look(12, None), (Some(Critical), false));
        assert_eq!(look(15, None), (Some(Critical), false));
        assert_eq!(look(16, None), (None, false));
    }
}
