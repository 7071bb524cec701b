//! Who may roam how, as JSON.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::discovery::cache::Line;
use crate::limits::RateLimit;
use crate::lorawan::NetId;
use crate::partners::{Lifetime, Mode, Passive, Quirk, Switches};
use crate::pki::dane::Evidence;

/// Answer to `GET /v1/partners`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartnersView {
    /// Every network with an entry, then those that join servers have named as homes.
    pub partners: Vec<PartnerView>,
    /// Every network that has no entry.
    pub everybody_else: Everybody,
}

/// What applies to networks without an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Everybody {
    /// What is allowed.
    pub passive: Passive,
    /// What is allowed.
    #[serde(default)]
    pub handover: Switches,
    /// The configuration line that decided.
    pub decided_by: String,
}

/// What applies to one network, and where it is. Answer to `GET /v1/partners/{net_id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartnerView {
    /// Who.
    pub net_id: NetId,
    /// It is ours: nothing has to be agreed with it.
    pub ours: bool,
    /// It has an entry of its own.
    pub listed: bool,
    /// Whose word counts for its certificate.
    #[serde(default = "by_root")]
    pub trust: Evidence,
    /// What is allowed.
    pub passive: Passive,
    /// What is allowed.
    #[serde(default)]
    pub handover: Switches,
    /// How much of the air it may have in a day; absent: no limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub airtime: Option<Lifetime>,
    /// What we pay for of the uplinks of a device of ours that roams there; absent: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ul: Option<RateLimit>,
    /// The same of downlinks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dl: Option<RateLimit>,
    /// The configuration line that decided.
    pub decided_by: String,
    /// Where its server would be found.
    pub server: Whereabouts,
    /// The name that its certificate must carry.
    pub identity: String,
    /// Its key, where the entry pins one.
    pub pin: Option<String>,
    /// The version of TS002 in which it is asked.
    #[serde(default)]
    pub asked_in: String,
    /// What it does or wants otherwise.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub quirks: BTreeSet<Quirk>,
    /// How it is answered.
    #[serde(default)]
    pub mode: Mode,
    /// Roots of its entry vouch for it, and not those of the federation alone.
    #[serde(default)]
    pub own_roots: bool,
    /// The label of the key-encryption key that is agreed with it.
    #[serde(default)]
    pub kek: Option<String>,
    /// SenderIDs it may use beside its own.
    pub speaks_for: Vec<NetId>,
    /// Networks that may speak for it.
    pub spoken_for_by: Vec<NetId>,
    /// Whether a join server has named it as the home of a visitor; absent where no daemon was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learnt: Option<bool>,
}

/// What an older daemon does not say.
fn by_root() -> Evidence {
    Evidence::Pkix
}

impl PartnerView {
    /// What the DNS has said of its name.
    pub fn found(&mut self, lines: &[Line]) {
        if let Whereabouts::Dns { name, answer } = &mut self.server {
            *answer = lines.iter().find(|line| line.name == *name).cloned();
        }
    }
}

/// Where a server would be found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "lowercase")]
pub enum Whereabouts {
    /// `server` of its entry says so, instead of the DNS.
    Configuration {
        /// `https://…`
        url: String,
    },
    /// Under a name that the DNS is asked for.
    Dns {
        /// Without final dot.
        name: String,
        /// What it said last, as far as that is remembered.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answer: Option<Line>,
    },
    /// Nobody is asked.
    Nowhere {
        /// Why not.
        why: String,
    },
}
