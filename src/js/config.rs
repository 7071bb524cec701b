//! Section `[join_server]`: which JoinEUIs are ours, and who may ask for homes.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Authorise;
use crate::lorawan::{DevEui, JoinEui, JoinEuiRange, NetId};
use crate::partners::{Kek, Quirk, Version};

/// Section `[join_server]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// JoinEUIs that this join server answers for. None listed: every one (a node that does not roam).
    pub join_euis: Vec<JoinEuiRange>,
    /// Who may ask HomeNSReq.
    pub authorise: Authorise,
    /// Devices that only some networks may ask for, whoever may ask for the others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub authorised: Vec<Authorised>,
    /// Application servers that may ask for AppSKeys.
    pub application: Vec<Application>,
    /// Join servers of others, for devices of ours.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub elsewhere: Vec<Elsewhere>,
}

/// An application server outside this house, `[[join_server.application]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Application {
    /// AS-ID, the SenderID of its requests.
    pub as_id: String,
    /// The name in its certificate, where that is not the AS-ID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Devices of these JoinEUIs are its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub join_euis: Vec<JoinEuiRange>,
    /// And these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dev_euis: Vec<DevEui>,
    /// The key-encryption key for AppSKeys.
    pub kek: Kek,
}

/// Devices and the networks in which they may activate, `[[join_server.authorised]]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Authorised {
    /// Devices of these JoinEUIs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub join_euis: Vec<JoinEuiRange>,
    /// And these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dev_euis: Vec<DevEui>,
    /// The networks.
    pub net_ids: Vec<NetId>,
}

/// Whether a network may ask for the home of a device, by the entries that name the device; none: it may.
pub fn is_authorised(entries: &[Authorised], dev_eui: DevEui, join_eui: JoinEui, visited: NetId) -> bool {
    let names = |entry: &&Authorised| {
        entry.dev_euis.contains(&dev_eui) || entry.join_euis.iter().any(|range| range.contains(join_eui))
    };
    let mut named = entries.iter().filter(names).peekable();
    named.peek().is_none() || named.any(|entry| entry.net_ids.contains(&visited))
}

/// A join server of somebody else that holds root keys of devices of ours, `[[join_server.elsewhere]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elsewhere {
    /// JoinEUIs of such devices.
    pub join_euis: Vec<JoinEuiRange>,
    /// Where it is: overrides DNS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// The name in its certificate, where that is not the host of `server`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// The key-encryption key for the network session keys that it gives us.
    pub kek: Kek,
    /// AS-ID under which our application server asks it for AppSKeys that came with no join.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_id: Option<String>,
    /// The key-encryption key for AppSKeys.
    pub as_kek: Kek,
    /// The version of TS002 in which it is asked.
    #[serde(default)]
    pub version: Version,
    /// What it wants otherwise than the specification.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub quirks: BTreeSet<Quirk>,
}

impl Elsewhere {
    /// Whether it answers for a JoinEUI.
    pub fn has(&self, join_eui: JoinEui) -> bool {
        self.join_euis.iter().any(|range| range.contains(join_eui))
    }
}

impl Application {
    /// Whether a device is bound to it.
    pub fn has(&self, dev_eui: DevEui, join_eui: JoinEui) -> bool {
        self.dev_euis.contains(&dev_eui) || self.join_euis.iter().any(|range| range.contains(join_eui))
    }

    /// The name that its certificate must carry.
    pub fn identity(&self) -> &str {
        self.identity.as_deref().unwrap_or(&self.as_id)
    }
}

impl Config {
    /// The join server of others that answers for a JoinEUI.
    pub fn elsewhere(&self, join_eui: JoinEui) -> Option<&Elsewhere> {
        self.elsewhere.iter().find(|server| server.has(join_eui))
    }
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
                let why = format!("authorise is \"default\" or a list of NetIDs, not {word:?}");
                Err(serde::de::Error::custom(why))
            }
            Form::List(net_ids) => Ok(Authorise::Only(net_ids)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_ask_for_a_device_is_said_by_the_entries_that_name_it() {
        let entries: Config = toml::from_str(
            "[[authorised]]\njoin_euis = [\"70B3D57ED0000000/40\"]\nnet_ids = [\"60050A\"]\n\
             [[authorised]]\ndev_euis = [\"0102030405060708\"]\nnet_ids = [\"C0002F\"]",
        )
        .unwrap();
        let may = |dev_eui: &str, join_eui: &str, net_id: &str| {
            let (dev_eui, join_eui) = (dev_eui.parse().unwrap(), join_eui.parse().unwrap());
            is_authorised(&entries.authorised, dev_eui, join_eui, net_id.parse().unwrap())
        };
        let (device, other) = ("0102030405060708", "0102030405060709");
        let (range, elsewhere) = ("70B3D57ED0000001", "0000000000000001");
        assert!(may(other, elsewhere, "00000A"), "nobody speaks of it");
        assert!(may(other, range, "60050A") && !may(other, range, "C0002F"));
        assert!(may(device, elsewhere, "C0002F") && !may(device, elsewhere, "60050A"));
        assert!(
            may(device, range, "C0002F") && may(device, range, "60050A") && !may(device, range, "00000A")
        );
    }

    #[test]
    fn a_join_server_elsewhere_is_found_by_its_join_euis() {
        let config: Config = toml::from_str(
            "[[elsewhere]]\njoin_euis = [\"0004A30B00000000/40\"]\nserver = \"https://js.example\"\n\
             kek = { label = \"ns\", key = { credential = \"a\" } }\nas_kek = { label = \"as\", key = { credential = \"b\" } }",
        )
        .unwrap();
        let found = |text: &str| config.elsewhere(text.parse().unwrap()).is_some();
        assert!(found("0004A30B0000002A") && !found("0004A30C0000002A"));
        assert_eq!(toml::from_str::<Config>(&toml::to_string(&config).unwrap()).unwrap(), config);
    }

    #[test]
    fn authorise_is_read_as_it_is_written() {
        for text in
            ["authorise = \"default\"\njoin_euis = []\n", "authorise = [\"C00ABC\"]\njoin_euis = []\n"]
        {
            let config: Config = toml::from_str(text).unwrap();
            assert_eq!(toml::from_str::<Config>(&toml::to_string(&config).unwrap()).unwrap(), config);
        }
        assert!(toml::from_str::<Config>("authorise = 1").is_err());
    }
}
