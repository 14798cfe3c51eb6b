//! The other end of the protocol: a real gRPC server on a loopback socket that says what a test tells it to.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, at whatever it does not expect"
)]
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kapell_kernel::{Attempt, UnitId};
use kapell_model::plan::StepIndex;
use kapell_model::{RunId, ShardId};
use kapell_proto::v1::coordinator_message::Kind as Said;
use kapell_proto::v1::worker_message::Kind;
use kapell_proto::v1::worker_service_server::{WorkerService, WorkerServiceServer};
use kapell_proto::v1::{
    Assignment, CoordinatorFrame, CoordinatorMessage, Definitions, TaskReport, Welcome, WorkerFrame,
    WorkerHello, task_report,
};
use kapell_runtime::{Job, Jobs, Net as _, OnDeath, Runtime, SystemNet, incoming};
use kapell_wire::task::TaskKey;
use kapell_worker::{Worker, WorkerHandle, WorkerOptions};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

const SERVER: Job = Job { name: "test coordinator", on_panic: OnDeath::Log };
/// Longest wait of a test for something that must happen.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// A coordinator that says what a test tells it to.
pub(crate) struct Coordinator {
    pub(crate) address: String,
    peers: mpsc::Receiver<Peer>,
    jobs: Jobs,
}

/// One session, as the coordinator sees it.
pub(crate) struct Peer {
    pub(crate) hello: WorkerHello,
    to: mpsc::Sender<Result<CoordinatorFrame, Status>>,
    from: mpsc::Receiver<Kind>,
    silent: Arc<AtomicBool>,
}

#[derive(Clone)]
pub(crate) struct Terms {
    pub(crate) heartbeat_ms: u64,
    pub(crate) lease_ms: u64,
    pub(crate) definitions: Definitions,
}

struct Service {
    terms: Terms,
    peers: mpsc::Sender<Peer>,
    jobs: Jobs,
}

#[tonic::async_trait]
impl WorkerService for Service {
    type SessionStream = ReceiverStream<Result<CoordinatorFrame, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<WorkerFrame>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut stream = request.into_inner();
        let (to, frames) = mpsc::channel(1024);
        let (messages, from) = mpsc::channel(100_000);
        let silent = Arc::new(AtomicBool::new(false));
        let (terms, peers) = (self.terms.clone(), self.peers.clone());
        self.jobs.spawn(SERVER, async move {
            let mut first = stream.message().await.unwrap().unwrap().messages.into_iter();
            let Some(Kind::Hello(hello)) = first.next().unwrap().kind else { panic!("no hello") };
            let Terms { heartbeat_ms, lease_ms, definitions } = terms;
            let welcome = Said::Welcome(Welcome { heartbeat_ms, lease_ms, definitions: Some(definitions) });
            to.send(Ok(frame([welcome]))).await.unwrap();
            peers.send(Peer { hello, to: to.clone(), from, silent: Arc::clone(&silent) }).await.unwrap();
            let answers = to.downgrade();
            drop(to);
            let mut said: Vec<Kind> = first.filter_map(|message| message.kind).collect();
            loop {
                for kind in said.drain(..) {
                    match kind {
                        Kind::Heartbeat(heartbeat) => {
                            let Some(to) = answers.upgrade() else { return };
                            if !silent.load(Ordering::SeqCst) {
                                drop(to.try_send(Ok(frame([Said::Heartbeat(heartbeat)]))));
                            }
                        }
                        other => drop(messages.send(other).await),
                    }
                }
                let Ok(Some(next)) = stream.message().await else { return };
                said.extend(next.messages.into_iter().filter_map(|message| message.kind));
            }
        });
        Ok(Response::new(ReceiverStream::new(frames)))
    }
}

pub(crate) fn frame(said: impl IntoIterator<Item = Said>) -> CoordinatorFrame {
    let messages = said.into_iter().map(|kind| CoordinatorMessage { kind: Some(kind) }).collect();
    CoordinatorFrame { messages }
}

impl Coordinator {
    pub(crate) async fn start(terms: Terms) -> Coordinator {
        Coordinator::start_at("127.0.0.1:0", terms).await
    }

    pub(crate) async fn start_at(address: &str, terms: Terms) -> Coordinator {
        let listener = SystemNet.listen(address).await.unwrap();
        let address = listener.address().to_string();
        let (sender, peers) = mpsc::channel(16);
        let jobs = Jobs::new();
        let service = WorkerServiceServer::new(Service { terms, peers: sender, jobs: jobs.clone() })
            .max_decoding_message_size(64 << 20)
            .max_encoding_message_size(64 << 20);
        let server = tonic::transport::Server::builder()
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .add_service(service);
        jobs.spawn(SERVER, async move { server.serve_with_incoming(incoming(listener)).await.unwrap() });
        Coordinator { address, peers, jobs }
    }

    /// The next session that a worker opens.
    pub(crate) async fn session(&mut self) -> Peer {
        timeout(SOON, self.peers.recv()).await.expect("a session").unwrap()
    }

    /// Dies: the socket is closed, sessions end when their peers are dropped.
    pub(crate) fn stop(self) -> String {
        self.jobs.stop("test");
        self.address
    }
}

impl Peer {
    pub(crate) async fn say(&self, said: Said) {
        self.say_all([said]).await;
    }

    pub(crate) async fn say_all(&self, said: impl IntoIterator<Item = Said>) {
        self.to.send(Ok(frame(said))).await.unwrap();
    }

    pub(crate) async fn assign(&self, task: TaskKey, skill: &str, input: &Value) {
        self.say(Said::Assignment(assignment(task, skill, input))).await;
    }

    /// The next message that is no heartbeat.
    pub(crate) async fn next(&mut self) -> Kind {
        timeout(SOON, self.from.recv()).await.expect("a message").expect("an open session")
    }

    #[allow(dead_code, reason = "the throughput example uses it")]
    /// At least one message, and all others that are there.
    pub(crate) async fn next_many(&mut self, into: &mut Vec<Kind>) {
        let count = timeout(SOON, self.from.recv_many(into, 10_000)).await.expect("a message");
        assert!(count > 0, "an open session");
    }

    pub(crate) async fn report(&mut self) -> TaskReport {
        match self.next().await {
            Kind::Report(report) => report,
            other => panic!("no report but {other:?}"),
        }
    }

    /// The next message is the report of this task, and it worked.
    pub(crate) async fn output(&mut self, task: TaskKey) -> Value {
        let report = self.report().await;
        assert_eq!(report.task, Some(task.to_proto()));
        match report.result {
            Some(task_report::Result::Output(output)) => serde_json::from_str(&output).unwrap(),
            other => panic!("no output but {other:?}"),
        }
    }

    /// The next message is the report of this task, and it failed.
    pub(crate) async fn error(&mut self, task: TaskKey) -> kapell_worker::TaskError {
        let report = self.report().await;
        assert_eq!(report.task, Some(task.to_proto()));
        match report.result {
            Some(task_report::Result::Error(error)) => kapell_wire::task::error_from(error).unwrap(),
            other => panic!("no error but {other:?}"),
        }
    }

    pub(crate) async fn acknowledge(&self, task: TaskKey) {
        self.say(Said::ReportAck(task.to_proto())).await;
    }

    /// Nothing is said for a while.
    pub(crate) async fn hears_nothing(&mut self, span: Duration) {
        if let Ok(said) = timeout(span, self.from.recv()).await {
            panic!("nothing was expected, not {said:?}");
        }
    }

    /// Whether the worker is still connected is not known; it hears nothing from here on.
    pub(crate) fn fall_silent(&self) {
        self.silent.store(true, Ordering::SeqCst);
    }

    /// Waits until the worker closed the session.
    pub(crate) async fn closed(mut self) {
        let end = async { while self.from.recv().await.is_some() {} };
        timeout(SOON, end).await.expect("the end of the session");
    }
}

/// The first attempt of step `step` of a run of its own.
pub(crate) fn task(step: u32) -> TaskKey {
    let run = RunId::new(ShardId(1), u128::from(step) + 1);
    TaskKey { run, unit: UnitId::step(StepIndex(0)), attempt: Attempt(1) }
}

pub(crate) fn assignment(task: TaskKey, skill: &str, input: &Value) -> Assignment {
    Assignment {
        task: Some(task.to_proto()),
        namespace: "retail".into(),
        skill: skill.into(),
        input: input.to_string(),
        checkpoints: Vec::new(),
        timeout_ms: 60_000,
        traceparent: String::new(),
        epoch: 0,
    }
}

/// Generous: nothing in a test is lost by chance.
pub(crate) fn terms() -> Terms {
    Terms { heartbeat_ms: 200, lease_ms: 20_000, definitions: definitions(1, json!({})) }
}

/// The specialist `clerk` with these limits, and another.
pub(crate) fn definitions(revision: u64, limits: Value) -> Definitions {
    let document = |kind: &str, name: &str, spec: Value| {
        json!({
            "apiVersion": "kapell.dev/v1", "kind": kind,
            "metadata": { "name": name, "namespace": "retail" }, "spec": spec
        })
        .to_string()
    };
    let clerk = json!({
        "limits": limits,
        "skills": [
            { "name": "desk.nothing", "rules": { "rows": [{ "then": { "done": true } }] } },
            { "name": "desk.double", "rules": { "rows": [
                { "when": "input.n > 0", "then": { "twice": "${input.n * 2}" } }
            ] } },
            { "name": "desk.lookup", "call": { "tool": "north/read" } },
            { "name": "desk.mapped", "call": {
                "tool": "north/read", "with": { "id": "${input.sku}" }, "output": { "price": "${result.price}" }
            } },
            { "name": "desk.work", "remote": {} },
            { "name": "desk.absent", "remote": {} }
        ]
    });
    let other = json!({ "skills": [
        { "name": "other.nothing", "rules": { "rows": [{ "then": revision }] } }
    ] });
    let connector = json!({ "protocol": "http", "tools": [
        { "name": "read", "http": { "method": "GET", "path": "/x" } }
    ] });
    let connection = json!({ "connector": "shop", "endpoint": "https://north.example.com" });
    Definitions {
        revision,
        documents: vec![
            document("Connector", "shop", connector),
            document("Connection", "north", connection),
            document("Specialist", "clerk", clerk),
            document("Specialist", "other", other),
        ],
    }
}

pub(crate) async fn start(options: WorkerOptions, coordinators: &[&Coordinator]) -> WorkerHandle {
    let mut options = options;
    options.coordinators = coordinators.iter().map(|coordinator| coordinator.address.clone()).collect();
    Worker::start(options, Runtime::system()).await.unwrap()
}

/// A worker with one coordinator, connected.
pub(crate) async fn pair(options: WorkerOptions, terms: Terms) -> (WorkerHandle, Coordinator, Peer) {
    let mut coordinator = Coordinator::start(terms).await;
    let worker = start(options, &[&coordinator]).await;
    let peer = coordinator.session().await;
    (worker, coordinator, peer)
}
