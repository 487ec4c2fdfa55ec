//! Times of the day, in the server's time zone: quiet hours, the daily summary. Pure but for the zone.
use super::VaultError;
use serde::{Deserialize, Serialize};

const DAY_MINUTES: u16 = 24 * 60;

/// Minute of the day of `HH:MM`.
pub(super) fn minute_of(field: &'static str, text: &str) -> Result<u16, VaultError> {
    let parsed = text.split_once(':').and_then(|(hour, minute)| {
        let part = |text: &str, end: u16| -> Option<u16> {
            let fine = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
            text.parse().ok().filter(|value| fine && *value < end)
        };
        Some(part(hour, 24)? * 60 + part(minute, 60)?)
    });
    parsed.ok_or_else(|| VaultError::Invalid {
        field,
        rule: "a time of the day, HH:MM, in the server's time zone".to_owned(),
    })
}

/// The day and the minute of it, in the server's time zone.
pub(super) fn local(now_unix_nanos: i64) -> (String, u16) {
    let instant = jiff::Timestamp::from_nanosecond(i128::from(now_unix_nanos)).unwrap_or_default();
    let local = instant.to_zoned(jiff::tz::TimeZone::system());
    let minute = u16::try_from(i32::from(local.hour()) * 60 + i32::from(local.minute())).unwrap_or(0);
    (local.date().to_string(), minute)
}

/// From when to when only what is critical is sent; over midnight where `from` is the later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuietHours {
    /// HH:MM
    pub from: String,
    pub to: String,
}

impl QuietHours {
    pub(super) fn check(&self) -> Result<(u16, u16), VaultError> {
        let (from, to) = (
            minute_of("quietHours.from", &self.from)?,
            minute_of("quietHours.to", &self.to)?,
        );
        if from == to {
            return Err(VaultError::Invalid {
                field: "quietHours.to",
                rule: "another time than from".to_owned(),
            });
        }
        Ok((from, to))
    }

    /// Whether this minute of the day is one of them. Hours that cannot be read are none: a message too many is the lesser evil.
    pub(super) fn hold(&self, minute: u16) -> bool {
        self.check().is_ok_and(|(from, to)| {
            // Counted from the beginning, midnight is nothing special.
            (minute + DAY_MINUTES - from) % DAY_MINUTES < (to + DAY_MINUTES - from) % DAY_MINUTES
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_over_midnight_and_within_a_day() {
        let hours = |from: &str, to: &str| QuietHours {
            from: from.to_owned(),
            to: to.to_owned(),
        };
        let night = hours("22:00", "06:30");
        let quiet = [22 * 60, 23 * 60 + 59, 0, 6 * 60 + 29];
        let loud = [6 * 60 + 30, 12 * 60, 21 * 60 + 59];
        assert!(quiet.iter().all(|minute| night.hold(*minute)));
        assert!(!loud.iter().any(|minute| night.hold(*minute)));
        let noon = hours("12:00", "13:00");
        assert!(noon.hold(12 * 60) && !noon.hold(13 * 60) && !noon.hold(0));
        for bad in ["24:00", "12:60", "7:00", "0700", "", "+1:00", "12:000"] {
            assert!(hours(bad, "06:00").check().is_err(), "{bad}");
            assert!(!hours(bad, "06:00").hold(0));
        }
        assert!(hours("06:00", "06:00").check().is_err());
    }
}
