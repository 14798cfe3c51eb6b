//! Why a run refused a command, exactly as the kernel has it.
use kapell_kernel::Rejected;
use kapell_proto::journal::Empty;
use kapell_proto::peer::v1 as proto;
use kapell_proto::peer::v1::rejected::Why;

use super::key::{order_from, order_to};
use super::phrase::phrase;
use crate::error::DecodeError;
use crate::field::count;

/// A refusal as it is sent.
#[must_use]
pub fn rejected_to(rejected: &Rejected) -> proto::Rejected {
    let why = match rejected {
        Rejected::RunEnded => Why::RunEnded(Empty {}),
        Rejected::RunNotFailed { state } => Why::RunNotFailed((*state).to_owned()),
        Rejected::Compensated => Why::Compensated(Empty {}),
        Rejected::Stale(key) => Why::Stale(order_to(*key)),
        Rejected::Paused => Why::Paused(Empty {}),
        Rejected::NotPaused => Why::NotPaused(Empty {}),
        Rejected::WindingUp => Why::WindingUp(Empty {}),
        Rejected::TooLarge { what, bytes, most } => Why::TooLarge(proto::TooLarge {
            what: (*what).to_owned(),
            bytes: *bytes as u64,
            most: *most as u64,
        }),
        Rejected::CallDiverged { number, before, now } => {
            let (before, now) = (before.clone(), now.clone());
            Why::CallDiverged(proto::CallDiverged { number: *number, before, now })
        }
        Rejected::NoMandate { tool } => Why::NoMandate(tool.clone()),
        Rejected::PlanChangesHistory(step) => Why::PlanChangesHistory(step.clone()),
        Rejected::UnsoundPlan(reason) => Why::UnsoundPlan(reason.clone()),
        Rejected::UnfitResult(reason) => Why::UnfitResult(reason.clone()),
        Rejected::TooMany { what, most } => {
            Why::TooMany(proto::TooMany { what: (*what).to_owned(), most: *most as u64 })
        }
    };
    proto::Rejected { why: Some(why) }
}

/// A refusal from a peer.
pub fn rejected_from(rejected: proto::Rejected) -> Result<Rejected, DecodeError> {
    let unknown = || DecodeError::Newer { what: "the run refused for a reason".to_owned() };
    Ok(match rejected.why.ok_or_else(unknown)? {
        Why::RunEnded(Empty {}) => Rejected::RunEnded,
        Why::RunNotFailed(state) => {
            Rejected::RunNotFailed { state: phrase("Rejected.run_not_failed", &state, "has not failed")? }
        }
        Why::Compensated(Empty {}) => Rejected::Compensated,
        Why::Stale(key) => Rejected::Stale(order_from(key)?),
        Why::Paused(Empty {}) => Rejected::Paused,
        Why::NotPaused(Empty {}) => Rejected::NotPaused,
        Why::WindingUp(Empty {}) => Rejected::WindingUp,
        Why::TooLarge(refused) => Rejected::TooLarge {
            what: phrase("TooLarge.what", &refused.what, "a value")?,
            bytes: count("TooLarge.bytes", refused.bytes)?,
            most: count("TooLarge.most", refused.most)?,
        },
        Why::CallDiverged(proto::CallDiverged { number, before, now }) => {
            Rejected::CallDiverged { number, before, now }
        }
        Why::NoMandate(tool) => Rejected::NoMandate { tool },
        Why::PlanChangesHistory(step) => Rejected::PlanChangesHistory(step),
        Why::UnsoundPlan(reason) => Rejected::UnsoundPlan(reason),
        Why::UnfitResult(reason) => Rejected::UnfitResult(reason),
        Why::TooMany(refused) => Rejected::TooMany {
            what: phrase("TooMany.what", &refused.what, "of something")?,
            most: count("TooMany.most", refused.most)?,
        },
    })
}
