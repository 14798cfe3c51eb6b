use futures::StreamExt as _;
use kapell_kernel::{Attempt, Dispatch, UnitId};
use kapell_model::plan::StepIndex;
use kapell_model::{Name, RunId, ShardCount, ShardId, Timestamp};
use kapell_wire::DefinitionRecord;
use tokio::sync::oneshot;

use super::*;
use crate::dispatch::WorkerIntro;
use crate::session::Outlet;
use crate::shard::{Origin, WorkOrder};

fn submit(run: u128) -> DispatchMessage {
    let work = Dispatch {
        unit: UnitId::step(StepIndex(0)),
        attempt: Attempt(1),
        skill: "clerk.noop".into(),
        input: Json::null(),
        checkpoints: vec![],
        deadline: Timestamp(0),
    };
    let run = RunId::new(ShardId(0), run);
    let order = WorkOrder { run, namespace: Name::default_namespace(), work, origin: Origin::New };
    DispatchMessage::Submit { tasks: vec![order], canceled: vec![] }
}

fn kinds(frame: Option<Result<v1::CoordinatorFrame, tonic::Status>>) -> Vec<&'static str> {
    let messages = frame.unwrap().unwrap().messages;
    let kind = |message: v1::CoordinatorMessage| match message.kind {
        Some(Kind::Definitions(_)) => "definitions",
        Some(Kind::Assignment(_)) => "assignment",
        Some(
            Kind::Welcome(_)
            | Kind::ToolResult(_)
            | Kind::CheckpointAck(_)
            | Kind::ReportAck(_)
            | Kind::Cancel(_)
            | Kind::Heartbeat(_),
        )
        | None => "something else",
    };
    messages.into_iter().map(kind).collect()
}

#[tokio::test]
async fn an_assignment_never_overtakes_the_definitions_that_it_was_decided_under() {
    let definitions = Arc::new(Definitions::default());
    let args = DispatcherArguments {
        links: Arc::new(Links::new(ShardCount::default(), 16)),
        definitions: definitions.clone(),
        runtime: Runtime::system(),
        lease: Duration::from_secs(60),
    };
    let (desk, _) = Actor::spawn(None, Dispatcher, args).await.unwrap();
    let (to, mut from) = Outlet::new(8);
    let intro = WorkerIntro {
        name: "w".to_owned(),
        instance: vec![1],
        capacity: 9,
        builtin: true,
        skills: vec![],
        holding: vec![],
        revision: 0,
        to,
    };
    let (reply, joined) = oneshot::channel();
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
