//! Entries of runs, as they are stored.
//!
//! Owns: the parts that entries and images share. The tables are in `write` and `read`.
pub(crate) mod read;
pub(crate) mod write;

pub(crate) use read::{
    accepted as accepted_from, from_proto, question as question_from, verdict_of as outcome_from,
};
pub(crate) use read::{ending as ending_from, undo as undo_from, undo_said};
pub(crate) use write::{accepted as accepted_to, ending as ending_to, intended as intended_to};
pub(crate) use write::{
    question as question_to, to_proto, undo as undo_to, undoes, verdict_of as outcome_to,
};
