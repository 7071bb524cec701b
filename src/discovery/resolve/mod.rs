//! From a NetID or a JoinEUI to the addresses of its server, by DNS with DNSSEC (TS002 section 19).
//!
//! Owns the questions: which names, in which order, within which time, and what DNSSEC has to say before an answer
//! counts. Asking is [`ask`]'s, remembering [`super::cache`]'s.

mod ask;
mod config;
mod denial;
pub mod timer;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;

use crate::backend::door::Deadline;
use crate::clock::{Clock, Instant};
use crate::lorawan::{DevEui, JoinEui, NetId};

use self::ask::{Asker, BOGUS};
use super::bucket::Wait;
use super::cache::{Cache, Line, Outcome, Trouble};
use super::name;

pub use self::ask::SetupError;
pub use self::config::{Config, Dane, Dnssec, Server};
pub use super::cache::Security;

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
    flying: BTreeMap<String, Flying>,
}

/// A question on its way: what came of it, and for how long that holds.
type Flying = watch::Receiver<Option<(Arc<Outcome>, Duration)>>;

/// An answer on its way to one who waits for it.
enum Pending {
    Cached(Arc<Outcome>, Duration),
    Flying(Flying),
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
            at("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.joineuis.lab.iotroam.example", "192.0.2.4"),
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
    async fn a_missing_join_server_beside_another_is_proven_missing() {
        let bench = Bench::new().await;
        let resolver = bench.resolver(Dnssec::Require);
        let missing = "0000000000000002".parse().unwrap();
        let err = resolver.join_server(missing, None, bench.soon()).await.unwrap_err();
        assert!(matches!(err, DiscoveryError::NotFound { proven: true, .. }), "{err}");
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
    async fn the_proof_that_one_device_did_not_move_serves_for_others() {
        let bench = Bench::new().await;
        let resolver = bench.resolver(Dnssec::Require);
        resolver.join_server(join_eui(), Some(dev_eui("0000000000000002")), bench.soon()).await.unwrap();
        bench.zone.forget_queries();
        let other = Some(dev_eui("0000000000000003"));
        assert_eq!(resolver.join_server(join_eui(), other, bench.soon()).await.unwrap().host, JS_1);
        assert_eq!(bench.zone.queries(), []);
        let moved = Some(dev_eui("0000000000000001"));
        let found = resolver.join_server(join_eui(), moved, bench.soon()).await.unwrap();
        assert_eq!(found.addresses, ["192.0.2.20:443".parse().unwrap()]);
        // whoever forgets, forgets the proof too
        resolver.flush(None);
        bench.zone.set_manner(Manner::Silent);
        let another = Some(dev_eui("0000000000000004"));
        let err = resolver.join_server(join_eui(), another, bench.soon()).await.unwrap_err();
        assert!(matches!(err, DiscoveryError::Timeout { .. }), "{err}");
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
            bench.zone.forget_queries();
            let err = bench.resolver(dnssec).net_server(net_id("000001"), bench.soon()).await.unwrap_err();
            assert!(matches!(err, DiscoveryError::Bogus { .. }), "{err}");
            assert!(bench.zone.queries().len() < 10, "{:?}", bench.zone.queries());
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
    async fn the_long_names_of_an_unsigned_zone_cost_few_questions() {
        let bench = Bench::new().await;
        let join_eui_suffix = "joineuis.lab.iotroam.example".parse().unwrap();
        let config = Config { join_eui_suffix, ..bench.config(Dnssec::Prefer) };
        let resolver = Resolver::new(config, bench.clock.clone()).unwrap();
        let found =
            resolver.join_server(join_eui(), Some(dev_eui("0000000000000002")), bench.soon()).await.unwrap();
        assert_eq!(found.security, Security::Insecure);
        assert!(bench.zone.queries().len() < 20, "{:#?}", bench.zone.queries());
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
        let answers = futures_util::future::join_all(asks).await;
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
    async fn an_answer_too_long_for_a_datagram_comes_by_tcp() {
        let address = |n: u8| (NS_1.to_owned(), Data::Address(IpAddr::from([192, 0, 2, n])));
        let bench = Bench::with(|plan| plan.records = (1..=200).map(address).collect()).await;
        let found = bench.resolver(Dnssec::Require).net_server(net_id("000001"), bench.soon()).await.unwrap();
        assert_eq!((found.addresses.len(), found.security), (200, Security::Secure));
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
