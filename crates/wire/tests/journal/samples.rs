//! A known value of each kind that is stored.
use std::sync::Arc;
use std::time::Duration;

use kapell_kernel::{
    AfterFailure, ApprovalAnswer, ApprovalKey, Asked, Attempt, Call, CallNo, CallOutcome, CallState,
    CallVerdict, Children, Ending, Entry, ErrorClass, Failure, Forward, OutcomeImage, OutcomeVerdict,
    PhaseImage, PlanSource, Question, QuestionKind, RunImage, Status, StepImage, TaskError, Undo, Unit,
    UnitId, Verdict,
};
use kapell_model::definition::{EffectClass, OnExpire};
use kapell_model::plan::StepIndex;
use kapell_model::{Json, RequestId, Timestamp};
use kapell_wire::{DefinitionRecord, DefinitionsImage, Image};

use crate::driver::accepted;
use crate::world::{WORLD, run_id};

/// How many kinds of entries there are.
pub(crate) const KINDS: usize = 33;

/// Name of the golden file of an entry's kind.
pub(crate) fn kind_of(entry: &Entry) -> &'static str {
    match entry {
        Entry::RunAccepted(_) => "run-accepted",
        Entry::TurnTaken => "turn-taken",
        Entry::ContextGathered { .. } => "context-gathered",
        Entry::PlanMade { .. } => "plan-made",
        Entry::StepSkipped { .. } => "step-skipped",
        Entry::FanOpened { .. } => "fan-opened",
        Entry::JudgementAsked { .. } => "judgement-asked",
        Entry::Judged { .. } => "judged",
        Entry::ApprovalAsked { .. } => "approval-asked",
        Entry::ApprovalDecided { .. } => "approval-decided",
        Entry::TaskDispatched { .. } => "task-dispatched",
        Entry::CheckpointSaved { .. } => "checkpoint-saved",
        Entry::CallIntended { .. } => "call-intended",
        Entry::CallFinished { .. } => "call-finished",
        Entry::CallSettled { .. } => "call-settled",
        Entry::UnitDone { .. } => "unit-done",
        Entry::AttemptFailed { .. } => "attempt-failed",
        Entry::SleepBegan { .. } => "sleep-began",
        Entry::WaitBegan { .. } => "wait-began",
        Entry::ChildBegan { .. } => "child-began",
        Entry::ChildTimedOut { .. } => "child-timed-out",
        Entry::SignalReceived { .. } => "signal-received",
        Entry::SignalTaken { .. } => "signal-taken",
        Entry::FanJoined { .. } => "fan-joined",
        Entry::RequestDone { .. } => "request-done",
        Entry::RunPaused { .. } => "run-paused",
        Entry::RunResumed { .. } => "run-resumed",
        Entry::WindUpBegan { .. } => "wind-up-began",
        Entry::UnitSettled { .. } => "unit-settled",
        Entry::RunEnded { .. } => "run-ended",
        Entry::ParentTold => "parent-told",
        Entry::OutcomeBound { .. } => "outcome-bound",
        Entry::RunRetried { .. } => "run-retried",
    }
}

pub(crate) const AT: Timestamp = Timestamp(1_700_000_000_123);

fn json(text: &str) -> Json {
    Json::parse(text).unwrap()
}

fn step(at: u32) -> UnitId {
    UnitId::step(StepIndex(at))
}

fn item(at: u32, item: u32) -> UnitId {
    UnitId::item(StepIndex(at), item)
}

fn error(class: ErrorClass) -> TaskError {
    TaskError { retry_after: Some(Duration::from_millis(1_500)), ..TaskError::new(class, "grün ist gelb") }
}

fn question(kind: QuestionKind) -> Question {
    Question { kind, ask: "May it?".into(), show: json(r#"{"price":9.5}"#) }
}

/// Entries, each under the name of its golden file: the kind, and a word where a kind has several shapes.
// table: one value for each kind, as its golden file holds it
#[expect(clippy::too_many_lines, reason = "a table")]
pub(crate) fn entries() -> Vec<(String, Entry)> {
    let (a, b) = (Attempt(2), CallNo(5));
    let at = Timestamp(1_700_000_111_000);
    let because: Vec<Arc<str>> = vec!["first".into(), "zweitens €".into()];
    let unit = item(2, 17);
    let judged = |verdict| Entry::Judged { unit, attempt: a, verdict, reasons: because.clone() };
    let asked = |kind, on_expire| Entry::ApprovalAsked {
        unit,
        attempt: a,
        question: question(kind),
        at: AT,
        expires: at,
        on_expire,
    };
    let earlier = Entry::ApprovalAsked {
        unit,
        attempt: a,
        question: question(QuestionKind::Step),
        at: Timestamp(AT.0 - 1),
        expires: at,
        on_expire: OnExpire::Reject,
    };
    let decided = |key, result| {
        let answer = ApprovalAnswer { approved: true, by: "ann".into(), reason: "fine".into(), result };
        Entry::ApprovalDecided { key, answer }
    };
    let finished = |outcome| Entry::CallFinished { unit, no: b, outcome };
    let settled = |verdict| Entry::CallSettled { unit, no: b, verdict, at };
    let failed = |class, then| Entry::AttemptFailed { unit, attempt: a, error: error(class), then };
    let wind_up = |towards, undo| Entry::WindUpBegan { towards, undo, children: Children::LeftAlone };
    let made = PlanSource::Made(WORLD.workflow("small").plan.clone());
    let failure = |unit| Ending::Failed(Failure { unit, error: error(ErrorClass::Auth) });
    let canceled = Ending::Canceled { by: "ann".into(), reason: "no".into() };
    let done = Ending::Completed { output: json("[1]") };
    let told = json(r#"{"type":"com.example.told"}"#);
    let tool = "shop-north/set-price".parse().unwrap();
    let began = |deadline| {
        let (child, input) = (run_id(u128::MAX), json("{}"));
        Entry::ChildBegan { unit, attempt: a, child, input, deadline }
    };
    let list = [
        ("", Entry::RunAccepted(Box::new(accepted(10)))),
        ("plain", Entry::RunAccepted(Box::new(accepted(3)))),
        ("", Entry::TurnTaken),
        (
            "",
            Entry::ContextGathered {
                context: json(r#"{"a":1}"#),
                reasons: because.clone(),
                deadline: Some(at),
            },
        ),
        ("", Entry::PlanMade { source: PlanSource::Written, reasons: vec![] }),
        ("made", Entry::PlanMade { source: made, reasons: because.clone() }),
        ("", Entry::StepSkipped { step: StepIndex(300) }),
        (
            "",
            Entry::FanOpened {
                step: StepIndex(2),
                items: vec![json("1"), json("null")],
                inputs: vec![json("{}"), json("[]")],
            },
        ),
        ("", Entry::JudgementAsked { unit: step(0), input: json("{}") }),
        ("follow", judged(Verdict::Follow)),
        (
            "escalate",
            judged(Verdict::Escalate {
                ask: "May it?".into(),
                show: json("1"),
                kind: QuestionKind::Suggestion,
            }),
        ),
        ("pause", judged(Verdict::Pause)),
        ("refuse", judged(Verdict::Refuse { reason: "never".into() })),
        ("step", asked(QuestionKind::Step, OnExpire::Approve)),
        ("earlier", earlier),
        ("agree", asked(QuestionKind::Agree, OnExpire::Reject)),
        ("suggestion", asked(QuestionKind::Suggestion, OnExpire::Reject)),
        ("outcome", asked(QuestionKind::CallOutcome, OnExpire::Reject)),
        ("unit", decided(ApprovalKey::Unit(unit, a), Some(json("5")))),
        ("call", decided(ApprovalKey::Call(unit, CallNo(0), a), None)),
        ("", Entry::TaskDispatched { unit, attempt: a, input: Some(json(r#"{"sku":"a"}"#)), deadline: at }),
        ("known", Entry::TaskDispatched { unit: step(0), attempt: Attempt(1), input: None, deadline: at }),
        ("", Entry::CheckpointSaved { unit, data: json("\"c\"") }),
        (
            "",
            Entry::CallIntended {
                unit: unit.undo(),
                no: b,
                attempt: a,
                tool,
                args: json("{}"),
                effect: EffectClass::Irreversible,
                at,
            },
        ),
        ("succeeded", finished(CallOutcome::Succeeded(json("true")))),
        ("failed", finished(CallOutcome::Failed(error(ErrorClass::BadRequest)))),
        ("unknown", finished(CallOutcome::Unknown { reason: "the line went dead".into() })),
        ("took-effect", settled(CallVerdict::TookEffect(json("true")))),
        ("safe-to-repeat", settled(CallVerdict::SafeToRepeat)),
        ("cannot-tell", settled(CallVerdict::CannotTell { reason: "no such read".into() })),
        ("", Entry::UnitDone { unit: step(3), output: json(r#"{"ok":true}"#) }),
        ("retry", failed(ErrorClass::Unavailable, AfterFailure::RetryAt(at))),
        ("give-up", failed(ErrorClass::Permanent, AfterFailure::GiveUp)),
        ("", Entry::SleepBegan { unit, until: at }),
        (
            "",
            Entry::WaitBegan {
                unit,
                event_type: "com.example.told".into(),
                correlation: "v7".into(),
                until: Some(at),
            },
        ),
        ("", began(None)),
        ("timed", began(Some(at))),
        ("undo", Entry::ChildTimedOut { unit, undo: Undo::Steps }),
        ("leave", Entry::ChildTimedOut { unit, undo: Undo::Nothing }),
        ("", Entry::SignalReceived { event: told.clone() }),
        ("", Entry::SignalTaken { position: 4 }),
        ("", Entry::FanJoined { step: StepIndex(2), output: json(r#"{"results":[]}"#) }),
        ("", Entry::RequestDone { request: RequestId::of("first") }),
        ("", Entry::RunPaused { by: "ann".into(), reason: "look".into() }),
        ("", Entry::RunResumed { by: "bob".into() }),
        ("failed", wind_up(failure(Some(unit)), Undo::Steps)),
        ("canceled", wind_up(canceled.clone(), Undo::Nothing)),
        (
            "children",
            Entry::WindUpBegan { towards: canceled.clone(), undo: Undo::Steps, children: Children::Canceled },
        ),
        ("", Entry::UnitSettled { unit }),
        ("completed", Entry::RunEnded { ending: done, at, outcome: Some(("v7".into(), AT)) }),
        ("failed", Entry::RunEnded { ending: failure(None), at, outcome: None }),
        ("canceled", Entry::RunEnded { ending: canceled, at, outcome: None }),
        ("", Entry::ParentTold),
        ("success", Entry::OutcomeBound { verdict: OutcomeVerdict::Success, event: Some(told.clone()) }),
        ("failure", Entry::OutcomeBound { verdict: OutcomeVerdict::Failure, event: Some(told) }),
        ("unknown", Entry::OutcomeBound { verdict: OutcomeVerdict::Unknown, event: None }),
        ("", Entry::RunRetried { by: "bob".into(), deadline: Some(at) }),
    ];
    let named = |(shape, entry): (&str, Entry)| {
        let kind = kind_of(&entry);
        (if shape.is_empty() { kind.to_owned() } else { format!("{kind}.{shape}") }, entry)
    };
    list.into_iter().map(named).collect()
}

/// Versions of definitions.
pub(crate) fn definitions() -> Vec<(&'static str, DefinitionRecord)> {
    let document = json(r#"{"kind":"Workflow"}"#);
    vec![
        (
            "definition",
            DefinitionRecord { document: document.clone(), removed: false, revision: 7, at: Timestamp(0) },
        ),
        ("definition.removed", DefinitionRecord { document, removed: true, revision: 8, at: Timestamp(0) }),
    ]
}

fn unit(status: Status) -> Unit {
    Unit { status, ..Unit::new(json(r#"{"in":1}"#)) }
}

fn one(status: Status) -> Forward {
    Forward { unit: unit(status), undo: None }
}

fn calls() -> Vec<Call> {
    let states = [
        CallState::Intended,
        CallState::Unknown { reason: "the line went dead".into() },
        CallState::Asking { since: None },
        CallState::Succeeded(json("true")),
        CallState::Failed(Box::new(error(ErrorClass::RateLimited))),
    ];
    let call = |(no, state)| Call {
        no: CallNo(no),
        tool: "shop-north/set-price".parse().unwrap(),
        args: json("{}"),
        effect: EffectClass::Write,
        attempt: Attempt(no + 1),
        intended: AT,
        state,
    };
    (0..).zip(states).map(call).collect()
}

/// Images with every status and state in them.
// table: one value for each kind, as its golden file holds it
#[expect(clippy::too_many_lines, reason = "a table")]
pub(crate) fn images() -> Vec<(&'static str, Image)> {
    let at = Timestamp(1_700_000_111_000);
    let asked = |since| {
        let question = question(QuestionKind::Agree);
        Status::Asking(Box::new(Asked { question, since, expires: at, on_expire: OnExpire::Approve }))
    };
    let working = Unit {
        attempt: Attempt(3),
        failures: 2,
        calls: calls(),
        checkpoints: vec![json("1"), json("{}")],
        ..unit(Status::Working { deadline: at })
    };
    let listening =
        Status::Listening { event_type: "com.example.told".into(), correlation: "v7".into(), until: None };
    let statuses = [
        Status::Waiting,
        Status::Judging,
        asked(None),
        Status::Cleared,
        Status::BackingOff { until: at },
        Status::Sleeping { until: at },
        listening,
        Status::InChild { child: run_id(11), deadline: None, timed_out: None },
        Status::Settling,
        Status::Done(json("5")),
        Status::Failed(Box::new(error(ErrorClass::Denied))),
        Status::Canceled,
        Status::Skipped,
    ];
    let units: Vec<Forward> = statuses.into_iter().map(one).collect();
    let items = units.iter().map(|_| json("1")).collect();
    let undone = Forward { unit: unit(Status::Done(json("1"))), undo: Some(working.clone()) };
    let running = RunImage {
        id: run_id(7),
        accepted: accepted(10),
        phase: PhaseImage::Running,
        paused: true,
        context: json(r#"{"known":1}"#),
        plan: None,
        planned: true,
        steps: vec![
            (StepIndex(0), StepImage::One(Box::new(Forward { unit: working, undo: None }))),
            (StepIndex(1), StepImage::Skipped),
            (StepIndex(2), StepImage::Fan { items, units, output: Some(json("[]")) }),
            (StepIndex(9), StepImage::One(Box::new(undone))),
        ],
        cleared: vec![item(2, 3), step(0)],
        failed: Some(item(2, 10)),
        signals: vec![json("{}")],
        requests: vec![],
        deadline: Some(at),
    };
    let of = |phase| RunImage {
        phase,
        accepted: accepted(3),
        steps: vec![],
        cleared: vec![],
        failed: None,
        ..running.clone()
    };
    let ended = |ending, outcome| PhaseImage::Ended { ending, at, parent_waits: true, undone: true, outcome };
    let canceled = Ending::Canceled { by: "ann".into(), reason: "no".into() };
    let open = OutcomeImage::Open { correlation: "v7".into(), until: at };
    let winding_up = PhaseImage::WindingUp { towards: canceled.clone(), undo: Undo::Steps };
    let small = RunImage { plan: Some(WORLD.workflow("small").plan.clone()), ..of(PhaseImage::Planning) };
    let run = |image: RunImage| Image::Run(Box::new(image));
    let in_child = |timed_out| Status::InChild { child: run_id(11), deadline: Some(at), timed_out };
    let children = [in_child(None), in_child(Some(Undo::Steps)), in_child(Some(Undo::Nothing))];
    let timed = RunImage {
        steps: (0..)
            .map(StepIndex)
            .zip(children.map(|status| StepImage::One(Box::new(one(status)))))
            .collect(),
        ..of(PhaseImage::Running)
    };
    let asking = Unit {
        calls: vec![Call { state: CallState::Asking { since: Some(AT) }, ..calls().swap_remove(2) }],
        ..unit(asked(Some(AT)))
    };
    let asking = RunImage {
        steps: vec![(StepIndex(0), StepImage::One(Box::new(Forward { unit: asking, undo: None })))],
        ..of(PhaseImage::Running)
    };
    let requests = ["first", "second"].map(RequestId::of).to_vec();
    let asked_once = RunImage { requests, ..of(PhaseImage::Running) };
    let definitions = DefinitionsImage {
        revision: 9,
        current: vec![json("{}")],
        former: vec![json("[]"), json("1")],
        since: vec![],
    };
    vec![
        ("image-run.running", run(running.clone())),
        ("image-run.queued", run(of(PhaseImage::Queued))),
        ("image-run.timed-children", run(timed)),
        ("image-run.asking", run(asking)),
        ("image-run.asked", run(asked_once)),
        ("image-run.gathering", run(of(PhaseImage::Gathering))),
        ("image-run.planning", run(small)),
        ("image-run.winding-up", run(of(winding_up))),
        ("image-run.ended", run(of(ended(canceled.clone(), OutcomeImage::None)))),
        (
            "image-run.ended-known",
            run(of(ended(canceled.clone(), OutcomeImage::Known(OutcomeVerdict::Failure)))),
        ),
        ("image-run.ended-open", run(of(ended(canceled, open)))),
        ("image-ended", Image::Ended { at }),
        ("image-definitions", Image::Definitions(definitions)),
    ]
}
