//! How long a frame is on the air.

use std::time::Duration;

use crate::lorawan::Modulation;
use crate::lorawan::crypto::Direction;

/// Time on air of a LoRaWAN frame of `phy_len` bytes: explicit header, coding rate 4/5, preamble of
/// 8 symbols (LoRa) or 5 bytes (FSK). An uplink carries a payload CRC, a LoRa downlink does not.
///
/// LoRa symbols of 16 ms and more (SF11 and SF12 at 125 kHz, SF12 at 250 kHz) use the low data rate
/// optimisation. Formula: SX1276 data sheet, 4.1.1.7.
pub fn airtime(modulation: Modulation, phy_len: usize, direction: Direction) -> Duration {
    let length = u64::try_from(phy_len).unwrap_or(u64::MAX).min(255);
    match modulation {
        Modulation::Lora { sf, bandwidth } => lora(sf, bandwidth, length, direction),
        Modulation::Fsk { bitrate } => fsk(bitrate, length),
    }
}

fn lora(sf: u8, bandwidth: u32, length: u64, direction: Direction) -> Duration {
    // a quarter symbol keeps everything in whole numbers: the preamble ends with 4.25 or 6.25 symbols
    let sf = u64::from(sf.clamp(5, 12));
    let bandwidth = u64::from(bandwidth.max(1));
    let low_data_rate = (1_u64 << sf) * 1000 >= 16 * bandwidth;
    let crc = if direction == Direction::Up { 16 } else { 0 };
    let (sync, filler) = if sf >= 7 { (17, 8) } else { (25, 0) };

    let bits = (8 * length + crc + filler + 20).saturating_sub(4 * sf);
    let per_block = 4 * (sf - if low_data_rate { 2 } else { 0 });
    let payload_symbols = 8 + bits.div_ceil(per_block) * 5;
    let quarters = 8 * 4 + sync + payload_symbols * 4;
    Duration::from_nanos((quarters << sf) * 250_000_000 / bandwidth)
}

fn fsk(bitrate: u32, length: u64) -> Duration {
    // preamble 5, sync word 3, length 1, CRC 2
    let bits = 8 * (5 + 3 + 1 + length + 2);
    Duration::from_nanos(bits * 1_000_000_000 / u64::from(bitrate.max(1)))
}
