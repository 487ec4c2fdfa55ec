//! Machines that joined: their names, certificates, heartbeats, and what each is to do.
use super::{Vault, VaultError, id_column, items, vault_id};
use crate::block::{DiskId, MachineId, PointId};
use crate::recovery::{Item, JobId, JobKind, ProtectionState, TaskState};
use crate::rt::now_unix_nanos;
use crate::wire::facts::Inventory;
use rusqlite::{OptionalExtension, Row, Transaction, params};

/// What the configuration server wants an agent to do. Handed out again and again: doing it twice is safe.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Desired {
    pub protect: bool,
    pub generation: u64,
    pub disks: Vec<DesiredDisk>,
    pub crash_consistent_seconds: u32,
    /// 0: off.
    pub app_consistent_seconds: u32,
    /// Grows with each order to resynchronize.
    pub resync_request: u64,
    /// Another one than before: somebody else wrote to the replica in between.
    pub line: u64,
    /// Grows with each order to make a point at once.
    pub sync_request: u64,
    /// The last of these that is for an app-consistent point and is open; 0: none.
    pub app_sync_request: u64,
    /// The machine's replication group shares a point this often; 0: it is in none.
    pub group_seconds: u32,
    /// Some: the machine was failed over; why, in words for its console.
    pub fenced: Option<String>,
    /// Number of an order to update the agent that is open.
    pub update: Option<u64>,
    /// The planned failover for which the machine is to be brought to rest and kept there.
    pub halt: Option<JobId>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct DesiredDisk {
    pub id: DiskId,
    pub stable_id: String,
    pub size_bytes: u64,
}

/// What an agent says of itself; kept in memory, except the time, the version and the inventory.
#[derive(Clone, Debug, Default)]
pub struct Heartbeat {
    pub at_unix_nanos: i64,
    /// Agent's clock minus server's.
    pub clock_skew_nanos: i64,
    pub agent_version: String,
    /// None: as before.
    pub inventory: Option<Inventory>,
    pub boot_id: String,
    pub phase: String,
    pub generation: u64,
    /// The last order to resynchronize that the agent carried out.
    pub resync_done: u64,
    pub disks: Vec<LiveDisk>,
    pub troubles: Vec<Trouble>,
    /// Of an order to halt.
    pub halt: Option<HaltReport>,
}

/// How far a machine is on its way to rest.
#[derive(Clone, Debug, PartialEq)]
pub struct HaltReport {
    pub job: JobId,
    /// It is at rest, and this point holds all that it wrote.
    pub point: Option<PointId>,
    /// Why it cannot be brought to rest.
    pub error: Option<String>,
}

#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveDisk {
    pub disk: DiskId,
    /// Words of the reference model: InitialReplicationPending, InitialReplicationInProgress, Protected, ...
    pub state: String,
    /// `ebpf` or `scan`.
    pub capture: String,
    pub pending_bytes: u64,
    pub done_bytes: u64,
    pub total_bytes: u64,
    pub read_bytes: u64,
    pub shipped_bytes: u64,
    pub changed_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trouble {
    pub code: String,
    /// Warning | Critical
    pub severity: String,
    pub message: String,
    pub possible_causes: String,
    pub recommended_action: String,
}

/// Whether a client certificate may still be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateStatus {
    Valid,
    Revoked,
    /// The machine has a newer one; this one is refused except to renew.
    Unknown,
}

/// A machine as the database holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct MachineRow {
    pub id: MachineId,
    pub vault: String,
    pub name: String,
    pub joined_unix_nanos: i64,
    pub agent_version: String,
    pub inventory: Option<Inventory>,
    pub last_heartbeat_unix_nanos: Option<i64>,
    pub generation: u64,
    pub revoked: bool,
    pub replicated: bool,
}

/// The time of a heartbeat is written this often; more would cost a disk flush per agent and beat.
const HEARTBEAT_WRITE_NANOS: i64 = 60 * 1_000_000_000;

const MACHINE: &str =
    "SELECT machines.id, vaults.name, machines.name, joined, agent_version, inventory, last_heartbeat,
    generation, revoked IS NOT NULL, EXISTS (SELECT 1 FROM items WHERE machine = machines.id)
    FROM machines JOIN vaults ON vaults.id = machines.vault";

fn machine_row(row: &Row<'_>) -> rusqlite::Result<MachineRow> {
    let inventory: Option<String> = row.get(5)?;
    Ok(MachineRow {
        id: id_column(row, 0)?,
        vault: row.get(1)?,
        name: row.get(2)?,
        joined_unix_nanos: row.get(3)?,
        agent_version: row.get(4)?,
        inventory: inventory
            .map(|text| serde_json::from_str(&text))
            .transpose()
            .map_err(|error| {
                rusqlite::Error::FromSqlConversionFailure(5, rusqlite::types::Type::Text, Box::new(error))
            })?,
        last_heartbeat_unix_nanos: row.get(6)?,
        generation: row.get(7)?,
        revoked: row.get(8)?,
        replicated: row.get(9)?,
    })
}

pub(super) fn unknown_machine(name: impl ToString) -> VaultError {
    VaultError::NotFound {
        what: "machine",
        name: name.to_string(),
    }
}

pub(super) fn machine(
    transaction: &Transaction<'_>,
    machine: MachineId,
) -> Result<Option<MachineRow>, VaultError> {
    Ok(transaction
        .prepare_cached(&format!(
            "{MACHINE} WHERE machines.id = ?1 AND machines.removed IS NULL"
        ))?
        .query_row([machine.to_string()], machine_row)
        .optional()?)
}

fn unchanged(transaction: &Transaction<'_>, id: MachineId, revision: Option<u64>) -> Result<(), VaultError> {
    let row = machine(transaction, id)?.ok_or_else(|| unknown_machine(id))?;
    if revision.is_some_and(|revision| revision != row.revision()) {
        return Err(VaultError::Conflict {
            what: "machine",
            name: row.name,
        });
    }
    Ok(())
}

impl MachineRow {
    /// Of what a person may change; the ETag.
    pub fn revision(&self) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher
            .update(self.id.as_bytes())
            .update(self.name.as_bytes())
            .update(&[u8::from(self.revoked), u8::from(self.replicated)]);
        let digest = hasher.finalize();
        let mut first = [0; 8];
        first.copy_from_slice(&digest.as_bytes()[..8]);
        u64::from_le_bytes(first)
    }
}

/// The rule of the reference model.
fn check_name(name: &str) -> Result<(), VaultError> {
    let bytes = name.as_bytes();
    let fine = (1..=63).contains(&bytes.len())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    if fine {
        Ok(())
    } else {
        // Bounded: it comes from outside and goes into logs.
        Err(VaultError::BadName(name.chars().take(80).collect()))
    }
}

fn refuse_taken_name(
    transaction: &Transaction<'_>,
    vault: i64,
    name: &str,
    own: Option<MachineId>,
) -> Result<(), VaultError> {
    let holder: Option<MachineId> = transaction
        .prepare_cached("SELECT id FROM machines WHERE vault = ?1 AND name = ?2")?
        .query_row(params![vault, name], |row| id_column(row, 0))
        .optional()?;
    match holder {
        Some(holder) if Some(holder) != own => Err(VaultError::DuplicateName(name.to_owned())),
        _ => Ok(()),
    }
}

pub(super) fn check_enrolment(name: &str, machine_key: &str) -> Result<(), VaultError> {
    check_name(name)?;
    if machine_key.trim().is_empty() || machine_key.len() > 256 {
        return Err(VaultError::Invalid {
            field: "machineKey",
            rule: "the machine's stable identity (its machine-id) has 1 to 256 characters".to_owned(),
        });
    }
    Ok(())
}

/// A machine of this name that was made from its manifest, whose identity nobody knew until now.
fn adopt_rebuilt(
    transaction: &Transaction<'_>,
    vault: i64,
    name: &str,
    machine_key: &str,
) -> Result<Option<MachineId>, VaultError> {
    let id = transaction
        .query_row(
            "UPDATE machines SET key = ?3 WHERE vault = ?1 AND name = ?2 AND key = ?4 || id RETURNING id",
            params![vault, name, machine_key, super::rebuild::KEY_PREFIX],
            |row| id_column(row, 0),
        )
        .optional()?;
    Ok(id)
}

/// After [`check_enrolment`].
pub(super) fn enrol(
    transaction: &Transaction<'_>,
    vault: i64,
    name: &str,
    machine_key: &str,
    version: &str,
) -> Result<MachineId, VaultError> {
    let known: Option<MachineId> = transaction
        .query_row(
            "SELECT id FROM machines WHERE vault = ?1 AND key = ?2",
            params![vault, machine_key],
            |row| id_column(row, 0),
        )
        .optional()?;
    let known = match known {
        Some(id) => Some(id),
        None => adopt_rebuilt(transaction, vault, name, machine_key)?,
    };
    refuse_taken_name(transaction, vault, name, known)?;
    let id = known.unwrap_or_else(MachineId::new);
    transaction.execute(
        "INSERT INTO machines (id, vault, name, key, joined, agent_version) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (id) DO UPDATE SET name = ?3, agent_version = ?6, revoked = NULL",
        params![
            id.to_string(),
            vault,
            name,
            machine_key,
            now_unix_nanos(),
            version
        ],
    )?;
    let text = if known.is_some() { "joined again" } else { "joined" };
    super::events::information(
        transaction,
        vault,
        "MachineJoined",
        Some(id),
        None,
        &format!("{name} {text} (agent {version})"),
    )?;
    Ok(id)
}

impl Vault {
    /// A machine joins. `machine_key`: its stable identity; the same key gets the same id again, also under a new name.
    /// Another key under a name that is taken: [`VaultError::DuplicateName`].
    pub fn enrol(
        &self,
        vault: &str,
        name: &str,
        machine_key: &str,
        version: &str,
    ) -> Result<MachineId, VaultError> {
        check_enrolment(name, machine_key)?;
        self.write(|transaction| {
            let vault = vault_id(transaction, vault)?;
            enrol(transaction, vault, name, machine_key, version)
        })
    }

    /// Gives a machine another name; allowed at any time. `revision`: [`MachineRow::revision`] that the caller read.
    pub fn rename(&self, machine: MachineId, name: &str, revision: Option<u64>) -> Result<(), VaultError> {
        check_name(name)?;
        self.write(|transaction| {
            unchanged(transaction, machine, revision)?;
            let vault: i64 = transaction
                .query_row(
                    "SELECT vault FROM machines WHERE id = ?1",
                    [machine.to_string()],
                    |row| row.get(0),
                )
                .optional()?
                .ok_or_else(|| unknown_machine(machine))?;
            refuse_taken_name(transaction, vault, name, Some(machine))?;
            transaction.execute(
                "UPDATE machines SET name = ?2 WHERE id = ?1",
                params![machine.to_string(), name],
            )?;
            Ok(())
        })
    }

    /// Removes a machine that is not replicated: its certificates are revoked, its name and key are free. Its jobs and
    /// events stay.
    pub fn remove_machine(&self, id: MachineId, revision: Option<u64>) -> Result<(), VaultError> {
        self.write(|transaction| {
            let row = machine(transaction, id)?.ok_or_else(|| unknown_machine(id))?;
            unchanged(transaction, id, revision)?;
            let name = &row.name;
            let migrated =
                items::item(transaction, id)?.is_some_and(|row| row.item.is_migrated() && row.item.kept_points.is_none());
            if migrated {
                transaction.execute("DELETE FROM items WHERE machine = ?1", [id.to_string()])?;
            } else if row.replicated {
                return Err(VaultError::refused(
                    "MachineReplicated",
                    format!("{name} is a replicated item"),
                    "its replication was not disabled",
                    format!("disable it first: lifeboat unprotect {name}"),
                ));
            }
            let now = now_unix_nanos();
            let at = jiff::Timestamp::from_nanosecond(i128::from(now)).unwrap_or_default();
            transaction.execute(
                "UPDATE machines SET removed = ?2, revoked = ifnull(revoked, ?2), name = ?3, key = ?4 WHERE id = ?1",
                params![
                    id.to_string(),
                    now,
                    format!("{name} (removed {at})"),
                    format!("removed {id}")
                ],
            )?;
            transaction.execute(
                "UPDATE certificates SET revoked = ?2 WHERE machine = ?1 AND revoked IS NULL",
                params![id.to_string(), now],
            )?;
            super::events::information(
                transaction,
                vault_id(transaction, &row.vault)?,
                "MachineRemoved",
                Some(id),
                None,
                &format!("{name} was removed from the vault"),
            )
        })?;
        self.live_map().remove(&id);
        Ok(())
    }

    /// Keeps the serial number of a certificate that was issued to a machine.
    pub fn certificate_issued(
        &self,
        machine: MachineId,
        serial: &str,
        not_after_unix: i64,
    ) -> Result<(), VaultError> {
        self.write(|transaction| {
            if super::machines::machine(transaction, machine)?.is_none() {
                return Err(unknown_machine(machine));
            }
            transaction.execute(
                "INSERT INTO certificates (serial, machine, issued, not_after_unix) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (serial) DO NOTHING",
                params![serial, machine.to_string(), now_unix_nanos(), not_after_unix],
            )?;
            // What expired long ago is refused by its date; keep the table small.
            transaction.execute(
                "DELETE FROM certificates WHERE machine = ?1 AND not_after_unix < ?2",
                params![
                    machine.to_string(),
                    now_unix_nanos() / 1_000_000_000 - 400 * 86_400
                ],
            )?;
            Ok(())
        })
    }

    /// Reads when the newest certificate of each machine ends, for its health.
    pub fn look_at_certificates(&self) -> Result<(), VaultError> {
        let ends: Vec<(MachineId, i64, i64)> = self.read(|transaction| {
            let rows = transaction
                .prepare_cached(
                    "SELECT machine, issued, not_after_unix FROM certificates AS newest WHERE number = (
                         SELECT max(number) FROM certificates WHERE machine = newest.machine)",
                )?
                .query_map([], |row| Ok((id_column(row, 0)?, row.get(1)?, row.get(2)?)))?
                .collect::<Result<_, _>>()?;
            Ok(rows)
        })?;
        for (machine, issued, until) in ends {
            let from = issued / 1_000_000_000;
            self.with_live(machine, |live| live.signs.certificate = Some((from, until)));
        }
        Ok(())
    }

    pub fn certificate_status(
        &self,
        machine: MachineId,
        serial: &str,
    ) -> Result<CertificateStatus, VaultError> {
        self.read(|transaction| {
            let Some(row) = super::machines::machine(transaction, machine)? else {
                return Ok(CertificateStatus::Revoked);
            };
            // (revoked, is the newest one)
            let certificate: Option<(bool, bool)> = transaction
                .prepare_cached(
                    "SELECT revoked IS NOT NULL, NOT EXISTS (SELECT 1 FROM certificates AS newer
                         WHERE newer.machine = certificates.machine AND newer.number > certificates.number)
                     FROM certificates WHERE serial = ?1 AND machine = ?2",
                )?
                .query_row(params![serial, machine.to_string()], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .optional()?;
            Ok(match certificate {
                Some((true, _)) => CertificateStatus::Revoked,
                None if row.revoked => CertificateStatus::Revoked,
                Some((false, true)) => CertificateStatus::Valid,
                Some((false, false)) | None => CertificateStatus::Unknown,
            })
        })
    }

    /// Revokes all certificates of a machine. `revision`: the one that the caller read; None: whatever is stored.
    pub fn revoke(&self, machine: MachineId, revision: Option<u64>) -> Result<(), VaultError> {
        self.write(|transaction| {
            let now = now_unix_nanos();
            let row =
                super::machines::machine(transaction, machine)?.ok_or_else(|| unknown_machine(machine))?;
            unchanged(transaction, machine, revision)?;
            transaction.execute(
                "UPDATE machines SET revoked = ?2 WHERE id = ?1",
                params![machine.to_string(), now],
            )?;
            transaction.execute(
                "UPDATE certificates SET revoked = ?2 WHERE machine = ?1 AND revoked IS NULL",
                params![machine.to_string(), now],
            )?;
            super::events::information(
                transaction,
                vault_id(transaction, &row.vault)?,
                "MachineRevoked",
                Some(machine),
                None,
                &format!("the certificates of {} were revoked", row.name),
            )
        })
    }

    pub fn heartbeat(&self, machine: MachineId, heartbeat: Heartbeat) -> Result<(), VaultError> {
        struct Known {
            version: String,
            inventory: Option<String>,
            last: Option<i64>,
        }
        let known = self.read(|transaction| {
            transaction
                .prepare_cached(
                    "SELECT agent_version, inventory, last_heartbeat FROM machines WHERE id = ?1",
                )?
                .query_row([machine.to_string()], |row| {
                    Ok(Known {
                        version: row.get(0)?,
                        inventory: row.get(1)?,
                        last: row.get(2)?,
                    })
                })
                .optional()?
                .ok_or_else(|| unknown_machine(machine))
        })?;
        let at = heartbeat.at_unix_nanos;
        let inventory = heartbeat
            .inventory
            .as_ref()
            .map(serde_json::to_string)
            .transpose()?;
        let news = inventory.is_some() && inventory != known.inventory;
        let due = known
            .last
            .is_none_or(|last| (at - last).abs() >= HEARTBEAT_WRITE_NANOS);
        if news || due || known.version != heartbeat.agent_version {
            self.write(|transaction| {
                if news {
                    transaction.execute(
                        "UPDATE machines SET inventory = ?2 WHERE id = ?1",
                        params![machine.to_string(), inventory],
                    )?;
                    if let (None, Some(first)) = (&known.inventory, &heartbeat.inventory) {
                        super::rebuild::first_inventory(transaction, machine, first)?;
                    }
                }
                transaction.execute(
                    "UPDATE machines SET agent_version = ?2, last_heartbeat = ?3 WHERE id = ?1",
                    params![machine.to_string(), heartbeat.agent_version, at],
                )?;
                Ok(())
            })?;
        }
        let shipped_bytes = self.with_live(machine, |live| {
            live.beat(Heartbeat {
                inventory: None,
                ..heartbeat
            })
        });
        if shipped_bytes > 0 {
            let sum = super::churn::Sum {
                shipped_bytes,
                ..super::churn::Sum::default()
            };
            self.measured(machine, at, sum);
        }
        Ok(())
    }

    pub fn desired(&self, machine: MachineId) -> Result<Desired, VaultError> {
        self.read(|transaction| {
            let mut desired = transaction
                .prepare_cached(
                    "SELECT generation, sync_request, resync_request, update_request, update_state
                     FROM machines WHERE id = ?1",
                )?
                .query_row([machine.to_string()], |row| {
                    let state: Option<String> = row.get(4)?;
                    let request = row.get(3)?;
                    Ok(Desired {
                        generation: row.get(0)?,
                        sync_request: row.get(1)?,
                        resync_request: row.get(2)?,
                        update: super::updates::is_open(state.as_deref()).then_some(request),
                        ..Desired::default()
                    })
                })
                .optional()?
                .ok_or_else(|| unknown_machine(machine))?;
            let Some(row) = items::item(transaction, machine)? else {
                return Ok(desired);
            };
            desired.generation = row.item.generation;
            desired.line = row.item.line;
            desired.crash_consistent_seconds = row.policy.crash_consistent_seconds;
            desired.app_consistent_seconds = row.policy.app_consistent_seconds;
            desired.disks = row
                .disks
                .into_iter()
                .map(|disk| DesiredDisk {
                    id: disk.id,
                    stable_id: disk.stable_id,
                    size_bytes: disk.size_bytes,
                })
                .collect();
            desired.group_seconds = super::groups::seconds_of(transaction, machine)?;
            desired.app_sync_request = super::on_demand::open_app_order(transaction, machine)?;
            desired.fenced = fenced(&row.item);
            if desired.fenced.is_none() {
                desired.halt = halting(transaction, machine)?;
            }
            desired.protect = desired.fenced.is_none()
                && match row.item.protection {
                    ProtectionState::EnablingProtection => disks_registered(transaction, machine)?,
                    state => replicates(state),
                };
            Ok(desired)
        })
    }

    fn bump(&self, machine: MachineId, sql: &str) -> Result<u64, VaultError> {
        self.write(|transaction| {
            transaction
                .query_row(sql, [machine.to_string()], |row| row.get(0))
                .optional()?
                .ok_or_else(|| unknown_machine(machine))
        })
    }

    /// Orders a recovery point at once; the number of this order.
    pub fn request_sync(&self, machine: MachineId) -> Result<u64, VaultError> {
        self.bump(
            machine,
            "UPDATE machines SET sync_request = sync_request + 1 WHERE id = ?1 RETURNING sync_request",
        )
    }

    pub fn machine(&self, machine: MachineId) -> Result<MachineRow, VaultError> {
        self.read(|transaction| {
            super::machines::machine(transaction, machine)?.ok_or_else(|| unknown_machine(machine))
        })
    }

    /// By name or by id.
    pub fn find_machine(&self, vault: &str, name: &str) -> Result<MachineRow, VaultError> {
        self.read(|transaction| {
            let vault = vault_id(transaction, vault)?;
            transaction
                .prepare_cached(&format!(
                    "{MACHINE} WHERE machines.vault = ?1 AND (machines.name = ?2 OR machines.id = ?2) AND machines.removed IS NULL
                     ORDER BY machines.id = ?2 DESC LIMIT 1"
                ))?
                .query_row(params![vault, name], machine_row)
                .optional()?
                .ok_or_else(|| unknown_machine(name))
        })
    }

    /// By name, from the one after `after`.
    pub fn machines(
        &self,
        vault: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<MachineRow>, VaultError> {
        self.read(|transaction| {
            let vault = vault_id(transaction, vault)?;
            let rows = transaction
                .prepare_cached(&format!(
                    "{MACHINE} WHERE machines.vault = ?1 AND machines.removed IS NULL AND machines.name > ?2
                     ORDER BY machines.name LIMIT ?3"
                ))?
                .query_map(params![vault, after.unwrap_or(""), limit], machine_row)?
                .collect::<Result<_, _>>()?;
            Ok(rows)
        })
    }
}

/// States in which the source ships. After a failover was asked for it goes on until it is fenced: the latest point is
/// worth waiting for.
pub(super) fn replicates(state: ProtectionState) -> bool {
    matches!(
        state,
        ProtectionState::InitialReplicationInProgress
            | ProtectionState::Protected
            | ProtectionState::InitialReplicationFailed
            | ProtectionState::UnplannedFailoverInitiated
            | ProtectionState::PlannedFailoverInitiated
            | ProtectionState::ReprotectInitiated
    )
}

/// The planned failover that wants the machine at rest: from its step on, until it fences the source or has failed.
fn halting(transaction: &Transaction<'_>, machine: MachineId) -> Result<Option<JobId>, VaultError> {
    let jobs = super::jobs::open_jobs_of(transaction, machine)?;
    let wants = |job: &&crate::recovery::Job| {
        job.kind == JobKind::PlannedFailover
            && job.error.is_none()
            && job.tasks.iter().any(|task| {
                task.name == crate::recovery::STOP_SOURCE
                    && matches!(task.state, TaskState::InProgress | TaskState::Succeeded)
            })
    };
    Ok(jobs.iter().find(wants).map(|job| job.id))
}

fn disks_registered(transaction: &Transaction<'_>, machine: MachineId) -> Result<bool, VaultError> {
    let jobs = super::jobs::open_jobs_of(transaction, machine)?;
    Ok(jobs
        .iter()
        .filter(|job| job.kind == JobKind::EnableReplication)
        .flat_map(|job| &job.tasks)
        .any(|task| task.name == items::TASK_REGISTER_DISKS && task.state == TaskState::Succeeded))
}

fn fenced(item: &Item) -> Option<String> {
    let away = item.source_is_fenced() && !item.is_home();
    if item.is_migrated() {
        return Some(format!(
            "{} was migrated: it runs as {} at the target site for good. This machine is fenced and must not be used as \
             {0} again.",
            item.name, item.target.name
        ));
    }
    away.then(|| {
        let target = item
            .failover
            .as_ref()
            .map_or(&item.target.name, |failover| &failover.machine.name);
        format!(
            "{} was failed over and runs as {target} at the target site. Writes on this machine are no longer \
             replicated; keep it out of production.",
            item.name
        )
    })
}
