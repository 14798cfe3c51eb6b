//! Which edges are wrong.
//!
//! Owns: the rules of the layers. Never: reads a manifest or a file.

use std::collections::BTreeSet;

use super::table::{self, Exception, Layer, Place};
use super::{Edge, Graph, Kind};
use crate::report::Finding;

const TABLE: &str = "xtask/src/layers/table.rs";

/// All findings over one graph, in the order of its edges.
pub(super) fn check(graph: &Graph) -> Vec<Finding> {
    let homeless = graph.crates.iter().filter(|member| Place::of(member).is_none()).map(|member| Finding {
        place: member.name.clone(),
        rule: "layer",
        problem: format!("{} has no layer", member.folder),
        hint: format!("name it in LAYERS of {TABLE}, as low as its dependencies allow"),
    });
    let wrong = graph.edges.iter().filter_map(|edge| {
        // A crate without a layer was reported above.
        let (from, to) = (graph.place(&edge.from)?, graph.place(&edge.to)?);
        let (rule, problem, hint) = judge(edge, from, to)?;
        Some(Finding { place: edge.to_string(), rule, problem, hint: hint.to_owned() })
    });
    let impure = graph.foreign.iter().filter(|edge| graph.place(&edge.from).is_some_and(Place::is_pure));
    let impure = impure.filter(|edge| table::IMPURE.contains(&edge.to.as_str())).map(|edge| Finding {
        place: edge.to_string(),
        rule: "pure",
        problem: format!("{} is pure and {} is not", edge.from, edge.to),
        hint: "return an order or take a value; the crates above do the I/O".to_owned(),
    });
    homeless.chain(wrong).chain(impure).collect()
}

/// Packages linked into pure crates through other packages.
pub(super) fn check_foreign_trees(trees: &[(String, BTreeSet<String>)]) -> Vec<Finding> {
    let found = trees.iter().flat_map(|(name, tree)| {
        table::IMPURE.iter().filter(|impure| tree.contains(**impure)).map(move |impure| Finding {
            place: name.clone(),
            rule: "pure",
            problem: format!("{impure} is linked into {name}"),
            hint: format!("see through which package: cargo tree -p {name} -e normal -i {impure}"),
        })
    });
    found.collect()
}

/// What is wrong with one edge: the rule, the problem, the hint.
fn judge(edge: &Edge, from: Place, to: Place) -> Option<(&'static str, String, &'static str)> {
    let names_a_backend = to == Place::In(Layer::Adapter);
    let is_support = |name: &String| table::TEST_SUPPORT.contains(&name.as_str());
    match (from, to) {
        (Place::Tests, _) if is_support(&edge.from) => Some((
            "support",
            "what the tests of every crate use knows none of them".to_owned(),
            "pass it a value, or move what needs the product into the test",
        )),
        (Place::In(_), Place::Tests) if is_support(&edge.to) && edge.kind == Kind::Dev => None,
        (Place::Tests, _) => None,
        _ if is_listed(table::SIDEWAYS, edge) => None,
        _ if names_a_backend && edge.kind == Kind::Dev && is_listed(table::DEV_BACKENDS, edge) => None,
        (Place::In(Layer::Service), Place::In(Layer::Service)) => Some((
            "services",
            "services never import each other".to_owned(),
            "they talk through proto; what both need belongs to a lower layer",
        )),
        (Place::In(Layer::Service) | Place::Examples | Place::Xtask, Place::In(Layer::Adapter)) => Some((
            "backends",
            "only the binary and the tests name a backend".to_owned(),
            "take the port; for tests, list the edge in DEV_BACKENDS or test it under tests/",
        )),
        (Place::In(_), Place::Tests | Place::Examples | Place::Xtask) => Some((
            "product",
            format!("the product does not depend on what is in {to}"),
            "move what it needs into a crate, or list the edge in SIDEWAYS with its reason",
        )),
        (Place::In(above), Place::In(below)) if above == below => Some((
            "sideways",
            format!("both are in {from}"),
            "move what both need down, or list the edge in SIDEWAYS with its reason",
        )),
        (Place::In(lower), Place::In(upper)) if lower < upper => Some((
            "upwards",
            format!("{from} does not know {to}"),
            "turn it round: the upper crate calls the lower one, or implements its trait",
        )),
        (Place::In(_) | Place::Examples | Place::Xtask, _) => None,
    }
}

fn is_listed(exceptions: &[Exception], edge: &Edge) -> bool {
    exceptions.iter().any(|(from, to, _)| *from == edge.from && *to == edge.to)
}
