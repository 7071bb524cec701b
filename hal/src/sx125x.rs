//! SX1255 and SX1257: set-up, and their calibration by a firmware in the AGC's place.
//!
//! Every write to such a radio is read back: its interface has no acknowledgement.

use crate::bus::Bus;
use crate::chip::Chip;
use crate::config::{Chain, Config, Radio, RadioKind};
use crate::error::Cause;
use crate::firmware::{Firmware, Image};
use crate::mcu::{self, STATUS, W0, W1, W2, W3};
use crate::registers::*;
use crate::sequence::{Limit, until};

/// A field of a radio's register: register, lowest bit, width.
#[derive(Debug, Clone, Copy)]
struct Part(u8, u8, u8);

const MODE: Part = Part(0, 0, 8);
const RX_FREQ: u8 = 1;
const TX_FREQ: u8 = 4;
const VERSION: u8 = 7;
const TX_MIXER_GAIN: Part = Part(8, 0, 4);
const TX_DAC_GAIN: Part = Part(8, 4, 3);
const TX_ANA_BW: Part = Part(10, 0, 5);
const TX_PLL_BW: Part = Part(10, 5, 2);
const TX_DAC_BW: Part = Part(11, 0, 3);
const RX_LNA_IMPEDANCE: Part = Part(12, 0, 1);
const RX_BB_GAIN: Part = Part(12, 1, 4);
const RX_LNA_GAIN: Part = Part(12, 5, 3);
const RX_BB_BW: Part = Part(13, 0, 2);
const RX_ADC_TRIM: Part = Part(13, 2, 3);
const RX_ADC_BW: Part = Part(13, 5, 3);
const RX_ADC_TEMP: Part = Part(14, 0, 1);
const RX_PLL_BW: Part = Part(14, 1, 2);
const CLK_SELECT: Part = Part(16, 0, 8);
const DAC_CLK_SELECT: Part = Part(16, 0, 1);
const LOOP_BACK: Part = Part(16, 2, 1);
const MODE_STATUS: u8 = 17;
const TX_PLL_LOCKED: u8 = 1;
const RX_PLL_LOCKED: u8 = 2;

/// The test tone lies so far from the centre.
const TONE_HZ: u32 = 250_000;
/// 250 kHz in steps of 1/64 MHz.
const TONE: i32 = 16;

fn read<B: Bus>(chip: &mut Chip<B>, chain: Chain, register: u8) -> Result<u8, Cause> {
    let mut bytes = [register & 0x7f, 0];
    chip.radio(chain, &mut bytes)?;
    Ok(bytes[1])
}

fn set<B: Bus>(chip: &mut Chip<B>, chain: Chain, part: Part, value: u8) -> Result<(), Cause> {
    let Part(register, shift, width) = part;
    let mask = (0xffu8 >> (8 - width)) << shift;
    let old = if width == 8 { 0 } else { read(chip, chain, register)? };
    let new = (old & !mask) | ((value << shift) & mask);
    chip.radio(chain, &mut [0x80 | register, new])?;
    let found = read(chip, chain, register)? & mask;
    if found != new & mask {
        return Err(Cause::Unexpected {
            what: "an SX125x register does not read back",
            expected: new & mask,
            found,
        });
    }
    Ok(())
}

/// 24 bits: steps of 61.035 Hz, of half that for an SX1255.
pub fn frequency_word(kind: RadioKind, freq_hz: u32) -> [u8; 3] {
    let half = if kind == RadioKind::Sx1255 { 2 } else { 1 };
    let step = 15_625 * 256 / half;
    let rest = u64::from(freq_hz % step) * 256 * u64::from(half) / 15_625;
    [(freq_hz / step) as u8, (rest >> 8) as u8, rest as u8]
}

fn set_frequency<B: Bus>(
    chip: &mut Chip<B>,
    chain: Chain,
    kind: RadioKind,
    first: u8,
    freq_hz: u32,
) -> Result<(), Cause> {
    for (register, byte) in (first..).zip(frequency_word(kind, freq_hz)) {
        set(chip, chain, Part(register, 0, 8), byte)?;
    }
    Ok(())
}

fn set_all<B: Bus>(chip: &mut Chip<B>, chain: Chain, parts: &[(Part, u8)]) -> Result<(), Cause> {
    parts.iter().try_for_each(|(part, value)| set(chip, chain, *part, *value))
}

/// From reset to receiving.
pub fn set_up<B: Bus>(chip: &mut Chip<B>, chain: Chain, radio: &Radio, is_clock: bool) -> Result<(), Cause> {
    read(chip, chain, VERSION)?;
    set(chip, chain, CLK_SELECT, if is_clock { 2 } else { 0 })?;
    let crystal = if radio.kind == RadioKind::Sx1255 { 40 } else { 38 };
    set_all(
        chip,
        chain,
        &[
            (Part(crystal, 0, 4), 13),
            (Part(crystal, 4, 3), 2),
            (TX_MIXER_GAIN, 14),
            (TX_DAC_GAIN, 2),
            (TX_ANA_BW, 0),
            (TX_PLL_BW, 1),
            (TX_DAC_BW, 5),
            (RX_LNA_IMPEDANCE, 0),
            (RX_BB_GAIN, 15),
            (RX_LNA_GAIN, 1),
            (RX_BB_BW, 0),
            (RX_ADC_TRIM, 6),
            (RX_ADC_BW, 7),
            (RX_ADC_TEMP, 0),
            (RX_PLL_BW, 0),
        ],
    )?;
    set_frequency(chip, chain, radio.kind, RX_FREQ, radio.freq_hz)?;
    let mut status = 0;
    for _ in 0..5 {
        set(chip, chain, MODE, 1)?;
        set(chip, chain, MODE, 3)?;
        chip.wait_us(1000);
        status = read(chip, chain, MODE_STATUS)?;
        if status & RX_PLL_LOCKED != 0 {
            return Ok(());
        }
    }
    Err(Cause::TimeOut { what: "the PLL of an SX125x did not lock", limit_us: 5000, last: status })
}

/// What calibration found for a radio.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Calibrated {
    /// Amplitude and phase that cancel the image.
    pub image: (i8, i8),
    /// For each pair of DAC and mixer gain: I and Q that cancel the carrier.
    pub dc: Vec<((u8, u8), (i8, i8))>,
}

/// One run of the image calibration.
#[derive(Debug, Clone, Copy)]
struct ImageRun {
    amplitude: i8,
    phase: i8,
    rejection_db: i32,
    snr_db: i32,
}

/// One run of the DC calibration.
#[derive(Debug, Clone, Copy)]
struct DcRun {
    i: i8,
    q: i8,
    rejection_db: f64,
}

/// Sends a message and waits for its answer.
fn ask<B: Bus>(chip: &mut Chip<B>, command: u8, answer: u8) -> Result<(), Cause> {
    chip.set(W3, i32::from(command))?;
    // A run measures for some hundred milliseconds at most.
    let limit = Limit { every_us: 1000, limit_us: 1_000_000, what: "the calibration firmware did not go on" };
    until(chip, STATUS, limit, |status| status == answer)?;
    Ok(())
}

fn parameters<B: Bus>(chip: &mut Chip<B>, w2: u8, w1: i32) -> Result<(), Cause> {
    chip.set(W2, i32::from(w2))?;
    chip.set(W1, w1)?;
    Ok(())
}

fn begin<B: Bus>(chip: &mut Chip<B>, job: u8) -> Result<(), Cause> {
    parameters(chip, job, TONE)?;
    chip.set(W0, 0)?;
    chip.set(W3, 0)?;
    ask(chip, 1, 1)
}

/// Runs the calibration firmware; leaves the coefficients for the image in their registers.
pub fn calibrate<B: Bus>(
    chip: &mut Chip<B>,
    config: &Config,
    firmware: &Firmware,
) -> Result<[Calibrated; 2], Cause> {
    mcu::load(chip, firmware, Image::Calibration)?;
    mcu::greet_agc(chip, Image::Calibration)?;
    ask(chip, 0xff, 0)?;
    let mut found = [Calibrated::default(), Calibrated::default()];
    for chain in config.enabled() {
        found[chain.index()].image = image(chip, config, chain)?;
    }
    let registers = [
        (RADIO_FE_IQ_COMP_AMP_COEFF_RADIO_A_AMP_COEFF, RADIO_FE_IQ_COMP_PHI_COEFF_RADIO_A_PHI_COEFF),
        (RADIO_FE_IQ_COMP_AMP_COEFF_RADIO_B_AMP_COEFF, RADIO_FE_IQ_COMP_PHI_COEFF_RADIO_B_PHI_COEFF),
    ];
    for ((amplitude, phase), found) in registers.into_iter().zip(&found) {
        chip.set(amplitude, found.image.0.into())?;
        chip.set(phase, found.image.1.into())?;
    }
    for chain in config.enabled().filter(|chain| config.radio(*chain).tx_enable) {
        let mut pairs: Vec<(u8, u8)> = Vec::new();
        for pair in config.radio(chain).gains.iter().map(|gain| (gain.dac, gain.mixer)) {
            if !pairs.contains(&pair) {
                pairs.push(pair);
            }
        }
        for pair in pairs {
            let image = found[chain.index()].image;
            let offsets = dc(chip, config.radio(chain), chain, pair, image)?;
            found[chain.index()].dc.push((pair, offsets));
        }
    }
    Ok(found)
}

fn image<B: Bus>(chip: &mut Chip<B>, config: &Config, chain: Chain) -> Result<(i8, i8), Cause> {
    let mut last = String::new();
    // a radio that is off sends no test tone
    let other = config.radio(chain.other());
    let both = other.enable && config.radio(chain).kind == other.kind;
    let transmitters = if both { vec![chain.other(), chain] } else { vec![chain] };
    for transmitter in transmitters {
        let mut runs = Vec::new();
        for _ in 0..3 {
            runs.push(image_run(chip, config, chain, transmitter)?);
        }
        let least = |value: fn(&ImageRun) -> i32| runs.iter().map(value).min().unwrap_or(0);
        let spread = |value: fn(&ImageRun) -> i8| spread(runs.iter().map(value));
        let good = spread(|run| run.amplitude) <= 4
            && spread(|run| run.phase) <= 4
            && least(|run| run.rejection_db) >= 50
            && least(|run| run.snr_db) >= 50;
        if good {
            // the first of equals
            let mut best = runs[0];
            for run in &runs[1..] {
                if run.rejection_db > best.rejection_db {
                    best = *run;
                }
            }
            return Ok((best.amplitude, best.phase));
        }
        last = format!("{runs:?}");
    }
    Err(Cause::Calibration { chain, what: "RX image", detail: last })
}

fn image_run<B: Bus>(
    chip: &mut Chip<B>,
    config: &Config,
    chain: Chain,
    transmitter: Chain,
) -> Result<ImageRun, Cause> {
    let radio = config.radio(chain);
    let loop_back = transmitter == chain;
    set_frequency(chip, chain, radio.kind, RX_FREQ, radio.freq_hz)?;
    set_frequency(chip, transmitter, config.radio(transmitter).kind, TX_FREQ, radio.freq_hz + TONE_HZ)?;
    set_all(chip, chain, &[(RX_BB_BW, 0), (RX_ADC_TRIM, 6), (RX_PLL_BW, 0)])?;
    let mixer = if loop_back { 10 } else { 15 };
    let sender = [(TX_PLL_BW, 0), (TX_DAC_BW, 5), (TX_DAC_GAIN, 3), (TX_MIXER_GAIN, mixer)];
    set_all(chip, transmitter, &sender)?;
    if loop_back {
        set(chip, chain, LOOP_BACK, 1)?;
        set(chip, chain, MODE, 15)?;
    } else {
        set(chip, chain, MODE, 3)?;
        set(chip, transmitter, MODE, 13)?;
    }
    chip.wait_us(10_000);
    locked(chip, chain, RX_PLL_LOCKED)?;
    locked(chip, transmitter, TX_PLL_LOCKED)?;
    chip.set(RADIO_FE_SIG_ANA_CFG_RADIO_SEL, i32::from(chain == Chain::A))?;
    begin(chip, chain as u8)?;
    ask(chip, 2, 2)?;
    ask(chip, 3, 3)?;
    parameters(chip, 0, 8)?;
    ask(chip, 4, 6)?;
    let [_, _, s1, s0] = mcu::mailbox(chip)?;
    ask(chip, 6, 7)?;
    let [_, _, amplitude, phase] = mcu::mailbox(chip)?;
    ask(chip, 7, 8)?;
    let [i1, i0, n1, n0] = mcu::mailbox(chip)?;
    ask(chip, 8, if chain == Chain::A { 0x11 } else { 0x22 })?;
    let signal = u16::from_be_bytes([s1, s0]);
    Ok(ImageRun {
        amplitude: amplitude as i8,
        phase: phase as i8,
        rejection_db: decibels(signal, u16::from_be_bytes([i1, i0])) as i32,
        snr_db: decibels(signal, u16::from_be_bytes([n1, n0])) as i32,
    })
}

fn dc<B: Bus>(
    chip: &mut Chip<B>,
    radio: &Radio,
    chain: Chain,
    pair: (u8, u8),
    image: (i8, i8),
) -> Result<(i8, i8), Cause> {
    let mut runs = Vec::new();
    for _ in 0..3 {
        runs.push(dc_run(chip, radio, chain, pair, image)?);
    }
    let good = spread(runs.iter().map(|run| run.i)) <= 4
        && spread(runs.iter().map(|run| run.q)) <= 4
        && runs.iter().all(|run| run.rejection_db >= 10.0);
    if !good {
        return Err(Cause::Calibration { chain, what: "TX DC offset", detail: format!("{runs:?}") });
    }
    let mut best = runs[0];
    for run in &runs[1..] {
        if run.rejection_db > best.rejection_db {
            best = *run;
        }
    }
    Ok((best.i, best.q))
}

fn dc_run<B: Bus>(
    chip: &mut Chip<B>,
    radio: &Radio,
    chain: Chain,
    (dac, mixer): (u8, u8),
    (amplitude, phase): (i8, i8),
) -> Result<DcRun, Cause> {
    set_frequency(chip, chain, radio.kind, RX_FREQ, radio.freq_hz.saturating_sub(TONE_HZ))?;
    set_frequency(chip, chain, radio.kind, TX_FREQ, radio.freq_hz)?;
    set_all(
        chip,
        chain,
        &[
            (RX_BB_BW, 0),
            (RX_ADC_TRIM, 6),
            (RX_PLL_BW, 0),
            (TX_PLL_BW, 0),
            (TX_DAC_BW, 5),
            (DAC_CLK_SELECT, 1),
            (TX_DAC_GAIN, dac),
            (TX_MIXER_GAIN, mixer),
            (LOOP_BACK, 1),
            (MODE, 15),
        ],
    )?;
    chip.wait_us(1000);
    locked(chip, chain, RX_PLL_LOCKED)?;
    locked(chip, chain, TX_PLL_LOCKED)?;
    let (notch, tx) = match chain {
        Chain::A => (RADIO_FE_CTRL0_RADIO_A_DC_NOTCH_EN, 0),
        Chain::B => (RADIO_FE_CTRL0_RADIO_B_DC_NOTCH_EN, TX_B),
    };
    chip.set(RADIO_FE_SIG_ANA_CFG_RADIO_SEL, i32::from(chain == Chain::A))?;
    chip.set(TX_TOP_A_TX_RFFE_IF_CTRL_TX_MODE.moved(tx), 0)?;
    chip.set(TX_TOP_A_TX_TRIG_TX_TRIG_IMMEDIATE.moved(tx), 1)?;
    chip.set(TX_TOP_A_TX_TRIG_TX_TRIG_IMMEDIATE.moved(tx), 0)?;
    chip.set(notch, 1)?;
    begin(chip, chain as u8 + 2)?;
    parameters(chip, amplitude as u8, phase.into())?;
    ask(chip, 2, 2)?;
    parameters(chip, 0, 0)?;
    ask(chip, 3, 3)?;
    parameters(chip, 0, 64)?;
    ask(chip, 4, 6)?;
    let [_, _, s1, s0] = mcu::mailbox(chip)?;
    ask(chip, 6, 7)?;
    let [d1, d0, i, q] = mcu::mailbox(chip)?;
    ask(chip, 7, 8)?;
    ask(chip, 8, 9)?;
    ask(chip, 9, 0x0a)?;
    ask(chip, 0x0a, 0x0c)?;
    // What can be read between these is for the firmware's makers.
    for status in 0x0c..0x20 {
        ask(chip, status, status + 1)?;
    }
    ask(chip, 0x20, if chain == Chain::A { 0x33 } else { 0x44 })?;
    let rejection_db = decibels(u16::from_be_bytes([s1, s0]), u16::from_be_bytes([d1, d0]));
    Ok(DcRun { i: i as i8, q: q as i8, rejection_db })
}

fn locked<B: Bus>(chip: &mut Chip<B>, chain: Chain, bit: u8) -> Result<(), Cause> {
    let status = read(chip, chain, MODE_STATUS)?;
    if status & bit == 0 {
        return Err(Cause::Unexpected {
            what: "a PLL of an SX125x is not locked",
            expected: bit,
            found: status,
        });
    }
    Ok(())
}

fn decibels(signal: u16, other: u16) -> f64 {
    20.0 * (f64::from(signal) / f64::from(other.max(1))).log10()
}

fn spread(values: impl Iterator<Item = i8> + Clone) -> i16 {
    let most = values.clone().max().unwrap_or(0);
    i16::from(most) - i16::from(values.min().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequency_words_are_multiples_of_the_step() {
        for freq_hz in [433_000_000u32, 490_123_456, 868_500_000, 915_000_000] {
            let word = |kind| {
                let [a, b, c] = frequency_word(kind, freq_hz);
                u32::from_be_bytes([0, a, b, c])
            };
            assert_eq!(u64::from(word(RadioKind::Sx1257)), (u64::from(freq_hz) << 19) / 32_000_000);
            if freq_hz < 500_000_000 {
                assert_eq!(u64::from(word(RadioKind::Sx1255)), (u64::from(freq_hz) << 20) / 32_000_000);
            }
        }
    }
}
