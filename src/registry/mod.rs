//! The federation's registry: who its members are, which NetIDs and JoinEUIs are theirs, and the DNS zone in which everybody
//! finds them (`roamgate registry`).
//!
//! Members change their own names through the API ([`api`]) or with a browser ([`pages`]); what they may put there is decided in
//! [`rules`]; [`server`] answers questions about the zone from the store, signed as they are answered ([`zone`]). Where another server
//! is the zone's primary already, [`primary`] tells it every change.

pub mod access;
pub mod api;
pub mod certificates;
pub mod openapi;
pub mod oui;
pub mod pages;
pub mod primary;
pub mod rules;
pub mod server;
pub mod zone;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hickory_proto::dnssec::crypto::EcdsaSigningKey;
use hickory_proto::dnssec::rdata::DNSKEY;
use hickory_proto::dnssec::{Algorithm, DnssecSigner, SigningKey};
use hickory_proto::rr::{Name, RecordType};
use rustls_pki_types::PrivatePkcs8KeyDer;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::discovery::{Resolver, Suffix};
use crate::store::Store;
use crate::store::registry::{Entry, ZoneKey};
use crate::web;

use access::Guesses;
use api::Desk;
use certificates::Office;
use primary::Link;
use rules::NetIds;
use server::{NameServer, Served};

/// How often secondaries get new signatures: well before the old ones end.
const SIGN_ANEW: Duration = Duration::from_secs(86_400);

/// Section `[registry]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The zone: everything that is published stands below it.
    pub zone: Suffix,
    /// What stands behind a NetID; `netids` below the zone where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net_id_suffix: Option<Suffix>,
    /// What stands behind a JoinEUI; `joineuis` below the zone where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join_eui_suffix: Option<Suffix>,
    /// Where the API is: plain HTTP, on this machine or behind a proxy that brings TLS.
    #[serde(default = "api")]
    pub listen: SocketAddr,
    /// Where the zone is served, UDP and TCP.
    #[serde(default = "dns")]
    pub dns: SocketAddr,
    /// Names of the zone's name servers, the first this one.
    pub servers: Vec<Suffix>,
    /// Addresses of secondaries, who get the zone whole (AXFR).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secondaries: Vec<IpAddr>,
    /// TTL of denials, seconds: a new name is found everywhere after so long.
    #[serde(default = "a_minute")]
    pub negative_ttl: u32,
    /// NetIDs that the federation hands out to members who have none of the LoRa Alliance's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net_ids: Option<NetIds>,
    /// Another server that is the zone's primary: told every change (RFC 2136).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<primary::Config>,
    /// Folder of the intermediate that signs members' certificates (`roamgate pki intermediate`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<PathBuf>,
}

fn api() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8090))
}

fn dns() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 53))
}

fn a_minute() -> u32 {
    60
}

impl Config {
    /// Where names are.
    pub fn suffixes(&self) -> anyhow::Result<rules::Suffixes> {
        let of = |given: &Option<Suffix>, label: &str| match given {
            Some(suffix) => Ok(suffix.clone()),
            None => format!("{label}.{}", self.zone).parse::<Suffix>().map_err(anyhow::Error::new),
        };
        let suffixes = rules::Suffixes {
            net_id: of(&self.net_id_suffix, "netids")?,
            join_eui: of(&self.join_eui_suffix, "joineuis")?,
        };
        let zone = absolute(self.zone.as_str())?;
        for suffix in [&suffixes.net_id, &suffixes.join_eui] {
            anyhow::ensure!(
                zone.zone_of(&absolute(suffix.as_str())?),
                "{suffix} is not within the zone {}",
                self.zone
            );
        }
        Ok(suffixes)
    }
}

/// A full name.
pub fn absolute(text: &str) -> anyhow::Result<Name> {
    let mut name =
        Name::from_ascii(text.to_ascii_lowercase()).with_context(|| format!("{text:?} is no name"))?;
    name.set_fqdn(true);
    Ok(name)
}

/// A zone key that signs, or will.
fn signer(key: &ZoneKey, origin: &Name) -> anyhow::Result<(DNSKEY, DnssecSigner)> {
    let secret = PrivatePkcs8KeyDer::from(key.secret.to_vec());
    let signing = EcdsaSigningKey::from_pkcs8(&secret, Algorithm::ECDSAP256SHA256)?;
    // one key signs keys and records alike, and is a secure entry point
    let dnskey = DNSKEY::new(true, true, false, signing.to_public_key()?);
    let signer = DnssecSigner::new(dnskey.clone(), Box::new(signing), origin.clone(), zone::SIGNED_FOR);
    Ok((dnskey, signer))
}

/// A key for the zone (PKCS#8, DER).
fn new_zone_key() -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let made = EcdsaSigningKey::generate_pkcs8(Algorithm::ECDSAP256SHA256)?;
    Ok(Zeroizing::new(made.secret_pkcs8_der().to_vec()))
}

impl zone::Apex {
    /// The same with these keys.
    fn with_keys(mut self, keys: &[ZoneKey]) -> anyhow::Result<zone::Apex> {
        (self.keys, self.signers) = Default::default();
        for key in keys {
            if key.state == SIGNING {
                let (dnskey, signer) = signer(key, &self.origin)?;
                self.keys.push(dnskey);
                self.signers.push(Arc::new(signer));
            }
        }
        Ok(self)
    }
}

/// The zone's own part, with the keys that the store holds; a first one is made where there is none.
pub async fn apex(config: &Config, store: &Store) -> anyhow::Result<zone::Apex> {
    let made = new_zone_key()?;
    let keys = store.registry(move |book| {
        let first = book.zone_keys()?.is_empty();
        if first {
            book.add_zone_key(&made, SIGNING)?;
            book.audit(None, None, "zone key made", "the first")?;
        }
        Ok((book.zone_keys()?, first))
    });
    let keys = keys.await.context("keys of the zone")?;
    let servers = config.servers.iter().map(|server| absolute(server.as_str()));
    let servers = servers.collect::<anyhow::Result<Vec<_>>>()?;
    anyhow::ensure!(!servers.is_empty(), "[registry] servers names no name server");
    let (origin, negative_ttl) = (absolute(config.zone.as_str())?, config.negative_ttl);
    let (published, signers) = Default::default();
    zone::Apex { origin, servers, negative_ttl, keys: published, signers }.with_keys(&keys)
}

/// State of a zone key that signs.
pub const SIGNING: &str = "signing";
/// State of a zone key that is not in the zone yet.
pub const MADE: &str = "made";

/// The zone says which NetIDs the federation hands out itself.
async fn declare(section: &Config, suffixes: &rules::Suffixes, store: &Store) -> anyhow::Result<()> {
    let name = absolute(&format!("_handed-out.{}", suffixes.net_id))?;
    let place = zone::place(&name, &absolute(section.zone.as_str())?).context("[registry] net_id_suffix")?;
    let wanted = section.net_ids.map(|range| format!("\"{range}\""));
    let done = store.registry(move |book| {
        let there = book.at(&place)?.pop().map(|entry| entry.data);
        let operator = book.members()?.into_iter().find(|member| member.operator);
        // before the first account there is nobody whose it could be
        let Some(operator) = operator.filter(|_| there != wanted) else { return Ok(((), false)) };
        let entry = |data: &String| Entry {
            place: place.clone(),
            kind: RecordType::TXT.into(),
            data: data.clone(),
            ttl: zone::APEX_TTL,
            member: operator.id,
        };
        book.put(&place, &wanted.iter().map(entry).collect::<Vec<_>>())?;
        book.next_serial()?;
        Ok(((), true))
    });
    done.await.context("declare [registry] net_ids")
}

/// Secondaries keep signatures that end ([`zone::SIGNED_FOR`]), and fetch the zone when its serial number has changed only.
async fn sign_anew(store: Store, clock: Clock) {
    loop {
        if let Err(error) = store.registry(|book| Ok((book.next_serial()?, true))).await {
            tracing::warn!("secondaries are not told to fetch new signatures: {error}");
        }
        clock.sleep(SIGN_ANEW).await;
    }
}

/// A running registry.
pub struct Running {
    /// The zone's server.
    pub dns: NameServer,
    /// The API's.
    pub api: web::Served,
    store: Store,
    tasks: JoinSet<()>,
}

impl Running {
    /// Open the store, serve the zone, the API and the pages. `resolver`: what readers of the DNS find, and proofs of members.
    pub async fn start(
        section: &Config,
        resolver: Resolver,
        store: Store,
        clock: &Clock,
    ) -> anyhow::Result<Running> {
        let suffixes = section.suffixes().context("[registry]")?;
        let mut tasks = JoinSet::new();
        primary::prepare(&store, section.primary.is_some()).await?;
        declare(section, &suffixes, &store).await?;
        let apex = apex(section, &store).await?;
        let apex_name = apex.origin.clone();
        let served = Served::new(store.clone(), apex, section.secondaries.clone(), clock.clone());
        let dns = served
            .listen(section.dns)
            .await
            .with_context(|| format!("serve the zone on {} ([registry] dns)", section.dns))?;
        let guesses = Arc::new(Guesses::new(clock.clone()));
        let office =
            section.authority.as_ref().map(|folder| Office::open(folder, clock.clone())).transpose()?;
        if let Some(config) = &section.primary {
            let link = Link::new(config, apex_name, clock.clone()).context("[registry] primary")?;
            tasks.spawn(link.run(store.clone()));
        }
        let net_ids = section.net_ids;
        let (shared, now) = (store.clone(), clock.clone());
        let desk = Desk { store: shared, suffixes, served, office, guesses, net_ids, resolver, clock: now };
        let api = web::serve(section.listen, pages::router(Arc::new(desk)), clock.clone())
            .await
            .with_context(|| format!("serve the API on {} ([registry] listen)", section.listen))?;
        if !section.secondaries.is_empty() {
            tasks.spawn(sign_anew(store.clone(), clock.clone()));
        }
        Ok(Running { dns, api, store, tasks })
    }

    /// Stop serving, and close the store.
    pub async fn stop(self) -> anyhow::Result<()> {
        drop((self.dns, self.api, self.tasks));
        self.store.close().await.context("close the store")
    }
}
