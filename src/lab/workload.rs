//! The "production" of a machine of the lab: a process that writes its ledger, as a database would.
//!
//! Each entry is two flushes (slot, then record), see [`super::ledger`]. Beside it noise that nobody flushes: files that
//! are rewritten, grown, shortened, renamed and removed, so that points are made amid the ordinary disorder of a file system.
use super::ledger::{self, Ledger, LedgerError};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub const ENTRIES_PER_SECOND: u32 = 20;
/// A table of 8 MiB: enough that 1 % of it is not a handful of blocks.
pub const TABLE_SLOTS: u32 = 1024;

/// Hidden `lifeboat lab-workload`.
#[derive(Debug, Clone, clap::Args)]
pub struct WorkloadArgs {
    /// Folder of the ledger and the table; they must be there
    #[arg(long)]
    pub folder: PathBuf,
    /// Ledger entries per second
    #[arg(long, default_value_t = ENTRIES_PER_SECOND, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rate: u32,
    /// Ends when standard input is closed, so that it never outlives whoever started it
    #[arg(long)]
    pub until_stdin_closes: bool,
}

/// Tells a workload to end after the entry it is at.
#[derive(Clone, Default)]
pub struct Stop(Arc<(Mutex<bool>, Condvar)>);

impl Stop {
    pub fn now(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    /// Waits for the order to stop, at most until `instant`; whether it came.
    pub(super) fn came_before(&self, instant: Instant) -> bool {
        let stopped = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = instant.saturating_duration_since(Instant::now());
        let waited = self.0.1.wait_timeout_while(stopped, left, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// The whole of `lifeboat lab-workload`. Prints nothing: its ledger says what it did.
pub fn main(args: &WorkloadArgs) -> Result<(), LedgerError> {
    let stop = Stop::default();
    if args.until_stdin_closes {
        let stop = stop.clone();
        std::thread::spawn(move || {
            let mut rest = Vec::new();
            // Nothing is ever sent; a read error means the same as the end.
            let _ = io::stdin().take(4096).read_to_end(&mut rest);
            stop.now();
        });
    }
    run(&args.folder, args.rate, &stop)
}

/// Appends entries until told to stop. A full file system makes it wait, not fail: so would a database.
pub fn run(folder: &Path, rate: u32, stop: &Stop) -> Result<(), LedgerError> {
    let interval = Duration::from_secs(1) / rate.max(1);
    let mut ledger = Ledger::open(folder)?;
    let mut noise = Noise::new(folder, ledger.last());
    let mut due = Instant::now();
    loop {
        match ledger.append(crate::rt::now_unix_nanos()) {
            Ok(_) => noise.step(),
            Err(LedgerError::Io { source, .. }) if source.kind() == io::ErrorKind::StorageFull => {
                noise.clear();
                ledger = Ledger::open(folder)?;
                due += Duration::from_secs(1);
            }
            Err(error) => return Err(error),
        }
        // A stall (a freeze, a slow disk) is not made up for in a burst longer than a second.
        due = (due + interval).max(Instant::now() - Duration::from_secs(1));
        if stop.came_before(due) {
            return Ok(());
        }
    }
}

/// Files that nobody flushes and nobody checks. Their errors are nobody's either: they only take part.
struct Noise {
    folder: PathBuf,
    step: u64,
    quiet_until: u64,
}

impl Noise {
    const FILES: u64 = 16;
    const FILE_LEN: u64 = 256 << 10;
    /// Entries without noise after the file system was full: what it gave up is for the ledger.
    const QUIET: u64 = 5000;

    fn new(folder: &Path, step: u64) -> Self {
        let folder = folder.join("noise");
        let _ = std::fs::create_dir_all(&folder);
        Self {
            folder,
            step,
            quiet_until: 0,
        }
    }

    fn step(&mut self) {
        self.step += 1;
        if self.step.is_multiple_of(4) && self.step >= self.quiet_until {
            let _ = self.disturb();
        }
    }

    fn disturb(&self) -> io::Result<()> {
        let dice = blake3::hash(&self.step.to_le_bytes());
        let die = |place: usize| u64::from(dice.as_bytes()[place]);
        let path = self.folder.join((die(0) % Self::FILES).to_string());
        let open = || {
            File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
        };
        match die(1) % 8 {
            0 => std::fs::remove_file(&path),
            1 => std::fs::rename(&path, self.folder.join((die(2) % Self::FILES).to_string())),
            2 => open()?.set_len(die(2) * 1024),
            _ => {
                let mut content = vec![0; 8 << 10];
                blake3::Hasher::new_keyed(dice.as_bytes())
                    .finalize_xof()
                    .fill(&mut content);
                open()?.write_all_at(&content, die(2) * 1000 % Self::FILE_LEN)
            }
        }
    }

    fn clear(&mut self) {
        self.quiet_until = self.step + Self::QUIET;
        let _ = std::fs::remove_dir_all(&self.folder);
        let _ = std::fs::create_dir_all(&self.folder);
    }
}

/// A workload that runs as a process of its own. Dropped, it is killed as by a power cut.
pub struct Workload {
    child: Child,
    stdin: Option<ChildStdin>,
    pub folder: PathBuf,
}

impl Workload {
    /// `program`: this executable.
    pub fn start(program: &Path, folder: &Path, rate: u32) -> io::Result<Self> {
        let mut child = Command::new(program)
            .arg("lab-workload")
            .arg("--folder")
            .arg(folder)
            .args(["--rate", &rate.to_string(), "--until-stdin-closes"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take();
        Ok(Self {
            child,
            stdin,
            folder: folder.to_owned(),
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it is still writing; if not, what it said when it ended.
    pub fn check(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("{status} {}", self.last_words())),
            Err(error) => Err(error.to_string()),
        }
    }

    fn last_words(&mut self) -> String {
        let mut text = String::new();
        if let Some(pipe) = &mut self.child.stderr {
            let _ = pipe.take(4096).read_to_string(&mut text);
        }
        text.trim().to_owned()
    }

    /// Lets it end its entry. Entries in the ledger afterwards are all durable.
    pub fn stop(mut self) -> Result<(), String> {
        if let Some(mut stdin) = self.stdin.take() {
            let _ = stdin.flush();
        }
        match self.child.wait() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("{status} {}", self.last_words())),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Ends it in the middle of whatever it does.
    pub fn kill(self) {}

    pub fn entries(&self) -> Result<u64, LedgerError> {
        ledger::entries(&self.folder)
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
