//! SQL.
//!
//! Owns: what fills a statement's parameters, and what both databases have in common. Never: puts a value into a
//! statement.
mod postgres;
mod sqlite;

use kapell_kernel::{ErrorClass, TaskError};
use kapell_model::catalogue::{CompiledSql, SqlArgument};
use kapell_model::expr::Scope;
use serde_json::{Value, json};

use super::ANSWER_BYTES_MAX;
use crate::outside::OutsideRequest;

pub(crate) use postgres::{PostgresIdle, call as call_postgres};
pub(crate) use sqlite::{SqliteIdle, call as call_sqlite};

/// Connections that are kept open for one connection of the definitions.
const IDLE_MAX: usize = 8;

/// The parameters in the order of their numbers.
fn arguments(request: &OutsideRequest, sql: &CompiledSql) -> Result<Vec<Value>, TaskError> {
    let mut scope = Scope::new();
    scope.set("args", &request.args);
    sql.parameters
        .iter()
        .map(|(name, argument)| match argument {
            SqlArgument::CallKey => Ok(Value::String(request.key.clone())),
            SqlArgument::Value(template) => template.eval(&scope).map_err(|error| {
                TaskError::new(ErrorClass::Expression, format!("parameter `{name}`: {error}"))
            }),
        })
        .collect()
}

/// Rows as they are collected, with a limit.
#[derive(Default)]
struct Rows {
    rows: Vec<Value>,
    bytes: usize,
}

impl Rows {
    /// Refuses to grow beyond what an answer may be.
    fn push(&mut self, row: Value, bytes: usize) -> Result<(), TaskError> {
        self.bytes += bytes;
        if self.bytes > ANSWER_BYTES_MAX {
            let why =
                format!("the rows are more than {ANSWER_BYTES_MAX} bytes; ask for fewer rows or columns");
            return Err(TaskError::new(ErrorClass::BadRequest, why));
        }
        self.rows.push(row);
        Ok(())
    }

    fn output(self) -> Value {
        json!({ "rows": self.rows })
    }
}

fn affected(count: u64) -> Value {
    json!({ "affected": count })
}
