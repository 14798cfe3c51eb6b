//! Options of the cluster in etcd: raw as they are read, then proven.
//!
//! Owns: the limits, and the times that follow from the lease. Never: reads files or the environment; keys and
//! certificates come as bytes.
use std::fmt;
use std::time::Duration;

use kapell_model::Name;

/// Shortest lease that may be asked for. Below it one slow disk write of etcd would end a session.
pub const TTL_MIN: Duration = Duration::from_secs(2);
/// Longest lease that may be asked for: so long the shards of a dead node have no owner.
pub const TTL_MAX: Duration = Duration::from_secs(600);
/// How many addresses of etcd may be given.
pub const ENDPOINTS_MAX: usize = 16;
/// Longest time that one call to etcd may take. A write that was under way when etcd's leader died is never answered,
/// so this is part of every failover.
pub const CALL_TIMEOUT_MAX: Duration = Duration::from_millis(1500);

/// Where the cluster is, and how long its nodes may be silent.
#[derive(Clone, Debug)]
pub struct EtcdOptions {
    /// `HOST:PORT`, or a URL, of every member of etcd.
    pub endpoints: Vec<String>,
    /// Name of the cluster: several may share one etcd.
    pub cluster: Name,
    /// What all keys begin with: empty, or a path without a slash at its end.
    pub prefix: String,
    /// How long a node may be silent before its shards are given to others. Whole seconds; etcd may grant more.
    pub ttl: Duration,
    /// How long it may take to connect.
    pub connect_timeout: Duration,
    /// For etcd that speaks TLS.
    pub tls: Option<EtcdTls>,
    /// For etcd that asks for a name and a password.
    pub user: Option<EtcdUser>,
}

/// What proves etcd to us, and us to etcd.
#[derive(Clone)]
pub struct EtcdTls {
    /// Certificates of those who sign for etcd, as PEM.
    pub ca: Vec<u8>,
    /// Our certificate and its key, as PEM, if etcd asks for one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// The name that etcd's certificate has, if it is not the one in the endpoint.
    pub server_name: Option<String>,
}

/// A user of etcd.
#[derive(Clone)]
pub struct EtcdUser {
    /// The name.
    pub name: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for EtcdTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdTls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

impl fmt::Debug for EtcdUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdUser").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why options cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadOptions {
    /// Nobody could be asked.
    #[error("no endpoint of etcd is given; name at least one HOST:PORT")]
    NoEndpoint,
    /// A list of members is short.
    #[error("{0} endpoints of etcd are given, at most {ENDPOINTS_MAX} can be used")]
    TooManyEndpoints(usize),
    /// Not something that could be connected to.
    #[error("`{0}` is no endpoint of etcd; write HOST:PORT, http://HOST:PORT or https://HOST:PORT")]
    BadEndpoint(String),
    /// Keys and certificates would not be used.
    #[error("endpoint `{0}` does not speak TLS; write https://, or leave the certificates out")]
    PlainWithTls(String),
    /// Nothing says whom to trust.
    #[error("endpoint `{0}` speaks TLS; give the certificate of the authority that signs for etcd")]
    TlsWithoutCa(String),
    /// Keys would not be found below it.
    #[error("prefix `{0}` of the keys must be empty, or begin with a slash and not end with one")]
    BadPrefix(String),
    /// etcd counts whole seconds, and both ends have their reason.
    #[error("a lease of {0:?} is not a whole number of seconds from {TTL_MIN:?} to {TTL_MAX:?}")]
    BadTtl(Duration),
    /// No connection would ever be made.
    #[error("the time to connect must not be zero")]
    NoTimeToConnect,
}

impl EtcdOptions {
    /// A cluster on these endpoints, without TLS, with a lease of six seconds: two failed calls and an election of
    /// etcd's leader fit into it.
    #[must_use]
    pub fn new(endpoints: Vec<String>, cluster: Name) -> EtcdOptions {
        EtcdOptions {
            endpoints,
            cluster,
            prefix: "/kapell".to_owned(),
            ttl: Duration::from_secs(6),
            connect_timeout: Duration::from_secs(1),
            tls: None,
            user: None,
        }
    }

    pub(crate) fn prove(&self) -> Result<(), BadOptions> {
        match self.endpoints.len() {
            0 => return Err(BadOptions::NoEndpoint),
            count if count > ENDPOINTS_MAX => return Err(BadOptions::TooManyEndpoints(count)),
            _ => {}
        }
        self.endpoints.iter().try_for_each(|endpoint| self.prove_endpoint(endpoint))?;
        let rooted = self.prefix.is_empty() || (self.prefix.starts_with('/') && !self.prefix.ends_with('/'));
        if !rooted {
            return Err(BadOptions::BadPrefix(self.prefix.clone()));
        }
        if !(TTL_MIN..=TTL_MAX).contains(&self.ttl) || self.ttl.subsec_nanos() != 0 {
            return Err(BadOptions::BadTtl(self.ttl));
        }
        if self.connect_timeout.is_zero() {
            return Err(BadOptions::NoTimeToConnect);
        }
        Ok(())
    }

    fn prove_endpoint(&self, endpoint: &str) -> Result<(), BadOptions> {
        let (scheme, rest) = match endpoint.split_once("://") {
            Some((scheme, rest)) => (Some(scheme), rest),
            None => (None, endpoint),
        };
        let port =
            rest.trim_end_matches('/').rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>()));
        if !matches!(port, Some((host, Ok(_))) if !host.is_empty()) {
            return Err(BadOptions::BadEndpoint(endpoint.to_owned()));
        }
        match (scheme, &self.tls) {
            (Some("https"), None) => Err(BadOptions::TlsWithoutCa(endpoint.to_owned())),
            (Some("http"), Some(_)) => Err(BadOptions::PlainWithTls(endpoint.to_owned())),
            (None | Some("http"), None) | (None | Some("https"), Some(_)) => Ok(()),
            (Some(_), _) => Err(BadOptions::BadEndpoint(endpoint.to_owned())),
        }
    }

    /// How long one call may take: several of them fit into a lease.
    pub(crate) fn call_timeout(&self) -> Duration {
        CALL_TIMEOUT_MAX.min(self.ttl / 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> EtcdOptions {
        EtcdOptions::new(vec!["127.0.0.1:2379".to_owned()], Name::new("test").unwrap())
    }

    fn tls() -> EtcdTls {
        EtcdTls { ca: b"pem".to_vec(), identity: None, server_name: None }
    }

    fn with(change: impl FnOnce(&mut EtcdOptions)) -> Result<(), BadOptions> {
        let mut options = options();
        change(&mut options);
        options.prove()
    }

    #[test]
    fn options_hold_their_limits() {
        assert_eq!(options().prove(), Ok(()));
        assert_eq!(with(|o| o.endpoints.clear()), Err(BadOptions::NoEndpoint));
        let many = |count| with(|o| o.endpoints = vec!["etcd:2379".to_owned(); count]);
        assert_eq!(many(ENDPOINTS_MAX), Ok(()));
        assert_eq!(many(ENDPOINTS_MAX + 1), Err(BadOptions::TooManyEndpoints(ENDPOINTS_MAX + 1)));
        for (ttl, good) in [(1999, false), (2000, true), (2500, false), (600_000, true), (601_000, false)] {
            assert_eq!(with(|o| o.ttl = Duration::from_millis(ttl)).is_ok(), good, "{ttl} ms");
        }
        for (prefix, good) in
            [("", true), ("/a", true), ("/a/b", true), ("a", false), ("/a/", false), ("/", false)]
        {
            assert_eq!(with(|o| o.prefix = prefix.to_owned()).is_ok(), good, "{prefix}");
        }
        assert_eq!(with(|o| o.connect_timeout = Duration::ZERO), Err(BadOptions::NoTimeToConnect));
    }

    #[test]
    fn endpoints_and_tls_fit_together() {
        let plain = |endpoint: &str| with(|o| o.endpoints = vec![endpoint.to_owned()]);
        let secure =
            |endpoint: &str| with(|o| (o.endpoints, o.tls) = (vec![endpoint.to_owned()], Some(tls())));
        for good in ["etcd:1", "http://etcd:2379", "http://etcd:2379/", "[::1]:2379"] {
            assert_eq!(plain(good), Ok(()), "{good}");
        }
        for good in ["etcd:1", "https://etcd:2379"] {
            assert_eq!(secure(good), Ok(()), "{good}");
        }
        for bad in ["", "etcd", ":2379", "etcd:port", "etcd:70000", "unix://etcd:1", "http://"] {
            assert_eq!(plain(bad), Err(BadOptions::BadEndpoint(bad.to_owned())), "{bad}");
        }
        assert!(matches!(plain("https://etcd:1"), Err(BadOptions::TlsWithoutCa(_))));
        assert!(matches!(secure("http://etcd:1"), Err(BadOptions::PlainWithTls(_))));
    }

    #[test]
    fn secrets_are_not_printed() {
        let mut options = options();
        options.tls =
            Some(EtcdTls { identity: Some((b"certificate".to_vec(), b"secret".to_vec())), ..tls() });
        options.user = Some(EtcdUser { name: "kapell".to_owned(), password: "secret".to_owned() });
        let printed = format!("{options:?}");
        assert!(printed.contains("kapell") && !printed.contains("secret"), "{printed}");
        assert!(!printed.contains(&format!("{:?}", b"secret")), "{printed}");
    }
}
