//! Whether what concurrent clients saw can be explained by one order.
//!
//! Owns: histories, the search for an order, the models of what an object does. Never: makes a history, reads a clock.
//!
//! A history is *linearizable* when every operation can be given one moment between its invocation and its return,
//! such that the operations, taken in the order of these moments, are answered as a [`Model`] says. An operation
//! that never returned may have its moment at any time after its invocation, or never.
//!
//! The search is that of Wing and Gong with Lowe's memory: it places one operation after the other and never comes
//! twice to the same set of placed operations with the same state. Histories are split by [`Model::key`] first, because
//! a history is linearizable exactly when its parts of each key are. The same history always gets the same verdict.
//!
//! ```
//! use kapell_tests_linearizability::models::register::{Input, Output, Register};
//! use kapell_tests_linearizability::{Budget, Recorder, check};
//!
//! let mut recorder = Recorder::default();
//! let write = recorder.invoke(1, Input::Write(7));
//! recorder.complete(write, Output::Written);
//! let read = recorder.invoke(2, Input::Read);
//! recorder.complete(read, Output::Value(None));
//! let verdict = check(&Register::default(), &recorder.finish().unwrap(), Budget::default());
//! let failure = verdict.failure().expect("the read is stale");
//! assert!(failure.to_string().contains("client 2: Read -> Value(None)"));
//! ```
pub mod cases;
mod check;
mod history;
mod interned;
mod model;
pub mod models;
pub mod parse;
mod placed;
mod search;
mod timeline;
mod verdict;

pub use check::{Budget, check};
pub use history::{
    ClientId, History, HistoryError, OPERATIONS_MAX, Operation, OperationId, Recorder, Returned,
};
pub use model::Model;
pub use verdict::{Failure, Verdict};
