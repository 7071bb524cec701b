//! The end of TS002 that is asked: HTTPS with client certificates, and steps 1 to 11 of section 6.1.
//!
//! Who is asking is what the handshake proved, looked at again for every request. A request that
//! passes goes to the rooms in a task of its own: whoever hangs up ends the waiting, not the work.
//! Answers go back in the HTTP response, or by a request of our own where that is agreed. The port opens before the clock is right; until it is, every
//! connection is closed at once. Connections come from that port, or are brought by a front's tunnel.

mod doorstep;
mod guest;
mod keep;
mod patience;
mod said;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request as HttpRequest, State};
use axum::http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls_pki_types::CertificateDer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;
use tracing::{Instrument, Span};

pub use doorstep::{Arrival, Doorstep, Wire};
pub use keep::Keeping;

use doorstep::Open;
use guest::Guest;
use keep::Keeper;
use patience::{Patience, remedy};
use said::{Key, Said};

use super::Limits;
use super::door::{Caller, Deadline, Deliver, Rooms};
use super::keywrap::Keks;
use super::manners::Manners;
use super::message::wire::{self, Envelope, Header, Incoming, MessageType, Notice, Reply};
use super::message::{Answer, Party, Refusal, Request, ResultCode};
use super::pending::Pending;
use super::tokens::Tokens;
use crate::clock::Clock;
use crate::discovery::name::{join_eui_name, net_id_name};
use crate::discovery::{Resolver, Suffix};
use crate::limits::Wait;
use crate::lorawan::frame::Uplink;
use crate::lorawan::{JoinEuiRange, NetId};
use crate::partners;
use crate::pki::check::PeerIdentity;
use crate::pki::dane::Evidence;
use crate::tls::{self, Trust};

/// A longer body is refused with 413.
const BODY_LIMIT: usize = 256 * 1024;
/// What is read and thrown away of a longer one, so that its sender gets to read the refusal.
const DRAIN_LIMIT: usize = 4 * BODY_LIMIT;
/// A body that takes longer is given up.
const BODY_TIME: Duration = Duration::from_secs(10);
/// A handshake that takes longer is given up.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// A connection that asks nothing for so long is closed. Longer than clients keep an idle one, so
/// that they rarely write into one that is just closing.
const IDLE_TIME: Duration = Duration::from_secs(150);
/// Peers give up after 5 s: nobody listens later.
const ANSWER_TIME: Duration = Duration::from_secs(6);
/// How long the end of the program waits for work that has begun.
const STOP_TIME: Duration = Duration::from_secs(5);
/// Handshakes at the same time: strangers get no more of a small machine.
const HANDSHAKES: usize = 128;
/// Connections at the same time.
const CONNECTIONS: u32 = 512;
/// Procedures at the same time, of all partners and of one. One like us deals with 256 frames at once, and while we
/// wait for the disk for a tenth of a second, all of them may be here.
const PROCEDURES: u32 = 512;
const PROCEDURES_OF_ONE: u32 = 256;

/// A join has five seconds, and so has whoever waits for one.
const JOIN_TIME: Duration = Duration::from_secs(5);
/// RX2 of a data frame opens two seconds after it at the earliest; the way back takes some of them.
const DATA_TIME: Duration = Duration::from_millis(1800);

/// Who we are to partners.
#[derive(Debug, Clone, Default)]
pub struct Ours {
    /// ReceiverIDs as a network server.
    pub net_ids: Vec<NetId>,
    /// ReceiverIDs as a join server.
    pub join_euis: Vec<JoinEuiRange>,
    /// What this node is.
    pub roles: Roles,
}

/// Which roles answer partners here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Roles {
    /// Forwarding network server.
    pub fns: bool,
    /// Serving network server.
    pub sns: bool,
    /// Home network server.
    pub hns: bool,
    /// Join server.
    pub js: bool,
}

impl Roles {
    /// All of them.
    pub const ALL: Roles = Roles { fns: true, sns: true, hns: true, js: true };

    /// Those that a Target URL's last segment leaves (section 4.1).
    fn at(self, path: &str) -> Roles {
        let none = Roles::default();
        match path.trim_end_matches('/').rsplit('/').next() {
            Some("fns") => Roles { fns: self.fns, ..none },
            Some("sns") => Roles { sns: self.sns, ..none },
            Some("hns") => Roles { hns: self.hns, ..none },
            Some("js") => Roles { js: self.js, ..none },
            _ => self,
        }
    }

    /// Step 9: whether some role here handles messages of this type.
    fn handle(self, message_type: MessageType) -> bool {
        match message_type {
            MessageType::HomeNs | MessageType::Join | MessageType::Rejoin | MessageType::AppSKey => self.js,
            // a join goes to the network that will serve it, which is home to the device
            MessageType::PrStart => self.sns || self.hns,
            MessageType::HrStart | MessageType::HrStop => self.hns || self.sns,
            MessageType::Profile => self.hns,
            MessageType::PrStop => self.fns || self.sns,
            MessageType::XmitData | MessageType::XmitLoc => self.fns || self.sns || self.hns,
        }
    }

    /// The same, once the body has said which of the four forms of XmitDataReq it is.
    fn handle_form(self, request: &Request) -> bool {
        match request {
            Request::XmitDown(_) => self.fns,
            Request::XmitUp(_) | Request::XmitAppDown(_) => self.sns,
            Request::XmitAppUp(_) | Request::HrStart(_) => self.hns,
            Request::HrRegain(_) => self.sns,
            _ => true,
        }
    }
}

/// What the server needs of the house.
pub struct Parts {
    /// Who we are.
    pub ours: Ours,
    /// Who may ask.
    pub partners: Arc<partners::Config>,
    /// Application servers that may, by AS-ID, with the name in the certificate.
    pub applications: BTreeMap<String, String>,
    /// What stands behind a NetID in a certificate's name.
    pub net_id_suffix: Suffix,
    /// What stands behind a JoinEUI.
    pub join_eui_suffix: Suffix,
    /// Keys for the keys in answers, by who asks; without an entry no key leaves.
    pub keks: BTreeMap<Party, Keks>,
    /// The judge of certificates.
    pub trust: Arc<Trust>,
    /// Whose word counts for them, where the partner's entry does not say.
    pub evidence: Evidence,
    /// Has their TLSA records.
    pub resolver: Option<Resolver>,
    /// Who answers.
    pub rooms: Arc<dyn Rooms>,
    /// Brings answers to partners that do not wait for them.
    pub deliver: Option<Arc<dyn Deliver>>,
    /// Keeps partners' backups.
    pub keeping: Option<Keeping>,
    /// Answers that our own requests wait for.
    pub pending: Arc<Pending>,
    /// What partners want to see again.
    pub tokens: Arc<Tokens>,
    /// How they want to be spoken to.
    pub manners: Arc<Manners>,
    /// How often partners may ask.
    pub limits: Limits,
    /// Time.
    pub clock: Clock,
}

/// A server that runs. Dropping it stops accepting; [`Server::stop`] also waits for what has begun.
#[derive(Debug)]
pub struct Server {
    address: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
    procedures: Arc<Semaphore>,
}

/// Open the doors and answer from now on.
pub async fn serve(
    doorstep: Doorstep,
    config: Arc<rustls::ServerConfig>,
    parts: Parts,
) -> io::Result<Server> {
    let (doors, address) = doorstep.open().await?;
    let (stop, stopped) = watch::channel(false);
    let procedures = Arc::new(Semaphore::new(PROCEDURES as usize));
    let reception = Arc::new(Reception {
        ours: parts.ours,
        partners: parts.partners,
        applications: parts.applications,
        net_id_suffix: parts.net_id_suffix,
        join_eui_suffix: parts.join_eui_suffix,
        keks: parts.keks,
        trust: parts.trust,
        evidence: parts.evidence,
        resolver: parts.resolver,
        rooms: parts.rooms,
        deliver: parts.deliver,
        keeper: parts.keeping.map(Keeper::new),
        pending: parts.pending,
        tokens: parts.tokens,
        manners: parts.manners,
        patience: Patience::new(parts.limits, parts.clock.clone()),
        said: Said::default(),
        clock: parts.clock,
        procedures: procedures.clone(),
        running: Arc::default(),
    });
    let accepting = accept(doors, TlsAcceptor::from(config), reception, stopped);
    let accepting = tokio::spawn(accepting.in_current_span());
    if let Some(address) = address {
        tracing::info!(%address, "partners are answered");
    }
    Ok(Server { address, stop, accepting, procedures })
}

impl Server {
    /// Where it listens: the port that was given, or found where that was 0. `None`: all connections are brought.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Accept nothing more, answer what was asked, and wait some seconds for procedures that have
    /// begun: a half-run one must not exist.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        let finish = async {
            let _ = self.accepting.await;
            let _all = self.procedures.acquire_many(PROCEDURES).await;
        };
        if timeout(STOP_TIME, finish).await.is_err() {
            tracing::warn!("stopping although a partner's request is still being worked on");
        }
    }
}

async fn accept(
    mut doors: Open,
    acceptor: TlsAcceptor,
    reception: Arc<Reception>,
    mut stopped: watch::Receiver<bool>,
) {
    let (handshakes, connections) = (Semaphore::new(HANDSHAKES), Semaphore::new(CONNECTIONS as usize));
    let (handshakes, connections) = (Arc::new(handshakes), Arc::new(connections));
    let mut refused_by_clock = false;
    loop {
        let arrived = tokio::select! {
            arrived = doors.next() => arrived,
            // also when the handle is dropped
            _ = stopped.changed() => break,
        };
        let Arrival { stream, from } = match arrived {
            Ok(arrived) => arrived,
            Err(error) => {
                // out of file descriptors, or a connection that is gone already
                if let Some(left_out) = reception.patience.tell("", &error.to_string()) {
                    let remedy = "if it lasts: a higher LimitNOFILE, or fewer partners";
                    tracing::warn!(%error, remedy, left_out, "cannot accept a connection");
                }
                reception.clock.sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        if !reception.clock.is_trusted() {
            if !refused_by_clock {
                let remedy = "GPS or NTP has to set it";
                tracing::warn!(%from, remedy, "the clock is not set: partners are turned away");
            }
            refused_by_clock = true;
            continue;
        }
        refused_by_clock = false;
        // A full house closes the door at once instead of letting people queue behind it.
        let patience = &reception.patience;
        let Ok(place) = connections.clone().try_acquire_owned() else {
            if let Some(left_out) = patience.tell("", "too many connections") {
                let remedy = "none, if it is rare; else look who connects so often";
                tracing::warn!(%from, limit = CONNECTIONS, remedy, left_out, "too many connections: turned one away");
            }
            continue;
        };
        if let Err(wait) = patience.handshake(from.ip()) {
            if let Some(left_out) = patience.tell(&from.ip().to_string(), "too many handshakes") {
                let remedy = "a firewall, if this address is nobody you know";
                tracing::warn!(%from, %wait, remedy, left_out, "too many connections of one address: turned away");
            }
            continue;
        }
        let (acceptor, reception, stopped) = (acceptor.clone(), reception.clone(), stopped.clone());
        let handshakes = handshakes.clone();
        let connection = async move {
            let handshake = async {
                // many at once take turns: a partner whose devices all join at once is no attacker
                let _turn = handshakes.acquire().await;
                shake(&acceptor, &reception.trust, stream).await
            };
            match timeout(HANDSHAKE_TIME, handshake).await {
                Ok(Ok((stream, who))) => talk(stream, who, from, reception, stopped).await,
                Ok(Err(why)) => {
                    if let Some(left_out) = reception.patience.tell(&from.ip().to_string(), &why) {
                        tracing::warn!(%from, why, left_out, "a TLS handshake failed");
                    }
                }
                Err(_elapsed) => {
                    if let Some(left_out) = reception.patience.tell(&from.ip().to_string(), "hung") {
                        let remedy = "none, if it is rare; else the way to this address loses packets, or it is hostile";
                        tracing::warn!(%from, limit = ?HANDSHAKE_TIME, remedy, left_out, "a TLS handshake hung");
                    }
                }
            }
            drop(place);
        };
        tokio::spawn(connection.in_current_span());
    }
    drop(doors);
    // every connection ends when its present request is answered
    let _all = connections.acquire_many(CONNECTIONS).await;
}

type Stream = tokio_rustls::server::TlsStream<Box<dyn Wire>>;

/// Who it is by a root's word, and what it has sent.
type Peer = (PeerIdentity, Vec<CertificateDer<'static>>);

async fn shake(
    acceptor: &TlsAcceptor,
    trust: &Trust,
    stream: Box<dyn Wire>,
) -> Result<(Stream, Peer), String> {
    let stream = acceptor
        .accept(stream)
        .await
        .map_err(|error| tls::explain(&error).unwrap_or_else(|| error.to_string()))?;
    let (_, connection) = stream.get_ref();
    let peer = trust.peer_identity(connection.peer_certificates()).map_err(|error| error.to_string())?;
    tls::handshake_done(connection, &peer);
    let chain = connection.peer_certificates().unwrap_or_default();
    let chain = chain.iter().map(|one| one.clone().into_owned()).collect();
    Ok((stream, (peer, chain)))
}

/// One connection, request after request.
async fn talk(
    stream: Stream,
    who: Peer,
    from: SocketAddr,
    reception: Arc<Reception>,
    mut stopped: watch::Receiver<bool>,
) {
    let (peer, chain) = who;
    let guest = match reception.guest(peer, chain).await {
        Ok(guest) => Arc::new(guest),
        Err(why) => {
            if let Some(left_out) = reception.patience.tell(&from.ip().to_string(), &why) {
                let remedy = "its operator publishes the key, or gets a certificate below one of our roots";
                tracing::warn!(%from, why, remedy, left_out, "a client that nobody vouches for: turned away");
            }
            return;
        }
    };
    let Some(_connection) = reception.patience.connection(&guest.name) else {
        if let Some(left_out) = reception.patience.tell(&guest.name, "too many connections of one peer") {
            let remedy = "its operator keeps connections open instead of making new ones";
            tracing::warn!(
                peer = guest.name,
                remedy,
                left_out,
                "too many connections of one peer: turned one away"
            );
        }
        return;
    };
    let router = Router::new().fallback(receive).with_state(reception);
    let service = hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(guest.clone());
        router.clone().oneshot(request.map(Body::new))
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(IDLE_TIME);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = &mut connection => ended,
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}

/// Everything that a request meets on its way to the rooms.
struct Reception {
    ours: Ours,
    partners: Arc<partners::Config>,
    applications: BTreeMap<String, String>,
    net_id_suffix: Suffix,
    join_eui_suffix: Suffix,
    keks: BTreeMap<Party, Keks>,
    trust: Arc<Trust>,
    evidence: Evidence,
    resolver: Option<Resolver>,
    rooms: Arc<dyn Rooms>,
    deliver: Option<Arc<dyn Deliver>>,
    keeper: Option<Keeper>,
    pending: Arc<Pending>,
    tokens: Arc<Tokens>,
    manners: Arc<Manners>,
    patience: Patience,
    /// To joins.
    said: Said,
    clock: Clock,
    procedures: Arc<Semaphore>,
    /// Procedures that run, by who asked.
    running: Running,
}

/// Steps 1 and 2 of section 6.1.
async fn receive(State(reception): State<Arc<Reception>>, request: HttpRequest) -> Response<Body> {
    // the connection put it there
    let Some(guest) = request.extensions().get::<Arc<Guest>>().cloned() else {
        return plain(StatusCode::INTERNAL_SERVER_ERROR);
    };
    if request.uri().path().starts_with(keep::PLACE) {
        return reception.keep(&guest, request).await;
    }
    if request.method() != Method::POST {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED);
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    let roles = reception.ours.roles.at(request.uri().path());
    let body = match timeout(BODY_TIME, read(request.into_body())).await {
        Ok(Ok(body)) => body,
        Ok(Err(status)) => {
            if let Some(left_out) = reception.patience.tell(&guest.name, "body") {
                let remedy = "tell its operator: no message of TS002 is longer";
                tracing::warn!(peer = guest.name, %status, limit = BODY_LIMIT, remedy, left_out, "a body was not taken");
            }
            return closing(plain(status));
        }
        Err(_elapsed) => {
            if let Some(left_out) = reception.patience.tell(&guest.name, "slow body") {
                let remedy = "none, if it is rare; else its way to us loses packets";
                tracing::warn!(peer = guest.name, limit = ?BODY_TIME, remedy, left_out, "a body came too slowly");
            }
            return closing(plain(StatusCode::REQUEST_TIMEOUT));
        }
    };
    let patient = reception.patience.request(&guest.name, guest.listed);
    reception.renew(&guest).await;
    match wire::open(&body) {
        Ok(Incoming::Request(envelope)) => {
            let repeatable = reception.repeatable(&envelope, &body);
            reception.handle(guest, roles, envelope, patient, repeatable).await
        }
        // Step 3
        Ok(Incoming::Answer(reply)) => {
            reception.take(&guest, &reply, patient.is_ok(), body.to_vec());
            plain(StatusCode::OK)
        }
        Ok(Incoming::Notice(notice)) => {
            reception.note(&guest, &notice, patient.is_ok(), body.to_vec());
            plain(StatusCode::OK)
        }
        Ok(Incoming::Unasked(message_type)) => {
            if let Some(left_out) = reception.patience.tell(&guest.name, &message_type) {
                tracing::info!(message_type, peer = guest.name, left_out, "not asked for: discarded");
            }
            plain(StatusCode::OK)
        }
        Err(error) => {
            if let Some(left_out) = reception.patience.tell(&guest.name, &error.to_string()) {
                let remedy = "tell its operator: the message is at fault";
                tracing::warn!(%error, peer = guest.name, remedy, left_out, "a body that is no message of TS002");
            }
            json(StatusCode::BAD_REQUEST, error.body())
        }
    }
}

/// The whole body, or why not. A body over the limit is read on for a while and forgotten: closing
/// at once would take the refusal away from a sender that is still writing.
async fn read(mut body: Body) -> Result<Bytes, StatusCode> {
    let (mut taken, mut length) = (Vec::new(), 0_usize);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| StatusCode::BAD_REQUEST)?.into_data() else { continue };
        length = length.saturating_add(data.len());
        if length <= BODY_LIMIT {
            taken.extend_from_slice(&data);
        } else if length > DRAIN_LIMIT {
            break;
        }
    }
    if length > BODY_LIMIT { Err(StatusCode::PAYLOAD_TOO_LARGE) } else { Ok(taken.into()) }
}

fn plain(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn json(status: StatusCode, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn closing(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

type Running = Arc<Mutex<BTreeMap<Party, u32>>>;

/// A procedure's place among those that run; free again when it is dropped.
struct Place {
    running: Running,
    sender: Party,
    _all: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = running.get_mut(&self.sender) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                running.remove(&self.sender);
            }
        }
    }
}

/// What came of the steps before the rooms.
struct Admitted {
    caller: Caller,
    request: Request,
    /// Step 8's exception: a JoinEUI that is not ours, for a device that may be.
    foreign_join_eui: bool,
    place: Place,
}

impl Reception {
    /// An answer that came as a request of its own: to whoever waits for it, if it comes from who was asked (4.4).
    fn take(&self, guest: &Guest, reply: &Reply, patient: bool, body: Vec<u8>) {
        let authentic = patient && self.authority(guest).is_ok() && self.is_party(&guest.peer, &reply.sender);
        if authentic && self.pending.bring(&reply.sender, reply.transaction, reply.name, body) {
            return;
        }
        if let Some(left_out) = self.patience.tell(&guest.name, reply.name) {
            let message_type = reply.name;
            tracing::info!(message_type, peer = guest.name, authentic, left_out, "not asked for: discarded");
        }
    }

    /// What became of an earlier message, by who was to receive it (section 17).
    fn note(&self, guest: &Guest, notice: &Notice, patient: bool, body: Vec<u8>) {
        let authentic =
            patient && self.authority(guest).is_ok() && self.is_party(&guest.peer, &notice.sender);
        let failed = notice.result.is_err();
        if authentic && failed && self.pending.fail(&notice.sender, notice.transaction, body) {
            return;
        }
        if let Some(left_out) = self.patience.tell(&guest.name, notice.name) {
            let (message_type, peer) = (notice.name, &guest.name);
            let result = notice.result.as_ref().map_or_else(ToString::to_string, |()| "Success".into());
            tracing::info!(target: "roamgate::net", milestone = "notification", MessageType = message_type,
                TransactionID = notice.transaction, result, peer, authentic, left_out);
        }
    }

    async fn handle(
        self: &Arc<Self>,
        guest: Arc<Guest>,
        roles: Roles,
        envelope: Envelope,
        patient: Result<(), (Refusal, Wait)>,
        repeatable: Option<Key>,
    ) -> Response<Body> {
        let (sender, receiver, transaction) = envelope.as_sent();
        let span = tracing::info_span!(
            target: "roamgate::door",
            "door",
            MessageType = envelope.message_type().request(),
            TransactionID = transaction,
            SenderID = sender,
            ReceiverID = receiver,
            local = false,
            ResultCode = tracing::field::Empty,
        );
        if let Err((refusal, wait)) = patient {
            span.in_scope(|| self.tell_refusal(&guest, &refusal));
            span.record("ResultCode", tracing::field::display(&refusal));
            let mut response =
                json(StatusCode::TOO_MANY_REQUESTS, envelope.answer(&Err(refusal), &Keks::default()));
            let seconds = HeaderValue::from(wait.0.as_secs().saturating_add(1));
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
            return response;
        }
        let header = span.in_scope(|| envelope.header());
        let authentic = self.authority(&guest).is_ok();
        if let Some((deliver, to)) = self.answers_later(&guest.peer, &header).filter(|_| authentic) {
            let (reception, by) = (self.clone(), Deadline(self.clock.now() + ANSWER_TIME));
            let inside = span.clone();
            let work = async move {
                let answer = reception.answer(&guest, roles, &envelope, header, repeatable, &inside).await;
                if let Err(error) = deliver.deliver(to, answer, by).await
                    && let Some(left_out) = reception.patience.tell(&guest.name, "not delivered")
                {
                    let remedy = "its server must be reachable, or agree on mode = \"sync\"";
                    tracing::warn!(%error, peer = guest.name, remedy, left_out, "an answer was not delivered");
                }
            };
            tokio::spawn(work.instrument(span));
            return plain(StatusCode::OK);
        }
        let answer = self.answer(&guest, roles, &envelope, header, repeatable, &span).await;
        let response = json(StatusCode::OK, answer);
        // who may no longer speak loses the line
        if authentic { response } else { closing(response) }
    }

    /// Who brings the answer and to whom, where it is agreed that it comes by a request of our own. Only to who the sender
    /// has proved to be: nobody has us write to others.
    fn answers_later(
        &self,
        peer: &PeerIdentity,
        header: &Result<Header, Refusal>,
    ) -> Option<(Arc<dyn Deliver>, Party)> {
        let (deliver, sender) = (self.deliver.as_ref()?, &header.as_ref().ok()?.sender);
        let Party::Ns(net_id) = sender else { return None };
        let partner = self.partners.partner(*net_id)?;
        // peers ask a join server with another client than a network, and wait in another way
        let mode = match header.as_ref().ok()?.receiver {
            Party::Js(_) => partner.join_mode,
            _ => partner.mode,
        };
        let agreed = mode == partners::Mode::Async;
        (agreed && self.bind(peer, sender).is_ok()).then(|| (deliver.clone(), sender.clone()))
    }

    /// The name of a request whose repetition gets the same answer.
    fn repeatable(&self, envelope: &Envelope, body: &[u8]) -> Option<Key> {
        let joins = matches!(envelope.message_type(), MessageType::Join | MessageType::Rejoin);
        let header = joins.then(|| envelope.header().ok()).flatten()?;
        Some(Said::key(&header.sender, header.transaction, body))
    }

    /// Steps 6 to 17, and the answer in bytes.
    async fn answer(
        self: &Arc<Self>,
        guest: &Guest,
        roles: Roles,
        envelope: &Envelope,
        header: Result<Header, Refusal>,
        repeatable: Option<Key>,
        span: &Span,
    ) -> Vec<u8> {
        // only to who may have asked the first time
        let bound = header.as_ref().is_ok_and(|header| {
            self.authority(guest).is_ok() && self.bind(&guest.peer, &header.sender).is_ok()
        });
        if let Some(answer) =
            repeatable.as_ref().filter(|_| bound).and_then(|key| self.said.to(key, self.clock.now()))
        {
            span.record("ResultCode", "as before");
            return answer;
        }
        let (result, keks) = {
            let _inside = span.enter();
            let keks = header.as_ref().ok().and_then(|header| self.keks.get(&header.sender).cloned());
            let admitted = header.and_then(|header| {
                self.authority(guest)?;
                self.admit(&guest.peer, roles, header, envelope)
            });
            (admitted, keks.unwrap_or_default())
        };
        let dialect =
            envelope.header().map(|header| self.manners.dialect(&header.sender)).unwrap_or_default();
        let result = match result {
            Ok(admitted) => self.ask_rooms(admitted, span).await,
            Err(refusal) => Err(refusal),
        };
        match &result {
            Ok(_) => span.record("ResultCode", "Success"),
            Err(refusal) => {
                span.in_scope(|| self.tell_refusal(guest, refusal));
                span.record("ResultCode", tracing::field::display(refusal))
            }
        };
        let answer = envelope.answer_in(dialect, &result, &keks);
        // what failed here may go better the next time
        let failed = matches!(&result, Err(refusal) if refusal.code == ResultCode::Other);
        if let Some(key) = repeatable.filter(|_| bound && !failed) {
            self.said.note(key, &answer, self.clock.now());
        }
        answer
    }

    /// Once per cause and minute, whoever refused.
    fn tell_refusal(&self, guest: &Guest, refusal: &Refusal) {
        let why = refusal.to_string();
        let Some(left_out) = self.patience.tell(&guest.name, &why) else { return };
        let (peer, remedy) = (&guest.name, remedy(refusal.code));
        let cn = guest.peer.common_name.as_deref().unwrap_or_default();
        match refusal.code {
            // a network that asks around for a device's home hears these
            ResultCode::MicFailed | ResultCode::UnknownDevEui | ResultCode::UnknownDevAddr => {
                tracing::info!(refusal = why, remedy, peer, cn, left_out, "refused");
            }
            _ => tracing::warn!(refusal = why, remedy, peer, cn, left_out, "refused"),
        }
    }

    /// Steps 7 to 11 of section 6.1.
    fn admit(
        &self,
        peer: &PeerIdentity,
        roles: Roles,
        header: Header,
        envelope: &Envelope,
    ) -> Result<Admitted, Refusal> {
        let message_type = envelope.message_type();
        // 7: the sender is who the transport says, and is admitted
        self.bind(peer, &header.sender)?;
        // 8: we are meant
        let foreign_join_eui = match &header.receiver {
            Party::Ns(net_id) if self.ours.net_ids.contains(net_id) => false,
            Party::Js(eui) if self.ours.join_euis.iter().any(|range| range.contains(*eui)) => false,
            // a 1.0 device's AppEUI need not name its join server
            Party::Js(_) if message_type == MessageType::Join && roles.js => true,
            receiver => return Err(not_us(receiver)),
        };
        // 9: a role here handles the message
        let nobody = |name: &str| {
            let why = format!("no role here answers {name}");
            Refusal::new(ResultCode::MalformedRequest, why)
        };
        if !roles.handle(message_type) {
            return Err(nobody(message_type.request()));
        }
        // 10, 11: objects and frame
        let request = envelope.body()?;
        if !roles.handle_form(&request) {
            return Err(nobody(&format!("this form of {}", message_type.request())));
        }
        // The rest of the steps is the rooms'. But keys of a session must not depend on a room to remember that nobody has
        // agreed to let them go.
        if let (Request::HrStart(_) | Request::XmitAppUp(_) | Request::XmitAppDown(_), Party::Ns(net_id)) =
            (&request, &header.sender)
            && !self.partners.agreement(*net_id).handover.any()
        {
            let why = format!("no handover roaming with NetID {net_id}");
            return Err(Refusal::new(ResultCode::NoRoamingAgreement, why));
        }
        if let Some(token) = &header.sender_token {
            self.tokens.note(&header.sender, &request, token);
        }
        self.manners.learn(&header.sender, header.sender_nsid);
        let place = self.place(&header.sender)?;
        let by = Deadline(self.clock.now() + time_for(&request));
        let caller = Caller { party: header.sender, receiver: header.receiver, ours: false, by };
        Ok(Admitted { caller, request, foreign_join_eui, place })
    }

    /// Whether a certificate is that of a party whom we have asked.
    fn is_party(&self, peer: &PeerIdentity, party: &Party) -> bool {
        match party {
            Party::Ns(_) => self.bind(peer, party).is_ok(),
            Party::Js(join_eui) => peer.speaks_for(&join_eui_name(*join_eui, &self.join_eui_suffix)),
            Party::As(_) => false,
        }
    }

    /// The name of the SenderID is one that the certificate may speak for, or a listed
    /// partner's certificate speaks for the sender.
    fn bind(&self, peer: &PeerIdentity, sender: &Party) -> Result<(), Refusal> {
        let refuse = |why: String| Err(Refusal::new(ResultCode::UnknownSender, why));
        let net_id = match sender {
            Party::Ns(net_id) => net_id,
            Party::As(id) => match self.applications.get(id) {
                Some(identity) if peer.speaks_for(identity) => return Ok(()),
                Some(identity) => return refuse(format!("your certificate does not speak for {identity}")),
                None => return refuse(format!("no application server {id} is listed here")),
            },
            Party::Js(_) => return refuse("a join server asks nothing".into()),
        };
        let own = net_id_name(*net_id, &self.net_id_suffix);
        let spoken_for = self.partners.partner.iter().any(|partner| {
            let for_it = partner.net_id == *net_id || partner.speaks_for.contains(net_id);
            for_it && self.is_partner(peer, partner)
        });
        if !spoken_for && !peer.speaks_for(&own) {
            let names = if peer.names.is_empty() { "nobody".into() } else { peer.names.join(", ") };
            return refuse(format!(
                "your certificate speaks for {names}, not for {own}: send your own NetID, or have your hub listed \
                 with speaks_for = [\"{net_id}\"]"
            ));
        }
        let listed = spoken_for || self.partners.partner(*net_id).is_some();
        if !listed && self.partners.default.is_none() {
            return refuse(format!(
                "NetID {net_id} is no [[roaming.partner]] here, and there is no [roaming.default] for strangers"
            ));
        }
        Ok(())
    }

    /// One more procedure for this peer, if it has not too many already.
    fn place(&self, sender: &Party) -> Result<Place, Refusal> {
        let why = format!(
            "too many requests at once: try again when one is answered, in {ANSWER_TIME:?} at the latest"
        );
        let busy = || Refusal::new(ResultCode::Other, why.clone());
        let all = self.procedures.clone().try_acquire_owned().map_err(|_| busy())?;
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let count = running.entry(sender.clone()).or_default();
        if *count >= PROCEDURES_OF_ONE {
            return Err(busy());
        }
        *count += 1;
        drop(running);
        Ok(Place { running: self.running.clone(), sender: sender.clone(), _all: all })
    }

    async fn ask_rooms(&self, admitted: Admitted, span: &Span) -> Result<Answer, Refusal> {
        let Admitted { caller, request, foreign_join_eui, place } = admitted;
        let receiver = caller.receiver.clone();
        let until = self.clock.now() + ANSWER_TIME;
        let work = self.rooms.clone().answer(caller, request);
        let work = async move {
            let answer = work.await;
            drop(place);
            answer
        };
        let answer = match timeout_at(until, tokio::spawn(work.instrument(span.clone()))).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_panicked)) => Err(Refusal::new(ResultCode::Other, "internal failure")),
            Err(_elapsed) => Err(Refusal::new(ResultCode::Other, "not done in time")),
        };
        match answer {
            Err(refusal) if foreign_join_eui && refusal.code == ResultCode::UnknownDevEui => {
                Err(not_us(&receiver))
            }
            answer => answer,
        }
    }
}

fn not_us(receiver: &Party) -> Refusal {
    Refusal::new(ResultCode::UnknownReceiver, format!("{receiver} is not here"))
}

/// How long the asker can use an answer, from now on: between networks no deadline travels.
fn time_for(request: &Request) -> Duration {
    match request {
        Request::PrStart(req) if matches!(Uplink::parse(&req.phy_payload), Ok(Uplink::Data(_))) => DATA_TIME,
        Request::XmitUp(_) | Request::XmitAppUp(_) => DATA_TIME,
        // when a downlink has to be ready only its window knows, and that is in the frame's token
        _ => JOIN_TIME,
    }
}
