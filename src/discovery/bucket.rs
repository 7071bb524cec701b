//! Strangers cost little: how often unknown devices may make us look something up.
//!
//! Pure. One bucket per radio head and JoinEUI, so that one noisy maker of devices does not starve the others, and
//! one over all. Asked before any lookup for a device that is not ours.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Instant;
use crate::lorawan::{GatewayEui, JoinEui};

/// How long a stranger has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many lookups for unknown devices, try again in {:.1} s", .0.as_secs_f32())]
pub struct Wait(pub Duration);

/// So many at once, and one more each `every`.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// The bucket's size; at least 1.
    pub burst: u32,
    /// One token comes back in this time; not zero.
    pub every: Duration,
}

/// The buckets.
#[derive(Debug)]
pub struct Strangers {
    each: Rate,
    overall: Rate,
    all: Bucket,
    buckets: BTreeMap<(GatewayEui, JoinEui), Bucket>,
    most: usize,
}

/// When a full bucket would be full again: the whole state of a token bucket.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket(Option<Instant>);

impl Default for Strangers {
    /// 5 joins at once and one each 10 s from one radio head for one JoinEUI; 50 and 5 a second in all.
    fn default() -> Self {
        let each = Rate { burst: 5, every: Duration::from_secs(10) };
        Strangers::new(each, Rate { burst: 50, every: Duration::from_millis(200) }, 4096)
    }
}

impl Strangers {
    /// `most`: how many buckets are remembered. Beyond that a new pair waits until an old one is full again.
    pub fn new(each: Rate, overall: Rate, most: usize) -> Strangers {
        Strangers { each, overall, all: Bucket::default(), buckets: BTreeMap::new(), most }
    }

    /// May a lookup for a join with this JoinEUI, heard by this radio head, be made now? Yes takes a token.
    pub fn admit(&mut self, gateway: GatewayEui, join_eui: JoinEui, now: Instant) -> Result<(), Wait> {
        let key = (gateway, join_eui);
        if !self.buckets.contains_key(&key) && self.buckets.len() >= self.most {
            self.buckets.retain(|_, bucket| bucket.0.is_some_and(|full| full > now));
            if self.buckets.len() >= self.most {
                return Err(Wait(self.each.every));
            }
        }
        let mut bucket = self.buckets.get(&key).copied().unwrap_or_default();
        let mut all = self.all;
        // both or none: a refusal by one bucket takes nothing from the other
        bucket.take(self.each, now)?;
        all.take(self.overall, now)?;
        self.buckets.insert(key, bucket);
        self.all = all;
        Ok(())
    }
}

impl Bucket {
    fn take(&mut self, rate: Rate, now: Instant) -> Result<(), Wait> {
        let full = self.0.filter(|full| *full > now).unwrap_or(now) + rate.every;
        let missing = full - now;
        let room = rate.every.saturating_mul(rate.burst.max(1));
        if missing > room {
            return Err(Wait(missing - room));
        }
        self.0 = Some(full);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn gateway(n: u8) -> GatewayEui {
        GatewayEui::from_msb([0, 0, 0, 0, 0, 0, 0, n])
    }
    fn join_eui(n: u8) -> JoinEui {
        JoinEui::from_msb([n, 0, 0, 0, 0, 0, 0, 0])
    }

    #[tokio::test(start_paused = true)]
    async fn a_noisy_stranger_waits_and_others_do_not() {
        let now = Instant::now();
        let mut strangers =
            Strangers::new(Rate { burst: 2, every: 10 * S }, Rate { burst: 100, every: S }, 10);
        assert_eq!(strangers.admit(gateway(1), join_eui(1), now), Ok(()));
        assert_eq!(strangers.admit(gateway(1), join_eui(1), now), Ok(()));
        assert_eq!(strangers.admit(gateway(1), join_eui(1), now), Err(Wait(10 * S)));
        assert_eq!(strangers.admit(gateway(1), join_eui(1), now + 4 * S), Err(Wait(6 * S)));
        assert_eq!(strangers.admit(gateway(2), join_eui(1), now), Ok(()));
        assert_eq!(strangers.admit(gateway(1), join_eui(2), now), Ok(()));
        assert_eq!(strangers.admit(gateway(1), join_eui(1), now + 10 * S), Ok(()));
        assert!(strangers.admit(gateway(1), join_eui(1), now + 10 * S).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn all_strangers_together_have_a_limit_and_a_bounded_memory() {
        let now = Instant::now();
        let mut strangers = Strangers::new(Rate { burst: 1, every: 10 * S }, Rate { burst: 3, every: S }, 4);
        for n in 0..3 {
            assert_eq!(strangers.admit(gateway(1), join_eui(n), now), Ok(()));
        }
        assert_eq!(strangers.admit(gateway(1), join_eui(3), now), Err(Wait(S)));
        assert_eq!(strangers.admit(gateway(1), join_eui(3), now + S), Ok(()));
        assert_eq!(strangers.admit(gateway(1), join_eui(4), now + 2 * S), Err(Wait(10 * S)), "no room");
        assert_eq!(strangers.buckets.len(), 4);
        assert_eq!(
            strangers.admit(gateway(1), join_eui(4), now + 10 * S),
            Ok(()),
            "full buckets are forgotten"
        );
    }
}
