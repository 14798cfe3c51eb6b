//! The only place that encodes and decodes: journal records, images of runs, references on the streams, CloudEvents,
//! and what coordinators say to each other.
//!
//! Owns: the conversions between `proto` and the types of `model` and `kernel`, and the promise that old bytes stay
//! readable (`docs/adr/0003-journal-compatibility.md`). Never: does I/O, decides what a value means, or skips what it
//! does not know in what is stored. On a stream a field that was added later may be overlooked.
pub mod claim;
pub mod cloud_event;
mod entry;
mod error;
mod field;
mod image;
pub mod peer;
mod plan;
mod record;
mod schedule;
pub mod task;

pub use error::DecodeError;
pub use image::{DefinitionsImage, Image, ScheduleSince, decode_image, encode_image};
pub use record::{DefinitionRecord, Definitions, RecordBody, RecordRef, decode_record, encode_record};
