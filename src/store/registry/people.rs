//! People who sign in, what members would like to have, and what the IEEE has assigned.

use rusqlite::{Row, params};

use super::{Book, Looked, MemberId};
use crate::store::rows::Seconds;

/// Somebody of a member, who signs in to the pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Unique among all.
    pub name: String,
    /// Whose.
    pub member: MemberId,
    /// What he may do.
    pub scope: String,
    /// Of his password: see `registry::access`.
    pub hash: Vec<u8>,
    /// Seconds since 1970.
    pub since: u64,
}

/// A NetID or a block of JoinEUIs that a member would like to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its number; 0: a new one.
    pub id: i64,
    /// Whose wish.
    pub member: MemberId,
    /// `net_id` or `join_eui`.
    pub kind: String,
    /// Hex digits, capital letters.
    pub first: String,
    /// How many bits of it count.
    pub bits: u8,
    /// The domain in which the member proves itself.
    pub domain: String,
    /// What has to stand there.
    pub challenge: String,
    /// It stood there; seconds since 1970.
    pub proven: Option<u64>,
    /// DNSSEC proved that.
    pub secure: bool,
}

/// Who has a block of EUI-64s from the IEEE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Hex digits of the first EUI-64, capital letters.
    pub first: String,
    /// How many bits of it count: 24, 28 or 36.
    pub bits: u8,
    /// As the IEEE writes it.
    pub organisation: String,
}

fn user(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User {
        name: row.get("name")?,
        member: row.get("member")?,
        scope: row.get("scope")?,
        hash: row.get("hash")?,
        since: row.get::<_, Seconds>("since")?.0,
    })
}

fn waiting(row: &Row<'_>) -> rusqlite::Result<Waiting> {
    Ok(Waiting {
        id: row.get("id")?,
        member: row.get("member")?,
        kind: row.get("kind")?,
        first: row.get("first")?,
        bits: row.get("bits")?,
        domain: row.get("domain")?,
        challenge: row.get("challenge")?,
        proven: row.get::<_, Option<Seconds>>("proven")?.map(|at| at.0),
        secure: row.get("secure")?,
    })
}

impl Book<'_> {
    // ---- people

    /// One by his name.
    pub fn user(&self, name: &str) -> Looked<Option<User>> {
        self.one("SELECT * FROM registry_user WHERE name = ?1", [name], user)
    }

    /// All of a member.
    pub fn users(&self, member: MemberId) -> Looked<Vec<User>> {
        self.all("SELECT * FROM registry_user WHERE member = ?1 ORDER BY name", [member], user)
    }

    /// Another one.
    pub fn add_user(&self, user: &User) -> Looked<()> {
        let write =
            "INSERT INTO registry_user (name, member, scope, hash, since) VALUES (?1, ?2, ?3, ?4, ?5)";
        let User { name, member, scope, hash, .. } = user;
        self.0.run(write, params![name, member, scope, hash, Seconds(self.now())])?;
        Ok(())
    }

    /// He signs in no more. Whether there was one of this member.
    pub fn remove_user(&self, member: MemberId, name: &str) -> Looked<bool> {
        let write = "DELETE FROM registry_user WHERE name = ?1 AND member = ?2";
        Ok(self.0.run(write, params![name, member])? > 0)
    }

    // ---- wishes

    /// One.
    pub fn waiting(&self, id: i64) -> Looked<Option<Waiting>> {
        self.one("SELECT * FROM registry_waiting WHERE id = ?1", [id], waiting)
    }

    /// Of one member, or of all.
    pub fn all_waiting(&self, member: Option<MemberId>) -> Looked<Vec<Waiting>> {
        let select = "SELECT * FROM registry_waiting WHERE ?1 IS NULL OR member = ?1 ORDER BY id";
        self.all(select, [member], waiting)
    }

    /// Keep one, or what has become of it. Its number.
    pub fn keep_waiting(&self, kept: &Waiting) -> Looked<i64> {
        let Waiting { id, member, kind, first, bits, domain, challenge, proven, secure } = kept;
        let proven = proven.map(Seconds);
        if *id == 0 {
            let write = "INSERT INTO registry_waiting (member, kind, first, bits, domain, challenge, since) \
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
            let now = Seconds(self.now());
            self.0.run(write, params![member, kind, first, bits, domain, challenge, now])?;
            return Ok(self.0.sql.last_insert_rowid());
        }
        let write = "UPDATE registry_waiting SET proven = ?2, secure = ?3 WHERE id = ?1";
        self.0.run(write, params![id, proven, secure])?;
        Ok(*id)
    }

    /// It is fulfilled, or not wanted any more.
    pub fn remove_waiting(&self, id: i64) -> Looked<()> {
        self.0.run("DELETE FROM registry_waiting WHERE id = ?1", [id])?;
        Ok(())
    }

    // ---- the IEEE's assignments

    /// Instead of those of the same width from before.
    pub fn assign(&self, bits: u8, assignments: &[Assignment]) -> Looked<()> {
        self.0.run("DELETE FROM registry_oui WHERE bits = ?1", [bits])?;
        let write = "INSERT OR REPLACE INTO registry_oui (first, bits, organisation) VALUES (?1, ?2, ?3)";
        for Assignment { first, bits, organisation } in assignments {
            self.0.run(write, params![first, bits, organisation])?;
        }
        Ok(())
    }

    /// Exactly this one.
    pub fn assignment(&self, first: &str, bits: u8) -> Looked<Option<Assignment>> {
        let select = "SELECT * FROM registry_oui WHERE first = ?1 AND bits = ?2";
        self.one(select, params![first, bits], |row| {
            Ok(Assignment {
                first: row.get("first")?,
                bits: row.get("bits")?,
                organisation: row.get("organisation")?,
            })
        })
    }

    /// Whether any are known.
    pub fn has_assignments(&self) -> Looked<bool> {
        Ok(self.one("SELECT 1 FROM registry_oui LIMIT 1", [], |_| Ok(()))?.is_some())
    }
}
