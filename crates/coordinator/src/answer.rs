//! Answering somebody who may have stopped waiting.
use tokio::sync::oneshot;

/// Gives the answer. Nobody is wronged when the asker is gone: what was asked is done.
pub(crate) fn answer<T>(asker: oneshot::Sender<T>, value: T) {
    if asker.send(value).is_err() {
        tracing::trace!("an answer came after its asker had gone");
    }
}

/// A reply that answers.
pub(crate) fn replying<T: Send + 'static>(asker: oneshot::Sender<T>) -> Box<dyn FnOnce(T) + Send> {
    Box::new(move |value| answer(asker, value))
}
