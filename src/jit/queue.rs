//! What one transmitter will be given, and when: the just-in-time queue of a concentrator. Pure.
//!
//! [`Jit`](super::Jit) decides what may be on the air at all, for every head and on the host's clock; a frame that it let
//! through ends here, when the head is a concentrator of our own, and waits until the chip can take it. A chip holds one
//! transmission at a time, so it gets each a moment before its start. Times are counts: microseconds of the chip's
//! 32-bit counter, which wraps after 71.6 minutes, so nothing here compares two of them without saying from where.

use std::time::Duration;

/// A head prepares for so long before the first symbol, µs.
const START_DELAY: u32 = 1_500;
/// Kept between two transmissions, µs.
const MARGIN: u32 = 1_000;
/// How long before its start a frame is given to the chip, µs.
pub const LEAD: u32 = 40_000;
/// A class C frame without a time starts so long after it came, µs.
const AT_ONCE: u32 = 80_000;
/// What starts later than this is refused, and what is behind by less than a turn minus this was missed, µs: three
/// beacon periods and one of reserve.
const HORIZON: u32 = 4 * 128_000_000;
/// Silence before a beacon, µs (TS001: BEACON_GUARD).
const BEACON_GUARD: u32 = 3_000_000;
/// What a beacon takes, µs (TS001: BEACON_RESERVED).
const BEACON_RESERVED: u32 = 2_120_000;
/// Frames that wait at most.
pub const CAPACITY: usize = 32;

/// Why a frame waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// In a window that an uplink opened.
    ClassA,
    /// In a ping slot, which the time of the beacons opens.
    ClassB,
    /// As soon as it can be.
    ClassC,
    /// A beacon of class B.
    Beacon,
}

/// A frame in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<T> {
    /// Why it waits.
    pub kind: Kind,
    /// Its first symbol.
    pub count: u32,
    /// Whatever the caller wants back.
    pub what: T,
    /// From its start until the next may start, µs.
    post: u32,
}

/// Why a frame was not taken. Names of the packet forwarder's TX_ACK where it has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The queue holds [`CAPACITY`] frames.
    Full,
    /// It starts too soon to be prepared, or should have started.
    TooLate,
    /// It starts more than 512 s ahead.
    TooEarly,
    /// Another frame is on the air then.
    CollisionPacket,
    /// A beacon is on the air then, or is about to be.
    CollisionBeacon,
}

/// A frame that was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub why: Why,
    /// The earliest count at which a frame like it would be taken now; `None`: none within the horizon.
    pub earliest: Option<u32>,
}

/// What [`Queue::peek`] saw.
#[derive(Debug, PartialEq, Eq)]
pub struct Due<T> {
    /// Frames whose time had passed: they are no longer in the queue.
    pub missed: Vec<Entry<T>>,
    /// The place of the frame that must be given to the chip now.
    pub next: Option<usize>,
}

/// The queue of one transmitter, earliest first.
#[derive(Debug, Clone)]
pub struct Queue<T>(Vec<Entry<T>>);

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue(Vec::new())
    }
}

impl<T> Queue<T> {
    /// What waits, earliest first.
    pub fn entries(&self) -> &[Entry<T>] {
        &self.0
    }

    /// Take a frame that is on the air for `airtime` from `count`, where the counter stands at `now`. Answers the count it
    /// got: that of a class C frame is ours to choose.
    pub fn enqueue(
        &mut self,
        now: u32,
        kind: Kind,
        count: u32,
        airtime: Duration,
        what: T,
    ) -> Result<u32, Refused> {
        let post = match kind {
            Kind::Beacon => BEACON_RESERVED,
            _ => u32::try_from(airtime.as_micros()).unwrap_or(HORIZON).min(HORIZON),
        };
        let mut entry = Entry { kind, count, what, post };
        self.sort(now);
        let refused = |why, earliest| Err(Refused { why, earliest });
        if self.0.len() >= CAPACITY {
            let free = self.0.first().map_or(now, |first| first.count.wrapping_add(first.post));
            let from = if ahead(now, free) < HORIZON { free } else { now };
            return refused(Why::Full, self.earliest(now, &entry, from));
        }
        if kind == Kind::ClassC {
            entry.count = self.soonest(now, &entry);
        }
        if ahead(now, entry.count) <= START_DELAY + MARGIN + LEAD {
            return refused(Why::TooLate, self.earliest(now, &entry, now));
        }
        let scheduled = matches!(kind, Kind::ClassA | Kind::ClassB);
        if scheduled && ahead(now, entry.count) > HORIZON {
            // half a turn tells what was from what will be
            let passed = ahead(now, entry.count) > u32::MAX / 2;
            let earliest = if passed { self.earliest(now, &entry, now) } else { None };
            return refused(Why::TooEarly, earliest);
        }
        if let Some(other) = self.0.iter().find(|other| collide(&entry, other)) {
            let why = match other.kind {
                Kind::Beacon => Why::CollisionBeacon,
                _ => Why::CollisionPacket,
            };
            return refused(why, self.earliest(now, &entry, entry.count));
        }
        let count = entry.count;
        let place = self.0.partition_point(|other| signed(now, other.count) <= signed(now, count));
        self.0.insert(place, entry);
        Ok(count)
    }

    /// Drop what was missed, and tell what must be given to the chip now.
    pub fn peek(&mut self, now: u32) -> Due<T> {
        let missed = self.0.extract_if(.., |entry| ahead(now, entry.count) >= HORIZON).collect();
        self.sort(now);
        let next = self.0.first().filter(|first| ahead(now, first.count) < LEAD).map(|_| 0);
        Due { missed, next }
    }

    /// Take a frame out.
    pub fn remove(&mut self, place: usize) -> Option<Entry<T>> {
        (place < self.0.len()).then(|| self.0.remove(place))
    }

    /// Everything, earliest first: the chip starts anew and its counter with it.
    pub fn drain(&mut self) -> impl Iterator<Item = Entry<T>> + '_ {
        self.0.drain(..)
    }

    /// By distance from now, not by the counts: they wrap. What was missed comes first.
    fn sort(&mut self, now: u32) {
        self.0.sort_by_key(|entry| signed(now, entry.count));
    }

    /// Where a class C frame fits: soon, else after the first frame that leaves room before the next.
    fn soonest(&self, now: u32, entry: &Entry<T>) -> u32 {
        let soon = now.wrapping_add(AT_ONCE);
        if !self.0.iter().any(|other| collide_at(entry, soon, other)) {
            return soon;
        }
        let mut count = soon;
        for (place, other) in self.0.iter().enumerate() {
            count = after(entry, other);
            let next = self.0.get(place + 1);
            if !next.is_some_and(|next| collide_at(entry, count, next)) {
                break;
            }
        }
        count
    }

    /// The first count at or after `from`, and not too soon, at which nothing is in the way.
    fn earliest(&self, now: u32, entry: &Entry<T>, from: u32) -> Option<u32> {
        let least = START_DELAY + MARGIN + LEAD + 1;
        let from = if ahead(now, from) > HORIZON { 0 } else { ahead(now, from) };
        let mut count = now.wrapping_add(from.max(least));
        // each step goes past one of them at least, so this ends
        for _ in 0..=self.0.len() {
            if ahead(now, count) > HORIZON {
                return None;
            }
            let Some(other) = self.0.iter().find(|other| collide_at(entry, count, other)) else {
                return Some(count);
            };
            count = after(entry, other);
        }
        None
    }
}

/// How far `count` is ahead of `now`, µs, modulo a turn.
fn ahead(now: u32, count: u32) -> u32 {
    count.wrapping_sub(now)
}

/// The same, negative where it has passed.
fn signed(now: u32, count: u32) -> i32 {
    ahead(now, count).cast_signed()
}

/// What a frame needs before its start, µs.
fn pre(kind: Kind) -> u32 {
    START_DELAY + LEAD + if kind == Kind::Beacon { BEACON_GUARD } else { 0 }
}

/// The first count after `other` that leaves room for preparing `entry`.
fn after<T>(entry: &Entry<T>, other: &Entry<T>) -> u32 {
    other.count.wrapping_add(other.post + pre(entry.kind) + LEAD + MARGIN)
}

fn collide<T>(entry: &Entry<T>, other: &Entry<T>) -> bool {
    collide_at(entry, entry.count, other)
}

/// Whether `entry`, were it to start at `count`, and `other` are too close.
fn collide_at<T>(entry: &Entry<T>, count: u32, other: &Entry<T>) -> bool {
    // Answers of class A may use the guard of a beacon, ping slots may not.
    let guarded = other.kind != Kind::Beacon || !matches!(entry.kind, Kind::ClassA | Kind::ClassC);
    let pre_other = if guarded { pre(other.kind) } else { START_DELAY };
    ahead(other.count, count) <= pre(entry.kind) + other.post + MARGIN
        || ahead(count, other.count) <= pre_other + entry.post + MARGIN
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    fn kinds() -> impl Strategy<Value = Kind> {
        prop::sample::select(vec![Kind::ClassA, Kind::ClassB, Kind::ClassC, Kind::Beacon])
    }

    #[test]
    fn a_frame_is_due_forty_milliseconds_before_its_start_across_the_turn_of_the_counter() {
        let mut queue = Queue::default();
        let start = 30_000;
        let now = 0_u32.wrapping_sub(900_000);
        queue.enqueue(now, Kind::ClassA, start, 50 * MS, "answer").unwrap();
        queue.enqueue(now, Kind::ClassA, start - 400_000_u32.min(start), 50 * MS, "before").unwrap_err();
        // earlier, and on the other side of the turn
        queue.enqueue(now, Kind::ClassA, start.wrapping_sub(500_000), 50 * MS, "first").unwrap();
        assert_eq!(queue.entries().iter().map(|entry| entry.what).collect::<Vec<_>>(), ["first", "answer"]);
        assert_eq!(queue.peek(start.wrapping_sub(540_000)).next, None);
        assert_eq!(queue.peek(start.wrapping_sub(539_999)).next, Some(0));
        assert_eq!(queue.remove(0).unwrap().what, "first");
        assert_eq!(queue.peek(start.wrapping_sub(LEAD)).next, None);
        // nobody looked in time
        let due = queue.peek(start + 1);
        assert_eq!((due.missed[0].what, due.next), ("answer", None));
        assert!(queue.entries().is_empty());
    }

    #[test]
    fn several_missed_frames_go_at_once_and_the_one_behind_them_is_due() {
        let mut queue = Queue::default();
        for (place, what) in ["a", "b", "c"].into_iter().enumerate() {
            queue.enqueue(0, Kind::ClassA, 1_000_000 * (place as u32 + 1), 10 * MS, what).unwrap();
        }
        let due = queue.peek(2_970_000);
        assert_eq!(due.missed.iter().map(|entry| entry.what).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(due.next, Some(0));
    }

    #[test]
    fn refusals_tell_when() {
        let mut queue = Queue::default();
        assert_eq!(queue.enqueue(0, Kind::ClassC, 0, 100 * MS, ()), Ok(80_000));
        let refused = queue.enqueue(0, Kind::ClassA, 42_500, 10 * MS, ()).unwrap_err();
        assert_eq!(refused.why, Why::TooLate);
        let earliest = refused.earliest.unwrap();
        assert_eq!(queue.enqueue(0, Kind::ClassA, earliest, 10 * MS, ()), Ok(earliest));
        let far = queue.enqueue(0, Kind::ClassB, HORIZON + 1, 10 * MS, ()).unwrap_err();
        assert_eq!(far, Refused { why: Why::TooEarly, earliest: None });
        let guard = queue.enqueue(0, Kind::Beacon, 90_000_000, 10 * MS, ()).unwrap();
        let slot = queue.enqueue(0, Kind::ClassB, guard - 1_000_000, 10 * MS, ()).unwrap_err();
        assert_eq!(slot.why, Why::CollisionBeacon);
        // what answers an uplink may
        queue.enqueue(0, Kind::ClassA, guard - 1_000_000, 10 * MS, ()).unwrap();
    }

    #[test]
    fn thirty_two_frames_wait_at_most() {
        let mut queue = Queue::default();
        for place in 0..CAPACITY as u32 {
            queue.enqueue(0, Kind::ClassA, 1_000_000 * (place + 1), 10 * MS, place).unwrap();
        }
        let refused = queue.enqueue(0, Kind::ClassC, 0, 10 * MS, 99).unwrap_err();
        assert_eq!(refused.why, Why::Full);
        assert!(refused.earliest.is_some_and(|earliest| earliest > 1_000_000), "the first must be gone");
    }

    proptest! {
        /// Whatever is asked at whatever count: what was taken never overlaps, is in order, and an earliest time that
        /// was named is one.
        #[test]
        fn nothing_overlaps_and_what_was_promised_holds(
            begin: u32,
            asked in proptest::collection::vec((kinds(), 0_u32..600_000_000, 0_u64..3_000, 0_u32..2_000_000), 1..80),
        ) {
            let mut queue = Queue::default();
            let mut now = begin;
            for (kind, ahead_us, airtime, pause) in asked {
                now = now.wrapping_add(pause);
                let due = queue.peek(now);
                prop_assert!(due.missed.iter().all(|missed| ahead(now, missed.count) >= HORIZON));
                if let Some(place) = due.next {
                    queue.remove(place);
                }
                let before = queue.entries().len();
                match queue.enqueue(now, kind, now.wrapping_add(ahead_us), airtime as u32 * MS, ()) {
                    Ok(count) => prop_assert!(ahead(now, count) > START_DELAY + MARGIN + LEAD),
                    Err(Refused { why, earliest }) => {
                        prop_assert_eq!(queue.entries().len(), before);
                        if let (Some(earliest), true) = (earliest, why != Why::Full && kind != Kind::ClassC) {
                            let got = queue.clone().enqueue(now, kind, earliest, airtime as u32 * MS, ());
                            prop_assert_eq!(got, Ok(earliest));
                        }
                    }
                }
                for pair in queue.entries().windows(2) {
                    prop_assert!(ahead(now, pair[0].count) <= ahead(now, pair[1].count));
                    let end = pair[0].count.wrapping_add(pair[0].post);
                    prop_assert!(ahead(end, pair[1].count) < u32::MAX / 2, "{:?}", pair);
                }
            }
        }
    }
}
