//! The promises about one run, as code that tests and debug builds share.
use crate::outstanding::outstanding;
use crate::run::{Phase, Run, StepState};
use crate::unit::{Side, Status};

/// Why a run is in a state that must not be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Nothing would ever wake it.
    #[error("a live run has no outstanding order")]
    Stuck,
    /// An order is outstanding twice.
    #[error("an order is outstanding twice: {0}")]
    Twice(String),
    /// A counter disagrees with what it counts.
    #[error("{what} is {counted}, its counter says {kept}")]
    Miscounted {
        /// What.
        what: &'static str,
        /// What is there.
        counted: u32,
        /// What the counter says.
        kept: u32,
    },
    /// A run ended with work left.
    #[error("the run has ended with {0} active units")]
    EndedActive(u32),
}

/// Checks the promises; call it when a command was handled to its end.
pub fn check(run: &Run) -> Result<(), Broken> {
    let orders = outstanding(run);
    let live = !matches!(run.phase, Phase::Ended(_));
    if live && orders.is_empty() {
        return Err(Broken::Stuck);
    }
    let mut keys: Vec<_> = orders.iter().map(crate::Order::key).collect();
    keys.sort_unstable();
    if let Some(pair) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Broken::Twice(format!("{:?}", pair[0])));
    }
    let active = run.units().filter(|(_, unit)| unit.is_active()).count() as u32;
    same("the number of active units", active, run.active)?;
    if !live && active > 0 {
        return Err(Broken::EndedActive(active));
    }
    for (_, state) in &run.steps {
        if let StepState::Fan(fan) = state {
            let working = |status: &Status| {
                !matches!(
                    status,
                    Status::Waiting | Status::Done(_) | Status::Failed(_) | Status::Canceled | Status::Skipped
                )
            };
            let active = fan.units.iter().filter(|one| working(&one.unit.status)).count() as u32;
            same("the number of working items", active, fan.active)?;
            let done = fan.units.iter().filter(|one| one.unit.output().is_some()).count() as u32;
            same("the number of items that are done", done, fan.done)?;
        }
    }
    if let Phase::Running = run.phase {
        for (id, unit) in run.units() {
            if id.side == Side::Undo && !unit.is_over() {
                return Err(Broken::Twice(format!("{id:?} undoes while the run goes on")));
            }
        }
    }
    Ok(())
}

fn same(what: &'static str, counted: u32, kept: u32) -> Result<(), Broken> {
    if counted == kept { Ok(()) } else { Err(Broken::Miscounted { what, counted, kept }) }
}
