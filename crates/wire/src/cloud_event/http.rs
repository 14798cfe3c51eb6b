//! The HTTP binding: which mode a request is in, and the binary mode.
use std::borrow::Cow;

use serde_json::Value;

use super::attributes::{Data, Draft, fits, is_json, media_type};
use super::{BadEvent, Event};

const PREFIX: &str = "ce-";

/// How a request carries its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentMode {
    /// One event as JSON: [`Event::from_json`].
    Structured,
    /// A list of events as JSON: [`Event::batch_from_json`].
    Batch,
    /// Attributes in headers, the body is the data: [`Event::from_http`].
    Binary,
}

impl ContentMode {
    /// The mode that a `Content-Type` says; `None` when it names a CloudEvents format that is not JSON.
    #[must_use]
    pub fn of(content_type: Option<&str>) -> Option<ContentMode> {
        let media = media_type(content_type.unwrap_or_default());
        match media.as_str() {
            "application/cloudevents+json" | "application/cloudevents" => Some(ContentMode::Structured),
            "application/cloudevents-batch+json" => Some(ContentMode::Batch),
            other if other.starts_with("application/cloudevents") => None,
            _ => Some(ContentMode::Binary),
        }
    }
}

impl Event {
    /// From a request in binary mode. Headers that do not begin with `ce-` are ignored; names in any case.
    pub fn from_http<'a>(
        headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        content_type: Option<&str>,
        body: &[u8],
    ) -> Result<Event, BadEvent> {
        fits(body.len())?;
        let mut draft = Draft::default();
        for (header, value) in headers {
            let header = header.to_ascii_lowercase();
            let Some(name) = header.strip_prefix(PREFIX) else { continue };
            if name == "datacontenttype" {
                return Err(BadEvent::ContentTypeHeader);
            }
            draft.set(name, Value::String(decoded(name, value)?))?;
        }
        if let Some(content_type) = content_type {
            draft.set("datacontenttype", Value::String(content_type.to_owned()))?;
        }
        draft.data = data(content_type.unwrap_or_default(), body);
        draft.finish()
    }
}

/// No body is no data. Text is text where the content type says so; what is neither JSON nor text stays bytes.
fn data(content_type: &str, body: &[u8]) -> Option<Data> {
    if body.is_empty() {
        return None;
    }
    let text = if is_text(content_type) { std::str::from_utf8(body).ok() } else { None };
    Some(match text {
        Some(text) if !is_json(content_type) => Data::Text(text.to_owned()),
        Some(_) | None => Data::Binary(body.to_vec()),
    })
}

fn is_text(content_type: &str) -> bool {
    let media = media_type(content_type);
    media.starts_with("text/")
        || media.ends_with("+xml")
        || matches!(
            media.as_str(),
            "application/xml" | "application/x-www-form-urlencoded" | "application/yaml"
        )
}

/// The text of a header: quotes are taken off, then `%41` is `A`, once.
fn decoded(name: &str, value: &[u8]) -> Result<String, BadEvent> {
    let inner = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    let plain = inner.map_or(Cow::Borrowed(value), |inner| Cow::Owned(unescaped(inner)));
    let mut bytes = Vec::with_capacity(plain.len());
    let mut rest = &*plain;
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                bytes.push((nibble(*high) << 4) | nibble(*low));
                rest = after;
            }
            (other, _) => bytes.push(*other),
        }
    }
    String::from_utf8(bytes).map_err(|_| BadEvent::NotUtf8(name.chars().take(80).collect()))
}

fn unescaped(quoted: &[u8]) -> Vec<u8> {
    let mut bytes = quoted.iter();
    let mut plain = Vec::with_capacity(quoted.len());
    while let Some(byte) = bytes.next() {
        plain.push(if *byte == b'\\' { *bytes.next().unwrap_or(byte) } else { *byte });
    }
    plain
}

/// Of a hexadecimal digit.
fn nibble(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.wrapping_sub(b'A').wrapping_add(10),
    }
}
