//! Approvals, pausing, canceling.
use kapell_kernel::{
    ApprovalKey, Attempt, CallNo, CallVerdict, CancelMode, Command, Ending, Entry, ErrorClass, Order,
    OrderKey, ParentRef, Phase, PlanSource, QuestionKind, Rejected, Status, TimerKey, Verdict,
};
use kapell_model::limits::REQUESTS_KEPT;
use kapell_model::{Json, RunId, ShardId, Timestamp};
use serde_json::{Value, json};

use crate::bench::{
    Bench, START, Start, answered, cancel, catalogue, event, once, one, pause, resume, retry, seconds,
    unknown, verdict, workflow,
};
use crate::menu::is_working;

fn asking(on_expire: &str) -> Bench {
    Bench::of(&json!({ "onFailure": "stop", "steps": [{ "id": "a",
        "approval": { "ask": "Pay ${event.data}?", "show": { "k": 1 }, "expires": "1h", "onExpire": on_expire } }] }))
}

fn ending(bench: &Bench) -> Value {
    match &bench.ended().ending {
        Ending::Completed { output } => output.value(),
        Ending::Failed(failure) => json!(failure.error.class.as_str()),
        Ending::Canceled { .. } => json!("canceled"),
    }
}

const KEY: ApprovalKey = ApprovalKey::Unit(
    kapell_kernel::UnitId {
        step: kapell_model::plan::StepIndex(0),
        item: None,
        side: kapell_kernel::Side::Forward,
    },
    Attempt(1),
);

/// Since when each question is asked, as the run says and as its checkpoint does.
fn asked_since(bench: &mut Bench) -> Vec<Option<Timestamp>> {
    let since = |order: &Order| match order {
        Order::AskApproval { since, .. } => Some(*since),
        _ => None,
    };
    let before: Vec<_> = bench.open.values().filter_map(since).collect();
    bench.restore();
    let after: Vec<_> = kapell_kernel::outstanding(&bench.run).iter().filter_map(since).collect();
    assert_eq!(before, after);
    before
}

#[test]
fn a_question_says_since_when_it_is_asked() {
    let mut step = asking("reject");
    let asked = step.now;
    step.now = asked.after(seconds(60));
    step.ok(pause());
    assert_eq!(asked_since(&mut step), [Some(asked)], "not since it was looked at last");

    let mut call = Bench::of(&json!({ "steps": [{ "id": "a", "skill": "do.write" }] }));
    call.follow(one(0));
    call.intend(one(0), 0);
    call.call_ends(one(0), 0, unknown());
    call.now = call.now.after(seconds(5));
    let found = CallVerdict::CannotTell { reason: "no trace".into() };
    call.ok(Command::SettleCall { unit: one(0), no: CallNo(0), attempt: Attempt(1), verdict: found });
    assert_eq!(asked_since(&mut call), [Some(START.after(seconds(5)))], "since nobody could find out");

    let mut judged = Bench::of(&json!({ "steps": [{ "id": "a", "skill": "do.write" }] }));
    judged.now = judged.now.after(seconds(7));
    let ask = Verdict::Escalate { ask: "may it?".into(), show: Json::null(), kind: QuestionKind::Agree };
    judged.ok(verdict(one(0), Attempt(1), ask));
    assert_eq!(asked_since(&mut judged), [Some(START.after(seconds(7)))]);
}

#[test]
fn an_approval_step_asks_and_takes_yes_no_or_silence() {
    let mut bench = asking("reject");
    let Order::AskApproval { question, expires, .. } = &bench.open[&OrderKey::Approval(KEY)] else {
        panic!()
    };
    assert_eq!((&*question.ask, question.kind), ("Pay {}?", QuestionKind::Step));
    assert_eq!(*expires, Some(bench.now.after(seconds(3600))));
    bench.answer(KEY, true, None);
    assert_eq!(ending(&bench), json!({ "approved": true, "by": "ann", "reason": "hm" }));
    assert!(matches!(bench.refused(answered(KEY, true, None)), Rejected::Stale(_)));

    let mut no = asking("reject");
    no.answer(KEY, false, None);
    assert_eq!(ending(&no), json!("rejected"));
    no.ok(retry());
    assert!(
        no.has(OrderKey::Approval(ApprovalKey::Unit(one(0), Attempt(2)))),
        "asked anew, under a new number"
    );
    assert!(matches!(no.refused(answered(KEY, true, None)), Rejected::Stale(_)));

    for (on_expire, expected) in [("reject", json!("rejected")), ("approve", json!("expiry"))] {
        let mut silent = asking(on_expire);
        let early = Command::FireTimer(TimerKey::Approval(one(0), Attempt(1)));
        assert!(matches!(silent.refused(early), Rejected::Stale(_)));
        silent.fire(TimerKey::Approval(one(0), Attempt(1)));
        let ending = ending(&silent);
        assert_eq!(ending.get("by").unwrap_or(&ending), &expected);
    }
}

fn escalated(kind: QuestionKind, skill: &str) -> Bench {
    let mut bench = Bench::of(&json!({ "onFailure": "stop", "steps": [{ "id": "a", "skill": skill }] }));
    let escalate = Verdict::Escalate { ask: "may it?".into(), show: Json::null(), kind };
    bench.ok(verdict(one(0), Attempt(1), escalate));
    bench
}

#[test]
fn a_person_agrees_or_not_before_a_specialist_acts() {
    let mut bench = escalated(QuestionKind::Agree, "do.write");
    bench.answer(KEY, true, None);
    assert!(is_working(bench.status(one(0))));
    assert_eq!(bench.unit(one(0)).attempt, Attempt(1));
    let mut no = escalated(QuestionKind::Agree, "do.write");
    no.answer(KEY, false, None);
    assert_eq!(ending(&no), json!("rejected"));
    let mut silent = escalated(QuestionKind::Agree, "do.write");
    silent.fire(TimerKey::Approval(one(0), Attempt(1)));
    assert_eq!(ending(&silent), json!("rejected"), "silence is no agreement");
}

#[test]
fn a_person_does_what_was_suggested_and_gives_a_result_that_fits() {
    let mut bench = escalated(QuestionKind::Suggestion, "help.write");
    for unfit in [None, Some(json!({ "bad": 1 }))] {
        assert!(matches!(bench.refused(answered(KEY, true, unfit)), Rejected::UnfitResult(_)));
        assert!(bench.has(OrderKey::Approval(KEY)), "the person may correct it");
    }
    bench.answer(KEY, true, Some(json!({ "ok": 5 })));
    assert_eq!(ending(&bench), json!({ "ok": 5 }));
    let mut anything = escalated(QuestionKind::Suggestion, "do.write");
    anything.answer(KEY, true, None);
    assert_eq!(ending(&anything), json!(null));
    let mut no = escalated(QuestionKind::Suggestion, "help.write");
    no.answer(KEY, false, Some(json!(5)));
    assert_eq!(ending(&no), json!("rejected"));
    let mut silent = escalated(QuestionKind::Suggestion, "help.write");
    silent.fire(TimerKey::Approval(one(0), Attempt(1)));
    assert_eq!(ending(&silent), json!("rejected"));
}

#[test]
fn a_refused_step_fails_and_a_stale_verdict_changes_nothing() {
    let mut bench = Bench::of(&json!({ "steps": [{ "id": "a", "skill": "do.write" }] }));
    let stale = Rejected::Stale(OrderKey::Judge(one(0), Attempt(2)));
    assert_eq!(bench.refused(verdict(one(0), Attempt(2), Verdict::Follow)), stale);
    bench.ok(verdict(one(0), Attempt(1), Verdict::Refuse { reason: "never".into() }));
    assert_eq!(ending(&bench), json!("denied"));
    assert!(matches!(bench.refused(verdict(one(0), Attempt(1), Verdict::Follow)), Rejected::Stale(_)));
}

#[test]
fn a_judgement_may_pause_the_run_until_a_person_looked() {
    let mut bench = Bench::of(
        &json!({ "steps": [{ "id": "a", "skill": "do.write" }, { "id": "b", "skill": "do.write" }] }),
    );
    let entries = bench.ok(verdict(one(0), Attempt(1), Verdict::Pause));
    assert!(matches!(&entries[1], Entry::RunPaused { by, .. } if &**by == "judgement"));
    let command =
        Command::GiveVerdict { unit: one(1), attempt: Attempt(1), verdict: Verdict::Pause, reasons: vec![] };
    assert_eq!(bench.ok(command).len(), 1, "paused already");
    assert_eq!(bench.open.keys().collect::<Vec<_>>(), [&OrderKey::Resume]);
    bench.ok(resume());
    assert!(is_working(bench.status(one(0))) && is_working(bench.status(one(1))));
    let mut wordless = Bench::of(&json!({ "steps": [{ "id": "a", "skill": "do.write" }] }));
    let command =
        Command::GiveVerdict { unit: one(0), attempt: Attempt(1), verdict: Verdict::Pause, reasons: vec![] };
    let entries = wordless.ok(command);
    assert!(matches!(&entries[1], Entry::RunPaused { reason, .. } if reason.contains("person")));
}

#[test]
fn a_paused_run_begins_nothing_and_hides_its_retry_timers() {
    let mut bench = Bench::of(&json!({ "steps": [
        { "id": "a", "skill": "do.read" }, { "id": "b", "skill": "do.read" },
        { "id": "c", "skill": "do.read", "after": ["b"] }, { "id": "d", "wait": { "for": "1s" } },
    ] }));
    bench.fail(one(0), ErrorClass::Unavailable);
    let timer = TimerKey::Retry(one(0), Attempt(1));
    let at = bench.timer(timer);
    bench.ok(pause());
    assert_eq!(bench.refused(pause()), Rejected::Paused);
    assert!(!bench.has(OrderKey::Timer(timer)));
    assert!(matches!(bench.tell_at(at, Command::FireTimer(timer)), Err(Rejected::Stale(_))));
    bench.finish(one(1), &json!(1));
    bench.fire(TimerKey::Sleep(one(3), Attempt(0)));
    assert!(bench.run.unit(one(2)).is_none(), "nothing new begins");
    assert!(bench.run.is_paused());
    bench.ok(resume());
    assert_eq!(bench.refused(resume()), Rejected::NotPaused);
    assert_eq!(bench.timer(timer), at);
    assert!(is_working(bench.status(one(2))));
    bench.fire(timer);
    bench.finish(one(0), &json!(1));
    bench.ok(pause());
    bench.finish(one(2), &json!(1));
    assert!(bench.run.ended().is_none(), "not even its end");
    bench.ok(resume());
    assert!(bench.run.ended().is_some());
}

#[test]
fn what_was_asked_before_under_the_same_name_undoes_nothing_when_it_comes_again() {
    let mut bench = Bench::of(&json!({ "steps": [{ "id": "a", "skill": "do.read" }] }));
    let first = once("first", pause());
    let entries = bench.ok(first.clone());
    assert!(matches!(entries[..], [Entry::RunPaused { .. }, Entry::RequestDone { .. }]), "{entries:?}");
    assert_eq!(bench.ok(first.clone()), [], "and it is not refused");
    bench.ok(once("second", resume()));
    assert_eq!(bench.ok(first), []);
    assert!(!bench.run.is_paused());
    assert_eq!(bench.refused(once("third", resume())), Rejected::NotPaused);
    bench.ok(once("fourth", pause()));
    bench.ok(once("third", resume()));
    let told = once("told", Command::Signal { event: event("a", "b") });
    assert!(!bench.ok(told.clone()).is_empty());
    assert_eq!(bench.ok(told), []);
}

#[test]
fn a_run_remembers_the_last_of_what_was_asked() {
    let mut bench = Bench::of(&json!({ "steps": [{ "id": "a", "skill": "do.read" }] }));
    let told = |no: usize| once(&no.to_string(), Command::Signal { event: event("a", "b") });
    for no in 0..=REQUESTS_KEPT {
        bench.ok(told(no));
    }
    for no in 1..=REQUESTS_KEPT {
        assert_eq!(bench.ok(told(no)), [], "{no}");
    }
    assert!(!bench.ok(told(0)).is_empty(), "the oldest is forgotten");
}

#[test]
fn a_run_can_be_canceled_and_paused_in_each_phase() {
    let spec = json!({ "steps": [{ "id": "a", "skill": "do.write" }] });
    let queued = Start { queued: true, ..Start::default() };
    let steps = [
        Command::TakeTurn,
        Command::SupplyContext { context: Json::null(), reasons: vec![] },
        Command::AdoptPlan { source: PlanSource::Written, reasons: vec![] },
    ];
    for done in 0..=steps.len() {
        let mut bench = Bench::started(catalogue(&[workflow(&spec)]), queued.clone());
        for step in &steps[..done] {
            bench.ok(step.clone());
        }
        bench.ok(pause());
        assert!(bench.has(OrderKey::Resume));
        bench.ok(cancel(CancelMode::Undo));
        assert_eq!(ending(&bench), json!("canceled"), "after {done}");
        assert!(bench.open.is_empty() && !bench.run.is_paused());
        for command in
            [pause(), resume(), cancel(CancelMode::Leave), Command::Signal { event: event("a", "b") }]
        {
            assert_eq!(bench.refused(command), Rejected::RunEnded);
        }
        for step in &steps {
            assert!(matches!(bench.refused(step.clone()), Rejected::Stale(_)));
        }
    }
}

#[test]
fn a_run_that_is_wound_up_takes_no_more_from_people() {
    let mut bench = Bench::of(&json!({ "steps": [{ "id": "a", "skill": "do.write" }] }));
    bench.follow(one(0));
    bench.intend(one(0), 0);
    bench.ok(cancel(CancelMode::Leave));
    assert!(matches!(bench.run.phase(), Phase::WindingUp { .. }));
    for command in [pause(), resume(), cancel(CancelMode::Undo), Command::Signal { event: event("a", "b") }] {
        assert_eq!(bench.refused(command), Rejected::WindingUp);
    }
    assert_eq!(*bench.status(one(0)), Status::Settling);
}

#[test]
fn a_parent_is_told_once() {
    let parent = ParentRef { run: RunId::new(ShardId(1), 9), unit: one(4), attempt: Attempt(1) };
    let spec = json!({ "steps": [{ "id": "a", "skill": "do.read" }] });
    let start = Start { parent: Some(parent), nesting: 1, ..Start::default() };
    let mut bench = Bench::started(catalogue(&[workflow(&spec)]), start).planned();
    assert!(matches!(bench.refused(Command::AcknowledgeEnd), Rejected::Stale(OrderKey::Parent)));
    bench.finish(one(0), &json!(1));
    assert_eq!(bench.open.values().collect::<Vec<_>>(), [&Order::TellParent(parent)]);
    bench.ok(Command::AcknowledgeEnd);
    assert!(bench.open.is_empty());
    assert!(matches!(bench.refused(Command::AcknowledgeEnd), Rejected::Stale(OrderKey::Parent)));
}
