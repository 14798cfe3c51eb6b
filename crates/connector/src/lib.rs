//! The connector role: takes tool calls from coordinators and makes them on outside systems.
//!
//! Owns: sessions with coordinators, that a call with an effect is made at most once by this process, the limits of
//! connections, how each protocol is spoken and what each way of failing means, and secrets. Never: decides whether
//! a call should be made, or whether to make it again.
mod connector;
mod desk;
mod gate;
mod held;
mod lease;
mod outside;
mod real;
mod session;

pub use connector::{CALLS_HELD_MAX, Connector, ConnectorHandle, ConnectorOptions};
pub use gate::CALLS_WAITING_MAX;
pub use outside::{CallOutcome, Fence, Outside, OutsideRequest};
pub use real::{ANSWER_BYTES_MAX, RealOutside};
