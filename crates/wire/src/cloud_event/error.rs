//! Why an event is refused, and what its sender can do.
use kapell_model::limits::PAYLOAD_BYTES_MAX;

use super::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX};

/// Why an event is refused. Sending it again as it is will not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEvent {
    /// No JSON.
    #[error("the event is not JSON ({0}); send one JSON object in the CloudEvents JSON format")]
    NotJson(String),
    /// JSON, but no object.
    #[error("the event is not a JSON object; send an object with specversion, id, source and type")]
    NotAnObject,
    /// A required attribute is not there.
    #[error("`{0}` is missing; every CloudEvent has specversion, id, source and type")]
    Missing(&'static str),
    /// An attribute that must say something is empty.
    #[error("`{0}` is empty; give it a value or leave it out if it is optional")]
    Empty(String),
    /// Another version of CloudEvents.
    #[error("specversion is `{0}`; send CloudEvents of version 1.0")]
    SpecVersion(String),
    /// A name that no attribute may have.
    #[error("`{0}` cannot be the name of an attribute; use a-z and 0-9 only, and put the payload in data")]
    Name(String),
    /// A value that no attribute may have.
    #[error(
        "`{0}` has a value that attributes cannot have; use a text, a whole number of 32 bits or a boolean, and put anything else in data"
    )]
    Value(String),
    /// A control character.
    #[error("`{0}` contains a control character; remove it or escape it")]
    Control(String),
    /// Blanks in a URI reference.
    #[error("source `{0}` is no URI reference; write blanks as %20")]
    Source(String),
    /// Not RFC 3339.
    #[error("time `{0}` is not RFC 3339; write it like 2026-01-02T03:04:05Z")]
    Time(String),
    /// An attribute is given twice.
    #[error("`{0}` is given twice; send it once")]
    Twice(String),
    /// Both `data` and `data_base64`.
    #[error("both data and data_base64 are given; send one of them")]
    TwoData,
    /// `data_base64` is something else.
    #[error("data_base64 is not base64; use the standard alphabet with padding")]
    Base64,
    /// The content type says JSON.
    #[error(
        "the data is not JSON ({reason}) and its content type `{content_type}` says that it is; correct one of them"
    )]
    DataNotJson {
        /// What the event says.
        content_type: String,
        /// What is wrong.
        reason: String,
    },
    /// Bytes that are no text.
    #[error("`{0}` is not UTF-8; percent-encode its value as UTF-8")]
    NotUtf8(String),
    /// Said in the wrong header.
    #[error("the header ce-datacontenttype is not used; send Content-Type instead")]
    ContentTypeHeader,
    /// Too large.
    #[error(
        "the event is {bytes} bytes, at most {PAYLOAD_BYTES_MAX} are allowed; keep large data elsewhere and send a reference"
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// Why a batch is refused. None of its events is accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBatch {
    /// No JSON list.
    #[error("the batch is not a JSON list of events ({0})")]
    NotAList(String),
    /// Too many bytes.
    #[error("the batch is {bytes} bytes, at most {BATCH_BYTES_MAX} are allowed; send several")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Too many events.
    #[error("the batch has {events} events, at most {BATCH_EVENTS_MAX} are allowed; send several")]
    TooMany {
        /// How many.
        events: usize,
    },
    /// One of the events is bad.
    #[error("event {at} of the batch is refused, and with it all others")]
    Event {
        /// Position, counted from zero.
        at: usize,
        /// Why.
        #[source]
        error: BadEvent,
    },
}
