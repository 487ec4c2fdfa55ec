//! The phases of the way home, as they stand in a receiver's report.

/// What a receiver does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceivePhase {
    /// Reads its disks and compares them with the point.
    Comparing,
    /// Takes what differs.
    Copying,
    /// Holds the newest point and waits for the next.
    Following,
    /// Takes what the final point changed.
    LastDelta,
    /// Reads its disks back and compares them with the final point.
    Verifying,
    /// Verified: the machine may start at home.
    Done,
    /// Ended before it was done; the trouble says why, if there was any.
    Stopped,
}

impl ReceivePhase {
    pub const ALL: [Self; 7] = [
        Self::Comparing,
        Self::Copying,
        Self::Following,
        Self::LastDelta,
        Self::Verifying,
        Self::Done,
        Self::Stopped,
    ];
}

impl std::fmt::Display for ReceivePhase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::str::FromStr for ReceivePhase {
    type Err = UnknownPhase;

    fn from_str(word: &str) -> Result<Self, UnknownPhase> {
        let known = Self::ALL.into_iter().find(|phase| phase.to_string() == word);
        known.ok_or(UnknownPhase)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("not a phase of a receiver")]
pub struct UnknownPhase;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_read_as_they_are_written() {
        for phase in ReceivePhase::ALL {
            assert_eq!(phase.to_string().parse::<ReceivePhase>().unwrap(), phase);
        }
        assert!("Sleeping".parse::<ReceivePhase>().is_err());
    }
}
