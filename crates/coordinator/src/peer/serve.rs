//! The service that takes requests of other nodes for shards that are here.
//!
//! Owns: one answer for each ask, also when the shard dies under it. Never: passes an ask on: a shard that is not here
//! is answered so, and whoever asked finds the owner.
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use kapell_journal::Journal;
use kapell_model::ShardId;
use kapell_proto::peer::v1::answer::What as Said;
use kapell_proto::peer::v1::peer_message::Kind;
use kapell_proto::peer::v1::peer_service_server::PeerService;
use kapell_proto::peer::v1::{
    Answer, Ask, Done, FollowRequest, FollowResponse, Hello, NotOwner, Note, PeerFrame, Unavailable,
};
use kapell_proto::v1;
use kapell_runtime::{Job, OnDeath};
use kapell_wire::peer::ANSWER_FRAME_BYTES_MAX;
use tokio::sync::{mpsc, oneshot};
use tonic::{Request as GrpcRequest, Response, Status, Streaming};

use super::Peers;
use super::asked::Asked;
use super::outbox::Outbox;
use crate::dispatch::DispatchMessage;

const ASKS: Job = Job { name: "asks of a peer", on_panic: OnDeath::StopNode };
const WATCH: Job = Job { name: "watch for a peer", on_panic: OnDeath::Log };

/// States that wait for a slow watcher.
const WATCH_WAITING_MAX: usize = 64;

/// Watches among which those that are over may be.
const WATCHES_KEPT: usize = 64;

/// Takes requests of other nodes.
pub(crate) struct PeerServer {
    pub(crate) peers: Arc<Peers>,
    pub(crate) journal: Arc<dyn Journal>,
}

#[tonic::async_trait]
impl PeerService for PeerServer {
    type AskStream = Pin<Box<dyn Stream<Item = Result<PeerFrame, Status>> + Send>>;

    async fn ask(
        &self,
        request: GrpcRequest<Streaming<PeerFrame>>,
    ) -> Result<Response<Self::AskStream>, Status> {
        let mut frames = request.into_inner();
        let first = frames.message().await?.unwrap_or_default();
        let mut messages = first.messages.into_iter();
        let Some(Kind::Hello(hello)) = messages.next().and_then(|message| message.kind) else {
            return Err(Status::invalid_argument("the first message must be a hello"));
        };
        self.check(&hello)?;
        let out = Outbox::new(ANSWER_FRAME_BYTES_MAX);
        let answers = out.frames().map(Ok);
        let served = Served {
            peers: self.peers.clone(),
            journal: self.journal.clone(),
            out,
            watches: BTreeMap::new(),
            tidy_at: WATCHES_KEPT,
        };
        let rest = PeerFrame { messages: messages.collect() };
        self.peers.runtime.jobs.spawn(ASKS, served.serve(rest, frames));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn follow(&self, request: GrpcRequest<FollowRequest>) -> Result<Response<FollowResponse>, Status> {
        let definitions = &self.peers.definitions;
        let followed = definitions.follow_to(request.get_ref().revision, &*self.journal).await;
        followed.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(FollowResponse { revision: definitions.in_force().revision }))
    }
}

impl PeerServer {
    /// A node that took over another's address is told so before it does anything.
    fn check(&self, hello: &Hello) -> Result<(), Status> {
        let me = self.peers.node.as_str();
        if hello.owner != me {
            let text = format!("node `{}` asks for node `{}`, this is `{me}`", hello.node, hello.owner);
            return Err(Status::failed_precondition(text));
        }
        Ok(())
    }
}

/// One stream of asks.
struct Served {
    peers: Arc<Peers>,
    journal: Arc<dyn Journal>,
    out: Outbox,
    /// Dropping one ends the watch.
    watches: BTreeMap<u64, oneshot::Sender<()>>,
    /// With so many, those that are over are forgotten.
    tidy_at: usize,
}

impl Served {
    async fn serve(mut self, first: PeerFrame, mut frames: Streaming<PeerFrame>) {
        let mut next = Ok(Some(first));
        while let Ok(Some(frame)) = next {
            for message in frame.messages {
                match message.kind {
                    Some(Kind::Ask(ask)) => self.take(ask).await,
                    Some(Kind::Forget(forget)) => drop(self.watches.remove(&forget.tag)),
                    // What only the owner says, or what only a newer program knows.
                    Some(Kind::Hello(_) | Kind::Answer(_) | Kind::Note(_)) | None => {}
                }
            }
            next = frames.message().await;
        }
        self.out.close();
    }

    async fn take(&mut self, ask: Ask) {
        let owed = Due { tag: ask.tag, out: self.out.clone(), given: false };
        let shard = u16::try_from(ask.shard).ok().map(ShardId).filter(|shard| self.peers.is_here(*shard));
        let Some(mailbox) = shard.and_then(|shard| self.peers.links.shard(shard)).cloned() else {
            let owner = u16::try_from(ask.shard).ok().and_then(|shard| self.peers.owner(ShardId(shard)));
            return owed.give(Said::NotOwner(NotOwner { owner: owner.map(|owner| owner.node.to_string()) }));
        };
        if let Err(error) = self.peers.definitions.follow_to(ask.min_revision, &*self.journal).await {
            tracing::error!(%error, "changed definitions cannot be read");
        }
        match Asked::read(ask.what, &self.peers.definitions) {
            Ok(asked) => {
                let finished = asked.finished();
                if !finished.is_empty() {
                    self.peers.links.tell_dispatch(DispatchMessage::Forget(finished));
                }
                asked.submit(&mailbox, owed, |owed| self.watcher(owed));
            }
            Err(error) => owed.give(error.said()),
        }
    }

    /// Passes on how a run changes, until it is over or nobody wants to know.
    fn watcher(&mut self, owed: Due) -> mpsc::Sender<v1::Run> {
        let (to, mut changes) = mpsc::channel(WATCH_WAITING_MAX);
        let (keep, mut forgotten) = oneshot::channel();
        if self.watches.len() >= self.tidy_at {
            self.watches.retain(|_, watch| !watch.is_closed());
            self.tidy_at = (self.watches.len() * 2).max(WATCHES_KEPT);
        }
        self.watches.insert(owed.tag, keep);
        self.peers.runtime.jobs.spawn(WATCH, async move {
            loop {
                let change = tokio::select! {
                    change = changes.recv() => change,
                    _ = &mut forgotten => None,
                };
                let Some(run) = change else { break };
                // A state that is too large is passed over; the end is read by itself.
                owed.out.offer(Kind::Note(Note { tag: owed.tag, run: Some(run) }));
            }
            owed.give(Said::Done(Done {}));
        });
        to
    }
}

/// An answer that is owed: dropped, because the shard died under the request, it says that nobody knows.
pub(super) struct Due {
    tag: u64,
    out: Outbox,
    given: bool,
}

impl Due {
    pub(super) fn give(mut self, what: Said) {
        self.given = true;
        self.say(what);
    }

    /// Whether nobody can be answered any more.
    pub(super) fn is_over(&self) -> impl Fn() -> bool + Send + 'static {
        let out = self.out.clone();
        move || out.is_closed()
    }

    fn say(&self, what: Said) {
        let answer = |what| Kind::Answer(Answer { tag: self.tag, what: Some(what) });
        if let Err(error) = self.out.push(answer(what)) {
            tracing::error!(%error, "an answer is too large for a peer");
            self.out.offer(answer(Said::Unavailable(Unavailable {})));
        }
    }
}

impl Drop for Due {
    fn drop(&mut self) {
        if !self.given {
            self.say(Said::Unavailable(Unavailable {}));
        }
    }
}
