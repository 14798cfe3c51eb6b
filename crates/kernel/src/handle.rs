//! One command to its end: decide, evolve, and whatever follows by itself.
use kapell_model::Timestamp;

use crate::command::Command;
use crate::entry::Entry;
use crate::error::Rejected;
use crate::evolve::{Delta, evolve};
use crate::run::Run;
use crate::{Context, advance, decide};

/// Debug builds check the invariants after each command, of runs with at most so many units and calls: the check
/// looks at all of them, so that a large run would take quadratic time.
const CHECKED_MAX: usize = 256;

/// What a command did.
#[derive(Debug, Default)]
pub struct Handled {
    /// What happened, to be journaled together.
    pub entries: Vec<Entry>,
    /// What must now be driven, and what no longer.
    pub delta: Delta,
}

/// Applies a command and all that follows from it. A refusal leaves the run as it was.
pub fn handle(
    run: &mut Run,
    at: Timestamp,
    command: Command,
    context: &Context<'_>,
) -> Result<Handled, Rejected> {
    let mut handled = Handled::default();
    let mut entries = decide(run, at, command, context)?;
    while !entries.is_empty() {
        for entry in &entries {
            handled.delta.then(evolve(run, entry));
        }
        handled.entries.append(&mut entries);
        entries = advance(run, at, context);
    }
    if cfg!(debug_assertions) && is_small(run) {
        crate::invariants::check(run).unwrap_or_else(|broken| unreachable!("{}: {broken}", run.id));
    }
    Ok(handled)
}

fn is_small(run: &Run) -> bool {
    let mut left = CHECKED_MAX;
    run.units().all(|(_, unit)| {
        let size = 1 + unit.calls.len() + unit.checkpoints.len();
        let fits = size <= left;
        left = left.saturating_sub(size);
        fits
    })
}
