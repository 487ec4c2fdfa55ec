//! Steps that bring a machine home from the target, and that let it go on there.
use super::{Context, Done, Fault, missing};
use crate::recovery::disks::{Base, attached};
use crate::recovery::error::failure;
use crate::recovery::job::JobError;
use crate::recovery::state::Failover;
use crate::target::{Power, Stop};
use std::time::Duration;

/// How soon it is noticed that the receiver is done: it works for minutes.
const LOOK: Duration = Duration::from_millis(100);

fn failover<'a>(context: &Context<'a>) -> Result<&'a Failover, JobError> {
    context
        .parameters
        .failover
        .as_ref()
        .ok_or_else(|| missing("the machine at the target"))
}

pub fn check_receiver(context: &mut Context) -> Result<Done, Fault> {
    if let Some(why) = context.parts.source.receiver_trouble(context.machine) {
        return Err(failure(
            "ReceiverNotReady",
            format!("The machine cannot be taken home now: {why}."),
            "`lifeboat agent receive` is not running at home, has lost its connection, or has not taken the disks yet.",
            "Start `lifeboat agent receive` there, wait until it follows, and run the failback again.",
        )
        .into());
    }
    Ok(Done::Succeeded(
        "The receiver holds the disks and follows.".into(),
    ))
}

pub fn stop_target(context: &mut Context) -> Result<Done, Fault> {
    let machine = &failover(context)?.machine;
    let limit = context.limits.guest_shut_down;
    let compute = &context.parts.compute;
    compute.stop(machine, Stop::Graceful { limit })?;
    // Part of what comes home: there it has the addresses that it left with.
    let turned = compute.readdress_guest(machine, true);
    let turned = turned.map(|words| format!(" {words}.")).unwrap_or_default();
    Ok(Done::Succeeded(format!("{} is stopped.{turned}", machine.name)))
}

/// Also the undo of the step above: with its disks as it left them.
pub fn start_again(context: &mut Context) -> Result<(), JobError> {
    let failover = failover(context)?;
    let disks = attached(&failover.machine)?;
    context.disks.serve(
        failover.job,
        Base {
            machine: context.machine,
            point: failover.point,
            disks: &disks,
        },
    )?;
    let compute = &context.parts.compute;
    // One that runs has its disks in use, and was not readdressed for home.
    let runs = compute
        .status(&failover.machine)
        .is_ok_and(|status| matches!(status.power, Power::Running | Power::Paused));
    if !runs {
        compute.readdress_guest(&failover.machine, false);
    }
    compute.start(&failover.machine)?;
    Ok(())
}

/// The machine is stopped: nothing is written after this point.
pub fn seal_final_point(context: &mut Context) -> Result<Done, Fault> {
    let job = failover(context)?.job;
    let point = context.disks.seal_now(job, context.limits.halt).map_err(|why| {
        failure(
            "NoFinalPoint",
            format!("What the machine wrote last did not become a recovery point: {why}."),
            "The replica store is full or damaged.",
            "Make room in the store and run the failback again; the machine goes on at the target meanwhile.",
        )
    })?;
    let points = context.parts.store.points(context.machine)?;
    context.outcome.point_id = Some(point);
    context.outcome.point_instant_unix_nanos = points
        .iter()
        .find(|known| known.id == point)
        .map(|known| known.instant_unix_nanos);
    context
        .parts
        .store
        .pin(context.machine, point, &context.id.to_string())?;
    Ok(Done::Succeeded(format!(
        "Recovery point {point} holds all that the machine wrote."
    )))
}

pub fn hand_home(context: &mut Context) -> Result<Done, Fault> {
    let point = context
        .outcome
        .point_id
        .ok_or_else(|| missing("the final point"))?;
    loop {
        match context.parts.source.is_home(context.machine, point) {
            Ok(true) => {
                super::stop::unpin(context, context.id)?;
                return Ok(Done::Succeeded(
                    "The disks at home were compared with the final point as a whole and are equal.".into(),
                ));
            }
            Ok(false) => {}
            Err(why) => {
                return Err(failure(
                    "NotHome",
                    format!("The receiver could not take the machine home: {why}."),
                    "A disk at home failed, was replaced, or somebody else writes to it.",
                    "Remove the cause at home; the machine goes on at the target meanwhile. Run the failback again.",
                )
                .into());
            }
        }
        if (context.interrupted)() {
            return Err(Fault::Interrupted);
        }
        std::thread::sleep(LOOK);
    }
}

/// The disks stay until the commit: a cancel lets the machine go on here.
pub fn fence_target(context: &mut Context) -> Result<Done, Fault> {
    let generation = context
        .outcome
        .generation
        .ok_or_else(|| missing("the generation that fences"))?;
    context.disks.stop(failover(context)?.job)?;
    context.parts.source.fence(context.machine, generation);
    context.parts.store.begin(context.machine, generation)?;
    Ok(Done::Succeeded(format!(
        "The machine is home; the target is refused from generation {generation} on."
    )))
}

pub fn restart_machine(context: &mut Context) -> Result<Done, Fault> {
    let generation = context
        .outcome
        .generation
        .ok_or_else(|| missing("the generation that fences"))?;
    context.parts.source.fence(context.machine, generation);
    start_again(context)?;
    let machine = &failover(context)?.machine;
    context.outcome.machine_name = Some(machine.name.clone());
    Ok(Done::Succeeded(format!(
        "{} goes on at the target where it was stopped.",
        machine.name
    )))
}
