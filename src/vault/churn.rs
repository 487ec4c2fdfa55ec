//! History that the capacity planner reckons from and that charts show: per slot of time the bytes that changed and were
//! shipped, the RPO and the freeze; and the room in the store.
//!
//! Points come every few seconds; their sums are kept in memory and written twice a minute, because a flush of the disk per
//! point would cost more than the figure is worth. A kill loses at most that half minute of history, nothing else.
use super::{Vault, VaultError, vault_id};
use crate::block::MachineId;
use rusqlite::params;
use std::collections::{BTreeMap, HashMap};

pub const MINUTE_SECONDS: i64 = 60;
pub const SLOT_SECONDS: i64 = 300;
pub const HOUR_SECONDS: i64 = 3600;
const DAY_SECONDS: i64 = 86_400;
/// Each size of slots with the time that it is kept. Minutes for the chart of a day; fine slots show the peaks that
/// bandwidth must carry, a week holds all days of it; hours for trends. A machine has at most 7,800 rows.
const KEPT: [(i64, i64); 3] = [
    // A minute and an hour more than the longest chart of them asks for.
    (MINUTE_SECONDS, 25 * HOUR_SECONDS),
    (SLOT_SECONDS, 7 * DAY_SECONDS + HOUR_SECONDS),
    (HOUR_SECONDS, 180 * DAY_SECONDS),
];
const STORE_KEPT_SECONDS: i64 = 400 * DAY_SECONDS;
/// After a longer silence all that changed is booked on the slots of this time before the point.
const SPREAD_SECONDS_MAX: i64 = DAY_SECONDS;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub changed_bytes: u64,
    pub stored_bytes: u64,
    pub points: u64,
    pub shipped_bytes: u64,
    pub freeze_micros_max: u32,
    pub rpo_ms_max: u64,
    pub rpo_ms_sum: u64,
    pub rpo_samples: u64,
}

impl Sum {
    pub(super) fn add(&mut self, other: Self) {
        self.changed_bytes += other.changed_bytes;
        self.stored_bytes += other.stored_bytes;
        self.points += other.points;
        self.shipped_bytes += other.shipped_bytes;
        self.freeze_micros_max = self.freeze_micros_max.max(other.freeze_micros_max);
        self.rpo_ms_max = self.rpo_ms_max.max(other.rpo_ms_max);
        self.rpo_ms_sum += other.rpo_ms_sum;
        self.rpo_samples += other.rpo_samples;
    }
}

impl Sum {
    pub(super) fn of_rpo(nanos: i64) -> Self {
        let ms = u64::try_from(nanos / 1_000_000).unwrap_or(0);
        Self {
            rpo_ms_max: ms,
            rpo_ms_sum: ms,
            rpo_samples: 1,
            ..Self::default()
        }
    }
}

/// Sums that are not written yet, by machine and start of the minute.
pub(super) type Unwritten = HashMap<(MachineId, i64), Sum>;

/// Bytes per slot of a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChurnSlot {
    pub start_unix: i64,
    pub changed_bytes: u64,
    pub stored_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreSample {
    pub at_unix: i64,
    pub stored_bytes: u64,
    pub free_bytes: u64,
    pub capacity_bytes: u64,
}

/// Divides `bytes` that changed from `from` to `to` evenly over the slots in between.
fn spread(from_unix: i64, to_unix: i64, bytes: u64) -> Vec<(i64, u64)> {
    let from = from_unix.clamp(to_unix - SPREAD_SECONDS_MAX, to_unix);
    let first = from - from.rem_euclid(MINUTE_SECONDS);
    let last = to_unix - to_unix.rem_euclid(MINUTE_SECONDS);
    let whole = to_unix - from;
    if first == last || whole == 0 {
        return vec![(last, bytes)];
    }
    let mut parts = Vec::new();
    let mut given = 0;
    let mut start = first;
    while start <= last {
        // Shares of the sum so far: no byte is lost to rounding.
        let until = (start + MINUTE_SECONDS).min(to_unix) - from;
        let share = u128::from(bytes) * u128::from(until.unsigned_abs()) / u128::from(whole.unsigned_abs());
        let share = u64::try_from(share).unwrap_or(u64::MAX);
        parts.push((start, share - given));
        given = share;
        start += MINUTE_SECONDS;
    }
    parts
}

impl Vault {
    /// A point was sealed; the one before it was of `from_unix`.
    pub(super) fn churned(&self, machine: MachineId, from_unix: i64, to_unix: i64, sum: Sum) {
        let mut unwritten = self.unwritten_churn();
        let mut stored = spread(from_unix, to_unix, sum.stored_bytes).into_iter();
        for (start, changed_bytes) in spread(from_unix, to_unix, sum.changed_bytes) {
            let stored_bytes = stored.next().map_or(0, |(_, bytes)| bytes);
            unwritten.entry((machine, start)).or_default().add(Sum {
                changed_bytes,
                stored_bytes,
                ..Sum::default()
            });
        }
        // What is no flow of bytes belongs to the minute of the point.
        let slot = to_unix - to_unix.rem_euclid(MINUTE_SECONDS);
        unwritten.entry((machine, slot)).or_default().add(Sum {
            changed_bytes: 0,
            stored_bytes: 0,
            ..sum
        });
    }

    /// Something was measured at an instant.
    pub(super) fn measured(&self, machine: MachineId, at_unix_nanos: i64, sum: Sum) {
        let at = at_unix_nanos.div_euclid(1_000_000_000);
        let slot = at - at.rem_euclid(MINUTE_SECONDS);
        self.unwritten_churn()
            .entry((machine, slot))
            .or_default()
            .add(sum);
    }

    /// The RPO of each replicated machine at this instant, for its chart.
    pub(super) fn sample_rpo(&self, now: i64) -> Result<(), VaultError> {
        for row in self.all_items()? {
            let machine = row.item.machine;
            let good = self.with_live(machine, |live| live.last_good_point.clone());
            if let Some(point) = good {
                self.measured(machine, now, Sum::of_rpo(now - point.instant_unix_nanos));
            }
        }
        Ok(())
    }

    /// Writes what was counted since the last time.
    pub fn write_churn(&self, now_unix: i64) -> Result<(), VaultError> {
        let taken = std::mem::take(&mut *self.unwritten_churn());
        if taken.is_empty() {
            return Ok(());
        }
        let written = self.write(|transaction| {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO churn (machine, slot_seconds, start, changed_bytes, stored_bytes, points, shipped_bytes,
                     freeze_micros_max, rpo_ms_max, rpo_ms_sum, rpo_samples)
                 SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11 WHERE EXISTS (SELECT 1 FROM machines WHERE id = ?1)
                 ON CONFLICT DO UPDATE SET changed_bytes = changed_bytes + ?4, stored_bytes = stored_bytes + ?5,
                     points = points + ?6, shipped_bytes = shipped_bytes + ?7,
                     freeze_micros_max = max(freeze_micros_max, ?8), rpo_ms_max = max(rpo_ms_max, ?9),
                     rpo_ms_sum = rpo_ms_sum + ?10, rpo_samples = rpo_samples + ?11",
            )?;
            for ((machine, start), sum) in &taken {
                for (seconds, _) in KEPT {
                    insert.execute(params![
                        machine.to_string(),
                        seconds,
                        start - start.rem_euclid(seconds),
                        sum.changed_bytes,
                        sum.stored_bytes,
                        sum.points,
                        sum.shipped_bytes,
                        sum.freeze_micros_max,
                        sum.rpo_ms_max,
                        sum.rpo_ms_sum,
                        sum.rpo_samples
                    ])?;
                }
            }
            let mut forget =
                transaction.prepare_cached("DELETE FROM churn WHERE slot_seconds = ?1 AND start < ?2")?;
            for (seconds, kept) in KEPT {
                forget.execute(params![seconds, now_unix - kept])?;
            }
            Ok(())
        });
        if written.is_err() {
            let mut unwritten = self.unwritten_churn();
            for (key, sum) in taken {
                unwritten.entry(key).or_default().add(sum);
            }
        }
        written
    }

    /// Churn of each machine that is replicated, slot by slot from the first that is known; slots without a point are left
    /// out. Only slots that are over.
    pub fn churn(
        &self,
        vault: &str,
        slot_seconds: i64,
        from_unix: i64,
        now_unix: i64,
    ) -> Result<BTreeMap<MachineId, Vec<ChurnSlot>>, VaultError> {
        self.read(|transaction| {
            let vault = vault_id(transaction, vault)?;
            let mut all: BTreeMap<MachineId, Vec<ChurnSlot>> = BTreeMap::new();
            let mut statement = transaction.prepare_cached(
                "SELECT churn.machine, start, changed_bytes, stored_bytes FROM churn
                 JOIN machines ON machines.id = churn.machine JOIN items ON items.machine = churn.machine
                 WHERE machines.vault = ?1 AND slot_seconds = ?2 AND start >= ?3 AND start + ?2 <= ?4
                 ORDER BY churn.machine, start",
            )?;
            let rows = statement.query_map(params![vault, slot_seconds, from_unix, now_unix], |row| {
                let slot = ChurnSlot {
                    start_unix: row.get(1)?,
                    changed_bytes: row.get(2)?,
                    stored_bytes: row.get(3)?,
                };
                Ok((super::id_column::<MachineId>(row, 0)?, slot))
            })?;
            for row in rows {
                let (machine, slot) = row?;
                all.entry(machine).or_default().push(slot);
            }
            Ok(all)
        })
    }

    /// How full the store is now; kept once an hour, the last of the hour.
    pub fn record_store(&self, sample: StoreSample) -> Result<(), VaultError> {
        self.write(|transaction| {
            transaction.execute(
                "INSERT INTO store_history (start, stored_bytes, free_bytes, capacity_bytes) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET stored_bytes = ?2, free_bytes = ?3, capacity_bytes = ?4",
                params![
                    sample.at_unix - sample.at_unix.rem_euclid(HOUR_SECONDS),
                    sample.stored_bytes,
                    sample.free_bytes,
                    sample.capacity_bytes
                ],
            )?;
            transaction.execute(
                "DELETE FROM store_history WHERE start < ?1",
                [sample.at_unix - STORE_KEPT_SECONDS],
            )?;
            Ok(())
        })
    }

    /// The store hour by hour, the oldest first.
    pub fn store_history(&self, from_unix: i64) -> Result<Vec<StoreSample>, VaultError> {
        self.read(|transaction| {
            let rows = transaction
                .prepare_cached(
                    "SELECT start, stored_bytes, free_bytes, capacity_bytes FROM store_history WHERE start >= ?1
                     ORDER BY start",
                )?
                .query_map([from_unix], |row| {
                    Ok(StoreSample {
                        at_unix: row.get(0)?,
                        stored_bytes: row.get(1)?,
                        free_bytes: row.get(2)?,
                        capacity_bytes: row.get(3)?,
                    })
                })?
                .collect::<Result<_, _>>()?;
            Ok(rows)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_spread_over_the_time_in_which_they_changed() {
        // Within one minute: all in it.
        assert_eq!(spread(600, 630, 7), [(600, 7)]);
        // From 10 s before a border to 20 s after it: a third and two thirds.
        assert_eq!(spread(590, 620, 300), [(540, 100), (600, 200)]);
        // 3 minutes over three slots and a border; nothing is lost to rounding.
        let parts = spread(0, 180, 1000);
        assert_eq!(parts, [(0, 333), (60, 333), (120, 334), (180, 0)]);
        // A clock that went back, and a silence of years.
        assert_eq!(spread(700, 630, 7), [(600, 7)]);
        let parts = spread(0, 10_000_000_000, 1 << 40);
        assert!(parts.len() <= 1442, "{}", parts.len());
        assert_eq!(parts.iter().map(|(_, bytes)| bytes).sum::<u64>(), 1 << 40);
    }
}
