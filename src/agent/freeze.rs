//! Freezing the file systems of a machine for an instant, and making sure that they thaw.
//!
//! The guard is a process of its own, locked in memory. It freezes on command and thaws on command, at a
//! deadline, or when its pipe closes: whatever happens to the agent, no file system stays frozen. Should the
//! guard die, the agent thaws; it holds the mount points open too.
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// `_IOWR('X', 119, int)` and 120 of `linux/fs.h`.
const FIFREEZE: libc::c_ulong = 0xC004_5877;
const FITHAW: libc::c_ulong = 0xC004_5878;

const READY: u8 = b'R';
const FREEZE: u8 = b'F';
const FROZEN: u8 = b'F';
const THAW: u8 = b'T';
const THAWED: u8 = b'T';
const DEADLINE: u8 = b'D';
const FAILED: u8 = b'E';

#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    #[error("cannot open {path} to freeze it")]
    Open { path: PathBuf, source: io::Error },
    #[error("the freeze guard cannot be started")]
    Guard(#[source] io::Error),
    #[error("a file system refused to be frozen; all are thawed")]
    Refused,
    #[error("the freeze outlasted its deadline and was ended by the guard")]
    Deadline,
    #[error("the freeze guard died; the agent thawed the file systems itself")]
    GuardDied,
}

fn control(file: &File, request: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the descriptor is open, and both requests ignore their argument.
    if unsafe { libc::ioctl(file.as_raw_fd(), request, 0) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn open_all(paths: &[PathBuf]) -> Result<Vec<File>, FreezeError> {
    paths
        .iter()
        .map(|path| {
            File::open(path).map_err(|source| FreezeError::Open {
                path: path.clone(),
                source,
            })
        })
        .collect()
}

/// A guard that is ready to freeze at once.
pub struct Guard {
    child: Child,
    mounts: Vec<File>,
}

/// File systems are frozen as long as this lives, at most to the deadline.
pub struct Frozen {
    guard: Guard,
    since: Instant,
    ended: bool,
}

impl Guard {
    /// `program`: this executable, which runs [`guard_main`] when its first argument is `freeze-guard`.
    pub fn spawn(
        program: &std::path::Path,
        mounts: &[PathBuf],
        deadline: Duration,
    ) -> Result<Self, FreezeError> {
        let files = open_all(mounts)?;
        let child = Command::new(program)
            .arg("freeze-guard")
            .arg(deadline.as_millis().to_string())
            .args(mounts)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(FreezeError::Guard)?;
        let mut guard = Self { child, mounts: files };
        match guard.answer() {
            Some(READY) => Ok(guard),
            _ => Err(FreezeError::GuardDied),
        }
    }

    fn tell(&mut self, word: u8) {
        if let Some(pipe) = &mut self.child.stdin {
            // A guard that is gone shows in its missing answer.
            let _ = pipe.write_all(&[word]);
        }
    }

    fn answer(&mut self) -> Option<u8> {
        let mut word = [0];
        self.child.stdout.as_mut()?.read_exact(&mut word).ok()?;
        Some(word[0])
    }

    /// Writes everything out first, so that freezing finds little to do.
    pub fn freeze(mut self) -> Result<Frozen, FreezeError> {
        for mount in &self.mounts {
            // SAFETY: the descriptor is open.
            unsafe { libc::syncfs(mount.as_raw_fd()) };
        }
        let since = Instant::now();
        self.tell(FREEZE);
        match self.answer() {
            Some(FROZEN) => Ok(Frozen {
                guard: self,
                since,
                ended: false,
            }),
            Some(FAILED) => Err(FreezeError::Refused),
            _ => {
                self.thaw_by_hand();
                Err(FreezeError::GuardDied)
            }
        }
    }

    /// The process id, for tests that stop or kill it.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn thaw_by_hand(&self) {
        for mount in &self.mounts {
            let _ = control(mount, FITHAW);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Closing the pipe ends it, after a thaw where one is due.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

impl Frozen {
    /// Ends the freeze; how long it lasted. An error means that the file systems were not frozen all the time.
    pub fn thaw(mut self) -> Result<Duration, FreezeError> {
        self.end()
    }

    pub fn guard_pid(&self) -> u32 {
        self.guard.pid()
    }

    fn end(&mut self) -> Result<Duration, FreezeError> {
        self.ended = true;
        self.guard.tell(THAW);
        match self.guard.answer() {
            Some(THAWED) => Ok(self.since.elapsed()),
            Some(DEADLINE) => Err(FreezeError::Deadline),
            _ => {
                self.guard.thaw_by_hand();
                Err(FreezeError::GuardDied)
            }
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.end();
        }
    }
}

/// What the guard process does; arguments: deadline in milliseconds, mount points.
pub fn guard_main(mut args: impl Iterator<Item = std::ffi::OsString>) -> u8 {
    let deadline = args
        .next()
        .and_then(|text| text.to_str()?.parse().ok())
        .unwrap_or(2000);
    let paths: Vec<PathBuf> = args.map(PathBuf::from).collect();
    let Ok(mounts) = open_all(&paths) else { return 1 };
    // SAFETY: no arguments that could be wrong. Not allowed is no reason to stop: the lock only makes a wait for
    // memory on a frozen file system impossible.
    unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) };
    let (mut input, mut output) = (io::stdin(), io::stdout());
    let mut say = |word: u8| output.write_all(&[word]).and_then(|()| output.flush());
    if say(READY).is_err() {
        return 1;
    }
    let mut word = [0];
    if input.read_exact(&mut word).is_err() || word[0] != FREEZE {
        return 0;
    }
    let begin = Instant::now();
    for (index, mount) in mounts.iter().enumerate() {
        if control(mount, FIFREEZE).is_err() {
            mounts[..index]
                .iter()
                .for_each(|mount| drop(control(mount, FITHAW)));
            let _ = say(FAILED);
            return 1;
        }
    }
    let _ = say(FROZEN);
    let in_time = wait_readable(
        &input,
        Duration::from_millis(deadline).saturating_sub(begin.elapsed()),
    );
    mounts.iter().for_each(|mount| drop(control(mount, FITHAW)));
    let _ = say(if in_time { THAWED } else { DEADLINE });
    0
}

/// Whether something, or the end of the pipe, arrived in time.
fn wait_readable(input: &impl AsFd, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let mut fds = [rustix::event::PollFd::new(input, rustix::event::PollFlags::IN)];
        let timeout = rustix::event::Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) => return false,
            _ => return true,
        }
    }
}
