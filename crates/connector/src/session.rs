//! Sessions: one long-lived stream to each coordinator, opened again whenever it ends.
//!
//! Owns: connecting, hello, heartbeats, the lease, definitions. Never: makes a call (that is `desk`), or decides what
//! an order means (that is `orders`).
mod claims;
mod frames;
mod orders;

use std::sync::Arc;
use std::time::Duration;

use kapell_model::catalogue::Catalogue;
use kapell_model::definition::Definition;
use kapell_proto::v1;
use kapell_proto::v1::connector_service_client::ConnectorServiceClient;
use kapell_runtime::{DialError, Job, OnDeath};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tonic::Streaming;

use crate::connector::{Shared, call_report};
use crate::held::{CoordinatorNo, SessionNo};
use crate::lease::Lease;

/// A job for each coordinator. Without it the connector is deaf to that coordinator for good.
pub(crate) const SESSION: Job = Job { name: "connector-session", on_panic: OnDeath::StopNode };

const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_LONGEST: Duration = Duration::from_secs(1);
/// Longest silence of a coordinator while a session is opened.
const OPENING: Duration = Duration::from_secs(10);
/// Messages that wait to be sent on one session; reports that find no room are sent with a later heartbeat.
const OUTBOX_MAX: usize = 4_096;
/// Largest frame that is read: all definitions may come in one.
const FRAME_BYTES_MAX: usize = 256 << 20;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the coordinator broke the stream: {0}")]
    Stream(#[from] Box<tonic::Status>),
    #[error("the coordinator closed the stream")]
    Closed,
    #[error("the coordinator was silent for too long")]
    Silent,
    #[error("the coordinator did not begin with a welcome")]
    NoWelcome,
    #[error("the definitions cannot be used here: {0}")]
    Definitions(String),
    #[error("the coordinator does not read the answer to its claim; it hears all in the next hello")]
    Stuck,
}

/// Keeps a session with one coordinator, for ever.
pub(crate) async fn serve(shared: Arc<Shared>, coordinator: CoordinatorNo, address: String) {
    let mut backoff = BACKOFF_FIRST;
    // When the lease of the last session that was open is certainly over.
    let mut forget_at = None;
    loop {
        let (session, holding) = shared.held().open_session();
        let mut opened = None;
        let ended = run(&shared, (coordinator, &address), session, holding, &mut opened).await;
        shared.outboxes().remove(&session);
        shared.held().close_session(session);
        let (Err(ended), now) = (ended, Instant::now());
        if let Some(lease) = opened {
            backoff = BACKOFF_FIRST;
            forget_at = Some(now + lease);
            tracing::warn!(coordinator = address, reason = %ended, "the session ended");
        } else {
            tracing::debug!(coordinator = address, reason = %ended, "no session yet");
        }
        if forget_at.take_if(|at| *at <= now).is_some() {
            shared.held().forget_claims(coordinator);
        }
        let jitter_ms = u64::try_from(backoff.as_millis()).unwrap_or(u64::MAX) / 2;
        sleep(backoff / 2 + Duration::from_millis(shared.runtime.entropy.below(jitter_ms + 1))).await;
        backoff = (backoff * 2).min(BACKOFF_LONGEST);
    }
}

/// A session that is open.
struct Open<'a> {
    shared: &'a Arc<Shared>,
    coordinator: CoordinatorNo,
    no: SessionNo,
    outbox: mpsc::Sender<v1::ConnectorMessage>,
    /// Heartbeats carry the time since this moment.
    began: Instant,
    lease: Lease,
    lease_span: Duration,
    catalogue: Arc<Catalogue>,
}

async fn run(
    shared: &Arc<Shared>,
    (coordinator, address): (CoordinatorNo, &str),
    no: SessionNo,
    holding: Vec<kapell_wire::task::CallKey>,
    opened: &mut Option<Duration>,
) -> Result<std::convert::Infallible, Ended> {
    let channel = kapell_runtime::channel(Arc::clone(&shared.runtime.net), address).await?;
    let mut client = ConnectorServiceClient::new(channel).max_decoding_message_size(FRAME_BYTES_MAX);
    let began = Instant::now();
    let (outbox, messages) = mpsc::channel(OUTBOX_MAX);
    let first = opening(shared, no, &holding);
    let stream = timeout(OPENING, client.session(frames::frames(first, messages)));
    let mut inbound = stream.await.map_err(|_| Ended::Silent)?.map_err(Box::new)?.into_inner();
    let (welcome, rest) = timeout(OPENING, welcome(&mut inbound)).await.map_err(|_| Ended::Silent)??;
    let lease_span = Duration::from_millis(welcome.lease_ms);
    let lease = Lease::until(began + lease_span);
    let catalogue = compile(shared, welcome.definitions.unwrap_or_default()).await?;
    let heartbeat = Duration::from_millis(welcome.heartbeat_ms.max(1));
    shared.held().welcomed(no, lease.clone());
    shared.outboxes().insert(no, outbox.clone());
    *opened = Some(lease_span);
    let mut open = Open { shared, coordinator, no, outbox, began, lease, lease_span, catalogue };
    let ended = open.follow(&mut inbound, rest, heartbeat).await;
    // Calls that still wait for their turn must not begin: the coordinator may have given them up.
    open.lease.lose();
    ended
}

/// Hello, and the reports of everything that has ended.
fn opening(
    shared: &Shared,
    no: SessionNo,
    holding: &[kapell_wire::task::CallKey],
) -> Vec<v1::ConnectorMessage> {
    let hello = v1::ConnectorHello {
        connector: shared.options.name.clone(),
        instance: shared.instance.to_vec(),
        capacity: shared.options.capacity,
        holding: holding.iter().map(kapell_wire::task::CallKey::to_proto).collect(),
        features: vec![kapell_wire::claim::FEATURE.to_owned()],
    };
    let hello = v1::ConnectorMessage { kind: Some(v1::connector_message::Kind::Hello(hello)) };
    let mut held = shared.held();
    let due = held.due(no, Instant::now());
    let mut first = vec![hello];
    for (key, outcome) in due {
        held.sent(no, key, Instant::now());
        first.push(call_report(key.0, &outcome));
    }
    first
}

/// The welcome, and what came with it in one frame.
async fn welcome(
    inbound: &mut Streaming<v1::CallFrame>,
) -> Result<(v1::Welcome, Vec<v1::CallMessage>), Ended> {
    let frame = inbound.message().await.map_err(Box::new)?.ok_or(Ended::Closed)?;
    let mut messages = frame.messages.into_iter();
    match messages.next().and_then(|message| message.kind) {
        Some(v1::call_message::Kind::Welcome(welcome)) => Ok((welcome, messages.collect())),
        Some(_) | None => Err(Ended::NoWelcome),
    }
}

/// Compiles definitions, away from the async threads.
async fn compile(shared: &Shared, definitions: v1::Definitions) -> Result<Arc<Catalogue>, Ended> {
    let revision = definitions.revision;
    let compiled = shared.runtime.blocking(move || catalogue(&definitions.documents)).await;
    let catalogue = compiled.map_err(|stopped| Ended::Definitions(stopped.to_string()))?;
    tracing::debug!(revision, sound = catalogue.is_ok(), "definitions came");
    catalogue.map(Arc::new).map_err(Ended::Definitions)
}

fn catalogue(documents: &[String]) -> Result<Catalogue, String> {
    let read =
        |document: &String| serde_json::from_str::<Definition>(document).map_err(|error| error.to_string());
    let definitions = documents.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    kapell_model::validate::catalogue(definitions)
        .map_err(|wrong| wrong.first().map_or_else(String::new, ToString::to_string))
}

impl Open<'_> {
    async fn follow(
        &mut self,
        inbound: &mut Streaming<v1::CallFrame>,
        first: Vec<v1::CallMessage>,
        heartbeat: Duration,
    ) -> Result<std::convert::Infallible, Ended> {
        self.obey(first).await?;
        let mut ticks = interval(heartbeat);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let lease_end = self.lease.end().unwrap_or_else(Instant::now);
            tokio::select! {
                frame = inbound.message() => {
                    let frame = frame.map_err(Box::new)?.ok_or(Ended::Closed)?;
                    self.obey(frame.messages).await?;
                }
                _ = ticks.tick() => self.beat(),
                () = sleep_until(lease_end) => return Err(Ended::Silent),
            }
        }
    }

    /// Says that we are there, and sends again what nobody has acknowledged for too long.
    fn beat(&self) {
        let sent_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let heartbeat = v1::Heartbeat { sent_ms };
        let message = v1::ConnectorMessage { kind: Some(v1::connector_message::Kind::Heartbeat(heartbeat)) };
        if self.outbox.try_send(message).is_err() {
            // The stream is stuck: without answers the lease ends by itself.
            return;
        }
        let now = Instant::now();
        let Some(before) = now.checked_sub(self.lease_span) else { return };
        let due = self.shared.held().due(self.no, before);
        for (key, outcome) in due {
            self.shared.post(self.no, key, call_report(key.0, &outcome));
        }
    }

    async fn obey(&mut self, messages: Vec<v1::CallMessage>) -> Result<(), Ended> {
        use v1::call_message::Kind;
        for message in messages {
            match message.kind {
                Some(Kind::Call(order)) => orders::take(self, order),
                Some(Kind::ReportAck(call)) => match kapell_wire::task::CallKey::from_proto(Some(&call)) {
                    Ok(call) => self.shared.held().acknowledge(call),
                    Err(error) => tracing::warn!(%error, "an acknowledgement names no call"),
                },
                Some(Kind::Definitions(definitions)) => {
                    self.catalogue = compile(self.shared, definitions).await?;
                }
                Some(Kind::Heartbeat(answer)) => self.renew(answer.sent_ms),
                Some(Kind::Claim(claim)) => claims::take(self, &claim)?,
                // A newer coordinator may say more than we understand.
                Some(Kind::Welcome(_)) | None => tracing::debug!("a message that means nothing here"),
            }
        }
        Ok(())
    }

    /// The coordinator heard us at `sent_ms` or later, so it counts on us that much longer.
    fn renew(&self, sent_ms: u64) {
        let heard = self.began + Duration::from_millis(sent_ms);
        if heard <= Instant::now() {
            self.lease.renew(heard + self.lease_span);
        }
    }
}
