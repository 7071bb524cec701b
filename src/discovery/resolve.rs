//! From a NetID or a JoinEUI to the addresses of its server, by DNS with DNSSEC (TS002 section 19).
//!
//! Owns the questions: which names, in which order, within which time, and what DNSSEC has to say before an answer
//! counts. Validation is `hickory`'s, on our clock and our trust anchors; remembering is [`super::cache`]'s.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{Stream, future, stream};
use hickory_net::dnssec::DnssecDnsHandle;
use hickory_net::xfer::{DnsHandle, FirstAnswer, RetryDnsHandle};
use hickory_net::{DnsError, NetError};
use hickory_proto::dnssec::rdata::DNSSECRData;
use hickory_proto::dnssec::{Proof, TrustAnchors};
use hickory_proto::op::{DnsRequest, DnsRequestOptions, DnsResponse, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_proto::serialize::txt::trust_anchor;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverOpts};
use hickory_resolver::{ConnectionProvider, NameServerPool, PoolContext, TlsConfig};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::backend::door::Deadline;
use crate::clock::{Clock, Instant};
use crate::lorawan::{DevEui, JoinEui, NetId};

use super::bucket::Wait;
use super::cache::{Cache, Found, Line, Outcome, Security, Trouble};
use super::name::{self, Suffix};
use super::timer::{self, Runtime};

/// Section `[discovery]`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What stands behind the digits of a JoinEUI.
    pub join_eui_suffix: Suffix,
    /// What stands behind the digits of a NetID.
    pub net_id_suffix: Suffix,
    /// The TCP port of partners found by address records alone.
    pub port: u16,
    /// Whom to ask.
    pub resolvers: Vec<Server>,
    /// What an answer has to be.
    pub dnssec: Dnssec,
    /// Believe the AD bit of a validating resolver on this machine instead of validating.
    pub trust_ad: bool,
    /// Whether TLSA records count.
    pub dane: Dane,
    /// A file of DNSKEY records in presentation form: every DNSKEY of each zone in it. The root's are known already.
    pub trust_anchor: Option<PathBuf>,
}

/// What DNSSEC has to say before an answer counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dnssec {
    /// Signed.
    #[default]
    Require,
    /// Signed, or proven to be unsigned.
    Prefer,
    /// Nothing: signatures are not looked at.
    Off,
}

impl FromStr for Dnssec {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "require" => Ok(Dnssec::Require),
            "prefer" => Ok(Dnssec::Prefer),
            "off" => Ok(Dnssec::Off),
            _ => Err(format!("dnssec is require, prefer or off, not {text:?}")),
        }
    }
}

/// What TLSA records have to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dane {
    /// There must be one, and it must fit.
    Require,
    /// If there is one, it must fit.
    #[default]
    Prefer,
    /// They are not asked for.
    Off,
}

/// A resolver to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum Server {
    /// Those of `/etc/resolv.conf`.
    System,
    /// This one.
    At(SocketAddr),
}

impl FromStr for Server {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "system" {
            return Ok(Server::System);
        }
        let address = text.parse::<SocketAddr>().ok();
        let address =
            address.or_else(|| Some(SocketAddr::new(text.trim_matches(['[', ']']).parse().ok()?, 53)));
        address.map(Server::At).ok_or_else(|| {
            format!("a resolver is \"system\", an IP address, or an IP address with a port, not {text:?}")
        })
    }
}
impl From<Server> for String {
    fn from(server: Server) -> String {
        match server {
            Server::System => "system".into(),
            Server::At(address) => address.to_string(),
        }
    }
}
impl TryFrom<String> for Server {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            join_eui_suffix: name::default_join_eui_suffix(),
            net_id_suffix: name::default_net_id_suffix(),
            port: 443,
            resolvers: vec![Server::System],
            dnssec: Dnssec::default(),
            trust_ad: false,
            dane: Dane::default(),
            trust_anchor: None,
        }
    }
}

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
    #[error("[discovery] trust_ad wants resolvers on this machine, and {0} is not")]
    DistantAd(IpAddr),
    /// The library.
    #[error("set up the resolver")]
    Library(#[from] NetError),
}

/// A server of the federation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The name that was asked, lower case, no final dot: the URL's host and the TLS server name.
    pub host: String,
    /// Where it is, IPv6 first.
    pub addresses: Vec<SocketAddr>,
    /// The port of every address.
    pub port: u16,
    /// What DNSSEC says.
    pub security: Security,
    /// How long this may be used.
    pub ttl: Duration,
    /// Nobody was asked for it just now.
    pub from_cache: bool,
    /// Where CNAMEs led, in order; no final dots.
    pub cname: Vec<String>,
}

/// Why a server was not found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// The federation does not know it, or its owner has not published it.
    #[error("{name} has no address ({})", if *.proven { "proven by DNSSEC" } else { "not proven by DNSSEC" })]
    NotFound {
        /// The name asked.
        name: String,
        /// DNSSEC proves it.
        proven: bool,
    },
    /// An attack, an expired signature, a wrong trust anchor or a wrong clock.
    #[error("{name} is bogus: {why}")]
    Bogus {
        /// The name asked.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// Our operator's move, or that of the zone's owner.
    #[error(
        "{name} lies in an unsigned zone: its owner signs it, or [discovery] dnssec = \"prefer\" accepts it as it is"
    )]
    Insecure {
        /// The name asked.
        name: String,
    },
    /// No answer within the second that DNS may take of a join's five.
    #[error("no answer about {name} in time")]
    Timeout {
        /// The name asked.
        name: String,
    },
    /// The resolver's move.
    #[error("no answer about {name}: {why}")]
    ServFail {
        /// The name asked.
        name: String,
        /// What it said.
        why: String,
    },
    /// Too many questions at once.
    #[error(transparent)]
    Throttled(#[from] Wait),
}

/// What came of a name, for people.
#[derive(Debug, Clone, Serialize)]
pub struct Resolution {
    /// The name asked, without final dot.
    pub name: String,
    /// Its addresses, also where DNSSEC forbids their use.
    pub addresses: Vec<IpAddr>,
    /// What DNSSEC says; absent where there was no answer.
    pub dnssec: Option<Security>,
    /// Where CNAMEs led, in order.
    pub cname: Vec<String>,
    /// Seconds for which this may be used.
    pub ttl: u64,
    /// Nobody was asked for it just now.
    pub cached: bool,
    /// Milliseconds that it took.
    pub took_ms: f64,
    /// Why it is of no use to us.
    pub error: Option<String>,
}

/// All that DNS may take of a join's five seconds.
const BUDGET: Duration = Duration::from_secs(1);
/// A question nobody waits for any more still runs so long, so that the device's next try finds the answer.
const LONGEST_QUESTION: Duration = Duration::from_secs(4);
/// Questions to one server: this long, then once more.
const ONE_TRY: Duration = Duration::from_millis(1500);
/// CNAMEs on the way from a name to its address.
const MOST_STEPS: usize = 8;
const MOST_NAMES: usize = 2048;
const MOST_AT_ONCE: usize = 256;

/// Asks the DNS. Clones share everything.
#[derive(Clone)]
pub struct Resolver(Arc<Inner>);

struct Inner {
    config: Config,
    clock: Clock,
    asker: Asker,
    names: Mutex<Names>,
}

struct Names {
    cache: Cache,
    flying: BTreeMap<String, watch::Receiver<Option<(Arc<Outcome>, Duration)>>>,
}

/// An answer on its way to one who waits for it.
enum Pending {
    Cached(Arc<Outcome>, Duration),
    Flying(watch::Receiver<Option<(Arc<Outcome>, Duration)>>),
    Refused,
}

struct Answer {
    outcome: Arc<Outcome>,
    left: Duration,
    cached: bool,
}

impl Resolver {
    /// Reads the trust anchor and the system's resolvers; asks nobody yet.
    pub fn new(config: Config, clock: Clock) -> Result<Resolver, SetupError> {
        let asker = Asker::new(&config, clock.clone())?;
        let names = Mutex::new(Names { cache: Cache::new(MOST_NAMES), flying: BTreeMap::new() });
        Ok(Resolver(Arc::new(Inner { config, clock, asker, names })))
    }

    /// The suffixes, the port and the policy.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The server of a network.
    pub async fn net_server(&self, net_id: NetId, by: Deadline) -> Result<Endpoint, DiscoveryError> {
        let name = name::net_id_name(net_id, &self.0.config.net_id_suffix);
        let (pending, by, began) = (self.ask(&name), self.budget(by), self.0.clock.now());
        self.judge(&name, pending.wait(by).await, began)
    }

    /// The join server of a JoinEUI; of one device, where its DevEUI is known and has a name of its own.
    pub async fn join_server(
        &self,
        join_eui: JoinEui,
        dev_eui: Option<DevEui>,
        by: Deadline,
    ) -> Result<Endpoint, DiscoveryError> {
        let suffix = &self.0.config.join_eui_suffix;
        let name = name::join_eui_name(join_eui, suffix);
        let (by, began) = (self.budget(by), self.0.clock.now());
        // both at once: the common case is that the longer name does not exist
        let pending = self.ask(&name);
        if let Some(dev_eui) = dev_eui {
            let own = name::dev_eui_name(dev_eui, join_eui, suffix);
            let moved = self.judge(&own, self.ask(&own).wait(by).await, began);
            match moved {
                Ok(endpoint) => return Ok(endpoint),
                Err(DiscoveryError::NotFound { proven: true, .. }) => (),
                // Without a proof, suppressing one answer would send a moved device to its former join server.
                Err(err) if self.0.config.dnssec == Dnssec::Require => return Err(err),
                Err(_) => (),
            }
        }
        // what has already arrived is taken even if the longer name used up the time
        self.judge(&name, pending.wait(by).await, began)
    }

    /// Any name, for people: also what DNSSEC forbids to use is shown.
    pub async fn name(&self, name: &str) -> Resolution {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let began = self.0.clock.now();
        let answer = self.ask(&name).wait(began + LONGEST_QUESTION).await;
        let (mut addresses, mut cname, mut dnssec) = (Vec::new(), Vec::new(), None);
        let (ttl, cached) =
            answer.as_ref().map_or((0, false), |answer| (answer.left.as_secs(), answer.cached));
        match answer.as_ref().map(|answer| &*answer.outcome) {
            Some(Ok(found)) => {
                (addresses, cname) = (found.addresses.clone(), found.cname.clone());
                dnssec = Some(found.security);
            }
            Some(Err(Trouble::Missing { security, .. })) => dnssec = Some(*security),
            Some(Err(Trouble::Bogus(_))) => dnssec = Some(Security::Bogus),
            Some(Err(Trouble::Failed(_) | Trouble::Timeout)) | None => (),
        }
        let error = self.judge(&name, answer, began).err().map(|err| err.to_string());
        let took_ms = (self.0.clock.now() - began).as_secs_f64() * 1000.0;
        Resolution { name, addresses, dnssec, cname, ttl, cached, took_ms, error }
    }

    /// Forget one name, or everything; how many were forgotten.
    pub fn flush(&self, name: Option<&str>) -> usize {
        self.0.asker.forget_keys();
        self.0.names().cache.flush(name)
    }

    /// What is remembered.
    pub fn cached(&self) -> Vec<Line> {
        self.0.names().cache.list(self.0.clock.now(), self.0.clock.unix())
    }

    fn budget(&self, by: Deadline) -> Instant {
        by.0.min(self.0.clock.now() + BUDGET)
    }

    /// From the cache, or from the one question about this name that is on its way.
    fn ask(&self, name: &str) -> Pending {
        let inner = &self.0;
        let mut names = inner.names();
        if let Some((outcome, left)) = names.cache.get(name, inner.clock.now(), inner.clock.unix()) {
            return Pending::Cached(outcome, left);
        }
        // a sender that is gone without a word was a task that panicked
        if let Some(flying) = names.flying.get(name).filter(|flying| flying.has_changed().is_ok()) {
            return Pending::Flying(flying.clone());
        }
        if names.flying.len() >= MOST_AT_ONCE {
            return Pending::Refused;
        }
        let (tell, flying) = watch::channel(None);
        names.flying.insert(name.to_owned(), flying.clone());
        drop(names);
        let (inner, name) = (inner.clone(), name.to_owned());
        // A task of its own: a caller who gives up ends the waiting, not the question.
        tokio::spawn(async move {
            let question = timer::at(inner.clock.clone(), inner.asker.addresses(&name));
            let end = inner.clock.now() + LONGEST_QUESTION;
            let outcome = tokio::time::timeout_at(end, question).await.unwrap_or(Err(Trouble::Timeout));
            if matches!(outcome, Err(Trouble::Bogus(_))) {
                // perhaps the zone's keys have just changed
                inner.asker.forget_keys();
            }
            let outcome = Arc::new(outcome);
            let mut names = inner.names();
            let left = names.cache.put(&name, outcome.clone(), inner.clock.now(), inner.clock.unix());
            names.flying.remove(&name);
            drop(names);
            tell.send_replace(Some((outcome, left)));
        });
        Pending::Flying(flying)
    }

    /// What the policy says of an answer, and a word about it for those who watch.
    fn judge(&self, name: &str, answer: Option<Answer>, began: Instant) -> Result<Endpoint, DiscoveryError> {
        let cached = answer.as_ref().is_some_and(|answer| answer.cached);
        let result = self.admit(name, answer);
        let took_ms = (self.0.clock.now() - began).as_millis();
        match &result {
            Ok(endpoint) => tracing::info!(
                target: "roamgate::net",
                milestone = "DNS answer",
                name,
                security = %endpoint.security,
                addresses = ?endpoint.addresses,
                ttl = endpoint.ttl.as_secs(),
                took_ms,
                cached,
            ),
            Err(error) => tracing::info!(
                target: "roamgate::net", milestone = "DNS answer", name, error = %error, took_ms, cached,
            ),
        }
        result
    }

    fn admit(&self, name: &str, answer: Option<Answer>) -> Result<Endpoint, DiscoveryError> {
        let (config, name) = (&self.0.config, name.to_owned());
        let Some(answer) = answer else {
            return Err(DiscoveryError::Timeout { name });
        };
        match &*answer.outcome {
            Ok(found) => match (config.dnssec, found.security) {
                (_, Security::Secure) | (Dnssec::Prefer, Security::Insecure) | (Dnssec::Off, _) => {
                    Ok(Endpoint {
                        host: name,
                        addresses: found
                            .addresses
                            .iter()
                            .map(|ip| SocketAddr::new(*ip, config.port))
                            .collect(),
                        port: config.port,
                        security: found.security,
                        ttl: answer.left,
                        from_cache: answer.cached,
                        cname: found.cname.clone(),
                    })
                }
                (Dnssec::Require, Security::Insecure) => Err(DiscoveryError::Insecure { name }),
                (Dnssec::Require | Dnssec::Prefer, Security::Bogus | Security::Off) => {
                    Err(DiscoveryError::Bogus { name, why: BOGUS.to_owned() })
                }
            },
            Err(Trouble::Missing { security, .. }) => {
                Err(DiscoveryError::NotFound { name, proven: *security == Security::Secure })
            }
            Err(Trouble::Bogus(why)) => Err(DiscoveryError::Bogus { name, why: why.clone() }),
            Err(Trouble::Failed(why)) => Err(DiscoveryError::ServFail { name, why: why.clone() }),
            Err(Trouble::Timeout) => Err(DiscoveryError::Timeout { name }),
        }
    }
}

impl Inner {
    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    async fn wait(self, by: Instant) -> Option<Answer> {
        match self {
            Pending::Cached(outcome, left) => Some(Answer { outcome, left, cached: true }),
            Pending::Refused => {
                let outcome =
                    Arc::new(Err(Trouble::Failed("too many questions are on their way".to_owned())));
                Some(Answer { outcome, left: Duration::ZERO, cached: false })
            }
            Pending::Flying(mut flying) => {
                let told = tokio::time::timeout_at(by, flying.wait_for(Option::is_some)).await.ok()?.ok()?;
                let (outcome, left) = told.as_ref()?;
                Some(Answer { outcome: outcome.clone(), left: *left, cached: false })
            }
        }
    }
}

const BOGUS: &str = "its signatures have ended or do not fit the trust anchor; look at the clock and at \
                     [discovery] trust_anchor, then ask the zone's owner";

/// The way to the resolvers.
enum Asker {
    /// We validate.
    Validating(Box<Validating>),
    /// Nobody does.
    Plain(Box<Plain>),
    /// The resolver on this machine does.
    Trusting(Vec<SocketAddr>, Arc<PoolContext>),
}

type Plain = RetryDnsHandle<NameServerPool<Runtime>>;

struct Validating {
    handle: DnssecDnsHandle<Keys>,
    keys: Keys,
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
    fn new(config: &Config, clock: Clock) -> Result<Asker, SetupError> {
        let servers = servers(&config.resolvers)?;
        let mut options = ResolverOpts::default();
        options.ndots = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.timeout = ONE_TRY;
        options.attempts = 1;
        options.validate = config.dnssec != Dnssec::Off;
        let context = Arc::new(PoolContext::new(options, TlsConfig::new()?));
        if config.dnssec != Dnssec::Off && config.trust_ad {
            if let Some(distant) = servers.iter().find(|server| !server.ip().is_loopback()) {
                return Err(SetupError::DistantAd(distant.ip()));
            }
            return Ok(Asker::Trusting(servers, context));
        }
        let servers = servers.iter().map(|server| {
            let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
            connections.iter_mut().for_each(|connection| connection.port = server.port());
            NameServerConfig::new(server.ip(), true, connections)
        });
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
        Ok(Asker::Validating(Box::new(Validating { handle, keys })))
    }

    fn forget_keys(&self) {
        if let Asker::Validating(validating) = self {
            validating.keys.kept().clear();
        }
    }

    /// A and AAAA of a name.
    async fn addresses(&self, name: &str) -> Outcome {
        let mut fqdn =
            Name::from_ascii(name).map_err(|err| Trouble::Failed(format!("{name:?} is no name: {err}")))?;
        fqdn.set_fqdn(true);
        let (v6, v4) =
            future::join(self.family(fqdn.clone(), RecordType::AAAA), self.family(fqdn, RecordType::A)).await;
        both(v6, v4)
    }

    /// The addresses of one kind, CNAMEs followed.
    async fn family(&self, mut at: Name, kind: RecordType) -> Outcome {
        let mut found = Found {
            addresses: Vec::new(),
            security: Security::Secure,
            cname: Vec::new(),
            ttl: Duration::MAX,
            signed_until: None,
        };
        let mut seen = vec![at.clone()];
        for _ in 0..MOST_STEPS {
            let reply = self.reply(at.clone(), kind).await?;
            let asked = at.clone();
            loop {
                let addresses: Vec<&Record> = reply.records(&at, kind).collect();
                if !addresses.is_empty() && !reply.doubtful {
                    self.note(&mut found, &reply, &at, &addresses)?;
                    found.addresses = addresses.iter().filter_map(|record| record.data.ip_addr()).collect();
                    return Ok(found);
                }
                let cname = reply.records(&at, RecordType::CNAME).next();
                let Some((record, RData::CNAME(target))) = cname.map(|record| (record, &record.data)) else {
                    break;
                };
                if reply.doubtful && !reply.signed_as_it_stands(&at) {
                    break;
                }
                self.note(&mut found, &reply, &at, &[record])?;
                if seen.contains(&target.0) || seen.len() > MOST_STEPS {
                    return Err(Trouble::Failed(format!("its CNAMEs lead nowhere, by way of {}", target.0)));
                }
                at = target.0.clone();
                found.cname.push(text(&at));
                seen.push(at.clone());
            }
            if at == asked {
                if reply.doubtful {
                    return Err(Trouble::Bogus(BOGUS.to_owned()));
                }
                let (mut security, ttl, signed_until) = self.denial(&reply, &at);
                security = security.min(found.security);
                return Err(Trouble::Missing {
                    security,
                    ttl: ttl.min(found.ttl),
                    signed_until: earlier(signed_until, found.signed_until),
                });
            }
        }
        Err(Trouble::Failed("too many CNAMEs".to_owned()))
    }

    /// Weigh the records that were just used.
    fn note(&self, found: &mut Found, reply: &Reply, at: &Name, used: &[&Record]) -> Result<(), Trouble> {
        for record in used {
            let security = reply.security.unwrap_or(match record.proof {
                Proof::Secure => Security::Secure,
                Proof::Insecure => Security::Insecure,
                Proof::Bogus | Proof::Indeterminate => Security::Bogus,
            });
            if security == Security::Bogus {
                return Err(Trouble::Bogus(BOGUS.to_owned()));
            }
            found.security = found.security.min(security);
            found.ttl = found.ttl.min(Duration::from_secs(record.ttl.into()));
        }
        if found.security == Security::Secure {
            let end = earlier(signatures_end(&reply.answers), self.keys_end(at));
            found.signed_until = earlier(found.signed_until, end);
        }
        Ok(())
    }

    /// What a reply without records proves, and for how long.
    fn denial(&self, reply: &Reply, at: &Name) -> (Security, Duration, Option<u64>) {
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
        (security, Duration::from_secs(soa.unwrap_or(0).into()), end)
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

/// One answer out of two: the family that works counts.
fn both(v6: Outcome, v4: Outcome) -> Outcome {
    match (v6, v4) {
        (Ok(mut v6), Ok(v4)) => {
            v6.addresses.extend(v4.addresses);
            v6.security = v6.security.min(v4.security);
            v6.ttl = v6.ttl.min(v4.ttl);
            v6.signed_until = earlier(v6.signed_until, v4.signed_until);
            Ok(v6)
        }
        (Ok(mut found), Err(trouble)) | (Err(trouble), Ok(mut found)) => {
            let again = match trouble {
                Trouble::Missing { .. } => found.ttl,
                // ask for the other family again soon
                Trouble::Bogus(_) | Trouble::Failed(_) | Trouble::Timeout => Duration::from_secs(60),
            };
            found.ttl = found.ttl.min(again);
            Ok(found)
        }
        (
            Err(Trouble::Missing { security: a, ttl: b, signed_until: c }),
            Err(Trouble::Missing { security: d, ttl: e, signed_until: f }),
        ) => Err(Trouble::Missing { security: a.min(d), ttl: b.min(e), signed_until: earlier(c, f) }),
        (Err(Trouble::Missing { .. }), Err(other)) | (Err(other), Err(Trouble::Missing { .. })) => Err(other),
        (Err(bogus @ Trouble::Bogus(_)), Err(_)) | (Err(_), Err(bogus @ Trouble::Bogus(_))) => Err(bogus),
        (Err(other), Err(_)) => Err(other),
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

fn text(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}

/// The addresses of the configured resolvers.
fn servers(resolvers: &[Server]) -> Result<Vec<SocketAddr>, SetupError> {
    let mut servers = Vec::new();
    for resolver in resolvers {
        match resolver {
            Server::At(address) => servers.push(*address),
            Server::System => {
                let (system, _) = hickory_resolver::system_conf::read_system_conf()
                    .map_err(|err| SetupError::System(err.to_string()))?;
                servers.extend(system.name_servers.iter().map(|server| SocketAddr::new(server.ip, 53)));
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

/// Ask the validating resolver on this machine, for its AD bit, which the pool would drop from a denial.
async fn ask_here(
    servers: &[SocketAddr],
    context: &Arc<PoolContext>,
    request: DnsRequest,
) -> Result<DnsResponse, NetError> {
    let mut last = Err(NetError::NoConnections);
    for server in servers {
        for mut way in [ConnectionConfig::udp(), ConnectionConfig::tcp()] {
            way.port = server.port();
            let connection = Runtime::default().new_connection(server.ip(), &way, context)?.await;
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

/// The keys of the zones on the way from a trust anchor, which every validation asks for again.
#[derive(Clone)]
struct Keys {
    handle: Plain,
    clock: Clock,
    kept: Arc<Mutex<KeptKeys>>,
}

type KeptKeys = BTreeMap<(Name, RecordType), (DnsResponse, Instant)>;

const KEYS_KEPT_FOR: Duration = Duration::from_secs(300);
const MOST_KEYS: usize = 512;

impl Keys {
    fn kept(&self) -> MutexGuard<'_, KeptKeys> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, key: (Name, RecordType), response: &DnsResponse) {
        let ttl = response.answers.iter().map(|record| record.ttl).min().unwrap_or(0);
        let now = self.clock.now();
        let mut kept = self.kept();
        if kept.len() >= MOST_KEYS {
            kept.clear();
        }
        kept.insert(key, (response.clone(), now + KEYS_KEPT_FOR.min(Duration::from_secs(ttl.into()))));
    }

    /// When the first signature over the keys above a name ends; of several over one set, the last counts.
    fn end(&self, at: &Name) -> Option<u64> {
        let kept = self.kept();
        let above = kept.iter().filter(|((name, _), _)| name.zone_of(at));
        above.filter_map(|(_, (response, _))| response.answers.iter().filter_map(expiration).max()).min()
    }
}

impl DnsHandle for Keys {
    type Response = Pin<Box<dyn Stream<Item = Result<DnsResponse, NetError>> + Send>>;
    type Runtime = Runtime;

    fn send(&self, request: DnsRequest) -> Self::Response {
        let query = request.queries.first();
        let query = query.filter(|query| matches!(query.query_type(), RecordType::DNSKEY | RecordType::DS));
        let Some(key) = query.map(|query| (query.name().to_lowercase(), query.query_type())) else {
            return Box::pin(self.handle.send(request));
        };
        let now = self.clock.now();
        if let Some((response, _)) = self.kept().get(&key).filter(|(_, until)| *until > now) {
            return Box::pin(stream::once(future::ready(Ok(response.clone()))));
        }
        let this = self.clone();
        Box::pin(stream::once(async move {
            let result = this.handle.send(request).first_answer().await;
            if let Ok(response) = &result {
                this.keep(key, response);
            }
            result
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::zone::{Data, Manner, Plan, Signing, Zone};
    use jiff::SignedDuration;

    const HOST: &str = "js.iotroam.example";
    const NS_1: &str = "000001.netids.iotroam.example";
    const JS_1: &str = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.joineuis.iotroam.example";

    fn records() -> Vec<(String, Data)> {
        let at = |name: &str, ip: &str| (name.to_owned(), Data::Address(ip.parse().unwrap()));
        vec![
            at(NS_1, "2001:db8::1"),
            at(NS_1, "192.0.2.1"),
            at("000002.netids.iotroam.example", "192.0.2.2"),
            at("000003.netids.lab.iotroam.example", "192.0.2.3"),
            at(HOST, "192.0.2.10"),
            (JS_1.to_owned(), Data::Cname(HOST.to_owned())),
            at("moved.iotroam.example", "192.0.2.20"),
            (
                format!("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.{JS_1}"),
                Data::Cname("moved.iotroam.example.".to_owned()),
            ),
        ]
    }

    struct Bench {
        zone: Zone,
        clock: Clock,
        folder: tempfile::TempDir,
    }

    impl Bench {
        async fn new() -> Bench {
            Bench::with(|_| ()).await
        }
        async fn with(change: impl FnOnce(&mut Plan)) -> Bench {
            let clock = Clock::system();
            let mut plan = Plan::new("iotroam.example", records());
            plan.insecure_child = Some("lab.iotroam.example".to_owned());
            change(&mut plan);
            let zone = Zone::start(plan, &clock).await.unwrap();
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("anchor"), &zone.trust_anchor).unwrap();
            Bench { zone, clock, folder }
        }
        fn config(&self, dnssec: Dnssec) -> Config {
            Config {
                join_eui_suffix: "joineuis.iotroam.example".parse().unwrap(),
                net_id_suffix: "netids.iotroam.example".parse().unwrap(),
                resolvers: vec![Server::At(self.zone.addr)],
                dnssec,
                trust_anchor: Some(self.folder.path().join("anchor")),
                ..Config::default()
            }
        }
        fn resolver(&self, dnssec: Dnssec) -> Resolver {
            Resolver::new(self.config(dnssec), self.clock.clone()).unwrap()
        }
        fn soon(&self) -> Deadline {
            Deadline(self.clock.now() + Duration::from_secs(5))
        }
    }

    fn net_id(text: &str) -> NetId {
        text.parse().unwrap()
    }
    fn join_eui() -> JoinEui {
        "0000000000000001".parse().unwrap()
    }
    fn dev_eui(text: &str) -> DevEui {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn a_signed_network_is_found_at_both_addresses_and_once_only() {
        let bench = Bench::new().await;
        let resolver = bench.resolver(Dnssec::Require);
        let found = resolver.net_server(net_id("000001"), bench.soon()).await.unwrap();
        assert_eq!(found.host, NS_1);
        assert_eq!(found.addresses, ["[2001:db8::1]:443".parse().unwrap(), "192.0.2.1:443".parse().unwrap()]);
        assert_eq!((found.security, found.from_cache), (Security::Secure, false));
        assert!((55..=60).contains(&found.ttl.as_secs()));
        assert_eq!(bench.zone.asked_for(NS_1), 2);
        let again = resolver.net_server(net_id("000001"), bench.soon()).await.unwrap();
        assert_eq!((again.addresses, again.from_cache), (found.addresses, true));
        assert_eq!(bench.zone.asked_for(NS_1), 2);
        assert_eq!(resolver.cached().len(), 1);
        assert_eq!(resolver.flush(None), 1);
        assert!(!resolver.net_server(net_id("000001"), bench.soon()).await.unwrap().from_cache);
    }

    #[tokio::test]
    async fn a_name_with_one_address_family_is_secure_and_keeps_its_ttl() {
        let bench = Bench::new().await;
        let found = bench.resolver(Dnssec::Require).net_server(net_id("000002"), bench.soon()).await.unwrap();
        assert_eq!(found.addresses, ["192.0.2.2:443".parse().unwrap()]);
        assert_eq!(found.security, Security::Secure);
    }

    #[tokio::test]
    async fn a_cname_is_followed_and_does_not_change_the_name_that_certificates_are_checked_for() {
        let bench = Bench::with(|plan| plan.ttl = 600).await;
        let resolver = bench.resolver(Dnssec::Require);
        let found = resolver.join_server(join_eui(), None, bench.soon()).await.unwrap();
        assert_eq!(found.host, JS_1);
        assert_eq!(found.cname, [HOST]);
        assert_eq!(found.addresses, ["192.0.2.10:443".parse().unwrap()]);
        assert_eq!(found.security, Security::Secure);
        assert!(
            found.ttl > Duration::from_secs(60),
            "the missing AAAA behind the CNAME is proven: {:?}",
            found.ttl
        );
    }

    #[tokio::test]
    async fn a_missing_name_is_proven_missing_and_remembered() {
        let bench = Bench::new().await;
        let resolver = bench.resolver(Dnssec::Require);
        let missing = "00abcd.netids.iotroam.example";
        for _ in 0..2 {
            let err = resolver.net_server(net_id("00ABCD"), bench.soon()).await.unwrap_err();
            assert_eq!(err, DiscoveryError::NotFound { name: missing.to_owned(), proven: true });
        }
        assert_eq!(bench.zone.asked_for(missing), 2);
        assert!((25..=30).contains(&resolver.cached()[0].left), "{:?}", resolver.cached());
    }

    #[tokio::test]
    async fn a_device_that_moved_has_its_own_server_and_others_fall_back_with_a_proof() {
        let bench = Bench::new().await;
        let resolver = bench.resolver(Dnssec::Require);
        let moved =
            resolver.join_server(join_eui(), Some(dev_eui("0000000000000001")), bench.soon()).await.unwrap();
        assert_eq!(moved.addresses, ["192.0.2.20:443".parse().unwrap()]);
        assert!(moved.host.ends_with(JS_1) && moved.host.len() == JS_1.len() + 32);
        let other =
            resolver.join_server(join_eui(), Some(dev_eui("0000000000000002")), bench.soon()).await.unwrap();
        assert_eq!((other.host.as_str(), &other.addresses[0]), (JS_1, &"192.0.2.10:443".parse().unwrap()));
    }

    #[tokio::test]
    async fn a_device_without_a_proven_answer_falls_back_only_where_dnssec_is_not_required() {
        let bench = Bench::new().await;
        let (require, off) = (bench.resolver(Dnssec::Require), bench.resolver(Dnssec::Off));
        // the short name is known to both, the long one gets no answer
        require.join_server(join_eui(), None, bench.soon()).await.unwrap();
        off.join_server(join_eui(), None, bench.soon()).await.unwrap();
        bench.zone.set_manner(Manner::Silent);
        let device = Some(dev_eui("0000000000000002"));
        let err = require.join_server(join_eui(), device, bench.soon()).await.unwrap_err();
        assert!(matches!(err, DiscoveryError::Timeout { .. }), "{err}");
        let found = off.join_server(join_eui(), device, bench.soon()).await.unwrap();
        assert_eq!((found.host.as_str(), found.security), (JS_1, Security::Off));
    }

    #[tokio::test]
    async fn a_zone_signed_by_a_stranger_is_bogus_unless_nobody_looks() {
        let bench = Bench::new().await;
        bench.zone.set_signing(Signing::Forged).unwrap();
        for dnssec in [Dnssec::Require, Dnssec::Prefer] {
            let err = bench.resolver(dnssec).net_server(net_id("000001"), bench.soon()).await.unwrap_err();
            assert!(matches!(err, DiscoveryError::Bogus { .. }), "{err}");
        }
        let found = bench.resolver(Dnssec::Off).net_server(net_id("000001"), bench.soon()).await.unwrap();
        assert_eq!((found.security, found.addresses.len()), (Security::Off, 2));
        let shown = bench.resolver(Dnssec::Require).name(NS_1).await;
        assert_eq!(shown.dnssec, Some(Security::Bogus));
        assert!(shown.error.is_some());
    }

    #[tokio::test]
    async fn signatures_taken_away_are_bogus_too() {
        let bench = Bench::new().await;
        bench.zone.set_signing(Signing::Absent).unwrap();
        let resolver = bench.resolver(Dnssec::Prefer);
        let err = resolver.net_server(net_id("000001"), bench.soon()).await.unwrap_err();
        assert!(matches!(err, DiscoveryError::Bogus { .. }), "{err}");
        let err = resolver.net_server(net_id("00ABCD"), bench.soon()).await.unwrap_err();
        assert!(matches!(err, DiscoveryError::Bogus { .. }), "{err}");
    }

    #[tokio::test]
    async fn a_zone_proven_unsigned_is_refused_where_dnssec_is_required_and_accepted_where_preferred() {
        let bench = Bench::new().await;
        let lab = |dnssec| {
            let net_id_suffix = "netids.lab.iotroam.example".parse().unwrap();
            Resolver::new(Config { net_id_suffix, ..bench.config(dnssec) }, bench.clock.clone()).unwrap()
        };
        let err = lab(Dnssec::Require).net_server(net_id("000003"), bench.soon()).await.unwrap_err();
        assert!(matches!(err, DiscoveryError::Insecure { .. }), "{err}");
        let found = lab(Dnssec::Prefer).net_server(net_id("000003"), bench.soon()).await.unwrap();
        assert_eq!(found.security, Security::Insecure);
        let err = lab(Dnssec::Require).net_server(net_id("000004"), bench.soon()).await.unwrap_err();
        assert!(matches!(err, DiscoveryError::NotFound { proven: false, .. }), "{err}");
    }

    #[tokio::test]
    async fn signatures_end_by_our_clock_and_nothing_is_used_beyond() {
        let bench = Bench::with(|plan| plan.signed_for = Duration::from_secs(86_400)).await;
        let resolver = bench.resolver(Dnssec::Require);
        resolver.net_server(net_id("000001"), bench.soon()).await.unwrap();
        bench.clock.move_wall(SignedDuration::from_hours(25));
        let err = resolver.net_server(net_id("000001"), bench.soon()).await.unwrap_err();
        assert!(matches!(err, DiscoveryError::Bogus { .. }), "{err}");
        let fresh = bench.resolver(Dnssec::Require);
        let err = fresh.net_server(net_id("000002"), bench.soon()).await.unwrap_err();
        assert!(matches!(err, DiscoveryError::Bogus { .. }), "{err}");
        // signed again, as of the moved clock: good in another resolver, which has no failure in mind
        bench.zone.sign_again().unwrap();
        bench.resolver(Dnssec::Require).net_server(net_id("000001"), bench.soon()).await.unwrap();
        // and a clock that stands before the signatures began is refused as well
        bench.clock.move_wall(SignedDuration::from_hours(-1));
        let err =
            bench.resolver(Dnssec::Require).net_server(net_id("000001"), bench.soon()).await.unwrap_err();
        assert!(matches!(err, DiscoveryError::Bogus { .. }), "{err}");
    }

    #[tokio::test]
    async fn a_silent_server_costs_a_second_and_no_more() {
        let bench = Bench::new().await;
        bench.zone.set_manner(Manner::Silent);
        let resolver = bench.resolver(Dnssec::Require);
        let began = bench.clock.now();
        let err = resolver.net_server(net_id("000001"), bench.soon()).await.unwrap_err();
        assert!(matches!(err, DiscoveryError::Timeout { .. }), "{err}");
        let took = bench.clock.now() - began;
        assert!(took >= BUDGET && took < BUDGET + Duration::from_millis(300), "{took:?}");
        let by = Deadline(bench.clock.now() + Duration::from_millis(100));
        let began = bench.clock.now();
        assert!(resolver.net_server(net_id("000002"), by).await.is_err());
        assert!(bench.clock.now() - began < Duration::from_millis(300), "a nearer deadline ends it");
    }

    #[tokio::test]
    async fn one_question_per_name_is_on_its_way_and_outlives_those_who_give_up() {
        let bench = Bench::new().await;
        bench.zone.set_manner(Manner::Slow(Duration::from_millis(60)));
        let resolver = bench.resolver(Dnssec::Off);
        let by = Deadline(bench.clock.now() + Duration::from_millis(10));
        assert!(resolver.net_server(net_id("000001"), by).await.is_err());
        let asks = (0..20).map(|_| resolver.net_server(net_id("000001"), bench.soon()));
        let answers = future::join_all(asks).await;
        assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|found| found.addresses.len() == 2)));
        assert_eq!(bench.zone.asked_for(NS_1), 2, "{:?}", bench.zone.queries());
    }

    #[tokio::test]
    async fn a_failing_resolver_is_named_and_left_alone_for_a_moment() {
        let bench = Bench::new().await;
        bench.zone.set_manner(Manner::Failing);
        let resolver = bench.resolver(Dnssec::Require);
        let err = resolver.net_server(net_id("000001"), bench.soon()).await.unwrap_err();
        assert!(matches!(err, DiscoveryError::ServFail { .. }), "{err}");
        bench.zone.set_manner(Manner::Prompt);
        bench.zone.forget_queries();
        assert!(resolver.net_server(net_id("000001"), bench.soon()).await.is_err());
        assert_eq!(bench.zone.queries().len(), 0);
        resolver.flush(None);
        resolver.net_server(net_id("000001"), bench.soon()).await.unwrap();
    }

    #[tokio::test]
    async fn records_can_change_while_the_zone_is_served() {
        let bench = Bench::new().await;
        let resolver = bench.resolver(Dnssec::Require);
        resolver.net_server(net_id("000001"), bench.soon()).await.unwrap();
        bench
            .zone
            .set_records(vec![(NS_1.to_owned(), Data::Address("192.0.2.99".parse().unwrap()))])
            .unwrap();
        resolver.flush(Some(NS_1));
        let found = resolver.net_server(net_id("000001"), bench.soon()).await.unwrap();
        assert_eq!(found.addresses, ["192.0.2.99:443".parse().unwrap()]);
    }

    #[tokio::test]
    async fn the_ad_bit_is_believed_on_this_machine_only() {
        let bench = Bench::new().await;
        let config = Config { trust_ad: true, ..bench.config(Dnssec::Prefer) };
        let resolver = Resolver::new(config.clone(), bench.clock.clone()).unwrap();
        // the zone's server is authoritative: it never sets AD
        let found = resolver.net_server(net_id("000001"), bench.soon()).await.unwrap();
        assert_eq!((found.security, found.addresses.len()), (Security::Insecure, 2));
        let resolvers = vec![Server::At("192.0.2.53:53".parse().unwrap())];
        let err = Resolver::new(Config { resolvers, ..config }, bench.clock.clone()).err().unwrap();
        assert!(matches!(err, SetupError::DistantAd(_)));
    }

    #[test]
    fn the_section_has_defaults_and_tolerates_no_misspelling() {
        let config: Config = toml::from_str(
            r#"resolvers = ["system", "192.0.2.53", "127.0.0.1:5353", "2001:db8::53", "[2001:db8::53]:54"]
               dnssec = "prefer"
               join_eui_suffix = ".JoinEUIs.iotroam.example.""#,
        )
        .unwrap();
        let port = |server: &Server| match server {
            Server::System => 0,
            Server::At(address) => address.port(),
        };
        assert_eq!(config.resolvers.iter().map(port).collect::<Vec<_>>(), [0, 53, 5353, 53, 54]);
        assert_eq!((config.dnssec, config.port, config.dane), (Dnssec::Prefer, 443, Dane::Prefer));
        assert_eq!(config.join_eui_suffix.as_str(), "joineuis.iotroam.example");
        assert_eq!(config.net_id_suffix.as_str(), "netids.lorawan.net");
        for wrong in [
            "dnsec = \"off\"",
            "dnssec = \"on\"",
            "resolvers = [\"tls://dns.example\"]",
            "net_id_suffix = \".\"",
        ] {
            assert!(toml::from_str::<Config>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_trust_anchor_that_is_none_stops_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("anchor");
        let resolvers = vec![Server::At("127.0.0.1:53".parse().unwrap())];
        let config = Config { trust_anchor: Some(path.clone()), resolvers, ..Config::default() };
        let new = || Resolver::new(config.clone(), Clock::system()).err().map(|err| err.to_string());
        assert!(new().unwrap().contains("read [discovery] trust_anchor"));
        for text in ["", "; nothing\n", "example. IN A 192.0.2.1\n", "what"] {
            std::fs::write(&path, text).unwrap();
            assert!(new().unwrap().contains("DNSKEY"), "{text}: {:?}", new());
        }
    }
}
