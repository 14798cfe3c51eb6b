//! The ledger in PostgreSQL against a real server: several nodes, a server that goes away, tables that are not ours.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod limits;
mod nodes;
mod outages;
mod places;
mod rig;
