//! What can go wrong in the lab, and what a person can do about it.
use super::ledger::LedgerError;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum LabError {
    #[error("{program} is not installed")]
    Missing {
        program: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot {action} {object}")]
    Io {
        action: &'static str,
        object: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{program} failed: {detail}")]
    Program { program: String, detail: String },
    #[error("the Debian package {0} is not known here")]
    NoPackage(String),
    #[error("the Debian package {package} holds no {wanted}")]
    NotInPackage { package: String, wanted: String },
    #[error("a disk of {asked} bytes is too small for this machine: it needs at least {needed} bytes")]
    TooSmall { asked: u64, needed: u64 },
    #[error("{object} cannot be read: {detail}")]
    Malformed { object: PathBuf, detail: String },
    #[error("{0} does not do as a name of a machine")]
    Name(String),
    #[error("cannot {action} the partition table of {object}: {detail}")]
    PartitionTable {
        action: &'static str,
        object: PathBuf,
        detail: String,
    },
    #[error("the workload of {machine} ended: {detail}")]
    Workload { machine: String, detail: String },
    #[error("the server refused {call}: {detail}")]
    Server { call: String, detail: String },
    #[error("waited {seconds} s in vain for {what}")]
    TimedOut { what: String, seconds: u64 },
    #[error("interrupted")]
    Interrupted,
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl LabError {
    pub(super) fn io<'a>(action: &'static str, object: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io {
            action,
            object: object.to_owned(),
            source,
        }
    }

    /// Possible causes and the recommended action.
    pub fn advice(&self) -> (&'static str, &'static str) {
        match self {
            Self::Missing { .. } => (
                "the lab builds its machines with the tools of a Debian system, and one is missing",
                "install it; on Debian: apt-get install e2fsprogs util-linux mount dpkg apt",
            ),
            Self::NoPackage(_) => (
                "the package lists were never fetched, or this is not Debian 12 or newer on amd64",
                "run apt-get update, then try again; without a network, keep the cache folder of an earlier run",
            ),
            Self::NotInPackage { .. } | Self::Malformed { .. } => (
                "the package is of a release that the lab does not know, or its copy in the cache is damaged",
                "remove the lab's cache folder (~/.cache/lifeboat/lab) and try again",
            ),
            Self::TooSmall { .. } => (
                "the kernel, the Lifeboat program, the ledger and room to write do not fit",
                "give a larger --disk-size",
            ),
            Self::Name(_) => (
                "a machine's name has 1 to 63 letters, digits and hyphens, and begins and ends with a letter or digit",
                "choose another name",
            ),
            Self::Workload { .. } | Self::Ledger(_) => (
                "the disk is full or failed, or its ledger was changed by someone else",
                "read the message above; a machine with a broken ledger must be built again",
            ),
            Self::Server { .. } | Self::TimedOut { .. } => (
                "the machine is too busy for the lab, or something in it is broken",
                "look at the logs in the lab's folder (--keep keeps it)",
            ),
            Self::Interrupted => ("Ctrl-C", "start it again"),
            Self::Io { .. } | Self::Program { .. } | Self::PartitionTable { .. } => (
                "no room, no right, or no network",
                "read the message above; loop devices and mounts need root",
            ),
        }
    }
}
