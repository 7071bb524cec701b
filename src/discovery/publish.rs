//! What a node needs in the DNS so that others find it: the records to publish (TS002 section 19, RFC 6698).
//!
//! Pure: nobody is asked and nothing is read. `roamgate dns zone` prints what comes of it, `dns check` compares.

use std::net::IpAddr;

use hickory_proto::rr::rdata::tlsa::{CertUsage, Matching, Selector};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NAPTR, SRV, TLSA};
use hickory_proto::rr::{Name, RData, RecordType};

use super::name::{Suffix, join_eui_name, join_eui_subtree, net_id_name};
use crate::lorawan::{JoinEuiRange, NetId};

/// What is known of a node.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its networks.
    pub net_ids: Vec<NetId>,
    /// What its join server serves.
    pub join_euis: Vec<JoinEuiRange>,
    /// Of the federation.
    pub net_id_suffix: Suffix,
    /// Of the federation.
    pub join_eui_suffix: Suffix,
    /// A name of its own, to which blocks of JoinEUIs lead.
    pub host: Option<String>,
    /// Where it is.
    pub addresses: Vec<IpAddr>,
    /// The TCP port at which partners reach it.
    pub port: u16,
    /// SHA-256 of its public keys: the present one, and the next where one is made.
    pub keys: Vec<[u8; 32]>,
    /// Of every record, in seconds.
    pub ttl: u32,
}

/// Where address records alone lead partners.
pub const USUAL_PORT: u16 = 443;

/// The records of one type at one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Without final dot, lower case.
    pub name: String,
    /// The name to ask for them: of a wildcard one that it stands for.
    pub ask: String,
    /// What kind.
    pub kind: RecordType,
    /// In seconds.
    pub ttl: u32,
    /// At least one.
    pub data: Vec<RData>,
}

/// Text that is no name of the DNS.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no name of the DNS")]
pub struct NoName(pub String);

impl Set {
    /// Lines of a zone file.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.data.iter().map(|data| format!("{}. {} IN {} {data}", self.name, self.ttl, self.kind))
    }
}

/// Everything that has to be published for a node.
pub fn wanted(node: &Node) -> Result<Vec<Set>, NoName> {
    let mut zone = Zone { node, sets: Vec::new() };
    for net_id in &node.net_ids {
        let name = net_id_name(*net_id, &node.net_id_suffix);
        zone.server(&name)?;
        zone.keys(&format!("_ns-client.{name}"));
    }
    let mut is_pointed_to = false;
    for range in &node.join_euis {
        if range.bits() == 64 {
            zone.server(&join_eui_name(range.prefix(), &node.join_eui_suffix))?;
            continue;
        }
        let name = format!("*.{}", join_eui_subtree(*range, &node.join_eui_suffix));
        let from = zone.sets.len();
        match &node.host {
            Some(host) => {
                zone.put(name, RecordType::CNAME, vec![RData::CNAME(CNAME(absolute(host)?))]);
                is_pointed_to = true;
            }
            None => zone.addresses(&name),
        }
        zone.asked_by(*range, from);
    }
    if let Some(host) = node.host.as_ref().filter(|_| is_pointed_to) {
        zone.server(host)?;
    }
    Ok(zone.sets)
}

struct Zone<'a> {
    node: &'a Node,
    sets: Vec<Set>,
}

impl Zone<'_> {
    fn put(&mut self, name: String, kind: RecordType, data: Vec<RData>) {
        if !data.is_empty() {
            self.sets.push(Set { ask: name.clone(), name, kind, ttl: self.node.ttl, data });
        }
    }

    /// What was put last is a block's.
    fn asked_by(&mut self, range: JoinEuiRange, from: usize) {
        let ask = join_eui_name(range.prefix(), &self.node.join_eui_suffix);
        self.sets.iter_mut().skip(from).for_each(|set| set.ask = ask.clone());
    }

    /// A name at which a server is found.
    fn server(&mut self, name: &str) -> Result<(), NoName> {
        self.addresses(name);
        let port = self.node.port;
        if port != USUAL_PORT {
            let service = absolute(&format!("_lwns._tcp.{name}"))?;
            let bytes = |text: &str| text.as_bytes().into();
            let rule = NAPTR::new(10, 10, bytes("S"), bytes("LWNS"), bytes(""), service);
            self.put(name.to_owned(), RecordType::NAPTR, vec![RData::NAPTR(rule)]);
            let service = SRV::new(0, 0, port, absolute(name)?);
            self.put(format!("_lwns._tcp.{name}"), RecordType::SRV, vec![RData::SRV(service)]);
        }
        self.keys(&format!("_{port}._tcp.{name}"));
        Ok(())
    }

    fn addresses(&mut self, name: &str) {
        let of = |pick: fn(&IpAddr) -> Option<RData>| self.node.addresses.iter().filter_map(pick).collect();
        let v6 = of(|ip| match ip {
            IpAddr::V6(ip) => Some(RData::AAAA(AAAA(*ip))),
            IpAddr::V4(_) => None,
        });
        let v4 = of(|ip| match ip {
            IpAddr::V4(ip) => Some(RData::A(A(*ip))),
            IpAddr::V6(_) => None,
        });
        self.put(name.to_owned(), RecordType::AAAA, v6);
        self.put(name.to_owned(), RecordType::A, v4);
    }

    /// Usage 3, selector 1, matching 1: this key, whoever has signed its certificate.
    fn keys(&mut self, name: &str) {
        let record = |key: &[u8; 32]| {
            RData::TLSA(TLSA::new(CertUsage::DaneEe, Selector::Spki, Matching::Sha256, key.to_vec()))
        };
        self.put(name.to_owned(), RecordType::TLSA, self.node.keys.iter().map(record).collect());
    }
}

fn absolute(name: &str) -> Result<Name, NoName> {
    let mut fqdn = Name::from_ascii(name.to_ascii_lowercase()).map_err(|_| NoName(name.to_owned()))?;
    fqdn.set_fqdn(true);
    Ok(fqdn)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Node {
        Node {
            net_ids: vec!["00050A".parse().unwrap()],
            join_euis: vec!["00005E100000002F".parse().unwrap(), "70B3D57ED0000000/40".parse().unwrap()],
            net_id_suffix: "netids.example".parse().unwrap(),
            join_eui_suffix: "joineuis.example".parse().unwrap(),
            host: Some("js.operator.example".into()),
            addresses: vec!["192.0.2.5".parse().unwrap(), "2001:db8::5".parse().unwrap()],
            port: 443,
            keys: vec![[0xAB; 32]],
            ttl: 60,
        }
    }

    fn zone(node: &Node) -> Vec<String> {
        wanted(node).unwrap().iter().flat_map(Set::lines).map(|line| line.to_ascii_lowercase()).collect()
    }

    #[test]
    fn a_node_at_the_usual_port_needs_addresses_and_its_key() {
        let key = "ab".repeat(32);
        let join = "f.2.0.0.0.0.0.0.0.1.e.5.0.0.0.0.joineuis.example.";
        assert_eq!(
            zone(&node()),
            [
                "00050a.netids.example. 60 in aaaa 2001:db8::5".to_owned(),
                "00050a.netids.example. 60 in a 192.0.2.5".into(),
                format!("_443._tcp.00050a.netids.example. 60 in tlsa 3 1 1 {key}"),
                format!("_ns-client.00050a.netids.example. 60 in tlsa 3 1 1 {key}"),
                format!("{join} 60 in aaaa 2001:db8::5"),
                format!("{join} 60 in a 192.0.2.5"),
                format!("_443._tcp.{join} 60 in tlsa 3 1 1 {key}"),
                "*.0.d.e.7.5.d.3.b.0.7.joineuis.example. 60 in cname js.operator.example.".into(),
                "js.operator.example. 60 in aaaa 2001:db8::5".into(),
                "js.operator.example. 60 in a 192.0.2.5".into(),
                format!("_443._tcp.js.operator.example. 60 in tlsa 3 1 1 {key}"),
            ]
        );
    }

    #[test]
    fn a_block_is_asked_for_by_a_name_that_it_stands_for() {
        let sets = wanted(&node()).unwrap();
        let asked = |set: &&Set| set.ask != set.name;
        let asked: Vec<_> = sets.iter().filter(asked).map(|set| (set.kind, set.ask.as_str())).collect();
        let name = "0.0.0.0.0.0.0.d.e.7.5.d.3.b.0.7.joineuis.example";
        assert_eq!(asked, [(RecordType::CNAME, name)]);
    }

    #[test]
    fn another_port_needs_naptr_and_srv_and_a_block_without_a_host_its_addresses() {
        let node = Node { port: 7005, host: None, keys: vec![], ..node() };
        let zone = zone(&node);
        for line in [
            "00050a.netids.example. 60 in naptr 10 10 \"s\" \"lwns\" \"\" _lwns._tcp.00050a.netids.example.",
            "_lwns._tcp.00050a.netids.example. 60 in srv 0 0 7005 00050a.netids.example.",
            "*.0.d.e.7.5.d.3.b.0.7.joineuis.example. 60 in a 192.0.2.5",
        ] {
            assert!(zone.iter().any(|known| known == line), "{line}: {zone:#?}");
        }
        assert!(zone.iter().all(|line| !line.contains("tlsa")));
    }

    #[test]
    fn a_key_that_is_to_follow_is_published_beside_the_present_one() {
        let node = Node { keys: vec![[1; 32], [2; 32]], ..node() };
        let tlsa = zone(&node).iter().filter(|line| line.starts_with("_ns-client.")).count();
        assert_eq!(tlsa, 2);
    }

    #[test]
    fn a_host_that_is_no_name_is_refused() {
        let host = Some("a..b".to_owned());
        assert_eq!(wanted(&Node { host, ..node() }).err(), Some(NoName("a..b".into())));
    }
}
