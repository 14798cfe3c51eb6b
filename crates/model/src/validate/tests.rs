use super::*;
use crate::diagnostic::Severity;
use crate::limits::{DEFINITIONS_BYTES_MAX, DEFINITIONS_MAX, NESTING_MAX};

const HEAD: &str = "apiVersion: kapell.dev/v1\nkind: ";

fn file(name: &str, text: impl Into<String>) -> SourceFile {
    SourceFile { name: name.to_owned(), text: text.into() }
}

/// One document with `spec` in flow style.
fn document(kind: &str, name: &str, spec: &str) -> String {
    format!("---\n{HEAD}{kind}\nmetadata: {{ name: {name} }}\nspec: {spec}\n")
}

fn said(text: &str) -> Vec<String> {
    match load(&[file("f.yaml", text)]) {
        Ok(loaded) => loaded.warnings.iter().map(ToString::to_string).collect(),
        Err(wrong) => wrong.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn errors_of_all_files_are_sorted_and_warnings_come_with_them() {
    let workflow = |name: &str| document("Workflow", name, "{ steps: [{ id: a, skill: no.skill }] }");
    let tool = "{ protocol: http, tools: [{ name: t, effect: write, http: { method: PUT, path: / } }] }";
    let sources = [
        file("b.yaml", workflow("one")),
        file("a.yaml", document("Connector", "c", tool) + &workflow("two") + &workflow("three")),
    ];
    let wrong = load(&sources).unwrap_err();
    let places: Vec<String> = wrong.iter().map(|said| said.place.as_ref().unwrap().to_string()).collect();
    assert_eq!(places, ["a.yaml:5:41", "a.yaml:10:33", "a.yaml:15:33", "b.yaml:5:33"]);
    assert_eq!(wrong[0].severity, Severity::Warning);
    assert_eq!(wrong[1].name.as_deref(), Some("default/two"));
    assert_eq!(wrong[1].kind, Some(Kind::Workflow));
}

#[test]
fn warnings_alone_do_not_refuse() {
    let tool = "{ protocol: http, tools: [{ name: t, effect: write, http: { method: PUT, path: / } }] }";
    let loaded = load(&[file("f.yaml", document("Connector", "c", tool))]).unwrap();
    assert_eq!(loaded.warnings.len(), 1);
    assert!(loaded.warnings[0].message.contains("a person will be asked"));
    assert!(loaded.catalogue.namespace(&Name::default_namespace()).is_some());
    assert!(load(&[]).unwrap().definitions.is_empty());
    assert!(catalogue(loaded.definitions).is_ok());
}

#[test]
fn stored_definitions_have_no_place_but_a_name() {
    let text = document("Workflow", "w", "{ steps: [{ id: a, workflow: child }] }");
    let child = document("Workflow", "child", "{ steps: [{ id: a, wait: { for: 1s } }] }");
    let mut stored = load(&[file("f.yaml", text + &child)]).unwrap().definitions;
    stored.pop();
    let wrong = catalogue(stored).unwrap_err();
    assert_eq!(wrong.len(), 1);
    assert_eq!(wrong[0].place, None);
    assert!(
        wrong[0]
            .to_string()
            .starts_with("Workflow default/w: spec.steps[0].workflow: there is no Workflow `child`")
    );
}

#[test]
fn what_is_broken_is_reported_once_and_not_again_by_those_who_use_it() {
    let broken = document("Specialist", "s", "{ skills: [{ name: a.b, remote: {}, oops: 1 }] }")
        + &document("Workflow", "child", "{ steps: 5 }")
        + &document("Connector", "c", "{ tools: [] }")
        + &document("Connection", "n", "{ connector: c }");
    let users = document("Workflow", "w", "{ steps: [{ id: a, skill: a.b }, { id: b, workflow: child }] }")
        + &document("Connection", "other", "{ connector: c, endpoint: \"http://x\" }")
        + &document("Specialist", "t", "{ skills: [{ name: c.d, call: { tool: n/x } }], tools: [other/y] }")
        + &document(
            "Policy",
            "p",
            "{ match: { skills: [a.b], workflows: [child] }, rules: [{ deny: true, reason: r }] }",
        )
        + &document("Schedule", "d", "{ cron: \"0 1 * * *\", workflow: child }");
    let said = said(&(broken + &users));
    assert_eq!(said.len(), 4, "{said:#?}");
    assert!(said[0].contains("no field `oops`") && said[1].contains("expected a list, found `5`"));
    assert!(said[2].contains("`protocol` is missing") && said[3].contains("`endpoint` is missing"));
}

#[test]
fn what_cannot_be_read_might_hold_what_is_missing() {
    let users = document("Workflow", "w", "{ steps: [{ id: a, skill: a.b }, { id: B, wait: { for: 1s } }] }")
        + &document("Policy", "p", "{ match: { skills: [x.*] }, rules: [{ deny: true, reason: r }] }");
    let unreadable = said(&format!("a: [\n{users}"));
    assert_eq!(unreadable.len(), 2, "{unreadable:#?}");
    assert!(unreadable[1].contains("`B` is no step id"));
    let unknown = said(&(document("Specialst", "s", "{}") + &users));
    assert_eq!(unknown.len(), 2, "{unknown:#?}");
    assert!(unknown[0].contains("did you mean `Specialist`"));
    assert_eq!(
        said(&users).len(),
        3,
        "without it, both are missing: a skill as an error, a pattern as a warning"
    );
}

#[test]
fn subworkflows_nest_as_deep_as_is_allowed_and_no_deeper() {
    let chain = |last: u32| -> String {
        let inner = (0..last).map(|at| {
            document(
                "Workflow",
                &format!("w{at}"),
                &format!("{{ steps: [{{ id: a, workflow: w{} }}] }}", at + 1),
            )
        });
        inner.collect::<String>()
            + &document("Workflow", &format!("w{last}"), "{ steps: [{ id: a, wait: { for: 1s } }] }")
    };
    assert_eq!(said(&chain(NESTING_MAX)), [""; 0]);
    let deep = said(&chain(NESTING_MAX + 2));
    assert_eq!(deep.len(), 1, "{deep:#?}");
    assert!(
        deep[0].starts_with("f.yaml:10:36: spec.steps[0].workflow: subworkflows nest 17 deep"),
        "{deep:#?}"
    );
}

#[test]
fn two_cycles_are_two_errors_and_who_leads_to_them_is_none() {
    let starts = |name: &str, child: &str| {
        document(
            "Workflow",
            name,
            &format!("{{ steps: [{{ id: p, wait: {{ for: 1s }} }}, {{ id: a, workflow: {child} }}] }}"),
        )
    };
    let text =
        starts("a", "b") + &starts("b", "a") + &starts("c", "d") + &starts("d", "d") + &starts("e", "a");
    let said = said(&text);
    assert_eq!(said.len(), 2, "{said:#?}");
    assert!(said[0].contains("a -> b -> a") && said[1].contains("d -> d"));
    assert!(said[0].contains("spec.steps[1].workflow"));
}

#[test]
fn a_duplicate_of_a_stored_definition_replaces_it_but_two_in_files_are_refused() {
    let policy =
        |reason: &str| document("Policy", "p", &format!("{{ rules: [{{ deny: true, reason: {reason} }}] }}"));
    let stored = load(&[file("old.yaml", policy("old"))]).unwrap().definitions;
    let loaded = load_over(&[file("new.yaml", policy("new"))], stored.clone()).unwrap();
    let policies = loaded.catalogue.policies(&Name::default_namespace());
    assert_eq!((loaded.definitions.len(), policies[0].rules[0].reason.as_str()), (1, "new"));
    let wrong = load(&[file("a.yaml", policy("a")), file("b.yaml", policy("b"))]).unwrap_err();
    assert_eq!(
        wrong[0].to_string().lines().next().unwrap(),
        "b.yaml:4:19: metadata.name: there are two definitions of Policy `p`; the other is at a.yaml:2:1"
    );
    let twice = catalogue([stored.clone(), stored].concat()).unwrap_err();
    assert!(twice[0].message.ends_with("two definitions of Policy `p`"));
}

#[test]
fn each_namespace_is_its_own() {
    let policy = |namespace: &str, name: &str| {
        format!(
            "---\n{HEAD}Policy\nmetadata: {{ name: {name}, namespace: {namespace} }}\nspec: {{ rules: [{{ ask: true, reason: r }}] }}\n"
        )
    };
    let loaded = load(&[file("f", policy("a", "z") + &policy("a", "b") + &policy("b", "z"))]).unwrap();
    let names = |namespace: &str| -> Vec<String> {
        let namespace = Name::new(namespace).unwrap();
        loaded.catalogue.policies(&namespace).iter().map(|policy| policy.name.to_string()).collect()
    };
    assert_eq!((names("a"), names("b")), (vec!["b".to_owned(), "z".to_owned()], vec!["z".to_owned()]));
    assert!(names("c").is_empty());
}

#[test]
fn a_span_that_the_schema_lets_through_is_refused_when_it_is_read() {
    let text =
        document("Workflow", "w", "{ timeout: 400000000000000d, steps: [{ id: a, wait: { for: 1s } }] }");
    let said = said(&text);
    assert_eq!(said.len(), 1, "{said:#?}");
    assert!(said[0].contains("is no duration"), "{said:#?}");
}

#[test]
fn a_secret_written_in_the_open_is_not_repeated() {
    let connection = |password: &str| {
        document(
            "Connection",
            "c",
            &format!(
                "{{ connector: x, endpoint: \"http://x\", credential: {{ basic: {{ user: u, password: {password} }} }} }}"
            ),
        )
    };
    for written in ["hunter2", "\"${hunter2}\"", "[hunter2]"] {
        let said = said(&connection(written)).join("\n");
        assert!(said.contains("expected `env` or `file`") && !said.contains("hunter2"), "{said}");
    }
}

/// So many policies, as they are stored, each with a reason of so many bytes.
fn policies(count: usize, bytes: usize) -> Vec<Definition> {
    let reason = "x".repeat(bytes);
    let policy = |at: usize| {
        serde_json::json!({
            "apiVersion": "kapell.dev/v1", "kind": "Policy", "metadata": { "name": format!("p{at:05}") },
            "spec": { "rules": [{ "ask": true, "reason": reason }] },
        })
    };
    (0..count).map(|at| serde_json::from_value(policy(at)).unwrap()).collect()
}

#[test]
fn a_store_holds_10_000_definitions_and_no_more() {
    let one =
        |name: &str| [file("new.yaml", document("Policy", name, "{ rules: [{ ask: true, reason: r }] }"))];
    let loaded = load_over(&one("new"), policies(DEFINITIONS_MAX - 1, 1)).unwrap();
    assert_eq!(loaded.definitions.len(), DEFINITIONS_MAX);
    let full = loaded.definitions;
    let wrong = load_over(&one("more"), full.clone()).unwrap_err();
    assert_eq!(wrong.len(), 1);
    assert_eq!(
        wrong[0].to_string(),
        "there would be 10001 definitions, at most 10000 are allowed\n  \
         hint: delete some that nothing uses, or use a store of its own for some namespaces"
    );
    assert!(load_over(&one("new"), full).is_ok(), "one that is there may change");
    let stored = policies(DEFINITIONS_MAX + 1, 1);
    assert!(catalogue(stored).is_ok(), "what is stored is read whatever the limit is now");
}

#[test]
fn the_definitions_of_a_store_have_32_mebibytes_together_and_no_more() {
    let size = |of: &Definition| serde_json::to_vec(of).unwrap().len();
    let each = size(&policies(1, 100_000)[0]);
    let count = DEFINITIONS_BYTES_MAX / each - 1;
    let room = DEFINITIONS_BYTES_MAX - count * each;
    let of = |bytes: usize| {
        let reason = "x".repeat(bytes);
        [file(
            "new.yaml",
            document("Policy", "new", &format!("{{ rules: [{{ ask: true, reason: {reason} }}] }}")),
        )]
    };
    let around = size(&load(&of(1)).unwrap().definitions[0]) - 1;
    let stored = policies(count, 100_000);
    assert!(load_over(&of(room - around), stored.clone()).is_ok());
    let wrong = load_over(&of(room - around + 1), stored).unwrap_err();
    assert_eq!(wrong.len(), 1);
    let said = wrong[0].to_string();
    assert!(
        said.starts_with("the definitions would have 33554433 bytes together, at most 33554432"),
        "{said}"
    );
    assert!(said.contains("hint: move tables and long texts"), "{said}");
}
