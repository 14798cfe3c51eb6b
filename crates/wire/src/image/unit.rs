//! One unit of a run, as a checkpoint holds it.
use kapell_kernel::{Attempt, Call, CallNo, CallState, Forward, Status, Unit};
use kapell_model::Timestamp;
use kapell_proto::journal as proto;

use crate::entry;
use crate::error::DecodeError;
use crate::field::{self, json, json_list, required, time};
use crate::task::error_to;

pub(super) fn forward_to(one: &Forward) -> proto::ForwardImage {
    proto::ForwardImage { unit: Some(unit_to(&one.unit)), undo: one.undo.as_ref().map(unit_to) }
}

pub(super) fn forward_from(one: proto::ForwardImage) -> Result<Forward, DecodeError> {
    let unit = unit_from(required("ForwardImage.unit", one.unit)?)?;
    Ok(Forward { unit, undo: one.undo.map(unit_from).transpose()? })
}

fn unit_to(unit: &Unit) -> proto::UnitImage {
    proto::UnitImage {
        input: unit.input.to_string(),
        attempt: unit.attempt.0,
        failures: unit.failures,
        calls: unit.calls.iter().map(call_to).collect(),
        checkpoints: unit.checkpoints.iter().map(ToString::to_string).collect(),
        status: Some(status_to(&unit.status)),
    }
}

fn unit_from(unit: proto::UnitImage) -> Result<Unit, DecodeError> {
    Ok(Unit {
        status: status_from(required("UnitImage.status", unit.status)?)?,
        input: json("UnitImage.input", &unit.input)?,
        attempt: Attempt(unit.attempt),
        failures: unit.failures,
        calls: unit.calls.into_iter().map(call_from).collect::<Result<_, _>>()?,
        checkpoints: json_list("UnitImage.checkpoints", &unit.checkpoints)?,
    })
}

fn status_to(status: &Status) -> proto::unit_image::Status {
    use proto::unit_image::Status as Stored;
    match status {
        Status::Waiting => Stored::Waiting(proto::Empty {}),
        Status::Judging => Stored::Judging(proto::Empty {}),
        Status::Asking(asked) => {
            let asked_ms = asked.since.map(|since| since.0);
            let question = entry::question_to(&asked.question, asked.expires, asked.on_expire);
            Stored::Asking(proto::ApprovalAsked { asked_ms, ..question })
        }
        Status::Cleared => Stored::Cleared(proto::Empty {}),
        Status::Working { deadline } => Stored::WorkingMs(deadline.0),
        Status::BackingOff { until } => Stored::BackingOffMs(until.0),
        Status::Sleeping { until } => Stored::SleepingMs(until.0),
        Status::Listening { event_type, correlation, until } => Stored::Listening(proto::WaitBegan {
            unit: None,
            event_type: event_type.to_string(),
            correlation: correlation.to_string(),
            until_ms: until.map(|until| until.0),
        }),
        Status::InChild { child, deadline: None, timed_out: None } => {
            Stored::InChild(child.to_bytes().to_vec())
        }
        Status::InChild { child, deadline, timed_out } => Stored::InTimedChild(proto::TimedChild {
            child: child.to_bytes().to_vec(),
            deadline_ms: deadline.map(|at| at.0),
            timed_out: timed_out.map(entry::undoes),
        }),
        Status::Settling => Stored::Settling(proto::Empty {}),
        Status::Done(output) => Stored::Done(output.to_string()),
        Status::Failed(error) => Stored::Failed(error_to(error)),
        Status::Canceled => Stored::Canceled(proto::Empty {}),
        Status::Skipped => Stored::Skipped(proto::Empty {}),
    }
}

fn status_from(status: proto::unit_image::Status) -> Result<Status, DecodeError> {
    use proto::unit_image::Status as Stored;
    Ok(match status {
        Stored::Waiting(proto::Empty {}) => Status::Waiting,
        Stored::Judging(proto::Empty {}) => Status::Judging,
        Stored::Asking(asked) => Status::Asking(Box::new(entry::question_from(asked)?)),
        Stored::Cleared(proto::Empty {}) => Status::Cleared,
        Stored::WorkingMs(deadline) => Status::Working { deadline: Timestamp(deadline) },
        Stored::BackingOffMs(until) => Status::BackingOff { until: Timestamp(until) },
        Stored::SleepingMs(until) => Status::Sleeping { until: Timestamp(until) },
        Stored::Listening(wait) => Status::Listening {
            event_type: wait.event_type.into(),
            correlation: wait.correlation.into(),
            until: time(wait.until_ms),
        },
        Stored::InChild(child) => Status::InChild {
            child: field::run("UnitImage.in_child", &child)?,
            deadline: None,
            timed_out: None,
        },
        Stored::InTimedChild(timed) => Status::InChild {
            child: field::run("TimedChild.child", &timed.child)?,
            deadline: time(timed.deadline_ms),
            timed_out: timed.timed_out.map(entry::undo_said),
        },
        Stored::Settling(proto::Empty {}) => Status::Settling,
        Stored::Done(output) => Status::Done(json("UnitImage.done", &output)?),
        Stored::Failed(error) => Status::Failed(Box::new(field::error("UnitImage.failed", Some(error))?)),
        Stored::Canceled(proto::Empty {}) => Status::Canceled,
        Stored::Skipped(proto::Empty {}) => Status::Skipped,
    })
}

fn call_to(call: &Call) -> proto::CallImage {
    use proto::call_image::State;
    let state = match &call.state {
        CallState::Intended => State::Open(proto::Empty {}),
        CallState::Unknown { reason } => State::Unknown(reason.to_string()),
        CallState::Asking { .. } => State::Asking(proto::Empty {}),
        CallState::Succeeded(result) => State::Succeeded(result.to_string()),
        CallState::Failed(error) => State::Failed(error_to(error)),
    };
    let asked_ms = match &call.state {
        CallState::Asking { since } => since.map(|since| since.0),
        CallState::Intended | CallState::Unknown { .. } | CallState::Succeeded(_) | CallState::Failed(_) => {
            None
        }
    };
    proto::CallImage { intended: Some(entry::intended_to(call)), state: Some(state), asked_ms }
}

fn call_from(call: proto::CallImage) -> Result<Call, DecodeError> {
    use proto::call_image::State;
    let intended = required("CallImage.intended", call.intended)?;
    let state = match required("CallImage.state", call.state)? {
        State::Open(proto::Empty {}) => CallState::Intended,
        State::Unknown(reason) => CallState::Unknown { reason: reason.into() },
        State::Asking(proto::Empty {}) => CallState::Asking { since: time(call.asked_ms) },
        State::Succeeded(result) => CallState::Succeeded(json("CallImage.succeeded", &result)?),
        State::Failed(error) => CallState::Failed(Box::new(field::error("CallImage.failed", Some(error))?)),
    };
    Ok(Call {
        no: CallNo(intended.no),
        tool: field::tool("CallIntended.tool", &intended.tool)?,
        args: json("CallIntended.args", &intended.args)?,
        effect: field::effect("CallIntended.effect", intended.effect)?,
        attempt: Attempt(intended.attempt),
        intended: Timestamp(intended.at_ms),
        state,
    })
}
