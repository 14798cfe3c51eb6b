//! Plans: a workflow compiled to what a run follows.
//!
//! Owns: the graph of steps with every expression compiled, and what makes a workflow compile. Never: decides
//! whether skills or other workflows exist (that is `validate`) or where a run is (that is the kernel).
mod compile;
mod error;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use compile::compile;
pub(crate) use error::did_you_mean;
pub use error::{CompileError, FieldError};

use crate::definition::{ContextQuery, OnExpire, OnFailure};
use crate::expr::{Expr, Template};
use crate::{Json, Name};

/// A workflow, compiled; a run is pinned to one.
#[derive(Debug)]
pub struct CompiledWorkflow {
    /// Tenant.
    pub namespace: Name,
    /// Name.
    pub name: Name,
    /// Of the definition it was compiled from.
    pub digest: DefinitionDigest,
    /// Goal in words.
    pub goal: String,
    /// Which events start it.
    pub trigger: Option<CompiledTrigger>,
    /// Gives the key of a run, over `event`.
    pub key: Option<Expr>,
    /// JSON Schema of `event.data`.
    pub input: Option<Json>,
    /// What to know first.
    pub context: Vec<ContextQuery>,
    /// The written steps.
    pub plan: Arc<Plan>,
    /// Time that a whole run may take.
    pub timeout: Option<Duration>,
    /// How the business result is learned.
    pub outcome: Option<CompiledOutcome>,
    /// The definition's spec as canonical JSON; what is journaled.
    pub source: Json,
}

/// Identity of one version of a definition: the same text has the same digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DefinitionDigest(pub [u8; 16]);

/// Which events start a workflow.
#[derive(Debug)]
pub struct CompiledTrigger {
    /// CloudEvents `type`.
    pub event_type: String,
    /// CloudEvents `source`; `None`: any.
    pub source: Option<String>,
    /// Over `event`.
    pub when: Option<Expr>,
}

/// How the business result is learned.
#[derive(Debug)]
pub struct CompiledOutcome {
    /// Counted from the end of the run.
    pub within: Duration,
    /// CloudEvents `type` of the event that tells.
    pub event_type: String,
    /// The subject that the event must have; `None`: the run's key.
    pub correlate: Option<Template>,
    /// Over `event` and `run`.
    pub success: Expr,
}

/// A step's position in its plan, counted from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepIndex(pub u32);

/// The run's graph of steps; data, never code.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// In the order of the definition; [`StepIndex`] points here.
    pub steps: Vec<PlanStep>,
    /// What happens when a step has failed for good.
    pub on_failure: OnFailure,
}

/// One node of a plan.
#[derive(Debug, PartialEq, Eq)]
pub struct PlanStep {
    /// Name, as expressions say it.
    pub id: Arc<str>,
    /// What it does.
    pub kind: StepKind,
    /// Steps that must be over first: those written and those that expressions name. Sorted.
    pub needs: Vec<StepIndex>,
    /// Steps that need this one. Sorted.
    pub feeds: Vec<StepIndex>,
    /// Skipped when false.
    pub when: Option<Expr>,
    /// Fan-out.
    pub foreach: Option<Foreach>,
    /// Time that one attempt, or the wait, may take.
    pub timeout: Option<Duration>,
    /// When a failed attempt is made again.
    pub retry: RetryRule,
    /// How to undo it.
    pub compensate: Option<CompensateRule>,
}

/// What a step does.
#[derive(Debug, PartialEq, Eq)]
pub enum StepKind {
    /// Hands work to a specialist.
    Task {
        /// The kind of work.
        skill: Arc<str>,
        /// Its input.
        input: Template,
    },
    /// Asks a person.
    Approval {
        /// The question.
        ask: Template,
        /// What the person sees beside it.
        show: Template,
        /// Time to answer.
        expires: Duration,
        /// What silence means.
        on_expire: OnExpire,
    },
    /// Waits for a span of time.
    Sleep {
        /// How long.
        span: Duration,
    },
    /// Waits until a point in time.
    Until {
        /// Gives RFC 3339 text.
        at: Template,
    },
    /// Waits for an event.
    Event {
        /// CloudEvents `type`.
        event_type: Arc<str>,
        /// The value that the event must carry.
        correlate: Template,
        /// Gives the arriving event's value, over `event`; `None`: its subject.
        by: Option<Expr>,
    },
    /// Runs another workflow.
    Subworkflow {
        /// Its name, in the same namespace.
        workflow: Name,
        /// `event.data` of the child.
        input: Template,
    },
}

/// Fan-out over a list.
#[derive(Debug, PartialEq, Eq)]
pub struct Foreach {
    /// Gives the list.
    pub over: Template,
    /// Items worked on at once. At least one.
    pub concurrency: u32,
}

/// When a failed attempt is made again: full jitter below an exponential ceiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryRule {
    /// Attempts in all. At least one.
    pub attempts_max: u32,
    /// Ceiling before the second attempt; doubles with each further one.
    pub initial: Duration,
    /// The ceiling never rises above this.
    pub max: Duration,
}

/// How to undo a step.
#[derive(Debug, PartialEq, Eq)]
pub struct CompensateRule {
    /// The kind of work.
    pub skill: Arc<str>,
    /// Its input; sees `output`, `item` and `index` of what is undone.
    pub input: Template,
}

impl CompiledWorkflow {
    /// CloudEvents types that its steps or its outcome wait for.
    pub fn awaited(&self) -> impl Iterator<Item = &str> {
        let steps = self.plan.steps.iter().filter_map(|step| match &step.kind {
            StepKind::Event { event_type, .. } => Some(&**event_type),
            StepKind::Task { .. }
            | StepKind::Approval { .. }
            | StepKind::Sleep { .. }
            | StepKind::Until { .. }
            | StepKind::Subworkflow { .. } => None,
        });
        steps.chain(self.outcome.iter().map(|outcome| outcome.event_type.as_str()))
    }
}

impl Plan {
    /// The step at a position.
    #[must_use]
    pub fn step(&self, at: StepIndex) -> Option<&PlanStep> {
        self.steps.get(at.0 as usize)
    }

    /// The position of the step of this name.
    #[must_use]
    pub fn index_of(&self, id: &str) -> Option<StepIndex> {
        self.steps.iter().position(|step| &*step.id == id).map(|at| StepIndex(at as u32))
    }

    /// All positions in order.
    pub fn indices(&self) -> impl Iterator<Item = StepIndex> + use<> {
        (0..self.steps.len() as u32).map(StepIndex)
    }
}

impl fmt::Display for DefinitionDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // At once: it is written for every row that the ledger is told.
        let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
        let text: String = self.0.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
        f.write_str(&text)
    }
}
impl fmt::Debug for DefinitionDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
