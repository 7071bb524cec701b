//! The end of TS002 that asks: finds a partner's server, keeps the connection warm, POSTs, reads the
//! answer.
//!
//! The exchange runs in a task of its own: a caller whose time is up stops waiting, and the connection
//! lives on for the next frame. A POST whose bytes have left is never sent again.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{StatusCode, Url};
use rustls::ClientConfig;
use tokio::sync::Semaphore;
use tokio::time::timeout_at;
use tracing::{Instrument, Span};

use super::door::{Boxed, Deadline, Deliver, PeerError, Peers};
use super::keywrap::Keks;
use super::manners::Manners;
use super::message::wire::{self, Confused, Header, MessageType, Version};
use super::message::{Answer, Party, PrStartAns, Refusal, Request};
use super::pending::Pending;
use super::tokens::Tokens;
use crate::clock::Clock;
use crate::discovery::name::net_id_name;
use crate::discovery::{Resolver, Suffix};
use crate::lorawan::{DevEui, JoinEuiRange, NetId};
use crate::partners::{self, Authorization};
use crate::tls;

/// An answer longer than this is none.
const BODY_LIMIT: usize = 256 * 1024;
/// TCP and TLS to one server.
const CONNECT_TIME: Duration = Duration::from_secs(3);
/// An exchange that takes longer is given up, whoever still waits for it. Peers answer within 5 s.
const EXCHANGE_TIME: Duration = Duration::from_secs(10);
/// So long before nobody waits any more, what went wrong is said.
const WORD: Duration = Duration::from_millis(50);
/// An idle connection is closed after so long. Servers keep theirs a little longer.
const IDLE_TIME: Duration = Duration::from_secs(90);
/// Exchanges with one server at the same time, each on a connection; more wait for one that ends. A handshake costs both
/// sides more than ten exchanges, so opening a connection for each of a rush would make it worse.
const AT_ONCE: usize = 64;
/// Servers whose connections are kept.
const MOST_SERVERS: usize = 256;
/// Requests that wait for their answers at the same time.
const MOST_PENDING: usize = 1024;

/// Where a partner's server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The name that was asked, without final dot: the URL's host and the TLS server name.
    pub host: String,
    /// Every one with the port. Empty: the system's resolver knows the host.
    pub addresses: Vec<SocketAddr>,
    /// The URL's port.
    pub port: u16,
}

/// How servers are found that no configuration names.
pub trait Discover: Send + Sync {
    /// The server of a network or of a join server; `dev_eui` where one device is concerned.
    fn find<'a>(
        &'a self,
        to: &'a Party,
        dev_eui: Option<DevEui>,
        by: Deadline,
    ) -> Boxed<'a, Result<Endpoint, String>>;
}

impl Discover for Resolver {
    fn find<'a>(
        &'a self,
        to: &'a Party,
        dev_eui: Option<DevEui>,
        by: Deadline,
    ) -> Boxed<'a, Result<Endpoint, String>> {
        Box::pin(async move {
            let found = match to {
                Party::Ns(net_id) => self.net_server(*net_id, by).await,
                Party::Js(join_eui) => self.join_server(*join_eui, dev_eui, by).await,
                Party::As(_) => return Err("application servers are not in the DNS".into()),
            };
            let found = found.map_err(|error| chain(&error))?;
            Ok(Endpoint { host: found.host, addresses: found.addresses, port: found.port })
        })
    }
}

/// Nobody is found but who is configured.
#[derive(Debug, Clone, Copy)]
pub struct NoDiscovery;

impl Discover for NoDiscovery {
    fn find<'a>(
        &'a self,
        _: &'a Party,
        _: Option<DevEui>,
        _: Deadline,
    ) -> Boxed<'a, Result<Endpoint, String>> {
        let why = "there is no [discovery], and no [[roaming.partner]] with a server for it";
        Box::pin(std::future::ready(Err(why.into())))
    }
}

/// What a server may be called instead of the host in `server` of its partner entry: its identity, or
/// the name of its NetID.
#[derive(Debug, Clone)]
pub struct PartnerNames(BTreeMap<String, Vec<String>>);

impl PartnerNames {
    /// From the entries of partners and join servers that name a server.
    pub fn new(partners: &partners::Config, suffix: &Suffix, join_servers: &[JoinServer]) -> PartnerNames {
        let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for partner in &partners.partner {
            let own = || net_id_name(partner.net_id, suffix);
            let Some(host) = host(partner.server.as_deref()) else { continue };
            names.entry(host).or_default().push(partner.identity.clone().unwrap_or_else(own));
        }
        for JoinServer { server, identity, .. } in join_servers {
            let (Some(host), Some(name)) = (host(server.as_deref()), identity) else { continue };
            names.entry(host).or_default().push(name.clone());
        }
        PartnerNames(names)
    }
}

fn host(server: Option<&str>) -> Option<String> {
    let url = Url::parse(server?).ok()?;
    Some(url.host_str()?.trim_matches(['[', ']']).to_owned())
}

impl tls::Aliases for PartnerNames {
    fn aliases(&self, asked: &str) -> Vec<String> {
        self.0.get(asked).cloned().unwrap_or_default()
    }
}

/// A join server of somebody else, as it is agreed with its operator.
#[derive(Debug, Clone)]
pub struct JoinServer {
    /// For which JoinEUIs.
    pub join_euis: Vec<JoinEuiRange>,
    /// Where it is; `None`: the DNS knows.
    pub server: Option<String>,
    /// The name in its certificate, where that is not the host of `server`.
    pub identity: Option<String>,
    /// For the network keys in its answers.
    pub keks: Keks,
    /// As whom our application server asks it.
    pub as_id: Option<String>,
}

impl Parts {
    fn join_server(&self, party: &Party) -> Option<&JoinServer> {
        let Party::Js(join_eui) = party else { return None };
        let has = |server: &&JoinServer| server.join_euis.iter().any(|range| range.contains(*join_eui));
        self.join_servers.iter().find(has)
    }

    fn keks(&self, party: &Party) -> Keks {
        let agreed = self.join_server(party).map(|server| &server.keks);
        agreed.or_else(|| self.keks.get(party)).cloned().unwrap_or_default()
    }

    /// Who asks: our network server, or our application server.
    fn sender(&self, to: &Party, request: &Request) -> Party {
        let as_id = self.join_server(to).and_then(|server| server.as_id.clone());
        match (request, as_id) {
            (Request::AppSKey(_), Some(as_id)) => Party::As(as_id),
            _ => Party::Ns(self.net_id),
        }
    }
}

/// What the client needs of the house.
pub struct Parts {
    /// SenderID.
    pub net_id: NetId,
    /// Which partners have a server of their own.
    pub partners: Arc<partners::Config>,
    /// Join servers of others that know devices of ours.
    pub join_servers: Vec<JoinServer>,
    /// Finds the others.
    pub discover: Arc<dyn Discover>,
    /// Shows who we are and judges who they are.
    pub tls: ClientConfig,
    /// Keys for the keys in answers; without an entry no key is taken.
    pub keks: BTreeMap<Party, Keks>,
    /// Answers that come as requests of their own.
    pub pending: Arc<Pending>,
    /// What partners want to see again.
    pub tokens: Arc<Tokens>,
    /// How they want to be spoken to.
    pub manners: Arc<Manners>,
    /// Time and chance.
    pub clock: Clock,
}

/// Asks partners. Clones share connections.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    parts: Parts,
    servers: Mutex<BTreeMap<(String, u16), Warm>>,
    pending: Mutex<BTreeSet<u32>>,
}

/// Connections to one server at its present addresses.
#[derive(Clone)]
struct Warm {
    addresses: Vec<SocketAddr>,
    http: reqwest::Client,
    /// Room for one more exchange.
    places: Arc<Semaphore>,
    /// Counts up; the server with the lowest was used longest ago.
    used: u64,
}

impl Peers for Client {
    fn send(&self, to: Party, request: Request, by: Deadline) -> Boxed<'_, Result<Answer, PeerError>> {
        Box::pin(self.send(to, request, by))
    }

    fn notify(&self, to: Party, transaction: u32, outcome: Result<(), Refusal>) {
        let client = self.clone();
        let work = async move {
            let parts = &client.0.parts;
            let now = parts.clock.now();
            let header = parts.manners.header(Party::Ns(parts.net_id), to.clone(), transaction, now);
            if header.version < Version::V1_1 {
                return;
            }
            let by = Deadline(now + EXCHANGE_TIME);
            if let Err(error) = client.deliver(to, wire::encode_notif(&header, &outcome), by).await {
                // a deployed peer answers 400 to it, which is no harm
                tracing::debug!("a PRStartNotif was not taken: {error}");
            }
        };
        tokio::spawn(work.in_current_span());
    }
}

impl Client {
    /// Connects to nobody yet.
    pub fn new(parts: Parts) -> Client {
        Client(Arc::new(Inner { parts, servers: Mutex::default(), pending: Mutex::default() }))
    }

    /// Ask a party that is not in this house.
    pub async fn send(&self, to: Party, request: Request, by: Deadline) -> Result<Answer, PeerError> {
        if self.0.parts.clock.now() >= by.0 {
            return Err(PeerError::Late { to });
        }
        let Some(transaction) = Transaction::new(&self.0) else {
            let why = format!("{MOST_PENDING} requests are waiting for their answers already");
            return Err(PeerError::Transport { to, why });
        };
        let sender = self.0.parts.sender(&to, &request);
        let span = tracing::info_span!(
            target: "roamgate::door",
            "door",
            MessageType = request.message_type(),
            TransactionID = transaction.id,
            SenderID = %sender,
            ReceiverID = %to,
            local = false,
            ResultCode = tracing::field::Empty,
        );
        let exchange = self.clone().converse(sender, to.clone(), request, by, transaction);
        let work = tokio::spawn(exchange.instrument(span.clone()));
        let answer = match timeout_at(by.0, work).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_panicked)) => Err(PeerError::Transport { to, why: "internal failure".into() }),
            Err(_elapsed) => Err(PeerError::Late { to }),
        };
        told(&span, &answer);
        answer
    }

    /// Ask, and once more in 1.0 where the peer turns out not to understand 1.1: it has done nothing then.
    async fn converse(
        self,
        sender: Party,
        to: Party,
        request: Request,
        by: Deadline,
        transaction: Transaction,
    ) -> Result<Answer, PeerError> {
        let Parts { manners, tokens, clock, .. } = &self.0.parts;
        let receiver_token = tokens.for_it(&to, &request);
        loop {
            let header = manners.header(sender.clone(), to.clone(), transaction.id, clock.now());
            let header = Header { receiver_token: receiver_token.clone(), ..header };
            let mut unheard = false;
            let answer = self.exchange(&header, &request, by, &mut unheard).await;
            let again = match &answer {
                Ok(answer) => {
                    manners.understood(&header);
                    if let Answer::HomeNs(home) = answer {
                        manners.learn(&Party::Ns(home.h_net_id), home.h_nsid);
                    }
                    false
                }
                Err(PeerError::Refused { refusal, .. }) => {
                    manners.falls_back(&header, Some(refusal), clock.now())
                }
                Err(_) if unheard => manners.falls_back(&header, None, clock.now()),
                Err(_) => false,
            };
            if !again {
                return answer;
            }
            tracing::info!(to = %to, "it does not understand TS002 1.1: asked in 1.0 for a day");
        }
    }

    /// `unheard`: it has a server that did not take the message, by its HTTP status alone.
    async fn exchange(
        &self,
        header: &Header,
        request: &Request,
        by: Deadline,
        unheard: &mut bool,
    ) -> Result<Answer, PeerError> {
        let Inner { parts, .. } = &*self.0;
        let to = &header.receiver;
        if !parts.clock.is_trusted() {
            let why =
                "this machine's clock is not set, so no certificate can be judged; GPS or NTP has to set it";
            return Err(PeerError::Forbidden { to: to.clone(), why: why.into() });
        }
        let url = self.find(to, dev_eui(request), by).await?;
        if parts.clock.now() >= by.0 {
            // nobody waits any more, and nothing has left
            return Err(PeerError::Late { to: to.clone() });
        }
        let broken = |error: reqwest::Error| PeerError::Transport { to: to.clone(), why: chain(&error) };
        let (http, places) = self.warm(&url.endpoint).map_err(broken)?;
        // before it leaves: the answer may come before the HTTP response
        let answer = MessageType::of(request).answer();
        let mut later = parts.pending.expect(to.clone(), header.transaction, answer);
        // never closed, so there is always a place some time
        let Ok(Ok(place)) = timeout_at(by.0, places.acquire_owned()).await else {
            return Err(PeerError::Late { to: to.clone() });
        };
        let (status, mut body) = match post(&http, &url, wire::encode_request(header, request)).await {
            Ok(answer) => answer,
            // what was answered already counts, whatever becomes of the connection
            Err(error) => match later.overtook() {
                Some(body) => (StatusCode::OK, body),
                None => return Err(error.because(to)),
            },
        };
        drop(place);
        if body.is_empty() && status.is_success() {
            // the partner answers by a request of its own
            let until = by.0.checked_sub(WORD).unwrap_or(by.0);
            match timeout_at(until, later.body()).await {
                Ok(Some(brought)) => body = brought,
                Ok(None) | Err(_) => {
                    let why = "an empty answer, and none by a request of its own in time: it must be able to reach our server";
                    return Err(PeerError::Transport { to: to.clone(), why: why.into() });
                }
            }
        }
        if let Some(token) = wire::sender_token(&body) {
            parts.tokens.note(to, request, &token);
        }
        let keks = parts.keks(to);
        match wire::decode_answer(&body, header, request, &keks) {
            Ok(Ok(Answer::PrStart(answer))) if header.version == Version::V1_1 => {
                Ok(Answer::PrStart(PrStartAns { asked: Some(header.transaction), ..answer }))
            }
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(refusal)) => Err(PeerError::Refused { to: to.clone(), refusal }),
            // a status that says no and a body that says nothing
            Err(Confused::NoAnswer(_)) if !status.is_success() => {
                *unheard = true;
                Err(PeerError::Transport { to: to.clone(), why: refused_by_http(status) })
            }
            Err(confused) => {
                // A left-over answer puts a connection one answer behind for ever: nobody asks through it again.
                let Endpoint { host, port, .. } = &url.endpoint;
                self.0.servers().remove(&(host.clone(), *port));
                Err(PeerError::Confused { to: to.clone(), why: confused.to_string() })
            }
        }
    }

    async fn find(&self, to: &Party, dev_eui: Option<DevEui>, by: Deadline) -> Result<Target, PeerError> {
        let Inner { parts, .. } = &*self.0;
        let listed = match to {
            Party::Ns(net_id) => parts.partners.partner(*net_id),
            _ => None,
        };
        let of_js = parts.join_server(to).and_then(|known| known.server.as_deref());
        let target = match listed.and_then(|partner| partner.server.as_deref()).or(of_js) {
            Some(server) => Target::configured(server),
            None => {
                let found = parts.discover.find(to, dev_eui, by).await;
                Target::found(found.map_err(|why| PeerError::NotFound { to: to.clone(), why })?)
            }
        };
        let authorization = listed.and_then(|partner| partner.authorization.clone());
        let target = target.map_err(|why| PeerError::Forbidden { to: to.clone(), why })?;
        Ok(Target { authorization, ..target })
    }

    /// The connections to a server; new ones where its addresses have changed.
    fn warm(&self, endpoint: &Endpoint) -> Result<(reqwest::Client, Arc<Semaphore>), reqwest::Error> {
        let mut servers = self.0.servers();
        let used = servers.values().map(|warm| warm.used).max().unwrap_or(0) + 1;
        let key = (endpoint.host.clone(), endpoint.port);
        let mut addresses = endpoint.addresses.clone();
        addresses.sort();
        if let Some(warm) = servers.get_mut(&key).filter(|warm| warm.addresses == addresses) {
            warm.used = used;
            return Ok((warm.http.clone(), warm.places.clone()));
        }
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(self.0.parts.tls.clone())
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .http1_only()
            .connect_timeout(CONNECT_TIME)
            .timeout(EXCHANGE_TIME)
            .pool_idle_timeout(IDLE_TIME)
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(30));
        if !endpoint.addresses.is_empty() {
            builder = builder.resolve_to_addrs(&endpoint.host, &endpoint.addresses);
        }
        let http = builder.build()?;
        tracing::info!(
            target: "roamgate::net",
            milestone = "server found",
            host = endpoint.host,
            addresses = ?endpoint.addresses,
            port = endpoint.port,
        );
        if servers.len() >= MOST_SERVERS
            && let Some(oldest) = servers.iter().min_by_key(|(_, warm)| warm.used).map(|(key, _)| key.clone())
        {
            servers.remove(&oldest);
        }
        let places = Arc::new(Semaphore::new(AT_ONCE));
        servers.insert(key, Warm { addresses, http: http.clone(), places: places.clone(), used });
        Ok((http, places))
    }
}

impl Inner {
    fn servers(&self) -> MutexGuard<'_, BTreeMap<(String, u16), Warm>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn pending(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A TransactionID that no other pending request of ours has.
struct Transaction {
    id: u32,
    inner: Arc<Inner>,
}

impl Transaction {
    fn new(inner: &Arc<Inner>) -> Option<Transaction> {
        let mut pending = inner.pending();
        if pending.len() >= MOST_PENDING {
            return None;
        }
        let id = loop {
            let id = u32::from_be_bytes(inner.parts.clock.random());
            // 0 is what a peer answers that could not read it
            if id != 0 && pending.insert(id) {
                break id;
            }
        };
        drop(pending);
        Some(Transaction { id, inner: inner.clone() })
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        self.inner.pending().remove(&self.id);
    }
}

/// A URL, and who stands behind its host.
struct Target {
    url: Url,
    endpoint: Endpoint,
    authorization: Option<Authorization>,
}

impl Target {
    fn configured(server: &str) -> Result<Target, String> {
        let wrong = |why: &str| format!("server = \"{server}\": {why}");
        let url = Url::parse(server).map_err(|error| wrong(&error.to_string()))?;
        if url.scheme() != "https" {
            return Err(wrong("partners are reached by https only"));
        }
        let (host, port) = (url.host_str(), url.port_or_known_default());
        let (Some(host), Some(port)) = (host, port) else { return Err(wrong("it has no host")) };
        let endpoint = Endpoint { host: host.to_owned(), addresses: Vec::new(), port };
        Ok(Target { url, endpoint, authorization: None })
    }

    fn found(endpoint: Endpoint) -> Result<Target, String> {
        let host = endpoint.host.trim_end_matches('.');
        let url = format!("https://{host}:{}/", endpoint.port);
        let url = Url::parse(&url).map_err(|error| format!("{url} is no URL: {error}"))?;
        Ok(Target { url, endpoint: Endpoint { host: host.to_owned(), ..endpoint }, authorization: None })
    }
}

fn dev_eui(request: &Request) -> Option<DevEui> {
    match request {
        Request::HomeNs(req) => Some(req.dev_eui),
        Request::Join(req) => Some(req.dev_eui),
        Request::AppSKey(req) => Some(req.dev_eui),
        _ => None,
    }
}

/// Why there is no HTTP response.
enum NoResponse {
    Late,
    Broken(String),
}

impl NoResponse {
    fn because(self, to: &Party) -> PeerError {
        match self {
            NoResponse::Late => PeerError::Late { to: to.clone() },
            NoResponse::Broken(why) => PeerError::Transport { to: to.clone(), why },
        }
    }
}

async fn post(
    http: &reqwest::Client,
    target: &Target,
    body: Vec<u8>,
) -> Result<(StatusCode, Vec<u8>), NoResponse> {
    let mut request = http
        .post(target.url.clone())
        // exactly this: a deployed peer looks for the very string
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(authorization) = &target.authorization {
        // was checked when it was read
        let mut value = HeaderValue::from_str(authorization.expose())
            .map_err(|_| NoResponse::Broken("authorization of its entry cannot be sent".into()))?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    let response = match request.body(body).send().await {
        Ok(response) => response,
        Err(error) if error.is_timeout() && !error.is_connect() => return Err(NoResponse::Late),
        Err(error) => return Err(NoResponse::Broken(causes(&error, &target.endpoint))),
    };
    let status = response.status();
    Ok((status, read(response).await.map_err(NoResponse::Broken)?))
}

impl Deliver for Client {
    fn deliver(&self, to: Party, answer: Vec<u8>, by: Deadline) -> Boxed<'_, Result<(), PeerError>> {
        Box::pin(async move {
            let target = self.find(&to, None, by).await?;
            let transport = |why| PeerError::Transport { to: to.clone(), why };
            let (http, places) = self.warm(&target.endpoint).map_err(|error| transport(chain(&error)))?;
            let late = || PeerError::Late { to: to.clone() };
            let Ok(Ok(_place)) = timeout_at(by.0, places.acquire_owned()).await else { return Err(late()) };
            let posted = timeout_at(by.0, post(&http, &target, answer)).await.map_err(|_| late())?;
            match posted.map_err(|why| why.because(&to))? {
                (status, _) if status.is_success() => Ok(()),
                (status, _) => Err(transport(refused_by_http(status))),
            }
        })
    }
}

async fn read(mut response: reqwest::Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| chain(&error.without_url()))? {
        body.extend_from_slice(&chunk);
        if body.len() > BODY_LIMIT {
            return Err(format!("an answer of more than {BODY_LIMIT} bytes"));
        }
    }
    Ok(body)
}

fn refused_by_http(status: StatusCode) -> String {
    let remedy = match status {
        StatusCode::NOT_FOUND => ": the path of its server is another one, or it routes on a header",
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ": it does not let us in",
        _ => "",
    };
    format!("HTTP {status}{remedy}")
}

/// What went wrong, outermost first, in words of TLS where it was that.
fn causes(error: &reqwest::Error, endpoint: &Endpoint) -> String {
    let addresses: Vec<_> = endpoint.addresses.iter().map(ToString::to_string).collect();
    let at = if addresses.is_empty() { String::new() } else { format!(" at {}", addresses.join(", ")) };
    let why = tls::explain(error).unwrap_or_else(|| innermost(error));
    let what = if error.is_connect() { "no connection to" } else { "no answer from" };
    format!("{what} {} port {}{at}: {why}", endpoint.host, endpoint.port)
}

/// The causes below the libraries' own words, which repeat the URL and name their parts.
fn innermost(error: &reqwest::Error) -> String {
    let below = error.source().map(|outer| outer.source().unwrap_or(outer));
    below.map_or_else(|| error.to_string(), chain)
}

fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    text
}

fn told(span: &Span, answer: &Result<Answer, PeerError>) {
    match answer {
        Ok(_) => span.record("ResultCode", "Success"),
        Err(PeerError::Refused { refusal, .. }) => {
            span.record("ResultCode", tracing::field::display(refusal))
        }
        Err(error) => span.record("ResultCode", tracing::field::display(error)),
    };
}
