//! What charts show of a replicated item: RPO, bytes shipped and changed, freeze, slot by slot without gaps.
use super::churn::Sum;
use super::{HOUR_SECONDS, MINUTE_SECONDS, SLOT_SECONDS, Vault, VaultError};
use crate::block::MachineId;
use rusqlite::params;
use std::collections::BTreeMap;

/// A time up to now. An hour is 60 slots, a day 1,440, a week 672, a month 720.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeriesRange {
    Hour,
    Day,
    Week,
    Month,
}

impl SeriesRange {
    pub fn seconds(self) -> i64 {
        match self {
            Self::Hour => HOUR_SECONDS,
            Self::Day => 24 * HOUR_SECONDS,
            Self::Week => 7 * 24 * HOUR_SECONDS,
            Self::Month => 30 * 24 * HOUR_SECONDS,
        }
    }

    /// Of a slot that is shown, and of the rows that it is summed up from.
    fn slots(self) -> (i64, i64) {
        match self {
            Self::Hour | Self::Day => (MINUTE_SECONDS, MINUTE_SECONDS),
            Self::Week => (3 * SLOT_SECONDS, SLOT_SECONDS),
            Self::Month => (HOUR_SECONDS, HOUR_SECONDS),
        }
    }

    pub fn slot_seconds(self) -> i64 {
        self.slots().0
    }
}

/// One slot of time; None: nothing is known of it, because the server or the agent was away.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesSlot {
    pub start_unix: i64,
    /// The highest.
    pub rpo_seconds: Option<f64>,
    pub mean_rpo_seconds: Option<f64>,
    /// Left the machine, on the wire, also in copies and comparisons.
    pub shipped_bytes: Option<u64>,
    /// Changed on its disks.
    pub changed_bytes: Option<u64>,
    pub points: Option<u64>,
    /// The longest; None when there was no point either.
    pub freeze_ms: Option<f64>,
}

impl SeriesSlot {
    fn of(start_unix: i64, sum: Option<&Sum>) -> Self {
        let seconds = |ms: f64| ms / 1000.0;
        let with_rpo = sum.filter(|sum| sum.rpo_samples > 0);
        Self {
            start_unix,
            rpo_seconds: with_rpo.map(|sum| seconds(sum.rpo_ms_max as f64)),
            mean_rpo_seconds: with_rpo.map(|sum| seconds(sum.rpo_ms_sum as f64 / sum.rpo_samples as f64)),
            shipped_bytes: sum.map(|sum| sum.shipped_bytes),
            changed_bytes: sum.map(|sum| sum.changed_bytes),
            points: sum.map(|sum| sum.points),
            freeze_ms: sum
                .filter(|sum| sum.points > 0)
                .map(|sum| f64::from(sum.freeze_micros_max) / 1000.0),
        }
    }
}

impl Vault {
    /// The slots of `range` up to the one of this moment, which is not over yet.
    pub fn series(
        &self,
        machine: MachineId,
        range: SeriesRange,
        now_unix: i64,
    ) -> Result<Vec<SeriesSlot>, VaultError> {
        let (slot_seconds, row_seconds) = range.slots();
        let slot_of = |unix: i64| unix - unix.rem_euclid(slot_seconds);
        let last = slot_of(now_unix);
        let first = last + slot_seconds - range.seconds();
        let mut sums: BTreeMap<i64, Sum> = BTreeMap::new();
        self.read(|transaction| {
            let mut statement = transaction.prepare_cached(
                "SELECT start, changed_bytes, stored_bytes, points, shipped_bytes, freeze_micros_max, rpo_ms_max,
                     rpo_ms_sum, rpo_samples
                 FROM churn WHERE machine = ?1 AND slot_seconds = ?2 AND start >= ?3",
            )?;
            let rows = statement.query_map(params![machine.to_string(), row_seconds, first], |row| {
                let sum = Sum {
                    changed_bytes: row.get(1)?,
                    stored_bytes: row.get(2)?,
                    points: row.get(3)?,
                    shipped_bytes: row.get(4)?,
                    freeze_micros_max: row.get(5)?,
                    rpo_ms_max: row.get(6)?,
                    rpo_ms_sum: row.get(7)?,
                    rpo_samples: row.get(8)?,
                };
                Ok((row.get::<_, i64>(0)?, sum))
            })?;
            for row in rows {
                let (start, sum) = row?;
                sums.entry(slot_of(start)).or_default().add(sum);
            }
            Ok(())
        })?;
        // What is not written yet, behind what is: a sum that is written in between shows late rather than twice.
        for ((_, start), sum) in self
            .unwritten_churn()
            .iter()
            .filter(|((of, _), _)| *of == machine)
        {
            sums.entry(slot_of(*start)).or_default().add(*sum);
        }
        let count = range.seconds() / slot_seconds;
        Ok((0..count)
            .map(|place| first + place * slot_seconds)
            .map(|start| SeriesSlot::of(start, sums.get(&start)))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Consistency;
    use crate::block::PointId;
    use crate::rt::{Fact, Report, now_unix_nanos};
    use crate::vault::tests::{joined, replicating, vault};

    fn fact(machine: MachineId, instant_unix_nanos: i64, consistency: Consistency, bytes: u64) -> Fact {
        Fact::PointSealed {
            machine,
            point: PointId::new(),
            instant_unix_nanos,
            consistency,
            note: String::new(),
            freeze_micros: u32::try_from(bytes * 10).unwrap(),
            changed_bytes: 2 * bytes,
            stored_bytes: bytes,
            sync_request: 0,
        }
    }

    #[test]
    fn a_chart_shows_what_happened_whether_it_is_written_or_not() {
        let (_folder, vault) = vault();
        let machine = joined(&vault, "web1");
        replicating(&vault, machine);
        let second = 1_000_000_000;
        let now = now_unix_nanos();
        let now_unix = now / second;
        let series = |range| vault.series(machine, range, now_unix).unwrap();
        for range in [
            SeriesRange::Hour,
            SeriesRange::Day,
            SeriesRange::Week,
            SeriesRange::Month,
        ] {
            let slots = series(range);
            assert!(
                slots
                    .iter()
                    .all(|slot| slot.shipped_bytes.is_none() && slot.rpo_seconds.is_none())
            );
            assert!(
                slots
                    .windows(2)
                    .all(|two| two[1].start_unix - two[0].start_unix == range.slot_seconds())
            );
            let last = slots.last().unwrap().start_unix;
            assert!(
                last <= now_unix && now_unix < last + range.slot_seconds(),
                "this moment is shown"
            );
            assert!((600..=1440).contains(&slots.len()) || range == SeriesRange::Hour && slots.len() == 60);
        }
        // The first point is the copy: no churn, and no RPO before it. The next came 100 s later, one that does not count
        // for the RPO in between.
        vault.report(fact(machine, now - 100 * second, Consistency::CrashConsistent, 7));
        vault.report(fact(machine, now - 50 * second, Consistency::Fuzzy, 3));
        vault.report(fact(machine, now, Consistency::CrashConsistent, 5));
        vault.sample_rpo(now + second / 2).unwrap();
        let check = || {
            for range in [
                SeriesRange::Hour,
                SeriesRange::Day,
                SeriesRange::Week,
                SeriesRange::Month,
            ] {
                let slots = series(range);
                let sum = |of: fn(&SeriesSlot) -> Option<u64>| slots.iter().filter_map(of).sum::<u64>();
                assert_eq!(sum(|slot| slot.changed_bytes), 16, "{range:?}");
                assert_eq!(sum(|slot| slot.points), 2);
                let most =
                    |of: fn(&SeriesSlot) -> Option<f64>| slots.iter().filter_map(of).fold(0.0, f64::max);
                let rpo = most(|slot| slot.rpo_seconds);
                assert!((100.0..110.0).contains(&rpo), "{range:?} {rpo}");
                let mean = most(|slot| slot.mean_rpo_seconds);
                assert!(mean > 0.0 && mean <= rpo, "{range:?} {mean}");
                assert_eq!(most(|slot| slot.freeze_ms), 0.05);
            }
        };
        check();
        vault.write_churn(now_unix).unwrap();
        check();
        vault.write_churn(now_unix + 1).unwrap();
        check();
        // A planner of before and a chart read the same rows; only hours outlive a month.
        vault.measured(machine, now + 31 * 86_400 * second, Sum::of_rpo(second));
        vault.write_churn(now_unix + 31 * 86_400).unwrap();
        let rows: i64 = vault
            .read(
                |transaction| Ok(transaction.query_row("SELECT count(*) FROM churn", [], |row| row.get(0))?),
            )
            .unwrap();
        assert!((4..=5).contains(&rows), "{rows} rows are left");
    }
}
