//! Tools as a specialist may call them: an operation of a connector through one connection.
use std::time::Duration;

use super::operation::{CompiledOperation, CompiledReconcile};
use super::skill::SchemaCheck;
use crate::Name;
use crate::definition::{Connection, Tool};

/// A tool with its connection.
#[derive(Debug)]
pub struct ToolEntry {
    /// The connection's name.
    pub connection_name: Name,
    /// The connection.
    pub connection: Connection,
    /// The operation as it was written.
    pub tool: Tool,
    /// Time that a call may take.
    pub timeout: Duration,
    /// What the arguments must be.
    pub input: SchemaCheck,
    /// What the result must be.
    pub output: SchemaCheck,
    /// How it is done.
    pub operation: CompiledOperation,
    /// How a lost call is looked for.
    pub reconcile: Option<CompiledReconcile>,
}
