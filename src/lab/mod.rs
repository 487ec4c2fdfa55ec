//! The lab: small real machines with a workload whose every loss shows, for trying, training and testing.
//!
//! A machine's disk is built from Debian packages ([`machine`]), attached as a loop device and mounted ([`site`]), and
//! written to by a workload ([`workload`]) whose data proves itself ([`ledger`], [`verify`]). The same disk, or a
//! recovery point of it, boots in a hypervisor; its init judges the data and says so ([`guest`]).
mod at_rest;
mod circle;
mod client;
mod elf;
mod error;
mod fat;
pub mod figures;
pub mod guest;
mod image;
mod initramfs;
pub mod ledger;
pub mod machine;
mod messages;
pub mod packages;
mod processes;
pub mod run;
pub mod site;
mod source;
mod together;
mod tour;
pub mod verify;
mod whole_plan;
pub mod workload;

pub use error::LabError;
