//! A run as the API shows it.
use kapell_kernel::{
    ApprovalKey, Attempt, CallNo, Ending, Order, OutcomeVerdict, Phase, QuestionKind, Run, StepState, Unit,
    UnitId, outstanding,
};
use kapell_ledger::RunState;
use kapell_model::plan::StepIndex;
use kapell_model::{RunId, Timestamp};
use kapell_proto::v1;
use kapell_wire::task::{error_to, unit_to};

use super::row::run_state;
use crate::own_event::Above;

/// The state's number on the wire.
pub(crate) fn state_to(state: RunState) -> v1::RunState {
    match state {
        RunState::Queued => v1::RunState::Queued,
        RunState::Running => v1::RunState::Running,
        RunState::Waiting => v1::RunState::Waiting,
        RunState::Paused => v1::RunState::Paused,
        RunState::WindingUp => v1::RunState::WindingUp,
        RunState::Completed => v1::RunState::Completed,
        RunState::Failed => v1::RunState::Failed,
        RunState::Canceled => v1::RunState::Canceled,
    }
}

/// The whole run.
pub(crate) fn view(run: &Run) -> v1::Run {
    let (accepted, above) = (run.accepted(), Above::of(run.accepted()));
    let mut seen = v1::Run {
        id: run.id.to_string(),
        namespace: accepted.workflow.namespace.to_string(),
        workflow: accepted.workflow.name.to_string(),
        version: accepted.workflow.digest.to_string(),
        key: accepted.key.as_deref().unwrap_or_default().to_owned(),
        state: state_to(run_state(run)).into(),
        accepted_ms: millis(accepted.at),
        steps: run.plan().indices().filter_map(|step| step_view(run, step)).collect(),
        waiting_for: outstanding(run).iter().filter_map(|order| in_words(run, order)).collect(),
        outcome: outcome_text(run).unwrap_or_default().to_owned(),
        event: accepted.event.to_string(),
        parent: above.run().map_or_else(String::new, |parent| parent.to_string()),
        schedule: above.schedule().unwrap_or_default().to_owned(),
        ..v1::Run::default()
    };
    if let Phase::Ended(ended) = run.phase() {
        seen.ended_ms = millis(ended.at);
        match &ended.ending {
            Ending::Completed { output } => seen.output = output.to_string(),
            Ending::Failed(failure) => seen.error = Some(error_to(&failure.error)),
            Ending::Canceled { by, reason } => {
                let class = kapell_kernel::ErrorClass::Rejected;
                let error = kapell_kernel::TaskError::new(class, format!("canceled by {by}: {reason}"));
                seen.error = Some(error_to(&error));
            }
        }
    }
    seen
}

/// The run as lists show it: what the ledger knows.
pub(crate) fn row_view(row: &kapell_ledger::RunRow) -> v1::Run {
    v1::Run {
        id: row.run.to_string(),
        namespace: row.namespace.to_string(),
        workflow: row.workflow.to_string(),
        version: row.version.clone(),
        key: row.key.clone().unwrap_or_default(),
        state: state_to(row.state).into(),
        accepted_ms: millis(row.accepted),
        ended_ms: row.ended.map_or(0, millis),
        output: row.output.as_ref().map_or_else(String::new, ToString::to_string),
        error: row.error.as_ref().map(|(class, message)| v1::TaskError {
            class: class_to(class).into(),
            message: message.clone(),
            retry_after_ms: None,
        }),
        outcome: row.outcome.clone().unwrap_or_default(),
        parent: row.parent.map_or_else(String::new, |parent| parent.to_string()),
        ..v1::Run::default()
    }
}

fn class_to(name: &str) -> v1::ErrorClass {
    v1::ErrorClass::from_str_name(&format!("ERROR_CLASS_{}", name.to_ascii_uppercase()))
        .unwrap_or(v1::ErrorClass::Unspecified)
}

/// Digest of a run's whole state, for comparing two of them.
pub(crate) fn digest(image: &kapell_kernel::RunImage) -> String {
    let bytes = kapell_wire::encode_image(&kapell_wire::Image::Run(Box::new(image.clone())));
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in &bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}

fn millis(at: Timestamp) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}

fn step_view(run: &Run, step: StepIndex) -> Option<v1::StepView> {
    let id = run.plan_step(step)?.id.to_string();
    let mut seen = v1::StepView { id, ..v1::StepView::default() };
    match run.step(step) {
        None => seen.state = "waiting".to_owned(),
        Some(StepState::Skipped) => seen.state = "skipped".to_owned(),
        Some(StepState::One(one)) => {
            seen.state = unit_state(&one.unit).to_owned();
            seen.attempts = one.unit.attempt.0;
            seen.output = one.unit.output().map_or_else(String::new, ToString::to_string);
            if let kapell_kernel::Status::Failed(error) = &one.unit.status {
                seen.error = Some(error_to(error));
            }
            seen.undone = one.undo.as_ref().is_some_and(|undo| undo.output().is_some());
        }
        Some(StepState::Fan(fan)) => {
            seen.items = fan.units.len() as u32;
            seen.items_done = fan.done;
            seen.attempts = fan.units.iter().map(|one| one.unit.attempt.0).max().unwrap_or(0);
            seen.output = fan.output.as_ref().map_or_else(String::new, ToString::to_string);
            let failed = fan.units.iter().find_map(|one| {
                let kapell_kernel::Status::Failed(error) = &one.unit.status else { return None };
                Some(error_to(error))
            });
            seen.state = match (&fan.output, &failed) {
                (Some(_), _) => "done",
                (None, Some(_)) => "failed",
                (None, None) => "running",
            }
            .to_owned();
            seen.error = failed;
            seen.undone =
                fan.units.iter().any(|one| one.undo.as_ref().is_some_and(|undo| undo.output().is_some()));
        }
    }
    Some(seen)
}

fn unit_state(unit: &Unit) -> &'static str {
    use kapell_kernel::Status;
    match unit.status {
        Status::Waiting | Status::Cleared => "waiting",
        Status::Judging | Status::Working { .. } | Status::InChild { .. } | Status::Settling => "running",
        Status::BackingOff { .. } => "retrying",
        Status::Asking(_) => "asking",
        Status::Sleeping { .. } | Status::Listening { .. } => "sleeping",
        Status::Done(_) => "done",
        Status::Failed(_) => "failed",
        Status::Canceled => "canceled",
        Status::Skipped => "skipped",
    }
}

/// What an order waits for, in words; timers that only bound something else are left out.
fn in_words(run: &Run, order: &Order) -> Option<String> {
    use kapell_kernel::TimerKey;
    let step = |unit: &UnitId| {
        let id = run.plan_step(unit.step).map_or("?", |step| &*step.id);
        let undo = if unit.side == kapell_kernel::Side::Undo { " (undo)" } else { "" };
        match unit.item {
            Some(item) => format!("{id}[{}]{undo}", item.0),
            None => format!("{id}{undo}"),
        }
    };
    Some(match order {
        Order::AwaitTurn => "an earlier run of its key".to_owned(),
        Order::GatherContext => "its context".to_owned(),
        Order::MakePlan => "its plan".to_owned(),
        Order::Judge { unit, .. } => format!("judgement of step {}", step(unit)),
        Order::Dispatch(task) => format!("a worker to do {} (step {})", task.skill, step(&task.unit)),
        Order::Call { unit, call } => format!("the answer of {} (step {})", call.tool, step(unit)),
        Order::Reconcile { unit, call } => {
            format!("finding out whether a call of {} took effect (step {})", call.tool, step(unit))
        }
        Order::AskApproval { key, question, .. } => {
            format!("a person: {} (kapell approve {})", question.ask, approval_id(run.id, key))
        }
        Order::SetTimer { key: TimerKey::Retry(unit, _), at } => {
            format!("another attempt of step {} at {at}", step(unit))
        }
        Order::SetTimer { key: TimerKey::Sleep(unit, _), at } => format!("{at} (step {})", step(unit)),
        Order::SetTimer { .. } => return None,
        Order::AwaitEvent { unit, event_type, correlation, .. } => {
            format!("an event {event_type} with {correlation} (step {})", step(unit))
        }
        Order::StartChild { unit, child, workflow, .. } => {
            format!("run {child} of {workflow} (step {})", step(unit))
        }
        Order::CancelChild { unit, child, .. } => {
            format!("run {child}, which was canceled, to end (step {})", step(unit))
        }
        Order::TellParent(parent) => match Above::of(run.accepted()) {
            Above::Schedule(name, _) => format!("schedule {name} to learn that it has ended"),
            Above::Nothing | Above::Run(_) => format!("run {} to learn that it has ended", parent.run),
        },
        Order::AwaitResume => "a person to resume it (kapell run resume)".to_owned(),
        Order::BindOutcome { event_type, .. } => format!("its outcome: an event {event_type}"),
    })
}

/// How the run turned out for the business, as far as it is known.
pub(super) fn outcome_text(run: &Run) -> Option<&'static str> {
    run.workflow().outcome.as_ref()?;
    match run.outcome() {
        Some(OutcomeVerdict::Success) => Some("success"),
        Some(OutcomeVerdict::Failure) => Some("failure"),
        Some(OutcomeVerdict::Unknown) => Some("unknown"),
        None => Some("open"),
    }
}

/// Why a person is asked, as it is shown.
pub(super) fn kind_text(kind: QuestionKind) -> &'static str {
    match kind {
        QuestionKind::Step => "step",
        QuestionKind::Agree => "agree",
        QuestionKind::Suggestion => "suggestion",
        QuestionKind::CallOutcome => "call_outcome",
    }
}

/// A question's key within its run: `STEP[.ITEM][u]-ATTEMPT`, or with `cNO` before the attempt for a call.
pub(crate) fn approval_key_text(key: &ApprovalKey) -> String {
    let (unit, call, attempt) = match key {
        ApprovalKey::Unit(unit, attempt) => (unit, None, attempt),
        ApprovalKey::Call(unit, no, attempt) => (unit, Some(no), attempt),
    };
    let unit = unit_to(*unit);
    let item = unit.item.map_or_else(String::new, |item| format!(".{item}"));
    let undo = if unit.undo { "u" } else { "" };
    let call = call.map_or_else(String::new, |no| format!("c{}", no.0));
    format!("{}{item}{undo}{call}-{}", unit.step, attempt.0)
}

/// A question's name for people.
pub(crate) fn approval_id(run: RunId, key: &ApprovalKey) -> String {
    format!("{run}:{}", approval_key_text(key))
}

/// Back from [`approval_id`].
pub(crate) fn parse_approval_id(text: &str) -> Option<(RunId, ApprovalKey)> {
    let (run, key) = text.split_once(':')?;
    let (unit, attempt) = key.split_once('-')?;
    let attempt = Attempt(attempt.parse().ok()?);
    let (unit, call) = match unit.split_once('c') {
        Some((unit, no)) => (unit, Some(CallNo(no.parse().ok()?))),
        None => (unit, None),
    };
    let (unit, undo) = match unit.strip_suffix('u') {
        Some(unit) => (unit, true),
        None => (unit, false),
    };
    let (step, item) = match unit.split_once('.') {
        Some((step, item)) => (step, Some(item.parse().ok()?)),
        None => (unit, None),
    };
    let unit = v1::UnitId { step: step.parse().ok()?, item, undo };
    let unit = kapell_wire::task::unit_from(Some(&unit)).ok()?;
    let key = match call {
        Some(no) => ApprovalKey::Call(unit, no, attempt),
        None => ApprovalKey::Unit(unit, attempt),
    };
    Some((run.parse().ok()?, key))
}
