//! Asks of peers as requests.
//!
//! Owns: reading what another node says, and saying what came of it. Never: trusts that it can be read.
use std::sync::Arc;

use kapell_kernel::Command;
use kapell_model::plan::DefinitionDigest;
use kapell_model::{Name, RunId};
use kapell_proto::peer::v1 as peer;
use kapell_proto::peer::v1::answer::What as Said;
use kapell_proto::peer::v1::ask::What;
use kapell_proto::v1;
use kapell_wire::cloud_event::Event;
use kapell_wire::peer::{
    Start, child_confirmed_from, event_from, list_schedules_from, run_command_from, run_from,
};
use kapell_wire::task::TaskKey;
use kapell_wire::{DecodeError, Definitions as _};
use tokio::sync::mpsc;

use super::refusal;
use super::serve::Due;
use crate::definitions::Definitions;
use crate::shard::{
    Busy, Delivered, EndWaiter, Mailbox, Owed, Request, StartRun, Started, Stats, SubmitError,
};

/// Why an ask cannot be done here.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    /// A run follows a definition that this node does not know.
    #[error("definition {0} is not known")]
    Definition(DefinitionDigest),
    /// Something that only a newer program says.
    #[error("an ask of a kind that this node does not know")]
    Newer,
    /// Something that means nothing here.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl Unreadable {
    pub(super) fn said(&self) -> Said {
        Said::Unsupported(peer::Unsupported { reason: self.to_string() })
    }
}

/// An ask, read.
pub(super) enum Asked {
    Start(Vec<StartRun>),
    Commands(Vec<(RunId, Command)>),
    Deliver(Arc<Event>, Name),
    View(RunId),
    Watch(RunId),
    AwaitEnd(RunId),
    Stats,
    Schedules(Name),
    Confirmed(Owed),
}

impl Asked {
    /// table: one arm for each kind.
    pub(super) fn read(what: Option<What>, definitions: &Definitions) -> Result<Asked, Unreadable> {
        Ok(match what.ok_or(Unreadable::Newer)? {
            What::StartRuns(group) => {
                let starts = group.starts.into_iter().map(|start| start_from(start, definitions));
                Asked::Start(starts.collect::<Result<_, _>>()?)
            }
            What::RunCommands(commands) => {
                let commands = commands.commands.into_iter().map(run_command_from);
                Asked::Commands(commands.collect::<Result<_, _>>()?)
            }
            What::DeliverEvent(delivery) => {
                let (namespace, event) = event_from(&delivery)?;
                Asked::Deliver(Arc::new(event), namespace)
            }
            What::ReadRun(read) => Asked::View(run_from(&read.run)?),
            What::Watch(watch) => Asked::Watch(run_from(&watch.run)?),
            What::AwaitEnd(wait) => Asked::AwaitEnd(run_from(&wait.run)?),
            What::Stats(_) => Asked::Stats,
            What::ListSchedules(list) => Asked::Schedules(list_schedules_from(&list)?),
            What::ChildConfirmed(child) => {
                let (run, unit, attempt) = child_confirmed_from(&child)?;
                Asked::Confirmed(match child.ending {
                    false => Owed::Child(run, unit, attempt),
                    true => Owed::ChildEnd(run, unit, attempt),
                })
            }
        })
    }

    /// Tasks that are over by what is asked: the dispatcher need not find anybody for them.
    pub(super) fn finished(&self) -> Vec<TaskKey> {
        let Asked::Commands(commands) = self else { return Vec::new() };
        let finished = commands.iter().filter_map(|(run, command)| {
            let Command::FinishTask { unit, attempt, .. } = command else { return None };
            Some(TaskKey { run: *run, unit: *unit, attempt: *attempt })
        });
        finished.collect()
    }

    /// Asks the shard, which answers when it is on disk. `watcher` is told of changes.
    pub(super) fn submit(
        self,
        mailbox: &Mailbox,
        owed: Due,
        watcher: impl FnOnce(Due) -> mpsc::Sender<v1::Run>,
    ) {
        if let Err(Busy { retry_after }) = mailbox.room() {
            return owed.give(Said::Refused(refusal::to(&SubmitError::Busy { retry_after })));
        }
        mailbox.submit_owed(match self {
            Asked::Start(group) => {
                Request::Start(group, Box::new(move |results| owed.give(started(results))))
            }
            Asked::Commands(commands) => {
                Request::Commands(commands, Box::new(move |results| owed.give(done(results))))
            }
            Asked::Deliver(event, namespace) => Request::Deliver(
                event,
                namespace,
                Box::new(move |Delivered { count }| owed.give(Said::Delivered(peer::Delivered { count }))),
            ),
            Asked::View(run) => Request::View(run, Box::new(move |run| owed.give(found(run)))),
            Asked::AwaitEnd(run) => {
                // The other node waits for as long as its stream is open; what is said after that goes nowhere.
                let is_gone = owed.is_over();
                let tell = Box::new(move |run| owed.give(found(run)));
                Request::AwaitEnd(run, EndWaiter { is_gone: Box::new(is_gone), tell })
            }
            // Refused, it ends the watch, and whoever watches looks at the run instead.
            Asked::Watch(run) => Request::Watch(run, watcher(owed), Box::new(|_| {})),
            Asked::Stats => {
                let waiting = mailbox.waiting() as u64;
                Request::Stats(Box::new(move |stats| owed.give(stats_to(&stats, waiting))))
            }
            Asked::Schedules(namespace) => Request::Schedules(
                namespace,
                Box::new(move |schedules| owed.give(Said::Schedules(peer::SchedulesFound { schedules }))),
            ),
            Asked::Confirmed(confirmed) => {
                // Lost with the shard, it is asked again by whoever loads the parent.
                owed.give(Said::Done(peer::Done {}));
                Request::Confirmed(confirmed)
            }
        });
    }
}

fn start_from(start: peer::StartRun, definitions: &Definitions) -> Result<StartRun, Unreadable> {
    let Start { run, workflow, key, event, parent, nesting } = Start::from_proto(start)?;
    let digest = workflow.digest;
    let workflow = definitions.by_digest(digest).ok_or(Unreadable::Definition(digest))?;
    Ok(StartRun { run, workflow, key, event, parent, nesting })
}

fn started(results: Vec<Result<Started, SubmitError>>) -> Said {
    use peer::start_result::Result as Outcome;
    let results = results.into_iter().map(|result| peer::StartResult {
        result: Some(match result {
            Ok(Started { run, duplicate }) => {
                Outcome::Started(peer::StartedRun { run: run.to_bytes().to_vec(), duplicate })
            }
            Err(error) => Outcome::Refusal(refusal::to(&error)),
        }),
    });
    Said::Started(peer::Started { results: results.collect() })
}

fn done(results: Vec<Result<(), SubmitError>>) -> Said {
    use peer::command_result::Result as Outcome;
    let results = results.into_iter().map(|result| peer::CommandResult {
        result: Some(match result {
            Ok(()) => Outcome::Done(peer::Done {}),
            Err(error) => Outcome::Refusal(refusal::to(&error)),
        }),
    });
    Said::Commands(peer::CommandResults { results: results.collect() })
}

fn found(run: Option<v1::Run>) -> Said {
    Said::Run(peer::RunFound { run })
}

fn stats_to(stats: &Stats, queued_commands: u64) -> Said {
    Said::Stats(peer::ShardStats {
        epoch: stats.epoch,
        last_seq: stats.last,
        live_runs: stats.live,
        ledger_behind: stats.behind,
        approvals: stats.approvals,
        queued_commands,
    })
}
