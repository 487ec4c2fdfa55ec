//! Bytes and times for people.

/// Binary units, three digits: `1.50 GiB`.
pub fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    match unit {
        "B" => format!("{bytes} B"),
        _ if value >= 100.0 => format!("{value:.0} {unit}"),
        _ if value >= 10.0 => format!("{value:.1} {unit}"),
        _ => format!("{value:.2} {unit}"),
    }
}

/// RFC 3339 in UTC, to the millisecond.
pub fn instant(unix_nanos: i64) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(unix_nanos)) {
        Ok(instant) => format!("{instant:.3}"),
        Err(_) => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn reads_well() {
        let shown = [0, 1023, 1024, 1536 << 20, 200 << 30].map(super::bytes);
        assert_eq!(shown, ["0 B", "1023 B", "1.00 KiB", "1.50 GiB", "200 GiB"]);
        assert_eq!(super::instant(1_500_000_000), "1970-01-01T00:00:01.500Z");
    }
}
