//! Why something was not done, as a shard says it.
use std::time::Duration;

use kapell_kernel::Rejected;
use kapell_model::RunId;
use kapell_proto::peer::v1 as proto;
use kapell_proto::peer::v1::refusal::Why;

use super::rejected::{rejected_from, rejected_to};
use crate::error::DecodeError;
use crate::field::{self, count};
use crate::task::millis_up;

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The shard has no room; nothing was done.
    Busy {
        /// When to try again. Rounded up to whole milliseconds when it is sent.
        retry_after: Duration,
    },
    /// Too many runs wait behind the key.
    KeyQueueFull {
        /// The key.
        key: String,
        /// How many.
        waiting: usize,
    },
    /// No run of this id is known.
    NotFound(RunId),
    /// The run refused.
    Rejected(Rejected),
    /// Whether it was done is not known. The same again is safe.
    Unavailable,
    /// Nothing was done: the owner cannot read it.
    Unsupported {
        /// What could not be read.
        reason: String,
    },
}

impl Refusal {
    /// As it is sent.
    #[must_use]
    pub fn to_proto(&self) -> proto::Refusal {
        let why = match self {
            Refusal::Busy { retry_after } => {
                Why::Busy(proto::Busy { retry_after_ms: millis_up(*retry_after) })
            }
            Refusal::KeyQueueFull { key, waiting } => {
                Why::KeyQueueFull(proto::KeyQueueFull { key: key.clone(), waiting: *waiting as u64 })
            }
            Refusal::NotFound(run) => Why::NotFound(run.to_bytes().to_vec()),
            Refusal::Rejected(rejected) => Why::Rejected(rejected_to(rejected)),
            Refusal::Unavailable => Why::Unavailable(proto::Unavailable {}),
            Refusal::Unsupported { reason } => {
                Why::Unsupported(proto::Unsupported { reason: reason.clone() })
            }
        };
        proto::Refusal { why: Some(why) }
    }

    /// From a peer. Whoever gets an error here does not know whether it was done: that is [`Refusal::Unavailable`].
    pub fn from_proto(refusal: proto::Refusal) -> Result<Refusal, DecodeError> {
        let unknown = || DecodeError::Newer { what: "it was refused for a reason".to_owned() };
        Ok(match refusal.why.ok_or_else(unknown)? {
            Why::Busy(busy) => Refusal::Busy { retry_after: Duration::from_millis(busy.retry_after_ms) },
            Why::KeyQueueFull(full) => {
                Refusal::KeyQueueFull { key: full.key, waiting: count("KeyQueueFull.waiting", full.waiting)? }
            }
            Why::NotFound(run) => Refusal::NotFound(field::run("Refusal.not_found", &run)?),
            Why::Rejected(rejected) => Refusal::Rejected(rejected_from(rejected)?),
            Why::Unavailable(proto::Unavailable {}) => Refusal::Unavailable,
            Why::Unsupported(proto::Unsupported { reason }) => Refusal::Unsupported { reason },
        })
    }
}

/// What cannot be read is not done, and says so.
impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Refusal {
        Refusal::Unsupported { reason: error.to_string() }
    }
}
