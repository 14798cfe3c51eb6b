//! Stored values are a promise: these files were written once and are read for ever.
use std::fs;
use std::path::Path;

use super::*;

fn golden(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/etcd").join(name);
    let mut bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(bytes.pop(), Some(b'\n'), "files end with a line");
    bytes
}

fn member() -> Member {
    let (address, version) = ("node-1.kapell.svc:7700".to_owned(), "0.1.0".to_owned());
    Member::new(NodeName::new("node-1").unwrap(), address, version)
}

fn leaving() -> Member {
    Member { leaving: true, ..member() }
}

#[test]
fn values_are_written_as_they_always_were() {
    assert_eq!(encode_member(&member()), golden("member.json"));
    assert_eq!(encode_member(&leaving()), golden("member.leaving.json"));
    assert_eq!(OwnerRecord::new(&member(), 41).encode(), golden("owner.json"));
    assert_eq!(encode_base(41), golden("base.json"));
}

#[test]
fn values_are_read_as_they_were_written() {
    assert_eq!(decode_member(&golden("member.json")).unwrap(), member());
    assert_eq!(decode_member(&golden("member.leaving.json")).unwrap(), leaving());
    assert_eq!(OwnerRecord::decode(&golden("owner.json")).unwrap(), OwnerRecord::new(&member(), 41));
    assert_eq!(decode_base(&golden("base.json")).unwrap(), 41);
}

#[test]
fn what_a_later_version_adds_is_left_alone() {
    assert_eq!(decode_member(&golden("member.newer.json")).unwrap(), member());
    assert_eq!(OwnerRecord::decode(&golden("owner.newer.json")).unwrap(), OwnerRecord::new(&member(), 41));
}

#[test]
fn what_no_node_wrote_is_refused_with_a_reason() {
    let wrong = decode_member(br#"{"node":"Not a name","address":"a:1","version":"1"}"#).unwrap_err();
    assert!(wrong.to_string().contains("is no name"), "{wrong}");
    let missing = OwnerRecord::decode(br#"{"node":"a","base":1}"#).unwrap_err();
    assert!(missing.to_string().contains("missing field `address`"), "{missing}");
    assert!(decode_base(b"-1").is_err() && decode_base(b"").is_err());
}
