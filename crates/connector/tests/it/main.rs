//! The connector over real sockets: a coordinator that is a gRPC server, and outside systems that are servers too.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its supporting functions too")]
#![expect(clippy::disallowed_methods, reason = "servers of tests run beside the connector, not inside it")]

mod coordinator;
mod http;
mod limits;
mod mail;
mod postgres;
mod raw_server;
mod rig;
mod sessions;
mod sqlite;
