//! The file: an age stream (the format of age-encryption.org/v1) around a gzip stream around a tar archive. Version 1.
//!
//! `about.json` comes first and says what follows; `database.db`, `sealing-key`, `config.toml` and `files/N`. Nothing outside is needed to
//! open it but the key, and `age -d -i KEY FILE | tar -xz` does it without us.

use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use age::secrecy::{ExposeSecret, SecretString};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Of the file.
const VERSION: u32 = 1;
/// Bytes of one part that are read at most.
const LONGEST: u64 = 4 << 30;
/// Files that a configuration can name.
const MOST_FILES: usize = 1000;

/// What is in a backup.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// When it was made, seconds since 1970.
    pub made: u64,
    /// NetIDs of the node, for people.
    pub net_ids: Vec<String>,
    /// Where the configuration was, and its text.
    pub config: Option<(PathBuf, String)>,
    /// The database, as one file.
    pub database: Vec<u8>,
    /// What its keys are sealed with, hex digits.
    pub sealing_key: Zeroizing<String>,
    /// Other files that the configuration names, each with whether it is secret.
    pub files: Vec<Kept>,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Where it was.
    pub path: PathBuf,
    /// Only its owner may read it.
    pub secret: bool,
    /// What is in it.
    pub bytes: Zeroizing<Vec<u8>>,
}

/// `about.json`.
#[derive(Debug, Serialize, Deserialize)]
struct About {
    version: u32,
    made: u64,
    program: String,
    net_ids: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<PathBuf>,
    files: Vec<AboutFile>,
}

#[derive(Debug, Serialize, Deserialize)]
struct AboutFile {
    path: PathBuf,
    secret: bool,
}

/// Whoever can open a backup: `age1…`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Recipient(age::x25519::Recipient);

impl fmt::Debug for Recipient {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, to)
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(to)
    }
}

impl FromStr for Recipient {
    type Err = String;

    fn from_str(text: &str) -> Result<Recipient, String> {
        let wrong = || "a recipient of age is written age1…: `roamgate backup key` makes one".to_owned();
        text.trim().parse().map(Recipient).map_err(|_| wrong())
    }
}

impl TryFrom<String> for Recipient {
    type Error = String;

    fn try_from(text: String) -> Result<Recipient, String> {
        text.parse()
    }
}

impl From<Recipient> for String {
    fn from(recipient: Recipient) -> String {
        recipient.to_string()
    }
}

/// What opens a backup.
#[derive(Clone)]
pub enum Opener {
    /// The key of a recipient: `AGE-SECRET-KEY-1…`.
    Key(age::x25519::Identity),
    /// What it was locked with.
    Passphrase(SecretString),
}

impl Opener {
    /// From a key file: one key on a line, `#` in front of remarks.
    pub fn from_file(text: &str) -> Result<Opener, ArchiveError> {
        let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
        line.and_then(|line| line.parse().ok()).map(Opener::Key).ok_or(ArchiveError::KeyFile)
    }

    /// A passphrase.
    pub fn passphrase(text: &str) -> Opener {
        Opener::Passphrase(passphrase(text))
    }
}

/// A passphrase, whether or not the line has an end.
fn passphrase(text: &str) -> SecretString {
    text.trim_end_matches(['\r', '\n']).to_owned().into()
}

/// A new key: the text of its file, and who can be named as a recipient then.
pub fn new_key() -> (Zeroizing<String>, Recipient) {
    // age takes its randomness from the system itself; it offers no other way
    let key = age::x25519::Identity::generate();
    let recipient = key.to_public();
    let secret = key.to_string();
    let text = format!("# opens what is locked for {recipient}\n{}\n", secret.expose_secret());
    (Zeroizing::new(text), Recipient(recipient))
}

/// How a backup is locked.
pub enum Lock {
    /// For these; one at least.
    Recipients(Vec<Recipient>),
    /// With a passphrase.
    Passphrase(SecretString),
}

impl Lock {
    /// A passphrase.
    pub fn passphrase(text: &str) -> Lock {
        Lock::Passphrase(passphrase(text))
    }
}

/// Why a backup was not written or read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Of the file system, or of a file that was cut off.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Nobody could open it.
    #[error("a backup is locked for somebody: name a recipient")]
    Nobody,
    /// No key in a key file.
    #[error("no key of age (AGE-SECRET-KEY-1…) in the key file")]
    KeyFile,
    /// Another key, another passphrase, or no backup.
    #[error("it does not open: {0}")]
    Closed(#[from] age::DecryptError),
    /// Locking.
    #[error("it cannot be locked: {0}")]
    Lock(#[from] age::EncryptError),
    /// A later program's.
    #[error("it is a backup of version {0}, and this program knows {VERSION}: use a newer one")]
    Newer(u32),
    /// Not what a backup has inside.
    #[error("it opens, and is no backup: {0}")]
    Shape(String),
}

/// Write a backup.
pub fn pack(contents: &Contents, lock: Lock, to: impl Write) -> Result<(), ArchiveError> {
    let encryptor = match lock {
        Lock::Recipients(all) if all.is_empty() => return Err(ArchiveError::Nobody),
        Lock::Recipients(all) => {
            age::Encryptor::with_recipients(all.iter().map(|one| &one.0 as &dyn age::Recipient))?
        }
        Lock::Passphrase(text) => age::Encryptor::with_user_passphrase(text),
    };
    let gzip = GzEncoder::new(encryptor.wrap_output(to)?, Compression::default());
    let mut tar = tar::Builder::new(gzip);
    let file = |kept: &Kept| AboutFile { path: kept.path.clone(), secret: kept.secret };
    let about = About {
        version: VERSION,
        made: contents.made,
        program: env!("CARGO_PKG_VERSION").into(),
        net_ids: contents.net_ids.clone(),
        config: contents.config.as_ref().map(|(path, _)| path.clone()),
        files: contents.files.iter().map(file).collect(),
    };
    let about = serde_json::to_vec_pretty(&about).map_err(|error| ArchiveError::Shape(error.to_string()))?;
    let mut add = |name: String, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(contents.made);
        tar.append_data(&mut header, name, bytes)
    };
    add("about.json".into(), &about)?;
    if let Some((_, text)) = &contents.config {
        add("config.toml".into(), text.as_bytes())?;
    }
    add("sealing-key".into(), contents.sealing_key.as_bytes())?;
    add("database.db".into(), &contents.database)?;
    for (n, kept) in contents.files.iter().enumerate() {
        add(format!("files/{n}"), &kept.bytes)?;
    }
    // each layer has an end of its own; without the last it would look cut off
    tar.into_inner()?.finish()?.finish()?.flush()?;
    Ok(())
}

/// Read a backup. Foreign bytes: whatever is wrong with them, nothing of them is used.
pub fn unpack(from: impl Read, opener: &Opener) -> Result<Contents, ArchiveError> {
    let decryptor = age::Decryptor::new(from)?;
    let stream = match opener {
        Opener::Key(key) => decryptor.decrypt(std::iter::once(key as &dyn age::Identity))?,
        Opener::Passphrase(text) => {
            let identity = age::scrypt::Identity::new(text.clone());
            decryptor.decrypt(std::iter::once(&identity as &dyn age::Identity))?
        }
    };
    read(GzDecoder::new(stream))
}

/// The archive inside.
pub fn read(stream: impl Read) -> Result<Contents, ArchiveError> {
    let shape = |what: &str| ArchiveError::Shape(what.to_owned());
    let mut tar = tar::Archive::new(stream);
    let mut parts = tar.entries()?.map(|entry| {
        let entry = entry?;
        let name = entry.path()?.to_string_lossy().into_owned();
        let size = entry.size();
        if size > LONGEST {
            return Err(ArchiveError::Shape(format!("{name} is too long")));
        }
        let mut bytes = Zeroizing::new(Vec::new());
        entry.take(LONGEST).read_to_end(&mut bytes)?;
        Ok((name, bytes))
    });
    let mut next = |wanted: &str| match parts.next() {
        Some(Ok((name, bytes))) if name == wanted => Ok(bytes),
        Some(Ok((name, _))) => Err(ArchiveError::Shape(format!("{name} stands where {wanted} has to"))),
        Some(Err(error)) => Err(error),
        None => Err(ArchiveError::Shape(format!("{wanted} is missing"))),
    };
    let about = next("about.json")?;
    let version: Version = serde_json::from_slice(&about).map_err(|error| shape(&error.to_string()))?;
    if version.version > VERSION {
        return Err(ArchiveError::Newer(version.version));
    }
    let about: About = serde_json::from_slice(&about).map_err(|error| shape(&error.to_string()))?;
    if about.files.len() > MOST_FILES {
        return Err(shape("it names too many files"));
    }
    let text = |bytes: &[u8], what: &str| {
        std::str::from_utf8(bytes).map(ToOwned::to_owned).map_err(|_| shape(&format!("{what} is no text")))
    };
    let config = match about.config {
        Some(path) => Some((path, text(&next("config.toml")?, "config.toml")?)),
        None => None,
    };
    let sealing_key = Zeroizing::new(text(&next("sealing-key")?, "sealing-key")?);
    let database = std::mem::take(&mut *next("database.db")?);
    let mut files = Vec::new();
    for (n, AboutFile { path, secret }) in about.files.into_iter().enumerate() {
        files.push(Kept { path, secret, bytes: next(&format!("files/{n}"))? });
    }
    // the stream's own end, so that one that was cut off is not taken for whole
    if let Some(part) = parts.next() {
        return Err(ArchiveError::Shape(format!("{} is one too many", part?.0)));
    }
    let (made, net_ids) = (about.made, about.net_ids);
    Ok(Contents { made, net_ids, config, database, sealing_key, files })
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// A file as it is now, for a backup.
pub fn keep(path: &Path, secret: bool) -> io::Result<Kept> {
    Ok(Kept { path: path.to_owned(), secret, bytes: Zeroizing::new(std::fs::read(path)?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents() -> Contents {
        Contents {
            made: 1_790_000_000,
            net_ids: vec!["C00ABC".into()],
            config: Some(("/etc/roamgate/roamgate.toml".into(), "[network]\n".into())),
            database: vec![7; 100_000],
            sealing_key: Zeroizing::new("ab".repeat(32)),
            files: vec![Kept {
                path: "/etc/roamgate/key.pem".into(),
                secret: true,
                bytes: Zeroizing::new(b"secret".to_vec()),
            }],
        }
    }

    #[test]
    fn what_is_packed_comes_out_with_the_right_key_only() {
        let ((text, recipient), (other, _)) = (new_key(), new_key());
        let mut packed = Vec::new();
        pack(&contents(), Lock::Recipients(vec![recipient.clone()]), &mut packed).unwrap();
        assert!(packed.starts_with(b"age-encryption.org/v1\n") && packed.len() < 5000, "{}", packed.len());
        let open = |text: &str| unpack(&packed[..], &Opener::from_file(text).unwrap());
        assert_eq!(open(&text).unwrap(), contents());
        let error = open(&other).unwrap_err().to_string();
        assert!(error.starts_with("it does not open"), "{error}");
        assert!(matches!(Opener::from_file("# nothing\n"), Err(ArchiveError::KeyFile)));
        assert!(matches!(
            pack(&contents(), Lock::Recipients(Vec::new()), Vec::new()),
            Err(ArchiveError::Nobody)
        ));
        assert_eq!(recipient.to_string().parse::<Recipient>(), Ok(recipient));
        assert!("age1nobody".parse::<Recipient>().is_err());
    }

    #[test]
    fn one_that_was_cut_off_or_changed_is_refused_whole() {
        let (text, recipient) = new_key();
        let mut packed = Vec::new();
        pack(&contents(), Lock::Recipients(vec![recipient]), &mut packed).unwrap();
        let key = Opener::from_file(&text).unwrap();
        for length in (0..packed.len()).step_by(37) {
            assert!(unpack(&packed[..length], &key).is_err(), "{length} bytes of it");
        }
        for at in (0..packed.len()).step_by(53) {
            let mut changed = packed.clone();
            changed[at] ^= 1;
            assert!(unpack(&changed[..], &key).is_err(), "byte {at} changed");
        }
    }

    #[test]
    fn a_later_version_is_told_apart_from_a_broken_one() {
        let archive = |about: &str| {
            let mut tar = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_size(about.len() as u64);
            tar.append_data(&mut header, "about.json", about.as_bytes()).unwrap();
            tar.into_inner().unwrap()
        };
        assert!(matches!(read(&archive("{\"version\": 2, \"else\": 1}")[..]), Err(ArchiveError::Newer(2))));
        for broken in ["{", "{\"version\": 1}", "[]"] {
            assert!(matches!(read(&archive(broken)[..]), Err(ArchiveError::Shape(_))), "{broken}");
        }
        let other = "{\"version\": 1, \"made\": 1, \"program\": \"x\", \"net_ids\": [], \"files\": []}";
        let error = read(&archive(other)[..]).unwrap_err().to_string();
        assert!(error.contains("sealing-key is missing"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_upset_it(bytes: Vec<u8>) {
            let _ = read(&bytes[..]);
            let _ = unpack(&bytes[..], &Opener::passphrase("x"));
        }
    }
}
