//! What becomes of whatever a node was asked when it stops.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use kapell_client::v1;
use kapell_client::v1::RunState;
use kapell_coordinator::Stopped;
use kapell_proto::v1::run_service_client::RunServiceClient;
use kapell_runtime::SystemNet;
use kapell_tests_cluster::{Node, Site, worker};
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;
use tonic::{Code, Status};

const DEFINITIONS: &str = r#"
apiVersion: kapell.dev/v1
kind: Workflow
metadata: { name: parked }
spec:
  key: "event.data.key"
  steps: [{ id: nap, wait: { for: "1h" } }]
"#;

/// Enough that some are under way at any moment.
const CALLERS: u32 = 32;
/// For what must come to pass.
const PATIENCE: Duration = Duration::from_secs(30);

/// Two nodes that know the definitions, each with its shards.
async fn two(site: &Site) -> (Node, Node) {
    let (a, b) = tokio::join!(site.node("a"), site.node("b"));
    a.owners(&[&a, &b]).await;
    a.apply(DEFINITIONS).await;
    (a, b)
}

/// Asks the node itself, and asks nobody twice.
async fn asks(node: &Node) -> RunServiceClient<Channel> {
    RunServiceClient::new(kapell_runtime::channel(Arc::new(SystemNet), &node.address).await.unwrap())
}

fn start_of(caller: u32, no: u32) -> v1::StartRunRequest {
    v1::StartRunRequest {
        workflow: "parked".to_owned(),
        input: format!("{{\"key\":\"k{caller}\"}}"),
        request_id: format!("{caller}-{no}"),
        ..v1::StartRunRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_a_node_that_stops_is_answered_or_was_not_heard() {
    let Some(site) = Site::new() else { return };
    let (a, b) = two(&site).await;
    let client = asks(&a).await;
    let callers = join_all((0..CALLERS).map(async |caller| {
        let mut no = 0;
        while client.clone().start(start_of(caller, no)).await.is_ok() {
            no += 1;
        }
        no
    }));
    let leaving = async {
        // why: so that all callers are under way
        sleep(Duration::from_millis(200)).await;
        a.leave().await
    };
    let (unanswered, stopped) = timeout(PATIENCE, async { tokio::join!(callers, leaving) }).await.unwrap();
    assert_eq!(stopped, Stopped::Clean);
    for (caller, no) in (0..).zip(unanswered) {
        assert!(no > 0, "caller {caller} was never answered");
        let again = b.client.runs().start(start_of(caller, no)).await.unwrap();
        assert!(!again.duplicate, "caller {caller} was heard at the {no}th time, and not answered");
        let before = b.client.runs().start(start_of(caller, no - 1)).await.unwrap();
        assert!(before.duplicate, "caller {caller} was answered at the time before, and not heard");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_listens_at_a_node_that_stops_is_sent_to_another_at_once() {
    let Some(site) = Site::new() else { return };
    let (a, b) = two(&site).await;
    let _worker = worker(&[&a, &b]).await;
    let mut client = asks(&a).await;
    let run = a.start("parked", 0).await;
    a.reaches(&run, RunState::Waiting).await;
    let mut changes = client.watch(v1::GetRunRequest { run: run.clone() }).await.unwrap().into_inner();
    let to_the_end = v1::StartRunRequest { wait_ms: Some(3_600_000), ..start_of(0, 0) };
    let waits = client.start(to_the_end);
    let watches = async {
        loop {
            match changes.message().await {
                Ok(Some(_)) => {}
                ended => break ended.err(),
            }
        }
    };
    let (waited, watched, stopped) =
        timeout(PATIENCE, async { tokio::join!(waits, watches, a.leave()) }).await.unwrap();
    assert_eq!(stopped, Stopped::Clean, "somebody kept a stream open");
    for said in [waited.err(), watched] {
        let said = said.map(|status: Status| (status.code(), status.message().to_owned()));
        assert_eq!(said, Some((Code::Unavailable, "the node is stopping; ask another one".to_owned())));
    }
    assert_eq!(b.state(&run).await, RunState::Waiting);
}
