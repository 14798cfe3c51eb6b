//! One contract suite per port, to be run against every backend, and a reference to hold them against.
//!
//! Owns: what each port promises, as cases. Never: names a backend, except the reference.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
pub mod cluster;
pub mod journal;
pub mod ledger;
