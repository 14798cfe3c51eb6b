//! Requests as peers say them.
//!
//! Owns: which request is which ask, what its answer means, and which of them may be asked twice. Never: sends or waits.
use kapell_kernel::Command;
use kapell_model::RunId;
use kapell_proto::peer::v1 as peer;
use kapell_proto::peer::v1::answer::What as Said;
use kapell_proto::peer::v1::ask::What;
use kapell_wire::peer::{
    Start, WorkflowVersion, child_confirmed_to, event_to, list_schedules_to, run_command_to, run_to,
};
use kapell_wire::task::run_from;

use super::refusal;
use crate::shard::{Delivered, Owed, Request, StartRun, Started, Stats, SubmitError};

/// What became of a request.
pub(super) enum Answered {
    /// Whoever asked was answered, or is told that it is not known.
    Done,
    /// Nothing was done: it may be asked again, here or elsewhere.
    NotDone(Request),
}

/// A request as an ask; `None`: it can only be done where the shard is.
pub(super) fn what(request: &Request) -> Option<What> {
    Some(match request {
        Request::Start(group, _) => {
            What::StartRuns(peer::StartRuns { starts: group.iter().map(start_to).collect() })
        }
        Request::Command(run, command, _) | Request::Steer(_, run, command, _) => {
            commands_to([(run, &**command)])
        }
        Request::Commands(commands, _) | Request::Reports(commands, _) => {
            commands_to(commands.iter().map(|(run, command)| (run, command)))
        }
        Request::Deliver(event, namespace, _) => What::DeliverEvent(event_to(namespace, event)),
        Request::View(run, _) => What::ReadRun(peer::ReadRun { run: run_to(*run) }),
        Request::Watch(run, ..) => What::Watch(peer::Watch { run: run_to(*run) }),
        Request::AwaitEnd(run, _) => What::AwaitEnd(peer::AwaitEnd { run: run_to(*run) }),
        Request::Stats(_) => What::Stats(peer::Stats {}),
        Request::Schedules(namespace, _) => What::ListSchedules(list_schedules_to(namespace)),
        Request::Confirmed(Owed::Child(run, unit, attempt)) => {
            What::ChildConfirmed(child_confirmed_to(*run, *unit, *attempt))
        }
        Request::Confirmed(Owed::ChildEnd(run, unit, attempt)) => {
            What::ChildConfirmed(peer::ChildConfirmed {
                ending: true,
                ..child_confirmed_to(*run, *unit, *attempt)
            })
        }
        Request::Confirmed(Owed::Parent(_))
        | Request::Asked(..)
        | Request::Read(..)
        | Request::Audit(_)
        | Request::Define(..)
        | Request::Revive(..) => return None,
    })
}

fn start_to(start: &StartRun) -> peer::StartRun {
    let start = Start {
        run: start.run,
        workflow: WorkflowVersion::of(&start.workflow),
        key: start.key.clone(),
        event: start.event.clone(),
        parent: start.parent,
        nesting: start.nesting,
    };
    start.to_proto()
}

fn commands_to<'a>(commands: impl IntoIterator<Item = (&'a RunId, &'a Command)>) -> What {
    let commands = commands.into_iter().map(|(run, command)| run_command_to(*run, command)).collect();
    What::RunCommands(peer::RunCommands { commands })
}

/// A request as it waits for its answer: a watch has begun for whoever asked, however long the owner takes.
pub(super) fn begun(request: Request) -> Request {
    let Request::Watch(run, to, reply) = request else { return request };
    reply(Ok(()));
    Request::Watch(run, to, Box::new(|_| {}))
}

/// A request that can only be done where the shard is has come too late: the shard has moved. Dropping its answer says
/// that it may be sent again.
pub(super) fn drop_unanswered(request: Request) {
    if let Request::Read(_, look) = request {
        look(None)(());
    }
}

/// Whether doing it twice is doing it once. What people ask of a run is not: the second time it is refused, or counts
/// again, so they are told that it is not known.
pub(super) fn may_be_repeated(request: &Request) -> bool {
    match request {
        Request::Start(..)
        | Request::View(..)
        | Request::Watch(..)
        | Request::AwaitEnd(..)
        | Request::Stats(_)
        | Request::Schedules(..)
        | Request::Asked(..)
        | Request::Confirmed(_) => true,
        Request::Command(_, command, _) | Request::Steer(_, _, command, _) => is_answer(command),
        Request::Commands(commands, _) | Request::Reports(commands, _) => {
            commands.iter().all(|(_, command)| is_answer(command))
        }
        Request::Deliver(..)
        | Request::Read(..)
        | Request::Audit(_)
        | Request::Define(..)
        | Request::Revive(..) => false,
    }
}

/// Answers an order, or is remembered: the same again changes nothing.
fn is_answer(command: &Command) -> bool {
    match command {
        Command::TakeTurn
        | Command::SupplyContext { .. }
        | Command::AdoptPlan { .. }
        | Command::GiveVerdict { .. }
        | Command::FinishTask { .. }
        | Command::SaveCheckpoint { .. }
        | Command::IntendCall { .. }
        | Command::FinishCall { .. }
        | Command::SettleCall { .. }
        | Command::FireTimer(_)
        | Command::ReportChild { .. }
        | Command::AcknowledgeEnd
        | Command::Once { .. } => true,
        Command::DecideApproval { .. }
        | Command::DeliverEvent { .. }
        | Command::Signal { .. }
        | Command::BindOutcome { .. }
        | Command::Pause { .. }
        | Command::Resume { .. }
        | Command::Cancel { .. }
        | Command::Retry { .. } => false,
    }
}

/// Gives the answer to whoever asked.
pub(super) fn answered(request: Request, said: Option<Said>) -> Answered {
    match (request, said) {
        (request, Some(Said::NotOwner(_))) => return Answered::NotDone(request),
        (Request::Start(group, reply), Some(Said::Refused(why))) => {
            // A full shard is told to whoever starts runs: they can wait better than this node.
            let error = refusal::from(why);
            reply(group.iter().map(|_| Err(error.clone())).collect());
        }
        (request, Some(Said::Refused(_))) => return Answered::NotDone(request),
        (Request::Start(_, reply), Some(Said::Started(started))) => {
            if let Some(results) = started.results.into_iter().map(started_from).collect() {
                reply(results);
            }
        }
        (
            Request::Command(_, _, reply) | Request::Steer(_, _, _, reply),
            Some(Said::Commands(mut results)),
        ) => {
            if let Some(result) = results.results.pop().and_then(result_from) {
                reply(result);
            }
        }
        (Request::Commands(_, reply), Some(Said::Commands(results))) => {
            if let Some(results) = results.results.into_iter().map(result_from).collect() {
                reply(results);
            }
        }
        (Request::Reports(_, owed), Some(Said::Commands(results))) => {
            let results: Option<Vec<_>> = results.results.into_iter().map(result_from).collect();
            if let Some(owed) = results.and_then(|results| owed.if_settled(&results)) {
                owed.give();
            }
        }
        (Request::Deliver(_, _, reply), Some(Said::Delivered(delivered))) => {
            reply(Delivered { count: delivered.count });
        }
        (Request::View(_, reply), Some(Said::Run(found))) => reply(found.run),
        (Request::AwaitEnd(_, waiter), Some(Said::Run(found))) => (waiter.tell)(found.run),
        (Request::Stats(reply), Some(Said::Stats(stats))) => reply(stats_from(&stats)),
        (Request::Schedules(_, reply), Some(Said::Schedules(found))) => reply(found.schedules),
        // What is dropped here says that nobody knows what became of it: the shard died under it, the owner is too old
        // to read it or too new to be read, or a watch is over.
        (_, Some(_) | None) => {}
    }
    Answered::Done
}

fn started_from(result: peer::StartResult) -> Option<Result<Started, SubmitError>> {
    match result.result? {
        peer::start_result::Result::Started(started) => {
            let run = run_from(&started.run).ok()?;
            Some(Ok(Started { run, duplicate: started.duplicate }))
        }
        peer::start_result::Result::Refusal(why) => Some(Err(refusal::from(why))),
    }
}

fn result_from(result: peer::CommandResult) -> Option<Result<(), SubmitError>> {
    match result.result? {
        peer::command_result::Result::Done(_) => Some(Ok(())),
        peer::command_result::Result::Refusal(why) => Some(Err(refusal::from(why))),
    }
}

fn stats_from(stats: &peer::ShardStats) -> Stats {
    Stats {
        epoch: stats.epoch,
        last: stats.last_seq,
        live: stats.live_runs,
        behind: stats.ledger_behind,
        // Only who builds the ledger anew asks, and that is the owner.
        checkpointed: None,
        approvals: stats.approvals,
    }
}
