//! How the host of the process server is: processor, memory, room in the store, backlog; and the alarms of the reference
//! model on them. What is measured is averaged over a minute, so that a peak rings no bell.
use crate::process_server::Sessions;
use crate::replica::Store;
use crate::vault::{HealthError, ServerTrouble, Severity, Vault, age};
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const INTERVAL: Duration = Duration::from_secs(5);
/// A minute of samples.
const SAMPLES: usize = 12;

/// What is known of the host now; None: not known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vitals {
    pub cpu_percent: Option<f64>,
    pub memory_percent: Option<f64>,
    pub store_capacity_bytes: Option<u64>,
    pub store_free_bytes: Option<u64>,
    /// Changed at the sources and not yet durable here, of all machines.
    pub backlog_bytes: u64,
    /// Of that, in this process's memory.
    pub held_bytes: u64,
    /// Arriving, stored size.
    pub received_bytes_per_second: Option<f64>,
    /// Until the backlog is gone at that rate; None: there is no backlog, or nothing arrives.
    pub backlog_eta_seconds: Option<u64>,
    /// Since anything of this was measured last; None: nothing was yet.
    pub silent: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    pub code: &'static str,
    pub severity: Severity,
    pub summary: &'static str,
    pub message: String,
    pub possible_causes: &'static str,
    pub recommended_action: &'static str,
}

/// (above it a warning, above it critical), from the reference model.
const CPU: (f64, f64) = (80.0, 95.0);
const MEMORY: (f64, f64) = (80.0, 95.0);
/// Below.
const STORE_FREE: (f64, f64) = (30.0, 25.0);
const BACKLOG_SECONDS: (u64, u64) = (30 * 60, 45 * 60);
const SILENT: Duration = Duration::from_secs(15 * 60);

const STORE: &str = "ProcessServerStore";

impl Vitals {
    pub fn store_free_percent(&self) -> Option<f64> {
        let (free, all) = (self.store_free_bytes?, self.store_capacity_bytes?);
        (all > 0).then(|| free as f64 * 100.0 / all as f64)
    }

    /// The alarms of the reference model, section 2.
    pub fn alarms(&self) -> Vec<Alarm> {
        let mut alarms = Vec::new();
        let mut ring = |code, critical, message, possible_causes, recommended_action| {
            let summary = match code {
                "ProcessServerCpu" => "The process server has little processor time left",
                "ProcessServerMemory" => "The process server has little memory left",
                STORE => "The store has little room left",
                "ProcessServerBacklog" => "The backlog at the sources takes long to ship",
                _ => "The process server gives no sign of life",
            };
            alarms.push(Alarm {
                code,
                severity: if critical {
                    Severity::Critical
                } else {
                    Severity::Warning
                },
                summary,
                message,
                possible_causes,
                recommended_action,
            });
        };
        if let Some(cpu) = self.cpu_percent.filter(|cpu| *cpu > CPU.0) {
            ring(
                "ProcessServerCpu",
                cpu > CPU.1,
                format!("the processor is {cpu:.0} % busy"),
                "more machines ship than this host can take, or another program keeps it busy",
                "see what runs there; give the host more processors, or move machines away",
            );
        }
        if let Some(memory) = self.memory_percent.filter(|memory| *memory > MEMORY.0) {
            ring(
                "ProcessServerMemory",
                memory > MEMORY.1,
                format!("{memory:.0} % of the memory is in use"),
                "machines that were started at the target take it, or another program does",
                "clean up test failovers; give the host more memory",
            );
        }
        if let Some(free) = self.store_free_percent().filter(|free| *free < STORE_FREE.0) {
            ring(
                STORE,
                free < STORE_FREE.1,
                format!("{free:.0} % of the store's file system is free"),
                "the retention needs more room than there is, or something else fills the file system",
                "enlarge the file system, shorten the retention, or see who fills it: lifeboat server status",
            );
        }
        if let Some(eta) = self.backlog_eta_seconds.filter(|eta| *eta > BACKLOG_SECONDS.0) {
            ring(
                "ProcessServerBacklog",
                eta > BACKLOG_SECONDS.1,
                format!(
                    "the backlog of all machines is shipped in {} at the present rate",
                    age(i64::try_from(eta.saturating_mul(1_000_000_000)).unwrap_or(i64::MAX))
                ),
                "more changes than the link or the store takes",
                "see which machine waits where: lifeboat machine list; give the link or the store more room",
            );
        }
        if let Some(silent) = self.silent.filter(|silent| *silent > SILENT) {
            ring(
                "ProcessServerSilent",
                true,
                format!(
                    "no sign of life of the process server for {}",
                    age(i64::try_from(silent.as_nanos()).unwrap_or(i64::MAX))
                ),
                "the file system of the store hangs, or the host is overloaded",
                "look at the host: its disks, its load, the server's log; restart the server if it hangs",
            );
        }
        alarms
    }

    /// The alarms as health errors, and the room in the store where that is what rings.
    pub fn troubles(&self) -> Vec<ServerTrouble> {
        self.alarms()
            .into_iter()
            .map(|alarm| ServerTrouble {
                free_bytes: self.store_free_bytes.filter(|_| alarm.code == STORE),
                error: HealthError {
                    code: alarm.code,
                    category: "Infrastructure",
                    severity: alarm.severity,
                    summary: alarm.summary.to_owned(),
                    message: alarm.message,
                    possible_causes: alarm.possible_causes.to_owned(),
                    recommended_action: alarm.recommended_action.to_owned(),
                },
            })
            .collect()
    }
}

#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    room: Option<(u64, u64)>,
    memory_percent: Option<f64>,
    /// Ticks that the processors were busy, and all.
    busy: u64,
    ticks: u64,
    received: u64,
}

pub struct VitalsWatch {
    vault: Vault,
    store: Store,
    sessions: Sessions,
    samples: Mutex<VecDeque<Sample>>,
}

impl VitalsWatch {
    pub fn new(vault: Vault, store: Store, sessions: Sessions) -> Self {
        Self {
            vault,
            store,
            sessions,
            samples: Mutex::default(),
        }
    }

    /// Takes samples until `stop`.
    pub async fn run(self: std::sync::Arc<Self>, stop: CancellationToken) {
        loop {
            let this = self.clone();
            // A store that hangs must not hold up the others' tasks; what is not measured any more rings.
            let _ = tokio::task::spawn_blocking(move || this.sample()).await;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    fn sample(&self) {
        let (busy, ticks) = std::fs::read_to_string("/proc/stat")
            .ok()
            .and_then(|text| cpu_ticks(&text))
            .unwrap_or_default();
        let sample = Sample {
            room: rustix::fs::statvfs(self.store.root()).ok().map(|room| {
                (
                    room.f_blocks.saturating_mul(room.f_frsize),
                    room.f_bavail.saturating_mul(room.f_frsize),
                )
            }),
            memory_percent: std::fs::read_to_string("/proc/meminfo")
                .ok()
                .and_then(|text| memory_percent(&text)),
            at: Instant::now(),
            busy,
            ticks,
            received: self.sessions.received_bytes(),
        };
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.push_back(sample);
        while samples.len() > SAMPLES {
            samples.pop_front();
        }
    }

    pub fn now(&self) -> Vitals {
        let ends = {
            let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
            samples.front().copied().zip(samples.back().copied())
        };
        let (mut cpu_percent, mut rate) = (None, None);
        if let Some((first, last)) = ends {
            let ticks = last.ticks.saturating_sub(first.ticks);
            let seconds = (last.at - first.at).as_secs_f64();
            if ticks > 0 {
                cpu_percent = Some(last.busy.saturating_sub(first.busy) as f64 * 100.0 / ticks as f64);
            }
            if seconds > 0.0 {
                rate = Some(last.received.saturating_sub(first.received) as f64 / seconds);
            }
        }
        let last = ends.map(|(_, last)| last);
        let room = last.and_then(|last| last.room);
        let backlog_bytes = self.vault.pending_bytes();
        Vitals {
            cpu_percent,
            memory_percent: last.and_then(|last| last.memory_percent),
            store_capacity_bytes: room.map(|(all, _)| all),
            store_free_bytes: room.map(|(_, free)| free),
            silent: last.map(|last| last.at.elapsed()),
            backlog_bytes,
            held_bytes: self.sessions.held_bytes(),
            received_bytes_per_second: rate,
            backlog_eta_seconds: rate
                .filter(|rate| *rate > 0.0 && backlog_bytes > 0)
                .map(|rate| (backlog_bytes as f64 / rate).min(1e9) as u64),
        }
    }
}

/// Busy and all ticks of all processors: the first line of `/proc/stat` (proc_stat(5)).
fn cpu_ticks(text: &str) -> Option<(u64, u64)> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line
        .split_whitespace()
        // Guest time is counted in user time already.
        .take(8)
        .map(str::parse)
        .collect::<Result<_, _>>()
        .ok()?;
    let all: u64 = ticks.iter().sum();
    // Idle, and waiting for a disk.
    let idle = ticks.get(3)? + ticks.get(4)?;
    Some((all - idle, all))
}

/// Share of the memory that a new program could not have (proc_meminfo(5)).
fn memory_percent(text: &str) -> Option<f64> {
    let field = |name: &str| -> Option<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':')
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    };
    let (all, free) = (field("MemTotal")?, field("MemAvailable")?);
    (all > 0.0).then(|| (all - free) * 100.0 / all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_ring_at_the_values_of_the_reference_model() {
        let well = Vitals {
            cpu_percent: Some(80.0),
            memory_percent: Some(80.0),
            store_capacity_bytes: Some(1000),
            store_free_bytes: Some(300),
            backlog_eta_seconds: Some(1800),
            silent: Some(SILENT),
            ..Vitals::default()
        };
        assert_eq!(well.alarms(), []);
        assert_eq!(Vitals::default().alarms(), []);
        let severities = |vitals: Vitals| -> Vec<(&'static str, Severity)> {
            vitals
                .alarms()
                .into_iter()
                .map(|alarm| (alarm.code, alarm.severity))
                .collect()
        };
        let warned = Vitals {
            cpu_percent: Some(80.1),
            memory_percent: Some(95.0),
            store_free_bytes: Some(299),
            backlog_eta_seconds: Some(1801),
            ..well.clone()
        };
        let critical = Vitals {
            cpu_percent: Some(95.1),
            memory_percent: Some(95.1),
            store_free_bytes: Some(249),
            backlog_eta_seconds: Some(2701),
            silent: Some(SILENT + Duration::from_secs(1)),
            ..well
        };
        let codes = [
            "ProcessServerCpu",
            "ProcessServerMemory",
            "ProcessServerStore",
            "ProcessServerBacklog",
        ];
        assert_eq!(severities(warned), codes.map(|code| (code, Severity::Warning)));
        let troubles = critical.troubles();
        let rooms: Vec<_> = troubles.iter().map(|trouble| trouble.free_bytes).collect();
        assert_eq!(rooms, [None, None, Some(249), None, None]);
        let mut expected = codes.map(|code| (code, Severity::Critical)).to_vec();
        expected.push(("ProcessServerSilent", Severity::Critical));
        assert_eq!(severities(critical), expected);
    }

    #[test]
    fn the_kernels_tables_are_read() {
        let stat = "cpu  100 0 50 800 50 0 0 0 7 0\ncpu0 1 2 3\n";
        assert_eq!(cpu_ticks(stat), Some((150, 1000)));
        assert_eq!(cpu_ticks("intr 1"), None);
        let meminfo = "MemTotal:       1000 kB\nMemFree: 10 kB\nMemAvailable:    250 kB\n";
        assert_eq!(memory_percent(meminfo), Some(75.0));
        let own = std::fs::read_to_string("/proc/stat").unwrap();
        assert!(cpu_ticks(&own).is_some());
    }
}
