//! Who asks: keys of members, which are shown once and kept as a hash.
//!
//! A key is `rg_ID_SECRET`, 64 and 256 bits of chance in hex digits: nothing that a person has chosen, so a plain SHA-256 keeps it. A
//! wrong key costs its address a token of a small bucket.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::limits::{Buckets, Rate, Wait, household};
use crate::store::registry::{AccessKey, Book, BookError, Member, MemberId};

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Look.
    Read,
    /// Change records, ask for certificates.
    Write,
    /// Also make and revoke keys.
    Admin,
}

impl fmt::Display for Scope {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Scope::Read => "read",
            Scope::Write => "write",
            Scope::Admin => "admin",
        })
    }
}

impl Scope {
    fn of(text: &str) -> Scope {
        match text {
            "admin" => Scope::Admin,
            "write" => Scope::Write,
            _ => Scope::Read,
        }
    }
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Whose key it is.
    pub member: Member,
    /// Which.
    pub key: String,
    /// What it may do.
    pub scope: Scope,
}

/// A new key: what is shown, and what is kept.
pub fn make(member: MemberId, label: &str, scope: Scope, clock: &Clock) -> (Zeroizing<String>, AccessKey) {
    let (id, secret): ([u8; 8], [u8; 32]) = (clock.random(), clock.random());
    let (id, secret) = (hex::encode(id), Zeroizing::new(hex::encode(secret)));
    let hash = Sha256::digest(secret.as_bytes()).to_vec();
    let shown = Zeroizing::new(format!("rg_{id}_{}", secret.as_str()));
    let (label, scope) = (label.to_owned(), scope.to_string());
    (shown, AccessKey { id, member, label, scope, hash, since: 0, revoked: None })
}

/// Who has this key; `None`: nobody.
pub fn caller(book: &Book<'_>, shown: &str) -> Result<Option<Caller>, BookError> {
    let Some((id, secret)) = shown.strip_prefix("rg_").and_then(|rest| rest.split_once('_')) else {
        return Ok(None);
    };
    let Some(key) = book.key(id)? else { return Ok(None) };
    let right: bool = Sha256::digest(secret.as_bytes()).as_slice().ct_eq(&key.hash).into();
    if !right || key.revoked.is_some() {
        return Ok(None);
    }
    let member = book.member(key.member)?.filter(|member| member.revoked.is_none());
    Ok(member.map(|member| Caller { member, key: key.id, scope: Scope::of(&key.scope) }))
}

/// Who is signed in by this name; `None`: nobody any more.
pub fn user(book: &Book<'_>, name: &str) -> Result<Option<Caller>, BookError> {
    let Some(user) = book.user(name)? else { return Ok(None) };
    let member = book.member(user.member)?.filter(|member| member.revoked.is_none());
    Ok(member.map(|member| Caller { member, key: user.name, scope: Scope::of(&user.scope) }))
}

/// Bytes of salt in front of a password's hash.
const SALT: usize = 16;

/// A password as it is kept: salt, then Argon2id with the parameters of RFC 9106's second choice for little memory. Slow on purpose.
pub fn password_hash(password: &str, salt: [u8; SALT]) -> Result<Vec<u8>, String> {
    let mut hash = [0u8; 32];
    let made = argon2::Argon2::default().hash_password_into(password.as_bytes(), &salt, &mut hash);
    made.map_err(|error| error.to_string())?;
    Ok([&salt[..], &hash].concat())
}

/// Whether a password is the one that was kept. Slow on purpose.
pub fn password_fits(password: &str, kept: &[u8]) -> bool {
    let Some(salt) = kept.first_chunk::<SALT>() else { return false };
    password_hash(password, *salt).is_ok_and(|hash| bool::from(hash.ct_eq(kept)))
}

/// Addresses that come with wrong keys or passwords.
pub struct Guesses(Mutex<Buckets<IpAddr>>, Clock);

/// Wrong keys and passwords of one household: so many at once, then one a second.
const GUESSES: Rate = Rate { burst: 20, every: Duration::from_secs(1) };
/// Households that are remembered.
const HOUSEHOLDS: usize = 4096;

impl Guesses {
    /// Nobody has guessed yet.
    pub fn new(clock: Clock) -> Guesses {
        Guesses(Mutex::new(Buckets::new(GUESSES, HOUSEHOLDS)), clock)
    }

    /// A wrong key; an error where there were too many of this household.
    pub fn wrong(&self, from: IpAddr) -> Result<(), Wait> {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.take(household(from), self.1.now())
    }
}
