//! The driver as its user sees it.
//!
//! One [`Concentrator`] owns its bus. Nothing here is global: two of them know nothing of each other. Every error carries
//! the last events of the bus.

use std::collections::VecDeque;

use crate::bus::Bus;
use crate::chip::Chip;
use crate::config::{Bandwidth, Chain, Config, ConfigError};
use crate::counter::{self, Count, Counters};
use crate::error::{Cause, Error};
use crate::firmware::Firmware;
use crate::mcu;
use crate::packet::{Modulation, Packet, Refused, interpret, merge_copies};
use crate::registers::*;
use crate::rx::{self, Damage, FSK_MODEM, RawPacket};
use crate::sensor::dac;
use crate::sequence;
use crate::stamp::{FineInput, fine_ns};
use crate::start::{self, Started};
use crate::sx1261::{self, LEVELS, Scan};
use crate::tx::{self, Status, Transmission};

/// What a fetch gave.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Received {
    /// The good ones.
    pub packets: Vec<Packet>,
    /// What was lost on the way.
    pub damage: Damage,
}

/// What was learnt about the chip when it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// VERSION register: 0x10 on an SX1302, 0x12 on an SX1303.
    pub version: u8,
    /// Whether there is a temperature sensor.
    pub has_sensor: bool,
}

/// State while it runs.
#[derive(Debug)]
struct Running {
    started: Started,
    counters: Counters,
    /// Packets that were fetched and not yet asked for.
    pending: VecDeque<Packet>,
}

/// A concentrator behind a bus.
#[derive(Debug)]
pub struct Concentrator<B> {
    chip: Chip<B>,
    config: Config,
    firmware: Firmware,
    running: Option<Running>,
    damage: Damage,
}

impl<B: Bus> Concentrator<B> {
    /// Nothing is sent before [`Concentrator::start`]. The chip must have been reset.
    pub fn new(bus: B, config: Config, firmware: Firmware) -> Result<Concentrator<B>, ConfigError> {
        config.check()?;
        let chip = Chip::new(bus);
        Ok(Concentrator { chip, config, firmware, running: None, damage: Damage::default() })
    }

    /// What it was configured with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The bus behind.
    pub fn bus_mut(&mut self) -> &mut B {
        self.chip.bus_mut()
    }

    /// The bus behind; what was running runs on.
    pub fn into_bus(self) -> B {
        self.chip.into_bus()
    }

    /// Whether it was started.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// How long the driver slept so far, in µs.
    pub fn slept_us(&self) -> u64 {
        self.chip.slept_us()
    }

    /// What was lost since the beginning.
    pub fn damage(&self) -> Damage {
        self.damage
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T, Cause>) -> Result<T, Error> {
        act(self).map_err(|cause| Error { cause, trail: self.chip.trail() })
    }

    /// Brings everything up. After a failure the chip must be reset before it is tried again.
    pub fn start(&mut self) -> Result<Identity, Error> {
        self.with(|this| {
            if this.running.is_some() {
                return Err(Cause::State("the concentrator is started already"));
            }
            this.chip.forget();
            let started = start::start(&mut this.chip, &this.config, &this.firmware)?;
            let identity = Identity { version: started.version, has_sensor: started.sensor.is_some() };
            this.running = Some(Running { started, counters: Counters::new(), pending: VecDeque::new() });
            Ok(identity)
        })
    }

    /// Aborts both transmitters. The chip should be reset then.
    pub fn stop(&mut self) -> Result<(), Error> {
        self.with(|this| {
            if this.running.take().is_some() {
                for chain in Chain::BOTH {
                    sequence::run(&mut this.chip, &start::abort(chain))?;
                }
            }
            Ok(())
        })
    }

    /// Bytes in the receive buffer: the cheapest question there is, one transaction of six bytes. A value read while a
    /// packet arrives may be too small, never too large by more than what comes next.
    pub fn waiting(&mut self) -> Result<usize, Error> {
        self.with(|this| {
            this.running_mut()?;
            this.buffered()
        })
    }

    /// Fetches what was received, at most `max` packets; the rest comes with the next call. Reads the counters as well,
    /// so it must be called at least once in 134 s.
    pub fn receive(&mut self, max: usize) -> Result<Received, Error> {
        self.with(|this| {
            let mut received = Received::default();
            if this.running_mut()?.pending.is_empty() {
                received = this.fetch()?;
            }
            let damage = received.damage;
            let running = this.running.as_mut().ok_or(NOT_STARTED)?;
            running.pending.extend(received.packets);
            let count = max.min(running.pending.len());
            let packets = running.pending.drain(..count).collect();
            this.damage.add(damage);
            Ok(Received { packets, damage })
        })
    }

    /// Sends. What still waits for its moment on this chain is replaced; what is on air would be damaged, so ask
    /// [`Concentrator::tx_status`] first.
    pub fn send(&mut self, transmission: &Transmission) -> Result<(), Error> {
        self.with(|this| {
            this.running_mut()?;
            transmission.check(&this.config)?;
            let listening = this.listening(transmission)?;
            if this.config.full_duplex {
                dac::set(&mut this.chip, dac::SENDING)?;
            }
            if let Some(steps) = &listening {
                sequence::run(&mut this.chip, steps)?;
            }
            let running = this.running.as_ref().ok_or(NOT_STARTED)?;
            let mut sent = tx::send(&mut this.chip, &this.config, &running.started.calibrated, transmission);
            if listening.is_some() {
                if sent.is_ok() {
                    sent = match sx1261::was_allowed(&mut this.chip, transmission.chain) {
                        Ok(true) => Ok(()),
                        Ok(false) => Err(Cause::Busy),
                        Err(cause) => Err(cause),
                    };
                }
                // Whatever happened, the SX1261 rests.
                sequence::run(&mut this.chip, &sx1261::stop())?;
            }
            sent
        })
    }

    /// Milliseconds that a transmission takes.
    pub fn time_on_air_ms(&self, transmission: &Transmission) -> u32 {
        transmission.time_on_air_ms(&self.config)
    }

    /// What a transmitter does.
    pub fn tx_status(&mut self, chain: Chain) -> Result<Status, Error> {
        self.with(
            |this| if this.running.is_some() { tx::status(&mut this.chip, chain) } else { Ok(Status::Off) },
        )
    }

    /// Aborts what a transmitter does or waits for.
    pub fn abort(&mut self, chain: Chain) -> Result<(), Error> {
        self.with(|this| {
            this.running_mut()?;
            sequence::run(&mut this.chip, &start::abort(chain))
        })
    }

    /// Reads the counters: now, and at the last PPS.
    pub fn counters(&mut self) -> Result<(Count, Count), Error> {
        self.with(|this| {
            this.running_mut()?;
            let ticks = counter::read(&mut this.chip)?;
            let running = this.running_mut()?;
            running.counters.update(ticks);
            Ok((running.counters.now(), running.counters.at_pps()))
        })
    }

    /// Reads the counters: at the last PPS, as [`Counters::last_pulse`] has it.
    pub fn pulse(&mut self) -> Result<Count, Error> {
        self.counters()?;
        self.with(|this| Ok(this.running_mut()?.counters.last_pulse()))
    }

    /// The counter as last read: by [`Concentrator::receive`], [`Concentrator::counters`] or the start.
    pub fn last_count(&self) -> Option<Count> {
        self.running.as_ref().map(|running| running.counters.now())
    }

    /// Whether the chip still says what it said when it started. A board that lost its power, or a wire, does not.
    pub fn is_sane(&mut self) -> Result<bool, Error> {
        self.with(|this| {
            let expected = this.running_mut()?.started.version;
            let mut found = [0];
            this.chip.read_block(COMMON_VERSION_VERSION.address, &mut found)?;
            Ok(found[0] == expected)
        })
    }

    /// The chip's unique number, most significant byte first.
    pub fn eui(&mut self) -> Result<[u8; 8], Error> {
        self.with(|this| {
            let mut eui = [0; 8];
            for (address, byte) in (0..).zip(&mut eui) {
                *byte = start::otp(&mut this.chip, address)?;
            }
            Ok(eui)
        })
    }

    /// Model identifier: 3 is an SX1303.
    pub fn model(&mut self) -> Result<u8, Error> {
        self.with(|this| start::model(&mut this.chip))
    }

    /// Degrees Celsius at the board's sensor; `None` where there is none.
    pub fn celsius(&mut self) -> Result<Option<f32>, Error> {
        self.with(|this| {
            let sensor = this.running_mut()?.started.sensor;
            sensor.map(|sensor| sensor.celsius(&mut this.chip)).transpose()
        })
    }

    /// Whether the program memories of AGC and arbiter are damaged: worth asking once in a while.
    pub fn parity_errors(&mut self) -> Result<(bool, bool), Error> {
        self.with(|this| {
            this.running_mut()?;
            mcu::parity_errors(&mut this.chip)
        })
    }

    /// Starts a spectral scan of 125 kHz around a frequency.
    pub fn start_scan(&mut self, freq_hz: u32, rounds: u16) -> Result<(), Error> {
        self.with(|this| {
            this.sx1261()?;
            sx1261::start_scan(&mut this.chip, freq_hz, rounds)
        })
    }

    /// How far the scan is.
    pub fn scan_status(&mut self) -> Result<Scan, Error> {
        self.with(|this| {
            this.sx1261()?;
            sx1261::scan_status(&mut this.chip)
        })
    }

    /// What the scan found: level in dBm and how often it was measured.
    pub fn scan_results(&mut self) -> Result<[(i16, u16); LEVELS], Error> {
        self.with(|this| {
            let offset = this.sx1261()?;
            sx1261::scan_results(&mut this.chip, offset)
        })
    }

    /// Stops the scan.
    pub fn abort_scan(&mut self) -> Result<(), Error> {
        self.with(|this| {
            this.sx1261()?;
            sequence::run(&mut this.chip, &sx1261::abort_scan())
        })
    }

    fn running_mut(&mut self) -> Result<&mut Running, Cause> {
        self.running.as_mut().ok_or(NOT_STARTED)
    }

    /// Its RSSI offset, where there is one and it runs.
    fn sx1261(&self) -> Result<i8, Cause> {
        self.running.as_ref().ok_or(NOT_STARTED)?;
        Ok(self.config.sx1261().ok_or(ConfigError::NoSx1261)?.rssi_offset)
    }

    fn buffered(&mut self) -> Result<usize, Cause> {
        let mut bytes = [0; 2];
        self.chip.read_block(RX_TOP_RX_BUFFER_NB_BYTES_MSB_RX_BUFFER_NB_BYTES.address, &mut bytes)?;
        Ok(usize::from(u16::from_be_bytes([bytes[0] & 0x1f, bytes[1]])))
    }

    fn fetch(&mut self) -> Result<Received, Cause> {
        // Two bytes are not read at one moment: the greater of two readings is not too small.
        let size = self.buffered()?.max(self.buffered()?);
        let mut bytes = vec![0; size];
        if size > 0 {
            self.chip.read_block(RX_FIFO, &mut bytes)?;
        }
        // The counter is read after the buffer: no packet is younger than it.
        let ticks = counter::read(&mut self.chip)?;
        self.running_mut()?.counters.update(ticks);
        let batch = rx::parse(&bytes);
        let mut damage = batch.damage;
        if batch.packets.is_empty() {
            return Ok(Received { packets: Vec::new(), damage });
        }
        let celsius = match self.running_mut()?.started.sensor {
            // A sensor that does not answer must not cost a packet.
            Some(sensor) => sensor.celsius(&mut self.chip).ok(),
            None => None,
        };
        let offset = Chain::BOTH.map(|chain| {
            let radio = self.config.radio(chain);
            radio.rssi_offset + celsius.map_or(0.0, |celsius| radio.rssi_tcomp.offset_db(celsius))
        });
        let mut packets = Vec::with_capacity(batch.packets.len());
        for raw in &batch.packets {
            let counters = &self.running.as_ref().ok_or(NOT_STARTED)?.counters;
            match interpret(raw, &self.config, counters, offset) {
                Ok(mut packet) => {
                    packet.fine_ns = self.fine_stamp(raw, &packet)?;
                    packets.push(packet);
                }
                Err(Refused::Channel) => damage.range += 1,
                Err(Refused::Payload) => damage.payload += 1,
            }
        }
        if self.config.fine_stamps.is_some() {
            packets = merge_copies(packets);
        }
        Ok(Received { packets, damage })
    }

    fn fine_stamp(&mut self, raw: &RawPacket, packet: &Packet) -> Result<Option<u32>, Cause> {
        let Modulation::Lora { sf, .. } = packet.modulation else { return Ok(None) };
        let timed = self.config.fine_stamps.is_some()
            && !raw.metrics.is_empty()
            && raw.timing_set
            && raw.modem < FSK_MODEM
            && packet.crc == crate::packet::CrcStatus::Good;
        if !timed {
            return Ok(None);
        }
        let pps = counter::read_pps(&mut self.chip)?;
        let if_hz = self.config.if_chain(packet.channel).map_or(0, |(_, if_hz)| if_hz);
        let counters = &mut self.running_mut()?.counters;
        counters.add_pps(pps);
        let input = FineInput {
            sf,
            freq_hz: packet.freq_hz,
            freq_offset_hz: packet.freq_offset_hz,
            if_hz,
            stamp: raw.stamp,
            metrics: &raw.metrics,
        };
        Ok(fine_ns(input, pps, counters.history()))
    }

    /// What is to be done before this transmission, where one must listen first.
    fn listening(&self, tx: &Transmission) -> Result<Option<Vec<sequence::Step>>, Cause> {
        let Some(sx1261) = self.config.sx1261() else { return Ok(None) };
        let Some(lbt) = &sx1261.lbt else { return Ok(None) };
        let bandwidth = match tx.modulation {
            tx::Modulation::Lora { bandwidth, .. } => Some(bandwidth),
            tx::Modulation::Fsk { bandwidth, .. } | tx::Modulation::Carrier { bandwidth, .. } => bandwidth,
        };
        let fits = |channel: &&crate::config::LbtChannel| {
            channel.freq_hz.abs_diff(tx.freq_hz) <= 10_000 && Some(channel.bandwidth) == bandwidth
        };
        let bandwidth_hz = bandwidth.map_or(0, Bandwidth::hz);
        let none = ConfigError::NoLbtChannel { freq_hz: tx.freq_hz, bandwidth_hz };
        let channel = lbt.channels.iter().find(fits).ok_or(none)?;
        let (allowed_ms, time_on_air_ms) = (channel.transmit_ms, self.time_on_air_ms(tx));
        // 1.5 ms go by from the trigger to the first chirp.
        if allowed_ms < 2 || 2 * time_on_air_ms > 2 * allowed_ms - 3 {
            return Err(ConfigError::TooLongAfterListening { time_on_air_ms, allowed_ms }.into());
        }
        Ok(Some(sx1261::listen(sx1261, lbt, channel, tx.freq_hz)?))
    }
}

const NOT_STARTED: Cause = Cause::State("the concentrator is not started");
