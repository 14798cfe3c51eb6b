//! Golden bytes: what a peer said once is understood by every later version.
use std::collections::BTreeSet;

use kapell_kernel::{Command, Rejected};
use kapell_proto::peer::v1 as proto;
use kapell_wire::peer::{Refusal, command_from, command_to, rejected_from, rejected_to};
use prost::Message as _;

use crate::golden_files::GoldenFiles;
use crate::{commands, messages, refusals};

const FILES: GoldenFiles = GoldenFiles { folder: "peer", law: "docs/adr/0005" };

fn kinds<'a>(of: impl IntoIterator<Item = &'a str>) -> usize {
    of.into_iter().collect::<BTreeSet<_>>().len()
}

#[test]
fn every_command_has_its_golden_bytes() {
    let all = commands::commands();
    for (name, command) in &all {
        let bytes = FILES.bytes(&format!("command.{name}"), &command_to(command).encode_to_vec());
        let read = command_from(proto::Command::decode(&*bytes).unwrap());
        assert_eq!(read.as_ref(), Ok(command), "{name}");
    }
    let kinds = kinds(all.iter().map(|(_, command): &(_, Command)| commands::kind_of(command)));
    assert_eq!(kinds, commands::KINDS, "a kind of command without golden bytes");
}

#[test]
fn every_rejection_has_its_golden_bytes() {
    let all = refusals::rejections();
    for (name, rejected) in &all {
        let bytes = FILES.bytes(&format!("rejected.{name}"), &rejected_to(rejected).encode_to_vec());
        let read = rejected_from(proto::Rejected::decode(&*bytes).unwrap());
        assert_eq!(read.as_ref(), Ok(rejected), "{name}");
    }
    let kinds_there = kinds(all.iter().map(|(_, rejected): &(_, Rejected)| refusals::kind_of(rejected)));
    assert_eq!(kinds_there, refusals::REJECTED_KINDS, "a kind of rejection without golden bytes");
    let orders = kinds(refusals::orders().into_iter().map(refusals::order_kind));
    assert_eq!(orders, refusals::ORDER_KINDS, "a kind of order without golden bytes");
}

#[test]
fn every_refusal_has_its_golden_bytes() {
    let all = refusals::refusals();
    for (name, refusal) in &all {
        let bytes = FILES.bytes(&format!("refusal.{name}"), &refusal.to_proto().encode_to_vec());
        let read = Refusal::from_proto(proto::Refusal::decode(&*bytes).unwrap());
        assert_eq!(read.as_ref(), Ok(refusal), "{name}");
    }
    let kinds = kinds(all.iter().map(|(_, refusal)| refusals::refusal_kind(refusal)));
    assert_eq!(kinds, refusals::REFUSAL_KINDS, "a kind of refusal without golden bytes");
}

#[test]
fn every_message_has_its_golden_bytes() {
    let all = messages::messages();
    for (name, message) in &all {
        let bytes = FILES.bytes(name, &message.encode_to_vec());
        assert_eq!(proto::PeerMessage::decode(&*bytes).as_ref(), Ok(message), "{name}");
    }
    let paths: Vec<_> = all.iter().map(|(_, message)| messages::kind_of(message)).collect();
    let within = |outer: &str| kinds(paths.iter().filter(|path| path[0] == outer).map(|path| path[1]));
    let there = [kinds(paths.iter().map(|path| path[0])), within("ask"), within("answer")];
    assert_eq!(there, messages::KINDS, "a kind of message without golden bytes");
}

#[test]
fn no_golden_bytes_are_left_unread() {
    let prefixed = |prefix: &'static str| move |name: String| format!("{prefix}.{name}");
    let known = messages::messages()
        .into_iter()
        .map(|(name, _)| name)
        .chain(commands::commands().into_iter().map(|(name, _)| name).map(prefixed("command")))
        .chain(refusals::rejections().into_iter().map(|(name, _)| name).map(prefixed("rejected")))
        .chain(refusals::refusals().into_iter().map(|(name, _)| name).map(prefixed("refusal")));
    FILES.assert_all_known(known);
}
