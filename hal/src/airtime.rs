//! How long a packet is on air.
//!
//! The formula of the reference is kept: it takes low-data-rate optimisation as on for SF11 and SF12 at every bandwidth,
//! which is too long at 250 kHz (SF11) and 500 kHz, never too short. A queue that relies on it never overlaps.

use crate::config::{Bandwidth, CodingRate, SpreadingFactor};

/// What the length of a LoRa packet depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoraShape {
    /// Spreading factor.
    pub sf: SpreadingFactor,
    /// Bandwidth.
    pub bandwidth: Bandwidth,
    /// Coding rate.
    pub coding_rate: CodingRate,
    /// Symbols of preamble.
    pub preamble: u16,
    /// Whether there is a header.
    pub header: bool,
    /// Whether there is a CRC.
    pub crc: bool,
    /// Bytes.
    pub size: u8,
}

impl LoraShape {
    /// Microseconds of a symbol.
    pub fn symbol_us(&self) -> u32 {
        (1 << self.sf.get()) * 8 / self.bandwidth.factor()
    }

    /// Symbols behind preamble and header block.
    pub fn payload_symbols(&self) -> u32 {
        let sf = i32::from(self.sf.get());
        let slow = if sf >= 11 { 2 } else { 0 };
        let bits = 8 * i32::from(self.size) + 16 * i32::from(self.crc) - 4 * sf
            + if sf >= 7 { 8 } else { 0 }
            + 20 * i32::from(self.header);
        let blocks = (bits.max(0) as u32).div_ceil(4 * (sf - slow) as u32);
        blocks * (u32::from(self.coding_rate.get()) + 4)
    }

    /// Microseconds from the first chirp to the last.
    pub fn time_on_air_us(&self) -> u32 {
        // 4.25 symbols of sync word (6.25 for SF5 and SF6) and 8 of the header block, in quarters
        let extra = if self.sf.is_short() { 57 } else { 49 };
        let quarters = u64::from(4 * (u32::from(self.preamble) + self.payload_symbols()) + extra);
        (quarters * u64::from(self.symbol_us()) / 4) as u32
    }

    /// Rounded to milliseconds.
    pub fn time_on_air_ms(&self) -> u32 {
        (self.time_on_air_us() + 500) / 1000
    }
}

/// Milliseconds of an FSK packet, rounded up: preamble, sync word, length byte, payload and CRC.
pub fn fsk_time_on_air_ms(bitrate: u32, preamble: u16, sync: u8, crc: bool, size: u8) -> u32 {
    let bytes = u64::from(preamble) + u64::from(sync) + 1 + u64::from(size) + if crc { 2 } else { 0 };
    (8000 * bytes / u64::from(bitrate.max(1))) as u32 + 1
}
