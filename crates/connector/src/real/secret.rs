//! Secrets: read where a connection says, kept in memory, never shown.
//!
//! Owns: reading environment variables and files of secrets, the only places where a connector does. Never: logs or
//! formats a secret.
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use kapell_model::definition::{Credential, Secret};
use kapell_runtime::Runtime;

/// Largest secret that is read.
const SECRET_BYTES_MAX: usize = 64 << 10;

/// A text that no formatting shows.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Hidden(String);

impl Hidden {
    /// The text, for the wire only.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// How to prove who we are, with the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Login {
    None,
    Basic { user: String, password: Hidden },
    Bearer { token: Hidden },
    ApiKey { header: String, key: Hidden },
}

/// Why there is no secret. Says where it should be, never what it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MissingSecret {
    #[error("environment variable `{0}` of the connector process is not set, or no text")]
    Env(String),
    #[error("file `{path}` cannot be read by the connector process: {reason}")]
    File { path: String, reason: String },
    #[error("file `{path}` is larger than {SECRET_BYTES_MAX} bytes; that is no secret")]
    TooLarge { path: String },
    #[error("the node is stopping")]
    Stopping,
}

/// Keeps what was read until it is forgotten.
#[derive(Debug, Default)]
pub(crate) struct LoginKeeper(Mutex<Option<Arc<Login>>>);

impl LoginKeeper {
    /// What is kept, or what is read now.
    pub(crate) async fn get(
        &self,
        runtime: &Runtime,
        credential: &Credential,
    ) -> Result<Arc<Login>, MissingSecret> {
        if let Some(kept) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(Arc::clone(kept));
        }
        let credential = credential.clone();
        let read = runtime.blocking(move || login(&credential)).await;
        let login = Arc::new(read.map_err(|_| MissingSecret::Stopping)??);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&login));
        Ok(login)
    }

    /// To be read again.
    pub(crate) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn login(credential: &Credential) -> Result<Login, MissingSecret> {
    Ok(match credential {
        Credential::None => Login::None,
        Credential::Basic { user, password } => {
            Login::Basic { user: user.clone(), password: read(password)? }
        }
        Credential::Bearer { token } => Login::Bearer { token: read(token)? },
        Credential::ApiKey { header, key } => Login::ApiKey { header: header.clone(), key: read(key)? },
    })
}

fn read(secret: &Secret) -> Result<Hidden, MissingSecret> {
    match secret {
        Secret::Env(name) => std::env::var(name).map(Hidden).map_err(|_| MissingSecret::Env(name.clone())),
        Secret::File(path) => {
            let unreadable = |reason: String| MissingSecret::File { path: path.clone(), reason };
            let bytes = std::fs::read(path).map_err(|error| unreadable(error.to_string()))?;
            if bytes.len() > SECRET_BYTES_MAX {
                return Err(MissingSecret::TooLarge { path: path.clone() });
            }
            // The error of the conversion would hold the bytes.
            let mut text = String::from_utf8(bytes).map_err(|_| unreadable("it is no text".to_owned()))?;
            let end = text
                .strip_suffix('\n')
                .map_or(text.len(), |line| line.strip_suffix('\r').unwrap_or(line).len());
            text.truncate(end);
            Ok(Hidden(text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_read_once_until_it_is_forgotten_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let credential = Credential::Bearer { token: Secret::File(path.to_str().unwrap().to_owned()) };
        let (runtime, keeper) = (Runtime::system(), LoginKeeper::default());
        let missing = keeper.get(&runtime, &credential).await.unwrap_err().to_string();
        assert!(missing.contains("token") && missing.contains("cannot be read"), "{missing}");
        std::fs::write(&path, "first-secret\r\n").unwrap();
        let first = keeper.get(&runtime, &credential).await.unwrap();
        assert!(matches!(&*first, Login::Bearer { token } if token.reveal() == "first-secret"));
        std::fs::write(&path, "second-secret").unwrap();
        assert_eq!(keeper.get(&runtime, &credential).await.unwrap(), first);
        keeper.forget();
        let second = keeper.get(&runtime, &credential).await.unwrap();
        assert!(matches!(&*second, Login::Bearer { token } if token.reveal() == "second-secret"));
        let shown = format!("{second:?} {keeper:?}");
        assert!(!shown.contains("secret"), "{shown}");
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        keeper.forget();
        assert!(keeper.get(&runtime, &credential).await.unwrap_err().to_string().ends_with("it is no text"));
    }

    #[test]
    fn a_variable_is_read_from_the_environment() {
        // Cargo sets it for every test.
        let read = read(&Secret::Env("CARGO_PKG_NAME".to_owned())).unwrap();
        assert_eq!(read.reveal(), "kapell-connector");
        let missing = super::read(&Secret::Env("KAPELL_NO_SUCH_SECRET".to_owned())).unwrap_err();
        assert_eq!(missing, MissingSecret::Env("KAPELL_NO_SUCH_SECRET".to_owned()));
    }
}
