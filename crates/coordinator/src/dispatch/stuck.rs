//! What a desk says of work that it does not get on with.
use std::time::Duration;

/// Work that does not move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stuck<K> {
    /// Which.
    pub(crate) key: K,
    /// How badly.
    pub(crate) grip: Grip,
    /// In words. Without a time: the doctor looks twice and keeps what it saw both times.
    pub(crate) what: String,
    /// What to do about it.
    pub(crate) todo: &'static str,
}

/// How badly work is stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grip {
    /// The desk does not know it.
    Unknown,
    /// The desk knows it, and nothing here will ever move it.
    Stuck,
    /// It waits for something that did not come for a long time.
    Overdue,
}

impl Grip {
    /// As the doctor calls it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Grip::Unknown => "undriven",
            Grip::Stuck => "stuck",
            Grip::Overdue => "overdue",
        }
    }
}

/// How long work may wait for somebody who can do it, or for its run, before it is overdue.
pub(crate) const OVERDUE_AFTER: Duration = Duration::from_secs(30);
/// What mends everything that only memory holds.
pub(crate) const RESTART: &str = "restart the coordinator: it drives every order anew from its journal";
