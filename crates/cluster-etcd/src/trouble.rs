//! What can go wrong with a call to etcd, by what to do about it.
//!
//! Owns: the reading of etcd's and tonic's errors. Never: tries anything again.
use std::error::Error;
use std::fmt::Write as _;

use etcd_client::Error as EtcdError;
use tonic::{Code, Status};

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Another try or another endpoint may do better. Whether a write was made is not known.
    Passing(String),
    /// Trying again is of no use; a person must look at the settings.
    Refused(String),
    /// The lease is not there any more.
    LeaseGone,
}

impl Trouble {
    /// For those who have no better use for a refusal than to wait for the person.
    pub(crate) fn into_reason(self) -> String {
        match self {
            Trouble::Passing(reason) | Trouble::Refused(reason) => reason,
            Trouble::LeaseGone => "the lease is gone".to_owned(),
        }
    }

    pub(crate) fn timeout() -> Trouble {
        Trouble::Passing("no answer in time".to_owned())
    }
}

impl From<EtcdError> for Trouble {
    fn from(error: EtcdError) -> Trouble {
        match &error {
            EtcdError::GRpcStatus(status) => of_status(status),
            EtcdError::InvalidArgs(_)
            | EtcdError::InvalidUri(_)
            | EtcdError::Utf8Error(_)
            | EtcdError::InvalidMetadataValue(_)
            | EtcdError::EndpointsNotManaged => Trouble::Refused(error.to_string()),
            EtcdError::TransportError(source) => Trouble::Passing(chain(source)),
            EtcdError::IoError(_)
            | EtcdError::WatchError(_)
            | EtcdError::LeaseKeepAliveError(_)
            | EtcdError::ElectError(_)
            | EtcdError::EndpointError(_)
            | EtcdError::Internal(_) => Trouble::Passing(error.to_string()),
        }
    }
}

fn of_status(status: &Status) -> Trouble {
    // etcd says the rest in its message: these two share their codes with what no second try helps.
    let message = status.message();
    if message.contains("requested lease not found") {
        return Trouble::LeaseGone;
    }
    if message.contains("revision of auth store is old") {
        // Rights were changed since we showed our password; a new connection shows it again.
        return Trouble::Passing(text(status));
    }
    match status.code() {
        Code::InvalidArgument | Code::PermissionDenied | Code::Unimplemented => {
            Trouble::Refused(text(status))
        }
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss
        | Code::Unauthenticated => Trouble::Passing(text(status)),
    }
}

/// The message, and what is behind it: tonic says no more than "transport error" by itself.
fn text(status: &Status) -> String {
    match status.source() {
        Some(source) => format!("{}: {}", status.message(), chain(source)),
        None if status.message().is_empty() => format!("{:?}", status.code()),
        None => status.message().to_owned(),
    }
}

fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        // Writing to a string does not fail.
        _ = write!(text, ": {source}");
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: Code, message: &str) -> Trouble {
        Trouble::from(EtcdError::GRpcStatus(Status::new(code, message)))
    }

    #[test]
    fn errors_are_read_by_what_to_do_about_them() {
        let passing = |text: &str| Trouble::Passing(text.to_owned());
        assert_eq!(of(Code::NotFound, "etcdserver: requested lease not found"), Trouble::LeaseGone);
        for (code, message) in [
            (Code::Unavailable, "etcdserver: no leader"),
            (Code::Unavailable, "etcdserver: leader changed"),
            (Code::Unknown, "context deadline exceeded"),
            (Code::Unauthenticated, "etcdserver: invalid auth token"),
            (Code::InvalidArgument, "etcdserver: revision of auth store is old"),
            (Code::ResourceExhausted, "etcdserver: too many requests"),
        ] {
            assert_eq!(of(code, message), passing(message));
        }
        for (code, message) in [
            (Code::PermissionDenied, "etcdserver: permission denied"),
            (Code::InvalidArgument, "etcdserver: user name is empty"),
            (Code::InvalidArgument, "etcdserver: authentication failed, invalid user ID or password"),
        ] {
            assert_eq!(of(code, message), Trouble::Refused(message.to_owned()));
        }
        assert_eq!(of(Code::Unavailable, ""), passing("Unavailable"));
    }

    #[test]
    fn a_reason_says_what_is_behind_it() {
        let source = std::io::Error::other("certificate expired");
        let status = Status::from_error(Box::new(source));
        assert_eq!(
            Trouble::from(EtcdError::GRpcStatus(status)),
            Trouble::Passing("certificate expired: certificate expired".to_owned())
        );
    }
}
