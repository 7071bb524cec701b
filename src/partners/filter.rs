//! Which visitors are carried at all (TS002 section 14, per JoinEUI and DevEUI): decided before any question leaves the house.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::lorawan::{DevAddr, DevEui, JoinEui, JoinEuiRange};

/// Section `[roaming.filter]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// Visitors with these JoinEUIs may join; all where none is listed.
    pub join_euis: Vec<JoinEuiRange>,
    /// Data frames with these addresses are carried; all where none is listed.
    pub dev_addrs: Vec<DevAddrRange>,
    /// Visitors with these JoinEUIs may not join, whatever is listed above.
    pub refuse_join_euis: Vec<JoinEuiRange>,
    /// Nor these devices.
    pub refuse_dev_euis: Vec<DevEui>,
}

impl Filter {
    /// Nobody is left out.
    pub fn is_open(&self) -> bool {
        *self == Filter::default()
    }

    /// Whether a visitor may ask for a session; the key that says no. `join_eui`: where its frame says it.
    pub fn admits(&self, dev_eui: DevEui, join_eui: Option<JoinEui>) -> Result<(), &'static str> {
        if self.refuse_dev_euis.contains(&dev_eui) {
            return Err("[roaming.filter] refuse_dev_euis");
        }
        let Some(join_eui) = join_eui else { return Ok(()) };
        let among = |ranges: &[JoinEuiRange]| ranges.iter().any(|range| range.contains(join_eui));
        match (among(&self.refuse_join_euis), self.join_euis.is_empty() || among(&self.join_euis)) {
            (true, _) => Err("[roaming.filter] refuse_join_euis"),
            (_, false) => Err("[roaming.filter] join_euis"),
            _ => Ok(()),
        }
    }

    /// Whether a visitor's data frames are carried.
    pub fn carries(&self, addr: DevAddr) -> Result<(), &'static str> {
        let listed = self.dev_addrs.is_empty() || self.dev_addrs.iter().any(|range| range.contains(addr));
        if listed { Ok(()) } else { Err("[roaming.filter] dev_addrs") }
    }
}

/// A block of addresses, written `PREFIX/BITS`, or a single one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DevAddrRange {
    prefix: DevAddr,
    bits: u8,
}

/// Text that is no block of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no block of addresses: PREFIX/BITS with 0 to 32 bits, and no digits set behind them")]
pub struct NoRange(String);

impl DevAddrRange {
    /// Whether an address is of this block.
    pub fn contains(self, addr: DevAddr) -> bool {
        (addr.number() ^ self.prefix.number()) & mask(self.bits) == 0
    }
}

fn mask(bits: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0)
}

impl FromStr for DevAddrRange {
    type Err = NoRange;
    fn from_str(text: &str) -> Result<DevAddrRange, NoRange> {
        let wrong = || NoRange(text.chars().take(40).collect());
        let (prefix, bits) = text.split_once('/').unwrap_or((text, "32"));
        let prefix: DevAddr = prefix.parse().map_err(|_| wrong())?;
        let bits: u8 = bits.parse().ok().filter(|bits| *bits <= 32).ok_or_else(wrong)?;
        if prefix.number() & !mask(bits) == 0 { Ok(DevAddrRange { prefix, bits }) } else { Err(wrong()) }
    }
}

impl fmt::Display for DevAddrRange {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}/{}", self.prefix, self.bits)
    }
}

impl Serialize for DevAddrRange {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DevAddrRange {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_of_addresses_has_a_width_and_nothing_behind_it() {
        let range: DevAddrRange = "E0000000/4".parse().unwrap();
        for (addr, inside) in [(0xE000_0000, true), (0xEFFF_FFFF, true), (0xF000_0000, false), (0, false)] {
            assert_eq!(range.contains(DevAddr::new(addr)), inside, "{addr:08X}");
        }
        assert!("00000000/0".parse::<DevAddrRange>().unwrap().contains(DevAddr::new(u32::MAX)));
        assert!(!"26011BDA".parse::<DevAddrRange>().unwrap().contains(DevAddr::new(0x2601_1BDB)));
        for wrong in ["", "E0000000/33", "E0000001/4", "E0/4", "E0000000/x", "E0000000/-1"] {
            assert!(wrong.parse::<DevAddrRange>().is_err(), "{wrong}");
        }
        assert_eq!(range.to_string().parse(), Ok(range));
    }

    #[test]
    fn what_is_refused_is_refused_whatever_is_listed_and_the_key_is_named() {
        let text = "join_euis = [\"70B3D57ED0000000/40\"]\nrefuse_join_euis = [\"70B3D57ED0000001\"]\n\
            refuse_dev_euis = [\"0101010101010101\"]\ndev_addrs = [\"E0000000/4\"]";
        let filter: Filter = toml::from_str(text).unwrap();
        let (ours, theirs) = (DevEui::from_msb([1; 8]), DevEui::from_msb([2; 8]));
        let join = |dev_eui, join_eui: &str| filter.admits(dev_eui, Some(join_eui.parse().unwrap()));
        assert_eq!(join(theirs, "70B3D57ED0000002"), Ok(()));
        assert_eq!(join(theirs, "70B3D57ED0000001"), Err("[roaming.filter] refuse_join_euis"));
        assert_eq!(join(theirs, "0000000000000001"), Err("[roaming.filter] join_euis"));
        assert_eq!(join(ours, "70B3D57ED0000002"), Err("[roaming.filter] refuse_dev_euis"));
        assert_eq!((filter.admits(theirs, None), filter.admits(ours, None).is_err()), (Ok(()), true));
        assert!(
            filter.carries(DevAddr::new(0xE123_4567)).is_ok() && filter.carries(DevAddr::new(1)).is_err()
        );
        let open = Filter::default();
        assert!(
            open.admits(ours, Some("0000000000000001".parse().unwrap())).is_ok()
                && open.carries(DevAddr::new(1)).is_ok()
        );
    }
}
