//! Is there a newer version? Somebody publishes a small file that says which is the newest; this asks for it.
//!
//! Installs nothing: an image has RAUC, a Debian has apt, and both check who has signed what they take (docs/updates.md).

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::clock::Clock;
use crate::tls::{self, Roots, TlsError};

const PATIENCE: Duration = Duration::from_secs(20);
/// The file is a few lines.
const LONGEST: usize = 16 << 10;

/// Section `[update]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the file is: `https://HOST/newest.json`.
    pub url: String,
    /// PEM files of the roots that may vouch for the server: never the system's.
    pub roots: Vec<PathBuf>,
}

impl Config {
    /// The address, where it is one that can be believed.
    pub fn address(&self) -> Result<Url, UpdateError> {
        match self.url.parse::<Url>() {
            Ok(url) if url.scheme() == "https" && url.has_host() => Ok(url),
            _ => Err(UpdateError::Address(self.url.clone())),
        }
    }
}

/// What is published, as JSON: `{ "version": "0.2.0", "notes": "https://…", "bundle": "https://…" }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Newest {
    /// The newest version.
    pub version: Version,
    /// What is new in it, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<Url>,
    /// The bundle that RAUC installs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<Url>,
}

/// `MAJOR.MINOR.PATCH` of Semantic Versioning, and nothing behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version([u32; 3]);

impl Version {
    /// Of this program.
    pub fn ours() -> Version {
        // cargo has parsed it
        env!("CARGO_PKG_VERSION").to_owned().try_into().unwrap_or(Version([0; 3]))
    }
}

impl TryFrom<String> for Version {
    type Error = String;

    fn try_from(text: String) -> Result<Version, String> {
        let wrong = || format!("not a version: {:?}", text.chars().take(40).collect::<String>());
        // a sign is no digit, and `parse` would take it
        let number =
            |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())?;
        let parts: Option<Vec<u32>> = text.split('.').map(number).collect();
        parts.and_then(|parts| parts.try_into().ok()).map(Version).ok_or_else(wrong)
    }
}

impl From<Version> for String {
    fn from(version: Version) -> String {
        version.to_string()
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Version([major, minor, patch]) = self;
        write!(to, "{major}.{minor}.{patch}")
    }
}

/// Why nobody knows.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// The address in the configuration.
    #[error("not an address: {0}; https://HOST/FILE is wanted")]
    Address(String),
    /// The roots in the configuration.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The server is not there, or is another than the roots vouch for.
    #[error("{0}")]
    Unreached(String),
    /// What came is no such file.
    #[error("what is published cannot be understood: {0}")]
    Answer(String),
}

/// Ask what the newest version is.
pub async fn newest(config: &Config, clock: &Clock) -> Result<Newest, UpdateError> {
    let tls = tls::service_config(&Roots::load(&config.roots)?, None, clock)?;
    let unreached = |error: reqwest::Error| {
        let whole = anyhow::Error::new(error);
        UpdateError::Unreached(format!("{whole:#}"))
    };
    let http = reqwest::Client::builder()
        .timeout(PATIENCE)
        .no_proxy()
        .referer(false)
        .redirect(reqwest::redirect::Policy::none())
        .https_only(true)
        .tls_backend_preconfigured(tls)
        .build()
        .map_err(unreached)?;
    let sent = http.get(config.address()?).send().await.and_then(reqwest::Response::error_for_status);
    let mut response = sent.map_err(unreached)?;
    if response.status() != reqwest::StatusCode::OK {
        return Err(UpdateError::Answer(format!("HTTP status {}", response.status())));
    }
    let mut text = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreached)? {
        text.extend_from_slice(&chunk);
        if text.len() > LONGEST {
            return Err(UpdateError::Answer(format!("more than {LONGEST} bytes")));
        }
    }
    read(&text)
}

/// What is published. Foreign bytes.
pub fn read(text: &[u8]) -> Result<Newest, UpdateError> {
    serde_json::from_slice(text).map_err(|error| UpdateError::Answer(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_numbers() {
        let version = |text: &str| Version::try_from(text.to_owned());
        assert!(version("0.10.0").unwrap() > version("0.9.12").unwrap());
        assert_eq!(version("1.2.3").unwrap().to_string(), "1.2.3");
        for wrong in ["", "1.2", "1.2.3.4", "1.2.x", "+1.2.3", "1..3", "1.2.3-rc1", "99999999999.0.0"] {
            assert!(version(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Version::ours().to_string(), env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn what_is_published_is_read_or_refused() {
        let newest =
            read(br#"{ "version": "2.0.0", "bundle": "https://roamgate.example/2.raucb" }"#).unwrap();
        assert_eq!(newest.version, Version([2, 0, 0]));
        assert_eq!(newest.bundle.unwrap().path(), "/2.raucb");
        // what a later version of the file may have more does not matter
        assert!(read(br#"{ "version": "2.0.0", "since": 2026 }"#).is_ok());
        for wrong in ["", "[]", "{}", r#"{ "version": 2 }"#, r#"{ "version": "2.0.0", "bundle": "file" }"#] {
            assert!(matches!(read(wrong.as_bytes()), Err(UpdateError::Answer(_))), "{wrong}");
        }
    }
}
