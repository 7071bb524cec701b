//! What a member may put into the zone, and where: decisions without a database or a socket.

use hickory_proto::rr::{Name, RData, RecordType};
use serde::{Deserialize, Serialize};

use crate::discovery::Suffix;
use crate::discovery::name::{dev_eui_name, join_eui_name, join_eui_subtree, net_id_name};
use crate::lorawan::{DevEui, JoinEui, JoinEuiRange, NetId};
use crate::store::registry::Claim;

/// TTLs that a record may have, seconds.
const TTLS: std::ops::RangeInclusive<u32> = 30..=86_400;
/// TTL where none is given, seconds.
const USUAL_TTL: u32 = 300;
/// Records of one name, at most.
const MOST_RECORDS: usize = 32;
/// Characters of a record, at most.
const LONGEST: usize = 1024;
/// Nobody has more JoinEUIs than one OUI.
pub const WIDEST_BLOCK: u8 = 24;
/// Record types that members may use.
const TYPES: [RecordType; 8] = [
    RecordType::A,
    RecordType::AAAA,
    RecordType::CNAME,
    RecordType::DS,
    RecordType::NAPTR,
    RecordType::NS,
    RecordType::SRV,
    RecordType::TLSA,
];

/// Why a member's wish is not fulfilled: its move.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Somebody else's, or nobody's.
    #[error("{0} is not yours")]
    NotYours(String),
    /// It is taken.
    #[error("{0} belongs to another member")]
    Taken(String),
    /// A record that cannot be.
    #[error("record {kind} {data:?}: {why}")]
    Record {
        /// Its type.
        kind: String,
        /// As given.
        data: String,
        /// What is wrong with it.
        why: String,
    },
    /// Records that cannot stand together.
    #[error("{0}")]
    Set(&'static str),
    /// A name that cannot stand there.
    #[error(
        "{0:?} cannot stand below a name: it is one or two labels that begin with an underscore, such as _443._tcp"
    )]
    Under(String),
    /// Too wide.
    #[error("{0} is wider than a manufacturer's OUI ({WIDEST_BLOCK} bits)")]
    Width(JoinEuiRange),
    /// Something else stands in the way in the zone.
    #[error("{0}")]
    InTheWay(String),
    /// There is no such thing.
    #[error("there is no {0}")]
    Missing(String),
    /// The key does not allow it.
    #[error("{0}")]
    Forbidden(&'static str),
    /// Anything else that is wrong with it.
    #[error("{0}")]
    Invalid(String),
}

/// What has a name in the zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thing {
    /// A network.
    Net(NetId),
    /// One JoinEUI, or a block of them.
    Join(JoinEuiRange),
    /// A device whose join server is not that of its JoinEUI.
    Device(JoinEui, DevEui),
}

impl std::fmt::Display for Thing {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Thing::Net(net_id) => write!(to, "NetID {net_id}"),
            Thing::Join(range) if range.bits() == 64 => write!(to, "JoinEUI {}", range.prefix()),
            Thing::Join(range) => write!(to, "JoinEUIs {range}"),
            Thing::Device(join_eui, dev_eui) => write!(to, "device {dev_eui} of JoinEUI {join_eui}"),
        }
    }
}

/// NetIDs that a federation hands out by itself, written `600100-6001FF`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NetIds {
    first: u32,
    last: u32,
}

impl NetIds {
    /// Whether it is one of them.
    pub fn contains(self, net_id: NetId) -> bool {
        (self.first..=self.last).contains(&number(net_id))
    }

    /// All of them.
    pub fn all(self) -> impl Iterator<Item = NetId> {
        (self.first..=self.last).filter_map(NetId::new)
    }
}

fn number(net_id: NetId) -> u32 {
    let [high, middle, low] = net_id.to_msb();
    u32::from_be_bytes([0, high, middle, low])
}

impl std::str::FromStr for NetIds {
    type Err = String;

    fn from_str(text: &str) -> Result<NetIds, String> {
        let parse = |text: &str| text.trim().parse::<NetId>().ok();
        let ends = text.split_once('-').and_then(|(first, last)| Some((parse(first)?, parse(last)?)));
        match ends.filter(|(first, last)| first <= last) {
            Some((first, last)) => Ok(NetIds { first: number(first), last: number(last) }),
            None => Err(format!("NetIDs from the first to the last, such as 600100-6001FF, not {text:?}")),
        }
    }
}

impl TryFrom<String> for NetIds {
    type Error = String;

    fn try_from(text: String) -> Result<NetIds, String> {
        text.parse()
    }
}

impl From<NetIds> for String {
    fn from(range: NetIds) -> String {
        range.to_string()
    }
}

impl std::fmt::Display for NetIds {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "{:06X}-{:06X}", self.first, self.last)
    }
}

/// The two places of the zone where names are.
#[derive(Debug, Clone)]
pub struct Suffixes {
    /// Of NetIDs.
    pub net_id: Suffix,
    /// Of JoinEUIs.
    pub join_eui: Suffix,
}

impl Suffixes {
    /// The name of a thing; of a block the wildcard that stands for all of it.
    pub fn name(&self, thing: Thing) -> String {
        match thing {
            Thing::Net(net_id) => net_id_name(net_id, &self.net_id),
            Thing::Join(range) if range.bits() == 64 => join_eui_name(range.prefix(), &self.join_eui),
            Thing::Join(range) => format!("*.{}", join_eui_subtree(range, &self.join_eui)),
            Thing::Device(join_eui, dev_eui) => dev_eui_name(dev_eui, join_eui, &self.join_eui),
        }
    }

    /// The name at which a thing is handed over to servers of its owner's: of a block the one above all of it.
    pub fn cut(&self, thing: Thing) -> String {
        match thing {
            Thing::Join(range) => join_eui_subtree(range, &self.join_eui),
            other => self.name(other),
        }
    }

    /// Names that a member may have in a certificate, each with everything below it.
    pub fn subtrees(&self, claims: &[Claim]) -> Vec<String> {
        let subtree = |claim: &Claim| match thing(claim)? {
            Thing::Net(net_id) => Some(net_id_name(net_id, &self.net_id)),
            Thing::Join(range) => Some(join_eui_subtree(range, &self.join_eui)),
            Thing::Device(..) => None,
        };
        claims.iter().filter_map(subtree).collect()
    }
}

/// `net_id`.
pub const NET_ID: &str = "net_id";
/// `join_eui`.
pub const JOIN_EUI: &str = "join_eui";

/// What a claim is to.
pub fn thing(claim: &Claim) -> Option<Thing> {
    match claim.kind.as_str() {
        NET_ID => Some(Thing::Net(claim.first.parse().ok()?)),
        JOIN_EUI => Some(Thing::Join(format!("{}/{}", claim.first, claim.bits).parse().ok()?)),
        _ => None,
    }
}

/// Kind, first digits and bits of the claims that make a thing somebody's, the narrowest first.
pub fn claims_to(thing: Thing) -> Vec<(&'static str, String, u8)> {
    match thing {
        Thing::Net(net_id) => vec![(NET_ID, net_id.to_string(), 24)],
        Thing::Join(range) => blocks_around(range.prefix(), range.bits()),
        Thing::Device(join_eui, _) => blocks_around(join_eui, 64),
    }
}

fn blocks_around(join_eui: JoinEui, bits: u8) -> Vec<(&'static str, String, u8)> {
    let all = u64::from_be_bytes(join_eui.to_msb());
    let around = (WIDEST_BLOCK..=bits).rev().map(|bits| {
        let first = all & u64::MAX << (64 - u32::from(bits));
        (JOIN_EUI, JoinEui::from_msb(first.to_be_bytes()).to_string(), bits)
    });
    around.collect()
}

/// Whether two blocks have a JoinEUI in common.
pub fn overlap(one: JoinEuiRange, other: JoinEuiRange) -> bool {
    let bits = u32::from(one.bits().min(other.bits()));
    let of = |range: JoinEuiRange| u64::from_be_bytes(range.prefix().to_msb());
    bits == 0 || (of(one) ^ of(other)) >> (64 - bits) == 0
}

/// Whether somebody may own it: not wider than an OUI.
pub fn block(range: JoinEuiRange) -> Result<JoinEuiRange, Refused> {
    match range.bits() >= WIDEST_BLOCK {
        true => Ok(range),
        false => Err(Refused::Width(range)),
    }
}

/// Whether these hand a name over to servers of the member's own.
pub fn delegates(granted: &[Granted]) -> bool {
    granted.iter().any(|record| record.kind == u16::from(RecordType::NS))
}

/// Whether these may stand at a name: a server that has its own name below what it serves is found by nobody, because no address of it
/// is kept here.
pub fn suit(name: &str, granted: &[Granted]) -> Result<(), Refused> {
    let within = |data: &str| {
        data.trim_end_matches('.') == name || data.trim_end_matches('.').ends_with(&format!(".{name}"))
    };
    let is_hidden = |record: &Granted| record.kind == u16::from(RecordType::NS) && within(&record.data);
    match granted.iter().any(is_hidden) {
        true => Err(Refused::Set(
            "a name server below the name that it serves is found by nobody: name one elsewhere",
        )),
        false => Ok(()),
    }
}

/// A record as a member writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// Such as `AAAA`.
    #[serde(rename = "type")]
    pub kind: String,
    /// As in a zone file; names are full names.
    pub data: String,
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u32>,
}

/// A record that may stand in the zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// Number of its type.
    pub kind: u16,
    /// As in a zone file.
    pub data: String,
    /// Seconds.
    pub ttl: u32,
}

/// The labels that a member puts in front of a name, such as `_443._tcp`; empty: the name itself.
pub fn under(labels: &str) -> Result<String, Refused> {
    let labels = labels.trim_matches('.').to_ascii_lowercase();
    let fits = |label: &str| {
        let rest = label.strip_prefix('_').unwrap_or_default();
        let good = |c: char| c.is_ascii_alphanumeric() || c == '-';
        !rest.is_empty() && label.len() < 60 && rest.chars().all(good)
    };
    let count = labels.split('.').count();
    match labels.is_empty() || (count <= 2 && labels.split('.').all(fits)) {
        true => Ok(labels),
        false => Err(Refused::Under(labels.chars().take(80).collect())),
    }
}

/// Whether these records may stand at one name.
pub fn records(wishes: &[Wish]) -> Result<Vec<Granted>, Refused> {
    if wishes.is_empty() || wishes.len() > MOST_RECORDS {
        return Err(Refused::Set("a name has 1 to 32 records"));
    }
    let granted = wishes.iter().map(record).collect::<Result<Vec<_>, _>>()?;
    let has = |kind: RecordType| granted.iter().any(|record| record.kind == u16::from(kind));
    if has(RecordType::CNAME) && granted.len() > 1 {
        return Err(Refused::Set("a CNAME record stands alone at its name"));
    }
    let of_cut = [u16::from(RecordType::NS), u16::from(RecordType::DS)];
    if has(RecordType::NS) && granted.iter().any(|record| !of_cut.contains(&record.kind)) {
        return Err(Refused::Set("where a name is delegated (NS) there are only NS and DS records"));
    }
    if has(RecordType::DS) && !has(RecordType::NS) {
        return Err(Refused::Set("DS records stand where a name is delegated (NS)"));
    }
    for (place, record) in granted.iter().enumerate() {
        let others = granted.iter().take(place).filter(|other| other.kind == record.kind);
        for other in others {
            if other.ttl != record.ttl {
                return Err(Refused::Set(
                    "records of one type at one name have one TTL (RFC 2181 section 5.2)",
                ));
            }
            if other.data == record.data {
                return Err(Refused::Set("a record stands there twice"));
            }
        }
    }
    Ok(granted)
}

fn record(wish: &Wish) -> Result<Granted, Refused> {
    let shown = |text: &str| text.chars().filter(|c| !c.is_control()).take(100).collect::<String>();
    let refused = |why: String| Refused::Record { kind: shown(&wish.kind), data: shown(&wish.data), why };
    let kind = wish.kind.to_ascii_uppercase();
    let kind = TYPES.into_iter().find(|one| one.to_string() == kind);
    let Some(kind) = kind else {
        let known: Vec<String> = TYPES.iter().map(ToString::to_string).collect();
        return Err(refused(format!("not a type that stands here; {} do", known.join(", "))));
    };
    let ttl = wish.ttl.unwrap_or(USUAL_TTL);
    if !TTLS.contains(&ttl) {
        return Err(refused(format!("a TTL is {} to {} seconds", TTLS.start(), TTLS.end())));
    }
    let odd = |c: char| c.is_control() || matches!(c, ';' | '(' | ')' | '@' | '\\') || !c.is_ascii();
    if wish.data.len() > LONGEST || wish.data.chars().any(odd) {
        return Err(refused(format!(
            "at most {LONGEST} printable characters, on one line, without ; ( ) @ \\"
        )));
    }
    let data = RData::try_from_str(kind, &wish.data).map_err(|error| refused(error.to_string()))?;
    if data.record_type() != kind {
        return Err(refused("not of this type".into()));
    }
    let data = with_full_names(data).map_err(refused)?;
    let text = data.to_string();
    // what is kept as text has to mean the same when it is read again
    match RData::try_from_str(kind, &text) {
        Ok(again) if again == data => Ok(Granted { kind: kind.into(), data: text, ttl }),
        _ => Err(refused("it cannot be kept as it is written".into())),
    }
}

/// Names in records are full names, with or without a final dot.
fn with_full_names(mut data: RData) -> Result<RData, String> {
    let full = |name: &mut Name| -> Result<(), String> {
        if name.is_root() {
            return Ok(());
        }
        name.set_fqdn(true);
        let text = name.to_ascii().to_ascii_lowercase();
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        match text.chars().all(fits) && text.len() <= 254 {
            true => Ok(()),
            false => Err(format!("{text} is no host name")),
        }
    };
    match &mut data {
        RData::CNAME(name) => full(&mut name.0)?,
        RData::NS(name) => full(&mut name.0)?,
        RData::SRV(srv) => full(&mut srv.target)?,
        RData::NAPTR(naptr) => full(&mut naptr.replacement)?,
        _ => (),
    }
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(kind: &str, data: &str) -> Wish {
        Wish { kind: kind.into(), data: data.into(), ttl: None }
    }

    #[test]
    fn records_are_read_and_written_the_same() {
        for (kind, data, kept) in [
            ("a", "192.0.2.1", "192.0.2.1"),
            ("AAAA", "2001:DB8::1", "2001:db8::1"),
            ("CNAME", "js.member.example", "js.member.example."),
            ("NS", "ns.member.example.", "ns.member.example."),
            ("SRV", "0 0 7005 ns.member.example", "0 0 7005 ns.member.example."),
            (
                "NAPTR",
                "10 10 \"S\" \"LWNS\" \"\" _lwns._tcp.x.example.",
                "10 10 \"S\" \"LWNS\" \"\" _lwns._tcp.x.example.",
            ),
        ] {
            let granted = records(&[wish(kind, data)]).map_err(|error| format!("{kind} {data}: {error}"));
            assert_eq!(granted.unwrap()[0].data, kept);
        }
        let tlsa = format!("3 1 1 {}", "ab".repeat(32));
        assert!(records(&[wish("TLSA", &tlsa)]).is_ok());
    }

    #[test]
    fn what_cannot_stand_in_the_zone_is_refused_with_a_reason() {
        let refused = |wishes: &[Wish], words: &str| {
            let error = records(wishes).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        refused(&[], "1 to 32");
        refused(&vec![wish("A", "192.0.2.1"); 33], "1 to 32");
        refused(&[wish("MX", "10 mail.example.")], "not a type");
        refused(&[wish("A", "300.0.0.1")], "record A");
        refused(&[wish("A", "192.0.2.1\n$INCLUDE /etc/passwd")], "on one line");
        refused(&[wish("CNAME", "a.example. ; x")], "without ;");
        refused(&[wish("CNAME", "*.example.")], "no host name");
        refused(&[wish("CNAME", "a.example"), wish("A", "192.0.2.1")], "stands alone");
        refused(&[wish("NS", "a.example"), wish("A", "192.0.2.1")], "only NS and DS");
        refused(&[wish("A", "192.0.2.1"), wish("A", "192.0.2.1")], "twice");
        refused(&[Wish { ttl: Some(5), ..wish("A", "192.0.2.1") }], "30 to 86400");
        refused(&[Wish { ttl: Some(60), ..wish("A", "192.0.2.1") }, wish("A", "192.0.2.2")], "one TTL");
        refused(&[wish("DS", &format!("1 13 2 {}", "ab".repeat(32)))], "delegated");
    }

    #[test]
    fn a_name_server_stands_elsewhere() {
        let name = "c00abc.netids.iotroam.example";
        let with = |data: &str| suit(name, &records(&[wish("NS", data)]).unwrap());
        with("ns.member.example").unwrap();
        with("ns.netids.iotroam.example").unwrap();
        with("xc00abc.netids.iotroam.example").unwrap();
        assert!(with("ns.C00ABC.netids.iotroam.example.").is_err() && with(name).is_err());
        assert!(delegates(&records(&[wish("NS", "ns.member.example")]).unwrap()));
        assert!(!delegates(&records(&[wish("A", "192.0.2.1")]).unwrap()));
    }

    #[test]
    fn only_services_stand_below_a_name() {
        for good in ["", "_443._tcp", "_NS-client", "_lwns._tcp."] {
            under(good).unwrap();
        }
        for bad in ["a", "_443._tcp.x", "_", "_a.b", "_a._b._c", "_443.*", "_x\0"] {
            assert!(under(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_block_is_somebodys_by_its_own_claim_or_by_a_wider_one() {
        let range: JoinEuiRange = "70B3D57ED0000000/40".parse().unwrap();
        let claims = claims_to(Thing::Join(range));
        assert_eq!(claims[0], (JOIN_EUI, "70B3D57ED0000000".to_owned(), 40));
        assert_eq!(claims.last().unwrap(), &(JOIN_EUI, "70B3D50000000000".to_owned(), 24));
        let other = |text: &str| overlap(range, text.parse().unwrap());
        assert!(other("70B3D57ED0000001/64") && other("70B3D50000000000/24") && other("70B3D57ED0000000/40"));
        assert!(!other("70B3D57ED1000000/40") && !other("0000000000000000/24"));
        assert!(block("7000000000000000/20".parse().unwrap()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_record_upsets_it(kind in "[A-Za-z]{0,8}", data: String, ttl: Option<u32>) {
            let _ = records(&[Wish { kind, data, ttl }]);
        }

        #[test]
        fn what_is_granted_stays_on_its_line(data in "[ -~]{0,60}") {
            for kind in TYPES {
                if let Ok(granted) = records(&[wish(&kind.to_string(), &data)]) {
                    assert!(granted.iter().all(|record| !record.data.chars().any(char::is_control)));
                }
            }
        }
    }
}
