//! Bytes that are not what was written are refused with their reason, and never panic.
use std::sync::Arc;

use kapell_kernel::Entry;
use kapell_model::Json;
use kapell_model::plan::{CompiledWorkflow, DefinitionDigest, StepIndex};
use kapell_proto::journal as proto;
use kapell_wire::{
    DecodeError, Definitions, RecordRef, decode_image, decode_record, encode_image, encode_record,
};
use proptest::prelude::*;
use prost::Message as _;

use crate::samples::{AT, entries, images};
use crate::schedules;
use crate::world::{WORLD, run_id};

fn refused(kind: proto::entry::Kind) -> DecodeError {
    let entry = proto::Entry { kind: Some(kind) };
    let record = proto::Record { at_ms: 1, kind: Some(proto::record::Kind::Entry(entry)) };
    decode_record(&record.encode_to_vec(), &*WORLD).unwrap_err()
}

fn unit() -> Option<kapell_proto::v1::UnitId> {
    Some(kapell_proto::v1::UnitId { step: 1, item: None, undo: false })
}

struct Nothing;
impl Definitions for Nothing {
    fn by_digest(&self, _: DefinitionDigest) -> Option<Arc<CompiledWorkflow>> {
        None
    }
}

#[test]
fn a_missing_or_unknown_value_is_named() {
    use proto::entry::Kind;
    let missing = |field| DecodeError::Missing { field };
    let done =
        |unit, output: &str| refused(Kind::UnitDone(proto::UnitDone { unit, output: output.to_owned() }));
    assert_eq!(done(None, "1"), missing("UnitDone.unit"));
    assert_eq!(done(unit(), ""), missing("UnitDone.output"));
    assert_eq!(done(unit(), "{"), DecodeError::NotJson { field: "UnitDone.output" });
    let child = |child| proto::ChildBegan { unit: unit(), child, input: "1".into(), ..Default::default() };
    assert_eq!(refused(Kind::ChildBegan(child(vec![]))), missing("ChildBegan.child"));
    let told = refused(Kind::ChildBegan(child(vec![1; 17]))).to_string();
    assert_eq!(told, "ChildBegan.child is damaged: it has 17 bytes, not 16");
    let ended = proto::RunEnded { ending: Some(proto::Ending { how: None }), ..proto::RunEnded::default() };
    assert_eq!(refused(Kind::RunEnded(ended)), missing("Ending.how"));
    let bound = proto::OutcomeBound { verdict: 9, event: None };
    let unknown = |field, value| DecodeError::UnknownValue { field, value };
    assert_eq!(refused(Kind::OutcomeBound(bound)), unknown("OutcomeBound.verdict", 9));
    let failed = |class| {
        let error = kapell_proto::v1::TaskError { class, message: "x".into(), retry_after_ms: None };
        let entry = proto::AttemptFailed { unit: unit(), attempt: 1, error: Some(error), retry_at_ms: None };
        refused(Kind::AttemptFailed(entry))
    };
    assert_eq!(failed(0), missing("AttemptFailed.error"));
    assert_eq!(failed(15), unknown("AttemptFailed.error", 15));
    let call = |tool: &str, effect| {
        let (tool, args) = (tool.to_owned(), "1".to_owned());
        refused(Kind::CallIntended(proto::CallIntended {
            unit: unit(),
            tool,
            args,
            effect,
            ..Default::default()
        }))
    };
    assert_eq!(call("a/b", 3), unknown("CallIntended.effect", 3));
    assert!(matches!(call("a", 0), DecodeError::Damaged { field: "CallIntended.tool", .. }));
    let plan =
        |plan: &str| refused(Kind::PlanMade(proto::PlanMade { plan: Some(plan.into()), reasons: vec![] }));
    assert!(matches!(plan("{}"), DecodeError::Damaged { field: "PlanMade.plan", .. }));
    assert!(matches!(plan(r#"{"steps":[]}"#), DecodeError::Damaged { field: "PlanMade.plan", .. }));
}

#[test]
fn a_run_of_an_unknown_definition_is_not_guessed() {
    let (_, entry) = entries().swap_remove(0);
    let Entry::RunAccepted(accepted) = &entry else { panic!("{entry:?}") };
    let bytes = encode_record(AT, RecordRef::Entry(&entry));
    let digest = accepted.workflow.digest;
    assert_eq!(decode_record(&bytes, &Nothing), Err(DecodeError::UnknownDefinition { digest }));
}

#[test]
fn what_only_a_newer_program_knows_is_refused_and_never_skipped() {
    // Field 1 (entry) holding field 99, and field 9 in place of an entry.
    let newer = |bytes: &[u8]| match decode_record(bytes, &*WORLD) {
        Err(DecodeError::Newer { what }) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(newer(&[0x18, 5, 0x0a, 3, 0x9a, 0x06, 0]), "it is of kind 99");
    assert_eq!(newer(&[0x4a, 0, 0x18, 5]), "it is of kind 9");
    assert_eq!(newer(&[0x22, 3, 0x9a, 0x06, 0]), "it is of kind 99");
    // A known kind with a field that was added later.
    let mut bytes = encode_record(AT, RecordRef::Entry(&Entry::ParentTold)).to_vec();
    bytes.extend([0x78, 1]);
    assert!(newer(&bytes).contains("it has fields"), "{}", newer(&bytes));
    let (_, image) = images().swap_remove(0);
    let mut bytes = encode_image(&image).to_vec();
    bytes.extend([0x78, 1]);
    assert!(matches!(decode_image(run_id(7), &bytes, &*WORLD), Err(DecodeError::Newer { .. })));
    assert_eq!(decode_record(&[], &*WORLD), Err(DecodeError::Missing { field: "Record.kind" }));
    assert_eq!(decode_record(&[0x0a, 0], &*WORLD), Err(DecodeError::Missing { field: "Entry.kind" }));
    assert_eq!(decode_record(&[0x22, 0], &*WORLD), Err(DecodeError::Missing { field: "ScheduleEntry.kind" }));
}

#[test]
fn a_start_of_a_schedule_is_whole_or_refused() {
    use proto::schedule_entry::Kind;
    let refused = |kind| {
        let entry = proto::ScheduleEntry { kind: Some(kind) };
        let record = proto::Record { at_ms: 1, kind: Some(proto::record::Kind::Schedule(entry)) };
        decode_record(&record.encode_to_vec(), &*WORLD).unwrap_err()
    };
    let started = |start| Kind::TickStarted(proto::TickStarted { no: 1, tick_ms: 1, start, revision: 1 });
    assert_eq!(refused(started(None)), DecodeError::Missing { field: "TickStarted.start" });
    let start = proto::TickRun { run: vec![1; 16], definition: vec![9; 16], key: None, event: "{}".into() };
    let missing = |start| refused(started(Some(start)));
    let no_run = proto::TickRun { run: vec![], ..start.clone() };
    assert_eq!(missing(no_run), DecodeError::Missing { field: "TickRun.run" });
    let no_definition = proto::TickRun { definition: vec![], ..start.clone() };
    assert_eq!(missing(no_definition), DecodeError::Missing { field: "TickRun.definition" });
    let digest = DefinitionDigest([9; 16]);
    assert_eq!(missing(start), DecodeError::UnknownDefinition { digest });
    let left_out = proto::TicksLeftOut { why: 6, ..proto::TicksLeftOut::default() };
    let unknown = DecodeError::UnknownValue { field: "TicksLeftOut.why", value: 6 };
    assert_eq!(refused(Kind::TicksLeftOut(left_out)), unknown);
}

#[test]
fn text_that_is_not_utf_8_is_refused_with_its_field() {
    let entry = Entry::FanJoined { step: StepIndex(1), output: Json::string("zzzz") };
    let mut bytes = encode_record(AT, RecordRef::Entry(&entry)).to_vec();
    let at = bytes.windows(4).position(|part| part == b"zzzz").unwrap();
    bytes[at] = 0xff;
    let Err(DecodeError::Malformed(source)) = decode_record(&bytes, &*WORLD) else { panic!() };
    assert!(source.to_string().contains("FanJoined.output"), "{source}");
}

fn all_bytes() -> Vec<Vec<u8>> {
    let records =
        entries().into_iter().map(|(_, entry)| encode_record(AT, RecordRef::Entry(&entry)).to_vec());
    let of_schedules = schedules::entries().into_iter();
    let of_schedules = of_schedules.map(|(_, entry)| encode_record(AT, RecordRef::Schedule(&entry)).to_vec());
    let images = images().into_iter().chain(schedules::images());
    records.chain(of_schedules).chain(images.map(|(_, image)| encode_image(&image).to_vec())).collect()
}

fn read(bytes: &[u8]) {
    drop(decode_record(bytes, &*WORLD));
    if let Ok(kapell_wire::Image::Run(image)) = decode_image(run_id(7), bytes, &*WORLD) {
        drop(kapell_kernel::Run::from_image(*image));
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
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        read(&bytes);
        bytes.truncate(cut.index(bytes.len() + 1));
        read(&bytes);
    }
}
