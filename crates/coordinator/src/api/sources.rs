//! Events in, from streams of other systems.
//!
//! Owns: that a message is settled when what it asks for is on disk, and what a node tells of its sources. Never: knows
//! a source's system.
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use kapell_event_source::{EventSource, Fate, Message, Receipt, SourceError};
use kapell_model::Name;
use kapell_proto::v1;
use kapell_runtime::{Job, OnDeath};
use kapell_wire::cloud_event::{BadEvent, ContentMode, Event};
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Parts, events};

const FOLLOW: Job = Job { name: "event-source", on_panic: OnDeath::StopNode };
/// Messages that are worked on together.
const TAKEN_MAX: usize = 256;
/// How long a source waits for a message. A node that stops waits for as long at most.
const PATIENCE: Duration = Duration::from_millis(500);
/// Pause after an error that does not say when to try again.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// What a node takes events from.
#[derive(Clone)]
pub(crate) struct Sources {
    told: Arc<Mutex<Vec<Arc<Tally>>>>,
    /// Nothing more is taken once it says so.
    ending: watch::Sender<bool>,
}

/// What became of the messages of one source, since the node began.
#[derive(Default)]
struct Tally {
    name: String,
    taken: AtomicU64,
    put_off: AtomicU64,
    refused: AtomicU64,
    /// Why nothing can be taken now.
    trouble: Mutex<Option<String>>,
}

impl Default for Sources {
    fn default() -> Sources {
        Sources { told: Arc::default(), ending: watch::Sender::new(false) }
    }
}

impl Sources {
    /// In the order in which they were named.
    pub(super) fn status(&self) -> Vec<v1::SourceStatus> {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let status = |tally: &Arc<Tally>| v1::SourceStatus {
            name: tally.name.clone(),
            taken: count(&tally.taken),
            put_off: count(&tally.put_off),
            refused: count(&tally.refused),
            trouble: held(&tally.trouble).clone().unwrap_or_default(),
        };
        held(&self.told).iter().map(status).collect()
    }

    /// Takes nothing more, and waits until what was taken is settled.
    pub(crate) async fn end(&self) {
        self.ending.send_replace(true);
        self.ending.closed().await;
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is one assignment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes events of a namespace from a source until the node stops.
pub(crate) fn follow(parts: &Parts, source: Arc<dyn EventSource>, namespace: Name) {
    let tally = Arc::new(Tally { name: source.name().to_owned(), ..Tally::default() });
    held(&parts.sources.told).push(tally.clone());
    let (parts, mut ending) = (parts.clone(), parts.sources.ending.subscribe());
    parts.runtime.jobs.clone().spawn(FOLLOW, async move {
        // What was asked for is waited for: the source would not hand it out again for long.
        while !*ending.borrow() {
            let pause = match source.take(TAKEN_MAX, PATIENCE).await {
                Ok(messages) => {
                    held(&tally.trouble).take();
                    accept(&parts, &namespace, messages, &tally).await
                }
                Err(error) => {
                    let said = Some(error.to_string());
                    if *held(&tally.trouble) != said {
                        tracing::warn!(source = source.name(), %error, "no events are taken now");
                    }
                    *held(&tally.trouble) = said;
                    let after = match &error {
                        SourceError::Unavailable { retry_after, .. } => *retry_after,
                        SourceError::Misplaced { .. } => TRY_AGAIN,
                    };
                    Some(after)
                }
            };
            if let Some(pause) = pause {
                // Over early when the node stops.
                drop(timeout(pause, told_to_end(&mut ending)).await);
            }
        }
    });
}

async fn told_to_end(ending: &mut watch::Receiver<bool>) {
    drop(ending.wait_for(|ending| *ending).await);
}

/// Publishes what was taken and settles it. Answers how long to wait before more is taken, if there was no room.
async fn accept(parts: &Parts, namespace: &Name, messages: Vec<Message>, tally: &Tally) -> Option<Duration> {
    let (read, receipts): (Vec<_>, Vec<Box<dyn Receipt>>) =
        messages.into_iter().map(|message| (event_of(&message), message.receipt)).unzip();
    let results = events::all(parts, namespace, read.into_iter()).await;
    let fates: Vec<Fate> = results.iter().map(fate).collect();
    for fate in &fates {
        let count = match fate {
            Fate::Taken => &tally.taken,
            Fate::Later(_) => &tally.put_off,
            Fate::Refused(_) => &tally.refused,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
    let pause =
        fates.iter().filter_map(|fate| if let Fate::Later(after) = fate { Some(*after) } else { None });
    let pause = pause.max();
    let settled = receipts.into_iter().zip(fates).map(|(receipt, fate)| receipt.settle(fate));
    for error in join_all(settled).await.into_iter().filter_map(Result::err) {
        tracing::debug!(%error, "the source was not told what became of a message, which comes again");
    }
    pause
}

/// A message without a word on its form is an event in JSON, unless its headers are an event's.
fn event_of(message: &Message) -> Result<Event, BadEvent> {
    let is_attribute =
        |(name, _): &(String, String)| name.get(..3).is_some_and(|begin| begin.eq_ignore_ascii_case("ce-"));
    let content_type = message.content_type.as_deref();
    match ContentMode::of(content_type) {
        Some(ContentMode::Binary) | None if message.headers.iter().any(is_attribute) => {
            let headers = message.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
            Event::from_http(headers, content_type, &message.body)
        }
        Some(ContentMode::Structured | ContentMode::Binary | ContentMode::Batch) | None => {
            Event::from_json(&message.body)
        }
    }
}

fn fate(result: &v1::PublishResult) -> Fate {
    match &result.refusal {
        None => Fate::Taken,
        Some(v1::Refusal { retry_after_ms: Some(after), .. }) => Fate::Later(Duration::from_millis(*after)),
        Some(refusal) => Fate::Refused(format!("{}: {}", refusal.code, refusal.message)),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::future::{BoxFuture, FutureExt as _, ready};

    use super::*;

    struct Nobody;

    impl Receipt for Nobody {
        fn settle(self: Box<Self>, _: Fate) -> BoxFuture<'static, Result<(), SourceError>> {
            ready(Ok(())).boxed()
        }
    }

    fn read(content_type: Option<&str>, headers: &[(&str, &str)], body: &str) -> Result<Event, BadEvent> {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        event_of(&Message {
            content_type: content_type.map(str::to_owned),
            headers: headers.collect(),
            body: Bytes::copy_from_slice(body.as_bytes()),
            receipt: Box::new(Nobody),
        })
    }

    #[test]
    fn an_event_is_in_the_body_or_in_the_headers() {
        let body = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"n":1}}"#;
        let whole = read(None, &[], body).unwrap();
        assert_eq!((&*whole.id, &*whole.source, &*whole.event_type), ("1", "/s", "t"));
        assert_eq!(read(Some("application/cloudevents+json"), &[("x", "y")], body), Ok(whole.clone()));
        assert_eq!(read(Some("application/json"), &[], body), Ok(whole.clone()), "JSON, and no headers");
        let headers = [("CE-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")];
        let split = read(Some("application/json"), &headers, r#"{"n":1}"#).unwrap();
        assert_eq!((&split.id, &split.source), (&whole.id, &whole.source));
        assert!(split.json.as_str().contains(r#""n":1"#), "{}", split.json.as_str());
        assert!(read(None, &headers[..2], "{}").is_err(), "without a source");
        assert!(read(Some("application/cloudevents-batch+json"), &[], &format!("[{body}]")).is_err());
        assert!(read(None, &[], "hello").is_err());
    }

    #[test]
    fn what_may_work_later_is_put_off_and_what_never_will_is_refused() {
        let refused = |retry_after_ms| v1::PublishResult {
            refusal: Some(v1::Refusal { code: "c".to_owned(), message: "m".to_owned(), retry_after_ms }),
            ..v1::PublishResult::default()
        };
        assert_eq!(fate(&v1::PublishResult::default()), Fate::Taken);
        assert_eq!(fate(&refused(Some(50))), Fate::Later(Duration::from_millis(50)));
        assert_eq!(fate(&refused(None)), Fate::Refused("c: m".to_owned()));
    }
}
