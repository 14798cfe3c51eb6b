//! JSON values as they travel: compact text, parsed only where somebody looks inside.
//!
//! Owns: the proof that a text is JSON. Never: holds a parsed tree (a parked run would pay for it).
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A JSON value as compact text; cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Json(Arc<str>);

/// Why a text is no JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not JSON: {0}")]
pub struct NotJson(String);

impl Json {
    /// `null`.
    #[must_use]
    pub fn null() -> Json {
        Json(Arc::from("null"))
    }

    /// Checks that `text` is one JSON value and keeps it as it is.
    pub fn parse(text: &str) -> Result<Json, NotJson> {
        serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|error| NotJson(error.to_string()))?;
        Ok(Json(Arc::from(text)))
    }

    /// Text that this process wrote itself and has checked before, such as a journal entry's.
    #[must_use]
    pub fn trusted(text: &str) -> Json {
        debug_assert!(Json::parse(text).is_ok(), "trusted text is not JSON: {text}");
        Json(Arc::from(text))
    }

    /// The value as text. Keys of objects come out sorted, so equal values have equal texts.
    #[must_use]
    pub fn of(value: &Value) -> Json {
        Json(Arc::from(value.to_string()))
    }

    /// A JSON string.
    #[must_use]
    pub fn string(text: &str) -> Json {
        Json::of(&Value::String(text.to_owned()))
    }

    /// A list of values, each taken as it is.
    #[must_use]
    pub fn list<'a>(items: impl IntoIterator<Item = &'a Json>) -> Json {
        let mut text = String::from("[");
        for item in items {
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(&item.0);
        }
        text.push(']');
        Json(Arc::from(text))
    }

    /// The parsed value.
    #[must_use]
    pub fn value(&self) -> Value {
        // The text was proven when it was made.
        serde_json::from_str(&self.0).unwrap_or(Value::Null)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        &*self.0 == "null"
    }

    /// Length of the text.
    #[must_use]
    pub fn bytes_len(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl Serialize for Json {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.value().serialize(to)
    }
}
impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Json, D::Error> {
        Ok(Json::of(&Value::deserialize(from)?))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn equal_values_have_equal_texts_and_texts_are_proven() {
        let (a, b) = (Json::of(&json!({"a": 1, "b": [null]})), Json::of(&json!({"b": [null], "a": 1})));
        assert_eq!(a, b);
        assert_eq!(
            (a.as_str(), a.bytes_len(), a.to_string()),
            (r#"{"a":1,"b":[null]}"#, 18, format!("{b:?}"))
        );
        assert_eq!(Json::parse(" {\"a\": 1}").unwrap().value(), json!({"a": 1}));
        assert!(Json::parse("{").unwrap_err().to_string().starts_with("not JSON: "));
        assert!(Json::parse("1 2").is_err());
        assert!(Json::null().is_null() && !Json::string("null").is_null());
        assert_eq!(Json::list([&Json::trusted("1"), &Json::string("x")]).as_str(), r#"[1,"x"]"#);
        assert_eq!(Json::list([]).as_str(), "[]");
        let held: Vec<Json> = serde_json::from_str(r#"[{"a":1}, 2]"#).unwrap();
        assert_eq!(serde_json::to_string(&held).unwrap(), r#"[{"a":1},2]"#);
    }
}
