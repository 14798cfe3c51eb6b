//! The journal against real servers: what they do to it, and what others do to its tables.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its supporting functions too")]

mod damage;
mod databases;
mod outages;
mod owners;
mod rig;
mod segments;
