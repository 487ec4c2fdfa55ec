//! What is kept in a machine's folder, so that a restarted server knows it again.
use crate::target::{Forward, TargetError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The specification. Its presence makes the folder ours: nothing else is ever removed.
pub(super) const MACHINE: &str = "machine.json";
/// The last start.
pub(super) const RUN: &str = "run.json";
/// When the serial port spoke first.
pub(super) const FIRST_OUTPUT: &str = "first-output.json";
/// Held by the running QEMU.
pub(super) const LOCK: &str = "lock";
pub(super) const PID: &str = "pid";
pub(super) const STDERR: &str = "stderr.log";
pub(super) const SERIAL: &str = "serial.log";
/// The log before, when it had become long.
pub(super) const SERIAL_BEFORE: &str = "serial.log.1";
pub(super) const MONITOR_SOCKET: &str = "qmp.sock";
pub(super) const VNC_SOCKET: &str = "vnc.sock";
pub(super) const VARIABLES: &str = "uefi-variables.fd";

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Run {
    /// Instant of the start; names this run.
    pub started_unix_nanos: i64,
    pub accelerator: String,
    /// Why it is not the faster one.
    pub note: String,
    /// With the host ports that were chosen; kept for the next start where they are still free.
    pub forwards: Vec<Forward>,
    /// Length of the serial log before this run.
    pub serial_offset: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FirstOutput {
    pub run_started_unix_nanos: i64,
    pub instant_unix_nanos: i64,
}

pub(super) fn io_error<'a>(
    action: &'static str,
    object: &'a Path,
) -> impl FnOnce(io::Error) -> TargetError + 'a {
    move |source| TargetError::Io {
        action,
        object: object.to_owned(),
        source,
    }
}

/// Replaced whole: a reader, or the next server, never finds a half.
pub(super) fn save(folder: &Path, name: &str, value: &impl Serialize) -> Result<(), TargetError> {
    let path = folder.join(name);
    let write = || -> io::Result<()> {
        let unfinished = folder.join(format!("{name}.new"));
        let mut file = std::fs::File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)?;
        serde_json::to_writer_pretty(&mut file, value)?;
        file.sync_all()?;
        std::fs::rename(unfinished, &path)
    };
    write().map_err(io_error("write", &path))
}

/// None where there is none, or where a crash of the host left no whole one.
pub(super) fn load<T: DeserializeOwned>(folder: &Path, name: &str) -> Option<T> {
    serde_json::from_slice(&std::fs::read(folder.join(name)).ok()?).ok()
}
