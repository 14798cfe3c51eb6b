//! A worker against a coordinator that is played by the test, over real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, at whatever it does not expect"
)]
mod failures;
mod sessions;
mod support;
mod tasks;
