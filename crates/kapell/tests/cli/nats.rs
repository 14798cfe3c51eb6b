//! Events out of a real NATS, as the command line has it.
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::{self, Context};
use kapell_tests_servers::Nats;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::node::{Node, free_address, kapell_in, pause};

const SUBJECT: &str = "events.guests";

/// With a consumer that hands out again soon what a node had in hand that was killed.
async fn stream(nats: &Nats) -> Context {
    let context = jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    let config = jetstream::stream::Config {
        name: "EVENTS".to_owned(),
        subjects: vec![SUBJECT.to_owned()],
        ..jetstream::stream::Config::default()
    };
    let stream = context.create_stream(config).await.unwrap();
    let consumer = pull::Config {
        durable_name: Some("kapell".to_owned()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: Duration::from_secs(2),
        ..pull::Config::default()
    };
    stream.create_consumer(consumer).await.unwrap();
    context
}

async fn send(context: &Context, numbers: std::ops::Range<u32>) {
    for no in numbers {
        let event = json!({
            "specversion": "1.0", "id": no.to_string(), "source": "/door", "type": "com.example.guest.arrived",
            "data": { "name": format!("guest-{no}"), "number": 1 },
        });
        context.publish(SUBJECT, event.to_string().into()).await.unwrap().await.unwrap();
    }
}

/// The completed runs, once there are so many.
fn completed(node: &Node, count: usize) -> Value {
    for _ in 0..600 {
        let listed = node.kapell(&["run", "list", "--state", "completed", "--all", "-o", "json"]);
        let listed: Value = serde_json::from_str(&listed.stdout).unwrap_or_default();
        if listed["runs"].as_array().is_some_and(|runs| runs.len() >= count) {
            return listed["runs"].clone();
        }
        pause(Duration::from_millis(50));
    }
    panic!("there are never {count} runs; the node's log:\n{}", node.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_takes_events_from_nats_and_goes_on_after_a_crash() {
    let Some(nats) = Nats::start() else { return };
    let context = stream(&nats).await;
    let mut node = Node::start_with(&["--nats", &nats.url(), "--nats-stream", "EVENTS"]);
    node.write("definitions.yaml", crate::DEFINITIONS);
    node.json(&["apply", "-f", "definitions.yaml"]);
    send(&context, 0..20).await;
    completed(&node, 20);
    let source = &node.json(&["status"])["sources"][0];
    assert_eq!(
        (&source["taken"], &source["refused"], &source["trouble"]),
        (&json!(20), &json!(0), &Value::Null)
    );
    let shown = node.kapell(&["status"]).stdout;
    assert!(shown.contains("EVENTS at nats://") && shown.contains("20 taken"), "{shown}");
    send(&context, 20..40).await;
    node.crash_and_restart();
    send(&context, 30..60).await;
    assert_eq!(completed(&node, 60).as_array().unwrap().len(), 60, "each event once");
}

#[test]
fn a_stream_that_is_not_there_is_told_at_once() {
    let folder = TempDir::new().unwrap();
    let said = kapell_in(folder.path(), "127.0.0.1:1", &["coordinator", "--nats-stream", "EVENTS"]);
    assert_eq!(said.exit, 2, "{}", said.stderr);
    assert!(said.stderr.contains("--nats <URL>"), "{}", said.stderr);
    let Some(nats) = Nats::start() else { return };
    let listen = free_address();
    let arguments = ["coordinator", "--listen", &listen, "--nats", &nats.url(), "--nats-stream", "ABSENT"];
    let said = kapell_in(folder.path(), "127.0.0.1:1", &arguments);
    assert_ne!(said.exit, 0);
    assert!(said.stderr.contains("no stream `ABSENT`"), "{}", said.stderr);
}
