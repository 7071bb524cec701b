mod tls;
mod ways;

use super::*;
use crate::demo::zone::{Data, Manner, Plan, Signing, Zone};
use crate::discovery::cache::Limits;
use crate::limits::Lifetime;
use jiff::SignedDuration;
use std::net::IpAddr;

const HOST: &str = "js.iotroam.example";
const NS_1: &str = "000001.netids.iotroam.example";
const JS_1: &str = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.joineuis.iotroam.example";

fn records() -> Vec<(String, Data)> {
    let at = |name: &str, ip: &str| (name.to_owned(), Data::Address(ip.parse().unwrap()));
    vec![
        at(NS_1, "2001:db8::1"),
        at(NS_1, "192.0.2.1"),
        at("000002.netids.iotroam.example", "192.0.2.2"),
        at("000003.netids.lab.iotroam.example", "192.0.2.3"),
        at("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.joineuis.lab.iotroam.example", "192.0.2.4"),
        at(HOST, "192.0.2.10"),
        (JS_1.to_owned(), Data::Cname(HOST.to_owned())),
        at("moved.iotroam.example", "192.0.2.20"),
        (format!("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.{JS_1}"), Data::Cname("moved.iotroam.example.".to_owned())),
    ]
}

struct Bench {
    zone: Zone,
    clock: Clock,
    folder: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Bench {
        Bench::with(|_| ()).await
    }
    async fn with(change: impl FnOnce(&mut Plan)) -> Bench {
        let clock = Clock::system();
        let mut plan = Plan::new("iotroam.example", records());
        plan.insecure_child = Some("lab.iotroam.example".to_owned());
        change(&mut plan);
        let zone = Zone::start(plan, &clock).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("anchor"), &zone.trust_anchor).unwrap();
        Bench { zone, clock, folder }
    }
    fn config(&self, dnssec: Dnssec) -> Config {
        Config {
            join_eui_suffix: "joineuis.iotroam.example".parse().unwrap(),
            net_id_suffix: "netids.iotroam.example".parse().unwrap(),
            resolvers: vec![Server::At(self.zone.addr)],
            dnssec,
            trust_anchor: Some(self.folder.path().join("anchor")),
            ..Config::default()
        }
    }
    fn resolver(&self, dnssec: Dnssec) -> Resolver {
        Resolver::new(self.config(dnssec), self.clock.clone()).unwrap()
    }
    fn soon(&self) -> Deadline {
        Deadline(self.clock.now() + Duration::from_secs(5))
    }
}

fn sockets(found: &Endpoint) -> Vec<SocketAddr> {
    found.ways.iter().flat_map(Way::sockets).collect()
}
fn net_id(text: &str) -> NetId {
    text.parse().unwrap()
}
fn join_eui() -> JoinEui {
    "0000000000000001".parse().unwrap()
}
fn dev_eui(text: &str) -> DevEui {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_signed_network_is_found_at_both_addresses_and_once_only() {
    let bench = Bench::new().await;
    let resolver = bench.resolver(Dnssec::Require);
    let found = resolver.net_server(net_id("000001"), bench.soon()).await.unwrap();
    assert_eq!(found.host, NS_1);
    assert_eq!(sockets(&found), ["[2001:db8::1]:443".parse().unwrap(), "192.0.2.1:443".parse().unwrap()]);
    assert_eq!((found.security, found.from_cache), (Security::Secure, false));
    assert!((55..=60).contains(&found.ttl.as_secs()));
    assert_eq!(bench.zone.asked_for(NS_1), 3);
    let again = resolver.net_server(net_id("000001"), bench.soon()).await.unwrap();
    assert_eq!((sockets(&again), again.from_cache), (sockets(&found), true));
    assert_eq!(bench.zone.asked_for(NS_1), 3);
    assert_eq!(resolver.cached().len(), 1);
    assert_eq!(resolver.flush(None), 1);
    assert!(!resolver.net_server(net_id("000001"), bench.soon()).await.unwrap().from_cache);
}

#[tokio::test]
async fn a_name_with_one_address_family_is_secure_and_keeps_its_ttl() {
    let bench = Bench::new().await;
    let found = bench.resolver(Dnssec::Require).net_server(net_id("000002"), bench.soon()).await.unwrap();
    assert_eq!(sockets(&found), ["192.0.2.2:443".parse().unwrap()]);
    assert_eq!(found.security, Security::Secure);
}

#[tokio::test]
async fn a_cname_is_followed_and_does_not_change_the_name_that_certificates_are_checked_for() {
    let bench = Bench::with(|plan| plan.ttl = 600).await;
    let resolver = bench.resolver(Dnssec::Require);
    let found = resolver.join_server(join_eui(), None, bench.soon()).await.unwrap();
    assert_eq!(found.host, JS_1);
    assert_eq!(found.ways[0].by, [HOST]);
    assert_eq!(sockets(&found), ["192.0.2.10:443".parse().unwrap()]);
    assert_eq!(found.security, Security::Secure);
    assert!(
        found.ttl > Duration::from_secs(60),
        "the missing AAAA behind the CNAME is proven: {:?}",
        found.ttl
    );
}

#[tokio::test]
async fn a_missing_name_is_proven_missing_and_remembered() {
    let bench = Bench::new().await;
    let resolver = bench.resolver(Dnssec::Require);
    let missing = "00abcd.netids.iotroam.example";
    for _ in 0..2 {
        let err = resolver.net_server(net_id("00ABCD"), bench.soon()).await.unwrap_err();
        assert_eq!(err, DiscoveryError::NotFound { name: missing.to_owned(), proven: true });
    }
    assert_eq!(bench.zone.asked_for(missing), 3);
    assert!((25..=30).contains(&resolver.cached()[0].left), "{:?}", resolver.cached());
}

#[tokio::test]
async fn a_missing_join_server_beside_another_is_proven_missing() {
    let bench = Bench::new().await;
    let resolver = bench.resolver(Dnssec::Require);
    let missing = "0000000000000002".parse().unwrap();
    let err = resolver.join_server(missing, None, bench.soon()).await.unwrap_err();
    assert!(matches!(err, DiscoveryError::NotFound { proven: true, .. }), "{err}");
}

#[tokio::test]
async fn a_device_that_moved_has_its_own_server_and_others_fall_back_with_a_proof() {
    let bench = Bench::new().await;
    let resolver = bench.resolver(Dnssec::Require);
    let moved =
        resolver.join_server(join_eui(), Some(dev_eui("0000000000000001")), bench.soon()).await.unwrap();
    assert_eq!(sockets(&moved), ["192.0.2.20:443".parse().unwrap()]);
    assert!(moved.host.ends_with(JS_1) && moved.host.len() == JS_1.len() + 32);
    let other =
        resolver.join_server(join_eui(), Some(dev_eui("0000000000000002")), bench.soon()).await.unwrap();
    assert_eq!((other.host.as_str(), sockets(&other)[0]), (JS_1, "192.0.2.10:443".parse().unwrap()));
}

#[tokio::test]
async fn the_proof_that_one_device_did_not_move_serves_for_others() {
    let bench = Bench::new().await;
    let resolver = bench.resolver(Dnssec::Require);
    resolver.join_server(join_eui(), Some(dev_eui("0000000000000002")), bench.soon()).await.unwrap();
    bench.zone.forget_queries();
    let other = Some(dev_eui("0000000000000003"));
    assert_eq!(resolver.join_server(join_eui(), other, bench.soon()).await.unwrap().host, JS_1);
    assert_eq!(bench.zone.queries(), []);
    let moved = Some(dev_eui("0000000000000001"));
    let found = resolver.join_server(join_eui(), moved, bench.soon()).await.unwrap();
    assert_eq!(sockets(&found), ["192.0.2.20:443".parse().unwrap()]);
    // whoever forgets, forgets the proof too
    resolver.flush(None);
    bench.zone.set_manner(Manner::Silent);
    let another = Some(dev_eui("0000000000000004"));
    let err = resolver.join_server(join_eui(), another, bench.soon()).await.unwrap_err();
    assert!(matches!(err, DiscoveryError::Timeout { .. }), "{err}");
}

#[tokio::test]
async fn a_device_without_a_proven_answer_falls_back_only_where_dnssec_is_not_required() {
    let bench = Bench::new().await;
    let (require, off) = (bench.resolver(Dnssec::Require), bench.resolver(Dnssec::Off));
    // the short name is known to both, the long one gets no answer
    require.join_server(join_eui(), None, bench.soon()).await.unwrap();
    off.join_server(join_eui(), None, bench.soon()).await.unwrap();
    bench.zone.set_manner(Manner::Silent);
    let device = Some(dev_eui("0000000000000002"));
    let err = require.join_server(join_eui(), device, bench.soon()).await.unwrap_err();
    assert!(matches!(err, DiscoveryError::Timeout { .. }), "{err}");
    let found = off.join_server(join_eui(), device, bench.soon()).await.unwrap();
    assert_eq!((found.host.as_str(), found.security), (JS_1, Security::Off));
}

#[tokio::test]
async fn a_zone_signed_by_a_stranger_is_bogus_unless_nobody_looks() {
    let bench = Bench::new().await;
    bench.zone.set_signing(Signing::Forged).unwrap();
    for dnssec in [Dnssec::Require, Dnssec::Prefer] {
        bench.zone.forget_queries();
        let err = bench.resolver(dnssec).net_server(net_id("000001"), bench.soon()).await.unwrap_err();
        assert!(matches!(err, DiscoveryError::Bogus { .. }), "{err}");
        assert!(bench.zone.queries().len() < 15, "{:?}", bench.zone.queries());
    }
    let found = bench.resolver(Dnssec::Off).net_server(net_id("000001"), bench.soon()).await.unwrap();
    assert_eq!((found.security, sockets(&found).len()), (Security::Off, 2));
    let shown = bench.resolver(Dnssec::Require).name(NS_1).await;
    assert_eq!(shown.dnssec, Some(Security::Bogus));
    assert!(shown.error.is_some());
}

#[tokio::test]
async fn signatures_taken_away_are_bogus_too() {
    let bench = Bench::new().await;
    bench.zone.set_signing(Signing::Absent).unwrap();
    let resolver = bench.resolver(Dnssec::Prefer);
    let err = resolver.net_server(net_id("000001"), bench.soon()).await.unwrap_err();
    assert!(matches!(err, DiscoveryError::Bogus { .. }), "{err}");
    let err = resolver.net_server(net_id("00ABCD"), bench.soon()).await.unwrap_err();
    assert!(matches!(err, DiscoveryError::Bogus { .. }), "{err}");
}

#[tokio::test]
async fn a_zone_proven_unsigned_is_refused_where_dnssec_is_required_and_accepted_where_preferred() {
    let bench = Bench::new().await;
    let lab = |dnssec| {
        let net_id_suffix = "netids.lab.iotroam.example".parse().unwrap();
        Resolver::new(Config { net_id_suffix, ..bench.config(dnssec) }, bench.clock.clone()).unwrap()
    };
    let err = lab(Dnssec::Require).net_server(net_id("000003"), bench.soon()).await.unwrap_err();
    assert!(matches!(err, DiscoveryError::Insecure { .. }), "{err}");
    let found = lab(Dnssec::Prefer).net_server(net_id("000003"), bench.soon()).await.unwrap();
    assert_eq!(found.security, Security::Insecure);
    let err = lab(Dnssec::Require).net_server(net_id("000004"), bench.soon()).await.unwrap_err();
    assert!(matches!(err, DiscoveryError::NotFound { proven: false, .. }), "{err}");
}

#[tokio::test]
async fn the_long_names_of_an_unsigned_zone_cost_few_questions() {
    let bench = Bench::new().await;
    let join_eui_suffix = "joineuis.lab.iotroam.example".parse().unwrap();
    let config = Config { join_eui_suffix, ..bench.config(Dnssec::Prefer) };
    let resolver = Resolver::new(config, bench.clock.clone()).unwrap();
    let found =
        resolver.join_server(join_eui(), Some(dev_eui("0000000000000002")), bench.soon()).await.unwrap();
    assert_eq!(found.security, Security::Insecure);
    assert!(bench.zone.queries().len() < 20, "{:#?}", bench.zone.queries());
}

#[tokio::test]
async fn signatures_end_by_our_clock_and_nothing_is_used_beyond() {
    let bench = Bench::with(|plan| plan.signed_for = Duration::from_secs(86_400)).await;
    let resolver = bench.resolver(Dnssec::Require);
    resolver.net_server(net_id("000001"), bench.soon()).await.unwrap();
    bench.clock.move_wall(SignedDuration::from_hours(25));
    let err = resolver.net_server(net_id("000001"), bench.soon()).await.unwrap_err();
    assert!(matches!(err, DiscoveryError::Bogus { .. }), "{err}");
    let fresh = bench.resolver(Dnssec::Require);
    let err = fresh.net_server(net_id("000002"), bench.soon()).await.unwrap_err();
    assert!(matches!(err, DiscoveryError::Bogus { .. }), "{err}");
    // signed again, as of the moved clock: good in another resolver, which has no failure in mind
    bench.zone.sign_again().unwrap();
    bench.resolver(Dnssec::Require).net_server(net_id("000001"), bench.soon()).await.unwrap();
    // and a clock that stands before the signatures began is refused as well
    bench.clock.move_wall(SignedDuration::from_hours(-1));
    let err = bench.resolver(Dnssec::Require).net_server(net_id("000001"), bench.soon()).await.unwrap_err();
    assert!(matches!(err, DiscoveryError::Bogus { .. }), "{err}");
}

#[tokio::test]
async fn a_silent_server_costs_a_second_and_no_more() {
    let bench = Bench::new().await;
    bench.zone.set_manner(Manner::Silent);
    let resolver = bench.resolver(Dnssec::Require);
    let began = bench.clock.now();
    let err = resolver.net_server(net_id("000001"), bench.soon()).await.unwrap_err();
    assert!(matches!(err, DiscoveryError::Timeout { .. }), "{err}");
    let took = bench.clock.now() - began;
    assert!(took >= BUDGET && took < BUDGET + Duration::from_millis(300), "{took:?}");
    let by = Deadline(bench.clock.now() + Duration::from_millis(100));
    let began = bench.clock.now();
    assert!(resolver.net_server(net_id("000002"), by).await.is_err());
    assert!(bench.clock.now() - began < Duration::from_millis(300), "a nearer deadline ends it");
}

#[tokio::test]
async fn one_question_per_name_is_on_its_way_and_outlives_those_who_give_up() {
    let bench = Bench::new().await;
    bench.zone.set_manner(Manner::Slow(Duration::from_millis(60)));
    let resolver = bench.resolver(Dnssec::Off);
    let by = Deadline(bench.clock.now() + Duration::from_millis(10));
    assert!(resolver.net_server(net_id("000001"), by).await.is_err());
    let asks = (0..20).map(|_| resolver.net_server(net_id("000001"), bench.soon()));
    let answers = futures_util::future::join_all(asks).await;
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|found| sockets(found).len() == 2)));
    assert_eq!(bench.zone.asked_for(NS_1), 3, "{:?}", bench.zone.queries());
}

#[tokio::test]
async fn a_failing_resolver_is_named_and_left_alone_for_a_moment() {
    let bench = Bench::new().await;
    bench.zone.set_manner(Manner::Failing);
    let resolver = bench.resolver(Dnssec::Require);
    let err = resolver.net_server(net_id("000001"), bench.soon()).await.unwrap_err();
    assert!(matches!(err, DiscoveryError::ServFail { .. }), "{err}");
    bench.zone.set_manner(Manner::Prompt);
    bench.zone.forget_queries();
    assert!(resolver.net_server(net_id("000001"), bench.soon()).await.is_err());
    assert_eq!(bench.zone.queries().len(), 0);
    resolver.flush(None);
    resolver.net_server(net_id("000001"), bench.soon()).await.unwrap();
}

#[tokio::test]
async fn an_answer_too_long_for_a_datagram_comes_by_tcp() {
    let address = |n: u8| (NS_1.to_owned(), Data::Address(IpAddr::from([192, 0, 2, n])));
    let bench = Bench::with(|plan| plan.records = (1..=200).map(address).collect()).await;
    let found = bench.resolver(Dnssec::Require).net_server(net_id("000001"), bench.soon()).await.unwrap();
    assert_eq!((sockets(&found).len(), found.security), (200, Security::Secure));
}

#[tokio::test]
async fn records_can_change_while_the_zone_is_served() {
    let bench = Bench::new().await;
    let resolver = bench.resolver(Dnssec::Require);
    resolver.net_server(net_id("000001"), bench.soon()).await.unwrap();
    bench.zone.set_records(vec![(NS_1.to_owned(), Data::Address("192.0.2.99".parse().unwrap()))]).unwrap();
    resolver.flush(Some(NS_1));
    let found = resolver.net_server(net_id("000001"), bench.soon()).await.unwrap();
    assert_eq!(sockets(&found), ["192.0.2.99:443".parse().unwrap()]);
}

#[tokio::test]
async fn the_ad_bit_is_believed_on_this_machine_only() {
    let bench = Bench::new().await;
    let config = Config { trust_ad: true, ..bench.config(Dnssec::Prefer) };
    let resolver = Resolver::new(config.clone(), bench.clock.clone()).unwrap();
    // the zone's server is authoritative: it never sets AD
    let found = resolver.net_server(net_id("000001"), bench.soon()).await.unwrap();
    assert_eq!((found.security, sockets(&found).len()), (Security::Insecure, 2));
    // one too long for a datagram comes by TCP
    let address = |n: u8| (NS_1.to_owned(), Data::Address(IpAddr::from([192, 0, 2, n])));
    bench.zone.set_records((1..=200).map(address).collect()).unwrap();
    resolver.flush(None);
    let found = resolver.net_server(net_id("000001"), bench.soon()).await.unwrap();
    assert_eq!(sockets(&found).len(), 200);
    let resolvers = vec![Server::At("192.0.2.53:53".parse().unwrap())];
    let err = Resolver::new(Config { resolvers, ..config }, bench.clock.clone()).err().unwrap();
    assert!(matches!(err, SetupError::DistantAd(_)));
}

#[test]
fn a_trust_anchor_that_is_none_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("anchor");
    let resolvers = vec![Server::At("127.0.0.1:53".parse().unwrap())];
    let config = Config { trust_anchor: Some(path.clone()), resolvers, ..Config::default() };
    let new = || Resolver::new(config.clone(), Clock::system()).err().map(|err| err.to_string());
    assert!(new().unwrap().contains("read [discovery] trust_anchor"));
    for text in ["", "; nothing\n", "example. IN A 192.0.2.1\n", "what"] {
        std::fs::write(&path, text).unwrap();
        assert!(new().unwrap().contains("DNSKEY"), "{text}: {:?}", new());
    }
}

#[tokio::test]
async fn an_answer_that_has_ended_serves_where_no_other_comes_in_time() {
    let bench = Bench::with(|plan| plan.ttl = 1).await;
    let config = Config {
        cache: Limits { least: Lifetime::of_seconds(1), ..Limits::default() },
        ..bench.config(Dnssec::Require)
    };
    let resolver = Resolver::new(config, bench.clock.clone()).unwrap();
    let found = resolver.net_server(net_id("000001"), bench.soon()).await.unwrap();
    for manner in [Manner::Silent, Manner::Failing] {
        bench.clock.sleep(Duration::from_millis(1100)).await;
        bench.zone.set_manner(manner);
        let stale = resolver.net_server(net_id("000001"), bench.soon()).await.unwrap();
        assert_eq!((&stale.ways, stale.from_cache, stale.ttl), (&found.ways, true, Duration::ZERO));
        bench.zone.set_manner(Manner::Prompt);
        resolver.flush(None);
        resolver.net_server(net_id("000001"), bench.soon()).await.unwrap();
    }
    // who answers in time is heard
    bench.clock.sleep(Duration::from_millis(1100)).await;
    bench.zone.set_records(records().into_iter().filter(|(name, _)| name != NS_1).collect()).unwrap();
    let err = resolver.net_server(net_id("000001"), bench.soon()).await.unwrap_err();
    assert!(matches!(err, DiscoveryError::NotFound { proven: true, .. }), "{err}");
}

#[tokio::test]
async fn a_name_in_use_is_asked_for_again_before_its_answer_ends_and_one_that_is_not_is_left_alone() {
    let bench = Bench::with(|plan| plan.ttl = 2).await;
    let config = Config {
        cache: Limits { least: Lifetime::of_seconds(1), ..Limits::default() },
        ..bench.config(Dnssec::Off)
    };
    let resolver = Resolver::new(config, bench.clock.clone()).unwrap();
    for n in ["000001", "000002"] {
        resolver.net_server(net_id(n), bench.soon()).await.unwrap();
    }
    // one of them is used once more
    resolver.net_server(net_id("000001"), bench.soon()).await.unwrap();
    bench.zone.forget_queries();
    bench.clock.sleep(Duration::from_millis(2600)).await;
    assert_eq!(bench.zone.asked_for(NS_1), 3);
    assert_eq!(bench.zone.asked_for("000002.netids.iotroam.example"), 0);
    assert!(resolver.net_server(net_id("000001"), bench.soon()).await.unwrap().from_cache);
    // nobody used the second answer until now, so there is no third
    assert_eq!(bench.zone.asked_for(NS_1), 3);
}

#[tokio::test]
async fn what_one_run_has_learnt_another_begins_with() {
    let bench = Bench::new().await;
    let first = bench.resolver(Dnssec::Require);
    let found = first.net_server(net_id("000001"), bench.soon()).await.unwrap();
    let _ = first.net_server(net_id("00ABCD"), bench.soon()).await;
    let kept = first.kept();
    assert_eq!(kept.len(), 1, "a denial is not worth it");
    let second = bench.resolver(Dnssec::Require);
    second.restore(kept);
    bench.zone.set_manner(Manner::Silent);
    let again = second.net_server(net_id("000001"), bench.soon()).await.unwrap();
    assert_eq!((again.ways, again.from_cache), (found.ways, true));
    assert!(again.ttl <= found.ttl);
    // one that did not look at signatures has learnt nothing for one that does
    bench.zone.set_manner(Manner::Prompt);
    let careless = bench.resolver(Dnssec::Off);
    careless.net_server(net_id("000001"), bench.soon()).await.unwrap();
    let strict = bench.resolver(Dnssec::Require);
    strict.restore(careless.kept());
    let asked = strict.net_server(net_id("000001"), bench.soon()).await.unwrap();
    assert_eq!((asked.security, asked.from_cache), (Security::Secure, false));
}
