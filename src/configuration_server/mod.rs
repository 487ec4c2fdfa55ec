//! Coordinates agents and replication: enrols machines, hears their heartbeats, hands out orders as desired state, and carries
//! enabling and disabling of replication through.
mod control;
mod handover;
pub mod groups;
mod listener;
mod on_demand;
pub mod pki;
mod reconcile;
mod roster;
pub mod vitals;

pub use control::{ControlService, DEFAULT_CLIENT_LIFE};
pub use handover::HandoverDesk;
pub use listener::accept;
pub use reconcile::Reconciler;
pub use roster::Roster;
