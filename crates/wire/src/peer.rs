//! What the coordinators of one cluster say to each other: `proto/kapell/peer/v1`.
//!
//! Owns: the parts of asks and answers as the kernel and the coordinator have them, how many messages a frame takes, and
//! the typed refusal of what a peer may not say. Never: trusts a peer's JSON, or decides what an ask means.
//!
//! Peers of two versions talk during an upgrade: `docs/adr/0005-peers-of-two-versions.md`. What only a newer peer knows is
//! [`DecodeError::Newer`](crate::DecodeError::Newer) or [`UnknownValue`](crate::DecodeError::UnknownValue) here.
mod command;
mod frame;
mod key;
mod parts;
mod phrase;
mod refusal;
mod rejected;
mod start;

pub use command::{command_from, command_to};
pub use frame::{
    ANSWER_FRAME_BYTES_MAX, ASK_FRAME_BYTES_MAX, ASK_ITEMS_MAX, FRAME_BYTES, FRAME_MESSAGES_MAX, Outgoing,
    TooLong, next_frame,
};
pub use parts::{
    child_confirmed_from, child_confirmed_to, event_from, event_to, list_schedules_from, list_schedules_to,
    run_command_from, run_command_to, run_from, run_to,
};
pub use refusal::Refusal;
pub use rejected::{rejected_from, rejected_to};
pub use start::{Start, WorkflowVersion};
