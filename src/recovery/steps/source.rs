//! Steps that deal with the source site.
use super::{Context, Done, Fault, missing};
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
    // On a thread of its own, so that a cancel does not wait for a source that hangs. It ends with its limit.
    let (sender, receiver) = sync_channel(1);
    std::thread::Builder::new()
        .name("last-sync".into())
        .spawn(move || {
            let _ = sender.send(source.last_sync(machine, limit));
        })
        .map_err(|error| no_thread(&error))?;
    loop {
        match receiver.recv_timeout(LOOK) {
            Ok(Ok(())) => return Ok(Done::Succeeded("What was pending at the source is here.".into())),
            Ok(Err(why)) => {
                return Ok(Done::Skipped(format!(
                    "The source did not ship what is pending ({why}); the newest point at the target is taken."
                )));
            }
            Err(RecvTimeoutError::Timeout) if (context.interrupted)() => return Err(Fault::Interrupted),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Ok(Done::Skipped(
                    "The last synchronization broke off; the newest point at the target is taken.".into(),
                ));
            }
        }
    }
}

fn no_thread(error: &std::io::Error) -> JobError {
    crate::recovery::error::failure(
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
