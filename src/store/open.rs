//! Opening: folders, files and their modes, the lock, the check after a crash, the schema, the
//! sealing key.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::secrets::{self, Seal};
use super::space::Space;
use super::writer::{self, Machine};
use super::{Config, Durability, Store, learned, migrations, snapshot};
use crate::clock::Clock;

/// A commit writes whole pages, and an uplink changes a few bytes in each of some tables: the smaller they are, the less a card gets.
/// (Below this, rows begin to need two.)
const PAGE: u32 = 1024;
/// A damaged database is looked for after a crash up to this size, in bytes: some 100 ms on a slow card.
const QUICK_CHECK: u64 = 64 << 20;

/// Why the store does not open. All of it is the operator's move.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No folder, no permission, no space.
    #[error("cannot make or open {}", path.display())]
    File {
        /// What was touched.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A running daemon has it.
    #[error(
        "{} is in use by {}: stop it, or give the command to it through its control socket",
        path.display(),
        by.map_or("another process".to_owned(), |pid| format!("process {pid}"))
    )]
    Locked {
        /// The database.
        path: PathBuf,
        /// Process id, where it wrote one.
        by: Option<u32>,
    },
    /// SQLite cannot work with it.
    #[error("database {}", path.display())]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The file is broken.
    #[error("database {} is damaged ({what}), and there is no snapshot beside it: restore a backup", path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// The first finding.
        what: String,
    },
    /// Another program's file.
    #[error("{} is a database of another program", path.display())]
    NotOurs {
        /// The database.
        path: PathBuf,
    },
    /// Written by a later version of this program.
    #[error(
        "database {} has schema {found}, this program knows up to {known}: use the newer program, or restore a backup from before the update",
        path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// Ours.
        known: usize,
    },
    /// No sealing key where it should be.
    #[error(
        "sealing key {}: without the key that the database was sealed with its keys cannot be read; restore it",
        path.display()
    )]
    KeyFile {
        /// The key file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Something else is in the key file.
    #[error("sealing key {}: a key is 32 bytes, or 64 hexadecimal digits", path.display())]
    KeyShape {
        /// The key file.
        path: PathBuf,
    },
    /// The service manager gave none.
    #[error(
        "sealing key credential {name:?}: no CREDENTIALS_DIRECTORY; add LoadCredential={name}:... to the unit"
    )]
    NoCredentials {
        /// The credential.
        name: String,
    },
    /// A key, but another one.
    #[error("database {} was sealed with another key than the one configured in [store] key", path.display())]
    WrongKey {
        /// The database.
        path: PathBuf,
    },
    /// The caller's mistake.
    #[error("the store opens on a tokio runtime only")]
    NoRuntime,
}

pub(super) fn open(config: &Config, clock: Clock) -> Result<Store, OpenError> {
    if tokio::runtime::Handle::try_current().is_err() {
        return Err(OpenError::NoRuntime);
    }
    let path = config.url.path();
    make_folder(path).map_err(|source| OpenError::File { path: path.into(), source })?;
    let lock = lock(path)?;
    make_file(path).map_err(|source| OpenError::File { path: path.into(), source })?;
    let failed = |source| failure(path, source);
    let (mut sql, mut crashed) = match connect(path) {
        Err(error) if is_damaged(&error) && snapshot::recover(path, &error, "damaged", &clock)? => {
            connect(path)
        }
        other => other,
    }
    .map_err(failed)?;
    match migrations::migrate(&mut sql, path) {
        // a newer program was here, and its update was taken back
        Err(error @ OpenError::Newer { .. }) => {
            drop(sql);
            if !snapshot::recover(path, &error, "newer", &clock)? {
                return Err(error);
            }
            (sql, crashed) = connect(path).map_err(failed)?;
            migrations::migrate(&mut sql, path)?;
        }
        other => other?,
    }
    snapshot::come_back(&mut sql, path, clock.unix()).map_err(failed)?;
    let sealed_before = secrets::read_check(&sql).map_err(failed)?.is_some();
    let key = secrets::sealing_key(config.key.as_ref(), path, sealed_before, &clock)?;
    let seal = Seal::new(&key, clock.clone());
    secrets::check(&sql, &seal, path)?;
    let learned = Arc::new(RwLock::new(learned::load(&sql).map_err(failed)?));
    let strict = config.durability == Durability::Strict;
    let reserve = u64::from(config.reserve_mb) << 20;
    let space = Arc::new(Space::new(config.folder(), reserve, clock.clone()));
    let mut machine = Machine::new(sql, seal, clock, path.into(), strict, lock).map_err(failed)?;
    if crashed {
        machine.inherits();
    }
    let counters = machine.counters();
    Ok(Store { queue: writer::start(machine), learned, counters, space })
}

/// Only one process at a time. The kernel gives the lock up with the process, however that ends; so
/// the file may stay.
fn lock(path: &Path) -> Result<File, OpenError> {
    let name = beside(path, ".lock");
    let failed = |source| OpenError::File { path: name.clone(), source };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&name).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.take(20).read_to_string(&mut pid);
            return Err(OpenError::Locked { path: path.into(), by: pid.trim().parse().ok() });
        }
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    // Only for the error message above.
    file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(file)
}

/// SQLite gives its log the mode of the database, so the database gets ours before SQLite sees it.
fn make_file(path: &Path) -> std::io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => sync_folder(path),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Answers as well whether the last run left its log.
fn connect(path: &Path) -> rusqlite::Result<(Connection, bool)> {
    // SQLite deletes its log when it closes: one that is there was left by a crash.
    let crashed = std::fs::metadata(beside(path, "-wal")).is_ok_and(|log| log.len() > 0);
    let size = std::fs::metadata(path).map_or(0, |file| file.len());
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let sql = Connection::open_with_flags(path, flags)?;
    // Before the log is touched: the index of the log then stays in memory, and no other program's
    // sqlite can write between our transactions.
    sql.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    // of one that is made now
    sql.pragma_update(None, "page_size", PAGE)?;
    sql.pragma_update(None, "journal_mode", "WAL")?;
    sql.pragma_update(None, "foreign_keys", "ON")?;
    // A statement is planned once, not again for each value that is bound to it.
    sql.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    sql.pragma_update(None, "trusted_schema", "OFF")?;
    sql.pragma_update(None, "temp_store", "MEMORY")?;
    // The writer does it itself, when nobody waits; this is for a batch that outgrows it.
    sql.pragma_update(None, "wal_autocheckpoint", 8192)?;
    // What such a batch leaves of the log, in bytes.
    sql.pragma_update(None, "journal_size_limit", 4 << 20)?;
    if crashed && size <= QUICK_CHECK {
        let found: String = sql.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if found != "ok" {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            return Err(rusqlite::Error::SqliteFailure(code, Some(found)));
        }
        tracing::info!(path = %path.display(), "the last run did not close the store; it is whole");
    }
    if let Err(error) = repage(&sql) {
        tracing::warn!(%error, path = %path.display(), "the database keeps its large pages, which cost its card more; tried again with the next start");
    }
    Ok((sql, crashed))
}

/// Write a database with other pages anew, whole or not at all.
fn repage(sql: &Connection) -> rusqlite::Result<()> {
    let size: u32 = sql.pragma_query_value(None, "page_size", |row| row.get(0))?;
    if size == PAGE {
        return Ok(());
    }
    // SQLite does so without a log only
    sql.pragma_update(None, "journal_mode", "DELETE")?;
    sql.pragma_update(None, "page_size", PAGE)?;
    let done = sql.execute_batch("VACUUM");
    sql.pragma_update(None, "journal_mode", "WAL")?;
    done
}

fn is_damaged(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

fn failure(path: &Path, source: rusqlite::Error) -> OpenError {
    let path = path.into();
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt) => OpenError::Damaged { path, what: source.to_string() },
        Some(ErrorCode::NotADatabase) => OpenError::NotOurs { path },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::Locked { path, by: None },
        _ => OpenError::Sqlite { path, source },
    }
}

/// `PATH` with something appended to its name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Put a new name in a folder on the disk.
pub(super) fn sync_folder(of: &Path) -> std::io::Result<()> {
    match of.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// Make the folder of a file, for us alone.
pub(super) fn make_folder(of: &Path) -> std::io::Result<()> {
    match of.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)
        }
        _ => Ok(()),
    }
}
