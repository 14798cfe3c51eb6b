//! Golden bytes: what was written once stays readable, and means the same.
use std::collections::BTreeSet;

use kapell_model::Timestamp;
use kapell_wire::{RecordBody, RecordRef, decode_image, decode_record, encode_image, encode_record};

use crate::golden_files::GoldenFiles;
use crate::samples::{AT, KINDS, definitions, entries, images, kind_of};
use crate::schedules;
use crate::world::{WORLD, run_id};

const FILES: GoldenFiles = GoldenFiles { folder: "journal", law: "docs/adr/0003" };

#[test]
fn every_entry_has_its_golden_bytes() {
    for (name, entry) in entries() {
        let bytes = FILES.bytes(&name, &encode_record(AT, RecordRef::Entry(&entry)));
        let read = decode_record(&bytes, &*WORLD).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(read, (AT, RecordBody::Entry(entry)), "{name}");
    }
    let kinds: BTreeSet<&str> = entries().iter().map(|(_, entry)| kind_of(entry)).collect();
    assert_eq!(kinds.len(), KINDS, "a kind of entry without golden bytes");
}

#[test]
fn every_definition_and_image_has_its_golden_bytes() {
    for (name, definition) in definitions() {
        let bytes = FILES.bytes(name, &encode_record(Timestamp(0), RecordRef::Definition(&definition)));
        assert_eq!(
            decode_record(&bytes, &*WORLD).unwrap(),
            (Timestamp(0), RecordBody::Definition(definition))
        );
    }
    for (name, image) in images().into_iter().chain(schedules::images()) {
        let bytes = FILES.bytes(name, &encode_image(&image));
        assert_eq!(decode_image(run_id(7), &bytes, &*WORLD).unwrap(), image, "{name}");
    }
}

#[test]
fn every_entry_of_a_schedule_has_its_golden_bytes() {
    let mut kinds = BTreeSet::new();
    for (name, entry) in schedules::entries() {
        let bytes = FILES.bytes(name, &encode_record(AT, RecordRef::Schedule(&entry)));
        let read = decode_record(&bytes, &*WORLD).unwrap_or_else(|error| panic!("{name}: {error}"));
        kinds.insert(schedules::kind_of(&entry));
        assert_eq!(read, (AT, RecordBody::Schedule(entry)), "{name}");
    }
    assert_eq!(kinds.len(), schedules::KINDS, "a kind of entry without golden bytes");
}

#[test]
fn no_golden_bytes_are_left_unread() {
    let known = entries()
        .into_iter()
        .map(|(name, _)| name)
        .chain(definitions().into_iter().map(|(name, _)| name.to_owned()))
        .chain(images().into_iter().map(|(name, _)| name.to_owned()))
        .chain(schedules::entries().into_iter().map(|(name, _)| name.to_owned()))
        .chain(schedules::images().into_iter().map(|(name, _)| name.to_owned()));
    FILES.assert_all_known(known);
}
