//! Concentrators behind one trait: sx1302, semtech-udp, simulated.
//!
//! Owns the sockets and devices of the radio. A radio gives what it hears as a stream of
//! [`Heard`] and takes transmissions through [`Air`]; it may carry many heads (gateways).
//! Here the head's microseconds and the host's instants meet, and nowhere else.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::backend::door::{Boxed, Deadline};
use crate::clock::{Clock, Instant};
use crate::fns::{Air, AirError, Heard, Sent, Tx};
use crate::lorawan::{GatewayEui, Region};

pub mod semtech_udp;
pub mod simulated;
pub mod sx1302;
mod timeline;

/// One entry of `[[radio]]`, told apart by `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", try_from = "Written")]
pub enum Config {
    /// A concentrator on this board.
    Sx1302(Box<sx1302::Config>),
    /// Packet forwarders (Semtech's UDP protocol, version 2) send to us.
    SemtechUdp(semtech_udp::Config),
}

impl Default for Config {
    /// What listens when there is no configuration: a Semtech UDP radio on port 1700.
    fn default() -> Config {
        Config::SemtechUdp(semtech_udp::Config::default())
    }
}

/// Every kind that is spoken of, so that a later one gets a better answer than "unknown".
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Written {
    SemtechUdp(semtech_udp::Config),
    Sx1302(Box<sx1302::Config>),
    BasicsStation(IgnoredAny),
}

impl TryFrom<Written> for Config {
    type Error = String;
    fn try_from(written: Written) -> Result<Config, String> {
        let later = |kind: &str| {
            Err(format!(
                "a radio of kind \"{kind}\" is not in this version: run a packet forwarder on the gateway \
                 and use kind = \"semtech-udp\""
            ))
        };
        match written {
            Written::SemtechUdp(config) => Ok(Config::SemtechUdp(config)),
            Written::Sx1302(config) => Ok(Config::Sx1302(config)),
            Written::BasicsStation(_) => later("basics-station"),
        }
    }
}

/// Why a radio did not open: the operator's move.
#[derive(Debug, thiserror::Error)]
pub enum RadioError {
    /// The UDP socket could not be bound.
    #[error("radio {name}: cannot listen on {listen}/udp")]
    Bind {
        /// Name of the radio.
        name: String,
        /// The configured address.
        listen: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A concentrator did not come up.
    #[error("radio {name}")]
    Card {
        /// Name of the radio.
        name: String,
        /// What stood in the way.
        #[source]
        source: Box<sx1302::card::CardError>,
    },
    /// The system gives no thread.
    #[error("radio {name}: cannot start its thread")]
    Thread {
        /// Name of the radio.
        name: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// What a radio must know of the rest.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Which channels there are.
    pub region: Region,
    /// Where this node keeps its state.
    pub state: PathBuf,
}

/// An open radio. It closes when `heard` is dropped.
pub struct Radio {
    /// For people and logs.
    pub name: String,
    /// Every frame that its heads heard, CRC good, copies included.
    pub heard: mpsc::Receiver<Heard>,
    /// Its heads.
    pub heads: Arc<dyn Heads>,
}

/// The heads of one radio.
pub trait Heads: Air {
    /// Whether this head belongs to the radio (it need not be online).
    fn has(&self, gateway: GatewayEui) -> bool;
    /// Every head that is listed or was heard of, in order of EUI.
    fn status(&self) -> Vec<HeadStatus>;
    /// The address it really listens on, for radios on a network.
    fn listening(&self) -> Option<SocketAddr> {
        None
    }
    /// What the radio counted since the start, by name: datagrams dropped and why, for example.
    fn counters(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
    /// Ends as soon as the radio has shown that it is alive, if it has a thread that could hang.
    fn vouch(&self) -> Boxed<'_, ()> {
        Box::pin(std::future::ready(()))
    }
    /// The model that is in the chip's place, if one is.
    fn model(&self) -> Option<sx1302::model::Modelled> {
        None
    }
    /// Ends when the radio has given up, with the reason: then the program should, so that it is started anew.
    fn failed(&self) -> Boxed<'_, String> {
        Box::pin(std::future::pending())
    }
}

/// What is known of one head.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadStatus {
    /// The head.
    pub gateway: GatewayEui,
    /// The radio it belongs to.
    pub name: String,
    /// Whether it can transmit now.
    pub online: bool,
    /// The last sign of life; `None`: never seen.
    pub last_seen: Option<Instant>,
    /// The same on the wall clock.
    pub last_seen_time: Option<Timestamp>,
    /// Where its datagrams come from, as text.
    pub address: Option<String>,
    /// Frames heard with a good CRC.
    pub rx_ok: u64,
    /// Frames dropped: bad CRC, or not a frame that we understand.
    pub rx_bad: u64,
    /// Transmissions the head has taken.
    pub tx_ok: u64,
    /// Transmissions the head refused or did not acknowledge.
    pub tx_failed: u64,
    /// How long its last acknowledgement of a transmission took.
    pub rtt: Option<Duration>,
    /// Degrees latitude, longitude, where it said so.
    pub location: Option<(f64, f64)>,
}

impl fmt::Display for HeadStatus {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.online { "online" } else { "offline" };
        write!(to, "{} {} {state}, heard {}, sent {}", self.name, self.gateway, self.rx_ok, self.tx_ok)
    }
}

/// All radios of this node as one.
#[derive(Clone, Default)]
pub struct Radios(pub Vec<Arc<dyn Heads>>);

impl Radios {
    /// Every head of every radio; one that two radios know is told by each.
    pub fn status(&self) -> Vec<HeadStatus> {
        self.0.iter().flat_map(|radio| radio.status()).collect()
    }
}

impl Air for Radios {
    fn transmit(&self, tx: Tx, before: Deadline) -> Boxed<'_, Result<Sent, AirError>> {
        // a head that moved from one radio to another is known to both
        let knows = || self.0.iter().filter(|radio| radio.has(tx.gateway));
        match knows().find(|radio| radio.online(tx.gateway)).or_else(|| knows().next()) {
            Some(radio) => radio.transmit(tx, before),
            None => Box::pin(std::future::ready(Err(AirError::Gone(tx.gateway)))),
        }
    }

    fn heads(&self) -> usize {
        self.0.iter().map(|radio| radio.heads()).sum()
    }

    fn online(&self, gateway: GatewayEui) -> bool {
        self.0.iter().any(|radio| radio.has(gateway) && radio.online(gateway))
    }

    fn sends_beacons(&self) -> bool {
        self.0.iter().any(|radio| radio.sends_beacons())
    }
}

/// Open a radio.
pub async fn open(config: &Config, around: &Surroundings, clock: &Clock) -> Result<Radio, RadioError> {
    match config {
        Config::Sx1302(config) => sx1302::open(config, around, clock).await,
        Config::SemtechUdp(config) => semtech_udp::open(config, clock).await,
    }
}

/// The answer to a frame so long after its end, for tests.
#[cfg(test)]
fn answer(heard: &Heard, after: Duration, power: i8, phy: &[u8]) -> Tx {
    Tx {
        gateway: heard.gateway,
        session: heard.session,
        phy: phy.to_vec(),
        frequency: heard.frequency,
        modulation: heard.modulation,
        power,
        at: Some(heard.tmst.plus(after)),
        start: heard.at + after,
    }
}
