//! Words of TS002 (LoRaWAN Backend Interfaces) and its two ends.

pub mod client;
pub mod door;
pub mod keywrap;
pub mod manners;
pub mod mapping;
pub mod message;
pub mod pending;
pub mod server;
pub mod tokens;
pub mod tunnel;

use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::limits::Lifetime;

/// Section `[backend]`: the two ends of TS002.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where partners reach us. Absent: nobody does; we ask, and downlinks ride in the answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// What we show them.
    pub identity: Identity,
    /// Whom we believe: PEM files of roots, never the system's.
    #[serde(default)]
    pub roots: Vec<PathBuf>,
    /// Certificates that count no more, by serial number (hex digits) or pin (`sha256/...`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
    /// Lists of what authorities have revoked (RFC 5280): PEM or DER files, or `http://` addresses that are asked again every
    /// ten minutes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub crls: Vec<String>,
    /// How partners reach us where `listen` alone does not do.
    #[serde(default, skip_serializing_if = "Reachability::is_direct")]
    pub reachability: Reachability,
    /// Tell partners that a class A downlink may ride in their answer (between Roamgates).
    #[serde(default = "yes")]
    pub downlink_in_answer: bool,
    /// A partner that was asked within so long has a connection kept open, so that a data frame need not wait for a handshake.
    #[serde(default = "an_hour")]
    pub keep_warm: Lifetime,
    /// How often partners may ask.
    #[serde(default)]
    pub limits: Limits,
}

fn an_hour() -> Lifetime {
    Lifetime::of_seconds(3600)
}

/// How partners reach a box that may be behind NAT.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reachability {
    /// At `listen`, if anywhere.
    #[default]
    Direct,
    /// At a port of the router, which is asked to forward it to `listen`.
    Mapped(Mapped),
    /// Through fronts, all of them at the same time.
    Relay(Vec<Front>),
}

/// What the router is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mapped {
    /// The port of the router; that of `listen` where none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<NonZeroU16>,
    /// The router; that of the default route where none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

impl Reachability {
    fn is_direct(&self) -> bool {
        *self == Reachability::Direct
    }

    /// Where partners come through.
    pub fn fronts(&self) -> &[Front] {
        match self {
            Reachability::Direct | Reachability::Mapped(_) => &[],
            Reachability::Relay(fronts) => fronts,
        }
    }
}

/// A Roamgate with role `front`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Front {
    /// `HOST:PORT`; its certificate carries the host.
    pub server: String,
    /// Its key (`sha256/...`), where no root of ours vouches for it with name constraints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin: Option<String>,
}

/// Requests a second of one peer; those of three seconds may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Of a network that `[[roaming.partner]]` lists.
    pub partner: NonZeroU32,
    /// Of one that only `[roaming.default]` admits.
    pub stranger: NonZeroU32,
}

impl Default for Limits {
    fn default() -> Limits {
        let number = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        Limits { partner: number(2000), stranger: number(500) }
    }
}

fn yes() -> bool {
    true
}

/// A certificate chain and its key: both or neither.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Files", into = "Files")]
pub enum Identity {
    /// Two files that somebody else keeps.
    Files {
        /// Leaf and intermediate, PEM.
        chain: PathBuf,
        /// PEM, readable by the daemon only.
        key: PathBuf,
    },
    /// The folder that `roamgate pki request` and `install` keep.
    Folder(PathBuf),
}

impl Identity {
    /// Leaf and intermediate, PEM.
    pub fn chain(&self) -> PathBuf {
        match self {
            Identity::Files { chain, .. } => chain.clone(),
            Identity::Folder(folder) => folder.join("current/chain.pem"),
        }
    }

    /// PEM, readable by the daemon only.
    pub fn key(&self) -> PathBuf {
        match self {
            Identity::Files { key, .. } => key.clone(),
            Identity::Folder(folder) => folder.join("current/key.pem"),
        }
    }
}

/// As it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Files {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chain: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    folder: Option<PathBuf>,
}

impl TryFrom<Files> for Identity {
    type Error = &'static str;

    fn try_from(files: Files) -> Result<Identity, Self::Error> {
        match files {
            Files { chain: Some(chain), key: Some(key), folder: None } => Ok(Identity::Files { chain, key }),
            Files { chain: None, key: None, folder: Some(folder) } => Ok(Identity::Folder(folder)),
            // one reason for all of them, so that the configuration's reader finds the whole of it guilty
            _ => Err("missing field `key` or `chain`: it has both of them, or `folder` alone"),
        }
    }
}

impl From<Identity> for Files {
    fn from(identity: Identity) -> Files {
        match identity {
            Identity::Files { chain, key } => Files { chain: Some(chain), key: Some(key), folder: None },
            Identity::Folder(folder) => Files { chain: None, key: None, folder: Some(folder) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_an_identity_is_no_configuration() {
        let parse = |text: &str| toml::from_str::<Config>(text);
        let client = parse("identity = { chain = \"c\", key = \"k\" }\nroots = [\"r\"]").unwrap();
        assert_eq!(client.listen, None);
        assert!(parse("identity = { chain = \"c\" }\nroots = [\"r\"]").is_err());
        assert!(
            parse("identity = { chain = \"c\", folder = \"f\" }").is_err() && parse("identity = {}").is_err()
        );
        let kept = parse("identity = { folder = \"f\" }").unwrap();
        assert_eq!(kept.identity.chain(), PathBuf::from("f/current/chain.pem"));
        assert_eq!(toml::from_str::<Config>(&toml::to_string(&kept).unwrap()).unwrap(), kept);
        assert!(parse("listen = \"[::]:443\"\nroots = [\"r\"]").is_err());
        assert!(parse("identity = { chain = \"c\", key = \"k\" }\nport = 1").is_err());
        let reached = |text: &str| {
            parse(&format!("identity = {{ chain = \"c\", key = \"k\" }}\nreachability = {text}"))
                .map(|config| config.reachability)
        };
        assert_eq!(reached("\"direct\"").unwrap(), Reachability::Direct);
        let port = NonZeroU16::new(443);
        let mapped = reached("{ mapped = { port = 443 } }").unwrap();
        assert_eq!(mapped, Reachability::Mapped(Mapped { port, gateway: None }));
        assert!(
            reached("{ mapped = { port = 0 } }").is_err()
                && reached("{ mapped = { host = \"a\" } }").is_err()
        );
        let relay = reached("{ relay = [{ server = \"front.example:443\" }] }").unwrap();
        assert_eq!(relay.fronts(), [Front { server: "front.example:443".into(), pin: None }]);
        assert!(reached("\"relay\"").is_err() && reached("{ relay = [{ host = \"a\" }] }").is_err());
        assert_eq!(client.keep_warm.seconds(), 3600);
        let limits =
            |text: &str| parse(&format!("identity = {{ chain = \"c\", key = \"k\" }}\nlimits = {text}"));
        let limited = limits("{ stranger = 5 }").unwrap().limits;
        assert_eq!((limited.partner.get(), limited.stranger.get()), (2000, 5));
        assert!(limits("{ stranger = 0 }").is_err());
    }
}
