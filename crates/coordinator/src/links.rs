//! How the parts of a coordinator reach each other.
//!
//! Owns: the mailboxes of the shards and the references of the desks. Never: decides anything.
use std::sync::{Arc, OnceLock};

use kapell_kernel::Command;
use kapell_model::{RunId, ShardCount, ShardId};
use ractor::ActorRef;
use tokio::sync::RwLock;
use tokio::time::Instant;

use crate::calls::CallMessage;
use crate::dispatch::DispatchMessage;
use crate::shard::{Mailbox, Request, SubmitError};

/// The parts of one coordinator.
pub(crate) struct Links {
    mailboxes: Vec<Arc<Mailbox>>,
    dispatch: OnceLock<ActorRef<DispatchMessage>>,
    calls: OnceLock<ActorRef<CallMessage>>,
    /// Shards store rows together; whoever builds the ledger anew does it alone. Rows that a shard stores between the
    /// two halves would make the ledger refuse what was folded, as older than they are.
    pub(crate) ledger: RwLock<()>,
    /// From when shards count their flushes.
    pub(crate) flushes_from: Instant,
}

impl Links {
    pub(crate) fn new(shards: ShardCount, mailbox_capacity: usize) -> Links {
        let mailboxes = shards.iter().map(|_| Arc::new(Mailbox::new(mailbox_capacity))).collect();
        Links {
            mailboxes,
            dispatch: OnceLock::new(),
            calls: OnceLock::new(),
            ledger: RwLock::new(()),
            flushes_from: Instant::now(),
        }
    }

    pub(crate) fn connect(&self, dispatch: ActorRef<DispatchMessage>, calls: ActorRef<CallMessage>) {
        // Set once at start; a second coordinator has links of its own.
        let first = self.dispatch.set(dispatch).is_ok() && self.calls.set(calls).is_ok();
        debug_assert!(first);
    }

    /// The mailbox of a shard; `None` for a shard that this store does not have.
    pub(crate) fn shard(&self, shard: ShardId) -> Option<&Arc<Mailbox>> {
        self.mailboxes.get(shard.0 as usize)
    }

    /// The mailbox of the shard that a run lives in.
    pub(crate) fn of_run(&self, run: RunId) -> Option<&Arc<Mailbox>> {
        self.shard(run.shard())
    }

    /// Every shard's mailbox, in order.
    pub(crate) fn mailboxes(&self) -> &[Arc<Mailbox>] {
        &self.mailboxes
    }

    /// Tells a run something that must reach it: when the journal fails under the command, the shard is loaded anew
    /// and asked again.
    pub(crate) fn tell_run(&self, run: RunId, command: Command, then: Answer) {
        match self.of_run(run) {
            Some(mailbox) => Asking { mailbox: mailbox.clone(), run, command, then: Some(then) }.ask(),
            None => then(Err(SubmitError::NotFound(run))),
        }
    }

    /// Tells the dispatcher. Its death stops the node, so a lost message is not waited for.
    pub(crate) fn tell_dispatch(&self, message: DispatchMessage) {
        if let Some(actor) = self.dispatch.get()
            && actor.cast(message).is_err()
        {
            tracing::warn!("the dispatcher is gone");
        }
    }

    /// Tells the call desk.
    pub(crate) fn tell_calls(&self, message: CallMessage) {
        if let Some(actor) = self.calls.get()
            && actor.cast(message).is_err()
        {
            tracing::warn!("the call desk is gone");
        }
    }
}

/// Called with what became of a command.
pub(crate) type Answer = Box<dyn FnOnce(Result<(), SubmitError>) + Send>;

/// A command that is asked until it is answered. A shard that dies drops its answers, and that asks again.
struct Asking {
    mailbox: Arc<Mailbox>,
    run: RunId,
    command: Command,
    then: Option<Answer>,
}

impl Asking {
    fn ask(self) {
        let (mailbox, run, command) = (self.mailbox.clone(), self.run, Box::new(self.command.clone()));
        let mut asking = self;
        let answered = Box::new(move |result: Result<(), SubmitError>| {
            if let Some(then) = asking.then.take() {
                then(result);
            }
        });
        mailbox.submit_owed(Request::Command(run, command, answered));
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(then) = self.then.take() {
            let (mailbox, run, command) = (self.mailbox.clone(), self.run, self.command.clone());
            Asking { mailbox, run, command, then: Some(then) }.ask();
        }
    }
}
