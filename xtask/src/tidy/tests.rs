//! Each rule can fail, and holds when what it asks for is there.

use std::collections::BTreeMap;

use super::check;

/// The rules that one file breaks; `docs/errors/known.md` and `docs/guide.md` exist.
fn broken(path: &str, text: &str) -> Vec<String> {
    let texts = BTreeMap::from([(path.to_owned(), text.to_owned())]);
    rules(&texts)
}

fn rules(texts: &BTreeMap<String, String>) -> Vec<String> {
    let exists = |path: &str| matches!(path, "docs/errors/known.md" | "docs/guide.md" | "docs/adr");
    let findings = check(texts, &exists);
    findings.into_iter().map(|finding| format!("{} {}", finding.place, finding.rule)).collect()
}

fn nothing() -> Vec<String> {
    Vec::new()
}

const FILE: &str = "crates/model/src/ids.rs";

#[test]
fn a_file_has_a_header() {
    assert_eq!(broken(FILE, "fn f() {}\n"), [format!("{FILE}:1 header")]);
    assert_eq!(broken(FILE, "//! Ids.\nfn f() {}\n"), nothing());
    assert_eq!(broken("crates/model/src/tests.rs", "fn f() {}\n"), nothing());
    assert_eq!(broken("tests/contract/src/lib.rs", "fn f() {}\n"), nothing());
}

#[test]
fn a_long_file_gives_its_reason() {
    let code = "const A: u8 = 0;\n".repeat(600);
    assert_eq!(broken(FILE, &format!("//! Ids.\n{code}")), [format!("{FILE}:1 file")]);
    assert_eq!(broken(FILE, &format!("//! Ids.\n//! Long because: one table.\n{code}")), nothing());
    assert_eq!(broken(FILE, &format!("//! Ids.\n//! Long because:\n{code}")), [format!("{FILE}:1 file")]);
    let tests = format!("//! Ids.\n#[cfg(test)]\nmod tests {{\n{code}}}\n");
    assert_eq!(broken(FILE, &tests), nothing());
}

#[test]
fn a_long_function_is_a_table() {
    let function = format!("fn f() {{\n{}}}\n", "    g();\n".repeat(69));
    assert_eq!(broken(FILE, &format!("//! Ids.\n{function}")), [format!("{FILE}:2 function")]);
    assert_eq!(broken(FILE, &format!("//! Ids.\n// table: one row a state\n{function}")), nothing());
    assert_eq!(
        broken(FILE, &format!("//! Ids.\n// table: one row a state\n#[inline]\n{function}")),
        nothing()
    );
    assert_eq!(
        broken(FILE, &format!("//! Ids.\n// table: far\n\n{function}")),
        [format!("{FILE}:4 function")]
    );
    let short = format!("//! Ids.\nfn f() {{\n{}}}\n", "    g();\n".repeat(68));
    assert_eq!(broken(FILE, &short), nothing());
    let method = format!("//! Ids.\nimpl A {{\n{function}}}\n");
    assert_eq!(broken(FILE, &method), [format!("{FILE}:3 function")]);
}

#[test]
fn work_that_is_not_done_is_found() {
    assert_eq!(broken(FILE, "//! Ids.\n// TODO: later\n"), [format!("{FILE}:2 undone")]);
    assert_eq!(broken(FILE, "//! Ids.\nfn f() {} // FIXME\n"), [format!("{FILE}:2 undone")]);
    assert_eq!(broken(FILE, "//! Ids.\nfn f() { todo!() }\n"), [format!("{FILE}:2 undone")]);
    assert_eq!(broken(FILE, "//! Ids.\nm! { unimplemented!(\"x\") }\n"), [format!("{FILE}:2 undone")]);
    assert_eq!(broken(FILE, "//! Ids.\nconst A: &str = \"TODO\"; // mastodon\n"), nothing());
    assert_eq!(broken("docs/guide.md", "Then TODO.\n"), ["docs/guide.md:1 undone"]);
}

#[test]
fn an_ignored_test_says_why() {
    let file = "crates/model/tests/ids.rs";
    assert_eq!(broken(file, "#[test]\n#[ignore]\nfn f() {}\n"), [format!("{file}:2 ignored")]);
    assert_eq!(broken(file, "#[test]\n#[ignore = \"needs a server\"]\nfn f() {}\n"), nothing());
}

#[test]
fn names_say_what_is_inside() {
    assert_eq!(broken("crates/model/src/utils.rs", "//! Ids.\n"), ["crates/model/src/utils.rs:1 name"]);
    assert_eq!(broken("tests/common/mod.rs", "fn f() {}\n"), ["tests/common/mod.rs:1 name"]);
    assert_eq!(broken(FILE, "//! Ids.\nmod helpers {\n}\n"), [format!("{FILE}:2 name")]);
    assert_eq!(broken("crates/model/src/utility.rs", "//! Ids.\n"), nothing());
}

#[test]
fn paths_of_one_machine_are_found() {
    for folder in ["work", "root", "home", "tmp"] {
        let text = format!("//! Ids.\nconst A: &str = \"/{folder}/x\";\n");
        assert_eq!(broken(FILE, &text), [format!("{FILE}:2 machine")]);
        let test =
            format!("//! Ids.\n#[cfg(test)]\nmod tests {{\n    const A: &str = \"/{folder}/x\";\n}}\n");
        assert_eq!(broken(FILE, &test), nothing());
        assert_eq!(broken("docs/guide.md", &format!("See `/{folder}/x`.\n")), ["docs/guide.md:1 machine"]);
        assert_eq!(broken("docs/guide.md", &format!("See https://example.com/{folder}/x.\n")), nothing());
    }
}

#[test]
fn a_test_that_sleeps_says_why() {
    let file = "crates/model/src/tests.rs";
    assert_eq!(broken(file, "fn f() { tokio::time::sleep(a).await; }\n"), [format!("{file}:1 sleep")]);
    assert_eq!(broken(file, "fn f() {\n    // why: the lease has to expire\n    sleep(a);\n}\n"), nothing());
    assert_eq!(broken(file, "fn f() {\n    sleep(a); // why: it has to expire\n}\n"), nothing());
    assert_eq!(broken(file, "fn sleep(a: u8) {}\n"), nothing());
    assert_eq!(broken(FILE, "//! Ids.\nfn f() { sleep(a); }\n"), nothing());
    let inline = "//! Ids.\n#[cfg(test)]\nmod tests {\n    fn f() { m! { sleep(a) } }\n}\n";
    assert_eq!(broken(FILE, inline), [format!("{FILE}:4 sleep")]);
}

#[test]
fn a_module_that_is_declared_for_tests_is_a_test() {
    let texts = BTreeMap::from([
        (
            "crates/model/src/lib.rs".to_owned(),
            "//! Model.\n#[cfg(test)]\nmod fixture;\nmod real;\n".to_owned(),
        ),
        ("crates/model/src/fixture.rs".to_owned(), "fn f() { sleep(a) }\n".to_owned()),
        ("crates/model/src/fixture/deep.rs".to_owned(), "fn f() {}\n".to_owned()),
        ("crates/model/src/real.rs".to_owned(), "fn f() { sleep(a) }\n".to_owned()),
    ]);
    assert_eq!(rules(&texts), ["crates/model/src/fixture.rs:1 sleep", "crates/model/src/real.rs:1 header"]);
}

#[test]
fn error_pages_exist() {
    let text = "//! Ids.\nconst A: &str = \"see docs/errors/unknown.md\";\n";
    assert_eq!(broken(FILE, text), [format!("{FILE}:2 error page")]);
    assert_eq!(broken(FILE, &text.replace("unknown", "known")), nothing());
}

#[test]
fn links_lead_somewhere() {
    let document = "docs/adr/README.md";
    assert_eq!(broken(document, "[a](../guide.md#part) [b](https://example.com/x) [c](#here)\n"), nothing());
    assert_eq!(broken(document, "[a](guide.md)\n"), [format!("{document}:1 link")]);
    assert_eq!(broken(document, "text\n[a]: ../gone.md\n"), [format!("{document}:2 link")]);
    assert_eq!(broken(document, "```\n[a](gone.md)\n```\nand `[a](gone.md)`\n"), nothing());
}

#[test]
fn decisions_are_numbered_and_listed() {
    let adr = |name: &str| (format!("docs/adr/{name}"), "Decided.\n".to_owned());
    let list =
        ("docs/adr/README.md".to_owned(), "0001-one.md, 0002-two.md, 0002-again.md, notes.md".to_owned());
    let good = BTreeMap::from([adr("0001-one.md"), adr("0002-two.md"), list.clone()]);
    assert_eq!(rules(&good), nothing());
    let twice = BTreeMap::from([adr("0002-again.md"), adr("0002-two.md"), list.clone()]);
    assert_eq!(rules(&twice), ["docs/adr/0002-two.md adr"]);
    assert_eq!(rules(&BTreeMap::from([adr("notes.md"), list.clone()])), ["docs/adr/notes.md adr"]);
    assert_eq!(rules(&BTreeMap::from([adr("0003-new.md"), list])), ["docs/adr/0003-new.md adr"]);
    assert_eq!(rules(&BTreeMap::from([adr("0003-new.md")])), nothing());
}

#[test]
fn what_does_not_parse_is_a_finding() {
    assert_eq!(broken(FILE, "fn f( {"), [format!("{FILE} rust")]);
}
