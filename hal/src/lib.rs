//! A driver for Semtech's SX1302 and SX1303 LoRa concentrators.
//!
//! It knows the chip and its radios and nothing of LoRaWAN; it has no runtime and no clock of its own. Whoever uses it
//! brings a [`bus::Bus`]: the wires of a Linux board, anything with embedded-hal traits, a recorded transcript, or the
//! [`model`] of the chip that lives here too.
//!
//! ```
//! use sx1302::{Concentrator, config::Config, firmware::Firmware, model::Model};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut radio = Concentrator::new(Model::new(), Config::example_eu868(), Firmware::synthetic())?;
//! radio.start()?;
//! assert!(radio.receive(16)?.packets.is_empty());
//! radio.stop()?;
//! # Ok(())
//! # }
//! ```
//!
//! | module | owns |
//! | --- | --- |
//! | [`concentrator`] | the driver as its user sees it: start, receive, send, status, stop |
//! | [`config`] | what can be configured, and what is refused |
//! | [`bus`] | SPI, I2C and waiting: trait, wires, recorder, transcript, ring of last events |
//! | [`registers`] | the register table as data |
//! | [`chip`] | register access with a shadow, the radios' own transactions |
//! | [`sequence`] | steps as data and their one executor, with a time-out in every wait |
//! | [`firmware`] | the images of the two processors: checks, text and binary form, synthetic ones |
//! | [`rx`], [`packet`] | the receive buffer, and what its numbers mean |
//! | [`counter`], [`stamp`] | the 32 MHz counters, and the moment of a packet |
//! | [`tx`], [`airtime`] | a transmission, and how long it takes |
//! | [`sx1250`], [`sx125x`], [`sx1261`] | the radios |
//! | [`sensor`] | temperature, and the DAC of full-duplex boards |
//! | [`gps`] | UBX and NMEA sentences, and counter against GPS time |
//! | [`board`] | boards by name: lines, offsets, gain tables |
//! | [`model`] | a register-level model of chip and board |

pub mod airtime;
pub mod board;
pub mod bus;
pub mod chip;
pub mod concentrator;
pub mod config;
pub mod counter;
pub mod error;
pub mod firmware;
pub mod gps;
mod mcu;
pub mod model;
pub mod packet;
pub mod registers;
pub mod rx;
pub mod sensor;
pub mod sequence;
pub mod stamp;
mod start;
pub mod sx1250;
pub mod sx125x;
pub mod sx1261;
pub mod tx;

pub use concentrator::Concentrator;
pub use error::{Cause, Error};
pub use start::drift;
