//! A register-level model of chip and board behind the [`Bus`] trait.
//!
//! It does what the driver can see: registers that stick, program memories, processors that answer their mailboxes,
//! transmitters with a status, a receive buffer that empties, counters, three kinds of radios, a temperature sensor. Its
//! counters stand still unless [`Model::run`] is asked for: then waiting lets time pass, and transmissions begin and end.

use crate::bus::{Bus, BusError, Device};
use crate::config::Chain;
use crate::registers::{self, Field};
use crate::rx::{self, RawPacket};

mod processor;
mod radio;
mod sent;

use processor::Processors;
use radio::{Sx125x, Sx1250, Sx1261};
pub use sent::{Sent, Trigger};

/// What goes wrong in this model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// Nobody is on the wire: everything reads as ones.
    pub dead: bool,
    /// The transaction with this number (counted from 0) and all later ones fail.
    pub spi_fails_from: Option<u64>,
    /// The AGC does not go past this status.
    pub agc_stuck_at: Option<u8>,
    /// The arbiter never starts.
    pub arb_stuck: bool,
    /// The parity flag of the AGC is up whatever is loaded.
    pub agc_parity: bool,
    /// The AGC says it is this version.
    pub agc_version: Option<u8>,
    /// No temperature sensor.
    pub no_sensor: bool,
    /// The transmitters do not stop.
    pub tx_stuck: bool,
    /// Bit 4 of the SX1250's errors: image calibration failed.
    pub image_fails: bool,
    /// The SX1250 do not change their mode.
    pub radio_busy: bool,
    /// A bit of this program memory address does not stick.
    pub memory_bit: Option<u16>,
    /// No pulse comes.
    pub no_pps: bool,
}

/// Chip and board.
#[derive(Debug)]
pub struct Model {
    memory: Vec<u8>,
    read_only: Vec<u8>,
    otp: [u8; 256],
    processors: Processors,
    sx1250: [Sx1250; 2],
    sx125x: [Sx125x; 2],
    sx1261: Sx1261,
    fifo: std::collections::VecDeque<u8>,
    inst: u32,
    pps: u32,
    temperature_word: u16,
    sensor_pointer: u8,
    payload_length: [usize; 2],
    sent: Vec<Sent>,
    /// Ticks until each transmitter begins, and then until it ends.
    on_air: [Option<(u64, u64)>; 2],
    transactions: u64,
    runs: bool,
    /// Parts of a tick and of a second that time has not yet completed.
    next_pps_ticks: u32,
    /// What goes wrong.
    pub faults: Faults,
    /// Whether the channel is taken when the SX1261 listens.
    pub channel_busy: bool,
}

impl Default for Model {
    fn default() -> Self {
        Model::new()
    }
}

impl Model {
    /// An SX1302 with SX1250 radios as they come out of reset.
    pub fn new() -> Model {
        let mut memory = vec![0; 0x8000];
        let mut read_only = vec![0; 0x8000];
        for (_, field) in registers::ALL {
            let at = usize::from(field.address);
            memory[at] = field.insert(memory[at], field.default.into());
            if field.read_only {
                read_only[at] |= field.mask();
            }
        }
        let mut otp = [0; 256];
        otp[..8].copy_from_slice(&0x0016_c001_f0a1_b2c3u64.to_be_bytes());
        otp[0xd0] = 2;
        let mut model = Model {
            memory,
            read_only,
            otp,
            processors: Processors::default(),
            sx1250: Default::default(),
            sx125x: Default::default(),
            sx1261: Sx1261::default(),
            fifo: std::collections::VecDeque::new(),
            inst: 0,
            pps: 0,
            temperature_word: 0x1f80,
            sensor_pointer: 0,
            payload_length: [0; 2],
            sent: Vec::new(),
            on_air: [None; 2],
            transactions: 0,
            runs: false,
            next_pps_ticks: 32_000_000,
            faults: Faults::default(),
            channel_busy: false,
        };
        for chain in Chain::BOTH {
            model.set_tx_status(chain, 0x80);
        }
        model
    }

    /// The same as an SX1303.
    pub fn sx1303() -> Model {
        let mut model = Model::new();
        model.otp[0xd0] = 3;
        model.poke(registers::COMMON_VERSION_VERSION, 0x12);
        model
    }

    /// The chip's unique number.
    pub fn set_eui(&mut self, eui: [u8; 8]) {
        self.otp[..8].copy_from_slice(&eui);
    }

    /// Sets a field as only the chip can.
    pub fn poke(&mut self, field: Field, value: i32) {
        let byte = &mut self.memory[usize::from(field.address)];
        *byte = field.insert(*byte, value);
    }

    /// What a register byte holds.
    pub fn peek(&self, address: u16) -> u8 {
        self.memory[usize::from(address & 0x7fff)]
    }

    /// The free-running counter, in ticks of 32 MHz.
    pub fn set_inst(&mut self, ticks: u32) {
        self.inst = ticks;
    }

    /// The counter at the last PPS, in ticks of 32 MHz.
    pub fn set_pps(&mut self, ticks: u32) {
        self.pps = ticks;
    }

    /// The free-running counter, in ticks of 32 MHz.
    pub fn inst(&self) -> u32 {
        self.inst
    }

    /// Until the next PPS, in ticks of 32 MHz.
    pub fn ticks_to_pulse(&self) -> u32 {
        self.next_pps_ticks
    }

    /// From now on waiting lets the counters run, with a PPS each second, and a transmission takes its time.
    pub fn run(&mut self) {
        self.runs = true;
    }

    /// Lets time pass.
    pub fn advance_us(&mut self, us: u32) {
        self.advance_ticks(u64::from(us) * 32);
    }

    /// Lets time pass, in ticks of 32 MHz.
    pub fn advance_ticks(&mut self, ticks: u64) {
        let first = u64::from(self.next_pps_ticks);
        if ticks >= first {
            let seconds = (ticks - first) / 32_000_000;
            if !self.faults.no_pps {
                self.pps = self.inst.wrapping_add((first + seconds * 32_000_000) as u32);
            }
            self.next_pps_ticks = (first + (seconds + 1) * 32_000_000 - ticks) as u32;
        } else {
            self.next_pps_ticks -= ticks as u32;
        }
        self.inst = self.inst.wrapping_add(ticks as u32);
        for chain in Chain::BOTH {
            let Some((wait, last)) = self.on_air[chain.index()] else { continue };
            self.on_air[chain.index()] = if ticks < wait {
                Some((wait - ticks, last))
            } else if ticks < wait + last {
                self.set_tx_status(chain, 0x60);
                Some((0, wait + last - ticks))
            } else {
                self.set_tx_status(chain, 0x80);
                None
            };
        }
    }

    /// When a transmission begins and how long it takes, in ticks from now; a carrier does not end.
    fn schedule(&self, sent: &Sent) -> (u64, u64) {
        let wait = match (sent.trigger, sent.start_ticks()) {
            (Trigger::Pps, _) => self.next_pps_ticks,
            (_, Some(start)) => start.wrapping_sub(self.inst),
            (_, None) => 0,
        };
        let last = match sent.time_on_air_us() {
            0 => u64::MAX / 2,
            us => u64::from(us) * 32,
        };
        (wait.into(), last)
    }

    /// Appends bytes to the receive buffer; what does not fit is lost, as in the chip.
    pub fn push_fifo(&mut self, bytes: &[u8]) {
        let room = 4096 - self.fifo.len().min(4096);
        self.fifo.extend(bytes.iter().take(room));
    }

    /// Lets a packet be heard.
    pub fn hear(&mut self, packet: &RawPacket) {
        self.push_fifo(&rx::encode(packet));
    }

    /// What a spectral scan finds above the noise: carriers with their centre in hertz and level in dBm.
    pub fn set_air(&mut self, carriers: Vec<(u32, i16)>) {
        self.sx1261.air = carriers;
    }

    /// 8.8 fixed point, °C.
    pub fn set_temperature_word(&mut self, word: u16) {
        self.temperature_word = word;
    }

    /// A transmitter has finished.
    pub fn tx_done(&mut self, chain: Chain) {
        self.set_tx_status(chain, 0x80);
    }

    /// Takes what was sent so far.
    pub fn take_sent(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.sent)
    }

    /// How many SPI transactions there were.
    pub fn transactions(&self) -> u64 {
        self.transactions
    }

    fn set_tx_status(&mut self, chain: Chain, status: u8) {
        self.memory[0x5211 + 0x200 * chain.index()] = status;
    }

    fn read(&mut self, address: u16) -> u8 {
        let length = self.fifo.len() as u16;
        match address {
            registers::RX_FIFO => self.fifo.pop_front().unwrap_or(0),
            0x5780 if self.faults.agc_parity => self.memory[0x5780] | 1,
            0x58c8 => (length >> 8) as u8,
            0x58c9 => length as u8,
            0x6101..=0x6104 => self.pps.to_be_bytes()[usize::from(address - 0x6101)],
            0x6105..=0x6108 => self.inst.to_be_bytes()[usize::from(address - 0x6105)],
            0x6181 => self.otp[usize::from(self.memory[0x6180])],
            _ => self.memory[usize::from(address & 0x7fff)],
        }
    }

    fn write(&mut self, address: u16, value: u8) {
        let at = usize::from(address & 0x7fff);
        let old = self.memory[at];
        if at < 0x4000 {
            let control = if at < 0x2000 { 0x5780 } else { 0x6080 };
            if self.memory[control] & 2 != 0 {
                let faulty = self.faults.memory_bit == Some(address);
                self.memory[at] = if faulty { value ^ 1 } else { value };
            }
            return;
        }
        let kept = self.read_only[at];
        let new = (old & kept) | (value & !kept);
        self.memory[at] = new;
        match address {
            0x5780 | 0x6080 => self.processors.control(&mut self.memory, &self.faults, address, old),
            0x5789 => self.processors.agc_message(&mut self.memory, &self.faults),
            0x578c => self.processors.agc_acknowledged(&mut self.memory),
            0x608a if new == 1 => self.processors.arb_go(&mut self.memory, &self.faults),
            0x5200 | 0x5400 => self.triggers(if address == 0x5200 { Chain::A } else { Chain::B }, old, new),
            0x5207 | 0x5407 if old & 1 == 0 && new & 1 != 0 => {
                self.payload_length[usize::from(address == 0x5407)] = 0;
            }
            0x5300..=0x53ff => {
                self.payload_length[0] = self.payload_length[0].max(usize::from(address - 0x5300) + 1);
            }
            0x5500..=0x55ff => {
                self.payload_length[1] = self.payload_length[1].max(usize::from(address - 0x5500) + 1);
            }
            _ => {}
        }
    }

    fn triggers(&mut self, chain: Chain, old: u8, new: u8) {
        let risen = new & !old & 7;
        let base = 0x5200 + 0x200 * chain.index();
        if risen == 0 {
            if new & 7 == 0 && !self.faults.tx_stuck {
                self.set_tx_status(chain, 0x80);
                self.on_air[chain.index()] = None;
            }
            return;
        }
        let word = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|i| self.memory[at + i]));
        let (status, trigger) = match risen {
            1 => (0x60, Trigger::Immediate),
            2 => (0x91, Trigger::At(word(base + 1))),
            _ => (0x92, Trigger::Pps),
        };
        let frequency_word = word(base + 0x24) & 0x00ff_ffff;
        let payload = self.memory[base + 0x100..][..self.payload_length[chain.index()]].to_vec();
        let registers = self.memory[base..base + 0x80].to_vec();
        let refused = self.processors.sends(&mut self.memory, chain, self.channel_busy);
        if refused {
            return;
        }
        self.set_tx_status(chain, status);
        if self.processors.is_in_operation() {
            let sent = Sent { chain, trigger, frequency_word, payload, registers };
            if self.runs && !self.faults.tx_stuck {
                self.on_air[chain.index()] = Some(self.schedule(&sent));
            }
            self.sent.push(sent);
        }
    }

    fn concentrator(&mut self, bytes: &mut [u8]) {
        let (Some(target), Some(head)) = (bytes.first().copied(), bytes.get(1..3)) else { return };
        match target {
            0 => {
                let address = u16::from_be_bytes([head[0] & 0x7f, head[1]]);
                let step = |i: usize| {
                    if address == registers::RX_FIFO {
                        address
                    } else {
                        address.wrapping_add(i as u16) & 0x7fff
                    }
                };
                if head[0] & 0x80 != 0 {
                    for (i, byte) in bytes.iter_mut().skip(3).enumerate() {
                        self.write(step(i), std::mem::take(byte));
                    }
                } else {
                    for (i, byte) in bytes.iter_mut().skip(4).enumerate() {
                        *byte = self.read(step(i));
                    }
                }
                bytes[..3].fill(0);
            }
            1 | 2 => {
                let radio = usize::from(target - 1);
                if self.memory[0x5601] & target != 0 {
                    self.sx1250[radio].transfer(&mut bytes[1..], &self.faults);
                } else {
                    self.sx125x[radio].transfer(&mut bytes[1..]);
                }
                bytes[0] = 0;
            }
            _ => bytes.fill(0),
        }
    }
}

impl Bus for Model {
    fn transfer(&mut self, device: Device, bytes: &mut [u8]) -> Result<(), BusError> {
        let number = self.transactions;
        self.transactions += 1;
        if self.faults.spi_fails_from.is_some_and(|from| number >= from) {
            return Err(BusError::Spi("the model was told to fail".into()));
        }
        if self.faults.dead {
            bytes.fill(0xff);
            return Ok(());
        }
        match device {
            Device::Concentrator => self.concentrator(bytes),
            Device::Sx1261 => self.sx1261.transfer(bytes),
        }
        Ok(())
    }

    fn i2c_write(&mut self, address: u8, bytes: &[u8]) -> Result<(), BusError> {
        match (address, bytes) {
            (0x39, [pointer, ..]) if !self.faults.no_sensor => {
                self.sensor_pointer = *pointer;
                Ok(())
            }
            (0x0c, _) => Ok(()),
            _ => Err(BusError::I2c { address, reason: "no answer".into() }),
        }
    }

    fn i2c_read(&mut self, address: u8, into: &mut [u8]) -> Result<(), BusError> {
        if address != 0x39 || self.faults.no_sensor {
            return Err(BusError::I2c { address, reason: "no answer".into() });
        }
        let [high, low] = self.temperature_word.to_be_bytes();
        into.fill(match self.sensor_pointer {
            0x00 => high,
            0x02 => low,
            0xfe => 0x53,
            0xff => 0x01,
            _ => 0x00,
        });
        Ok(())
    }

    fn wait_us(&mut self, us: u32) {
        if self.runs {
            self.advance_us(us);
        }
    }
}
