//! The little that an agent must remember over a restart, beside its identity.
use crate::block::DiskId;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

pub struct Kept {
    path: PathBuf,
    state: State,
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct State {
    /// Disks whose changes are tracked by maps that outlive the agent.
    tracked: Vec<DiskId>,
    /// The last order to resynchronize that was carried out.
    resynchronized: u64,
    /// The line that the bits belong to: in another one somebody else wrote in between, a machine at the target.
    line: u64,
    /// Instant of the last app-consistent point, on the server's clock.
    app_consistent_unix_nanos: Option<i64>,
    /// The last order for an app-consistent point that was acted on.
    app_sync: u64,
    /// The workload was brought down by hooks, and is to be brought up when the machine may go on.
    down: bool,
}

impl Kept {
    /// A file that is missing or damaged costs a comparison, nothing more.
    pub fn load(folder: &Path) -> Self {
        let path = folder.join("kept.json");
        let state = std::fs::read(&path)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        Self { path, state }
    }

    pub fn tracked(&self) -> &[DiskId] {
        &self.state.tracked
    }

    pub fn resynchronized(&self) -> u64 {
        self.state.resynchronized
    }

    pub fn line(&self) -> u64 {
        self.state.line
    }

    pub fn set_line(&mut self, line: u64) -> io::Result<()> {
        self.state.line = line;
        self.save()
    }

    pub fn set_tracked(&mut self, disks: Vec<DiskId>) -> io::Result<()> {
        self.state.tracked = disks;
        self.save()
    }

    pub fn set_resynchronized(&mut self, request: u64) -> io::Result<()> {
        self.state.resynchronized = request;
        self.save()
    }

    pub fn is_down(&self) -> bool {
        self.state.down
    }

    pub fn set_down(&mut self, down: bool) -> io::Result<()> {
        self.state.down = down;
        self.save()
    }

    pub fn app_consistent_unix_nanos(&self) -> Option<i64> {
        self.state.app_consistent_unix_nanos
    }

    pub fn app_sync(&self) -> u64 {
        self.state.app_sync
    }

    /// An app-consistent point was tried by this order; `made`: its instant, when it became one.
    pub fn set_app_consistent(&mut self, app_sync: u64, made: Option<i64>) -> io::Result<()> {
        self.state.app_sync = app_sync;
        self.state.app_consistent_unix_nanos = made.or(self.state.app_consistent_unix_nanos);
        self.save()
    }

    fn save(&self) -> io::Result<()> {
        crate::rt::write_private(&self.path, &serde_json::to_vec(&self.state)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_a_restart_and_damage() {
        let folder = tempfile::tempdir().unwrap();
        let disk = DiskId::new();
        let mut kept = Kept::load(folder.path());
        kept.set_tracked(vec![disk]).unwrap();
        kept.set_resynchronized(3).unwrap();
        let again = Kept::load(folder.path());
        assert_eq!((again.tracked(), again.resynchronized()), ([disk].as_slice(), 3));
        std::fs::write(folder.path().join("kept.json"), b"{\"tra").unwrap();
        assert_eq!(Kept::load(folder.path()).resynchronized(), 0);
    }
}
