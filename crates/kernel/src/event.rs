//! Which waits an event answers.
//!
//! Owns: the value that an event carries, compared with the one that a wait asks for.
use kapell_model::Json;
use kapell_model::expr::{Expr, scope_of};

use crate::expr_text::text_of;

/// Whether an event has this type and carries this value.
#[must_use]
pub fn hears(event: &Json, event_type: &str, correlation: &str, by: Option<&Expr>) -> bool {
    let value = event.value();
    value["type"].as_str() == Some(event_type)
        && correlation_of(event, by).is_some_and(|carried| carried == correlation)
}

/// The value that an event carries: what `by` gives, or its subject.
#[must_use]
pub fn correlation_of(event: &Json, by: Option<&Expr>) -> Option<String> {
    match by {
        Some(by) => by.eval(&scope_of("event", event)).ok().map(|value| text_of(&value)),
        None => event.value()["subject"].as_str().map(str::to_owned),
    }
}
