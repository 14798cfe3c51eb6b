//! The attributes of an event while it is read, whatever form it came in.
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kapell_model::Json;
use kapell_model::limits::PAYLOAD_BYTES_MAX;
use serde_json::{Map, Value};
use std::sync::Arc;

use super::{BadEvent, Event};

/// Attributes that must be a text and not empty.
const TEXTS: [&str; 8] =
    ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema"];

/// What an event carries.
pub(super) enum Data {
    Json(Value),
    Text(String),
    Binary(Vec<u8>),
}

/// An event that is being read.
#[derive(Default)]
pub(super) struct Draft {
    attributes: Map<String, Value>,
    pub(super) data: Option<Data>,
}

impl Draft {
    /// Adds an attribute; `null` is one that is not set.
    pub(super) fn set(&mut self, name: &str, value: Value) -> Result<(), BadEvent> {
        let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if name.is_empty() || !plain || name == "data" {
            return Err(BadEvent::Name(name.chars().take(80).collect()));
        }
        match &value {
            Value::Null => return Ok(()),
            Value::String(text) if text.chars().any(char::is_control) => {
                return Err(BadEvent::Control(name.to_owned()));
            }
            Value::String(text) if text.is_empty() && TEXTS.contains(&name) => {
                return Err(BadEvent::Empty(name.to_owned()));
            }
            Value::Bool(_) | Value::Number(_) if TEXTS.contains(&name) => {
                return Err(BadEvent::Value(name.to_owned()));
            }
            Value::Number(number)
                if number.as_i64().and_then(|number| i32::try_from(number).ok()).is_none() =>
            {
                return Err(BadEvent::Value(name.to_owned()));
            }
            Value::Array(_) | Value::Object(_) => return Err(BadEvent::Value(name.to_owned())),
            Value::String(_) | Value::Bool(_) | Value::Number(_) => {}
        }
        if self.attributes.insert(name.to_owned(), value).is_some() {
            return Err(BadEvent::Twice(name.to_owned()));
        }
        Ok(())
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).and_then(Value::as_str)
    }

    /// The event, if it is a valid one.
    pub(super) fn finish(mut self) -> Result<Event, BadEvent> {
        match self.text("specversion") {
            Some("1.0") => {}
            Some(other) => return Err(BadEvent::SpecVersion(other.chars().take(40).collect())),
            None => return Err(BadEvent::Missing("specversion")),
        }
        let required = |name| self.text(name).map(Arc::<str>::from).ok_or(BadEvent::Missing(name));
        let (id, source, event_type) = (required("id")?, required("source")?, required("type")?);
        if source.chars().any(char::is_whitespace) {
            return Err(BadEvent::Source(source.chars().take(200).collect()));
        }
        if let Some(time) = self.text("time").filter(|time| !is_rfc3339(time)) {
            return Err(BadEvent::Time(time.chars().take(80).collect()));
        }
        let subject = self.text("subject").map(Arc::from);
        match self.data.take() {
            None => {}
            Some(Data::Json(value)) => self.put("data", value),
            Some(Data::Text(text)) => {
                let value = if self.says_json() { self.parse(text.as_bytes())? } else { Value::String(text) };
                self.put("data", value);
            }
            Some(Data::Binary(bytes)) if self.says_json() => {
                let value = self.parse(&bytes)?;
                self.put("data", value);
            }
            Some(Data::Binary(bytes)) => self.put("data_base64", Value::String(STANDARD.encode(bytes))),
        }
        let json = Json::of(&Value::Object(self.attributes));
        fits(json.bytes_len())?;
        Ok(Event { id, source, event_type, subject, json })
    }

    fn put(&mut self, name: &str, value: Value) {
        self.attributes.insert(name.to_owned(), value);
    }

    fn says_json(&self) -> bool {
        self.text("datacontenttype").is_some_and(is_json)
    }

    fn parse(&self, data: &[u8]) -> Result<Value, BadEvent> {
        let content_type = || self.text("datacontenttype").unwrap_or_default().chars().take(200).collect();
        serde_json::from_slice(data).map_err(|error| BadEvent::DataNotJson {
            content_type: content_type(),
            reason: error.to_string(),
        })
    }
}

/// Refuses what is larger than an event may be.
pub(super) fn fits(bytes: usize) -> Result<(), BadEvent> {
    if bytes > PAYLOAD_BYTES_MAX { Err(BadEvent::TooLarge { bytes }) } else { Ok(()) }
}

/// Whether a content type is that of JSON.
pub(super) fn is_json(content_type: &str) -> bool {
    let media = media_type(content_type);
    media.split_once('/').is_some_and(|(_, subtype)| subtype == "json" || subtype.ends_with("+json"))
}

/// A content type without its parameters, in lower case.
pub(super) fn media_type(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The date and time parser accepts more forms than RFC 3339 has, such as a blank before the offset.
fn is_rfc3339(text: &str) -> bool {
    let bytes = text.as_bytes();
    let separated = bytes.get(10).is_some_and(|byte| matches!(byte, b'T' | b't' | b' '));
    let offset = text.ends_with(['Z', 'z'])
        || bytes
            .len()
            .checked_sub(6)
            .is_some_and(|at| at > 10 && matches!(bytes[at], b'+' | b'-') && bytes[at + 3] == b':');
    let plain = bytes.iter().skip(11).all(|byte| byte.is_ascii_digit() || b":.+-Zz".contains(byte));
    separated && offset && plain && text.parse::<jiff::Timestamp>().is_ok()
}
