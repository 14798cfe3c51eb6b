//! Which crate is in which layer, and the edges that are allowed for a reason.
//!
//! Owns: the one table of ARCHITECTURE.md as data. Never: looks at an edge that exists.

use std::fmt;

use super::Crate;

/// A layer; arrows point to lower ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Layer {
    /// Pure: no I/O, no async.
    Pure,
    /// Ports, the schema, the runtime.
    Port,
    /// What implements a port for one outside system.
    Adapter,
    /// What runs: the roles and their clients.
    Service,
    /// The binary.
    Binary,
}

/// Where a crate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the product.
    In(Layer),
    /// Whole-system tests and measurements: may name anything.
    Tests,
    /// Definitions and services to try Kapell with.
    Examples,
    /// This tool.
    Xtask,
}

/// The table. Names without the prefix `kapell-`; `kapell` is the binary.
const LAYERS: &[(Layer, &[&str])] = &[
    (Layer::Pure, &["model", "kernel"]),
    (Layer::Port, &["runtime", "journal", "ledger", "cluster", "event-source", "postgres", "proto", "wire"]),
    (
        Layer::Adapter,
        &[
            "journal-local",
            "journal-postgres",
            "cluster-etcd",
            "event-source-nats",
            "ledger-sqlite",
            "ledger-postgres",
            "telemetry",
        ],
    ),
    (Layer::Service, &["coordinator", "worker", "connector", "client", "console"]),
    (Layer::Binary, &["kapell"]),
];

/// An edge that the direction alone would not allow: from, to, why.
pub(super) type Exception = (&'static str, &'static str, &'static str);

/// Edges within a layer, or out of the product. A service never has one.
pub(super) const SIDEWAYS: &[Exception] = &[
    ("kapell-kernel", "kapell-model", "the kernel decides over definitions"),
    ("kapell-wire", "kapell-proto", "wire converts what proto generates"),
    ("kapell-connector", "kapell-company", "its tests talk to the systems of a small company"),
    ("kapell", "kapell-company", "`kapell demo` brings the systems of a small company along"),
];

/// Dev-dependencies of a lower crate on a backend: its tests run on the real thing.
pub(super) const DEV_BACKENDS: &[Exception] = &[
    ("kapell-coordinator", "kapell-journal-local", "a shard's tests restart on a real log"),
    ("kapell-coordinator", "kapell-ledger-sqlite", "the projection's tests query a real database"),
];

/// Crates under tests/ that the tests of every crate may use. They have no edge into the product, so that no cycle
/// comes of it.
pub(super) const TEST_SUPPORT: &[&str] = &["kapell-tests-servers"];

/// Packages that a pure crate may not have, not even through another one.
pub(super) const IMPURE: &[&str] = &["tokio", "tonic", "ractor", "reqwest", "futures", "rand", "tracing"];

impl Place {
    /// `None` for a crate that nobody gave a layer.
    pub(super) fn of(member: &Crate) -> Option<Self> {
        match member.folder.split('/').next() {
            Some("tests" | "benches") => return Some(Place::Tests),
            Some("examples") => return Some(Place::Examples),
            Some("xtask") => return Some(Place::Xtask),
            Some(_) | None => {}
        }
        let short = member.name.strip_prefix("kapell-").unwrap_or(&member.name);
        LAYERS.iter().find(|(_, names)| names.contains(&short)).map(|(layer, _)| Place::In(*layer))
    }

    pub(super) fn is_pure(self) -> bool {
        self == Place::In(Layer::Pure)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Place::In(Layer::Pure) => "L0",
            Place::In(Layer::Port) => "L1",
            Place::In(Layer::Adapter) => "L2",
            Place::In(Layer::Service) => "L3",
            Place::In(Layer::Binary) => "L4",
            Place::Tests => "tests",
            Place::Examples => "examples",
            Place::Xtask => "xtask",
        })
    }
}
