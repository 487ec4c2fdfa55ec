//! Vaults: made, listed, and removed when nothing is in them.
use super::{
    DEFAULT_POLICY, DEFAULT_VAULT, NewPolicy, Role, Vault, VaultError, networks, policies, vault_id,
};
use crate::rt::now_unix_nanos;
use rusqlite::params;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultRow {
    pub name: String,
    pub created_unix_nanos: i64,
    /// Machines that are joined to it.
    pub machines: u64,
    pub replicated_items: u64,
}

/// Named in a refusal at most; a person needs to see what is there, not all of it.
const NAMED_MAX: usize = 10;

fn check_name(name: &str) -> Result<(), VaultError> {
    let bytes = name.as_bytes();
    if (1..=63).contains(&bytes.len())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
    {
        return Ok(());
    }
    Err(VaultError::Invalid {
        field: "name",
        rule: "1 to 63 letters, digits and hyphens; starts and ends with a letter or digit".to_owned(),
    })
}

impl Vault {
    /// All vaults, by name.
    pub fn vault_rows(&self) -> Result<Vec<VaultRow>, VaultError> {
        self.read(|transaction| {
            let rows = transaction
                .prepare_cached(
                    "SELECT name, created,
                         (SELECT count(*) FROM machines WHERE vault = vaults.id AND removed IS NULL),
                         (SELECT count(*) FROM items JOIN machines ON machines.id = items.machine
                          WHERE machines.vault = vaults.id)
                     FROM vaults ORDER BY name",
                )?
                .query_map([], |row| {
                    Ok(VaultRow {
                        name: row.get(0)?,
                        created_unix_nanos: row.get(1)?,
                        machines: row.get(2)?,
                        replicated_items: row.get(3)?,
                    })
                })?
                .collect::<Result<_, _>>()?;
            Ok(rows)
        })
    }

    /// Makes a vault with the default policy. `owner`: the user who becomes its Owner; None: root of this host, who may do
    /// everything anyway.
    pub fn create_vault(&self, name: &str, owner: Option<&str>) -> Result<VaultRow, VaultError> {
        check_name(name)?;
        self.write(|transaction| {
            let now = now_unix_nanos();
            let made = transaction.execute(
                "INSERT INTO vaults (name, created) VALUES (?1, ?2) ON CONFLICT (name) DO NOTHING",
                params![name, now],
            )?;
            if made == 0 {
                return Err(VaultError::refused(
                    "VaultExists",
                    format!("there is a vault {name} already"),
                    "it was made before",
                    "choose another name, or see what there is: lifeboat vaults list",
                ));
            }
            let id = transaction.last_insert_rowid();
            policies::insert(transaction, id, &NewPolicy::named(DEFAULT_POLICY))?;
            networks::insert_defaults(transaction, id)?;
            if let Some(owner) = owner {
                transaction.execute(
                    "INSERT INTO role_assignments (user, vault, role) SELECT id, ?2, ?3 FROM users WHERE name = ?1",
                    params![owner, id, Role::Owner.word()],
                )?;
            }
            Ok(VaultRow {
                name: name.to_owned(),
                created_unix_nanos: now,
                machines: 0,
                replicated_items: 0,
            })
        })
    }

    /// Removes a vault with its history; refused while a machine is joined to it, with the names of what is in the way.
    pub fn remove_vault(&self, name: &str) -> Result<(), VaultError> {
        self.write(|transaction| {
            let id = vault_id(transaction, name)?;
            if name.eq_ignore_ascii_case(DEFAULT_VAULT) {
                return Err(VaultError::refused(
                    "DefaultVault",
                    "the vault default cannot be removed",
                    "machines join it unless another vault is named",
                    "nothing needs to be done",
                ));
            }
            let machines: Vec<(String, bool)> = transaction
                .prepare(
                    "SELECT name, EXISTS (SELECT 1 FROM items WHERE machine = machines.id) FROM machines
                     WHERE vault = ?1 AND removed IS NULL ORDER BY name",
                )?
                .query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<_, _>>()?;
            if !machines.is_empty() {
                let replicated = machines.iter().filter(|(_, replicated)| *replicated).count();
                let mut named: Vec<String> = machines
                    .iter()
                    .take(NAMED_MAX)
                    .map(|(machine, replicated)| {
                        let kind = if *replicated { "replicated item" } else { "machine" };
                        format!("{kind} {machine}")
                    })
                    .collect();
                if machines.len() > NAMED_MAX {
                    named.push(format!("{} more", machines.len() - NAMED_MAX));
                }
                return Err(VaultError::refused(
                    "VaultNotEmpty",
                    format!("the vault {name} is not empty: {}", named.join(", ")),
                    format!("{} machines are joined to it, {replicated} of them replicated", machines.len()),
                    format!(
                        "disable their replication (lifeboat unprotect NAME --vault {name}), then remove them (lifeboat machine remove NAME --vault {name})"
                    ),
                ));
            }
            // What is left is history: of removed machines, and of the vault itself.
            for sql in [
                "DELETE FROM jobs WHERE machine IN (SELECT id FROM machines WHERE vault = ?1)",
                "DELETE FROM replication_groups WHERE vault = ?1",
                "DELETE FROM certificates WHERE machine IN (SELECT id FROM machines WHERE vault = ?1)",
                "DELETE FROM machines WHERE vault = ?1",
                "DELETE FROM policies WHERE vault = ?1",
                "DELETE FROM plan_runs WHERE vault = ?1",
                "DELETE FROM plans WHERE vault = ?1",
                "DELETE FROM network_mappings WHERE vault = ?1",
                "DELETE FROM networks WHERE vault = ?1",
                "DELETE FROM events WHERE vault = ?1",
                "DELETE FROM changes WHERE vault = ?1",
                "DELETE FROM vaults WHERE id = ?1",
            ] {
                transaction.execute(sql, [id])?;
            }
            Ok(())
        })
    }
}
