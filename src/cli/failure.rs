//! What a person reads when a command fails: what happened, why it may be, what to do. And the exit code.
use crate::agent::capture::CaptureError;
use crate::agent::cycle::CycleError;
use crate::agent::sink::ShipError;
use crate::replica::ReplicaError;
use crate::rt::chain;
use std::borrow::Cow;
use std::error::Error;

/// Exit codes: 1 failed, 2 usage, 3 done but something is wrong, 5 not found, 6 conflict, 10 no store,
/// 11 store locked, 12 wrong key.
#[derive(Debug)]
pub struct Failure {
    pub code: u8,
    pub message: String,
    pub causes: Cow<'static, str>,
    pub action: Cow<'static, str>,
}

impl Failure {
    pub fn print(&self) -> u8 {
        eprintln!("error: {}", self.message);
        eprintln!("possible causes: {}", self.causes);
        eprintln!("recommended action: {}", self.action);
        self.code
    }
}

impl From<ReplicaError> for Failure {
    fn from(error: ReplicaError) -> Self {
        let (code, causes, action) = match &error {
            ReplicaError::Full { .. } => (
                1,
                "the file system of the store is full, or a quota is reached",
                "make room or enlarge the file system, then run the command again; what was acknowledged is safe",
            ),
            ReplicaError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => (
                10,
                "the folder is not a replica store, or --dir names another folder",
                "check --dir; a new store is made by: lifeboat store create --dir FOLDER",
            ),
            ReplicaError::Io { .. } => (
                1,
                "the medium or its permissions refuse the access",
                "run as the owner of the store, and look at the kernel's log for errors of the medium",
            ),
            ReplicaError::Corrupt { .. } => (
                1,
                "bytes of the store were changed or lost beneath Lifeboat",
                "see which recovery points are hit: lifeboat store verify --dir FOLDER; use another point",
            ),
            ReplicaError::Locked(_) => (
                11,
                "a server or another command works on this store",
                "wait for it or stop it; reading commands work beside it",
            ),
            ReplicaError::WrongKey => (
                12,
                "--key-file names the key of another store, or the file was changed",
                "give the vault key that the store was made with",
            ),
            ReplicaError::NoMachine(_) | ReplicaError::NoDisk(_) | ReplicaError::NoPoint(_) => (
                5,
                "the name or the id is misspelt, or retention has removed the point",
                "list what there is: lifeboat store points --dir FOLDER",
            ),
            ReplicaError::SizeChanged { .. } => (
                6,
                "the disk was resized, or another disk is meant",
                "import it under another machine name",
            ),
            _ => (
                1,
                "another session writes this machine, or its data was not made by Lifeboat",
                "run it again",
            ),
        };
        Self {
            code,
            message: chain(&error),
            causes: causes.into(),
            action: action.into(),
        }
    }
}

impl From<crate::lab::LabError> for Failure {
    fn from(error: crate::lab::LabError) -> Self {
        let (causes, action) = error.advice();
        Self {
            code: 1,
            message: chain(&error),
            causes: causes.into(),
            action: action.into(),
        }
    }
}

impl From<CaptureError> for Failure {
    fn from(error: CaptureError) -> Self {
        let (causes, action) = match &error {
            CaptureError::Unavailable(_) => (
                "not root, or a kernel without BTF or with eBPF switched off",
                "run as root on Linux 5.17 or newer",
            ),
            CaptureError::NotADisk(_) => (
                "a partition, a file or something else was named",
                "name the whole disk",
            ),
            CaptureError::SizeChanged { .. } | CaptureError::Replaced(_) => (
                "the disk was resized, detached or exchanged meanwhile",
                "run it again with the disk as it is now",
            ),
            CaptureError::Io { .. } => (
                "no such disk, no permission, or a failing medium; a disk in use cannot be imported",
                "name a disk or an image that nothing uses; look at the kernel's log",
            ),
        };
        let missing = matches!(&error, CaptureError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound);
        Self {
            code: if missing { 5 } else { 1 },
            message: chain(&error),
            causes: causes.into(),
            action: action.into(),
        }
    }
}

impl From<CycleError> for Failure {
    fn from(error: CycleError) -> Self {
        let message = chain(&error);
        match error {
            CycleError::Ship(ShipError::Replica(error)) => error.into(),
            CycleError::Capture(error) => error.into(),
            _ => Self {
                code: 1,
                message,
                causes: "something writes to the disk, or memory is short".into(),
                action: "nothing was lost; run it again while nothing uses the disk".into(),
            },
        }
    }
}

/// Something that is not the person's doing.
pub fn failed(what: &str, error: &(dyn Error + 'static)) -> Failure {
    Failure {
        code: 1,
        message: format!("cannot {what}: {}", chain(error)),
        causes: "a permission is missing, or the system is out of resources".into(),
        action: "run as root, then look at the system's log".into(),
    }
}

/// An operating system error on something the person named.
pub fn on_file(what: &str, path: &std::path::Path, error: std::io::Error) -> Failure {
    Failure {
        code: 1,
        message: format!("cannot {what} {}: {}", path.display(), chain(&error)),
        causes: "the file is missing, exists already, is in use, or may not be accessed by this user".into(),
        action: "check the path and its permissions".into(),
    }
}

pub fn not_found(message: String) -> Failure {
    Failure {
        code: 5,
        message,
        causes: "the name or the id is misspelt, or nothing was imported or replicated yet".into(),
        action: "list what there is: lifeboat store points --dir FOLDER".into(),
    }
}
