//! Orders to update the agent of a machine, and what became of them.
use super::events::{self, NewEvent, Severity};
use super::{Vault, VaultError, machines, vault_id};
use crate::block::MachineId;
use rusqlite::{OptionalExtension, Transaction, params};

/// The newest order for a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentUpdate {
    /// 0: never ordered.
    pub request: u64,
    /// Ordered, Trying, Confirmed, RolledBack, Failed; None: never ordered.
    pub state: Option<String>,
    pub message: String,
    pub agent_version: String,
}

/// Whether the agent has still to act.
pub(super) fn is_open(state: Option<&str>) -> bool {
    matches!(state, Some("Ordered" | "Trying"))
}

fn update(transaction: &Transaction<'_>, machine: MachineId) -> Result<AgentUpdate, VaultError> {
    transaction
        .prepare_cached(
            "SELECT update_request, update_state, update_message, agent_version FROM machines WHERE id = ?1",
        )?
        .query_row([machine.to_string()], |row| {
            Ok(AgentUpdate {
                request: row.get(0)?,
                state: row.get(1)?,
                message: row.get(2)?,
                agent_version: row.get(3)?,
            })
        })
        .optional()?
        .ok_or_else(|| machines::unknown_machine(machine))
}

impl Vault {
    pub fn agent_update(&self, machine: MachineId) -> Result<AgentUpdate, VaultError> {
        self.read(|transaction| update(transaction, machine))
    }

    /// Orders the agent to run the server's executable. An order that is open already is left as it is.
    pub fn order_update(
        &self,
        machine: MachineId,
        server_version: &str,
        server_architecture: &str,
    ) -> Result<AgentUpdate, VaultError> {
        self.write(|transaction| {
            let row = machines::machine(transaction, machine)?
                .ok_or_else(|| machines::unknown_machine(machine))?;
            let known = update(transaction, machine)?;
            if is_open(known.state.as_deref()) {
                return Ok(known);
            }
            if row.revoked {
                return Err(VaultError::refused(
                    "MachineRevoked",
                    format!("the certificates of {} were revoked", row.name),
                    "an administrator locked the machine out",
                    "let it join again first: lifeboat server join-token",
                ));
            }
            if row.agent_version == server_version {
                return Err(VaultError::refused(
                    "AgentUpToDate",
                    format!("the agent of {} has the server's version, {server_version}", row.name),
                    "it was updated before, or the server was not updated yet",
                    "nothing; to update agents, update the server first",
                ));
            }
            let architecture = row.inventory.map(|inventory| inventory.architecture);
            if let Some(other) = architecture.filter(|found| !found.is_empty() && found != server_architecture) {
                return Err(VaultError::refused(
                    "OtherArchitecture",
                    format!("{} is {other}, the server's executable is for {server_architecture}", row.name),
                    "the server hands out its own executable",
                    "update the executable on the machine by hand and restart its service",
                ));
            }
            transaction.execute(
                "UPDATE machines SET update_request = update_request + 1, update_state = 'Ordered', update_message = ''
                 WHERE id = ?1",
                [machine.to_string()],
            )?;
            events::information(
                transaction,
                vault_id(transaction, &row.vault)?,
                "AgentUpdateOrdered",
                Some(machine),
                None,
                &format!("the agent of {} is to be updated from {} to {server_version}", row.name, row.agent_version),
            )?;
            update(transaction, machine)
        })
    }

    /// What an agent says of an order. One that is not the newest, or is over, says nothing new.
    pub fn update_reported(
        &self,
        machine: MachineId,
        request: u64,
        state: &str,
        message: &str,
    ) -> Result<(), VaultError> {
        let is_news = |known: &AgentUpdate| {
            known.request == request
                && is_open(known.state.as_deref())
                && known.state.as_deref() != Some(state)
                && ["Trying", "Confirmed", "RolledBack", "Failed"].contains(&state)
        };
        if !self.read(|transaction| Ok(is_news(&update(transaction, machine)?)))? {
            return Ok(());
        }
        self.write(|transaction| {
            if !is_news(&update(transaction, machine)?) {
                return Ok(());
            }
            transaction.execute(
                "UPDATE machines SET update_state = ?2, update_message = ?3 WHERE id = ?1",
                params![machine.to_string(), state, message],
            )?;
            let row =
                machines::machine(transaction, machine)?.ok_or_else(|| machines::unknown_machine(machine))?;
            let vault = vault_id(transaction, &row.vault)?;
            match state {
                "Confirmed" => events::information(
                    transaction,
                    vault,
                    "AgentUpdated",
                    Some(machine),
                    None,
                    &format!("the agent of {} was updated", row.name),
                ),
                "RolledBack" | "Failed" => events::insert(
                    transaction,
                    vault,
                    &NewEvent {
                        severity: Severity::Warning,
                        code: "AgentUpdateFailed".to_owned(),
                        machine: Some(machine),
                        job: None,
                        message: format!("the agent of {} was not updated: {message}", row.name),
                        possible_causes:
                            "the new executable does not run there, or did not reach the server in time; \
                                          or there was no room"
                                .to_owned(),
                        recommended_action:
                            "the agent goes on with its previous version; look at its log, then order again: \
                                             lifeboat machine update-agent"
                                .to_owned(),
                    },
                ),
                _ => Ok(()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::DEFAULT_VAULT;

    #[test]
    fn an_order_is_handed_out_until_it_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::open(&folder.path().join("vault.db")).unwrap();
        let machine = vault.enrol(DEFAULT_VAULT, "web1", "key", "1").unwrap();
        let refused = vault.order_update(machine, "1", "x86_64").unwrap_err();
        assert!(matches!(refused, VaultError::Refused(refusal) if refusal.code == "AgentUpToDate"));
        assert_eq!(vault.desired(machine).unwrap().update, None);
        assert_eq!(vault.order_update(machine, "2", "x86_64").unwrap().request, 1);
        assert_eq!(
            vault.order_update(machine, "2", "x86_64").unwrap().request,
            1,
            "it is open"
        );
        let report = |request, state| vault.update_reported(machine, request, state, "why").unwrap();
        report(0, "Confirmed");
        report(1, "Nonsense");
        report(1, "Trying");
        assert_eq!(vault.desired(machine).unwrap().update, Some(1));
        report(1, "RolledBack");
        report(1, "Confirmed");
        assert_eq!(vault.desired(machine).unwrap().update, None);
        assert_eq!(
            vault.agent_update(machine).unwrap().state.as_deref(),
            Some("RolledBack")
        );
        assert_eq!(vault.order_update(machine, "2", "x86_64").unwrap().request, 2);
        report(1, "Failed");
        assert_eq!(vault.desired(machine).unwrap().update, Some(2));
    }
}
