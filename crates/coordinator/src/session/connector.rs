//! One stream for each connector.
use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use kapell_proto::v1::{self, call_message::Kind, connector_message};
use kapell_runtime::{Job, OnDeath, Runtime};
use kapell_wire::claim;
use kapell_wire::task::{BadRef, CallKey};
use tokio::sync::{oneshot, watch};
use tonic::{Request as GrpcRequest, Response, Status, Streaming};

use super::outlet::{Gone, Outlet};
use super::{FRAMES_WAITING_MAX, Liveness, Streams, shards};
use crate::calls::{CallMessage, ConnectorIntro};
use crate::definitions::{Definitions, InForce};
use crate::dispatch::{SessionId, definitions_to};
use crate::links::Links;

const SESSION: Job = Job { name: "connector session", on_panic: OnDeath::Log };

type ToConnector = Outlet<v1::CallFrame>;

/// Serves connectors.
pub(crate) struct ConnectorSessions {
    pub(crate) links: Arc<Links>,
    pub(crate) definitions: Arc<Definitions>,
    pub(crate) runtime: Runtime,
    pub(crate) liveness: Liveness,
    pub(crate) streams: Streams,
}

#[tonic::async_trait]
impl v1::connector_service_server::ConnectorService for ConnectorSessions {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<v1::CallFrame, Status>> + Send>>;

    async fn session(
        &self,
        request: GrpcRequest<Streaming<v1::ConnectorFrame>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let counted = self.streams.open()?;
        let mut frames = request.into_inner();
        let first = frames
            .message()
            .await?
            .ok_or_else(|| Status::invalid_argument("the first frame must hold a hello"))?;
        let mut messages = first.messages.into_iter();
        let Some(connector_message::Kind::Hello(hello)) = messages.next().and_then(|message| message.kind)
        else {
            return Err(Status::invalid_argument("the first message must be a hello"));
        };
        let (to, from) = Outlet::new(FRAMES_WAITING_MAX);
        // Before the welcome says what is in force: a revision in between must not be missed.
        let revisions = self.definitions.subscribe();
        let session = self.join(hello, &to).await?;
        let links = self.links.clone();
        let rest: Vec<_> = messages.collect();
        let serve = async move {
            serve(&links, revisions, session, &to, rest, frames).await;
            links.tell_calls(CallMessage::Left(session));
            drop(counted);
        };
        self.runtime.jobs.spawn(SESSION, serve);
        Ok(Response::new(Box::pin(from)))
    }
}

impl ConnectorSessions {
    async fn join(&self, hello: v1::ConnectorHello, to: &ToConnector) -> Result<SessionId, Status> {
        let holding = calls(&hello.holding)?;
        let in_force = self.definitions.in_force();
        let welcome = v1::Welcome {
            heartbeat_ms: self.liveness.heartbeat.as_millis() as u64,
            lease_ms: self.liveness.lease.as_millis() as u64,
            definitions: Some(definitions_to(&in_force)),
        };
        send(to, Kind::Welcome(welcome)).await?;
        let intro = ConnectorIntro {
            name: hello.connector,
            instance: hello.instance,
            capacity: hello.capacity,
            holding,
            claims: claim::understood(&hello.features),
            revision: in_force.revision,
            to: to.clone(),
        };
        let (reply, joined) = oneshot::channel();
        self.links.tell_calls(CallMessage::Join(intro, reply));
        joined.await.map_err(|_| Status::unavailable("the coordinator is stopping"))
    }
}

async fn send(to: &ToConnector, kind: Kind) -> Result<(), Status> {
    let frame = v1::CallFrame { messages: vec![v1::CallMessage { kind: Some(kind) }] };
    to.send(frame).await.map_err(|Gone| Status::cancelled("the connector is gone"))
}

async fn serve(
    links: &Arc<Links>,
    mut revisions: watch::Receiver<Arc<InForce>>,
    session: SessionId,
    to: &ToConnector,
    first: Vec<v1::ConnectorMessage>,
    mut frames: Streaming<v1::ConnectorFrame>,
) {
    let mut waiting = first;
    loop {
        for message in std::mem::take(&mut waiting) {
            if let Err(status) = take(links, session, to, message).await {
                to.refuse(status).await;
                return;
            }
        }
        tokio::select! {
            biased;
            frame = frames.message() => match frame {
                Ok(Some(frame)) => waiting = frame.messages,
                Ok(None) => return,
                Err(status) => {
                    tracing::debug!(%status, "a connector's stream ended");
                    return;
                }
            },
            // The call desk sends them: what it orders must not overtake them.
            () = to.is_cut() => return,
            changed = revisions.changed() => match changed {
                Ok(()) => links.tell_calls(CallMessage::Define(session)),
                Err(_) => return,
            },
        }
    }
}

async fn take(
    links: &Links,
    session: SessionId,
    to: &ToConnector,
    message: v1::ConnectorMessage,
) -> Result<(), Status> {
    match message.kind {
        Some(connector_message::Kind::Report(report)) => {
            links.tell_calls(CallMessage::Report(session, Box::new(report)));
            Ok(())
        }
        Some(connector_message::Kind::Heartbeat(heartbeat)) => {
            links.tell_calls(CallMessage::Heard(session));
            send(to, Kind::Heartbeat(heartbeat)).await
        }
        Some(connector_message::Kind::Holding(holding)) => {
            let (shards, keys) = (shards(&holding.shards)?, calls(&holding.calls)?);
            links.tell_calls(CallMessage::Holding(session, shards, keys));
            Ok(())
        }
        Some(connector_message::Kind::Hello(_)) => {
            Err(Status::invalid_argument("a hello may only come first"))
        }
        None => Err(Status::invalid_argument("a message of a kind that this coordinator does not know")),
    }
}

fn calls(held: &[v1::CallRef]) -> Result<Vec<CallKey>, Status> {
    let keys = held.iter().map(|call| CallKey::from_proto(Some(call)));
    keys.collect::<Result<_, BadRef>>().map_err(|error| Status::invalid_argument(error.to_string()))
}
