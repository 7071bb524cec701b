//! The registers of the SX1302 as data: one constant for each field of `registers.csv`, under the only public name it has.
//!
//! Owns addresses, widths and power-on values. Knows nothing of what a value means.

/// A field of at most eight bits; none crosses a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Field {
    /// Address of its byte, 15 bits.
    pub address: u16,
    /// Position of its lowest bit.
    pub shift: u8,
    /// Number of bits, 1 to 8.
    pub width: u8,
    /// Two's complement.
    pub signed: bool,
    /// Only the chip changes it.
    pub read_only: bool,
    /// Value at power-on.
    pub default: i16,
}

impl Field {
    /// A whole byte that has no name of its own.
    pub const fn byte(address: u16) -> Field {
        Field { address, shift: 0, width: 8, signed: false, read_only: false, default: 0 }
    }

    /// The same field of another instance, `offset` bytes further.
    pub const fn moved(self, offset: u16) -> Field {
        Field { address: self.address + offset, ..self }
    }

    /// Its bits inside the byte.
    pub const fn mask(self) -> u8 {
        (0xffu8 >> (8 - self.width)) << self.shift
    }

    /// Whether it fills its byte.
    pub const fn is_whole(self) -> bool {
        self.width == 8
    }

    /// `byte` with this field set to the low bits of `value`.
    pub const fn insert(self, byte: u8, value: i32) -> u8 {
        (byte & !self.mask()) | (((value as u8) << self.shift) & self.mask())
    }

    /// The field's value in `byte`.
    pub const fn extract(self, byte: u8) -> i32 {
        let raw = (byte & self.mask()) >> self.shift;
        if self.signed && raw >> (self.width - 1) & 1 == 1 {
            raw as i32 - (1 << self.width)
        } else {
            raw as i32
        }
    }
}

include!(concat!(env!("OUT_DIR"), "/registers.rs"));

/// A register of the transmitter of chain B lies so much further than that of chain A.
pub const TX_B: u16 = 0x200;
/// Where a correlator register of the next spreading factor lies.
pub const CORRELATOR_STEP: u16 = 7;
/// Start of the AGC program memory, 8192 bytes.
pub const AGC_MEMORY: u16 = 0x0000;
/// Start of the arbiter program memory, 8192 bytes.
pub const ARB_MEMORY: u16 = 0x2000;
/// The receive buffer: every read at this address takes bytes out.
pub const RX_FIFO: u16 = 0x4000;
/// Payload buffer of transmitter A.
pub const TX_A_PAYLOAD: u16 = 0x5300;

/// Blocks of configuration registers that are read in one burst before the first of their fields is changed.
/// Counters and buffers, which change while being read, are left out.
pub const BLOCKS: &[(u16, u16)] = &[
    (0x5200, 0x526e),
    (0x5400, 0x546e),
    (0x5600, 0x5605),
    (0x5640, 0x5652),
    (0x5700, 0x571c),
    (0x5780, 0x578c),
    (0x57c0, 0x57c0),
    (0x5800, 0x58c3),
    (0x5b00, 0x5b65),
    (0x6080, 0x60a0),
    (0x6100, 0x6100),
];

/// Bytes which the chip or its processors change behind the host's back: never taken from the shadow.
pub const fn is_volatile(address: u16) -> bool {
    matches!(address, 0x5780 | 0x6080 | 0x5783 | 0x5784 | 0x5200 | 0x5400 | 0x5211 | 0x5411)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_constants_are_the_table() {
        let table = include_str!("../registers.csv");
        let lines: Vec<Vec<&str>> = table.lines().skip(1).map(|line| line.split(',').collect()).collect();
        assert_eq!(lines.len(), ALL.len());
        for (line, (name, field)) in lines.iter().zip(ALL) {
            assert_eq!(line[0], *name);
            assert_eq!(line[1], format!("0x{:04x}", field.address), "{name}");
            let rest = [
                field.shift.to_string(),
                u8::from(field.signed).to_string(),
                field.width.to_string(),
                u8::from(field.read_only).to_string(),
                field.default.to_string(),
            ];
            assert_eq!(line[2..7], rest, "{name}");
        }
    }

    #[test]
    fn transmitter_b_is_transmitter_a_moved() {
        for (name, field) in ALL.iter().filter(|(name, _)| name.starts_with("TX_TOP_A_")) {
            let other = name.replace("TX_TOP_A_", "TX_TOP_B_");
            let (_, found) = ALL.iter().find(|(name, _)| **name == *other).unwrap();
            assert_eq!(field.moved(TX_B), *found, "{name}");
        }
    }

    #[test]
    fn what_is_inserted_is_what_is_extracted() {
        for (name, field) in ALL {
            for value in 0..1i32 << field.width {
                let expected = field.extract(field.insert(0, value));
                assert_eq!(field.extract(field.insert(0xff, value)), expected, "{name}");
                assert_eq!(field.insert(0xff, value) | field.mask(), 0xff, "{name}");
            }
            let default = i32::from(field.default);
            assert_eq!(field.extract(field.insert(0, default)), default, "{name}");
        }
    }
}
