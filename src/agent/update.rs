//! The agent's own update: fetched from the server, tried, confirmed or taken back; no reboot, nothing compared again.
//!
//! ```text
//! order -> fetch PROGRAM.new, check -> stop replication -> link PROGRAM.previous -> record Trying -> rename -> execute
//!                                            answered heartbeat -> Confirmed; none in time -> RolledBack, previous executes
//! ```
//! What may be lost at any instant is the work so far, never an executable that runs: the record comes before the rename that
//! it tells of, and whoever starts next compares the executable with the record. The previous executable looks too, before
//! each start of the service, for one that is too broken to take itself back.
use super::identity::Identity;
use super::inventory::boot_id;
use crate::rt::executable::{self, digest_at};
use crate::wire::Refused;
use crate::wire::proto::control_client::ControlClient;
use crate::wire::proto::{AgentUpdate, FetchAgentRequest, UpdateReport};
use serde::{Deserialize, Serialize};
use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// An executable larger than this is none of ours.
const EXECUTABLE_BYTES_MAX: u64 = 512 << 20;
const FETCH_LIMIT: Duration = Duration::from_secs(600);
/// A fresh executable must have said its version within this.
const VERSION_LIMIT: Duration = Duration::from_secs(20);
/// Fetches that were cut before the order counts as failed.
const CUTS_MAX: u32 = 5;

#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    #[error("cannot {action} {object}")]
    Io {
        action: &'static str,
        object: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The order cannot be carried out here.
    #[error("{0}")]
    Unfit(String),
    /// Worth another try.
    #[error("the server did not deliver the executable: {0}")]
    Cut(String),
}

fn failed<'a>(action: &'static str, object: &'a Path) -> impl FnOnce(io::Error) -> UpdateError + 'a {
    move |source| UpdateError::Io {
        action,
        object: object.to_owned(),
        source,
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    #[default]
    None,
    Trying,
    Confirmed,
    RolledBack,
    Failed,
}

/// The last order that was begun: `update.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Record {
    request: u64,
    state: State,
    message: String,
    version: String,
    /// Hexadecimal.
    sha256: String,
    program: PathBuf,
    /// When the trial began: seconds of this boot. The clock of the day may jump.
    boot_id: String,
    began: i64,
}

/// What the process is to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    GoOn,
    /// The executable's file is another one than this process.
    Execute,
}

#[derive(Clone)]
pub struct Updates(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    program: Option<PathBuf>,
    deadline: i64,
    memory: Mutex<Memory>,
    /// Ends replication when there is something to change over to.
    stop: Mutex<Option<(Handle, CancellationToken)>>,
}

#[derive(Default)]
struct Memory {
    record: Record,
    fetching: bool,
    cuts: u32,
    /// Fetched and checked.
    ready: Option<AgentUpdate>,
    roll_back: bool,
}

fn beside(program: &Path, ending: &str) -> PathBuf {
    let mut name = program.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

fn boot_seconds() -> i64 {
    rustix::time::clock_gettime(rustix::time::ClockId::Boottime).tv_sec
}

/// In debug builds a test may have the process die at a step.
fn step(_name: &str) {
    #[cfg(debug_assertions)]
    if std::env::var("LIFEBOAT_TEST_UPDATE").is_ok_and(|at| at.strip_prefix("kill:") == Some(_name)) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// In debug builds a test may keep a trial from being confirmed.
fn is_mute() -> bool {
    cfg!(debug_assertions) && std::env::var("LIFEBOAT_TEST_UPDATE").is_ok_and(|what| what == "mute")
}

impl Updates {
    /// `program`: this process's executable; None: the one that the record names.
    pub fn of(folder: &Path, program: Option<PathBuf>, deadline_seconds: u64) -> Self {
        // Damaged or missing: no order was begun. The server hands an open one out again.
        let record: Record = std::fs::read(folder.join("update.json"))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        Self(Arc::new(Inner {
            folder: folder.to_owned(),
            program,
            deadline: i64::try_from(deadline_seconds).unwrap_or(i64::MAX),
            memory: Mutex::new(Memory {
                record,
                ..Memory::default()
            }),
            stop: Mutex::default(),
        }))
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn program(&self, record: &Record) -> PathBuf {
        self.0.program.clone().unwrap_or_else(|| record.program.clone())
    }

    /// Durable on return.
    fn save(&self, memory: &mut Memory, record: Record) -> Result<(), UpdateError> {
        let path = self.0.folder.join("update.json");
        let write = || {
            let fresh = path.with_extension("new");
            let mut file = File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&fresh)?;
            file.write_all(&serde_json::to_vec(&record)?)?;
            file.sync_all()?;
            std::fs::rename(&fresh, &path)?;
            sync_folder_of(&path)
        };
        write().map_err(failed("write", &path))?;
        memory.record = record;
        Ok(())
    }

    /// What to tell the server.
    pub(super) fn report(&self) -> Option<UpdateReport> {
        let memory = self.memory();
        let state = match memory.record.state {
            State::None => return None,
            State::Trying => "Trying",
            State::Confirmed => "Confirmed",
            State::RolledBack => "RolledBack",
            State::Failed => "Failed",
        };
        Some(UpdateReport {
            request: memory.record.request,
            state: state.to_owned(),
            message: memory.record.message.clone(),
        })
    }

    /// Before anything else at a start: brings record and executable together.
    pub fn settle(&self) -> Result<Next, UpdateError> {
        let mut memory = self.memory();
        let record = memory.record.clone();
        let program = self.program(&record);
        if !matches!(record.state, State::Trying | State::RolledBack) {
            return Ok(Next::GoOn);
        }
        let swapped = digest_at(&program).is_some_and(|digest| hex::encode(digest.sha256) == record.sha256);
        match record.state {
            // Recorded, but the process died before the rename: as if it had never begun.
            State::Trying if !swapped => {
                self.save(&mut memory, Record::default())?;
                Ok(Next::GoOn)
            }
            State::Trying if record.boot_id != boot_id() => {
                let again = Record {
                    boot_id: boot_id(),
                    began: boot_seconds(),
                    ..record
                };
                self.save(&mut memory, again)?;
                Ok(Next::GoOn)
            }
            State::Trying if boot_seconds() - record.began >= self.0.deadline => self.take_back(
                &mut memory,
                "the server did not hear of the new executable in time",
            ),
            State::Trying => {
                step("started");
                Ok(Next::GoOn)
            }
            State::RolledBack if swapped => {
                restore(&program)?;
                Ok(Next::Execute)
            }
            _ => Ok(Next::GoOn),
        }
    }

    /// The decision is kept before it is carried out; [`Self::settle`] finishes it after a crash.
    fn take_back(&self, memory: &mut Memory, why: &str) -> Result<Next, UpdateError> {
        let program = self.program(&memory.record);
        let record = Record {
            state: State::RolledBack,
            message: why.to_owned(),
            ..memory.record.clone()
        };
        self.save(memory, record)?;
        step("rolling-back");
        restore(&program)?;
        Ok(Next::Execute)
    }

    /// The server answered a heartbeat.
    pub(super) fn healthy(&self) {
        let mut memory = self.memory();
        if memory.record.state != State::Trying || is_mute() {
            return;
        }
        step("confirming");
        let record = Record {
            state: State::Confirmed,
            ..memory.record.clone()
        };
        match self.save(&mut memory, record) {
            Ok(()) => tracing::info!(version = executable::version(), "the update is confirmed"),
            Err(error) => tracing::warn!(error = crate::rt::chain(&error), "the update cannot be confirmed"),
        }
    }

    /// Ends `stop` when a trial runs out of time, or a fetched executable is ready.
    pub(super) fn watch(&self, runtime: &Handle, stop: CancellationToken) {
        *self.0.stop.lock().unwrap_or_else(PoisonError::into_inner) = Some((runtime.clone(), stop.clone()));
        let left = {
            let memory = self.memory();
            if memory.record.state != State::Trying {
                return;
            }
            self.0.deadline - (boot_seconds() - memory.record.began)
        };
        let this = self.clone();
        runtime.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_secs(left.max(0).unsigned_abs())) => {}
            }
            let mut memory = this.memory();
            if memory.record.state == State::Trying {
                memory.roll_back = true;
                stop.cancel();
            }
        });
    }

    /// An order of the server; handed out again and again.
    pub(super) fn order(&self, order: AgentUpdate, identity: &Identity) {
        let mut memory = self.memory();
        let seen = memory.record.state != State::None && memory.record.request == order.request;
        if seen || memory.fetching || memory.ready.is_some() {
            return;
        }
        let Some((runtime, stop)) = self.0.stop.lock().unwrap_or_else(PoisonError::into_inner).clone() else {
            return;
        };
        memory.fetching = true;
        drop(memory);
        let (this, identity) = (self.clone(), identity.clone());
        runtime.spawn(async move {
            let fetched = tokio::time::timeout(FETCH_LIMIT, this.fetch(&order, &identity)).await;
            let fetched = fetched.unwrap_or_else(|_| Err(UpdateError::Cut("it took too long".to_owned())));
            let mut memory = this.memory();
            memory.fetching = false;
            let error = match fetched {
                Ok(Next::Execute) => {
                    memory.ready = Some(order);
                    stop.cancel();
                    return;
                }
                Ok(Next::GoOn) => None,
                Err(error @ UpdateError::Cut(_)) => {
                    tracing::warn!(%error, "the update is fetched again");
                    memory.cuts += 1;
                    if memory.cuts < CUTS_MAX {
                        return;
                    }
                    Some(error)
                }
                Err(error) => Some(error),
            };
            memory.cuts = 0;
            let record = Record {
                request: order.request,
                state: if error.is_some() {
                    State::Failed
                } else {
                    State::Confirmed
                },
                message: error
                    .as_ref()
                    .map(|error| crate::rt::chain(error))
                    .unwrap_or_default(),
                version: order.version,
                ..Record::default()
            };
            if let Some(error) = &error {
                tracing::warn!(error = crate::rt::chain(error), "the agent cannot be updated");
            }
            if let Err(error) = this.save(&mut memory, record) {
                tracing::warn!(
                    error = crate::rt::chain(&error),
                    "the agent's state could not be kept"
                );
            }
        });
    }

    /// Brings the executable beside the one that runs, and makes sure that it is the right one and runs here.
    async fn fetch(&self, order: &AgentUpdate, identity: &Identity) -> Result<Next, UpdateError> {
        let Some(program) = self.0.program.clone() else {
            return Err(UpdateError::Unfit(
                "the agent does not know its own executable".to_owned(),
            ));
        };
        let own = executable::digest().map_err(failed("read", &program))?;
        if own.sha256 == *order.sha256 {
            return Ok(Next::GoOn);
        }
        if order.size_bytes > EXECUTABLE_BYTES_MAX {
            return Err(UpdateError::Unfit(format!(
                "an executable of {} bytes is refused",
                order.size_bytes
            )));
        }
        let fresh = beside(&program, ".new");
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o700)
            .open(&fresh)
            .map_err(failed("make", &fresh))?;
        let cut = |status: tonic::Status| match Refused::of_status(&status) {
            Some(refused) => UpdateError::Cut(refused.to_string()),
            None => UpdateError::Cut(status.message().to_owned()),
        };
        // A connection of its own: heartbeats and frames do not wait behind it.
        let channel = identity
            .channel()
            .map_err(|error| UpdateError::Cut(error.to_string()))?;
        let mut parts = ControlClient::new(channel)
            .fetch_agent(FetchAgentRequest {
                sha256: order.sha256.clone(),
            })
            .await
            .map_err(cut)?
            .into_inner();
        let mut received = 0u64;
        while let Some(part) = parts.message().await.map_err(cut)? {
            received += part.data.len() as u64;
            if received > order.size_bytes {
                return Err(UpdateError::Cut("more came than was announced".to_owned()));
            }
            // A few hundred KiB into the page cache: not worth a thread.
            file.write_all(&part.data).map_err(failed("write", &fresh))?;
        }
        let (order, at) = (order.clone(), fresh.clone());
        let checked = tokio::task::spawn_blocking(move || {
            file.sync_all().map_err(failed("write", &at))?;
            drop(file);
            check(&at, &order)
        });
        checked
            .await
            .map_err(|_| UpdateError::Cut("the agent stops".to_owned()))??;
        step("downloaded");
        Ok(Next::Execute)
    }

    /// After replication has ended in good order: changes the executables, or changes them back.
    pub fn change_over(&self) -> Result<Next, UpdateError> {
        let mut memory = self.memory();
        if memory.roll_back {
            return self.take_back(
                &mut memory,
                "the server did not answer the new executable in time",
            );
        }
        let (Some(order), Some(program)) = (memory.ready.take(), self.0.program.clone()) else {
            return Ok(Next::GoOn);
        };
        let (previous, linked) = (beside(&program, ".previous"), beside(&program, ".previous.new"));
        let _ = std::fs::remove_file(&linked);
        std::fs::hard_link(&program, &linked)
            .and_then(|()| std::fs::rename(&linked, &previous))
            .and_then(|()| sync_folder_of(&program))
            .map_err(failed("keep", &program))?;
        step("kept");
        let record = Record {
            request: order.request,
            state: State::Trying,
            message: String::new(),
            version: order.version,
            sha256: hex::encode(order.sha256),
            program: program.clone(),
            boot_id: boot_id(),
            began: boot_seconds(),
        };
        self.save(&mut memory, record)?;
        step("recorded");
        std::fs::rename(beside(&program, ".new"), &program)
            .and_then(|()| sync_folder_of(&program))
            .map_err(failed("replace", &program))?;
        step("swapped");
        tracing::info!(
            version = memory.record.version,
            "the agent changes over to another executable"
        );
        Ok(Next::Execute)
    }

    /// Becomes the executable that is there now, with the same arguments. Returns only when that fails.
    pub fn execute(&self) -> UpdateError {
        let program = self.program(&self.memory().record);
        let error = Command::new(&program).args(std::env::args_os().skip(1)).exec();
        let message = format!("the new executable cannot be run: {error}");
        let mut memory = self.memory();
        if memory.record.state == State::Trying
            && let Err(error) = self.take_back(&mut memory, &message)
        {
            return error;
        }
        failed("run", &program)(error)
    }
}

/// The previous executable takes the place of the one that did not prove itself.
fn restore(program: &Path) -> Result<(), UpdateError> {
    let previous = beside(program, ".previous");
    std::fs::rename(&previous, program)
        .and_then(|()| sync_folder_of(program))
        .map_err(failed("bring back", &previous))?;
    tracing::warn!("the previous executable is back");
    Ok(())
}

/// Size, digest, and that it runs here and says the version that was ordered.
fn check(fresh: &Path, order: &AgentUpdate) -> Result<(), UpdateError> {
    let found = digest_at(fresh).ok_or_else(|| UpdateError::Cut("it cannot be read back".to_owned()))?;
    if found.bytes != order.size_bytes || found.sha256 != *order.sha256 {
        return Err(UpdateError::Cut("what came is not what was announced".to_owned()));
    }
    std::fs::set_permissions(fresh, Permissions::from_mode(0o755))
        .map_err(failed("mark as executable", fresh))?;
    let mut child = Command::new(fresh)
        .arg("--version")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .map_err(|error| {
            UpdateError::Unfit(format!(
                "the new executable cannot be run on this machine: {error}"
            ))
        })?;
    let end = std::time::Instant::now() + VERSION_LIMIT;
    loop {
        match child.try_wait() {
            Ok(None) if std::time::Instant::now() < end => std::thread::sleep(Duration::from_millis(20)),
            Ok(Some(status)) if status.success() => break,
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(UpdateError::Unfit(
                    "the new executable does not run on this machine (is its C library older?)".to_owned(),
                ));
            }
        }
    }
    let mut said = String::new();
    if let Some(output) = child.stdout.take() {
        let _ = io::Read::read_to_string(&mut io::Read::take(output, 1024), &mut said);
    }
    if said.split_whitespace().last() == Some(order.version.as_str()) {
        return Ok(());
    }
    Err(UpdateError::Unfit(format!(
        "the new executable says that it is {:?}, ordered was {}",
        said.trim(),
        order.version
    )))
}
