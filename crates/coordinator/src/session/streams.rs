//! How many streams are open.
//!
//! Owns: the count and the refusal. Never: knows what a stream is for.
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use crate::limits::STREAMS_MAX;

/// The streams of one node.
#[derive(Clone)]
pub(crate) struct Streams(Arc<Semaphore>);

/// Kept by a stream while it is open.
pub(crate) struct OpenStream(#[expect(dead_code, reason = "it counts by being there")] OwnedSemaphorePermit);

impl Default for Streams {
    fn default() -> Streams {
        Streams(Arc::new(Semaphore::new(STREAMS_MAX)))
    }
}

impl Streams {
    /// One more, unless too many are open.
    pub(crate) fn open(&self) -> Result<OpenStream, Status> {
        let counted = Arc::clone(&self.0).try_acquire_owned();
        counted.map(OpenStream).map_err(|_| {
            let text = format!("{STREAMS_MAX} streams are open already; close some, or use another node");
            Status::resource_exhausted(text)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_too_many_is_refused_until_another_ends() {
        let streams = Streams::default();
        let mut open: Vec<OpenStream> = (0..STREAMS_MAX).map(|_| streams.open().unwrap()).collect();
        let refused = streams.open().err().unwrap();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        open.pop();
        assert!(streams.open().is_ok());
    }
}
