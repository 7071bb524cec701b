//! Everything that makes a node this node, in one file that only its owner can open: database, keys, nonces, counters, certificates,
//! configuration.
//!
//! [`archive`] knows the file (age, gzip, tar), [`shelf`] where such files are kept and for how long, [`kept`] those of partners that are kept
//! here. Whoever makes one says what is in it.

pub mod archive;
pub mod kept;
pub mod shelf;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::limits::Lifetime;
use crate::lorawan::NetId;
use archive::Recipient;

/// Section `[backup]`: a backup now and then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Who can open it: age recipients, as `roamgate backup key` prints one. The key that opens is not kept here.
    pub recipients: Vec<Recipient>,
    /// How often.
    #[serde(default = "daily")]
    pub every: Lifetime,
    /// How many are kept at each place; the oldest go. (A partner keeps as much as its own configuration says.)
    #[serde(default = "fortnight")]
    pub keep: usize,
    /// A folder: a stick, a share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
    /// A bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<shelf::Bucket>,
    /// A partner's hotspot that keeps them for us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partner: Option<NetId>,
}

fn daily() -> Lifetime {
    Lifetime::of_seconds(86_400)
}

fn fortnight() -> usize {
    14
}
