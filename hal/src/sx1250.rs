//! The SX1250: image calibration and set-up, as sequences.

use crate::config::{Chain, Radio};
use crate::error::Cause;
use crate::sequence::{Commands, Reply, Step};

/// Commands of the SX126x family that are used here.
pub mod opcode {
    #![allow(missing_docs)]
    pub const SET_STANDBY: u8 = 0x80;
    pub const SET_RX: u8 = 0x82;
    pub const SET_RF_FREQUENCY: u8 = 0x86;
    pub const CALIBRATE: u8 = 0x89;
    pub const SET_PACKET_TYPE: u8 = 0x8a;
    pub const SET_MODULATION_PARAMS: u8 = 0x8b;
    pub const SET_PACKET_PARAMS: u8 = 0x8c;
    pub const SET_BUFFER_BASE_ADDRESS: u8 = 0x8f;
    pub const CALIBRATE_IMAGE: u8 = 0x98;
    pub const SET_FS: u8 = 0xc1;
    pub const GET_STATUS: u8 = 0xc0;
    pub const GET_DEVICE_ERRORS: u8 = 0x17;
    pub const WRITE_REGISTER: u8 = 0x0d;
    pub const READ_REGISTER: u8 = 0x1d;
}
use opcode::*;

/// The bands in which the image can be calibrated: limits in MHz, and what the command wants. The limits belong to
/// their bands.
const IMAGE_BANDS: [(u32, u32, [u8; 2]); 5] = [
    (430, 440, [0x6b, 0x6f]),
    (470, 510, [0x75, 0x81]),
    (779, 787, [0xc1, 0xc5]),
    (863, 870, [0xd7, 0xdb]),
    (902, 928, [0xe1, 0xe9]),
];

/// What CALIBRATE_IMAGE wants for a frequency.
pub fn image_band(freq_hz: u32) -> Option<[u8; 2]> {
    let inside = |(low, high, _): &&(u32, u32, _)| (low * 1_000_000..=high * 1_000_000).contains(&freq_hz);
    IMAGE_BANDS.iter().find(inside).map(|(_, _, pair)| *pair)
}

/// Frequency word: 2^25 steps of 32 MHz.
pub fn frequency_word(freq_hz: u32) -> u32 {
    ((u64::from(freq_hz) << 25) / 32_000_000) as u32
}

/// A register write.
pub fn write_register(address: u16, values: &[u8]) -> Vec<u8> {
    let [high, low] = address.to_be_bytes();
    [&[WRITE_REGISTER, high, low][..], values].concat()
}

const ERRORS: Reply = Reply { at: 3, mask: 0x10, value: 0, what: "image calibration failed" };

const fn mode(value: u8, what: &'static str) -> Reply {
    Reply { at: 1, mask: 0x70, value: value << 4, what }
}

/// Image calibration at the radio's centre.
pub fn calibrate_image(chain: Chain, radio: &Radio) -> Result<Vec<Step>, Cause> {
    let freq_hz = radio.freq_hz;
    let [low, high] = image_band(freq_hz).ok_or(Cause::NoImageBand { chain, freq_hz })?;
    Ok(Commands::new()
        .radio(chain, &[GET_STATUS, 0])
        .radio(chain, &[CALIBRATE_IMAGE, low, high])
        .wait(10_000)
        .radio_is(chain, &[GET_DEVICE_ERRORS, 0, 0, 0], ERRORS)
        .steps())
}

/// From reset to receiving, which also gives the concentrator its clock.
pub fn set_up(chain: Chain, radio: &Radio) -> Vec<Step> {
    let [f3, f2, f1, f0] = frequency_word(radio.freq_hz).to_be_bytes();
    let mut commands = Commands::new()
        .radio(chain, &[SET_STANDBY, 0])
        .wait(10_000)
        .radio_is(chain, &[GET_STATUS, 0], mode(2, "an SX1250 is not in standby (RC)"))
        .radio(chain, &[CALIBRATE, 0x7f])
        .wait(10_000)
        .radio(chain, &[SET_STANDBY, 1])
        .wait(10_000)
        .radio_is(
            chain,
            &[GET_STATUS, 0],
            mode(3, "an SX1250 is not in standby (XOSC): is its crystal alive?"),
        )
        // bit rate to its maximum: shortens the switch from TX to FS
        .radio(chain, &write_register(0x06a1, &[0x01, 0x00, 0x00]))
        // drive strength, inputs off, no pull-up, no pull-down; then outputs on
        .radio(chain, &write_register(0x0582, &[0x00, 0x00, 0x00, 0x00]))
        .radio(chain, &write_register(0x0580, &[0x00]))
        // fixed gain
        .radio(chain, &write_register(0x08b6, &[0x2a]))
        .radio(chain, &[SET_RF_FREQUENCY, f3, f2, f1, f0])
        // no frequency offset
        .radio(chain, &write_register(0x088f, &[0x00, 0x00, 0x00]))
        .radio(chain, &[SET_RX, 0xff, 0xff, 0xff]);
    if radio.single_input {
        commands = commands.radio(chain, &write_register(0x08e2, &[0x0d]));
    }
    // its lines become the sample interface
    commands.radio(chain, &write_register(0x0587, &[0x0b])).steps()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_include_their_limits_and_nothing_else() {
        assert_eq!(image_band(868_500_000), Some([0xd7, 0xdb]));
        assert_eq!(image_band(470_000_000), Some([0x75, 0x81]));
        assert_eq!(image_band(928_000_000), Some([0xe1, 0xe9]));
        assert_eq!(image_band(928_000_001), None);
        assert_eq!(image_band(800_000_000), None);
    }

    #[test]
    fn the_frequency_word_is_that_of_the_data_sheet() {
        assert_eq!(frequency_word(867_500_000), 0x3638_0000);
    }
}
