//! Plays a recorded transcript to a driver: every transaction must be the recorded one, and is answered as recorded.

use super::{Bus, BusError, Device, Event};

/// A bus that only repeats.
#[derive(Debug)]
pub struct Transcript {
    events: Vec<Event>,
    at: usize,
    waited_us: u64,
}

impl Transcript {
    /// Waits and marks are not compared: a driver may wait longer, or otherwise.
    pub fn new(events: impl IntoIterator<Item = Event>) -> Transcript {
        Transcript { events: events.into_iter().filter(Event::is_transaction).collect(), at: 0, waited_us: 0 }
    }

    /// From pairs of bytes sent and received by the concentrator.
    pub fn of_pairs<'a>(pairs: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Transcript {
        let spi = |(tx, rx): (&[u8], &[u8])| Event::Spi {
            device: Device::Concentrator,
            tx: tx.to_vec(),
            rx: rx.to_vec(),
        };
        Transcript::new(pairs.into_iter().map(spi))
    }

    /// From the lines of a recorder.
    pub fn of_lines<'a>(lines: impl IntoIterator<Item = &'a str>) -> Transcript {
        Transcript::new(lines.into_iter().filter_map(Event::parse))
    }

    /// How many transactions have not been asked for.
    pub fn left(&self) -> usize {
        self.events.len() - self.at
    }

    /// How long the driver has slept.
    pub fn waited_us(&self) -> u64 {
        self.waited_us
    }

    fn next(&mut self, found: &Event, same: impl Fn(&Event) -> bool) -> Result<Event, BusError> {
        let at = self.at;
        match self.events.get(at) {
            Some(event) if same(event) => {
                self.at += 1;
                Ok(event.clone())
            }
            other => Err(BusError::Differs {
                at,
                expected: other.map_or_else(|| "the end".to_owned(), Event::to_string),
                found: found.to_string(),
            }),
        }
    }
}

impl Bus for Transcript {
    fn transfer(&mut self, device: Device, bytes: &mut [u8]) -> Result<(), BusError> {
        let found = Event::Spi { device, tx: bytes.to_vec(), rx: Vec::new() };
        let event = self.next(
            &found,
            |event| matches!(event, Event::Spi { device: d, tx, .. } if *d == device && *tx == bytes),
        )?;
        if let Event::Spi { rx, .. } = event {
            for (to, from) in bytes.iter_mut().zip(rx.iter().chain(std::iter::repeat(&0))) {
                *to = *from;
            }
        }
        Ok(())
    }

    fn i2c_write(&mut self, address: u8, bytes: &[u8]) -> Result<(), BusError> {
        let found = Event::I2cWrite { address, bytes: bytes.to_vec(), acked: true };
        let same = |event: &Event| matches!(event, Event::I2cWrite { address: a, bytes: b, .. } if *a == address && *b == bytes);
        match self.next(&found, same)? {
            Event::I2cWrite { acked: false, .. } => {
                Err(BusError::I2c { address, reason: "no answer".into() })
            }
            _ => Ok(()),
        }
    }

    fn i2c_read(&mut self, address: u8, into: &mut [u8]) -> Result<(), BusError> {
        let found = Event::I2cRead { address, bytes: into.to_vec(), acked: true };
        let same = |event: &Event| matches!(event, Event::I2cRead { address: a, .. } if *a == address);
        match self.next(&found, same)? {
            Event::I2cRead { acked: true, bytes, .. } => {
                into.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
                Ok(())
            }
            _ => Err(BusError::I2c { address, reason: "no answer".into() }),
        }
    }

    fn wait_us(&mut self, us: u32) {
        self.waited_us += u64::from(us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_is_answered_and_anything_else_is_refused() {
        let lines = [
            "{\"open\":\"spidev0.0\"}",
            "{\"n\":0,\"dev\":\"spidev0.0\",\"tx\":\"0056060000\",\"rx\":\"0000000010\"}",
            "{\"wait_us\":1000}",
            "{\"n\":1,\"dev\":\"i2c-1\",\"i2c\":\"0x39\",\"wr\":\"fd\",\"nack\":true}",
        ];
        let mut bus = Transcript::of_lines(lines);
        let mut bytes = [0x00, 0x56, 0x06, 0, 0];
        bus.transfer(Device::Concentrator, &mut bytes).unwrap();
        assert_eq!(bytes, [0, 0, 0, 0, 0x10]);
        assert_eq!(
            bus.i2c_write(0x39, &[0xfd]),
            Err(BusError::I2c { address: 0x39, reason: "no answer".into() })
        );
        assert!(matches!(
            bus.transfer(Device::Concentrator, &mut bytes),
            Err(BusError::Differs { at: 2, .. })
        ));
    }
}
