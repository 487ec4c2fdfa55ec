//! Whether the process server may be given another machine. Known in memory: what rings is measured anew after a restart.
use super::{HealthError, Vault, VaultError};
use crate::block::MachineId;

/// A critical alarm that has lasted.
#[derive(Clone, Debug)]
pub struct ServerTrouble {
    pub error: HealthError,
    /// Some: it is about room, and hits only machines that do not fit into it.
    pub free_bytes: Option<u64>,
}

impl Vault {
    /// Replaces what was said before.
    pub fn set_server_troubles(&self, troubles: Vec<ServerTrouble>) {
        *self.server_troubles() = troubles;
    }

    /// Why no further machine may be given to the process server: one that is unhealthy takes none.
    pub fn server_refusal(
        &self,
        machine: MachineId,
        disks: Option<&[String]>,
    ) -> Result<Option<VaultError>, VaultError> {
        let troubles = self.server_troubles().clone();
        if troubles.is_empty() {
            return Ok(None);
        }
        let row = self.machine(machine)?;
        let bytes = row.inventory.as_ref().map_or(0, |inventory| {
            inventory
                .disks
                .iter()
                .filter(|disk| disks.is_none_or(|chosen| chosen.contains(&disk.stable_id)))
                .map(|disk| disk.size_bytes)
                .sum::<u64>()
        });
        let hit = |trouble: &ServerTrouble| trouble.free_bytes.is_none_or(|free| free < bytes);
        Ok(troubles.into_iter().find(hit).map(|trouble| {
            let error = trouble.error;
            VaultError::refused(
                "ProcessServerCritical",
                format!("the process server takes no further machine: {}", error.message),
                error.possible_causes,
                format!(
                    "{}; or enable all the same: lifeboat protect {} --accept-critical-server",
                    error.recommended_action, row.name
                ),
            )
        }))
    }
}
