//! The end of a connection that nobody uses any more.
//!
//! Owns: how long a server is listened to that may not answer. Never: decides when.
use std::time::Duration;

use futures::FutureExt as _;
use futures::channel::oneshot;
use futures::future::{Either, select};

use crate::Connection;

/// Time for a farewell to a server that may not listen any more.
const FAREWELL: Duration = Duration::from_secs(1);

/// Dropped, it ends the connection, also one whose server owes an answer: the driver alone would wait for it.
#[derive(Debug)]
pub struct Leash {
    _end: oneshot::Sender<()>,
}

/// The connection, to be run as before, and what ends it.
#[must_use]
pub fn leash(connection: Connection) -> (Leash, Connection) {
    let (end, ended) = oneshot::channel();
    let run = async move {
        match select(connection, ended).await {
            Either::Left((outcome, _)) => outcome,
            Either::Right((_, connection)) => {
                tokio::time::timeout(FAREWELL, connection).await.unwrap_or(Ok(()))
            }
        }
    };
    (Leash { _end: end }, run.boxed())
}
