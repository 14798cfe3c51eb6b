//! Golden bytes: what was written once stays readable, and means the same.
//!
//! `KAPELL_BLESS=1` writes the files that are missing. It never changes one: old bytes are a promise.
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use kapell_model::Timestamp;
use kapell_wire::{RecordBody, RecordRef, decode_image, decode_record, encode_image, encode_record};

use crate::samples::{AT, KINDS, definitions, entries, images, kind_of};
use crate::schedules;
use crate::world::{WORLD, run_id};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/journal")
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(32) {
        line.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
        text.push('\n');
    }
    text
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// The bytes in the golden file; what is encoded today must be these.
fn golden(name: &str, now: &[u8]) -> Vec<u8> {
    let path = folder().join(format!("{name}.hex"));
    if !path.exists() {
        assert!(
            std::env::var_os("KAPELL_BLESS").is_some(),
            "{name}.hex is missing; KAPELL_BLESS=1 writes it"
        );
        fs::create_dir_all(folder()).unwrap();
        fs::write(&path, hex(now)).unwrap();
    }
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text, hex(now), "{name}: what is written is no longer what was written; see docs/adr/0003");
    unhex(&text)
}

#[test]
fn every_entry_has_its_golden_bytes() {
    for (name, entry) in entries() {
        let bytes = golden(&name, &encode_record(AT, RecordRef::Entry(&entry)));
        let read = decode_record(&bytes, &*WORLD).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(read, (AT, RecordBody::Entry(entry)), "{name}");
    }
    let kinds: BTreeSet<&str> = entries().iter().map(|(_, entry)| kind_of(entry)).collect();
    assert_eq!(kinds.len(), KINDS, "a kind of entry without golden bytes");
}

#[test]
fn every_definition_and_image_has_its_golden_bytes() {
    for (name, definition) in definitions() {
        let bytes = golden(name, &encode_record(Timestamp(0), RecordRef::Definition(&definition)));
        assert_eq!(
            decode_record(&bytes, &*WORLD).unwrap(),
            (Timestamp(0), RecordBody::Definition(definition))
        );
    }
    for (name, image) in images().into_iter().chain(schedules::images()) {
        let bytes = golden(name, &encode_image(&image));
        assert_eq!(decode_image(run_id(7), &bytes, &*WORLD).unwrap(), image, "{name}");
    }
}

#[test]
fn every_entry_of_a_schedule_has_its_golden_bytes() {
    let mut kinds = BTreeSet::new();
    for (name, entry) in schedules::entries() {
        let bytes = golden(name, &encode_record(AT, RecordRef::Schedule(&entry)));
        let read = decode_record(&bytes, &*WORLD).unwrap_or_else(|error| panic!("{name}: {error}"));
        kinds.insert(schedules::kind_of(&entry));
        assert_eq!(read, (AT, RecordBody::Schedule(entry)), "{name}");
    }
    assert_eq!(kinds.len(), schedules::KINDS, "a kind of entry without golden bytes");
}

#[test]
fn no_golden_bytes_are_left_unread() {
    let known: BTreeSet<String> = entries()
        .into_iter()
        .map(|(name, _)| name)
        .chain(definitions().into_iter().map(|(name, _)| name.to_owned()))
        .chain(images().into_iter().map(|(name, _)| name.to_owned()))
        .chain(schedules::entries().into_iter().map(|(name, _)| name.to_owned()))
        .chain(schedules::images().into_iter().map(|(name, _)| name.to_owned()))
        .map(|name| format!("{name}.hex"))
        .collect();
    let there: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(there.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new(), "a sample was removed");
}
