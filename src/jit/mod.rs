//! When may a frame go out: airtime, duty cycle, collisions. Pure.
use crate::lorawan::Modulation;
use std::time::Duration;
pub fn airtime(modulation: Modulation, len: usize, crc: bool) -> Duration {
    let Modulation::Lora { sf, bandwidth } = modulation else { return Duration::from_millis(10) };
    let (sf, len) = (f64::from(sf), len as f64);
    let symbol = 2f64.powf(sf) / f64::from(bandwidth) * 1e6;
    let ldro = if sf >= 11.0 && bandwidth == 125_000 { 2.0 } else { 0.0 };
    let n =
        ((8.0 * len - 4.0 * sf + 28.0 + if crc { 16.0 } else { 0.0 }) / (4.0 * (sf - ldro))).ceil().max(0.0)
            * 5.0;
    Duration::from_micros(((12.25 + 8.0 + n) * symbol) as u64)
}
