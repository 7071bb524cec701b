//! What the numbers of a received packet mean: frequency, moment, levels, CRC. Pure.

use crate::config::{Bandwidth, Chain, CodingRate, Config, SpreadingFactor};
use crate::counter::{Count, Counters};
use crate::rx::{RawPacket, payload_crc};
use crate::stamp::{fsk_correction_us, legacy_correction_us, precision_correction_us};

/// What is known of a packet's integrity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrcStatus {
    /// It has a CRC, and it fits.
    Good,
    /// It has a CRC, and it does not.
    Bad,
    /// It has none.
    Absent,
}

/// How it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modulation {
    /// LoRa.
    Lora {
        /// Bandwidth.
        bandwidth: Bandwidth,
        /// Spreading factor.
        sf: SpreadingFactor,
        /// Coding rate, where the header had a meaningful one.
        coding_rate: Option<CodingRate>,
    },
    /// FSK.
    Fsk {
        /// Bits per second.
        bitrate: u32,
    },
}

/// A received packet.
#[derive(Debug, Clone, PartialEq)]
pub struct Packet {
    /// Centre of its channel.
    pub freq_hz: u32,
    /// How far the sender was off.
    pub freq_offset_hz: i32,
    /// IF chain, 0 to 9.
    pub channel: u8,
    /// Radio.
    pub chain: Chain,
    /// Demodulator.
    pub modem: u8,
    /// Integrity.
    pub crc: CrcStatus,
    /// The end of the packet on air.
    pub count: Count,
    /// How it was sent.
    pub modulation: Modulation,
    /// Level in the channel, dBm.
    pub rssi_channel: f32,
    /// Level of the signal, dBm; FSK has none.
    pub rssi_signal: Option<f32>,
    /// What the board's offset and the temperature added to the levels, dB.
    pub rssi_correction: f32,
    /// dB; FSK has none.
    pub snr: Option<f32>,
    /// As received.
    pub crc16: u16,
    /// Nanoseconds since the last PPS, with fine time stamps.
    pub fine_ns: Option<u32>,
    /// What was sent.
    pub payload: Vec<u8>,
}

/// Why a packet that the buffer parser let through is no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Its channel is not configured, or not with this modulation.
    Channel,
    /// The chip calls it good, and its CRC does not fit: it was damaged on the way here.
    Payload,
}

/// Hertz per unit of the frequency offset at 125 kHz.
const OFFSET_HZ: f32 = 0.119_209_29;

/// Steps of 488.28 Hz do not meet every frequency: what the nearest one lacks.
pub fn if_error_hz(if_hz: i32) -> i32 {
    if_hz - (i64::from(if_hz) * 32 / 15_625 * 15_625 / 32) as i32
}

/// Level of an FSK channel from its raw value.
fn fsk_rssi(raw: u8) -> f32 {
    let x = f32::from(raw);
    90.636_42 + 0.420_835 * x + 0.007_129 * x.powi(2) - 0.000_026 * x.powi(3)
}

/// Gives a packet its meaning. `offset_db` is what each radio's levels are corrected by.
pub fn interpret(
    raw: &RawPacket,
    config: &Config,
    counters: &Counters,
    offset_db: [f32; 2],
) -> Result<Packet, Refused> {
    let (chain, if_hz) = config.if_chain(raw.channel).ok_or(Refused::Channel)?;
    let offset = offset_db[chain.index()];
    let (modulation, crc, correction, rssi, freq_offset_hz);
    if raw.channel == 9 {
        let fsk = config.fsk().ok_or(Refused::Channel)?;
        modulation = Modulation::Fsk { bitrate: fsk.bitrate };
        crc = match (raw.crc_present, raw.crc_error) {
            (true, false) => CrcStatus::Good,
            (true, true) => CrcStatus::Bad,
            (false, _) => CrcStatus::Absent,
        };
        correction = fsk_correction_us(fsk.bitrate);
        rssi = fsk_rssi(raw.rssi_channel);
        freq_offset_hz = 0;
    } else {
        let service = (raw.channel == 8).then(|| config.service()).flatten();
        let implicit = service.filter(|service| service.implicit_header);
        let bandwidth = service.map_or(Bandwidth::Khz125, |service| service.bandwidth);
        let sf = SpreadingFactor::new(raw.sf).map_err(|_| Refused::Channel)?;
        let has_crc = raw.crc_present || service.is_some_and(|service| service.crc);
        let rate = implicit.map_or(raw.coding_rate, |service| service.coding_rate);
        let coding_rate = CodingRate::new(rate).ok();
        crc = match (has_crc, raw.crc_error) {
            (false, _) => CrcStatus::Absent,
            (true, true) => CrcStatus::Bad,
            (true, false) if raw.payload.is_empty() || payload_crc(&raw.payload) == raw.crc16 => {
                CrcStatus::Good
            }
            (true, false) => return Err(Refused::Payload),
        };
        modulation = Modulation::Lora { bandwidth, sf, coding_rate };
        // A header without a meaningful coding rate is timed as the strongest code.
        let rate = coding_rate.or(CodingRate::new(4).ok()).ok_or(Refused::Channel)?;
        let size = raw.payload.len() as u8;
        correction = match config.fine_stamps {
            None => legacy_correction_us(sf, bandwidth, rate, raw.crc_present, size),
            Some(_) => precision_correction_us(sf, bandwidth, rate, raw.crc_present, size),
        };
        rssi = f32::from(raw.rssi_channel);
        let unit = OFFSET_HZ * bandwidth.factor() as f32;
        freq_offset_hz = (raw.freq_offset as f32 * unit) as i32 + if_error_hz(if_hz);
    }
    let lora = matches!(modulation, Modulation::Lora { .. });
    Ok(Packet {
        freq_hz: config.radio(chain).freq_hz.wrapping_add_signed(if_hz),
        freq_offset_hz,
        channel: raw.channel,
        chain,
        modem: raw.modem,
        crc,
        count: counters.unroll(raw.stamp).plus_us(correction.into()),
        modulation,
        rssi_channel: rssi + offset,
        rssi_signal: lora.then(|| f32::from(raw.rssi_signal) + offset),
        rssi_correction: offset,
        snr: lora.then(|| f32::from(raw.snr) / 4.0),
        crc16: raw.crc16,
        fine_ns: None,
        payload: raw.payload.clone(),
    })
}

/// With fine time stamps most packets are demodulated twice: once for the data, once for the time. Keeps the better copy
/// of each, oldest first.
pub fn merge_copies(packets: Vec<Packet>) -> Vec<Packet> {
    let mut kept: Vec<Packet> = Vec::with_capacity(packets.len());
    for packet in packets {
        match kept.iter_mut().find(|other| is_copy(other, &packet)) {
            Some(other) => {
                if is_better(&packet, other) {
                    *other = packet;
                }
            }
            None => kept.push(packet),
        }
    }
    kept.sort_by_key(|packet| packet.count.0);
    kept
}

fn is_copy(a: &Packet, b: &Packet) -> bool {
    let sf = |packet: &Packet| match packet.modulation {
        Modulation::Lora { sf, .. } => Some(sf),
        Modulation::Fsk { .. } => None,
    };
    a.count.since(b.count).unsigned_abs() <= 24
        && a.channel == b.channel
        && sf(a) == sf(b)
        && a.payload == b.payload
}

fn is_better(a: &Packet, b: &Packet) -> bool {
    match (a.crc == CrcStatus::Good, b.crc == CrcStatus::Good) {
        (true, false) => true,
        (false, true) => false,
        _ => a.fine_ns.is_some() && b.fine_ns.is_none(),
    }
}
