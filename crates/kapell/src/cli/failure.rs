//! How a command ends that did not succeed.
//!
//! Owns: exit codes, and an error with its hint on stderr. Never: decides what is an error.
use std::process::ExitCode;

use kapell_client::{ClientError, ConnectError};
use serde::Serialize;
use serde_json::json;

use super::output::{Format, Output, say_err};

/// What the exit code says; `docs/reference/exit-codes.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Exit {
    /// It was done, and it did not turn out well: a run failed, `doctor` found something.
    Unsuccessful,
    /// What was typed or given is wrong.
    Invalid,
    /// What it names is not there.
    NotFound,
    /// Refused for now: busy, unavailable, nobody answers.
    RefusedForNow,
}

impl Exit {
    fn number(self) -> u8 {
        match self {
            Exit::Unsuccessful => 1,
            Exit::Invalid => 2,
            Exit::NotFound => 3,
            Exit::RefusedForNow => 4,
        }
    }
}

/// Why a command ends without success.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The output says it already.
    Shown(Exit),
    /// Nobody reads the output any more, as when it is piped into `head`. No reason to complain.
    Unread,
    /// To be said on stderr.
    Error {
        /// For scripts.
        exit: Exit,
        /// What is wrong.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
}

impl Failure {
    /// What was typed or given is wrong.
    pub(crate) fn invalid(message: impl Into<String>) -> Failure {
        Failure::Error { exit: Exit::Invalid, message: message.into(), hint: None }
    }

    /// The same failure with something to do about it.
    pub(crate) fn hint(self, text: impl Into<String>) -> Failure {
        match self {
            Failure::Error { exit, message, hint: _ } => {
                Failure::Error { exit, message, hint: Some(text.into()) }
            }
            shown @ (Failure::Shown(_) | Failure::Unread) => shown,
        }
    }

    /// Nobody answers at the address.
    pub(crate) fn unreachable(error: &ConnectError) -> Failure {
        Failure::Error {
            exit: Exit::RefusedForNow,
            message: error.to_string(),
            hint: Some(
                "start one with `kapell dev`, or name another with --address HOST:PORT or KAPELL_ADDRESS"
                    .to_owned(),
            ),
        }
    }

    /// Says what there is to say, and gives the exit code.
    pub(crate) fn tell(self, output: &Output) -> ExitCode {
        match self {
            Failure::Unread => ExitCode::SUCCESS,
            Failure::Shown(exit) => exit.number().into(),
            Failure::Error { exit, message, hint } => {
                say_err(&error_text(output, exit, &message, hint.as_deref()));
                exit.number().into()
            }
        }
    }
}

fn error_text(output: &Output, exit: Exit, message: &str, hint: Option<&str>) -> String {
    match output.format {
        Format::Json => {
            let error = json!({ "code": exit, "exit": exit.number(), "message": message, "hint": hint });
            format!("{}\n", json!({ "error": error }))
        }
        Format::Table | Format::Yaml => {
            let paint = output.paint_err();
            let mut text = format!("{} {message}\n", paint.bad("error:"));
            if let Some(hint) = hint {
                text.push_str(&format!("  {} {hint}\n", paint.strong("hint:")));
            }
            text
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::Error { exit: Exit::Unsuccessful, message: format!("{error:#}"), hint: None }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        let hint = |text: &str| Some(text.to_owned());
        let (exit, hint) = match &error {
            ClientError::Invalid { .. } => (Exit::Invalid, None),
            ClientError::NotFound { .. } => (Exit::NotFound, None),
            ClientError::Refused { .. } => (Exit::Unsuccessful, None),
            ClientError::Busy { .. } => {
                (Exit::RefusedForNow, hint("nothing was done; try again in a moment"))
            }
            ClientError::Unavailable { .. } => {
                (Exit::RefusedForNow, hint("try again; `kapell status` says whether the coordinator is well"))
            }
            ClientError::TimedOut { .. } => (
                Exit::RefusedForNow,
                hint("look with `kapell run list` whether it was done before trying again"),
            ),
            ClientError::Failed { .. } => (Exit::Unsuccessful, hint("the coordinator's log says more")),
        };
        Failure::Error { exit, message: error.to_string(), hint }
    }
}
