//! What goes wrong: in a task, and with a command.
//!
//! Owns: the classes of errors and which of them another attempt may mend.
use std::fmt;
use std::time::Duration;

use kapell_model::limits::ERROR_BYTES_MAX;

use crate::order::OrderKey;
use crate::unit::UnitId;

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskError {
    /// What kind of failure.
    pub class: ErrorClass,
    /// For people.
    pub message: String,
    /// The outside system asked to wait so long.
    pub retry_after: Option<Duration>,
}

/// Kinds of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorClass {
    /// The outside system or the agent was not there for a moment.
    Unavailable,
    /// The outside system asked for patience.
    RateLimited,
    /// The attempt took too long.
    Timeout,
    /// The worker went away.
    WorkerLost,
    /// The specialist panicked.
    Panicked,
    /// The credential was refused.
    Auth,
    /// The outside system does not accept the request.
    BadRequest,
    /// The outside system answered in another shape than its contract says.
    ContractBroken,
    /// Whether a call took effect could not be found out.
    UnknownOutcome,
    /// A policy forbids it, or the specialist has no mandate.
    Denied,
    /// A person said no.
    Rejected,
    /// An expression gave no usable value.
    Expression,
    /// No specialist offers the skill, or it is in quarantine.
    NoSpecialist,
    /// The agent says that trying again is useless.
    Permanent,
}

impl ErrorClass {
    /// Whether another attempt may succeed where this one failed.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        match self {
            ErrorClass::Unavailable
            | ErrorClass::RateLimited
            | ErrorClass::Timeout
            | ErrorClass::WorkerLost
            | ErrorClass::Panicked => true,
            ErrorClass::Auth
            | ErrorClass::BadRequest
            | ErrorClass::ContractBroken
            | ErrorClass::UnknownOutcome
            | ErrorClass::Denied
            | ErrorClass::Rejected
            | ErrorClass::Expression
            | ErrorClass::NoSpecialist
            | ErrorClass::Permanent => false,
        }
    }

    /// Whether it says something about the work; a lost worker does not, and is not counted against the step.
    #[must_use]
    pub fn counts(self) -> bool {
        self != ErrorClass::WorkerLost
    }

    /// As it is shown and sent.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorClass::Unavailable => "unavailable",
            ErrorClass::RateLimited => "rate_limited",
            ErrorClass::Timeout => "timeout",
            ErrorClass::WorkerLost => "worker_lost",
            ErrorClass::Panicked => "panicked",
            ErrorClass::Auth => "auth",
            ErrorClass::BadRequest => "bad_request",
            ErrorClass::ContractBroken => "contract_broken",
            ErrorClass::UnknownOutcome => "unknown_outcome",
            ErrorClass::Denied => "denied",
            ErrorClass::Rejected => "rejected",
            ErrorClass::Expression => "expression",
            ErrorClass::NoSpecialist => "no_specialist",
            ErrorClass::Permanent => "permanent",
        }
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TaskError {
    /// Keeps at most [`ERROR_BYTES_MAX`] of the message.
    #[must_use]
    pub fn new(class: ErrorClass, message: impl Into<String>) -> TaskError {
        TaskError { class, message: message.into(), retry_after: None }.cut()
    }

    /// With at most [`ERROR_BYTES_MAX`] of the message.
    #[must_use]
    pub(crate) fn cut(mut self) -> TaskError {
        let message = &mut self.message;
        if message.len() > ERROR_BYTES_MAX {
            let cut = (0..=ERROR_BYTES_MAX).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
            message.truncate(cut);
        }
        self
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.class, self.message)
    }
}

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The unit that failed for good; `None` when the run as a whole did (its time ran out, it could not be planned).
    pub unit: Option<UnitId>,
    /// Why.
    pub error: TaskError,
}

/// Why a command was refused. A refusal leaves the run as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The run has ended; nothing applies to it.
    #[error("the run has ended")]
    RunEnded,
    /// The run has not failed.
    #[error("the run {state}; only a failed run can be retried")]
    RunNotFailed {
        /// What it did instead, as a phrase.
        state: &'static str,
    },
    /// The run undid its work; there is nothing to go on from.
    #[error("the run undid its steps when it failed; start a new one instead")]
    Compensated,
    /// The order that the command answers is not outstanding: it was answered before, or by a stale attempt.
    #[error("{0:?} is not outstanding: it was answered already or belongs to an earlier attempt")]
    Stale(OrderKey),
    /// The run is paused already.
    #[error("the run is paused already")]
    Paused,
    /// The run is not paused.
    #[error("the run is not paused")]
    NotPaused,
    /// The run is failing or being canceled.
    #[error("the run is being wound up")]
    WindingUp,
    /// A value is too large.
    #[error("{what} is {bytes} bytes, at most {most} are allowed; pass a reference instead")]
    TooLarge {
        /// What.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        most: usize,
    },
    /// An agent called a tool under a number under which it called another before.
    #[error(
        "call {number} was {before} before and is {now} now; an agent must number its calls alike in every attempt"
    )]
    CallDiverged {
        /// The number.
        number: u32,
        /// What was called first.
        before: String,
        /// What is called now.
        now: String,
    },
    /// The specialist may not call the tool, or not in work that is said to do less to the world.
    #[error(
        "no mandate for `{tool}`: list it under spec.tools, and give the skill an effect as strong as the tool's"
    )]
    NoMandate {
        /// The tool.
        tool: String,
    },
    /// The plan changes steps that have begun.
    #[error("a repaired plan must keep every step that has begun; it changes `{0}`")]
    PlanChangesHistory(String),
    /// The plan would leave the run stuck.
    #[error("the plan is not sound: {0}")]
    UnsoundPlan(String),
    /// A person's result does not fit what the skill gives; the question stays open.
    #[error("the result does not fit the skill's schema: {0}")]
    UnfitResult(String),
    /// Too many of something.
    #[error("the run has {most} {what} already")]
    TooMany {
        /// What.
        what: &'static str,
        /// The limit.
        most: usize,
    },
}
