//! Section `[join_server]`: which JoinEUIs are ours, and who may ask for homes.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Authorise;
use crate::lorawan::{DevEui, JoinEui, JoinEuiRange, NetId};
use crate::partners::Kek;

/// Section `[join_server]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// JoinEUIs that this join server answers for. None listed: every one (a node that does not roam).
    pub join_euis: Vec<JoinEuiRange>,
    /// Who may ask HomeNSReq.
    pub authorise: Authorise,
    /// Application servers that may ask for AppSKeys.
    pub application: Vec<Application>,
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
    /// Whether a JoinEUI is ours.
    pub fn serves(&self, join_eui: JoinEui) -> bool {
        self.join_euis.is_empty() || self.join_euis.iter().any(|range| range.contains(join_eui))
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
    fn without_a_list_every_join_eui_is_ours_and_with_one_only_those() {
        let (a, b) = ("70B3D57ED0000001".parse().unwrap(), "70B3D57ED1000001".parse().unwrap());
        let mut config = Config::default();
        assert!(config.serves(a) && config.serves(b));
        config.join_euis.push("70B3D57ED0000000/40".parse().unwrap());
        assert!(config.serves(a) && !config.serves(b));
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
