//! The streams of workers and connectors.
//!
//! Owns: the order of a session (hello, welcome, then frames both ways) and turning messages into what the desks and
//! shards understand. Never: keeps state beyond the connection.
mod connector;
mod outlet;
mod streams;
mod worker;

pub(crate) use connector::ConnectorSessions;
pub(crate) use outlet::Outlet;
pub(crate) use streams::{OpenStream, Streams};
pub(crate) use worker::WorkerSessions;

use std::time::Duration;

/// Frames that wait for a slow reader before its session is ended.
const FRAMES_WAITING_MAX: usize = 4_096;

/// How sessions are kept alive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Liveness {
    /// How often the other side sends a heartbeat.
    pub(crate) heartbeat: Duration,
    /// After so much silence its work is given to others.
    pub(crate) lease: Duration,
}
