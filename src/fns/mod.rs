//! Forwarding network server: every frame of every radio enters here, every transmission leaves here.
//!
//! Owns dedup, routing to homes, sealed tokens and the windows' truth. Knows no HTTP, DNS or
//! database; the radio is behind [`Air`].

use std::time::Duration;

use jiff::Timestamp;

use crate::backend::door::{Boxed, Deadline, StoreError};
use crate::clock::Instant;
use crate::lorawan::{GatewayEui, Modulation, NetId};

/// A concentrator's 32-bit microsecond counter; wraps after 71.6 minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count(pub u32);

impl Count {
    /// The counter some time later, modulo 2^32.
    pub fn plus(self, time: Duration) -> Count {
        Count(self.0.wrapping_add(time.as_micros() as u32))
    }
}

/// One hearing of one frame by one radio head.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    /// The frame, CRC good.
    pub phy: Vec<u8>,
    /// The radio head.
    pub gateway: GatewayEui,
    /// The head's radio session: its `tmst` means something only within it (a restart of the head
    /// or of this program begins another).
    pub session: u64,
    /// Hertz.
    pub frequency: u32,
    /// How it was modulated.
    pub modulation: Modulation,
    /// dBm.
    pub rssi: i32,
    /// dB.
    pub snr: f64,
    /// The head's counter at the end of the frame.
    pub tmst: Count,
    /// The host's instant nearest to the end of the frame.
    pub at: Instant,
    /// Wall time of arrival.
    pub time: Timestamp,
    /// Degrees latitude, longitude of the head, where known.
    pub location: Option<(f64, f64)>,
}

/// A class A transmission at an exact count of one radio head.
#[derive(Debug, Clone, PartialEq)]
pub struct Tx {
    /// The radio head.
    pub gateway: GatewayEui,
    /// The radio session whose counter `at` belongs to.
    pub session: u64,
    /// The frame.
    pub phy: Vec<u8>,
    /// Hertz.
    pub frequency: u32,
    /// How to modulate it.
    pub modulation: Modulation,
    /// EIRP, dBm.
    pub power: i8,
    /// When it starts, on the head's counter.
    pub at: Count,
    /// The same moment on the host's clock.
    pub start: Instant,
}

/// The radio took the frame (it is queued there, not radiated yet).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// EIRP that will be used, dBm, where the head said so.
    pub power: Option<i8>,
}

/// Why a radio head did not take a frame. Names of the packet forwarder's TX_ACK where it has them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AirError {
    /// Too late for the slot: another window may do.
    #[error("TOO_LATE")]
    TooLate,
    /// Too far ahead.
    #[error("TOO_EARLY")]
    TooEarly,
    /// The slot is taken by another frame: another window may do.
    #[error("COLLISION_PACKET")]
    CollisionPacket,
    /// The slot is taken by a beacon.
    #[error("COLLISION_BEACON")]
    CollisionBeacon,
    /// The head cannot transmit at this frequency.
    #[error("TX_FREQ")]
    Frequency,
    /// The head cannot transmit with this power.
    #[error("TX_POWER")]
    Power,
    /// The head has no GPS time.
    #[error("GPS_UNLOCKED")]
    GpsUnlocked,
    /// The head is not connected, or was restarted since it heard the uplink.
    #[error("the radio head {0} is gone or was restarted")]
    Gone(GatewayEui),
    /// The head did not say in time whether it took the frame.
    #[error("no TX_ACK in time")]
    Silent,
}

/// The radio, as the fNS needs it.
pub trait Air: Send + Sync {
    /// Hand a frame to its radio head; answers when the head has taken or refused it.
    fn transmit(&self, tx: Tx, before: Deadline) -> Boxed<'_, Result<Sent, AirError>>;
    /// Radio heads online now.
    fn heads(&self) -> usize;
}

/// What the fNS keeps in the store: homes that it learnt from HomeNSAns.
pub trait Learned: Send + Sync {
    /// Every NetID learnt, for routing of data frames (TS002 3.2).
    fn net_ids(&self) -> Vec<NetId>;
    /// Remember one.
    fn learn(&self, net_id: NetId) -> Boxed<'_, Result<(), StoreError>>;
}
