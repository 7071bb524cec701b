//! The moment of a packet: corrections of the time stamp, fine time stamps, and who is whose copy.

use crate::airtime::LoraShape;
use crate::config::{Bandwidth, CodingRate, SpreadingFactor};
use crate::counter::PpsHistory;

/// Delay of the filters, in 10⁻⁶ µs.
fn filter(bandwidth: Bandwidth) -> i64 {
    16_000_000 / i64::from(bandwidth.factor()) + 2_031_250
}

/// What is added to the stamp of a LoRa packet to get its end on air, in µs. The stamp is taken when the demodulator has
/// finished; all terms are in 10⁻⁶ µs.
pub fn legacy_correction_us(
    sf: SpreadingFactor,
    bandwidth: Bandwidth,
    coding_rate: CodingRate,
    crc: bool,
    size: u8,
) -> i32 {
    let clock = 250_000 / i64::from(bandwidth.factor());
    let number = u32::from(sf.get());
    let slow = u32::from(sf.is_slow(bandwidth));
    let bytes = u32::from(size) + 2 * u32::from(crc);
    let nibbles = 2 * bytes + 5;
    let header = if sf.is_short() { number } else { number - 2 };
    let block = number - 2 * slow;
    // Wraps where the payload fits into the header block, and is replaced then.
    let last = match nibbles.wrapping_sub(header) % block {
        0 => block,
        last => last,
    };
    let fits = 2 * i64::from(bytes) - (i64::from(number) - 7) <= 0 || (size == 0 && !crc);
    let (rate, last) = if fits { (4, header) } else { (coding_rate.get(), last) };
    let chips = 1i64 << number;
    let half = i64::from(number.div_ceil(2));
    let (number, slow, last) = (i64::from(number), i64::from(slow), i64::from(last));
    let demap = if fits {
        clock + chips * clock * 3 / 4 + 3 * clock + (number - 2) * clock
    } else {
        clock + chips * clock + 3 * clock + (number - 2 * slow) * clock
    };
    let fft3 = clock * ((chips - 6) + 2 * (chips * (half - 1) + 6)) + 4 * clock;
    let fft = if fits {
        2 * chips * clock + 3 * clock
    } else {
        (5 - 2 * slow) * (chips * clock + 7 * clock) + 2 * clock
    };
    let decode = 5 * clock + (9 * clock + clock * i64::from(rate)) * last + 3 * clock;
    -((filter(bandwidth) + fft3 + fft + demap + decode + 500_000) / 1_000_000) as i32
}

/// The same for stamps taken at the end of the header, as with fine time stamps: from there to the end on air.
pub fn precision_correction_us(
    sf: SpreadingFactor,
    bandwidth: Bandwidth,
    coding_rate: CodingRate,
    crc: bool,
    size: u8,
) -> i32 {
    let shape = LoraShape { sf, bandwidth, coding_rate, preamble: 0, header: true, crc, size };
    let payload = f64::from(shape.payload_symbols() * shape.symbol_us());
    (payload - (filter(bandwidth) as f64 + 0.5e6) / 1e6) as i32
}

/// The same for FSK.
pub fn fsk_correction_us(bitrate: u32) -> i32 {
    (680_000 / bitrate.max(1)) as i32 - 20
}

/// Delay of the filter against DC, in ticks of 32 MHz, for a channel so far from its radio's centre.
pub fn dc_notch_ticks(if_khz: f64) -> f64 {
    if if_khz.abs() > 75.0 {
        return 0.0;
    }
    let x = if_khz;
    1.7e-6 * x.powi(4) + 2.4e-6 * x.powi(3) - 0.0101 * x.powi(2) - 0.01275 * x + 10.2922
}

/// What a fine time stamp is made of.
#[derive(Debug, Clone, Copy)]
pub struct FineInput<'a> {
    /// Spreading factor.
    pub sf: SpreadingFactor,
    /// Centre of the channel.
    pub freq_hz: u32,
    /// How far the sender was off.
    pub freq_offset_hz: i32,
    /// Distance of the channel from its radio's centre.
    pub if_hz: i32,
    /// End of the header, in ticks.
    pub stamp: u32,
    /// Differences of fine positions, two per metric.
    pub metrics: &'a [i8],
}

/// Nanoseconds since the last PPS before the preamble ended, where enough is known. `pps` is the newest PPS value.
pub fn fine_ns(input: FineInput<'_>, pps: u32, history: &PpsHistory) -> Option<u32> {
    if !history.is_full() || input.metrics.is_empty() {
        return None;
    }
    let chips = 1u32 << input.sf.get();
    let symbols = if input.sf.is_short() { 14 } else { 12 };
    let header = 256 * chips * symbols + 256 * (chips / 4 - 1);
    let freq = f64::from(input.freq_hz);
    let error = (freq + f64::from(input.freq_offset_hz)) / freq - 1.0;
    let header = f64::from(header);
    let header = (header + (header * error + 0.5)) as u32;
    let stamp = input.stamp.wrapping_sub(header).wrapping_add(2138);

    let most = match input.sf.get() {
        12 => 4,
        11 => 8,
        10 => 16,
        _ => 32,
    };
    let used = input.metrics.len().min(2 * most);
    let (mut position, mut sum) = (0i32, 0f32);
    for metric in &input.metrics[..used] {
        position += i32::from(*metric);
        sum += position as f32;
    }
    let mean = sum / used as f32;

    let (reference, ticks) = if stamp.wrapping_sub(pps) <= 32_000_000 {
        (pps, history.last_second()?)
    } else {
        history.second_of(stamp)?
    };
    let scale = 32e6 / f64::from(ticks);
    if !(0.8..=1.2).contains(&scale) {
        return None;
    }
    let ticks = f64::from(stamp.wrapping_sub(reference))
        + f64::from(mean)
        + dc_notch_ticks(f64::from(input.if_hz) / 1e3);
    let ns = ticks * 31.25 * scale;
    (0.0..=1e9).contains(&ns).then_some(ns as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fine_stamp_counts_from_its_own_second() {
        let mut history = PpsHistory::default();
        for second in 0..16u32 {
            history.add(second * 32_000_000);
        }
        let sf = SpreadingFactor::new(7).unwrap();
        let newest = 15 * 32_000_000;
        let header = 256 * 128 * 12 + 256 * 31;
        let at = |stamp| FineInput {
            sf,
            freq_hz: 868_100_000,
            freq_offset_hz: 0,
            if_hz: 200_000,
            stamp,
            metrics: &[0; 4],
        };
        let half = newest + 16_000_000 + header - 2138;
        assert_eq!(fine_ns(at(half), newest, &history), Some(500_000_000));
        assert_eq!(fine_ns(at(half - 32_000_000), newest, &history), Some(500_000_000));
        assert_eq!(fine_ns(at(half + 64_000_000), newest, &history), None);
        assert_eq!(fine_ns(at(half), newest, &PpsHistory::default()), None);
    }
}
