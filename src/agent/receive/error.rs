//! What can end the way home, in words that a person can act on.
use super::target::TargetError;
use crate::agent::identity::IdentityError;
use crate::rt::chain;
use crate::wire::Refused;
use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("cannot {action} {object}")]
    State {
        action: &'static str,
        object: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("another receiver works with the folder {0}")]
    AlreadyRuns(PathBuf),
    #[error("{0}")]
    Refused(Refused),
    /// The server's bytes break a rule of the protocol; nothing of them was written.
    #[error("the server sent {0}")]
    Protocol(&'static str),
    /// Nothing is lost: what the disks hold is known, and the receiver goes on from there.
    #[error("the connection to the server ended: {0}")]
    Disconnected(String),
    #[error(
        "{granules} granules of {path} are not what was written to them, the first at byte {first_offset}"
    )]
    NotVerified {
        path: PathBuf,
        granules: u64,
        first_offset: u64,
    },
    #[error(
        "every disk is verified to be equal to the final point, but the server's answer was lost, and now it says: {0}"
    )]
    Unconfirmed(Refused),
    /// Which disk goes where is not clear.
    #[error("{0}")]
    Disks(String),
    #[error("the disks of {0} changed while they were received")]
    OrderChanged(String),
    #[error("no memory for buffers")]
    Memory(#[source] io::Error),
    #[error("cancelled")]
    Cancelled,
}

impl ReceiveError {
    /// Code, message, causes, action: for the console and for the server's events alike.
    pub fn words(&self) -> Refused {
        let mut message = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        let (code, causes, action) = match self {
            Self::Refused(refused) => return refused.clone(),
            Self::Target(error) => {
                let words = error.words();
                // Transparent: its source is told already.
                return Refused::new(words.0, chain(error), words.1, words.2);
            }
            Self::Identity(IdentityError::NotJoined(_)) => (
                "NotJoined",
                "this system has not joined the server, or --state-dir names another folder",
                "get a token on the server (lifeboat server join-token), then: lifeboat agent join",
            ),
            Self::Identity(_) => (
                "NoIdentity",
                "the folder cannot be read or written, or the file was changed",
                "run as root, or join again: lifeboat agent join",
            ),
            Self::State { .. } => (
                "NoState",
                "the folder cannot be written, or it is full",
                "name a folder that can be written with --state-dir; on a live system one on its RAM disk will do",
            ),
            Self::AlreadyRuns(_) => (
                "AlreadyRuns",
                "a receiver was started twice",
                "let the first one go on, or end it before another is started",
            ),
            Self::Protocol(_) => (
                "Protocol",
                "agent and server do not fit together, or the connection is tampered with",
                "update the older of the two",
            ),
            Self::Disconnected(_) => (
                "Disconnected",
                "the server is stopped or restarting, the network is down, or a firewall closes the data port",
                "see that the server runs and that its data port (9443) is open from here; run the receiver again, it goes on where it was",
            ),
            Self::NotVerified { .. } => (
                "NotVerified",
                "the disk does not keep what is written to it, or something else writes to it",
                "do not start the machine from this disk: put in a good one and run the receiver again",
            ),
            Self::Unconfirmed(_) => (
                "Unconfirmed",
                "the server heard it and went on, or the way home was cancelled at the last moment",
                "see on the server where the machine is (lifeboat machine show); start it here only if it came home",
            ),
            Self::Disks(_) => (
                "WhichDisk",
                "a name is misspelt, or not every disk of the machine was given",
                "give one --disk NAME=PATH for each disk of the machine",
            ),
            Self::OrderChanged(_) => (
                "OrderChanged",
                "a disk was added to the machine or removed from it at the target",
                "run the receiver again with a disk for each of the machine's",
            ),
            Self::Memory(_) => (
                "NoMemory",
                "the system is out of memory",
                "make memory free, then run the receiver again",
            ),
            Self::Cancelled => (
                "Cancelled",
                "the receiver was told to stop",
                "run it again: it goes on where it was",
            ),
        };
        Refused::new(code, message, causes, action)
    }
}
