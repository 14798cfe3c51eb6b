//! Starting many runs at once: the requests of all callers share one stream.
//!
//! Owns: the stream, the tags, telling each caller its own answer. Never: sends a request twice by itself; the
//! caller's `start` does, until its deadline.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kapell_proto::v1;
use kapell_proto::v1::tagged_started::Result as Outcome;
use kapell_runtime::{Entropy as _, Job, Jobs, OnDeath, SystemEntropy};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use v1::run_service_client::RunServiceClient;

pub use v1::AnswerWhen;

use crate::ClientError;
use crate::homes::Homes;
use crate::link::{ANSWER_BYTES_MAX, Link};
use crate::retry::{Repeat, pause};

const STARTER: Job = Job { name: "starter", on_panic: OnDeath::Log };

/// Requests that wait for the stream.
const WAITING_MAX: usize = 4_096;
/// Requests in one frame.
const FRAME_STARTS_MAX: usize = 256;
/// Frames that wait for the connection.
const FRAMES_WAITING_MAX: usize = 16;

/// Starts runs for many callers over one stream: several times cheaper than a request of its own for each. Cheap to
/// clone; the stream ends with the last clone.
#[derive(Clone, Debug)]
pub struct Starter {
    asks: mpsc::Sender<Ask>,
    deadline: Duration,
}

#[derive(Debug)]
struct Ask {
    start: v1::StartRunRequest,
    answer_when: AnswerWhen,
    reply: oneshot::Sender<Result<v1::StartRunResponse, ClientError>>,
}

impl Starter {
    pub(crate) fn new(link: &Link) -> Starter {
        let (asks, asked) = mpsc::channel(WAITING_MAX);
        Jobs::new().spawn(STARTER, serve(Arc::clone(&link.homes), asked));
        Starter { asks, deadline: link.deadline }
    }

    /// Starts a run and answers when it is on disk, or when it has ended. Without a `request_id` it is given one, so
    /// that it starts once even when the request has to be sent twice; it is, until the deadline. With `wait_ms` the
    /// time to wait comes on top of the deadline.
    pub async fn start(
        &self,
        mut request: v1::StartRunRequest,
        answer_when: AnswerWhen,
    ) -> Result<v1::StartRunResponse, ClientError> {
        if request.request_id.is_empty() {
            request.request_id = format!("{:032x}", SystemEntropy.next_u128());
        }
        let wait = Duration::from_millis(request.wait_ms.unwrap_or_default());
        let within = self.deadline.saturating_add(wait);
        let end = Instant::now() + within;
        let mut tries = 0;
        loop {
            let error = match timeout_at(end, self.ask(request.clone(), answer_when)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => error,
                Err(_) => return Err(ClientError::TimedOut { after: within }),
            };
            match pause(&error, Repeat::Harmless, tries) {
                Some(pause) if Instant::now() + pause < end => sleep(pause).await,
                Some(_) | None => return Err(error),
            }
            tries += 1;
        }
    }

    async fn ask(
        &self,
        start: v1::StartRunRequest,
        answer_when: AnswerWhen,
    ) -> Result<v1::StartRunResponse, ClientError> {
        let (reply, answered) = oneshot::channel();
        let ask = Ask { start, answer_when, reply };
        // Either fails only when the stream's job has ended with its runtime.
        self.asks.send(ask).await.map_err(|_| broken_off())?;
        answered.await.unwrap_or_else(|_| Err(broken_off()))
    }
}

/// Opens a stream whenever somebody asks and there is none.
async fn serve(homes: Arc<Homes>, mut asks: mpsc::Receiver<Ask>) {
    while let Some(first) = asks.recv().await {
        let home = homes.current();
        let mut client =
            RunServiceClient::new(home.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
        let (frames, written) = mpsc::channel(FRAMES_WAITING_MAX);
        let mut stream = Stream { frames, unanswered: BTreeMap::new(), next_tag: 0 };
        let served = match client.start_stream(ReceiverStream::new(written)).await {
            Ok(answers) => stream.serve(first, &mut asks, answers.into_inner()).await,
            Err(status) => {
                stream.owe(first);
                Err(status)
            }
        };
        homes.leave(&home);
        let error = served.map_or_else(ClientError::from, |()| broken_off());
        for (_, reply) in stream.unanswered {
            // A caller that is gone needs no answer.
            drop(reply.send(Err(error.clone())));
        }
    }
}

type Replies = BTreeMap<u64, oneshot::Sender<Result<v1::StartRunResponse, ClientError>>>;

/// One open stream.
struct Stream {
    frames: mpsc::Sender<v1::StartFrame>,
    unanswered: Replies,
    next_tag: u64,
}

impl Stream {
    fn owe(&mut self, ask: Ask) -> v1::TaggedStart {
        self.next_tag += 1;
        self.unanswered.insert(self.next_tag, ask.reply);
        v1::TaggedStart { tag: self.next_tag, start: Some(ask.start), answer_when: ask.answer_when.into() }
    }

    /// Until the server ends the stream, or all clones of the starter are gone.
    async fn serve(
        &mut self,
        first: Ask,
        asks: &mut mpsc::Receiver<Ask>,
        mut answers: Streaming<v1::StartedFrame>,
    ) -> Result<(), Status> {
        let mut waiting = vec![first];
        loop {
            while let Ok(next) = asks.try_recv()
                && waiting.len() < FRAME_STARTS_MAX
            {
                waiting.push(next);
            }
            if !waiting.is_empty() {
                let starts = waiting.drain(..).map(|ask| self.owe(ask)).collect();
                if self.frames.send(v1::StartFrame { starts }).await.is_err() {
                    return Ok(());
                }
            }
            tokio::select! {
                biased;
                frame = answers.message() => match frame? {
                    Some(frame) => frame.answers.into_iter().for_each(|answer| self.tell(answer)),
                    None => return Ok(()),
                },
                next = asks.recv() => match next {
                    Some(next) => waiting.push(next),
                    None => return Ok(()),
                },
            }
        }
    }

    fn tell(&mut self, answer: v1::TaggedStarted) {
        let Some(reply) = self.unanswered.remove(&answer.tag) else { return };
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
