//! What cannot be used is said at once, and in words that help.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::{Config, RetentionPolicy};
use async_nats::jetstream::{self, Context};
use kapell_event_source::{EventSource as _, SourceError};
use kapell_event_source_nats::{NatsOptions, NatsSource};
use kapell_tests_servers::Nats;

async fn refusal(options: NatsOptions) -> String {
    match NatsSource::open(options).await {
        Err(SourceError::Misplaced { reason }) => reason,
        Err(other) => panic!("{other:?}"),
        Ok(source) => panic!("{} was opened", source.name()),
    }
}

async fn stream(context: &Context, name: &str, retention: RetentionPolicy) {
    let subjects = vec![format!("{name}.>")];
    let config = Config { name: name.to_owned(), subjects, retention, ..Config::default() };
    context.create_stream(config).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_or_cannot_be_used_is_an_error_that_says_what_to_do() {
    let Some(nats) = Nats::start() else { return };
    let context = jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    stream(&context, "kept", RetentionPolicy::Limits).await;
    stream(&context, "work", RetentionPolicy::WorkQueue).await;
    let unheard = pull::Config {
        durable_name: Some("unheard".to_owned()),
        ack_policy: AckPolicy::None,
        ..pull::Config::default()
    };
    context.get_stream("kept").await.unwrap().create_consumer(unheard).await.unwrap();
    let of = |stream: &str| NatsOptions::new(vec![nats.url()], stream);
    let cases = [
        (of("absent"), "no stream `absent`"),
        (of("a b"), "cannot be the name"),
        (of("work"), "name a subject"),
        (NatsOptions { refused: Some("nowhere.x".to_owned()), ..of("kept") }, "no stream takes `nowhere.x`"),
        (NatsOptions { consumer: "unheard".to_owned(), ..of("kept") }, "acknowledged"),
        (NatsOptions { servers: vec!["nats://me:secret@a b".to_owned()], ..of("kept") }, "`a b`"),
        (
            NatsOptions { credentials: Some("/nowhere/user.creds".into()), ..of("kept") },
            "/nowhere/user.creds",
        ),
    ];
    for (options, words) in cases {
        let reason = refusal(options).await;
        assert!(reason.contains(words) && !reason.contains("secret"), "{words}: {reason}");
    }
    NatsSource::open(NatsOptions { refused: Some("kept.refused".to_owned()), ..of("work") }).await.unwrap();
}

/// A node starts without it, and says so when it is asked for events.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nats_that_is_away_is_no_reason_not_to_start() {
    let options = NatsOptions::new(vec!["nats://me:secret@127.0.0.1:1".to_owned()], "kept");
    let source = NatsSource::open(options).await.unwrap();
    assert_eq!(source.name(), "kept at 127.0.0.1:1", "without the password");
    let taken = source.take(1, Duration::ZERO).await;
    let Err(SourceError::Unavailable { retry_after, .. }) = taken else { panic!("taken") };
    assert!(!retry_after.is_zero());
}
