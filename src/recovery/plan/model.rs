//! A recovery plan as a value, and the rules that it keeps.
use crate::block::MachineId;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

pub const GROUPS_MAX: usize = 7;
pub const MACHINES_MAX: usize = 100;
/// Before, after, on failure, after cleanup: of each at most.
const ACTIONS_MAX: usize = 20;
const TEXT_MAX: usize = 4096;
const ARGUMENTS_MAX: usize = 20;
/// A day: what takes longer is no step of a recovery.
const SECONDS_MAX: u32 = 24 * 3600;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FailoverType {
    Test,
    Planned,
    Unplanned,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Direction {
    PrimaryToRecovery,
    RecoveryToPrimary,
}

/// What a run does when a machine's step has failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnMachineFailure {
    /// No further step; then the actions for a failure.
    #[default]
    Stop,
    /// The rest all the same. The run ends as failed.
    GoOn,
    /// A person decides: resume tries it again, skip goes on without it.
    Ask,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum ActionKind {
    /// An executable of the server's folder of scripts, by its name. It reads the run as JSON on standard input.
    #[serde(rename_all = "camelCase")]
    Script {
        script: String,
        #[serde(default)]
        arguments: Vec<String>,
        timeout_seconds: u32,
    },
    /// As a script, but run inside the network that the machine is in.
    #[serde(rename_all = "camelCase")]
    Command {
        machine: MachineId,
        script: String,
        #[serde(default)]
        arguments: Vec<String>,
        timeout_seconds: u32,
    },
    /// The run waits until a person says that it is done.
    Manual {
        instructions: String,
    },
    /// Asks a machine until it answers.
    #[serde(rename_all = "camelCase")]
    Probe {
        machine: MachineId,
        /// tcp, http, ping
        protocol: String,
        #[serde(default)]
        port: Option<u16>,
        /// Of HTTP.
        #[serde(default)]
        path: Option<String>,
        /// Of HTTP; None: 200 to 399.
        #[serde(default)]
        status: Option<u16>,
        timeout_seconds: u32,
    },
    Delay {
        seconds: u32,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Action {
    pub name: String,
    #[serde(flatten)]
    pub kind: ActionKind,
    /// Empty: all.
    #[serde(default)]
    pub failover_types: Vec<FailoverType>,
    /// Empty: both.
    #[serde(default)]
    pub directions: Vec<Direction>,
}

impl Action {
    pub fn applies(&self, kind: FailoverType, direction: Direction) -> bool {
        (self.failover_types.is_empty() || self.failover_types.contains(&kind))
            && (self.directions.is_empty() || self.directions.contains(&direction))
    }

    fn machine(&self) -> Option<MachineId> {
        match &self.kind {
            ActionKind::Command { machine, .. } | ActionKind::Probe { machine, .. } => Some(*machine),
            _ => None,
        }
    }
}

/// A machine with the name that it had when the plan was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanMachine {
    pub id: MachineId,
    pub name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Group {
    pub name: String,
    pub machines: Vec<PlanMachine>,
    pub before: Vec<Action>,
    pub after: Vec<Action>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Plan {
    pub name: String,
    pub groups: Vec<Group>,
    pub on_machine_failure: OnMachineFailure,
    /// Isolated network of the vault that all machines of a test are put in; None: each machine's own test network.
    pub test_network: Option<String>,
    /// When a failover has failed.
    pub on_failure: Vec<Action>,
    /// When a test was cleaned up.
    pub after_cleanup: Vec<Action>,
}

/// A field, and the rule that it breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {rule}")]
pub struct Invalid {
    pub field: String,
    pub rule: String,
}

fn invalid<T>(field: impl Into<String>, rule: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid {
        field: field.into(),
        rule: rule.into(),
    })
}

/// A file name without a way out of the folder.
pub(super) fn is_script_name(name: &str) -> bool {
    let fine = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    !name.is_empty() && name.len() <= 100 && !name.starts_with('.') && name.chars().all(fine)
}

impl Plan {
    pub fn machines(&self) -> impl Iterator<Item = &PlanMachine> {
        self.groups.iter().flat_map(|group| &group.machines)
    }

    pub fn check(&self) -> Result<(), Invalid> {
        let name = self.name.as_bytes();
        let fine = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if !(1..=63).contains(&name.len()) || !name.iter().all(fine) {
            return invalid(
                "name",
                "1 to 63 letters, digits, hyphens, underscores and full stops",
            );
        }
        if self.groups.len() > GROUPS_MAX {
            return invalid("groups", format!("at most {GROUPS_MAX} groups"));
        }
        if self.machines().count() > MACHINES_MAX {
            return invalid("groups", format!("at most {MACHINES_MAX} machines"));
        }
        let mut seen = HashSet::new();
        for machine in self.machines() {
            if !seen.insert(machine.id) {
                return invalid(
                    "groups",
                    format!("{} stands in the plan more than once", machine.name),
                );
            }
        }
        for (number, group) in self.groups.iter().enumerate() {
            if group.name.len() > 63 {
                return invalid(format!("groups[{number}].name"), "at most 63 bytes");
            }
            check_actions(&format!("groups[{number}].before"), &group.before, &seen)?;
            check_actions(&format!("groups[{number}].after"), &group.after, &seen)?;
        }
        check_actions("onFailure", &self.on_failure, &seen)?;
        check_actions("afterCleanup", &self.after_cleanup, &seen)
    }
}

fn check_actions(field: &str, actions: &[Action], machines: &HashSet<MachineId>) -> Result<(), Invalid> {
    if actions.len() > ACTIONS_MAX {
        return invalid(field, format!("at most {ACTIONS_MAX} actions"));
    }
    for (number, action) in actions.iter().enumerate() {
        let field = format!("{field}[{number}]");
        if action.name.is_empty() || action.name.len() > 100 {
            return invalid(format!("{field}.name"), "1 to 100 bytes");
        }
        if action
            .machine()
            .is_some_and(|machine| !machines.contains(&machine))
        {
            return invalid(format!("{field}.machine"), "a machine of the plan");
        }
        let timeout = |seconds: u32| {
            if (1..=SECONDS_MAX).contains(&seconds) {
                Ok(())
            } else {
                invalid(
                    format!("{field}.timeoutSeconds"),
                    format!("1 to {SECONDS_MAX} seconds"),
                )
            }
        };
        match &action.kind {
            ActionKind::Script {
                script,
                arguments,
                timeout_seconds,
            }
            | ActionKind::Command {
                script,
                arguments,
                timeout_seconds,
                ..
            } => {
                if !is_script_name(script) {
                    return invalid(
                        format!("{field}.script"),
                        "the name of a file in the server's folder of scripts, without a path",
                    );
                }
                let long = |argument: &String| argument.len() > TEXT_MAX || argument.contains('\0');
                if arguments.len() > ARGUMENTS_MAX || arguments.iter().any(long) {
                    return invalid(
                        format!("{field}.arguments"),
                        format!("at most {ARGUMENTS_MAX}, of at most {TEXT_MAX} bytes"),
                    );
                }
                timeout(*timeout_seconds)?;
            }
            ActionKind::Manual { instructions } => {
                if instructions.is_empty() || instructions.len() > TEXT_MAX {
                    return invalid(format!("{field}.instructions"), format!("1 to {TEXT_MAX} bytes"));
                }
            }
            ActionKind::Probe {
                protocol,
                port,
                path,
                status,
                timeout_seconds,
                ..
            } => {
                match protocol.as_str() {
                    "ping" => {}
                    "tcp" | "http" if port.is_none_or(|port| port == 0) => {
                        return invalid(format!("{field}.port"), "1 to 65535 for tcp and http");
                    }
                    "tcp" | "http" => {}
                    _ => return invalid(format!("{field}.protocol"), "tcp, http or ping"),
                }
                let fine = |path: &String| {
                    path.starts_with('/')
                        && path.len() <= 1024
                        && path.bytes().all(|byte| byte.is_ascii_graphic())
                };
                if !path.as_ref().is_none_or(fine) {
                    return invalid(
                        format!("{field}.path"),
                        "begins with /, at most 1024 characters, no spaces",
                    );
                }
                if status.is_some_and(|status| !(100..=599).contains(&status)) {
                    return invalid(format!("{field}.status"), "100 to 599");
                }
                timeout(*timeout_seconds)?;
            }
            ActionKind::Delay { seconds } => {
                if !(1..=SECONDS_MAX).contains(seconds) {
                    return invalid(format!("{field}.seconds"), format!("1 to {SECONDS_MAX}"));
                }
            }
        }
    }
    Ok(())
}
