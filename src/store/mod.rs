//! All state at rest: SQLite, one writer, migrations.
//!
//! Implements the storage traits of the rooms, and what the operator does with devices. `app` and
//! `control` knock; the rooms know their own traits only. Every access is a job of the one
//! [`writer`]; what a crash costs is written there.

mod contexts;
mod devices;
mod forward;
mod learned;
mod limits;
mod metadata;
mod migrations;
mod names;
mod open;
mod outbox;
mod parked;
pub mod registry;
mod root_keys;
mod rows;
mod secrets;
mod sessions;
pub mod snapshot;
mod space;
mod stats;
mod terms;
pub mod testing;
#[cfg(test)]
mod tests;
pub mod usage;
mod writer;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};

use serde::{Deserialize, Serialize};

pub use devices::{AddError, Addition, Change, DeviceSummary, NewDevice, Taken};
pub use open::OpenError;
pub use outbox::Told;
pub use secrets::{CredentialName, KeySource};
pub use space::Room;
pub use stats::Stats;

use crate::backend::door::{Commit, StoreError};
use crate::clock::Clock;
use crate::lorawan::NetId;
use writer::Done;

/// Section `[store]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the database is.
    pub url: Url,
    /// What a power cut may cost.
    pub durability: Durability,
    /// Where the key is that keys at rest are sealed with. Default: a file `DATABASE.key`, made at
    /// the first start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<KeySource>,
    /// Megabytes of its disk that are to stay free: below it load is shed, in the order of [`Room`].
    pub reserve_mb: u32,
}

impl Default for Config {
    fn default() -> Config {
        let (url, durability) = (Url::default(), Durability::default());
        Config { url, durability, key: None, reserve_mb: 128 }
    }
}

impl Config {
    /// The folder of the database.
    pub fn folder(&self) -> PathBuf {
        self.url.path().parent().map(PathBuf::from).unwrap_or_default()
    }
}

/// `sqlite:PATH`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Url(PathBuf);

impl Url {
    /// A SQLite database at this path.
    pub fn sqlite(path: impl Into<PathBuf>) -> Url {
        Url(path.into())
    }

    /// The database file.
    pub fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Default for Url {
    fn default() -> Url {
        Url("./roamgate-data/roamgate.db".into())
    }
}

/// A database that this program cannot use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Later.
    #[error("PostgreSQL is not in this version: use url = \"sqlite:PATH\"")]
    Postgres,
    /// No path, no scheme, another scheme.
    #[error("{0:?} is no database: use url = \"sqlite:PATH\"")]
    Unknown(String),
}

impl TryFrom<String> for Url {
    type Error = UrlError;
    fn try_from(text: String) -> Result<Url, UrlError> {
        if text.starts_with("postgres:") || text.starts_with("postgresql:") {
            return Err(UrlError::Postgres);
        }
        match text.strip_prefix("sqlite:") {
            // SQLite's own words for databases that nobody finds again
            Some(path) if path.is_empty() || path.starts_with(":") || path.ends_with('/') => {
                Err(UrlError::Unknown(text))
            }
            // `sqlite:///var/...`, as other programs write an absolute path
            Some(path) => Ok(Url(path.strip_prefix("//").unwrap_or(path).into())),
            // not repeated in full: a URL may hold a password
            None => Err(UrlError::Unknown(text.chars().take_while(|c| *c != ':').take(40).collect())),
        }
    }
}

impl From<Url> for String {
    fn from(url: Url) -> String {
        url.to_string()
    }
}

impl std::str::FromStr for Url {
    type Err = UrlError;
    fn from_str(text: &str) -> Result<Url, UrlError> {
        text.to_owned().try_into()
    }
}

impl fmt::Display for Url {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "sqlite:{}", self.0.display())
    }
}

/// What a crash or power cut may cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Counters of unconfirmed uplinks of the last 30 s or 1,024 frames, undelivered frames of the last second.
    #[default]
    Balanced,
    /// Nothing.
    Strict,
}

/// The open store. Clones share it.
#[derive(Clone)]
pub struct Store {
    queue: writer::Queue,
    learned: Arc<RwLock<BTreeSet<NetId>>>,
    counters: Arc<stats::Counters>,
    space: Arc<space::Space>,
}

impl Store {
    /// Open the database, make it if there is none, and start its writer. Call it on a tokio
    /// runtime. No other process, and no other `Store`, can open it until [`Store::close`].
    pub fn open(config: &Config, clock: Clock) -> Result<Store, OpenError> {
        open::open(config, clock)
    }

    /// Make everything that was committed durable.
    pub async fn flush(&self) -> Result<(), StoreError> {
        self.queue.run(true, |_| Ok(((), Done::new(Commit::Durable)))).await
    }

    /// Finish what has queued, make it durable, close the file and give up its lock. Other clones
    /// then find the store closed.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.queue.close().await
    }

    /// What was written so far.
    pub fn stats(&self) -> Stats {
        self.counters.read()
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("Store(..)")
    }
}
