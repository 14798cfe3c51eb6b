//! The call desk: tool calls in, orders to connectors out.
//!
//! Owns: which connector holds which call, and finding out what became of a call whose answer was lost. Never:
//! repeats a call that may have taken effect (the run decides, from what was found out).
mod actor;
mod message;
mod state;

pub(crate) use actor::{CallDesk, CallDeskArguments};
pub(crate) use message::{CallMessage, ConnectorIntro, Read};
