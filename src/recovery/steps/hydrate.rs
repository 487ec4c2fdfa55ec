//! Steps that make a machine at the target live on files of its own, in place of branches that Lifeboat serves.
//!
//! ```text
//! <folder>/<name at the target>/
//!   machine.json     whose files these are: the job, and the machine as it is started from them. Written first
//!   disk0.raw        a disk; not whole before the job's record says that the machine lives on it
//! ```
//! Up to the pivot the branches are the machine's disks, and a failure or a cancel removes the files. At the pivot the machine
//! is held, both hold the same, and the item's record is changed before it runs on: whichever the record names is right,
//! wherever the server or the host dies.
use super::{Context, Done, Fault, missing};
use crate::recovery::error::failure;
use crate::recovery::job::JobError;
use crate::recovery::state::Failover;
use crate::recovery::{JobId, Refusal};
use crate::rt::now_unix_nanos;
use crate::target::{DiskFile, DiskFormat, MachineSpec, Power};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

const MARK: &str = "machine.json";
const MARK_BYTES_MAX: u64 = 1 << 20;
const PATH_BYTES_MAX: usize = 1024;
/// How soon a person sees how far it is, and how soon a cancel is noticed.
const LOOK: Duration = Duration::from_millis(100);
const TELL_EVERY: Duration = Duration::from_secs(1);
/// For a hypervisor that does not answer at the very moment in which the machine is to run on.
const RUN_ON: Duration = Duration::from_secs(60);
/// Less is not worth beginning.
const FREE_BYTES_MIN: u64 = 64 << 20;
const MIB: u64 = 1 << 20;

/// What is in the folder of a hydrated machine: enough to know whose it is, and to start it by hand.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mark {
    hydrate_job: JobId,
    machine: MachineSpec,
}

/// Whether files of a machine may be made there. `vms`: the folder of running machines in the server's data folder.
pub fn check_folder(folder: &Path, vms: &Path) -> Result<(), Refusal> {
    let plain = folder
        .components()
        .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let text = folder.to_str().unwrap_or_default();
    if !folder.is_absolute() || !plain || text.is_empty() || text.len() > PATH_BYTES_MAX {
        return Err(Refusal::new(
            "NotAFolder",
            format!("{} is not the full path of a folder.", folder.display()),
            "It is relative, goes over `..`, or is longer than 1024 bytes.",
            "Give the full path of a folder on the server's host, such as /srv/machines.",
        ));
    }
    if vms.parent().is_some_and(|data| folder.starts_with(data)) {
        return Err(Refusal::new(
            "InsideDataFolder",
            format!("{} lies in the server's own data folder.", folder.display()),
            "What is in there belongs to the server, and a hydrated machine is to be independent of it.",
            "Give a folder outside of it.",
        ));
    }
    Ok(())
}

fn failover<'a>(context: &Context<'a>) -> Result<&'a Failover, JobError> {
    let failover = context.parameters.failover.as_ref();
    failover.ok_or_else(|| missing("the machine at the target"))
}

/// The machine's own folder, in the one that was named.
fn own_folder<'a>(context: &Context<'a>) -> Result<&'a Path, JobError> {
    let first = context.parameters.files.first();
    first
        .and_then(|file| file.path.parent())
        .ok_or_else(|| missing("the files that its disks become"))
}

fn destination_failed(path: &Path, error: &io::Error) -> JobError {
    if matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    ) {
        return full(path, &error.to_string());
    }
    failure(
        "DestinationFailed",
        format!("{}: {error}.", path.display()),
        "The folder is missing, may not be written to, or its file system takes no files of this size.",
        "Make the folder or mend its file system, then hydrate the machine again; it runs on as before.",
    )
}

fn full(path: &Path, said: &str) -> JobError {
    failure(
        "DestinationFull",
        format!("{} has no room for the machine's disks: {said}.", path.display()),
        "The file system holds less than the disks, or something else filled it meanwhile.",
        "Make room or name another folder, then hydrate the machine again; it runs on as before.",
    )
}

fn mark_of(folder: &Path) -> io::Result<Option<Mark>> {
    let path = folder.join(MARK);
    match std::fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => {
            if found?.len() > MARK_BYTES_MAX {
                return Ok(None);
            }
        }
    }
    Ok(serde_json::from_slice(&std::fs::read(path)?).ok())
}

/// The mark while it is being written. It names the job: a server that was killed here finds that the folder is its own.
fn unfinished(folder: &Path, job: JobId) -> PathBuf {
    folder.join(format!("{MARK}.{job}.new"))
}

/// Nothing is in it but what this job may have left there.
fn is_free(folder: &Path, job: JobId) -> io::Result<bool> {
    let own = unfinished(folder, job);
    for entry in std::fs::read_dir(folder)? {
        if entry?.path() != own {
            return Ok(false);
        }
    }
    Ok(true)
}

fn write_mark(context: &Context, folder: &Path) -> io::Result<()> {
    let machine = context.parameters.hydrated().map(|failover| failover.machine);
    let mark = Mark {
        hydrate_job: context.id,
        machine: machine.ok_or(io::ErrorKind::InvalidData)?,
    };
    let unfinished = unfinished(folder, context.id);
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)?;
    file.write_all(&serde_json::to_vec_pretty(&mark)?)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, folder.join(MARK))?;
    File::open(folder)?.sync_all()
}

pub fn check_destination(context: &mut Context) -> Result<Done, Fault> {
    let folder = own_folder(context)?;
    let outer = folder.parent().unwrap_or(folder);
    let failed = |error: io::Error| destination_failed(outer, &error);
    let free = rustix::fs::statvfs(outer).map_err(|error| failed(error.into()))?;
    let free = free.f_bavail.saturating_mul(free.f_frsize);
    if free < FREE_BYTES_MIN {
        return Err(full(outer, &format!("{} MiB are free", free / MIB)).into());
    }
    let made = std::fs::DirBuilder::new().mode(0o700).create(folder);
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let ours = mark_of(folder)
                .map_err(failed)?
                .is_some_and(|mark| mark.hydrate_job == context.id);
            if !ours && !is_free(folder, context.id).map_err(failed)? {
                return Err(failure(
                    "DestinationTaken",
                    format!("{} is there already, with files in it.", folder.display()),
                    "A machine of this name was hydrated to it before, or somebody else uses it.",
                    "Name another folder, or move what is in it away.",
                )
                .into());
            }
        }
        other => other.map_err(|error| destination_failed(folder, &error))?,
    }
    write_mark(context, folder).map_err(|error| destination_failed(folder, &error))?;
    File::open(outer)
        .and_then(|outer| outer.sync_all())
        .map_err(failed)?;
    let total: u64 = context.parameters.files.iter().map(|file| file.size_bytes).sum();
    context.outcome.total_bytes = Some(total);
    context.outcome.folder = Some(folder.to_owned());
    let thin = if free < total {
        " They cannot grow to their full size there: the machine stops when there is no room."
    } else {
        ""
    };
    Ok(Done::Succeeded(format!(
        "{}: {} MiB free, for disks of {} MiB.{thin}",
        folder.display(),
        free / MIB,
        total / MIB
    )))
}

/// Whether the item's record names the files already: then they are the machine's disks.
fn is_on_files(context: &Context) -> Result<bool, JobError> {
    let item = context.parts.journal.item(context.machine).map_err(|error| {
        failure(
            "JournalFailed",
            format!("The item cannot be read: {error}."),
            "The disk of the server is full or damaged.",
            "Make room on the server's data folder.",
        )
    })?;
    Ok(item.is_hydrated())
}

/// The undo of the check: what the job made at the destination goes, and nothing else.
pub fn remove_files(context: &mut Context) -> Result<(), JobError> {
    if is_on_files(context)? {
        return Ok(());
    }
    let folder = own_folder(context)?;
    let failed = |error: io::Error| destination_failed(folder, &error);
    let ours = mark_of(folder)
        .map_err(failed)?
        .is_some_and(|mark| mark.hydrate_job == context.id);
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    if ours {
        for file in &context.parameters.files {
            gone(std::fs::remove_file(&file.path)).map_err(failed)?;
        }
        gone(std::fs::remove_file(folder.join(MARK))).map_err(failed)?;
    }
    match is_free(folder, context.id) {
        Ok(true) => {
            gone(std::fs::remove_file(unfinished(folder, context.id))).map_err(failed)?;
            gone(std::fs::remove_dir(folder)).map_err(failed)
        }
        // Somebody else's, or removed by an undo before this one.
        other => gone(other.map(drop)).map_err(failed),
    }
}

/// The undo of the copy, and of a pivot that failed: the machine runs on from its branches.
pub fn end_copies(context: &mut Context) -> Result<(), JobError> {
    if is_on_files(context)? {
        return Ok(());
    }
    context
        .parts
        .compute
        .mirror_end(&failover(context)?.machine, false)?;
    Ok(())
}

/// Empty, of the right size.
fn make_file(file: &DiskFile) -> io::Result<()> {
    let made = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&file.path)?;
    if file.format == DiskFormat::Raw {
        made.set_len(file.size_bytes)?;
    }
    Ok(())
}

fn copy_failed(context: &Context, why: &str) -> Fault {
    let Ok(folder) = own_folder(context) else {
        return missing("the files that its disks become").into();
    };
    let lower = why.to_lowercase();
    if lower.contains("no space") || lower.contains("quota") {
        return full(folder, why).into();
    }
    failure(
        "CopyFailed",
        format!("The disks could not be copied to {}: {why}.", folder.display()),
        "The disk at the destination failed, or the replica store is damaged.",
        "See the server's log and its disks, then hydrate the machine again; it runs on as before.",
    )
    .into()
}

fn progress(done: u64, total: u64, eta: Option<u64>) -> String {
    let percent = (done * 100).checked_div(total).unwrap_or(0);
    let left = eta
        .map(|seconds| format!(", about {seconds} s left"))
        .unwrap_or_default();
    format!("{percent} % ({} of {} MiB{left})", done / MIB, total / MIB)
}

/// Until every copy holds what is written. One that is under way is gone on with, one that is gone begun anew.
fn copy(context: &mut Context) -> Result<(), Fault> {
    let spec = &failover(context)?.machine;
    let compute = &context.parts.compute;
    let (mut first, mut told) = (None::<(Instant, u64)>, None::<Instant>);
    loop {
        let status = compute.mirror_status(spec)?;
        if (context.interrupted)() {
            return Err(Fault::Interrupted);
        }
        if let Some(why) = status.failed {
            return Err(copy_failed(context, &why));
        }
        if status.ready {
            context.outcome.copied_bytes = Some(status.done_bytes);
            context.outcome.eta_seconds = None;
            return Ok(());
        }
        if status.absent {
            // What is left of an earlier attempt holds the files open.
            compute.mirror_end(spec, false)?;
            for file in &context.parameters.files {
                make_file(file).map_err(|error| destination_failed(&file.path, &error))?;
            }
            compute.mirror(spec, &context.parameters.files)?;
            first = None;
            continue;
        }
        let now = Instant::now();
        let (began, before) = *first.get_or_insert((now, status.done_bytes));
        if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            let rate =
                status.done_bytes.saturating_sub(before) as f64 / began.elapsed().as_secs_f64().max(0.001);
            let left = status.total_bytes.saturating_sub(status.done_bytes);
            let eta = (rate > 0.0).then(|| (left as f64 / rate).min(1e9).ceil() as u64);
            context.outcome.copied_bytes = Some(status.done_bytes);
            context.outcome.total_bytes = Some(status.total_bytes);
            context.outcome.eta_seconds = eta;
            (context.tell)(
                &progress(status.done_bytes, status.total_bytes, eta),
                context.outcome,
            );
            told = Some(now);
        }
        std::thread::sleep(LOOK);
    }
}

pub fn copy_disks(context: &mut Context) -> Result<Done, Fault> {
    let began = Instant::now();
    copy(context)?;
    Ok(Done::Succeeded(format!(
        "{} MiB copied in {:.1} s; the machine ran on, and the copies follow it.",
        context.outcome.copied_bytes.unwrap_or(0) / MIB,
        began.elapsed().as_secs_f64()
    )))
}

fn is_up(context: &Context, spec: &MachineSpec) -> Result<bool, JobError> {
    let status = context.parts.compute.status(spec)?;
    Ok(matches!(status.power, Power::Running | Power::Paused))
}

/// The machine may have stopped since the copy was whole, and its copy with it: then it is made again, of one that is held.
pub fn pivot_disks(context: &mut Context) -> Result<Done, Fault> {
    let spec = &failover(context)?.machine;
    let status = context.parts.compute.mirror_status(spec)?;
    if !is_up(context, spec)? || !status.ready && !status.absent {
        copy(context)?;
    }
    context
        .outcome
        .held_since_unix_nanos
        .get_or_insert(now_unix_nanos());
    context.parts.compute.mirror_pivot(spec)?;
    let folder = own_folder(context)?;
    for file in &context.parameters.files {
        File::open(&file.path)
            .and_then(|file| file.sync_all())
            .map_err(|error| destination_failed(&file.path, &error))?;
    }
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| destination_failed(folder, &error))?;
    Ok(Done::Succeeded(
        "The files hold all that was written, and are the machine's disks.".into(),
    ))
}

pub fn release_branches(context: &mut Context) -> Result<Done, Fault> {
    let failover = failover(context)?;
    let hydrated = context
        .parameters
        .hydrated()
        .ok_or_else(|| missing("the machine at the target"))?;
    let end = Instant::now() + RUN_ON;
    while let Err(error) = context.parts.compute.mirror_end(&hydrated.machine, true) {
        if Instant::now() > end {
            return Err(error.into());
        }
        tracing::warn!(machine = %hydrated.machine.name, %error, "a hydrated machine does not run on yet; asked again");
        std::thread::sleep(LOOK);
    }
    if let Some(since) = context.outcome.held_since_unix_nanos.take() {
        context.outcome.held_ms = Some(super::millis_since(since, now_unix_nanos()));
    }
    context.outcome.machine_name = Some(hydrated.machine.name.clone());
    let mut words = if is_up(context, &hydrated.machine)? {
        format!("{} runs on from its files.", hydrated.machine.name)
    } else {
        format!("{} is stopped, and starts from its files.", hydrated.machine.name)
    };
    // The branches are as they were at the pivot. What cannot be done here is said: the machine needs none of it.
    match context.disks.seal_now(failover.job, context.limits.halt) {
        Ok(point) => words += &format!(" The last recovery point made of it is {point}."),
        Err(why) => words += &format!(" No last recovery point was made of it: {why}."),
    }
    match context.disks.discard_branches(failover.job) {
        Ok(bytes) => {
            context.outcome.freed_bytes = Some(bytes);
            words += &format!(" {} MiB of branches are freed.", bytes / MIB);
        }
        Err(error) => words += &format!(" Its branches were not removed: {}", error.message),
    }
    if let Err(error) = super::stop::unpin(context, failover.job) {
        words += &format!(" Its recovery point is still held: {}", error.message);
    }
    Ok(Done::Succeeded(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_free_for_the_job_that_was_killed_while_it_took_it() {
        let folder = tempfile::tempdir().unwrap();
        let (own, other) = (JobId::new(), JobId::new());
        assert!(is_free(folder.path(), own).unwrap());
        std::fs::write(unfinished(folder.path(), own), "{").unwrap();
        assert!(is_free(folder.path(), own).unwrap());
        assert!(!is_free(folder.path(), other).unwrap());
        std::fs::write(folder.path().join("disk0.raw"), "precious").unwrap();
        assert!(!is_free(folder.path(), own).unwrap());
    }
}
