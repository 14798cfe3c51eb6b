use futures::StreamExt as _;
use kapell_kernel::{Attempt, CallNo, UnitId};
use kapell_model::plan::StepIndex;
use kapell_model::{Epoch, Name, RunId, ShardCount, ShardId, Timestamp};
use kapell_wire::DefinitionRecord;
use kapell_wire::task::TaskKey;
use tokio::sync::oneshot;

use super::*;
use crate::calls::{ConnectorIntro, Read};
use crate::session::Outlet;

fn kinds(frame: Option<Result<v1::CallFrame, tonic::Status>>) -> Vec<&'static str> {
    let messages = frame.unwrap().unwrap().messages;
    let kind = |message: v1::CallMessage| match message.kind {
        Some(Kind::Definitions(_)) => "definitions",
        Some(Kind::Call(_)) => "call",
        Some(Kind::Claim(_)) => "claim",
        Some(Kind::Welcome(_) | Kind::ReportAck(_) | Kind::Heartbeat(_)) | None => "something else",
    };
    messages.into_iter().map(kind).collect()
}

fn read() -> CallMessage {
    let task =
        TaskKey { run: RunId::new(ShardId(0), 1), unit: UnitId::step(StepIndex(0)), attempt: Attempt(1) };
    CallMessage::Read(Read {
        task,
        no: CallNo(0),
        namespace: Name::default_namespace(),
        tool: "bank/look".parse().unwrap(),
        args: Json::null(),
        timeout: Duration::from_secs(60),
    })
}

async fn call_desk(definitions: &Arc<Definitions>) -> ActorRef<CallMessage> {
    let args = CallDeskArguments {
        links: Arc::new(Links::new(ShardCount::default(), 16)),
        definitions: definitions.clone(),
        lease: Duration::from_secs(60),
    };
    Actor::spawn(None, CallDesk, args).await.unwrap().0
}

fn intro(claims: bool, to: Outlet<v1::CallFrame>) -> ConnectorIntro {
    let (name, instance) = ("c".to_owned(), vec![1]);
    ConnectorIntro { name, instance, capacity: 9, holding: vec![], claims, revision: 0, to }
}

#[tokio::test]
async fn a_call_never_overtakes_the_definitions_that_it_was_decided_under() {
    let definitions = Arc::new(Definitions::default());
    let desk = call_desk(&definitions).await;
    let (to, mut from) = Outlet::new(8);
    let intro = intro(false, to);
    let (reply, joined) = oneshot::channel();
    desk.cast(CallMessage::Join(intro, reply)).unwrap();
    let session = joined.await.unwrap();

    let document = Json::of(&serde_json::json!({
        "apiVersion": "kapell.dev/v1", "kind": "Connector", "metadata": { "name": "bank" },
        "spec": { "protocol": "http", "tools": [{ "name": "look", "http": { "method": "GET", "path": "/" } }] },
    }));
    definitions
        .apply(&[DefinitionRecord { document, removed: false, revision: 1, at: Timestamp(0) }])
        .unwrap();
    desk.cast(read()).unwrap();
    assert_eq!(kinds(from.next().await), ["definitions", "call"]);
    desk.cast(CallMessage::Define(session)).unwrap();
    desk.cast(read()).unwrap();
    assert_eq!(kinds(from.next().await), ["call"], "they are sent once");

    definitions
        .apply(&[DefinitionRecord { document: Json::null(), removed: true, revision: 2, at: Timestamp(0) }])
        .unwrap();
    desk.cast(CallMessage::Define(session)).unwrap();
    assert_eq!(kinds(from.next().await), ["definitions"], "also when nothing is called");
    desk.stop(None);
}

#[tokio::test]
async fn a_connector_hears_which_shards_are_here() {
    let desk = call_desk(&Arc::default()).await;
    let (to, mut from) = Outlet::new(8);
    let (reply, joined) = oneshot::channel();
    desk.cast(CallMessage::Join(intro(true, to), reply)).unwrap();
    let session = joined.await.unwrap();
    assert_eq!(kinds(from.next().await), ["claim"]);
    desk.cast(CallMessage::Own(ShardId(0), Epoch(6))).unwrap();
    assert_eq!(kinds(from.next().await), ["claim"]);
    desk.cast(CallMessage::Holding(session, vec![], vec![])).unwrap();
    desk.cast(CallMessage::Disown(ShardId(0))).unwrap();
    desk.cast(read()).unwrap();
    assert_eq!(kinds(from.next().await), ["call"], "of its leaving it need not hear");
    desk.stop(None);
}
