//! Commands: what the world asks of a run. Each answer carries the key of the order that it answers.
use std::sync::Arc;

use kapell_model::definition::EffectClass;
use kapell_model::plan::Plan;
use kapell_model::{Json, RequestId, ToolRef};

use crate::error::TaskError;
use crate::order::{ApprovalKey, TimerKey};
use crate::run::Ending;
use crate::unit::{Attempt, CallNo, CallOutcome, UnitId};

/// What the world asks of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// No earlier run of the key is left.
    TakeTurn,
    /// Answers `GatherContext`.
    SupplyContext {
        /// What is known, as an object.
        context: Json,
        /// Where it is from.
        reasons: Vec<Arc<str>>,
    },
    /// Answers `MakePlan`; while running, replaces the plan.
    AdoptPlan {
        /// What to follow.
        source: PlanSource,
        /// Why.
        reasons: Vec<Arc<str>>,
    },
    /// Answers `Judge`.
    GiveVerdict {
        /// The unit.
        unit: UnitId,
        /// The attempt that was judged.
        attempt: Attempt,
        /// What shall happen.
        verdict: Verdict,
        /// Why.
        reasons: Vec<Arc<str>>,
    },
    /// Answers `Dispatch`.
    FinishTask {
        /// The unit.
        unit: UnitId,
        /// The attempt.
        attempt: Attempt,
        /// Output or error.
        result: Result<Json, TaskError>,
    },
    /// Keeps something that the agent wants back when it is resumed.
    SaveCheckpoint {
        /// The unit.
        unit: UnitId,
        /// The attempt.
        attempt: Attempt,
        /// Position of the checkpoint, counted from zero.
        position: u32,
        /// What to keep.
        data: Json,
    },
    /// Journals a tool call before it is made.
    IntendCall {
        /// The unit.
        unit: UnitId,
        /// The unit's attempt.
        attempt: Attempt,
        /// The call's number.
        no: CallNo,
        /// What to call.
        tool: ToolRef,
        /// With what.
        args: Json,
        /// What the tool does to the world.
        effect: EffectClass,
    },
    /// Answers `Call`.
    FinishCall {
        /// The unit.
        unit: UnitId,
        /// The call's number.
        no: CallNo,
        /// Which making of the call.
        attempt: Attempt,
        /// How it ended.
        outcome: CallOutcome,
    },
    /// Answers `Reconcile`.
    SettleCall {
        /// The unit.
        unit: UnitId,
        /// The call's number.
        no: CallNo,
        /// Which making of the call.
        attempt: Attempt,
        /// What was found out.
        verdict: CallVerdict,
    },
    /// Answers `AskApproval`.
    DecideApproval {
        /// Which question.
        key: ApprovalKey,
        /// The answer.
        answer: ApprovalAnswer,
    },
    /// Answers `SetTimer`.
    FireTimer(TimerKey),
    /// Answers `AwaitEvent`.
    DeliverEvent {
        /// The unit.
        unit: UnitId,
        /// The attempt.
        attempt: Attempt,
        /// The CloudEvent.
        event: Json,
    },
    /// Gives an event to this run alone; it is kept until a step waits for it.
    Signal {
        /// The CloudEvent.
        event: Json,
    },
    /// Answers `StartChild` and `CancelChild`.
    ReportChild {
        /// The unit.
        unit: UnitId,
        /// The attempt.
        attempt: Attempt,
        /// How the child ended, or why it could not be started.
        result: Result<Ending, TaskError>,
    },
    /// Answers `TellParent`.
    AcknowledgeEnd,
    /// Answers `BindOutcome`.
    BindOutcome {
        /// The CloudEvent that tells.
        event: Json,
    },
    /// Begin nothing new.
    Pause {
        /// Who says so.
        by: Arc<str>,
        /// Why.
        reason: Arc<str>,
    },
    /// Go on.
    Resume {
        /// Who says so.
        by: Arc<str>,
    },
    /// End it.
    Cancel {
        /// Who says so.
        by: Arc<str>,
        /// Why.
        reason: Arc<str>,
        /// How.
        mode: CancelMode,
    },
    /// Try the failed steps of an ended run again.
    Retry {
        /// Who says so.
        by: Arc<str>,
    },
    /// Does it, unless the run remembers that it was done: what was sent twice may arrive late, after the opposite.
    Once {
        /// What it is called.
        request: RequestId,
        /// What is asked.
        command: Box<Command>,
    },
}

impl Command {
    /// What somebody called it who may send it again.
    #[must_use]
    pub fn request(&self) -> Option<RequestId> {
        if let Command::Once { request, .. } = self { Some(*request) } else { None }
    }
}

/// How a run is canceled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelMode {
    /// Undo what the workflow says how to undo.
    Undo,
    /// Leave things as they are.
    Leave,
}

/// What to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanSource {
    /// The steps of the definition.
    Written,
    /// A plan made or repaired for this run.
    Made(Arc<Plan>),
}

/// What a judgement says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Do it.
    Follow,
    /// Ask a person first.
    Escalate {
        /// The question.
        ask: Arc<str>,
        /// What to see beside it.
        show: Json,
        /// Whether the specialist may act afterwards, or the person does it.
        kind: crate::order::QuestionKind,
    },
    /// Pause the run until a person has looked at it.
    Pause,
    /// Do not do it; the step fails.
    Refuse {
        /// Why, for the step's error.
        reason: Arc<str>,
    },
}

/// What was found out about a call whose answer was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallVerdict {
    /// It took effect, with this result.
    TookEffect(Json),
    /// It did not, and calling it again is safe.
    SafeToRepeat,
    /// Nobody can tell; ask a person.
    CannotTell {
        /// Why.
        reason: Arc<str>,
    },
}

/// A person's answer, or what silence means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalAnswer {
    /// Yes or no. For a call's outcome: it took effect, or it did not.
    pub approved: bool,
    /// Who; `expiry` when nobody did.
    pub by: Arc<str>,
    /// Why.
    pub reason: Arc<str>,
    /// What the person did or knows, where that is asked.
    pub result: Option<Json>,
}
