//! The disks of machines that run at the target: a branch per disk over its recovery point, and one NBD server per
//! machine.
//!
//! ```text
//! vms/<job>/            one failover; <job> is the job that started it
//!   disks/<disk>/       branch of a disk
//!   nbd                 socket of the NBD server; every disk is an export, named by its id
//!   machine/            what the hypervisor keeps: sockets, serial log, pid
//! ```
//! A branch is open once at most: two would not see each other's blocks. The registry below is what makes sure of it.
//! A crash leaves the files and a dead socket; [`Disks::serve`] opens the same files and binds the same path again, and the
//! hypervisor connects to it by itself.
use super::error::failure;
use super::job::{JobError, JobId};
use super::line::{Line, LineSpec};
use crate::block::{DiskId, MachineId, PointId};
use crate::export::nbd::{Export, Listen, NbdServer};
use crate::export::{BlockDevice, Branch};
use crate::replica::{At, Store};
use crate::rt::Report;
use crate::target::{DiskAttachment, MachineSpec};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Longest path of a unix socket, without the closing zero (`sockaddr_un`).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Which disks, and of which instant.
#[derive(Clone, Copy, Debug)]
pub struct Base<'a> {
    pub machine: MachineId,
    pub point: PointId,
    /// In boot order.
    pub disks: &'a [DiskId],
}

#[derive(Default)]
struct Entry {
    branches: Vec<Arc<Branch>>,
    server: Option<NbdServer>,
    /// Of a real failover: what the machine writes becomes recovery points.
    line: Option<Arc<Line>>,
}

/// What a line needs besides the disks.
pub struct LineOrder {
    pub generation: u64,
    pub report: Arc<dyn Report>,
    pub every: Box<dyn Fn() -> Duration + Send>,
}

/// The disks of a machine that [`Disks::attachments`] attached.
pub fn attached(spec: &MachineSpec) -> Result<Vec<DiskId>, JobError> {
    let disk = |attachment: &DiskAttachment| {
        attachment.export.parse().map_err(|_| {
            failure(
                "NotADisk",
                format!(
                    "{} of the machine {} is not a disk.",
                    attachment.export, spec.name
                ),
                "The vault's database was changed from outside.",
                "Restore the vault's database from its backup.",
            )
        })
    };
    spec.disks.iter().map(disk).collect()
}

pub struct Disks {
    store: Store,
    vms: PathBuf,
    open: Mutex<HashMap<JobId, Arc<Mutex<Entry>>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn branch_failure(folder: &Path, error: &io::Error) -> JobError {
    failure(
        "BranchFailed",
        format!(
            "The disk branch {} cannot be made or opened: {error}.",
            folder.display()
        ),
        "The disk of the server is full or damaged, or files were changed from outside.",
        "Make room on the server's data folder, then run the operation again.",
    )
}

impl Disks {
    pub fn new(store: Store, vms: PathBuf) -> Self {
        Self {
            store,
            vms,
            open: Mutex::default(),
        }
    }

    /// Folder of a failover.
    pub fn folder(&self, job: JobId) -> PathBuf {
        self.vms.join(job.to_string())
    }

    /// Where the hypervisor finds the disks.
    pub fn attachments(&self, job: JobId, disks: &[DiskId]) -> Vec<DiskAttachment> {
        let attachment = |disk: &DiskId| DiskAttachment {
            socket: self.socket(job),
            export: disk.to_string(),
            file: None,
        };
        disks.iter().map(attachment).collect()
    }

    fn socket(&self, job: JobId) -> PathBuf {
        self.folder(job).join("nbd")
    }

    fn branch_folder(&self, job: JobId, disk: DiskId) -> PathBuf {
        self.folder(job).join("disks").join(disk.to_string())
    }

    fn entry(&self, job: JobId) -> Arc<Mutex<Entry>> {
        lock(&self.open).entry(job).or_default().clone()
    }

    /// Reads a block of every disk at the point: a damaged or missing replica shows before anything is changed.
    pub fn probe(&self, base: Base) -> Result<(), JobError> {
        for &disk in base.disks {
            let image = self.store.image(base.machine, disk, At::Point(base.point))?;
            let mut block = [0; 4096];
            let len = image.size_bytes().min(block.len() as u64) as usize;
            image.read_at(0, &mut block[..len])?;
        }
        Ok(())
    }

    /// Makes the branches, durably. Safe to repeat: those that are there are kept with what was written to them.
    pub fn make(&self, job: JobId, base: Base) -> Result<(), JobError> {
        let entry = self.entry(job);
        let mut entry = lock(&entry);
        self.open_branches(&mut entry, job, base, true)?;
        // The branches made their own folders durable; the ones above them are ours.
        let durable = |path: &Path| File::open(path)?.sync_all();
        let folder = self.folder(job);
        durable(&folder.join("disks"))
            .and_then(|()| durable(&folder))
            .and_then(|()| durable(&self.vms))
            .map_err(|error| branch_failure(&folder, &error))
    }

    fn open_branches(&self, entry: &mut Entry, job: JobId, base: Base, make: bool) -> Result<(), JobError> {
        if !entry.branches.is_empty() {
            return Ok(());
        }
        let mut branches = Vec::new();
        for &disk in base.disks {
            let folder = self.branch_folder(job, disk);
            // A branch that is gone is never replaced by an empty one: the machine would find its disk in the past.
            if !make
                && std::fs::metadata(folder.join("present"))
                    .map_err(|error| branch_failure(&folder, &error))?
                    .len()
                    == 0
            {
                return Err(branch_failure(&folder, &io::ErrorKind::UnexpectedEof.into()));
            }
            let image = self.store.image(base.machine, disk, At::Point(base.point))?;
            let branch =
                Branch::open(&folder, Arc::new(image)).map_err(|error| branch_failure(&folder, &error))?;
            branches.push(Arc::new(branch));
        }
        entry.branches = branches;
        Ok(())
    }

    /// Serves the branches, which [`make`](Self::make) made, in this process or an earlier one. Safe to repeat.
    pub fn serve(&self, job: JobId, base: Base) -> Result<(), JobError> {
        let entry = self.entry(job);
        let mut entry = lock(&entry);
        if entry.server.is_some() {
            return Ok(());
        }
        self.open_branches(&mut entry, job, base, false)?;
        let socket = self.socket(job);
        if socket.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            return Err(failure(
                "PathTooLong",
                format!("{} is too long for a socket.", socket.display()),
                "The server's data folder has a long path.",
                "Move the data folder to a path of at most 50 characters.",
            ));
        }
        let exports = base
            .disks
            .iter()
            .zip(&entry.branches)
            .map(|(disk, branch)| Export {
                name: disk.to_string(),
                device: branch.clone() as Arc<dyn BlockDevice>,
            })
            .collect();
        entry.server = Some(
            NbdServer::bind(Listen::Unix(socket.clone()), exports).map_err(|error| {
                failure(
                    "DisksNotServed",
                    format!("The disks cannot be served at {}: {error}.", socket.display()),
                    "The server may not write to its data folder, or has too many open files.",
                    "Remove the cause and run the operation again.",
                )
            })?,
        );
        Ok(())
    }

    /// From now on what the machine writes becomes recovery points. Where its disks are not served nothing is written, and
    /// nothing happens: whoever serves them calls this again. Safe to repeat.
    pub fn protect(&self, job: JobId, base: Base, order: LineOrder) -> Result<(), JobError> {
        let entry = self.entry(job);
        let mut entry = lock(&entry);
        if entry.line.is_some() || entry.server.is_none() {
            return Ok(());
        }
        let spec = LineSpec {
            store: self.store.clone(),
            machine: base.machine,
            base: base.point,
            branches: base
                .disks
                .iter()
                .copied()
                .zip(entry.branches.iter().cloned())
                .collect(),
            generation: order.generation,
            report: order.report,
            every: order.every,
        };
        let line = Line::start(spec).map_err(|error| {
            failure(
                "NoLine",
                format!("What the machine writes cannot be protected: {error}."),
                "The server has reached its limit of threads or of memory.",
                "Raise the limit or wait until less runs; restart the server.",
            )
        })?;
        entry.line = Some(Arc::new(line));
        Ok(())
    }

    /// Makes a recovery point of what the machine wrote until now. The error is in words.
    pub fn seal_now(&self, job: JobId, limit: Duration) -> Result<PointId, String> {
        let entry = lock(&self.open).get(&job).cloned();
        let line = entry.and_then(|entry| lock(&entry).line.clone());
        line.ok_or("the machine's disks are not served")?.seal_now(limit)
    }

    /// When the first read of the machine was answered by this process.
    pub fn first_read(&self, job: JobId) -> Option<Instant> {
        let entry = lock(&self.open).get(&job).cloned()?;
        lock(&entry).server.as_ref()?.first_read()
    }

    /// Stops serving a machine that is gone. Safe to repeat.
    pub fn stop(&self, job: JobId) -> Result<(), JobError> {
        let entry = lock(&self.open).remove(&job);
        if let Some(entry) = entry {
            // Nobody asks for these branches again but to discard them.
            let _ = close(&entry);
        }
        remove(&self.socket(job), |path| std::fs::remove_file(path))
    }

    /// Removes the branches and the folder. Safe to repeat.
    pub fn discard(&self, job: JobId) -> Result<(), JobError> {
        self.stop(job)?;
        // In this order, so that what a crash leaves is a machine without a branch, never with half of one.
        remove(&self.folder(job).join("disks"), Branch::discard)?;
        remove(&self.folder(job), |path| std::fs::remove_dir_all(path))
    }

    /// Removes the branches and leaves the machine itself: it lives on files. Gives the bytes that they took. Safe to repeat.
    pub fn discard_branches(&self, job: JobId) -> Result<u64, JobError> {
        self.stop(job)?;
        let disks = self.folder(job).join("disks");
        let bytes = taken_bytes(&disks);
        remove(&disks, Branch::discard)?;
        Ok(bytes)
    }

    /// Stops serving all machines; they wait until they are served again.
    pub fn shut_down(&self) {
        let entries: Vec<_> = lock(&self.open).drain().collect();
        for (job, entry) in entries {
            if let Err(error) = close(&entry) {
                tracing::error!(%job, %error, "the last writes of a machine may be lost");
            }
        }
    }
}

/// What a guest wrote but did not flush is kept over a restart of the server all the same: the guest knows of no restart.
fn close(entry: &Mutex<Entry>) -> io::Result<()> {
    let mut entry = lock(entry);
    if let Some(line) = entry.line.take() {
        line.stop();
    }
    if let Some(server) = entry.server.take() {
        server.shutdown();
    }
    entry.branches.drain(..).try_for_each(|branch| branch.flush())
}

/// What a folder takes on its disk.
fn taken_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
        .map(|(path, known)| match known.is_dir() {
            true => taken_bytes(&path),
            false => known.blocks() * 512,
        })
        .sum()
}

fn remove(path: &Path, how: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), JobError> {
    match how(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failure(
            "NotRemoved",
            format!("{} cannot be removed: {error}.", path.display()),
            "The disk of the server is damaged or read-only, or something is mounted there.",
            "Remove the cause and run the operation again.",
        )),
        _ => Ok(()),
    }
}
