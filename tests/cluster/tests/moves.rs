//! Tasks and calls that are under way while their shard moves: they go on, are done once, and other work hardly waits.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::{BoxFuture, join, join_all};
use kapell_client::v1::RunState;
use kapell_connector::{CallOutcome, Connector, ConnectorHandle, ConnectorOptions, Outside, OutsideRequest};
use kapell_model::{Json, ShardId};
use kapell_runtime::Runtime;
use kapell_tests_cluster::{Node, Site, TTL, shard_of, worker_with};
use kapell_worker::{Agent, TaskContext, TaskError, WorkerHandle, WorkerOptions};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

const DEFINITIONS: &str = r#"
apiVersion: kapell.dev/v1
kind: Connector
metadata: { name: bank }
spec:
  protocol: http
  tools:
    - { name: post, effect: write, timeout: 60s, http: { method: POST, path: /postings } }
---
apiVersion: kapell.dev/v1
kind: Connection
metadata: { name: bank }
spec: { connector: bank, endpoint: "http://bank.example", limits: { concurrency: 48 } }
---
apiVersion: kapell.dev/v1
kind: Specialist
metadata: { name: clerk }
spec:
  skills:
    - name: clerk.long
      remote: {}
    - name: clerk.short
      rules: { rows: [{ then: { done: true } }] }
    - name: clerk.post
      effect: write
      call: { tool: bank/post }
---
apiVersion: kapell.dev/v1
kind: Workflow
metadata: { name: long }
spec:
  key: "event.data.key"
  steps: [{ id: one, skill: clerk.long }]
---
apiVersion: kapell.dev/v1
kind: Workflow
metadata: { name: short }
spec:
  key: "event.data.key"
  steps: [{ id: one, skill: clerk.short }]
---
apiVersion: kapell.dev/v1
kind: Workflow
metadata: { name: post }
spec:
  key: "event.data.key"
  steps: [{ id: one, skill: clerk.post }]
"#;

/// Of workers and connectors. Longer than it takes to notice that a node hangs and to load its shards elsewhere: else a
/// worker stops what it does for that node before another claims it.
const LEASE: Duration = Duration::from_secs(6);
/// Keys of runs that are under way while shards move: enough that every shard has some.
const LONG: u32 = 48;
/// Keys of the short runs begin here: runs of one key are done one after another.
const SHORT: u32 = 1_000;
/// Shards whose short runs are timed.
const TIMED: usize = 4;

/// Work that goes on until it is let go.
struct Gate {
    begun: AtomicUsize,
    may_end: Semaphore,
}

impl Gate {
    fn new() -> Arc<Gate> {
        Arc::new(Gate { begun: AtomicUsize::new(0), may_end: Semaphore::new(0) })
    }

    async fn pass(&self) {
        self.begun.fetch_add(1, Ordering::SeqCst);
        assert!(self.may_end.acquire().await.is_err(), "no permit is given: it is closed");
    }

    fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    async fn has_begun(&self, count: u32) {
        let since = Instant::now();
        while self.begun() < count as usize {
            assert!(since.elapsed() < LEASE * 5, "only {} have begun", self.begun());
            // why: nothing tells that an agent or a call has begun
            sleep(Duration::from_millis(20)).await;
        }
    }
}

struct Long(Arc<Gate>);

impl Agent for Long {
    async fn run(&self, _: TaskContext) -> Result<Json, TaskError> {
        self.0.pass().await;
        Ok(Json::null())
    }
}

struct Bank(Arc<Gate>);

impl Outside for Bank {
    fn call(&self, request: OutsideRequest) -> BoxFuture<'_, CallOutcome> {
        Box::pin(async move {
            assert!(request.fence.pass());
            self.0.pass().await;
            CallOutcome::succeeded(json!({ "posted": true }))
        })
    }
}

/// What is under way while the shards of one node move to another.
struct Moving {
    /// Where they move to.
    to: Node,
    gate: Arc<Gate>,
    shards: Vec<ShardId>,
    runs: Vec<String>,
    _site: Site,
    _worker: WorkerHandle,
    _connector: ConnectorHandle,
}

impl Moving {
    /// Runs of a workflow are under way in every shard; with the node whose shards are to move.
    async fn begin(workflow: &str) -> Option<(Node, Moving)> {
        let site = Site::new()?.with_lease(LEASE);
        let (a, b) = tokio::join!(site.node("a"), site.node("b"));
        a.owners(&[&a, &b]).await;
        a.apply(DEFINITIONS).await;
        b.knows(1).await;
        let gate = Gate::new();
        let options = WorkerOptions::new("worker").with_agent("default/clerk.long", Long(gate.clone()));
        let worker = worker_with(options.unwrap(), &[&a, &b]).await;
        let options = ConnectorOptions {
            name: "connector".to_owned(),
            coordinators: vec![a.address.clone(), b.address.clone()],
            capacity: LONG,
        };
        let connector = Connector::start(options, Runtime::system(), Arc::new(Bank(gate.clone())));
        let runs = join_all((0..LONG).map(|key| b.start(workflow, key))).await;
        gate.has_begun(LONG).await;
        let shards: Vec<ShardId> = a.shards_of(&a).await.into_iter().collect();
        assert!((0..LONG).any(|key| shards.contains(&shard_of(key))), "something is under way in what moves");
        let moving =
            Moving { to: b, gate, shards, runs, _site: site, _worker: worker, _connector: connector };
        Some((a, moving))
    }

    /// Waits until the shards have moved for longer than a lease ago. What nobody is known to hold is given up by then.
    async fn settle(&self) {
        self.to.owners(&[&self.to]).await;
        // why: that nothing happens can only be waited for
        sleep(LEASE + Duration::from_secs(1)).await;
    }

    /// Nothing was begun again, and all of it ends where it is now.
    async fn end(&self) {
        assert_eq!(self.gate.begun(), LONG as usize, "nothing was done twice");
        self.gate.may_end.close();
        for run in &self.runs {
            self.to.reaches(run, RunState::Completed).await;
        }
        assert_eq!(self.gate.begun(), LONG as usize);
        self.to.is_well().await;
    }
}

/// Short runs of one key, one after another; how long the slowest took.
async fn slowest(node: &Node, key: u32, over: &AtomicBool) -> Duration {
    let (mut slowest, mut no) = (Duration::ZERO, 0);
    while !over.load(Ordering::SeqCst) {
        let since = Instant::now();
        let run = node.start_again("short", key, no).await;
        node.reaches(&run, RunState::Completed).await;
        slowest = slowest.max(since.elapsed());
        no += 1;
    }
    assert!(no > 1, "some were done");
    slowest
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_go_on_when_their_shards_are_handed_over_and_other_work_hardly_waits() {
    let Some((from, moving)) = Moving::begin("long").await else { return };
    let key_in = |shard: &ShardId| (SHORT..).find(|key| shard_of(*key) == *shard).unwrap();
    let keys: Vec<u32> = moving.shards.iter().take(TIMED).map(key_in).collect();
    let over = AtomicBool::new(false);
    let timed = join_all(keys.iter().map(|key| slowest(&moving.to, *key, &over)));
    let (timed, ()) = join(timed, async {
        // why: some short runs are to come before
        sleep(Duration::from_secs(1)).await;
        let since = Instant::now();
        from.leave().await;
        println!("handed over within {:?}", since.elapsed());
        moving.settle().await;
        over.store(true, Ordering::SeqCst);
    })
    .await;
    println!("the slowest short run in each of {} shards that moved: {timed:?}", keys.len());
    assert!(timed.iter().all(|slowest| *slowest < Duration::from_secs(2)), "{timed:?}");
    moving.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_go_on_when_their_node_hangs_and_another_takes_its_shards_over() {
    let Some((from, moving)) = Moving::begin("long").await else { return };
    let since = Instant::now();
    let _hanging = from.hang();
    moving.to.owners(&[&moving.to]).await;
    println!("taken over after {:?}; the lease of a node is {TTL:?}", since.elapsed());
    moving.settle().await;
    moving.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_on_when_their_shards_are_handed_over() {
    let Some((from, moving)) = Moving::begin("post").await else { return };
    from.leave().await;
    moving.settle().await;
    moving.end().await;
}
