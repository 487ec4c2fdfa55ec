//! Bytes and times for people.

/// A size as a person writes it: `512M`, `2GiB`, `1048576`; binary units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text} is no size; write it as 512M or 2G");
        let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
        let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
            "" | "B" => 0,
            "K" | "KIB" => 10,
            "M" | "MIB" => 20,
            "G" | "GIB" => 30,
            "T" | "TIB" => 40,
            _ => return Err(wrong()),
        };
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(wrong)
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            bytes if bytes.is_multiple_of(1 << 30) => write!(f, "{}G", bytes >> 30),
            bytes if bytes.is_multiple_of(1 << 20) => write!(f, "{}M", bytes >> 20),
            bytes => write!(f, "{bytes}"),
        }
    }
}

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
    fn sizes_are_read_as_people_write_them() {
        let read = |text: &str| text.parse::<super::Size>().map(|size| size.0);
        assert_eq!(read("512M"), Ok(512 << 20));
        assert_eq!(read("2GiB"), Ok(2 << 30));
        assert_eq!(read("4096"), Ok(4096));
        for wrong in ["", "M", "1.5G", "9999999999T", "2X"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert_eq!(super::Size(512 << 20).to_string(), "512M");
    }

    #[test]
    fn reads_well() {
        let shown = [0, 1023, 1024, 1536 << 20, 200 << 30].map(super::bytes);
        assert_eq!(shown, ["0 B", "1023 B", "1.00 KiB", "1.50 GiB", "200 GiB"]);
        assert_eq!(super::instant(1_500_000_000), "1970-01-01T00:00:01.500Z");
    }
}
