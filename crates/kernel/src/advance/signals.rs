//! Signals: events given to one run, kept until a step waits for them.
//!
//! Owns: which wait takes which signal. A pair is compared once: when the signal arrives, or when the wait begins.
use kapell_model::Json;

use crate::entry::Entry;
use crate::event::hears;
use crate::expr_text::text_of;
use crate::run::Run;
use crate::unit::{Status, UnitId};

use kapell_model::expr::Expr;
use kapell_model::plan::StepKind;

/// Takes kept signals for the waits that these entries begin, in the order in which both came.
pub(super) fn answer(run: &Run, begun: &[Entry]) -> Vec<Entry> {
    let mut kept: Vec<&Json> = run.signals.iter().collect();
    let mut entries = Vec::new();
    for entry in begun {
        if kept.is_empty() {
            break;
        }
        let Entry::WaitBegan { unit, event_type, correlation, .. } = entry else { continue };
        let by = by_of(run, *unit);
        if let Some(position) = kept.iter().position(|event| hears(event, event_type, correlation, by)) {
            let output = kept.remove(position).clone();
            entries.push(Entry::SignalTaken { position: position as u32 });
            entries.push(Entry::UnitDone { unit: *unit, output });
        }
    }
    entries
}

/// The first unit that waits for this event.
pub(crate) fn listener(run: &Run, event: &Json) -> Option<UnitId> {
    let value = event.value();
    let of_type = text_of(&value["type"]);
    let mut units = run.units();
    let found = units.find(|(id, unit)| match &unit.status {
        Status::Listening { event_type, correlation, .. } => {
            **event_type == *of_type && hears(event, event_type, correlation, by_of(run, *id))
        }
        Status::Waiting
        | Status::Judging
        | Status::Asking(_)
        | Status::Cleared
        | Status::Working { .. }
        | Status::BackingOff { .. }
        | Status::Sleeping { .. }
        | Status::InChild { .. }
        | Status::Settling
        | Status::Done(_)
        | Status::Failed(_)
        | Status::Canceled
        | Status::Skipped => false,
    });
    found.map(|(id, _)| id)
}

fn by_of(run: &Run, id: UnitId) -> Option<&Expr> {
    match run.plan_step(id.step).map(|step| &step.kind) {
        Some(StepKind::Event { by, .. }) => by.as_ref(),
        Some(_) | None => None,
    }
}
