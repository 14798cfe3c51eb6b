//! Real outside systems.
//!
//! Owns: what is kept open for each connection, and using a credential again that has changed. Never: waits for a
//! turn or limits a time (that is `desk`).
mod http;
mod secret;
mod smtp;
mod sql;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use kapell_kernel::ErrorClass;
use kapell_model::Name;
use kapell_model::catalogue::CompiledOperation;
use kapell_model::definition::Connection;
use kapell_model::limits::PAYLOAD_BYTES_MAX;
use kapell_runtime::Runtime;

use crate::outside::{CallOutcome, Outside, OutsideRequest};
use http::HttpClients;
use secret::{Login, LoginKeeper};
use sql::{PostgresIdle, SqliteIdle};

/// Largest answer of an outside system that is read.
pub const ANSWER_BYTES_MAX: usize = PAYLOAD_BYTES_MAX;

/// Connections that are kept open; beyond, all are opened anew.
const CONNECTIONS_MAX: usize = 10_000;

/// Speaks HTTP, SQL and SMTP.
pub struct RealOutside {
    runtime: Runtime,
    lines: Mutex<BTreeMap<(Name, Name), Arc<Line>>>,
}

/// What is kept for one connection.
#[derive(Debug)]
struct Line {
    connection: Connection,
    login: LoginKeeper,
    http: HttpClients,
    sqlite: SqliteIdle,
    postgres: PostgresIdle,
}

impl RealOutside {
    /// Opens nothing yet. The process must have installed a rustls crypto provider.
    #[must_use]
    pub fn new(runtime: Runtime) -> RealOutside {
        RealOutside { runtime, lines: Mutex::new(BTreeMap::new()) }
    }

    fn line(&self, request: &OutsideRequest) -> Arc<Line> {
        let connection = &request.tool.connection;
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() >= CONNECTIONS_MAX {
            lines.clear();
        }
        let key = (request.namespace.clone(), request.tool.connection_name.clone());
        let line = lines.entry(key).or_insert_with(|| Arc::new(Line::new(connection)));
        if line.connection != *connection {
            *line = Arc::new(Line::new(connection));
        }
        Arc::clone(line)
    }

    async fn make(&self, request: &OutsideRequest) -> CallOutcome {
        let line = self.line(request);
        let login = match line.login.get(&self.runtime, &line.connection.credential).await {
            Ok(login) => login,
            Err(missing) => return CallOutcome::failed(ErrorClass::Auth, missing.to_string()),
        };
        let outcome = self.speak(&line, &login, request).await;
        if !is_refused_login(&outcome) {
            return outcome;
        }
        // Refused before anything was done. The secret may have been rotated since it was read: with the same one
        // there is no use in trying.
        line.login.forget();
        match line.login.get(&self.runtime, &line.connection.credential).await {
            Ok(fresh) if fresh != login => self.speak(&line, &fresh, request).await,
            Ok(_) | Err(_) => outcome,
        }
    }

    async fn speak(&self, line: &Line, login: &Login, request: &OutsideRequest) -> CallOutcome {
        match &request.tool.operation {
            CompiledOperation::Http(http) => {
                http::call(&line.http, &*self.runtime.clock, login, request, http).await
            }
            CompiledOperation::Sql(sql) if line.connection.endpoint.starts_with("sqlite:") => {
                sql::call_sqlite(&line.sqlite, &self.runtime, request, sql).await
            }
            CompiledOperation::Sql(sql) => {
                sql::call_postgres(&line.postgres, &self.runtime, login, request, sql).await
            }
            CompiledOperation::Smtp(smtp) => smtp::call(&self.runtime, login, request, smtp).await,
        }
    }
}

impl Outside for RealOutside {
    fn call(&self, request: OutsideRequest) -> BoxFuture<'_, CallOutcome> {
        async move { self.make(&request).await }.boxed()
    }
}

impl Line {
    fn new(connection: &Connection) -> Line {
        Line {
            connection: connection.clone(),
            login: LoginKeeper::default(),
            http: HttpClients::default(),
            sqlite: SqliteIdle::default(),
            postgres: PostgresIdle::default(),
        }
    }
}

fn is_refused_login(outcome: &CallOutcome) -> bool {
    match outcome {
        CallOutcome::Failed(error) => error.class == ErrorClass::Auth,
        CallOutcome::Succeeded { .. } | CallOutcome::Unknown { .. } => false,
    }
}
