//! What lies between the driver and the board: SPI transactions, I2C messages and waiting.
//!
//! Owns the trait [`Bus`] and its bodies: the wires of a board ([`Wires`], over embedded-hal), a recorder, a player of
//! recorded transcripts and the ring of the last events. The chip model is one more. Knows no register.

use embedded_hal::delay::DelayNs;
use embedded_hal::i2c::I2c;
use embedded_hal::spi::SpiDevice;

pub mod event;
#[cfg(all(feature = "linux", target_os = "linux"))]
pub mod linux;
pub mod recorder;
pub mod ring;
pub mod transcript;

pub use event::Event;
pub use recorder::Recorder;
pub use ring::Ring;
pub use transcript::Transcript;

/// Who is selected for an SPI transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// The concentrator and, behind its first byte, the two radios.
    Concentrator,
    /// The extra SX1261 for listen-before-talk and spectral scan, on a chip select of its own.
    Sx1261,
}

/// Why a transaction did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// The SPI controller refused or failed.
    #[error("SPI: {0}")]
    Spi(String),
    /// Nobody answers at this I2C address, or the controller failed.
    #[error("I2C address {address:#04x}: {reason}")]
    I2c {
        /// Seven bits.
        address: u8,
        /// In the controller's words.
        reason: String,
    },
    /// The board has no such bus.
    #[error("the board has no {0}")]
    Absent(&'static str),
    /// A transaction that moves nothing is a mistake of the caller.
    #[error("a burst of no bytes")]
    Empty,
    /// A transcript holds something else at this place.
    #[error("the transcript differs at event {at}: expected {expected}, the driver did {found}")]
    Differs {
        /// Counted from 0.
        at: usize,
        /// What was recorded.
        expected: String,
        /// What the driver did.
        found: String,
    },
}

/// The driver's way to the board.
pub trait Bus {
    /// One SPI transaction, one chip select: `bytes` go out and are replaced by what came in meanwhile.
    fn transfer(&mut self, device: Device, bytes: &mut [u8]) -> Result<(), BusError>;
    /// One I2C message to the board.
    fn i2c_write(&mut self, address: u8, bytes: &[u8]) -> Result<(), BusError>;
    /// One I2C message from the board.
    fn i2c_read(&mut self, address: u8, into: &mut [u8]) -> Result<(), BusError>;
    /// Sleeps at least so long.
    fn wait_us(&mut self, us: u32);
}

impl<B: Bus + ?Sized> Bus for &mut B {
    fn transfer(&mut self, device: Device, bytes: &mut [u8]) -> Result<(), BusError> {
        (**self).transfer(device, bytes)
    }
    fn i2c_write(&mut self, address: u8, bytes: &[u8]) -> Result<(), BusError> {
        (**self).i2c_write(address, bytes)
    }
    fn i2c_read(&mut self, address: u8, into: &mut [u8]) -> Result<(), BusError> {
        (**self).i2c_read(address, into)
    }
    fn wait_us(&mut self, us: u32) {
        (**self).wait_us(us);
    }
}

impl<B: Bus + ?Sized> Bus for Box<B> {
    fn transfer(&mut self, device: Device, bytes: &mut [u8]) -> Result<(), BusError> {
        (**self).transfer(device, bytes)
    }
    fn i2c_write(&mut self, address: u8, bytes: &[u8]) -> Result<(), BusError> {
        (**self).i2c_write(address, bytes)
    }
    fn i2c_read(&mut self, address: u8, into: &mut [u8]) -> Result<(), BusError> {
        (**self).i2c_read(address, into)
    }
    fn wait_us(&mut self, us: u32) {
        (**self).wait_us(us);
    }
}

/// A board wired to anything that speaks embedded-hal: mode 0, most significant bit first, at most 2 MHz.
#[derive(Debug)]
pub struct Wires<S, I, D> {
    /// Chip select of the concentrator.
    pub concentrator: S,
    /// Chip select of the SX1261, where there is one.
    pub sx1261: Option<S>,
    /// The bus of temperature sensor and DAC, where there is one.
    pub i2c: Option<I>,
    /// How to sleep.
    pub delay: D,
}

impl<S: SpiDevice, I: I2c, D: DelayNs> Bus for Wires<S, I, D> {
    fn transfer(&mut self, device: Device, bytes: &mut [u8]) -> Result<(), BusError> {
        let spi = match device {
            Device::Concentrator => &mut self.concentrator,
            Device::Sx1261 => self.sx1261.as_mut().ok_or(BusError::Absent("SX1261"))?,
        };
        spi.transfer_in_place(bytes).map_err(|error| BusError::Spi(format!("{error:?}")))
    }

    fn i2c_write(&mut self, address: u8, bytes: &[u8]) -> Result<(), BusError> {
        let i2c = self.i2c.as_mut().ok_or(BusError::Absent("I2C bus"))?;
        i2c.write(address, bytes).map_err(|error| BusError::I2c { address, reason: format!("{error:?}") })
    }

    fn i2c_read(&mut self, address: u8, into: &mut [u8]) -> Result<(), BusError> {
        let i2c = self.i2c.as_mut().ok_or(BusError::Absent("I2C bus"))?;
        i2c.read(address, into).map_err(|error| BusError::I2c { address, reason: format!("{error:?}") })
    }

    fn wait_us(&mut self, us: u32) {
        self.delay.delay_us(us);
    }
}
