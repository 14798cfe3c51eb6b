//! What one version makes of what only a newer one says.
use kapell_kernel::Command;
use kapell_proto::peer::v1 as proto;
use kapell_wire::DecodeError;
use kapell_wire::peer::{Refusal, command_from, run_command_from, run_command_to};
use prost::Message as _;

use crate::world::run_id;

/// Field 99 with a message in it, for a kind that this version does not know.
const UNKNOWN_KIND: [u8; 3] = [0x9a, 0x06, 0];

#[test]
fn an_ask_of_an_unknown_kind_keeps_its_tag_so_that_it_can_be_answered() {
    let mut bytes = proto::Ask { tag: 7, shard: 3, min_revision: 5, what: None }.encode_to_vec();
    bytes.extend(UNKNOWN_KIND);
    let ask = proto::Ask::decode(&*bytes).unwrap();
    assert_eq!((ask.tag, ask.shard, ask.what), (7, 3, None));
    let mut bytes = proto::Answer { tag: 7, what: None }.encode_to_vec();
    bytes.extend(UNKNOWN_KIND);
    let answer = proto::Answer::decode(&*bytes).unwrap();
    assert_eq!((answer.tag, answer.what), (7, None));
}

#[test]
fn one_unknown_command_leaves_the_others_of_its_ask_readable() {
    let known = run_command_to(run_id(7), &Command::TakeTurn);
    let mut unknown = proto::RunCommand { run: known.run.clone(), command: None }.encode_to_vec();
    unknown.extend([0x12, UNKNOWN_KIND.len() as u8]);
    unknown.extend(UNKNOWN_KIND);
    let unknown = proto::RunCommand::decode(&*unknown).unwrap();
    assert_eq!(unknown.command, Some(proto::Command { kind: None }));
    let asked = [known.clone(), unknown, known];
    let read: Vec<_> = asked.into_iter().map(run_command_from).collect();
    assert_eq!(read[0], Ok((run_id(7), Command::TakeTurn)));
    assert!(matches!(read[1], Err(DecodeError::Newer { .. })));
    assert_eq!(read[2], read[0]);
}

#[test]
fn a_message_of_an_unknown_kind_does_not_spoil_its_frame() {
    let forget =
        proto::PeerMessage { kind: Some(proto::peer_message::Kind::Forget(proto::Forget { tag: 7 })) };
    let mut bytes = vec![0x0a, UNKNOWN_KIND.len() as u8];
    bytes.extend(UNKNOWN_KIND);
    bytes.extend(proto::PeerFrame { messages: vec![forget.clone()] }.encode_to_vec());
    let frame = proto::PeerFrame::decode(&*bytes).unwrap();
    assert_eq!(frame.messages, [proto::PeerMessage { kind: None }, forget]);
}

#[test]
fn a_field_that_was_added_later_is_passed_over() {
    let mut bytes =
        proto::Command { kind: Some(proto::command::Kind::Retry("ann".to_owned())) }.encode_to_vec();
    bytes.extend(UNKNOWN_KIND);
    let read = command_from(proto::Command::decode(&*bytes).unwrap());
    assert_eq!(read, Ok(Command::Retry { by: "ann".into() }));
}

#[test]
fn a_refusal_for_an_unknown_reason_is_an_error_and_never_another_reason() {
    let refusal = proto::Refusal::decode(&UNKNOWN_KIND[..]).unwrap();
    assert!(matches!(Refusal::from_proto(refusal), Err(DecodeError::Newer { .. })));
    let mut bytes = vec![0x22, UNKNOWN_KIND.len() as u8];
    bytes.extend(UNKNOWN_KIND);
    let rejected = proto::Refusal::decode(&*bytes).unwrap();
    assert!(matches!(Refusal::from_proto(rejected), Err(DecodeError::Newer { .. })));
}
