//! The bounded queue in front of a shard: an actor's own mailbox has no bound, so it is never used for requests.
//!
//! Owns: the bound, the typed answer when it is reached, waking the actor once for many requests.
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ractor::ActorRef;
use tokio::sync::Notify;

use super::message::{Request, ShardMessage};

/// The queue of one shard. Outlives the actor, so that requests wait while it is restarted.
pub(crate) struct Mailbox {
    inner: Mutex<Inner>,
    capacity: usize,
    room: Notify,
    /// Some run of the shard waits for an event; events pass by shards where none does.
    waits: AtomicBool,
}

#[derive(Default)]
struct Inner {
    queue: VecDeque<Request>,
    /// Of all that is queued.
    weight: usize,
    server: Server,
    /// A `Wake` is under way, or the server will look again by itself.
    woken: bool,
}

/// Who takes requests out.
#[derive(Default)]
enum Server {
    /// The shard is on its way from one owner to the next: requests wait.
    #[default]
    Nobody,
    /// The shard itself.
    Shard(ActorRef<ShardMessage>),
    /// A forwarder to the node that owns the shard.
    Forwarder(Arc<Notify>),
}

/// The queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busy {
    /// When to try again.
    pub(crate) retry_after: Duration,
}

/// How long a full queue needs to make room, roughly.
const RETRY_AFTER: Duration = Duration::from_millis(50);

impl Mailbox {
    /// Takes requests up to the weight of `capacity`; one alone may weigh more.
    #[must_use]
    pub(crate) fn new(capacity: usize) -> Mailbox {
        Mailbox { inner: Mutex::default(), capacity, room: Notify::new(), waits: AtomicBool::new(false) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is room for one more.
    pub(crate) fn room(&self) -> Result<(), Busy> {
        let is_full = self.lock().weight >= self.capacity;
        if is_full { Err(Busy { retry_after: RETRY_AFTER }) } else { Ok(()) }
    }

    /// Takes a request, or gives it back when there is no room.
    pub(crate) fn try_submit(&self, request: Request) -> Result<(), (Busy, Request)> {
        let mut inner = self.lock();
        if inner.weight >= self.capacity {
            return Err((Busy { retry_after: RETRY_AFTER }, request));
        }
        inner.push(request);
        Ok(())
    }

    /// Takes a request as soon as there is room: for streams, whose sender is held back meanwhile.
    pub(crate) async fn submit(&self, mut request: Request) {
        loop {
            let room = self.room.notified();
            match self.try_submit(request) {
                Ok(()) => return,
                Err((_, back)) => request = back,
            }
            room.await;
        }
    }

    /// Takes what belongs to promises already made (timers, children, reports); never refused.
    pub(crate) fn submit_owed(&self, request: Request) {
        self.lock().push(request);
    }

    /// A new actor serves the queue from now on.
    pub(super) fn serve(&self, actor: ActorRef<ShardMessage>) {
        self.served_by(Server::Shard(actor));
    }

    /// A forwarder serves the queue from now on; it is notified when there is something to take.
    pub(crate) fn forward(&self, forwarder: Arc<Notify>) {
        // Only the owner knows.
        self.set_waits(true);
        self.served_by(Server::Forwarder(forwarder));
    }

    /// Requests wait until somebody serves the queue again.
    pub(crate) fn hold(&self) {
        self.set_waits(true);
        self.served_by(Server::Nobody);
    }

    fn served_by(&self, server: Server) {
        let mut inner = self.lock();
        inner.server = server;
        inner.woken = false;
        inner.wake();
    }

    /// Gives back requests that were taken and not done; they come first again, in their order.
    pub(crate) fn put_back(&self, requests: Vec<Request>) {
        let mut inner = self.lock();
        for request in requests.into_iter().rev() {
            inner.weight += request.weight();
            inner.queue.push_front(request);
        }
        inner.wake();
    }

    /// Requests in order of arrival, until they weigh `most`. When it gives none, the next request wakes the actor.
    pub(crate) fn take(&self, most: usize) -> Vec<Request> {
        let mut inner = self.lock();
        let (mut taken, mut weight) = (Vec::with_capacity(inner.queue.len()), 0);
        // Dropped without the lock: what is dropped may ask again.
        let mut unwanted = Vec::new();
        while weight < most
            && let Some(request) = inner.queue.pop_front()
        {
            weight += request.weight();
            if request.is_wanted() {
                taken.push(request);
            } else {
                unwanted.push(request);
            }
        }
        inner.weight -= weight;
        inner.woken = !inner.queue.is_empty();
        drop(inner);
        self.room.notify_waiters();
        taken
    }

    /// Whether an event may reach a run of the shard.
    #[must_use]
    pub(crate) fn has_waits(&self) -> bool {
        self.waits.load(Ordering::Acquire)
    }

    pub(super) fn set_waits(&self, any: bool) {
        self.waits.store(any, Ordering::Release);
    }

    /// Requests that wait.
    #[must_use]
    pub(crate) fn waiting(&self) -> usize {
        self.lock().queue.len()
    }
}

impl Inner {
    fn push(&mut self, request: Request) {
        self.weight += request.weight();
        self.queue.push_back(request);
        self.wake();
    }

    fn wake(&mut self) {
        if self.woken || self.queue.is_empty() {
            return;
        }
        match &self.server {
            Server::Nobody => {}
            // An actor that has just died is replaced, and `serve` wakes its successor.
            Server::Shard(actor) => self.woken = actor.cast(ShardMessage::Wake).is_ok(),
            Server::Forwarder(forwarder) => {
                forwarder.notify_one();
                self.woken = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kapell_kernel::Command;
    use kapell_model::{RunId, ShardId};

    use super::super::message::{Asker, SubmitError};
    use super::*;

    fn request() -> Request {
        Request::Stats(Box::new(|_| {}))
    }

    #[tokio::test]
    async fn a_full_mailbox_refuses_holds_streams_back_and_keeps_promises() {
        let mailbox = Arc::new(Mailbox::new(2));
        for _ in 0..2 {
            assert!(mailbox.try_submit(request()).is_ok());
        }
        let refused = mailbox.try_submit(request()).map_err(|(busy, _)| busy);
        assert_eq!(refused, Err(Busy { retry_after: RETRY_AFTER }));
        mailbox.submit_owed(request());
        assert_eq!(mailbox.waiting(), 3, "what was promised is never refused");

        let stream = mailbox.clone();
        let mut held_back = std::pin::pin!(async move { stream.submit(request()).await });
        assert!(futures::poll!(&mut held_back).is_pending());
        assert_eq!(mailbox.take(1).len(), 1);
        assert!(futures::poll!(&mut held_back).is_pending(), "two are waiting still");
        assert_eq!(mailbox.take(1).len(), 1);
        tokio::time::timeout(Duration::from_secs(5), held_back).await.unwrap();
        assert_eq!(mailbox.waiting(), 2);
    }

    #[tokio::test]
    async fn a_command_whose_asker_gave_up_is_not_done_even_if_it_was_put_back() {
        let mailbox = Mailbox::new(2);
        let asker = Arc::new(Asker);
        let run = RunId::new(ShardId(0), 1);
        let (reply, answered) = tokio::sync::oneshot::channel();
        let reply = Box::new(move |result: Result<(), SubmitError>| reply.send(result).unwrap());
        let command = Box::new(Command::AcknowledgeEnd);
        assert!(mailbox.try_submit(Request::Steer(Arc::downgrade(&asker), run, command, reply)).is_ok());
        let taken = mailbox.take(1);
        assert_eq!(taken.len(), 1, "somebody waits for it");
        mailbox.put_back(taken);
        drop(asker);
        assert!(mailbox.take(1).is_empty());
        assert!(answered.await.is_err(), "who would be told is gone");
        assert!(mailbox.try_submit(request()).is_ok() && mailbox.try_submit(request()).is_ok(), "nor room");
    }
}
