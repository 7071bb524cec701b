//! Identifiers. Each has its own type, and the constructor names the byte order.
//!
//! Text is hexadecimal, most significant digit first (TS002 section 5); the air sends the least
//! significant byte first (TS001). Widths of DevAddr follow the corrected table (TS002 erratum).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Text that is not the identifier it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is {digits} hexadecimal digits, not {text:?}")]
pub struct IdError {
    what: &'static str,
    digits: usize,
    text: String,
}

fn parse<const N: usize>(what: &'static str, text: &str) -> Result<[u8; N], IdError> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| IdError {
        what,
        digits: 2 * N,
        text: text.chars().take(80).collect(),
    })?;
    Ok(bytes)
}

macro_rules! text_form {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(to, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

macro_rules! eui {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 8]);

        impl $name {
            /// From bytes in reading order, most significant first.
            pub const fn from_msb(bytes: [u8; 8]) -> Self {
                Self(bytes)
            }
            /// From bytes as the air carries them, least significant first.
            pub fn from_air(mut bytes: [u8; 8]) -> Self {
                bytes.reverse();
                Self(bytes)
            }
            /// Bytes in reading order.
            pub const fn to_msb(self) -> [u8; 8] {
                self.0
            }
            /// Bytes as the air carries them.
            pub fn to_air(self) -> [u8; 8] {
                let mut bytes = self.0;
                bytes.reverse();
                bytes
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str(&hex::encode_upper(self.0))
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                parse(stringify!($name), text).map(Self)
            }
        }
        text_form!($name);
    };
}

eui!(
    /// An end device (TS001).
    DevEui
);
eui!(
    /// A join server (TS001 1.0.4 on; AppEUI before).
    JoinEui
);
eui!(
    /// A radio head.
    GatewayEui
);
eui!(
    /// NSID of a network server: several may share a NetID (TS002 1.1).
    NsId
);

/// A network (24 bits, TS002 table 2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetId(u32);

/// A session's address (32 bits, TS002 table 3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DevAddr(u32);

/// Bits of NwkID and of NwkAddr in a DevAddr, by NetID type (TS002 table 3 with the erratum).
const WIDTHS: [(u32, u32); 8] = [(6, 25), (6, 24), (9, 20), (11, 17), (12, 15), (13, 13), (15, 10), (17, 7)];

impl NetId {
    /// From its 24-bit number; `None` above FFFFFF.
    pub const fn new(number: u32) -> Option<NetId> {
        if number > 0xFF_FFFF { None } else { Some(NetId(number)) }
    }
    /// From bytes in reading order.
    pub const fn from_msb(b: [u8; 3]) -> NetId {
        NetId((b[0] as u32) << 16 | (b[1] as u32) << 8 | b[2] as u32)
    }
    /// From bytes as the air carries them.
    pub const fn from_air(b: [u8; 3]) -> NetId {
        NetId::from_msb([b[2], b[1], b[0]])
    }
    /// Bytes as the air carries them.
    pub const fn to_air(self) -> [u8; 3] {
        [self.0 as u8, (self.0 >> 8) as u8, (self.0 >> 16) as u8]
    }
    /// Bytes in reading order.
    pub const fn to_msb(self) -> [u8; 3] {
        [(self.0 >> 16) as u8, (self.0 >> 8) as u8, self.0 as u8]
    }
    /// Type 0 to 7: the three top bits.
    pub const fn kind(self) -> u8 {
        (self.0 >> 21) as u8
    }
    /// The low bits of the NetID that a DevAddr carries.
    pub const fn nwk_id(self) -> u32 {
        self.0 & ((1 << WIDTHS[self.kind() as usize].0) - 1)
    }
    /// How many bits of a DevAddr this network may choose.
    pub const fn nwk_addr_bits(self) -> u32 {
        WIDTHS[self.kind() as usize].1
    }
    /// The DevAddr with this NwkAddr; surplus high bits of `nwk_addr` are dropped.
    pub const fn dev_addr(self, nwk_addr: u32) -> DevAddr {
        let (_, addr_bits) = WIDTHS[self.kind() as usize];
        // `kind` ones, then a zero, from the top bit
        let prefix = !(0xFFFF_FFFF_u32 >> self.kind());
        DevAddr(prefix | self.nwk_id() << addr_bits | (nwk_addr & ((1 << addr_bits) - 1)))
    }
    /// Whether an address is of this network's range (several networks of types 3 to 7 share one).
    pub const fn covers(self, addr: DevAddr) -> bool {
        let bits = self.nwk_addr_bits();
        addr.0 >> bits == self.dev_addr(0).0 >> bits
    }
}

impl DevAddr {
    /// From its number.
    pub const fn new(number: u32) -> DevAddr {
        DevAddr(number)
    }
    /// From bytes as the air carries them.
    pub const fn from_air(bytes: [u8; 4]) -> DevAddr {
        DevAddr(u32::from_le_bytes(bytes))
    }
    /// Bytes as the air carries them.
    pub const fn to_air(self) -> [u8; 4] {
        self.0.to_le_bytes()
    }
    /// Its number.
    pub const fn number(self) -> u32 {
        self.0
    }
    /// The NetID type of the address; `None` for FF000000 and above.
    pub const fn kind(self) -> Option<u8> {
        let ones = self.0.leading_ones();
        if ones > 7 { None } else { Some(ones as u8) }
    }
    /// The bits that it shares with its network's NetID; `None` for FF000000 and above.
    pub fn nwk_id(self) -> Option<u32> {
        let (id_bits, addr_bits) = WIDTHS.get(usize::from(self.kind()?)).copied()?;
        Some((self.0 >> addr_bits) & ((1 << id_bits) - 1))
    }
    /// The network, where the address alone tells it: types 0 to 2 (TS002 3.2).
    pub fn net_id(self) -> Option<NetId> {
        let kind = self.kind().filter(|kind| *kind <= 2)?;
        NetId::new(u32::from(kind) << 21 | self.nwk_id()?)
    }
}

impl fmt::Display for NetId {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{:06X}", self.0)
    }
}
impl FromStr for NetId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        parse("NetID", text).map(NetId::from_msb)
    }
}
text_form!(NetId);

impl fmt::Display for DevAddr {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{:08X}", self.0)
    }
}
impl FromStr for DevAddr {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        parse("DevAddr", text).map(|bytes| DevAddr(u32::from_be_bytes(bytes)))
    }
}
text_form!(DevAddr);

/// A block of JoinEUIs, written `70B3D57ED0000000/40`, or one JoinEUI alone.
///
/// The width is whole hexadecimal digits (0 to 64 bits by fours), because the DNS delegates JoinEUIs
/// digit by digit (TS002 section 19).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JoinEuiRange {
    prefix: JoinEui,
    bits: u8,
}

/// Text or numbers that are no block of JoinEUIs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// The part before the slash.
    #[error(transparent)]
    Prefix(#[from] IdError),
    /// The part behind the slash.
    #[error("the width of a block of JoinEUIs is 0 to 64 bits, by fours, not {0:?}")]
    Bits(String),
    /// Digits are set behind the width: probably a slip of the pen.
    #[error("{prefix}/{bits} has digits behind its first {bits} bits")]
    Tail {
        /// The part before the slash.
        prefix: JoinEui,
        /// The part behind it.
        bits: u8,
    },
}

impl JoinEuiRange {
    /// The JoinEUIs that share the first `bits` bits of `prefix`, whose other bits are zero.
    pub fn new(prefix: JoinEui, bits: u8) -> Result<JoinEuiRange, RangeError> {
        if bits > 64 || !bits.is_multiple_of(4) {
            return Err(RangeError::Bits(bits.to_string()));
        }
        if u64::from_be_bytes(prefix.0) & !mask(bits) != 0 {
            return Err(RangeError::Tail { prefix, bits });
        }
        Ok(JoinEuiRange { prefix, bits })
    }
    /// The lowest JoinEUI of the block.
    pub const fn prefix(self) -> JoinEui {
        self.prefix
    }
    /// How many leading bits the JoinEUIs share: 64 is a single one.
    pub const fn bits(self) -> u8 {
        self.bits
    }
    /// Whether a JoinEUI is of this block.
    pub fn contains(self, eui: JoinEui) -> bool {
        (u64::from_be_bytes(self.prefix.0) ^ u64::from_be_bytes(eui.0)) & mask(self.bits) == 0
    }
}

fn mask(bits: u8) -> u64 {
    u64::MAX.checked_shl(64 - u32::from(bits.min(64))).unwrap_or(0)
}

impl From<JoinEui> for JoinEuiRange {
    fn from(prefix: JoinEui) -> Self {
        JoinEuiRange { prefix, bits: 64 }
    }
}
impl fmt::Display for JoinEuiRange {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bits {
            64 => write!(to, "{}", self.prefix),
            bits => write!(to, "{}/{bits}", self.prefix),
        }
    }
}
impl FromStr for JoinEuiRange {
    type Err = RangeError;
    fn from_str(text: &str) -> Result<Self, RangeError> {
        match text.split_once('/') {
            None => Ok(text.parse::<JoinEui>()?.into()),
            Some((prefix, bits)) => {
                let bits =
                    bits.parse().map_err(|_| RangeError::Bits(bits.chars().take(80).collect::<String>()))?;
                JoinEuiRange::new(prefix.parse()?, bits)
            }
        }
    }
}
text_form!(JoinEuiRange);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_block_of_join_euis_holds_its_own_and_no_neighbour() {
        let block: JoinEuiRange = "70B3D57ED0000000/40".parse().unwrap();
        assert!(block.contains("70B3D57ED0123456".parse().unwrap()));
        assert!(!block.contains("70B3D57ED1000000".parse().unwrap()));
        assert_eq!(block.to_string(), "70B3D57ED0000000/40");
        let one: JoinEuiRange = "70b3d57ed0000000".parse().unwrap();
        assert!(one.contains("70B3D57ED0000000".parse().unwrap()));
        assert!(!one.contains("70B3D57ED0000001".parse().unwrap()));
        assert_eq!(one.to_string(), "70B3D57ED0000000");
        let all: JoinEuiRange = "0000000000000000/0".parse().unwrap();
        assert!(all.contains("FFFFFFFFFFFFFFFF".parse().unwrap()));
    }

    #[test]
    fn a_block_of_join_euis_with_a_slip_of_the_pen_is_refused() {
        for text in
            ["70B3D57ED0000001/40", "70B3D57ED0000000/41", "70B3D57ED0000000/68", "70B3D57E/32", "/40"]
        {
            assert!(text.parse::<JoinEuiRange>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_identifier_or_none_and_means_one_thing(text in "[0-9A-Fa-fxé/ ]{0,20}|\\PC{0,20}") {
            let plain = text.to_ascii_uppercase();
            let same = [
                text.parse::<DevEui>().map(|id| id.to_string()),
                text.parse::<NetId>().map(|id| id.to_string()),
                text.parse::<DevAddr>().map(|id| id.to_string()),
            ];
            for id in same.into_iter().flatten() {
                prop_assert_eq!(&id, &plain);
            }
            if let Ok(range) = text.parse::<JoinEuiRange>() {
                prop_assert_eq!(range.to_string().parse::<JoinEuiRange>().unwrap(), range);
            }
        }
    }
}
