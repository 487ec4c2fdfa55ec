//! Server and agents of a lab: this very executable, as a person would start it.
use super::error::LabError;
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const STOP_LIMIT: Duration = Duration::from_secs(20);

/// A child that is asked to stop when it is dropped, and made to if it does not.
pub(super) struct Process {
    child: Child,
    pub(super) log: PathBuf,
    pub(super) peak_rss_bytes: u64,
}

impl Process {
    pub(super) fn spawn(
        program: &Path,
        arguments: &[&str],
        log: PathBuf,
    ) -> Result<(Self, Option<Value>), LabError> {
        Self::start(program, arguments, log, false)
    }

    /// Waits for one line of JSON on the child's standard output.
    pub(super) fn spawn_and_hear(
        program: &Path,
        arguments: &[&str],
        log: PathBuf,
    ) -> Result<(Self, Value), LabError> {
        let (process, heard) = Self::start(program, arguments, log, true)?;
        match heard {
            Some(value) => Ok((process, value)),
            None => Err(LabError::Program {
                program: arguments.first().copied().unwrap_or_default().to_owned(),
                detail: process.last_words(),
            }),
        }
    }

    fn start(
        program: &Path,
        arguments: &[&str],
        log: PathBuf,
        hear: bool,
    ) -> Result<(Self, Option<Value>), LabError> {
        let file = File::create(&log).map_err(LabError::io("make", &log))?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(if hear { Stdio::piped() } else { Stdio::null() })
            .stderr(file)
            .spawn()
            .map_err(LabError::io("start", program))?;
        let mut process = Self {
            child,
            log,
            peak_rss_bytes: 0,
        };
        let heard = process.child.stdout.take().and_then(|output| {
            let mut line = String::new();
            BufReader::new(output).read_line(&mut line).ok()?;
            serde_json::from_str(&line).ok()
        });
        Ok((process, heard))
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it said last, for an error.
    pub(super) fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(6).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("; ")
    }

    /// An error when it has ended by itself.
    pub(super) fn check(&mut self, what: &str) -> Result<(), LabError> {
        self.measure();
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            _ => Err(LabError::Program {
                program: what.to_owned(),
                detail: format!("it ended: {}", self.last_words()),
            }),
        }
    }

    /// Keeps the peak of its resident memory (proc(5), VmHWM).
    pub(super) fn measure(&mut self) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
        self.peak_rss_bytes = self.peak_rss_bytes.max(kib.unwrap_or(0) * 1024);
    }

    /// As a power cut does.
    pub(super) fn kill(&mut self) {
        self.measure();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The exit code when it has ended.
    pub(super) fn ended(&mut self) -> Option<i32> {
        self.child
            .try_wait()
            .ok()
            .flatten()
            .map(|status| status.code().unwrap_or(-1))
    }

    /// As a person ends it.
    pub(super) fn stop(&mut self) {
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        self.measure();
        if let Some(pid) = i32::try_from(self.pid())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let end = Instant::now() + STOP_LIMIT;
        while Instant::now() < end {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.kill();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}
