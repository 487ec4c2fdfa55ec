//! The little that an agent must remember over a restart, beside its identity.
use crate::block::DiskId;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Write};
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

    fn save(&self) -> io::Result<()> {
        let fresh = self.path.with_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(&serde_json::to_vec(&self.state)?)?;
        file.sync_all()?;
        std::fs::rename(&fresh, &self.path)
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
