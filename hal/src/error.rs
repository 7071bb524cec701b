//! What can go wrong, and what happened on the bus just before.

use std::fmt;

use crate::bus::{BusError, Event};
use crate::config::{Chain, ConfigError};
use crate::firmware::{FirmwareError, Image};

/// Why something did not succeed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Cause {
    /// The board did not carry a transaction.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// What was asked for is not possible at all.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An image is missing or no firmware.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// The version register reads as an empty bus does.
    #[error("no concentrator answers (version reads {0:#04x}): check power, reset line and SPI device")]
    NoChip(u8),
    /// Something must be started first, or stopped.
    #[error("{0}")]
    State(&'static str),
    /// A wait that did not end.
    #[error("{what} within {limit_us} us: last seen {last:#04x}")]
    TimeOut {
        /// What did not happen.
        what: &'static str,
        /// How long was waited.
        limit_us: u32,
        /// The value last read.
        last: u8,
    },
    /// A value read once was not the one that must stand there.
    #[error("{what}: {found:#04x} instead of {expected:#04x}")]
    Unexpected {
        /// What was read.
        what: &'static str,
        /// What must stand there.
        expected: u8,
        /// What stood there.
        found: u8,
    },
    /// The program memory does not hold what was written.
    #[error("the {image} does not read back as written from byte {at}: check the SPI wiring and its speed")]
    ReadBack {
        /// Which image.
        image: Image,
        /// First byte that differs.
        at: usize,
    },
    /// A processor runs another firmware than the driver speaks with.
    #[error("the {image} is version {found}, wanted is {wanted}")]
    FirmwareVersion {
        /// Which image.
        image: Image,
        /// What the driver was made for.
        wanted: u8,
        /// What runs.
        found: u8,
    },
    /// A processor stopped at a broken instruction.
    #[error("the {0} reports a parity error")]
    Parity(Image),
    /// Radio centre outside the bands in which the image can be calibrated.
    #[error("radio {chain}: no image calibration at {freq_hz} Hz")]
    NoImageBand {
        /// Which radio.
        chain: Chain,
        /// Its centre.
        freq_hz: u32,
    },
    /// Calibration of an SX1255/SX1257 gave no acceptable runs.
    #[error("radio {chain}: {what} calibration was not acceptable: {detail}")]
    Calibration {
        /// Which radio.
        chain: Chain,
        /// Which of the two.
        what: &'static str,
        /// The figures.
        detail: String,
    },
    /// The channel was busy.
    #[error("listen before talk: the channel was busy")]
    Busy,
    /// Fine time stamps need an SX1303.
    #[error("fine time stamps need an SX1303; the chip's model is {0:#04x}")]
    NotAnSx1303(u8),
}

/// A [`Cause`] with the last events of the bus.
#[derive(Debug, Clone, PartialEq)]
pub struct Error {
    /// Why.
    pub cause: Cause,
    /// The last events, oldest first.
    pub trail: Vec<Event>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.cause)?;
        if !self.trail.is_empty() {
            write!(f, "\nlast on the bus:")?;
            self.trail.iter().try_for_each(|event| write!(f, "\n  {event}"))?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}
