//! The serial log: when did the machine speak first?
//!
//! A thread waits for the log to grow and notes the instant in the machine's folder. When the server ends before that, the next one waits
//! on; when the log grew while no server was there, the instant is not known, and none is made up.
use super::process::Process;
use super::record::{FIRST_OUTPUT, FirstOutput, Run, SERIAL, SERIAL_BEFORE, load, save};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::inotify::{CreateFlags, WatchFlags};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Whether a thread of this process waits.
#[derive(Default)]
pub(super) struct Watch {
    waiting: Arc<AtomicBool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

pub(super) struct Watcher {
    log: File,
    changes: OwnedFd,
    offset: u64,
}

/// Keeps one earlier log; the log begins anew.
pub(super) fn put_aside(folder: &Path, limit: u64) -> io::Result<()> {
    match std::fs::metadata(folder.join(SERIAL)) {
        Ok(found) if found.len() > limit => std::fs::rename(folder.join(SERIAL), folder.join(SERIAL_BEFORE)),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

impl Watcher {
    /// Before the machine starts, so that no byte is missed.
    pub fn prepare(folder: &Path) -> io::Result<Self> {
        let log = File::options()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(folder.join(SERIAL))?;
        Self::over(folder, log)
    }

    fn over(folder: &Path, log: File) -> io::Result<Self> {
        let path = folder.join(SERIAL);
        let changes = rustix::fs::inotify::init(CreateFlags::CLOEXEC)?;
        rustix::fs::inotify::add_watch(&changes, &path, WatchFlags::MODIFY)?;
        let offset = log.metadata()?.len();
        Ok(Self { log, changes, offset })
    }

    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The instant at which the log was seen to be longer; None: the machine ended without a word.
    fn wait(&self, process: &OwnedFd) -> io::Result<Option<i64>> {
        loop {
            let mut handles = [
                PollFd::new(&self.changes, PollFlags::IN),
                PollFd::new(process, PollFlags::IN),
            ];
            match rustix::event::poll(&mut handles, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            let now = crate::rt::now_unix_nanos();
            let ended = !handles[1].revents().is_empty();
            if self.log.metadata()?.len() > self.offset {
                return Ok(Some(now));
            }
            if ended {
                return Ok(None);
            }
            rustix::io::read(&self.changes, &mut [0u8; 4096])?;
        }
    }
}

impl Watch {
    pub fn begin(&self, watcher: Watcher, folder: &Path, run: &Run, process: &Process) {
        let Ok(process) = process.handle().try_clone() else {
            return;
        };
        self.waiting.store(true, Ordering::SeqCst);
        let waiting = self.waiting.clone();
        let (folder, run): (PathBuf, i64) = (folder.to_owned(), run.started_unix_nanos);
        let thread = move || {
            match watcher.wait(&process) {
                Ok(Some(instant_unix_nanos)) => {
                    let first = FirstOutput {
                        run_started_unix_nanos: run,
                        instant_unix_nanos,
                    };
                    // Fails when the machine was destroyed meanwhile: then nobody asks.
                    let _ = save(&folder, FIRST_OUTPUT, &first);
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "the serial log cannot be watched"),
            }
            waiting.store(false, Ordering::SeqCst);
        };
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|thread| !thread.is_finished());
        match std::thread::Builder::new().name("serial".into()).spawn(thread) {
            Ok(thread) => threads.push(thread),
            Err(_) => self.waiting.store(false, Ordering::SeqCst),
        }
    }

    /// After the machine's end: until nobody here writes to its folder.
    pub fn settle(&self) {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            let _ = thread.join();
        }
    }

    /// What was noted; waits on where a server before this one did.
    pub fn first_output(&self, folder: &Path, run: &Run, process: &Process) -> Option<i64> {
        let noted: Option<FirstOutput> = load(folder, FIRST_OUTPUT);
        let noted = noted.filter(|first| first.run_started_unix_nanos == run.started_unix_nanos);
        if noted.is_none() && !self.waiting.swap(true, Ordering::SeqCst) {
            let watcher = File::open(folder.join(SERIAL)).and_then(|log| Watcher::over(folder, log));
            match watcher {
                Ok(watcher) if watcher.offset == run.serial_offset => {
                    self.begin(watcher, folder, run, process)
                }
                _ => self.waiting.store(false, Ordering::SeqCst),
            }
        }
        noted.map(|first| first.instant_unix_nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Child, Command};
    use std::time::{Duration, Instant};

    /// Stands for QEMU; ended with the test, also when it fails.
    struct Sleeper(Child);

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn run(started_unix_nanos: i64, serial_offset: u64) -> Run {
        Run {
            started_unix_nanos,
            serial_offset,
            ..Run::default()
        }
    }

    fn noted(watch: &Watch, folder: &Path, run: &Run, process: &Process) -> i64 {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(instant) = watch.first_output(folder, run, process) {
                return instant;
            }
            assert!(Instant::now() < deadline, "nothing was noted");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn the_first_byte_of_each_run_is_noted_also_by_the_next_server() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let sleeper = Sleeper(Command::new("sleep").arg("600").spawn().unwrap());
        let process = Process::of(sleeper.0.id());
        let write = |text: &str| {
            let mut log = File::options().append(true).open(folder.join(SERIAL)).unwrap();
            log.write_all(text.as_bytes()).unwrap();
        };
        let watch = Watch::default();
        let watcher = Watcher::prepare(folder).unwrap();
        let first = run(1, watcher.offset());
        watch.begin(watcher, folder, &first, &process);
        assert_eq!(watch.first_output(folder, &first, &process), None);
        let before = crate::rt::now_unix_nanos();
        write("BOOT");
        let instant = noted(&watch, folder, &first, &process);
        assert!(before < instant && instant < crate::rt::now_unix_nanos());
        write(" and more");
        assert_eq!(watch.first_output(folder, &first, &process), Some(instant));

        // Another run, begun by a server that is gone: this one waits on.
        let second = run(2, 13);
        let next = Watch::default();
        assert_eq!(next.first_output(folder, &second, &process), None);
        let before = crate::rt::now_unix_nanos();
        write("BOOT");
        assert!(before < noted(&next, folder, &second, &process));

        // The log grew while nobody looked: no instant is made up.
        let third = run(3, 13);
        let late = Watch::default();
        assert_eq!(late.first_output(folder, &third, &process), None);
        write("more");
        late.settle();
        assert_eq!(late.first_output(folder, &third, &process), None);

        // The machine ends without a word.
        let fourth = run(4, 21);
        let silent = Watch::default();
        assert_eq!(silent.first_output(folder, &fourth, &process), None);
        drop(sleeper);
        silent.settle();
        assert_eq!(silent.first_output(folder, &fourth, &process), None);
    }

    #[test]
    fn a_long_log_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        put_aside(folder.path(), 10).unwrap();
        std::fs::write(folder.path().join(SERIAL), "0123456789").unwrap();
        put_aside(folder.path(), 10).unwrap();
        assert!(folder.path().join(SERIAL).exists());
        put_aside(folder.path(), 9).unwrap();
        assert!(!folder.path().join(SERIAL).exists());
        assert_eq!(
            std::fs::read(folder.path().join(SERIAL_BEFORE)).unwrap(),
            b"0123456789"
        );
    }
}
