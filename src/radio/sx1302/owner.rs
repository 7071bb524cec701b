//! The thread that owns the concentrator: it listens, transmits when the time has come, sends beacons, and cures.
//!
//! Everything that touches the chip happens here, one thing after the other. Between two looks it sleeps; a look that finds
//! nothing is one transaction of six bytes. The rest of the program asks by [`Command`] and never waits for the bus.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rand::RngExt;
use sx1302::Concentrator;
use sx1302::config::{Bandwidth, Chain, CodingRate, SpreadingFactor};
use sx1302::error::Cause;
use sx1302::gps::Said;
use sx1302::packet::{CrcStatus, Packet};
use sx1302::tx::{Status, Transmission, When};
use tokio::sync::{mpsc, oneshot, watch};

use super::card::{AnyBus, Card};
use super::chrony::Feed;
use super::gps::Fix;
use super::ladder::{Ladder, Step};
use crate::clock::{Clock, Instant};
use crate::fns::{AirError, Count, Heard, Sent, Tx};
use crate::jit;
use crate::jit::queue::{Entry, Kind, LEAD, Queue, Why};
use crate::lorawan::beacon::{self, Beacon};
use crate::lorawan::crypto::Direction;
use crate::lorawan::{GatewayEui, Modulation, Region};
use crate::radio::timeline::Timeline;

/// Between two looks: a frame waits no longer.
const LOOK: Duration = Duration::from_millis(10);
/// So often the counter is read at least; it must be within 134 s.
const COUNTER: Duration = Duration::from_secs(30);
/// So often the chip is asked whether it is well.
const CHECK: Duration = Duration::from_secs(10);
/// Packets of one fetch.
const AT_ONCE: usize = 16;

/// Beacons that wait in the queue, so that other frames keep out of their way.
const BEACONS: usize = 3;
/// Before a pulse the transmitter must be armed, and not before the one before: a beacon that is handed over later than
/// this is not sent, µs.
const ARM: u32 = 5_000;

/// What the rest of the program asks for, or tells.
pub(super) enum Command {
    /// Send a frame; the reply tells whether it was taken.
    Send(Tx, oneshot::Sender<Result<Sent, AirError>>),
    /// The GPS receiver said something.
    Gps(Said),
    /// Say that you are alive.
    Vouch(oneshot::Sender<()>),
}

/// What the thread tells, and others read.
pub(super) struct Shared {
    state: Mutex<Told>,
    /// Why it gave up.
    pub failed: watch::Sender<Option<String>>,
}

/// See [`Shared`].
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    pub online: bool,
    pub session: u64,
    pub last_seen: Option<(Instant, Timestamp)>,
    pub rx_ok: u64,
    /// Bad CRC, or none.
    pub rx_bad: u64,
    /// Not what a packet is: lost between chip and us.
    pub rx_damaged: u64,
    /// The program did not keep up.
    pub rx_dropped: u64,
    pub tx_ok: u64,
    pub tx_failed: u64,
    /// Taken, and lost on the way to the chip.
    pub tx_lost: u64,
    /// Listen before talk said no.
    pub tx_channel_busy: u64,
    pub reloads: u64,
    pub resets: u64,
    pub power_cycles: u64,
    /// Pulses that placed the counter in time, and those that did not fit.
    pub gps_pulses: u64,
    pub gps_rejected: u64,
    /// Degrees latitude, longitude, as the receiver has it.
    pub position: Option<(f64, f64)>,
    pub beacons: u64,
    /// The air was taken, or the time was not known well enough.
    pub beacons_skipped: u64,
}

impl Shared {
    pub fn new() -> Shared {
        Shared { state: Mutex::default(), failed: watch::Sender::new(None) }
    }

    /// Nothing inside panics while it holds the lock; were it so, what is there is still of use.
    pub fn told(&self) -> MutexGuard<'_, Told> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the thread is told once.
pub(super) struct Terms {
    pub name: String,
    pub gateway: GatewayEui,
    pub region: Region,
    /// dBi.
    pub antenna_gain: i8,
    /// Degrees latitude, longitude.
    pub location: Option<(f64, f64)>,
    /// Silence that is no longer believed.
    pub silence: Option<Duration>,
    /// Who else wants the time.
    pub chrony: Feed,
    /// Send beacons, as the region does it.
    pub beacon: Option<Beacon>,
    pub clock: Clock,
}

pub(super) struct Owner {
    terms: Terms,
    card: Card,
    concentrator: Concentrator<AnyBus>,
    shared: Arc<Shared>,
    commands: Receiver<Command>,
    heard: mpsc::Sender<Heard>,
    queue: Queue<Transmission>,
    timeline: Timeline,
    session: u64,
    ladder: Ladder,
    fix: Fix,
    /// GPS time of the last beacon that was queued or skipped.
    last_beacon: u64,
    last_fetch: Instant,
    last_check: Instant,
    last_heard: Instant,
}

/// Something that the ladder must cure.
#[derive(Debug)]
struct Trouble(String);

impl From<sx1302::Error> for Trouble {
    fn from(error: sx1302::Error) -> Trouble {
        Trouble(error.to_string())
    }
}

impl Owner {
    /// With a concentrator that was just started.
    pub fn new(
        terms: Terms,
        card: Card,
        concentrator: Concentrator<AnyBus>,
        shared: Arc<Shared>,
        commands: Receiver<Command>,
        heard: mpsc::Sender<Heard>,
    ) -> Owner {
        let now = terms.clock.now();
        let mut owner = Owner {
            terms,
            card,
            concentrator,
            shared,
            commands,
            heard,
            queue: Queue::default(),
            timeline: Timeline::new(Count(0), now),
            session: 0,
            ladder: Ladder::default(),
            fix: Fix::default(),
            last_beacon: 0,
            last_fetch: now,
            last_check: now,
            last_heard: now,
        };
        owner.begin();
        owner
    }

    /// A chip that was just started: its counter has nothing to do with the one before.
    fn begin(&mut self) {
        // a chip that does not even give its counter is found out by the first look
        let count = self.concentrator.counters().map_or(0, |(count, _)| count.0);
        let now = self.terms.clock.now();
        self.timeline = Timeline::new(Count(count), now);
        self.session = self.terms.clock.rng().random();
        self.fix.forget_counter();
        self.last_beacon = 0;
        (self.last_fetch, self.last_check, self.last_heard) = (now, now, now);
        let mut told = self.shared.told();
        (told.online, told.session) = (true, self.session);
        told.last_seen = Some((now, self.terms.clock.wall()));
    }

    /// Until nobody listens any more, or nothing helps.
    pub fn run(mut self) {
        loop {
            let more = self.commands.recv_timeout(self.pause());
            if self.heard.is_closed() {
                break;
            }
            let turned = match more {
                Ok(Command::Send(tx, reply)) => {
                    // who asked may have gone; the frame is queued all the same
                    let _ = reply.send(self.take(tx));
                    self.transmit()
                }
                Ok(Command::Gps(said)) => self.hear_gps(said).and_then(|()| self.transmit()),
                Ok(Command::Vouch(reply)) => {
                    let _ = reply.send(());
                    self.turn()
                }
                Err(RecvTimeoutError::Timeout) => self.turn(),
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if let Err(trouble) = turned
                && !self.cure(trouble)
            {
                break;
            }
        }
        self.shared.told().online = false;
        if let Err(error) = self.concentrator.stop() {
            tracing::debug!(radio = %self.terms.name, "stop: {}", error.cause);
        }
    }

    /// Until the next look: no longer than until the next frame is due.
    fn pause(&self) -> Duration {
        let Some(first) = self.queue.entries().first() else { return LOOK };
        let now = self.timeline.count_at(self.terms.clock.now()).0;
        let left = first.count.wrapping_sub(now).saturating_sub(LEAD);
        // behind by anything is a great number here: it is due; a millisecond of the lead may go by
        let left = if left > u32::MAX / 2 { 0 } else { left };
        LOOK.min(Duration::from_micros(u64::from(left)) + Duration::from_millis(1))
    }

    /// One look.
    fn turn(&mut self) -> Result<(), Trouble> {
        let now = self.terms.clock.now();
        let silent = now.saturating_duration_since(self.last_fetch);
        if self.concentrator.waiting()? > 0 || silent >= COUNTER {
            self.fetch()?;
        }
        self.transmit()?;
        if now.saturating_duration_since(self.last_check) >= CHECK {
            self.last_check = now;
            self.check(now)?;
        }
        Ok(())
    }

    fn fetch(&mut self) -> Result<(), Trouble> {
        loop {
            let received = self.concentrator.receive(AT_ONCE)?;
            let now = self.terms.clock.now();
            self.last_fetch = now;
            if let Some(count) = self.concentrator.last_count()
                && self.timeline.place(Count(count.0), now).is_none()
            {
                return Err(Trouble("the counter has jumped: the chip was reset behind our back".into()));
            }
            let damage = received.damage;
            let lost = u64::from(damage.checksum) + u64::from(damage.truncated) + u64::from(damage.range);
            self.shared.told().rx_damaged += lost + u64::from(damage.payload);
            let full = received.packets.len() == AT_ONCE;
            for packet in received.packets {
                self.pass_on(packet, now);
            }
            if !full {
                return Ok(());
            }
        }
    }

    fn pass_on(&mut self, packet: Packet, now: Instant) {
        self.last_heard = now;
        let tmst = Count(packet.count.0);
        let time = self.fix.utc_of(packet.count, now).unwrap_or_else(|| self.terms.clock.wall());
        let at = self.timeline.place(tmst, now).unwrap_or(now);
        let mut told = self.shared.told();
        told.last_seen = Some((now, time));
        if packet.crc != CrcStatus::Good {
            told.rx_bad += 1;
            return;
        }
        told.rx_ok += 1;
        let heard = Heard {
            gateway: self.terms.gateway,
            session: self.session,
            frequency: packet.freq_hz,
            modulation: match packet.modulation {
                sx1302::packet::Modulation::Lora { sf, bandwidth, .. } => {
                    Modulation::Lora { sf: sf.get(), bandwidth: bandwidth.hz() }
                }
                sx1302::packet::Modulation::Fsk { bitrate } => Modulation::Fsk { bitrate },
            },
            rssi: packet.rssi_channel.round() as i32,
            snr: f64::from(packet.snr.unwrap_or(0.0)),
            tmst,
            at,
            time,
            location: self.terms.location.or(self.fix.position()),
            fine_time: None,
            phy: packet.payload,
        };
        if self.heard.try_send(heard).is_err() {
            told.rx_dropped += 1;
        }
    }

    /// Whether the frame has a place; the chip gets it later.
    fn take(&mut self, tx: Tx) -> Result<Sent, AirError> {
        let answer = self.place(tx);
        let mut told = self.shared.told();
        match &answer {
            Ok(_) => told.tx_ok += 1,
            Err(_) => told.tx_failed += 1,
        }
        answer
    }

    fn place(&mut self, tx: Tx) -> Result<Sent, AirError> {
        if tx.at.is_some() && tx.session != self.session {
            return Err(AirError::Gone(tx.gateway));
        }
        if !self.terms.region.downlink_band().contains(&tx.frequency) {
            return Err(AirError::Frequency);
        }
        let power_dbm = self.power(tx.power).ok_or(AirError::Power)?;
        let modulation = driver_modulation(tx.modulation).ok_or(AirError::Frequency)?;
        let now = self.timeline.count_at(self.terms.clock.now()).0;
        let airtime = jit::airtime(tx.modulation, tx.phy.len(), Direction::Down);
        let (kind, count) = match tx.at {
            Some(Count(count)) => (Kind::ClassA, count),
            None => (Kind::ClassC, 0),
        };
        let transmission = Transmission {
            chain: Chain::A,
            freq_hz: tx.frequency,
            power_dbm,
            when: When::Now,
            modulation,
            payload: tx.phy,
        };
        let taken = self.queue.enqueue(now, kind, count, airtime, transmission);
        taken.inspect_err(|refused| {
            let possible_in = refused.earliest.map(|at| Duration::from_micros(at.wrapping_sub(now).into()));
            tracing::info!(radio = %self.terms.name, why = ?refused.why, ?possible_in, "no place for a frame");
        })
        .map_err(|refused| match refused.why {
            // where a later count would do, its own has passed long ago
            Why::TooEarly if refused.earliest.is_some() => AirError::TooLate,
            Why::TooLate => AirError::TooLate,
            Why::TooEarly => AirError::TooEarly,
            Why::Full | Why::CollisionPacket => AirError::CollisionPacket,
            Why::CollisionBeacon => AirError::CollisionBeacon,
        })?;
        Ok(Sent { power: Some(power_dbm.saturating_add(self.terms.antenna_gain)) })
    }

    /// What the antenna connector must give for an EIRP, both in dBm, or the next weaker that there is.
    fn power(&self, eirp: i8) -> Option<i8> {
        let wanted = i16::from(eirp) - i16::from(self.terms.antenna_gain);
        let gains = self.concentrator.config().radio(Chain::A).gains.iter().map(|gain| gain.rf_power);
        gains.filter(|power| i16::from(*power) <= wanted).max()
    }

    fn hear_gps(&mut self, said: Said) -> Result<(), Trouble> {
        let wanted = self.fix.says(said, self.terms.clock.now());
        self.shared.told().position = self.fix.position();
        if !wanted {
            return Ok(());
        }
        let pulse = self.concentrator.pulse()?;
        let Some(count) = self.concentrator.last_count() else { return Ok(()) };
        let (now, machine) = (self.terms.clock.now(), self.terms.clock.machine());
        let was_fresh = self.fix.is_fresh(now);
        let believed = self.fix.pulse(pulse, count, now);
        let mut told = self.shared.told();
        *(if believed { &mut told.gps_pulses } else { &mut told.gps_rejected }) += 1;
        drop(told);
        if let Some(utc) = self.fix.utc_of(count, now).filter(|_| believed) {
            self.terms.chrony.tell(machine, utc);
            if !was_fresh {
                tracing::info!(radio = %self.terms.name, %utc, "GPS gives the time");
                self.set_clock(utc);
            }
        }
        self.queue_beacons(count, now);
        Ok(())
    }

    /// A clock that nobody could trust so far may be trusted with what GPS says.
    fn set_clock(&self, utc: Timestamp) {
        let clock = &self.terms.clock;
        if !clock.is_trusted() {
            clock.move_wall(utc.duration_since(clock.wall()));
            clock.set_trusted(true);
        }
    }

    /// Keep the next beacons in the queue.
    fn queue_beacons(&mut self, count: sx1302::counter::Count, now: Instant) {
        let second = self.fix.second_of(count, now);
        let (Some(region_beacon), Some(second)) = (self.terms.beacon.clone(), second) else { return };
        let waiting = self.queue.entries().iter().filter(|entry| entry.kind == Kind::Beacon).count();
        let modulation = region_beacon.modulation();
        let airtime = jit::airtime(modulation, region_beacon.size(), Direction::Down);
        let antenna = self.terms.location.or(self.fix.position()).unwrap_or_default();
        for _ in waiting..BEACONS {
            let time = beacon::after(second.max(self.last_beacon));
            self.last_beacon = time;
            let frequency = region_beacon.frequency(time);
            let power = self.power(self.terms.region.max_downlink_eirp(frequency));
            let (Some(power_dbm), Some(modulation)) = (power, driver_modulation(modulation).map(as_beacon))
            else {
                tracing::error!(radio = %self.terms.name, "no entry of the gain table is quiet enough: no beacons");
                self.terms.beacon = None;
                return;
            };
            let Some(at) = self.fix.count_of(time, now) else { return };
            let transmission = Transmission {
                chain: Chain::A,
                freq_hz: self.fix.corrected(frequency),
                power_dbm,
                when: When::OnPps,
                modulation,
                payload: region_beacon.payload(time, antenna),
            };
            if let Err(refused) = self.queue.enqueue(count.0, Kind::Beacon, at.0, airtime, transmission) {
                self.shared.told().beacons_skipped += 1;
                tracing::warn!(radio = %self.terms.name, time, "no beacon: {:?}", refused.why);
            }
        }
    }

    /// Hand over what is due.
    fn transmit(&mut self) -> Result<(), Trouble> {
        let now = self.timeline.count_at(self.terms.clock.now()).0;
        let due = self.queue.peek(now);
        for missed in &due.missed {
            let late = Duration::from_micros(now.wrapping_sub(missed.count).into());
            tracing::warn!(radio = %self.terms.name, "a frame was not handed to the chip in time, {late:?} ago");
        }
        let beacons = due.missed.iter().filter(|missed| missed.kind == Kind::Beacon).count();
        let mut told = self.shared.told();
        told.beacons_skipped += beacons as u64;
        told.tx_lost += (due.missed.len() - beacons) as u64;
        drop(told);
        // an answer of class A may use the time before a beacon, and ends before the pulse
        let waits = |entry: &Entry<_>| entry.kind == Kind::Beacon && entry.count.wrapping_sub(now) > ARM;
        if self.queue.entries().first().filter(|_| due.next.is_some()).is_some_and(waits)
            && self.concentrator.tx_status(Chain::A)? == Status::Emitting
        {
            return Ok(());
        }
        let Some(entry) = due.next.and_then(|place| self.queue.remove(place)) else { return Ok(()) };
        let is_beacon = entry.kind == Kind::Beacon;
        let when = if is_beacon { When::OnPps } else { When::At(sx1302::counter::Count(entry.count)) };
        let transmission = Transmission { when, ..entry.what };
        if is_beacon && !(self.fix.is_fresh(self.terms.clock.now()) && entry.count.wrapping_sub(now) > ARM) {
            self.shared.told().beacons_skipped += 1;
            tracing::warn!(radio = %self.terms.name, "no beacon: its pulse is not certain");
            return Ok(());
        }
        // the queue leaves room between two frames: what is still there has no end of its own, or waits for a pulse in vain
        if let Status::Emitting | Status::Scheduled = self.concentrator.tx_status(transmission.chain)? {
            self.shared.told().tx_lost += 1;
            tracing::error!(radio = %self.terms.name, "the transmitter still has the frame before: it is taken back");
            if let Err(error) = self.concentrator.abort(transmission.chain) {
                self.shared.told().tx_lost += 1;
                return Err(error.into());
            }
        }
        match self.concentrator.send(&transmission) {
            Ok(()) => {
                self.shared.told().beacons += u64::from(is_beacon);
                Ok(())
            }
            Err(error) if error.cause == Cause::Busy => {
                self.shared.told().tx_channel_busy += 1;
                tracing::info!(radio = %self.terms.name, frequency = transmission.freq_hz, "{}", error.cause);
                Ok(())
            }
            Err(sx1302::Error { cause: Cause::Config(why), .. }) => {
                self.shared.told().tx_lost += 1;
                tracing::error!(radio = %self.terms.name, "a frame that cannot be sent: {why}");
                Ok(())
            }
            Err(error) => {
                self.shared.told().tx_lost += 1;
                Err(error.into())
            }
        }
    }

    /// Is it well?
    fn check(&mut self, now: Instant) -> Result<(), Trouble> {
        if !self.concentrator.is_sane()? {
            return Err(Trouble("the chip does not read as it did when it started".into()));
        }
        match self.concentrator.parity_errors()? {
            (false, false) => {}
            (true, _) => return Err(Trouble("the gain control's program memory is damaged".into())),
            (_, true) => return Err(Trouble("the arbiter's program memory is damaged".into())),
        }
        let silent = now.saturating_duration_since(self.last_heard);
        match self.terms.silence {
            Some(most) if silent >= most => {
                Err(Trouble(format!("nothing was heard for {} minutes", silent.as_secs() / 60)))
            }
            _ => Ok(()),
        }
    }

    /// Up the ladder until it runs again. Answers whether it does.
    fn cure(&mut self, trouble: Trouble) -> bool {
        let mut trouble = trouble.0;
        {
            let mut told = self.shared.told();
            told.online = false;
            told.tx_lost += self.queue.drain().count() as u64;
        }
        loop {
            let (step, mut wait) = self.ladder.trouble(self.terms.clock.now());
            if self.card.is_model() {
                // nothing has to cool down
                wait /= 50;
            }
            tracing::error!(radio = %self.terms.name, "{trouble}\nradio: {step}");
            if !self.rest(wait) {
                return false;
            }
            let _ = self.concentrator.stop();
            let done = match step {
                Step::Reload => {
                    self.shared.told().reloads += 1;
                    Ok(())
                }
                Step::Reset => {
                    self.shared.told().resets += 1;
                    self.card.reset(false)
                }
                Step::PowerCycle => {
                    self.shared.told().power_cycles += 1;
                    self.card.reset(true)
                }
                Step::Exit => {
                    self.shared.failed.send_replace(Some(trouble));
                    return false;
                }
            };
            match done.and_then(|()| self.card.start()) {
                Ok((concentrator, _)) => {
                    self.concentrator = concentrator;
                    self.begin();
                    tracing::info!(radio = %self.terms.name, "the radio runs again");
                    return true;
                }
                Err(error) => trouble = error.whole(),
            }
        }
    }

    /// Wait, and answer who asks meanwhile. Answers whether anybody still listens.
    fn rest(&mut self, wait: Duration) -> bool {
        let until = self.terms.clock.now() + wait;
        loop {
            let left = until.saturating_duration_since(self.terms.clock.now());
            match self.commands.recv_timeout(left.min(Duration::from_millis(100))) {
                Ok(Command::Send(_, reply)) => {
                    let _ = reply.send(Err(AirError::Gone(self.terms.gateway)));
                }
                Ok(Command::Gps(said)) => {
                    self.fix.says(said, self.terms.clock.now());
                }
                // it works on its cure
                Ok(Command::Vouch(reply)) => _ = reply.send(()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return false,
            }
            if self.heard.is_closed() {
                return false;
            }
            if left.is_zero() {
                return true;
            }
        }
    }
}

/// As gateways speak to devices: chirps down, no CRC behind LoRa.
pub(super) fn driver_modulation(modulation: Modulation) -> Option<sx1302::tx::Modulation> {
    Some(match modulation {
        Modulation::Lora { sf, bandwidth } => sx1302::tx::Modulation::Lora {
            sf: SpreadingFactor::new(sf).ok()?,
            bandwidth: Bandwidth::from_hz(bandwidth).ok()?,
            coding_rate: CodingRate::new(1).ok()?,
            preamble: 8,
            inverted: true,
            crc: false,
            header: true,
        },
        Modulation::Fsk { bitrate } => sx1302::tx::Modulation::Fsk {
            bitrate,
            deviation_hz: 25_000,
            preamble: 5,
            crc: true,
            bandwidth: None,
        },
    })
}

/// As a gateway speaks to everybody: chirps up, and a length that is known.
fn as_beacon(frame: sx1302::tx::Modulation) -> sx1302::tx::Modulation {
    match frame {
        sx1302::tx::Modulation::Lora { sf, bandwidth, coding_rate, .. } => sx1302::tx::Modulation::Lora {
            sf,
            bandwidth,
            coding_rate,
            preamble: beacon::PREAMBLE,
            inverted: false,
            crc: false,
            header: false,
        },
        other => other,
    }
}
