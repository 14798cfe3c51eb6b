//! Entries: what has happened to a run. Past tense; stable for ever.
//!
//! Owns: their shape. Each says all that `evolve` needs, so that `evolve` decides nothing.
use std::sync::Arc;

use kapell_model::definition::{EffectClass, OnExpire};
use kapell_model::plan::{CompiledWorkflow, StepIndex};
use kapell_model::{Json, RequestId, RunId, Timestamp, ToolRef};

use crate::command::{ApprovalAnswer, CallVerdict, PlanSource, Verdict};
use crate::error::TaskError;
use crate::order::{ApprovalKey, Question};
use crate::run::{Children, Ending, OutcomeVerdict, ParentRef, Undo};
use crate::unit::{Attempt, CallNo, CallOutcome, UnitId};

/// What a run begins with.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The definition that it is pinned to.
    pub workflow: Arc<CompiledWorkflow>,
    /// Runs of one key are handled in order.
    pub key: Option<Arc<str>>,
    /// The CloudEvent that started it.
    pub event: Json,
    /// Who started it, for a subworkflow: a run. Or a schedule, under the id by which its shard knows it.
    pub parent: Option<ParentRef>,
    /// How many runs are above it.
    pub nesting: u32,
    /// Whether an earlier run of its key is not over.
    pub queued: bool,
    /// When.
    pub at: Timestamp,
}

impl PartialEq for Accepted {
    fn eq(&self, other: &Accepted) -> bool {
        let known = |a: &Accepted| {
            (a.workflow.digest, a.key.clone(), a.event.clone(), a.parent, a.nesting, a.queued, a.at)
        };
        known(self) == known(other)
    }
}
impl Eq for Accepted {}

/// What has happened to a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It was accepted.
    RunAccepted(Box<Accepted>),
    /// Its turn came.
    TurnTaken,
    /// Its context was gathered.
    ContextGathered {
        /// What is known.
        context: Json,
        /// Where it is from.
        reasons: Vec<Arc<str>>,
        /// When the run will have taken too long.
        deadline: Option<Timestamp>,
    },
    /// Its plan was made or repaired.
    PlanMade {
        /// What to follow.
        source: PlanSource,
        /// Why.
        reasons: Vec<Arc<str>>,
    },
    /// A step's condition was false.
    StepSkipped {
        /// The step.
        step: StepIndex,
    },
    /// A step fanned out.
    FanOpened {
        /// The step.
        step: StepIndex,
        /// Over what.
        items: Vec<Json>,
        /// Input of each item.
        inputs: Vec<Json>,
    },
    /// A unit's input is known, and it must be judged before its first attempt.
    JudgementAsked {
        /// The unit.
        unit: UnitId,
        /// Its input.
        input: Json,
    },
    /// It was judged.
    Judged {
        /// The unit.
        unit: UnitId,
        /// The attempt that was judged.
        attempt: Attempt,
        /// What shall happen.
        verdict: Verdict,
        /// Why.
        reasons: Vec<Arc<str>>,
    },
    /// A person was asked.
    ApprovalAsked {
        /// The unit.
        unit: UnitId,
        /// The attempt that the answer gates.
        attempt: Attempt,
        /// What.
        question: Question,
        /// When.
        at: Timestamp,
        /// When silence becomes an answer.
        expires: Timestamp,
        /// Which.
        on_expire: OnExpire,
    },
    /// A person, or silence, answered.
    ApprovalDecided {
        /// Which question.
        key: ApprovalKey,
        /// The answer.
        answer: ApprovalAnswer,
    },
    /// A unit was handed out.
    TaskDispatched {
        /// The unit.
        unit: UnitId,
        /// The attempt.
        attempt: Attempt,
        /// Its input, where no earlier entry told it.
        input: Option<Json>,
        /// When the attempt will have taken too long.
        deadline: Timestamp,
    },
    /// An attempt left something to go on from.
    CheckpointSaved {
        /// The unit.
        unit: UnitId,
        /// What.
        data: Json,
    },
    /// A tool call is about to be made.
    CallIntended {
        /// The unit.
        unit: UnitId,
        /// The call's number.
        no: CallNo,
        /// Which making of the call.
        attempt: Attempt,
        /// What is called.
        tool: ToolRef,
        /// With what.
        args: Json,
        /// What the tool does to the world.
        effect: EffectClass,
        /// When.
        at: Timestamp,
    },
    /// A tool call ended.
    CallFinished {
        /// The unit.
        unit: UnitId,
        /// The call's number.
        no: CallNo,
        /// How.
        outcome: CallOutcome,
    },
    /// It was found out what became of a call.
    CallSettled {
        /// The unit.
        unit: UnitId,
        /// The call's number.
        no: CallNo,
        /// What.
        verdict: CallVerdict,
        /// When.
        at: Timestamp,
    },
    /// An attempt, a sleep, a wait or a child gave an output; the unit is done.
    UnitDone {
        /// The unit.
        unit: UnitId,
        /// Its output.
        output: Json,
    },
    /// An attempt failed.
    AttemptFailed {
        /// The unit.
        unit: UnitId,
        /// The attempt.
        attempt: Attempt,
        /// Why.
        error: TaskError,
        /// What follows.
        then: AfterFailure,
    },
    /// A unit began to wait for a point in time.
    SleepBegan {
        /// The unit.
        unit: UnitId,
        /// When it ends.
        until: Timestamp,
    },
    /// A unit began to wait for an event.
    WaitBegan {
        /// The unit.
        unit: UnitId,
        /// CloudEvents `type`.
        event_type: Arc<str>,
        /// The value that the event must carry.
        correlation: Arc<str>,
        /// When the wait will have taken too long.
        until: Option<Timestamp>,
    },
    /// A unit began another workflow.
    ChildBegan {
        /// The unit.
        unit: UnitId,
        /// The attempt.
        attempt: Attempt,
        /// The child's run.
        child: RunId,
        /// `event.data` of the child.
        input: Json,
        /// When the attempt will have taken too long; `None`: never.
        deadline: Option<Timestamp>,
    },
    /// A child took too long; it is canceled, and its end is the end of the attempt.
    ChildTimedOut {
        /// The unit.
        unit: UnitId,
        /// Whether what the child did is undone.
        undo: Undo,
    },
    /// An event was given to this run alone.
    SignalReceived {
        /// The CloudEvent.
        event: Json,
    },
    /// A waiting step took the signal at this position.
    SignalTaken {
        /// Position among those kept.
        position: u32,
    },
    /// Every item of a fan-out is over and none failed.
    FanJoined {
        /// The step.
        step: StepIndex,
        /// The outputs, in order of the items.
        output: Json,
    },
    /// A person paused it, or a judgement did.
    RunPaused {
        /// Who.
        by: Arc<str>,
        /// Why.
        reason: Arc<str>,
    },
    /// It goes on.
    RunResumed {
        /// Who.
        by: Arc<str>,
    },
    /// It will end without completing: nothing new begins, open calls and children may end.
    WindUpBegan {
        /// How it will end.
        towards: Ending,
        /// Whether steps are undone first.
        undo: Undo,
        /// What becomes of the children that go on.
        children: Children,
    },
    /// A unit with an open call was let go once the call was over.
    UnitSettled {
        /// The unit.
        unit: UnitId,
    },
    /// What somebody asked under this name was done, together with what it did.
    RequestDone {
        /// What it is called.
        request: RequestId,
    },
    /// It ended.
    RunEnded {
        /// How.
        ending: Ending,
        /// When.
        at: Timestamp,
        /// What the event must carry that tells the business result, and until when it is awaited.
        outcome: Option<(Arc<str>, Timestamp)>,
    },
    /// The parent knows.
    ParentTold,
    /// The business result is known, or given up.
    OutcomeBound {
        /// Which.
        verdict: OutcomeVerdict,
        /// The CloudEvent that told.
        event: Option<Json>,
    },
    /// Somebody wants the failed steps tried again.
    RunRetried {
        /// Who.
        by: Arc<str>,
        /// When the run will have taken too long.
        deadline: Option<Timestamp>,
    },
}

/// What follows a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterFailure {
    /// Another attempt.
    RetryAt(Timestamp),
    /// Nothing: the unit has failed for good.
    GiveUp,
}
