//! One thing that happened on the bus, and its line in a transcript.
//!
//! A transcript is JSON lines, as other tools for this chip write them: `{"n":17,"dev":"spidev0.0","tx":"…","rx":"…"}`,
//! `{"n":18,"dev":"i2c-1","i2c":"0x39","wr":"…"}` (or `"rd"`, or `"nack":true`), `{"wait_us":500000}` and
//! `{"step":"4:receive"}`.

use std::fmt;

use super::Device;

/// A transaction, a message, a wait or a mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An SPI transaction; both directions have the same length.
    Spi {
        /// Who was selected.
        device: Device,
        /// Bytes sent.
        tx: Vec<u8>,
        /// Bytes that came in; empty where they were not kept.
        rx: Vec<u8>,
    },
    /// A message to an I2C device.
    I2cWrite {
        /// Seven bits.
        address: u8,
        /// What was sent.
        bytes: Vec<u8>,
        /// Whether it was acknowledged.
        acked: bool,
    },
    /// A message from an I2C device.
    I2cRead {
        /// Seven bits.
        address: u8,
        /// What came.
        bytes: Vec<u8>,
        /// Whether it was acknowledged.
        acked: bool,
    },
    /// The program slept.
    Wait(u32),
    /// A mark of whoever recorded.
    Step(String),
}

impl Event {
    /// Whether it moved bytes.
    pub fn is_transaction(&self) -> bool {
        !matches!(self, Event::Wait(_) | Event::Step(_))
    }

    /// Its line in a transcript; `n` counts the transactions before it.
    pub fn line(&self, n: usize) -> String {
        let i2c = |address: &u8, way: &str, bytes: &[u8], acked: &bool| {
            let nack = if *acked { "" } else { ",\"nack\":true" };
            format!(
                "{{\"n\":{n},\"dev\":\"i2c-1\",\"i2c\":\"{address:#04x}\",\"{way}\":\"{}\"{nack}}}",
                Hex(bytes)
            )
        };
        match self {
            Event::Spi { device, tx, rx } => {
                let device = match device {
                    Device::Concentrator => "spidev0.0",
                    Device::Sx1261 => "spidev0.1",
                };
                format!("{{\"n\":{n},\"dev\":\"{device}\",\"tx\":\"{}\",\"rx\":\"{}\"}}", Hex(tx), Hex(rx))
            }
            Event::I2cWrite { address, bytes, acked } => i2c(address, "wr", bytes, acked),
            Event::I2cRead { address, bytes, acked } => i2c(address, "rd", bytes, acked),
            Event::Wait(us) => format!("{{\"wait_us\":{us}}}"),
            Event::Step(name) => {
                let name: String = name.chars().filter(|c| !c.is_control() && !"\"\\".contains(*c)).collect();
                format!("{{\"step\":\"{name}\"}}")
            }
        }
    }

    /// Reads one line. `None` for device handling and whatever else is no event of the bus.
    pub fn parse(line: &str) -> Option<Event> {
        if let Some(name) = text(line, "step") {
            return Some(Event::Step(name.to_owned()));
        }
        if let Some((_, rest)) = line.split_once("\"wait_us\":") {
            let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
            return digits.parse().ok().map(Event::Wait);
        }
        if let Some(address) = text(line, "i2c") {
            let address = u8::from_str_radix(address.strip_prefix("0x")?, 16).ok()?;
            let acked = !line.contains("\"nack\":true");
            return if let Some(bytes) = text(line, "wr") {
                Some(Event::I2cWrite { address, bytes: unhex(bytes)?, acked })
            } else {
                Some(Event::I2cRead { address, bytes: unhex(text(line, "rd").unwrap_or(""))?, acked })
            };
        }
        let tx = unhex(text(line, "tx")?)?;
        let rx = unhex(text(line, "rx").unwrap_or(""))?;
        let device = if text(line, "dev")?.ends_with(".0") { Device::Concentrator } else { Device::Sx1261 };
        (rx.is_empty() || rx.len() == tx.len()).then_some(Event::Spi { device, tx, rx })
    }
}

/// For people: short enough to stand in an error message.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |f: &mut fmt::Formatter<'_>, bytes: &[u8]| match bytes.get(..20) {
            Some(first) if bytes.len() > 20 => write!(f, "{}… ({} bytes)", Hex(first), bytes.len()),
            _ => write!(f, "{}", Hex(bytes)),
        };
        match self {
            Event::Spi { device, tx, rx } => {
                let device = match device {
                    Device::Concentrator => "spi",
                    Device::Sx1261 => "spi SX1261",
                };
                write!(f, "{device} out ")?;
                short(f, tx)?;
                f.write_str(" in ")?;
                short(f, rx)
            }
            Event::I2cWrite { address, bytes, acked } => {
                write!(
                    f,
                    "i2c {address:#04x} write {}{}",
                    Hex(bytes),
                    if *acked { "" } else { " (no answer)" }
                )
            }
            Event::I2cRead { address, bytes, acked } => {
                write!(
                    f,
                    "i2c {address:#04x} read {}{}",
                    Hex(bytes),
                    if *acked { "" } else { " (no answer)" }
                )
            }
            Event::Wait(us) => write!(f, "wait {us} us"),
            Event::Step(name) => write!(f, "step {name}"),
        }
    }
}

/// Bytes as lower-case hexadecimal digits.
pub struct Hex<'a>(
    /// What is shown.
    pub &'a [u8],
);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Hexadecimal digits as bytes; `None` where they are none.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let nibble = |digit: u8| (digit as char).to_digit(16).unwrap_or(0) as u8;
    Some(digits.chunks_exact(2).map(|pair| nibble(pair[0]) << 4 | nibble(pair[1])).collect())
}

/// The value of a text member. The lines hold no escapes.
fn text<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(&format!("\"{name}\":"))?;
    let (value, _) = rest.trim_start().strip_prefix('"')?.split_once('"')?;
    Some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event() -> impl Strategy<Value = Event> {
        let bytes = || proptest::collection::vec(any::<u8>(), 1..40);
        prop_oneof![
            (any::<bool>(), bytes(), bytes()).prop_map(|(a, tx, mut rx)| {
                rx.resize(tx.len(), 0);
                Event::Spi { device: if a { Device::Concentrator } else { Device::Sx1261 }, tx, rx }
            }),
            (0..128u8, bytes(), any::<bool>()).prop_map(|(address, bytes, acked)| Event::I2cWrite {
                address,
                bytes,
                acked
            }),
            (0..128u8, bytes(), any::<bool>()).prop_map(|(address, bytes, acked)| Event::I2cRead {
                address,
                bytes,
                acked
            }),
            any::<u32>().prop_map(Event::Wait),
            "[a-z0-9:]{1,12}".prop_map(Event::Step),
        ]
    }

    proptest! {
        #[test]
        fn a_line_is_read_as_the_event_that_wrote_it(event in event(), n in 0..100_000usize) {
            prop_assert_eq!(Event::parse(&event.line(n)), Some(event));
        }

        #[test]
        fn foreign_lines_are_no_trouble(line in "\\PC{0,80}") {
            let _ = Event::parse(&line);
        }

        #[test]
        fn nearly_right_lines_are_no_trouble(event in event(), cut in 0..200usize, junk in "[\"{}:,0-9a-z]{0,5}") {
            let mut line = event.line(1);
            let cut = cut.min(line.len());
            if line.is_char_boundary(cut) {
                line.replace_range(cut.., &junk);
            }
            let _ = Event::parse(&line);
        }
    }
}
