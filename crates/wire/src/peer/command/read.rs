//! From a peer to the kernel.
use kapell_kernel::{Attempt, CallNo, CancelMode, Command};
use kapell_proto::journal;
use kapell_proto::peer::v1 as proto;
use kapell_proto::peer::v1::command::Kind;

use crate::entry::read::{Judged, call_finished, call_settled, decided, ending, judged, plan_made};
use crate::error::DecodeError;
use crate::field::{self, required, sent_json as json, texts};
use crate::peer::key::timer_from;

/// A command from a peer. Whether the run can take it is for the kernel to say.
///
/// table: one arm for each command.
#[expect(clippy::too_many_lines, reason = "a table: one arm for each command")]
pub fn command_from(command: proto::Command) -> Result<Command, DecodeError> {
    let unknown = || DecodeError::Newer { what: "it is a command of a kind".to_owned() };
    Ok(match command.kind.ok_or_else(unknown)? {
        Kind::TakeTurn(journal::Empty {}) => Command::TakeTurn,
        Kind::SupplyContext(command) => Command::SupplyContext {
            context: json("SupplyContext.context", &command.context)?,
            reasons: texts(command.reasons),
        },
        Kind::AdoptPlan(made) => {
            let (source, reasons) = plan_made(made)?;
            Command::AdoptPlan { source, reasons }
        }
        Kind::GiveVerdict(given) => {
            let Judged { unit, attempt, verdict, reasons } = judged(given, json)?;
            Command::GiveVerdict { unit, attempt, verdict, reasons }
        }
        Kind::FinishTask(command) => {
            use proto::finish_task::Result as Told;
            let result = match required("FinishTask.result", command.result)? {
                Told::Output(output) => Ok(json("FinishTask.output", &output)?),
                Told::Error(error) => Err(field::error("FinishTask.error", Some(error))?),
            };
            let unit = field::unit("FinishTask.unit", command.unit)?;
            Command::FinishTask { unit, attempt: Attempt(command.attempt), result }
        }
        Kind::SaveCheckpoint(command) => Command::SaveCheckpoint {
            unit: field::unit("SaveCheckpoint.unit", command.unit)?,
            attempt: Attempt(command.attempt),
            position: command.position,
            data: json("SaveCheckpoint.data", &command.data)?,
        },
        Kind::IntendCall(command) => Command::IntendCall {
            unit: field::unit("IntendCall.unit", command.unit)?,
            attempt: Attempt(command.attempt),
            no: CallNo(command.no),
            tool: field::tool("IntendCall.tool", &command.tool)?,
            args: json("IntendCall.args", &command.args)?,
            effect: field::effect("IntendCall.effect", command.effect)?,
        },
        Kind::FinishCall(command) => {
            let finished = required("FinishCall.finished", command.finished)?;
            let (unit, no, outcome) = call_finished(finished, json)?;
            Command::FinishCall { unit, no, attempt: Attempt(command.attempt), outcome }
        }
        Kind::SettleCall(command) => {
            let settled = required("SettleCall.settled", command.settled)?;
            let (unit, no, verdict) = call_settled(settled, json)?;
            Command::SettleCall { unit, no, attempt: Attempt(command.attempt), verdict }
        }
        Kind::DecideApproval(answered) => {
            let (key, answer) = decided(answered, json)?;
            Command::DecideApproval { key, answer }
        }
        Kind::FireTimer(key) => Command::FireTimer(timer_from(key)?),
        Kind::GiveEvent(command) => Command::DeliverEvent {
            unit: field::unit("GiveEvent.unit", command.unit)?,
            attempt: Attempt(command.attempt),
            event: json("GiveEvent.event", &command.event)?,
        },
        Kind::Signal(event) => Command::Signal { event: json("Command.signal", &event)? },
        Kind::ReportChild(command) => {
            use proto::report_child::Result as Told;
            let result = match required("ReportChild.result", command.result)? {
                Told::Ending(how) => Ok(ending("ReportChild.ending", Some(how), json)?),
                Told::Error(error) => Err(field::error("ReportChild.error", Some(error))?),
            };
            let unit = field::unit("ReportChild.unit", command.unit)?;
            Command::ReportChild { unit, attempt: Attempt(command.attempt), result }
        }
        Kind::AcknowledgeEnd(journal::Empty {}) => Command::AcknowledgeEnd,
        Kind::BindOutcome(event) => Command::BindOutcome { event: json("Command.bind_outcome", &event)? },
        Kind::Pause(journal::RunPaused { by, reason }) => {
            Command::Pause { by: by.into(), reason: reason.into() }
        }
        Kind::Resume(journal::RunResumed { by }) => Command::Resume { by: by.into() },
        Kind::Cancel(proto::CancelRun { by, reason, mode }) => {
            Command::Cancel { by: by.into(), reason: reason.into(), mode: mode_from(mode)? }
        }
        Kind::Retry(by) => Command::Retry { by: by.into() },
        Kind::DoOnce(once) => Command::Once {
            request: field::request("DoOnce.request", &once.request)?,
            command: Box::new(command_from(*required("DoOnce.command", once.command)?)?),
        },
    })
}

fn mode_from(value: i32) -> Result<CancelMode, DecodeError> {
    let field = "CancelRun.mode";
    match proto::CancelMode::try_from(value) {
        Ok(proto::CancelMode::Undo) => Ok(CancelMode::Undo),
        Ok(proto::CancelMode::Leave) => Ok(CancelMode::Leave),
        Ok(proto::CancelMode::Unspecified) => Err(DecodeError::Missing { field }),
        Err(_) => Err(DecodeError::UnknownValue { field, value }),
    }
}
