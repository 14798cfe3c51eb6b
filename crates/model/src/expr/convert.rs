//! JSON to CEL and back.
//!
//! Owns: the rule that whole numbers are CEL ints, so that `event.data.n > 0` means what it says.
use std::collections::HashMap;
use std::sync::Arc;

use cel::Value;
use cel::objects::{Key, Map};

/// The CEL value; raises `list_len_max` to the longest list or object seen.
pub(super) fn to_cel(value: &serde_json::Value, list_len_max: &mut u64) -> Value {
    match value {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(truth) => Value::Bool(*truth),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(int), _) => Value::Int(int),
            (None, Some(uint)) => Value::UInt(uint),
            (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::String(Arc::new(text.clone())),
        serde_json::Value::Array(items) => {
            *list_len_max = (*list_len_max).max(items.len() as u64);
            Value::List(Arc::new(items.iter().map(|item| to_cel(item, list_len_max)).collect()))
        }
        serde_json::Value::Object(fields) => {
            *list_len_max = (*list_len_max).max(fields.len() as u64);
            let map: HashMap<Key, Value> = fields
                .iter()
                .map(|(name, field)| (Key::String(Arc::new(name.clone())), to_cel(field, list_len_max)))
                .collect();
            Value::Map(Map { map: Arc::new(map) })
        }
    }
}

/// Why a value does not become JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoJson {
    /// JSON cannot hold it (functions, NaN).
    NotJson,
    /// It is larger than it may be. A value that is there once in CEL may be there many times in JSON.
    TooLarge,
}

/// The JSON value, if it takes no more than so many bytes.
pub(super) fn to_json(value: &Value, bytes_max: usize) -> Result<serde_json::Value, NoJson> {
    let mut left = bytes_max;
    take(value, &mut left)
}

/// table: how each kind of value is written.
fn take(value: &Value, left: &mut usize) -> Result<serde_json::Value, NoJson> {
    let mut pay = |bytes: usize| {
        *left = left.checked_sub(bytes).ok_or(NoJson::TooLarge)?;
        Ok(())
    };
    match value {
        Value::List(items) => {
            pay(items.len() + 2)?;
            let items: Result<_, _> = items.iter().map(|item| take(item, left)).collect();
            Ok(serde_json::Value::Array(items?))
        }
        Value::Map(map) => {
            pay(2)?;
            let mut fields = serde_json::Map::new();
            // In any order: JSON sorts them.
            let mut add = |(key, field): (&Key, &Value)| -> Result<(), NoJson> {
                let key = key.to_string();
                *left = left.checked_sub(key.len() + 4).ok_or(NoJson::TooLarge)?;
                fields.insert(key, take(field, left)?);
                Ok(())
            };
            map.map.iter().try_for_each(&mut add)?;
            Ok(serde_json::Value::Object(fields))
        }
        Value::String(text) => {
            pay(text.len() + 2)?;
            Ok(serde_json::Value::String(text.to_string()))
        }
        Value::Float(float) if !float.is_finite() => Err(NoJson::NotJson),
        Value::Bytes(bytes) => {
            // Written in base64.
            pay(bytes.len().div_ceil(3) * 4 + 2)?;
            value.json().map_err(|_| NoJson::NotJson)
        }
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::UInt(_)
        | Value::Float(_)
        | Value::Timestamp(_)
        | Value::Duration(_)
        | Value::Function(..)
        | Value::Opaque(_)
        | Value::Struct(_) => {
            pay(8)?;
            value.json().map_err(|_| NoJson::NotJson)
        }
    }
}
