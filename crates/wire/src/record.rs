//! One journal record: a point in time, and an entry of a run or a schedule, or a version of a definition.
//!
//! Owns: the outermost message, and the refusal of what a newer program wrote.
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use kapell_kernel::Entry;
use kapell_kernel::schedule::ScheduleEntry;
use kapell_model::plan::{CompiledWorkflow, DefinitionDigest};
use kapell_model::{Json, Timestamp};
use kapell_proto::journal as proto;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::entry;
use crate::error::DecodeError;
use crate::field;
use crate::schedule;

/// The definitions that runs may be pinned to.
pub trait Definitions {
    /// The version of a workflow that has this digest.
    fn by_digest(&self, digest: DefinitionDigest) -> Option<Arc<CompiledWorkflow>>;
}

/// What to write.
#[derive(Clone, Copy, Debug)]
pub enum RecordRef<'a> {
    /// What happened to a run.
    Entry(&'a Entry),
    /// A version of a definition.
    Definition(&'a DefinitionRecord),
    /// What happened to a schedule.
    Schedule(&'a ScheduleEntry),
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordBody {
    /// What happened to a run.
    Entry(Entry),
    /// A version of a definition.
    Definition(DefinitionRecord),
    /// What happened to a schedule.
    Schedule(ScheduleEntry),
}

/// A version of a definition, as the control shard keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefinitionRecord {
    /// The document; for a removal only kind, namespace and name.
    pub document: Json,
    /// Whether it is in force no longer.
    pub removed: bool,
    /// Of all definitions, after this change.
    pub revision: u64,
    /// When it was changed: the time of its record.
    pub at: Timestamp,
}

/// Writes one record. Text is copied twice: into the message and into the bytes.
#[must_use]
pub fn encode_record(at: Timestamp, body: RecordRef<'_>) -> Bytes {
    let kind = match body {
        RecordRef::Entry(entry) => {
            proto::record::Kind::Entry(proto::Entry { kind: Some(entry::to_proto(at, entry)) })
        }
        RecordRef::Definition(definition) => proto::record::Kind::Definition(definition_to(definition)),
        RecordRef::Schedule(entry) => {
            proto::record::Kind::Schedule(proto::ScheduleEntry { kind: Some(schedule::to_proto(entry)) })
        }
    };
    proto::Record { at_ms: at.0, kind: Some(kind) }.encode_to_vec().into()
}

/// Reads one record.
pub fn decode_record(
    bytes: &[u8],
    definitions: &dyn Definitions,
) -> Result<(Timestamp, RecordBody), DecodeError> {
    let record = read_whole::<proto::Record>(bytes, "Record")?;
    let body = match record.kind {
        Some(proto::record::Kind::Entry(entry)) => {
            let kind = entry.kind.ok_or_else(|| nothing_known(bytes, &[1]))?;
            RecordBody::Entry(entry::from_proto(Timestamp(record.at_ms), kind, definitions)?)
        }
        Some(proto::record::Kind::Definition(definition)) => {
            RecordBody::Definition(definition_from(&definition, Timestamp(record.at_ms))?)
        }
        Some(proto::record::Kind::Schedule(entry)) => {
            let kind = entry.kind.ok_or_else(|| nothing_known(bytes, &[4]))?;
            RecordBody::Schedule(schedule::from_proto(kind, definitions)?)
        }
        None => return Err(nothing_known(bytes, &[])),
    };
    Ok((Timestamp(record.at_ms), body))
}

fn definition_to(definition: &DefinitionRecord) -> proto::Definition {
    proto::Definition {
        document: definition.document.as_str().to_owned(),
        removed: definition.removed,
        revision: definition.revision,
    }
}

fn definition_from(definition: &proto::Definition, at: Timestamp) -> Result<DefinitionRecord, DecodeError> {
    Ok(DefinitionRecord {
        document: field::json("Definition.document", &definition.document)?,
        removed: definition.removed,
        revision: definition.revision,
        at,
    })
}

/// Reads a message, and refuses one with more in it than this program would write.
///
/// Protobuf drops fields that it does not know without a word. Here that would be a part of history that one node
/// sees and another does not. Only this crate writes, and it writes each field in one way, so what it reads must
/// have the length of what it would write.
pub(crate) fn read_whole<M: Message + Default>(bytes: &[u8], name: &str) -> Result<M, DecodeError> {
    let message = M::decode(bytes).map_err(DecodeError::Malformed)?;
    let known = message.encoded_len();
    if known != bytes.len() {
        // The kind is more telling than the fields, where it is the kind that is not known.
        let what = format!("{name} has {} bytes, of which {known} can be read: it has fields", bytes.len());
        return Err(unknown_kind(bytes, name).unwrap_or(DecodeError::Newer { what }));
    }
    Ok(message)
}

/// Says which kind it is that is not known, where that is what is wrong.
fn unknown_kind(bytes: &[u8], name: &str) -> Option<DecodeError> {
    if name != "Record" {
        return None;
    }
    let record = proto::Record::decode(bytes).ok()?;
    match record.kind {
        Some(
            proto::record::Kind::Entry(proto::Entry { kind: Some(_) })
            | proto::record::Kind::Schedule(proto::ScheduleEntry { kind: Some(_) })
            | proto::record::Kind::Definition(_),
        ) => None,
        Some(proto::record::Kind::Entry(proto::Entry { kind: None })) => Some(nothing_known(bytes, &[1])),
        Some(proto::record::Kind::Schedule(proto::ScheduleEntry { kind: None })) => {
            Some(nothing_known(bytes, &[4]))
        }
        None => Some(nothing_known(bytes, &[])),
    }
}

/// The error for a message without a known kind; `path` leads to the message by field numbers.
pub(crate) fn nothing_known(bytes: &[u8], path: &[u32]) -> DecodeError {
    match first_message(bytes, path) {
        Some(number) => DecodeError::Newer { what: format!("it is of kind {number}") },
        None => DecodeError::Missing {
            field: match path {
                [] => "Record.kind",
                [1, ..] => "Entry.kind",
                [_, ..] => "ScheduleEntry.kind",
            },
        },
    }
}

/// Number of the first field that holds a message, below `path`.
fn first_message(mut bytes: &[u8], path: &[u32]) -> Option<u32> {
    while bytes.has_remaining() {
        let (number, wire) = decode_key(&mut bytes).ok()?;
        if wire != WireType::LengthDelimited {
            skip_field(wire, number, &mut bytes, DecodeContext::default()).ok()?;
            continue;
        }
        let Some((first, rest)) = path.split_first() else { return Some(number) };
        let length = usize::try_from(decode_varint(&mut bytes).ok()?).ok()?;
        let inside = bytes.get(..length)?;
        if number == *first {
            return first_message(inside, rest);
        }
        bytes = &bytes[length..];
    }
    None
}
