//! What waits to be written to one coordinator.
//!
//! Owns: the order of the messages, and packing as many as are waiting into one frame when the connection can take
//! one. Never: keeps what was written (the host does, until it is acknowledged).
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures::Stream;
use kapell_proto::v1::worker_message::Kind;
use kapell_proto::v1::{Heartbeat, TaskReport, WorkerFrame, WorkerMessage, task_report};
use tokio::sync::Notify;

use crate::limits::{FRAME_BYTES_MAX, FRAME_MESSAGES_MAX, OUTBOX_MESSAGES_MAX};

/// What waits to be written to one coordinator. Shared by the host, which fills it, and the connection.
#[derive(Default)]
pub(crate) struct Outbox {
    inner: Mutex<Inner>,
    /// Told when a full outbox has room again.
    drained: Notify,
}

#[derive(Default)]
struct Inner {
    /// Counts connections; a stream of an earlier one ends.
    connection: u64,
    state: Link,
    heartbeat: Option<Heartbeat>,
    queue: VecDeque<WorkerMessage>,
    waker: Option<Waker>,
}

#[derive(Default, PartialEq, Eq)]
enum Link {
    #[default]
    Closed,
    Open,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a connection: what waited for the last one is dropped, `first` comes first.
    pub(crate) fn open(self: &Arc<Self>, first: Vec<WorkerMessage>) -> Frames {
        let mut inner = self.lock();
        inner.connection += 1;
        inner.state = Link::Open;
        inner.heartbeat = None;
        inner.queue = first.into();
        inner.wake();
        Frames { outbox: Arc::clone(self), connection: inner.connection }
    }

    /// Ends the connection; what is pushed until the next one is dropped.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.state = Link::Closed;
        inner.queue.clear();
        inner.wake();
        drop(inner);
        self.drained.notify_one();
    }

    /// Adds messages in order. Their number is bounded by what the host holds and by [`Outbox::room`].
    pub(crate) fn extend(&self, messages: impl IntoIterator<Item = WorkerMessage>) {
        let mut inner = self.lock();
        if inner.state == Link::Open {
            inner.queue.extend(messages);
            inner.wake();
        }
    }

    /// Replaces a heartbeat that was not written yet.
    pub(crate) fn heartbeat(&self, heartbeat: Heartbeat) {
        let mut inner = self.lock();
        inner.heartbeat = Some(heartbeat);
        inner.wake();
    }

    /// Waits until fewer than [`OUTBOX_MESSAGES_MAX`] messages wait.
    pub(crate) async fn room(&self) {
        while self.lock().queue.len() >= OUTBOX_MESSAGES_MAX {
            self.drained.notified().await;
        }
    }
}

impl Inner {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn frame(&mut self) -> Option<WorkerFrame> {
        let mut messages = Vec::with_capacity(self.queue.len().min(FRAME_MESSAGES_MAX));
        // A heartbeat never waits behind bulk, but the hello stays first.
        let greeting = matches!(self.queue.front(), Some(WorkerMessage { kind: Some(Kind::Hello(_)) }));
        let mut bytes = 0;
        if !greeting && let Some(heartbeat) = self.heartbeat.take() {
            messages.push(WorkerMessage { kind: Some(Kind::Heartbeat(heartbeat)) });
        }
        while messages.len() < FRAME_MESSAGES_MAX {
            let Some(next) = self.queue.front() else { break };
            bytes += bytes_about(next);
            if bytes > FRAME_BYTES_MAX && !messages.is_empty() {
                break;
            }
            messages.extend(self.queue.pop_front());
        }
        (!messages.is_empty()).then_some(WorkerFrame { messages })
    }
}

/// Length on the wire, a little above; measuring exactly costs as much as encoding.
fn bytes_about(message: &WorkerMessage) -> usize {
    const OVERHEAD: usize = 64;
    OVERHEAD
        + match &message.kind {
            Some(Kind::Report(TaskReport { result, .. })) => match result {
                Some(task_report::Result::Output(output)) => output.len(),
                Some(task_report::Result::Error(error)) => error.message.len(),
                None => 0,
            },
            Some(Kind::Tool(request)) => request.args.len() + request.tool.len(),
            Some(Kind::Checkpoint(checkpoint)) => checkpoint.data.len(),
            Some(Kind::Hello(hello)) => hello.holding.len() * 32,
            Some(Kind::Holding(holding)) => holding.tasks.len() * 32,
            Some(Kind::Quarantine(quarantine)) => quarantine.reason.len() + quarantine.specialist.len(),
            Some(Kind::Heartbeat(_) | Kind::Draining(_)) | None => 0,
        }
}

/// The frames of one connection; ends when the connection does.
pub(crate) struct Frames {
    outbox: Arc<Outbox>,
    connection: u64,
}

impl Stream for Frames {
    type Item = WorkerFrame;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<WorkerFrame>> {
        let mut inner = self.outbox.lock();
        if inner.state == Link::Closed || inner.connection != self.connection {
            return Poll::Ready(None);
        }
        let was_full = inner.queue.len() >= OUTBOX_MESSAGES_MAX;
        let Some(frame) = inner.frame() else {
            inner.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        let told = was_full && inner.queue.len() < OUTBOX_MESSAGES_MAX;
        drop(inner);
        if told {
            self.outbox.drained.notify_one();
        }
        Poll::Ready(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, StreamExt as _};
    use kapell_proto::v1::{Checkpoint, Draining, WorkerHello};

    use super::*;

    fn of(kind: Kind) -> WorkerMessage {
        WorkerMessage { kind: Some(kind) }
    }
    fn checkpoint(position: u32, bytes: usize) -> WorkerMessage {
        of(Kind::Checkpoint(Checkpoint { task: None, position, data: "x".repeat(bytes) }))
    }
    fn next(frames: &mut Frames) -> Option<Vec<WorkerMessage>> {
        frames.next().now_or_never().flatten().map(|frame| frame.messages)
    }

    #[test]
    fn what_waits_travels_in_one_frame_up_to_its_size() {
        let outbox = Arc::new(Outbox::default());
        let mut frames = outbox.open(vec![of(Kind::Hello(WorkerHello::default()))]);
        outbox.heartbeat(Heartbeat { sent_ms: 1 });
        outbox.heartbeat(Heartbeat { sent_ms: 2 });
        outbox.extend((0..3).map(|position| checkpoint(position, 30_000)));
        let first = next(&mut frames).unwrap();
        assert!(matches!(first[0].kind, Some(Kind::Hello(_))), "{first:?}");
        assert_eq!(first.len(), 3, "two checkpoints fit beside the hello");
        let second = next(&mut frames).unwrap();
        assert!(matches!(second[0].kind, Some(Kind::Heartbeat(Heartbeat { sent_ms: 2 }))));
        assert_eq!(second.len(), 2);
        assert!(next(&mut frames).is_none());
        outbox.extend([checkpoint(0, FRAME_BYTES_MAX * 2), of(Kind::Draining(Draining {}))]);
        assert_eq!(next(&mut frames).unwrap().len(), 1, "a large message travels alone");
        assert_eq!(next(&mut frames).unwrap().len(), 1);
    }

    #[test]
    fn a_new_connection_begins_anew_and_ends_the_old_one() {
        let outbox = Arc::new(Outbox::default());
        outbox.extend([checkpoint(0, 1)]);
        let mut old = outbox.open(vec![checkpoint(1, 1)]);
        let mut new = outbox.open(vec![checkpoint(2, 1)]);
        assert_eq!(old.next().now_or_never(), Some(None));
        assert_eq!(next(&mut new).unwrap(), [checkpoint(2, 1)]);
        outbox.close();
        outbox.extend([checkpoint(3, 1)]);
        assert_eq!(new.next().now_or_never(), Some(None));
    }

    #[test]
    fn a_full_outbox_says_when_it_has_room() {
        let outbox = Arc::new(Outbox::default());
        let mut frames = outbox.open(Vec::new());
        outbox.extend((0..OUTBOX_MESSAGES_MAX as u32).map(|at| checkpoint(at, 0)));
        let mut room = Box::pin(outbox.room());
        assert!((&mut room).now_or_never().is_none());
        assert_eq!(next(&mut frames).unwrap().len(), FRAME_MESSAGES_MAX);
        assert!(room.now_or_never().is_some());
    }
}
