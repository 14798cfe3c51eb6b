//! PostgreSQL, as far as everything that keeps something there needs it in the same way.
//!
//! Owns: what a URL may say, TLS, the versions of a schema and how it comes from one to the next. Never: knows a table,
//! starts a job (who connects drives the connection), or decides what an error means for its caller.
mod leash;
mod schema;
mod target;
mod tls;

pub use leash::{Leash, leash};
pub use schema::{Schema, SchemaError, Step, Todo, Version};
pub use target::{Connection, Session, Target, UrlError};

/// What PostgreSQL said, with its code, or what the connection met. Never holds a password.
#[must_use]
pub fn describe(error: &tokio_postgres::Error) -> String {
    let Some(said) = error.as_db_error() else {
        let mut text = format!("PostgreSQL: {error}");
        let mut below = std::error::Error::source(error);
        while let Some(reason) = below {
            text.push_str(": ");
            text.push_str(&reason.to_string());
            below = reason.source();
        }
        return text;
    };
    format!("PostgreSQL: {} ({})", said.message(), said.code().code())
}
