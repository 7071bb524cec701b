//! From a NetID or a JoinEUI to the addresses of its server, by DNS with DNSSEC (TS002 section 19).
//!
//! Owns the questions: which names, in which order, within which time, and what DNSSEC has to say before an answer
//! counts. Asking is [`ask`]'s, remembering [`super::cache`]'s.

mod ask;
mod config;
mod denial;
mod members;
pub mod naptr;
pub mod timer;
mod ways;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use hickory_proto::rr::{RData, RecordType};
use serde::Serialize;
use tokio::sync::{OnceCell, watch};

use crate::backend::door::Deadline;
use crate::clock::{Clock, Instant};
use crate::lorawan::{DevEui, JoinEui, NetId};
use crate::pki::dane::{self, Evidence, Tlsa};

use self::ask::{Asker, BOGUS};
use super::bucket::Wait;
use super::cache::{Cache, Hit, Kept, Line, Outcome, Worth};
use super::name;

pub use self::ask::SetupError;
pub use self::config::{Config, Dane, Dnssec, Server};
pub use super::cache::{Security, Trouble, Way};

/// A server of the federation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The name that was asked, lower case, no final dot: the URL's host and the TLS server name.
    pub host: String,
    /// Where it is, the first to be tried first. Never empty.
    pub ways: Vec<Way>,
    /// What DNSSEC says of the weakest of them.
    pub security: Security,
    /// How long this may be used.
    pub ttl: Duration,
    /// Nobody was asked for it just now.
    pub from_cache: bool,
}

impl Endpoint {
    /// A server at an address that is known without the DNS.
    pub fn at(host: &str, address: SocketAddr) -> Endpoint {
        let (by, addresses, port) = (Vec::new(), vec![address.ip()], address.port());
        Endpoint::of(host, Way { by, addresses, port, path: "/".into(), security: Security::Off })
    }

    /// The same with a way of its own.
    pub fn of(host: &str, way: Way) -> Endpoint {
        let (security, ways) = (way.security, vec![way]);
        Endpoint { host: host.to_owned(), ways, security, ttl: Duration::MAX, from_cache: false }
    }
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
    /// Its owner's move.
    #[error("{name} leads to no server that we can reach: {why}")]
    Useless {
        /// The name asked.
        name: String,
        /// Why what stands there is of no use to us.
        why: String,
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

/// TLSA records, and how long they may be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// As far as DNSSEC proves them; `None`: there are none.
    pub records: Option<Vec<Tlsa>>,
    /// Then they are to be asked for again.
    pub until: Instant,
}

/// What came of a name, for people.
#[derive(Debug, Clone, Serialize)]
pub struct Resolution {
    /// The name asked, without final dot.
    pub name: String,
    /// Where its server is, also where DNSSEC forbids the use; the first to be tried first.
    pub ways: Vec<Way>,
    /// What DNSSEC says of the weakest of them; absent where there was no answer.
    pub dnssec: Option<Security>,
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
/// Where a stale answer could serve, or a root's word alone, a better one is waited for so long: the first of a data frame's windows opens after one
/// second.
const PATIENCE: Duration = Duration::from_millis(300);
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
    /// TLSA records, by their name.
    keys: Cells<Keys>,
    /// Networks that share addresses, by the name of their list.
    lists: Cells<members::List>,
    flying: BTreeMap<String, Flying>,
}

/// Answers by name, for each one question at a time.
type Cells<T> = BTreeMap<String, Arc<OnceCell<T>>>;

/// Where the answer about a name is, or will be.
fn cell<T>(cells: &mut Cells<T>, name: &str, is_over: impl Fn(&T) -> bool) -> Arc<OnceCell<T>> {
    if cells.len() >= MOST_NAMES {
        cells.clear();
    }
    let cell = cells.entry(name.to_owned()).or_insert_with(|| Arc::new(OnceCell::new()));
    if cell.get().is_some_and(is_over) {
        *cell = Arc::new(OnceCell::new());
    }
    cell.clone()
}

/// A question on its way: what came of it, and for how long that holds.
type Flying = watch::Receiver<Option<(Arc<Outcome>, Duration)>>;

/// An answer on its way to one who waits for it.
enum Pending {
    Cached(Arc<Outcome>, Duration),
    Flying(Flying),
    /// It may take until then, or this will do.
    Stale(Arc<Outcome>, Flying, Instant),
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
        let names = Mutex::new(Names {
            cache: Cache::new(config.cache, MOST_NAMES),
            keys: BTreeMap::new(),
            lists: BTreeMap::new(),
            flying: BTreeMap::new(),
        });
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
                Err(
                    DiscoveryError::NotFound { proven: true, .. }
                    | DiscoveryError::Useless { proven: true, .. },
                ) => (),
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
        let (ttl, cached) =
            answer.as_ref().map_or((0, false), |answer| (answer.left.as_secs(), answer.cached));
        let outcome = answer.as_ref().map(|answer| &*answer.outcome);
        let dnssec = outcome.and_then(super::cache::security);
        let ways = outcome
            .and_then(|outcome| outcome.as_ref().ok())
            .map_or_else(Vec::new, |found| found.ways.clone());
        let error = self.judge(&name, answer, began).err().map(|err| err.to_string());
        let took_ms = (self.0.clock.now() - began).as_secs_f64() * 1000.0;
        Resolution { name, ways, dnssec, ttl, cached, took_ms, error }
    }

    /// The records of one kind at a name, as they are now, and what DNSSEC says of them; for people.
    pub async fn records(&self, name: &str, kind: RecordType) -> Result<(Vec<RData>, Security), Trouble> {
        let inner = &self.0;
        let question = async { inner.asker.records(ways::absolute(name)?, kind).await };
        let question = timer::at(inner.clock.clone(), question);
        let end = inner.clock.now() + LONGEST_QUESTION;
        let found = tokio::time::timeout_at(end, question).await.unwrap_or(Err(Trouble::Timeout))?;
        Ok((found.data, found.worth.security))
    }

    /// The TLSA records at a name, as far as DNSSEC proves them. Never stale. Evidence that does without them does not wait long.
    pub async fn tlsa(&self, name: &str, evidence: Evidence, by: Deadline) -> Keys {
        let now = self.0.clock.now();
        let nothing = Keys { records: None, until: now };
        if self.0.config.dnssec == Dnssec::Off {
            return nothing;
        }
        let cell = cell(&mut self.0.names().keys, name, |keys| keys.until <= now);
        if let Some(keys) = cell.get() {
            return keys.clone();
        }
        let (inner, name) = (self.0.clone(), name.to_owned());
        // A task of its own: a caller who gives up ends the waiting, not the question.
        let question = tokio::spawn(async move { cell.get_or_init(|| inner.keys(&name)).await.clone() });
        let until = match evidence {
            Evidence::PkixAndDaneIfAny => self.budget(by).min(now + PATIENCE),
            _ => self.budget(by),
        };
        match tokio::time::timeout_at(until, question).await {
            Ok(Ok(keys)) => keys,
            // late, or a task that panicked
            _ => nothing,
        }
    }

    /// Forget one name, or everything; how many were forgotten.
    pub fn flush(&self, name: Option<&str>) -> usize {
        self.0.asker.forget_keys();
        let mut names = self.0.names();
        match name {
            Some(name) => {
                names.keys.retain(|owner, _| !owner.ends_with(name));
                names.lists.retain(|owner, _| !owner.ends_with(name));
            }
            None => (names.keys, names.lists) = Default::default(),
        }
        names.cache.flush(name)
    }

    /// What is remembered.
    pub fn cached(&self) -> Vec<Line> {
        self.0.names().cache.list(self.0.clock.now(), self.0.clock.unix())
    }

    /// What is worth keeping over a restart.
    pub fn kept(&self) -> Vec<Kept> {
        self.0.names().cache.kept(self.0.clock.now(), self.0.clock.unix())
    }

    /// What an earlier run has kept, as far as today's policy takes it: it may have asked for less.
    pub fn restore(&self, mut kept: Vec<Kept>) {
        kept.retain(|kept| kept.found.ways.iter().all(|way| self.0.config.dnssec.takes(way.security)));
        self.0.names().cache.restore(kept, self.0.clock.now(), self.0.clock.unix());
    }

    fn budget(&self, by: Deadline) -> Instant {
        by.0.min(self.0.clock.now() + BUDGET)
    }

    /// From the cache, or from the one question about this name that is on its way.
    fn ask(&self, name: &str) -> Pending {
        let inner = &self.0;
        let now = inner.clock.now();
        let mut names = inner.names();
        let stale = match names.cache.get(name, now, inner.clock.unix()) {
            Some(Hit::Fresh(outcome, left)) => return Pending::Cached(outcome, left),
            Some(Hit::Stale { outcome, rests: true }) => return Pending::Cached(outcome, Duration::ZERO),
            Some(Hit::Stale { outcome, rests: false }) => Some(outcome),
            None => None,
        };
        match (inner.fly(&mut names, name), stale) {
            (Some(flying), None) => Pending::Flying(flying),
            (Some(flying), Some(outcome)) => Pending::Stale(outcome, flying, now + PATIENCE),
            (None, Some(outcome)) => Pending::Cached(outcome, Duration::ZERO),
            (None, None) => Pending::Refused,
        }
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
                addresses = ?endpoint.ways.iter().flat_map(Way::sockets).collect::<Vec<_>>(),
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
            Ok(found) => {
                let usable = found.ways.iter().filter(|way| config.dnssec.takes(way.security));
                let ways: Vec<Way> = usable.cloned().collect();
                match ways.iter().map(|way| way.security).min() {
                    Some(security) => {
                        let (ttl, from_cache) = (answer.left, answer.cached);
                        Ok(Endpoint { host: name, ways, security, ttl, from_cache })
                    }
                    None if found.worth.security == Security::Insecure => {
                        Err(DiscoveryError::Insecure { name })
                    }
                    None => Err(DiscoveryError::Bogus { name, why: BOGUS.to_owned() }),
                }
            }
            Err(Trouble::Missing(worth)) => {
                Err(DiscoveryError::NotFound { name, proven: worth.security == Security::Secure })
            }
            Err(Trouble::Useless(worth, why)) => {
                let proven = worth.security == Security::Secure;
                Err(DiscoveryError::Useless { name, why: why.clone(), proven })
            }
            Err(Trouble::Bogus(why)) => {
                let unset = "this machine's clock is not set yet, and signatures cannot be judged without it";
                let why = if self.0.clock.is_trusted() { why.as_str() } else { unset };
                Err(DiscoveryError::Bogus { name, why: why.to_owned() })
            }
            Err(Trouble::Failed(why)) => Err(DiscoveryError::ServFail { name, why: why.clone() }),
            Err(Trouble::Timeout) => Err(DiscoveryError::Timeout { name }),
        }
    }
}

impl Inner {
    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one question about a name that is on its way, or a new one; `None`: there are too many.
    fn fly(self: &Arc<Inner>, names: &mut Names, name: &str) -> Option<Flying> {
        // a sender that is gone without a word was a task that panicked
        if let Some(flying) = names.flying.get(name).filter(|flying| flying.has_changed().is_ok()) {
            return Some(flying.clone());
        }
        if names.flying.len() >= MOST_AT_ONCE {
            return None;
        }
        if self.config.dane != Dane::Off && self.config.dnssec != Dnssec::Off {
            // most servers are at the name itself: what will be asked next is asked now
            let resolver = Resolver(self.clone());
            let owner = format!("_{}._tcp.{name}", self.config.port);
            let by = Deadline(self.clock.now() + LONGEST_QUESTION);
            tokio::spawn(async move { resolver.tlsa(&owner, Evidence::PkixAndDane, by).await });
        }
        let (tell, flying) = watch::channel(None);
        names.flying.insert(name.to_owned(), flying.clone());
        let (inner, name) = (self.clone(), name.to_owned());
        // A task of its own: a caller who gives up ends the waiting, not the question.
        tokio::spawn(async move {
            let (outcome, left) = inner.question(&name).await;
            tell.send_replace(Some((outcome.clone(), left)));
            let inner = Arc::downgrade(&inner);
            if outcome.is_ok() {
                tokio::spawn(keep_fresh(inner, name, outcome, left));
            }
        });
        Some(flying)
    }

    async fn keys(&self, name: &str) -> Keys {
        let question = async { self.asker.records(ways::absolute(name)?, RecordType::TLSA).await };
        let question = timer::at(self.clock.clone(), question);
        let end = self.clock.now() + LONGEST_QUESTION;
        let outcome = tokio::time::timeout_at(end, question).await.unwrap_or(Err(Trouble::Timeout));
        let (records, worth) = match outcome {
            Ok(found) => {
                let secure = found.worth.security == Security::Secure;
                let records = found.data.iter().filter_map(|data| match data {
                    RData::TLSA(tlsa) => Tlsa::read(
                        tlsa.cert_usage.into(),
                        tlsa.selector.into(),
                        tlsa.matching.into(),
                        &tlsa.cert_data,
                    ),
                    _ => None,
                });
                // a set of records that we cannot use is as good as none (RFC 7671 section 4)
                let records: Vec<Tlsa> = records.take(dane::MOST).collect();
                ((secure && !records.is_empty()).then_some(records), Some(found.worth))
            }
            Err(Trouble::Missing(worth)) => (None, Some(worth)),
            Err(_) => (None, None),
        };
        let until = self.until(records.is_some(), worth);
        Keys { records, until }
    }

    /// Until when an answer, or that there is none, may be believed.
    fn until(&self, is_there: bool, worth: Option<Worth>) -> Instant {
        let limits = self.config.cache;
        let least = limits.least.duration();
        let most = if is_there { limits.most } else { limits.denial }.duration();
        let mut life = worth.map_or(least, |worth| worth.ttl.max(least).min(most));
        if let Some(end) = worth.and_then(|worth| worth.signed_until) {
            life = life.min(Duration::from_secs(end.saturating_sub(self.clock.unix())));
        }
        self.clock.now() + life
    }

    async fn question(&self, name: &str) -> (Arc<Outcome>, Duration) {
        let question = ways::find(&self.asker, &self.clock, name, &self.config);
        let question = timer::at(self.clock.clone(), question);
        let end = self.clock.now() + LONGEST_QUESTION;
        let outcome = tokio::time::timeout_at(end, question).await.unwrap_or(Err(Trouble::Timeout));
        if matches!(outcome, Err(Trouble::Bogus(_))) {
            // perhaps the zone's keys have just changed
            self.asker.forget_keys();
        }
        let outcome = Arc::new(outcome);
        let mut names = self.names();
        let left = names.cache.put(name, outcome.clone(), self.clock.now(), self.clock.unix());
        names.flying.remove(name);
        (outcome, left)
    }
}

/// A name that was used since its answer came is asked for again before that ends, so that nobody waits for it.
async fn keep_fresh(inner: Weak<Inner>, name: String, outcome: Arc<Outcome>, left: Duration) {
    let Some(clock) = inner.upgrade().map(|inner| inner.clock.clone()) else { return };
    clock.sleep(left.mul_f32(0.9)).await;
    let Some(inner) = inner.upgrade() else { return };
    let mut names = inner.names();
    if names.cache.is_used(&name, &outcome) {
        inner.fly(&mut names, &name);
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
            Pending::Flying(flying) => told(flying, by).await,
            Pending::Stale(outcome, flying, until) => {
                let failed =
                    |answer: &Answer| matches!(&*answer.outcome, Err(Trouble::Failed(_) | Trouble::Timeout));
                match told(flying, until.min(by)).await.filter(|answer| !failed(answer)) {
                    Some(better) => Some(better),
                    None => Some(Answer { outcome, left: Duration::ZERO, cached: true }),
                }
            }
        }
    }
}

async fn told(mut flying: Flying, by: Instant) -> Option<Answer> {
    let told = tokio::time::timeout_at(by, flying.wait_for(Option::is_some)).await.ok()?.ok()?;
    let (outcome, left) = told.as_ref()?;
    Some(Answer { outcome: outcome.clone(), left: *left, cached: false })
}

#[cfg(test)]
mod tests;
