//! Who may take a machine's replica home.
use super::control::admit_certificate;
use super::roster::Roster;
use crate::block::{Consistency, MachineId};
use crate::process_server::{
    Handover, NOTHING_TO_RECEIVE, ReceiveDisk, ReceiveOrder, ReceivePoint, ReceiveReport,
};
use crate::recovery::ActiveLocation;
use crate::replica::Store;
use crate::vault::{ItemRow, Vault};
use crate::wire::Refused;
use std::sync::Arc;

/// The vault's word on the way home: an item names its receiver from the reprotect on.
pub struct HandoverDesk {
    vault: Vault,
    store: Store,
    roster: Arc<Roster>,
}

impl HandoverDesk {
    pub fn new(vault: Vault, store: Store, roster: Arc<Roster>) -> Self {
        Self { vault, store, roster }
    }

    fn order_of(&self, receiver: MachineId, row: ItemRow) -> Result<ReceiveOrder, Refused> {
        let item = row.item;
        let last = item
            .reprotect
            .as_ref()
            .and_then(|reprotect| reprotect.final_point);
        // Asked for at every call of a receiver: thousands of points are not to be copied for each.
        let newest = self.store.newest_point(item.machine, |point| {
            point.consistency > Consistency::Fuzzy
                && item.disks.iter().all(|disk| point.disks.contains(disk))
                && last.is_none_or(|last| point.id == last)
        });
        let newest = newest.map_err(|error| {
            Refused::new(
                "StoreFailed",
                format!("the replica of {} cannot be read: {error}", item.name),
                "the replica store is damaged or was changed from outside",
                "see `lifeboat store verify` on the server",
            )
        })?;
        let point = newest.map(|point| ReceivePoint {
            id: point.id,
            instant_unix_nanos: point.instant_unix_nanos,
        });
        let disks = row.disks.into_iter().filter(|disk| item.disks.contains(&disk.id));
        Ok(ReceiveOrder {
            machine: item.machine,
            generation: item.generation,
            disks: disks
                .map(|disk| ReceiveDisk {
                    id: disk.id,
                    name: disk.stable_id.clone(),
                    stable_id: disk.stable_id,
                    size_bytes: disk.size_bytes,
                })
                .collect(),
            point,
            is_final: last.is_some(),
            is_original: item.machine == receiver,
            name: item.name,
        })
    }
}

fn nothing() -> Refused {
    Refused::new(
        NOTHING_TO_RECEIVE,
        "no machine is on its way home to this one",
        "the failed-over machine was not reprotected to this machine yet, or its way home has ended",
        "begin it on the server: lifeboat failover reprotect; the receiver waits for it",
    )
}

impl Handover for HandoverDesk {
    fn authenticate(&self, receiver: MachineId, serial: &str) -> Result<(), Refused> {
        admit_certificate(&self.vault, receiver, serial)
    }

    fn order(&self, receiver: MachineId, machine: Option<&str>) -> Result<ReceiveOrder, Refused> {
        let is_meant = |row: &ItemRow| {
            row.item.active_location == ActiveLocation::Recovery
                && machine.is_none_or(|name| {
                    row.item.name.eq_ignore_ascii_case(name) || row.item.machine.to_string() == name
                })
        };
        let rows = self
            .vault
            .to_be_received_by(receiver)
            .map_err(|error| super::control::of_vault(&error))?;
        let mut rows = rows.into_iter().filter(is_meant);
        let row = rows.next().ok_or_else(nothing)?;
        if let Some(other) = rows.next() {
            return Err(Refused::new(
                "SeveralMachines",
                format!(
                    "both {} and {} are on their way home to this machine",
                    row.item.name, other.item.name
                ),
                "each was reprotected to it",
                "name the one to receive: lifeboat agent receive --machine NAME",
            ));
        }
        self.order_of(receiver, row)
    }

    fn report(&self, receiver: MachineId, report: ReceiveReport) -> Result<(), Refused> {
        let machine = report.machine;
        self.order(receiver, Some(&machine.to_string()))?;
        self.roster.received(machine, report);
        Ok(())
    }
}
