//! Health errors that take more than one look: what moved and what did not over the last minutes, what ends soon.
use super::health::{SECOND, age};
use super::{ItemRow, Live, Severity};
use crate::recovery::{JobId, TestFailoverState};

const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// A freeze stops the machine's writes; people notice from about here.
const FREEZE_MICROS_LONG: u32 = 1_000_000;
/// One long freeze is told of this long.
const FREEZE_TOLD: i64 = 10 * MINUTE;
/// Nothing moved for this long: it stalls.
const STALLED: i64 = 2 * MINUTE;
/// A backlog that grew all this time, by this much, while the link was busy: more changes than can be shipped.
const CHURN_WINDOW: i64 = 10 * MINUTE;
const CHURN_BYTES: u64 = 64 << 20;
const UNCLEANED: i64 = DAY;
/// A round that fails is tried again within seconds.
const GROUP_PATIENCE: i64 = 20 * SECOND;

/// What moved when. Kept with [`Live`], made anew by heartbeats.
#[derive(Clone, Debug, Default)]
pub struct Signs {
    /// When an agent last read or shipped more than before.
    pub read_moved: Option<i64>,
    pub shipped_moved: Option<i64>,
    /// Since when the backlog has been growing: instant, pending and shipped bytes at that instant.
    pub backlog: Option<(i64, u64, u64)>,
    /// The same at the last heartbeat. Apart from [`Live::heartbeat`], whose figures a sealed point resets.
    pub backlog_now: (i64, u64, u64),
    /// The last freeze that took long: instant and microseconds.
    pub long_freeze: Option<(i64, u32)>,
    /// Of the newest certificate of the machine, Unix seconds: from, until.
    pub certificate: Option<(i64, i64)>,
}

/// Sums over the disks of a heartbeat.
#[derive(Clone, Copy, Default)]
struct Sums {
    read: u64,
    shipped: u64,
    pending: u64,
}

fn sums(heartbeat: &super::Heartbeat) -> Sums {
    heartbeat.disks.iter().fold(Sums::default(), |sums, disk| Sums {
        read: sums.read.saturating_add(disk.read_bytes),
        shipped: sums.shipped.saturating_add(disk.shipped_bytes),
        pending: sums.pending.saturating_add(disk.pending_bytes),
    })
}

impl Signs {
    pub(super) fn beat(&mut self, before: Option<&super::Heartbeat>, heartbeat: &super::Heartbeat) {
        let now = heartbeat.at_unix_nanos;
        let new = sums(heartbeat);
        let old = before.map(sums).unwrap_or_default();
        // Another value is movement too: the agent began again.
        if before.is_none() || new.read != old.read {
            self.read_moved = Some(now);
        }
        if before.is_none() || new.shipped != old.shipped {
            self.shipped_moved = Some(now);
        }
        let copies = heartbeat.disks.iter().any(|disk| disk.state != "Protected");
        self.backlog = match self.backlog {
            _ if copies => None,
            Some((since, pending, shipped)) if new.pending > pending && new.shipped >= shipped => {
                Some((since, pending, shipped))
            }
            _ => Some((now, new.pending, new.shipped)),
        };
        self.backlog_now = (now, new.pending, new.shipped);
    }

    pub(super) fn froze(&mut self, at: i64, micros: u32) {
        if micros >= FREEZE_MICROS_LONG {
            self.long_freeze = Some((at, micros));
        }
    }
}

/// Where the data of a machine waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    Source,
    ProcessServer,
    Target,
}

impl Hop {
    pub fn word(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::ProcessServer => "process server",
            Self::Target => "target",
        }
    }
}

/// The hop at which a machine whose points do not come waits, and why.
pub fn stalled_hop(live: &Live, now: i64, silent_after: i64) -> (Hop, String) {
    if let Some(message) = &live.store_full {
        return (Hop::Target, format!("the store has no room: {message}"));
    }
    let Some(heartbeat) = &live.heartbeat else {
        return (Hop::Source, "the agent has not been heard of".to_owned());
    };
    let silent = now - heartbeat.at_unix_nanos;
    if silent > silent_after {
        let message = format!("the agent has been silent for {}", age(silent));
        return (Hop::Source, message);
    }
    if live.session.is_none() {
        let why = if live.session_ended.is_empty() {
            String::new()
        } else {
            format!("; the last one ended: {}", live.session_ended)
        };
        let message = format!("the agent has no replication session{why}");
        return (Hop::ProcessServer, message);
    }
    let own = [
        "PointSkipped",
        "DiskFailed",
        "DiskMissing",
        "DiskSizeChanged",
        "Fenced",
    ];
    if let Some(trouble) = heartbeat
        .troubles
        .iter()
        .find(|trouble| own.contains(&trouble.code.as_str()))
    {
        return (Hop::Source, trouble.message.clone());
    }
    let still = |moved: Option<i64>| moved.is_none_or(|at| now - at > STALLED);
    let pending = sums(heartbeat).pending;
    if pending > 0 && still(live.signs.shipped_moved) {
        return if still(live.signs.read_moved) {
            let message = format!("nothing was taken for {}; the window is closed", age(STALLED));
            (Hop::Target, message)
        } else {
            (Hop::Source, "the agent reads, but nothing leaves it".to_owned())
        };
    }
    if pending > 0 {
        let message = "data flows, slower than it changes".to_owned();
        return (Hop::ProcessServer, message);
    }
    (
        Hop::Source,
        "the agent has nothing pending and seals no point".to_owned(),
    )
}

/// When a job was made: its id tells.
fn made(job: JobId) -> Option<i64> {
    let (seconds, nanos) = job.0.get_timestamp()?.to_unix();
    i64::try_from(seconds)
        .ok()?
        .checked_mul(SECOND)?
        .checked_add(i64::from(nanos))
}

pub(super) fn test_failover_errors(
    row: &ItemRow,
    now: i64,
    add: &mut impl FnMut(&'static str, &'static str, Severity, &str, String, &str, String),
) {
    let name = &row.item.name;
    let waits = matches!(
        row.item.test_failover_state,
        TestFailoverState::TestFailoverCompleted | TestFailoverState::TestFailoverFailed
    );
    let Some(since) = row
        .item
        .test_failover
        .as_ref()
        .filter(|_| waits)
        .and_then(|test| made(test.job))
    else {
        return;
    };
    if now - since > UNCLEANED {
        add(
            "TestFailoverNotCleanedUp",
            "TestFailover",
            Severity::Warning,
            "A test failover was not cleaned up",
            format!(
                "the test failover of {name} has been waiting for its cleanup for {}",
                age(now - since)
            ),
            "it was forgotten, or somebody still works with the test machine",
            format!("clean up: lifeboat failover cleanup {name}"),
        );
    }
}

pub(super) fn sign_errors(
    row: &ItemRow,
    live: &Live,
    now: i64,
    add: &mut impl FnMut(&'static str, &'static str, Severity, &str, String, &str, String),
) {
    let name = &row.item.name;
    if let Some((at, micros)) = live.signs.long_freeze
        && now - at <= FREEZE_TOLD
    {
        add(
            "FreezeTooLong",
            "Replication",
            Severity::Warning,
            "File systems were frozen for long",
            format!("the file systems of {name} were frozen for {} ms", micros / 1000),
            "a slow disk, much unwritten data in memory, or too little CPU on the machine",
            "make points less often (policy), or move the load; programs wait while file systems are frozen"
                .to_owned(),
        );
    }
    if let Some(trouble) = &live.group_trouble
        && now - trouble.since_unix_nanos
            > (2 * i64::from(trouble.share_seconds) * SECOND).max(GROUP_PATIENCE)
    {
        add(
            "GroupDegraded",
            "Replication",
            Severity::Warning,
            "A replication group makes no shared points",
            format!(
                "the replication group {} has made no shared recovery point for {}; its machines make points of their own. {}",
                trouble.group,
                age(now - trouble.since_unix_nanos),
                trouble.why
            ),
            "a member is down, cut off, too busy, was failed over, or is not replicated any more",
            format!(
                "bring that machine back, or take it out of the group: lifeboat group show {0}; lifeboat group remove {0} MACHINE",
                trouble.group
            ),
        );
    }
    if let Some(heartbeat) = &live.heartbeat
        && !heartbeat.agent_version.is_empty()
        && heartbeat.agent_version != env!("CARGO_PKG_VERSION")
    {
        add(
            "AgentVersionDiffers",
            "VersionExpiry",
            Severity::Warning,
            "The agent has another version than the server",
            format!(
                "the agent on {name} is {}, this server is {}",
                heartbeat.agent_version,
                env!("CARGO_PKG_VERSION")
            ),
            "one of the two was updated",
            "update the older one".to_owned(),
        );
    }
    if let Some((from, until)) = live.signs.certificate {
        // Agents renew when a third is left; a short life (of a test) has short limits.
        let (life, left) = ((until - from) * SECOND, until * SECOND - now);
        if left < (14 * DAY).min(life / 6) {
            add(
                "CertificateEnds",
                "Infrastructure",
                if left < (3 * DAY).min(life / 20) {
                    Severity::Critical
                } else {
                    Severity::Warning
                },
                "The certificate of a machine ends soon",
                if left > 0 {
                    format!("the certificate of {name} ends in {}", age(left))
                } else {
                    format!("the certificate of {name} ended {} ago", age(-left))
                },
                "the agent is down or cannot reach this server, so it did not renew it",
                "start the agent while the certificate is valid; later: lifeboat agent join again".to_owned(),
            );
        }
    }
    if let Some((since, pending, shipped)) = live.signs.backlog {
        let (at, pending_now, shipped_now) = live.signs.backlog_now;
        let (grown, sent) = (
            pending_now.saturating_sub(pending),
            shipped_now.saturating_sub(shipped),
        );
        let window = at - since;
        if window >= CHURN_WINDOW && grown >= CHURN_BYTES && sent > 0 {
            let rate = sent / u64::try_from(window / SECOND).unwrap_or(1).max(1);
            add(
                "ChurnAboveCapacity",
                "Replication",
                Severity::Warning,
                "More changes than can be shipped",
                format!(
                    "the backlog of {name} has grown by {} MiB within {}, while {} KiB/s were shipped",
                    grown >> 20,
                    age(window),
                    rate >> 10
                ),
                "the machine writes more than the link or the target takes, or a bandwidth limit is too low",
                "see what bandwidth is needed: lifeboat capacity".to_owned(),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::{Heartbeat, LiveDisk, Trouble};

    fn beat(at: i64, read: u64, shipped: u64, pending: u64) -> Heartbeat {
        Heartbeat {
            at_unix_nanos: at,
            disks: vec![LiveDisk {
                disk: crate::block::DiskId::new(),
                state: "Protected".to_owned(),
                capture: "ebpf".to_owned(),
                pending_bytes: pending,
                done_bytes: 0,
                total_bytes: 0,
                read_bytes: read,
                shipped_bytes: shipped,
                changed_bytes: 0,
            }],
            ..Heartbeat::default()
        }
    }

    fn live(beats: &[Heartbeat]) -> Live {
        let mut live = Live {
            session: Some(1),
            ..Live::default()
        };
        for heartbeat in beats {
            live.beat(heartbeat.clone());
        }
        live
    }

    #[test]
    fn the_hop_that_waits_is_named() {
        let now = 10 * MINUTE;
        let hop = |live: &Live| stalled_hop(live, now, MINUTE).0;
        assert_eq!(hop(&Live::default()), Hop::Source, "never heard of");
        // Silent since five minutes.
        assert_eq!(hop(&live(&[beat(5 * MINUTE, 1, 1, 9)])), Hop::Source);
        // Heard of, but without a session.
        let mut without = live(&[beat(now, 1, 1, 9)]);
        (without.session, without.session_ended) = (None, "reset by peer".to_owned());
        assert_eq!(hop(&without), Hop::ProcessServer);
        assert!(stalled_hop(&without, now, MINUTE).1.contains("reset by peer"));
        // Nothing moved for three minutes though there is a backlog: nobody takes it.
        let stuck = [7, 8, 9, 10].map(|minute| beat(minute * MINUTE, 100, 50, 9));
        assert_eq!(hop(&live(&stuck)), Hop::Target);
        // It reads and nothing leaves.
        let reading = [7, 8, 9, 10].map(|minute| beat(minute * MINUTE, 100 * minute as u64, 50, 9));
        assert_eq!(hop(&live(&reading)), Hop::Source);
        // It ships all the time.
        let shipping = [7, 8, 9, 10].map(|minute| beat(minute * MINUTE, 0, 50 * minute as u64, 9));
        assert_eq!(hop(&live(&shipping)), Hop::ProcessServer);
        // The store is full, whatever else.
        let mut full = live(&shipping);
        full.store_full = Some("no space left".to_owned());
        assert_eq!(hop(&full), Hop::Target);
        let mut skipped = live(&shipping);
        if let Some(heartbeat) = &mut skipped.heartbeat {
            heartbeat.troubles = vec![Trouble {
                code: "PointSkipped".to_owned(),
                severity: "Warning".to_owned(),
                message: "the rest does not get small".to_owned(),
                possible_causes: String::new(),
                recommended_action: String::new(),
            }];
        }
        assert_eq!(hop(&skipped), Hop::Source);
    }

    #[test]
    fn a_backlog_counts_only_while_it_grows() {
        const MIB: u64 = 1 << 20;
        let grows: Vec<_> = (0..=10)
            .map(|i| beat(i * MINUTE, 0, i as u64, i as u64 * 10 * MIB))
            .collect();
        assert_eq!(live(&grows).signs.backlog, Some((0, 0, 0)));
        // It fell to 5 MiB in between: counted from there.
        let mut dips = grows.clone();
        dips.insert(8, beat(7 * MINUTE + 1, 0, 7, 0));
        assert_eq!(live(&dips).signs.backlog, Some((7 * MINUTE + 1, 0, 7)));
        // The first copy is no churn.
        let mut copies = grows;
        for heartbeat in &mut copies {
            heartbeat.disks[0].state = "InitialReplicationInProgress".to_owned();
        }
        assert_eq!(live(&copies).signs.backlog, None);
    }

    #[test]
    fn each_sign_becomes_an_error_in_time_and_not_before() {
        use crate::vault::tests::{joined, replicating, vault};
        use crate::vault::{Health, replication_health};
        let (_folder, vault) = vault();
        let id = joined(&vault, "web1");
        replicating(&vault, id);
        let now = crate::rt::now_unix_nanos();
        let fine = Live {
            session: Some(1),
            since_unix_nanos: now,
            ..live(&[Heartbeat {
                agent_version: env!("CARGO_PKG_VERSION").to_owned(),
                ..beat(now, 0, 0, 0)
            }])
        };
        let row = vault.item_row(id).unwrap();
        let found = |row: &ItemRow, live: &Live| -> Vec<(&'static str, Severity)> {
            let Health { errors, .. } = replication_health(row, live, now);
            assert!(errors.iter().all(|error| !error.recommended_action.is_empty()));
            errors.iter().map(|error| (error.code, error.severity)).collect()
        };
        let with = |change: &dyn Fn(&mut Live)| {
            let mut live = fine.clone();
            change(&mut live);
            found(&row, &live)
        };
        assert_eq!(with(&|_| {}), []);
        // A freeze of 0.9 s is none; one of 1.2 s is told of for ten minutes.
        assert_eq!(with(&|live| live.signs.froze(now, 900_000)), []);
        let long = [("FreezeTooLong", Severity::Warning)];
        assert_eq!(with(&|live| live.signs.froze(now, 1_200_000)), long);
        assert_eq!(with(&|live| live.signs.froze(now - 11 * MINUTE, 1_200_000)), []);
        let other = with(&|live| {
            if let Some(heartbeat) = &mut live.heartbeat {
                heartbeat.agent_version = "0.0.1".to_owned();
            }
        });
        assert_eq!(other, [("AgentVersionDiffers", Severity::Warning)]);
        // Of 90 days; an agent renews when 30 are left.
        let days_left = |days: i64| {
            let day = DAY / SECOND;
            let unix = now / SECOND;
            with(&|live| live.signs.certificate = Some((unix - (90 - days) * day, unix + days * day)))
        };
        assert_eq!(days_left(20), []);
        assert_eq!(days_left(10), [("CertificateEnds", Severity::Warning)]);
        assert_eq!(days_left(2), [("CertificateEnds", Severity::Critical)]);
        assert_eq!(days_left(-1), [("CertificateEnds", Severity::Critical)]);
        // 100 MiB more backlog after 11 minutes of shipping; 9 minutes or 10 MiB are none.
        let churn = |minutes: i64, grown: u64| {
            with(&|live| {
                live.signs.backlog = Some((now - minutes * MINUTE, 0, 0));
                live.signs.backlog_now = (now, grown << 20, 1 << 30);
            })
        };
        assert_eq!(churn(11, 100), [("ChurnAboveCapacity", Severity::Warning)]);
        assert_eq!(churn(9, 100), []);
        assert_eq!(churn(11, 10), []);
        // A test failover that waits for its cleanup, of yesterday and of today.
        let waiting = |hours: i64| {
            let mut row = row.clone();
            row.item.test_failover_state = TestFailoverState::TestFailoverCompleted;
            let unix = (now - hours * HOUR) / SECOND;
            let at = uuid::Timestamp::from_unix(uuid::NoContext, unix.unsigned_abs(), 0);
            row.item.test_failover = Some(test_failover(JobId(uuid::Uuid::new_v7(at))));
            found(&row, &fine)
        };
        assert_eq!(waiting(23), []);
        assert_eq!(waiting(25), [("TestFailoverNotCleanedUp", Severity::Warning)]);
    }

    fn test_failover(job: JobId) -> crate::recovery::Failover {
        serde_json::from_value(serde_json::json!({
            "job": job,
            "point": crate::block::PointId::new(),
            "pointInstantUnixNanos": 0,
            "machine": {
                "name": "web1-test", "folder": "/nowhere", "firmware": "bios", "cpus": 1, "memoryBytes": 1,
                "diskBus": "ahci", "disks": [], "nics": []
            }
        }))
        .unwrap()
    }

    #[test]
    fn a_job_tells_when_it_was_made() {
        let before = crate::rt::now_unix_nanos();
        let at = made(JobId::new()).unwrap();
        assert!((at - before).abs() < MINUTE, "{at} {before}");
    }
}
