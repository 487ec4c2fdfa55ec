//! Recovery plans: machines in ordered groups, with what is to be done before and after each.
//!
//! A run is written down as a list of steps in stages: the steps of a stage go on at once, stages follow each other. What is
//! next is a pure function of the steps' states ([`next`]); the engine carries it out above [`super::Runner`], one thread for
//! each run. Every step is written down before it begins. A machine's step names the job that it is about to order, so after a
//! crash the same job is found and not ordered twice; a delay and a probe go on with the time they have left; a script is run
//! again, and is told the number of the attempt.
mod actions;
#[cfg(test)]
mod crashes;
mod engine;
mod model;
mod run;
#[cfg(test)]
mod tests;

pub use actions::{Execution, Place};
pub use engine::{Engine, EngineLimits, EngineParts, NewRun, PlanJournal};
pub use model::{
    Action, ActionKind, Direction, FailoverType, GROUPS_MAX, Group, Invalid, MACHINES_MAX, OnMachineFailure,
    Plan, PlanMachine,
};
pub use run::{
    Decision, MachineFigures, PersonsWord, Phase, Pinned, PlanOperation, PlanRun, RunOptions, RunStep,
    StepState, StepWork, next,
};
