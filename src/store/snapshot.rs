//! The database as it is at one moment, and what has to change in one that comes back.
//!
//! After a backup was made its node went on: it used JoinNonces and downlink counters that the backup knows nothing of. What we send never
//! repeats (DESIGN: promises), so a restored database begins far behind all that can have been used. It carries a mark for
//! that; whoever opens it first moves the numbers on and takes the mark away, in one transaction, whatever happens in between.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::rows::Seconds;
use super::writer::Done;
use super::{Config, OpenError, Store, migrations, open, secrets};
use crate::backend::door::{Commit, StoreError};
use crate::clock::Clock;

/// Downlink counters move on by so many, and by some more for each minute since the image was made: then the same image may come
/// back a second time, later, and begins behind what was used after the first.
const FCNT_STEP: u64 = 8_000;
const FCNT_STEP_A_MINUTE: u64 = 4;
/// But not by more. Devices up to LoRaWAN 1.0.3 take no counter that is 16,384 (MAX_FCNT_GAP) or more ahead.
const FCNT_STEP_MOST: u64 = 16_000;
/// The same for LoRaWAN 1.0.4 and later, whose devices take whatever their 16 bits can tell.
const FCNT_STEP_WIDE: u64 = 60_000;
/// JoinNonces move on by so many, and by one more for each minute: no device joins as often, and some 250 restores are left.
const JOIN_NONCE_STEP: u64 = 65_536;
/// Behind the name of a database: its last good image.
const GOOD: &str = ".good";
/// One is made each day. Sessions of one that is older, in seconds, are not believed: their devices join again.
const GOOD_FOR: u64 = 2 * 86_400;
/// A JoinNonce has 24 bits.
const LAST_JOIN_NONCE: u32 = 0xFF_FFFF;
/// The registry's serial number, so that secondaries take what comes.
const SERIAL_STEP: u32 = 1000;

/// What came back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// Devices whose root keys we have.
    pub devices: u64,
    /// Sessions that go on.
    pub sessions: u64,
    /// Sessions that have ended: their devices have to join again.
    pub ended: u64,
    /// Devices that cannot join any more: their JoinNonces are used up.
    pub exhausted: u64,
}

impl Store {
    /// The database as one file, as of one moment; nobody has to stop. As long in memory as it is on the disk.
    pub async fn snapshot(&self) -> Result<Vec<u8>, StoreError> {
        self.queue
            .run(true, |db| {
                let image = image(db.sql)?;
                Ok((image, Done::new(Commit::Nothing)))
            })
            .await
    }

    /// What came back with the last restore, if this database was ever in a backup.
    pub async fn came_back(&self) -> Result<Option<Restored>, StoreError> {
        let select = "SELECT value FROM meta WHERE name = 'came back'";
        let found = self.queue.run(false, move |db| {
            let found = db.sql.query_row(select, [], |row| row.get::<_, String>(0)).optional()?;
            Ok((found, Done::new(Commit::Nothing)))
        });
        Ok(found.await?.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// Ends when the writer has come round: it is alive.
    pub async fn vouch(&self) -> Result<(), StoreError> {
        self.queue.run(false, |_| Ok(((), Done::new(Commit::Nothing)))).await
    }

    /// A backup was made just now.
    pub async fn note_backup(&self) -> Result<(), StoreError> {
        let write =
            "INSERT INTO meta (name, value) VALUES ('last backup', ?1) ON CONFLICT DO UPDATE SET value = ?1";
        self.queue
            .run(true, move |db| {
                db.run(write, [Seconds(db.unix)])?;
                Ok(((), Done::new(Commit::Durable)))
            })
            .await
    }

    /// When the last one was made, seconds since 1970.
    pub async fn last_backup(&self) -> Result<Option<u64>, StoreError> {
        let select = "SELECT value FROM meta WHERE name = 'last backup'";
        self.queue
            .run(false, move |db| {
                let found = db.sql.query_row(select, [], |row| row.get::<_, Seconds>(0)).optional()?;
                Ok((found.map(|at| at.0), Done::new(Commit::Nothing)))
            })
            .await
    }

    /// How many sessions came back with a backup and have not ended since.
    pub async fn restored_sessions(&self) -> Result<u64, StoreError> {
        let select = "SELECT count(*) FROM sessions WHERE restored IS NOT NULL";
        self.queue.run(false, move |db| Ok((count(db.sql, select)?, Done::new(Commit::Nothing)))).await
    }
}

fn count(sql: &Connection, select: &str) -> rusqlite::Result<u64> {
    let count = sql.query_row(select, [], |row| row.get::<_, i64>(0)).optional()?;
    Ok(count.unwrap_or(0).max(0).cast_unsigned())
}

/// A database of a backup that was made at `made`, seconds since 1970, marked as one that comes back. `rejoin` ends its sessions, but for those of personalised devices, which cannot
/// have others. An error says what is wrong with it.
pub fn marked(image: &[u8], made: u64, rejoin: bool) -> Result<Vec<u8>, String> {
    let read = |error: rusqlite::Error| format!("the database in it cannot be read: {error}");
    let sql = opened(image)?;
    let mark = format!("{} {made}", if rejoin { "rejoin" } else { "sessions" });
    let write =
        "INSERT INTO meta (name, value) VALUES ('comes back', ?1) ON CONFLICT DO UPDATE SET value = ?1";
    sql.execute(write, [mark]).map_err(read)?;
    Ok(sql.serialize("main").map_err(read)?.to_vec())
}

/// Move the numbers of a marked database on, and take its mark away.
pub(super) fn come_back(sql: &mut Connection, database: &Path, unix: u64) -> rusqlite::Result<()> {
    let select = "SELECT value FROM meta WHERE name = 'comes back'";
    let mark: Option<String> = sql.query_row(select, [], |row| row.get(0)).optional()?;
    let Some(mark) = mark else { return Ok(()) };
    // An older image that came back another time would use again what is used from here on.
    let good = open::beside(database, GOOD);
    match std::fs::remove_file(&good).and_then(|()| open::sync_folder(database)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(rusqlite::Error::ToSqlConversionFailure(Box::new(error)));
        }
        _ => {}
    }
    // what is written here is on the disk before anything is sent
    sql.pragma_update(None, "synchronous", "FULL")?;
    let work = sql.transaction()?;
    let (what, made) = mark.split_once(' ').unwrap_or((&mark, ""));
    // where nobody knows how long ago that was, it was long ago
    let made = made.parse().ok().filter(|made| *made <= unix).unwrap_or(0);
    let done = move_on(&work, unix, unix.saturating_sub(made) / 60, what == "rejoin")?;
    let text = serde_json::to_string(&done).unwrap_or_default();
    work.execute("DELETE FROM meta WHERE name = 'comes back'", [])?;
    let write =
        "INSERT INTO meta (name, value) VALUES ('came back', ?1) ON CONFLICT DO UPDATE SET value = ?1";
    work.execute(write, [text])?;
    work.commit()?;
    // the next time begins behind this one
    if let Err(error) = keep(sql, database) {
        tracing::warn!("no snapshot of the database was kept: {error}");
    }
    Ok(())
}

/// A database as one file.
fn image(sql: &Connection) -> rusqlite::Result<Vec<u8>> {
    let mut image = sql.serialize("main")?.to_vec();
    // not "with a log beside it": an image has none (file format of SQLite, offsets 18 and 19)
    if let Some(versions) = image.get_mut(18..20) {
        versions.fill(1);
    }
    Ok(image)
}

fn move_on(sql: &Connection, unix: u64, minutes: u64, rejoin: bool) -> rusqlite::Result<Restored> {
    let step = |most: u64| (FCNT_STEP + minutes.min(most) * FCNT_STEP_A_MINUTE).min(most) as u32;
    let (narrow, wide) = (step(FCNT_STEP_MOST), step(FCNT_STEP_WIDE));
    // a year and a half at the most: a clock that was never set must not use them up
    let nonces = JOIN_NONCE_STEP + minutes.min(800_000);
    let mut ended = 0;
    if rejoin {
        let given =
            "DELETE FROM activations WHERE dev_eui IN (SELECT dev_eui FROM devices WHERE NOT personalised)";
        sql.execute(given, [])?;
        ended = sql.execute("DELETE FROM sessions WHERE NOT personalised", [])? as u64;
    }
    // of a device that we serve for another network nobody knows the version: the step that all take
    let step = "CASE WHEN (SELECT mac_version FROM devices WHERE devices.dev_eui = sessions.dev_eui) \
                NOT IN ('1.0', '1.0.0', '1.0.1', '1.0.2', '1.0.3') THEN ?2 ELSE ?1 END";
    let sessions = format!(
        "UPDATE sessions SET fcnt_down = min(fcnt_down + {step}, 4294967295), \
         a_fcnt_down = min(a_fcnt_down + {step}, 4294967295), confirmed_down = NULL, restored = ?3"
    );
    let sessions = sql.execute(&sessions, params![narrow, wide, Seconds(unix)])? as u64;
    sql.execute(
        "UPDATE retired_sessions SET fcnt_down = min(fcnt_down + ?1, 4294967295), \
         a_fcnt_down = min(a_fcnt_down + ?1, 4294967295)",
        [narrow],
    )?;
    for table in ["root_keys", "retired"] {
        let next = format!("UPDATE {table} SET join_nonce = min(join_nonce + ?1, ?2)");
        sql.execute(&next, params![nonces as u32, LAST_JOIN_NONCE])?;
    }
    sql.execute("UPDATE registry_zone SET serial = (serial + ?1 - 1) % 4294967295 + 1", [SERIAL_STEP])?;
    let exhausted = format!("SELECT count(*) FROM root_keys WHERE join_nonce >= {LAST_JOIN_NONCE}");
    Ok(Restored {
        devices: count(sql, "SELECT count(*) FROM root_keys")?,
        sessions,
        ended,
        exhausted: count(sql, &exhausted)?,
    })
}

/// What the keys of a database are sealed with, hex digits: part of every backup.
pub fn sealing_key(config: &Config, clock: &Clock) -> Result<Zeroizing<String>, OpenError> {
    let key = secrets::sealing_key(config.key.as_ref(), config.url.path(), true, clock)?;
    Ok(Zeroizing::new(hex::encode(*key)))
}

/// An image, opened in memory, if it is a whole database of ours. An error says what is wrong.
fn opened(image: &[u8]) -> Result<Connection, String> {
    let read = |error: rusqlite::Error| format!("the database in it cannot be read: {error}");
    let mut sql = Connection::open_in_memory().map_err(|error| error.to_string())?;
    sql.deserialize_read_exact("main", image, image.len(), false).map_err(read)?;
    let owner: i64 = sql.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(read)?;
    if owner != migrations::APPLICATION_ID {
        return Err("the database in it is none of ours".into());
    }
    let said: String = sql.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(read)?;
    match said.as_str() {
        "ok" => Ok(sql),
        _ => Err(format!("the database in it is damaged: {said}")),
    }
}

/// Keep an image beside its database, for the day on which the database is found damaged. It is whole, or not there.
pub fn keep_good(database: &Path, image: &[u8]) -> io::Result<()> {
    opened(image).map_err(io::Error::other)?;
    let (good, fresh) = (open::beside(database, GOOD), open::beside(database, ".good.new"));
    write(&fresh, image)?;
    std::fs::rename(&fresh, &good)?;
    open::sync_folder(database)
}

/// Keep the image of a database that is open.
pub(super) fn keep(sql: &Connection, database: &Path) -> io::Result<()> {
    keep_good(database, &image(sql).map_err(io::Error::other)?)
}

/// When that was done last, seconds since 1970.
pub fn last_good(database: &Path) -> Option<u64> {
    let made = std::fs::metadata(open::beside(database, GOOD)).ok()?.modified().ok()?;
    made.duration_since(std::time::UNIX_EPOCH).ok().map(|since| since.as_secs())
}

/// A database that cannot be used gives way to the last good image of it, marked as one that comes back; it is put aside with `what` it is
/// in its name. `false`: there is none that this program can use.
pub(super) fn recover(
    database: &Path,
    why: &dyn std::fmt::Display,
    what: &str,
    clock: &Clock,
) -> Result<bool, OpenError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::File { path, source }
    };
    let good = open::beside(database, GOOD);
    let Ok(image) = std::fs::read(&good) else { return Ok(false) };
    // one that is damaged itself, or newer, helps nobody
    if !opened(&image).is_ok_and(|sql| migrations::is_known(&sql)) {
        return Ok(false);
    }
    let unix = clock.unix();
    let made = last_good(database).unwrap_or(unix);
    let age = unix.saturating_sub(made);
    // in so long a session may have used more numbers than it is moved on by
    let Ok(image) = marked(&image, made, age > GOOD_FOR) else { return Ok(false) };
    for part in ["", "-wal", "-shm", "-journal"] {
        let (from, to) =
            (open::beside(database, part), open::beside(database, &format!(".{what}-{unix}{part}")));
        match std::fs::rename(&from, &to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&from)(error)),
            _ => {}
        }
    }
    let fresh = open::beside(database, ".new");
    write(&fresh, &image).map_err(failed(&fresh))?;
    std::fs::rename(&fresh, database).map_err(failed(database))?;
    open::sync_folder(database).map_err(failed(database))?;
    let age = age / 3600;
    tracing::error!(
        path = %database.display(),
        %why,
        "the database cannot be used and has given way to its snapshot of {age} hours ago: devices that were added or have joined since \
         have to be added or join again; it lies beside it, {what}"
    );
    Ok(true)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Files that belong to a database: itself, its log, what it is locked and sealed with.
pub fn belongings(database: &Path) -> [PathBuf; 5] {
    ["", "-wal", "-shm", ".key", "-journal"].map(|end| open::beside(database, end))
}
