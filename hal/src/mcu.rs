//! The two processors inside the chip: loading them, and speaking with them at the start.

use crate::bus::Bus;
use crate::chip::Chip;
use crate::config::{Config, FineStamps};
use crate::error::Cause;
use crate::firmware::{Firmware, IMAGE_BYTES, Image};
use crate::registers::*;
use crate::sequence::{self, Limit, Step, until};

/// The registers through which a processor is loaded.
struct Loader {
    clear: Field,
    host_prog: Field,
    parity: Field,
    memory: u16,
}

const AGC: Loader = Loader {
    clear: AGC_MCU_CTRL_MCU_CLEAR,
    host_prog: AGC_MCU_CTRL_HOST_PROG,
    parity: AGC_MCU_CTRL_PARITY_ERROR,
    memory: AGC_MEMORY,
};

const ARB: Loader = Loader {
    clear: ARB_MCU_CTRL_MCU_CLEAR,
    host_prog: ARB_MCU_CTRL_HOST_PROG,
    parity: ARB_MCU_CTRL_PARITY_ERROR,
    memory: ARB_MEMORY,
};

/// Status of the AGC, or of the calibration firmware in its place.
pub const STATUS: Field = AGC_MCU_MCU_AGC_STATUS_MCU_AGC_STATUS;
/// Mailbox to the AGC: W3, W2, W1, W0. Writing W3 is the message.
pub const W3: Field = AGC_MCU_MCU_MAIL_BOX_WR_DATA_BYTE3_MCU_MAIL_BOX_WR_DATA;
/// See [`W3`].
pub const W2: Field = AGC_MCU_MCU_MAIL_BOX_WR_DATA_BYTE2_MCU_MAIL_BOX_WR_DATA;
/// See [`W3`].
pub const W1: Field = AGC_MCU_MCU_MAIL_BOX_WR_DATA_BYTE1_MCU_MAIL_BOX_WR_DATA;
/// See [`W3`].
pub const W0: Field = AGC_MCU_MCU_MAIL_BOX_WR_DATA_BYTE0_MCU_MAIL_BOX_WR_DATA;
/// Mailbox from the AGC: R3 and, behind it, R2, R1, R0.
pub const R3: Field = AGC_MCU_MCU_MAIL_BOX_RD_DATA_BYTE3_MCU_MAIL_BOX_RD_DATA;
const R2: Field = AGC_MCU_MCU_MAIL_BOX_RD_DATA_BYTE2_MCU_MAIL_BOX_RD_DATA;
const R0: Field = AGC_MCU_MCU_MAIL_BOX_RD_DATA_BYTE0_MCU_MAIL_BOX_RD_DATA;

/// Loads an image and lets it run.
pub fn load<B: Bus>(chip: &mut Chip<B>, firmware: &Firmware, image: Image) -> Result<(), Cause> {
    let program = firmware.program(image)?;
    let to = if image == Image::Arbiter { ARB } else { AGC };
    sequence::run(
        chip,
        &[
            Step::Set(to.clear, 1),
            Step::Set(to.host_prog, 1),
            Step::Set(COMMON_PAGE_PAGE, 0),
            Step::Burst(to.memory, program.bytes().to_vec()),
        ],
    )?;
    let mut back = vec![0; IMAGE_BYTES];
    chip.read_block(to.memory, &mut back)?;
    if let Some(at) = program.bytes().iter().zip(&back).position(|(written, read)| written != read) {
        return Err(Cause::ReadBack { image, at });
    }
    sequence::run(chip, &[Step::Set(to.host_prog, 0), Step::Set(to.clear, 0)])?;
    match chip.get(to.parity)? {
        0 => Ok(()),
        _ => Err(Cause::Parity(image)),
    }
}

/// Whether each processor still runs as it should: the parity flags of AGC and arbiter.
pub fn parity_errors<B: Bus>(chip: &mut Chip<B>) -> Result<(bool, bool), Cause> {
    Ok((chip.get(AGC.parity)? != 0, chip.get(ARB.parity)? != 0))
}

fn version<B: Bus>(chip: &mut Chip<B>, image: Image, field: Field) -> Result<(), Cause> {
    let found = chip.get(field)? as u8;
    match image.version() {
        wanted if wanted == found => Ok(()),
        wanted => Err(Cause::FirmwareVersion { image, wanted, found }),
    }
}

/// Waits for the image in the AGC's memory and looks at its version.
pub fn greet_agc<B: Bus>(chip: &mut Chip<B>, image: Image) -> Result<(), Cause> {
    until(chip, STATUS, Limit::processor("the AGC did not start"), |status| status == 1)?;
    version(chip, image, R0)
}

/// A message to the AGC at its start: command, W2 to W0 (those that are set), and the status that answers.
struct Row(u8, [Option<u8>; 3], u8);

/// Gives the AGC its parameters (the rows in their order: each is answered by the next status).
pub fn start_agc<B: Bus>(chip: &mut Chip<B>, config: &Config) -> Result<(), Cause> {
    let old = config.clock_kind().is_sx125x();
    greet_agc(chip, if old { Image::AgcSx125x } else { Image::AgcSx1250 })?;
    let fdd = u8::from(config.full_duplex);
    let pick = |new: u8, sx125x: u8| Some(if old { sx125x } else { new });
    let duplex = old.then_some(fdd);
    let lbt = config.sx1261().is_some_and(|sx1261| sx1261.lbt.is_some());
    let rows = [
        // gains of radio A and B: automatic
        Row(0x80, [duplex, Some(0xff), Some(0xff)], 0x02),
        Row(0x20, [duplex, Some(0xff), Some(0xff)], 0x03),
        // analogue gain: most, least; thresholds: high, low
        Row(0x03, [None, pick(13, 9), pick(1, 0)], 0x04),
        Row(0x04, [None, pick(12, 35), pick(3, 16)], 0x05),
        // decimator attenuation: most, least; thresholds: high 2, high 1, low
        Row(0x05, [None, pick(15, 11), pick(4, 7)], 0x06),
        Row(0x06, [pick(90, 115), pick(80, 100), pick(40, 45)], 0x07),
        // channel attenuation: most, least; thresholds: high, low
        Row(0x07, [None, Some(14), Some(4)], 0x08),
        Row(0x08, [None, Some(132), Some(52)], 0x09),
        // SX1250: duty cycle of its amplifier, hpMax, deviceSel
        Row(0x09, [Some(4), Some(7), Some(0)], 0x0a),
        // start of the amplifier, 100 us units
        Row(0x0a, [None, None, Some(8)], 0x0b),
        Row(0x0b, [None, None, Some(u8::from(lbt))], 0x0f),
    ];
    for Row(command, data, answer) in rows.iter().filter(|row| !(old && row.0 == 0x09)) {
        for (field, value) in [W2, W1, W0].into_iter().zip(data).rev() {
            if let Some(value) = value {
                chip.set(field, i32::from(*value))?;
            }
        }
        chip.set(W3, i32::from(*command))?;
        until(chip, STATUS, Limit::processor("the AGC did not take a parameter"), |status| {
            status == *answer
        })?;
        let mut kept = [0; 3];
        chip.read_block(R2.address, &mut kept)?;
        for (kept, (given, what)) in kept.into_iter().zip(data.iter().zip(["R2", "R1", "R0"])) {
            same(what, *given, kept)?;
        }
        // The duplex flag is looked at in both cases: this firmware cannot be full duplex with an SX1250.
        if matches!(command, 0x80 | 0x20) {
            same("full duplex flag of the AGC", Some(fdd), kept[0])?;
        }
    }
    chip.set(W3, 0x0f)?;
    Ok(())
}

fn same(what: &'static str, given: Option<u8>, found: u8) -> Result<(), Cause> {
    match given {
        Some(expected) if expected != found => Err(Cause::Unexpected { what, expected, found }),
        _ => Ok(()),
    }
}

/// Gives the arbiter its parameters and lets it go.
pub fn start_arb<B: Bus>(chip: &mut Chip<B>, config: &Config) -> Result<(), Cause> {
    let status = ARB_MCU_MCU_ARB_STATUS_MCU_ARB_STATUS;
    until(chip, status, Limit::processor("the arbiter did not start"), |status| status == 1)?;
    version(chip, Image::Arbiter, ARB_MCU_ARB_DEBUG_STS_0_ARB_DEBUG_STS_0)?;
    let twice = match config.fine_stamps {
        None => 0x00,
        Some(FineStamps::AllSf) => 0xff,
        Some(FineStamps::HighCapacity) => 0x3f,
    };
    sequence::run(
        chip,
        &[
            Step::Set(ARB_MCU_ARB_DEBUG_CFG_0_ARB_DEBUG_CFG_0, 7),
            Step::Set(ARB_MCU_ARB_DEBUG_CFG_3_ARB_DEBUG_CFG_3, twice),
            Step::Set(ARB_MCU_ARB_DEBUG_CFG_2_ARB_DEBUG_CFG_2, 3),
            Step::Set(ARB_MCU_ARB_DEBUG_CFG_1_ARB_DEBUG_CFG_1, 1),
            Step::Until(status, 0, Limit::processor("the arbiter did not go")),
        ],
    )
}

/// R1:R0, or R3:R2, as a number.
pub fn mailbox<B: Bus>(chip: &mut Chip<B>) -> Result<[u8; 4], Cause> {
    let mut bytes = [0; 4];
    chip.read_block(R3.address, &mut bytes)?;
    Ok(bytes)
}
