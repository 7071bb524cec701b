//! A server of a federation made on the spot, and whoever leans on it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use roamgate::backend::Limits;
use roamgate::backend::client::{self, Client, Discover};
use roamgate::backend::door::{Boxed, Caller, Deadline, Rooms};
use roamgate::backend::message::*;
use roamgate::backend::server::{self, Doorstep, Ours, Roles, Server};
use roamgate::clock::Clock;
use roamgate::discovery::Endpoint;
use roamgate::lorawan::{DevEui, NetId};
use roamgate::pki::check::PeerRules;
use roamgate::pki::dane::Evidence;
use roamgate::pki::make::{self, Authority, IntermediateSpec, LeafSpec, RootSpec};
use roamgate::tls::{self, Identity, Roots, Trust};
use serde_json::{Value, json};

pub const HOME: NetId = NetId::from_msb([0, 0, 1]);
pub const AWAY: NetId = NetId::from_msb([0, 0, 2]);
pub const HOME_NAME: &str = "000001.netids.example";
pub const AWAY_NAME: &str = "000002.netids.example";
pub const JOIN_EUI: &str = "0000000000000001";
pub const OPEN: &str = "[default]\npassive = { start = true, activation = true }";

pub struct Federation {
    pub clock: Clock,
    pub root: Authority,
}

impl Federation {
    pub fn new() -> Federation {
        Federation::named("A federation")
    }
    pub fn named(name: &str) -> Federation {
        tls::install_provider();
        let clock = Clock::system();
        let root = Authority::root(&RootSpec::new(name), &clock).unwrap();
        Federation { clock, root }
    }
    pub fn member(&self, name: &str) -> Authority {
        self.root.intermediate(&IntermediateSpec::new("A member", [name]), &self.clock).unwrap()
    }
    /// A leaf as asked for, whether partners accept it or not.
    pub fn leaf(&self, by: &Authority, name: &str, change: impl FnOnce(&mut LeafSpec)) -> make::Identity {
        let mut spec = LeafSpec { unchecked: true, ..LeafSpec::new("node", [name]) };
        change(&mut spec);
        by.issue(&spec, &self.clock).unwrap()
    }
    pub fn identity(&self, name: &str) -> Identity {
        shown(&self.leaf(&self.member(name), name, |_| ()))
    }
    pub fn trust(&self) -> Arc<Trust> {
        let roots = Roots::from_pem(&self.root.cert_pem).unwrap();
        Trust::new(&roots, PeerRules::default(), self.clock.clone()).unwrap()
    }

    /// A server of NetID 000001, which is also the join server of one JoinEUI.
    pub async fn home(&self, roaming: &str, limits: Limits, rooms: Arc<dyn Rooms>) -> Server {
        let config = tls::server_config(&self.identity(HOME_NAME), &self.trust()).unwrap();
        let parts = server::Parts {
            ours: Ours { net_ids: vec![HOME], join_euis: vec![JOIN_EUI.parse().unwrap()], roles: Roles::ALL },
            partners: Arc::new(toml::from_str(roaming).unwrap()),
            applications: BTreeMap::new(),
            net_id_suffix: "netids.example".parse().unwrap(),
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
            limits,
            clock: self.clock.clone(),
        };
        server::serve(Doorstep::at("127.0.0.1:0".parse().unwrap()), config, parts).await.unwrap()
    }

    /// Somebody who shows this and writes the JSON himself.
    pub fn guest(&self, identity: Option<&Identity>, home: SocketAddr) -> Guest {
        let tls = match identity {
            Some(identity) => tls::client_config(identity, &self.trust(), tls::Expected::default()).unwrap(),
            None => {
                let mut roots = rustls::RootCertStore::empty();
                let pem = self.root.cert_pem.as_bytes();
                roots.add_parsable_certificates(tls::certificates(pem, "root".as_ref()).unwrap());
                rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()
            }
        };
        let http = reqwest::Client::builder().tls_backend_preconfigured(tls.clone()).no_proxy();
        let http = http.resolve(HOME_NAME, home).build().unwrap();
        Guest { http, tls: Arc::new(tls), url: format!("https://{HOME_NAME}:{}/", home.port()) }
    }

    /// Our client as NetID 000002, which finds everybody at one address under the name of NetID 000001.
    pub fn client(&self, at: SocketAddr) -> Client {
        self.client_that_finds(Arc::new(At(at)))
    }
    pub fn client_that_finds(&self, discover: Arc<dyn Discover>) -> Client {
        let partners = Arc::new(toml::from_str(OPEN).unwrap());
        let (keks, clock) = (BTreeMap::new(), self.clock.clone());
        Client::new(client::Parts {
            join_servers: Vec::new(),
            net_id: AWAY,
            partners,
            discover,
            identity: (&self.identity(AWAY_NAME)).into(),
            trust: self.trust(),
            evidence: Evidence::Pkix,
            net_id_suffix: "netids.example".parse().unwrap(),
            keks,
            pending: Arc::default(),
            tokens: Arc::default(),
            manners: Arc::default(),
            keep_warm: Duration::ZERO,
            clock,
        })
    }

    pub fn soon(&self) -> Deadline {
        Deadline(self.clock.now() + Duration::from_secs(5))
    }
}

pub fn shown(made: &make::Identity) -> Identity {
    Identity::from_pem(&made.chain_pem, &made.key_pem).unwrap()
}

pub fn limits(partner: u32, stranger: u32) -> Limits {
    let number = |number| NonZeroU32::new(number).unwrap();
    Limits { partner: number(partner), stranger: number(stranger) }
}

struct At(SocketAddr);

impl Discover for At {
    fn find<'a>(
        &'a self,
        _: &'a Party,
        _: Option<DevEui>,
        _: Deadline,
    ) -> Boxed<'a, Result<Endpoint, String>> {
        Box::pin(std::future::ready(Ok(Endpoint::at(HOME_NAME, self.0))))
    }
}

pub struct Guest {
    pub http: reqwest::Client,
    pub tls: Arc<rustls::ClientConfig>,
    pub url: String,
}

impl Guest {
    pub async fn post(&self, body: impl Into<reqwest::Body>) -> Result<reqwest::Response, reqwest::Error> {
        self.http.post(&self.url).body(body).send().await
    }
    pub async fn code(&self, message: &Value) -> String {
        let answer: Value = self.post(message.to_string()).await.unwrap().json().await.unwrap();
        answer["Result"]["ResultCode"].as_str().unwrap().to_owned()
    }
}

/// Rooms that know one home, and remember who asked.
#[derive(Default)]
pub struct Known(pub Mutex<Vec<Party>>);

impl Rooms for Known {
    fn answer(self: Arc<Self>, from: Caller, request: Request) -> Boxed<'static, Result<Answer, Refusal>> {
        self.0.lock().unwrap().push(from.party);
        let answer = match request {
            Request::HomeNs(_) => Ok(Answer::HomeNs(HomeNsAns { h_net_id: HOME, h_nsid: None })),
            _ => Err(Refusal::new(ResultCode::UnknownDevEui, "nobody")),
        };
        Box::pin(std::future::ready(answer))
    }
}

pub fn home_ns() -> Value {
    json!({ "ProtocolVersion": "1.0", "SenderID": "000002", "ReceiverID": JOIN_EUI, "TransactionID": 42,
            "MessageType": "HomeNSReq", "DevEUI": "0102030405060708" })
}

pub fn home_ns_req() -> Request {
    HomeNsReq { dev_eui: DevEui::from_msb([1, 2, 3, 4, 5, 6, 7, 8]) }.into()
}

pub fn js() -> Party {
    Party::Js(JOIN_EUI.parse().unwrap())
}
