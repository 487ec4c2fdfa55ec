//! Steps that end the replication of a machine that stays at the target.
use super::{Context, Done, Fault, missing};
use crate::recovery::request::Request;
use crate::replica::ReplicaError;

/// The source is refused for good: the record of the item, which stays, is what says so to its agent.
pub fn end_replication(context: &mut Context) -> Result<Done, Fault> {
    let generation = context
        .outcome
        .generation
        .ok_or_else(|| missing("the generation that fences"))?;
    context.parts.source.fence(context.machine, generation);
    match context.parts.store.begin(context.machine, generation) {
        // Removed by a run before this one.
        Ok(_) | Err(ReplicaError::NoMachine(_)) => {}
        Err(error) => return Err(error.into()),
    }
    context.outcome.machine_name = context
        .parameters
        .failover
        .as_ref()
        .map(|failover| failover.machine.name.clone());
    Ok(Done::Succeeded(format!(
        "Replication has ended; the source is refused from generation {generation} on, for good."
    )))
}

pub fn remove_points(context: &mut Context) -> Result<Done, Fault> {
    let Request::CompleteMigration { keep_points } = &context.parameters.request else {
        return Err(missing("what is to become of its recovery points").into());
    };
    let store = &context.parts.store;
    if keep_points.is_some() {
        let count = store.points(context.machine)?.len();
        context.outcome.kept_points = Some(count);
        return Ok(Done::Skipped(format!("{count} recovery points are kept.")));
    }
    let freed = match store.remove_machine(context.machine) {
        Ok(freed) => freed,
        Err(ReplicaError::NoMachine(_)) => context.outcome.freed_bytes.unwrap_or(0),
        Err(error) => return Err(error.into()),
    };
    context.outcome.freed_bytes = Some(freed);
    Ok(Done::Succeeded(format!(
        "The replica and its recovery points are removed: {freed} bytes freed."
    )))
}
