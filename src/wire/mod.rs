//! Between agent and server: messages, limits, TLS. Bytes only, no policy. The rules in words: `proto/wire.md`.
pub mod facts;
mod phase;
mod refused;
pub mod tls;
/// Generated from `proto/lifeboat.proto`.
#[allow(clippy::all, missing_docs)]
pub mod proto {
    tonic::include_proto!("lifeboat.v1");
}

pub use phase::{ReceivePhase, UnknownPhase};
pub use refused::Refused;

/// Spoken by this version; a peer of another one is refused with both numbers.
pub const PROTOCOL_VERSION: u32 = 1;
/// A frame and its envelope fit twice; anything longer is refused before it is allocated.
pub const MESSAGE_BYTES_MAX: usize = 2 << 20;
/// Digests in one `Compare`: 64 MiB of disk, 32 KiB of message.
pub const DIGESTS_MAX: usize = 1024;
/// Runs of blocks in one message of the way home: 80 KiB.
pub const RUNS_MAX: usize = 4096;
/// How long a receiver may let an order wait for a newer point.
pub const ORDER_WAIT_SECONDS_MAX: u32 = 30;
/// Refusal: no machine is to be received by this receiver now. It waits: the order may come.
pub const NOTHING_TO_RECEIVE: &str = "NothingToReceive";
/// Refusal: the caller works by the orders of another generation. A receiver stops.
pub const OLD_ORDERS: &str = "OldOrders";
/// Refusal of a call of a receiver whose point is not there any more: it compares with a newer one.
pub const POINT_GONE: &str = "PointGone";
/// Disks of one machine.
pub const DISKS_MAX: usize = 64;
/// The name every server certificate bears besides its host's own: an agent trusts one private CA and this name, so a
/// server may move to another address without new certificates.
pub const SERVER_NAME: &str = "configuration-server.lifeboat";

/// Join tokens begin with this; a passphrase never does.
pub const JOIN_TOKEN_PREFIX: &str = "lbj_";
pub const REGISTRATION_KEY_PREFIX: &str = "lbr_";

/// The rule for machine names: 1-63 letters, digits and hyphens, the first and the last no hyphen.
pub fn is_machine_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}
