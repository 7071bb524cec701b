//! Which transmission does a hearing belong to? Pure; lives in memory, where it may be lost.
//!
//! Several heads hear one transmission (copies), and a device sends the same bytes again
//! (repetitions, which want an answer of their own). Bytes alone do not tell the two apart, and arrival
//! times do not either: datagrams of two heads take different ways. What is exact is the interval between
//! two counts of one head. So a head that hears two transmissions is compared by intervals, and from
//! frames that two heads heard both it is learnt how their counters lie to each other.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Instant;
use crate::lorawan::GatewayEui;

use super::{Count, Heard, Hearing};

/// A copy is no further from the first hearing than this; what arrives later is not credited.
const WINDOW: Duration = Duration::from_secs(2);
/// Two modems of one head may report one frame, and counters run apart; a device cannot repeat a frame
/// this fast.
const SAME: Duration = Duration::from_millis(20);
/// A transmission is remembered while any of its windows may still be open.
const KEEP: Duration = Duration::from_secs(20);
/// Transmissions remembered at most; the oldest go first, which costs a second look at a copy.
const TRANSMISSIONS: usize = 8192;
/// Transmissions of one frame that a hearing is compared with: the latest.
const REPETITIONS: usize = 8;
/// Pairs of heads remembered at most, and for how long: until then two counters drift apart by less
/// than a tenth of a second.
const PAIRS: usize = 1024;
const PAIR_KEPT: Duration = Duration::from_secs(600);
/// Instants of two heads differ by less than this, as the ways of their datagrams do.
const DISAGREE: Duration = Duration::from_millis(500);
/// Two counters run apart by this part of the time at most: 1/5,000 is 200 ppm.
const DRIFT: u32 = 5_000;

/// What a hearing is. Numbers name transmissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The first hearing of these bytes.
    First(u64),
    /// The same transmission, heard by another head or by another modem.
    Copy,
    /// The same, but its message went long ago and its first window is over.
    Late,
    /// The device sent the same bytes again: it wants an answer of its own.
    Repetition(u64),
}

/// A radio head in one of its radio sessions: one counter.
type Head = (GatewayEui, u64);

/// One head's hearing of a transmission.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ear {
    /// The radio head.
    pub gateway: GatewayEui,
    /// Its radio session.
    pub session: u64,
    /// Its counter at the end of the frame.
    pub tmst: Count,
    /// The host's instant then, as well as it is known.
    pub at: Instant,
    /// dBm.
    pub rssi: i32,
    /// dB.
    pub snr: f64,
    /// Degrees latitude, longitude of the head, where known.
    pub location: Option<(f64, f64)>,
    /// Nanoseconds since the last pulse of GPS, where the head measures them.
    pub fine_time: Option<u32>,
    late: bool,
}

impl From<&Heard> for Ear {
    fn from(heard: &Heard) -> Ear {
        Ear {
            gateway: heard.gateway,
            session: heard.session,
            tmst: heard.tmst,
            at: heard.at,
            rssi: heard.rssi,
            snr: heard.snr,
            location: heard.location,
            fine_time: heard.fine_time,
            late: false,
        }
    }
}

impl From<&Hearing> for Ear {
    /// The head that a token names; how well it heard is not known any more.
    fn from(hearing: &Hearing) -> Ear {
        Ear {
            gateway: hearing.gateway,
            session: hearing.session,
            tmst: hearing.tmst,
            at: hearing.at,
            rssi: 0,
            snr: 0.0,
            location: None,
            fine_time: None,
            late: false,
        }
    }
}

impl Ear {
    fn head(&self) -> Head {
        (self.gateway, self.session)
    }

    /// Microseconds from another count of the same head to this one.
    fn after(&self, other: &Ear) -> i32 {
        self.tmst.0.wrapping_sub(other.tmst.0).cast_signed()
    }
}

/// Frames heard lately, and how the counters of heads lie to each other.
#[derive(Debug, Default)]
pub struct Dedup {
    frames: BTreeMap<Arc<[u8]>, Vec<u64>>,
    transmissions: BTreeMap<u64, Transmission>,
    next: u64,
    pairs: BTreeMap<(Head, Head), Pair>,
}

#[derive(Debug)]
struct Transmission {
    phy: Arc<[u8]>,
    arrived: Instant,
    ears: Vec<Ear>,
}

/// The counter of the second head when that of the first is 0, modulo 2^32.
#[derive(Debug, Clone, Copy)]
struct Pair {
    offset: u32,
    at: Instant,
    /// How often it was seen, less what spoke against it.
    seen: u8,
}

impl Dedup {
    /// Take note of a hearing and say what it is. `now` never goes back.
    pub fn first(&mut self, heard: &Heard, now: Instant) -> Seen {
        self.forget(now);
        let mut ear = Ear::from(heard);
        let Some(numbers) = self.frames.get(heard.phy.as_slice()).cloned() else {
            return Seen::First(self.begin(heard.phy.as_slice().into(), ear, now));
        };
        let known = |other: &Ear| other.head() == ear.head() && micros(other.after(&ear)) <= SAME;
        if self.ears(&numbers).any(|(_, other)| known(other)) {
            return Seen::Copy;
        }
        self.correct(&numbers, &mut ear);
        let Some(number) = self.belongs_to(&numbers, &ear, now) else {
            return Seen::Repetition(self.begin(heard.phy.as_slice().into(), ear, now));
        };
        let Some(transmission) = self.transmissions.get_mut(&number) else { return Seen::Copy };
        ear.late = now.saturating_duration_since(transmission.arrived) >= WINDOW;
        let others = transmission.ears.clone();
        transmission.ears.push(ear);
        others.iter().for_each(|other| self.learn(other, &ear, now));
        if ear.late { Seen::Late } else { Seen::Copy }
    }

    /// Heads that have not heard this transmission, but other frames lately that its heads heard too.
    pub fn neighbours(&self, number: u64, now: Instant) -> BTreeSet<GatewayEui> {
        let Some(transmission) = self.transmissions.get(&number) else { return BTreeSet::new() };
        let has = |head: &Head| transmission.ears.iter().any(|ear| ear.head() == *head);
        let lately = |pair: &Pair| now.saturating_duration_since(pair.at) < PAIR_KEPT;
        let pairs = self.pairs.iter().filter(|(_, pair)| lately(pair));
        let others = pairs.filter_map(|((one, other), _)| match (has(one), has(other)) {
            (true, false) => Some(other.0),
            (false, true) => Some(one.0),
            _ => None,
        });
        others.collect()
    }

    /// Every head that heard a transmission in time; none where it is forgotten.
    pub fn heard_by(&self, number: u64) -> impl Iterator<Item = &Ear> {
        let ears = self.transmissions.get(&number).map(|known| known.ears.as_slice()).unwrap_or_default();
        ears.iter().filter(|ear| !ear.late)
    }

    /// Something that nobody heard before.
    fn begin(&mut self, phy: Arc<[u8]>, ear: Ear, now: Instant) -> u64 {
        let number = self.next;
        self.next += 1;
        let numbers = self.frames.entry(phy.clone()).or_default();
        numbers.push(number);
        let gone = (numbers.len() > REPETITIONS).then(|| numbers.remove(0));
        self.transmissions.insert(number, Transmission { phy, arrived: now, ears: vec![ear] });
        if let Some(gone) = gone {
            self.transmissions.remove(&gone);
        }
        number
    }

    fn ears<'a>(&'a self, numbers: &'a [u64]) -> impl Iterator<Item = (u64, &'a Ear)> {
        let known = numbers.iter().filter_map(|number| Some((*number, self.transmissions.get(number)?)));
        known.flat_map(|(number, known)| known.ears.iter().map(move |ear| (number, ear)))
    }

    /// A datagram is late and never early, so of one head's instants the earliest is right, and the
    /// counter tells the others.
    fn correct(&mut self, numbers: &[u64], ear: &mut Ear) {
        let earlier = |at: Instant, after: i32| {
            if after >= 0 { at.checked_add(micros(after)) } else { at.checked_sub(micros(after)) }
        };
        for number in numbers {
            let Some(known) = self.transmissions.get_mut(number) else { continue };
            let head = ear.head();
            for other in known.ears.iter_mut().filter(|other| other.head() == head) {
                ear.at = earlier(other.at, ear.after(other)).map_or(ear.at, |at| at.min(ear.at));
                other.at = earlier(ear.at, other.after(ear)).map_or(other.at, |at| at.min(other.at));
            }
        }
    }

    /// The transmission, of those with these bytes, that a hearing is of.
    fn belongs_to(&mut self, numbers: &[u64], ear: &Ear, now: Instant) -> Option<u64> {
        let all: Vec<Placed> = self.ears(numbers).map(|(number, ear)| Placed { number, ear: *ear }).collect();
        let (own, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| one.ear.head() == ear.head());
        let mut possible = Vec::new();
        for other in &others {
            match self.same(&other.ear, ear, now) {
                Some(true) => return Some(other.number),
                Some(false) => self.doubt(&other.ear, ear),
                None if apart(ear.at, other.ear.at) < WINDOW => possible.push(*other),
                None => {}
            }
        }
        if let Some((number, agree)) = by_interval(&own, &possible, &others, ear) {
            agree.into_iter().for_each(|(mine, to)| self.move_ear(mine, to));
            return Some(number);
        }
        // what the head has heard already, or what has another interval, it is not
        let taken = |number| own.iter().any(|mine| mine.number == number);
        let heads: Vec<Head> =
            possible.iter().filter(|other| taken(other.number)).map(|other| other.ear.head()).collect();
        possible
            .into_iter()
            .filter(|other| !taken(other.number) && !heads.contains(&other.ear.head()))
            .min_by_key(|other| apart(ear.at, other.ear.at))
            .map(|other| other.number)
    }

    fn move_ear(&mut self, mine: Placed, to: u64) {
        if let Some(from) = self.transmissions.get_mut(&mine.number) {
            from.ears.retain(|ear| *ear != mine.ear);
        }
        if let Some(to) = self.transmissions.get_mut(&to) {
            to.ears.push(mine.ear);
        }
    }

    /// Whether two hearings are of one transmission, where that is known of their heads.
    fn same(&self, a: &Ear, b: &Ear, now: Instant) -> Option<bool> {
        let (a, b) = in_order(a, b);
        let pair = self.pairs.get(&(a.head(), b.head())).filter(|pair| pair.seen >= 2)?;
        let age = now.saturating_duration_since(pair.at);
        if age >= PAIR_KEPT {
            return None;
        }
        Some(micros(offset(a, b).wrapping_sub(pair.offset).cast_signed()) <= SAME + age / DRIFT)
    }

    /// Two heads heard one transmission, or so it seems.
    fn learn(&mut self, a: &Ear, b: &Ear, now: Instant) {
        let (a, b) = in_order(a, b);
        let offset = offset(a, b);
        if self.pairs.len() >= PAIRS {
            self.pairs.retain(|_, pair| now.saturating_duration_since(pair.at) < PAIR_KEPT);
            if self.pairs.len() >= PAIRS {
                self.pairs.clear();
            }
        }
        let pair = self.pairs.entry((a.head(), b.head())).or_insert(Pair { offset, at: now, seen: 0 });
        let age = now.saturating_duration_since(pair.at);
        if micros(offset.wrapping_sub(pair.offset).cast_signed()) <= SAME + age / DRIFT {
            *pair = Pair { offset, at: now, seen: pair.seen.saturating_add(1).min(4) };
        } else {
            *pair = Pair { offset, at: now, seen: 1 };
        }
    }

    /// What is believed of two heads keeps two hearings apart. Where their instants do not say so too, that
    /// counts against it: believed too often, it is wrong.
    fn doubt(&mut self, a: &Ear, b: &Ear) {
        let (a, b) = in_order(a, b);
        let Some(pair) = self.pairs.get_mut(&(a.head(), b.head())) else { return };
        let interval = micros(offset(a, b).wrapping_sub(pair.offset).cast_signed());
        if interval.abs_diff(apart(a.at, b.at)) >= DISAGREE {
            pair.seen = pair.seen.saturating_sub(1);
        }
    }

    fn forget(&mut self, now: Instant) {
        while let Some(oldest) = self.transmissions.first_entry() {
            let old = now.saturating_duration_since(oldest.get().arrived) >= KEEP;
            if !old && self.transmissions.len() < TRANSMISSIONS {
                break;
            }
            let Some((number, gone)) = self.transmissions.pop_first() else { break };
            let Some(numbers) = self.frames.get_mut(&gone.phy) else { continue };
            numbers.retain(|kept| *kept != number);
            if numbers.is_empty() {
                self.frames.remove(&gone.phy);
            }
        }
    }
}

/// A hearing and the transmission that it is thought to be of.
#[derive(Debug, Clone, Copy)]
struct Placed {
    number: u64,
    ear: Ear,
}

/// A head that heard another transmission of this frame too, as some other head did: if the intervals agree,
/// they heard the same two, whatever was thought before. Gives the transmission, and where the head's
/// other hearings belong.
fn by_interval(
    own: &[Placed],
    possible: &[Placed],
    others: &[Placed],
    ear: &Ear,
) -> Option<(u64, Vec<(Placed, u64)>)> {
    let with = |other: &Placed| {
        let agrees = |mine: &Placed| {
            let theirs = others.iter().find(|theirs| {
                let interval = theirs.ear.after(&other.ear);
                theirs.ear.head() == other.ear.head()
                    && theirs.number != other.number
                    && micros(mine.ear.after(ear).wrapping_sub(interval)) <= SAME
            })?;
            Some((*mine, theirs.number))
        };
        let agree: Vec<_> = own.iter().filter_map(agrees).collect();
        // a head hears a transmission once
        let free = own
            .iter()
            .all(|mine| mine.number != other.number || agree.iter().any(|(known, _)| known.ear == mine.ear));
        (free && !agree.is_empty()).then_some((other.number, agree, apart(ear.at, other.ear.at)))
    };
    let found = possible.iter().filter_map(with);
    let best = found.max_by_key(|(_, agree, apart)| (agree.len(), Reverse(*apart)));
    best.map(|(number, agree, _)| (number, agree))
}

fn in_order<'a>(a: &'a Ear, b: &'a Ear) -> (&'a Ear, &'a Ear) {
    if a.head() <= b.head() { (a, b) } else { (b, a) }
}

fn offset(a: &Ear, b: &Ear) -> u32 {
    b.tmst.0.wrapping_sub(a.tmst.0)
}

fn micros(interval: i32) -> Duration {
    Duration::from_micros(interval.unsigned_abs().into())
}

fn apart(a: Instant, b: Instant) -> Duration {
    a.max(b).duration_since(a.min(b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::heard;
    use super::*;

    const GW1: GatewayEui = GatewayEui::from_msb([1; 8]);
    const GW2: GatewayEui = GatewayEui::from_msb([2; 8]);
    const MS: Duration = Duration::from_millis(1);

    /// A hearing at `at`, by a head whose counter was `origin` at `t0`.
    fn hears(gateway: GatewayEui, origin: u32, t0: Instant, at: Duration, phy: &[u8]) -> Heard {
        let tmst = Count(origin).plus(at);
        Heard { at: t0 + at, ..heard(gateway, tmst.0, phy) }
    }

    fn heads(dedup: &Dedup, number: u64) -> Vec<GatewayEui> {
        dedup.heard_by(number).map(|ear| ear.gateway).collect()
    }

    #[test]
    fn a_frame_heard_by_two_heads_is_one_frame_and_both_are_credited() {
        let (mut dedup, t0) = (Dedup::default(), Instant::now());
        assert_eq!(dedup.first(&heard(GW1, 1000, b"frame"), t0), Seen::First(0));
        assert_eq!(dedup.first(&heard(GW2, 77, b"frame"), t0 + 80 * MS), Seen::Copy);
        assert_eq!(dedup.first(&heard(GW1, 1000, b"other"), t0), Seen::First(1));
        assert_eq!((heads(&dedup, 0), heads(&dedup, 1)), (vec![GW1, GW2], vec![GW1]));
        assert_eq!(dedup.heard_by(2).count(), 0);
    }

    #[test]
    fn one_head_may_report_a_frame_twice_but_a_later_count_is_a_repetition() {
        let (mut dedup, t0) = (Dedup::default(), Instant::now());
        let wrapped = u32::MAX - 10;
        assert_eq!(dedup.first(&heard(GW1, wrapped, b"frame"), t0), Seen::First(0));
        assert_eq!(dedup.first(&heard(GW1, wrapped.wrapping_add(5), b"frame"), t0), Seen::Copy);
        assert_eq!(dedup.heard_by(0).count(), 1, "one head");
        let later = hears(GW1, wrapped, t0, 1500 * MS, b"frame");
        assert_eq!(dedup.first(&later, t0 + 1500 * MS), Seen::Repetition(1));
    }

    #[test]
    fn a_copy_that_comes_after_two_seconds_is_late_and_not_credited() {
        let (mut dedup, t0) = (Dedup::default(), Instant::now());
        assert_eq!(dedup.first(&heard(GW1, 0, b"frame"), t0), Seen::First(0));
        let slow = hears(GW2, 9, t0, 5 * MS, b"frame");
        assert_eq!(dedup.first(&slow, t0 + WINDOW), Seen::Late);
        assert_eq!(heads(&dedup, 0), [GW1]);
        // heard two seconds apart: the device sent it again
        let again = hears(GatewayEui::from_msb([3; 8]), 0, t0, WINDOW + 5 * MS, b"frame");
        assert_eq!(dedup.first(&again, t0 + WINDOW + 9 * MS), Seen::Repetition(1));
        // and after all windows nothing is remembered
        assert_eq!(dedup.first(&hears(GW1, 0, t0, 2 * KEEP, b"frame"), t0 + 2 * KEEP), Seen::First(2));
        assert_eq!((dedup.frames.len(), dedup.transmissions.len()), (1, 1));
    }

    #[test]
    fn heads_that_heard_two_frames_together_are_known_and_a_lost_hearing_confuses_nobody() {
        let (mut dedup, t0) = (Dedup::default(), Instant::now());
        for (n, phy) in [b"1", b"2"].iter().enumerate() {
            let at = n as u32 * 3000 * MS;
            let number = n as u64;
            assert_eq!(dedup.first(&hears(GW1, 5, t0, at, *phy), t0 + at), Seen::First(number));
            assert_eq!(dedup.first(&hears(GW2, 4_000_000_000, t0, at, *phy), t0 + at), Seen::Copy);
        }
        // GW1 hears the first transmission only, GW2 the second only, little more than a second later
        let (first, second) = (9000 * MS, 10_100 * MS);
        assert_eq!(dedup.first(&hears(GW1, 5, t0, first, b"3"), t0 + first), Seen::First(2));
        let repeated = hears(GW2, 4_000_000_000, t0, second, b"3");
        assert_eq!(dedup.first(&repeated, t0 + second), Seen::Repetition(3));
    }

    #[test]
    fn what_was_learnt_wrongly_is_unlearnt() {
        let (mut dedup, t0) = (Dedup::default(), Instant::now());
        // twice GW1 lost the second transmission and GW2 the first, with one and the same pause
        let frame = |n: u32| n.to_be_bytes();
        for n in 0..2 {
            let at = n * 5000 * MS;
            dedup.first(&hears(GW1, 5, t0, at, &frame(n)), t0 + at);
            dedup.first(&hears(GW2, 9, t0, at + 1200 * MS, &frame(n)), t0 + at + 1200 * MS);
        }
        let mut seen = Vec::new();
        for n in 2..9 {
            let at = n * 5000 * MS;
            dedup.first(&hears(GW1, 5, t0, at, &frame(n)), t0 + at);
            seen.push(dedup.first(&hears(GW2, 9, t0, at, &frame(n)), t0 + at));
        }
        assert!(seen[3..].iter().all(|seen| *seen == Seen::Copy), "{seen:?}");
    }

    #[test]
    fn what_is_kept_stays_small() {
        let (mut dedup, t0) = (Dedup::default(), Instant::now());
        for n in 0..20_000_u32 {
            let now = t0 + n * MS / 10;
            dedup.first(&heard(GW1, n, &n.to_be_bytes()), now);
            // the same bytes over and over
            dedup.first(&hears(GW2, 0, t0, n * 50 * MS, b"flood"), now);
            let gateway = GatewayEui::from_msb(u64::from(n % 300).to_be_bytes());
            dedup.first(&heard(gateway, n % 300, b"everybody"), now);
        }
        assert!(dedup.transmissions.len() <= TRANSMISSIONS && dedup.frames.len() <= TRANSMISSIONS);
        assert!(dedup.frames[&b"flood"[..]].len() <= REPETITIONS);
        assert!(dedup.pairs.len() <= PAIRS);
    }

    /// A head whose datagrams come late. As a radio does, it places a count by the least delay so far.
    struct Slow {
        gateway: GatewayEui,
        origin: u32,
        least: Option<Duration>,
    }

    impl Slow {
        fn hears(&mut self, t0: Instant, at: Duration, arrives: Duration, phy: &[u8]) -> Heard {
            let delay = arrives - at;
            let least = self.least.map_or(delay, |least| least.min(delay));
            self.least = Some(least);
            let heard = hears(self.gateway, self.origin, t0, at, phy);
            Heard { at: t0 + at + least, ..heard }
        }
    }

    proptest! {
        /// Two heads that nothing is known of hear both transmissions: whatever the delays and the order.
        #[test]
        fn two_transmissions_that_two_heads_hear_are_two(
            pause in 1_000_u64..6_000,
            delays in [0_u64..1_900, 0..1_900, 0..1_900, 0..1_900],
            origins in any::<[u32; 2]>(),
        ) {
            let (mut dedup, t0) = (Dedup::default(), Instant::now());
            let mut heads = [(GW1, origins[0]), (GW2, origins[1])]
                .map(|(gateway, origin)| Slow { gateway, origin, least: None });
            let mut arrivals: Vec<(Duration, usize, Duration)> = (0..4)
                .map(|n| {
                    let at = Duration::from_millis(pause * (n as u64 / 2));
                    (at + Duration::from_millis(delays[n]), n % 2, at)
                })
                .collect();
            arrivals.sort();
            let mut seen = Vec::new();
            for (arrives, head, at) in arrivals {
                let heard = heads[head].hears(t0, at, arrives, b"frame");
                seen.push(dedup.first(&heard, t0 + arrives));
            }
            let own = seen.iter().filter(|seen| matches!(seen, Seen::First(_) | Seen::Repetition(_))).count();
            prop_assert_eq!(own, 2, "{:?}", seen);
            for number in 0..2 {
                let counts: Vec<u32> = dedup.transmissions[&number]
                    .ears
                    .iter()
                    .map(|ear| ear.tmst.0.wrapping_sub(origins[usize::from(ear.gateway == GW2)]))
                    .collect();
                prop_assert!(counts.len() == 2 && counts[0] == counts[1], "{:?}", counts);
            }
        }

        /// Heads that are known to each other: also where hearings are lost.
        #[test]
        fn between_heads_that_are_known_every_transmission_is_one(
            pauses in proptest::collection::vec(1_000_u64..4_000, 1..5),
            lost in any::<u16>(),
            delays in proptest::collection::vec(0_u64..900, 16),
            origins in any::<[u32; 3]>(),
        ) {
            let (mut dedup, t0) = (Dedup::default(), Instant::now());
            let gateways = [GW1, GW2, GatewayEui::from_msb([3; 8])];
            for n in 0..2_u32 {
                for (gateway, origin) in gateways.iter().zip(origins) {
                    let at = n * 1000 * MS;
                    dedup.first(&hears(*gateway, origin, t0, at, &n.to_be_bytes()), t0 + at);
                }
            }
            let (mut arrivals, mut at, mut expected) = (Vec::new(), 10_000 * MS, 0);
            for (n, pause) in pauses.iter().enumerate() {
                at += Duration::from_millis(*pause);
                let mut any = false;
                for head in 0..3 {
                    if lost >> (n * 3 + head) & 1 == 0 {
                        arrivals.push((at + Duration::from_millis(delays[n * 3 + head]), head, at));
                        any = true;
                    }
                }
                expected += usize::from(any);
            }
            arrivals.sort();
            let mut own = 0;
            for (arrives, head, at) in arrivals {
                let heard = hears(gateways[head], origins[head], t0, at, b"frame");
                let seen = dedup.first(&heard, t0 + arrives);
                own += usize::from(matches!(seen, Seen::First(_) | Seen::Repetition(_)));
            }
            prop_assert_eq!(own, expected);
        }
    }
}
