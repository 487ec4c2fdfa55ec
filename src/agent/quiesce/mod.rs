//! Bringing applications to rest for a point: the executables of a folder, called with `pre` before the freeze and with
//! `post` after the thaw.
//!
//! ```text
//! begin: settle what an earlier agent left -> pre of each, by name -> (freeze, read, thaw) -> end: post of each, backwards
//! ```
//! Whoever's `pre` was begun gets its `post`: after a failure, after a limit, after a kill -9 of the agent. So the name of a
//! hook is on disk before its `pre` is begun, and stays there until its `post` succeeded; the next agent, the next attempt, or
//! `lifeboat agent quiesce resume` settles what is left. A point is app-consistent only when every `pre` and every `post`
//! succeeded and the file systems were thawed within the hold: a `post` can find out that its application did not stand still.
pub mod hooks;
pub mod process;
pub mod shipped;

use hooks::{Found, Hook};
use process::{Ended, Outcome};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub const DEFAULT_FOLDER: &str = "/etc/lifeboat/quiesce.d";
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// From the end of the first `pre` to the thaw; what a hook holds may be let go by itself after that.
pub const DEFAULT_HOLD: Duration = Duration::from_secs(30);
/// Of a hook's words in a message.
const WORDS_CHARS_MAX: usize = 300;

/// Why applications are brought to rest, as hooks are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The policy's frequency.
    Schedule,
    /// A person asked for a point.
    Request,
    /// Shared by a replication group.
    Group,
    /// Tried without a point.
    Test,
}

impl Why {
    fn word(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Request => "request",
            Self::Group => "group",
            Self::Test => "test",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Quiesce {
    pub folder: PathBuf,
    /// The agent's folder of state.
    pub state: PathBuf,
    pub machine: String,
    /// Of each call of a hook.
    pub timeout: Duration,
    pub hold: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    Pre,
    Post,
}

impl Phase {
    pub fn word(self) -> &'static str {
        match self {
            Self::Pre => "pre",
            Self::Post => "post",
        }
    }
}

/// How one call of a hook ended.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    pub hook: String,
    pub phase: Phase,
    pub seconds: f64,
    /// Empty: it succeeded.
    pub failure: String,
    pub output: String,
}

#[derive(Debug, thiserror::Error)]
pub enum QuiesceError {
    #[error("there is no hook in {0}")]
    NoHooks(PathBuf),
    #[error("the hooks in {folder} are not run: the folder {why}")]
    Folder { folder: PathBuf, why: String },
    #[error("the hook {hook} is not run: it {why}")]
    Refused { hook: String, why: String },
    #[error("the hook {hook} failed in {phase}: {how}{}", words(.output))]
    Failed {
        hook: String,
        phase: &'static str,
        how: String,
        output: String,
    },
    #[error(
        "applications were held for {held_ms} ms until the thaw, longer than the {hold_ms} ms that they are asked for"
    )]
    TooLong { held_ms: u128, hold_ms: u128 },
    #[error("the disks did not come to rest: {0}")]
    NotStill(String),
    #[error("applications are being brought to rest by another call of lifeboat on this machine")]
    Busy,
    #[error("what an earlier attempt held could not be let go: {0}")]
    StillHeld(Box<QuiesceError>),
    #[error("cannot {what} {path}")]
    Io {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("cancelled")]
    Cancelled,
}

fn words(output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    let last = lines[lines.len().saturating_sub(3)..].join(" / ");
    let skip = last.chars().count().saturating_sub(WORDS_CHARS_MAX);
    match last.chars().skip(skip).collect::<String>() {
        text if text.is_empty() => text,
        text => format!("; it said: {text}"),
    }
}

impl QuiesceError {
    /// Possible causes and recommended action.
    pub fn advice(&self) -> (&'static str, String) {
        match self {
            Self::NoHooks(folder) => (
                "no hook was installed, or the setting names another folder",
                format!(
                    "put an executable into {}, or enable a shipped one: lifeboat agent quiesce enable",
                    folder.display()
                ),
            ),
            Self::Folder { folder, .. } => (
                "anybody could have the agent run what they like as root",
                format!(
                    "give it to root and take the right to write from others: chown root {0}; chmod 755 {0}",
                    folder.display()
                ),
            ),
            Self::Refused { .. } => (
                "anybody could have the agent run what they like as root",
                "give the file and the folders above it to root and take the right to write from others; then: lifeboat agent quiesce list"
                    .to_owned(),
            ),
            Self::Failed { phase: "post", .. } | Self::StillHeld(_) => (
                "the application does not answer, or the hook has a fault",
                "see whether the application works; then let go what is held: lifeboat agent quiesce resume".to_owned(),
            ),
            Self::Failed { .. } => (
                "the application is down, refuses the hook's login, or is too busy; or the hook has a fault",
                "try it without a point and read what it says: lifeboat agent quiesce test".to_owned(),
            ),
            Self::TooLong { .. } => (
                "much is written while applications come to rest, or the disk is slow",
                "none if it is a peak; else a longer hold: lifeboat agent run --quiesce-hold".to_owned(),
            ),
            Self::NotStill(_) => (
                "something writes past the file systems, or a file system cannot be frozen",
                "see the note of the recovery point, and: lifeboat agent doctor".to_owned(),
            ),
            Self::Busy => (
                "a test of the hooks is under way",
                "wait for its end; the next attempt comes by itself".to_owned(),
            ),
            Self::Io { .. } => (
                "the folder cannot be read or written, or the disk is full",
                "look at the path; the agent needs to read the hooks and to write its state".to_owned(),
            ),
            Self::Cancelled => ("the orders changed, or the agent stops", "none".to_owned()),
        }
    }

    /// Nothing was asked to stand still, so nothing failed.
    pub fn is_no_hooks(&self) -> bool {
        matches!(self, Self::NoHooks(_))
    }

    /// Something may still be held: a person should look.
    pub fn may_hold(&self) -> bool {
        matches!(self, Self::StillHeld(_) | Self::Failed { phase: "post", .. })
    }
}

/// What must be let go, whatever happens to the agent.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Record {
    id: String,
    machine: String,
    /// In the order of their `pre`.
    begun: Vec<Begun>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Begun {
    name: String,
    path: PathBuf,
    /// Of its `pre`, while it runs.
    pid: Option<u32>,
    start_ticks: Option<u64>,
}

/// Applications stand still until [`end`](Quiesced::end), or until this is dropped.
pub struct Quiesced {
    settings: Quiesce,
    record: Record,
    why: Why,
    mounts: String,
    /// When the first `pre` had succeeded: what holds, holds since then.
    since: Option<Instant>,
    thawed_after: Option<Duration>,
    steps: Vec<Step>,
    is_over: bool,
    /// Nobody else brings anything to rest on this machine.
    _lock: File,
}

impl Quiesce {
    fn record_path(&self) -> PathBuf {
        self.state.join("quiesced.json")
    }

    fn io(&self, what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> QuiesceError {
        let path = path.to_owned();
        move |source| QuiesceError::Io { what, path, source }
    }

    pub fn find(&self) -> Result<Found, QuiesceError> {
        hooks::find(&self.folder).map_err(self.io("read", &self.folder))
    }

    fn lock(&self) -> Result<File, QuiesceError> {
        let path = self.state.join("quiesce.lock");
        std::fs::create_dir_all(&self.state).map_err(self.io("make", &self.state))?;
        let file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(self.io("open", &path))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(QuiesceError::Busy),
            Err(error) => Err(self.io("lock", &path)(error.into())),
        }
    }

    /// Durable: it must outlive also the machine's power, for a hook may hold something that does.
    fn save(&self, record: &Record) -> Result<(), QuiesceError> {
        let path = self.record_path();
        let fresh = path.with_extension("new");
        let write = || {
            let mut file = File::create(&fresh)?;
            file.write_all(&serde_json::to_vec(record)?)?;
            file.sync_all()?;
            std::fs::rename(&fresh, &path)?;
            File::open(&self.state)?.sync_all()
        };
        write().map_err(self.io("write", &path))
    }

    fn load(&self) -> Option<Record> {
        let bytes = std::fs::read(self.record_path()).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Hooks whose `post` is due since an earlier agent, test or attempt.
    pub fn left(&self) -> Vec<String> {
        let begun = self.load().unwrap_or_default().begun;
        begun.into_iter().map(|begun| begun.name).collect()
    }

    /// Lets go what an earlier agent left; the names of the hooks that were called.
    pub fn settle(&self) -> Result<Vec<Step>, QuiesceError> {
        let _lock = self.lock()?;
        self.settle_locked()
    }

    fn settle_locked(&self) -> Result<Vec<Step>, QuiesceError> {
        let Some(mut record) = self.load() else {
            return Ok(Vec::new());
        };
        for begun in &record.begun {
            if let (Some(pid), Some(ticks)) = (begun.pid, begun.start_ticks) {
                process::end_left_over(pid, ticks);
            }
        }
        let mut steps = Vec::new();
        let failed = self.let_go(&mut record, "recovery", "", &mut steps);
        match failed {
            Some(error) => Err(QuiesceError::StillHeld(Box::new(error))),
            None => Ok(steps),
        }
    }

    /// `post` of everything that was begun, backwards; what fails stays in the record. The first failure.
    fn let_go(
        &self,
        record: &mut Record,
        reason: &str,
        mounts: &str,
        steps: &mut Vec<Step>,
    ) -> Option<QuiesceError> {
        let mut failed = None;
        let mut left = Vec::new();
        let never = AtomicBool::new(false);
        for begun in record.begun.drain(..).rev() {
            let hook = Hook {
                name: begun.name.clone(),
                path: begun.path.clone(),
                // Much may have happened since its pre.
                refused: hooks::why_unsafe(&begun.path),
            };
            let called = match &hook.refused {
                Some(why) => Err(QuiesceError::Refused {
                    hook: hook.name.clone(),
                    why: why.clone(),
                }),
                None => self.call(&hook, Phase::Post, &record.id, reason, mounts, &never, |_| ()),
            };
            if let Err(error) = called.and_then(|step| record_step(steps, step)) {
                tracing::warn!(hook = %begun.name, "{error}");
                failed.get_or_insert(error);
                left.insert(0, begun);
            }
        }
        record.begun = left;
        let kept = if record.begun.is_empty() {
            std::fs::remove_file(self.record_path()).map_err(self.io("remove", &self.record_path()))
        } else {
            self.save(record)
        };
        if let Err(error) = kept {
            failed.get_or_insert(error);
        }
        failed
    }

    #[allow(clippy::too_many_arguments)] // each is a fact that the hook is told
    fn call(
        &self,
        hook: &Hook,
        phase: Phase,
        id: &str,
        reason: &str,
        mounts: &str,
        cancel: &AtomicBool,
        started: impl FnOnce(u32),
    ) -> Result<Step, QuiesceError> {
        let own = self.state.join("quiesce");
        std::fs::create_dir_all(&own)
            .and_then(|()| {
                std::fs::set_permissions(&own, std::os::unix::fs::PermissionsExt::from_mode(0o700))
            })
            .map_err(self.io("make", &own))?;
        let mut command = process::gated(&hook.path, phase.word());
        command
            .current_dir("/")
            // What the agent was started with is not the hook's business.
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("LANG", "C.UTF-8")
            .env("HOME", "/")
            .env("LIFEBOAT_PHASE", phase.word())
            .env("LIFEBOAT_REASON", reason)
            .env("LIFEBOAT_MACHINE", &self.machine)
            .env("LIFEBOAT_QUIESCE_ID", id)
            .env("LIFEBOAT_QUIESCE_DIR", &self.folder)
            .env("LIFEBOAT_STATE_DIR", &own)
            .env("LIFEBOAT_FILE_SYSTEMS", mounts)
            .env("LIFEBOAT_TIMEOUT_SECONDS", self.timeout.as_secs().to_string())
            .env("LIFEBOAT_HOLD_SECONDS", self.hold.as_secs().to_string());
        let outcome =
            process::run(command, self.timeout, cancel, started).map_err(self.io("run", &hook.path))?;
        let Outcome {
            ended,
            output,
            elapsed,
        } = outcome;
        let failure = match ended {
            Ended::Exited(status) if status.success() => String::new(),
            Ended::Exited(status) => status.to_string(),
            Ended::TimedOut => format!(
                "it did not end within {} s and was killed",
                self.timeout.as_secs()
            ),
            Ended::Cancelled => return Err(QuiesceError::Cancelled),
        };
        Ok(Step {
            hook: hook.name.clone(),
            phase,
            seconds: elapsed.as_secs_f64(),
            failure,
            output,
        })
    }

    /// Brings everything to rest, or nothing: after a failure what was begun has been let go.
    /// `mounts`: file systems that will be frozen.
    pub fn begin(
        &self,
        why: Why,
        mounts: &[PathBuf],
        cancel: &AtomicBool,
        steps: &mut Vec<Step>,
    ) -> Result<Quiesced, QuiesceError> {
        let lock = self.lock()?;
        self.settle_locked()?;
        let found = self.find()?;
        if found.is_empty() {
            return Err(QuiesceError::NoHooks(self.folder.clone()));
        }
        if let Some(why) = found.refused {
            return Err(QuiesceError::Folder {
                folder: self.folder.clone(),
                why,
            });
        }
        // All are looked at before the first is begun.
        for hook in &found.hooks {
            if let Some(why) = &hook.refused {
                return Err(QuiesceError::Refused {
                    hook: hook.name.clone(),
                    why: why.clone(),
                });
            }
        }
        let list = mounts.iter().map(|path| path.to_string_lossy());
        let mut quiesced = Quiesced {
            settings: self.clone(),
            record: Record {
                id: uuid::Uuid::new_v4().simple().to_string(),
                machine: self.machine.clone(),
                begun: Vec::new(),
            },
            why,
            mounts: list.collect::<Vec<_>>().join(":"),
            since: None,
            thawed_after: None,
            steps: Vec::new(),
            is_over: false,
            _lock: lock,
        };
        for hook in &found.hooks {
            if let Err(error) = quiesced.pre(hook, cancel) {
                // What was begun is let go; the first failure is the one to tell.
                let ended = quiesced.let_go();
                steps.append(&mut quiesced.steps);
                return Err(match ended {
                    Some(held) if held.may_hold() => QuiesceError::StillHeld(Box::new(held)),
                    _ => error,
                });
            }
        }
        Ok(quiesced)
    }
}

fn record_step(steps: &mut Vec<Step>, step: Step) -> Result<(), QuiesceError> {
    let failed = (!step.failure.is_empty()).then(|| QuiesceError::Failed {
        hook: step.hook.clone(),
        phase: step.phase.word(),
        how: step.failure.clone(),
        output: step.output.clone(),
    });
    steps.push(step);
    failed.map_or(Ok(()), Err)
}

impl Quiesced {
    fn pre(&mut self, hook: &Hook, cancel: &AtomicBool) -> Result<(), QuiesceError> {
        if cancel.load(Ordering::SeqCst) {
            return Err(QuiesceError::Cancelled);
        }
        self.record.begun.push(Begun {
            name: hook.name.clone(),
            path: hook.path.clone(),
            ..Begun::default()
        });
        self.settings.save(&self.record)?;
        let (settings, id, mounts) = (self.settings.clone(), self.record.id.clone(), self.mounts.clone());
        let record = &mut self.record;
        let started = |pid: u32| {
            if let Some(begun) = record.begun.last_mut() {
                (begun.pid, begun.start_ticks) = (Some(pid), process::start_ticks(pid));
                // Not written: then it runs to its own end should the agent be killed, and post comes all the same.
                if let Err(error) = settings.save(record) {
                    tracing::warn!(%error, "a hook's process could not be recorded");
                }
            }
        };
        let word = self.why.word();
        let step = settings.call(hook, Phase::Pre, &id, word, &mounts, cancel, started)?;
        if let Some(begun) = self.record.begun.last_mut() {
            (begun.pid, begun.start_ticks) = (None, None);
        }
        self.settings.save(&self.record)?;
        record_step(&mut self.steps, step)?;
        self.since.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// What is held may let go by itself after this.
    pub fn until(&self) -> Instant {
        self.since.unwrap_or_else(Instant::now) + self.settings.hold
    }

    /// Names of the hooks, as a point's note says them.
    pub fn names(&self) -> String {
        let names: Vec<&str> = self
            .record
            .begun
            .iter()
            .map(|begun| begun.name.as_str())
            .collect();
        names.join(", ")
    }

    /// The file systems move again, or were not frozen after all.
    pub fn thawed(&mut self) {
        self.thawed_after = self.since.map(|since| since.elapsed());
    }

    fn let_go(&mut self) -> Option<QuiesceError> {
        self.is_over = true;
        if self.record.begun.is_empty() {
            return None;
        }
        self.settings
            .let_go(&mut self.record, self.why.word(), &self.mounts, &mut self.steps)
    }

    /// `post` of all. An error: not all stood still until [`thawed`](Self::thawed).
    pub fn end(mut self, steps: &mut Vec<Step>) -> Result<(), QuiesceError> {
        let failed = self.let_go();
        steps.append(&mut self.steps);
        if let Some(error) = failed {
            return Err(error);
        }
        let held = self.thawed_after.unwrap_or_default();
        if held > self.settings.hold {
            return Err(QuiesceError::TooLong {
                held_ms: held.as_millis(),
                hold_ms: self.settings.hold.as_millis(),
            });
        }
        Ok(())
    }
}

impl Drop for Quiesced {
    fn drop(&mut self) {
        if !self.is_over {
            // Failures are logged where they happen, and the record keeps them.
            let _ = self.let_go();
        }
    }
}

#[cfg(test)]
mod tests;
