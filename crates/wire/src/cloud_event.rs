//! CloudEvents 1.0: from each of their forms to one canonical JSON text.
//!
//! Owns: what is a valid event, and how its data is shown to expressions as `event.data`. Never: decides whether
//! anybody wants the event, or reads its data beyond the content type.
mod attributes;
mod error;
mod http;
mod json;
mod proto;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use kapell_model::Json;

pub use error::{BadBatch, BadEvent};
pub use http::ContentMode;

/// Most events of one batch.
pub const BATCH_EVENTS_MAX: usize = 1_000;
/// Largest batch, in bytes.
pub const BATCH_BYTES_MAX: usize = 16 << 20;

/// A valid event.
///
/// Its canonical JSON has its members sorted, so equal events have equal texts. Data of a JSON content type, or that
/// came as JSON, is a JSON value under `data`; text is a string there; all else is `data_base64`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Unique together with `source`.
    pub id: Arc<str>,
    /// Where it comes from.
    pub source: Arc<str>,
    /// CloudEvents `type`.
    pub event_type: Arc<str>,
    /// What it is about.
    pub subject: Option<Arc<str>>,
    /// The whole event in the JSON format of CloudEvents.
    pub json: Json,
}
