//! Sessions: one long-lived stream to each coordinator, dialed again whenever it breaks.
//!
//! Owns: dialing, heartbeats, the lease. Never: knows what a task is (the host does).
mod job;
mod state;

pub(crate) use job::Session;
