//! Words of TS002 (LoRaWAN Backend Interfaces) and its two ends.

pub mod client;
pub mod door;
pub mod keywrap;
pub mod message;
pub mod server;

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

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
    /// Tell partners that a class A downlink may ride in their answer (between Roamgates).
    #[serde(default = "yes")]
    pub downlink_in_answer: bool,
}

fn yes() -> bool {
    true
}

/// A certificate chain and its key: both or neither.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Leaf and intermediate, PEM.
    pub chain: PathBuf,
    /// PEM, readable by the daemon only.
    pub key: PathBuf,
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
        assert!(parse("listen = \"[::]:443\"\nroots = [\"r\"]").is_err());
        assert!(parse("identity = { chain = \"c\", key = \"k\" }\nport = 1").is_err());
    }
}
