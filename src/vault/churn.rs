//! History that the capacity planner reckons from: bytes that changed per slot of time, and the room in the store.
//!
//! Points come every few seconds; their sums are kept in memory and written twice a minute, because a flush of the disk per
//! point would cost more than the figure is worth. A kill loses at most that half minute of history, nothing else.
use super::{Vault, VaultError, vault_id};
use crate::block::MachineId;
use rusqlite::params;
use std::collections::{BTreeMap, HashMap};

pub const SLOT_SECONDS: i64 = 300;
pub const HOUR_SECONDS: i64 = 3600;
const DAY_SECONDS: i64 = 86_400;
/// Fine slots show the peaks that bandwidth must carry; a week holds all days of it.
const SLOTS_KEPT_SECONDS: i64 = 7 * DAY_SECONDS;
const HOURS_KEPT_SECONDS: i64 = 180 * DAY_SECONDS;
const STORE_KEPT_SECONDS: i64 = 400 * DAY_SECONDS;
/// After a longer silence all that changed is booked on the slots of this time before the point.
const SPREAD_SECONDS_MAX: i64 = DAY_SECONDS;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub changed_bytes: u64,
    pub stored_bytes: u64,
    pub points: u64,
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.changed_bytes += other.changed_bytes;
        self.stored_bytes += other.stored_bytes;
        self.points += other.points;
    }
}

/// Sums that are not written yet, by machine and start of the slot.
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
    let first = from - from.rem_euclid(SLOT_SECONDS);
    let last = to_unix - to_unix.rem_euclid(SLOT_SECONDS);
    let whole = to_unix - from;
    if first == last || whole == 0 {
        return vec![(last, bytes)];
    }
    let mut parts = Vec::new();
    let mut given = 0;
    let mut start = first;
    while start <= last {
        // Shares of the sum so far: no byte is lost to rounding.
        let until = (start + SLOT_SECONDS).min(to_unix) - from;
        let share = u128::from(bytes) * u128::from(until.unsigned_abs()) / u128::from(whole.unsigned_abs());
        let share = u64::try_from(share).unwrap_or(u64::MAX);
        parts.push((start, share - given));
        given = share;
        start += SLOT_SECONDS;
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
                points: 0,
            });
        }
        let slot = to_unix - to_unix.rem_euclid(SLOT_SECONDS);
        unwritten.entry((machine, slot)).or_default().points += sum.points;
    }

    /// Writes what was counted since the last time.
    pub fn write_churn(&self, now_unix: i64) -> Result<(), VaultError> {
        let taken = std::mem::take(&mut *self.unwritten_churn());
        if taken.is_empty() {
            return Ok(());
        }
        let written = self.write(|transaction| {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO churn (machine, slot_seconds, start, changed_bytes, stored_bytes, points)
                 SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE EXISTS (SELECT 1 FROM machines WHERE id = ?1)
                 ON CONFLICT DO UPDATE SET changed_bytes = changed_bytes + ?4, stored_bytes = stored_bytes + ?5,
                     points = points + ?6",
            )?;
            for ((machine, start), sum) in &taken {
                for seconds in [SLOT_SECONDS, HOUR_SECONDS] {
                    insert.execute(params![
                        machine.to_string(),
                        seconds,
                        start - start.rem_euclid(seconds),
                        sum.changed_bytes,
                        sum.stored_bytes,
                        sum.points
                    ])?;
                }
            }
            let mut forget =
                transaction.prepare_cached("DELETE FROM churn WHERE slot_seconds = ?1 AND start < ?2")?;
            forget.execute(params![SLOT_SECONDS, now_unix - SLOTS_KEPT_SECONDS])?;
            forget.execute(params![HOUR_SECONDS, now_unix - HOURS_KEPT_SECONDS])?;
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
        // Within one slot: all in it.
        assert_eq!(spread(600, 630, 7), [(600, 7)]);
        // From 10 s before a border to 20 s after it: a third and two thirds.
        assert_eq!(spread(590, 620, 300), [(300, 100), (600, 200)]);
        // 15 minutes over three slots and a border; nothing is lost to rounding.
        let parts = spread(0, 900, 1000);
        assert_eq!(parts, [(0, 333), (300, 333), (600, 334), (900, 0)]);
        // A clock that went back, and a silence of years.
        assert_eq!(spread(700, 630, 7), [(600, 7)]);
        let parts = spread(0, 10_000_000_000, 1 << 40);
        assert!(parts.len() <= 290, "{}", parts.len());
        assert_eq!(parts.iter().map(|(_, bytes)| bytes).sum::<u64>(), 1 << 40);
    }
}
