//! Sessions: what survives a broken connection, a silent coordinator, a second one.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kapell_model::{Epoch, Json, ShardId};
use kapell_proto::v1::ToolResult;
use kapell_proto::v1::coordinator_message::Kind as Said;
use kapell_proto::v1::tool_result::Result::Output;
use kapell_proto::v1::worker_message::Kind;
use kapell_runtime::Runtime;
use kapell_wire::claim::{ShardClaim, claim_to};
use kapell_wire::task::TaskKey;
use kapell_worker::{Agent, StartError, TaskContext, TaskError, Worker, WorkerOptions};
use serde_json::json;

use crate::support::{Coordinator, Peer, assignment, definitions, pair, start, task, terms};

/// Waits for one tool call; counts its beginnings.
struct Asking(Arc<AtomicUsize>);

impl Agent for Asking {
    async fn run(&self, task: TaskContext) -> Result<Json, TaskError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(task.call_tool("north/read", task.input()).await?)
    }
}

fn asking() -> (WorkerOptions, Arc<AtomicUsize>) {
    let begun = Arc::new(AtomicUsize::new(0));
    let options =
        WorkerOptions::new("w1").with_agent("retail/desk.work", Asking(Arc::clone(&begun))).unwrap();
    (options, begun)
}

async fn requested(peer: &mut Peer) {
    match peer.next().await {
        Kind::Tool(request) => assert_eq!(request.no, 0),
        other => panic!("no tool request but {other:?}"),
    }
}

async fn answer(peer: &Peer, at: u32) {
    let result = Some(Output("\"answer\"".into()));
    peer.say(Said::ToolResult(ToolResult { task: Some(task(at).to_proto()), no: 0, result })).await;
}

#[tokio::test]
async fn options_that_make_no_sense_are_refused() {
    let with = |change: fn(&mut WorkerOptions)| {
        let mut options = WorkerOptions::new("w1");
        options.coordinators = vec!["127.0.0.1:1".into()];
        change(&mut options);
        async { Worker::start(options, Runtime::system()).await.unwrap_err() }
    };
    assert_eq!(with(|options| options.capacity = 0).await, StartError::NoCapacity);
    assert_eq!(with(|options| options.coordinators.clear()).await, StartError::NoCoordinator);
    let twice = with(|options| options.coordinators.push("127.0.0.1:1".into())).await;
    assert_eq!(twice, StartError::SameCoordinatorTwice("127.0.0.1:1".into()));
}

#[tokio::test]
async fn after_a_reconnect_the_worker_says_what_it_holds_and_repeats_what_was_not_answered() {
    let (options, begun) = asking();
    let (worker, mut coordinator, mut peer) = pair(options, terms()).await;
    let instance = peer.hello.instance.clone();
    assert_eq!((peer.hello.worker.as_str(), peer.hello.builtin, instance.len()), ("w1", true, 16));
    assert!(peer.hello.holding.is_empty());
    peer.assign(task(0), "desk.nothing", &json!({})).await;
    peer.output(task(0)).await;
    peer.assign(task(1), "desk.nothing", &json!({})).await;
    peer.output(task(1)).await;
    peer.acknowledge(task(1)).await;
    peer.assign(task(2), "desk.work", &json!({})).await;
    requested(&mut peer).await;
    drop(peer);

    let mut peer = coordinator.session().await;
    assert_eq!(peer.hello.instance, instance, "the same process");
    assert_eq!(peer.hello.holding, [task(0).to_proto(), task(2).to_proto()]);
    assert_eq!(peer.output(task(0)).await, json!({"done": true}), "sent until it is acknowledged");
    requested(&mut peer).await;
    peer.acknowledge(task(0)).await;
    // What is held is not begun again.
    peer.assign(task(2), "desk.work", &json!({})).await;
    answer(&peer, 2).await;
    assert_eq!(peer.output(task(2)).await, json!("answer"));
    peer.assign(task(2), "desk.work", &json!({})).await;
    assert_eq!(peer.output(task(2)).await, json!("answer"), "an ended one is reported again");
    assert_eq!(begun.load(Ordering::SeqCst), 1);
    peer.acknowledge(task(2)).await;
    peer.hears_nothing(Duration::from_millis(50)).await;
    assert_eq!(worker.held().await, 0);
}

#[tokio::test]
async fn a_coordinator_that_restarts_at_its_address_finds_its_tasks() {
    let (options, begun) = asking();
    let (_worker, coordinator, mut peer) = pair(options, terms()).await;
    peer.assign(task(0), "desk.work", &json!({})).await;
    requested(&mut peer).await;
    drop(peer);
    let address = coordinator.stop();
    tokio::task::yield_now().await;
    let mut again = terms();
    again.definitions = definitions(0, json!({}));
    let mut coordinator = Coordinator::start_at(&address, again).await;
    let mut peer = coordinator.session().await;
    assert_eq!(peer.hello.holding, [task(0).to_proto()]);
    requested(&mut peer).await;
    answer(&peer, 0).await;
    assert_eq!(peer.output(task(0)).await, json!("answer"));
    assert_eq!(begun.load(Ordering::SeqCst), 1);
    peer.assign(task(1), "other.nothing", &json!({})).await;
    assert_eq!(peer.output(task(1)).await, json!(0), "its definitions hold, though their revision is lower");
}

#[tokio::test]
async fn a_coordinator_that_is_silent_for_its_lease_loses_its_tasks_but_not_the_reports() {
    let (options, begun) = asking();
    let mut short = terms();
    (short.heartbeat_ms, short.lease_ms) = (50, 400);
    let (worker, mut coordinator, mut peer) = pair(options, short).await;
    peer.assign(task(0), "desk.nothing", &json!({})).await;
    peer.output(task(0)).await;
    peer.assign(task(1), "desk.work", &json!({})).await;
    requested(&mut peer).await;
    // Longer than the lease, but its heartbeats are answered.
    peer.hears_nothing(Duration::from_millis(800)).await;
    assert_eq!(worker.held().await, 2);
    peer.fall_silent();
    peer.closed().await;
    let mut peer = coordinator.session().await;
    assert_eq!(peer.hello.holding, [task(0).to_proto()], "what was under way is stopped");
    assert_eq!(peer.output(task(0)).await, json!({"done": true}));
    peer.assign(task(1), "desk.work", &json!({})).await;
    requested(&mut peer).await;
    assert_eq!(begun.load(Ordering::SeqCst), 2, "a lost task that is assigned anew begins anew");
}

#[tokio::test]
async fn a_coordinator_that_is_gone_for_its_lease_loses_its_tasks() {
    let (options, _) = asking();
    let mut short = terms();
    (short.heartbeat_ms, short.lease_ms) = (50, 400);
    let (worker, coordinator, mut peer) = pair(options, short).await;
    peer.assign(task(0), "desk.work", &json!({})).await;
    requested(&mut peer).await;
    drop(peer);
    drop(coordinator.stop());
    let lost = async {
        while worker.held().await > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(3), lost).await.expect("its task is stopped");
}

#[tokio::test]
async fn terms_that_cannot_be_kept_are_not_accepted() {
    let (options, _) = asking();
    let mut bad = terms();
    (bad.heartbeat_ms, bad.lease_ms) = (100, 200);
    let mut coordinator = Coordinator::start(bad).await;
    let _worker = start(options, &[&coordinator]).await;
    coordinator.session().await.closed().await;
    coordinator.session().await.closed().await;
}

#[tokio::test]
async fn a_task_belongs_to_the_coordinator_that_assigned_it_last() {
    let (options, begun) = asking();
    let mut first = Coordinator::start(terms()).await;
    let mut second = Coordinator::start(terms()).await;
    let _worker = start(options, &[&first, &second]).await;
    let (mut one, mut two) = (first.session().await, second.session().await);
    one.assign(task(0), "desk.work", &json!({})).await;
    requested(&mut one).await;
    two.assign(task(1), "other.nothing", &json!({})).await;
    assert_eq!(two.output(task(1)).await, json!(1));
    // Its shard moved: the second asks for the same attempt.
    two.assign(task(0), "desk.work", &json!({})).await;
    requested(&mut two).await;
    answer(&two, 0).await;
    assert_eq!(two.output(task(0)).await, json!("answer"));
    assert_eq!(begun.load(Ordering::SeqCst), 1);
    one.hears_nothing(Duration::from_millis(50)).await;
    drop(one);
    assert!(first.session().await.hello.holding.is_empty());
}

/// Claims the shard of all tasks; the tasks that the worker says it holds.
async fn claim(peer: &mut Peer, epoch: u64) -> Vec<TaskKey> {
    let claims = [ShardClaim { shard: ShardId(1), epoch: Epoch(epoch) }];
    peer.say(Said::Claim(claim_to(&claims))).await;
    let Kind::Holding(holding) = peer.next().await else { panic!("a claim is answered first") };
    assert_eq!(holding.shards, [1]);
    holding.tasks.iter().map(|task| TaskKey::from_proto(Some(task)).unwrap()).collect()
}

#[tokio::test]
async fn a_task_goes_on_under_the_coordinator_that_claims_its_shard() {
    let (options, begun) = asking();
    let mut short = terms();
    (short.heartbeat_ms, short.lease_ms) = (50, 400);
    let mut first = Coordinator::start(short).await;
    let mut second = Coordinator::start(terms()).await;
    let worker = start(options, &[&first, &second]).await;
    let (mut one, mut two) = (first.session().await, second.session().await);
    assert_eq!(claim(&mut one, 5).await, []);
    let under = |at, skill: &str| {
        Said::Assignment(kapell_proto::v1::Assignment { epoch: 5, ..assignment(task(at), skill, &json!({})) })
    };
    one.say(under(0, "desk.nothing")).await;
    one.output(task(0)).await;
    one.say(under(1, "desk.work")).await;
    requested(&mut one).await;

    assert_eq!(claim(&mut two, 6).await, [task(0), task(1)]);
    assert_eq!(two.output(task(0)).await, json!({"done": true}), "what has ended is reported again");
    requested(&mut two).await;
    // The first does not know yet.
    one.say_all([under(2, "desk.work"), Said::Cancel(task(1).to_proto())]).await;
    answer(&one, 1).await;
    one.hears_nothing(Duration::from_millis(50)).await;
    // It dies, and its lease with it.
    one.fall_silent();
    one.closed().await;
    let mut one = first.session().await;
    assert_eq!(one.hello.holding, []);
    one.hears_nothing(Duration::from_millis(50)).await;

    assert_eq!(worker.held().await, 2);
    answer(&two, 1).await;
    assert_eq!(two.output(task(1)).await, json!("answer"));
    two.acknowledge(task(0)).await;
    two.acknowledge(task(1)).await;
    two.hears_nothing(Duration::from_millis(50)).await;
    assert_eq!((worker.held().await, begun.load(Ordering::SeqCst)), (0, 1));
}
