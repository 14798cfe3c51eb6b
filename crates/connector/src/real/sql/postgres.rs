//! PostgreSQL.
//!
//! Owns: one transaction for each call, the moment of the commit, what each error means. Never: encrypts (a
//! connection to another machine needs a tunnel for now).
use std::str::FromStr as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::TryStreamExt as _;
use kapell_kernel::{ErrorClass, TaskError};
use kapell_model::catalogue::CompiledSql;
use kapell_model::definition::SqlMode;
use kapell_runtime::{Job, OnDeath, Runtime};
use serde_json::Value;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{Format, IsNull, ToSql, Type};
use tokio_postgres::{Client, Config, Error, NoTls};

use super::{IDLE_MAX, Rows, affected, arguments};
use crate::outside::{CallOutcome, OutsideRequest, is_read};
use crate::real::secret::Login;

/// Carries one connection's bytes; the call that uses it notices its death.
const CONNECTION: Job = Job { name: "connector-postgres", on_panic: OnDeath::Log };
/// Longest time to reach a server.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Open connections that nobody uses.
#[derive(Default)]
pub(crate) struct PostgresIdle(Mutex<Vec<Client>>);

impl PostgresIdle {
    fn take(&self) -> Option<Client> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn keep(&self, client: Client) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < IDLE_MAX {
            kept.push(client);
        }
    }
}

impl std::fmt::Debug for PostgresIdle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PostgresIdle")
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

/// Makes one call.
pub(crate) async fn call(
    idle: &PostgresIdle,
    runtime: &Runtime,
    login: &Login,
    request: &OutsideRequest,
    sql: &CompiledSql,
) -> CallOutcome {
    match transact(idle, runtime, login, request, sql).await {
        Ok(output) => CallOutcome::succeeded(output),
        Err(Failed::Certain(error)) => CallOutcome::Failed(error),
        Err(Failed::Lost(why)) => CallOutcome::lost(&request.tool, why),
    }
}

async fn transact(
    idle: &PostgresIdle,
    runtime: &Runtime,
    login: &Login,
    request: &OutsideRequest,
    sql: &CompiledSql,
) -> Result<Value, Failed> {
    let arguments: Vec<Bound> = arguments(request, sql)?.into_iter().map(Bound).collect();
    let client = begun(idle, runtime, login, request).await?;
    let output = execute(&client, sql, arguments).await?;
    if !request.fence.pass() {
        // Dropping the connection rolls back.
        return Err(
            TaskError::new(ErrorClass::Unavailable, "the call was given up before it was done").into()
        );
    }
    client.batch_execute("COMMIT").await.map_err(|error| match error.as_db_error() {
        // The server itself says that it did not commit.
        Some(_) => Failed::Certain(classify(&error)),
        None => Failed::Lost(format!("the commit was not answered: {}", describe(&error))),
    })?;
    idle.keep(client);
    Ok(output)
}

/// A connection with an open transaction. A kept connection that turns out to be dead is replaced.
async fn begun(
    idle: &PostgresIdle,
    runtime: &Runtime,
    login: &Login,
    request: &OutsideRequest,
) -> Result<Client, TaskError> {
    let kind = if is_read(&request.tool) { "READ ONLY" } else { "READ WRITE" };
    let within_ms = request.tool.timeout.as_millis().clamp(1, 2_147_483_647);
    // Numbers and words of ours only.
    let begin = format!("BEGIN {kind}; SET LOCAL statement_timeout = {within_ms}");
    while let Some(client) = idle.take() {
        if !client.is_closed() && client.batch_execute(&begin).await.is_ok() {
            return Ok(client);
        }
    }
    let client = connect(runtime, login, &request.tool.connection.endpoint).await?;
    client.batch_execute(&begin).await.map_err(|error| classify(&error))?;
    Ok(client)
}

async fn connect(runtime: &Runtime, login: &Login, endpoint: &str) -> Result<Client, TaskError> {
    let mut config = Config::from_str(endpoint).map_err(|error| {
        TaskError::new(ErrorClass::BadRequest, format!("the endpoint: {}", describe(&error)))
    })?;
    config.application_name("kapell").connect_timeout(CONNECT_WITHIN);
    match login {
        Login::Basic { user, password } => {
            config.user(user).password(password.reveal());
        }
        // Validation lets no other credential pass.
        Login::None | Login::Bearer { .. } | Login::ApiKey { .. } => {}
    }
    let (client, connection) = config.connect(NoTls).await.map_err(|error| classify(&error))?;
    runtime.jobs.spawn(CONNECTION, async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a PostgreSQL connection ended");
        }
    });
    Ok(client)
}

async fn execute(client: &Client, sql: &CompiledSql, arguments: Vec<Bound>) -> Result<Value, TaskError> {
    let wrong = |error: Error| classify(&error);
    match sql.mode {
        SqlMode::Affected => {
            let statement = client.prepare(sql.statement.numbered()).await.map_err(wrong)?;
            expect(statement.params().len(), arguments.len())?;
            let count = client.execute_raw(&statement, arguments).await.map_err(wrong)?;
            Ok(affected(count))
        }
        SqlMode::Rows => {
            let statement = client.prepare(&as_json(sql.statement.numbered())).await.map_err(wrong)?;
            expect(statement.params().len(), arguments.len())?;
            let stream = client.query_raw(&statement, arguments).await.map_err(wrong)?;
            let (mut rows, mut stream) = (Rows::default(), std::pin::pin!(stream));
            while let Some(row) = stream.try_next().await.map_err(wrong)? {
                let text: &str = row.try_get(0).map_err(wrong)?;
                let row = serde_json::from_str(text).map_err(|error| {
                    TaskError::new(ErrorClass::ContractBroken, format!("a row is no JSON: {error}"))
                })?;
                rows.push(row, text.len())?;
            }
            Ok(rows.output())
        }
    }
}

/// Has the server write each row as JSON, so that every type has the form that PostgreSQL gives it.
fn as_json(statement: &str) -> String {
    // A line end, since the statement may end with a comment.
    let statement = statement.trim_end().trim_end_matches(';');
    format!("WITH kapell_rows AS (\n{statement}\n) SELECT row_to_json(kapell_rows)::text FROM kapell_rows")
}

/// The driver panics on a wrong number of parameters.
fn expect(wanted: usize, given: usize) -> Result<(), TaskError> {
    if wanted == given {
        return Ok(());
    }
    let why = format!("PostgreSQL sees {wanted} parameters in the statement, the definition {given}");
    Err(TaskError::new(ErrorClass::BadRequest, why))
}

/// A value in the text form of whatever type the parameter has; lists and objects as their JSON.
#[derive(Debug)]
struct Bound(Value);

impl ToSql for Bound {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match &self.0 {
            Value::Null => return Ok(IsNull::Yes),
            Value::String(text) => out.extend_from_slice(text.as_bytes()),
            other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                out.extend_from_slice(other.to_string().as_bytes());
            }
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    tokio_postgres::types::to_sql_checked!();
}

/// What an error before the commit means: nothing was changed.
fn classify(error: &Error) -> TaskError {
    let class = match error.code().map(|code| code.code().split_at(2)) {
        // No code: the connection, not the statement.
        None => ErrorClass::Unavailable,
        Some(("28", _)) | Some(("42", "501")) => ErrorClass::Auth,
        // Connections, resources, operators' doings, deadlocks and the like, and locks.
        Some(("08" | "53" | "57" | "40" | "58", _)) | Some(("55", "P03")) => ErrorClass::Unavailable,
        Some(_) => ErrorClass::BadRequest,
    };
    TaskError::new(class, format!("PostgreSQL: {}", describe(error)))
}

fn describe(error: &Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => match std::error::Error::source(error) {
            Some(reason) => format!("{error}: {reason}"),
            None => error.to_string(),
        },
    }
}
