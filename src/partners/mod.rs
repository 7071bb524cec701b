//! Who may roam how: listed partners, the federation's default, and the line that decided.
//!
//! Pure: configuration in, agreement out.

mod authorization;
mod filter;
mod kek;

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::backend::message::Terms;
use crate::discovery::name::{Suffix, net_id_name};
use crate::limits::RateLimit;
use crate::lorawan::{DevEui, JoinEui, JoinEuiRange, NetId};
use crate::pki::dane::Evidence;

pub use crate::limits::Lifetime;
pub use authorization::Authorization;
pub use filter::{DevAddrRange, Filter};
pub use kek::{Kek, KekKey};

/// Section `[roaming]`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Anyone the federation's root vouches for. Absent: strangers do not roam.
    pub default: Option<Rules>,
    /// Agreements with single networks; a listed partner never falls back to the default.
    pub partner: Vec<Partner>,
    /// What single devices may do.
    pub devices: Vec<Devices>,
    /// Which visitors are carried at all.
    #[serde(skip_serializing_if = "Filter::is_open")]
    pub filter: Filter,
}

/// What is allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// Passive roaming.
    pub passive: Passive,
    /// Handover roaming: the visited network serves the device itself.
    pub handover: Switches,
    /// How much of the air each network may have in a day for its visitors here. Absent: no limit but the region's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub airtime: Option<Lifetime>,
    /// As home: what we pay for of the uplinks of a device of ours that roams. Absent: all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ul: Option<RateLimit>,
    /// The same of downlinks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dl: Option<RateLimit>,
}

/// What of a kind of roaming is allowed (TS002 section 14).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Switches {
    /// Running sessions; to hand one over takes a Rejoin-request of LoRaWAN 1.1.
    pub start: bool,
    /// Joins.
    pub activation: bool,
}

impl Switches {
    /// Whether anything is allowed.
    pub fn any(&self) -> bool {
        self.start || self.activation
    }
}

/// Passive roaming rules (TS002 section 14).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Passive {
    /// Data of running sessions.
    pub start: bool,
    /// Joins.
    pub activation: bool,
    /// As home: how long a network forwards a device of ours by one context. `0s`: stateless, each uplink asks anew.
    pub lifetime: Lifetime,
    /// The forwarding network checks the MICs of uplinks, with a key that the home gives it.
    pub mic_check: bool,
    /// As home: a network that brings a frame which our own radio has brought is not wanted for so long. `0s`: every
    /// network always is.
    #[serde(skip_serializing_if = "Lifetime::is_none")]
    pub defer: Lifetime,
}

impl Passive {
    /// Whether anything is allowed.
    pub fn any(&self) -> bool {
        self.start || self.activation
    }
}

impl Partner {
    /// The name that its certificate carries.
    pub fn certificate_name(&self, suffix: &Suffix) -> String {
        self.identity.clone().unwrap_or_else(|| net_id_name(self.net_id, suffix))
    }
}

/// An agreement with one network.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Partner {
    /// Who.
    pub net_id: NetId,
    /// Passive roaming.
    #[serde(default)]
    pub passive: Passive,
    /// Whose word counts for its certificate; absent: as `[discovery] dane` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<Evidence>,
    /// Handover roaming. Needs `kek`: the session's keys travel.
    #[serde(default)]
    pub handover: Switches,
    /// How much of the air it may have in a day for its visitors here. Absent: no limit but the region's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub airtime: Option<Lifetime>,
    /// As home: what we pay for of the uplinks of a device of ours that roams there. Absent: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ul: Option<RateLimit>,
    /// The same of downlinks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dl: Option<RateLimit>,
    /// Its backups are kept here, up to so much, in MB: the newest stay. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_backups_mb: Option<u32>,
    /// Where its backend interface is: overrides DNS.
    pub server: Option<String>,
    /// The certificate's name, where it is not the NetID's.
    pub identity: Option<String>,
    /// Roots that vouch for this partner alone, where it is no member of our federation: PEM files. No name constraints are
    /// needed below them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roots: Vec<PathBuf>,
    /// SenderIDs it may use beside its own: a hub sends its members'.
    #[serde(default)]
    pub speaks_for: Vec<NetId>,
    /// `sha256/BASE64` of the leaf's public key info: accepted even without name constraints above it.
    pub pin: Option<String>,
    /// The key-encryption key for all keys that go and come: without it none does.
    pub kek: Option<Kek>,
    /// Sent along with every request to its server, for one that wants more than our certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<Authorization>,
    /// How we answer it. Its answers to us are taken either way.
    #[serde(default)]
    pub mode: Mode,
    /// The same of answers of our join server.
    #[serde(default)]
    pub join_mode: Mode,
    /// The version of TS002 in which it is asked.
    #[serde(default)]
    pub version: Version,
    /// What it does or wants otherwise than the specification.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub quirks: BTreeSet<Quirk>,
}

/// The version of requests (TS002 17). Answers are of the version of their question.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    /// 1.1 where we have an NSID, unless it turns out not to understand it.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// 1.0.
    #[serde(rename = "1.0")]
    V1_0,
    /// 1.1. Needs `[network] ns_id`.
    #[serde(rename = "1.1")]
    V1_1,
}

/// What a peer does or wants otherwise (TS002 18).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quirk {
    /// It reads hexadecimal digits in small letters only.
    LowerHex,
    /// It knows the region names of TS002 1.0 only: US902, Australia915, China779, China470.
    OldRegions,
    /// As home it takes the frame of a PRStartReq although it does not say so: it is not sent again (A9).
    TakesFirstFrame,
    /// It reads a CFList from its last byte on.
    ReversedCfList,
    /// Its server expects to be asked by the name that CNAME, NAPTR or SRV lead to, not by that of its NetID. Only where DNSSEC
    /// proves the way there.
    TargetName,
}

impl fmt::Display for Quirk {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Quirk::LowerHex => "lower-hex",
            Quirk::OldRegions => "old-regions",
            Quirk::TakesFirstFrame => "takes-first-frame",
            Quirk::ReversedCfList => "reversed-cf-list",
            Quirk::TargetName => "target-name",
        })
    }
}

/// How a request is answered (TS002 4.3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// In the HTTP response.
    #[default]
    Sync,
    /// By a request of our own to its server.
    Async,
}

/// What applies to one network, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreement {
    /// What is allowed, and what is wanted.
    pub rules: Rules,
    /// The configuration line that decided, for logs and refusals.
    pub line: String,
}

impl Deref for Agreement {
    type Target = Rules;
    fn deref(&self) -> &Rules {
        &self.rules
    }
}

impl Agreement {
    /// What we want of the frames of a device of ours that roams there.
    pub fn terms(&self) -> Terms {
        Terms::ours(self.ul, self.dl)
    }
}

/// `[[roaming.devices]]`: what some devices may do, ours elsewhere and others' here, whatever is agreed with the network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Devices {
    /// Those with these JoinEUIs.
    pub join_euis: Vec<JoinEuiRange>,
    /// And these.
    pub dev_euis: Vec<DevEui>,
    /// Passive roaming.
    pub passive: Switches,
    /// Handover roaming.
    pub handover: Switches,
}

/// What a device may do, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lets {
    /// Passive roaming.
    pub passive: Switches,
    /// Handover roaming.
    pub handover: Switches,
    /// The entry that says so; `None`: there is none, and nothing is forbidden.
    pub entry: Option<usize>,
}

impl fmt::Display for Lets {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.entry {
            Some(entry) => write!(to, "[[roaming.devices]], entry {}", entry + 1),
            None => to.write_str("no [[roaming.devices]]"),
        }
    }
}

impl Config {
    /// What a device may do: the first entry that names it decides. `join_eui`: where it is known.
    pub fn lets(&self, dev_eui: DevEui, join_eui: Option<JoinEui>) -> Lets {
        let among =
            |of: &Devices| join_eui.is_some_and(|eui| of.join_euis.iter().any(|range| range.contains(eui)));
        let named = |of: &Devices| of.dev_euis.contains(&dev_eui) || among(of);
        let all = Switches { start: true, activation: true };
        match self.devices.iter().position(named) {
            Some(at) => {
                let Devices { passive, handover, .. } = self.devices[at];
                Lets { passive, handover, entry: Some(at) }
            }
            None => Lets { passive: all, handover: all, entry: None },
        }
    }

    /// The agreement with a network.
    pub fn agreement(&self, net_id: NetId) -> Agreement {
        if let Some(partner) = self.partner(net_id) {
            let line = format!("[[roaming.partner]] net_id = \"{net_id}\"");
            let Partner { handover, airtime, ul, dl, .. } = *partner;
            let passive = partner.passive.clone();
            return Agreement { rules: Rules { passive, handover, airtime, ul, dl }, line };
        }
        let line = match &self.default {
            Some(_) => "[roaming.default]",
            None => "no [roaming.default], and the network is no [[roaming.partner]]",
        };
        Agreement { rules: self.default.clone().unwrap_or_default(), line: line.into() }
    }

    /// The entry of a listed partner.
    pub fn partner(&self, net_id: NetId) -> Option<&Partner> {
        self.partner.iter().find(|partner| partner.net_id == net_id)
    }

    /// Whether anything roams at all.
    pub fn roams(&self) -> bool {
        let default = self.default.iter().map(|rules| (&rules.passive, &rules.handover));
        let listed = self.partner.iter().map(|partner| (&partner.passive, &partner.handover));
        default.chain(listed).any(|(passive, handover)| passive.any() || handover.any())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_said_is_stateless_and_without_mic_check() {
        let config: Config = toml::from_str("[default]\npassive = { start = true }").unwrap();
        let passive = config.agreement("000001".parse().unwrap()).rules.passive;
        assert_eq!((passive.lifetime, passive.mic_check), (Lifetime::NONE, false));
        assert!(toml::from_str::<Config>("[default]\npassive = { lifetime = 3600 }").is_err());
    }

    #[test]
    fn the_first_entry_that_names_a_device_says_what_it_may_do() {
        let text = r#"
            [[devices]]
            dev_euis = ["0101010101010101"]
            [[devices]]
            join_euis = ["70B3D57ED0000000/40"]
            passive = { start = true }
            [[devices]]
            join_euis = ["0000000000000000/0"]
            handover = { activation = true }
        "#;
        let config: Config = toml::from_str(text).unwrap();
        let lets = |dev_eui: &str, join_eui: Option<&str>| {
            let lets = config.lets(dev_eui.parse().unwrap(), join_eui.map(|eui| eui.parse().unwrap()));
            let Lets { passive, handover, entry } = lets;
            (entry, [passive.start, passive.activation, handover.start, handover.activation])
        };
        assert_eq!(lets("0101010101010101", Some("70B3D57ED0000001")), (Some(0), [false; 4]));
        assert_eq!(
            lets("0202020202020202", Some("70B3D57ED0000001")),
            (Some(1), [true, false, false, false])
        );
        assert_eq!(
            lets("0202020202020202", Some("0000000000000001")),
            (Some(2), [false, false, false, true])
        );
        assert_eq!(lets("0202020202020202", None), (None, [true; 4]));
        assert_eq!(Config::default().lets(DevEui::from_msb([1; 8]), None).entry, None);
    }

    #[test]
    fn what_is_paid_for_is_named_after_its_rates() {
        let text =
            "[default]\nul = { rate = 60, bucket = 10, policy = \"drop\" }\n[[partner]]\nnet_id = \"000001\"";
        let config: Config = toml::from_str(text).unwrap();
        assert_eq!(config.agreement("000002".parse().unwrap()).terms().profile, "roamgate-ul60/10Drop");
        assert_eq!(config.agreement("000001".parse().unwrap()).terms().profile, "roamgate");
        for wrong in [
            "rate = 1",
            "rate = 1, bucket = 1, policy = \"Mark\"",
            "rate = -1, bucket = 1, policy = \"drop\"",
        ] {
            assert!(toml::from_str::<Config>(&format!("[default]\nul = {{ {wrong} }}")).is_err(), "{wrong}");
        }
    }
}
