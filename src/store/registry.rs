//! The federation's registry: members and their keys, what is theirs, and the zone.
//!
//! [`Store::registry`] hands a decision a [`Book`] to read and write in one transaction; who may do what is decided there, in
//! the room `registry`.

mod people;
mod primary;

pub use people::{Assignment, User, Waiting};

use rusqlite::{OptionalExtension, Row, params};
use zeroize::Zeroizing;

use super::Store;
use super::rows::Seconds;
use super::secrets::Place;
use super::writer::{Db, Done, Fault};
use crate::backend::door::{Commit, StoreError};

/// The number of NS.
const NS: u16 = 2;
/// The number of DS.
const DS: u16 = 43;

/// Number of a member.
pub type MemberId = i64;

/// An organisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its number.
    pub id: MemberId,
    /// What it is called.
    pub name: String,
    /// It runs the registry.
    pub operator: bool,
    /// Seconds since 1970.
    pub since: u64,
    /// It is no member any more; seconds since 1970.
    pub revoked: Option<u64>,
}

/// A key that lets somebody of a member in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessKey {
    /// Its public part.
    pub id: String,
    /// Whose.
    pub member: MemberId,
    /// Who or what uses it.
    pub label: String,
    /// What it may do.
    pub scope: String,
    /// SHA-256 of its secret part.
    pub hash: Vec<u8>,
    /// Seconds since 1970.
    pub since: u64,
    /// It opens nothing any more; seconds since 1970.
    pub revoked: Option<u64>,
}

/// A NetID or a block of JoinEUIs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// `net_id` or `join_eui`.
    pub kind: String,
    /// Hex digits, capital letters.
    pub first: String,
    /// How many bits of it count.
    pub bits: u8,
    /// Whose.
    pub member: MemberId,
    /// Seconds since 1970.
    pub since: u64,
}

/// A record of the zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where: see the table.
    pub place: Vec<u8>,
    /// Number of the record type.
    pub kind: u16,
    /// As in a zone file.
    pub data: String,
    /// Seconds.
    pub ttl: u32,
    /// Whose.
    pub member: MemberId,
}

/// What the zone holds around a place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// There.
    pub at: Vec<Entry>,
    /// Something is below it.
    pub below: bool,
    /// The nearest place above it that is there; the place itself where it is.
    pub encloser: Vec<u8>,
    /// Of the block (a `*` above it) that stands for it where nothing is there itself.
    pub block: Vec<Entry>,
    /// NS and DS records of the delegation at or above it.
    pub cut: Vec<Entry>,
    /// The zone's serial number.
    pub serial: u32,
}

/// A key that signs the zone.
#[derive(Debug, Clone)]
pub struct ZoneKey {
    /// Its number.
    pub id: i64,
    /// PKCS#8, DER.
    pub secret: Zeroizing<Vec<u8>>,
    /// `made` or `signing`.
    pub state: String,
    /// It is so; seconds since 1970.
    pub since: u64,
}

/// A certificate that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Its number; 0: a new one.
    pub id: i64,
    /// Whose.
    pub member: MemberId,
    /// PKCS#10, PEM.
    pub request: String,
    /// Its names, with blanks between them.
    pub names: String,
    /// `waiting`, `signed` or `revoked`.
    pub state: String,
    /// Leaf and intermediate, PEM.
    pub chain: Option<String>,
    /// Hex digits.
    pub serial: Option<String>,
    /// Seconds since 1970.
    pub since: u64,
}

/// A line of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audited {
    /// Seconds since 1970.
    pub at: u64,
    /// Who, where that was known.
    pub member: Option<MemberId>,
    /// By which key.
    pub key: Option<String>,
    /// What was done.
    pub what: String,
    /// To what.
    pub detail: String,
}

/// The registry's part of the database, within a transaction.
pub struct Book<'a>(&'a Db<'a>);

/// Why a decision could not be made or written. The database's fault, never a member's.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BookError(String);

impl From<Fault> for BookError {
    fn from(fault: Fault) -> BookError {
        BookError(fault.to_string())
    }
}

impl From<rusqlite::Error> for BookError {
    fn from(error: rusqlite::Error) -> BookError {
        BookError(error.to_string())
    }
}

impl Store {
    /// Read, decide and write in one transaction. `work` says whether it has written; it may run twice.
    pub async fn registry<T, F>(&self, mut work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&Book<'_>) -> Result<(T, bool), BookError> + Send + 'static,
    {
        self.queue
            .run(false, move |db| {
                let (value, written) = work(&Book(db)).map_err(|error| Fault::Wrong(error.0))?;
                let commit = if written { Commit::Durable } else { Commit::Nothing };
                Ok((value, Done::new(commit)))
            })
            .await
    }
}

fn member(row: &Row<'_>) -> rusqlite::Result<Member> {
    Ok(Member {
        id: row.get("id")?,
        name: row.get("name")?,
        operator: row.get("operator")?,
        since: row.get::<_, Seconds>("since")?.0,
        revoked: row.get::<_, Option<Seconds>>("revoked")?.map(|at| at.0),
    })
}

fn access_key(row: &Row<'_>) -> rusqlite::Result<AccessKey> {
    Ok(AccessKey {
        id: row.get("id")?,
        member: row.get("member")?,
        label: row.get("label")?,
        scope: row.get("scope")?,
        hash: row.get("hash")?,
        since: row.get::<_, Seconds>("since")?.0,
        revoked: row.get::<_, Option<Seconds>>("revoked")?.map(|at| at.0),
    })
}

fn claim(row: &Row<'_>) -> rusqlite::Result<Claim> {
    Ok(Claim {
        kind: row.get("kind")?,
        first: row.get("first")?,
        bits: row.get("bits")?,
        member: row.get("member")?,
        since: row.get::<_, Seconds>("since")?.0,
    })
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        place: row.get("place")?,
        kind: row.get("kind")?,
        data: row.get("data")?,
        ttl: row.get("ttl")?,
        member: row.get("member")?,
    })
}

fn certificate(row: &Row<'_>) -> rusqlite::Result<Certificate> {
    Ok(Certificate {
        id: row.get("id")?,
        member: row.get("member")?,
        request: row.get("request")?,
        names: row.get("names")?,
        state: row.get("state")?,
        chain: row.get("chain")?,
        serial: row.get("serial")?,
        since: row.get::<_, Seconds>("since")?.0,
    })
}

type Looked<T> = Result<T, BookError>;

impl Book<'_> {
    /// Wall time, seconds since 1970.
    pub fn now(&self) -> u64 {
        self.0.unix
    }

    fn all<T>(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Looked<Vec<T>> {
        let mut select = self.0.sql.prepare_cached(sql)?;
        let rows = select.query_map(values, read)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn one<T>(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Looked<Option<T>> {
        Ok(self.0.sql.prepare_cached(sql)?.query_row(values, read).optional()?)
    }

    // ---- members

    /// All members.
    pub fn members(&self) -> Looked<Vec<Member>> {
        self.all("SELECT * FROM registry_member ORDER BY id", [], member)
    }

    /// One member.
    pub fn member(&self, id: MemberId) -> Looked<Option<Member>> {
        self.one("SELECT * FROM registry_member WHERE id = ?1", [id], member)
    }

    /// One member by its name.
    pub fn member_named(&self, name: &str) -> Looked<Option<Member>> {
        self.one("SELECT * FROM registry_member WHERE name = ?1", [name], member)
    }

    /// A new member.
    pub fn add_member(&self, name: &str, operator: bool) -> Looked<MemberId> {
        let write = "INSERT INTO registry_member (name, operator, since) VALUES (?1, ?2, ?3)";
        self.0.run(write, params![name, operator, Seconds(self.now())])?;
        Ok(self.0.sql.last_insert_rowid())
    }

    /// A member is none any more: its keys open nothing, and its records are gone.
    pub fn revoke_member(&self, id: MemberId) -> Looked<()> {
        let now = Seconds(self.now());
        self.0.run("UPDATE registry_member SET revoked = ?2 WHERE id = ?1", params![id, now])?;
        self.0.run(
            "UPDATE registry_key SET revoked = ?2 WHERE member = ?1 AND revoked IS NULL",
            params![id, now],
        )?;
        self.0.run(
            "UPDATE registry_certificate SET state = 'revoked' WHERE member = ?1 AND state = 'signed'",
            [id],
        )?;
        self.0.run("DELETE FROM registry_user WHERE member = ?1", [id])?;
        self.0.run("DELETE FROM registry_waiting WHERE member = ?1", [id])?;
        self.0.run("DELETE FROM registry_claim WHERE member = ?1", [id])?;
        self.remember("member = ?1", params![id])?;
        self.0.run("DELETE FROM registry_record WHERE member = ?1", [id])?;
        self.next_serial()
    }

    // ---- keys of members

    /// A key by its public part.
    pub fn key(&self, id: &str) -> Looked<Option<AccessKey>> {
        self.one("SELECT * FROM registry_key WHERE id = ?1", [id], access_key)
    }

    /// Keys of a member.
    pub fn keys(&self, member: MemberId) -> Looked<Vec<AccessKey>> {
        self.all("SELECT * FROM registry_key WHERE member = ?1 ORDER BY since, id", [member], access_key)
    }

    /// A new key.
    pub fn add_key(&self, key: &AccessKey) -> Looked<()> {
        let write = "INSERT INTO registry_key (id, member, label, scope, hash, since) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let AccessKey { id, member, label, scope, hash, .. } = key;
        self.0.run(write, params![id, member, label, scope, hash, Seconds(self.now())])?;
        Ok(())
    }

    /// A key opens nothing any more. Whether there was such a key of this member.
    pub fn revoke_key(&self, member: MemberId, id: &str) -> Looked<bool> {
        let write = "UPDATE registry_key SET revoked = ?3 WHERE id = ?1 AND member = ?2 AND revoked IS NULL";
        Ok(self.0.run(write, params![id, member, Seconds(self.now())])? > 0)
    }

    // ---- what is whose

    /// What is a member's.
    pub fn claims(&self, member: MemberId) -> Looked<Vec<Claim>> {
        self.all("SELECT * FROM registry_claim WHERE member = ?1 ORDER BY kind, first", [member], claim)
    }

    /// Of one kind, whoever's.
    pub fn claims_of_kind(&self, kind: &str) -> Looked<Vec<Claim>> {
        self.all("SELECT * FROM registry_claim WHERE kind = ?1 ORDER BY first, bits", [kind], claim)
    }

    /// Somebody's, exactly this.
    pub fn claimed(&self, kind: &str, first: &str, bits: u8) -> Looked<Option<Claim>> {
        let select = "SELECT * FROM registry_claim WHERE kind = ?1 AND first = ?2 AND bits = ?3";
        self.one(select, params![kind, first, bits], claim)
    }

    /// From now on this is a member's.
    pub fn add_claim(&self, claim: &Claim) -> Looked<()> {
        let Claim { kind, first, bits, member, .. } = claim;
        let write =
            "INSERT INTO registry_claim (kind, first, bits, member, since) VALUES (?1, ?2, ?3, ?4, ?5)";
        self.0.run(write, params![kind, first, bits, member, Seconds(self.now())])?;
        Ok(())
    }

    /// It is nobody's any more. Its records are not touched. Whether it was this member's.
    pub fn remove_claim(&self, claim: &Claim) -> Looked<bool> {
        let write = "DELETE FROM registry_claim WHERE kind = ?1 AND first = ?2 AND bits = ?3 AND member = ?4";
        let Claim { kind, first, bits, member, .. } = claim;
        Ok(self.0.run(write, params![kind, first, bits, member])? > 0)
    }

    // ---- the zone

    /// Records at a place.
    pub fn at(&self, place: &[u8]) -> Looked<Vec<Entry>> {
        self.all("SELECT * FROM registry_record WHERE place = ?1 ORDER BY kind, data", [place], entry)
    }

    /// Records of a member behind a place, in order.
    pub fn records(&self, member: MemberId, after: &[u8], most: u32) -> Looked<Vec<Entry>> {
        let select = "SELECT * FROM registry_record WHERE member = ?1 AND place > ?2 ORDER BY place, kind, data LIMIT ?3";
        self.all(select, params![member, after, most], entry)
    }

    /// Records of whoever behind a place, in order: the zone, page by page. A place is not torn apart.
    pub fn zone(&self, after: &[u8], most: u32) -> Looked<Vec<Entry>> {
        let select = "SELECT * FROM registry_record WHERE place > ?1 AND place <= coalesce(\
                          (SELECT place FROM (SELECT DISTINCT place FROM registry_record WHERE place > ?1 ORDER BY place LIMIT ?2) \
                           ORDER BY place DESC LIMIT 1), x'') \
                      ORDER BY place, kind, data";
        self.all(select, params![after, most], entry)
    }

    /// How many records there are.
    pub fn count(&self) -> Looked<u64> {
        let count = self.one("SELECT count(*) FROM registry_record", [], |row| row.get::<_, i64>(0))?;
        Ok(count.unwrap_or(0).max(0).cast_unsigned())
    }

    /// What stands around a place.
    pub fn view(&self, place: &[u8]) -> Looked<View> {
        let at = self.at(place)?;
        let select = "SELECT 1 FROM registry_record WHERE place > ?1 AND place < ?2 LIMIT 1";
        let below = self.one(select, params![place, behind(place)], |_| Ok(()))?.is_some();
        let block = if at.is_empty() { self.block(place)? } else { Vec::new() };
        let mut encloser = place.to_vec();
        if at.is_empty() && !below {
            let read = |row: &Row<'_>| row.get::<_, Vec<u8>>(0);
            let before = "SELECT place FROM registry_record WHERE place < ?1 ORDER BY place DESC LIMIT 1";
            let after = "SELECT place FROM registry_record WHERE place > ?1 ORDER BY place LIMIT 1";
            let neighbours = [self.one(before, [place], read)?, self.one(after, [place], read)?];
            let shared = neighbours.iter().flatten().map(|other| shared_labels(place, other));
            encloser.truncate(shared.max().unwrap_or(0));
        }
        let select =
            "SELECT place FROM registry_record WHERE kind = 2 AND place <= ?1 ORDER BY place DESC LIMIT 1";
        let cut = self.one(select, [place], |row| row.get::<_, Vec<u8>>(0))?;
        let mut cut = match cut.filter(|cut| !cut.is_empty() && place.starts_with(cut)) {
            Some(cut) => self.at(&cut)?,
            None => Vec::new(),
        };
        cut.retain(|entry| entry.kind == NS || entry.kind == DS);
        Ok(View { at, below, encloser, block, cut, serial: self.serial()? })
    }

    /// Records of the nearest block around a place. What stands between the two by itself hides the block.
    fn block(&self, place: &[u8]) -> Looked<Vec<Entry>> {
        let ends = place.iter().enumerate().filter(|(_, byte)| **byte == 0).map(|(at, _)| at + 1);
        let mut above: Vec<usize> = std::iter::once(0).chain(ends).filter(|end| *end < place.len()).collect();
        while let Some(end) = above.pop() {
            let ancestor = place.get(..end).unwrap_or_default();
            let block = self.at(&[ancestor, b"*\0"].concat())?;
            if !block.is_empty() {
                return Ok(block);
            }
            if !self.at(ancestor)?.is_empty() {
                break;
            }
        }
        Ok(Vec::new())
    }

    /// The zone's serial number.
    pub fn serial(&self) -> Looked<u32> {
        let serial = self.one("SELECT serial FROM registry_zone", [], |row| row.get::<_, i64>(0))?;
        Ok(u32::try_from(serial.unwrap_or(1)).unwrap_or(1))
    }

    /// The zone has changed.
    pub fn next_serial(&self) -> Looked<()> {
        self.0.run("UPDATE registry_zone SET serial = serial % 4294967295 + 1", [])?;
        Ok(())
    }

    /// Replace the records at a place.
    pub fn put(&self, place: &[u8], entries: &[Entry]) -> Looked<()> {
        self.remember_place(place)?;
        self.0.run("DELETE FROM registry_record WHERE place = ?1", [place])?;
        let write =
            "INSERT INTO registry_record (place, kind, data, ttl, member) VALUES (?1, ?2, ?3, ?4, ?5)";
        for Entry { place, kind, data, ttl, member } in entries {
            self.0.run(write, params![place, kind, data, ttl, member])?;
        }
        Ok(())
    }

    /// Remove a member's records at a place and below it.
    pub fn clear(&self, place: &[u8], member: MemberId) -> Looked<()> {
        let there = params![place, behind(place), member];
        self.remember("place >= ?1 AND place < ?2 AND member = ?3", there)?;
        let write = "DELETE FROM registry_record WHERE place >= ?1 AND place < ?2 AND member = ?3";
        self.0.run(write, there)?;
        Ok(())
    }

    // ---- keys of the zone

    /// Keys that sign, or will.
    pub fn zone_keys(&self) -> Looked<Vec<ZoneKey>> {
        let select = "SELECT id, sealed, state, since FROM registry_zone_key ORDER BY id";
        let rows = self.all(select, [], |row| {
            Ok((
                row.get::<_, i64>(0)?,
                row.get::<_, Vec<u8>>(1)?,
                row.get::<_, String>(2)?,
                row.get::<_, Seconds>(3)?.0,
            ))
        })?;
        let open = |(id, sealed, state, since): (i64, Vec<u8>, String, u64)| {
            let secret = self.0.seal.open(&key_place(id), &sealed).map_err(Fault::from)?;
            Ok(ZoneKey { id, secret, state, since })
        };
        rows.into_iter().map(open).collect()
    }

    /// Another key (PKCS#8, DER).
    pub fn add_zone_key(&self, secret: &[u8], state: &str) -> Looked<i64> {
        let next = "SELECT coalesce(max(id), 0) + 1 FROM registry_zone_key";
        let id = self.one(next, [], |row| row.get::<_, i64>(0))?.unwrap_or(1);
        let sealed = self.0.seal.seal(&key_place(id), secret).map_err(Fault::from)?;
        let write = "INSERT INTO registry_zone_key (id, sealed, state, since) VALUES (?1, ?2, ?3, ?4)";
        self.0.run(write, params![id, sealed, state, Seconds(self.now())])?;
        Ok(id)
    }

    /// What a key does from now on; `None`: nothing, it is gone.
    pub fn set_zone_key(&self, id: i64, state: Option<&str>) -> Looked<bool> {
        let changed = match state {
            Some(state) => {
                let write = "UPDATE registry_zone_key SET state = ?2, since = ?3 WHERE id = ?1";
                self.0.run(write, params![id, state, Seconds(self.now())])?
            }
            None => self.0.run("DELETE FROM registry_zone_key WHERE id = ?1", [id])?,
        };
        Ok(changed > 0)
    }

    // ---- certificates

    /// One.
    pub fn certificate(&self, id: i64) -> Looked<Option<Certificate>> {
        self.one("SELECT * FROM registry_certificate WHERE id = ?1", [id], certificate)
    }

    /// The newest, of one member or of all.
    pub fn certificates(&self, member: Option<MemberId>, most: u32) -> Looked<Vec<Certificate>> {
        let select =
            "SELECT * FROM registry_certificate WHERE ?1 IS NULL OR member = ?1 ORDER BY id DESC LIMIT ?2";
        self.all(select, params![member, most], certificate)
    }

    /// What a member has asked for with exactly this request.
    pub fn certificate_of(&self, member: MemberId, request: &str) -> Looked<Option<Certificate>> {
        let select =
            "SELECT * FROM registry_certificate WHERE member = ?1 AND request = ?2 ORDER BY id DESC LIMIT 1";
        self.one(select, params![member, request], certificate)
    }

    /// Whether a member has had one with these names that still counts.
    pub fn has_certificate(&self, member: MemberId, names: &str) -> Looked<bool> {
        let select = "SELECT 1 FROM registry_certificate WHERE member = ?1 AND names = ?2 AND state = 'signed' LIMIT 1";
        Ok(self.one(select, params![member, names], |_| Ok(()))?.is_some())
    }

    /// Keep a new one, or what has become of it. Its number.
    pub fn keep_certificate(&self, kept: &Certificate) -> Looked<i64> {
        let Certificate { id, member, request, names, state, chain, serial, .. } = kept;
        if *id == 0 {
            let write = "INSERT INTO registry_certificate (member, request, names, state, chain, serial, since) \
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
            let now = Seconds(self.now());
            self.0.run(write, params![member, request, names, state, chain, serial, now])?;
            return Ok(self.0.sql.last_insert_rowid());
        }
        let write = "UPDATE registry_certificate SET state = ?2, chain = ?3, serial = ?4 WHERE id = ?1";
        self.0.run(write, params![id, state, chain, serial])?;
        Ok(*id)
    }

    /// Serial numbers that are struck off.
    pub fn revoked_serials(&self) -> Looked<Vec<String>> {
        let select = "SELECT serial FROM registry_certificate WHERE state = 'revoked' AND serial IS NOT NULL ORDER BY serial";
        self.all(select, [], |row| row.get(0))
    }

    // ---- the audit log

    /// Write down what was done.
    pub fn audit(&self, member: Option<MemberId>, key: Option<&str>, what: &str, detail: &str) -> Looked<()> {
        let write = "INSERT INTO registry_audit (at, member, key, what, detail) VALUES (?1, ?2, ?3, ?4, ?5)";
        self.0.run(write, params![Seconds(self.now()), member, key, what, detail])?;
        Ok(())
    }

    /// The newest lines, of one member or of all.
    pub fn audited(&self, member: Option<MemberId>, most: u32) -> Looked<Vec<Audited>> {
        let select = "SELECT at, member, key, what, detail FROM registry_audit WHERE ?1 IS NULL OR member = ?1 \
                      ORDER BY id DESC LIMIT ?2";
        self.all(select, params![member, most], |row| {
            Ok(Audited {
                at: row.get::<_, Seconds>(0)?.0,
                member: row.get(1)?,
                key: row.get(2)?,
                what: row.get(3)?,
                detail: row.get(4)?,
            })
        })
    }
}

fn key_place(id: i64) -> Place {
    Place::new("registry_zone_key", "sealed", id)
}

/// The first place that is neither this one nor below it.
fn behind(place: &[u8]) -> Vec<u8> {
    // labels are letters, digits, hyphens and underscores
    [place, &[0xff]].concat()
}

/// How many bytes of the two are the same whole labels.
fn shared_labels(one: &[u8], other: &[u8]) -> usize {
    let same = one.iter().zip(other).take_while(|(one, other)| one == other).count();
    one[..same].iter().rposition(|byte| *byte == 0).map_or(0, |end| end + 1)
}
