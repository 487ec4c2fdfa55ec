//! A refusal that a person will read: on the agent's console and in the server's events alike.
use super::proto;
use std::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Stable, e.g. `WrongPassphrase`.
    pub code: String,
    pub message: String,
    pub possible_causes: String,
    pub recommended_action: String,
}

impl Refused {
    pub fn new(code: &str, message: impl Into<String>, causes: &str, action: &str) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            possible_causes: causes.to_owned(),
            recommended_action: action.to_owned(),
        }
    }

    /// Carried by a call that fails: the words travel as metadata of the status, in JSON.
    pub fn status(&self) -> tonic::Status {
        let mut status = tonic::Status::failed_precondition(self.message.clone());
        let words = serde_json::json!([
            self.code,
            self.message,
            self.possible_causes,
            self.recommended_action
        ]);
        status.metadata_mut().insert_bin(
            KEY,
            tonic::metadata::MetadataValue::from_bytes(words.to_string().as_bytes()),
        );
        status
    }

    /// What a server said; None when the call failed for another reason.
    pub fn of_status(status: &tonic::Status) -> Option<Self> {
        let bytes = status.metadata().get_bin(KEY)?.to_bytes().ok()?;
        let [code, message, possible_causes, recommended_action] = serde_json::from_slice(&bytes).ok()?;
        Some(Self {
            code,
            message,
            possible_causes,
            recommended_action,
        })
    }
}

const KEY: &str = "lifeboat-refused-bin";

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for Refused {}

impl From<Refused> for proto::Refusal {
    fn from(refused: Refused) -> Self {
        Self {
            code: refused.code,
            message: refused.message,
            causes: refused.possible_causes,
            action: refused.recommended_action,
        }
    }
}

impl From<proto::Refusal> for Refused {
    fn from(refusal: proto::Refusal) -> Self {
        Self {
            code: refusal.code,
            message: refusal.message,
            possible_causes: refusal.causes,
            recommended_action: refusal.action,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_survive_the_way_through_a_status() {
        let refused = Refused::new("Code", "ä message", "causes", "action");
        assert_eq!(Refused::of_status(&refused.status()), Some(refused));
        assert_eq!(Refused::of_status(&tonic::Status::internal("x")), None);
    }
}
