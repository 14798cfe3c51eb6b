//! The answer to an append, for backends.
use std::time::Duration;

use crate::{AppendDone, AppendError};

/// Answers an append exactly once: dropped unanswered, it says that the journal was closed.
pub struct Done {
    done: Option<AppendDone>,
    retry_after: Duration,
}

impl Done {
    /// Holds the answer back; `retry_after` is said if it is never given.
    #[must_use]
    pub fn new(done: AppendDone, retry_after: Duration) -> Done {
        Done { done: Some(done), retry_after }
    }

    /// Gives the answer.
    pub fn answer(mut self, outcome: Result<(), AppendError>) {
        if let Some(done) = self.done.take() {
            done(outcome);
        }
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            let reason = "the journal was closed".to_owned();
            done(Err(AppendError::Unavailable { reason, retry_after: self.retry_after }));
        }
    }
}

impl std::fmt::Debug for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Done")
    }
}
