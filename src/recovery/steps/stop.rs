//! Steps that take a machine down and remove what it lived on, and the commit.
use super::{Context, Done, Fault, missing};
use crate::process_server::RECEIVERS;
use crate::recovery::job::{JobError, JobId};
use crate::recovery::request::Request;
use crate::recovery::state::Failover;
use crate::target::{MachineSpec, Stop};

fn failover<'a>(context: &Context<'a>) -> Result<&'a Failover, JobError> {
    context
        .parameters
        .failover
        .as_ref()
        .ok_or_else(|| missing("the failover that it is about"))
}

pub fn destroy(context: &Context, machine: &MachineSpec) -> Result<(), JobError> {
    context.parts.compute.destroy(machine).map_err(JobError::from)
}

/// Lets go of every point that a job holds: one that was chosen anew may have left an earlier one pinned by a crash.
pub fn unpin(context: &Context, owner: JobId) -> Result<(), JobError> {
    let store = &context.parts.store;
    let owner = owner.to_string();
    for (point, holder) in store.pins(context.machine)? {
        if holder == owner {
            store.unpin(context.machine, point, &owner)?;
        }
    }
    Ok(())
}

pub fn stop_machine(context: &mut Context) -> Result<Done, Fault> {
    let machine = &failover(context)?.machine;
    // Its disks are discarded next: nothing is gained by asking the guest.
    context.parts.compute.stop(machine, Stop::PowerOff)?;
    destroy(context, machine)?;
    Ok(Done::Succeeded(format!("{} is gone.", machine.name)))
}

pub fn stop_disks(context: &mut Context) -> Result<Done, Fault> {
    context.disks.stop(failover(context)?.job)?;
    Ok(Done::Succeeded("The disks are no longer served.".into()))
}

pub fn discard_branches(context: &mut Context) -> Result<Done, Fault> {
    context.disks.discard(failover(context)?.job)?;
    Ok(Done::Succeeded("What the machine wrote is discarded.".into()))
}

pub fn unpin_point(context: &mut Context) -> Result<Done, Fault> {
    let failover = failover(context)?;
    unpin(context, failover.job)?;
    if let Request::TestFailoverCleanup { notes } = &context.parameters.request {
        context.outcome.notes = Some(notes.clone());
    }
    context.outcome.machine_name = Some(failover.machine.name.clone());
    context.outcome.point_id = Some(failover.point);
    context.outcome.point_instant_unix_nanos = Some(failover.point_instant_unix_nanos);
    Ok(Done::Succeeded(
        "The recovery point is left to retention again.".into(),
    ))
}

pub fn discard_failed_attempt(context: &mut Context) -> Result<Done, Fault> {
    let Some(failover) = &context.parameters.failover else {
        return Ok(Done::Skipped("Nothing was left by an earlier attempt.".into()));
    };
    discard(context, failover)?;
    Ok(Done::Succeeded(format!(
        "What job {} left is removed.",
        failover.job
    )))
}

fn discard(context: &Context, failover: &Failover) -> Result<(), JobError> {
    destroy(context, &failover.machine)?;
    context.disks.discard(failover.job)?;
    unpin(context, failover.job)
}

/// The points that were made of the machine stay, until retention takes them.
pub fn discard_machine(context: &mut Context) -> Result<Done, Fault> {
    let Some(failover) = &context.parameters.failover else {
        return Ok(Done::Skipped("No machine runs at the target.".into()));
    };
    discard(context, failover)?;
    if context.parameters.is_homecoming {
        // What the receiver built on; it has verified the last one.
        let store = &context.parts.store;
        for (point, owner) in store.pins(context.machine)? {
            if owner.starts_with(RECEIVERS) {
                store.unpin(context.machine, point, &owner)?;
            }
        }
    }
    Ok(Done::Succeeded(format!(
        "{} is gone from the target, with its disks.",
        failover.machine.name
    )))
}

/// The points that the choice was made from are removed. The point of the failover stays pinned, as it is the base of the
/// running machine's disks; those that were made of the machine at the target stay too.
pub fn remove_other_points(context: &mut Context) -> Result<Done, Fault> {
    let failover = failover(context)?;
    let store = &context.parts.store;
    let owner = failover.job.to_string();
    store.pin(context.machine, failover.point, &owner)?;
    let removed = store.keep_only(context.machine, |point| {
        point.id == failover.point || point.instant_unix_nanos > failover.started_unix_nanos
    })?;
    // On a second run after a crash nothing is left to remove; the first figure is lost with the crash, not the points.
    context.outcome.removed_points = Some(removed.len());
    context.outcome.machine_name = Some(failover.machine.name.clone());
    context.outcome.point_id = Some(failover.point);
    context.outcome.point_instant_unix_nanos = Some(failover.point_instant_unix_nanos);
    Ok(Done::Succeeded(format!(
        "{} other recovery points are removed.",
        removed.len()
    )))
}
