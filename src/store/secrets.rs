//! Keys at rest: everything secret is sealed under one key that lies outside the database.
//!
//! XChaCha20-Poly1305 with a random nonce, and the place of the value (table, column, row) as
//! associated data: a ciphertext that somebody moved to another row does not open. Whoever has the
//! database alone, a backup or an SD card image without the sealing key, has no keys.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::open::{beside, sync_folder};
use super::writer::{Db, Done, Fault};
use super::{OpenError, Store};
use crate::backend::door::{Commit, StoreError};
use crate::clock::Clock;
use crate::lorawan::Key;

const NONCE: usize = 24;

/// Where the sealing key comes from: 32 bytes, or 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeySource {
    /// `{ file = "PATH" }`
    File(PathBuf),
    /// `{ credential = "NAME" }`: a systemd credential (`LoadCredential=`, `LoadCredentialEncrypted=`).
    Credential(CredentialName),
}

/// The name of a systemd credential: a plain file name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CredentialName(String);

impl TryFrom<String> for CredentialName {
    type Error = String;
    fn try_from(name: String) -> Result<CredentialName, String> {
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
            return Err(format!("{name:?} is no name of a systemd credential"));
        }
        Ok(CredentialName(name))
    }
}

impl From<CredentialName> for String {
    fn from(name: CredentialName) -> String {
        name.0
    }
}

/// A sealed value that does not open.
#[derive(Debug, thiserror::Error)]
pub(super) enum SealError {
    #[error("the sealed value at {0} was changed, moved from another row, or sealed with another key")]
    Refused(Place),
    #[error("the sealed value at {0} has another length than it should")]
    Length(Place),
    #[error("cannot seal {0}")]
    Seal(Place),
}

/// Where a sealed value is: table, column, row.
#[derive(Debug)]
pub(super) struct Place(String);

impl Place {
    pub fn new(table: &str, column: &str, row: impl fmt::Display) -> Place {
        Place(format!("{table}/{column}/{row}"))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.0)
    }
}

/// Seals and opens.
pub(super) struct Seal {
    // The one copy of the key that stays: made once, never cloned, never moved.
    cipher: Box<XChaCha20Poly1305>,
    clock: Clock,
}

impl Seal {
    pub fn new(key: &Zeroizing<[u8; 32]>, clock: Clock) -> Seal {
        Seal { cipher: Box::new(XChaCha20Poly1305::new((&**key).into())), clock }
    }

    /// Time and chance of what is written.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Nonce, ciphertext, tag.
    pub fn seal(&self, place: &Place, clear: &[u8]) -> Result<Vec<u8>, SealError> {
        let nonce: [u8; NONCE] = self.clock.random();
        let payload = Payload { msg: clear, aad: place.0.as_bytes() };
        let sealed = self.cipher.encrypt(&XNonce::from(nonce), payload);
        let sealed = sealed.map_err(|_| SealError::Seal(Place(place.0.clone())))?;
        Ok([&nonce[..], &sealed].concat())
    }

    pub fn open(&self, place: &Place, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let refused = || SealError::Refused(Place(place.0.clone()));
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE>().ok_or_else(refused)?;
        let payload = Payload { msg: sealed, aad: place.0.as_bytes() };
        self.cipher.decrypt(&XNonce::from(*nonce), payload).map(Zeroizing::new).map_err(|_| refused())
    }

    /// Open 128 bits of key.
    pub fn open_key(&self, place: &Place, sealed: &[u8]) -> Result<Key, SealError> {
        Key::from_slice(&self.open(place, sealed)?).ok_or_else(|| SealError::Length(Place(place.0.clone())))
    }
}

/// Find the sealing key; without a source it lies beside the database and is made at the first
/// start.
pub(super) fn sealing_key(
    source: Option<&KeySource>,
    database: &Path,
    sealed_before: bool,
    clock: &Clock,
) -> Result<Zeroizing<[u8; 32]>, OpenError> {
    match source {
        Some(KeySource::File(path)) => read_key(path),
        Some(KeySource::Credential(name)) => {
            let folder = std::env::var_os("CREDENTIALS_DIRECTORY");
            let folder = folder.ok_or_else(|| OpenError::NoCredentials { name: name.0.clone() })?;
            read_key(&Path::new(&folder).join(&name.0))
        }
        None => {
            let path = beside(database, ".key");
            match read_key(&path) {
                Err(OpenError::KeyFile { source, .. })
                    if source.kind() == ErrorKind::NotFound && !sealed_before =>
                {
                    make_key(&path, clock).map_err(|source| OpenError::KeyFile { path: path.clone(), source })
                }
                found => found,
            }
        }
    }
}

fn read_key(path: &Path) -> Result<Zeroizing<[u8; 32]>, OpenError> {
    let failed = |source| OpenError::KeyFile { path: path.into(), source };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        let mode = format!("{:o}", mode & 0o777);
        tracing::warn!(path = %path.display(), mode, "others may read the sealing key: chmod 600");
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(128));
    file.take(128).read_to_end(&mut bytes).map_err(failed)?;
    let mut key = Zeroizing::new([0; 32]);
    let decoded = if bytes.len() == key.len() {
        key.copy_from_slice(&bytes);
        true
    } else {
        hex::decode_to_slice(bytes.trim_ascii(), &mut *key).is_ok()
    };
    if decoded { Ok(key) } else { Err(OpenError::KeyShape { path: path.into() }) }
}

/// Make a key file that is either whole and on the disk, or not there.
fn make_key(path: &Path, clock: &Clock) -> std::io::Result<Zeroizing<[u8; 32]>> {
    let key = Zeroizing::new(clock.random::<32>());
    let mut text = Zeroizing::new([0; 65]);
    // cannot fail: two digits a byte
    let _ = hex::encode_to_slice(key.as_slice(), &mut text[..64]);
    text[64] = b'\n';
    let draft = beside(path, ".new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(&*text)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    sync_folder(path)?;
    tracing::info!(path = %path.display(), "made the sealing key: keep a copy of it with every backup");
    Ok(key)
}

const CHECK: &[u8] = b"roamgate";

/// The value that tells whether this is the key that the database was sealed with.
pub(super) fn read_check(sql: &Connection) -> rusqlite::Result<Option<Vec<u8>>> {
    sql.query_row("SELECT value FROM meta WHERE name = 'sealing check'", [], |row| row.get(0)).optional()
}

pub(super) fn check(sql: &Connection, seal: &Seal, path: &Path) -> Result<(), OpenError> {
    let place = Place::new("meta", "value", "sealing check");
    let failed = |source| OpenError::Sqlite { path: path.into(), source };
    match read_check(sql).map_err(failed)? {
        Some(sealed) => {
            let opened = seal.open(&place, &sealed).is_ok_and(|clear| *clear == CHECK);
            if opened { Ok(()) } else { Err(OpenError::WrongKey { path: path.into() }) }
        }
        None => {
            let sealed = seal.seal(&place, CHECK).map_err(|_| OpenError::WrongKey { path: path.into() })?;
            let insert = "INSERT INTO meta (name, value) VALUES ('sealing check', ?1)";
            sql.execute(insert, [sealed]).map(drop).map_err(failed)
        }
    }
}

impl Store {
    /// 32 random bytes of this installation under a name: made at first use, the same ever after.
    pub async fn secret(&self, name: &str) -> Result<[u8; 32], StoreError> {
        let name = name.to_owned();
        let secret = self.queue.run(true, move |db| secret(db, &name)).await?;
        Ok(*secret)
    }
}

fn secret(db: &Db<'_>, name: &str) -> Result<(Zeroizing<[u8; 32]>, Done), Fault> {
    let place = Place::new("secrets", "secret", name);
    let mut select = db.sql.prepare_cached("SELECT secret FROM secrets WHERE name = ?1")?;
    let found: Option<Vec<u8>> = select.query_row([name], |row| row.get(0)).optional()?;
    if let Some(sealed) = found {
        let clear = db.seal.open(&place, &sealed)?;
        let secret = <[u8; 32]>::try_from(&clear[..]).map_err(|_| SealError::Length(place))?;
        return Ok((Zeroizing::new(secret), Done::new(Commit::Nothing)));
    }
    let secret = Zeroizing::new(db.seal.clock.random::<32>());
    let sealed = db.seal.seal(&place, &*secret)?;
    db.run("INSERT INTO secrets (name, secret) VALUES (?1, ?2)", (name, sealed))?;
    Ok((secret, Done::new(Commit::Durable)))
}
