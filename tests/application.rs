//! The application side from outside: a device of crate `lorawan-device` on a simulated air, a hotspot that is its home,
//! and what a broker and a web server see of it.

#[path = "support/broker.rs"]
mod broker;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use broker::Broker;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use roamgate::app::Node;
use roamgate::backend::message::MacVersion;
use roamgate::clock::Clock;
use roamgate::config;
use roamgate::control::{NewDevice, Operator as _};
use roamgate::demo::device::Device;
use roamgate::lorawan::{DevEui, GatewayEui, JoinEui, Key};
use roamgate::radio::simulated::{Air, Link};
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

const APPLICATION: &str = "52f14cd4-c6f1-4fbd-8f87-4025e1d49242";
const WAIT: Duration = Duration::from_secs(30);
const JOIN_EUI: JoinEui = JoinEui::from_msb([0x70, 0xB3, 0xD5, 0x7E, 0xD0, 0, 0, 1]);
const GATEWAY: GatewayEui = GatewayEui::from_msb([0xAA, 0x55, 0x5A, 0, 0, 0, 2, 2]);

/// A hotspot with one device at home.
struct Home {
    clock: Clock,
    air: Air,
    folder: tempfile::TempDir,
    application: String,
    dev_eui: DevEui,
    node: Option<Node>,
}

impl Home {
    /// `application`: the sections below `[application]`. Devices of tests that run at once differ in `number`.
    async fn new(number: u8, application: String) -> (Home, Device) {
        let clock = Clock::system();
        let air = Air::new(clock.clone(), number.into());
        let dev_eui = DevEui::from_msb([0x58, 0x17, 0xB1, 0xC3, 0xEB, 0x89, 0x0C, number]);
        let folder = tempfile::tempdir().unwrap();
        let mut home =
            Home { clock: clock.clone(), air: air.clone(), folder, application, dev_eui, node: None };
        home.starts().await;
        let app_key = Key::new([number; 16]);
        let new = NewDevice {
            dev_eui,
            join_eui: JOIN_EUI,
            app_key: Some(app_key.clone()),
            nwk_key: None,
            name: "barometer".into(),
            mac_version: MacVersion::V1_0_3,
            roaming: true,
            home: None,
        };
        home.node().operator().add_device(new).await.unwrap();
        let mut device = Device::new(&air, clock, dev_eui, JOIN_EUI, &app_key, number.into());
        device.move_to(&[(GATEWAY, Link::NEAR)]);
        (home, device)
    }

    async fn starts(&mut self) {
        let text = format!(
            "radio = []\n[network]\nnet_ids = [\"C00ABC\"]\n[store]\nurl = \"sqlite:{}\"\n\
             [application]\nid = \"{APPLICATION}\"\nname = \"attic\"\n{}",
            self.folder.path().join("roamgate.db").display(),
            self.application
        );
        let loaded = config::parse(None, text, std::iter::empty()).unwrap().checked().unwrap();
        let radio = self.air.head(GATEWAY, "head");
        self.node = Some(Node::start(loaded.config, self.clock.clone(), vec![radio]).await.unwrap());
    }

    async fn stops(&mut self) {
        self.node.take().unwrap().shutdown().await.unwrap();
    }

    fn node(&self) -> &Node {
        self.node.as_ref().unwrap()
    }

    fn topic(&self, rest: &str) -> String {
        format!("application/{APPLICATION}/device/{}/{rest}", self.dev_eui.to_string().to_lowercase())
    }
}

async fn joins(device: &mut Device) {
    for _ in 0..4 {
        if device.join().await.ok {
            return;
        }
    }
    panic!("{} does not join", device.dev_eui());
}

/// A confirmed uplink until it is acknowledged; the downlinks that came along.
async fn talks(device: &mut Device, payload: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut downlinks = Vec::new();
    for _ in 0..4 {
        let report = device.send(payload, 10, true).await.expect("a session");
        downlinks.extend(report.downlinks);
        if report.acked {
            return downlinks;
        }
    }
    panic!("{} is not acknowledged", device.dev_eui());
}

/// Look until there is something to see.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..WAIT.as_millis() / 20 {
        if let Some(seen) = look().await {
            return seen;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("not seen: {what}")
}

/// A flow: hears everything below `application/`, and publishes commands.
struct Flow {
    client: AsyncClient,
    heard: mpsc::UnboundedReceiver<(String, Value)>,
}

impl Flow {
    async fn at(broker: SocketAddr, number: u8) -> Flow {
        let mut options = MqttOptions::new(format!("flow-{number}"), broker.ip().to_string(), broker.port());
        options.set_max_packet_size(100_000, 200_000);
        let (client, mut line) = AsyncClient::new(options, 16);
        let (tells, heard) = mpsc::unbounded_channel();
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let mut ready = Some(ready);
        tokio::spawn(async move {
            while let Ok(event) = line.poll().await {
                match event {
                    Event::Incoming(Packet::SubAck(_)) => drop(ready.take().map(|ready| ready.send(()))),
                    Event::Incoming(Packet::Publish(message)) => {
                        let body = serde_json::from_slice(&message.payload).expect("JSON");
                        let _ = tells.send((message.topic, body));
                    }
                    _ => {}
                }
            }
        });
        client.subscribe("application/+/device/+/event/+", QoS::AtLeastOnce).await.unwrap();
        timeout(WAIT, is_ready).await.unwrap().unwrap();
        Flow { client, heard }
    }

    async fn hears(&mut self) -> (String, Value) {
        timeout(WAIT, self.heard.recv()).await.expect("an event in time").expect("an event")
    }

    async fn says(&self, topic: String, body: Value) {
        self.client.publish(topic, QoS::AtLeastOnce, false, body.to_string()).await.unwrap();
    }
}

/// `ROAMGATE_TEST_BROKER=127.0.0.1:1883` runs this against a broker that others wrote.
#[tokio::test(flavor = "multi_thread")]
async fn a_flow_hears_the_device_and_speaks_to_it_over_mqtt() {
    let own = Broker::start().await;
    let other = std::env::var("ROAMGATE_TEST_BROKER").ok().map(|address| address.parse().unwrap());
    let broker = other.unwrap_or(own.address);
    let mut flow = Flow::at(broker, 1).await;
    let (mut home, mut device) =
        Home::new(1, format!("[application.mqtt]\nserver = \"mqtt://{broker}\"\n")).await;
    joins(&mut device).await;
    talks(&mut device, b"hello").await;

    let (topic, join) = flow.hears().await;
    assert_eq!(topic, home.topic("event/join"));
    let dev_addr = device.dev_addr().unwrap().to_string().to_lowercase();
    assert_eq!(join["devAddr"], dev_addr);
    let (topic, up) = flow.hears().await;
    assert_eq!(topic, home.topic("event/up"));
    for (pointer, value) in [
        ("/data", json!(BASE64.encode("hello"))),
        ("/fPort", json!(10)),
        ("/confirmed", json!(true)),
        ("/devAddr", json!(dev_addr)),
        ("/deviceInfo/devEui", json!(home.dev_eui.to_string().to_lowercase())),
        ("/deviceInfo/deviceName", json!("barometer")),
        ("/deviceInfo/applicationId", json!(APPLICATION)),
        ("/deviceInfo/applicationName", json!("attic")),
        ("/rxInfo/0/gatewayId", json!("aa555a0000000202")),
        ("/txInfo/modulation/lora/spreadingFactor", json!(7)),
        ("/regionConfigId", json!("eu868")),
    ] {
        assert_eq!(up.pointer(pointer), Some(&value), "{pointer} of {up:#}");
    }

    // a command that cannot be obeyed is answered with a log event, others' topics with nothing
    let eui = home.dev_eui.to_string();
    flow.says(home.topic("command/down"), json!({ "devEui": eui, "fPort": 0 })).await;
    let (topic, log) = flow.hears().await;
    assert_eq!((topic, &log["level"]), (home.topic("event/log"), &json!("WARNING")));
    assert!(log["description"].as_str().unwrap().contains("fPort 0"), "{log}");

    // nor can one that comes after its time
    let late = json!({ "devEui": eui, "fPort": 7, "expiresAt": "2026-01-01T00:00:00Z" });
    flow.says(home.topic("command/down"), late).await;
    let (topic, log) = flow.hears().await;
    assert_eq!((topic, &log["code"]), (home.topic("event/log"), &json!("EXPIRED")));

    // one that is too long to be read is not waited for for ever
    let long = json!({ "devEui": eui, "fPort": 7, "data": "A".repeat(100_000) });
    flow.says(home.topic("command/down"), long).await;

    // one that can be goes to the device, and comes back as txack and ack
    let id = "d1f5a5c0-0b0e-4c9a-8a74-0123456789ab";
    let command =
        json!({ "devEui": eui, "confirmed": true, "fPort": 7, "data": BASE64.encode("down"), "id": id });
    let operator = home.node().operator();
    until("the downlink in the queue", async || {
        // once more: a command that comes twice is queued once
        flow.says(home.topic("command/down"), command.clone()).await;
        sleep(Duration::from_millis(200)).await;
        let device = operator.device(home.dev_eui).await.ok()?;
        assert!(device.queue.len() <= 1);
        device.queue.first().map(|item| assert_eq!(item.id, id))
    })
    .await;
    assert_eq!(talks(&mut device, b"two").await, [(7, b"down".to_vec())]);
    talks(&mut device, b"three").await;
    let mut told = Vec::new();
    while !told.iter().any(|(topic, _)| *topic == home.topic("event/ack")) {
        told.push(flow.hears().await);
    }
    let of = |kind: &str| {
        let topic = home.topic(&format!("event/{kind}"));
        told.iter().find(|(other, _)| *other == topic).map(|(_, body)| body.clone())
    };
    let (tx_ack, ack) = (of("txack").expect("a txack"), of("ack").expect("an ack"));
    assert_eq!((&tx_ack["queueItemId"], &ack["queueItemId"]), (&json!(id), &json!(id)));
    assert_eq!((&ack["acknowledged"], &ack["fCntDown"]), (&json!(true), &tx_ack["fCntDown"]));
    assert_eq!(tx_ack["gatewayId"], "aa555a0000000202");
    assert_eq!(tx_ack.pointer("/txInfo/modulation/lora/polarizationInversion"), Some(&json!(true)));

    // one whose time is over before the device speaks again is not sent, and that is told
    let soon = (Clock::system().wall() + Duration::from_secs(2)).to_string();
    let command = json!({ "devEui": eui, "fPort": 7, "data": BASE64.encode("soon"), "expiresAt": soon });
    flow.says(home.topic("command/down"), command).await;
    let waits = async || operator.device(home.dev_eui).await.ok()?.queue.first().map(drop);
    until("the downlink in the queue", waits).await;
    sleep(Duration::from_millis(2500)).await;
    assert_eq!(talks(&mut device, b"four").await, []);
    let (topic, log) = loop {
        let (topic, body) = flow.hears().await;
        if topic != home.topic("event/up") {
            break (topic, body);
        }
    };
    assert_eq!((topic, &log["code"]), (home.topic("event/log"), &json!("EXPIRED")));
    assert!(operator.device(home.dev_eui).await.unwrap().queue.is_empty());
    home.stops().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_while_the_broker_is_away_arrives_in_order_even_after_a_restart() {
    let mut broker = Broker::start().await;
    let application = format!("[application.mqtt]\nserver = \"mqtt://{}\"\n", broker.address);
    let (mut home, mut device) = Home::new(2, application).await;
    joins(&mut device).await;
    talks(&mut device, b"0").await;
    until("the first uplink", async || (broker.log().len() >= 2).then_some(())).await;

    broker.goes_away().await;
    talks(&mut device, b"1").await;
    talks(&mut device, b"2").await;
    home.stops().await;
    home.starts().await;
    talks(&mut device, b"3").await;
    // when it is back it hangs up in the middle of what has waited
    broker.hangs_up_after(2);
    broker.comes_back().await;
    talks(&mut device, b"4").await;

    let payloads = || {
        let mut seen = Vec::new();
        let mut ids = Vec::new();
        for (topic, body) in broker.log() {
            let body: Value = serde_json::from_slice(&body).unwrap();
            // what was not acknowledged comes again, and can be told by its id
            if topic == home.topic("event/up") && !ids.contains(&body["deduplicationId"]) {
                ids.push(body["deduplicationId"].clone());
                seen.push(String::from_utf8(BASE64.decode(body["data"].as_str().unwrap()).unwrap()).unwrap());
            }
        }
        seen
    };
    until("all uplinks", async || (payloads().len() >= 5).then_some(())).await;
    assert_eq!(payloads(), ["0", "1", "2", "3", "4"]);
    home.stops().await;
}

/// An authority of its own, as PEM files in a folder: NAME.pem and NAME.key of itself (`ca`), of a broker at 127.0.0.1
/// (`broker`), and of us (`client`).
fn authority() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
    let params = |name: &str| {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let mut ca = params("authority");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    write("ca.pem", ca.pem());
    let mut broker = CertificateParams::new(vec!["127.0.0.1".to_string()]).unwrap();
    broker.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let mut client = params("roamgate");
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    for (name, params) in [("broker", broker), ("client", client)] {
        let key = KeyPair::generate().unwrap();
        write(&format!("{name}.pem"), params.signed_by(&key, &ca).unwrap().pem());
        write(&format!("{name}.key"), key.serialize_pem());
    }
    folder
}

/// For a broker that wants to see certificates of this authority.
fn behind_tls(authority: &Path) -> ServerConfig {
    roamgate::tls::install_provider();
    let file = |name: &str| authority.join(name);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("ca.pem")).unwrap()).unwrap();
    let clients = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
    let chain = vec![CertificateDer::from_pem_file(file("broker.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(file("broker.key")).unwrap();
    ServerConfig::builder().with_client_cert_verifier(clients).with_single_cert(chain, key).unwrap()
}

/// The section that leads to a broker of `authority`, with its root and our certificate as `shown` says.
fn over_tls(broker: SocketAddr, ca: &Path, shown: Option<&Path>) -> String {
    let identity = shown.map(|folder| {
        let (chain, key) = (folder.join("client.pem"), folder.join("client.key"));
        format!("identity = {{ chain = \"{}\", key = \"{}\" }}\n", chain.display(), key.display())
    });
    let ca = ca.join("ca.pem");
    format!(
        "[application.mqtt]\nserver = \"mqtts://{broker}\"\nca = \"{}\"\n{}",
        ca.display(),
        identity.unwrap_or_default()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_only_the_configured_root_and_the_right_certificate_open_the_line() {
    let (ours, another) = (authority(), authority());
    let mut broker = Broker::start().await;
    let address = broker.listens_behind_tls(behind_tls(ours.path())).await;
    // our certificate, but another root than the broker's; then no certificate; then one of another authority
    let wrong =
        [(another.path(), Some(ours.path())), (ours.path(), None), (ours.path(), Some(another.path()))];
    let (mut home, mut device) = Home::new(4, over_tls(address, wrong[0].0, wrong[0].1)).await;
    joins(&mut device).await;
    talks(&mut device, b"patience").await;
    for (ca, shown) in wrong {
        home.stops().await;
        let before = broker.turned_away();
        home.application = over_tls(address, ca, shown);
        home.starts().await;
        until("a handshake that fails", async || (broker.turned_away() > before).then_some(())).await;
        assert!(broker.log().is_empty(), "nothing is told to a stranger, or by one");
    }
    home.stops().await;
    home.application = over_tls(address, ours.path(), Some(ours.path()));
    home.starts().await;
    until("what has waited", async || (broker.log().len() >= 2).then_some(())).await;
    let mut flow = Flow::at(broker.address, 4).await;
    talks(&mut device, b"at last").await;
    let (topic, up) = flow.hears().await;
    assert_eq!((topic, &up["data"]), (home.topic("event/up"), &json!(BASE64.encode("at last"))));
    home.stops().await;
}

/// Mosquitto with a listener in the clear for flows, and one behind TLS for us. It ends when this is dropped.
struct Mosquitto {
    process: Child,
    plain: SocketAddr,
    with_tls: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Mosquitto {
    async fn start(program: &str, authority: &Path) -> Mosquitto {
        let folder = tempfile::tempdir().unwrap();
        let port = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (plain, with_tls) = (port(), port());
        let file = |name: &str| authority.join(name).display().to_string();
        let text = format!(
            "allow_anonymous true\npersistence false\nlistener {} 127.0.0.1\nlistener {} 127.0.0.1\n\
             cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\n",
            plain.port(),
            with_tls.port(),
            file("ca.pem"),
            file("broker.pem"),
            file("broker.key"),
        );
        let config = folder.path().join("mosquitto.conf");
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(program);
        command.arg("-c").arg(config).stdout(Stdio::null()).stderr(Stdio::null());
        let mosquitto =
            Mosquitto { process: command.spawn().expect(program), plain, with_tls, _folder: folder };
        until("Mosquitto", async || tokio::net::TcpStream::connect(with_tls).await.ok().map(drop)).await;
        mosquitto
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `ROAMGATE_TEST_MOSQUITTO=/usr/sbin/mosquitto` starts that program and speaks TLS to it.
#[tokio::test(flavor = "multi_thread")]
async fn mosquitto_is_spoken_to_over_tls() {
    let Ok(program) = std::env::var("ROAMGATE_TEST_MOSQUITTO") else { return };
    let authority = authority();
    let broker = Mosquitto::start(&program, authority.path()).await;
    let mut flow = Flow::at(broker.plain, 5).await;
    let application = over_tls(broker.with_tls, authority.path(), Some(authority.path()));
    let (mut home, mut device) = Home::new(5, application).await;
    joins(&mut device).await;
    talks(&mut device, b"hello").await;
    assert_eq!(flow.hears().await.0, home.topic("event/join"));
    let (topic, up) = flow.hears().await;
    assert_eq!((topic, &up["data"]), (home.topic("event/up"), &json!(BASE64.encode("hello"))));
    home.stops().await;
}

/// A web server that keeps what it is sent, unless it is told to answer otherwise.
#[derive(Clone, Default)]
struct Web {
    got: Arc<Mutex<Vec<(String, HeaderMap, Value)>>>,
    /// Answered instead of 200.
    trouble: Arc<AtomicU16>,
    refused: Arc<AtomicU16>,
}

async fn take(
    State(web): State<Web>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: axum::Json<Value>,
) -> StatusCode {
    match web.trouble.load(Ordering::SeqCst) {
        0 => {
            web.got.lock().unwrap().push((query.unwrap_or_default(), headers, body.0));
            StatusCode::OK
        }
        status => {
            web.refused.fetch_add(1, Ordering::SeqCst);
            StatusCode::from_u16(status).unwrap()
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_server_gets_every_event_also_after_its_failures() {
    let web = Web::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/in", post(take)).with_state(web.clone());
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let application = format!(
        "[application.http]\nurl = \"http://{address}/in?site=1\"\nheaders = {{ x-token = \"secret\" }}\n"
    );
    let (mut home, mut device) = Home::new(3, application).await;
    web.trouble.store(503, Ordering::SeqCst);
    joins(&mut device).await;
    talks(&mut device, b"one").await;
    until("a failure", async || (web.refused.load(Ordering::SeqCst) > 0).then_some(())).await;
    talks(&mut device, b"two").await;
    assert!(web.got.lock().unwrap().is_empty());
    web.trouble.store(0, Ordering::SeqCst);
    until("all events", async || (web.got.lock().unwrap().len() >= 3).then_some(())).await;
    let got = web.got.lock().unwrap().clone();
    let queries: Vec<&str> = got.iter().map(|(query, ..)| query.as_str()).collect();
    assert_eq!(queries, ["site=1&event=join", "site=1&event=up", "site=1&event=up"]);
    assert_eq!(got[0].1["x-token"], "secret");
    assert_eq!(got[0].1["content-type"], "application/json");
    assert_eq!(got[1].2["data"], BASE64.encode("one"));
    assert_eq!(got[2].2["data"], BASE64.encode("two"));

    // an event that the server will never take holds up nothing
    let refused = web.refused.load(Ordering::SeqCst);
    web.trouble.store(422, Ordering::SeqCst);
    talks(&mut device, b"three").await;
    until("the refusal", async || (web.refused.load(Ordering::SeqCst) > refused).then_some(())).await;
    web.trouble.store(0, Ordering::SeqCst);
    talks(&mut device, b"four").await;
    until("the next", async || (web.got.lock().unwrap().len() >= 4).then_some(())).await;
    assert_eq!(web.got.lock().unwrap()[3].2["data"], BASE64.encode("four"));
    home.stops().await;
    server.abort();
}
