//! A known command of each kind and shape.
use std::sync::Arc;
use std::time::Duration;

use kapell_kernel::{
    ApprovalAnswer, ApprovalKey, Attempt, CallNo, CallOutcome, CallVerdict, CancelMode, Command, Ending,
    ErrorClass, Failure, PlanSource, QuestionKind, TaskError, TimerKey, UnitId, Verdict,
};
use kapell_model::definition::EffectClass;
use kapell_model::plan::StepIndex;
use kapell_model::{Json, RequestId};

use crate::world::WORLD;

/// How many kinds of commands there are.
pub(crate) const KINDS: usize = 21;

/// Name of a command's kind.
pub(crate) fn kind_of(command: &Command) -> &'static str {
    match command {
        Command::TakeTurn => "take-turn",
        Command::SupplyContext { .. } => "supply-context",
        Command::AdoptPlan { .. } => "adopt-plan",
        Command::GiveVerdict { .. } => "give-verdict",
        Command::FinishTask { .. } => "finish-task",
        Command::SaveCheckpoint { .. } => "save-checkpoint",
        Command::IntendCall { .. } => "intend-call",
        Command::FinishCall { .. } => "finish-call",
        Command::SettleCall { .. } => "settle-call",
        Command::DecideApproval { .. } => "decide-approval",
        Command::FireTimer(_) => "fire-timer",
        Command::DeliverEvent { .. } => "deliver-event",
        Command::Signal { .. } => "signal",
        Command::ReportChild { .. } => "report-child",
        Command::AcknowledgeEnd => "acknowledge-end",
        Command::BindOutcome { .. } => "bind-outcome",
        Command::Pause { .. } => "pause",
        Command::Resume { .. } => "resume",
        Command::Cancel { .. } => "cancel",
        Command::Retry { .. } => "retry",
        Command::Once { .. } => "once",
    }
}

pub(crate) fn json(text: &str) -> Json {
    Json::parse(text).unwrap()
}

pub(crate) fn unit() -> UnitId {
    UnitId::item(StepIndex(2), 17).undo()
}

pub(crate) fn error() -> TaskError {
    let retry_after = Some(Duration::from_millis(1_500));
    TaskError { retry_after, ..TaskError::new(ErrorClass::RateLimited, "grün ist gelb") }
}

/// Timers of every kind, each under its name.
pub(crate) fn timers() -> Vec<(&'static str, TimerKey)> {
    let (unit, attempt) = (unit(), Attempt(3));
    vec![
        ("attempt", TimerKey::Attempt(unit, attempt)),
        ("retry", TimerKey::Retry(unit, attempt)),
        ("sleep", TimerKey::Sleep(unit, attempt)),
        ("wait", TimerKey::Wait(unit, attempt)),
        ("approval", TimerKey::Approval(unit, attempt)),
        ("run", TimerKey::Run),
        ("outcome", TimerKey::Outcome),
    ]
}

/// Commands, each under its kind and a word where a kind has several shapes.
pub(crate) fn commands() -> Vec<(String, Command)> {
    let plain = [Command::TakeTurn, Command::AcknowledgeEnd].map(|command| ("", command));
    let timers = timers().into_iter().map(|(name, key)| (name, Command::FireTimer(key)));
    let all = plain.into_iter().chain(timers).chain(of_mind()).chain(of_work()).chain(of_people());
    let named = |(shape, command): (&str, Command)| {
        let kind = kind_of(&command);
        (if shape.is_empty() { kind.to_owned() } else { format!("{kind}.{shape}") }, command)
    };
    all.map(named).collect()
}

fn of_mind() -> Vec<(&'static str, Command)> {
    let because: Vec<Arc<str>> = vec!["first".into(), "zweitens €".into()];
    let judged = |verdict| Command::GiveVerdict {
        unit: unit(),
        attempt: Attempt(2),
        verdict,
        reasons: because.clone(),
    };
    let escalate = |kind| Verdict::Escalate { ask: "May it?".into(), show: json(r#"{"price":9.5}"#), kind };
    let made = PlanSource::Made(WORLD.workflow("small").plan.clone());
    vec![
        ("", Command::SupplyContext { context: json(r#"{"a":1}"#), reasons: because.clone() }),
        ("written", Command::AdoptPlan { source: PlanSource::Written, reasons: vec![] }),
        ("made", Command::AdoptPlan { source: made, reasons: because.clone() }),
        ("follow", judged(Verdict::Follow)),
        ("escalate.step", judged(escalate(QuestionKind::Step))),
        ("escalate.agree", judged(escalate(QuestionKind::Agree))),
        ("escalate.suggestion", judged(escalate(QuestionKind::Suggestion))),
        ("escalate.outcome", judged(escalate(QuestionKind::CallOutcome))),
        ("pause", judged(Verdict::Pause)),
        ("refuse", judged(Verdict::Refuse { reason: "too dear".into() })),
    ]
}

fn of_work() -> Vec<(&'static str, Command)> {
    let (unit, attempt, no) = (unit(), Attempt(2), CallNo(5));
    let finished = |result| Command::FinishTask { unit, attempt, result };
    let called = |outcome| Command::FinishCall { unit, no, attempt, outcome };
    let settled = |verdict| Command::SettleCall { unit, no, attempt, verdict };
    let child = |result| Command::ReportChild { unit, attempt, result };
    let failed = |unit| Ok(Ending::Failed(Failure { unit, error: error() }));
    let intended = |effect| Command::IntendCall {
        unit,
        attempt,
        no,
        tool: "shop-north/set-price".parse().unwrap(),
        args: json("{}"),
        effect,
    };
    let canceled = Ending::Canceled { by: "ann".into(), reason: "no".into() };
    vec![
        ("output", finished(Ok(json("[1]")))),
        ("error", finished(Err(error()))),
        ("", Command::SaveCheckpoint { unit, attempt, position: 4, data: json("\"kept\"") }),
        ("read", intended(EffectClass::Read)),
        ("write", intended(EffectClass::Write)),
        ("irreversible", intended(EffectClass::Irreversible)),
        ("succeeded", called(CallOutcome::Succeeded(json("true")))),
        ("failed", called(CallOutcome::Failed(error()))),
        ("unknown", called(CallOutcome::Unknown { reason: "cut off".into() })),
        ("took-effect", settled(CallVerdict::TookEffect(json("null")))),
        ("safe-to-repeat", settled(CallVerdict::SafeToRepeat)),
        ("cannot-tell", settled(CallVerdict::CannotTell { reason: "no read".into() })),
        ("completed", child(Ok(Ending::Completed { output: json("{\"a\":[]}") }))),
        ("failed", child(failed(Some(unit)))),
        ("failed-whole", child(failed(None))),
        ("canceled", child(Ok(canceled))),
        ("not-started", child(Err(error()))),
    ]
}

fn of_people() -> Vec<(&'static str, Command)> {
    let told = || json(r#"{"type":"com.example.told"}"#);
    let answer =
        |approved, result| ApprovalAnswer { approved, by: "ann".into(), reason: "fine".into(), result };
    let (unit, attempt) = (unit(), Attempt(2));
    let of_unit = ApprovalKey::Unit(unit, attempt);
    let of_call = ApprovalKey::Call(unit, CallNo(0), attempt);
    let once = |command| Command::Once { request: RequestId::of("first"), command: Box::new(command) };
    let cancel = |mode| Command::Cancel { by: "ann".into(), reason: "no".into(), mode };
    vec![
        ("unit", Command::DecideApproval { key: of_unit, answer: answer(true, None) }),
        ("call", Command::DecideApproval { key: of_call, answer: answer(false, Some(json("1"))) }),
        ("", Command::DeliverEvent { unit, attempt, event: told() }),
        ("", Command::Signal { event: told() }),
        ("", Command::BindOutcome { event: told() }),
        ("", Command::Pause { by: "ann".into(), reason: "lunch".into() }),
        ("", Command::Resume { by: "ann".into() }),
        ("undo", cancel(CancelMode::Undo)),
        ("leave", cancel(CancelMode::Leave)),
        ("", Command::Retry { by: "ann".into() }),
        ("", once(Command::Pause { by: "ann".into(), reason: "lunch".into() })),
    ]
}
