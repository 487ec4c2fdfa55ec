//! A machine that is to keep still, since it runs somewhere else or is about to: hooks that bring its workload down and up,
//! words on its console, and an eye on what is written all the same.
//!
//! Hooks are executables of one folder, called with one word:
//! ```text
//! stop     before the last recovery point of a planned failover; a hook that fails ends the failover before anything happened
//! fenced   the machine was failed over, again at each start of the agent meanwhile: keep the workload down
//! start    it is the machine again: the failover was taken back, or it came home. In the reverse order
//! ```
use super::cycle::ProtectedDisk;
use super::quiesce::hooks;
use super::quiesce::process::{self, Ended};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

pub const DEFAULT_FOLDER: &str = "/etc/lifeboat/fence.d";
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);
/// The system's console: who stands before the machine reads it there.
const CONSOLE: &str = "/dev/console";

#[derive(Clone, Debug)]
pub struct Fence {
    pub folder: PathBuf,
    /// Of each call of a hook.
    pub timeout: Duration,
    pub machine: String,
    /// Where what everybody must know is written, besides the log; None: nowhere.
    pub console: Option<PathBuf>,
}

impl Fence {
    pub fn new(machine: String) -> Self {
        Self {
            folder: DEFAULT_FOLDER.into(),
            timeout: DEFAULT_TIMEOUT,
            machine,
            console: Some(CONSOLE.into()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Stop,
    Fenced,
    Start,
}

impl Word {
    fn text(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Fenced => "fenced",
            Self::Start => "start",
        }
    }
}

impl Fence {
    /// Calls the hooks one after the other; how many there were. `stop` ends at the first that fails, the others are all
    /// called. The error is in words.
    pub fn call(&self, word: Word, reason: &str) -> Result<usize, String> {
        let found = hooks::find(&self.folder)
            .map_err(|error| format!("the hooks in {} cannot be listed: {error}", self.folder.display()))?;
        if let Some(why) = found.refused.filter(|_| !found.hooks.is_empty()) {
            return Err(format!(
                "the hooks in {} are not run: the folder {why}",
                self.folder.display()
            ));
        }
        let mut hooks = found.hooks;
        if word == Word::Start {
            hooks.reverse();
        }
        let mut failed = Vec::new();
        for hook in &hooks {
            let ended = match &hook.refused {
                Some(why) => Err(format!("it is not run: it {why}")),
                None => self.call_one(hook, word, reason),
            };
            if let Err(why) = ended {
                failed.push(format!("the hook {} with `{}`: {why}", hook.name, word.text()));
                if word == Word::Stop {
                    break;
                }
            }
        }
        if failed.is_empty() {
            Ok(hooks.len())
        } else {
            Err(failed.join("; "))
        }
    }

    fn call_one(&self, hook: &hooks::Hook, word: Word, reason: &str) -> Result<(), String> {
        let mut command = process::gated(&hook.path, word.text());
        command
            .env("LIFEBOAT_MACHINE", &self.machine)
            .env("LIFEBOAT_REASON", reason)
            .env("LIFEBOAT_TIMEOUT_SECONDS", self.timeout.as_secs().to_string());
        let outcome = process::run(command, self.timeout, &AtomicBool::new(false), |_| ())
            .map_err(|error| format!("it cannot be run: {error}"))?;
        let said = outcome.output.lines().next_back().unwrap_or_default();
        match outcome.ended {
            Ended::Exited(status) if status.success() => Ok(()),
            Ended::Exited(status) => Err(format!("it ended with {status} {said}")),
            Ended::TimedOut | Ended::Cancelled => Err(format!(
                "it did not end within {} s {said}",
                self.timeout.as_secs()
            )),
        }
    }

    /// Where a person before the machine sees it. A console that takes no words is no reason to stop.
    pub fn shout(&self, text: &str) {
        let Some(console) = &self.console else { return };
        let opened = std::fs::File::options()
            .write(true)
            .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
            .open(console);
        if let Ok(mut console) = opened {
            let _ = console.write_all(format!("\r\n*** LIFEBOAT: {text} ***\r\n").as_bytes());
        }
    }
}

/// Sees what is written to a machine that should keep still.
pub struct Watch {
    disks: Vec<ProtectedDisk>,
    /// Pending when it was fenced: written before, and of no interest.
    before_bytes: u64,
    last_bytes: u64,
}

impl Watch {
    /// None: nothing of the disks is tracked.
    pub fn new(disks: Vec<ProtectedDisk>) -> Option<Self> {
        if disks.is_empty() || !disks.iter().all(ProtectedDisk::is_tracked) {
            return None;
        }
        let mut watch = Self {
            disks,
            before_bytes: 0,
            last_bytes: 0,
        };
        watch.before_bytes = watch.pending_bytes();
        watch.last_bytes = watch.before_bytes;
        Some(watch)
    }

    fn pending_bytes(&self) -> u64 {
        self.disks.iter().map(ProtectedDisk::backlog_bytes).sum()
    }

    /// Bytes of blocks that were written since the fence, when there are more of them than at the last look.
    pub fn look(&mut self) -> Option<u64> {
        let now = self.pending_bytes();
        let more = now > self.last_bytes;
        self.last_bytes = now;
        more.then(|| now - self.before_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn fence(folder: &tempfile::TempDir) -> Fence {
        Fence {
            folder: folder.path().join("fence.d"),
            timeout: Duration::from_secs(20),
            machine: "web1".to_owned(),
            console: Some(folder.path().join("console")),
        }
    }

    fn hook(fence: &Fence, name: &str, text: &str) {
        std::fs::create_dir_all(&fence.folder).unwrap();
        let path = fence.folder.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    #[test]
    fn hooks_hear_their_word_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let fence = fence(&folder);
        assert_eq!(fence.call(Word::Stop, "planned failover"), Ok(0));
        let log = folder.path().join("log");
        for name in ["10-web", "20-database"] {
            hook(
                &fence,
                name,
                &format!("echo {name} $1 $LIFEBOAT_MACHINE >>{}", log.display()),
            );
        }
        for word in [Word::Stop, Word::Fenced, Word::Start] {
            assert_eq!(fence.call(word, "a test"), Ok(2));
        }
        let said = std::fs::read_to_string(&log).unwrap();
        let expected = [
            "10-web stop web1",
            "20-database stop web1",
            "10-web fenced web1",
            "20-database fenced web1",
            "20-database start web1",
            "10-web start web1",
        ];
        assert_eq!(said.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_failing_hook_is_named_and_ends_only_a_stop() {
        let folder = tempfile::tempdir().unwrap();
        let fence = fence(&folder);
        let log = folder.path().join("log");
        hook(&fence, "10-fails", "echo will not >&2; exit 3");
        hook(&fence, "20-works", &format!("echo $1 >>{}", log.display()));
        let why = fence.call(Word::Stop, "a test").unwrap_err();
        assert!(why.contains("10-fails") && why.contains("will not"), "{why}");
        assert!(!log.exists(), "nothing is stopped behind one that could not be");
        fence.call(Word::Fenced, "a test").unwrap_err();
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "fenced\n");
    }

    #[test]
    fn the_console_hears_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let fence = fence(&folder);
        fence.shout("nobody listens");
        let console = fence.console.as_ref().unwrap();
        std::fs::write(console, "").unwrap();
        fence.shout("this machine is fenced");
        let said = std::fs::read_to_string(console).unwrap();
        assert!(said.contains("LIFEBOAT: this machine is fenced"), "{said}");
    }
}
