//! The beacon of class B (TS001 section 13, RP002): what is sent, when and on which frequency. Pure.
//!
//! All times are GPS time in whole seconds: beacons begin at multiples of [`PERIOD`], so that devices and gateways who know
//! the time agree without a word.

use super::{Modulation, Region};

/// From one beacon to the next, seconds (TS001: BEACON_PERIOD).
pub const PERIOD: u64 = 128;
/// Symbols of its preamble.
pub const PREAMBLE: u16 = 10;

/// How a region sends beacons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beacon {
    /// Hertz; one after the other where there are several.
    frequencies: Vec<u32>,
    sf: u8,
    bandwidth: u32,
    /// Bytes of nothing before the time, and before the second CRC.
    reserved: [usize; 2],
}

impl Beacon {
    /// Of a region; `None` where it has none.
    pub fn of(region: &Region) -> Option<Beacon> {
        let hop = |first: u32, step: u32| (0..8).map(|number| first + number * step).collect();
        let name = region.to_string();
        let (frequencies, sf, bandwidth): (Vec<u32>, u8, u32) = match name.as_str() {
            "EU868" => (vec![869_525_000], 9, 125_000),
            "US915" | "AU915" => (hop(923_300_000, 600_000), 12, 500_000),
            "CN779" => (vec![785_000_000], 9, 125_000),
            "EU433" => (vec![434_665_000], 9, 125_000),
            "CN470" => (hop(508_300_000, 200_000), 10, 125_000),
            "KR920" => (vec![923_100_000], 9, 125_000),
            "IN865" => (vec![866_550_000], 8, 125_000),
            "RU864" => (vec![869_100_000], 9, 125_000),
            // 923.4 MHz, and the offset of the group, as RX2 has 923.2 MHz and the offset
            name if name.starts_with("AS923") => (vec![region.rx2().0 + 200_000], 9, 125_000),
            _ => return None,
        };
        let reserved = match sf {
            8 => [1, 3],
            9 => [2, 0],
            10 => [3, 1],
            _ => [5, 3],
        };
        Some(Beacon { frequencies, sf, bandwidth, reserved })
    }

    /// How it is modulated: chirps up, no header, no CRC behind.
    pub fn modulation(&self) -> Modulation {
        Modulation::Lora { sf: self.sf, bandwidth: self.bandwidth }
    }

    /// Where the beacon of a time is sent, in hertz.
    pub fn frequency(&self, time: u64) -> u32 {
        let turn = (time / PERIOD) as usize % self.frequencies.len().max(1);
        self.frequencies.get(turn).copied().unwrap_or(0)
    }

    /// All frequencies, in hertz.
    pub fn frequencies(&self) -> &[u32] {
        &self.frequencies
    }

    /// Bytes of a payload.
    pub fn size(&self) -> usize {
        self.reserved[0] + 4 + 2 + 7 + self.reserved[1] + 2
    }

    /// The payload for a time and an antenna at degrees latitude and longitude.
    pub fn payload(&self, time: u64, antenna: (f64, f64)) -> Vec<u8> {
        let mut payload = vec![0; self.reserved[0]];
        // 32 bits, as long as GPS time has them
        payload.extend((time as u32).to_le_bytes());
        payload.extend(crc16(&payload).to_le_bytes());
        let gateway = payload.len();
        // what follows is where the first antenna is
        payload.push(0);
        payload.extend(angle(antenna.0, 90.0));
        payload.extend(angle(antenna.1, 180.0));
        payload.resize(payload.len() + self.reserved[1], 0);
        payload.extend(crc16(&payload[gateway..]).to_le_bytes());
        payload
    }
}

/// The time of the first beacon after a time.
pub fn after(time: u64) -> u64 {
    (time / PERIOD + 1) * PERIOD
}

/// 24 bits, the least significant first; `full` degrees are 2^23.
fn angle(degrees: f64, full: f64) -> [u8; 3] {
    let steps = (degrees / full * f64::from(1 << 23)).clamp(-f64::from(1 << 23), f64::from((1 << 23) - 1));
    let [low, middle, high, _] = (steps as i32).to_le_bytes();
    [low, middle, high]
}

/// CRC-16/XMODEM: polynomial 0x1021, start 0.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(
            crc ^ u16::from(*byte) << 8,
            |crc: u16, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 }
            },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crc_is_the_one_that_everybody_checks_with() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
    }

    /// The example of the specification (LoRaWAN 1.0.3, section 15.3).
    #[test]
    fn eu868_is_as_the_specification_has_it() {
        let beacon = Beacon::of(&Region::eu868()).unwrap();
        // the middle of a step each, so that rounding has no say
        let of = |steps: u32, full: f64| (f64::from(steps) + 0.5) / f64::from(1 << 23) * full;
        let payload = beacon.payload(0xcc02_0000, (of(0x00_2001, 90.0), of(0x03_8100, 180.0)));
        assert_eq!(hex::encode(payload), "0000000002cca27e00012000008103de55");
    }

    #[test]
    fn every_region_has_a_beacon_within_its_rules() {
        for region in Region::all() {
            let Some(beacon) = Beacon::of(&region) else {
                assert_eq!(region.to_string(), "ISM2400");
                continue;
            };
            assert_eq!(beacon.payload(0, (90.0, -180.0)).len(), beacon.size(), "{region}");
            for frequency in beacon.frequencies() {
                assert!(region.downlink_band().contains(frequency), "{region}: {frequency}");
                assert!(region.max_downlink_eirp(*frequency) >= 10, "{region}");
            }
        }
        let us = Beacon::of(&"US915".parse().unwrap()).unwrap();
        assert_eq!((us.size(), us.frequency(128), us.frequency(8 * 128)), (23, 923_900_000, 923_300_000));
        let as923 = |name: &str| Beacon::of(&name.parse().unwrap()).unwrap().frequency(0);
        assert_eq!(as923("AS923"), 923_400_000);
    }

    #[test]
    fn antennas_at_the_ends_of_the_world_fit() {
        assert_eq!(angle(90.0, 90.0), [0xff, 0xff, 0x7f]);
        assert_eq!(angle(-90.0, 90.0), [0x00, 0x00, 0x80]);
        assert_eq!(angle(-45.0, 90.0), [0x00, 0x00, 0xc0]);
        assert_eq!((after(0), after(127), after(128)), (128, 128, 256));
    }
}
