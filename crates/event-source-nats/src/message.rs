//! A message of JetStream as the port has it, and its way back.
//!
//! Owns: what NATS is told of a message. Never: decides what became of it.
use async_nats::jetstream::{self, AckKind, Context};
use async_nats::{Client, HeaderMap};
use futures::future::BoxFuture;
use kapell_event_source::{Fate, Message, Receipt, SourceError};

use crate::NatsSource;
use crate::trouble::unavailable;

/// Why the message was refused.
const REASON: &str = "Kapell-Refused";
/// Its subject.
const SUBJECT: &str = "Kapell-Subject";
/// Two of these with the same value are one message to a stream.
const MESSAGE_ID: &str = "Nats-Msg-Id";
const CONTENT_TYPE: &str = "content-type";

pub(crate) fn of(message: jetstream::Message, source: &NatsSource) -> Message {
    let mut content_type = None;
    let mut headers = Vec::new();
    for (name, values) in message.headers.iter().flat_map(HeaderMap::iter) {
        let Some(value) = values.first() else { continue };
        let (name, value) = (name.to_string(), value.to_string());
        if name.eq_ignore_ascii_case(CONTENT_TYPE) {
            content_type = Some(value);
        } else {
            headers.push((name, value));
        }
    }
    // As it came they have the order of a hash.
    headers.sort_unstable();
    let body = message.payload.clone();
    let held = Held {
        message,
        client: source.client.clone(),
        context: source.context.clone(),
        refused: source.options.refused.clone(),
    };
    Message { content_type, headers, body, receipt: Box::new(held) }
}

struct Held {
    message: jetstream::Message,
    client: Client,
    context: Context,
    refused: Option<String>,
}

impl Receipt for Held {
    fn settle(self: Box<Self>, fate: Fate) -> BoxFuture<'static, Result<(), SourceError>> {
        Box::pin(async move {
            let word = match fate {
                Fate::Taken => AckKind::Ack,
                Fate::Later(after) => AckKind::Nak(Some(after)),
                Fate::Refused(reason) => {
                    self.put_aside(&reason).await?;
                    AckKind::Term
                }
            };
            self.message.ack_with(word).await.map_err(|error| unavailable(error.to_string()))?;
            // A node that stops now has said it; what is settled together is flushed together.
            self.client.flush().await.map_err(|error| unavailable(error.to_string()))
        })
    }
}

impl Held {
    /// For people, before NATS is told that it is over.
    async fn put_aside(&self, reason: &str) -> Result<(), SourceError> {
        let subject = self.message.subject.as_str();
        let place = self.message.info().map_err(|error| unavailable(error.to_string()))?;
        let (stream, sequence) = (place.stream, place.stream_sequence);
        tracing::warn!(stream, sequence, subject, reason, "an event was refused");
        let Some(refused) = &self.refused else { return Ok(()) };
        let mut headers = self.message.headers.clone().unwrap_or_default();
        // A header is one line.
        headers.insert(REASON, reason.replace(['\r', '\n'], " "));
        headers.insert(SUBJECT, subject);
        // If the last word is lost, it comes again, and is put aside once.
        headers.insert(MESSAGE_ID, format!("kapell-refused-{stream}-{sequence}"));
        let body = self.message.payload.clone();
        let told = self.context.publish_with_headers(refused.clone(), headers, body).await;
        let stored = told.map_err(|error| unavailable(error.to_string()))?.await;
        stored.map(drop).map_err(|error| unavailable(error.to_string()))
    }
}
