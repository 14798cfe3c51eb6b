//! Placement: which shards this node owns, and where requests of the others go.
//!
//! Owns: asking the cluster for shards, starting and ending their actors, telling mailboxes whom they belong to. It is
//! the supervisor of everything that runs in a coordinator. Never: handles a request.
mod actor;
mod message;
mod rendezvous;
mod state;

pub(crate) use actor::{Supervisor, SupervisorArguments};
pub(crate) use message::{Known, PlacementMessage};
pub(crate) use rendezvous::{preferred, staying};
pub(crate) use state::Route;
