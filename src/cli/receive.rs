//! `lifeboat agent receive`: brings a machine's replica home.
use super::agent::runtime;
use super::failure::Failure;
use super::size::{self, Size};
use super::store::say;
use crate::agent::identity::Identity;
use crate::agent::receive::{
    Given, Note, Now, Observer, Outcome, Plan, PlannedDisk, Progress, ReceiveError, ReceiveSettings,
    Receiver, TargetError,
};
use crate::wire::ReceivePhase;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

pub const EXAMPLES: &str = "Examples:
  On the original machine, started from a rescue or live system (its disks must not be mounted):
    lifeboat agent join --server dr.example --fingerprint sha256:4c1f... --token-file token --name web1-rescue --state-dir /run/lifeboat
    lifeboat agent receive --state-dir /run/lifeboat --machine web1
  The original disk is gone, a new one takes its place:
    lifeboat agent receive --machine web1 --disk /dev/sdb
  A machine of two disks, at most 50 MiB each second:
    lifeboat agent receive --machine web1 --disk boot=/dev/sda --disk data=/dev/sdb --limit 50M
A token is made on the server with: lifeboat server join-token
It may be started before or after the machine is reprotected; it waits. Interrupted, it goes on where it was when it is run again.

Exit codes: 0 the final point is verified, the machine may start now; 1 failed; 2 usage, or nothing was confirmed;
3 with --once: the newest point is held and verified, and it is not the final one; 5 no such disk; 6 refused by the server, or not
confirmed by it;
7 the disk cannot be used: in use, too small, replaced, failing, not keeping what is written; 8 the server cannot be reached;
130 interrupted";

#[derive(Args)]
pub struct ReceiveArgs {
    /// Folder of the agent's identity and of what is known of the disks; on a live system one on its RAM disk will do
    /// [default: /var/lib/lifeboat-agent as root, else ./lifeboat-agent]
    #[arg(long, env = "LIFEBOAT_AGENT_STATE")]
    state_dir: Option<PathBuf>,
    /// One JSON document per line on standard output
    #[arg(long)]
    json: bool,
    /// Name or id of the machine whose replica comes home [default: the one that the server means for this system]
    #[arg(long)]
    machine: Option<String>,
    /// Where a disk goes: NAME_OR_ID=PATH, or PATH alone where it is clear which is meant; once for each disk of the machine
    /// [default: the original disks]
    #[arg(long = "disk", value_name = "NAME_OR_ID=PATH")]
    disks: Vec<Given>,
    /// End when the newest point is held and verified, also when it is not the final one (exit code 3)
    #[arg(long)]
    once: bool,
    /// Compare everything, whatever is known of the disks from before
    #[arg(long)]
    compare: bool,
    /// At most so many bytes over the network each second, such as 50M
    #[arg(long, value_name = "BYTES")]
    limit: Option<Size>,
    /// Overwrite disks that are not known as the originals without asking
    #[arg(long)]
    yes: bool,
}

impl From<ReceiveError> for Failure {
    fn from(error: ReceiveError) -> Self {
        let words = error.words();
        let code = match &error {
            ReceiveError::Target(TargetError::Missing(_)) => 5,
            ReceiveError::Target(_) | ReceiveError::NotVerified { .. } => 7,
            ReceiveError::Refused(_)
            | ReceiveError::Unconfirmed(_)
            | ReceiveError::OrderChanged(_)
            | ReceiveError::AlreadyRuns(_) => 6,
            ReceiveError::Disks(_) => 2,
            ReceiveError::Identity(_) => 6,
            ReceiveError::Disconnected(_) => 8,
            ReceiveError::Cancelled => 130,
            ReceiveError::State { .. } | ReceiveError::Protocol(_) | ReceiveError::Memory(_) => 1,
        };
        Self {
            code,
            message: match &error {
                ReceiveError::Refused(refused) => refused.to_string(),
                _ => words.message,
            },
            causes: words.possible_causes.into(),
            action: words.recommended_action.into(),
        }
    }
}

pub fn run(args: &ReceiveArgs) -> Result<(), Failure> {
    let state_dir = super::agent::state_folder(args.state_dir.as_ref());
    let identity = Identity::load(&state_dir).map_err(ReceiveError::from)?;
    let runtime = runtime()?;
    let stop = CancellationToken::new();
    let signalled = stop.clone();
    runtime.spawn(async move {
        super::until_signalled().await;
        signalled.cancel();
    });
    let settings = ReceiveSettings {
        state_dir,
        machine: args.machine.clone().unwrap_or_default(),
        once: args.once,
        compare: args.compare,
        bytes_per_second: args.limit.map(|limit| limit.0),
    };
    let console = Console::new(args.json);
    let mut receiver = Receiver::new(settings, identity, runtime.handle().clone(), stop)?;
    let order = receiver.first_order(&console)?;
    let plan = receiver.plan(order, &args.disks)?;
    confirm(&plan, args.yes)?;
    console.begins(&plan);
    let progress = Arc::new(plan.progress());
    let (ended, watched) = sync_channel::<()>(1);
    let outcome = std::thread::scope(|scope| {
        let (shown, shown_by) = (&progress, &console);
        let watching = scope.spawn(move || {
            shown_by.watch(shown, || {
                watched.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout)
            });
        });
        let outcome = receiver.run(plan, &progress, &console);
        drop(ended);
        let _ = watching.join();
        outcome
    })?;
    console.ends(&outcome);
    if outcome.is_final {
        return Ok(());
    }
    Err(Failure {
        code: 3,
        message:
            "the disks hold the newest point; it is not the final one, do not start the machine from them"
                .into(),
        causes: "--once was given, and the machine still runs at the target".into(),
        action: "run the receiver again without --once, and fail back on the server".into(),
    })
}

/// How often the progress is looked at.
const TICK: Duration = Duration::from_millis(200);

/// Nothing is overwritten that is not known, unless a person says so.
fn confirm(plan: &Plan, yes: bool) -> Result<(), Failure> {
    let strangers: Vec<&PlannedDisk> = plan.disks.iter().filter(|disk| !disk.is_known).collect();
    if strangers.is_empty() {
        return Ok(());
    }
    for disk in &strangers {
        eprintln!(
            "{} is not known as the disk {} of {}; everything on it is overwritten:",
            disk.path().display(),
            disk.ordered.name,
            plan.order.name
        );
        for line in contents(disk) {
            eprintln!("  {line}");
        }
    }
    if yes {
        return Ok(());
    }
    let refused = |message: String| Failure {
        code: 2,
        message,
        causes: "the disk is a new one, or another one than the original is meant".into(),
        action: "look at what is on it; if it may be overwritten, give --yes or type the machine's name"
            .into(),
    };
    if !std::io::stdin().is_terminal() {
        return Err(refused("nothing was written: it was not confirmed".into()));
    }
    let _ = write!(std::io::stderr(), "Type the machine's name to overwrite: ");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap_or(0);
    if line.trim() == plan.order.name {
        return Ok(());
    }
    Err(refused(format!(
        "nothing was written: {:?} is not the machine's name",
        line.trim()
    )))
}

/// What a person recognises a disk by.
fn contents(disk: &PlannedDisk) -> Vec<String> {
    let facts = disk.facts();
    let mut lines = vec![format!(
        "{}, {}",
        size::bytes(facts.size_bytes),
        if facts.stable_id.is_empty() {
            "without a name of its own"
        } else {
            &facts.stable_id
        }
    )];
    for part in &facts.partitions {
        let system = match part.file_system.as_str() {
            "" => "nothing that is recognised",
            known => known,
        };
        lines.push(format!(
            "{}: {}, {system}",
            part.device,
            size::bytes(part.size_bytes)
        ));
    }
    if facts.partitions.is_empty() {
        lines.push("no partition and no file system that is recognised".to_owned());
    }
    if facts.size_bytes > disk.ordered.size_bytes {
        lines.push(format!(
            "the last {} of it are left alone: the disk of the replica is smaller",
            size::bytes(facts.size_bytes - disk.ordered.size_bytes)
        ));
    }
    lines
}

struct Console {
    json: bool,
    bar: ProgressBar,
    begun: Instant,
}

fn words(phase: ReceivePhase) -> &'static str {
    match phase {
        ReceivePhase::Comparing => "comparing",
        ReceivePhase::Copying => "copying what differs",
        ReceivePhase::Following => "following",
        ReceivePhase::LastDelta => "last delta",
        ReceivePhase::Verifying => "verifying",
        ReceivePhase::Done => "done",
        ReceivePhase::Stopped => "stopped",
    }
}

impl Console {
    fn new(json: bool) -> Self {
        let bar = ProgressBar::with_draw_target(
            Some(0),
            if json {
                ProgressDrawTarget::hidden()
            } else {
                ProgressDrawTarget::stderr()
            },
        );
        let style = "{msg:22} [{bar:30}] {percent:>3} % {prefix}";
        bar.set_style(
            ProgressStyle::with_template(style)
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("=> "),
        );
        bar.set_message("starting");
        Self {
            json,
            bar,
            begun: Instant::now(),
        }
    }

    /// A line for a person, above the bar where there is one.
    fn tell(&self, text: &str) {
        if self.bar.is_hidden() {
            eprintln!("{text}");
        } else {
            self.bar.println(text);
        }
    }

    fn begins(&self, plan: &Plan) {
        if self.json {
            let disk = |disk: &PlannedDisk| {
                json!({ "id": disk.ordered.id, "name": disk.ordered.name, "device": disk.path(),
                    "sizeBytes": disk.ordered.size_bytes, "deviceBytes": disk.facts().size_bytes, "known": disk.is_known })
            };
            let disks: Vec<_> = plan.disks.iter().map(disk).collect();
            say(&json!({ "message_type": "order", "machine": plan.order.name, "machineId": plan.order.machine,
                "generation": plan.order.generation, "original": plan.order.is_original, "disks": disks })
            .to_string());
            return;
        }
        for disk in &plan.disks {
            let larger = match disk.facts().size_bytes - disk.ordered.size_bytes {
                0 => String::new(),
                rest => format!("; {} behind it are left alone", size::bytes(rest)),
            };
            self.tell(&format!(
                "{} of {} -> {} ({}{larger})",
                disk.ordered.name,
                plan.order.name,
                disk.path().display(),
                size::bytes(disk.ordered.size_bytes)
            ));
        }
        if plan.state_was_damaged() {
            self.tell("what is known of the disks from before cannot be read: everything is compared");
        }
    }

    /// Shows how far it is, while `goes_on`.
    fn watch(&self, progress: &Progress, goes_on: impl Fn() -> bool) {
        let mut told = Instant::now();
        loop {
            let goes_on = goes_on();
            for then in progress.take_changes() {
                let Some(phase) = then.phase else { continue };
                told = Instant::now();
                if self.json {
                    say(&status(&then, phase).to_string());
                } else if self.bar.is_hidden() {
                    eprintln!("{}", words(phase));
                }
            }
            if !goes_on {
                break;
            }
            let now = progress.now();
            let Some(phase) = now.phase else { continue };
            if !self.json {
                self.show(&now, phase);
            } else if told.elapsed() >= Duration::from_secs(1) {
                told = Instant::now();
                say(&status(&now, phase).to_string());
            }
        }
        self.bar.finish_and_clear();
    }

    fn show(&self, now: &Now, phase: ReceivePhase) {
        self.bar.set_length(now.total_bytes().max(1));
        self.bar
            .set_position(if phase == ReceivePhase::Following && now.done_bytes() == 0 {
                1
            } else {
                now.done_bytes()
            });
        self.bar.set_message(words(phase));
        let eta = match now.eta() {
            Some(eta) => format!(", {} left", humantime::format_duration(eta)),
            None => String::new(),
        };
        let detail = match phase {
            ReceivePhase::Following => format!(
                "waiting for the next point; {} copied",
                size::bytes(now.copied_bytes())
            ),
            _ => format!(
                "{} of {}, {}/s, {} copied{eta}",
                size::bytes(now.done_bytes()),
                size::bytes(now.total_bytes()),
                size::bytes(now.bytes_per_second),
                size::bytes(now.copied_bytes()),
            ),
        };
        self.bar.set_prefix(detail);
    }

    fn ends(&self, outcome: &Outcome) {
        let seconds = self.begun.elapsed().as_secs_f64();
        if self.json {
            say(&json!({ "message_type": "done", "point": outcome.point, "pointAt": size::instant(outcome.unix_nanos),
                "final": outcome.is_final, "verified": true, "mayStart": outcome.is_final, "copiedBytes": outcome.copied_bytes,
                "receivedBytes": outcome.received_bytes, "mendedGranules": outcome.mended_granules, "seconds": seconds })
            .to_string());
        } else if outcome.is_final {
            say(&format!(
                "every disk is verified to be equal to the final point {} ({}): the machine may start now",
                outcome.point,
                size::instant(outcome.unix_nanos)
            ));
        } else {
            say(&format!(
                "every disk is verified to be equal to point {} ({})",
                outcome.point,
                size::instant(outcome.unix_nanos)
            ));
        }
    }
}

fn status(now: &Now, phase: ReceivePhase) -> serde_json::Value {
    let disks: Vec<_> = now
        .disks
        .iter()
        .map(|disk| {
            json!({ "id": disk.id, "name": disk.name, "device": disk.device, "holds": disk.holds,
                "doneBytes": disk.done_bytes, "totalBytes": disk.total_bytes, "copiedBytes": disk.copied_bytes })
        })
        .collect();
    json!({ "message_type": "progress", "phase": phase.to_string(), "point": now.point, "final": now.is_final,
        "doneBytes": now.done_bytes(), "totalBytes": now.total_bytes(), "copiedBytes": now.copied_bytes(),
        "receivedBytes": now.received_bytes, "bytesPerSecond": now.bytes_per_second,
        "etaSeconds": now.eta().map(|eta| eta.as_secs()), "disks": disks })
}

impl Observer for Console {
    fn note(&self, note: &Note) {
        if self.json {
            let value = match note {
                Note::Waiting(why) => {
                    json!({ "message_type": "waiting", "code": why.code, "message": why.message })
                }
                Note::Retrying(why) => {
                    json!({ "message_type": "retrying", "code": why.code, "message": why.message })
                }
                Note::BaseGone { disk, why } => {
                    json!({ "message_type": "baseGone", "disk": disk, "message": why })
                }
                Note::Holds {
                    point,
                    unix_nanos,
                    is_final,
                    copied_bytes,
                    took,
                } => {
                    json!({ "message_type": "holds", "point": point, "pointAt": size::instant(*unix_nanos), "final": is_final,
                    "copiedBytes": copied_bytes, "seconds": took.as_secs_f64() })
                }
                Note::Mended { disk, granules } => {
                    json!({ "message_type": "mended", "disk": disk, "granules": granules })
                }
            };
            return say(&value.to_string());
        }
        match note {
            Note::Waiting(why) => self.tell(&format!("waiting: {} ({})", why.message, why.possible_causes)),
            Note::Retrying(why) => self.tell(&format!("{}; it is tried again", why.message)),
            Note::BaseGone { disk, why } => self.tell(&format!(
                "{disk}: what it was built on is not at the server any more ({why}); it is compared"
            )),
            Note::Holds {
                point,
                unix_nanos,
                is_final,
                copied_bytes,
                took,
            } => self.tell(&format!(
                "holds {}point {point} of {}: {} copied in {:.1} s",
                if *is_final { "the final " } else { "" },
                size::instant(*unix_nanos),
                size::bytes(*copied_bytes),
                took.as_secs_f64()
            )),
            Note::Mended { disk, granules } => self.tell(&format!(
                "{disk}: {granules} granules were not as they had been written, and are now; something else wrote to the disk, \
                 or it does not keep what it is given: look at the kernel's log"
            )),
        }
    }
}
