//! Where a head's counter meets the host's clock, and how a restart of the head shows.
//!
//! A datagram, or a transfer over the bus, takes some time from the head to us, never less than none. So of all pairs (counter,
//! arrival) the one with the least delay tells best when a count really was, and the others are
//! placed by it. A count that fits no believable delay comes from a counter that was reset.

use std::time::Duration;

use crate::clock::Instant;
use crate::fns::Count;

/// The longest delay of a datagram that may still be one of the same counter.
const LATEST: Duration = Duration::from_secs(4);
/// Host and head may run apart by 100 ppm.
const DRIFT: u32 = 10_000;
/// However long a head was silent, drift explains no more than this.
const MOST_DRIFT: Duration = Duration::from_secs(60);

/// One counter, from one reset to the next.
#[derive(Debug, Clone, Copy)]
pub struct Timeline {
    count: Count,
    at: Instant,
}

impl Timeline {
    /// Begin with the first count that is heard.
    pub fn new(count: Count, arrival: Instant) -> Timeline {
        Timeline { count, at: arrival }
    }

    /// What the counter stands at, as far as is known: early by the least delay there was.
    pub fn count_at(&self, now: Instant) -> Count {
        self.count.plus(now.saturating_duration_since(self.at))
    }

    /// When a count was, on the host's clock; never later than `arrival`. `None`: the head's counter
    /// was reset since.
    pub fn place(&mut self, count: Count, arrival: Instant) -> Option<Instant> {
        let elapsed = arrival.saturating_duration_since(self.at);
        let drift = (elapsed / DRIFT).min(MOST_DRIFT);
        // modulo 2^32 like the counter itself
        let behind = self.count.plus(elapsed).0.wrapping_sub(count.0).cast_signed();
        let off = Duration::from_micros(behind.unsigned_abs().into());
        if off > LATEST + drift {
            return None;
        }
        if behind <= 0 {
            // less delay than ever: a better pair
            *self = Timeline { count, at: arrival };
            return Some(arrival);
        }
        // what drift may explain is no delay: so the pair also follows a host that runs faster
        let at = (arrival.checked_sub(off)? + drift).min(arrival);
        *self = Timeline { count, at };
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_late_datagram_is_placed_where_its_frame_was() {
        let t0 = Instant::now();
        let mut line = Timeline::new(Count(1_000_000), t0);
        // 0.13 ms may be drift
        assert_eq!(line.place(Count(2_000_000), t0 + 1300 * MS), Some(t0 + S + Duration::from_micros(130)));
        // two frames in one datagram: the first is the older
        assert_eq!(line.count_at(t0 + 1300 * MS), Count(2_299_870));
        let first = line.place(Count(2_500_000), t0 + 2 * S).unwrap() - t0;
        assert!(first >= 1500 * MS && first < 1501 * MS, "{first:?}");
        assert_eq!(line.place(Count(3_000_000), t0 + 2 * S), Some(t0 + 2 * S));
    }

    #[test]
    fn a_faster_datagram_gives_a_better_pair() {
        let t0 = Instant::now();
        let mut line = Timeline::new(Count(0), t0 + 800 * MS);
        assert_eq!(line.place(Count(1_000_000), t0 + 1010 * MS), Some(t0 + 1010 * MS));
        let at = line.place(Count(2_000_000), t0 + 2800 * MS).unwrap();
        assert!(at - t0 >= 2010 * MS && at - t0 < 2011 * MS);
    }

    #[test]
    fn a_reset_shows_and_a_wrap_does_not() {
        let t0 = Instant::now();
        let mut line = Timeline::new(Count(u32::MAX - 500_000), t0);
        assert!(line.place(Count(499_999), t0 + S).is_some());
        assert_eq!(line.place(Count(0), t0 + 20 * S), None);
        assert_eq!(line.place(Count(4_000_000_000), t0 + 20 * S), None);
        // a silence longer than the counter, then where it should be after 150 ppm less or more
        let later = 3 * 4295 * S;
        for apart in [-1, 1] {
            let mut line = Timeline::new(Count(0), t0);
            let micros = i64::try_from(later.as_micros()).unwrap();
            let count = (micros + apart * micros * 150 / 1_000_000).rem_euclid(1 << 32);
            assert!(line.place(Count(u32::try_from(count).unwrap()), t0 + later).is_some());
        }
    }

    #[test]
    fn a_host_that_runs_faster_is_followed() {
        let t0 = Instant::now();
        let mut line = Timeline::new(Count(0), t0);
        for minute in 1..=600_u32 {
            // 50 ppm
            let arrival = t0 + minute * 60 * S + minute * 3 * MS;
            let at = line.place(Count::plus(Count(0), minute * 60 * S), arrival).unwrap();
            assert!(arrival - at <= 4 * MS, "{minute}: {:?}", arrival - at);
        }
    }
}
