//! One hook as a process: with a limit, its last words kept, and nothing of it left behind when the limit is reached.
//!
//! A hook may leave a process behind that holds something until `post` (a lock, a session). So its output is not read to
//! the end of the pipe: a thread goes on draining it into a ring of fixed size, and allocates nothing while it does.
//!
//! Nothing of a hook runs before its process is on record: it begins as a shell that waits for a word, and ends itself
//! when its agent dies before saying it. So a later agent knows every process that an earlier one left.
use rustix::process::{Pid, PidfdFlags, Signal};
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Of a hook's output; a person reads it.
const TAIL_BYTES: usize = 2048;
/// After the signal to end, before the one that cannot be ignored.
const GRACE: Duration = Duration::from_secs(2);
/// How often a wait looks whether it was cancelled.
const SLICE: Duration = Duration::from_millis(100);
/// What a hook that has exited wrote is in the pipe; whoever holds the other end longer is not waited for.
const LAST_WORDS: Duration = Duration::from_millis(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Exited(ExitStatus),
    TimedOut,
    Cancelled,
}

#[derive(Clone, Debug)]
pub struct Outcome {
    pub ended: Ended,
    /// Its last output.
    pub output: String,
    pub elapsed: Duration,
}

struct Tail {
    ring: [u8; TAIL_BYTES],
    written: usize,
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.ring[self.written % TAIL_BYTES] = *byte;
            self.written += 1;
        }
    }

    fn text(&self) -> String {
        let mut bytes = self.ring[..self.written.min(TAIL_BYTES)].to_vec();
        if self.written > TAIL_BYTES {
            bytes.rotate_left(self.written % TAIL_BYTES);
        }
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<String> = text
            .lines()
            .map(|line| line.chars().filter(|c| !c.is_control()).collect::<String>())
            .filter(|line| !line.trim().is_empty())
            .collect();
        lines.join("\n")
    }
}

/// A command that executes this program when it is told to, by [`run`].
pub fn gated(program: &Path, argument: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "read -r go || exit 125; exec \"$0\" \"$@\" </dev/null"])
        .arg(program)
        .arg(argument);
    command
}

/// Runs a [`gated`] program to its end, or ends it and all of its process group at the limit. `started`: told its process id
/// before the program begins.
pub fn run(
    mut command: Command,
    limit: Duration,
    cancel: &AtomicBool,
    started: impl FnOnce(u32),
) -> io::Result<Outcome> {
    let begin = Instant::now();
    let (mut reader, writer) = io::pipe()?;
    command
        .stdin(Stdio::piped())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        // A group of its own: what it started is ended with it.
        .process_group(0);
    let mut child = command.spawn()?;
    // Our ends of the pipe.
    drop(command);
    started(child.id());
    if let Some(mut gate) = child.stdin.take() {
        // One that is gone shows in how it ended.
        let _ = gate.write_all(b"go\n");
    }
    let tail = Arc::new(Mutex::new(Tail {
        ring: [0; TAIL_BYTES],
        written: 0,
    }));
    let (at_end, end) = sync_channel::<()>(1);
    let kept = tail.clone();
    let drained = std::thread::Builder::new()
        .name("hook output".to_owned())
        .spawn(move || {
            let mut buffer = [0; 1024];
            loop {
                match reader.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(read) => kept
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(&buffer[..read]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
            }
            let _ = at_end.send(());
        });
    let group = Pid::from_child(&child);
    let ended = match drained.and_then(|_| wait(group, begin + limit, cancel)) {
        Ok(None) => Ended::Exited(child.wait()?),
        Ok(Some(why)) => {
            end_group(group);
            child.wait()?;
            why
        }
        Err(error) => {
            end_group(group);
            child.wait()?;
            return Err(error);
        }
    };
    let _ = end.recv_timeout(LAST_WORDS);
    let output = tail.lock().unwrap_or_else(PoisonError::into_inner).text();
    Ok(Outcome {
        ended,
        output,
        elapsed: begin.elapsed(),
    })
}

/// None: it has exited and waits to be reaped.
fn wait(pid: Pid, end: Instant, cancel: &AtomicBool) -> io::Result<Option<Ended>> {
    let handle = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    loop {
        if cancel.load(Ordering::SeqCst) {
            return Ok(Some(Ended::Cancelled));
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Some(Ended::TimedOut));
        }
        if is_over(&handle, left.min(SLICE))? {
            return Ok(None);
        }
    }
}

fn is_over(handle: &impl std::os::fd::AsFd, patience: Duration) -> io::Result<bool> {
    let mut fds = [rustix::event::PollFd::new(handle, rustix::event::PollFlags::IN)];
    let timeout = rustix::event::Timespec {
        tv_sec: patience.as_secs() as i64,
        tv_nsec: i64::from(patience.subsec_nanos()),
    };
    match rustix::event::poll(&mut fds, Some(&timeout)) {
        Ok(count) => Ok(count > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The leader is not reaped yet, so the number is still that of this group.
fn end_group(group: Pid) {
    let _ = rustix::process::kill_process_group(group, Signal::TERM);
    if let Ok(handle) = rustix::process::pidfd_open(group, PidfdFlags::empty()) {
        let end = Instant::now() + GRACE;
        while Instant::now() < end {
            if is_over(&handle, SLICE).unwrap_or(true) {
                break;
            }
        }
    }
    let _ = rustix::process::kill_process_group(group, Signal::KILL);
}

/// When a process was started, in the kernel's ticks: with its number it names one process for ever
/// (proc(5), field 22 of `stat`).
pub fn start_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Ends what an agent that died was running, if it is that very process.
pub fn end_left_over(pid: u32, ticks: u64) {
    if start_ticks(pid) == Some(ticks)
        && let Some(group) = i32::try_from(pid).ok().and_then(Pid::from_raw)
    {
        end_group(group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Outcome {
        let mut command = gated("/bin/sh".as_ref(), "-c");
        command.arg(script);
        run(command, limit, &AtomicBool::new(false), |_| ()).unwrap()
    }

    #[test]
    fn the_last_words_and_the_status_are_kept() {
        let outcome = shell("echo out; echo err >&2; exit 3", Duration::from_secs(20));
        let Ended::Exited(status) = outcome.ended else {
            panic!("{outcome:?}")
        };
        assert_eq!(status.code(), Some(3));
        assert_eq!(outcome.output, "out\nerr");
        let much = shell(
            "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done",
            Duration::from_secs(20),
        );
        assert!(much.output.ends_with("line 1999"), "{}", much.output);
        assert!(much.output.len() <= TAIL_BYTES);
    }

    #[test]
    fn nothing_of_it_runs_before_it_is_on_record() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("mark");
        let mut command = gated("/usr/bin/touch".as_ref(), mark.to_str().unwrap());
        // As an agent that dies before the word.
        let status = command.stdin(Stdio::null()).status().unwrap();
        assert_eq!(status.code(), Some(125));
        assert!(!mark.exists());
        let command = gated("/usr/bin/touch".as_ref(), mark.to_str().unwrap());
        let mut seen = None;
        let never = AtomicBool::new(false);
        run(command, Duration::from_secs(20), &never, |_| {
            seen = Some(mark.exists());
        })
        .unwrap();
        assert_eq!((seen, mark.exists()), (Some(false), true));
    }

    #[test]
    fn the_whole_group_ends_at_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let note = folder.path().join("child");
        // Both ignore the polite signal.
        let script = format!(
            "trap '' TERM; (trap '' TERM; exec sleep 600) & echo $! > {}; wait",
            note.display()
        );
        let outcome = shell(&script, Duration::from_millis(500));
        assert_eq!(outcome.ended, Ended::TimedOut);
        let child: u32 = std::fs::read_to_string(note).unwrap().trim().parse().unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        // Whoever adopts it reaps it.
        let is_gone = || {
            std::fs::read_to_string(format!("/proc/{child}/stat")).map_or(true, |stat| stat.contains(") Z "))
        };
        while !is_gone() {
            assert!(Instant::now() < end, "the hook's child lives on");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn what_a_hook_leaves_behind_is_not_waited_for() {
        let begin = Instant::now();
        let outcome = shell("sleep 20 & echo $!", Duration::from_secs(15));
        assert!(matches!(outcome.ended, Ended::Exited(status) if status.success()));
        assert!(begin.elapsed() < Duration::from_secs(10));
        let pid: u32 = outcome.output.trim().parse().unwrap();
        let ticks = start_ticks(pid).expect("the child holds on");
        end_pid(pid, ticks);
    }

    fn end_pid(pid: u32, ticks: u64) {
        assert_eq!(start_ticks(pid), Some(ticks));
        let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
    }
}
