//! What an alert says: the subject and text of an e-mail, the JSON of a webhook.
use crate::rt::now_unix_nanos;
use crate::vault::{AlertGroup, AlertKind, Delivery, Digest, Severity};
use serde_json::{Value, json};
use std::fmt::Write;

const SUBJECT_CHARS_MAX: usize = 150;

/// What `lifeboat alert test` sends.
pub fn test_digest(user: &str) -> Digest {
    let now = now_unix_nanos();
    Digest {
        alerts: vec![AlertGroup {
            kind: AlertKind::Occurred,
            code: "Test".to_owned(),
            severity: Severity::Information,
            summary: "This is a test of the alert settings".to_owned(),
            count: 1,
            first_unix_nanos: now,
            last_unix_nanos: now,
            machine_count: 0,
            machines: Vec::new(),
            message: format!("{user} asked for it; nothing is wrong"),
            possible_causes: String::new(),
            recommended_action: String::new(),
        }],
    }
}

fn instant(unix_nanos: i64) -> String {
    let instant = jiff::Timestamp::from_nanosecond(i128::from(unix_nanos)).unwrap_or_default();
    instant.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

fn machines(alert: &AlertGroup) -> String {
    match (alert.machine_count, alert.machines.as_slice()) {
        (0, _) => String::new(),
        // Its summary is a sentence that names the machine.
        (1, _) if alert.kind == AlertKind::Occurred => String::new(),
        (1, [machine, ..]) => format!(" on {}", machine.name),
        (count, _) => format!(" on {count} machines"),
    }
}

/// One line, without characters that could end a header.
pub fn subject(delivery: &Delivery) -> String {
    let digest = &delivery.digest;
    let text = match digest.alerts.as_slice() {
        [alert] => {
            let lead = match alert.kind {
                AlertKind::Over => "Over".to_owned(),
                _ => format!("{:?}", alert.severity),
            };
            format!("{lead}: {}{}", alert.summary, machines(alert))
        }
        alerts => {
            let on = alerts
                .iter()
                .filter(|alert| alert.kind != AlertKind::Over)
                .count();
            match (on, alerts.len() - on) {
                (0, over) => format!("Over: {over} alerts"),
                (on, 0) => format!("{:?}: {on} alerts", digest.severity()),
                (on, over) => format!("{:?}: {on} alerts, {over} over", digest.severity()),
            }
        }
    };
    let test = if delivery.is_test { "Test: " } else { "" };
    format!("[Lifeboat {}] {test}{text}", delivery.vault)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(SUBJECT_CHARS_MAX)
        .collect()
}

pub(super) fn text(delivery: &Delivery) -> String {
    let mut text = String::new();
    for alert in &delivery.digest.alerts {
        let lead = match alert.kind {
            AlertKind::Over => "OVER".to_owned(),
            _ => format!("{:?}", alert.severity).to_uppercase(),
        };
        let _ = writeln!(text, "{lead}: {}{}", alert.summary, machines(alert));
        if alert.machines.is_empty() && alert.message != alert.summary {
            let _ = writeln!(text, "  {}", alert.message);
        }
        for machine in &alert.machines {
            let _ = match alert.kind {
                AlertKind::Over => writeln!(text, "  {}", machine.name),
                _ => writeln!(text, "  {}: {}", machine.name, machine.message),
            };
        }
        let unnamed = alert.machine_count.saturating_sub(alert.machines.len());
        if unnamed > 0 {
            let _ = writeln!(text, "  and {unnamed} more machines");
        }
        let many = if alert.kind == AlertKind::Occurred && alert.count > 1 {
            format!("{} times, until {}", alert.count, instant(alert.last_unix_nanos))
        } else {
            instant(alert.first_unix_nanos)
        };
        let _ = writeln!(text, "  {} ({many})", alert.code);
        if !alert.possible_causes.is_empty() {
            let _ = writeln!(text, "  Possible causes: {}", alert.possible_causes);
        }
        if !alert.recommended_action.is_empty() {
            let _ = writeln!(text, "  Recommended action: {}", alert.recommended_action);
        }
        text.push('\n');
    }
    let _ = writeln!(
        text,
        "-- \nLifeboat on {}, vault {}, message {}",
        crate::agent::inventory::host_name(),
        delivery.vault,
        delivery.id
    );
    text
}

fn time(unix_nanos: i64) -> Value {
    let instant = jiff::Timestamp::from_nanosecond(i128::from(unix_nanos)).unwrap_or_default();
    json!(instant.to_string())
}

/// The body of a webhook. Fields are only ever added.
pub fn webhook_body(delivery: &Delivery) -> Value {
    let alerts: Vec<Value> = delivery
        .digest
        .alerts
        .iter()
        .map(|alert| {
            json!({
                "state": match alert.kind {
                    AlertKind::Raised => "raised",
                    AlertKind::Over => "over",
                    AlertKind::Occurred => "occurred",
                },
                "code": alert.code,
                "severity": alert.severity,
                "summary": alert.summary,
                "message": alert.message,
                "possibleCauses": alert.possible_causes,
                "recommendedAction": alert.recommended_action,
                "count": alert.count,
                "firstAt": time(alert.first_unix_nanos),
                "lastAt": time(alert.last_unix_nanos),
                "machineCount": alert.machine_count,
                "machines": alert.machines,
            })
        })
        .collect();
    json!({
        "version": 1,
        "id": delivery.id,
        "kind": if delivery.is_test { "test" } else { "alert" },
        "vault": delivery.vault,
        "server": crate::agent::inventory::host_name(),
        "createdAt": time(delivery.created_unix_nanos),
        "severity": delivery.digest.severity(),
        "summary": subject(delivery),
        "alerts": alerts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::{AlertMachine, Channel, DeliveryState};

    fn alert(kind: AlertKind, names: &[&str]) -> AlertGroup {
        AlertGroup {
            kind,
            code: "NoHeartbeat".to_owned(),
            severity: Severity::Critical,
            summary: "No heartbeat from the agent".to_owned(),
            count: names.len() as u64,
            first_unix_nanos: 1_700_000_000_000_000_000,
            last_unix_nanos: 1_700_000_000_000_000_000,
            machine_count: names.len(),
            machines: names
                .iter()
                .map(|name| AlertMachine {
                    id: format!("id-{name}"),
                    name: (*name).to_owned(),
                    message: format!("{name} is silent"),
                })
                .collect(),
            message: "silent".to_owned(),
            possible_causes: "it is down".to_owned(),
            recommended_action: "look".to_owned(),
        }
    }

    fn delivery(alerts: Vec<AlertGroup>) -> Delivery {
        Delivery {
            number: 1,
            id: uuid::Uuid::nil(),
            vault: "default".to_owned(),
            channel: Channel::Email,
            is_test: false,
            state: DeliveryState::Pending,
            created_unix_nanos: 0,
            next_unix_nanos: 0,
            attempts: 0,
            ended_unix_nanos: None,
            error: String::new(),
            digest: Digest { alerts },
        }
    }

    #[test]
    fn a_subject_is_one_line_and_says_the_worst() {
        let one = delivery(vec![alert(AlertKind::Raised, &["web1"])]);
        assert_eq!(
            subject(&one),
            "[Lifeboat default] Critical: No heartbeat from the agent on web1"
        );
        let many = delivery(vec![alert(AlertKind::Raised, &["a", "b", "c"])]);
        assert!(subject(&many).ends_with("on 3 machines"));
        let mut job = alert(AlertKind::Occurred, &["web1"]);
        job.summary = "the failover of web1 failed".to_owned();
        assert!(subject(&delivery(vec![job])).ends_with("Critical: the failover of web1 failed"));
        let over = delivery(vec![alert(AlertKind::Over, &["web1"])]);
        assert_eq!(
            subject(&over),
            "[Lifeboat default] Over: No heartbeat from the agent on web1"
        );
        assert_eq!(over.digest.severity(), Severity::Information);
        let mixed = delivery(vec![
            alert(AlertKind::Raised, &["a"]),
            alert(AlertKind::Occurred, &["a"]),
            alert(AlertKind::Over, &["b"]),
        ]);
        assert_eq!(subject(&mixed), "[Lifeboat default] Critical: 2 alerts, 1 over");
        let mut foul = alert(AlertKind::Raised, &[]);
        foul.summary = format!("x\r\nBcc: everybody@example.org{}", "y".repeat(500));
        let subject = subject(&delivery(vec![foul]));
        assert!(!subject.contains(['\r', '\n']) && subject.chars().count() <= SUBJECT_CHARS_MAX);
    }

    #[test]
    fn a_text_names_machines_causes_and_actions() {
        let mut storm = alert(AlertKind::Raised, &["a", "b"]);
        storm.machine_count = 70;
        let text = text(&delivery(vec![storm, alert(AlertKind::Over, &["c"])]));
        for part in [
            "CRITICAL: No heartbeat from the agent on 70 machines",
            "  a: a is silent",
            "and 68 more machines",
            "Possible causes: it is down",
            "Recommended action: look",
            "OVER: No heartbeat from the agent on c",
            "2023-11-14 22:13:20 UTC",
        ] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
    }
}
