//! The SX1261 beside the concentrator: listen before talk, and spectral scan.

use crate::bus::Bus;
use crate::chip::Chip;
use crate::config::{Bandwidth, Chain, Config, Lbt, LbtChannel, Sx1261};
use crate::error::Cause;
use crate::firmware::Patch;
use crate::mcu;
use crate::sequence::{self, Commands, Limit, Reply, Step, until};
use crate::sx1250::{frequency_word, image_band, opcode::*, write_register};

/// Stops scan and listening, or averages.
const CONTROL: u16 = 0x089b;
const AVERAGE: u8 = 0x14;
const SCAN_STATUS: u16 = 0x07cd;
const SCAN_RESULTS: u16 = 0x0401;
const VERSION: u16 = 0x0320;
/// Levels of a spectral scan.
pub const LEVELS: usize = 33;

const STANDBY: Reply = Reply { at: 1, mask: 0x7e, value: 0x22, what: "the SX1261 is not in standby" };

fn standby() -> Commands {
    Commands::new().sx1261(&[SET_STANDBY, 0]).sx1261_is(&[GET_STATUS, 0], STANDBY)
}

fn read<B: Bus>(chip: &mut Chip<B>, address: u16, into: &mut [u8]) -> Result<(), Cause> {
    let [high, low] = address.to_be_bytes();
    let mut bytes = vec![0; into.len() + 4];
    bytes[..3].copy_from_slice(&[READ_REGISTER, high, low]);
    chip.wait_us(crate::chip::COMMAND_GAP_US);
    chip.sx1261(&mut bytes)?;
    into.copy_from_slice(&bytes[4..]);
    Ok(())
}

/// From reset to ready: patch, image calibration at the centre of radio A, buffers.
pub fn start<B: Bus>(chip: &mut Chip<B>, config: &Config, patch: &Patch) -> Result<(), Cause> {
    sequence::run(chip, &standby().steps())?;
    let mut version = [0; 15];
    read(chip, VERSION, &mut version)?;
    let mut load = Commands::new().sx1261(&write_register(0x0610, &[0x10]));
    for (address, word) in (0x8000u16..).step_by(4).zip(patch.words()) {
        load = load.sx1261(&write_register(address, &word.to_be_bytes()));
    }
    let load = load.sx1261(&write_register(0x0610, &[0x00])).sx1261(&[0xd9]);
    sequence::run(chip, &load.steps())?;
    read(chip, VERSION, &mut version)?;
    if let Some(at) = version[11..].iter().zip(b"2D06").position(|(found, wanted)| found != wanted) {
        let (expected, found) = (b"2D06"[at], version[11 + at]);
        return Err(Cause::Unexpected { what: "version of the SX1261's patch", expected, found });
    }
    let freq_hz = config.radio(Chain::A).freq_hz;
    let [low, high] = image_band(freq_hz).ok_or(Cause::NoImageBand { chain: Chain::A, freq_hz })?;
    let errors = Reply { at: 3, mask: 0x10, value: 0, what: "image calibration of the SX1261 failed" };
    let calibrate = Commands::new()
        .sx1261(&[GET_STATUS, 0])
        .sx1261(&[CALIBRATE_IMAGE, low, high])
        .wait(10_000)
        .sx1261_is(&[GET_DEVICE_ERRORS, 0, 0, 0], errors);
    sequence::run(chip, &calibrate.steps())?;
    let set_up =
        standby().sx1261(&[SET_BUFFER_BASE_ADDRESS, 0x80, 0x80]).sx1261(&write_register(0x08ac, &[0xcb]));
    sequence::run(chip, &set_up.steps())
}

/// Receives at a frequency, measuring.
fn receive(freq_hz: u32, bandwidth: Bandwidth) -> Result<Commands, Cause> {
    let width = match bandwidth {
        Bandwidth::Khz125 => 0x0a,
        Bandwidth::Khz250 => 0x09,
        Bandwidth::Khz500 => return Err(crate::config::ConfigError::Bandwidth(bandwidth.hz()).into()),
    };
    let [f3, f2, f1, f0] = frequency_word(freq_hz).to_be_bytes();
    Ok(Commands::new()
        .sx1261(&write_register(CONTROL, &[0]))
        .sx1261(&[SET_FS])
        .sx1261(&[SET_RF_FREQUENCY, f3, f2, f1, f0])
        .sx1261(&write_register(CONTROL, &[AVERAGE]))
        .sx1261(&[SET_PACKET_TYPE, 0])
        .sx1261(&[SET_MODULATION_PARAMS, 0x00, 0x14, 0x00, 0x00, width, 0x02, 0xe9, 0x0f])
        .sx1261(&[SET_PACKET_PARAMS, 0x00, 0x20, 0x05, 0x20, 0x00, 0x01, 0xff, 0x00, 0x00])
        .sx1261(&[SET_RX, 0xff, 0xff, 0xff]))
}

/// Stops what the SX1261 does.
pub fn stop() -> Vec<Step> {
    Commands::new().sx1261(&write_register(CONTROL, &[0])).sx1261(&[SET_FS]).steps()
}

/// Listens where somebody wants to send, for the time that the channel there wants; what was heard decides inside the
/// chip whether the next send happens.
pub fn listen(sx1261: &Sx1261, lbt: &Lbt, channel: &LbtChannel, freq_hz: u32) -> Result<Vec<Step>, Cause> {
    let rounds: u16 = if channel.scan_us == 5000 { 715 } else { 24 };
    let [high, low] = rounds.to_be_bytes();
    let threshold = i16::from(lbt.rssi_target) + i16::from(sx1261.rssi_offset);
    let commands = receive(freq_hz, channel.bandwidth)?;
    Ok(commands.sx1261(&[0x9a, 0x0b, high, low, (-2 * threshold) as u8, 0x01]).wait(channel.scan_us).steps())
}

/// Whether the transmission that was triggered after [`listen`] happened.
pub fn was_allowed<B: Bus>(chip: &mut Chip<B>, chain: Chain) -> Result<bool, Cause> {
    let (started, refused) = (1u8 << chain.index(), 0x40u8 << chain.index());
    let limit = Limit { every_us: 1000, limit_us: 500_000, what: "the AGC did not tell whether it sends" };
    let status = until(chip, mcu::STATUS, limit, |status| status & started != 0)?;
    chip.set(mcu::W0, 0xff)?;
    let limit = Limit { what: "the AGC did not take the acknowledgement", ..limit };
    until(chip, mcu::STATUS, limit, |status| status == 0)?;
    chip.set(mcu::W0, 0x00)?;
    Ok(status & refused == 0)
}

/// How far a spectral scan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan {
    /// None was started.
    None,
    /// It runs.
    Running,
    /// It was stopped.
    Aborted,
    /// It can be read.
    Done,
    /// A value nobody knows.
    Unknown(u8),
}

/// Starts a scan of `rounds` measurements, 8.2 us each, over 125 kHz.
pub fn start_scan<B: Bus>(chip: &mut Chip<B>, freq_hz: u32, rounds: u16) -> Result<(), Cause> {
    let [high, low] = rounds.to_be_bytes();
    let commands = receive(freq_hz, Bandwidth::Khz125)?.sx1261(&[0x9b, high, low, 0x0b]);
    sequence::run(chip, &commands.steps())
}

/// How far it is.
pub fn scan_status<B: Bus>(chip: &mut Chip<B>) -> Result<Scan, Cause> {
    let mut status = [0];
    read(chip, SCAN_STATUS, &mut status)?;
    Ok(match status[0] {
        0x00 => Scan::None,
        0x0f => Scan::Running,
        0xf0 => Scan::Aborted,
        0xff => Scan::Done,
        other => Scan::Unknown(other),
    })
}

/// What it found: for each level in dBm how often it was measured. The last level means "below the one before".
pub fn scan_results<B: Bus>(chip: &mut Chip<B>, rssi_offset: i8) -> Result<[(i16, u16); LEVELS], Cause> {
    let mut bytes = [0; 2 * LEVELS];
    read(chip, SCAN_RESULTS, &mut bytes)?;
    let mut levels = [(0, 0); LEVELS];
    for (i, (level, pair)) in levels.iter_mut().zip(bytes.chunks_exact(2)).enumerate() {
        // The last counts what lay below the level before it.
        let dbm = -4 * i.min(LEVELS - 2) as i16 + i16::from(rssi_offset);
        *level = (dbm, u16::from_be_bytes([pair[0], pair[1]]));
    }
    Ok(levels)
}

/// Stops a scan.
pub fn abort_scan() -> Vec<Step> {
    Commands::new().sx1261(&write_register(CONTROL, &[0])).steps()
}
