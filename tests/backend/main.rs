//! Both ends of TS002 over real sockets, with certificates of a federation made on the spot.

mod dane;
mod reload;
mod ways;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::SignedDuration;
use reqwest::StatusCode;
use roamgate::backend::Limits;
use roamgate::backend::client::{self, Client, Discover, NoDiscovery};
use roamgate::backend::door::{Boxed, Caller, Deadline, PeerError, Rooms};
use roamgate::backend::message::*;
use roamgate::backend::server::{self, Doorstep, Ours, Roles, Server};
use roamgate::clock::Clock;
use roamgate::discovery::Endpoint;
use roamgate::lorawan::{DevEui, NetId};
use roamgate::partners;
use roamgate::pki::check::PeerRules;
use roamgate::pki::dane::Evidence;
use roamgate::pki::make::{self, Authority, IntermediateSpec, LeafSpec, RootSpec};
use roamgate::tls::{self, Identity, Roots, Trust};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

const HOME: NetId = NetId::from_msb([0, 0, 1]);
const AWAY: NetId = NetId::from_msb([0, 0, 2]);
const HOME_NAME: &str = "000001.netids.example";
const AWAY_NAME: &str = "000002.netids.example";
const JOIN_EUI: &str = "0000000000000001";
const OPEN: &str = "[default]\npassive = { start = true, activation = true }";

fn suffix() -> roamgate::discovery::Suffix {
    "netids.example".parse().unwrap()
}

struct Federation {
    clock: Clock,
    root: Authority,
}

impl Federation {
    fn new() -> Federation {
        Federation::named("A federation")
    }
    fn named(name: &str) -> Federation {
        tls::install_provider();
        let clock = Clock::system();
        let root = Authority::root(&RootSpec::new(name), &clock).unwrap();
        Federation { clock, root }
    }
    fn identity(&self, name: &str) -> Identity {
        let member = self.root.intermediate(&IntermediateSpec::new("A member", [name]), &self.clock).unwrap();
        let made: make::Identity = member.issue(&LeafSpec::new("node", [name]), &self.clock).unwrap();
        Identity::from_pem(&made.chain_pem, &made.key_pem).unwrap()
    }
    fn trust(&self) -> Arc<Trust> {
        let roots = Roots::from_pem(&self.root.cert_pem).unwrap();
        Trust::new(&roots, PeerRules::default(), self.clock.clone()).unwrap()
    }

    /// A server of NetID 000001, which is also the join server of one JoinEUI.
    async fn home(&self, roaming: &str, rooms: Arc<dyn Rooms>) -> Server {
        self.home_at("127.0.0.1:0".parse().unwrap(), roaming, rooms).await
    }
    async fn home_at(&self, listen: SocketAddr, roaming: &str, rooms: Arc<dyn Rooms>) -> Server {
        let config = tls::server_config(&self.identity(HOME_NAME), &self.trust()).unwrap();
        server::serve(Doorstep::at(listen), config, self.parts(roaming, rooms)).await.unwrap()
    }
    fn parts(&self, roaming: &str, rooms: Arc<dyn Rooms>) -> server::Parts {
        server::Parts {
            ours: Ours { net_ids: vec![HOME], join_euis: vec![JOIN_EUI.parse().unwrap()], roles: Roles::ALL },
            partners: Arc::new(toml::from_str(roaming).unwrap()),
            applications: BTreeMap::new(),
            net_id_suffix: suffix(),
            join_eui_suffix: "joineuis.example".parse().unwrap(),
            keks: BTreeMap::new(),
            trust: self.trust(),
            evidence: Evidence::Pkix,
            resolver: None,
            rooms,
            deliver: None,
            keeping: None,
            pending: Arc::default(),
            tokens: Arc::default(),
            manners: Arc::default(),
            limits: Limits::default(),
            clock: self.clock.clone(),
        }
    }

    /// A plain HTTP client with the certificate of `name`, or with none.
    fn http(&self, name: Option<&str>, home: SocketAddr) -> reqwest::Client {
        let tls = match name {
            Some(name) => {
                tls::client_config(&self.identity(name), &self.trust(), tls::Expected::default()).unwrap()
            }
            None => {
                let mut roots = rustls::RootCertStore::empty();
                for certificate in tls::certificates(self.root.cert_pem.as_bytes(), "root".as_ref()).unwrap()
                {
                    roots.add(certificate).unwrap();
                }
                rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()
            }
        };
        let builder = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy();
        builder.resolve(HOME_NAME, home).build().unwrap()
    }

    /// Our client as NetID 000002, which finds everybody at one address.
    fn client(&self, partners: &str, discover: Arc<dyn Discover>) -> Client {
        self.client_by(partners, discover, Evidence::Pkix)
    }
    fn client_by(&self, partners: &str, discover: Arc<dyn Discover>, evidence: Evidence) -> Client {
        let partners: Arc<partners::Config> = Arc::new(toml::from_str(partners).unwrap());
        let (keks, clock) = (BTreeMap::new(), self.clock.clone());
        Client::new(client::Parts {
            join_servers: Vec::new(),
            net_id: AWAY,
            partners,
            discover,
            identity: (&self.identity(AWAY_NAME)).into(),
            trust: self.trust(),
            evidence,
            net_id_suffix: suffix(),
            keks,
            pending: Arc::default(),
            tokens: Arc::default(),
            manners: Arc::default(),
            keep_warm: Duration::ZERO,
            clock,
        })
    }
}

/// Everybody is at this address, under the name of NetID 000001.
struct At(SocketAddr, &'static str);

impl Discover for At {
    fn find<'a>(
        &'a self,
        _: &'a Party,
        _: Option<DevEui>,
        _: Deadline,
    ) -> Boxed<'a, Result<Endpoint, String>> {
        Box::pin(std::future::ready(Ok(Endpoint::at(self.1, self.0))))
    }
}

/// Rooms that know one home, and remember who asked.
#[derive(Default)]
struct Known(Mutex<Vec<(Caller, &'static str)>>);

impl Rooms for Known {
    fn answer(self: Arc<Self>, from: Caller, request: Request) -> Boxed<'static, Result<Answer, Refusal>> {
        self.0.lock().unwrap().push((from, request.message_type()));
        let answer = match request {
            Request::HomeNs(_) => Ok(Answer::HomeNs(HomeNsAns { h_net_id: HOME, h_nsid: None })),
            _ => Err(Refusal::new(ResultCode::UnknownDevEui, "nobody")),
        };
        Box::pin(std::future::ready(answer))
    }
}

/// Rooms that begin, wait to be told, and say when they are done.
struct Slow {
    begun: mpsc::UnboundedSender<()>,
    go: tokio::sync::Semaphore,
    done: mpsc::UnboundedSender<()>,
}

impl Rooms for Slow {
    fn answer(self: Arc<Self>, _: Caller, _: Request) -> Boxed<'static, Result<Answer, Refusal>> {
        Box::pin(async move {
            self.begun.send(()).unwrap();
            let _ = self.go.acquire().await;
            self.done.send(()).unwrap();
            Ok(Answer::HomeNs(HomeNsAns { h_net_id: HOME, h_nsid: None }))
        })
    }
}

fn slow() -> (Arc<Slow>, mpsc::UnboundedReceiver<()>, mpsc::UnboundedReceiver<()>) {
    let ((begun, has_begun), (done, is_done)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    let go = tokio::sync::Semaphore::new(0);
    (Arc::new(Slow { begun, go, done }), has_begun, is_done)
}

fn message(name: &str) -> Value {
    let path = format!("{}/tests/fixtures/examples/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn home_ns() -> Value {
    json!({ "ProtocolVersion": "1.0", "SenderID": "000002", "ReceiverID": JOIN_EUI, "TransactionID": 42,
            "MessageType": "HomeNSReq", "DevEUI": "0102030405060708" })
}

fn home_ns_req() -> Request {
    HomeNsReq { dev_eui: DevEui::from_msb([1, 2, 3, 4, 5, 6, 7, 8]) }.into()
}

fn js() -> Party {
    Party::Js(JOIN_EUI.parse().unwrap())
}

fn soon(clock: &Clock) -> Deadline {
    Deadline(clock.now() + Duration::from_secs(5))
}

/// A partner that writes its JSON itself.
struct Partner {
    http: reqwest::Client,
    url: String,
}

impl Partner {
    fn new(federation: &Federation, name: &str, server: &Server) -> Partner {
        let url = format!("https://{HOME_NAME}:{}/", server.address().unwrap().port());
        Partner { http: federation.http(Some(name), server.address().unwrap()), url }
    }
    async fn post(&self, body: impl Into<reqwest::Body>) -> (StatusCode, Value) {
        let response = self.http.post(&self.url).body(body).send().await.unwrap();
        let status = response.status();
        let body = response.bytes().await.unwrap();
        (status, if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() })
    }
    async fn code(&self, message: &Value) -> String {
        let (status, answer) = self.post(message.to_string()).await;
        assert_eq!(status, StatusCode::OK);
        answer["Result"]["ResultCode"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_partner_is_asked_and_answers_over_one_warm_connection() {
    let federation = Federation::new();
    let rooms = Arc::new(Known::default());
    let server = federation.home(OPEN, rooms.clone()).await;
    let (front, connections) = counting_front(server.address().unwrap()).await;
    let client = federation.client(OPEN, Arc::new(At(front, HOME_NAME)));
    for _ in 0..3 {
        let began = federation.clock.now();
        let answer = client.send(js(), home_ns_req(), soon(&federation.clock)).await;
        assert_eq!(answer.unwrap(), Answer::HomeNs(HomeNsAns { h_net_id: HOME, h_nsid: None }));
        println!("HomeNSReq to HomeNSAns: {:?}", federation.clock.now() - began);
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
    let asked = rooms.0.lock().unwrap();
    let (caller, message_type) = &asked[0];
    assert_eq!(*message_type, "HomeNSReq");
    assert_eq!((&caller.party, &caller.receiver, caller.ours), (&Party::Ns(AWAY), &js(), false));
}

#[tokio::test]
async fn many_requests_at_once_all_get_their_own_answer() {
    let federation = Federation::new();
    let server = federation.home(OPEN, Arc::new(Known::default())).await;
    let client = federation.client(OPEN, Arc::new(At(server.address().unwrap(), HOME_NAME)));
    let by = soon(&federation.clock);
    let asked = (0..30).map(|_| client.send(js(), home_ns_req(), by));
    for answer in futures_util::future::join_all(asked).await {
        answer.unwrap();
    }
}

#[tokio::test]
async fn a_partner_that_was_restarted_is_asked_again() {
    let federation = Federation::new();
    let server = federation.home(OPEN, Arc::new(Known::default())).await;
    let address = server.address().unwrap();
    let client = federation.client(OPEN, Arc::new(At(address, HOME_NAME)));
    client.send(js(), home_ns_req(), soon(&federation.clock)).await.unwrap();
    server.stop().await;
    let gone = client.send(js(), home_ns_req(), soon(&federation.clock)).await;
    assert!(matches!(gone, Err(PeerError::Transport { .. })), "{gone:?}");
    let _server = federation.home_at(address, OPEN, Arc::new(Known::default())).await;
    client.send(js(), home_ns_req(), soon(&federation.clock)).await.unwrap();
}

#[tokio::test]
async fn one_partner_cannot_keep_the_house_busy() {
    let federation = Federation::new();
    let (rooms, mut begun, _done) = slow();
    let server = federation.home(OPEN, rooms.clone()).await;
    // each of them has no more than 64 exchanges with one server at once
    let new_client = || federation.client(OPEN, Arc::new(At(server.address().unwrap(), HOME_NAME)));
    let (clients, client) = ([(); 4].map(|()| new_client()), new_client());
    let by = soon(&federation.clock);
    let asked: Vec<_> = (0..256)
        .map(|number| {
            let client = clients[number % 4].clone();
            tokio::spawn(async move { client.send(js(), home_ns_req(), by).await })
        })
        .collect();
    for _ in 0..256 {
        begun.recv().await.unwrap();
    }
    let one_more = client.send(js(), home_ns_req(), by).await.unwrap_err();
    assert!(one_more.to_string().contains("too many requests at once"), "{one_more}");
    rooms.go.add_permits(256);
    for answer in asked {
        answer.await.unwrap().unwrap();
    }
    client.send(js(), home_ns_req(), by).await.unwrap();
}

#[tokio::test]
async fn a_certificate_speaks_for_its_own_network_only() {
    let federation = Federation::new();
    let server = federation.home(OPEN, Arc::new(Known::default())).await;
    let thief = Partner::new(&federation, "000003.netids.example", &server);
    let (status, answer) = thief.post(home_ns().to_string()).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer["MessageType"], "HomeNSAns");
    assert_eq!((&answer["SenderID"], &answer["ReceiverID"]), (&json!(JOIN_EUI), &json!("000002")));
    assert_eq!(
        (&answer["TransactionID"], &answer["Result"]["ResultCode"]),
        (&json!(42), &json!("UnknownSender"))
    );
    let why = answer["Result"]["Description"].as_str().unwrap();
    assert!(why.contains("speaks for 000003.netids.example, not for 000002.netids.example"), "{why}");
}

#[tokio::test]
async fn a_hub_speaks_for_its_members_and_strangers_are_nobody() {
    let federation = Federation::new();
    let listed = "[[partner]]\nnet_id = \"00000A\"\nidentity = \"hub.example\"\nspeaks_for = [\"000002\"]";
    let server = federation.home(listed, Arc::new(Known::default())).await;
    let hub = Partner::new(&federation, "hub.example", &server);
    assert_eq!(hub.code(&home_ns()).await, "Success");
    let mut own = home_ns();
    own["SenderID"] = json!("00000A");
    assert_eq!(hub.code(&own).await, "Success");
    own["SenderID"] = json!("00000B");
    assert_eq!(hub.code(&own).await, "UnknownSender");
    // its certificate is right, and it is not listed
    let stranger = Partner::new(&federation, AWAY_NAME, &server);
    let (_, answer) = stranger.post(home_ns().to_string()).await;
    let why = answer["Result"]["Description"].as_str().unwrap();
    assert!(why.starts_with("NetID 000002 is no [[roaming.partner]] here"), "{why}");
}

#[tokio::test]
async fn without_a_client_certificate_there_is_no_connection() {
    let federation = Federation::new();
    let server = federation.home(OPEN, Arc::new(Known::default())).await;
    let url = format!("https://{HOME_NAME}:{}/", server.address().unwrap().port());
    let nobody =
        federation.http(None, server.address().unwrap()).post(url).body(home_ns().to_string()).send().await;
    let error = nobody.unwrap_err();
    assert!(tls::explain(&error).unwrap().contains("wants a client certificate"), "{error:?}");
}

#[tokio::test]
async fn the_first_steps_have_statuses_of_http() {
    let federation = Federation::new();
    let server = federation.home(OPEN, Arc::new(Known::default())).await;
    let peer = Partner::new(&federation, AWAY_NAME, &server);
    let get = peer.http.get(&peer.url).send().await.unwrap();
    assert_eq!(get.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(peer.post(vec![b' '; 300 * 1024]).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    for body in ["no json", "[]", "{\"MessageType\":\"WhoAreYou\"}", "{\"ProtocolVersion\":\"1.0\"}"] {
        let (status, answer) = peer.post(body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(answer["Result"]["ResultCode"], "MalformedRequest", "{body}");
    }
    // an answer that nobody asked for, a notification
    for file in ["homens-ans.json", "bi11-prstart-notif.json"] {
        assert_eq!(peer.post(message(file).to_string()).await, (StatusCode::OK, Value::Null));
    }
    // a body just below the limit is only wrong
    let mut long = home_ns();
    long["Padding"] = json!("x".repeat(255 * 1024));
    assert_eq!(peer.code(&long).await, "Success");
}

#[tokio::test]
async fn later_steps_have_result_codes() {
    let federation = Federation::new();
    let rooms = Arc::new(Known::default());
    let server = federation.home(OPEN, rooms.clone()).await;
    let peer = Partner::new(&federation, AWAY_NAME, &server);
    let with = |name: &str, value: Value| {
        let mut message = home_ns();
        message[name] = value;
        message
    };
    assert_eq!(peer.code(&with("ProtocolVersion", json!("2.0"))).await, "InvalidProtocolVersion");
    assert_eq!(peer.code(&with("TransactionID", json!("42"))).await, "MalformedRequest");
    assert_eq!(peer.code(&with("ReceiverID", json!("00000000000000FF"))).await, "UnkownReceiver");
    assert_eq!(peer.code(&with("DevEUI", Value::Null)).await, "MalformedRequest");
    // sender before receiver
    let mut both = with("ReceiverID", json!("00000000000000FF"));
    both["SenderID"] = json!("000003");
    assert_eq!(peer.code(&both).await, "UnknownSender");
    assert!(rooms.0.lock().unwrap().is_empty());

    let to_us = |file: &str| {
        let mut message = message(file);
        (message["SenderID"], message["ReceiverID"]) = (json!("000002"), json!("000001"));
        message
    };
    assert_eq!(peer.code(&to_us("hrstart-req-join.json")).await, "NoRoamingAgreement");
    assert_eq!(peer.code(&to_us("xmitdata-req-ul-handover.json")).await, "NoRoamingAgreement");
    assert!(rooms.0.lock().unwrap().is_empty());
    // beyond step 11 it is the rooms' word
    assert_eq!(peer.code(&to_us("prstart-req.json")).await, "UnknownDevEUI");
    assert_eq!(peer.code(&to_us("prstop-req.json")).await, "UnknownDevEUI");
    // a 1.0 device's AppEUI need not be ours, but then the device must be
    let mut join = message("join-req.json");
    join["SenderID"] = json!("000002");
    assert_eq!(peer.code(&join).await, "UnkownReceiver");
    assert_eq!(rooms.0.lock().unwrap().len(), 3);
    // our answer was lost: the same request gets the same one, and nobody is asked twice
    assert_eq!(peer.code(&join).await, "UnkownReceiver");
    assert_eq!(rooms.0.lock().unwrap().len(), 3);
    let thief = Partner::new(&federation, "000003.netids.example", &server);
    assert_eq!(thief.code(&join).await, "UnknownSender");
    join["TransactionID"] = json!(43);
    assert_eq!(peer.code(&join).await, "UnkownReceiver");
    assert_eq!(rooms.0.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn the_last_segment_of_the_path_says_who_is_meant() {
    let federation = Federation::new();
    let server = federation.home(OPEN, Arc::new(Known::default())).await;
    let mut peer = Partner::new(&federation, AWAY_NAME, &server);
    peer.url += "anything/js";
    assert_eq!(peer.code(&home_ns()).await, "Success");
    peer.url = peer.url.replace("/js", "/fns");
    assert_eq!(peer.code(&home_ns()).await, "MalformedRequest");
}

#[tokio::test]
async fn who_hangs_up_ends_the_waiting_and_not_the_work() {
    let federation = Federation::new();
    let (rooms, mut begun, mut done) = slow();
    let server = federation.home(OPEN, rooms.clone()).await;
    let client = federation.client(OPEN, Arc::new(At(server.address().unwrap(), HOME_NAME)));
    // our client gives up waiting ...
    let by = Deadline(federation.clock.now() + Duration::from_millis(300));
    let late = client.send(js(), home_ns_req(), by).await;
    assert!(matches!(late, Err(PeerError::Late { .. })), "{late:?}");
    begun.recv().await.unwrap();
    // ... and another hangs up for good
    let peer = Partner::new(&federation, AWAY_NAME, &server);
    let hung_up = tokio::time::timeout(Duration::from_millis(300), peer.post(home_ns().to_string())).await;
    assert!(hung_up.is_err());
    drop(peer);
    begun.recv().await.unwrap();
    rooms.go.add_permits(100);
    done.recv().await.unwrap();
    done.recv().await.unwrap();
}

#[tokio::test]
async fn stopping_waits_for_what_has_begun() {
    let federation = Federation::new();
    let (rooms, mut begun, mut done) = slow();
    let server = federation.home(OPEN, rooms.clone()).await;
    let address = server.address().unwrap();
    let peer = Partner::new(&federation, AWAY_NAME, &server);
    let asking = tokio::spawn(async move { peer.code(&home_ns()).await });
    begun.recv().await.unwrap();
    let stopping = tokio::spawn(server.stop());
    federation.clock.sleep(Duration::from_millis(100)).await;
    assert!(!stopping.is_finished());
    rooms.go.add_permits(100);
    assert_eq!(asking.await.unwrap(), "Success");
    stopping.await.unwrap();
    done.try_recv().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_certificate_is_judged_for_every_request_and_nobody_without_a_clock() {
    let federation = Federation::new();
    let server = federation.home(OPEN, Arc::new(Known::default())).await;
    let peer = Partner::new(&federation, AWAY_NAME, &server);
    assert_eq!(peer.code(&home_ns()).await, "Success");
    // the connection stays, the certificate's time goes by
    federation.clock.move_wall(SignedDuration::from_hours(24 * 500));
    let response = peer.http.post(&peer.url).body(home_ns().to_string()).send().await.unwrap();
    assert_eq!(response.headers()["connection"], "close");
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["Result"]["ResultCode"], "UnknownSender");
    assert!(answer["Result"]["Description"].as_str().unwrap().contains("renew it"));
    federation.clock.move_wall(SignedDuration::from_hours(-24 * 500));

    let client = federation.client(OPEN, Arc::new(At(server.address().unwrap(), HOME_NAME)));
    federation.clock.set_trusted(false);
    let refused = client.send(js(), home_ns_req(), soon(&federation.clock)).await;
    assert!(matches!(refused, Err(PeerError::Forbidden { .. })), "{refused:?}");
    let mut stream = TcpStream::connect(server.address().unwrap()).await.unwrap();
    assert!(matches!(stream.read(&mut [0; 8]).await, Ok(0) | Err(_)), "no word for anybody");
    federation.clock.set_trusted(true);
    client.send(js(), home_ns_req(), soon(&federation.clock)).await.unwrap();
}

#[tokio::test]
async fn what_keeps_us_from_a_partner_is_said_with_its_remedy() {
    let federation = Federation::new();
    let server = federation.home(OPEN, Arc::new(Known::default())).await;
    let ask = async |client: &Client| {
        let error = client.send(Party::Ns(HOME), pr_start(), soon(&federation.clock)).await.unwrap_err();
        println!("{error}");
        error
    };
    // nobody knows the way
    let error = ask(&federation.client(OPEN, Arc::new(NoDiscovery))).await;
    assert!(matches!(error, PeerError::NotFound { .. }));
    // nobody listens there
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let PeerError::Transport { why, .. } = ask(&federation.client(OPEN, Arc::new(At(gone, HOME_NAME)))).await
    else {
        panic!()
    };
    assert!(why.contains("refused") && why.contains(&gone.to_string()), "{why}");
    // somebody else is there
    let other = At(server.address().unwrap(), "000009.netids.example");
    let PeerError::Transport { why, .. } = ask(&federation.client(OPEN, Arc::new(other))).await else {
        panic!()
    };
    assert!(why.contains("certificate"), "{why}");
    // another federation
    let stranger =
        Federation::named("Another").client(OPEN, Arc::new(At(server.address().unwrap(), HOME_NAME)));
    let PeerError::Transport { why, .. } = ask(&stranger).await else { panic!() };
    assert!(why.contains("none of our roots"), "{why}");
    // reached, and refused
    let error = ask(&federation.client(OPEN, Arc::new(At(server.address().unwrap(), HOME_NAME)))).await;
    assert!(error.is(ResultCode::UnknownDevEui));
    // configured, and not by https
    let plain = "[[partner]]\nnet_id = \"000001\"\nserver = \"http://127.0.0.1/\"";
    let error = ask(&federation.client(plain, Arc::new(NoDiscovery))).await;
    assert!(matches!(error, PeerError::Forbidden { .. }));
}

#[tokio::test]
async fn a_configured_server_needs_no_discovery() {
    let federation = Federation::new();
    let server = federation.home(OPEN, Arc::new(Known::default())).await;
    let listed = format!(
        "[[partner]]\nnet_id = \"000001\"\nserver = \"https://127.0.0.1:{}/sns\"",
        server.address().unwrap().port()
    );
    let client = federation.client(&listed, Arc::new(NoDiscovery));
    let error = client.send(Party::Ns(HOME), pr_start(), soon(&federation.clock)).await.unwrap_err();
    assert!(error.is(ResultCode::UnknownDevEui), "{error}");
}

#[tokio::test]
async fn a_partner_that_wants_an_authorization_gets_it_and_nobody_else() {
    let federation = Federation::new();
    let (address, requests) = canned(&federation, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await;
    let listed = "[[partner]]\nnet_id = \"000001\"\nauthorization = \"Bearer c2VjcmV0\"";
    for (to, request) in [(Party::Ns(HOME), pr_start()), (js(), home_ns_req())] {
        let client = federation.client(listed, Arc::new(At(address, HOME_NAME)));
        assert!(client.send(to, request, soon(&federation.clock)).await.is_err());
    }
    let seen: Vec<_> = requests.lock().unwrap().iter().map(|request| request.to_lowercase()).collect();
    let header = |request: &String| request.contains("\r\nauthorization: bearer c2vjcmv0\r\n");
    assert_eq!(seen.iter().map(header).collect::<Vec<_>>(), [true, false], "{seen:?}");
}

#[tokio::test]
async fn strange_answers_are_told_apart() {
    let federation = Federation::new();
    type Expected = fn(&PeerError) -> bool;
    let cases: [(&str, Expected); 5] = [
        // it will answer by a request of its own, and does not
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            |error| matches!(error, PeerError::Transport { why, .. } if why.starts_with("an empty answer")),
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", |error| {
            matches!(error, PeerError::Confused { .. })
        }),
        (
            "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
            |error| matches!(error, PeerError::Transport { why, .. } if why.starts_with("HTTP 404")),
        ),
        // a failure with a status of its own still says what it is
        (
            "HTTP/1.1 400 Bad Request\r\nContent-Length: 41\r\n\r\n{\"Result\":{\"ResultCode\":\"UnknownDevEUI\"}}",
            |error| error.is(ResultCode::UnknownDevEui),
        ),
        ("", |error| matches!(error, PeerError::Transport { .. })),
    ];
    for (response, expected) in cases {
        let (address, requests) = canned(&federation, response).await;
        let client = federation.client(OPEN, Arc::new(At(address, HOME_NAME)));
        let by = Deadline(federation.clock.now() + Duration::from_secs(2));
        let error = client.send(js(), home_ns_req(), by).await.unwrap_err();
        assert!(expected(&error), "{response}: {error}");
        // what has left is never sent again
        let request = requests.lock().unwrap().clone();
        assert_eq!(request.len(), 1, "{response}");
        assert!(request[0].starts_with("POST / HTTP/1.1\r\n"), "{request:?}");
        assert!(request[0].to_lowercase().contains("content-type: application/json\r\n"), "{request:?}");
    }
}

fn pr_start() -> Request {
    let phy_payload = hex::decode("40CDAB14EA8001000A3208FB1A849A7D35345103E892").unwrap();
    let mut ul = UlMeta::at("2026-11-20T10:15:42Z".parse().unwrap());
    (ul.data_rate, ul.ul_freq, ul.rf_region) = (Some(5), Some(868_300_000), Some("EU868".into()));
    PrStartReq { phy_payload, ul, downlink_in_answer: true, dedup_window: None, mic_check: false, home: None }
        .into()
}

/// Passes bytes on to `to`, and counts connections.
async fn counting_front(to: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((mut inside, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            let mut outside = TcpStream::connect(to).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut inside, &mut outside).await });
        }
    });
    (address, count)
}

/// A server of NetID 000001 that reads a request and writes these bytes, whatever was asked.
async fn canned(federation: &Federation, response: &'static str) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let config = tls::server_config(&federation.identity(HOME_NAME), &federation.trust()).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(config);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = requests.clone();
    let (ready, is_ready) = oneshot::channel();
    tokio::spawn(async move {
        ready.send(()).unwrap();
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap_or(0);
            seen.lock().unwrap().push(String::from_utf8_lossy(&request[..length]).into_owned());
            let _ = stream.write_all(response.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    is_ready.await.unwrap();
    (address, requests)
}

// ---- answers that come as requests of their own

/// A node with both ends.
struct Both {
    client: Client,
    server: Server,
    rooms: Arc<Known>,
}

impl Federation {
    /// A node that finds everybody at the addresses of the book.
    async fn both(&self, net_id: NetId, name: &'static str, roaming: &str, book: &Arc<Book>) -> Both {
        let partners: Arc<partners::Config> = Arc::new(toml::from_str(roaming).unwrap());
        let (pending, tokens) = (Arc::default(), Arc::default());
        let client = Client::new(client::Parts {
            join_servers: Vec::new(),
            net_id,
            partners,
            discover: book.clone(),
            identity: (&self.identity(name)).into(),
            trust: self.trust(),
            evidence: Evidence::Pkix,
            net_id_suffix: suffix(),
            keks: BTreeMap::new(),
            pending: Arc::clone(&pending),
            tokens: Arc::clone(&tokens),
            manners: Arc::default(),
            keep_warm: Duration::ZERO,
            clock: self.clock.clone(),
        });
        let rooms = Arc::new(Known::default());
        let parts = server::Parts {
            ours: Ours {
                net_ids: vec![net_id],
                join_euis: vec![JOIN_EUI.parse().unwrap()],
                roles: Roles::ALL,
            },
            deliver: Some(Arc::new(client.clone())),
            pending,
            tokens,
            ..self.parts(roaming, rooms.clone())
        };
        let config = tls::server_config(&self.identity(name), &self.trust()).unwrap();
        let server =
            server::serve(Doorstep::at("127.0.0.1:0".parse().unwrap()), config, parts).await.unwrap();
        book.0.lock().unwrap().insert(Party::Ns(net_id), (name, server.address().unwrap()));
        Both { client, server, rooms }
    }

    /// Two networks of which each answers the other later.
    async fn later(&self) -> (Both, Both, Arc<Book>) {
        let book = Arc::new(Book::default());
        let entry = |net_id: NetId| {
            format!("[[partner]]\nnet_id = \"{net_id}\"\nmode = \"async\"\npassive = {{ start = true }}\n")
        };
        let home = self.both(HOME, HOME_NAME, &entry(AWAY), &book).await;
        let away = self.both(AWAY, AWAY_NAME, &entry(HOME), &book).await;
        (home, away, book)
    }
}

/// Where everybody is.
#[derive(Default)]
struct Book(Mutex<BTreeMap<Party, (&'static str, SocketAddr)>>);

impl Discover for Book {
    fn find<'a>(
        &'a self,
        to: &'a Party,
        _: Option<DevEui>,
        _: Deadline,
    ) -> Boxed<'a, Result<Endpoint, String>> {
        let found = self.0.lock().unwrap().get(to).copied().ok_or_else(|| "nobody".to_string());
        Box::pin(std::future::ready(found.map(|(host, address)| Endpoint::at(host, address))))
    }
}

fn profile_req() -> Request {
    ProfileReq { dev_eui: DevEui::from_msb([1, 2, 3, 4, 5, 6, 7, 8]) }.into()
}

#[tokio::test]
async fn a_partner_answers_by_a_request_of_its_own_and_is_answered_so() {
    let federation = Federation::new();
    let (home, away, _book) = federation.later().await;
    let by = soon(&federation.clock);
    for (asks, asked, to) in [(&away, &home, HOME), (&home, &away, AWAY)] {
        let all = (0..20).map(|_| asks.client.send(Party::Ns(to), profile_req(), by));
        for answer in futures_util::future::join_all(all).await {
            let Err(PeerError::Refused { refusal, .. }) = answer else { panic!("{answer:?}") };
            assert_eq!((refusal.code, &*refusal.description), (ResultCode::UnknownDevEui, "nobody"));
        }
        assert_eq!(asked.rooms.0.lock().unwrap().len(), 20);
    }
}

/// ChirpStack asks a join server with another client than a network: each waits in its own way.
#[tokio::test]
async fn a_join_server_answers_in_the_response_unless_that_is_agreed_otherwise() {
    let federation = Federation::new();
    for (join_mode, in_the_response) in [("", true), ("join_mode = \"async\"\n", false)] {
        let book = Arc::new(Book::default());
        let entry = format!(
            "[[partner]]\nnet_id = \"{AWAY}\"\nmode = \"async\"\n{join_mode}passive = {{ start = true, activation = true }}\n"
        );
        let home = federation.both(HOME, HOME_NAME, &entry, &book).await;
        let partner = Partner::new(&federation, AWAY_NAME, &home.server);
        let (status, body) = partner.post(home_ns().to_string()).await;
        assert_eq!((status, body != Value::Null), (StatusCode::OK, in_the_response), "{join_mode}");
        let mut message = message("profile-req.json");
        (message["SenderID"], message["ReceiverID"]) = (json!("000002"), json!("000001"));
        assert_eq!(partner.post(message.to_string()).await, (StatusCode::OK, Value::Null));
    }
}

#[tokio::test]
async fn an_answer_that_never_comes_is_late_and_one_that_nobody_asked_for_is_discarded() {
    let federation = Federation::new();
    let (home, away, book) = federation.later().await;
    // it cannot be reached: our question is taken, and its answer lost
    book.0.lock().unwrap().get_mut(&Party::Ns(AWAY)).unwrap().1 = "127.0.0.1:1".parse().unwrap();
    let by = Deadline(federation.clock.now() + Duration::from_millis(700));
    let late = away.client.send(Party::Ns(HOME), profile_req(), by).await;
    assert!(
        matches!(&late, Err(PeerError::Transport { why, .. }) if why.contains("reach our server")),
        "{late:?}"
    );
    assert_eq!(home.rooms.0.lock().unwrap().len(), 1);
    let thief = Partner::new(&federation, "000003.netids.example", &home.server);
    let answer = json!({ "ProtocolVersion": "1.0", "SenderID": "000002", "ReceiverID": "000001",
        "TransactionID": 1, "MessageType": "ProfileAns", "Result": { "ResultCode": "Success" },
        "RoamingActivationType": "Passive" });
    assert_eq!(thief.post(answer.to_string()).await, (StatusCode::OK, Value::Null));
}

#[tokio::test]
async fn only_who_was_asked_can_answer_later() {
    let federation = Federation::new();
    let (home, away, book) = federation.later().await;
    let thief = Partner::new(&federation, "000003.netids.example", &home.server);
    let partner = Partner::new(&federation, AWAY_NAME, &home.server);
    // a server that takes the question and says nothing
    let silent = silent_server(&federation).await;
    book.0.lock().unwrap().get_mut(&Party::Ns(AWAY)).unwrap().1 = silent.0;
    let by = soon(&federation.clock);
    let client = home.client.clone();
    let asked = tokio::spawn(async move { client.send(Party::Ns(AWAY), profile_req(), by).await });
    let mut question = silent.1;
    let question: Value = question.recv().await.unwrap();
    let answer = |sender: &str, transaction: &Value| {
        json!({ "ProtocolVersion": "1.0", "SenderID": sender, "ReceiverID": "000001",
            "TransactionID": transaction, "MessageType": "ProfileAns", "Result": { "ResultCode": "Success" },
            "RoamingActivationType": "Passive" })
        .to_string()
    };
    let transaction = &question["TransactionID"];
    // a stranger in its name, a stranger in his own, and the partner about something else
    thief.post(answer("000002", transaction)).await;
    thief.post(answer("000003", transaction)).await;
    partner.post(answer("000002", &json!(1))).await;
    assert!(!asked.is_finished());
    assert_eq!(partner.post(answer("000002", transaction)).await, (StatusCode::OK, Value::Null));
    let Ok(Answer::Profile(answer)) = asked.await.unwrap() else { panic!() };
    assert_eq!(answer.activation, RoamingActivation::Passive);
    drop(away);
}

#[tokio::test]
async fn nobody_has_us_write_to_others_and_a_token_goes_back_to_its_server() {
    let federation = Federation::new();
    let (home, away, book) = federation.later().await;
    let thief = Partner::new(&federation, "000003.netids.example", &home.server);
    let mut message = message("profile-req.json");
    (message["SenderID"], message["ReceiverID"]) = (json!("000002"), json!("000001"));
    // refused to his face, and not to the partner in whose name he speaks
    assert_eq!(thief.code(&message).await, "UnknownSender");
    let partner = Partner::new(&federation, AWAY_NAME, &home.server);
    message["SenderToken"] = json!("C0FFEE");
    message["DevEUI"] = json!("0102030405060708");
    assert_eq!(partner.post(message.to_string()).await, (StatusCode::OK, Value::Null));
    let silent = silent_server(&federation).await;
    book.0.lock().unwrap().get_mut(&Party::Ns(AWAY)).unwrap().1 = silent.0;
    let by = Deadline(federation.clock.now() + Duration::from_millis(500));
    let _ = home.client.send(Party::Ns(AWAY), profile_req(), by).await;
    let mut told = silent.1;
    let question = loop {
        // the answer to the partner may come here as well
        let message = told.recv().await.unwrap();
        if message["MessageType"] == "ProfileReq" {
            break message;
        }
    };
    assert_eq!(question["ReceiverToken"], "C0FFEE");
    assert!(away.rooms.0.lock().unwrap().is_empty(), "nobody asked it anything");
}

/// A server of NetID 000002 that takes every question with an empty answer, and tells it here.
async fn silent_server(federation: &Federation) -> (SocketAddr, mpsc::UnboundedReceiver<Value>) {
    let config = tls::server_config(&federation.identity(AWAY_NAME), &federation.trust()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, tell) = (tokio_rustls::TlsAcceptor::from(config.clone()), tell.clone());
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await.unwrap();
                let (mut text, mut bytes) = (String::new(), [0; 4096]);
                // one request, in one piece or two
                while !text.trim_end().ends_with('}') {
                    let count = stream.read(&mut bytes).await.unwrap();
                    text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
                }
                let body = &text[text.find("\r\n\r\n").unwrap()..];
                tell.send(serde_json::from_str(body.trim()).unwrap()).unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
                let _ = stream.read(&mut bytes).await;
            });
        }
    });
    (address, told)
}
