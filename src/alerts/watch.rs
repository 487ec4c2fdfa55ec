//! Looks once a minute at what is of the site and not of one machine: room in the store and its trend, certificates.
use super::ringing::Ringing;
use crate::replica::Store;
use crate::rt::now_unix_nanos;
use crate::vault::{
    HealthError, ServerTrouble, Severity, StoreSample, Vault, VaultError, age, growth_rate,
    seconds_until_full,
};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const PERIOD: Duration = Duration::from_secs(60);
const DAY_SECONDS: i64 = 86_400;
/// The trend is that of this time.
const TREND_SECONDS: i64 = 7 * DAY_SECONDS;
const FULL_DAYS_WARNING: f64 = 14.0;
const FULL_DAYS_CRITICAL: f64 = 3.0;
const CERTIFICATE_DAYS_WARNING: i64 = 30;
const CERTIFICATE_DAYS_CRITICAL: i64 = 7;

pub struct SiteWatch {
    pub vault: Vault,
    pub store: Store,
    /// What rings at the process server now, and the room in its store where that rings.
    pub alarms: Arc<dyn Fn() -> Vec<ServerTrouble> + Send + Sync>,
    /// Days until the server's own certificate ends.
    pub certificate_days: Arc<dyn Fn() -> Option<i64> + Send + Sync>,
}

impl SiteWatch {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let this = Arc::new((self, Mutex::new(Ringing::default())));
        let mut tick = tokio::time::interval(PERIOD);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let round = this.clone();
            let looked = tokio::task::spawn_blocking(move || {
                round
                    .0
                    .round(&mut round.1.lock().unwrap_or_else(PoisonError::into_inner))
            })
            .await;
            if let Ok(Err(error)) = looked {
                tracing::warn!(%error, "the site was not looked at");
            }
        }
    }

    fn round(&self, ringing: &mut Ringing) -> Result<(), VaultError> {
        self.vault.look_at_certificates()?;
        let now_unix = now_unix_nanos() / 1_000_000_000;
        let mut errors = Vec::new();
        match rustix::fs::statvfs(self.store.root()) {
            Ok(room) => {
                let sample = StoreSample {
                    at_unix: now_unix,
                    stored_bytes: self
                        .store
                        .machines()
                        .iter()
                        .map(|machine| machine.stored_bytes)
                        .sum(),
                    free_bytes: room.f_bavail.saturating_mul(room.f_frsize),
                    capacity_bytes: room.f_blocks.saturating_mul(room.f_frsize),
                };
                self.vault.record_store(sample)?;
                let history = self.vault.store_history(now_unix - TREND_SECONDS)?;
                errors.extend(fills_up(&history, sample.free_bytes));
            }
            Err(error) => tracing::warn!(%error, "the room in the store is unknown"),
        }
        errors.extend((self.certificate_days)().and_then(certificate_ends));
        let alarms = (self.alarms)();
        let (on, keeping_out) = ringing.look(
            Instant::now(),
            alarms.iter().map(|alarm| alarm.error.clone()).collect(),
        );
        errors.extend(on);
        self.vault.set_site_errors(errors);
        let keeps_out =
            |alarm: &ServerTrouble| keeping_out.iter().any(|error| error.code == alarm.error.code);
        self.vault
            .set_server_troubles(alarms.into_iter().filter(keeps_out).collect());
        Ok(())
    }
}

fn fills_up(history: &[StoreSample], free_bytes: u64) -> Option<HealthError> {
    let growth = growth_rate(history)?;
    let seconds = seconds_until_full(free_bytes, growth)?;
    let days = seconds / DAY_SECONDS as f64;
    if days > FULL_DAYS_WARNING {
        return None;
    }
    Some(HealthError {
        code: "StoreFillsUp",
        category: "Infrastructure",
        severity: if days > FULL_DAYS_CRITICAL {
            Severity::Warning
        } else {
            Severity::Critical
        },
        summary: "The store will be full soon".to_owned(),
        message: format!(
            "the store is full in {}: {} MiB are free and {} MiB come in per day",
            age((seconds * 1e9) as i64),
            free_bytes >> 20,
            (growth * DAY_SECONDS as f64) as u64 >> 20
        ),
        possible_causes: "machines were added, write more than before, or points are kept longer".to_owned(),
        recommended_action:
            "enlarge the file system, or keep points for a shorter time; reckon: lifeboat capacity".to_owned(),
    })
}

fn certificate_ends(days: i64) -> Option<HealthError> {
    if days >= CERTIFICATE_DAYS_WARNING {
        return None;
    }
    Some(HealthError {
        code: "ServerCertificateEnds",
        category: "Infrastructure",
        severity: if days >= CERTIFICATE_DAYS_CRITICAL {
            Severity::Warning
        } else {
            Severity::Critical
        },
        summary: "The certificate of this server ends soon".to_owned(),
        message: if days >= 0 {
            format!("the certificate of this server ends in {days} days")
        } else {
            format!("the certificate of this server ended {} days ago", -days)
        },
        possible_causes: "the server has been running for very long: it renews its certificate at its start"
            .to_owned(),
        recommended_action: "restart the server; running machines go on running".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_fills_up_is_told_of_in_time() {
        // 1 GiB less per hour over ten hours.
        let history: Vec<_> = (0..10u64)
            .map(|hour| StoreSample {
                at_unix: hour as i64 * 3600,
                stored_bytes: 0,
                free_bytes: (1000 - hour) << 30,
                capacity_bytes: 2000 << 30,
            })
            .collect();
        let told = |free: u64| fills_up(&history, free << 30);
        assert_eq!(told(24 * 15), None, "15 days");
        let warning = told(24 * 10).unwrap();
        assert_eq!(warning.severity, Severity::Warning);
        assert!(
            warning.message.contains("full in 10 d 0 h"),
            "{}",
            warning.message
        );
        assert!(
            warning.message.contains("24576 MiB come in per day"),
            "{}",
            warning.message
        );
        assert_eq!(told(24 * 2).unwrap().severity, Severity::Critical);
        assert_eq!(fills_up(&history[..3], 1), None, "two hours are no trend");
    }

    #[test]
    fn the_servers_certificate() {
        assert_eq!(certificate_ends(30), None);
        assert_eq!(certificate_ends(29).unwrap().severity, Severity::Warning);
        assert_eq!(certificate_ends(6).unwrap().severity, Severity::Critical);
        assert!(certificate_ends(-2).unwrap().message.contains("ended 2 days ago"));
    }
}
