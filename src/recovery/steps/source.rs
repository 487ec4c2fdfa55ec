//! Steps that deal with the source site.
use super::{Context, Done, Fault, missing};
use crate::recovery::error::failure;
use crate::recovery::job::JobError;
use crate::recovery::request::{PointChoice, Request};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

/// How soon a wait notices that the job is to be cancelled.
const LOOK: Duration = Duration::from_millis(50);

/// Ships what is pending at the source. A source that does not answer is no failure: it is why people fail over.
pub fn last_sync(context: &mut Context) -> Result<Done, Fault> {
    let wanted = match &context.parameters.request {
        Request::UnplannedFailover { last_sync, .. } => *last_sync,
        request => request.point() == Some(PointChoice::Latest),
    };
    if !wanted {
        return Ok(Done::Skipped("Not asked for.".into()));
    }
    if context.parameters.source_is_fenced {
        return Ok(Done::Skipped(
            "The source was fenced by an earlier attempt; what it has not shipped stays there.".into(),
        ));
    }
    if let Some(job) = context.parameters.active {
        // The machine runs at the target: what it wrote until now becomes a point.
        return Ok(match context.disks.seal_now(job, context.limits.last_sync) {
            Ok(_) => Done::Succeeded("What the machine wrote until now is in a recovery point.".into()),
            Err(why) => Done::Skipped(format!("No point was made ({why}); the newest one is taken.")),
        });
    }
    if !context.parts.source.is_connected(context.machine) {
        return Ok(Done::Skipped(
            "The source does not answer; the newest point at the target is taken.".into(),
        ));
    }
    let (source, machine, limit) = (
        context.parts.source.clone(),
        context.machine,
        context.limits.last_sync,
    );
    let synced = beside(context, "last-sync", move || source.last_sync(machine, limit))?;
    Ok(match synced {
        Ok(()) => Done::Succeeded("What was pending at the source is here.".into()),
        Err(why) => Done::Skipped(format!(
            "The source did not ship what is pending ({why}); the newest point at the target is taken."
        )),
    })
}

/// Asks the source on a thread of its own, so that a cancel does not wait for one that hangs. It ends with its limit.
fn beside<T: Send + 'static>(
    context: &Context,
    name: &str,
    ask: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<Result<T, String>, Fault> {
    let (sender, receiver) = sync_channel(1);
    std::thread::Builder::new()
        .name(name.into())
        .spawn(move || {
            let _ = sender.send(ask());
        })
        .map_err(|error| no_thread(&error))?;
    loop {
        match receiver.recv_timeout(LOOK) {
            Ok(answer) => return Ok(answer),
            Err(RecvTimeoutError::Timeout) if (context.interrupted)() => return Err(Fault::Interrupted),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(Err("it broke off".to_owned())),
        }
    }
}

/// Nothing is lost by a planned failover, or it does not happen: without the source's word there is no going on.
pub fn halt(context: &mut Context) -> Result<Done, Fault> {
    if context.parameters.source_is_fenced {
        return Ok(Done::Skipped(
            "The source was fenced by an earlier attempt; the newest point at the target is taken.".into(),
        ));
    }
    let (source, machine, id, limit) = (
        context.parts.source.clone(),
        context.machine,
        context.id,
        context.limits.halt,
    );
    let halted = beside(context, "stop-source", move || source.halt(machine, id, limit))?;
    let point = halted.map_err(|why| {
        failure(
            "SourceNotStopped",
            format!("The source could not be brought to rest: {why}."),
            "The agent is stopped or cut off, a hook that stops the workload failed, or the link is too slow for what is pending.",
            "See the agent's troubles with the machine; run the planned failover again, or an unplanned one, which does not wait for the source.",
        )
    })?;
    context.outcome.final_point = Some(point);
    Ok(Done::Succeeded(format!(
        "The source is at rest; recovery point {point} holds all that it wrote."
    )))
}

/// A source that was restarted between its last point and the fence may have written in between. It is asked, so that
/// nothing is called lossless that may not be; the machine at the target runs meanwhile.
pub fn confirm_rest(context: &mut Context) -> Result<Done, Fault> {
    let Some(point) = context.outcome.final_point else {
        return Ok(Done::Skipped(
            "The source was fenced by an earlier attempt.".into(),
        ));
    };
    let (source, machine, id, limit) = (
        context.parts.source.clone(),
        context.machine,
        context.id,
        context.limits.confirm_rest,
    );
    let stayed = beside(context, "confirm-rest", move || {
        Ok(source.stayed_at_rest(machine, id, point, limit))
    })?
    .unwrap_or(false);
    context.outcome.stayed_at_rest = Some(stayed);
    Ok(Done::Succeeded(if stayed {
        "The source stayed at rest until it was fenced: nothing is lost.".into()
    } else {
        format!(
            "The source did not confirm that it stayed at rest. What it wrote after recovery point {point}, if anything, is there and not here."
        )
    }))
}

/// The new generation, which began with this step, tells the agent to compare everything: the target wrote to the line.
pub fn release(context: &mut Context) -> Result<Done, Fault> {
    fence(context)?;
    Ok(Done::Succeeded(
        "The source may go on; its disks are compared with the replica as a whole.".into(),
    ))
}

fn no_thread(error: &std::io::Error) -> JobError {
    failure(
        "NoThread",
        format!("No thread can be started: {error}."),
        "The server has reached its limit of threads or of memory.",
        "Raise the limit or wait until less runs, then try again.",
    )
}

/// The item's generation was raised in the journal when this step began. Now everybody learns of it; the store last, and
/// durably: once it has begun a newer generation, no older writer can seal a point or get an acknowledgement.
pub fn fence(context: &mut Context) -> Result<Done, Fault> {
    let generation = context
        .outcome
        .generation
        .ok_or_else(|| missing("the generation that fences"))?;
    context.parts.source.fence(context.machine, generation);
    context.parts.store.begin(context.machine, generation)?;
    Ok(Done::Succeeded(format!(
        "The source is refused from generation {generation} on."
    )))
}
