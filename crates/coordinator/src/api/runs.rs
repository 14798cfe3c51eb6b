//! Runs: start, look, steer.
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join;
use futures::{Stream, StreamExt as _};
use kapell_kernel::{CancelMode, Command, Rejected, Run};
use kapell_ledger::{Cursor, PAGE_MAX, RunQuery, RunState};
use kapell_model::{Json, Origin, RequestId, RunId, Timestamp};
use kapell_proto::v1;
use kapell_proto::v1::run_service_client::RunServiceClient;
use kapell_wire::cloud_event::Event;
use tokio::sync::{mpsc, oneshot};
use tonic::{Request as GrpcRequest, Response, Status, Streaming};

use super::{Parts, forward, serving, starts, status};
use crate::answer::{answer, replying};
use crate::own_event::OwnEvent;
use crate::shard::{self, Asker, EndWaiter, Past, Reply, Request, StartRun, SubmitError, Told};
use crate::story;

/// Runs: start, look, steer.
pub(super) struct Runs(pub(super) Parts);

/// Changes that wait for a slow watcher.
const WATCH_WAITING_MAX: usize = 64;
/// Pause before a shard that died or moved is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// Rows of a page, unless the request says otherwise.
const PAGE_DEFAULT: usize = 50;

#[tonic::async_trait]
impl v1::run_service_server::RunService for Runs {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::Run, Status>> + Send>>;
    type StartStreamStream = starts::Answers;

    async fn start(
        &self,
        request: GrpcRequest<v1::StartRunRequest>,
    ) -> Result<Response<v1::StartRunResponse>, Status> {
        start(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn start_stream(
        &self,
        request: GrpcRequest<Streaming<v1::StartFrame>>,
    ) -> Result<Response<starts::Answers>, Status> {
        let open = self.0.streams.open()?;
        Ok(Response::new(starts::serve(self.0.clone(), request.into_inner(), open)))
    }

    async fn get(&self, request: GrpcRequest<v1::GetRunRequest>) -> Result<Response<v1::Run>, Status> {
        let run = status::run(&request.into_inner().run)?;
        get(&self.0, run).await.map(Response::new)
    }

    async fn list(
        &self,
        request: GrpcRequest<v1::ListRunsRequest>,
    ) -> Result<Response<v1::ListRunsResponse>, Status> {
        list(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn watch(
        &self,
        request: GrpcRequest<v1::GetRunRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let run = status::run(&request.into_inner().run)?;
        watch(&self.0, run).await.map(Response::new)
    }

    async fn explain(
        &self,
        request: GrpcRequest<v1::GetRunRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        let run = status::run(&request.into_inner().run)?;
        let (folded, entries) = history(&self.0, run).await?;
        let lines = story::tell(&folded, &entries);
        Ok(Response::new(v1::ExplainResponse { run: Some(shard::view(&folded)), lines }))
    }

    async fn replay(
        &self,
        request: GrpcRequest<v1::GetRunRequest>,
    ) -> Result<Response<v1::ReplayResponse>, Status> {
        let run = status::run(&request.get_ref().run)?;
        if let Some(owner) = forward::owner(&self.0, run.shard(), request.metadata()).await? {
            let request = forward::passed_on(request.into_inner());
            return RunServiceClient::new(owner).replay(request).await.map_err(forward::lost);
        }
        replay(&self.0, run).await.map(Response::new)
    }

    async fn signal(&self, request: GrpcRequest<v1::SignalRequest>) -> Result<Response<v1::Run>, Status> {
        let request = request.into_inner();
        let run = status::run(&request.run)?;
        let event = signal_event(&self.0, &request)?;
        let command = Command::Signal { event: event.json };
        steer(&self.0, run, once(&request.request_id, command)).await.map(Response::new)
    }

    async fn cancel(&self, request: GrpcRequest<v1::CancelRequest>) -> Result<Response<v1::Run>, Status> {
        let request = request.into_inner();
        let run = status::run(&request.run)?;
        let mode = if request.leave { CancelMode::Leave } else { CancelMode::Undo };
        let (by, reason) = (status::by(&request.by)?, status::words("reason", &request.reason)?);
        let command = Command::Cancel { by, reason, mode };
        steer(&self.0, run, once(&request.request_id, command)).await.map(Response::new)
    }

    async fn pause(&self, request: GrpcRequest<v1::SteerRequest>) -> Result<Response<v1::Run>, Status> {
        let request = request.into_inner();
        let run = status::run(&request.run)?;
        let (by, reason) = (status::by(&request.by)?, status::words("reason", &request.reason)?);
        let command = Command::Pause { by, reason };
        steer(&self.0, run, once(&request.request_id, command)).await.map(Response::new)
    }

    async fn resume(&self, request: GrpcRequest<v1::SteerRequest>) -> Result<Response<v1::Run>, Status> {
        let request = request.into_inner();
        let run = status::run(&request.run)?;
        let command = Command::Resume { by: status::by(&request.by)? };
        steer(&self.0, run, once(&request.request_id, command)).await.map(Response::new)
    }

    async fn retry(&self, request: GrpcRequest<v1::SteerRequest>) -> Result<Response<v1::Run>, Status> {
        let run = status::run(&request.get_ref().run)?;
        if let Some(owner) = forward::owner(&self.0, run.shard(), request.metadata()).await? {
            let request = forward::passed_on(request.into_inner());
            return RunServiceClient::new(owner).retry(request).await.map_err(forward::lost);
        }
        let request = request.into_inner();
        let command = Command::Retry { by: status::by(&request.by)? };
        retry(&self.0, run, once(&request.request_id, command)).await.map(Response::new)
    }
}

async fn start(parts: &Parts, request: v1::StartRunRequest) -> Result<v1::StartRunResponse, Status> {
    let start = start_of(parts, &request)?;
    let run = start.run;
    let started = async { parts.ingest.start(start).await.map_err(|error| status::of_refused(&error)) };
    let Some(wait) = request.wait_ms.map(Duration::from_millis) else {
        let started = started.await?;
        return Ok(v1::StartRunResponse { run: run.to_string(), duplicate: started.duplicate, state: None });
    };
    // Asked together with the start: one batch, and no end is missed.
    let ended = tokio::time::timeout(wait, await_end(parts, run));
    let (started, ended) = tokio::select! {
        both = join(started, ended) => both,
        () = parts.stopping.said() => return Err(serving::stopped()),
    };
    let started = started?;
    let state = match ended {
        Ok(Some(state)) => state,
        Ok(None) | Err(_) => get(parts, run).await?,
    };
    Ok(v1::StartRunResponse { run: run.to_string(), duplicate: started.duplicate, state: Some(state) })
}

/// The run that a request asks for.
pub(super) fn start_of(parts: &Parts, request: &v1::StartRunRequest) -> Result<StartRun, Status> {
    let namespace = status::namespace(&request.namespace)?;
    let name = status::name("workflow", &request.workflow)?;
    let in_force = parts.definitions.in_force();
    let workflow = in_force.catalogue.workflow(&namespace, &name).ok_or_else(|| {
        let hint = "see `kapell get workflows`, or apply it with `kapell apply -f`";
        Status::not_found(format!("there is no workflow `{name}` in namespace `{namespace}`; {hint}"))
    })?;
    let event = start_event(parts, request)?;
    parts.ingest.start_of(workflow, &event).map_err(|error| status::of_refused(&error))
}

/// The run when it has ended; `None`: it is not live.
async fn await_end(parts: &Parts, run: RunId) -> Option<v1::Run> {
    loop {
        let (reply, ended) = oneshot::channel();
        parts.links.of_run(run)?.submit(Request::AwaitEnd(run, waiting(reply))).await;
        match ended.await {
            Ok(seen) => return seen,
            // Its shard died or moved: whoever has it now knows.
            Err(_) => tokio::time::sleep(ASK_AGAIN).await,
        }
    }
}

/// Waits for an end until the other side of the channel is gone.
fn waiting(reply: oneshot::Sender<Option<v1::Run>>) -> EndWaiter {
    let reply = Arc::new(Mutex::new(Some(reply)));
    let listener = reply.clone();
    EndWaiter {
        is_gone: Box::new(move || {
            let reply = listener.lock().unwrap_or_else(PoisonError::into_inner);
            reply.as_ref().is_none_or(oneshot::Sender::is_closed)
        }),
        tell: Box::new(move |seen| {
            if let Some(reply) = reply.lock().unwrap_or_else(PoisonError::into_inner).take() {
                answer(reply, seen);
            }
        }),
    }
}

/// The event of a run that is started by hand.
fn start_event(parts: &Parts, request: &v1::StartRunRequest) -> Result<Event, Status> {
    let data = parse("input", &request.input)?;
    let id = if request.request_id.is_empty() {
        format!("{:032x}", parts.runtime.entropy.next_u128())
    } else {
        request.request_id.clone()
    };
    event_of("kapell.run.start", Origin::REQUEST, &id, None, &data)
}

fn signal_event(parts: &Parts, request: &v1::SignalRequest) -> Result<Event, Status> {
    let data = parse("data", &request.data)?;
    let id = format!("{:032x}", parts.runtime.entropy.next_u128());
    let subject = (!request.subject.is_empty()).then_some(request.subject.as_str());
    event_of(&request.r#type, "/kapell/signal", &id, subject, &data)
}

fn parse(field: &str, text: &str) -> Result<Json, Status> {
    let text = if text.is_empty() { "{}" } else { text };
    Json::parse(text).map_err(|error| Status::invalid_argument(format!("{field}: {error}")))
}

fn event_of(kind: &str, source: &str, id: &str, subject: Option<&str>, data: &Json) -> Result<Event, Status> {
    if kind.is_empty() {
        return Err(Status::invalid_argument("type must be given"));
    }
    let event = OwnEvent { event_type: kind, source, id, subject, time: None, data };
    event.make().map_err(|error| Status::invalid_argument(error.to_string()))
}

/// A request that has an id is done once.
fn once(request_id: &str, command: Command) -> Command {
    if request_id.is_empty() {
        return command;
    }
    Command::Once { request: RequestId::of(request_id), command: Box::new(command) }
}

/// Sends a command and gives the run as it is then. A caller that gives up before it has left the mailbox has not given
/// it.
pub(super) async fn steer(parts: &Parts, run: RunId, command: Command) -> Result<v1::Run, Status> {
    let unknown = SubmitError::NotFound(run);
    let mailbox = parts.links.of_run(run).ok_or_else(|| status::of_submit(&unknown))?;
    let request = command.request();
    let (reply, answered) = oneshot::channel();
    let asker = Arc::new(Asker);
    mailbox.submit(Request::Steer(Arc::downgrade(&asker), run, Box::new(command), replying(reply))).await;
    let result = answered.await.map_err(|_| status::of_submit(&SubmitError::Unavailable))?;
    let Err(error) = result else { return get(parts, run).await };
    if let (SubmitError::Rejected(Rejected::RunEnded) | SubmitError::NotFound(_), Some(request)) =
        (&error, request)
        && let Ok((folded, _)) = history(parts, run).await
        && folded.has_done(request)
    {
        // It may be over because of it.
        return Ok(shard::view(&folded));
    }
    Err(status::of_submit(&error))
}

/// The run from its shard, or from its history when it is over.
pub(super) async fn get(parts: &Parts, run: RunId) -> Result<v1::Run, Status> {
    let unknown = SubmitError::NotFound(run);
    let mailbox = parts.links.of_run(run).ok_or_else(|| status::of_submit(&unknown))?;
    let (reply, answered) = oneshot::channel();
    mailbox.submit(Request::View(run, replying(reply))).await;
    match answered.await.map_err(|_| status::of_submit(&SubmitError::Unavailable))? {
        Some(state) => Ok(state),
        None => history(parts, run).await.map(|(folded, _)| shard::view(&folded)),
    }
}

/// Reads a live run of a shard that is here; `None`: it is not live.
async fn live<T: Send + 'static>(
    parts: &Parts,
    run: RunId,
    look: impl FnOnce(&Run) -> T + Send + 'static,
) -> Result<Option<T>, Status> {
    let unknown = SubmitError::NotFound(run);
    let mailbox = parts.links.of_run(run).ok_or_else(|| status::of_submit(&unknown))?;
    let (reply, answered) = oneshot::channel();
    let look = Box::new(move |found: Option<&Run>| -> Reply<()> {
        let seen = found.map(look);
        Box::new(move |()| answer(reply, seen))
    });
    mailbox.submit(Request::Read(run, look)).await;
    answered.await.map_err(|_| status::of_submit(&SubmitError::Unavailable))
}

/// The run folded anew from its journal.
async fn history(parts: &Parts, run: RunId) -> Result<(Run, Told), Status> {
    let placed = parts.journal.history(run).await.map_err(|error| Status::data_loss(error.to_string()))?;
    let folded = shard::fold(run, &placed, &*parts.definitions)
        .map_err(|error| Status::data_loss(error.to_string()))?;
    folded.ok_or_else(|| status::of_submit(&SubmitError::NotFound(run)))
}

/// Sends a command to a run that is over, for which it is brought back into its shard.
async fn retry(parts: &Parts, run: RunId, command: Command) -> Result<v1::Run, Status> {
    if live(parts, run, |_| ()).await?.is_some() {
        return steer(parts, run, command).await;
    }
    let (folded, entries) = history(parts, run).await?;
    let unknown = || status::of_submit(&SubmitError::NotFound(run));
    let mailbox = parts.links.of_run(run).ok_or_else(unknown)?;
    let (first, ..) = entries.first().ok_or_else(unknown)?;
    let past = Past { run: Box::new(folded), first: *first };
    let (reply, answered) = oneshot::channel();
    mailbox.submit(Request::Revive(past, Box::new(command), replying(reply))).await;
    let result = answered.await.map_err(|_| status::of_submit(&SubmitError::Unavailable))?;
    result.map_err(|error| status::of_submit(&error))?;
    get(parts, run).await
}

async fn replay(parts: &Parts, run: RunId) -> Result<v1::ReplayResponse, Status> {
    let live = live(parts, run, Run::to_image).await?;
    let (folded, entries) = history(parts, run).await?;
    let folded = folded.to_image();
    let same = live.as_ref().is_none_or(|live| *live == folded);
    let difference = if same { String::new() } else { format!("live: {live:?}; folded: {folded:?}") };
    Ok(v1::ReplayResponse { entries: entries.len() as u64, same, digest: shard::digest(&folded), difference })
}

async fn watch(
    parts: &Parts,
    run: RunId,
) -> Result<Pin<Box<dyn Stream<Item = Result<v1::Run, Status>> + Send>>, Status> {
    let open = parts.streams.open()?;
    let first = get(parts, run).await?;
    let begin = Watching { parts: parts.clone(), run, changes: None, seen: Seen::of(&first) };
    let later = futures::stream::unfold(begin, |mut watching| async move {
        let next = watching.next().await?;
        Some((next, watching))
    });
    let seen = futures::stream::iter([Ok(first)]).chain(later);
    Ok(Box::pin(seen.inspect(move |_| {
        // Held as long as the stream is.
        let _counted = &open;
    })))
}

/// Somebody watches a run. The shard ends the changes when the run is over, and also when it dies or moves.
struct Watching {
    parts: Parts,
    run: RunId,
    changes: Option<mpsc::Receiver<v1::Run>>,
    seen: Seen,
}

/// Whether the watcher has been shown the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Live,
    Ended,
}

impl Seen {
    fn of(run: &v1::Run) -> Seen {
        match run.state() {
            v1::RunState::Completed | v1::RunState::Failed | v1::RunState::Canceled => Seen::Ended,
            v1::RunState::Unspecified
            | v1::RunState::Queued
            | v1::RunState::Running
            | v1::RunState::Waiting
            | v1::RunState::Paused
            | v1::RunState::WindingUp => Seen::Live,
        }
    }
}

impl Watching {
    async fn next(&mut self) -> Option<Result<v1::Run, Status>> {
        if self.seen == Seen::Ended {
            return None;
        }
        let state = match self.change().await {
            Ok(Some(state)) => Ok(state),
            Ok(None) => get(&self.parts, self.run).await,
            Err(refused) => Err(refused),
        };
        self.seen = state.as_ref().map_or(Seen::Ended, Seen::of);
        Some(state)
    }

    /// The next change; `None`: there will be no more from whoever had the shard.
    async fn change(&mut self) -> Result<Option<v1::Run>, Status> {
        if self.changes.is_none() {
            self.changes = self.subscribe().await?;
        }
        let change = match &mut self.changes {
            Some(changes) => changes.recv().await,
            None => None,
        };
        if change.is_none() {
            self.changes = None;
            tokio::time::sleep(ASK_AGAIN).await;
        }
        Ok(change)
    }

    /// `None`: whoever had the shard is gone, and may be asked again.
    async fn subscribe(&self) -> Result<Option<mpsc::Receiver<v1::Run>>, Status> {
        let (to, changes) = mpsc::channel(WATCH_WAITING_MAX);
        let Some(mailbox) = self.parts.links.of_run(self.run) else { return Ok(None) };
        let (reply, answered) = oneshot::channel();
        mailbox.submit(Request::Watch(self.run, to, replying(reply))).await;
        match answered.await {
            Ok(Ok(())) => Ok(Some(changes)),
            Ok(Err(error)) => Err(status::of_submit(&error)),
            Err(_) => Ok(None),
        }
    }
}

async fn list(parts: &Parts, request: v1::ListRunsRequest) -> Result<v1::ListRunsResponse, Status> {
    let states = request.states().map(state_from).collect::<Result<_, _>>()?;
    let workflow = match request.workflow.as_str() {
        "" => None,
        text => Some(status::name("workflow", text)?),
    };
    let text = |text: String| (!text.is_empty()).then_some(text);
    let at = |millis: Option<i64>| millis.and_then(|millis| u64::try_from(millis).ok()).map(Timestamp);
    let query = RunQuery {
        namespace: Some(status::namespace(&request.namespace)?),
        workflow,
        states,
        key: text(request.key),
        entity: text(request.entity),
        accepted_from: at(request.accepted_after_ms),
        accepted_to: at(request.accepted_before_ms),
        cursor: text(request.cursor).map(Cursor),
        limit: match request.limit as usize {
            0 => PAGE_DEFAULT,
            limit => limit.min(PAGE_MAX),
        },
    };
    let page = parts.ledger.runs(query).await.map_err(|error| status::of_ledger(&error))?;
    Ok(v1::ListRunsResponse {
        runs: page.rows.iter().map(shard::row_view).collect(),
        next_cursor: page.next.map_or_else(String::new, |cursor| cursor.0),
        behind: super::admin::behind(parts).await,
    })
}

fn state_from(state: v1::RunState) -> Result<RunState, Status> {
    Ok(match state {
        v1::RunState::Queued => RunState::Queued,
        v1::RunState::Running => RunState::Running,
        v1::RunState::Waiting => RunState::Waiting,
        v1::RunState::Paused => RunState::Paused,
        v1::RunState::WindingUp => RunState::WindingUp,
        v1::RunState::Completed => RunState::Completed,
        v1::RunState::Failed => RunState::Failed,
        v1::RunState::Canceled => RunState::Canceled,
        v1::RunState::Unspecified => return Err(Status::invalid_argument("states: 0 is no state")),
    })
}
