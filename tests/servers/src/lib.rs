//! Real servers for tests: each in a folder of its own, on loopback or on a host of a [`Network`], gone with the value
//! that stands for it.
//!
//! Owns: where a server's program is found, how it is started, stopped and killed. Never: depends on a crate of the
//! product (that is why every crate may use it in its tests), or touches a server that it did not start.
//!
//! `cargo xtask test` brings a missing server under the target directory and sets [`REQUIRED`]; without it a test
//! whose server is missing says that it is skipped.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it skips"
)]
mod clock;
mod etcd;
mod nats;
mod network;
mod postgres;
mod process;

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

pub use clock::SteppedClock;
pub use etcd::{Etcd, EtcdTls};
pub use nats::Nats;
pub use network::{Host, Network, can_have_a_network};
pub use postgres::{Durability, Postgres, Setup};

/// Environment variable: with the value `required` a missing server fails the test instead of skipping it.
pub const REQUIRED: &str = "KAPELL_TEST_SERVERS";

/// Below the target directory: packages unpacked by `cargo xtask test`, as they would lie below `/`.
const UNPACKED: &str = "tools/servers";
/// The same where the target directory is root's own, and a server, which never runs as root, cannot enter it.
const UNPACKED_BY_ROOT: &str = "/var/tmp/kapell-test-servers";

/// Says that a test is skipped for want of `server`.
///
/// # Panics
///
/// When [`REQUIRED`] says that every server must be there.
pub fn missing(server: &str) {
    let required = std::env::var_os(REQUIRED).is_some_and(|value| value == OsStr::new("required"));
    assert!(
        !required,
        "{server} is not installed, and {REQUIRED}=required (hint: cargo xtask test brings it)"
    );
    println!("SKIPPED: {server} is not installed (hint: cargo xtask test brings it)");
}

/// A server's program: the one on the path, or unpacked for this build.
fn program(name: &str) -> Option<PathBuf> {
    let mut found = std::env::var_os("PATH").iter().flat_map(std::env::split_paths).collect::<Vec<_>>();
    found.extend(unpacked().iter().flat_map(|root| ["usr/bin", "usr/sbin"].map(|folder| root.join(folder))));
    found.into_iter().map(|folder| folder.join(name)).find(|program| program.exists())
}

/// Where packages were unpacked for this build, if they were: found from the test's own program, which Cargo puts
/// below the target directory wherever that is.
fn unpacked() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let below_target = program.ancestors().map(|folder| folder.join(UNPACKED));
    let by_root = Path::new(UNPACKED_BY_ROOT).to_owned();
    let is_ours = |folder: &PathBuf| {
        let owner = folder.metadata().map(|metadata| metadata.uid());
        owner.is_ok_and(|owner| folder != Path::new(UNPACKED_BY_ROOT) || owner == 0)
    };
    below_target.chain([by_root]).find(is_ours)
}
