//! What names turned out to be, for as long as that may be believed.
//!
//! Pure: `now` comes from outside. `hickory` caches neither denials nor failures while it validates, and its positive
//! cache does not know when a signature ends; hence ours. Called by [`super::resolve`] only.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Instant;
use crate::limits::Lifetime;

/// What DNSSEC says about an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The first to be tried first. Never empty.
    pub ways: Vec<Way>,
    /// Of all of them.
    pub worth: Worth,
}

/// Why a name leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// There is nothing; secure: that is proven.
    #[error("there is nothing")]
    Missing(Worth),
    /// What is there is of no use to us.
    #[error("{1}")]
    Useless(Worth, String),
    /// Validation failed.
    #[error("{0}")]
    Bogus(String),
    /// The resolver refuses, fails, or cannot be reached.
    #[error("{0}")]
    Failed(String),
    /// No answer.
    #[error("no answer")]
    Timeout,
}

/// What a lookup brought.
pub type Outcome = Result<Found, Trouble>;

/// A name and what is known of it, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The name, without final dot.
    pub name: String,
    /// Where its server is; empty for a denial or a failure.
    pub ways: Vec<Way>,
    /// What DNSSEC says; absent where there was no answer.
    pub security: Option<Security>,
    /// Why it leads nowhere.
    pub trouble: Option<String>,
    /// Seconds until it is asked for again.
    pub left: u64,
    /// Seconds for which it may be used instead of an answer that does not come, after it has ended.
    pub stale: u64,
    /// Used since it came, and so asked for again before it ends.
    pub used: bool,
}

/// An answer that outlives a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The name, without final dot.
    pub name: String,
    /// Where it leads.
    pub found: Found,
    /// Until when it may be believed, in seconds since 1970.
    pub until: u64,
}

/// How long answers are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Even where the TTL is shorter.
    pub least: Lifetime,
    /// Even where the TTL is longer.
    pub most: Lifetime,
    /// A denial at most so long, even where the zone's SOA says longer.
    pub denial: Lifetime,
    /// So long after its end an answer is used where no other comes (RFC 8767), never past its signatures; 0s: not at all.
    pub stale: Lifetime,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            least: Lifetime::of_seconds(5),
            most: Lifetime::of_seconds(3600),
            denial: Lifetime::of_seconds(60),
            stale: Lifetime::of_seconds(86_400),
        }
    }
}

/// After a failure the next question waits so long.
const REST: Duration = Duration::from_secs(5);
/// The same where there is a stale answer to go on with (RFC 8767 section 5: 30 s).
const STALE_REST: Duration = Duration::from_secs(30);

/// The cache itself: bounded, and never past a signature's end.
#[derive(Debug)]
pub struct Cache {
    entries: BTreeMap<String, Entry>,
    limits: Limits,
    most: usize,
}

#[derive(Debug)]
struct Entry {
    outcome: Arc<Outcome>,
    until: Instant,
    /// After its end: not asked for again before.
    rests_until: Instant,
    used: bool,
}

/// What is known of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hit {
    /// Believed so long.
    Fresh(Arc<Outcome>, Duration),
    /// Its time is over, but it may serve where nothing better comes.
    Stale {
        /// What it was.
        outcome: Arc<Outcome>,
        /// A question has failed a moment ago: not worth another.
        rests: bool,
    },
}

impl Cache {
    /// At most so many names.
    pub fn new(limits: Limits, most: usize) -> Cache {
        Cache { entries: BTreeMap::new(), limits, most: most.max(1) }
    }

    /// What is known, by one who uses it; `wall` in seconds since 1970.
    pub fn get(&mut self, name: &str, now: Instant, wall: u64) -> Option<Hit> {
        let limits = self.limits;
        let entry = self.entries.get_mut(name)?;
        let left = entry.left(now, wall);
        if !left.is_zero() {
            entry.used = true;
            return Some(Hit::Fresh(entry.outcome.clone(), left));
        }
        let rests = entry.rests_until > now;
        let outcome = entry.outcome.clone();
        (!entry.stale_left(limits, now, wall).is_zero()).then_some(Hit::Stale { outcome, rests })
    }

    /// Remember; gives back for how long. A failure does not take the place of an answer that may still serve.
    pub fn put(&mut self, name: &str, outcome: Arc<Outcome>, now: Instant, wall: u64) -> Duration {
        let (limits, failed) = (self.limits, worth(&outcome).is_none() && !is_bogus(&outcome));
        if let Some(entry) = self.entries.get_mut(name)
            && failed
            && !entry.stale_left(limits, now, wall).is_zero()
        {
            entry.rests_until = now + STALE_REST;
            return entry.left(now, wall);
        }
        if !self.entries.contains_key(name) && self.entries.len() >= self.most {
            self.entries.retain(|_, entry| !entry.stale_left(limits, now, wall).is_zero());
            if self.entries.len() >= self.most {
                let first =
                    self.entries.iter().min_by_key(|(_, entry)| entry.until).map(|(name, _)| name.clone());
                first.and_then(|name| self.entries.remove(&name));
            }
        }
        let entry = Entry { until: now + limits.life(&outcome), outcome, rests_until: now, used: false };
        let left = entry.left(now, wall);
        self.entries.insert(name.to_owned(), entry);
        left
    }

    /// Is this what is known of the name, and has it been used since it came?
    pub fn is_used(&self, name: &str, outcome: &Arc<Outcome>) -> bool {
        self.entries.get(name).is_some_and(|entry| entry.used && Arc::ptr_eq(&entry.outcome, outcome))
    }

    /// Forget one name, or everything; how many were forgotten.
    pub fn flush(&mut self, name: Option<&str>) -> usize {
        match name {
            Some(name) => usize::from(self.entries.remove(name).is_some()),
            None => std::mem::take(&mut self.entries).len(),
        }
    }

    /// Everything that is still of use.
    pub fn list(&self, now: Instant, wall: u64) -> Vec<Line> {
        let lines = self.entries.iter().map(|(name, entry)| {
            let ways =
                entry.outcome.as_ref().as_ref().map_or_else(|_| Vec::new(), |found| found.ways.clone());
            Line {
                name: name.clone(),
                ways,
                security: security(&entry.outcome),
                trouble: entry.outcome.as_ref().as_ref().err().map(ToString::to_string),
                left: entry.left(now, wall).as_secs(),
                stale: (entry.stale_left(self.limits, now, wall) - entry.left(now, wall)).as_secs(),
                used: entry.used,
            }
        });
        lines.filter(|line| line.left > 0 || line.stale > 0).collect()
    }

    /// What is worth keeping over a restart: where names lead. A denial is soon asked for again.
    pub fn kept(&self, now: Instant, wall: u64) -> Vec<Kept> {
        let found = self
            .entries
            .iter()
            .filter_map(|(name, entry)| Some((name, entry, entry.outcome.as_ref().as_ref().ok()?)));
        let kept = found.map(|(name, entry, found)| {
            let left = entry.until.saturating_duration_since(now).as_secs();
            let ago = now.saturating_duration_since(entry.until).as_secs();
            Kept { name: name.clone(), found: found.clone(), until: (wall + left).saturating_sub(ago) }
        });
        kept.filter(|kept| kept.until + self.limits.stale.duration().as_secs() > wall).collect()
    }

    /// What an earlier run has kept. A clock that was moved meanwhile makes no answer last longer than it could.
    pub fn restore(&mut self, kept: Vec<Kept>, now: Instant, wall: u64) {
        for Kept { name, found, until } in kept {
            if self.entries.contains_key(&name) || self.entries.len() >= self.most {
                continue;
            }
            let left = Duration::from_secs(until.saturating_sub(wall)).min(self.limits.most.duration());
            let ago = Duration::from_secs(wall.saturating_sub(until));
            let Some(until) = (now + left).checked_sub(ago) else { continue };
            let outcome = Arc::new(Ok(found));
            self.entries.insert(name, Entry { outcome, until, rests_until: now, used: false });
        }
    }
}

impl Entry {
    fn left(&self, now: Instant, wall: u64) -> Duration {
        self.signed(self.until.saturating_duration_since(now), wall)
    }

    /// Until it is of no use even where nothing better comes.
    fn stale_left(&self, limits: Limits, now: Instant, wall: u64) -> Duration {
        let stale = if self.outcome.is_ok() { limits.stale.duration() } else { Duration::ZERO };
        self.signed((self.until + stale).saturating_duration_since(now), wall)
    }

    fn signed(&self, left: Duration, wall: u64) -> Duration {
        let signed = worth(&self.outcome).and_then(|worth| worth.signed_until);
        signed.map_or(left, |end| left.min(Duration::from_secs(end.saturating_sub(wall))))
    }
}

impl Limits {
    fn life(self, outcome: &Outcome) -> Duration {
        let within = |ttl: Duration, most: Lifetime| ttl.max(self.least.duration()).min(most.duration());
        match (outcome, worth(outcome)) {
            (Ok(_), Some(worth)) => within(worth.ttl, self.most),
            (Err(_), Some(worth)) => within(worth.ttl, self.denial),
            (_, None) => REST,
        }
    }
}

fn is_bogus(outcome: &Outcome) -> bool {
    matches!(outcome, Err(Trouble::Bogus(_)))
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

    fn left(cache: &mut Cache, name: &str, now: Instant, wall: u64) -> Option<Duration> {
        match cache.get(name, now, wall) {
            Some(Hit::Fresh(_, left)) => Some(left),
            _ => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_live_as_long_as_their_ttl_within_bounds() {
        let (mut cache, t0) = (Cache::new(Limits::default(), 10), Instant::now());
        assert_eq!(cache.put("ttl", found(100, None), t0, WALL), 100 * S);
        assert_eq!(cache.put("short", found(0, None), t0, WALL), 5 * S);
        assert_eq!(cache.put("long", found(86_400, None), t0, WALL), 3600 * S);
        assert_eq!(cache.put("denied", missing(30), t0, WALL), 30 * S);
        assert_eq!(cache.put("denied for long", missing(3600), t0, WALL), 60 * S);
        assert_eq!(cache.put("silent", Arc::new(Err(Trouble::Timeout)), t0, WALL), 5 * S);
        assert_eq!(left(&mut cache, "ttl", t0 + 60 * S, WALL + 60), Some(40 * S));
        assert_eq!(left(&mut cache, "ttl", t0 + 100 * S, WALL + 100), None);
        assert_eq!(cache.get("silent", t0 + 5 * S, WALL + 5), None);
        assert_eq!(cache.get("denied", t0 + 30 * S, WALL + 30), None, "a denial is never stale");
        let fresh = cache.list(t0 + 61 * S, WALL + 61).into_iter().filter(|line| line.left > 0);
        assert_eq!(fresh.count(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn no_answer_outlives_its_signature_even_if_only_the_wall_clock_moves() {
        let (mut cache, t0) = (Cache::new(Limits::default(), 10), Instant::now());
        assert_eq!(cache.put("name", found(3600, Some(WALL + 50)), t0, WALL), 50 * S);
        assert!(cache.get("name", t0, WALL + 49).is_some());
        assert_eq!(cache.get("name", t0, WALL + 50), None, "not even where nothing better comes");
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_cache_forgets_what_would_end_first() {
        let (mut cache, t0) = (Cache::new(Limits::default(), 2), Instant::now());
        cache.put("a", found(100, None), t0, WALL);
        cache.put("b", found(50, None), t0, WALL);
        cache.put("c", found(70, None), t0, WALL);
        assert_eq!(cache.get("b", t0, WALL), None);
        assert_eq!(cache.list(t0, WALL).len(), 2);
        assert_eq!(cache.flush(Some("a")), 1);
        assert_eq!(cache.flush(None), 1);
        assert!(cache.list(t0, WALL).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn where_nothing_better_comes_an_answer_serves_for_a_day() {
        let (mut cache, t0) = (Cache::new(Limits::default(), 10), Instant::now());
        let answer = found(60, None);
        cache.put("name", answer.clone(), t0, WALL);
        let (t1, wall) = (t0 + 100 * S, WALL + 100);
        let stale = |rests| Some(Hit::Stale { outcome: answer.clone(), rests });
        assert_eq!(cache.get("name", t1, wall), stale(false));
        // a failure does not take its place, and is not repeated for a while
        cache.put("name", Arc::new(Err(Trouble::Timeout)), t1, wall);
        assert_eq!(cache.get("name", t1 + 29 * S, wall + 29), stale(true));
        assert_eq!(cache.get("name", t1 + 30 * S, wall + 30), stale(false));
        assert_eq!(cache.get("name", t0 + 86_459 * S, WALL + 86_459), stale(false));
        assert_eq!(cache.get("name", t0 + 86_460 * S, WALL + 86_460), None);
        // what is said clearly does: a denial, a forgery, another answer
        for word in [missing(30), Arc::new(Err(Trouble::Bogus("no".into()))), found(60, None)] {
            cache.put("name", answer.clone(), t0, WALL);
            cache.put("name", word.clone(), t1, wall);
            assert!(
                matches!(cache.get("name", t1, wall), Some(Hit::Fresh(now, _)) if Arc::ptr_eq(&now, &word))
            );
        }
        let none = Limits { stale: Lifetime::NONE, ..Limits::default() };
        let mut cache = Cache::new(none, 10);
        cache.put("name", answer, t0, WALL);
        assert_eq!(cache.get("name", t1, wall), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_ends_when_it_would_have_ended() {
        let (mut cache, t0) = (Cache::new(Limits::default(), 10), Instant::now());
        cache.put("young", found(600, None), t0, WALL);
        cache.put("old", found(60, None), t0, WALL);
        cache.put("signed", found(600, Some(WALL + 300)), t0, WALL);
        cache.put("denied", missing(60), t0, WALL);
        let kept = cache.kept(t0 + 120 * S, WALL + 120);
        let names: Vec<_> = kept.iter().map(|kept| (kept.name.as_str(), kept.until - WALL)).collect();
        assert_eq!(names, [("old", 60), ("signed", 600), ("young", 600)]);
        // the machine was off for three minutes, and its clock of uptime begins anew
        let (mut next, t1) = (Cache::new(Limits::default(), 10), Instant::now() + 1_000_000 * S);
        next.restore(kept.clone(), t1, WALL + 300);
        assert_eq!(left(&mut next, "young", t1, WALL + 300), Some(300 * S));
        assert!(matches!(next.get("old", t1, WALL + 300), Some(Hit::Stale { .. })));
        assert_eq!(next.get("signed", t1, WALL + 300), None);
        // what is known already is better, and a clock that went back makes nothing last
        let fresh = found(10, None);
        let mut next = Cache::new(Limits::default(), 10);
        next.put("young", fresh.clone(), t1, WALL);
        next.restore(kept, t1, WALL - 1_000_000);
        assert_eq!(left(&mut next, "young", t1, WALL), Some(10 * S));
        assert_eq!(left(&mut next, "old", t1, WALL), Some(3600 * S));
    }
}
