//! `/metrics` in the text format of Prometheus. Whoever may read a vault sees its machines; an operator of the server may open it
//! to everybody (`lifeboat serve --metrics-public`).
use super::ApiState;
use super::access::Caller;
use super::problem::ApiError;
use crate::vault::{ItemRow, Live, OpenHealthError};
use axum::Extension;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Families in the order in which they were first written; samples of a family stand together, as the format asks.
#[derive(Default)]
struct Exposition {
    families: Vec<(&'static str, String)>,
}

fn escaped(text: &str, is_label: bool) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    if is_label { text.replace('"', "\\\"") } else { text }
}

fn number(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        value.to_string()
    }
}

impl Exposition {
    fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        if !self.families.iter().any(|(known, _)| *known == name) {
            let head = format!("# HELP {name} {}\n# TYPE {name} {kind}\n", escaped(help, false));
            self.families.push((name, head));
        }
    }

    fn gauge(&mut self, name: &'static str, help: &str, labels: &[(&str, &str)], value: f64) {
        self.family(name, "gauge", help);
        self.sample(name, labels, value);
    }

    fn counter(&mut self, name: &'static str, help: &str, labels: &[(&str, &str)], value: f64) {
        self.family(name, "counter", help);
        self.sample(name, labels, value);
    }

    fn sample(&mut self, name: &'static str, labels: &[(&str, &str)], value: f64) {
        let Some((_, text)) = self.families.iter_mut().find(|(known, _)| *known == name) else {
            return;
        };
        let labels: Vec<String> = labels
            .iter()
            .map(|(label, value)| format!("{label}=\"{}\"", escaped(value, true)))
            .collect();
        let _ = if labels.is_empty() {
            writeln!(text, "{name} {}", number(value))
        } else {
            writeln!(text, "{name}{{{}}} {}", labels.join(","), number(value))
        };
    }

    fn text(self) -> String {
        self.families.into_iter().map(|(_, text)| text).collect()
    }
}

fn seconds(unix_nanos: i64) -> f64 {
    // To the millisecond: more is noise, and a float that is read by people should be short.
    (unix_nanos / 1_000_000) as f64 / 1e3
}

/// Figures of the server for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "Site",
    responses((status = 200, description = "Prometheus text format 0.0.4", body = String, content_type = "text/plain")))]
pub async fn metrics(
    State(state): State<ApiState>,
    caller: Option<Extension<Caller>>,
) -> Result<Response, ApiError> {
    let text = state
        .run(move |state| {
            let mut out = Exposition::default();
            out.gauge(
                "lifeboat_build_info",
                "Version of the server, in a label.",
                &[("version", env!("CARGO_PKG_VERSION"))],
                1.0,
            );
            let vaults: Vec<String> = state
                .vault
                .vaults()?
                .into_iter()
                // Without a caller it is public.
                .filter(|vault| {
                    caller
                        .as_ref()
                        .is_none_or(|caller| caller.role_in(vault).is_some())
                })
                .collect();
            items(state, &vaults, &mut out)?;
            for vault in &vaults {
                jobs_and_alerts(state, vault, &mut out)?;
            }
            site(state, &mut out);
            Ok(out.text())
        })
        .await?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}

fn items(state: &ApiState, vaults: &[String], out: &mut Exposition) -> Result<(), ApiError> {
    let stored: HashMap<_, _> = state
        .store
        .machines()
        .into_iter()
        .map(|machine| (machine.id, (machine.stored_bytes, machine.points)))
        .collect();
    let now = crate::rt::now_unix_nanos();
    for row in state.vault.all_items()? {
        if !vaults.contains(&row.vault) {
            continue;
        }
        let live = state.vault.live(row.item.machine);
        let labels = [("vault", row.vault.as_str()), ("machine", row.item.name.as_str())];
        replication(&row, &live, now, &labels, out);
        traffic(&live, &labels, out);
        if let Some((bytes, points)) = stored.get(&row.item.machine) {
            out.gauge(
                "lifeboat_store_bytes",
                "Bytes that a machine takes in the replica store.",
                &labels,
                *bytes as f64,
            );
            out.gauge(
                "lifeboat_recovery_points",
                "Recovery points of a machine.",
                &labels,
                *points as f64,
            );
        }
    }
    Ok(())
}

fn replication(row: &ItemRow, live: &Live, now: i64, labels: &[(&str, &str)], out: &mut Exposition) {
    let health = crate::vault::replication_health(row, live, now);
    out.gauge(
        "lifeboat_replication_health",
        "Health of replication: 0 Normal, 1 Warning, 2 Critical, -1 None.",
        labels,
        match health.word {
            "Normal" => 0.0,
            "Warning" => 1.0,
            "Critical" => 2.0,
            _ => -1.0,
        },
    );
    out.gauge(
        "lifeboat_replication_rpo_threshold_seconds",
        "RPO that the policy allows.",
        labels,
        f64::from(row.policy.rpo_threshold_seconds),
    );
    if let Some(point) = &live.last_good_point {
        let instant = point.instant_unix_nanos;
        if row.item.has_points_to_come() {
            out.gauge(
                "lifeboat_replication_rpo_seconds",
                "Age of the newest recovery point that is durable at the target.",
                labels,
                seconds((now - instant).max(0)),
            );
        }
        out.gauge(
            "lifeboat_last_recovery_point_timestamp_seconds",
            "Instant of the newest recovery point.",
            labels,
            seconds(instant),
        );
        out.gauge(
            "lifeboat_freeze_seconds",
            "How long file systems were frozen for the newest recovery point.",
            labels,
            f64::from(live.freeze_micros) / 1e6,
        );
    }
    if let Some(tested) = row.item.last_successful_test_unix_nanos {
        out.gauge(
            "lifeboat_last_test_failover_timestamp_seconds",
            "Last test failover that was cleaned up with success.",
            labels,
            seconds(tested),
        );
    }
    out.gauge(
        "lifeboat_replication_session",
        "1 while the agent has a replication session.",
        labels,
        if live.session.is_some() { 1.0 } else { 0.0 },
    );
    if let Some((_, until)) = live.signs.certificate {
        certificate(
            out,
            &[labels[0], ("subject", "machine"), ("machine", &row.item.name)],
            until,
        );
    }
}

fn certificate(out: &mut Exposition, labels: &[(&str, &str)], until_unix: i64) {
    out.gauge(
        "lifeboat_certificate_expiry_timestamp_seconds",
        "End of a certificate.",
        labels,
        until_unix as f64,
    );
}

fn traffic(live: &Live, labels: &[(&str, &str)], out: &mut Exposition) {
    let Some(heartbeat) = &live.heartbeat else { return };
    out.gauge(
        "lifeboat_agent_last_seen_timestamp_seconds",
        "Last heartbeat of an agent.",
        labels,
        seconds(heartbeat.at_unix_nanos),
    );
    out.gauge(
        "lifeboat_agent_clock_skew_seconds",
        "Clock of the agent minus that of the server.",
        labels,
        heartbeat.clock_skew_nanos as f64 / 1e9,
    );
    let sum = |bytes: fn(&crate::vault::LiveDisk) -> u64| -> f64 {
        heartbeat.disks.iter().map(|disk| bytes(disk) as f64).sum()
    };
    out.gauge(
        "lifeboat_replication_lag_bytes",
        "Bytes that changed and are not durable at the target yet.",
        labels,
        sum(|disk| disk.pending_bytes),
    );
    out.counter(
        "lifeboat_agent_read_bytes_total",
        "Bytes read from protected disks since the agent started.",
        labels,
        sum(|disk| disk.read_bytes),
    );
    out.counter(
        "lifeboat_agent_shipped_bytes_total",
        "Bytes shipped since the agent started, as they go over the wire.",
        labels,
        sum(|disk| disk.shipped_bytes),
    );
    out.counter(
        "lifeboat_agent_changed_bytes_total",
        "Bytes of changed blocks shipped since the agent started.",
        labels,
        sum(|disk| disk.changed_bytes),
    );
}

fn jobs_and_alerts(state: &ApiState, vault: &str, out: &mut Exposition) -> Result<(), ApiError> {
    for (kind, result, count) in state.vault.job_counts(vault)? {
        out.counter(
            "lifeboat_job_total",
            "Jobs by kind and result.",
            &[("vault", vault), ("kind", &kind), ("result", &result)],
            count as f64,
        );
    }
    let mut errors: BTreeMap<(String, String), u64> = BTreeMap::new();
    for OpenHealthError { code, severity, .. } in state.vault.open_health_errors(vault)? {
        *errors.entry((code, format!("{severity:?}"))).or_default() += 1;
    }
    out.family(
        "lifeboat_health_errors",
        "gauge",
        "Health errors that are on, by code and severity.",
    );
    for ((code, severity), count) in errors {
        let labels = [("vault", vault), ("code", &code), ("severity", &severity)];
        out.sample("lifeboat_health_errors", &labels, count as f64);
    }
    out.gauge(
        "lifeboat_alert_deliveries_pending",
        "Alert messages that have not arrived yet.",
        &[("vault", vault)],
        state.vault.pending_deliveries(vault)? as f64,
    );
    Ok(())
}

fn site(state: &ApiState, out: &mut Exposition) {
    if let Ok(room) = rustix::fs::statvfs(state.store.root()) {
        out.gauge(
            "lifeboat_store_free_bytes",
            "Free bytes in the file system of the store.",
            &[],
            room.f_bavail.saturating_mul(room.f_frsize) as f64,
        );
        out.gauge(
            "lifeboat_store_capacity_bytes",
            "Size of the file system of the store.",
            &[],
            room.f_blocks.saturating_mul(room.f_frsize) as f64,
        );
    }
    if let Some(until) = state.site.certificate_ends_unix() {
        certificate(out, &[("subject", "server")], until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_prometheus_reads() {
        let mut out = Exposition::default();
        out.gauge("a_bytes", "Bytes\nof \\ a.", &[("machine", "we\"b\\1\n")], 1.5);
        out.counter("b_total", "Count.", &[], 3.0);
        out.gauge(
            "a_bytes",
            "ignored",
            &[("machine", "x"), ("vault", "default")],
            f64::INFINITY,
        );
        out.gauge("c", "Big.", &[], 1e15);
        assert_eq!(
            out.text(),
            "# HELP a_bytes Bytes\\nof \\\\ a.\n# TYPE a_bytes gauge\n\
             a_bytes{machine=\"we\\\"b\\\\1\\n\"} 1.5\na_bytes{machine=\"x\",vault=\"default\"} +Inf\n\
             # HELP b_total Count.\n# TYPE b_total counter\nb_total 3\n\
             # HELP c Big.\n# TYPE c gauge\nc 1000000000000000\n"
        );
        assert_eq!(number(f64::NAN), "NaN");
        assert_eq!(seconds(1_700_000_000_123_456_789), 1_700_000_000.123);
    }
}
