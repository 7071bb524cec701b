//! Writes down everything that passes, and passes it on.

use super::{Bus, BusError, Device, Event};

/// A bus that keeps what happened on the one behind it.
#[derive(Debug)]
pub struct Recorder<B> {
    inner: B,
    events: Vec<Event>,
}

impl<B> Recorder<B> {
    /// Nothing has happened yet.
    pub fn new(inner: B) -> Recorder<B> {
        Recorder { inner, events: Vec::new() }
    }

    /// Sets a mark.
    pub fn step(&mut self, name: impl Into<String>) {
        self.events.push(Event::Step(name.into()));
    }

    /// What happened so far.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The bus behind.
    pub fn inner_mut(&mut self) -> &mut B {
        &mut self.inner
    }

    /// The transcript, a line an event.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let mut n = 0;
        self.events.iter().map(move |event| {
            let line = event.line(n);
            n += usize::from(event.is_transaction());
            line
        })
    }
}

impl<B: Bus> Bus for Recorder<B> {
    fn transfer(&mut self, device: Device, bytes: &mut [u8]) -> Result<(), BusError> {
        let tx = bytes.to_vec();
        let done = self.inner.transfer(device, bytes);
        self.events.push(Event::Spi { device, tx, rx: bytes.to_vec() });
        done
    }

    fn i2c_write(&mut self, address: u8, bytes: &[u8]) -> Result<(), BusError> {
        let done = self.inner.i2c_write(address, bytes);
        self.events.push(Event::I2cWrite { address, bytes: bytes.to_vec(), acked: done.is_ok() });
        done
    }

    fn i2c_read(&mut self, address: u8, into: &mut [u8]) -> Result<(), BusError> {
        let done = self.inner.i2c_read(address, into);
        self.events.push(Event::I2cRead { address, bytes: into.to_vec(), acked: done.is_ok() });
        done
    }

    fn wait_us(&mut self, us: u32) {
        self.inner.wait_us(us);
        self.events.push(Event::Wait(us));
    }
}
