//! Steps that bring a machine up from a recovery point.
use super::{Context, Done, Fault, missing};
use crate::block::DiskId;
use crate::recovery::disks::{Base, attached};
use crate::recovery::error::failure;
use crate::recovery::job::JobError;
use crate::recovery::points;
use crate::recovery::request::PointChoice;
use crate::replica::{RecoveryPoint, ReplicaError};
use crate::rt::now_unix_nanos;
use crate::target::{MachineSpec, MachineStatus, Power};
use std::time::{Duration, Instant};

/// How often a point that retention removes under our hands is chosen anew.
const CHOICES_MAX: u32 = 5;
/// How often the disks are asked for the first read; the figure itself comes from the NBD server.
const READ_LOOK: Duration = Duration::from_millis(5);
/// How often the machine is asked whether it still runs: a question to the hypervisor each time.
const POWER_LOOK: Duration = Duration::from_millis(250);

fn spec<'a>(context: &Context<'a>) -> Result<&'a MachineSpec, JobError> {
    context
        .parameters
        .machine
        .as_ref()
        .ok_or_else(|| missing("the machine to start"))
}

fn choice(context: &Context) -> Result<PointChoice, JobError> {
    if let Some(point) = context.outcome.final_point {
        return Ok(PointChoice::Custom(point));
    }
    context
        .parameters
        .request
        .point()
        .ok_or_else(|| missing("a choice of recovery point"))
}

fn points_of(context: &Context) -> Result<Vec<RecoveryPoint>, JobError> {
    context
        .parts
        .store
        .points(context.machine)
        .map_err(JobError::from)
}

/// Disks of the machine and its point, for the calls below.
fn with_base<T>(context: &Context, call: impl FnOnce(Base) -> Result<T, JobError>) -> Result<T, JobError> {
    let disks = attached(spec(context)?)?;
    let point = context
        .outcome
        .point_id
        .ok_or_else(|| missing("its recovery point"))?;
    call(Base {
        machine: context.machine,
        point,
        disks: &disks,
    })
}

pub fn check_target(context: &mut Context) -> Result<Done, Fault> {
    context.parts.compute.check()?;
    let disks = attached(spec(context)?)?;
    let points = points_of(context)?;
    let point = points::choose(
        &points,
        &disks,
        choice(context)?,
        &context.parts.store.shared_points(),
    )?;
    context.disks.probe(Base {
        machine: context.machine,
        point: point.id,
        disks: &disks,
    })?;
    Ok(Done::Succeeded(format!(
        "The target ({}) is ready, and recovery point {} can be read.",
        context.parts.compute.kind(),
        point.id
    )))
}

fn take_choice(context: &mut Context, disks: &[DiskId]) -> Result<(), JobError> {
    let points = points_of(context)?;
    let point = points::choose(
        &points,
        disks,
        choice(context)?,
        &context.parts.store.shared_points(),
    )?;
    context.outcome.point_id = Some(point.id);
    context.outcome.point_instant_unix_nanos = Some(point.instant_unix_nanos);
    context.outcome.point_consistency = Some(point.consistency);
    Ok(())
}

pub fn choose_point(context: &mut Context) -> Result<Done, Fault> {
    let disks = attached(spec(context)?)?;
    take_choice(context, &disks)?;
    let (Some(id), Some(instant), Some(consistency)) = (
        context.outcome.point_id,
        context.outcome.point_instant_unix_nanos,
        context.outcome.point_consistency,
    ) else {
        return Err(missing("its recovery point").into());
    };
    let age = Duration::from_nanos(now_unix_nanos().saturating_sub(instant).max(0) as u64);
    Ok(Done::Succeeded(format!(
        "Recovery point {id}, {consistency}, {} seconds old.",
        age.as_secs()
    )))
}

/// Retention may have removed the point since it was chosen. Then the choice is made again, unless it was one point.
pub fn pin_point(context: &mut Context) -> Result<Done, Fault> {
    let disks = attached(spec(context)?)?;
    let owner = context.id.to_string();
    for _ in 0..CHOICES_MAX {
        let point = context
            .outcome
            .point_id
            .ok_or_else(|| missing("its recovery point"))?;
        match context.parts.store.pin(context.machine, point, &owner) {
            Ok(()) => return Ok(Done::Succeeded(format!("Recovery point {point} is kept."))),
            Err(ReplicaError::NoPoint(_)) if !matches!(choice(context)?, PointChoice::Custom(_)) => {
                take_choice(context, &disks)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(failure(
        "PointsVanish",
        "Recovery points are removed faster than one can be kept.",
        "Retention is set very short.",
        "Keep recovery points longer and run the operation again.",
    )
    .into())
}

pub fn make_branches(context: &mut Context) -> Result<Done, Fault> {
    with_base(context, |base| context.disks.make(context.id, base))?;
    let disks = match spec(context)?.disks.len() {
        1 => "One disk".to_owned(),
        count => format!("{count} disks"),
    };
    Ok(Done::Succeeded(format!(
        "{disks} with room for what the machine writes."
    )))
}

pub fn serve_disks(context: &mut Context) -> Result<Done, Fault> {
    with_base(context, |base| context.disks.serve(context.id, base))?;
    Ok(Done::Succeeded("The disks are served over NBD.".into()))
}

pub fn prepare_machine(context: &mut Context) -> Result<Done, Fault> {
    let spec = spec(context)?;
    context.parts.compute.prepare(spec)?;
    // What cannot be set is said, and holds up nothing: a machine with another address is better than none.
    let set = context.parts.compute.configure_guest(spec);
    let set = set.map(|words| format!(" {words}")).unwrap_or_default();
    Ok(Done::Succeeded(format!("{} is prepared.{set}", spec.name)))
}

fn take_status(context: &mut Context, spec: &MachineSpec, status: &MachineStatus) {
    context.outcome.machine_name = Some(spec.name.clone());
    context.outcome.folder = Some(spec.folder.clone());
    context.outcome.accelerator = Some(status.accelerator.clone());
    context.outcome.forwards = status.forwards.clone();
    context.outcome.kernel_start_ms = status
        .first_output_unix_nanos
        .map(|instant| millis_since(context.created_unix_nanos, instant));
}

pub fn millis_since(from_unix_nanos: i64, instant_unix_nanos: i64) -> u64 {
    (instant_unix_nanos.saturating_sub(from_unix_nanos).max(0) / 1_000_000) as u64
}

pub fn start_machine(context: &mut Context) -> Result<Done, Fault> {
    let spec = spec(context)?;
    // One that runs already, since a server before this one started it, may have read all it needs.
    let runs = context
        .parts
        .compute
        .status(spec)
        .is_ok_and(|status| matches!(status.power, Power::Running | Power::Paused));
    let status = context.parts.compute.start(spec)?;
    *context.started_here = !runs;
    take_status(context, spec, &status);
    Ok(Done::Succeeded(format!(
        "{} is started ({}).",
        spec.name, status.accelerator
    )))
}

/// A machine that is started runs and reads its disks; anything else is a failure that is better known now.
pub fn confirm_start(context: &mut Context) -> Result<Done, Fault> {
    let spec = spec(context)?;
    let deadline = Instant::now() + context.limits.first_read;
    let mut look = Instant::now();
    loop {
        let read = context.disks.first_read(context.id);
        if look <= Instant::now() || read.is_some() {
            let status = context.parts.compute.status(spec)?;
            if !matches!(status.power, Power::Running | Power::Paused) {
                return Err(failure(
                    "TargetStopped",
                    format!(
                        "{} stopped right after its start: {}.",
                        spec.name,
                        if status.detail.is_empty() {
                            "no reason is known"
                        } else {
                            &status.detail
                        }
                    ),
                    "The machine finds no system to boot in this firmware mode, or the hypervisor was ended.",
                    "Look at the machine's serial log; compare firmware and disk bus in its target settings with the source.",
                )
                .into());
            }
            take_status(context, spec, &status);
            look = Instant::now() + POWER_LOOK;
        }
        if let Some(read) = read {
            if *context.started_here {
                let instant = now_unix_nanos().saturating_sub(read.elapsed().as_nanos() as i64);
                context.outcome.first_read_ms = Some(millis_since(context.created_unix_nanos, instant));
            }
            return Ok(Done::Succeeded(format!("{} reads its disks.", spec.name)));
        }
        if !*context.started_here {
            // Started before this server was: it may have read all it needs.
            return Ok(Done::Succeeded(format!("{} runs.", spec.name)));
        }
        if Instant::now() >= deadline {
            return Err(failure(
                "TargetReadsNothing",
                format!(
                    "{} runs but has not read its disks within {} seconds.",
                    spec.name,
                    context.limits.first_read.as_secs()
                ),
                "The target is overloaded, or the machine's firmware does not see the disk on this bus.",
                "Look at the machine's serial log; compare firmware and disk bus in its target settings with the source.",
            )
            .into());
        }
        if (context.interrupted)() {
            return Err(Fault::Interrupted);
        }
        std::thread::sleep(READ_LOOK);
    }
}
