//! The last events of a bus: what an error message needs to be understood from afar.

use std::collections::VecDeque;

use super::{Bus, BusError, Device, Event};

/// So many events are kept.
pub const KEPT: usize = 32;
/// Of a longer transaction only the first bytes are kept.
const LONGEST: usize = 64;

/// A bus that remembers its last events.
#[derive(Debug)]
pub struct Ring<B> {
    inner: B,
    last: VecDeque<Event>,
}

impl<B> Ring<B> {
    /// Nothing has happened yet.
    pub fn new(inner: B) -> Ring<B> {
        Ring { inner, last: VecDeque::with_capacity(KEPT) }
    }

    /// The last events, oldest first.
    pub fn last(&self) -> Vec<Event> {
        self.last.iter().cloned().collect()
    }

    /// The bus behind.
    pub fn inner_mut(&mut self) -> &mut B {
        &mut self.inner
    }

    /// The bus behind, and the memory is gone.
    pub fn into_inner(self) -> B {
        self.inner
    }

    fn keep(&mut self, event: Event) {
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(event);
    }
}

impl<B: Bus> Bus for Ring<B> {
    fn transfer(&mut self, device: Device, bytes: &mut [u8]) -> Result<(), BusError> {
        let some = bytes.len().min(LONGEST);
        let tx = bytes[..some].to_vec();
        let done = self.inner.transfer(device, bytes);
        let rx = bytes[..some].to_vec();
        self.keep(Event::Spi { device, tx, rx });
        done
    }

    fn i2c_write(&mut self, address: u8, bytes: &[u8]) -> Result<(), BusError> {
        let done = self.inner.i2c_write(address, bytes);
        self.keep(Event::I2cWrite { address, bytes: bytes.to_vec(), acked: done.is_ok() });
        done
    }

    fn i2c_read(&mut self, address: u8, into: &mut [u8]) -> Result<(), BusError> {
        let done = self.inner.i2c_read(address, into);
        self.keep(Event::I2cRead { address, bytes: into.to_vec(), acked: done.is_ok() });
        done
    }

    fn wait_us(&mut self, us: u32) {
        self.inner.wait_us(us);
        self.keep(Event::Wait(us));
    }
}
