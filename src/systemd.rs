//! What the service manager wants to hear from us and gives to us.
//!
//! Owns readiness, the watchdog, stopping, and secrets handed over as credentials. Crate `systemd` is
//! named here only, behind the feature of that name; without it the messages go nowhere.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Where a secret is. The secret itself never stands in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Secret {
    /// `{ file = "/path" }`
    File(PathBuf),
    /// `{ credential = "name" }`: a credential of the service (`LoadCredential=` in the unit).
    Credential(String),
}

/// A secret that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The operator's move.
    #[error("cannot read the secret {path}")]
    Read {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The operator's move: started by hand, or the unit has no `LoadCredential=`.
    #[error("no credential {0:?}: the service manager gave none (CREDENTIALS_DIRECTORY is not set)")]
    NoCredentials(String),
    /// The operator's move.
    #[error("{0:?} is no name of a credential: a plain file name is")]
    Name(String),
}

impl Secret {
    /// Where its bytes are.
    pub fn path(&self) -> Result<PathBuf, SecretError> {
        match self {
            Secret::File(path) => Ok(path.clone()),
            Secret::Credential(name) if name.is_empty() || name.contains('/') || name.starts_with('.') => {
                Err(SecretError::Name(name.clone()))
            }
            Secret::Credential(name) => match std::env::var_os("CREDENTIALS_DIRECTORY") {
                Some(folder) => Ok(PathBuf::from(folder).join(name)),
                None => Err(SecretError::NoCredentials(name.clone())),
            },
        }
    }

    /// Its bytes, wiped when dropped.
    pub fn read(&self) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let path = self.path()?;
        let read = std::fs::read(&path).map(Zeroizing::new);
        read.map_err(|source| SecretError::Read { path, source })
    }
}

/// The start is complete; `status` is the line that `systemctl status` shows.
pub fn ready(status: &str) {
    // one line, and no byte that would end a C string
    let status: String = status.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    tell(&[("READY", "1"), ("STATUS", &status)]);
}

/// The stop has begun.
pub fn stopping() {
    tell(&[("STOPPING", "1")]);
}

/// Alive: to be said at least every [`watchdog`].
pub fn alive() {
    tell(&[("WATCHDOG", "1")]);
}

/// How often [`alive`] must be said, where the unit asks for it: half of `WatchdogSec=`.
#[cfg(feature = "systemd")]
pub fn watchdog() -> Option<Duration> {
    let micros = systemd::daemon::watchdog_enabled().ok().filter(|micros| *micros > 0)?;
    Some(Duration::from_micros(micros / 2))
}

/// How often [`alive`] must be said: never, this program was built without the service manager.
#[cfg(not(feature = "systemd"))]
pub fn watchdog() -> Option<Duration> {
    None
}

#[cfg(feature = "systemd")]
fn tell(state: &[(&str, &str)]) {
    // Nobody to tell (started by hand) is no error.
    if let Err(error) = systemd::daemon::notify(state.iter()) {
        tracing::debug!(%error, "sd_notify");
    }
}

#[cfg(not(feature = "systemd"))]
fn tell(_: &[(&str, &str)]) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_from_its_file_and_a_credential_is_a_plain_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kek");
        std::fs::write(&path, b"0123").unwrap();
        assert_eq!(&**Secret::File(path).read().unwrap(), b"0123");
        assert!(matches!(Secret::Credential("../shadow".into()).read(), Err(SecretError::Name(_))));
    }
}
