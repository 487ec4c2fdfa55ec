//! Who may take a machine's replica home.
use super::control::admit_certificate;
use crate::block::MachineId;
use crate::process_server::{Handover, NOTHING_TO_RECEIVE, ReceiveOrder, ReceiveReport};
use crate::vault::Vault;
use crate::wire::Refused;

/// The vault's word on the way home.
pub struct HandoverDesk {
    vault: Vault,
}

impl HandoverDesk {
    pub fn new(vault: Vault) -> Self {
        Self { vault }
    }
}

fn nothing() -> Refused {
    Refused::new(
        NOTHING_TO_RECEIVE,
        "no machine is on its way home to this one",
        "the failed-over machine was not reprotected to this machine yet, or its way home has ended",
        "begin it on the server; the receiver waits for it",
    )
}

impl Handover for HandoverDesk {
    fn authenticate(&self, receiver: MachineId, serial: &str) -> Result<(), Refused> {
        admit_certificate(&self.vault, receiver, serial)
    }

    fn order(&self, _: MachineId, _: Option<&str>) -> Result<ReceiveOrder, Refused> {
        Err(nothing())
    }

    fn report(&self, _: MachineId, _: ReceiveReport) -> Result<(), Refused> {
        Err(nothing())
    }
}
