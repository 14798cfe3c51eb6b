//! Tasks: how each kind of skill is worked on.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kapell_model::Json;
use kapell_model::limits::PAYLOAD_BYTES_MAX;
use kapell_proto::v1::coordinator_message::Kind as Said;
use kapell_proto::v1::worker_message::Kind;
use kapell_proto::v1::{CheckpointAck, ToolRequest, ToolResult, tool_result};
use kapell_wire::task::{TaskKey, error_to};
use kapell_worker::{
    Agent, CallError, CheckpointError, Drained, ErrorClass, TaskContext, TaskError, WorkerOptions, limits,
};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::support::{Peer, SOON, assignment, definitions, pair, task, terms};

fn options() -> WorkerOptions {
    WorkerOptions::new("w1")
}

async fn tool_request(peer: &mut Peer) -> ToolRequest {
    match peer.next().await {
        Kind::Tool(request) => request,
        other => panic!("no tool request but {other:?}"),
    }
}

async fn answer(peer: &Peer, task: TaskKey, no: u32, result: Result<&str, TaskError>) {
    let result = match result {
        Ok(output) => tool_result::Result::Output(output.to_owned()),
        Err(error) => tool_result::Result::Error(error_to(&error)),
    };
    peer.say(Said::ToolResult(ToolResult { task: Some(task.to_proto()), no, result: Some(result) })).await;
}

#[tokio::test]
async fn rules_give_the_output_of_the_first_row_that_holds() {
    let (_worker, _coordinator, mut peer) = pair(options(), terms()).await;
    peer.assign(task(0), "desk.nothing", &json!({})).await;
    assert_eq!(peer.output(task(0)).await, json!({"done": true}));
    peer.assign(task(1), "desk.double", &json!({"n": 21})).await;
    assert_eq!(peer.output(task(1)).await, json!({"twice": 42}));
    peer.assign(task(2), "desk.double", &json!({"n": 0})).await;
    assert_eq!(peer.error(task(2)).await.class, ErrorClass::Expression);
    let mut broken = assignment(task(3), "desk.double", &json!({}));
    broken.input = "{".into();
    peer.say(Said::Assignment(broken)).await;
    assert_eq!(peer.error(task(3)).await.class, ErrorClass::BadRequest);
}

#[tokio::test]
async fn a_call_maps_its_input_and_the_result_or_passes_them_on() {
    let (_worker, _coordinator, mut peer) = pair(options(), terms()).await;
    peer.assign(task(0), "desk.mapped", &json!({"sku": "s1"})).await;
    let request = tool_request(&mut peer).await;
    assert_eq!(
        (request.no, request.tool.as_str(), request.args.as_str()),
        (0, "north/read", r#"{"id":"s1"}"#)
    );
    answer(&peer, task(0), 0, Ok(r#"{"price":3,"more":1}"#)).await;
    assert_eq!(peer.output(task(0)).await, json!({"price": 3}));

    peer.assign(task(1), "desk.lookup", &json!({"sku": "s2"})).await;
    assert_eq!(tool_request(&mut peer).await.args, r#"{"sku":"s2"}"#);
    answer(&peer, task(1), 0, Err(TaskError::new(ErrorClass::RateLimited, "slow down"))).await;
    assert_eq!(peer.error(task(1)).await, TaskError::new(ErrorClass::RateLimited, "slow down"));

    peer.assign(task(2), "desk.mapped", &json!({})).await;
    assert_eq!(peer.error(task(2)).await.class, ErrorClass::Expression, "no tool is called");
    peer.assign(task(3), "desk.mapped", &json!({"sku": 1})).await;
    tool_request(&mut peer).await;
    answer(&peer, task(3), 0, Ok("{")).await;
    assert_eq!(peer.error(task(3)).await.class, ErrorClass::ContractBroken);
}

#[tokio::test]
async fn what_nobody_here_works_on_is_answered_with_the_reason() {
    let (_worker, _coordinator, mut peer) = pair(options(), terms()).await;
    for (at, skill) in [(0, "desk.unknown"), (1, "desk.absent")] {
        peer.assign(task(at), skill, &json!({})).await;
        let error = peer.error(task(at)).await;
        assert_eq!(error.class, ErrorClass::NoSpecialist);
        assert!(error.message.contains(skill), "{error}");
    }
}

/// Calls two tools, keeps a checkpoint between them, and goes on behind what an earlier attempt kept.
struct Careful;

impl Agent for Careful {
    async fn run(&self, task: TaskContext) -> Result<Json, TaskError> {
        let first = match task.checkpoints() {
            [] => {
                let first = task.call_tool("north/read", &Json::of(&json!({"page": 1}))).await?;
                task.checkpoint(&first).await?;
                first
            }
            [kept, ..] => {
                task.skip_calls_to(1);
                kept.clone()
            }
        };
        let second = task.call_tool("north/read", &Json::of(&json!({"page": 2}))).await?;
        Ok(Json::list([&first, &second, task.input()]))
    }
}

#[tokio::test]
async fn an_agent_numbers_its_calls_keeps_a_checkpoint_and_is_resumed_behind_it() {
    let options = options().with_agent("retail/desk.work", Careful).unwrap();
    let (_worker, _coordinator, mut peer) = pair(options, terms()).await;
    assert_eq!(peer.hello.skills, ["retail/desk.work"]);
    peer.assign(task(0), "desk.work", &json!("in")).await;
    let request = tool_request(&mut peer).await;
    assert_eq!((request.no, request.args.as_str()), (0, r#"{"page":1}"#));
    answer(&peer, task(0), 0, Ok("11")).await;
    let Kind::Checkpoint(checkpoint) = peer.next().await else { panic!("no checkpoint") };
    assert_eq!((checkpoint.position, checkpoint.data.as_str()), (0, "11"));
    peer.hears_nothing(Duration::from_millis(100)).await;
    peer.say(Said::CheckpointAck(CheckpointAck { task: Some(task(0).to_proto()), position: 0 })).await;
    assert_eq!(tool_request(&mut peer).await.no, 1);
    answer(&peer, task(0), 1, Ok("22")).await;
    assert_eq!(peer.output(task(0)).await, json!([11, 22, "in"]));

    let mut resumed = assignment(task(1), "desk.work", &json!("again"));
    resumed.checkpoints = vec!["11".into()];
    peer.say(Said::Assignment(resumed)).await;
    let request = tool_request(&mut peer).await;
    assert_eq!((request.no, request.args.as_str()), (1, r#"{"page":2}"#), "the first call is not repeated");
    answer(&peer, task(1), 1, Ok("22")).await;
    assert_eq!(peer.output(task(1)).await, json!([11, 22, "again"]));
}

/// Does more than a task may.
struct Flooding;

impl Agent for Flooding {
    async fn run(&self, task: TaskContext) -> Result<Json, TaskError> {
        let null = Json::null();
        let many = (0..=limits::CALLS_AT_ONCE_MAX).map(|_| task.call_tool("north/read", &null));
        let results = futures::future::join_all(many).await;
        let refused = results.iter().filter(|result| **result == Err(CallError::TooManyAtOnce)).count();
        let large = Json::string(&"x".repeat(PAYLOAD_BYTES_MAX));
        assert!(matches!(task.call_tool("north/read", &large).await, Err(CallError::TooLarge { .. })));
        assert!(matches!(task.call_tool("nonsense", &null).await, Err(CallError::NotATool(_))));
        assert!(matches!(task.checkpoint(&large).await, Err(CheckpointError::TooLarge { .. })));
        let mut kept = 0;
        let stopped = loop {
            match task.checkpoint(&null).await {
                Ok(()) => kept += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(stopped, CheckpointError::TooMany);
        Ok(Json::of(&json!({"refused": refused, "kept": kept, "calls": task.next_call()})))
    }
}

#[tokio::test]
async fn a_flood_of_calls_and_checkpoints_is_refused_by_type() {
    let options = options().with_agent("retail/desk.work", Flooding).unwrap();
    let (_worker, _coordinator, mut peer) = pair(options, terms()).await;
    peer.assign(task(0), "desk.work", &json!({})).await;
    for number in 0..limits::CALLS_AT_ONCE_MAX {
        assert_eq!(tool_request(&mut peer).await.no, number);
        answer(&peer, task(0), number, Ok("null")).await;
    }
    for position in 0..limits::CHECKPOINTS_PER_TASK_MAX {
        let Kind::Checkpoint(checkpoint) = peer.next().await else { panic!("no checkpoint") };
        assert_eq!(checkpoint.position, position);
        peer.say(Said::CheckpointAck(CheckpointAck { task: Some(task(0).to_proto()), position })).await;
    }
    let most = limits::CALLS_AT_ONCE_MAX;
    assert_eq!(peer.output(task(0)).await, json!({"refused": 1, "kept": 1000, "calls": most}));
}

/// Counts how many of it run at once; each waits for a permit.
struct Gated {
    running: AtomicUsize,
    most: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
}

impl Agent for Gated {
    async fn run(&self, _: TaskContext) -> Result<Json, TaskError> {
        let now = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        self.running.fetch_sub(1, Ordering::SeqCst);
        Ok(Json::null())
    }
}

fn gated() -> (Gated, Arc<AtomicUsize>, Arc<Semaphore>) {
    let (most, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let agent = Gated { running: AtomicUsize::new(0), most: Arc::clone(&most), gate: Arc::clone(&gate) };
    (agent, most, gate)
}

async fn reaches(counter: &AtomicUsize, wanted: usize) {
    let reach = async {
        while counter.load(Ordering::SeqCst) < wanted {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, reach).await.expect("so many at once");
}

#[tokio::test]
async fn a_specialist_works_on_as_many_tasks_at_once_as_its_limit_says() {
    let (agent, most, gate) = gated();
    let mut terms = terms();
    terms.definitions = definitions(1, json!({"concurrency": 3}));
    let (_worker, _coordinator, mut peer) =
        pair(options().with_agent("retail/desk.work", agent).unwrap(), terms).await;
    for at in 0..20 {
        peer.assign(task(at), "desk.work", &json!({})).await;
    }
    // Others are not held up by those that wait.
    peer.assign(task(100), "other.nothing", &json!({})).await;
    assert_eq!(peer.output(task(100)).await, json!(1));
    reaches(&most, 3).await;
    peer.hears_nothing(Duration::from_millis(100)).await;
    gate.add_permits(20);
    for _ in 0..20 {
        peer.report().await;
    }
    assert_eq!(most.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn changed_definitions_hold_for_the_next_task_and_raise_the_limit_of_waiting_ones() {
    let (agent, most, gate) = gated();
    let mut terms = terms();
    terms.definitions = definitions(1, json!({"concurrency": 1}));
    let (_worker, _coordinator, mut peer) =
        pair(options().with_agent("retail/desk.work", agent).unwrap(), terms).await;
    for at in 0..4 {
        peer.assign(task(at), "desk.work", &json!({})).await;
    }
    reaches(&most, 1).await;
    let next = Said::Assignment(assignment(task(50), "other.nothing", &json!({})));
    peer.say_all([Said::Definitions(definitions(2, json!({"concurrency": 4}))), next]).await;
    assert_eq!(peer.output(task(50)).await, json!(2), "the new table answers");
    reaches(&most, 4).await;
    let mut broken = definitions(3, json!({}));
    broken.documents.push("{\"kind\":\"Unknown\"}".into());
    peer.say(Said::Definitions(broken)).await;
    peer.assign(task(51), "other.nothing", &json!({})).await;
    assert_eq!(peer.output(task(51)).await, json!(2), "unusable definitions change nothing");
    gate.add_permits(4);
}

#[tokio::test]
async fn more_tasks_than_the_worker_takes_are_refused_by_type() {
    let (agent, most, gate) = gated();
    let mut options = options().with_agent("retail/desk.work", agent).unwrap();
    options.capacity = 2;
    let (worker, _coordinator, mut peer) = pair(options, terms()).await;
    assert_eq!(peer.hello.capacity, 2);
    for at in 0..3 {
        peer.assign(task(at), "desk.work", &json!({})).await;
    }
    assert_eq!(peer.error(task(2)).await.class, ErrorClass::Unavailable);
    reaches(&most, 2).await;
    assert_eq!(worker.held().await, 2, "a refused task is not held");
    gate.add_permits(2);
    peer.report().await;
    peer.report().await;
    peer.assign(task(3), "desk.nothing", &json!({})).await;
    assert_eq!(
        peer.output(task(3)).await,
        json!({"done": true}),
        "room again, though nothing is acknowledged"
    );
}

#[tokio::test]
async fn draining_ends_what_is_held_and_takes_nothing_new() {
    let (agent, most, gate) = gated();
    let (worker, _coordinator, mut peer) =
        pair(options().with_agent("retail/desk.work", agent).unwrap(), terms()).await;
    peer.assign(task(0), "desk.work", &json!({})).await;
    reaches(&most, 1).await;
    assert_eq!(worker.drain(Duration::from_millis(50)).await, Drained::Held { tasks: 1 });
    assert!(matches!(peer.next().await, Kind::Draining(_)));
    peer.assign(task(1), "desk.nothing", &json!({})).await;
    assert_eq!(peer.error(task(1)).await.class, ErrorClass::Unavailable);
    gate.add_permits(1);
    peer.output(task(0)).await;
    assert_eq!(worker.drain(Duration::from_millis(50)).await, Drained::Held { tasks: 1 }, "not acknowledged");
    peer.acknowledge(task(0)).await;
    assert_eq!(worker.drain(SOON).await, Drained::Clean);
    worker.stop().await;
    peer.closed().await;
}

#[tokio::test]
async fn an_assignment_finds_the_definitions_that_come_with_it_or_right_before_it() {
    let mut terms = terms();
    terms.definitions = kapell_proto::v1::Definitions::default();
    let (_worker, _coordinator, mut peer) = pair(options(), terms.clone()).await;
    let assigned = |at| Said::Assignment(assignment(task(at), "other.nothing", &json!({})));
    peer.say_all([assigned(1), Said::Definitions(definitions(1, json!({})))]).await;
    assert_eq!(peer.output(task(1)).await, json!(1), "in one frame the order does not matter");

    let (_worker, _coordinator, mut peer) = pair(options(), terms).await;
    peer.say(Said::Definitions(definitions(1, json!({})))).await;
    peer.say(assigned(2)).await;
    assert_eq!(peer.output(task(2)).await, json!(1), "nothing is begun while definitions are compiled");
}
