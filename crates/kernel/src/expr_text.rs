//! Small conversions between values and texts that several rooms of the kernel need alike.
use kapell_model::Json;
use serde_json::Value;

/// `{"name": value}` without parsing the value.
pub(crate) fn object_of(name: &str, value: &Json) -> Json {
    Json::trusted(&format!("{{{}:{value}}}", Json::string(name)))
}

/// A string as it is, anything else as JSON.
pub(crate) fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    }
}
