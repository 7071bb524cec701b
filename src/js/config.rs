//! Section `[join_server]`: which JoinEUIs are ours, and who may ask for homes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::lorawan::{JoinEui, NetId};

/// Section `[join_server]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// JoinEUIs that this join server answers for. None listed: every one (a node that does not roam).
    pub join_euis: Vec<JoinEuiRange>,
    /// Who may ask HomeNSReq.
    pub authorise: Authorise,
}

impl Config {
    /// Whether a JoinEUI is ours.
    pub fn serves(&self, join_eui: JoinEui) -> bool {
        self.join_euis.is_empty() || self.join_euis.iter().any(|range| range.contains(join_eui))
    }
}

/// Who may ask this join server for the home of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Authorise {
    /// Whoever the roaming rules admit.
    #[default]
    Default,
    /// These networks only.
    Only(Vec<NetId>),
}

impl Serialize for Authorise {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Authorise::Default => to.serialize_str("default"),
            Authorise::Only(net_ids) => net_ids.serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for Authorise {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "authorise is \"default\" or a list of NetIDs")]
        enum Form {
            Word(String),
            List(Vec<NetId>),
        }
        match Form::deserialize(from)? {
            Form::Word(word) if word == "default" => Ok(Authorise::Default),
            Form::Word(word) => {
                let word: String = word.chars().take(40).collect();
                Err(serde::de::Error::custom(format!(
                    "authorise is \"default\" or a list of NetIDs, not {word:?}"
                )))
            }
            Form::List(net_ids) => Ok(Authorise::Only(net_ids)),
        }
    }
}

/// One JoinEUI (`0000000000000001`) or all with the same leading bits (`70B3D57ED0000000/40`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct JoinEuiRange {
    base: u64,
    /// 0 to 64.
    bits: u8,
}

impl JoinEuiRange {
    /// Exactly one.
    pub fn one(join_eui: JoinEui) -> JoinEuiRange {
        JoinEuiRange { base: u64::from_be_bytes(join_eui.to_msb()), bits: 64 }
    }

    /// The first JoinEUI of the range.
    pub fn first(self) -> JoinEui {
        JoinEui::from_msb(self.base.to_be_bytes())
    }

    /// Whether a JoinEUI is in it.
    pub fn contains(self, join_eui: JoinEui) -> bool {
        u64::from_be_bytes(join_eui.to_msb()) & mask(self.bits) == self.base
    }

    /// Whether the two have a JoinEUI in common.
    pub fn overlaps(self, other: JoinEuiRange) -> bool {
        (self.base ^ other.base) & mask(self.bits.min(other.bits)) == 0
    }
}

/// `bits` ones from the top.
fn mask(bits: u8) -> u64 {
    // 64 zero bits to shift away is an overflow, and the empty mask
    u64::MAX.checked_shl(64 - u32::from(bits)).unwrap_or(0)
}

/// Text that is no range of JoinEUIs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no JoinEUI (16 hexadecimal digits) or range (70B3D57ED0000000/40): {why}")]
pub struct RangeError {
    text: String,
    why: String,
}

impl FromStr for JoinEuiRange {
    type Err = RangeError;
    fn from_str(text: &str) -> Result<JoinEuiRange, RangeError> {
        let wrong = |why: String| RangeError { text: text.chars().take(60).collect(), why };
        let (base, bits) = text.split_once('/').unwrap_or((text, "64"));
        let base: JoinEui = base.parse().map_err(|e: crate::lorawan::ids::IdError| wrong(e.to_string()))?;
        let bits: u8 = bits.parse().ok().filter(|bits| *bits <= 64).ok_or_else(|| {
            wrong("after the slash comes the number of leading bits that all have in common, 0 to 64".into())
        })?;
        let range = JoinEuiRange { base: u64::from_be_bytes(base.to_msb()), bits };
        if range.base & !mask(bits) != 0 {
            let cut = JoinEui::from_msb((range.base & mask(bits)).to_be_bytes());
            return Err(wrong(format!(
                "the bits after the first {bits} must be 0; {cut}/{bits} is the range"
            )));
        }
        Ok(range)
    }
}

impl fmt::Display for JoinEuiRange {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bits {
            64 => write!(to, "{}", self.first()),
            bits => write!(to, "{}/{bits}", self.first()),
        }
    }
}

impl Serialize for JoinEuiRange {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for JoinEuiRange {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_range_holds_what_begins_like_it() {
        let range: JoinEuiRange = "70B3D57ED0000000/40".parse().unwrap();
        assert!(range.contains("70B3D57ED0FFFFFF".parse().unwrap()));
        assert!(!range.contains("70B3D57ED1000000".parse().unwrap()));
        let one: JoinEuiRange = "70B3D57ED0000001".parse().unwrap();
        assert!(one.overlaps(range) && range.overlaps(one));
        assert!(one.contains(one.first()) && !one.contains(range.first()));
        let all: JoinEuiRange = "0000000000000000/0".parse().unwrap();
        assert!(all.contains(one.first()));
    }

    #[test]
    fn a_range_with_bits_behind_its_length_is_refused_with_the_right_one() {
        let error = "70B3D57ED0000001/40".parse::<JoinEuiRange>().unwrap_err().to_string();
        assert!(error.contains("70B3D57ED0000000/40 is the range"), "{error}");
        assert!("70B3D57ED0000000/65".parse::<JoinEuiRange>().is_err());
    }

    proptest! {
        #[test]
        fn a_range_is_read_as_it_is_written(base: u64, bits in 0_u8..=64) {
            let range = JoinEuiRange { base: base & mask(bits), bits };
            prop_assert_eq!(range.to_string().parse(), Ok(range));
        }

        #[test]
        fn any_text_is_a_range_or_an_error(text: String) {
            let _ = text.parse::<JoinEuiRange>();
        }
    }
}
