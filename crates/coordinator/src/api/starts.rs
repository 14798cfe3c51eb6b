//! Starting many runs over one stream.
//!
//! Owns: the answers that are owed, and packing those that are there into frames. Never: answers a tag twice, or
//! leaves one unanswered: what is dropped answers that it may be sent again.
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use kapell_model::RunId;
use kapell_proto::v1::tagged_started::Result as Outcome;
use kapell_proto::v1::{self, AnswerWhen};
use kapell_runtime::{Job, OnDeath};
use tokio::sync::Notify;
use tokio_stream::wrappers::WatchStream;
use tonic::{Status, Streaming};

use super::{Parts, runs, status};
use crate::peer::Peers;
use crate::session::OpenStream;
use crate::shard::{Busy, EndWaiter, Reply, Request, StartRun, Started, SubmitError};

const STARTS: Job = Job { name: "starts", on_panic: OnDeath::Log };
const LOOK_BACK: Job = Job { name: "run that had ended", on_panic: OnDeath::Log };

/// Starts of one stream that may be unanswered at once.
const UNANSWERED_MAX: usize = 65_536;
/// When to try again with more.
const UNANSWERED_RETRY: Duration = Duration::from_millis(100);
/// Answers in one frame.
const FRAME_ANSWERS_MAX: usize = 256;

/// Serves one stream.
pub(super) fn serve(parts: Parts, frames: Streaming<v1::StartFrame>, open: OpenStream) -> Answers {
    let account = Arc::new(Account::default());
    let answers = Answers::new(account.clone(), parts.peers.clone(), open);
    parts.runtime.jobs.clone().spawn(STARTS, read(parts, frames, account));
    answers
}

async fn read(parts: Parts, mut frames: Streaming<v1::StartFrame>, account: Arc<Account>) {
    loop {
        // Whoever does not read the answers is not read either.
        account.has_room().await;
        match frames.message().await {
            Ok(Some(frame)) => {
                frame.starts.into_iter().for_each(|start| take(&parts, start, &account));
            }
            Ok(None) => break,
            Err(status) => {
                tracing::debug!(%status, "a stream of starts broke off");
                break;
            }
        }
    }
    account.all_read();
}

fn take(parts: &Parts, tagged: v1::TaggedStart, account: &Arc<Account>) {
    let answer_when = tagged.answer_when();
    let Some(answer) = Account::owe(account, tagged.tag) else {
        let busy = SubmitError::Busy { retry_after: UNANSWERED_RETRY };
        account.push(tagged.tag, refused(&status::of_submit(&busy)));
        return;
    };
    match runs::start_of(parts, &tagged.start.unwrap_or_default()) {
        Err(status) => answer.give(refused(&status)),
        Ok(start) => match answer_when {
            AnswerWhen::Unspecified | AnswerWhen::Started => begin(parts, start, answer),
            AnswerWhen::Ended => begin_and_await(parts, start, answer),
        },
    }
}

fn begin(parts: &Parts, start: StartRun, answer: Answer) {
    let reply = move |result: Result<Started, SubmitError>| {
        answer.give(match result {
            Ok(Started { run, duplicate }) => started(run, duplicate, None),
            Err(error) => refused(&status::of_submit(&error)),
        });
    };
    submit(parts, start, Box::new(reply));
}

fn begin_and_await(parts: &Parts, start: StartRun, answer: Answer) {
    let run = start.run;
    let account = answer.account.clone();
    let begun = Arc::new(OnceLock::new());
    let begins = begun.clone();
    // A shard answers in order, so this is known when the other answer comes.
    submit(parts, start, Box::new(move |result| drop(begins.set(result))));
    let for_later = parts.clone();
    let ended = move |seen: Option<v1::Run>| match (begun.get(), seen) {
        (Some(Ok(Started { duplicate, .. })), Some(seen)) => {
            answer.give(started(run, *duplicate, Some(seen)))
        }
        (Some(Ok(Started { duplicate, .. })), None) => look_back(&for_later, run, *duplicate, answer),
        (Some(Err(error)), _) => answer.give(refused(&status::of_submit(error))),
        // The shard died in between: the answer says so when it is dropped.
        (None, _) => {}
    };
    match parts.links.of_run(run) {
        // Belongs to the start; their number is bounded by what a stream may owe.
        Some(mailbox) => {
            let is_gone = Box::new(move || account.as_ref().is_none_or(|account| account.is_gone()));
            mailbox.submit_owed(Request::AwaitEnd(run, EndWaiter { is_gone, tell: Box::new(ended) }));
        }
        None => ended(None),
    }
}

fn submit(parts: &Parts, start: StartRun, reply: Reply<Result<Started, SubmitError>>) {
    let run = start.run;
    let Some(mailbox) = parts.links.of_run(run) else { return reply(Err(SubmitError::NotFound(run))) };
    let of_one = Box::new(|mut results: Vec<Result<Started, SubmitError>>| {
        if let Some(result) = results.pop() {
            reply(result);
        }
    });
    if let Err((Busy { retry_after }, Request::Start(_, reply))) =
        mailbox.try_submit(Request::Start(vec![start], of_one))
    {
        reply(vec![Err(SubmitError::Busy { retry_after })]);
    }
}

/// A run that had ended before it was asked for is read from its history.
fn look_back(parts: &Parts, run: RunId, duplicate: bool, answer: Answer) {
    let of = parts.clone();
    parts.runtime.jobs.spawn(LOOK_BACK, async move {
        answer.give(match runs::get(&of, run).await {
            Ok(seen) => started(run, duplicate, Some(seen)),
            Err(status) => refused(&status),
        });
    });
}

fn started(run: RunId, duplicate: bool, state: Option<v1::Run>) -> Outcome {
    Outcome::Started(v1::StartRunResponse { run: run.to_string(), duplicate, state })
}

fn refused(status: &Status) -> Outcome {
    Outcome::Problem(status::problem(status))
}

/// What a stream owes and what is ready to be written.
#[derive(Default)]
struct Account {
    book: Mutex<Book>,
    /// Answers were taken away.
    taken: Notify,
}

#[derive(Default)]
struct Book {
    unanswered: usize,
    ready: Vec<v1::TaggedStarted>,
    reading: Reading,
    writer: Option<Waker>,
    /// Nobody takes the answers any more.
    is_gone: bool,
}

#[derive(Default, PartialEq, Eq)]
enum Reading {
    #[default]
    On,
    Over,
}

impl Account {
    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_gone(&self) -> bool {
        self.lock().is_gone
    }

    /// Waits until there are few enough answers that nobody has taken.
    async fn has_room(&self) {
        loop {
            let taken = self.taken.notified();
            let is_full = {
                let book = self.lock();
                book.ready.len() >= UNANSWERED_MAX && !book.is_gone
            };
            if !is_full {
                return;
            }
            taken.await;
        }
    }

    /// One more answer, unless too many are owed.
    fn owe(account: &Arc<Account>, tag: u64) -> Option<Answer> {
        let mut book = account.lock();
        if book.unanswered >= UNANSWERED_MAX {
            return None;
        }
        book.unanswered += 1;
        drop(book);
        Some(Answer { tag, account: Some(account.clone()) })
    }

    fn push(&self, tag: u64, outcome: Outcome) {
        let mut book = self.lock();
        book.ready.push(v1::TaggedStarted { tag, result: Some(outcome) });
        book.wake();
    }

    fn all_read(&self) {
        let mut book = self.lock();
        book.reading = Reading::Over;
        book.wake();
    }
}

impl Book {
    fn wake(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }
}

/// One answer that is owed.
struct Answer {
    tag: u64,
    account: Option<Arc<Account>>,
}

impl Answer {
    fn give(mut self, outcome: Outcome) {
        self.settle(outcome);
    }

    fn settle(&mut self, outcome: Outcome) {
        if let Some(account) = self.account.take() {
            account.lock().unanswered -= 1;
            account.push(self.tag, outcome);
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.settle(refused(&status::of_submit(&SubmitError::Unavailable)));
    }
}

/// The answers of one stream, as many in a frame as are ready; and which shards are here, at first and when it changes.
pub(super) struct Answers {
    account: Arc<Account>,
    peers: Arc<Peers>,
    /// Says at once that it was not looked yet.
    moves: WatchStream<()>,
    said: Option<v1::ShardsHere>,
    _counted: OpenStream,
}

impl Answers {
    fn new(account: Arc<Account>, peers: Arc<Peers>, open: OpenStream) -> Answers {
        let moves = WatchStream::new(peers.moves());
        Answers { account, peers, moves, said: None, _counted: open }
    }

    /// What is to be said; most moves are between other nodes.
    fn here(&mut self, context: &mut Context<'_>) -> Option<v1::ShardsHere> {
        while let Poll::Ready(Some(())) = self.moves.poll_next_unpin(context) {
            let here = Some(self.peers.shards_here());
            if self.said != here {
                self.said.clone_from(&here);
                return here;
            }
        }
        None
    }
}

impl Stream for Answers {
    type Item = Result<v1::StartedFrame, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let here = self.here(context);
        let mut book = self.account.lock();
        if book.ready.is_empty() && here.is_none() {
            if book.reading == Reading::Over && book.unanswered == 0 {
                return Poll::Ready(None);
            }
            book.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let count = book.ready.len().min(FRAME_ANSWERS_MAX);
        let answers = book.ready.drain(..count).collect();
        drop(book);
        self.account.taken.notify_one();
        Poll::Ready(Some(Ok(v1::StartedFrame { answers, here })))
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.account.lock().is_gone = true;
        self.account.taken.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use kapell_model::{ShardCount, ShardId};
    use kapell_runtime::Runtime;

    use super::*;
    use crate::links::Links;
    use crate::options::CoordinatorOptions;
    use crate::placement::Route;
    use crate::session::Streams;

    fn peers() -> Arc<Peers> {
        let links = Arc::new(Links::new(ShardCount::new(4).unwrap(), 8));
        Arc::new(Peers::new(&CoordinatorOptions::default(), links, Arc::default(), Runtime::system()))
    }

    #[tokio::test]
    async fn a_stream_says_which_shards_are_here_at_first_and_when_one_comes() {
        let (peers, open) = (peers(), Streams::default().open().unwrap());
        peers.route(ShardId(2), Route::Here);
        let mut answers = Answers::new(Arc::default(), peers.clone(), open);
        let here = |shards: &[u32]| v1::ShardsHere { count: 4, shards: shards.to_vec() };
        assert_eq!(answers.next().await.unwrap().unwrap().here, Some(here(&[2])));
        assert!(futures::poll!(answers.next()).is_pending());
        answers.account.push(7, refused(&Status::not_found("no such run")));
        assert_eq!(answers.next().await.unwrap().unwrap().here, None, "nothing has changed");
        peers.route(ShardId(1), Route::Here);
        peers.route(ShardId(2), Route::Nowhere);
        assert_eq!(answers.next().await.unwrap().unwrap().here, Some(here(&[1])));
        peers.route(ShardId(3), Route::Nowhere);
        assert!(futures::poll!(answers.next()).is_pending(), "it went from one node to another");
    }

    #[tokio::test]
    async fn whoever_does_not_take_the_answers_is_not_read_any_more() {
        let account = Arc::new(Account::default());
        let mut answers = Answers::new(account.clone(), peers(), Streams::default().open().unwrap());
        for tag in 0..UNANSWERED_MAX as u64 {
            account.has_room().await;
            Account::owe(&account, tag).unwrap().give(refused(&Status::not_found("no such run")));
        }
        {
            let mut room = std::pin::pin!(account.has_room());
            assert!(futures::poll!(&mut room).is_pending());
            assert_eq!(answers.next().await.unwrap().unwrap().answers.len(), FRAME_ANSWERS_MAX);
            room.await;
        }
        for tag in 0..FRAME_ANSWERS_MAX as u64 {
            account.push(tag, refused(&Status::not_found("no such run")));
        }
        let mut room = std::pin::pin!(account.has_room());
        assert!(futures::poll!(&mut room).is_pending());
        drop(answers);
        room.await;
        assert!(account.is_gone(), "and nobody waits for somebody who went");
    }
}
