//! The protected machine: what tracks, freezes and reads its disks.
pub mod capture;
pub mod cycle;
pub mod freeze;
pub mod import;
pub mod mounts;
mod shipper;
pub mod sink;
mod swap;
mod window;
