//! Recovery with a real store, real branches and real NBD servers. Only two things are made up: a journal in memory that
//! can be cut off at any record, and a hypervisor that fails where it is told to; its machines really read their disks.
mod crashes;
mod faults;
mod hydrate;
mod lifecycle;
mod line;
mod qemu;
mod stories;

use super::job::*;
use super::plan::{PlanJournal, PlanRun};
use super::runner::Limits;
use super::*;
use crate::block::{BLOCK_BYTES, Consistency, DiskId, FrameBuilder, MachineId, PointId};
use crate::replica::{DiskSpec, Fault, PointSpec, Storage, Store, VaultKey};
use crate::rt::{Fact, Report, now_unix_nanos};
use crate::target::*;
use crate::wire::facts::Firmware;
use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

pub const LIMIT: Duration = Duration::from_secs(30);
const DISK_BYTES: u64 = 1 << 20;

pub fn item() -> Item {
    let nic = |name: &str| Nic {
        mac: None,
        network: Network::isolated(name),
        address: None,
    };
    Item {
        machine: MachineId::new(),
        name: "web1".into(),
        revision: 0,
        protection: ProtectionState::Protected,
        test_failover_state: TestFailoverState::None,
        active_location: ActiveLocation::Primary,
        generation: 1,
        disks: vec![DiskId::new(), DiskId::new()],
        target: TargetSettings {
            name: "web1-asr".into(),
            cpus: 1,
            memory_bytes: 1 << 28,
            firmware: Firmware::Bios,
            disk_bus: DiskBus::VirtioBlk,
            nics: vec![nic("production")],
            test_nics: vec![nic("test")],
        },
        test_failover: None,
        failover: None,
        last_successful_test_unix_nanos: None,
        reprotect: None,
        line: 0,
        kept_points: None,
    }
}

/// A failover that left a machine.
pub fn started() -> Failover {
    Failover {
        job: JobId::new(),
        point: PointId::new(),
        point_instant_unix_nanos: 0,
        started_unix_nanos: 0,
        machine: MachineSpec {
            name: "web1-asr".into(),
            folder: PathBuf::from("/nowhere"),
            cpus: 1,
            memory_bytes: 1 << 28,
            firmware: Firmware::Bios,
            disk_bus: DiskBus::VirtioBlk,
            disks: Vec::new(),
            nics: Vec::new(),
        },
    }
}

/// Where a journal dies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cut {
    /// The record is lost: what was done before it, is done.
    Before,
    /// The record is kept, nothing after it happens.
    After,
}

type Hook = Box<dyn Fn(&Job) + Send>;

#[derive(Default)]
struct Kept {
    items: HashMap<MachineId, Item>,
    jobs: BTreeMap<JobId, Job>,
    runs: BTreeMap<JobId, PlanRun>,
    run_records: usize,
    run_cut: Option<(usize, Cut)>,
    reprotect_trouble: Option<RecoveryError>,
    records: usize,
    cut: Option<(usize, Cut)>,
    dead: bool,
    /// Called before a record is kept.
    hook: Option<Hook>,
}

#[derive(Default)]
pub struct Memory {
    kept: Mutex<Kept>,
    died: Condvar,
}

fn dead() -> JournalError {
    JournalError::Database("the test cut the journal off".into())
}

impl Memory {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap()
    }

    fn alive(&self) -> Result<MutexGuard<'_, Kept>, JournalError> {
        let kept = self.kept();
        if kept.dead { Err(dead()) } else { Ok(kept) }
    }

    /// Dies at the `record`-th record from now on, the first being 1.
    pub fn cut(&self, record: usize, cut: Cut) {
        let mut kept = self.kept();
        kept.cut = Some((kept.records + record, cut));
    }

    pub fn heal(&self) {
        let mut kept = self.kept();
        kept.dead = false;
        kept.cut = None;
        kept.run_cut = None;
    }

    /// As `cut`, of the records of plans' runs.
    pub fn cut_run(&self, record: usize, cut: Cut) {
        let mut kept = self.kept();
        kept.run_cut = Some((kept.run_records + record, cut));
    }

    /// Jobs of a kind that were ever made for a machine.
    pub fn jobs_of(&self, machine: MachineId, kind: JobKind) -> usize {
        let kept = self.kept();
        kept.jobs
            .values()
            .filter(|job| job.machine == machine && job.kind == kind)
            .count()
    }

    pub fn add(&self, item: Item) {
        self.kept().items.insert(item.machine, item);
    }

    /// The next reprotect is refused.
    pub fn refuse_reprotect(&self, trouble: RecoveryError) {
        self.kept().reprotect_trouble = Some(trouble);
    }

    pub fn is_dead(&self) -> bool {
        self.kept().dead
    }

    pub fn hook(&self, hook: impl Fn(&Job) + Send + 'static) {
        self.kept().hook = Some(Box::new(hook));
    }

    pub fn change(&self, machine: MachineId, change: impl FnOnce(&mut Item)) {
        let mut kept = self.kept();
        let item = kept.items.get_mut(&machine).unwrap();
        change(item);
        item.revision += 1;
    }

    pub fn put(&self, job: Job) {
        self.kept().jobs.insert(job.id, job);
    }

    pub fn remove(&self, machine: MachineId) {
        self.kept().items.remove(&machine);
    }
}

impl Journal for Memory {
    fn item(&self, machine: MachineId) -> Result<Item, JournalError> {
        let kept = self.alive()?;
        kept.items
            .get(&machine)
            .cloned()
            .ok_or(JournalError::NoItem(machine))
    }

    fn items(&self) -> Result<Vec<Item>, JournalError> {
        Ok(self.alive()?.items.values().cloned().collect())
    }

    fn job(&self, job: JobId) -> Result<Job, JournalError> {
        self.alive()?
            .jobs
            .get(&job)
            .cloned()
            .ok_or(JournalError::NoJob(job))
    }

    fn open_jobs(&self) -> Result<Vec<Job>, JournalError> {
        let kept = self.alive()?;
        Ok(kept
            .jobs
            .values()
            .filter(|job| !job.state.is_over())
            .cloned()
            .collect())
    }

    fn record(&self, job: &Job, item: Option<&Item>) -> Result<(), JournalError> {
        let hook = self.alive()?.hook.take();
        if let Some(hook) = hook {
            hook(job);
            self.kept().hook = Some(hook);
        }
        let mut kept = self.alive()?;
        kept.records += 1;
        let cut = kept.cut.filter(|(at, _)| *at == kept.records);
        kept.dead = cut.is_some();
        if kept.dead {
            self.died.notify_all();
        }
        if cut.is_some_and(|(_, cut)| cut == Cut::Before) {
            return Err(dead());
        }
        // A job that is over stays over.
        let over = kept.jobs.get(&job.id).map(|known| known.state);
        if over.is_some_and(|state| state.is_over() && state != job.state) {
            return Err(JournalError::Conflict);
        }
        if let Some(item) = item {
            let stored = kept
                .items
                .get_mut(&item.machine)
                .ok_or(JournalError::NoItem(item.machine))?;
            if stored.revision != item.revision {
                return Err(JournalError::Conflict);
            }
            *stored = item.clone();
            stored.revision += 1;
        }
        kept.jobs.insert(job.id, job.clone());
        if cut.is_some() { Err(dead()) } else { Ok(()) }
    }
}

impl PlanJournal for Memory {
    fn plan_run(&self, run: JobId) -> Result<PlanRun, JournalError> {
        self.alive()?
            .runs
            .get(&run)
            .cloned()
            .ok_or(JournalError::NoJob(run))
    }

    fn open_plan_runs(&self) -> Result<Vec<PlanRun>, JournalError> {
        let kept = self.alive()?;
        Ok(kept
            .runs
            .values()
            .filter(|run| !run.state.is_over())
            .cloned()
            .collect())
    }

    fn record_plan_run(&self, run: &PlanRun) -> Result<(), JournalError> {
        let mut kept = self.alive()?;
        kept.run_records += 1;
        let cut = kept.run_cut.filter(|(at, _)| *at == kept.run_records);
        kept.dead = cut.is_some();
        if kept.dead {
            self.died.notify_all();
        }
        if cut.is_some_and(|(_, cut)| cut == Cut::Before) {
            return Err(dead());
        }
        let known = kept.runs.get(&run.id);
        if known.is_some_and(|known| known.revision != run.revision || known.state.is_over()) {
            return Err(JournalError::Conflict);
        }
        let mut stored = run.clone();
        stored.revision += 1;
        kept.runs.insert(run.id, stored);
        if cut.is_some() { Err(dead()) } else { Ok(()) }
    }

    /// As the vault takes it, and its receiver holds the disks at once.
    fn reprotect(&self, id: JobId, machine: MachineId, user: &str) -> Result<(), RecoveryError> {
        let mut kept = self.alive()?;
        if let Some(trouble) = kept.reprotect_trouble.take() {
            return Err(trouble);
        }
        let item = kept
            .items
            .get_mut(&machine)
            .ok_or(JournalError::NoItem(machine))?;
        item.reprotect = match item.active_location {
            ActiveLocation::Recovery => Some(Reprotect {
                receiver: machine,
                final_point: None,
            }),
            ActiveLocation::Primary => None,
        };
        if item.reprotect.is_none() {
            item.generation += 1;
            item.line += 1;
        }
        item.protection = ProtectionState::Protected;
        item.revision += 1;
        let now = Some(now_unix_nanos());
        let job = Job {
            id,
            kind: JobKind::Reprotect,
            machine,
            state: JobState::Succeeded,
            user: user.to_owned(),
            created_unix_nanos: now_unix_nanos(),
            started_unix_nanos: now,
            ended_unix_nanos: now,
            tasks: Vec::new(),
            parameters: serde_json::json!({}),
            result: serde_json::json!({}),
            error: None,
            restart_of: None,
        };
        kept.jobs.insert(id, job);
        Ok(())
    }

    fn cancel_reprotect(&self, job: JobId) -> Result<(), RecoveryError> {
        Err(JournalError::NoJob(job).into())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    Check,
    Prepare,
    Start,
    Stop,
    Destroy,
    Status,
    Mirror,
    Pivot,
    MirrorEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    Fails,
    Panics,
    /// Until it is taken back.
    Hangs,
    /// `Start` only: it starts and stops by itself.
    Dies,
}

#[derive(Default)]
struct Machines {
    /// Running or not, and what the first block of each disk was at the start.
    known: HashMap<String, (MachineSpec, bool, Vec<u8>)>,
    troubles: HashMap<Verb, Trouble>,
    calls: Vec<Verb>,
    copies: HashMap<String, Copies>,
}

/// Copies under way of a machine of the table.
struct Copies {
    files: Vec<DiskFile>,
    pivoted: bool,
    /// It was brought up for them.
    held: bool,
}

/// A hypervisor whose machines are entries in a table. As with the real one, they outlive the runner.
#[derive(Default)]
pub struct Fake {
    machines: Mutex<Machines>,
    changed: Condvar,
}

impl Fake {
    fn lock(&self) -> MutexGuard<'_, Machines> {
        self.machines.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub fn trouble(&self, verb: Verb, trouble: Option<Trouble>) {
        let mut machines = self.lock();
        match trouble {
            Some(trouble) => machines.troubles.insert(verb, trouble),
            None => machines.troubles.remove(&verb),
        };
        self.changed.notify_all();
    }

    /// Waits until a verb was called that often.
    pub fn called(&self, verb: Verb, count: usize) {
        let deadline = Instant::now() + LIMIT;
        let mut machines = self.lock();
        while machines.calls.iter().filter(|call| **call == verb).count() < count {
            assert!(Instant::now() < deadline, "{verb:?} was not called");
            machines = self
                .changed
                .wait_timeout(machines, Duration::from_millis(50))
                .unwrap()
                .0;
        }
    }

    pub fn count(&self, verb: Verb) -> usize {
        self.lock().calls.iter().filter(|call| **call == verb).count()
    }

    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.lock().known.keys().cloned().collect();
        names.sort();
        names
    }

    /// First bytes of the disks as the machine found them.
    pub fn saw(&self, name: &str) -> Vec<u8> {
        self.lock().known[name].2.clone()
    }

    /// Its power goes, and with it the copies of its disks.
    pub fn kill(&self, name: &str) {
        let mut machines = self.lock();
        machines.known.get_mut(name).unwrap().1 = false;
        machines.copies.remove(name);
    }

    /// The disks that a machine uses.
    pub fn disks_of(&self, name: &str) -> Vec<DiskAttachment> {
        self.lock().known[name].0.disks.clone()
    }

    fn enter(&self, verb: Verb) -> Result<MutexGuard<'_, Machines>, TargetError> {
        let mut machines = self.lock();
        machines.calls.push(verb);
        self.changed.notify_all();
        while machines.troubles.get(&verb) == Some(&Trouble::Hangs) {
            machines = self.changed.wait(machines).unwrap();
        }
        match machines.troubles.get(&verb) {
            Some(Trouble::Fails) => Err(TargetError::DidNotStart {
                machine: "a machine".into(),
                detail: format!("{verb:?} fails in this test"),
            }),
            Some(Trouble::Panics) => {
                drop(machines);
                panic!("{verb:?} panics in this test")
            }
            _ => Ok(machines),
        }
    }
}

impl Compute for Fake {
    fn kind(&self) -> &'static str {
        "fake"
    }

    fn check(&self) -> Result<(), TargetError> {
        self.enter(Verb::Check).map(drop)
    }

    fn prepare(&self, spec: &MachineSpec) -> Result<(), TargetError> {
        let mut machines = self.enter(Verb::Prepare)?;
        std::fs::create_dir_all(&spec.folder).unwrap();
        machines
            .known
            .entry(spec.name.clone())
            .or_insert((spec.clone(), false, Vec::new()));
        Ok(())
    }

    fn start(&self, spec: &MachineSpec) -> Result<MachineStatus, TargetError> {
        let mut machines = self.enter(Verb::Start)?;
        let dies = machines.troubles.get(&Verb::Start) == Some(&Trouble::Dies);
        let machine = machines.known.get_mut(&spec.name).expect("prepared");
        if !spec.is_on_files() {
            assert_eq!(&machine.0, spec);
        }
        if !machine.1 {
            // Boots: reads the first block of every disk.
            machine.2 = spec
                .disks
                .iter()
                .map(|disk| match &disk.file {
                    Some(file) => std::fs::read(&file.path).unwrap()[0],
                    None => Client::connect(disk).read(0, BLOCK_BYTES)[0],
                })
                .collect();
            machine.1 = !dies;
            std::fs::write(spec.folder.join("serial.log"), "booted").unwrap();
        }
        drop(machines);
        self.status(spec)
    }

    fn stop(&self, spec: &MachineSpec, _: Stop) -> Result<(), TargetError> {
        let mut machines = self.enter(Verb::Stop)?;
        if let Some(machine) = machines.known.get_mut(&spec.name) {
            machine.1 = false;
        }
        Ok(())
    }

    fn destroy(&self, spec: &MachineSpec) -> Result<(), TargetError> {
        let mut machines = self.enter(Verb::Destroy)?;
        machines.known.remove(&spec.name);
        let _ = std::fs::remove_dir_all(&spec.folder);
        Ok(())
    }

    fn status(&self, spec: &MachineSpec) -> Result<MachineStatus, TargetError> {
        let machines = self.enter(Verb::Status)?;
        let power = match machines.known.get(&spec.name) {
            None => Power::Absent,
            Some((_, true, _)) => Power::Running,
            Some(_) => Power::Stopped,
        };
        Ok(MachineStatus {
            power,
            detail: String::new(),
            pid: None,
            accelerator: "none".into(),
            forwards: Vec::new(),
            first_output_unix_nanos: (power == Power::Running).then(now_unix_nanos),
        })
    }

    fn serial_log(&self, spec: &MachineSpec) -> PathBuf {
        spec.folder.join("serial.log")
    }

    fn mirror(&self, spec: &MachineSpec, files: &[DiskFile]) -> Result<(), TargetError> {
        let mut machines = self.enter(Verb::Mirror)?;
        if machines.copies.contains_key(&spec.name) {
            return Ok(());
        }
        let machine = machines.known.get_mut(&spec.name).expect("prepared");
        let held = !machine.1;
        machine.1 = true;
        for (disk, file) in spec.disks.iter().zip(files) {
            let bytes = Client::connect(disk).read(0, DISK_BYTES as usize);
            std::fs::write(&file.path, bytes).unwrap();
        }
        machines.copies.insert(
            spec.name.clone(),
            Copies {
                files: files.to_vec(),
                pivoted: false,
                held,
            },
        );
        Ok(())
    }

    fn mirror_status(&self, spec: &MachineSpec) -> Result<MirrorStatus, TargetError> {
        let machines = self.lock();
        let copies = machines.copies.get(&spec.name).filter(|copies| !copies.pivoted);
        Ok(MirrorStatus {
            done_bytes: DISK_BYTES,
            total_bytes: DISK_BYTES,
            ready: copies.is_some(),
            failed: None,
            absent: copies.is_none(),
        })
    }

    fn mirror_pivot(&self, spec: &MachineSpec) -> Result<(), TargetError> {
        let mut machines = self.enter(Verb::Pivot)?;
        let copies = machines.copies.get_mut(&spec.name);
        let copies = copies.ok_or_else(|| TargetError::Refused("there are no copies".into()))?;
        // What was written since goes along.
        for (disk, file) in spec.disks.iter().zip(&copies.files).filter(|_| !copies.pivoted) {
            let bytes = Client::connect(disk).read(0, DISK_BYTES as usize);
            std::fs::write(&file.path, bytes).unwrap();
        }
        copies.pivoted = true;
        Ok(())
    }

    fn mirror_end(&self, spec: &MachineSpec, keep: bool) -> Result<(), TargetError> {
        let mut machines = self.enter(Verb::MirrorEnd)?;
        if let Some(copies) = machines.copies.remove(&spec.name) {
            let machine = machines.known.get_mut(&spec.name).unwrap();
            machine.1 &= !copies.held;
            if keep {
                assert!(copies.pivoted);
                machine.0 = machine.0.on_files(&copies.files);
            }
        }
        Ok(())
    }

    fn screenshot(&self, spec: &MachineSpec) -> Result<Vec<u8>, TargetError> {
        Err(TargetError::Refused(format!("{} has no screen", spec.name)))
    }
}

/// As much of an NBD client as a machine needs.
pub struct Client(UnixStream);

impl Client {
    pub fn connect(disk: &DiskAttachment) -> Self {
        let mut stream = UnixStream::connect(&disk.socket).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut hello = [0; 18];
        stream.read_exact(&mut hello).unwrap();
        assert_eq!(&hello[..16], b"NBDMAGICIHAVEOPT");
        // Fixed newstyle without zeroes; then the export by its name.
        let mut ask = 3u32.to_be_bytes().to_vec();
        ask.extend_from_slice(b"IHAVEOPT");
        ask.extend_from_slice(&1u32.to_be_bytes());
        ask.extend_from_slice(&(disk.export.len() as u32).to_be_bytes());
        ask.extend_from_slice(disk.export.as_bytes());
        stream.write_all(&ask).unwrap();
        let mut size_and_flags = [0; 10];
        stream.read_exact(&mut size_and_flags).unwrap();
        assert_eq!(size_and_flags[..8], DISK_BYTES.to_be_bytes());
        Self(stream)
    }

    fn request(&mut self, command: u16, offset: u64, len: usize, data: &[u8]) {
        let mut request = 0x2560_9513u32.to_be_bytes().to_vec();
        request.extend_from_slice(&0u16.to_be_bytes());
        request.extend_from_slice(&command.to_be_bytes());
        request.extend_from_slice(&7u64.to_be_bytes());
        request.extend_from_slice(&offset.to_be_bytes());
        request.extend_from_slice(&(len as u32).to_be_bytes());
        request.extend_from_slice(data);
        self.0.write_all(&request).unwrap();
        let mut reply = [0; 16];
        self.0.read_exact(&mut reply).unwrap();
        assert_eq!(reply[..8], [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0]);
    }

    pub fn read(&mut self, offset: u64, len: usize) -> Vec<u8> {
        self.request(0, offset, len, &[]);
        let mut data = vec![0; len];
        self.0.read_exact(&mut data).unwrap();
        data
    }

    pub fn write(&mut self, offset: u64, data: &[u8]) {
        self.request(1, offset, data.len(), data);
    }
}

#[derive(Default)]
struct SourceState {
    connected: bool,
    sync: Option<Box<dyn FnMut() -> Result<(), String> + Send>>,
    fenced: Vec<(MachineId, u64)>,
    /// Makes the last point of a source that comes to rest.
    rest: Option<Box<dyn FnMut() -> Result<PointId, String> + Send>>,
    /// Last points of sources that are at rest already.
    lasts: HashMap<MachineId, PointId>,
    /// Point with which the receiver's disks were compared.
    home: Option<PointId>,
    /// Receivers hold whatever point is asked for.
    home_at_once: bool,
    receiver_trouble: Option<String>,
    /// Whatever is asked of the source's side fails.
    trouble: bool,
}

#[derive(Default)]
pub struct Site(Mutex<SourceState>);

impl Site {
    pub fn connect(&self, sync: impl FnMut() -> Result<(), String> + Send + 'static) {
        let mut state = self.0.lock().unwrap();
        state.connected = true;
        state.sync = Some(Box::new(sync));
    }

    pub fn rests(&self, rest: impl FnMut() -> Result<PointId, String> + Send + 'static) {
        let mut state = self.0.lock().unwrap();
        state.connected = true;
        state.rest = Some(Box::new(rest));
    }

    /// As `rests`, of each machine, and for every server that comes.
    pub fn rest_at(&self, lasts: HashMap<MachineId, PointId>) {
        let mut state = self.0.lock().unwrap();
        state.connected = true;
        state.lasts = lasts;
    }

    pub fn receives_at_once(&self) {
        self.0.lock().unwrap().home_at_once = true;
    }

    /// The receiver's disks hold this point, or it is in trouble.
    pub fn receives(&self, home: Result<Option<PointId>, String>) {
        let mut state = self.0.lock().unwrap();
        (state.home, state.receiver_trouble) = match home {
            Ok(home) => (home, None),
            Err(trouble) => (None, Some(trouble)),
        };
    }

    pub fn trouble(&self, trouble: bool) {
        self.0.lock().unwrap().trouble = trouble;
    }

    pub fn fenced(&self) -> Vec<(MachineId, u64)> {
        self.0.lock().unwrap().fenced.clone()
    }
}

impl Source for Site {
    fn is_connected(&self, _: MachineId) -> bool {
        self.0.lock().unwrap().connected
    }

    fn last_sync(&self, _: MachineId, _: Duration) -> Result<(), String> {
        let mut sync = self.0.lock().unwrap().sync.take().unwrap();
        let result = sync();
        self.0.lock().unwrap().sync = Some(sync);
        result
    }

    fn halt(&self, machine: MachineId, _: JobId, _: Duration) -> Result<PointId, String> {
        let state = self.0.lock().unwrap();
        if state.trouble {
            return Err("a hook failed".into());
        }
        if let Some(last) = state.lasts.get(&machine) {
            return Ok(*last);
        }
        drop(state);
        let rest = self.0.lock().unwrap().rest.take();
        let Some(mut rest) = rest else {
            return Err("the test's source does not rest".into());
        };
        let result = rest();
        self.0.lock().unwrap().rest = Some(rest);
        result
    }

    fn stayed_at_rest(&self, _: MachineId, _: JobId, _: PointId, _: Duration) -> bool {
        self.0.lock().unwrap().connected
    }

    fn point_interval(&self, _: MachineId) -> Duration {
        Duration::from_millis(20)
    }

    fn receiver_trouble(&self, _: MachineId) -> Option<String> {
        let state = self.0.lock().unwrap();
        match state.trouble {
            true => Some("it is not heard".into()),
            false => state.receiver_trouble.clone(),
        }
    }

    fn is_home(&self, _: MachineId, point: PointId) -> Result<bool, String> {
        let state = self.0.lock().unwrap();
        match &state.receiver_trouble {
            _ if state.trouble => Err("the disk at home failed".into()),
            Some(trouble) => Err(trouble.clone()),
            None => Ok(state.home_at_once || state.home == Some(point)),
        }
    }

    fn fence(&self, machine: MachineId, generation: u64) {
        self.0.lock().unwrap().fenced.push((machine, generation));
    }
}

/// What the data plane said.
#[derive(Default)]
pub struct Facts(Mutex<Vec<Fact>>);

impl Report for Facts {
    fn report(&self, fact: Fact) {
        self.0.lock().unwrap().push(fact);
    }
}

pub struct Bed {
    pub folder: tempfile::TempDir,
    key: VaultKey,
    pub machine: MachineId,
    pub disks: Vec<DiskId>,
    pub journal: Arc<Memory>,
    pub compute: Arc<Fake>,
    pub site: Arc<Site>,
    pub facts: Arc<Facts>,
    /// Under the store.
    pub storage: Storage,
    /// None for a moment while the server "restarts".
    store: Option<Store>,
    runner: Option<Runner>,
    pub limits: Limits,
    /// With QEMU in place of the fake.
    pub qemu: bool,
}

impl Drop for Bed {
    /// Machines of a test that failed do not outlive it.
    fn drop(&mut self) {
        if self.qemu {
            let compute = QemuCompute::new();
            for job in self.journal.kept().jobs.values() {
                let parameters: Option<steps::Parameters> =
                    serde_json::from_value(job.parameters.clone()).ok();
                if let Some(machine) = parameters.and_then(|parameters| parameters.machine)
                    && let Err(error) = compute.destroy(&machine)
                {
                    eprintln!("{error}");
                }
            }
        }
    }
}

impl Bed {
    /// A protected machine with two disks and two points; the first bytes of the disks tell the point: 1 and 2.
    pub fn new() -> Self {
        Self::with_fault(Fault::Full)
    }

    /// What the store's storage does when it is told to fail.
    pub fn with_fault(fault: Fault) -> Self {
        let bed = Self::made(item(), fault);
        bed.seal(1, Consistency::AppConsistent);
        bed.seal(2, Consistency::CrashConsistent);
        bed
    }

    pub fn empty(item: Item) -> Self {
        Self::made(item, Fault::Full)
    }

    fn made(item: Item, fault: Fault) -> Self {
        // In memory where that is possible: a process that dies loses nothing there, and hundreds of servers do.
        let folder = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        Self::made_in(folder, item, fault)
    }

    /// In a process that is to die: beneath a folder that outlives it, which gets `key` besides.
    pub fn dying(folder: &Path) -> Self {
        let mut folder = tempfile::Builder::new().prefix("bed").tempdir_in(folder).unwrap();
        folder.disable_cleanup(true);
        let bed = Self::made_in(folder, item(), Fault::Kill);
        bed.key.save(&bed.folder.path().join("key")).unwrap();
        bed.seal(1, Consistency::AppConsistent);
        bed.seal(2, Consistency::CrashConsistent);
        bed
    }

    fn made_in(folder: tempfile::TempDir, item: Item, fault: Fault) -> Self {
        let key = VaultKey::generate();
        let storage = Storage::failing_after(i64::MAX, fault);
        let root = folder.path().join("store");
        drop(Store::create(&root, &key).unwrap());
        let store = Store::open_with(&root, &key, storage.clone()).unwrap();
        store.register_machine(item.machine, &item.name).unwrap();
        for &id in &item.disks {
            let spec = DiskSpec {
                id,
                name: "disk".into(),
                size_bytes: DISK_BYTES,
            };
            store.register_disk(item.machine, spec).unwrap();
        }
        let journal = Arc::new(Memory::default());
        let (machine, disks) = (item.machine, item.disks.clone());
        journal.kept().items.insert(machine, item);
        let mut bed = Self {
            folder,
            key,
            machine,
            disks,
            journal,
            compute: Arc::default(),
            site: Arc::default(),
            facts: Arc::default(),
            storage,
            store: Some(store),
            runner: None,
            limits: Limits {
                jobs: 4,
                last_sync: LIMIT,
                halt: LIMIT,
                confirm_rest: LIMIT,
                guest_shut_down: Duration::from_secs(1),
                first_read: Duration::from_secs(5),
                first_output: Duration::from_secs(5),
                shut_down: LIMIT,
                journal_again: Duration::from_millis(5),
            },
            qemu: false,
        };
        bed.boot();
        bed
    }

    pub fn boot(&mut self) {
        let parts = Parts {
            journal: self.journal.clone(),
            store: self.store().clone(),
            compute: if self.qemu {
                Arc::new(QemuCompute::new())
            } else {
                self.compute.clone()
            },
            vms: self.vms(),
            source: self.site.clone(),
            report: self.facts.clone(),
        };
        self.runner = Some(Runner::with_limits(parts, self.limits.clone()));
    }

    pub fn vms(&self) -> PathBuf {
        self.folder.path().join("vms")
    }

    pub fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    pub fn runner(&self) -> &Runner {
        self.runner.as_ref().unwrap()
    }

    pub fn item(&self) -> Item {
        self.journal.item(self.machine).unwrap()
    }

    /// Everything of the old process is gone, then a new one starts on what was kept.
    pub fn restart(&mut self) -> Resumed {
        if let Some(runner) = self.runner.take() {
            runner.shut_down();
        }
        {
            // They hold the store of the server that died.
            let mut site = self.site.0.lock().unwrap();
            (site.sync, site.rest) = (None, None);
        }
        self.store = None;
        self.journal.heal();
        self.storage.heal();
        let deadline = Instant::now() + LIMIT;
        let store = loop {
            let root = self.folder.path().join("store");
            match Store::open_with(&root, &self.key, self.storage.clone()) {
                Ok(store) => break store,
                // A thread of the old process holds it for a moment longer.
                Err(crate::replica::ReplicaError::Locked(_)) if Instant::now() < deadline => {
                    std::thread::yield_now()
                }
                Err(error) => panic!("{error}"),
            }
        };
        self.store = Some(store);
        self.boot();
        self.runner().resume().unwrap()
    }

    pub fn seal(&self, byte: u8, consistency: Consistency) -> PointId {
        seal(self.store(), self.machine, &self.disks, byte, consistency).unwrap()
    }

    pub fn run(&self, request: Request) -> Job {
        let job = self.runner().submit(self.machine, request, "tester").unwrap();
        self.runner().wait(job, LIMIT).unwrap()
    }

    pub fn refused(&self, request: Request) -> String {
        match self.runner().submit(self.machine, request, "tester") {
            Err(RecoveryError::Refused(refusal)) => refusal.code,
            other => panic!("{other:?}"),
        }
    }

    /// Nothing is left of a test failover that failed, was cancelled or was cleaned up.
    pub fn assert_clean(&self, story: &str) {
        let item = self.item();
        assert_eq!(item.test_failover_state, TestFailoverState::None, "{story}");
        assert_eq!(item.test_failover, None, "{story}");
        assert_eq!(self.store().pins(self.machine).unwrap(), [], "{story}");
        assert_eq!(entries(&self.vms()), Vec::<String>::new(), "{story}");
        assert_eq!(self.compute.names(), Vec::<String>::new(), "{story}");
        assert_eq!(self.journal.open_jobs().unwrap(), [], "{story}");
    }
}

pub fn seal(
    store: &Store,
    machine: MachineId,
    disks: &[DiskId],
    byte: u8,
    consistency: Consistency,
) -> Result<PointId, crate::replica::ReplicaError> {
    let mut writer = store.begin(machine, 1)?;
    for &disk in disks {
        let mut builder = FrameBuilder::new();
        builder.push(0, &[byte; BLOCK_BYTES]);
        writer.append(disk, builder.finish(1).unwrap())?;
    }
    writer.seal(PointSpec {
        instant_unix_nanos: now_unix_nanos(),
        consistency,
        note: String::new(),
        freeze_micros: 0,
    })
}

pub fn entries(folder: &Path) -> Vec<String> {
    match std::fs::read_dir(folder) {
        Ok(entries) => entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect(),
        Err(_) => Vec::new(),
    }
}

pub fn test_failover(point: PointChoice) -> Request {
    Request::TestFailover { point, network: None }
}

pub fn cleanup() -> Request {
    Request::TestFailoverCleanup {
        notes: "all fine".into(),
    }
}

pub fn failover() -> Request {
    Request::UnplannedFailover {
        point: PointChoice::Latest,
        last_sync: false,
    }
}

pub fn allowed(bed: &Bed) -> Vec<Operation> {
    let verdicts = bed.runner().allowed(bed.machine).unwrap();
    let allowed = verdicts.into_iter().filter(|(_, refusal)| refusal.is_none());
    allowed.map(|(operation, _)| operation).collect()
}

pub fn outcome(job: &Job) -> steps::Outcome {
    serde_json::from_value(job.result.clone()).unwrap()
}

pub fn task<'a>(job: &'a Job, name: &str) -> &'a Task {
    job.tasks.iter().find(|task| task.name == name).unwrap()
}
