//! The port of event sources: streams of other systems, which hand a message out again until they are told what became
//! of it.
//!
//! Owns: what a backend promises. Never: knows what is in a message.
//!
//! The promises:
//! - A message that was handed out and is not settled is handed out again after a while, here or at another node.
//! - One that was settled as taken is not handed out again, unless the word was lost on its way: then it is, and
//!   whoever takes it knows it by its content.
//! - Several nodes may take from one source; each message goes to one of them.
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

/// What a source hands out.
pub struct Message {
    /// What the body is, as HTTP says it. `None`: the sender did not say.
    pub content_type: Option<String>,
    /// Names and values as they came, other than the content type.
    pub headers: Vec<(String, String)>,
    /// The rest.
    pub body: Bytes,
    /// For the word of what became of it. Dropped: it is handed out again.
    pub receipt: Box<dyn Receipt>,
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// What it asks for is on disk.
    Taken,
    /// Not now; it is to be handed out again after this time.
    Later(Duration),
    /// Never, and why. The source puts it aside for people.
    Refused(String),
}

/// One message that is not settled yet.
pub trait Receipt: Send {
    /// Says what became of it. After an error it is handed out again.
    fn settle(self: Box<Self>, fate: Fate) -> BoxFuture<'static, Result<(), SourceError>>;
}

/// Why a source did not do what was asked of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Not now.
    #[error("events cannot be taken now: {reason}")]
    Unavailable {
        /// What the source said.
        reason: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// What the settings name is not there or cannot be used.
    #[error("events cannot be taken from there: {reason}")]
    Misplaced {
        /// What is wrong and what would be right.
        reason: String,
    },
}

/// A stream of another system.
pub trait EventSource: Send + Sync + 'static {
    /// For people.
    fn name(&self) -> &str;

    /// What is there, at most so many messages. If nothing is, the next one that comes within `patience`; else none.
    /// Dropped before it answers, it may have taken some, which are handed out again after a while.
    fn take(&self, most: usize, patience: Duration) -> BoxFuture<'_, Result<Vec<Message>, SourceError>>;
}
