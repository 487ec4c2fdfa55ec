use super::*;
use crate::rt::{Fact, Report, now_unix_nanos};
use crate::vault::tests::{joined, replicating, vault};
use crate::vault::{DEFAULT_VAULT, HealthError, QuietHours};

const SECOND: i64 = 1_000_000_000;

fn hook(name: &str) -> WebhookSettings {
    WebhookSettings {
        name: name.to_owned(),
        url: format!("http://127.0.0.1:1/{name}"),
        ca_pem: None,
    }
}

fn settings(names: &[&str]) -> AlertSettings {
    AlertSettings {
        digest_seconds: 60,
        webhooks: names.iter().map(|name| hook(name)).collect(),
        ..AlertSettings::default()
    }
}

fn set(vault: &Vault, settings: &AlertSettings) {
    let secrets = settings
        .channels()
        .into_iter()
        .map(|channel| (channel, Some(Secret::new("0123456789abcdef".to_owned()))))
        .collect();
    vault
        .set_alert_settings(DEFAULT_VAULT, settings, &secrets, None)
        .unwrap();
}

/// `code kind names` of each group of each message that is due at `now`, which is then delivered.
fn sent(vault: &Vault, now: i64) -> Vec<String> {
    vault.compose_alerts(now).unwrap();
    let mut all = Vec::new();
    for delivery in vault.due_deliveries(now, 100).unwrap() {
        for alert in &delivery.digest.alerts {
            let names: Vec<_> = alert
                .machines
                .iter()
                .map(|machine| machine.name.as_str())
                .collect();
            all.push(format!(
                "{} {} {:?} {}",
                delivery.channel,
                alert.code,
                alert.kind,
                names.join(",")
            ));
        }
        vault.delivered(&delivery, now).unwrap();
    }
    all
}

fn site_error(severity: Severity) -> HealthError {
    HealthError {
        code: "StoreFillsUp",
        category: "Infrastructure",
        severity,
        summary: "full soon".to_owned(),
        message: "full in 3 days".to_owned(),
        possible_causes: "x".to_owned(),
        recommended_action: "y".to_owned(),
    }
}

fn failed_job(message: &str) -> NewEvent {
    NewEvent {
        severity: Severity::Warning,
        code: "FailoverFailed".to_owned(),
        machine: None,
        job: None,
        message: message.to_owned(),
        possible_causes: "x".to_owned(),
        recommended_action: "y".to_owned(),
    }
}

#[test]
fn news_waits_for_its_window_and_goes_out_grouped() {
    let (_folder, vault) = vault();
    set(&vault, &settings(&["a", "b"]));
    let machines = ["web1", "web2"].map(|name| joined(&vault, name));
    let now = now_unix_nanos();
    for machine in machines {
        replicating(&vault, machine);
        let message = "full".to_owned();
        vault.report(Fact::StoreFull { machine, message });
    }
    vault.tell_of_health(now).unwrap();
    vault.event(&failed_job("once")).unwrap();
    vault.event(&failed_job("twice")).unwrap();
    assert_eq!(sent(&vault, now + 59 * SECOND), [""; 0], "the window is open");
    let told = sent(&vault, now + 61 * SECOND);
    let expected: Vec<String> = ["a", "b"]
        .iter()
        .flat_map(|name| {
            [
                format!("webhook:{name} StoreFull Raised web1,web2"),
                format!("webhook:{name} FailoverFailed Occurred "),
            ]
        })
        .collect();
    assert_eq!(told, expected);
    let log = vault
        .deliveries(DEFAULT_VAULT, &DeliveryFilter::default(), None, 10)
        .unwrap();
    assert_eq!(log.len(), 2);
    assert!(
        log.iter()
            .all(|line| line.state == DeliveryState::Delivered && line.attempts == 1)
    );
    assert_eq!(log[0].digest.alerts[1].count, 2, "it happened twice");
    // It is still on: nothing more to say, also not after a restart.
    vault.tell_of_health(now + 30 * SECOND).unwrap();
    assert_eq!(sent(&vault, now + 600 * SECOND), [""; 0]);
    for machine in machines {
        vault.report(Fact::StoreHasRoom { machine });
    }
    vault.tell_of_health(now + SECOND).unwrap();
    let over: Vec<_> = sent(&vault, now + 1000 * SECOND)
        .into_iter()
        .filter(|line| line.starts_with("webhook:a"))
        .collect();
    assert_eq!(over, ["webhook:a StoreFull Over web1,web2"]);
}

#[test]
fn what_came_and_went_is_in_no_message_and_what_got_worse_is() {
    let (_folder, vault) = vault();
    set(&vault, &settings(&["a"]));
    let now = now_unix_nanos();
    let look = |errors: Vec<HealthError>| {
        vault.set_site_errors(errors);
        vault.tell_of_health(now).unwrap();
    };
    look(vec![site_error(Severity::Warning)]);
    look(Vec::new());
    assert_eq!(sent(&vault, now + 61 * SECOND), [""; 0], "came and went");
    look(vec![site_error(Severity::Warning)]);
    assert_eq!(
        sent(&vault, now + 61 * SECOND),
        ["webhook:a StoreFillsUp Raised "]
    );
    // Gone and back within a window: to the reader it has been on all the time.
    look(Vec::new());
    look(vec![site_error(Severity::Warning)]);
    assert_eq!(sent(&vault, now + 61 * SECOND), [""; 0]);
    look(vec![site_error(Severity::Critical)]);
    assert_eq!(
        sent(&vault, now + 61 * SECOND),
        ["webhook:a StoreFillsUp Raised "],
        "worse"
    );
    look(vec![site_error(Severity::Warning)]);
    assert_eq!(sent(&vault, now + 61 * SECOND), [""; 0], "better is not over");
    look(Vec::new());
    assert_eq!(sent(&vault, now + 61 * SECOND), ["webhook:a StoreFillsUp Over "]);
    let codes: Vec<_> = vault
        .events(DEFAULT_VAULT, &crate::vault::EventFilter::default(), 100)
        .unwrap()
        .into_iter()
        .map(|event| event.event.code)
        .filter(|code| code.starts_with("StoreFillsUp"))
        .collect();
    assert_eq!(codes.len(), 7, "the events have it all: {codes:?}");
}

#[test]
fn a_restart_tells_nothing_twice_and_forgets_no_end() {
    let (folder, first) = vault();
    set(&first, &settings(&["a"]));
    let now = now_unix_nanos();
    first.set_site_errors(vec![site_error(Severity::Warning)]);
    first.tell_of_health(now).unwrap();
    drop(first);
    // Killed before the message was made: it is made now.
    let second = Vault::open(&folder.path().join("vault.db")).unwrap();
    second.set_site_errors(vec![site_error(Severity::Warning)]);
    second.tell_of_health(now).unwrap();
    second.compose_alerts(now + 61 * SECOND).unwrap();
    let made = second.due_deliveries(now + 61 * SECOND, 10).unwrap();
    assert_eq!(made.len(), 1);
    drop(second);
    // Killed before it was sent, or before that was noted: the same message again.
    let third = Vault::open(&folder.path().join("vault.db")).unwrap();
    assert_eq!(third.due_deliveries(now + 61 * SECOND, 10).unwrap(), made);
    assert_eq!(
        sent(&third, now + 61 * SECOND),
        ["webhook:a StoreFillsUp Raised "]
    );
    // Over while nobody looked. Right after a start agents have not spoken yet: it counts only later.
    let opened = now_unix_nanos();
    third.tell_of_health(opened + 10 * SECOND).unwrap();
    assert_eq!(sent(&third, opened + 200 * SECOND), [""; 0]);
    third.tell_of_health(opened + 100 * SECOND).unwrap();
    assert_eq!(
        sent(&third, opened + 200 * SECOND),
        ["webhook:a StoreFillsUp Over "]
    );
}

#[test]
fn while_a_receiver_is_down_news_collects_and_others_are_told() {
    let (_folder, vault) = vault();
    set(&vault, &settings(&["down", "up"]));
    let mut now = now_unix_nanos();
    vault.event(&failed_job("first")).unwrap();
    now += 61 * SECOND;
    vault.compose_alerts(now).unwrap();
    let due = |now: i64| vault.due_deliveries(now, 100).unwrap();
    let of = |name: &str, now: i64| {
        due(now)
            .into_iter()
            .find(|delivery| delivery.channel == Channel::Webhook(name.to_owned()))
    };
    vault.delivered(&of("up", now).unwrap(), now).unwrap();
    let id = of("down", now).unwrap().id;
    for attempt in 1..ATTEMPTS_TOLD {
        let delivery = of("down", now).unwrap();
        assert_eq!((delivery.id, delivery.attempts), (id, attempt - 1));
        vault
            .delivery_failed(&delivery, "connection refused", now)
            .unwrap();
        assert_eq!(of("down", now), None, "not at once");
        now += backoff_nanos(attempt);
        // A thousand events more are one row each for code and machine.
        for number in 0..250 {
            vault.event(&failed_job(&number.to_string())).unwrap();
        }
        vault.compose_alerts(now + 3600 * SECOND).unwrap();
    }
    let all = vault
        .deliveries(DEFAULT_VAULT, &DeliveryFilter::default(), None, 1000)
        .unwrap();
    let down = |state| {
        all.iter()
            .filter(|line| line.channel == Channel::Webhook("down".to_owned()) && line.state == state)
            .count()
    };
    assert_eq!(
        down(DeliveryState::Pending),
        1,
        "one message under way, however long it is down"
    );
    // The fifth failure is told, to the other only.
    let delivery = of("down", now).unwrap();
    vault
        .delivery_failed(&delivery, "connection refused", now)
        .unwrap();
    let later = now + 2 * 3600 * SECOND;
    for delivery in due(later).into_iter().filter(|delivery| delivery.id != id) {
        vault.delivered(&delivery, later).unwrap();
    }
    vault.compose_alerts(later).unwrap();
    let told = of("up", later).unwrap();
    assert!(
        told.digest
            .alerts
            .iter()
            .any(|alert| alert.code == "AlertsNotDelivered"),
        "{told:?}"
    );
    // It comes back: the message, then one with all that collected.
    let delivery = of("down", later).unwrap();
    assert_eq!(delivery.id, id);
    vault.delivered(&delivery, later).unwrap();
    vault.compose_alerts(later).unwrap();
    let collected = of("down", later).unwrap();
    assert_eq!(collected.digest.alerts.len(), 1, "{collected:?}");
    assert_eq!(collected.digest.alerts[0].count, 1000);
    // After three days it is given up, and that is told.
    let end = later + GIVE_UP_NANOS + SECOND;
    vault.delivery_failed(&collected, "refused", end).unwrap();
    let state = vault
        .deliveries(DEFAULT_VAULT, &DeliveryFilter::default(), None, 1000)
        .unwrap();
    let state = state.iter().find(|line| line.id == collected.id).unwrap().state;
    assert_eq!(state, DeliveryState::Failed);
}

#[test]
fn a_new_channel_hears_what_is_on_and_a_removed_one_nothing() {
    let (_folder, vault) = vault();
    set(&vault, &settings(&["a"]));
    let now = now_unix_nanos();
    vault.set_site_errors(vec![site_error(Severity::Warning)]);
    vault.tell_of_health(now).unwrap();
    let later = now + 61 * SECOND;
    assert_eq!(sent(&vault, later), ["webhook:a StoreFillsUp Raised "]);
    set(&vault, &settings(&["a", "b"]));
    let later = now_unix_nanos() + 61 * SECOND;
    assert_eq!(sent(&vault, later), ["webhook:b StoreFillsUp Raised "]);
    vault.event(&failed_job("x")).unwrap();
    let later = now_unix_nanos() + 61 * SECOND;
    vault.compose_alerts(later).unwrap();
    set(&vault, &settings(&["b"]));
    let due = vault.due_deliveries(later, 10).unwrap();
    assert_eq!(due.len(), 1);
    assert_eq!(due[0].channel, Channel::Webhook("b".to_owned()));
    assert!(
        vault
            .alert_secret(DEFAULT_VAULT, &Channel::Webhook("a".to_owned()))
            .unwrap()
            .is_none()
    );
    // Only what is bad enough.
    let strict = AlertSettings {
        least_severity: Severity::Critical,
        ..settings(&["b"])
    };
    set(&vault, &strict);
    vault.delivered(&due[0], later).unwrap();
    vault.event(&failed_job("y")).unwrap();
    assert_eq!(sent(&vault, now_unix_nanos() + 61 * SECOND), [""; 0]);
}

#[test]
fn the_same_on_several_machines_has_one_summary() {
    let (_folder, vault) = vault();
    set(&vault, &settings(&["a"]));
    for name in ["web1", "web2"] {
        let event = NewEvent {
            machine: Some(joined(&vault, name)),
            ..failed_job(&format!("the failover of {name} failed"))
        };
        vault.event(&event).unwrap();
    }
    let now = now_unix_nanos() + 61 * SECOND;
    vault.compose_alerts(now).unwrap();
    let due = vault.due_deliveries(now, 10).unwrap();
    let group = &due[0].digest.alerts[0];
    assert_eq!(
        (group.summary.as_str(), group.machine_count),
        ("Failover failed", 2)
    );
    assert_eq!(group.machines[1].message, "the failover of web2 failed");
}

#[test]
fn waits_grow_and_end() {
    let seconds: Vec<i64> = [1, 2, 3, 5, 10, 11, 50]
        .map(|attempts| backoff_nanos(attempts) / SECOND)
        .into();
    assert_eq!(seconds, [2, 4, 8, 32, 1024, 1800, 1800]);
}

/// In a window nobody is told, and the event says so; what is still wrong at its end is told then.
#[test]
fn maintenance_keeps_quiet_and_forgets_nothing() {
    let (_folder, vault) = vault();
    let id = joined(&vault, "web1");
    replicating(&vault, id);
    set(&vault, &settings(&["hook"]));
    let now = now_unix_nanos();
    let plan = |ends: i64, machine| {
        vault
            .plan_maintenance(DEFAULT_VAULT, machine, (now - SECOND, ends), "disks", "olga")
            .unwrap()
    };
    let window = plan(now + 3600 * SECOND, Some(id));
    assert_eq!(window.machine, Some((id, "web1".to_owned())));
    assert!(
        vault
            .plan_maintenance(DEFAULT_VAULT, None, (now, now), "", "x")
            .is_err()
    );
    assert!(
        vault
            .plan_maintenance(DEFAULT_VAULT, None, (now, now + 32 * 86_400 * SECOND), "", "x")
            .is_err()
    );
    vault.report(Fact::Damaged {
        machine: id,
        message: "bytes are damaged".to_owned(),
    });
    vault.set_site_errors(vec![site_error(Severity::Warning)]);
    vault.tell_of_health(now).unwrap();
    // The site is not in the window.
    let told = sent(&vault, now + 100 * SECOND);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains(site_error(Severity::Warning).code), "{told:?}");
    let events = vault.events(DEFAULT_VAULT, &Default::default(), 100).unwrap();
    let marked: Vec<_> = events
        .iter()
        .filter(|event| event.event.message.starts_with("in maintenance: "))
        .map(|event| event.event.code.as_str())
        .collect();
    assert!(
        !marked.is_empty() && marked.iter().all(|code| *code == "ReplicaDamaged"),
        "{marked:?}"
    );
    vault.end_maintenance(DEFAULT_VAULT, window.id).unwrap();
    let late = now_unix_nanos() + 1;
    assert_eq!(
        sent(&vault, late),
        Vec::<String>::new(),
        "the digest waits its time"
    );
    assert_eq!(
        sent(&vault, late + 100 * SECOND),
        ["webhook:hook ReplicaDamaged Raised web1"]
    );
    assert_eq!(sent(&vault, late + 200 * SECOND), Vec::<String>::new(), "once");
    assert_eq!(
        vault.maintenance_windows(DEFAULT_VAULT).unwrap()[0].state(late),
        "Over"
    );
    // A window that has not begun is forgotten whole.
    let planned = vault
        .plan_maintenance(
            DEFAULT_VAULT,
            None,
            (late + 3600 * SECOND, late + 7200 * SECOND),
            "",
            "olga",
        )
        .unwrap();
    assert_eq!(planned.state(late), "Planned");
    vault.end_maintenance(DEFAULT_VAULT, planned.id).unwrap();
    assert_eq!(vault.maintenance_windows(DEFAULT_VAULT).unwrap().len(), 1);
}

#[test]
fn quiet_hours_let_only_the_critical_through_and_a_summary_comes_once_a_day() {
    let (_folder, vault) = vault();
    let now = now_unix_nanos();
    let (_, minute) = super::super::day_time::local(now);
    let clock = |minute: u16| format!("{:02}:{:02}", minute / 60 % 24, minute % 60);
    let hours = QuietHours {
        from: clock(minute),
        to: clock(minute + 60),
    };
    let quiet = AlertSettings {
        quiet_hours: Some(hours),
        ..settings(&["hook"])
    };
    set(&vault, &quiet);
    vault.set_site_errors(vec![site_error(Severity::Warning)]);
    vault.tell_of_health(now).unwrap();
    let after = |seconds: i64| now + seconds * SECOND;
    assert_eq!(sent(&vault, after(120)), Vec::<String>::new(), "it waits");
    vault.set_site_errors(vec![site_error(Severity::Critical)]);
    vault.tell_of_health(after(130)).unwrap();
    assert_eq!(sent(&vault, after(240)).len(), 1, "critical goes through");
    vault.set_site_errors(Vec::new());
    vault.tell_of_health(after(250)).unwrap();
    assert_eq!(sent(&vault, after(600)), Vec::<String>::new(), "its end waits");
    assert_eq!(sent(&vault, after(3700)).len(), 1, "until the hours are over");

    let daily = AlertSettings {
        daily_summary_at: Some("00:00".to_owned()),
        ..settings(&["hook"])
    };
    set(&vault, &daily);
    let summary = ["webhook:hook DailySummary Occurred "];
    // A noon, so that no midnight comes in between.
    let (_, minute) = super::super::day_time::local(after(3800));
    let noon = after(3800) + i64::from((720 + 1440 - minute) % 1440) * 60 * SECOND;
    assert_eq!(sent(&vault, noon), summary);
    assert_eq!(sent(&vault, noon + 100 * SECOND), Vec::<String>::new());
    assert_eq!(sent(&vault, noon + 86_400 * SECOND), summary);
    let bad = AlertSettings {
        daily_summary_at: Some("25:00".to_owned()),
        ..settings(&[])
    };
    assert!(
        vault
            .set_alert_settings(DEFAULT_VAULT, &bad, &BTreeMap::new(), None)
            .is_err()
    );
}
