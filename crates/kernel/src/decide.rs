//! Which entries a command leads to, or why it is refused.
//!
//! Owns: what is legal in which state. Never: changes the run; what follows by itself is `advance`.
mod approval;
mod call;
mod child;
mod plan;
mod task;

use std::sync::Arc;

use kapell_model::definition::OnFailure;
use kapell_model::limits::{FOREACH_OUTPUT_BYTES_MAX, PAYLOAD_BYTES_MAX, SIGNALS_BYTES_MAX, SIGNALS_MAX};
use kapell_model::{Json, Timestamp};

use crate::Context;
use crate::advance::{again, listener};
use crate::command::{CancelMode, Command};
use crate::entry::Entry;
use crate::error::{ErrorClass, Failure, Rejected, TaskError};
use crate::order::{OrderKey, TimerKey};
use crate::run::{Children, Ended, Ending, OutcomeState, OutcomeVerdict, Phase, Run, StepState, Undo};
use crate::scope;
use crate::unit::{Attempt, Side, Status, Unit, UnitId};

type Decided = Result<Vec<Entry>, Rejected>;

/// table: which entries a command leads to, one line for each command.
pub fn decide(run: &Run, at: Timestamp, command: Command, context: &Context<'_>) -> Decided {
    if command.request().is_some_and(|request| run.has_done(request)) {
        return Ok(Vec::new());
    }
    match command {
        Command::TakeTurn => in_phase(run, &Phase::Queued, OrderKey::Turn, || Entry::TurnTaken),
        Command::SupplyContext { context, reasons } => {
            fits("the context", &context)?;
            let deadline = run.workflow().timeout.map(|span| at.after(span));
            in_phase(run, &Phase::Gathering, OrderKey::Context, || Entry::ContextGathered {
                context,
                reasons,
                deadline,
            })
        }
        Command::AdoptPlan { source, reasons } => plan::adopt(run, source, reasons),
        Command::GiveVerdict { unit, attempt, verdict, reasons } => {
            approval::verdict(run, at, (unit, attempt), verdict, reasons)
        }
        Command::FinishTask { unit, attempt, result } => {
            task::finish(run, at, (unit, attempt), result, context)
        }
        Command::SaveCheckpoint { unit, attempt, position, data } => {
            task::checkpoint(run, (unit, attempt), position, data)
        }
        Command::IntendCall { unit, attempt, no, tool, args, effect } => {
            let wanted = call::Wanted { no, tool, args, effect };
            call::intend(run, at, (unit, attempt), wanted, context)
        }
        Command::FinishCall { unit, no, attempt, outcome } => call::finish(run, (unit, no, attempt), outcome),
        Command::SettleCall { unit, no, attempt, verdict } => {
            call::settle(run, at, (unit, no, attempt), verdict)
        }
        Command::DecideApproval { key, answer } => approval::decide(run, key, answer, context),
        Command::FireTimer(key) => fire(run, at, key, context),
        Command::DeliverEvent { unit, attempt, event } => deliver(run, unit, attempt, event),
        Command::Signal { event } => signal(run, event),
        Command::ReportChild { unit, attempt, result } => child::report(run, at, (unit, attempt), result),
        Command::AcknowledgeEnd => match run.ended() {
            Some(Ended { parent_waits: true, .. }) => Ok(vec![Entry::ParentTold]),
            Some(_) | None => Err(Rejected::Stale(OrderKey::Parent)),
        },
        Command::BindOutcome { event } => bind_outcome(run, event),
        Command::Pause { by, reason } => {
            alive(run)?;
            if run.paused { Err(Rejected::Paused) } else { Ok(vec![Entry::RunPaused { by, reason }]) }
        }
        Command::Resume { by } => {
            alive(run)?;
            if run.paused { Ok(vec![Entry::RunResumed { by }]) } else { Err(Rejected::NotPaused) }
        }
        Command::Cancel { by, reason, mode } => {
            alive(run)?;
            let undo = match mode {
                CancelMode::Undo => Undo::Steps,
                CancelMode::Leave => Undo::Nothing,
            };
            let (towards, children) = (Ending::Canceled { by, reason }, Children::Canceled);
            Ok(vec![Entry::WindUpBegan { towards, undo, children }])
        }
        Command::Retry { by } => retry(run, at, by),
        Command::Once { request, command } => {
            let mut entries = decide(run, at, *command, context)?;
            entries.push(Entry::RequestDone { request });
            Ok(entries)
        }
    }
}

fn in_phase(run: &Run, phase: &Phase, key: OrderKey, entry: impl FnOnce() -> Entry) -> Decided {
    if run.phase == *phase { Ok(vec![entry()]) } else { Err(Rejected::Stale(key)) }
}

/// Refuses what does not apply to a run that has ended or is being wound up.
fn alive(run: &Run) -> Result<(), Rejected> {
    match run.phase {
        Phase::Queued | Phase::Gathering | Phase::Planning | Phase::Running => Ok(()),
        Phase::WindingUp { .. } => Err(Rejected::WindingUp),
        Phase::Ended(_) => Err(Rejected::RunEnded),
    }
}

/// The unit, if it is at this attempt.
fn at_attempt(run: &Run, unit: UnitId, attempt: Attempt, key: OrderKey) -> Result<&Unit, Rejected> {
    match run.unit(unit) {
        Some(found) if found.attempt == attempt => Ok(found),
        Some(_) | None => Err(Rejected::Stale(key)),
    }
}

/// Refuses what is larger than a payload may be.
fn fits(what: &'static str, value: &Json) -> Result<(), Rejected> {
    let (bytes, most) = (value.bytes_len(), PAYLOAD_BYTES_MAX);
    if bytes > most { Err(Rejected::TooLarge { what, bytes, most }) } else { Ok(()) }
}

/// Refuses the output of an item with which those of its foreach are larger together than they may be.
fn fits_with_others(run: &Run, unit: UnitId, output: &Json) -> Result<(), TaskError> {
    let Some(StepState::Fan(fan)) = unit.item.and_then(|_| run.step(unit.step)) else { return Ok(()) };
    let (bytes, most) = (fan.output_bytes + output.bytes_len(), FOREACH_OUTPUT_BYTES_MAX);
    if bytes <= most {
        return Ok(());
    }
    let message = format!(
        "the outputs of {} items are {bytes} bytes together, at most {most} are allowed; pass references",
        fan.done + 1
    );
    Err(TaskError::new(ErrorClass::Permanent, message))
}

fn fire(run: &Run, at: Timestamp, key: TimerKey, context: &Context<'_>) -> Decided {
    let stale = || Rejected::Stale(OrderKey::Timer(key));
    let status =
        |unit, attempt| at_attempt(run, unit, attempt, OrderKey::Timer(key)).map(|unit| &unit.status);
    match key {
        TimerKey::Attempt(unit, attempt) => match status(unit, attempt)? {
            Status::Working { deadline } => {
                due(*deadline, at, stale)?;
                Ok(task::failed(run, at, (unit, attempt), too_long()))
            }
            Status::InChild { deadline: Some(deadline), timed_out: None, .. } => {
                due(*deadline, at, stale)?;
                child::time_out(run, at, (unit, attempt))
            }
            Status::InChild { .. }
            | Status::Waiting
            | Status::Judging
            | Status::Asking(_)
            | Status::Cleared
            | Status::BackingOff { .. }
            | Status::Sleeping { .. }
            | Status::Listening { .. }
            | Status::Settling
            | Status::Done(_)
            | Status::Failed(_)
            | Status::Canceled
            | Status::Skipped => Err(stale()),
        },
        TimerKey::Retry(unit, attempt) => {
            let Status::BackingOff { until } = status(unit, attempt)? else { return Err(stale()) };
            due(*until, at, stale)?;
            if run.paused { Err(stale()) } else { Ok(again(run, at, unit, context)) }
        }
        TimerKey::Sleep(unit, attempt) => {
            let Status::Sleeping { until } = status(unit, attempt)? else { return Err(stale()) };
            due(*until, at, stale)?;
            Ok(vec![Entry::UnitDone { unit, output: Json::null() }])
        }
        TimerKey::Wait(unit, attempt) => {
            let Status::Listening { until: Some(until), .. } = status(unit, attempt)? else {
                return Err(stale());
            };
            due(*until, at, stale)?;
            let error = TaskError::new(ErrorClass::Timeout, "the event did not arrive in time");
            Ok(task::given_up(unit, attempt, error))
        }
        TimerKey::Approval(unit, attempt) => approval::expire(run, at, (unit, attempt)),
        TimerKey::Run => {
            let (Phase::Planning | Phase::Running, Some(deadline)) = (&run.phase, run.deadline) else {
                return Err(stale());
            };
            due(deadline, at, stale)?;
            let error = TaskError::new(ErrorClass::Timeout, "the run took longer than its timeout");
            Ok(vec![wind_up(run, Failure { unit: None, error })])
        }
        TimerKey::Outcome => {
            let Some(OutcomeState::Open { until, .. }) = run.ended().map(|ended| &ended.outcome) else {
                return Err(stale());
            };
            due(*until, at, stale)?;
            Ok(vec![Entry::OutcomeBound { verdict: OutcomeVerdict::Unknown, event: None }])
        }
    }
}

fn due(when: Timestamp, at: Timestamp, otherwise: impl Fn() -> Rejected) -> Result<(), Rejected> {
    if when <= at { Ok(()) } else { Err(otherwise()) }
}

fn too_long() -> TaskError {
    TaskError::new(ErrorClass::Timeout, "the attempt took longer than its timeout")
}

/// The entry that begins to end a failed run.
pub(crate) fn wind_up(run: &Run, failure: Failure) -> Entry {
    let undo = undo_of_failed(run);
    Entry::WindUpBegan { towards: Ending::Failed(failure), undo, children: Children::Canceled }
}

/// What the workflow says becomes of the steps of a failed run.
fn undo_of_failed(run: &Run) -> Undo {
    match run.plan.on_failure {
        OnFailure::Compensate => Undo::Steps,
        OnFailure::Stop => Undo::Nothing,
    }
}

fn deliver(run: &Run, unit: UnitId, attempt: Attempt, event: Json) -> Decided {
    let key = OrderKey::Event(unit, attempt);
    fits("the event", &event)?;
    let Status::Listening { .. } = at_attempt(run, unit, attempt, key)?.status else {
        return Err(Rejected::Stale(key));
    };
    Ok(vec![Entry::UnitDone { unit, output: event }])
}

fn signal(run: &Run, event: Json) -> Decided {
    alive(run)?;
    fits("the event", &event)?;
    if let Some(unit) = listener(run, &event) {
        let position = run.signals.len() as u32;
        let output = event.clone();
        return Ok(vec![
            Entry::SignalReceived { event },
            Entry::SignalTaken { position },
            Entry::UnitDone { unit, output },
        ]);
    }
    if run.signals.len() >= SIGNALS_MAX {
        return Err(Rejected::TooMany { what: "unread signals", most: SIGNALS_MAX });
    }
    let kept: usize = run.signals.iter().map(Json::bytes_len).sum();
    let (bytes, most) = (kept + event.bytes_len(), SIGNALS_BYTES_MAX);
    if bytes > most {
        return Err(Rejected::TooLarge { what: "the run's unread signals together", bytes, most });
    }
    Ok(vec![Entry::SignalReceived { event }])
}

fn bind_outcome(run: &Run, event: Json) -> Decided {
    let stale = Rejected::Stale(OrderKey::Outcome);
    fits("the event", &event)?;
    let Some(OutcomeState::Open { .. }) = run.ended().map(|ended| &ended.outcome) else { return Err(stale) };
    let Some(rule) = &run.workflow().outcome else { return Err(stale) };
    let mut seen = kapell_model::expr::scope_of("event", &event);
    seen.set("run", &scope::about(run));
    let verdict = match rule.success.eval_bool(&seen) {
        Ok(true) => OutcomeVerdict::Success,
        Ok(false) => OutcomeVerdict::Failure,
        Err(_) => OutcomeVerdict::Unknown,
    };
    Ok(vec![Entry::OutcomeBound { verdict, event: Some(event) }])
}

fn retry(run: &Run, at: Timestamp, by: Arc<str>) -> Decided {
    let not_failed = |state| Err(Rejected::RunNotFailed { state });
    match (run.phase(), run.ended().map(|ended| &ended.ending)) {
        (_, Some(Ending::Failed(_))) => {
            // What was undone, if only in part, is gone: the steps that built on it cannot go on from there.
            let undid = |(id, unit): (UnitId, &Unit)| {
                id.side == Side::Undo && (unit.output().is_some() || unit.took_effect())
            };
            if run.units().any(undid) {
                return Err(Rejected::Compensated);
            }
            let deadline = run.workflow().timeout.map(|span| at.after(span));
            Ok(vec![Entry::RunRetried { by, deadline }])
        }
        (_, Some(Ending::Completed { .. })) => not_failed("has completed"),
        (_, Some(Ending::Canceled { .. })) => not_failed("was canceled"),
        (Phase::WindingUp { .. }, None) => not_failed("is being wound up"),
        (_, None) => not_failed("is still going on"),
    }
}
