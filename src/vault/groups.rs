//! Replication groups: machines with shared recovery points. What belongs to a group is in the database; how its rounds go is
//! known to this process only, and made anew after a restart.
use super::{Vault, VaultError, id_column, vault_id};
use crate::block::{GroupPointId, MachineId};
use crate::rt::now_unix_nanos;
use rusqlite::{OptionalExtension, Transaction, params};
use std::collections::{BTreeMap, VecDeque};

pub const GROUP_MEMBERS_MAX: usize = 16;
const NAME_LEN_MAX: usize = 63;
const SHARE_SECONDS_DEFAULT: u32 = 30;
const APP_SECONDS_DEFAULT: u32 = 3600;
/// Freeze windows that are kept, for the figures.
const WINDOWS_KEPT: usize = 256;

/// What is left out has the default, or stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupValues {
    pub share_seconds: Option<u32>,
    /// 0: off.
    pub app_consistent_seconds: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRow {
    pub id: i64,
    pub vault: String,
    pub name: String,
    pub share_seconds: u32,
    pub app_consistent_seconds: u32,
    pub revision: u64,
    /// By name.
    pub members: Vec<(MachineId, String)>,
}

/// An instant that all members hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedInstant {
    pub id: GroupPointId,
    pub unix_nanos: i64,
}

/// How the rounds of a group go.
#[derive(Clone, Debug, Default)]
pub struct GroupLive {
    pub last_shared: Option<SharedInstant>,
    pub last_app_consistent: Option<SharedInstant>,
    /// When one was tried last.
    pub app_tried: Option<i64>,
    /// Since when no round has succeeded.
    pub failing_since: Option<i64>,
    /// What was wrong in the last round, by machine.
    pub troubles: BTreeMap<MachineId, String>,
    pub rounds: u64,
    pub shared: u64,
    /// From the order to freeze until all had thawed, microseconds, the newest last.
    pub windows_micros: VecDeque<u32>,
}

impl GroupLive {
    pub fn window(&mut self, micros: u32) {
        if self.windows_micros.len() == WINDOWS_KEPT {
            self.windows_micros.pop_front();
        }
        self.windows_micros.push_back(micros);
    }
}

fn invalid<T>(field: &'static str, rule: &str) -> Result<T, VaultError> {
    Err(VaultError::Invalid {
        field,
        rule: rule.to_owned(),
    })
}

fn check_name(name: &str) -> Result<(), VaultError> {
    let fine = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
    if name.is_empty() || name.len() > NAME_LEN_MAX || name.starts_with('-') || !name.chars().all(fine) {
        return invalid("name", "1 to 63 letters, digits, hyphens and underscores");
    }
    Ok(())
}

fn check_values(share: u32, app: u32) -> Result<(), VaultError> {
    if !(1..=3600).contains(&share) {
        return invalid("shareSeconds", "1 to 3600");
    }
    if app != 0 && !(3600..=12 * 3600).contains(&app) {
        return invalid("appConsistentSeconds", "0 (off), or 3600 to 43200");
    }
    Ok(())
}

const GROUP: &str = "SELECT replication_groups.id, vaults.name, replication_groups.name, share_seconds, app_consistent_seconds, revision
    FROM replication_groups JOIN vaults ON vaults.id = replication_groups.vault";

fn rows(
    transaction: &Transaction<'_>,
    condition: &str,
    values: impl rusqlite::Params,
) -> Result<Vec<GroupRow>, VaultError> {
    let mut groups: Vec<GroupRow> = transaction
        .prepare_cached(&format!("{GROUP} {condition}"))?
        .query_map(values, |row| {
            Ok(GroupRow {
                id: row.get(0)?,
                vault: row.get(1)?,
                name: row.get(2)?,
                share_seconds: row.get(3)?,
                app_consistent_seconds: row.get(4)?,
                revision: row.get(5)?,
                members: Vec::new(),
            })
        })?
        .collect::<Result<_, _>>()?;
    for group in &mut groups {
        group.members = transaction
            .prepare_cached(
                "SELECT machines.id, machines.name FROM group_members JOIN machines ON machines.id = machine
                 WHERE replication_group = ?1 ORDER BY machines.name",
            )?
            .query_map([group.id], |row| Ok((id_column(row, 0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
    }
    Ok(groups)
}

fn by_name(transaction: &Transaction<'_>, vault: i64, name: &str) -> Result<GroupRow, VaultError> {
    rows(
        transaction,
        "WHERE vault = ?1 AND replication_groups.name = ?2",
        params![vault, name],
    )?
    .pop()
    .ok_or_else(|| VaultError::NotFound {
        what: "replication group",
        name: name.to_owned(),
    })
}

fn changeable(
    transaction: &Transaction<'_>,
    vault: &str,
    name: &str,
    revision: Option<u64>,
) -> Result<GroupRow, VaultError> {
    let group = by_name(transaction, vault_id(transaction, vault)?, name)?;
    if revision.is_some_and(|revision| revision != group.revision) {
        return Err(VaultError::Conflict {
            what: "replication group",
            name: group.name,
        });
    }
    Ok(group)
}

fn add(transaction: &Transaction<'_>, group: &GroupRow, machine: MachineId) -> Result<(), VaultError> {
    let row = super::items::item(transaction, machine)?.ok_or_else(|| {
        VaultError::refused(
            "NotReplicated",
            format!("{machine} is not replicated"),
            "replication was not enabled, or was disabled",
            "enable it first: lifeboat protect",
        )
    })?;
    if !row.vault.eq_ignore_ascii_case(&group.vault) {
        return Err(super::machines::unknown_machine(machine));
    }
    let there: Option<String> = transaction
        .query_row(
            "SELECT replication_groups.name FROM group_members
             JOIN replication_groups ON replication_groups.id = replication_group WHERE machine = ?1",
            [machine.to_string()],
            |row| row.get(0),
        )
        .optional()?;
    match there {
        Some(name) if name.eq_ignore_ascii_case(&group.name) => return Ok(()),
        Some(name) => {
            return Err(VaultError::refused(
                "InOtherGroup",
                format!("{} is a member of the replication group {name}", row.item.name),
                "a machine shares its points with one group",
                format!(
                    "take it out there first: lifeboat group remove {name} {}",
                    row.item.name
                ),
            ));
        }
        None => {}
    }
    let count: usize = transaction.query_row(
        "SELECT count(*) FROM group_members WHERE replication_group = ?1",
        [group.id],
        |row| row.get(0),
    )?;
    if count >= GROUP_MEMBERS_MAX {
        return Err(VaultError::refused(
            "GroupFull",
            format!(
                "the replication group {} has {GROUP_MEMBERS_MAX} machines",
                group.name
            ),
            "all machines of a group are frozen at one instant; more of them make that instant long",
            "make another group for machines that do not need the same instant",
        ));
    }
    transaction.execute(
        "INSERT INTO group_members (machine, replication_group) VALUES (?1, ?2)",
        params![machine.to_string(), group.id],
    )?;
    Ok(())
}

fn touch(transaction: &Transaction<'_>, group: i64) -> Result<(), VaultError> {
    transaction.execute(
        "UPDATE replication_groups SET revision = revision + 1 WHERE id = ?1",
        [group],
    )?;
    Ok(())
}

/// How often the machine's group shares a point; 0: it is in none.
pub(super) fn seconds_of(transaction: &Transaction<'_>, machine: MachineId) -> Result<u32, VaultError> {
    let seconds = transaction
        .prepare_cached(
            "SELECT share_seconds FROM group_members
             JOIN replication_groups ON replication_groups.id = replication_group WHERE machine = ?1",
        )?
        .query_row([machine.to_string()], |row| row.get(0))
        .optional()?;
    Ok(seconds.unwrap_or_default())
}

impl Vault {
    pub fn create_group(
        &self,
        vault: &str,
        name: &str,
        values: GroupValues,
        members: &[MachineId],
    ) -> Result<GroupRow, VaultError> {
        check_name(name)?;
        let share = values.share_seconds.unwrap_or(SHARE_SECONDS_DEFAULT);
        let app = values.app_consistent_seconds.unwrap_or(APP_SECONDS_DEFAULT);
        check_values(share, app)?;
        self.write(|transaction| {
            let number = vault_id(transaction, vault)?;
            let made = transaction.execute(
                "INSERT INTO replication_groups (vault, name, share_seconds, app_consistent_seconds, created)
                 VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
                params![number, name, share, app, now_unix_nanos()],
            )?;
            if made == 0 {
                return Err(VaultError::DuplicateName(name.to_owned()));
            }
            let group = by_name(transaction, number, name)?;
            for machine in members {
                add(transaction, &group, *machine)?;
            }
            by_name(transaction, number, name)
        })
    }

    pub fn update_group(
        &self,
        vault: &str,
        name: &str,
        values: GroupValues,
        revision: Option<u64>,
    ) -> Result<GroupRow, VaultError> {
        self.write(|transaction| {
            let group = changeable(transaction, vault, name, revision)?;
            let share = values.share_seconds.unwrap_or(group.share_seconds);
            let app = values
                .app_consistent_seconds
                .unwrap_or(group.app_consistent_seconds);
            check_values(share, app)?;
            transaction.execute(
                "UPDATE replication_groups SET share_seconds = ?2, app_consistent_seconds = ?3, revision = revision + 1
                 WHERE id = ?1",
                params![group.id, share, app],
            )?;
            changeable(transaction, vault, name, None)
        })
    }

    pub fn add_to_group(
        &self,
        vault: &str,
        name: &str,
        machine: MachineId,
        revision: Option<u64>,
    ) -> Result<GroupRow, VaultError> {
        self.write(|transaction| {
            let group = changeable(transaction, vault, name, revision)?;
            add(transaction, &group, machine)?;
            touch(transaction, group.id)?;
            changeable(transaction, vault, name, None)
        })
    }

    pub fn remove_from_group(
        &self,
        vault: &str,
        name: &str,
        machine: MachineId,
        revision: Option<u64>,
    ) -> Result<GroupRow, VaultError> {
        let row = self.write(|transaction| {
            let group = changeable(transaction, vault, name, revision)?;
            let gone = transaction.execute(
                "DELETE FROM group_members WHERE machine = ?1 AND replication_group = ?2",
                params![machine.to_string(), group.id],
            )?;
            if gone == 0 {
                return Err(VaultError::NotFound {
                    what: "member",
                    name: machine.to_string(),
                });
            }
            touch(transaction, group.id)?;
            changeable(transaction, vault, name, None)
        })?;
        self.with_live(machine, |live| live.group_trouble = None);
        Ok(row)
    }

    /// Its machines go on with points of their own; shared points that were made stay.
    pub fn delete_group(&self, vault: &str, name: &str, revision: Option<u64>) -> Result<(), VaultError> {
        let group = self.write(|transaction| {
            let group = changeable(transaction, vault, name, revision)?;
            transaction.execute("DELETE FROM replication_groups WHERE id = ?1", [group.id])?;
            Ok(group)
        })?;
        for (machine, _) in group.members {
            self.with_live(machine, |live| live.group_trouble = None);
        }
        self.groups_live().remove(&group.id);
        Ok(())
    }

    pub fn group(&self, vault: &str, name: &str) -> Result<GroupRow, VaultError> {
        self.read(|transaction| by_name(transaction, vault_id(transaction, vault)?, name))
    }

    /// By name, from the one after `after`.
    pub fn groups(&self, vault: &str, after: Option<&str>) -> Result<Vec<GroupRow>, VaultError> {
        self.read(|transaction| {
            rows(
                transaction,
                "WHERE vault = ?1 AND replication_groups.name > ?2 ORDER BY replication_groups.name",
                params![vault_id(transaction, vault)?, after.unwrap_or("")],
            )
        })
    }

    /// Of all vaults.
    pub fn all_groups(&self) -> Result<Vec<GroupRow>, VaultError> {
        self.read(|transaction| rows(transaction, "ORDER BY replication_groups.id", []))
    }

    pub fn group_live(&self, group: i64) -> GroupLive {
        self.groups_live().get(&group).cloned().unwrap_or_default()
    }

    /// Notes how a round ended; health of the members follows.
    pub fn with_group_live(&self, group: &GroupRow, change: impl FnOnce(&mut GroupLive)) {
        let live = {
            let mut all = self.groups_live();
            let live = all.entry(group.id).or_default();
            change(live);
            live.clone()
        };
        for (machine, _) in &group.members {
            let trouble = live.failing_since.map(|since| super::live::GroupTrouble {
                group: group.name.clone(),
                since_unix_nanos: since,
                share_seconds: group.share_seconds,
                why: live
                    .troubles
                    .iter()
                    .map(|(id, why)| {
                        let name = group.members.iter().find(|(member, _)| member == id);
                        format!("{}: {why}", name.map_or("a machine", |(_, name)| name))
                    })
                    .collect::<Vec<_>>()
                    .join("; "),
            });
            self.with_live(*machine, |live| live.group_trouble = trouble);
        }
    }
}
