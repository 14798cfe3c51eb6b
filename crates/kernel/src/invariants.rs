//! The promises about one run, as code that tests and debug builds share.
use crate::outstanding::outstanding;
use crate::run::{Fan, Forward, Phase, Run, StepState};
use crate::unit::{Side, Status, Unit};

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
    /// An item that waits lies before where the next one is looked for.
    #[error("an item of a fan-out is overlooked")]
    Overlooked,
    /// Steps are undone though the run goes on.
    #[error("steps are undone while the run goes on")]
    UndoesWhileRunning,
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
    let active = |side| run.units().filter(|(id, unit)| id.side == side && unit.is_active()).count() as u32;
    let (forward, undoing) = (active(Side::Forward), active(Side::Undo));
    same("the number of active units", forward + undoing, run.active)?;
    same("the number of active units that undo", undoing, run.undoing)?;
    if !live && run.active > 0 {
        return Err(Broken::EndedActive(run.active));
    }
    for (_, state) in &run.steps {
        match state {
            StepState::Fan(fan) => check_fan(fan)?,
            StepState::One(_) | StepState::Skipped => {}
        }
    }
    if let Phase::Running = run.phase
        && undoing > 0
    {
        return Err(Broken::UndoesWhileRunning);
    }
    Ok(())
}

fn check_fan(fan: &Fan) -> Result<(), Broken> {
    let count = |counts: fn(&Forward) -> bool| fan.units.iter().filter(|one| counts(one)).count() as u32;
    let of_undo = count(|one| one.undo.as_ref().is_some_and(is_working));
    same("the number of working items", count(|one| is_working(&one.unit)), fan.active)?;
    same("the number of items that are done", count(|one| one.unit.output().is_some()), fan.done)?;
    same("the number of items to undo", count(Forward::awaits_undo), fan.to_undo)?;
    same("the number of items being undone", of_undo, fan.undoing)?;
    let first =
        |waits: fn(&Forward) -> bool| fan.units.iter().position(waits).unwrap_or(fan.units.len()) as u32;
    let (next, undo_next) = (first(|one| one.unit.status == Status::Waiting), first(Forward::undo_may_begin));
    if fan.next > next || fan.undo_next > undo_next && fan.undoing > 0 {
        return Err(Broken::Overlooked);
    }
    Ok(())
}

fn is_working(unit: &Unit) -> bool {
    unit.status != Status::Waiting && !unit.is_over()
}

fn same(what: &'static str, counted: u32, kept: u32) -> Result<(), Broken> {
    if counted == kept { Ok(()) } else { Err(Broken::Miscounted { what, counted, kept }) }
}
