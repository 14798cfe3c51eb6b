//! Delays between attempts: full jitter below an exponential ceiling.
//!
//! Owns: the delay, drawn from the run's own id so that every node and every replay draws the same.
use std::time::Duration;

use kapell_model::RunId;
use kapell_model::plan::RetryRule;
use sha2::{Digest as _, Sha256};

use crate::unit::{Attempt, Side, UnitId};

/// The delay after the `failures`-th counted failure (from 1). At least half the ceiling, at most the ceiling:
/// the lower half would retry before an outside system had time to recover.
pub(crate) fn delay(rule: &RetryRule, run: RunId, unit: UnitId, attempt: Attempt, failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(31);
    let ceiling = rule.initial.saturating_mul(1 << doublings).min(rule.max);
    let millis = u64::try_from(ceiling.as_millis()).unwrap_or(u64::MAX);
    let half = millis / 2;
    let drawn = draw(run, unit, attempt) % (millis - half + 1);
    Duration::from_millis(half + drawn)
}

fn draw(run: RunId, unit: UnitId, attempt: Attempt) -> u64 {
    let mut hash = Sha256::new();
    hash.update(run.to_bytes());
    hash.update(unit.step.0.to_be_bytes());
    hash.update(unit.item.map_or(u32::MAX, |item| item.0).to_be_bytes());
    hash.update([u8::from(unit.side == Side::Undo)]);
    hash.update(attempt.0.to_be_bytes());
    let mut first = [0_u8; 8];
    first.copy_from_slice(&hash.finalize()[..8]);
    u64::from_be_bytes(first)
}
