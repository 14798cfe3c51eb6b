//! A coordinator for tests: a real gRPC server whose every move the test makes.
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use kapell_proto::v1;
use kapell_proto::v1::connector_service_server::{ConnectorService, ConnectorServiceServer};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

pub(crate) const HEARTBEAT_MS: u64 = 100;
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Coordinator {
    pub(crate) address: String,
    sessions: mpsc::Receiver<Session>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct Service(mpsc::Sender<Session>);

/// One stream of one connector. Dropping it ends the stream.
pub(crate) struct Session {
    pub(crate) hello: v1::ConnectorHello,
    orders: mpsc::Sender<Result<v1::CallFrame, Status>>,
    reports: mpsc::Receiver<v1::CallReport>,
    answers: mpsc::Receiver<v1::HoldingCalls>,
    /// Whether heartbeats are answered.
    pub(crate) alive: Arc<AtomicBool>,
    reader: tokio::task::JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Coordinator {
    pub(crate) async fn start() -> Coordinator {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (opened, sessions) = mpsc::channel(16);
        let service = ConnectorServiceServer::new(Service(opened));
        let server = tokio::spawn(async move {
            let serve = tonic::transport::Server::builder().add_service(service);
            serve.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        Coordinator { address, sessions, server }
    }

    /// The next stream that a connector opens, with its hello read and nothing answered.
    pub(crate) async fn session(&mut self) -> Session {
        timeout(PATIENCE, self.sessions.recv()).await.expect("a connector connects").unwrap()
    }
}

impl Session {
    pub(crate) async fn welcome(&self, documents: Vec<String>, lease_ms: u64) {
        let definitions = Some(v1::Definitions { revision: 1, documents });
        let welcome = v1::Welcome { heartbeat_ms: HEARTBEAT_MS, lease_ms, definitions };
        self.say(v1::call_message::Kind::Welcome(welcome)).await;
    }

    pub(crate) async fn say(&self, kind: v1::call_message::Kind) {
        self.orders
            .send(Ok(v1::CallFrame { messages: vec![v1::CallMessage { kind: Some(kind) }] }))
            .await
            .unwrap();
    }

    pub(crate) async fn order(&self, order: v1::CallOrder) {
        self.say(v1::call_message::Kind::Call(order)).await;
    }

    pub(crate) async fn ack(&self, call: v1::CallRef) {
        self.say(v1::call_message::Kind::ReportAck(call)).await;
    }

    /// Claims one shard.
    pub(crate) async fn claim(&self, shard: u32, epoch: u64) {
        let shards = vec![v1::ShardClaim { shard, epoch }];
        self.say(v1::call_message::Kind::Claim(v1::Claim { shards })).await;
    }

    /// The next answer to a claim.
    pub(crate) async fn holding(&mut self) -> v1::HoldingCalls {
        timeout(PATIENCE, self.answers.recv()).await.expect("an answer comes").expect("the stream is open")
    }

    pub(crate) async fn report(&mut self) -> v1::CallReport {
        timeout(PATIENCE, self.reports.recv()).await.expect("a report comes").expect("the stream is open")
    }

    /// Ends the stream from here.
    pub(crate) fn close(&mut self) {
        self.reader.abort();
        self.orders = mpsc::channel(1).0;
        self.alive.store(false, Ordering::SeqCst);
    }

    /// Whether no report comes for a while.
    pub(crate) async fn is_silent_for(&mut self, span: Duration) -> bool {
        timeout(span, self.reports.recv()).await.is_err()
    }
}

#[tonic::async_trait]
impl ConnectorService for Service {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<v1::CallFrame, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::ConnectorFrame>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut inbound = request.into_inner();
        let (orders, outgoing) = mpsc::channel(1_000);
        let opened = self.0.clone();
        let alive = Arc::new(AtomicBool::new(true));
        tokio::spawn(async move {
            let Some(Ok(first)) = inbound.next().await else { return };
            let mut messages = first.messages.into_iter();
            let Some(v1::connector_message::Kind::Hello(hello)) =
                messages.next().and_then(|first| first.kind)
            else {
                panic!("a session begins with hello");
            };
            let (reported, reports) = mpsc::channel(10_000);
            let (held, answers) = mpsc::channel(1_000);
            let beats = orders.clone();
            let answering = Arc::clone(&alive);
            let rest: Vec<_> = messages.collect();
            let reader = tokio::spawn(async move {
                let mut frame = Some(rest);
                while let Some(messages) = frame {
                    for message in messages {
                        match message.kind.unwrap() {
                            v1::connector_message::Kind::Hello(_) => panic!("hello comes once"),
                            v1::connector_message::Kind::Report(report) => drop(reported.send(report).await),
                            v1::connector_message::Kind::Holding(holding) => drop(held.send(holding).await),
                            v1::connector_message::Kind::Heartbeat(beat)
                                if answering.load(Ordering::SeqCst) =>
                            {
                                let kind = Some(v1::call_message::Kind::Heartbeat(beat));
                                let messages = vec![v1::CallMessage { kind }];
                                drop(beats.send(Ok(v1::CallFrame { messages })).await);
                            }
                            v1::connector_message::Kind::Heartbeat(_) => {}
                        }
                    }
                    frame = inbound.next().await.and_then(Result::ok).map(|frame| frame.messages);
                }
            });
            drop(opened.send(Session { hello, orders, reports, answers, alive, reader }).await);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }
}
