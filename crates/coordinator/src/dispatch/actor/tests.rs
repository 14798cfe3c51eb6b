use futures::StreamExt as _;
use kapell_kernel::{Attempt, Dispatch, UnitId};
use kapell_model::plan::StepIndex;
use kapell_model::{Epoch, Name, RunId, ShardCount, ShardId, Timestamp};
use kapell_wire::DefinitionRecord;
use tokio::sync::oneshot;

use super::*;
use crate::dispatch::WorkerIntro;
use crate::session::Outlet;
use crate::shard::{Origin, WorkOrder};

fn key(run: u128) -> TaskKey {
    TaskKey { run: RunId::new(ShardId(0), run), unit: UnitId::step(StepIndex(0)), attempt: Attempt(1) }
}

fn submit(run: u128) -> DispatchMessage {
    submit_after(vec![], run)
}

fn submit_after(settled: Vec<Settled>, run: u128) -> DispatchMessage {
    let key = key(run);
    let work = Dispatch {
        unit: key.unit,
        attempt: key.attempt,
        skill: "clerk.noop".into(),
        input: Json::null(),
        checkpoints: vec![],
        deadline: Timestamp(0),
    };
    let order = WorkOrder { run: key.run, namespace: Name::default_namespace(), work, origin: Origin::New };
    DispatchMessage::Submit { settled, tasks: vec![order], canceled: vec![] }
}

fn kinds(frame: Option<Result<v1::CoordinatorFrame, tonic::Status>>) -> Vec<&'static str> {
    let messages = frame.unwrap().unwrap().messages;
    let kind = |message: v1::CoordinatorMessage| match message.kind {
        Some(Kind::Definitions(_)) => "definitions",
        Some(Kind::Assignment(_)) => "assignment",
        Some(Kind::Claim(_)) => "claim",
        Some(Kind::Disowned(_)) => "disowned",
        Some(Kind::ReportAck(_)) => "acknowledged",
        Some(
            Kind::Welcome(_)
            | Kind::ToolResult(_)
            | Kind::CheckpointAck(_)
            | Kind::Cancel(_)
            | Kind::Heartbeat(_),
        )
        | None => "something else",
    };
    messages.into_iter().map(kind).collect()
}

async fn dispatcher(definitions: &Arc<Definitions>) -> ActorRef<DispatchMessage> {
    let args = DispatcherArguments {
        links: Arc::new(Links::new(ShardCount::default(), 16)),
        definitions: definitions.clone(),
        runtime: Runtime::system(),
        lease: Duration::from_secs(60),
    };
    Actor::spawn(None, Dispatcher, args).await.unwrap().0
}

fn intro(claims: bool, to: Outlet<v1::CoordinatorFrame>) -> WorkerIntro {
    WorkerIntro {
        name: "w".to_owned(),
        instance: vec![1],
        capacity: 9,
        builtin: true,
        skills: vec![],
        holding: vec![],
        claims,
        revision: 0,
        to,
    }
}

#[tokio::test]
async fn an_assignment_never_overtakes_the_definitions_that_it_was_decided_under() {
    let definitions = Arc::new(Definitions::default());
    let desk = dispatcher(&definitions).await;
    let (to, mut from) = Outlet::new(8);
    let intro = intro(false, to);
    let (reply, joined) = oneshot::channel();
    desk.cast(DispatchMessage::Own(ShardId(0), Epoch(1))).unwrap();
    desk.cast(DispatchMessage::Join(intro, reply)).unwrap();
    let session = joined.await.unwrap().session;

    let document = Json::of(&serde_json::json!({
        "apiVersion": "kapell.dev/v1", "kind": "Specialist", "metadata": { "name": "clerk" },
        "spec": { "skills": [{ "name": "clerk.noop", "rules": { "rows": [{ "then": {} }] } }] },
    }));
    // The worker's stream has not seen the change: it is busy, and a run that began at once is faster.
    definitions
        .apply(&[DefinitionRecord { document, removed: false, revision: 1, at: Timestamp(0) }])
        .unwrap();
    desk.cast(submit(1)).unwrap();
    assert_eq!(kinds(from.next().await), ["definitions", "assignment"]);
    desk.cast(DispatchMessage::Define(session)).unwrap();
    desk.cast(submit(2)).unwrap();
    assert_eq!(kinds(from.next().await), ["assignment"], "they are sent once");

    definitions
        .apply(&[DefinitionRecord { document: Json::null(), removed: true, revision: 2, at: Timestamp(0) }])
        .unwrap();
    desk.cast(DispatchMessage::Define(session)).unwrap();
    assert_eq!(kinds(from.next().await), ["definitions"], "also when nothing is assigned");
    desk.stop(None);
}

#[tokio::test]
async fn a_worker_hears_of_a_shard_before_its_tasks_and_of_its_leaving_after_them() {
    let desk = dispatcher(&Arc::default()).await;
    let (to, mut from) = Outlet::new(8);
    let (reply, joined) = oneshot::channel();
    desk.cast(DispatchMessage::Join(intro(true, to), reply)).unwrap();
    let session = joined.await.unwrap().session;
    assert_eq!(kinds(from.next().await), ["claim"]);
    desk.cast(DispatchMessage::Own(ShardId(0), Epoch(6))).unwrap();
    assert_eq!(kinds(from.next().await), ["claim"]);
    desk.cast(submit(1)).unwrap();
    assert_eq!(kinds(from.next().await), ["assignment"]);
    desk.cast(DispatchMessage::Forget(vec![key(1)])).unwrap();
    desk.cast(DispatchMessage::Disown(ShardId(0))).unwrap();
    assert_eq!(kinds(from.next().await), ["disowned"], "what was forgotten is not canceled");
    // Late: the shard is somebody else's.
    desk.cast(DispatchMessage::Holding(session, vec![], vec![key(1)])).unwrap();
    desk.cast(DispatchMessage::Own(ShardId(1), Epoch(7))).unwrap();
    assert_eq!(kinds(from.next().await), ["claim"], "and nothing in between");
    desk.stop(None);
}

#[tokio::test]
async fn an_acknowledgement_leaves_in_one_frame_with_the_next_task() {
    let desk = dispatcher(&Arc::default()).await;
    let (to, mut from) = Outlet::new(8);
    let (reply, joined) = oneshot::channel();
    desk.cast(DispatchMessage::Own(ShardId(0), Epoch(1))).unwrap();
    desk.cast(DispatchMessage::Join(intro(false, to), reply)).unwrap();
    let session = joined.await.unwrap().session;
    desk.cast(submit(1)).unwrap();
    assert_eq!(kinds(from.next().await), ["assignment"]);
    desk.cast(DispatchMessage::Finished(session, vec![key(1)])).unwrap();
    desk.cast(submit_after(vec![Settled { session, keys: vec![key(1)] }], 2)).unwrap();
    assert_eq!(kinds(from.next().await), ["acknowledged", "assignment"]);
    desk.stop(None);
}
