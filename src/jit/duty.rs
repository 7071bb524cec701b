//! Duty cycle: which sub-bands a region has, and how much of each a head has used.
//!
//! The rule is ETSI EN 300 220-2 as RP002 maps it: the share of any hour, for each transmitter and
//! sub-band. The ledger counts in seconds of the clock; an hour touches 3601 of them at most, and
//! those together stay below the limit. So any sliding hour does too, the error (one second's
//! airtime) is on the safe side, and memory is bounded whatever is sent.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Instant;
use crate::lorawan::Region;

use super::Band;

const HOUR: Duration = Duration::from_secs(3600);
/// Slots of a second that an hour can touch.
const SPAN: u64 = 3601;

const EU868: [Band; 6] = [
    Band { low: 863_000_000, high: 865_000_000, permille: 1 },
    Band { low: 865_000_000, high: 868_000_000, permille: 10 },
    Band { low: 868_000_000, high: 868_600_000, permille: 10 },
    Band { low: 868_700_000, high: 869_200_000, permille: 1 },
    Band { low: 869_400_000, high: 869_650_000, permille: 100 },
    Band { low: 869_700_000, high: 870_000_000, permille: 10 },
];

/// RP002: 10 %, as EN 300 220 has it for 433.05-434.79 MHz.
const EU433: [Band; 1] = [Band { low: 433_050_000, high: 434_790_000, permille: 100 }];
/// RP002: 1 %.
const CN779: [Band; 1] = [Band { low: 779_000_000, high: 787_000_000, permille: 10 }];
/// The sub-bands that Russia has opened: 0.1 % in the lowest, 1 % in the others (RP002 allows devices no more).
const RU864: [Band; 3] = [
    Band { low: 864_000_000, high: 865_000_000, permille: 1 },
    Band { low: 866_000_000, high: 868_000_000, permille: 10 },
    Band { low: 868_700_000, high: 869_200_000, permille: 10 },
];

impl Band {
    /// Airtime allowed in any hour.
    pub fn limit(&self) -> Duration {
        HOUR * self.permille / 1000
    }
    /// Whether a frequency in hertz lies inside.
    pub fn covers(&self, frequency: u32) -> bool {
        (self.low..self.high).contains(&frequency)
    }
}

/// The sub-bands of a region; empty where it has no duty cycle.
pub fn bands(region: &Region) -> &'static [Band] {
    match region.to_string().as_str() {
        "EU868" => &EU868,
        "EU433" => &EU433,
        "CN779" => &CN779,
        "RU864" => &RU864,
        _ => &[],
    }
}

/// Why there is no room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Full {
    /// Airtime in the fullest hour around the transmission, without it.
    pub used: Duration,
    /// The earliest start with room for it; `None`: it alone is over the limit.
    pub until: Option<Instant>,
}

/// What one head sends in one sub-band.
#[derive(Debug, Clone)]
pub struct Ledger {
    /// Slots are counted from here.
    epoch: Instant,
    /// Airtime that begins or goes on in each second.
    slots: BTreeMap<u64, Duration>,
}

impl Ledger {
    /// Nothing sent; `epoch` is not later than any start to come.
    pub fn new(epoch: Instant) -> Ledger {
        Ledger { epoch, slots: BTreeMap::new() }
    }

    /// Forget what no hour that ends at `now` or later can hold.
    pub fn prune(&mut self, now: Instant) {
        self.slots = self.slots.split_off(&(self.slot(now) + 1).saturating_sub(SPAN));
    }

    /// Whether nothing is on record.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Take `airtime` from `start` if every hour that touches it stays within `limit`.
    pub fn take(&mut self, start: Instant, airtime: Duration, limit: Duration) -> Result<(), Full> {
        let used = self.fullest_hour(start, airtime);
        if used + airtime > limit {
            return Err(Full { used, until: self.room(start, airtime, limit) });
        }
        for (slot, part) in parts(self.epoch, start, airtime) {
            *self.slots.entry(slot).or_default() += part;
        }
        Ok(())
    }

    /// Undo a [`take`](Ledger::take).
    pub fn give_back(&mut self, start: Instant, airtime: Duration) {
        for (slot, part) in parts(self.epoch, start, airtime) {
            if let Some(used) = self.slots.get_mut(&slot) {
                *used = used.saturating_sub(part);
                if used.is_zero() {
                    self.slots.remove(&slot);
                }
            }
        }
    }

    /// Airtime of the past hour and of what is reserved ahead.
    pub fn used(&self, now: Instant) -> Duration {
        self.slots.range((self.slot(now) + 1).saturating_sub(SPAN)..).map(|(_, part)| *part).sum()
    }

    /// The fullest hour among those that hold any of a transmission.
    fn fullest_hour(&self, start: Instant, airtime: Duration) -> Duration {
        let (first, last) = (self.slot(start), self.slot(start + airtime));
        let (mut window, mut fullest) = (Duration::ZERO, Duration::ZERO);
        // slide over the slots that share an hour with it; the window is the SPAN slots up to `head`
        let near = || self.slots.range((first + 1).saturating_sub(SPAN)..last.saturating_add(SPAN));
        let mut tail = near().peekable();
        for (head, part) in near() {
            window += *part;
            while let Some((_, old)) = tail.next_if(|(slot, _)| **slot + SPAN <= *head) {
                window = window.saturating_sub(*old);
            }
            fullest = fullest.max(window);
        }
        fullest
    }

    /// The earliest start at or after `start` from which everything on record leaves room.
    fn room(&self, start: Instant, airtime: Duration, limit: Duration) -> Option<Instant> {
        let allowed = limit.checked_sub(airtime)?;
        let from = (self.slot(start) + 1).saturating_sub(SPAN);
        let mut left: Duration = self.slots.range(from..).map(|(_, part)| *part).sum();
        let mut begin = start;
        for (slot, part) in self.slots.range(from..) {
            if left <= allowed {
                break;
            }
            left = left.saturating_sub(*part);
            begin = begin.max(self.epoch + Duration::from_secs(slot.saturating_add(SPAN)));
        }
        Some(begin)
    }

    fn slot(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.epoch).as_secs()
    }
}

/// A transmission cut at full seconds after `epoch`.
fn parts(epoch: Instant, start: Instant, airtime: Duration) -> impl Iterator<Item = (u64, Duration)> {
    let begin = start.saturating_duration_since(epoch);
    let end = begin + airtime;
    (begin.as_secs()..=end.as_secs()).filter_map(move |slot| {
        let (low, high) = (Duration::from_secs(slot), Duration::from_secs(slot + 1));
        let part = end.min(high).checked_sub(begin.max(low))?;
        (!part.is_zero()).then_some((slot, part))
    })
}
