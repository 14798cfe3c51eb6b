//! A known message of each kind.
use kapell_kernel::{Attempt, Command, ParentRef};
use kapell_proto::peer::v1 as proto;
use kapell_proto::v1;
use kapell_wire::cloud_event::Event;
use kapell_wire::peer::{
    Refusal, Start, WorkflowVersion, child_confirmed_to, event_to, list_schedules_to, run_command_to, run_to,
};
use proto::answer::What as Said;
use proto::ask::What;
use proto::peer_message::Kind;

use crate::commands::unit;
use crate::world::{WORLD, name, run_id};

/// How many kinds of messages, asks and answers there are.
pub(crate) const KINDS: [usize; 3] = [5, 9, 11];

/// Name of a message's golden file, and which of [`KINDS`] it belongs to.
pub(crate) fn kind_of(message: &proto::PeerMessage) -> Vec<&'static str> {
    match message.kind.as_ref().unwrap() {
        Kind::Hello(_) => vec!["hello"],
        Kind::Ask(ask) => vec!["ask", ask_kind(ask.what.as_ref().unwrap())],
        Kind::Answer(answer) => vec!["answer", answer_kind(answer.what.as_ref().unwrap())],
        Kind::Note(_) => vec!["note"],
        Kind::Forget(_) => vec!["forget"],
    }
}

fn ask_kind(what: &What) -> &'static str {
    match what {
        What::StartRuns(_) => "start-runs",
        What::RunCommands(_) => "run-commands",
        What::DeliverEvent(_) => "deliver-event",
        What::ReadRun(_) => "read-run",
        What::Watch(_) => "watch",
        What::AwaitEnd(_) => "await-end",
        What::Stats(_) => "stats",
        What::ChildConfirmed(_) => "child-confirmed",
        What::ListSchedules(_) => "list-schedules",
    }
}

fn answer_kind(what: &Said) -> &'static str {
    match what {
        Said::Refused(_) => "refused",
        Said::Started(_) => "started",
        Said::Commands(_) => "commands",
        Said::Delivered(_) => "delivered",
        Said::Run(_) => "run",
        Said::Stats(_) => "stats",
        Said::Done(_) => "done",
        Said::NotOwner(_) => "not-owner",
        Said::Unavailable(_) => "unavailable",
        Said::Unsupported(_) => "unsupported",
        Said::Schedules(_) => "schedules",
    }
}

pub(crate) fn start() -> Start {
    Start {
        run: run_id(7),
        workflow: WorkflowVersion::of(&WORLD.workflow("small")),
        key: Some("vendor:V-100".into()),
        event: event().json,
        parent: Some(ParentRef { run: run_id(1), unit: unit(), attempt: Attempt(2) }),
        nesting: 1,
    }
}

pub(crate) fn event() -> Event {
    let text =
        r#"{"specversion":"1.0","id":"e-1","source":"/shop","type":"com.example.told","data":{"z":1,"a":2}}"#;
    Event::from_json(text.as_bytes()).unwrap()
}

fn view() -> v1::Run {
    v1::Run { id: run_id(7).to_string(), namespace: "retail".to_owned(), state: 2, ..v1::Run::default() }
}

/// Messages, each under the name of its golden file.
pub(crate) fn messages() -> Vec<(String, proto::PeerMessage)> {
    let hello =
        proto::Hello { node: "node-1".to_owned(), owner: "north".to_owned(), version: "0.1.0".to_owned() };
    let plain = [
        Kind::Hello(hello),
        Kind::Note(proto::Note { tag: 7, run: Some(view()) }),
        Kind::Forget(proto::Forget { tag: 7 }),
    ];
    let asks = asks()
        .into_iter()
        .map(|what| Kind::Ask(proto::Ask { tag: 300, shard: 3, min_revision: 5, what: Some(what) }));
    let answers =
        answers().into_iter().map(|what| Kind::Answer(proto::Answer { tag: 300, what: Some(what) }));
    let messages = plain.into_iter().chain(asks).chain(answers).map(|kind| {
        let message = proto::PeerMessage { kind: Some(kind) };
        (kind_of(&message).join("."), message)
    });
    messages.collect()
}

fn asks() -> Vec<What> {
    let run = || run_to(run_id(7));
    let command = run_command_to(run_id(7), &Command::Resume { by: "ann".into() });
    let plain = Start { key: None, parent: None, nesting: 0, ..start() };
    vec![
        What::StartRuns(proto::StartRuns { starts: vec![start().to_proto(), plain.to_proto()] }),
        What::RunCommands(proto::RunCommands { commands: vec![command] }),
        What::DeliverEvent(event_to(&name("retail"), &event())),
        What::ReadRun(proto::ReadRun { run: run() }),
        What::Watch(proto::Watch { run: run() }),
        What::AwaitEnd(proto::AwaitEnd { run: run() }),
        What::Stats(proto::Stats {}),
        What::ChildConfirmed(child_confirmed_to(run_id(7), unit(), Attempt(2))),
        What::ListSchedules(list_schedules_to(&name("retail"))),
    ]
}

fn answers() -> Vec<Said> {
    let refusal = || Refusal::Unavailable.to_proto();
    let started = proto::StartedRun { run: run_to(run_id(7)), duplicate: true };
    let started =
        [proto::start_result::Result::Started(started), proto::start_result::Result::Refusal(refusal())];
    let done = [
        proto::command_result::Result::Done(proto::Done {}),
        proto::command_result::Result::Refusal(refusal()),
    ];
    let stats = proto::ShardStats {
        epoch: 4,
        last_seq: 1_000,
        live_runs: 3,
        ledger_behind: 2,
        approvals: 1,
        queued_commands: 9,
    };
    let schedule = v1::Schedule { name: "often".to_owned(), started: 300, ..v1::Schedule::default() };
    vec![
        Said::Refused(refusal()),
        Said::Started(proto::Started {
            results: started.map(|result| proto::StartResult { result: Some(result) }).into(),
        }),
        Said::Commands(proto::CommandResults {
            results: done.map(|result| proto::CommandResult { result: Some(result) }).into(),
        }),
        Said::Delivered(proto::Delivered { count: 3 }),
        Said::Run(proto::RunFound { run: Some(view()) }),
        Said::Stats(stats),
        Said::Done(proto::Done {}),
        Said::NotOwner(proto::NotOwner { owner: Some("node-2".to_owned()) }),
        Said::Unavailable(proto::Unavailable {}),
        Said::Unsupported(proto::Unsupported { reason: "it is an ask of a kind".to_owned() }),
        Said::Schedules(proto::SchedulesFound { schedules: vec![schedule] }),
    ]
}
