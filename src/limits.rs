//! How often something may happen: a request of a peer, a lookup for a stranger, a line in the log.
//!
//! Pure, and bounded in memory whatever strangers do. Used by every room that has a door to the outside.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Instant;

/// How long whoever came too often has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too often, try again in {:.2} s", .0.as_secs_f32())]
pub struct Wait(pub Duration);

/// So many at once, and one more each `every`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// The bucket's size; at least 1.
    pub burst: u32,
    /// One token comes back in this time; not zero.
    pub every: Duration,
}

impl Rate {
    /// So many a second, and those of three seconds at once.
    pub fn per_second(number: u32) -> Rate {
        let number = number.max(1);
        Rate { burst: number.saturating_mul(3), every: Duration::from_secs(1) / number }
    }
}

/// What to do with packets above a rate (TS002 table 18, ULRatePolicy and DLRatePolicy).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RatePolicy {
    /// They go no further.
    Drop,
    /// They go on, and count as out of profile.
    Mark,
}

/// A token bucket of a Service Profile (TS002 table 18): ULRate, ULBucketSize, ULRatePolicy, and the same for downlinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Packets an hour.
    pub rate: u32,
    /// Packets at once.
    pub bucket: u32,
    /// For those above.
    pub policy: RatePolicy,
}

impl RateLimit {
    /// More than any device may send. The table has no word for "no limit", and peers want all its elements.
    pub const NONE: RateLimit = RateLimit { rate: 1_000_000, bucket: 1_000, policy: RatePolicy::Mark };

    /// Whether it is no limit at all.
    pub fn is_none(&self) -> bool {
        self.rate >= RateLimit::NONE.rate
    }
}

impl From<RateLimit> for Rate {
    fn from(limit: RateLimit) -> Rate {
        let hour = Duration::from_secs(3600);
        // of none an hour comes back what nobody lives to see
        let every = hour.checked_div(limit.rate).unwrap_or(hour * 24 * 365);
        Rate { burst: limit.bucket, every }
    }
}

/// When a full bucket would be full again: the whole state of a token bucket.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bucket(Option<Instant>);

impl Bucket {
    /// Take a token, if there is one.
    pub fn take(&mut self, rate: Rate, now: Instant) -> Result<(), Wait> {
        let full = self.0.filter(|full| *full > now).unwrap_or(now) + rate.every;
        let missing = full - now;
        let room = rate.every.saturating_mul(rate.burst.max(1));
        if missing > room {
            return Err(Wait(missing - room));
        }
        self.0 = Some(full);
        Ok(())
    }

    fn is_full(&self, now: Instant) -> bool {
        self.0.is_none_or(|full| full <= now)
    }
}

/// A bucket for each of many; a full one is forgotten.
#[derive(Debug)]
pub struct Buckets<K> {
    rate: Rate,
    most: usize,
    buckets: BTreeMap<K, Bucket>,
}

impl<K: Ord> Buckets<K> {
    /// `most`: how many buckets are remembered. Beyond that a newcomer waits until an old one is full again.
    pub fn new(rate: Rate, most: usize) -> Buckets<K> {
        Buckets { rate, most, buckets: BTreeMap::new() }
    }

    /// Take a token of one.
    pub fn take(&mut self, key: K, now: Instant) -> Result<(), Wait> {
        if !self.buckets.contains_key(&key) && self.buckets.len() >= self.most {
            self.buckets.retain(|_, bucket| !bucket.is_full(now));
            if self.buckets.len() >= self.most {
                return Err(Wait(self.rate.every));
            }
        }
        let mut bucket = self.buckets.get(&key).copied().unwrap_or_default();
        bucket.take(self.rate, now)?;
        self.buckets.insert(key, bucket);
        Ok(())
    }

    /// Buckets remembered.
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }
}

/// How a packet stands to the rate that it is agreed to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// There was a token for it.
    Within,
    /// There is none: what the policy says.
    Above(RatePolicy),
}

/// A bucket for each of many, each with a rate of its own. Bounded: beyond `most`, one that is forgotten begins anew, full.
#[derive(Debug)]
pub struct Profiled<K> {
    most: usize,
    buckets: BTreeMap<K, Bucket>,
}

impl<K: Ord + Clone> Profiled<K> {
    /// `most`: how many buckets are remembered.
    pub fn new(most: usize) -> Profiled<K> {
        Profiled { most, buckets: BTreeMap::new() }
    }

    /// How the next packet of one would stand.
    pub fn standing(&self, key: &K, limit: RateLimit, now: Instant) -> Standing {
        let mut bucket = self.buckets.get(key).copied().unwrap_or_default();
        match limit.is_none() || bucket.take(limit.into(), now).is_ok() {
            true => Standing::Within,
            false => Standing::Above(limit.policy),
        }
    }

    /// A packet of one: takes a token, if there is one.
    pub fn spend(&mut self, key: &K, limit: RateLimit, now: Instant) -> Standing {
        if limit.is_none() {
            return Standing::Within;
        }
        if !self.buckets.contains_key(key) && self.buckets.len() >= self.most {
            self.buckets.retain(|_, bucket| !bucket.is_full(now));
            if self.buckets.len() >= self.most {
                self.buckets.pop_first();
            }
        }
        let bucket = self.buckets.entry(key.clone()).or_default();
        match bucket.take(limit.into(), now) {
            Ok(()) => Standing::Within,
            Err(_) => Standing::Above(limit.policy),
        }
    }
}

/// One household has one address of the old kind, and 2^64 of the new.
pub fn household(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        old => old,
    }
}

/// A cause is told once in this time.
const QUIET: Duration = Duration::from_secs(60);
/// Names remembered at most; those beyond share one.
const NAMES: usize = 256;
/// Causes of one name; those beyond share one. So nobody fills the log, and nobody silences another.
const CAUSES: usize = 16;
/// What of a cause is compared.
const COMPARED: usize = 160;

/// Tells each cause once a minute, and then how often it came up in between.
///
/// Two texts are one cause if they differ only in words with a digit in them: identifiers, counts and times.
#[derive(Debug, Default)]
pub struct Seldom {
    names: BTreeMap<String, BTreeMap<String, Told>>,
    /// Left out of causes that are remembered no more.
    forgotten: u64,
}

#[derive(Debug, Default)]
struct Told {
    at: Option<Instant>,
    left_out: u64,
}

impl Told {
    fn is_quiet(&self, now: Instant) -> bool {
        self.at.is_some_and(|at| now < at + QUIET)
    }
}

impl Seldom {
    /// `Some`: tell it now, with how many were left out since the last line. `None`: leave it out.
    pub fn tell(&mut self, name: &str, cause: &str, now: Instant) -> Option<u64> {
        let told = self.place(name, cause, now);
        if told.is_quiet(now) {
            told.left_out += 1;
            return None;
        }
        told.at = Some(now);
        let left_out = std::mem::take(&mut told.left_out);
        Some(left_out + std::mem::take(&mut self.forgotten))
    }

    fn place(&mut self, name: &str, cause: &str, now: Instant) -> &mut Told {
        let Seldom { names, forgotten } = self;
        let mut forget = |causes: &mut BTreeMap<String, Told>| {
            causes.retain(|_, told| {
                let keep = told.is_quiet(now);
                *forgotten += if keep { 0 } else { told.left_out };
                keep
            });
        };
        let mut name: String = name.chars().take(COMPARED).collect();
        if names.len() >= NAMES && !names.contains_key(&name) {
            names.retain(|_, causes| {
                forget(causes);
                !causes.is_empty()
            });
            if names.len() >= NAMES {
                name.clear();
            }
        }
        let causes = names.entry(name).or_default();
        let mut cause = essence(cause);
        if causes.len() >= CAUSES && !causes.contains_key(&cause) {
            forget(causes);
            if causes.len() >= CAUSES {
                cause.clear();
            }
        }
        causes.entry(cause).or_default()
    }
}

fn essence(cause: &str) -> String {
    let mut essence = String::new();
    for word in cause.split_whitespace().filter(|word| !word.bytes().any(|byte| byte.is_ascii_digit())) {
        if essence.len() + word.len() > COMPARED {
            break;
        }
        essence.push_str(word);
        essence.push(' ');
    }
    essence
}

/// How long something holds, such as a roaming context: a number with `s`, `m`, `h` or `d` behind it. In seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Lifetime(u32);

/// The longest Lifetime that is granted or believed: what was agreed longer ago may not be true any more.
const LONGEST: u32 = 30 * 24 * 3600;

/// Text that is no Lifetime.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no time from 0s to 30d: a number and one of s, m, h, d")]
pub struct NoLifetime(String);

impl Lifetime {
    /// Stateless.
    pub const NONE: Lifetime = Lifetime(0);

    /// Whether it is none at all.
    pub fn is_none(&self) -> bool {
        *self == Lifetime::NONE
    }

    /// Seconds, 0: stateless.
    pub const fn seconds(self) -> u32 {
        self.0
    }

    /// The same as a time.
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.0 as u64)
    }

    /// What an answer grants, as far as it is believed.
    pub fn of_seconds(seconds: u32) -> Lifetime {
        Lifetime(seconds.min(LONGEST))
    }
}

impl FromStr for Lifetime {
    type Err = NoLifetime;
    fn from_str(text: &str) -> Result<Lifetime, NoLifetime> {
        let wrong = || NoLifetime(text.chars().take(40).collect());
        let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
        let unit = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 24 * 3600,
            _ => return Err(wrong()),
        };
        let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let seconds = digits.then(|| number.parse::<u32>().ok()?.checked_mul(unit)).flatten();
        seconds.filter(|seconds| *seconds <= LONGEST).map(Lifetime).ok_or_else(wrong)
    }
}

impl fmt::Display for Lifetime {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(24 * 3600, 'd'), (3600, 'h'), (60, 'm')];
        let unit = units.into_iter().find(|(unit, _)| self.0 > 0 && self.0.is_multiple_of(*unit));
        let (unit, name) = unit.unwrap_or((1, 's'));
        write!(to, "{}{name}", self.0 / unit)
    }
}

impl TryFrom<String> for Lifetime {
    type Error = NoLifetime;
    fn try_from(text: String) -> Result<Lifetime, NoLifetime> {
        text.parse()
    }
}

impl From<Lifetime> for String {
    fn from(lifetime: Lifetime) -> String {
        lifetime.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_household_is_an_old_address_or_a_prefix_of_the_new_kind() {
        let of = |text: &str| household(text.parse().unwrap()).to_string();
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_then_one_at_a_time_and_each_key_for_itself() {
        let now = Instant::now();
        let mut buckets = Buckets::new(Rate { burst: 3, every: S }, 2);
        for _ in 0..3 {
            assert_eq!(buckets.take("a", now), Ok(()));
        }
        assert_eq!(buckets.take("a", now), Err(Wait(S)));
        assert_eq!(buckets.take("b", now), Ok(()));
        assert_eq!(buckets.take("c", now), Err(Wait(S)), "no room");
        assert_eq!(buckets.take("c", now + S), Ok(()), "b is full again and forgotten");
        assert_eq!((buckets.len(), buckets.is_empty()), (2, false));
        assert_eq!(buckets.take("a", now + S), Ok(()));
        assert!(buckets.take("a", now + S).is_err());
        let rate = Rate::per_second(0);
        assert_eq!((rate.burst, rate.every), (3, S), "none a second is no rate");
    }

    #[tokio::test(start_paused = true)]
    async fn a_cause_is_told_once_a_minute_and_the_next_line_says_how_many_were_left_out() {
        let (mut seldom, now) = (Seldom::default(), Instant::now());
        assert_eq!(seldom.tell("gw", "duty cycle: possible in 3.20 s", now), Some(0));
        for n in 1..60 {
            assert_eq!(seldom.tell("gw", &format!("duty cycle: possible in {n} s"), now + n * S), None);
        }
        assert_eq!(seldom.tell("gw", "too late", now + S), Some(0), "another cause");
        assert_eq!(seldom.tell("other", "duty cycle: possible in 1 s", now + S), Some(0), "somebody else");
        assert_eq!(seldom.tell("gw", "duty cycle: possible in 9 s", now + 60 * S), Some(59));
        assert_eq!(seldom.tell("gw", "duty cycle: possible in 9 s", now + 120 * S), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_fills_the_log_or_the_memory_and_nobody_silences_another() {
        let (mut seldom, now) = (Seldom::default(), Instant::now());
        let word = |n: usize| format!("{}{}", (b'a' + (n % 26) as u8) as char, "x".repeat(n / 26));
        let lines = (0..500).filter(|n| seldom.tell("loud", &word(*n), now).is_some()).count();
        assert_eq!(lines, CAUSES + 1);
        assert_eq!(seldom.tell("quiet", "a", now), Some(0));
        let lines = (0..5000).filter(|n| seldom.tell(&format!("name {n}"), "a", now).is_some()).count();
        assert_eq!(lines, NAMES - 2 + 1);
        assert!(seldom.names.len() <= NAMES + 1);
        // a minute later there is room again, and nothing that was left out is lost from the count
        let later = now + QUIET;
        assert_eq!(seldom.tell("new", "a", later), Some(500 - CAUSES as u64 - 1 + 5000 - (NAMES as u64 - 1)));
        assert_eq!(seldom.names.len(), 1);
        seldom.tell(&"x".repeat(10_000), &"y ".repeat(10_000), later);
        assert!(seldom.names.keys().all(|name| name.len() <= 4 * COMPARED));
    }

    const DROP: RateLimit = RateLimit { rate: 60, bucket: 2, policy: RatePolicy::Drop };

    #[test]
    fn each_has_its_own_rate_and_a_look_takes_nothing() {
        let (mut all, now) = (Profiled::new(8), Instant::now());
        for _ in 0..3 {
            assert_eq!(all.standing(&1, DROP, now), Standing::Within);
        }
        assert_eq!(
            [0; 3].map(|_| all.spend(&1, DROP, now)),
            [Standing::Within, Standing::Within, Standing::Above(RatePolicy::Drop)]
        );
        assert_eq!(all.standing(&1, DROP, now), Standing::Above(RatePolicy::Drop));
        let mark = RateLimit { policy: RatePolicy::Mark, ..DROP };
        assert_eq!(all.standing(&1, mark, now), Standing::Above(RatePolicy::Mark));
        assert_eq!(all.spend(&2, DROP, now), Standing::Within);
        assert_eq!(all.spend(&1, DROP, now + Duration::from_secs(59)), Standing::Above(RatePolicy::Drop));
        assert_eq!(all.spend(&1, DROP, now + Duration::from_secs(60)), Standing::Within);
        // what is no limit takes no memory
        for n in 0..100 {
            assert_eq!(all.spend(&n, RateLimit::NONE, now), Standing::Within);
        }
        assert_eq!(all.buckets.len(), 2);
        for n in 0..100 {
            all.spend(&n, DROP, now);
        }
        assert_eq!(all.buckets.len(), 8);
    }

    proptest! {
        /// Whatever a home says, and however the clock runs: no more than the bucket and what came back.
        #[test]
        fn foreign_rates_are_kept(rate: u32, bucket: u32, steps in proptest::collection::vec(0_u64..7200, 1..50)) {
            let limit = RateLimit { rate, bucket, policy: RatePolicy::Drop };
            let (mut all, begin) = (Profiled::new(1), Instant::now());
            let (mut now, mut passed) = (begin, 0_u64);
            for step in steps {
                now += Duration::from_secs(step);
                passed += u64::from(all.spend(&(), limit, now) == Standing::Within);
            }
            let back = (now - begin).as_secs_f64() * f64::from(rate) / 3600.0;
            prop_assert!(limit.is_none() || passed as f64 <= f64::from(bucket.max(1)) + back + 1e-6);
        }
    }

    #[test]
    fn a_lifetime_is_a_number_with_a_unit_and_reads_as_it_was_written() {
        for (text, seconds) in [("0s", 0), ("90s", 90), ("30m", 1800), ("1h", 3600), ("7d", 604_800)] {
            let lifetime: Lifetime = text.parse().unwrap();
            assert_eq!((lifetime.seconds(), &*lifetime.to_string()), (seconds, text));
        }
        for text in ["", "s", "1", "-1s", "+1s", "1.5h", "1 h", "31d", "99999999999s", "1w", "1\u{e9}"] {
            assert!(text.parse::<Lifetime>().is_err(), "{text}");
        }
        assert_eq!(Lifetime::of_seconds(u32::MAX).to_string(), "30d");
    }
}
