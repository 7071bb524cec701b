//! The radios of the model.

use std::collections::BTreeMap;

use crate::sx1250::opcode::*;

use super::Faults;

/// An SX1250, or what an SX1261 has in common with it.
#[derive(Debug)]
pub struct Sx1250 {
    mode: u8,
}

impl Default for Sx1250 {
    fn default() -> Self {
        Sx1250 { mode: 2 }
    }
}

impl Sx1250 {
    fn status(&self) -> u8 {
        self.mode << 4 | 2
    }

    /// Bytes start with the opcode; every reply has the status behind it.
    pub fn transfer(&mut self, bytes: &mut [u8], faults: &Faults) {
        let Some(opcode) = bytes.first().copied() else { return };
        let argument = bytes.get(1).copied().unwrap_or(0);
        bytes.fill(0);
        match opcode {
            SET_STANDBY if !faults.radio_busy => self.mode = if argument == 0 { 2 } else { 3 },
            SET_FS if !faults.radio_busy => self.mode = 4,
            SET_RX if !faults.radio_busy => self.mode = 5,
            GET_STATUS | GET_DEVICE_ERRORS => {
                let status = self.status();
                if let Some(byte) = bytes.get_mut(1) {
                    *byte = status;
                }
                if opcode == GET_DEVICE_ERRORS
                    && faults.image_fails
                    && let Some(byte) = bytes.get_mut(3)
                {
                    *byte = 0x10;
                }
            }
            _ => {}
        }
    }
}

/// An SX1255 or SX1257: 128 bytes, and PLLs that lock at once.
#[derive(Debug)]
pub struct Sx125x {
    memory: [u8; 128],
}

impl Default for Sx125x {
    fn default() -> Self {
        let mut memory = [0; 128];
        memory[7] = 0x21;
        Sx125x { memory }
    }
}

impl Sx125x {
    /// Address, with the highest bit set for a write, and value.
    pub fn transfer(&mut self, bytes: &mut [u8]) {
        let Some(head) = bytes.first().copied() else { return };
        let register = usize::from(head & 0x7f);
        if head & 0x80 != 0 {
            if let Some(value) = bytes.get(1) {
                self.memory[register] = *value;
            }
            bytes.fill(0);
            return;
        }
        let mode = self.memory[0];
        let value = match register {
            7 => 0x21,
            17 => (mode >> 1 & 1) << 1 | mode >> 2 & 1,
            _ => self.memory[register],
        };
        bytes.fill(0);
        if let Some(byte) = bytes.get_mut(1) {
            *byte = value;
        }
    }
}

/// An SX1261 with its registers; it measures what `air` says.
#[derive(Debug, Default)]
pub struct Sx1261 {
    /// Carriers: centre in hertz, dBm. With none it measures nothing at all.
    pub air: Vec<(u32, i16)>,
    freq_hz: u32,
    core: Sx1250,
    registers: BTreeMap<u16, u8>,
    patched: bool,
}

impl Sx1261 {
    /// Bytes start with the opcode.
    pub fn transfer(&mut self, bytes: &mut [u8]) {
        let head = [0, 1, 2].map(|i| bytes.get(i).copied().unwrap_or(0));
        let address = u16::from_be_bytes([head[1], head[2]]);
        match head[0] {
            WRITE_REGISTER => {
                for (at, byte) in (address..).zip(bytes.get(3..).unwrap_or(&[])) {
                    self.registers.insert(at, *byte);
                    // Stopping ends a scan that runs.
                    if at == 0x089b && *byte == 0 && self.registers.get(&0x07cd) == Some(&0x0f) {
                        self.registers.insert(0x07cd, 0xf0);
                    }
                }
                bytes.fill(0);
            }
            READ_REGISTER => {
                let version: &[u8; 15] = if self.patched { b"SX1261 V2D 2D06" } else { b"SX1261 V2D 2D02" };
                for (i, byte) in bytes.iter_mut().enumerate() {
                    let at = address.wrapping_add(i.saturating_sub(4) as u16);
                    *byte = match (i, at) {
                        (0..4, _) => 0,
                        (_, 0x0320..=0x032e) => version[usize::from(at - 0x0320)],
                        _ => self.registers.get(&at).copied().unwrap_or(0),
                    };
                }
            }
            0xd9 => {
                self.patched = true;
                bytes.fill(0);
            }
            0x9b => {
                // It is done before anybody asks.
                self.registers.insert(0x07cd, 0xff);
                self.measure(u16::from_be_bytes([head[1], head[2]]));
                bytes.fill(0);
            }
            _ => {
                if let [SET_RF_FREQUENCY, f3, f2, f1, f0] = *bytes {
                    let word = u64::from(u32::from_be_bytes([f3, f2, f1, f0]));
                    self.freq_hz = ((word * 32_000_000) >> 25) as u32;
                }
                self.core.transfer(bytes, &Faults::default());
            }
        }
    }

    /// Counts levels of 4 dB: most of them noise at -112 dBm, and a third at the level of a carrier where one is.
    fn measure(&mut self, rounds: u16) {
        if self.air.is_empty() {
            return;
        }
        let here = |(centre, _): &&(u32, i16)| centre.abs_diff(self.freq_hz) <= 100_000;
        let loudest = self.air.iter().filter(here).map(|(_, dbm)| *dbm).max();
        let mut counts = [0u16; 33];
        let carrier = if loudest.is_some() { rounds / 3 } else { 0 };
        if let Some(dbm) = loudest {
            counts[usize::from((-dbm / 4).clamp(0, 32) as u16)] += carrier;
        }
        let noise = rounds - carrier;
        for (level, part) in [(27, noise / 4), (28, noise / 2), (29, noise - noise / 4 - noise / 2)] {
            counts[level] += part;
        }
        for (at, byte) in (0x0401..).zip(counts.iter().flat_map(|count| count.to_be_bytes())) {
            self.registers.insert(at, byte);
        }
    }
}
