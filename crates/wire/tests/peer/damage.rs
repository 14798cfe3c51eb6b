//! Messages that are not what a peer would say are refused with their reason, and never panic.
use kapell_kernel::{Attempt, Rejected, TimerKey};
use kapell_proto::journal;
use kapell_proto::peer::v1 as proto;
use kapell_proto::v1;
use kapell_wire::DecodeError;
use kapell_wire::peer::{
    Refusal, Start, child_confirmed_from, command_from, command_to, event_from, list_schedules_from,
    rejected_from, rejected_to, run_command_from, run_from,
};
use proptest::prelude::*;
use prost::Message as _;
use proto::command::Kind;

use crate::commands::{commands, unit};
use crate::messages::messages;
use crate::refusals::{refusals, rejections};

fn refused(kind: Kind) -> DecodeError {
    command_from(proto::Command { kind: Some(kind) }).unwrap_err()
}

fn some_unit() -> Option<v1::UnitId> {
    Some(v1::UnitId { step: 1, item: None, undo: false })
}

/// What is said of `{` where a peer must send JSON.
fn not_json(field: &'static str) -> DecodeError {
    let reason = "not JSON: EOF while parsing an object at line 1 column 1".to_owned();
    DecodeError::Damaged { field, reason }
}

#[test]
fn a_missing_or_unknown_value_of_a_command_is_named() {
    let missing = |field| DecodeError::Missing { field };
    let unknown = |field, value| DecodeError::UnknownValue { field, value };
    let save = |unit, data: &str| {
        let data = data.to_owned();
        refused(Kind::SaveCheckpoint(proto::SaveCheckpoint { unit, attempt: 1, position: 0, data }))
    };
    assert_eq!(save(None, "1"), missing("SaveCheckpoint.unit"));
    assert_eq!(save(some_unit(), ""), missing("SaveCheckpoint.data"));
    assert_eq!(save(some_unit(), "{"), not_json("SaveCheckpoint.data"));
    let task =
        |result| refused(Kind::FinishTask(proto::FinishTask { unit: some_unit(), attempt: 1, result }));
    assert_eq!(task(None), missing("FinishTask.result"));
    let failed = |class| {
        let error = v1::TaskError { class, message: String::new(), retry_after_ms: None };
        task(Some(proto::finish_task::Result::Error(error)))
    };
    assert_eq!(failed(0), missing("FinishTask.error"));
    assert_eq!(failed(15), unknown("FinishTask.error", 15));
    let cancel = |mode| refused(Kind::Cancel(proto::CancelRun { mode, ..Default::default() }));
    assert_eq!(cancel(0), missing("CancelRun.mode"));
    assert_eq!(cancel(3), unknown("CancelRun.mode", 3));
    let call = |tool: &str, effect| {
        let (tool, args) = (tool.to_owned(), "1".to_owned());
        refused(Kind::IntendCall(proto::IntendCall {
            unit: some_unit(),
            tool,
            args,
            effect,
            ..Default::default()
        }))
    };
    assert_eq!(call("a/b", 3), unknown("IntendCall.effect", 3));
    assert!(matches!(call("a", 0), DecodeError::Damaged { field: "IntendCall.tool", .. }));
    assert_eq!(refused(Kind::FinishCall(proto::FinishCall::default())), missing("FinishCall.finished"));
    assert_eq!(refused(Kind::SettleCall(proto::SettleCall::default())), missing("SettleCall.settled"));
    let child = proto::ReportChild { unit: some_unit(), ..Default::default() };
    assert_eq!(refused(Kind::ReportChild(child)), missing("ReportChild.result"));
    assert_eq!(refused(Kind::Signal(String::new())), missing("Command.signal"));
    let judged = journal::Judged { unit: some_unit(), ..Default::default() };
    assert_eq!(refused(Kind::GiveVerdict(judged)), missing("Judged.verdict"));
    assert_eq!(run_from(&[]), Err(missing("Ask.run")));
    assert!(matches!(run_from(&[0; 15]), Err(DecodeError::Damaged { field: "Ask.run", .. })));
    assert_eq!(run_command_from(proto::RunCommand::default()), Err(missing("RunCommand.run")));
}

/// In release builds what the journal holds is taken for JSON; what a peer says never is. The parser's reason tells the
/// two readers apart in debug builds too.
#[test]
fn json_of_a_peer_is_parsed_wherever_it_stands() {
    let broken = || "{".to_owned();
    let ending = journal::Ending { how: Some(journal::ending::How::Completed(broken())) };
    let child = proto::ReportChild {
        unit: some_unit(),
        attempt: 1,
        result: Some(proto::report_child::Result::Ending(ending)),
    };
    assert_eq!(refused(Kind::ReportChild(child)), not_json("Ending.completed"));
    let escalation = journal::Escalation { show: broken(), ..Default::default() };
    let judged = journal::Judged {
        unit: some_unit(),
        verdict: Some(journal::judged::Verdict::Escalate(escalation)),
        ..Default::default()
    };
    assert_eq!(refused(Kind::GiveVerdict(judged)), not_json("Escalation.show"));
    let outcome = Some(journal::call_finished::Outcome::Succeeded(broken()));
    let finished = Some(journal::CallFinished { unit: some_unit(), no: 0, outcome });
    let finished = proto::FinishCall { attempt: 1, finished };
    assert_eq!(refused(Kind::FinishCall(finished)), not_json("CallFinished.succeeded"));
    let verdict = Some(journal::call_settled::Verdict::TookEffect(broken()));
    let settled = Some(journal::CallSettled { unit: some_unit(), no: 0, at_ms: 0, verdict });
    let settled = proto::SettleCall { attempt: 1, settled };
    assert_eq!(refused(Kind::SettleCall(settled)), not_json("CallSettled.took_effect"));
    let decided =
        journal::ApprovalDecided { unit: some_unit(), result: Some(broken()), ..Default::default() };
    assert_eq!(refused(Kind::DecideApproval(decided)), not_json("ApprovalDecided.result"));
    let context = proto::SupplyContext { context: broken(), reasons: vec![] };
    assert_eq!(refused(Kind::SupplyContext(context)), not_json("SupplyContext.context"));
    let output = Some(proto::finish_task::Result::Output(broken()));
    let task = proto::FinishTask { unit: some_unit(), attempt: 1, result: output };
    assert_eq!(refused(Kind::FinishTask(task)), not_json("FinishTask.output"));
    let event = proto::GiveEvent { unit: some_unit(), attempt: 1, event: broken() };
    assert_eq!(refused(Kind::GiveEvent(event)), not_json("GiveEvent.event"));
    assert_eq!(refused(Kind::Signal(broken())), not_json("Command.signal"));
    assert_eq!(refused(Kind::BindOutcome(broken())), not_json("Command.bind_outcome"));
}

#[test]
fn a_refusal_that_says_nothing_known_is_an_error() {
    let newer = |error: DecodeError| matches!(error, DecodeError::Newer { .. });
    assert!(newer(rejected_from(proto::Rejected { why: None }).unwrap_err()));
    assert!(newer(Refusal::from_proto(proto::Refusal { why: None }).unwrap_err()));
    let stale = |key| rejected_from(proto::Rejected { why: Some(proto::rejected::Why::Stale(key)) });
    assert!(newer(stale(proto::OrderKey { kind: None }).unwrap_err()));
    let timer = proto::order_key::Kind::Timer(proto::TimerKey { kind: None });
    assert!(newer(stale(proto::OrderKey { kind: Some(timer) }).unwrap_err()));
    let mut key = proto::UnitAttempt { unit: None, attempt: 1 };
    let judge = proto::OrderKey { kind: Some(proto::order_key::Kind::Judge(key)) };
    assert_eq!(stale(judge), Err(DecodeError::Missing { field: "OrderKey.unit" }));
    key.unit = some_unit();
    let judge = proto::OrderKey { kind: Some(proto::order_key::Kind::Judge(key)) };
    assert!(stale(judge).is_ok());
    let sleep = proto::UnitAttempt { unit: None, attempt: 1 };
    let timer = proto::TimerKey { kind: Some(proto::timer_key::Kind::Sleep(sleep)) };
    assert_eq!(refused(Kind::FireTimer(timer)), DecodeError::Missing { field: "TimerKey.unit" });
    let long = "x".repeat(10_000);
    let why = proto::rejected::Why::RunNotFailed(long);
    let told = rejected_from(proto::Rejected { why: Some(why) }).unwrap_err().to_string();
    assert_eq!(told, "Rejected.run_not_failed is damaged: it has 10000 bytes, at most 128 are possible");
}

#[test]
fn the_largest_numbers_arrive() {
    let rejected = Rejected::TooLarge { what: "the output", bytes: usize::MAX, most: 0 };
    assert_eq!(rejected_from(rejected_to(&rejected)), Ok(rejected));
    let command = kapell_kernel::Command::FireTimer(TimerKey::Sleep(unit(), Attempt(u32::MAX)));
    assert_eq!(command_from(command_to(&command)), Ok(command));
}

fn all_bytes() -> Vec<Vec<u8>> {
    let commands = commands().into_iter().map(|(_, command)| command_to(&command).encode_to_vec());
    let rejections = rejections().into_iter().map(|(_, rejected)| rejected_to(&rejected).encode_to_vec());
    let refusals = refusals().into_iter().map(|(_, refusal)| refusal.to_proto().encode_to_vec());
    let messages = messages().into_iter().map(|(_, message)| message.encode_to_vec());
    commands.chain(rejections).chain(refusals).chain(messages).collect()
}

/// Reads the bytes as everything that a peer may send.
fn read(bytes: &[u8]) {
    fn of<M: prost::Message + Default, T, E>(bytes: &[u8], read: impl Fn(M) -> Result<T, E>) {
        if let Ok(message) = M::decode(bytes) {
            drop(read(message));
        }
    }
    of(bytes, command_from);
    of(bytes, rejected_from);
    of(bytes, Refusal::from_proto);
    of(bytes, run_command_from);
    of(bytes, Start::from_proto);
    of(bytes, |event: proto::DeliverEvent| event_from(&event));
    of(bytes, |told: proto::ChildConfirmed| child_confirmed_from(&told));
    drop(run_from(bytes));
    if let Ok(message) = proto::PeerMessage::decode(bytes)
        && let Some(proto::peer_message::Kind::Ask(proto::Ask { what: Some(what), .. })) = message.kind
    {
        read_ask(what);
    }
}

fn read_ask(what: proto::ask::What) {
    use proto::ask::What;
    match what {
        What::StartRuns(asked) => asked.starts.into_iter().map(Start::from_proto).for_each(drop),
        What::RunCommands(asked) => asked.commands.into_iter().map(run_command_from).for_each(drop),
        What::DeliverEvent(asked) => drop(event_from(&asked)),
        What::ChildConfirmed(asked) => drop(child_confirmed_from(&asked)),
        What::ReadRun(proto::ReadRun { run })
        | What::Watch(proto::Watch { run })
        | What::AwaitEnd(proto::AwaitEnd { run }) => drop(run_from(&run)),
        What::ListSchedules(asked) => drop(list_schedules_from(&asked)),
        What::Stats(_) => {}
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        read(&bytes);
    }

    #[test]
    fn changed_bytes_never_panic(
        which in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let all = all_bytes();
        let mut bytes = which.get(&all).clone();
        for (at, value) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
        }
        read(&bytes);
        bytes.truncate(cut.index(bytes.len() + 1));
        read(&bytes);
    }
}
