//! The chip's two counters at 32 MHz: one runs freely, one is latched by each PPS.
//!
//! Owns the unrolling of 27-bit microseconds to a 32-bit counter, and the history of PPS values. They must be read at
//! least once in 134 s.

use crate::bus::Bus;
use crate::chip::Chip;
use crate::error::Cause;
use crate::registers;

/// A moment in microseconds of the chip's counter; wraps after 71.6 minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Count(
    /// Microseconds modulo 2^32.
    pub u32,
);

impl Count {
    /// So many microseconds later (earlier where negative).
    pub fn plus_us(self, us: i64) -> Count {
        Count(self.0.wrapping_add(us as u32))
    }

    /// Microseconds since another moment: that which is less than half a turn away.
    pub fn since(self, other: Count) -> i32 {
        self.0.wrapping_sub(other.0) as i32
    }
}

/// 27 bits: 134.217728 s.
const TURN: u32 = 1 << 27;
/// So many PPS values are kept.
const PPS_KEPT: usize = 16;

/// Both counters as they were read, in ticks of 32 MHz.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticks {
    /// At the last PPS.
    pub pps: u32,
    /// Now.
    pub now: u32,
}

/// One counter, unrolled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Unrolled {
    last: u32,
    turns: u32,
}

impl Unrolled {
    fn update(&mut self, ticks: u32) {
        let us = ticks / 32;
        if us < self.last {
            self.turns = (self.turns + 1) % 32;
        }
        self.last = us;
    }

    fn count(self) -> Count {
        Count(self.turns << 27 | self.last)
    }
}

/// What is known of the counters since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    free: Unrolled,
    pps: Unrolled,
    history: PpsHistory,
    since_pulse: u32,
}

impl Counters {
    /// Nothing was read yet.
    pub fn new() -> Counters {
        Counters::default()
    }

    /// Takes a reading.
    pub fn update(&mut self, ticks: Ticks) {
        self.free.update(ticks.now);
        self.pps.update(ticks.pps);
        self.history.add(ticks.pps);
        self.since_pulse = ticks.now.wrapping_sub(ticks.pps);
    }

    /// The counter at the last PPS, from how long before the last reading it was. Unlike [`Counters::at_pps`] it is right
    /// again after a time without pulses, in which the latched counter missed turns.
    pub fn last_pulse(&self) -> Count {
        self.now().plus_us(-i64::from(self.since_pulse / 32))
    }

    /// The counter as last read.
    pub fn now(&self) -> Count {
        self.free.count()
    }

    /// The counter at the last PPS, as last read.
    pub fn at_pps(&self) -> Count {
        self.pps.count()
    }

    /// A packet's stamp, which is older than the last reading.
    pub fn unroll(&self, ticks: u32) -> Count {
        let us = ticks / 32;
        let turns = if us > self.free.last { (self.free.turns + 31) % 32 } else { self.free.turns };
        Count((turns << 27).wrapping_add(us % TURN))
    }

    /// The last PPS values.
    pub fn history(&self) -> &PpsHistory {
        &self.history
    }

    /// A PPS value that was read alone.
    pub fn add_pps(&mut self, ticks: u32) {
        self.history.add(ticks);
    }
}

/// The last 16 distinct PPS values, in ticks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PpsHistory {
    ring: Vec<u32>,
    newest: usize,
}

impl PpsHistory {
    /// A value equal to the newest is known already.
    pub fn add(&mut self, ticks: u32) {
        if self.ring.get(self.newest) == Some(&ticks) {
            return;
        }
        if self.ring.len() < PPS_KEPT {
            self.ring.push(ticks);
            self.newest = self.ring.len() - 1;
        } else {
            self.newest = (self.newest + 1) % PPS_KEPT;
            self.ring[self.newest] = ticks;
        }
    }

    /// Whether all 16 are there.
    pub fn is_full(&self) -> bool {
        self.ring.len() == PPS_KEPT
    }

    /// Ticks of the last second.
    pub fn last_second(&self) -> Option<u32> {
        let newest = self.ring.get(self.newest)?;
        let before = self.ring.get((self.newest + PPS_KEPT - 1) % PPS_KEPT)?;
        Some(newest.wrapping_sub(*before))
    }

    /// The PPS that began the second in which `ticks` lies, and how many ticks that second had.
    pub fn second_of(&self, ticks: u32) -> Option<(u32, u32)> {
        let at = self.ring.iter().position(|pps| ticks.wrapping_sub(*pps) < 32_000_000)?;
        let next = self.ring.get((at + 1) % PPS_KEPT)?;
        Some((self.ring[at], next.wrapping_sub(self.ring[at])))
    }
}

/// Reads both counters. They run on while eight bytes are read: two readings must agree in their most significant
/// bytes, or a third one counts.
pub fn read<B: Bus>(chip: &mut Chip<B>) -> Result<Ticks, Cause> {
    let (first, second) = (once(chip)?, once(chip)?);
    let agree = |a: u32, b: u32| a >> 24 == b >> 24;
    if agree(first.now, second.now) && agree(first.pps, second.pps) { Ok(second) } else { once(chip) }
}

fn once<B: Bus>(chip: &mut Chip<B>) -> Result<Ticks, Cause> {
    let mut bytes = [0; 8];
    chip.read_block(registers::TIMESTAMP_TIMESTAMP_PPS_MSB2_TIMESTAMP_PPS.address, &mut bytes)?;
    let [p3, p2, p1, p0, n3, n2, n1, n0] = bytes;
    Ok(Ticks { pps: u32::from_be_bytes([p3, p2, p1, p0]), now: u32::from_be_bytes([n3, n2, n1, n0]) })
}

/// Reads the PPS counter alone.
pub fn read_pps<B: Bus>(chip: &mut Chip<B>) -> Result<u32, Cause> {
    let mut bytes = [0; 4];
    chip.read_block(registers::TIMESTAMP_TIMESTAMP_PPS_MSB2_TIMESTAMP_PPS.address, &mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_packet_from_before_the_turn_belongs_to_the_turn_before() {
        let mut counters = Counters::new();
        let ticks = |us: u64| Ticks { pps: 0, now: (us * 32) as u32 };
        counters.update(ticks(134_000_000));
        counters.update(ticks(134_300_000));
        assert_eq!(counters.now(), Count(134_300_000));
        assert_eq!(counters.unroll((134_200_000u64 * 32) as u32), Count(134_200_000));
        assert_eq!(counters.unroll((134_250_000u64 * 32) as u32), Count(134_250_000));
    }

    #[test]
    fn a_pulse_is_where_it_was_after_turns_without_one() {
        let mut counters = Counters::new();
        let mut now = |us: u64, pulse: u64| {
            counters.update(Ticks { pps: (pulse * 32) as u32, now: (us * 32) as u32 });
            (counters.at_pps().0, counters.last_pulse().0)
        };
        assert_eq!(now(130_400_000, 130_000_000), (130_000_000, 130_000_000));
        // nothing for four minutes: the latched counter missed a turn
        for us in [200_000_000, 300_000_000] {
            now(us, 130_000_000);
        }
        assert_eq!(now(400_250_000, 400_000_000), (131_564_544, 400_000_000));
    }

    #[test]
    fn sixteen_seconds_make_a_history() {
        let mut history = PpsHistory::default();
        for second in 0..20u32 {
            assert_eq!(history.is_full(), second >= 16);
            history.add(second.wrapping_mul(32_000_010));
            history.add(second.wrapping_mul(32_000_010));
        }
        assert_eq!(history.last_second(), Some(32_000_010));
        assert_eq!(history.second_of(18 * 32_000_010 + 5), Some((18 * 32_000_010, 32_000_010)));
        assert_eq!(history.second_of(u32::MAX), None);
    }

    proptest! {
        #[test]
        fn unrolled_time_is_true_time(steps in proptest::collection::vec(1..100_000_000u64, 1..60), back in 0..30_000_000u64) {
            let (mut counters, mut time) = (Counters::new(), 0u64);
            for step in steps {
                time += step;
                counters.update(Ticks { pps: 0, now: (time * 32) as u32 });
            }
            prop_assert_eq!(counters.now(), Count(time as u32));
            let packet = time.saturating_sub(back);
            prop_assert_eq!(counters.unroll((packet * 32) as u32), Count(packet as u32));
        }
    }
}
