//! The few things the store does to files. Each write goes through here, so that a test can cut the store off
//! at every single one of them and see what is left.
use super::ReplicaError;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// What happens to the write at which the countdown ends, and to all after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Half of the write lands, then nothing: the process died.
    Crash,
    /// Half of the write lands, the call says "no space left"; later calls fail too until [`Storage::heal`].
    Full,
    /// Half of the write lands, the call fails, and everything after it works: a medium that stumbles.
    Once,
    /// Half of the write lands, and the process ends as by a kill.
    Kill,
}

/// Room that frames leave on the file system, at most: manifests that free space, the vault's database beside the store and
/// whoever has to mend it need some.
const RESERVE_BYTES: u64 = 64 << 20;
/// On a small file system the reserve is this part of it.
const RESERVE_PART: u64 = 16;

fn is_nearly_full(file: &File) -> bool {
    rustix::fs::fstatvfs(file).is_ok_and(|stat| {
        let reserve = RESERVE_BYTES.min(stat.f_blocks.saturating_mul(stat.f_frsize) / RESERVE_PART);
        stat.f_bavail.saturating_mul(stat.f_frsize) < reserve
    })
}

/// Files of the store. `Default`: no faults.
#[derive(Clone, Default)]
pub struct Storage {
    fault: Option<Arc<(AtomicI64, Fault)>>,
}

impl Storage {
    /// Fails from the `writes`-th change of a file on. For tests of what a crash or a full disk leaves.
    pub fn failing_after(writes: i64, fault: Fault) -> Self {
        Self {
            fault: Some(Arc::new((AtomicI64::new(writes), fault))),
        }
    }

    /// There is room again.
    pub fn heal(&self) {
        self.fail_after(i64::MAX);
    }

    /// Begins to count anew. Of a storage that was made with a fault.
    pub fn fail_after(&self, writes: i64) {
        if let Some(fault) = &self.fault {
            fault.0.store(writes, Ordering::SeqCst);
        }
    }

    /// Whether the countdown has ended.
    pub fn has_failed(&self) -> bool {
        self.fault
            .as_ref()
            .is_some_and(|fault| fault.0.load(Ordering::SeqCst) < 0)
    }

    /// How many of `bytes` to write, and whether to fail after that.
    fn admit(&self, bytes: usize) -> (usize, std::io::Result<()>) {
        let Some(fault) = &self.fault else {
            return (bytes, Ok(()));
        };
        let left = fault.0.fetch_sub(1, Ordering::SeqCst);
        if left > 0 || (left < 0 && fault.1 == Fault::Once) {
            return (bytes, Ok(()));
        }
        let error = match fault.1 {
            Fault::Kill if bytes == 0 => std::process::abort(),
            Fault::Kill => std::io::Error::other("the process ends here"),
            Fault::Crash => std::io::Error::other("the test cut the store off here"),
            Fault::Once => std::io::Error::other("the test made this write fail"),
            Fault::Full => std::io::Error::from(std::io::ErrorKind::StorageFull),
        };
        (if left == 0 { bytes / 2 } else { 0 }, Err(error))
    }

    fn end_if_killed(&self, verdict: &std::io::Result<()>) {
        if verdict.is_err() && self.fault.as_ref().is_some_and(|fault| fault.1 == Fault::Kill) {
            std::process::abort();
        }
    }

    pub(super) fn create(&self, path: &Path, bytes: &[u8]) -> Result<File, ReplicaError> {
        let (allowed, verdict) = self.admit(bytes.len());
        let write = || {
            let mut file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(path)?;
            file.write_all(&bytes[..allowed])?;
            file.sync_all()?;
            Ok(file)
        };
        if allowed == 0 {
            verdict
                .as_ref()
                .copied()
                .map_err(|e| ReplicaError::io("write", path, e.kind().into()))?;
        }
        let file = write().map_err(|e| ReplicaError::io("write", path, e))?;
        self.end_if_killed(&verdict);
        verdict.map_err(|e| ReplicaError::io("write", path, e))?;
        Ok(file)
    }

    pub(super) fn write_at(
        &self,
        file: &File,
        path: &Path,
        bytes: &[u8],
        offset: u64,
    ) -> Result<(), ReplicaError> {
        let (allowed, verdict) = self.admit(bytes.len());
        if is_nearly_full(file) {
            return Err(ReplicaError::Full {
                object: path.to_owned(),
            });
        }
        let written = file.write_all_at(&bytes[..allowed], offset);
        self.end_if_killed(&verdict);
        written
            .and(verdict)
            .map_err(|e| ReplicaError::io("append to", path, e))
    }

    pub(super) fn sync(&self, file: &File, path: &Path) -> Result<(), ReplicaError> {
        self.admit(0)
            .1
            .and_then(|()| file.sync_data())
            .map_err(|e| ReplicaError::io("make durable", path, e))
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> Result<(), ReplicaError> {
        self.admit(0)
            .1
            .and_then(|()| std::fs::rename(from, to))
            .map_err(|e| ReplicaError::io("publish", to, e))
    }

    pub(super) fn sync_folder(&self, folder: &Path) -> Result<(), ReplicaError> {
        self.admit(0)
            .1
            .and_then(|()| File::open(folder)?.sync_all())
            .map_err(|e| ReplicaError::io("make durable", folder, e))
    }

    pub(super) fn remove(&self, path: &Path) -> Result<(), ReplicaError> {
        self.admit(0)
            .1
            .and_then(|()| std::fs::remove_file(path))
            .map_err(|e| ReplicaError::io("remove", path, e))
    }
}
