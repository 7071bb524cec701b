//! What this node shows and whom it believes, and how both are replaced while it runs.
//!
//! Read from files at the start, and again whenever somebody asks or the clock says so: the certificate and its key, the
//! roots, what partners' entries pin, and what has been revoked. Whatever cannot be used is told and changes nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use crate::backend;
use crate::backend::tunnel;
use crate::clock::Clock;
use crate::config::Config;
use crate::discovery::Suffix;
use crate::discovery::name::net_id_name;
use crate::partners;
use crate::pki::check::{self, Facts, PeerRules};
use crate::pki::dane::Evidence;
use crate::pki::enrol::{self, Asked, Registry};
use crate::pki::folder::Folder;
use crate::pki::make::{self, NewFile};
use crate::pki::revoke::{List, Revoked};
use crate::tls::{Identity, Roots, Shown, Trust};

/// How often lists are fetched, and dates looked at: a partner that is struck off is refused as soon as its name is forgotten, which is
/// published for five minutes.
const LOOK: Duration = Duration::from_secs(300);
/// A list is fetched within so long, or not this time.
const FETCH_TIME: Duration = Duration::from_secs(20);
/// Of bytes.
const LONGEST_LIST: usize = 4 * 1024 * 1024;
/// Days before the end of a certificate at which its operator hears of it.
const ALARMS: [i64; 4] = [30, 14, 7, 1];

/// Shared by everything that shows or believes.
pub struct Credentials {
    /// The certificate and its key.
    pub shown: Shown,
    /// The judge of partners.
    pub trust: Arc<Trust>,
    suffix: Suffix,
    clock: Clock,
    /// What is read; a new configuration replaces it.
    config: Mutex<Arc<Config>>,
    /// Lists that were fetched, by address.
    fetched: Mutex<BTreeMap<String, Vec<u8>>>,
    /// The last alarm of each certificate, by serial number.
    told: Mutex<BTreeMap<String, i64>>,
    /// Lists are to be fetched now.
    hurry: Notify,
}

impl Credentials {
    /// Read everything that the configuration names. Half a configuration is an error, never a node without TLS.
    pub fn load(config: &Config, clock: &Clock) -> anyhow::Result<Option<Arc<Credentials>>> {
        let Some(backend) = &config.backend else { return Ok(None) };
        let suffix = config.discovery.clone().unwrap_or_default().net_id_suffix;
        let identity = identity(backend)?;
        let trust = Trust::new(&roots(config, backend, &suffix)?, pins(config, &suffix)?, clock.clone())?;
        let fetched = backend.crls.iter().filter_map(|list| Some((list.clone(), kept(config, list)?)));
        let fetched = Mutex::new(fetched.collect());
        let credentials = Credentials {
            shown: Shown::from(&identity),
            trust,
            suffix,
            clock: clock.clone(),
            config: Mutex::new(Arc::new(config.clone())),
            fetched,
            told: Mutex::default(),
            hurry: Notify::new(),
        };
        credentials.reload(None)?;
        Ok(Some(Arc::new(credentials)))
    }

    /// Read the files again, as `config` says from now on. What is wrong changes nothing.
    pub fn reload(&self, config: Option<&Config>) -> anyhow::Result<Facts> {
        let config = match config {
            Some(config) => Arc::new(config.clone()),
            None => self.config.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        };
        let backend = config.backend.as_ref().context("there is no [backend] any more")?;
        let identity = identity(backend)?;
        let leaf = identity.chain().first().context("no certificate")?;
        let leaf = check::facts(leaf)?;
        let revoked = self.revoked(backend)?;
        if let Some(why) = revoked.why(identity.chain(), []) {
            tracing::error!(
                why,
                remedy = "`roamgate pki request`, then `pki install`",
                "our own certificate has been revoked"
            );
        }
        self.trust.renew(&roots(&config, backend, &self.suffix)?, pins(&config, &self.suffix)?, revoked)?;
        self.shown.show(&identity);
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(leaf)
    }

    fn revoked(&self, backend: &backend::Config) -> anyhow::Result<Revoked> {
        let mut revoked = Revoked::default();
        for word in &backend.deny {
            revoked.deny(word).context("[backend] deny")?;
        }
        let fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        for list in &backend.crls {
            let bytes = match fetched.get(list) {
                Some(bytes) => bytes.clone(),
                None if list.contains("://") => continue,
                None => std::fs::read(list).with_context(|| format!("[backend] crls: {list}"))?,
            };
            revoked.add(List::read(&bytes).with_context(|| format!("[backend] crls: {list}"))?);
        }
        Ok(revoked)
    }

    /// Fetch lists, look at the files and at the dates, now and then.
    pub async fn keep(self: Arc<Credentials>) {
        loop {
            self.look().await;
            tokio::select! {
                () = self.clock.sleep(LOOK) => {}
                () = self.hurry.notified() => {}
            }
        }
    }

    /// Fetch lists and look at the rest soon, because somebody asks for it.
    pub fn hurry(&self) {
        self.hurry.notify_one();
    }

    /// What our account at the registry is for. One thing that fails keeps no other from being done.
    async fn enrol(&self, config: &Config, enrol: &enrol::Config) {
        let backend = config.backend.as_ref();
        let roots = backend.map(|backend| backend.roots.clone()).unwrap_or_default();
        let done = match Registry::new(enrol, &roots, &self.clock) {
            Ok(registry) => {
                vec![self.renew(config, enrol, &registry).await, self.publish(config, enrol, &registry).await]
            }
            Err(error) => vec![Err(error.into())],
        };
        for error in done.into_iter().filter_map(Result::err) {
            tracing::warn!("[enrol]: {error:#}; it is tried again");
        }
    }

    /// Have our addresses published.
    async fn publish(
        &self,
        config: &Config,
        enrol: &enrol::Config,
        registry: &Registry,
    ) -> anyhow::Result<()> {
        for net_id in config.network.net_ids.all().iter().filter(|_| !enrol.addresses.is_empty()) {
            if registry.publish(*net_id, &enrol.addresses).await? {
                tracing::info!(%net_id, addresses = ?enrol.addresses, "our addresses are published at the registry");
            }
        }
        Ok(())
    }

    /// Renew the certificate when it is time.
    async fn renew(&self, config: &Config, enrol: &enrol::Config, registry: &Registry) -> anyhow::Result<()> {
        let identity = config.backend.as_ref().map(|backend| &backend.identity);
        let Some(backend::Identity::Folder(folder)) = identity else { return Ok(()) };
        let shown = self.shown.identity();
        let leaf = shown.chain().first().context("no certificate")?;
        let leaf = check::facts(leaf)?;
        let due = enrol::is_due(
            leaf.not_before.as_second(),
            leaf.not_after.as_second(),
            self.clock.wall().as_second(),
        );
        if !enrol.renew || !due {
            return Ok(());
        }
        let folder = Folder::new(folder);
        let named = leaf.common_name.clone().unwrap_or_default();
        let waiting = folder.request(&named, &leaf.dns_names, false)?;
        match registry.certificate(&waiting.pem).await? {
            Asked::Waiting => {
                tracing::warn!("the renewed certificate waits for the word of the registry's operator");
            }
            Asked::Signed(chain) => {
                folder.install(&chain, &self.trust.root_certificates(), &self.clock)?;
                if let Err(error) = self.reload(None) {
                    folder.roll_back()?;
                    return Err(error.context("the renewed certificate is not used"));
                }
                tracing::info!("the certificate has been renewed by the registry");
            }
        }
        Ok(())
    }

    /// What is to be done now and then, once.
    pub async fn look(&self) {
        let config = self.config.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(enrol) = config.enrol.as_ref().filter(|_| self.clock.is_trusted()) {
            self.enrol(&config, enrol).await;
        }
        let lists = config.backend.iter().flat_map(|backend| &backend.crls);
        let mut changed = false;
        for list in lists.filter(|list| list.contains("://")) {
            match fetch(list).await {
                Ok(bytes) => {
                    let mut fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
                    if fetched.get(list) != Some(&bytes) {
                        changed = true;
                        keep(&config, list, &bytes);
                    }
                    fetched.insert(list.clone(), bytes);
                }
                Err(error) => {
                    let remedy =
                        "what was fetched before still counts; if it lasts, ask whoever publishes it";
                    tracing::warn!(list, "{error:#}: {remedy}");
                }
            }
        }
        if changed && let Err(error) = self.reload(None) {
            tracing::warn!("lists of revoked certificates were fetched and are not used: {error:#}");
        }
        self.alarms();
    }

    /// Certificates of ours that end soon, and roots: each is told of 30, 14, 7 and 1 days before.
    fn alarms(&self) {
        if !self.clock.is_trusted() {
            return;
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for (what, facts) in self.certificates() {
            let left = days_left(&facts, self.clock.wall());
            let Some(alarm) = ALARMS.into_iter().rev().find(|days| left <= *days) else { continue };
            if told.insert(facts.serial.clone(), alarm) == Some(alarm) {
                continue;
            }
            let (named, remedy) = (facts.common_name.as_deref().unwrap_or(&facts.subject), remedy(what));
            match left {
                ..0 => tracing::error!(what, remedy, "{named} ended on {}", facts.not_after),
                _ => tracing::warn!(what, remedy, "{named} ends in {left} days, on {}", facts.not_after),
            }
        }
    }

    /// Our leaf, what stands above it, and the roots.
    fn certificates(&self) -> Vec<(&'static str, Facts)> {
        let chain = self.shown.identity();
        let facts = chain.chain().iter().filter_map(|der| check::facts(der).ok()).enumerate();
        let ours =
            facts.map(
                |(place, facts)| {
                    if place == 0 { ("our certificate", facts) } else { ("our intermediate", facts) }
                },
            );
        ours.chain(self.trust.roots().into_iter().map(|facts| ("a root that we believe", facts))).collect()
    }

    /// For people: what is shown, and until when; and what ends soon.
    pub fn status(&self) -> Vec<String> {
        let wall = self.clock.wall();
        let all = self.certificates();
        let own = all.first().map(|(_, facts)| {
            let day = facts.not_after.strftime("%Y-%m-%d");
            format!("{}, valid until {day}: {} days left", facts.dns_names.join(" "), days_left(facts, wall))
        });
        let soon = all.iter().skip(1).filter(|(_, facts)| days_left(facts, wall) <= ALARMS[0]);
        let soon = soon.map(|(what, facts)| {
            let named = facts.common_name.as_deref().unwrap_or(&facts.subject);
            format!("{what}, {named}, ends on {}", facts.not_after.strftime("%Y-%m-%d"))
        });
        own.into_iter().chain(soon).collect()
    }
}

fn remedy(what: &str) -> &'static str {
    match what {
        "our certificate" => "`roamgate pki request`, send it to whoever signs, then `roamgate pki install`",
        "our intermediate" => "ask the federation for a new one; then a new certificate below it",
        _ => {
            "ask the federation for its new root, and list both in [backend] roots until every partner has changed"
        }
    }
}

fn days_left(facts: &Facts, wall: Timestamp) -> i64 {
    (facts.not_after.as_second() - wall.as_second()).div_euclid(86_400)
}

/// Where a list that was fetched is kept: beside the database, so that whoever was struck off before a restart still is.
fn shelf(config: &Config, list: &str) -> Option<(PathBuf, String)> {
    let folder = config.store.url.path().parent()?;
    let name = hex::encode(Sha256::digest(list.as_bytes()));
    Some((folder.to_owned(), format!("revoked-{}.pem", name.get(..16)?)))
}

/// A list as it was fetched last, by this run or one before.
fn kept(config: &Config, list: &str) -> Option<Vec<u8>> {
    let (folder, name) = shelf(config, list).filter(|_| list.contains("://"))?;
    let bytes = std::fs::read(folder.join(name)).ok()?;
    List::read(&bytes).ok().map(|_| bytes)
}

fn keep(config: &Config, list: &str, bytes: &[u8]) {
    let written = || {
        let (folder, name) = shelf(config, list).context("the database has no folder")?;
        let text = match std::str::from_utf8(bytes) {
            Ok(pem) => pem.to_owned(),
            // DER
            Err(_) => {
                format!(
                    "-----BEGIN X509 CRL-----\n{}\n-----END X509 CRL-----\n",
                    BASE64_STANDARD.encode(bytes)
                )
            }
        };
        make::write_files(&folder, &[NewFile { name: &name, text: &text, secret: false }], true)?;
        anyhow::Ok(())
    };
    if let Err(error) = written() {
        tracing::warn!(list, "a list of revoked certificates is forgotten at the next restart: {error:#}");
    }
}

fn identity(backend: &backend::Config) -> anyhow::Result<Identity> {
    Ok(Identity::load(&backend.identity.chain(), &backend.identity.key())?)
}

async fn fetch(address: &str) -> anyhow::Result<Vec<u8>> {
    // what is signed needs no TLS, and a way to https:// would believe the system's roots
    let client = reqwest::Client::builder().timeout(FETCH_TIME).no_proxy().referer(false);
    let client = client.redirect(reqwest::redirect::Policy::none()).build()?;
    let mut response = client.get(address).send().await?.error_for_status()?;
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        bytes.extend_from_slice(&chunk);
        anyhow::ensure!(bytes.len() <= LONGEST_LIST, "a list of more than {LONGEST_LIST} bytes");
    }
    List::read(&bytes)?;
    Ok(bytes)
}

/// The federation's roots, and those of partners outside it, each for the names of its partner alone.
pub fn roots(config: &Config, backend: &backend::Config, suffix: &Suffix) -> anyhow::Result<Roots> {
    let mut roots = match backend.roots.as_slice() {
        [] => Roots::default(),
        files => Roots::load(files)?,
    };
    for partner in config.roaming.partner.iter().filter(|partner| !partner.roots.is_empty()) {
        let own = Roots::load(&partner.roots)
            .with_context(|| format!("roots of [[roaming.partner]] {}", partner.net_id))?;
        roots = roots.and(own.only_for([partner.certificate_name(suffix)]));
    }
    Ok(roots)
}

/// Keys that entries of partners and fronts pin, each with the names that it may speak for.
pub fn pins(config: &Config, suffix: &Suffix) -> anyhow::Result<PeerRules> {
    let rootless = |partner: &partners::Partner| partner.trust.is_some_and(Evidence::is_rootless);
    let mut rules = PeerRules::default();
    rules.rootless = config.roaming.partner.iter().any(rootless);
    for partner in &config.roaming.partner {
        let Some(pin) = &partner.pin else { continue };
        let pin = pin.parse().with_context(|| format!("pin of [[roaming.partner]] {}", partner.net_id))?;
        let own = net_id_name(partner.net_id, suffix);
        rules.allow(pin, partner.identity.iter().cloned().chain([own]));
    }
    let fronts = config.backend.iter().flat_map(|backend| backend.reachability.fronts());
    for front in fronts {
        let (Some(pin), Some(host)) = (&front.pin, tunnel::host_of(&front.server)) else { continue };
        rules.allow(pin.parse().with_context(|| format!("pin of the front {}", front.server))?, [host]);
    }
    Ok(rules)
}
