//! What a worker is owed for its reports.
use std::sync::Arc;

use kapell_wire::task::TaskKey;

use super::message::{DispatchMessage, SessionId, Settled, ToWorker};
use crate::links::Links;
use crate::session::is_settled;
use crate::shard::SubmitError;

/// Says that reports are on disk, or stale. Dropped instead, because the journal failed under them or they could not be
/// passed on, it cuts the worker off, who sends them again when it is back.
pub(crate) struct Acknowledgement {
    owed: Option<Settled>,
    to: ToWorker,
    links: Arc<Links>,
}

impl Acknowledgement {
    /// Of these reports, to the worker that sent them.
    pub(crate) fn new(session: SessionId, keys: Vec<TaskKey>, to: ToWorker, links: Arc<Links>) -> Self {
        Acknowledgement { owed: Some(Settled { session, keys }), to, links }
    }

    /// Itself, if this came of the reports; otherwise the worker is cut off.
    pub(crate) fn if_settled(self, results: &[Result<(), SubmitError>]) -> Option<Acknowledgement> {
        results.iter().all(is_settled).then_some(self)
    }

    /// What to tell the dispatcher, who sends it together with what the worker is to do next.
    pub(crate) fn take(mut self) -> Option<Settled> {
        self.owed.take()
    }

    /// Tells the dispatcher.
    pub(crate) fn give(mut self) {
        let settled = self.owed.take().into_iter().collect();
        self.links.tell_dispatch(DispatchMessage::Submit { settled, tasks: vec![], canceled: vec![] });
    }
}

impl Drop for Acknowledgement {
    fn drop(&mut self) {
        if self.owed.is_some() {
            self.to.cut();
        }
    }
}
