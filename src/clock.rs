//! The only reader of clocks and of system randomness.
//!
//! Monotonic time (`now`) serves windows, deadlines and lifetimes; it is tokio's instant, so tests
//! of procedures run on paused time. Wall time (`wall`) serves certificates, DNSSEC and records.
//! Everybody else gets time and chance as arguments.

#![allow(clippy::disallowed_methods)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};
use rand::{SeedableRng, TryRng, rngs::StdRng, rngs::SysRng};

/// The host's monotonic instant.
pub type Instant = tokio::time::Instant;

/// A handle on the machine's clocks. Clones share the hand-set offset of the wall clock.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: Source,
    /// Added to the machine's wall clock, in seconds: by hand in tests, and where GPS knows better.
    offset: AtomicI64,
    /// Added to what the machine says, in seconds: only tests set a machine's clock.
    set: AtomicI64,
    trusted: AtomicBool,
}

#[derive(Debug)]
enum Source {
    System,
    /// Wall time follows monotonic time from a fixed start: for paused time.
    Following {
        wall: Timestamp,
        from: Instant,
    },
}

impl Clock {
    /// The machine's own clocks.
    pub fn system() -> Clock {
        Clock::with(Source::System)
    }

    /// A wall clock that starts at `wall` and then follows monotonic time, so that paused time
    /// pauses it too.
    pub fn following(wall: Timestamp) -> Clock {
        Clock::with(Source::Following { wall, from: Instant::now() })
    }

    fn with(source: Source) -> Clock {
        Clock(Arc::new(Inner {
            source,
            offset: AtomicI64::new(0),
            set: AtomicI64::new(0),
            trusted: AtomicBool::new(true),
        }))
    }

    /// Monotonic now.
    pub fn now(&self) -> Instant {
        Instant::now()
    }

    /// Wall-clock now, UTC.
    pub fn wall(&self) -> Timestamp {
        shifted(self.machine(), &self.0.offset)
    }

    /// What the machine's own clock says, UTC, whatever we know better.
    pub fn machine(&self) -> Timestamp {
        let base = match &self.0.source {
            Source::System => Timestamp::try_from(SystemTime::now()).unwrap_or(Timestamp::UNIX_EPOCH),
            Source::Following { wall, from } => {
                let gone = SignedDuration::try_from(from.elapsed()).unwrap_or(SignedDuration::ZERO);
                wall.saturating_add(gone).unwrap_or(*wall)
            }
        };
        shifted(base, &self.0.set)
    }

    /// The machine's own clock is set, by NTP or by hand.
    #[cfg(test)]
    pub fn set_machine(&self, by: SignedDuration) {
        self.0.set.fetch_add(by.as_secs(), Ordering::Relaxed);
    }

    /// Seconds since 1970 of [`Clock::wall`], never negative.
    pub fn unix(&self) -> u64 {
        self.wall().as_second().max(0).unsigned_abs()
    }

    /// Move the wall clock by hand (tests, and GPS or NTP steps). Monotonic time never moves.
    pub fn move_wall(&self, by: SignedDuration) {
        self.0.offset.fetch_add(by.as_secs(), Ordering::Relaxed);
    }

    /// From now on wall time is the machine's again.
    pub fn follow_machine(&self) {
        self.0.offset.store(0, Ordering::Relaxed);
    }

    /// Whether wall time may be used to judge certificates and signatures.
    pub fn is_trusted(&self) -> bool {
        self.0.trusted.load(Ordering::Relaxed)
    }

    /// Say whether wall time may be trusted.
    pub fn set_trusted(&self, trusted: bool) {
        self.0.trusted.store(trusted, Ordering::Relaxed);
    }

    /// Sleep until a monotonic instant.
    pub async fn sleep_until(&self, at: Instant) {
        tokio::time::sleep_until(at).await;
    }

    /// Sleep for a monotonic duration.
    pub async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Fresh bytes of system randomness.
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        // A machine without randomness can keep no secret: there is nothing sensible to go on with.
        SysRng.try_fill_bytes(&mut bytes).expect("the system gives randomness");
        bytes
    }

    /// A generator for one decision, seeded from the system.
    pub fn rng(&self) -> StdRng {
        StdRng::from_seed(self.random())
    }
}

fn shifted(time: Timestamp, seconds: &AtomicI64) -> Timestamp {
    time.saturating_add(SignedDuration::from_secs(seconds.load(Ordering::Relaxed))).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_following_wall_clock_moves_with_paused_time_and_by_hand() {
        let start: Timestamp = "2026-11-20T10:00:00Z".parse().unwrap();
        let clock = Clock::following(start);
        clock.sleep(Duration::from_secs(90)).await;
        assert_eq!(clock.wall().as_second() - start.as_second(), 90);
        clock.clone().move_wall(SignedDuration::from_hours(1));
        assert_eq!(clock.wall().as_second() - start.as_second(), 90 + 3600);
    }
}
