//! A source machine without root: its disk is an image file that is not mounted, and its work is done from outside, in
//! batches, by the file system's own debugger. Between two batches the image is quiet, so that comparing it makes points
//! that are crash-consistent.
use super::error::LabError;
use super::ledger::Ledger;
use super::machine::{DATA_FOLDER, MachineImage, ROOT_OFFSET};
use super::packages::run;
use crate::rt::now_unix_nanos;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Long enough for a comparison of the image in between.
const BATCH_PERIOD: Duration = Duration::from_secs(4);
const STOP_INTERVAL: Duration = Duration::from_millis(50);

pub(super) struct MachineAtRest {
    pub(super) image: PathBuf,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// When a batch was whole in the image, and the last entry of it.
    batches: Mutex<Vec<(i64, u64)>>,
    failed: Mutex<Option<LabError>>,
}

impl MachineAtRest {
    /// `work`: a folder of its own for the ledger outside of the image.
    pub(super) fn begin(image: &MachineImage, work: &Path, entries_per_batch: u32) -> Result<Self, LabError> {
        std::fs::create_dir_all(work).map_err(LabError::io("make", work))?;
        let mut disk = image.path.clone().into_os_string();
        disk.push(format!("?offset={ROOT_OFFSET}"));
        for name in ["ledger", "table"] {
            let dump = format!("dump /{DATA_FOLDER}/{name} {}", work.join(name).display());
            run(debugfs().arg("-R").arg(dump).arg(&disk))?;
        }
        let mut ledger = Ledger::open(work)?;
        let shared = Arc::new(Shared::default());
        let (inner, work) = (shared.clone(), work.to_owned());
        let thread = std::thread::spawn(move || {
            while !inner.stop.load(Ordering::SeqCst) {
                match batch(&mut ledger, entries_per_batch, &work, &disk) {
                    Ok(last) => inner.batches().push((now_unix_nanos(), last)),
                    Err(error) => {
                        *inner.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                        return;
                    }
                }
                let mut waited = Duration::ZERO;
                while waited < BATCH_PERIOD && !inner.stop.load(Ordering::SeqCst) {
                    std::thread::sleep(STOP_INTERVAL);
                    waited += STOP_INTERVAL;
                }
            }
        });
        Ok(Self {
            image: image.path.clone(),
            shared,
            thread: Some(thread),
        })
    }

    pub(super) fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    pub(super) fn check(&self) -> Result<(), LabError> {
        let failed = self
            .shared
            .failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        failed.map_or(Ok(()), Err)
    }

    pub(super) fn entries(&self) -> u64 {
        self.shared.batches().last().map_or(0, |(_, last)| *last)
    }

    pub(super) fn entries_at(&self, instant_unix_nanos: i64) -> u64 {
        let batches = self.shared.batches();
        let before = batches
            .iter()
            .rev()
            .find(|(whole, _)| *whole <= instant_unix_nanos);
        before.map_or(0, |(_, last)| *last)
    }
}

impl Shared {
    fn batches(&self) -> std::sync::MutexGuard<'_, Vec<(i64, u64)>> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for MachineAtRest {
    fn drop(&mut self) {
        self.stop();
    }
}

fn debugfs() -> Command {
    let mut command = Command::new("debugfs");
    // Users' search paths often lack the folders of the system's tools.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}

/// Appends entries outside and puts the files in place of the ones inside; the last entry.
fn batch(ledger: &mut Ledger, entries: u32, work: &Path, disk: &std::ffi::OsStr) -> Result<u64, LabError> {
    for _ in 0..entries {
        ledger.append(now_unix_nanos())?;
    }
    let mut commands = format!("cd /{DATA_FOLDER}\n");
    for name in ["table", "ledger"] {
        commands.push_str(&format!(
            "rm {name}\nwrite {} {name}\n",
            work.join(name).display()
        ));
    }
    let script = work.join("commands");
    std::fs::write(&script, commands).map_err(LabError::io("write", &script))?;
    run(debugfs().arg("-w").arg("-f").arg(&script).arg(disk))?;
    Ok(ledger.last())
}
