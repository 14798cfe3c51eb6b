//! Every shape of a command and of a rejection, with any values in it, comes out as it went in.
use std::sync::Arc;
use std::time::Duration;

use kapell_kernel::{
    ApprovalAnswer, ApprovalKey, Attempt, CallNo, CallOutcome, CallVerdict, Command, Ending, ErrorClass,
    Failure, OrderKey, PlanSource, Rejected, TaskError, TimerKey, UnitId, Verdict,
};
use kapell_model::plan::StepIndex;
use kapell_model::{Json, RequestId, ToolRef};
use kapell_proto::peer::v1 as proto;
use kapell_wire::peer::{command_from, command_to, rejected_from, rejected_to};
use proptest::prelude::*;
use prost::Message as _;

use crate::commands::commands;
use crate::refusals::rejections;
use crate::world::WORLD;

/// Values to fill a shape with.
#[derive(Clone, Debug)]
struct Values {
    unit: UnitId,
    attempt: Attempt,
    no: CallNo,
    number: u32,
    text: Arc<str>,
    other: Arc<str>,
    reasons: Vec<Arc<str>>,
    json: Json,
    tool: ToolRef,
    error: TaskError,
    flag: bool,
    phrase: &'static str,
    size: usize,
}

fn units() -> impl Strategy<Value = UnitId> {
    (any::<u32>(), any::<Option<u32>>(), any::<bool>()).prop_map(|(step, item, undo)| {
        let step = StepIndex(step);
        let unit = item.map_or(UnitId::step(step), |item| UnitId::item(step, item));
        if undo { unit.undo() } else { unit }
    })
}

fn jsons() -> impl Strategy<Value = Json> {
    let text = any::<String>().prop_map(|text| Json::string(&text));
    let number = any::<i64>().prop_map(|number| Json::of(&number.into()));
    let leaf = prop_oneof![text, number, Just(Json::null())];
    leaf.prop_recursive(3, 16, 4, |inner| {
        proptest::collection::vec(inner, 0..4).prop_map(|items| Json::list(&items))
    })
}

fn errors() -> impl Strategy<Value = TaskError> {
    use ErrorClass as C;
    let classes = [
        C::Unavailable,
        C::RateLimited,
        C::Timeout,
        C::WorkerLost,
        C::Panicked,
        C::Auth,
        C::BadRequest,
        C::ContractBroken,
        C::UnknownOutcome,
        C::Denied,
        C::Rejected,
        C::Expression,
        C::NoSpecialist,
        C::Permanent,
    ];
    let wait = any::<Option<u32>>().prop_map(|wait| wait.map(|ms| Duration::from_millis(ms.into())));
    (proptest::sample::select(classes.to_vec()), any::<String>(), wait)
        .prop_map(|(class, message, retry_after)| TaskError { class, message, retry_after })
}

fn texts() -> impl Strategy<Value = Arc<str>> {
    any::<String>().prop_map(Arc::from)
}

prop_compose! {
    fn values()(
        unit in units(),
        (attempt, no, number) in any::<(u32, u32, u32)>(),
        (text, other) in (texts(), texts()),
        reasons in proptest::collection::vec(texts(), 0..4),
        json in jsons(),
        tool in "[a-z][a-z0-9]{0,8}/[a-z][a-z0-9]{0,8}",
        error in errors(),
        flag in any::<bool>(),
        // The kernel's own; a process keeps only so many.
        phrase in proptest::sample::select(&["", "the output", "was canceled", "unread signals"][..]),
        size in any::<usize>(),
    ) -> Values {
        let (attempt, no, tool) = (Attempt(attempt), CallNo(no), tool.parse().unwrap());
        Values { unit, attempt, no, number, text, other, reasons, json, tool, error, flag, phrase, size }
    }
}

impl Values {
    fn command(&self, shape: Command) -> Command {
        let Values { unit, attempt, no, .. } = *self;
        let v = self.clone();
        match shape {
            Command::TakeTurn => Command::TakeTurn,
            Command::SupplyContext { .. } => Command::SupplyContext { context: v.json, reasons: v.reasons },
            Command::AdoptPlan { source, .. } => {
                Command::AdoptPlan { source: self.source(&source), reasons: v.reasons }
            }
            Command::GiveVerdict { verdict, .. } => {
                Command::GiveVerdict { unit, attempt, verdict: self.verdict(verdict), reasons: v.reasons }
            }
            Command::FinishTask { result, .. } => {
                Command::FinishTask { unit, attempt, result: result.map(|_| v.json).map_err(|_| v.error) }
            }
            Command::SaveCheckpoint { .. } => {
                Command::SaveCheckpoint { unit, attempt, position: v.number, data: v.json }
            }
            Command::IntendCall { effect, .. } => {
                Command::IntendCall { unit, attempt, no, tool: v.tool, args: v.json, effect }
            }
            Command::FinishCall { outcome, .. } => {
                Command::FinishCall { unit, no, attempt, outcome: self.outcome(outcome) }
            }
            Command::SettleCall { verdict, .. } => {
                Command::SettleCall { unit, no, attempt, verdict: self.found_out(verdict) }
            }
            Command::DecideApproval { key, answer } => {
                let result = answer.result.map(|_| v.json);
                let answer = ApprovalAnswer { approved: v.flag, by: v.text, reason: v.other, result };
                Command::DecideApproval { key: self.approval(key), answer }
            }
            Command::FireTimer(key) => Command::FireTimer(self.timer(key)),
            Command::DeliverEvent { .. } => Command::DeliverEvent { unit, attempt, event: v.json },
            Command::Signal { .. } => Command::Signal { event: v.json },
            Command::ReportChild { result, .. } => {
                let result = result.map(|ending| self.ending(ending)).map_err(|_| v.error);
                Command::ReportChild { unit, attempt, result }
            }
            Command::AcknowledgeEnd => Command::AcknowledgeEnd,
            Command::BindOutcome { .. } => Command::BindOutcome { event: v.json },
            Command::Pause { .. } => Command::Pause { by: v.text, reason: v.other },
            Command::Resume { .. } => Command::Resume { by: v.text },
            Command::Cancel { mode, .. } => Command::Cancel { by: v.text, reason: v.other, mode },
            Command::Retry { .. } => Command::Retry { by: v.text },
            Command::Once { command, .. } => {
                Command::Once { request: RequestId::of(&v.text), command: Box::new(self.command(*command)) }
            }
        }
    }

    fn source(&self, source: &PlanSource) -> PlanSource {
        match source {
            PlanSource::Written => PlanSource::Written,
            PlanSource::Made(_) => {
                let name = if self.flag { "everything" } else { "small" };
                PlanSource::Made(WORLD.workflow(name).plan.clone())
            }
        }
    }

    fn verdict(&self, verdict: Verdict) -> Verdict {
        match verdict {
            Verdict::Follow => Verdict::Follow,
            Verdict::Escalate { kind, .. } => {
                Verdict::Escalate { ask: self.text.clone(), show: self.json.clone(), kind }
            }
            Verdict::Pause => Verdict::Pause,
            Verdict::Refuse { .. } => Verdict::Refuse { reason: self.text.clone() },
        }
    }

    fn outcome(&self, outcome: CallOutcome) -> CallOutcome {
        match outcome {
            CallOutcome::Succeeded(_) => CallOutcome::Succeeded(self.json.clone()),
            CallOutcome::Failed(_) => CallOutcome::Failed(self.error.clone()),
            CallOutcome::Unknown { .. } => CallOutcome::Unknown { reason: self.text.clone() },
        }
    }

    fn found_out(&self, verdict: CallVerdict) -> CallVerdict {
        match verdict {
            CallVerdict::TookEffect(_) => CallVerdict::TookEffect(self.json.clone()),
            CallVerdict::SafeToRepeat => CallVerdict::SafeToRepeat,
            CallVerdict::CannotTell { .. } => CallVerdict::CannotTell { reason: self.text.clone() },
        }
    }

    fn ending(&self, ending: Ending) -> Ending {
        match ending {
            Ending::Completed { .. } => Ending::Completed { output: self.json.clone() },
            Ending::Failed(failure) => {
                let unit = failure.unit.map(|_| self.unit);
                Ending::Failed(Failure { unit, error: self.error.clone() })
            }
            Ending::Canceled { .. } => Ending::Canceled { by: self.text.clone(), reason: self.other.clone() },
        }
    }

    fn approval(&self, key: ApprovalKey) -> ApprovalKey {
        match key {
            ApprovalKey::Unit(..) => ApprovalKey::Unit(self.unit, self.attempt),
            ApprovalKey::Call(..) => ApprovalKey::Call(self.unit, self.no, self.attempt),
        }
    }

    fn timer(&self, key: TimerKey) -> TimerKey {
        let (unit, attempt) = (self.unit, self.attempt);
        match key {
            TimerKey::Attempt(..) => TimerKey::Attempt(unit, attempt),
            TimerKey::Retry(..) => TimerKey::Retry(unit, attempt),
            TimerKey::Sleep(..) => TimerKey::Sleep(unit, attempt),
            TimerKey::Wait(..) => TimerKey::Wait(unit, attempt),
            TimerKey::Approval(..) => TimerKey::Approval(unit, attempt),
            TimerKey::Run => TimerKey::Run,
            TimerKey::Outcome => TimerKey::Outcome,
        }
    }

    fn order(&self, key: OrderKey) -> OrderKey {
        let (unit, no, attempt) = (self.unit, self.no, self.attempt);
        match key {
            OrderKey::Turn => OrderKey::Turn,
            OrderKey::Context => OrderKey::Context,
            OrderKey::Plan => OrderKey::Plan,
            OrderKey::Judge(..) => OrderKey::Judge(unit, attempt),
            OrderKey::Dispatch(..) => OrderKey::Dispatch(unit, attempt),
            OrderKey::Call(..) => OrderKey::Call(unit, no, attempt),
            OrderKey::Reconcile(..) => OrderKey::Reconcile(unit, no, attempt),
            OrderKey::Approval(key) => OrderKey::Approval(self.approval(key)),
            OrderKey::Timer(key) => OrderKey::Timer(self.timer(key)),
            OrderKey::Event(..) => OrderKey::Event(unit, attempt),
            OrderKey::Child(..) => OrderKey::Child(unit, attempt),
            OrderKey::CancelChild(..) => OrderKey::CancelChild(unit, attempt),
            OrderKey::Parent => OrderKey::Parent,
            OrderKey::Resume => OrderKey::Resume,
            OrderKey::Outcome => OrderKey::Outcome,
        }
    }

    fn rejected(&self, shape: Rejected) -> Rejected {
        let (text, other, what) = (self.text.to_string(), self.other.to_string(), self.phrase);
        match shape {
            Rejected::RunEnded => Rejected::RunEnded,
            Rejected::RunNotFailed { .. } => Rejected::RunNotFailed { state: what },
            Rejected::Compensated => Rejected::Compensated,
            Rejected::Stale(key) => Rejected::Stale(self.order(key)),
            Rejected::Paused => Rejected::Paused,
            Rejected::NotPaused => Rejected::NotPaused,
            Rejected::WindingUp => Rejected::WindingUp,
            Rejected::TooLarge { .. } => Rejected::TooLarge { what, bytes: self.size, most: !self.size },
            Rejected::CallDiverged { .. } => {
                Rejected::CallDiverged { number: self.number, before: text, now: other }
            }
            Rejected::NoMandate { .. } => Rejected::NoMandate { tool: text },
            Rejected::PlanChangesHistory(_) => Rejected::PlanChangesHistory(text),
            Rejected::UnsoundPlan(_) => Rejected::UnsoundPlan(text),
            Rejected::UnfitResult(_) => Rejected::UnfitResult(text),
            Rejected::TooMany { .. } => Rejected::TooMany { what, most: self.size },
        }
    }
}

proptest! {
    #[test]
    fn every_command_comes_out_as_it_went_in(values in values()) {
        for (name, shape) in commands() {
            let command = values.command(shape);
            let bytes = command_to(&command).encode_to_vec();
            let read = command_from(proto::Command::decode(&*bytes).unwrap());
            prop_assert_eq!(read, Ok(command), "{}", name);
        }
    }

    #[test]
    fn every_rejection_comes_out_as_it_went_in(values in values()) {
        for (name, shape) in rejections() {
            let rejected = values.rejected(shape);
            let bytes = rejected_to(&rejected).encode_to_vec();
            let read = rejected_from(proto::Rejected::decode(&*bytes).unwrap());
            prop_assert_eq!(read, Ok(rejected), "{}", name);
        }
    }
}
