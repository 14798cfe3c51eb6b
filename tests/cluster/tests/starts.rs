//! Runs that are started over one starter of several coordinators, while these come and go.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::{join, join_all};
use kapell_client::{AnswerWhen, Client, Starter, v1};
use kapell_runtime::{Job, Jobs, OnDeath};
use kapell_tests_cluster::{Site, worker};
use tokio::net::TcpListener;

const DEFINITIONS: &str = r#"
apiVersion: kapell.dev/v1
kind: Specialist
metadata: { name: clerk }
spec:
  skills: [{ name: clerk.short, rules: { rows: [{ then: { done: true } }] } }]
---
apiVersion: kapell.dev/v1
kind: Workflow
metadata: { name: short }
spec:
  steps: [{ id: one, skill: clerk.short }]
"#;

/// Runs of these numbers to their ends; each is one of its own.
async fn all_complete(starter: &Starter, numbers: std::ops::Range<u32>) {
    let count = numbers.len();
    let start = |number: u32| {
        let request = v1::StartRunRequest {
            workflow: "short".to_owned(),
            request_id: format!("request-{number}"),
            wait_ms: Some(20_000),
            ..v1::StartRunRequest::default()
        };
        starter.start(request, AnswerWhen::Ended)
    };
    let mut runs = BTreeSet::new();
    for answer in join_all(numbers.map(start)).await {
        let answer = answer.unwrap();
        assert_eq!(answer.state.unwrap().state(), v1::RunState::Completed);
        runs.insert(answer.run);
    }
    assert_eq!(runs.len(), count);
}

#[tokio::test(flavor = "multi_thread")]
async fn starts_find_the_owners_of_their_shards_while_nodes_come_leave_and_hang() {
    let Some(site) = Site::new() else { return };
    let (one, two) = (site.node("one").await, site.node("two").await);
    let three = site.node("three").await;
    one.owners(&[&one, &two, &three]).await;
    one.apply(DEFINITIONS).await;
    two.knows(1).await;
    three.knows(1).await;
    let _worker = worker(&[&one, &two, &three]).await;
    let addresses = [&one, &two, &three].map(|node| node.address.clone()).join(",");
    let starter = Client::connect(&addresses).await.unwrap().runs().starter();
    all_complete(&starter, 0..200).await;
    join(all_complete(&starter, 200..600), two.leave()).await;
    let hung = three.hang();
    all_complete(&starter, 600..800).await;
    drop(hung);
    one.is_well().await;
}

/// Takes connections and says nothing, as a coordinator that is stopped or cut off.
async fn silent() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    Jobs::new().spawn(Job { name: "silence", on_panic: OnDeath::StopNode }, async move {
        let mut open = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            open.push(connection);
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_is_not_left_with_a_coordinator_that_says_nothing() {
    let Some(site) = Site::new() else { return };
    let node = site.node("one").await;
    node.apply(DEFINITIONS).await;
    let addresses = format!("{},{}", silent().await, node.address);
    // Over before the silent one's connection counts as broken.
    let client = Client::connect(&addresses).await.unwrap().with_deadline(Duration::from_secs(5));
    // Nothing is known of shards yet, so the first that takes a connection is asked.
    let request = v1::StartRunRequest { workflow: "short".to_owned(), ..v1::StartRunRequest::default() };
    client.runs().starter().start(request, AnswerWhen::Started).await.unwrap();
}
