//! The ledger of a cluster, built anew while its nodes work.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use kapell_client::{ClientError, v1};
use kapell_ledger::Rebuild;
use kapell_model::ShardId;
use kapell_tests_cluster::{Node, SHARDS, Site};

const DEFINITIONS: &str = r#"
apiVersion: kapell.dev/v1
kind: Workflow
metadata: { name: parked }
spec:
  key: "event.data.key"
  steps: [{ id: pause, wait: { for: 1h } }]
"#;

/// Keys of so many runs: enough that every shard has some.
const RUNS: u32 = 96;

/// Every run that the ledger knows, by its id.
async fn rows(node: &Node) -> BTreeMap<String, v1::Run> {
    node.ledger_is_told().await;
    let request = v1::ListRunsRequest { limit: 1_000, ..v1::ListRunsRequest::default() };
    let runs = node.client.runs().list(request).await.unwrap().runs;
    runs.into_iter().map(|run| (run.id.clone(), run)).collect()
}

async fn start_all(node: &Node, keys: std::ops::Range<u32>) {
    join_all(keys.map(|key| node.start("parked", key))).await;
}

/// Takes the rows of every shard away, and leaves what says how far it is contained.
async fn lose_rows(site: &Site) {
    for shard in (0..SHARDS).map(ShardId) {
        let found = site.ledger().watermark(shard).await.unwrap();
        let nothing = Rebuild { shard, found, through: found, runs: vec![] };
        site.ledger().replace(nothing).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_node_builds_the_rows_of_its_own_shards_anew_while_others_start_runs() {
    let Some(site) = Site::new() else { return };
    let (a, b) = tokio::join!(site.node("a"), site.node("b"));
    a.owners(&[&a, &b]).await;
    a.apply(DEFINITIONS).await;
    b.knows(1).await;
    start_all(&a, 0..RUNS).await;
    let before = rows(&a).await;
    assert_eq!(before.len(), RUNS as usize);
    lose_rows(&site).await;
    assert_eq!(rows(&a).await, BTreeMap::new());
    let operator = b.client.admin();
    let (built, ()) = tokio::join!(operator.rebuild_ledger(), start_all(&a, RUNS..2 * RUNS));
    let mut built = built.unwrap();
    built.shards.sort_unstable();
    assert_eq!(built.shards, (0..u32::from(SHARDS)).collect::<Vec<_>>());
    assert!(built.runs >= u64::from(RUNS), "{built:?}");
    let after = rows(&b).await;
    assert_eq!(after.len(), 2 * RUNS as usize);
    assert!(before.iter().all(|(run, row)| after.get(run) == Some(row)), "each row is as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_stay_while_the_journal_cannot_be_read() {
    let Some(site) = Site::new() else { return };
    let way = site.way_to_journal();
    let node = site.node_at("a", "127.0.0.1:0", way.clone()).await;
    node.apply(DEFINITIONS).await;
    start_all(&node, 0..RUNS).await;
    let before = rows(&node).await;
    way.go();
    let refused = node.client.clone().with_deadline(Duration::from_secs(2)).admin().rebuild_ledger().await;
    let Err(ClientError::Unavailable { message, .. }) = refused else { panic!("{refused:?}") };
    assert!(message.contains("it is away") && message.contains("keeps the rows"), "{message}");
    way.back();
    assert_eq!(rows(&node).await, before);
    lose_rows(&site).await;
    assert_eq!(node.client.admin().rebuild_ledger().await.unwrap().runs, u64::from(RUNS));
    assert_eq!(rows(&node).await, before);
}
