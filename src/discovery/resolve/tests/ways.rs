//! From names to ways over a real server: every rule of TS002 section 19.

use hickory_proto::rr::rdata::{NAPTR, SRV};
use hickory_proto::rr::{Name, RData, RecordType};

use super::*;

const NS_5: &str = "000005.netids.iotroam.example";
const JS_5: &str = "5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.joineuis.iotroam.example";
const A: &str = "a.hosts.iotroam.example";
const B: &str = "b.hosts.iotroam.example";
/// In a zone that is proven to be unsigned.
const LAB: &str = "host.lab.iotroam.example";

fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).unwrap();
    name.set_fqdn(true);
    name
}
/// `order preference flags service regexp`, and where it leads.
fn naptr(at: &str, rule: &str, to: &str) -> (String, Data) {
    let fields: Vec<&str> = rule.split_whitespace().collect();
    let bytes =
        |n: usize| fields.get(n).map_or("", |text| if *text == "-" { "" } else { text }).as_bytes().into();
    let number = |n: usize| fields[n].parse().unwrap();
    (
        at.into(),
        Data::Other(RData::NAPTR(NAPTR::new(number(0), number(1), bytes(2), bytes(3), bytes(4), name(to)))),
    )
}
fn srv(at: &str, priority: u16, port: u16, to: &str) -> (String, Data) {
    (at.into(), Data::Other(RData::SRV(SRV::new(priority, 10, port, name(to)))))
}
fn address(at: &str, ip: &str) -> (String, Data) {
    (at.into(), Data::Address(ip.parse().unwrap()))
}

/// Two hosts and one in the unsigned zone; the rest as given.
async fn bench(records: Vec<(String, Data)>) -> Bench {
    let hosts = vec![
        address(A, "2001:db8::a"),
        address(A, "192.0.2.10"),
        address(B, "192.0.2.11"),
        address(LAB, "192.0.2.99"),
        address(NS_1, "192.0.2.1"),
    ];
    Bench::with(|plan| plan.records = [hosts, records].concat()).await
}

/// `path socket socket (way, way)` for each way, in order.
fn shown(found: &Endpoint) -> Vec<String> {
    let ways = found.ways.iter().map(|way| {
        let sockets: Vec<String> = way.sockets().iter().map(ToString::to_string).collect();
        format!("{} {} ({})", way.path, sockets.join(" "), way.by.join(" "))
    });
    ways.collect()
}

async fn find(bench: &Bench, dnssec: Dnssec) -> Result<Endpoint, DiscoveryError> {
    bench.resolver(dnssec).net_server(net_id("000005"), bench.soon()).await
}

#[tokio::test]
async fn records_lead_to_ways() {
    const SERVICE: &str = "_LWNS._J2H.iotroam.example";
    let (to_a, to_b) = (format!("({A})"), format!("({B})"));
    let cases = vec![
        (
            "the specification's example: of three records one is HTTPS, and leads to SRV",
            vec![
                naptr(NS_5, "50 50 S LWN", "_LWN._B2H.iotroam.example"),
                naptr(NS_5, "90 50 S LWNS", SERVICE),
                naptr(NS_5, "100 50 S LWN", "_LWN._X2H.iotroam.example"),
                srv(SERVICE, 20, 7006, B),
                srv(SERVICE, 10, 7005, A),
                // not looked at: there are NAPTR records
                address(NS_5, "192.0.2.5"),
            ],
            vec![format!("/ [2001:db8::a]:7005 192.0.2.10:7005 {to_a}"), format!("/ 192.0.2.11:7006 {to_b}")],
        ),
        (
            "order, then preference; addresses at the port of HTTPS",
            vec![naptr(NS_5, "10 20 A lwns", B), naptr(NS_5, "10 10 a LWNS", A)],
            vec![format!("/ [2001:db8::a]:443 192.0.2.10:443 {to_a}"), format!("/ 192.0.2.11:443 {to_b}")],
        ),
        (
            "a URI names host, port and path, or an address",
            vec![
                naptr(
                    NS_5,
                    "1 1 U LWNS !^([0-9a-f]+)\\..*$!https://b.hosts.iotroam.example:8443/in/\\1!",
                    ".",
                ),
                naptr(NS_5, "2 1 U LWNS !^.*$!https://192.0.2.77:7005/!", "."),
            ],
            vec![format!("/in/000005 192.0.2.11:8443 {to_b}"), "/ 192.0.2.77:7005 ()".into()],
        ),
        (
            "records that lead to others, in their place",
            vec![
                naptr(NS_5, "1 1 P LWNS", "p.iotroam.example"),
                naptr(NS_5, "2 1 A LWNS", A),
                naptr("p.iotroam.example", "1 1 - LWNS", "q.iotroam.example"),
                naptr("q.iotroam.example", "1 1 A LWNS", B),
            ],
            vec![format!("/ 192.0.2.11:443 {to_b}"), format!("/ [2001:db8::a]:443 192.0.2.10:443 {to_a}")],
        ),
        (
            "a branch that goes round in a circle, or leads nowhere, leaves the others",
            vec![
                naptr(NS_5, "1 1 P LWNS", "p.iotroam.example"),
                naptr("p.iotroam.example", "1 1 P LWNS", NS_5),
                naptr(NS_5, "2 1 A LWNS", "nobody.iotroam.example"),
                naptr(NS_5, "3 1 S LWNS", "nothing.iotroam.example"),
                naptr(NS_5, "4 1 A LWNS", B),
            ],
            vec![format!("/ 192.0.2.11:443 {to_b}")],
        ),
        (
            "a CNAME at the name, and one at the target",
            vec![
                (NS_5.into(), Data::Cname("alias.iotroam.example".into())),
                naptr("alias.iotroam.example", "1 1 S LWNS", SERVICE),
                srv(SERVICE, 1, 7005, "c.iotroam.example"),
                ("c.iotroam.example".into(), Data::Cname(B.into())),
            ],
            vec![format!("/ 192.0.2.11:7005 (alias.iotroam.example c.iotroam.example {B})")],
        ),
        (
            "SRV is not guessed",
            vec![address(NS_5, "192.0.2.5"), srv(&format!("_https._tcp.{NS_5}"), 1, 7005, A)],
            vec!["/ 192.0.2.5:443 ()".into()],
        ),
        (
            "a target without addresses is left out",
            vec![
                naptr(NS_5, "1 1 S LWNS", SERVICE),
                srv(SERVICE, 1, 7005, "nobody.iotroam.example"),
                srv(SERVICE, 2, 7005, B),
            ],
            vec![format!("/ 192.0.2.11:7005 {to_b}")],
        ),
    ];
    for (what, records, expected) in cases {
        let found =
            find(&bench(records).await, Dnssec::Require).await.unwrap_or_else(|err| panic!("{what}: {err}"));
        assert_eq!(shown(&found), expected, "{what}");
        assert_eq!((found.host.as_str(), found.security), (NS_5, Security::Secure), "{what}");
        assert!(found.ways.iter().all(|way| way.names() == way.by), "{what}");
    }
}

#[tokio::test]
async fn records_that_lead_nowhere_say_so_and_addresses_beside_them_do_not_count() {
    let cases = [
        ("HTTP alone", vec![naptr(NS_5, "1 1 A LWN", A)], "without TLS"),
        ("another flag", vec![naptr(NS_5, "1 1 X LWNS", A)], "flag \"X\""),
        ("another service", vec![naptr(NS_5, "1 1 A SIPS+D2T", A)], "not LWNS"),
        (
            "a target that does not exist",
            vec![naptr(NS_5, "1 1 A LWNS", "nobody.iotroam.example")],
            "no address",
        ),
        (
            "no such service",
            vec![naptr(NS_5, "1 1 S LWNS", "s.iotroam.example"), srv("s.iotroam.example", 0, 0, ".")],
            "no such service",
        ),
        ("no URI", vec![naptr(NS_5, "1 1 U LWNS !^.*$!http://a.example/!", ".")], "not https"),
    ];
    for (what, mut records, why) in cases {
        records.push(address(NS_5, "192.0.2.5"));
        let err = find(&bench(records).await, Dnssec::Require).await.unwrap_err();
        assert!(matches!(err, DiscoveryError::Useless { proven: true, .. }), "{what}: {err:?}");
        assert!(err.to_string().contains(why), "{what}: {err}");
    }
    let circle = vec![naptr(NS_5, "1 1 P LWNS", NS_5)];
    let err = find(&bench(circle).await, Dnssec::Require).await.unwrap_err();
    assert!(matches!(&err, DiscoveryError::ServFail { why, .. } if why.contains("circle")), "{err:?}");
}

#[tokio::test]
async fn chains_end_after_eight_steps_and_no_owner_makes_us_ask_without_end() {
    let link = |n: usize| if n == 0 { NS_5.to_owned() } else { format!("p{n}.iotroam.example") };
    for (links, fits) in [(7, true), (8, false)] {
        let mut records: Vec<_> = (0..links).map(|n| naptr(&link(n), "1 1 P LWNS", &link(n + 1))).collect();
        records.push(naptr(&link(links), "1 1 A LWNS", A));
        let found = find(&bench(records).await, Dnssec::Off).await;
        assert_eq!(found.is_ok(), fits, "{links} links: {found:?}");
    }
    // 16 records, each of which leads to 16 more, and so on
    let mut records = Vec::new();
    for n in 0..16 {
        records.push(naptr(NS_5, &format!("{n} 1 P LWNS"), &format!("p{n}.iotroam.example")));
        for m in 0..16 {
            records.push(naptr(
                &format!("p{n}.iotroam.example"),
                &format!("{m} 1 S LWNS"),
                &format!("s{n}-{m}.iotroam.example"),
            ));
        }
    }
    let bench = bench(records).await;
    let err = find(&bench, Dnssec::Off).await.unwrap_err();
    assert!(matches!(&err, DiscoveryError::ServFail { why, .. } if why.contains("64 questions")), "{err:?}");
    assert!(bench.zone.queries().len() <= 64, "{}", bench.zone.queries().len());
}

#[tokio::test]
async fn a_target_in_an_unsigned_zone_counts_only_where_dnssec_is_not_required_and_names_nobody() {
    let both = vec![naptr(NS_5, "1 1 A LWNS", LAB), naptr(NS_5, "2 1 A LWNS", B)];
    let bench = bench(both).await;
    let found = find(&bench, Dnssec::Require).await.unwrap();
    assert_eq!(shown(&found), [format!("/ 192.0.2.11:443 ({B})")]);
    assert_eq!(found.security, Security::Secure);
    let found = find(&bench, Dnssec::Prefer).await.unwrap();
    assert_eq!(shown(&found), [format!("/ 192.0.2.99:443 ({LAB})"), format!("/ 192.0.2.11:443 ({B})")]);
    assert_eq!(found.security, Security::Insecure);
    assert_eq!(found.ways[0].names(), <&[String]>::default());
    assert_eq!(found.ways[1].names(), [B]);
    let alone = self::bench(vec![naptr(NS_5, "1 1 A LWNS", LAB)]).await;
    let err = find(&alone, Dnssec::Require).await.unwrap_err();
    assert!(matches!(err, DiscoveryError::Insecure { .. }), "{err:?}");
}

#[tokio::test]
async fn a_join_server_and_a_moved_device_are_found_by_their_records_too() {
    let moved = format!("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.{JS_5}");
    let lost = format!("2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.{JS_5}");
    let bench = bench(vec![
        naptr(JS_5, "1 1 A LWNS", A),
        naptr(&moved, "1 1 A LWNS", B),
        naptr(&lost, "1 1 A LWN", B),
    ])
    .await;
    let resolver = bench.resolver(Dnssec::Require);
    let join_eui = "0000000000000005".parse().unwrap();
    for (device, host, at) in [
        (1, &*moved, format!("/ 192.0.2.11:443 ({B})")),
        (2, JS_5, format!("/ [2001:db8::a]:443 192.0.2.10:443 ({A})")),
        (3, JS_5, format!("/ [2001:db8::a]:443 192.0.2.10:443 ({A})")),
    ] {
        let device = DevEui::from_msb([0, 0, 0, 0, 0, 0, 0, device]);
        let found = resolver.join_server(join_eui, Some(device), bench.soon()).await.unwrap();
        assert_eq!((found.host.as_str(), shown(&found)), (host, vec![at]));
    }
}

#[tokio::test]
async fn a_server_that_knows_no_naptr_is_asked_for_addresses() {
    let bench = bench(vec![address(NS_5, "192.0.2.5")]).await;
    bench.zone.set_manner(Manner::FailingOn(RecordType::NAPTR));
    let found = find(&bench, Dnssec::Require).await.unwrap();
    assert_eq!(shown(&found), ["/ 192.0.2.5:443 ()"]);
    assert!(found.ttl <= Duration::from_secs(60));
}

#[tokio::test]
async fn port_and_path_of_the_configuration_serve_where_the_dns_names_none() {
    let bench = bench(vec![address(NS_5, "192.0.2.5")]).await;
    let config = Config { port: 7005, path: "/ts002".into(), ..bench.config(Dnssec::Require) };
    let resolver = Resolver::new(config, bench.clock.clone()).unwrap();
    let found = resolver.net_server(net_id("000005"), bench.soon()).await.unwrap();
    assert_eq!(shown(&found), ["/ts002 192.0.2.5:7005 ()"]);
}

#[tokio::test]
async fn equal_records_take_turns() {
    let bench = bench(vec![naptr(NS_5, "1 1 A LWNS", A), naptr(NS_5, "1 1 A LWNS", B)]).await;
    let resolver = bench.resolver(Dnssec::Off);
    let mut first = std::collections::BTreeSet::new();
    for _ in 0..40 {
        resolver.flush(None);
        let found = resolver.net_server(net_id("000005"), bench.soon()).await.unwrap();
        assert_eq!(found.ways.len(), 2);
        first.insert(found.ways[0].by.clone());
    }
    // one of 40 coins shows the other side, or the machine has no chance
    assert_eq!(first.len(), 2);
}

#[tokio::test]
async fn names_of_forty_labels_and_answers_of_many_kilobytes_come_through() {
    let suffix = "a.b.c.d.e.f.g.h.joineuis.iotroam.example";
    let long = format!("1.{}{suffix}", "0.".repeat(31));
    let many = (0..900u16).map(|n| address(NS_5, &format!("2001:db8::{n:x}")));
    let mut records: Vec<_> = many.collect();
    records.push(address(&long, "192.0.2.40"));
    let bench = bench(records).await;
    let config = Config { join_eui_suffix: suffix.parse().unwrap(), ..bench.config(Dnssec::Require) };
    let resolver = Resolver::new(config, bench.clock.clone()).unwrap();
    let zero = DevEui::from_msb([0, 0, 0, 0, 0, 0, 0, 1]);
    let found =
        resolver.join_server("0000000000000000".parse().unwrap(), Some(zero), bench.soon()).await.unwrap();
    assert_eq!((found.host.as_str(), found.security), (long.as_str(), Security::Secure));
    assert_eq!(found.host.split('.').count(), 43);
    let found = resolver.net_server(net_id("000005"), bench.soon()).await.unwrap();
    assert_eq!((found.ways[0].addresses.len(), found.security), (900, Security::Secure));
}
