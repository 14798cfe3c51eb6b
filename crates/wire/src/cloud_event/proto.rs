//! The protobuf format.
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kapell_proto::cloudevents::CloudEvent;
use kapell_proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
use kapell_proto::cloudevents::cloud_event::{CloudEventAttributeValue, Data as Sent};
use serde_json::Value;

use super::attributes::{Data, Draft};
use super::{BadEvent, Event};

impl Event {
    /// From the protobuf format.
    pub fn from_proto(event: CloudEvent) -> Result<Event, BadEvent> {
        let mut draft = Draft::default();
        let fixed = [
            ("specversion", event.spec_version),
            ("id", event.id),
            ("source", event.source),
            ("type", event.r#type),
        ];
        for (name, text) in fixed {
            if !text.is_empty() {
                draft.set(name, Value::String(text))?;
            }
        }
        // Sorted, so that of several errors always the same is told.
        let attributes: BTreeMap<_, _> = event.attributes.into_iter().collect();
        for (name, value) in attributes {
            let value = attribute(&name, value)?;
            draft.set(&name, value)?;
        }
        draft.data = event.data.map(|data| match data {
            Sent::BinaryData(bytes) => Data::Binary(bytes),
            Sent::TextData(text) => Data::Text(text),
        });
        draft.finish()
    }
}

fn attribute(name: &str, value: CloudEventAttributeValue) -> Result<Value, BadEvent> {
    Ok(match value.attr {
        None => Value::Null,
        Some(Attr::CeBoolean(truth)) => Value::Bool(truth),
        Some(Attr::CeInteger(number)) => Value::from(number),
        Some(Attr::CeString(text) | Attr::CeUri(text) | Attr::CeUriRef(text)) => Value::String(text),
        Some(Attr::CeBytes(bytes)) => Value::String(STANDARD.encode(bytes)),
        Some(Attr::CeTimestamp(time)) => {
            let point = jiff::Timestamp::new(time.seconds, time.nanos);
            let point = point.map_err(|_| match name {
                "time" => BadEvent::Time(format!("{} s", time.seconds)),
                other => BadEvent::Value(other.chars().take(80).collect()),
            })?;
            Value::String(point.to_string())
        }
    })
}
