//! A day in the life of a federation, as docs/federation.md tells it: founded, two networks enrolled, a device roams, another moves to a
//! join server elsewhere, certificates are renewed, the root is rolled, a network is revoked. Nothing is restarted.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Method;
use roamgate::app::Node;
use roamgate::backend::message::MacVersion;
use roamgate::clock::Clock;
use roamgate::config;
use roamgate::control::{NewDevice, Operator};
use roamgate::demo::device::Device;
use roamgate::lorawan::{DevEui, GatewayEui, JoinEui, Key};
use roamgate::pki::folder::Folder;
use roamgate::pki::make::{Authority, IntermediateSpec, RootSpec};
use roamgate::radio::simulated::{Air, Link};
use serde_json::{Value, json};

use crate::office::{Office, ZONE, leads_to};

/// The federation's authority: a root, which is kept offline, and what it has put into the registry's folder.
struct Roots {
    root: Authority,
    folder: PathBuf,
}

impl Roots {
    fn spec() -> IntermediateSpec {
        IntermediateSpec::new("Registry", [format!("netids.{ZONE}"), format!("joineuis.{ZONE}")])
    }

    fn found(folder: &Path, clock: &Clock) -> Roots {
        let root = Authority::root(&RootSpec::new("The federation"), clock).unwrap();
        let authority = root.intermediate(&Roots::spec(), clock).unwrap();
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("intermediate.pem"), &authority.cert_pem).unwrap();
        std::fs::write(folder.join("intermediate-key.pem"), &*authority.key_pem).unwrap();
        Roots { root, folder: folder.to_owned() }
    }

    /// Another root, which signs the registry's key again.
    fn roll(&mut self, clock: &Clock) {
        let root = Authority::root(&RootSpec::new("The federation, from now on"), clock).unwrap();
        let key = std::fs::read_to_string(self.folder.join("intermediate-key.pem")).unwrap();
        let spec = IntermediateSpec { key: Some(key.into()), ..Roots::spec() };
        let authority = root.intermediate(&spec, clock).unwrap();
        std::fs::write(self.folder.join("intermediate.pem"), &authority.cert_pem).unwrap();
        self.root = root;
    }
}

/// A member with its node.
struct Network {
    number: Value,
    key: String,
    net_id: String,
    names: Vec<String>,
    folder: PathBuf,
    gateway: GatewayEui,
    node: Option<Node>,
}

impl Network {
    /// Make a member, have it prove and publish what is its own, and start its node.
    async fn enrol(office: &Office, air: &Air, roots: &Roots, port: u16, n: u8, blocks: &[&str]) -> Network {
        let name = format!("network-{n}");
        let made = office.done(&office.operator, Method::POST, "/v1/members", json!({ "name": name })).await;
        let (number, key) = (made["id"].clone(), made["key"].as_str().unwrap().to_owned());
        let net_id = office.done(&key, Method::POST, "/v1/net-ids", Value::Null).await;
        let net_id = net_id["net_id"].as_str().unwrap().to_owned();

        // its own JoinEUIs, by a TXT record in its domain
        let wish = json!({ "join_euis": blocks[0], "domain": format!("{name}.{ZONE}") });
        let wish = office.done(&key, Method::POST, "/v1/claims/waiting", wish).await;
        office.publish(wish["name"].as_str().unwrap(), wish["text"].as_str().unwrap()).await;
        let wishes = format!("/v1/claims/waiting/{}", wish["id"]);
        office.done(&key, Method::POST, &format!("{wishes}/prove"), Value::Null).await;
        office.done(&office.operator, Method::POST, &format!("{wishes}/fulfil"), Value::Null).await;
        let host = format!("{}.netids.{ZONE}", net_id.to_ascii_lowercase());
        let to_host = json!({ "records": [{ "type": "CNAME", "data": host, "ttl": 30 }] });
        let block = format!("/v1/join-euis/{}", blocks[0].replace('/', "-"));
        office.done(&key, Method::PUT, &block, to_host).await;

        let folder = office.folder.path().join(&name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("roots.pem"), &roots.root.cert_pem).unwrap();
        std::fs::write(folder.join("registry-key"), &key).unwrap();
        let gateway = GatewayEui::from_msb([2, 0, 0, 0xff, 0xfe, 0, 0, n]);
        let names = vec![host];
        let mut network = Network { number, key, net_id, names, folder, gateway, node: None };
        network.certify(office, true).await;
        network.start(office, air, port, n, blocks).await;
        network
    }

    /// A certificate for a new key; the first waits for the operator.
    async fn certify(&self, office: &Office, first: bool) {
        let pki = Folder::new(self.folder.join("pki"));
        let waiting = pki.request(&self.net_id, &self.names, true).unwrap();
        let asked = json!({ "request": waiting.pem });
        let mut answer = office.done(&self.key, Method::POST, "/v1/certificates", asked).await;
        if first {
            assert_eq!(answer["state"], "waiting");
            let approve = format!("/v1/certificates/{}/approve", answer["id"]);
            answer = office.done(&office.operator, Method::POST, &approve, Value::Null).await;
        }
        assert_eq!(answer["state"], "signed");
        let roots = std::fs::read_to_string(self.folder.join("roots.pem")).unwrap();
        let roots = roamgate::tls::certificates(roots.as_bytes(), Path::new("roots")).unwrap();
        pki.install(answer["chain"].as_str().unwrap(), &roots, &office.clock).unwrap();
    }

    async fn start(&mut self, office: &Office, air: &Air, port: u16, n: u8, blocks: &[&str]) {
        let at = |file: &str| self.folder.join(file).display().to_string();
        let api = office.running.api.address;
        let text = format!(
            r#"
radio = []

[network]
net_ids = ["{net_id}"]
region = "EU868"
roles = ["fns", "sns", "hns", "js", "as"]

[store]
url = "sqlite:{db}"

[backend]
listen = "127.0.0.{n}:{port}"
identity = {{ folder = "{pki}" }}
roots = ["{roots}"]
crls = ["http://{api}/v1/crl.pem"]

[enrol]
registry = "http://{api}"
key_file = "{key}"
addresses = ["127.0.0.{n}"]

[discovery]
join_eui_suffix = "joineuis.{ZONE}"
net_id_suffix = "netids.{ZONE}"
port = {port}
resolvers = ["{dns}"]
dnssec = "require"
dane = "off"
trust_anchor = "{anchor}"

[roaming.default]
passive = {{ start = true, activation = true }}

[join_server]
join_euis = {blocks:?}

[control]
socket = "{socket}"
"#,
            net_id = self.net_id,
            db = at("node.db"),
            pki = at("pki"),
            roots = at("roots.pem"),
            key = at("registry-key"),
            dns = office.running.dns.address,
            anchor = office.folder.path().join("own-anchor").display(),
            socket = at("node.sock"),
        );
        std::fs::write(self.folder.join("roamgate.toml"), text).unwrap();
        let loaded = config::load(Some(&self.folder.join("roamgate.toml")), std::iter::empty()).unwrap();
        let config = loaded.checked().unwrap().config;
        let head = air.head_at(self.gateway, "head", None);
        air.tune(self.gateway, &config.network.plan());
        self.node = Some(Node::start(config, office.clock.clone(), vec![head]).await.unwrap());
        // its addresses are published by itself
        for _ in 0..100 {
            if office.net(&self.net_id).await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        leads_to(office.net(&self.net_id).await, &format!("127.0.0.{n}"));
    }

    fn node(&self) -> &Node {
        self.node.as_ref().unwrap()
    }

    async fn device(
        &self,
        air: &Air,
        clock: &Clock,
        dev_eui: u8,
        join_eui: &str,
        stands: &Network,
    ) -> Device {
        let (dev_eui, app_key) = (DevEui::from_msb([0, 0, 0, 0, 0, 0, 0, dev_eui]), Key::new(clock.random()));
        let join_eui: JoinEui = join_eui.parse().unwrap();
        let device = NewDevice {
            dev_eui,
            join_eui,
            app_key: Some(app_key.clone()),
            nwk_key: None,
            name: format!("device {dev_eui}"),
            mac_version: MacVersion::V1_0_3,
            roaming: true,
            home: None,
        };
        self.node().operator().add_device(device).await.unwrap();
        let mut device =
            Device::new(air, clock.clone(), dev_eui, join_eui, &app_key, u64::from_be_bytes(clock.random()));
        device.move_to(&[(stands.gateway, Link::NEAR)]);
        device
    }

    /// Its files have changed.
    fn reload(&self) {
        self.node().operator().reload(None).unwrap();
    }

    /// Serial number and authority of what it shows.
    fn shown(&self) -> Vec<String> {
        let chain = std::fs::read(Folder::new(self.folder.join("pki")).chain()).unwrap();
        let chain = roamgate::tls::certificates(&chain, Path::new("chain")).unwrap();
        chain.iter().map(|der| roamgate::pki::check::facts(der).unwrap().serial).collect()
    }
}

/// It is heard at its home, which says so.
async fn talks(device: &mut Device, what: &str) {
    for _ in 0..3 {
        if device.send(b"hello", 10, true).await.is_ok_and(|sent| sent.acked) {
            return;
        }
    }
    panic!("{what}: its home does not answer");
}

/// A port that is free at all of the networks' addresses.
fn port() -> u16 {
    loop {
        let first = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 11), 0)).unwrap();
        let port = first.local_addr().unwrap().port();
        if TcpListener::bind((Ipv4Addr::new(127, 0, 0, 12), port)).is_ok() {
            return port;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_in_the_life() {
    let mut roots = None;
    let office = Office::with(|folder, clock| {
        let authority = folder.join("authority");
        roots = Some(Roots::found(&authority, clock));
        format!("authority = \"{}\"\nnet_ids = \"600100-6001FF\"\n", authority.display())
    })
    .await;
    let mut roots = roots.unwrap();
    let (clock, port) = (office.clock.clone(), port());
    let air = Air::new(clock.clone(), 7);
    let (own, other) = ("70B3D57ED0000000/40", "0004A30B00000000/40");
    let one = Network::enrol(&office, &air, &roots, port, 11, &[own]).await;
    // the other's join server also knows one JoinEUI of the first network, for devices that will come from there
    let two = Network::enrol(&office, &air, &roots, port, 12, &[other, "70B3D57ED0000002"]).await;

    // a device of the first network, heard by the second only
    let mut walker = one.device(&air, &clock, 1, "70B3D57ED0000001", &two).await;
    let join = walker.join().await;
    assert!(join.ok, "it does not join abroad: {join:?}");
    talks(&mut walker, "abroad").await;

    // another, which moves to the other's join server: its owner says so in the zone, nobody touches it
    let mut moved = two.device(&air, &clock, 2, "70B3D57ED0000002", &one).await;
    let name = "/v1/join-euis/70B3D57ED0000002/devices/0000000000000002";
    let there = json!({ "records": [{ "type": "CNAME", "data": two.names[0], "ttl": 30 }] });
    office.refused(&two.key, Method::PUT, name, there.clone(), 403, "not yours").await;
    office.done(&one.key, Method::PUT, name, there).await;
    let join = moved.join().await;
    assert!(join.ok, "it does not find its new join server: {join:?}");
    talks(&mut moved, "at its new join server").await;

    // both renew, and go on talking
    let before = [one.shown(), two.shown()];
    for network in [&one, &two] {
        network.certify(&office, false).await;
        network.reload();
    }
    for (network, before) in [&one, &two].into_iter().zip(&before) {
        assert_ne!(network.shown()[0], before[0]);
    }
    talks(&mut walker, "with renewed certificates").await;
    talks(&mut moved, "with renewed certificates").await;

    // another root: everybody believes both, the registry's authority goes below it, everybody renews, and the old one goes
    let old_root = roots.root.cert_pem.clone();
    roots.roll(&clock);
    for network in [&one, &two] {
        let both = format!("{old_root}{}", roots.root.cert_pem);
        std::fs::write(network.folder.join("roots.pem"), both).unwrap();
        network.reload();
    }
    talks(&mut walker, "with two roots").await;
    for (network, before) in [&one, &two].into_iter().zip(&before) {
        network.certify(&office, false).await;
        network.reload();
        assert_ne!(network.shown()[1], before[1], "another intermediate");
    }
    for network in [&one, &two] {
        std::fs::write(network.folder.join("roots.pem"), &roots.root.cert_pem).unwrap();
        network.reload();
    }
    talks(&mut walker, "with the new root alone").await;
    talks(&mut moved, "with the new root alone").await;

    // the first network is none any more: what it has is refused as soon as the list is fetched
    office.done(&office.operator, Method::DELETE, &format!("/v1/members/{}", one.number), Value::Null).await;
    let asked = office.net(&one.net_id).await;
    assert!(asked.is_err(), "it has a name still: {asked:?}");
    two.reload();
    let mut refused = false;
    for _ in 0..10 {
        refused = !walker.send(b"hello?", 10, true).await.is_ok_and(|sent| sent.acked);
        if refused {
            break;
        }
    }
    assert!(refused, "a revoked network is still roamed with");
    assert!(!walker.join().await.ok, "a device of a revoked network joins");
    // the other's own go on
    moved.move_to(&[(two.gateway, Link::NEAR)]);
    talks(&mut moved, "at home").await;
    for network in [one, two] {
        network.node.unwrap().shutdown().await.unwrap();
    }
}
