//! The end of TS002 that asks: finds a partner's server, POSTs, reads the answer.
//!
//! The exchange runs in a task of its own: a caller whose time is up stops waiting, and the connection
//! lives on for the next frame. A POST whose bytes have left is never sent again.

mod backups;
mod servers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::StatusCode;
use tokio::time::timeout_at;
use tracing::{Instrument, Span};

use self::servers::{Posted, Servers, Target, chain, configured, owners};
use super::door::{Boxed, Deadline, Deliver, PeerError, Peers};
use super::keywrap::Keks;
use super::manners::Manners;
use super::message::wire::{self, Confused, Header, MessageType, Version};
use super::message::{Answer, Party, PrStartAns, Refusal, Request};
use super::pending::Pending;
use super::tokens::Tokens;
use crate::clock::Clock;
use crate::discovery::{Endpoint, Resolver, Suffix};
use crate::lorawan::{DevAddr, DevEui, JoinEuiRange, NetId};
use crate::partners::{self, Quirk};
use crate::pki::dane::{Evidence, Tlsa};
use crate::tls::{Shown, Trust};

/// An exchange that takes longer is given up, whoever still waits for it. Peers answer within 5 s.
const EXCHANGE_TIME: Duration = Duration::from_secs(10);
/// So long before nobody waits any more, what went wrong is said.
const WORD: Duration = Duration::from_millis(50);
/// A connection that has carried nothing for so long is used for nothing, to keep it open; both ends close an idle one later.
const TOUCH: Duration = Duration::from_secs(40);
/// Requests that wait for their answers at the same time.
const MOST_PENDING: usize = 1024;

/// How servers are found that no configuration names.
pub trait Discover: Send + Sync {
    /// The server of a network or of a join server; `dev_eui` where one device is concerned.
    fn find<'a>(
        &'a self,
        to: &'a Party,
        dev_eui: Option<DevEui>,
        by: Deadline,
    ) -> Boxed<'a, Result<Endpoint, String>>;

    /// Networks that may have given an address, as the federation lists them.
    fn networks(&self, _addr: DevAddr, _by: Deadline) -> Boxed<'_, Vec<NetId>> {
        Box::pin(std::future::ready(Vec::new()))
    }

    /// The TLSA records at a name; `None`: there are none that DNSSEC proves.
    fn keys<'a>(&'a self, _name: &'a str, _: Evidence, _by: Deadline) -> Boxed<'a, Option<Vec<Tlsa>>> {
        Box::pin(std::future::ready(None))
    }
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
            found.map_err(|error| chain(&error))
        })
    }

    fn networks(&self, addr: DevAddr, by: Deadline) -> Boxed<'_, Vec<NetId>> {
        Box::pin(self.networks(addr, by))
    }

    fn keys<'a>(&'a self, name: &'a str, for_it: Evidence, by: Deadline) -> Boxed<'a, Option<Vec<Tlsa>>> {
        Box::pin(async move { self.tlsa(name, for_it, by).await.records })
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

/// A join server of somebody else, as it is agreed with its operator.
#[derive(Debug, Clone)]
pub struct JoinServer {
    /// For which JoinEUIs.
    pub join_euis: Vec<JoinEuiRange>,
    /// Where it is; `None`: the DNS knows.
    pub server: Option<String>,
    /// The name in its certificate, where that is neither the host of `server` nor the name in the DNS.
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
    /// Who we are.
    pub identity: Shown,
    /// Judges who they are.
    pub trust: Arc<Trust>,
    /// Whose word counts for their certificates, where their entry does not say.
    pub evidence: Evidence,
    /// What networks are called in certificates.
    pub net_id_suffix: Suffix,
    /// Keys for the keys in answers; without an entry no key is taken.
    pub keks: BTreeMap<Party, Keks>,
    /// Answers that come as requests of their own.
    pub pending: Arc<Pending>,
    /// What partners want to see again.
    pub tokens: Arc<Tokens>,
    /// How they want to be spoken to.
    pub manners: Arc<Manners>,
    /// Whoever was asked within so long has a connection kept open; zero: nobody.
    pub keep_warm: Duration,
    /// Time and chance.
    pub clock: Clock,
}

/// Asks partners. Clones share connections.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    parts: Parts,
    servers: Servers,
    pending: Mutex<BTreeSet<u32>>,
}

impl Peers for Client {
    fn networks(&self, addr: DevAddr, by: Deadline) -> Boxed<'_, Vec<NetId>> {
        self.0.parts.discover.networks(addr, by)
    }

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
        let servers = Servers::new(parts.identity.clone(), parts.trust.clone(), parts.clock.clone());
        Client(Arc::new(Inner { parts, servers, pending: Mutex::default() }))
    }

    /// Keep connections to partners in use open, for as long as this is polled.
    pub async fn keep_warm(self) {
        let in_use = self.0.parts.keep_warm;
        while !in_use.is_zero() {
            self.0.parts.clock.sleep(TOUCH / 2).await;
            self.touch(in_use, TOUCH).await;
        }
    }

    /// Once: those that were asked within `in_use` and have heard nothing for `idle`.
    pub async fn touch(&self, in_use: Duration, idle: Duration) {
        self.0.servers.touch(in_use, idle).await;
    }

    /// Whether a party's server can be reached, is who it should be, and takes our certificate: nothing of TS002 is said. Its host.
    pub async fn knock(&self, to: Party, by: Deadline) -> Result<String, PeerError> {
        let target = self.find(&to, None, by).await?;
        self.0.servers.knock(&target, by).await.map_err(|why| why.because(&to))
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
        let Inner { parts, servers, .. } = &*self.0;
        let to = &header.receiver;
        if !parts.clock.is_trusted() {
            let why =
                "this machine's clock is not set, so no certificate can be judged; GPS or NTP has to set it";
            return Err(PeerError::Forbidden { to: to.clone(), why: why.into() });
        }
        let target = self.find(to, dev_eui(request), by).await?;
        // before it leaves: the answer may come before the HTTP response
        let answer = MessageType::of(request).answer();
        let mut later = parts.pending.expect(to.clone(), header.transaction, answer);
        let posted = servers.post(&target, wire::encode_request(header, request), by).await;
        let Posted { status, mut body, server } = match posted {
            Ok(posted) => posted,
            // what was answered already counts, whatever becomes of the connection
            Err(error) => match later.overtook() {
                Some(body) => Posted { status: StatusCode::OK, body, server: None },
                None => return Err(error.because(to)),
            },
        };
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
                servers.forget(server);
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
        let of_js = parts.join_server(to);
        let server = listed.and_then(|partner| partner.server.as_deref());
        let server = server.or_else(|| of_js.and_then(|known| known.server.as_deref()));
        let Endpoint { host, ways, .. } = match server {
            Some(server) => configured(server).map_err(|why| PeerError::Forbidden { to: to.clone(), why })?,
            None => {
                let found = parts.discover.find(to, dev_eui, by).await;
                found.map_err(|why| PeerError::NotFound { to: to.clone(), why })?
            }
        };
        let evidence = listed.and_then(|partner| partner.trust).unwrap_or(parts.evidence);
        let ways = ways.into_iter().map(async |way| {
            let owners = if evidence.asks() { owners(&host, &way) } else { Vec::new() };
            let keys = owners.iter().map(|owner| parts.discover.keys(owner, evidence, by));
            let keys = join_all(keys).await.into_iter().find_map(|keys| keys);
            (way, keys)
        });
        let ways = join_all(ways).await;
        let own = listed.map(|partner| partner.certificate_name(&parts.net_id_suffix));
        let of_js = of_js.and_then(|known| known.identity.clone());
        Ok(Target {
            host,
            ways,
            evidence,
            also: own.into_iter().chain(of_js).collect(),
            by_its_own_name: listed.is_some_and(|partner| partner.quirks.contains(&Quirk::TargetName)),
            authorization: listed.and_then(|partner| partner.authorization.clone()),
        })
    }
}

impl Inner {
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

fn dev_eui(request: &Request) -> Option<DevEui> {
    match request {
        Request::HomeNs(req) => Some(req.dev_eui),
        Request::Join(req) => Some(req.dev_eui),
        Request::AppSKey(req) => Some(req.dev_eui),
        _ => None,
    }
}

impl Deliver for Client {
    fn deliver(&self, to: Party, answer: Vec<u8>, by: Deadline) -> Boxed<'_, Result<(), PeerError>> {
        Box::pin(async move {
            let target = self.find(&to, None, by).await?;
            let posted = timeout_at(by.0, self.0.servers.post(&target, answer, by)).await;
            let posted = posted.map_err(|_| PeerError::Late { to: to.clone() })?;
            match posted.map_err(|why| why.because(&to))? {
                Posted { status, .. } if status.is_success() => Ok(()),
                Posted { status, .. } => {
                    Err(PeerError::Transport { to: to.clone(), why: refused_by_http(status) })
                }
            }
        })
    }
}

fn refused_by_http(status: StatusCode) -> String {
    let remedy = match status {
        StatusCode::NOT_FOUND => ": the path of its server is another one, or it routes on a header",
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ": it does not let us in",
        _ => "",
    };
    format!("HTTP {status}{remedy}")
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
