//! The vault brought together with a store that knows more: after a restore of an older backup, or when the database is lost
//! and only manifests are left.
//!
//! What a manifest tells: machines, their disks, their generation, their points. Rebuilt items are Protected where a point is
//! there, so that a failover is possible at once, under a policy that keeps points for as long as is allowed: the default
//! one might thin what another policy kept. Everything is compared once. Users, policies, target settings are not in the
//! manifests.
use super::events::{self, NewEvent, Severity};
use super::policies::{self, NewPolicy};
use super::{DEFAULT_VAULT, Vault, VaultError, items, machines, vault_id, word};
use crate::block::MachineId;
use crate::recovery::{ActiveLocation, Item, ProtectionState, TestFailoverState};
use crate::replica::{MachineSummary, Store};
use crate::rt::now_unix_nanos;
use crate::wire::facts::Inventory;
use rusqlite::{OptionalExtension, Transaction, params};

pub(super) const POLICY: &str = "rebuilt";
/// The longest that a policy may keep points.
const RETENTION_HOURS: u32 = 360;
/// In place of the machine's stable identity, which no manifest holds; the next who joins under the name brings it.
pub(super) const KEY_PREFIX: &str = "rebuilt:";

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Items made from manifests.
    pub rebuilt: usize,
    /// Items whose generation the store had raised since.
    pub raised: usize,
}

/// What a manifest tells of one machine.
struct Found {
    summary: MachineSummary,
    disks: Vec<crate::replica::DiskSpec>,
    pinned: bool,
}

impl Vault {
    /// After [`super::Backups::restore`], and for a database that was made anew beside a store that is not: makes what the
    /// store knows and the database does not. Does nothing to a database that was neither restored nor is without machines.
    pub fn adopt_store(&self, store: &Store, rebuild: bool) -> Result<Adopted, VaultError> {
        let mut found = Vec::new();
        for summary in store.machines() {
            let of_store = |error: crate::replica::ReplicaError| VaultError::Database(Box::new(error));
            let points = store.points(summary.id).map_err(of_store)?;
            let newest = points
                .iter()
                .rev()
                .find(|point| point.consistency > crate::block::Consistency::Fuzzy);
            let mut disks = store.disks(summary.id).map_err(of_store)?;
            // A disk that was excluded since stands in the store too. With it among the machine's, no newer point could be used.
            disks.retain(|disk| newest.is_none_or(|point| point.disks.contains(&disk.id)));
            found.push(Found {
                disks,
                pinned: !store.pins(summary.id).map_err(of_store)?.is_empty(),
                summary,
            });
        }
        self.write(|transaction| {
            let restored: Option<String> = transaction
                .query_row("SELECT value FROM settings WHERE key = 'restored'", [], |row| row.get(0))
                .optional()?;
            if restored.is_none() && !rebuild {
                return Ok(Adopted::default());
            }
            let mut adopted = Adopted::default();
            for machine in &found {
                adopt(transaction, machine, &mut adopted)?;
            }
            transaction.execute("DELETE FROM settings WHERE key = 'restored'", [])?;
            let vault = vault_id(transaction, DEFAULT_VAULT)?;
            let source = restored.map_or_else(
                || "from the manifests of the store alone".to_owned(),
                |name| format!("from backup {name} and the manifests of the store"),
            );
            warn(
                transaction,
                vault,
                None,
                "VaultRebuilt",
                format!(
                    "the vault was made again {source}: {} items rebuilt, {} generations raised",
                    adopted.rebuilt, adopted.raised
                ),
                "the database was lost or restored",
                "look at each machine: where it runs, its policy, its target settings; revoke again what was revoked since \
                 the backup; make users and policies that are missing",
            )?;
            Ok(adopted)
        })
    }
}

fn warn(
    transaction: &Transaction<'_>,
    vault: i64,
    machine: Option<MachineId>,
    code: &str,
    message: String,
    causes: &str,
    action: &str,
) -> Result<(), VaultError> {
    events::insert(
        transaction,
        vault,
        &NewEvent {
            severity: Severity::Critical,
            code: code.to_owned(),
            machine,
            job: None,
            message,
            possible_causes: causes.to_owned(),
            recommended_action: action.to_owned(),
        },
    )
}

fn adopt(transaction: &Transaction<'_>, found: &Found, adopted: &mut Adopted) -> Result<(), VaultError> {
    let (id, name) = (found.summary.id, &found.summary.name);
    if let Some(row) = items::item(transaction, id)? {
        let item = row.item;
        if item.generation >= found.summary.generation {
            return Ok(());
        }
        // A failover, or disabling and enabling, came after the backup. The store turns older writers away for ever.
        let raised = Item {
            generation: found.summary.generation,
            ..item
        };
        items::put_item(transaction, &raised).map_err(|error| VaultError::Database(Box::new(error)))?;
        compare_once(transaction, id)?;
        adopted.raised += 1;
        return may_run_elsewhere(transaction, &row.vault, id, name);
    }
    if found.disks.is_empty() {
        return Ok(());
    }
    let known = machines::machine(transaction, id)?;
    let vault_name = known
        .as_ref()
        .map_or(DEFAULT_VAULT, |row| row.vault.as_str())
        .to_owned();
    let vault = vault_id(transaction, &vault_name)?;
    if known.is_none() {
        let taken: bool = transaction.query_row(
            "SELECT EXISTS (SELECT 1 FROM machines WHERE vault = ?1 AND name = ?2)",
            params![vault, name],
            |row| row.get(0),
        )?;
        let short = id.to_string();
        let named = if taken || !crate::wire::is_machine_name(name) {
            format!("rebuilt-{}", &short[short.len() - 12..])
        } else {
            name.clone()
        };
        transaction.execute(
            "INSERT INTO machines (id, vault, name, key, joined, agent_version) VALUES (?1, ?2, ?3, ?4, ?5, '')",
            params![id.to_string(), vault, named, format!("{KEY_PREFIX}{id}"), now_unix_nanos()],
        )?;
    }
    let inventory = known.and_then(|row| row.inventory).unwrap_or_default();
    insert_item(transaction, vault, found, &inventory)?;
    compare_once(transaction, id)?;
    adopted.rebuilt += 1;
    if found.pinned {
        may_run_elsewhere(transaction, &vault_name, id, name)?;
    }
    Ok(())
}

fn insert_item(
    transaction: &Transaction<'_>,
    vault: i64,
    found: &Found,
    inventory: &Inventory,
) -> Result<(), VaultError> {
    let find = || {
        transaction
            .query_row(
                "SELECT id FROM policies WHERE vault = ?1 AND name = ?2",
                params![vault, POLICY],
                |row| row.get::<_, i64>(0),
            )
            .optional()
    };
    if find()?.is_none() {
        let policy = NewPolicy {
            retention_hours: RETENTION_HOURS,
            ..NewPolicy::named(POLICY)
        };
        policies::insert(transaction, vault, &policy)?;
    }
    let policy = find()?.ok_or(VaultError::NotFound {
        what: "policy",
        name: POLICY.to_owned(),
    })?;
    let (id, name): (MachineId, String) = (
        found.summary.id,
        transaction.query_row(
            "SELECT name FROM machines WHERE id = ?1",
            [found.summary.id.to_string()],
            |row| row.get(0),
        )?,
    );
    let item = Item {
        machine: id,
        name: name.clone(),
        revision: 1,
        protection: if found.summary.points > 0 {
            ProtectionState::Protected
        } else {
            ProtectionState::InitialReplicationInProgress
        },
        test_failover_state: TestFailoverState::None,
        active_location: ActiveLocation::Primary,
        generation: found.summary.generation,
        disks: found.disks.iter().map(|disk| disk.id).collect(),
        target: items::default_target(&name, inventory),
        test_failover: None,
        failover: None,
        last_successful_test_unix_nanos: None,
        reprotect: None,
        line: 0,
        kept_points: None,
    };
    transaction.execute(
        "UPDATE machines SET generation = max(generation, ?2) WHERE id = ?1",
        params![id.to_string(), item.generation],
    )?;
    transaction.execute(
        "INSERT INTO items (machine, policy, revision, protection, body) VALUES (?1, ?2, 1, ?3, ?4)",
        params![
            id.to_string(),
            policy,
            word(&item.protection)?,
            serde_json::to_string(&item)?
        ],
    )?;
    for (position, disk) in found.disks.iter().enumerate() {
        transaction.execute(
            "INSERT INTO disks (id, machine, position, stable_id, size_bytes) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                disk.id.to_string(),
                id.to_string(),
                position,
                disk.name,
                disk.size_bytes
            ],
        )?;
    }
    Ok(())
}

/// A number that the agent has surely not acted on.
fn compare_once(transaction: &Transaction<'_>, machine: MachineId) -> Result<(), VaultError> {
    transaction.execute(
        "UPDATE machines SET resync_request = max(resync_request + 1, ?2) WHERE id = ?1",
        params![machine.to_string(), now_unix_nanos() / 1_000_000_000],
    )?;
    Ok(())
}

fn may_run_elsewhere(
    transaction: &Transaction<'_>,
    vault: &str,
    machine: MachineId,
    name: &str,
) -> Result<(), VaultError> {
    warn(
        transaction,
        vault_id(transaction, vault)?,
        Some(machine),
        "MayRunAtTarget",
        format!("{name} may have been failed over, or under test, when the database was lost"),
        "the store holds a point for a machine that was started, or its generation was raised after the backup",
        "look whether it runs at the target (folder vms of the data folder, processes of the hypervisor) before its source is \
         used again",
    )
}

/// The first inventory after a rebuild: the target settings were made without one.
pub(super) fn first_inventory(
    transaction: &Transaction<'_>,
    machine: MachineId,
    inventory: &Inventory,
) -> Result<(), VaultError> {
    let Some(row) = items::item(transaction, machine)? else {
        return Ok(());
    };
    let mut item = row.item;
    if item.target != items::default_target(&item.name, &Inventory::default()) {
        return Ok(());
    }
    item.target = items::default_target(&item.name, inventory);
    items::put_item(transaction, &item).map_err(|error| VaultError::Database(Box::new(error)))
}
