//! Connections to partners' servers: kept warm, tried one way after another, and left alone for a while where nobody
//! answered.
//!
//! Owns which way is tried when. Only a connection that does not come about moves on to the next way; what has left is
//! never sent again. Called by [`super`] only.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use tokio::sync::Semaphore;
use tokio::time::timeout_at;

use super::EXCHANGE_TIME;
use crate::backend::door::{Deadline, PeerError};
use crate::backend::message::Party;
use crate::clock::{Clock, Instant};
use crate::discovery::{Endpoint, Security, Way};
use crate::partners::Authorization;
use crate::pki::dane::{Evidence, Tlsa};
use crate::tls::{self, Expected, Shown, Trust};

/// An answer longer than this is none.
const BODY_LIMIT: usize = 256 * 1024;
/// TCP and TLS to one server.
const CONNECT_TIME: Duration = Duration::from_secs(3);
/// The same where there is another way: a data frame's windows open one and two seconds after it.
const CONNECT_TIME_OF_MANY: Duration = Duration::from_secs(1);
/// An idle connection is closed after so long. Servers keep theirs a little longer.
const IDLE_TIME: Duration = Duration::from_secs(90);
/// Exchanges with one server at the same time, each on a connection; more wait for one that ends. A handshake costs both
/// sides more than ten exchanges, so opening a connection for each of a rush would make it worse.
const AT_ONCE: usize = 64;
/// Servers whose connections are kept.
const MOST_SERVERS: usize = 256;
/// Of servers in use so many are kept warm.
const MOST_TOUCHED: usize = 32;
/// How long a way to which no connection came about is tried after the others; twice as long each time.
const REST: Duration = Duration::from_secs(30);
const LONGEST_REST: Duration = Duration::from_secs(600);

/// Ways to one server, and what is to be said and seen there.
#[derive(Debug)]
pub(super) struct Target {
    /// The URL's host and the TLS server name, without final dot.
    pub host: String,
    /// The first to be tried first; with the TLSA records of each, as far as DNSSEC proves them.
    pub ways: Vec<(Way, Option<Vec<Tlsa>>)>,
    /// Whose word counts for its certificate.
    pub evidence: Evidence,
    /// Names that its certificate may carry instead, by configuration.
    pub also: Vec<String>,
    /// Ask it by the name that the DNS led to, where DNSSEC proves it.
    pub by_its_own_name: bool,
    /// What lets us in.
    pub authorization: Option<Authorization>,
}

/// The server that a configuration names; the system's resolver knows the host.
pub(super) fn configured(server: &str) -> Result<Endpoint, String> {
    let wrong = |why: &str| format!("server = \"{server}\": {why}");
    let url = Url::parse(server).map_err(|error| wrong(&error.to_string()))?;
    if url.scheme() != "https" {
        return Err(wrong("partners are reached by https only"));
    }
    let (host, port) = (url.host_str(), url.port_or_known_default());
    let (Some(host), Some(port)) = (host, port) else { return Err(wrong("it has no host")) };
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    let path = format!("{}{query}", url.path());
    Ok(Endpoint::of(host, Way { by: Vec::new(), addresses: Vec::new(), port, path, security: Security::Off }))
}

/// Where the TLSA records of a way are, the first that has any counts: at the target where DNSSEC proves the way there
/// (RFC 7671 section 7, RFC 7673), then at the name that was asked.
pub(super) fn owners(host: &String, way: &Way) -> Vec<String> {
    let hosts = way.names().last().into_iter().chain([host]);
    hosts.map(|host| format!("_{}._tcp.{host}", way.port)).collect()
}

impl Target {
    /// What its connections have to be, this way.
    fn line(&self, (way, records): &(Way, Option<Vec<Tlsa>>)) -> Line {
        let own = way.names().last().filter(|_| self.by_its_own_name);
        let mut also = [way.names(), &self.also].concat();
        also.push(self.host.clone());
        let expected = Expected { also, evidence: self.evidence, records: records.clone() };
        let mut addresses = way.sockets();
        // a resolver gives them in another order each time; the first says which family is tried first
        addresses.sort_by_key(|address| (address.is_ipv4(), *address));
        Line { host: own.unwrap_or(&self.host).clone(), port: way.port, addresses, expected }
    }
}

/// What tells connections apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Line {
    host: String,
    port: u16,
    addresses: Vec<SocketAddr>,
    expected: Expected,
}

/// Connections to one server.
struct Warm {
    http: reqwest::Client,
    /// Room for one more exchange.
    places: Arc<Semaphore>,
    /// What its certificate was judged by.
    edition: u64,
    /// By a message of ours.
    used: Instant,
    /// By a message, or to keep the connection open.
    touched: Instant,
    rest: Option<Rest>,
}

/// No connection came about.
#[derive(Clone, Copy)]
struct Rest {
    until: Instant,
    long: Duration,
}

/// An HTTP response.
pub(super) struct Posted {
    pub status: StatusCode,
    pub body: Vec<u8>,
    /// Who gave it; `None`: it came by another way.
    pub server: Option<Line>,
}

/// Why there is no HTTP response.
pub(super) enum NoResponse {
    Late,
    /// Nothing has left.
    NoConnection(String),
    Broken(String),
}

impl NoResponse {
    pub fn because(self, to: &Party) -> PeerError {
        match self {
            NoResponse::Late => PeerError::Late { to: to.clone() },
            NoResponse::NoConnection(why) | NoResponse::Broken(why) => {
                PeerError::Transport { to: to.clone(), why }
            }
        }
    }
}

/// All of them.
pub(super) struct Servers {
    identity: Shown,
    trust: Arc<Trust>,
    clock: Clock,
    warm: Mutex<BTreeMap<Line, Warm>>,
}

impl Servers {
    pub fn new(identity: Shown, trust: Arc<Trust>, clock: Clock) -> Servers {
        Servers { identity, trust, clock, warm: Mutex::default() }
    }

    /// POST a message the first way on which a connection comes about.
    pub async fn post(&self, target: &Target, body: Vec<u8>, by: Deadline) -> Result<Posted, NoResponse> {
        let mut unreached = Vec::new();
        for (line, path) in self.in_order(target) {
            if self.clock.now() >= by.0 {
                // nobody waits any more, and nothing has left
                return Err(NoResponse::Late);
            }
            let alone = target.ways.len() == 1;
            let (http, places) = self.connections(&line, alone).map_err(NoResponse::Broken)?;
            // never closed, so there is always a place some time
            let Ok(Ok(place)) = timeout_at(by.0, places.acquire_owned()).await else {
                return Err(NoResponse::Late);
            };
            // exactly this: a deployed peer looks for the very string
            let json = (CONTENT_TYPE, HeaderValue::from_static("application/json"));
            let request = http.post(line.url(path)?).header(json.0, json.1).body(body.clone());
            let posted = send(request, &line, target.authorization.as_ref(), BODY_LIMIT).await;
            drop(place);
            match posted {
                Ok((status, body)) => {
                    self.reached(&line);
                    return Ok(Posted { status, body, server: Some(line) });
                }
                Err(NoResponse::NoConnection(why)) => {
                    self.unreached(&line);
                    unreached.push(why);
                }
                Err(other) => return Err(other),
            }
        }
        Err(NoResponse::NoConnection(unreached.join("; ")))
    }

    /// Ask for something that is no message of TS002, and takes its time, the first way on which a connection comes about. An answer of
    /// more than `most` bytes is none.
    pub async fn ask(
        &self,
        target: &Target,
        method: Method,
        path: &str,
        body: Vec<u8>,
        time: Duration,
        most: usize,
    ) -> Result<(StatusCode, Vec<u8>), NoResponse> {
        let mut unreached = Vec::new();
        for (line, _) in self.in_order(target) {
            let (http, _) = self.connections(&line, target.ways.len() == 1).map_err(NoResponse::Broken)?;
            let request = http.request(method.clone(), line.url(path)?).timeout(time).body(body.clone());
            match send(request, &line, target.authorization.as_ref(), most).await {
                Err(NoResponse::NoConnection(why)) => {
                    self.unreached(&line);
                    unreached.push(why);
                }
                other => {
                    self.reached(&line);
                    return other;
                }
            }
        }
        Err(NoResponse::NoConnection(unreached.join("; ")))
    }

    /// Connect the first way on which that comes about, and hear whether we are let in. The host.
    pub async fn knock(&self, target: &Target, by: Deadline) -> Result<String, NoResponse> {
        let mut unreached = Vec::new();
        for (line, _) in self.in_order(target) {
            let (http, _) = self.connections(&line, target.ways.len() == 1).map_err(NoResponse::Broken)?;
            let asked = timeout_at(by.0, head(&http, &line)).await.map_err(|_| NoResponse::Late)?;
            match asked {
                Ok(()) => return Ok(line.host),
                // a refused certificate of ours shows as a failed request (TLS 1.3)
                Err(error) => unreached.push(causes(&error, &line)),
            }
        }
        Err(NoResponse::NoConnection(unreached.join("; ")))
    }

    /// Have servers that were asked within `in_use` and have heard nothing of us for `idle` hear something, so that the next
    /// frame finds a connection open: a connection that has been closed meanwhile is opened again.
    pub async fn touch(&self, in_use: Duration, idle: Duration) {
        let now = self.clock.now();
        let edition = self.trust.edition();
        let due: Vec<(Line, reqwest::Client)> = {
            let mut all = self.warm();
            all.retain(|_, warm| warm.edition == edition || warm.rest.is_some());
            let used = |warm: &Warm| now.saturating_duration_since(warm.used) < in_use;
            let quiet = |warm: &Warm| now.saturating_duration_since(warm.touched) >= idle;
            let due = all.iter_mut().filter(|(_, warm)| used(warm) && quiet(warm) && warm.rest.is_none());
            due.take(MOST_TOUCHED)
                .map(|(line, warm)| {
                    warm.touched = now;
                    (line.clone(), warm.http.clone())
                })
                .collect()
        };
        let touches = due.into_iter().map(|(line, http)| async move {
            // the first may find out that the connection is gone
            for _ in 0..2 {
                match head(&http, &line).await {
                    Ok(()) => break,
                    Err(error) if error.is_connect() => {
                        tracing::debug!("{}", causes(&error, &line));
                        self.unreached(&line);
                        break;
                    }
                    Err(_) => (),
                }
            }
        });
        futures_util::future::join_all(touches).await;
    }

    /// A left-over answer puts a connection one answer behind for ever: nobody asks through it again.
    pub fn forget(&self, server: Option<Line>) {
        server.and_then(|line| self.warm().remove(&line));
    }

    fn warm(&self) -> MutexGuard<'_, BTreeMap<Line, Warm>> {
        self.warm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that rest come last, the one whose rest ends first before the others.
    fn in_order<'t>(&self, target: &'t Target) -> Vec<(Line, &'t str)> {
        let now = self.clock.now();
        let warm = self.warm();
        let mut ways: Vec<_> =
            target.ways.iter().map(|way| (target.line(way), way.0.path.as_str())).collect();
        ways.sort_by_key(|(line, _)| {
            let rest = warm.get(line).and_then(|warm| warm.rest);
            rest.map(|rest| rest.until).filter(|until| *until > now)
        });
        ways
    }

    fn reached(&self, line: &Line) {
        if let Some(warm) = self.warm().get_mut(line) {
            warm.rest = None;
        }
    }

    fn unreached(&self, line: &Line) {
        let now = self.clock.now();
        if let Some(warm) = self.warm().get_mut(line) {
            let long = warm.rest.map_or(REST, |rest| (rest.long * 2).min(LONGEST_REST));
            warm.rest = Some(Rest { until: now + long, long });
        }
    }

    /// The connections to a server; new ones where there are none.
    fn connections(&self, line: &Line, alone: bool) -> Result<(reqwest::Client, Arc<Semaphore>), String> {
        let mut all = self.warm();
        let now = self.clock.now();
        // whoever was believed before may not be any more: then it shows its certificate again
        let edition = self.trust.edition();
        if let Some(warm) = all.get_mut(line).filter(|warm| warm.edition == edition) {
            (warm.used, warm.touched) = (now, now);
            return Ok((warm.http.clone(), warm.places.clone()));
        }
        let tls = tls::client_config(&self.identity, &self.trust, line.expected.clone());
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.map_err(|error| error.to_string())?)
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .http1_only()
            .connect_timeout(if alone { CONNECT_TIME } else { CONNECT_TIME_OF_MANY })
            .timeout(EXCHANGE_TIME)
            .pool_idle_timeout(IDLE_TIME)
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(30));
        if !line.addresses.is_empty() {
            builder = builder.resolve_to_addrs(&line.host, &line.addresses);
        }
        let http = builder.build().map_err(|error| chain(&error))?;
        tracing::info!(
            target: "roamgate::net",
            milestone = "server found",
            host = line.host,
            addresses = ?line.addresses,
            port = line.port,
        );
        if all.len() >= MOST_SERVERS
            && let Some(oldest) = all.iter().min_by_key(|(_, warm)| warm.used).map(|(line, _)| line.clone())
        {
            all.remove(&oldest);
        }
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let rest = all.get(line).and_then(|warm| warm.rest);
        let warm =
            Warm { http: http.clone(), places: places.clone(), edition, used: now, touched: now, rest };
        all.insert(line.clone(), warm);
        Ok((http, places))
    }
}

/// Whatever it answers: a message of TS002 is a POST.
async fn head(http: &reqwest::Client, line: &Line) -> Result<(), reqwest::Error> {
    let url = format!("https://{}:{}/", line.host, line.port);
    http.head(url).timeout(CONNECT_TIME).send().await.map(|_| ())
}

impl Line {
    fn url(&self, path: &str) -> Result<Url, NoResponse> {
        let url = format!("https://{}:{}{path}", self.host, self.port);
        Url::parse(&url).map_err(|error| NoResponse::Broken(format!("{url} is no URL: {error}")))
    }
}

async fn send(
    mut request: reqwest::RequestBuilder,
    line: &Line,
    authorization: Option<&Authorization>,
    most: usize,
) -> Result<(StatusCode, Vec<u8>), NoResponse> {
    if let Some(authorization) = authorization {
        // was checked when it was read
        let mut value = HeaderValue::from_str(authorization.expose())
            .map_err(|_| NoResponse::Broken("authorization of its entry cannot be sent".into()))?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) if error.is_connect() => return Err(NoResponse::NoConnection(causes(&error, line))),
        Err(error) if error.is_timeout() => return Err(NoResponse::Late),
        Err(error) => return Err(NoResponse::Broken(causes(&error, line))),
    };
    let status = response.status();
    Ok((status, read(response, most).await.map_err(NoResponse::Broken)?))
}

async fn read(mut response: reqwest::Response, most: usize) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| chain(&error.without_url()))? {
        body.extend_from_slice(&chunk);
        if body.len() > most {
            return Err(format!("an answer of more than {most} bytes"));
        }
    }
    Ok(body)
}

/// What went wrong, outermost first, in words of TLS where it was that.
fn causes(error: &reqwest::Error, line: &Line) -> String {
    let addresses: Vec<_> = line.addresses.iter().map(ToString::to_string).collect();
    let at = if addresses.is_empty() { String::new() } else { format!(" at {}", addresses.join(", ")) };
    let why = tls::explain(error).unwrap_or_else(|| innermost(error));
    let what = if error.is_connect() { "no connection to" } else { "no answer from" };
    format!("{what} {} port {}{at}: {why}", line.host, line.port)
}

/// The causes below the libraries' own words, which repeat the URL and name their parts.
fn innermost(error: &reqwest::Error) -> String {
    let below = error.source().map(|outer| outer.source().unwrap_or(outer));
    below.map_or_else(|| error.to_string(), chain)
}

/// An error and its causes.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::check::PeerRules;
    use crate::pki::make::{Authority, IntermediateSpec, LeafSpec, RootSpec};
    use crate::tls::Roots;

    fn servers() -> Servers {
        tls::install_provider();
        let clock = Clock::system();
        let root = Authority::root(&RootSpec::new("A federation"), &clock).unwrap();
        let member = root.intermediate(&IntermediateSpec::new("A member", ["a.example"]), &clock).unwrap();
        let made = member.issue(&LeafSpec::new("node", ["a.example"]), &clock).unwrap();
        let identity = Shown::from(&tls::Identity::from_pem(&made.chain_pem, &made.key_pem).unwrap());
        let roots = Roots::from_pem(&root.cert_pem).unwrap();
        let trust = Trust::new(&roots, PeerRules::default(), clock.clone()).unwrap();
        Servers::new(identity, trust, clock)
    }

    fn target(ports: &[u16]) -> Target {
        let way = |port: &u16| Way {
            by: Vec::new(),
            addresses: vec!["192.0.2.1".parse().unwrap()],
            port: *port,
            path: "/".into(),
            security: Security::Secure,
        };
        Target {
            host: "a.example".into(),
            ways: ports.iter().map(|port| (way(port), None)).collect(),
            evidence: Evidence::Pkix,
            also: Vec::new(),
            by_its_own_name: false,
            authorization: None,
        }
    }

    #[test]
    fn the_order_of_addresses_tells_no_connections_apart_and_ipv6_comes_first() {
        let target = |addresses: [&str; 3]| {
            let mut target = target(&[443]);
            target.ways[0].0.addresses = addresses.map(|ip| ip.parse().unwrap()).to_vec();
            target.line(&target.ways[0])
        };
        let line = target(["192.0.2.2", "2001:db8::1", "192.0.2.1"]);
        assert_eq!(line, target(["2001:db8::1", "192.0.2.1", "192.0.2.2"]));
        assert!(line.addresses[0].is_ipv6());
    }

    #[tokio::test(start_paused = true)]
    async fn ways_that_rest_come_last_and_rest_longer_each_time() {
        let (servers, target) = (servers(), target(&[1, 2, 3]));
        let order = || servers.in_order(&target).iter().map(|(line, _)| line.port).collect::<Vec<_>>();
        let line = |n: usize| target.line(&target.ways[n]);
        let fails = |n: usize| {
            servers.connections(&line(n), false).unwrap();
            servers.unreached(&line(n));
        };
        assert_eq!(order(), [1, 2, 3]);
        fails(0);
        assert_eq!(order(), [2, 3, 1]);
        tokio::time::advance(Duration::from_secs(1)).await;
        fails(1);
        assert_eq!(order(), [3, 1, 2]);
        tokio::time::advance(REST).await;
        assert_eq!(order(), [1, 2, 3], "both may be tried again");
        fails(0);
        tokio::time::advance(REST).await;
        assert_eq!(order(), [2, 3, 1], "twice as long the second time");
        tokio::time::advance(REST).await;
        assert_eq!(order(), [1, 2, 3]);
        for _ in 0..10 {
            fails(0);
        }
        tokio::time::advance(LONGEST_REST).await;
        assert_eq!(order(), [1, 2, 3], "and never longer than ten minutes");
        fails(0);
        servers.reached(&line(0));
        assert_eq!(order(), [1, 2, 3], "whoever answers is well again");
    }
}
