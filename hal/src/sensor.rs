//! What hangs on the board's I2C bus: a temperature sensor, and the DAC of full-duplex boards.

use crate::bus::Bus;
use crate::chip::Chip;
use crate::error::Cause;

/// A temperature sensor that answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sensor {
    /// At this address.
    Stts751(u8),
    /// At this address.
    Tmp102(u8),
}

/// The last two are MultiTech's, for its two slots.
const ADDRESSES: [u8; 5] = [0x39, 0x3b, 0x38, 0x48, 0x49];

impl Sensor {
    /// Looks for one. `None`: none answers, and RSSI values are not compensated.
    pub fn find<B: Bus>(chip: &mut Chip<B>) -> Option<Sensor> {
        ADDRESSES.into_iter().find_map(|address| {
            match chip.i2c_register(address, 0xfd) {
                Ok(0 | 1) => {
                    (chip.i2c_register(address, 0xfe) == Ok(0x53)).then_some(())?;
                    chip.i2c_register(address, 0xff).ok()?;
                    // 12 bits, a conversion each second
                    chip.i2c_write(address, &[0x03, 0x8c]).ok()?;
                    chip.i2c_write(address, &[0x04, 0x04]).ok()?;
                    Some(Sensor::Stts751(address))
                }
                // It has no such register, and answers so.
                Ok(6) => Some(Sensor::Tmp102(address)),
                _ => None,
            }
        })
    }

    /// Degrees Celsius.
    pub fn celsius<B: Bus>(self, chip: &mut Chip<B>) -> Result<f32, Cause> {
        match self {
            Sensor::Stts751(address) => {
                let low = chip.i2c_register(address, 0x02)?;
                let high = chip.i2c_register(address, 0x00)?;
                Ok(f32::from(i16::from_be_bytes([high, low])) / 256.0)
            }
            Sensor::Tmp102(address) => {
                chip.i2c_write(address, &[0x00])?;
                let mut word = [0; 2];
                chip.i2c_read(address, &mut word)?;
                Ok(f32::from(i16::from_be_bytes(word) >> 4) * 0.0625)
            }
        }
    }
}

/// The AD5338R that sets the amplifier of full-duplex boards.
pub mod dac {
    use super::*;

    const ADDRESS: u8 = 0x0c;
    /// Before each transmission.
    pub const SENDING: f32 = 2.51;

    /// Reset, power-up, internal reference, no voltage.
    pub fn start<B: Bus>(chip: &mut Chip<B>) -> Result<(), Cause> {
        chip.i2c_write(ADDRESS, &[0x69, 0x00])?;
        chip.i2c_write(ADDRESS, &[0x40, 0x00, 0x00])?;
        chip.i2c_write(ADDRESS, &[0x70, 0x00, 0x00])?;
        set(chip, 0.0)
    }

    /// Sets the output, 0 to 5 V.
    pub fn set<B: Bus>(chip: &mut Chip<B>, volts: f32) -> Result<(), Cause> {
        let [high, low] = code(volts);
        Ok(chip.i2c_write(ADDRESS, &[0x39, high, low])?)
    }

    /// Ten bits, at the top of two bytes.
    fn code(volts: f32) -> [u8; 2] {
        let high = (volts * 1024.0 / 20.0) as u8;
        let low = ((volts * 1024.0 / 5.0) as u16 & 3) as u8 * 64;
        [high, low]
    }

    #[cfg(test)]
    mod tests {
        #[test]
        fn the_code_fills_ten_bits() {
            assert_eq!(super::code(2.51), [0x80, 0x80]);
            assert_eq!(super::code(0.0), [0, 0]);
        }
    }
}
