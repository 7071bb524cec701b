//! Who may send to us. The protocol has no authentication, so addresses and EUIs are all there is.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::lorawan::GatewayEui;

/// An address, or a network of addresses: `192.168.1.0/24`, `fd00::/8`, `10.0.0.7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Text that is no network.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0:?} is neither an IP address nor a network such as 192.168.1.0/24")]
pub struct NoNetwork(String);

impl Network {
    const fn v4(a: u8, b: u8, prefix: u8) -> Network {
        Network { address: IpAddr::V4(Ipv4Addr::new(a, b, 0, 0)), prefix }
    }
    const fn v6(first: u16, last: u16, prefix: u8) -> Network {
        Network { address: IpAddr::V6(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, last)), prefix }
    }

    /// Whether an address lies inside. An IPv4 address mapped into IPv6 counts as IPv4.
    pub fn holds(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                let differ = ours.to_bits() ^ theirs.to_bits();
                differ.leading_zeros() >= u32::from(self.prefix)
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                let differ = ours.to_bits() ^ theirs.to_bits();
                differ.leading_zeros() >= u32::from(self.prefix)
            }
            _ => false,
        }
    }

    fn whole(&self) -> u8 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }
}

impl FromStr for Network {
    type Err = NoNetwork;
    fn from_str(text: &str) -> Result<Network, NoNetwork> {
        let wrong = || NoNetwork(text.chars().take(60).collect());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let mut network = Network { address, prefix: 0 };
        network.prefix = match prefix {
            Some(prefix) => prefix.parse().map_err(|_| wrong())?,
            None => network.whole(),
        };
        if network.prefix > network.whole() { Err(wrong()) } else { Ok(network) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}", self.address)?;
        if self.prefix == self.whole() { Ok(()) } else { write!(to, "/{}", self.prefix) }
    }
}
impl Serialize for Network {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Loopback, private, link-local and unique local addresses.
const LOCAL: [Network; 8] = [
    Network::v4(127, 0, 8),
    Network::v4(10, 0, 8),
    Network::v4(172, 16, 12),
    Network::v4(192, 168, 16),
    Network::v4(169, 254, 16),
    Network::v6(0, 1, 128),
    Network::v6(0xfe80, 0, 10),
    Network::v6(0xfc00, 0, 7),
];

/// Both lists together.
#[derive(Debug, Clone)]
pub struct Allow {
    gateways: BTreeSet<GatewayEui>,
    networks: Vec<Network>,
}

impl Allow {
    /// From the configuration. Without any list, whoever is on the local network may be a head;
    /// with a list of EUIs alone, those may come from anywhere.
    pub fn new(gateways: &[GatewayEui], networks: &[Network]) -> Allow {
        let nothing_listed = gateways.is_empty() && networks.is_empty();
        let networks = if nothing_listed { LOCAL.to_vec() } else { networks.to_vec() };
        Allow { gateways: gateways.iter().copied().collect(), networks }
    }

    /// The heads that are listed by EUI.
    pub fn listed(&self) -> impl Iterator<Item = GatewayEui> {
        self.gateways.iter().copied()
    }

    /// Whether a gateway at this address may be a head; else which line forbids it.
    pub fn admits(&self, gateway: GatewayEui, from: IpAddr) -> Result<(), &'static str> {
        if !self.gateways.is_empty() && !self.gateways.contains(&gateway) {
            return Err("its EUI is not in `gateways`");
        }
        if !self.networks.is_empty() && !self.networks.iter().any(|network| network.holds(from)) {
            return Err("its address is not in `allow_from` (without lists: not a local address)");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: GatewayEui = GatewayEui::from_msb([1; 8]);
    const B: GatewayEui = GatewayEui::from_msb([2; 8]);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_are_read_written_and_hold_their_addresses() {
        for (network, inside, outside) in [
            ("192.168.1.0/24", "192.168.1.77", "192.168.2.1"),
            ("10.0.0.7", "10.0.0.7", "10.0.0.8"),
            ("10.0.0.7", "::ffff:10.0.0.7", "::10.0.0.7"),
            ("0.0.0.0/0", "203.0.113.9", "2001:db8::1"),
            ("fd00::/8", "fd12::1", "fe80::1"),
            ("::/0", "2001:db8::1", "192.0.2.1"),
        ] {
            let parsed: Network = network.parse().unwrap();
            assert_eq!(parsed.to_string(), network);
            assert!(parsed.holds(ip(inside)) && !parsed.holds(ip(outside)), "{network}");
        }
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "host", "10.0.0.0/", "10.0.0.0/-1"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn without_lists_the_local_network_is_served_and_nobody_else() {
        let allow = Allow::new(&[], &[]);
        for local in ["127.0.0.1", "192.168.3.4", "172.31.0.1", "10.9.8.7", "::1", "fe80::2", "fd00::1"] {
            assert!(allow.admits(A, ip(local)).is_ok(), "{local}");
        }
        for far in ["203.0.113.9", "172.32.0.1", "2001:db8::1"] {
            assert!(allow.admits(A, ip(far)).is_err(), "{far}");
        }
    }

    #[test]
    fn lists_bind_each_for_itself() {
        let by_eui = Allow::new(&[A], &[]);
        assert!(by_eui.admits(A, ip("203.0.113.9")).is_ok());
        assert!(by_eui.admits(B, ip("127.0.0.1")).is_err());
        let by_address = Allow::new(&[], &["203.0.113.0/24".parse().unwrap()]);
        assert!(by_address.admits(B, ip("203.0.113.9")).is_ok());
        assert!(by_address.admits(B, ip("127.0.0.1")).is_err());
        let by_both = Allow::new(&[A], &["203.0.113.0/24".parse().unwrap()]);
        assert!(by_both.admits(A, ip("203.0.113.9")).is_ok());
        assert!(by_both.admits(A, ip("198.51.100.1")).is_err());
    }
}
