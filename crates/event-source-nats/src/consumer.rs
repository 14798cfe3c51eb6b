//! The stream and its consumer: whether they can be used.
//!
//! Owns: what the consumer is when nobody made it. Never: changes one that is there.
use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::RetentionPolicy;
use kapell_event_source::SourceError;

use crate::NatsOptions;
use crate::trouble::{misplaced, unavailable};

/// After so long without a word a message is handed out again.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// Messages that are handed out and not settled, those that come later included. NATS holds the rest back.
const UNSETTLED_MAX: i64 = 10_000;

pub(crate) async fn find(context: &Context, options: &NatsOptions) -> Result<PullConsumer, SourceError> {
    let name = &options.stream;
    let stream = context.get_stream(name).await.map_err(|error| match error.kind() {
        GetStreamErrorKind::JetStream(said) if said.error_code() == ErrorCode::STREAM_NOT_FOUND => {
            misplaced(format!("there is no stream `{name}`; make it, as with `nats stream add {name}`"))
        }
        GetStreamErrorKind::EmptyName | GetStreamErrorKind::InvalidStreamName => {
            misplaced(format!("`{name}` cannot be the name of a stream"))
        }
        GetStreamErrorKind::Request | GetStreamErrorKind::JetStream(_) => unavailable(error.to_string()),
    })?;
    let keeps = stream.cached_info().config.retention == RetentionPolicy::Limits;
    match &options.refused {
        Some(subject) => {
            let taken = context.stream_by_subject(subject.clone()).await;
            taken.map_err(|_| {
                misplaced(format!(
                    "no stream takes `{subject}`, to which refused messages are to go; make one"
                ))
            })?;
        }
        None if keeps => {}
        None => {
            return Err(misplaced(format!(
                "the stream `{name}` drops what is settled, refused messages too; name a subject for them"
            )));
        }
    }
    let wanted = pull::Config {
        durable_name: Some(options.consumer.clone()),
        description: Some("events for Kapell; all coordinators share it".to_owned()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_ack_pending: UNSETTLED_MAX,
        filter_subject: options.subject.clone().unwrap_or_default(),
        ..pull::Config::default()
    };
    let consumer = stream.get_or_create_consumer(&options.consumer, wanted).await;
    let consumer = consumer.map_err(|error| unavailable(error.to_string()))?;
    match consumer.cached_info().config.ack_policy {
        AckPolicy::Explicit => Ok(consumer),
        AckPolicy::All | AckPolicy::None => Err(misplaced(format!(
            "the consumer `{}` does not wait for each message to be acknowledged; name another one",
            options.consumer
        ))),
    }
}
