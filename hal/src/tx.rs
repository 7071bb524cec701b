//! A transmission: what can be asked for, and the registers that make it.

use crate::airtime::{LoraShape, fsk_time_on_air_ms};
use crate::bus::Bus;
use crate::chip::Chip;
use crate::config::{Bandwidth, Chain, CodingRate, Config, ConfigError, RadioKind, SpreadingFactor};
use crate::counter::Count;
use crate::error::Cause;
use crate::mcu;
use crate::registers::*;
use crate::sequence::{Step, run};
use crate::start::sync_peaks;
use crate::sx125x::Calibrated;

use Step::Set;

/// From the trigger to the first chirp the radio needs so long.
const START_DELAY_US: u32 = 1500;

/// When it goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Now.
    Now,
    /// The first chirp at this moment.
    At(Count),
    /// With the next PPS (about 1.5 ms after it).
    OnPps,
}

/// How it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modulation {
    /// LoRa.
    Lora {
        /// Spreading factor.
        sf: SpreadingFactor,
        /// Bandwidth.
        bandwidth: Bandwidth,
        /// Coding rate.
        coding_rate: CodingRate,
        /// Symbols; 0 means 8, fewer than 6 means 6.
        preamble: u16,
        /// Chirps go down, as gateways speak to devices.
        inverted: bool,
        /// Whether a CRC is appended.
        crc: bool,
        /// Without header the receiver must know length, coding rate and CRC.
        header: bool,
    },
    /// FSK.
    Fsk {
        /// Bits per second.
        bitrate: u32,
        /// Hertz.
        deviation_hz: u32,
        /// Bytes; 0 means 5, fewer than 3 means 3.
        preamble: u16,
        /// Whether a CRC is appended.
        crc: bool,
        /// Width that the AGC prepares for, where known.
        bandwidth: Option<Bandwidth>,
    },
    /// An unmodulated carrier, until it is aborted.
    Carrier {
        /// Distance from the frequency, kHz.
        offset_khz: i16,
        /// Width that the AGC prepares for, where known.
        bandwidth: Option<Bandwidth>,
    },
}

impl Modulation {
    /// The preamble that is really sent.
    pub fn preamble(&self) -> u16 {
        let at_least = |preamble: u16, normal: u16, least: u16| match preamble {
            0 => normal,
            preamble => preamble.max(least),
        };
        match *self {
            Modulation::Lora { preamble, .. } => at_least(preamble, 8, 6),
            Modulation::Fsk { preamble, .. } => at_least(preamble, 5, 3),
            Modulation::Carrier { .. } => 0,
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmission {
    /// Which radio.
    pub chain: Chain,
    /// Centre.
    pub freq_hz: u32,
    /// At the antenna connector; the nearest entry below it is used.
    pub power_dbm: i8,
    /// When it goes out.
    pub when: When,
    /// How it is sent.
    pub modulation: Modulation,
    /// At most 255 bytes.
    pub payload: Vec<u8>,
}

impl Transmission {
    /// Milliseconds on air; 0 for a carrier, which has no end of its own.
    pub fn time_on_air_ms(&self, config: &Config) -> u32 {
        let size = self.payload.len().min(255) as u8;
        match self.modulation {
            Modulation::Lora { sf, bandwidth, coding_rate, crc, header, .. } => {
                let preamble = self.modulation.preamble();
                LoraShape { sf, bandwidth, coding_rate, preamble, header, crc, size }.time_on_air_ms()
            }
            Modulation::Fsk { bitrate, crc, .. } => {
                let sync = config.fsk().map_or(3, |fsk| fsk.sync.size);
                fsk_time_on_air_ms(bitrate, self.modulation.preamble(), sync, crc, size)
            }
            Modulation::Carrier { .. } => 0,
        }
    }

    /// What can be said before anything is sent to the chip.
    pub fn check(&self, config: &Config) -> Result<(), ConfigError> {
        let radio = config.radio(self.chain);
        if !radio.enable || !radio.tx_enable {
            return Err(ConfigError::NoTx(self.chain));
        }
        if self.payload.len() > 255 {
            return Err(ConfigError::Payload(self.payload.len()));
        }
        if radio.gains.is_empty() {
            return Err(ConfigError::Gains(0));
        }
        if let Modulation::Fsk { bitrate, deviation_hz, .. } = self.modulation {
            if !(500..=250_000).contains(&bitrate) {
                return Err(ConfigError::Bitrate(bitrate));
            }
            if !(1_000..=200_000).contains(&deviation_hz) {
                return Err(ConfigError::Deviation(deviation_hz));
            }
        }
        Ok(())
    }
}

/// Steps of 32 MHz / 2^18.
fn word18(hz: u32) -> u32 {
    ((u64::from(hz) << 18) / 32_000_000) as u32
}

/// Prepares and triggers a transmission.
pub fn send<B: Bus>(
    chip: &mut Chip<B>,
    config: &Config,
    calibrated: &[Calibrated; 2],
    tx: &Transmission,
) -> Result<(), Cause> {
    let at = tx.chain.index() as u16 * TX_B;
    run(chip, &prepare(config, calibrated, tx, at))?;
    let delay = match tx.modulation {
        Modulation::Lora { sf, bandwidth, .. } => {
            let delay = start_delay(config.radio(tx.chain).kind, sf, bandwidth);
            let field = TX_TOP_A_TX_START_DELAY_MSB_TX_START_DELAY.moved(at);
            chip.write_block(field.address, &(delay as u16).to_be_bytes())?;
            delay
        }
        Modulation::Fsk { .. } | Modulation::Carrier { .. } => 0,
    };
    let write = TX_TOP_A_TX_CTRL_WRITE_BUFFER.moved(at);
    chip.set(write, 1)?;
    match tx.modulation {
        Modulation::Lora { .. } => chip.write_block(TX_A_PAYLOAD + at, &tx.payload)?,
        Modulation::Fsk { .. } => {
            let length = [tx.payload.len() as u8];
            chip.write_block(TX_A_PAYLOAD + at, &[&length[..], &tx.payload].concat())?;
        }
        // What a carrier carries does not matter.
        Modulation::Carrier { .. } if tx.payload.is_empty() => {}
        Modulation::Carrier { .. } => chip.write_block(TX_A_PAYLOAD + at, &tx.payload)?,
    }
    chip.set(write, 0)?;
    let trigger = match tx.when {
        When::Now => TX_TOP_A_TX_TRIG_TX_TRIG_IMMEDIATE,
        When::At(count) => {
            let timer = count.0.wrapping_mul(32).wrapping_sub(delay);
            let field = TX_TOP_A_TIMER_TRIG_BYTE3_TIMER_DELAYED_TRIG.moved(at);
            chip.write_block(field.address, &timer.to_be_bytes())?;
            TX_TOP_A_TX_TRIG_TX_TRIG_DELAYED
        }
        When::OnPps => TX_TOP_A_TX_TRIG_TX_TRIG_GPS,
    };
    run(chip, &[Set(trigger.moved(at), 0), Set(trigger.moved(at), 1)])
}

/// Chirp filter: 7 from SF10 on.
fn lowpass(sf: SpreadingFactor) -> u32 {
    if sf.get() < 10 { 6 } else { 7 }
}

/// Ticks between the trigger and what the timer counts to: what radio, filter and modem need is taken off.
fn start_delay(kind: RadioKind, sf: SpreadingFactor, bandwidth: Bandwidth) -> u32 {
    let radio = match (kind, bandwidth) {
        (RadioKind::Sx1250, Bandwidth::Khz125) => 19,
        (RadioKind::Sx1250, Bandwidth::Khz250) => 24,
        (RadioKind::Sx1250, Bandwidth::Khz500) => 21,
        (_, Bandwidth::Khz250) => 106,
        (_, _) => 100,
    };
    let filter = ((1 << lowpass(sf)) - 1) * 1_000_000 / bandwidth.hz();
    let modem = 64 / bandwidth.factor();
    START_DELAY_US * 32 - radio - filter - modem
}

fn prepare(config: &Config, calibrated: &[Calibrated; 2], tx: &Transmission, at: u16) -> Vec<Step> {
    let radio = config.radio(tx.chain);
    let (kind, source) = match tx.modulation {
        Modulation::Carrier { .. } => (0, 0),
        Modulation::Lora { .. } => (0, 1),
        Modulation::Fsk { .. } => (1, 2),
    };
    let mut steps = vec![
        Set(TX_TOP_A_GEN_CFG_0_MODULATION_TYPE.moved(at), kind),
        Set(TX_TOP_A_TX_RFFE_IF_CTRL_TX_IF_SRC.moved(at), source),
    ];
    // The table is sorted: the last entry that is not above what is asked for.
    let gain = radio.gains.iter().rev().find(|gain| gain.rf_power <= tx.power_dbm).or(radio.gains.first());
    if let Some(gain) = gain {
        let offsets =
            calibrated[tx.chain.index()].dc.iter().find(|(pair, _)| *pair == (gain.dac, gain.mixer));
        let (power, (i, q)) = if radio.kind.is_sx125x() {
            let power = i32::from(gain.pa) << 6 | i32::from(gain.dac) << 4 | i32::from(gain.mixer);
            (power, offsets.map_or((0, 0), |(_, offsets)| *offsets))
        } else {
            (i32::from(gain.pa > 0) << 6 | i32::from(gain.power_index), (0, 0))
        };
        steps.extend([
            Set(TX_TOP_A_TX_RFFE_IF_I_OFFSET_I_OFFSET.moved(at), i.into()),
            Set(TX_TOP_A_TX_RFFE_IF_Q_OFFSET_Q_OFFSET.moved(at), q.into()),
            Set(TX_TOP_A_AGC_TX_PWR_AGC_TX_PWR.moved(at), power),
            Set(TX_TOP_A_TX_RFFE_IF_IQ_GAIN_IQ_GAIN.moved(at), gain.digital.into()),
        ]);
    }
    let factor = if radio.kind == RadioKind::Sx1255 { 2 } else { 1 };
    let [_, high, middle, low] = word18(tx.freq_hz.saturating_mul(factor)).to_be_bytes();
    steps.push(Step::Burst(TX_TOP_A_TX_RFFE_IF_FREQ_RF_H_FREQ_RF.moved(at).address, vec![high, middle, low]));
    let width =
        |bandwidth: Option<Bandwidth>| 0x80 | bandwidth.map_or(0, |bandwidth| i32::from(bandwidth.code()));
    let agc = match tx.modulation {
        Modulation::Lora { bandwidth, .. } => bandwidth.code().into(),
        Modulation::Fsk { bandwidth, .. } | Modulation::Carrier { bandwidth, .. } => width(bandwidth),
    };
    steps.push(Set(TX_TOP_A_AGC_TX_BW_AGC_TX_BW.moved(at), agc));
    match tx.modulation {
        Modulation::Lora { .. } => steps.extend(lora(config, tx, at)),
        Modulation::Fsk { .. } => steps.extend(fsk(config, tx, at)),
        Modulation::Carrier { offset_khz, .. } => steps.extend(carrier(offset_khz, at)),
    }
    steps
}

fn deviation(hz: u32, at: u16) -> [Step; 2] {
    let word = word18(hz) as i32;
    [
        Set(TX_TOP_A_TX_RFFE_IF_FREQ_DEV_H_FREQ_DEV.moved(at), word >> 8 & 0x0f),
        Set(TX_TOP_A_TX_RFFE_IF_FREQ_DEV_L_FREQ_DEV.moved(at), word & 0xff),
    ]
}

/// The AGC sets the radio's own deviation. It looks for it when it sends: no message.
fn deviation_for_agc(hz: u32) -> Step {
    let [_, w2, w1, w0] = (((u64::from(hz) << 25) / 32_000_000) as u32).to_be_bytes();
    Step::Burst(mcu::W2.address, vec![w2, w1, w0])
}

fn lora(config: &Config, tx: &Transmission, at: u16) -> Vec<Step> {
    let Modulation::Lora { sf, bandwidth, coding_rate, inverted, crc, header, .. } = tx.modulation else {
        return Vec::new();
    };
    let preamble = tx.modulation.preamble();
    let peaks = sync_peaks(config.public && !sf.is_short());
    let mut steps = deviation(bandwidth.hz() / 2, at).to_vec();
    let fields = [
        (TX_TOP_A_TXRX_CFG0_0_MODEM_BW, bandwidth.code().into()),
        (TX_TOP_A_TXRX_CFG1_3_PREAMBLE_SYMB_NB, i32::from(preamble >> 8)),
        (TX_TOP_A_TXRX_CFG1_2_PREAMBLE_SYMB_NB, i32::from(preamble & 0xff)),
        (TX_TOP_A_TXRX_CFG0_0_MODEM_SF, sf.get().into()),
        (TX_TOP_A_TX_CFG0_0_CHIRP_LOWPASS, lowpass(sf) as i32),
        (TX_TOP_A_TXRX_CFG0_1_CODING_RATE, coding_rate.get().into()),
        (TX_TOP_A_TXRX_CFG0_2_MODEM_EN, 1),
        (TX_TOP_A_TXRX_CFG0_2_CADRXTX, 2),
        (TX_TOP_A_TXRX_CFG1_1_MODEM_START, 1),
        (TX_TOP_A_TX_CFG0_0_CONTINUOUS, 0),
        (TX_TOP_A_TX_CFG0_0_CHIRP_INVERT, i32::from(inverted)),
        (TX_TOP_A_TXRX_CFG0_2_IMPLICIT_HEADER, i32::from(!header)),
        (TX_TOP_A_TXRX_CFG0_2_CRC_EN, i32::from(crc)),
        (TX_TOP_A_FRAME_SYNCH_0_PEAK1_POS, peaks.0),
        (TX_TOP_A_FRAME_SYNCH_1_PEAK2_POS, peaks.1),
        (TX_TOP_A_TXRX_CFG0_2_FINE_SYNCH_EN, i32::from(sf.is_short())),
        (TX_TOP_A_TXRX_CFG0_3_PAYLOAD_LENGTH, tx.payload.len() as i32),
        (TX_TOP_A_TXRX_CFG0_1_PPM_OFFSET_HDR_CTRL, 0),
        (TX_TOP_A_TXRX_CFG0_1_PPM_OFFSET, i32::from(sf.is_slow(bandwidth))),
    ];
    steps.extend(fields.map(|(field, value)| Set(field.moved(at), value)));
    steps
}

fn fsk(config: &Config, tx: &Transmission, at: u16) -> Vec<Step> {
    let Modulation::Fsk { bitrate, deviation_hz, crc, .. } = tx.modulation else { return Vec::new() };
    let preamble = tx.modulation.preamble();
    let sync = config.fsk().map(|fsk| fsk.sync).unwrap_or_default();
    let rate = (32_000_000 / bitrate.max(1)) as i32;
    let mut steps = deviation(deviation_hz, at).to_vec();
    steps.push(deviation_for_agc(deviation_hz));
    let fields = [
        (TX_TOP_A_FSK_CFG_0_PKT_MODE, 1),
        (TX_TOP_A_FSK_CFG_0_CRC_EN, i32::from(crc)),
        (TX_TOP_A_FSK_CFG_0_CRC_IBM, 0),
        (TX_TOP_A_FSK_CFG_0_DCFREE_ENC, 2),
        (TX_TOP_A_FSK_MOD_FSK_GAUSSIAN_EN, 1),
        (TX_TOP_A_FSK_MOD_FSK_GAUSSIAN_SELECT_BT, 2),
        (TX_TOP_A_FSK_MOD_FSK_REF_PATTERN_EN, 1),
        (TX_TOP_A_FSK_MOD_FSK_REF_PATTERN_SIZE, i32::from(sync.size) - 1),
        (TX_TOP_A_FSK_MOD_FSK_PREAMBLE_SEQ, 0),
        (TX_TOP_A_FSK_BIT_RATE_MSB_BIT_RATE, rate >> 8 & 0xff),
        (TX_TOP_A_FSK_BIT_RATE_LSB_BIT_RATE, rate & 0xff),
        (TX_TOP_A_FSK_PREAMBLE_SIZE_MSB_PREAMBLE_SIZE, i32::from(preamble >> 8)),
        (TX_TOP_A_FSK_PREAMBLE_SIZE_LSB_PREAMBLE_SIZE, i32::from(preamble & 0xff)),
        (TX_TOP_A_FSK_PKT_LEN_PKT_LENGTH, tx.payload.len() as i32),
    ];
    steps.extend(fields.map(|(field, value)| Set(field.moved(at), value)));
    let pattern = TX_TOP_A_FSK_REF_PATTERN_BYTE7_FSK_REF_PATTERN.moved(at).address;
    steps.push(Step::Burst(pattern, sync.registers().to_vec()));
    steps
}

fn carrier(offset_khz: i16, at: u16) -> Vec<Step> {
    // The deviation comes in tens of kHz; the offset is a part of it, in 64ths.
    let hz = u32::from(offset_khz.unsigned_abs()).div_ceil(10) * 10_000;
    let mut steps = deviation(hz, at).to_vec();
    steps.push(deviation_for_agc(hz));
    let part = if hz == 0 { 0 } else { i32::from(offset_khz) * 1000 * 64 / hz as i32 };
    steps.push(Set(TX_TOP_A_TX_RFFE_IF_TEST_MOD_FREQ.moved(at), part));
    steps
}

/// What a transmitter does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Not started.
    Off,
    /// Nothing.
    Free,
    /// It waits for its moment.
    Scheduled,
    /// It is on air.
    Emitting,
    /// A value nobody knows.
    Unknown(u8),
}

/// Asks a transmitter.
pub fn status<B: Bus>(chip: &mut Chip<B>, chain: Chain) -> Result<Status, Cause> {
    let at = chain.index() as u16 * TX_B;
    Ok(match chip.get(TX_TOP_A_TX_FSM_STATUS_TX_STATUS.moved(at))? as u8 {
        0x80 => Status::Free,
        0x30 | 0x50 | 0x60 | 0x70 => Status::Emitting,
        0x91 | 0x92 => Status::Scheduled,
        other => Status::Unknown(other),
    })
}
