//! Each rule of the layers can fail, and the graph that the design draws passes.

use std::collections::BTreeSet;

use serde_json::json;

use super::{Crate, Edge, Graph, Kind, compare, rules, table};

fn folder(name: &str) -> String {
    match name {
        "xtask" => "xtask".to_owned(),
        "kapell-company" => "examples/company".to_owned(),
        "kapell-tests-contract" => "tests/contract".to_owned(),
        "kapell-tests-servers" => "tests/servers".to_owned(),
        other => format!("crates/{}", other.trim_start_matches("kapell-")),
    }
}

fn graph(edges: &[(&str, &str, Kind)]) -> Graph {
    let mut graph = Graph::default();
    for (from, to, kind) in edges {
        let edge = Edge { from: (*from).to_owned(), to: (*to).to_owned(), kind: *kind };
        if !to.starts_with("kapell") && *to != "xtask" {
            graph.foreign.insert(edge);
        } else {
            graph.crates.insert(Crate { name: (*to).to_owned(), folder: folder(to) });
            graph.edges.insert(edge);
        }
        graph.crates.insert(Crate { name: (*from).to_owned(), folder: folder(from) });
    }
    graph
}

/// The rules that one edge breaks.
fn broken(from: &str, to: &str, kind: Kind) -> Vec<&'static str> {
    rules::check(&graph(&[(from, to, kind)])).into_iter().map(|finding| finding.rule).collect()
}

#[test]
fn arrows_that_point_down_are_right() {
    let design = graph(&[
        ("kapell", "kapell-journal-local", Kind::Normal),
        ("kapell", "kapell-coordinator", Kind::Normal),
        ("kapell-coordinator", "kapell-journal", Kind::Normal),
        ("kapell-coordinator", "kapell-kernel", Kind::Normal),
        ("kapell-coordinator", "kapell-journal-local", Kind::Dev),
        ("kapell-journal-local", "kapell-journal", Kind::Normal),
        ("kapell-kernel", "kapell-model", Kind::Normal),
        ("kapell-wire", "kapell-proto", Kind::Normal),
        ("kapell-tests-contract", "kapell-journal-local", Kind::Normal),
        ("kapell-company", "kapell-client", Kind::Normal),
        ("kapell-coordinator", "tokio", Kind::Normal),
        ("kapell-kernel", "proptest", Kind::Dev),
    ]);
    assert_eq!(rules::check(&design), []);
}

#[test]
fn a_crate_without_a_layer_is_wrong() {
    let findings = rules::check(&graph(&[("kapell-novelty", "kapell-model", Kind::Normal)]));
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].rule, "layer");
    assert!(findings[0].hint.contains("LAYERS"), "{}", findings[0].hint);
}

#[test]
fn arrows_that_point_up_are_wrong_in_tests_too() {
    for kind in [Kind::Normal, Kind::Build, Kind::Dev] {
        assert_eq!(broken("kapell-model", "kapell-journal", kind), ["upwards"]);
        assert_eq!(broken("kapell-journal", "kapell-journal-local", kind), ["upwards"]);
        assert_eq!(broken("kapell-coordinator", "kapell", kind), ["upwards"]);
    }
}

#[test]
fn arrows_within_a_layer_need_a_reason() {
    assert_eq!(broken("kapell-model", "kapell-kernel", Kind::Normal), ["sideways"]);
    assert_eq!(broken("kapell-journal-local", "kapell-telemetry", Kind::Normal), ["sideways"]);
    assert_eq!(broken("kapell-proto", "kapell-wire", Kind::Dev), ["sideways"]);
}

#[test]
fn services_never_import_each_other() {
    for kind in [Kind::Normal, Kind::Build, Kind::Dev] {
        assert_eq!(broken("kapell-coordinator", "kapell-worker", kind), ["services"]);
    }
}

#[test]
fn only_the_binary_and_the_tests_name_a_backend() {
    assert_eq!(broken("kapell-worker", "kapell-telemetry", Kind::Normal), ["backends"]);
    assert_eq!(broken("kapell-worker", "kapell-ledger-sqlite", Kind::Dev), ["backends"]);
    assert_eq!(broken("xtask", "kapell-journal-local", Kind::Normal), ["backends"]);
    assert_eq!(broken("kapell-company", "kapell-journal-local", Kind::Normal), ["backends"]);
}

#[test]
fn a_backend_that_is_listed_for_tests_is_not_listed_for_production() {
    let (from, to, _) = table::DEV_BACKENDS[0];
    assert_eq!(broken(from, to, Kind::Dev), Vec::<&str>::new());
    assert_eq!(broken(from, to, Kind::Normal), ["backends"]);
}

#[test]
fn the_product_does_not_depend_on_tests_examples_or_tools() {
    assert_eq!(broken("kapell-journal-local", "kapell-tests-contract", Kind::Dev), ["product"]);
    assert_eq!(broken("kapell-worker", "kapell-company", Kind::Normal), ["product"]);
    assert_eq!(broken("kapell", "xtask", Kind::Normal), ["product"]);
}

#[test]
fn the_servers_of_tests_are_for_tests_and_know_no_crate() {
    assert_eq!(broken("kapell-connector", "kapell-tests-servers", Kind::Dev), Vec::<&str>::new());
    assert_eq!(broken("kapell-connector", "kapell-tests-servers", Kind::Normal), ["product"]);
    assert_eq!(broken("kapell-tests-servers", "kapell-model", Kind::Normal), ["support"]);
}

#[test]
fn pure_crates_have_no_async() {
    for impure in table::IMPURE {
        assert_eq!(broken("kapell-model", impure, Kind::Normal), ["pure"]);
        assert_eq!(broken("kapell-kernel", impure, Kind::Dev), ["pure"]);
        assert_eq!(broken("kapell-worker", impure, Kind::Normal), Vec::<&str>::new());
    }
}

#[test]
fn what_a_dependency_brings_along_counts() {
    let tree = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    let clean = ("kapell-model".to_owned(), tree(&["serde", "tokio-like"]));
    let tainted = ("kapell-kernel".to_owned(), tree(&["serde", "tokio"]));
    let findings = rules::check_foreign_trees(&[clean, tainted]);
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].place, "kapell-kernel");
}

#[test]
fn edges_are_read_from_metadata() {
    let metadata = json!({
        "workspace_root": "/somewhere",
        "packages": [
            { "name": "kapell-kernel", "manifest_path": "/somewhere/crates/kernel/Cargo.toml", "dependencies": [
                { "name": "kapell-model", "kind": null }, { "name": "proptest", "kind": "dev" },
                { "name": "kapell-kernel", "kind": "dev" } ] },
            { "name": "kapell-model", "manifest_path": "/somewhere/crates/model/Cargo.toml", "dependencies": [] },
        ]
    });
    let graph = Graph::read(&metadata).unwrap();
    assert_eq!(graph.crates.first().unwrap().folder, "crates/kernel");
    assert_eq!(graph.foreign.first().unwrap().to_string(), "kapell-kernel -> proptest (dev)");
    assert_eq!(graph.edges.len(), 1, "the edge to itself is none");
    let edges = graph.render();
    assert!(edges.ends_with("L0 kapell-kernel -> L0 kapell-model\n"), "{edges}");
}

#[test]
fn the_golden_file_shows_new_and_lost_edges() {
    let golden = "# comment\nL0 a -> L0 b\nL1 c -> L0 b\n";
    assert_eq!(compare(golden, golden), []);
    let findings = compare(golden, "L0 a -> L0 b\nL1 d -> L0 b\n");
    let seen =
        findings.iter().map(|finding| (finding.place.as_str(), finding.problem.as_str())).collect::<Vec<_>>();
    assert_eq!(
        seen,
        [
            ("L1 d -> L0 b", "an edge that tests/golden/layers.txt does not have"),
            ("L1 c -> L0 b", "an edge of tests/golden/layers.txt that is gone"),
        ]
    );
}
