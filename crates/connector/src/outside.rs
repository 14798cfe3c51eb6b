//! The seam between what a connector promises and how an outside system is spoken to.
//!
//! Owns: what one call is, how it can end, and the fence that decides between "too late" and "maybe done". Never:
//! speaks a protocol (that is `real`), waits for a turn or a time (that is `desk`).
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use futures::future::BoxFuture;
use kapell_kernel::{ErrorClass, TaskError};
use kapell_model::Name;
use kapell_model::catalogue::ToolEntry;
use kapell_model::definition::{EffectClass, Idempotency};
use serde_json::Value;

/// Speaks to outside systems: the real ones, or simulated ones.
pub trait Outside: Send + Sync + 'static {
    /// Makes one call, once. Must [pass the fence](Fence::pass) right before the call could take effect, and give up
    /// when that is refused. Dropping the future gives the call up.
    fn call(&self, request: OutsideRequest) -> BoxFuture<'_, CallOutcome>;
}

/// One call to make.
#[derive(Clone, Debug)]
pub struct OutsideRequest {
    /// Tenant.
    pub namespace: Name,
    /// What to call, through which connection.
    pub tool: Arc<ToolEntry>,
    /// With what; fits the tool's input schema.
    pub args: Value,
    /// The same in every making of the call.
    pub key: String,
    /// To be passed right before the call could take effect.
    pub fence: Fence,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq)]
pub enum CallOutcome {
    /// It took effect, or read.
    Succeeded {
        /// What it gave.
        output: Value,
        /// What was odd about the answer of a call that certainly took effect; for people.
        note: Option<String>,
    },
    /// It certainly took no effect, or making it again does no harm.
    Failed(TaskError),
    /// Nobody knows.
    Unknown {
        /// Why.
        why: String,
    },
}

impl CallOutcome {
    /// With nothing odd about it.
    #[must_use]
    pub fn succeeded(output: Value) -> CallOutcome {
        CallOutcome::Succeeded { output, note: None }
    }

    /// Without effect.
    #[must_use]
    pub fn failed(class: ErrorClass, message: impl Into<String>) -> CallOutcome {
        CallOutcome::Failed(TaskError::new(class, message))
    }

    /// The answer of a call that may have been made was lost. Where making it again does no harm, that is a failure
    /// to try again after; else nobody knows how it ended.
    #[must_use]
    pub fn lost(tool: &ToolEntry, why: impl Into<String>) -> CallOutcome {
        if is_repeatable(tool) {
            CallOutcome::failed(ErrorClass::Unavailable, why)
        } else {
            CallOutcome::Unknown { why: TaskError::new(ErrorClass::UnknownOutcome, why).message }
        }
    }
}

/// Whether making a call twice comes to the same without any help.
pub(crate) fn is_repeatable(tool: &ToolEntry) -> bool {
    match (tool.tool.effect, &tool.tool.idempotency) {
        (EffectClass::Read, _) | (EffectClass::Write | EffectClass::Irreversible, Idempotency::Natural) => {
            true
        }
        (EffectClass::Write | EffectClass::Irreversible, Idempotency::Key { .. } | Idempotency::None) => {
            false
        }
    }
}

/// Whether a tool only reads.
pub(crate) fn is_read(tool: &ToolEntry) -> bool {
    tool.tool.effect == EffectClass::Read
}

const OPEN: u8 = 0;
const PASSED: u8 = 1;
const SHUT: u8 = 2;

/// Stands before the moment from which a call may have taken effect. Either the call passes it, or whoever waits for
/// the call shuts it first; never both. Clones are the same fence.
#[derive(Clone, Debug, Default)]
pub struct Fence(Arc<AtomicU8>);

impl Fence {
    /// A fence that is open.
    #[must_use]
    pub fn new() -> Fence {
        Fence::default()
    }

    /// Passes; from now on the call may have taken effect. `false`: it is too late, and the call must not be made.
    #[must_use]
    pub fn pass(&self) -> bool {
        let before = self.0.compare_exchange(OPEN, PASSED, Ordering::AcqRel, Ordering::Acquire);
        before.unwrap_or_else(|found| found) != SHUT
    }

    /// Shuts it. `true`: nothing passed, so the call has certainly taken no effect and will take none.
    pub(crate) fn shut(&self) -> bool {
        let before = self.0.compare_exchange(OPEN, SHUT, Ordering::AcqRel, Ordering::Acquire);
        before.unwrap_or_else(|found| found) != PASSED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_passed_or_shut_and_never_both() {
        let passed = Fence::new();
        assert!(passed.pass() && passed.clone().pass(), "a second request of the same call passes too");
        assert!(!passed.shut());
        let shut = Fence::new();
        assert!(shut.shut() && shut.shut());
        assert!(!shut.clone().pass());
    }
}
