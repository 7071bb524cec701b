//! Where backups are kept: a folder, a bucket, a partner's hotspot. The newest few stay, older ones go; nothing else there is touched.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rusty_s3::actions::ListObjectsV2;
use rusty_s3::{Credentials, S3Action, UrlStyle};
use serde::{Deserialize, Serialize};
use url::Url;

use super::Config;
use crate::backend::door::Boxed;
use crate::clock::Clock;
use crate::lorawan::NetId;
use crate::tls;

/// Every backup's name begins and ends so.
const BEGIN: &str = "roamgate-";
const END: &str = ".age";
/// A request to a bucket takes so long at most: a slow line, a long file.
const PATIENCE: Duration = Duration::from_secs(1800);
/// A signed address serves so long.
const SIGNED: Duration = Duration::from_secs(3600);

/// `[backup] s3`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bucket {
    /// Where: `https://HOST`.
    pub endpoint: String,
    /// The bucket.
    pub bucket: String,
    /// What stands in front of names in it, such as `attic/`.
    #[serde(default)]
    pub prefix: String,
    /// Its region.
    #[serde(default = "anywhere")]
    pub region: String,
    /// Whose account.
    pub access_key: String,
    /// File with the account's secret.
    pub secret_file: PathBuf,
    /// PEM file of the roots that may vouch for the server: never the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

fn anywhere() -> String {
    "us-east-1".into()
}

/// Why a backup is not where it ought to be.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// Of the file system.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Of the configuration.
    #[error("[backup] s3: {0}")]
    Setup(String),
    /// The bucket said no, or nothing.
    #[error("the bucket: {0}")]
    Bucket(String),
    /// The partner said no, or nothing.
    #[error("{0}")]
    Partner(String),
}

/// Brings a backup to a partner.
pub trait Bring: Send + Sync {
    /// In words why it is not there.
    fn bring<'a>(&'a self, to: NetId, name: &'a str, file: Vec<u8>) -> Boxed<'a, Result<(), String>>;
}

/// A place.
pub enum Shelf {
    /// A folder.
    Directory(PathBuf),
    /// A bucket.
    S3(Box<S3>),
    /// A partner, and who brings them there.
    Partner(NetId, Arc<dyn Bring>),
}

impl Shelf {
    /// Whether it is on the same disk as this folder.
    pub fn is_here(&self, folder: &Path) -> bool {
        let disk =
            |path: &Path| std::fs::metadata(path).ok().map(|it| std::os::unix::fs::MetadataExt::dev(&it));
        match self {
            Shelf::Directory(path) => disk(path).is_some_and(|of| Some(of) == disk(folder)),
            Shelf::S3(_) | Shelf::Partner(..) => false,
        }
    }
}

impl fmt::Display for Shelf {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shelf::Directory(path) => path.display().fmt(to),
            Shelf::S3(s3) => s3.bucket.base_url().fmt(to),
            Shelf::Partner(net_id, _) => write!(to, "NetID {net_id}"),
        }
    }
}

/// The name of a backup: those of one node stand together, in the order of time.
pub fn name(net_id: &str, made: Timestamp) -> String {
    format!("{BEGIN}{net_id}-{}{END}", made.strftime("%Y%m%dT%H%M%SZ"))
}

/// Whether a backup of this node may be called so.
pub fn is_of(name: &str, net_id: &str) -> bool {
    let middle = name.strip_prefix(BEGIN).and_then(|name| name.strip_prefix(net_id));
    let time = middle.and_then(|name| name.strip_prefix('-')?.strip_suffix(END));
    time.is_some_and(|time| jiff::fmt::strtime::parse("%Y%m%dT%H%M%SZ", time).is_ok() && time.len() == 16)
}

/// Of these names, the backups of a node that are too many: all but the newest `keep`.
pub fn too_many(names: impl IntoIterator<Item = String>, net_id: &str, keep: usize) -> Vec<String> {
    let mut ours: Vec<String> = names.into_iter().filter(|name| is_of(name, net_id)).collect();
    ours.sort_unstable();
    ours.truncate(ours.len().saturating_sub(keep));
    ours
}

impl Shelf {
    /// Every place that the configuration names. `bring`: the way to partners, where there is one.
    pub fn all(
        config: &Config,
        bring: Option<&Arc<dyn Bring>>,
        clock: &Clock,
    ) -> Result<Vec<Shelf>, ShelfError> {
        let mut all: Vec<Shelf> = config.directory.iter().cloned().map(Shelf::Directory).collect();
        if let Some(bucket) = &config.s3 {
            all.push(Shelf::S3(Box::new(S3::new(bucket, clock.clone())?)));
        }
        if let (Some(partner), Some(bring)) = (config.partner, bring) {
            all.push(Shelf::Partner(partner, bring.clone()));
        }
        Ok(all)
    }

    /// Put one there.
    pub async fn put(&self, name: &str, bytes: &[u8]) -> Result<(), ShelfError> {
        match self {
            Shelf::Directory(folder) => {
                let (folder, name, bytes) = (folder.clone(), name.to_owned(), bytes.to_vec());
                let written = tokio::task::spawn_blocking(move || write(&folder, &name, &bytes)).await;
                written.unwrap_or_else(|error| Err(ShelfError::Setup(error.to_string())))
            }
            Shelf::S3(s3) => s3.put(name, bytes).await,
            Shelf::Partner(partner, by) => {
                by.bring(*partner, name, bytes.to_vec()).await.map_err(ShelfError::Partner)
            }
        }
    }

    /// Remove a node's oldest, so that `keep` stay.
    pub async fn tidy(&self, net_id: &str, keep: usize) -> Result<(), ShelfError> {
        let names = match self {
            Shelf::Directory(folder) => {
                let failed = |source| ShelfError::File { path: folder.clone(), source };
                let entries = std::fs::read_dir(folder).map_err(failed)?;
                entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
            }
            Shelf::S3(s3) => s3.names().await?,
            // it does so itself
            Shelf::Partner(..) => return Ok(()),
        };
        for name in too_many(names, net_id, keep) {
            match self {
                Shelf::Directory(folder) => {
                    let path = folder.join(name);
                    std::fs::remove_file(&path).map_err(|source| ShelfError::File { path, source })?;
                }
                Shelf::S3(s3) => s3.remove(&name).await?,
                Shelf::Partner(..) => {}
            }
        }
        Ok(())
    }
}

/// A file that is there whole or not at all, also after a power cut.
pub fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), ShelfError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ShelfError::File { path, source }
    };
    // a stick that is not there must not be a folder on the SD card
    if !folder.is_dir() {
        let source = io::Error::new(io::ErrorKind::NotFound, "there is no such folder; is it mounted?");
        return Err(ShelfError::File { path: folder.to_owned(), source });
    }
    let (fresh, path) = (folder.join(format!(".{name}.new")), folder.join(name));
    let mut file = std::fs::File::create(&fresh).map_err(failed(&fresh))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed(&fresh))?;
    std::fs::rename(&fresh, &path).map_err(failed(&path))?;
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed(folder))
}

/// A bucket that can be asked.
pub struct S3 {
    bucket: rusty_s3::Bucket,
    credentials: Credentials,
    prefix: String,
    http: reqwest::Client,
    clock: Clock,
}

impl S3 {
    fn new(config: &Bucket, clock: Clock) -> Result<S3, ShelfError> {
        let setup = |error: String| ShelfError::Setup(error);
        let url: Url = config.endpoint.parse().map_err(|error| setup(format!("endpoint: {error}")))?;
        let secret = std::fs::read_to_string(&config.secret_file);
        let path = config.secret_file.clone();
        let secret = secret.map_err(|source| ShelfError::File { path, source })?;
        let style = UrlStyle::Path;
        let bucket = rusty_s3::Bucket::new(url, style, config.bucket.clone(), config.region.clone());
        let bucket = bucket.map_err(|error| setup(error.to_string()))?;
        let credentials = Credentials::new(config.access_key.clone(), secret.trim().to_owned());
        tls::install_provider();
        let builder = reqwest::Client::builder().timeout(PATIENCE).referer(false).no_proxy();
        let builder = builder.redirect(reqwest::redirect::Policy::none());
        let roots = match &config.ca {
            Some(path) => {
                let pem = std::fs::read(path);
                let pem = pem.map_err(|source| ShelfError::File { path: path.clone(), source })?;
                reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| setup(error.to_string()))?
            }
            None => Vec::new(),
        };
        let http = builder.tls_certs_only(roots).build().map_err(|error| setup(error.to_string()))?;
        Ok(S3 { bucket, credentials, prefix: config.prefix.clone(), http, clock })
    }

    fn at(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> Result<String, ShelfError> {
        let failed = |error: reqwest::Error| {
            let why = tls::explain(&error).unwrap_or_else(|| error.without_url().to_string());
            ShelfError::Bucket(why)
        };
        let response = request.send().await.map_err(failed)?;
        let status = response.status();
        let text = response.text().await.map_err(failed)?;
        match status.is_success() {
            true => Ok(text),
            false => {
                let said: String = text.chars().filter(|c| !c.is_control()).take(300).collect();
                Err(ShelfError::Bucket(format!("{status} {said}")))
            }
        }
    }

    async fn put(&self, name: &str, bytes: &[u8]) -> Result<(), ShelfError> {
        let at = self.at(name);
        let action = self.bucket.put_object(Some(&self.credentials), &at);
        let url = action.sign_with_time(SIGNED, &self.clock.wall());
        self.answer(self.http.put(url).body(bytes.to_vec())).await.map(drop)
    }

    async fn names(&self) -> Result<Vec<String>, ShelfError> {
        let mut action = self.bucket.list_objects_v2(Some(&self.credentials));
        action.with_prefix(self.prefix.as_str());
        let url = action.sign_with_time(SIGNED, &self.clock.wall());
        let text = self.answer(self.http.get(url)).await?;
        let listed = ListObjectsV2::parse_response(&text);
        let listed = listed.map_err(|error| ShelfError::Bucket(format!("its list: {error}")))?;
        let names = listed.contents.into_iter();
        Ok(names.filter_map(|object| object.key.strip_prefix(&self.prefix).map(ToOwned::to_owned)).collect())
    }

    async fn remove(&self, name: &str) -> Result<(), ShelfError> {
        let at = self.at(name);
        let action = self.bucket.delete_object(Some(&self.credentials), &at);
        let url = action.sign_with_time(SIGNED, &self.clock.wall());
        self.answer(self.http.delete(url)).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_stay_and_nothing_else_is_touched() {
        let at = |day: i8| name("C00ABC", jiff::civil::date(2026, 11, day).in_tz("UTC").unwrap().timestamp());
        assert_eq!(at(3), "roamgate-C00ABC-20261103T000000Z.age");
        let other = name("C00ABD", Timestamp::UNIX_EPOCH);
        let strangers = ["roamgate-C00ABC-notes.age".to_owned(), "holiday.jpg".into(), other];
        assert!(!strangers.iter().any(|name| is_of(name, "C00ABC")) && is_of(&at(3), "C00ABC"));
        let names = || (1..=5).map(at).chain(strangers.clone());
        assert_eq!(too_many(names(), "C00ABC", 3), [at(1), at(2)]);
        assert_eq!(too_many(names(), "C00ABC", 5), Vec::<String>::new());
        assert_eq!(too_many(names(), "C00ABC", 0).len(), 5);
    }

    #[tokio::test]
    async fn a_folder_that_is_not_there_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::Directory(folder.path().join("stick"));
        let error = shelf.put("x", b"y").await.unwrap_err().to_string();
        assert!(error.contains("is it mounted"), "{error}");
        let shelf = Shelf::Directory(folder.path().to_owned());
        for second in 0..4 {
            let made = Timestamp::from_second(1_790_000_000 + second).unwrap();
            shelf.put(&name("C00ABC", made), b"y").await.unwrap();
            shelf.tidy("C00ABC", 2).await.unwrap();
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
