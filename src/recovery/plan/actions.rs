//! What the actions of a plan do: scripts, commands inside a network, probes, delays.
//!
//! A script is a file that the administrator of the server put into one folder; a plan names it and cannot bring its own. It
//! gets little of the server's environment, the run as JSON on standard input, and a deadline. Its output is read with a
//! limit: the last line is what people see.
use super::model::{ActionKind, is_script_name};
use crate::recovery::error::failure;
use crate::recovery::job::JobError;
use crate::target::network::IsolatedNetwork;
use crate::target::network::probe::Probe;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LOOK: Duration = Duration::from_millis(50);
/// Between two questions of a probe.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// One question of a probe.
const ASK_MAX: Duration = Duration::from_secs(5);
const OUTPUT_BYTES_MAX: u64 = 256 * 1024;
const LAST_LINE_MAX: usize = 500;

/// Where a machine is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Inside an isolated network, at its address there.
    Isolated {
        network: String,
        address: Option<Ipv4Addr>,
    },
    /// From this host: ports of the host that lead to ports of the machine.
    Forwards(Vec<(u16, u16)>),
    /// From this host, at an address of the production network.
    Host { address: Option<Ipv4Addr> },
}

/// What an action works with.
pub struct Execution<'a> {
    pub scripts: &'a Path,
    /// Of the machine that the action names.
    pub place: &'a (dyn Fn() -> Result<Place, JobError> + Sync),
    /// For standard input.
    pub context: &'a [u8],
    pub started: Instant,
    /// Since the step began; after a crash more than since `started`.
    pub already: Duration,
    pub interrupted: &'a (dyn Fn() -> bool + Sync),
}

/// An action ends with words, or fails; None: it was interrupted.
pub(super) fn carry_out(kind: &ActionKind, execution: &Execution) -> Option<Result<String, JobError>> {
    match kind {
        ActionKind::Delay { seconds } => {
            let whole = Duration::from_secs(u64::from(*seconds));
            wait(whole.saturating_sub(execution.already), execution)
                .then(|| Ok(format!("Waited {seconds} s.")))
        }
        ActionKind::Probe {
            protocol,
            port,
            path,
            status,
            timeout_seconds,
            ..
        } => {
            let probe = match (protocol.as_str(), port) {
                ("tcp", Some(port)) => Probe::Tcp { port: *port },
                ("http", Some(port)) => Probe::Http {
                    port: *port,
                    path: path.clone().unwrap_or_else(|| "/".to_owned()),
                    status: *status,
                },
                _ => Probe::Ping,
            };
            ask(
                &probe,
                Duration::from_secs(u64::from(*timeout_seconds)),
                execution,
            )
        }
        ActionKind::Script {
            script,
            arguments,
            timeout_seconds,
        } => run_script(script, arguments, *timeout_seconds, execution),
        ActionKind::Command {
            script,
            arguments,
            timeout_seconds,
            ..
        } => match (execution.place)() {
            Err(error) => Some(Err(error)),
            Ok(Place::Isolated { network, .. }) => match IsolatedNetwork::new(&network) {
                // From its start to its end on the thread that is inside.
                Ok(inside) => inside
                    .inside(|| run_script(script, arguments, *timeout_seconds, execution))
                    .unwrap_or_else(|error| Some(Err(error.into()))),
                Err(error) => Some(Err(error.into())),
            },
            // The host itself is in the network that leads to it.
            Ok(_) => run_script(script, arguments, *timeout_seconds, execution),
        },
        // Nothing is carried out: a person does it.
        ActionKind::Manual { .. } => Some(Ok(String::new())),
    }
}

/// True: the time is over; false: it was interrupted.
fn wait(whole: Duration, execution: &Execution) -> bool {
    let deadline = Instant::now() + whole;
    loop {
        if (execution.interrupted)() {
            return false;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        std::thread::sleep(left.min(LOOK));
    }
}

fn ask(probe: &Probe, limit: Duration, execution: &Execution) -> Option<Result<String, JobError>> {
    let deadline = execution.started + limit.saturating_sub(execution.already);
    let mut last;
    loop {
        match (execution.place)() {
            Err(error) => return Some(Err(error)),
            Ok(place) => {
                let left = deadline.saturating_duration_since(Instant::now());
                // At least one question, also when the server was down for all of the time.
                match ask_once(probe, &place, left.clamp(Duration::from_millis(500), ASK_MAX)) {
                    Ok(seen) => return Some(Ok(format!("{seen}."))),
                    Err(why) => last = why,
                }
            }
        }
        if Instant::now() >= deadline {
            return Some(Err(failure(
                "ProbeFailed",
                format!("No good answer within {} s: {last}.", limit.as_secs()),
                "The service is not up yet or not at all, listens elsewhere, or the machine has another address than expected.",
                "Look at the machine's console; resume tries again, skip goes on without it.",
            )));
        }
        if !wait(ASK_AGAIN, execution) {
            return None;
        }
    }
}

fn ask_once(probe: &Probe, place: &Place, limit: Duration) -> Result<String, String> {
    let port = probe.port().unwrap_or(0);
    match place {
        Place::Isolated { network, address } => {
            let address = address
                .ok_or_else(|| format!("the machine has no known address in the network {network}"))?;
            let network = IsolatedNetwork::new(network).map_err(|error| error.to_string())?;
            network.probe(probe, SocketAddr::from((address, port)), limit)
        }
        Place::Forwards(forwards) => {
            let host = forwards
                .iter()
                .find(|(_, guest)| *guest == port)
                .ok_or_else(|| format!("no port of the host leads to port {port} of the machine"))?
                .0;
            probe.ask(SocketAddr::from((Ipv4Addr::LOCALHOST, host)), limit)
        }
        Place::Host { address } => {
            let address = address.ok_or(
                "the machine has no known address on the bridge; give it one in its target settings",
            )?;
            probe.ask(SocketAddr::from((address, port)), limit)
        }
    }
}

/// The file of a script, when nobody but its administrator can change it.
pub(super) fn script_file(folder: &Path, name: &str) -> Result<PathBuf, JobError> {
    let refused = |why: String| {
        Err(failure(
            "ScriptRefused",
            format!("The script {name} is not run: {why}."),
            "It was not put into the server's folder of scripts, or others than its administrator may change it.",
            "On the server: put it there as root, `chmod 0755`, then run it again. `lifeboat plan scripts` lists what is usable.",
        ))
    };
    if !is_script_name(name) {
        return refused("its name is no plain file name".to_owned());
    }
    let path = folder.join(name);
    let user = rustix::process::geteuid().as_raw();
    let safe = |path: &Path| -> Result<std::fs::Metadata, String> {
        // A link could lead to a file of somebody else.
        let found =
            std::fs::symlink_metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
        if !found.is_file() && !found.is_dir() {
            return Err("it is no plain file".to_owned());
        }
        if found.uid() != 0 && found.uid() != user {
            return Err(format!("{} belongs to another user", path.display()));
        }
        if found.mode() & 0o022 != 0 {
            return Err(format!("{} may be changed by others", path.display()));
        }
        Ok(found)
    };
    match safe(folder).and_then(|_| safe(&path)) {
        Err(why) => refused(why),
        Ok(found) if !found.is_file() => refused("it is no plain file".to_owned()),
        Ok(found) if found.mode() & 0o111 == 0 => refused("it is not executable".to_owned()),
        Ok(_) => Ok(path),
    }
}

/// Names of the scripts that a plan may use.
pub(super) fn usable_scripts(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| script_file(folder, name).is_ok())
        .collect();
    names.sort();
    names
}

/// A child that does not outlive this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Its whole group: what it started too.
        if let Some(group) = rustix::process::Pid::from_raw(self.0.id() as i32) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

fn collect(mut from: impl Read + Send + 'static) -> io::Result<std::sync::mpsc::Receiver<Vec<u8>>> {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    std::thread::Builder::new()
        .name("script-output".into())
        .spawn(move || {
            let mut kept = Vec::new();
            let mut part = [0; 4096];
            // Read to its end, so that the script is never held up; of what is too much the end is kept.
            while let Ok(len @ 1..) = from.read(&mut part) {
                kept.extend_from_slice(&part[..len]);
                if kept.len() as u64 > OUTPUT_BYTES_MAX {
                    let much = kept.len() - OUTPUT_BYTES_MAX as usize / 2;
                    kept.drain(..much);
                }
            }
            let _ = sender.send(kept);
        })?;
    Ok(receiver)
}

fn last_line(output: &[u8]) -> String {
    String::from_utf8_lossy(output)
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default()
        .chars()
        .filter(|letter| !letter.is_control())
        .take(LAST_LINE_MAX)
        .collect()
}

fn run_script(
    script: &str,
    arguments: &[String],
    timeout_seconds: u32,
    execution: &Execution,
) -> Option<Result<String, JobError>> {
    let path = match script_file(execution.scripts, script) {
        Ok(path) => path,
        Err(error) => return Some(Err(error)),
    };
    let failed = |message: String| {
        Some(Err(failure(
            "ScriptFailed",
            message,
            "The script met an error, or what it needs is not there.",
            "Read what it says, remove the cause; resume tries again, skip goes on without it.",
        )))
    };
    let mut command = Command::new(&path);
    command
        .args(arguments)
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("LANG", "C.UTF-8")
        .current_dir(execution.scripts)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    // SAFETY: between fork and exec only one system call is made, which is safe there.
    unsafe {
        command.pre_exec(|| {
            // With a server that is killed its scripts end: the next server runs them again.
            match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                -1 => Err(io::Error::last_os_error()),
                _ => Ok(()),
            }
        });
    }
    let mut running = match command.spawn() {
        Ok(child) => Running(child),
        Err(error) => return failed(format!("The script {script} cannot be started: {error}.")),
    };
    let (Some(mut input), Some(output), Some(errors)) = (
        running.0.stdin.take(),
        running.0.stdout.take(),
        running.0.stderr.take(),
    ) else {
        return failed(format!("The script {script} cannot be started."));
    };
    let context = execution.context.to_vec();
    // One that does not read it does not hold us up.
    let fed = std::thread::Builder::new()
        .name("script-input".into())
        .spawn(move || {
            let _ = input.write_all(&context);
        });
    let (output, errors) = match (fed, collect(output), collect(errors)) {
        (Ok(_), Ok(output), Ok(errors)) => (output, errors),
        _ => return failed(format!("No thread for the output of the script {script}.")),
    };
    let deadline = execution.started + Duration::from_secs(u64::from(timeout_seconds));
    let status = loop {
        match running.0.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => {}
            Err(error) => return failed(format!("The script {script}: {error}.")),
        }
        if (execution.interrupted)() {
            return None;
        }
        if Instant::now() >= deadline {
            return failed(format!(
                "The script {script} did not end within {timeout_seconds} s; it was killed."
            ));
        }
        std::thread::sleep(LOOK);
    };
    // Its children that live on are ended; else they would hold the pipes open.
    drop(running);
    let (output, errors) = (
        output.recv().unwrap_or_default(),
        errors.recv().unwrap_or_default(),
    );
    let said = match (last_line(&errors), last_line(&output)) {
        (errors, output) if output.is_empty() || !status.success() && !errors.is_empty() => errors,
        (_, output) => output,
    };
    if status.success() {
        let said = if said.is_empty() {
            "ended well".to_owned()
        } else {
            said
        };
        return Some(Ok(format!("{script}: {said}")));
    }
    failed(format!("The script {script} ended with {status}: {said}"))
}
