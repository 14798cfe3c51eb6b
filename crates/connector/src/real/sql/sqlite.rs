//! SQLite.
//!
//! Owns: the blocking work, one transaction for each write, what each error means. Never: creates a database file.
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use kapell_kernel::{ErrorClass, TaskError};
use kapell_model::catalogue::CompiledSql;
use kapell_model::definition::SqlMode;
use kapell_runtime::Runtime;
use rusqlite::types::{ToSqlOutput, Value as Cell, ValueRef};
use rusqlite::{Connection, ErrorCode, InterruptHandle, OpenFlags, Statement, ToSql};
use serde_json::{Map, Value};

use super::{IDLE_MAX, Rows, affected, arguments};
use crate::outside::{CallOutcome, Fence, OutsideRequest, is_read};

/// Longest wait for another writer.
const BUSY_WITHIN_MAX: Duration = Duration::from_secs(5);

/// Open connections that nobody uses.
#[derive(Clone, Debug, Default)]
pub(crate) struct SqliteIdle(Arc<Mutex<Vec<Connection>>>);

/// Interrupts the statement when the call is given up.
struct Watch(Arc<Mutex<Option<InterruptHandle>>>);

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(handle) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            handle.interrupt();
        }
    }
}

/// All that the blocking part needs.
struct Job {
    idle: SqliteIdle,
    path: String,
    sql: CompiledSql,
    arguments: Vec<Value>,
    reads: bool,
    busy_within: Duration,
    fence: Fence,
    interrupt: Arc<Mutex<Option<InterruptHandle>>>,
}

/// Makes one call.
pub(crate) async fn call(
    idle: &SqliteIdle,
    runtime: &Runtime,
    request: &OutsideRequest,
    sql: &CompiledSql,
) -> CallOutcome {
    let arguments = match arguments(request, sql) {
        Ok(arguments) => arguments,
        Err(error) => return CallOutcome::Failed(error),
    };
    let endpoint = &request.tool.connection.endpoint;
    let watch = Watch(Arc::default());
    let job = Job {
        idle: idle.clone(),
        path: endpoint.strip_prefix("sqlite:").unwrap_or(endpoint).to_owned(),
        sql: sql.clone(),
        arguments,
        reads: is_read(&request.tool),
        busy_within: (request.tool.timeout / 2).min(BUSY_WITHIN_MAX),
        fence: request.fence.clone(),
        interrupt: Arc::clone(&watch.0),
    };
    let ended = runtime.blocking(move || job.run()).await;
    drop(watch);
    match ended {
        Ok(Ok(output)) => CallOutcome::succeeded(output),
        Ok(Err(Failed::Certain(error))) => CallOutcome::Failed(error),
        Ok(Err(Failed::Lost(why))) => CallOutcome::lost(&request.tool, why),
        Err(stopped) => CallOutcome::lost(&request.tool, stopped.to_string()),
    }
}

enum Failed {
    /// Nothing was changed.
    Certain(TaskError),
    /// The commit may have gone through.
    Lost(String),
}

impl From<TaskError> for Failed {
    fn from(error: TaskError) -> Failed {
        Failed::Certain(error)
    }
}

impl Job {
    fn run(&self) -> Result<Value, Failed> {
        let connection = self.connection().map_err(|error| classify(&error))?;
        *self.interrupt.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(connection.get_interrupt_handle());
        let done = if self.reads { self.read(&connection) } else { self.write(&connection) };
        *self.interrupt.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let mut idle = self.idle.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One that failed may be in a transaction still: closing it rolls back.
        if done.is_ok() && idle.len() < IDLE_MAX {
            idle.push(connection);
        }
        done
    }

    fn connection(&self) -> rusqlite::Result<Connection> {
        let kept = self.idle.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match kept {
            Some(connection) => connection,
            None => {
                let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                Connection::open_with_flags(&self.path, flags)?
            }
        };
        connection.busy_timeout(self.busy_within)?;
        connection.pragma_update(None, "query_only", self.reads)?;
        Ok(connection)
    }

    fn read(&self, connection: &Connection) -> Result<Value, Failed> {
        if !self.fence.pass() {
            return Err(given_up());
        }
        self.execute(connection)
    }

    fn write(&self, connection: &Connection) -> Result<Value, Failed> {
        connection.execute_batch("BEGIN IMMEDIATE").map_err(|error| classify(&error))?;
        let output = self.execute(connection)?;
        if !self.fence.pass() {
            return Err(given_up());
        }
        connection.execute_batch("COMMIT").map_err(|error| match error.sqlite_error_code() {
            // A commit that may not wait, or breaks a deferred constraint, has not happened.
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::ConstraintViolation) => {
                Failed::Certain(classify(&error))
            }
            // The other codes are the library's own list, which grows.
            _ => Failed::Lost(format!("the commit failed: {error}")),
        })?;
        Ok(output)
    }

    fn execute(&self, connection: &Connection) -> Result<Value, Failed> {
        let mut statement =
            connection.prepare(self.sql.statement.named()).map_err(|error| classify(&error))?;
        for ((name, _), value) in self.sql.parameters.iter().zip(&self.arguments) {
            let place = statement.parameter_index(&format!(":{name}")).map_err(|error| classify(&error))?;
            let place = place.ok_or_else(|| {
                TaskError::new(
                    ErrorClass::BadRequest,
                    format!("SQLite sees no parameter `:{name}` in the statement"),
                )
            })?;
            statement.raw_bind_parameter(place, Bound(value)).map_err(|error| classify(&error))?;
        }
        match self.sql.mode {
            SqlMode::Rows => Ok(rows(&mut statement)?),
            SqlMode::Affected => {
                let count = statement.raw_execute().map_err(|error| classify(&error))?;
                Ok(affected(count as u64))
            }
        }
    }
}

fn rows(statement: &mut Statement<'_>) -> Result<Value, TaskError> {
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let (mut collected, mut rows) = (Rows::default(), statement.raw_query());
    while let Some(row) = rows.next().map_err(|error| classify(&error))? {
        let (mut object, mut bytes) = (Map::new(), 2);
        for (at, name) in names.iter().enumerate() {
            let cell = json_of(row.get_ref(at).map_err(|error| classify(&error))?);
            bytes += name.len() + 4 + cell.as_str().map_or(20, str::len);
            object.insert(name.clone(), cell);
        }
        collected.push(Value::Object(object), bytes)?;
    }
    Ok(collected.output())
}

fn json_of(cell: ValueRef<'_>) -> Value {
    match cell {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => number.into(),
        // Infinite numbers have no JSON.
        ValueRef::Real(number) => number.into(),
        ValueRef::Text(text) => Value::String(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Value::String(base64::engine::general_purpose::STANDARD.encode(bytes)),
    }
}

/// A value as SQLite takes it; lists and objects as their JSON text.
struct Bound<'a>(&'a Value);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self.0 {
            Value::Null => ToSqlOutput::Owned(Cell::Null),
            Value::Bool(truth) => ToSqlOutput::Owned(Cell::Integer(i64::from(*truth))),
            Value::Number(number) => ToSqlOutput::Owned(match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => Cell::Integer(whole),
                (None, float) => float.map_or(Cell::Null, Cell::Real),
            }),
            Value::String(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Value::Array(_) | Value::Object(_) => ToSqlOutput::Owned(Cell::Text(self.0.to_string())),
        })
    }
}

fn given_up() -> Failed {
    Failed::Certain(TaskError::new(ErrorClass::Unavailable, "the call was given up before it was done"))
}

/// What an error before the commit means: nothing was changed.
fn classify(error: &rusqlite::Error) -> TaskError {
    let class = match error.sqlite_error_code() {
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::CannotOpen
            | ErrorCode::OperationInterrupted
            | ErrorCode::SystemIoFailure
            | ErrorCode::DiskFull
            | ErrorCode::OutOfMemory
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::SchemaChanged,
        ) => ErrorClass::Unavailable,
        Some(ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied) => ErrorClass::Auth,
        // The other codes are the library's own list: the statement or its values are at fault.
        _ => ErrorClass::BadRequest,
    };
    TaskError::new(class, format!("SQLite: {error}"))
}
