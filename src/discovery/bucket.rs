//! Strangers cost little: how often unknown devices may make us look something up.
//!
//! Pure. One bucket per radio head and JoinEUI, so that one noisy maker of devices does not starve the others, and
//! one over all. Asked before any lookup for a device that is not ours.

use std::time::Duration;

use crate::clock::Instant;
use crate::limits::{Bucket, Buckets};
use crate::lorawan::{GatewayEui, JoinEui};

pub use crate::limits::{Rate, Wait};

/// The buckets.
#[derive(Debug)]
pub struct Strangers {
    overall: Rate,
    all: Bucket,
    each: Buckets<(GatewayEui, JoinEui)>,
}

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
        Strangers { overall, all: Bucket::default(), each: Buckets::new(each, most) }
    }

    /// May a lookup for a join with this JoinEUI, heard by this radio head, be made now? Yes takes a token.
    pub fn admit(&mut self, gateway: GatewayEui, join_eui: JoinEui, now: Instant) -> Result<(), Wait> {
        // both or none: a refusal by one bucket takes nothing from the other
        let mut all = self.all;
        all.take(self.overall, now)?;
        self.each.take((gateway, join_eui), now)?;
        self.all = all;
        Ok(())
    }

    /// Buckets remembered.
    pub fn remembered(&self) -> usize {
        self.each.len()
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
        assert_eq!(strangers.remembered(), 4);
        assert_eq!(
            strangers.admit(gateway(1), join_eui(4), now + 10 * S),
            Ok(()),
            "full buckets are forgotten"
        );
    }
}
