//! From a name to the ways to its server: NAPTR first, then SRV and addresses (TS002 section 19, RFC 3403, RFC 2782).
//!
//! Owns which record leads to which question, and what becomes of branches that lead nowhere. Called by [`super`] only.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join, join_all};
use hickory_proto::rr::{Name, RData, RecordType};
use url::Host;

use super::super::cache::{Found, Outcome, Security, Trouble, Way, Worth};
use super::ask::{Asker, Records, text};
use super::config::Config;
use super::naptr::{self, Place, Step};
use crate::clock::Clock;

/// NAPTR records that lead to NAPTR records.
const MOST_STEPS: usize = 8;
/// Questions that one name may cost: its owner decides how many records lead where.
const MOST_QUESTIONS: u32 = 64;
/// How soon what failed is asked for again, where something else was found meanwhile.
const AGAIN: Duration = Duration::from_secs(60);
/// The port of HTTPS, which flag A means.
const HTTPS: u16 = 443;

/// Ways to the server of a name.
pub(super) async fn find(asker: &Asker, clock: &Clock, name: &str, config: &Config) -> Outcome {
    let name = absolute(name)?;
    if let Some(denied) = asker.denied(&name) {
        return Err(denied);
    }
    let walk = Walk { asker, clock, path: &config.path, asked: AtomicU32::new(0) };
    let plain = |found: Addresses, worth| Found {
        ways: vec![found.way(Vec::new(), worth, config.port, config.path.clone())],
        worth,
    };
    // all at once: the common case is that there are no NAPTR records
    let (rules, addresses) = join(walk.ask(&name, RecordType::NAPTR), walk.addresses(&name)).await;
    match (rules, addresses) {
        (Ok(rules), _) => walk.follow(&name, rules, std::slice::from_ref(&name)).await,
        (Err(Trouble::Missing(worth)), Ok(found)) => {
            let security = worth.security.min(found.worth.security);
            let worth = Worth { security, ..found.worth };
            Ok(plain(found, worth))
        }
        (Err(Trouble::Missing(worth)), Err(Trouble::Missing(other))) => {
            Err(Trouble::Missing(worth.and(other)))
        }
        (Err(Trouble::Missing(_)), Err(other)) => Err(other),
        (Err(bogus @ Trouble::Bogus(_)), _) => Err(bogus),
        // Who keeps NAPTR records from us gains nothing: the certificate has to be for the same name.
        (Err(_), Ok(mut found)) => {
            found.worth.ttl = found.worth.ttl.min(AGAIN);
            let worth = found.worth;
            Ok(plain(found, worth))
        }
        (Err(trouble), Err(Trouble::Missing(_))) => Err(trouble),
        (Err(_), Err(trouble)) => Err(trouble),
    }
}

/// The DNS's own form of a name.
pub(super) fn absolute(name: &str) -> Result<Name, Trouble> {
    let mut fqdn =
        Name::from_ascii(name).map_err(|err| Trouble::Failed(format!("{name:?} is no name: {err}")))?;
    fqdn.set_fqdn(true);
    Ok(fqdn)
}

struct Walk<'a> {
    asker: &'a Asker,
    clock: &'a Clock,
    /// Where no URI names one.
    path: &'a str,
    asked: AtomicU32,
}

/// A and AAAA of a name.
struct Addresses {
    ips: Vec<IpAddr>,
    by: Vec<String>,
    worth: Worth,
}

impl Addresses {
    /// The way here, by these names, whose records are worth so much.
    fn way(self, mut by: Vec<String>, worth: Worth, port: u16, path: String) -> Way {
        by.extend(self.by);
        Way { by, addresses: self.ips, port, path, security: worth.and(self.worth).security }
    }
}

/// Ways, and what the records that led there are worth; or nothing, for this reason.
type Branch = Result<Found, Trouble>;

impl Walk<'_> {
    async fn ask(&self, name: &Name, kind: RecordType) -> Result<Records, Trouble> {
        if self.asked.fetch_add(1, Ordering::Relaxed) >= MOST_QUESTIONS {
            return Err(Trouble::Failed(format!(
                "it takes more than {MOST_QUESTIONS} questions to find its server"
            )));
        }
        self.asker.records(name.clone(), kind).await
    }

    /// One of 0 to `most` - 1.
    fn lot(&self, most: u32) -> u32 {
        u32::from_be_bytes(self.clock.random()) % most.max(1)
    }

    async fn addresses(&self, name: &Name) -> Result<Addresses, Trouble> {
        let (v6, v4) = join(self.ask(name, RecordType::AAAA), self.ask(name, RecordType::A)).await;
        match (v6, v4) {
            (Ok(v6), Ok(v4)) => {
                let worth = v6.worth.and(v4.worth);
                Ok(Addresses { ips: ips(&v6).chain(ips(&v4)).collect(), by: v6.by, worth })
            }
            (Ok(found), Err(trouble)) | (Err(trouble), Ok(found)) => {
                let mut worth = found.worth;
                if !matches!(trouble, Trouble::Missing(_)) {
                    // ask for the other family again soon
                    worth.ttl = worth.ttl.min(AGAIN);
                }
                Ok(Addresses { ips: ips(&found).collect(), by: found.by, worth })
            }
            (Err(Trouble::Missing(v6)), Err(Trouble::Missing(v4))) => Err(Trouble::Missing(v6.and(v4))),
            (Err(Trouble::Missing(_)), Err(other)) | (Err(other), Err(Trouble::Missing(_))) => Err(other),
            (Err(bogus @ Trouble::Bogus(_)), Err(_)) | (Err(_), Err(bogus @ Trouble::Bogus(_))) => Err(bogus),
            (Err(other), Err(_)) => Err(other),
        }
    }

    /// Where the NAPTR records of a name lead. `seen`: the names with NAPTR records on the way here.
    fn follow<'b>(&'b self, at: &'b Name, rules: Records, seen: &'b [Name]) -> BoxFuture<'b, Branch> {
        async move {
            let records = rules.data.iter().filter_map(|data| match data {
                RData::NAPTR(record) => Some(record.clone()),
                _ => None,
            });
            let records: Vec<_> = records.collect();
            let (steps, mut dropped) = naptr::steps(at, &records, &mut |most| self.lot(most));
            if steps.is_empty() {
                return Err(Trouble::Useless(rules.worth, dropped.join("; ")));
            }
            match first_to_last(join_all(steps.iter().map(|step| self.branch(step, seen))).await) {
                Ok(mut found) => {
                    found.worth = found.worth.and(rules.worth);
                    for way in &mut found.ways {
                        way.by.splice(0..0, rules.by.iter().cloned());
                        way.security = way.security.min(rules.worth.security);
                    }
                    Ok(found)
                }
                Err(Trouble::Missing(worth)) => {
                    dropped.push("what its NAPTR records name has no address".into());
                    Err(Trouble::Useless(rules.worth.and(worth), dropped.join("; ")))
                }
                Err(Trouble::Useless(worth, why)) => {
                    dropped.push(why);
                    Err(Trouble::Useless(rules.worth.and(worth), dropped.join("; ")))
                }
                Err(other) => Err(other),
            }
        }
        .boxed()
    }

    async fn branch(&self, step: &Step, seen: &[Name]) -> Branch {
        match step {
            Step::Addresses(name) => self.at(name, HTTPS, self.path, Worth::UNTOUCHED).await,
            Step::Uri(Place { host, port, path }) => {
                let ip = match host {
                    Host::Domain(name) => {
                        return self.at(&absolute(name)?, *port, path, Worth::UNTOUCHED).await;
                    }
                    Host::Ipv4(ip) => IpAddr::from(*ip),
                    Host::Ipv6(ip) => IpAddr::from(*ip),
                };
                let way = Way {
                    by: Vec::new(),
                    addresses: vec![ip],
                    port: *port,
                    path: path.clone(),
                    security: Security::Secure,
                };
                Ok(Found { ways: vec![way], worth: Worth::UNTOUCHED })
            }
            Step::Srv(name) => {
                let records = self.ask(name, RecordType::SRV).await?;
                let all = records.data.iter().filter_map(|data| match data {
                    RData::SRV(record) => Some(record.clone()),
                    _ => None,
                });
                let all: Vec<_> = all.collect();
                let targets = naptr::targets(&all, &mut |most| self.lot(most));
                if targets.is_empty() {
                    let why = format!("{} says that there is no such service", text(name));
                    return Err(Trouble::Useless(records.worth, why));
                }
                let each =
                    targets.iter().map(|(target, port)| self.at(target, *port, self.path, records.worth));
                first_to_last(join_all(each).await)
            }
            Step::Again(name) => {
                if seen.contains(name) || seen.len() >= MOST_STEPS {
                    return Err(Trouble::Failed(format!(
                        "its NAPTR records lead in a circle, by way of {}",
                        text(name)
                    )));
                }
                let rules = self.ask(name, RecordType::NAPTR).await?;
                let seen = [seen, std::slice::from_ref(name)].concat();
                self.follow(name, rules, &seen).await
            }
        }
    }

    /// The way to the addresses of a name that was named by records which are worth so much.
    async fn at(&self, name: &Name, port: u16, path: &str, worth: Worth) -> Branch {
        let found = self.addresses(name).await?;
        let worth = worth.and(found.worth);
        Ok(Found { ways: vec![found.way(vec![text(name)], worth, port, path.to_owned())], worth })
    }
}

/// All that was found, in order; or why nothing was: a failure rather than a denial.
fn first_to_last(branches: Vec<Branch>) -> Branch {
    let mut all: Option<Found> = None;
    let (mut trouble, mut failed) = (None, false);
    for branch in branches {
        match (branch, &mut all) {
            (Ok(found), None) => all = Some(found),
            (Ok(found), Some(all)) => {
                all.worth = all.worth.and(found.worth);
                all.ways.extend(found.ways);
            }
            (Err(why), _) => {
                failed |= !leads_nowhere(&why);
                if trouble.as_ref().is_none_or(leads_nowhere) {
                    trouble = Some(why);
                }
            }
        }
    }
    match (all, trouble) {
        (Some(mut all), _) => {
            if failed {
                all.worth.ttl = all.worth.ttl.min(AGAIN);
            }
            Ok(all)
        }
        (None, trouble) => Err(trouble.unwrap_or(Trouble::Failed("it leads to nothing".into()))),
    }
}

/// There is an answer, and it leads to no server.
fn leads_nowhere(trouble: &Trouble) -> bool {
    matches!(trouble, Trouble::Missing(_) | Trouble::Useless(..))
}

fn ips(records: &Records) -> impl Iterator<Item = IpAddr> {
    records.data.iter().filter_map(RData::ip_addr)
}
