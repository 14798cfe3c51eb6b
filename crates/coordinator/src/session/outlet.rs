//! Where frames for a worker or connector go.
use std::sync::Arc;

use futures::Stream;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Where frames for one connection go. Whoever is cut off comes back, says what it holds and sends again what was not
/// acknowledged.
#[derive(Debug)]
pub(crate) struct Outlet<F> {
    frames: mpsc::Sender<Result<F, Status>>,
    cut: Arc<Notify>,
}

impl<F> Clone for Outlet<F> {
    fn clone(&self) -> Outlet<F> {
        Outlet { frames: self.frames.clone(), cut: self.cut.clone() }
    }
}

/// The connection is gone, or was cut.
#[derive(Debug)]
pub(crate) struct Gone;

impl<F> Outlet<F> {
    /// An outlet in which so many frames may wait, and what its connection reads.
    pub(crate) fn new(
        waiting_max: usize,
    ) -> (Outlet<F>, impl Stream<Item = Result<F, Status>> + Send + use<F>)
    where
        F: Send + 'static,
    {
        let (frames, from) = mpsc::channel(waiting_max);
        (Outlet { frames, cut: Arc::new(Notify::new()) }, ReceiverStream::new(from))
    }

    /// Sends as soon as there is room.
    pub(crate) async fn send(&self, frame: F) -> Result<(), Gone> {
        self.frames.send(Ok(frame)).await.map_err(|_| Gone)
    }

    /// Sends at once, or cuts off who does not read its frames.
    pub(crate) fn offer(&self, frame: F) -> Result<(), Gone> {
        self.frames.try_send(Ok(frame)).map_err(|_| {
            self.cut();
            Gone
        })
    }

    /// Ends the connection with a reason.
    pub(crate) async fn refuse(&self, status: Status) {
        // Who is gone already needs no reason.
        drop(self.frames.send(Err(status)).await);
    }

    /// Ends the connection.
    pub(crate) fn cut(&self) {
        self.cut.notify_one();
    }

    /// Waits until somebody cuts the connection.
    pub(crate) async fn is_cut(&self) {
        self.cut.notified().await;
    }
}
