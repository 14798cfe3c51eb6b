//! From the kernel to a peer.
use kapell_kernel::{Attempt, CancelMode, Command, Ending, TaskError, UnitId};
use kapell_model::Json;
use kapell_proto::journal;
use kapell_proto::peer::v1 as proto;
use kapell_proto::peer::v1::command::Kind;

use crate::entry::write::{call_finished, call_settled, decided, ending, judged, plan_made, text, texts};
use crate::peer::key::timer_to;
use crate::task::{effect_to, error_to, unit_to};

/// A command as it is sent.
///
/// table: one arm for each command.
#[must_use]
pub fn command_to(command: &Command) -> proto::Command {
    let kind = match command {
        Command::TakeTurn => Kind::TakeTurn(journal::Empty {}),
        Command::SupplyContext { context, reasons } => {
            Kind::SupplyContext(proto::SupplyContext { context: text(context), reasons: texts(reasons) })
        }
        Command::AdoptPlan { source, reasons } => Kind::AdoptPlan(plan_made(source, reasons)),
        Command::GiveVerdict { unit, attempt, verdict, reasons } => {
            Kind::GiveVerdict(judged(*unit, *attempt, verdict, reasons))
        }
        Command::FinishTask { unit, attempt, result } => Kind::FinishTask(finished(*unit, *attempt, result)),
        Command::SaveCheckpoint { unit, attempt, position, data } => {
            Kind::SaveCheckpoint(proto::SaveCheckpoint {
                unit: Some(unit_to(*unit)),
                attempt: attempt.0,
                position: *position,
                data: text(data),
            })
        }
        Command::IntendCall { unit, attempt, no, tool, args, effect } => {
            Kind::IntendCall(proto::IntendCall {
                unit: Some(unit_to(*unit)),
                attempt: attempt.0,
                no: no.0,
                tool: tool.to_string(),
                args: text(args),
                effect: effect_to(*effect).into(),
            })
        }
        Command::FinishCall { unit, no, attempt, outcome } => Kind::FinishCall(proto::FinishCall {
            attempt: attempt.0,
            finished: Some(call_finished(*unit, *no, outcome)),
        }),
        Command::SettleCall { unit, no, attempt, verdict } => Kind::SettleCall(proto::SettleCall {
            attempt: attempt.0,
            settled: Some(call_settled(*unit, *no, verdict)),
        }),
        Command::DecideApproval { key, answer } => Kind::DecideApproval(decided(*key, answer)),
        Command::FireTimer(key) => Kind::FireTimer(timer_to(*key)),
        Command::DeliverEvent { unit, attempt, event } => Kind::GiveEvent(proto::GiveEvent {
            unit: Some(unit_to(*unit)),
            attempt: attempt.0,
            event: text(event),
        }),
        Command::Signal { event } => Kind::Signal(text(event)),
        Command::ReportChild { unit, attempt, result } => {
            Kind::ReportChild(child_ended(*unit, *attempt, result))
        }
        Command::AcknowledgeEnd => Kind::AcknowledgeEnd(journal::Empty {}),
        Command::BindOutcome { event } => Kind::BindOutcome(text(event)),
        Command::Pause { by, reason } => {
            Kind::Pause(journal::RunPaused { by: by.to_string(), reason: reason.to_string() })
        }
        Command::Resume { by } => Kind::Resume(journal::RunResumed { by: by.to_string() }),
        Command::Cancel { by, reason, mode } => {
            let mode = match mode {
                CancelMode::Undo => proto::CancelMode::Undo,
                CancelMode::Leave => proto::CancelMode::Leave,
            };
            let (by, reason) = (by.to_string(), reason.to_string());
            Kind::Cancel(proto::CancelRun { by, reason, mode: mode.into() })
        }
        Command::Retry { by } => Kind::Retry(by.to_string()),
        Command::Once { request, command } => Kind::DoOnce(Box::new(proto::DoOnce {
            request: request.to_bytes().to_vec(),
            command: Some(Box::new(command_to(command))),
        })),
    };
    proto::Command { kind: Some(kind) }
}

fn finished(unit: UnitId, attempt: Attempt, result: &Result<Json, TaskError>) -> proto::FinishTask {
    use proto::finish_task::Result as Told;
    let result = match result {
        Ok(output) => Told::Output(text(output)),
        Err(error) => Told::Error(error_to(error)),
    };
    proto::FinishTask { unit: Some(unit_to(unit)), attempt: attempt.0, result: Some(result) }
}

fn child_ended(unit: UnitId, attempt: Attempt, result: &Result<Ending, TaskError>) -> proto::ReportChild {
    use proto::report_child::Result as Told;
    let result = match result {
        Ok(how) => Told::Ending(ending(how)),
        Err(error) => Told::Error(error_to(error)),
    };
    proto::ReportChild { unit: Some(unit_to(unit)), attempt: attempt.0, result: Some(result) }
}
