//! Which way the crates point.
//!
//! Owns: reading the edges out of Cargo's metadata, and the golden file of all edges. Never: says which edges are
//! right (that is `rules`) or which crate is in which layer (that is `table`).

mod rules;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process;
use crate::report::{Finding, Rows, Verdict};
use crate::workspace::Workspace;
use table::Place;

/// The edges of the workspace, one a line, reviewed when it changes.
const GOLDEN: &str = "tests/golden/layers.txt";

/// Check that the crates of the workspace depend downwards only
///
/// Every crate has a layer (the table is xtask/src/layers/table.rs) and its dependencies, dev-dependencies too, point
/// to lower layers. Services never import each other, only the binary and the tests name a backend, and the model
/// and the kernel have no async. All edges are compared with the golden file tests/golden/layers.txt, so that a new
/// edge is seen in review: write it with --bless, and look at the difference.
#[derive(Default, clap::Args)]
pub(crate) struct Args {
    /// Write the edges as they are now to the golden file
    #[arg(long)]
    bless: bool,
}

/// What a dependency is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Normal,
    Build,
    Dev,
}

/// One dependency, by the names of the two packages.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    from: String,
    to: String,
    kind: Kind,
}

/// A crate of the workspace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Crate {
    name: String,
    /// Its folder, relative to the root.
    folder: String,
}

/// The workspace as Cargo describes it, in order.
#[derive(Debug, Default)]
struct Graph {
    crates: BTreeSet<Crate>,
    /// Between crates of the workspace.
    edges: BTreeSet<Edge>,
    /// To everything else.
    foreign: BTreeSet<Edge>,
}

impl Args {
    pub(crate) fn run(&self, workspace: &Workspace) -> Result<Verdict> {
        let graph = Graph::read(workspace.metadata())?;
        let edges = graph.render();
        if self.bless {
            let path = workspace.root().join(GOLDEN);
            std::fs::create_dir_all(path.parent().context("the golden file is in a folder")?)?;
            std::fs::write(path, &edges).with_context(|| format!("writing {GOLDEN}"))?;
        }
        let mut findings = rules::check(&graph);
        findings.extend(rules::check_foreign_trees(&foreign_trees(&graph, workspace)?));
        let golden = std::fs::read_to_string(workspace.root().join(GOLDEN)).unwrap_or_default();
        findings.extend(compare(&golden, &edges));
        if findings.is_empty() {
            let mut rows = Rows::new(["crates", "edges", "golden"]);
            rows.push([graph.crates.len().into(), graph.edges.len().into(), GOLDEN.into()]);
            rows.print(workspace.format());
        }
        Rows::of_findings(&findings).print(workspace.format());
        Ok(Verdict::of(&findings))
    }
}

impl Graph {
    fn read(metadata: &Value) -> Result<Self> {
        let root = metadata["workspace_root"].as_str().context("metadata has no workspace_root")?;
        let packages = metadata["packages"].as_array().context("metadata has no packages")?;
        let mut graph = Self::default();
        for package in packages {
            let name = text(package, "name")?;
            let manifest = text(package, "manifest_path")?;
            let folder =
                manifest.trim_start_matches(root).trim_start_matches('/').trim_end_matches("/Cargo.toml");
            graph.crates.insert(Crate { name: name.to_owned(), folder: folder.to_owned() });
        }
        let names = graph.crates.iter().map(|member| member.name.clone()).collect::<BTreeSet<_>>();
        for package in packages {
            for dependency in package["dependencies"].as_array().into_iter().flatten() {
                let edge = Edge::read(text(package, "name")?, dependency)?;
                if edge.from == edge.to {
                    // How a crate turns on its own test support in its tests: no arrow between crates.
                    continue;
                }
                let list = if names.contains(&edge.to) { &mut graph.edges } else { &mut graph.foreign };
                list.insert(edge);
            }
        }
        Ok(graph)
    }

    /// The text of the golden file.
    fn render(&self) -> String {
        let mut text = String::from(
            "# All dependencies between the crates of this workspace, dev-dependencies too.\n\
             # `cargo xtask layers` compares, `cargo xtask layers --bless` writes; review every change.\n",
        );
        for edge in &self.edges {
            let [from, to] = [&edge.from, &edge.to].map(|name| {
                self.place(name).map_or_else(|| format!("?? {name}"), |place| format!("{place} {name}"))
            });
            // Writing to a string does not fail.
            _ = writeln!(text, "{from} -> {to}{}", edge.kind);
        }
        text
    }

    fn place(&self, name: &str) -> Option<Place> {
        self.crates.iter().find(|member| member.name == name).and_then(Place::of)
    }
}

impl Edge {
    fn read(from: &str, dependency: &Value) -> Result<Self> {
        let kind = match dependency["kind"].as_str() {
            None => Kind::Normal,
            Some("build") => Kind::Build,
            Some("dev") => Kind::Dev,
            Some(other) => anyhow::bail!("a dependency of {from} is of the unknown kind {other}"),
        };
        Ok(Self { from: from.to_owned(), to: text(dependency, "name")?.to_owned(), kind })
    }
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}{}", self.from, self.to, self.kind)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Normal => "",
            Kind::Build => " (build)",
            Kind::Dev => " (dev)",
        })
    }
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key].as_str().with_context(|| format!("metadata: a package without {key}"))
}

/// For each pure crate, the names of all packages that are linked into it, however deep.
fn foreign_trees(graph: &Graph, workspace: &Workspace) -> Result<Vec<(String, BTreeSet<String>)>> {
    let pure = graph.crates.iter().filter(|member| Place::of(member).is_some_and(Place::is_pure));
    let tree = |member: &Crate| {
        let mut cargo = workspace.command("cargo");
        cargo.args([
            "tree",
            "--offline",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p}",
            "--package",
        ]);
        let printed = process::output(cargo.arg(&member.name))?;
        let names = printed.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned);
        Ok((member.name.clone(), names.collect()))
    };
    pure.map(tree).collect()
}

fn compare(golden: &str, now: &str) -> Vec<Finding> {
    let edges = |text: &str| -> BTreeSet<String> {
        text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(str::to_owned).collect()
    };
    let (golden, now) = (edges(golden), edges(now));
    let finding = |edge: &String, problem: &str| Finding {
        place: edge.clone(),
        rule: "golden",
        problem: problem.to_owned(),
        hint: "if it is meant: cargo xtask layers --bless, and commit the difference".to_owned(),
    };
    let new = now
        .difference(&golden)
        .map(|edge| finding(edge, "an edge that tests/golden/layers.txt does not have"));
    let gone =
        golden.difference(&now).map(|edge| finding(edge, "an edge of tests/golden/layers.txt that is gone"));
    new.chain(gone).collect()
}
