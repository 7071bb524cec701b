//! The registry's name server: the zone over UDP and TCP, and whole for secondaries (RFC 5936).
//!
//! Every question looks into the store once, so what was written is served at once. Nothing is kept in memory.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hickory_net::runtime::Time;
use hickory_net::xfer::Protocol;
use hickory_proto::op::{Edns, Header, HeaderCounts, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};
use hickory_server::Server;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::{TcpListener, UdpSocket};

use super::zone::{self, Answer, Apex, Blocks};
use crate::clock::Clock;
use crate::store::Store;
use crate::store::registry::Entry;

/// A question over TCP comes within so long.
const TCP_TIME: Duration = Duration::from_secs(5);
/// Answers of one connection that wait to be sent.
const TCP_BUFFER: usize = 64;
/// What goes into a datagram, bytes (DNS flag day 2020).
const PAYLOAD: u16 = 1232;
/// Aliases of the zone that are followed for whoever asks.
const ALIASES: usize = 8;
/// Records of one message of a transfer.
const AT_ONCE: usize = 100;
/// Places that are read at once for a transfer.
const PAGE: u32 = 500;

/// The zone as it is served. Clones share it.
#[derive(Clone)]
pub struct Served(Arc<Inner>);

struct Inner {
    store: Store,
    clock: Clock,
    apex: RwLock<Arc<Apex>>,
    secondaries: Vec<IpAddr>,
}

/// A running name server; dropping it ends it.
pub struct NameServer {
    /// Where it listens, UDP and TCP.
    pub address: SocketAddr,
    _server: Server<Served>,
}

impl Served {
    /// The zone of a store. Only `secondaries` get it whole.
    pub fn new(store: Store, apex: Apex, secondaries: Vec<IpAddr>, clock: Clock) -> Served {
        let apex = RwLock::new(Arc::new(apex));
        Served(Arc::new(Inner { store, clock, apex, secondaries }))
    }

    /// The zone's own part from now on: another key, another server.
    pub fn replace(&self, apex: Apex) {
        *self.0.apex.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(apex);
    }

    /// The zone's own part.
    pub fn apex(&self) -> Arc<Apex> {
        self.0.apex.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Answer on this address, UDP and TCP.
    pub async fn listen(&self, address: SocketAddr) -> io::Result<NameServer> {
        let (udp, tcp) = bind(address).await?;
        let address = tcp.local_addr()?;
        let mut server = Server::new(self.clone());
        server.register_socket(udp);
        server.register_listener(tcp, TCP_TIME, TCP_BUFFER);
        Ok(NameServer { address, _server: server })
    }

    /// What the zone says to a question, aliases within it followed.
    pub async fn ask(&self, asked: &Name, kind: RecordType, dnssec: bool) -> Result<Answer, String> {
        let apex = self.apex();
        let mut answer: Option<Answer> = None;
        let mut asked = asked.clone();
        for _ in 0..=ALIASES {
            let Some(place) = zone::place(&asked, &apex.origin) else { break };
            let view = self.0.store.registry(move |book| Ok((book.view(&place)?, false))).await;
            let view = view.map_err(|error| error.to_string())?;
            let next = apex.answer(&asked, kind, &view, dnssec, self.0.clock.unix());
            let next = next.map_err(|error| error.to_string())?;
            let goes_on = next.next.clone();
            answer = Some(match answer {
                None => next,
                Some(before) => Answer {
                    code: next.code,
                    authoritative: before.authoritative,
                    answers: [before.answers, next.answers].concat(),
                    authorities: [before.authorities, next.authorities].concat(),
                    next: None,
                },
            });
            match goes_on {
                Some(target) => asked = target,
                None => break,
            }
        }
        Ok(answer.unwrap_or(Answer::nothing(ResponseCode::Refused)))
    }

    /// The whole zone, signed, in the order of a transfer: page by page, each given to `send`.
    async fn transfer<F, S>(&self, mut send: F) -> Result<(), String>
    where
        F: FnMut(Vec<Record>) -> S,
        S: Future<Output = Result<(), String>>,
    {
        let (apex, unix) = (self.apex(), self.0.clock.unix());
        let words = |error: hickory_proto::ProtoError| error.to_string();
        let serial = self.0.store.registry(|book| Ok((book.serial()?, false))).await;
        let serial = serial.map_err(|error| error.to_string())?;
        let mut waiting = vec![apex.soa(serial)];
        // the place whose NSEC record waits for the place behind it
        let (mut held, mut held_entries): (Vec<u8>, Vec<Entry>) = (Vec::new(), Vec::new());
        let at_apex = self.0.store.registry(|book| Ok((book.at(&[])?, false))).await;
        held_entries.extend(at_apex.map_err(|error| error.to_string())?);
        let (mut after, mut blocks) = (Vec::new(), Blocks::default());
        loop {
            let from = after.clone();
            let page = self.0.store.registry(move |book| Ok((book.zone(&from, PAGE)?, false))).await;
            let page = page.map_err(|error| error.to_string())?;
            if page.is_empty() {
                break;
            }
            for entries in page.chunk_by(|one, other| one.place == other.place) {
                let Some(first) = entries.first() else { continue };
                let mut places = blocks.before(&first.place, entries);
                places.push((first.place.clone(), entries.to_vec()));
                for (place, entries) in places {
                    let signed = apex.transferred(&held, &place, &held_entries, serial, unix);
                    waiting.extend(signed.map_err(words)?);
                    (held, held_entries) = (place, entries);
                }
                after = first.place.clone();
                if waiting.len() >= AT_ONCE {
                    send(std::mem::take(&mut waiting)).await?;
                }
            }
        }
        waiting.extend(apex.transferred(&held, &[], &held_entries, serial, unix).map_err(words)?);
        waiting.push(apex.soa(serial));
        send(waiting).await
    }

    async fn reply<R: ResponseHandler>(&self, request: &Request, mut reply: R) -> ResponseInfo {
        let mut head = Metadata::new(request.metadata.id, MessageType::Response, request.metadata.op_code);
        head.recursion_desired = request.metadata.recursion_desired;
        let edns = request.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(PAYLOAD.min(asked.max_payload().max(512)));
            edns.set_version(0);
            edns.set_dnssec_ok(asked.flags().dnssec_ok);
            edns
        });
        let answer = match question(request) {
            Ok((asked, kind, _)) if wants_all(kind) && asked == self.apex().origin => {
                return self.whole(request, head, reply).await;
            }
            Ok((asked, kind, DNSClass::IN)) if !wants_all(kind) => {
                let dnssec = edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
                self.ask(&asked, kind, dnssec).await.unwrap_or_else(|error| {
                    tracing::warn!(name = %asked, %kind, error, "a question could not be answered");
                    Answer::nothing(ResponseCode::ServFail)
                })
            }
            Ok(_) => Answer::nothing(ResponseCode::Refused),
            Err(code) => Answer::nothing(code),
        };
        head.response_code = answer.code;
        head.authoritative = answer.authoritative;
        let mut builder = MessageResponseBuilder::from_message_request(request);
        if let Some(edns) = &edns {
            builder.edns(edns);
        }
        let message = builder.build(head, &answer.answers, &answer.authorities, [], []);
        reply.send_response(message).await.unwrap_or(info(head))
    }

    /// A transfer, to secondaries that are listed, over TCP.
    async fn whole<R: ResponseHandler>(
        &self,
        request: &Request,
        mut head: Metadata,
        mut reply: R,
    ) -> ResponseInfo {
        let asks = request.src().ip().to_canonical();
        if !self.0.secondaries.contains(&asks) || request.protocol() != Protocol::Tcp {
            tracing::warn!(from = %request.src(), "the zone was asked for whole by somebody who is not listed in secondaries");
            head.response_code = ResponseCode::Refused;
            let answer = MessageResponseBuilder::from_message_request(request).build_no_records(head);
            return reply.send_response(answer).await.unwrap_or(info(head));
        }
        head.authoritative = true;
        let sent = self.transfer(|records: Vec<Record>| {
            let mut reply = reply.clone();
            async move {
                let builder = MessageResponseBuilder::from_message_request(request);
                let message = builder.build(head, &records, [], [], []);
                reply.send_response(message).await.map(|_| ()).map_err(|error| error.to_string())
            }
        });
        if let Err(error) = sent.await {
            tracing::warn!(to = %request.src(), error, "a transfer of the zone was broken off");
        }
        info(head)
    }
}

/// What is asked for, if it is a question.
fn question(request: &Request) -> Result<(Name, RecordType, DNSClass), ResponseCode> {
    let query = request.request_info().map_err(|_| ResponseCode::FormErr)?.query;
    match request.metadata.op_code {
        OpCode::Query => Ok((query.name().clone().into(), query.query_type(), query.query_class())),
        _ => Err(ResponseCode::NotImp),
    }
}

fn wants_all(kind: RecordType) -> bool {
    matches!(kind, RecordType::AXFR | RecordType::IXFR)
}

fn info(head: Metadata) -> ResponseInfo {
    ResponseInfo::from(Header { metadata: head, counts: HeaderCounts::default() })
}

/// UDP and TCP at one address. Where the system chooses the port, one that is free for both is looked for.
pub async fn bind(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut tries = if address.port() == 0 { 20 } else { 1 };
    loop {
        tries -= 1;
        let tcp = TcpListener::bind(address).await?;
        match UdpSocket::bind(tcp.local_addr()?).await {
            Ok(udp) => return Ok((udp, tcp)),
            Err(error) if tries == 0 => return Err(error),
            Err(_) => {}
        }
    }
}

impl RequestHandler for Served {
    fn handle_request<'s, 'r, 'f, R, T>(
        &'s self,
        request: &'r Request,
        reply: R,
    ) -> Pin<Box<dyn Future<Output = ResponseInfo> + Send + 'f>>
    where
        R: 'f + ResponseHandler,
        T: 'f + Time,
        's: 'f,
        'r: 'f,
        Self: 'f,
    {
        Box::pin(self.reply(request, reply))
    }
}
