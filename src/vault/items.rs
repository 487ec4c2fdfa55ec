//! Replicated items: how a machine becomes one and ceases to be one, and the journal in which recovery keeps them.
//!
//! [`Vault::enable`] and [`Vault::disable`] only decide and write down; the configuration server's reconciler carries the
//! jobs out and records each step. An item that is recorded as `Unprotected` is gone, unless its points are kept or its
//! machine stays at the target: see [`Item::outlives_protection`].
use super::jobs::{job, open_jobs_of, put_job};
use super::machines::{machine, unknown_machine};
use super::policies::{POLICY, policy_row, usable};
use super::{Policy, Vault, VaultError, events, id_column, json_column, vault_id, word};
use crate::block::{DiskId, MachineId};
use crate::recovery::{
    ActiveLocation, Item, Job, JobId, JobKind, JobState, Journal, JournalError, KeepPoints, Operation,
    ProtectionState, Refusal, TargetSettings, Task, TaskState, TestFailoverState, admission,
};
use crate::rt::now_unix_nanos;
use crate::target::{DiskBus, Network, Nic};
use crate::wire::facts::{CheckResult, DiskFacts, Inventory, NicFacts};
use rusqlite::{OptionalExtension, Row, Transaction, params};
use serde_json::json;

/// Task of EnableReplication that makes the disks known to the replica store; agents are told to ship when it has succeeded.
pub const TASK_REGISTER_DISKS: &str = "RegisterDisks";
/// Task of EnableReplication that is over when the agent's first session is open.
pub const TASK_START_REPLICATION: &str = "StartReplication";
/// Task of DisableReplication: the agent ships no more.
pub const TASK_STOP_REPLICATION: &str = "StopReplication";
/// Task of DisableReplication: the replica and its recovery points are removed.
pub const TASK_REMOVE_REPLICA: &str = "RemoveReplica";
/// Task of DisableReplication in its place: the points stay.
pub const TASK_KEEP_POINTS: &str = "KeepPoints";

/// Suffix of a machine's name at the target.
const TARGET_SUFFIX: &str = "-asr";
const NAME_LEN_MAX: usize = 63;
/// Least memory a machine is started with.
const MEMORY_BYTES_MIN: u64 = 128 << 20;

#[derive(Clone, Debug, PartialEq)]
pub struct ItemDisk {
    pub id: DiskId,
    pub stable_id: String,
    pub size_bytes: u64,
}

/// An item with all that the database knows of it.
#[derive(Clone, Debug, PartialEq)]
pub struct ItemRow {
    pub vault: String,
    pub item: Item,
    pub policy: Policy,
    /// The boot disk first.
    pub disks: Vec<ItemDisk>,
}

fn item_row(row: &Row<'_>) -> rusqlite::Result<ItemRow> {
    let mut item: Item = json_column(row, 3)?;
    item.machine = id_column(row, 0)?;
    // The name and the revision have one place each; the body's are as of its last write.
    item.name = row.get(1)?;
    item.revision = row.get(2)?;
    Ok(ItemRow {
        vault: row.get(4)?,
        item,
        policy: policy_row(row, 5)?,
        disks: Vec::new(),
    })
}

pub(super) fn item_sql(rest: &str) -> String {
    format!(
        "SELECT items.machine, machines.name, items.revision, items.body, vaults.name, {POLICY}
         FROM items JOIN machines ON machines.id = items.machine JOIN vaults ON vaults.id = machines.vault
         JOIN policies ON policies.id = items.policy {rest}"
    )
}

pub(super) fn disks_of(
    transaction: &Transaction<'_>,
    machine: MachineId,
) -> Result<Vec<ItemDisk>, VaultError> {
    let disks = transaction
        .prepare_cached("SELECT id, stable_id, size_bytes FROM disks WHERE machine = ?1 ORDER BY position")?
        .query_map([machine.to_string()], |row| {
            Ok(ItemDisk {
                id: id_column(row, 0)?,
                stable_id: row.get(1)?,
                size_bytes: row.get(2)?,
            })
        })?
        .collect::<Result<_, _>>()?;
    Ok(disks)
}

pub(super) fn item(transaction: &Transaction<'_>, machine: MachineId) -> Result<Option<ItemRow>, VaultError> {
    let row = transaction
        .prepare_cached(&item_sql("WHERE items.machine = ?1"))?
        .query_row([machine.to_string()], item_row)
        .optional()?;
    match row {
        Some(mut row) => {
            row.disks = disks_of(transaction, machine)?;
            Ok(Some(row))
        }
        None => Ok(None),
    }
}

/// Writes the item under the revision it was read with.
pub(super) fn put_item(transaction: &Transaction<'_>, item: &Item) -> Result<(), JournalError> {
    let machine = item.machine.to_string();
    let stored: Option<(u64, String)> = transaction
        .prepare_cached("SELECT revision, protection FROM items WHERE machine = ?1")
        .and_then(|mut statement| {
            statement
                .query_row([&machine], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()
        })
        .map_err(VaultError::from)?;
    let before = match stored {
        None => return Err(JournalError::NoItem(item.machine)),
        Some((revision, _)) if revision != item.revision => return Err(JournalError::Conflict),
        Some((_, before)) => before,
    };
    let run = || -> Result<(), VaultError> {
        transaction.execute(
            "UPDATE machines SET generation = max(generation, ?2) WHERE id = ?1",
            params![machine, item.generation],
        )?;
        if item.protection == ProtectionState::Unprotected && !item.outlives_protection() {
            transaction.execute("DELETE FROM items WHERE machine = ?1", [&machine])?;
            return Ok(());
        }
        transaction
            .prepare_cached(
                "UPDATE items SET revision = revision + 1, protection = ?2, body = ?3 WHERE machine = ?1",
            )?
            .execute(params![
                machine,
                word(&item.protection)?,
                serde_json::to_string(item)?
            ])?;
        // Whoever records it; a failover that was abandoned is not news.
        let began = matches!(
            before.as_str(),
            "EnablingProtection" | "InitialReplicationInProgress" | "InitialReplicationFailed"
        );
        if item.protection == ProtectionState::Protected && began {
            events::information(
                transaction,
                events::vault_of(transaction, item.machine)?,
                "Protected",
                Some(item.machine),
                None,
                &format!(
                    "{} is protected: its initial replication is complete and its first recovery point is at the target",
                    item.name
                ),
            )?;
        }
        Ok(())
    };
    Ok(run()?)
}

/// How the machine is started at the target unless a person says otherwise.
pub fn default_target(name: &str, inventory: &Inventory) -> TargetSettings {
    target_mapped(name, inventory, &|_| (None, None))
}

/// As [`default_target`], with the networks that a mapping names for a NIC, at a failover and at a test failover.
fn target_mapped(
    name: &str,
    inventory: &Inventory,
    mapped: &dyn Fn(&NicFacts) -> super::networks::Mapped,
) -> TargetSettings {
    let short = &name[..name.len().min(NAME_LEN_MAX - TARGET_SUFFIX.len())];
    // Networks of these kinds are private to each machine, so that the source's addresses may be kept in both. What is
    // started for a test must not reach production.
    let user = || Network::User { forwards: Vec::new() };
    let isolated = || Network::IsolatedUser { forwards: Vec::new() };
    let mut nics = Vec::new();
    let mut test_nics = Vec::new();
    for nic in inventory.nics.iter().filter(|nic| nic.name != "lo") {
        let mac = is_mac(&nic.mac).then(|| nic.mac.clone());
        let (target, test) = mapped(nic);
        nics.push(Nic::new(mac.clone(), target.unwrap_or_else(user)));
        test_nics.push(Nic::new(mac, test.unwrap_or_else(isolated)));
    }
    if nics.is_empty() {
        let (target, test) = mapped(&NicFacts::default());
        nics.push(Nic::new(None, target.unwrap_or_else(user)));
        test_nics.push(Nic::new(None, test.unwrap_or_else(isolated)));
    }
    TargetSettings {
        name: format!("{short}{TARGET_SUFFIX}"),
        cpus: inventory.cpus.max(1),
        memory_bytes: inventory.memory_bytes.max(MEMORY_BYTES_MIN),
        firmware: inventory.firmware,
        disk_bus: DiskBus::default(),
        nics,
        test_nics,
    }
}

fn is_mac(text: &str) -> bool {
    let bytes: Vec<u8> = text
        .split(':')
        .filter(|part| part.len() == 2)
        .filter_map(|part| u8::from_str_radix(part, 16).ok())
        .collect();
    text.len() == 17 && bytes.len() == 6 && bytes[0] & 1 == 0 && bytes.iter().any(|byte| *byte != 0)
}

/// The disk of a machine that a person named.
pub(super) fn choose_disk<'a>(
    name: &str,
    inventory: &'a Inventory,
    id: &str,
) -> Result<&'a DiskFacts, VaultError> {
    inventory
        .disks
        .iter()
        .find(|disk| disk.stable_id == id)
        .ok_or_else(|| {
            let known: Vec<&str> = inventory
                .disks
                .iter()
                .map(|disk| disk.stable_id.as_str())
                .collect();
            VaultError::refused(
                "NoSuchDisk",
                format!("{name} has no disk {}", id.chars().take(200).collect::<String>()),
                format!(
                    "the id is misspelt or the disk was detached; known: {}",
                    known.join(", ")
                ),
                format!("see the disks of the machine: lifeboat machine show {name}"),
            )
        })
}

/// The disks to protect, the boot disk first.
fn choose_disks<'a>(
    name: &str,
    inventory: &'a Inventory,
    wanted: Option<&[String]>,
) -> Result<Vec<&'a DiskFacts>, VaultError> {
    let list = format!("see the disks of the machine: lifeboat machine show {name}");
    let mut chosen: Vec<&DiskFacts> = match wanted {
        None => inventory.disks.iter().collect(),
        Some(wanted) => {
            let mut chosen = Vec::new();
            for id in wanted {
                let disk = choose_disk(name, inventory, id)?;
                if !chosen.contains(&disk) {
                    chosen.push(disk);
                }
            }
            chosen
        }
    };
    if chosen.is_empty() {
        return Err(VaultError::refused(
            "NoDisks",
            format!("{name} has no disk to protect"),
            "its agent sees no whole disk, or none was named",
            list,
        ));
    }
    let boots = |disk: &&DiskFacts| disk.boot;
    if inventory.disks.iter().any(|disk| disk.boot) && !chosen.iter().any(boots) {
        return Err(VaultError::refused(
            "BootDiskExcluded",
            format!("the boot disk of {name} is not among the disks to protect"),
            "without it the machine cannot be started at the target",
            list,
        ));
    }
    chosen.sort_by_key(|disk| !disk.boot);
    Ok(chosen)
}

fn check_target(target: &TargetSettings) -> Result<(), VaultError> {
    let invalid = |field, rule: &str| {
        Err(VaultError::Invalid {
            field,
            rule: rule.to_owned(),
        })
    };
    let name = target.name.as_bytes();
    if !(1..=NAME_LEN_MAX).contains(&name.len())
        || !name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
        || name.starts_with(b"-")
        || name.ends_with(b"-")
    {
        return invalid(
            "target.name",
            "1 to 63 letters, digits and hyphens; starts and ends with a letter or digit",
        );
    }
    if !(1..=512).contains(&target.cpus) {
        return invalid("target.cpus", "1 to 512");
    }
    if !(MEMORY_BYTES_MIN..=16 << 40).contains(&target.memory_bytes) {
        return invalid("target.memoryBytes", "128 MiB to 16 TiB");
    }
    if target.nics.len() > 8 || target.test_nics.len() > 8 {
        return invalid("target.nics", "at most 8");
    }
    if target
        .nics
        .iter()
        .chain(&target.test_nics)
        .filter_map(|nic| nic.mac.as_deref())
        .any(|mac| !is_mac(mac))
    {
        return invalid("target.nics.mac", "a unicast address such as 52:54:00:12:34:56");
    }
    for nic in target.nics.iter().chain(&target.test_nics) {
        let private = matches!(nic.network, Network::User { .. } | Network::IsolatedUser { .. });
        if nic.address.is_some() && private {
            return invalid(
                "target.nics.address",
                "a user network has its own addresses; a NIC with an address is in an isolated network or on a bridge",
            );
        }
        if let Some(address) = &nic.address
            && (address
                .gateway
                .is_some_and(|gateway| !address.cidr.contains(gateway))
                || address.dns.len() > 4)
        {
            return invalid(
                "target.nics.address",
                "the gateway is in the subnet of the address, and there are at most 4 DNS servers",
            );
        }
    }
    Ok(())
}

pub(super) fn task(name: &str) -> Task {
    Task {
        name: name.to_owned(),
        state: TaskState::NotStarted,
        started_unix_nanos: None,
        ended_unix_nanos: None,
        message: String::new(),
        error: None,
    }
}

pub(super) fn new_job(
    kind: JobKind,
    machine: MachineId,
    user: &str,
    tasks: Vec<Task>,
    parameters: serde_json::Value,
) -> Job {
    Job {
        id: JobId::new(),
        kind,
        machine,
        state: JobState::NotStarted,
        user: user.to_owned(),
        created_unix_nanos: now_unix_nanos(),
        started_unix_nanos: None,
        ended_unix_nanos: None,
        parameters,
        result: serde_json::Value::Null,
        tasks,
        error: None,
        restart_of: None,
    }
}

/// A kind of job in words.
pub fn scenario(kind: JobKind) -> &'static str {
    match kind {
        JobKind::EnableReplication => "Enable replication",
        JobKind::DisableReplication => "Disable replication",
        JobKind::TestFailover => "Test failover",
        JobKind::TestFailoverCleanup => "Test failover cleanup",
        JobKind::PlannedFailover => "Planned failover",
        JobKind::UnplannedFailover => "Unplanned failover",
        JobKind::ChangeRecoveryPoint => "Change recovery point",
        JobKind::CommitFailover => "Commit",
        JobKind::CancelFailover => "Cancel failover",
        JobKind::Reprotect => "Reprotect",
        JobKind::Failback => "Failback",
        JobKind::Resynchronize => "Resynchronize",
        JobKind::ChangeDisks => "Change disks",
        JobKind::CreateRecoveryPoint => "Create recovery point",
        JobKind::Hydrate => "Hydrate",
        JobKind::CompleteMigration => "Complete migration",
    }
}

fn refuse_open_job(transaction: &Transaction<'_>, machine: MachineId, name: &str) -> Result<(), VaultError> {
    if let Some(job) = open_jobs_of(transaction, machine)?.first() {
        return Err(VaultError::refused(
            "JobInProgress",
            format!("a job of {name} is not over: {}", scenario(job.kind)),
            "one job at a time works on a machine",
            format!("wait for it: lifeboat job watch {}", job.id),
        ));
    }
    Ok(())
}

/// Why replication cannot be disabled now. An open EnableReplication is no reason: it is cancelled by it.
fn refuse_disable(item: &Item, open: &[Job]) -> Option<Refusal> {
    let facts = admission::Facts {
        item,
        open_job: open
            .iter()
            .map(|job| job.kind)
            .find(|kind| *kind != JobKind::EnableReplication),
        // What disabling does not depend on.
        usable_points: 0,
        source_connected: false,
        target_trouble: None,
        receiver_trouble: None,
    };
    admission::admit(Operation::DisableProtection, &facts).err()
}

impl Vault {
    /// Enables replication: the item, its disks and the job EnableReplication, in one transaction.
    ///
    /// `disks`: stable ids; None: all that the machine has. `target`: None: made from the inventory.
    pub fn enable(
        &self,
        id: MachineId,
        policy: &str,
        disks: Option<Vec<String>>,
        target: Option<TargetSettings>,
        user: &str,
    ) -> Result<JobId, VaultError> {
        self.enable_again(id, policy, disks, target, user, None)
    }

    /// As [`Self::enable`], as the restart of a job that failed: with the target settings that it had.
    pub fn enable_again(
        &self,
        id: MachineId,
        policy: &str,
        disks: Option<Vec<String>>,
        target: Option<TargetSettings>,
        user: &str,
        restart_of: Option<JobId>,
    ) -> Result<JobId, VaultError> {
        self.write(|transaction| {
            let row = machine(transaction, id)?.ok_or_else(|| unknown_machine(id))?;
            let name = &row.name;
            let known = item(transaction, id)?;
            let kept = known
                .as_ref()
                .is_some_and(|known| known.item.outlives_protection() && !known.item.is_migrated());
            match &known {
                Some(known) if known.item.is_migrated() => {
                    return Err(VaultError::refused(
                        "Migrated",
                        format!("{name} was migrated: it runs as {} at the target", known.item.target.name),
                        "its migration was completed, and this source is fenced for good",
                        format!(
                            "protect the machine at the target by an agent of its own; to use this source for something else: lifeboat machine remove {name}, then join it again"
                        ),
                    ));
                }
                Some(_) if kept => refuse_open_job(transaction, id, name)?,
                Some(known) if known.item.protection != ProtectionState::EnablingFailed => {
                    return Err(VaultError::refused(
                        "AlreadyReplicated",
                        format!("{name} is a replicated item already ({:?})", known.item.protection),
                        "replication was enabled before",
                        format!("see it: lifeboat machine show {name}"),
                    ));
                }
                _ => refuse_open_job(transaction, id, name)?,
            }
            if row.revoked {
                return Err(VaultError::refused(
                    "MachineRevoked",
                    format!("the certificates of {name} are revoked"),
                    "somebody removed the machine",
                    "join it again: lifeboat agent join",
                ));
            }
            let inventory = row.inventory.as_ref().ok_or_else(|| {
                VaultError::refused(
                    "NoInventory",
                    format!("nothing is known of the disks of {name} yet"),
                    "its agent has joined but not sent a heartbeat",
                    "start the agent on it and look for why it does not connect: lifeboat agent doctor",
                )
            })?;
            let broken: Vec<_> = inventory
                .checks
                .iter()
                .filter(|check| check.result == CheckResult::Error)
                .collect();
            if let Some(first) = broken.first() {
                let all: Vec<&str> = broken.iter().map(|check| check.message.as_str()).collect();
                return Err(VaultError::refused(
                    "PrerequisitesFailed",
                    format!("{name} does not meet the prerequisites: {}", all.join("; ")),
                    &first.causes,
                    &first.action,
                ));
            }
            let chosen = choose_disks(name, inventory, disks.as_deref())?;
            let vault = vault_id(transaction, &row.vault)?;
            let mapped = super::networks::mapped(transaction, vault)?;
            let target = target
                .or_else(|| known.as_ref().map(|known| known.item.target.clone()))
                .unwrap_or_else(|| target_mapped(name, inventory, &mapped));
            check_target(&target)?;
            let policy_id = usable(transaction, vault, policy)?;
            if known.is_some() {
                transaction.execute("DELETE FROM items WHERE machine = ?1", [id.to_string()])?;
            }
            // Points that were kept go on as points of the same disks: the agent compares, and retention takes them over.
            let id_of = |disk: &DiskFacts| {
                let before = known.iter().filter(|_| kept).flat_map(|known| &known.disks);
                let same = |old: &&ItemDisk| old.stable_id == disk.stable_id && old.size_bytes == disk.size_bytes;
                before.into_iter().find(same).map_or_else(DiskId::new, |old| old.id)
            };
            let ids: Vec<DiskId> = chosen.iter().map(|disk| id_of(disk)).collect();
            let before = known.as_ref().filter(|_| kept).map(|known| &known.item);
            let fresh = Item {
                machine: id,
                name: name.clone(),
                revision: 1,
                protection: ProtectionState::EnablingProtection,
                test_failover_state: TestFailoverState::None,
                active_location: ActiveLocation::Primary,
                generation: row.generation + 1,
                disks: ids.clone(),
                target,
                test_failover: None,
                failover: None,
                last_successful_test_unix_nanos: before
                    .and_then(|before| before.last_successful_test_unix_nanos),
                reprotect: None,
                line: before.map_or(0, |before| before.line + 1),
                kept_points: None,
            };
            transaction.execute(
                "UPDATE machines SET generation = ?2 WHERE id = ?1",
                params![id.to_string(), fresh.generation],
            )?;
            transaction.execute(
                "INSERT INTO items (machine, policy, revision, protection, body) VALUES (?1, ?2, 1, ?3, ?4)",
                params![
                    id.to_string(),
                    policy_id,
                    word(&fresh.protection)?,
                    serde_json::to_string(&fresh)?
                ],
            )?;
            for (position, (disk, disk_id)) in chosen.iter().zip(&ids).enumerate() {
                transaction.execute(
                    "INSERT INTO disks (id, machine, position, stable_id, size_bytes) VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![
                        disk_id.to_string(),
                        id.to_string(),
                        position,
                        disk.stable_id,
                        disk.size_bytes
                    ],
                )?;
            }
            let mut job = new_job(
                JobKind::EnableReplication,
                id,
                user,
                vec![task(TASK_REGISTER_DISKS), task(TASK_START_REPLICATION)],
                json!({
                    "policy": policy,
                    "disks": chosen.iter().map(|disk| &disk.stable_id).collect::<Vec<_>>(),
                }),
            );
            job.restart_of = restart_of;
            put_job(transaction, &job, name).map_err(from_journal)?;
            Ok(job.id)
        })
    }

    /// Disables replication: the item's state and the job DisableReplication, in one transaction. An EnableReplication
    /// that has not ended is cancelled by it.
    pub fn disable(&self, id: MachineId, user: &str) -> Result<JobId, VaultError> {
        self.disable_if(id, user, None, None, None)
    }

    /// As [`Self::disable`]; `revision`: the one that the caller read; `keep`: the recovery points stay. Of an item that is
    /// not protected any more: the points that were kept are removed, and with them the item, unless it was migrated.
    pub fn disable_if(
        &self,
        id: MachineId,
        user: &str,
        revision: Option<u64>,
        restart_of: Option<JobId>,
        keep: Option<KeepPoints>,
    ) -> Result<JobId, VaultError> {
        let now = now_unix_nanos();
        if keep
            .and_then(|keep| keep.until_unix_nanos)
            .is_some_and(|until| until <= now)
        {
            return Err(VaultError::Invalid {
                field: "keepUntil",
                rule: "after this moment".to_owned(),
            });
        }
        self.write(|transaction| {
            let row = item(transaction, id)?.ok_or_else(|| VaultError::NotFound {
                what: "replicated item",
                name: id.to_string(),
            })?;
            let mut changed = row.item;
            let name = changed.name.clone();
            if revision.is_some_and(|revision| revision != changed.revision) {
                return Err(VaultError::Conflict {
                    what: "replicated item",
                    name,
                });
            }
            let open = open_jobs_of(transaction, id)?;
            if let Some(refusal) = refuse_disable(&changed, &open) {
                return Err(VaultError::Refused(Box::new(refusal)));
            }
            if keep.is_some() && changed.protection == ProtectionState::Unprotected {
                return Err(VaultError::refused(
                    "NotProtected",
                    format!("{name} is not protected, and its points are kept already"),
                    "its protection was disabled before",
                    "disable it without keeping the points: they are removed",
                ));
            }
            for mut job in open {
                job.state = JobState::Cancelled;
                job.ended_unix_nanos = Some(now_unix_nanos());
                put_job(transaction, &job, &name).map_err(from_journal)?;
            }
            changed.protection = ProtectionState::DisablingProtection;
            put_item(transaction, &changed).map_err(from_journal)?;
            let mut job = new_job(
                JobKind::DisableReplication,
                id,
                user,
                vec![
                    task(TASK_STOP_REPLICATION),
                    task(if keep.is_some() {
                        TASK_KEEP_POINTS
                    } else {
                        TASK_REMOVE_REPLICA
                    }),
                ],
                match keep {
                    Some(keep) => json!({ "keepPoints": keep }),
                    None => json!({}),
                },
            );
            job.restart_of = restart_of;
            put_job(transaction, &job, &name).map_err(from_journal)?;
            Ok(job.id)
        })
    }

    /// Items whose kept points are not to be kept any longer.
    pub fn expired_points(&self, now: i64) -> Result<Vec<MachineId>, VaultError> {
        self.read(|transaction| {
            let rows: Vec<ItemRow> = transaction
                .prepare_cached(&item_sql("WHERE items.protection = 'Unprotected'"))?
                .query_map([], item_row)?
                .collect::<Result<_, _>>()?;
            let is_over = |row: &ItemRow| {
                let until = row.item.kept_points.and_then(|kept| kept.until_unix_nanos);
                until.is_some_and(|until| until <= now)
            };
            Ok(rows
                .iter()
                .filter(|row| is_over(row))
                .map(|row| row.item.machine)
                .collect())
        })
    }

    /// Changes how the machine is started at the target, from the next failover on. `revision`: the one that the caller
    /// read; None: whatever is stored.
    pub fn set_target(
        &self,
        machine: MachineId,
        target: TargetSettings,
        revision: Option<u64>,
    ) -> Result<ItemRow, VaultError> {
        check_target(&target)?;
        self.write(|transaction| {
            let row = item(transaction, machine)?.ok_or_else(|| VaultError::NotFound {
                what: "replicated item",
                name: machine.to_string(),
            })?;
            let mut changed = row.item;
            if revision.is_some_and(|revision| revision != changed.revision) {
                return Err(VaultError::Conflict {
                    what: "replicated item",
                    name: changed.name,
                });
            }
            changed.target = target;
            put_item(transaction, &changed).map_err(from_journal)?;
            item(transaction, machine)?.ok_or_else(|| unknown_machine(machine))
        })
    }

    /// Why replication cannot be disabled now.
    pub fn disable_refusal(&self, machine: MachineId) -> Result<Option<Refusal>, VaultError> {
        self.read(|transaction| {
            let row = item(transaction, machine)?.ok_or_else(|| unknown_machine(machine))?;
            Ok(refuse_disable(&row.item, &open_jobs_of(transaction, machine)?))
        })
    }

    pub fn item_row(&self, machine: MachineId) -> Result<ItemRow, VaultError> {
        self.read(|transaction| {
            item(transaction, machine)?.ok_or_else(|| VaultError::NotFound {
                what: "replicated item",
                name: machine.to_string(),
            })
        })
    }

    /// By name, from the one after `after`.
    pub fn item_rows(
        &self,
        vault: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<ItemRow>, VaultError> {
        self.read(|transaction| {
            let vault = vault_id(transaction, vault)?;
            let mut rows: Vec<ItemRow> = transaction
                .prepare_cached(&item_sql(
                    "WHERE machines.vault = ?1 AND machines.name > ?2 ORDER BY machines.name LIMIT ?3",
                ))?
                .query_map(params![vault, after.unwrap_or(""), limit], item_row)?
                .collect::<Result<_, _>>()?;
            for row in &mut rows {
                row.disks = disks_of(transaction, row.item.machine)?;
            }
            Ok(rows)
        })
    }

    pub fn all_items(&self) -> Result<Vec<ItemRow>, VaultError> {
        self.read(|transaction| {
            let rows = transaction
                .prepare_cached(&item_sql("ORDER BY machines.name"))?
                .query_map([], item_row)?
                .collect::<Result<_, _>>()?;
            Ok(rows)
        })
    }
}

/// Puts the NICs of replicated items that a mapping is for into its networks. Answers the names of those that changed.
pub(super) fn map_items(
    transaction: &Transaction<'_>,
    vault: i64,
    source: &str,
) -> Result<Vec<String>, VaultError> {
    let rows: Vec<ItemRow> = transaction
        .prepare_cached(&item_sql("WHERE machines.vault = ?1 ORDER BY machines.name"))?
        .query_map([vault], item_row)?
        .collect::<Result<_, _>>()?;
    let mut changed = Vec::new();
    for mut row in rows {
        let inventory = machine(transaction, row.item.machine)?.and_then(|known| known.inventory);
        let inventory = inventory.unwrap_or_default();
        if super::networks::remap(transaction, vault, source, &inventory, &mut row.item.target)? {
            put_item(transaction, &row.item).map_err(from_journal)?;
            changed.push(row.item.name);
        }
    }
    Ok(changed)
}

/// Inside a transaction of the vault's own.
pub(super) fn from_journal(error: JournalError) -> VaultError {
    match error {
        JournalError::Database(source) => VaultError::Database(source),
        JournalError::NoItem(machine) => VaultError::NotFound {
            what: "replicated item",
            name: machine.to_string(),
        },
        JournalError::NoJob(job) => VaultError::NotFound {
            what: "job",
            name: job.to_string(),
        },
        JournalError::Conflict => VaultError::Conflict {
            what: "replicated item",
            name: String::new(),
        },
    }
}

impl Journal for Vault {
    fn item(&self, machine: MachineId) -> Result<Item, JournalError> {
        self.read(|transaction| item(transaction, machine))?
            .map(|row| row.item)
            .ok_or(JournalError::NoItem(machine))
    }

    fn items(&self) -> Result<Vec<Item>, JournalError> {
        Ok(self.all_items()?.into_iter().map(|row| row.item).collect())
    }

    fn job(&self, id: JobId) -> Result<Job, JournalError> {
        self.read(|transaction| job(transaction, id))?
            .ok_or(JournalError::NoJob(id))
    }

    fn open_jobs(&self) -> Result<Vec<Job>, JournalError> {
        Ok(self.read(super::jobs::open_jobs)?)
    }

    fn resolve_nics(
        &self,
        machine: MachineId,
        nics: &[Nic],
    ) -> Result<Result<Vec<Nic>, Refusal>, JournalError> {
        Ok(self.read(|transaction| super::networks::resolve_nics(transaction, machine, nics))?)
    }

    fn record(&self, job: &Job, item: Option<&Item>) -> Result<(), JournalError> {
        let outcome = self.write(|transaction| {
            // Errors of the journal roll back like any other, and come out as they are.
            let run = || {
                let name: Option<String> = transaction
                    .query_row(
                        "SELECT name FROM machines WHERE id = ?1",
                        [job.machine.to_string()],
                        |row| row.get(0),
                    )
                    .optional()
                    .map_err(VaultError::from)?;
                let name = name.ok_or(JournalError::NoItem(job.machine))?;
                if let Some(item) = item {
                    put_item(transaction, item)?;
                }
                put_job(transaction, job, &name)
            };
            run().map_err(|error| VaultError::Database(Box::new(error)))
        });
        if let Some(item) = item.filter(|item| item.protection == ProtectionState::Unprotected)
            && outcome.is_ok()
        {
            self.forget_live(job.machine, item.kept_points.is_some());
        }
        outcome.map_err(|error| match error {
            VaultError::Database(source) => match source.downcast::<JournalError>() {
                Ok(error) => *error,
                Err(source) => JournalError::Database(source),
            },
            other => other.into(),
        })
    }
}
