//! Section `[discovery]`: whom to ask, what an answer has to be, and how the federation names its members.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use rustls_pki_types::ServerName;
use serde::{Deserialize, Deserializer, Serialize};

use super::super::cache::{Limits, Security};
use super::super::name::{self, Suffix};
use crate::pki::dane::Evidence;

/// Section `[discovery]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What stands behind the digits of a JoinEUI.
    pub join_eui_suffix: Suffix,
    /// What stands behind the digits of a NetID.
    pub net_id_suffix: Suffix,
    /// The TCP port of partners found by address records alone.
    pub port: u16,
    /// The path of the URL of partners found by the DNS, where it names none. Begins with a slash.
    #[serde(deserialize_with = "path")]
    pub path: String,
    /// How long answers are believed.
    pub cache: Limits,
    /// Whom to ask.
    pub resolvers: Vec<Server>,
    /// Who may vouch for resolvers that are asked over TLS: PEM files of roots, never the system's.
    pub tls_roots: Vec<PathBuf>,
    /// What an answer has to be.
    pub dnssec: Dnssec,
    /// Believe the AD bit of a validating resolver on this machine instead of validating. Needed where a zone
    /// of the federation has wildcards that stand for one label: our own validation calls their answers bogus.
    pub trust_ad: bool,
    /// Whether TLSA records count.
    pub dane: Dane,
    /// A file of DNSKEY records in presentation form: every DNSKEY of each zone in it. The root's are known already.
    pub trust_anchor: Option<PathBuf>,
}

fn path<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let path = String::deserialize(from)?;
    let fits =
        |b: u8| b.is_ascii_graphic() && !matches!(b, b'?' | b'#' | b'"' | b'<' | b'>' | b'`' | b'{' | b'}');
    match path.starts_with('/') && path.bytes().all(fits) {
        true => Ok(path),
        false => Err(serde::de::Error::custom(format!(
            "a path begins with a slash and is part of a URL, not {path:?}"
        ))),
    }
}

/// What DNSSEC has to say before an answer counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dnssec {
    /// Signed.
    #[default]
    Require,
    /// Signed, or proven to be unsigned.
    Prefer,
    /// Nothing: signatures are not looked at.
    Off,
}

impl Dnssec {
    /// Whether an answer of which this is said may be used.
    pub fn takes(self, security: Security) -> bool {
        match (self, security) {
            (_, Security::Secure) | (Dnssec::Off, _) => true,
            (Dnssec::Prefer, security) => security == Security::Insecure,
            (Dnssec::Require, _) => false,
        }
    }
}

impl FromStr for Dnssec {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "require" => Ok(Dnssec::Require),
            "prefer" => Ok(Dnssec::Prefer),
            "off" => Ok(Dnssec::Off),
            _ => Err(format!("dnssec is require, prefer or off, not {text:?}")),
        }
    }
}

/// What TLSA records have to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dane {
    /// There must be one, and it must fit.
    Require,
    /// If there is one, it must fit.
    #[default]
    Prefer,
    /// They are not asked for.
    Off,
}

impl Dane {
    /// Whose word counts for a certificate.
    pub fn evidence(self) -> Evidence {
        match self {
            Dane::Require => Evidence::PkixAndDane,
            Dane::Prefer => Evidence::PkixAndDaneIfAny,
            Dane::Off => Evidence::Pkix,
        }
    }
}

/// A resolver to ask.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum Server {
    /// Those of `/etc/resolv.conf`.
    System,
    /// This one.
    At(SocketAddr),
    /// This one over TLS (RFC 7858).
    Tls {
        /// Where.
        at: SocketAddr,
        /// The name in its certificate.
        name: String,
    },
}

impl FromStr for Server {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "system" {
            return Ok(Server::System);
        }
        let address = |text: &str, port| {
            let whole = text.parse::<SocketAddr>().ok();
            whole.or_else(|| Some(SocketAddr::new(text.trim_matches(['[', ']']).parse().ok()?, port)))
        };
        if let Some(text) = text.strip_prefix("tls://") {
            let parts = text.split_once('#').map(|(at, name)| (address(at, 853), name.to_ascii_lowercase()));
            return match parts {
                Some((Some(at), name)) if ServerName::try_from(name.as_str()).is_ok() => {
                    Ok(Server::Tls { at, name })
                }
                _ => Err(format!(
                    "a resolver over TLS is tls://IP#NAME, with its address and the name in its certificate, not \"tls://{text}\""
                )),
            };
        }
        address(text, 53).map(Server::At).ok_or_else(|| {
            format!(
                "a resolver is \"system\", an IP address, an IP address with a port, or tls://IP#NAME, not {text:?}"
            )
        })
    }
}
impl From<Server> for String {
    fn from(server: Server) -> String {
        match server {
            Server::System => "system".to_owned(),
            Server::At(address) => address.to_string(),
            Server::Tls { at, name } => format!("tls://{at}#{name}"),
        }
    }
}
impl TryFrom<String> for Server {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            join_eui_suffix: name::default_join_eui_suffix(),
            net_id_suffix: name::default_net_id_suffix(),
            port: 443,
            path: "/".into(),
            cache: Limits::default(),
            resolvers: vec![Server::System],
            tls_roots: Vec::new(),
            dnssec: Dnssec::default(),
            trust_ad: false,
            dane: Dane::default(),
            trust_anchor: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_section_has_defaults_and_tolerates_no_misspelling() {
        let config: Config = toml::from_str(
            r#"resolvers = ["system", "192.0.2.53", "127.0.0.1:5353", "2001:db8::53", "[2001:db8::53]:54",
                            "tls://192.0.2.53#Dns.example", "tls://[2001:db8::53]:8853#192.0.2.9"]
               dnssec = "prefer"
               cache = { least = "10s", stale = "0s" }
               join_eui_suffix = ".JoinEUIs.iotroam.example.""#,
        )
        .unwrap();
        let port = |server: &Server| match server {
            Server::System => 0,
            Server::At(address) => address.port(),
            Server::Tls { at, .. } => at.port(),
        };
        assert_eq!(config.resolvers.iter().map(port).collect::<Vec<_>>(), [0, 53, 5353, 53, 54, 853, 8853]);
        let name = config.resolvers.iter().find_map(|server| match server {
            Server::Tls { name, .. } => Some(name.as_str()),
            _ => None,
        });
        assert_eq!(name, Some("dns.example"));
        assert_eq!((config.dnssec, config.port, config.dane), (Dnssec::Prefer, 443, Dane::Prefer));
        let limits = config.cache;
        assert_eq!([limits.least, limits.most, limits.stale].map(|time| time.seconds()), [10, 3600, 0]);
        assert_eq!(config.join_eui_suffix.as_str(), "joineuis.iotroam.example");
        assert_eq!(config.net_id_suffix.as_str(), "netids.lorawan.net");
        assert_eq!(toml::from_str::<Config>(&toml::to_string(&config).unwrap()).unwrap(), config);
        for wrong in [
            "dnsec = \"off\"",
            "dnssec = \"on\"",
            "resolvers = [\"tls://dns.example\"]",
            "resolvers = [\"tls://192.0.2.53\"]",
            "resolvers = [\"tls://192.0.2.53#\"]",
            "resolvers = [\"tls://192.0.2.53#a b\"]",
            "net_id_suffix = \".\"",
            "path = \"api\"",
            "cache = { least = \"soon\" }",
            "cache = { lest = \"5s\" }",
            "path = \"/a b\"",
        ] {
            assert!(toml::from_str::<Config>(wrong).is_err(), "{wrong}");
        }
    }
}
