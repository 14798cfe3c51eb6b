//! Messages for one stream, packed into frames.
//!
//! Owns: the queue between those who have something to say and the connection. Its length is bounded by what may be
//! unanswered on the stream, never here: what is in it was promised.
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures::Stream;
use kapell_proto::peer::v1::peer_message::Kind;
use kapell_proto::peer::v1::{PeerFrame, PeerMessage};
use kapell_wire::peer::{Outgoing, TooLong, next_frame};

/// Where messages for one connection go.
#[derive(Clone)]
pub(super) struct Outbox {
    queue: Arc<Mutex<Queue>>,
    /// Bytes of a frame that the other side takes.
    most: usize,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Outgoing>,
    reader: Option<Waker>,
    state: State,
}

#[derive(Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    Closed,
}

impl Outbox {
    pub(super) fn new(most: usize) -> Outbox {
        Outbox { queue: Arc::default(), most }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says something; nothing happens when the connection is gone.
    pub(super) fn push(&self, kind: Kind) -> Result<(), TooLong> {
        let message = Outgoing::new(PeerMessage { kind: Some(kind) }, self.most)?;
        let mut queue = self.lock();
        if queue.state == State::Open {
            queue.waiting.push_back(message);
            queue.wake();
        }
        Ok(())
    }

    /// Says something that need not be said.
    pub(super) fn offer(&self, kind: Kind) {
        if let Err(error) = self.push(kind) {
            tracing::debug!(%error, "something was left unsaid to a peer");
        }
    }

    /// Ends the stream after what was said.
    pub(super) fn close(&self) {
        let mut queue = self.lock();
        queue.state = State::Closed;
        queue.wake();
    }

    /// Whether the connection is gone.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().state == State::Closed
    }

    /// What the connection reads.
    pub(super) fn frames(&self) -> Frames {
        Frames(self.clone())
    }
}

impl Queue {
    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// The frames of one connection.
pub(super) struct Frames(Outbox);

impl Stream for Frames {
    type Item = PeerFrame;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<PeerFrame>> {
        let mut queue = self.0.lock();
        if let Some(frame) = next_frame(&mut queue.waiting) {
            return Poll::Ready(Some(frame));
        }
        if queue.state == State::Closed {
            return Poll::Ready(None);
        }
        queue.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        self.0.close();
    }
}
