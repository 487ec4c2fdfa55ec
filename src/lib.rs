//! Lifeboat: disaster recovery in one executable.
//!
//! The modules stand in the order in which a block travels from the protected machine to a machine
//! started at the target site. A module imports only modules to its left; `tests/tidy.rs` checks it.
//! Specs of everything that crosses a process or lands on a disk are in `proto/`.
pub mod block;
pub mod rt;
pub mod wire;
pub mod replica;
pub mod agent;
pub mod process_server;
pub mod export;
pub mod target;
pub mod recovery;
pub mod vault;
pub mod alerts;
pub mod configuration_server;
pub mod web;
pub mod api;
pub mod server;
pub mod lab;
pub mod cli;
