//! Freezing the file systems of a machine for an instant, and making sure that they thaw.
//!
//! The guard is a process of its own, locked in memory. It freezes on command and thaws on command, at a
//! deadline, or when its pipe closes: whatever happens to the agent, no file system stays frozen. Should the
//! guard die, the agent thaws; it holds the mount points open too.
//!
//! ```text
//! guard: says R, then hears F (freeze) or the end of its pipe
//!        frozen: says F and one byte per file system; or E, when one refused and all are thawed
//!        then hears T, the end of the pipe, or reaches the deadline: thaws, says T or D
//! ```
//! The file system mounted last is frozen first: freezing writes, and it may lie in a file on one mounted before.
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
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
/// Per file system, after [`FROZEN`]: stands still, or knows no freezing (vfat).
const STILL: u8 = b'f';
const MOVING: u8 = b'u';

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

/// Writes out what the file systems hold in memory.
pub(super) fn sync_all(mounts: &[File]) {
    for mount in mounts {
        // SAFETY: the descriptor is open.
        unsafe { libc::syncfs(mount.as_raw_fd()) };
    }
}

pub(super) fn open_all(paths: &[PathBuf]) -> Result<Vec<File>, FreezeError> {
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
#[derive(Debug)]
pub struct Guard {
    child: Child,
    mounts: Vec<File>,
    /// What the guard said of each; room made beforehand.
    states: Vec<u8>,
    /// To end the guard's hurry should it die.
    hurry: Hurry,
}

/// File systems are frozen as long as this lives, at most to the deadline.
#[derive(Debug)]
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
        let mut guard = Self {
            child,
            states: vec![MOVING; files.len()],
            hurry: Hurry::new(),
            mounts: files,
        };
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

    /// Writes everything out first, so that freezing finds little to do. In the reverse order of mounting: a file
    /// system may lie in a file on another one.
    pub fn freeze(self) -> Result<Frozen, FreezeError> {
        sync_all(&self.mounts);
        self.freeze_without_sync()
    }

    /// For tests that need a freeze with much to write.
    pub fn freeze_without_sync(mut self) -> Result<Frozen, FreezeError> {
        let since = Instant::now();
        self.tell(FREEZE);
        match self.answer() {
            Some(FROZEN) if self.read_states() => Ok(Frozen {
                guard: self,
                since,
                ended: false,
            }),
            Some(FAILED) => Err(FreezeError::Refused),
            Some(DEADLINE) => Err(FreezeError::Deadline),
            _ => {
                self.thaw_by_hand();
                Err(FreezeError::GuardDied)
            }
        }
    }

    fn read_states(&mut self) -> bool {
        let Some(pipe) = &mut self.child.stdout else {
            return false;
        };
        pipe.read_exact(&mut self.states).is_ok()
    }

    /// The process id, for tests that stop or kill it.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn thaw_by_hand(&self) {
        self.hurry.end();
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

    /// Whether the file system at this place in the list stands still; false: it cannot be frozen.
    pub fn is_still(&self, index: usize) -> bool {
        self.guard.states.get(index) == Some(&STILL)
    }

    pub fn any_still(&self) -> bool {
        self.guard.states.contains(&STILL)
    }

    /// As [`thaw`](Self::thaw); what it used is given back when this is dropped.
    pub(super) fn end(&mut self) -> Result<Duration, FreezeError> {
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

/// A freeze that outlasts its point: what was in the point is all that the file systems hold. Ends when it is dropped, when
/// the agent ends, or at the guard's deadline.
#[derive(Debug, Default)]
pub struct Held(Option<Frozen>);

impl Held {
    pub(super) fn keep(&mut self, frozen: Frozen) {
        self.0 = Some(frozen);
    }

    pub fn is_frozen(&self) -> bool {
        self.0.is_some()
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
    let _urgent = Urgent::new();
    let hurry = Hurry::new();
    let (mut input, mut output) = (io::stdin(), io::stdout());
    let mut say = |words: &[u8]| output.write_all(words).and_then(|()| output.flush());
    let work = Arc::new(Work {
        states: mounts.iter().map(|_| AtomicU8::new(MOVING)).collect(),
        mounts,
        ended: AtomicBool::new(false),
    });
    let Ok((go_reader, go)) = io::pipe() else { return 1 };
    let watched = work.clone();
    let watch = std::thread::spawn(move || watched.watch(go_reader, Duration::from_millis(deadline)));
    // Room made now: nothing is allocated while file systems are frozen.
    let mut words = Vec::with_capacity(1 + work.states.len());
    if say(&[READY]).is_err() {
        return 1;
    }
    let mut word = [0];
    if input.read_exact(&mut word).is_err() || word[0] != FREEZE || (&go).write_all(&[FREEZE]).is_err() {
        return 0;
    }
    hurry.begin();
    let frozen = work.freeze();
    hurry.end();
    words.push(FROZEN);
    words.extend(work.states.iter().map(|state| state.load(Ordering::SeqCst)));
    // No answer is needed where nobody waits for it: then the pipe is closed.
    let answer = if !frozen {
        work.thaw();
        FAILED
    } else if work.ended.load(Ordering::SeqCst) {
        DEADLINE
    } else {
        let _ = say(&words);
        let _ = input.read_exact(&mut word);
        if work.thaw() { THAWED } else { DEADLINE }
    };
    let _ = say(&[answer]);
    drop(go);
    let _ = watch.join();
    u8::from(!frozen)
}

/// Run at once, before whatever else wants a processor: writers stand still until this is done. Not being allowed to
/// is no reason to stop.
pub(super) struct Urgent {
    before: Option<(libc::c_int, libc::sched_param)>,
}

impl Urgent {
    pub fn new() -> Self {
        let mut param = libc::sched_param { sched_priority: 0 };
        // SAFETY: 0 is the calling thread, and `param` is a valid place.
        let policy = unsafe {
            match libc::sched_getparam(0, &raw mut param) {
                0 => libc::sched_getscheduler(0),
                _ => -1,
            }
        };
        let urgent = libc::sched_param { sched_priority: 1 };
        // SAFETY: as above. Children do not inherit it.
        let set = policy >= 0
            && unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | RESET_ON_FORK, &raw const urgent) }
                == 0;
        Self {
            before: set.then_some((policy, param)),
        }
    }
}

/// `SCHED_RESET_ON_FORK` of `linux/sched.h`.
const RESET_ON_FORK: libc::c_int = 0x4000_0000;

impl Drop for Urgent {
    fn drop(&mut self) {
        if let Some((policy, param)) = self.before {
            // SAFETY: the values are those that the system gave for this thread.
            unsafe { libc::sched_setscheduler(0, policy, &raw const param) };
        }
    }
}

/// Makes the kernel's grace periods short. Freezing a file system waits for three of them one after the other while
/// writers stand still: on a busy machine that is most of the freeze (measured: 40 ms without, 11 ms with). A kernel
/// whose administrator forbids it (`rcu_normal`) does not heed it.
#[derive(Debug)]
struct Hurry(Option<File>);

impl Hurry {
    fn new() -> Self {
        let file = File::options()
            .read(true)
            .write(true)
            .open("/sys/kernel/rcu_expedited");
        // Set by somebody else: not ours to end.
        Self(file.ok().filter(|mut file| {
            let mut value = [0];
            file.read_exact(&mut value).is_ok() && value == *b"0"
        }))
    }

    fn set(&self, value: &[u8]) {
        if let Some(file) = &self.0 {
            // Not being allowed to only makes it slower.
            let _ = std::os::unix::fs::FileExt::write_all_at(file, value, 0);
        }
    }

    fn begin(&self) {
        self.set(b"1");
    }

    fn end(&self) {
        self.set(b"0");
    }
}

/// What the two threads of the guard share.
struct Work {
    mounts: Vec<File>,
    states: Vec<AtomicU8>,
    /// Somebody began to thaw.
    ended: AtomicBool,
}

impl Work {
    /// False: one refused.
    fn freeze(&self) -> bool {
        for (mount, state) in self.mounts.iter().zip(&self.states).rev() {
            if self.ended.load(Ordering::SeqCst) {
                break;
            }
            match control(mount, FIFREEZE) {
                Ok(()) => state.store(STILL, Ordering::SeqCst),
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
                Err(_) => return false,
            }
        }
        // This one was frozen when the others were being thawed.
        if self.ended.load(Ordering::SeqCst) {
            self.thaw();
        }
        true
    }

    /// Each is thawed once, whichever thread comes first. True: this one began.
    fn thaw(&self) -> bool {
        let first = !self.ended.swap(true, Ordering::SeqCst);
        for (mount, state) in self.mounts.iter().zip(&self.states) {
            if state.swap(MOVING, Ordering::SeqCst) == STILL {
                let _ = control(mount, FITHAW);
            }
        }
        first
    }

    /// Thaws at the deadline or when the agent is gone, also while a freeze waits for something: it may be waiting
    /// for a file system that is frozen already. Ends when `go` closes.
    fn watch(&self, mut go: io::PipeReader, deadline: Duration) {
        let _urgent = Urgent::new();
        if go.read_exact(&mut [0]).is_err() {
            return;
        }
        let end = Instant::now() + deadline;
        let input = io::stdin();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            // The word to thaw is for the other thread; only the end of the pipe counts here.
            let nothing = rustix::event::PollFlags::empty();
            let mut fds = [
                rustix::event::PollFd::new(&input, nothing),
                rustix::event::PollFd::new(&go, rustix::event::PollFlags::IN),
            ];
            let timeout = rustix::event::Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            match rustix::event::poll(&mut fds, Some(&timeout)) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(0) => break,
                _ if !fds[1].revents().is_empty() => return,
                _ => break,
            }
        }
        self.thaw();
    }
}
