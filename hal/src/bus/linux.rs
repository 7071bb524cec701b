//! The buses and lines of a Linux board: spidev, i2c-dev and the GPIO character device, as embedded-hal devices.
//!
//! Owns nothing of the chip. No unsafe code: the three crates hide their ioctls.

use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use embedded_hal::delay::DelayNs;
use embedded_hal::i2c::{self, I2c};
use embedded_hal::spi::{self, SpiDevice};
use gpio_cdev::{Chip, LineHandle, LineRequestFlags};
use i2cdev::core::I2CDevice;
use i2cdev::linux::LinuxI2CDevice;
use spidev::{SpiModeFlags, Spidev, SpidevOptions, SpidevTransfer};

use super::Wires;

/// What the concentrator is used with.
pub const SPEED_HZ: u32 = 2_000_000;

/// An SPI device node.
#[derive(Debug)]
pub struct Spi(Spidev);

impl Spi {
    /// Opens `/dev/spidevX.Y` in mode 0 with at most `speed_hz`.
    pub fn open(path: impl AsRef<Path>, speed_hz: u32) -> io::Result<Spi> {
        let mut device = Spidev::open(path)?;
        let options = SpidevOptions::new()
            .mode(SpiModeFlags::SPI_MODE_0)
            .max_speed_hz(speed_hz)
            .lsb_first(false)
            .bits_per_word(8)
            .build();
        device.configure(&options)?;
        Ok(Spi(device))
    }
}

/// What the kernel said.
#[derive(Debug)]
pub struct SpiError(
    /// As it came.
    pub io::Error,
);

impl spi::Error for SpiError {
    fn kind(&self) -> spi::ErrorKind {
        spi::ErrorKind::Other
    }
}

impl spi::ErrorType for Spi {
    type Error = SpiError;
}

impl SpiDevice for Spi {
    fn transaction(&mut self, operations: &mut [spi::Operation<'_, u8>]) -> Result<(), SpiError> {
        // The kernel sends from one buffer while it fills another.
        let sent: Vec<Vec<u8>> = operations
            .iter()
            .map(|operation| match operation {
                spi::Operation::TransferInPlace(bytes) => bytes.to_vec(),
                _ => Vec::new(),
            })
            .collect();
        let mut transfers = Vec::with_capacity(operations.len());
        for (operation, sent) in operations.iter_mut().zip(&sent) {
            transfers.push(match operation {
                spi::Operation::Read(into) => SpidevTransfer::read(into),
                spi::Operation::Write(bytes) => SpidevTransfer::write(bytes),
                spi::Operation::Transfer(into, bytes) if into.len() == bytes.len() => {
                    SpidevTransfer::read_write(bytes, into)
                }
                spi::Operation::Transfer(..) => {
                    let uneven =
                        io::Error::new(io::ErrorKind::InvalidInput, "directions of different length");
                    return Err(SpiError(uneven));
                }
                spi::Operation::TransferInPlace(into) => SpidevTransfer::read_write(sent, into),
                spi::Operation::DelayNs(ns) => SpidevTransfer::delay((*ns).div_ceil(1000).min(65_535) as u16),
            });
        }
        self.0.transfer_multiple(&mut transfers).map_err(SpiError)
    }
}

/// An I2C bus.
#[derive(Debug)]
pub struct I2cBus {
    path: std::path::PathBuf,
}

impl I2cBus {
    /// `/dev/i2c-X`; it is opened for each message.
    pub fn new(path: impl AsRef<Path>) -> I2cBus {
        I2cBus { path: path.as_ref().to_owned() }
    }
}

/// What the kernel said.
#[derive(Debug)]
pub struct I2cError(
    /// As it came.
    pub String,
);

impl i2c::Error for I2cError {
    fn kind(&self) -> i2c::ErrorKind {
        i2c::ErrorKind::Other
    }
}

impl i2c::ErrorType for I2cBus {
    type Error = I2cError;
}

impl I2c for I2cBus {
    fn transaction(&mut self, address: u8, operations: &mut [i2c::Operation<'_>]) -> Result<(), I2cError> {
        let mut device =
            LinuxI2CDevice::new(&self.path, address.into()).map_err(|error| I2cError(error.to_string()))?;
        for operation in operations {
            let done = match operation {
                i2c::Operation::Read(into) => device.read(into),
                i2c::Operation::Write(bytes) => device.write(bytes),
            };
            done.map_err(|error| I2cError(error.to_string()))?;
        }
        Ok(())
    }
}

/// Sleeps as the system can: at least so long.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sleep;

impl DelayNs for Sleep {
    fn delay_ns(&mut self, ns: u32) {
        thread::sleep(Duration::from_nanos(ns.into()));
    }

    fn delay_us(&mut self, us: u32) {
        thread::sleep(Duration::from_micros(us.into()));
    }
}

/// The wires of a Linux board.
pub type LinuxWires = Wires<Spi, I2cBus, Sleep>;

/// Opens what a board has.
pub fn open(
    spi: impl AsRef<Path>,
    sx1261: Option<&Path>,
    i2c: Option<&Path>,
    speed_hz: u32,
) -> io::Result<LinuxWires> {
    Ok(Wires {
        concentrator: Spi::open(spi, speed_hz)?,
        sx1261: sx1261.map(|path| Spi::open(path, speed_hz)).transpose()?,
        i2c: i2c.map(I2cBus::new),
        delay: Sleep,
    })
}

/// A line of a GPIO chip, as an output.
#[derive(Debug)]
pub struct Line(LineHandle);

impl Line {
    /// Takes a line, which keeps this level until it is set.
    pub fn take(chip: impl AsRef<Path>, line: u32, level: bool) -> Result<Line, gpio_cdev::Error> {
        let line = Chip::new(chip)?.get_line(line)?;
        Ok(Line(line.request(LineRequestFlags::OUTPUT, u8::from(level), "sx1302")?))
    }
}

impl embedded_hal::digital::ErrorType for Line {
    type Error = LineError;
}

/// What the kernel said.
#[derive(Debug)]
pub struct LineError(
    /// As it came.
    pub gpio_cdev::Error,
);

impl embedded_hal::digital::Error for LineError {
    fn kind(&self) -> embedded_hal::digital::ErrorKind {
        embedded_hal::digital::ErrorKind::Other
    }
}

impl embedded_hal::digital::OutputPin for Line {
    fn set_low(&mut self) -> Result<(), LineError> {
        self.0.set_value(0).map_err(LineError)
    }

    fn set_high(&mut self) -> Result<(), LineError> {
        self.0.set_value(1).map_err(LineError)
    }
}
