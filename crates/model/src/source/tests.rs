use serde_json::json;

use super::*;

fn read_all(text: &str) -> Vec<Result<SourceDocument, SourceProblem>> {
    SourceFile { name: "f.yaml".to_owned(), text: text.to_owned() }.documents()
}

fn read_one(text: &str) -> SourceDocument {
    let mut all = read_all(text);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0).unwrap()
}

fn error(text: &str) -> SourceProblem {
    read_all(text).remove(0).unwrap_err()
}

fn at(line: u32, column: u32) -> Position {
    Position { line, column }
}

#[test]
fn values_are_yaml_1_2_and_nothing_that_surprises() {
    let read = read_one(
        "on: yes\nnone: ~\nint: -3\nbig: 18446744073709551615\nfloat: 1.5\nhex: 0x1F\nspan: 7d\nmode: 0755\n\
         grouped: 1_000\nquoted: \"5\"\ntrue: true\nblock: |\n  a\n  b\nlist: [1, [2]]\n5: key\ndate: 2026-01-31\n",
    );
    assert_eq!(
        *read.value(),
        json!({
            "on": "yes", "none": null, "int": -3, "big": u64::MAX, "float": 1.5, "hex": 31, "span": "7d",
            "mode": "0755", "grouped": "1_000", "quoted": "5", "true": true, "block": "a\nb\n", "list": [1, [2]],
            "5": "key", "date": "2026-01-31"
        })
    );
}

#[test]
fn every_value_and_name_has_its_position() {
    let read = read_one("# first\na: 1\nb:\n  - x\n  -  y: {z: äö, \"q/r\": [1, 2]}\n");
    for (pointer, position) in [
        ("", at(2, 1)),
        ("/a", at(2, 4)),
        ("/b", at(4, 3)),
        ("/b/0", at(4, 5)),
        ("/b/1", at(5, 6)),
        ("/b/1/y", at(5, 9)),
        ("/b/1/y/z", at(5, 13)),
        ("/b/1/y/q~1r/1", at(5, 28)),
        ("/b/1/y/absent/deeper", at(5, 9)),
        ("/b/7", at(4, 3)),
        ("/b/x", at(4, 3)),
        ("/a/under", at(2, 4)),
    ] {
        assert_eq!(read.position(pointer), position, "{pointer}");
    }
    assert_eq!(read.name_position("/a"), at(2, 1));
    assert_eq!(read.name_position("/b/1/y/q~1r"), at(5, 17));
    assert_eq!(read.name_position("/b/0"), at(4, 5), "an item has no name");
    assert_eq!(read.name_position(""), at(2, 1));
}

#[test]
fn aliases_stand_where_they_are_used() {
    let read = read_one("a: &a { k: 1 }\nb: *a\nc:\n  <<: *a\n  own: 2\n");
    assert_eq!(*read.value(), json!({"a": {"k": 1}, "b": {"k": 1}, "c": {"own": 2, "k": 1}}));
    assert_eq!(read.position("/b/k"), at(2, 4));
    assert_eq!(read.position("/c/k"), at(4, 7));
}

#[test]
fn documents_are_cut_at_markers_and_count_lines_of_the_file() {
    let all = read_all(
        "\u{feff}%YAML 1.2\n# about a\n---\na: 1\n---\n# nothing\n--- # b\r\nb: |\r\n  --- no\r\n...\n---x: 1\n---",
    );
    let read: Vec<_> = all.into_iter().map(Result::unwrap).collect();
    assert_eq!(
        read.iter().map(|read| read.value().clone()).collect::<Vec<_>>(),
        [json!({"a": 1}), json!({"b": "--- no\n"}), json!({"---x": 1})]
    );
    assert_eq!(read[0].position("/a"), at(4, 4));
    assert_eq!(read[1].name_position("/b"), at(8, 1));
    assert_eq!(read[2].position("/---x"), at(11, 7));
    assert!(read_all("").is_empty());
    assert!(read_all("---\n~\n---\nnull\n").is_empty(), "empty documents are passed over");
    assert_eq!(read_all("a: 1\n---\nb: [\n---\nc: 1\n").iter().filter(|read| read.is_ok()).count(), 2);
}

#[test]
fn json_is_yaml() {
    let read =
        read_one("{\n\t\"a\": [true, null, \"\\u00e4 \\ud83d\\ude00 \\/\"],\n\t\"b\": {\"c\": -1e3}\n}\n");
    assert_eq!(*read.value(), json!({"a": [true, null, "ä 😀 /"], "b": {"c": -1000.0}}));
    assert_eq!(read.position("/b/c"), at(3, 13));
}

#[test]
fn what_cannot_be_read_says_where_and_why() {
    let wrong = error("a: 1\nb: c: d\n");
    assert_eq!(wrong.at, at(2, 5));
    assert!(matches!(wrong.error, SourceError::Syntax(_)));
    assert!(wrong.error.hint().unwrap().contains("quotes"));
    let twice = error("x: {a: 1,\n a: 2}\n");
    assert_eq!((twice.at, twice.error), (at(2, 2), SourceError::DuplicateKey("a".to_owned())));
    let tab = error("a:\n\tb: 1\n\tc: 2\n");
    assert!(tab.error.hint().is_none_or(|hint| hint.contains("spaces")), "{tab:?}");
    assert!(matches!(error("a: .inf\n").error, SourceError::Syntax(_)));
    assert!(matches!(error("? [a]\n: 1\n").error, SourceError::Syntax(_)));
}

#[test]
fn a_document_has_a_largest_size_and_the_next_is_read_nevertheless() {
    let line = "k: v\n";
    let fill = |bytes: usize| format!("a: {}\n", "x".repeat(bytes - 4));
    assert!(read_all(&fill(DEFINITION_BYTES_MAX))[0].is_ok(), "at the limit");
    let all = read_all(&format!("{}---\n{line}", fill(DEFINITION_BYTES_MAX + 1)));
    let wrong = all[0].as_ref().unwrap_err();
    assert_eq!(wrong.error, SourceError::TooLarge { bytes: DEFINITION_BYTES_MAX + 1 });
    assert!(wrong.error.hint().is_some());
    assert!(all[1].is_ok());
}

#[test]
fn aliases_that_multiply_and_deep_nesting_are_refused() {
    let mut bomb = String::from("l0: &l0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..9 {
        let aliases = vec![format!("*l{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("l{level}: &l{level} [{aliases}]\n"));
    }
    let wrong = error(&bomb);
    assert!(matches!(wrong.error, SourceError::TooMuch(_)), "{wrong:?}");
    assert!(wrong.error.hint().is_some());
    let nested = |deep: usize| format!("{}{}", "[".repeat(deep), "]".repeat(deep));
    assert!(read_all(&nested(DOCUMENT_DEPTH_MAX - 1))[0].is_ok());
    assert!(matches!(error(&nested(DOCUMENT_DEPTH_MAX + 2)).error, SourceError::TooMuch(_)));
    let block: String = (0..200).map(|deep| format!("{}a:\n", " ".repeat(deep))).collect();
    assert!(matches!(error(&block).error, SourceError::TooMuch(_)));
}
