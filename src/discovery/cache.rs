//! What names turned out to be, for as long as that may be believed.
//!
//! Pure: `now` comes from outside. `hickory` caches neither denials nor failures while it validates, and its positive
//! cache does not know when a signature ends; hence ours. Called by [`super::resolve`] only.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::clock::Instant;

/// What DNSSEC says about an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Security {
    /// It ought to be signed and is not, or not validly: an attack, an expired signature or a wrong trust anchor.
    Bogus,
    /// Nobody looked (`dnssec = "off"`).
    Off,
    /// Its zone is unsigned, which is proven.
    Insecure,
    /// Signed, all the way from a trust anchor.
    Secure,
}

impl fmt::Display for Security {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Security::Bogus => "bogus",
            Security::Off => "off",
            Security::Insecure => "insecure",
            Security::Secure => "secure",
        })
    }
}

/// What an answer is worth: how far it may be believed, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worth {
    /// The weakest record that led there.
    pub security: Security,
    /// The shortest TTL on the way; of a denial, what the zone's SOA says.
    pub ttl: Duration,
    /// When the first signature on the way ends, in seconds since 1970.
    pub signed_until: Option<u64>,
}

impl Worth {
    /// Of no record yet.
    pub const UNTOUCHED: Worth = Worth { security: Security::Secure, ttl: Duration::MAX, signed_until: None };

    /// Of both together.
    pub fn and(self, other: Worth) -> Worth {
        let ends = [self.signed_until, other.signed_until].into_iter().flatten();
        Worth {
            security: self.security.min(other.security),
            ttl: self.ttl.min(other.ttl),
            signed_until: ends.min(),
        }
    }
}

/// One way to a server: some addresses at one port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Way {
    /// The names that led there from the one asked, in order, without final dots: of CNAME, NAPTR, SRV and URI. Empty where
    /// the name asked has addresses itself.
    pub by: Vec<String>,
    /// Where it is, IPv6 first. Empty: the system's resolver is to be asked.
    pub addresses: Vec<IpAddr>,
    /// The TCP port.
    pub port: u16,
    /// Of the URL, with its query; begins with a slash.
    pub path: String,
    /// What DNSSEC says of everything that led there.
    pub security: Security,
}

impl Way {
    /// Names that the server's certificate may carry instead of the one asked: where DNSSEC proves every step.
    pub fn names(&self) -> &[String] {
        if self.security == Security::Secure { &self.by } else { &[] }
    }

    /// Every address with the port.
    pub fn sockets(&self) -> Vec<SocketAddr> {
        self.addresses.iter().map(|ip| SocketAddr::new(*ip, self.port)).collect()
    }
}

/// Ways to the server that a name names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The first to be tried first. Never empty.
    pub ways: Vec<Way>,
    /// Of all of them.
    pub worth: Worth,
}

/// Why a name leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// There is nothing; secure: that is proven.
    Missing(Worth),
    /// What is there is of no use to us.
    Useless(Worth, String),
    /// Validation failed.
    Bogus(String),
    /// The resolver refuses, fails, or cannot be reached.
    Failed(String),
    /// No answer.
    Timeout,
}

/// What a lookup brought.
pub type Outcome = Result<Found, Trouble>;

/// A name and what is known of it, for people.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// The name, without final dot.
    pub name: String,
    /// Where its server is; empty for a denial or a failure.
    pub ways: Vec<Way>,
    /// What DNSSEC says; absent where there was no answer.
    pub security: Option<Security>,
    /// Seconds until it is forgotten.
    pub left: u64,
}

const SHORTEST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(3600);
const LONGEST_DENIAL: Duration = Duration::from_secs(60);

/// The cache itself: bounded, and never past a signature's end.
#[derive(Debug)]
pub struct Cache {
    entries: BTreeMap<String, Entry>,
    most: usize,
}

#[derive(Debug)]
struct Entry {
    outcome: Arc<Outcome>,
    until: Instant,
}

impl Cache {
    /// At most so many names.
    pub fn new(most: usize) -> Cache {
        Cache { entries: BTreeMap::new(), most: most.max(1) }
    }

    /// What is known, and for how long; `wall` in seconds since 1970.
    pub fn get(&self, name: &str, now: Instant, wall: u64) -> Option<(Arc<Outcome>, Duration)> {
        let entry = self.entries.get(name)?;
        let left = entry.left(now, wall);
        (!left.is_zero()).then(|| (entry.outcome.clone(), left))
    }

    /// Remember; gives back for how long.
    pub fn put(&mut self, name: &str, outcome: Arc<Outcome>, now: Instant, wall: u64) -> Duration {
        if !self.entries.contains_key(name) && self.entries.len() >= self.most {
            self.entries.retain(|_, entry| !entry.left(now, wall).is_zero());
            if self.entries.len() >= self.most {
                let first =
                    self.entries.iter().min_by_key(|(_, entry)| entry.until).map(|(name, _)| name.clone());
                first.and_then(|name| self.entries.remove(&name));
            }
        }
        let entry = Entry { until: now + life(&outcome), outcome };
        let left = entry.left(now, wall);
        self.entries.insert(name.to_owned(), entry);
        left
    }

    /// Forget one name, or everything; how many were forgotten.
    pub fn flush(&mut self, name: Option<&str>) -> usize {
        match name {
            Some(name) => usize::from(self.entries.remove(name).is_some()),
            None => std::mem::take(&mut self.entries).len(),
        }
    }

    /// Everything that is still believed.
    pub fn list(&self, now: Instant, wall: u64) -> Vec<Line> {
        let lines = self.entries.iter().map(|(name, entry)| {
            let ways =
                entry.outcome.as_ref().as_ref().map_or_else(|_| Vec::new(), |found| found.ways.clone());
            let security = security(&entry.outcome);
            Line { name: name.clone(), ways, security, left: entry.left(now, wall).as_secs() }
        });
        lines.filter(|line| line.left > 0).collect()
    }
}

impl Entry {
    fn left(&self, now: Instant, wall: u64) -> Duration {
        let left = self.until.saturating_duration_since(now);
        let signed = worth(&self.outcome).and_then(|worth| worth.signed_until);
        signed.map_or(left, |end| left.min(Duration::from_secs(end.saturating_sub(wall))))
    }
}

fn life(outcome: &Outcome) -> Duration {
    match (outcome, worth(outcome)) {
        (Ok(_), Some(worth)) => worth.ttl.clamp(SHORTEST, LONGEST),
        (Err(_), Some(worth)) => worth.ttl.clamp(SHORTEST, LONGEST_DENIAL),
        (_, None) => SHORTEST,
    }
}

/// What the records behind an outcome are worth, if there are any.
fn worth(outcome: &Outcome) -> Option<Worth> {
    match outcome {
        Ok(found) => Some(found.worth),
        Err(Trouble::Missing(worth) | Trouble::Useless(worth, _)) => Some(*worth),
        Err(Trouble::Bogus(_) | Trouble::Failed(_) | Trouble::Timeout) => None,
    }
}

/// What DNSSEC says of an outcome; absent where there was no answer.
pub fn security(outcome: &Outcome) -> Option<Security> {
    match outcome {
        Err(Trouble::Bogus(_)) => Some(Security::Bogus),
        _ => worth(outcome).map(|worth| worth.security),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const WALL: u64 = 1_800_000_000;

    fn found(ttl: u64, signed_until: Option<u64>) -> Arc<Outcome> {
        let way = Way {
            by: Vec::new(),
            addresses: vec!["2001:db8::1".parse().unwrap()],
            port: 443,
            path: "/".into(),
            security: Security::Secure,
        };
        let worth = Worth { security: Security::Secure, ttl: Duration::from_secs(ttl), signed_until };
        Arc::new(Ok(Found { ways: vec![way], worth }))
    }
    fn missing(ttl: u64) -> Arc<Outcome> {
        let ttl = Duration::from_secs(ttl);
        Arc::new(Err(Trouble::Missing(Worth { security: Security::Secure, ttl, signed_until: None })))
    }

    #[tokio::test(start_paused = true)]
    async fn answers_live_as_long_as_their_ttl_within_bounds() {
        let (mut cache, t0) = (Cache::new(10), Instant::now());
        assert_eq!(cache.put("ttl", found(100, None), t0, WALL), 100 * S);
        assert_eq!(cache.put("short", found(0, None), t0, WALL), 5 * S);
        assert_eq!(cache.put("long", found(86_400, None), t0, WALL), 3600 * S);
        assert_eq!(cache.put("denied", missing(30), t0, WALL), 30 * S);
        assert_eq!(cache.put("denied for long", missing(3600), t0, WALL), 60 * S);
        assert_eq!(cache.put("silent", Arc::new(Err(Trouble::Timeout)), t0, WALL), 5 * S);
        assert_eq!(cache.get("ttl", t0 + 60 * S, WALL + 60).unwrap().1, 40 * S);
        assert!(cache.get("ttl", t0 + 100 * S, WALL + 100).is_none());
        assert!(cache.get("silent", t0 + 5 * S, WALL + 5).is_none());
        assert_eq!(cache.list(t0 + 61 * S, WALL + 61).len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn no_answer_outlives_its_signature_even_if_only_the_wall_clock_moves() {
        let (mut cache, t0) = (Cache::new(10), Instant::now());
        assert_eq!(cache.put("name", found(3600, Some(WALL + 50)), t0, WALL), 50 * S);
        assert!(cache.get("name", t0, WALL + 49).is_some());
        assert!(cache.get("name", t0, WALL + 50).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_cache_forgets_what_would_end_first() {
        let (mut cache, t0) = (Cache::new(2), Instant::now());
        cache.put("a", found(100, None), t0, WALL);
        cache.put("b", found(50, None), t0, WALL);
        cache.put("c", found(70, None), t0, WALL);
        assert!(cache.get("b", t0, WALL).is_none());
        assert_eq!(cache.list(t0, WALL).len(), 2);
        assert_eq!(cache.flush(Some("a")), 1);
        assert_eq!(cache.flush(None), 1);
        assert!(cache.list(t0, WALL).is_empty());
    }
}
