//! A worker against a coordinator that is played by the test, over real sockets.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod failures;
mod sessions;
mod support;
mod tasks;
