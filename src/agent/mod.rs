//! The protected machine: what tracks, freezes and reads its disks.
pub mod capture;
pub mod cycle;
pub mod daemon;
pub mod doctor;
pub mod freeze;
mod heartbeat;
pub mod identity;
pub mod import;
pub mod inventory;
pub mod join;
pub mod mounts;
mod orders;
mod progress;
pub mod ship;
pub mod sink;
pub mod status;
pub mod status_socket;
