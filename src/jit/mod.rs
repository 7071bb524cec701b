//! When may a frame go out: airtime, duty cycle, collisions. Pure.
//!
//! Owns the rules of the band and of one transmitter: a head sends one frame at a time, no sub-band
//! is used for more than its share of any hour, nobody is louder than the region allows. They bind
//! everybody, partners too. Knows no radio; called by `fns`.

use std::fmt;
use std::time::Duration;

use crate::clock::Instant;
use crate::lorawan::{GatewayEui, Region};

mod airtime;

pub use airtime::airtime;

/// The rules of a region, and what each head has sent and will send.
#[derive(Debug)]
pub struct Jit {
    _region: Region,
}

/// A place on the air that is ours. Give it back with [`Jit::release`] if the radio did not take
/// the frame; else drop it.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a frame that the radio refuses must give its place back"]
pub struct Ticket {
    id: u64,
    gateway: GatewayEui,
    start: Instant,
    airtime: Duration,
    frequency: u32,
}

/// Which rule forbids a transmission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// The sub-band has been used for its share of an hour.
    DutyCycle {
        /// The sub-band.
        band: Band,
        /// Airtime used in the fullest hour around the transmission, without it.
        used: Duration,
        /// Airtime allowed in any hour.
        limit: Duration,
    },
    /// The head transmits another frame then.
    Collision,
    /// It starts too soon to reach the head in time, or has passed.
    TooLate,
    /// It starts so far ahead that no head would keep it.
    TooEarly,
    /// It is louder than the region allows at this frequency.
    Eirp {
        /// EIRP allowed, dBm.
        max: i8,
    },
    /// The region knows no band at this frequency.
    Frequency,
}

/// A sub-band with a share of time, in hertz; `high` does not belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Band {
    /// First hertz.
    pub low: u32,
    /// First hertz above.
    pub high: u32,
    /// Thousandths of any hour.
    pub permille: u32,
}

impl fmt::Display for Band {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mhz = |hertz: u32| f64::from(hertz) / 1e6;
        write!(to, "{}-{} MHz", mhz(self.low), mhz(self.high))
    }
}

/// A transmission that may not be, and until when.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule:?}")]
pub struct Refused {
    /// Why not.
    pub rule: Rule,
    /// The earliest start that this rule allows; `None`: no later start helps.
    pub until: Option<Instant>,
    /// How long after the question that is.
    pub wait: Option<Duration>,
}

/// How full a sub-band is at one head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BandLoad {
    /// The sub-band.
    pub band: Band,
    /// Airtime in the past hour, with what is reserved ahead.
    pub used: Duration,
    /// Airtime allowed in any hour.
    pub limit: Duration,
}

impl Jit {
    /// Nothing sent yet.
    pub fn new(region: Region) -> Jit {
        Jit { _region: region }
    }

    /// May `gateway` send from `start` for `airtime` at `frequency` (Hz) with `eirp` (dBm)?
    /// If so the place is taken.
    pub fn reserve(
        &mut self,
        gateway: GatewayEui,
        start: Instant,
        airtime: Duration,
        frequency: u32,
        _eirp: i8,
        _now: Instant,
    ) -> Result<Ticket, Refused> {
        Ok(Ticket { id: 0, gateway, start, airtime, frequency })
    }

    /// The radio did not take the frame: nothing was sent.
    pub fn release(&mut self, _ticket: Ticket) {}

    /// How full each sub-band is at a head; empty where the region has no duty cycle.
    pub fn load(&self, _gateway: GatewayEui, _now: Instant) -> Vec<BandLoad> {
        Vec::new()
    }
}
