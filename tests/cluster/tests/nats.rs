//! Events out of a real NATS: nodes that share its consumer, that die and leave, and a NATS that goes away.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{AckPolicy, Info, PullConsumer, pull};
use async_nats::jetstream::{self, Context};
use kapell_client::v1;
use kapell_event_source_nats::{NatsOptions, NatsSource};
use kapell_tests_cluster::{Node, Site};
use kapell_tests_servers::Nats;
use tokio::time::{Instant, sleep};

const DEFINITIONS: &str = r#"
apiVersion: kapell.dev/v1
kind: Workflow
metadata: { name: order }
spec:
  on: { type: com.example.order }
  key: "event.data.key"
  steps: [{ id: pause, wait: { for: 1h } }]
"#;

/// Time for anything that must come to pass.
const PATIENCE: Duration = Duration::from_secs(30);
const SUBJECT: &str = "events.order";
const REFUSED: &str = "refused.events";

/// A NATS with a stream of events, and one for those that are refused.
struct Broker {
    nats: Nats,
    context: Context,
}

impl Broker {
    async fn start() -> Option<Broker> {
        let nats = Nats::start()?;
        let context = jetstream::new(async_nats::connect(nats.url()).await.unwrap());
        for (name, subject) in [("EVENTS", "events.>"), ("REFUSED", "refused.>")] {
            let config = jetstream::stream::Config {
                name: name.to_owned(),
                subjects: vec![subject.to_owned()],
                ..jetstream::stream::Config::default()
            };
            context.create_stream(config).await.unwrap();
        }
        Some(Broker { nats, context })
    }

    fn options(&self) -> NatsOptions {
        let options = NatsOptions::new(vec![self.nats.url()], "EVENTS");
        NatsOptions { refused: Some(REFUSED.to_owned()), ..options }
    }

    async fn source(&self) -> Arc<NatsSource> {
        Arc::new(NatsSource::open(self.options()).await.unwrap())
    }

    /// The consumer, made by somebody else with a patience of its own.
    async fn consumer_with(&self, ack_wait: Duration) {
        let config = pull::Config {
            durable_name: Some("kapell".to_owned()),
            ack_policy: AckPolicy::Explicit,
            ack_wait,
            ..pull::Config::default()
        };
        self.context.get_stream("EVENTS").await.unwrap().create_consumer(config).await.unwrap();
    }

    async fn send(&self, body: String) {
        self.context.publish(SUBJECT, body.into()).await.unwrap().await.unwrap();
    }

    async fn send_all(&self, numbers: std::ops::Range<u32>) {
        for no in numbers {
            self.send(event(no)).await;
        }
    }

    /// Waits until the consumer is as wanted.
    async fn becomes(&self, wanted: impl Fn(&Info) -> bool) {
        let since = Instant::now();
        loop {
            let consumer: PullConsumer =
                self.context.get_consumer_from_stream("kapell", "EVENTS").await.unwrap();
            let info = consumer.cached_info();
            if wanted(info) {
                return;
            }
            assert!(since.elapsed() < PATIENCE, "{info:?}");
            // why: NATS does not tell what becomes of a consumer
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until everything was taken and settled.
    async fn is_empty(&self) {
        self.becomes(|info| (info.num_pending, info.num_ack_pending) == (0, 0)).await;
    }
}

fn event(no: u32) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{no}","source":"/shop","type":"com.example.order","data":{{"key":"k{no}"}}}}"#
    )
}

/// A site with two nodes that know the workflow.
async fn two(site: &Site) -> (Node, Node) {
    let (a, b) = tokio::join!(site.node("a"), site.node("b"));
    a.owners(&[&a, &b]).await;
    a.apply(DEFINITIONS).await;
    b.knows(1).await;
    (a, b)
}

/// How many runs there are of each key.
async fn runs(node: &Node) -> BTreeMap<String, u32> {
    node.ledger_is_told().await;
    let (mut found, mut cursor) = (BTreeMap::new(), String::new());
    loop {
        let request = v1::ListRunsRequest { limit: 1_000, cursor, ..v1::ListRunsRequest::default() };
        let page = node.client.runs().list(request).await.unwrap();
        for run in page.runs {
            *found.entry(run.key).or_default() += 1;
        }
        cursor = page.next_cursor;
        if cursor.is_empty() {
            return found;
        }
    }
}

fn once_each(numbers: std::ops::Range<u32>) -> BTreeMap<String, u32> {
    numbers.map(|no| (format!("k{no}"), 1)).collect()
}

async fn status(node: &Node) -> v1::SourceStatus {
    node.client.admin().status().await.unwrap().sources.pop().unwrap()
}

/// Waits until what a node says of its source is as wanted.
async fn says(node: &Node, wanted: impl Fn(&v1::SourceStatus) -> bool) {
    let since = Instant::now();
    loop {
        let status = status(node).await;
        if wanted(&status) {
            return;
        }
        assert!(since.elapsed() < PATIENCE, "{status:?}");
        // why: nothing tells what a node has counted
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_starts_its_run_once_though_it_comes_twice_and_two_nodes_take() {
    let (Some(broker), Some(site)) = (Broker::start().await, Site::new()) else { return };
    let (a, b) = two(&site).await;
    for node in [&a, &b] {
        node.follow(broker.source().await);
    }
    tokio::join!(broker.send_all(0..300), broker.send_all(200..400));
    broker.is_empty().await;
    assert_eq!(runs(&a).await, once_each(0..400));
    let (at_a, at_b) = (status(&a).await, status(&b).await);
    assert_eq!((at_a.taken + at_b.taken, at_a.refused + at_b.refused), (500, 0), "{at_a:?} {at_b:?}");
}

/// Its messages come again when NATS has waited for its word for long enough.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_took_that_hangs_comes_to_another() {
    let (Some(broker), Some(site)) = (Broker::start().await, Site::new()) else { return };
    broker.consumer_with(Duration::from_secs(3)).await;
    let (a, b) = two(&site).await;
    for node in [&a, &b] {
        node.follow(broker.source().await);
    }
    let hanging = async {
        says(&a, |status| status.taken > 20).await;
        a.hang()
    };
    let (_hanging, ()) = tokio::join!(hanging, broker.send_all(0..600));
    broker.is_empty().await;
    // Until then only the one that hangs could say what is in its shards.
    b.owners(&[&b]).await;
    assert_eq!(runs(&b).await, once_each(0..600));
}

/// Nothing waits for NATS to lose its patience.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_leaves_settles_what_it_took() {
    let (Some(broker), Some(site)) = (Broker::start().await, Site::new()) else { return };
    broker.consumer_with(Duration::from_secs(600)).await;
    let (a, b) = two(&site).await;
    for node in [&a, &b] {
        node.follow(broker.source().await);
    }
    let leaving = async {
        says(&a, |status| status.taken > 20).await;
        a.leave().await;
    };
    tokio::join!(leaving, broker.send_all(0..600));
    broker.is_empty().await;
    assert_eq!(runs(&b).await, once_each(0..600));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_event_is_put_aside_with_the_reason_and_the_rest_goes_on() {
    let (Some(broker), Some(site)) = (Broker::start().await, Site::new()) else { return };
    let node = site.node("a").await;
    node.apply(DEFINITIONS).await;
    node.follow(broker.source().await);
    broker.send("hello".to_owned()).await;
    let mut headers = HeaderMap::new();
    for (name, value) in
        [("ce-specversion", "1.0"), ("ce-id", "7"), ("ce-source", "/shop"), ("ce-type", "com.example.order")]
    {
        headers.insert(name, value);
    }
    headers.insert("Content-Type", "application/json");
    let body = r#"{"key":"k7"}"#;
    broker.context.publish_with_headers(SUBJECT, headers, body.into()).await.unwrap().await.unwrap();
    broker.send_all(8..10).await;
    broker.is_empty().await;
    assert_eq!(runs(&node).await, once_each(7..10));
    let counted = status(&node).await;
    assert_eq!((counted.taken, counted.refused), (3, 1));
    let put_aside = broker.context.get_stream("REFUSED").await.unwrap();
    assert_eq!(put_aside.get_info().await.unwrap().state.messages, 1);
    let message = put_aside.get_raw_message(1).await.unwrap();
    assert_eq!(message.payload, "hello");
    let said = |name: &str| message.headers.get(name).map(|value| value.as_str().to_owned());
    assert!(said("Kapell-Refused").unwrap().contains("bad-event"), "{:?}", message.headers);
    assert_eq!(said("Kapell-Subject").as_deref(), Some(SUBJECT));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nats_that_goes_away_is_found_again_and_nothing_is_lost() {
    let (Some(mut broker), Some(site)) = (Broker::start().await, Site::new()) else { return };
    // It may have forgotten what it was told last.
    broker.consumer_with(Duration::from_secs(3)).await;
    let node = site.node("a").await;
    node.apply(DEFINITIONS).await;
    node.follow(broker.source().await);
    broker.send_all(0..50).await;
    says(&node, |status| status.taken >= 50).await;
    tokio::task::block_in_place(|| broker.nats.kill());
    says(&node, |status| !status.trouble.is_empty()).await;
    tokio::task::block_in_place(|| broker.nats.start_again());
    says(&node, |status| status.trouble.is_empty()).await;
    broker.send_all(50..100).await;
    broker.is_empty().await;
    assert_eq!(runs(&node).await, once_each(0..100));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_wait_at_nats_while_the_node_cannot_store_them() {
    let (Some(broker), Some(site)) = (Broker::start().await, Site::new()) else { return };
    let way = site.way_to_journal();
    let node = site.node_at("a", "127.0.0.1:0", way.clone()).await;
    node.apply(DEFINITIONS).await;
    way.go();
    node.follow(broker.source().await);
    broker.send_all(0..25).await;
    broker.becomes(|info| info.num_redelivered > 0).await;
    // Their shards are being loaded by now, and keep what they are asked until they are.
    broker.send_all(25..50).await;
    broker.becomes(|info| info.num_ack_pending == 50 && info.num_redelivered > 25).await;
    way.back();
    broker.is_empty().await;
    assert_eq!(runs(&node).await, once_each(0..50));
    let counted = status(&node).await;
    assert!(counted.put_off > 25 && (counted.taken, counted.refused) == (50, 0), "{counted:?}");
}
