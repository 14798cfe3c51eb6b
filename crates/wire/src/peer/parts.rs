//! Smaller parts of asks.
use kapell_kernel::{Attempt, Command, UnitId};
use kapell_model::{Name, RunId};
use kapell_proto::peer::v1 as proto;

use super::command::{command_from, command_to};
use crate::cloud_event::Event;
use crate::error::DecodeError;
use crate::field::{self, name, required};
use crate::task::unit_to;

/// A run id as it is sent.
#[must_use]
pub fn run_to(run: RunId) -> Vec<u8> {
    run.to_bytes().to_vec()
}

/// The run that an ask is about.
pub fn run_from(bytes: &[u8]) -> Result<RunId, DecodeError> {
    field::run("Ask.run", bytes)
}

/// A command and its run, as they are sent.
#[must_use]
pub fn run_command_to(run: RunId, command: &Command) -> proto::RunCommand {
    proto::RunCommand { run: run_to(run), command: Some(command_to(command)) }
}

/// A command and its run, from a peer.
pub fn run_command_from(asked: proto::RunCommand) -> Result<(RunId, Command), DecodeError> {
    let run = field::run("RunCommand.run", &asked.run)?;
    let command = command_from(required("RunCommand.command", asked.command)?)?;
    Ok((run, command))
}

/// An event for whoever waits for it in a namespace, as it is sent.
#[must_use]
pub fn event_to(namespace: &Name, event: &Event) -> proto::DeliverEvent {
    proto::DeliverEvent {
        namespace: namespace.to_string(),
        event: event.json.as_str().to_owned(),
        event_type: event.event_type.to_string(),
    }
}

/// An event from a peer: read again as one from outside would be.
pub fn event_from(asked: &proto::DeliverEvent) -> Result<(Name, Event), DecodeError> {
    let field = "DeliverEvent.event";
    let namespace = name("DeliverEvent.namespace", &asked.namespace)?;
    if asked.event.is_empty() {
        return Err(DecodeError::Missing { field });
    }
    let event = Event::from_json(asked.event.as_bytes())
        .map_err(|error| DecodeError::Damaged { field, reason: error.to_string() })?;
    if *event.event_type != *asked.event_type {
        let reason = format!("its type is `{}`, not `{}`", event.event_type, asked.event_type);
        return Err(DecodeError::Damaged { field, reason });
    }
    Ok((namespace, event))
}

/// An ask for the schedules of a namespace.
#[must_use]
pub fn list_schedules_to(namespace: &Name) -> proto::ListSchedules {
    proto::ListSchedules { namespace: namespace.to_string() }
}

/// The namespace whose schedules are asked for.
pub fn list_schedules_from(asked: &proto::ListSchedules) -> Result<Name, DecodeError> {
    name("ListSchedules.namespace", &asked.namespace)
}

/// A child that has begun, as its parent's shard is told; one that is ending says so beside it.
#[must_use]
pub fn child_confirmed_to(parent: RunId, unit: UnitId, attempt: Attempt) -> proto::ChildConfirmed {
    proto::ChildConfirmed {
        run: run_to(parent),
        unit: Some(unit_to(unit)),
        attempt: attempt.0,
        ending: false,
    }
}

/// The parent, and the unit and attempt that asked for the child.
pub fn child_confirmed_from(told: &proto::ChildConfirmed) -> Result<(RunId, UnitId, Attempt), DecodeError> {
    let run = field::run("ChildConfirmed.run", &told.run)?;
    let unit = field::unit("ChildConfirmed.unit", told.unit)?;
    Ok((run, unit, Attempt(told.attempt)))
}
