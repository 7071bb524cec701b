//! A transmission as the chip would have made it, and what its registers say.

use crate::airtime::{LoraShape, fsk_time_on_air_ms};
use crate::config::{Bandwidth, Chain, CodingRate, SpreadingFactor};
use crate::counter::Count;
use crate::registers::*;
use crate::tx::Modulation;

/// Which trigger was pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// At once.
    Immediate,
    /// At this value of the counter, in ticks.
    At(u32),
    /// With the next PPS.
    Pps,
}

/// A transmission as the chip would have made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Which transmitter.
    pub chain: Chain,
    /// Its trigger.
    pub trigger: Trigger,
    /// Frequency word, 2^18 steps of 32 MHz.
    pub frequency_word: u32,
    /// The payload buffer, as far as it was written.
    pub payload: Vec<u8>,
    /// The transmitter's registers, 128 bytes.
    pub registers: Vec<u8>,
}

impl Sent {
    fn get(&self, field: Field) -> i32 {
        let at = usize::from(field.address.saturating_sub(0x5200));
        self.registers.get(at).map_or(0, |byte| field.extract(*byte))
    }

    /// Centre, as an SX1250 or SX1257 takes the word; on the next kilohertz, since steps have 122 Hz.
    pub fn freq_hz(&self) -> u32 {
        let hz = (u64::from(self.frequency_word) * 32_000_000) >> 18;
        (hz.saturating_add(500) / 1000 * 1000) as u32
    }

    /// When the first chirp leaves, on the 32 MHz counter; `None` where no count was asked for. The timer is set ahead by
    /// what radio, filter and modem need of the start delay.
    pub fn start_ticks(&self) -> Option<u32> {
        let delay = self.get(TX_TOP_A_TX_START_DELAY_MSB_TX_START_DELAY) << 8
            | self.get(TX_TOP_A_TX_START_DELAY_LSB_TX_START_DELAY);
        match self.trigger {
            Trigger::At(ticks) => Some(ticks.wrapping_add(delay as u32)),
            Trigger::Immediate | Trigger::Pps => None,
        }
    }

    /// The same in microseconds: as the counter has only 32 bits of ticks, modulo 2^27.
    pub fn start_count(&self) -> Option<Count> {
        self.start_ticks().map(|ticks| Count(ticks / 32))
    }

    /// How it was sent. `None`: the registers say what no radio sends.
    pub fn modulation(&self) -> Option<Modulation> {
        match self.get(TX_TOP_A_TX_RFFE_IF_CTRL_TX_IF_SRC) {
            0 => Some(Modulation::Carrier { offset_khz: 0, bandwidth: None }),
            1 => {
                let bandwidth = match self.get(TX_TOP_A_TXRX_CFG0_0_MODEM_BW) {
                    4 => Bandwidth::Khz125,
                    5 => Bandwidth::Khz250,
                    6 => Bandwidth::Khz500,
                    _ => return None,
                };
                let high = self.get(TX_TOP_A_TXRX_CFG1_3_PREAMBLE_SYMB_NB) as u16;
                let low = self.get(TX_TOP_A_TXRX_CFG1_2_PREAMBLE_SYMB_NB) as u16;
                Some(Modulation::Lora {
                    sf: SpreadingFactor::new(self.get(TX_TOP_A_TXRX_CFG0_0_MODEM_SF) as u8).ok()?,
                    bandwidth,
                    coding_rate: CodingRate::new(self.get(TX_TOP_A_TXRX_CFG0_1_CODING_RATE) as u8).ok()?,
                    preamble: high << 8 | low,
                    inverted: self.get(TX_TOP_A_TX_CFG0_0_CHIRP_INVERT) == 1,
                    crc: self.get(TX_TOP_A_TXRX_CFG0_2_CRC_EN) == 1,
                    header: self.get(TX_TOP_A_TXRX_CFG0_2_IMPLICIT_HEADER) == 0,
                })
            }
            _ => {
                let rate = (self.get(TX_TOP_A_FSK_BIT_RATE_MSB_BIT_RATE) & 0xff) << 8
                    | (self.get(TX_TOP_A_FSK_BIT_RATE_LSB_BIT_RATE) & 0xff);
                let high = self.get(TX_TOP_A_FSK_PREAMBLE_SIZE_MSB_PREAMBLE_SIZE) as u16 & 0xff;
                let low = self.get(TX_TOP_A_FSK_PREAMBLE_SIZE_LSB_PREAMBLE_SIZE) as u16 & 0xff;
                Some(Modulation::Fsk {
                    bitrate: 32_000_000 / u32::try_from(rate).ok().filter(|rate| *rate > 0)?,
                    deviation_hz: 25_000,
                    preamble: high << 8 | low,
                    crc: self.get(TX_TOP_A_FSK_CFG_0_CRC_EN) == 1,
                    bandwidth: None,
                })
            }
        }
    }

    /// What was sent, without the length byte that FSK puts before it.
    pub fn frame(&self) -> &[u8] {
        match self.modulation() {
            Some(Modulation::Fsk { .. }) => self.payload.get(1..).unwrap_or_default(),
            _ => &self.payload,
        }
    }

    /// Microseconds on air; 0 for a carrier, which has no end of its own.
    pub fn time_on_air_us(&self) -> u32 {
        let size = self.frame().len().min(255) as u8;
        match self.modulation() {
            Some(Modulation::Lora { sf, bandwidth, coding_rate, preamble, crc, header, .. }) => {
                LoraShape { sf, bandwidth, coding_rate, preamble, header, crc, size }.time_on_air_us()
            }
            Some(Modulation::Fsk { bitrate, preamble, crc, .. }) => {
                1000 * fsk_time_on_air_ms(bitrate, preamble, 3, crc, size)
            }
            Some(Modulation::Carrier { .. }) | None => 0,
        }
    }
}
