//! What names turned out to be, for as long as that may be believed.
//!
//! Pure: `now` comes from outside. `hickory` caches neither denials nor failures while it validates, and its positive
//! cache does not know when a signature ends; hence ours. Called by [`super::resolve`] only.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
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

/// Addresses of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// IPv6 first.
    pub addresses: Vec<IpAddr>,
    /// The weakest record that led there.
    pub security: Security,
    /// Where CNAMEs led, in order; no final dots.
    pub cname: Vec<String>,
    /// The shortest TTL on the way.
    pub ttl: Duration,
    /// When the first signature on the way ends, in seconds since 1970.
    pub signed_until: Option<u64>,
}

/// Why a name has no address for us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// There is none.
    Missing {
        /// Secure: that is proven.
        security: Security,
        /// How long that holds, by the zone's SOA.
        ttl: Duration,
        /// When the first signature of the proof ends, in seconds since 1970.
        signed_until: Option<u64>,
    },
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
    /// Its addresses; empty for a denial or a failure.
    pub addresses: Vec<IpAddr>,
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
            let (addresses, security) = match &*entry.outcome {
                Ok(found) => (found.addresses.clone(), Some(found.security)),
                Err(Trouble::Missing { security, .. }) => (Vec::new(), Some(*security)),
                Err(Trouble::Bogus(_)) => (Vec::new(), Some(Security::Bogus)),
                Err(Trouble::Failed(_) | Trouble::Timeout) => (Vec::new(), None),
            };
            Line { name: name.clone(), addresses, security, left: entry.left(now, wall).as_secs() }
        });
        lines.filter(|line| line.left > 0).collect()
    }
}

impl Entry {
    fn left(&self, now: Instant, wall: u64) -> Duration {
        let left = self.until.saturating_duration_since(now);
        let signed = match &*self.outcome {
            Ok(found) => found.signed_until,
            Err(Trouble::Missing { signed_until, .. }) => *signed_until,
            Err(_) => None,
        };
        signed.map_or(left, |end| left.min(Duration::from_secs(end.saturating_sub(wall))))
    }
}

fn life(outcome: &Outcome) -> Duration {
    match outcome {
        Ok(found) => found.ttl.clamp(SHORTEST, LONGEST),
        Err(Trouble::Missing { ttl, .. }) => (*ttl).clamp(SHORTEST, LONGEST_DENIAL),
        Err(Trouble::Bogus(_) | Trouble::Failed(_) | Trouble::Timeout) => SHORTEST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const WALL: u64 = 1_800_000_000;

    fn found(ttl: u64, signed_until: Option<u64>) -> Arc<Outcome> {
        Arc::new(Ok(Found {
            addresses: vec!["2001:db8::1".parse().unwrap()],
            security: Security::Secure,
            cname: Vec::new(),
            ttl: Duration::from_secs(ttl),
            signed_until,
        }))
    }
    fn missing(ttl: u64) -> Arc<Outcome> {
        let ttl = Duration::from_secs(ttl);
        Arc::new(Err(Trouble::Missing { security: Security::Secure, ttl, signed_until: None }))
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
