//! The daily summary: how the vault is, once a day, also when nothing is wrong: silence alone proves nothing.
use super::alerts::{self, AlertGroup, AlertKind, Digest};
use super::{JobFilter, Severity, Vault, VaultError, day_time};
use crate::recovery::JobState;
use rusqlite::{OptionalExtension, params};

const DAY_NANOS: i64 = 86_400 * 1_000_000_000;
/// A machine that was not tried for so long is named as due.
const TEST_DUE_NANOS: i64 = 183 * DAY_NANOS;
const NAMED_MAX: usize = 10;
const JOBS_COUNTED_MAX: u32 = 1000;

fn names(all: &[String]) -> String {
    let mut text = all.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    if all.len() > NAMED_MAX {
        text = format!("{text} and {} more", all.len() - NAMED_MAX);
    }
    text
}

impl Vault {
    /// Composes the summaries that are due: once a day, from the time on that the settings name.
    pub(super) fn compose_summaries(&self, now: i64) -> Result<(), VaultError> {
        let (day, minute) = day_time::local(now);
        let vaults: Vec<(i64, String)> = self.read(|transaction| {
            let rows = transaction
                .prepare_cached(
                    "SELECT vaults.id, vaults.name FROM vaults JOIN alert_settings ON alert_settings.vault = vaults.id
                     WHERE NOT EXISTS (SELECT 1 FROM alert_summaries AS told WHERE told.vault = vaults.id AND told.day >= ?1)",
                )?
                .query_map([&day], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<_, _>>()?;
            Ok(rows)
        })?;
        for (vault, name) in vaults {
            let settings = self.read(|transaction| alerts::settings(transaction, vault))?;
            let due = settings
                .daily_summary_at
                .as_deref()
                .and_then(|at| day_time::minute_of("dailySummaryAt", at).ok())
                .is_some_and(|at| minute >= at);
            if !due || settings.channels().is_empty() {
                continue;
            }
            let digest = self.summary(&name, now)?;
            self.write(|transaction| {
                let told: Option<String> = transaction
                    .query_row("SELECT day FROM alert_summaries WHERE vault = ?1", [vault], |row| {
                        row.get(0)
                    })
                    .optional()?;
                if told.is_some_and(|told| told >= day) {
                    return Ok(());
                }
                for channel in settings.channels() {
                    alerts::insert_delivery(transaction, vault, &channel.to_string(), "Alert", &digest, now)?;
                }
                transaction.execute(
                    "INSERT INTO alert_summaries (vault, day) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET day = ?2",
                    params![vault, day],
                )?;
                Ok(())
            })?;
        }
        Ok(())
    }

    fn summary(&self, vault: &str, now: i64) -> Result<Digest, VaultError> {
        let rows: Vec<_> = self
            .all_items()?
            .into_iter()
            .filter(|row| row.vault == vault)
            .collect();
        let (mut critical, mut warning, mut due) = (Vec::new(), Vec::new(), Vec::new());
        for row in &rows {
            match super::replication_health(row, &self.live(row.item.machine), now).word {
                "Critical" => critical.push(row.item.name.clone()),
                "Warning" => warning.push(row.item.name.clone()),
                _ => {}
            }
            let tested = row.item.last_successful_test_unix_nanos;
            if tested.is_none_or(|at| now - at > TEST_DUE_NANOS) {
                due.push(row.item.name.clone());
            }
        }
        let jobs = |state| {
            let filter = JobFilter {
                state: Some(state),
                since_unix_nanos: Some(now - DAY_NANOS),
                ..JobFilter::default()
            };
            Ok::<_, VaultError>(self.jobs(vault, &filter, JOBS_COUNTED_MAX)?.len())
        };
        let (failed, succeeded, waiting) = (
            jobs(JobState::Failed)?,
            jobs(JobState::Succeeded)?,
            jobs(JobState::Suspended)?,
        );
        let open = self.open_health_errors(vault)?;
        let of_site: Vec<String> = open
            .iter()
            .filter(|error| error.machine.is_none())
            .map(|error| error.summary.clone())
            .collect();
        let mut lines = vec![format!(
            "{} replicated: {} critical, {} with warnings",
            rows.len(),
            critical.len(),
            warning.len()
        )];
        for (what, which) in [
            ("critical", &critical),
            ("with warnings", &warning),
            ("test failover due", &due),
            ("site", &of_site),
        ] {
            if !which.is_empty() {
                lines.push(format!("{what}: {}", names(which)));
            }
        }
        lines.push(format!(
            "jobs of the last day: {succeeded} succeeded, {failed} failed, {waiting} waiting for a person"
        ));
        let severity = if critical.is_empty() && warning.is_empty() && failed == 0 {
            Severity::Information
        } else {
            Severity::Warning
        };
        Ok(Digest {
            alerts: vec![AlertGroup {
                kind: AlertKind::Occurred,
                code: "DailySummary".to_owned(),
                severity,
                summary: format!("Daily summary: {}", lines[0]),
                count: 1,
                first_unix_nanos: now,
                last_unix_nanos: now,
                machine_count: 0,
                machines: Vec::new(),
                message: lines.join("\n  "),
                possible_causes: String::new(),
                recommended_action: String::new(),
            }],
        })
    }
}
