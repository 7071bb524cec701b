//! The way out to partners and the way in from them: identity, roots, names, client and server.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::Instrument;

use crate::backend::Reachability;
use crate::backend::client::{self, Client, Discover, NoDiscovery};
use crate::backend::door::{Boxed, Deadline, Deliver, PeerError, Peers, Rooms};
use crate::backend::keywrap::Keks;
use crate::backend::manners::{Manners, Set};
use crate::backend::mapping::{self, Mapping};
use crate::backend::message::wire::{self, Dialect};
use crate::backend::message::{Answer, Party, Request};
use crate::backend::pending::Pending;
use crate::backend::server::{self, Doorstep, Keeping, Server};
use crate::backend::tokens::Tokens;
use crate::backend::tunnel::{self, Tunnel};
use crate::clock::Clock;
use crate::config::{Config, Role};
use crate::discovery::{Resolver, Suffix};
use crate::front::{self, Front};
use crate::partners::{Quirk, Version};
use crate::systemd;
use crate::tls;

use super::credentials::Credentials;
use super::house::Ours;
use super::keks;

/// Connections that were brought and that the server has not looked at.
const BROUGHT: usize = 64;

/// What partners see of us, and what we see of them.
pub struct Way {
    config: Config,
    suffix: Suffix,
    join_eui_suffix: Suffix,
    /// `None`: no [backend], so nobody asks and nobody is asked.
    credentials: Option<Arc<Credentials>>,
    /// For the keys that partners send and get.
    keks: BTreeMap<Party, Keks>,
    /// Both ends know of them.
    pending: Arc<Pending>,
    tokens: Arc<Tokens>,
    manners: Arc<Manners>,
    clock: Clock,
}

impl Way {
    /// Load what is shown and believed. Half a configuration is an error, never a node without TLS.
    pub fn new(config: &Config, clock: &Clock) -> anyhow::Result<Way> {
        let discovery = config.discovery.clone().unwrap_or_default();
        let (suffix, join_eui_suffix) = (discovery.net_id_suffix, discovery.join_eui_suffix);
        let credentials = Credentials::load(config, clock)?;
        let keks = keks::keks(&config.roaming)?;
        let (pending, tokens) = Default::default();
        Ok(Way {
            config: config.clone(),
            suffix,
            join_eui_suffix,
            credentials,
            keks,
            pending,
            tokens,
            manners: Arc::new(manners(config)),
            clock: clock.clone(),
        })
    }

    /// What is shown and believed; `None`: no [backend].
    pub fn credentials(&self) -> Option<&Arc<Credentials>> {
        self.credentials.as_ref()
    }

    /// Asks the DNS; `None`: only who is configured is found.
    pub fn resolver(&self) -> anyhow::Result<Option<Resolver>> {
        let discovery = self.config.discovery.clone();
        Ok(discovery.map(|discovery| Resolver::new(discovery, self.clock.clone())).transpose()?)
    }

    /// The door that leads outside; `None`: nobody can be asked.
    pub fn out(&self, resolver: Option<Resolver>) -> anyhow::Result<Option<Client>> {
        let Some(credentials) = &self.credentials else { return Ok(None) };
        let partners = Arc::new(self.config.roaming.clone());
        let join_servers = keks::join_servers(&self.config.join_server)?;
        let discover: Arc<dyn Discover> = match resolver {
            Some(resolver) => Arc::new(resolver),
            None => Arc::new(NoDiscovery),
        };
        Ok(Some(Client::new(client::Parts {
            net_id: self.config.network.net_ids.first(),
            partners,
            join_servers,
            discover,
            identity: credentials.shown.clone(),
            trust: credentials.trust.clone(),
            evidence: super::partners::evidence(&self.config),
            net_id_suffix: self.suffix.clone(),
            keks: self.keks.clone(),
            pending: self.pending.clone(),
            tokens: self.tokens.clone(),
            manners: self.manners.clone(),
            keep_warm: self
                .config
                .backend
                .as_ref()
                .map_or(Duration::ZERO, |backend| backend.keep_warm.duration()),
            clock: self.clock.clone(),
        })))
    }

    /// Application servers that may ask, and what their certificates must carry.
    fn application_names(&self) -> BTreeMap<String, String> {
        let listed = self.config.join_server.application.iter();
        listed.map(|one| (one.as_id.clone(), one.identity().to_owned())).collect()
    }

    /// Open the ways on which partners reach us, as the configuration says: a port, tunnels to fronts (kept up by `tasks`),
    /// and a front of our own. `out` brings answers to those who do not wait for them.
    pub async fn open(
        &self,
        ours: &Ours,
        rooms: Arc<dyn Rooms>,
        out: Option<Client>,
        resolver: Option<Resolver>,
        keeping: Keeping,
        tasks: &mut JoinSet<()>,
    ) -> anyhow::Result<(Option<Server>, Reach)> {
        let (Some(backend), Some(credentials)) = (&self.config.backend, &self.credentials) else {
            return Ok(Default::default());
        };
        let (shown, trust) = (&credentials.shown, &credentials.trust);
        tasks.spawn(credentials.clone().keep().in_current_span());
        let roles = &self.config.network.roles;
        let answers = !roles.is_front_only();
        let (bring, brought) = mpsc::channel(BROUGHT);
        let mut reach = Reach::default();
        for front in backend.reachability.fronts().iter().filter(|_| answers) {
            let tls = tls::tunnel_client_config(shown, trust)?;
            let tunnel = Tunnel::new(front.server.clone(), tls, bring.clone(), self.clock.clone());
            tasks.spawn(tunnel.clone().keep().in_current_span());
            reach.tunnels.push(tunnel);
        }
        if let (Reachability::Mapped(mapped), Some(listen)) = (&backend.reachability, backend.listen) {
            let mapping = Mapping::new(mapped.clone(), listen, self.clock.clone());
            tasks.spawn(mapping.clone().keep().in_current_span());
            reach.mapping = Some(mapping);
        }
        if let Some(config) = &self.config.front {
            let names = shown.identity().certificate()?.dns_names;
            let parts = front::Parts {
                config: config.clone(),
                tls: tls::tunnel_server_config(shown, trust)?,
                trust: trust.clone(),
                own: answers.then_some((names, bring)),
                clock: self.clock.clone(),
            };
            let opened = front::open(parts).await;
            let listen = config.listen;
            reach.front =
                Some(opened.with_context(|| format!("open the front on {listen} ([front] listen)"))?);
        }
        let is_brought = !reach.tunnels.is_empty() || reach.front.is_some();
        let passed = systemd::listener("backend").filter(|_| answers);
        let doorstep = Doorstep { listen: backend.listen, passed, brought: is_brought.then_some(brought) };
        let is_open = answers && (doorstep.listen.is_some() || doorstep.passed.is_some() || is_brought);
        let server = match is_open {
            true => Some(self.listen(doorstep, ours, rooms, out, resolver, keeping).await?),
            false => None,
        };
        Ok((server, reach))
    }

    async fn listen(
        &self,
        doorstep: Doorstep,
        ours: &Ours,
        rooms: Arc<dyn Rooms>,
        out: Option<Client>,
        resolver: Option<Resolver>,
        keeping: Keeping,
    ) -> anyhow::Result<Server> {
        let credentials = self.credentials.as_ref().context("no identity to answer with")?;
        let (shown, trust) = (&credentials.shown, &credentials.trust);
        let roles = &self.config.network.roles;
        let parts = server::Parts {
            ours: server::Ours {
                net_ids: ours.net_ids.clone(),
                join_euis: ours.join_euis.clone(),
                roles: server::Roles {
                    fns: roles.has(Role::Fns),
                    sns: roles.has(Role::Sns),
                    hns: roles.has(Role::Hns),
                    js: roles.has(Role::Js),
                },
            },
            partners: Arc::new(self.config.roaming.clone()),
            applications: self.application_names(),
            net_id_suffix: self.suffix.clone(),
            join_eui_suffix: self.join_eui_suffix.clone(),
            keks: self.keks.clone(),
            trust: trust.clone(),
            evidence: super::partners::evidence(&self.config),
            resolver,
            rooms,
            deliver: out.map(|out| Arc::new(out) as Arc<dyn Deliver>),
            keeping: Some(keeping),
            pending: self.pending.clone(),
            tokens: self.tokens.clone(),
            manners: self.manners.clone(),
            limits: self.config.backend.as_ref().map(|backend| backend.limits).unwrap_or_default(),
            clock: self.clock.clone(),
        };
        let listen = doorstep.listen;
        let server = server::serve(doorstep, tls::server_config(shown, trust)?, parts).await;
        server.with_context(|| match listen {
            Some(listen) => format!("listen for partners on {listen} ([backend] listen)"),
            None => "answer partners".into(),
        })
    }
}

/// What the configuration says of how partners want to be spoken to.
fn manners(config: &Config) -> Manners {
    let set = |version: Version, quirks: &BTreeSet<Quirk>| {
        let version = match version {
            Version::Auto => None,
            Version::V1_0 => Some(wire::Version::V1_0),
            Version::V1_1 => Some(wire::Version::V1_1),
        };
        let dialect = Dialect {
            lower_hex: quirks.contains(&Quirk::LowerHex),
            old_regions: quirks.contains(&Quirk::OldRegions),
            reversed_cf_list: quirks.contains(&Quirk::ReversedCfList),
        };
        Set { version, dialect }
    };
    let partners = config.roaming.partner.iter();
    let partners = partners.map(|partner| (partner.net_id, set(partner.version, &partner.quirks)));
    let servers = config.join_server.elsewhere.iter();
    let servers = servers.map(|server| (server.join_euis.clone(), set(server.version, &server.quirks)));
    Manners::new(config.network.ns_id, partners.collect(), servers.collect())
}

/// The ways in that are no port of ours.
#[derive(Default)]
pub struct Reach {
    mapping: Option<Arc<Mapping>>,
    tunnels: Vec<Arc<Tunnel>>,
    front: Option<Front>,
}

impl Reach {
    /// Where the front listens, if we are one.
    pub fn front(&self) -> Option<SocketAddr> {
        self.front.as_ref().map(Front::address)
    }

    /// How they are, a line each.
    pub fn status(&self) -> Vec<String> {
        let mapping = self.mapping.iter().map(|mapping| match mapping.state() {
            mapping::State::Up { since, held } => {
                let wanted = mapping.wanted();
                let other = match held.external.port() == wanted {
                    true => String::new(),
                    false => format!(", and not at the port {wanted} that partners look for"),
                };
                let mapping::Held { external, router, by, .. } = held;
                format!("at {external}, which the router {router} forwards ({by}) since {since:.0}{other}")
            }
            mapping::State::Down(why) => format!("not through the router: {why}"),
        });
        let tunnels = self.tunnels.iter().map(|tunnel| match tunnel.state() {
            tunnel::State::Up { since, welcome } => format!(
                "through {} since {since:.0}, which sees us at {} and passes on {}",
                tunnel.server(),
                welcome.from,
                welcome.names.join(" ")
            ),
            tunnel::State::Down(why) => format!("not through {}: {why}", tunnel.server()),
        });
        let front = self.front.iter().flat_map(Front::status);
        mapping.chain(tunnels).chain(front).collect()
    }
}

/// Nobody can be asked.
pub struct Closed;

impl Peers for Closed {
    fn send(&self, to: Party, _: Request, _: Deadline) -> Boxed<'_, Result<Answer, PeerError>> {
        let why = "there is no [backend] with an identity in the configuration".to_string();
        Box::pin(std::future::ready(Err(PeerError::Forbidden { to, why })))
    }
}
