//! The names under which the DNS knows networks, join servers and moved devices (TS002 section 19).
//!
//! Pure text, and no name here ever ends with a dot: it becomes a URL's host, a TLS server name and
//! a certificate's SAN as it is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::lorawan::{DevEui, JoinEui, JoinEuiRange, NetId};

/// What stands behind the digits: `joineuis.iotroam.example`, lower case, without dots around it.
///
/// Federations name theirs freely, so this is configuration, with or without dots in front and behind.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Suffix(String);

/// Text that cannot stand behind the digits of an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SuffixError {
    /// Nothing is left without the dots.
    #[error("a DNS suffix has at least one label")]
    Empty,
    /// A label of the wrong size or with odd characters.
    #[error("a DNS label is 1 to 63 letters, digits, hyphens or underscores, not {0:?}")]
    Label(String),
    /// 32 labels in front of it would not fit into a name of 253 characters.
    #[error("a DNS suffix has at most {MAX_SUFFIX} characters, this one has {0}")]
    Long(usize),
}

/// A name has 253 characters of text, and 32 digits with their dots go in front.
const MAX_SUFFIX: usize = 253 - 64;

impl Suffix {
    /// The text, lower case, without dots around it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The suffix of JoinEUIs that new deployments use by default (BI 1.1).
pub fn default_join_eui_suffix() -> Suffix {
    Suffix("joineuis.lorawan.net".to_owned())
}

/// The suffix of NetIDs that new deployments use by default (BI 1.1).
pub fn default_net_id_suffix() -> Suffix {
    Suffix("netids.lorawan.net".to_owned())
}

impl FromStr for Suffix {
    type Err = SuffixError;
    fn from_str(text: &str) -> Result<Self, SuffixError> {
        let text = text.trim_matches('.');
        if text.is_empty() {
            return Err(SuffixError::Empty);
        }
        if text.len() > MAX_SUFFIX {
            return Err(SuffixError::Long(text.len()));
        }
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        match text.split('.').find(|label| !(1..=63).contains(&label.len()) || !label.bytes().all(fits)) {
            Some(label) => Err(SuffixError::Label(label.to_owned())),
            None => Ok(Suffix(text.to_ascii_lowercase())),
        }
    }
}
impl fmt::Display for Suffix {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.0)
    }
}
impl fmt::Debug for Suffix {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "Suffix({})", self.0)
    }
}
impl Serialize for Suffix {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}
impl<'de> Deserialize<'de> for Suffix {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A network's name: `00050a.netids.example`, one label, digits in reading order.
pub fn net_id_name(net_id: NetId, suffix: &Suffix) -> String {
    format!("{}.{suffix}", hex::encode(net_id.to_msb()))
}

/// Where a federation lists the networks of one type and NwkID, which share a range of addresses: `1.t3._nwkids.netids.example`.
pub fn nwk_id_name(kind: u8, nwk_id: u32, suffix: &Suffix) -> String {
    format!("{nwk_id:x}.t{kind}._nwkids.{suffix}")
}

/// A join server's name: 16 labels of one digit each, last digit first.
pub fn join_eui_name(join_eui: JoinEui, suffix: &Suffix) -> String {
    reversed(&join_eui.to_msb(), 16) + suffix.as_str()
}

/// The name of one device's join server: the digits of the DevEUI stand in front of the JoinEUI's (BI 1.1).
pub fn dev_eui_name(dev_eui: DevEui, join_eui: JoinEui, suffix: &Suffix) -> String {
    reversed(&dev_eui.to_msb(), 16) + &join_eui_name(join_eui, suffix)
}

/// The name above every JoinEUI of a block: what is delegated to its owner, and what a certificate's
/// name constraints name. A block of width 0 is the suffix itself.
pub fn join_eui_subtree(range: JoinEuiRange, suffix: &Suffix) -> String {
    reversed(&range.prefix().to_msb(), usize::from(range.bits() / 4)) + suffix.as_str()
}

/// The network that a name names; letters of any case, with or without a final dot.
pub fn parse_net_id_name(name: &str, suffix: &Suffix) -> Option<NetId> {
    let digits = digits(name, suffix)?;
    (!digits.contains('.')).then(|| digits.parse().ok())?
}

/// The JoinEUI that a name of 16 labels names; letters of any case, with or without a final dot.
pub fn parse_join_eui_name(name: &str, suffix: &Suffix) -> Option<JoinEui> {
    let digits: Vec<char> = digits(name, suffix)?
        .split('.')
        .map(|label| label.parse::<char>().ok().filter(char::is_ascii_hexdigit))
        .collect::<Option<_>>()?;
    digits.into_iter().rev().collect::<String>().parse().ok()
}

/// A name of a thing that is no LoRaWAN device: an EPC of GS1, or any identifier of hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Foreign {
    /// `urn:epc:id:sgtin:0614141.000024.400` (EPC Tag Data Standard): its scheme and fields.
    Epc {
        /// Such as `sgtin`.
        scheme: String,
        /// Company, class and whatever the scheme has, without the last, which tells one thing from another of its class.
        class: Vec<String>,
    },
    /// A UDID: hexadecimal digits, as many as it has.
    Udid(String),
}

/// Text that is no such identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForeignError {
    /// Not an EPC.
    #[error("{0:?} is no EPC; one is written urn:epc:id:sgtin:0614141.000024.400")]
    Epc(String),
    /// Not hexadecimal digits, or too many for a name.
    #[error("{0:?} is no identifier of 1 to 64 hexadecimal digits")]
    Udid(String),
}

impl Foreign {
    /// An EPC in its URN form.
    pub fn epc(urn: &str) -> Result<Foreign, ForeignError> {
        let text = urn.trim().to_ascii_lowercase();
        let wrong = || ForeignError::Epc(urn.chars().take(100).collect());
        let (scheme, fields) =
            text.strip_prefix("urn:epc:id:").and_then(|rest| rest.split_once(':')).ok_or_else(wrong)?;
        let label = |label: &str| {
            let good = |c: char| c.is_ascii_alphanumeric() || c == '-';
            !label.is_empty() && label.len() <= 63 && label.chars().all(good)
        };
        let mut class: Vec<String> = fields.split('.').map(ToOwned::to_owned).collect();
        // a serial number may have signs that no name has, and is not part of it
        class.pop();
        match label(scheme) && (1..=3).contains(&class.len()) && class.iter().all(|field| label(field)) {
            true => Ok(Foreign::Epc { scheme: scheme.to_owned(), class }),
            false => Err(wrong()),
        }
    }

    /// A UDID.
    pub fn udid(text: &str) -> Result<Foreign, ForeignError> {
        let digits = text.trim().to_ascii_lowercase();
        let fits = (1..=64).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        match fits {
            true => Ok(Foreign::Udid(digits)),
            false => Err(ForeignError::Udid(text.chars().take(100).collect())),
        }
    }

    /// Its name: an EPC's as the Object Name Service has it (ONS 1.0.1 section 4), `000024.0614141.sgtin.id.onsepc.com`; a UDID's like that of
    /// a JoinEUI, one label for each digit, last first.
    pub fn name(&self, suffix: &Suffix) -> String {
        let labels: Vec<String> = match self {
            Foreign::Epc { scheme, class } => {
                class.iter().rev().cloned().chain([scheme.clone(), "id".into()]).collect()
            }
            Foreign::Udid(digits) => digits.chars().rev().map(String::from).collect(),
        };
        format!("{}.{suffix}", labels.join("."))
    }
}

/// The first `count` hexadecimal digits, last first, each followed by a dot.
fn reversed(bytes: &[u8], count: usize) -> String {
    hex::encode(bytes)
        .chars()
        .take(count)
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .flat_map(|digit| [digit, '.'])
        .collect()
}

/// What stands in front of the suffix, lower case.
fn digits(name: &str, suffix: &Suffix) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    Some(name.strip_suffix(suffix.as_str())?.strip_suffix('.')?.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn vectors() -> Value {
        serde_json::from_str(include_str!("../../tests/fixtures/vectors/dns-names.json")).unwrap()
    }
    fn get<T: serde::de::DeserializeOwned>(case: &Value, key: &str) -> T {
        T::deserialize(&case[key]).unwrap()
    }
    fn cases(kind: &str) -> Vec<Value> {
        vectors()[kind].as_array().unwrap().clone()
    }

    #[test]
    fn things_of_other_kinds_have_names_too() {
        let ons: Suffix = "onsepc.com".parse().unwrap();
        for (urn, name) in [
            ("urn:epc:id:sgtin:0614141.000024.400", "000024.0614141.sgtin.id.onsepc.com"),
            ("URN:EPC:ID:SGTIN:0614141.000024.A%2FB", "000024.0614141.sgtin.id.onsepc.com"),
            ("urn:epc:id:sscc:0614141.1234567890", "0614141.sscc.id.onsepc.com"),
            ("urn:epc:id:gid:95100000.12345.400", "12345.95100000.gid.id.onsepc.com"),
        ] {
            assert_eq!(Foreign::epc(urn).unwrap().name(&ons), name);
        }
        for wrong in
            ["", "urn:epc:id:sgtin", "urn:epc:tag:sgtin-96:1.0614141.000024.400", "urn:epc:id:sgtin:.1.2"]
        {
            assert!(Foreign::epc(wrong).is_err(), "{wrong}");
        }
        let udid = Foreign::udid("0A1b2").unwrap();
        assert_eq!(udid.name(&"things.example".parse().unwrap()), "2.b.1.a.0.things.example");
        assert!(
            Foreign::udid("").is_err()
                && Foreign::udid("xyz").is_err()
                && Foreign::udid(&"0".repeat(65)).is_err()
        );
    }

    #[test]
    fn the_published_names_come_out_and_go_back_in() {
        for case in cases("join_eui") {
            let (eui, suffix, name): (JoinEui, Suffix, String) =
                (get(&case, "join_eui"), get(&case, "suffix"), get(&case, "name"));
            assert_eq!(join_eui_name(eui, &suffix), name);
            assert_eq!(parse_join_eui_name(&name, &suffix), Some(eui));
            assert_eq!(parse_join_eui_name(&(name.to_uppercase() + "."), &suffix), Some(eui));
            assert_eq!(parse_net_id_name(&name, &suffix), None);
        }
        for case in cases("dev_eui_join_eui") {
            let (eui, suffix): (JoinEui, Suffix) = (get(&case, "join_eui"), get(&case, "suffix"));
            let first: String = get(&case, "first");
            assert_eq!(dev_eui_name(get(&case, "dev_eui"), eui, &suffix), first);
            assert_eq!(join_eui_name(eui, &suffix), get::<String>(&case, "fallback"));
            assert_eq!(parse_join_eui_name(&first, &suffix), None, "32 labels name a device");
        }
        for case in cases("net_id") {
            let (net_id, suffix, name): (NetId, Suffix, String) =
                (get(&case, "net_id"), get(&case, "suffix"), get(&case, "name"));
            assert_eq!(net_id_name(net_id, &suffix), name);
            assert_eq!(parse_net_id_name(&name, &suffix), Some(net_id));
            assert_eq!(parse_join_eui_name(&name, &suffix), None);
        }
    }

    #[test]
    fn the_misprints_of_published_papers_are_not_what_we_ask_for() {
        let misprints = cases("misprints_in_published_papers");
        assert!(!misprints.is_empty());
        for case in misprints {
            let (printed, right): (String, String) = (get(&case, "printed"), get(&case, "right"));
            let long: Vec<&str> = right.split('.').filter(|label| label.len() > 1).collect();
            let suffix: Suffix = long.join(".").parse().unwrap();
            let labels = printed.split('.').filter(|label| label.len() == 1).count();
            assert_eq!(labels as u64, case["labels"].as_u64().unwrap());
            assert_eq!(parse_join_eui_name(&printed, &suffix), None, "{printed}");
            // the right form has its 16 or 32 labels, and its JoinEUI half is the example's
            let tail = right.split_at(right.find("f.2.").unwrap()).1;
            assert_eq!(parse_join_eui_name(tail, &suffix), Some("00005E100000002F".parse().unwrap()));
        }
    }

    #[test]
    fn a_suffix_may_have_dots_around_it_and_letters_of_any_case() {
        for text in [
            "joineuis.iotroam.example",
            ".joineuis.iotroam.example",
            "JoinEUIs.IoTRoam.Example.",
            ".joineuis.iotroam.example.",
        ] {
            assert_eq!(text.parse::<Suffix>().unwrap().as_str(), "joineuis.iotroam.example");
        }
        for text in ["", ".", "a..b", "a b", "a/b", "ä.example", &"a".repeat(64), &"abcdefg.".repeat(24)] {
            assert!(text.parse::<Suffix>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_block_is_the_name_that_all_its_join_euis_end_with() {
        let suffix: Suffix = "joineuis.example".parse().unwrap();
        let subtree = |text: &str| join_eui_subtree(text.parse().unwrap(), &suffix);
        assert_eq!(subtree("70B3D57ED0000000/40"), "0.d.e.7.5.d.3.b.0.7.joineuis.example");
        assert_eq!(subtree("70B3D57ED0000001"), join_eui_name("70B3D57ED0000001".parse().unwrap(), &suffix));
        assert_eq!(subtree("0000000000000000/0"), "joineuis.example");
    }

    proptest! {
        #[test]
        fn no_identifier_upsets_it(text: String) {
            let _ = (Foreign::epc(&text), Foreign::udid(&text));
        }

        #[test]
        fn names_and_identifiers_are_one_to_one(eui: [u8; 8], dev: [u8; 8], net: [u8; 3], digits in 0..=16u8) {
            let suffix: Suffix = "joineuis.example".parse().unwrap();
            let (eui, net) = (JoinEui::from_msb(eui), NetId::from_msb(net));
            let name = join_eui_name(eui, &suffix);
            prop_assert_eq!(parse_join_eui_name(&name, &suffix), Some(eui));
            prop_assert_eq!(name.matches('.').count(), 17);
            prop_assert_eq!(parse_net_id_name(&net_id_name(net, &suffix), &suffix), Some(net));
            let device = dev_eui_name(DevEui::from_msb(dev), eui, &suffix);
            prop_assert!(device.ends_with(&name) && device.matches('.').count() == 33);
            let low = u64::from_be_bytes(eui.to_msb()) & u64::MAX.checked_shl(64 - 4 * u32::from(digits)).unwrap_or(0);
            let range = JoinEuiRange::new(JoinEui::from_msb(low.to_be_bytes()), 4 * digits).unwrap();
            prop_assert!(range.contains(eui));
            prop_assert!(name.ends_with(&join_eui_subtree(range, &suffix)));
        }

        #[test]
        fn any_text_is_a_name_or_not_but_never_a_panic(name in ".{0,80}") {
            let suffix: Suffix = "x".parse().unwrap();
            let _ = (parse_net_id_name(&name, &suffix), parse_join_eui_name(&name, &suffix), name.parse::<Suffix>());
            let with = name + ".x";
            if let Some(eui) = parse_join_eui_name(&with, &suffix) {
                prop_assert_eq!(join_eui_name(eui, &suffix), with.to_ascii_lowercase());
            }
        }
    }
}
