//! The chip model as a device: the same driver on it as on a board, in real time, and hands into it for tests.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sx1302::bus::{Bus, BusError, Device};
use sx1302::config::{Bandwidth, CodingRate, Config, SpreadingFactor};
use sx1302::model::{Model, Sent, Trigger};
use sx1302::rx::{FSK_MODEM, RawPacket, payload_crc};
use sx1302::stamp::{fsk_correction_us, legacy_correction_us};

pub use sx1302::model::Faults;

use crate::clock::{Clock, Instant};
use crate::fns::Count;
use crate::lorawan::Modulation;

/// A frame as a device sent it.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// The frame.
    pub phy: Vec<u8>,
    /// Hertz.
    pub frequency: u32,
    /// How it was modulated.
    pub modulation: Modulation,
    /// dBm.
    pub rssi: i32,
    /// dB.
    pub snr: f64,
    /// Its last symbol.
    pub end: Instant,
    /// Something was in the way: its CRC does not fit.
    pub broken: bool,
}

/// What the chip was told to transmit.
#[derive(Debug, Clone, PartialEq)]
pub struct Radiated {
    /// The frame.
    pub phy: Vec<u8>,
    /// Hertz.
    pub frequency: u32,
    /// How it is modulated; `None`: as nothing that a device would understand.
    pub modulation: Option<Modulation>,
    /// First chirp on the chip's counter, modulo 2^27 µs; `None`: at once.
    pub count: Option<Count>,
    /// The same moment on the host's clock.
    pub start: Instant,
    /// When it was handed to the chip.
    pub handed: Instant,
    /// Chirps go down.
    pub inverted: bool,
    /// A CRC is appended.
    pub crc: bool,
    /// Symbols of preamble.
    pub preamble: u16,
}

/// A chip model whose time is the host's. Clones are the same chip.
#[derive(Clone)]
pub struct Modelled(Arc<Inner>);

struct Inner {
    clock: Clock,
    state: Mutex<State>,
}

struct State {
    model: Model,
    epoch: Instant,
    /// Ticks since `epoch` that the model has lived through.
    lived: u64,
    /// Numbers and frequencies of the channels that the driver listens to.
    channels: Vec<(u8, u32)>,
    /// Waits for its last symbol.
    coming: Vec<Frame>,
    radiated: Vec<Radiated>,
    resets: [u32; 2],
    /// What goes wrong again after a reset.
    stubborn: Option<Faults>,
}

impl Modelled {
    /// A chip that has just got power.
    pub fn new(clock: Clock) -> Modelled {
        let mut model = Model::new();
        model.run();
        let state = State {
            model,
            epoch: clock.now(),
            lived: 0,
            channels: Vec::new(),
            coming: Vec::new(),
            radiated: Vec::new(),
            resets: [0; 2],
            stubborn: None,
        };
        Modelled(Arc::new(Inner { clock, state: Mutex::new(state) }))
    }

    /// Nothing inside panics while it holds the lock; were it so, what is there is still of use.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.live_until(self.0.clock.now());
        state
    }

    /// Let a frame be heard when it ends.
    pub fn hear(&self, frame: Frame) {
        self.state().coming.push(frame);
    }

    /// Everything that was transmitted so far, in the order of the handing over.
    pub fn radiated(&self) -> Vec<Radiated> {
        self.radiated_after(0).0
    }

    /// What was transmitted after the first `known`, and how much there is altogether: less than that after a restart.
    pub fn radiated_after(&self, known: usize) -> (Vec<Radiated>, usize) {
        let state = self.state();
        (state.radiated.get(known..).unwrap_or_default().to_vec(), state.radiated.len())
    }

    /// Let something go wrong until the next reset.
    pub fn fail(&self, faults: Faults) {
        self.state().model.faults = faults;
    }

    /// Let something go wrong, and again after each reset.
    pub fn fail_for_good(&self, faults: Faults) {
        let mut state = self.state();
        state.model.faults = faults.clone();
        state.stubborn = Some(faults);
    }

    /// When the next pulse comes; then there is one each second, until a reset.
    pub fn next_pulse(&self) -> Instant {
        let state = self.state();
        let ticks = state.lived + u64::from(state.model.ticks_to_pulse());
        state.epoch + Duration::from_nanos(ticks * 125 / 4)
    }

    /// How often it was reset, and how often its power was taken away.
    pub fn resets(&self) -> [u32; 2] {
        self.state().resets
    }

    /// How many SPI transactions there were.
    pub fn transactions(&self) -> u64 {
        self.state().model.transactions()
    }

    /// Something for a spectral scan to find: a strong and a weak carrier that come and go, and one that stays.
    pub(super) fn make_up_air(&self, frequencies: &[u32]) {
        let mut state = self.state();
        let seconds = (state.lived / 32_000_000) as usize;
        let at = |place: usize| frequencies.get(place % frequencies.len().max(1)).copied();
        let carriers = [
            (at(frequencies.len() / 3), -72),
            (at(frequencies.len() / 2 + seconds % 4), -88),
            (at(seconds * 5), -97),
        ];
        let there = carriers.into_iter().filter_map(|(frequency, dbm)| Some((frequency?, dbm))).collect();
        state.model.set_air(there);
    }

    /// What the driver listens to: the model does not look into the receivers' registers.
    pub(super) fn tune(&self, plan: &Config) {
        let at = |number| {
            let (chain, if_hz) = plan.if_chain(number)?;
            let freq_hz = i64::from(plan.radio(chain).freq_hz) + i64::from(if_hz);
            Some((number, u32::try_from(freq_hz).ok()?))
        };
        self.state().channels = (0..10).filter_map(at).collect();
    }

    /// The reset line, or the power line.
    pub(super) fn reset(&self, power: bool) {
        let mut state = self.state();
        let inst = state.model.inst();
        state.resets[usize::from(power)] += 1;
        state.model = Model::new();
        state.model.run();
        // anything but what it was: a reset begins the counter anew
        state.model.set_inst(if power { 0 } else { inst ^ 0x00ff_0000 });
        if let Some(faults) = &state.stubborn {
            state.model.faults = faults.clone();
        }
    }
}

impl State {
    fn live_until(&mut self, now: Instant) {
        let ticks = self.ticks(now);
        self.model.advance_ticks(ticks.saturating_sub(self.lived));
        self.lived = self.lived.max(ticks);
        let ready = |frame: &Frame| frame.end + Duration::from_micros(demodulation(frame).into());
        let mut ended: Vec<Frame> = self.coming.extract_if(.., |frame| ready(frame) <= now).collect();
        ended.sort_by_key(ready);
        for frame in ended {
            let Some((channel, modem, sf)) = self.channel(&frame) else { continue };
            let ago = self.lived.saturating_sub(self.ticks(frame.end));
            let level = (f64::from(frame.rssi) + 215.4).clamp(0.0, 255.0) as u8;
            self.model.hear(&RawPacket {
                channel,
                crc_present: true,
                coding_rate: 1,
                sf,
                modem,
                freq_offset: 0,
                crc_error: frame.broken,
                sync_error: false,
                header_error: false,
                timing_set: false,
                snr: (frame.snr * 4.0).clamp(-128.0, 127.0) as i8,
                rssi_channel: level,
                rssi_signal: level,
                stamp: self.model.inst().wrapping_sub(ago as u32).wrapping_add(demodulation(&frame) * 32),
                crc16: payload_crc(&frame.phy),
                metrics: Vec::new(),
                payload: frame.phy,
            });
        }
    }

    /// Ticks of 32 MHz from the epoch, whole ones.
    fn ticks(&self, at: Instant) -> u64 {
        (at.saturating_duration_since(self.epoch).as_nanos() * 4 / 125) as u64
    }

    fn note(&mut self, sent: &Sent, now: Instant) {
        let after = match sent.trigger {
            Trigger::Immediate => 0,
            Trigger::At(_) => sent.start_ticks().map_or(0, |start| start.wrapping_sub(self.model.inst())),
            // the pulse, and the start delay that nothing takes off
            Trigger::Pps => self.model.ticks_to_pulse() + 1500 * 32,
        };
        let modulation = sent.modulation();
        let (mut inverted, mut with_crc, mut symbols) = (false, false, 0);
        if let Some(sx1302::tx::Modulation::Lora { inverted: down, crc, preamble, .. }) = modulation {
            (inverted, with_crc, symbols) = (down, crc, preamble);
        }
        self.radiated.push(Radiated {
            phy: sent.frame().to_vec(),
            frequency: sent.freq_hz(),
            modulation: modulation.and_then(ours),
            count: match sent.trigger {
                Trigger::At(_) => sent.start_count().map(|count| Count(count.0)),
                Trigger::Immediate | Trigger::Pps => None,
            },
            start: now + Duration::from_nanos(u64::from(after) * 125 / 4),
            handed: now,
            inverted,
            crc: with_crc,
            preamble: symbols,
        });
    }
}

fn ours(modulation: sx1302::tx::Modulation) -> Option<Modulation> {
    match modulation {
        sx1302::tx::Modulation::Lora { sf, bandwidth, .. } => {
            Some(Modulation::Lora { sf: sf.get(), bandwidth: bandwidth.hz() })
        }
        sx1302::tx::Modulation::Fsk { bitrate, .. } => Some(Modulation::Fsk { bitrate }),
        sx1302::tx::Modulation::Carrier { .. } => None,
    }
}

impl Bus for Modelled {
    fn transfer(&mut self, device: Device, bytes: &mut [u8]) -> Result<(), BusError> {
        let now = self.0.clock.now();
        let mut state = self.state();
        state.model.transfer(device, bytes)?;
        for sent in state.model.take_sent() {
            state.note(&sent, now);
        }
        Ok(())
    }

    fn i2c_write(&mut self, address: u8, bytes: &[u8]) -> Result<(), BusError> {
        self.state().model.i2c_write(address, bytes)
    }

    fn i2c_read(&mut self, address: u8, into: &mut [u8]) -> Result<(), BusError> {
        self.state().model.i2c_read(address, into)
    }

    fn wait_us(&mut self, us: u32) {
        // the host's time, which the model follows
        std::thread::sleep(Duration::from_micros(us.into()));
    }
}

impl State {
    /// The channel that a frame is heard on, and by which modem. `None`: the chip is not tuned to it.
    fn channel(&self, frame: &Frame) -> Option<(u8, u8, u8)> {
        let tuned = |number: &u8| self.channels.contains(&(*number, frame.frequency));
        match frame.modulation {
            Modulation::Lora { sf, bandwidth: 125_000 } => (0..8).find(tuned).map(|number| (number, 0, sf)),
            Modulation::Lora { sf, .. } => Some((8, 16, sf)).filter(|(number, ..)| tuned(number)),
            Modulation::Fsk { .. } => Some((9, FSK_MODEM, 0)).filter(|(number, ..)| tuned(number)),
        }
    }
}

/// From the last symbol until the demodulator has finished, µs: the driver takes it off again.
fn demodulation(frame: &Frame) -> u32 {
    let size = frame.phy.len().min(255) as u8;
    let correction = match frame.modulation {
        Modulation::Fsk { bitrate } => fsk_correction_us(bitrate),
        Modulation::Lora { sf, bandwidth } => {
            let known = (SpreadingFactor::new(sf), Bandwidth::from_hz(bandwidth), CodingRate::new(1));
            let (Ok(sf), Ok(bandwidth), Ok(rate)) = known else { return 0 };
            legacy_correction_us(sf, bandwidth, rate, true, size)
        }
    };
    correction.unsigned_abs()
}
