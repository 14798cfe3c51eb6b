//! Holds one stream open.
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _, OptionFuture};
use kapell_proto::v1::coordinator_message::Kind;
use kapell_proto::v1::worker_service_client::WorkerServiceClient;
use kapell_proto::v1::{CoordinatorFrame, CoordinatorMessage, Definitions, Heartbeat, Welcome};
use kapell_runtime::{DialError, Runtime, channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tonic::{Status, Streaming};

use super::state::{BadTerms, State, Terms};
use crate::definitions::Compiler;
use crate::host::{HostHandle, SessionNo};
use crate::limits::{INBOUND_FRAME_BYTES_MAX, INBOUND_FRAMES_MAX, OPENING_MAX};
use crate::outbox::Outbox;

/// A connection that held for so long was a good one.
const PROVEN_AFTER: Duration = Duration::from_secs(1);

/// Holds one stream open.
pub(crate) struct Session {
    pub(crate) no: SessionNo,
    pub(crate) address: String,
    pub(crate) host: HostHandle,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) compiler: Arc<Compiler>,
    pub(crate) runtime: Runtime,
    /// Changes when the worker stops.
    pub(crate) stop: watch::Receiver<()>,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the stream broke")]
    Stream(#[from] Status),
    #[error("the coordinator closed the stream")]
    Closed,
    #[error("the coordinator did not open the session within {OPENING_MAX:?}")]
    Opening,
    #[error("the coordinator said something before its welcome")]
    NoWelcome,
    #[error("the coordinator was silent for longer than its lease; its tasks were stopped")]
    LeaseLost,
    #[error(transparent)]
    Terms(#[from] BadTerms),
    #[error("the worker is stopping")]
    Stopping,
}

impl Session {
    /// Until the worker stops.
    pub(crate) async fn run(self) {
        let mut stop = self.stop.clone();
        let mut state = State::new();
        tokio::select! {
            // Closed or changed: both say that the worker stops.
            _ = stop.changed() => {}
            () = self.keep(&mut state) => {}
        }
        self.outbox.close();
    }

    async fn keep(&self, state: &mut State) {
        loop {
            let began = Instant::now();
            let lease = OptionFuture::from(state.lease_ends().map(sleep_until));
            let opened = tokio::select! {
                Some(()) = lease => Err(Ended::LeaseLost),
                opened = self.open() => opened,
            };
            let ended = match opened {
                Ok(opened) => self.serve(state, opened, began).await,
                Err(ended) => ended,
            };
            self.host.disconnected(self.no);
            match ended {
                Ended::LeaseLost => {
                    state.lease_lost();
                    self.host.lease_lost(self.no);
                }
                Ended::Stopping => return,
                Ended::Dial(_)
                | Ended::Stream(_)
                | Ended::Closed
                | Ended::Opening
                | Ended::NoWelcome
                | Ended::Terms(_) => {}
            }
            if began.elapsed() >= PROVEN_AFTER {
                state.proved();
            }
            let retry = state.next_retry(self.runtime.entropy.below(1024));
            tracing::info!(coordinator = self.address, ?retry, reason = reasons(&ended), "no session");
            self.pause(state, retry).await;
        }
    }

    /// Waits before dialing again; the lease may end meanwhile.
    async fn pause(&self, state: &mut State, retry: Duration) {
        let until = Instant::now() + retry;
        if let Some(ends) = state.lease_ends().filter(|ends| *ends <= until) {
            sleep_until(ends).await;
            state.lease_lost();
            self.host.lease_lost(self.no);
        }
        sleep_until(until).await;
    }

    async fn open(&self) -> Result<(Streaming<CoordinatorFrame>, Welcome, Vec<CoordinatorMessage>), Ended> {
        let opening = async {
            let channel = channel(Arc::clone(&self.runtime.net), &self.address).await?;
            let mut client =
                WorkerServiceClient::new(channel).max_decoding_message_size(INBOUND_FRAME_BYTES_MAX);
            let frames = self.host.connected(self.no).await.ok_or(Ended::Stopping)?;
            let mut stream = client.session(frames).await?.into_inner();
            let first = stream.message().await?.ok_or(Ended::Closed)?;
            let mut messages = first.messages.into_iter();
            match messages.next().and_then(|message| message.kind) {
                Some(Kind::Welcome(welcome)) => Ok((stream, welcome, messages.collect())),
                Some(
                    Kind::Assignment(_)
                    | Kind::ToolResult(_)
                    | Kind::CheckpointAck(_)
                    | Kind::ReportAck(_)
                    | Kind::Cancel(_)
                    | Kind::Definitions(_)
                    | Kind::Heartbeat(_)
                    | Kind::Claim(_)
                    | Kind::Disowned(_),
                )
                | None => Err(Ended::NoWelcome),
            }
        };
        timeout(OPENING_MAX, opening).await.unwrap_or(Err(Ended::Opening))
    }

    async fn serve(
        &self,
        state: &mut State,
        (mut stream, welcome, rest): (Streaming<CoordinatorFrame>, Welcome, Vec<CoordinatorMessage>),
        began: Instant,
    ) -> Ended {
        let terms = match Terms::try_from(&welcome) {
            Ok(terms) => terms,
            Err(error) => return error.into(),
        };
        state.welcomed(terms, began);
        tracing::info!(coordinator = self.address, "session open");
        let admitted = Arc::new(Semaphore::new(INBOUND_FRAMES_MAX));
        let mut heartbeats = interval(terms.heartbeat);
        heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let Ok(permit) = Arc::clone(&admitted).acquire_owned().await else { return Ended::Stopping };
        let said = welcome.definitions.map(|sent| CoordinatorMessage { kind: Some(Kind::Definitions(sent)) });
        let mut compiling = Some(self.apply(said.into_iter().chain(rest).collect(), permit).boxed());
        loop {
            let Some(lease) = state.lease_ends() else { return Ended::LeaseLost };
            tokio::select! {
                () = sleep_until(lease), if compiling.is_none() => return Ended::LeaseLost,
                _ = heartbeats.tick() => self.heartbeat(state),
                // Nothing is read meanwhile: what follows may depend on the new definitions.
                Some(()) = OptionFuture::from(compiling.as_mut()) => {
                    compiling = None;
                    state.excuse(Instant::now());
                }
                next = self.next(&mut stream, &admitted), if compiling.is_none() => match next {
                    Ok((frame, permit)) => compiling = self.heard(state, frame, permit),
                    Err(ended) => return ended,
                },
            }
        }
    }

    fn heartbeat(&self, state: &mut State) {
        let sent_ms = self.runtime.clock.now().0;
        state.heartbeat_sent(sent_ms, Instant::now());
        self.outbox.heartbeat(Heartbeat { sent_ms });
    }

    /// The next frame, once the host has handled enough of the earlier ones and the coordinator reads our answers.
    async fn next(
        &self,
        stream: &mut Streaming<CoordinatorFrame>,
        admitted: &Arc<Semaphore>,
    ) -> Result<(CoordinatorFrame, OwnedSemaphorePermit), Ended> {
        self.outbox.room().await;
        let permit = Arc::clone(admitted).acquire_owned().await.map_err(|_| Ended::Stopping)?;
        let frame = stream.message().await?.ok_or(Ended::Closed)?;
        Ok((frame, permit))
    }

    /// Passes a frame on; gives what must be awaited when it changes the definitions.
    fn heard<'a>(
        &'a self,
        state: &mut State,
        frame: CoordinatorFrame,
        permit: OwnedSemaphorePermit,
    ) -> Option<BoxFuture<'a, ()>> {
        let (mut slow, now) = (Slow::No, Instant::now());
        for message in &frame.messages {
            match &message.kind {
                Some(Kind::Heartbeat(heartbeat)) => state.heartbeat_answered(heartbeat.sent_ms, now),
                Some(Kind::Definitions(_)) => slow = Slow::Yes,
                Some(
                    Kind::Welcome(_)
                    | Kind::Assignment(_)
                    | Kind::ToolResult(_)
                    | Kind::CheckpointAck(_)
                    | Kind::ReportAck(_)
                    | Kind::Cancel(_)
                    | Kind::Claim(_)
                    | Kind::Disowned(_),
                )
                | None => {}
            }
        }
        match slow {
            Slow::Yes => Some(self.apply(frame.messages, permit).boxed()),
            Slow::No => {
                self.host.inbound(self.no, frame.messages, permit);
                None
            }
        }
    }

    /// Handles a frame in order, with the definitions in it.
    async fn apply(&self, messages: Vec<CoordinatorMessage>, permit: OwnedSemaphorePermit) {
        let mut others = Vec::new();
        let mut newest: Option<Definitions> = None;
        for message in messages {
            match message.kind {
                // Later tasks of the frame may need them, earlier ones do no worse with them.
                Some(Kind::Definitions(sent)) => newest = Some(sent),
                kind => others.push(CoordinatorMessage { kind }),
            }
        }
        if let Some(sent) = newest {
            let (compiler, revision) = (Arc::clone(&self.compiler), sent.revision);
            match self.runtime.blocking(move || compiler.compile(sent)).await {
                Ok(Ok(compiled)) => self.host.definitions(self.no, compiled),
                Ok(Err(error)) => {
                    tracing::error!(revision, reason = reasons(&error), "the definitions cannot be used");
                }
                Err(_) => return,
            }
        }
        self.host.inbound(self.no, others, permit);
    }
}

enum Slow {
    Yes,
    No,
}

fn reasons(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
