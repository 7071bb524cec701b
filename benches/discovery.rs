//! From a name to its server: cold, warm, and many names, over a signed zone whose server answers as late as one far away.
//!
//! `cargo bench --bench discovery`

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use futures_util::StreamExt;
use roamgate::backend::door::Deadline;
use roamgate::clock::Clock;
use roamgate::demo::zone::{Data, Manner, Plan, Zone};
use roamgate::discovery::name::{Suffix, join_eui_name, net_id_name};
use roamgate::discovery::{Config, Dane, Dnssec, Resolver, Server};
use roamgate::lorawan::{DevEui, JoinEui, NetId};

const ORIGIN: &str = "iotroam.example";
/// Between a question and its answer.
const ROUND_TRIP: Duration = Duration::from_millis(20);
const COLD: usize = 50;
const WARM: usize = 200_000;
const NAMES: u32 = 3000;
const AT_ONCE: usize = 64;

fn main() {
    // `cargo test --benches` only wants to know that it builds
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(measure());
}

fn suffix(label: &str) -> Suffix {
    format!("{label}.{ORIGIN}").parse().expect("a suffix")
}

fn net(n: u32) -> NetId {
    NetId::new(0xC0_0000 + n).expect("a NetID")
}

async fn measure() {
    let clock = Clock::system();
    let address = Data::Address(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));
    let join_eui = JoinEui::from_msb([0x70, 0xB3, 0xD5, 0x7E, 0xD0, 0, 0, 1]);
    let mut records = vec![(join_eui_name(join_eui, &suffix("joineuis")), address.clone())];
    records.extend((0..NAMES).map(|n| (net_id_name(net(n), &suffix("netids")), address.clone())));
    let zone = Zone::start(Plan::new(ORIGIN, records), &clock).await.expect("a zone");
    let folder = tempfile::tempdir().expect("a folder");
    let anchor = folder.path().join("anchor");
    std::fs::write(&anchor, &zone.trust_anchor).expect("room");
    let config = Config {
        join_eui_suffix: suffix("joineuis"),
        net_id_suffix: suffix("netids"),
        resolvers: vec![Server::At(zone.addr)],
        dnssec: Dnssec::Require,
        dane: Dane::Off,
        trust_anchor: Some(anchor),
        ..Config::default()
    };
    let resolver = || Resolver::new(config.clone(), clock.clone()).expect("a resolver");
    let soon = || Deadline(clock.now() + Duration::from_secs(5));
    let dev_eui = DevEui::from_msb([1; 8]);

    zone.set_manner(Manner::Slow(ROUND_TRIP));
    let mut cold = Vec::new();
    for _ in 0..COLD {
        let resolver = resolver();
        let begun = clock.now();
        resolver.join_server(join_eui, Some(dev_eui), soon()).await.expect("a join server");
        resolver.net_server(net(1), soon()).await.expect("a network server");
        cold.push(begun.elapsed());
    }
    told("cold, join server and network server", cold);

    let known = resolver();
    let mut warm = Vec::with_capacity(WARM);
    for _ in 0..WARM {
        let begun = clock.now();
        known.join_server(join_eui, Some(dev_eui), soon()).await.expect("a join server");
        known.net_server(net(1), soon()).await.expect("a network server");
        warm.push(begun.elapsed());
    }
    told("warm, join server and network server", warm);

    zone.set_manner(Manner::Prompt);
    let many = resolver();
    let begun = clock.now();
    let asked = futures_util::stream::iter(0..NAMES).map(|n| many.net_server(net(n), soon()));
    let found =
        asked.buffer_unordered(AT_ONCE).filter(|found| std::future::ready(found.is_ok())).count().await;
    let rate = f64::from(NAMES) / begun.elapsed().as_secs_f64();
    println!("{found} names of {NAMES}, {AT_ONCE} at once, no delay: {rate:.0} names/s");
}

fn told(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1e6;
    println!("{what}: median {:.1} us, 99 % {:.1} us, most {:.0} us", at(50), at(99), at(100));
}
