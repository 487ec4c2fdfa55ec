//! `lifeboat lab`: a whole site on one computer. Builds the machines, starts their workloads, a server and an agent for each,
//! protects them, and then waits for a person, or walks the tour.
use super::client::Client;
use super::error::LabError;
use super::figures::{Group, Machine, Plan, PlanCircle, Report};
use super::machine::{self, MachineImage, MachinePlan};
use super::packages::{self, Kernel};
use super::processes::Process;
use super::site::Site;
use super::source::{self, Source};
use super::tour;
use crate::agent::capture;
use crate::target::{Compute, MachineSpec, QemuCompute};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Points of the lab's policy come this often.
const POINT_SECONDS: u32 = 5;
const GUEST_MEMORY_BYTES: u64 = 256 << 20;

/// Which way is walked unattended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Tour {
    /// Each machine, all of them by a plan, one there and back, and one lost
    All,
    /// All machines by a recovery plan: tested, to the target, called back, to the target again, and home
    Plan,
}

#[derive(Clone, Debug)]
pub struct LabSettings {
    pub machines: u8,
    pub disk_bytes: u64,
    /// None: the lab stays up.
    pub tour: Option<Tour>,
    /// Leave the folder as it is at the end.
    pub keep: bool,
    pub folder: PathBuf,
    /// This executable.
    pub program: PathBuf,
    /// How long points accumulate under load before the first test failover.
    pub load: Duration,
}

/// One machine of the lab with all that runs for it. Dropped in this order: agent, then workload and disk.
pub(super) struct LabMachine {
    pub(super) figures: Machine,
    pub(super) agent: Option<Process>,
    pub(super) source: Source,
}

/// A running lab. What it started ends with it.
pub(super) struct Lab {
    pub(super) settings: LabSettings,
    pub(super) client: Client,
    pub(super) machines: Vec<LabMachine>,
    pub(super) server: Process,
    /// Of agents that were lost on purpose.
    pub(super) agent_peak_rss_bytes: u64,
    pub(super) plan: Option<Plan>,
    pub(super) plan_circle: Option<PlanCircle>,
    pub(super) group: Option<Group>,
    site: Site,
    stop: Arc<AtomicBool>,
    begin: Instant,
}

impl Lab {
    /// A line for the person who watches.
    pub(super) fn say(&self, line: &str) {
        say(self.begin, line);
    }

    /// Asks until there is an answer; an error when the lab is interrupted, a process ended, or the time is over.
    pub(super) fn wait<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut ask: impl FnMut(&mut Self) -> Result<Option<T>, LabError>,
    ) -> Result<T, LabError> {
        let end = Instant::now() + limit;
        loop {
            self.check()?;
            if let Some(answer) = ask(self)? {
                return Ok(answer);
            }
            if Instant::now() >= end {
                return Err(LabError::TimedOut {
                    what: what.to_owned(),
                    seconds: limit.as_secs(),
                });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn check(&mut self) -> Result<(), LabError> {
        if self.stop.load(Ordering::SeqCst) {
            return Err(LabError::Interrupted);
        }
        self.server.check("serve")?;
        for machine in &mut self.machines {
            if let Some(agent) = &mut machine.agent {
                agent.check("agent")?;
            }
            machine.source.check()?;
        }
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for machine in &mut self.machines {
            machine.agent = None;
        }
        destroy_all(&self.settings.folder.join("data/vms"));
        forget_all(&self.settings.folder.join("data/store/machines"));
    }
}

/// Ends the tracking of the lab's disks: their agents were ended and not told to.
fn forget_all(machines: &Path) {
    for machine in std::fs::read_dir(machines).into_iter().flatten().flatten() {
        for disk in std::fs::read_dir(machine.path()).into_iter().flatten().flatten() {
            if let Some(id) = disk.file_name().to_str().and_then(|name| name.parse().ok()) {
                capture::forget(id);
            }
        }
    }
}

/// Powers off every machine that was started from this folder.
fn destroy_all(vms: &Path) {
    let compute = QemuCompute::new();
    for folder in std::fs::read_dir(vms).into_iter().flatten().flatten() {
        let spec = std::fs::read(folder.path().join("machine/machine.json"))
            .ok()
            .and_then(|bytes| serde_json::from_slice::<MachineSpec>(&bytes).ok());
        if let Some(spec) = spec {
            let _ = compute.destroy(&spec);
        }
    }
}

fn say(begin: Instant, line: &str) {
    eprintln!("[{:6.1} s] {line}", begin.elapsed().as_secs_f64());
}

/// Runs the lab to its end. `stop`: set by whoever hears Ctrl-C.
pub fn run(settings: &LabSettings, stop: &Arc<AtomicBool>) -> Report {
    let begin = Instant::now();
    let mut report = Report {
        less: source::less(),
        ..Report::default()
    };
    for line in &report.less {
        say(begin, &format!("without root: {line}"));
    }
    let outcome = start(settings, stop, begin).and_then(|mut lab| {
        let walked = match settings.tour {
            Some(Tour::All) => tour::walk(&mut lab),
            Some(Tour::Plan) => tour::walk_plan(&mut lab),
            None => stay(&mut lab),
        };
        collect(&mut lab, &mut report);
        walked
    });
    match outcome {
        Ok(()) => report.ok = true,
        Err(error) => {
            let (causes, action) = error.advice();
            let text = crate::rt::chain(&error);
            eprintln!("error: {text}\npossible causes: {causes}\nrecommended action: {action}");
            report.error = Some(text);
        }
    }
    if settings.keep {
        say(begin, &format!("kept: {}", settings.folder.display()));
    } else {
        // Only what a lab makes, and never a folder that holds anything else.
        for name in [
            "data",
            "machines",
            "agents",
            "mounts",
            "server.log",
            "site.json",
            "lock",
        ] {
            let path = settings.folder.join(name);
            let _ = std::fs::remove_dir_all(&path).or_else(|_| std::fs::remove_file(&path));
        }
        let _ = std::fs::remove_dir(&settings.folder);
    }
    report.seconds = begin.elapsed().as_secs_f64();
    report
}

fn collect(lab: &mut Lab, report: &mut Report) {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    lab.server.measure();
    report.server_peak_rss_mi_b = mib(lab.server.peak_rss_bytes);
    report.agent_peak_rss_mi_b = mib(lab.agent_peak_rss_bytes);
    report.plan = lab.plan.take();
    report.plan_circle = lab.plan_circle.take();
    report.replication_group = lab.group.take();
    for machine in &mut lab.machines {
        if let Some(agent) = &mut machine.agent {
            agent.measure();
            report.agent_peak_rss_mi_b = report.agent_peak_rss_mi_b.max(mib(agent.peak_rss_bytes));
        }
        report.machines.push(std::mem::take(&mut machine.figures));
    }
}

fn start(settings: &LabSettings, stop: &Arc<AtomicBool>, begin: Instant) -> Result<Lab, LabError> {
    let (site, leftovers) = Site::open(&settings.folder)?;
    for line in leftovers {
        say(begin, &format!("cleaned up after an earlier lab: {line}"));
    }
    let folder = site.folder().to_owned();
    destroy_all(&folder.join("data/vms"));
    forget_all(&folder.join("data/store/machines"));
    for name in ["data", "machines", "agents"] {
        let _ = std::fs::remove_dir_all(folder.join(name));
    }
    let images = build(settings, &folder, begin)?;
    say(begin, "starting the server");
    let data = folder.join("data");
    let (server, heard) = Process::spawn_and_hear(
        &settings.program,
        &[
            "serve",
            "--json",
            "--data-dir",
            &data.to_string_lossy(),
            "--data-listen",
            "127.0.0.1:0",
            "--api-listen",
            "127.0.0.1:0",
            "--heartbeat",
            "1",
        ],
        folder.join("server.log"),
    )?;
    let text = |key: &str| heard[key].as_str().unwrap_or_default().to_owned();
    let client = Client::new(data.join("api.sock"))?;
    say(
        begin,
        &format!(
            "web and API: {}  user admin, one-time password {}",
            text("apiUrl"),
            text("oneTimePassword")
        ),
    );
    let mut lab = Lab {
        settings: LabSettings {
            folder: folder.clone(),
            ..settings.clone()
        },
        client,
        machines: Vec::new(),
        server,
        agent_peak_rss_bytes: 0,
        plan: None,
        plan_circle: None,
        group: None,
        site,
        stop: stop.clone(),
        begin,
    };
    let join = Join {
        server: text("dataAddress"),
        fingerprint: text("fingerprint"),
        passphrase_file: text("passphraseFile"),
    };
    for image in &images {
        lab.check()?;
        let machine = begin_machine(&lab, image, &join)?;
        lab.machines.push(machine);
    }
    let policy = json!({ "name": "lab", "crashConsistentSeconds": POINT_SECONDS });
    lab.client.post("policies", &policy)?;
    for index in 0..lab.machines.len() {
        protect(&mut lab, index)?;
    }
    Ok(lab)
}

struct Join {
    server: String,
    fingerprint: String,
    passphrase_file: String,
}

fn build(settings: &LabSettings, folder: &Path, begin: Instant) -> Result<Vec<MachineImage>, LabError> {
    say(
        begin,
        "fetching the Debian packages of the machines (kept for the next time)",
    );
    let parts = packages::fetch(&packages::cache_folder(), Kernel::Cloud, &mut |line| {
        say(begin, line)
    })?;
    let machines = folder.join("machines");
    std::fs::create_dir_all(&machines).map_err(LabError::io("make", &machines))?;
    let mut images = Vec::new();
    for number in 1..=settings.machines {
        let plan = MachinePlan::numbered(number, settings.disk_bytes);
        say(begin, &format!("building machine {}", plan.name));
        let path = machines.join(format!("{}.img", plan.name));
        images.push(machine::build(&plan, &parts, &settings.program, &path)?);
    }
    Ok(images)
}

/// Attaches the disk, starts the workload and the agent.
fn begin_machine(lab: &Lab, image: &MachineImage, join: &Join) -> Result<LabMachine, LabError> {
    let source = Source::begin(&lab.site, image, &lab.settings.program)?;
    let agents = lab.settings.folder.join("agents");
    std::fs::create_dir_all(&agents).map_err(LabError::io("make", &agents))?;
    let state = agent_state(lab, &image.name);
    let device = source.disk().to_string_lossy().into_owned();
    let key = format!("lab machine {} in {}", image.name, lab.settings.folder.display());
    let arguments = [
        "agent",
        "join",
        "--server",
        &join.server,
        "--fingerprint",
        &join.fingerprint,
        "--passphrase-file",
        &join.passphrase_file,
        "--name",
        &image.name,
        "--machine-key",
        &key,
        "--disk",
        &device,
        "--state-dir",
        &state,
    ];
    packages::run(std::process::Command::new(&lab.settings.program).args(arguments))?;
    let agent = start_agent(lab, &image.name)?;
    lab.say(&format!(
        "{} is at work on {device}, its agent has joined",
        image.name
    ));
    Ok(LabMachine {
        figures: Machine {
            name: image.name.clone(),
            disk_bytes: image.disk_bytes,
            ..Machine::default()
        },
        agent: Some(agent),
        source,
    })
}

/// Folder of a machine's agent.
pub(super) fn agent_state(lab: &Lab, name: &str) -> String {
    let folder = lab.settings.folder.join("agents").join(name);
    folder.to_string_lossy().into_owned()
}

pub(super) fn start_agent(lab: &Lab, name: &str) -> Result<Process, LabError> {
    let log = lab.settings.folder.join("agents").join(format!("{name}.log"));
    let arguments = ["agent", "run", "--state-dir", &agent_state(lab, name)];
    Ok(Process::spawn(&lab.settings.program, &arguments, log)?.0)
}

/// Orders replication and waits for the first point.
fn protect(lab: &mut Lab, index: usize) -> Result<(), LabError> {
    let name = lab.machines[index].figures.name.clone();
    lab.wait("an inventory", Duration::from_secs(30), |lab| {
        let machine = lab.client.get(&format!("machines/{name}"))?;
        let disks = machine["disks"].as_array().is_some_and(|disks| !disks.is_empty());
        Ok(disks.then_some(()))
    })?;
    let nic = json!({ "network": { "kind": "user", "forwards": [{ "hostPort": 0, "guestPort": 80 }] } });
    let begin = Instant::now();
    lab.client.post(
        "replicated-items",
        &json!({ "machine": name, "policy": "lab", "target": {
            "name": format!("{name}-asr"), "cpus": 1, "memoryBytes": GUEST_MEMORY_BYTES, "firmware": "bios",
            "diskBus": "virtioBlk", "nics": [nic], "testNics": [nic] } }),
    )?;
    let mut told = Instant::now();
    lab.wait("the initial replication", Duration::from_secs(3600), |lab| {
        let item = lab.client.get(&format!("replicated-items/{name}"))?;
        if let Some(percent) = item["progress"]["percent"].as_f64()
            && told.elapsed() > Duration::from_secs(2)
        {
            told = Instant::now();
            let eta = item["progress"]["etaSeconds"].as_u64();
            let eta = eta.map_or_else(String::new, |seconds| format!(", {seconds} s left"));
            lab.say(&format!("{name}: initial replication {percent:.0} %{eta}"));
        }
        Ok((item["protectionState"] == "Protected").then_some(()))
    })?;
    let seconds = begin.elapsed().as_secs_f64();
    let figures = &mut lab.machines[index].figures;
    figures.initial_replication_seconds = seconds;
    figures.initial_replication_mbps = figures.disk_bytes as f64 / 1e6 / seconds;
    lab.say(&format!("{name} is protected after {seconds:.1} s"));
    Ok(())
}

/// Until Ctrl-C.
fn stay(lab: &mut Lab) -> Result<(), LabError> {
    let data = lab.settings.folder.join("data");
    lab.say("the lab runs; Ctrl-C ends it and removes what it made. Try:");
    eprintln!(
        "  export LIFEBOAT_SERVER=unix:{}",
        data.join("api.sock").display()
    );
    eprintln!("  lifeboat machine list");
    eprintln!("  lifeboat failover test {}", lab.machines[0].figures.name);
    match lab.wait("Ctrl-C", Duration::MAX / 4, |_| Ok(None::<()>)) {
        Err(LabError::Interrupted) => Ok(()),
        other => other,
    }
}
