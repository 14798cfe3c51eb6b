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

/// The JSON value; `None` for what JSON cannot hold (functions, NaN).
pub(super) fn to_json(value: &Value) -> Option<serde_json::Value> {
    if let Value::Float(float) = value
        && !float.is_finite()
    {
        return None;
    }
    value.json().ok()
}
