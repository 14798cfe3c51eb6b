//! Releasing: what leaves a shard once its entries are on disk goes to whom it is for.
//!
//! Owns: the grouping of many outputs into few messages.
use std::sync::Arc;

use kapell_kernel::{Command, ErrorClass, ParentRef, TaskError};
use kapell_runtime::{Job, OnDeath};
use ractor::ActorRef;

use crate::calls::CallMessage;
use crate::context;
use crate::dispatch::DispatchMessage;
use crate::links::Links;
use crate::membership::DEFINITIONS;
use crate::shard::{Output, Owed, Request, ShardArguments, ShardMessage, StartRun, SubmitError, project};

const BUMP: Job = Job { name: "tell of definitions", on_panic: OnDeath::Log };
const GATHER: Job = Job { name: "gather context", on_panic: OnDeath::Log };

/// Sends each output on its way.
pub(crate) fn release(outputs: Vec<Output>, args: &ShardArguments, myself: &ActorRef<ShardMessage>) {
    let (mut settled, mut tasks, mut canceled) = (vec![], vec![], vec![]);
    let (mut news, mut calls) = (vec![], vec![]);
    let mut loaded = None;
    for output in outputs {
        match output {
            Output::Reply(reply) => reply(),
            Output::Settled(owed) => settled.extend(owed.take()),
            Output::Dispatch(task) => tasks.push(task),
            Output::Cancel(run, unit, attempt) => canceled.push((run, unit, attempt)),
            Output::CallNews(run, unit, attempt, call) => news.push(((run, unit, attempt), *call)),
            Output::Call(order) => calls.push(CallMessage::Make(order)),
            Output::Reconcile(order) => calls.push(CallMessage::FindOut(order)),
            Output::CallOver(run, unit, no, attempt) => {
                calls.push(CallMessage::Over((run, unit, no, attempt)))
            }
            Output::StartChild(parent, start) => start_child(&args.links, parent, *start),
            Output::CancelChild(parent, child, cancel, start) => {
                cancel_child(&args.links, parent, child, cancel, start);
            }
            Output::TellParent(child, parent, ending) => tell_parent(&args.links, child, parent, *ending),
            Output::Notify(to, run) => {
                // A watcher that does not keep up misses states, never the end: `AwaitEnd` tells that.
                drop(to.try_send(*run));
            }
            Output::Gather(run) => {
                let (links, ledger) = (args.links.clone(), args.ledger.clone());
                args.runtime.jobs.spawn(GATHER, async move { context::gather(&links, ledger, run).await });
            }
            Output::Defined(changes) => {
                if let Err(errors) = args.definitions.apply(&changes) {
                    tracing::error!(?errors, "stored definitions do not hold together");
                }
                tell_others(args);
            }
            Output::Project(batch) => project(args, myself, batch),
            Output::Loaded(shard, epoch) => loaded = Some((shard, epoch)),
        }
    }
    if !settled.is_empty() || !tasks.is_empty() || !canceled.is_empty() {
        args.links.tell_dispatch(DispatchMessage::Submit { settled, tasks, canceled });
    }
    if !news.is_empty() {
        args.links.tell_dispatch(DispatchMessage::CallNews(news));
    }
    calls.into_iter().for_each(|call| args.links.tell_calls(call));
    // Last: what workers and connectors answer with must be known by then.
    if let Some((shard, epoch)) = loaded {
        args.links.tell_dispatch(DispatchMessage::Own(shard, epoch));
        args.links.tell_calls(CallMessage::Own(shard, epoch));
    }
}

/// Other nodes read them again.
fn tell_others(args: &ShardArguments) {
    let session = args.session.clone();
    args.runtime.jobs.spawn(BUMP, async move {
        if let Err(error) = session.bump(&DEFINITIONS).await {
            tracing::warn!(%error, "other nodes were not told of new definitions; they learn of them with the next");
        }
    });
}

fn start_child(links: &Arc<Links>, parent: ParentRef, start: StartRun) {
    let (back, run) = (links.clone(), start.run);
    let reply = Box::new(move |results: Vec<Result<_, SubmitError>>| {
        let Some(mailbox) = back.of_run(parent.run) else { return };
        for result in results {
            match result {
                Ok(_) => {
                    let ParentRef { run, unit, attempt } = parent;
                    mailbox.submit_owed(Request::Confirmed(Owed::Child(run, unit, attempt)));
                }
                // The parent asks again until it is confirmed.
                Err(error) => tracing::debug!(%error, "a child was not started yet"),
            }
        }
    });
    match links.of_run(run) {
        Some(mailbox) => mailbox.submit_owed(Request::Start(vec![start], reply)),
        None => tracing::error!(%run, "a child's id names no shard of this store"),
    }
}

/// It is the child's end that answers the order. A child that is not there is started first: a start that was sent by an
/// owner before may still be on its way, and must find a run that is over, or it would begin one that nobody waits for.
fn cancel_child(
    links: &Arc<Links>,
    parent: ParentRef,
    child: kapell_model::RunId,
    cancel: Box<Command>,
    start: Option<Box<StartRun>>,
) {
    let (back, ParentRef { run, unit, attempt }) = (links.clone(), parent);
    let again = cancel.clone();
    let reply = Box::new(move |result: Result<(), SubmitError>| {
        let Some(mailbox) = back.of_run(run) else { return };
        match result {
            Ok(()) | Err(SubmitError::Rejected(_)) => {
                mailbox.submit_owed(Request::Confirmed(Owed::ChildEnd(run, unit, attempt)));
            }
            Err(SubmitError::NotFound(_)) if start.is_some() => {
                let Some(there) = back.of_run(child) else { return };
                let starts = start.into_iter().map(|start| *start).collect();
                there.submit_owed(Request::Start(starts, Box::new(|_| {})));
                // The parent asks again until it is confirmed.
                there.submit_owed(Request::Command(child, again, Box::new(|_| {})));
            }
            // Nobody can start it any more: its workflow is gone.
            Err(SubmitError::NotFound(_)) => {
                let error = TaskError::new(ErrorClass::Unavailable, "the child was never started");
                let report = Command::ReportChild { unit, attempt, result: Err(error) };
                let nothing = Box::new(|_: Result<(), SubmitError>| {});
                mailbox.submit_owed(Request::Command(run, Box::new(report), nothing));
            }
            // The parent asks again until it is confirmed.
            Err(
                error @ (SubmitError::Busy { .. }
                | SubmitError::KeyQueueFull { .. }
                | SubmitError::TooMany { .. }
                | SubmitError::Unavailable),
            ) => tracing::debug!(%error, "a child was not canceled yet"),
        }
    });
    match links.of_run(child) {
        Some(mailbox) => mailbox.submit_owed(Request::Command(child, cancel, reply)),
        None => tracing::error!(%child, "a child's id names no shard of this store"),
    }
}

fn tell_parent(
    links: &Arc<Links>,
    child: kapell_model::RunId,
    parent: ParentRef,
    ending: kapell_kernel::Ending,
) {
    let back = links.clone();
    let reply = Box::new(move |result: Result<(), SubmitError>| {
        // A parent that does not wait (any more) knows as much as it wants to.
        let told = !matches!(result, Err(SubmitError::Busy { .. } | SubmitError::Unavailable));
        if told && let Some(mailbox) = back.of_run(child) {
            let nothing = Box::new(|_: Result<(), SubmitError>| {});
            mailbox.submit_owed(Request::Command(child, Box::new(Command::AcknowledgeEnd), nothing));
        }
    });
    let report = Command::ReportChild { unit: parent.unit, attempt: parent.attempt, result: Ok(ending) };
    match links.of_run(parent.run) {
        Some(mailbox) => mailbox.submit_owed(Request::Command(parent.run, Box::new(report), reply)),
        None => tracing::error!(run = %parent.run, "a parent's id names no shard of this store"),
    }
}
