//! Starts, events and refusals: there and back, and at their edges.
use std::time::Duration;

use kapell_kernel::{Attempt, Command, Rejected};
use kapell_wire::cloud_event::Event;
use kapell_wire::peer::{
    Refusal, Start, child_confirmed_from, child_confirmed_to, event_from, event_to, list_schedules_from,
    list_schedules_to, run_command_from, run_command_to, run_from, run_to,
};
use kapell_wire::{DecodeError, peer};

use crate::commands::unit;
use crate::messages::{event, start};
use crate::world::{name, run_id};

#[test]
fn the_parts_of_asks_come_out_as_they_went_in() {
    let plain = Start { key: None, parent: None, nesting: 0, ..start() };
    let empty_key = Start { key: Some("".into()), ..start() };
    for start in [start(), plain, empty_key] {
        assert_eq!(Start::from_proto(start.to_proto()), Ok(start));
    }
    let sent = event_to(&name("retail"), &event());
    assert_eq!(event_from(&sent), Ok((name("retail"), event())));
    let sent = child_confirmed_to(run_id(7), unit(), Attempt(2));
    assert_eq!(child_confirmed_from(&sent), Ok((run_id(7), unit(), Attempt(2))));
    let sent = run_command_to(run_id(7), &Command::TakeTurn);
    assert_eq!(run_command_from(sent), Ok((run_id(7), Command::TakeTurn)));
    assert_eq!(run_from(&run_to(run_id(7))), Ok(run_id(7)));
    assert_eq!(list_schedules_from(&list_schedules_to(&name("retail"))), Ok(name("retail")));
    let nowhere = list_schedules_from(&kapell_proto::peer::v1::ListSchedules { namespace: String::new() });
    assert_eq!(nowhere, Err(DecodeError::Missing { field: "ListSchedules.namespace" }));
}

#[test]
fn a_start_that_is_not_whole_is_refused_with_the_field() {
    let with = |change: fn(&mut kapell_proto::peer::v1::StartRun)| {
        let mut sent = start().to_proto();
        change(&mut sent);
        Start::from_proto(sent).unwrap_err()
    };
    let missing = |field| DecodeError::Missing { field };
    assert_eq!(with(|start| start.run.clear()), missing("StartRun.run"));
    assert_eq!(with(|start| start.workflow = None), missing("StartRun.workflow"));
    assert_eq!(with(|start| start.event.clear()), missing("StartRun.event"));
    let told = with(|start| start.event = "{".to_owned()).to_string();
    assert!(told.starts_with("StartRun.event is damaged: not JSON: "), "{told}");
    let long = with(|start| start.run.push(0)).to_string();
    assert_eq!(long, "StartRun.run is damaged: it has 17 bytes, not 16");
    let long = with(|start| start.workflow.as_mut().unwrap().digest = vec![0; 32]).to_string();
    assert_eq!(long, "WorkflowRef.digest is damaged: it has 32 bytes, not 16");
    assert_eq!(with(|start| start.workflow.as_mut().unwrap().name.clear()), missing("WorkflowRef.name"));
    let named = with(|start| start.workflow.as_mut().unwrap().namespace = "x".repeat(64));
    assert!(matches!(named, DecodeError::Damaged { field: "WorkflowRef.namespace", .. }), "{named}");
    assert_eq!(with(|start| start.parent.as_mut().unwrap().unit = None), missing("Parent.unit"));
}

#[test]
fn an_event_from_a_peer_is_read_as_one_from_outside() {
    let mut sent = event_to(&name("retail"), &event());
    sent.event_type = "com.example.other".to_owned();
    let told = event_from(&sent).unwrap_err().to_string();
    let said = "its type is `com.example.told`, not `com.example.other`";
    assert_eq!(told, format!("DeliverEvent.event is damaged: {said}"));
    sent.event = r#"{"specversion":"1.0"}"#.to_owned();
    assert!(matches!(event_from(&sent), Err(DecodeError::Damaged { field: "DeliverEvent.event", .. })));
    sent.event.clear();
    assert_eq!(event_from(&sent), Err(DecodeError::Missing { field: "DeliverEvent.event" }));
    sent.namespace.clear();
    assert_eq!(event_from(&sent), Err(DecodeError::Missing { field: "DeliverEvent.namespace" }));
    // Whatever form it came in: what is sent on reads as itself.
    let other =
        r#"{"type":"t","id":"1","source":"s","specversion":"1.0","data_base64":"AP8=","subject":"x"}"#;
    let other = Event::from_json(other.as_bytes()).unwrap();
    assert_eq!(event_from(&event_to(&name("retail"), &other)).unwrap().1, other);
}

#[test]
fn a_busy_shard_is_never_asked_again_too_early() {
    let hurried = Refusal::Busy { retry_after: Duration::from_micros(1) };
    let read = Refusal::from_proto(hurried.to_proto());
    assert_eq!(read, Ok(Refusal::Busy { retry_after: Duration::from_millis(1) }));
}

#[test]
fn what_cannot_be_read_is_said_to_be_unsupported() {
    let error = peer::command_from(kapell_proto::peer::v1::Command { kind: None }).unwrap_err();
    let Refusal::Unsupported { reason } = Refusal::from(error) else { panic!() };
    assert!(reason.starts_with("it is a command of a kind, which only a newer program knows"), "{reason}");
}

#[test]
fn a_phrase_of_a_newer_kernel_arrives_as_it_was_said() {
    let mut sent = peer::rejected_to(&Rejected::TooMany { what: "", most: 3 });
    if let Some(kapell_proto::peer::v1::rejected::Why::TooMany(refused)) = &mut sent.why {
        refused.what = format!("open {}", "umbrellas");
    }
    let read = peer::rejected_from(sent.clone()).unwrap();
    assert_eq!(read.to_string(), "the run has 3 open umbrellas already");
    assert_eq!(peer::rejected_to(&read), sent);
}
