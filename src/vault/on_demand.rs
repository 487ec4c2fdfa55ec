//! Recovery points that a person asks for. The order goes out with the desired state; the job is over when a point that
//! answers it is sealed. An app-consistent one that became less is a failure that names the point all the same.
use super::items::{item, new_job, task};
use super::jobs::{open_jobs_of, put_job};
use super::{Vault, VaultError};
use crate::block::MachineId;
use crate::recovery::{JobId, JobKind};
use rusqlite::Transaction;
use serde_json::json;

/// Task of CreateRecoveryPoint: over when the point is at the target.
pub const TASK_MAKE_POINT: &str = "MakeRecoveryPoint";

/// The newest open order for an app-consistent point; 0: there is none.
pub(super) fn open_app_order(transaction: &Transaction<'_>, machine: MachineId) -> Result<u64, VaultError> {
    let jobs = open_jobs_of(transaction, machine)?;
    let orders = jobs
        .iter()
        .filter(|job| job.kind == JobKind::CreateRecoveryPoint && job.parameters["appConsistent"] == true)
        .filter_map(|job| job.parameters["order"].as_u64());
    Ok(orders.max().unwrap_or_default())
}

impl Vault {
    /// Orders a recovery point at once.
    pub fn create_point(
        &self,
        id: MachineId,
        app_consistent: bool,
        user: &str,
        restart_of: Option<JobId>,
    ) -> Result<JobId, VaultError> {
        self.write(|transaction| {
            let row = item(transaction, id)?.ok_or_else(|| VaultError::NotFound {
                what: "replicated item",
                name: id.to_string(),
            })?;
            let name = &row.item.name;
            if row.item.active_location != crate::recovery::ActiveLocation::Primary
                || !super::machines::replicates(row.item.protection)
            {
                return Err(VaultError::refused(
                    "NotReplicating",
                    format!(
                        "{name} is not replicated from its source now: {:?}",
                        row.item.protection
                    ),
                    "protection is being enabled or disabled, or the machine was failed over",
                    format!("see its state: lifeboat machine show {name}"),
                ));
            }
            let order: u64 = transaction.query_row(
                "UPDATE machines SET sync_request = sync_request + 1 WHERE id = ?1 RETURNING sync_request",
                [id.to_string()],
                |row| row.get(0),
            )?;
            let mut job = new_job(
                JobKind::CreateRecoveryPoint,
                id,
                user,
                vec![task(TASK_MAKE_POINT)],
                json!({ "order": order, "appConsistent": app_consistent }),
            );
            job.restart_of = restart_of;
            put_job(transaction, &job, name).map_err(super::items::from_journal)?;
            Ok(job.id)
        })
    }
}
