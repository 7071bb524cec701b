//! Words of TS002 (LoRaWAN Backend Interfaces) and its two ends.

pub mod client;
pub mod door;
pub mod keywrap;
pub mod message;
pub mod server;

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Section `[backend]`: without it no partner is asked or answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where partners reach us. Absent: we only ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// What we show partners, asking and answering.
    pub identity: Identity,
    /// Whose certificates count: files of root certificates.
    pub roots: Vec<PathBuf>,
}

/// A certificate and its key: both or neither.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// PEM: leaf, then intermediate.
    pub chain: PathBuf,
    /// PEM: the leaf's private key.
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
        assert!(parse("identity = { chain = \"c\", key = \"k\" }").is_err());
        assert!(parse("identity = { chain = \"c\", key = \"k\" }\nroots = []\nport = 1").is_err());
    }
}
