//! Access to registers, memories and radios, one transaction each.
//!
//! Owns the shape of the transactions and the shadow copies of configuration registers: the first change inside a block
//! reads the block in one burst, later ones read nothing. What the chip changes by itself is always read.

use crate::bus::{Bus, BusError, Device, Event, Ring};
use crate::config::Chain;
use crate::registers::{self, Field};

/// Longest burst; longer blocks are cut.
pub const LONGEST_BURST: usize = 1024;
/// First address of the shadow.
const LOW: u16 = 0x5200;
/// First address behind it.
const HIGH: u16 = 0x6200;
/// An SX1250 or SX1261 shows BUSY on a line that the host does not see: so long it may take.
pub const COMMAND_GAP_US: u32 = 1000;

/// The concentrator behind a bus.
#[derive(Debug)]
pub struct Chip<B> {
    bus: Ring<B>,
    shadow: Vec<Option<u8>>,
    slept_us: u64,
}

impl<B: Bus> Chip<B> {
    /// Nothing is known of the chip.
    pub fn new(bus: B) -> Chip<B> {
        let shadow = vec![None; usize::from(HIGH - LOW)];
        Chip { bus: Ring::new(bus), shadow, slept_us: 0 }
    }

    /// The bus behind.
    pub fn bus_mut(&mut self) -> &mut B {
        self.bus.inner_mut()
    }

    /// The bus behind; the driver's knowledge is gone.
    pub fn into_bus(self) -> B {
        self.bus.into_inner()
    }

    /// The last events of the bus.
    pub fn trail(&self) -> Vec<Event> {
        self.bus.last()
    }

    /// How long the driver slept, altogether.
    pub fn slept_us(&self) -> u64 {
        self.slept_us
    }

    /// Forgets what is known of the registers, after a reset for example.
    pub fn forget(&mut self) {
        self.shadow.fill(None);
    }

    /// Sleeps.
    pub fn wait_us(&mut self, us: u32) {
        if us > 0 {
            self.slept_us += u64::from(us);
            self.bus.wait_us(us);
        }
    }

    fn known(&mut self, address: u16) -> Option<&mut Option<u8>> {
        self.shadow.get_mut(usize::from(address.checked_sub(LOW)?))
    }

    /// Reads one byte.
    pub fn read(&mut self, address: u16) -> Result<u8, BusError> {
        let [high, low] = address.to_be_bytes();
        let mut bytes = [0, high & 0x7f, low, 0, 0];
        self.bus.transfer(Device::Concentrator, &mut bytes)?;
        Ok(bytes[4])
    }

    /// Reads a block, cut into bursts; the receive buffer is the one address that does not advance.
    pub fn read_block(&mut self, address: u16, into: &mut [u8]) -> Result<(), BusError> {
        if into.is_empty() {
            return Err(BusError::Empty);
        }
        let mut at = address;
        for chunk in into.chunks_mut(LONGEST_BURST) {
            let [high, low] = at.to_be_bytes();
            let mut bytes = vec![0; chunk.len() + 4];
            bytes[1] = high & 0x7f;
            bytes[2] = low;
            self.bus.transfer(Device::Concentrator, &mut bytes)?;
            chunk.copy_from_slice(&bytes[4..]);
            if address != registers::RX_FIFO {
                at += chunk.len() as u16;
            }
        }
        Ok(())
    }

    /// Writes a block, cut into bursts.
    pub fn write_block(&mut self, address: u16, data: &[u8]) -> Result<(), BusError> {
        if data.is_empty() {
            return Err(BusError::Empty);
        }
        let mut at = address;
        for chunk in data.chunks(LONGEST_BURST) {
            let [high, low] = at.to_be_bytes();
            let mut bytes = Vec::with_capacity(chunk.len() + 3);
            bytes.extend([0, 0x80 | high, low]);
            bytes.extend(chunk);
            self.bus.transfer(Device::Concentrator, &mut bytes)?;
            for (address, byte) in (at..).zip(chunk) {
                if let Some(known) = self.known(address) {
                    *known = Some(*byte);
                }
            }
            at += chunk.len() as u16;
        }
        Ok(())
    }

    /// Writes one byte.
    pub fn write(&mut self, address: u16, value: u8) -> Result<(), BusError> {
        self.write_block(address, &[value])
    }

    /// Reads a field from the chip.
    pub fn get(&mut self, field: Field) -> Result<i32, BusError> {
        Ok(field.extract(self.read(field.address)?))
    }

    /// Sets a field. A whole byte is written as it is; of a narrower one the neighbours are kept, and nothing is sent
    /// where it holds the value already.
    pub fn set(&mut self, field: Field, value: i32) -> Result<(), BusError> {
        if field.is_whole() {
            return self.write(field.address, value as u8);
        }
        let volatile = registers::is_volatile(field.address);
        let old = if volatile { self.read(field.address)? } else { self.current(field.address)? };
        let new = field.insert(old, value);
        if new == old && !volatile {
            return Ok(());
        }
        self.write(field.address, new)
    }

    /// A configuration byte from the shadow; its block is read first where nothing is known yet.
    fn current(&mut self, address: u16) -> Result<u8, BusError> {
        if let Some(Some(byte)) = self.known(address) {
            return Ok(*byte);
        }
        let block = registers::BLOCKS.iter().find(|(first, last)| (*first..=*last).contains(&address));
        let (first, last) = block.copied().unwrap_or((address, address));
        let mut bytes = vec![0; usize::from(last - first) + 1];
        if bytes.len() == 1 {
            bytes[0] = self.read(address)?;
        } else {
            self.read_block(first, &mut bytes)?;
        }
        let mut current = 0;
        for (at, byte) in (first..).zip(bytes) {
            if at == address {
                current = byte;
            }
            // What was written since the start is known better than a read that came before.
            if let Some(known @ None) = self.known(at) {
                *known = Some(byte);
            }
        }
        Ok(current)
    }

    /// A transaction with a radio behind the concentrator: the bytes without the target byte, replaced by the reply to
    /// them (a reply to an SX1250 command starts at the second of these bytes).
    pub fn radio(&mut self, chain: Chain, bytes: &mut [u8]) -> Result<(), BusError> {
        let mut all = Vec::with_capacity(bytes.len() + 1);
        all.push(1 + chain as u8);
        all.extend_from_slice(bytes);
        self.bus.transfer(Device::Concentrator, &mut all)?;
        bytes.copy_from_slice(&all[1..]);
        Ok(())
    }

    /// A transaction with the SX1261.
    pub fn sx1261(&mut self, bytes: &mut [u8]) -> Result<(), BusError> {
        self.bus.transfer(Device::Sx1261, bytes)
    }

    /// A message to an I2C device.
    pub fn i2c_write(&mut self, address: u8, bytes: &[u8]) -> Result<(), BusError> {
        self.bus.i2c_write(address, bytes)
    }

    /// A message from an I2C device.
    pub fn i2c_read(&mut self, address: u8, into: &mut [u8]) -> Result<(), BusError> {
        self.bus.i2c_read(address, into)
    }

    /// A one-byte register of an I2C device.
    pub fn i2c_register(&mut self, address: u8, register: u8) -> Result<u8, BusError> {
        self.bus.i2c_write(address, &[register])?;
        let mut byte = [0];
        self.bus.i2c_read(address, &mut byte)?;
        Ok(byte[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Transcript;
    use crate::registers::*;

    #[test]
    fn nobody_on_the_wire_reads_as_ones() {
        let bus = Transcript::of_pairs([(&[0u8, 0x56, 0x06, 0, 0][..], &[0xffu8; 5][..])]);
        assert_eq!(Chip::new(bus).get(COMMON_VERSION_VERSION), Ok(0xff));
    }

    #[test]
    fn a_narrow_field_keeps_its_neighbours_and_reads_their_block_once() {
        let block = [0u8, 0x56, 0x00, 0, 0, 0, 0, 0, 0, 0];
        let bus = Transcript::of_pairs([
            (&block[..], &[0u8, 0, 0, 0, 0, 0x0b, 0, 0, 0, 0][..]),
            (&[0, 0xd6, 0x01, 0x03], &[0; 4]),
            (&[0, 0xd6, 0x01, 0x13], &[0; 4]),
        ]);
        let mut chip = Chip::new(bus);
        chip.set(COMMON_CTRL0_HOST_RADIO_CTRL, 0).unwrap();
        chip.set(COMMON_CTRL0_HOST_RADIO_CTRL, 0).unwrap();
        chip.set(COMMON_CTRL0_CLK32_RIF_CTRL, 1).unwrap();
        assert_eq!(chip.bus_mut().left(), 0);
    }

    #[test]
    fn what_the_chip_changes_itself_is_read_each_time() {
        let read: (&[u8], &[u8]) = (&[0, 0x57, 0x80, 0, 0], &[0, 0, 0, 0, 0x14]);
        let bus = Transcript::of_pairs([
            read,
            (&[0, 0xd7, 0x80, 0x1c], &[0; 4]),
            read,
            (&[0, 0xd7, 0x80, 0x10], &[0; 4]),
        ]);
        let mut chip = Chip::new(bus);
        chip.set(AGC_MCU_CTRL_FORCE_HOST_FE_CTRL, 1).unwrap();
        chip.set(AGC_MCU_CTRL_MCU_CLEAR, 0).unwrap();
        assert_eq!(chip.bus_mut().left(), 0);
    }

    #[test]
    fn the_receive_buffer_does_not_advance_and_memory_does() {
        let mut chip = Chip::new(crate::bus::Recorder::new(crate::model::Model::new()));
        let mut bytes = [0; 1500];
        chip.read_block(RX_FIFO, &mut bytes).unwrap();
        chip.read_block(ARB_MEMORY, &mut bytes).unwrap();
        let sent: Vec<Vec<u8>> = chip
            .bus_mut()
            .events()
            .iter()
            .map(|event| match event {
                Event::Spi { tx, .. } => tx[..3].to_vec(),
                _ => Vec::new(),
            })
            .collect();
        assert_eq!(sent, [[0, 0x40, 0], [0, 0x40, 0], [0, 0x20, 0], [0, 0x24, 0]]);
        assert_eq!(chip.read_block(RX_FIFO, &mut []), Err(BusError::Empty));
    }
}
