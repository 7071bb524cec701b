//! The configuration: one TOML file, environment overrides, defaults; loaded, checked, explained.
//!
//! Each room owns its section; this file puts them together and holds what concerns more than one room.
//! A wrong value stops the start and names key, line, reason and remedy. No file at all is a working
//! standalone hotspot.

mod check;
mod load;
mod place;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::backend::message::MacVersion;
use crate::lorawan::region::SubBands;
use crate::lorawan::{NetId, NsId, Region};
use crate::pki::enrol;
use crate::{application, backend, backup, discovery, front, js, partners, radio, registry, store, update};

pub use check::Refusal;
pub use load::{ConfigError, Loaded, Place, Problem, load, parse};

/// Where the file is when none is named.
pub const DEFAULT_PATH: &str = "/etc/roamgate/roamgate.toml";

/// The sections in the order in which a person reads them.
const SECTIONS: [&str; 14] = [
    "network",
    "store",
    "radio",
    "backend",
    "enrol",
    "front",
    "discovery",
    "roaming",
    "join_server",
    "application",
    "control",
    "registry",
    "backup",
    "update",
];

/// Everything that can be configured. The default is the standalone hotspot.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Who we are.
    pub network: Network,
    /// State at rest.
    pub store: store::Config,
    /// Radio heads and packet forwarders.
    pub radio: Vec<radio::Config>,
    /// The two ends of TS002. Absent: no partner can be asked or answered.
    pub backend: Option<backend::Config>,
    /// Our account at the federation's registry. Absent: certificates and records are brought by hand.
    pub enrol: Option<enrol::Config>,
    /// Where hotspots behind NAT are reached through us. Absent: we are no front.
    pub front: Option<front::Config>,
    /// How partners are found. Absent: only by `server` of their entries.
    pub discovery: Option<discovery::Config>,
    /// Who may roam how.
    pub roaming: partners::Config,
    /// Our join server.
    pub join_server: js::config::Config,
    /// Where events of our devices go.
    pub application: application::Config,
    /// The command line's door to a running daemon.
    pub control: control::Config,
    /// The federation's registry (`roamgate registry run`). Absent: this is none.
    pub registry: Option<registry::Config>,
    /// A backup now and then. Absent: by hand.
    pub backup: Option<backup::Config>,
    /// Who says which version is the newest. Absent: nobody.
    pub update: Option<update::Config>,
    /// The file that all this was read from.
    #[serde(skip)]
    pub file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            network: Network::default(),
            store: store::Config::default(),
            radio: vec![radio::Config::default()],
            backend: None,
            enrol: None,
            front: None,
            discovery: None,
            roaming: partners::Config::default(),
            join_server: js::config::Config::default(),
            application: application::Config::default(),
            control: control::Config::default(),
            registry: None,
            backup: None,
            update: None,
            file: None,
        }
    }
}

/// Section `[network]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Networks whose devices are ours; the first is the one we allocate addresses from.
    pub net_ids: NetIds,
    /// Channel plan.
    pub region: Region,
    /// Highest LoRaWAN version of new sessions. A device of a lower one keeps to its own.
    pub lorawan: MacVersion,
    /// The groups of eight channels that the gateways listen to, from 1; empty: all of them. US915, AU915 and
    /// CN470 only.
    pub sub_bands: Vec<u8>,
    /// How long a frame may be on the air; left out: as devices of the region begin. AS923 and AU915 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dwell_time: Option<DwellTime>,
    /// What this node is.
    pub roles: Roles,
    /// NSID: an EUI-64 of this network server, with which its requests are of TS002 1.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ns_id: Option<NsId>,
    /// Allow NetIDs 000000 and 000001 to roam: they belong to nobody.
    pub experimental: bool,
}

impl Default for Network {
    fn default() -> Network {
        Network {
            net_ids: NetIds(vec![NetId::from_msb([0, 0, 0])]),
            region: Region::eu868(),
            lorawan: MacVersion::V1_1,
            sub_bands: Vec::new(),
            dwell_time: None,
            roles: Roles::default(),
            ns_id: None,
            experimental: false,
        }
    }
}

impl Network {
    /// The channel plan with what is configured of it.
    pub fn plan(&self) -> Region {
        let plan = self.region.clone().with_sub_bands(SubBands::of(&self.sub_bands));
        match self.dwell_time {
            Some(dwell) => plan.with_dwell(dwell == DwellTime::Limited),
            None => plan,
        }
    }
}

/// Whether frames may be on the air for long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DwellTime {
    /// No longer than 400 ms.
    #[serde(rename = "400ms")]
    Limited,
    /// As long as they take.
    #[serde(rename = "none")]
    None,
}

/// At least one NetID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<NetId>")]
pub struct NetIds(Vec<NetId>);

impl NetIds {
    /// The network that addresses are allocated from.
    pub fn first(&self) -> NetId {
        // never empty: `try_from` is the only way to make one
        self.0.first().copied().unwrap_or(NetId::from_msb([0, 0, 0]))
    }
    /// All, the first first.
    pub fn all(&self) -> &[NetId] {
        &self.0
    }
    /// Whether a network is ours.
    pub fn contains(&self, net_id: NetId) -> bool {
        self.0.contains(&net_id)
    }
}

impl TryFrom<Vec<NetId>> for NetIds {
    type Error = &'static str;
    fn try_from(net_ids: Vec<NetId>) -> Result<NetIds, &'static str> {
        if net_ids.is_empty() { Err("net_ids must name at least one NetID") } else { Ok(NetIds(net_ids)) }
    }
}

impl From<NetId> for NetIds {
    fn from(net_id: NetId) -> NetIds {
        NetIds(vec![net_id])
    }
}

/// A role of TS002, or that of a front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Forwarding network server.
    Fns,
    /// Serving network server.
    Sns,
    /// Home network server.
    Hns,
    /// Join server.
    Js,
    /// Application server.
    As,
    /// Partners reach hotspots behind NAT through it.
    Front,
}

impl fmt::Display for Role {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Role::Fns => "fns",
            Role::Sns => "sns",
            Role::Hns => "hns",
            Role::Js => "js",
            Role::As => "as",
            Role::Front => "front",
        })
    }
}

/// At least one role; by default all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeSet<Role>")]
pub struct Roles(BTreeSet<Role>);

impl Roles {
    /// Whether this node is that.
    pub fn has(&self, role: Role) -> bool {
        self.0.contains(&role)
    }
    /// A front, and nothing of TS002.
    pub fn is_front_only(&self) -> bool {
        self.iter().eq([Role::Front])
    }
    /// All, in the order of an uplink.
    pub fn iter(&self) -> impl Iterator<Item = Role> + '_ {
        self.0.iter().copied()
    }
}

impl Default for Roles {
    fn default() -> Roles {
        Roles([Role::Fns, Role::Sns, Role::Hns, Role::Js, Role::As].into())
    }
}

impl TryFrom<BTreeSet<Role>> for Roles {
    type Error = &'static str;
    fn try_from(roles: BTreeSet<Role>) -> Result<Roles, &'static str> {
        if roles.is_empty() { Err("roles must name at least one role") } else { Ok(Roles(roles)) }
    }
}

/// Section `[control]`.
pub mod control {
    use std::path::PathBuf;

    use serde::{Deserialize, Serialize};

    /// Section `[control]`.
    #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    pub struct Config {
        /// The Unix socket; `control.sock` in the data folder where none is named.
        pub socket: Option<PathBuf>,
    }
}

impl Config {
    /// Where the control socket is.
    pub fn control_socket(&self) -> PathBuf {
        self.control.socket.clone().unwrap_or_else(|| self.store.folder().join("control.sock"))
    }

    /// Everything in force, with what follows from something else filled in.
    fn whole(&self) -> Config {
        let mut whole = self.clone();
        whole.control.socket = Some(whole.control_socket());
        whole.application.id = Some(self.application.id(self.network.net_ids.first()));
        whole
    }

    /// What a radio must know of the rest.
    pub fn surroundings(&self) -> radio::Surroundings {
        radio::Surroundings { region: self.network.plan(), state: self.store.folder() }
    }

    /// Everything with its defaults, for programs.
    pub fn to_json(&self) -> Result<serde_json::Value, serde_json::Error> {
        serde_json::to_value(self.whole())
    }

    /// Everything with its defaults, as a file that would be read the same.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        let mut all = toml::Table::try_from(self.whole())?;
        let sections = SECTIONS.iter().filter_map(|name| Some((name.to_string(), all.remove(*name)?)));
        // `radio = []` has no header of its own: below another section it would be read as one of its keys
        let (keys, sections): (Vec<_>, Vec<_>) =
            sections.partition(|(_, section)| section.as_array().is_some_and(Vec::is_empty));
        let mut text = String::new();
        for section in keys.into_iter().chain(sections) {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&toml::to_string(&toml::Table::from_iter([section]))?);
        }
        Ok(text)
    }
}
