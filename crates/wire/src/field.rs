//! Reading one field of a stored or sent message: each reader says which field it could not read.
use std::sync::Arc;

use kapell_kernel::{ErrorClass, TaskError, UnitId};
use kapell_model::definition::EffectClass;
use kapell_model::plan::{CompiledWorkflow, DefinitionDigest};
use kapell_model::{Json, Name, RequestId, RunId, Timestamp, ToolRef};
use kapell_proto::v1;

use crate::error::DecodeError;
use crate::record::Definitions;
use crate::task;

/// `Message.field`.
pub(crate) type Field = &'static str;

/// A message or choice that every version writes.
pub(crate) fn required<T>(field: Field, value: Option<T>) -> Result<T, DecodeError> {
    value.ok_or(DecodeError::Missing { field })
}

/// JSON that this program or an earlier one wrote.
///
/// Trusted in release builds, not parsed again: it came out of a [`Json`], which is proven when it is made, and the
/// journal's checksums stand between it and a flipped bit. Parsing would double the time that recovery takes, and if
/// both ever failed the kernel would still see `null` and never panic. Debug builds, and so every test, parse it.
pub(crate) fn json(field: Field, text: &str) -> Result<Json, DecodeError> {
    if text.is_empty() {
        return Err(DecodeError::Missing { field });
    }
    if cfg!(debug_assertions) {
        return Json::parse(text).map_err(|_| DecodeError::NotJson { field });
    }
    Ok(Json::trusted(text))
}

/// How a field that holds JSON is read: [`json`] from the journal, [`sent_json`] from a peer.
pub(crate) type ReadJson = fn(Field, &str) -> Result<Json, DecodeError>;

/// JSON that came over the network: parsed, for no checksum of ours stands between it and whoever sent it.
pub(crate) fn sent_json(field: Field, text: &str) -> Result<Json, DecodeError> {
    if text.is_empty() {
        return Err(DecodeError::Missing { field });
    }
    Json::parse(text).map_err(|error| DecodeError::Damaged { field, reason: error.to_string() })
}

pub(crate) fn json_option(field: Field, text: Option<&str>) -> Result<Option<Json>, DecodeError> {
    text.map(|text| json(field, text)).transpose()
}

pub(crate) fn json_list(field: Field, texts: &[String]) -> Result<Vec<Json>, DecodeError> {
    texts.iter().map(|text| json(field, text)).collect()
}

pub(crate) fn texts(list: Vec<String>) -> Vec<Arc<str>> {
    list.into_iter().map(Arc::from).collect()
}

pub(crate) fn unit(field: Field, unit: Option<v1::UnitId>) -> Result<UnitId, DecodeError> {
    required(field, unit).map(|unit| task::unit_of(&unit))
}

pub(crate) fn run(field: Field, bytes: &[u8]) -> Result<RunId, DecodeError> {
    sixteen(field, bytes).map(RunId::from_bytes)
}

pub(crate) fn request(field: Field, bytes: &[u8]) -> Result<RequestId, DecodeError> {
    sixteen(field, bytes).map(RequestId::from_bytes)
}

pub(crate) fn name(field: Field, text: &str) -> Result<Name, DecodeError> {
    if text.is_empty() {
        return Err(DecodeError::Missing { field });
    }
    Name::new(text).map_err(|error| DecodeError::Damaged { field, reason: error.to_string() })
}

/// The version of a workflow that something is pinned to.
pub(crate) fn workflow(
    field: Field,
    digest: &[u8],
    definitions: &dyn Definitions,
) -> Result<Arc<CompiledWorkflow>, DecodeError> {
    let digest = self::digest(field, digest)?;
    definitions.by_digest(digest).ok_or(DecodeError::UnknownDefinition { digest })
}

pub(crate) fn tool(field: Field, text: &str) -> Result<ToolRef, DecodeError> {
    text.parse()
        .map_err(|error: kapell_model::NotAToolRef| DecodeError::Damaged { field, reason: error.to_string() })
}

pub(crate) fn effect(field: Field, value: i32) -> Result<EffectClass, DecodeError> {
    task::effect_of(value).ok_or(DecodeError::UnknownValue { field, value })
}

pub(crate) fn time(millis: Option<u64>) -> Option<Timestamp> {
    millis.map(Timestamp)
}

pub(crate) fn error(field: Field, error: Option<v1::TaskError>) -> Result<TaskError, DecodeError> {
    let error = required(field, error)?;
    let class = class(field, error.class)?;
    Ok(TaskError {
        class,
        message: error.message,
        retry_after: error.retry_after_ms.map(std::time::Duration::from_millis),
    })
}

fn class(field: Field, value: i32) -> Result<ErrorClass, DecodeError> {
    match task::class_of(value) {
        Some(class) => Ok(class),
        None if value == 0 => Err(DecodeError::Missing { field }),
        None => Err(DecodeError::UnknownValue { field, value }),
    }
}

/// A number of things that fits into this machine's memory.
pub(crate) fn count(field: Field, value: u64) -> Result<usize, DecodeError> {
    usize::try_from(value)
        .map_err(|_| DecodeError::Damaged { field, reason: format!("{value} is more than can be") })
}

pub(crate) fn digest(field: Field, bytes: &[u8]) -> Result<DefinitionDigest, DecodeError> {
    sixteen(field, bytes).map(DefinitionDigest)
}

fn sixteen(field: Field, bytes: &[u8]) -> Result<[u8; 16], DecodeError> {
    match <[u8; 16]>::try_from(bytes) {
        Ok(bytes) => Ok(bytes),
        Err(_) if bytes.is_empty() => Err(DecodeError::Missing { field }),
        Err(_) => {
            Err(DecodeError::Damaged { field, reason: format!("it has {} bytes, not 16", bytes.len()) })
        }
    }
}
