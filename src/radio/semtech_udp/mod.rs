//! Packet forwarders that speak Semtech's UDP protocol, version 2, as radio heads.

pub mod codec;

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{Radio, RadioError};
use crate::clock::Clock;
use crate::lorawan::GatewayEui;

/// `[[radio]] kind = "semtech-udp"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// For people and logs; the address where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where forwarders send to.
    pub listen: SocketAddr,
    /// The gateways that may be our heads; empty: any (see `allow_from`).
    pub gateways: Vec<GatewayEui>,
}

impl Default for Config {
    fn default() -> Config {
        Config { name: None, listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 1700)), gateways: Vec::new() }
    }
}

/// Bind the socket and start to serve.
pub async fn open(config: &Config, _clock: &Clock) -> Result<Radio, RadioError> {
    Err(RadioError::Bind {
        name: config.name.clone().unwrap_or_default(),
        listen: config.listen,
        source: std::io::ErrorKind::Unsupported.into(),
    })
}
