//! Drives a run with commands that a list of numbers chooses: answers to what is outstanding, and what people do.
use std::time::Duration;

use kapell_kernel::{
    Accepted, ApprovalAnswer, Attempt, CallNo, CallOutcome, CallVerdict, CancelMode, Command, Context,
    Ending, Entry, ErrorClass, Failure, Order, ParentRef, PlanSource, QuestionKind, Run, Status, TaskError,
    TimerKey, UnitId, Verdict, handle, outstanding,
};
use kapell_model::definition::EffectClass;
use kapell_model::plan::StepIndex;
use kapell_model::{Json, RequestId, ShardCount, Timestamp};
use serde_json::json;

use crate::world::{WORLD, run_id};

/// What to do next; each number chooses among what is possible.
pub(crate) type Choice = (u8, u8);

pub(crate) fn context() -> Context<'static> {
    Context { catalogue: &WORLD.0, shards: ShardCount::new(8).unwrap() }
}

/// What a run begins with; the seed decides what it looks like.
pub(crate) fn accepted(seed: u8) -> Accepted {
    let event = json!({
        "specversion": "1.0", "id": "e1", "source": "/shop", "type": "com.example.began", "subject": "v7",
        "data": {"key": "v7", "n": seed % 8, "list": (0..seed % 4).collect::<Vec<_>>()},
    });
    let parent =
        ParentRef { run: run_id(9), unit: UnitId::item(StepIndex(2), u32::from(seed)), attempt: Attempt(1) };
    Accepted {
        workflow: WORLD.workflow(if seed % 7 == 6 { "timed" } else { "everything" }),
        key: (!seed.is_multiple_of(3)).then(|| "v7".into()),
        event: Json::of(&event),
        parent: seed.is_multiple_of(2).then_some(parent),
        nesting: u32::from(seed % 2),
        queued: seed.is_multiple_of(5),
        at: Timestamp(1_700_000_000_000),
    }
}

/// A run and its clock.
pub(crate) struct Driver {
    pub(crate) run: Run,
    pub(crate) at: Timestamp,
}

impl Driver {
    /// A run that was just accepted.
    pub(crate) fn new(seed: u8) -> Driver {
        let accepted = accepted(seed);
        let at = accepted.at;
        Driver { run: kapell_kernel::accept(run_id(7), accepted).0, at }
    }

    /// The next command, if the choice leads to one.
    pub(crate) fn command(&mut self, (what, how): Choice) -> Option<Command> {
        self.at = self.at.after(Duration::from_millis(u64::from(how) * 50));
        let orders = outstanding(&self.run);
        // Rarely enough that runs come far.
        match what {
            255 => return Some(Command::Cancel { by: "ann".into(), reason: "no".into(), mode: mode(how) }),
            250..=254 => {
                let pause = Command::Pause { by: "ann".into(), reason: "wait".into() };
                let request = RequestId::of(&how.to_string());
                return Some(Command::Once { request, command: Box::new(pause) });
            }
            235..=249 => return Some(Command::Resume { by: "bob".into() }),
            230..=234 => return Some(Command::Retry { by: "bob".into() }),
            220..=229 => return Some(Command::Signal { event: told(how) }),
            215..=219 => return Some(self.repaired()),
            180..=214 => return self.within_a_task(how),
            0..=179 => {}
        }
        let order = orders.get(usize::from(what) % orders.len().max(1))?.clone();
        self.answer(order, how)
    }

    /// Handles it; a refusal is no entries.
    pub(crate) fn handle(&mut self, command: Command) -> Vec<Entry> {
        let at = self.at;
        handle(&mut self.run, at, command, &context()).map(|handled| handled.entries).unwrap_or_default()
    }

    /// A plan that differs only in a step that has not begun.
    fn repaired(&self) -> Command {
        let spec = self.run.workflow().source.value();
        let mut spec: kapell_model::definition::Workflow = serde_json::from_value(spec).unwrap();
        spec.steps.last_mut().unwrap().with = Some(json!({"repaired": "${event.data.n}"}));
        let namespace = crate::world::name("retail");
        let metadata = kapell_model::definition::Metadata {
            name: namespace.clone(),
            namespace,
            labels: [].into(),
            annotations: [].into(),
        };
        let document = kapell_model::definition::Document { api_version: String::new(), metadata, spec };
        let plan = kapell_model::plan::compile(&document).unwrap().plan;
        Command::AdoptPlan { source: PlanSource::Made(plan), reasons: vec!["repaired".into()] }
    }

    fn within_a_task(&self, how: u8) -> Option<Command> {
        let working = |unit: &kapell_kernel::Unit| matches!(unit.status, Status::Working { .. });
        let units: Vec<_> = self.run.units().filter(|(_, unit)| working(unit)).collect();
        let (unit, found) = units.get(usize::from(how) % units.len().max(1))?;
        let (unit, attempt) = (*unit, found.attempt);
        if how.is_multiple_of(4) {
            let position = found.checkpoints.len() as u32;
            return Some(Command::SaveCheckpoint { unit, attempt, position, data: value(how) });
        }
        let no = CallNo(u32::from(how % 3));
        let (tool, args) = ("shop-north/set-price".parse().unwrap(), value(how % 3));
        Some(Command::IntendCall { unit, attempt, no, tool, args, effect: EffectClass::Write })
    }

    /// table: an answer to each order.
    pub(crate) fn answer(&mut self, order: Order, how: u8) -> Option<Command> {
        Some(match order {
            Order::AwaitTurn => Command::TakeTurn,
            Order::GatherContext => {
                Command::SupplyContext { context: value(how), reasons: vec!["memory".into()] }
            }
            Order::MakePlan if how.is_multiple_of(4) => self.repaired(),
            Order::MakePlan => Command::AdoptPlan { source: PlanSource::Written, reasons: vec![] },
            Order::Judge { unit, attempt } => {
                Command::GiveVerdict { unit, attempt, verdict: verdict(how), reasons: vec!["policy".into()] }
            }
            Order::Dispatch(task) => {
                let result = if how.is_multiple_of(5) { Err(error(how)) } else { Ok(value(how)) };
                Command::FinishTask { unit: task.unit, attempt: task.attempt, result }
            }
            Order::Call { unit, call } => {
                let outcome = match how % 4 {
                    0 => CallOutcome::Failed(error(how)),
                    1 => CallOutcome::Unknown { reason: "the line went dead".into() },
                    _ => CallOutcome::Succeeded(value(how)),
                };
                Command::FinishCall { unit, no: call.no, attempt: call.attempt, outcome }
            }
            Order::Reconcile { unit, call } => {
                let verdict = match how % 3 {
                    0 => CallVerdict::TookEffect(value(how)),
                    1 => CallVerdict::SafeToRepeat,
                    _ => CallVerdict::CannotTell { reason: "no such read".into() },
                };
                Command::SettleCall { unit, no: call.no, attempt: call.attempt, verdict }
            }
            Order::AskApproval { key, .. } => {
                let result = (how.is_multiple_of(2)).then(|| value(how));
                let approved = !how.is_multiple_of(7);
                let answer = ApprovalAnswer { approved, by: "cyd".into(), reason: "seen".into(), result };
                Command::DecideApproval { key, answer }
            }
            Order::SetTimer { key: TimerKey::Run | TimerKey::Outcome, .. } if !how.is_multiple_of(8) => {
                return None;
            }
            Order::SetTimer { key, at } => {
                self.at = self.at.max(at);
                Command::FireTimer(key)
            }
            Order::AwaitEvent { unit, attempt, .. } => {
                Command::DeliverEvent { unit, attempt, event: told(how) }
            }
            Order::StartChild { unit, attempt, .. } | Order::CancelChild { unit, attempt, .. } => {
                Command::ReportChild { unit, attempt, result: ended(how) }
            }
            Order::TellParent(_) => Command::AcknowledgeEnd,
            Order::AwaitResume => Command::Resume { by: "bob".into() },
            Order::BindOutcome { .. } => {
                let data = json!({"good": how.is_multiple_of(2)});
                let event = json!({"type": "com.example.result", "subject": "v7", "data": data});
                Command::BindOutcome { event: Json::of(&event) }
            }
        })
    }
}

fn mode(how: u8) -> CancelMode {
    if how.is_multiple_of(2) { CancelMode::Undo } else { CancelMode::Leave }
}

fn value(how: u8) -> Json {
    Json::of(&json!({"value": how, "text": "ä\n\"€\""}))
}

fn told(how: u8) -> Json {
    let event = json!({"type": "com.example.told", "subject": "v7", "data": {"key": "v7", "how": how}});
    Json::of(&event)
}

fn error(how: u8) -> TaskError {
    let classes =
        [ErrorClass::Unavailable, ErrorClass::WorkerLost, ErrorClass::RateLimited, ErrorClass::Permanent];
    let retry_after = (how.is_multiple_of(3)).then(|| Duration::from_millis(u64::from(how)));
    TaskError { retry_after, ..TaskError::new(classes[usize::from(how / 5) % 4], "it broke") }
}

fn verdict(how: u8) -> Verdict {
    match how % 8 {
        0 => Verdict::Escalate { ask: "may it?".into(), show: value(how), kind: QuestionKind::Agree },
        1 => Verdict::Escalate { ask: "do it".into(), show: value(how), kind: QuestionKind::Suggestion },
        2 => Verdict::Pause,
        3 if how > 200 => Verdict::Refuse { reason: "never".into() },
        _ => Verdict::Follow,
    }
}

fn ended(how: u8) -> Result<Ending, TaskError> {
    match how % 8 {
        0 => Ok(Ending::Failed(Failure { unit: None, error: error(how) })),
        1 => Ok(Ending::Canceled { by: "ann".into(), reason: "no".into() }),
        2 | 3 => Err(error(5)),
        _ => Ok(Ending::Completed { output: value(how) }),
    }
}
