//! What live views and repeated requests need: changes in order, and answers that were given.
use super::{Vault, VaultError, vault_id};
use crate::rt::now_unix_nanos;
use rusqlite::{OptionalExtension, params};

/// Something changed. Ids grow; there may be gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub id: i64,
    /// item, job, event, machine, policy, network, plan, planRun
    pub kind: String,
    pub object: String,
}

/// The answer to a request that carried an Idempotency-Key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAnswer {
    /// BLAKE3 of what was asked.
    pub request: [u8; 32],
    pub status: u16,
    pub body: String,
}

const ANSWER_KEPT_NANOS: i64 = 24 * 3600 * 1_000_000_000;

impl Vault {
    /// Changes of a vault after `after`, in order.
    pub fn changes(&self, vault: &str, after: i64, limit: u32) -> Result<Vec<Change>, VaultError> {
        self.read(|transaction| {
            let vault = vault_id(transaction, vault)?;
            let rows = transaction
                .prepare_cached(
                    "SELECT id, kind, object FROM changes WHERE id > ?1 AND vault = ?2 ORDER BY id LIMIT ?3",
                )?
                .query_map(params![after, vault, limit], |row| {
                    Ok(Change {
                        id: row.get(0)?,
                        kind: row.get(1)?,
                        object: row.get(2)?,
                    })
                })?
                .collect::<Result<_, _>>()?;
            Ok(rows)
        })
    }

    /// Ids of the oldest and the newest change that are kept. The vault must exist.
    pub fn change_bounds(&self, vault: &str) -> Result<(i64, i64), VaultError> {
        self.read(|transaction| {
            vault_id(transaction, vault)?;
            Ok(transaction.query_row(
                "SELECT ifnull(min(id), 0), ifnull(max(id), 0) FROM changes",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?)
        })
    }

    pub fn kept_answer(&self, user: &str, key: &str) -> Result<Option<KeptAnswer>, VaultError> {
        self.read(|transaction| {
            Ok(transaction
                .prepare_cached(
                    "SELECT request, status, body FROM idempotency WHERE user = ?1 AND key = ?2 AND at > ?3",
                )?
                .query_row(params![user, key, now_unix_nanos() - ANSWER_KEPT_NANOS], |row| {
                    Ok(KeptAnswer {
                        request: row.get(0)?,
                        status: row.get(1)?,
                        body: row.get(2)?,
                    })
                })
                .optional()?)
        })
    }

    pub fn keep_answer(
        &self,
        user: &str,
        key: &str,
        request: &[u8; 32],
        status: u16,
        body: &str,
    ) -> Result<(), VaultError> {
        self.write(|transaction| {
            let now = now_unix_nanos();
            transaction.execute("DELETE FROM idempotency WHERE at <= ?1", [now - ANSWER_KEPT_NANOS])?;
            transaction.execute(
                "INSERT INTO idempotency (user, key, request, status, body, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (user, key) DO NOTHING",
                params![user, key, request, status, body, now],
            )?;
            Ok(())
        })
    }
}
