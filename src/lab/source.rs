//! The disk and the workload of one machine of the lab: live as root, at rest without.
use super::at_rest::MachineAtRest;
use super::error::LabError;
use super::machine::MachineImage;
use super::site::{Site, SourceMachine};
use super::workload::ENTRIES_PER_SECOND;
use std::path::Path;

pub(super) enum Source {
    /// Attached as a loop device, mounted, written to by a process.
    Live(Box<SourceMachine>),
    AtRest(MachineAtRest),
}

impl Source {
    pub(super) fn begin(site: &Site, image: &MachineImage, program: &Path) -> Result<Self, LabError> {
        if is_root() {
            let mut machine = site.attach(image)?;
            machine.start_workload(program, ENTRIES_PER_SECOND)?;
            return Ok(Self::Live(Box::new(machine)));
        }
        let work = site.folder().join("machines").join(&image.name);
        Ok(Self::AtRest(MachineAtRest::begin(
            image,
            &work,
            ENTRIES_PER_SECOND,
        )?))
    }

    /// What the agent replicates.
    pub(super) fn disk(&self) -> &Path {
        match self {
            Self::Live(machine) => &machine.device,
            Self::AtRest(machine) => &machine.image,
        }
    }

    /// Ends the workload as the loss of the machine would.
    pub(super) fn lose(&mut self) {
        match self {
            Self::Live(machine) => machine.kill_workload(),
            Self::AtRest(machine) => machine.stop(),
        }
    }

    pub(super) fn check(&mut self) -> Result<(), LabError> {
        match self {
            Self::Live(machine) => machine.check_workload(),
            Self::AtRest(machine) => machine.check(),
        }
    }

    /// The machine with a file system of this host; None: at rest.
    pub(super) fn live(&mut self) -> Option<&mut SourceMachine> {
        match self {
            Self::Live(machine) => Some(machine),
            Self::AtRest(_) => None,
        }
    }

    /// Acknowledged entries by now.
    pub(super) fn entries(&self) -> Result<u64, LabError> {
        match self {
            Self::Live(machine) => machine.entries(),
            Self::AtRest(machine) => Ok(machine.entries()),
        }
    }

    /// Acknowledged entries at an instant; a live one may have been in flight.
    pub(super) fn entries_at(&self, instant_unix_nanos: i64) -> Result<u64, LabError> {
        match self {
            Self::Live(machine) => machine.entries_at(instant_unix_nanos),
            Self::AtRest(machine) => Ok(machine.entries_at(instant_unix_nanos)),
        }
    }
}

pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What a lab without root is less than one with it.
pub(super) fn less() -> Vec<String> {
    if is_root() {
        return Vec::new();
    }
    [
        "disks are image files, not mounted: entries are put in from outside, in batches",
        "changes are found by comparing (scan), not tracked: every point reads the whole disk",
        "nothing is frozen: points are made while the image is quiet",
        "machines are in user networks only, not in isolated ones",
        "no replication group: machines whose images are quiet in turn cannot be held still at one instant",
        "no planned failover and no way home: bringing a machine to rest and home needs its devices",
    ]
    .map(str::to_owned)
    .to_vec()
}
