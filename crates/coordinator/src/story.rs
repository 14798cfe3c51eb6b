//! The story of a run: each entry in words, with its reasons.
//!
//! Owns: the words. Never: leaves an entry out.
use kapell_kernel::{
    AfterFailure, ApprovalKey, CallOutcome, CallVerdict, Ending, Entry, OutcomeVerdict, PlanSource, Run,
    Undo, UnitId, Verdict,
};
use kapell_model::{Seq, Timestamp};
use kapell_proto::v1;

use crate::own_event::Above;

/// One line for each entry.
pub(crate) fn tell(run: &Run, entries: &[(Seq, Timestamp, Entry)]) -> Vec<v1::StoryLine> {
    entries.iter().map(|(seq, at, entry)| line(run, *seq, *at, entry)).collect()
}

fn line(run: &Run, seq: Seq, at: Timestamp, entry: &Entry) -> v1::StoryLine {
    let unit = unit_of(entry);
    let step = unit.map(|unit| name(run, unit)).or_else(|| step_of(run, entry)).unwrap_or_default();
    v1::StoryLine {
        seq: seq.0,
        at_ms: i64::try_from(at.0).unwrap_or(i64::MAX),
        entry: kind(entry).to_owned(),
        text: text(run, entry),
        reasons: reasons(entry),
        step,
    }
}

/// The step's id, with the item and whether it is undone.
fn name(run: &Run, unit: UnitId) -> String {
    let id = run.plan_step(unit.step).map_or("?", |step| &*step.id);
    let undo = if unit.side == kapell_kernel::Side::Undo { " (undo)" } else { "" };
    match unit.item {
        Some(item) => format!("{id}[{}]{undo}", item.0),
        None => format!("{id}{undo}"),
    }
}

fn step_of(run: &Run, entry: &Entry) -> Option<String> {
    let (Entry::StepSkipped { step } | Entry::FanOpened { step, .. } | Entry::FanJoined { step, .. }) = entry
    else {
        return None;
    };
    run.plan_step(*step).map(|step| step.id.to_string())
}

fn unit_of(entry: &Entry) -> Option<UnitId> {
    match entry {
        Entry::JudgementAsked { unit, .. }
        | Entry::Judged { unit, .. }
        | Entry::ApprovalAsked { unit, .. }
        | Entry::TaskDispatched { unit, .. }
        | Entry::CheckpointSaved { unit, .. }
        | Entry::CallIntended { unit, .. }
        | Entry::CallFinished { unit, .. }
        | Entry::CallSettled { unit, .. }
        | Entry::UnitDone { unit, .. }
        | Entry::AttemptFailed { unit, .. }
        | Entry::SleepBegan { unit, .. }
        | Entry::WaitBegan { unit, .. }
        | Entry::ChildBegan { unit, .. }
        | Entry::ChildTimedOut { unit, .. }
        | Entry::UnitSettled { unit }
        | Entry::ApprovalDecided { key: ApprovalKey::Unit(unit, _) | ApprovalKey::Call(unit, ..), .. } => {
            Some(*unit)
        }
        Entry::RunAccepted(_)
        | Entry::TurnTaken
        | Entry::ContextGathered { .. }
        | Entry::PlanMade { .. }
        | Entry::StepSkipped { .. }
        | Entry::FanOpened { .. }
        | Entry::SignalReceived { .. }
        | Entry::SignalTaken { .. }
        | Entry::FanJoined { .. }
        | Entry::RequestDone { .. }
        | Entry::RunPaused { .. }
        | Entry::RunResumed { .. }
        | Entry::WindUpBegan { .. }
        | Entry::RunEnded { .. }
        | Entry::ParentTold
        | Entry::OutcomeBound { .. }
        | Entry::RunRetried { .. } => None,
    }
}

/// table: the name of each kind of entry.
fn kind(entry: &Entry) -> &'static str {
    match entry {
        Entry::RunAccepted(_) => "RunAccepted",
        Entry::TurnTaken => "TurnTaken",
        Entry::ContextGathered { .. } => "ContextGathered",
        Entry::PlanMade { .. } => "PlanMade",
        Entry::StepSkipped { .. } => "StepSkipped",
        Entry::FanOpened { .. } => "FanOpened",
        Entry::JudgementAsked { .. } => "JudgementAsked",
        Entry::Judged { .. } => "Judged",
        Entry::ApprovalAsked { .. } => "ApprovalAsked",
        Entry::ApprovalDecided { .. } => "ApprovalDecided",
        Entry::TaskDispatched { .. } => "TaskDispatched",
        Entry::CheckpointSaved { .. } => "CheckpointSaved",
        Entry::CallIntended { .. } => "CallIntended",
        Entry::CallFinished { .. } => "CallFinished",
        Entry::CallSettled { .. } => "CallSettled",
        Entry::UnitDone { .. } => "UnitDone",
        Entry::AttemptFailed { .. } => "AttemptFailed",
        Entry::SleepBegan { .. } => "SleepBegan",
        Entry::WaitBegan { .. } => "WaitBegan",
        Entry::ChildBegan { .. } => "ChildBegan",
        Entry::ChildTimedOut { .. } => "ChildTimedOut",
        Entry::SignalReceived { .. } => "SignalReceived",
        Entry::SignalTaken { .. } => "SignalTaken",
        Entry::FanJoined { .. } => "FanJoined",
        Entry::RequestDone { .. } => "RequestDone",
        Entry::RunPaused { .. } => "RunPaused",
        Entry::RunResumed { .. } => "RunResumed",
        Entry::WindUpBegan { .. } => "WindUpBegan",
        Entry::UnitSettled { .. } => "UnitSettled",
        Entry::RunEnded { .. } => "RunEnded",
        Entry::ParentTold => "ParentTold",
        Entry::OutcomeBound { .. } => "OutcomeBound",
        Entry::RunRetried { .. } => "RunRetried",
    }
}

fn reasons(entry: &Entry) -> Vec<String> {
    let (Entry::ContextGathered { reasons, .. }
    | Entry::PlanMade { reasons, .. }
    | Entry::Judged { reasons, .. }) = entry
    else {
        return vec![];
    };
    reasons.iter().map(ToString::to_string).collect()
}

fn short(text: &str) -> String {
    const CHARS_MAX: usize = 160;
    match text.char_indices().nth(CHARS_MAX) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text.to_owned(),
    }
}

// table: what each kind of entry says.
#[expect(clippy::too_many_lines, reason = "a table: one arm for each kind of entry")]
fn text(run: &Run, entry: &Entry) -> String {
    match entry {
        Entry::RunAccepted(accepted) => {
            let (event, workflow) = (accepted.event.value(), &accepted.workflow.name);
            let key = accepted.key.as_ref().map_or_else(String::new, |key| format!(", key `{key}`"));
            let queued = if accepted.queued { "; an earlier run of the key goes first" } else { "" };
            match Above::of(accepted) {
                Above::Schedule(name, tick) => {
                    format!(
                        "schedule `{name}` started workflow `{workflow}` for its tick of {tick}{key}{queued}"
                    )
                }
                Above::Nothing | Above::Run(_) => {
                    let (kind, source) = (&event["type"], &event["source"]);
                    format!("event {kind} from {source} started workflow `{workflow}`{key}{queued}")
                }
            }
        }
        Entry::TurnTaken => "its turn came".to_owned(),
        Entry::ContextGathered { context, .. } => format!("context gathered: {}", short(context.as_str())),
        Entry::PlanMade { source: PlanSource::Written, .. } => {
            format!("it follows the written steps, {} of them", run.workflow().plan.steps.len())
        }
        Entry::PlanMade { .. } => "a plan was made for it".to_owned(),
        Entry::StepSkipped { .. } => "skipped: its condition is false".to_owned(),
        Entry::FanOpened { items, .. } => format!("fans out over {} items", items.len()),
        Entry::JudgementAsked { input, .. } => {
            format!("to be judged first, with input {}", short(input.as_str()))
        }
        Entry::Judged { verdict, .. } => match verdict {
            Verdict::Follow => "judged: do it".to_owned(),
            Verdict::Escalate { ask, .. } => format!("judged: ask a person: {ask}"),
            Verdict::Pause => "judged: pause until a person has looked at it".to_owned(),
            Verdict::Refuse { reason } => format!("judged: do not do it: {reason}"),
        },
        Entry::ApprovalAsked { question, expires, .. } => {
            format!("asks a person: {} (until {expires})", question.ask)
        }
        Entry::ApprovalDecided { answer, .. } => {
            let said = if answer.approved { "yes" } else { "no" };
            let why = if answer.reason.is_empty() { String::new() } else { format!(": {}", answer.reason) };
            format!("{} said {said}{why}", answer.by)
        }
        Entry::TaskDispatched { attempt, input, .. } => match input {
            Some(input) => format!("attempt {} handed out with input {}", attempt.0, short(input.as_str())),
            None => format!("attempt {} handed out", attempt.0),
        },
        Entry::CheckpointSaved { .. } => "kept a checkpoint".to_owned(),
        Entry::CallIntended { tool, args, attempt, .. } => {
            let again = if attempt.0 > 1 { format!(" (making {})", attempt.0) } else { String::new() };
            format!("intends to call {tool} with {}{again}", short(args.as_str()))
        }
        Entry::CallFinished { outcome, .. } => match outcome {
            CallOutcome::Succeeded(result) => format!("the call took effect: {}", short(result.as_str())),
            CallOutcome::Failed(error) => format!("the call took no effect: {error}"),
            CallOutcome::Unknown { reason } => format!("nobody knows whether the call took effect: {reason}"),
        },
        Entry::CallSettled { verdict, .. } => match verdict {
            CallVerdict::TookEffect(_) => "found out: the call took effect".to_owned(),
            CallVerdict::SafeToRepeat => "found out: the call may safely be made again".to_owned(),
            CallVerdict::CannotTell { reason } => {
                format!("could not be found out: {reason}; a person is asked")
            }
        },
        Entry::UnitDone { output, .. } => format!("done: {}", short(output.as_str())),
        Entry::AttemptFailed { attempt, error, then, .. } => match then {
            AfterFailure::RetryAt(at) => format!("attempt {} failed ({error}); again at {at}", attempt.0),
            AfterFailure::GiveUp => format!("failed for good: {error}"),
        },
        Entry::SleepBegan { until, .. } => format!("sleeps until {until}"),
        Entry::WaitBegan { event_type, correlation, .. } => {
            format!("waits for event {event_type} with `{correlation}`")
        }
        Entry::ChildBegan { child, deadline, .. } => match deadline {
            Some(deadline) => format!("starts run {child}, which may take until {deadline}"),
            None => format!("starts run {child}"),
        },
        Entry::ChildTimedOut { undo, .. } => {
            format!("the run that it started takes too long and is canceled; {}", undoing(*undo))
        }
        Entry::SignalReceived { event } => format!("a signal came: {}", event.value()["type"]),
        Entry::SignalTaken { .. } => "the waiting step takes the signal".to_owned(),
        Entry::FanJoined { output, .. } => format!("every item is done: {}", short(output.as_str())),
        Entry::RequestDone { .. } => "the same request again would do nothing".to_owned(),
        Entry::RunPaused { by, reason } => format!("paused by {by}: {reason}"),
        Entry::RunResumed { by } => format!("resumed by {by}"),
        Entry::WindUpBegan { towards, undo, children: _ } => {
            format!("it will end: {}; {}", ending(towards), undoing(*undo))
        }
        Entry::UnitSettled { .. } => "let go, its last call is over".to_owned(),
        Entry::RunEnded { ending: how, .. } => ending(how),
        Entry::ParentTold => match Above::of(run.accepted()) {
            Above::Schedule(..) => "the schedule that started it knows".to_owned(),
            Above::Nothing | Above::Run(_) => "the run that started it knows".to_owned(),
        },
        Entry::OutcomeBound { verdict, .. } => match verdict {
            OutcomeVerdict::Success => "outcome: success".to_owned(),
            OutcomeVerdict::Failure => "outcome: failure".to_owned(),
            OutcomeVerdict::Unknown => "outcome: unknown".to_owned(),
        },
        Entry::RunRetried { by, .. } => format!("{by} has the failed steps tried again"),
    }
}

fn undoing(undo: Undo) -> &'static str {
    match undo {
        Undo::Steps => "steps are undone first",
        Undo::Nothing => "things stay as they are",
    }
}

fn ending(ending: &Ending) -> String {
    match ending {
        Ending::Completed { output } => format!("completed: {}", short(output.as_str())),
        Ending::Failed(failure) => format!("failed: {}", failure.error),
        Ending::Canceled { by, reason } => format!("canceled by {by}: {reason}"),
    }
}
