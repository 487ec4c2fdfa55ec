//! Identities. A newtype each, so that a disk is never taken for a machine.
use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[derive(Debug, thiserror::Error)]
#[error("an id is 16 bytes or a UUID in text")]
pub struct IdError;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A fresh id; ids made later sort later.
            #[allow(clippy::new_without_default)] // a default id would be two different values
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// The id in these 16 bytes; any other length is refused.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, IdError> {
                Uuid::from_slice(bytes).map(Self).map_err(|_| IdError)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Uuid::parse_str(text).map(Self).map_err(|_| IdError)
            }
        }
    };
}

id!(
    /// One replicated disk, given by the server; outlives every name the machine gives the device.
    DiskId
);
id!(
    /// One enrolled machine; the common name of its client certificate.
    MachineId
);
id!(
    /// One recovery point of a machine.
    PointId
);
id!(
    /// One instant that the machines of a replication group share; each of them has a recovery point of it.
    GroupPointId
);

impl PointId {
    /// Its random half, never zero: enough to recognise a point by where 16 bytes have no room.
    pub fn mark(&self) -> u64 {
        let [.., a, b, c, d, e, f, g, h] = *self.as_bytes();
        u64::from_le_bytes([a, b, c, d, e, f, g, h]).max(1)
    }
}
