//! The protected machine: what tracks, freezes and reads its disks.
pub mod capture;
pub mod cycle;
pub mod freeze;
pub mod identity;
pub mod import;
pub mod inventory;
pub mod join;
pub mod mounts;
pub mod ship;
pub mod sink;
