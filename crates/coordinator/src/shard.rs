//! A shard: a fixed partition of the runs, advanced by one actor in one loop.
//!
//! Owns: the runs' state in memory, their timers, keys and waits, and the order "decide, append, when durable
//! answer and release". Never: lets anything leave before its entries are on disk.
mod actor;
mod audit;
mod changed;
mod ended;
mod keys;
mod load;
mod mailbox;
mod message;
mod orders;
mod row;
mod schedules;
mod state;
mod timers;
mod view;
mod waits;

pub(crate) use actor::{Shard, ShardArguments, project};
pub(crate) use load::{LoadError, Rebuilt, Told, fold, rebuild, with_causes};
pub(crate) use mailbox::{Busy, Mailbox};
pub(crate) use message::{
    AskedSince, Asker, Audit, Delivered, EndWaiter, Origin, Output, Past, Reply, Request, ShardMessage,
    StartRun, Started, Stats, SubmitError, WorkOrder,
};
pub(crate) use orders::Owed;
pub(crate) use state::ShardRules;
pub(crate) use view::{approval_key_text, digest, parse_approval_id, row_view, view};
