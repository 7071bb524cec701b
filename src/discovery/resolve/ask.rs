//! Asking the DNS for records, and weighing the proof of every one that is used.
//!
//! Validation is `hickory`'s, on our clock and our trust anchors. Called by [`super`] only.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{Stream, future, stream};
use hickory_net::dnssec::DnssecDnsHandle;
use hickory_net::xfer::{DnsHandle, FirstAnswer, RetryDnsHandle};
use hickory_net::{DnsError, NetError, NoRecords};
use hickory_proto::dnssec::rdata::DNSSECRData;
use hickory_proto::dnssec::{Proof, TrustAnchors};
use hickory_proto::op::{DnsRequest, DnsRequestOptions, DnsResponse, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_proto::serialize::txt::trust_anchor;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverOpts};
use hickory_resolver::{ConnectionProvider, NameServerPool, PoolContext, TlsConfig};

use crate::clock::{Clock, Instant};
use crate::tls::{Roots, TlsError, service_config};

use super::super::cache::{Security, Trouble, Worth};
use super::config::{Config, Dnssec, Server};
use super::denial::Denials;
use super::timer::Runtime;

/// Why there is no resolver: the operator's move.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The file.
    #[error("read [discovery] trust_anchor {path}")]
    Read {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// What stands in it.
    #[error("[discovery] trust_anchor {path} has to hold DNSKEY records, one on a line: {why}")]
    TrustAnchor {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// `/etc/resolv.conf`.
    #[error("[discovery] resolvers has \"system\", but /etc/resolv.conf names none: {0}")]
    System(String),
    /// None at all.
    #[error("[discovery] resolvers is empty")]
    NoServer,
    /// The AD bit of a distant resolver proves nothing: anyone on the way can set it.
    #[error("[discovery] trust_ad wants resolvers on this machine or over TLS, and {0} is neither")]
    DistantAd(IpAddr),
    /// Of resolvers over TLS.
    #[error("[discovery] tls_roots: {0}")]
    Roots(TlsError),
    /// The library.
    #[error("set up the resolver")]
    Library(#[from] NetError),
}

/// CNAMEs on the way from a name to its records.
const MOST_STEPS: usize = 8;
/// Questions to one server: this long, then once more.
const ONE_TRY: Duration = Duration::from_millis(1500);
pub(super) const BOGUS: &str = "its signatures have ended or do not fit the trust anchor; look at the clock and at \
                     [discovery] trust_anchor, then ask the zone's owner";

/// The way to the resolvers.
pub(super) enum Asker {
    /// We validate.
    Validating(Box<Validating>),
    /// Nobody does.
    Plain(Box<Plain>),
    /// The resolver on this machine, or at the other end of TLS, does.
    Trusting(Vec<Upstream>, Arc<PoolContext>),
}

/// A resolver that is asked.
pub(super) struct Upstream {
    at: SocketAddr,
    /// The name in its certificate, where it is asked over TLS.
    tls: Option<Arc<str>>,
}

impl Upstream {
    /// Nobody on the way can change what it says.
    fn is_safe(&self) -> bool {
        self.at.ip().is_loopback() || self.tls.is_some()
    }

    /// In the order in which they are tried.
    fn connections(&self) -> Vec<ConnectionConfig> {
        let mut ways = match &self.tls {
            Some(name) => vec![ConnectionConfig::tls(name.clone())],
            None => vec![ConnectionConfig::udp(), ConnectionConfig::tcp()],
        };
        ways.iter_mut().for_each(|way| way.port = self.at.port());
        ways
    }
}

type Plain = RetryDnsHandle<NameServerPool<Runtime>>;

pub(super) struct Validating {
    handle: DnssecDnsHandle<Keys>,
    keys: Keys,
    denials: Mutex<Denials>,
}

/// Records of one kind, and what they are worth.
pub(super) struct Records {
    pub data: Vec<RData>,
    /// Where CNAMEs led, in order; no final dots.
    pub by: Vec<String>,
    pub worth: Worth,
}

/// One reply, checked.
struct Reply {
    answers: Vec<Record>,
    authorities: Vec<Record>,
    /// Where the records do not carry their own proof.
    security: Option<Security>,
    /// The proof of a denial failed: only a CNAME that is signed by itself may be used.
    doubtful: bool,
}

impl Asker {
    pub(super) fn new(config: &Config, clock: Clock) -> Result<Asker, SetupError> {
        let servers = servers(&config.resolvers)?;
        let mut options = ResolverOpts::default();
        options.ndots = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.timeout = ONE_TRY;
        options.attempts = 1;
        options.validate = config.dnssec != Dnssec::Off;
        let mut tls = TlsConfig::new()?;
        if servers.iter().any(|server| server.tls.is_some()) {
            let roots = Roots::load(&config.tls_roots).map_err(SetupError::Roots)?;
            tls.config = service_config(&roots, None, &clock).map_err(SetupError::Roots)?;
        }
        let context = Arc::new(PoolContext::new(options, tls));
        if config.dnssec != Dnssec::Off && config.trust_ad {
            if let Some(distant) = servers.iter().find(|server| !server.is_safe()) {
                return Err(SetupError::DistantAd(distant.at.ip()));
            }
            return Ok(Asker::Trusting(servers, context));
        }
        let servers =
            servers.iter().map(|server| NameServerConfig::new(server.at.ip(), true, server.connections()));
        let pool = NameServerPool::from_config(servers, context, Runtime::default());
        let plain = RetryDnsHandle::new(pool, 1);
        if config.dnssec == Dnssec::Off {
            return Ok(Asker::Plain(Box::new(plain)));
        }
        let keys = Keys { handle: plain, clock, kept: Arc::default() };
        // Its cache of proofs does not look at the signatures' end again: we have our own.
        let handle = DnssecDnsHandle::with_trust_anchor(keys.clone(), Arc::new(anchors(config)?))
            .validation_cache_size(1)
            .positive_validation_ttl(Duration::ZERO..=Duration::ZERO)
            .negative_validation_ttl(Duration::ZERO..=Duration::ZERO);
        Ok(Asker::Validating(Box::new(Validating { handle, keys, denials: Mutex::default() })))
    }

    pub(super) fn forget_keys(&self) {
        if let Asker::Validating(validating) = self {
            validating.keys.forget();
            validating.denials().clear();
        }
    }

    /// What earlier proofs say of a name that nobody has asked for.
    pub(super) fn denied(&self, name: &Name) -> Option<Trouble> {
        let Asker::Validating(validating) = self else { return None };
        let clock = &validating.keys.clock;
        validating.denials().deny(name, clock.now(), clock.unix())
    }

    /// The records of one kind, CNAMEs followed.
    pub(super) async fn records(&self, mut at: Name, kind: RecordType) -> Result<Records, Trouble> {
        let mut worth = Worth::UNTOUCHED;
        let mut by = Vec::new();
        let mut seen = vec![at.clone()];
        for _ in 0..MOST_STEPS {
            let reply = self.reply(at.clone(), kind).await?;
            let asked = at.clone();
            loop {
                let records: Vec<&Record> = reply.records(&at, kind).collect();
                if !records.is_empty() && !reply.doubtful {
                    worth = worth.and(self.weigh(&reply, &at, &records)?);
                    let data = records.iter().map(|record| record.data.clone()).collect();
                    return Ok(Records { data, by, worth });
                }
                let cname = reply.records(&at, RecordType::CNAME).next();
                let Some((record, RData::CNAME(target))) = cname.map(|record| (record, &record.data)) else {
                    break;
                };
                let target = if reply.doubtful && !reply.signed_as_it_stands(&at) {
                    // of a wildcard: asked for by itself, it comes with its own proof
                    let (target, alone) = self.alias(&at).await?;
                    worth = worth.and(alone);
                    target
                } else {
                    worth = worth.and(self.weigh(&reply, &at, &[record])?);
                    target.0.clone()
                };
                if seen.contains(&target) || seen.len() > MOST_STEPS {
                    return Err(Trouble::Failed(format!("its CNAMEs lead nowhere, by way of {target}")));
                }
                at = target;
                by.push(text(&at));
                seen.push(at.clone());
            }
            if at == asked {
                if reply.doubtful {
                    return Err(Trouble::Bogus(BOGUS.to_owned()));
                }
                return Err(Trouble::Missing(worth.and(self.denial(&reply, &at))));
            }
        }
        Err(Trouble::Failed("too many CNAMEs".to_owned()))
    }

    /// Where the CNAME at a name leads, asked for by itself.
    async fn alias(&self, at: &Name) -> Result<(Name, Worth), Trouble> {
        let reply = self.reply(at.clone(), RecordType::CNAME).await?;
        let cname = reply.records(at, RecordType::CNAME).next().filter(|_| !reply.doubtful);
        match cname.map(|record| (record, &record.data)) {
            Some((record, RData::CNAME(target))) => {
                Ok((target.0.clone(), self.weigh(&reply, at, &[record])?))
            }
            _ => Err(Trouble::Bogus(BOGUS.to_owned())),
        }
    }

    /// What the records that were just used are worth.
    fn weigh(&self, reply: &Reply, at: &Name, used: &[&Record]) -> Result<Worth, Trouble> {
        let mut worth = Worth::UNTOUCHED;
        for record in used {
            let security = reply.security.unwrap_or(match record.proof {
                Proof::Secure => Security::Secure,
                Proof::Insecure => Security::Insecure,
                Proof::Bogus | Proof::Indeterminate => Security::Bogus,
            });
            if security == Security::Bogus {
                return Err(Trouble::Bogus(BOGUS.to_owned()));
            }
            let ttl = Duration::from_secs(record.ttl.into());
            worth = worth.and(Worth { security, ttl, signed_until: None });
        }
        if worth.security == Security::Secure {
            worth.signed_until = earlier(signatures_end(&reply.answers), self.keys_end(at));
        }
        Ok(worth)
    }

    /// What a reply without records proves, and for how long.
    fn denial(&self, reply: &Reply, at: &Name) -> Worth {
        let proven = reply.authorities.iter().any(|record| {
            record.proof == Proof::Secure
                && matches!(record.data, RData::DNSSEC(DNSSECRData::NSEC(_) | DNSSECRData::NSEC3(_)))
        });
        let security = reply.security.unwrap_or(if proven { Security::Secure } else { Security::Insecure });
        let soa = reply.authorities.iter().find_map(|record| match &record.data {
            RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
            _ => None,
        });
        let end = proven.then(|| earlier(signatures_end(&reply.authorities), self.keys_end(at))).flatten();
        let ttl = Duration::from_secs(soa.unwrap_or(0).into());
        if let Asker::Validating(validating) = self
            && proven
        {
            validating.denials().learn(&reply.authorities, ttl, end, validating.keys.clock.now());
        }
        Worth { security, ttl, signed_until: end }
    }

    fn keys_end(&self, at: &Name) -> Option<u64> {
        match self {
            Asker::Validating(validating) => validating.keys.end(at),
            Asker::Plain(_) | Asker::Trusting(..) => None,
        }
    }

    async fn reply(&self, name: Name, kind: RecordType) -> Result<Reply, Trouble> {
        let query = Query::query(name, kind);
        let mut options = DnsRequestOptions::default();
        let (result, security) = match self {
            Asker::Plain(handle) => (handle.lookup(query, options).first_answer().await, Some(Security::Off)),
            Asker::Validating(validating) => {
                options.edns_set_dnssec_ok = true;
                (validating.handle.lookup(query, options).first_answer().await, None)
            }
            Asker::Trusting(servers, context) => {
                options.edns_set_dnssec_ok = true;
                let mut request = DnsRequest::from_query(query, options);
                request.metadata.authentic_data = true;
                let result = ask_here(servers, context, request).await;
                let ad = result.as_ref().is_ok_and(|response| response.authentic_data);
                (result, Some(if ad { Security::Secure } else { Security::Insecure }))
            }
        };
        match result {
            Ok(response) if refused(response.response_code) => {
                Err(Trouble::Failed(format!("the resolver answers {}", response.response_code)))
            }
            Ok(response) => Ok(Reply::new(response, security)),
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => Ok(Reply {
                answers: Vec::new(),
                authorities: none.authorities.as_deref().unwrap_or_default().to_vec(),
                security,
                doubtful: false,
            }),
            Err(NetError::Dns(DnsError::Nsec { response, proof, .. })) => {
                // A CNAME whose target has no such record comes with the proof about the target alone,
                // which hickory takes for a failed proof about the name asked.
                let doubtful = proof != Proof::Insecure || !response.answers.is_empty();
                Ok(Reply { doubtful, ..Reply::new(*response, security) })
            }
            Err(NetError::Dns(DnsError::DnssecBogus)) => Err(Trouble::Bogus(BOGUS.to_owned())),
            Err(NetError::Dns(DnsError::ResponseCode(code))) => {
                Err(Trouble::Failed(format!("the resolver answers {code}")))
            }
            Err(NetError::Timeout) => Err(Trouble::Timeout),
            Err(err) => Err(Trouble::Failed(err.to_string())),
        }
    }
}

impl Validating {
    fn denials(&self) -> MutexGuard<'_, Denials> {
        self.denials.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reply {
    fn new(response: DnsResponse, security: Option<Security>) -> Reply {
        let message = response.into_message();
        Reply { answers: message.answers, authorities: message.authorities, security, doubtful: false }
    }

    fn records<'a>(&'a self, at: &'a Name, kind: RecordType) -> impl Iterator<Item = &'a Record> {
        self.answers.iter().filter(move |record| record.name == *at && record.record_type() == kind)
    }

    /// The CNAME at this name is signed, and not by way of a wildcard, which would need a proof beside it.
    fn signed_as_it_stands(&self, at: &Name) -> bool {
        self.answers.iter().any(|record| match &record.data {
            RData::DNSSEC(DNSSECRData::RRSIG(rrsig)) => {
                record.name == *at
                    && record.proof == Proof::Secure
                    && rrsig.input().type_covered == RecordType::CNAME
                    && rrsig.input().num_labels == at.num_labels()
            }
            _ => false,
        })
    }
}

fn refused(code: ResponseCode) -> bool {
    !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain)
}

fn earlier(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// When the first of the signatures that were used ends.
fn signatures_end(records: &[Record]) -> Option<u64> {
    let ends = records.iter().filter(|record| record.proof == Proof::Secure).filter_map(expiration);
    ends.min()
}

fn expiration(record: &Record) -> Option<u64> {
    match &record.data {
        RData::DNSSEC(DNSSECRData::RRSIG(rrsig)) => Some(rrsig.input().sig_expiration.get().into()),
        _ => None,
    }
}

/// A name as people write it: lower case, no final dot.
pub(super) fn text(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}

/// The addresses of the configured resolvers.
fn servers(resolvers: &[Server]) -> Result<Vec<Upstream>, SetupError> {
    let plain = |at| Upstream { at, tls: None };
    let mut servers = Vec::new();
    for resolver in resolvers {
        match resolver {
            Server::At(address) => servers.push(plain(*address)),
            Server::Tls { at, name } => servers.push(Upstream { at: *at, tls: Some(name.as_str().into()) }),
            Server::System => {
                let (system, _) = hickory_resolver::system_conf::read_system_conf()
                    .map_err(|err| SetupError::System(err.to_string()))?;
                servers
                    .extend(system.name_servers.iter().map(|server| plain(SocketAddr::new(server.ip, 53))));
            }
        }
    }
    if servers.is_empty() { Err(SetupError::NoServer) } else { Ok(servers) }
}

/// The root's keys, and the configured ones.
fn anchors(config: &Config) -> Result<TrustAnchors, SetupError> {
    let mut anchors = TrustAnchors::default();
    let Some(path) = &config.trust_anchor else {
        return Ok(anchors);
    };
    let file =
        std::fs::read_to_string(path).map_err(|source| SetupError::Read { path: path.clone(), source })?;
    let wrong = |why: String| SetupError::TrustAnchor { path: path.clone(), why };
    let entries = trust_anchor::Parser::new(file).parse().map_err(|err| wrong(err.to_string()))?;
    if entries.is_empty() {
        return Err(wrong("it holds none".to_owned()));
    }
    for entry in &entries {
        let trust_anchor::Entry::DNSKEY(record) = entry else {
            continue;
        };
        anchors.insert_with_name(record.data().public_key(), record.name().into());
    }
    Ok(anchors)
}

/// Ask the validating resolver that is trusted, for its AD bit, which the pool would drop from a denial.
async fn ask_here(
    servers: &[Upstream],
    context: &Arc<PoolContext>,
    request: DnsRequest,
) -> Result<DnsResponse, NetError> {
    let mut last = Err(NetError::NoConnections);
    // the connections' tasks end with it
    let runtime = Runtime::default();
    for server in servers {
        for way in server.connections() {
            let connection = runtime.new_connection(server.at.ip(), &way, context)?.await;
            last = match connection {
                Ok(connection) => connection.send(request.clone()).first_answer().await,
                Err(err) => Err(err),
            };
            match &last {
                Ok(response) if response.truncation => (),
                Ok(_) => return last,
                Err(_) => break,
            }
        }
    }
    last
}

/// What every validation asks for again: the keys of the zones on the way from a trust anchor, and where zones begin.
#[derive(Clone)]
struct Keys {
    handle: Plain,
    clock: Clock,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    /// DNSKEY, DS and NS replies. Raw: each validation checks them again.
    replies: BTreeMap<(Name, RecordType), (DnsResponse, Instant)>,
    /// Names and the apex of their zone, as the SOA of a denial told: no zone begins in between.
    apexes: BTreeMap<Name, (Name, Instant)>,
}

const KEYS_KEPT_FOR: Duration = Duration::from_secs(300);
const APEXES_KEPT_FOR: Duration = Duration::from_secs(60);
const MOST_KEPT: usize = 512;

impl Keys {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self) {
        *self.kept() = Kept::default();
    }

    /// When the first signature over the keys above a name ends; of several over one set, the last counts.
    fn end(&self, at: &Name) -> Option<u64> {
        let kept = self.kept();
        let above =
            kept.replies.iter().filter(|((name, kind), _)| *kind != RecordType::NS && name.zone_of(at));
        above.filter_map(|(_, (response, _))| response.answers.iter().filter_map(expiration).max()).min()
    }
}

impl Kept {
    fn reply(&self, query: &Query, now: Instant) -> Option<Result<DnsResponse, NetError>> {
        let (name, kind) = (query.name().to_lowercase(), query.query_type());
        // To prove that a zone is unsigned, hickory looks for its apex label by label, and our names have
        // 16 or 32 of them. These are hints that it does not validate: whatever it finds, the DS record
        // that is missing there has to be denied with a proof.
        let inside = |(below, (apex, until)): (&Name, &(Name, Instant))| {
            *until > now && name != *apex && apex.zone_of(&name) && name.zone_of(below)
        };
        if kind == RecordType::NS && self.apexes.iter().any(inside) {
            return Some(Err(NoRecords::new(query.clone(), ResponseCode::NoError).into()));
        }
        let (response, until) = self.replies.get(&(name, kind))?;
        (*until > now).then(|| Ok(response.clone()))
    }

    fn keep(&mut self, query: &Query, result: &Result<DnsResponse, NetError>, now: Instant) {
        let (name, kind) = (query.name().to_lowercase(), query.query_type());
        match result {
            Ok(response) if !response.answers.is_empty() => {
                let ttl = response.answers.iter().map(|record| record.ttl).min().unwrap_or(0);
                let until = now + KEYS_KEPT_FOR.min(Duration::from_secs(ttl.into()));
                make_room(&mut self.replies);
                self.replies.insert((name, kind), (response.clone(), until));
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(NoRecords { soa: Some(soa), .. })))
                if kind == RecordType::NS =>
            {
                make_room(&mut self.apexes);
                self.apexes.insert(name, (soa.name.to_lowercase(), now + APEXES_KEPT_FOR));
            }
            _ => (),
        }
    }
}

fn make_room<K: Ord, V>(map: &mut BTreeMap<K, V>) {
    if map.len() >= MOST_KEPT {
        map.clear();
    }
}

impl DnsHandle for Keys {
    type Response = Pin<Box<dyn Stream<Item = Result<DnsResponse, NetError>> + Send>>;
    type Runtime = Runtime;

    fn send(&self, request: DnsRequest) -> Self::Response {
        let repeated = |query: &&Query| {
            matches!(query.query_type(), RecordType::DNSKEY | RecordType::DS | RecordType::NS)
        };
        let Some(query) = request.queries.first().filter(repeated).cloned() else {
            return Box::pin(self.handle.send(request));
        };
        if let Some(reply) = self.kept().reply(&query, self.clock.now()) {
            return Box::pin(stream::once(future::ready(reply)));
        }
        let this = self.clone();
        Box::pin(stream::once(async move {
            let result = this.handle.send(request).first_answer().await;
            this.kept().keep(&query, &result, this.clock.now());
            result
        }))
    }
}
