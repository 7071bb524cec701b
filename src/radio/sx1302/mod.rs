//! A concentrator of our own: an SX1302 or SX1303 on this board's SPI bus, or the model of one.
//!
//! Owns the configuration, and the way from a region to channels. One thread owns the chip (`owner`); here is what the rest of
//! the program sees of it. The driver is crate `sx1302`, which knows no LoRaWAN.

pub mod card;
mod chrony;
pub mod firmware;
mod gps;
mod ladder;
pub mod model;
mod owner;
pub mod plan;
#[cfg(test)]
mod tests;
pub mod tools;

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc as thread_channel};
use std::thread;
use std::time::Duration;

use ::sx1302::config::{Gain, RadioKind};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use super::{HeadStatus, Heads, Radio, RadioError, Surroundings};
use crate::backend::door::{Boxed, Deadline};
use crate::clock::Clock;
use crate::fns::{Air, AirError, Sent, Tx};
use crate::lorawan::beacon::Beacon;
use crate::lorawan::{GatewayEui, Region};

use card::{Card, CardError};
use chrony::Feed;
use model::Modelled;
use owner::{Command, Owner, Shared, Terms};

/// Frames that may wait for the house.
const QUEUE: usize = 256;

/// `[[radio]] kind = "sx1302"`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// For people and logs; the board or the device where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The board: what is wired to which line, and what its levels are off by. What is written below goes before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub board: Option<BoardName>,
    /// SPI device of the concentrator; the board's usual one where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spi: Option<PathBuf>,
    /// SPI device of the SX1261, where there is one and it shall be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sx1261: Option<PathBuf>,
    /// I2C bus of the temperature sensor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub i2c: Option<PathBuf>,
    /// Line that resets the concentrator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset: Option<GpioLine>,
    /// Line that gives it power.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power: Option<GpioLine>,
    /// Line that resets the SX1261.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sx1261_reset: Option<GpioLine>,
    /// What the radios are.
    #[serde(skip_serializing_if = "RadioName::is_usual")]
    pub radios: RadioName,
    /// The board sends while it listens, with a DAC for its amplifier; wants SX1255 or SX1257.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub full_duplex: bool,
    /// Whether the antenna is wired to one input of radio A, and of radio B (SX1250).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub single_input: Option<[bool; 2]>,
    /// Added to every RSSI, dB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rssi_offset: Option<f32>,
    /// How the board makes its powers, one to sixteen of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gains: Vec<GainEntry>,
    /// Folder of imported firmware; `firmware` beside the data where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware: Option<PathBuf>,
    /// Who the gateway says it is; the chip's own number where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayEui>,
    /// What antenna and cable add to the power, dBi.
    pub antenna_gain: i8,
    /// Degrees latitude (north) and longitude (east) of the antenna.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    /// Serial port of a GPS receiver whose pulse is wired to the concentrator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gps: Option<PathBuf>,
    /// Bits per second of the port.
    #[serde(skip_serializing_if = "Baud::is_usual")]
    pub gps_baud: Baud,
    /// Socket of chrony's reference clock SOCK, which is told the time of GPS; `/run/chrony.roamgate.sock` where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chrony: Option<PathBuf>,
    /// Send the beacons of class B; wants `gps`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub beacon: bool,
    /// After so many minutes in which nothing at all was heard the radio is started anew; 0: never.
    pub nothing_heard_minutes: u32,
    /// The model of a chip instead of a board: for trying and testing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub model: bool,
}

impl Config {
    fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| match (self.model, self.board) {
            (true, _) => "sx1302 model".into(),
            (false, Some(board)) => board.0.into(),
            (false, None) => format!("sx1302 {}", self.spi().display()),
        })
    }

    /// The SPI device.
    pub fn spi(&self) -> PathBuf {
        let usual = || self.known().map(|board| board.spi.into());
        self.spi.clone().or_else(usual).unwrap_or_else(|| "/dev/spidev0.0".into())
    }

    /// The bus of the temperature sensor; the board's usual one counts only where it exists.
    fn i2c(&self) -> Option<PathBuf> {
        let usual = || self.known().and_then(|board| board.i2c).map(PathBuf::from).filter(|bus| bus.exists());
        self.i2c.clone().or_else(usual)
    }

    /// Whether a concentrator can be what is wanted in this region, as far as that can be known without one.
    pub fn check(&self, region: &Region) -> Result<(), CardError> {
        card::planned(self, region).map(drop)
    }

    /// What is known of the board.
    fn known(&self) -> Option<&'static ::sx1302::board::Board> {
        self.board.and_then(|name| ::sx1302::board::by_name(name.0))
    }

    /// Where imported firmware is kept.
    pub fn firmware(&self, state: &Path) -> PathBuf {
        self.firmware.clone().unwrap_or_else(|| state.join("firmware"))
    }

    /// What a person reads of it, in one line.
    pub fn summary(&self) -> String {
        match (self.model, self.board) {
            (true, _) => "the model of an SX1302 (no hardware)".into(),
            (false, Some(board)) => format!("SX1302 on board {} at {}", board.0, self.spi().display()),
            (false, None) => format!("SX1302 at {}", self.spi().display()),
        }
    }
}

/// A board that is known by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoardName(pub &'static str);

impl Serialize for BoardName {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.0)
    }
}
impl<'de> Deserialize<'de> for BoardName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<BoardName, D::Error> {
        let name = String::deserialize(from)?;
        let known = ::sx1302::board::by_name(&name).map(|board| BoardName(board.name));
        known.ok_or_else(|| {
            if ::sx1302::board::USB_BOARDS.contains(&name.as_str()) {
                return serde::de::Error::custom(format_args!(
                    "board {name} has its concentrator behind a USB bridge, which is not supported: run the vendor's \
                     packet forwarder and use kind = \"semtech-udp\""
                ));
            }
            let all: Vec<&str> = ::sx1302::board::BOARDS.iter().map(|board| board.name).collect();
            serde::de::Error::custom(format_args!(
                "{name:?} is no board of ours; there are {} (or leave it out, and write `spi`, `reset` and `power`)",
                all.join(", ")
            ))
        })
    }
}

/// What the radios beside the concentrator are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RadioName {
    /// Of every board that is known by name.
    #[default]
    Sx1250,
    /// Of older boards, below 510 MHz.
    Sx1255,
    /// Of older boards, above 860 MHz.
    Sx1257,
}

impl RadioName {
    fn is_usual(&self) -> bool {
        *self == RadioName::default()
    }
}

impl From<RadioName> for RadioKind {
    fn from(name: RadioName) -> RadioKind {
        match name {
            RadioName::Sx1250 => RadioKind::Sx1250,
            RadioName::Sx1255 => RadioKind::Sx1255,
            RadioName::Sx1257 => RadioKind::Sx1257,
        }
    }
}

/// How a power is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GainEntry {
    /// At the antenna connector.
    dbm: i8,
    /// The amplifier of the board.
    pa: u8,
    /// SX1250: power index, 0 to 22.
    #[serde(default)]
    index: u8,
    /// SX1255 and SX1257: 0 to 3.
    #[serde(default)]
    digital: u8,
    /// The same.
    #[serde(default = "full_dac")]
    dac: u8,
    /// The same: 5 to 15.
    #[serde(default = "least_mixer")]
    mixer: u8,
}

fn full_dac() -> u8 {
    3
}

fn least_mixer() -> u8 {
    5
}

impl From<GainEntry> for Gain {
    fn from(entry: GainEntry) -> Gain {
        Gain {
            rf_power: entry.dbm,
            pa: entry.pa,
            power_index: entry.index,
            digital: entry.digital,
            dac: entry.dac,
            mixer: entry.mixer,
        }
    }
}

/// Bits per second of a serial port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Baud(pub u32);

impl Default for Baud {
    fn default() -> Baud {
        Baud(9600)
    }
}

impl Baud {
    fn is_usual(&self) -> bool {
        *self == Baud::default()
    }
}

/// A line of a GPIO device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpioLine {
    /// Its device.
    #[serde(default = "first_chip")]
    pub chip: PathBuf,
    /// Its number there.
    pub line: u32,
}

impl Default for GpioLine {
    fn default() -> GpioLine {
        GpioLine { chip: first_chip(), line: 0 }
    }
}

fn first_chip() -> PathBuf {
    "/dev/gpiochip0".into()
}

/// Degrees latitude and longitude.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "[f64; 2]", into = "[f64; 2]")]
pub struct Location {
    latitude: f64,
    longitude: f64,
}

impl TryFrom<[f64; 2]> for Location {
    type Error = String;
    fn try_from([latitude, longitude]: [f64; 2]) -> Result<Location, String> {
        if latitude.abs() <= 90.0 && longitude.abs() <= 180.0 {
            Ok(Location { latitude, longitude })
        } else {
            Err(format!("[{latitude}, {longitude}] is no [latitude, longitude] in degrees"))
        }
    }
}
impl From<Location> for [f64; 2] {
    fn from(location: Location) -> [f64; 2] {
        [location.latitude, location.longitude]
    }
}

/// What the rest of the program sees.
struct Head {
    name: String,
    gateway: GatewayEui,
    location: Option<(f64, f64)>,
    beacon: bool,
    model: Option<Modelled>,
    shared: Arc<Shared>,
    commands: thread_channel::Sender<Command>,
    /// Follows the GPS receiver, and ends with us.
    _gps: JoinSet<()>,
}

/// Bring the concentrator up and start its thread.
pub async fn open(config: &Config, around: &Surroundings, clock: &Clock) -> Result<Radio, RadioError> {
    let model = config.model.then(|| Modelled::new(clock.clone()));
    open_with(config, around, clock, model).await
}

/// The same on a model that somebody holds in his hands.
pub async fn open_with(
    config: &Config,
    around: &Surroundings,
    clock: &Clock,
    model: Option<Modelled>,
) -> Result<Radio, RadioError> {
    let name = config.name();
    let failed = |source: CardError| RadioError::Card { name: name.clone(), source: Box::new(source) };
    let mut card =
        Card::new(config, &around.region, &config.firmware(&around.state), model.clone()).map_err(failed)?;
    let (started, up) = oneshot::channel();
    let (sender, heard) = mpsc::channel(QUEUE);
    let (commands, orders) = thread_channel::channel();
    let shared = Arc::new(Shared::new());
    let (config, thread_shared, thread_name) = (config.clone(), shared.clone(), name.clone());
    let (gps, gps_baud, beacon) = (config.gps.clone(), config.gps_baud, config.beacon);
    let (region, thread_clock) = (around.region.clone(), clock.clone());
    let location = config.location.map(|location| (location.latitude, location.longitude));
    let work = move || {
        // the start sleeps for a second, on this thread and not on the runtime's
        let begun = card.reset(false).and_then(|()| card.start()).and_then(|(mut concentrator, identity)| {
            let eui = concentrator.eui()?;
            Ok((concentrator, identity, eui))
        });
        let (concentrator, identity, eui) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                if matches!(error, CardError::Chip(_)) {
                    tracing::error!(radio = %thread_name, "{}", error.whole());
                }
                let _ = started.send(Err(error));
                return;
            }
        };
        let gateway = config.gateway.unwrap_or(GatewayEui::from_msb(eui));
        let terms = Terms {
            name: thread_name,
            gateway,
            antenna_gain: config.antenna_gain,
            location,
            silence: Some(config.nothing_heard_minutes)
                .filter(|minutes| *minutes > 0)
                .map(|minutes| Duration::from_secs(60 * u64::from(minutes))),
            chrony: Feed::new(config.chrony.unwrap_or_else(|| chrony::USUAL.into())),
            beacon: Beacon::of(&region).filter(|_| config.beacon),
            region,
            clock: thread_clock,
        };
        let owner = Owner::new(terms, card, concentrator, thread_shared, orders, sender);
        if started.send(Ok((gateway, identity))).is_ok() {
            owner.run();
        }
    };
    let spawned = thread::Builder::new().name("radio".into()).spawn(work);
    if let Err(source) = spawned {
        return Err(RadioError::Thread { name, source });
    }
    match up.await {
        Ok(Ok((gateway, identity))) => {
            let chip = if identity.version == 0x12 { "SX1303" } else { "SX1302" };
            tracing::info!(radio = %name, %gateway, chip, sensor = identity.has_sensor, "the concentrator runs");
            let mut follower = JoinSet::new();
            if let Some(port) = gps {
                follower.spawn(gps::follow(port, gps_baud.0, name.clone(), clock.clone(), commands.clone()));
            }
            let heads = Head {
                name: name.clone(),
                gateway,
                location,
                beacon,
                model,
                shared,
                commands,
                _gps: follower,
            };
            let heads = Arc::new(heads);
            Ok(Radio { name, heard, heads })
        }
        Ok(Err(source)) => Err(failed(source)),
        // the thread is gone without a word
        Err(_) => Err(RadioError::Thread { name, source: std::io::Error::other("it ended at once") }),
    }
}

impl Head {
    async fn send(&self, tx: Tx, before: Deadline) -> Result<Sent, AirError> {
        let gone = AirError::Gone(tx.gateway);
        if tx.gateway != self.gateway || !self.shared.told().online {
            return Err(gone);
        }
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Send(tx, reply)).is_err() {
            return Err(gone);
        }
        match timeout_at(before.0, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(gone),
            Err(_) => Err(AirError::Silent),
        }
    }
}

impl Air for Head {
    fn transmit(&self, tx: Tx, before: Deadline) -> Boxed<'_, Result<Sent, AirError>> {
        Box::pin(self.send(tx, before))
    }
    fn heads(&self) -> usize {
        usize::from(self.shared.told().online)
    }
    fn online(&self, gateway: GatewayEui) -> bool {
        gateway == self.gateway && self.shared.told().online
    }
    fn sends_beacons(&self) -> bool {
        self.beacon
    }
}

impl Heads for Head {
    fn model(&self) -> Option<Modelled> {
        self.model.clone()
    }
    fn vouch(&self) -> Boxed<'_, ()> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            // a thread that is gone has said why to `failed`
            if self.commands.send(Command::Vouch(reply)).is_ok() {
                let _ = answer.await;
            }
        })
    }
    fn has(&self, gateway: GatewayEui) -> bool {
        gateway == self.gateway
    }
    fn status(&self) -> Vec<HeadStatus> {
        let told = self.shared.told();
        vec![HeadStatus {
            gateway: self.gateway,
            name: self.name.clone(),
            online: told.online,
            last_seen: told.last_seen.map(|(at, _)| at),
            last_seen_time: told.last_seen.map(|(_, time)| time),
            address: None,
            rx_ok: told.rx_ok,
            rx_bad: told.rx_bad + told.rx_damaged,
            tx_ok: told.tx_ok,
            tx_failed: told.tx_failed + told.tx_lost + told.tx_channel_busy,
            rtt: None,
            location: self.location.or(told.position),
        }]
    }
    fn counters(&self) -> Vec<(&'static str, u64)> {
        let told = self.shared.told();
        vec![
            ("rx_damaged", told.rx_damaged),
            ("rx_dropped", told.rx_dropped),
            ("tx_lost", told.tx_lost),
            ("tx_channel_busy", told.tx_channel_busy),
            ("radio_reloads", told.reloads),
            ("radio_resets", told.resets),
            ("radio_power_cycles", told.power_cycles),
            ("gps_pulses", told.gps_pulses),
            ("gps_rejected", told.gps_rejected),
            ("beacons", told.beacons),
            ("beacons_skipped", told.beacons_skipped),
        ]
    }
    fn failed(&self) -> Boxed<'_, String> {
        let mut failed = self.shared.failed.subscribe();
        Box::pin(async move {
            match failed.wait_for(Option::is_some).await.map(|why| why.clone()) {
                Ok(Some(why)) => why,
                Ok(None) | Err(_) => std::future::pending().await,
            }
        })
    }
}
