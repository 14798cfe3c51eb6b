//! Targets: which database a URL names, and connections to it.
//!
//! Owns: the form of a URL and the settings that every connection has. Never: shows a password, or goes on without TLS
//! where the URL asks for it.
use std::fmt;
use std::time::Duration;

use futures::future::BoxFuture;
use percent_encoding::percent_decode_str;
use tokio_postgres::config::{Host, TargetSessionAttrs};
use tokio_postgres::{Client, Config, Error};

use crate::describe;
use crate::tls::{Tls, TlsSettings};

/// Carries the bytes of one connection; somebody must run it as long as the client is used.
pub type Connection = BoxFuture<'static, Result<(), Error>>;

/// What the connections of one part have in common.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    /// Seen in `pg_stat_activity`.
    pub application_name: &'static str,
    /// Settings of the server for these connections: `-c name=value …`.
    pub options: &'static str,
    /// Longest time to reach the server.
    pub connect_within: Duration,
}

/// The URL is not one that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the URL of a database: {reason}")]
pub struct UrlError {
    /// What is wrong, and what to write instead.
    reason: String,
}

impl UrlError {
    pub(crate) fn new(reason: impl Into<String>) -> UrlError {
        UrlError { reason: reason.into() }
    }
}

/// One database.
#[derive(Clone)]
pub struct Target {
    config: Config,
    tls: Tls,
}

const FORM: &str = "write postgres://user:password@host:5432/database";

impl Target {
    /// Reads `postgres://user:password@host:5432/database?sslmode=…`.
    ///
    /// `sslmode` is `disable`, `prefer` (the default), `require`, `verify-ca` or `verify-full`, as with PostgreSQL's own
    /// clients; `sslrootcert` names a file of trusted certificates in PEM (else those of the machine are used for the
    /// last two), `sslcert` and `sslkey` the client's own.
    ///
    /// # Errors
    ///
    /// The URL has another form, or a file that it names cannot be read.
    pub fn parse(url: &str, session: &Session) -> Result<Target, UrlError> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(UrlError::new(format!("it begins otherwise; {FORM}")));
        }
        let (plain, settings) = take_tls_settings(url)?;
        let mut config: Config =
            plain.parse().map_err(|error| UrlError::new(format!("{}; {FORM}", describe(&error))))?;
        if config.get_hosts().is_empty() || config.get_dbname().is_none() {
            return Err(UrlError::new(format!("it names no host or no database; {FORM}")));
        }
        let own = config.get_options().unwrap_or_default();
        // Ours come last, so that they hold.
        let options = format!("{own} {}", session.options);
        config
            .options(options.trim())
            .application_name(session.application_name)
            .connect_timeout(session.connect_within)
            .keepalives_idle(Duration::from_secs(10))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3)
            .tcp_user_timeout(Duration::from_secs(30));
        if config.get_hosts().len() > 1 {
            // Of a primary and its standbys the one that is the primary now.
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        config.ssl_mode(settings.mode.on_the_wire());
        Ok(Target { config, tls: Tls::new(&settings)? })
    }

    /// A new connection, and what drives it.
    ///
    /// # Errors
    ///
    /// Whatever the server or the network said.
    pub async fn connect(&self) -> Result<(Client, Connection), Error> {
        match &self.tls {
            Tls::None => {
                let (client, connection) = self.config.connect(tokio_postgres::NoTls).await?;
                Ok((client, Box::pin(connection)))
            }
            Tls::Rustls(connector) => {
                let (client, connection) = self.config.connect(connector.clone()).await?;
                Ok((client, Box::pin(connection)))
            }
        }
    }
}

/// `host:port/database`, without user and password.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = self.config.get_ports();
        for (at, host) in self.config.get_hosts().iter().enumerate() {
            let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
            let comma = if at > 0 { "," } else { "" };
            match host {
                Host::Tcp(name) => write!(f, "{comma}{name}:{port}")?,
                Host::Unix(path) => write!(f, "{comma}{}:{port}", path.display())?,
            }
        }
        write!(f, "/{}", self.config.get_dbname().unwrap_or_default())
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

/// The URL without what is said about TLS, and that. The driver knows fewer words for it than people write.
fn take_tls_settings(url: &str) -> Result<(String, TlsSettings), UrlError> {
    let mut settings = TlsSettings::default();
    let Some((base, query)) = url.split_once('?') else { return Ok((url.to_owned(), settings)) };
    let mut others = Vec::new();
    for parameter in query.split('&') {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let decoded = percent_decode_str(value).decode_utf8();
        let value = decoded.map_err(|_| UrlError::new(format!("{name} is not UTF-8")))?;
        if !settings.take(name, &value)? {
            others.push(parameter);
        }
    }
    let plain = if others.is_empty() { base.to_owned() } else { format!("{base}?{}", others.join("&")) };
    Ok((plain, settings))
}

#[cfg(test)]
mod tests {
    use tokio_postgres::config::SslMode;

    use super::*;

    const SESSION: Session = Session {
        application_name: "kapell-test",
        options: "-c jit=off",
        connect_within: Duration::from_secs(3),
    };

    fn parse(url: &str) -> Result<Target, String> {
        Target::parse(url, &SESSION).map_err(|error| error.to_string())
    }

    #[test]
    fn a_target_is_shown_without_its_password() {
        let target = parse("postgres://me:hush@db1:5433,db2:5434/store?sslmode=disable").unwrap();
        assert_eq!(target.to_string(), "db1:5433,db2:5434/store");
        assert_eq!(format!("{target:?}"), "Target(db1:5433,db2:5434/store)");
        assert_eq!(target.config.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
    }

    #[test]
    fn our_settings_of_the_server_come_after_those_of_the_url() {
        let url = "postgresql://me@db/store?options=-c%20jit%3Don&sslmode=prefer&connect_timeout=9";
        let target = parse(url).unwrap();
        assert_eq!(target.config.get_options(), Some("-c jit=on -c jit=off"));
        assert_eq!(target.config.get_connect_timeout(), Some(&Duration::from_secs(3)));
        assert_eq!(target.config.get_ssl_mode(), SslMode::Prefer);
    }

    #[test]
    fn a_url_that_cannot_be_meant_is_refused_with_a_hint() {
        for url in ["host=db dbname=store", "postgres://db:5432", "postgres:///store", "mysql://db/store"] {
            let error = parse(url).unwrap_err();
            assert!(error.contains("write postgres://"), "{url}: {error}");
        }
        let error = parse("postgres://me:hush@db/store?sslmode=sometimes").unwrap_err();
        assert!(error.contains("sslmode") && error.contains("verify-full"), "{error}");
        let error = parse("postgres://me:hush@db/store?sslmode=verify-ca&sslrootcert=/no/such").unwrap_err();
        assert!(error.contains("/no/such") && !error.contains("hush"), "{error}");
    }

    #[test]
    fn what_asks_for_tls_is_never_connected_to_without() {
        for mode in ["require", "verify-ca", "verify-full"] {
            let target = parse(&format!("postgres://me@db/store?sslmode={mode}")).unwrap();
            assert_eq!(target.config.get_ssl_mode(), SslMode::Require, "{mode}");
            assert!(matches!(target.tls, Tls::Rustls(_)), "{mode}");
        }
    }
}
