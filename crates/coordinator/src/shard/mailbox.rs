//! The bounded queue in front of a shard: an actor's own mailbox has no bound, so it is never used for requests.
//!
//! Owns: the bound, the typed answer when it is reached, waking the actor once for many requests.
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
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
    actor: Option<ActorRef<ShardMessage>>,
    /// A `Wake` is under way, or the actor will look again by itself.
    woken: bool,
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
    /// Takes at most `capacity` requests.
    #[must_use]
    pub(crate) fn new(capacity: usize) -> Mailbox {
        Mailbox { inner: Mutex::default(), capacity, room: Notify::new(), waits: AtomicBool::new(false) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a request, or gives it back when there is no room.
    pub(crate) fn try_submit(&self, request: Request) -> Result<(), (Busy, Request)> {
        let mut inner = self.lock();
        if inner.queue.len() >= self.capacity {
            return Err((Busy { retry_after: RETRY_AFTER }, request));
        }
        inner.queue.push_back(request);
        inner.wake();
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
        let mut inner = self.lock();
        inner.queue.push_back(request);
        inner.wake();
    }

    /// A new actor serves the queue from now on.
    pub(super) fn serve(&self, actor: ActorRef<ShardMessage>) {
        let mut inner = self.lock();
        inner.actor = Some(actor);
        inner.woken = false;
        inner.wake();
    }

    /// At most `most` requests in order of arrival. When it gives none, the next request wakes the actor.
    pub(super) fn take(&self, most: usize) -> Vec<Request> {
        let mut inner = self.lock();
        let count = inner.queue.len().min(most);
        let taken = inner.queue.drain(..count).collect();
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
    fn wake(&mut self) {
        if self.woken || self.queue.is_empty() {
            return;
        }
        if let Some(actor) = &self.actor {
            // An actor that has just died is replaced, and `serve` wakes its successor.
            self.woken = actor.cast(ShardMessage::Wake).is_ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask() -> Request {
        Request::Stats(Box::new(|_| {}))
    }

    #[test]
    fn a_full_queue_gives_the_request_back_and_keeps_what_was_promised() {
        let mailbox = Mailbox::new(3);
        for _ in 0..3 {
            assert!(mailbox.try_submit(ask()).is_ok());
        }
        let (busy, back) = mailbox.try_submit(ask()).err().unwrap();
        assert_eq!(busy.retry_after, RETRY_AFTER);
        assert!(matches!(back, Request::Stats(_)));
        mailbox.submit_owed(ask());
        assert_eq!(mailbox.waiting(), 4, "what belongs to a promise is never refused");
        assert_eq!(mailbox.take(2).len(), 2);
        assert!(mailbox.try_submit(ask()).is_ok());
        assert!(mailbox.try_submit(ask()).is_err());
    }
}
