//! `lifeboat agent quiesce`: the hooks that bring applications to rest, on the protected machine.
use super::failure::Failure;
use super::store::say;
use crate::agent::identity::Identity;
use crate::agent::quiesce::shipped::{self, SHIPPED, Shipped};
use crate::agent::quiesce::{
    DEFAULT_FOLDER, DEFAULT_HOLD, DEFAULT_TIMEOUT, Quiesce, QuiesceError, Step, Why,
};
use crate::agent::{inventory, mounts};
use crate::rt::chain;
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Where the hooks are and how long they may take.
#[derive(Args, Clone)]
pub struct HookArgs {
    /// Folder of the hooks that bring applications to rest
    #[arg(long, value_name = "FOLDER", env = "LIFEBOAT_QUIESCE_DIR", default_value = DEFAULT_FOLDER)]
    pub quiesce_dir: PathBuf,
    /// Seconds that each call of a hook may take
    #[arg(long, value_name = "SECONDS", env = "LIFEBOAT_QUIESCE_TIMEOUT", default_value_t = DEFAULT_TIMEOUT.as_secs(),
        value_parser = clap::value_parser!(u64).range(1..=600))]
    pub quiesce_timeout: u64,
    /// Seconds that applications may be held; a point that took longer is not called app-consistent
    #[arg(long, value_name = "SECONDS", env = "LIFEBOAT_QUIESCE_HOLD", default_value_t = DEFAULT_HOLD.as_secs(),
        value_parser = clap::value_parser!(u64).range(1..=600))]
    pub quiesce_hold: u64,
}

impl HookArgs {
    pub fn settings(&self, state: &Path) -> Quiesce {
        let name = Identity::load(state).map_or_else(|_| inventory::host_name(), |identity| identity.name);
        Quiesce {
            folder: std::path::absolute(&self.quiesce_dir).unwrap_or_else(|_| self.quiesce_dir.clone()),
            state: std::path::absolute(state).unwrap_or_else(|_| state.to_owned()),
            machine: name,
            timeout: Duration::from_secs(self.quiesce_timeout),
            hold: Duration::from_secs(self.quiesce_hold),
        }
    }
}

#[derive(Args)]
#[command(after_help = "Examples:
  lifeboat agent quiesce enable              link the shipped hooks whose servers are installed
  lifeboat agent quiesce list
  lifeboat agent quiesce test                call pre and post once, without a recovery point
  lifeboat agent quiesce resume              call post for what an agent that was killed left at rest

A hook is an executable in the folder; it is called as root with `pre` before the freeze and with `post` after the thaw, by name
and backwards. Its environment: LIFEBOAT_PHASE, LIFEBOAT_REASON (schedule, request, group, test, recovery), LIFEBOAT_MACHINE,
LIFEBOAT_QUIESCE_ID (the same in pre and post), LIFEBOAT_FILE_SYSTEMS (mount points that will be frozen, by colons),
LIFEBOAT_STATE_DIR (a private folder), LIFEBOAT_TIMEOUT_SECONDS, LIFEBOAT_HOLD_SECONDS. Another status than 0: the point is
crash-consistent and says why. Post is called for every hook whose pre was begun, whatever happened.")]
pub struct QuiesceArgs {
    #[command(flatten)]
    state: super::agent::StateArgs,
    #[command(flatten)]
    hooks: HookArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Hooks of the folder, and what is wrong with them (exit code 3)
    #[command(visible_alias = "ls")]
    List,
    /// Call pre and post of all hooks once, without a recovery point
    Test,
    /// Call post for what was left at rest
    Resume,
    /// Link shipped hooks into the folder [default: those whose servers are installed]
    Enable { names: Vec<String> },
    /// Take the links of shipped hooks away
    Disable {
        #[arg(required = true)]
        names: Vec<String>,
    },
}

impl From<QuiesceError> for Failure {
    fn from(error: QuiesceError) -> Self {
        let (causes, action) = error.advice();
        Self {
            code: match error {
                QuiesceError::NoHooks(_) => 5,
                QuiesceError::Busy => 6,
                _ => 1,
            },
            message: chain(&error),
            causes: causes.into(),
            action: action.into(),
        }
    }
}

pub fn run(args: &QuiesceArgs) -> Result<(), Failure> {
    let settings = args.hooks.settings(&args.state.folder());
    match &args.verb {
        Verb::List => list(&settings, args.state.json),
        Verb::Test => test(&settings, args.state.json),
        Verb::Resume => {
            let steps = settings.settle()?;
            if args.state.json {
                say(&json!({ "steps": steps }).to_string());
            } else if steps.is_empty() {
                say("nothing was left at rest");
            }
            if !args.state.json {
                steps.iter().for_each(print_step);
            }
            Ok(())
        }
        Verb::Enable { names } => enable(&settings, names, args.state.json),
        Verb::Disable { names } => {
            for name in names {
                if known(name)?.disable(&settings.folder)? {
                    say(&format!("{name} is disabled"));
                } else {
                    eprintln!("{name} is not enabled");
                }
            }
            Ok(())
        }
    }
}

fn known(name: &str) -> Result<&'static Shipped, Failure> {
    shipped::by_name(name).ok_or_else(|| Failure {
        code: 5,
        message: format!("no hook {name} is shipped"),
        causes: "the name is misspelt".into(),
        action: format!("one of: {}", SHIPPED.map(|shipped| shipped.name).join(", ")).into(),
    })
}

fn list(settings: &Quiesce, as_json: bool) -> Result<(), Failure> {
    let found = settings.find()?;
    let left = settings.left();
    if as_json {
        let hooks: Vec<_> = found
            .hooks
            .iter()
            .map(|hook| json!({ "name": hook.name, "path": hook.path, "refused": hook.refused }))
            .collect();
        say(
            &json!({ "folder": settings.folder, "refused": found.refused, "hooks": hooks,
            "notExecutable": found.ignored, "leftAtRest": left })
            .to_string(),
        );
    } else {
        if found.hooks.is_empty() {
            say(&format!("no hooks in {}", settings.folder.display()));
            if SHIPPED.iter().any(|shipped| shipped.is_useful(Path::new("/"))) {
                eprintln!("next: lifeboat agent quiesce enable");
            }
        }
        for hook in &found.hooks {
            match &hook.refused {
                None => say(&format!("ready    {}", hook.name)),
                Some(why) => say(&format!("refused  {}: it {why}", hook.name)),
            }
        }
        for name in &found.ignored {
            say(&format!("ignored  {name}: not executable"));
        }
        if let Some(why) = &found.refused {
            say(&format!("nothing is run: {} {why}", settings.folder.display()));
        }
        for name in &left {
            say(&format!(
                "at rest  {name}: its post is due; see: lifeboat agent quiesce resume"
            ));
        }
    }
    let bad = found.refused.is_some() || found.hooks.iter().any(|hook| hook.refused.is_some());
    if !bad {
        return Ok(());
    }
    Err(Failure {
        code: 3,
        message: "hooks are refused: no app-consistent recovery point is made".into(),
        causes: "anybody could have the agent run what they like as root".into(),
        action: "give files and folders to root and take the right to write from others".into(),
    })
}

fn print_step(step: &Step) {
    let verdict = if step.failure.is_empty() {
        "ok".to_owned()
    } else {
        step.failure.clone()
    };
    say(&format!(
        "{:4} {}: {verdict} ({:.2} s)",
        step.phase.word(),
        step.hook,
        step.seconds
    ));
    for line in step.output.lines() {
        say(&format!("       {line}"));
    }
}

fn test(settings: &Quiesce, as_json: bool) -> Result<(), Failure> {
    // As for a point: all file systems on the disks that this agent may protect.
    let only = Identity::load(&settings.state).map_or_else(|_| Vec::new(), |identity| identity.disks);
    let disks: Vec<PathBuf> = inventory::take(&only)
        .disks
        .iter()
        .map(|disk| PathBuf::from(&disk.device))
        .collect();
    let file_systems = mounts::of_disks(disks.iter().map(PathBuf::as_path)).map_err(|error| Failure {
        code: 1,
        message: format!("the file systems of the disks cannot be found: {error}"),
        causes: "/proc or /sys cannot be read".into(),
        action: "run it as root on the machine itself".into(),
    })?;
    let mounts: Vec<PathBuf> = file_systems.iter().map(|fs| fs.mount_point.clone()).collect();
    let mut steps = Vec::new();
    let begun = settings.begin(Why::Test, &mounts, &AtomicBool::new(false), &mut steps);
    let ended = begun.and_then(|mut quiesced| {
        quiesced.thawed();
        quiesced.end(&mut steps)
    });
    if as_json {
        let error = ended.as_ref().err().map(|error| chain(error));
        say(&json!({ "steps": steps, "error": error }).to_string());
    } else {
        steps.iter().for_each(print_step);
    }
    ended?;
    if !as_json {
        say("applications come to rest, and go on");
    }
    Ok(())
}

fn enable(settings: &Quiesce, names: &[String], as_json: bool) -> Result<(), Failure> {
    let root = Path::new("/");
    let mut wanted = Vec::new();
    for name in names {
        wanted.push(known(name)?);
    }
    if names.is_empty() {
        wanted.extend(SHIPPED.iter().filter(|shipped| shipped.is_useful(root)));
    }
    if wanted.is_empty() {
        say("no server that a shipped hook is for is installed");
    }
    let mut enabled = Vec::new();
    for shipped in wanted {
        if shipped.enable(root, &settings.folder)? {
            enabled.push(shipped.name);
            if !as_json {
                say(&format!(
                    "{} is enabled: {}",
                    shipped.name,
                    settings.folder.join(shipped.file).display()
                ));
            }
        } else if !as_json {
            say(&format!("{} is enabled already", shipped.name));
        }
    }
    if as_json {
        say(&json!({ "enabled": enabled }).to_string());
    } else if !enabled.is_empty() {
        eprintln!("next: lifeboat agent quiesce test");
    }
    Ok(())
}
