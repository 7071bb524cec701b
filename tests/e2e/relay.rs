//! Hotspots that nobody can reach, and the front through which they are reached all the same.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use roamgate::app::Node;
use roamgate::backend::message::MacVersion;
use roamgate::config;
use roamgate::control::Operator;
use roamgate::demo::device::RxWindow;
use roamgate::demo::federation::{HOME, Site, VISITED};
use roamgate::demo::zone::Data;
use roamgate::tls;

use crate::federation::{Street, identity, names};

/// Where the front is, and what its certificate calls it.
const FRONT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 5);
const FRONT_NAME: &str = "front.iotroam.example";

/// A certificate for the front, and its pin; the names of both sites lead to where it will be.
fn found(street: &Street) -> String {
    let federation = &street.federation;
    let folder = &federation.folder.path;
    let made = identity(&federation.root, &[FRONT_NAME.to_owned()], &street.clock, |_| ());
    std::fs::write(folder.join("front-chain.pem"), &made.chain_pem).unwrap();
    std::fs::write(folder.join("front-key.pem"), &*made.key_pem).unwrap();
    let records = [HOME, VISITED].map(|site| names(site.net_id, site.join_eui));
    let address = |name| (name, Data::Address(IpAddr::V4(FRONT)));
    federation.zone.set_records(records.into_iter().flatten().map(address).collect()).unwrap();
    let identity = tls::Identity::from_pem(&made.chain_pem, &made.key_pem).unwrap();
    identity.certificate().unwrap().pin.to_string()
}

/// A front for whoever `admits` says.
async fn open(street: &Street, admits: &str) -> Node {
    let federation = &street.federation;
    let folder = &federation.folder.path;
    let at = |name: &str| folder.join(name).display().to_string();
    let text = format!(
        "radio = []\n\
         [network]\nroles = [\"front\"]\n\
         [store]\nurl = \"sqlite:{}\"\n\
         [backend]\nidentity = {{ chain = {:?}, key = {:?} }}\nroots = [{:?}]\n\
         [front]\nlisten = \"{}\"\n{admits}\n",
        at("front.db"),
        at("front-chain.pem"),
        at("front-key.pem"),
        at("root.pem"),
        SocketAddr::from((FRONT, federation.port)),
    );
    let loaded = config::parse(Some("front.toml".into()), text, std::iter::empty()).unwrap();
    let config = loaded.checked().unwrap_or_else(|error| panic!("{error}")).config;
    Node::start(config, street.clock.clone(), Vec::new()).await.expect("the front starts")
}

/// Start a hotspot again without a port, reached through the front.
async fn hide(street: &mut Street, site: Site, pin: &str, further: impl FnOnce(&mut toml::Table)) {
    // asked by address, which no certificate carries
    let server = SocketAddr::from((FRONT, street.federation.port)).to_string();
    let change = |config: &mut toml::Table| {
        let backend = config["backend"].as_table_mut().unwrap();
        backend.remove("listen");
        let relay: toml::Table =
            format!("relay = [{{ server = \"{server}\", pin = \"{pin}\" }}]").parse().unwrap();
        backend.insert("reachability".into(), relay.into());
        further(backend);
    };
    street.restart(site, change).await;
}

async fn reached(node: &Node) -> Vec<String> {
    node.operator().status().await.unwrap().reached
}

/// Until a node says this of how it is reached.
async fn until_reached(node: &Node, words: &str) -> Vec<String> {
    let clock = roamgate::clock::Clock::system();
    let until = clock.now() + Duration::from_secs(60);
    loop {
        let reached = reached(node).await;
        if reached.iter().any(|line| line.contains(words)) {
            return reached;
        }
        assert!(clock.now() < until, "nobody says {words:?}: {reached:?}");
        clock.sleep(Duration::from_millis(20)).await;
    }
}

pub async fn two_hotspots_without_a_port_reach_each_other_through_a_front() {
    let mut street = Street::open().await;
    let pin = found(&street);
    let front = open(&street, "anyone = true").await;
    hide(&mut street, HOME, &pin, |_| ()).await;
    // downlinks do not ride in answers, so that they have to come in as requests
    let no_answers = |backend: &mut toml::Table| {
        backend.insert("downlink_in_answer".into(), false.into());
    };
    hide(&mut street, VISITED, &pin, no_answers).await;
    for site in [HOME, VISITED] {
        let node = street.hotspot(site).node().unwrap();
        assert_eq!(node.listening(), None);
        let own = names(site.net_id, site.join_eui);
        let reached = until_reached(node, "since").await;
        assert!(reached[0].contains(&own[0]) && reached[0].contains(&own[1]), "{reached:?}");
    }
    let mut walker = street.device(MacVersion::V1_0_3, VISITED).await;
    street.join(&mut walker, VISITED).await;
    street.queue(&walker, b"down", false).await;
    let sent = walker.send(b"one", true).await;
    let expected = (true, vec![(7, b"down".to_vec())], Some(RxWindow::Rx1));
    assert_eq!((sent.acked, sent.downlinks, sent.window), expected, "{:?}", street.whys(VISITED));
    street.settle().await;
    assert_eq!(street.asked(HOME, "XmitDataReq"), 1, "the downlink went to the front");
    let told = reached(&front).await;
    assert!(told[0].contains("2 hotspots, 3 connections passed on, 0 refused"), "{told:?}");

    // what is sent while the front is away waits, and comes in order when it is back
    front.shutdown().await.unwrap();
    until_reached(street.home().node().unwrap(), "not through").await;
    walker.send(b"two", false).await;
    walker.send(b"three", false).await;
    let front = open(&street, "anyone = true").await;
    until_reached(street.home().node().unwrap(), "since").await;
    let parked = |street: &mut Street| street.hotspot(VISITED).node().unwrap().house().fns.parked();
    let until = street.clock.now() + Duration::from_secs(60);
    while parked(&mut street) > 0 && street.clock.now() < until {
        street.clock.sleep(Duration::from_millis(50)).await;
    }
    until_reached(street.hotspot(VISITED).node().unwrap(), "since").await;
    assert!(walker.send(b"four", true).await.acked, "{:?}", street.whys(VISITED));
    street.settle().await;
    let told: Vec<Vec<u8>> = street.delivered(&walker).into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(told, [&b"one"[..], b"two", b"three", b"four"]);
    front.shutdown().await.unwrap();
    street.close().await;
}

pub async fn a_front_passes_on_to_whom_it_admits_and_says_why_it_does_not() {
    let mut street = Street::open().await;
    let pin = found(&street);
    let [home, _] = names(HOME.net_id, HOME.join_eui);
    let front = open(&street, &format!("[[front.hotspot]]\nidentity = \"{home}\"")).await;
    hide(&mut street, HOME, &pin, |_| ()).await;
    hide(&mut street, VISITED, &pin, |_| ()).await;
    until_reached(street.home().node().unwrap(), "since").await;
    let visited = street.hotspot(VISITED).node().unwrap();
    let refused = until_reached(visited, "it refused us").await;
    let [own, _] = names(VISITED.net_id, VISITED.join_eui);
    assert!(refused[0].contains(&own) && refused[0].contains("is not listed at this front"), "{refused:?}");

    // whoever is passed on nothing still asks, and gets its answers
    let mut walker = street.device(MacVersion::V1_0_3, VISITED).await;
    street.join(&mut walker, VISITED).await;
    street.both_ways(&mut walker, b"one", b"down").await;

    // a name for which nobody is there, and no name at all
    let before = reached(&front).await;
    for (name, wait) in [(own.as_str(), 1500), ("127.0.0.5", 0)] {
        let asked = street.clock.now();
        let config = rustls::ClientConfig::builder()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
        let stream = tokio::net::TcpStream::connect((FRONT, street.federation.port)).await.unwrap();
        let error = connector.connect(name.to_owned().try_into().unwrap(), stream).await.unwrap_err();
        assert!(error.to_string().contains("eof"), "{error}");
        assert!(
            street.clock.now() - asked >= Duration::from_millis(wait),
            "its hotspot may be about to come"
        );
    }
    let after = reached(&front).await;
    let refused = |lines: &[String]| {
        let (_, words) = lines[0].rsplit_once(", ").unwrap();
        words.split(' ').next().unwrap().parse::<u32>().unwrap()
    };
    assert!(refused(&after) >= refused(&before) + 2, "{before:?} {after:?}");

    // another front, whose key is not the one we were told
    hide(&mut street, HOME, &format!("sha256/{}=", "A".repeat(43)), |_| ()).await;
    let lines = until_reached(street.home().node().unwrap(), "not through").await;
    let lines = if lines[0].contains("not dialled") {
        until_reached(street.home().node().unwrap(), "certificate").await
    } else {
        lines
    };
    assert!(lines[0].contains("certificate"), "{lines:?}");
    front.shutdown().await.unwrap();
    street.close().await;
}
