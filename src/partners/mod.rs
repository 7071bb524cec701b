//! Who may roam how: listed partners, the federation's default, and the line that decided.
//!
//! Pure: configuration in, agreement out.

use serde::{Deserialize, Serialize};

use crate::lorawan::NetId;

/// Section `[roaming]`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Anyone the federation's root vouches for. Absent: strangers do not roam.
    pub default: Option<Rules>,
    /// Agreements with single networks; a listed partner never falls back to the default.
    pub partner: Vec<Partner>,
}

/// What is allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// Passive roaming.
    pub passive: Passive,
}

/// Passive roaming rules (TS002 section 14).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Passive {
    /// Data of running sessions.
    pub start: bool,
    /// Joins.
    pub activation: bool,
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
    /// Where its backend interface is: overrides DNS.
    pub server: Option<String>,
    /// The certificate's name, where it is not the NetID's.
    pub identity: Option<String>,
    /// SenderIDs it may use beside its own: a hub sends its members'.
    #[serde(default)]
    pub speaks_for: Vec<NetId>,
    /// `sha256/BASE64` of the leaf's public key info: accepted even without name constraints above it.
    pub pin: Option<String>,
}

/// What applies to one network, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreement {
    /// What is allowed.
    pub passive: Passive,
    /// The configuration line that decided, for logs and refusals.
    pub line: String,
}

impl Config {
    /// The agreement with a network.
    pub fn agreement(&self, net_id: NetId) -> Agreement {
        if let Some(partner) = self.partner(net_id) {
            let line = format!("[[roaming.partner]] net_id = \"{net_id}\"");
            return Agreement { passive: partner.passive.clone(), line };
        }
        match &self.default {
            Some(rules) => Agreement { passive: rules.passive.clone(), line: "[roaming.default]".into() },
            None => Agreement {
                passive: Passive::default(),
                line: "no [roaming.default], and the network is no [[roaming.partner]]".into(),
            },
        }
    }

    /// The entry of a listed partner.
    pub fn partner(&self, net_id: NetId) -> Option<&Partner> {
        self.partner.iter().find(|partner| partner.net_id == net_id)
    }

    /// Whether anything roams at all.
    pub fn roams(&self) -> bool {
        let rules = self.default.iter().map(|rules| &rules.passive);
        rules.chain(self.partner.iter().map(|partner| &partner.passive)).any(|p| p.start || p.activation)
    }
}
