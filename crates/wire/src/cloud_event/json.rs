//! The JSON format: one event, or a list of them.
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use serde_json::value::RawValue;

use super::attributes::{Data, Draft, fits};
use super::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX, BadBatch, BadEvent, Event};

impl Event {
    /// From the JSON format (`application/cloudevents+json`).
    pub fn from_json(body: &[u8]) -> Result<Event, BadEvent> {
        fits(body.len())?;
        let value = serde_json::from_slice(body).map_err(|error| BadEvent::NotJson(error.to_string()))?;
        Event::from_value(value)
    }

    /// From the JSON batch format (`application/cloudevents-batch+json`): all of them, or none.
    pub fn batch_from_json(body: &[u8]) -> Result<Vec<Event>, BadBatch> {
        if body.len() > BATCH_BYTES_MAX {
            return Err(BadBatch::TooLarge { bytes: body.len() });
        }
        let texts: Vec<&RawValue> =
            serde_json::from_slice(body).map_err(|error| BadBatch::NotAList(error.to_string()))?;
        if texts.len() > BATCH_EVENTS_MAX {
            return Err(BadBatch::TooMany { events: texts.len() });
        }
        let event = |(at, text): (usize, &&RawValue)| {
            Event::from_json(text.get().as_bytes()).map_err(|error| BadBatch::Event { at, error })
        };
        texts.iter().enumerate().map(event).collect()
    }

    fn from_value(value: Value) -> Result<Event, BadEvent> {
        let Value::Object(members) = value else { return Err(BadEvent::NotAnObject) };
        let mut draft = Draft::default();
        for (name, value) in members {
            let data = match name.as_str() {
                // Unlike an attribute, data may be `null`.
                "data" => Data::Json(value),
                "data_base64" if value.is_null() => continue,
                "data_base64" => {
                    let text = value.as_str().ok_or(BadEvent::Base64)?;
                    Data::Binary(STANDARD.decode(text).map_err(|_| BadEvent::Base64)?)
                }
                _ => {
                    draft.set(&name, value)?;
                    continue;
                }
            };
            if draft.data.replace(data).is_some() {
                return Err(BadEvent::TwoData);
            }
        }
        draft.finish()
    }
}
