//! A QEMU process that is nobody's child: it outlives the server, and is found again by its pid file.
//!
//! Who it is, is checked by what cannot be reused: its working folder is the machine's folder. All signals go through a
//! pidfd that was taken before that check, so that a foreign process that got the number is never hit.
//! The process holds the lock file of its folder for as long as it lives: no second one can be started beside it.
use super::record::{LOCK, PID, STDERR};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Largest file that QEMU may write: its serial log. A guest that floods its serial port must not fill the host's disk.
pub(super) const FILE_BYTES_MAX: u64 = 64 << 20;

pub(super) struct Process {
    pub pid: u32,
    handle: OwnedFd,
}

impl Process {
    /// The machine's process, if it lives.
    pub fn find(folder: &Path) -> io::Result<Option<Self>> {
        let text = match std::fs::read_to_string(folder.join(PID)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let number = text.trim().parse().ok().filter(|number| *number > 0);
        let Some(pid) = number.and_then(Pid::from_raw) else {
            return Ok(None);
        };
        let Ok(handle) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else {
            return Ok(None);
        };
        let pid = pid.as_raw_nonzero().get() as u32;
        let own = std::fs::metadata(folder)?;
        // Neither can be read of a process that has ended.
        let Ok(works_in) = std::fs::metadata(format!("/proc/{pid}/cwd")) else {
            return Ok(None);
        };
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let names_it = command
            .split(|byte| *byte == 0)
            .any(|word| word == super::command_line::MONITOR.as_bytes());
        let process = Self { pid, handle };
        let same = (works_in.dev(), works_in.ino()) == (own.dev(), own.ino()) && names_it;
        Ok((same && process.alive()).then_some(process))
    }

    /// Any process, for tests.
    #[cfg(test)]
    pub fn of(pid: u32) -> Self {
        let raw = Pid::from_raw(pid as i32).unwrap();
        let handle = rustix::process::pidfd_open(raw, PidfdFlags::empty()).unwrap();
        Self { pid, handle }
    }

    fn alive(&self) -> bool {
        !self.ended_within(Duration::ZERO)
    }

    /// Waits for its end.
    pub fn ended_within(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut handle = [rustix::event::PollFd::new(
                &self.handle,
                rustix::event::PollFlags::IN,
            )];
            let timeout = rustix::event::Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            match rustix::event::poll(&mut handle, Some(&timeout)) {
                Ok(ready) => return ready > 0,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }

    /// As if the power went. What QEMU acknowledged to the guest has left it before.
    pub fn kill(&self) -> bool {
        let _ = rustix::process::pidfd_send_signal(&self.handle, Signal::KILL);
        self.ended_within(Duration::from_secs(30))
    }

    /// Lets it write files of at least this size.
    pub fn raise_file_limit(&self, bytes: u64) -> io::Result<()> {
        use rustix::process::{Resource, Rlimit, prlimit};
        let pid = Pid::from_raw(self.pid as i32);
        let limit = Rlimit {
            current: Some(bytes),
            maximum: None,
        };
        // Who it is was checked, and it holds its number for as long as it is not reaped.
        prlimit(pid, Resource::Fsize, limit)?;
        Ok(())
    }

    pub fn handle(&self) -> &OwnedFd {
        &self.handle
    }
}

/// The lock of a folder, which a started process inherits. None: a process has it.
pub(super) fn lock(folder: &Path) -> io::Result<Option<File>> {
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(folder.join(LOCK))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Writes a number without allocating, for use between fork and exec.
fn decimal(mut number: u32, buffer: &mut [u8; 10]) -> &[u8] {
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &buffer[at..];
        }
    }
}

/// Starts the program in the folder, in a session of its own. On return it runs, and its pid is in the folder.
/// `inherited` keep their numbers.
pub(super) fn spawn(
    folder: &Path,
    program: &Path,
    args: &[OsString],
    lock: &File,
    inherited: &[RawFd],
    file_bytes_max: u64,
) -> io::Result<()> {
    let create = |name: &str| {
        File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(folder.join(name))
    };
    let stderr = create(STDERR)?;
    let pid_file = create(PID)?;
    let mut handed: Vec<RawFd> = inherited.to_vec();
    handed.push(lock.as_raw_fd());
    let pid_fd = pid_file.as_raw_fd();
    let mut command = Command::new(program);
    command
        .args(args)
        .current_dir(folder)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .stdout(stderr.try_clone()?)
        .stderr(stderr);
    let leave = move || -> io::Result<()> {
        rustix::process::setsid()?;
        // SAFETY: between fork and exec, only calls that are safe in a signal handler. The second fork makes the process an
        // orphan: it is init's, so nobody here has to reap it, and it does not end with the server.
        match unsafe { libc::fork() } {
            -1 => return Err(io::Error::last_os_error()),
            // SAFETY: ends the process between, without its parent's exit handlers.
            0 => {}
            _ => unsafe { libc::_exit(0) },
        }
        for fd in &handed {
            // SAFETY: clears close-on-exec of a descriptor that the parent holds open.
            if unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) } == -1 {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: no pointers; a disposition to ignore outlives exec. Past the limit QEMU's write fails, and it goes on.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        let limit = libc::rlimit {
            rlim_cur: file_bytes_max,
            // Raised by its owner when its disks become files.
            rlim_max: libc::RLIM_INFINITY,
        };
        // SAFETY: reads the struct that it is given.
        if unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &limit) } == -1 {
            return Err(io::Error::last_os_error());
        }
        let mut buffer = [0; 10];
        let text = decimal(std::process::id(), &mut buffer);
        // SAFETY: writes from a buffer on the stack; its length is given.
        let written = unsafe { libc::write(pid_fd, text.as_ptr().cast(), text.len()) };
        if written != text.len() as isize {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    };
    // SAFETY: the closure neither allocates nor takes locks, see above.
    unsafe { command.pre_exec(leave) };
    // Returns after the exec of the last process: only it holds the pipe over which a failed exec is told.
    command.spawn()?.wait()?;
    Ok(())
}

/// The last lines that QEMU said.
pub(super) fn last_words(folder: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::from(rustix::fs::open(
            folder.join(STDERR),
            OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
        )?);
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(4096)))?;
        let mut bytes = Vec::new();
        file.take(4096).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        Ok(lines[lines.len().saturating_sub(10)..].join("\n"))
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_process_with_the_number_is_not_taken_for_the_machine() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Process::find(folder.path()).unwrap().is_none());
        for text in [
            "",
            "0",
            "-1",
            "x",
            "99999999999",
            &std::process::id().to_string(),
            "1",
        ] {
            std::fs::write(folder.path().join(PID), text).unwrap();
            assert!(Process::find(folder.path()).unwrap().is_none(), "{text}");
        }
        // One that works in the folder, but is not QEMU.
        let mut child = Command::new("sleep")
            .arg("600")
            .current_dir(folder.path())
            .spawn()
            .unwrap();
        std::fs::write(folder.path().join(PID), child.id().to_string()).unwrap();
        let found = Process::find(folder.path());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.unwrap().is_none());
    }

    #[test]
    fn numbers() {
        for number in [0, 7, 10, 4_294_967_295u32] {
            assert_eq!(decimal(number, &mut [0; 10]), number.to_string().as_bytes());
        }
    }
}
