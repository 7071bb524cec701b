//! Away from home: a device of one hotspot talks through another, which had never heard of it. Two
//! processes, mutual TLS between them with certificates of their own command line, a signed zone.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use roamgate::clock::Clock;
use roamgate::demo::zone::{Data, Plan, Zone};
use roamgate::lorawan::GatewayEui;
use roamgate::radio::simulated::Air;
use serde_json::json;

use crate::bridge::Bridge;
use crate::federation::{Hotspot, JOIN_EUIS, NET_IDS, ZONE, names};
use crate::program::{Place, free_port};
use crate::{Delivered, joins, talks};

struct Member {
    name: &'static str,
    net_id: &'static str,
    join_eui: &'static str,
    address: Ipv4Addr,
    gateway: GatewayEui,
}

const HOME: Member = Member {
    name: "home",
    net_id: "000001",
    join_eui: "0000000000000001",
    address: Ipv4Addr::new(127, 0, 1, 3),
    gateway: GatewayEui::from_msb([2, 0, 0, 0xFF, 0xFE, 0, 0, 1]),
};

const VISITED: Member = Member {
    name: "visited",
    net_id: "000000",
    join_eui: "0000000000000000",
    address: Ipv4Addr::new(127, 0, 1, 2),
    gateway: GatewayEui::from_msb([2, 0, 0, 0xFF, 0xFE, 0, 0, 0]),
};

/// The federation's root, each member's intermediate and leaf, as its operators type them.
async fn certificates(desk: &Place) {
    desk.does(&["pki", "root", "--out", "federation", "--name", "A federation"]).await;
    for Member { name, net_id, join_eui, .. } in [HOME, VISITED] {
        let (authority, node) = (format!("{name}-ca"), format!("{name}-pki"));
        let names = ["--net-id", net_id, "--join-eui", join_eui];
        let suffixes = ["--net-id-suffix", NET_IDS, "--join-eui-suffix", JOIN_EUIS];
        let sign = ["pki", "intermediate", "--root", "federation", "--out", &authority];
        desk.does(&[&sign[..], &names, &suffixes].concat()).await;
        let issue = ["pki", "issue", "--intermediate", &authority, "--out", &node];
        desk.does(&[&issue[..], &names].concat()).await;
        desk.does(&["pki", "inspect", &format!("{node}/chain.pem"), "--key", &format!("{node}/key.pem")])
            .await;
    }
}

/// A signed zone with the members' names, on a port that is free at their addresses too.
async fn zone(desk: &Place, clock: &Clock) -> Zone {
    let mut records = Vec::new();
    for Member { net_id, join_eui, address, .. } in [HOME, VISITED] {
        for name in names(desk, net_id, join_eui).await {
            records.push((name, Data::Address(IpAddr::V4(address))));
        }
    }
    for _ in 0..20 {
        let zone = Zone::start(Plan::new(ZONE, records.clone()), clock).await.unwrap();
        let port = zone.addr.port();
        if [HOME, VISITED].iter().all(|member| TcpListener::bind((member.address, port)).is_ok()) {
            return zone;
        }
    }
    panic!("no port is free at all addresses");
}

fn config(member: &Member, desk: &Place, zone: &Zone, radio: SocketAddr) -> String {
    let (&Member { name, net_id, join_eui, address, .. }, port) = (member, zone.addr.port());
    let reached = format!("listen = \"{address}:{port}\"");
    Hotspot { name, net_id, join_eui, radio, reached: &reached, port }.config(desk, zone)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_joins_and_talks_through_a_hotspot_that_never_heard_of_it() {
    let (clock, desk) = (Clock::system(), Place::empty());
    certificates(&desk).await;
    let zone = zone(&desk, &clock).await;
    std::fs::write(desk.at("trust-anchor.key"), &zone.trust_anchor).unwrap();

    let air = Air::new(clock.clone(), 3);
    let (home_port, visited_port) = (free_port(), free_port());
    let home = Place::with_config(&config(&HOME, &desk, &zone, home_port));
    let visited = Place::with_config(&config(&VISITED, &desk, &zone, visited_port));
    home.does(&["config", "check"]).await;
    let at_home = Bridge::start(&air, &clock, HOME.gateway, home_port).await.unwrap();
    let away = Bridge::start(&air, &clock, VISITED.gateway, visited_port).await.unwrap();
    let (home_daemon, visited_daemon) = (home.runs().await, visited.runs().await);
    visited_daemon.log.wait(0, &["radio head online"]).await;

    let device = Delivered::new(9, HOME.join_eui);
    let (dev_eui, key) = (device.dev_eui(), device.key());
    let add = ["device", "add", "--dev-eui", &dev_eui, "--join-eui", HOME.join_eui, "--app-key", &key];
    home.does(&[&add[..], &["--mac-version", "1.0.3"]].concat()).await;

    let mut on = device.switched_on(&air, &clock, &[VISITED.gateway]);
    let joined = joins(&mut on).await;
    talks(&mut on, b"far from home").await;
    home_daemon.log.wait(0, &["payload delivered", &hex::encode("far from home")]).await;
    home.does(&["device", "send", &dev_eui, "--port", "12", "--text", "window open"]).await;
    let report = talks(&mut on, b"still here").await;
    assert_eq!(report.downlinks, [(12, b"window open".to_vec())]);

    // all of it through the visited gateway, and only the home knows the device
    assert!(at_home.heard().is_empty());
    assert!(away.answers().len() >= 3);
    let known = &home.tells(&["device", "show", &dev_eui, "--json"]).await;
    assert_eq!(known["last_via"], VISITED.net_id);
    assert_eq!(known["dev_addr"], joined.dev_addr.unwrap().to_string());
    assert_eq!(known["queue"], json!([]));
    assert_eq!(visited.tells(&["device", "list", "--json"]).await, json!([]));
    assert_eq!(zone.asked_for("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.joineuis.iotroam.example").min(1), 1);
    let told = visited_daemon.log.text();
    assert!(!told.contains(&hex::encode("still here")), "the visited network read a payload");

    // back home it goes on with the same session
    on.move_to(&[(HOME.gateway, roamgate::radio::simulated::Link::NEAR)]);
    home_daemon.log.wait(0, &["radio head online"]).await;
    talks(&mut on, b"back").await;
    assert_eq!(on.dev_addr(), joined.dev_addr);
    let known = home.tells(&["device", "show", &dev_eui, "--json"]).await;
    assert_eq!(known["last_via"], json!(null));
    for daemon in [visited_daemon, home_daemon] {
        assert_eq!(daemon.stops().await.code(), Some(0));
    }
}
