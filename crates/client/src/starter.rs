//! Starting many runs at once: the requests of all callers share one stream to each coordinator.
//!
//! Owns: the streams, which of them a start goes to, the tags, telling each caller its own answer. Never: sends a request
//! twice by itself; the caller's `start` does, until its deadline.
mod routes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kapell_model::ShardId;
use kapell_proto::v1;
use kapell_proto::v1::tagged_started::Result as Outcome;
use kapell_runtime::{Job, Jobs, OnDeath};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use v1::run_service_client::RunServiceClient;

pub use v1::AnswerWhen;

use crate::ClientError;
use crate::homes::{Home, Homes};
use crate::link::{ANSWER_BYTES_MAX, ANSWER_MAX, Link};
use crate::retry::{Repeat, pause};
use crate::services::name;
use routes::{Place, Routes};

const STARTER: Job = Job { name: "starter", on_panic: OnDeath::Log };

/// Requests that wait for the stream.
const WAITING_MAX: usize = 4_096;
/// Requests in one frame.
const FRAME_STARTS_MAX: usize = 256;
/// Frames that wait for the connection.
const FRAMES_WAITING_MAX: usize = 16;
/// A coordinator that broke off is connected to again after so long, if nobody asks it sooner.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// Starts runs for many callers over one stream to each coordinator: several times cheaper than a request of its own for
/// each. A run goes to the coordinator that owns its shard, if that is one of those whose addresses were given. Cheap to
/// clone; the streams end with the last clone.
#[derive(Clone, Debug)]
pub struct Starter {
    homes: Arc<Homes>,
    routes: Arc<Routes>,
    /// To the stream of each coordinator.
    asks: Vec<mpsc::Sender<Ask>>,
    deadline: Duration,
}

#[derive(Debug)]
struct Ask {
    /// Where its run is to live, if it goes to the owner; otherwise it is passed on.
    shard: Option<ShardId>,
    start: v1::StartRunRequest,
    answer_when: AnswerWhen,
    reply: oneshot::Sender<Result<v1::StartRunResponse, ClientError>>,
}

impl Starter {
    pub(crate) fn new(link: &Link) -> Starter {
        let (homes, routes) = (Arc::clone(&link.homes), Arc::<Routes>::default());
        let open = |home: Home| {
            let (asks, asked) = mpsc::channel(WAITING_MAX);
            let lane = Lane { homes: Arc::clone(&homes), routes: Arc::clone(&routes), home };
            Jobs::new().spawn(STARTER, lane.serve(asked));
            asks
        };
        let asks = homes.all().map(open).collect();
        Starter { homes, routes, asks, deadline: link.deadline }
    }

    /// Starts a run and answers when it is on disk, or when it has ended. Without a `request_id` it is given one, so
    /// that it starts once even when the request has to be sent twice; it is, until the deadline. With `wait_ms` the
    /// time to wait comes on top of the deadline.
    pub async fn start(
        &self,
        mut request: v1::StartRunRequest,
        answer_when: AnswerWhen,
    ) -> Result<v1::StartRunResponse, ClientError> {
        name(&mut request.request_id);
        let wait = Duration::from_millis(request.wait_ms.unwrap_or_default());
        let within = self.deadline.saturating_add(wait);
        let end = Instant::now() + within;
        // Whoever waits for the end of a run may hear nothing for long.
        let may_move = answer_when != AnswerWhen::Ended && self.homes.has_others();
        let mut tries = 0;
        loop {
            let (place, shard) = self.place_of(&request);
            let answer_by = if may_move { end.min(Instant::now() + ANSWER_MAX) } else { end };
            let asked = self.ask(place, shard, request.clone(), answer_when);
            let error = match timeout_at(answer_by, asked).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => error,
                Err(_) if answer_by < end => {
                    self.homes.leave(place);
                    ClientError::silent()
                }
                Err(_) => return Err(ClientError::TimedOut { after: within }),
            };
            match pause(&error, Repeat::Harmless, tries) {
                Some(pause) if Instant::now() + pause < end => sleep(pause).await,
                Some(_) | None => return Err(error),
            }
            tries += 1;
        }
    }

    /// Whom to ask; with the shard, if it is the owner.
    fn place_of(&self, start: &v1::StartRunRequest) -> (Place, Option<ShardId>) {
        // Whoever is alone is asked, whatever it owns.
        let owner = if self.homes.has_others() { self.routes.owner_of(start) } else { None };
        owner.map_or_else(|| (self.homes.current().at, None), |(shard, place)| (place, Some(shard)))
    }

    async fn ask(
        &self,
        place: Place,
        shard: Option<ShardId>,
        start: v1::StartRunRequest,
        answer_when: AnswerWhen,
    ) -> Result<v1::StartRunResponse, ClientError> {
        let (reply, answered) = oneshot::channel();
        let ask = Ask { shard, start, answer_when, reply };
        // Either fails only when the stream's job has ended with its runtime.
        self.asks[place].send(ask).await.map_err(|_| broken_off())?;
        answered.await.unwrap_or_else(|_| Err(broken_off()))
    }
}

/// The way to one coordinator.
struct Lane {
    homes: Arc<Homes>,
    routes: Arc<Routes>,
    home: Home,
}

impl Lane {
    /// Opens a stream whenever somebody asks and there is none. Among several it is there before: a coordinator that is
    /// not connected to cannot say what it owns.
    async fn serve(self, mut asks: mpsc::Receiver<Ask>) {
        let mut reopen_at = self.homes.has_others().then(Instant::now);
        loop {
            let first = tokio::select! {
                biased;
                next = asks.recv() => match next {
                    Some(next) => Some(next),
                    None => return,
                },
                () = sleep_until(reopen_at.unwrap_or_else(Instant::now)), if reopen_at.is_some() => None,
            };
            self.serve_one(first, &mut asks).await;
            reopen_at = reopen_at.map(|_| Instant::now() + REOPEN_AFTER);
        }
    }

    /// One stream, until it ends.
    async fn serve_one(&self, first: Option<Ask>, asks: &mut mpsc::Receiver<Ask>) {
        let channel = self.home.channel.clone();
        let mut client = RunServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        let (frames, written) = mpsc::channel(FRAMES_WAITING_MAX);
        let mut stream = Stream { lane: self, frames, unanswered: BTreeMap::new(), next_tag: 0 };
        let served = match client.start_stream(ReceiverStream::new(written)).await {
            Ok(answers) => stream.serve(first, asks, answers.into_inner()).await,
            Err(status) => {
                if let Some(first) = first {
                    stream.owe(first);
                }
                Err(status)
            }
        };
        self.homes.leave(self.home.at);
        self.routes.lose(self.home.at);
        // Whoever waits to be sent asks elsewhere too: here each would wait for another connection to fail.
        while let Ok(next) = asks.try_recv() {
            stream.owe(next);
        }
        let error = served.map_or_else(ClientError::from, |()| broken_off());
        for (_, Waiter { reply, .. }) in stream.unanswered {
            // A caller that is gone needs no answer.
            drop(reply.send(Err(error.clone())));
        }
    }
}

/// A caller whose start was sent.
struct Waiter {
    shard: Option<ShardId>,
    reply: oneshot::Sender<Result<v1::StartRunResponse, ClientError>>,
}

/// One open stream.
struct Stream<'a> {
    lane: &'a Lane,
    frames: mpsc::Sender<v1::StartFrame>,
    unanswered: BTreeMap<u64, Waiter>,
    next_tag: u64,
}

impl Stream<'_> {
    fn owe(&mut self, Ask { shard, start, answer_when, reply }: Ask) -> v1::TaggedStart {
        self.next_tag += 1;
        self.unanswered.insert(self.next_tag, Waiter { shard, reply });
        v1::TaggedStart { tag: self.next_tag, start: Some(start), answer_when: answer_when.into() }
    }

    /// Until the server ends the stream, or all clones of the starter are gone.
    async fn serve(
        &mut self,
        first: Option<Ask>,
        asks: &mut mpsc::Receiver<Ask>,
        mut answers: Streaming<v1::StartedFrame>,
    ) -> Result<(), Status> {
        let mut moves = self.lane.routes.changes();
        let mut waiting = Vec::from_iter(first);
        loop {
            while let Ok(next) = asks.try_recv()
                && waiting.len() < FRAME_STARTS_MAX
            {
                waiting.push(next);
            }
            // Who no longer waits has asked elsewhere.
            waiting.retain(|ask| !ask.reply.is_closed());
            if !waiting.is_empty() {
                let starts = waiting.drain(..).map(|ask| self.owe(ask)).collect();
                let is_sent = tokio::select! {
                    biased;
                    sent = self.frames.send(v1::StartFrame { starts }) => sent.is_ok(),
                    // Whoever takes nothing while shards move may have lost its own by standing still.
                    _ = moves.changed() => false,
                };
                if !is_sent {
                    return Ok(());
                }
            }
            tokio::select! {
                biased;
                frame = answers.message() => match frame? {
                    Some(frame) => self.take(frame),
                    None => return Ok(()),
                },
                // The routes live as long as the lane.
                _ = moves.changed() => self.send_on(&moves.borrow_and_update()),
                next = asks.recv() => match next {
                    Some(next) => waiting.push(next),
                    None => return Ok(()),
                },
            }
        }
    }

    fn take(&mut self, frame: v1::StartedFrame) {
        if let Some(here) = frame.here {
            self.lane.routes.learn(self.lane.home.at, &here);
        }
        frame.answers.into_iter().for_each(|answer| self.tell(answer));
    }

    /// Callers whose shard another coordinator owns by now ask that one: this one may stand still.
    fn send_on(&mut self, owners: &[Option<Place>]) {
        let here = self.lane.home.at;
        let is_elsewhere = |shard: ShardId| {
            let owner = owners.get(usize::from(shard.0)).copied().flatten();
            owner.is_some_and(|owner| owner != here)
        };
        let moved = self.unanswered.extract_if(.., |_, waiter| waiter.shard.is_some_and(is_elsewhere));
        for (_, Waiter { reply, .. }) in moved {
            // A caller that is gone needs no answer.
            drop(reply.send(Err(ClientError::Unavailable { message: "the shard has moved".to_owned() })));
        }
    }

    fn tell(&mut self, answer: v1::TaggedStarted) {
        let Some(Waiter { reply, .. }) = self.unanswered.remove(&answer.tag) else { return };
        let result = match answer.result {
            Some(Outcome::Started(started)) => Ok(started),
            Some(Outcome::Problem(problem)) => Err(error_of(problem)),
            None => {
                Err(ClientError::Failed { code: "internal error", message: "an empty answer".to_owned() })
            }
        };
        // A caller that is gone needs no answer.
        drop(reply.send(result));
    }
}

fn error_of(problem: v1::Problem) -> ClientError {
    let mut error = ClientError::from(Status::new(Code::from_i32(problem.code), problem.message));
    if let ClientError::Busy { retry_after, .. } = &mut error {
        *retry_after = problem.retry_after_ms.map(Duration::from_millis);
    }
    error
}

fn broken_off() -> ClientError {
    ClientError::Unavailable { message: "the stream to the coordinator broke off".to_owned() }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures::FutureExt as _;
    use kapell_runtime::SystemNet;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn who_waits_for_a_coordinator_that_breaks_off_needs_no_connection_of_its_own_to_be_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let homes = Arc::new(Homes::reach(Arc::new(SystemNet), &address).await.unwrap());
        let (asks, asked) = mpsc::channel(WAITING_MAX);
        let ask = |_| {
            let (reply, answered) = oneshot::channel();
            let start = v1::StartRunRequest::default();
            asks.try_send(Ask { shard: None, start, answer_when: AnswerWhen::Started, reply }).unwrap();
            answered
        };
        let answers: Vec<_> = (0..100).map(ask).collect();
        drop(asks);
        let connections = Cell::new(0);
        let breaks_off = async {
            loop {
                drop(listener.accept().await.unwrap());
                connections.set(connections.get() + 1);
            }
        };
        let lane = Lane { home: homes.current(), homes, routes: Arc::default() };
        tokio::select! {
            () = lane.serve(asked) => {}
            () = breaks_off => {}
        }
        assert!(connections.get() <= 3, "{} connections for a hundred callers", connections.get());
        for mut answer in answers {
            let told = (&mut answer).now_or_never().unwrap().unwrap();
            assert!(matches!(told, Err(ClientError::Unavailable { .. })), "{told:?}");
        }
    }
}
