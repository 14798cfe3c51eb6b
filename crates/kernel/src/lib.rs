//! The run machine: commands in, entries down, orders out.
//!
//! Owns: which commands are legal in which state ([`decide`]), what follows by itself ([`advance`]), what an
//! entry changes ([`evolve`]) and what the world still owes a run ([`outstanding`]).
//! Never: awaits, reads a clock, draws a random number, logs, does I/O, panics on input, iterates a hash map, or
//! knows that a journal, a worker or a shard exists.
//!
//! Old journals are read by [`evolve`] alone, so it decides nothing: every judgement stands in an entry.
mod advance;
mod backoff;
mod command;
mod decide;
mod entry;
mod error;
mod event;
mod evolve;
mod expr_text;
mod handle;
mod image;
pub mod invariants;
pub mod judgement;
mod order;
mod outstanding;
mod run;
pub mod schedule;
mod scope;
mod unit;

pub use advance::advance;
pub use command::{ApprovalAnswer, CallVerdict, CancelMode, Command, PlanSource, Verdict};
pub use decide::decide;
pub use entry::{Accepted, AfterFailure, Entry};
pub use error::{ErrorClass, Failure, Rejected, TaskError};
pub use event::{correlation_of, hears};
pub use evolve::{Delta, accept, evolve};
pub use handle::{Handled, handle};
pub use image::{BadImage, OutcomeImage, PhaseImage, RunImage, StepImage};
pub use order::{ApprovalKey, Dispatch, Order, OrderKey, Question, QuestionKind, TimerKey};
pub use outstanding::outstanding;
pub use run::{
    Children, Ended, Ending, Fan, Forward, OutcomeVerdict, ParentRef, Phase, Run, StepState, Undo,
};
pub use unit::{Asked, Attempt, Call, CallNo, CallOutcome, CallState, ItemIndex, Side, Status, Unit, UnitId};

use kapell_model::ShardCount;
use kapell_model::catalogue::Catalogue;

/// What a decision may look at beside the run itself.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The definitions in force.
    pub catalogue: &'a Catalogue,
    /// Decides in which shard a subworkflow's run lives.
    pub shards: ShardCount,
}
