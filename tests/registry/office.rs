//! A registry in this process, and somebody who asks it: over HTTP, and in the DNS by our own validating resolver.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::RecordType;
use reqwest::{Method, StatusCode};
use roamgate::backend::door::Deadline;
use roamgate::clock::Clock;
use roamgate::discovery::resolve::DiscoveryError;
use roamgate::discovery::{self, Dnssec, Endpoint, Resolver, Security, Server};
use roamgate::lorawan::{DevEui, JoinEui};
use roamgate::pki::make::{self, Authority, IntermediateSpec, NewFile, RootSpec};
use roamgate::registry::access::{self, Scope};
use roamgate::registry::{self, Config, Running};
use roamgate::store::registry::Entry;
use roamgate::store::{self, Durability, Store, Url};
use serde_json::{Value, json};
use tempfile::TempDir;

pub const ZONE: &str = "iotroam.example";

pub struct Office {
    pub running: Running,
    pub store: Store,
    pub operator: String,
    pub http: reqwest::Client,
    pub clock: Clock,
    pub folder: TempDir,
}

impl Office {
    pub async fn open() -> Office {
        Office::with(|_, _| String::new()).await
    }

    /// With an intermediate of the federation's.
    pub async fn signing() -> Office {
        Office::signing_with("").await
    }

    /// With everything that a registry can do.
    pub async fn signing_and_handing_out() -> Office {
        Office::signing_with("net_ids = \"600100-6001FF\"\n").await
    }

    async fn signing_with(more: &str) -> Office {
        Office::with(|folder, clock| {
            let root = Authority::root(&RootSpec::new("A federation"), clock).unwrap();
            let names = [format!("netids.{ZONE}"), format!("joineuis.{ZONE}")];
            let member = root.intermediate(&IntermediateSpec::new("Its registry", names), clock).unwrap();
            let file = |name, text, secret| NewFile { name, text, secret };
            let files = [
                file("intermediate.pem", &*member.cert_pem, false),
                file("intermediate-key.pem", &*member.key_pem, true),
                file("root.pem", &*root.cert_pem, false),
            ];
            let authority = folder.join("authority");
            make::write_files(&authority, &files, false).unwrap();
            format!("authority = \"{}\"\n{more}", authority.display())
        })
        .await
    }

    pub async fn with(more: impl FnOnce(&Path, &Clock) -> String) -> Office {
        roamgate::tls::install_provider();
        let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::system());
        let store = store(folder.path(), &clock);
        let at = free();
        let text = format!(
            "zone = \"{ZONE}\"\nlisten = \"127.0.0.1:0\"\ndns = \"{at}\"\nservers = [\"ns.{ZONE}\"]\n\
             negative_ttl = 30\n{}",
            more(folder.path(), &clock)
        );
        let section: Config = toml::from_str(&text).unwrap();
        let chance = clock.clone();
        let operator = store.registry(move |book| {
            let id = book.add_member("The operator", true)?;
            let (shown, key) = access::make(id, "first", Scope::Admin, &chance);
            book.add_key(&key)?;
            Ok((shown.to_string(), true))
        });
        let operator = operator.await.unwrap();
        // its own resolver asks it too, and knows its key
        let apex = registry::apex(&section, &store).await.unwrap();
        let keys = apex.keys.iter().map(|key| format!("{ZONE}. IN DNSKEY {key}\n"));
        std::fs::write(folder.path().join("own-anchor"), keys.collect::<String>()).unwrap();
        let resolver = resolver(at, &folder.path().join("own-anchor"), &clock);
        let running = Running::start(&section, resolver, store.clone(), &clock).await.unwrap();
        let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build();
        Office { running, store, operator, http: http.unwrap(), clock, folder }
    }

    pub async fn ask(&self, key: &str, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        let url = format!("http://{}{path}", self.running.api.address);
        let mut request = self.http.request(method, url).bearer_auth(key);
        if !body.is_null() {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    pub async fn done(&self, key: &str, method: Method, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask(key, method, path, body).await;
        assert!(status.is_success(), "{path}: {status} {answer}");
        answer
    }

    pub async fn refused(&self, key: &str, method: Method, path: &str, body: Value, code: u16, words: &str) {
        let (status, answer) = self.ask(key, method, path, body).await;
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(status.as_u16() == code && error.contains(words), "{path}: {status} {answer}");
        assert!(!answer["remedy"].as_str().unwrap_or_default().is_empty(), "{answer}");
    }

    /// A member with a NetID and a block of JoinEUIs; its key.
    pub async fn member(&self, name: &str, net_id: &str, join_euis: &str) -> String {
        let made = self.done(&self.operator, Method::POST, "/v1/members", json!({ "name": name })).await;
        for claim in [
            json!({ "member": made["id"], "net_id": net_id }),
            json!({ "member": made["id"], "join_euis": join_euis }),
        ] {
            self.done(&self.operator, Method::POST, "/v1/claims", claim).await;
        }
        made["key"].as_str().unwrap().to_owned()
    }

    /// Whoever has the zone's key as a trust anchor.
    pub async fn resolver(&self) -> Resolver {
        let zone = self.done(&self.operator, Method::GET, "/v1/zone", Value::Null).await;
        let keys: Vec<&str> = zone["dnskey"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        let anchor = self.folder.path().join("anchor");
        std::fs::write(&anchor, keys.join("\n") + "\n").unwrap();
        resolver(self.running.dns.address, &anchor, &self.clock)
    }

    /// A TXT record in the zone, as somebody puts it into his own.
    pub async fn publish(&self, name: &str, text: &str) {
        let (name, origin) = (registry::absolute(name).unwrap(), registry::absolute(ZONE).unwrap());
        let place = registry::zone::place(&name, &origin).unwrap();
        let data = format!("\"{text}\"");
        let entry = Entry { place: place.clone(), kind: 16, data, ttl: 60, member: 1 };
        let done = self.store.registry(move |book| {
            book.put(&place, std::slice::from_ref(&entry))?;
            Ok(((), true))
        });
        done.await.unwrap();
    }

    /// What the zone's own server says to a question for addresses.
    pub async fn question(&self, name: &str) -> Message {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(registry::absolute(name).unwrap(), RecordType::A));
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(&message.to_vec().unwrap(), self.running.dns.address).await.unwrap();
        let mut answer = [0; 1500];
        let length = socket.recv(&mut answer).await.unwrap();
        Message::from_vec(&answer[..length]).unwrap()
    }

    pub fn soon(&self) -> Deadline {
        Deadline(self.clock.now() + Duration::from_secs(5))
    }

    pub async fn net(&self, net_id: &str) -> Result<Endpoint, DiscoveryError> {
        self.resolver().await.net_server(net_id.parse().unwrap(), self.soon()).await
    }

    pub async fn join(&self, join_eui: &str, dev_eui: Option<&str>) -> Result<Endpoint, DiscoveryError> {
        let dev_eui: Option<DevEui> = dev_eui.map(|dev_eui| dev_eui.parse().unwrap());
        let join_eui: JoinEui = join_eui.parse().unwrap();
        self.resolver().await.join_server(join_eui, dev_eui, self.soon()).await
    }
}

pub fn address(text: &str) -> Value {
    json!({ "records": [{ "type": if text.contains(':') { "AAAA" } else { "A" }, "data": text }] })
}

pub fn leads_to(found: Result<Endpoint, DiscoveryError>, to: &str) {
    let found = found.unwrap();
    let way = &found.ways[0];
    assert!(way.addresses.contains(&to.parse::<IpAddr>().unwrap()), "{found:?}");
    assert_eq!(way.security, Security::Secure);
}

pub fn is_nowhere(found: Result<Endpoint, DiscoveryError>) {
    let error = found.unwrap_err();
    assert!(matches!(error, DiscoveryError::NotFound { proven: true, .. }), "{error}");
}

/// A port that is free for both, as far as that can be known.
pub fn free() -> SocketAddr {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = tcp.local_addr().unwrap();
        if UdpSocket::bind(at).is_ok() {
            return at;
        }
    }
}

/// The registry's store in a folder.
pub fn store(folder: &Path, clock: &Clock) -> Store {
    let url = Url::sqlite(folder.join("registry.db"));
    let config = store::Config { url, durability: Durability::Balanced, ..Default::default() };
    Store::open(&config, clock.clone()).unwrap()
}

/// Asks this server, and believes what these keys have signed.
pub fn resolver(at: SocketAddr, anchor: &Path, clock: &Clock) -> Resolver {
    let config = discovery::Config {
        join_eui_suffix: format!("joineuis.{ZONE}").parse().unwrap(),
        net_id_suffix: format!("netids.{ZONE}").parse().unwrap(),
        resolvers: vec![Server::At(at)],
        dnssec: Dnssec::Require,
        trust_anchor: Some(anchor.to_owned()),
        ..discovery::Config::default()
    };
    Resolver::new(config, clock.clone()).unwrap()
}
