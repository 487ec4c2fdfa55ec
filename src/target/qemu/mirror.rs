//! The disks of a running machine copied to files of the host, and the files put in their place.
//!
//! ```text
//! guest ── device0 ── filter ─┬─ disk0      NBD: a branch, served by Lifeboat
//!                             └─ hydrated0  file; every write goes to both from the copy's begin on
//! ```
//! The copy is QEMU's own job (`blockdev-mirror`): it lives in QEMU, so a server that is killed finds it again, and a machine
//! that ends takes it along. At the pivot the guest is held for a moment: then both sides hold the same, and whoever writes
//! down which one counts cannot be wrong about it. Nodes and jobs are known by their names, so every verb can be repeated.
use super::process::Process;
use super::qmp::{Qmp, QmpError};
use super::{Machine, QemuCompute, command_line, lock, record, refused};
use crate::target::{DiskFile, DiskFormat, MachineSpec, MirrorStatus, TargetError};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// For one talk with the monitor.
const TALK_MAX: Duration = Duration::from_secs(30);
/// For what a copy still has to take when nobody writes any more: blocks in flight.
const SETTLE_MAX: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(10);

fn job_name(index: usize) -> String {
    format!("hydrate{index}")
}

fn node_name(index: usize) -> String {
    format!("hydrated{index}")
}

/// Largest file that QEMU may write for this machine: its disks, with what their format adds, and its log.
pub(super) fn file_bytes_max<'a>(files: impl Iterator<Item = &'a DiskFile>) -> u64 {
    let largest = files.map(|file| file.size_bytes).max().unwrap_or(0);
    (largest + largest / 64).saturating_add(super::process::FILE_BYTES_MAX)
}

/// A job of QEMU.
struct Job {
    state: String,
    done: u64,
    total: u64,
    error: Option<String>,
}

impl Job {
    fn is_over(&self) -> bool {
        matches!(self.state.as_str(), "concluded" | "aborting" | "null")
    }
}

/// One connection to the monitor, with the questions that copies need.
struct Talk<'a> {
    qmp: Qmp,
    spec: &'a MachineSpec,
}

impl Talk<'_> {
    fn error(&self, error: QmpError) -> TargetError {
        TargetError::NoAnswer {
            machine: self.spec.name.clone(),
            detail: error.to_string(),
        }
    }

    fn ask(&mut self, command: &str, arguments: Value) -> Result<Value, TargetError> {
        let answer = self.qmp.execute(command, arguments);
        answer.map_err(|error| match error {
            QmpError::Said(said) => refused(format!("{command} of {}: QEMU says: {said}", self.spec.name)),
            other => self.error(other),
        })
    }

    /// What may not be there, or not any more.
    fn try_ask(&mut self, command: &str, arguments: Value) -> Result<bool, TargetError> {
        match self.qmp.execute(command, arguments) {
            Ok(_) => Ok(true),
            Err(QmpError::Said(_)) => Ok(false),
            Err(other) => Err(self.error(other)),
        }
    }

    fn job(&mut self, name: &str) -> Result<Option<Job>, TargetError> {
        let jobs = self.ask("query-jobs", json!({}))?;
        let found = jobs
            .as_array()
            .into_iter()
            .flatten()
            .find(|job| job["id"] == *name);
        Ok(found.map(|job| Job {
            state: job["status"].as_str().unwrap_or_default().to_owned(),
            done: job["current-progress"].as_u64().unwrap_or(0),
            total: job["total-progress"].as_u64().unwrap_or(0),
            error: job["error"].as_str().map(|text| text.chars().take(500).collect()),
        }))
    }

    /// The node that a device of the guest uses, and its size.
    fn root(&mut self, index: usize) -> Result<(String, u64), TargetError> {
        let blocks = self.ask("query-block", json!({}))?;
        let device = format!("device{index}");
        let found = blocks.as_array().into_iter().flatten().find(|block| {
            let qdev = block["qdev"].as_str().unwrap_or_default();
            qdev.split('/').any(|part| part == device)
        });
        let inserted = found.map(|block| &block["inserted"]);
        let name = inserted.and_then(|inserted| inserted["node-name"].as_str());
        let size = inserted.and_then(|inserted| inserted["image"]["virtual-size"].as_u64());
        name.zip(size)
            .map(|(name, size)| (name.to_owned(), size))
            .ok_or_else(|| refused(format!("QEMU knows no disk {device} of {}", self.spec.name)))
    }

    /// Waits for a job's end and forgets it. The error is QEMU's.
    fn finish(&mut self, name: &str) -> Result<Result<(), String>, TargetError> {
        let end = Instant::now() + SETTLE_MAX;
        loop {
            match self.job(name)? {
                None => return Ok(Ok(())),
                Some(job) if job.state == "concluded" => {
                    self.try_ask("job-dismiss", json!({ "id": name }))?;
                    return Ok(job.error.map_or(Ok(()), Err));
                }
                Some(job) if Instant::now() > end => {
                    return Err(refused(format!(
                        "the job {name} of {} does not end: it is {}",
                        self.spec.name, job.state
                    )));
                }
                Some(_) => std::thread::sleep(LOOK),
            }
        }
    }

    fn remove_node(&mut self, name: &str) -> Result<(), TargetError> {
        self.try_ask("blockdev-del", json!({ "node-name": name }))
            .map(drop)
    }

    fn begin(&mut self, index: usize, file: &DiskFile) -> Result<(), TargetError> {
        let (node, target) = (node_name(index), job_name(index));
        // What an earlier attempt left.
        self.remove_node(&node)?;
        self.remove_node(&format!("{node}-file"))?;
        let (source, size) = self.root(index)?;
        if size != file.size_bytes {
            return Err(refused(format!(
                "the disk {index} of {} has {size} bytes and not {}",
                self.spec.name, file.size_bytes
            )));
        }
        let mut whole = command_line::file_node(file, &node);
        let below = whole["file"].take();
        whole["file"] = below["node-name"].clone();
        self.ask("blockdev-add", below.clone())?;
        if file.format == DiskFormat::Qcow2 {
            let create = format!("create{index}");
            self.ask(
                "blockdev-create",
                json!({ "job-id": create, "options": { "driver": "qcow2", "file": below["node-name"], "size": size } }),
            )?;
            if let Err(why) = self.finish(&create)? {
                return Err(refused(format!("{} cannot be made: {why}", file.path.display())));
            }
        }
        self.ask("blockdev-add", whole)?;
        self.ask(
            "blockdev-mirror",
            json!({
                "job-id": target, "device": source, "target": node, "sync": "full", "copy-mode": "write-blocking",
                "filter-node-name": format!("{node}-filter"), "auto-dismiss": false,
                // The machine is not held up by a destination that fails.
                "on-source-error": "report", "on-target-error": "report",
            }),
        )
        .map(drop)
    }

    /// Gives up a copy, wherever it is, with the device back on its first disk.
    fn take_back(&mut self, index: usize) -> Result<(), TargetError> {
        let (job, node, disk) = (job_name(index), node_name(index), format!("disk{index}"));
        if let Some(known) = self.job(&job)? {
            if !known.is_over() {
                self.try_ask("block-job-cancel", json!({ "device": job, "force": true }))?;
            }
            // Why it failed was said before.
            let _ = self.finish(&job)?;
        }
        if self.root(index)?.0 == node {
            // Nothing was written since the pivot: the machine is held. So there is nothing to copy.
            let back = format!("back{index}");
            self.ask(
                "blockdev-mirror",
                json!({ "job-id": back, "device": node, "target": disk, "sync": "none", "auto-dismiss": false }),
            )?;
            let end = Instant::now() + SETTLE_MAX;
            while self
                .job(&back)?
                .is_some_and(|job| job.state != "ready" && !job.is_over())
            {
                if Instant::now() > end {
                    return Err(refused(format!(
                        "the disk {index} of {} does not go back",
                        self.spec.name
                    )));
                }
                std::thread::sleep(LOOK);
            }
            self.ask("job-complete", json!({ "id": back }))?;
            if let Err(why) = self.finish(&back)? {
                return Err(refused(format!(
                    "the disk {index} of {} does not go back: {why}",
                    self.spec.name
                )));
            }
        }
        self.remove_node(&node)?;
        self.remove_node(&format!("{node}-file"))
    }
}

fn with_monitor<T>(
    machine: &Machine,
    spec: &MachineSpec,
    limit: Duration,
    talk: impl FnOnce(&mut Talk) -> Result<T, TargetError>,
) -> Result<T, TargetError> {
    let _one = lock(&machine.monitor);
    let qmp =
        Qmp::connect(&spec.folder, record::MONITOR_SOCKET, limit).map_err(|error| TargetError::NoAnswer {
            machine: spec.name.clone(),
            detail: error.to_string(),
        })?;
    talk(&mut Talk { qmp, spec })
}

impl QemuCompute {
    pub(super) fn begin_copies(&self, spec: &MachineSpec, files: &[DiskFile]) -> Result<(), TargetError> {
        if files.len() != spec.disks.len() {
            return Err(refused(format!("{} has another number of disks", spec.name)));
        }
        let machine = self.machine(spec);
        let _order = lock(&machine.order);
        self.bring_up(&machine, spec, true)?;
        let process = Self::find(spec)?.ok_or_else(|| TargetError::DidNotStart {
            machine: spec.name.clone(),
            detail: "it has ended again".to_owned(),
        })?;
        raise_limit(spec, &process, file_bytes_max(files.iter()))?;
        with_monitor(&machine, spec, TALK_MAX, |talk| {
            for (index, file) in files.iter().enumerate() {
                if talk.job(&job_name(index))?.is_none() && talk.root(index)?.0 != node_name(index) {
                    talk.begin(index, file)?;
                }
            }
            Ok(())
        })
    }

    pub(super) fn copies(&self, spec: &MachineSpec) -> Result<MirrorStatus, TargetError> {
        let mut status = MirrorStatus::default();
        if Self::find(spec)?.is_none() {
            status.absent = true;
            return Ok(status);
        }
        let machine = self.machine(spec);
        with_monitor(&machine, spec, TALK_MAX, |talk| {
            status.ready = true;
            for index in 0..spec.disks.len() {
                let Some(job) = talk.job(&job_name(index))? else {
                    status.absent = true;
                    continue;
                };
                status.done_bytes += job.done;
                status.total_bytes += job.total;
                status.ready &= job.state == "ready" || job.state == "concluded" && job.error.is_none();
                if job.is_over()
                    && let Some(why) = job.error
                {
                    status.failed.get_or_insert(why);
                }
            }
            status.ready &= !status.absent;
            Ok(status)
        })
    }

    pub(super) fn pivot(&self, spec: &MachineSpec) -> Result<(), TargetError> {
        let machine = self.machine(spec);
        let _order = lock(&machine.order);
        with_monitor(&machine, spec, SETTLE_MAX * 2, |talk| {
            // Also again, where a server before this one was killed right behind it.
            talk.ask("stop", json!({}))?;
            for index in 0..spec.disks.len() {
                if talk
                    .job(&job_name(index))?
                    .is_some_and(|job| job.state == "ready")
                {
                    talk.ask("job-complete", json!({ "id": job_name(index) }))?;
                }
            }
            for index in 0..spec.disks.len() {
                if let Err(why) = talk.finish(&job_name(index))? {
                    return Err(refused(format!("the copy of the disk {index} failed: {why}")));
                }
                if talk.root(index)?.0 != node_name(index) {
                    return Err(refused(format!(
                        "the disk {index} of {} was not put in place of the one before",
                        spec.name
                    )));
                }
            }
            Ok(())
        })
    }

    pub(super) fn end_copies(&self, spec: &MachineSpec, keep: bool) -> Result<(), TargetError> {
        let machine = self.machine(spec);
        let _order = lock(&machine.order);
        let Some(process) = Self::find(spec)? else {
            return Ok(());
        };
        let held = with_monitor(&machine, spec, SETTLE_MAX * 2, |talk| {
            // It was brought up for the copy only.
            let held = talk.ask("query-status", json!({}))?["status"] == "prelaunch";
            if keep {
                if !held {
                    talk.ask("cont", json!({}))?;
                }
                // Else it would wait for its server for ever.
                for index in 0..spec.disks.len() {
                    talk.remove_node(&format!("disk{index}"))?;
                }
                return Ok(held);
            }
            for index in 0..spec.disks.len() {
                talk.take_back(index)?;
            }
            if !held {
                talk.ask("cont", json!({}))?;
            }
            Ok(held)
        })?;
        if held {
            Self::end(&machine, spec, &process)?;
        }
        Ok(())
    }
}

/// A machine is started with a limit that is right for one whose disks are elsewhere.
fn raise_limit(spec: &MachineSpec, process: &Process, bytes: u64) -> Result<(), TargetError> {
    process
        .raise_file_limit(bytes)
        .map_err(|source| TargetError::NoAnswer {
            machine: spec.name.clone(),
            detail: format!(
                "its limit of the size of a file cannot be raised: {source}; start it again first"
            ),
        })
}
