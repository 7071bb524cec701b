//! An authoritative, signed DNS zone in this process, on a loopback port of its own.
//!
//! For the demo and for tests. One zone, signed at start with a fresh ECDSA P-256 key that signs keys and
//! records alike; denials use NSEC. It can be made to misbehave: unsigned, signed by a stranger, slow, silent.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hickory_net::runtime::Time;
use hickory_proto::dnssec::crypto::EcdsaSigningKey;
use hickory_proto::dnssec::rdata::DNSKEY;
use hickory_proto::dnssec::{Algorithm, DnsSecError, DnssecSigner, SigningKey};
use hickory_proto::op::{Header, HeaderCounts, MessageType, Metadata, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, SOA};
use hickory_proto::rr::{LowerName, Name, RData, Record, RecordSet, RecordType, RrKey};
use hickory_server::Server;
use hickory_server::dnssec::NxProofKind;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, MessageResponseBuilder, ZoneHandler, ZoneType};
use rustls_pki_types::PrivatePkcs8KeyDer;

use crate::clock::Clock;
use crate::discovery::resolve::timer::{self, Runtime};
use crate::registry;

/// What stands at a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// A or AAAA.
    Address(IpAddr),
    /// Another name for it, with or without a final dot.
    Cname(String),
    /// Anything else.
    Other(RData),
}

/// What the zone shall be.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The apex: `iotroam.example`.
    pub origin: String,
    /// Full names and what stands there.
    pub records: Vec<(String, Data)>,
    /// TTL of the records, in seconds.
    pub ttl: u32,
    /// SOA minimum: TTL of denials, in seconds.
    pub negative_ttl: u32,
    /// How long signatures hold.
    pub signed_for: Duration,
    /// A name below the apex that is delegated without a DS record: everything there is insecure, provably.
    pub insecure_child: Option<String>,
    /// The server's address; it finds itself a port.
    pub listen: Ipv4Addr,
}

impl Plan {
    /// A zone with these records, a TTL of 60 s, denials for 30 s and signatures for a week.
    pub fn new(origin: &str, records: Vec<(String, Data)>) -> Plan {
        Plan {
            origin: origin.to_owned(),
            records,
            ttl: 60,
            negative_ttl: 30,
            signed_for: Duration::from_secs(7 * 86_400),
            insecure_child: None,
            listen: Ipv4Addr::LOCALHOST,
        }
    }
}

/// How the zone is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Signing {
    /// By the key of the trust anchor.
    #[default]
    Right,
    /// By another key: bogus to everyone who holds the trust anchor.
    Forged,
    /// Not at all: bogus as well, unless the reader does not look at signatures.
    Absent,
}

/// How the server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Manner {
    /// At once.
    #[default]
    Prompt,
    /// After this time.
    Slow(Duration),
    /// SERVFAIL.
    Failing,
    /// The same, to questions of one kind alone.
    FailingOn(RecordType),
    /// Never.
    Silent,
}

/// Why there is no zone.
#[derive(Debug, thiserror::Error)]
pub enum ZoneError {
    /// A record's name or target.
    #[error("{0:?} is no name of the DNS: {1}")]
    Name(String, #[source] hickory_proto::ProtoError),
    /// What the server's library says about the records.
    #[error("the zone is refused: {0}")]
    Content(String),
    /// Making the key, or signing.
    #[error("signing the zone: {0}")]
    Sign(#[from] DnsSecError),
    /// No port.
    #[error("no port for the zone")]
    Bind(#[from] io::Error),
}

/// A running server. Dropping it ends it.
pub struct Zone {
    /// Where it listens, UDP and TCP.
    pub addr: SocketAddr,
    /// Its DNSKEY in presentation form: the file that `[discovery] trust_anchor` names.
    pub trust_anchor: String,
    shared: Arc<Shared>,
    _server: Server<Handler>,
}

struct Shared {
    clock: Clock,
    key: Vec<u8>,
    state: Mutex<State>,
}

struct State {
    plan: Plan,
    signing: Signing,
    manner: Manner,
    serial: u32,
    tables: Arc<Tables>,
    log: Vec<(String, RecordType)>,
}

#[derive(Default)]
struct Tables {
    main: Catalog,
    origin: LowerName,
    /// The insecure child, which must not share a catalog with its parent: DS would be asked of the child.
    child: Option<(LowerName, Catalog)>,
}

impl Zone {
    /// Sign and serve.
    pub async fn start(plan: Plan, clock: &Clock) -> Result<Zone, ZoneError> {
        let listen = plan.listen;
        let key = new_key()?;
        let public = EcdsaSigningKey::from_pkcs8(&key, Algorithm::ECDSAP256SHA256)?.to_public_key()?;
        let origin = name(&plan.origin)?;
        let trust_anchor = format!("{origin} 3600 IN DNSKEY {}\n", DNSKEY::from_key(&public));
        let shared = Arc::new(Shared {
            clock: clock.clone(),
            key: key.secret_pkcs8_der().to_vec(),
            state: Mutex::new(State {
                plan,
                signing: Signing::Right,
                manner: Manner::Prompt,
                serial: 1,
                tables: Arc::default(),
                log: Vec::new(),
            }),
        });
        shared.change(|_| ())?;
        let (udp, tcp) = registry::server::bind((listen, 0).into()).await?;
        let addr = udp.local_addr()?;
        let mut server = Server::new(Handler(shared.clone()));
        server.register_socket(udp);
        server.register_listener(tcp, Duration::from_secs(5), 32);
        Ok(Zone { addr, trust_anchor, shared, _server: server })
    }

    /// Publish other records from now on.
    pub fn set_records(&self, records: Vec<(String, Data)>) -> Result<(), ZoneError> {
        self.shared.change(|state| state.plan.records = records)
    }

    /// Sign otherwise from now on.
    pub fn set_signing(&self, signing: Signing) -> Result<(), ZoneError> {
        self.shared.change(|state| state.signing = signing)
    }

    /// Sign again, as of now.
    pub fn sign_again(&self) -> Result<(), ZoneError> {
        self.shared.change(|_| ())
    }

    /// Answer otherwise from now on.
    pub fn set_manner(&self, manner: Manner) {
        self.shared.state().manner = manner;
    }

    /// Everything that was asked since the start or the last [`Zone::forget_queries`]: lower-case name without final dot, record type.
    pub fn queries(&self) -> Vec<(String, String)> {
        self.shared.state().log.iter().map(|(name, kind)| (name.clone(), kind.to_string())).collect()
    }

    /// How often a name was asked for, whatever the record type.
    pub fn asked_for(&self, name: &str) -> usize {
        self.shared.state().log.iter().filter(|(asked, _)| asked == name).count()
    }

    /// Start counting anew.
    pub fn forget_queries(&self) {
        self.shared.state().log.clear();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, how: impl FnOnce(&mut State)) -> Result<(), ZoneError> {
        let mut state = self.state();
        how(&mut state);
        state.serial = state.serial.wrapping_add(1);
        state.tables = Arc::new(self.tables(&state)?);
        Ok(())
    }

    fn tables(&self, state: &State) -> Result<Tables, ZoneError> {
        let plan = &state.plan;
        let origin = name(&plan.origin)?;
        let child = plan.insecure_child.as_deref().map(name).transpose()?;
        let mut main = Content::new(origin.clone(), plan, state.serial)?;
        let mut below = child.clone().map(|child| Content::new(child, plan, state.serial)).transpose()?;
        if let Some(child) = &child {
            main.add(child.clone(), RData::NS(NS(host(&origin)?)));
        }
        for (owner, data) in &plan.records {
            let owner = name(owner)?;
            let data = match data {
                Data::Address(IpAddr::V4(address)) => RData::A(A(*address)),
                Data::Address(IpAddr::V6(address)) => RData::AAAA(AAAA(*address)),
                Data::Cname(target) => RData::CNAME(CNAME(name(target)?)),
                Data::Other(data) => data.clone(),
            };
            match &mut below {
                Some(below) if below.origin.zone_of(&owner) => below.add(owner, data),
                _ => main.add(owner, data),
            }
        }
        let key = match state.signing {
            Signing::Right => Some(PrivatePkcs8KeyDer::from(self.key.clone())),
            Signing::Forged => Some(new_key()?),
            Signing::Absent => None,
        };
        let main = main.catalog(key.map(|key| (key, plan.signed_for)), &self.clock)?;
        let child = below.map(|below| {
            Ok::<_, ZoneError>((below.origin.clone().into(), below.catalog(None, &self.clock)?))
        });
        Ok(Tables { main, origin: origin.into(), child: child.transpose()? })
    }
}

/// The records of one zone before it is served.
struct Content {
    origin: Name,
    ttl: u32,
    serial: u32,
    records: BTreeMap<RrKey, RecordSet>,
}

impl Content {
    fn new(origin: Name, plan: &Plan, serial: u32) -> Result<Content, ZoneError> {
        let mut content = Content { origin: origin.clone(), ttl: plan.ttl, serial, records: BTreeMap::new() };
        let ns = host(&origin)?;
        content.add(
            origin.clone(),
            RData::SOA(SOA::new(ns.clone(), ns.clone(), serial, 3600, 600, 86_400, plan.negative_ttl)),
        );
        content.add(origin, RData::NS(NS(ns.clone())));
        content.add(ns, RData::A(A(Ipv4Addr::LOCALHOST)));
        Ok(content)
    }

    fn add(&mut self, owner: Name, data: RData) {
        let kind = data.record_type();
        let set = self
            .records
            .entry(RrKey::new(owner.clone().into(), kind))
            .or_insert_with(|| RecordSet::new(owner.clone(), kind, self.serial));
        set.insert(Record::from_rdata(owner, self.ttl, data), self.serial);
    }

    fn catalog(
        self,
        key: Option<(PrivatePkcs8KeyDer<'static>, Duration)>,
        clock: &Clock,
    ) -> Result<Catalog, ZoneError> {
        let proof = key.is_some().then_some(NxProofKind::Nsec);
        let mut zone = InMemoryZoneHandler::<Runtime>::new(
            self.origin.clone(),
            self.records,
            ZoneType::Primary,
            AxfrPolicy::Deny,
            proof,
        )
        .map_err(ZoneError::Content)?;
        if let Some((key, signed_for)) = key {
            let key = EcdsaSigningKey::from_pkcs8(&key, Algorithm::ECDSAP256SHA256)?;
            let dnskey = DNSKEY::from_key(&key.to_public_key()?);
            let signer = DnssecSigner::new(dnskey, Box::new(key), self.origin.clone(), signed_for + BACK);
            zone.add_zone_signing_key_mut(signer)?;
            timer::now_at(clock.clone(), BACK.as_secs(), || zone.secure_zone_mut())?;
        }
        let mut catalog = Catalog::new();
        catalog.upsert(self.origin.into(), vec![Arc::new(zone) as Arc<dyn ZoneHandler>]);
        Ok(catalog)
    }
}

/// Signatures begin a little in the past, for readers whose clocks are behind.
const BACK: Duration = Duration::from_secs(300);

fn new_key() -> Result<PrivatePkcs8KeyDer<'static>, DnsSecError> {
    EcdsaSigningKey::generate_pkcs8(Algorithm::ECDSAP256SHA256)
}

fn name(text: &str) -> Result<Name, ZoneError> {
    let mut name =
        Name::from_ascii(text.to_ascii_lowercase()).map_err(|err| ZoneError::Name(text.to_owned(), err))?;
    name.set_fqdn(true);
    Ok(name)
}

fn host(origin: &Name) -> Result<Name, ZoneError> {
    origin.prepend_label("ns").map_err(|err| ZoneError::Name(format!("ns.{origin}"), err))
}

struct Handler(Arc<Shared>);

impl RequestHandler for Handler {
    fn handle_request<'s, 'r, 'f, R, T>(
        &'s self,
        request: &'r Request,
        mut reply: R,
    ) -> Pin<Box<dyn Future<Output = ResponseInfo> + Send + 'f>>
    where
        R: 'f + ResponseHandler,
        T: 'f + Time,
        's: 'f,
        'r: 'f,
        Self: 'f,
    {
        Box::pin(async move {
            let query = request.request_info().ok().map(|info| info.query);
            let (manner, tables) = {
                let mut state = self.0.state();
                if let Some(query) = query {
                    let name = query.name().to_string().to_ascii_lowercase();
                    state.log.push((name.trim_end_matches('.').to_owned(), query.query_type()));
                }
                (state.manner, state.tables.clone())
            };
            let mut failed =
                Metadata::new(request.metadata.id, MessageType::Response, request.metadata.op_code);
            failed.response_code = ResponseCode::ServFail;
            let nothing = ResponseInfo::from(Header { metadata: failed, counts: HeaderCounts::default() });
            let is_asked = |kind| query.is_some_and(|query| query.query_type() == kind);
            match manner {
                Manner::Prompt => (),
                Manner::FailingOn(kind) if !is_asked(kind) => (),
                Manner::Slow(time) => self.0.clock.sleep(time).await,
                Manner::Silent => return nothing,
                Manner::Failing | Manner::FailingOn(_) => {
                    let answer =
                        MessageResponseBuilder::from_message_request(request).build_no_records(failed);
                    return reply.send_response(answer).await.unwrap_or(nothing);
                }
            }
            // DS at the apex is the parent's to answer, and the parent is not here
            let parents = query
                .is_some_and(|query| query.query_type() == RecordType::DS && *query.name() == tables.origin);
            if parents {
                failed.response_code = ResponseCode::Refused;
                let answer = MessageResponseBuilder::from_message_request(request).build_no_records(failed);
                return reply.send_response(answer).await.unwrap_or(nothing);
            }
            let below = tables.child.as_ref().filter(|(origin, _)| {
                query.is_some_and(|query| {
                    origin.zone_of(query.name())
                        && !(query.query_type() == RecordType::DS && query.name() == origin)
                })
            });
            match below {
                Some((_, catalog)) => catalog.handle_request::<R, T>(request, reply).await,
                None => tables.main.handle_request::<R, T>(request, reply).await,
            }
        })
    }
}
