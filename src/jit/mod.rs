//! When may a frame go out: airtime, duty cycle, collisions. Pure.
//!
//! Owns the rules of the band and of one transmitter: a head sends one frame at a time, no sub-band
//! is used for more than its share of any hour, nobody is louder than the region allows. They bind
//! everybody, partners too. Knows no radio; called by `fns`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::clock::Instant;
use crate::lorawan::beacon::{self, Beacon};
use crate::lorawan::crypto::Direction;
use crate::lorawan::{GatewayEui, Region};

mod airtime;
mod duty;
pub mod queue;

pub use airtime::airtime;
use duty::Ledger;

/// Silence between two frames of one head. A packet forwarder wants the later frame to begin more
/// than 42.5 ms after the earlier one's end (start delay 1.5, pre-delay 40, margin 1 ms) and
/// rounds airtimes to milliseconds.
const GUARD: Duration = Duration::from_millis(45);
/// A packet forwarder refuses what it gets 42.5 ms or less before the start; the rest is the way there.
const LEAD: Duration = Duration::from_millis(50);
/// A packet forwarder refuses what starts later than 512 s from now.
const HORIZON: Duration = Duration::from_secs(500);
/// Frames that one head may hold ahead: the queue of a packet forwarder.
const AHEAD: usize = 32;
/// Heads on record before idle ones are forgotten.
const HEADS: usize = 64;

/// The rules of a region, and what each head has sent and will send.
#[derive(Debug)]
pub struct Jit {
    region: Region,
    heads: BTreeMap<GatewayEui, Head>,
    next_id: u64,
    /// Airtime of any hour that beacons take, in the sub-bands where they are sent.
    beacons: Vec<(Band, Duration)>,
}

/// One transmitter.
#[derive(Debug, Default)]
struct Head {
    /// What is or will be on the air, by start; no two overlap.
    busy: Vec<Busy>,
    ledgers: BTreeMap<Band, Ledger>,
}

#[derive(Debug)]
struct Busy {
    id: u64,
    start: Instant,
    end: Instant,
}

/// A place on the air that is ours. Give it back with [`Jit::release`] if the radio did not take
/// the frame; else drop it.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a frame that the radio refuses must give its place back"]
pub struct Ticket {
    id: u64,
    gateway: GatewayEui,
    start: Instant,
    airtime: Duration,
    band: Option<Band>,
}

/// Which rule forbids a transmission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// The sub-band has been used for its share of an hour.
    DutyCycle {
        /// The sub-band.
        band: Band,
        /// Airtime used in the fullest hour around the transmission, without it.
        used: Duration,
        /// Airtime allowed in any hour.
        limit: Duration,
    },
    /// The head transmits another frame then, or holds as many as it can.
    Collision,
    /// It starts too soon to reach the head in time, or has passed.
    TooLate,
    /// It starts so far ahead that no head would keep it.
    TooEarly,
    /// It is louder than the region allows at this frequency.
    Eirp {
        /// EIRP allowed, dBm.
        max: i8,
    },
    /// The region knows no band at this frequency.
    Frequency,
    /// It is longer on the air than the region allows a downlink to be.
    Dwell {
        /// How long it would be.
        airtime: Duration,
        /// How long it may be.
        limit: Duration,
    },
}

/// A sub-band with a share of time, in hertz; `high` does not belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Band {
    /// First hertz.
    pub low: u32,
    /// First hertz above.
    pub high: u32,
    /// Thousandths of any hour.
    pub permille: u32,
}

impl fmt::Display for Band {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mhz = |hertz: u32| f64::from(hertz) / 1e6;
        write!(to, "{}-{} MHz", mhz(self.low), mhz(self.high))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::DutyCycle { band, used, limit } => {
                let share = f64::from(band.permille) / 10.0;
                let (used, limit) = (used.as_secs_f64(), limit.as_secs_f64());
                write!(to, "duty cycle {share} % of {band}: {used:.1} s of {limit:.1} s per hour are used")
            }
            Rule::Collision => write!(to, "the gateway transmits another frame then"),
            Rule::TooLate => write!(to, "too late to reach the gateway before it should start"),
            Rule::TooEarly => write!(to, "more than {} s ahead", HORIZON.as_secs()),
            Rule::Eirp { max } => write!(to, "louder than the {max} dBm EIRP of the region"),
            Rule::Frequency => write!(to, "not a downlink frequency of the region"),
            Rule::Dwell { airtime, limit } => {
                let (airtime, limit) = (airtime.as_millis(), limit.as_millis());
                write!(to, "{airtime} ms are more than the region's dwell time of {limit} ms")
            }
        }
    }
}

/// A transmission that may not be, and until when.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule}{}", .wait.map(|wait| format!("; possible in {:.2} s", wait.as_secs_f64())).unwrap_or_default())]
pub struct Refused {
    /// Why not.
    pub rule: Rule,
    /// The earliest start that this rule allows; `None`: no later start helps.
    pub until: Option<Instant>,
    /// How long after the question that is.
    pub wait: Option<Duration>,
}

impl Refused {
    fn new(rule: Rule, until: Option<Instant>, now: Instant) -> Refused {
        Refused { rule, until, wait: until.map(|until| until.saturating_duration_since(now)) }
    }
}

/// How full a sub-band is at one head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BandLoad {
    /// The sub-band.
    pub band: Band,
    /// Airtime in the past hour, with what is reserved ahead.
    pub used: Duration,
    /// Airtime allowed in any hour.
    pub limit: Duration,
}

impl Jit {
    /// Nothing sent yet.
    pub fn new(region: Region) -> Jit {
        Jit { region, heads: BTreeMap::new(), next_id: 0, beacons: Vec::new() }
    }

    /// The same where heads send beacons by themselves (`yes`): what beacons take of an hour is nobody else's.
    pub fn beaconing(mut self, yes: bool) -> Jit {
        let Some(beacon) = Beacon::of(&self.region).filter(|_| yes) else { return self };
        let airtime = airtime(beacon.modulation(), beacon.size(), Direction::Down);
        // an hour touches 29 periods of 128 s at most
        let in_an_hour = airtime * (3600 / beacon::PERIOD as u32 + 1);
        let bands = duty::bands(&self.region).iter();
        let with_beacons = bands.filter(|band| beacon.frequencies().iter().any(|at| band.covers(*at)));
        self.beacons = with_beacons.map(|band| (*band, in_an_hour)).collect();
        self
    }

    /// What a sub-band leaves to frames in any hour.
    fn limit(&self, band: Band) -> Duration {
        let taken = self.beacons.iter().find(|(with, _)| *with == band);
        band.limit().saturating_sub(taken.map_or(Duration::ZERO, |(_, airtime)| *airtime))
    }

    /// May `gateway` send from `start` for `airtime` at `frequency` (Hz) with `eirp` (dBm)?
    /// If so the place is taken. `now` never goes back.
    pub fn reserve(
        &mut self,
        gateway: GatewayEui,
        start: Instant,
        airtime: Duration,
        frequency: u32,
        eirp: i8,
        now: Instant,
    ) -> Result<Ticket, Refused> {
        let refuse = |rule, until| Err(Refused::new(rule, until, now));
        let bands = duty::bands(&self.region);
        let band = bands.iter().find(|band| band.covers(frequency)).copied();
        let known =
            if bands.is_empty() { self.region.downlink_band().contains(&frequency) } else { band.is_some() };
        if !known {
            return refuse(Rule::Frequency, None);
        }
        let max = self.region.max_downlink_eirp(frequency);
        if eirp > max {
            return refuse(Rule::Eirp { max }, None);
        }
        if let Some(limit) = self.region.downlink_dwell().filter(|limit| airtime > *limit) {
            return refuse(Rule::Dwell { airtime, limit }, None);
        }
        if start < now + LEAD {
            return refuse(Rule::TooLate, Some(now + LEAD));
        }
        if start > now + HORIZON {
            return refuse(Rule::TooEarly, None);
        }

        self.forget_idle_heads(now);
        let limit = band.map(|band| self.limit(band)).unwrap_or_default();
        let head = self.heads.entry(gateway).or_default();
        head.prune(now);
        if let Some(until) = head.blocked_until(start, airtime) {
            return refuse(Rule::Collision, Some(until));
        }
        if let Some(band) = band {
            let ledger = head.ledgers.entry(band).or_insert_with(|| Ledger::new(now));
            if let Err(full) = ledger.take(start, airtime, limit) {
                let rule = Rule::DutyCycle { band, used: full.used, limit };
                return refuse(rule, full.until);
            }
        }
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        let place = head.busy.partition_point(|busy| busy.start < start);
        head.busy.insert(place, Busy { id, start, end: start + airtime });
        Ok(Ticket { id, gateway, start, airtime, band })
    }

    /// The radio did not take the frame: nothing was sent.
    pub fn release(&mut self, ticket: Ticket) {
        let Some(head) = self.heads.get_mut(&ticket.gateway) else { return };
        head.busy.retain(|busy| busy.id != ticket.id);
        if let Some(ledger) = ticket.band.and_then(|band| head.ledgers.get_mut(&band)) {
            ledger.give_back(ticket.start, ticket.airtime);
        }
    }

    /// How full each sub-band is at a head; empty where the region has no duty cycle.
    pub fn load(&self, gateway: GatewayEui, now: Instant) -> Vec<BandLoad> {
        let head = self.heads.get(&gateway);
        let used = |band| head.and_then(|head| head.ledgers.get(band)).map(|ledger| ledger.used(now));
        let bands = duty::bands(&self.region).iter();
        bands
            .map(|band| BandLoad {
                band: *band,
                used: used(band).unwrap_or_default(),
                limit: self.limit(*band),
            })
            .collect()
    }

    fn forget_idle_heads(&mut self, now: Instant) {
        if self.heads.len() >= HEADS {
            self.heads.retain(|_, head| {
                head.prune(now);
                !head.busy.is_empty() || !head.ledgers.is_empty()
            });
        }
    }
}

impl Head {
    fn prune(&mut self, now: Instant) {
        self.busy.retain(|busy| busy.end + GUARD > now);
        self.ledgers.retain(|_, ledger| {
            ledger.prune(now);
            !ledger.is_empty()
        });
    }

    /// `None`: the transmitter is free then; else when it is.
    fn blocked_until(&self, start: Instant, airtime: Duration) -> Option<Instant> {
        let mut begin = start;
        for busy in &self.busy {
            // sorted and without overlap: what blocks a later start comes later in the list
            if begin < busy.end + GUARD && busy.start < begin + airtime + GUARD {
                begin = busy.end + GUARD;
            }
        }
        if self.busy.len() >= AHEAD {
            let next_end = self.busy.first().map_or(begin, |busy| busy.end + GUARD);
            return Some(begin.max(next_end));
        }
        (begin > start).then_some(begin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GW: GatewayEui = GatewayEui::from_msb([1; 8]);
    const OTHER: GatewayEui = GatewayEui::from_msb([2; 8]);
    const MS: Duration = Duration::from_millis(1);
    const S: Duration = Duration::from_secs(1);

    fn jit() -> (Jit, Instant) {
        (Jit::new(Region::eu868()), Instant::now())
    }

    #[test]
    fn a_head_sends_one_frame_at_a_time_with_a_pause_between() {
        let (mut jit, t0) = jit();
        let first = jit.reserve(GW, t0 + S, 500 * MS, 868_100_000, 14, t0).unwrap();
        let refused = jit.reserve(GW, t0 + 1400 * MS, 50 * MS, 869_525_000, 14, t0).unwrap_err();
        assert_eq!(refused.rule, Rule::Collision);
        assert_eq!(refused.until, Some(t0 + 1545 * MS));
        assert_eq!(refused.to_string(), "the gateway transmits another frame then; possible in 1.54 s");
        // before it, too close
        assert!(jit.reserve(GW, t0 + 900 * MS, 60 * MS, 869_525_000, 14, t0).is_err());
        // another head is another transmitter
        let _ = jit.reserve(OTHER, t0 + S, 500 * MS, 868_100_000, 14, t0).unwrap();
        let _ = jit.reserve(GW, t0 + 1545 * MS, 50 * MS, 869_525_000, 14, t0).unwrap();
        jit.release(first);
        let _ = jit.reserve(GW, t0 + 1400 * MS, 50 * MS, 869_525_000, 14, t0).unwrap();
    }

    #[test]
    fn the_earliest_time_after_a_collision_is_free() {
        let (mut jit, t0) = jit();
        for start in [1000, 1200, 1400] {
            let _ = jit.reserve(GW, t0 + start * MS, 120 * MS, 869_525_000, 14, t0).unwrap();
        }
        let until =
            jit.reserve(GW, t0 + 1050 * MS, 100 * MS, 869_525_000, 14, t0).unwrap_err().until.unwrap();
        assert_eq!(until, t0 + 1565 * MS);
        let _ = jit.reserve(GW, until, 100 * MS, 869_525_000, 14, t0).unwrap();
    }

    #[test]
    fn one_percent_is_36_seconds_of_any_hour() {
        let (mut jit, t0) = jit();
        for n in 0..36 {
            let now = t0 + n * 10 * S;
            let _ = jit.reserve(GW, now + S, S, 868_300_000, 14, now).unwrap();
        }
        let now = t0 + 400 * S;
        let refused = jit.reserve(GW, now + S, S, 868_300_000, 14, now).unwrap_err();
        let band = Band { low: 868_000_000, high: 868_600_000, permille: 10 };
        assert_eq!(refused.rule, Rule::DutyCycle { band, used: 36 * S, limit: 36 * S });
        assert_eq!(
            refused.to_string(),
            "duty cycle 1 % of 868-868.6 MHz: 36.0 s of 36.0 s per hour are used; possible in 3202.00 s"
        );
        // the other sub-bands are free, and so is the other head
        let _ = jit.reserve(GW, now + S, S, 869_525_000, 27, now).unwrap();
        let _ = jit.reserve(OTHER, now + S, S, 868_300_000, 14, now).unwrap();

        let until = refused.until.unwrap();
        let _ = jit.reserve(GW, until, S, 868_300_000, 14, until - S).unwrap();
        assert!(
            jit.reserve(GW, until + 5 * S, S, 868_300_000, 14, until).is_err(),
            "the second frame still counts"
        );
    }

    #[test]
    fn what_the_radio_refused_is_not_counted() {
        let (mut jit, t0) = jit();
        let ticket = jit.reserve(GW, t0 + S, 3 * S, 863_500_000, 14, t0).unwrap();
        assert!(jit.reserve(GW, t0 + 9 * S, 3 * S, 863_500_000, 14, t0).is_err());
        jit.release(ticket);
        let _ = jit.reserve(GW, t0 + 9 * S, 3 * S, 863_500_000, 14, t0).unwrap();
        let used: Vec<_> = jit.load(GW, t0).iter().map(|load| load.used).collect();
        assert_eq!(used[0], 3 * S);
        assert_eq!(used[1..], [Duration::ZERO; 5]);
        assert_eq!(jit.load(OTHER, t0).len(), 6);
        // it alone is more than 0.1 %: waiting does not help
        assert_eq!(jit.reserve(OTHER, t0 + S, 4 * S, 863_500_000, 14, t0).unwrap_err().until, None);
    }

    #[test]
    fn too_loud_too_late_too_early_and_off_the_band_are_refused_by_name() {
        let (mut jit, t0) = jit();
        let mut rule = |start: Instant, frequency, eirp| {
            jit.reserve(GW, start, 50 * MS, frequency, eirp, t0).unwrap_err().rule
        };
        assert_eq!(rule(t0 + S, 868_100_000, 17), Rule::Eirp { max: 16 });
        assert_eq!(rule(t0 + S, 868_650_000, 14), Rule::Frequency);
        assert_eq!(rule(t0 + S, 915_000_000, 14), Rule::Frequency);
        assert_eq!(rule(t0 + 20 * MS, 868_100_000, 14), Rule::TooLate);
        assert_eq!(rule(t0 + 501 * S, 868_100_000, 14), Rule::TooEarly);
    }

    #[test]
    fn beacons_have_their_share_beforehand() {
        let (plain, t0) = jit();
        let with = Jit::new(Region::eu868()).beaconing(true);
        let limits = |jit: &Jit| jit.load(GW, t0).iter().map(|load| load.limit).collect::<Vec<_>>();
        let (before, after) = (limits(&plain), limits(&with));
        // 869.525 MHz: 29 beacons of SF9, 17 bytes without a header
        let taken = before[4] - after[4];
        assert!(taken > 29 * 140 * MS && taken < 29 * 200 * MS, "{taken:?}");
        assert_eq!((&before[..4], before[5]), (&after[..4], after[5]));
        assert_eq!(limits(&Jit::new(Region::eu868()).beaconing(false)), before);
    }

    #[test]
    fn where_dwell_time_is_limited_a_longer_frame_never_goes() {
        let mut jit = Jit::new("AS923".parse().unwrap());
        let t0 = Instant::now();
        let refused = jit.reserve(GW, t0 + S, 401 * MS, 923_200_000, 14, t0).unwrap_err();
        assert_eq!(refused.rule, Rule::Dwell { airtime: 401 * MS, limit: 400 * MS });
        assert_eq!(refused.to_string(), "401 ms are more than the region's dwell time of 400 ms");
        let _ = jit.reserve(GW, t0 + S, 400 * MS, 923_200_000, 14, t0).unwrap();
    }

    #[test]
    fn a_region_without_duty_cycle_has_none() {
        let mut jit = Jit::new("US915".parse().unwrap());
        let t0 = Instant::now();
        for n in 0..100 {
            let now = t0 + n * 5 * S;
            let _ = jit.reserve(GW, now + S, 4 * S, 923_300_000, 20, now).unwrap();
        }
        assert!(jit.load(GW, t0).is_empty());
        // and a band all the same
        for uplink_or_none in [902_300_000, 868_100_000] {
            let refused = jit.reserve(GW, t0 + S, 50 * MS, uplink_or_none, 20, t0).unwrap_err();
            assert_eq!(refused.rule, Rule::Frequency);
        }
    }

    /// What the sNS derives from the tables must pass the rules here: every window of every uplink.
    #[test]
    fn every_window_of_every_region_may_be_used() {
        use crate::lorawan::crypto::Direction;
        // ISM2400 has another coding rate, which no radio of ours speaks; the configuration refuses it
        for region in Region::all().into_iter().filter(|region| region.to_string() != "ISM2400") {
            let (t0, mut windows) = (Instant::now(), vec![region.rx2()]);
            let mut uplinks = 0;
            for frequency in region.uplink_frequencies() {
                let sent = |rate: &u8| {
                    region.modulation(*rate).and_then(|modulation| region.uplink_data_rate(modulation))
                        == Some(*rate)
                };
                for data_rate in (0..16).filter(sent) {
                    for offset in 0..8 {
                        let rx1 = region.rx1(frequency, data_rate, offset);
                        uplinks += u32::from(offset == 0 && rx1.is_some());
                        windows.extend(rx1);
                    }
                }
            }
            assert!(uplinks >= 12, "{region}: {uplinks} uplinks have an RX1");
            windows.sort();
            windows.dedup();
            for (frequency, data_rate) in windows {
                assert!(region.downlink_band().contains(&frequency), "{region}: {frequency}");
                let eirp = region.max_downlink_eirp(frequency);
                assert!((10..=30).contains(&eirp), "{region}: {eirp} dBm");
                let Some(modulation) = region.downlink_modulation(data_rate) else {
                    panic!("{region}: DR{data_rate} downwards");
                };
                // a Join-accept, as long as the region makes it
                let accept = if region.cf_list().is_some() { 33 } else { 17 };
                let airtime = airtime(modulation, accept, Direction::Down);
                assert!(airtime > Duration::ZERO && airtime < 3 * S, "{region}: {airtime:?}");
                // slower ones than RX2's may be longer than a limited dwell time: those are for shorter frames
                let limit = region.downlink_dwell().filter(|_| data_rate < region.rx2().1);
                let airtime = limit.map_or(airtime, |limit| airtime.min(limit));
                let mut jit = Jit::new(region.clone());
                let reserved = jit.reserve(GW, t0 + S, airtime, frequency, eirp, t0);
                assert!(reserved.is_ok(), "{region}: {frequency}: {reserved:?}");
                let louder = Jit::new(region.clone()).reserve(GW, t0 + S, airtime, frequency, eirp + 1, t0);
                assert_eq!(louder.unwrap_err().rule, Rule::Eirp { max: eirp });
            }
        }
    }

    #[test]
    fn duty_cycles_bind_where_the_law_has_them() {
        let mut shares = Vec::new();
        for region in Region::all() {
            let share: Vec<u32> = Jit::new(region.clone())
                .load(GW, Instant::now())
                .iter()
                .map(|load| load.band.permille)
                .collect();
            if !share.is_empty() {
                shares.push((region.to_string(), share));
            }
        }
        let expected = [
            ("EU868", vec![1, 10, 10, 1, 100, 10]),
            ("CN779", vec![10]),
            ("EU433", vec![100]),
            ("RU864", vec![1, 10, 10]),
        ];
        assert_eq!(shares, expected.map(|(name, share)| (name.to_string(), share)));
    }

    #[test]
    fn what_is_kept_stays_small() {
        let (mut jit, t0) = jit();
        for n in 0..20_000_u32 {
            let now = t0 + n * S;
            let gateway = GatewayEui::from_msb((u64::from(n) / 10).to_be_bytes());
            let _ = jit.reserve(gateway, now + S, 50 * MS, 869_525_000, 14, now);
        }
        // idle for an hour: forgotten when the table grows
        assert!(jit.heads.len() <= 362, "{} heads", jit.heads.len());
        for n in 0..100 {
            let _ =
                jit.reserve(GW, t0 + 30_000 * S + n * 100 * MS, 10 * MS, 869_525_000, 14, t0 + 29_999 * S);
        }
        assert!(jit.heads[&GW].busy.len() <= AHEAD);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        /// Whatever is asked, taken and given back: no sliding hour holds more than the limit, and
        /// no two frames of a head overlap.
        #[test]
        fn no_sliding_hour_is_ever_too_full(
            steps in proptest::collection::vec(
                (0_u64..900_000, 60_u64..120_000, 20_u64..2500, any::<bool>(), 0_u8..4), 1..250),
        ) {
            let (mut jit, t0) = jit();
            let mut now = t0;
            let mut sent: Vec<(Duration, Duration)> = Vec::new();
            for (pause, ahead, airtime, small, give_back) in steps {
                now += MS * u32::try_from(if small { pause / 300 } else { pause }).unwrap();
                let (start, airtime) = (now + Duration::from_millis(ahead), Duration::from_millis(airtime));
                match jit.reserve(GW, start, airtime, 868_900_000, 14, now) {
                    Ok(ticket) if give_back == 0 => jit.release(ticket),
                    Ok(_) => sent.push((start - t0, start - t0 + airtime)),
                    // the time it names is good, as far as this rule goes
                    Err(Refused { until: Some(until), rule: Rule::DutyCycle { .. }, .. }) => {
                        now = now.max(until - S);
                        match jit.reserve(GW, until, airtime, 868_900_000, 14, now) {
                            Ok(ticket) => jit.release(ticket),
                            Err(refused) => prop_assert_eq!(refused.rule, Rule::Collision),
                        }
                    }
                    Err(_) => {}
                }
            }
            let limit = Duration::from_millis(3600);
            let hour = 3600 * S;
            // the fullest hour begins with a frame or ends with one
            let begins = sent.iter().map(|s| s.0).chain(sent.iter().map(|s| s.1.saturating_sub(hour)));
            for begin in begins {
                let inside: Duration = sent
                    .iter()
                    .map(|(from, to)| (*to).min(begin + hour).saturating_sub((*from).max(begin)))
                    .sum();
                prop_assert!(inside <= limit, "{inside:?} in the hour from {begin:?}");
            }
            sent.sort();
            for pair in sent.windows(2) {
                prop_assert!(pair[0].1 + GUARD <= pair[1].0);
            }
        }
    }
}
