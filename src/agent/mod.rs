//! The protected machine: what reads its disks.
pub mod import;
